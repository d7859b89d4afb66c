//! When a client is told that its run was accepted: not before the launcher's channel has the run, which therefore happens
//! even if we are killed in the next moment.

use std::io::Read as _;

use stockade_protocol::client::{ClientMessage, ExecEvent, ExecRequest, ServerMessage, StdinMode};
use stockade_protocol::{Bytes, ExecId};

use super::stage::{Changes, Client, Launcher, Stage, until};
use crate::serve::Order;

/// The run that the next `Accepted` is about.
fn next_accepted(client: &mut Client) -> ExecId {
    match client.next() {
        ServerMessage::Event { exec_id, seq: 1, event: ExecEvent::Accepted { .. } } => exec_id,
        other => panic!("{other:?} instead of Accepted"),
    }
}

/// More runs than a channel takes that takes so many bytes: each has long arguments.
const ASKED: usize = 48;
const CHANNEL: usize = 64 * 1024;
const ARGUMENT: usize = 8 * 1024;

fn stage(keep: bool) -> Stage {
    let changes =
        Changes { slots: ASKED / 2, queue: ASKED, channel: Some(CHANNEL), keep, ..Changes::default() };
    Stage::new(changes)
}

/// Asks for the runs, and behind them for how the daemon is: with the answer it has heard of all.
fn ask_all(stage: &Stage, client: &mut Client, stdin: &StdinMode) {
    for _ in 0..ASKED {
        let argv = vec!["/bin/true".into(), Bytes(vec![b'x'; ARGUMENT])];
        client.ask(ExecRequest { argv, stdin: stdin.clone(), ..stage.request() });
    }
    client.say(&ClientMessage::Status);
}

#[test]
fn what_a_full_channel_has_not_taken_nobody_is_told_of() {
    // The input of the one passes through the daemon.
    for stdin in [StdinMode::None, StdinMode::Stream] {
        nobody_is_told_of_what_was_not_taken(&stdin);
    }
}

fn nobody_is_told_of_what_was_not_taken(stdin: &StdinMode) {
    let stage = stage(false);
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    ask_all(&stage, &mut client, stdin);
    let mut told = Vec::new();
    let counted = loop {
        match client.next() {
            ServerMessage::Status(status) => break status.accepted,
            ServerMessage::Event { exec_id, seq: 1, .. } => told.push(exec_id),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(counted, ASKED as u64, "the daemon has taken them all");
    // The first goes through, however long that takes.
    while told.is_empty() || !client.hears_nothing() {
        told.push(next_accepted(&mut client));
    }
    assert!(told.len() < ASKED, "{} of {ASKED}: the launcher reads nothing", told.len());
    // In the order that they were handed over.
    let handed: Vec<ExecId> = told.iter().map(|_| launcher.next_handed()).collect();
    assert_eq!(told, handed);
    // The launcher reads on, and the clients of the others hear of it.
    for _ in told.len()..ASKED {
        let handed = launcher.next_handed();
        assert_eq!(next_accepted(&mut client), handed);
    }
}

#[test]
fn without_a_launcher_nobody_is_told_until_there_is_one() {
    let stage = Stage::new(Changes::default());
    let mut client = stage.client();
    client.ask(stage.request());
    assert!(client.hears_nothing(), "nobody would start it");
    let mut launcher = stage.launcher();
    let run = next_accepted(&mut client);
    assert_eq!(launcher.play(b""), run);
}

#[test]
fn a_run_that_waits_is_held_with_what_has_come_of_its_input() {
    let stage = Stage::new(Changes { slots: 1, ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    client.exec(stage.request());
    let run = client.exec(ExecRequest { stdin: StdinMode::Stream, ..stage.request() });
    client.say(&ClientMessage::StdinData { exec_id: run, bytes: "early ".into() });
    launcher.play(b"");
    // What comes when it has been started takes the same way.
    client.say(&ClientMessage::StdinData { exec_id: run, bytes: "late".into() });
    client.say(&ClientMessage::StdinEof { exec_id: run });
    let (launch, mut descriptors) = launcher.launch();
    assert!(launch.exec_id == run && launch.note.fed);
    let mut read = String::new();
    std::fs::File::from(descriptors.remove(0)).read_to_string(&mut read).unwrap();
    assert_eq!(read, "early late");
}

/// Input that has gone into the pipe is still there for the launcher after the one that died, which is told that it's all.
#[test]
fn a_run_that_waits_has_its_input_though_the_launcher_that_held_it_dies() {
    let stage = Stage::new(Changes { slots: 1, ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    client.exec(stage.request());
    let run = client.exec(ExecRequest { stdin: StdinMode::Inline("all of it".into()), ..stage.request() });
    launcher.launch();
    let is_told = |launcher: &mut Launcher| {
        launcher.hears_something();
        launcher.held.contains_key(&run) && launcher.inputs.get(&run) == Some(&9)
    };
    until("its input is told to be there", || is_told(&mut launcher));
    drop(launcher);
    let mut launcher = stage.launcher();
    let (launch, mut descriptors) = launcher.launch();
    assert_eq!(launch.exec_id, run);
    until("the next is told, too", || {
        launcher.hears_something();
        launcher.inputs.get(&run) == Some(&9)
    });
    let mut read = String::new();
    std::fs::File::from(descriptors.remove(0)).read_to_string(&mut read).unwrap();
    assert_eq!(read, "all of it");
}

/// What launchers are told nobody else knows, and these runs are to go on.
#[test]
fn a_stop_that_keeps_runs_waits_until_the_launcher_was_told_of_all_of_them() {
    let stage = stage(true);
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    ask_all(&stage, &mut client, &StdinMode::Stream);
    while !matches!(client.next(), ServerMessage::Status(_)) {}
    stage.order(Order::Stop);
    for _ in 0..ASKED {
        launcher.next_handed();
    }
    drop(launcher);
    stage.join();
}
