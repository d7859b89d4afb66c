//! Grants, from what is asked to what runs and what is on disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use stockade_gate::grants::{Grant, GrantId, Terms, What, Whom};
use stockade_protocol::ExecId;
use stockade_protocol::client::{ClientMessage, ExecRequest, ServerMessage};
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::grants::{GrantList, GrantSummary, GrantTerms, GrantWhat};
use stockade_protocol::launch::ToLauncher;
use stockade_protocol::outcome::{CancelReason, Outcome};

use super::access::put;
use super::metrics::scrape;
use super::stage::{Changes, Client, Launcher, Stage, until};
use crate::grants::{clocks, put_beforehand};
use crate::serve::Order;

const HOUR: Duration = Duration::from_secs(3600);

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

pub(super) fn terms(uses: Option<u32>) -> Terms {
    Terms {
        what: What::Policy("custom".into()),
        given: None,
        length: HOUR,
        uses,
        ends_runs: false,
        why: "a test".into(),
    }
}

fn granted(number: u8, terms: Terms) -> Grant {
    let to = Whom { uid: uid(), unit: None };
    Grant::new(GrantId([number; 16]), to, terms, 0, clocks::now()).unwrap()
}

/// A daemon with rules that permit no run under its policy, and grants that it finds.
fn stage(grants: impl IntoIterator<Item = Terms> + 'static, changes: Changes) -> Stage {
    stage_of(grants, |_| {}, changes)
}

/// The same, with something else before it starts.
pub(super) fn stage_with(
    grants: impl IntoIterator<Item = Terms> + 'static,
    more: impl FnOnce(&Path) + 'static,
) -> Stage {
    stage_of(grants, more, Changes::default())
}

fn stage_of(
    grants: impl IntoIterator<Item = Terms> + 'static,
    more: impl FnOnce(&Path) + 'static,
    changes: Changes,
) -> Stage {
    let before = move |directory: &Path| {
        put(directory, "roles.toml", &format!("[roles.approver]\nusers = [\"{}\"]\n", uid()));
        put_beforehand(&state(directory), (1..).zip(grants).map(|(number, terms)| granted(number, terms)));
        more(directory);
    };
    let before: Option<super::stage::Before> = Some(Box::new(before));
    Stage::new(Changes { before, policy: Some("extends = \"strict\"\n"), metrics: true, ..changes })
}

/// The directory of its state.
fn state(directory: &Path) -> PathBuf {
    let state = directory.join("state");
    std::fs::create_dir_all(&state).unwrap();
    std::fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    state
}

/// Stops the daemon; what the next one would find.
pub(super) fn end(stage: Stage) -> Vec<Grant> {
    stage.order(Order::Stop);
    stage.order(Order::Stop);
    let left = stage.join_but_keep();
    crate::grants::open(&left.path().join("state"), crate::paths::Scope::of(uid())).unwrap().held().to_vec()
}

/// Has a disk that takes nothing, until what is given is removed.
pub(super) fn fails(stage: &Stage) -> PathBuf {
    let fails = stage.directory.path().join("state/fails");
    std::fs::write(&fails, "").unwrap();
    fails
}

fn custom(stage: &Stage) -> ExecRequest {
    ExecRequest { policy: "custom".into(), ..stage.request() }
}

pub(super) fn list(client: &mut Client) -> GrantList {
    client.say(&ClientMessage::Grants);
    match client.next() {
        ServerMessage::Grants(list) => *list,
        other => panic!("{other:?} instead of grants"),
    }
}

fn left(client: &mut Client) -> Vec<Option<u32>> {
    list(client).grants.iter().map(|grant| grant.uses_left).collect()
}

/// Asks for something that isn't done.
pub(super) fn refused(client: &mut Client, message: &ClientMessage) -> Denied {
    client.say(message);
    match client.next() {
        ServerMessage::Denied { request_id: 0, exec_id: None, denied } => denied,
        other => panic!("{other:?} instead of Denied"),
    }
}

pub(super) fn made(client: &mut Client, message: &ClientMessage) -> GrantSummary {
    client.say(message);
    match client.next() {
        ServerMessage::Granted(made) => *made,
        other => panic!("{other:?} instead of a grant"),
    }
}

pub(super) fn wire() -> GrantTerms {
    GrantTerms {
        what: GrantWhat::Policy("custom".into()),
        given: None,
        length_ms: 60_000,
        uses: None,
        ends_runs: false,
        why: "a test".into(),
    }
}

fn play(stage: &Stage, launcher: &mut Launcher, client: &mut Client) {
    let run = client.exec(custom(stage));
    launcher.play(b"");
    client.read_to_end(run, 2);
}

#[test]
fn a_grant_lets_as_many_runs_through_as_it_has_uses_and_what_never_began_takes_none() {
    let stage = stage([terms(Some(2))], Changes::default());
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    play(&stage, &mut launcher, &mut client);
    assert_eq!(left(&mut client), [Some(1)]);
    // Let through, and no request that admission takes.
    let bad = ExecRequest { argv: Vec::new(), ..custom(&stage) };
    assert_eq!(client.denied(bad, &[]).reason, DenyReason::BadRequest);
    assert_eq!(left(&mut client), [Some(1)]);
    play(&stage, &mut launcher, &mut client);
    assert_eq!(left(&mut client), [Some(0)]);
    let denied = client.denied(custom(&stage), &[]);
    assert_eq!(denied.decided.unwrap().rule, "no-rule-permits");
    assert!(denied.remedy.unwrap().contains("stockade grant request --policy NAME"));
    assert!(!launcher.hears_something());
    let told = scrape(&stage);
    assert_eq!((told["stockade_grants"], told["stockade_grant_requests"]), (1.0, 0.0));
    assert_eq!(told["stockade_grant_events_total{event=\"redeemed\"}"], 2.0);
    assert_eq!(told["stockade_grant_events_total{event=\"revoked\"}"], 0.0, "from the start");
}

fn hangs(stage: &Stage) -> PathBuf {
    let hangs = stage.directory.path().join("state/hangs");
    std::fs::write(&hangs, "").unwrap();
    hangs
}

#[test]
fn with_a_disk_that_hangs_no_use_is_taken_and_grants_without_number_go_on() {
    let tool = Terms { what: What::Tool("none".into()), ..terms(None) };
    let stage = stage([terms(Some(1)), tool], Changes::default());
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let hangs = hangs(&stage);
    let denied = client.denied(custom(&stage), &[]);
    assert_eq!(denied.reason, DenyReason::Unavailable);
    assert!(!launcher.hears_something() && denied.remedy.is_some());
    assert_eq!(left(&mut client), [Some(1), None]);
    std::fs::remove_file(hangs).unwrap();
    play(&stage, &mut launcher, &mut client);
    assert_eq!(left(&mut client), [Some(0), None]);
}

#[test]
fn what_is_refused_behind_a_grant_costs_the_disk_nothing() {
    let stage = stage([terms(Some(2))], Changes::default());
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    play(&stage, &mut launcher, &mut client);
    let log = stage.directory.path().join("state/grants.sqlite-wal");
    let before = log.metadata().unwrap().modified().unwrap();
    for _ in 0..20 {
        let bad = ExecRequest { argv: Vec::new(), ..custom(&stage) };
        assert_eq!(client.denied(bad, &[]).reason, DenyReason::BadRequest);
    }
    // Longer than what nobody waits for is kept back.
    std::thread::park_timeout(Duration::from_millis(300));
    assert_eq!(log.metadata().unwrap().modified().unwrap(), before);
    assert_eq!(left(&mut client), [Some(1)]);
}

#[test]
fn a_grant_without_number_waits_for_no_disk() {
    let stage = stage([terms(None)], Changes::default());
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    hangs(&stage);
    play(&stage, &mut launcher, &mut client);
}

#[test]
fn a_stop_answers_those_that_wait_and_who_has_left_takes_no_use() {
    let stage = stage([terms(Some(1))], Changes::default());
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let hangs = hangs(&stage);
    let mut other = stage.client();
    other.ask(custom(&stage));
    other.status();
    drop(other);
    until("the use is given back", || left(&mut client) == [Some(1)]);
    assert!(!launcher.hears_something(), "nobody waits for it, and it was begun");
    client.ask(custom(&stage));
    client.status();
    assert_eq!(left(&mut client), [Some(0)]);
    stage.order(Order::Stop);
    match client.next() {
        ServerMessage::Denied { denied, .. } => assert_eq!(denied.reason, DenyReason::Draining),
        other => panic!("{other:?} instead of a refusal"),
    }
    drop(hangs);
}

#[test]
fn a_run_ends_with_its_grant_where_that_says_so_and_goes_on_where_not() {
    for ends_runs in [true, false] {
        let short = Terms { length: Duration::from_secs(2), ends_runs, ..terms(None) };
        let stage = stage([short], Changes::default());
        let (mut launcher, mut client) = (stage.launcher(), stage.client());
        let run = client.exec(custom(&stage));
        let (launch, _) = launcher.launch();
        assert_eq!(launch.note.grant.unwrap().ends_run, ends_runs);
        launcher.started_with(&launch, &[]);
        if ends_runs {
            match launcher.next() {
                ToLauncher::Cancel { exec_id, reason } => {
                    assert_eq!((exec_id, reason), (run, CancelReason::GrantOver));
                }
                other => panic!("{other:?} instead of Cancel"),
            }
            launcher.ended(run, Outcome::Cancelled { reason: CancelReason::GrantOver });
            assert_eq!(scrape(&stage)["stockade_grant_events_total{event=\"ended-run\"}"], 1.0);
        } else {
            until("it's over", || list(&mut stage.client()).grants.is_empty());
            assert!(!launcher.hears_something());
            launcher.ended(run, Outcome::Exited { code: 0 });
        }
        client.read_to_end(run, 2);
        assert_eq!(client.denied(custom(&stage), &[]).reason, DenyReason::NotPermitted, "it's over");
    }
}

#[test]
fn a_revoked_grant_holds_no_more_and_its_runs_end() {
    let ends = Terms { ends_runs: true, ..terms(None) };
    let stage = stage([ends], Changes::default());
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let run = client.exec(custom(&stage));
    let (launch, _) = launcher.launch();
    launcher.started_with(&launch, &[]);
    client.event(run, 2);
    let id = list(&mut client).grants[0].id.clone();
    client.say(&ClientMessage::GrantRevoke { id: id.clone() });
    match client.next() {
        ServerMessage::GrantGone { id: of, runs } => assert_eq!((of, runs), (id.clone(), 1)),
        other => panic!("{other:?} instead of GrantGone"),
    }
    assert!(matches!(launcher.next(), ToLauncher::Cancel { reason: CancelReason::GrantOver, .. }));
    assert_eq!(refused(&mut client, &ClientMessage::GrantRevoke { id }).reason, DenyReason::BadRequest);
    assert_eq!(client.denied(custom(&stage), &[]).reason, DenyReason::NotPermitted);
    assert_eq!(end(stage), [], "it would hold again after a restart");
}

#[test]
fn nobody_gives_to_himself_or_answers_his_own_request_but_root() {
    let stage = stage([], Changes::default());
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let add = ClientMessage::GrantAdd { uid: uid(), unit: None, terms: wire() };
    let asked = made(&mut client, &ClientMessage::GrantRequest(wire()));
    assert_eq!((asked.by, asked.uid), (None, uid()));
    assert_eq!(list(&mut client).requests, std::slice::from_ref(&asked));
    let answer = ClientMessage::GrantAnswer { id: asked.id.clone(), yes: true };
    if uid() == 0 {
        let given = made(&mut client, &answer);
        assert_eq!(given.by, Some(0));
        assert_ne!(given.id, asked.id, "another answer is another grant");
        let both = list(&mut client);
        assert_eq!((both.grants.len(), both.requests.len()), (1, 0));
        play(&stage, &mut launcher, &mut client);
        let counted = GrantTerms { uses: Some(5), ..wire() };
        let add = ClientMessage::GrantAdd { uid: 4_242, unit: Some("x.service".into()), terms: counted };
        assert_eq!(made(&mut client, &add).uses_left, Some(5));
        assert_eq!(client.status().grants, 2);
    } else {
        for message in [add, answer] {
            let denied = refused(&mut client, &message);
            assert_eq!(denied.reason, DenyReason::NotPermitted);
            assert!(denied.message.contains("to himself"), "{denied:?}");
        }
        let revoke = ClientMessage::GrantRevoke { id: asked.id };
        client.say(&revoke);
        assert!(matches!(client.next(), ServerMessage::GrantGone { runs: 0, .. }));
        let add = ClientMessage::GrantAdd { uid: uid() + 1, unit: None, terms: wire() };
        assert_eq!(made(&mut client, &add).by, Some(uid()));
        assert!(client.denied(custom(&stage), &[]).message.contains("no grant does"), "it's another's");
    }
}

#[test]
fn a_grant_that_comes_too_late_is_none_and_takes_no_later_one_with_it() {
    let stage = stage([], Changes::default());
    let mut client = stage.client();
    let asked = made(&mut client, &ClientMessage::GrantRequest(wire()));
    let give = if uid() == 0 {
        ClientMessage::GrantAnswer { id: asked.id, yes: true }
    } else {
        ClientMessage::GrantAdd { uid: 4_242, unit: None, terms: wire() }
    };
    let hangs = hangs(&stage);
    let denied = refused(&mut client, &give);
    assert_eq!(denied.reason, DenyReason::Unavailable);
    assert!(denied.message.contains("doesn't hold") && denied.message.contains("restart"), "{denied:?}");
    client.say(&give);
    client.status();
    std::fs::remove_file(&hangs).unwrap();
    assert!(matches!(client.next(), ServerMessage::Granted(_)));
    let all = list(&mut client);
    assert_eq!((all.grants.len(), all.requests.len()), (1, usize::from(uid() != 0)));
    drop(client);
    let left: Vec<String> =
        end(stage).iter().map(|grant| ExecId::from_bytes(grant.id.0).to_string()).collect();
    assert_eq!(left, [all.grants[0].id.clone()], "the second is there, and the first isn't");
}

#[test]
fn a_request_that_is_withdrawn_while_it_is_answered_makes_no_grant() {
    if uid() != 0 {
        return;
    }
    let stage = stage([], Changes::default());
    let (mut client, mut other) = (stage.client(), stage.client());
    let id = made(&mut client, &ClientMessage::GrantRequest(wire())).id;
    let hangs = hangs(&stage);
    other.say(&ClientMessage::GrantAnswer { id: id.clone(), yes: true });
    other.status();
    client.say(&ClientMessage::GrantRevoke { id: id.clone() });
    client.status();
    std::fs::remove_file(hangs).unwrap();
    match other.next() {
        ServerMessage::Denied { denied, .. } => assert!(denied.message.contains("withdrawn"), "{denied:?}"),
        other => panic!("{other:?} instead of a refusal"),
    }
    match client.next() {
        ServerMessage::GrantGone { id: of, runs } => assert_eq!((of, runs), (id, 0)),
        other => panic!("{other:?} instead of GrantGone"),
    }
    let all = list(&mut client);
    assert_eq!((all.grants.len(), all.requests.len()), (0, 0));
    drop((client, other));
    assert_eq!(end(stage), []);
}

#[test]
fn a_yes_is_to_what_was_asked_for_and_not_to_what_files_say_by_now() {
    if uid() != 0 {
        return;
    }
    let stage = stage([], Changes::default());
    let mut client = stage.client();
    let strange = GrantTerms { what: GrantWhat::Policy("later".into()), ..wire() };
    let unknown = made(&mut client, &ClientMessage::GrantRequest(strange)).id;
    let before_reload = made(&mut client, &ClientMessage::GrantRequest(wire())).id;
    let yes = |id| ClientMessage::GrantAnswer { id, yes: true };
    assert_eq!(refused(&mut client, &yes(unknown.clone())).reason, DenyReason::UnknownPolicy);
    std::fs::write(stage.directory.path().join("policies/later.toml"), "extends = \"strict\"\n").unwrap();
    let reloads = || stage.said.count("policies reloaded");
    let before = reloads();
    stage.order(Order::Reload);
    until("reloaded", || reloads() > before);
    for id in [unknown, before_reload] {
        let denied = refused(&mut client, &yes(id.clone()));
        assert!(denied.message.contains("read its files again"), "{denied:?}");
        assert!(refused(&mut client, &yes(id)).message.contains("no such request"));
    }
    assert_eq!(list(&mut client).grants, []);
}

#[test]
fn what_cant_be_granted_is_refused_with_why_and_what_would_help() {
    let stage = stage([], Changes::default());
    let mut client = stage.client();
    let add = |terms: GrantTerms| ClientMessage::GrantAdd { uid: 4_242, unit: None, terms };
    let tool = |name: &str| GrantWhat::Tool(name.into());
    let command = Some(stockade_protocol::grants::GrantGiven::Command(vec!["x".into()]));
    let huge = Some(stockade_protocol::grants::GrantGiven::Command(vec![vec![b'x'; 20_000].into()]));
    let table = [
        (GrantTerms { length_ms: 0, ..wire() }, DenyReason::BadRequest, "1 second to 24 hours"),
        (GrantTerms { length_ms: 86_400_001, ..wire() }, DenyReason::BadRequest, "1 second to 24 hours"),
        (GrantTerms { uses: Some(0), ..wire() }, DenyReason::BadRequest, "uses"),
        (GrantTerms { why: String::new(), ..wire() }, DenyReason::BadRequest, "reason"),
        (
            GrantTerms { what: GrantWhat::Policy("cutsom".into()), ..wire() },
            DenyReason::UnknownPolicy,
            "cutsom",
        ),
        (GrantTerms { what: tool("none"), ..wire() }, DenyReason::UnknownTool, "none"),
        (GrantTerms { what: tool("none"), given: command, ..wire() }, DenyReason::BadRequest, "goes with"),
        (GrantTerms { given: huge, ..wire() }, DenyReason::BadRequest, "exactly"),
    ];
    for (terms, reason, text) in table {
        let denied = refused(&mut client, &add(terms));
        assert_eq!(denied.reason, reason, "{denied:?}");
        assert!(denied.message.contains(text), "{denied:?}");
    }
    for id in ["", "x", "018f2d5e-7a10-7c3b-9d44-5a610ef28399"] {
        let revoke = ClientMessage::GrantRevoke { id: id.into() };
        assert_eq!(refused(&mut client, &revoke).reason, DenyReason::BadRequest);
    }
    for _ in 0..16 {
        made(&mut client, &ClientMessage::GrantRequest(wire()));
    }
    assert_eq!(refused(&mut client, &ClientMessage::GrantRequest(wire())).reason, DenyReason::Busy);
    let none = Stage::new(Changes::default());
    let mut client = none.client();
    for message in [add(wire()), ClientMessage::GrantRequest(wire())] {
        let denied = refused(&mut client, &message);
        assert_eq!(denied.reason, DenyReason::Unsupported);
        assert!(denied.remedy.unwrap().contains("roles.toml"));
    }
    assert!(!none.directory.path().join("state/grants.sqlite").exists());
}

#[test]
fn who_may_neither_grant_nor_approve_is_refused_alike_whether_there_is_one_or_not() {
    // Everything but the roles.
    let stage = stage([terms(None)], Changes::default());
    let mut client = stage.client();
    let id = list(&mut client).grants[0].id.clone();
    put(stage.directory.path(), "roles.toml", "");
    put(stage.directory.path(), "limits.toml", "[lockout]\nrefusals = 0\n");
    let reloads = || stage.said.count("policies reloaded");
    let before = reloads();
    stage.order(Order::Reload);
    until("reloaded", || reloads() > before);
    let other = "018f2d5e-7a10-7c3b-9d44-5a610ef28399";
    let revoke = |id: &str| ClientMessage::GrantRevoke { id: id.into() };
    let answer = |id: &str| ClientMessage::GrantAnswer { id: id.into(), yes: true };
    let add = ClientMessage::GrantAdd { uid: 4_242, unit: None, terms: wire() };
    for message in [revoke(other), answer(other), answer(&id), add] {
        let denied = refused(&mut client, &message);
        assert_eq!(denied.reason, DenyReason::NotPermitted, "{denied:?}");
    }
    // His own he sees and gives back all the same.
    assert_eq!(list(&mut client).grants.len(), 1);
    client.say(&revoke(&id));
    assert!(matches!(client.next(), ServerMessage::GrantGone { .. }));
}

#[test]
fn where_the_file_can_be_read_and_not_written_at_the_start_what_it_has_holds_and_is_written_when_it_can() {
    let ends = Terms { what: What::Policy("custom".into()), ends_runs: true, ..terms(None) };
    let stage =
        stage_with([ends, Terms { what: What::Tool("none".into()), ..terms(Some(3)) }], |directory| {
            let file = rusqlite::Connection::open(state(directory).join("grants.sqlite")).unwrap();
            let text = "create trigger full before insert on held begin select raise(abort, 'full'); end";
            file.execute(text, []).unwrap();
        });
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    assert_eq!(left(&mut client), [None, Some(3)]);
    play(&stage, &mut launcher, &mut client);
    let add = ClientMessage::GrantAdd { uid: 4_242, unit: None, terms: wire() };
    assert_eq!(refused(&mut client, &add).reason, DenyReason::Unavailable);
    drop((client, launcher));
    let again = end(stage);
    assert_eq!(again.iter().map(|grant| grant.id).collect::<Vec<_>>(), [GrantId([1; 16]), GrantId([2; 16])]);
}

#[test]
fn a_damaged_file_is_set_aside_no_grant_of_it_holds_and_the_daemon_serves() {
    let before = |directory: &Path| {
        put(directory, "roles.toml", "");
        let state = state(directory);
        put_beforehand(&state, [granted(1, terms(None))]);
        std::fs::write(state.join("grants.sqlite"), "no database ".repeat(1000)).unwrap();
    };
    let stage = Stage::new(Changes {
        before: Some(Box::new(before)),
        policy: Some("extends = \"strict\"\n"),
        ..Changes::default()
    });
    let (_launcher, mut client) = (stage.launcher(), stage.client());
    assert!(stage.directory.path().join("state/grants.sqlite.damaged").exists());
    assert_eq!(client.denied(custom(&stage), &[]).reason, DenyReason::NotPermitted);
}
