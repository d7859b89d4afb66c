//! What is written down of runs that there are, and of what is asked of the daemon itself.

use stockade_audit::{Class, Entry, What};
use stockade_protocol::ExecId;
use stockade_protocol::bounds::MAX_RELOAD_LINES;
use stockade_protocol::client::{ClientMessage, ExecRequest, ServerMessage};
use stockade_protocol::launch::ToLauncher;
use stockade_protocol::outcome::Outcome;

use super::approvals;
use super::gate::put_tool;
use super::record::{end, entries, with_a_key};
use super::reload::reload;
use super::stage::{Changes, Stage, until};

fn stage(slots: usize) -> Stage {
    Stage::new(Changes { before: Some(Box::new(with_a_key)), slots, ..Changes::default() })
}

fn of<'a>(all: &'a [Entry], name: &str) -> Vec<&'a Entry> {
    all.iter().filter(|entry| entry.event.name() == name).collect()
}

/// How many more of a name were counted and not written.
fn counted(all: &[Entry], name: &str) -> u64 {
    let count = |entry: &Entry| match &entry.event.what {
        What::Repeated(repeated) if repeated.like == name => repeated.count,
        _ => 0,
    };
    all.iter().map(count).sum()
}

#[test]
fn what_one_does_to_ones_own_runs_stands_in_the_record_with_the_run_and_what_comes_to_nothing_doesnt() {
    let stage = stage(1);
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let run = client.exec(ExecRequest { detach: true, ..stage.request() });
    let (launch, _) = launcher.launch();
    launcher.started_with(&launch, &[]);
    let mut waiting = stage.client();
    let queued = waiting.exec(ExecRequest { detach: true, ..stage.request() });
    client.say(&ClientMessage::Signal { exec_id: run, signal: 10 });
    // One without a tool is cancelled by a signal that would end it.
    waiting.say(&ClientMessage::Signal { exec_id: queued, signal: 15 });
    waiting.status();
    let mut other = stage.client();
    other.say(&ClientMessage::Attach { exec_id: run, after_seq: 1 });
    other.say(&ClientMessage::Cancel { exec_id: run });
    let nothing = ExecId::generate();
    for message in [
        ClientMessage::Signal { exec_id: nothing, signal: 9 },
        ClientMessage::Cancel { exec_id: nothing },
        ClientMessage::Attach { exec_id: nothing, after_seq: 0 },
    ] {
        other.say(&message);
    }
    while !matches!(launcher.next(), ToLauncher::Cancel { .. }) {}
    launcher.ended(run, Outcome::Exited { code: 0 });
    client.read_to_end(run, 2);
    // It's over: there is nothing to cancel.
    client.say(&ClientMessage::Cancel { exec_id: run });
    assert!(matches!(client.next(), ServerMessage::Denied { .. }));
    drop((client, waiting, other, launcher));
    let all = entries(end(stage).path());
    let told = |name: &str| -> Vec<(String, String)> {
        let told = |entry: &Entry| {
            assert_eq!(entry.class, Class::Operation);
            assert_eq!(entry.event.principal.as_ref().unwrap().uid, rustix::process::geteuid().as_raw());
            let What::Operation(note) = &entry.event.what else { panic!("{}", entry.json()) };
            (entry.event.exec().unwrap().to_owned(), note.text.clone())
        };
        of(&all, name).into_iter().map(told).collect()
    };
    let (run, queued) = (run.to_string(), queued.to_string());
    assert_eq!(told("signalled"), [(run.clone(), "signal 10".to_owned())]);
    assert_eq!(told("attached"), [(run.clone(), "behind event 1".to_owned())]);
    let cancelled: Vec<String> = told("cancelled").into_iter().map(|(run, _)| run).collect();
    assert_eq!(cancelled, [queued, run.clone()]);
    // All of a run is found by it.
    let of_it: Vec<&str> =
        all.iter().filter(|entry| entry.event.exec() == Some(&run)).map(|entry| entry.event.name()).collect();
    assert_eq!(of_it, ["intent", "signalled", "attached", "cancelled", "outcome"]);
}

#[test]
fn of_a_flood_of_signals_the_first_are_written_and_all_others_counted_and_refusals_are_as_before() {
    let stage = stage(128);
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let many = 1_000;
    let runs: Vec<ExecId> =
        (0..70).map(|_| client.exec(ExecRequest { detach: true, ..stage.request() })).collect();
    for at in 0..many {
        client.say(&ClientMessage::Signal { exec_id: runs[at % runs.len()], signal: 10 });
    }
    client.status();
    for at in 0..10 {
        client.denied(ExecRequest { policy: format!("nosuch-{at}"), ..stage.request() }, &[]);
    }
    for _ in 0..many {
        while !matches!(launcher.next(), ToLauncher::Signal { .. }) {}
    }
    drop((client, launcher));
    let all = entries(end(stage).path());
    let written = of(&all, "signalled").len();
    assert!(written >= 20, "{written}");
    assert_eq!(written as u64 + counted(&all, "signalled"), many as u64);
    assert!(written < many / 2, "{written}: a machine that takes minutes for this?");
    assert_eq!(of(&all, "refused").len(), 10, "whatever else there is");
}

#[test]
fn a_reload_that_was_asked_for_stands_in_the_record_also_of_who_has_left_and_tells_bounded_lines() {
    let stage = stage(64);
    let mut client = stage.client();
    assert!(reload(&mut client).wrong.is_empty());
    let bad = |at: usize| {
        put_tool(stage.directory.path(), &format!("bad-{at:03}.toml"), "no-such-key = 1\n");
    };
    bad(0);
    let one = reload(&mut client);
    assert!(!one.wrong.is_empty() && one.left_out == 0, "{one:?}");
    let files = MAX_RELOAD_LINES + 7;
    (1..files).for_each(bad);
    let report = reload(&mut client);
    let lines = report.wrong.len();
    assert_eq!((lines, lines + report.left_out as usize), (MAX_RELOAD_LINES, files * one.wrong.len()));
    let asked = || stage.said.count("nothing is reloaded");
    let before = asked();
    let mut leaves = stage.client();
    leaves.say(&ClientMessage::Reload);
    drop(leaves);
    until("it was read, and its client is gone", || asked() > before);
    client.status();
    drop(client);
    let all = entries(end(stage).path());
    assert_eq!(of(&all, "reloaded").len(), 1);
    let told = of(&all, "not-reloaded");
    assert_eq!(told.len(), 3);
    for entry in told {
        assert_eq!(entry.class, Class::Security);
        assert_eq!(entry.event.principal.as_ref().unwrap().uid, rustix::process::geteuid().as_raw());
        assert!(entry.json().contains("the old ones stay"), "{}", entry.json());
    }
}

#[test]
fn who_asks_and_gives_up_again_and_again_hides_no_other_question_of_his() {
    let stage = approvals::stage_with("", with_a_key);
    let mut client = stage.client();
    let noise = 200;
    let mut ask_and_give_up = |words: &[&str]| {
        let run = approvals::asks_for(&mut client, approvals::request(&stage, words));
        client.say(&ClientMessage::Cancel { exec_id: run });
        approvals::is_refused_by(&mut client, "cancelled");
        run.to_string()
    };
    (0..noise).for_each(|_| drop(ask_and_give_up(&["asked", "noise"])));
    let hidden = ask_and_give_up(&["asked", "the-one-to-hide"]);
    (0..noise).for_each(|_| drop(ask_and_give_up(&["asked", "noise"])));
    drop(client);
    let all = entries(end(stage).path());
    // It's found by its run: that it was asked, what it was, and that nobody answered.
    let of_it: Vec<&Entry> = all.iter().filter(|entry| entry.event.exec() == Some(&hidden)).collect();
    let names: Vec<&str> = of_it.iter().map(|entry| entry.event.name()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.contains(&"approval-asked") && names.contains(&"approval-over"));
    assert!(
        of_it.iter().any(|entry| entry.event.name() == "refused" && entry.json().contains("the-one-to-hide"))
    );
    for name in ["approval-asked", "approval-over"] {
        let written = of(&all, name).len() as u64;
        assert_eq!(written + counted(&all, name), 2 * noise + 1, "{name}: each is written or counted");
        assert!(written < noise, "{name}: {written}: nothing was counted, and nothing is tested");
    }
}
