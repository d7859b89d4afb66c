//! `cargo bench -p stockade-audit`: what the record does in a second, beside a bare write and `fdatasync` of as many bytes in the
//! same round.
//!
//! `STOCKADE_BENCH_DISK=DIR` names a place on a disk; the other one is in memory. Prints, and asserts nothing.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use stockade_audit::{
    Check, Event, Given, Log, MasterKey, Outcome, Principal, Request, Settings, What, verify,
};

const IN_FLIGHT: usize = 8;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(1);

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

/// One loop with so many in flight, as the daemon's is: records a second.
fn appends(log: &Log) -> f64 {
    let (tell, told): (_, Receiver<bool>) = channel();
    let hand_over = |at: u64| {
        let exec = format!("0192f3c4-0000-7000-8000-{at:012}");
        let event = if at.is_multiple_of(2) { intent(&exec) } else { outcome(&exec) };
        let tell = tell.clone();
        log.append(
            event,
            Box::new(move |result| {
                let _ = tell.send(result.is_ok());
            }),
        );
    };
    let (begin, mut handed, mut durable) = (Instant::now(), 0, 0_u32);
    for _ in 0..IN_FLIGHT {
        hand_over(handed);
        handed += 1;
    }
    while begin.elapsed() < ROUND {
        assert!(told.recv().unwrap(), "one wasn't written");
        durable += 1;
        hand_over(handed);
        handed += 1;
    }
    let rate = f64::from(durable) / begin.elapsed().as_secs_f64();
    // Those that are still in flight belong to no round.
    for _ in 0..IN_FLIGHT {
        let _ = told.recv();
    }
    rate
}

/// Writes and `fdatasync`s a second of as many bytes as 8 records have.
fn bare(directory: &Path) -> f64 {
    let path = directory.join("bare");
    let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    let bytes = vec![7; IN_FLIGHT * 350];
    let (begin, mut many) = (Instant::now(), 0_u32);
    while begin.elapsed() < ROUND {
        file.write_all(&bytes).unwrap();
        file.sync_data().unwrap();
        many += 1;
    }
    std::fs::remove_file(path).unwrap();
    f64::from(many) / begin.elapsed().as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn at(name: &str, place: &Path) {
    let folder = tempfile::tempdir_in(place).unwrap();
    let key = folder.path().join("key");
    MasterKey::create(&key).unwrap();
    let directory = folder.path().join("audit");
    let log = Log::open(Settings::new(&directory, MasterKey::read(&key).unwrap())).unwrap();
    let (mut rates, mut bares) = (Vec::new(), Vec::new());
    let before = log.state();
    for _ in 0..ROUNDS {
        bares.push(bare(folder.path()));
        rates.push(appends(&log));
    }
    let state = log.state();
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    let shared = (state.durable - before.durable) as f64 / (state.syncs - before.syncs) as f64;
    drop(log);
    println!(
        "{name}: {:.0} durable records/s at {IN_FLIGHT} in flight, {shared:.1} by one fdatasync; bare {:.0} write+fdatasync/s",
        median(rates),
        median(bares)
    );
    for with_key in [false, true] {
        let mut rates = Vec::new();
        for _ in 0..ROUNDS {
            let master = with_key.then(|| MasterKey::read(&key).unwrap());
            let begin = Instant::now();
            let report = verify(&directory, &Check { master, ..Check::default() }).unwrap();
            assert!(report.is_clean(), "{:?}", report.findings);
            let seconds = begin.elapsed().as_secs_f64();
            rates.push(f64::from(u32::try_from(report.records).unwrap()) / seconds);
        }
        let how = if with_key { "with its key" } else { "without a key" };
        println!("{name}: verify {how}: {:.0} records/s", median(rates));
    }
}

fn main() {
    at("memory", Path::new("/dev/shm"));
    let disk = std::env::var_os("STOCKADE_BENCH_DISK").map_or_else(std::env::temp_dir, PathBuf::from);
    at("disk", &disk);
}
