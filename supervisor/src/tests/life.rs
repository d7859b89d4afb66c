//! The daemon's own life: launchers that die, stopping.

use std::time::{Duration, Instant};

use stockade_protocol::client::{ExecEvent, ServerMessage};
use stockade_protocol::denied::DenyReason;
use stockade_protocol::launch::ToLauncher;
use stockade_protocol::outcome::{CancelReason, Outcome};

use super::stage::{Changes, Client, Stage, until};
use crate::serve::Order;

fn outcome_of(client: &mut Client) -> Outcome {
    loop {
        match client.next() {
            ServerMessage::Event { event: ExecEvent::Exited { outcome, .. }, .. } => return outcome,
            ServerMessage::Event { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_launcher_that_dies_loses_its_runs_at_once_and_is_replaced() {
    let stage = Stage::new(Changes { slots: 1, ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let lost = client.exec(stage.request());
    let waiting = client.exec(stage.request());
    let (launch, _) = launcher.launch();
    launcher.started(&launch);
    launcher.write(lost, b"said before");
    client.event(lost, 2);
    client.event(lost, 3);
    drop(launcher);
    let ExecEvent::Exited { outcome: Outcome::Lost { reason }, .. } = client.event(lost, 4) else {
        panic!("not lost")
    };
    assert!(reason.contains("launcher") || reason.contains("relay"), "{reason}");
    // The one that waited goes to the next launcher.
    let mut launcher = stage.launcher();
    assert_eq!(launcher.play(b"x"), waiting);
    assert_eq!(client.read_to_end(waiting, 2).0, b"x");
}

#[test]
fn a_launcher_that_talks_nonsense_is_replaced() {
    let stage = Stage::new(Changes::default());
    let launcher = stage.launcher();
    let mut client = stage.client();
    let run = client.exec(stage.request());
    // Not a message: the first byte of a datagram says where its message is.
    launcher.relay.send(&0_u64, &[]).unwrap();
    assert!(matches!(outcome_of(&mut client), Outcome::Lost { .. }), "{run}");
    let mut launcher = stage.launcher();
    let run = client.exec(stage.request());
    assert_eq!(launcher.play(b""), run);
}

#[test]
fn a_run_that_comes_when_the_relay_has_gone_waits_for_the_next_launcher() {
    let stage = Stage::new(Changes::default());
    let launcher = stage.launcher();
    let mut client = stage.client();
    launcher.relay.send(&0_u64, &[]).unwrap();
    // The launcher itself is there for a moment more; how soon the daemon hears of its relay isn't said.
    let mut early = Vec::new();
    let mut waits = loop {
        let mut other = stage.client();
        other.ask(stage.request());
        let mut queued = 0;
        until("it's known", || {
            let status = client.status();
            queued = status.queued;
            queued > 0 || status.running as usize > early.len()
        });
        if queued > 0 {
            break other;
        }
        early.push(other);
    };
    assert!(early.len() < 20, "it goes on getting runs: {}", early.len());
    let mut next = stage.launcher();
    next.play(b"x");
    assert_eq!(outcome_of(&mut waits), Outcome::Exited { code: 0 });
    for mut other in early {
        assert!(matches!(outcome_of(&mut other), Outcome::Lost { .. }));
    }
    drop(launcher);
}

#[test]
fn a_drain_lets_runs_end_refuses_new_ones_and_ends_the_launcher() {
    let stage = Stage::new(Changes { slots: 1, ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let run = client.exec(stage.request());
    let waiting = client.exec(stage.request());
    let (launch, _) = launcher.launch();
    launcher.started(&launch);
    client.event(run, 2);
    stage.order(Order::Stop);
    assert_eq!(client.read_to_end(waiting, 2).1, Outcome::Cancelled { reason: CancelReason::Draining });
    assert_eq!(client.denied(stage.request(), &[]).reason, DenyReason::Draining);
    assert!(client.status().draining);
    launcher.write(run, b"last words");
    launcher.end_output(run);
    launcher.ended(run, Outcome::Exited { code: 0 });
    assert_eq!(client.read_to_end(run, 3).0, b"last words");
    assert_eq!(launcher.next(), ToLauncher::Shutdown);
    drop(launcher);
    let socket = stage.socket.clone();
    stage.join();
    assert!(!socket.exists(), "the socket is left behind");
}

#[test]
fn a_launcher_that_does_not_end_when_asked_leaves_neither_a_door_nor_its_name() {
    let stage = Stage::new(Changes::default());
    let mut launcher = stage.launcher();
    let (doors, state) = (stage.directory.path().join("daemon"), stage.directory.path().join("state"));
    let has_door = || {
        let names = std::fs::read_dir(&doors).unwrap().map(|entry| entry.unwrap().file_name());
        names.into_iter().any(|name| name.to_str().unwrap().starts_with("launcher-"))
    };
    assert!(has_door());
    stage.order(Order::Stop);
    assert_eq!(launcher.next(), ToLauncher::Shutdown);
    let directory = stage.join_but_keep();
    assert!(!has_door(), "its door is left");
    let written = std::fs::read_to_string(state.join("launchers.json")).unwrap();
    assert!(!written.contains("launcher-"), "{written}");
    drop((launcher, directory));
}

#[test]
fn the_grace_of_a_drain_ends_and_a_second_stop_ends_it_at_once() {
    for (grace, stops) in [(Duration::from_millis(100), 1), (Duration::from_secs(3600), 2)] {
        let stage = Stage::new(Changes { grace, ..Changes::default() });
        let mut launcher = stage.launcher();
        let mut client = stage.client();
        let run = client.exec(stage.request());
        launcher.launch();
        for _ in 0..stops {
            stage.order(Order::Stop);
        }
        let reason = CancelReason::Draining;
        assert_eq!(launcher.next(), ToLauncher::Cancel { exec_id: run, reason: reason.clone() });
        launcher.ended(run, Outcome::Cancelled { reason: reason.clone() });
        assert_eq!(client.read_to_end(run, 2).1, Outcome::Cancelled { reason });
        drop(launcher);
        stage.join();
    }
}

#[test]
fn times_that_no_clock_reaches_are_only_far_away() {
    let stage = Stage::new(Changes { retention: Duration::MAX, grace: Duration::MAX, ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let run = client.exec(stage.request());
    assert_eq!(launcher.play(b"x"), run);
    client.event(run, 2);
    client.event(run, 3);
    client.event(run, 4);
    // Not acknowledged, so kept for ever; and the daemon still answers.
    assert_eq!(client.runs().len(), 1);
    stage.order(Order::Stop);
    drop(launcher);
    stage.join();
}

#[test]
fn an_ended_run_is_forgotten_when_its_time_is_over() {
    let retention = Duration::from_millis(300);
    let stage = Stage::new(Changes { retention, ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let run = client.exec(stage.request());
    let before = Instant::now();
    assert_eq!(launcher.play(b"x"), run);
    for seq in 2..=4 {
        client.event(run, seq);
    }
    until("forgotten", || client.runs().is_empty());
    // Its clock counts whole milliseconds.
    assert!(before.elapsed() + Duration::from_millis(2) > retention, "forgotten too soon");
}
