//! Memory of the daemon's processes (PSS): fresh, after a thousand runs, with parked workers, and with many runs going
//! on; how long all of those took to start; and how much the kernel's own memory grew with each.
//!
//! Measured once, not in rounds: nothing here is a time that another program could disturb but the starts of all runs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use stockade_client::ExecEvent;
use stockade_protocol::client::ServerMessage;

use crate::daemon::{DEFAULT, Daemon, MANY_SLOTS};
use crate::error::{BenchError, chain};
use crate::ours;
use crate::process::{self, Process, kernel_memory, pss};
use crate::results::Results;
use crate::session::Session;
use crate::spawn::{self, millis};

/// Runs before the daemon's memory is looked at again.
const RUNS_BEFORE: u32 = 1_000;
/// How many parked workers are looked at.
const PARKED: [u32; 2] = [100, 1_000];
/// How many runs at once.
const RUNNING: [u32; 2] = [100, 1_000];

/// How long the last run's processes may take to go, and how often we look.
const SETTLING: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(5);

/// Processes that there are one of, by the names they give themselves (which the kernel cuts at 15 bytes).
const OURS: [(&str, &str); 4] = [
    ("stockade", "supervisor"),
    ("stockade-launch", "launcher"),
    ("stockade-relay", "relay"),
    ("stockade-monito", "monitor"),
];

pub(crate) fn measure(session: &mut Session) -> Result<Results, BenchError> {
    let (mut results, _) = session.begin("memory", 1);
    let daemon = Daemon::start(&session.ground, DEFAULT)?;
    let mut client = daemon.connect()?;
    let request = ours::request(&session.ground, "default", &["/bin/true"])?;
    ours::timed(&mut client, &request)?;
    look(&mut results, "idle", &daemon, None);
    for _ in 0..session.rounds(RUNS_BEFORE) {
        ours::timed(&mut client, &request)?;
    }
    look(&mut results, &format!("idle, after {} runs", session.rounds(RUNS_BEFORE)), &daemon, None);
    drop(client);
    daemon.stop()?;
    for parked in PARKED {
        results.not_measured(&format!("{parked} parked"), "worker", "there is no pool of parked workers");
    }
    for running in RUNNING {
        let case = format!("{running} running");
        if let Err(error) = with_running(session, &mut results, &case, running) {
            results.not_measured(&case, "all", chain(&error));
        }
    }
    Ok(results)
}

fn with_running(
    session: &Session,
    results: &mut Results,
    case: &str,
    running: u32,
) -> Result<(), BenchError> {
    let daemon = Daemon::start(&session.ground, MANY_SLOTS)?;
    let mut client = daemon.connect()?;
    let request = ours::request(&session.ground, "bench-long", &["/bin/sleep", "3600"])?;
    let kernel = kernel_memory()?;
    let began = Instant::now();
    for _ in 0..running {
        client.begin(&request)?;
    }
    let mut started = 0;
    while started < running {
        match client.receive(None)? {
            ServerMessage::Event { event: ExecEvent::Started { .. }, .. } => started += 1,
            ServerMessage::Event { event: ExecEvent::Exited { outcome, .. }, .. } => {
                return Err(BenchError::Wrong(format!(
                    "a run ended after {started} had started: {outcome:?}"
                )));
            }
            ServerMessage::Denied { denied, .. } => return Err(ours::denial(&denied)),
            _ => {}
        }
    }
    results.number(case, "all", "started within", millis(began.elapsed()), "ms");
    let grown = kernel_memory()?.saturating_sub(kernel);
    look(results, case, &daemon, Some(running));
    let each = f64::from(u32::try_from(grown).unwrap_or(u32::MAX)) / f64::from(running);
    results.number(case, "kernel, a run", "grown", each, "KiB");
    drop(client);
    daemon.stop()
}

/// The daemon's processes once those of the last run are gone: `Exited` is told before they all are.
fn settled(daemon: &Daemon) -> Result<Vec<Process>, BenchError> {
    let began = Instant::now();
    loop {
        let tree = process::tree(daemon.pid())?;
        let is_ours = |process: &Process| OURS.iter().any(|(name, _)| *name == process.name);
        if tree.iter().all(is_ours) || began.elapsed() > SETTLING {
            return Ok(tree);
        }
        spawn::moment(LOOK);
    }
}

/// PSS by the kind of process; what isn't one of the daemon's own is a run's.
fn look(results: &mut Results, case: &str, daemon: &Daemon, running: Option<u32>) {
    let tree = if running.is_some() { process::tree(daemon.pid()) } else { settled(daemon) };
    let tree = match tree {
        Ok(tree) => tree,
        Err(error) => return results.not_measured(case, "all", chain(&error)),
    };
    let mut kinds: BTreeMap<String, (u64, u32)> = BTreeMap::new();
    for process in tree {
        let known = OURS.iter().find(|(name, _)| *name == process.name).map(|(_, kind)| *kind);
        // The supervisor's own name is its program's, and so is that of whoever was just cloned from it.
        let kind = match known {
            Some("supervisor") if process.pid != daemon.pid() => "runs",
            Some(kind) => kind,
            None if running.is_some() => "runs",
            None => process.name.as_str(),
        };
        match pss(process.pid) {
            Ok(kib) => {
                let sum = kinds.entry(kind.to_owned()).or_default();
                *sum = (sum.0 + kib, sum.1 + 1);
            }
            Err(error) => results.not_measured(case, kind, chain(&error)),
        }
    }
    for (kind, (kib, count)) in kinds {
        let kib = f64::from(u32::try_from(kib).unwrap_or(u32::MAX));
        match running {
            Some(running) if kind == "runs" => {
                results.number(case, "a run", "pss", kib / f64::from(running), "KiB");
                results.number(case, "a run", "processes", f64::from(count) / f64::from(running), "");
            }
            _ => {
                results.number(case, &kind, "pss", kib, "KiB");
                results.number(case, &kind, "processes", f64::from(count), "");
            }
        }
    }
}
