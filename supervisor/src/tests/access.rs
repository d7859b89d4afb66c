//! Rules of access, from the files to what a client is told.

use std::path::Path;

use stockade_protocol::ExecId;
use stockade_protocol::client::{ClientMessage, ExecEvent, ExecRequest, ServerMessage};
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::launch::ToLauncher;
use stockade_protocol::outcome::Outcome;

use super::breakers::{PARAMETERS, reset};
use super::gate::{called, put_limits, with_a_tool};
use super::stage::{Changes, Client, Stage, until};
use crate::serve::Order;

/// Puts a file of access where the daemon looks.
pub(super) fn put(directory: &Path, name: &str, text: &str) {
    let configuration = directory.join("configuration");
    std::fs::create_dir_all(&configuration).unwrap();
    std::fs::write(configuration.join(name), text).unwrap();
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Roles of whoever runs the test.
fn has(roles: &[&str]) -> String {
    roles.iter().map(|role| format!("[roles.{role}]\nusers = [\"{}\"]\n", uid())).collect()
}

fn stage(before: impl FnOnce(&Path) + 'static) -> Stage {
    let policy = Some("extends = \"strict\"\n");
    Stage::new(Changes { before: Some(Box::new(before)), policy, ..Changes::default() })
}

fn under(stage: &Stage, policy: &str) -> ExecRequest {
    ExecRequest { policy: policy.into(), ..stage.request() }
}

fn rule(denied: &Denied) -> (DenyReason, &str) {
    let decided = denied.decided.as_ref().expect("nobody has decided");
    assert_eq!(decided.stage, "access");
    (denied.reason, &decided.rule)
}

fn ask(client: &mut Client, message: &ClientMessage) -> Denied {
    client.say(message);
    match client.next() {
        ServerMessage::Denied { denied, .. } => denied,
        other => panic!("{other:?} instead of Denied"),
    }
}

fn reload(stage: &Stage) {
    let count = || stage.said.count("policies reloaded");
    let before = count();
    stage.order(Order::Reload);
    until("reloaded", || count() > before);
}

/// A run that goes on.
fn running(stage: &Stage, launcher: &mut super::stage::Launcher, client: &mut Client) -> ExecId {
    let run = client.exec(ExecRequest { detach: true, ..stage.request() });
    let (launch, _) = launcher.launch();
    launcher.started(&launch);
    client.event(run, 2);
    run
}

#[test]
fn any_file_of_access_turns_rules_on_without_one_nothing_is_asked_and_no_reload_gives_them_up() {
    for (name, text) in [("roles.toml", ""), ("access.cedar", ""), ("invariants.cedar", "// nothing")] {
        let stage = stage(with_a_tool);
        let (mut launcher, mut client) = (stage.launcher(), stage.client());
        client.exec(under(&stage, "custom"));
        launcher.play(b"");
        put(stage.directory.path(), name, text);
        reload(&stage);
        let refused = |stage: &Stage| {
            let denied = stage.client().denied(under(stage, "custom"), &[]);
            assert_eq!(rule(&denied), (DenyReason::NotPermitted, "no-rule-permits"), "{name}");
        };
        refused(&stage);
        // The directory is being swapped, say.
        std::fs::remove_file(stage.directory.path().join("configuration").join(name)).unwrap();
        stage.order(Order::Reload);
        until("told", || stage.said.count("the files of access are gone") > 0);
        refused(&stage);
    }
}

#[test]
fn a_run_under_a_shipped_policy_passes_and_what_isnt_known_is_refused_as_what_isnt_permitted() {
    let stage = stage(|directory| {
        with_a_tool(directory);
        put(directory, "roles.toml", "");
        put_limits(directory, "[lockout]\nrefusals = 0\n");
    });
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let run = client.exec(stage.request());
    launcher.play(b"");
    client.read_to_end(run, 2);
    let refused = |client: &mut Client, request: ExecRequest| client.denied(request, &[]);
    let there = refused(&mut client, under(&stage, "custom"));
    assert_eq!(there, refused(&mut client, under(&stage, "nosuch")));
    assert_eq!(there, refused(&mut client, under(&stage, &"x".repeat(100_000))));
    let there = refused(&mut client, called(&stage, "count", PARAMETERS));
    assert_eq!(rule(&there), (DenyReason::NotPermitted, "no-rule-permits"));
    assert_eq!(there, refused(&mut client, called(&stage, "nosuch", PARAMETERS)));
    let wrong = ExecRequest { policy: "default".into(), ..called(&stage, "count", PARAMETERS) };
    assert_eq!(there, refused(&mut client, wrong));
    assert!(!launcher.hears_something());
}

#[test]
fn who_may_all_is_told_what_there_isnt_and_not_what_there_is() {
    let stage = stage(|directory| {
        with_a_tool(directory);
        put(directory, "roles.toml", &has(&["admin"]));
    });
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    for (request, reason) in [
        (under(&stage, "custon"), DenyReason::UnknownPolicy),
        (called(&stage, "coumt", PARAMETERS), DenyReason::UnknownTool),
    ] {
        let denied = client.denied(request, &[]);
        assert_eq!(denied.reason, reason);
        assert!(!denied.message.contains("custom") && !denied.message.contains("count"), "{denied}");
    }
    client.exec(called(&stage, "count", PARAMETERS));
    launcher.play(b"");
}

#[test]
fn a_tool_for_a_role_is_called_by_who_has_it_and_reloads_change_who_that_is() {
    let stage = stage(|directory| {
        let text = super::gate::TOOL.replacen("version =", "roles = [\"own\"]\nversion =", 1);
        super::gate::put_tool(directory, "count.toml", &text);
        put(directory, "roles.toml", &has(&["own"]));
    });
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let run = client.exec(called(&stage, "count", PARAMETERS));
    launcher.play(b"");
    client.read_to_end(run, 2);
    // On the same connection.
    put(stage.directory.path(), "roles.toml", &has(&["client"]));
    reload(&stage);
    assert_eq!(rule(&client.denied(called(&stage, "count", PARAMETERS), &[])).1, "no-rule-permits");
    put(stage.directory.path(), "roles.toml", &has(&["own"]));
    reload(&stage);
    client.exec(called(&stage, "count", PARAMETERS));
}

#[test]
fn one_bad_file_changes_nothing_and_its_place_is_told() {
    let stage = stage(|directory| put(directory, "roles.toml", ""));
    let (_launcher, mut client) = (stage.launcher(), stage.client());
    let bad = [
        ("roles.toml", "[roles.a]\nusers = [\"no such user\"]\n", "roles.toml:2:10: `users`: there is no"),
        ("access.cedar", "permit (principal, action, resource)", "access.cedar:1:1: a rule doesn't end"),
        (
            "invariants.cedar",
            "permit (principal, action, resource);",
            "invariants.cedar:1:1: a `permit` among",
        ),
        (
            "limits.toml",
            "[tiers.a]\nroles = [\"clinet\"]\n",
            "limits.toml:2:10: there is no role `clinet`; did you mean `client`?",
        ),
    ];
    for (name, text, place) in bad {
        put(stage.directory.path(), name, text);
        stage.order(Order::Reload);
        until(place, || stage.said.has(&["ERROR", "stay", place]));
        put(stage.directory.path(), name, "");
    }
    assert_eq!(rule(&client.denied(under(&stage, "custom"), &[])).0, DenyReason::NotPermitted);
    // A link that leads nowhere is a file that can't be read, not one that isn't there.
    let link = stage.directory.path().join("configuration/access.cedar");
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("gone.cedar", &link).unwrap();
    stage.order(Order::Reload);
    until("refused", || stage.said.has(&["ERROR", "stay", "cannot read", "access.cedar"]));
}

#[test]
fn limits_of_a_tier_hold_for_who_has_its_role() {
    let stage = stage(|directory| {
        put(directory, "roles.toml", &has(&["guest"]));
        put_limits(directory, "[rate]\neach = \"100/m\"\n[tiers.guests]\nroles = [\"guest\"]\npercent = 0\n");
    });
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    assert_eq!(client.denied(stage.request(), &[]).reason, DenyReason::RateLimited);
    put(stage.directory.path(), "roles.toml", "[roles.guest]\n");
    reload(&stage);
    client.exec(stage.request());
    launcher.play(b"");
}

/// Forbids an action to everybody.
fn forbid(action: &str) -> String {
    format!("@id(\"no-{action}\")\nforbid (principal, action == Action::\"{action}\", resource);\n")
}

#[test]
fn what_a_rule_forbids_of_ones_own_run_is_refused_and_another_connection_cant_go_around_it() {
    let stage = stage(|directory| put(directory, "invariants.cedar", &(forbid("kill") + &forbid("attach"))));
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let run = running(&stage, &mut launcher, &mut client);
    let mut other = stage.client();
    let asked = [
        (ClientMessage::Signal { exec_id: run, signal: 15 }, "no-kill (invariants.cedar:1)"),
        (ClientMessage::Cancel { exec_id: run }, "no-kill (invariants.cedar:1)"),
        (ClientMessage::Attach { exec_id: run, after_seq: 0 }, "no-attach (invariants.cedar:3)"),
    ];
    for (message, expected) in &asked {
        assert_eq!(rule(&ask(&mut other, message)), (DenyReason::NotPermitted, *expected));
    }
    for message in [
        ClientMessage::Resize { exec_id: run, rows: 1, columns: 1 },
        ClientMessage::Acknowledge { exec_id: run, seq: 2 },
    ] {
        other.say(&message);
    }
    assert!(!launcher.hears_something() && other.hears_nothing());
    // Who has asked for it has it, all the same.
    client.say(&ClientMessage::Resize { exec_id: run, rows: 1, columns: 1 });
    assert!(matches!(launcher.next(), ToLauncher::Resize { .. }));
    put(stage.directory.path(), "invariants.cedar", "// nothing");
    reload(&stage);
    other.say(&asked[0].0);
    assert!(matches!(launcher.next(), ToLauncher::Signal { signal: 15, .. }));
}

#[test]
fn what_another_connection_has_read_to_the_end_it_acknowledges() {
    let stage = stage(|directory| put(directory, "access.cedar", ""));
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let run = client.exec(ExecRequest { detach: true, ..stage.request() });
    launcher.play(b"said");
    drop(client);
    let mut other = stage.client();
    other.say(&ClientMessage::Attach { exec_id: run, after_seq: 0 });
    let accepted = other.event(run, 1);
    assert!(matches!(accepted, ExecEvent::Accepted { .. }), "{accepted:?}");
    // Which acknowledges the end: nobody needs the run any more.
    assert_eq!(other.read_to_end(run, 2).0, b"said");
    until("the run is forgotten", || other.runs().is_empty());
}

#[test]
fn a_run_that_one_may_not_see_is_answered_as_one_that_isnt_there_and_counts_for_nothing() {
    let all = || forbid("list") + &forbid("kill") + &forbid("attach");
    let stage = stage(move |directory| put(directory, "access.cedar", &all()));
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let run = running(&stage, &mut launcher, &mut client);
    let nobodys = ExecId::generate();
    let mut other = stage.client();
    assert!(other.runs().is_empty());
    for _ in 0..10 {
        let answer = |other: &mut Client, exec_id| {
            let asked = [
                ClientMessage::Signal { exec_id, signal: 15 },
                ClientMessage::Cancel { exec_id },
                ClientMessage::Attach { exec_id, after_seq: 0 },
            ];
            asked.map(|message| {
                let denied = ask(other, &message);
                Denied { message: denied.message.replace(&exec_id.to_string(), "ID"), ..denied }
            })
        };
        let there = answer(&mut other, run);
        assert!(there.iter().all(|denied| denied.reason == DenyReason::UnknownRun), "{there:?}");
        assert_eq!(there, answer(&mut other, nobodys));
    }
    assert!(other.status().locked_out.is_empty());
    assert!(!launcher.hears_something());
    std::fs::write(stage.directory.path().join("configuration/access.cedar"), "").unwrap();
    reload(&stage);
    assert_eq!(other.runs().len(), 1);
}

#[test]
fn who_is_refused_again_and_again_is_locked_out_with_the_exact_time_and_let_in_by_an_operator() {
    let stage = stage(|directory| {
        put(directory, "roles.toml", &has(&["operator"]));
        put_limits(directory, "[lockout]\nrefusals = 3\nfor = \"1h\"\n");
    });
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    for _ in 0..3 {
        assert_eq!(client.denied(under(&stage, "custom"), &[]).reason, DenyReason::NotPermitted);
    }
    // Whatever he asks for, on any connection; what he may end or see he may.
    let mut other = stage.client();
    let denied = other.denied(stage.request(), &[]);
    assert_eq!(rule(&denied), (DenyReason::LockedOut, "lockout"));
    assert!(
        denied.retry_after_ms.is_some_and(|after| (3_500_000..=3_600_000).contains(&after)),
        "{denied:?}"
    );
    let status = other.status();
    assert_eq!((status.locked_out.len(), status.locked_out[0].uid), (1, uid()));
    other.runs();
    let run = ClientMessage::Attach { exec_id: ExecId::generate(), after_seq: 0 };
    assert_eq!(ask(&mut other, &run).reason, DenyReason::LockedOut);
    // Who is locked out lets nobody in.
    let unlock = ClientMessage::Unlock { uid: uid(), unit: None };
    assert_eq!(ask(&mut other, &unlock).reason, DenyReason::LockedOut);
    until("logged", || stage.said.has(&["WARN", "refused too often"]));
    // With none that lasts, nobody is.
    put_limits(stage.directory.path(), "[lockout]\nrefusals = 0\n");
    reload(&stage);
    assert!(other.status().locked_out.is_empty());
    other.exec(stage.request());
    launcher.play(b"");
    other.say(&unlock);
    let unlocked = loop {
        match other.next() {
            ServerMessage::Event { .. } => {}
            other => break other,
        }
    };
    assert_eq!(unlocked, ServerMessage::Unlocked { uid: uid(), count: 0 });
}

#[test]
fn breakers_and_names_are_for_who_may_look_and_a_reset_for_who_operates() {
    let forbids = || forbid("inspect") + &forbid("operate");
    let stage = stage(move |directory| {
        with_a_tool(directory);
        put(directory, "roles.toml", &has(&["operator"]));
        put(directory, "access.cedar", &forbids());
    });
    let (_launcher, mut client) = (stage.launcher(), stage.client());
    // To look isn't what one is locked out for.
    for _ in 0..10 {
        assert_eq!(rule(&ask(&mut client, &ClientMessage::Breakers)).1, "no-inspect (access.cedar:1)");
    }
    assert_eq!(rule(&reset(&mut client, "count").unwrap_err()).1, "no-operate (access.cedar:3)");
    let status = client.status();
    assert_eq!((status.policies.len(), status.tools), (0, 0));
    put(stage.directory.path(), "access.cedar", "");
    reload(&stage);
    let status = client.status();
    assert!(status.policies.contains(&"custom".to_owned()) && status.tools == 1);
    assert_eq!(reset(&mut client, "count"), Ok(false));
}

#[test]
fn a_refusal_makes_no_run_and_its_end_tells_nobody() {
    let stage = stage(|directory| put(directory, "access.cedar", ""));
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    client.denied(under(&stage, "custom"), &[]);
    let status = client.status();
    assert_eq!((status.known, status.running, status.accepted, status.denied), (0, 0, 0, 1));
    let run = client.exec(stage.request());
    let (launch, _) = launcher.launch();
    launcher.started_with(&launch, &[]);
    launcher.ended(run, Outcome::Exited { code: 0 });
}
