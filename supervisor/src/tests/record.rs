//! What is written down of requests, and when.

use std::ops::ControlFlow;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use stockade_audit::{Check, Entry, Filter, Keys, MasterKey, Reader, verify};
use stockade_protocol::client::{ClientMessage, ExecRequest, ServerMessage, ToolCall};
use stockade_protocol::denied::DenyReason;
use stockade_protocol::grants::{GrantGiven, GrantTerms};
use stockade_protocol::launch::ToLauncher;
use stockade_protocol::outcome::Outcome;

use super::access::put;
use super::metrics::scrape;
use super::stage::{Changes, Stage, until};
use super::{breakers, gate};
use crate::config::{Auditing, Switch};
use crate::paths::Scope;
use crate::record::Record;
use crate::serve::Order;

pub(super) fn with_a_key(directory: &Path) {
    let key = directory.join("audit.key");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&key).unwrap();
    std::io::Write::write_all(&mut file, &[7; 32]).unwrap();
    let drop_ins = directory.join("configuration/stockade.d");
    std::fs::create_dir_all(&drop_ins).unwrap();
    std::fs::write(drop_ins.join("audit.toml"), format!("[audit]\nkey = \"{}\"\n", key.display())).unwrap();
}

/// All that is in the record of a daemon that has ended.
pub(super) fn entries(directory: &Path) -> Vec<Entry> {
    let log = directory.join("state/audit");
    let master = || MasterKey::read(&directory.join("audit.key")).unwrap();
    let report = verify(&log, &Check { master: Some(master()), ..Check::default() }).unwrap();
    assert!(report.is_clean(), "{report:?}");
    let keys = Keys::read(&log, &master(), None).unwrap();
    let mut all = Vec::new();
    let mut keep = |entry| {
        all.push(entry);
        ControlFlow::Continue(())
    };
    assert_eq!(
        Reader::new(&log, &keys).read(&Filter::default(), &mut keep).unwrap(),
        ControlFlow::Continue(())
    );
    all
}

pub(super) fn end(stage: Stage) -> tempfile::TempDir {
    stage.order(Order::Stop);
    stage.order(Order::Stop);
    stage.join_but_keep()
}

/// Where a record is, and its key isn't any more, nothing is served as if nobody had ever asked for one.
#[test]
fn a_record_whose_key_is_gone_keeps_the_daemon_from_starting_unless_none_is_required() {
    let place = tempfile::tempdir().unwrap();
    let open = |configured: Auditing| {
        Record::open(&configured, place.path(), Scope::User).map(|opened| opened.is_some())
    };
    let none = Auditing::default;
    assert!(!open(none()).unwrap(), "nobody asked for one");
    with_a_key(place.path());
    let with_key = || Auditing { key: place.path().join("audit.key").into(), ..none() };
    assert!(open(with_key()).unwrap());
    let error = open(none()).unwrap_err().to_string();
    assert!(error.contains("requests have been recorded here"), "{error}");
    assert!(!open(Auditing { required: Switch::Off, ..none() }).unwrap());
    assert!(open(with_key()).unwrap());
}

#[test]
fn a_request_is_written_before_it_runs_and_with_what_came_of_it_and_a_refusal_with_why() {
    let stage = Stage::new(Changes { before: Some(Box::new(with_a_key)), ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let run = client.exec(ExecRequest { argv: vec!["/bin/echo".into(), "secret".into()], ..stage.request() });
    let (launch, _) = launcher.launch();
    launcher.started_with(&launch, &[]);
    launcher.ended(run, Outcome::Exited { code: 3 });
    client.read_to_end(run, 2);
    let unknown = ExecRequest { policy: "nosuch".into(), ..stage.request() };
    assert_eq!(client.denied(unknown, &[]).reason, DenyReason::UnknownPolicy);
    let tool = Some(ToolCall { name: "none".into(), parameters: "{}".into() });
    let call = ExecRequest { tool, argv: Vec::new(), policy: String::new(), ..stage.request() };
    assert_eq!(client.denied(call, &[]).reason, DenyReason::UnknownTool);
    drop((client, launcher));
    let left = end(stage);
    let all = entries(left.path());
    let names: Vec<_> = all.iter().map(|entry| entry.event.name()).collect();
    let told: Vec<_> = names.iter().filter(|name| !name.starts_with("audit-")).copied().collect();
    assert_eq!(told, ["started", "intent", "outcome", "refused", "refused", "stopped"]);
    let uid = rustix::process::geteuid().as_raw();
    let of = |name: &'static str| all.iter().filter(move |entry| entry.event.name() == name);
    let intent = of("intent").next().unwrap();
    assert_eq!(intent.event.exec(), Some(run.to_string().as_str()));
    assert_eq!(intent.event.principal.as_ref().unwrap().uid, uid);
    assert!(
        intent.json().contains("\"policy\":\"default\"") && intent.json().contains("secret"),
        "{}",
        intent.json()
    );
    let outcome = of("outcome").next().unwrap();
    assert!(outcome.json().contains("\"outcome\":\"exited\",\"code\":3"), "{}", outcome.json());
    assert_eq!(outcome.event.exec(), intent.event.exec());
    let refused: Vec<_> = of("refused").map(Entry::json).collect();
    assert!(refused[0].contains("unknown-policy") && refused[1].contains("unknown-tool"), "{refused:?}");
    // It's sealed: whoever may read the disk reads nothing of it.
    for file in std::fs::read_dir(left.path().join("state/audit")).unwrap().flatten() {
        assert!(!std::fs::read(file.path()).unwrap().windows(6).any(|bytes| bytes == b"secret"), "{file:?}");
    }
}

#[test]
fn who_isnt_permitted_something_and_who_is_locked_out_for_it_stand_in_the_record_as_security_events() {
    let stage = breakers::stage(|directory| {
        with_a_key(directory);
        put(directory, "access.cedar", "");
    });
    let (_launcher, mut client) = (stage.launcher(), stage.client());
    for _ in 0..6 {
        client.denied(ExecRequest { policy: "nosuch".into(), ..stage.request() }, &[]);
    }
    drop(client);
    let left = end(stage);
    let all = entries(left.path());
    let of = |name: &str| all.iter().filter(|entry| entry.event.name() == name).count();
    // Five are refused by the rules, the sixth because of that.
    assert_eq!((of("not-permitted"), of("locked-out"), of("refused")), (5, 1, 6));
    let told = all.iter().find(|entry| entry.event.name() == "not-permitted").unwrap().json();
    assert!(told.contains("no-rule-permits") && told.contains("\"about\":\"nosuch\""), "{told}");
}

#[test]
fn a_run_by_a_grant_is_written_with_it_and_what_is_done_about_grants_stands_in_the_record() {
    let stage = super::grants::stage_with([super::grants::terms(Some(1))], with_a_key);
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let run = client.exec(ExecRequest { policy: "custom".into(), ..stage.request() });
    launcher.play(b"");
    client.read_to_end(run, 2);
    let id = super::grants::list(&mut client).grants[0].id.clone();
    let asked = super::grants::made(&mut client, &ClientMessage::GrantRequest(super::grants::wire()));
    for (id, yes) in [(&asked.id, Some(false)), (&id, None)] {
        let id = id.clone();
        client.say(&match yes {
            Some(yes) if rustix::process::geteuid().is_root() => ClientMessage::GrantAnswer { id, yes },
            _ => ClientMessage::GrantRevoke { id },
        });
        assert!(matches!(client.next(), ServerMessage::GrantGone { .. }));
    }
    let given = Some(GrantGiven::Command(vec!["make".into(), "all".into()]));
    let terms = GrantTerms { given, uses: Some(3), ends_runs: true, ..super::grants::wire() };
    let add = |terms| ClientMessage::GrantAdd { uid: 4_242, unit: None, terms };
    super::grants::made(&mut client, &add(terms));
    super::grants::made(&mut client, &add(GrantTerms { length_ms: 1_000, ..super::grants::wire() }));
    until("it's over", || super::grants::list(&mut client).grants.len() == 1);
    let withdrawn = super::grants::made(&mut client, &ClientMessage::GrantRequest(super::grants::wire())).id;
    client.say(&ClientMessage::GrantRevoke { id: withdrawn.clone() });
    assert!(matches!(client.next(), ServerMessage::GrantGone { .. }));
    if !rustix::process::geteuid().is_root() {
        let own = rustix::process::geteuid().as_raw();
        let add = ClientMessage::GrantAdd { uid: own, unit: None, terms: super::grants::wire() };
        super::grants::refused(&mut client, &add);
    }
    drop((client, launcher));
    let left = end(stage);
    let all = entries(left.path());
    let of = |name: &str| all.iter().find(|entry| entry.event.name() == name).map(Entry::json);
    let intent = of("intent").unwrap();
    assert!(intent.contains(&format!("\"because\":[\"grant {id}\"]")), "{intent}");
    let given = of("granted").unwrap();
    let digest = stockade_gate::grants::of_command([b"make".as_slice(), b"all"]).unwrap();
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    for part in [
        "policy custom for 60s, 3 uses, its runs end with it, with exactly `make all` (",
        &digest,
        "\"about\":\"4242\"",
    ] {
        assert!(given.contains(part), "{given}");
    }
    assert!(of("grant-over").unwrap().contains("policy custom"));
    let withdrawals = || all.iter().filter(|entry| entry.event.name() == "grant-withdrawn");
    assert!(withdrawals().any(|entry| entry.json().contains(&withdrawn)));
    let himself = of("not-permitted").is_some_and(|entry| entry.contains("to himself"));
    assert_eq!(himself, !rustix::process::geteuid().is_root());
    assert!(of("grant-revoked").unwrap().contains(&id));
    assert!(of("grant-requested").unwrap().contains("a test"));
    assert_eq!(of("grant-answered").is_some(), rustix::process::geteuid().is_root());
}

#[test]
fn a_grant_that_cant_be_recorded_is_none_unless_an_operator_has_it_otherwise() {
    for required in [true, false] {
        let stage = super::grants::stage_with([], move |directory| {
            with_a_key(directory);
            put(directory, "stockade.d/required.toml", &format!("[audit]\nrequired = {required}\n"));
        });
        let mut client = stage.client();
        let hangs = stage.directory.path().join("state/hangs");
        std::fs::write(&hangs, "").unwrap();
        let add = ClientMessage::GrantAdd { uid: 4_242, unit: None, terms: super::grants::wire() };
        client.say(&add);
        // The file of grants has a disk again by the time that it's asked for one.
        client.status();
        std::fs::remove_file(&hangs).unwrap();
        match client.next() {
            ServerMessage::Granted(_) => assert!(!required),
            ServerMessage::Denied { denied, .. } => {
                assert!(required && denied.reason == DenyReason::AuditUnavailable, "{denied:?}");
            }
            other => panic!("{other:?} instead of an answer"),
        }
        assert_eq!(super::grants::list(&mut client).grants.len(), usize::from(!required));
        drop(client);
        assert_eq!(super::grants::end(stage).len(), usize::from(!required));
    }
}

#[test]
fn a_file_of_grants_that_cant_be_used_stands_in_the_record() {
    let stage = super::grants::stage_with([], |directory| {
        with_a_key(directory);
        let state = directory.join("state");
        std::fs::remove_file(state.join("grants.sqlite")).unwrap();
        std::fs::create_dir(state.join("grants.sqlite")).unwrap();
    });
    drop((stage.launcher(), stage.client()));
    let all = entries(end(stage).path());
    let found =
        all.iter().find(|entry| entry.event.name() == "grants-unreadable").expect("it isn't recorded");
    assert!(found.json().contains("directory"), "{}", found.json());
}

#[test]
fn metrics_tell_how_the_record_does_and_a_breaker_closed_by_hand_stands_in_it() {
    let stage = breakers::stage(|directory| {
        with_a_key(directory);
        gate::breaking(directory);
    });
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    breakers::fail(&stage, &mut launcher, &mut client);
    // Two intents and two outcomes, and what the log and the daemon say at a start.
    let mut told = scrape(&stage);
    until("the outcomes are durable", || {
        told = scrape(&stage);
        told["stockade_audit_last_record"] >= 5.0
    });
    let metric = |name: &str| told[name];
    assert_eq!((metric("stockade_audit_recording"), metric("stockade_audit_writable")), (1.0, 1.0));
    assert_eq!((metric("stockade_audit_waiting"), metric("stockade_audit_refused_total")), (0.0, 0.0));
    assert!(metric("stockade_audit_syncs_total") >= 2.0);
    assert_eq!(metric("stockade_audit_lag_seconds_count"), 2.0, "one for each intent");
    assert!(metric("stockade_audit_bytes") > 100.0);
    assert!(breakers::reset(&mut client, "count").unwrap());
    drop((client, launcher));
    let left = end(stage);
    let all = entries(left.path());
    let reset = all.iter().find(|entry| entry.event.name() == "breaker-reset").expect("it isn't recorded");
    assert!(reset.json().contains("\"about\":\"count\""), "{}", reset.json());
    assert_eq!(reset.event.principal.as_ref().unwrap().uid, rustix::process::geteuid().as_raw());
}

/// A daemon whose disk hangs as long as there is that file.
pub(super) fn hanging(more: &'static str, changes: Changes) -> (Stage, std::path::PathBuf) {
    let before = move |directory: &Path| {
        with_a_key(directory);
        let file = directory.join("configuration/stockade.d/audit.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(file, text + more).unwrap();
    };
    let stage = Stage::new(Changes { before: Some(Box::new(before)), ..changes });
    let hangs = stage.directory.path().join("state/hangs");
    std::fs::write(&hangs, "").unwrap();
    (stage, hangs)
}

#[test]
fn with_a_disk_that_hangs_a_request_is_refused_after_a_while_and_runs_once_it_answers() {
    let (stage, hangs) = hanging("", Changes::default());
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let denied = client.denied(stage.request(), &[]);
    assert_eq!(denied.reason, DenyReason::AuditUnavailable);
    assert!(denied.remedy.is_some() && denied.decided.is_some(), "{denied:?}");
    std::fs::remove_file(hangs).unwrap();
    let run = client.exec(stage.request());
    assert_eq!(launcher.launch().0.exec_id, run, "the one that was refused was begun");
}

/// Killed now, it would be told of the end again by its launcher, and write it.
#[test]
fn a_launcher_knows_a_run_until_its_outcome_is_written_though_nobody_else_does() {
    let (stage, hangs) = hanging("", Changes::default());
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    for is_hanging in [false, true] {
        let _gone = std::fs::remove_file(&hangs);
        let run = client.exec(stage.request());
        let (launch, _) = launcher.launch();
        launcher.started_with(&launch, &[]);
        if is_hanging {
            std::fs::write(&hangs, "").unwrap();
        }
        launcher.ended(run, Outcome::Exited { code: 0 });
        client.read_to_end(run, 2);
        until("the run is forgotten", || client.runs().is_empty());
        let until = Instant::now() + Duration::from_secs(if is_hanging { 1 } else { 20 });
        let mut is_released = || launcher.has_released(run);
        while !is_released() && Instant::now() < until {}
        assert_eq!(is_released(), !is_hanging);
    }
}

#[test]
fn a_stop_answers_those_that_wait_for_the_disk() {
    let (stage, _hangs) = hanging("", Changes::default());
    let _launcher = stage.launcher();
    let mut client = stage.client();
    client.ask(stage.request());
    // Whatever comes behind it has been read, so it has, too.
    client.status();
    stage.order(Order::Stop);
    match client.next() {
        ServerMessage::Denied { denied, .. } => assert_eq!(denied.reason, DenyReason::Draining),
        other => panic!("{other:?} instead of a refusal"),
    }
}

#[test]
fn of_clients_that_leave_while_the_disk_hangs_only_detached_runs_begin_and_are_forgotten_in_their_time() {
    let retention = Duration::from_millis(200);
    let (stage, _hangs) = hanging("required = false\n", Changes { retention, ..Changes::default() });
    let mut launcher = stage.launcher();
    for detach in [false, true] {
        let mut client = stage.client();
        client.ask(ExecRequest { detach, ..stage.request() });
        client.status();
    }
    let (launch, _) = launcher.launch();
    assert!(launch.note.detach, "nobody waits for it, and it was begun");
    launcher.started_with(&launch, &[]);
    launcher.ended(launch.exec_id, Outcome::Exited { code: 0 });
    let mut client = stage.client();
    until("it's forgotten", || client.runs().is_empty());
    assert!(!launcher.hears_something() || !matches!(launcher.next(), ToLauncher::Launch(_)));
}

#[test]
fn of_clients_that_leave_at_once_each_intent_has_an_outcome() {
    let stage = Stage::new(Changes { before: Some(Box::new(with_a_key)), ..Changes::default() });
    let mut launcher = stage.launcher();
    let gone = 20;
    for _ in 0..gone {
        let mut client = stage.client();
        client.ask(stage.request());
        drop(client);
    }
    // Each either was begun, and is cancelled, or never was.
    let mut client = stage.client();
    let last = client.exec(stage.request());
    loop {
        match launcher.next() {
            ToLauncher::Launch(launch) if launch.exec_id == last => break,
            // Of one that was begun: told, and cancelled when its client had left.
            _ => {}
        }
    }
    // The end of the played launcher is that of the runs that it has.
    launcher.ended(last, Outcome::Exited { code: 0 });
    client.read_to_end(last, 2);
    drop((client, launcher));
    let left = end(stage);
    let all = entries(left.path());
    let count = |name: &str| all.iter().filter(|entry| entry.event.name() == name).count();
    // Of some that left not even the request was read.
    assert!(count("intent") > 0 && count("intent") <= gone + 1);
    assert_eq!(count("intent"), count("outcome"));
}

#[test]
fn without_a_key_nothing_is_written() {
    let stage = Stage::new(Changes::default());
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let run = client.exec(stage.request());
    assert_eq!(launcher.launch().0.exec_id, run);
    drop((client, launcher));
    assert!(!end(stage).path().join("state/audit").exists());
}

#[test]
fn a_key_that_others_may_read_is_none() {
    let directory = tempfile::tempdir().unwrap();
    with_a_key(directory.path());
    let key = directory.path().join("audit.key");
    let configured = Auditing { key: key.clone().into(), ..Default::default() };
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = Record::open(&configured, directory.path(), Scope::User).unwrap_err();
    assert!(refused.to_string().contains("audit.key"), "{refused}");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(Record::open(&configured, directory.path(), Scope::User).unwrap().is_some());
}
