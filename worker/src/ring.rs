//! The writing side of a run's output ring (`stockade_protocol::ring`): a memfd that only the relay writes.
//!
//! ```text
//!      oldest_offset ≤ … ≤ head            records that are still whole
//!      acknowledged  ≤ … ≤ head            bytes that must not be written over
//!      head - acknowledged ≤ capacity      (an acknowledgement may run ahead of head: a standing permission)
//! ```
//!
//! Offsets only grow. A record is written before `head` moves past it, so whoever is told a `head` finds whole
//! records below it. What the writer knows is in this process; a reader that comes later needs no more than the
//! oldest record's offset.
//!
//! Whatever is written over is written over from the oldest byte on, a record's header first: a reader that finds the
//! header of a record as it was has read that record, and all behind it, as they were.
//!
//! Output in bulk goes from its pipe straight into the ring ([`RingWriter::append_from`]): the ring is mapped for that,
//! once. Whoever says little never has a mapping.
//!
//! It must never write over a byte that wasn't acknowledged, and never leave `oldest_offset` inside a record.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use stockade_protocol::bounds::MAX_OUTPUT_CHUNK;
use stockade_protocol::client::Stream;
use stockade_protocol::ring::{FIRST_SEQ, HEADER, Record, pieces};

use crate::sys::Mapping;

/// The smallest ring, in bytes.
pub const MIN_RING: u64 = 4096;
/// The largest ring, in bytes.
pub const MAX_RING: u64 = 1024 * 1024 * 1024;

/// The newest records whose lengths the writer knows without a look into the ring: more than the largest records fill a
/// ring of the usual size with.
const REMEMBERED: usize = 32;

/// A buffer for one record: room for its header, and the largest payload behind it.
#[derive(Debug)]
pub struct RecordBuffer {
    bytes: Box<[u8]>,
}

impl Default for RecordBuffer {
    fn default() -> Self {
        Self { bytes: vec![0; HEADER + MAX_OUTPUT_CHUNK].into_boxed_slice() }
    }
}

impl RecordBuffer {
    /// Where the payload goes: [`MAX_OUTPUT_CHUNK`] bytes.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[HEADER..]
    }
}

/// Where a ring stands. The fields of `FromRelay::Wrote`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Offset after the last record.
    pub head: u64,
    /// Sequence number the next record will have.
    pub next_seq: u64,
    /// Offset of the oldest whole record.
    pub oldest_offset: u64,
    /// Its sequence number.
    pub oldest_seq: u64,
}

/// One run's ring, as its only writer sees it.
#[derive(Debug)]
pub struct RingWriter {
    memfd: OwnedFd,
    capacity: u64,
    acknowledged: u64,
    position: Position,
    /// Payload lengths of the newest records, each at its sequence number modulo [`REMEMBERED`].
    lengths: [u32; REMEMBERED],
    mapping: Option<Mapping>,
}

impl RingWriter {
    /// A fresh ring of `capacity` bytes in `memfd`.
    ///
    /// # Errors
    /// `InvalidInput` for a capacity outside [`MIN_RING`]..=[`MAX_RING`].
    pub fn new(memfd: OwnedFd, capacity: u64) -> io::Result<Self> {
        if !(MIN_RING..=MAX_RING).contains(&capacity) {
            return Err(io::Error::from(rustix::io::Errno::INVAL));
        }
        let position = Position { head: 0, next_seq: FIRST_SEQ, oldest_offset: 0, oldest_seq: FIRST_SEQ };
        Ok(Self { memfd, capacity, acknowledged: 0, position, lengths: [0; REMEMBERED], mapping: None })
    }

    /// Where it stands.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Its size in bytes.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// What may be written over, as an offset.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Everything below `offset` may be written over. Never goes back; may be beyond `head`.
    pub fn acknowledge(&mut self, offset: u64) {
        self.acknowledged = self.acknowledged.max(offset);
    }

    /// Bytes of payload the next record may have; 0 also when not even a header fits.
    #[must_use]
    pub fn room(&self) -> usize {
        self.free().saturating_sub(HEADER)
    }

    fn free(&self) -> usize {
        let held = self.position.head.saturating_sub(self.acknowledged);
        usize::try_from(self.capacity.saturating_sub(held)).unwrap_or(usize::MAX)
    }

    /// Writes the first `length` bytes of the buffer's payload as one record.
    ///
    /// # Errors
    /// `StorageFull` for more than [`Self::room`]; those of pwrite(2) (`ENOSPC`, `ENOMEM`: no memory for the ring).
    /// The ring is as it was before, but for the oldest records, which may be gone.
    pub fn append(&mut self, stream: Stream, buffer: &mut RecordBuffer, length: usize) -> io::Result<()> {
        let record = self.begin(stream, length)?;
        let whole = HEADER + length;
        buffer.bytes[..HEADER].copy_from_slice(&record.encode());
        let [(first_at, first), (second_at, second)] = pieces(self.position.head, whole, self.capacity);
        write_all(&self.memfd, &buffer.bytes[..first], first_at)?;
        write_all(&self.memfd, &buffer.bytes[first..first + second], second_at)?;
        self.end(&record);
        Ok(())
    }

    /// Maps the ring, if it isn't mapped yet, and says whether it is.
    pub fn map(&mut self) -> bool {
        if self.mapping.is_none()
            && let Ok(capacity) = usize::try_from(self.capacity)
        {
            self.mapping = Mapping::new(self.memfd.as_fd(), capacity).ok();
        }
        self.mapping.is_some()
    }

    /// Reads up to `length` bytes from a pipe that has so many, straight into one record. Answers how many came; 0: no
    /// record was made.
    ///
    /// # Errors
    /// `StorageFull` for more than [`Self::room`], or without [`Self::map`]; those of pwrite(2); `EFAULT`: no memory
    /// for the ring. What is left of the ring is as with [`Self::append`].
    pub fn append_from(&mut self, stream: Stream, pipe: BorrowedFd<'_>, length: usize) -> io::Result<usize> {
        let mut record = self.begin(stream, length)?;
        self.write_header(&record)?;
        let behind = self.position.head + HEADER as u64;
        let parts = pieces(behind, length, self.capacity)
            .map(|(at, part)| (usize::try_from(at).unwrap_or(usize::MAX), part));
        let mapping = self.mapping.as_ref().ok_or(io::ErrorKind::StorageFull)?;
        let read = match mapping.read(pipe, parts) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            other => other?,
        };
        if read == 0 {
            return Ok(0);
        }
        if read < length {
            record.length = u32::try_from(read).unwrap_or(record.length);
            self.write_header(&record)?;
        }
        self.end(&record);
        Ok(read)
    }

    /// Makes room for a record.
    fn begin(&mut self, stream: Stream, length: usize) -> io::Result<Record> {
        let whole = HEADER + length;
        if whole > self.free() || length > MAX_OUTPUT_CHUNK {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.drop_oldest(whole as u64)?;
        let length = u32::try_from(length).map_err(|_| io::ErrorKind::StorageFull)?;
        Ok(Record { length, stream, seq: self.position.next_seq })
    }

    fn write_header(&self, record: &Record) -> io::Result<()> {
        let header = record.encode();
        let [(first_at, first), (second_at, second)] = pieces(self.position.head, HEADER, self.capacity);
        write_all(&self.memfd, &header[..first], first_at)?;
        write_all(&self.memfd, &header[first..first + second], second_at)
    }

    /// The record is whole.
    fn end(&mut self, record: &Record) {
        self.lengths[remembered_at(record.seq)] = record.length;
        self.position.head += HEADER as u64 + u64::from(record.length);
        self.position.next_seq += 1;
    }

    /// Lets go of the oldest records until `whole` more bytes fit.
    fn drop_oldest(&mut self, whole: u64) -> io::Result<()> {
        while self.position.head + whole - self.position.oldest_offset > self.capacity {
            self.position.oldest_offset += HEADER as u64 + u64::from(self.oldest_length()?);
            self.position.oldest_seq += 1;
        }
        Ok(())
    }

    fn oldest_length(&self) -> io::Result<u32> {
        let Position { next_seq, oldest_offset, oldest_seq, .. } = self.position;
        if next_seq - oldest_seq <= REMEMBERED as u64 {
            return Ok(self.lengths[remembered_at(oldest_seq)]);
        }
        let mut header = [0; HEADER];
        let [(first_at, first), (second_at, second)] = pieces(oldest_offset, HEADER, self.capacity);
        read_all(&self.memfd, &mut header[..first], first_at)?;
        read_all(&self.memfd, &mut header[first..first + second], second_at)?;
        Record::decode(&header)
            .filter(|record| record.seq == oldest_seq)
            .map(|record| record.length)
            .ok_or_else(|| io::Error::from(rustix::io::Errno::BADMSG))
    }
}

/// Where a record's length is remembered.
fn remembered_at(seq: u64) -> usize {
    usize::try_from(seq % REMEMBERED as u64).unwrap_or_default()
}

fn write_all(memfd: &OwnedFd, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(memfd, bytes, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                at += written as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn read_all(memfd: &OwnedFd, mut bytes: &mut [u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pread(memfd, &mut *bytes, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                bytes = &mut bytes[read..];
                at += read as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::MemfdFlags;

    fn ring(capacity: u64) -> RingWriter {
        let memfd = rustix::fs::memfd_create("ring", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&memfd, capacity).unwrap();
        RingWriter::new(memfd, capacity).unwrap()
    }

    /// Reads a byte range as a reader would, from the protocol's description alone.
    fn bytes_at(ring: &RingWriter, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        for (index, byte) in bytes.iter_mut().enumerate() {
            let at = (offset + index as u64) % ring.capacity;
            read_all(&ring.memfd, core::slice::from_mut(byte), at).unwrap();
        }
        bytes
    }

    fn records(ring: &RingWriter) -> Vec<(u64, Stream, Vec<u8>)> {
        let mut found = Vec::new();
        let mut offset = ring.position.oldest_offset;
        while offset < ring.position.head {
            let header: [u8; HEADER] = bytes_at(ring, offset, HEADER).try_into().unwrap();
            let record = Record::decode(&header).unwrap();
            let payload = bytes_at(ring, offset + HEADER as u64, record.length as usize);
            offset += (HEADER + payload.len()) as u64;
            found.push((record.seq, record.stream, payload));
        }
        assert_eq!(offset, ring.position.head, "the last record ends at head");
        found
    }

    fn put(ring: &mut RingWriter, stream: Stream, payload: &[u8]) -> io::Result<()> {
        let mut buffer = RecordBuffer::default();
        buffer.payload_mut()[..payload.len()].copy_from_slice(payload);
        ring.append(stream, &mut buffer, payload.len())
    }

    #[test]
    fn records_over_the_wrap_read_back_whole() {
        let mut ring = ring(MIN_RING);
        let mut model: Vec<(u64, Stream, Vec<u8>)> = Vec::new();
        let mut state: u32 = 7;
        for round in 0..2000_u64 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let length = (state >> 16) as usize % 700;
            let stream = if state & 0x8000 == 0 { Stream::Stdout } else { Stream::Stderr };
            let payload: Vec<u8> = (0..length).map(|index| ((index as u64 + round) % 251) as u8).collect();
            if length > ring.room() {
                put(&mut ring, stream, &payload).unwrap_err();
                ring.acknowledge(ring.position.head);
            }
            put(&mut ring, stream, &payload).unwrap();
            model.push((FIRST_SEQ + round, stream, payload));
            let kept = records(&ring);
            assert_eq!(kept, model[model.len() - kept.len()..]);
            assert_eq!(kept[0].0, ring.position.oldest_seq);
        }
        assert!(ring.position.head > 100 * MIN_RING);
    }

    /// A pipe that holds so many bytes of a pattern.
    fn full_pipe(bytes: &[u8]) -> (OwnedFd, OwnedFd) {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        assert_eq!(rustix::io::write(&writer, bytes).unwrap(), bytes.len());
        (reader, writer)
    }

    #[test]
    fn bulk_goes_into_records_around_the_wrap_like_anything_else() {
        let mut ring = ring(10_000);
        assert!(ring.map());
        ring.acknowledge(u64::MAX);
        for round in 0..50_u8 {
            let payload: Vec<u8> = (0..3000_u32).map(|at| at.to_le_bytes()[0].wrapping_add(round)).collect();
            let (reader, _writer) = full_pipe(&payload);
            assert_eq!(ring.append_from(Stream::Stderr, reader.as_fd(), 3000).unwrap(), 3000);
            put(&mut ring, Stream::Stdout, &[round; 100]).unwrap();
            let kept = records(&ring);
            let [.., bulk, small] = kept.as_slice() else { panic!("{} records", kept.len()) };
            assert!(bulk.1 == Stream::Stderr && bulk.2 == payload);
            assert!(small.1 == Stream::Stdout && small.2 == [round; 100]);
            assert_eq!(kept[0].0, ring.position.oldest_seq);
        }
    }

    #[test]
    fn bulk_that_comes_short_makes_a_record_of_what_came_and_none_of_nothing() {
        let mut ring = ring(10_000);
        assert!(ring.map());
        let (reader, _writer) = full_pipe(&[7; 50]);
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        assert_eq!(ring.append_from(Stream::Stdout, reader.as_fd(), 3000).unwrap(), 50);
        assert_eq!(ring.append_from(Stream::Stdout, reader.as_fd(), 3000).unwrap(), 0);
        assert_eq!(records(&ring), [(FIRST_SEQ, Stream::Stdout, vec![7; 50])]);
        assert!(ring.append_from(Stream::Stdout, reader.as_fd(), 10_000).is_err(), "no room");
    }

    /// Else a reader could take a payload that was written over for the one that its header announces.
    #[test]
    fn a_header_is_written_over_before_its_payload() {
        let mut ring = ring(MIN_RING);
        assert!(ring.map());
        put(&mut ring, Stream::Stdout, &vec![1; usize::try_from(MIN_RING).unwrap() - HEADER]).unwrap();
        ring.acknowledge(u64::MAX);
        let before = bytes_at(&ring, 0, HEADER + 1000);
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        assert_eq!(ring.append_from(Stream::Stdout, reader.as_fd(), 1000).unwrap(), 0);
        let after = bytes_at(&ring, 0, HEADER + 1000);
        assert_ne!(before[..HEADER], after[..HEADER]);
        assert_eq!(before[HEADER..], after[HEADER..]);
    }

    #[test]
    fn a_ring_that_was_cut_short_is_an_error() {
        let mut ring = ring(8 * MIN_RING);
        assert!(ring.map());
        put(&mut ring, Stream::Stdout, &[1; 1000]).unwrap();
        rustix::fs::ftruncate(&ring.memfd, 0).unwrap();
        let (reader, _writer) = full_pipe(&[7; 9000]);
        ring.append_from(Stream::Stdout, reader.as_fd(), 9000).unwrap_err();
    }

    #[test]
    fn nothing_unacknowledged_is_written_over() {
        let mut ring = ring(MIN_RING);
        put(&mut ring, Stream::Stdout, &[1; 1000]).unwrap();
        put(&mut ring, Stream::Stdout, &[2; 1000]).unwrap();
        ring.acknowledge(1016);
        put(&mut ring, Stream::Stdout, &[3; 2000]).unwrap();
        assert_eq!(ring.room(), 4096 - 1016 - 2016 - HEADER);
        put(&mut ring, Stream::Stdout, &[4; 1048]).unwrap();
        assert_eq!(ring.room(), 0);
        assert_eq!(put(&mut ring, Stream::Stdout, b"").unwrap_err().kind(), io::ErrorKind::StorageFull);
        let kept: Vec<u8> = records(&ring).iter().map(|record| record.2[0]).collect();
        assert_eq!(kept, [2, 3, 4]);
    }

    #[test]
    fn an_acknowledgement_ahead_of_head_keeps_the_tail() {
        let mut ring = ring(MIN_RING);
        ring.acknowledge(u64::MAX);
        for round in 0..100_u8 {
            put(&mut ring, Stream::Stdout, &[round; 500]).unwrap();
        }
        let kept = records(&ring);
        assert_eq!(kept.len(), 7);
        assert_eq!(kept[6].2, [99; 500]);
    }

    #[test]
    fn sizes_outside_the_bounds_are_refused() {
        for capacity in [0, MIN_RING - 1, MAX_RING + 1] {
            let memfd = rustix::fs::memfd_create("ring", MemfdFlags::CLOEXEC).unwrap();
            RingWriter::new(memfd, capacity).unwrap_err();
        }
    }
}
