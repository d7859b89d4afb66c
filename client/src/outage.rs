//! A connection that broke: when to try again, and until when. Pure: the time is passed in.
//!
//! ```text
//!            not due            failed: a longer pause
//!          ┌────────┐          ┌────────────────────┐
//!   break ─┴> pause ┴─ due ──> try ── connected ── greeted ── progress, or it held ──> over
//!              ^                                      └── broke again ──┐
//!              └──────────────────────────────────────────────────────┘
//! ```
//!
//! A supervisor that comes back and goes at once has not come back: the pauses go on growing, and the time goes on
//! running, until a connection brings something or holds for [`HOLDS`].

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use rustix::io::Errno;

/// How long a supervisor that has gone may take to come back, unless a client says otherwise.
pub const RETURN_WITHIN: Duration = Duration::from_secs(30);
/// The first pause before a try. A supervisor that is replaced is back in little more.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A connection that stood so long had come about, whether anything happened on it or not.
const HOLDS: Duration = LONGEST_PAUSE;

/// The time without a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// When the connection broke.
    pub since: Instant,
    /// When the client gives up.
    pub until: Instant,
}

/// One break, until it's over.
#[derive(Debug)]
pub(crate) struct Outage {
    pause: Pause,
    /// When to try next.
    next: Instant,
    /// How long the pause before that could be at most.
    step: Duration,
    /// Varies the pauses, so that the clients of one supervisor don't all come at once.
    chance: u64,
    /// Why the last try failed, if it didn't get as far as a connection.
    why: Option<Errno>,
    /// Since when there's a connection again, if there is.
    back: Option<Instant>,
}

impl Outage {
    pub(crate) fn new(now: Instant, within: Duration) -> Self {
        Self::seeded(now, within, RandomState::new().hash_one(0))
    }

    fn seeded(now: Instant, within: Duration, seed: u64) -> Self {
        let pause = Pause { since: now, until: now + within };
        // Of an xorshift generator 0 is the one state that never changes.
        let mut outage =
            Self { pause, next: now, step: FIRST_PAUSE, chance: seed.max(1), why: None, back: None };
        outage.next = now + outage.varied();
        outage
    }

    pub(crate) fn pause(&self) -> Pause {
        self.pause
    }

    pub(crate) fn why(&self) -> Option<Errno> {
        self.why
    }

    /// When the next try is due, or the end.
    pub(crate) fn due(&self) -> Instant {
        self.next.min(self.pause.until)
    }

    /// Whether the time is over.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now >= self.pause.until
    }

    /// A try has failed, or came to nothing.
    pub(crate) fn failed(&mut self, now: Instant, why: Option<Errno>) {
        self.why = why;
        self.back = None;
        self.step = (2 * self.step).min(LONGEST_PAUSE);
        self.next = now + self.varied();
    }

    /// The supervisor has answered.
    pub(crate) fn back(&mut self, now: Instant) {
        self.back = Some(now);
    }

    /// What there is to do about a connection that breaks after this one: the same goes on, or `None` as this one is over.
    pub(crate) fn again(mut self, now: Instant) -> Option<Self> {
        if self.back.is_none_or(|back| now.saturating_duration_since(back) >= HOLDS) {
            return None;
        }
        self.failed(now, None);
        Some(self)
    }

    /// Between half of the step and all of it.
    fn varied(&mut self) -> Duration {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        let half = self.step / 2;
        let micros = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
        half + Duration::from_micros(self.chance % (micros + 1))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn outage(now: Instant, seed: u64) -> Outage {
        Outage::seeded(now, RETURN_WITHIN, seed)
    }

    #[test]
    fn pauses_grow_from_ten_milliseconds_to_a_second_and_end_in_time() {
        for seed in 0..200 {
            let start = Instant::now();
            let (mut outage, mut now, mut steps) = (outage(start, seed), start, Vec::new());
            while !outage.is_over(now) {
                steps.push(outage.due() - now);
                now = outage.due();
                outage.failed(now, Some(Errno::CONNREFUSED));
            }
            assert_eq!(now, start + RETURN_WITHIN);
            assert!(steps[0] >= FIRST_PAUSE / 2 && steps[0] <= FIRST_PAUSE, "{:?}", steps[0]);
            // The last is cut short by the end.
            for pair in steps[..steps.len() - 1].windows(2) {
                assert!(pair[1] <= LONGEST_PAUSE && pair[1] >= (pair[0] / 2).min(LONGEST_PAUSE / 2));
            }
            assert!((30..=70).contains(&steps.len()), "{} tries", steps.len());
        }
    }

    #[test]
    fn pauses_of_two_clients_differ() {
        let now = Instant::now();
        let steps = |seed| {
            let mut outage = outage(now, seed);
            core::iter::repeat_with(|| (outage.failed(now, None), outage.due()).1).take(8).collect::<Vec<_>>()
        };
        assert_ne!(steps(1), steps(2));
    }

    #[test]
    fn a_connection_that_goes_at_once_is_the_same_outage_and_one_that_held_is_none() {
        let start = Instant::now();
        let mut first = outage(start, 7);
        let back = start + Duration::from_secs(29);
        first.back(back);
        let again = first.again(back + Duration::from_millis(5)).unwrap();
        assert!(again.is_over(start + RETURN_WITHIN));
        let mut held = outage(start, 7);
        held.back(back);
        assert!(held.again(back + HOLDS).is_none());
    }
}
