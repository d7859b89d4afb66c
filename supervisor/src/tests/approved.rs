//! Approvals and what they meet: reloads, rules of access, the record, lock-outs, figures, other stages, grants.

use std::time::{Duration, Instant};

use stockade_gate::{
    Ask, Asked, Ending, Given, Moment, Reason, Refusal, Row, Stage as GateStage, StageName, Verdict,
};
use stockade_protocol::ExecId;
use stockade_protocol::approval::ApprovalEnd;
use stockade_protocol::client::{ClientMessage, ExecRequest, ServerMessage};
use stockade_protocol::denied::DenyReason;

use super::access::put;
use super::approvals::*;
use super::stage::{Before, Changes, Client, Stage, until};
use super::{grants, metrics, record};
use crate::serve::Order;

#[test]
fn a_reload_after_which_nobody_would_be_asked_is_none() {
    let stage = stage("");
    let (_launcher, mut client) = (stage.launcher(), stage.client());
    let directory = stage.directory.path().join("configuration");
    let mut refused = |text: &str| {
        let before = stage.said.count(text);
        stage.order(Order::Reload);
        until("refused", || stage.said.count(text) > before);
        let run = asks(&stage, &mut client);
        client.say(&ClientMessage::Cancel { exec_id: run });
        is_refused_by(&mut client, "cancelled");
    };
    std::fs::remove_file(directory.join("approval.toml")).unwrap();
    refused("has anybody asked first any more");
    put(stage.directory.path(), "approval.toml", "[approval]\nneeded = 1\n");
    refused("has anybody asked first any more");
    put(stage.directory.path(), "approval.toml", "# nothing\n");
    refused("it has nothing in it");
    // The twin: other rules may take their place.
    put(stage.directory.path(), "approval.toml", &file("within = \"9s\"\n"));
    stage.order(Order::Reload);
    until("reloaded", || stage.said.count("policies reloaded") > 0);
}

#[test]
fn a_reload_that_takes_away_who_has_to_be_asked_by_rules_of_access_is_none() {
    let asks =
        "@approve(\"new\")\npermit (principal, action == Action::\"run\", resource == Policy::\"strict\");";
    let stage = Stage::new(Changes {
        before: Some(Box::new(move |directory| {
            put(directory, "roles.toml", "");
            put(directory, "access.cedar", asks);
        })),
        ..Changes::default()
    });
    let _launcher = stage.launcher();
    put(stage.directory.path(), "access.cedar", "");
    stage.order(Order::Reload);
    until("refused", || stage.said.count("has anybody asked first any more") > 0);
    assert_eq!(stage.said.count("policies reloaded"), 0);
}

#[test]
fn a_permit_that_asks_has_somebody_asked_and_rules_say_who_answers() {
    let uid = rustix::process::geteuid().as_raw();
    let roles = move |roles: &[&str]| -> String {
        roles.iter().map(|role| format!("[roles.{role}]\nusers = [\"{uid}\"]\n")).collect()
    };
    let with_approver = roles(&["approver"]);
    let stage = stage_with("", move |directory| {
        put(directory, "approval.toml", "[approval]\nown-unit = true\n");
        put(directory, "roles.toml", "");
        let rule = "@id(\"looked-at\")\n@approve(\"it is new here\")\npermit (principal, action == Action::\"run\", resource == Policy::\"strict\");";
        put(directory, "access.cedar", rule);
    });
    let (mut launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    let strict = || {
        let (request, passed) = request(&stage, &["x"]);
        (ExecRequest { policy: "strict".into(), ..request }, passed)
    };
    let asks = |client: &mut Client| {
        let (request, passed) = strict();
        client.say_with(&ClientMessage::Exec(Box::new(request)), &[passed]);
        match client.next() {
            ServerMessage::AwaitsApproval { exec_id, score: 0, factors, .. } => {
                assert_eq!(factors[0].name, "looked-at (access.cedar:1)");
                assert_eq!((factors[0].score, factors[0].reason.as_str()), (None, "it is new here"));
                exec_id
            }
            other => panic!("{other:?} instead of AwaitsApproval"),
        }
    };
    asks(&mut client);
    other.say(&ClientMessage::Approvals { follow: false, only: None });
    let ServerMessage::Denied { denied, .. } = other.next() else { panic!("he may") };
    assert_eq!(denied.reason, DenyReason::NotPermitted);
    put(stage.directory.path(), "roles.toml", &with_approver);
    stage.order(Order::Reload);
    until("reloaded", || stage.said.count("policies reloaded") > 0);
    assert_eq!(answer(&mut other, true), Ok((0, Some(ApprovalEnd::Changed))));
    is_refused_by(&mut client, "reload");
    let run = asks(&mut client);
    assert_eq!(answer(&mut other, true), Ok((0, Some(ApprovalEnd::Approved))));
    runs(&mut launcher, &mut client, run);
}

#[test]
fn each_question_and_each_answer_stands_in_the_record_before_the_run_and_a_refusal_with_its_factors() {
    let stage = stage_with("", record::with_a_key);
    let (mut launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    let run = asks(&stage, &mut client);
    let digest = list(&mut other, false)[0].digest;
    assert_eq!(answers(&mut other, run, [1; 32], true).unwrap_err().reason, DenyReason::BadRequest);
    answers(&mut other, run, digest, true).unwrap();
    runs(&mut launcher, &mut client, run);
    asks(&stage, &mut client);
    answer(&mut other, false).unwrap();
    is_refused_by(&mut client, "refused");
    drop((client, other, launcher));
    let left = record::end(stage);
    let all = record::entries(left.path());
    let told: Vec<_> =
        all.iter().map(|entry| entry.event.name()).filter(|name| !name.starts_with("audit-")).collect();
    let expected = [
        "started",
        "approval-asked",
        "not-permitted",
        "approved",
        "intent",
        "outcome",
        "approval-asked",
        "not-approved",
        "refused",
        "stopped",
    ];
    assert_eq!(told, expected);
    let json = |name: &str| all.iter().find(|entry| entry.event.name() == name).unwrap().json();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(
        json("approval-asked").contains("marked (+60): it's marked") && json("approval-asked").contains(&hex)
    );
    // The run's own entry says by whom, and of what.
    let uid = rustix::process::geteuid().as_raw();
    let intent = json("intent");
    assert!(intent.contains(&format!("\"approved by {uid}+")), "{intent}");
    assert!(intent.contains(&format!("\"approved as {hex}\"")), "{intent}");
    let asked = format!("as the test has it; asked by user {uid} because of marked (+60)");
    assert!(json("approved").contains(&asked), "{}", json("approved"));
    assert!(json("approved").contains("as the test has it") && json("approved").contains(&hex));
    assert!(json("refused").contains("\"stage\":\"approve\"") && json("refused").contains("not-approved"));
}

#[test]
fn who_is_refused_by_people_again_and_again_is_locked_out_and_who_gives_up_isnt() {
    let uid = rustix::process::geteuid().as_raw();
    let stage = stage_with("", move |directory| {
        let roles = format!("[roles.approver]\nusers = [\"{uid}\"]\n[roles.admin]\nusers = [\"{uid}\"]\n");
        put(directory, "roles.toml", &roles);
        put(directory, "limits.toml", "[lockout]\nrefusals = 2\n");
    });
    let (_launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    for _ in 0..3 {
        let run = asks(&stage, &mut client);
        client.say(&ClientMessage::Cancel { exec_id: run });
        is_refused_by(&mut client, "cancelled");
    }
    for _ in 0..2 {
        asks(&stage, &mut client);
        assert_eq!(answer(&mut other, false), Ok((0, Some(ApprovalEnd::Refused))));
        is_refused_by(&mut client, "refused");
    }
    let (asked, passed) = request(&stage, &["asked"]);
    assert_eq!(client.denied(asked, &[passed]).reason, DenyReason::LockedOut);
    assert_eq!(stage.said.count("somebody was refused too often"), 1);
}

#[test]
fn what_somebody_thinks_is_no_part_of_how_long_a_run_takes_to_begin() {
    let stage = stage("");
    let (mut launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    let run = asks(&stage, &mut client);
    let asked = Instant::now();
    until("thought about", || asked.elapsed() >= Duration::from_secs(2));
    answer(&mut other, true).unwrap();
    runs(&mut launcher, &mut client, run);
    let told = metrics::scrape(&stage);
    assert!(told["stockade_approval_wait_seconds_sum"] >= 2.0, "{told:?}");
    for part in ["stockade_run_start_seconds_sum", "stockade_run_setup_seconds_sum{stage=\"queue\"}"] {
        assert!(told[part] < 2.0, "{part}: {}", told[part]);
    }
}

/// Has somebody asked about all but those who want to know what it has heard of ends.
#[derive(Default)]
struct Asking {
    heard: Vec<Ending>,
    waited: usize,
}

impl GateStage for Asking {
    fn name(&self) -> StageName {
        StageName::Breaker
    }

    fn judge(&mut self, asked: &Asked<'_>) -> Result<Verdict, Refusal> {
        match asked.given {
            Given::Command(words) if words.last().is_some_and(|word| word == b"heard") => {
                Err(Refusal::new(self.name(), Reason::BreakerOpen, "test", format!("{:?}", self.heard)))
            }
            _ => Ok(Verdict::Ask(Ask { score: 60, ..Ask::by("marked", "it's a test") })),
        }
    }

    fn waits(&mut self, _run: u128, _tool: Option<&str>) {
        self.waited += 1;
    }

    fn goes_on(&mut self, _run: u128, _tool: Option<&str>, _at: Moment) -> Result<(), Refusal> {
        if self.waited > 1 {
            return Ok(());
        }
        let refusal = Refusal::new(self.name(), Reason::BreakerOpen, "test", "it's open by now");
        Err(refusal.retry_after(Duration::from_secs(7)))
    }

    fn ended(&mut self, _run: u128, _tool: Option<&str>, ending: Ending, _at: Moment) {
        self.heard.push(ending);
    }
}

#[test]
fn what_was_approved_is_looked_at_again_by_stages_that_may_have_changed_their_mind() {
    let row: fn() -> Row = || Row::new(vec![Box::new(Asking::default())]);
    let before: Before = Box::new(|directory| put(directory, "approval.toml", &file("")));
    let stage = Stage::new(Changes { row: Some(row), before: Some(before), ..Changes::default() });
    let (mut launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    asks(&stage, &mut client);
    assert_eq!(answer(&mut other, true), Ok((0, Some(ApprovalEnd::Changed))));
    match client.next() {
        ServerMessage::Denied { request_id: 77, denied, .. } => {
            assert_eq!((denied.reason, denied.retry_after_ms), (DenyReason::BreakerOpen, Some(7_000)));
        }
        told => panic!("{told:?}"),
    }
    assert!(!launcher.hears_something());
    let run = asks(&stage, &mut client);
    assert_eq!(answer(&mut other, true), Ok((0, Some(ApprovalEnd::Approved))));
    runs(&mut launcher, &mut client, run);
}

#[test]
fn what_a_stage_took_for_what_is_never_approved_is_given_back() {
    let row: fn() -> Row = || Row::new(vec![Box::new(Asking::default())]);
    let stage = Stage::new(Changes { row: Some(row), ..Changes::default() });
    let (_launcher, mut client) = (stage.launcher(), stage.client());
    let heard = |client: &mut Client| {
        let (request, passed) = request(&stage, &["heard"]);
        client.denied(request, &[passed]).message
    };
    let run = asks(&stage, &mut client);
    assert_eq!(heard(&mut client), "[]", "it waits: a probe that has begun");
    client.say(&ClientMessage::Cancel { exec_id: run });
    is_refused_by(&mut client, "cancelled");
    assert_eq!(heard(&mut client), "[Neither]");
}

/// Who may only by a grant, and is asked about for risk.
fn granted_stage(uses: Option<u32>) -> Stage {
    grants::stage_with([grants::terms(uses)], |directory| put(directory, "approval.toml", &file("")))
}

fn asks_under_a_grant(stage: &Stage, client: &mut Client) -> ExecId {
    let (asked, passed) = request(stage, &["asked"]);
    asks_for(client, (ExecRequest { policy: "custom".into(), ..asked }, passed))
}

fn left(client: &mut Client) -> Option<u32> {
    grants::list(client).grants[0].uses_left
}

#[test]
fn what_a_grant_lets_through_is_asked_about_all_the_same_and_takes_a_use_only_with_a_yes() {
    let stage = granted_stage(Some(2));
    let (mut launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    asks_under_a_grant(&stage, &mut client);
    assert_eq!(left(&mut other), Some(1), "it may not be used by another while it waits");
    assert_eq!(answer(&mut other, false), Ok((0, Some(ApprovalEnd::Refused))));
    is_refused_by(&mut client, "refused");
    assert_eq!(left(&mut other), Some(2));
    let run = asks_under_a_grant(&stage, &mut client);
    client.say(&ClientMessage::Cancel { exec_id: run });
    is_refused_by(&mut client, "cancelled");
    assert_eq!(left(&mut other), Some(2));
    let run = asks_under_a_grant(&stage, &mut client);
    assert_eq!(answer(&mut other, true), Ok((0, Some(ApprovalEnd::Approved))));
    runs(&mut launcher, &mut client, run);
    assert_eq!(left(&mut other), Some(1));
}

#[test]
fn a_use_that_was_taken_before_somebody_was_asked_is_on_disk_before_its_run_whatever_was_lost_meanwhile() {
    let stage = granted_stage(Some(2));
    let (mut launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    let fails = grants::fails(&stage);
    let run = asks_under_a_grant(&stage, &mut client);
    // Whatever was to be written before this has been tried.
    let add = ClientMessage::GrantAdd { uid: 4_242, unit: None, terms: grants::wire() };
    assert_eq!(grants::refused(&mut other, &add).reason, DenyReason::Unavailable);
    std::fs::remove_file(fails).unwrap();
    assert_eq!(answer(&mut other, true), Ok((0, Some(ApprovalEnd::Approved))));
    runs(&mut launcher, &mut client, run);
    drop((launcher, client, other));
    let left = grants::end(stage);
    assert_eq!(left[0].uses.unwrap().left, 1, "it would be had twice");
}

#[test]
fn a_grant_that_is_gone_by_then_makes_a_yes_no_yes() {
    for uses in [None, Some(1)] {
        let stage = granted_stage(uses);
        let (mut launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
        asks_under_a_grant(&stage, &mut client);
        let id = grants::list(&mut other).grants[0].id.clone();
        other.say(&ClientMessage::GrantRevoke { id });
        assert!(matches!(other.next(), ServerMessage::GrantGone { runs: 0, .. }));
        assert_eq!(answer(&mut other, true), Ok((0, Some(ApprovalEnd::Changed))));
        is_refused_by(&mut client, "grant");
        assert!(!launcher.hears_something());
    }
}
