//! What is counted of the gate, and told of how it stands.

use stockade_protocol::client::ExecRequest;
use stockade_protocol::outcome::Outcome;

use super::breakers::{PARAMETERS, fail, stage};
use super::gate::{breaking, called, put_limits, with_a_tool};
use super::metrics::scrape;
use super::stage::until;
use crate::serve::Order;

#[test]
fn metrics_count_refusals_by_stage_and_calls_by_tool_and_tell_how_breakers_and_limits_stand() {
    let stage = stage(|directory| {
        breaking(directory);
        put_limits(directory, "[policies.minimal]\nrate = \"never\"\n");
    });
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let before = scrape(&stage);
    let calls = |tool: &str, outcome: &str| {
        format!("stockade_tool_calls_total{{outcome=\"{outcome}\",tool=\"{tool}\"}}")
    };
    let breakers = |state: &str| format!("stockade_breakers{{state=\"{state}\"}}");
    assert_eq!(
        (before[&calls("count", "exited")], before[&calls("", "exited")]),
        (0.0, 0.0),
        "from the start"
    );
    assert_eq!((before["stockade_tools"], before[&breakers("closed")]), (1.0, 1.0));
    assert_eq!((before["stockade_limiter_share_ratio"], before["stockade_limiter_keys"]), (1.0, 0.0));

    fail(&stage, &mut launcher, &mut client);
    client.denied(called(&stage, "count", PARAMETERS), &[]);
    client.denied(called(&stage, "no-such-tool", PARAMETERS), &[]);
    client.denied(ExecRequest { policy: "minimal".into(), ..stage.request() }, &[]);
    // A command line is no call.
    let run = client.exec(stage.request());
    launcher.play(b"");
    client.read_to_end(run, 2);

    let after = scrape(&stage);
    let refusals = |stage: &str, reason: &str| {
        after[&format!("stockade_gate_refusals_total{{reason=\"{reason}\",stage=\"{stage}\"}}")]
    };
    assert_eq!(refusals("breaker", "breaker-open"), 1.0);
    assert_eq!(refusals("rate", "rate-limited"), 1.0);
    assert_eq!(refusals("validate", "unknown-tool"), 1.0);
    assert_eq!(refusals("validate", "bad-parameters"), 0.0);
    assert_eq!((after[&calls("count", "exited")], after[&calls("", "exited")]), (2.0, 0.0));
    assert_eq!(
        (after[&breakers("closed")], after[&breakers("open")], after[&breakers("half-open")]),
        (0.0, 1.0, 0.0)
    );
    let judged = |verdict: &str| after[&format!("stockade_gate_seconds_count{{verdict=\"{verdict}\"}}")];
    // Of a tool that there isn't another than the row says so.
    assert_eq!((judged("passed"), judged("refused")), (4.0, 2.0));
    assert!(!after.keys().any(|series| series.contains("no-such-tool")));
    // The same series: nobody has made one.
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
}

#[test]
fn a_call_whose_tool_is_gone_when_it_ends_is_counted_without_a_name() {
    let stage = stage(with_a_tool);
    let (launcher, mut client) = (&mut stage.launcher(), stage.client());
    let run = client.exec(called(&stage, "count", PARAMETERS));
    let (launch, _) = launcher.launch();
    launcher.started_with(&launch, &[]);
    std::fs::remove_file(stage.directory.path().join("configuration/tools/count.toml")).unwrap();
    stage.order(Order::Reload);
    until("reloaded", || stage.said.has(&["INFO", "tools reloaded", "count=0"]));
    launcher.ended(run, Outcome::Exited { code: 0 });
    client.read_to_end(run, 2);
    let told = scrape(&stage);
    assert_eq!(told["stockade_tool_calls_total{outcome=\"exited\",tool=\"\"}"], 1.0);
    assert!(!told.keys().any(|series| series.contains("tool=\"count\"")), "it never was known by name");
}
