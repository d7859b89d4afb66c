//! The daemon's start: until its socket accepts, until its first run has ended, and until the client whose connection has started
//! it is answered.

use std::time::{Duration, Instant};

use super::Axis;
use crate::daemon::{DEFAULT, Daemon, StartUp};
use crate::error::BenchError;
use crate::ours;
use crate::results::{Better, Results};
use crate::rounds::{Case, Entrants, Variant, interleave};
use crate::session::Session;
use crate::spawn::millis;

pub(crate) const AXIS: Axis = Axis {
    name: "start",
    rounds: 100,
    round: Duration::from_millis(55),
    besides: Duration::from_secs(1),
    measure,
};

fn measure(session: &mut Session) -> Result<Results, BenchError> {
    let rounds = session.rounds(&AXIS);
    let (mut results, mut shuffle) = session.begin(&AXIS);
    let case = Case { name: "start", unit: "ms", better: Better::Less, rounds };
    let session = &*session;
    let mut entrants = Entrants::default();
    if session.only.wants("ready") {
        entrants.add("ready", Ok(Variant::new("ready", || ready(session))));
    }
    if session.only.wants("first-run") {
        entrants.add("first-run", Ok(Variant::new("first-run", || first_run(session))));
    }
    if session.only.wants("activated") {
        entrants.add("activated", Ok(Variant::new("activated", || activated(session))));
    }
    interleave(&mut results, &mut shuffle, case, entrants);
    Ok(results)
}

fn ready(session: &Session) -> Result<f64, BenchError> {
    let daemon = Daemon::start(&session.ground, DEFAULT)?;
    let ready = millis(daemon.ready);
    daemon.stop()?;
    Ok(ready)
}

fn activated(session: &Session) -> Result<f64, BenchError> {
    let (daemon, took) = Daemon::activate(&session.ground, StartUp { name: "activated", ..DEFAULT })?;
    daemon.stop()?;
    Ok(millis(took))
}

fn first_run(session: &Session) -> Result<f64, BenchError> {
    let request = ours::request(&session.ground, "default", &["/bin/true"])?;
    let began = Instant::now();
    let daemon = Daemon::start(&session.ground, DEFAULT)?;
    ours::timed(&mut daemon.connect()?, &request)?;
    let took = millis(began.elapsed());
    daemon.stop()?;
    Ok(took)
}
