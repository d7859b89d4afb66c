#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use core::time::Duration;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use proptest::prelude::*;
use stockade_protocol::spec::NetworkMode;

use super::*;
use crate::asked::{Action, Asked, Given, Moment, Principal, Thing};
use crate::refusal::Reason;
use crate::row::{Ending, Stage as _};
use crate::validate::Parameters;
use crate::verdict::{Ask, Verdict};

const THRESHOLDS: &str = "[thresholds]\nask = 50\nrefuse = 200\n";

fn principal(uid: u32) -> Principal {
    Principal { uid, gids: vec![uid], pid: 1, unit: None, roles: BTreeSet::new() }
}

fn at(seconds: u64) -> Moment {
    Moment { uptime: Duration::from_secs(seconds), wall: SystemTime::UNIX_EPOCH }
}

fn rule(name: &str, score: u32, when: &str) -> String {
    format!("[[rule]]\nname = \"{name}\"\nscore = {score}\nreason = \"because\"\nwhen = {{ {when} }}\n")
}

fn filed(text: &str) -> Filed {
    read("/etc/stockade/approval.toml", text).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

fn risk(text: &str) -> Risk {
    let mut risk = Risk::default();
    risk.set(vec![Arc::new(filed(text))]);
    risk
}

fn words(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

fn run<'a>(principal: &'a Principal, words: &'a [Vec<u8>]) -> Asked<'a> {
    let thing = Thing { named: "default", network: Some(NetworkMode::None), ..Thing::default() };
    let given = Given::Command(words);
    Asked { policy: Some("default"), thing, given, run: 7, ..Asked::by(principal, Action::Run, at(0)) }
}

fn names(verdict: &Verdict) -> Vec<&str> {
    match verdict {
        Verdict::Pass => Vec::new(),
        Verdict::Ask(ask) => ask.because.iter().map(|factor| factor.name.as_str()).collect(),
    }
}

/// Whether a rule with this condition, which alone has somebody asked, does so; `None`: it can't be told, and does.
fn holds(when: &str, asked: &Asked<'_>) -> Option<bool> {
    match risk(&format!("{THRESHOLDS}{}", rule("it", 50, when))).weigh(asked).unwrap() {
        Verdict::Pass => Some(false),
        Verdict::Ask(ask) if ask.because[0].reason.contains("can't be told") => None,
        Verdict::Ask(_) => Some(true),
    }
}

#[test]
fn each_condition_of_a_command_holds_for_what_it_says_and_for_nothing_else() {
    let alice = principal(1_000);
    let table: [(&str, &[&str], Option<bool>); 37] = [
        ("program = [\"git\"]", &["git", "push"], Some(true)),
        ("program = [\"git\"]", &["/usr/bin/git"], Some(true)),
        ("program = [\"/usr/bin/git\"]", &["/usr/bin/git"], Some(true)),
        ("program = [\"/usr/bin/git\"]", &["git"], Some(false)),
        ("program = [\"git\"]", &["gitk"], Some(false)),
        ("program = [\"git\"]", &["ls", "git"], Some(false)),
        ("word-matches = \"^--force$\"", &["git", "push", "--force"], Some(true)),
        ("word-matches = \"^--force$\"", &["git", "push", "--force-with-lease"], Some(false)),
        ("word-matches = \"^-f\", program = [\"git\"]", &["git", "-f"], Some(true)),
        ("word-matches = \"^-f\", program = [\"git\"]", &["ls", "-f"], Some(false)),
        ("path-prefix = [\"/etc\"]", &["cat", "/etc/passwd"], Some(true)),
        ("path-prefix = [\"/etc\"]", &["cat", "/etc"], Some(true)),
        ("path-prefix = [\"/etc\"]", &["cat", "//etc/./passwd"], Some(true)),
        ("path-prefix = [\"/etc\"]", &["cc", "-I/etc/x"], Some(true)),
        ("path-prefix = [\"/etc\"]", &["x", "--file=/etc/x"], Some(true)),
        ("path-prefix = [\"/etc\"]", &["sh", "-c", "cat </etc/passwd|head"], Some(true)),
        ("path-prefix = [\"/etc\"]", &["cat", "/etcetera"], Some(false)),
        ("path-prefix = [\"/etc\"]", &["cat", "/home/etc/x"], Some(false)),
        ("path-prefix = [\"/etc\"]", &["cat", "src/etc/x"], Some(false)),
        ("path-prefix = [\"/etc\"]", &["cat", "../../etc/passwd"], None),
        ("path-prefix = [\"/etc\"]", &["cat", "/home/../etc/passwd"], None),
        ("path-prefix = [\"/srv/live\"]", &["curl", "-d", "@/srv/live/x"], Some(true)),
        ("path-prefix = [\"/srv/live\"]", &["sh", "-c", "rm \\/srv/live/x"], Some(true)),
        ("path-prefix = [\"/srv/live\"]", &["x", "+/srv/live", "y"], Some(true)),
        ("path-prefix = [\"/srv/live\"]", &["x", "!/srv/live"], Some(true)),
        // What goes down a tree from above may come there.
        ("path-prefix = [\"/srv/live\"]", &["rm", "-rf", "/srv"], None),
        ("path-prefix = [\"/srv/live\"]", &["find", "/", "-delete"], None),
        ("path-prefix = [\"/srv/live\"]", &["rm", "-rf", "/srv/other"], Some(false)),
        ("path-prefix = [\"/srv/live\"]", &["rm", "-rf", "/srvl"], Some(false)),
        ("path-prefix = [\"/\"]", &["cat", "/x"], Some(true)),
        ("path-prefix = [\"/\"]", &["cat", "x"], Some(false)),
        ("policy = [\"default\"]", &["x"], Some(true)),
        ("policy = [\"build\"]", &["x"], Some(false)),
        ("network = [\"none\"]", &["x"], Some(true)),
        ("network = [\"host\", \"loopback\"]", &["x"], Some(false)),
        ("tool = [\"deploy\"]", &["deploy"], Some(false)),
        ("parameter = \"/a\"", &["x", "/a"], Some(false)),
    ];
    for (when, given, expected) in table {
        let given = words(given);
        assert_eq!(holds(when, &run(&alice, &given)), expected, "{when}");
    }
}

#[test]
fn each_condition_of_a_call_holds_for_what_it_says_and_for_nothing_else() {
    let alice = principal(1_000);
    let table = [
        ("tool = [\"deploy\"]", "{}", Some(true)),
        ("tool = [\"other\"]", "{}", Some(false)),
        ("parameter = \"/a\"", "{\"a\":1}", Some(true)),
        ("parameter = \"/a\"", "{\"b\":1}", Some(false)),
        ("parameter = \"/a/0\", value-matches = \"^prod\"", "{\"a\":[\"production\"]}", Some(true)),
        ("parameter = \"/a/0\", value-matches = \"^prod\"", "{\"a\":[\"x\"]}", Some(false)),
        ("parameter = \"/a\", value-matches = \"^1$\"", "{\"a\":1}", Some(true)),
        ("parameter = \"/a\", value-matches = \"1\"", "{\"a\":[1]}", None),
        ("parameter = \"/a\"", "{", None),
        ("path-prefix = [\"/etc\"]", "{\"a\":{\"b\":[\"/etc/x\"]}}", Some(true)),
        ("path-prefix = [\"/etc\"]", "{\"/etc\":1}", Some(true)),
        ("path-prefix = [\"/etc\"]", "{\"etc\":1}", Some(false)),
        ("path-prefix = [\"/etc\"]", "{", None),
        ("program = [\"x\"]", "{\"x\":\"x\"}", Some(false)),
        ("word-matches = \"x\"", "{\"x\":\"x\"}", Some(false)),
    ];
    for (when, text, expected) in table {
        let parameters = Parameters::new(text.as_bytes().to_vec());
        let asked = Asked {
            action: Action::Call,
            tool: Some("deploy"),
            given: Given::Parameters(&parameters),
            ..run(&alice, &[])
        };
        assert_eq!(holds(when, &asked), expected, "{when} {text}");
    }
}

#[test]
fn what_cant_be_told_counts() {
    let alice = principal(1_000);
    let long = words(&["x", &"y".repeat(MAX_READ)]);
    let fits = words(&["x", &"y".repeat(MAX_READ - 3)]);
    let binary = vec![b"x".to_vec(), vec![0xff]];
    for when in ["word-matches = \"nothing\"", "path-prefix = [\"/nothing\"]"] {
        assert_eq!(holds(when, &run(&alice, &long)), None, "{when}");
        assert_eq!(holds(when, &run(&alice, &binary)), None, "{when}");
        assert_eq!(holds(when, &run(&alice, &fits)), Some(false), "{when}");
    }
    // What doesn't hold doesn't, whatever else can't be told.
    assert_eq!(holds("word-matches = \"x\", program = [\"ls\"]", &run(&alice, &long)), Some(false));
    let x = words(&["x"]);
    let unknown = Asked { thing: Thing::default(), ..run(&alice, &x) };
    assert_eq!(holds("network = [\"host\"]", &unknown), None);
    let there = Asked { workspace: Some(Path::new("/srv/live/x")), ..run(&alice, &x) };
    assert_eq!(holds("path-prefix = [\"/srv/live\"]", &there), Some(true));
    assert_eq!(holds("path-prefix = [\"/srv/other\"]", &there), Some(false));
    // From a directory above it any relative word may lead there.
    for above in ["/srv", "/"] {
        let above = Asked { workspace: Some(Path::new(above)), ..run(&alice, &x) };
        assert_eq!(holds("path-prefix = [\"/srv/live\"]", &above), None);
    }
    let beside = Asked { workspace: Some(Path::new("/srv/li")), ..run(&alice, &x) };
    assert_eq!(holds("path-prefix = [\"/srv/live\"]", &beside), Some(false));
}

#[test]
fn scores_add_up_to_a_question_and_to_a_refusal_that_names_all_factors() {
    let text =
        [THRESHOLDS, &rule("a", 30, "program = [\"x\"]"), &rule("b", 30, "word-matches = \"b\"")].concat();
    let text = format!("{text}{}", rule("c", 150, "word-matches = \"c\""));
    let mut risk = risk(&text);
    let alice = principal(1_000);
    let mut judged = |given: &[&str]| risk.judge(&run(&alice, &words(given)));
    assert_eq!(judged(&["x"]), Ok(Verdict::Pass));
    let Ok(Verdict::Ask(Ask { because, score: 60 })) = judged(&["x", "b"]) else { panic!("nobody is asked") };
    let said: Vec<_> = because.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["a (+30): because", "b (+30): because"]);
    let refusal = judged(&["x", "b", "c"]).unwrap_err();
    assert_eq!(
        (refusal.reason, refusal.rule.as_str()),
        (Reason::NotApproved, "approval.toml: thresholds.refuse")
    );
    assert!(refusal.message.contains("(210): a (+30): because; b (+30)"), "{}", refusal.message);
}

#[test]
fn of_several_files_each_is_judged_by_itself_and_any_asks() {
    let alice = principal(1_000);
    let x = words(&["x"]);
    let low =
        format!("{THRESHOLDS}{}{}", rule("low", 49, "program = [\"x\"]"), rule("other", 1, "tool = [\"t\"]"));
    let high = format!("{THRESHOLDS}{}", rule("high", 50, "program = [\"x\"]"));
    let judged = |texts: &[&str]| {
        let mut risk = Risk::default();
        risk.set(texts.iter().map(|text| Arc::new(filed(text))).collect());
        names(&risk.weigh(&run(&alice, &x)).unwrap()).join(" ")
    };
    assert_eq!(judged(&[&low, &low]), "");
    assert_eq!(judged(&[&low, &high]), "high");
    assert_eq!(judged(&[&high, &low]), "high");
}

#[test]
fn history_is_of_a_user_and_of_what_has_run_to_its_end() {
    let text = format!(
        "{THRESHOLDS}{}{}{}",
        rule("first", 50, "history = [\"first-time\"]"),
        rule("refused", 50, "history = [\"refused-lately\"]"),
        rule("failed", 50, "history = [\"failed-lately\"]")
    );
    let mut risk = risk(&text);
    let (alice, bob) = (principal(1_000), principal(1_001));
    let (x, y) = (words(&["x"]), words(&["y"]));
    let says = |risk: &Risk, who, given, seconds| {
        names(&risk.weigh(&Asked { at: at(seconds), ..run(who, given) }).unwrap()).join(" ")
    };
    let ends = |risk: &mut Risk, number, ending| {
        assert!(!risk.judge(&Asked { run: number, ..run(&alice, &x) }).unwrap().is_pass());
        risk.ended(number, None, ending, at(10));
    };
    assert_eq!(says(&risk, &alice, &x, 0), "first");
    ends(&mut risk, 1, Ending::Neither);
    assert_eq!(says(&risk, &alice, &x, 0), "first", "what never ran is no past");
    ends(&mut risk, 2, Ending::Success);
    assert_eq!(says(&risk, &alice, &x, 10), "");
    assert_eq!(says(&risk, &alice, &y, 10), "first");
    assert_eq!(says(&risk, &bob, &x, 10), "first");
    let build = Asked { policy: Some("build"), ..run(&alice, &x) };
    assert_eq!(names(&risk.weigh(&build).unwrap()), ["first"], "the same under another policy");
    risk.refused(1_000, Duration::from_secs(20));
    assert_eq!(says(&risk, &alice, &x, 20 + LATELY.as_secs() - 1), "refused");
    assert_eq!(says(&risk, &alice, &x, 20 + LATELY.as_secs()), "");
    assert_eq!(says(&risk, &bob, &x, 20), "first");
    assert!(!risk.judge(&Asked { run: 3, at: at(30), ..run(&alice, &x) }).unwrap().is_pass());
    risk.ended(3, None, Ending::Failure, at(9_000));
    assert_eq!(says(&risk, &alice, &x, 9_001), "failed");
    assert_eq!(says(&risk, &alice, &x, 9_000 + LATELY.as_secs()), "");
}

#[test]
fn what_is_known_is_bounded_for_one_and_for_all_and_taken_back_with_the_request() {
    let mut risk = risk(&format!("{THRESHOLDS}{}", rule("first", 50, "history = [\"first-time\"]")));
    let many: Vec<Vec<Vec<u8>>> = (0..=MAX_KNOWN).map(|number| words(&[&format!("p{number}")])).collect();
    let alice = principal(1_000);
    for (number, given) in (0..).zip(&many) {
        let _asked = risk.judge(&Asked { run: number, ..run(&alice, given) }).unwrap();
        risk.ended(number, None, Ending::Success, at(1));
    }
    assert_eq!(risk.sizes(), (1, MAX_KNOWN, 0));
    assert!(
        !risk.weigh(&run(&alice, &many[0])).unwrap().is_pass(),
        "the oldest is forgotten, and asked about"
    );
    assert!(risk.weigh(&run(&alice, &many[MAX_KNOWN])).unwrap().is_pass());
    for uid in 0..=u32::try_from(MAX_PRINCIPALS).unwrap() {
        risk.refused(uid, Duration::from_secs(2));
    }
    assert_eq!(risk.sizes().0, MAX_PRINCIPALS);
    let asked = run(&alice, &many[0]);
    let _asked = risk.judge(&asked).unwrap();
    assert_eq!(risk.sizes().2, 1);
    risk.take_back(&asked);
    assert_eq!(risk.sizes().2, 0);
}

#[test]
fn each_mistake_of_the_file_has_its_place_and_says_what_belongs_there() {
    let ok = rule("a", 50, "tool = [\"t\"]");
    let table: [(String, &str); 26] = [
        ("[aproval]".into(), "approval.toml:1:2: unknown key `aproval`"),
        ("[approval]\nneeded = 0".into(), "approval.toml:2:10: "),
        ("[approval]\nneeded = 17".into(), "approval.toml:2:10: "),
        ("[approval]\nwithin = \"0s\"".into(), "it isn't from a second to a day"),
        ("[approval]\nwithin = \"25h\"".into(), "it isn't from a second to a day"),
        ("[approval]\nown-unit = 1".into(), "approval.toml:2:12: "),
        (THRESHOLDS.into(), "there are no rules of risk"),
        (ok.clone(), "nothing says from when on somebody is asked"),
        (format!("[thresholds]\nrefuse = 5\n{ok}"), "`ask` isn't there"),
        (format!("[thresholds]\nask = 0\n{ok}"), "approval.toml:2:7: "),
        (format!("[thresholds]\nask = 50\nrefuse = 49\n{ok}"), "approval.toml:3:10: "),
        (format!("[thresholds]\nask = 51\n{ok}"), "51 is never reached"),
        (format!("{THRESHOLDS}{ok}{ok}"), "there is a rule `a` already"),
        (format!("{THRESHOLDS}{}", rule("", 50, "tool = [\"t\"]")), "it's empty"),
        (format!("{THRESHOLDS}{}", rule("a", 0, "tool = [\"t\"]")), "0 is out of range"),
        (format!("{THRESHOLDS}[[rule]]\nname = \"a\"\nscore = 50\nreason = \"x\"\n"), "`when`"),
        (
            format!("{THRESHOLDS}[[rule]]\nname = \"a\"\nscore = 50\nwhen = {{ tool = [\"t\"] }}\n"),
            "`reason`",
        ),
        (
            format!("{THRESHOLDS}[[rule]]\nscore = 50\nreason = \"x\"\nwhen = {{ tool = [\"t\"] }}\n"),
            "`name`",
        ),
        (format!("{THRESHOLDS}{}", rule("a", 50, "")), "says nothing of when it holds"),
        (format!("{THRESHOLDS}{}", rule("a", 50, "tools = [\"t\"]")), "did you mean `tool`?"),
        (format!("{THRESHOLDS}{}", rule("a", 50, "tool = []")), "`tool` has 0 of them"),
        (format!("{THRESHOLDS}{}", rule("a", 50, "word-matches = \"(a\"")), "word-matches"),
        (
            format!("{THRESHOLDS}{}", rule("a", 50, "word-matches = \"(a)\\\\1\"")),
            "backreferences are not supported",
        ),
        (
            format!("{THRESHOLDS}{}", rule("a", 50, "path-prefix = [\"/a/../b\"]")),
            "absolute path in its plain form",
        ),
        (format!("{THRESHOLDS}{}", rule("a", 50, "value-matches = \"a\"")), "`parameter`"),
        (format!("{THRESHOLDS}{}", rule("a", 50, "history = [\"lately\"]")), "it's none of those"),
    ];
    for (text, expected) in table {
        let mistakes = read("approval.toml", &text).expect_err(&text);
        let said: String = mistakes.iter().map(|mistake| format!("{mistake}\n")).collect();
        assert!(said.contains(expected), "{text}\n{said}");
        assert!(said.lines().all(|line| line.starts_with("approval.toml:")), "{said}");
    }
    let most: String =
        (0..=MAX_RULES).map(|number| rule(&number.to_string(), 50, "tool = [\"t\"]")).collect();
    assert!(read("approval.toml", &format!("{THRESHOLDS}{most}")).is_err());
}

#[test]
fn a_file_says_who_is_needed_and_of_two_the_strictest_holds() {
    assert_eq!(filed("[approval]\n").settings, Settings::default());
    for empty in ["", " \n\n", "# [approval]\n# needed = 2\n"] {
        let mistakes = read("approval.toml", empty).expect_err(empty);
        assert!(mistakes[0].to_string().contains("it has nothing in it"), "{mistakes:?}");
    }
    let settings = filed("[approval]\nneeded = 2\nwithin = \"90s\"\nown-unit = true\n").settings;
    assert_eq!(settings, Settings { needed: 2, within: Duration::from_secs(90), own_unit: true });
    let strictest = Settings { needed: 2, within: Duration::from_secs(90), own_unit: false };
    assert_eq!(settings.strictest(Settings::default()), strictest);
    assert_eq!(Settings::default().strictest(settings), strictest);
}

fn person(uid: u32, unit: &str) -> Person {
    Person { uid, unit: Some(unit.to_owned()).filter(|unit| !unit.is_empty()) }
}

#[test]
fn nobody_answers_for_himself_but_from_another_unit_where_the_file_lets_him() {
    let table = [
        ((1, "a"), (2, "a"), false, true),
        ((1, "a"), (1, "b"), false, false),
        ((1, "a"), (1, "b"), true, true),
        ((1, "a"), (1, "a"), true, false),
        ((1, ""), (1, "b"), true, false),
        ((1, "a"), (1, ""), true, false),
        ((1, ""), (1, ""), true, false),
        ((1, ""), (2, ""), false, true),
        // Units that a user makes himself, by his own manager, are none.
        ((1, "a"), (1, "user@1.service/b.scope"), true, false),
        ((1, "user@1.service/b.scope"), (1, "a"), true, false),
        ((1, "user@1.service/a.service"), (1, "user@1.service/b.service"), true, false),
        ((1, "a"), (1, "user@1.service"), true, false),
        ((1, "user@1.service/b.scope"), (2, "user@2.service/b.scope"), true, true),
    ];
    for (asker, other, own_unit, expected) in table {
        let settings = Settings { own_unit, ..Settings::default() };
        let mut question = Question::new(person(asker.0, asker.1), [1; 32], settings);
        let other = person(other.0, other.1);
        assert_eq!(question.may_answer(&other).is_ok(), expected);
        for approve in [true, false] {
            assert_eq!(question.clone().answer(&other, [1; 32], approve).is_ok(), expected);
            assert_eq!(question.answer(&other, [2; 32], approve), Err(Barred::OtherDigest));
        }
    }
}

#[test]
fn who_has_said_yes_counts_once_and_may_think_better_of_it() {
    let settings = Settings { needed: 2, ..Settings::default() };
    let mut question = Question::new(person(1, ""), [1; 32], settings);
    assert_eq!(question.answer(&person(2, "a"), [1; 32], true), Ok(Standing::Waits(1)));
    assert_eq!(question.answer(&person(2, "b"), [1; 32], true), Err(Barred::Already));
    assert_eq!(question.clone().answer(&person(2, "a"), [1; 32], false), Ok(Standing::Refused));
    assert_eq!(question.answer(&person(3, "a"), [1; 32], true), Ok(Standing::Approved));
    // One person in two units is one, whatever tells him from who asks.
    let mut question = Question::new(person(2, "c"), [1; 32], Settings { own_unit: true, ..settings });
    assert_eq!(question.answer(&person(2, "a"), [1; 32], true), Ok(Standing::Waits(1)));
    assert_eq!(question.answer(&person(2, "b"), [1; 32], true), Err(Barred::Already));
    assert_eq!(question.answer(&person(3, "a"), [1; 32], true), Ok(Standing::Approved));
}

proptest! {
    #[test]
    fn nothing_is_approved_but_by_as_many_others_as_are_needed_about_this_very_digest(
        needed in 1_u32..4,
        own_unit: bool,
        answers in prop::collection::vec((0_u32..4, 0_u8..3, 0_u8..2, prop::bool::weighted(0.9)), 0..20),
    ) {
        let units = ["", "a", "b"];
        let asker = person(0, "a");
        let settings = Settings { needed, own_unit, ..Settings::default() };
        let mut question = Question::new(asker.clone(), [0; 32], settings);
        let mut yes: Vec<Person> = Vec::new();
        for (uid, unit, digest, approve) in answers {
            let who = person(uid, units[usize::from(unit)]);
            let standing = question.answer(&who, [digest; 32], approve);
            let other = |one: &Person| one.uid != who.uid
                || (own_unit && one.unit.is_some() && who.unit.is_some() && one.unit != who.unit);
            let new = |one: &Person| one.uid != who.uid;
            match standing {
                Err(_) => continue,
                Ok(Standing::Refused) => { prop_assert!(!approve && digest == 0 && other(&asker)); break; }
                Ok(standing) => {
                    prop_assert!(approve && digest == 0 && other(&asker) && yes.iter().all(new));
                    yes.push(who);
                    let missing = needed.saturating_sub(u32::try_from(yes.len()).unwrap());
                    prop_assert_eq!(standing, if missing == 0 { Standing::Approved } else { Standing::Waits(missing) });
                    if missing == 0 { break; }
                }
            }
        }
    }

    #[test]
    fn one_rule_more_never_makes_less_of_it(
        scores in prop::collection::vec(1_u32..120, 1..8),
        given in prop::collection::vec("[a-h]{0,3}", 1..4),
    ) {
        let alice = principal(1_000);
        let given: Vec<Vec<u8>> = given.into_iter().map(String::into_bytes).collect();
        let severity = |count: usize| {
            let rules: String = scores.iter().take(count).zip("abcdefgh".chars())
                .map(|(score, letter)| rule(&letter.to_string(), *score, &format!("word-matches = \"{letter}\""))).collect();
            let text = format!("{THRESHOLDS}{rules}{}", rule("never", 200, "tool = [\"never\"]"));
            match risk(&text).weigh(&run(&alice, &given)) {
                Ok(Verdict::Pass) => 0,
                Ok(Verdict::Ask(_)) => 1,
                Err(_) => 2,
            }
        };
        let all: Vec<i32> = (0..=scores.len()).map(severity).collect();
        prop_assert!(all.is_sorted(), "{all:?}");
        let sum: u32 = scores.iter().zip("abcdefgh".bytes())
            .filter(|(_, letter)| given.iter().any(|word| word.contains(letter))).map(|(score, _)| score).sum();
        let expected = match sum { 0..50 => 0, 50..200 => 1, _ => 2 };
        prop_assert_eq!(*all.last().unwrap(), expected);
    }

    #[test]
    fn two_lists_of_parts_have_one_digest_only_if_they_are_the_same(
        one in prop::collection::vec(prop::collection::vec(0_u8..3, 0..3), 0..4),
        other in prop::collection::vec(prop::collection::vec(0_u8..3, 0..3), 0..4),
    ) {
        let listed = |parts: &[Vec<u8>]| Canonical::default().list("x", parts.iter().map(Vec::as_slice)).finish();
        prop_assert_eq!(listed(&one) == listed(&other), one == other);
        let put = |parts: &[Vec<u8>]| parts.iter().fold(Canonical::default(), |all, part| all.part("x", part)).finish();
        prop_assert_eq!(put(&one) == put(&other), one == other);
    }
}

#[test]
fn a_part_isnt_taken_for_another_of_the_same_bytes() {
    let all = [
        Canonical::default().part("a", b"b"),
        Canonical::default().part("ab", b""),
        Canonical::default().part("", b"ab"),
        Canonical::default().maybe("a", None),
        Canonical::default().part("a", b""),
        Canonical::default().list("a", [&b"b"[..]]),
        Canonical::default().list("a", [&b"b"[..], b""]),
        Canonical::default().number("a", 98),
        Canonical::default().part("a", b"b").part("c", b""),
        Canonical::default(),
    ];
    let digests: BTreeSet<_> = all.into_iter().map(Canonical::finish).collect();
    assert_eq!(digests.len(), 10);
}
