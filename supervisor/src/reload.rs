//! Policies read again, all or nothing: the old set stays when the new one is bad.
//!
//! A run that has been accepted keeps what it was accepted with; only what comes later meets the new set.

use std::path::PathBuf;
use std::rc::Rc;

use stockade_policies::{PolicySet, Trust};

use crate::admission::chain;
use crate::daemon::Daemon;

/// Reads the directories again and puts the new set in the old one's place if all of it is good.
pub(crate) fn reload(daemon: &Rc<Daemon>, directories: &[(PathBuf, Trust)]) {
    match PolicySet::load(directories) {
        Ok(policies) => {
            let mut state = daemon.state.borrow_mut();
            let (before, after) = (state.specs.policies().names().len(), policies.names().len());
            tracing::info!(before, after, names = ?policies.names(), "policies reloaded");
            state.specs.replace(policies);
            state.figures.reloaded(true);
        }
        Err(error) => {
            tracing::error!(reason = chain(&error), "the policies are bad; the old ones stay");
            daemon.state.borrow().figures.reloaded(false);
        }
    }
}
