//! Memory of the daemon's processes, and of a run's (PSS): fresh, after a thousand runs, with parked workers (`parked`),
//! and with many runs going on; how long all of those took to start; and how much the kernel's own memory grew with each.
//!
//! Measured once, not in rounds: nothing here is a time that another program could disturb but the starts of all runs.

mod parked;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use stockade_client::ExecEvent;
use stockade_protocol::client::ServerMessage;

use super::Axis;
use crate::daemon::{DEFAULT, Daemon, MANY_SLOTS};
use crate::error::{BenchError, chain};
use crate::ours;
use crate::process::{self, Process, kernel_memory, pss, settled_kernel_memory};
use crate::progress::Progress;
use crate::results::Results;
use crate::session::Session;
use crate::spawn::{self, millis};

/// Rounds are the runs before the daemon's memory is looked at again.
pub(crate) const AXIS: Axis = Axis {
    name: "memory",
    rounds: 1_000,
    round: Duration::from_millis(2),
    besides: Duration::from_secs(18),
    measure,
};
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

fn measure(session: &mut Session) -> Result<Results, BenchError> {
    let (mut results, _) = session.begin(&AXIS);
    let daemon = Daemon::start(&session.ground, DEFAULT)?;
    let mut client = daemon.connect()?;
    let request = ours::request(&session.ground, "default", &["/bin/true"])?;
    ours::timed(&mut client, &request)?;
    look(&mut results, "idle", &daemon, false);
    let rounds = session.rounds(&AXIS);
    let mut progress = Progress::begin(AXIS.name, "idle", rounds);
    for round in 0..rounds {
        progress.over(round);
        ours::timed(&mut client, &request)?;
    }
    drop(progress);
    look(&mut results, &format!("idle, after {rounds} runs"), &daemon, false);
    drop(client);
    daemon.stop()?;
    parked::measure(session, &mut results);
    for running in RUNNING {
        let case = format!("{running} running");
        let _progress = Progress::begin(AXIS.name, &case, 1);
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
    let kernel = settled_kernel_memory()?;
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
    look(results, case, &daemon, true);
    results.number(case, "kernel, a run", "grown", kib(grown) / f64::from(running), "KiB");
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

/// PSS by the kind of process: of the daemon's own in whole, of a run's the mean of each kind.
fn look(results: &mut Results, case: &str, daemon: &Daemon, runs: bool) {
    let tree = if runs { process::tree(daemon.pid()) } else { settled(daemon) };
    let tree = match tree {
        Ok(tree) => tree,
        Err(error) => return results.not_measured(case, "all", chain(&error)),
    };
    let mut kinds: BTreeMap<String, Kind> = BTreeMap::new();
    for process in tree {
        let own = OURS.iter().find(|(name, _)| *name == process.name).map(|(_, kind)| (*kind).to_owned());
        let is_own = own.is_some();
        let kind = kinds.entry(own.unwrap_or_else(|| format!("{}, each", process.name))).or_default();
        kind.count(pss(process.pid), is_own);
    }
    for (name, kind) in kinds {
        kind.write(results, case, &name);
    }
}

/// What is known of the processes of one kind.
#[derive(Default)]
struct Kind {
    kib: u64,
    count: u32,
    in_whole: bool,
    /// How many can't be looked at, and why the first of them can't.
    closed: Option<(u32, String)>,
}

impl Kind {
    fn count(&mut self, pss: Result<u64, BenchError>, in_whole: bool) {
        self.count += 1;
        self.in_whole = in_whole;
        match pss {
            Ok(kib) => self.kib += kib,
            Err(error) => self.closed.get_or_insert_with(|| (0, chain(&error))).0 += 1,
        }
    }

    /// No sum and no mean where a part is missing.
    fn write(self, results: &mut Results, case: &str, name: &str) {
        results.number(case, name, "processes", f64::from(self.count), "");
        if let Some((closed, why)) = self.closed {
            let why = format!("{closed} of {} can't be looked at; the first: {why}", self.count);
            return results.not_measured(case, name, why);
        }
        let kib = if self.in_whole { kib(self.kib) } else { kib(self.kib) / f64::from(self.count) };
        results.number(case, name, "pss", kib, "KiB");
    }
}

fn kib(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(kind: Kind) -> Results {
        let mut results = Results::new("memory");
        kind.write(&mut results, "idle", "it");
        results
    }

    #[test]
    fn the_daemons_own_are_summed_and_a_runs_are_averaged() {
        for (in_whole, expected) in [(true, 300.0), (false, 150.0)] {
            let mut kind = Kind::default();
            kind.count(Ok(100), in_whole);
            kind.count(Ok(200), in_whole);
            let results = written(kind);
            assert_eq!(results.find("idle", "it", "pss"), Some(expected));
            assert_eq!(results.find("idle", "it", "processes"), Some(2.0));
        }
    }

    #[test]
    fn a_kind_with_one_that_cannot_be_looked_at_has_no_number_and_one_reason() {
        let mut kind = Kind::default();
        kind.count(Ok(100), false);
        kind.count(Err(BenchError::Wrong("closed".into())), false);
        kind.count(Err(BenchError::Wrong("closed too".into())), false);
        let results = written(kind);
        assert_eq!(results.find("idle", "it", "pss"), None);
        let expected = "2 of 3 can't be looked at; the first: closed";
        assert_eq!(results.why_not("idle", "it"), Some(expected));
    }
}
