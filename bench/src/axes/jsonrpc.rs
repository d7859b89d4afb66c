//! What JSON-RPC adds to a run: `/bin/true` asked for over one daemon's socket by frames, by lines of JSON that are told every event,
//! and by lines that wait for the end, each round all of them.
//!
//! Frames pass the workspace's descriptor, as clients of theirs do, and once name its path, as JSON must. A client of JSON is ours: it writes a line and looks for the word that ends its run, since what a
//! client's own parser takes isn't the daemon's.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Axis;
use crate::daemon::{DEFAULT, Daemon};
use crate::error::BenchError;
use crate::ours;
use crate::results::Results;
use crate::rounds::{Entrants, Variant, interleave};
use crate::session::{Session, times};
use crate::spawn::{PATH, micros};
use crate::stats::median;

pub(crate) const AXIS: Axis = Axis {
    name: "jsonrpc",
    rounds: 1_000,
    round: Duration::from_millis(8),
    besides: Duration::from_secs(3),
    measure,
};

/// Runs before the first that counts.
const UNMEASURED: u32 = 20;
const CASE: &str = "true";
/// By frames.
const FRAMES: &str = "frames";
/// By frames, the workspace by its path.
const BY_PATH: &str = "frames-path";

fn measure(session: &mut Session) -> Result<Results, BenchError> {
    let rounds = session.rounds(&AXIS);
    let (mut results, mut shuffle) = session.begin(&AXIS);
    let daemon = Daemon::start(&session.ground, DEFAULT)?;
    let mut entrants = Entrants::default();
    entrants.add(FRAMES, frames(session, &daemon, FRAMES));
    entrants.add(BY_PATH, frames(session, &daemon, BY_PATH));
    for (name, wait) in [("json", false), ("json-wait", true)] {
        entrants.add(name, lines(session, &daemon, name, wait));
    }
    let taken = interleave(&mut results, &mut shuffle, times(CASE, rounds), entrants);
    let middle = |name: &str| {
        let sampled = taken.iter().find(|sampled| sampled.variant == name)?;
        median(sampled.samples.iter().copied().flatten())
    };
    // Beside frames that name the path it's what the form costs; beside those that pass the directory also what a path does, which
    // its owner's opener is asked for.
    for (beside, measure) in [(BY_PATH, "more than frames-path"), (FRAMES, "more than frames")] {
        for name in ["json", "json-wait"] {
            if let Some((json, frames)) = middle(name).zip(middle(beside)) {
                results.number(CASE, name, measure, json - frames, "us");
            }
        }
    }
    Ok(results)
}

fn frames<'a>(session: &Session, daemon: &Daemon, name: &'static str) -> Result<Variant<'a>, BenchError> {
    let mut client = daemon.connect()?;
    let mut request = ours::request(&session.ground, "default", &["/bin/true"])?;
    if name == BY_PATH {
        request = request.workspace_path(&session.ground.workspace);
    }
    let variant = Variant::new(name, move || ours::timed(&mut client, &request)).after(UNMEASURED);
    Ok(if name == FRAMES { variant } else { variant.against(FRAMES) })
}

fn lines<'a>(
    session: &Session,
    daemon: &Daemon,
    name: &'static str,
    wait: bool,
) -> Result<Variant<'a>, BenchError> {
    let mut writer = UnixStream::connect(&daemon.socket).map_err(BenchError::io("connect"))?;
    let mut reader = BufReader::new(writer.try_clone().map_err(BenchError::io("duplicate a socket"))?);
    let workspace = session.ground.workspace.to_string_lossy().into_owned();
    writer
        .write_all(b"{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\"}\n")
        .map_err(BenchError::io("write to the daemon"))?;
    let mut line = Vec::new();
    next(&mut reader, &mut line)?;
    let params = json!({
        "argv": ["/bin/true"], "policy": "default", "workspace": workspace, "env": { "PATH": PATH }, "wait": wait,
    });
    let asked = json!({ "jsonrpc": "2.0", "id": 1, "method": "exec", "params": params }).to_string() + "\n";
    let last: &[u8] = if wait { b"\"outcome\"" } else { b"run/exited" };
    let sample = move || {
        let began = Instant::now();
        writer.write_all(asked.as_bytes()).map_err(BenchError::io("write to the daemon"))?;
        loop {
            next(&mut reader, &mut line)?;
            let has = |word: &[u8]| line.windows(word.len()).any(|bytes| bytes == word);
            if has(last) {
                let took = began.elapsed();
                let success = b"{\"kind\":\"exited\",\"code\":0}";
                return if has(success) { Ok(micros(took)) } else { Err(said(&line)) };
            }
            if has(b"\"error\":{") {
                return Err(said(&line));
            }
        }
    };
    Ok(Variant::new(name, sample).against(BY_PATH).after(UNMEASURED))
}

fn next(reader: &mut BufReader<UnixStream>, line: &mut Vec<u8>) -> Result<(), BenchError> {
    line.clear();
    let read = reader.read_until(b'\n', line).map_err(BenchError::io("read from the daemon"))?;
    if read > 0 { Ok(()) } else { Err(BenchError::Wrong("the daemon closed the connection".into())) }
}

fn said(line: &[u8]) -> BenchError {
    BenchError::Wrong(format!("the daemon said {}", String::from_utf8_lossy(line)))
}
