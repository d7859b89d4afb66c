//! The runs that faults happen to: what each does, how it ends when nothing happens, and what may come of it when something
//! does.

use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::PipeFlags;
use stockade_protocol::client::{
    ClientMessage, ExecEvent, ExecRequest, OutputMode, ServerMessage, StdinMode, VERSION,
};
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::outcome::{CancelReason, Clock, Outcome};
use stockade_protocol::{Bytes, ExecId};
use stockade_tests::wire::{Came, Wire, hello, request, workspace};
use stockade_tests::{Daemon, Ground};

use crate::injector::Deed;

/// How long any answer may take: a limit against hanging, no measure.
const PATIENCE: Duration = Duration::from_secs(40);
/// The wall time of the run that has a deadline.
const DEADLINE_MS: u64 = 150;

/// What sort of run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Output comes as events.
    Relayed,
    /// Output goes to descriptors of the client's own.
    Passed,
    /// Input comes in frames.
    Fed,
    /// Goes on without its client, who comes back for it.
    Detached,
    /// Denies and protects what isn't there.
    Denying,
    /// Ends by its deadline.
    Deadline,
    /// Ends because it is asked to.
    Cancelled,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Relayed,
        Self::Passed,
        Self::Fed,
        Self::Detached,
        Self::Denying,
        Self::Deadline,
        Self::Cancelled,
    ];

    pub(crate) fn policy(self) -> &'static str {
        match self {
            Self::Passed => "test-plain",
            Self::Denying => "test-deny",
            _ => "default",
        }
    }

    /// How it ends if nothing happens.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Deadline => Outcome::TimedOut { clock: Clock::Wall, limit_ms: DEADLINE_MS },
            Self::Cancelled => Outcome::Cancelled { reason: CancelReason::Asked },
            _ => Outcome::Exited { code: 7 },
        }
    }

    /// Whether it goes on until it's ended.
    pub(crate) fn lasts(self) -> bool {
        matches!(self, Self::Deadline | Self::Cancelled)
    }

    /// Says how it is confined, as it sees that itself, and what it reads; leaves a mark when it begins and one when it ends.
    pub(crate) fn line(self, outside: &str) -> String {
        let rest = if self.lasts() { "sleep 60" } else { "while read l; do echo \"read $l\"; done" };
        format!(
            "echo start >>ran.$0; \
             while read l; do case $l in NoNewPrivs*|Cap*|Seccomp*) echo \"$l\";; esac; done </proc/self/status; \
             n=0; while read l; do n=$((n+1)); done </proc/self/mountinfo; echo mounts $n; \
             n=0; while read l; do n=$((n+1)); done </proc/self/net/dev; echo interfaces $n; \
             [ -r {outside}/secret.txt ] && echo leaked; umask; ulimit -n; \
             {rest}; echo end >>ran.$0; exit 7"
        )
    }

    fn request(self, ground: &Ground, id: u64) -> ExecRequest {
        let outside = ground.outside();
        let line = self.line(outside.to_str().unwrap());
        let mut asked = request(ground, self.policy(), &["sh", "-c", &line, &id.to_string()]);
        asked.request_id = id;
        asked.stdin = match self {
            Self::Fed => StdinMode::Stream,
            Self::Relayed | Self::Detached => StdinMode::Inline(Bytes::from("one\ntwo\n")),
            _ => StdinMode::None,
        };
        match self {
            Self::Passed => asked.output = OutputMode::Descriptor,
            Self::Detached => asked.detach = true,
            Self::Deadline => asked.overrides.wall_ms = Some(DEADLINE_MS),
            _ => {}
        }
        asked
    }
}

/// What came of a request.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) id: u64,
    exec_id: Option<ExecId>,
    last: u64,
    started: bool,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) denied: Option<Denied>,
    /// The daemon that came after the one that had accepted it doesn't know it.
    unknown: bool,
    /// How often the connection broke.
    pub(crate) breaks: u32,
    pub(crate) output: Vec<u8>,
    pub(crate) took: Duration,
    /// What must not be.
    pub(crate) wrong: Vec<String>,
}

/// What a run of a client has to do with, and who starts the next daemon when one is gone.
pub(crate) struct Client<'a> {
    pub(crate) daemon: &'a Daemon,
    pub(crate) ground: &'a Ground,
    pub(crate) start_again: &'a dyn Fn(),
}

impl Client<'_> {
    /// Asks for a run, and follows it to its end over as many connections and daemons as it takes.
    pub(crate) fn run(&self, kind: Kind, id: u64) -> Story {
        let began = Instant::now();
        let mut story = Story { id, ..Story::default() };
        let mut pipe = None;
        while story.outcome.is_none() && story.denied.is_none() && !story.unknown && story.wrong.is_empty() {
            if began.elapsed() > PATIENCE {
                story.wrong.push("no end of it".to_owned());
                break;
            }
            if story.breaks > 0 && story.exec_id.is_none() {
                // What became of a request without an answer nobody can say.
                break;
            }
            if let Some(mut wire) = self.connect(&mut story) {
                self.talk(kind, &mut wire, &mut pipe, &mut story);
            }
        }
        if let Some(reader) = pipe {
            read_all(reader.into(), &mut story);
        }
        story.took = began.elapsed();
        story
    }

    fn connect(&self, story: &mut Story) -> Option<Wire> {
        if self.daemon.ends_within(Duration::ZERO) {
            (self.start_again)();
        }
        let greeted = Wire::try_connect(self.daemon, self.ground.person).and_then(|mut wire| {
            wire.try_send(&hello(VERSION), &[])?;
            Ok(wire)
        });
        let Ok(mut wire) = greeted else {
            // Between its last word and its end.
            std::thread::sleep(Duration::from_millis(5));
            return None;
        };
        match wire.receive(PATIENCE) {
            Came::Message(message) if matches!(*message, ServerMessage::Welcome(_)) => Some(wire),
            // Refused, for it couldn't see who we are: that is said and isn't remembered.
            Came::Message(message) if matches!(*message, ServerMessage::Error(_)) => None,
            Came::Closed => {
                std::thread::sleep(Duration::from_millis(5));
                None
            }
            other => {
                story.wrong.push(format!("no welcome but {other:?}"));
                None
            }
        }
    }

    /// One connection, until the run's end or its own.
    fn talk(&self, kind: Kind, wire: &mut Wire, pipe: &mut Option<OwnedFd>, story: &mut Story) {
        let sent = match story.exec_id {
            Some(exec_id) => wire.try_send(&ClientMessage::Attach { exec_id, after_seq: story.last }, &[]),
            None => self.ask(kind, wire, pipe, story.id),
        };
        if sent.is_err() {
            story.breaks += 1;
            return;
        }
        if let Some(exec_id) = story.exec_id {
            // What was said last may not have arrived.
            let again = match kind {
                Kind::Fed => Some(ClientMessage::StdinEof { exec_id }),
                Kind::Cancelled if story.started => Some(ClientMessage::Cancel { exec_id }),
                _ => None,
            };
            let _ = again.map(|message| wire.try_send(&message, &[]));
        }
        while story.outcome.is_none() && story.denied.is_none() && !story.unknown {
            match wire.receive(PATIENCE) {
                Came::Message(message) => take(kind, *message, wire, story),
                Came::Closed => {
                    story.breaks += 1;
                    return;
                }
                Came::Nothing => {
                    story.wrong.push(format!("nothing comes after event {}", story.last));
                    return;
                }
            }
            if !story.wrong.is_empty() {
                return;
            }
        }
        if let Some(exec_id) = story.exec_id {
            let _ = wire.try_send(&ClientMessage::Acknowledge { exec_id, seq: story.last }, &[]);
        }
    }

    fn ask(&self, kind: Kind, wire: &mut Wire, pipe: &mut Option<OwnedFd>, id: u64) -> std::io::Result<()> {
        let workspace = workspace(self.ground);
        let asked = ClientMessage::Exec(Box::new(kind.request(self.ground, id)));
        if kind != Kind::Passed {
            return wire.try_send(&asked, &[workspace.as_fd()]);
        }
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
        *pipe = Some(reader);
        wire.try_send(&asked, &[workspace.as_fd(), writer.as_fd(), writer.as_fd()])
    }

    /// What the run has left of its marks.
    fn marks(&self, id: u64) -> Vec<String> {
        let text = std::fs::read_to_string(self.ground.work().join(format!("ran.{id}")));
        text.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// What is wrong with a run that something may have happened to (`fired`: what did), whose output would be `whole`.
    pub(crate) fn judge(&self, kind: Kind, story: &Story, whole: &[u8], fired: Option<Deed>) -> Vec<String> {
        let mut wrong = story.wrong.clone();
        let marks = self.marks(story.id);
        let begun = !marks.is_empty();
        let (start, both) = (["start"].as_slice(), ["start", "end"].as_slice());
        if marks != start && marks != both && begun {
            wrong.push(format!("it has run more than once: {marks:?}"));
        }
        let unfed = kind == Kind::Fed && story.breaks > 0 && unread(whole) == story.output;
        let says_all = says(&story.output, whole, fired) || unfed;
        if !whole.starts_with(&story.output) && !says_all {
            let said = String::from_utf8_lossy(&story.output);
            wrong.push(format!("it said {said:?} instead of {:?}", String::from_utf8_lossy(whole)));
        }
        let Some(outcome) = &story.outcome else {
            let answered = story.denied.is_some() || story.unknown;
            if fired.is_none() {
                wrong.push(format!("no outcome: {story:?}"));
            } else if begun && answered {
                wrong.push(format!("it has run, and was answered with {:?}", story.denied));
            }
            return wrong;
        };
        if *outcome == kind.outcome() {
            // What has ended at once may have ended before its first word.
            if !kind.lasts() && (marks != both || !says_all) {
                wrong
                    .push(format!("{outcome:?}, but its marks are {marks:?}, its output {:?}", story.output));
            }
            return wrong;
        }
        let may_be = match outcome {
            Outcome::SetupFailed { .. } => !begun && story.output.is_empty(),
            Outcome::Lost { reason } => !reason.is_empty(),
            Outcome::Cancelled { reason: CancelReason::ClientGone } => story.breaks > 0,
            // The tool's process, by somebody else's hand.
            Outcome::Signaled { signal: 9, .. } => fired == Some(Deed::Kill),
            _ => false,
        };
        if fired.is_none() || !may_be {
            wrong.push(format!("{outcome:?}, its marks are {marks:?}"));
        }
        wrong
    }
}

fn take(kind: Kind, message: ServerMessage, wire: &mut Wire, story: &mut Story) {
    let (exec_id, seq, event) = match message {
        ServerMessage::Event { exec_id, seq, event } => (exec_id, seq, event),
        ServerMessage::Denied { denied, .. } if story.exec_id.is_none() => {
            story.denied = Some(denied);
            return;
        }
        ServerMessage::Denied { denied, .. } if denied.reason == DenyReason::UnknownRun => {
            story.unknown = true;
            return;
        }
        other => return story.wrong.push(format!("{other:?}")),
    };
    if matches!(event, ExecEvent::LimitWarning { .. }) {
        return;
    }
    if seq != story.last + 1 || story.exec_id.is_some_and(|known| known != exec_id) {
        return story.wrong.push(format!("event {seq} of {exec_id} after {}: {event:?}", story.last));
    }
    (story.exec_id, story.last) = (Some(exec_id), seq);
    match event {
        ExecEvent::Accepted { request_id } if request_id == story.id => {
            if kind == Kind::Fed {
                feed(wire, exec_id);
            }
        }
        ExecEvent::Started { .. } if !story.started => {
            story.started = true;
            if kind == Kind::Cancelled {
                let _ = wire.try_send(&ClientMessage::Cancel { exec_id }, &[]);
            }
        }
        ExecEvent::Output { bytes, .. } => story.output.extend_from_slice(&bytes),
        ExecEvent::Exited { outcome, .. } => story.outcome = Some(outcome),
        other => story.wrong.push(format!("{other:?}")),
    }
}

fn feed(wire: &mut Wire, exec_id: ExecId) {
    let bytes = Bytes::from("one\ntwo\n");
    let _ = wire.try_send(&ClientMessage::StdinData { exec_id, bytes }, &[]);
    let _ = wire.try_send(&ClientMessage::StdinEof { exec_id }, &[]);
}

/// Reads what a run has written, until nobody can write any more.
fn read_all(mut reader: std::fs::File, story: &mut Story) {
    let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    loop {
        let mut ready = [PollFd::new(&reader, PollFlags::IN)];
        if poll(&mut ready, Some(&patience)).unwrap() == 0 {
            return story.wrong.push("somebody still holds its output".to_owned());
        }
        let mut buffer = [0; 4096];
        match reader.read(&mut buffer).unwrap() {
            0 => return,
            length => story.output.extend_from_slice(&buffer[..length]),
        }
    }
}

/// Whether a run has said what it would have. What its owner can't open isn't granted, which `Confinement` lists: it sees less.
pub(crate) fn says(said: &[u8], whole: &[u8], fired: Option<Deed>) -> bool {
    if said == whole {
        return true;
    }
    let [said, whole] = [said, whole].map(String::from_utf8_lossy);
    let counted =
        |line: &str, what: &str| line.strip_prefix(what).and_then(|count| count.parse::<u32>().ok());
    let is_less = |line: &str, what: &str| {
        let all = whole.lines().find_map(|line| counted(line, what));
        counted(line, what).zip(all).is_some_and(|(few, all)| few < all)
    };
    let is_known = |line: &str| whole.lines().any(|known| known == line);
    let may_be = |line: &str| {
        is_known(line)
            || ["mounts ", "interfaces "].iter().any(|what| is_less(line, what))
            || line.ends_with("Permission denied")
    };
    fired == Some(Deed::Fail(libc::EACCES)) && said.lines().all(may_be)
}

/// What a run says that was given nothing to read.
fn unread(whole: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(whole);
    text.split_inclusive('\n').filter(|line| !line.starts_with("read ")).collect::<String>().into_bytes()
}
