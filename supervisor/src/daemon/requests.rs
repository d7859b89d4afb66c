//! What clients ask.
//!
//! A message is answered, refused with a `Denied`, or breaks the protocol ([`Refused`]: the connection is closed).
//! Messages about a run that has just ended are no error: the client can't have known. `StdinData`, `StdinEof`,
//! `Resize` and `Acknowledge` of a run that isn't there any more are dropped quietly for that reason.

use core::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use rustix::io::Errno;
use stockade_gate::{Action, Verdict};
use stockade_policies::Policy;
use stockade_protocol::bounds::MAX_STDIN_CHUNK;
use stockade_protocol::client::{
    ClientMessage, ExecRequest, OutputMode, ProtocolError, ProtocolErrorCode, RunState, RunSummary,
    ServerMessage, StatusReport, StdinMode, Workspace,
};
use stockade_protocol::confinement::Plan;
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::launch::{LaunchOutput, Opening, ToLauncher};
use stockade_protocol::outcome::{CancelReason, MemoryMechanism, SetupFailure, SetupStage};
use stockade_protocol::{Bytes, ExecId};

use super::access::locked_out;
use super::approving::{Answer, Asking};
use super::counting::Named;
use super::shown::{Beside, Shown};
use super::state::State;
use crate::admission::{self, Admitted, Caller, OutputRules, Passed, StdinPlan};
use crate::aside::Foreign;
use crate::descriptors;
use crate::dispatcher::{ConnectionId, Event, Phase};
use crate::feed::{Feed, Source};
use crate::gate::{Call, Sought, Wanted};
use crate::metrics::{self, Process, Timing};
use crate::openers::Client;
use crate::output::Wrote;
use crate::record;
use crate::redaction::Redacting;
use crate::runs::{Input, Run, Waiting};
use crate::traces::Parent;

/// The highest signal number.
const MAX_SIGNAL: u8 = 64;
/// Signals that end a run which has no tool yet to receive them: HUP, INT, QUIT, KILL, TERM.
const ENDING_SIGNALS: [u8; 5] = [1, 2, 3, 9, 15];
/// Bytes of a list of runs, below a frame's limit; the newest runs come first.
const LIST_BYTES: usize = 900 * 1024;
/// What a run takes in a list at most, beside its command, policy and outcome's text.
const SUMMARY_BYTES: usize = 128;

/// A message that breaks the protocol.
pub(crate) type Refused = ProtocolError;

/// What has to happen before a connection's next message is read.
#[derive(Debug)]
pub(crate) enum Pause {
    /// Nothing.
    None,
    /// This feed must have room.
    Feed(Rc<Feed>),
}

/// What was found out for a message before it's taken, since it may take long.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The owner's home; counts for an `Exec` only.
    pub(crate) home: PathBuf,
    /// The workspace that an `Exec` names by its path, opened as the owner, or why it can't be. `None`: nobody has tried.
    pub(crate) workspace: Option<Result<Foreign, SetupFailure>>,
}

/// What came beside a request, or was opened for it, sorted.
pub(super) struct Descriptors {
    pub(super) workspace: Option<Foreign>,
    /// Why it isn't there.
    pub(super) unopened: Option<SetupFailure>,
    pub(super) stdin: Option<Foreign>,
    pub(super) output: Vec<Foreign>,
}

impl State {
    /// A client's message; `take` gives the descriptors that came beside it, in order.
    ///
    /// # Errors
    /// What breaks the protocol.
    pub(crate) fn message(
        &mut self,
        connection: ConnectionId,
        message: ClientMessage,
        found: Found,
        take: impl FnMut() -> Option<Foreign>,
    ) -> Result<Pause, Refused> {
        let Some(owner) = self.connections.get(&connection).map(|outbox| outbox.owner.uid) else {
            return Ok(Pause::None);
        };
        if !is_for_visitors(&message) {
            self.not_for_visitors(connection)?;
        }
        match message {
            ClientMessage::Exec(request) => {
                let descriptors = take_descriptors(&request, found.workspace, take)?;
                self.exec_or_refuse((connection, owner), *request, &found.home, descriptors);
            }
            ClientMessage::StdinData { exec_id, bytes } => {
                return self.stdin(connection, owner, exec_id, bytes);
            }
            ClientMessage::StdinEof { exec_id } => {
                if let Some(feed) = self.stream_of(connection, owner, exec_id) {
                    feed.end();
                }
            }
            ClientMessage::Signal { exec_id, signal } => self.signal(connection, exec_id, signal),
            ClientMessage::Resize { exec_id, rows, columns } => {
                if let Some(Phase::Running) = self.dispatcher.phase(exec_id, owner)
                    && self.has_to_do_with(connection, exec_id)
                {
                    self.tell_launcher(exec_id, &ToLauncher::Resize { exec_id, rows, columns });
                }
            }
            ClientMessage::Cancel { exec_id } if self.withdraw(owner, exec_id) => {}
            ClientMessage::Cancel { exec_id } => {
                if let Some(owner) = self.permitted(connection, Action::Kill, exec_id) {
                    self.cancel(connection, owner, exec_id);
                }
            }
            ClientMessage::Attach { exec_id, after_seq } => {
                self.attach(connection, exec_id, after_seq);
            }
            ClientMessage::Acknowledge { exec_id, seq } => {
                if self.has_to_do_with(connection, exec_id) {
                    self.handle(Event::Acknowledged { owner, run: exec_id, seq });
                }
            }
            ClientMessage::List => self.list(connection, owner),
            ClientMessage::Status => {
                let report = self.status_for(connection);
                self.answer(connection, &ServerMessage::Status(Box::new(report)));
            }
            ClientMessage::Breakers => self.list_breakers(connection),
            ClientMessage::ResetBreaker { tool } => self.reset_breaker(connection, owner, tool),
            ClientMessage::Statistics(question) => self.ask_statistics(connection, owner, question),
            ClientMessage::Unlock { uid, unit } => self.unlock(connection, owner, uid, unit.as_deref()),
            ClientMessage::Approvals { follow, only } => {
                self.list_approvals(connection, owner, follow, only);
            }
            ClientMessage::Approve { exec_id, digest, approve, reason } => {
                self.approve(connection, owner, exec_id, &Answer { digest, approve, reason });
            }
            ClientMessage::Reload => self.ask_reload(connection, owner),
            ClientMessage::Audit(question) => self.read_audit(connection, owner, *question),
            ClientMessage::AuditMore => self.read_more(connection, owner),
            ClientMessage::Hello(_) => return Err(unexpected("a second Hello")),
            other => self.about_grants(connection, other)?,
        }
        Ok(Pause::None)
    }

    /// What isn't about approvals: who may only answer those may not ask it, by whichever door.
    ///
    /// # Errors
    /// He is a visitor.
    pub(super) fn not_for_visitors(&self, connection: ConnectionId) -> Result<(), Refused> {
        if self.connections.get(&connection).is_none_or(|outbox| !outbox.is_visitor) {
            return Ok(());
        }
        let text = format!(
            "root may answer approvals at the daemon of user {}, and ask how it is: nothing else",
            self.settings.uid
        );
        Err(ProtocolError { code: ProtocolErrorCode::NotPermitted, text })
    }

    fn exec_or_refuse(
        &mut self,
        (connection, owner): (ConnectionId, u32),
        request: ExecRequest,
        home: &Path,
        descriptors: Descriptors,
    ) {
        let id = ExecId::generate();
        let asked = self.record.as_ref().map(|_record| record::request_of(&request, id));
        let named = self.statistics.as_ref().map(|_counts| Named::of(&request));
        let Err(denied) = self.exec(connection, id, request, home, descriptors, asked.clone()) else {
            return;
        };
        let (request_id, denied) = *denied;
        if let (Some(record), Some(asked)) = (&self.record, asked) {
            record.refused(self.principal(connection), asked, &denied);
        }
        if let Some(named) = named {
            self.count_refused(owner, &named, &denied);
        }
        self.tell_locked(connection);
        self.write_grants();
        self.refuse(connection, request_id, self.gate.discreet(denied));
    }

    fn exec(
        &mut self,
        connection: ConnectionId,
        id: ExecId,
        mut request: ExecRequest,
        home: &Path,
        descriptors: Descriptors,
        asked: Option<stockade_audit::Request>,
    ) -> Result<(), Box<(u64, Denied)>> {
        let request_id = request.request_id;
        let refuse = |denied| Box::new((request_id, denied));
        let passed = kinds_of(&descriptors).map_err(refuse)?;
        let Some(outbox) = self.connections.get(&connection) else { return Ok(()) };
        let owner = outbox.owner.clone();
        let caller = Caller { owner, home: home.to_owned(), user_mode: self.settings.is_user_mode() };
        let detach = request.detach;
        let parent = self.traces.as_ref().and_then(|_| Parent::of(&request.environment));
        let streams_input = request.stdin == StdinMode::Stream;
        let tool = request.tool.take();
        let named = tool.as_ref().map(|tool| tool.name.clone());
        let call = tool.map(|call| Call::of(call, &request, self.gate.tools()));
        let sought =
            call.as_ref().map(|call| call.as_ref().map_err(|_unknown| named.as_deref().unwrap_or_default()));
        let verdict = self.pass_gate(connection, id, &request, sought).map_err(refuse)?;
        let call = call.transpose().map_err(refuse)?;
        let given = asked.as_ref().map(|_| record::given_of(&request, call.as_ref().map(Call::parameters)));
        let tool = call.as_ref().map(Call::called);
        let parameters: Option<Bytes> =
            call.as_ref().filter(|_| !verdict.is_pass()).map(|call| call.parameters().into());
        let overrides = request.overrides.clone();
        let is_checked = call.as_ref().is_some_and(Call::promises);
        let claimed = claimed(&request);
        let filled = call.map_or(Ok(Vec::new()), |call| {
            self.gate.check_pin(&call, self.settings.uid)?;
            call.fill(&mut request, self.gate.has_rules())
        });
        let rules = OutputRules { redacts_by_default: self.gate.redacts_by_default(), is_checked };
        let admitted = filled.and_then(|openings| {
            let mut admitted = admission::admit(request, id, &caller, &mut self.specs, &passed, rules)?;
            read_within(&openings, admitted.spec.limits.stdin)?;
            admitted.launch.openings = openings;
            Ok(admitted)
        });
        let made = admitted.and_then(|mut admitted| {
            let bytes = size_of(&admitted);
            admitted.launch.note.tool.clone_from(&tool);
            self.is_where_it_was_judged(claimed.as_deref(), &passed)?;
            let question = match verdict {
                Verdict::Pass => None,
                Verdict::Ask(ask) => {
                    let beside = Beside {
                        parameters: parameters.as_deref(),
                        overrides,
                        workspace: descriptors.workspace.as_ref(),
                        stdin: descriptors.stdin.as_ref(),
                        output: &descriptors.output,
                    };
                    descriptors.unopened.as_ref().map_or(Ok(()), |failure| Err(unopened(failure)))?;
                    let held = Shown::held(&admitted, &beside) + self.brief_bytes();
                    self.may_wait(admitted.launch.owner.uid, held)?;
                    Some(Asking { shown: Shown::of(&admitted, &beside)?, ask, held })
                }
            };
            let run = self.make_run(connection, request_id, id, admitted, descriptors, streams_input)?;
            Ok((run, bytes, question))
        });
        // What the gate has let pass ends here, by nobody's fault.
        let (mut run, bytes, question) = made.map_err(|denied| {
            self.came_to_nothing(id, tool.as_ref());
            refuse(denied)
        })?;
        run.parent = parent;
        let (policy, given) = (Some(run.policy.clone()), given);
        let asked = asked.map(|asked| stockade_audit::Request { policy, given, ..asked });
        let of = (connection, request_id, detach, bytes);
        match question {
            None => self.decide(run, of, asked),
            Some(asking) => self.ask_first(run, of, asked, asking),
        }
        Ok(())
    }

    /// Has the gate judge a request: a call that is none, too, so that nobody asks without end for what there isn't; of such a one
    /// `call` has the name.
    fn pass_gate(
        &mut self,
        connection: ConnectionId,
        run: ExecId,
        request: &ExecRequest,
        call: Option<Result<&Call, &str>>,
    ) -> Result<Verdict, Denied> {
        if self.gate.is_open() {
            return Ok(Verdict::Pass);
        }
        let asker = self.asker(connection)?;
        let command: Vec<Vec<u8>> = request.argv.iter().map(|argument| argument.to_vec()).collect();
        let named = request.policy.as_str();
        let sought = match call {
            Some(Ok(call)) => Sought::Call(call),
            Some(Err(named)) => Sought::NoCall(named),
            None => {
                let policy = self.specs.policies().contains(named).then_some(named);
                Sought::Command { policy, named, words: &command }
            }
        };
        let policy = sought.policy().and_then(|name| self.specs.policies().get(name).ok());
        let (Workspace::Descriptor { path } | Workspace::Path { path }) = &request.workspace else {
            return Err(Denied::new(
                DenyReason::BadRequest,
                "a workspace of a kind this daemon doesn't know",
            ));
        };
        let wanted = Wanted {
            asker: &asker,
            run,
            is_shipped: policy.is_some_and(Policy::is_shipped),
            network: policy.map(|policy| policy.network().mode),
            workspace: Some(path.as_path()),
            sought,
            runs: u32::try_from(self.dispatcher.counts().running).unwrap_or(u32::MAX),
        };
        let began = Instant::now();
        let judged = self.gate.judge(&wanted, began.duration_since(self.started));
        self.figures.gated.judged(judged.is_ok(), began.elapsed());
        judged
    }

    /// For whom a path is to be opened before his request is taken. `None`: for nobody, what he asks is refused.
    pub(crate) fn opens_for(&mut self, connection: ConnectionId, path: &Bytes) -> Option<Client> {
        let (asker, uptime) = (self.asker(connection).ok()?, self.uptime());
        self.gate.lets_in(&asker, Action::Run, uptime).ok()?;
        let outbox = self.connections.get(&connection).filter(|outbox| !outbox.is_visitor)?;
        admission::check_path(path, "workspace").ok()?;
        let proof = outbox.proof.shown().ok()?;
        Some(Client { owner: outbox.owner.clone(), proof })
    }

    /// What rules have judged by its path must be there, and not where a link leads.
    fn is_where_it_was_judged(&self, claimed: Option<&Path>, passed: &Passed) -> Result<(), Denied> {
        match (claimed, &passed.workspace) {
            (Some(claimed), Some(actual)) if self.gate.judges_workspaces() => {
                admission::is_at(actual.as_deref(), claimed)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn make_run(
        &self,
        origin: ConnectionId,
        request_id: u64,
        id: ExecId,
        admitted: Admitted,
        descriptors: Descriptors,
        streams_input: bool,
    ) -> Result<Run, Denied> {
        let Admitted { mut launch, spec, stdin, .. } = admitted;
        let (input, feed) = self.input_of(stdin, descriptors.stdin, (launch.owner.uid, spec.limits.stdin))?;
        launch.note.fed = feed.is_some();
        let proof = self.connections.get(&origin).map_or(Ok(None), |outbox| outbox.proof.shown())?;
        launch.proved = proof.is_some();
        let (ring_bytes, output) = match launch.output {
            LaunchOutput::Passed => (None, descriptors.output),
            relayed => (relayed.ring_bytes(), Vec::new()),
        };
        let hidden = launch.note.redaction.clone();
        Ok(Run {
            exec_id: id,
            owner: launch.owner.uid,
            origin: Some(origin),
            request_id,
            policy: launch.note.policy.clone(),
            tool: launch.note.tool.clone(),
            grant: None,
            reviews: None,
            command: launch.note.command.clone(),
            asked_at: self.now(),
            age_before: 0,
            timing: Timing::asked(),
            parent: None,
            span: OnceCell::new(),
            launcher: None,
            is_held: false,
            is_sure: false,
            feed,
            fed_before: None,
            streams_input,
            ring_bytes,
            ring: None,
            wrote: Wrote::default(),
            taken: 0,
            acknowledged: 0,
            confinement: None,
            started: false,
            usage: Default::default(),
            trusted_files: Vec::new(),
            exited: None,
            result_check: None,
            followers: Vec::new(),
            redacting: hidden.map(|hidden| Box::new(Redacting::new(hidden, Some(self.gate.forms())))),
            is_adopted: false,
            is_unclaimed: false,
            waiting: Some(Box::new(Waiting {
                launch,
                spec,
                workspace: descriptors.workspace,
                unopened: descriptors.unopened,
                input,
                output,
                pipe: None,
                proof,
            })),
        })
    }

    /// Where standard input comes from, and what it passes through on its way. `owner`, and the bytes that the policy allows.
    fn input_of(
        &self,
        stdin: StdinPlan,
        descriptor: Option<Foreign>,
        (owner, most): (u32, Option<u64>),
    ) -> Result<(Input, Option<Rc<Feed>>), Denied> {
        let feed = || Feed::new(most, self.ledger.entry(owner));
        Ok(match (stdin, descriptor) {
            (StdinPlan::Passed, Some(descriptor)) => (Input::Passed(descriptor), None),
            (StdinPlan::Relayed(kind), Some(descriptor)) => {
                let source = Source::new(descriptor, kind).map_err(|error| {
                    let message = format!("standard input can't be read for the run: {error}");
                    Denied::new(DenyReason::BadRequest, message).remedy("stream it instead")
                })?;
                (Input::Relayed(source), Some(feed()))
            }
            (StdinPlan::Inline(bytes), _) => {
                let feed = feed();
                // Admission has checked the limit.
                let _within = feed.push(bytes);
                feed.end();
                (Input::Fed, Some(feed))
            }
            (StdinPlan::Stream, _) => (Input::Fed, Some(feed())),
            _ => (Input::Null, None),
        })
    }

    fn stream_of(&self, connection: ConnectionId, owner: u32, id: ExecId) -> Option<Rc<Feed>> {
        if !self.has_to_do_with(connection, id) {
            return None;
        }
        let run = self.runs.get(&id).filter(|run| run.owner == owner && run.streams_input)?;
        run.feed.clone()
    }

    fn stdin(
        &mut self,
        connection: ConnectionId,
        owner: u32,
        id: ExecId,
        bytes: Bytes,
    ) -> Result<Pause, Refused> {
        if bytes.len() > MAX_STDIN_CHUNK {
            return Err(unexpected("more input in one message than MAX_STDIN_CHUNK"));
        }
        let Some(feed) = self.stream_of(connection, owner, id) else { return Ok(Pause::None) };
        if !feed.has_memory_for(bytes.len()) {
            if let Some(outbox) = self.connections.get_mut(&connection) {
                outbox.is_overdrawn = true;
            }
            return Ok(Pause::None);
        }
        match feed.push(bytes) {
            Ok(()) => Ok(Pause::Feed(feed)),
            Err(over) => {
                self.input_exceeded(id, over.0);
                Ok(Pause::None)
            }
        }
    }

    /// A run was given more input than its policy allows.
    pub(crate) fn input_exceeded(&mut self, id: ExecId, limit: u64) {
        if let Some(run) = self.runs.get(&id) {
            tracing::info!(parent: run.span(), limit, "more standard input than the policy allows");
        }
        let reason = CancelReason::InputExceeded { limit };
        self.handle(Event::End { now: self.now(), run: id, reason });
    }

    /// A run was given less input than there is: whatever it makes of that isn't what was asked for.
    pub(crate) fn input_lost(&mut self, id: ExecId, error: &std::io::Error) {
        let reason = format!("its standard input could not be written: {error}");
        self.handle(Event::Fail { now: self.now(), run: id, reason });
    }

    fn signal(&mut self, connection: ConnectionId, id: ExecId, signal: u8) {
        let deny = |reason, message: String| ServerMessage::Denied {
            request_id: 0,
            exec_id: Some(id),
            denied: Denied::new(reason, message),
        };
        if !(1..=MAX_SIGNAL).contains(&signal) {
            let message = format!("{signal} is no signal; they have the numbers 1 to {MAX_SIGNAL}");
            self.answer(connection, &deny(DenyReason::BadRequest, message));
            return;
        }
        let uid = self.connections.get(&connection).map(|outbox| outbox.owner.uid);
        if ENDING_SIGNALS.contains(&signal) && uid.is_some_and(|uid| self.withdraw(uid, id)) {
            return;
        }
        let Some(owner) = self.permitted(connection, Action::Kill, id) else { return };
        match self.dispatcher.phase(id, owner) {
            Some(Phase::Starting | Phase::Running) => {
                self.record_own(connection, id, "signalled", format_args!("signal {signal}"));
                if let Some(called) = self.runs.get_mut(&id).and_then(|run| run.tool.as_mut()) {
                    called.is_tightened = true;
                }
                self.tell_launcher(id, &ToLauncher::Signal { exec_id: id, signal });
            }
            Some(Phase::Queued) if ENDING_SIGNALS.contains(&signal) => self.cancel(connection, owner, id),
            Some(_) => {}
            // The dispatcher has the words for a run that isn't known.
            None => self.cancel(connection, owner, id),
        }
    }

    fn cancel(&mut self, connection: ConnectionId, owner: u32, run: ExecId) {
        if let Some(Phase::Queued | Phase::Starting | Phase::Running) = self.dispatcher.phase(run, owner) {
            self.record_own(connection, run, "cancelled", format_args!("before it had ended"));
        }
        self.handle(Event::Cancel { now: self.now(), connection, owner, run });
    }

    fn attach(&mut self, connection: ConnectionId, run: ExecId, after_seq: u64) {
        let followed =
            self.connections.get(&connection).is_some_and(|outbox| outbox.following.contains_key(&run));
        if followed {
            let denied = Denied::new(DenyReason::BadRequest, "this connection follows the run already");
            self.answer(connection, &ServerMessage::Denied { request_id: 0, exec_id: Some(run), denied });
            return;
        }
        if let Some(outbox) = self.connections.get_mut(&connection).filter(|outbox| !outbox.may_follow()) {
            outbox.is_overdrawn = true;
            return;
        }
        if let Some(owner) = self.permitted(connection, Action::Attach, run) {
            let is_stranger =
                self.connections.get(&connection).is_none_or(|outbox| outbox.owner.uid != owner);
            if self.dispatcher.phase(run, owner).is_some() {
                self.record_own(connection, run, "attached", format_args!("behind event {after_seq}"));
            }
            self.handle(Event::Attach { connection, owner, run, after_seq, is_stranger });
        }
    }

    /// The runs that somebody may see, newest first. Without rules of access those are his; root's daemon lists everybody's for root.
    fn list(&mut self, connection: ConnectionId, owner: u32) {
        let everybody = owner == 0 && !self.settings.is_user_mode();
        let seen = self.seen(connection);
        let is_seen = |id: &ExecId, run: &Run| match &seen {
            Some(seen) => seen.contains(id),
            None => everybody || run.owner == owner,
        };
        let mut ids: Vec<ExecId> =
            self.runs.iter().filter(|(id, run)| is_seen(id, run)).map(|(id, _)| *id).collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        let now = self.now();
        let mut bytes = 0;
        let mut summaries = Vec::new();
        for id in ids {
            let Some(summary) = self.summary(id, now) else { continue };
            let words = format!("{:?}", summary.state).len();
            bytes += SUMMARY_BYTES + summary.policy.len() + summary.command.len() + words;
            if bytes > LIST_BYTES {
                break;
            }
            summaries.push(summary);
        }
        self.answer(connection, &ServerMessage::Runs(summaries));
    }

    fn summary(&self, id: ExecId, now: u64) -> Option<RunSummary> {
        let run = self.runs.get(&id)?;
        let state = match self.dispatcher.phase(id, run.owner)? {
            Phase::Queued => RunState::Queued,
            Phase::Starting => RunState::Starting,
            Phase::Running => RunState::Running,
            Phase::Closing { outcome } | Phase::Ended { outcome } => {
                RunState::Ended { outcome: outcome.clone() }
            }
        };
        Some(RunSummary {
            exec_id: id,
            owner_uid: run.owner,
            policy: run.policy.clone(),
            command: run.command.clone(),
            state,
            age_ms: now.saturating_sub(run.asked_at).saturating_add(run.age_before),
            last_seq: self.dispatcher.last_seq(id),
        })
    }

    /// How the daemon is.
    pub(crate) fn status(&mut self) -> StatusReport {
        let counts = self.dispatcher.counts();
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let limiter = self.gate.limiter(self.started.elapsed(), number(counts.running));
        let breaking = self.gate.breaking(self.uptime());
        let (grants, requests) = self.grant_counts();
        let introduction = self.links.introduction();
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: self.settings.pid.cast_unsigned(),
            launcher_pid: self.links.pid().map_or(0, i32::cast_unsigned),
            uptime_ms: self.now(),
            plan: introduction.map_or(Plan::Minimal, |introduction| introduction.plan),
            memory: introduction.map_or(MemoryMechanism::Rusage, |introduction| introduction.memory),
            running: number(counts.running),
            slots: number(self.limits.bounds.slots.total),
            queued: number(counts.queued),
            queue_bound: number(self.limits.bounds.queue.total),
            connections: number(self.connections.len()),
            accepted: counts.accepted,
            denied: counts.denied,
            ended: counts.ended,
            unreaped: number(counts.unreaped),
            warmth: self.links.warmth(),
            draining: counts.draining,
            policies: self.specs.policies().names().into_iter().map(str::to_owned).collect(),
            unready: metrics::unready(self).into_iter().map(str::to_owned).collect(),
            known: number(self.runs.len()),
            launchers: self.figures.launchers(),
            outcomes: self.figures.by_outcome(),
            denials: self.figures.by_reason(),
            process: Process::look().into(),
            connection_bytes: self.ledger.taken() as u64,
            kernel: metrics::kernel(),
            metrics: self.figures.told_at.as_ref().map(ToString::to_string).unwrap_or_default(),
            tools: number(self.gate.tools().tools().len()),
            limiter,
            breakers_open: number(breaking.open),
            breakers_half_open: number(breaking.half_open),
            often_wrong: self.gate.often_wrong(),
            locked_out: self.gate.locked(self.uptime()).into_iter().map(locked_out).collect(),
            approvals_waiting: number(self.approvals.len()),
            grants: number(grants),
            grant_requests: number(requests),
            reviewing: number(self.approvals.reviewing()),
        }
    }
}

/// What root may ask of a user's own daemon.
fn is_for_visitors(message: &ClientMessage) -> bool {
    let is_about_approvals =
        matches!(message, ClientMessage::Approvals { .. } | ClientMessage::Approve { .. });
    is_about_approvals || matches!(message, ClientMessage::Status)
}

pub(super) fn unexpected(text: &str) -> ProtocolError {
    ProtocolError { code: ProtocolErrorCode::Unexpected, text: text.to_owned() }
}

fn take_descriptors(
    request: &ExecRequest,
    opened: Option<Result<Foreign, SetupFailure>>,
    mut take: impl FnMut() -> Option<Foreign>,
) -> Result<Descriptors, ProtocolError> {
    let named = admission::named_descriptors(request);
    let mut missing =
        || unexpected(&format!("the request names {named} descriptors, and fewer came beside it"));
    let mut next = |wanted: bool| -> Result<Option<Foreign>, ProtocolError> {
        if wanted { take().ok_or_else(&mut missing).map(Some) } else { Ok(None) }
    };
    let (workspace, unopened) = match (&request.workspace, opened) {
        (Workspace::Descriptor { .. }, _) => (next(true)?, None),
        (_, Some(Ok(directory))) => (Some(directory), None),
        (_, Some(Err(failure))) => (None, Some(failure)),
        // Refused before it could be opened, or by what follows: nothing runs in a place that nobody has looked at.
        (_, None) => {
            (None, Some(SetupFailure { stage: SetupStage::Open, errno: 0, subject: "workspace".into() }))
        }
    };
    let stdin = next(request.stdin == StdinMode::Descriptor)?;
    let mut output = Vec::new();
    if request.output == OutputMode::Descriptor {
        output.extend(next(true)?);
        output.extend(next(true)?);
    }
    Ok(Descriptors { workspace, unopened, stdin, output })
}

/// The path that a request names its workspace by, if it's by that only.
fn claimed(request: &ExecRequest) -> Option<PathBuf> {
    match &request.workspace {
        Workspace::Path { path } => Some(path.as_path().to_owned()),
        _ => None,
    }
}

/// Nobody can be asked about a directory that isn't there.
fn unopened(failure: &SetupFailure) -> Denied {
    let why = Errno::from_raw_os_error(failure.errno);
    let text = format!("the workspace that somebody would be asked about can't be opened: {why}");
    Denied::new(DenyReason::NotApproved, text)
        .decided_by("approve", "workspace")
        .remedy("name a directory that is there and may be entered")
}

fn kinds_of(descriptors: &Descriptors) -> Result<Passed, Denied> {
    let look = || -> std::io::Result<Passed> {
        let path = |workspace: &Foreign| descriptors::directory_path(workspace.get()?);
        let workspace = descriptors.workspace.as_ref().map(path).transpose()?;
        let stdin = descriptors.stdin.as_ref().map(Foreign::kind).transpose()?;
        let output = match descriptors.output.as_slice() {
            [stdout, stderr] => Some([stdout.kind()?, stderr.kind()?]),
            _ => None,
        };
        Ok(Passed { workspace, stdin, output })
    };
    look().map_err(|error| {
        Denied::new(DenyReason::BadRequest, format!("a passed descriptor can't be looked at: {error}"))
    })
}

/// What a request takes while it waits, roughly: its strings.
/// What the run itself opens as its standard input nobody counts.
///
/// # Errors
/// The policy bounds standard input.
fn read_within(openings: &[Opening], most: Option<u64>) -> Result<(), Denied> {
    let Some(most) = most.filter(|_| openings.iter().any(|opening| opening.number == 0)) else {
        return Ok(());
    };
    let text = format!(
        "the tool's standard input is a file of the workspace, of which nobody counts the bytes, and its policy has `stdin` limited to {most}"
    );
    let remedy = "name the file in the tool's arguments, or take `stdin` out of the policy's [limits]";
    Err(Denied::new(DenyReason::Policy, text).remedy(remedy))
}

pub(super) fn size_of(admitted: &Admitted) -> usize {
    let Admitted { launch, stdin, .. } = admitted;
    let arguments: usize = launch.argv.iter().map(|argument| argument.len()).sum();
    let environment: usize = launch.environment.iter().map(|(name, value)| name.len() + value.len()).sum();
    let inline = if let StdinPlan::Inline(bytes) = stdin { bytes.len() } else { 0 };
    let openings: usize = launch.openings.iter().map(|opening| opening.path.len()).sum();
    arguments + environment + inline + openings
}
