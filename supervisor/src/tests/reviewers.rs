//! Reviewer programs. The scripted launcher plays them, too; real ones are in `tests/tests/reviewers.rs`.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use stockade_gate::tools::hex;
use stockade_protocol::ExecId;
use stockade_protocol::approval::{ApprovalEnd, ReviewOpinion};
use stockade_protocol::client::{ClientMessage, ExecEvent, ServerMessage};
use stockade_protocol::denied::DenyReason;
use stockade_protocol::launch::{Launch, ToLauncher};
use stockade_protocol::outcome::{CancelReason, Outcome};

use super::access::put;
use super::approvals::*;
use super::gate::put_tool;
use super::stage::{Before, Changes, Client, Launcher, Stage, until};
use super::{metrics, record};
use crate::serve::Order;

/// The tools of two reviewers.
fn put_tools(directory: &Path) {
    for name in ["one", "two"] {
        let text = format!(
            "name = \"{name}\"\ndescription = \"Looks.\"\nversion = \"1\"\npolicy = \"strict\"\n\
             [command]\nprogram = \"/usr/bin/{name}\"\narguments = [\"--look\"]\n[parameters]\ntype = \"object\"\n"
        );
        put_tool(directory, &format!("{name}.toml"), &text);
    }
}

const REVIEWERS: &str = "[[reviewer]]\nname = \"first\"\ntool = \"one\"\ncost = 3\n\
    [[reviewer]]\nname = \"second\"\ntool = \"two\"\ncost = 4\n";

fn with(reviews: &str, more: impl FnOnce(&Path) + 'static) -> Stage {
    let text = file("") + REVIEWERS + "[reviews]\n" + reviews;
    let before: Before = Box::new(move |directory| {
        put_tools(directory);
        put(directory, "approval.toml", &text);
        more(directory);
    });
    Stage::new(Changes { before: Some(before), metrics: true, ..Changes::default() })
}

/// The next reviewer that is begun, and what it's given.
fn begun(launcher: &mut Launcher) -> (Launch, Value) {
    let (launch, mut descriptors) = launcher.launch();
    assert!(launch.note.reviews.is_some(), "it isn't a reviewer: {launch:?}");
    let mut text = String::new();
    File::from(descriptors.remove(0)).read_to_string(&mut text).unwrap();
    launcher.started(&launch);
    (launch, serde_json::from_str(&text).unwrap())
}

fn answer_of(given: &Value, approve: bool, reason: &str) -> String {
    format!(r#"{{"digest":{},"approve":{approve},"reason":"{reason}"}}"#, given["digest"])
}

/// It prints this, and ends so.
fn ends(launcher: &mut Launcher, run: ExecId, printed: &str, outcome: Outcome) {
    if !printed.is_empty() {
        launcher.write(run, printed.as_bytes());
    }
    launcher.end_output(run);
    launcher.ended(run, outcome);
}

fn says(launcher: &mut Launcher, (launch, given): &(Launch, Value), approve: bool) {
    let text = answer_of(given, approve, "as the test has it");
    ends(launcher, launch.exec_id, &text, Outcome::Exited { code: 0 });
}

fn is_ended(launcher: &mut Launcher, run: ExecId) {
    are_ended(launcher, &[run]);
}

/// In any order.
fn are_ended(launcher: &mut Launcher, runs: &[ExecId]) {
    let mut ended = Vec::new();
    for _ in runs {
        match launcher.next() {
            ToLauncher::Cancel { exec_id, reason: CancelReason::Unneeded } => ended.push(exec_id),
            other => panic!("{other:?} instead of Cancel"),
        }
    }
    for run in runs {
        assert!(ended.contains(run), "{ended:?}");
        launcher.end_output(*run);
        launcher.ended(*run, Outcome::Cancelled { reason: CancelReason::Unneeded });
    }
}

/// Both reviewers, whichever is begun first.
fn both(launcher: &mut Launcher) -> [(Launch, Value); 2] {
    let mut both = [begun(launcher), begun(launcher)];
    both.sort_by(|(one, _), (other, _)| one.argv.cmp(&other.argv));
    both
}

fn asks_people(client: &mut Client) -> ExecId {
    match client.next() {
        ServerMessage::ApprovalAsked(one) => one.exec_id,
        other => panic!("{other:?} instead of a question"),
    }
}

#[test]
fn programs_look_first_and_people_are_asked_once_enough_have_said_yes() {
    let stage = with("needed = 2\n", |_| {});
    let (mut launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    let mut follower = stage.client();
    assert!(list(&mut follower, true).is_empty());
    let run = asks(&stage, &mut client);
    let [one, two] = both(&mut launcher);
    assert_eq!(other.status().reviewing, 2);
    // What they are is for their tools' files to say, and what they're given is what people see.
    let (launch, given) = &one;
    assert_eq!(launch.argv, ["/usr/bin/one".into(), "--look".into()]);
    assert_eq!((launch.note.policy.as_str(), launch.note.reviews), ("strict", Some(run)));
    assert!(launch.owner.uid == rustix::process::geteuid().as_raw() && launch.note.detach);
    assert!(launcher.spec(launch).limits.wall_ms.is_some_and(|wall| wall <= 30_000));
    assert_eq!(launcher.spec(launch).limits.output, Some(64 * 1024));
    assert!(launch.workspace.as_path().ends_with(launch.exec_id.to_string()));
    assert_eq!(launch.workspace.as_path().read_dir().unwrap().count(), 0);
    assert_ne!(launch.workspace, two.0.workspace);
    assert_eq!(given["argv"], serde_json::json!(["/bin/true", "asked"]));
    assert_eq!((&given["score"], &given["owner_uid"]), (&60.into(), &launch.owner.uid.into()));
    assert_eq!(given["factors"][0]["reason"], "it's marked");
    assert!(given.get("may_answer").is_none() && given.get("panels").is_none());
    // Nobody is bothered, and a yes is too early.
    assert!(follower.hears_nothing(), "people are asked before programs have looked");
    let listed = &list(&mut other, false)[0];
    assert!(!listed.may_answer && hex(&listed.digest) == given["digest"].as_str().unwrap());
    let panel = &listed.panels[0];
    assert_eq!((panel.needed, panel.approved, panel.is_spent), (2, 0, false));
    assert_eq!(answer(&mut other, true).unwrap_err().reason, DenyReason::NotPermitted);
    says(&mut launcher, &one, true);
    until("heard", || list(&mut other, false)[0].panels[0].approved == 1);
    let first = &list(&mut other, false)[0].panels[0].reviewers[0];
    assert_eq!((first.name.as_str(), first.opinion), ("first", ReviewOpinion::Yes));
    assert!(!launcher.hears_something(), "one yes is enough");
    says(&mut launcher, &two, true);
    assert_eq!(asks_people(&mut follower), run);
    assert!(list(&mut other, false)[0].may_answer);
    assert_eq!(answer(&mut client, true).unwrap_err().reason, DenyReason::NotPermitted, "it's his own");
    assert!(!launcher.hears_something(), "nobody has approved it");
    assert_eq!(answer(&mut other, true), Ok((0, Some(ApprovalEnd::Approved))));
    runs(&mut launcher, &mut client, run);
    let told = metrics::scrape(&stage);
    assert_eq!(told["stockade_reviews_total{answer=\"yes\"}"], 2.0);
    assert_eq!((told["stockade_reviews_total{answer=\"no\"}"], told["stockade_reviewing"]), (0.0, 0.0));
    until("gone", || !one.0.workspace.as_path().exists() && !two.0.workspace.as_path().exists());
    until("forgotten", || launcher.has_released(one.0.exec_id));
}

#[test]
fn programs_may_decide_instead_of_people_and_the_rest_of_them_needs_no_end() {
    let stage = with("needed = 1\ninstead-of-people = true\n", |_| {});
    let (mut launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    let run = asks(&stage, &mut client);
    let [one, two] = both(&mut launcher);
    assert_eq!(list(&mut other, false)[0].needed, 0);
    says(&mut launcher, &one, false);
    until("heard", || list(&mut other, false)[0].panels[0].reviewers[0].opinion == ReviewOpinion::No);
    says(&mut launcher, &two, true);
    runs(&mut launcher, &mut client, run);
    // The first that says yes is enough, and the other is ended.
    let run = asks(&stage, &mut client);
    let [one, two] = both(&mut launcher);
    says(&mut launcher, &one, true);
    is_ended(&mut launcher, two.0.exec_id);
    runs(&mut launcher, &mut client, run);
}

#[test]
fn one_yes_too_few_is_a_no_that_says_which_and_why() {
    let stage = with("needed = 2\ninstead-of-people = true\n", |_| {});
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    asks(&stage, &mut client);
    let [one, two] = both(&mut launcher);
    says(&mut launcher, &one, true);
    says(&mut launcher, &two, false);
    let (reason, rule, message) = refused(&mut client);
    assert_eq!((reason, rule.as_str()), (DenyReason::NotApproved, "reviewers"));
    assert!(
        message
            .starts_with("the reviewer second has refused it: as the test has it; asked because of marked"),
        "{message}"
    );
    assert!(!launcher.hears_something());
    // And where too few are left to say yes, nobody waits for the rest.
    asks(&stage, &mut client);
    let [one, two] = both(&mut launcher);
    says(&mut launcher, &one, false);
    is_refused_by(&mut client, "reviewers");
    is_ended(&mut launcher, two.0.exec_id);
    assert_eq!(metrics::scrape(&stage)["stockade_approvals_total{how=\"refused\"}"], 2.0);
}

#[test]
fn whatever_a_program_does_but_say_yes_about_this_with_status_0_is_no_yes() {
    let yes = |given: &Value| answer_of(given, true, "fine");
    let good = Outcome::Exited { code: 0 };
    type Printed = Box<dyn Fn(&Value) -> String>;
    let table: Vec<(&str, Printed, Outcome)> = vec![
        ("no answer", Box::new(|_| String::new()), good.clone()),
        ("garbage", Box::new(|_| "yes, run it".into()), good.clone()),
        ("something beside it", Box::new(move |given| format!("I think:\n{}", yes(given))), good.clone()),
        ("two answers", Box::new(move |given| yes(given) + &yes(given)), good.clone()),
        (
            "another digest",
            Box::new(move |given| yes(&serde_json::json!({ "digest": "0".repeat(64), "x": given }))),
            good.clone(),
        ),
        ("too long", Box::new(move |given| yes(given) + &" ".repeat(4_096)), good.clone()),
        ("status 1", Box::new(yes), Outcome::Exited { code: 1 }),
        ("a signal", Box::new(yes), Outcome::Signaled { signal: 9, core_dumped: false }),
        ("out of memory", Box::new(yes), Outcome::MemoryExceeded { limit: 1, seen: 2 }),
        ("too much output", Box::new(yes), Outcome::OutputExceeded { limit: 1 }),
        ("lost", Box::new(yes), Outcome::Lost { reason: "x".into() }),
    ];
    let stage = with("needed = 1\ninstead-of-people = true\nbudget = 1000\n", |directory| {
        let text = file("")
            + &REVIEWERS[..REVIEWERS.rfind("[[").unwrap()]
            + "[reviews]\ninstead-of-people = true\nbudget = 1000\n";
        put(directory, "approval.toml", &text);
    });
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    for (name, printed, outcome) in table {
        asks(&stage, &mut client);
        let (launch, given) = begun(&mut launcher);
        ends(&mut launcher, launch.exec_id, &printed(&given), outcome);
        let (reason, rule, message) = refused(&mut client);
        assert_eq!((reason, rule.as_str()), (DenyReason::NotApproved, "reviewers"), "{name}");
        assert!(
            message.starts_with("the reviewer first has said nothing that counts: "),
            "{name}: {message}"
        );
        assert!(!launcher.hears_something(), "{name}");
    }
    // The twin: the same program, and a plain yes, in pieces and with something on standard error.
    let run = asks(&stage, &mut client);
    let (launch, given) = begun(&mut launcher);
    let text = yes(&given);
    launcher.rings.get_mut(&launch.exec_id).unwrap().write(stockade_protocol::client::Stream::Stderr, b"hm");
    launcher.write(launch.exec_id, &text.as_bytes()[..9]);
    ends(&mut launcher, launch.exec_id, &text[9..], good);
    runs(&mut launcher, &mut client, run);
}

#[test]
fn no_answer_in_time_is_no_and_ends_the_programs() {
    let stage = with("within = \"1s\"\n", |_| {});
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let asked = Instant::now();
    asks(&stage, &mut client);
    let [one, two] = both(&mut launcher);
    says(&mut launcher, &one, true);
    let (_, rule, message) = refused(&mut client);
    assert!(asked.elapsed() >= Duration::from_secs(1), "{message}");
    assert_eq!(rule, "reviewers");
    assert!(
        message.contains("the reviewer second has said nothing that counts: it hasn't answered in time"),
        "{message}"
    );
    is_ended(&mut launcher, two.0.exec_id);
    assert_eq!(metrics::scrape(&stage)["stockade_approvals_total{how=\"late\"}"], 1.0);
}

#[test]
fn who_has_spent_his_budget_asks_people_alone_who_are_told_so_or_is_told_when_to_come_back() {
    let stage = with("budget = 13\n", |_| {});
    let (mut launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    let run = asks(&stage, &mut client);
    let [one, two] = both(&mut launcher);
    client.say(&ClientMessage::Cancel { exec_id: run });
    is_refused_by(&mut client, "cancelled");
    are_ended(&mut launcher, &[one.0.exec_id, two.0.exec_id]);
    let run = asks(&stage, &mut client);
    assert!(!launcher.hears_something(), "a reviewer looks for nothing");
    let listed = &list(&mut other, false)[0];
    assert!(listed.panels[0].is_spent && listed.may_answer);
    assert_eq!(answer(&mut other, true), Ok((0, Some(ApprovalEnd::Approved))));
    runs(&mut launcher, &mut client, run);

    let stage = with("budget = 7\ninstead-of-people = true\n", |_| {});
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let run = asks(&stage, &mut client);
    let [one, two] = both(&mut launcher);
    says(&mut launcher, &one, true);
    says(&mut launcher, &two, true);
    runs(&mut launcher, &mut client, run);
    let (request, passed) = request(&stage, &["asked"]);
    client.say_with(&ClientMessage::Exec(Box::new(request)), &[passed]);
    let ServerMessage::Denied { denied, .. } = client.next() else { panic!("it's asked about") };
    assert_eq!(denied.reason, DenyReason::NotApproved);
    let day = 24 * 60 * 60 * 1_000;
    assert!(
        denied.retry_after_ms.is_some_and(|after| (day..day + 31 * 60 * 1_000).contains(&after)),
        "{denied:?}"
    );
}

#[test]
fn a_question_that_is_over_ends_its_programs() {
    let stage = with("", |_| {});
    let (mut launcher, client) = (stage.launcher(), stage.client());
    let mut client = Some(client);
    let run = asks(&stage, client.as_mut().unwrap());
    let [one, two] = both(&mut launcher);
    drop(client.take());
    are_ended(&mut launcher, &[one.0.exec_id, two.0.exec_id]);
    // By a person's no, who needn't wait.
    let (mut client, mut other) = (stage.client(), stage.client());
    let second = asks(&stage, &mut client);
    assert_ne!(run, second);
    let [one, two] = both(&mut launcher);
    assert_eq!(answer(&mut other, false), Ok((0, Some(ApprovalEnd::Refused))));
    is_refused_by(&mut client, "refused");
    are_ended(&mut launcher, &[one.0.exec_id, two.0.exec_id]);
    // By the daemon's end.
    asks(&stage, &mut client);
    let [one, two] = both(&mut launcher);
    stage.order(Order::Stop);
    are_ended(&mut launcher, &[one.0.exec_id, two.0.exec_id]);
}

#[test]
fn files_that_were_read_again_make_the_programs_yes_no_yes() {
    for reviews in ["instead-of-people = true\n", ""] {
        let stage = with(reviews, |_| {});
        let (mut launcher, mut client) = (stage.launcher(), stage.client());
        asks(&stage, &mut client);
        let [one, two] = both(&mut launcher);
        stage.order(Order::Reload);
        until("reloaded", || stage.said.count("policies reloaded") > 0);
        says(&mut launcher, &one, true);
        says(&mut launcher, &two, true);
        is_refused_by(&mut client, "reload");
        assert!(!launcher.hears_something());
    }
}

#[test]
fn a_reviewers_run_is_seen_in_lists_and_nobodys_to_follow_or_to_end() {
    let stage = with("", |_| {});
    let (mut launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    let plain = request(&stage, &["plain"]);
    let mut third = stage.client();
    let own = third.exec_with(plain.0, &[plain.1]);
    let (launch, _) = launcher.launch();
    launcher.started(&launch);
    asks(&stage, &mut client);
    let [one, _two] = both(&mut launcher);
    let run = one.0.exec_id;
    other.say(&ClientMessage::List);
    let ServerMessage::Runs(all) = other.next() else { panic!("no list") };
    assert!(all.iter().any(|listed| listed.exec_id == run && listed.command == "/usr/bin/one --look".into()));
    for message in [
        ClientMessage::Attach { exec_id: run, after_seq: 0 },
        ClientMessage::Cancel { exec_id: run },
        ClientMessage::Signal { exec_id: run, signal: 9 },
    ] {
        other.say(&message);
        match other.next() {
            ServerMessage::Denied { exec_id: Some(of), denied, .. } => {
                assert_eq!((of, denied.reason), (run, DenyReason::NotPermitted));
            }
            told => panic!("{told:?}"),
        }
    }
    assert!(!launcher.hears_something());
    // The twin: his own he may end.
    other.say(&ClientMessage::Cancel { exec_id: own });
    assert!(matches!(launcher.next(), ToLauncher::Cancel { exec_id, .. } if exec_id == own));
}

#[test]
fn one_asker_has_so_many_programs_look_at_once_and_the_others_wait() {
    let stage = with("budget = 1000\ninstead-of-people = true\n", |_| {});
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let asked: Vec<ExecId> = (0..3).map(|_| asks(&stage, &mut client)).collect();
    let mut looking: Vec<_> = (0..4).map(|_| begun(&mut launcher)).collect();
    assert!(!launcher.hears_something(), "more than 4 look for one asker");
    // Whichever has its directory first is first.
    let first = looking.iter().position(|(launch, _)| launch.note.reviews == Some(asked[0])).unwrap();
    let first = looking.remove(first);
    says(&mut launcher, &first, true);
    let next = begun(&mut launcher);
    assert_eq!(next.0.note.reviews, Some(asked[2]));
    // What waits no more makes room, too.
    client.say(&ClientMessage::Cancel { exec_id: asked[1] });
    is_refused_by(&mut client, "cancelled");
    let of = |asked: ExecId, looking: &[(Launch, Value)]| -> Vec<ExecId> {
        let its = looking.iter().filter(|(launch, _)| launch.note.reviews == Some(asked));
        its.map(|(launch, _)| launch.exec_id).collect()
    };
    let mut ended = of(asked[1], &looking);
    assert_eq!((ended.len(), of(asked[0], &looking).len()), (2, 1));
    for _ in 0..2 {
        match launcher.next() {
            ToLauncher::Cancel { exec_id, reason: CancelReason::Unneeded } => {
                assert!(ended.contains(&exec_id));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(!launcher.hears_something(), "those that haven't ended yet count");
    let run = ended.remove(0);
    launcher.end_output(run);
    launcher.ended(run, Outcome::Cancelled { reason: CancelReason::Unneeded });
    assert_eq!(begun(&mut launcher).0.note.reviews, Some(asked[2]));
}

#[test]
fn each_review_stands_in_the_record_before_it_begins_and_with_what_it_said() {
    let stage = with("instead-of-people = true\n", record::with_a_key);
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let run = asks(&stage, &mut client);
    let [one, two] = both(&mut launcher);
    says(&mut launcher, &one, true);
    says(&mut launcher, &two, true);
    runs(&mut launcher, &mut client, run);
    drop((client, launcher));
    let left = record::end(stage);
    let all = record::entries(left.path());
    let texts: Vec<String> = all.iter().map(stockade_audit::Entry::json).collect();
    let at = |what: &[&str]| {
        let found = texts.iter().position(|text| what.iter().all(|part| text.contains(part)));
        found.unwrap_or_else(|| panic!("{what:?}: {texts:#?}"))
    };
    let digest = one.1["digest"].as_str().unwrap();
    let asked = at(&["approval-asked", digest]);
    let about = format!("\"reviews {run}\"");
    let intent =
        at(&["\"action\":\"review\"", "\"tool\":\"one\"", &about, &format!("\"reviews as {digest}\"")]);
    let said = at(&["reviewed", "the reviewer first: yes: as the test has it", digest]);
    assert!(asked < at(&["review-begun", "the reviewer first (tool one)", digest]));
    assert!(asked < intent && intent < said);
    let outcome = at(&["outcome", &one.0.exec_id.to_string(), "\"exited\""]);
    assert!(intent < outcome);
    let own =
        at(&["intent", "\"approved by the reviewer first\"", "\"approved by the reviewer second\"", digest]);
    assert!(own > said && own > outcome.min(said));
}

#[test]
fn a_review_that_cannot_be_recorded_is_none() {
    let stage = with("instead-of-people = true\n", record::with_a_key);
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    std::fs::write(stage.directory.path().join("state/hangs"), "").unwrap();
    asks(&stage, &mut client);
    is_refused_by(&mut client, "reviewers");
    assert!(!launcher.hears_something(), "a reviewer runs that isn't written down");
}

#[test]
fn who_is_refused_by_programs_again_and_again_is_locked_out() {
    let uid = rustix::process::geteuid().as_raw();
    let stage = with("instead-of-people = true\n", move |directory| {
        put(directory, "roles.toml", &format!("[roles.admin]\nusers = [\"{uid}\"]\n"));
        put(directory, "limits.toml", "[lockout]\nrefusals = 2\n");
    });
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    // Who gets no answer isn't refused.
    for approve in [None, None, Some(false), Some(false)] {
        asks(&stage, &mut client);
        let [one, two] = both(&mut launcher);
        match approve {
            Some(approve) => says(&mut launcher, &one, approve),
            None => ends(&mut launcher, one.0.exec_id, "", Outcome::Exited { code: 1 }),
        }
        is_refused_by(&mut client, "reviewers");
        is_ended(&mut launcher, two.0.exec_id);
    }
    let (asked, passed): (_, OwnedFd) = request(&stage, &["asked"]);
    assert_eq!(client.denied(asked, &[passed]).reason, DenyReason::LockedOut);
}

#[test]
fn a_reviewer_that_is_no_tool_of_the_directory_or_takes_something_is_a_mistake_with_its_place() {
    let stage = with("", |_| {});
    let _launcher = stage.launcher();
    let tool = |more: &str, stdin: &str| {
        format!(
            "name = \"one\"\ndescription = \"Looks.\"\nversion = \"1\"\npolicy = \"strict\"\n\
             [command]\nprogram = \"/usr/bin/one\"\n{stdin}[parameters]\ntype = \"object\"\n{more}"
        )
    };
    let at = |count: usize, text: &str, expected: &str| {
        put_tool(stage.directory.path(), "one.toml", text);
        stage.order(Order::Reload);
        until("refused", || stage.said.count("approval.toml:18:8: ") >= count);
        until(expected, || stage.said.count(expected) > 0);
    };
    let property = "required = [\"a\"]\nproperties.a = { type = \"string\" }\n";
    at(1, &tool(property, "arguments = [\"--a={a:text}\"]\n"), "the tool `one` takes parameters");
    at(2, &tool("", "stdin = \"parameters\"\n"), "has something on its standard input");
    std::fs::remove_file(stage.directory.path().join("configuration/tools/one.toml")).unwrap();
    stage.order(Order::Reload);
    until("refused", || stage.said.count("no tool is named `one`") > 0);
    assert_eq!(stage.said.count("policies reloaded"), 0);
    put_tools(stage.directory.path());
    stage.order(Order::Reload);
    until("reloaded", || stage.said.count("policies reloaded") > 0);
}

#[test]
fn a_reviewer_whose_program_isnt_what_it_was_says_nothing() {
    let pinned = |directory: &Path| {
        let program = directory.join("configuration/look");
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        let pin = stockade_gate::tools::Digest::of(b"#!/bin/sh\n").0;
        let text = format!(
            "name = \"one\"\ndescription = \"Looks.\"\nversion = \"1\"\npolicy = \"strict\"\n[command]\n\
             program = \"{}\"\nsha256 = \"{}\"\n[parameters]\ntype = \"object\"\n",
            program.display(),
            hex(&pin)
        );
        put_tool(directory, "one.toml", &text);
    };
    let reviews = "needed = 2\ninstead-of-people = true\n";
    let stage = with(reviews, pinned);
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let run = asks(&stage, &mut client);
    let mut both = [begun(&mut launcher), begun(&mut launcher)];
    both.sort_by(|(one, _), (other, _)| {
        one.note.tool.as_ref().unwrap().name.cmp(&other.note.tool.as_ref().unwrap().name)
    });
    says(&mut launcher, &both[0], true);
    says(&mut launcher, &both[1], true);
    runs(&mut launcher, &mut client, run);
    std::fs::write(stage.directory.path().join("configuration/look"), "#!/bin/sh\nexit 0\n").unwrap();
    asks(&stage, &mut client);
    let (_, rule, message) = refused(&mut client);
    assert_eq!(rule, "reviewers");
    assert!(message.contains("the program of the tool `one` isn't the one that was pinned"), "{message}");
}

#[test]
fn a_secret_in_a_reason_is_named_and_not_shown_where_the_reviewers_policy_redacts() {
    // In two pieces: whoever looks for tokens in sources finds none.
    let token = format!("gh{}{}", "p_", "a1B2c3D4e5".repeat(4).split_at(36).0);
    for (policy, is_hidden) in [("custom", true), ("strict", false)] {
        let before: Before = Box::new(move |directory| {
            put_tools(directory);
            let text = std::fs::read_to_string(directory.join("configuration/tools/one.toml")).unwrap();
            put_tool(directory, "one.toml", &text.replace("\"strict\"", &format!("\"{policy}\"")));
            let approval = file("") + REVIEWERS + "[reviews]\ninstead-of-people = true\n";
            put(directory, "approval.toml", &approval);
        });
        let redacts = Some("extends = \"strict\"\n[output]\nredact = true\n");
        let stage = Stage::new(Changes { before: Some(before), policy: redacts, ..Changes::default() });
        let (mut launcher, mut client) = (stage.launcher(), stage.client());
        asks(&stage, &mut client);
        let [one, _two] = both(&mut launcher);
        let text = answer_of(&one.1, false, &format!("it has {token} in it"));
        ends(&mut launcher, one.0.exec_id, &text, Outcome::Exited { code: 0 });
        let (_, rule, message) = refused(&mut client);
        assert_eq!(rule, "reviewers");
        assert_eq!(message.contains("it has [redacted:github-token] in it"), is_hidden, "{message}");
        assert_eq!(message.contains(&token), !is_hidden, "{message}");
    }
}

#[test]
fn without_reviewers_nothing_of_this_is_there() {
    let stage = stage("");
    let (mut launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    let run = asks(&stage, &mut client);
    assert!(!launcher.hears_something());
    let listed = &list(&mut other, false)[0];
    assert!(listed.panels.is_empty() && listed.may_answer && listed.needed == 1);
    assert_eq!(answer(&mut other, true), Ok((0, Some(ApprovalEnd::Approved))));
    assert!(matches!(client.event(run, 1), ExecEvent::Accepted { .. }));
    let (launch, _) = launcher.launch();
    assert_eq!(launch.note.reviews, None);
}
