//! The limiter as a whole, by random histories; and its file.

use core::time::Duration;
use std::collections::BTreeSet;
use std::time::SystemTime;

use proptest::prelude::*;

use super::{FILE, Limited, Limiter, Limits, Pressure, read};
use crate::asked::{Action, Asked, Given, Load, Moment, Principal, Thing};
use crate::refusal::{Reason, Refusal};
use crate::row::Stage;

const NANOSECOND: Duration = Duration::from_nanos(1);

fn principal(uid: u32, roles: &[&str]) -> Principal {
    let roles = roles.iter().copied().map(str::to_owned).collect();
    Principal { uid, gids: vec![uid], pid: 1, unit: None, roles }
}

fn call<'a>(principal: &'a Principal, tool: &'a str, uptime: Duration, runs: u32) -> Asked<'a> {
    Asked {
        run: 1,
        at: Moment { uptime, wall: SystemTime::UNIX_EPOCH },
        principal,
        action: Action::Call,
        policy: Some("build"),
        tool: Some(tool),
        thing: Thing::default(),
        given: Given::Nothing,
        workspace: None,
        owner: None,
        load: Load { runs, ..Load::default() },
    }
}

fn limiter(text: &str) -> Limiter {
    Limiter::new(limits(text))
}

fn limits(text: &str) -> Limits {
    read(FILE, text).unwrap_or_else(|mistakes| panic!("{mistakes:?}")).limits
}

fn passes(limiter: &mut Limiter, asked: &Asked<'_>) -> Option<Refusal> {
    limiter.judge(asked).err()
}

/// A file with small limits, so that random requests meet them; with a pace that moves.
fn file() -> impl Strategy<Value = String> {
    let rate = || (1u32..20, prop::sample::select(vec!["s", "m"]), 1u32..6);
    (rate(), rate(), 1u32..=100, 1u32..=300).prop_map(|((each, unit, burst), (total, _, totals), floor, percent)| {
        format!(
            "[rate]\neach = \"{each}/{unit}\"\nburst = {burst}\ntotal = \"{}/s\"\ntotal-burst = {totals}\n\
             [tiers.some]\nroles = [\"some\"]\npercent = {percent}\n\
             [adaptive]\nruns = 8\nfloor = {floor}\n",
            total * 2
        )
    })
}

/// Waits in nanoseconds, who, which tool, runs that go on.
fn history() -> impl Strategy<Value = Vec<(u64, u32, usize, u32)>> {
    prop::collection::vec((0u64..3_000_000_000, 0u32..2, 0usize..2, 0u32..12), 1..60)
}

const TOOLS: [&str; 2] = ["search", "build"];

proptest! {
    /// What is refused with a time is refused a nanosecond before it, and passes then: all else equal.
    #[test]
    fn when_to_try_again_is_exact(file in file(), history in history()) {
        let mut limiter = limiter(&file);
        let people = [principal(1, &[]), principal(2, &["some"])];
        let mut now = Duration::ZERO;
        for (wait, who, tool, runs) in history {
            now += Duration::from_nanos(wait);
            let asked = |uptime| call(&people[who as usize], TOOLS[tool], uptime, runs);
            let Some(refusal) = passes(&mut limiter, &asked(now)) else { continue };
            let after = refusal.retry_after.unwrap();
            prop_assert!(after > Duration::ZERO);
            let (mut early, mut then) = (limiter.clone(), limiter.clone());
            let again = passes(&mut early, &asked(now + after - NANOSECOND)).map(|refusal| refusal.retry_after);
            prop_assert_eq!(again, Some(Some(NANOSECOND)));
            prop_assert_eq!(passes(&mut then, &asked(now + after)), None);
        }
    }

    /// However it's asked, no more pass in any time than its burst and what the rate gives for it, by tool and in all.
    #[test]
    fn no_more_pass_in_any_time_than_limits_say(
        (each, burst, total, totals) in (1u64..20, 1u64..6, 1u64..30, 1u64..10),
        history in history(),
    ) {
        let text = format!(
            "[rate]\neach = \"{each}/s\"\nburst = {burst}\ntotal = \"{total}/s\"\ntotal-burst = {totals}\n"
        );
        let mut limiter = limiter(&text);
        let people = [principal(1, &[]), principal(2, &[])];
        let (mut now, mut passed) = (0, Vec::new());
        for (wait, who, tool, runs) in history {
            now += wait;
            if passes(&mut limiter, &call(&people[who as usize], TOOLS[tool], Duration::from_nanos(now), runs)).is_none() {
                passed.push((now, who, tool));
            }
        }
        for (first, (from, who, tool)) in passed.iter().enumerate() {
            let (mut of_tool, mut of_all) = (0, 0);
            for (to, _, other) in passed[first..].iter().filter(|(_, other, _)| other == who) {
                of_all += 1;
                of_tool += u64::from(other == tool);
                let given = |rate: u64| rate * (to - from) / 1_000_000_000;
                prop_assert!(of_tool <= burst + given(each));
                prop_assert!(of_all <= totals + given(total));
            }
        }
    }

    /// A refusal costs nothing: what was refused changes nothing for what comes after it.
    #[test]
    fn what_is_refused_takes_nothing(file in file(), history in history()) {
        let people = [principal(1, &[]), principal(2, &["some"])];
        let mut limiter = limiter(&file);
        let mut spared = limiter.clone();
        let mut now = Duration::ZERO;
        for (wait, who, tool, runs) in history {
            now += Duration::from_nanos(wait);
            let asked = call(&people[who as usize], TOOLS[tool], now, runs);
            let before = limiter.clone();
            let refusal = passes(&mut limiter, &asked);
            if refusal.is_some() {
                limiter = before;
                limiter.observe(now, &asked.load);
            }
            prop_assert_eq!(passes(&mut spared, &asked), refusal);
        }
    }

    /// Times that go back (there are none, but) let no more pass.
    #[test]
    fn a_time_that_has_passed_gives_nothing(back in 0u64..1_000_000_000) {
        let mut limiter = limiter("[rate]\neach = \"1/s\"\nburst = 1\n");
        let one = principal(1, &[]);
        assert_eq!(passes(&mut limiter, &call(&one, "search", Duration::from_secs(10), 0)), None);
        let earlier = Duration::from_secs(10) - Duration::from_nanos(back);
        prop_assert!(passes(&mut limiter, &call(&one, "search", earlier, 0)).is_some());
    }
}

#[test]
fn a_rate_of_0_is_never_and_no_time_helps() {
    for text in
        ["[tools.search]\nrate = \"0/s\"\n", "[rate]\neach = \"never\"\n", "[rate]\ntotal = \"0/d\"\n"]
    {
        let refusal =
            passes(&mut limiter(text), &call(&principal(1, &[]), "search", Duration::ZERO, 0)).unwrap();
        assert_eq!((refusal.reason, refusal.retry_after), (Reason::RateLimited, None), "{text}");
        assert_eq!(refusal.rule, "limits.toml:2");
    }
    let text = "[rate]\neach = \"9/s\"\n[tiers.none]\nroles = [\"none\"]\npercent = 0\n";
    let refusal =
        passes(&mut limiter(text), &call(&principal(1, &["none"]), "search", Duration::ZERO, 0)).unwrap();
    assert_eq!(refusal.retry_after, None);
}

#[test]
fn what_is_refused_names_the_limit_that_holds_for_who_asks() {
    let limiter = |percent| {
        let text = "[rate]\neach = \"10/s\"\nburst = 20\n[tiers.some]\nroles = [\"some\"]\npercent = ";
        limiter(&format!("{text}{percent}\n"))
    };
    for (percent, roles, said) in [
        (10, &["some"][..], "(1/s, 2 at once)"),
        (10, &[], "(10/s, 20 at once)"),
        (5, &["some"], "(0.5/s, 1 at once)"),
        (333, &["some"], "(33.3/s, 67 at once)"),
        (100, &["some"], "(10/s, 20 at once)"),
    ] {
        let (mut limiter, one) = (limiter(percent), principal(1, roles));
        let asked = call(&one, "search", Duration::ZERO, 0);
        let mut passed = 0;
        let refusal = loop {
            match passes(&mut limiter, &asked) {
                None => passed += 1,
                Some(refusal) => break refusal,
            }
        };
        assert!(refusal.message.contains(said), "{percent}: {refusal:?}");
        assert!(said.ends_with(&format!(", {passed} at once)")), "{percent}: {passed}");
    }
}

#[test]
fn only_runs_and_calls_are_counted_and_those_of_what_there_isnt_together() {
    let mut limiter = limiter("[rate]\neach = \"never\"\ntotal = \"never\"\n");
    let one = principal(1, &[]);
    for action in Action::ALL {
        let asked = Asked { action, ..call(&one, "search", Duration::ZERO, 0) };
        let counted = matches!(action, Action::Run | Action::Call);
        assert_eq!(passes(&mut limiter, &asked).is_some(), counted, "{}", action.name());
    }
    let mut limiter = self::limiter("[rate]\neach = \"1/h\"\n[tools.search]\nrate = \"2/h\"\n");
    let (search, other) = (call(&one, "search", Duration::ZERO, 0), principal(2, &[]));
    let no_tool = Asked { tool: None, ..search };
    let no_policy = Asked { action: Action::Run, policy: None, ..no_tool };
    assert_eq!(passes(&mut limiter, &no_tool), None);
    for nothing in [no_policy, no_tool] {
        let refusal = passes(&mut limiter, &nothing).unwrap();
        assert!(refusal.message.contains("for what there isn't"), "{refusal:?}");
    }
    assert_eq!(passes(&mut limiter, &Asked { principal: &other, ..no_policy }), None);
    assert_eq!(passes(&mut limiter, &search), None);
    assert_eq!(limiter.status().keys, 3);
}

#[test]
fn a_flood_of_requests_that_are_no_good_is_limited_like_any_other() {
    let mut limiter = limiter("[rate]\neach = \"1/s\"\nburst = 3\n");
    let one = principal(1, &[]);
    let asked = call(&one, "search", Duration::ZERO, 0);
    for _ in 0..3 {
        assert_eq!(passes(&mut limiter, &asked), None);
        limiter.take_back(&asked);
    }
    assert_eq!(passes(&mut limiter, &asked).unwrap().retry_after, Some(Duration::from_secs(1)));
}

#[test]
fn one_users_and_one_tools_requests_leave_the_others_theirs() {
    let mut limiter = limiter("[rate]\neach = \"1/s\"\nburst = 1\n");
    let (one, other) = (principal(1, &[]), principal(2, &[]));
    for (who, tool) in [(&one, "search"), (&one, "build"), (&other, "search")] {
        let asked = call(who, tool, Duration::ZERO, 0);
        assert_eq!(passes(&mut limiter, &asked), None);
        assert!(passes(&mut limiter, &asked).is_some());
    }
    // A plain run under a policy of the tool's name is something else, too.
    let run = Asked {
        action: Action::Run,
        policy: Some("search"),
        tool: None,
        ..call(&one, "", Duration::ZERO, 0)
    };
    assert_eq!(passes(&mut limiter, &run), None);
}

#[test]
fn other_limits_hold_at_once_and_nobody_waits_for_what_the_old_ones_asked() {
    let mut limiter = limiter("[rate]\neach = \"1/h\"\nburst = 5\n");
    let one = principal(1, &[]);
    let asked = call(&one, "search", Duration::ZERO, 0);
    let passed = (0..100).take_while(|_| passes(&mut limiter, &asked).is_none()).count();
    assert_eq!(passed, 5);
    limiter.set(limits("[rate]\neach = \"10/s\"\nburst = 1\n"));
    assert_eq!(passes(&mut limiter, &asked).unwrap().retry_after, Some(Duration::from_millis(100)));
    limiter.set(limits("[rate]\neach = \"never\"\n"));
    assert_eq!(passes(&mut limiter, &asked).unwrap().retry_after, None);
}

#[test]
fn a_busy_machine_has_limits_at_their_floor_and_status_says_so() {
    let mut limiter = limiter("[rate]\neach = \"8/s\"\nburst = 1\n[adaptive]\nruns = 8\nfloor = 25\n");
    let one = principal(1, &[]);
    limiter.observe(Duration::ZERO, &Load { runs: 9, ..Load::default() });
    let asked = call(&one, "search", Duration::from_secs(20), 9);
    assert_eq!(passes(&mut limiter, &asked), None);
    assert_eq!(passes(&mut limiter, &asked).unwrap().retry_after, Some(Duration::from_millis(500)));
    let status = limiter.status();
    assert_eq!((status.share, status.pressure, status.keys), (250_000, Pressure::High, 1));
}

#[test]
fn more_keys_than_are_kept_are_refused_and_known_ones_go_on() {
    let mut limiter = Limiter::with_most(limits("[rate]\neach = \"1/s\"\nburst = 2\n"), 10);
    for uid in 0..10 {
        assert_eq!(passes(&mut limiter, &call(&principal(uid, &[]), "search", Duration::ZERO, 0)), None);
    }
    assert!(passes(&mut limiter, &call(&principal(10, &[]), "search", Duration::ZERO, 0)).is_some());
    assert_eq!(passes(&mut limiter, &call(&principal(3, &[]), "search", Duration::ZERO, 0)), None);
}

#[test]
fn every_mistake_of_a_file_is_told_with_its_place() {
    let text = "[rate]\neach = \"10/min\"\nburts = 5\ntotal-burst = 3\n[tools.Search]\nrate = \"1/s\"\n\
                [tools.search]\nburst = 5\n[tools.fetch]\n[tiers.ci]\npercent = 50\n[adaptive]\ncpu = 0\n\
                [adaptiv]\n[breaker]\nopen = \"0s\"\n[breakers.search]\nprobes = 0\n[policies]\nbuild = 3\n";
    let mistakes = read("/etc/stockade/limits.toml", text).unwrap_err();
    let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    let expected = [
        (2, "`min` is no time here"),
        (3, "unknown key `burts` in [rate]; did you mean `burst`?"),
        (4, "`total`: it isn't there"),
        (5, "`Search` is no name"),
        (8, "`rate`: it isn't there"),
        (9, "`rate`: it isn't there"),
        (10, "`roles`: it isn't there"),
        (13, "`cpu`: 0 is out of range"),
        (14, "unknown key `adaptiv` in limits.toml; did you mean `adaptive`?"),
        (16, "`open`: no time at all"),
        (18, "`probes`: 0 is out of range"),
        (20, "build` is an integer; expected a table"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, (line, part)) in told.iter().zip(expected) {
        assert!(told.starts_with(&format!("/etc/stockade/limits.toml:{line}:")), "{told}");
        assert!(told.contains(part), "{told} has no {part}");
    }
    for text in ["[adaptive]\ncpu = 50\nfloor = 101\n", "[adaptive]\nfloor = 50\n", "[rate", "rate = 3\n"] {
        assert_eq!(read(FILE, text).map_err(|mistakes| mistakes.len()), Err(1), "{text}");
    }
}

#[test]
fn an_empty_file_limits_nothing_and_tiers_keep_the_files_order() {
    assert_eq!(read(FILE, "").unwrap(), Limited::default());
    let text =
        "[tiers.z]\nroles = [\"a\"]\n[tiers.a]\nroles = [\"b\", \"c\"]\npercent = 250\neach = \"1/s\"\n";
    let tiers = limits(text).tiers;
    assert_eq!(tiers.iter().map(|tier| tier.name.as_str()).collect::<Vec<_>>(), ["z", "a"]);
    assert_eq!(tiers[1].roles, BTreeSet::from(["b".to_owned(), "c".to_owned()]));
    assert_eq!((tiers[0].percent, tiers[1].percent), (100, 250));
    assert_eq!(tiers[1].each.as_ref().unwrap().rule, "limits.toml:6");
}

#[test]
fn a_refusal_names_no_directory() {
    let limited = read("/home/somebody/stockade/limits.toml", "[rate]\neach = \"never\"\n").unwrap();
    let refusal =
        passes(&mut Limiter::new(limited.limits), &call(&principal(1, &[]), "search", Duration::ZERO, 0))
            .unwrap();
    assert!(!format!("{refusal:?}").contains("/home"), "{refusal:?}");
}

#[test]
fn names_of_tools_are_known_with_their_places() {
    let text = "[tools.search]\nrate = \"2/s\"\n[policies.build]\nrate = \"1/s\"\n[breakers.search]\nfailures = 3\n\
                [breakers.serach]\nfailures = 3\n[tools.serach]\nrate = \"never\"\n";
    let limited = read(FILE, text).unwrap();
    let wrong: Vec<String> = limited.of_no_tool(|name| name == "search").map(ToString::to_string).collect();
    assert_eq!(
        wrong,
        [
            "limits.toml:9:8: [tools.serach] is for a tool that isn't there",
            "limits.toml:7:11: [breakers.serach] is for a tool that isn't there"
        ]
    );
    assert_eq!(limited.of_no_tool(|_| false).count(), 4);
}
