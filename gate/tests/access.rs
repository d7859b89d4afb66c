//! docs/access.md: what it shows is read as it stands, and it has every role, every action and every bound.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::{Duration, SystemTime};

use stockade_gate::access::{
    Account, Decision, Engine, MAX_BYTES, MAX_DEPTH, MAX_FILE, MAX_KEYS, MAX_OF_ONE, MAX_OPERATORS,
    MAX_RULES, MAX_VALUES, Origin, Roles, SHIPPED_ROLES, Settings, Source, read_roles,
};
use stockade_gate::rate::read;
use stockade_gate::{Action, Asked, Given, Load, Moment, Principal, Thing};

const PAGE: &str = include_str!("../../docs/access.md");

/// The file of this name that the page shows.
fn shown(language: &str, name: &str) -> &'static str {
    let comment = if language == "cedar" { "//" } else { "#" };
    let start = format!("```{language}\n{comment} {name}\n");
    let from = PAGE.find(&start).unwrap_or_else(|| panic!("the page shows no {name}"));
    PAGE[from + language.len() + 4..].split("```").next().unwrap()
}

fn roles() -> Roles {
    let look_up =
        |account: Account<'_>| matches!(account, Account::User("root") | Account::Group("root")).then_some(0);
    read_roles("roles.toml", shown("toml", "roles.toml"), &look_up)
        .unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

fn engine() -> Engine {
    let source = |origin, file| Source { origin, file, text: shown("cedar", file) };
    let sources = [source(Origin::Access, "access.cedar"), source(Origin::Invariants, "invariants.cedar")];
    Engine::new(&sources, roles()).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

#[test]
fn rules_of_the_page_say_what_the_page_says() {
    let engine = engine();
    let who = |uid: u32, unit: Option<&str>| Principal {
        uid,
        gids: vec![uid],
        pid: 1,
        unit: unit.map(ToOwned::to_owned),
        roles: Default::default(),
    };
    let agent = who(1_000, Some("user@1000.service/agent.service"));
    let (release, other) = (who(1_000, None), who(2_000, None));
    let forced: Vec<Vec<u8>> = ["git", "push", "--force"].map(|word| word.as_bytes().to_vec()).into();
    let asked = |principal, action, name: &'static str, days: u64| Asked {
        at: Moment {
            uptime: Duration::ZERO,
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400),
        },
        run: 1,
        principal,
        action,
        policy: Some(name),
        tool: (action == Action::Call).then_some(name),
        thing: Thing { named: name, is_shipped: name == "default", ..Thing::default() },
        given: Given::Nothing,
        workspace: None,
        owner: None,
        load: Load::default(),
    };
    let rule = |asked: &Asked<'_>| match engine.decide(asked).unwrap() {
        Decision::Nobody => "nobody".to_owned(),
        Decision::Permitted(rule)
        | Decision::Asked(rule)
        | Decision::Forbidden(rule)
        | Decision::Broken(rule) => engine.rule(rule).unwrap().to_string(),
    };
    let table = [
        (asked(&release, Action::Run, "build-host", 0), "builders-build (access.cedar:2)"),
        (asked(&other, Action::Run, "build-host", 0), "nobody"),
        (asked(&other, Action::Run, "default", 0), "owner-runs-shipped-policies (shipped)"),
        (asked(&agent, Action::Call, "search", 0), "client-calls-tools (shipped)"),
        (asked(&agent, Action::Call, "deploy", 1), "client-calls-tools (shipped)"),
        // The epoch was a Thursday: two days on it's Saturday.
        (asked(&agent, Action::Call, "deploy", 2), "weekends-are-quiet (invariants.cedar:7)"),
        (asked(&other, Action::Call, "search", 0), "nobody"),
    ];
    for (asked, expected) in table {
        assert_eq!(rule(&asked), expected, "{asked:?}");
    }
    let push = Asked { given: Given::Command(&forced), ..asked(&release, Action::Run, "default", 0) };
    assert_eq!(rule(&push), "no-forced-push (invariants.cedar:2)");
}

#[test]
fn the_page_has_every_role_action_and_bound_and_the_defaults_that_hold() {
    for role in SHIPPED_ROLES {
        assert!(PAGE.contains(&format!("| `{role}` |")), "{role}");
    }
    for action in Action::ALL {
        assert!(PAGE.contains(&format!("`{}`", action.name())), "{action:?}");
    }
    let limited = read("limits.toml", shown("toml", "limits.toml")).unwrap();
    assert_eq!(limited.lockout.unwrap().value, Settings::default());
    let thousands = |number: usize| format!("{},{:03}", number / 1_000, number % 1_000);
    let bounds = [
        format!("a file of {} KiB", MAX_FILE / 1024),
        format!("{} rules in all", thousands(MAX_RULES)),
        format!("{MAX_DEPTH} brackets in one another, {MAX_OPERATORS} words and operators"),
        format!("more than {MAX_VALUES} words, or of more than {} KiB", MAX_BYTES / 1024),
        format!("Of {} principals refusals are remembered, {MAX_OF_ONE} of one uid", thousands(MAX_KEYS)),
    ];
    for bound in bounds {
        assert!(PAGE.contains(&bound), "the page doesn't say: {bound}");
    }
}
