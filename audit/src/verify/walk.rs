//! The way through all segments, record by record.

use std::collections::HashSet;
use std::time::SystemTime;

use super::heads::Heads;
use super::terms::Terms;
use super::{Finding, Report, Tampering, Unfinished};
use crate::error::AuditError;
use crate::event::nanoseconds;
use crate::files::Directory;
use crate::format::{
    BEHIND, Body, Class, FIXED, HEADER, Header, Kind, Label, Link, NoRecord, RECORD_MAGIC, Ratchet, Record,
    VERSION,
};
use crate::head::{Head, is_signed};
use crate::keys::Keys;
use crate::secret::{Cipher, Hash, Secret, hash};
use crate::segment::{HEADER_PURPOSE, Piece, Pieces};

/// How many numbers around its own a record is tried to be opened with.
const AROUND: u64 = 64;

/// The most segments, and the most records of one, that are passed over in search of a MAC's key.
const FARTHEST: u64 = 10_000_000;

/// Where we are.
pub(super) struct Walk<'a> {
    directory: &'a Directory,
    keys: Option<&'a Keys>,
    heads: Heads,
    now: u64,
    terms: Terms,
    report: Report,
    /// The secret of the MACs of the segment at hand, and which that is.
    macs: Option<(u64, Secret)>,
    /// The number that the next record should have; `None`: anything will do.
    next: Option<u64>,
    /// What the next record is chained to; `None`: it isn't known.
    link: Option<Link>,
    /// What stands behind the last record of the segment before, if anything does.
    tail: Option<Tail>,
    /// Whether the keys don't fit any more, which is said once.
    strangers: bool,
}

/// Bytes behind the last record.
#[derive(Clone, Copy)]
struct Tail {
    at: Unfinished,
    hash: Hash,
    /// Whether they may be what a writer was killed over.
    is_cut_short: bool,
    /// Whether they are one record in which something was changed.
    is_changed: bool,
}

/// What is needed of a segment while its records are looked at.
struct Segment<'a> {
    number: u64,
    /// What nothing in it is older than, where its header is the log's own.
    since: u64,
    bytes: &'a [u8],
    cipher: Option<Cipher>,
    ratchet: Option<Ratchet>,
    sealed: bool,
    /// Numbers of all its records, made when it's asked for.
    numbers: Option<HashSet<u64>>,
    opened: Vec<u8>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        directory: &'a Directory,
        keys: Option<&'a Keys>,
        heads: Heads,
        now: SystemTime,
        report: Report,
    ) -> Self {
        let macs = keys.and_then(|keys| keys.macs(1)).map(|secret| (1, secret));
        Self {
            directory,
            keys,
            heads,
            now: nanoseconds(now),
            terms: Terms::default(),
            report,
            macs,
            next: Some(1),
            link: None,
            tail: None,
            strangers: false,
        }
    }

    /// Through all segments.
    pub(super) fn all(&mut self) -> Result<(), AuditError> {
        let numbers = self.directory.segments()?;
        let mut headers = Vec::new();
        for number in &numbers {
            let header = self.directory.read_header(*number)?;
            headers.extend(header.filter(|header| header.number == *number && self.is_genuine(header)));
        }
        self.terms = Terms::of(&headers, self.now);
        let mut expected = 1;
        for number in &numbers {
            let bytes = self.directory.read_segment(*number)?;
            let header = Header::decode(&bytes);
            if *number > expected {
                self.missing(expected, *number, header.as_ref().ok());
            }
            self.segment(*number, &bytes, header, numbers.last() == Some(number));
            expected = number + 1;
        }
        self.report.segments = numbers.len() as u64;
        Ok(())
    }

    fn is_genuine(&self, header: &Header) -> bool {
        header.public == *self.heads.public()
            && header.chain == header.own_chain()
            && is_signed(&header.public, HEADER_PURPOSE, &header.chain, &header.signature)
    }

    fn say(&mut self, tampering: Tampering, at: (u64, Option<usize>), sequence: Option<u64>, text: String) {
        let (segment, offset) = (Some(at.0), at.1.map(|at| at as u64));
        self.report.add(Finding { tampering, segment, sequence, offset, text });
    }

    /// Segments that aren't there: it's all right at the beginning, if they had been kept long enough.
    fn missing(&mut self, from: u64, to: u64, header: Option<&Header>) {
        let kept = |header: &Header| self.terms.excuse_segments(to, header.since());
        let is_over = from == 1 && header.is_some_and(|header| self.is_genuine(header) && kept(header));
        if is_over {
            self.next = None;
        } else {
            let text = format!("segments {from} to {} are missing", to - 1);
            self.say(Tampering::Dropped, (from, None), self.next, text);
            self.next = header.map(|header| header.first);
        }
        (self.link, self.tail) = (None, None);
    }

    fn segment(&mut self, number: u64, bytes: &[u8], header: Result<Header, &'static str>, is_last: bool) {
        let mut segment = Segment {
            number,
            since: 0,
            bytes,
            cipher: None,
            ratchet: None,
            sealed: false,
            numbers: None,
            opened: Vec::new(),
        };
        match header {
            Ok(header) => self.header(&header, &mut segment),
            // Neither is it ever written in parts, nor are records before it.
            Err(why) => {
                let tampering = match (bytes.len() < HEADER, is_last) {
                    (true, true) => Tampering::Cut,
                    (true, false) => Tampering::Dropped,
                    (false, _) => Tampering::Changed,
                };
                self.say(tampering, (number, Some(0)), self.next, format!("its header: {why}"));
                (self.link, self.tail) = (None, None);
                self.next = None;
            }
        }
        for piece in Pieces::of(bytes) {
            match piece {
                Piece::Record(at, record) => self.record(at, &record, &mut segment),
                Piece::Odd(range) => {
                    let text = format!("{} bytes are no record", range.len());
                    self.say(Tampering::Changed, (number, Some(range.start)), self.next, text);
                    (self.link, self.next) = (None, None);
                }
                Piece::Tail(range, why) => {
                    let bytes = &bytes[range.clone()];
                    let at =
                        Unfinished { segment: number, offset: range.start as u64, bytes: bytes.len() as u64 };
                    let is_changed = segment.sealed || self.is_changed_record(bytes);
                    let is_cut_short =
                        !is_changed && (why == NoRecord::Short || bytes.iter().all(|byte| *byte == 0));
                    self.tail = Some(Tail { at, hash: hash(&[bytes]), is_cut_short, is_changed });
                }
            }
        }
    }

    /// Whether bytes that are no record are one once what a record's form is known by is put right.
    fn is_changed_record(&self, bytes: &[u8]) -> bool {
        let (Some(before), Some(next)) = (self.link, self.next) else { return false };
        let Ok(length) = u32::try_from(bytes.len()) else { return false };
        let Some(body) = bytes.len().checked_sub(FIXED + BEHIND) else { return false };
        let mut bytes = bytes.to_vec();
        bytes[..4].copy_from_slice(&RECORD_MAGIC);
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes[8] = VERSION;
        bytes[12..16].copy_from_slice(&u32::try_from(body).unwrap_or(0).to_le_bytes());
        (1..=2).any(|kind| {
            Class::ALL.into_iter().any(|class| {
                (bytes[9], bytes[10], bytes[11]) = (kind, class.number(), 0);
                Record::decode(&bytes).is_ok_and(|record| {
                    record.label.sequence == next
                        && record.label.chain(&before, &record.body.hash()) == record.chain
                })
            })
        })
    }

    fn header(&mut self, header: &Header, segment: &mut Segment<'_>) {
        let at = (segment.number, Some(0));
        let is_anothers = self.heads.log().is_some_and(|log| log != header.log);
        let is_ours = !is_anothers && self.is_genuine(header);
        segment.since = if is_ours { header.since() } else { 0 };
        if !is_ours {
            self.say(
                Tampering::Changed,
                at,
                None,
                "its header isn't one that this log has written".to_owned(),
            );
        } else if header.number != segment.number {
            let text = format!("this is segment {}", header.number);
            self.say(Tampering::Reordered, at, None, text);
        }
        let tail = self.tail.take();
        match self.next {
            Some(next) if header.first > next && tail.is_some_and(|tail| !tail.is_cut_short) => {
                let offset = tail.and_then(|tail| usize::try_from(tail.at.offset).ok());
                let text = "what stands there isn't what was written".to_owned();
                self.say(Tampering::Changed, (segment.number.saturating_sub(1), offset), Some(next), text);
            }
            Some(next) if header.first > next => {
                let text = format!("records {next} to {} are missing", header.first - 1);
                self.say(Tampering::Dropped, (segment.number, None), Some(next), text);
            }
            Some(next) if header.first < next => {
                let text = "records were added to the segment before".to_owned();
                self.say(Tampering::Changed, (segment.number, None), Some(header.first), text);
            }
            _ => {
                self.tail_is_as_told(header, tail);
                if self.link.is_some_and(|link| link.digest() != header.before) {
                    let text = "the segment before isn't the one that this one follows".to_owned();
                    self.say(Tampering::Changed, at, Some(header.first), text);
                }
            }
        }
        (self.next, self.link) = (Some(header.first), Some(header.link()));
        self.open(header, segment);
    }

    /// What is left of a killed writer's last record is what the next one has found.
    fn tail_is_as_told(&mut self, header: &Header, tail: Option<Tail>) {
        match tail {
            Some(tail) if header.tail == tail.at.bytes && header.tail_hash == tail.hash => {
                self.report.recovered.push(tail.at);
            }
            None if header.tail == 0 => {}
            _ if self.next.is_none() => {}
            _ => {
                let text =
                    "what stands behind the last record of the segment before isn't what was found there";
                let offset = tail.and_then(|tail| usize::try_from(tail.at.offset).ok());
                let segment = header.number.saturating_sub(1);
                self.say(Tampering::Changed, (segment, offset), self.next, text.to_owned());
            }
        }
    }

    /// Gets a segment's keys.
    fn open(&mut self, header: &Header, segment: &mut Segment<'_>) {
        let Some(keys) = self.keys else { return };
        segment.cipher = keys.of_segment(header).map(|key| key.cipher());
        if segment.cipher.is_none() && self.is_genuine(header) && !self.strangers {
            self.strangers = true;
            let text = "its records' key can't be opened with these keys".to_owned();
            self.say(Tampering::WrongKey, (segment.number, Some(0)), None, text);
        }
        let Some((at, secret)) = self.macs.take() else { return };
        if segment.number - at > FARTHEST {
            return;
        }
        let secret = (at..segment.number).fold(secret, |secret, _| Ratchet::behind(&secret));
        if Ratchet::header(&secret, &header.chain) != header.mac && header.number == segment.number {
            let text = "the MAC of its header isn't one that this log has made".to_owned();
            self.say(Tampering::Changed, (segment.number, Some(0)), None, text);
        }
        segment.ratchet = Some(Ratchet::of(&secret, header.first));
        self.macs = Some((segment.number, secret));
    }

    fn record(&mut self, at: usize, record: &Record<'_>, segment: &mut Segment<'_>) {
        let label = &record.label;
        let (place, sequence) = ((segment.number, Some(at)), label.sequence);
        self.report.records += 1;
        if self.report.first == 0 {
            self.report.first = sequence;
        }
        let body = record.body.hash();
        let mut is_true = true;
        if segment.sealed {
            self.say(
                Tampering::Changed,
                place,
                Some(sequence),
                "it stands behind the segment's end".to_owned(),
            );
            is_true = false;
        } else if let Some(next) = self.next
            && next != sequence
        {
            self.misplaced(at, record, &body, next, segment);
            is_true = false;
        } else if self.link.is_some_and(|link| label.chain(&link, &body) != record.chain) {
            let text = "it isn't what was written".to_owned();
            self.say(Tampering::Changed, place, Some(sequence), text);
            is_true = false;
        }
        if matches!(record.body, Body::Erased(_)) {
            self.report.erased += 1;
            if !self.terms.excuse_a_body(segment.number, label.class, label.time.max(segment.since)) {
                let text = "its body was erased before its time".to_owned();
                self.say(Tampering::Dropped, place, Some(sequence), text);
            }
        }
        self.with_keys(at, record, segment, is_true);
        if label.kind == Kind::Seal {
            self.seal(at, record, segment);
        }
        if is_true && let Some(agrees) = self.agrees(record, segment) {
            self.report.heads += 1;
            if !agrees {
                let text = "it isn't what was signed: it, or records before it, were changed".to_owned();
                self.say(Tampering::Changed, place, Some(sequence), text);
            }
        }
        self.report.last = self.report.last.max(sequence);
        // A number that was changed is one finding, and not one for each record behind it.
        let next = match self.next {
            Some(next) if !is_true && self.is_renumbered(record, &body, next) => next,
            _ => sequence,
        };
        (self.next, self.link) = (Some(next.saturating_add(1)), Some(record.link()));
    }

    /// Whether what was signed of a record is what stands there. `None`: nothing was.
    fn agrees(&self, record: &Record<'_>, segment: &Segment<'_>) -> Option<bool> {
        let heads = self.heads.of(record.label.sequence)?;
        let chain = record.link().digest();
        let next = record.label.sequence.saturating_add(1);
        let mac = segment.ratchet.as_ref().and_then(|ratchet| ratchet.commitment_at(next));
        Some(heads.iter().all(|head| {
            let fits = mac.is_none_or(|mac| mac == head.mac);
            head.segment == segment.number && head.chain == chain && fits
        }))
    }

    /// Whether only a record's number was changed.
    fn is_renumbered(&self, record: &Record<'_>, body: &Hash, next: u64) -> bool {
        let label = Label { sequence: next, ..record.label };
        self.link.is_some_and(|link| label.chain(&link, body) == record.chain)
    }

    /// A record that another one should stand in the place of.
    fn misplaced(
        &mut self,
        at: usize,
        record: &Record<'_>,
        body: &Hash,
        next: u64,
        segment: &mut Segment<'_>,
    ) {
        let found = record.label.sequence;
        let place = (segment.number, Some(at));
        if self.is_renumbered(record, body, next) {
            let text = format!("its number was changed to {found}");
            return self.say(Tampering::Changed, place, Some(next), text);
        }
        if found < next || segment.has(next) {
            let text = format!("record {found} stands here");
            return self.say(Tampering::Reordered, place, Some(next), text);
        }
        let text = format!("records {next} to {} are missing", found - 1);
        self.say(Tampering::Dropped, place, Some(next), text);
    }

    /// What only the keys show. Whoever has none can make chain and numbers fit again.
    fn with_keys(&mut self, at: usize, record: &Record<'_>, segment: &mut Segment<'_>, is_true: bool) {
        let label = record.label;
        let mut fits = true;
        if let Some(ratchet) = &mut segment.ratchet {
            // Of a number that was changed, however far, nothing is made.
            fits = match self.next {
                Some(next) if next != label.sequence => true,
                _ if ratchet.skip_to(label.sequence) => ratchet.mac(&record.chain) == record.mac,
                _ => true,
            };
        }
        let mut opens = true;
        if let (Some(cipher), Body::Whole(body), Kind::Event) = (&segment.cipher, &record.body, label.kind) {
            opens = cipher.open(&label.nonce(), &label.covered(), body, &mut segment.opened);
        }
        if !is_true || (fits && opens) {
            return;
        }
        let (tampering, text) = match (opens, self.real_number(at, record, segment)) {
            (false, Some((real, true))) => {
                (Tampering::Reordered, format!("record {real} stands here under another number"))
            }
            (false, Some((real, false))) => {
                (Tampering::Dropped, format!("record {real} stands here under another number"))
            }
            _ => (Tampering::Changed, "it isn't what this log has written".to_owned()),
        };
        self.say(tampering, (segment.number, Some(at)), Some(label.sequence), text);
    }

    /// The number under which a record was written that stands under another one; and whether the one that was written
    /// under this number is in the segment, too.
    fn real_number(&self, at: usize, record: &Record<'_>, segment: &mut Segment<'_>) -> Option<(u64, bool)> {
        if !self.report.findings.is_empty() {
            return None;
        }
        let here = record.label.sequence;
        let real = (here.saturating_sub(AROUND)..=here + AROUND)
            .find(|real| *real != here && segment.opens_as(record, *real))?;
        let around = usize::try_from(AROUND).unwrap_or(0);
        let bytes = segment.bytes;
        let is_elsewhere = real < here
            || Pieces::of(bytes)
                .filter_map(|piece| match piece {
                    Piece::Record(place, other) if place > at => Some(other),
                    _ => None,
                })
                .take(around)
                .any(|other| segment.opens_as(&other, here));
        Some((real, is_elsewhere))
    }

    /// A segment's end holds a head of what is before it.
    fn seal(&mut self, at: usize, record: &Record<'_>, segment: &mut Segment<'_>) {
        segment.sealed = true;
        let head = match &record.body {
            Body::Whole(text) => core::str::from_utf8(text).ok().and_then(Head::parse),
            Body::Erased(_) => None,
        };
        let is_ours = head.is_some_and(|head| {
            head.is_signed()
                && head.public == *self.heads.public()
                && head.sequence.checked_add(1) == Some(record.label.sequence)
                && head.segment == segment.number
                && self.link.is_none_or(|link| link.digest() == head.chain)
        });
        self.report.heads += 1;
        if is_ours {
            self.report.signed = self.report.signed.max(record.label.sequence - 1);
        } else if self.report.findings.is_empty() {
            let text = "what is before it isn't what was signed at the segment's end".to_owned();
            self.say(Tampering::Changed, (segment.number, Some(at)), Some(record.label.sequence), text);
        }
    }

    /// What can be said once all was seen.
    pub(super) fn end(mut self) -> Report {
        let last = self.report.last;
        let segment = self.tail.map(|tail| tail.at.segment);
        let tail = self.tail.take();
        let offset = tail.and_then(|tail| usize::try_from(tail.at.offset).ok());
        let signed = self.report.signed;
        if let Some(tail) = tail
            && (tail.is_changed || (signed > last && !tail.is_cut_short))
        {
            let text = "what stands there isn't what was written".to_owned();
            self.say(Tampering::Changed, (tail.at.segment, offset), self.next, text);
        } else if signed > last {
            let text = format!("the log ends here, and record {signed} was signed");
            let at = Finding {
                tampering: Tampering::Cut,
                segment,
                sequence: Some(last + 1),
                offset: tail.map(|tail| tail.at.offset),
                text,
            };
            self.report.add(at);
        } else if let Some(tail) = tail {
            self.report.unfinished = Some(tail.at);
        }
        self.segments_are_all_there();
        self.report
    }

    /// With the keys: segments at the end that were begun and are gone.
    fn segments_are_all_there(&mut self) {
        let stored = self.keys.and_then(|keys| keys.read_macs(self.directory).ok().flatten());
        let last = self.directory.segments().ok().and_then(|numbers| numbers.last().copied());
        if let Some((behind, _)) = stored
            && behind > last.unwrap_or(0) + 1
        {
            let text = format!("segments up to {} were begun", behind - 1);
            let sequence = Some(self.report.last + 1);
            self.report.add(Finding {
                tampering: Tampering::Cut,
                segment: last,
                sequence,
                offset: None,
                text,
            });
        }
    }
}

impl Segment<'_> {
    fn has(&mut self, sequence: u64) -> bool {
        let bytes = self.bytes;
        let numbers = self.numbers.get_or_insert_with(|| {
            let pieces = Pieces::of(bytes);
            let numbers = pieces.filter_map(|piece| match piece {
                Piece::Record(_, record) => Some(record.label.sequence),
                _ => None,
            });
            numbers.collect()
        });
        numbers.contains(&sequence)
    }

    /// Whether a record is one that was written under this number.
    fn opens_as(&mut self, record: &Record<'_>, sequence: u64) -> bool {
        let label = Label { sequence, ..record.label };
        match (&self.cipher, &record.body) {
            (Some(cipher), Body::Whole(body)) => {
                cipher.open(&label.nonce(), &label.covered(), body, &mut self.opened)
            }
            _ => false,
        }
    }
}
