//! What has been kept for as long as it is, and copies of a log.

use std::time::{Duration, SystemTime};

use stockade_audit::{Check, Event, Log, MasterKey, backup, verify};

use crate::ground::{Ground, events, fill, intent, outcome, segments};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn names(ground: &Ground) -> Vec<String> {
    events(&ground.log(), &ground.key()).iter().map(|event| event.name().to_owned()).collect()
}

/// With no days at all for one class, what is in ended segments of that class has had its time.
#[test]
fn each_class_is_erased_in_its_time_and_the_rest_still_verifies() {
    let ground = Ground::new();
    let log = Log::open(ground.settings()).unwrap();
    fill(&log, 4);
    log.append_and_wait(Event::security("kept-security", "")).unwrap();
    log.append_and_wait(Event::operation("kept-operation", "")).unwrap();
    drop(log);
    let open = |days| {
        let mut settings = ground.settings();
        settings.days = days;
        let log = Log::open(settings).unwrap();
        // It's looked for behind the first write.
        log.append_and_wait(intent("last")).unwrap();
        log.append_and_wait(outcome("last")).unwrap();
        drop(log);
        for report in ground.both() {
            assert!(report.is_clean(), "{:?}", report.findings);
        }
        names(&ground)
    };
    let is = |names: &[String], name: &str| names.iter().any(|one| one == name);
    let found = open([366, 184, 0]);
    assert!(is(&found, "kept-security") && !is(&found, "kept-operation"), "{found:?}");
    assert!(is(&found, "audit-erased") && found.iter().filter(|name| *name == "intent").count() == 3);
    let before = segments(&ground.log()).len();
    let found = open([366, 0, 0]);
    assert!(is(&found, "kept-security") && found.iter().filter(|name| *name == "intent").count() == 1);
    assert_eq!(segments(&ground.log()).len(), before + 1, "security is kept, and so are the segments");
    let found = open([0, 0, 0]);
    assert!(!is(&found, "kept-security"));
    assert!(segments(&ground.log()).len() <= 2, "nothing of the others is left to be kept");
}

#[test]
fn what_is_missing_at_the_beginning_is_missed_until_it_has_had_its_time() {
    let ground = Ground::new();
    let log = Log::open(ground.settings()).unwrap();
    fill(&log, 40);
    drop(log);
    std::fs::remove_file(&segments(&ground.log())[0]).unwrap();
    let check = |later: Duration| {
        let master = Some(MasterKey::read(&ground.key()).unwrap());
        let now = SystemTime::now() + later;
        verify(&ground.log(), &Check { master, now, ..Check::default() }).unwrap()
    };
    assert!(!check(Duration::ZERO).is_clean() && !check(365 * DAY).is_clean());
    let report = check(367 * DAY);
    assert!(report.is_clean() && report.first > 1 && report.macs, "{:?}", report.findings);
}

#[test]
fn a_copy_made_while_it_is_written_to_is_clean_and_ends_at_a_record() {
    let ground = Ground::new();
    let log = Log::open(ground.settings()).unwrap();
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| fill(&log, 300));
        for at in 0..20 {
            let copy = ground.path(&format!("copy-{at}"));
            backup(&ground.log(), &copy).unwrap();
            let master = Some(MasterKey::read(&ground.key()).unwrap());
            let report = verify(&copy, &Check { master, ..Check::default() }).unwrap();
            assert!(report.is_clean() && report.unfinished.is_none(), "{report:?}");
            assert!(!copy.join("mac").exists(), "what makes the MACs to come stays behind");
        }
        writing.join().unwrap();
    });
}

#[test]
fn a_copy_goes_nowhere_where_something_is() {
    let ground = Ground::new();
    Log::open(ground.settings()).unwrap().close();
    let copy = ground.path("copy");
    std::fs::create_dir(&copy).unwrap();
    std::fs::write(copy.join("something"), "").unwrap();
    assert!(backup(&ground.log(), &copy).is_err());
    assert_eq!(std::fs::read_dir(&copy).unwrap().count(), 1);
}
