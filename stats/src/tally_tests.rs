//! Bounds, and that nothing is counted twice or lost.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_700_000_000;

fn who(tool: &str, uid: u32) -> Who<'_> {
    Who { tool: Some(tool), policy: Some("default"), uid }
}

fn run(number: usize) -> RunId {
    (number as u128).to_be_bytes()
}

/// Runs and denials of all rows of a kind.
fn totals(tally: &Tally, kind: Kind) -> (u64, u64) {
    tally
        .rows()
        .filter(|row| row.1 == kind)
        .fold((0, 0), |(runs, denied), (.., cell)| (runs + cell.runs(), denied + cell.denied()))
}

#[test]
fn names_beyond_the_bound_are_counted_together_and_none_is_lost() {
    let mut tally = Tally::default();
    let all = MOST_TOOLS + 500;
    for number in 0..all {
        let uid = u32::try_from(number).unwrap();
        tally.end(NOW, run(number), who(&format!("tool-{number}"), uid), Ending::Ok, Some((5, 6)));
    }
    for (kind, own) in [(Kind::Tool, MOST_TOOLS), (Kind::Principal, MOST_PRINCIPALS), (Kind::Policy, 1)] {
        let rows: Vec<_> = tally.rows().filter(|row| row.1 == kind).collect();
        assert_eq!(totals(&tally, kind), (all as u64, 0));
        let other = rows.iter().find(|row| row.2 == OTHER).map(|row| row.3.runs());
        assert_eq!(rows.len(), own + usize::from(own > 1));
        assert_eq!(other, (own > 1).then_some(500));
    }
    // Who has a row keeps it.
    tally.end(NOW, run(0), who("tool-7", 7), Ending::Failed, None);
    let seven = tally.rows().find(|row| row.2 == "tool-7").unwrap();
    assert_eq!(seven.3.runs(), 2);
    let long = "x".repeat(LONGEST_NAME + 1);
    tally.deny(NOW, who(&long, 7), Stage::Rate);
    assert!(tally.rows().all(|row| row.2 != long));
}

#[test]
fn a_run_that_is_forgotten_before_it_is_written_leaves_nothing_and_afterwards_its_id() {
    let mut tally = Tally::default();
    tally.end(NOW, run(1), who("a", 1), Ending::Ok, None);
    tally.forget(run(1));
    tally.forget(run(2));
    assert!(tally.counted.is_empty());
    assert_eq!(tally.forgotten, BTreeSet::from([run(2)]));
    let mut pending = Tally::default();
    pending.end(NOW, run(2), who("a", 1), Ending::Ok, None);
    pending.merge(&tally);
    assert!(pending.counted.is_empty() && pending.forgotten.is_empty(), "{pending:?}");
    assert_eq!(totals(&pending, Kind::Tool), (2, 0));
}

#[test]
fn a_run_of_an_earlier_daemon_that_is_forgotten_at_once_is_forgotten_by_the_file_too() {
    let mut tally = Tally::default();
    tally.remember(run(1));
    tally.remember(run(2));
    tally.forget(run(1));
    assert_eq!((&tally.remembered, &tally.forgotten), (&BTreeSet::from([run(2)]), &BTreeSet::from([run(1)])));
    let mut later = Tally::default();
    later.forget(run(2));
    tally.merge(&later);
    assert_eq!((tally.remembered.len(), &tally.forgotten), (0, &BTreeSet::from([run(1), run(2)])));
    assert!(!tally.is_empty());
    // Of a launcher that was silent: it comes late, and tells of it after all.
    later.remember(run(2));
    tally.merge(&later);
    assert_eq!((&tally.remembered, &tally.forgotten), (&BTreeSet::from([run(2)]), &BTreeSet::from([run(1)])));
}

proptest! {
    #[test]
    fn totals_are_what_was_counted_however_it_is_cut_and_whatever_the_clock_does(
        events in vec((0_u64..9, any::<bool>(), 0_u8..3, 0_u32..3), 0..60), cut in any::<prop::sample::Index>(),
    ) {
        let (mut early, mut late, mut whole) = (Tally::default(), Tally::default(), Tally::default());
        let cut = cut.index(events.len() + 1);
        for (at, (hours, is_run, tool, uid)) in events.iter().enumerate() {
            let name = format!("t{tool}");
            let (who, now) = (who(&name, *uid), NOW + hours * HOUR);
            for tally in [&mut whole, if at < cut { &mut early } else { &mut late }] {
                if *is_run {
                    tally.end(now, run(at), who, Ending::TimedOut, Some((7, 8)));
                } else {
                    tally.deny(now, who, Stage::Queue);
                }
            }
        }
        early.merge(&late);
        let runs = events.iter().filter(|event| event.1).count() as u64;
        for kind in Kind::ALL {
            prop_assert_eq!(totals(&whole, *kind), (runs, events.len() as u64 - runs));
            prop_assert_eq!(totals(&early, *kind), totals(&whole, *kind));
        }
        prop_assert!(early.hours.len() <= MOST_HOURS && whole.hours.len() <= MOST_HOURS);
        prop_assert_eq!(early.counted, whole.counted);
    }
}
