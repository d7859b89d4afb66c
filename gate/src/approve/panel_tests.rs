#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use core::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::tools::hex;

const DIGEST: [u8; 32] = [0xab; 32];

fn printed(digest: [u8; 32], approve: bool) -> Result<Answer, String> {
    let text =
        format!(r#"{{"digest":"{}","approve":{approve},"reason":"as the test has it"}}"#, hex(&digest));
    Answer::read(text.as_bytes())
}

/// What one may say: a yes, a no, a yes to something else, or nothing that can be read.
fn said(kind: u8) -> Result<Answer, String> {
    match kind {
        0 => printed(DIGEST, true),
        1 => printed(DIGEST, false),
        2 => printed([1; 32], true),
        _ => Err("it has ended".into()),
    }
}

fn panel(needed: u32, seats: usize) -> Panel {
    Panel::new(DIGEST, needed, (0..seats).map(|seat| seat.to_string()))
}

#[test]
fn only_one_object_of_these_keys_about_this_digest_is_an_answer() {
    let digest = hex(&DIGEST);
    let yes = format!(r#"{{"digest":"{digest}","approve":true,"reason":"fine"}}"#);
    assert_eq!(panel(1, 1).answer(0, Answer::read(yes.as_bytes())), Sitting::LetsThrough);
    assert_eq!(panel(1, 1).answer(0, Answer::read(format!("\n {yes}\n").as_bytes())), Sitting::LetsThrough);
    for (text, why) in [
        (String::new(), "EOF"),
        ("yes".into(), "expected"),
        (format!("{yes}{yes}"), "trailing"),
        (format!("I think so:\n{yes}"), "expected"),
        (format!("[{yes}]"), "invalid"),
        (yes.replace("true", "\"true\""), "invalid type"),
        (yes.replace("true", "1"), "invalid type"),
        (yes.replace("\"reason\"", "\"why\""), "unknown field"),
        (yes.replace(",\"reason\":\"fine\"", ""), "missing field"),
        (yes.replace("\"approve\":true", "\"approve\":false,\"approve\":true"), "duplicate field"),
        (yes.replace(&digest, &digest[1..]), "64 hexadecimal digits"),
        (yes.replace(&digest, ""), "64 hexadecimal digits"),
        (format!("{yes}{}", " ".repeat(MAX_ANSWER)), "more than"),
    ] {
        let answer = Answer::read(text.as_bytes());
        assert!(answer.as_ref().is_err_and(|said| said.contains(why)), "{text}: {answer:?}");
        assert_eq!(panel(1, 1).answer(0, answer), Sitting::Refuses, "{text}");
    }
    let long = yes.replace("fine", &"\u{e4}".repeat(MAX_REASON));
    let mut panel = panel(1, 1);
    assert_eq!(panel.answer(0, Answer::read(long.as_bytes())), Sitting::LetsThrough);
    assert_eq!(panel.seats()[0].reason().len(), MAX_REASON);
}

#[test]
fn the_first_word_stands_and_nobody_has_two_seats() {
    let mut panel = panel(2, 3);
    assert_eq!(panel.answer(0, said(0)), Sitting::Waits);
    assert_eq!(panel.answer(0, said(0)), Sitting::Waits, "one yes is one");
    assert_eq!(panel.answer(7, said(0)), Sitting::Waits, "there is no such reviewer");
    assert_eq!(panel.answer(1, said(1)), Sitting::Waits);
    assert_eq!(panel.answer(1, said(0)), Sitting::Waits, "a no stays one");
    assert_eq!(panel.answer(2, said(0)), Sitting::LetsThrough);
    assert_eq!(panel.answer(2, said(1)), Sitting::LetsThrough, "and a yes, too");
    assert_eq!(panel.late(), Sitting::LetsThrough);
    let nobody = Panel::new(DIGEST, 0, Vec::new());
    assert_eq!(nobody.standing(), Sitting::Refuses, "nobody's yes is none");
}

proptest! {
    #[test]
    fn nothing_is_let_through_but_by_as_many_different_yes_to_this_digest_as_are_needed_in_time(
        needed in 0_u32..5,
        seats in 0_usize..5,
        answers in prop::collection::vec((0_usize..6, 0_u8..4), 0..12),
    ) {
        let mut panel = panel(needed, seats);
        let mut first = vec![None; seats];
        for (seat, kind) in answers {
            let standing = panel.answer(seat, said(kind));
            if let Some(first) = first.get_mut(seat) {
                first.get_or_insert(kind);
            }
            let yes = first.iter().filter(|said| **said == Some(0)).count();
            let open = first.iter().filter(|said| said.is_none()).count();
            let needed = usize::try_from(needed.max(1)).unwrap();
            let expected = if yes >= needed { Sitting::LetsThrough }
                else if yes + open < needed { Sitting::Refuses }
                else { Sitting::Waits };
            prop_assert_eq!(standing, expected);
        }
        let standing = panel.standing();
        match panel.late() {
            Sitting::LetsThrough => prop_assert_eq!(standing, Sitting::LetsThrough),
            Sitting::Refuses => prop_assert_ne!(standing, Sitting::LetsThrough),
            Sitting::Waits => prop_assert!(false, "the time is over"),
        }
    }

    #[test]
    fn the_order_of_answers_makes_no_difference_and_what_was_decided_stays(
        needed in 1_u32..5,
        (kinds, order) in prop::collection::vec(0_u8..4, 1..6).prop_flat_map(|kinds| {
            let order: Vec<usize> = (0..kinds.len()).collect();
            (Just(kinds), Just(order).prop_shuffle())
        }),
    ) {
        let (mut one, mut other) = (panel(needed, kinds.len()), panel(needed, kinds.len()));
        for (seat, kind) in kinds.iter().enumerate() {
            let _standing = one.answer(seat, said(*kind));
        }
        let mut decided = Sitting::Waits;
        for seat in order {
            let standing = other.answer(seat, said(kinds[seat]));
            prop_assert!(decided == Sitting::Waits || decided == standing);
            decided = standing;
        }
        prop_assert_eq!(one.standing(), other.standing());
        prop_assert_ne!(one.standing(), Sitting::Waits);
    }

    #[test]
    fn nobody_spends_more_than_his_budget_in_any_day_nor_of_anothers(
        budget in 1_u32..12,
        asked in prop::collection::vec((0_u32..3, 1_u32..6, 0_u64..40_000, any::<bool>()), 1..60),
    ) {
        let mut budgets = Budgets::default();
        let (mut now, mut spent) = (Duration::ZERO, Vec::<(u32, u32, Duration)>::new());
        for (uid, cost, later, keeps) in asked {
            now += Duration::from_secs(later);
            let of_his = |from: Duration| -> u32 {
                spent.iter().filter(|(of, _, at)| *of == uid && *at > from).map(|(_, cost, _)| cost).sum()
            };
            match budgets.take(uid, cost, budget, now) {
                Ok(charge) => {
                    prop_assert!(now < DAY || of_his(now - DAY) + cost <= budget);
                    prop_assert!(now >= DAY || of_his(Duration::ZERO) + cost <= budget || spent.is_empty());
                    if keeps { spent.push((uid, cost, now)); } else { budgets.give_back(charge, cost); }
                }
                Err(Spent { after: None }) => prop_assert!(cost > budget),
                Err(Spent { after: Some(after) }) => {
                    // Nobody else's questions are in it, and it's exact.
                    let slack = Duration::from_secs(30 * 60);
                    prop_assert!(of_his(now.saturating_sub(DAY + slack)) + cost > budget || now < DAY);
                    let mut then = budgets.clone();
                    prop_assert!(then.take(uid, cost, budget, now + after).is_ok());
                    if let Some(before) = after.checked_sub(Duration::from_secs(1)) {
                        prop_assert!(budgets.clone().take(uid, cost, budget, now + before).is_err());
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_known_of_spending_is_bounded_and_a_full_list_gives_nobody_more() {
    let mut budgets = Budgets::default();
    let most = u32::try_from(MAX_SPENDERS).unwrap();
    for uid in 0..most {
        budgets.take(uid, 1, 1, Duration::ZERO).unwrap();
    }
    assert!(budgets.take(most, 1, 1, Duration::ZERO).is_err());
    assert!(budgets.take(0, 1, 1, Duration::ZERO).is_err(), "nobody is forgotten for another");
    assert_eq!(budgets.sizes().0, MAX_SPENDERS);
    budgets.take(most, 1, 1, DAY * 2).unwrap();
    assert_eq!(budgets.sizes().0, 1);
    for half_hour in 0..1_000 {
        budgets.take(most, 1, u32::MAX, DAY * 2 + Duration::from_secs(30 * 60 * half_hour)).unwrap();
    }
    assert!(budgets.sizes().1 <= 50, "{:?}", budgets.sizes());
    assert_eq!(budgets.spent(most, DAY * 100), 0);
}

#[test]
fn a_files_reviewers_are_read_and_each_mistake_has_its_place() {
    let one = |name: &str, tool: &str, cost: &str| {
        format!("[[reviewer]]\nname = \"{name}\"\ntool = \"{tool}\"\ncost = {cost}\n")
    };
    let two = one("a", "x", "3") + &one("b", "y", "4");
    let filed = read("approval.toml", &two).unwrap().reviews.unwrap();
    assert_eq!((filed.needed, filed.budget, filed.cost()), (2, 100, 7), "all of them, if it doesn't say");
    assert_eq!((filed.within, filed.instead_of_people), (Duration::from_secs(30), false));
    assert_eq!((filed.reviewers[1].name.as_str(), filed.reviewers[1].tool.at.line), ("b", 7));
    let said = format!("{two}[reviews]\nneeded = 1\nwithin = \"5s\"\nbudget = 9\ninstead-of-people = true\n");
    let filed = read("approval.toml", &said).unwrap().reviews.unwrap();
    assert_eq!((filed.needed, filed.budget, filed.within.as_secs()), (1, 9, 5));
    assert!(filed.instead_of_people);
    assert!(read("approval.toml", "[approval]\nneeded = 1\n").unwrap().reviews.is_none());
    let many: String = (0..=MAX_REVIEWERS).map(|at| one(&at.to_string(), &format!("t{at}"), "1")).collect();
    for (text, expected) in [
        (many, "reviewers"),
        ("[reviews]\nneeded = 1\n".to_owned(), "approval.toml:1:1: [reviews] holds for nothing"),
        ("[[reviewer]]\nname = \"a\"\ncost = 1\n".to_owned(), "`tool`"),
        ("[[reviewer]]\ntool = \"a\"\ncost = 1\n".to_owned(), "`name`"),
        ("[[reviewer]]\nname = \"a\"\ntool = \"a\"\n".to_owned(), "`cost`"),
        (one("a", "x", "0"), "approval.toml:4:8: "),
        (one("a", "x", "1") + "command = \"x\"\n", "unknown key `command`"),
        (one("a", "x", "1") + &one("a", "y", "1"), "there is a reviewer `a` already"),
        (one("a", "x", "1") + &one("b", "x", "1"), "approval.toml:7:8: the tool `x` is another reviewer's"),
        (one("a", "x", "101"), "one question costs 101 and a day's budget is 100"),
        (format!("{two}[reviews]\nneeded = 3\n"), "3 is out of range"),
        (format!("{two}[reviews]\nneeded = 0\n"), "0 is out of range"),
        (format!("{two}[reviews]\nwithin = \"2h\"\n"), "it isn't from a second to an hour"),
        (format!("{two}[reviews]\ninstead = true\n"), "unknown key `instead` in [reviews]"),
    ] {
        let mistakes = read("approval.toml", &text).expect_err(&text);
        let said: String = mistakes.iter().map(|mistake| format!("{mistake}\n")).collect();
        assert!(said.contains(expected), "{text}\n{said}");
        assert!(said.lines().all(|line| line.starts_with("approval.toml:")), "{said}");
    }
}
