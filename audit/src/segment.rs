//! A segment, piece by piece, and the one that is written to.

use core::ops::Range;
use std::fs::File;
use std::io;
use std::time::SystemTime;

use crate::error::AuditError;
use crate::event::{Event, nanoseconds};
use crate::files::{Directory, segment_name};
use crate::format::{
    Body, Class, HEADER, Header, Kind, Label, Link, NoRecord, RECORD_MAGIC, Ratchet, Record,
};
use crate::head::Head;
use crate::keys::Keys;
use crate::secret::{Cipher, Hash, Secret, TAG, hash};

/// What a header's signature is for.
pub(crate) const HEADER_PURPOSE: &str = "stockade audit segment header";

/// What stands at one place of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// A record of the right form.
    Record(usize, Record<'a>),
    /// Bytes between records that are none.
    Odd(Range<usize>),
    /// Bytes behind the last record.
    Tail(Range<usize>, NoRecord),
}

/// All pieces of a segment behind its header, in order; every byte is in one of them.
#[derive(Debug)]
pub(crate) struct Pieces<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Pieces<'a> {
    /// Of a whole segment.
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, at: HEADER.min(bytes.len()) }
    }

    fn next_record(&self) -> Option<usize> {
        let mut from = self.at + 1;
        while let Some(rest) = self.bytes.get(from..) {
            from += rest.windows(RECORD_MAGIC.len()).position(|window| window == RECORD_MAGIC)?;
            if Record::decode(&self.bytes[from..]).is_ok() {
                return Some(from);
            }
            from += 1;
        }
        None
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let at = self.at;
        if at == self.bytes.len() {
            return None;
        }
        match Record::decode(&self.bytes[at..]) {
            Ok(record) => {
                self.at += record.length;
                Some(Piece::Record(at, record))
            }
            Err(why) => {
                let next = self.next_record();
                self.at = next.unwrap_or(self.bytes.len());
                Some(if next.is_some() { Piece::Odd(at..self.at) } else { Piece::Tail(at..self.at, why) })
            }
        }
    }
}

/// Where a new segment goes on.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) number: u64,
    /// Its first record's number.
    pub(crate) first: u64,
    /// What the last record before it is known by.
    pub(crate) before: Hash,
    /// Bytes and hash of what a write that was cut short has left there.
    pub(crate) tail: (u64, Hash),
    /// Days that each class is kept.
    pub(crate) days: [u16; 3],
    /// When it's begun, in nanoseconds since 1970, as the clock says.
    pub(crate) time: u64,
    /// The latest time that anything before it has.
    pub(crate) newest: u64,
}

/// The segment that is written to.
#[derive(Debug)]
pub(crate) struct Writing {
    pub(crate) file: File,
    pub(crate) number: u64,
    /// Its length.
    pub(crate) bytes: u64,
    /// When it was begun.
    pub(crate) time: u64,
    pub(crate) line: Line,
    /// The secret of the next segment's MACs: this one's is gone.
    pub(crate) behind: Secret,
}

impl Writing {
    /// Begins a segment with these events, durably, all of it or nothing, and forgets the secret that its MACs begin with.
    pub(crate) fn begin(
        directory: &Directory,
        keys: &Keys,
        macs: &Secret,
        start: &Start,
        events: &[Event],
    ) -> Result<Self, AuditError> {
        let name = segment_name(start.number);
        let path = directory.join(&name);
        let failed = || AuditError::io("seal", &path);
        let Some((id, wrapping)) = keys.newest() else {
            return Err(AuditError::damaged(&path, "no key for it"));
        };
        let data = Secret::random().map_err(failed())?;
        let header = header(keys, macs, start, (id, wrapping), &data).map_err(failed())?;
        let mut bytes = header.encode();
        let mut line = Line {
            next: start.first,
            link: header.link(),
            cipher: data.cipher(),
            ratchet: Ratchet::of(macs, start.first),
            newest: header.since(),
        };
        for event in events {
            line.event(event.class(), header.time, event.encode(), &mut bytes).map_err(failed())?;
        }
        let file = directory.replace(&name, &bytes, true)?;
        let behind = Ratchet::behind(macs);
        keys.write_macs(directory, start.number + 1, &behind)?;
        Ok(Self { file, number: start.number, bytes: bytes.len() as u64, time: header.time, line, behind })
    }

    /// Where it stands, signed.
    pub(crate) fn head(&self, keys: &Keys) -> Head {
        keys.signing.head(Head {
            log: keys.log,
            segment: self.number,
            sequence: self.line.next - 1,
            time: nanoseconds(SystemTime::now()),
            chain: self.line.link.digest(),
            mac: self.line.ratchet.commitment(),
            public: [0; 32],
            signature: [0; 64],
        })
    }
}

fn header(
    keys: &Keys,
    macs: &Secret,
    start: &Start,
    (id, wrapping): (&[u8; 16], &Secret),
    data: &Secret,
) -> io::Result<Header> {
    let mut header = Header {
        log: keys.log,
        number: start.number,
        first: start.first,
        time: start.time,
        before: start.before,
        tail: start.tail.0,
        tail_hash: start.tail.1,
        days: start.days,
        newest: start.newest,
        wrapping: *id,
        wrapped: [0; 60],
        public: keys.signing.public(),
        chain: [0; 32],
        mac: [0; 32],
        signature: [0; 64],
    };
    let wrapped = wrapping.wrap(data, &header.bound())?;
    header.wrapped.copy_from_slice(&wrapped);
    header.chain = header.own_chain();
    header.mac = Ratchet::header(macs, &header.chain);
    header.signature = keys.signing.sign(HEADER_PURPOSE, &header.chain);
    Ok(header)
}

/// What each record of a segment is linked to, and sealed and marked with.
#[derive(Debug)]
pub(crate) struct Line {
    /// The number of the next record.
    pub(crate) next: u64,
    pub(crate) link: Link,
    /// The latest time that any record has by now.
    pub(crate) newest: u64,
    cipher: Cipher,
    ratchet: Ratchet,
}

impl Line {
    /// Encodes an event behind the others; its number.
    pub(crate) fn event(
        &mut self,
        class: Class,
        time: u64,
        mut text: Vec<u8>,
        out: &mut Vec<u8>,
    ) -> io::Result<u64> {
        let body = u32::try_from(text.len() + TAG).map_err(io::Error::other)?;
        let label = Label { kind: Kind::Event, class, sequence: self.next, time, body };
        let tag = self.cipher.seal(&label.nonce(), &label.covered(), &mut text)?;
        text.extend(tag);
        Ok(self.link(label, &text, out))
    }

    /// Encodes the segment's end.
    pub(crate) fn seal(&mut self, head: &Head, out: &mut Vec<u8>) -> u64 {
        let text = head.to_string();
        // A head's line has some 600 bytes.
        let body = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let (class, sequence) = (Class::Security, self.next);
        let label = Label { kind: Kind::Seal, class, sequence, time: head.time, body };
        self.link(label, text.as_bytes(), out)
    }

    fn link(&mut self, label: Label, body: &[u8], out: &mut Vec<u8>) -> u64 {
        let chain = label.chain(&self.link, &hash(&[body]));
        self.link = Link { chain, mac: self.ratchet.mac(&chain) };
        Record { label, body: Body::Whole(body), chain, mac: self.link.mac, length: 0 }.encode(out);
        self.next += 1;
        self.newest = self.newest.max(label.time);
        label.sequence
    }
}
