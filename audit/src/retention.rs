//! What has been kept long enough: bodies of records are erased when their class's time has come, segments once nothing of
//! theirs is left to be kept.
//!
//! An erased record keeps its place in the chain, since that goes over a hash of its body, which stays. Only segments before
//! the one that is written to are touched, each as a whole: it's the old or the new one at any moment.

use core::fmt;
use std::time::{Duration, SystemTime};

use crate::error::AuditError;
use crate::event::nanoseconds;
use crate::files::{Directory, segment_name};
use crate::format::{Body, Class, HEADER, Kind, Record};
use crate::segment::{Piece, Pieces};

/// What was erased.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Erased {
    pub(crate) records: u64,
    pub(crate) segments: u64,
}

impl Erased {
    pub(crate) fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

impl fmt::Display for Erased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, segments } = self;
        write!(f, "{records} records and {segments} whole segments had been kept for as long as they are")
    }
}

/// Since when a record of a class isn't kept any more, in nanoseconds since 1970.
pub(crate) fn over(class: Class, time: u64, days: [u16; 3]) -> u64 {
    let days = days[usize::from(class.number() - 1)];
    let kept = Duration::from_secs(u64::from(days) * 24 * 3600);
    time.saturating_add(u64::try_from(kept.as_nanos()).unwrap_or(u64::MAX))
}

/// The longest that any class is kept behind a time.
pub(crate) fn all_over(time: u64, days: [u16; 3]) -> u64 {
    Class::ALL.into_iter().map(|class| over(class, time, days)).max().unwrap_or(u64::MAX)
}

/// Erases what has been kept long enough in the segments before `active`.
pub(crate) fn enforce(
    directory: &Directory,
    active: u64,
    days: [u16; 3],
    now: SystemTime,
) -> Result<Erased, AuditError> {
    let now = nanoseconds(now);
    let mut erased = Erased::default();
    let numbers = directory.segments()?;
    let mut is_first = true;
    for (at, number) in numbers.iter().enumerate().filter(|(_, number)| **number < active) {
        // The segment behind was begun after this one's last record: once that is over, all of this one is.
        let next = numbers.get(at + 1).map(|next| directory.read_header(*next)).transpose()?.flatten();
        let is_over = next.is_some_and(|next| all_over(next.time, days) <= now);
        if is_first && is_over {
            let path = directory.segment(*number);
            std::fs::remove_file(&path).map_err(AuditError::io("remove", &path))?;
            erased.segments += 1;
            continue;
        }
        is_first = false;
        erased.records += thin(directory, *number, days, now)?;
    }
    if erased.segments > 0 {
        directory.sync().map_err(AuditError::io("write", directory.path()))?;
    }
    Ok(erased)
}

/// Erases bodies of one segment; how many.
fn thin(directory: &Directory, number: u64, days: [u16; 3], now: u64) -> Result<u64, AuditError> {
    // Nothing of a segment is older than its header.
    let header = directory.read_header(number)?;
    let soonest = days.into_iter().min().unwrap_or(0);
    if header.is_none_or(|header| over(Class::Security, header.time, [soonest; 3]) > now) {
        return Ok(0);
    }
    let bytes = directory.read_segment(number)?;
    let mut out = bytes[..HEADER.min(bytes.len())].to_vec();
    let mut erased = 0;
    for piece in Pieces::of(&bytes) {
        match piece {
            Piece::Record(_, record) if is_erasable(&record, days, now) => {
                Record { body: Body::Erased(record.body.hash()), ..record }.encode(&mut out);
                erased += 1;
            }
            Piece::Record(_, record) => record.encode(&mut out),
            Piece::Odd(range) | Piece::Tail(range, _) => out.extend_from_slice(&bytes[range]),
        }
    }
    if erased > 0 {
        directory.replace(&segment_name(number), &out, true)?;
    }
    Ok(erased)
}

fn is_erasable(record: &Record<'_>, days: [u16; 3], now: u64) -> bool {
    let label = &record.label;
    label.kind == Kind::Event
        && matches!(record.body, Body::Whole(_))
        && over(label.class, label.time, days) <= now
}
