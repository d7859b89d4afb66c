//! Breakers as an operator sees and closes them, and how the gate stands in the status.

use std::path::Path;

use stockade_protocol::bounds::MAX_OFTEN_WRONG;
use stockade_protocol::client::{BreakerState, BreakerSummary, ClientMessage, LimitPressure, ServerMessage};
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::outcome::Outcome;

use super::gate::{TOOL, breaking, called, put_limits, put_tool};
use super::stage::{Before, Changes, Client, Launcher, Stage, until};
use crate::serve::Order;

pub(super) const PARAMETERS: &str = r#"{"paths":["a"]}"#;

pub(super) fn stage(before: impl FnOnce(&Path) + 'static) -> Stage {
    let before: Before = Box::new(before);
    Stage::new(Changes { before: Some(before), metrics: true, ..Changes::default() })
}

/// Calls the tool, which ends so.
fn call(stage: &Stage, launcher: &mut Launcher, client: &mut Client, outcome: Outcome) {
    let run = client.exec(called(stage, "count", PARAMETERS));
    let (launch, _) = launcher.launch();
    launcher.started_with(&launch, &[]);
    launcher.ended(run, outcome);
    client.read_to_end(run, 2);
}

/// Calls it until its breaker opens.
pub(super) fn fail(stage: &Stage, launcher: &mut Launcher, client: &mut Client) {
    for _ in 0..2 {
        call(stage, launcher, client, Outcome::Exited { code: 3 });
    }
}

fn list(client: &mut Client) -> Vec<BreakerSummary> {
    client.say(&ClientMessage::Breakers);
    match client.next() {
        ServerMessage::Breakers(breakers) => breakers,
        other => panic!("{other:?} instead of breakers"),
    }
}

pub(super) fn reset(client: &mut Client, tool: &str) -> Result<bool, Denied> {
    client.say(&ClientMessage::ResetBreaker { tool: tool.into() });
    match client.next() {
        ServerMessage::BreakerReset { tool: of, changed } if of == tool => Ok(changed),
        ServerMessage::Denied { request_id: 0, exec_id: None, denied } => Err(denied),
        other => panic!("{other:?} instead of an answer"),
    }
}

#[test]
fn a_breaker_is_listed_once_it_knows_something_and_a_reset_lets_calls_pass_and_is_written_down() {
    let stage = stage(breaking);
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    assert_eq!(list(&mut client), []);
    call(&stage, &mut launcher, &mut client, Outcome::Exited { code: 3 });
    let known = list(&mut client);
    assert_eq!(known.len(), 1);
    let closed = BreakerSummary {
        tool: "count".into(),
        state: BreakerState::Closed,
        retry_after_ms: None,
        failures: 1,
        outcomes: 1,
        opened: 0,
        probes: 0,
    };
    assert_eq!(known[0], closed);
    // One thing has happened and is written; that it's forgotten nothing else has told.
    let written = stage.directory.path().join("state/breakers.json");
    let has_count = || std::fs::read_to_string(&written).ok().map(|text| text.contains("count"));
    until("written", || has_count() == Some(true));
    assert_eq!(reset(&mut client, "count"), Ok(true));
    until("forgotten", || has_count() == Some(false));
    fail(&stage, &mut launcher, &mut client);
    let open = client.denied(called(&stage, "count", PARAMETERS), &[]);
    assert_eq!(open.reason, DenyReason::BreakerOpen);
    assert!(open.remedy.unwrap().contains("`stockade breaker reset count`"));
    let known = list(&mut client).remove(0);
    assert_eq!((known.state, known.opened, known.outcomes), (BreakerState::Open, 1, 0));
    assert!(known.retry_after_ms.is_some_and(|after| after > 3_000_000), "{known:?}");
    assert_eq!(reset(&mut client, "count"), Ok(true));
    assert_eq!(list(&mut client), []);
    assert_eq!(reset(&mut client, "count"), Ok(false));
    call(&stage, &mut launcher, &mut client, Outcome::Exited { code: 0 });
}

#[test]
fn a_tool_that_isnt_known_is_told_with_the_nearest_and_one_that_is_gone_can_be_reset() {
    let stage = stage(breaking);
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let unknown = reset(&mut client, "cuont").unwrap_err();
    assert_eq!(unknown.reason, DenyReason::UnknownTool);
    assert!(unknown.message.contains("the nearest are: count"), "{unknown}");
    assert!(reset(&mut client, &"x".repeat(1 << 16)).unwrap_err().message.len() < 400);
    fail(&stage, &mut launcher, &mut client);
    std::fs::remove_file(stage.directory.path().join("configuration/tools/count.toml")).unwrap();
    stage.order(Order::Reload);
    until("reloaded", || stage.said.has(&["INFO", "tools reloaded", "count=0"]));
    assert_eq!(list(&mut client)[0].state, BreakerState::Open);
    assert_eq!((client.status().tools, client.status().breakers_open), (0, 1));
    assert_eq!(reset(&mut client, "count"), Ok(true));
    assert_eq!(reset(&mut client, "count").unwrap_err().reason, DenyReason::UnknownTool);
}

#[test]
fn the_status_says_how_the_gate_stands() {
    let stage = stage(breaking);
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let status = client.status();
    assert_eq!((status.tools, status.limiter, status.breakers_open), (1, None, 0));
    fail(&stage, &mut launcher, &mut client);
    let status = client.status();
    assert_eq!((status.breakers_open, status.breakers_half_open), (1, 0));
    // Limits that move with the runs that go on, of which there is one.
    put_limits(stage.directory.path(), "[rate]\neach = \"60/m\"\n[adaptive]\nruns = 1\nceiling = 200\n");
    stage.order(Order::Reload);
    until("reloaded", || stage.said.has(&["INFO", "tools reloaded"]));
    let limiter = client.status().limiter.unwrap();
    assert_eq!((limiter.share, limiter.keys), (2_000_000, 0));
    let run = client.exec(stage.request());
    let (launch, _) = launcher.launch();
    assert_eq!(launch.exec_id, run);
    let mut last = limiter;
    until("pressure", || {
        last = client.status().limiter.unwrap();
        last.pressure == LimitPressure::High && last.share < 2_000_000
    });
    assert!(last.share >= 250_000, "{last:?}");
}

#[test]
fn the_status_names_what_is_often_got_wrong_the_most_frequent_first_and_not_all_of_it() {
    let stage = stage(|directory| {
        for name in (0..=MAX_OFTEN_WRONG).map(|at| format!("tool-{at}")) {
            put_tool(directory, &format!("{name}.toml"), &TOOL.replace("\"count\"", &format!("\"{name}\"")));
        }
    });
    let _launcher = stage.launcher();
    let mut client = stage.client();
    let secret = "secret-that-was-sent";
    let wrong = |client: &mut Client, tool: usize, times: usize| {
        let parameters = format!("{{\"paths\":\"{secret}\"}}");
        for _ in 0..times {
            let denied = client.denied(called(&stage, &format!("tool-{tool}"), &parameters), &[]);
            assert_eq!(denied.reason, DenyReason::BadParameters);
        }
    };
    // One too few to be often.
    wrong(&mut client, 0, 4);
    for tool in 1..=MAX_OFTEN_WRONG {
        wrong(&mut client, tool, 5);
    }
    wrong(&mut client, 3, 2);
    let often = client.status().often_wrong;
    assert_eq!(often.len(), MAX_OFTEN_WRONG);
    assert_eq!((often[0].tool.as_str(), often[0].count), ("tool-3", 7));
    assert_eq!(often[0].rule, "/properties/paths/type");
    assert!(often.iter().all(|one| one.tool != "tool-0" && !one.rule.contains(secret)), "{often:?}");
    wrong(&mut client, 0, 1);
    assert_eq!(client.status().often_wrong.len(), MAX_OFTEN_WRONG, "it's bounded");
}
