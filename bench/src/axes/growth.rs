//! What more of something costs: ten to ten thousand policies, ten to a thousand idle connections. For each size a
//! daemon of its own; the runs that are timed go round and round between them.

use std::path::PathBuf;
use std::time::Duration;

use stockade_client::Client;

use super::Axis;
use crate::daemon::{DEFAULT, Daemon, StartUp};
use crate::error::{BenchError, chain};
use crate::ground::write_policy;
use crate::ours;
use crate::process::pss;
use crate::results::Results;
use crate::rounds::{Entrants, Variant, interleave};
use crate::session::{Session, times};
use crate::shuffle::Shuffle;
use crate::spawn::millis;

pub(crate) const AXIS: Axis = Axis {
    name: "growth",
    rounds: 300,
    round: Duration::from_millis(20),
    besides: Duration::from_secs(5),
    measure,
};

/// A size with the names of its variant and its daemon.
struct Size {
    count: u32,
    variant: &'static str,
    daemon: StartUp,
}

const fn size(count: u32, variant: &'static str, name: &'static str) -> Size {
    Size { count, variant, daemon: StartUp { name, ..DEFAULT } }
}

const POLICIES: [Size; 4] = [
    size(10, "10 policies", "policies-10"),
    size(100, "100 policies", "policies-100"),
    size(1_000, "1,000 policies", "policies-1000"),
    size(10_000, "10,000 policies", "policies-10000"),
];
const CONNECTIONS: [Size; 3] = [
    size(10, "10 connections", "connections-10"),
    size(100, "100 connections", "connections-100"),
    size(1_000, "1,000 connections", "connections-1000"),
];

fn measure(session: &mut Session) -> Result<Results, BenchError> {
    let (mut results, mut shuffle) = session.begin(&AXIS);
    let with_policies = |size: &Size| -> Result<Grown, BenchError> {
        let directory = policies(session, size)?;
        let daemon = Daemon::start_with(&session.ground, size.daemon, &directory)?;
        Ok(Grown { daemon, _idle: Vec::new(), policy: "p0" })
    };
    compare(session, &mut results, &mut shuffle, "policies", &POLICIES, with_policies);
    let with_connections = |size: &Size| -> Result<Grown, BenchError> {
        let daemon = Daemon::start(&session.ground, size.daemon)?;
        let idle = (0..size.count).map(|_| daemon.connect()).collect::<Result<Vec<Client>, _>>()?;
        Ok(Grown { daemon, _idle: idle, policy: "default" })
    };
    compare(session, &mut results, &mut shuffle, "connections", &CONNECTIONS, with_connections);
    Ok(results)
}

/// A daemon that has much of something.
struct Grown {
    daemon: Daemon,
    /// Connections that say nothing.
    _idle: Vec<Client>,
    policy: &'static str,
}

fn compare(
    session: &Session,
    results: &mut Results,
    shuffle: &mut Shuffle,
    case: &str,
    sizes: &[Size],
    grow: impl Fn(&Size) -> Result<Grown, BenchError>,
) {
    let mut grown = Vec::new();
    let mut entrants = Entrants::default();
    for size in sizes {
        match grow(size) {
            Ok(daemon) => grown.push((size, daemon)),
            Err(error) => entrants.missing.push((size.variant.to_owned(), chain(&error))),
        }
    }
    for (size, grown) in &grown {
        results.number(&format!("{case}: start"), size.variant, "ready", millis(grown.daemon.ready), "ms");
        match pss(grown.daemon.pid()) {
            Ok(kib) => {
                let kib = f64::from(u32::try_from(kib).unwrap_or(u32::MAX));
                results.number(&format!("{case}: memory"), size.variant, "supervisor pss", kib, "KiB");
            }
            Err(error) => results.not_measured(&format!("{case}: memory"), size.variant, chain(&error)),
        }
        let prepare = || -> Result<Variant<'_>, BenchError> {
            let mut client = grown.daemon.connect()?;
            let request = ours::request(&session.ground, grown.policy, &["/bin/true"])?;
            let variant = Variant::new(size.variant, move || ours::timed(&mut client, &request));
            let is_smallest = size.count == sizes[0].count;
            Ok(if is_smallest { variant } else { variant.against(sizes[0].variant) })
        };
        entrants.add(size.variant, prepare());
    }
    interleave(results, shuffle, times(&format!("{case}: a run"), session.rounds(&AXIS)), entrants);
}

/// So many policies in a directory: `p0`, `p1` and so on, each on top of a shipped one.
fn policies(session: &Session, size: &Size) -> Result<PathBuf, BenchError> {
    let directory = session.ground.directory(&format!("policies-{}", size.count))?;
    for number in 0..size.count {
        let text = "description = \"One of many\"\nextends = \"default\"\n[limits]\nwall-time = \"30s\"\n";
        write_policy(&directory, &format!("p{number}"), text)?;
    }
    Ok(directory)
}
