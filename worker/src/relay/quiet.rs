//! Silence of a run's streams, which is marked in its ring where output is redacted.
//!
//! What reads a ring holds back what may be the beginning of a secret, but not for long: somebody may be waiting for a prompt.
//! When that is over has to be the same for whoever reads the ring, whenever he does. So it stands in the ring: a record without
//! bytes says that its stream was silent for [`MARK_AFTER_MS`] behind the record before.
//!
//! ```text
//!   marked ──record──> spoke ──silent for long enough, room──> marked
//!                        └──────── no room: until some is acknowledged
//! ```
//!
//! **Whom nobody listens to isn't silent.** While the ring is full the pipes aren't read, and a stream may be in the middle of a
//! token. Its silence is counted from when it's read again; and no mark is put while its pipe has something.
//!
//! A run that says nothing costs nothing: its streams are looked at once behind the last of what they said.

use std::time::{Duration, Instant};

use stockade_protocol::bounds::MARK_AFTER_MS;
use stockade_protocol::client::Stream;

use crate::relay::run::index;

/// Deadlines are moved up to a multiple of that: a thousand runs that say little wake the relay no oftener than one.
pub const GRID: Duration = Duration::from_millis(10);
const AFTER: Duration = Duration::from_millis(MARK_AFTER_MS);
/// Both streams, in the order in which their silence is marked.
pub(super) const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

/// Of one run: since when each of its streams is silent, until that is marked.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    since: [Option<Instant>; 2],
    /// The ring has no room: for a mark, or for what waits in the pipes.
    is_waiting: bool,
}

impl Quiet {
    /// A stream has a new record.
    pub(super) fn spoke(&mut self, stream: Stream, now: Instant) {
        self.since[index(stream)] = Some(now);
    }

    /// Whether a stream's silence is to be marked now.
    pub(super) fn is_due(&self, stream: Stream, now: Instant) -> bool {
        let since = self.since[index(stream)].filter(|_| !self.is_waiting);
        since.is_some_and(|since| now.saturating_duration_since(since) >= AFTER)
    }

    /// A stream's silence was marked, or never has to be.
    pub(super) fn settle(&mut self, stream: Stream) {
        self.since[index(stream)] = None;
    }

    /// There is no room: nothing is due until there is.
    pub(super) fn wait(&mut self) {
        self.is_waiting = true;
    }

    /// There may be room again.
    pub(super) fn go_on(&mut self) {
        self.is_waiting = false;
    }

    /// Nobody has listened until now: what a stream said meanwhile waits in its pipe.
    pub(super) fn listen(&mut self, now: Instant) {
        self.is_waiting = false;
        for since in self.since.iter_mut().flatten() {
            *since = now;
        }
    }

    /// When the first of what isn't marked is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let first = self.since.iter().flatten().min().filter(|_| !self.is_waiting)?;
        Some(*first + AFTER)
    }
}

/// The first moment of the grid that isn't before this one. `began`: one of the grid.
#[must_use]
pub fn on_grid(began: Instant, at: Instant) -> Instant {
    let grid = GRID.as_nanos();
    let steps = at.saturating_duration_since(began).as_nanos().div_ceil(grid);
    u32::try_from(steps).ok().and_then(|steps| began.checked_add(GRID.checked_mul(steps)?)).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_due_once_when_it_was_silent_for_long_enough() {
        let start = Instant::now();
        let mut quiet = Quiet::default();
        assert_eq!(quiet.deadline(), None);
        quiet.spoke(Stream::Stdout, start);
        quiet.spoke(Stream::Stdout, start + GRID);
        assert_eq!(quiet.deadline(), Some(start + GRID + AFTER), "the last record counts");
        assert!(
            !quiet.is_due(Stream::Stdout, start + AFTER)
                && quiet.is_due(Stream::Stdout, start + GRID + AFTER)
        );
        assert!(!quiet.is_due(Stream::Stderr, start + 10 * AFTER), "it has said nothing");
        quiet.wait();
        assert_eq!(quiet.deadline(), None, "without room nobody is woken");
        assert!(!quiet.is_due(Stream::Stdout, start + 10 * AFTER), "nor marked");
        quiet.listen(start + 10 * AFTER);
        assert_eq!(quiet.deadline(), Some(start + 11 * AFTER), "what it said meanwhile isn't known");
        quiet.wait();
        quiet.go_on();
        assert_eq!(quiet.deadline(), Some(start + 11 * AFTER));
        quiet.settle(Stream::Stdout);
        assert_eq!(quiet.deadline(), None);
    }

    #[test]
    fn moments_of_the_grid_are_few() {
        let began = Instant::now();
        let at = |ms: u64| on_grid(began, began + Duration::from_millis(ms));
        assert_eq!(at(0), began);
        assert!((1..=10).all(|ms| at(ms) == began + GRID), "a thousand deadlines are one");
        assert_eq!(at(86_400_001), began + Duration::from_millis(86_400_010));
    }
}
