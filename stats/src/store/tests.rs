//! The file by a clock of the tests' own: what comes back, what becomes a day, what is dropped, and what is no file of ours.

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use super::schema::{STEPS, VERSION};
use super::*;
use crate::report::{Question, Report, Row};
use crate::tally::{DAY, HOUR, MOST_POLICIES, OTHER, Tally, Who};
use crate::words::{Ending, Kind, Stage};

/// A midnight.
const MIDNIGHT: u64 = 19_676 * DAY;
const KEEP_HOURS: u32 = 30;
const KEEP_DAYS: u32 = 5;

fn settings(directory: &TempDir) -> Settings {
    Settings::new(directory.path(), KEEP_HOURS, KEEP_DAYS)
}

fn who(tool: &'static str) -> Who<'static> {
    Who { tool: Some(tool), policy: Some("default"), uid: 1_000 }
}

/// One run and one denial.
fn one(now: u64, tool: &'static str) -> Tally {
    let mut tally = Tally::default();
    tally.end(now, 7_u128.to_be_bytes(), who(tool), Ending::Ok, Some((now % 1_000, 4_096)));
    tally.deny(now, who(tool), Stage::Rate);
    tally
}

fn answer(store: &Store, question: &Question) -> Report {
    store.sum(question).unwrap().report()
}

fn all(store: &Store) -> Report {
    answer(store, &Question::default())
}

/// Runs and denials of a name; none: it has no row.
fn of(report: &Report, kind: Kind, name: &str) -> Option<(u64, u64)> {
    let row = report.rows.iter().find(|row| row.kind == kind && row.name == name)?;
    Some((row.cell.runs(), row.cell.denied()))
}

/// How many rows the file has of a span.
fn rows_of(store: &Store, span: u64) -> usize {
    let rows = "select count(*) from cell where span = ?";
    store.connection().query_row(rows, [i64::try_from(span).unwrap()], |row| row.get::<_, u32>(0)).unwrap()
        as usize
}

#[test]
fn what_was_written_comes_back_and_nobody_else_may_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(&settings(&directory)).unwrap();
    store.write(&one(MIDNIGHT, "a")).unwrap();
    store.write(&one(MIDNIGHT + HOUR, "a")).unwrap();
    store.write(&one(MIDNIGHT + HOUR, "b")).unwrap();
    let before = all(&store);
    for file in [FILE, "statistics.db-wal"] {
        let mode = std::fs::metadata(directory.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    drop(store);
    let store = Store::open(&settings(&directory)).unwrap();
    assert_eq!(all(&store), before);
    assert_eq!(before.from, Some(MIDNIGHT));
    assert_eq!(of(&before, Kind::Tool, "a"), Some((2, 2)));
    assert_eq!(of(&before, Kind::Policy, "default"), Some((3, 3)));
    assert_eq!(of(&before, Kind::Principal, "1000"), Some((3, 3)));
    let later = Question { kinds: vec![Kind::Tool], name: Some("a".into()), since: MIDNIGHT + HOUR };
    let later = answer(&store, &later);
    assert_eq!((later.rows.len(), of(&later, Kind::Tool, "a")), (1, Some((1, 1))));
    assert_eq!(store.counted().unwrap().len(), 1);
    let mut forgets = Tally::default();
    forgets.forget(7_u128.to_be_bytes());
    let mut store = store;
    store.write(&forgets).unwrap();
    assert!(store.counted().unwrap().is_empty());
}

#[test]
fn old_hours_become_days_and_old_days_go_and_the_file_grows_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(&settings(&directory)).unwrap();
    let hours = 24 * 20;
    for hour in 0..hours {
        let now = MIDNIGHT + hour * HOUR;
        store.write(&one(now, "a")).unwrap();
        store.tend(now).unwrap();
        // Three kinds, a row each.
        assert!(rows_of(&store, HOUR) <= 3 * (KEEP_HOURS as usize + 1), "hour {hour}");
        assert!(rows_of(&store, DAY) <= 3 * (KEEP_DAYS as usize + 1), "hour {hour}");
        let kept = of(&all(&store), Kind::Tool, "a").unwrap().0;
        // What has come since the first hour of the first day that is kept.
        let first = (hour / 24).saturating_sub(KEEP_DAYS.into()) * 24;
        assert_eq!(kept, hour + 1 - first, "hour {hour}");
    }
    // After a pause of years nothing is left but what comes then, at the latest when a turn's work is done a few times.
    let now = MIDNIGHT + 4_000 * DAY;
    for _ in 0..3 {
        store.tend(now).unwrap();
    }
    assert!(all(&store).rows.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn sums_are_the_same_whatever_was_put_to_days(steps in vec((0_u64..9, 0_usize..3, any::<bool>()), 1..40)) {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(&Settings::new(directory.path(), 3, 3_000)).unwrap();
        let (mut whole, mut now) = (crate::cell::Cell::default(), MIDNIGHT);
        for (hours, tool, tends) in steps {
            now += hours * HOUR;
            let tally = one(now, ["a", "b", "c"][tool]);
            for (.., cell) in tally.rows().filter(|row| row.1 == Kind::Principal) {
                whole.merge(cell);
            }
            store.write(&tally).unwrap();
            if tends {
                store.tend(now).unwrap();
            }
        }
        let report = all(&store);
        let sum = report.rows.iter().find(|row| row.kind == Kind::Principal).unwrap();
        // Quantiles too: hours that were put together are what one would have counted.
        prop_assert_eq!(&sum.cell, &whole);
        let mut tools = crate::cell::Cell::default();
        for Row { cell, .. } in report.rows.iter().filter(|row| row.kind == Kind::Tool) {
            tools.merge(cell);
        }
        prop_assert_eq!(&tools, &whole);
    }
}

#[test]
fn names_of_an_hour_and_of_a_day_are_bounded_whoever_wrote_them() {
    let directory = tempfile::tempdir().unwrap();
    for part in 0..3 {
        let mut store = Store::open(&settings(&directory)).unwrap();
        let mut tally = Tally::default();
        for number in 0..MOST_POLICIES / 2 {
            let policy = format!("policy-{part}-{number}");
            tally.deny(MIDNIGHT, Who { tool: None, policy: Some(&policy), uid: 0 }, Stage::Queue);
        }
        store.write(&tally).unwrap();
    }
    let mut store = Store::open(&settings(&directory)).unwrap();
    let check = |store: &Store| {
        let report = all(store);
        let policies: Vec<_> = report.rows.iter().filter(|row| row.kind == Kind::Policy).collect();
        assert_eq!(policies.len(), MOST_POLICIES + 1);
        assert_eq!(of(&report, Kind::Policy, OTHER), Some((0, MOST_POLICIES as u64 / 2)));
    };
    check(&store);
    store.tend(MIDNIGHT + 2 * DAY).unwrap();
    assert_eq!((rows_of(&store, HOUR), rows_of(&store, DAY)), (0, MOST_POLICIES + 2));
    check(&store);
}

#[test]
fn an_older_file_is_brought_up_and_a_newer_one_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(&settings(&directory)).unwrap();
    store.write(&one(MIDNIGHT, "a")).unwrap();
    drop(store);
    let next: Vec<&str> = STEPS
        .iter()
        .copied()
        .chain(["alter table cell add column later integer not null default 3"])
        .collect();
    let store = Store::open_with(&settings(&directory), &next).unwrap();
    assert_eq!(of(&all(&store), Kind::Tool, "a"), Some((1, 1)));
    drop(store);
    let error = Store::open(&settings(&directory)).unwrap_err();
    let newer = VERSION + 1;
    let said = error.to_string();
    assert!(
        said.contains(&format!("newer stockade (version {newer} of the file, this one knows {VERSION})")),
        "{said}"
    );
    assert!(!error.is_damage());
    assert!(matches!(Reader::open(directory.path()), Err(StoreError::Newer { .. })));
    let store = Store::open_with(&settings(&directory), &next).unwrap();
    assert_eq!(of(&all(&store), Kind::Tool, "a"), Some((1, 1)));
}

#[test]
fn what_is_no_file_of_ours_is_damage_and_no_link_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    let write = || {
        let mut store = Store::open(&settings(&directory))?;
        store.write(&one(MIDNIGHT, "a"))?;
        store.sum(&Question::default()).map(drop)
    };
    write().unwrap();
    let whole = std::fs::read(&path).unwrap();
    let cut = [whole.len() / 2, 4_096 + 100, 150];
    for damaged in cut.into_iter().map(|at| whole[..at].to_vec()).chain([b"no database at all".repeat(300)]) {
        std::fs::write(&path, &damaged).unwrap();
        let error = write().unwrap_err();
        assert!(error.is_damage(), "{} bytes: {error:?}", damaged.len());
        set_aside(directory.path()).unwrap();
        assert_eq!(std::fs::read(directory.path().join(DAMAGED)).unwrap().len(), damaged.len());
        write().unwrap();
        set_aside(directory.path()).unwrap();
    }
    // A row that SQLite can read and that isn't what was written.
    write().unwrap();
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute("update cell set wall_sketch = x'00112233445566778899'", []).unwrap();
    drop(connection);
    assert!(matches!(write().unwrap_err(), StoreError::Damaged { .. }));
    std::fs::remove_file(&path).unwrap();
    symlink("elsewhere", &path).unwrap();
    assert!(matches!(write().unwrap_err(), StoreError::Io { .. }));
    assert!(!directory.path().join("elsewhere").exists());
}

#[test]
fn a_file_that_is_as_large_as_it_may_be_loses_its_oldest_rows_and_takes_the_new_ones() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(directory.path(), 10_000, 10_000);
    settings.most_pages = 64;
    let mut store = Store::open(&settings).unwrap();
    let (mut dropped, mut now) = (0, MIDNIGHT);
    while dropped < 3 {
        now += HOUR;
        let tally = one(now, "a");
        if let Err(error) = store.write(&tally) {
            assert!(error.is_full(), "{error:?}");
            assert!(store.make_room().unwrap());
            store.write(&tally).unwrap();
            dropped += 1;
            let since = Question { since: now, ..Question::default() };
            assert_eq!(of(&answer(&store, &since), Kind::Tool, "a"), Some((1, 1)));
        }
        assert!(now < MIDNIGHT + 5_000 * HOUR, "it is never full");
    }
    assert!(std::fs::metadata(directory.path().join(FILE)).unwrap().len() <= 64 * 4_096);
    assert!(
        !Store::open(&Settings::new(directory.path(), 1, 1)).unwrap_err().is_damage(),
        "one has it at a time"
    );
    drop(store);
    let mut roomy = Store::open(&Settings::new(directory.path(), 1, 1)).unwrap();
    assert!(!roomy.make_room().unwrap(), "a full disk is no reason to drop anything");
}

#[test]
fn it_is_read_without_a_daemon_and_nothing_is_left_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(Reader::open(directory.path()), Err(StoreError::Io { .. })));
    let mut store = Store::open(&settings(&directory)).unwrap();
    store.write(&one(MIDNIGHT, "a")).unwrap();
    let busy = Reader::open(directory.path()).unwrap_err();
    assert!(busy.remedy().is_some_and(|remedy| remedy.contains("daemon has it open")), "{busy:?}");
    drop(store);
    let names = || {
        let names = std::fs::read_dir(directory.path()).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<BTreeSet<_>>()
    };
    let read = || Reader::open(directory.path()).unwrap().answer(&Question::default()).unwrap();
    assert_eq!(of(&read(), Kind::Tool, "a"), Some((1, 1)));
    assert_eq!(names(), BTreeSet::from([FILE.to_owned()]));
}
