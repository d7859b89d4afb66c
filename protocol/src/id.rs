//! The name of a run.

use core::fmt;
use core::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};

/// Names one run for ever. A UUID version 7 (RFC 9562), so ids sort by the time of their request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExecId(Uuid);

impl ExecId {
    /// A fresh id, from the clock and the system's random source.
    #[must_use]
    pub fn generate() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::at(now, &Uuid::new_v4().as_bytes()[8..])
    }

    /// The id of a moment after 1970, and 62 random bits. Sorts by what a millisecond has in 4096ths (RFC 9562, 6.2, method
    /// 3): without a counter, and so with one question for random bytes instead of two.
    fn at(moment: Duration, random: &[u8]) -> Self {
        let milliseconds = u64::try_from(moment.as_millis()).unwrap_or(u64::MAX);
        let fraction = moment.subsec_nanos() % 1_000_000 * 4096 / 1_000_000;
        let mut rest = [0; 10];
        rest[..2].copy_from_slice(&fraction.to_be_bytes()[2..]);
        rest[2..].copy_from_slice(random);
        Self(Builder::from_unix_timestamp_millis(milliseconds, &rest).into_uuid())
    }

    /// The id with these 16 bytes, as they stand on the wire (big endian, RFC 9562).
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The 16 bytes of this id.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that isn't an [`ExecId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a run id: expected 36 characters like 01890a5d-ac96-774b-bcce-b302099a8057")]
pub struct NotAnId;

impl FromStr for ExecId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        Uuid::try_parse(text).map(Self).map_err(|_| NotAnId)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_sort_by_their_time_whatever_is_random_in_them() {
        // A 4096th of a millisecond and a little; over the ends of milliseconds and of a second.
        let moments = (0..20_000)
            .map(|tick| Duration::new(1_700_000_000, 998_000_000) + Duration::from_nanos(245) * tick);
        let ids: Vec<ExecId> = moments
            .enumerate()
            .map(|(tick, moment)| ExecId::at(moment, &[if tick % 2 == 0 { 0xff } else { 0 }; 8]))
            .collect();
        assert!(ids.is_sorted_by(|one, next| one < next));
    }

    #[test]
    fn an_id_is_of_version_7_and_has_its_milliseconds_in_front() {
        let id = ExecId::at(Duration::new(1_645_557_742, 123_000_000), &[0xff; 8]);
        assert_eq!((id.0.get_version_num(), id.0.get_variant()), (7, uuid::Variant::RFC4122));
        assert_eq!(id.to_string(), "017f22e2-7a2b-7000-bfff-ffffffffffff");
        let last = ExecId::at(Duration::new(1_645_557_742, 123_999_999), &[0; 8]);
        assert_eq!(last.to_string(), "017f22e2-7a2b-7fff-8000-000000000000");
    }

    #[test]
    fn ids_made_one_after_another_differ_in_what_is_random() {
        let ids = core::iter::repeat_with(ExecId::generate).take(1_000);
        let random: BTreeSet<[u8; 8]> =
            ids.map(|id| core::array::from_fn(|at| id.as_bytes()[8 + at])).collect();
        assert_eq!(random.len(), 1_000);
    }
}
