//! A run's standard descriptors, as far as they aren't the client's: who has which, until when.
//!
//! ```text
//! spare parked ── furnished ──> the worker has the write ends, we the read ends
//! run assigned ── what is passed, and what is lacking, goes along with its command
//! tool runs on, or has ended and left output ── handed over ──> the relay has the read ends
//! ```

use std::io;
use std::os::fd::AsFd as _;

use stockade_protocol::outcome::Outcome;

use super::{Run, report};
use crate::launcher::outlet::{self, Outlet, Relayed};
use crate::launcher::preparation::Stdio;
use crate::messages::{Standard, ToWorker};
use crate::relay::RelayCommand;

/// What was made for a run.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// Its pipes, until the relay gets them.
    outlet: Option<Outlet>,
    /// Whether its worker has standard descriptors of its own.
    furnished: bool,
    /// What it's given with its command, beside what is passed.
    pub(super) unsent: Standard,
    /// Whether the relay has its pipes, and hasn't said yet that it has seen their end.
    with_relay: bool,
    /// What became of its output, where that decides how it ended: it's lost, or was more than the limit.
    pub(super) verdict: Option<Outcome>,
}

impl Run {
    /// Gives a spare the standard descriptors that it will have if none are passed, so that there's nothing to be made and
    /// sent when it's told its command. What can't be given now is given then.
    pub(crate) fn furnish(&mut self, relayed: bool) {
        let Ok((own, outlet)) = outlet::own(relayed, self.prepare.ids.host_uid) else { return };
        let beside: Vec<_> = own.0.iter().flatten().map(|fd| fd.as_fd()).collect();
        let message = ToWorker::Own(own.0.each_ref().map(Option::is_some));
        if self.channel.send(&message, &beside).is_ok() {
            (self.ends.furnished, self.ends.outlet) = (true, outlet);
        }
    }

    /// Makes what it needs of standard descriptors beside those that are passed and those that it has.
    pub(super) fn complete(&mut self, stdio: &Stdio) -> io::Result<()> {
        if stdio.passed.0[0].is_none() && !self.ends.furnished {
            self.ends.unsent.0[0] = Some(outlet::null()?);
        }
        if stdio.ring_bytes.is_some() && self.ends.outlet.is_none() {
            let (outlet, [stdout, stderr]) = Outlet::new(self.prepare.ids.host_uid)?;
            self.ends.outlet = Some(outlet);
            (self.ends.unsent.0[1], self.ends.unsent.0[2]) = (Some(stdout), Some(stderr));
        }
        Ok(())
    }

    pub(crate) fn is_relayed(&self) -> bool {
        self.assigned.as_ref().is_some_and(|assigned| assigned.stdio.ring_bytes.is_some())
    }

    /// Whether the relay has its pipes and counts how long they are silent.
    pub(crate) fn has_idle_clock(&self) -> bool {
        self.is_relayed() && self.announced && self.ends.outlet.is_none() && self.limits.idle_ms.is_some()
    }

    /// What the relay is asked and given. `None`: the tool has ended without output, or its output is lost.
    pub(super) fn hand_over_output(
        &mut self,
        ring_bytes: u64,
        is_marked: bool,
    ) -> Option<(RelayCommand, Relayed)> {
        let is_over = self.is_over();
        let outlet = self.ends.outlet.take_if(|outlet| !(is_over && outlet.is_quiet()))?;
        match outlet.hand_over(ring_bytes) {
            Ok(relayed) => {
                self.ends.with_relay = true;
                let (exec_id, output_limit, idle_ms) =
                    (self.exec_id, self.limits.output, self.limits.idle_ms);
                Some((RelayCommand::Add { exec_id, ring_bytes, output_limit, idle_ms, is_marked }, relayed))
            }
            Err(error) => {
                self.lose_output(error.raw_os_error().unwrap_or(libc::EIO));
                None
            }
        }
    }

    /// Its output is lost, so that nobody can be told of its end as if all were well.
    fn lose_output(&mut self, errno: i32) {
        self.output_ended(Some(report::output_lost(errno)));
    }

    /// Whether its tool has ended, and nobody knows yet whether all of its output was taken: it may have ended as soon as it
    /// had written too much.
    pub(crate) fn awaits_relay(&self) -> bool {
        self.ended.is_some() && !self.is_condemned() && self.ends.with_relay
    }

    /// The relay has seen the end of its output, or nothing more will be heard of it. `outcome`: what that makes of the run.
    pub(crate) fn output_ended(&mut self, outcome: Option<Outcome>) {
        self.ends.with_relay = false;
        let Some(outcome) = outcome else { return };
        if self.is_condemned() {
            return;
        }
        // It may have ended by itself before the kill, and its init have told of that: what its output was stands.
        self.condemn(outcome.clone());
        self.ends.verdict.get_or_insert(outcome);
    }

    /// Closes what is its tool's alone from now on, or nobody's.
    pub(crate) fn let_go(&mut self) {
        self.ends.outlet = None;
        if let Some(assigned) = &mut self.assigned {
            assigned.workspace = None;
            assigned.stdio.passed = Standard::default();
        }
    }
}
