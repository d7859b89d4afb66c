//! The record: events a second that are durable, eight in flight as the daemon's are, in memory and on a disk, there beside a bare
//! write and `fdatasync` of as many bytes; and records a second that `verify` looks at.
//!
//! Without a daemon: the library as the daemon has it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use stockade_audit::{
    Check, Event, Given, Log, MasterKey, Outcome, Principal, Request, Settings, What, verify,
};

use super::Axis;
use crate::error::BenchError;
use crate::results::{Better, Results};
use crate::rounds::{Case, Variant, interleave};
use crate::session::Session;

pub(crate) const AXIS: Axis = Axis {
    name: "record",
    rounds: 20,
    round: Duration::from_millis(1_700),
    besides: Duration::from_secs(5),
    measure,
};

/// Events that wait at once.
const IN_FLIGHT: usize = 8;
/// How long a sample of what is written takes.
const SAMPLE: Duration = Duration::from_millis(300);
/// About what an event takes of a disk, in bytes.
const AN_EVENT: usize = 350;
/// Records of the log that is verified.
const VERIFIED: u32 = 200_000;
/// Where a file system is in memory.
const MEMORY: &str = "/dev/shm";
/// The bare write and sync.
const BARE: &str = "fdatasync";
const ON_DISK: &str = "record-on-disk";

fn measure(session: &mut Session) -> Result<Results, BenchError> {
    let rounds = session.rounds(&AXIS);
    let (mut results, mut shuffle) = session.begin(&AXIS);
    let case = |name| Case { name, unit: "/s", better: Better::More, rounds };
    let memory = tempfile::tempdir_in(MEMORY).map_err(BenchError::io("make a folder in memory"))?;
    let disk = session.ground.directory("record")?;

    let log = open(memory.path())?;
    let appends = vec![Variant::new("record", move || appended(&log))];
    interleave(&mut results, &mut shuffle, case("durable in memory"), session.wanted(appends));

    let log = Rc::new(open(&disk)?);
    let written = Rc::clone(&log);
    let syncs = vec![
        Variant::new(BARE, || bare(&disk)),
        Variant::new(ON_DISK, move || appended(&written)).against(BARE),
    ];
    interleave(&mut results, &mut shuffle, case("durable on this disk"), session.wanted(syncs));
    let state = log.state();
    if session.only.wants(ON_DISK) && state.syncs > 0 {
        let each = count(state.durable) / count(state.syncs);
        results.number("durable on this disk", ON_DISK, "records a sync", each, "");
    }

    let verified = tempfile::tempdir_in(MEMORY).map_err(BenchError::io("make a folder in memory"))?;
    let log = open(verified.path())?;
    write(&log, |handed| handed < u64::from(VERIFIED))?;
    drop(log);
    let looks = vec![
        Variant::new("verify", || looked(verified.path(), false)),
        Variant::new("verify-with-key", || looked(verified.path(), true)),
    ];
    interleave(&mut results, &mut shuffle, case("verified"), session.wanted(looks));
    Ok(results)
}

fn failed(doing: &str) -> impl Fn(stockade_audit::AuditError) -> BenchError {
    let doing = doing.to_owned();
    move |error| BenchError::Wrong(format!("cannot {doing}: {error}"))
}

/// A new log in a folder, with its key.
fn open(folder: &Path) -> Result<Log, BenchError> {
    let key = folder.join("key");
    MasterKey::create(&key).map_err(failed("make a key"))?;
    let master = MasterKey::read(&key).map_err(failed("read a key"))?;
    Log::open(Settings::new(folder.join("audit"), master)).map_err(failed("open a log"))
}

fn intent(exec: &str) -> Event {
    let words: [&[u8]; 3] = [b"cargo", b"test", b"--workspace"];
    let request = Request {
        action: "run".into(),
        exec: Some(exec.into()),
        policy: Some("default".into()),
        given: Some(Given::of(words)),
        workspace: Some("/home/somebody/project".into()),
        ..Request::default()
    };
    let principal = Principal { uid: 1000, pid: Some(4242), ..Principal::default() };
    Event { principal: Some(principal), what: What::Intent(request) }
}

fn outcome(exec: &str) -> Event {
    let what = What::Outcome(Outcome {
        exec: exec.into(),
        outcome: "exited".into(),
        code: Some(0),
        milliseconds: Some(12),
        ..Outcome::default()
    });
    Event { principal: None, what }
}

/// Has events written, so many in flight, for as long as there are to be more. How many, and what that took.
fn write(log: &Log, more: impl Fn(u64) -> bool) -> Result<f64, BenchError> {
    let (tell, told): (_, Receiver<bool>) = channel();
    let hand_over = |at: u64| {
        let exec = format!("0192f3c4-0000-7000-8000-{at:012}");
        let event = if at.is_multiple_of(2) { intent(&exec) } else { outcome(&exec) };
        let tell = tell.clone();
        let told = move |result: Result<_, _>| {
            // Whoever waits for it waits until all have been told.
            let _ = tell.send(result.is_ok());
        };
        log.append(event, Box::new(told));
    };
    let (began, mut handed, mut durable) = (Instant::now(), 0, 0);
    let mut took = Duration::ZERO;
    while durable < handed || more(handed) {
        while handed - durable < IN_FLIGHT as u64 && more(handed) {
            hand_over(handed);
            handed += 1;
        }
        if !told.recv().unwrap_or(false) {
            return Err(BenchError::Wrong("an event wasn't written".into()));
        }
        durable += 1;
        took = began.elapsed();
    }
    Ok(count(durable) / took.as_secs_f64())
}

/// Durable events a second.
fn appended(log: &Log) -> Result<f64, BenchError> {
    let began = Instant::now();
    write(log, |_| began.elapsed() < SAMPLE)
}

/// Events a second of somebody who writes as many bytes as those in flight have, and syncs.
fn bare(folder: &Path) -> Result<f64, BenchError> {
    let path = folder.join("bare");
    let wrong = |error| BenchError::io("write as much as events have")(error);
    let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(wrong)?;
    let bytes = vec![7; IN_FLIGHT * AN_EVENT];
    let (began, mut events) = (Instant::now(), 0);
    while began.elapsed() < SAMPLE {
        file.write_all(&bytes).and_then(|()| file.sync_data()).map_err(wrong)?;
        events += IN_FLIGHT as u64;
    }
    let rate = count(events) / began.elapsed().as_secs_f64();
    std::fs::remove_file(path).map_err(wrong)?;
    Ok(rate)
}

/// Records a second that are looked at.
fn looked(folder: &Path, with_key: bool) -> Result<f64, BenchError> {
    let key = folder.join("key");
    let master = if with_key { Some(MasterKey::read(&key).map_err(failed("read a key"))?) } else { None };
    let began = Instant::now();
    let report = verify(&folder.join("audit"), &Check { master, ..Check::default() });
    let report = report.map_err(failed("verify a log"))?;
    if !report.is_clean() || report.records < u64::from(VERIFIED) {
        return Err(BenchError::Wrong(format!("{} records, {:?}", report.records, report.findings)));
    }
    Ok(count(report.records) / began.elapsed().as_secs_f64())
}

#[allow(clippy::cast_precision_loss, reason = "a rate")]
fn count(number: u64) -> f64 {
    number as f64
}
