//! Which worker a run gets: a spare that waits, or one that is made for it; and when another spare is made.

use std::time::Instant;

use stockade_protocol::outcome::{CancelReason, Outcome, SetupStage};

use super::preparation::Order;
use super::run::{self, Assigned, Maker, Run, Source};
use super::{Launcher, REFILL_AFTER, REFILL_NEXT};
use crate::failure::{Staged, failed};
use crate::messages::Prepare;

impl Launcher {
    /// Gives an order to a spare, else to a new worker.
    pub(super) fn carry_out(&mut self, order: Order) -> Staged<()> {
        let Order { exec_id, prepare, mut workspace, command, mut stdio, in_vain } = order;
        let number = if self.embedded {
            self.begin_with(prepare, Maker::Launcher(workspace.take(), &command, stdio.complete()?))?
        } else {
            let template = self.templates.find(&prepare, workspace.as_ref(), &self.poller)?;
            if let Some(template) = self.templates.get(template) {
                template.relayed = stdio.ring_bytes.is_some();
            }
            self.refill_at.get_or_insert_with(|| Instant::now() + REFILL_AFTER);
            let spare = self.spare(template);
            self.templates.count(spare.is_some());
            match spare {
                Some(number) => number,
                None => self.begin(template)?,
            }
        };
        let Some(run) = self.runs.get_mut(&number) else { return Ok(()) };
        self.by_id.insert(exec_id, number);
        if let Err(failure) = run.assign(exec_id, Assigned { command, workspace, stdio, in_vain }) {
            // The worker isn't this run's: its end is nobody's.
            self.by_id.remove(&exec_id);
            self.dismiss(number);
            return Err(failure);
        }
        if run.is_ready() {
            self.start(number);
        }
        Ok(())
    }

    /// A spare of a template that can be used.
    pub(super) fn spare(&mut self, template: u64) -> Option<u64> {
        while let Some(number) = self.templates.take_spare(template) {
            if self.runs.get_mut(&number).is_some_and(Run::is_fresh) {
                return Some(number);
            }
            self.dismiss(number);
        }
        None
    }

    /// Has a template make a worker: a spare, until it's assigned.
    pub(super) fn begin(&mut self, template: u64) -> Staged<u64> {
        let gone = || failed(SetupStage::Template, libc::ESRCH, "template");
        let slot = self.templates.take_slot(template);
        let template = self.templates.get(template).ok_or_else(gone)?;
        let prepare = template.prepare().clone();
        let maker = Maker::Template(template, slot, &self.poller);
        let run = Run::begin(prepare, maker, &mut self.uids, self.cgroups.as_ref())?;
        self.add(run)
    }

    /// A template's channel has room for orders that wait. One that is gone drops them, and with them the channels of the
    /// workers that it would have made, which is how their runs see it.
    pub(super) fn order(&mut self, template: u64) {
        if let Some(template) = self.templates.get(template) {
            template.order(&self.poller);
        }
    }

    /// Makes a worker for the one run there is.
    pub(super) fn begin_with(&mut self, prepare: Prepare, maker: Maker<'_>) -> Staged<u64> {
        let run = Run::begin(prepare, maker, &mut self.uids, self.cgroups.as_ref())?;
        self.add(run)
    }

    pub(super) fn add(&mut self, run: Run) -> Staged<u64> {
        let number = self.next_run;
        let run = run.listen(&self.poller, number)?;
        self.next_run += Source::COUNT;
        self.runs.insert(number, run);
        Ok(number)
    }

    /// Makes a spare, if one is wanted.
    pub(super) fn refill(&mut self, now: Instant) {
        if self.refill_at.is_none_or(|at| at > now) {
            return;
        }
        self.refill_at = None;
        let Some(template) = self.templates.wanting().filter(|_| !self.closing) else { return };
        if self.pressure.is_short(now) {
            self.refill_at = self.pressure.deadline();
            return;
        }
        match self.begin(template) {
            Ok(number) => {
                self.templates.add_spare(template, number);
                if let Some(run) = self.runs.get_mut(&number) {
                    run.ahead = true;
                }
                self.refill_at = Some(now + REFILL_NEXT);
            }
            // Whoever asks for a run is told why there is none.
            Err(_) => self.templates.give_up(template),
        }
    }

    /// Ends a spare that nobody will use.
    pub(super) fn dismiss(&mut self, number: u64) {
        self.condemn(number, Outcome::Cancelled { reason: CancelReason::Draining });
        self.settle(number);
    }

    /// A spare was given out and is of no use: what must be guarded has come to be since, or it died. Another worker takes its
    /// place.
    pub(super) fn stale(&mut self, number: u64) {
        let Some(order) = self.runs.get_mut(&number).and_then(Run::take_back) else {
            let failure = failed(SetupStage::Guard, libc::ESTALE, "guarded names that come and go");
            // Of one that was cancelled, that's what is told.
            self.condemn(number, Outcome::SetupFailed { failure });
            return self.settle(number);
        };
        self.dismiss(number);
        let exec_id = order.exec_id;
        self.by_id.remove(&exec_id);
        if let Err(failure) = self.carry_out(order) {
            let ended = run::failed_to_begin(exec_id, failure);
            self.supervisor.send(ended, Vec::new(), &self.poller);
        }
    }
}
