//! A supervisor that is killed over and over while runs write.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::time::Duration;

use stockade_protocol::ExecId;
use stockade_protocol::client::{ClientMessage, ExecEvent, ServerMessage};
use stockade_protocol::outcome::Outcome;
use stockade_tests::wire::{Came, Wire, request, workspace};
use stockade_tests::{Daemon, Ground, Mode};

use crate::follower::Follower;

/// Kills, unless `STOCKADE_RESTARTS` says otherwise.
const KILLS: u32 = 20;
/// Runs that write meanwhile.
const RUNS: usize = 20;

/// A run that writes numbered lines until it's told to stop, by a file of its own.
fn writer(daemon: &Daemon, ground: &Ground, number: usize) -> Follower {
    let line = format!(
        "i=0; while [ ! -e stop ]; do i=$((i+1)); echo run {number} line $i; [ $((i % 20)) = 0 ] && sleep 0.01; done; \
         exit {number}"
    );
    let mut asked = request(ground, "test-long", &["bash", "-c", &line]);
    asked.request_id = number as u64 + 1;
    Follower::of(daemon, ground, asked)
}

#[test]
fn many_kills_lose_no_run_and_no_byte() {
    let kills = std::env::var("STOCKADE_RESTARTS").map_or(KILLS, |kills| kills.parse().unwrap());
    let mode = Mode::a_daemon();
    let ground = Ground::new(mode.client());
    let daemon_ground = Ground::new(mode.server());
    let policy = "name = \"test-long\"\ndescription = \"as long as it takes\"\nextends = \"default\"\n\
                  [limits]\nwall-time = \"3h\"\ncpu-time = \"3h\"\noutput = \"none\"\n";
    std::fs::write(daemon_ground.policies().join("test-long.toml"), policy).unwrap();
    daemon_ground.person.own_all(&daemon_ground.policies());
    let daemon = Daemon::start_at(daemon_ground, &[]);
    let mut runs: Vec<Follower> = (0..RUNS).map(|number| writer(&daemon, &ground, number)).collect();
    for kill in 0..kills {
        for run in &mut runs {
            let had = run.output.len();
            run.follow(|run| run.output.len() > had);
            assert!(run.end.is_none(), "a run has ended by itself after {kill} kills: {:?}", run.end);
        }
        daemon.kill();
        for run in &mut runs {
            run.follow(|_| false);
        }
        daemon.start_again(&[]);
        for run in &mut runs {
            run.come_back(&daemon);
        }
    }
    std::fs::write(ground.work().join("stop"), "").unwrap();
    let mut bytes = 0;
    for (number, run) in runs.iter_mut().enumerate() {
        let code = u8::try_from(number).unwrap();
        assert_eq!(run.follow_to_the_end().0, Outcome::Exited { code });
        let text = String::from_utf8(std::mem::take(&mut run.output)).unwrap();
        let mut lines = 0_usize;
        for (at, line) in text.lines().enumerate() {
            assert_eq!(line, format!("run {number} line {}", at + 1));
            lines += 1;
        }
        assert!(lines > 0 && text.ends_with('\n'));
        bytes += text.len();
        run.acknowledge();
        assert_eq!(run.last_words(Duration::from_millis(50)), None, "something follows the end");
    }
    println!("{kills} kills, {RUNS} runs, {bytes} bytes of output, each once");
}

/// Kills in the middle of requests, cancels, starts and ends: what was cancelled while it waited never starts, what was
/// accepted and not cancelled runs once.
#[test]
fn kills_amid_traffic_start_nothing_twice_and_nothing_that_was_cancelled() {
    const ROUNDS: usize = 12;
    const ASKED: usize = 40;
    let mode = Mode::a_daemon();
    let ground = Ground::new(mode.client());
    let slots = ["--slots", "4"];
    let daemon = Daemon::start(mode.server(), &slots);
    for round in 0..ROUNDS {
        let mut wire = Wire::greeted(&daemon, ground.person);
        let workspace = workspace(&ground);
        let mut runs = Vec::new();
        for number in 0..ASKED {
            let line = format!("echo {round}-{number} >> ran");
            let mut asked = request(&ground, "default", &["bash", "-c", &line]);
            asked.detach = true;
            asked.request_id = number as u64 + 1;
            wire.send(&ClientMessage::Exec(Box::new(asked)), &[workspace.as_fd()]);
        }
        let mut cancelled = BTreeSet::new();
        let mut ended = BTreeSet::new();
        // Every third is cancelled as soon as it is accepted; whether it was in time, its end says.
        while runs.len() < ASKED {
            match wire.message() {
                ServerMessage::Event { exec_id, event: ExecEvent::Accepted { request_id }, .. } => {
                    runs.push((exec_id, request_id - 1));
                    if request_id % 3 == 0 {
                        wire.send(&ClientMessage::Cancel { exec_id }, &[]);
                    }
                }
                ServerMessage::Event { exec_id, event, .. } => {
                    note(exec_id, &event, &mut cancelled, &mut ended)
                }
                ServerMessage::Denied { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        std::thread::sleep(Duration::from_millis(round as u64 * 3));
        daemon.kill();
        while let Came::Message(message) = wire.receive(Duration::from_secs(20)) {
            if let ServerMessage::Event { exec_id, event, .. } = *message {
                note(exec_id, &event, &mut cancelled, &mut ended);
            }
        }
        daemon.start_again(&slots);
        let mut wire = Wire::greeted(&daemon, ground.person);
        let open: Vec<ExecId> = runs.iter().map(|run| run.0).filter(|run| !ended.contains(run)).collect();
        for exec_id in &open {
            wire.send(&ClientMessage::Attach { exec_id: *exec_id, after_seq: 1 }, &[]);
            loop {
                match wire.message() {
                    ServerMessage::Event { exec_id: of, event, .. } if of == *exec_id => {
                        note(of, &event, &mut cancelled, &mut ended);
                        if ended.contains(exec_id) {
                            break;
                        }
                    }
                    ServerMessage::Denied { denied, .. } => {
                        panic!("round {round}: {exec_id} is lost: {denied:?}")
                    }
                    _ => {}
                }
            }
        }
        let text = std::fs::read_to_string(ground.work().join("ran")).unwrap_or_default();
        for (exec_id, number) in runs {
            let line = format!("{round}-{number}");
            let times = text.lines().filter(|ran| **ran == line).count();
            if cancelled.contains(&exec_id) {
                assert!(times <= 1, "{line} ran {times} times");
            } else {
                assert_eq!(times, 1, "round {round}: {line}, which wasn't cancelled");
            }
        }
    }
    // What was cancelled before it started never started, not even now.
    let before = std::fs::read_to_string(ground.work().join("ran")).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(std::fs::read_to_string(ground.work().join("ran")).unwrap(), before);
}

fn note(exec_id: ExecId, event: &ExecEvent, cancelled: &mut BTreeSet<ExecId>, ended: &mut BTreeSet<ExecId>) {
    if let ExecEvent::Exited { outcome, .. } = event {
        assert!(ended.insert(exec_id), "two ends of {exec_id}");
        match outcome {
            Outcome::Exited { code: 0 } => {}
            Outcome::Cancelled { .. } => {
                cancelled.insert(exec_id);
            }
            other => panic!("{exec_id}: {other:?}"),
        }
    }
}
