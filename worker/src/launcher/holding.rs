//! Runs that wait to be started: held here, so that they outlive their supervisor as those do that run. Whose turn it is only a
//! supervisor says.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use stockade_protocol::ExecId;
use stockade_protocol::launch::Launch;
use stockade_protocol::outcome::{Outcome, SetupStage};

use super::check::Permitted;
use super::{Launcher, run};
use crate::failure::{Staged, failed};

/// Launches with what they need. As many as a supervisor lets wait.
pub(super) type Held = HashMap<ExecId, (Launch, Staged<Permitted>, Vec<OwnedFd>)>;

impl Launcher {
    /// Keeps a launch.
    pub(super) fn hold(&mut self, launch: Launch, within: Staged<Permitted>, mut descriptors: Vec<OwnedFd>) {
        if self.closing {
            let failure = failed(SetupStage::Check, libc::ESHUTDOWN, "launcher is stopping");
            let ended = run::failed_to_begin(launch.exec_id, failure);
            return self.supervisor.send(ended, Vec::new(), &self.poller);
        }
        let input = if launch.note.fed { descriptors.pop() } else { None };
        if let Some(records) = self.supervisor.records_mut() {
            records.hold(&launch, input);
        }
        self.held.insert(launch.exec_id, (launch, within, descriptors));
    }

    /// Launches what was held.
    pub(super) fn start_held(&mut self, exec_id: ExecId) {
        let Some((launch, within, descriptors)) = self.held.remove(&exec_id) else { return };
        if let Some(records) = self.supervisor.records_mut() {
            records.begin(&launch, None);
        }
        self.launch_recorded(launch, within, descriptors);
    }

    /// Ends a run that was only held.
    pub(super) fn give_up_held(&mut self, exec_id: ExecId, outcome: Outcome) {
        if self.held.remove(&exec_id).is_some() {
            let ended = run::never_begun(exec_id, outcome);
            self.supervisor.send(ended, Vec::new(), &self.poller);
        }
    }
}
