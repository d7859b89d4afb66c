//! A log read page by page, by whoever has a place and a while.

use core::sync::atomic::AtomicBool;
use std::path::Path;

use proptest::prelude::*;
use stockade_audit::{
    Bounds, Class, Event, Filter, Given, Keys, Log, MasterKey, Page, Place, Principal, Reader, Request, What,
};

use super::ground::{Ground, cut_up, fill, segments};

const ALL: Bounds = Bounds { records: usize::MAX, bytes: usize::MAX, looked: u64::MAX };
static NEVER: AtomicBool = AtomicBool::new(false);

fn keys(ground: &Ground) -> Keys {
    Keys::read(&ground.log(), &MasterKey::read(&ground.key()).unwrap(), None).unwrap()
}

/// One page from a place on, and where that ends.
fn page(ground: &Ground, keys: &Keys, place: Place, filter: &Filter, bounds: Bounds) -> (Page, Place) {
    let mut reader = Reader::at(&ground.log(), keys, place);
    let page = reader.page(filter, bounds, &NEVER).unwrap();
    assert_eq!(reader.passed().unreadable, 0);
    (page, reader.place())
}

fn numbers(page: &Page) -> Vec<u64> {
    page.rows.iter().map(|row| row.sequence).collect()
}

/// Some 40 KiB, as the longest command line that is kept.
fn long(uid: u32) -> Event {
    let words = vec![vec![b'x'; 600]; 64];
    let given = Some(Given::of(words.iter().map(Vec::as_slice)));
    let request = Request { action: "run".into(), given, ..Request::default() };
    Event { principal: Some(Principal { uid, ..Principal::default() }), what: What::Intent(request) }
}

/// A log of segments of a few records, and one of more than a window.
fn filled() -> Ground {
    let ground = Ground::new();
    let log = Log::open(ground.settings()).unwrap();
    fill(&log, 60);
    drop(log);
    let mut settings = ground.settings();
    settings.segment_bytes = 64 * 1024 * 1024;
    let log = Log::open(settings).unwrap();
    for uid in 0..60 {
        log.append_and_wait(long(uid % 3)).unwrap();
        fill(&log, 2);
    }
    drop(log);
    assert!(segments(&ground.log()).len() > 3);
    ground
}

#[test]
fn pages_of_any_size_tell_each_record_once_and_in_its_order() {
    let ground = filled();
    let keys = keys(&ground);
    let filters = [
        Filter::default(),
        Filter { uid: Some(2), ..Filter::default() },
        Filter { since: Some(u64::MAX), ..Filter::default() },
    ];
    let whole = filters.clone().map(|filter| page(&ground, &keys, Place::default(), &filter, ALL).0);
    assert!(whole[0].rows.len() > 200 && whole[1].rows.len() == 20 && whole[2].rows.is_empty());
    proptest!(ProptestConfig::with_cases(16), |(
        records in 1usize..90, bytes in prop_oneof![1usize..3_000, 30_000usize..400_000], looked in 1u64..5_000_000, which in 0usize..3,
    )| {
        let bounds = Bounds { records, bytes, looked };
        let (mut place, mut told, mut pages) = (Place::default(), Vec::new(), 0);
        loop {
            let (page, next) = page(&ground, &keys, place, &filters[which], bounds);
            prop_assert!(page.rows.len() <= records);
            let size: usize = page.rows.iter().map(|row| row.text.len()).sum();
            prop_assert!(size <= bytes || page.rows.len() == 1);
            prop_assert!(page.is_last || next != place, "it goes on");
            pages += 1;
            prop_assert!(pages < 2_000);
            told.extend(page.rows);
            place = next;
            if page.is_last {
                break;
            }
        }
        prop_assert_eq!(&told, &whole[which].rows);
    });
}

/// The segment with the body of each record of the first half erased, in another file.
fn erase_half(path: &Path) {
    let (mut bytes, records) = cut_up(&std::fs::read(path).unwrap());
    let half = records.len() / 2;
    for (at, record) in records.iter().enumerate() {
        // What ends a segment isn't erased.
        if at >= half || record[9] != 1 {
            bytes.extend(record);
            continue;
        }
        let mut erased = [&record[..32], &[0; 32], &record[record.len() - 64..]].concat();
        erased[4..8].copy_from_slice(&128u32.to_le_bytes());
        erased[11] = 1;
        bytes.extend(erased);
    }
    let new = path.with_extension("new");
    std::fs::write(&new, bytes).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[test]
fn a_segment_that_is_written_anew_between_two_pages_is_told_on_behind_what_was_told() {
    let ground = filled();
    let keys = keys(&ground);
    let (whole, _) = page(&ground, &keys, Place::default(), &Filter::default(), ALL);
    let last = segments(&ground.log()).pop().unwrap();
    let of_last = cut_up(&std::fs::read(&last).unwrap()).1.len();
    // Into the second half of the last segment.
    let records = whole.rows.len() - of_last / 4;
    let bounds = Bounds { records, ..ALL };
    let (first, place) = page(&ground, &keys, Place::default(), &Filter::default(), bounds);
    erase_half(&last);
    let (second, place) = page(&ground, &keys, place, &Filter::default(), Bounds { records: 5, ..ALL });
    erase_half(&last);
    let (third, _) = page(&ground, &keys, place, &Filter::default(), ALL);
    assert_eq!((second.rows.len(), third.is_last), (5, true));
    assert_eq!([numbers(&first), numbers(&second), numbers(&third)].concat(), numbers(&whole));
    // What is gone whole is passed over.
    std::fs::remove_file(last).unwrap();
    assert!(page(&ground, &keys, place, &Filter::default(), ALL).0.rows.is_empty());
}

#[test]
fn a_record_whose_number_was_changed_hides_none_behind_it() {
    let ground = filled();
    let keys = keys(&ground);
    let (whole, _) = page(&ground, &keys, Place::default(), &Filter::default(), ALL);
    let path = segments(&ground.log()).pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let (header, records) = cut_up(&bytes);
    let second = header.len() + records[0].len();
    bytes[second + 16..second + 24].copy_from_slice(&u64::MAX.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let mut reader = Reader::new(&ground.log(), &keys);
    let mut told = Vec::new();
    loop {
        let page = reader.page(&Filter::default(), Bounds { records: 7, ..ALL }, &NEVER).unwrap();
        told.extend(numbers(&page));
        if page.is_last {
            break;
        }
    }
    assert_eq!((told.len(), reader.passed().unreadable), (whole.rows.len() - 1, 1));
}

#[test]
fn the_last_so_many_are_found_from_the_end_and_who_may_not_look_so_far_is_told() {
    let ground = filled();
    let keys = keys(&ground);
    let whole = numbers(&page(&ground, &keys, Place::default(), &Filter::default(), ALL).0);
    for many in [0, 1, 5, 100, 200, whole.len(), whole.len() + 1] {
        let mut reader = Reader::new(&ground.log(), &keys);
        assert!(reader.go_to_last(many, &Filter::default(), u64::MAX, &NEVER).unwrap());
        let page = reader.page(&Filter::default(), ALL, &NEVER).unwrap();
        assert_eq!(numbers(&page), whole[whole.len().saturating_sub(many)..], "{many}");
    }
    let mut reader = Reader::new(&ground.log(), &keys);
    let is_whole = reader.go_to_last(whole.len(), &Filter::default(), 1, &NEVER).unwrap();
    let found = reader.page(&Filter::default(), ALL, &NEVER).unwrap().rows.len();
    assert!(!is_whole && found > 0 && found < whole.len(), "{found}");
    // Nothing fits: it goes on at the end.
    let nobody = Filter { uid: Some(4_242), ..Filter::default() };
    assert!(reader.go_to_last(3, &nobody, u64::MAX, &NEVER).unwrap());
    assert!(reader.page(&Filter::default(), ALL, &NEVER).unwrap().rows.is_empty());
}

#[test]
fn a_page_that_nobody_waits_for_ends_with_nothing() {
    let ground = filled();
    let keys = keys(&ground);
    let mut reader = Reader::new(&ground.log(), &keys);
    let page = reader.page(&Filter::default(), ALL, &AtomicBool::new(true)).unwrap();
    assert_eq!(page, Page { rows: Vec::new(), is_last: false });
}

#[test]
fn who_reads_while_it_is_written_is_told_what_comes_in_this_segment_and_the_next() {
    let ground = Ground::new();
    let log = Log::open(ground.settings()).unwrap();
    let (path, keys) = log.for_reading();
    assert_eq!(path, ground.log());
    let mut place = Place::default();
    let mut told = Vec::new();
    for at in 1..=30 {
        fill(&log, 3);
        let mut reader = Reader::at(&path, &keys, place);
        let page = reader.page(&Filter::default(), ALL, &NEVER).unwrap();
        place = reader.place();
        let of_access = page.rows.into_iter().filter(|row| row.class == Class::Access);
        told.extend(of_access.map(|row| row.sequence));
        assert_eq!(told.len(), 3 * at, "all that was durable, once");
    }
    assert!(segments(&ground.log()).len() > 3 && told.is_sorted() && told.last() <= Some(&log.durable()));
}
