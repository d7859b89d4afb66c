//! The bytes of a segment: its header and its records. `docs/audit.md` describes them; a test decodes the example there.
//!
//! ```text
//! segment = header record*
//! record  = fixed part | body (sealed; once erased: its hash) | chain | MAC
//! chain   = SHA-256("record" | chain before | MAC before | what the fixed part says | SHA-256(body))
//! ```
//!
//! All numbers are little-endian. The chain goes over a hash of the body and not over the body, so that a body can be erased when
//! its time has come without the chain having a gap.

use crate::secret::{Hash, KEY, NONCE, Secret, TAG, WRAPPED, hash};

/// The first bytes of a segment.
pub(crate) const MAGIC: [u8; 8] = *b"STKAUDIT";
/// The version of the format, of headers and of records.
pub(crate) const VERSION: u8 = 1;
/// Bytes of a header, as it says itself.
const HEADER_LENGTH: u16 = 380;
/// The same.
pub(crate) const HEADER: usize = HEADER_LENGTH as usize;
/// Bytes of a header that its chain covers; chain, MAC and signature follow.
const COVERED: usize = HEADER - 2 * KEY - SIGNATURE;
/// Bytes of a header that the wrapped key is bound to.
const BOUND: usize = 160;
/// Bytes of a signature.
pub(crate) const SIGNATURE: usize = 64;

/// The first bytes of a record.
pub(crate) const RECORD_MAGIC: [u8; 4] = [0xa5, b'S', b'A', b'R'];
/// Bytes of a record before its body.
pub(crate) const FIXED: usize = 32;
/// Bytes of a record behind its body.
pub(crate) const BEHIND: usize = 2 * KEY;
/// The largest text of a record, in bytes, before it's sealed.
pub const LARGEST_TEXT: usize = 64 * 1024;
/// The largest body.
pub(crate) const LARGEST_BODY: usize = LARGEST_TEXT + TAG;
/// The largest segment that is read, in bytes.
pub(crate) const LARGEST_SEGMENT: u64 = 512 * 1024 * 1024;

/// What a record is of: how long it's kept goes by it, and it stands outside of what is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// What somebody who looks for an attack wants to see; kept longest.
    Security,
    /// Who asked for what, what was decided and what came of it.
    Access,
    /// How the service does.
    Operation,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Security, Self::Access, Self::Operation];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Security => "security",
            Self::Access => "access",
            Self::Operation => "operation",
        }
    }

    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Security => 1,
            Self::Access => 2,
            Self::Operation => 3,
        }
    }

    fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.number() == number)
    }
}

/// What a record's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A sealed event.
    Event,
    /// A signed head, in the clear: nothing follows it in its segment.
    Seal,
}

/// The start of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// Which log: random, the same in each segment of it.
    pub(crate) log: [u8; 16],
    /// Which segment, from 1.
    pub(crate) number: u64,
    /// The number of its first record; records are counted from 1 over all segments.
    pub(crate) first: u64,
    /// When it was begun, in nanoseconds since 1970.
    pub(crate) time: u64,
    /// What the last record of the segment before is known by ([`Link::digest`]); zeros in the first.
    pub(crate) before: Hash,
    /// Bytes behind the last whole record of the segment before: those of a write that was cut short.
    pub(crate) tail: u64,
    /// SHA-256 of those; zeros where there are none.
    pub(crate) tail_hash: Hash,
    /// Days that each class is kept: security, access, operation.
    pub(crate) days: [u16; 3],
    /// The latest time that anything before it has, in nanoseconds since 1970; 0 in the first.
    pub(crate) newest: u64,
    /// The wrapping key's name in `keys`.
    pub(crate) wrapping: [u8; 16],
    /// The key of its records: a nonce and what is sealed.
    pub(crate) wrapped: [u8; NONCE + WRAPPED],
    /// Whose signatures stand in it.
    pub(crate) public: [u8; KEY],
    /// The chain's start in it.
    pub(crate) chain: Hash,
    /// Of `chain`, with the segment's first MAC key.
    pub(crate) mac: Hash,
    /// Of `chain`, by `public`.
    pub(crate) signature: [u8; SIGNATURE],
}

impl Header {
    /// What the wrapped key is bound to, so that it can't be moved to another header.
    pub(crate) fn bound(&self) -> Vec<u8> {
        let mut bytes = self.covered();
        bytes.truncate(BOUND);
        bytes
    }

    /// What nothing before it is younger than, and nothing in it older: its own time, unless the clock had gone back by then.
    pub(crate) fn since(&self) -> u64 {
        self.time.max(self.newest)
    }

    fn covered(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER);
        out.extend(MAGIC);
        out.extend(u16::from(VERSION).to_le_bytes());
        out.extend(HEADER_LENGTH.to_le_bytes());
        out.extend([0; 4]);
        out.extend(self.log);
        out.extend(self.number.to_le_bytes());
        out.extend(self.first.to_le_bytes());
        out.extend(self.time.to_le_bytes());
        out.extend(self.before);
        out.extend(self.tail.to_le_bytes());
        out.extend(self.tail_hash);
        self.days.iter().for_each(|days| out.extend(days.to_le_bytes()));
        out.extend(self.newest.to_le_bytes());
        out.extend([0; 2]);
        out.extend(self.wrapping);
        debug_assert_eq!(out.len(), BOUND);
        out.extend(self.wrapped);
        out.extend(self.public);
        debug_assert_eq!(out.len(), COVERED);
        out
    }

    /// What the chain in it has to be.
    pub(crate) fn own_chain(&self) -> Hash {
        hash(&[b"stockade audit segment", &self.covered()])
    }

    pub(crate) fn link(&self) -> Link {
        Link { chain: self.chain, mac: self.mac }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = self.covered();
        out.extend(self.chain);
        out.extend(self.mac);
        out.extend(self.signature);
        out
    }

    /// Reads one; what is wrong otherwise. Whether it's true is another question.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut at = Cursor(bytes.get(..HEADER).ok_or("it's shorter than a header")?);
        if at.take()? != MAGIC {
            return Err("it doesn't begin as a segment does");
        }
        if u16::from_le_bytes(at.take()?) != u16::from(VERSION) {
            return Err("it's of another version");
        }
        if u16::from_le_bytes(at.take()?) != HEADER_LENGTH || at.take::<4>()? != [0; 4] {
            return Err("its header is of another form");
        }
        let (log, number, first) = (at.take()?, at.number()?, at.number()?);
        let (time, before, tail, tail_hash) = (at.number()?, at.take()?, at.number()?, at.take()?);
        let mut days = [0; 3];
        for one in &mut days {
            *one = u16::from_le_bytes(at.take()?);
        }
        let newest = at.number()?;
        if at.take::<2>()? != [0; 2] {
            return Err("its header is of another form");
        }
        let (wrapping, wrapped, public) = (at.take()?, at.take()?, at.take()?);
        let (chain, mac, signature) = (at.take()?, at.take()?, at.take()?);
        Ok(Self {
            log,
            number,
            first,
            time,
            before,
            tail,
            tail_hash,
            days,
            newest,
            wrapping,
            wrapped,
            public,
            chain,
            mac,
            signature,
        })
    }
}

/// Bytes that are read from the front.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn skip(&mut self, many: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(many).ok_or("it's too short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        self.skip(N)?.try_into().map_err(|_| "it's too short")
    }

    fn number(&mut self) -> Result<u64, &'static str> {
        self.take().map(u64::from_le_bytes)
    }
}

/// What a record says outside of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) kind: Kind,
    pub(crate) class: Class,
    /// Its number in the log.
    pub(crate) sequence: u64,
    /// When, in nanoseconds since 1970.
    pub(crate) time: u64,
    /// Bytes of its body as it was written.
    pub(crate) body: u32,
}

impl Label {
    /// What the chain and the sealing cover.
    pub(crate) fn covered(&self) -> [u8; 23] {
        let mut out = [0; 23];
        let kind = match self.kind {
            Kind::Event => 1,
            Kind::Seal => 2,
        };
        out[..3].copy_from_slice(&[VERSION, kind, self.class.number()]);
        out[3..7].copy_from_slice(&self.body.to_le_bytes());
        out[7..15].copy_from_slice(&self.sequence.to_le_bytes());
        out[15..].copy_from_slice(&self.time.to_le_bytes());
        out
    }

    /// A nonce: within one segment, whose key no other has, no number comes twice.
    pub(crate) fn nonce(&self) -> [u8; NONCE] {
        let mut nonce = [0; NONCE];
        nonce[..8].copy_from_slice(&self.sequence.to_le_bytes());
        nonce
    }

    /// The chain's next link.
    pub(crate) fn chain(&self, before: &Link, body: &Hash) -> Hash {
        hash(&[b"record", &before.chain, &before.mac, &self.covered(), body])
    }
}

/// What the next record is chained to. The MAC is part of it, so that nobody can change one without being found out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) chain: Hash,
    pub(crate) mac: Hash,
}

impl Link {
    /// What stands for it in heads and in the next segment's header.
    pub(crate) fn digest(&self) -> Hash {
        hash(&[b"link", &self.chain, &self.mac])
    }
}

/// A record as it stands in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) label: Label,
    /// The body, or its hash where it was erased.
    pub(crate) body: Body<'a>,
    pub(crate) chain: Hash,
    pub(crate) mac: Hash,
    /// Bytes that it takes.
    pub(crate) length: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body<'a> {
    Whole(&'a [u8]),
    Erased(Hash),
}

impl Body<'_> {
    pub(crate) fn hash(&self) -> Hash {
        match self {
            Self::Whole(bytes) => hash(&[bytes]),
            Self::Erased(hash) => *hash,
        }
    }
}

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRecord {
    /// They could be the start of one, and end too early.
    Short,
    /// No record begins so.
    Other,
}

impl<'a> Record<'a> {
    /// The record that begins here, as far as its form goes.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, NoRecord> {
        let known = bytes.len().min(RECORD_MAGIC.len());
        if bytes[..known] != RECORD_MAGIC[..known] {
            return Err(NoRecord::Other);
        }
        let Some(fixed) = bytes.first_chunk::<FIXED>() else { return Err(NoRecord::Short) };
        let word = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let (length, body) = (word(4) as usize, word(12));
        let (kind, class) = match (fixed[8], fixed[9], Class::of(fixed[10])) {
            (VERSION, 1, Some(class)) => (Kind::Event, class),
            (VERSION, 2, Some(class)) => (Kind::Seal, class),
            _ => return Err(NoRecord::Other),
        };
        let there = match fixed[11] {
            0 => body as usize,
            1 => KEY,
            _ => return Err(NoRecord::Other),
        };
        if body as usize > LARGEST_BODY || length != FIXED + there + BEHIND {
            return Err(NoRecord::Other);
        }
        let Some(rest) = bytes.get(FIXED..length) else { return Err(NoRecord::Short) };
        let (inner, rest) = rest.split_at(there);
        let label = Label { kind, class, sequence: long(16), time: long(24), body };
        let ends = (inner.first_chunk(), rest.first_chunk(), rest.last_chunk());
        let (hash, Some(chain), Some(mac)) = ends else { return Err(NoRecord::Other) };
        let body = match (fixed[11], hash) {
            (1, Some(hash)) => Body::Erased(*hash),
            _ => Body::Whole(inner),
        };
        Ok(Self { label, body, chain: *chain, mac: *mac, length })
    }

    pub(crate) fn link(&self) -> Link {
        Link { chain: self.chain, mac: self.mac }
    }

    /// Appends a record as it stands.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let (state, inner): (u8, &[u8]) = match &self.body {
            Body::Whole(bytes) => (0, bytes),
            Body::Erased(hash) => (1, hash),
        };
        // No body is longer than its bound, which is far below.
        let length = u32::try_from(FIXED + inner.len() + BEHIND).unwrap_or(u32::MAX);
        let covered = self.label.covered();
        out.extend(RECORD_MAGIC);
        out.extend(length.to_le_bytes());
        out.extend(&covered[..3]);
        out.push(state);
        out.extend(&covered[3..]);
        out.extend(inner);
        out.extend(self.chain);
        out.extend(self.mac);
    }
}

/// The keys of the MACs of one segment, each made of the one before, which is gone then.
#[derive(Debug)]
pub(crate) struct Ratchet {
    key: Secret,
    at: u64,
}

impl Ratchet {
    /// For a segment: its secret, and the number of its first record.
    pub(crate) fn of(segment: &Secret, first: u64) -> Self {
        Self { key: segment.derive("records"), at: first }
    }

    /// The MAC of a header.
    pub(crate) fn header(segment: &Secret, chain: &Hash) -> Hash {
        segment.derive("header").mac(chain)
    }

    /// The secret of the segment behind.
    pub(crate) fn behind(segment: &Secret) -> Secret {
        segment.derive("segment")
    }

    /// The MAC of the next record, whose key is gone then.
    pub(crate) fn mac(&mut self, chain: &Hash) -> Hash {
        let mac = self.key.mac(chain);
        self.key = self.key.next();
        self.at += 1;
        mac
    }

    /// Leaves out keys up to that of `sequence`; `false`: that one is gone, or farther away than any segment has records.
    pub(crate) fn skip_to(&mut self, sequence: u64) -> bool {
        if sequence.saturating_sub(self.at) > LARGEST_SEGMENT / FIXED as u64 {
            return false;
        }
        while self.at < sequence {
            self.key = self.key.next();
            self.at += 1;
        }
        self.at == sequence
    }

    /// What shows where it is.
    pub(crate) fn commitment(&self) -> Hash {
        self.key.commitment()
    }

    /// The same, if it stands at the key of this record.
    pub(crate) fn commitment_at(&self, sequence: u64) -> Option<Hash> {
        (self.at == sequence).then(|| self.commitment())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        let mut header = Header {
            log: [1; 16],
            number: 2,
            first: 3,
            time: 4,
            before: [5; 32],
            tail: 6,
            tail_hash: [7; 32],
            days: [365, 182, 91],
            newest: 13,
            wrapping: [8; 16],
            wrapped: [9; 60],
            public: [10; 32],
            chain: [0; 32],
            mac: [11; 32],
            signature: [12; 64],
        };
        header.chain = header.own_chain();
        header
    }

    #[test]
    fn a_header_is_read_as_it_was_written_and_every_byte_of_it_counts() {
        let header = header();
        let bytes = header.encode();
        assert_eq!(bytes.len(), HEADER);
        assert_eq!(Header::decode(&bytes).as_ref(), Ok(&header));
        for at in 0..HEADER {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let Ok(read) = Header::decode(&changed) else { continue };
            let covered = at < HEADER - KEY - SIGNATURE;
            assert!(read != header && (!covered || read.chain != read.own_chain()), "byte {at}");
        }
        for length in 0..HEADER {
            assert!(Header::decode(&bytes[..length]).is_err());
        }
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written_and_no_part_of_one_is_a_record(
            text in proptest::collection::vec(any::<u8>(), 16..400),
            (sequence, time, erased) in (any::<u64>(), any::<u64>(), any::<bool>()),
        ) {
            let label = Label { kind: Kind::Event, class: Class::Access, sequence, time, body: u32::try_from(text.len()).unwrap() };
            let body = if erased { Body::Erased([3; 32]) } else { Body::Whole(&text) };
            let length = FIXED + if erased { 32 } else { text.len() } + BEHIND;
            let record = Record { label, body, chain: [1; 32], mac: [2; 32], length };
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), length);
            prop_assert_eq!(Record::decode(&bytes), Ok(record));
            for short in 0..length {
                prop_assert_eq!(Record::decode(&bytes[..short]), Err(NoRecord::Short));
            }
        }

        #[test]
        fn no_bytes_are_read_beyond_their_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            bytes.splice(..0, RECORD_MAGIC);
            let _ = Record::decode(&bytes);
            let _ = Header::decode(&bytes);
        }
    }

    #[test]
    fn a_ratchet_goes_forward_only() {
        let segment = Secret::of([1; 32]);
        let (mut one, mut other) = (Ratchet::of(&segment, 5), Ratchet::of(&segment, 5));
        one.mac(&[0; 32]);
        let second = one.mac(&[0; 32]);
        assert!(other.skip_to(6));
        assert_eq!(other.mac(&[0; 32]), second);
        assert_eq!(one.commitment(), other.commitment());
        assert!(!other.skip_to(6));
    }
}
