//! What an earlier writer has left: where the log goes on, and what has to be said of it.
//!
//! Nothing is repaired and nothing is cut off: what is there stays as evidence, and the next segment says in its header what it
//! found. A new segment has a key of its own, so no nonce that a lost write has used is used again.

use std::time::SystemTime;

use crate::error::AuditError;
use crate::event::{Event, nanoseconds};
use crate::files::{Directory, HEAD};
use crate::format::{Body, Header, Kind, Link, Ratchet, Record};
use crate::head::Head;
use crate::keys::Keys;
use crate::secret::{Hash, Secret, hash};
use crate::segment::{Piece, Pieces, Start};

/// The most segments that are passed over in search of a MAC's key.
const FARTHEST: u64 = 10_000_000;

/// What was found.
#[derive(Debug)]
pub(crate) struct Survey {
    /// Where the next segment goes on.
    pub(crate) start: Start,
    /// The secret of its MACs.
    pub(crate) macs: Secret,
    /// What is to be said of it, in its first records.
    pub(crate) notes: Vec<Event>,
}

/// What one segment ends with.
#[derive(Debug)]
struct End {
    next: u64,
    link: Option<Link>,
    tail: (u64, Hash),
    /// The latest time of anything that opens with the keys: nobody else's word goes on from segment to segment.
    newest: u64,
    sealed: bool,
    odd: Vec<String>,
}

impl End {
    fn nothing() -> Self {
        Self { next: 1, link: None, tail: (0, [0; 32]), newest: 0, sealed: false, odd: Vec::new() }
    }
}

/// Looks at what is there.
pub(crate) fn survey(directory: &Directory, keys: &Keys, days: [u16; 3]) -> Result<Survey, AuditError> {
    let mut notes = Vec::new();
    let numbers = directory.segments()?;
    let last = numbers.last().copied().unwrap_or(0);
    let mut end = End { sealed: true, ..End::nothing() };
    // One of which nothing can be read has its predecessor's numbers.
    for number in numbers.iter().rev() {
        let (found, readable) = end_of(directory, keys, *number);
        let odd = [core::mem::take(&mut end.odd), found.odd.clone()].concat();
        let tail = if *number == last { found.tail } else { end.tail };
        let newest = found.newest.max(end.newest);
        end = End { odd, tail, newest, ..found };
        if readable {
            break;
        }
    }
    if !end.odd.is_empty() {
        notes.push(Event::security("audit-damaged", end.odd.join("; ")));
    }
    if end.tail.0 > 0 {
        let text = format!("segment {last} ends with {} bytes of a record that isn't whole", end.tail.0);
        notes.push(Event::security("audit-unfinished-tail", text));
    } else if !end.sealed {
        let text = format!("segment {last} was left by a writer that was killed");
        notes.push(Event::security("audit-unsealed", text));
    }
    let head = head_of(directory, keys);
    let newest = end.newest.max(head.map_or(0, |head| head.time));
    if let Some(head) = head.filter(|head| head.sequence >= end.next) {
        let text = format!("records {} to {} were signed and aren't there", end.next, head.sequence);
        notes.push(Event::security("audit-cut", text));
        end.next = head.sequence + 1;
    }
    let (number, macs) = macs_behind(directory, keys, last, &mut notes)?;
    let start = Start {
        number,
        first: end.next,
        before: end.link.map_or([0; 32], |link| link.digest()),
        tail: end.tail,
        days,
        time: nanoseconds(SystemTime::now()),
        newest,
    };
    Ok(Survey { start, macs, notes })
}

fn head_of(directory: &Directory, keys: &Keys) -> Option<Head> {
    let text = String::from_utf8(directory.read(HEAD).ok()??).ok()?;
    let head = Head::parse(&text)?;
    (head.log == keys.log && head.public == keys.signing.public() && head.is_signed()).then_some(head)
}

/// The number of the next segment, and the secret of its MACs.
fn macs_behind(
    directory: &Directory,
    keys: &Keys,
    last: u64,
    notes: &mut Vec<Event>,
) -> Result<(u64, Secret), AuditError> {
    let stored = keys.read_macs(directory);
    let next = last + 1;
    match stored {
        // Killed between a segment and this file: it's behind by one.
        Ok(Some((at, _))) if at + FARTHEST < next => {
            let problem = format!("it's named so, and segments were begun up to {at} only");
            Err(AuditError::damaged(&directory.segment(last), problem))
        }
        Ok(Some((at, secret))) if at <= next => {
            Ok((next, (at..next).fold(secret, |secret, _| Ratchet::behind(&secret))))
        }
        Ok(Some((at, secret))) => {
            let text = format!("segments {next} to {} were begun and aren't there", at - 1);
            notes.push(Event::security("audit-segments-missing", text));
            Ok((at, secret))
        }
        Ok(None) if last == 0 => match keys.macs(1) {
            Some(secret) => Ok((1, secret)),
            None => Err(lost(directory)),
        },
        Ok(None) | Err(AuditError::Damaged { .. }) => {
            let secret = keys.macs(next).ok_or_else(|| lost(directory))?;
            let text = "the secret of the next MACs was gone or damaged, and was made anew from the keys";
            notes.push(Event::security("audit-macs-missing", text));
            Ok((next, secret))
        }
        Err(error) => Err(error),
    }
}

fn lost(directory: &Directory) -> AuditError {
    let problem = "it's gone or damaged, and the keys hold nothing to make it of";
    AuditError::damaged(&directory.join(crate::files::MACS), problem)
}

/// What a segment ends with, and whether it has a record or a header that says so.
fn end_of(directory: &Directory, keys: &Keys, number: u64) -> (End, bool) {
    let mut end = End::nothing();
    let bytes = match directory.read_segment(number) {
        Ok(bytes) => bytes,
        Err(error) => {
            end.odd.push(format!("segment {number} can't be read: {error}"));
            return (end, false);
        }
    };
    let header = Header::decode(&bytes).ok().filter(|header| header.own_chain() == header.chain);
    let mut cipher = None;
    if let Some(header) = &header {
        (end.next, end.link) = (header.first, Some(header.link()));
        cipher = keys.of_segment(header).map(|key| key.cipher());
        if cipher.is_some() {
            end.newest = header.since();
        }
    } else {
        end.odd.push(format!("segment {number} has no whole header"));
    }
    let mut readable = header.is_some();
    let mut opened = Vec::new();
    for piece in Pieces::of(&bytes) {
        match piece {
            Piece::Record(at, record) => {
                let label = &record.label;
                let opens = match (&cipher, &record.body) {
                    (Some(cipher), Body::Whole(bytes)) if label.kind == Kind::Event => {
                        Some(cipher.open(&label.nonce(), &label.covered(), bytes, &mut opened))
                    }
                    _ => None,
                };
                let is_linked = is_next(&end, &record);
                if !is_linked || opens == Some(false) {
                    end.odd
                        .push(format!("segment {number}, byte {at}: not the record that was written there"));
                }
                if opens == Some(true) {
                    end.newest = end.newest.max(label.time);
                }
                if is_linked || opens == Some(true) {
                    (end.next, end.link) = (end.next.max(label.sequence + 1), Some(record.link()));
                    readable = true;
                }
                end.sealed = label.kind == Kind::Seal;
            }
            Piece::Odd(range) => {
                let many = range.len();
                end.odd
                    .push(format!("segment {number}, byte {}: {many} bytes that are no record", range.start));
            }
            Piece::Tail(range, _) => {
                let bytes = &bytes[range];
                end.tail = (bytes.len() as u64, hash(&[bytes]));
                end.sealed = false;
            }
        }
    }
    // The first few say where to look; `verify` says the rest.
    end.odd.truncate(4);
    (end, readable)
}

fn is_next(end: &End, record: &Record<'_>) -> bool {
    record.label.sequence == end.next
        && end.link.is_some_and(|link| record.label.chain(&link, &record.body.hash()) == record.chain)
}
