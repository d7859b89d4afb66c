//! Memory of parked workers: of each its own, and what the kernel holds for it; and how much of that is its network
//! namespace, which is measured by itself.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use stockade_client::Request;

use super::{AXIS, kib, look};
use crate::daemon::{ALL_PARKED, Daemon, TEMPLATE};
use crate::error::{BenchError, chain};
use crate::ours;
use crate::process::{self, settled_kernel_memory};
use crate::progress::Progress;
use crate::results::Results;
use crate::role;
use crate::session::Session;
use crate::spawn;

/// The case of a daemon that keeps as many as it ever does.
const MOST: &str = "most parked";
/// How many it isn't measured for, and why.
const MORE: (&str, &str) = ("1000 parked", "a daemon keeps 64 at the most: see `most parked`");
/// What a parked worker's process is called.
const WORKER: &str = "stockade-init";
/// What the bound is on.
const BUT_NETWORK: &str = "worker but for its network";
/// Workspaces in use at once, each with a template: each asks for as many workers as its runs come fast, so that many
/// ask for the most together though no single one comes so fast.
const WORKSPACES: u32 = 24;
/// Runs at once in one of them: as many as make a demand out of nothing.
const AT_ONCE: u32 = 48;
/// The fewest that count as more than those of the first runs.
const FEWEST: u32 = 8;
/// When the number hasn't changed for so long, it is looked at; and how long we wait for that.
const STEADY: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

pub(super) fn measure(session: &Session, results: &mut Results) {
    for (case, measure) in [("0 parked", none as fn(&Session, &mut Results, &str) -> _), (MOST, most)] {
        let _progress = Progress::begin(AXIS.name, case, 1);
        if let Err(error) = measure(session, results, case) {
            results.not_measured(case, "worker", chain(&error));
        }
    }
    results.not_measured(MORE.0, "worker", MORE.1);
}

fn none(session: &Session, results: &mut Results, case: &str) -> Result<(), BenchError> {
    let daemon = Daemon::start(&session.ground, TEMPLATE)?;
    let mut client = daemon.connect()?;
    ours::timed(&mut client, &ours::request(&session.ground, "default", &["/bin/true"])?)?;
    steady(&daemon)?;
    look(results, case, &daemon, true);
    daemon.stop()
}

/// First every workspace is used once, which makes its template and little more; then all of them are used much. What
/// the kernel's memory grows with between is the workers' alone.
fn most(session: &Session, results: &mut Results, case: &str) -> Result<(), BenchError> {
    let daemon = Daemon::start(&session.ground, ALL_PARKED)?;
    let workspaces = (0..WORKSPACES).map(|number| session.ground.directory(&format!("parked/{number}")));
    let workspaces = workspaces.collect::<Result<Vec<PathBuf>, _>>()?;
    let request = |workspace: &PathBuf| ours::request_in(workspace, "default", &["/bin/true"]);
    let requests = workspaces.iter().map(request).collect::<Result<Vec<Request>, _>>()?;
    demand(&daemon, &requests, 1)?;
    let few = steady(&daemon)?;
    let kernel = settled_kernel_memory()?;
    demand(&daemon, &requests, AT_ONCE)?;
    let many = steady(&daemon)?;
    let grown = settled_kernel_memory()?.saturating_sub(kernel);
    if many < few + FEWEST {
        return Err(BenchError::Wrong(format!("{few} were parked after a run each, and {many} after many")));
    }
    look(results, case, &daemon, true);
    let each = kib(grown) / f64::from(many - few);
    results.number(case, "kernel, a worker", "grown", each, "KiB");
    daemon.stop()?;
    let network = role::network_namespace_kib(many)?;
    results.number(case, "kernel, a network namespace", "grown", network, "KiB");
    but_network(results, case, each, network);
    Ok(())
}

/// What the bound is on: a worker's own memory and the kernel's for it, less its network namespace's.
fn but_network(results: &mut Results, case: &str, kernel: f64, network: f64) {
    match results.find(case, &format!("{WORKER}, each"), "pss") {
        Some(own) => results.number(case, BUT_NETWORK, "pss and kernel", own + kernel - network, "KiB"),
        None => results.not_measured(case, BUT_NETWORK, "its own memory can't be looked at"),
    }
}

/// So many runs at once in each workspace, one workspace after the other.
fn demand(daemon: &Daemon, requests: &[Request], at_once: u32) -> Result<(), BenchError> {
    let mut client = daemon.connect()?;
    for request in requests {
        for _ in 0..at_once {
            client.begin(request)?;
        }
        for _ in 0..at_once {
            ours::expect_success(&ours::next_end(&mut client)?)?;
        }
    }
    Ok(())
}

/// How many workers there are once their number stands still and no run goes on.
fn steady(daemon: &Daemon) -> Result<u32, BenchError> {
    let began = Instant::now();
    let (mut count, mut since) = (workers(daemon)?, Instant::now());
    while since.elapsed() < STEADY {
        if began.elapsed() > PATIENCE {
            return Err(BenchError::Wrong(format!(
                "the number of parked workers didn't settle in {PATIENCE:?}"
            )));
        }
        spawn::moment(LOOK);
        let now = workers(daemon)?;
        if now != count {
            (count, since) = (now, Instant::now());
        }
    }
    Ok(count)
}

fn workers(daemon: &Daemon) -> Result<u32, BenchError> {
    let tree = process::tree(daemon.pid())?;
    Ok(u32::try_from(tree.iter().filter(|process| process.name == WORKER).count()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounds::{self, Verdict};

    #[test]
    fn the_bound_on_a_parked_worker_is_on_what_is_its_own_and_the_kernels_less_its_network() {
        let bounds = bounds::all().unwrap();
        let bound = bounds.iter().find(|bound| bound.what.starts_with("a parked worker")).unwrap();
        let mut results = Results::new("memory");
        but_network(&mut results, MOST, 300.0, 150.0);
        assert!(
            matches!(bound.judge(&results), Verdict::NotMeasured(why) if why.contains("can't be looked at"))
        );
        let mut results = Results::new("memory");
        results.number(MOST, &format!("{WORKER}, each"), "pss", 30.0, "KiB");
        but_network(&mut results, MOST, 240.0, 150.0);
        assert_eq!(bound.judge(&results), Verdict::Measured { value: 120.0, limit: 120.0, met: true });
    }
}
