//! Who asks, and what rules of access say to what isn't a run to come: runs that there are, and the daemon itself.
//!
//! Without rules everybody has his own runs, and root and the daemon's user operate the daemon, as ever.

use std::time::Duration;

use stockade_gate::access::Locked;
use stockade_gate::{Action, Asked, Given, Principal, Refusal, Thing};
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::launch::Owner;
use stockade_protocol::spec::NetworkMode;

use super::{Gate, denied, moment};

/// A run that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct OfRun<'a> {
    /// Its owner's uid.
    pub(crate) owner: u32,
    pub(crate) policy: &'a str,
    pub(crate) tool: Option<&'a str>,
}

/// Why somebody has nothing to do with a run.
#[derive(Debug)]
pub(crate) enum Unseen {
    /// He may see it, and may not do that: the refusal.
    Refused(Denied),
    /// He may not even know that there is such a run.
    Unknown(Denied),
}

impl Gate {
    /// Whether rules of access are asked.
    pub(crate) fn has_rules(&self) -> bool {
        self.access.borrow().is_on()
    }

    /// Of which files what is worked out now is.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether somebody may approve. To look whether he still may isn't what one is locked out for: the refusal doesn't count.
    pub(crate) fn may_approve(&mut self, asker: &Principal, uptime: Duration) -> bool {
        let asked = self.of_daemon(asker, Action::Approve, uptime);
        let access = self.access.borrow();
        let is_let_in = access.is_let_in(asker, Action::Approve, uptime).is_ok();
        drop(access);
        is_let_in && self.access.borrow_mut().allows(&asked).is_ok()
    }

    /// Somebody as stages know him, with his roles.
    pub(crate) fn asker(&self, owner: &Owner, pid: i32, unit: Option<&str>) -> Principal {
        let gids: Vec<u32> = core::iter::once(owner.gid).chain(owner.groups.iter().copied()).collect();
        let roles = self.roles.of(owner.uid, &gids, unit);
        Principal { uid: owner.uid, gids, pid, unit: unit.map(ToOwned::to_owned), roles }
    }

    /// Who is locked out is told so, whatever he asks for.
    ///
    /// # Errors
    /// `LockedOut`.
    pub(crate) fn lets_in(&self, asker: &Principal, action: Action, uptime: Duration) -> Result<(), Denied> {
        self.access.borrow().is_let_in(asker, action, uptime).map_err(denied)
    }

    /// Whether somebody may do something to a run that there is. What is refused counts only if he is told so: that he has asked for
    /// what he may not know of must look as if there were no such run.
    ///
    /// # Errors
    /// [`Unseen`].
    pub(crate) fn permits(
        &mut self,
        asker: &Principal,
        action: Action,
        run: OfRun<'_>,
        uptime: Duration,
    ) -> Result<(), Unseen> {
        let refusal = match self.judge_run(asker, action, run, uptime) {
            Ok(()) => return Ok(()),
            Err(refusal) => refusal,
        };
        if self.sees(asker, run, uptime) {
            self.access.borrow_mut().count(asker, &refusal, uptime);
            Err(Unseen::Refused(denied(refusal)))
        } else {
            Err(Unseen::Unknown(denied(refusal)))
        }
    }

    /// Whether a run stands in somebody's list.
    pub(crate) fn sees(&mut self, asker: &Principal, run: OfRun<'_>, uptime: Duration) -> bool {
        self.judge_run(asker, Action::List, run, uptime).is_ok()
    }

    fn judge_run(
        &mut self,
        asker: &Principal,
        action: Action,
        run: OfRun<'_>,
        uptime: Duration,
    ) -> Result<(), Refusal> {
        let asked = Asked {
            policy: Some(run.policy),
            tool: run.tool,
            owner: Some(run.owner),
            ..self.of_daemon(asker, action, uptime)
        };
        self.access.borrow_mut().allows(&asked)
    }

    /// What is asked of the daemon itself.
    pub(super) fn of_daemon<'a>(
        &mut self,
        asker: &'a Principal,
        action: Action,
        uptime: Duration,
    ) -> Asked<'a> {
        let runs = self.load.map_or(0, |(_, load)| load.runs);
        Asked { load: self.load(uptime, runs), ..Asked::by(asker, action, moment(uptime)) }
    }

    /// Whether somebody may operate the daemon, or look into it. The refusal counts.
    ///
    /// # Errors
    /// The refusal.
    pub(crate) fn operates(
        &mut self,
        asker: &Principal,
        action: Action,
        uptime: Duration,
    ) -> Result<(), Denied> {
        let asked = self.of_daemon(asker, action, uptime);
        self.access.borrow_mut().judge_allowed(&asked).map_err(denied)
    }

    /// Whether somebody may be told what a policy allows: who could run something by it. `policy`: whether it's a shipped one, and its
    /// network; none: there is no such policy. The refusal counts.
    ///
    /// # Errors
    /// The refusal.
    pub(crate) fn explains(
        &mut self,
        asker: &Principal,
        (named, policy): (&str, Option<(bool, NetworkMode)>),
        uptime: Duration,
    ) -> Result<(), Denied> {
        self.tell_grants_time();
        let thing = Thing {
            named,
            is_shipped: policy.is_some_and(|(is_shipped, _)| is_shipped),
            tool_roles: None,
            network: policy.map(|(_, network)| network),
        };
        let policy = policy.map(|_known| named);
        let asked =
            Asked { policy, thing, given: Given::Command(&[]), ..self.of_daemon(asker, Action::Run, uptime) };
        self.access.borrow_mut().could(&asked).map_err(denied)
    }

    /// Whether somebody is told of all that the daemon has. To look isn't what one is locked out for: the refusal doesn't count.
    ///
    /// # Errors
    /// The refusal.
    pub(crate) fn looks(&mut self, asker: &Principal, uptime: Duration) -> Result<(), Denied> {
        let asked = self.of_daemon(asker, Action::Inspect, uptime);
        self.access.borrow_mut().allows(&asked).map_err(denied)
    }

    /// As [`looks`](Self::looks), for who needs no reason.
    pub(crate) fn inspects(&mut self, asker: &Principal, uptime: Duration) -> bool {
        self.looks(asker, uptime).is_ok()
    }

    /// Who is locked out.
    pub(crate) fn locked(&self, uptime: Duration) -> Vec<Locked> {
        self.access.borrow().locked(uptime)
    }

    /// Who was locked out since this was last asked: his uid and unit.
    pub(crate) fn newly_locked(&mut self) -> Vec<(u32, Option<String>)> {
        self.access.borrow_mut().newly_locked()
    }

    /// Lets somebody in again: all of a user's, or those of one unit (an empty name: of none); how many there were.
    pub(crate) fn lift(&mut self, uid: u32, unit: Option<&str>, uptime: Duration) -> usize {
        let unit = unit.map(|name| Some(name).filter(|name| !name.is_empty()));
        self.access.borrow_mut().lift(uid, unit, uptime)
    }

    /// A refusal of admission's, without what other policies and tools there are: where rules of access hold, that is for who may
    /// look into the daemon.
    pub(crate) fn discreet(&self, refused: Denied) -> Denied {
        let what = match refused.reason {
            DenyReason::UnknownPolicy => "policy",
            DenyReason::UnknownTool => "tool",
            _ => return refused,
        };
        if !self.has_rules() {
            return refused;
        }
        let decided = refused.decided;
        Denied { decided, ..Denied::new(refused.reason, format!("there is no such {what}")) }
    }
}
