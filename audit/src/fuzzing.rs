//! Doors for the fuzzer to what reads a segment: compiled with the feature `fuzzing` only, which the crate `fuzz` turns on and
//! nothing that is shipped. Nothing behaves otherwise with it.

use crate::event::Event;
use crate::format::{HEADER, Header, Record};
use crate::head::Head;
use crate::segment::{Piece, Pieces};
use crate::time::{parse, rfc3339};

/// Reads a segment, and puts it together again from what was read.
#[must_use]
pub fn segment_again(bytes: &[u8]) -> Vec<u8> {
    let start = &bytes[..HEADER.min(bytes.len())];
    let mut again = match Header::decode(bytes) {
        Ok(header) => header.encode(),
        Err(_) => start.to_vec(),
    };
    for piece in Pieces::of(bytes) {
        match piece {
            Piece::Record(at, record) => {
                let before = again.len();
                assert_eq!(at, before, "pieces follow each other");
                Record { length: 0, ..record }.encode(&mut again);
                assert_eq!(again.len() - before, record.length);
            }
            Piece::Odd(range) | Piece::Tail(range, _) => {
                assert!(!range.is_empty() && range.start == again.len());
                again.extend_from_slice(&bytes[range]);
            }
        }
    }
    again
}

/// Reads a head's line, and writes it again.
#[must_use]
pub fn head_again(line: &str) -> Option<String> {
    let head = Head::parse(line)?;
    assert!(!head.is_signed() || Head::parse(&head.to_string()) == Some(head));
    Some(head.to_string())
}

/// Reads an event, and writes it again.
#[must_use]
pub fn event_again(text: &[u8]) -> Option<(Event, Vec<u8>)> {
    let event = Event::decode(text)?;
    let again = event.encode();
    Some((event, again))
}

/// Reads an event.
#[must_use]
pub fn event(text: &[u8]) -> Option<Event> {
    Event::decode(text)
}

/// Reads a time, and what it's written as.
#[must_use]
pub fn time_again(text: &str, now: u64) -> Option<(u64, String)> {
    let time = parse(text, now)?;
    Some((time, rfc3339(time)))
}
