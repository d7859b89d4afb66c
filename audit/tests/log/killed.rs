//! A writer that is killed at any moment: nothing is missing that it was told to be durable, and the log is clean or names one
//! unfinished record.
//!
//! The writer is this test program again, told so by its environment: it prints each number once it was told it.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel, sync_channel};
use std::time::Duration;

use stockade_audit::{Entry, Filter, Keys, Log, MasterKey, Reader, Written};

use crate::ground::{Ground, intent, segments, settings};

const LOG: &str = "STOCKADE_AUDIT_TEST_LOG";
const KEY: &str = "STOCKADE_AUDIT_TEST_KEY";

/// This test program again, as a process that a test may kill; it runs one test, which is a writer where it's told a log.
#[allow(clippy::disallowed_methods, reason = "a test may start a program")]
pub(crate) fn again(program: &[&str], test: &str, ground: &Ground) -> Command {
    let this = std::env::current_exe().unwrap();
    let mut command = match program.split_first() {
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(this);
            command
        }
        None => Command::new(this),
    };
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env(LOG, ground.log()).env(KEY, ground.key());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// Where a writer is to write; `None`: nobody has made this process one.
pub(crate) fn asked() -> Option<(std::path::PathBuf, std::path::PathBuf)> {
    Some((std::env::var_os(LOG)?.into(), std::env::var_os(KEY)?.into()))
}

/// Not a test of its own: what the others kill.
#[test]
fn writer_that_is_killed() {
    let Some((log, key)) = asked() else { return };
    let log = Log::open(settings(&log, &key)).unwrap();
    let (tell, told) = channel();
    let (permit, permits) = sync_channel(48);
    std::thread::spawn(move || {
        // Many at once, so that some of what waits is written together.
        for at in 0.. {
            let tell = tell.clone();
            let each = move |result| {
                let _ = tell.send((at, result));
            };
            permit.send(()).unwrap();
            log.append(intent(&format!("{}-{at}", std::process::id())), Box::new(each));
        }
    });
    let mut out = std::io::stdout().lock();
    for (at, result) in told {
        permits.recv().unwrap();
        if let Ok(Written::Durable(number)) = result {
            // The harness has written something on this line itself, the first time.
            writeln!(out, "\ndurable {number} {}-{at}", std::process::id()).unwrap();
            out.flush().unwrap();
        }
    }
}

/// Kills a writer once it has said so many numbers, or after a while; what it has said.
fn kill_one(ground: &Ground, after: usize, soonest: Option<Duration>) -> Vec<(u64, String)> {
    let mut child = again(&[], "killed::writer_that_is_killed", ground).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (tell, told) = channel();
    let reading = std::thread::spawn(move || {
        let mut said = Vec::new();
        while let Some(Ok(line)) = lines.next() {
            let mut words = line.split(' ');
            if let (Some("durable"), Some(number), Some(exec)) = (words.next(), words.next(), words.next()) {
                // The last line may have been cut in the middle; only its end says that it's whole.
                said.push((number.parse().unwrap(), exec.to_owned()));
                if said.len() == after {
                    let _ = tell.send(());
                }
            }
        }
        said
    });
    let limit = soonest.unwrap_or(Duration::from_secs(60));
    let reached = told.recv_timeout(limit);
    assert!(soonest.is_some() || reached != Err(RecvTimeoutError::Timeout), "it wrote nothing in a minute");
    child.kill().unwrap();
    child.wait().unwrap();
    let mut said = reading.join().unwrap();
    // A number that was cut in the middle is another number.
    if soonest.is_some() || said.len() > after {
        said.pop();
    }
    said
}

fn all(log: &Path, key: &Path) -> BTreeSet<(u64, String)> {
    let keys = Keys::read(log, &MasterKey::read(key).unwrap(), None).unwrap();
    let mut found = BTreeSet::new();
    let mut each = |entry: Entry| {
        if let Some(exec) = entry.event.exec() {
            assert!(found.insert((entry.sequence, exec.to_owned())));
        }
        core::ops::ControlFlow::Continue(())
    };
    let _ = Reader::new(log, &keys).read(&Filter::default(), &mut each).unwrap();
    found
}

#[test]
fn whenever_a_writer_is_killed_nothing_that_it_was_told_is_missing() {
    let kills: u64 = std::env::var("STOCKADE_AUDIT_KILLS").map_or(100, |text| text.parse().unwrap());
    // The same each time; the machine does the rest.
    let mut chance = 12345_u64;
    let mut many = 0;
    for from in (0..kills).step_by(10) {
        let (ground, mut said) = (Ground::new(), BTreeSet::new());
        for at in from..kills.min(from + 10) {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let drawn = chance >> 33;
            let soonest = (at % 4 == 0).then(|| Duration::from_micros(drawn % 20_000));
            said.extend(kill_one(&ground, usize::try_from(drawn % 200).unwrap() + 1, soonest));
            if !ground.log().is_dir() || segments(&ground.log()).is_empty() {
                assert!(said.is_empty(), "{said:?}");
                continue;
            }
            for report in ground.both() {
                assert!(report.is_clean(), "after {at} kills: {:?}", report.findings);
            }
        }
        if said.is_empty() {
            continue;
        }
        let found = all(&ground.log(), &ground.key());
        let missing: Vec<_> = said.difference(&found).take(5).collect();
        assert!(missing.is_empty(), "{missing:?} of {} that were told", said.len());
        many += said.len() as u64;
    }
    assert!(many > kills, "only {many} were told");
}
