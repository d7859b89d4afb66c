//! From a deadline to the last process of a tree of fifty.
//!
//! The deadline is a run's wall time counted from its `Started`, as the client sees it. `Exited` comes when the tree is
//! reaped: pid 1 of its namespace can't be waited for before all others are; at level `minimal` the launcher has walked
//! them. `bare` is the same tree by itself: its process group is killed, and its pipe closed by the last of it.

use std::io::{PipeReader, Read};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use stockade_client::{Client, ExecEvent, ExecId, Outcome, Request};

use super::Axis;
use crate::daemon::{DEFAULT, Daemon};
use crate::error::BenchError;
use crate::ours;
use crate::results::{Better, Results};
use crate::rounds::{Case, Entrants, Variant, interleave};
use crate::session::Session;
use crate::spawn::{self, millis};
use crate::variants::BARE;

pub(crate) const AXIS: Axis = Axis {
    name: "kill",
    rounds: 15,
    round: Duration::from_millis(3_100),
    besides: Duration::from_secs(4),
    measure,
};
/// The wall time: long enough for the tree to stand before it, or the round doesn't count.
const WALL: Duration = Duration::from_secs(1);
/// Fifty processes, the shell among them; `up` once they are there.
const TREE: &str = "i=0; while [ $i -lt 49 ]; do sleep 1000 & i=$((i+1)); done; echo up; wait";
/// How long the end may take before the round fails.
const PATIENCE: Duration = Duration::from_secs(20);

fn measure(session: &mut Session) -> Result<Results, BenchError> {
    let rounds = session.rounds(&AXIS);
    let (mut results, mut shuffle) = session.begin(&AXIS);
    let daemon = Daemon::start(&session.ground, DEFAULT)?;
    let mut entrants = Entrants::default();
    entrants.add(BARE, Ok(Variant::new(BARE, bare)));
    for (name, policy) in [("deadline", "default"), ("deadline-minimal", "minimal")] {
        if session.only.wants(name) {
            entrants.add(name, deadline(session, &daemon, name, policy));
        }
    }
    if session.only.wants("deadline-closed") {
        entrants.add("deadline-closed", closed(session, &daemon));
    }
    if session.only.wants("cancel") {
        entrants.add("cancel", cancel(session, &daemon));
    }
    let case = Case { name: "50 processes", unit: "ms", better: Better::Less, rounds };
    interleave(&mut results, &mut shuffle, case, entrants);
    Ok(results)
}

const SHELL: [&str; 3] = ["/bin/sh", "-c", TREE];

fn deadline<'a>(
    session: &Session,
    daemon: &Daemon,
    name: &str,
    policy: &str,
) -> Result<Variant<'a>, BenchError> {
    let mut client = daemon.connect()?;
    let request = ours::within(ours::request(&session.ground, policy, &SHELL)?, WALL);
    Ok(Variant::new(name, move || {
        let exec_id = client.exec(&request)?;
        let started = until_up(&mut client, exec_id)?;
        let ended = until_end(&mut client, exec_id, |outcome| matches!(outcome, Outcome::TimedOut { .. }))?;
        Ok(millis(ended.saturating_duration_since(started + WALL)))
    }))
}

fn cancel<'a>(session: &Session, daemon: &Daemon) -> Result<Variant<'a>, BenchError> {
    let mut client = daemon.connect()?;
    let request = ours::request(&session.ground, "default", &SHELL)?;
    Ok(Variant::new("cancel", move || {
        let exec_id = client.exec(&request)?;
        until_up(&mut client, exec_id)?;
        let asked = Instant::now();
        client.cancel(exec_id)?;
        let ended = until_end(&mut client, exec_id, |outcome| matches!(outcome, Outcome::Cancelled { .. }))?;
        Ok(millis(ended - asked))
    }))
}

/// The pipe is the tool's own, so every process of the tree holds it.
fn closed<'a>(session: &'a Session, daemon: &Daemon) -> Result<Variant<'a>, BenchError> {
    let mut client = daemon.connect()?;
    Ok(Variant::new("deadline-closed", move || {
        let (request, mut pipe): (Request, PipeReader) = ours::passed(&session.ground, &SHELL)?;
        let request = ours::within(request, WALL);
        let exec_id = client.exec(&request)?;
        drop(request);
        let started = until(&mut client, exec_id, |event| matches!(event, ExecEvent::Started { .. }))?;
        expect_up(&mut pipe)?;
        let ended = until_closed(&mut pipe)?;
        until_end(&mut client, exec_id, |outcome| matches!(outcome, Outcome::TimedOut { .. }))?;
        Ok(millis(ended.saturating_duration_since(started + WALL)))
    }))
}

fn bare() -> Result<f64, BenchError> {
    let mut command = spawn::command(SHELL[0]);
    command.args(&SHELL[1..]).process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(BenchError::io("start a tree"))?;
    let group = Pid::from_child(&child);
    let mut go = || -> Result<f64, BenchError> {
        let mut pipe =
            child.stdout.take().ok_or_else(|| BenchError::Wrong("a tree without a pipe".into()))?;
        expect_up(&mut pipe)?;
        let asked = Instant::now();
        kill_process_group(group, Signal::KILL).map_err(BenchError::errno("kill a process group"))?;
        Ok(millis(until_closed(&mut pipe)? - asked))
    };
    let took = go();
    let _ = kill_process_group(group, Signal::KILL);
    child.wait().map_err(BenchError::io("wait for a tree"))?;
    took
}

fn expect_up(pipe: &mut impl Read) -> Result<(), BenchError> {
    let mut up = [0; 3];
    pipe.read_exact(&mut up).map_err(BenchError::io("hear from a tree"))?;
    match &up {
        b"up\n" => Ok(()),
        _ => Err(BenchError::Wrong("the tree said something else than `up`".into())),
    }
}

fn until_closed(pipe: &mut (impl Read + std::os::fd::AsFd)) -> Result<Instant, BenchError> {
    if !spawn::readable_within(&*pipe, PATIENCE + WALL)? {
        return Err(BenchError::Wrong("the tree holds its pipe long after its deadline".into()));
    }
    match pipe.read(&mut [0; 1]).map_err(BenchError::io("read a tree's pipe"))? {
        0 => Ok(Instant::now()),
        _ => Err(BenchError::Wrong("the tree said more than `up`".into())),
    }
}

/// When `Started` came; waits on until the tree stands.
fn until_up(client: &mut Client, exec_id: ExecId) -> Result<Instant, BenchError> {
    let started = until(client, exec_id, |event| matches!(event, ExecEvent::Started { .. }))?;
    until(client, exec_id, |event| matches!(event, ExecEvent::Output { .. }))?;
    Ok(started)
}

fn until_end(
    client: &mut Client,
    exec_id: ExecId,
    expected: impl Fn(&Outcome) -> bool,
) -> Result<Instant, BenchError> {
    let mut seen = None;
    let ended = until(client, exec_id, |event| match event {
        ExecEvent::Exited { outcome, .. } => {
            seen = Some(outcome.clone());
            true
        }
        _ => false,
    })?;
    match seen {
        Some(outcome) if expected(&outcome) => Ok(ended),
        other => Err(BenchError::Wrong(format!("the tree ended otherwise than it should: {other:?}"))),
    }
}

/// When an event of this kind came.
fn until(
    client: &mut Client,
    exec_id: ExecId,
    mut wanted: impl FnMut(&ExecEvent) -> bool,
) -> Result<Instant, BenchError> {
    for event in client.events(exec_id) {
        let event = event?.event;
        if wanted(&event) {
            return Ok(Instant::now());
        }
        if let ExecEvent::Exited { outcome, .. } = event {
            return Err(BenchError::Wrong(format!("the tree didn't stand in time: {outcome:?}")));
        }
    }
    Err(BenchError::Wrong("the run's events ended early".into()))
}
