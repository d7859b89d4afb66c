//! The last outcomes of a tool: those of a time, and not more than [`MOST_OUTCOMES`].

use core::time::Duration;
use std::collections::VecDeque;

use crate::breaker::settings::{MOST_OUTCOMES, Settings};

/// Outcomes, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Window {
    /// When, and whether it was a failure.
    outcomes: VecDeque<(Duration, bool)>,
    failures: u32,
}

impl Window {
    pub(super) fn add(&mut self, at: Duration, failure: bool, settings: &Settings) {
        // The clock never steps, but a window that was read from a file may say anything.
        let at = self.outcomes.back().map_or(at, |(last, _)| at.max(*last));
        self.outcomes.push_back((at, failure));
        self.failures += u32::from(failure);
        self.forget(at, settings);
    }

    /// Forgets what doesn't count any more.
    pub(super) fn forget(&mut self, now: Duration, settings: &Settings) {
        let most = usize::try_from(MOST_OUTCOMES).unwrap_or(usize::MAX);
        while let Some((at, failure)) = self.outcomes.front().copied() {
            if self.outcomes.len() <= most && now.saturating_sub(at) < settings.window {
                break;
            }
            self.outcomes.pop_front();
            self.failures -= u32::from(failure);
        }
        if self.outcomes.is_empty() {
            self.outcomes.shrink_to_fit();
        }
    }

    /// Whether that's too many failures.
    pub(super) fn is_bad(&self, settings: &Settings) -> bool {
        let outcomes = self.len();
        let by_count = settings.failures > 0 && self.failures >= settings.failures;
        let by_share = settings.percent > 0
            && outcomes >= settings.of_at_least
            && self.failures * 100 >= settings.percent * outcomes;
        by_count || by_share
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.outcomes.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn outcomes(&self) -> impl Iterator<Item = (Duration, bool)> + '_ {
        self.outcomes.iter().copied()
    }
}
