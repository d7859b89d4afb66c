//! The second place of heads, which may be anything: nothing that it does or doesn't do holds up who writes, or the end.

use std::fs::{self, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use stockade_audit::{Check, Head, Log, Settings, verify};

use crate::ground::{Ground, fill, intent};

/// Long enough for any machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Ends a log, and not for ever.
fn close(log: Log) {
    let (tell, told) = channel::<()>();
    std::thread::spawn(move || {
        log.close();
        drop(tell);
    });
    assert_eq!(told.recv_timeout(LIMIT), Err(RecvTimeoutError::Disconnected), "it doesn't end");
}

fn with_copies(ground: &Ground, path: &Path) -> Settings {
    let mut settings = ground.settings();
    settings.copy = Some(path.to_owned());
    settings
}

#[test]
fn a_second_place_that_is_no_file_is_said_and_does_not_hold_up_the_end() {
    let ground = Ground::new();
    let path = |name: &str| ground.path(name);
    for name in ["unread", "read"] {
        mknodat(CWD, path(name), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    }
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut reader = OpenOptions::new().read(true).custom_flags(flags).open(path("read")).unwrap();
    fs::create_dir(path("directory")).unwrap();
    fs::write(path("file"), "").unwrap();
    std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
    for name in ["unread", "read", "directory", "link"] {
        let mut settings = with_copies(&ground, &path(name));
        let (tell, told) = channel();
        settings.on_head = Some(Box::new(move |head: &Head| tell.send(*head).unwrap()));
        let log = Log::open(settings).unwrap();
        log.append_and_wait(intent("1")).unwrap();
        // It's told of a head after that was tried to be copied.
        told.recv_timeout(LIMIT).unwrap();
        assert!(log.state().copy.is_some(), "{name}");
        assert_eq!(log.state().unavailable, None);
        close(log);
    }
    assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap(), 0, "nor into a pipe, which keeps nothing");
    assert_eq!(fs::metadata(path("file")).unwrap().len(), 0, "nothing goes through a link");
    assert!(ground.both().iter().all(stockade_audit::Report::is_clean));
}

/// As a file system of another machine that doesn't answer.
#[test]
fn a_second_place_that_never_answers_does_not_hold_up_the_end() {
    let ground = Ground::new();
    let mut settings = ground.settings();
    let (_tell, told) = channel::<()>();
    settings.on_head = Some(Box::new(move |_| {
        let _ = told.recv();
    }));
    let log = Log::open(settings).unwrap();
    fill(&log, 4);
    close(log);
    assert!(ground.both().iter().all(stockade_audit::Report::is_clean));
}

#[test]
fn a_head_that_could_not_be_copied_is_copied_once_it_can_be() {
    let ground = Ground::new();
    let (place, path) = (ground.path("place"), ground.path("place").join("heads"));
    let mut settings = with_copies(&ground, &path);
    let (tell, told) = channel();
    settings.on_head = Some(Box::new(move |head: &Head| tell.send(*head).unwrap()));
    let log = Log::open(settings).unwrap();
    let first = told.recv_timeout(LIMIT).unwrap();
    assert!(log.state().copy.is_some());
    // Nothing more is written, and nothing more signed.
    fs::create_dir(&place).unwrap();
    let until = Instant::now() + LIMIT;
    while log.state().copy.is_some() {
        assert!(Instant::now() < until, "{:?}", log.state());
        std::thread::yield_now();
    }
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().filter_map(Head::parse).collect::<Vec<_>>(), [first]);
    assert!(told.try_recv().is_err(), "it was told once");
    close(log);
    let copies = vec![path];
    let report = verify(&ground.log(), &Check { copies, ..Check::default() }).unwrap();
    assert!(report.is_clean() && report.known && report.signed == report.last, "{report:?}");
}

#[test]
fn the_last_head_is_tried_once_more_at_the_end() {
    let ground = Ground::new();
    let (place, path) = (ground.path("place"), ground.path("place").join("heads"));
    let mut settings = with_copies(&ground, &path);
    let (tell, told) = channel();
    let there = place.clone();
    // The place is there right behind the first try of the last head.
    settings.on_head = Some(Box::new(move |head: &Head| {
        if tell.send(*head).is_err() {
            let _ = fs::create_dir(&there);
        }
    }));
    settings.head_every = Duration::from_secs(3600);
    let log = Log::open(settings).unwrap();
    told.recv_timeout(LIMIT).unwrap();
    drop(told);
    close(log);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().filter_map(Head::parse).count(), 1);
}
