//! The engine, its rules and the stage, by what they let pass.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::{prop, proptest};

use super::engine::{Decision, Engine};
use super::roles::{self, Account, Roles};
use super::rules::{Origin, Source};
use super::{Access, Settings};
use crate::asked::{Action, Asked, Given, Load, Moment, Principal, Thing};
use crate::refusal::{Reason, Refusal};
use crate::row::Stage as _;
use crate::validate::Parameters;
use crate::verdict::Verdict;

const ALICE: u32 = 1_000;
const OTHER: u32 = 2_000;

fn somebody(uid: u32, unit: Option<&str>) -> Principal {
    Principal { uid, gids: vec![uid, 50], pid: 1, unit: unit.map(ToOwned::to_owned), roles: BTreeSet::new() }
}

fn asked<'a>(principal: &'a Principal, action: Action) -> Asked<'a> {
    let at = Moment { uptime: Duration::from_secs(60), wall: SystemTime::UNIX_EPOCH };
    Asked { run: 1, ..Asked::by(principal, action, at) }
}

fn run<'a>(principal: &'a Principal, policy: &'a str, is_shipped: bool) -> Asked<'a> {
    let thing = Thing { named: policy, is_shipped, ..Thing::default() };
    Asked { policy: Some(policy), thing, ..asked(principal, Action::Run) }
}

fn call<'a>(principal: &'a Principal, tool: &'a str, tool_roles: Option<&'a [String]>) -> Asked<'a> {
    let thing = Thing { named: tool, is_shipped: true, tool_roles, ..Thing::default() };
    Asked { policy: Some("strict"), tool: Some(tool), thing, ..asked(principal, Action::Call) }
}

fn of_run(principal: &Principal, action: Action, owner: u32) -> Asked<'_> {
    Asked { owner: Some(owner), policy: Some("default"), ..asked(principal, action) }
}

fn roles(text: &str) -> Roles {
    let look_up = |account: Account<'_>| (account == Account::User("alice")).then_some(ALICE);
    roles::read("roles.toml", text, &look_up).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

fn read(access: &str, invariants: &str, roles: Roles) -> Result<Engine, String> {
    let sources = [
        Source { origin: Origin::Access, file: "/etc/stockade/access.cedar", text: access },
        Source { origin: Origin::Invariants, file: "/etc/stockade/invariants.cedar", text: invariants },
    ];
    Engine::new(&sources, roles)
        .map_err(|mistakes| mistakes.iter().map(|mistake| format!("{mistake}\n")).collect::<String>())
}

fn engine(access: &str, invariants: &str, roles: Roles) -> Engine {
    read(access, invariants, roles).unwrap_or_else(|text| panic!("{text}"))
}

fn stage(access: &str, invariants: &str, roles: &str) -> Access {
    let mut stage = Access::default();
    stage.set(vec![Arc::new(engine(access, invariants, self::roles(roles)))], Settings::default());
    stage
}

fn is_permitted(engine: &Engine, asked: &Asked<'_>) -> bool {
    matches!(engine.decide(asked), Ok(Decision::Permitted(_)))
}

/// The rule that refuses.
fn refused(stage: &mut Access, asked: &Asked<'_>) -> Refusal {
    stage.permits(asked).expect_err("it's permitted")
}

#[test]
fn without_rules_of_an_operator_all_is_refused_but_ones_own_runs_under_shipped_policies() {
    let engine = engine("", "", Roles::default());
    let alice = somebody(ALICE, None);
    assert!(is_permitted(&engine, &run(&alice, "default", true)));
    assert!(!is_permitted(&engine, &run(&alice, "default", false)), "an operator's of a shipped one's name");
    let unknown = Asked { policy: None, ..run(&alice, "default", true) };
    assert!(!is_permitted(&engine, &unknown), "what there isn't is shipped by nobody");
    assert!(!is_permitted(&engine, &call(&alice, "search", None)));
    for action in [Action::Attach, Action::Kill, Action::List] {
        assert!(is_permitted(&engine, &of_run(&alice, action, ALICE)));
        assert!(!is_permitted(&engine, &of_run(&alice, action, OTHER)));
        assert!(!is_permitted(&engine, &Asked { owner: None, ..of_run(&alice, action, ALICE) }));
    }
    for action in
        [Action::Grant, Action::Approve, Action::ReadAudit, Action::Reload, Action::Inspect, Action::Operate]
    {
        assert!(!is_permitted(&engine, &asked(&alice, action)), "{action:?}");
        let root = somebody(0, None);
        let operates = matches!(action, Action::Reload | Action::Inspect | Action::Operate);
        assert_eq!(is_permitted(&engine, &asked(&root, action)), operates, "{action:?}");
    }
}

#[test]
fn shipped_roles_may_what_the_guide_says_and_no_more() {
    const ROLES: [&str; 5] = ["admin", "operator", "client", "auditor", "approver"];
    // Of another's runs, of tools and of the daemon.
    let table = [
        (Action::Run, "admin"),
        (Action::Call, "admin client"),
        (Action::Attach, "admin"),
        (Action::Kill, "admin operator"),
        (Action::List, "admin operator auditor"),
        (Action::Grant, "admin approver"),
        (Action::Approve, "admin approver"),
        (Action::ReadAudit, "admin auditor"),
        (Action::Reload, "admin operator"),
        (Action::Inspect, "admin operator auditor"),
        (Action::Operate, "admin operator"),
    ];
    let alice = somebody(ALICE, None);
    for role in ROLES {
        let engine = engine("", "", roles(&format!("[roles.{role}]\nusers = [\"alice\"]")));
        for (action, who) in table {
            let asked = match action {
                Action::Run => run(&alice, "own", false),
                Action::Call => call(&alice, "search", None),
                action => of_run(&alice, action, OTHER),
            };
            let expected = who.split(' ').any(|one| one == role);
            assert_eq!(is_permitted(&engine, &asked), expected, "{role} {action:?}");
        }
    }
}

#[test]
fn a_tool_that_names_roles_is_for_who_has_one_of_them_whatever_else_permits_it() {
    let permit = "permit (principal, action == Action::\"call\", resource == Tool::\"search\");";
    let engine = engine(permit, "", roles("[roles.deployer]\nunits = [\"ci.service\"]"));
    let deployers = ["deployer".to_owned()];
    assert!(is_permitted(&engine, &call(&somebody(ALICE, None), "search", None)));
    assert!(!is_permitted(&engine, &call(&somebody(ALICE, None), "search", Some(&deployers))));
    assert!(is_permitted(&engine, &call(&somebody(ALICE, Some("ci.service")), "other", Some(&deployers))));
    assert!(!is_permitted(&engine, &call(&somebody(ALICE, Some("ci.service")), "other", Some(&[]))));
}

#[test]
fn a_forbid_holds_whoever_permits_it() {
    let admin = "[roles.admin]\nusers = [\"alice\"]";
    let permit = "permit (principal, action, resource);";
    let forbid =
        "@id(\"not-own\")\nforbid (principal, action == Action::\"run\", resource == Policy::\"own\");";
    let alice = somebody(ALICE, None);
    assert!(stage(permit, "", admin).permits(&run(&alice, "own", false)).is_ok());
    for (access, invariants, file) in [(forbid, "", "access"), (permit, forbid, "invariants")] {
        let refusal = refused(&mut stage(access, invariants, admin), &run(&alice, "own", false));
        assert_eq!(refusal.rule, format!("not-own ({file}.cedar:1)"));
        assert_eq!(refusal.reason, Reason::NotPermitted);
        assert!(stage(access, invariants, admin).permits(&run(&alice, "other", false)).is_ok());
    }
}

/// More than a number can be.
const OVERFLOWS: &str = "context.time.unix * 9223372036854775807 * 9223372036854775807 > 0";

#[test]
fn a_forbid_that_cannot_be_evaluated_refuses_and_such_a_permit_permits_nothing() {
    let principal = somebody(ALICE, None);
    let at = Moment { uptime: Duration::ZERO, wall: SystemTime::UNIX_EPOCH + Duration::from_secs(9) };
    let shipped = Asked { at, ..run(&principal, "default", true) };
    let own = Asked { at, ..run(&principal, "own", false) };
    let broken = |effect: &str| format!("{effect} (principal, action, resource) when {{ {OVERFLOWS} }};");
    let mut forbids = stage("", &broken("forbid"), "");
    let refusal = refused(&mut forbids, &shipped);
    assert_eq!(refusal.rule, "invariants.cedar:1");
    assert!(refusal.message.contains("can't be evaluated"), "{}", refusal.message);
    let mut permits = stage(&broken("permit"), "", "");
    assert!(permits.permits(&shipped).is_ok());
    assert_eq!(refused(&mut permits, &own).rule, "no-rule-permits");
    // Beside a permit that can be.
    let both = format!("permit (principal, action, resource); {}", broken("forbid"));
    assert_eq!(refused(&mut stage(&both, "", ""), &own).rule, "access.cedar:1");
}

#[test]
fn what_there_isnt_is_refused_in_the_words_of_what_one_may_not() {
    let forbid = "@id(\"secret\") forbid (principal, action, resource) when { resource has name && resource.name == \"secret\" };";
    let admins = ["admin".to_owned()];
    let mut stage = stage(forbid, "", "[roles.client]\nusers = [\"alice\"]");
    for who in [somebody(ALICE, None), somebody(OTHER, None)] {
        for name in ["secret", "own"] {
            let there = run(&who, name, false);
            let told = refused(&mut stage, &there);
            assert_eq!(told, refused(&mut stage, &Asked { policy: None, ..there }));
        }
    }
    let who = somebody(OTHER, None);
    let there = call(&who, "search", Some(&admins));
    let nowhere =
        Asked { tool: None, policy: None, thing: Thing { tool_roles: None, ..there.thing }, ..there };
    assert_eq!(refused(&mut stage, &there), refused(&mut stage, &nowhere));
}

#[test]
fn rules_read_words_parameters_time_load_groups_and_units() {
    let given: Vec<Vec<u8>> = ["git", "push", "--force"].map(|word| word.as_bytes().to_vec()).into();
    let parameters = Parameters::new(br#"{"force":true,"to":["main"]}"#.to_vec());
    let principal = somebody(ALICE, Some("agent.service"));
    // Thursday, half past seven.
    let at = Moment {
        uptime: Duration::ZERO,
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(7 * 3_600 + 1_800),
    };
    let load = Load { cpu: Some(0.755), memory: None, runs: 3 };
    let run = Asked { at, load, given: Given::Command(&given), ..run(&principal, "own", false) };
    let call = Asked { at, load, given: Given::Parameters(&parameters), ..call(&principal, "search", None) };
    let table = [
        ("context.words.contains(\"--force\")", true, &run),
        ("context.argv.contains(\"1=push\") && context.program == \"git\"", true, &run),
        ("context.argv.contains(\"1=--force\")", false, &run),
        ("context.policy == \"own\"", true, &run),
        ("context.time.weekday == 4 && context.time.hour == 7 && context.time.minute == 30", true, &run),
        ("context.time.unix > 27001", false, &run),
        ("context.load has cpu && context.load.cpu == 76 && context.load.runs == 3", true, &run),
        ("context.load has memory", false, &run),
        ("principal.gids.contains(50) && !principal.gids.contains(51)", true, &run),
        ("principal has unit && principal.unit like \"agent*\"", true, &run),
        ("context.parameters.contains(\"/force=true\")", true, &call),
        ("context.parameters.contains(\"/to/0=\\\"main\\\"\")", true, &call),
        ("context.parameters.contains(\"/to/0=main\")", false, &call),
        (
            "context.tool == \"search\" && context.policy == \"strict\" && resource.policy == \"strict\"",
            true,
            &call,
        ),
    ];
    for (when, expected, asked) in table {
        let text = format!(
            "permit (principal, action == Action::\"{}\", resource) when {{ {when} }};",
            asked.action.name()
        );
        assert_eq!(is_permitted(&engine(&text, "", Roles::default()), asked), expected, "{when}");
    }
}

#[test]
fn what_is_too_much_for_rules_that_read_it_is_refused_and_costs_others_nothing() {
    let words: Vec<Vec<u8>> = vec![b"x".to_vec(); super::MAX_VALUES + 1];
    let principal = somebody(ALICE, None);
    let long = Asked { given: Given::Command(&words), ..run(&principal, "default", true) };
    assert!(stage("", "", "").permits(&long).is_ok());
    let reads =
        "forbid (principal, action == Action::\"run\", resource) when { context.words.contains(\"y\") };";
    let refusal = refused(&mut stage(reads, "", ""), &long);
    assert_eq!((refusal.rule.as_str(), refusal.reason), ("context", Reason::NotPermitted));
    assert!(refusal.remedy.unwrap().starts_with("give less, or "));
    // A rule about something else reads nothing of it.
    let other = "forbid (principal, action == Action::\"call\", resource) when { context.parameters.contains(\"y\") };";
    assert!(stage(other, "", "").permits(&long).is_ok());
    let broken = Parameters::new(b"{".to_vec());
    let call = Asked { given: Given::Parameters(&broken), ..call(&principal, "search", None) };
    let refusal = refused(&mut stage(other, "", ""), &call);
    assert_eq!(refusal.reason, Reason::BadParameters);
    assert_eq!(refusal.remedy.as_deref(), Some("give what is wrong there as it's expected"));
}

/// Scopes of every kind, by which rules are found, say what they say.
#[test]
fn rules_are_found_by_whatever_their_scope_says() {
    let roles_text = "[roles.own]\nusers = [\"alice\"]\n[roles.another]\n";
    let principal = somebody(ALICE, None);
    let asked = run(&principal, "own", false);
    let table = [
        ("principal", true, "resource", true),
        ("principal is User", true, "resource is Policy", true),
        ("principal == User::\"1000\"", true, "resource == Policy::\"own\"", true),
        ("principal == User::\"1001\"", false, "resource == Policy::\"other\"", false),
        ("principal in Role::\"own\"", true, "resource in Policy::\"own\"", true),
        ("principal in Role::\"another\"", false, "resource in Policy::\"other\"", false),
        ("principal is User in Role::\"own\"", true, "resource is Policy in Policy::\"own\"", true),
        ("principal is User in Role::\"another\"", false, "resource is Policy in Policy::\"other\"", false),
        ("principal in User::\"1000\"", true, "resource == Policy::\"own\"", true),
    ];
    for (who, is_he, _, _) in table {
        for (_, _, what, is_it) in table {
            let rule = format!("({who}, action == Action::\"run\", {what});");
            let engine = |text: &str| engine(text, "", roles(roles_text));
            let permits = engine(&format!("permit {rule}"));
            assert_eq!(is_permitted(&permits, &asked), is_he && is_it, "permit {rule}");
            let forbids = engine(&format!("permit (principal, action, resource); forbid {rule}"));
            assert_eq!(is_permitted(&forbids, &asked), !(is_he && is_it), "forbid {rule}");
        }
    }
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_place_and_remedy() {
    let permit = |rest: &str| format!("// a comment\n{rest}");
    let table = [
        (
            "permit (principal, action, resource",
            "access.cedar:2:1: a rule doesn't end; end each rule with `;`",
        ),
        ("permit (principal, action resource);", "access.cedar:2:27: "),
        ("permit (principal, action == Action::\"walk\", resource);", "access.cedar:2:"),
        (
            "permit (principal, action == Action::\"run\", resource)\nwhen { resource.owner == 1 };",
            "access.cedar:3:",
        ),
        ("permit (principal, action, resource)\nwhen { principal.unit == \"x\" };", "access.cedar:3:"),
        ("permit (principal, action, resource) when { principal.uid == \"x\" };", "access.cedar:2:"),
        ("permit (principal == ?principal, action, resource);", "access.cedar:2:"),
        (
            "@approve\npermit (principal, action == Action::\"run\", resource);",
            "access.cedar:2:1: the text of `@approve` is empty",
        ),
        (
            "@approve(\"x\")\npermit (principal, action, resource);",
            "access.cedar:2:1: `@approve` on a rule about more than runs and calls",
        ),
        (
            "@approve(\"x\")\npermit (principal, action in [Action::\"run\", Action::\"kill\"], resource);",
            "access.cedar:2:1: `@approve` on a rule about more than runs and calls",
        ),
        (
            "@approve(\"x\")\nforbid (principal, action == Action::\"run\", resource);",
            "access.cedar:2:1: `@approve` on a `forbid`",
        ),
        (
            "@note(\"x\")\npermit (principal, action, resource);",
            "access.cedar:2:1: unknown annotation `@note`",
        ),
        ("@id(\"\")\npermit (principal, action, resource);", "access.cedar:2:1: the text of `@id` is empty"),
        (
            "permit (principal in Role::\"admim\", action, resource);",
            "access.cedar:2:1: there is no role `admim`; did you mean `admin`?",
        ),
        (
            "permit (principal == User::\"alice\", action, resource);",
            "access.cedar:2:1: `User::\"alice\"` is nobody",
        ),
        (
            "@id(\"a\") permit (principal, action, resource); @id(\"a\") permit (principal, action, resource);",
            "access.cedar:2:48: there is a rule `a` already",
        ),
        (
            "@id(\"admin-does-all\") permit (principal, action, resource);",
            "access.cedar:2:1: there is a rule `admin-does-all`",
        ),
        ("permit (principal, action, resource) when { 1 == \"x\" };", "access.cedar:2:"),
    ];
    for (text, expected) in table {
        let told = read(&permit(text), "", Roles::default()).expect_err(text);
        assert!(told.starts_with(&format!("/etc/stockade/{expected}")), "{text}: {told}");
    }
    let told = read("", "permit (principal, action, resource);", Roles::default()).unwrap_err();
    assert!(told.contains("invariants.cedar:1:1: a `permit` among the invariants"), "{told}");
    let many = "forbid (principal, action, resource);".repeat(super::MAX_RULES);
    assert!(read(&many, "", Roles::default()).unwrap_err().contains("over the limit of 1000"));
}

#[test]
fn decisions_are_remembered_by_all_they_depend_on_and_forgotten_when_files_are_read_again() {
    let roles_of = "[roles.client]\nunits = [\"a.service\"]";
    let mut one = stage("", "", roles_of);
    let admins = ["admin".to_owned()];
    let people = [somebody(ALICE, None), somebody(ALICE, Some("a.service")), somebody(OTHER, None)];
    for principal in &people {
        let expected = principal.unit.is_some();
        for _ in 0..2 {
            assert_eq!(one.permits(&call(principal, "search", None)).is_ok(), expected);
            assert!(one.permits(&call(principal, "search", Some(&admins))).is_err());
            assert!(one.permits(&run(principal, "default", true)).is_ok());
            assert!(one.permits(&run(principal, "default", false)).is_err());
            assert_eq!(one.permits(&of_run(principal, Action::Kill, ALICE)).is_ok(), principal.uid == ALICE);
        }
    }
    assert_eq!(one.remembered(), 15);
    one.set(vec![Arc::new(engine("", "", roles("")))], Settings::default());
    assert_eq!(one.remembered(), 0);
    assert!(one.permits(&call(&people[1], "search", None)).is_err());
}

#[test]
fn what_reads_the_time_is_never_remembered() {
    let rule = "forbid (principal, action == Action::\"run\", resource) when { context.time.hour < 8 };";
    let mut stage = stage(rule, "", "");
    let principal = somebody(ALICE, None);
    for (hour, expected) in [(9, true), (7, false), (9, true), (7, false)] {
        let at = Moment {
            uptime: Duration::ZERO,
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(hour * 3_600),
        };
        assert_eq!(stage.permits(&Asked { at, ..run(&principal, "default", true) }).is_ok(), expected);
    }
    assert_eq!(stage.remembered(), 0);
}

#[test]
fn the_table_of_decisions_is_bounded() {
    let mut stage = stage("", "", "");
    let principal = somebody(ALICE, None);
    for number in 0..super::MAX_DECISIONS + 10 {
        let name = number.to_string();
        let _refused = stage.permits(&Asked { policy: None, ..run(&principal, &name, false) });
    }
    assert_eq!(stage.remembered(), 10);
}

#[test]
fn what_all_directories_permit_is_permitted_and_nothing_else() {
    let all = "permit (principal, action, resource);";
    let not_at_night = "forbid (principal, action, resource) when { context.time.hour < 6 };";
    let engines = |one: &str, other: &str| {
        let mut access = Access::default();
        let of = |text: &str| Arc::new(engine(text, "", roles("[roles.admin]\nusers = [\"alice\"]")));
        access.set(vec![of(one), Arc::new(engine(other, "", Roles::default()))], Settings::default());
        access
    };
    let principal = somebody(ALICE, None);
    let own = run(&principal, "own", false);
    assert!(engines("", all).permits(&own).is_ok());
    assert!(engines(all, "").permits(&own).is_err());
    assert!(engines(all, &format!("{all}{not_at_night}")).permits(&own).is_err());
}

#[test]
fn who_is_refused_five_times_is_locked_out_and_may_still_end_what_is_his() {
    let mut stage = stage("", "", "");
    let (agent, human) = (somebody(ALICE, Some("agent.service")), somebody(ALICE, None));
    for _ in 0..4 {
        assert_eq!(stage.judge(&run(&agent, "own", false)).unwrap_err().reason, Reason::NotPermitted);
    }
    assert!(stage.judge(&run(&agent, "default", true)).is_ok() && stage.newly_locked().is_empty());
    assert_eq!(stage.judge(&run(&agent, "own", false)).unwrap_err().retry_after, None);
    assert_eq!(stage.newly_locked(), [(ALICE, Some("agent.service".to_owned()))]);
    let refusal = stage.judge(&run(&agent, "default", true)).unwrap_err();
    assert_eq!((refusal.reason, refusal.retry_after), (Reason::LockedOut, Some(Duration::from_secs(1_800))));
    assert!(stage.judge(&run(&human, "default", true)).is_ok());
    assert!(stage.judge(&of_run(&agent, Action::Kill, ALICE)).is_ok());
    assert!(stage.judge(&of_run(&agent, Action::Kill, OTHER)).is_err());
    assert!(stage.judge(&of_run(&agent, Action::Attach, ALICE)).is_err());
    // Read again: he stays locked out.
    stage.set(vec![Arc::new(engine("", "", roles("")))], Settings::default());
    assert!(stage.judge(&run(&agent, "default", true)).is_err());
    assert_eq!(stage.lift(ALICE, None, Duration::from_secs(60)), 1);
    assert!(stage.judge(&run(&agent, "default", true)).is_ok());
}

proptest! {
    /// The stage's memory never says anything else than the engine, in any order of questions.
    #[test]
    fn memory_says_what_the_engine_says(
        history in prop::collection::vec((0..3_usize, 0..4_usize, 0..3_usize, proptest::bool::ANY), 1..60),
    ) {
        let text = "permit (principal in Role::\"own\", action == Action::\"run\", resource == Policy::\"b\");
            forbid (principal, action, resource) when { principal has unit && principal.unit == \"x.service\" };";
        let roles_text = "[roles.own]\nusers = [\"alice\"]\n[roles.client]\nusers = [\"2000\"]";
        let engine = Arc::new(engine(text, "", roles(roles_text)));
        let mut access = Access::default();
        access.set(vec![Arc::clone(&engine)], Settings::default());
        let people = [somebody(ALICE, None), somebody(OTHER, None), somebody(ALICE, Some("x.service"))];
        let names = ["a", "b", "c"];
        for (who, what, name, flag) in history {
            let principal = &people[who];
            let asked = match what {
                0 => run(principal, names[name], flag),
                1 => Asked { policy: None, ..run(principal, names[name], flag) },
                2 => call(principal, names[name], None),
                _ => of_run(principal, Action::Attach, if flag { ALICE } else { OTHER }),
            };
            proptest::prop_assert_eq!(access.permits(&asked).is_ok(), is_permitted(&engine, &asked));
        }
    }
}

/// The names of what has somebody asked; none: it passes.
fn asks(stage: &mut Access, asked: &Asked<'_>) -> Vec<String> {
    match stage.permits(asked).expect("it's refused") {
        Verdict::Pass => Vec::new(),
        Verdict::Ask(ask) => ask.because.into_iter().map(|factor| factor.to_string()).collect(),
    }
}

#[test]
fn a_permit_that_asks_is_heard_whatever_others_permit_without_and_however_often_it_is_asked() {
    let permit = "permit (principal, action == Action::\"run\", resource);";
    let asking = "@id(\"own-asks\")\n@approve(\"it is new\")\npermit (principal, action in [Action::\"run\", Action::\"call\"], resource == Policy::\"own\");";
    let alice = somebody(ALICE, None);
    let own = run(&alice, "own", false);
    let mut without = stage(permit, "", "");
    assert_eq!(asks(&mut without, &own), [""; 0]);
    for text in [format!("{permit}{asking}"), format!("{asking}{permit}"), asking.to_owned()] {
        let mut stage = stage(&text, "", "");
        for _ in 0..2 {
            let expected: &[&str] = &["own-asks (access.cedar:1): it is new"];
            let found: Vec<String> = asks(&mut stage, &own)
                .into_iter()
                .map(|said| said.replace("(access.cedar:2)", "(access.cedar:1)"))
                .collect();
            assert_eq!(found, expected, "{text}");
        }
        assert_eq!(stage.remembered(), 1);
        if text.contains(permit) {
            assert_eq!(asks(&mut stage, &run(&alice, "other", false)), [""; 0]);
        }
        // What is forbidden is refused all the same.
        let forbid = "forbid (principal, action == Action::\"run\", resource == Policy::\"own\");";
        let refusal = refused(&mut self::stage(&text, forbid, ""), &own);
        assert_eq!(refusal.reason, Reason::NotPermitted);
    }
}

#[test]
fn a_permit_that_asks_and_cant_be_evaluated_asks_where_another_permits() {
    let permit = "permit (principal, action == Action::\"run\", resource);";
    let broken = "@approve(\"who knows\")\npermit (principal, action == Action::\"run\", resource) when { principal.uid + 9223372036854775807 > 0 };";
    let alice = somebody(ALICE, None);
    let own = run(&alice, "own", false);
    assert_eq!(asks(&mut stage(&format!("{permit}{broken}"), "", ""), &own).len(), 1);
    assert_eq!(refused(&mut stage(broken, "", ""), &own).reason, Reason::NotPermitted);
}

#[test]
fn of_several_engines_any_asks() {
    let permit = "permit (principal, action == Action::\"run\", resource);";
    let asking = "@approve(\"x\")\npermit (principal, action == Action::\"run\", resource);";
    let alice = somebody(ALICE, None);
    let own = run(&alice, "own", false);
    for (one, other, expected) in
        [(permit, permit, 0), (permit, asking, 1), (asking, permit, 1), (asking, asking, 2)]
    {
        let mut stage = Access::default();
        let engine = |text| Arc::new(engine(text, "", Roles::default()));
        stage.set(vec![engine(one), engine(other)], Settings::default());
        assert_eq!(asks(&mut stage, &own).len(), expected);
        assert_eq!(
            stage.allows(&own).map_err(|refusal| refusal.reason),
            if expected == 0 { Ok(()) } else { Err(Reason::NotApproved) }
        );
    }
}
