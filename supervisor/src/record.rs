//! What the daemon writes down of requests.
//!
//! ```text
//! Exec ─gate, admission─> intent ──> the log's thread, one fdatasync for all that wait
//!                            │                 │
//!                 it waits in `undecided`      └──Told──> durable: to the dispatcher, as if it came now
//!                                                         not:     refused, unless an operator has it otherwise
//! ```
//!
//! Nothing of a run is told to a launcher before its intent is durable. Its outcome is written when it has one, and tried again for
//! as long as it can't be; no client waits for that, but its launcher keeps the run until it's written ([`Record::holds`]): a daemon that
//! is killed in between is followed by one that is told of the end again, and writes it. Whoever the gate or admission refuses is written down with the stage and the rule,
//! and not with what he gave: that would have to be looked at for whoever asks too often. What is refused behind its intent, a full
//! queue say, is an outcome of it.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use stockade_audit::{
    AuditError, Event, Given, Keys, Log, MasterKey, Outcome as Written, Principal, Refused, Request,
    Settings, Unavailable, What,
};
use stockade_gate::StageName;
use stockade_protocol::ExecId;
use stockade_protocol::bounds::MAX_FRAME;
use stockade_protocol::client::ExecRequest;
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::outcome::{Outcome, Usage};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use crate::admission::chain;
use crate::config::Auditing;
use crate::daemon::Daemon;
use crate::daemon::recording::Undecided;
use crate::dispatcher::{LauncherId, Share};
use crate::metrics;
use crate::paths::Scope;

/// The directory in the daemon's state.
const DIRECTORY: &str = "audit";
/// What the master key is called among a unit's credentials.
const CREDENTIAL: &str = "audit.key";
/// How long an intent may take to be durable: a disk that hangs answers nobody. Tests have less patience.
pub(crate) const WITHIN: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });
/// How often what couldn't be written is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Requests that may wait to be recorded, together: a few batches of what one `fdatasync` takes.
const UNDECIDED: usize = 1024;
/// Bytes that they may hold, together.
const UNDECIDED_BYTES: usize = 64 * 1024 * 1024;
/// When to ask again while too many wait, in milliseconds.
const FULL_MS: u64 = 100;
/// The most outcomes that are kept while nothing can be written: beyond that they are lost, and the log says so.
const MOST_OWED: usize = 65_536;
/// Bytes of what a security event is about that are written, and of what was said to the client.
const MAX_ABOUT: usize = 128;
const MAX_SAID: usize = 512;

/// The record, and who waits for it.
#[derive(Debug)]
pub(crate) struct Record {
    log: Log,
    teller: mpsc::UnboundedSender<Told>,
    /// Whether nothing runs that can't be written down.
    pub(crate) is_required: bool,
    /// Requests whose intent isn't durable yet.
    pub(crate) undecided: HashMap<ExecId, Undecided>,
    /// Those that were refused while theirs was on its way, with their owners and tools: if it arrives it came to nothing.
    pub(crate) given_up: HashMap<ExecId, (u32, Option<String>)>,
    most: Most,
    /// What couldn't be written; outcomes with their runs.
    owed: VecDeque<(Option<ExecId>, Event)>,
    /// Runs whose outcome isn't written yet; those that nobody needs any more are released when it is.
    unwritten: HashMap<ExecId, Option<Needless>>,
    /// While this is there, tests have a disk that hangs: nothing more is told of what is written then.
    #[cfg(test)]
    hangs: PathBuf,
}

/// A run that nobody needs any more but for its outcome, which isn't written yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needless {
    pub(crate) launcher: Option<LauncherId>,
    pub(crate) has_ring: bool,
}

/// How many requests may wait to be recorded, and how many bytes they may hold, as owners share them.
#[derive(Debug)]
pub(crate) struct Most {
    count: Share,
    bytes: Share,
}

impl Most {
    pub(crate) fn of(scope: Scope) -> Self {
        Self {
            count: Share::new(UNDECIDED, 1, scope.is_machine()),
            bytes: Share::new(UNDECIDED_BYTES, MAX_FRAME as usize, scope.is_machine()),
        }
    }

    /// Whether an owner may have so many bytes more wait beside those that wait: owners, and what each request holds.
    pub(crate) fn allow(
        &self,
        waiting: impl Iterator<Item = (u32, usize)>,
        owner: u32,
        bytes: usize,
    ) -> bool {
        let (mut taken, mut own) = ((0, 0), (0, 0));
        for (of, holds) in waiting {
            taken = (taken.0 + 1, taken.1 + holds);
            if of == owner {
                own = (own.0 + 1, own.1 + holds);
            }
        }
        self.count.allows(taken.0, own.0, 1) && self.bytes.allows(taken.1, own.1, bytes)
    }
}

/// What the log's thread says.
#[derive(Debug)]
pub(crate) enum Told {
    /// Of a request.
    Intent(ExecId, Result<(), Unavailable>),
    /// Of an event that couldn't be written, and has to be all the same; an outcome with its run.
    Owed(Option<ExecId>, Box<Event>),
    /// Of a run: its outcome is durable.
    Outcome(ExecId),
    /// There is something to wait for, which was not so before.
    Waits,
}

/// A record, and what is told of it.
pub(crate) type Opened = (Record, mpsc::UnboundedReceiver<Told>);

/// Where the master key is, if there is any: the file that is named, or else the credential that systemd has passed.
fn key_of(named: Option<&Path>) -> Option<PathBuf> {
    let credential = || {
        let directory = PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?);
        // Only what isn't there is none: with one that can't be looked at the daemon mustn't go on as if there were none.
        let is_none = |path: &PathBuf| {
            path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        };
        Some(directory.join(CREDENTIAL)).filter(|path| directory.is_absolute() && !is_none(path))
    };
    named.map(Path::to_owned).or_else(credential)
}

/// A security event. What it's about is a client's word, and may be long.
fn noted(principal: Principal, name: &str, text: String, about: &str) -> Event {
    let mut event = Event { principal: Some(principal), ..Event::security(name, text) };
    if let What::Security(note) = &mut event.what {
        note.about = Some(shortened(about, MAX_ABOUT));
    }
    event
}

/// The same, of a run: it's found by that.
fn of_run(mut event: Event, run: ExecId) -> Event {
    if let What::Security(note) | What::Operation(note) = &mut event.what {
        note.exec = Some(run.to_string());
    }
    event
}

/// So many bytes of a text at most, cut between characters.
fn shortened(text: &str, most: usize) -> String {
    text[..text.floor_char_boundary(most)].to_owned()
}

impl Record {
    /// Opens the record of a daemon with this state, if there is a key for one; what is told of it comes by the receiver.
    ///
    /// # Errors
    /// It can't be written, or isn't what it should be.
    pub(crate) fn open(
        configured: &Auditing,
        state: &Path,
        scope: Scope,
    ) -> Result<Option<Opened>, AuditError> {
        let Some(key) = key_of(configured.key.path()) else {
            tracing::info!("requests aren't recorded: there is no key (audit.key in the configuration)");
            return Ok(None);
        };
        let directory = state.join(DIRECTORY);
        let mut settings = Settings::new(&directory, MasterKey::read(&key)?);
        settings.copy = configured.copy.path().map(Path::to_owned);
        settings.on_head = Some(Box::new(|head| tracing::info!(target: "stockade_audit", "{head}")));
        let log = Log::open(settings)?;
        tracing::info!(directory = %directory.display(), required = configured.required.is_on(), "requests are recorded");
        let (teller, told) = mpsc::unbounded_channel();
        let is_required = configured.required.is_on();
        let most = Most::of(scope);
        Ok(Some((
            Self {
                log,
                teller,
                is_required,
                undecided: HashMap::new(),
                given_up: HashMap::new(),
                most,
                owed: VecDeque::new(),
                unwritten: HashMap::new(),
                #[cfg(test)]
                hangs: state.join("hangs"),
            },
            told,
        )))
    }

    /// Whether one more request of an owner's may wait to be recorded.
    pub(crate) fn has_room_for(&self, owner: u32, bytes: usize) -> bool {
        self.most.allow(self.undecided.values().map(Undecided::held), owner, bytes)
    }

    /// Writes the intent of a request, which waits until it's durable.
    pub(crate) fn intend(
        &mut self,
        run: ExecId,
        undecided: Undecided,
        principal: Principal,
        request: Request,
    ) {
        self.undecided.insert(run, undecided);
        if self.undecided.len() == 1 {
            // A disk that hangs says nothing: from now on somebody has to look at the time.
            let _ = self.teller.send(Told::Waits);
        }
        #[cfg(test)]
        if self.hangs.exists() {
            return;
        }
        let teller = self.teller.clone();
        let told = move |told: Result<_, Unavailable>| {
            // A loop that is over waits for nothing.
            let _ = teller.send(Told::Intent(run, told.map(drop)));
        };
        self.log.append(Event { principal: Some(principal), what: What::Intent(request) }, Box::new(told));
    }

    /// Writes what has to be there sooner or later.
    pub(crate) fn owe(&self, event: Event) {
        self.owe_of(None, event);
    }

    fn owe_of(&self, run: Option<ExecId>, event: Event) {
        #[cfg(test)]
        if self.hangs.exists() {
            return;
        }
        let (teller, again) = (self.teller.clone(), Box::new(event.clone()));
        let told = move |told: Result<_, Unavailable>| {
            let _ = match (told, run) {
                (Err(_), run) => teller.send(Told::Owed(run, again)),
                (Ok(_), Some(run)) => teller.send(Told::Outcome(run)),
                (Ok(_), None) => Ok(()),
            };
        };
        self.log.append(event, Box::new(told));
    }

    /// Whether a run that nobody needs any more has to be known to its launcher still, since its outcome isn't written: it's told by
    /// [`Told::Outcome`] when that is.
    pub(crate) fn holds(&mut self, run: ExecId, needless: Needless) -> bool {
        let unwritten = self.unwritten.get_mut(&run);
        unwritten.map(|held| *held = Some(needless)).is_some()
    }

    /// Whether a launcher has to know any run still.
    pub(crate) fn holds_any_of(&self, launcher: LauncherId) -> bool {
        self.unwritten.values().flatten().any(|needless| needless.launcher == Some(launcher))
    }

    /// Writes what came of a run.
    pub(crate) fn ended(
        &mut self,
        uid: u32,
        tool: Option<&str>,
        run: ExecId,
        outcome: &Outcome,
        usage: Option<&Usage>,
    ) {
        let code = match outcome {
            Outcome::Exited { code } => Some(i32::from(*code)),
            Outcome::Signaled { signal, .. } => Some(i32::from(*signal)),
            _ => None,
        };
        let written = Written {
            exec: run.to_string(),
            tool: tool.map(ToOwned::to_owned),
            outcome: metrics::word(outcome).to_owned(),
            code,
            milliseconds: usage.map(|usage| usage.wall_us / 1000),
            memory: usage.map(|usage| usage.memory_peak),
        };
        self.unwritten.insert(run, None);
        self.owe_of(Some(run), came_of(uid, written));
    }

    /// Writes that an intent came to nothing: its run was refused after it, or nobody was there any more.
    pub(crate) fn not_started(&self, uid: u32, tool: Option<&str>, run: ExecId) {
        let (exec, tool) = (run.to_string(), tool.map(ToOwned::to_owned));
        self.owe(came_of(
            uid,
            Written { exec, tool, outcome: "not-started".to_owned(), ..Written::default() },
        ));
    }

    /// Writes a refusal. One of a program that was changed, or by rules of access, is for whoever watches over the machine, too.
    pub(crate) fn refused(&self, principal: Principal, request: Request, denied: &Denied) {
        let by_rules =
            denied.decided.as_ref().is_some_and(|decided| decided.stage == StageName::Access.name());
        if denied.reason == DenyReason::NotPermitted && by_rules {
            let about = request.tool.as_deref().or(request.policy.as_deref()).unwrap_or_default();
            self.not_permitted(principal.clone(), denied, about);
        }
        if denied.reason == DenyReason::ToolChanged {
            let about = request.tool.as_deref().unwrap_or_default();
            self.watched(principal.clone(), "tool-changed", denied.message.clone(), about);
        }
        let (stage, rule) = match &denied.decided {
            Some(decided) => (decided.stage.clone(), decided.rule.clone()),
            None => ("admission".to_owned(), String::new()),
        };
        let reason = metrics::reason_word(denied.reason).to_owned();
        let what = What::Refused(Refused { request, stage, rule, reason });
        self.log.append(Event { principal: Some(principal), what }, Box::new(|_| {}));
    }

    /// Writes that somebody isn't permitted something, by which rule. As any other refusal it isn't kept where nothing can be written:
    /// there may be any number of them.
    pub(crate) fn not_permitted(&self, principal: Principal, denied: &Denied, about: &str) {
        let rule = denied.decided.as_ref().map_or("", |decided| &decided.rule);
        let text = format!("{}: {rule}", shortened(&denied.message, MAX_SAID));
        let event = noted(principal, "not-permitted", text, about);
        self.log.append(event, Box::new(|_| {}));
    }

    /// Writes that somebody asks for something. As a refusal it isn't kept where nothing can be written: who asks may do that again.
    pub(crate) fn asked(&self, principal: Principal, name: &str, text: String, about: &str) {
        self.log.append(noted(principal, name, text, about), Box::new(|_| {}));
    }

    /// Writes what somebody is about to do, who waits until that is durable: he's told.
    pub(crate) fn before(
        &self,
        (principal, name): (Principal, &str),
        text: String,
        about: &str,
        told: impl FnOnce(Result<(), String>) + Send + 'static,
    ) {
        #[cfg(test)]
        if self.hangs.exists() {
            return;
        }
        let told = move |result: Result<_, Unavailable>| told(result.map(drop).map_err(|why| chain(&why)));
        self.log.append(noted(principal, name, text, about), Box::new(told));
    }

    /// Writes that somebody is about to read the record, who waits until that is durable: he's told.
    pub(crate) fn intend_reading(
        &self,
        principal: Principal,
        request: Request,
        told: impl FnOnce(Result<(), String>) + Send + 'static,
    ) {
        #[cfg(test)]
        if self.hangs.exists() {
            return;
        }
        let told = move |result: Result<_, Unavailable>| told(result.map(drop).map_err(|why| chain(&why)));
        self.log.append(Event { principal: Some(principal), what: What::Intent(request) }, Box::new(told));
    }

    /// Where it is, and the keys for who reads in it.
    pub(crate) fn for_reading(&self) -> (PathBuf, Arc<Keys>) {
        self.log.for_reading()
    }

    /// The newest record that is durable.
    pub(crate) fn durable(&self) -> u64 {
        self.log.durable()
    }

    /// How the log does.
    pub(crate) fn state(&self) -> stockade_audit::State {
        self.log.state()
    }

    /// Writes something that somebody did who may, for whoever watches over the machine.
    pub(crate) fn watched(&self, principal: Principal, name: &str, text: String, about: &str) {
        self.owe(noted(principal, name, text, about));
    }

    /// The same, of what is done about a run.
    pub(crate) fn watched_of(
        &self,
        run: ExecId,
        (principal, name): (Principal, &str),
        text: String,
        about: &str,
    ) {
        self.owe(of_run(noted(principal, name, text, about), run));
    }

    /// The same, of what somebody is asked about: `asks` tells it from other questions.
    pub(crate) fn questioned(
        &self,
        run: ExecId,
        (principal, name): (Principal, &str),
        text: String,
        (about, asks): (&str, Option<String>),
    ) {
        let mut event = of_run(noted(principal, name, text, about), run);
        if let What::Security(note) = &mut event.what {
            note.asks = asks;
        }
        self.owe(event);
    }

    /// Writes what somebody does to a run of his own. He may do it as fast as he can write: of many of a name the first are written and
    /// the others counted, and where nothing can be written it isn't kept.
    pub(crate) fn did(&self, run: ExecId, principal: Principal, name: &str, text: String) {
        let event = Event { principal: Some(principal), ..Event::operation(name, text) };
        self.log.append(of_run(event, run), Box::new(|_| {}));
    }

    /// Whether anything waits for the disk.
    fn waits(&self) -> bool {
        !self.undecided.is_empty() || !self.owed.is_empty()
    }

    /// Keeps an event that couldn't be written. What launchers keep for it meanwhile is bounded by this: where runs may start all the
    /// same, or too much is owed, the run is released without its outcome.
    fn keep(&mut self, run: Option<ExecId>, event: Event) -> Option<Needless> {
        let has_room = self.owed.len() < MOST_OWED;
        let is_held = has_room && self.is_required;
        if has_room {
            self.owed.push_back((run.filter(|_| is_held), event));
        } else {
            tracing::error!(event = event.name(), "an event is lost: nothing could be recorded for too long");
        }
        run.filter(|_| !is_held).and_then(|run| self.written(run))
    }

    /// A run's outcome needn't be waited for any more; what may be released then.
    fn written(&mut self, run: ExecId) -> Option<Needless> {
        self.unwritten.remove(&run).flatten()
    }

    /// Tries to write what couldn't be written.
    fn try_again(&mut self) {
        for (run, event) in core::mem::take(&mut self.owed) {
            self.owe_of(run, event);
        }
    }

    /// Writes how the daemon does.
    pub(crate) fn note(&self, name: &str, text: impl Into<String>) {
        self.log.append(Event::operation(name, text), Box::new(|_| {}));
    }
}

/// What somebody asks for, as it's written, but for what he gives. `run`: which comes of it.
pub(crate) fn request_of(request: &ExecRequest, run: ExecId) -> Request {
    Request {
        action: if request.tool.is_some() { "call" } else { "run" }.to_owned(),
        exec: Some(run.to_string()),
        tool: request.tool.as_ref().map(|call| call.name.clone()),
        policy: Some(request.policy.clone()).filter(|policy| !policy.is_empty()),
        ..Request::default()
    }
}

/// What is given to a command or a tool, as it's written.
pub(crate) fn given_of(request: &ExecRequest, parameters: Option<&[u8]>) -> Given {
    match parameters {
        Some(parameters) => Given::of([parameters]),
        None => Given::of(request.argv.iter().map(|argument| &**argument)),
    }
}

fn came_of(uid: u32, outcome: Written) -> Event {
    let principal = Some(Principal { uid, ..Principal::default() });
    Event { principal, what: What::Outcome(outcome) }
}

/// Why a request isn't run.
pub(crate) fn unavailable(why: &str) -> Denied {
    tracing::error!(why, "a request can't be recorded, and isn't run");
    Denied::new(DenyReason::AuditUnavailable, "the request can't be recorded just now, and so it isn't run")
        .decided_by("record", "audit.required")
        .remedy("ask again later; the daemon's log has the reason (a full disk?)")
}

/// Why nobody can read now.
pub(crate) fn unreadable() -> Denied {
    let text = "the record can't be read just now, or that it's read can't be recorded";
    Denied::new(DenyReason::AuditUnavailable, text)
        .decided_by("record", "audit.required")
        .remedy("ask again later; the daemon's log has the reason")
}

/// Why a request can't even wait.
pub(crate) fn full() -> Denied {
    let text = "too many requests wait to be recorded";
    Denied::new(DenyReason::Busy, text).retry_after(FULL_MS).remedy("ask again in a moment: the disk is slow")
}

/// Has requests recorded from now on.
pub(crate) fn begin(daemon: &Rc<Daemon>, (record, told): Opened) -> JoinHandle<()> {
    record.note("started", format!("stockade {} serves", env!("CARGO_PKG_VERSION")));
    daemon.state.borrow_mut().record = Some(record);
    spawn_local(hear(Rc::clone(daemon), told))
}

/// The end: what was handed over is written, if the disk answers.
pub(crate) async fn end(daemon: &Daemon, hearing: JoinHandle<()>) {
    let Some(mut record) = daemon.state.borrow_mut().record.take() else { return };
    record.try_again();
    record.note("stopped", "the daemon has ended in good order");
    let closing = spawn_blocking(move || record.log.close());
    if timeout(WITHIN, closing).await.is_err() {
        tracing::error!("the record can't be closed: the disk doesn't answer");
    }
    hearing.abort();
}

/// Carries out what the log's thread says, until it's aborted.
async fn hear(daemon: Rc<Daemon>, mut told: mpsc::UnboundedReceiver<Told>) {
    let mut looked = Instant::now();
    loop {
        let waits = daemon.state.borrow().record.as_ref().is_some_and(Record::waits);
        tokio::select! {
            said = told.recv() => {
                let Some(said) = said else { return };
                let mut state = daemon.state.borrow_mut();
                match said {
                    Told::Intent(run, result) => state.decided(run, result.map_err(|error| chain(&error))),
                    Told::Owed(run, event) => {
                        let record = state.record.as_mut();
                        let needless = record.and_then(|record| record.keep(run, *event));
                        state.release_needless(run, needless);
                    }
                    Told::Outcome(run) => {
                        let record = state.record.as_mut();
                        let needless = record.and_then(|record| record.written(run));
                        state.release_needless(Some(run), needless);
                    }
                    Told::Waits => {}
                }
            }
            () = sleep(AGAIN), if waits => {}
        }
        if waits && looked.elapsed() >= AGAIN {
            looked = Instant::now();
            let mut state = daemon.state.borrow_mut();
            state.give_up_undecided();
            state.record.iter_mut().for_each(Record::try_again);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_whose_requests_wait_leaves_room_for_others_and_nobody_has_more_than_there_is() {
        let waiting = |count: usize, bytes: usize| std::iter::repeat_n((1, bytes), count);
        for most in [Most::of(Scope::Machine), Most::of(Scope::User)] {
            let his = UNDECIDED - most.count.kept;
            assert!(most.allow(waiting(his - 1, 1), 1, 1) && !most.allow(waiting(his, 1), 1, 1));
            assert!(!most.allow(waiting(UNDECIDED, 1), 2, 1));
            assert!(!most.allow(waiting(2, UNDECIDED_BYTES / 2), 2, 1));
        }
        let most = Most::of(Scope::Machine);
        assert!(most.allow(waiting(UNDECIDED - 1, 1), 2, 1), "the last quarter is for who has none");
        assert!(most.allow(waiting(1, UNDECIDED_BYTES * 3 / 4), 2, MAX_FRAME as usize));
    }
}
