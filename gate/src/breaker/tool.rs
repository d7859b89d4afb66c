//! One tool's breaker.

use core::time::Duration;
use std::collections::VecDeque;

use crate::asked::Moment;
use crate::breaker::settings::Settings;
use crate::breaker::window::Window;
use crate::row::Ending;

/// The most runs of one tool that are known to go on: many more than run at once anywhere.
const MOST_RUNNING: usize = 4_096;
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

/// A run that was let pass and hasn't ended by anybody's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Running {
    principal: u32,
    since: Duration,
}

/// The breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tool {
    pub(super) stand: Stand,
    /// How often it has opened in a row, without having closed.
    pub(super) times: u32,
    pub(super) window: Window,
    /// Those that passed while it was closed, or before this daemon.
    others: VecDeque<Running>,
    /// Those that passed while it was half-open, since the last time that it opened.
    probes: Vec<Running>,
}

impl Default for Tool {
    fn default() -> Self {
        Self {
            stand: Stand::Closed,
            times: 0,
            window: Window::default(),
            others: VecDeque::new(),
            probes: Vec::new(),
        }
    }
}

/// It doesn't pass now: when something may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotYet {
    pub(super) until: Duration,
}

impl Tool {
    /// One of which nothing runs.
    pub(super) fn standing(stand: Stand, times: u32) -> Self {
        Self { stand, times, ..Self::default() }
    }

    /// Lets a run pass, or says when one may.
    pub(super) fn judge(&mut self, principal: u32, now: Duration, settings: &Settings) -> Result<(), NotYet> {
        self.forget(now, settings);
        let running = Running { principal, since: now };
        match self.stand {
            Stand::Closed => self.add_other(running),
            Stand::Open { until } if now < until => return Err(NotYet { until }),
            Stand::Open { .. } => {
                self.stand = Stand::HalfOpen { successes: 0 };
                self.probes.push(running);
            }
            Stand::HalfOpen { .. } => {
                let at_once = usize::try_from(settings.probes).unwrap_or(1);
                if self.probes.len() >= at_once {
                    // The nth place from the end is the first that is free again, if there are fewer places than before.
                    let first = &self.probes[self.probes.len() - at_once];
                    return Err(NotYet { until: first.since + settings.lost_after });
                }
                self.probes.push(running);
            }
        }
        Ok(())
    }

    /// What was let pass at that time is refused by a later stage.
    pub(super) fn take_back(&mut self, principal: u32, at: Duration) {
        let running = Running { principal, since: at };
        if let Some(place) = self.probes.iter().rposition(|probe| *probe == running) {
            self.probes.remove(place);
        } else if let Some(place) = self.others.iter().rposition(|other| *other == running) {
            self.others.remove(place);
        }
    }

    /// A run that was let pass by another daemon goes on.
    pub(super) fn adopt(&mut self, principal: u32, now: Duration) {
        self.add_other(Running { principal, since: now });
    }

    fn add_other(&mut self, running: Running) {
        if self.others.len() >= MOST_RUNNING {
            self.others.pop_front();
        }
        self.others.push_back(running);
    }

    /// A run has ended.
    pub(super) fn ended(&mut self, principal: u32, ending: Ending, now: Duration, settings: &Settings) {
        self.forget(now, settings);
        let is_probe = match self.others.iter().position(|other| other.principal == principal) {
            Some(place) => {
                self.others.remove(place);
                false
            }
            None => match self.probes.iter().position(|probe| probe.principal == principal) {
                Some(place) => {
                    self.probes.remove(place);
                    true
                }
                None => false,
            },
        };
        match (self.stand, ending) {
            (_, Ending::Neither) | (Stand::Open { .. }, _) => {}
            (Stand::Closed, Ending::Success | Ending::Failure) => {
                self.window.add(now, ending == Ending::Failure, settings);
                if ending == Ending::Failure && self.window.is_bad(settings) {
                    self.open(now, settings);
                }
            }
            (Stand::HalfOpen { successes }, Ending::Success) => {
                if successes + 1 >= settings.successes {
                    self.close();
                } else {
                    self.stand = Stand::HalfOpen { successes: successes + 1 };
                }
            }
            (Stand::HalfOpen { .. }, Ending::Failure) if is_probe => self.open(now, settings),
            (Stand::HalfOpen { .. }, Ending::Failure) => {}
        }
    }

    fn open(&mut self, now: Duration, settings: &Settings) {
        self.times = self.times.saturating_add(1);
        self.stand = Stand::Open { until: now + settings.open_for(self.times) };
        self.window.clear();
        // A probe that still runs is of the time before the next half-open one.
        self.end_of_probes();
    }

    /// Whatever it knew of failures is forgotten; what runs is still known.
    pub(super) fn close(&mut self) {
        self.stand = Stand::Closed;
        self.times = 0;
        self.window.clear();
        self.end_of_probes();
    }

    fn end_of_probes(&mut self) {
        for probe in std::mem::take(&mut self.probes) {
            self.add_other(probe);
        }
    }

    /// Forgets outcomes that don't count any more, and runs that are lost.
    pub(super) fn forget(&mut self, now: Duration, settings: &Settings) {
        self.window.forget(now, settings);
        let is_lost = |running: &Running| now >= running.since + settings.lost_after;
        while self.others.front().is_some_and(is_lost) {
            self.others.pop_front();
        }
        self.probes.retain(|probe| !is_lost(probe));
    }

    /// Whether there is nothing to know of it.
    pub(super) fn is_idle(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn probes(&self) -> usize {
        self.probes.len()
    }
}
