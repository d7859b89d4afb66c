//! The end of the daemon: with the runs, after their grace, or without them.

use stockade_protocol::ExecId;
use stockade_protocol::outcome::CancelReason;

use super::bounds::DRAIN_TAIL_MS;
use super::core::{Dispatcher, Drain};
use super::event::Effect;
use super::run::{Phase, Run};

impl Dispatcher {
    pub(super) fn start_drain(&mut self, now: u64, grace: u64, effects: &mut Vec<Effect>) {
        let until = now.saturating_add(grace);
        let grace_until = self.drain.as_ref().map_or(until, |drain| drain.grace_until.min(until));
        let stop_by = grace_until.saturating_add(DRAIN_TAIL_MS);
        let (killed, stopped) = self.drain.as_ref().map_or((false, false), |d| (d.killed, d.stopped));
        self.drain = Some(Drain { grace_until, stop_by, killed, stopped });
        self.cancel_all(now, |run| run.phase == Phase::Queued, effects);
        self.drain_tick(now, effects);
    }

    /// Stops without waiting for what runs.
    pub(super) fn leave(&mut self, now: u64, effects: &mut Vec<Effect>) {
        self.drain = Some(Drain { grace_until: now, stop_by: now, killed: true, stopped: true });
        self.cancel_all(now, |run| run.phase == Phase::Queued && !run.held, effects);
        effects.push(Effect::Stop);
    }

    pub(super) fn drain_tick(&mut self, now: u64, effects: &mut Vec<Effect>) {
        let Some(drain) = &mut self.drain else { return };
        if now >= drain.grace_until && !drain.killed {
            drain.killed = true;
            self.cancel_all(now, Run::holds_slot, effects);
        } else if now >= drain.stop_by && !drain.stopped {
            drain.stopped = true;
            effects.push(Effect::Stop);
        }
    }

    pub(super) fn cancel_all(&mut self, now: u64, which: impl Fn(&Run) -> bool, effects: &mut Vec<Effect>) {
        let mut ids: Vec<ExecId> =
            self.runs.iter().filter(|(_, run)| which(run)).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        for id in ids {
            self.cancel(now, id, CancelReason::Draining, effects);
        }
    }

    pub(super) fn check_drained(&mut self, effects: &mut Vec<Effect>) {
        let Some(drain) = &mut self.drain else { return };
        let going_on = |run: &Run| !matches!(run.phase, Phase::Ended { .. });
        if !drain.stopped && !self.runs.values().any(going_on) {
            drain.stopped = true;
            effects.push(Effect::Stop);
        }
    }
}
