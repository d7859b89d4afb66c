//! How long records had to be kept, as the headers say: what may have been erased by now, and what may not.
//!
//! A segment's header says how long the writer that began it kept each class, and that writer erased in segments before it,
//! until the next one was begun. So a term that was shorter for a while excuses what was erased by it, and nothing that was
//! written behind it.

use crate::format::{Class, Header};
use crate::retention::DAY;

/// What one segment's writer may have erased: what is no younger than these.
#[derive(Debug, Clone, Copy)]
struct Term {
    segment: u64,
    /// Of each class; `None`: nothing.
    records: [Option<u64>; 3],
    /// Of a whole segment.
    all: Option<u64>,
}

/// The terms of all writers.
#[derive(Debug, Default)]
pub(super) struct Terms(Vec<Term>);

impl Terms {
    /// Of all headers that are the log's own, in order, by now.
    pub(super) fn of(headers: &[Header], now: u64) -> Self {
        let mut terms = Vec::with_capacity(headers.len());
        let (mut until, mut records, mut all) = (now, [None; 3], None);
        for header in headers.iter().rev() {
            // What one behind it may have erased is as good.
            let before = |days: u16| until.checked_sub(u64::from(days) * DAY);
            for (one, days) in records.iter_mut().zip(header.days) {
                *one = before(days).max(*one);
            }
            all = header.days.into_iter().max().and_then(before).max(all);
            terms.push(Term { segment: header.number, records, all });
            until = header.since().min(now);
        }
        terms.reverse();
        Self(terms)
    }

    /// Those that hold for what stands before a segment.
    fn before(&self, segment: u64) -> Option<&Term> {
        self.0.get(self.0.partition_point(|term| term.segment < segment))
    }

    /// Whether the body of a record of this segment may have been erased.
    pub(super) fn excuse_a_body(&self, segment: u64, class: Class, time: u64) -> bool {
        let term = self.before(segment.saturating_add(1));
        term.and_then(|term| term.records[usize::from(class.number() - 1)]).is_some_and(|until| time <= until)
    }

    /// Whether all segments before this one may have been removed, of which nothing is younger than `time`.
    pub(super) fn excuse_segments(&self, before: u64, time: u64) -> bool {
        self.before(before).and_then(|term| term.all).is_some_and(|until| time <= until)
    }
}
