use std::os::unix::fs::PermissionsExt as _;

use stockade_gate::grants::Terms;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const NOW: Clocks = Clocks { boot: Duration::from_secs(1000), wall: Duration::from_secs(1_800_000_000) };
const BOOT: &str = "this";

fn grant(number: u8, uses: Option<u32>) -> Grant {
    let terms = Terms {
        what: if number.is_multiple_of(2) { What::Policy("build".into()) } else { What::Tool("x".into()) },
        given: (number > 3).then(|| Exactly { digest: [number; 32], shown: "make — test".into() }),
        length: HOUR,
        uses,
        ends_runs: number > 4,
        why: "a test".into(),
    };
    let unit = match number % 3 {
        0 => None,
        1 => Some(String::new()),
        _ => Some("agent.service".into()),
    };
    Grant::new(GrantId([number; 16]), Whom { uid: u32::MAX, unit }, terms, 7, NOW).unwrap()
}

fn write(directory: &Path, writes: &[Write]) {
    let mut store = Store::open(directory).unwrap();
    store.write(writes.iter(), BOOT, NOW).unwrap();
}

fn read(directory: &Path, boot: &str, now: Clocks) -> Vec<Grant> {
    open(directory, boot, now).unwrap().grants
}

#[test]
fn what_was_written_is_read_again_and_nobody_else_may_read_it() {
    let state = tempfile::tempdir().unwrap();
    assert!(read(state.path(), BOOT, NOW).is_empty());
    assert!(!state.path().join(FILE).exists(), "without a grant there is no file");
    let all: Vec<Grant> = (1..7).map(|number| grant(number, (number > 2).then_some(5))).collect();
    let puts: Vec<Write> = all.iter().map(|grant| Write::Put(Box::new(grant.clone()))).collect();
    write(state.path(), &puts);
    assert_eq!(read(state.path(), BOOT, NOW), all);
    assert_eq!(state.path().join(FILE).metadata().unwrap().permissions().mode() & 0o777, 0o600);
    write(state.path(), &[Write::Left(GrantId([3; 16]), 2), Write::Drop(GrantId([1; 16]))]);
    let again = read(state.path(), BOOT, NOW);
    assert_eq!(again.len(), 5);
    assert_eq!(again[1].uses, Some(Uses { of: 5, left: 2 }));
    // Of what isn't there nothing comes into being.
    write(state.path(), &[Write::Left(GrantId([9; 16]), 2), Write::Drop(GrantId([8; 16]))]);
    assert_eq!(read(state.path(), BOOT, NOW), again);
}

#[test]
fn over_a_start_of_the_machine_only_what_is_left_by_the_calendar_holds_and_it_is_written_anew() {
    let state = tempfile::tempdir().unwrap();
    write(state.path(), &[Write::Put(Box::new(grant(1, None)))]);
    let later = |boot: u64, wall: u64| Clocks {
        boot: Duration::from_secs(boot),
        wall: NOW.wall + Duration::from_secs(wall),
    };
    let left = |boot: &str, now: Clocks| {
        read(state.path(), boot, now).first().map(|grant| grant.left(now).as_secs())
    };
    assert_eq!(left("other", later(5, 600)), Some(3000));
    // Within that start the clock that never steps says it, though the calendar is set back.
    assert_eq!(left("other", later(1005, 0)), Some(2000));
    // And in a third what was left by that one, where the calendar doesn't know.
    assert_eq!(left("third", later(5, 0)), Some(2000));
    // Who doesn't know which start it is has the calendar.
    assert_eq!(left("", later(5, 1600)), Some(2000));
    assert_eq!(left("", later(99_999, 3000)), Some(600));
    assert_eq!(left("third", later(10, 3600)), None);
    assert_eq!(left("third", later(10, 0)), None, "what was over stays so");
}

#[test]
fn where_the_calendar_begins_anew_with_each_start_what_has_run_and_was_written_is_over() {
    let state = tempfile::tempdir().unwrap();
    write(state.path(), &[Write::Put(Box::new(grant(1, None)))]);
    let at = |seconds| NOW.after(Duration::from_secs(seconds));
    Store::open(state.path()).unwrap().write([].iter(), BOOT, at(1_000)).unwrap();
    for (boot, left) in [("second", 2_600), ("third", 1_600), ("fourth", 600)] {
        let found = open(state.path(), boot, NOW).unwrap();
        assert_eq!(found.grants[0].left(NOW).as_secs(), left, "{boot}");
        // Nobody waits for anything: the time is written all the same.
        found.store.unwrap().write([].iter(), boot, at(1_000)).unwrap();
    }
    assert_eq!(read(state.path(), "fifth", NOW), []);
}

#[test]
fn a_file_of_the_first_version_is_read_and_goes_on() {
    let state = tempfile::tempdir().unwrap();
    write(state.path(), &[Write::Put(Box::new(grant(1, None)))]);
    let path = state.path().join(FILE);
    sql(&path, "alter table clock drop column at");
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 1).unwrap();
    assert_eq!(read(state.path(), BOOT, NOW), [grant(1, None)]);
    assert_eq!(read(state.path(), BOOT, NOW), [grant(1, None)]);
}

#[test]
fn what_can_be_read_and_not_written_holds_and_is_owed_and_no_time_is_written_before_it() {
    let state = tempfile::tempdir().unwrap();
    write(state.path(), &[Write::Put(Box::new(grant(1, None))), Write::Put(Box::new(grant(2, Some(3))))]);
    let path = state.path().join(FILE);
    sql(&path, "create trigger full before insert on held begin select raise(abort, 'full'); end");
    let later = Clocks { boot: Duration::from_secs(5), wall: NOW.wall + HOUR / 2 };
    let found = open(state.path(), "other", later).unwrap();
    assert_eq!(found.grants.iter().map(|grant| grant.left(later)).collect::<Vec<_>>(), [HOUR / 2; 2]);
    let (owed, why) = found.owed.unwrap();
    assert!(why.contains("full") && owed.len() == 2, "{why}");
    // Nothing of this start's clock is on disk: the next reads the same.
    drop(found.store);
    assert_eq!(read(state.path(), "other", later), found.grants);
    sql(&path, "drop trigger full");
    let mut store = Store::open(state.path()).unwrap();
    store.write(owed.iter(), "other", later).unwrap();
    drop(store);
    assert_eq!(read(state.path(), "other", later), found.grants);
}

type Harm = fn(&Path);

#[test]
fn a_damaged_file_is_set_aside_and_nothing_of_it_holds() {
    let harms: [(&str, Harm); 5] = [
        ("no database", |path| fs::write(path, "x".repeat(8192)).unwrap()),
        ("cut", |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("a value that can't be", |path| sql(path, "update held set length = 1")),
        ("more uses than there were", |path| sql(path, "update held set uses_left = 99")),
        ("no clock", |path| sql(path, "delete from clock")),
    ];
    for (what, harm) in harms {
        let state = tempfile::tempdir().unwrap();
        write(state.path(), &[Write::Put(Box::new(grant(1, Some(3)))), Write::Put(Box::new(grant(2, None)))]);
        let path = state.path().join(FILE);
        harm(&path);
        let found = open(state.path(), BOOT, NOW).unwrap();
        let (aside, why) = found.aside.unwrap_or_else(|| panic!("{what}: {:?}", found.grants));
        assert!(found.grants.is_empty() && !why.is_empty(), "{what}");
        assert_eq!(aside, state.path().join(DAMAGED));
        assert!(aside.exists() && !path.exists(), "{what}");
        write(state.path(), &[Write::Put(Box::new(grant(2, None)))]);
        assert_eq!(read(state.path(), BOOT, NOW), [grant(2, None)], "{what}");
    }
}

fn sql(path: &Path, text: &str) {
    Connection::open(path).unwrap().execute(text, []).unwrap();
}

#[test]
fn a_newer_file_is_refused_and_left_alone_and_so_is_what_is_no_file() {
    let state = tempfile::tempdir().unwrap();
    write(state.path(), &[Write::Put(Box::new(grant(1, None)))]);
    let path = state.path().join(FILE);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", VERSION + 1).unwrap();
    let error = open(state.path(), BOOT, NOW).unwrap_err().to_string();
    assert!(error.contains("newer stockade (version 3") && path.exists(), "{error}");
    for make in [
        |path: &Path| fs::create_dir(path).unwrap(),
        |path: &Path| {
            std::os::unix::fs::symlink("/dev/null", path).unwrap();
        },
    ] {
        let state = tempfile::tempdir().unwrap();
        make(&state.path().join(FILE));
        assert!(matches!(open(state.path(), BOOT, NOW), Err(GrantsError::Io { .. })));
    }
}

#[test]
fn a_transaction_is_whole_or_nothing() {
    let state = tempfile::tempdir().unwrap();
    let mut store = Store::open(state.path()).unwrap();
    store.write([Write::Put(Box::new(grant(2, None)))].iter(), BOOT, NOW).unwrap();
    // The second breaks a rule of the table: the first isn't there either.
    let text =
        "create trigger no before insert on held when new.uid = 5 begin select raise(abort, 'no'); end";
    store.connection.execute(text, []).unwrap();
    let mut other = grant(3, None);
    other.to.uid = 5;
    let writes =
        [Write::Put(Box::new(grant(1, None))), Write::Drop(GrantId([2; 16])), Write::Put(Box::new(other))];
    store.write(writes.iter(), BOOT, NOW).unwrap_err();
    store.connection.execute("drop trigger no", []).unwrap();
    drop(store);
    assert_eq!(read(state.path(), BOOT, NOW), [grant(2, None)]);
}
