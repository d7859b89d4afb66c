//! Bytes a second of output: relayed through the daemon as events, passed as the client's own pipe, and through a plain
//! pipe of a child's. The writer is the same `dd` each time; the clock runs from the first byte to the last, so that
//! what a start costs has no part in it.

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use stockade_client::{Client, ExecEvent, Request};

use super::Axis;
use crate::daemon::{DEFAULT, Daemon};
use crate::error::BenchError;
use crate::ours;
use crate::results::{Better, Results};
use crate::rounds::{Case, Entrants, Variant, interleave};
use crate::session::Session;
use crate::spawn;
use crate::variants::PIPE;

pub(crate) const AXIS: Axis = Axis {
    name: "output",
    rounds: 20,
    round: Duration::from_millis(1_000),
    besides: Duration::from_secs(3),
    measure,
};
/// Blocks of output, of 64 KiB.
const BLOCKS: usize = 16 * 1024;
const BLOCK: usize = 64 * 1024;
/// Bytes a reader asks for at once.
const READ: usize = 128 * 1024;

fn measure(session: &mut Session) -> Result<Results, BenchError> {
    let rounds = session.rounds(&AXIS);
    let (mut results, mut shuffle) = session.begin(&AXIS);
    let daemon = Daemon::start(&session.ground, DEFAULT)?;
    let count = format!("count={BLOCKS}");
    let words = ["/bin/dd", "if=/dev/zero", "bs=64K", &count, "status=none"];
    let mut entrants = Entrants::default();
    entrants.add(PIPE, Ok(Variant::new(PIPE, || through_a_pipe(&words))));
    if session.only.wants("relayed") {
        let prepare = || -> Result<Variant<'_>, BenchError> {
            let mut client = daemon.connect()?;
            let request = ours::request(&session.ground, "bench-relayed", &words)?;
            Ok(Variant::new("relayed", move || relayed(&mut client, &request)).against(PIPE))
        };
        entrants.add("relayed", prepare());
    }
    if session.only.wants("passed") {
        let prepare = || -> Result<Variant<'_>, BenchError> {
            let mut client = daemon.connect()?;
            let ground = &session.ground;
            Ok(Variant::new("passed", move || {
                let (request, pipe) = ours::passed(ground, &words)?;
                passed(&mut client, request, pipe)
            })
            .against(PIPE))
        };
        entrants.add("passed", prepare());
    }
    let case = Case { name: "1 GiB", unit: "MiB/s", better: Better::More, rounds };
    interleave(&mut results, &mut shuffle, case, entrants);
    Ok(results)
}

/// Bytes that arrive, and when.
#[derive(Default)]
struct Meter {
    first: Option<(Instant, usize)>,
    last: Option<Instant>,
    total: usize,
}

impl Meter {
    fn count(&mut self, bytes: usize) {
        let now = Instant::now();
        self.first.get_or_insert((now, bytes));
        self.last = Some(now);
        self.total += bytes;
    }

    /// MiB a second, of what came after the first bytes.
    #[allow(clippy::cast_precision_loss, reason = "sizes lie far below 2^52")]
    fn rate(&self) -> Result<f64, BenchError> {
        let expected = BLOCKS * BLOCK;
        if self.total != expected {
            return Err(BenchError::Wrong(format!("{} bytes of output came of {expected}", self.total)));
        }
        match (self.first, self.last) {
            (Some((first, bytes)), Some(last)) if last > first => {
                Ok((self.total - bytes) as f64 / (1024.0 * 1024.0) / (last - first).as_secs_f64())
            }
            _ => Err(BenchError::Wrong("all output came at once".into())),
        }
    }

    fn read_all(&mut self, mut from: impl Read) -> Result<(), BenchError> {
        let mut buffer = vec![0; READ];
        loop {
            match from.read(&mut buffer).map_err(BenchError::io("read output"))? {
                0 => return Ok(()),
                bytes => self.count(bytes),
            }
        }
    }
}

fn through_a_pipe(words: &[&str]) -> Result<f64, BenchError> {
    let mut command = spawn::command(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(BenchError::io("start dd"))?;
    let mut meter = Meter::default();
    if let Some(pipe) = child.stdout.take() {
        meter.read_all(pipe)?;
    }
    let status = child.wait().map_err(BenchError::io("wait for dd"))?;
    spawn::succeeded(status, || "dd".into())?;
    meter.rate()
}

fn relayed(client: &mut Client, request: &Request) -> Result<f64, BenchError> {
    let mut meter = Meter::default();
    let exec_id = client.exec(request)?;
    for event in client.events(exec_id) {
        match event?.event {
            ExecEvent::Output { bytes, .. } => meter.count(bytes.len()),
            ExecEvent::Exited { outcome, .. } => ours::expect_success(&outcome)?,
            _ => {}
        }
    }
    meter.rate()
}

fn passed(client: &mut Client, request: Request, pipe: impl Read) -> Result<f64, BenchError> {
    let mut meter = Meter::default();
    let exec_id = client.exec(&request)?;
    // Our ends for writing go: what is left open is the tool's.
    drop(request);
    meter.read_all(pipe)?;
    for event in client.events(exec_id) {
        match event?.event {
            ExecEvent::Output { .. } => {
                return Err(BenchError::Wrong("the output was relayed, not passed".into()));
            }
            ExecEvent::Exited { outcome, .. } => ours::expect_success(&outcome)?,
            _ => {}
        }
    }
    meter.rate()
}
