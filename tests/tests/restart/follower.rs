//! A client that is cut off and comes back, by hand: it counts every event.

use std::os::fd::AsFd as _;
use std::time::Duration;

use stockade_protocol::ExecId;
use stockade_protocol::client::{ClientMessage, ExecEvent, ExecRequest, ServerMessage};
use stockade_protocol::outcome::{Outcome, Usage};
use stockade_tests::wire::{Came, Wire, workspace};
use stockade_tests::{Daemon, Ground, Person};

/// How long an event may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One run, and what has come of it.
pub(crate) struct Follower {
    person: Person,
    wire: Wire,
    pub(crate) exec_id: ExecId,
    last: u64,
    pub(crate) output: Vec<u8>,
    pub(crate) end: Option<(Outcome, Usage)>,
}

impl Follower {
    /// Asks for a run.
    pub(crate) fn of(daemon: &Daemon, ground: &Ground, request: ExecRequest) -> Self {
        let mut wire = Wire::greeted(daemon, ground.person);
        wire.send(&ClientMessage::Exec(Box::new(request)), &[workspace(ground).as_fd()]);
        let exec_id = wire.accepted();
        Self { person: ground.person, wire, exec_id, last: 1, output: Vec::new(), end: None }
    }

    /// Says something about the run.
    pub(crate) fn say(&mut self, message: &ClientMessage) {
        self.wire.send(message, &[]);
    }

    /// Asks the daemon how it is, and waits for the answer. Of the run nothing may come meanwhile.
    pub(crate) fn question(&mut self) {
        self.say(&ClientMessage::Status);
        match self.wire.receive(PATIENCE) {
            Came::Message(message) if matches!(*message, ServerMessage::Status(_)) => {}
            Came::Message(message) => panic!("{message:?} instead of an answer"),
            Came::Closed | Came::Nothing => panic!("no answer comes"),
        }
    }

    /// Connects again and goes on after the last event.
    pub(crate) fn come_back(&mut self, daemon: &Daemon) {
        self.wire = Wire::greeted(daemon, self.person);
        self.wire.send(&ClientMessage::Attach { exec_id: self.exec_id, after_seq: self.last }, &[]);
    }

    /// As [`come_back`](Self::come_back), for everything that is kept.
    pub(crate) fn come_back_from_the_start(&mut self, daemon: &Daemon) {
        self.last = 0;
        self.come_back(daemon);
    }

    /// Takes what comes until something is so, the run has ended, or the daemon has.
    pub(crate) fn follow(&mut self, mut until: impl FnMut(&Self) -> bool) {
        while self.end.is_none() && !until(self) {
            match self.wire.receive(PATIENCE) {
                Came::Message(message) => self.take(*message),
                Came::Closed => return,
                Came::Nothing => panic!("nothing comes of {} after event {}", self.exec_id, self.last),
            }
        }
    }

    /// Follows it to its end.
    pub(crate) fn follow_to_the_end(&mut self) -> &(Outcome, Usage) {
        self.follow(|_| false);
        self.end.as_ref().expect("the daemon has gone before the run's end")
    }

    fn take(&mut self, message: ServerMessage) {
        let (seq, event) = match message {
            ServerMessage::Event { exec_id, seq, event } if exec_id == self.exec_id => (seq, event),
            other => panic!("{other:?} instead of an event"),
        };
        assert_eq!(seq, self.last + 1, "{event:?} is lost, doubled or out of its place");
        self.last = seq;
        match event {
            ExecEvent::Output { bytes, .. } => self.output.extend_from_slice(&bytes),
            ExecEvent::Accepted { .. } | ExecEvent::Started { .. } => {}
            ExecEvent::Exited { outcome, usage, .. } => self.end = Some((outcome, usage)),
            other => panic!("{other:?}"),
        }
    }

    /// What still comes after the end.
    pub(crate) fn last_words(&mut self, within: Duration) -> Option<ServerMessage> {
        match self.wire.receive(within) {
            Came::Message(message) => Some(*message),
            Came::Closed | Came::Nothing => None,
        }
    }

    /// Says that it has everything. The daemon forgets the run.
    pub(crate) fn acknowledge(&mut self) {
        let message = ClientMessage::Acknowledge { exec_id: self.exec_id, seq: self.last };
        self.say(&message);
    }
}
