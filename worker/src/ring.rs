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
//! It must never write over a byte that wasn't acknowledged, and never leave `oldest_offset` inside a record.

use std::io;
use std::os::fd::OwnedFd;

use stockade_protocol::bounds::MAX_OUTPUT_CHUNK;
use stockade_protocol::client::Stream;
use stockade_protocol::ring::{FIRST_SEQ, HEADER, Record, pieces};

/// The smallest ring, in bytes.
pub const MIN_RING: u64 = 4096;
/// The largest ring, in bytes.
pub const MAX_RING: u64 = 1024 * 1024 * 1024;

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
        Ok(Self { memfd, capacity, acknowledged: 0, position })
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
        let whole = HEADER + length;
        if whole > self.free() || length > MAX_OUTPUT_CHUNK {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let record = Record {
            length: u32::try_from(length).map_err(|_| io::ErrorKind::StorageFull)?,
            stream,
            seq: self.position.next_seq,
        };
        self.drop_oldest(whole as u64)?;
        buffer.bytes[..HEADER].copy_from_slice(&record.encode());
        let [(first_at, first), (second_at, second)] = pieces(self.position.head, whole, self.capacity);
        write_all(&self.memfd, &buffer.bytes[..first], first_at)?;
        write_all(&self.memfd, &buffer.bytes[first..first + second], second_at)?;
        self.position.head += whole as u64;
        self.position.next_seq += 1;
        Ok(())
    }

    /// Lets go of the oldest records until `whole` more bytes fit.
    fn drop_oldest(&mut self, whole: u64) -> io::Result<()> {
        while self.position.head + whole - self.position.oldest_offset > self.capacity {
            let mut header = [0; HEADER];
            let [(first_at, first), (second_at, second)] =
                pieces(self.position.oldest_offset, HEADER, self.capacity);
            read_all(&self.memfd, &mut header[..first], first_at)?;
            read_all(&self.memfd, &mut header[first..first + second], second_at)?;
            let record = Record::decode(&header)
                .filter(|record| record.seq == self.position.oldest_seq)
                .ok_or_else(|| io::Error::from(rustix::io::Errno::BADMSG))?;
            self.position.oldest_offset += HEADER as u64 + u64::from(record.length);
            self.position.oldest_seq += 1;
        }
        Ok(())
    }
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
