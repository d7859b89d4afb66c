//! Many runs through one daemon: every one right, and nothing left afterwards.
//!
//! 500 runs unless `STOCKADE_MANY` says another number; 64 in flight.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

use std::collections::HashMap;
use std::os::fd::AsFd as _;
use std::time::Duration;

use stockade_protocol::ExecId;
use stockade_protocol::client::{ClientMessage, ExecEvent, ServerMessage, Stream};
use stockade_protocol::outcome::Outcome;
use stockade_tests::setting::marker;
use stockade_tests::wire::{Came, Wire, request, workspace};
use stockade_tests::{Daemon, Ground, Mode, left, wait_until};

const IN_FLIGHT: usize = 64;

fn number() -> usize {
    std::env::var("STOCKADE_MANY").ok().and_then(|text| text.parse().ok()).unwrap_or(500)
}

/// What one run is to say, by its number.
fn line(number: u64) -> (String, String, u8) {
    let code = u8::try_from(number % 7).unwrap();
    (format!("echo run {number}; exit {code}"), format!("run {number}\n"), code)
}

/// One run as it comes in.
#[derive(Default)]
struct Seen {
    number: u64,
    last_seq: u64,
    output: Vec<u8>,
}

/// The runs of one connection.
struct Crowd<'a> {
    wire: Wire,
    ground: &'a Ground,
    seen: HashMap<ExecId, Seen>,
    next: u64,
    ended: usize,
}

impl Crowd<'_> {
    fn ask(&mut self, policy: &str) {
        let (words, _, _) = line(self.next);
        let mut asked = request(self.ground, policy, &["sh", "-c", &words]);
        asked.request_id = self.next;
        self.next += 1;
        let folder = workspace(self.ground);
        self.wire.send(&ClientMessage::Exec(Box::new(asked)), &[folder.as_fd()]);
    }

    /// Takes one message; whether a run has ended.
    fn take(&mut self) -> bool {
        let ServerMessage::Event { exec_id, seq, event } = self.wire.message() else {
            panic!("not an event");
        };
        let seen = self.seen.entry(exec_id).or_default();
        assert_eq!(seq, seen.last_seq + 1, "sequence of {exec_id}: {event:?}");
        seen.last_seq = seq;
        match event {
            ExecEvent::Accepted { request_id } => seen.number = request_id,
            ExecEvent::Output { stream: Stream::Stdout, bytes } => seen.output.extend_from_slice(&bytes),
            ExecEvent::Output { bytes, .. } => panic!("on standard error: {bytes:?}"),
            ExecEvent::Exited { outcome, usage, .. } => {
                let (_, text, code) = line(seen.number);
                assert_eq!(outcome, Outcome::Exited { code }, "{exec_id}: {usage:?}");
                assert_eq!(String::from_utf8_lossy(&seen.output), text);
                self.seen.remove(&exec_id);
                self.wire.send(&ClientMessage::Acknowledge { exec_id, seq }, &[]);
                self.ended += 1;
                return true;
            }
            _ => {}
        }
        false
    }

    /// So many runs more, so many of them in flight.
    fn go(&mut self, policy: &str, runs: usize) {
        let (mut asked, target) = (0, self.ended + runs);
        while asked < runs.min(IN_FLIGHT) {
            self.ask(policy);
            asked += 1;
        }
        while self.ended < target {
            if self.take() && asked < runs {
                self.ask(policy);
                asked += 1;
            }
        }
    }
}

/// What a daemon holds: its processes, the descriptors of each of its two lasting ones, and their memory.
#[derive(Debug)]
struct Holding {
    processes: usize,
    descriptors: usize,
    supervisor_kib: u64,
    launcher_kib: u64,
}

fn holding(daemon: &Daemon) -> Holding {
    let tree = left::tree(daemon.pid());
    let launcher =
        tree.iter().find(|process| process.parent == daemon.pid()).map_or(0, |process| process.pid);
    Holding {
        processes: tree.len(),
        descriptors: left::descriptors(daemon.pid()) + left::descriptors(launcher),
        supervisor_kib: left::resident(daemon.pid()),
        launcher_kib: left::resident(launcher),
    }
}

#[test]
fn many_runs_with_64_in_flight_are_all_right_and_leave_nothing() {
    for mode in Mode::daemons_here() {
        let daemon = Daemon::start(mode.server(), &[]);
        let ground = Ground::new(mode.client());
        let wire = Wire::greeted(&daemon, mode.client());
        let mut crowd = Crowd { wire, ground: &ground, seen: HashMap::new(), next: 1, ended: 0 };
        let mounts = left::mounts();
        // The first tenth warms everything that is kept on purpose.
        let first = (number() / 10).max(IN_FLIGHT);
        crowd.go("default", first);
        settle(&daemon);
        let before = holding(&daemon);
        crowd.go("default", number());
        settle(&daemon);
        // A helper or a spare worker more than before is none of the runs'.
        let mut after = holding(&daemon);
        let given_back = wait_until(PATIENCE, || {
            after = holding(&daemon);
            after.processes <= before.processes + 2 && after.descriptors <= before.descriptors + 6
        });
        assert!(given_back, "{mode:?}: {before:?} {after:?}");
        // A tenth more, and a MiB for the allocator's own ways on so small a process.
        let within = |before: u64, after: u64| after <= before + before / 10 + 1024;
        assert!(within(before.supervisor_kib, after.supervisor_kib), "{mode:?}: {before:?} {after:?}");
        assert!(within(before.launcher_kib, after.launcher_kib), "{mode:?}: {before:?} {after:?}");
        assert_eq!(left::mounts(), mounts, "{mode:?}");
        assert!(left::names(&ground.work()).is_empty(), "{:?}", left::names(&ground.work()));
        assert!(left::names(&daemon.ground.base().join("tmp")).is_empty());
    }
}

/// Waits until no run's process is on its way out any more, and no template keeps workers for another (ten seconds).
fn settle(daemon: &Daemon) {
    let mut last = usize::MAX;
    let is_template = |process: &left::Process| process.command.ends_with(" template");
    wait_until(PATIENCE, || !left::tree(daemon.pid()).iter().any(is_template));
    wait_until(PATIENCE, || {
        let now = left::tree(daemon.pid()).len();
        let is_steady = now == last;
        last = now;
        std::thread::sleep(Duration::from_millis(100));
        is_steady
    });
}

/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many runs are asked for at once: more than fit into the channel of the template that makes their workers.
const AT_ONCE: u64 = 700;

#[test]
fn hundreds_of_runs_asked_for_at_once_all_start_and_are_all_heard() {
    for mode in Mode::daemons_here() {
        let daemon = Daemon::start(mode.server(), &["--slots", "1000"]);
        let ground = Ground::new(mode.client());
        let mut wire = Wire::greeted(&daemon, mode.client());
        let folder = workspace(&ground);
        for number in 0..AT_ONCE {
            let mut asked = request(&ground, "default", &["sh", "-c", "echo on; exec sleep 1000"]);
            asked.request_id = number;
            wire.send(&ClientMessage::Exec(Box::new(asked)), &[folder.as_fd()]);
        }
        let (mut accepted, mut started, mut heard) = (0, 0, 0);
        while heard < AT_ONCE {
            let came = wire.receive(PATIENCE);
            let Came::Message(message) = &came else {
                panic!("{mode:?}, {accepted} accepted, {started} started, {heard} heard, then {came:?}");
            };
            match &**message {
                ServerMessage::Event { event: ExecEvent::Accepted { .. }, .. } => accepted += 1,
                ServerMessage::Event { event: ExecEvent::Started { .. }, .. } => started += 1,
                ServerMessage::Event { event: ExecEvent::Output { bytes, .. }, .. } if bytes.0 == b"on\n" => {
                    heard += 1;
                }
                other => panic!("{mode:?}, {started} started: {other:?}"),
            }
        }
        assert_eq!((accepted, started), (AT_ONCE, AT_ONCE));
    }
}

#[test]
fn many_embedded_runs_in_a_row_are_all_right_and_leave_nothing() {
    for setting in stockade_tests::Setting::each().filter(|setting| !setting.mode.has_daemon()) {
        let (mounts, word) = (left::mounts(), marker("embedded"));
        for number in 0..50 {
            let (words, text, code) = line(number);
            let words = format!("{words}; : {word}");
            setting.bash("default", &words).expect_code(i32::from(code)).expect_text(text.trim());
        }
        assert_eq!(left::mounts(), mounts);
        let names = left::names(&setting.ground.base().join("tmp"));
        assert!(names.is_empty(), "{names:?}");
        assert!(left::with_word(&word).is_empty());
    }
}
