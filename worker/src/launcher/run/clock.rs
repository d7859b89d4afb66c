//! When a run wants to be looked at, and how it stands then.

use std::time::{Duration, Instant};

use stockade_protocol::confinement::Plan;
use stockade_protocol::outcome::{Clock, Outcome, SetupStage};

use super::{Due, Run, Stand};
use crate::failure::failed;
use crate::launcher::{REAP_BOUND, SETUP_BOUND, SWEEP, WATCH_AFTER, WORD_BOUND};

impl Run {
    /// When this run wants to be looked at next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if let Some((_, next)) = self.astray {
            return Some(next);
        }
        if self.told {
            return if self.is_reaped() { Some(self.begun) } else { None };
        }
        if self.awaits_relay() {
            return self.ended_at.map(|at| at + WORD_BOUND);
        }
        if let Some((_, until)) = self.sweeper {
            return Some(until);
        }
        if let Some(since) = self.unexplained_since {
            return Some(since + WORD_BOUND);
        }
        if let Some(since) = self.condemned_at {
            let bound = since + REAP_BOUND;
            let sweep = self.killed_at.map_or(since, |at| at + SWEEP);
            // One that was never cloned ends with its channel.
            let waits = self.init.is_some() || !self.stuck;
            return waits.then(|| if self.prepare.plan == Plan::Minimal { bound.min(sweep) } else { bound });
        }
        if let Some(at) = self.start_at {
            return Some(at);
        }
        match self.started {
            // A spare's age is its template's business.
            None if self.is_spare() && self.is_ready() => None,
            None => Some(self.begun + SETUP_BOUND),
            Some(started) if !self.watched => Some(started + WATCH_AFTER),
            Some(started) => self.wall_deadline(started),
        }
    }

    fn wall_deadline(&self, started: Instant) -> Option<Instant> {
        self.limits.wall_ms.map(|ms| started + Duration::from_millis(ms))
    }

    /// A deadline has come.
    pub(crate) fn expire(&mut self, now: Instant) -> Due {
        if let Some((since, _)) = self.astray {
            let late = !self.told && now >= since + REAP_BOUND;
            return if late { Due::Unreaped } else { Due::Settle };
        }
        if self.awaits_relay() {
            // Somebody outside of the run keeps its pipe open, or its ring is full and its client slow.
            self.output_ended(None);
            return Due::Settle;
        }
        if self.told || self.unexplained_since.is_some() || self.sweeper.is_some() {
            return Due::Settle;
        }
        if let Some(since) = self.condemned_at {
            self.kill();
            let late = now >= since + REAP_BOUND;
            return match (late, self.init.is_some()) {
                (true, true) => Due::Unreaped,
                (true, false) => {
                    self.stuck = true;
                    // A worker that was cloned all the same, and of which we weren't told, sees the end of its channel.
                    let _ = rustix::net::shutdown(&self.channel, rustix::net::Shutdown::Write);
                    Due::Stuck
                }
                _ => Due::Settle,
            };
        }
        if self.start_at.is_some() && self.begun + SETUP_BOUND > now {
            return Due::Start;
        }
        let Some(started) = self.started else {
            let failure = failed(SetupStage::Template, libc::ETIMEDOUT, "set-up");
            self.condemn(Outcome::SetupFailed { failure });
            return Due::Settle;
        };
        if let (Some(at), Some(limit_ms)) = (self.wall_deadline(started), self.limits.wall_ms)
            && now >= at
        {
            self.condemn(Outcome::TimedOut { clock: Clock::Wall, limit_ms });
            return Due::Settle;
        }
        if core::mem::replace(&mut self.watched, true) { Due::Settle } else { Due::Watch }
    }

    /// Whether it can have left orphans: no pid namespace died with its init, and that didn't see its last child end.
    pub(crate) fn may_leave_strays(&self) -> bool {
        self.prepare.plan == Plan::Minimal && self.init_end.is_some() && self.ended.is_none()
    }

    /// Whether orphans were found just now. It isn't over before there are none.
    pub(crate) fn set_astray(&mut self, found: bool) {
        let now = Instant::now();
        let since = self.astray.map_or(now, |(since, _)| since);
        self.astray = found.then(|| (since, now + SWEEP));
    }

    /// How a run stands that may be over.
    pub(crate) fn stand(&mut self) -> Stand {
        if self.told {
            return Stand::Over;
        }
        if self.awaits_relay() {
            return Stand::Alive;
        }
        let placed = !(self.placed.is_empty() && self.made.is_empty());
        if self.ended.is_some() && !placed && self.sweeper.is_none() {
            return Stand::Over;
        }
        if !self.is_reaped() {
            return Stand::Alive;
        }
        match self.sweeper {
            Some((_, until)) if until > Instant::now() => return Stand::Alive,
            None if placed => return Stand::Sweep,
            _ => {}
        }
        if self.ended.is_some() || self.is_condemned() || !self.watched || self.killed_for_memory().is_some()
        {
            return Stand::Over;
        }
        let since = *self.unexplained_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= WORD_BOUND { Stand::Over } else { Stand::Alive }
    }
}
