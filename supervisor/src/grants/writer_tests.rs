use std::time::Instant;

use stockade_gate::grants::{Grant, Terms, What, Whom};

use super::*;

const ID: GrantId = GrantId([7; 16]);

fn begin(ticks: bool) -> (tempfile::TempDir, Writer) {
    let state = tempfile::tempdir().unwrap();
    let terms = Terms {
        what: What::Policy("build".into()),
        given: None,
        length: Duration::from_secs(3600),
        uses: Some(1_000_000),
        ends_runs: false,
        why: "a test".into(),
    };
    let grant = Grant::new(ID, Whom { uid: 7, unit: None }, terms, 0, clocks::now()).unwrap();
    let tick = Duration::from_millis(if ticks { 20 } else { 60_000 });
    let writer = Writer::start_with(state.path().to_owned(), None, Vec::new(), tick).unwrap();
    tell(&writer, Write::Put(Box::new(grant)));
    (state, writer)
}

/// Has something written, and waits until it is.
fn tell(writer: &Writer, write: Write) {
    let (said, hear) = channel();
    writer.write(vec![write], Some(Box::new(move |result| said.send(result).unwrap())));
    hear.recv().unwrap().unwrap();
}

fn left(state: &tempfile::TempDir) -> u32 {
    let found = super::super::store::open(state.path(), &clocks::boot(), clocks::now()).unwrap();
    found.grants[0].uses.unwrap().left
}

#[test]
fn what_nobody_waits_for_takes_no_memory_however_long_the_disk_hangs_and_is_written_then() {
    let (state, writer) = begin(false);
    std::fs::write(state.path().join("hangs"), "").unwrap();
    for count in (0..20_000).rev() {
        writer.write(vec![Write::Left(ID, count % 1_000 + 5)], None);
    }
    let waiting = writer.waiting.load(Ordering::Acquire);
    assert!(waiting <= 2 && writer.slots.lock().unwrap().len() <= 1, "{waiting} wait");
    std::fs::remove_file(state.path().join("hangs")).unwrap();
    writer.close();
    assert_eq!(left(&state), 5);
}

#[test]
fn what_nobody_waits_for_is_written_a_moment_later() {
    let (state, writer) = begin(false);
    let before = written(&state);
    writer.write(vec![Write::Left(ID, 3)], None);
    let until = Instant::now() + Duration::from_secs(60);
    while written(&state) == before {
        assert!(Instant::now() < until, "it isn't written");
        std::thread::yield_now();
    }
    writer.close();
    assert_eq!(left(&state), 3);
}

/// When the log beside the file was written.
fn written(state: &tempfile::TempDir) -> (i64, i64) {
    use std::os::unix::fs::MetadataExt as _;
    let found = state.path().join("grants.sqlite-wal").metadata().unwrap();
    (found.mtime(), found.mtime_nsec())
}

#[test]
fn the_time_is_written_while_there_are_grants_and_not_when_there_is_none() {
    let (state, writer) = begin(true);
    let before = written(&state);
    let until = Instant::now() + Duration::from_secs(60);
    while written(&state) == before {
        assert!(Instant::now() < until, "nobody writes");
        std::thread::yield_now();
    }
    tell(&writer, Write::Drop(ID));
    let before = written(&state);
    std::thread::park_timeout(Duration::from_millis(200));
    assert_eq!(written(&state), before);
    writer.close();
}

#[test]
fn nothing_older_is_written_after_what_a_run_waits_for() {
    let (state, writer) = begin(false);
    writer.write(vec![Write::Left(ID, 9)], None);
    tell(&writer, Write::Left(ID, 8));
    writer.close();
    assert_eq!(left(&state), 8);
    let writer = Writer::start(state.path().to_owned(), None, Vec::new()).unwrap();
    tell(&writer, Write::Left(ID, 7));
    writer.write(vec![Write::Left(ID, 8)], None);
    writer.close();
    assert_eq!(left(&state), 8, "what was given back afterwards is");
}

#[test]
fn what_is_owed_to_a_disk_that_takes_nothing_has_a_bound() {
    let (state, writer) = begin(false);
    std::fs::write(state.path().join("fails"), "").unwrap();
    let drops = || (0..MAX_GRANTS as u128).map(|number| Write::Drop(GrantId(number.to_be_bytes()))).collect();
    for has_room in [true, false] {
        let (said, hear) = channel();
        writer.write(drops(), Some(Box::new(move |result| said.send(result).unwrap())));
        hear.recv().unwrap().unwrap_err();
        assert_eq!(writer.has_room(), has_room);
    }
    std::fs::remove_file(state.path().join("fails")).unwrap();
    tell(&writer, Write::Left(ID, 3));
    assert!(writer.has_room());
    writer.close();
    assert_eq!(left(&state), 3);
}
