//! A client whose time is passed in, and a run's story.

use std::io::Write;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};
use stockade_client::{Client, ClientError, Confinement, ExecEvent, ExecId, Request, StdioPath};
use stockade_protocol::client::{ClientMessage, ServerMessage, VERSION};
use stockade_protocol::confinement::Plan;
use stockade_protocol::outcome::MemoryMechanism;
use stockade_protocol::spec::Level;

use crate::script::{Door, Script, exited, frame, output};

/// Of what must come, on a busy machine.
const PATIENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// A client in a poll loop whose clock is ours.
pub(crate) struct Looped {
    pub(crate) client: Client,
    pub(crate) now: Instant,
}

impl Looped {
    /// A client and its supervisor, greeted.
    pub(crate) fn new(door: &Door) -> (Self, Script) {
        let client = Client::open(&door.path()).unwrap();
        let mut script = door.next();
        script.welcome(VERSION);
        let mut looped = Self { client, now: Instant::now() };
        while !looped.client.is_greeted() {
            looped.turn();
        }
        (looped, script)
    }

    /// One turn: waits for the socket while there is one, else lets the time pass until something is due.
    pub(crate) fn turn(&mut self) {
        if let Some(socket) = self.client.socket() {
            let mut polled = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
            assert_eq!(rustix::event::poll(&mut polled, Some(&PATIENCE)), Ok(1), "nothing comes");
        } else if let Some(due) = self.client.due() {
            self.now = self.now.max(due);
        }
        self.client.pump_at(self.now).unwrap();
    }

    /// What comes next.
    pub(crate) fn next(&mut self) -> Result<ServerMessage, ClientError> {
        loop {
            if let Some(received) = self.client.next_waiting() {
                return received;
            }
            self.turn();
        }
    }

    pub(crate) fn event(&mut self) -> (ExecId, u64, ExecEvent) {
        match self.next() {
            Ok(ServerMessage::Event { exec_id, seq, event }) => (exec_id, seq, event),
            other => panic!("expected an event: {other:?}"),
        }
    }

    /// Everything until a run's `Exited`.
    pub(crate) fn rest_of(&mut self, run: ExecId) -> Vec<(u64, ExecEvent)> {
        let mut all = Vec::new();
        loop {
            let (of, seq, event) = self.event();
            assert_eq!(of, run);
            let is_last = matches!(event, ExecEvent::Exited { .. });
            all.push((seq, event));
            if is_last {
                return all;
            }
        }
    }

    /// Asks for a run and has it accepted.
    pub(crate) fn run(&mut self, script: &mut Script, run: ExecId) {
        self.client.begin(&request()).unwrap();
        script.accept(run);
        assert!(matches!(self.event(), (of, 1, ExecEvent::Accepted { .. }) if of == run));
    }

    /// Goes on until the client stands at the door again. What comes meanwhile stays waiting.
    pub(crate) fn comes_to(&mut self, door: &Door) -> Script {
        loop {
            self.turn();
            if let Some(script) = door.come() {
                return script;
            }
        }
    }

    /// As [`Looped::comes_to`], and it's greeted.
    pub(crate) fn returns_to(&mut self, door: &Door) -> Script {
        let mut script = self.comes_to(door);
        script.welcome(VERSION);
        while self.client.pause().is_some() {
            self.turn();
        }
        script
    }
}

pub(crate) fn request() -> Request {
    Request::new(["true"]).workspace_path("/srv")
}

pub(crate) fn started() -> ExecEvent {
    let confinement = Confinement {
        policy: "default".into(),
        policy_digest: [0xa5; 32],
        level: Level::Strict,
        plan: Plan::User,
        layers: vec![],
        memory: MemoryMechanism::Monitor,
        host_uid: 1000,
        absent: vec![],
        stdio: [StdioPath::Null, StdioPath::Relayed, StdioPath::Relayed],
    };
    ExecEvent::Started { confinement: Box::new(confinement) }
}

/// What happens to a run after it's accepted.
pub(crate) fn story() -> Vec<(u64, ExecEvent)> {
    let events = [started(), output("one"), output(&"bulk ".repeat(2_000)), output("three"), exited(7)];
    (2..).zip(events).collect()
}

pub(crate) fn frames(run: ExecId, events: &[(u64, ExecEvent)]) -> Vec<u8> {
    let message = |(seq, event): &(u64, ExecEvent)| ServerMessage::Event {
        exec_id: run,
        seq: *seq,
        event: event.clone(),
    };
    events.iter().flat_map(|event| frame(&message(event))).collect()
}

pub(crate) fn attach(run: ExecId, after_seq: u64) -> Option<ClientMessage> {
    Some(ClientMessage::Attach { exec_id: run, after_seq })
}

/// Tells a client that attaches the rest of the story.
pub(crate) fn tell_rest(script: &mut Script, run: ExecId, story: &[(u64, ExecEvent)]) {
    let Some(ClientMessage::Attach { exec_id, after_seq }) = script.read() else { panic!("no attach") };
    assert_eq!(exec_id, run);
    let rest: Vec<_> = story.iter().filter(|(seq, _)| *seq > after_seq).cloned().collect();
    script.0.write_all(&frames(run, &rest)).unwrap();
}
