//! The records in a run's output ring: a memfd written by the relay, read by the supervisor.
//!
//! Offsets count bytes since the run's start; a record at offset `o` stands at `o % capacity`, wrapping byte by
//! byte. A record is a header of [`HEADER`] bytes and its payload. Its sequence number is the event's: the first
//! record of a run has [`FIRST_SEQ`], so whoever reads a ring later numbers events alike.
//!
//! A record without payload stands in rings of [marked](crate::launch::LaunchOutput::Marked) output only: its stream was silent.

use crate::client::Stream;

/// Bytes of a record's header: length (u32), stream (u8), three zero bytes, sequence number (u64), little endian.
pub const HEADER: usize = 16;
/// Sequence number of a run's first record: `Accepted` is 1, `Started` 2.
pub const FIRST_SEQ: u64 = 3;

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Bytes of payload.
    pub length: u32,
    /// Whose output.
    pub stream: Stream,
    /// The event's sequence number.
    pub seq: u64,
}

impl Record {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4] = match self.stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        };
        bytes[8..].copy_from_slice(&self.seq.to_le_bytes());
        bytes
    }

    /// Reads a header. `None` where it isn't one (a reader that fell behind the writer).
    #[must_use]
    pub fn decode(bytes: &[u8; HEADER]) -> Option<Self> {
        let [l0, l1, l2, l3, stream, 0, 0, 0, s0, s1, s2, s3, s4, s5, s6, s7] = *bytes else { return None };
        let stream = match stream {
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            _ => return None,
        };
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let seq = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        Some(Self { length, stream, seq })
    }
}

/// Where `length` bytes at `offset` stand in a ring of `capacity` bytes: one or two `(position, length)` pieces.
#[must_use]
pub fn pieces(offset: u64, length: usize, capacity: u64) -> [(u64, usize); 2] {
    let at = offset % capacity;
    let room = usize::try_from(capacity - at).unwrap_or(usize::MAX);
    let first = length.min(room);
    [(at, first), (0, length - first)]
}
