//! Configuration and policies read again: all or nothing, at once for what comes, and never for what goes on.

use std::path::PathBuf;
use std::time::Duration;

use stockade_policies::PolicySet;
use stockade_protocol::client::{ClientMessage, ReloadReport, ServerMessage};
use stockade_protocol::denied::DenyReason;
use stockade_protocol::outcome::Outcome;

use super::access::put;
use super::stage::{Before, Changes, Client, Stage, until};
use crate::config::{Configuration, Count, FILE, LogLevel, Queue, Slots, Space, Span};
use crate::daemon::{Daemon, Settings};
use crate::limits::Limits;
use crate::metrics::Figures;
use crate::paths::Scope;
use crate::serve::Order;

fn configure(stage: &Stage, name: &str, text: &str) -> PathBuf {
    let path = stage.directory.path().join("configuration").join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn add_policy(stage: &Stage, name: &str, text: &str) -> PathBuf {
    let path = stage.directory.path().join("policies").join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn slots(client: &mut Client) -> u32 {
    client.status().slots
}

fn has(client: &mut Client, name: &str) -> bool {
    client.status().policies.iter().any(|known| known == name)
}

/// Waits until the reloads that were ordered have been carried out: they are, in order, and this one shows.
fn settle(stage: &Stage, client: &mut Client, queue: u32) {
    configure(stage, "stockade.d/settle.toml", &format!("[runs]\nqueue = {queue}\n"));
    stage.order(Order::Reload);
    until("reloaded", || client.status().queue_bound == queue);
}

#[test]
fn fewer_slots_end_nothing_and_more_start_what_waits() {
    let stage = Stage::new(Changes { slots: 2, ..Changes::default() });
    let mut launcher = stage.launcher();
    let (mut client, mut watcher) = (stage.client(), stage.client());
    let runs: Vec<_> = (0..4).map(|_| client.exec(stage.request())).collect();
    for run in &runs[..2] {
        assert_eq!(launcher.launch().0.exec_id, *run);
    }
    configure(&stage, FILE, "[runs]\nslots = 1\nqueue = 64\n");
    stage.order(Order::Reload);
    until("reloaded", || slots(&mut watcher) == 1);
    assert_eq!((watcher.status().running, watcher.status().queued), (2, 2));
    launcher.ended(runs[0], Outcome::Exited { code: 0 });
    until("the first is over", || watcher.status().running == 1);
    assert_eq!(watcher.status().queued, 2, "one slot, and one run in it");
    configure(&stage, FILE, "[runs]\nslots = 8\nqueue = 64\n");
    stage.order(Order::Reload);
    for run in &runs[2..] {
        assert_eq!(launcher.launch().0.exec_id, *run);
    }
    assert_eq!(slots(&mut watcher), 8);
}

#[test]
fn one_bad_file_of_either_keeps_the_old_of_both() {
    let stage = Stage::new(Changes::default());
    let mut client = stage.client();
    let good = "extends = \"default\"\n";
    // A bad policy: neither its neighbour nor the configuration is taken up.
    add_policy(&stage, "good.toml", good);
    let bad = add_policy(&stage, "bad.toml", "no-such-key = 1\n");
    configure(&stage, FILE, "[runs]\nslots = 3\nqueue = 64\n");
    stage.order(Order::Reload);
    until("refused", || {
        stage.said.has(&["ERROR", "stay", "the policies are bad: ", "bad.toml:1:1: unknown key"])
    });
    assert!(slots(&mut client) == 64 && !has(&mut client, "good"));
    std::fs::remove_file(bad).unwrap();
    // A bad drop-in: no policy is taken up.
    let bad = configure(&stage, "stockade.d/bad.toml", "[runs]\nslots = 0\n");
    stage.order(Order::Reload);
    until("refused", || {
        stage.said.has(&["ERROR", "stay", "the configuration is bad: ", "bad.toml:2:9: `slots`"])
    });
    assert!(slots(&mut client) == 64 && !has(&mut client, "good"));
    std::fs::remove_file(bad).unwrap();
    assert_eq!(stage.said.count("changed"), 0);
    settle(&stage, &mut client, 5);
    assert!(stage.said.has(&["INFO", "changed", "key=runs.slots", "old=64", "new=3"]));
    assert!(slots(&mut client) == 3 && has(&mut client, "good"));
}

#[test]
fn what_takes_a_restart_stays_and_the_rest_is_taken_up() {
    let stage = Stage::new(Changes::default());
    let mut client = stage.client();
    let policies = stage.directory.path().join("more");
    std::fs::create_dir(&policies).unwrap();
    std::fs::write(policies.join("more.toml"), "extends = \"default\"\n").unwrap();
    configure(
        &stage,
        FILE,
        &format!(
            "[daemon]\nstate-directory = \"/elsewhere\"\npolicies = [{policies:?}]\n\
             [runs]\nparked = 1\n[log]\nlevel = \"error\"\n",
        ),
    );
    settle(&stage, &mut client, 5);
    assert!(has(&mut client, "more"));
    assert_eq!(stage.levels.lock().unwrap().as_slice(), [LogLevel::Error]);
    assert!(stage.said.has(&["WARN", "takes a restart", "key=runs.parked", "old=8", "new=1"]));
    assert_eq!(slots(&mut client), 256, "the file no longer says it");
    // What takes a restart is told again at each reload, and nothing else: it's all as it was.
    settle(&stage, &mut client, 6);
    assert_eq!(stage.said.count("key=runs.parked"), 2);
    assert_eq!(stage.said.count("key=runs.slots"), 1);
    assert_eq!(stage.said.count("takes a restart"), 2, "what an option says is said over every file");
}

#[test]
fn connections_are_bounded_by_what_holds_when_they_come() {
    let stage = Stage::new(Changes::default());
    let mut client = stage.client();
    configure(&stage, FILE, "[connections]\ntotal = 1\n");
    settle(&stage, &mut client, 5);
    let mut second = stage.stranger();
    assert!(matches!(second.next(), ServerMessage::Error(error) if error.text.contains("1 connections")));
    configure(&stage, FILE, "[connections]\ntotal = 2\n");
    settle(&stage, &mut client, 6);
    let mut second = stage.client();
    assert_eq!(second.status().connections, 2);
}

#[test]
fn every_limit_reaches_whatever_it_limits() {
    let settings = Settings {
        uid: 0,
        scope: Scope::Machine,
        apart: false,
        pid: 1,
        hello_within: Duration::from_secs(1),
        frame_within: Duration::from_secs(1),
        met_within: Duration::from_secs(1),
        home_of: crate::paths::home_of,
        opener: None,
    };
    let before = Configuration::default();
    let daemon = Daemon::new(
        settings,
        Limits::of(&before, Scope::Machine),
        PolicySet::shipped(),
        Figures::new().unwrap(),
    );
    let mut after = before;
    after.runs.slots = Slots::nearest(3);
    after.runs.queue = Queue::nearest(4);
    after.runs.grace = Span::seconds(5);
    after.runs.retention = Span::seconds(6);
    after.connections.total = Count::nearest(7);
    after.connections.per_user = Count::nearest(2);
    after.connections.memory = Space::mebibytes(16);
    after.connections.memory_per_user = Space::mebibytes(8);
    let mut state = daemon.state.borrow_mut();
    let entry = state.ledger.entry(1);
    assert!(entry.allows(100 << 20));
    state.set_limits(Limits::of(&after, Scope::Machine));
    assert!(entry.allows(8 << 20) && !entry.allows(9 << 20));
    // Of 16 MiB a quarter is for others, and of him much waits.
    let other = state.ledger.entry(2);
    other.set(8 << 20);
    assert!(entry.allows(4 << 20) && !entry.allows(6 << 20));
    let status = state.status();
    assert_eq!((status.slots, status.queue_bound), (3, 4));
    let limits = &state.limits;
    assert_eq!((limits.grace_ms, limits.bounds.retention_ms), (5_000, 6_000));
    assert_eq!((limits.connections, limits.connections_per_owner), (7, 2));
    // A user's own daemon has one user, who may have everything.
    let own = Limits::of(&after, Scope::User);
    assert_eq!((own.connections_per_owner, own.memory.per_owner), (7, 16 << 20));
    assert_eq!((own.memory.share.kept, own.bounds.slots.kept), (0, 0));
}

pub(super) fn reload(client: &mut Client) -> ReloadReport {
    client.say(&ClientMessage::Reload);
    match client.next() {
        ServerMessage::Reloaded(report) => *report,
        other => panic!("{other:?} instead of Reloaded"),
    }
}

#[test]
fn who_asks_for_a_reload_is_told_what_came_of_it() {
    let stage = Stage::new(Changes::default());
    let (mut client, mut other) = (stage.client(), stage.client());
    let before = reload(&mut client);
    assert!(before.wrong.is_empty() && before.takes_restart.is_empty(), "{before:?}");
    add_policy(&stage, "new.toml", "extends = \"strict\"\n");
    let after = reload(&mut client);
    assert_eq!(after.policies, before.policies + 1);
    assert!(has(&mut other, "new"), "it's taken up before it's answered");
    // What is wrong is told whole, and nothing of the rest is taken up.
    add_policy(&stage, "late.toml", "extends = \"strict\"\n");
    let bad = configure(&stage, FILE, "[runs]\nslots = \"many\"\nqueue = -1\n");
    let wrong = reload(&mut client);
    assert_eq!((wrong.wrong.len(), wrong.left_out, wrong.policies), (2, 0, 0), "{wrong:?}");
    assert!(wrong.wrong[0].contains(":2:") && wrong.wrong[1].contains(":3:"), "{wrong:?}");
    assert!(!has(&mut other, "late"));
    std::fs::write(&bad, "").unwrap();
    // Two at once are both answered.
    client.say(&ClientMessage::Reload);
    other.say(&ClientMessage::Reload);
    for client in [&mut client, &mut other] {
        assert!(matches!(client.next(), ServerMessage::Reloaded(report) if report.wrong.is_empty()));
    }
    assert!(has(&mut other, "late"));
}

#[test]
fn who_may_not_have_files_read_again_is_refused() {
    let forbid = "forbid (principal, action == Action::\"reload\", resource);";
    for invariants in ["", forbid] {
        let before: Before = Box::new(move |directory| {
            let uid = rustix::process::geteuid().as_raw();
            put(directory, "roles.toml", &format!("[roles.operator]\nusers = [\"{uid}\"]\n"));
            if !invariants.is_empty() {
                put(directory, "invariants.cedar", invariants);
            }
        });
        let stage = Stage::new(Changes { before: Some(before), ..Changes::default() });
        let mut client = stage.client();
        add_policy(&stage, "new.toml", "extends = \"strict\"\n");
        if invariants.is_empty() {
            assert!(reload(&mut client).wrong.is_empty());
        } else {
            client.say(&ClientMessage::Reload);
            match client.next() {
                ServerMessage::Denied { request_id: 0, exec_id: None, denied } => {
                    assert_eq!(denied.reason, DenyReason::NotPermitted);
                }
                other => panic!("{other:?} instead of Denied"),
            }
        }
        assert_eq!(has(&mut client, "new"), invariants.is_empty());
    }
}
