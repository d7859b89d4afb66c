//! On a terminal: which axis, case and round is being measured, and how long its case will take yet.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Between two lines, so that a terminal costs nothing that shows in a sample.
const EVERY: Duration = Duration::from_millis(250);

/// Follows the rounds of one case.
#[derive(Debug)]
pub(crate) struct Progress {
    title: String,
    rounds: u32,
    began: Instant,
    shown: Option<Instant>,
    is_terminal: bool,
}

impl Progress {
    /// Of a case that begins now.
    pub(crate) fn begin(axis: &str, case: &str, rounds: u32) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let progress = Self {
            title: format!("{axis}, {case}"),
            rounds,
            began: Instant::now(),
            shown: None,
            is_terminal,
        };
        progress.show("begins");
        progress
    }

    /// What doesn't count is over: from here on rounds tell how long the rest takes.
    pub(crate) fn warmed_up(&mut self) {
        self.began = Instant::now();
    }

    /// So many rounds are over. Between rounds, never within one.
    pub(crate) fn over(&mut self, round: u32) {
        if !self.is_terminal || self.shown.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        self.shown = Some(Instant::now());
        self.show(&rounds(round, self.rounds, self.began.elapsed()));
    }

    fn show(&self, words: &str) {
        if self.is_terminal {
            // Back to the line's begin; what stood behind is erased.
            let _ = write!(std::io::stderr(), "\r{}: {words}\x1b[K", self.title);
        }
    }
}

impl Drop for Progress {
    /// Leaves no line behind: what comes next stands at its place.
    fn drop(&mut self) {
        if self.is_terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn rounds(over: u32, all: u32, took: Duration) -> String {
    let left = if over == 0 { None } else { Some(took / over * all.saturating_sub(over)) };
    let left = left.map(|left| format!(", {} left", span(left))).unwrap_or_default();
    format!("round {over} of {all}{left}")
}

/// A time as a person says it.
pub(crate) fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..100 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_by_the_rounds_that_are_over() {
        let seconds = Duration::from_secs;
        assert_eq!(rounds(0, 5, seconds(0)), "round 0 of 5");
        assert_eq!(rounds(2, 5, seconds(20)), "round 2 of 5, 30 s left");
        assert_eq!(rounds(5, 5, seconds(20)), "round 5 of 5, 0 s left");
    }

    #[test]
    fn a_long_time_is_told_in_minutes_and_never_rounded_down() {
        let table =
            [(0, "0 s"), (99, "99 s"), (100, "2 min"), (120, "2 min"), (121, "3 min"), (700, "12 min")];
        for (seconds, expected) in table {
            assert_eq!(span(Duration::from_secs(seconds)), expected);
        }
    }
}
