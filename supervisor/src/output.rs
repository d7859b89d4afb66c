//! Reads a run's output from its ring: a memfd that the relay writes.
//!
//! Three parties move: the relay writes ahead, this reader follows, and what has reached every follower's socket
//! is acknowledged so that the relay may write over it. What isn't acknowledged can't change under the reader.
//! What is (a run that nobody followed for a while, and then somebody attaches) may be written over at any time,
//! the oldest first; so a batch is valid if the header of its first record is still there after it was read.
//!
//! Nothing here trusts the ring: every header is checked, and a record that isn't what it should be is output
//! that was lost, never a panic and never another run's.

use std::io;
use std::os::fd::OwnedFd;

use stockade_protocol::bounds::MAX_OUTPUT_CHUNK;
use stockade_protocol::client::Stream;
use stockade_protocol::ring::{FIRST_SEQ, HEADER, Record, pieces};

/// The most bytes of one batch: a few of the largest records.
pub(crate) const BATCH: usize = 256 * 1024;

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

    /// Hands out the records after a place, at most [`BATCH`] bytes of them. `end_seq`: the first number not to be
    /// handed out; `settled`: no report of the relay will follow; `acknowledged`: what may be written over.
    ///
    /// # Errors
    /// Those of pread(2).
    pub(crate) fn read(
        &self,
        wrote: &Wrote,
        place: &mut Place,
        (end_seq, settled, acknowledged): (u64, bool, u64),
        scratch: &mut Vec<u8>,
        mut hand_out: impl FnMut(u64, Stream, &[u8]),
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
            None => self.look_for(place.seq, wrote, scratch)?,
        };
        if let Some(offset) = found {
            let mut at = Place { seq: place.seq, offset: Some(offset) };
            if self.batch(wrote, &mut at, end_seq, acknowledged, scratch, &mut hand_out)? {
                *place = at;
                return Ok(Read::Records);
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

    /// One batch. Whether it held what it should.
    fn batch(
        &self,
        wrote: &Wrote,
        place: &mut Place,
        end_seq: u64,
        acknowledged: u64,
        scratch: &mut Vec<u8>,
        hand_out: &mut impl FnMut(u64, Stream, &[u8]),
    ) -> io::Result<bool> {
        let Some(offset) = place.offset else { return Ok(false) };
        let available = usize::try_from(wrote.head.saturating_sub(offset)).unwrap_or(usize::MAX);
        let bytes = part(scratch, available);
        if !self.read_at(offset, bytes)? {
            return Ok(false);
        }
        let first = bytes.first_chunk::<HEADER>().copied();
        let valid = first.and_then(|header| Record::decode(&header)).is_some_and(|record| {
            record.seq == place.seq && fits(&record) && HEADER + record.length as usize <= available
        });
        if !valid || (offset < acknowledged && !self.is_still_there(offset, first)?) {
            return Ok(false);
        }
        let mut rest = &*bytes;
        let mut at = offset;
        while place.seq < end_seq
            && let Some((record, payload)) = whole_record(rest)
            && record.seq == place.seq
        {
            hand_out(record.seq, record.stream, payload);
            place.seq += 1;
            at += (HEADER + payload.len()) as u64;
            rest = &rest[HEADER + payload.len()..];
        }
        place.offset = Some(at);
        Ok(true)
    }

    fn is_still_there(&self, offset: u64, first: Option<[u8; HEADER]>) -> io::Result<bool> {
        let mut again = [0; HEADER];
        Ok(self.read_at(offset, &mut again)? && Some(again) == first)
    }

    /// Walks the headers from the oldest record to the one with a number.
    fn look_for(&self, seq: u64, wrote: &Wrote, scratch: &mut Vec<u8>) -> io::Result<Option<u64>> {
        let (mut at, mut at_seq) = (wrote.oldest_offset, wrote.oldest_seq);
        while at_seq < seq && at < wrote.head {
            let available = usize::try_from(wrote.head - at).unwrap_or(usize::MAX);
            let bytes = part(scratch, available);
            if !self.read_at(at, bytes)? {
                return Ok(None);
            }
            let before = at;
            let mut rest = &*bytes;
            while at_seq < seq
                && let Some((record, payload)) = whole_record(rest)
                && record.seq == at_seq
            {
                at_seq += 1;
                at += (HEADER + payload.len()) as u64;
                rest = &rest[HEADER + payload.len()..];
            }
            if at == before {
                return Ok(None);
            }
        }
        Ok((at_seq == seq).then_some(at))
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

/// The part of the scratch buffer that a read of so many bytes may fill. It is zeroed once, not every time.
fn part(scratch: &mut Vec<u8>, available: usize) -> &mut [u8] {
    if scratch.is_empty() {
        scratch.resize(BATCH, 0);
    }
    let length = available.min(scratch.len());
    &mut scratch[..length]
}

fn fits(record: &Record) -> bool {
    record.length as usize <= MAX_OUTPUT_CHUNK
}

/// The record at the start of a buffer, if all of it is there and it is one.
fn whole_record(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let record = Record::decode(bytes.first_chunk::<HEADER>()?).filter(fits)?;
    let payload = bytes.get(HEADER..HEADER + record.length as usize)?;
    Some((record, payload))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::MemfdFlags;

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

    fn read(ring: &Ring, wrote: &Wrote, place: &mut Place, settled: bool) -> (Read, Records) {
        let mut records = Vec::new();
        let read = ring
            .read(wrote, place, (u64::MAX, settled, u64::MAX), &mut Vec::new(), |seq, _, payload| {
                records.push((seq, payload.to_vec()));
            })
            .unwrap();
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
