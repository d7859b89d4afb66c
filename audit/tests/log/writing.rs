//! Writing: numbers, segments, heads, another writer, recovery.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use stockade_audit::{
    AuditError, Check, Event, Flood, Head, Log, MasterKey, Principal, Refused, Tampering, Unavailable,
    VerificationKey, What, Written, rotate, verify,
};

use crate::ground::{Ground, copy_all, cut_up, fill, intent, outcome, segments};

#[test]
fn what_is_told_to_be_durable_is_there_in_order_and_verifies() {
    let ground = Ground::new();
    let log = Log::open(ground.settings()).unwrap();
    let mut before = log.state().durable;
    for at in 0..50 {
        let Written::Durable(number) = log.append_and_wait(intent(&at.to_string())).unwrap() else {
            panic!()
        };
        // The ends of segments have numbers, too.
        assert!(number > before && number <= before + 2, "{before} {number}");
        before = number;
    }
    log.close();
    for report in ground.both() {
        assert!(report.is_clean(), "{:?}", report.findings);
        assert_eq!((report.unfinished, report.recovered.len()), (None, 0));
        assert!(report.segments > 2 && report.records > 50 && report.signed == report.last);
    }
    assert!(segments(&ground.log()).iter().all(|path| fs::metadata(path).unwrap().mode() & 0o777 == 0o600));
}

#[test]
fn many_at_once_are_each_told_once_and_numbers_are_their_own() {
    let ground = Ground::new();
    let mut settings = ground.settings();
    settings.segment_bytes = 1024 * 1024;
    let log = Log::open(settings).unwrap();
    let (tell, told) = channel();
    std::thread::scope(|scope| {
        for caller in 0..8 {
            let (log, tell) = (&log, tell.clone());
            scope.spawn(move || {
                for at in 0..200 {
                    let tell = tell.clone();
                    let event = intent(&format!("{caller}-{at}"));
                    log.append(event, Box::new(move |result| tell.send(result).unwrap()));
                }
            });
        }
    });
    drop(tell);
    log.close();
    let mut numbers: Vec<u64> = told
        .iter()
        .map(|result| match result.unwrap() {
            Written::Durable(number) => number,
            Written::Counted => panic!("an intent is never left out"),
        })
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 1600);
    assert!(ground.both().iter().all(stockade_audit::Report::is_clean));
}

#[test]
fn a_directory_has_one_writer_at_a_time() {
    let ground = Ground::new();
    let log = Log::open(ground.settings()).unwrap();
    assert!(matches!(Log::open(ground.settings()), Err(AuditError::Held(_))));
    log.close();
    Log::open(ground.settings()).unwrap().close();
}

#[test]
fn another_master_key_opens_nothing_and_changes_nothing() {
    let ground = Ground::new();
    Log::open(ground.settings()).unwrap().close();
    let mut settings = ground.settings();
    settings.master = MasterKey::create(&ground.path("other")).unwrap();
    let before = segments(&ground.log());
    assert!(matches!(Log::open(settings), Err(AuditError::WrongKey(_))));
    assert_eq!(segments(&ground.log()), before);
}

#[test]
fn a_full_queue_refuses_and_says_so() {
    let ground = Ground::new();
    let mut settings = ground.settings();
    settings.queue = 1;
    let log = Log::open(settings).unwrap();
    let (tell, told) = channel();
    for at in 0..2000 {
        let tell = tell.clone();
        log.append(intent(&at.to_string()), Box::new(move |result| tell.send(result).unwrap()));
    }
    let results: Vec<_> = told.iter().take(2000).collect();
    let full = results.iter().filter(|result| **result == Err(Unavailable::Full)).count();
    assert_eq!(log.state().refused, full as u64);
    assert!(results.iter().all(|result| matches!(result, Ok(Written::Durable(_)) | Err(Unavailable::Full))));
    assert_eq!(log.state().unavailable, None, "it could take more at once");
}

#[test]
fn refusals_that_wait_keep_no_run_out_and_an_outcome_always_finds_room() {
    let ground = Ground::new();
    let mut settings = ground.settings();
    settings.queue = 8;
    let log = Log::open(settings).unwrap();
    // The log's thread is held up, as by a slow disk.
    let ((go_on, wait), (here, held)) = (channel::<()>(), channel());
    let hold = move |_| {
        here.send(()).unwrap();
        let _ = wait.recv();
    };
    log.append(intent("0"), Box::new(hold));
    held.recv().unwrap();
    let (tell, told) = channel();
    let full = |event: &dyn Fn() -> Event, many: usize| {
        let before = log.state().refused;
        for _ in 0..many {
            let tell = tell.clone();
            log.append(event(), Box::new(move |result| tell.send(result).unwrap()));
        }
        log.state().refused - before
    };
    let refused = || Event { principal: None, what: What::Refused(Refused::default()) };
    assert_eq!(full(&refused, 20), 16, "half of the queue");
    assert_eq!(full(&|| Event::security("a-thing", ""), 3), 3);
    assert_eq!(full(&|| intent("1"), 5), 1, "the other half");
    assert_eq!(full(&|| outcome("0"), 20), 0);
    drop(go_on);
    log.close();
    drop(tell);
    let durable = told.iter().filter(|result| matches!(result, Ok(Written::Durable(_)))).count();
    assert_eq!(durable, 4 + 4 + 20);
}

#[test]
fn heads_are_signed_as_it_moves_and_copied_to_a_second_place() {
    let ground = Ground::new();
    let mut settings = ground.settings();
    settings.copy = Some(ground.copies());
    let (tell, told) = channel();
    settings.on_head = Some(Box::new(move |head: &Head| tell.send(*head).unwrap()));
    let log = Log::open(settings).unwrap();
    let Written::Durable(number) = log.append_and_wait(intent("1")).unwrap() else { panic!() };
    // Signed by itself, without anything else that is written.
    let head = told.iter().find(|head| head.sequence >= number).unwrap();
    assert!(head.is_signed());
    log.close();
    let heads: Vec<Head> =
        fs::read_to_string(ground.copies()).unwrap().lines().map(|line| Head::parse(line).unwrap()).collect();
    assert!(heads.contains(&head), "{heads:?}");
    let copies = vec![ground.copies()];
    let report = verify(&ground.log(), &Check { copies, ..Check::default() }).unwrap();
    assert!(report.is_clean() && report.known && report.heads > 0, "{report:?}");
}

/// Whatever part of the last write is there, no whole record is lost, and it's said what was found.
#[test]
fn a_tail_cut_at_any_byte_is_sealed_and_said_and_loses_no_whole_record() {
    let ground = Ground::new();
    let mut settings = ground.settings();
    settings.head_every = Duration::from_secs(3600);
    settings.segment_bytes = 1024 * 1024;
    let log = Log::open(settings).unwrap();
    fill(&log, 6);
    let crashed = ground.path("crashed");
    copy_all(&ground.log(), &crashed);
    drop(log);
    let last = segments(&crashed).pop().unwrap();
    let bytes = fs::read(&last).unwrap();
    let (_, records) = cut_up(&bytes);
    let behind = bytes.len() - records.last().unwrap().len();
    // Nothing was signed there, so it's as if the last write had come that far only.
    fs::remove_file(crashed.join("head")).ok();
    for length in (behind..bytes.len()).step_by(7).chain([behind + 1, bytes.len() - 1, bytes.len()]) {
        let place = ground.path("tried");
        copy_all(&crashed, &place);
        fs::write(place.join(last.file_name().unwrap()), &bytes[..length]).unwrap();
        let torn = length > behind && length < bytes.len();
        let whole = records.len() - usize::from(length < bytes.len());
        let report = verify(&place, &Check::default()).unwrap();
        assert_eq!((report.is_clean(), report.unfinished.is_some()), (true, torn), "{length}: {report:?}");
        let log = Log::open(crate::ground::settings(&place, &ground.key())).unwrap();
        log.append_and_wait(intent("after")).unwrap();
        drop(log);
        let master = Some(MasterKey::read(&ground.key()).unwrap());
        let report = verify(&place, &Check { master, ..Check::default() }).unwrap();
        assert!(report.is_clean(), "{length}: {:?}", report.findings);
        assert_eq!(report.recovered.len(), usize::from(torn));
        let events = crate::ground::events(&place, &ground.key());
        assert_eq!(events.iter().any(|event| event.name() == "audit-unfinished-tail"), torn);
        let kept = events.iter().filter(|event| matches!(event.name(), "intent" | "outcome")).count();
        // The first record is our own, and one of them came after.
        assert_eq!(kept, whole, "{length}");
        fs::remove_dir_all(&place).unwrap();
    }
}

/// However many segments there are, and whoever has begun them.
#[test]
fn the_state_has_the_size_that_the_files_have() {
    let ground = Ground::new();
    let size = || segments(&ground.log()).iter().map(|path| fs::metadata(path).unwrap().len()).sum::<u64>();
    for earlier in [0, 1] {
        let log = Log::open(ground.settings()).unwrap();
        fill(&log, 40);
        let many = segments(&ground.log()).len();
        assert!(many > 2 + earlier, "{many} segments");
        // What was told to be durable is written; the next segment may be begun behind it.
        let is_so = || {
            let before = size();
            log.state().bytes == before && size() == before
        };
        let end = Instant::now() + Duration::from_secs(20);
        while !is_so() {
            assert!(Instant::now() < end, "{:?}, and the files have {}", log.state(), size());
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_damaged_segment_is_said_and_records_behind_the_damage_are_not_lost() {
    let ground = Ground::new();
    let mut settings = ground.settings();
    settings.segment_bytes = 1024 * 1024;
    let log = Log::open(settings).unwrap();
    fill(&log, 10);
    drop(log);
    let last = segments(&ground.log()).pop().unwrap();
    let mut bytes = fs::read(&last).unwrap();
    let (header, records) = cut_up(&bytes);
    let third = header.len() + records[0].len() + records[1].len();
    bytes[third + 5] ^= 0xff;
    fs::write(&last, &bytes).unwrap();
    let log = Log::open(ground.settings()).unwrap();
    log.append_and_wait(intent("after")).unwrap();
    drop(log);
    let events = crate::ground::events(&ground.log(), &ground.key());
    assert!(events.iter().any(|event| event.name() == "audit-damaged"), "{events:?}");
    assert_eq!(events.iter().filter(|event| matches!(event.name(), "intent" | "outcome")).count(), 10);
    for report in ground.both() {
        let first = &report.findings[0];
        assert_eq!((first.tampering, first.offset), (Tampering::Changed, Some(third as u64)), "{first}");
    }
}

#[test]
fn what_was_cut_off_before_a_start_is_said_and_its_numbers_are_not_used_again() {
    let ground = Ground::new();
    let log = Log::open(ground.settings()).unwrap();
    fill(&log, 5);
    drop(log);
    let last = segments(&ground.log()).pop().unwrap();
    let signed = ground.verify(false).last;
    fs::remove_file(last).unwrap();
    let log = Log::open(ground.settings()).unwrap();
    let Written::Durable(number) = log.append_and_wait(intent("after")).unwrap() else { panic!() };
    assert!(number > signed, "{number} {signed}");
    drop(log);
    let events = crate::ground::events(&ground.log(), &ground.key());
    let names: Vec<&str> = events.iter().map(Event::name).collect();
    assert!(names.contains(&"audit-cut") && names.contains(&"audit-segments-missing"), "{names:?}");
    assert!(ground.both().iter().all(|report| report.findings[0].tampering == Tampering::Dropped));
}

#[test]
fn a_new_master_key_holds_from_the_next_start_and_old_segments_stay_readable() {
    let ground = Ground::new();
    let log = Log::open(ground.settings()).unwrap();
    fill(&log, 20);
    let (old, new) =
        (MasterKey::read(&ground.key()).unwrap(), MasterKey::create(&ground.path("new")).unwrap());
    rotate(&ground.log(), &old, &new).unwrap();
    // The writer that runs goes on.
    fill(&log, 20);
    drop(log);
    assert!(matches!(Log::open(ground.settings()), Err(AuditError::WrongKey(_))));
    fs::rename(ground.path("new"), ground.key()).unwrap();
    let log = Log::open(ground.settings()).unwrap();
    fill(&log, 20);
    drop(log);
    let report = ground.verify(true);
    assert!(report.is_clean() && report.opened && report.macs, "{:?}", report.findings);
    let events = crate::ground::events(&ground.log(), &ground.key());
    assert_eq!(events.iter().filter(|event| matches!(event.name(), "intent" | "outcome")).count(), 60);
}

#[test]
fn without_the_verification_key_nobody_here_can_check_or_make_a_mac_of_the_past() {
    let ground = Ground::new();
    let mut settings = ground.settings();
    settings.verification = Some(ground.path("verification"));
    let log = Log::open(settings).unwrap();
    fill(&log, 20);
    drop(log);
    let report = ground.verify(true);
    assert!(report.is_clean() && report.opened && !report.macs);
    let verification = Some(VerificationKey::read(&ground.path("verification"), &ground.log()).unwrap());
    let master = Some(MasterKey::read(&ground.key()).unwrap());
    let report = verify(&ground.log(), &Check { master, verification, ..Check::default() }).unwrap();
    assert!(report.is_clean() && report.macs, "{:?}", report.findings);
    // The log goes on without it.
    Log::open(ground.settings()).unwrap().close();
}

/// Whatever the first start was killed over, the next one is a first start.
#[test]
fn a_first_start_that_did_not_come_to_its_end_is_made_up_for() {
    // What can't be written is where it was killed; and the same, where it was killed between making and writing a file.
    for (file, is_empty) in [("mac", false), ("keys", false), ("keys", true)] {
        for kept_elsewhere in [true, false] {
            let ground = Ground::new();
            let away = ground.path("verification");
            let settings = || {
                let mut settings = ground.settings();
                settings.verification = kept_elsewhere.then(|| away.clone());
                settings
            };
            let in_the_way = ground.log().join(format!("{file}.new"));
            DirBuilder::new().mode(0o700).create(ground.log()).unwrap();
            fs::create_dir_all(in_the_way.join("something")).unwrap();
            assert!(Log::open(settings()).is_err());
            assert!(!ground.log().join("keys").exists());
            fs::remove_dir_all(&in_the_way).unwrap();
            let there = fs::read(&away).ok();
            assert_eq!(there.is_some(), kept_elsewhere && file == "keys");
            if let (Some(_), true) = (&there, is_empty) {
                fs::write(&away, "").unwrap();
            }
            let log = Log::open(settings()).unwrap();
            fill(&log, 10);
            log.close();
            assert!(is_empty || there.is_none_or(|there| there == fs::read(&away).unwrap()));
            let master = Some(MasterKey::read(&ground.key()).unwrap());
            let verification = kept_elsewhere.then(|| VerificationKey::read(&away, &ground.log()).unwrap());
            let report = verify(&ground.log(), &Check { master, verification, ..Check::default() }).unwrap();
            assert!(report.is_clean() && report.macs, "{file}: {:?}", report.findings);
        }
    }
}

#[test]
fn a_verification_key_that_is_there_is_another_logs_and_stays() {
    let ground = Ground::new();
    let away = ground.path("verification");
    MasterKey::create(&away).unwrap();
    let before = fs::read(&away).unwrap();
    for _ in 0..2 {
        let mut settings = ground.settings();
        settings.verification = Some(away.clone());
        let error = Log::open(settings).unwrap_err();
        assert_eq!(error.remedy(), Some("move it away, or name another file"), "{error}");
    }
    assert_eq!(fs::read(&away).unwrap(), before);
    // One whose place isn't there leaves nothing behind by which that would be forgotten.
    let mut settings = ground.settings();
    settings.verification = Some(ground.path("nowhere").join("verification"));
    assert!(Log::open(settings).is_err() && !ground.log().join("mac").exists());
}

#[test]
fn what_is_left_of_a_new_file_by_a_killed_writer_is_in_nobodys_way() {
    let ground = Ground::new();
    Log::open(ground.settings()).unwrap().close();
    for name in ["00000000000000000002.segment.new", "keys.new", "mac.new", "head.new"] {
        let mut file = OpenOptions::new().create(true).append(true).open(ground.log().join(name)).unwrap();
        file.write_all(b"half").unwrap();
    }
    Log::open(ground.settings()).unwrap().close();
    assert!(ground.both().iter().all(stockade_audit::Report::is_clean));
}

#[test]
fn of_a_flood_the_first_are_written_and_the_number_of_the_others() {
    let ground = Ground::new();
    let mut settings = ground.settings();
    settings.flood = Flood { burst: 20, window: Duration::from_secs(3600) };
    let log = Log::open(settings).unwrap();
    let refused = || Event {
        principal: Some(Principal { uid: 7, ..Principal::default() }),
        what: What::Refused(Refused { rule: "r".into(), ..Refused::default() }),
    };
    let written: Vec<_> = (0..100).map(|_| log.append_and_wait(refused()).unwrap()).collect();
    drop(log);
    let counted = written.iter().filter(|one| **one == Written::Counted).count() as u64;
    let events = crate::ground::events(&ground.log(), &ground.key());
    let repeated = |event: &Event| match &event.what {
        What::Repeated(repeated) => repeated.count,
        _ => 0,
    };
    assert_eq!(counted, 80);
    assert_eq!(events.iter().map(repeated).sum::<u64>(), counted);
    assert_eq!(events.iter().filter(|event| event.name() == "refused").count(), 20);
}

#[test]
fn a_second_place_that_is_not_there_is_said_and_holds_nobody_up() {
    let ground = Ground::new();
    let mut settings = ground.settings();
    settings.copy = Some(ground.path("nowhere").join("heads"));
    let (tell, told) = channel();
    settings.on_head = Some(Box::new(move |head: &Head| tell.send(*head).unwrap()));
    let log = Log::open(settings).unwrap();
    log.append_and_wait(intent("1")).unwrap();
    // It's told of a head after that was tried to be copied.
    told.recv().unwrap();
    assert!(log.state().copy.is_some_and(|why| why.contains("No such file")));
    log.append_and_wait(intent("2")).unwrap();
}
