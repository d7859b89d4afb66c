//! Reads a run's output from its ring: a memfd that the relay writes.
//!
//! Three parties move: the relay writes ahead, this reader follows, and what has reached every follower's socket
//! is acknowledged so that the relay may write over it. What isn't acknowledged can't change under the reader.
//! What is (a run that nobody followed for a while, and then somebody attaches) may be written over at any time,
//! the oldest first; so a batch is valid if the header of its first record is still there after it was read.
//!
//! Payloads are read to where they're sent from: a record's header comes in a small window, with whatever small
//! records follow it, and what doesn't fit the window is read into its place.
//!
//! Nothing here trusts the ring: every header is checked, and a record that isn't what it should be is output
//! that was lost, never a panic and never another run's.

use std::io;
use std::os::fd::OwnedFd;

use stockade_protocol::bounds::MAX_OUTPUT_CHUNK;
use stockade_protocol::ring::{FIRST_SEQ, HEADER, Record, pieces};
use stockade_wire::output::HEAD;

/// The most bytes of one batch, as frames: a few of the largest records.
pub(crate) const BATCH: usize = 192 * 1024;
/// Bytes read to find headers. Payloads that fit in are copied once more, the others aren't.
const WINDOW: usize = 4 * 1024;

/// Takes the records that are read.
pub(crate) trait Taker {
    /// Room for a record's payload, which is filled next. `None`: it takes no more of this batch.
    fn room(&mut self, record: &Record) -> Option<&mut [u8]>;

    /// What was taken since the last call was written over meanwhile: it's given up.
    fn give_up(&mut self);
}

/// What the relay last said of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wrote {
    /// Offset after the last record.
    pub(crate) head: u64,
    /// Sequence number after the last record.
    pub(crate) next_seq: u64,
    /// Offset of the oldest record that is still there.
    pub(crate) oldest_offset: u64,
    /// Its sequence number.
    pub(crate) oldest_seq: u64,
    /// Whether no record follows.
    pub(crate) eof: bool,
}

impl Default for Wrote {
    fn default() -> Self {
        Self { head: 0, next_seq: FIRST_SEQ, oldest_offset: 0, oldest_seq: FIRST_SEQ, eof: false }
    }
}

impl Wrote {
    /// Bytes of output so far, without the records' headers.
    pub(crate) fn payload_bytes(&self) -> u64 {
        let records = self.next_seq.saturating_sub(FIRST_SEQ);
        self.head.saturating_sub(records.saturating_mul(HEADER as u64))
    }
}

/// Where a follower is in a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Sequence number of the next record it wants.
    pub(crate) seq: u64,
    /// Where that stands; `None`: to be looked for.
    pub(crate) offset: Option<u64>,
}

/// What a read gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Records were handed out, and the place moved.
    Records,
    /// These many records are gone; the place moved behind them.
    Lost(u64),
    /// Nothing to read now.
    Nothing,
}

/// A run's ring.
#[derive(Debug)]
pub(crate) struct Ring {
    memfd: OwnedFd,
    capacity: u64,
}

impl Ring {
    pub(crate) fn new(memfd: OwnedFd, capacity: u64) -> Self {
        Self { memfd, capacity }
    }

    /// Hands out the records after a place, about [`BATCH`] bytes of them. `end_seq`: the first number not to be
    /// handed out; `settled`: no report of the relay will follow; `acknowledged`: what may be written over.
    ///
    /// # Errors
    /// Those of pread(2).
    pub(crate) fn read(
        &self,
        wrote: &Wrote,
        place: &mut Place,
        (end_seq, settled, acknowledged): (u64, bool, u64),
        taker: &mut impl Taker,
    ) -> io::Result<Read> {
        let end_seq = end_seq.min(wrote.next_seq);
        if place.seq >= end_seq {
            return Ok(Read::Nothing);
        }
        if place.seq < wrote.oldest_seq {
            let lost = wrote.oldest_seq.min(end_seq) - place.seq;
            *place = Place { seq: place.seq + lost, offset: Some(wrote.oldest_offset) };
            return Ok(Read::Lost(lost));
        }
        let found = match place.offset {
            Some(offset) => Some(offset),
            None => self.look_for(place.seq, wrote)?,
        };
        if let Some(offset) = found {
            let batch = Batch { ring: self, head: wrote.head, at: offset, seq: place.seq, left: BATCH };
            match batch.take(end_seq, acknowledged, taker) {
                Ok(Some(behind)) => {
                    *place = behind;
                    return Ok(Read::Records);
                }
                Ok(None) => taker.give_up(),
                Err(error) => {
                    taker.give_up();
                    return Err(error);
                }
            }
        }
        // It was written over. The relay's next report says what is left, unless there is none.
        place.offset = None;
        if !settled {
            return Ok(Read::Nothing);
        }
        let lost = end_seq - place.seq;
        place.seq = end_seq;
        Ok(Read::Lost(lost))
    }

    /// Walks the headers from the oldest record to the one with a number.
    fn look_for(&self, seq: u64, wrote: &Wrote) -> io::Result<Option<u64>> {
        let oldest = (wrote.oldest_offset, wrote.oldest_seq);
        let mut walk = Batch { ring: self, head: wrote.head, at: oldest.0, seq: oldest.1, left: usize::MAX };
        let held = walk.hand_out(seq, &mut PassedOver)?;
        Ok((held && walk.seq == seq).then_some(walk.at))
    }

    /// The bytes where a header should be. `None`: the memfd is shorter than the ring.
    fn header_at(&self, offset: u64) -> io::Result<Option<[u8; HEADER]>> {
        let mut header = [0; HEADER];
        Ok(self.read_at(offset, &mut header)?.then_some(header))
    }

    /// Fills a buffer from the ring, around its end. `false`: the memfd is shorter than the ring.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<bool> {
        let mut done = 0;
        for (position, length) in pieces(offset, buffer.len(), self.capacity) {
            let piece = &mut buffer[done..done + length];
            let mut read = 0;
            while read < length {
                let count = rustix::io::pread(&self.memfd, &mut piece[read..], position + read as u64)?;
                if count == 0 {
                    return Ok(false);
                }
                read += count;
            }
            done += length;
        }
        Ok(true)
    }
}

/// A walk over records that follow each other.
struct Batch<'a> {
    ring: &'a Ring,
    /// Where the records end.
    head: u64,
    /// Where it stands, and the number that the record there must have.
    at: u64,
    seq: u64,
    /// Bytes of frames that it may still give.
    left: usize,
}

/// How to go on behind a window.
enum Step {
    Next,
    Stop,
    /// The memfd is shorter than the ring.
    Short,
}

impl Batch<'_> {
    /// Hands out records up to a number. The place behind them, if they are what they should be.
    fn take(mut self, end_seq: u64, acknowledged: u64, taker: &mut impl Taker) -> io::Result<Option<Place>> {
        let from = (self.at, self.seq);
        let may_change = from.0 < acknowledged;
        let first = if may_change { self.ring.header_at(from.0)? } else { None };
        let held = self.hand_out(end_seq, taker)? && self.seq > from.1;
        if !held || (may_change && self.ring.header_at(from.0)? != first) {
            return Ok(None);
        }
        Ok(Some(Place { seq: self.seq, offset: Some(self.at) }))
    }

    /// Hands out records up to a number. `false`: what the taker has may not be whole.
    fn hand_out(&mut self, end_seq: u64, taker: &mut impl Taker) -> io::Result<bool> {
        let mut window = [0; WINDOW];
        while self.seq < end_seq {
            let length = WINDOW.min(usize::try_from(self.head.saturating_sub(self.at)).unwrap_or(WINDOW));
            let seen = &mut window[..length];
            if !self.ring.read_at(self.at, seen)? {
                return Ok(false);
            }
            match self.hand_out_of(seen, end_seq, taker)? {
                Step::Next => {}
                Step::Stop => break,
                Step::Short => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Hands out the records that begin in a window.
    fn hand_out_of(&mut self, window: &[u8], end_seq: u64, taker: &mut impl Taker) -> io::Result<Step> {
        let mut rest = window;
        while self.seq < end_seq
            && let Some(header) = rest.first_chunk::<HEADER>()
        {
            let Some(record) = Record::decode(header).filter(|record| self.is_next(record)) else {
                return Ok(Step::Stop);
            };
            let length = record.length as usize;
            if self.has_given() && length + HEAD > self.left {
                return Ok(Step::Stop);
            }
            let Some(payload) = taker.room(&record) else { return Ok(Step::Stop) };
            let seen = &rest[HEADER..];
            let copied = seen.len().min(payload.len());
            payload[..copied].copy_from_slice(&seen[..copied]);
            if !self.ring.read_at(self.at + (HEADER + copied) as u64, &mut payload[copied..])? {
                return Ok(Step::Short);
            }
            self.left = self.left.saturating_sub(length + HEAD);
            self.at += (HEADER + length) as u64;
            self.seq += 1;
            rest = seen.get(length..).unwrap_or_default();
        }
        Ok(if rest.len() < window.len() { Step::Next } else { Step::Stop })
    }

    /// Whether something was handed out already: one record is, however large.
    fn has_given(&self) -> bool {
        self.left < BATCH
    }

    /// Whether a header is what must be here, and its payload lies before the head.
    fn is_next(&self, record: &Record) -> bool {
        let whole = HEADER as u64 + u64::from(record.length);
        record.seq == self.seq
            && record.length as usize <= MAX_OUTPUT_CHUNK
            && whole <= self.head.saturating_sub(self.at)
    }
}

/// Takes no payload: a walk over headers.
struct PassedOver;

impl Taker for PassedOver {
    fn room(&mut self, _record: &Record) -> Option<&mut [u8]> {
        Some(&mut [])
    }

    fn give_up(&mut self) {}
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::MemfdFlags;
    use stockade_protocol::client::Stream;

    use super::*;

    /// A relay's side of a ring, for tests.
    pub(crate) struct Writer {
        memfd: OwnedFd,
        capacity: u64,
        pub(crate) wrote: Wrote,
        records: std::collections::VecDeque<(u64, u64)>,
    }

    impl Writer {
        pub(crate) fn new(capacity: u64) -> Self {
            let memfd = rustix::fs::memfd_create("ring", MemfdFlags::CLOEXEC).unwrap();
            rustix::fs::ftruncate(&memfd, capacity).unwrap();
            Self { memfd, capacity, wrote: Wrote::default(), records: [].into() }
        }

        pub(crate) fn memfd(&self) -> OwnedFd {
            self.memfd.as_fd().try_clone_to_owned().unwrap()
        }

        pub(crate) fn ring(&self) -> Ring {
            Ring::new(self.memfd(), self.capacity)
        }

        /// Writes a record over whatever is oldest.
        pub(crate) fn write(&mut self, stream: Stream, payload: &[u8]) {
            let (offset, seq) = (self.wrote.head, self.wrote.next_seq);
            let length = u32::try_from(payload.len()).unwrap();
            let mut bytes = Record { length, stream, seq }.encode().to_vec();
            bytes.extend_from_slice(payload);
            let mut done = 0;
            for (position, length) in pieces(offset, bytes.len(), self.capacity) {
                rustix::io::pwrite(&self.memfd, &bytes[done..done + length], position).unwrap();
                done += length;
            }
            self.records.push_back((offset, seq));
            self.wrote.head += bytes.len() as u64;
            self.wrote.next_seq += 1;
            while self.wrote.head - self.records[0].0 > self.capacity {
                self.records.pop_front();
            }
            (self.wrote.oldest_offset, self.wrote.oldest_seq) = self.records[0];
        }
    }

    type Records = Vec<(u64, Vec<u8>)>;

    impl Taker for Records {
        fn room(&mut self, record: &Record) -> Option<&mut [u8]> {
            self.push((record.seq, vec![0xee; record.length as usize]));
            self.last_mut().map(|(_, payload)| payload.as_mut_slice())
        }

        fn give_up(&mut self) {
            self.clear();
        }
    }

    fn read(ring: &Ring, wrote: &Wrote, place: &mut Place, settled: bool) -> (Read, Records) {
        let mut records = Vec::new();
        let read = ring.read(wrote, place, (u64::MAX, settled, u64::MAX), &mut records).unwrap();
        (read, records)
    }

    const START: Place = Place { seq: FIRST_SEQ, offset: Some(0) };

    #[test]
    fn records_come_out_in_order_around_the_end() {
        let mut writer = Writer::new(4096);
        let ring = writer.ring();
        let mut place = START;
        for round in 0_u8..40 {
            let payload = vec![round; 1000];
            writer.write(Stream::Stdout, &payload);
            writer.write(Stream::Stderr, b"");
            let seq = FIRST_SEQ + u64::from(round) * 2;
            let expected = vec![(seq, payload), (seq + 1, Vec::new())];
            assert_eq!(read(&ring, &writer.wrote, &mut place, false), (Read::Records, expected));
        }
        assert_eq!(read(&ring, &writer.wrote, &mut place, false).0, Read::Nothing);
        assert_eq!(writer.wrote.payload_bytes(), 40_000);
    }

    #[test]
    fn a_late_follower_is_told_what_it_missed_and_gets_the_rest() {
        let mut writer = Writer::new(4096);
        for round in 0_u8..10 {
            writer.write(Stream::Stdout, &[round; 1000]);
        }
        let ring = writer.ring();
        let mut place = Place { seq: 5, offset: None };
        assert_eq!(read(&ring, &writer.wrote, &mut place, false).0, Read::Lost(4));
        let (_, records) = read(&ring, &writer.wrote, &mut place, false);
        assert_eq!(records.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [9, 10, 11, 12][..4].to_vec());
        assert_eq!(records[0].1, vec![6; 1000]);
    }

    #[test]
    fn a_follower_finds_its_number_among_many_small_records() {
        let mut writer = Writer::new(1 << 20);
        for number in 0..30_000_u32 {
            writer.write(Stream::Stdout, &number.to_le_bytes());
        }
        let ring = writer.ring();
        let mut place = Place { seq: 29_000, offset: None };
        let (read, records) = read(&ring, &writer.wrote, &mut place, false);
        assert_eq!(read, Read::Records);
        assert_eq!(records[0], (29_000, 28_997_u32.to_le_bytes().to_vec()));
    }

    #[test]
    fn a_record_written_over_before_the_report_is_waited_for_and_lost_in_the_end() {
        let mut writer = Writer::new(4096);
        writer.write(Stream::Stdout, &[1; 1000]);
        let stale = writer.wrote;
        for _ in 0..4 {
            writer.write(Stream::Stdout, &[2; 1000]);
        }
        let ring = writer.ring();
        let mut place = START;
        assert_eq!(read(&ring, &stale, &mut place, false), (Read::Nothing, Vec::new()));
        assert_eq!(read(&ring, &stale, &mut place, true), (Read::Lost(1), Vec::new()));
        assert_eq!(place.seq, FIRST_SEQ + 1);
        let mut place = START;
        assert_eq!(read(&ring, &writer.wrote, &mut place, false).0, Read::Lost(1));
    }

    #[test]
    fn garbage_in_a_ring_is_lost_output_and_nothing_else() {
        let mut writer = Writer::new(4096);
        writer.write(Stream::Stdout, b"x");
        rustix::io::pwrite(&writer.memfd, &[0xff; 64], 0).unwrap();
        let ring = writer.ring();
        let mut place = START;
        assert_eq!(read(&ring, &writer.wrote, &mut place, true), (Read::Lost(1), Vec::new()));
        let short = Ring::new(rustix::fs::memfd_create("short", MemfdFlags::CLOEXEC).unwrap(), 4096);
        let mut place = START;
        assert_eq!(read(&short, &writer.wrote, &mut place, true), (Read::Lost(1), Vec::new()));
    }
}
