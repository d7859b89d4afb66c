//! What waits until somebody has approved it. All clients are of one user here, and each of a unit of its own: `own-unit` says
//! whether they may answer for each other. Other users are in `tests/tests/approvals.rs`.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use stockade_protocol::ExecId;
use stockade_protocol::approval::{ApprovalEnd, ApprovalInput, ApprovalSummary};
use stockade_protocol::client::{ClientMessage, ExecEvent, ExecRequest, ServerMessage, StdinMode, Workspace};
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::outcome::Outcome;

use super::access::put;
use super::gate::{TOOL, called, put_tool};
use super::stage::{Before, Changes, Client, Launcher, Stage, open, until};
use super::{breakers, metrics};
use crate::serve::Order;

pub(super) const RULES: &str = "[thresholds]\nask = 50\nrefuse = 100\n\
    [[rule]]\nname = \"marked\"\nscore = 60\nreason = \"it's marked\"\nwhen = { word-matches = \"^asked$\" }\n\
    [[rule]]\nname = \"awful\"\nscore = 40\nreason = \"it's awful\"\nwhen = { word-matches = \"^awful$\" }\n";

pub(super) fn file(approval: &str) -> String {
    format!("[approval]\nown-unit = true\n{approval}{RULES}")
}

pub(super) fn stage_with(approval: &str, more: impl FnOnce(&Path) + 'static) -> Stage {
    let text = file(approval);
    let before: Before = Box::new(move |directory| {
        put(directory, "approval.toml", &text);
        more(directory);
    });
    Stage::new(Changes { before: Some(before), metrics: true, ..Changes::default() })
}

pub(super) fn stage(approval: &str) -> Stage {
    stage_with(approval, |_| {})
}

/// A command of these words, and its workspace.
pub(super) fn request(stage: &Stage, words: &[&str]) -> (ExecRequest, OwnedFd) {
    let argv = core::iter::once("/bin/true").chain(words.iter().copied()).map(Into::into).collect();
    let workspace = stage.workspace();
    let passed = open(&workspace);
    let workspace = Workspace::Descriptor { path: workspace.into() };
    (ExecRequest { argv, workspace, request_id: 77, ..stage.request() }, passed)
}

/// Asks, and waits until it's told that it has to wait.
pub(super) fn asks_for(client: &mut Client, (request, passed): (ExecRequest, OwnedFd)) -> ExecId {
    client.say_with(&ClientMessage::Exec(Box::new(request)), &[passed]);
    match client.next() {
        ServerMessage::AwaitsApproval { request_id: 77, exec_id, score: 60, factors, .. } => {
            assert_eq!(factors[0].name, "marked");
            exec_id
        }
        other => panic!("{other:?} instead of AwaitsApproval"),
    }
}

pub(super) fn asks(stage: &Stage, client: &mut Client) -> ExecId {
    asks_for(client, request(stage, &["asked"]))
}

pub(super) fn list(client: &mut Client, follow: bool) -> Vec<ApprovalSummary> {
    client.say(&ClientMessage::Approvals { follow, only: None });
    match client.next() {
        ServerMessage::Approvals { waiting, more: 0 } => waiting,
        other => panic!("{other:?} instead of a list"),
    }
}

pub(super) type Answered = Result<(u32, Option<ApprovalEnd>), Denied>;

pub(super) fn answers(client: &mut Client, exec_id: ExecId, digest: [u8; 32], approve: bool) -> Answered {
    let reason = "as the test has it".to_owned();
    client.say(&ClientMessage::Approve { exec_id, digest, approve, reason });
    match client.next() {
        ServerMessage::ApprovalAnswered { exec_id: of, missing, how } if of == exec_id => Ok((missing, how)),
        ServerMessage::Denied { request_id: 0, exec_id: Some(of), denied } if of == exec_id => Err(denied),
        other => panic!("{other:?} instead of an answer"),
    }
}

/// Answers for the only one that waits.
pub(super) fn answer(client: &mut Client, approve: bool) -> Answered {
    let waiting = list(client, false);
    assert_eq!(waiting.len(), 1);
    answers(client, waiting[0].exec_id, waiting[0].digest, approve)
}

pub(super) fn refused(client: &mut Client) -> (DenyReason, String, String) {
    match client.next() {
        ServerMessage::Denied { request_id: 77, denied, .. } => {
            let decided = denied.decided.map(|decided| (decided.stage, decided.rule)).unwrap_or_default();
            assert!(
                decided.0 == "approve" || decided.0 == "validate" || denied.reason == DenyReason::Draining
            );
            (denied.reason, decided.1, denied.message)
        }
        other => panic!("{other:?} instead of Denied"),
    }
}

pub(super) fn is_refused_by(client: &mut Client, rule: &str) {
    let (reason, by, message) = refused(client);
    assert_eq!((reason, by.as_str()), (DenyReason::NotApproved, rule), "{message}");
}

pub(super) fn runs(launcher: &mut Launcher, client: &mut Client, run: ExecId) {
    assert!(matches!(client.event(run, 1), ExecEvent::Accepted { request_id: 77 }));
    let (launch, _) = launcher.launch();
    assert_eq!(launch.exec_id, run);
    launcher.started_with(&launch, &[]);
    launcher.ended(run, Outcome::Exited { code: 0 });
    client.read_to_end(run, 2);
}

#[test]
fn what_is_risky_waits_for_a_yes_and_what_isnt_runs_at_once() {
    let stage = stage("");
    let (mut launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    let (plain, passed) = request(&stage, &["plain"]);
    let run = client.exec_with(plain, &[passed]);
    let (launch, _) = launcher.launch();
    launcher.started_with(&launch, &[]);
    launcher.ended(run, Outcome::Exited { code: 0 });
    client.read_to_end(run, 2);
    let run = asks(&stage, &mut client);
    assert!(!launcher.hears_something(), "a launcher was told of it");
    assert_eq!(other.status().approvals_waiting, 1);
    let waiting = list(&mut other, false);
    let one = &waiting[0];
    assert_eq!((one.exec_id, one.score, one.needed, one.approved), (run, 60, 1, 0));
    assert_eq!(one.argv, ["/bin/true".into(), "asked".into()]);
    assert!(one.may_answer && !one.is_cut && one.input == ApprovalInput::None);
    assert_eq!(one.workspace, stage.workspace().into());
    assert_eq!(answer(&mut other, true), Ok((0, Some(ApprovalEnd::Approved))));
    runs(&mut launcher, &mut client, run);
    assert_eq!(list(&mut other, false), []);
    let told = metrics::scrape(&stage);
    assert_eq!(told["stockade_approvals_total{how=\"approved\"}"], 1.0);
    assert_eq!(
        (told["stockade_approvals_total{how=\"late\"}"], told["stockade_approvals_waiting"]),
        (0.0, 0.0)
    );
}

#[test]
fn a_no_is_a_no_and_what_is_too_risky_nobody_is_asked_about() {
    let stage = stage("needed = 2\n");
    let (mut launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    let run = asks(&stage, &mut client);
    assert_eq!(answer(&mut stage.client(), true), Ok((1, None)));
    assert_eq!(answer(&mut other, false), Ok((0, Some(ApprovalEnd::Refused))));
    is_refused_by(&mut client, "refused");
    let late = answers(&mut other, run, [0; 32], true).unwrap_err();
    assert_eq!(late.reason, DenyReason::UnknownRun);
    let (awful, passed) = request(&stage, &["asked", "awful"]);
    client.say_with(&ClientMessage::Exec(Box::new(awful)), &[passed]);
    is_refused_by(&mut client, "approval.toml: thresholds.refuse");
    assert!(!launcher.hears_something());
}

#[test]
fn as_many_as_are_needed_have_to_say_yes_and_nobody_twice() {
    let stage = stage("needed = 2\n");
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let (mut one, mut other) = (stage.client(), stage.client());
    asks(&stage, &mut client);
    assert_eq!(answer(&mut one, true), Ok((1, None)));
    // All are of one user, in whatever unit.
    for client in [&mut one, &mut other] {
        assert!(!list(client, false)[0].may_answer);
        let denied = answer(client, true).unwrap_err();
        assert_eq!(
            (denied.reason, denied.decided.unwrap().rule.as_str()),
            (DenyReason::NotPermitted, "needed")
        );
    }
    assert!(!launcher.hears_something());
    assert_eq!(list(&mut one, false)[0].approved, 1);
    assert_eq!(answer(&mut one, false), Ok((0, Some(ApprovalEnd::Refused))), "he may think better of it");
    is_refused_by(&mut client, "refused");
}

#[test]
fn nobody_answers_for_himself_nor_from_another_unit_where_the_file_doesnt_say_so() {
    for (own_unit, others) in [(true, true), (false, false)] {
        let text = RULES.to_owned();
        let before: Before = Box::new(move |directory| {
            put(directory, "approval.toml", &format!("[approval]\nown-unit = {own_unit}\n{text}"));
        });
        let stage = Stage::new(Changes { before: Some(before), ..Changes::default() });
        let (mut launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
        let run = asks(&stage, &mut client);
        assert!(!list(&mut client, false)[0].may_answer);
        for approve in [true, false] {
            let denied = answer(&mut client, approve).unwrap_err();
            let decided = denied.decided.unwrap();
            assert_eq!((denied.reason, decided.rule.as_str()), (DenyReason::NotPermitted, "own"));
        }
        assert_eq!(list(&mut other, false)[0].may_answer, others);
        assert_eq!(answer(&mut other, true).is_ok(), others);
        if others {
            runs(&mut launcher, &mut client, run);
        } else {
            assert!(!launcher.hears_something());
        }
    }
}

#[test]
fn an_answer_is_about_a_digest_and_the_digest_about_all_that_would_run() {
    let stage = stage("");
    let (mut launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    let changed: [&dyn Fn(&mut ExecRequest); 8] = [
        &|_| {},
        &|request| request.argv.push("more".into()),
        &|request| request.environment.push(("LANG".into(), "C".into())),
        &|request| request.cwd = stage.workspace().join("sub").into(),
        &|request| request.policy = "strict".into(),
        &|request| request.overrides.wall_ms = Some(1_000),
        &|request| request.stdin = StdinMode::Inline("x".into()),
        &|request| request.stdin = StdinMode::Inline("y".into()),
    ];
    std::fs::create_dir(stage.workspace().join("sub")).unwrap();
    let mut digests = Vec::new();
    for change in changed {
        let (mut asked, passed) = request(&stage, &["asked"]);
        change(&mut asked);
        let run = asks_for(&mut client, (asked, passed));
        let one = list(&mut other, false).into_iter().find(|one| one.exec_id == run).unwrap();
        digests.push((run, one.digest));
    }
    let mut different: Vec<_> = digests.iter().map(|(_, digest)| digest).collect();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), digests.len(), "two that aren't the same have one digest");
    // What one was approved by is no approval of another.
    let (run, _) = digests[0];
    for (_, digest) in &digests[1..] {
        let denied = answers(&mut other, run, *digest, true).unwrap_err();
        assert_eq!(
            (denied.reason, denied.decided.unwrap().rule.as_str()),
            (DenyReason::BadRequest, "digest")
        );
    }
    assert!(!launcher.hears_something());
    let (run, digest) = digests[1];
    answers(&mut other, run, digest, true).unwrap();
    runs(&mut launcher, &mut client, run);
}

#[test]
fn what_runs_is_shown_with_its_variables_limits_and_files_and_without_what_is_secret() {
    let policy = "extends = \"default\"\n[environment]\nallow = [\"TOOL\", \"MY_TOKEN\", \"HIDDEN\"]\n\
        [output]\nsecrets = [\"HIDDEN\"]\n";
    let before = file("");
    let stage = Stage::new(Changes {
        before: Some(Box::new(move |directory| put(directory, "approval.toml", &before))),
        policy: Some(policy),
        ..Changes::default()
    });
    let (_launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    let (mut asked, passed) = request(&stage, &["asked"]);
    let variables = [("TOOL", "--require ./x"), ("MY_TOKEN", "very-secret"), ("HIDDEN", "as secret")];
    asked.environment = variables.map(|(name, value)| (name.into(), value.into())).to_vec();
    (asked.policy, asked.overrides.wall_ms) = ("custom".into(), Some(1_500));
    asked.output = stockade_protocol::client::OutputMode::Descriptor;
    let path = stage.workspace().join("out");
    let output = || OwnedFd::from(std::fs::File::create(&path).unwrap());
    client.say_with(&ClientMessage::Exec(Box::new(asked)), &[passed, output(), output()]);
    assert!(matches!(client.next(), ServerMessage::AwaitsApproval { .. }));
    let one = list(&mut other, false).remove(0);
    let shown: std::collections::HashMap<_, _> = one
        .environment
        .iter()
        .zip(&one.values)
        .map(|(name, value)| (name.to_text(), value.clone()))
        .collect();
    assert_eq!(shown["TOOL"], Some("--require ./x".into()));
    assert_eq!((&shown["MY_TOKEN"], &shown["HIDDEN"]), (&None, &None));
    assert_eq!((one.overrides.wall_ms, one.overrides.memory), (Some(1_500), None));
    assert_eq!(one.output, [path.as_path().into(), path.as_path().into()]);
    assert_eq!((one.whole.words, one.whole.argv, one.is_cut), (2, 14, false));
    assert!(!format!("{one:?}").contains("secret"), "{one:?}");
}

/// As long as a request's summary can be.
fn longest(stage: &Stage, byte: u8) -> (ExecRequest, Vec<OwnedFd>) {
    let long = |length: usize| stockade_protocol::Bytes(vec![byte; length]);
    let (mut asked, _) = request(stage, &["asked"]);
    asked.argv.push(long(20_000));
    (asked.policy, asked.environment) = ("custom".into(), vec![("TOOL".into(), long(20_000))]);
    asked.stdin = StdinMode::Inline(long(20_000));
    let mut deep = stage.workspace();
    for _ in 0..14 {
        deep.push("d".repeat(250));
    }
    std::fs::create_dir_all(&deep).unwrap();
    asked.cwd = deep.as_path().into();
    asked.workspace = Workspace::Descriptor { path: deep.as_path().into() };
    asked.output = stockade_protocol::client::OutputMode::Descriptor;
    let output = || OwnedFd::from(std::fs::File::create(deep.join("out")).unwrap());
    (asked, vec![open(&deep), output(), output()])
}

#[test]
fn however_long_requests_are_all_are_listed_and_each_can_be_seen_as_long_as_may_be() {
    let approval = "[approval]\nown-unit = true\n[thresholds]\nask = 50\n[[rule]]\nname = \"marked\"\nscore = 60\n\
        reason = \"it's marked\"\nwhen = { policy = [\"custom\", \"default\"] }\n";
    let stage = Stage::new(Changes {
        before: Some(Box::new(move |directory| put(directory, "approval.toml", approval))),
        policy: Some("extends = \"default\"\n[environment]\nallow = [\"TOOL\"]\n"),
        ..Changes::default()
    });
    let (_launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    let mut runs = Vec::new();
    for number in 0..16 {
        let (asked, passed) = if number < 15 {
            longest(&stage, b'a' + number)
        } else {
            let (asked, passed) = request(&stage, &["asked"]);
            (asked, vec![passed])
        };
        client.say_with(&ClientMessage::Exec(Box::new(asked)), &passed);
        match client.next() {
            ServerMessage::AwaitsApproval { exec_id, .. } => runs.push(exec_id),
            told => panic!("{told:?}"),
        }
    }
    // A frame has less room than they would take.
    let listed = list(&mut other, false);
    assert_eq!(listed.iter().map(|one| one.exec_id).collect::<Vec<_>>(), runs);
    assert!(
        listed[..15].iter().all(|one| one.is_cut && one.argv[2].len() < 5_000 && one.whole.argv > 20_000)
    );
    assert!(!listed[15].is_cut, "the newest isn't hidden, nor cut");
    other.say(&ClientMessage::Approvals { follow: false, only: Some(runs[3]) });
    let ServerMessage::Approvals { waiting, more: 0 } = other.next() else { panic!("no list") };
    assert_eq!(waiting[0].argv.iter().map(|word| word.len() + 8).sum::<usize>(), 16 * 1_024);
    assert_eq!(waiting[0].digest, listed[3].digest);
}

#[test]
fn one_that_waits_can_be_asked_for_by_its_number() {
    let stage = stage("");
    let (_launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    let (one, two) = (asks(&stage, &mut client), asks(&stage, &mut client));
    for run in [one, two] {
        other.say(&ClientMessage::Approvals { follow: false, only: Some(run) });
        let ServerMessage::Approvals { waiting, more: 0 } = other.next() else { panic!("no list") };
        assert_eq!(waiting.iter().map(|one| one.exec_id).collect::<Vec<_>>(), [run]);
    }
    other.say(&ClientMessage::Approvals { follow: false, only: Some(ExecId::from_bytes([1; 16])) });
    assert_eq!(other.next(), ServerMessage::Approvals { waiting: Vec::new(), more: 0 });
}

#[test]
fn nobody_who_answers_in_time_is_a_no() {
    let stage = stage("within = \"1s\"\n");
    let (mut launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    let began = Instant::now();
    let run = asks(&stage, &mut client);
    let digest = list(&mut other, false)[0].digest;
    is_refused_by(&mut client, "within");
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(answers(&mut other, run, digest, true).unwrap_err().reason, DenyReason::UnknownRun);
    assert!(!launcher.hears_something());
    assert_eq!(other.status().approvals_waiting, 0);
}

#[test]
fn what_is_cancelled_or_whose_client_leaves_waits_no_more_but_what_is_detached_does() {
    let stage = stage("");
    let (mut launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    let run = asks(&stage, &mut client);
    client.say(&ClientMessage::Cancel { exec_id: run });
    is_refused_by(&mut client, "cancelled");
    let run = asks(&stage, &mut client);
    client.say(&ClientMessage::Signal { exec_id: run, signal: 15 });
    is_refused_by(&mut client, "cancelled");
    asks(&stage, &mut client);
    drop(client);
    until("withdrawn", || list(&mut other, false).is_empty());
    let mut client = stage.client();
    let (asked, passed) = request(&stage, &["asked"]);
    let run = asks_for(&mut client, (ExecRequest { detach: true, ..asked }, passed));
    drop(client);
    until("gone", || other.status().connections == 1);
    assert!(!launcher.hears_something());
    assert_eq!(answer(&mut other, true), Ok((0, Some(ApprovalEnd::Approved))));
    assert_eq!(launcher.launch().0.exec_id, run);
}

#[test]
fn files_that_were_read_again_and_a_directory_that_was_moved_make_a_yes_no_yes() {
    let stage = stage("");
    let (mut launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    let mut changed = |client: &mut Client, rule| {
        assert_eq!(answer(&mut other, true), Ok((0, Some(ApprovalEnd::Changed))));
        is_refused_by(client, rule);
    };
    asks(&stage, &mut client);
    stage.order(Order::Reload);
    until("reloaded", || stage.said.count("policies reloaded") > 0);
    changed(&mut client, "reload");
    // Another directory under the same name.
    asks(&stage, &mut client);
    let (workspace, away) = (stage.workspace(), stage.directory.path().join("away"));
    std::fs::rename(&workspace, &away).unwrap();
    std::fs::create_dir(&workspace).unwrap();
    changed(&mut client, "workspace");
    asks(&stage, &mut client);
    std::fs::remove_dir(&workspace).unwrap();
    changed(&mut client, "workspace");
    assert!(!launcher.hears_something());
    // As it was: it runs.
    let run = asks(&stage, &mut client);
    assert_eq!(answer(&mut other, true), Ok((0, Some(ApprovalEnd::Approved))));
    runs(&mut launcher, &mut client, run);
}

#[test]
fn a_tool_whose_program_was_replaced_while_it_waited_isnt_run() {
    let stage = stage_with("", |directory| {
        let program = directory.join("program");
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let digest = stockade_gate::tools::executable::digest_of(&program).unwrap();
        let line = format!("program = \"{}\"\nsha256 = \"{digest}\"", program.display());
        put_tool(directory, "count.toml", &TOOL.replace("program = \"/usr/bin/wc\"", &line));
        let rule = "[[rule]]\nname = \"marked\"\nscore = 60\nreason = \"x\"\nwhen = { tool = [\"count\"] }\n";
        put(
            directory,
            "approval.toml",
            &format!("[approval]\nown-unit = true\n[thresholds]\nask = 50\n{rule}"),
        );
    });
    let (mut launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    let call = || {
        let workspace = stage.workspace();
        let passed = open(&workspace);
        let workspace = Workspace::Descriptor { path: workspace.into() };
        let call = called(&stage, "count", breakers::PARAMETERS);
        (ExecRequest { workspace, request_id: 77, ..call }, passed)
    };
    asks_for(&mut client, call());
    let one = list(&mut other, false).remove(0);
    assert_eq!((one.tool.as_deref(), one.parameters), (Some("count"), Some(breakers::PARAMETERS.into())));
    let program = stage.directory.path().join("program");
    std::fs::write(&program, "#!/bin/sh\nother\n").unwrap();
    assert_eq!(answer(&mut other, true), Ok((0, Some(ApprovalEnd::Changed))));
    assert_eq!(refused(&mut client).0, DenyReason::ToolChanged);
    assert!(!launcher.hears_something());
    std::fs::write(&program, "#!/bin/sh\n").unwrap();
    stage.order(Order::Reload);
    until("reloaded", || stage.said.count("policies reloaded") > 0);
    let run = asks_for(&mut client, call());
    assert_eq!(answer(&mut other, true), Ok((0, Some(ApprovalEnd::Approved))));
    runs(&mut launcher, &mut client, run);
}

#[test]
fn a_daemon_that_ends_refuses_what_waits_and_nothing_comes_to_wait() {
    let stage = stage("");
    let (mut launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    let (plain, passed) = request(&stage, &["plain"]);
    let run = other.exec_with(plain, &[passed]);
    let (launch, _) = launcher.launch();
    launcher.started_with(&launch, &[]);
    asks(&stage, &mut client);
    stage.order(Order::Stop);
    assert_eq!(refused(&mut client).0, DenyReason::Draining);
    let (asked, passed) = request(&stage, &["asked"]);
    client.say_with(&ClientMessage::Exec(Box::new(asked)), &[passed]);
    assert_eq!(refused(&mut client).0, DenyReason::Draining);
    launcher.ended(run, Outcome::Exited { code: 0 });
}

#[test]
fn only_so_many_of_one_user_wait() {
    let stage = stage("");
    let (_launcher, mut client) = (stage.launcher(), stage.client());
    for _ in 0..16 {
        asks(&stage, &mut client);
    }
    let (asked, passed) = request(&stage, &["asked"]);
    client.say_with(&ClientMessage::Exec(Box::new(asked)), &[passed]);
    assert_eq!(refused(&mut client).0, DenyReason::Busy);
    let one = list(&mut client, false).remove(0);
    client.say(&ClientMessage::Cancel { exec_id: one.exec_id });
    is_refused_by(&mut client, "cancelled");
    asks(&stage, &mut client);
}

#[test]
fn who_follows_is_told_of_each_and_of_its_end_and_of_nothing_that_he_may_not_know_any_more() {
    let stage = stage("");
    let (_launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    let mut never = stage.client();
    assert_eq!(list(&mut other, true), []);
    let run = asks(&stage, &mut client);
    match other.next() {
        ServerMessage::ApprovalAsked(one) => assert_eq!(one.exec_id, run),
        told => panic!("{told:?}"),
    }
    client.say(&ClientMessage::Cancel { exec_id: run });
    is_refused_by(&mut client, "cancelled");
    assert_eq!(other.next(), ServerMessage::ApprovalOver { exec_id: run, how: ApprovalEnd::Withdrawn });
    assert!(never.hears_nothing());
    put(stage.directory.path(), "roles.toml", "");
    stage.order(Order::Reload);
    until("reloaded", || stage.said.count("policies reloaded") > 0);
    asks(&stage, &mut client);
    assert_eq!(other.next(), ServerMessage::ApprovalsMissed);
    client.say(&ClientMessage::Approvals { follow: true, only: None });
    let ServerMessage::Denied { denied, .. } = client.next() else { panic!("he may") };
    assert_eq!(denied.reason, DenyReason::NotPermitted);
    assert!(other.hears_nothing());
}
