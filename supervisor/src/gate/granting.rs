//! Grants, as the daemon knows them by its gate.

use std::cell::RefMut;
use std::time::Duration;

use stockade_gate::access::Access;
use stockade_gate::grants::{Change, Held, Redeemed};
use stockade_gate::{Action, Principal};
use stockade_protocol::ExecId;

use super::{Gate, number};
use crate::grants::clocks;

impl Gate {
    /// Whether a grant could add to anything: there are rules of the daemon's own.
    pub(crate) fn can_grant(&self) -> bool {
        self.access.borrow().can_grant()
    }

    /// The grants, at this time.
    pub(crate) fn held(&self) -> RefMut<'_, Held> {
        let mut held = RefMut::map(self.access.borrow_mut(), Access::grants_mut);
        held.tell_time(clocks::now());
        held
    }

    /// Before a request is judged: a grant may be over by now.
    pub(super) fn tell_grants_time(&self) {
        let mut access = self.access.borrow_mut();
        if !access.grants().is_empty() {
            access.grants_mut().tell_time(clocks::now());
        }
    }

    /// By what a run that hasn't begun was let through.
    pub(crate) fn redeemed(&self, run: ExecId) -> Option<Redeemed> {
        self.access.borrow().grants().redeemed(number(run))
    }

    /// A run has begun: its use isn't given back any more.
    pub(crate) fn began(&self, run: ExecId) {
        self.access.borrow_mut().grants_mut().began(number(run));
    }

    /// What has to be written down since this was last asked.
    pub(crate) fn take_grant_changes(&self) -> Vec<Change> {
        self.access.borrow_mut().grants_mut().take_changes()
    }

    /// Whether somebody may do something about the daemon. To be asked so isn't what one is locked out for: a refusal doesn't count.
    pub(crate) fn may(&mut self, asker: &Principal, action: Action, uptime: Duration) -> bool {
        let asked = self.of_daemon(asker, action, uptime);
        self.access.borrow_mut().permits(&asked).is_ok()
    }
}
