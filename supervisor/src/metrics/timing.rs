//! A run's moments, as the supervisor sees them.
//!
//! ```text
//! asked ──> handed to the launcher ──> started ──> ended
//!                     └──────────── kill ordered ────^
//! ```
//!
//! That a command has started is told late: after 2 ms, or of a shorter one with its end. So when a command has started is
//! worked out at the end: the sooner of when that was told, and of its end less the time it ran, which the launcher measures.

use std::time::{Duration, Instant};

/// When what happened; what hasn't, or isn't known, has no moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Timing {
    asked: Option<Instant>,
    handed: Option<Instant>,
    started: Option<Instant>,
    kill: Option<Instant>,
    ended: Option<Instant>,
}

/// When a run's parts began and ended, with the command's start worked out.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Moments {
    pub(crate) asked: Option<Instant>,
    pub(crate) handed: Option<Instant>,
    pub(crate) started: Option<Instant>,
    pub(crate) ended: Option<Instant>,
}

/// How long the parts took that are known.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Spans {
    /// From the request to the hand-over.
    pub(super) queue: Option<Duration>,
    /// From there to the command's start.
    pub(super) launch: Option<Duration>,
    /// From the order to end it until its end.
    pub(super) kill: Option<Duration>,
}

impl Timing {
    /// Of a request that comes now.
    pub(crate) fn asked() -> Self {
        Self { asked: Some(Instant::now()), ..Self::default() }
    }

    /// The launcher has it.
    pub(crate) fn hand(&mut self) {
        self.handed = Some(Instant::now());
    }

    /// The launcher says that the command runs.
    pub(crate) fn start(&mut self) {
        self.started = Some(Instant::now());
    }

    /// The launcher was told to end it. The first order counts.
    pub(crate) fn order_kill(&mut self) {
        self.kill.get_or_insert_with(Instant::now);
    }

    /// The launcher says that it has ended.
    pub(crate) fn end(&mut self) {
        self.ended = Some(Instant::now());
    }

    /// Whether the launcher told of its end, and of what it used.
    pub(crate) fn has_end(&self) -> bool {
        self.ended.is_some()
    }

    /// The parts of a run whose command ran for `wall`.
    pub(super) fn spans(&self, wall: Duration) -> Spans {
        let between = |from: Option<Instant>, to: Option<Instant>| Some(to?.saturating_duration_since(from?));
        let moments = self.moments(wall);
        Spans {
            queue: between(moments.asked, moments.handed),
            launch: between(moments.handed, moments.started),
            kill: between(self.kill, self.ended),
        }
    }

    /// The moments of a run whose command ran for `wall`.
    pub(crate) fn moments(&self, wall: Duration) -> Moments {
        let began = self.ended.and_then(|ended| ended.checked_sub(wall));
        // It can't have run before somebody had it, and one that nobody has told of never ran.
        let started = self.started.map(|told| began.map_or(told, |began| told.min(began)));
        let started = started.map(|started| self.handed.map_or(started, |handed| started.max(handed)));
        Moments { asked: self.asked, handed: self.handed, started, ended: self.ended }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_is_told_late_is_worked_out_from_the_end() {
        let (zero, ms) = (Instant::now(), Duration::from_millis);
        let at = |milliseconds| Some(zero + ms(milliseconds));
        let timing = Timing { asked: at(0), handed: at(3), started: at(30), kill: None, ended: at(31) };
        // It ran for 20 ms: since 11, whatever was told.
        let spans = Spans { queue: Some(ms(3)), launch: Some(ms(8)), kill: None };
        assert_eq!(timing.spans(ms(20)), spans);
        // Its end was told so late that the word of its start came first.
        assert_eq!(timing.spans(ms(0)).launch, Some(ms(27)));
        // Longer than it can have been: a clock that is off gives nothing below zero.
        assert_eq!(timing.spans(ms(1_000)).launch, Some(ms(0)));
        // Nobody told of its end: what was told of its start stands.
        let lost = Timing { ended: None, ..timing };
        assert_eq!(lost.spans(ms(0)), Spans { queue: Some(ms(3)), launch: Some(ms(27)), kill: None });
    }

    #[test]
    fn what_has_not_happened_has_no_length() {
        let mut timing = Timing::asked();
        timing.end();
        assert_eq!(timing.spans(Duration::ZERO), Spans::default());
        timing.hand();
        timing.order_kill();
        timing.end();
        let spans = timing.spans(Duration::ZERO);
        assert!(spans.queue.is_some() && spans.kill.is_some());
        assert_eq!(spans.launch, None, "it never started");
    }
}
