//! What a grant adds to rules, and what it can't.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Access, Engine, Origin, Roles, Settings, Source};
use crate::asked::{Action, Asked, Given, Moment, Principal, Thing};
use crate::grants::{Clocks, Grant, GrantId, Terms, What, Whom};
use crate::refusal::{Reason, Refusal};
use crate::row::{Ending, Stage as _};
use crate::verdict::Verdict;

const ALICE: u32 = 1_000;

fn alice() -> Principal {
    Principal { uid: ALICE, gids: vec![ALICE], pid: 1, unit: None, roles: BTreeSet::new() }
}

fn at() -> Moment {
    Moment { uptime: Duration::from_secs(60), wall: SystemTime::UNIX_EPOCH }
}

fn run(principal: &Principal, number: u128) -> Asked<'_> {
    let thing = Thing { named: "build", is_shipped: false, tool_roles: None, network: None };
    Asked { run: number, policy: Some("build"), thing, ..Asked::by(principal, Action::Run, at()) }
}

fn engine(access: &str, invariants: &str) -> Arc<Engine> {
    let sources = [
        Source { origin: Origin::Access, file: "access.cedar", text: access },
        Source { origin: Origin::Invariants, file: "invariants.cedar", text: invariants },
    ];
    Arc::new(Engine::new(&sources, Roles::default()).unwrap_or_else(|mistakes| panic!("{mistakes:?}")))
}

/// With these rules, of which the last are the daemon's own.
fn access(engines: Vec<Arc<Engine>>) -> Access {
    let mut access = Access::default();
    let last = engines.len() - 1;
    access.set(engines, Settings::default());
    access.let_grants(last);
    access
}

fn granted(access: &mut Access, what: What, uses: Option<u32>) {
    let terms = Terms {
        what,
        given: None,
        length: Duration::from_secs(60),
        uses,
        ends_runs: false,
        why: "a test".into(),
    };
    let to = Whom { uid: ALICE, unit: None };
    let grant = Grant::new(GrantId([1; 16]), to, terms, 0, Clocks::default()).unwrap();
    access.grants_mut().put(grant);
}

/// It's let through, and nobody is asked.
fn passes(access: &mut Access, asked: &Asked<'_>) {
    assert_eq!(access.judge(asked).unwrap(), Verdict::Pass);
}

fn policy() -> What {
    What::Policy("build".into())
}

fn rule(refusal: &Refusal) -> &str {
    assert_eq!(refusal.reason, Reason::NotPermitted);
    &refusal.rule
}

#[test]
fn what_no_rule_permits_a_grant_does_and_without_it_nobody() {
    let mut access = access(vec![engine("", "")]);
    let alice = alice();
    let refused = access.judge(&run(&alice, 1)).unwrap_err();
    assert_eq!(rule(&refused), "no-rule-permits");
    let remedy = refused.remedy.unwrap();
    assert!(remedy.contains("stockade grant request --policy NAME"), "{remedy}");
    granted(&mut access, policy(), None);
    passes(&mut access, &run(&alice, 2));
    // To look isn't to redeem.
    assert!(access.permits(&run(&alice, 3)).is_err());
    assert_eq!(access.grants().redeemed(3), None);
    access.grants_mut().revoke(GrantId([1; 16])).unwrap();
    assert!(access.judge(&run(&alice, 4)).is_err(), "it was remembered");
}

#[test]
fn what_somebody_forbids_or_may_forbid_no_grant_permits() {
    let forbid = "forbid (principal, action == Action::\"run\", resource == Policy::\"build\");";
    let broken = "forbid (principal, action == Action::\"run\", resource) when { principal.uid * 9223372036854775807 > 0 };";
    for (access, invariants) in [(forbid, ""), ("", forbid), (broken, ""), ("", broken)] {
        let mut access = self::access(vec![engine(access, invariants)]);
        granted(&mut access, policy(), Some(1));
        let alice = alice();
        let refused = access.judge(&run(&alice, 1)).unwrap_err();
        assert_ne!(rule(&refused), "no-rule-permits");
        assert!(!refused.remedy.unwrap().contains("grant"));
        assert_eq!(access.grants().redeemed(1), None, "a use was taken");
    }
}

#[test]
fn a_tool_for_others_roles_is_granted_where_an_operator_has_not_forbidden_it() {
    let roles = vec!["release".to_owned()];
    let alice = alice();
    let thing = Thing { named: "deploy", is_shipped: true, tool_roles: Some(&roles), network: None };
    let call = |run| Asked {
        tool: Some("deploy"),
        thing,
        action: Action::Call,
        given: Given::Nothing,
        ..self::run(&alice, run)
    };
    let forbid = "forbid (principal, action == Action::\"call\", resource == Tool::\"deploy\");";
    for (invariants, expected) in [("", true), (forbid, false)] {
        let mut access = access(vec![engine("", invariants)]);
        assert!(access.judge(&call(1)).is_err());
        granted(&mut access, What::Tool("deploy".into()), None);
        assert_eq!(access.judge(&call(2)).is_ok(), expected);
    }
}

#[test]
fn a_grant_doesnt_answer_for_whom_other_rules_have_asked() {
    let asks = "@approve(\"it is new\")\npermit (principal, action == Action::\"run\", resource == Policy::\"build\");";
    let mut access = access(vec![engine(asks, ""), engine("", "")]);
    assert!(access.judge(&run(&alice(), 1)).is_err());
    granted(&mut access, policy(), None);
    let Verdict::Ask(ask) = access.judge(&run(&alice(), 2)).unwrap() else { panic!("nobody is asked") };
    assert_eq!(ask.because[0].reason, "it is new");
}

#[test]
fn what_insiders_have_to_ask_about_an_outsider_with_a_grant_asks_about_too() {
    let alice = alice();
    let roles = ["deployer".to_owned()];
    let permit = |when: &str| {
        format!(
            "@approve(\"seen by customers\")\npermit (principal, action == Action::\"call\", resource == Tool::\"deploy\"){when};"
        )
    };
    let broken = " when { principal.uid + 9223372036854775807 > 0 }";
    for (tool_roles, when, asks) in [
        (None, "", true),
        (Some(&roles[..]), "", true),
        (None, broken, true),
        (Some(&roles[..]), broken, true),
        (Some(&roles[..]), " when { principal.uid == 7 }", false),
    ] {
        let thing = Thing { named: "deploy", is_shipped: false, tool_roles, network: None };
        let call = |run| Asked {
            run,
            policy: Some("build"),
            tool: Some("deploy"),
            thing,
            given: Given::Nothing,
            ..Asked::by(&alice, Action::Call, at())
        };
        let mut access = access(vec![engine(&permit(when), "")]);
        if tool_roles.is_some() {
            assert!(access.judge(&call(1)).is_err());
        }
        granted(&mut access, What::Tool("deploy".into()), None);
        let verdict = access.judge(&call(2)).unwrap();
        assert_eq!(!verdict.is_pass(), asks, "{tool_roles:?} {when}");
    }
}

#[test]
fn a_grant_adds_to_the_daemons_own_files_and_never_to_the_machines() {
    let permit = "permit (principal, action == Action::\"run\", resource == Policy::\"build\");";
    let alice = alice();
    for (machines, expected) in [(permit, true), ("", false)] {
        let mut access = access(vec![engine(machines, ""), engine("", "")]);
        granted(&mut access, policy(), None);
        assert_eq!(access.judge(&run(&alice, 1)).is_ok(), expected, "{machines}");
    }
    // Of whose nobody has said that grants add to them: to none.
    let mut access = Access::default();
    access.set(vec![engine("", "")], Settings::default());
    granted(&mut access, policy(), None);
    assert!(!access.can_grant() && access.judge(&run(&alice, 1)).is_err());
    access.let_grants(1);
    assert!(!access.can_grant() && access.judge(&run(&alice, 1)).is_err());
}

#[test]
fn what_a_later_stage_refuses_or_never_begins_takes_no_use_and_what_began_does() {
    let mut access = access(vec![engine("", "")]);
    granted(&mut access, policy(), Some(1));
    let alice = alice();
    passes(&mut access, &run(&alice, 1));
    access.take_back(&run(&alice, 1));
    passes(&mut access, &run(&alice, 2));
    access.ended(2, None, Ending::Neither, at());
    passes(&mut access, &run(&alice, 3));
    assert!(access.judge(&run(&alice, 4)).is_err(), "there was one use");
    access.grants_mut().began(3);
    access.ended(3, None, Ending::Success, at());
    assert!(access.judge(&run(&alice, 5)).is_err());
}

#[test]
fn refusals_count_for_a_lock_out_and_what_is_granted_does_not() {
    let mut access = access(vec![engine("", "")]);
    let alice = alice();
    granted(&mut access, policy(), None);
    for number in 0..20 {
        passes(&mut access, &run(&alice, number));
    }
    access.grants_mut().revoke(GrantId([1; 16])).unwrap();
    let reasons: Vec<Reason> =
        (0..6).map(|number| access.judge(&run(&alice, 100 + number)).unwrap_err().reason).collect();
    assert_eq!(reasons[4..], [Reason::NotPermitted, Reason::LockedOut]);
    granted(&mut access, policy(), None);
    assert_eq!(
        access.judge(&run(&alice, 200)).unwrap_err().reason,
        Reason::LockedOut,
        "a grant lets nobody in"
    );
}
