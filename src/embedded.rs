//! A run without a daemon: this process plays the supervisor, without a runtime and without a thread.
//!
//! ```text
//! policies read ──> request admitted ──> launcher started with it ──Started──> running ──Ended──> drained
//! ```
//!
//! The launcher is within this process, which has the run in its memory already; see [`Link`] for when it isn't. What the policy
//! has no rule on is passed through; else the command's output comes by two pipes, is counted here, and written to
//! our own. A limit on output and the idle clock are kept here, because only whoever reads the pipes can; every
//! other limit is the launcher's. The launcher dies with us, and with it the run.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use stockade_client::Request;
use stockade_protocol::client::{ExecEvent, ExecRequest, StdinMode, Stream, Workspace};
use stockade_protocol::confinement::StdioPath;
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::launch::{FromLauncher, Launch, LaunchOutput, Opening, Owner, ToLauncher};
use stockade_protocol::outcome::{CancelReason, Clock, Outcome, Usage};
use stockade_protocol::spec::SandboxSpec;
use stockade_protocol::{Bytes, ExecId};
use stockade_supervisor::admission::{self, Caller, Confining, Once, OutputRules, Passed, StdinPlan};
use stockade_supervisor::descriptors;
use stockade_supervisor::redaction::Redacting;

use crate::access::{self, Sought};
use crate::error::{CliError, chain};
use crate::follow::Follow;
use crate::hiding::{self, Hiding};
use crate::link::{Heard, Link};
use crate::run::{Arguments, Called};
use crate::signals::{Signals, Wish};
use crate::sink::{CHUNK, Sink};
use crate::wait::wait;
use crate::{escape, exit, sources};

/// How long the pipes may stay open and silent after the run's end: nothing of the run is left to write to them.
const DRAIN: Duration = Duration::from_secs(5);
/// Room in each output pipe, where the kernel grants it.
const PIPE: usize = 256 * 1024;

/// Runs the command; the status to exit with. `called`: rules of access have been asked already, about the call.
pub(crate) fn run(
    arguments: &Arguments,
    request: Request,
    called: Option<&Called>,
    follow: &mut Follow,
) -> Result<u8, CliError> {
    // Nobody waits for the launcher: once it has said `Ended`, nothing of the run is left but what the kernel takes
    // apart by itself, and it leaves when its channel closes. It would cost a command of a millisecond ten more.
    match launch(arguments, request, called)? {
        // The run is the end of this process, which gives everything back at once. To give it back piece by piece is to
        // write to pages that were shared with the worker, each of which is copied for that.
        Ok((link, plan)) => {
            let mut run = ManuallyDrop::new(Run::new(link, follow, plan));
            Ok(run.serve().unwrap_or_else(|error| run.lose(&error)))
        }
        Err(denied) => {
            follow.denied(&denied);
            Ok(follow.finish(exit::OURS))
        }
    }
}

/// What was sent to the launcher, and our ends of it.
#[derive(Debug)]
pub(crate) struct Plan {
    exec_id: ExecId,
    /// Our ends of standard output's and error's pipes.
    pub(crate) pipes: [Option<OwnedFd>; 2],
    /// Our end of standard input's pipe, where we read the input ourselves.
    stdin: Option<OwnedFd>,
    stdin_limit: Option<u64>,
    output_limit: Option<u64>,
    idle: Option<Duration>,
    relayed: bool,
    /// What is hidden in the output.
    pub(crate) redacting: Option<Redacting>,
}

/// A launcher that has its run, and what is left for us; or a refusal.
pub(crate) type Launched = Result<(Link, Plan), Denied>;

/// Admits the request and starts it.
fn launch(arguments: &Arguments, request: Request, called: Option<&Called>) -> Result<Launched, CliError> {
    let (policies, name) = match arguments.policy_file() {
        Some(file) => sources::with_file(file)?,
        None => (sources::named(&arguments.policy)?, arguments.policy.clone()),
    };
    let (mut exec, descriptors) = request.into_parts();
    exec.policy = name;
    // The machine's rules hold here, too.
    if called.is_none() {
        let (policy, words) = (exec.policy.as_str(), exec.argv.as_slice());
        let is_file = arguments.policy_file().is_some();
        let sought = Sought::Run { policies: &policies, policy, is_file, words };
        if let Err(denied) = access::judge(sought, workspace_of(&exec))? {
            return Ok(Err(denied));
        }
    }
    let by_default = hiding::by_default(&policies, &exec.policy)?;
    let more = More { by_default, openings: called.map_or(&[], |called| &called.openings) };
    let demanded = demanded(arguments, &exec.environment);
    // Kept to the end, as the run is.
    let policies = &*ManuallyDrop::new(policies);
    if arguments.json || arguments.verbose {
        return admit_and_start(policies, exec, descriptors, &demanded, more);
    }
    // Nobody is told what holds.
    admit_and_start(Once(policies), exec, descriptors, &demanded, more)
}

/// Where it would run; nowhere that rules speak of, if that isn't known: it's refused later on.
fn workspace_of(exec: &ExecRequest) -> &Path {
    match &exec.workspace {
        Workspace::Descriptor { path } | Workspace::Path { path } => path.as_path(),
        _ => Path::new(""),
    }
}

/// What isn't the request's to say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct More<'a> {
    /// Whether output is redacted where the policy doesn't say.
    pub(crate) by_default: bool,
    /// What the run finds open.
    pub(crate) openings: &'a [Opening],
}

/// Judges a request and starts it. `demanded` are variables that must arrive.
pub(crate) fn admit_and_start(
    policies: impl Confining,
    exec: ExecRequest,
    beside: Vec<OwnedFd>,
    demanded: &[(Bytes, Bytes)],
    more: More<'_>,
) -> Result<Launched, CliError> {
    let passed = passed(&exec, &beside).map_err(CliError::io("look at a descriptor"))?;
    let caller = caller().map_err(CliError::io("tell who we are"))?;
    let rules = OutputRules { redacts_by_default: more.by_default, ..OutputRules::default() };
    let mut admitted = match admission::admit(exec, ExecId::generate(), &caller, policies, &passed, rules) {
        Ok(admitted) => admitted,
        Err(denied) => return Ok(Err(denied)),
    };
    admitted.launch.openings = more.openings.to_vec();
    if let Some(denied) = missing(demanded, &admitted.launch, &admitted.spec) {
        return Ok(Err(denied));
    }
    start(admitted.launch, admitted.spec, &admitted.stdin, beside).map(Ok)
}

/// What the descriptors beside a request are.
fn passed(request: &ExecRequest, beside: &[OwnedFd]) -> std::io::Result<Passed> {
    let mut rest = beside.iter();
    let mut passed = Passed::default();
    if matches!(request.workspace, Workspace::Descriptor { .. })
        && let Some(fd) = rest.next()
    {
        passed.workspace = Some(descriptors::directory_path(fd)?);
    }
    if request.stdin == StdinMode::Descriptor
        && let Some(fd) = rest.next()
    {
        passed.stdin = Some(descriptors::kind(fd)?);
    }
    if let (Some(stdout), Some(stderr)) = (rest.next(), rest.next()) {
        passed.output = Some([descriptors::kind(stdout)?, descriptors::kind(stderr)?]);
    }
    Ok(passed)
}

/// We are our own peer.
fn caller() -> std::io::Result<Caller> {
    let uid = rustix::process::geteuid().as_raw();
    let groups = rustix::process::getgroups()?;
    Ok(Caller {
        owner: Owner {
            uid,
            gid: rustix::process::getegid().as_raw(),
            groups: groups.into_iter().map(rustix::process::Gid::as_raw).collect(),
        },
        home: sources::home().to_owned(),
        user_mode: uid != 0,
    })
}

/// What `--env` demands, with the values that have to arrive.
fn demanded(arguments: &Arguments, environment: &[(Bytes, Bytes)]) -> Vec<(Bytes, Bytes)> {
    let names = arguments.demanded();
    environment.iter().filter(|(name, _)| names.contains(name)).cloned().collect()
}

/// The first demanded variable that the policy keeps away or sets otherwise.
fn missing(demanded: &[(Bytes, Bytes)], launch: &Launch, spec: &SandboxSpec) -> Option<Denied> {
    let (name, _) = demanded.iter().find(|pair| !launch.environment.contains(pair))?;
    let policy = escape::line(spec.policy.as_bytes());
    let shown = escape::line(name);
    let is_set = launch.environment.iter().any(|(known, _)| known == name);
    let message = if is_set {
        format!("policy `{policy}` sets the variable {shown} itself")
    } else {
        format!("policy `{policy}` doesn't allow the variable {shown}")
    };
    let remedy = format!(
        "a policy with `{shown}` in [environment] allow; `stockade policy explain {policy} env {shown}` names the rule"
    );
    Some(Denied::new(DenyReason::Policy, message).remedy(remedy))
}

/// Starts the launch with its descriptors: ours where they are passed through, else ends of pipes.
fn start(
    mut launch: Launch,
    spec: Arc<SandboxSpec>,
    stdin: &StdinPlan,
    beside: Vec<OwnedFd>,
) -> Result<(Link, Plan), CliError> {
    let relayed = launch.output != LaunchOutput::Passed;
    launch.output = LaunchOutput::Passed;
    let mut plan = Plan {
        exec_id: launch.exec_id,
        pipes: [None, None],
        stdin: None,
        stdin_limit: spec.limits.stdin,
        output_limit: spec.limits.output,
        idle: spec.limits.idle_ms.map(Duration::from_millis),
        relayed,
        redacting: hiding::redacting(launch.note.redaction.take())?,
    };
    let pipe = || {
        std::io::pipe()
            .map(|(read, write)| (OwnedFd::from(read), OwnedFd::from(write)))
            .map_err(CliError::io("make a pipe"))
    };
    let mut rest = beside.into_iter();
    let mut passing: Vec<_> = if launch.workspace_passed { rest.next() } else { None }.into_iter().collect();
    let own_input = if matches!(stdin, StdinPlan::Null) { None } else { rest.next() };
    passing.extend(if let StdinPlan::Relayed(_) = stdin {
        let (theirs, ours) = pipe()?;
        plan.stdin = Some(ours);
        Some(theirs)
    } else {
        own_input
    });
    if relayed {
        for ours in &mut plan.pipes {
            let (read, theirs) = pipe()?;
            *ours = Some(read);
            passing.push(theirs);
        }
    } else {
        passing.extend(rest);
    }
    let link = Link::start(launch, spec, passing)?;
    for pipe in plan.pipes.iter().flatten() {
        // One of the usual size does as well, only slower.
        let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE);
    }
    Ok((link, plan))
}

/// How it ended.
#[derive(Debug)]
struct End {
    outcome: Outcome,
    usage: Usage,
    trusted_files: Vec<Bytes>,
}

impl End {
    fn lost(reason: String) -> Self {
        Self { outcome: Outcome::Lost { reason }, usage: Usage::default(), trusted_files: vec![] }
    }
}

/// One run that goes on.
#[derive(Debug)]
struct Run<'a> {
    link: Link,
    follow: &'a mut Follow,
    /// `None`: not yet taken.
    signals: Option<Signals>,
    plan: Plan,
    stdin: Option<Sink<OwnedFd>>,
    seq: u64,
    /// Of an output in which secrets are hidden.
    hiding: Option<Box<Hiding>>,
    started: bool,
    /// Bytes of output so far, never over the limit.
    out: u64,
    /// Bytes of input so far.
    sent: u64,
    exceeded: bool,
    told_broken: bool,
    /// When output last moved.
    moved: Instant,
    /// The idle clock ran out, and the launcher was told to cancel.
    idled: bool,
    end: Option<End>,
}

impl<'a> Run<'a> {
    fn new(link: Link, follow: &'a mut Follow, mut plan: Plan) -> Self {
        let stdin = plan.stdin.take().map(Sink::new);
        let hiding = plan.redacting.take().map(|redacting| Box::new(Hiding::new(&redacting)));
        let mut run = Self {
            link,
            follow,
            signals: None,
            plan,
            stdin,
            seq: 0,
            hiding,
            started: false,
            out: 0,
            sent: 0,
            exceeded: false,
            told_broken: false,
            moved: Instant::now(),
            idled: false,
            end: None,
        };
        run.event(&ExecEvent::Accepted { request_id: 1 });
        run
    }

    /// Follows the run to its end.
    ///
    /// # Errors
    /// Why it can't be followed any more; nothing may be said of it but that it's lost.
    fn serve(&mut self) -> Result<u8, CliError> {
        // After the launcher is started: a blocked signal would be inherited.
        self.signals = Some(Signals::take().map_err(CliError::io("take the signals"))?);
        loop {
            self.tell_broken()?;
            self.check_idle()?;
            let drained = self.plan.pipes.iter().all(Option::is_none);
            if drained
                && !self.follow.pending()
                && let Some(end) = self.end.take()
            {
                return Ok(self.finish(end));
            }
            if let Some(status) = self.wait()? {
                return Ok(status);
            }
        }
    }

    /// Waits for the next thing and does it. `Some`: leave now.
    fn wait(&mut self) -> Result<Option<u8>, CliError> {
        let (stdout, stderr) = (&self.follow.stdout, &self.follow.stderr);
        // As JSON both streams go to standard output.
        let full =
            [stdout.pending(), if self.follow.is_json() { stdout.pending() } else { stderr.pending() }];
        let pipe = |at: usize| {
            // Not before `Started`, or the end of a run that never began: events keep their order.
            let begun = self.started || self.end.is_some();
            let pipe = self.plan.pipes[at].as_ref().filter(|_| begun && !full[at]);
            pipe.map(|pipe| (pipe.as_fd(), PollFlags::IN))
        };
        let own_input = rustix::stdio::stdin();
        let stdin_full = self.stdin.as_ref().filter(|sink| sink.pending());
        let stdin_room = self.stdin.as_ref().filter(|sink| !sink.pending());
        let wanted = [
            self.signals.as_ref().map(|signals| (signals.as_fd(), PollFlags::IN)),
            self.end.is_none().then(|| (self.link.as_fd(), PollFlags::IN)),
            pipe(0),
            pipe(1),
            stdin_room.map(|_| (own_input, PollFlags::IN)),
            stdin_full.map(|sink| (sink.as_fd(), PollFlags::OUT)),
            stdout.pending().then(|| (stdout.as_fd(), PollFlags::OUT)),
            stderr.pending().then(|| (stderr.as_fd(), PollFlags::OUT)),
        ];
        let deadline = self.deadline(full);
        let ready = wait(wanted, deadline).map_err(CliError::io("wait for the launcher"))?;
        let [signal, _, out, err, input, input_out, ..] = ready;
        self.link.turn()?;
        self.flush();
        if out {
            self.read(Stream::Stdout)?;
        }
        if err {
            self.read(Stream::Stderr)?;
        }
        self.let_go(full, [out, err]);
        if input || input_out {
            self.feed(input)?;
        }
        self.receive()?;
        if self.drain_runs() && self.moved.elapsed() >= DRAIN {
            self.plan.pipes = [None, None];
        }
        if signal && let Some(wish) = self.signals.as_mut().and_then(Signals::next) {
            return self.obey(wish);
        }
        Ok(None)
    }

    fn deadline(&self, full: [bool; 2]) -> Option<Instant> {
        let idle = self.plan.idle.filter(|_| self.idle_runs());
        let drain = if self.drain_runs() { Some(DRAIN) } else { None };
        let held = self.hiding.as_ref().and_then(|hiding| hiding.deadline(full.map(|full| !full)));
        let own = idle.into_iter().chain(drain).map(|wait| self.moved + wait);
        own.chain(self.link.deadline()).chain(held).min()
    }

    fn flush(&mut self) {
        let pending = self.follow.pending();
        self.follow.stdout.flush();
        self.follow.stderr.flush();
        if pending {
            self.moved = Instant::now();
        }
    }

    /// Reads one chunk of the command's output, counts it, and writes what is allowed.
    fn read(&mut self, stream: Stream) -> Result<(), CliError> {
        let at = usize::from(stream == Stream::Stderr);
        let Some(pipe) = self.plan.pipes[at].take() else { return Ok(()) };
        let left = self.plan.output_limit.map_or(u64::MAX, |limit| limit - self.out);
        let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let discard = self.exceeded || most == 0;
        let read = if discard || self.hiding.is_some() || self.follow.looks() {
            let mut buffer = vec![0; if discard { CHUNK } else { most }];
            let read = rustix::io::read(&pipe, &mut buffer);
            if let Ok(length @ 1..) = read
                && !discard
            {
                buffer.truncate(length);
                self.show(stream, buffer);
            }
            read
        } else {
            let sink = if at == 0 { &mut self.follow.stdout } else { &mut self.follow.stderr };
            sink.feed(&pipe, most)
        };
        match read {
            Ok(0) => {
                self.end_stream(stream);
                return Ok(());
            }
            Ok(_) if discard && !self.exceeded => {
                self.exceeded = true;
                self.link.tell(ToLauncher::OutputExceeded { exec_id: self.plan.exec_id })?;
            }
            Ok(length) if !discard => self.out += length as u64,
            Ok(_) | Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(errno) => return Err(CliError::io("read the command's output")(errno.into())),
        }
        self.moved = Instant::now();
        self.plan.pipes[at] = Some(pipe);
        Ok(())
    }

    /// Gives what the command has written to where its output goes, as far as it may be seen.
    fn show(&mut self, stream: Stream, bytes: Vec<u8>) {
        let bytes = match &mut self.hiding {
            Some(hiding) => hiding.feed(stream, &bytes),
            None => bytes,
        };
        self.put(stream, bytes);
    }

    fn put(&mut self, stream: Stream, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.event(&ExecEvent::Output { stream, bytes: Bytes(bytes) });
        }
    }

    /// Lets go what is held of a stream that has been silent for long enough. `full`: those that weren't listened to; `spoke`: those
    /// that had something to say.
    fn let_go(&mut self, full: [bool; 2], spoke: [bool; 2]) {
        for (at, stream) in [Stream::Stdout, Stream::Stderr].into_iter().enumerate() {
            let Some(hiding) = &mut self.hiding else { return };
            if full[at] {
                hiding.turn_away(stream);
            } else if !spoke[at] {
                let shown = hiding.flush(stream);
                self.put(stream, shown.unwrap_or_default());
            }
        }
    }

    fn end_stream(&mut self, stream: Stream) {
        let shown = self.hiding.as_mut().map(|hiding| hiding.finish(stream));
        self.put(stream, shown.unwrap_or_default());
    }

    /// Moves our standard input to the command's.
    fn feed(&mut self, readable: bool) -> Result<(), CliError> {
        let Some(sink) = &mut self.stdin else { return Ok(()) };
        if !readable {
            sink.flush();
        } else {
            let left = self.plan.stdin_limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.sent));
            let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let read = match most {
                0 => rustix::io::read(std::io::stdin(), &mut [0; 1]),
                _ => sink.feed(std::io::stdin(), most),
            };
            match read {
                Ok(1..) if most == 0 => {
                    self.stdin = None;
                    return self.cancel(CancelReason::InputExceeded { limit: self.sent });
                }
                Ok(length @ 1..) => self.sent += length as u64,
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                // The end, or an error: the command sees the end of its input.
                Ok(0) | Err(_) => {
                    self.stdin = None;
                    return Ok(());
                }
            }
        }
        if sink.broken() {
            self.stdin = None;
        }
        Ok(())
    }

    /// Takes what the launcher has said.
    fn receive(&mut self) -> Result<(), CliError> {
        while self.end.is_none() {
            match self.link.hear()? {
                Heard::Said(message) => self.heard(Some(message)),
                Heard::Gone => self.heard(None),
                Heard::Nothing => break,
            }
        }
        Ok(())
    }

    fn heard(&mut self, message: Option<FromLauncher>) {
        match message {
            Some(FromLauncher::Started { mut confinement, .. }) => {
                if self.plan.relayed {
                    // The launcher was passed pipes and can't know that we read them.
                    confinement.stdio[1..].fill(StdioPath::Relayed);
                }
                if self.stdin.is_some() {
                    confinement.stdio[0] = StdioPath::Relayed;
                }
                self.started = true;
                self.moved = Instant::now();
                self.event(&ExecEvent::Started { confinement });
            }
            Some(FromLauncher::Warning { limit, value, bound, .. }) => {
                self.event(&ExecEvent::LimitWarning { limit, value, bound });
            }
            Some(FromLauncher::Ended { outcome, usage, trusted_files, .. }) => {
                self.over(End { outcome, usage, trusted_files });
            }
            Some(_) => {}
            None => self.over(End::lost("the launcher died".to_owned())),
        }
    }

    /// Gives up a run that can't be followed: what is left of it dies with its launcher's channel, or with us. An end that was
    /// heard stays one, though not all of the output may be there.
    fn lose(&mut self, error: &CliError) -> u8 {
        self.link.close();
        let why = chain(error);
        match self.end.take() {
            None => self.finish(End::lost(why)),
            Some(end) => {
                self.follow.note(&format!("the end of the output may be missing: {why}"));
                self.finish(end).max(exit::OURS)
            }
        }
    }

    fn over(&mut self, mut end: End) {
        if let (true, Some(idle), Outcome::Cancelled { .. }) = (self.idled, self.plan.idle, &end.outcome) {
            let limit_ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
            end.outcome = Outcome::TimedOut { clock: Clock::Idle, limit_ms };
        }
        self.stdin = None;
        self.moved = Instant::now();
        self.end = Some(end);
    }

    fn finish(&mut self, mut end: End) -> u8 {
        // That the launcher hears of it no more changes nothing: it is about to leave.
        let _ = self.link.tell(ToLauncher::Shutdown);
        end.usage.bytes_out = self.out;
        end.usage.bytes_in = self.sent;
        let End { mut outcome, usage, trusted_files } = end;
        if let (true, Some(limit), Outcome::Exited { .. } | Outcome::Signaled { .. }) =
            (self.exceeded, self.plan.output_limit, &outcome)
        {
            // It had ended by itself before all that it wrote was read.
            outcome = Outcome::OutputExceeded { limit };
        }
        [Stream::Stdout, Stream::Stderr].into_iter().for_each(|stream| self.end_stream(stream));
        let redactions = self.hiding.as_ref().map(|hiding| hiding.told());
        self.event(&ExecEvent::Exited { outcome, usage, trusted_files, redactions, result_check: None });
        let status = self.follow.status().unwrap_or(exit::OURS);
        self.follow.finish(status)
    }

    fn obey(&mut self, wish: Wish) -> Result<Option<u8>, CliError> {
        if let Some(end) = &self.end {
            // The run is over; only our own reader keeps us.
            return Ok(match wish {
                Wish::Forward(signal) | Wish::Leave(signal) => Some(128 + signal),
                Wish::Cancel => Some(exit::status(&end.outcome)),
            });
        }
        match wish {
            Wish::Leave(signal) => return Ok(Some(128 + signal)),
            Wish::Forward(signal) if self.started => {
                self.link.tell(ToLauncher::Signal { exec_id: self.plan.exec_id, signal })?;
            }
            // Before the command has begun there is nobody to hear a signal.
            Wish::Forward(_) | Wish::Cancel => self.cancel(CancelReason::Asked)?,
        }
        Ok(None)
    }

    /// Nobody reads our output any more: the command meets that as it would unconfined, by its pipe's end.
    fn tell_broken(&mut self) -> Result<(), CliError> {
        if self.follow.is_json() {
            if self.follow.stdout.broken() && !self.told_broken && self.end.is_none() {
                self.told_broken = true;
                self.cancel(CancelReason::Asked)?;
            }
            return Ok(());
        }
        if self.follow.stdout.broken() {
            self.plan.pipes[0] = None;
        }
        if self.follow.stderr.broken() {
            self.plan.pipes[1] = None;
        }
        Ok(())
    }

    /// After the run's end, while nobody who reads us holds it up.
    fn drain_runs(&self) -> bool {
        self.end.is_some() && !self.follow.pending()
    }

    /// The clock stands while our own output takes no more: the command can't write, so it isn't idle.
    fn idle_runs(&self) -> bool {
        self.started && self.end.is_none() && !self.idled && !self.follow.pending()
    }

    fn check_idle(&mut self) -> Result<(), CliError> {
        let Some(idle) = self.plan.idle else { return Ok(()) };
        if self.idle_runs() && self.moved.elapsed() >= idle {
            self.idled = true;
            self.cancel(CancelReason::Asked)?;
        }
        Ok(())
    }

    fn cancel(&mut self, reason: CancelReason) -> Result<(), CliError> {
        self.link.tell(ToLauncher::Cancel { exec_id: self.plan.exec_id, reason })
    }

    fn event(&mut self, event: &ExecEvent) {
        // As a daemon numbers them: a warning has the number of the event before it.
        if !matches!(event, ExecEvent::LimitWarning { .. }) {
            self.seq += 1;
        }
        self.follow.event(self.plan.exec_id, self.seq, event);
    }
}
