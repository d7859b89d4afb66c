//! A disk that takes no more: everybody who waits is told, it's said how long that was, and no whole record is lost.
//!
//! A limit on the size of files stands for the full disk: the writer is this test program again, whose limit is lowered and
//! lifted from outside.

use std::io::{BufRead as _, BufReader, Write as _};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use stockade_audit::{Log, Unavailable, Written};

use crate::ground::{Ground, events, intent, settings};
use crate::killed::{again, asked};

/// Not a test of its own: writes once for each line it's sent, and says what came of it.
#[test]
fn writer_on_a_full_disk() {
    let Some((log, key)) = asked() else { return };
    let mut settings = settings(&log, &key);
    settings.segment_bytes = 1024 * 1024;
    let log = Log::open(settings).unwrap();
    let mut out = std::io::stdout().lock();
    let mut line = String::new();
    let mut stdin = std::io::stdin().lock();
    for at in 0.. {
        line.clear();
        if stdin.read_line(&mut line).unwrap() == 0 {
            return;
        }
        let word = match log.append_and_wait(intent(&at.to_string())) {
            Ok(Written::Durable(_)) => "durable".to_owned(),
            Err(Unavailable::Failed(_)) => format!("unavailable {}", log.state().unavailable.is_some()),
            other => format!("{other:?}"),
        };
        writeln!(out, "\nsaid {word}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn a_disk_that_is_full_refuses_and_says_so_until_it_takes_more() {
    let ground = Ground::new();
    // A program that goes beyond the limit is killed unless it ignores the signal, and what is ignored stays so over an exec.
    let shell = ["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""];
    let mut child = again(&shell, "full::writer_on_a_full_disk", &ground).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut ask = || {
        stdin.write_all(b"write\n").unwrap();
        loop {
            let line = lines.next().expect("it goes on").unwrap();
            if let Some(word) = line.strip_prefix("said ") {
                return word.to_owned();
            }
        }
    };
    let limit = |bytes: Option<u64>| {
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
    };
    assert_eq!(ask(), "durable");
    let there = std::fs::metadata(crate::ground::segments(&ground.log()).pop().unwrap()).unwrap().len();
    // The next record begins and doesn't end.
    limit(Some(there + 50));
    assert_eq!(ask(), "unavailable true");
    limit(Some(100));
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        assert_eq!(ask(), "unavailable true");
    }
    limit(None);
    let until = Instant::now() + Duration::from_secs(60);
    let mut word = ask();
    while word != "durable" {
        assert!(Instant::now() < until, "still {word}");
        word = ask();
    }
    drop(stdin);
    child.wait().unwrap();
    for report in ground.both() {
        assert!(report.is_clean(), "{:?}", report.findings);
        assert_eq!(report.recovered.len(), 1, "{report:?}");
    }
    let events = events(&ground.log(), &ground.key());
    let names: Vec<&str> = events.iter().map(stockade_audit::Event::name).collect();
    for name in ["audit-unavailable", "audit-unfinished-tail"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert_eq!(names.iter().filter(|name| **name == "intent").count(), 2);
}
