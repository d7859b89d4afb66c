use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};

use super::*;
use crate::asked::{Action, Asked, Given, Moment, Principal};
use crate::validate::Parameters;

const HOUR: Duration = Duration::from_secs(3600);
const START: Clocks = Clocks { boot: Duration::from_secs(50), wall: Duration::from_secs(1_800_000_000) };

fn principal(uid: u32, unit: Option<&str>) -> Principal {
    Principal { uid, gids: vec![uid], pid: 1, unit: unit.map(Into::into), roles: BTreeSet::new() }
}

fn asked(principal: &Principal, run: u128) -> Asked<'_> {
    let at = Moment { uptime: Duration::ZERO, wall: SystemTime::UNIX_EPOCH };
    Asked { run, policy: Some("build"), ..Asked::by(principal, Action::Run, at) }
}

fn terms() -> Terms {
    Terms {
        what: What::Policy("build".into()),
        given: None,
        length: HOUR,
        uses: None,
        ends_runs: false,
        why: "a test".into(),
    }
}

fn grant(number: u8, to: (u32, Option<&str>), terms: Terms) -> Grant {
    let whom = Whom { uid: to.0, unit: to.1.map(Into::into) };
    Grant::new(GrantId([number; 16]), whom, terms, 0, START).unwrap()
}

fn held(grants: impl IntoIterator<Item = Grant>) -> Held {
    let mut held = Held::default();
    held.tell_time(START);
    grants.into_iter().for_each(|grant| held.put(grant));
    held
}

#[test]
fn a_grant_is_for_whom_and_what_it_says_and_until_it_is_over_on_either_clock() {
    let mut held = held([grant(1, (7, Some("agent")), terms())]);
    let agent = principal(7, Some("agent"));
    assert_eq!(held.fitting(&asked(&agent, 1)), Some(GrantId([1; 16])));
    for other in [principal(8, Some("agent")), principal(7, Some("other")), principal(7, None)] {
        assert_eq!(held.fitting(&asked(&other, 1)), None, "{other:?}");
    }
    let other = Asked { policy: Some("other"), ..asked(&agent, 1) };
    let call = Asked { action: Action::Call, tool: Some("build"), ..asked(&agent, 1) };
    let none = Asked { policy: None, ..asked(&agent, 1) };
    let kill = Asked { action: Action::Kill, ..asked(&agent, 1) };
    for asked in [other, call, none, kill] {
        assert_eq!(held.fitting(&asked), None, "{asked:?}");
    }
    let nearly = HOUR - Duration::from_nanos(1);
    for (boot, wall, holds) in [
        (nearly, nearly, true),
        (HOUR, nearly, false),
        (nearly, HOUR, false),
        // Set back, the calendar prolongs nothing.
        (HOUR, Duration::ZERO, false),
    ] {
        held.tell_time(Clocks { boot: START.boot + boot, wall: START.wall + wall });
        assert_eq!(held.fitting(&asked(&agent, 1)).is_some(), holds, "{boot:?} {wall:?}");
    }
}

#[test]
fn a_grant_to_whatever_unit_is_for_all_and_one_to_none_for_who_has_none() {
    let any = held([grant(1, (7, None), terms())]);
    let none = held([grant(1, (7, Some("")), terms())]);
    for (unit, by_none) in [(None, true), (Some("agent"), false)] {
        let who = principal(7, unit);
        assert!(any.fitting(&asked(&who, 1)).is_some());
        assert_eq!(none.fitting(&asked(&who, 1)).is_some(), by_none);
    }
}

#[test]
fn uses_are_taken_once_a_run_and_given_back_if_it_never_began() {
    let mut held = held([grant(1, (7, None), Terms { uses: Some(2), ..terms() })]);
    let who = principal(7, None);
    assert_eq!(held.redeem(&asked(&who, 1)).unwrap().left, Some(1));
    assert_eq!(held.redeem(&asked(&who, 2)).unwrap().left, Some(0));
    assert_eq!(held.redeem(&asked(&who, 3)), None);
    assert_eq!(held.give_back(3), None);
    held.began(1);
    assert_eq!(held.give_back(1), None, "it has begun");
    assert!(held.give_back(2).is_some());
    assert_eq!(held.give_back(2), None, "given back already");
    assert_eq!(held.redeem(&asked(&who, 4)).unwrap().left, Some(0));
    let id = GrantId([1; 16]);
    assert_eq!(held.take_changes(), [Change::Left(id, 0)], "as it is, and not each step to there");
    assert!(held.give_back(4).is_some() && held.redeem(&asked(&who, 4)).is_some());
    assert_eq!(held.take_changes(), [], "taken and given back: nothing has changed");
    assert!(held.revoke(id).is_some() && held.revoke(id).is_none());
    assert_eq!(held.give_back(4), Some(id), "of one that is gone there is nothing to write");
    assert_eq!(held.take_changes(), [Change::Drop(id)]);
    assert_eq!(held.redeem(&asked(&who, 5)), None);
}

#[test]
fn the_narrowest_is_taken_and_of_several_the_one_that_is_over_first() {
    let words = vec![b"make".to_vec(), b"test".to_vec()];
    let digest = of_command(words.iter().map(Vec::as_slice)).unwrap();
    let exactly = || Some(Exactly { digest, shown: "make test".into() });
    let long = || Terms { length: 2 * HOUR, ..terms() };
    let mut held = held([
        grant(1, (7, None), terms()),
        grant(2, (7, None), Terms { length: HOUR / 2, ..terms() }),
        grant(3, (7, Some("agent")), long()),
        grant(4, (7, None), Terms { given: exactly(), ..long() }),
        grant(5, (7, Some("agent")), Terms { given: exactly(), ..long() }),
    ]);
    let who = principal(7, Some("agent"));
    let exact = Asked { given: Given::Command(&words), ..asked(&who, 1) };
    for (asked, expected) in [(exact, [5, 4, 3, 2, 1].as_slice()), (asked(&who, 1), &[3, 2, 1])] {
        let mut gone = Vec::new();
        for number in expected {
            let found = held.fitting(&asked).unwrap();
            assert_eq!(found, GrantId([*number; 16]));
            gone.extend(held.revoke(found));
        }
        assert_eq!(held.fitting(&asked), None);
        gone.into_iter().for_each(|grant| held.put(grant));
    }
}

#[test]
fn exact_arguments_are_these_and_no_others_however_they_are_written() {
    let command = |words: &[&str]| of_command(words.iter().map(|word| word.as_bytes()));
    assert!(command(&["a", "b"]).is_some());
    for other in [["ab", ""], ["", "ab"], ["a", "c"], ["b", "a"]] {
        assert_ne!(command(&["a", "b"]), command(&other));
    }
    assert_ne!(command(&["a"]), command(&["a", ""]));
    assert!(command(&[&"x".repeat(MAX_BYTES - 1)]).is_some() && command(&[&"x".repeat(MAX_BYTES)]).is_none());
    let given = |text: &str| of_parameters(&Parameters::new(text.as_bytes().to_vec()));
    let same = [r#"{"a":1,"b":{"c":[1,2],"d":"x"}}"#, r#" { "b" : {"d":"x", "c":[1,2]}, "a":1 } "#];
    assert_eq!(given(same[0]), given(same[1]));
    assert!(given(same[0]).is_some());
    for other in [
        r#"{"a":1,"b":{"c":[2,1],"d":"x"}}"#,
        r#"{"a":"1","b":{"c":[1,2],"d":"x"}}"#,
        r#"{"a":1,"b":{"c":[1,2]}}"#,
        r#"{"a":1,"b":{"c":[1,2],"d":"x"},"e":null}"#,
    ] {
        assert!(given(other).is_some() && given(other) != given(same[0]), "{other}");
    }
    assert_eq!(given("{"), None);
    assert_eq!(given(&format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_BYTES))), None);
    assert_ne!(command(&[r#"{"a":1}"#]), given(r#"{"a":1}"#));
    let shown = shown_command([b"ls\x1b[2J".as_slice(), &[b'x'; 1000]]);
    assert_eq!(shown, format!("\"ls\\x1b[2J\" {}", "x".repeat(1000)));
    // Words are told apart, and bytes from what looks like them.
    let quoted = [
        (vec!["sh", "-c", "make test"], "sh -c \"make test\""),
        (vec!["sh", "-c", "make", "test"], "sh -c make test"),
        (vec!["a\nb", "a\\nb", ""], "\"a\\nb\" \"a\\\\nb\" \"\""),
    ];
    for (words, shown) in quoted {
        assert_eq!(shown_command(words.into_iter().map(str::as_bytes)), shown);
    }
    let parameters = Parameters::new("{\"a\":\"\u{9b}2J\\u001b\"}".as_bytes().to_vec());
    assert_eq!(shown_parameters(&parameters), "{\"a\":\"\\u009b2J\\u001b\"}");
    let exactly = |length| Some(Exactly { digest: [1; 32], shown: "x".repeat(length) });
    assert!(Terms { given: exactly(MAX_SHOWN), ..terms() }.check().is_ok());
    assert_eq!(Terms { given: exactly(MAX_SHOWN + 1), ..terms() }.check(), Err(BadGrant::Shown));
}

#[test]
fn what_no_grant_can_be_is_said_and_the_least_and_the_most_can() {
    let good = [
        Terms { length: SHORTEST, uses: Some(1), why: "x".repeat(MAX_WHY), ..terms() },
        Terms { length: LONGEST, uses: Some(MAX_USES), ..terms() },
    ];
    assert!(good.iter().all(|terms| terms.check().is_ok()));
    let over = LONGEST + Duration::from_nanos(1);
    let named = |name: &str| Terms { what: What::Tool(name.into()), ..terms() };
    let bad = [
        (
            Terms { length: Duration::from_millis(999), ..terms() },
            BadGrant::Length(Duration::from_millis(999)),
        ),
        (Terms { length: over, ..terms() }, BadGrant::Length(over)),
        (Terms { uses: Some(0), ..terms() }, BadGrant::Uses(0)),
        (Terms { uses: Some(MAX_USES + 1), ..terms() }, BadGrant::Uses(MAX_USES + 1)),
        (Terms { why: String::new(), ..terms() }, BadGrant::Why),
        (Terms { why: "x".repeat(MAX_WHY + 1), ..terms() }, BadGrant::Why),
        (Terms { why: "a\x1b".into(), ..terms() }, BadGrant::Why),
        (named(""), BadGrant::Name),
        (named("a b"), BadGrant::Name),
        (named(&"a".repeat(MAX_NAME + 1)), BadGrant::Name),
    ];
    for (terms, expected) in bad {
        assert_eq!(terms.check(), Err(expected));
    }
}

#[test]
fn nobody_gives_to_himself_but_root_and_to_another_unit_of_ones_own_where_both_are_known() {
    let table = [
        ((7, None), (7, None), true),
        ((7, Some("agent")), (7, None), true),
        ((7, None), (7, Some("shell")), true),
        ((7, Some("")), (7, Some("shell")), true),
        ((7, Some("shell")), (7, Some("shell")), true),
        ((7, Some("agent")), (7, Some("shell")), false),
        ((8, None), (7, None), false),
        ((0, None), (0, None), false),
    ];
    for ((uid, unit), (giver, of), expected) in table {
        let to = Whom { uid, unit: unit.map(Into::into) };
        assert_eq!(to.is_himself(&principal(giver, of)), expected, "{to} by {giver} {of:?}");
    }
}

#[test]
fn there_are_so_many_grants_and_no_more_and_those_that_are_over_make_room() {
    let mut held = held([]);
    for number in 0..MAX_OF_ONE {
        assert_eq!(held.has_room_for(7, (0, 0)), Ok(()));
        let id = GrantId((number as u128).to_be_bytes());
        held.put(Grant { id, ..grant(1, (7, None), terms()) });
    }
    assert_eq!(held.has_room_for(7, (0, 0)), Err(Full::Of(7)));
    assert_eq!(held.has_room_for(8, (0, 0)), Ok(()));
    assert_eq!(held.has_room_for(8, (0, MAX_OF_ONE)), Err(Full::Of(8)));
    assert_eq!(held.has_room_for(8, (MAX_GRANTS, 0)), Err(Full::All));
    held.tell_time(START.after(HOUR));
    assert_eq!(held.sweep().len(), MAX_OF_ONE);
    assert_eq!((held.has_room_for(7, (0, 0)), held.len()), (Ok(()), 0));
    assert!(held.by_key_is_empty());
}

#[test]
fn after_a_restart_no_grant_lasts_longer_than_it_would_have() {
    let given = || grant(1, (7, None), terms());
    let at = |boot: u64, wall: u64| Clocks {
        boot: Duration::from_secs(boot),
        wall: START.wall + Duration::from_secs(wall),
    };
    let seen = START.after(Duration::from_secs(600));
    let left = |same, now| given().resumed(same, now, seen).map(|grant| grant.left(now).as_secs());
    assert_eq!(left(true, at(50 + 1000, 1000)), Some(2600));
    assert_eq!(left(true, at(50 + 3600, 0)), None, "set back within one start");
    assert_eq!(left(false, at(5, 1000)), Some(2600));
    assert_eq!(left(false, at(5, 0)), Some(3000), "set back while the machine was off");
    assert_eq!(left(false, at(5, 3600)), None);
    let long_ago = Clocks { wall: Duration::ZERO, ..at(5, 0) };
    let left = |seen| given().resumed(false, long_ago, seen).map(|grant| grant.left(at(5, 0)).as_secs());
    assert_eq!(left(Clocks::default()), Some(3600), "never more than it was given for");
    // By a calendar that knows nothing what had run by the other clock is gone all the same.
    assert_eq!(left(Clocks { wall: Duration::ZERO, ..seen }), Some(3000));
    assert_eq!(left(Clocks { wall: Duration::ZERO, ..START.after(HOUR) }), None);
}

#[test]
fn requests_are_so_many_wait_so_long_and_are_answered_once() {
    let mut requests = Requests::default();
    let request = |number: u16, uid| Pending {
        id: GrantId(u128::from(number).to_be_bytes()),
        to: Whom { uid, unit: None },
        terms: terms(),
        since: START,
        generation: 1,
    };
    for number in 0..16 {
        assert_eq!(requests.put(request(number, 7), START), Ok(()));
    }
    assert_eq!(requests.put(request(99, 7), START), Err(NoRequest::Many));
    for number in 0..240 {
        assert_eq!(requests.put(request(100 + number, 1000 + u32::from(number)), START), Ok(()));
    }
    assert_eq!(requests.put(request(999, 9), START), Err(NoRequest::Many));
    let id = request(3, 7).id;
    assert!(requests.get(id, START).is_some());
    assert!(requests.take(id, START).is_some() && requests.take(id, START).is_none());
    let late = START.after(LASTS);
    assert_eq!((requests.all(START).count(), requests.all(late).count()), (255, 0));
    assert!(
        requests.get(request(4, 7).id, late).is_none() && requests.take(request(4, 7).id, late).is_none()
    );
    assert_eq!(requests.put(request(999, 9), late), Ok(()));
}

#[test]
fn who_asks_and_withdraws_asks_so_many_a_minute() {
    let mut requests = Requests::default();
    let mut ask = |number: u16, uid, now| {
        let id = GrantId(u128::from(number).to_be_bytes());
        let pending = Pending { id, to: Whom { uid, unit: None }, terms: terms(), since: now, generation: 1 };
        let asked = requests.put(pending, now);
        requests.take(id, now);
        asked
    };
    let after = |seconds| START.after(Duration::from_secs(seconds));
    for number in 0..16 {
        assert_eq!(ask(number, 7, after(u64::from(number))), Ok(()));
    }
    assert_eq!(ask(99, 7, after(20)), Err(NoRequest::Often(Duration::from_secs(40))));
    assert_eq!(ask(99, 8, after(20)), Ok(()), "another's");
    assert_eq!((ask(99, 7, after(60)), ask(99, 7, after(60)).is_err()), (Ok(()), true));
    for number in 100..335 {
        assert_eq!(ask(number, 1000 + u32::from(number), after(120)), Ok(()));
    }
    for number in 335..356 {
        assert_eq!(ask(number, 1000 + u32::from(number), after(121)), Ok(()));
    }
    assert_eq!(ask(999, 9, after(122)), Err(NoRequest::Often(Duration::from_secs(58))));
}

#[derive(Debug, Clone)]
enum Step {
    Add { uid: u32, uses: Option<u32>, seconds: u64 },
    Redeem { uid: u32 },
    Begin { which: usize },
    GiveBack { which: usize },
    Revoke { which: usize },
    Pass { seconds: u64 },
    Set { back: u64 },
    Write,
    Restart { boots: bool, goes_right: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let uses = prop_oneof![Just(None), (1..4_u32).prop_map(Some)];
    let step = prop_oneof![
        (0..2_u32, uses, 1..100_u64).prop_map(|(uid, uses, seconds)| Step::Add { uid, uses, seconds }),
        (0..2_u32).prop_map(|uid| Step::Redeem { uid }),
        (0..2_u32).prop_map(|uid| Step::Redeem { uid }),
        any::<usize>().prop_map(|which| Step::Begin { which }),
        any::<usize>().prop_map(|which| Step::GiveBack { which }),
        any::<usize>().prop_map(|which| Step::Revoke { which }),
        (1..60_u64).prop_map(|seconds| Step::Pass { seconds }),
        (1..200_u64).prop_map(|back| Step::Set { back }),
        Just(Step::Write),
        any::<(bool, bool)>().prop_map(|(boots, goes_right)| Step::Restart { boots, goes_right }),
    ];
    prop::collection::vec(step, 0..80)
}

/// What a grant may do at the most: told from what really happened, without a word of the code's.
struct Naive {
    given: u32,
    counted: Option<u32>,
    began: u32,
    taken: u32,
    /// By a clock that nobody sets and that goes on while the machine starts; later by what nobody has seen of the time.
    ends: u64,
    is_revoked: bool,
}

proptest! {
    #[test]
    fn whatever_happens_no_grant_is_used_more_often_than_it_says_nor_after_its_end(history in steps()) {
        let (mut held, mut disk) = (held([]), HashMap::<GrantId, Grant>::new());
        let mut naive: HashMap<GrantId, Naive> = HashMap::new();
        let (mut now, mut truth, mut next) = (START, 0_u64, 1_u128);
        // What the file has seen of both clocks, and when that was.
        let (mut seen, mut seen_at) = (START, 0_u64);
        let mut open: Vec<(u128, GrantId)> = Vec::new();
        for step in history {
            held.tell_time(now);
            match step {
                Step::Add { uid, uses, seconds } => {
                    next += 1;
                    let (id, length) = (GrantId(next.to_be_bytes()), Duration::from_secs(seconds));
                    let terms = Terms { uses, length, ..terms() };
                    let grant = Grant::new(id, Whom { uid, unit: None }, terms, 0, now).unwrap();
                    disk.insert(id, grant.clone());
                    (seen, seen_at) = (Clocks { wall: seen.wall.max(now.wall), ..now }, truth);
                    held.put(grant);
                    let ends = truth + seconds;
                    naive.insert(id, Naive { given: uid, counted: uses, began: 0, taken: 0, ends, is_revoked: false });
                }
                Step::Redeem { uid } => {
                    next += 1;
                    let who = principal(uid, None);
                    if let Some(redeemed) = held.redeem(&asked(&who, next)) {
                        let naive = naive.get_mut(&redeemed.id).unwrap();
                        naive.taken += 1;
                        open.push((next, redeemed.id));
                        proptest::prop_assert!(naive.given == uid && !naive.is_revoked && truth < naive.ends);
                        proptest::prop_assert!(naive.counted.is_none_or(|most| naive.began + naive.taken <= most));
                    }
                }
                Step::Begin { which } if !open.is_empty() => {
                    let (run, id) = open.swap_remove(which % open.len());
                    held.began(run);
                    let naive = naive.get_mut(&id).unwrap();
                    (naive.began, naive.taken) = (naive.began + 1, naive.taken - 1);
                }
                Step::GiveBack { which } if !open.is_empty() => {
                    let (run, id) = open.swap_remove(which % open.len());
                    held.give_back(run);
                    naive.get_mut(&id).unwrap().taken -= 1;
                }
                Step::Revoke { which } if !held.is_empty() => {
                    let mut ids: Vec<GrantId> = held.all().map(|grant| grant.id).collect();
                    if !ids.is_empty() {
                        let id = ids.swap_remove(which % ids.len());
                        held.revoke(id);
                        naive.get_mut(&id).unwrap().is_revoked = true;
                    }
                }
                Step::Pass { seconds } => {
                    truth += seconds;
                    now = now.after(Duration::from_secs(seconds));
                }
                Step::Write => (seen, seen_at) = (Clocks { wall: seen.wall.max(now.wall), ..now }, truth),
                Step::Set { back } => now.wall = now.wall.saturating_sub(Duration::from_secs(back)),
                Step::Restart { boots, goes_right } => {
                    // Whatever hadn't begun is gone, and its use with it.
                    open.clear();
                    for naive in naive.values_mut() {
                        (naive.began, naive.taken) = (naive.began + naive.taken, 0);
                    }
                    if boots {
                        now.boot = Duration::from_secs(1);
                        if goes_right {
                            now.wall = START.wall + Duration::from_secs(truth);
                        } else {
                            // It begins anew: what ran since the file was written is had once more.
                            now.wall = START.wall;
                            naive.values_mut().for_each(|naive| naive.ends += truth - seen_at);
                        }
                    }
                    held = Held::default();
                    held.tell_time(now);
                    for grant in core::mem::take(&mut disk).into_values() {
                        if let Some(grant) = grant.resumed(!boots, now, seen) {
                            disk.insert(grant.id, grant.clone());
                            held.put(grant);
                        }
                    }
                    (seen, seen_at) = (Clocks { wall: seen.wall.max(now.wall), ..now }, truth);
                }
                _ => {}
            }
            for change in held.take_changes() {
                match change {
                    Change::Left(id, left) => {
                        if let Some(uses) = disk.get_mut(&id).and_then(|grant| grant.uses.as_mut()) {
                            uses.left = left;
                        }
                    }
                    Change::Drop(id) => drop(disk.remove(&id)),
                }
            }
        }
    }
}
