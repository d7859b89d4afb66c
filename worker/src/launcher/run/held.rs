//! What holds of a run's worker: read back when it's parked, and watched from then on.

use std::fs::File;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use stockade_protocol::Bytes;
use stockade_protocol::launch::{MAKING, Made};
use stockade_protocol::outcome::{Outcome, SetupStage};

use super::{Run, Source, cgroup_failed};
use crate::cgroup::RunCgroup;
use crate::failure::{At, Staged, failed};
use crate::laps::nanoseconds;
use crate::launcher::{bank, verify};
use crate::poller::{Interest, Poller};
use crate::stages::network::Slot;

impl Run {
    /// A spare that may be given out: what guards it is still there.
    pub(crate) fn is_fresh(&mut self) -> bool {
        let changed = self.mountinfo.as_ref().is_some_and(|mountinfo| {
            let mut asked = [PollFd::new(mountinfo, PollFlags::PRI | PollFlags::ERR)];
            !matches!(rustix::event::poll(&mut asked, Some(&Timespec::default())), Ok(0))
        });
        let holds = !changed || self.dissolved_guard().is_none();
        self.is_spare() && holds && !self.is_condemned() && self.init_end.is_none()
    }

    /// How old it is, if its worker has looked at the clock, too.
    pub(crate) fn measured_age(&self) -> Option<Duration> {
        self.parked.as_ref().and_then(|(parked, _)| parked.took_ns).map(|_| self.age())
    }

    /// What the stages of its making took. `parked_at`: the age at which it had said that it was parked; now it's read back.
    pub(crate) fn made(&self, parked_at: Duration) -> Option<Made> {
        let own = self.parked.as_ref().and_then(|(parked, _)| parked.took_ns)?;
        let mut took_ns = [0; MAKING.len()];
        let [template, between @ .., verify] = &mut took_ns;
        *between = own;
        let sum: u64 = own.iter().copied().map(u64::from).sum();
        *template = nanoseconds(parked_at.saturating_sub(Duration::from_nanos(sum)));
        *verify = nanoseconds(self.age().saturating_sub(parked_at));
        Some(Made { took_ns })
    }

    /// Reads back what holds of the parked worker, and watches its masks.
    ///
    /// # Errors
    /// `Verify` with what doesn't hold.
    pub(crate) fn verify(
        &mut self,
        namespaces: &verify::Namespaces,
        poller: &Poller,
        number: u64,
    ) -> Staged<()> {
        let (Some((parked, _)), Some((pid, _))) = (&self.parked, &self.init) else {
            return Err(failed(SetupStage::Verify, libc::ESRCH, "worker"));
        };
        let group = self.cgroup.as_ref().map(RunCgroup::path);
        let report = verify::read_back(
            &self.prepare,
            parked,
            *pid,
            group,
            namespaces,
            core::mem::take(&mut self.early),
        )?;
        self.confinement = Some(Box::new(report));
        if self.template.is_some() && bank::may_keep(&self.prepare) {
            let slot = Slot::of(pid.as_raw_nonzero().get()).at(SetupStage::Verify, "ns/net")?;
            self.network = Some(slot);
        }
        if !parked.guarded.is_empty() {
            let path = format!("/proc/{}/mountinfo", pid.as_raw_nonzero());
            let mountinfo = File::open(&path).at(SetupStage::Verify, "mountinfo")?;
            poller
                .add(&mountinfo, number + Source::Mounts as u64, Interest::End)
                .at(SetupStage::Verify, "mountinfo")?;
            self.mountinfo = Some(mountinfo);
        }
        if let Some(group) = &self.cgroup {
            let growth = group.growth().map_err(|error| cgroup_failed(&error))?;
            for (events, source) in [(&growth.memory, Source::Memory), (&growth.processes, Source::Processes)]
            {
                poller.add(events, number + source as u64, Interest::End).at(SetupStage::Cgroup, "events")?;
            }
            self.growth = Some(growth);
        }
        match self.dissolved_guard() {
            Some(path) => Err(failed(SetupStage::Guard, libc::ESTALE, path)),
            None => Ok(()),
        }
    }

    /// What the control group's events mean: an outcome, if a limit was passed, or a warning (value and bound).
    pub(crate) fn group_event(&mut self, source: Source) -> (Option<Outcome>, Option<(u64, u64)>) {
        let (Some(group), Some(growth)) = (&self.cgroup, &self.growth) else { return (None, None) };
        RunCgroup::rearm(if source == Source::Memory { &growth.memory } else { &growth.processes });
        let Ok(events) = group.events() else { return (None, None) };
        if source == Source::Processes && events.forks_refused > 0 {
            let seen = self.limits.processes + 1;
            return (Some(Outcome::ProcessesExceeded { limit: self.limits.processes, seen }), None);
        }
        if source == Source::Memory && events.high > 0 && group.lift_high().is_ok() {
            let now = group.counters().map_or(0, |counters| counters.memory);
            let warning = self.limits.memory.filter(|_| !core::mem::replace(&mut self.warned, true));
            return (None, warning.map(|bound| (now, bound)));
        }
        (None, None)
    }

    /// The first mask that isn't mounted any more.
    pub(crate) fn dissolved_guard(&mut self) -> Option<Bytes> {
        let (Some(mountinfo), Some((parked, _))) = (self.mountinfo.as_mut(), &self.parked) else {
            return None;
        };
        verify::first_unmounted(mountinfo, &parked.guarded)
    }
}
