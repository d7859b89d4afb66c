//! One tool's breaker.

use core::time::Duration;

use crate::asked::Moment;
use crate::breaker::settings::Settings;
use crate::breaker::window::Window;
use crate::row::Ending;

/// Breakers' time at the daemon's start: longer than any window, so that what was before it has a time, too.
const BEFORE: Duration = Duration::from_secs(367 * 24 * 3_600);

/// Breakers' time: that of uptime, only later.
pub(super) fn time(at: Moment) -> Duration {
    BEFORE.saturating_add(at.uptime)
}

/// How a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    /// All pass.
    Closed,
    /// None passes until then.
    Open { until: Duration },
    /// A few pass; so many have succeeded.
    HalfOpen { successes: u32 },
}

/// A run that is to show whether the tool works again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Probe {
    run: u128,
    since: Duration,
}

/// The breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tool {
    pub(super) stand: Stand,
    /// How often it has opened in a row, without having closed.
    pub(super) times: u32,
    pub(super) window: Window,
    /// Those that passed since it was last half-open and go on. Empty unless it is.
    probes: Vec<Probe>,
}

impl Default for Tool {
    fn default() -> Self {
        Self::standing(Stand::Closed, 0)
    }
}

/// It doesn't pass now: when something may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotYet {
    pub(super) until: Duration,
}

impl Tool {
    /// One of which nothing else is known.
    pub(super) fn standing(stand: Stand, times: u32) -> Self {
        Self { stand, times, window: Window::default(), probes: Vec::new() }
    }

    /// Lets a run pass, or says when one may.
    pub(super) fn judge(&mut self, run: u128, now: Duration, settings: &Settings) -> Result<(), NotYet> {
        self.forget(now, settings);
        let probe = Probe { run, since: now };
        match self.stand {
            Stand::Closed => {}
            Stand::Open { until } if now < until => return Err(NotYet { until }),
            Stand::Open { .. } => {
                self.stand = Stand::HalfOpen { successes: 0 };
                self.probes.push(probe);
            }
            Stand::HalfOpen { .. } => {
                let at_once = usize::try_from(settings.probes).unwrap_or(1);
                if self.probes.len() >= at_once {
                    // The nth place from the end is the first that is free again, if there are fewer places than before.
                    let first = &self.probes[self.probes.len() - at_once];
                    return Err(NotYet { until: first.since + settings.lost_after });
                }
                self.probes.push(probe);
            }
        }
        Ok(())
    }

    /// A run that was let pass is refused by a later stage.
    pub(super) fn take_back(&mut self, run: u128) {
        self.leaves(run);
    }

    /// Whether it was a probe, whose place is free now.
    fn leaves(&mut self, run: u128) -> bool {
        let place = self.probes.iter().position(|probe| probe.run == run);
        place.map(|place| self.probes.remove(place)).is_some()
    }

    /// A run has ended.
    pub(super) fn ended(&mut self, run: u128, ending: Ending, now: Duration, settings: &Settings) {
        self.forget(now, settings);
        let is_probe = self.leaves(run);
        match (self.stand, ending) {
            (_, Ending::Neither) | (Stand::Open { .. }, _) => {}
            (Stand::Closed, Ending::Success | Ending::Failure) => {
                self.window.add(now, ending == Ending::Failure, settings);
                if ending == Ending::Failure && self.window.is_bad(settings) {
                    self.open(now, settings);
                }
            }
            // What began before it broke shows nothing.
            (Stand::HalfOpen { .. }, _) if !is_probe => {}
            (Stand::HalfOpen { successes }, Ending::Success) => {
                if successes + 1 >= settings.successes {
                    self.close();
                } else {
                    self.stand = Stand::HalfOpen { successes: successes + 1 };
                }
            }
            (Stand::HalfOpen { .. }, Ending::Failure) => self.open(now, settings),
        }
    }

    fn open(&mut self, now: Duration, settings: &Settings) {
        self.times = self.times.saturating_add(1);
        self.stand = Stand::Open { until: now + settings.open_for(self.times) };
        self.window.clear();
        self.probes.clear();
    }

    /// Whatever it knew of failures is forgotten.
    pub(super) fn close(&mut self) {
        self.stand = Stand::Closed;
        self.times = 0;
        self.window.clear();
        self.probes.clear();
    }

    /// Forgets outcomes that don't count any more, and probes that are lost.
    pub(super) fn forget(&mut self, now: Duration, settings: &Settings) {
        self.window.forget(now, settings);
        self.probes.retain(|probe| now < probe.since + settings.lost_after);
    }

    /// Whether there is nothing to know of it.
    pub(super) fn is_idle(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn probes(&self) -> usize {
        self.probes.len()
    }
}
