//! The floor: what the layers cost at the least, asked of the kernel without a daemon, and what making a worker of ours
//! takes.

use std::path::Path;
use std::time::Duration;

use super::Axis;
use crate::daemon::{DEFAULT, Daemon, StartUp};
use crate::error::BenchError;
use crate::floor::parked::Parked;
use crate::floor::steps::{LONG, STEPS};
use crate::ours;
use crate::provenance::Plan;
use crate::results::Results;
use crate::role::Spawner;
use crate::rounds::{Entrants, Variant, interleave};
use crate::session::{Session, times};
use crate::spawn::{self, whole};
use crate::variants::{BARE, BARE_SOCKET};

pub(crate) const AXIS: Axis = Axis {
    name: "floor",
    rounds: 100,
    round: Duration::from_millis(320),
    besides: Duration::from_secs(5),
    measure,
};

const TRUE: [&str; 1] = ["/bin/true"];
/// By which plan.
const PARKED: [(&str, Plan); 2] = [("floor-system", Plan::System), ("floor-user", Plan::User)];
/// Workers of ours: variant, policy and the daemon, which each has its own of, since it tells of the newest worker only.
const MADE: [(&str, &str, StartUp); 2] = [
    ("made", "default", StartUp { name: "made", ..DEFAULT }),
    ("made-moderate", "moderate", StartUp { name: "made-moderate", ..DEFAULT }),
];
/// The one layer that stays out.
const IDMAP: (&str, &str) = ("idmap", "no crate that this one may use has mount_setattr(2)");
/// Of so many rounds of the steps one of workers, which are asked for and waited for.
const MADE_OF: u32 = 4;
/// The same, of the step that takes long.
const LONG_OF: u32 = 10;
/// A daemon tells a tenth of a second later.
const TOLD: Duration = Duration::from_millis(130);

fn measure(session: &mut Session) -> Result<Results, BenchError> {
    let rounds = session.rounds(&AXIS);
    let (mut results, mut shuffle) = session.begin(&AXIS);
    let place = session.ground.directory("floor")?;
    let session = &*session;
    interleave(&mut results, &mut shuffle, times("true, parked", rounds), parked(session, &place));
    interleave(&mut results, &mut shuffle, times("one step", rounds), steps(session, &place));
    results.not_measured("one step", IDMAP.0, IDMAP.1);
    let case = times("one step, many times over", rounds.div_ceil(LONG_OF));
    interleave(&mut results, &mut shuffle, case, long(session, &place));
    let mut entrants = Entrants::default();
    for (name, policy, how) in MADE.into_iter().filter(|(name, ..)| session.only.wants(name)) {
        entrants.add(name, made(session, name, policy, how));
    }
    let case = times("a worker of ours, made", rounds.div_ceil(MADE_OF));
    interleave(&mut results, &mut shuffle, case, entrants);
    Ok(results)
}

fn bare(session: &Session) -> Variant<'_> {
    Variant::new(BARE, || whole(&session.null, || spawn::command(TRUE[0])))
}

/// A process for each sample, made before its clock starts and cleared away after it has stopped: the bare one too, so that
/// they differ in nothing but their layers.
fn parked<'a>(session: &'a Session, place: &'a Path) -> Entrants<'a> {
    let mut entrants = Entrants::default();
    let bare = || second(&mut Spawner::start(&TRUE)?);
    entrants.add(BARE_SOCKET, Ok(Variant::new(BARE_SOCKET, bare)));
    for (name, plan) in PARKED.into_iter().filter(|(name, _)| session.only.wants(name)) {
        let sample = move || second(Parked::make(plan, place, &TRUE)?.spawner());
        entrants.add(name, Ok(Variant::new(name, sample).against(BARE_SOCKET)));
    }
    entrants
}

/// The second spawn of a process: what its first one pages in, a worker of ours has from its template.
fn second(spawner: &mut Spawner) -> Result<f64, BenchError> {
    spawner.timed()?;
    spawner.timed()
}

fn steps<'a>(session: &'a Session, place: &'a Path) -> Entrants<'a> {
    let mut entrants = Entrants::default();
    entrants.add(BARE, Ok(bare(session)));
    for step in STEPS.into_iter().filter(|step| session.only.wants(step.name)) {
        entrants.add(step.name, Ok(Variant::new(step.name, move || step.take(place)).against(BARE)));
    }
    entrants
}

/// By itself: what it leaves for the kernel to clear away would hit a bare spawn beside it.
fn long<'a>(session: &Session, place: &'a Path) -> Entrants<'a> {
    let mut entrants = Entrants::default();
    if session.only.wants(LONG.name) {
        entrants.add(LONG.name, Ok(Variant::new(LONG.name, move || LONG.take(place))));
    }
    entrants
}

/// From the launcher's order for a worker until it's read back, as `status` tells it.
fn made<'a>(session: &Session, name: &str, policy: &str, how: StartUp) -> Result<Variant<'a>, BenchError> {
    let daemon = Daemon::start(&session.ground, how)?;
    let mut client = daemon.connect()?;
    let request = ours::request(&session.ground, policy, &TRUE)?;
    Ok(Variant::new(name, move || {
        // Held as long as it's asked.
        let _daemon = &daemon;
        ours::timed(&mut client, &request)?;
        spawn::moment(TOLD);
        match client.status()?.warmth.refill_us {
            0 => Err(BenchError::Wrong("no worker was made ahead".into())),
            took => Ok(f64::from(u32::try_from(took).unwrap_or(u32::MAX))),
        }
    }))
}
