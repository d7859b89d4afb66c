//! A supervisor that is killed over and over while runs write.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::time::Duration;

use stockade_protocol::ExecId;
use stockade_protocol::client::{ClientMessage, ExecEvent, ServerMessage};
use stockade_protocol::outcome::Outcome;
use stockade_tests::wire::{Came, Wire, request, workspace};
use stockade_tests::{Daemon, Ground, Mode, not_tested};

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
    let mode = Mode::a_daemon();
    println!("{}", many_kills(mode, |ground| Daemon::start_at(ground, &[])));
}

/// As the two units have it.
#[test]
fn many_kills_of_a_supervisor_that_is_apart_lose_no_run_and_no_byte() {
    let mode = Mode::a_daemon();
    if !mode.server().is_root() {
        return not_tested("kills of a supervisor that is apart", "only root's launchers are another user's");
    }
    let apart = |ground: Ground| {
        let launcher = ground.binaries.launcher.clone();
        Daemon::start_apart_at(ground, launcher)
    };
    println!("two units: {}", many_kills(mode, apart));
}

/// Gives what was seen.
fn many_kills(mode: Mode, start: impl FnOnce(Ground) -> Daemon) -> String {
    let kills = std::env::var("STOCKADE_RESTARTS").map_or(KILLS, |kills| kills.parse().unwrap());
    let ground = Ground::new(mode.client());
    let daemon_ground = Ground::new(mode.server());
    let policy = "name = \"test-long\"\ndescription = \"as long as it takes\"\nextends = \"default\"\n\
                  [limits]\nwall-time = \"3h\"\ncpu-time = \"3h\"\noutput = \"none\"\n";
    std::fs::write(daemon_ground.policies().join("test-long.toml"), policy).unwrap();
    daemon_ground.person.own_all(&daemon_ground.policies());
    let daemon = start(daemon_ground);
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
    format!("{kills} kills, {RUNS} runs, {bytes} bytes of output, each once")
}

/// What is known of the runs of one round.
#[derive(Default)]
struct Round {
    /// Those that were accepted, and what each writes.
    runs: Vec<(ExecId, String)>,
    cancelled: BTreeSet<ExecId>,
    ended: BTreeSet<ExecId>,
}

impl Round {
    /// Asks for runs that each write a line, and cancels every third as soon as it is accepted; whether that was in time, its
    /// end says.
    fn ask(&mut self, wire: &mut Wire, ground: &Ground, lines: &[String]) {
        let workspace = workspace(ground);
        for (number, line) in lines.iter().enumerate() {
            let mut asked = request(ground, "default", &["bash", "-c", &format!("echo {line} >> ran")]);
            asked.detach = true;
            asked.request_id = number as u64;
            wire.send(&ClientMessage::Exec(Box::new(asked)), &[workspace.as_fd()]);
        }
        while self.runs.len() < lines.len() {
            match wire.message() {
                ServerMessage::Event { exec_id, event: ExecEvent::Accepted { request_id }, .. } => {
                    let number = usize::try_from(request_id).unwrap();
                    self.runs.push((exec_id, lines[number].clone()));
                    if number.is_multiple_of(3) {
                        wire.send(&ClientMessage::Cancel { exec_id }, &[]);
                    }
                }
                ServerMessage::Event { exec_id, event, .. } => self.note(exec_id, &event),
                ServerMessage::Denied { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Takes what was in the socket when the daemon was killed.
    fn take_last_words(&mut self, wire: &mut Wire) {
        while let Came::Message(message) = wire.receive(Duration::from_secs(20)) {
            if let ServerMessage::Event { exec_id, event, .. } = *message {
                self.note(exec_id, &event);
            }
        }
    }

    /// Follows to its end whatever hasn't ended.
    fn follow(&mut self, wire: &mut Wire) {
        for exec_id in self.runs.iter().map(|run| run.0).collect::<Vec<_>>() {
            if self.ended.contains(&exec_id) {
                continue;
            }
            wire.send(&ClientMessage::Attach { exec_id, after_seq: 1 }, &[]);
            while !self.ended.contains(&exec_id) {
                match wire.message() {
                    ServerMessage::Event { exec_id: of, event, .. } => self.note(of, &event),
                    ServerMessage::Denied { denied, .. } => panic!("{exec_id} is lost: {denied:?}"),
                    _ => {}
                }
            }
        }
    }

    fn note(&mut self, exec_id: ExecId, event: &ExecEvent) {
        if let ExecEvent::Exited { outcome, .. } = event {
            assert!(self.ended.insert(exec_id), "two ends of {exec_id}");
            match outcome {
                Outcome::Exited { code: 0 } => {}
                Outcome::Cancelled { .. } => {
                    self.cancelled.insert(exec_id);
                }
                other => panic!("{exec_id}: {other:?}"),
            }
        }
    }

    /// Whether each has run once, or not at all if it was cancelled in time.
    fn check(&self, ran: &str) {
        for (exec_id, line) in &self.runs {
            let times = ran.lines().filter(|ran| ran == line).count();
            if self.cancelled.contains(exec_id) {
                assert!(times <= 1, "{line} ran {times} times");
            } else {
                assert_eq!(times, 1, "{line}, which wasn't cancelled");
            }
        }
    }
}

/// Kills in the middle of requests, cancels, starts and ends: what was cancelled while it waited never starts, what was
/// accepted and not cancelled runs once.
#[test]
fn kills_amid_traffic_start_nothing_twice_and_nothing_that_was_cancelled() {
    const ROUNDS: u64 = 12;
    const ASKED: u32 = 40;
    let mode = Mode::a_daemon();
    let ground = Ground::new(mode.client());
    let slots = ["--slots", "4"];
    let daemon = Daemon::start(mode.server(), &slots);
    let ran = || std::fs::read_to_string(ground.work().join("ran")).unwrap_or_default();
    for number in 0..ROUNDS {
        let lines: Vec<String> = (0..ASKED).map(|run| format!("{number}-{run}")).collect();
        let mut round = Round::default();
        let mut wire = Wire::greeted(&daemon, ground.person);
        round.ask(&mut wire, &ground, &lines);
        std::thread::sleep(Duration::from_millis(number * 3));
        daemon.kill();
        round.take_last_words(&mut wire);
        daemon.start_again(&slots);
        round.follow(&mut Wire::greeted(&daemon, ground.person));
        round.check(&ran());
    }
    // What was cancelled before it started never started, not even now.
    let before = ran();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(ran(), before);
}
