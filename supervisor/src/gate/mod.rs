//! The gate in the daemon: what its stages are told of a request, and what its client is told of a refusal.
//!
//! The stages themselves are [`stockade_gate`]'s, which know neither sockets nor clocks. A daemon without one lets every request
//! pass that admission permits.

pub mod access;
pub mod approval;
mod asking;
mod call;
mod files;
mod granting;
pub(crate) mod kept;
mod pressure;
mod standing;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use stockade_gate::access::{Access, Roles};
use stockade_gate::approve::{Risk, Settings};
use stockade_gate::breaker::{Breakers, Snapshot};
use stockade_gate::rate::{Limited, Limiter, Limits};
use stockade_gate::redact::Forms;
use stockade_gate::tools::executable::Identity;
use stockade_gate::tools::{Registry, Tool};
use stockade_gate::validate::Validate;
use stockade_gate::{
    Action, Asked, Ending, Given, Load, Moment, Principal, Reason, Refusal, Row, Stage, StageName, Thing,
    Verdict,
};
use stockade_protocol::ExecId;
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::launch::CalledTool;
use stockade_protocol::outcome::Outcome;
use stockade_protocol::spec::NetworkMode;
use tokio::sync::Notify;

use crate::redaction;

pub(crate) use approval::PlacedReviews;
use approval::Programs;
pub(crate) use asking::{OfRun, Unseen};
pub(crate) use call::Call;
pub(crate) use files::Files;
pub use files::{Fault, Faults, faults, limiter};
pub use kept::KeptError;

/// How old what is known of the machine's load may be.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The row, and what it needs of the daemon.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    row: Row,
    access: Rc<RefCell<Access>>,
    /// Whose roles limits are for.
    roles: Roles,
    /// How often files were taken up: what was worked out by others isn't good any more.
    generation: u64,
    tools: Arc<Registry>,
    validate: Rc<RefCell<Validate>>,
    /// `None`: nobody has ever said how often.
    limiter: Option<Rc<RefCell<Limiter>>>,
    breakers: Rc<RefCell<Breakers>>,
    risk: Rc<RefCell<Risk>>,
    /// What an approval takes.
    approving: Settings,
    /// Programs that look at what somebody is asked about.
    programs: Programs,
    /// The directories with a rule by which somebody is asked.
    asking: BTreeSet<PathBuf>,
    /// Rung when breakers have something else to be written down, which was so at this count of theirs.
    changed: Rc<Notify>,
    told_at: u64,
    /// Programs of tools as they were found, pinned ones or not, by the tools' names.
    pinned: BTreeMap<String, Identity>,
    /// What is looked for in output; `None`: what is shipped.
    forms: Option<Arc<Forms>>,
    /// What was last seen of the machine, and when.
    load: Option<(Duration, Load)>,
}

/// What is asked of the gate.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// By whom.
    pub(crate) asker: &'a Principal,
    /// Which run comes of it.
    pub(crate) run: ExecId,
    pub(crate) sought: Sought<'a>,
    /// Whether the policy that it would run under comes with the program.
    pub(crate) is_shipped: bool,
    /// The network that this policy gives.
    pub(crate) network: Option<NetworkMode>,
    /// Where it would run, as its client says.
    pub(crate) workspace: Option<&'a Path>,
    /// How many runs go on.
    pub(crate) runs: u32,
}

/// What somebody would have run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sought<'a> {
    /// A command line under a policy; `None`: under one that there isn't.
    Command {
        /// The policy's name.
        policy: Option<&'a str>,
        /// As it was asked for.
        named: &'a str,
        /// The words.
        words: &'a [Vec<u8>],
    },
    /// A tool.
    Call(&'a Call),
    /// A call that is none: of a tool that there isn't, of this name.
    NoCall(&'a str),
}

impl<'a> Sought<'a> {
    pub(crate) fn policy(self) -> Option<&'a str> {
        match self {
            Self::Command { policy, .. } => policy,
            Self::Call(call) => Some(call.policy()),
            Self::NoCall(_) => None,
        }
    }

    fn given(self) -> Given<'a> {
        match self {
            Self::Command { words, .. } => Given::Command(words),
            Self::Call(call) => call.given(),
            Self::NoCall(_) => Given::Nothing,
        }
    }

    /// What rules of access know of it.
    fn thing(self, is_shipped: bool, network: Option<NetworkMode>) -> Thing<'a> {
        match self {
            Self::Command { named, .. } => Thing { named, is_shipped, tool_roles: None, network },
            Self::Call(call) => Thing { named: call.name(), is_shipped, tool_roles: call.roles(), network },
            Self::NoCall(named) => Thing { named, ..Thing::default() },
        }
    }

    /// Which stages have nothing to look at: that there is no such tool has been said already.
    fn leaves_out(self) -> BTreeSet<StageName> {
        match self {
            Self::NoCall(_) => BTreeSet::from([StageName::Validate]),
            Self::Command { .. } | Self::Call(_) => BTreeSet::new(),
        }
    }
}

impl Gate {
    /// One with this row.
    #[cfg(test)]
    pub(crate) fn new(row: Row) -> Self {
        let approving = Settings { own_unit: true, ..Settings::default() };
        Self { row, approving, ..Self::default() }
    }

    /// One with the stages that files say something to.
    pub(crate) fn of(files: Files) -> Self {
        let mut gate = Self::default();
        gate.take_up(files);
        gate
    }

    /// Has other files hold. What stages have learned stays.
    pub(crate) fn take_up(&mut self, files: Files) {
        self.tools = files.tools;
        self.pinned = files.pinned;
        self.forms = files.forms;
        self.validate.borrow_mut().replace(Arc::clone(&self.tools));
        let mut stages: Vec<Box<dyn Stage>> = Vec::new();
        if self.tools.tools().len() > 0 {
            stages.push(Box::new(Rc::clone(&self.validate)));
            stages.push(Box::new(Rc::clone(&self.breakers)));
        }
        let Limited { limits, breaker, breakers, lockout, .. } = files.limited.unwrap_or_default();
        let own = files.rules.iter().position(|placed| placed.is_own);
        let engines = files.rules.into_iter().map(|placed| placed.engine).collect();
        {
            let mut access = self.access.borrow_mut();
            access.set(engines, lockout.map(|lockout| lockout.value).unwrap_or_default());
            // The machine's come before a user's own, whose daemon isn't above them.
            own.into_iter().for_each(|first| access.let_grants(first));
        }
        self.roles = files.roles;
        self.generation += 1;
        if self.access.borrow().is_on() {
            stages.push(Box::new(Rc::clone(&self.access)));
        }
        self.breakers.borrow_mut().set(breaker, breakers);
        match &self.limiter {
            Some(limiter) => limiter.borrow_mut().set(limits),
            None if limits == Limits::default() => {}
            None => self.limiter = Some(Rc::new(RefCell::new(Limiter::new(limits)))),
        }
        if let Some(limiter) = &self.limiter {
            stages.push(Box::new(Rc::clone(limiter)));
        }
        self.asking = files.asking;
        self.programs = files.programs;
        self.approving = approval::settings(&files.approval);
        self.risk.borrow_mut().set(files.approval);
        if self.risk.borrow().is_on() {
            stages.push(Box::new(Rc::clone(&self.risk)));
        }
        self.row = Row::new(stages);
    }

    /// What an approval takes.
    pub(crate) fn approving(&self) -> Settings {
        self.approving
    }

    /// Programs that look at what somebody is asked about, of each file.
    pub(crate) fn reviews(&self) -> Vec<Arc<PlacedReviews>> {
        self.programs.placed.clone()
    }

    /// Whether people have to say yes, whatever programs do.
    pub(crate) fn needs_people(&self) -> bool {
        !self.programs.instead_of_people
    }

    /// A directory with a rule by which somebody is asked, of which these files have none.
    pub(crate) fn asks_no_more(&self, files: &Files) -> Option<PathBuf> {
        self.asking.difference(&files.asking).next().cloned()
    }

    /// Somebody who was asked has refused something of a user's.
    pub(crate) fn not_approved(&self, (uid, unit): (u32, Option<&str>), uptime: Duration) {
        self.risk.borrow_mut().refused(uid, uptime);
        self.access.borrow_mut().refused_by_person(uid, unit, uptime);
    }

    /// What has passed waits until somebody has approved it; `called`: the tool, if it was a call.
    pub(crate) fn waits(&mut self, run: ExecId, called: Option<&CalledTool>) {
        self.row.waits(number(run), called.map(|called| called.name.as_str()));
        self.tell_changes();
    }

    /// It was approved, and is looked at again.
    ///
    /// # Errors
    /// A stage's refusal.
    pub(crate) fn goes_on(
        &mut self,
        run: ExecId,
        called: Option<&CalledTool>,
        uptime: Duration,
    ) -> Result<(), Denied> {
        let tool = called.map(|called| called.name.as_str());
        let judged = self.row.goes_on(number(run), tool, moment(uptime));
        self.tell_changes();
        judged.map_err(denied)
    }

    /// What is looked for in the output of runs that begin now.
    pub(crate) fn forms(&self) -> Arc<Forms> {
        self.forms.clone().unwrap_or_else(redaction::shipped)
    }

    /// Whether output is redacted where a policy doesn't say.
    pub(crate) fn redacts_by_default(&self) -> bool {
        self.forms.as_ref().is_some_and(|forms| forms.by_default())
    }

    /// The tools there are.
    pub(crate) fn tools(&self) -> &Registry {
        &self.tools
    }

    /// Whether a tool's program is the one that was pinned, if one was. It was read when the tools were: one that shows another size
    /// or time since isn't it. `uid`: as whom we run.
    ///
    /// # Errors
    /// `ToolChanged`.
    pub(crate) fn check_pin(&self, call: &Call, uid: u32) -> Result<(), Denied> {
        call.pinned(self.pinned.get(call.name()), uid)
    }

    /// The same of a tool that was called before.
    ///
    /// # Errors
    /// `ToolChanged`: also where there is no such tool any more.
    pub(crate) fn check_pin_of(&self, tool: &str, uid: u32) -> Result<(), Denied> {
        let known = self.tools.get(tool);
        let known = known.map_err(|unknown| Denied::new(DenyReason::ToolChanged, unknown.to_string()))?;
        call::pinned(known, self.pinned.get(tool), uid)
    }

    /// Whether it asks nothing at all.
    pub(crate) fn is_open(&self) -> bool {
        self.row.is_empty()
    }

    /// Whether anything of it may look at where a workspace is.
    pub(crate) fn judges_workspaces(&self) -> bool {
        self.has_rules() || self.risk.borrow().is_on()
    }

    /// Lets a command line or a call pass, has somebody asked first, or says why not. `uptime`: since the daemon's start.
    ///
    /// # Errors
    /// The first stage's refusal.
    pub(crate) fn judge(&mut self, wanted: &Wanted<'_>, uptime: Duration) -> Result<Verdict, Denied> {
        let asked = Asked {
            at: moment(uptime),
            run: number(wanted.run),
            principal: wanted.asker,
            action: if matches!(wanted.sought, Sought::Command { .. }) { Action::Run } else { Action::Call },
            policy: wanted.sought.policy(),
            tool: if let Sought::Call(call) = wanted.sought { Some(call.name()) } else { None },
            thing: wanted.sought.thing(wanted.is_shipped, wanted.network),
            given: wanted.sought.given(),
            workspace: wanted.workspace,
            owner: None,
            load: self.load(uptime, wanted.runs),
        };
        self.tell_grants_time();
        let judged = self.row.judge(&asked, &wanted.sought.leaves_out());
        if let Err(Refusal { reason: Reason::NotPermitted | Reason::NotApproved, .. }) = judged {
            self.risk.borrow_mut().refused(wanted.asker.uid, uptime);
        }
        self.tell_changes();
        judged.map_err(denied)
    }

    fn tell_changes(&mut self) {
        let changes = self.breakers.borrow().changes();
        if core::mem::replace(&mut self.told_at, changes) != changes {
            self.changed.notify_one();
        }
    }

    /// Rung when there is something else to be written down.
    pub(crate) fn changed(&self) -> Rc<Notify> {
        Rc::clone(&self.changed)
    }

    /// What is to be written down, and the count of changes that it's of.
    pub(crate) fn snapshot(&self, uptime: Duration) -> (u64, Snapshot) {
        let breakers = self.breakers.borrow();
        (breakers.changes(), breakers.snapshot(moment(uptime)))
    }

    /// Takes up what was written down, at the daemon's start.
    pub(crate) fn restore(&mut self, snapshot: &Snapshot) {
        self.breakers.borrow_mut().restore(snapshot, moment(Duration::ZERO));
    }

    /// How busy the machine is: looked at once a second at most, and only where there are limits, or rules that read it. Limits are
    /// told then, and drop whom nobody has heard of for long.
    fn load(&mut self, uptime: Duration, runs: u32) -> Load {
        if self.limiter.is_none() && !self.access.borrow().reads_load() {
            return Load { runs, ..Load::default() };
        }
        match self.load {
            Some((at, load)) if uptime.saturating_sub(at) < LOOK_EVERY => Load { runs, ..load },
            _ => {
                let load = Load { runs, ..pressure::look() };
                self.load = Some((uptime, load));
                if let Some(limiter) = &self.limiter {
                    limiter.borrow_mut().observe(uptime, &load);
                }
                load
            }
        }
    }

    /// What has passed has ended; `called`: the tool, if it was a call.
    pub(crate) fn ended(
        &mut self,
        run: ExecId,
        called: Option<&CalledTool>,
        outcome: &Outcome,
        uptime: Duration,
    ) {
        let known = called.and_then(|called| self.tools.find(&called.name));
        let ending = match ending(outcome, known.map(AsRef::as_ref)) {
            Ending::Failure if called.is_some_and(|called| called.is_tightened) => Ending::Neither,
            ending => ending,
        };
        self.tell_end(run, called, ending, uptime);
    }

    /// Whether an end by itself is one that the tool's file calls well; of a command: with status 0.
    pub(crate) fn is_success(&self, called: Option<&CalledTool>, outcome: &Outcome) -> bool {
        let known = called.and_then(|called| self.tools.find(&called.name));
        ending(outcome, known.map(AsRef::as_ref)) == Ending::Success
    }

    /// What has passed never became a run: admission, or the queue, has refused it.
    pub(crate) fn never_began(&mut self, run: ExecId, called: Option<&CalledTool>, uptime: Duration) {
        self.tell_end(run, called, Ending::Neither, uptime);
    }

    fn tell_end(&mut self, run: ExecId, called: Option<&CalledTool>, ending: Ending, uptime: Duration) {
        if !self.is_open() {
            let tool = called.map(|called| called.name.as_str());
            self.row.ended(number(run), tool, ending, moment(uptime));
            self.tell_changes();
        }
    }
}

/// A run as stages know it.
fn number(run: ExecId) -> u128 {
    u128::from_be_bytes(*run.as_bytes())
}

fn moment(uptime: Duration) -> Moment {
    Moment { uptime, wall: SystemTime::now() }
}

/// Whose fault an end is. Which exit statuses are failures a tool's file says; else all but 0.
fn ending(outcome: &Outcome, tool: Option<&Tool>) -> Ending {
    match outcome {
        Outcome::Exited { code } if !tool.map_or(*code != 0, |tool| tool.is_failure(*code)) => {
            Ending::Success
        }
        Outcome::Exited { .. }
        | Outcome::Signaled { .. }
        | Outcome::TimedOut { .. }
        | Outcome::MemoryExceeded { .. }
        | Outcome::OutputExceeded { .. }
        | Outcome::ProcessesExceeded { .. } => Ending::Failure,
        _ => Ending::Neither,
    }
}

/// A refusal in a client's words.
fn denied(refusal: Refusal) -> Denied {
    let Refusal { stage, reason, rule, message, remedy, retry_after } = refusal;
    let reason = match reason {
        Reason::LockedOut => DenyReason::LockedOut,
        Reason::RateLimited => DenyReason::RateLimited,
        Reason::BreakerOpen => DenyReason::BreakerOpen,
        Reason::UnknownTool => DenyReason::UnknownTool,
        Reason::ToolChanged => DenyReason::ToolChanged,
        Reason::BadParameters => DenyReason::BadParameters,
        Reason::NotApproved => DenyReason::NotApproved,
        Reason::AuditUnavailable => DenyReason::AuditUnavailable,
        // Also what this daemon has no word for.
        _ => DenyReason::NotPermitted,
    };
    let mut denied = Denied::new(reason, message).decided_by(stage.name(), rule);
    denied.remedy = remedy;
    denied.retry_after_ms = retry_after.map(milliseconds);
    denied
}

/// Rounded up: who comes back after that is let through.
fn milliseconds(after: Duration) -> u64 {
    u64::try_from(after.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use stockade_gate::StageName;
    use stockade_protocol::outcome::{CancelReason, Clock};

    use super::*;

    #[test]
    fn a_refusal_keeps_all_it_says_and_its_time_is_never_too_short() {
        let refusal = Refusal::new(StageName::Rate, Reason::RateLimited, "limits.toml:3", "too often")
            .remedy("ask less")
            .retry_after(Duration::from_micros(1_000_001));
        let denied = denied(refusal);
        assert_eq!(denied.reason, DenyReason::RateLimited);
        let decided = denied.decided.unwrap();
        assert_eq!((decided.stage.as_str(), decided.rule.as_str()), ("rate", "limits.toml:3"));
        assert_eq!((denied.message.as_str(), denied.remedy.as_deref()), ("too often", Some("ask less")));
        assert_eq!(denied.retry_after_ms, Some(1_001));
    }

    #[test]
    fn an_end_is_the_tools_fault_or_nobodys() {
        let cancelled = Outcome::Cancelled { reason: CancelReason::ClientGone };
        let ending = |outcome: &Outcome| ending(outcome, None);
        assert_eq!(ending(&Outcome::Exited { code: 0 }), Ending::Success);
        assert_eq!(ending(&Outcome::Exited { code: 3 }), Ending::Failure);
        assert_eq!(ending(&Outcome::TimedOut { clock: Clock::Wall, limit_ms: 1 }), Ending::Failure);
        for nobodys in [cancelled, Outcome::Lost { reason: "x".into() }] {
            assert_eq!(ending(&nobodys), Ending::Neither);
        }
    }
}
