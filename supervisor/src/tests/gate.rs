//! Requests and the gate's row.

use std::cell::RefCell;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};

use stockade_gate::{
    Asked, Ending, Given, Moment, Reason, Refusal, Row, Stage as GateStage, StageName, Verdict,
};
use stockade_protocol::Bytes;
use stockade_protocol::client::{ClientMessage, ExecRequest, StdinMode, ToolCall};
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::launch::ToLauncher;
use stockade_protocol::outcome::{CancelReason, Clock, Outcome};

use super::stage::{Changes, Client, Stage, until};
use crate::serve::Order;

/// Refuses a command that is told to be refused, and answers others with what it has heard of ends, once there is one.
#[derive(Default)]
struct Choosy {
    passed: Vec<u128>,
    heard: RefCell<Vec<(usize, Ending)>>,
}

impl GateStage for Choosy {
    fn name(&self) -> StageName {
        StageName::Access
    }

    fn judge(&mut self, asked: &Asked<'_>) -> Result<Verdict, Refusal> {
        let Given::Command(words) = asked.given else { panic!("{:?}", asked.given) };
        let last = words.last().unwrap();
        let refuse =
            |message: String| Refusal::new(self.name(), Reason::NotPermitted, "test.toml:3", message);
        match last.as_slice() {
            b"refused" => Err(refuse(format!("{} may not", asked.policy.unwrap())).remedy("ask another")),
            b"heard" => Err(refuse(format!("{:?}", self.heard.borrow()))),
            _ => {
                self.passed.push(asked.run);
                Ok(Verdict::Pass)
            }
        }
    }

    fn ended(&mut self, run: u128, _tool: Option<&str>, ending: Ending, _at: Moment) {
        let which = self.passed.iter().position(|passed| *passed == run).expect("one that never passed");
        self.heard.borrow_mut().push((which, ending));
    }
}

/// The stage and the rule that refused.
fn decided(denied: &Denied) -> (&str, &str) {
    let decided = denied.decided.as_ref().expect("nobody has decided");
    (&decided.stage, &decided.rule)
}

fn row() -> Row {
    Row::new(vec![Box::new(Choosy::default())])
}

#[test]
fn what_a_stage_refuses_is_told_with_stage_and_rule_and_reaches_no_launcher() {
    let stage = Stage::new(Changes { row: Some(row), ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let asking = |word: &str| ExecRequest { argv: vec!["/bin/true".into(), word.into()], ..stage.request() };
    let denied = client.denied(asking("refused"), &[]);
    assert_eq!((denied.reason, denied.message.as_str()), (DenyReason::NotPermitted, "default may not"));
    assert_eq!(decided(&denied), ("access", "test.toml:3"));
    assert_eq!(denied.remedy.as_deref(), Some("ask another"));
    let run = client.exec(asking("permitted"));
    let (launch, _) = launcher.launch();
    assert_eq!(launch.exec_id, run, "another one came before it");
    launcher.started_with(&launch, &[]);
    launcher.ended(run, Outcome::Exited { code: 1 });
    client.read_to_end(run, 2);
    // What passed and was refused later ended, too: by nobody's fault.
    assert_eq!(
        client.denied(ExecRequest { policy: "nosuch".into(), ..asking("permitted") }, &[]).reason,
        DenyReason::UnknownPolicy
    );
    let heard = client.denied(asking("heard"), &[]).message;
    assert_eq!(heard, format!("{:?}", [(0, Ending::Failure), (1, Ending::Neither)]));
}

pub(super) const TOOL: &str = r#"
name = "count"
description = "Counts lines."
version = "1.0.0"
policy = "strict"
failures = [3]
[command]
program = "/usr/bin/wc"
arguments = ["--lines", "--", "{paths:text...,option}"]
[parameters]
type = "object"
required = ["paths"]
additionalProperties = false
properties.paths = { type = "array", items = { type = "string", maxLength = 20 } }
[limits]
wall-time = "5s"
memory = "64MiB"
"#;

/// Puts a tool's file where the daemon looks, before it starts or while it runs.
pub(super) fn put_tool(directory: &std::path::Path, name: &str, text: &str) {
    let tools = directory.join("configuration/tools");
    std::fs::create_dir_all(&tools).unwrap();
    std::fs::write(tools.join(name), text).unwrap();
}

pub(super) fn with_a_tool(directory: &std::path::Path) {
    put_tool(directory, "count.toml", TOOL);
}

pub(super) fn called(stage: &Stage, name: &str, parameters: &str) -> ExecRequest {
    let tool = Some(ToolCall { name: name.into(), parameters: parameters.into() });
    ExecRequest { tool, argv: Vec::new(), policy: String::new(), ..stage.request() }
}

#[test]
fn a_call_is_the_tools_command_under_the_tools_policy_and_limits() {
    let stage = Stage::new(Changes { before: Some(Box::new(with_a_tool)), ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let mut asked = called(&stage, "count", r#"{"paths":["a b","-x"]}"#);
    // Tighter than the tool's file: it stays.
    asked.overrides.wall_ms = Some(1_000);
    let run = client.exec(asked);
    let (launch, _) = launcher.launch();
    assert_eq!(launch.exec_id, run);
    let words: Vec<String> = launch.argv.iter().map(Bytes::to_text).collect();
    assert_eq!(words, ["/usr/bin/wc", "--lines", "--", "a b", "-x"]);
    assert_eq!(launch.note.policy, "strict");
    let spec = launcher.spec(&launch);
    assert_eq!((spec.limits.wall_ms, spec.limits.memory), (Some(1_000), Some(64 << 20)));
}

/// What a run opens itself nobody counts on its way.
#[test]
fn a_file_as_standard_input_is_refused_where_the_policy_limits_that_and_opened_where_it_doesnt() {
    let tool = TOOL
        .replace("\"strict\"", "\"custom\"")
        .replace("program = ", "stdin = \"{file:file}\"\nprogram = ")
        .replace("\"--\", \"{paths:text...,option}\"", "\"-\"")
        .replace(
            "properties.paths = { type = \"array\", items = { type = \"string\", maxLength = 20 } }",
            "properties.file = { type = \"string\", format = \"workspace-path\" }",
        )
        .replace("\"paths\"", "\"file\"");
    for (policy, is_refused) in [
        ("extends = \"default\"\n[limits]\nstdin = \"1KiB\"\n", true),
        ("extends = \"default\"\n[limits]\nstdin = \"none\"\n", false),
    ] {
        let tool = tool.clone();
        let before = move |directory: &std::path::Path| put_tool(directory, "count.toml", &tool);
        let changes = Changes { before: Some(Box::new(before)), policy: Some(policy), ..Changes::default() };
        let stage = Stage::new(changes);
        let mut launcher = stage.launcher();
        let mut client = stage.client();
        let asked = called(&stage, "count", r#"{"file":"below/it"}"#);
        if is_refused {
            let denied = client.denied(asked, &[]);
            assert_eq!(denied.reason, DenyReason::Policy);
            assert!(denied.message.contains("nobody counts the bytes"), "{denied:?}");
        } else {
            client.exec(asked);
            let (launch, _) = launcher.launch();
            let opened: Vec<_> =
                launch.openings.iter().map(|opening| (opening.number, opening.path.to_text())).collect();
            assert_eq!((opened, launch.stdin_passed), (vec![(0, "below/it".to_owned())], false));
        }
    }
}

#[test]
fn a_call_that_is_wrong_is_refused_with_where_and_why() {
    let stage = Stage::new(Changes { before: Some(Box::new(with_a_tool)), ..Changes::default() });
    let _launcher = stage.launcher();
    let mut client = stage.client();
    let mut denied = |request: ExecRequest| client.denied(request, &[]);
    let unknown = denied(called(&stage, "cuont", "{}"));
    assert_eq!(unknown.reason, DenyReason::UnknownTool);
    assert!(unknown.message.contains("count"), "{unknown}");
    for (parameters, said) in [
        ("{", "the whole"),
        ("[]", "object"),
        ("{}", "paths"),
        (r#"{"paths":[1]}"#, "/paths/0"),
        (r#"{"paths":["a"],"more":1}"#, "more"),
        (r#"{"paths":["a"],"paths":["b"]}"#, "paths"),
        (r#"{"paths":["aaaaaaaaaaaaaaaaaaaaa"]}"#, "/paths/0"),
        ("{\"paths\":[\"a\u{202e}b\"]}", "/paths/0"),
    ] {
        let refused = denied(called(&stage, "count", parameters));
        assert_eq!(refused.reason, DenyReason::BadParameters, "{parameters}: {refused}");
        assert!(refused.message.contains(said), "{parameters}: {refused}");
        let (by, rule) = decided(&refused);
        assert!(by == "validate" && rule.starts_with("count.toml"), "{parameters}: {refused:?}");
    }
    let good = r#"{"paths":["a"]}"#;
    for request in [
        ExecRequest { argv: vec!["sh".into()], ..called(&stage, "count", good) },
        ExecRequest { policy: "minimal".into(), ..called(&stage, "count", good) },
        ExecRequest { stdin: StdinMode::Stream, ..called(&stage, "count", good) },
    ] {
        assert_eq!(denied(request).reason, DenyReason::BadRequest);
    }
    client.exec(called(&stage, "count", good));
}

#[test]
fn tools_are_read_again_all_or_none_of_them() {
    let stage = Stage::new(Changes { before: Some(Box::new(with_a_tool)), ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    put_tool(stage.directory.path(), "count.toml", &TOOL.replace("--lines", "--words"));
    put_tool(stage.directory.path(), "bad.toml", "name = 3\n");
    stage.order(Order::Reload);
    until("refused", || stage.said.has(&["ERROR", "stay", "the gate's files are bad", "bad.toml:1:"]));
    client.exec(called(&stage, "count", r#"{"paths":["a"]}"#));
    assert_eq!(launcher.launch().0.argv[1].to_text(), "--lines");
    std::fs::remove_file(stage.directory.path().join("configuration/tools/bad.toml")).unwrap();
    stage.order(Order::Reload);
    until("reloaded", || stage.said.has(&["INFO", "tools reloaded", "count=1"]));
    client.exec(called(&stage, "count", r#"{"paths":["a"]}"#));
    assert_eq!(launcher.launch().0.argv[1].to_text(), "--words");
    // Gone, it's unknown.
    std::fs::remove_file(stage.directory.path().join("configuration/tools/count.toml")).unwrap();
    stage.order(Order::Reload);
    until("reloaded", || stage.said.has(&["INFO", "tools reloaded", "count=0"]));
    let gone = client.denied(called(&stage, "count", r#"{"paths":["a"]}"#), &[]);
    assert_eq!(gone.reason, DenyReason::UnknownTool);
}

#[test]
fn a_tool_under_a_policy_that_there_isnt_is_a_mistake_and_nothing_is_reloaded() {
    let stage = Stage::new(Changes { before: Some(Box::new(with_a_tool)), ..Changes::default() });
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    put_tool(stage.directory.path(), "count.toml", &TOOL.replace("\"strict\"", "\"strcit\""));
    stage.order(Order::Reload);
    let wrong = "count.toml:5:10: there is no policy `strcit`; did you mean `strict`?";
    until("refused", || stage.said.has(&["ERROR", "stay", "the gate's files are bad", wrong]));
    client.exec(called(&stage, "count", r#"{"paths":["a"]}"#));
    assert_eq!(launcher.launch().0.argv[1].to_text(), "--lines");
    put_tool(stage.directory.path(), "count.toml", &TOOL.replace("\"strict\"", "\"default\""));
    stage.order(Order::Reload);
    until("reloaded", || stage.said.has(&["INFO", "tools reloaded", "count=1"]));
}

#[test]
fn what_admission_refuses_of_a_policy_that_there_isnt_says_who_has_decided() {
    let stage = Stage::new(Changes::default());
    let (_launcher, mut client) = (stage.launcher(), stage.client());
    let unknown = client.denied(ExecRequest { policy: "nosuch".into(), ..stage.request() }, &[]);
    assert_eq!((unknown.reason, decided(&unknown)), (DenyReason::UnknownPolicy, ("admission", "policies")));
}

#[test]
fn a_tool_whose_program_isnt_the_pinned_one_or_that_is_for_a_role_isnt_run() {
    fn pinned(directory: &std::path::Path) {
        let pin = |sha256: &str| {
            let line = format!("program = \"/usr/bin/wc\"\nsha256 = \"{sha256}\"");
            TOOL.replace("program = \"/usr/bin/wc\"", &line)
        };
        put_tool(directory, "pinned.toml", &pin(&"0".repeat(64)).replace("\"count\"", "\"pinned\""));
        let true_one = stockade_gate::tools::executable::digest_of("/usr/bin/wc".as_ref()).unwrap();
        put_tool(directory, "good.toml", &pin(&true_one.to_string()).replace("\"count\"", "\"good\""));
        let mut special = TOOL.replace("\"count\"", "\"special\"");
        special.insert_str(1, "roles = [\"operator\"]\n");
        put_tool(directory, "special.toml", &special);
    }
    let stage = Stage::new(Changes { before: Some(Box::new(pinned)), ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let parameters = r#"{"paths":["a"]}"#;
    let changed = client.denied(called(&stage, "pinned", parameters), &[]);
    assert_eq!(changed.reason, DenyReason::ToolChanged, "{changed}");
    // Where it is and what it is now stand in the log, and nowhere else.
    assert!(!changed.message.contains("/usr"), "{changed}");
    assert!(stage.said.has(&["WARN", "isn't run", "pinned", "SHA-256"]));
    let special = client.denied(called(&stage, "special", parameters), &[]);
    assert_eq!(special.reason, DenyReason::NotPermitted, "{special}");
    let run = client.exec(called(&stage, "good", parameters));
    assert_eq!(launcher.launch().0.exec_id, run);
}

#[test]
fn a_program_that_was_replaced_isnt_run_before_a_reload_nor_one_that_a_link_leads_to_where_others_write() {
    const PROGRAM: &str = "#!/bin/sh\n";
    fn pin(directory: &std::path::Path, name: &str, program: &std::path::Path) {
        let digest = stockade_gate::tools::executable::digest_of(program).unwrap();
        let line = format!("program = \"{}\"\nsha256 = \"{digest}\"", program.display());
        let text =
            TOOL.replace("program = \"/usr/bin/wc\"", &line).replace("\"count\"", &format!("\"{name}\""));
        put_tool(directory, &format!("{name}.toml"), &text);
    }
    let linked = |directory: &std::path::Path| {
        let (own, anybodys) = (directory.join("own"), directory.join("anybodys"));
        for (folder, mode) in [(&own, 0o755), (&anybodys, 0o777)] {
            std::fs::create_dir(folder).unwrap();
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).unwrap();
            std::fs::write(folder.join("program"), PROGRAM).unwrap();
        }
        pin(directory, "plain", &own.join("program"));
        std::os::unix::fs::symlink(anybodys.join("program"), own.join("link")).unwrap();
        pin(directory, "linked", &own.join("link"));
    };
    let stage = Stage::new(Changes { before: Some(Box::new(linked)), ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let call = |name: &str| called(&stage, name, r#"{"paths":["a"]}"#);
    assert_eq!(client.denied(call("linked"), &[]).reason, DenyReason::ToolChanged);
    let run = client.exec(call("plain"));
    assert_eq!(launcher.launch().0.exec_id, run);
    let program = stage.directory.path().join("own/program");
    for (reloads, text, runs) in [(1, "#!/bin/sh\nother\n", false), (2, PROGRAM, true)] {
        std::fs::write(&program, text).unwrap();
        assert_eq!(client.denied(call("plain"), &[]).reason, DenyReason::ToolChanged, "it's another file");
        stage.order(Order::Reload);
        until("reloaded", || stage.said.count("tools reloaded") == reloads);
        if runs {
            let run = client.exec(call("plain"));
            assert_eq!(launcher.launch().0.exec_id, run);
        } else {
            assert_eq!(client.denied(call("plain"), &[]).reason, DenyReason::ToolChanged);
        }
    }
}

#[test]
fn unsigned_tools_are_taken_until_the_configuration_says_otherwise_and_then_none_is() {
    let stage = Stage::new(Changes { before: Some(Box::new(with_a_tool)), ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let drop_ins = stage.directory.path().join("configuration/stockade.d");
    std::fs::create_dir_all(&drop_ins).unwrap();
    std::fs::write(drop_ins.join("signed.toml"), "[tools]\nrequire-signed = true\n").unwrap();
    put_tool(stage.directory.path(), "count.toml", &TOOL.replace("--lines", "--words"));
    stage.order(Order::Reload);
    until("refused", || stage.said.has(&["ERROR", "stay", "count", "signed"]));
    client.exec(called(&stage, "count", r#"{"paths":["a"]}"#));
    assert_eq!(launcher.launch().0.argv[1].to_text(), "--lines", "an unsigned file was taken");
}

pub(super) fn put_limits(directory: &std::path::Path, text: &str) {
    let configuration = directory.join("configuration");
    std::fs::create_dir_all(&configuration).unwrap();
    std::fs::write(configuration.join("limits.toml"), text).unwrap();
}

#[test]
fn who_asks_too_often_is_told_when_to_come_back_and_a_reload_changes_how_often() {
    let limited = |directory: &std::path::Path| {
        with_a_tool(directory);
        put_limits(directory, "[tools.count]\nrate = \"1/d\"\n[policies.default]\nrate = \"never\"\n");
    };
    let stage = Stage::new(Changes { before: Some(Box::new(limited)), ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let call = || called(&stage, "count", r#"{"paths":["a"]}"#);
    let run = client.exec(call());
    assert_eq!(launcher.launch().0.exec_id, run);
    let often = client.denied(call(), &[]);
    assert_eq!(often.reason, DenyReason::RateLimited);
    let (by, rule) = decided(&often);
    assert!(by == "rate" && rule.starts_with("limits.toml:"), "{often:?}");
    let day = 24 * 60 * 60 * 1000;
    let after = often.retry_after_ms.unwrap();
    assert!(after > day - 60 * 60 * 1000 && after <= day, "{after}");
    let never = client.denied(stage.request(), &[]);
    assert_eq!((never.reason, never.retry_after_ms), (DenyReason::RateLimited, None), "no time helps");
    // Under another policy nobody is limited.
    let other = client.exec(ExecRequest { policy: "strict".into(), ..stage.request() });
    assert_eq!(launcher.launch().0.exec_id, other);
    put_limits(stage.directory.path(), "[tools.count]\nrate = \"1/d\"\nburst = 0\n");
    stage.order(Order::Reload);
    until("refused", || stage.said.has(&["ERROR", "stay", "the gate's files are bad", "limits.toml:3"]));
    put_limits(stage.directory.path(), "");
    stage.order(Order::Reload);
    until("reloaded", || stage.said.has(&["INFO", "tools reloaded"]));
    assert_eq!(client.exec(call()), launcher.launch().0.exec_id);
    assert_eq!(client.exec(stage.request()), launcher.launch().0.exec_id);
}

#[test]
fn who_asks_for_what_there_isnt_or_cant_be_read_is_asking_too_often_too() {
    let limited = |directory: &std::path::Path| {
        with_a_tool(directory);
        put_limits(directory, "[rate]\neach = \"1/d\"\n");
    };
    let stage = Stage::new(Changes { before: Some(Box::new(limited)), ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let under = |policy: &str| ExecRequest { policy: policy.into(), ..stage.request() };
    // Names that anybody can think of have one limit together: each would be something to keep otherwise.
    assert_eq!(client.denied(under("nosuch-1"), &[]).reason, DenyReason::UnknownPolicy);
    assert_eq!(client.denied(under("nosuch-2"), &[]).reason, DenyReason::RateLimited);
    assert_eq!(client.denied(called(&stage, "nosuch", "{}"), &[]).reason, DenyReason::RateLimited);
    let run = client.exec(under("default"));
    assert_eq!(launcher.launch().0.exec_id, run, "those that there are have their own");
    assert_eq!(client.denied(called(&stage, "count", "{"), &[]).reason, DenyReason::BadParameters);
    assert_eq!(client.denied(called(&stage, "count", "{"), &[]).reason, DenyReason::RateLimited);
}

#[test]
fn limits_for_a_role_that_there_isnt_arent_taken_and_neither_is_a_lock_out_without_rules() {
    let stage = Stage::new(Changes::default());
    put_limits(stage.directory.path(), "[tiers.guests]\nroles = [\"guest\"]\npercent = 0\n");
    stage.order(Order::Reload);
    let place = "limits.toml:2:10: there is no role `guest`; roles are given in roles.toml";
    until("refused", || stage.said.has(&["ERROR", "stay", place]));
    put_limits(stage.directory.path(), "[lockout]\nrefusals = 3\n");
    stage.order(Order::Reload);
    until("refused", || stage.said.has(&["ERROR", "stay", "limits.toml:1:", "[lockout] locks nobody out"]));
}

/// A tool's file whose breaker opens after two failures.
pub(super) fn breaking(directory: &std::path::Path) {
    let text = format!("{TOOL}[breaker]\nfailures = 2\nwindow = \"1h\"\npause = \"1h\"\n");
    put_tool(directory, "count.toml", &text);
}

#[test]
fn nobody_opens_a_breaker_by_giving_a_tool_less_or_by_a_signal() {
    let stage = Stage::new(Changes { before: Some(Box::new(breaking)), ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let call = |wall_ms: Option<u64>| {
        let mut call = called(&stage, "count", r#"{"paths":["a"]}"#);
        call.overrides.wall_ms = wall_ms;
        call
    };
    let mut end = |client: &mut Client, wall_ms: Option<u64>, signal: Option<u8>| {
        let run = client.exec(call(wall_ms));
        let (launch, _) = launcher.launch();
        launcher.started_with(&launch, &[]);
        if let Some(signal) = signal {
            client.say(&ClientMessage::Signal { exec_id: run, signal });
            assert!(matches!(launcher.next(), ToLauncher::Signal { .. }));
        }
        launcher.ended(run, Outcome::TimedOut { clock: Clock::Wall, limit_ms: 1 });
        client.read_to_end(run, 2);
    };
    for _ in 0..3 {
        end(&mut client, Some(1), None);
        end(&mut client, None, Some(9));
    }
    // What its file gives it anyway is nothing less.
    end(&mut client, Some(5_000), None);
    end(&mut client, None, None);
    assert_eq!(client.denied(call(None), &[]).reason, DenyReason::BreakerOpen);
}

#[test]
fn a_tool_that_fails_is_left_alone_for_a_while_over_a_restart_and_other_ends_dont_count() {
    let stage = Stage::new(Changes { before: Some(Box::new(breaking)), ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let call = || called(&stage, "count", r#"{"paths":["a"]}"#);
    let mut end = |client: &mut Client, outcome: Outcome| {
        let run = client.exec(call());
        let (launch, _) = launcher.launch();
        launcher.started_with(&launch, &[]);
        launcher.ended(run, outcome);
        client.read_to_end(run, 2);
    };
    // 3 is what its file calls a failure, and 1 isn't; nor is what isn't its fault.
    for outcome in [
        Outcome::Exited { code: 3 },
        Outcome::Exited { code: 1 },
        Outcome::Cancelled { reason: CancelReason::Asked },
        Outcome::Lost { reason: "x".into() },
    ] {
        end(&mut client, outcome);
    }
    end(&mut client, Outcome::TimedOut { clock: Clock::Wall, limit_ms: 1 });
    let open = client.denied(call(), &[]);
    assert_eq!((open.reason, decided(&open).0), (DenyReason::BreakerOpen, "breaker"), "{open}");
    assert!(open.retry_after_ms.is_some_and(|after| after > 3_000_000), "{open:?}");
    assert_eq!(client.exec(stage.request()), launcher.launch().0.exec_id, "no tool");
    // What it has written another one reads; it's written while the daemon runs, which may be killed.
    let written = stage.directory.path().join("state/breakers.json");
    until("written", || std::fs::read_to_string(&written).is_ok_and(|text| text.contains("count")));
    let text = std::fs::read(&written).unwrap();
    stage.order(Order::Stop);
    stage.order(Order::Stop);
    drop((client, launcher));
    drop(stage.join_but_keep());
    let again = move |directory: &std::path::Path| {
        breaking(directory);
        // As a daemon makes it: a user's refuses one that others may enter.
        std::fs::DirBuilder::new().mode(0o700).create(directory.join("state")).unwrap();
        std::fs::write(directory.join("state/breakers.json"), &text).unwrap();
    };
    let stage = Stage::new(Changes { before: Some(Box::new(again)), ..Changes::default() });
    let _launcher = stage.launcher();
    let open = stage.client().denied(called(&stage, "count", r#"{"paths":["a"]}"#), &[]);
    assert_eq!(open.reason, DenyReason::BreakerOpen, "{open}");
}

#[test]
fn without_a_stage_everything_passes() {
    let stage = Stage::new(Changes::default());
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let run =
        client.exec(ExecRequest { argv: vec!["/bin/true".into(), "refused".into()], ..stage.request() });
    assert_eq!(launcher.launch().0.exec_id, run);
}
