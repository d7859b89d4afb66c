//! The record's files: a segment, a head's line as a journal has it, an event's text, a time somebody asks for.
//!
//! First byte: which. The rest: the bytes.

use stockade_audit::{LARGEST_TEXT, fuzzing};

use crate::held;

const KINDS: [fn(&[u8]); 4] = [segment, head, event, time];

pub(crate) fn run(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else { return };
    KINDS[usize::from(kind) % KINDS.len()](bytes);
}

/// Every byte is in one piece, each piece is written as it was read, and lengths that a stranger names cost nothing.
fn segment(bytes: &[u8]) {
    let again = held::within(16 * 1024 + 8 * bytes.len(), || fuzzing::segment_again(bytes));
    assert_eq!(again, bytes);
}

/// What is read of a line is what stands in it.
fn head(bytes: &[u8]) {
    let Ok(line) = core::str::from_utf8(bytes) else { return };
    let Some(again) = fuzzing::head_again(line) else { return };
    let words: Vec<&str> = line.split_whitespace().collect();
    assert!(words.join(" ").contains(&again), "{again}");
    assert_eq!(fuzzing::head_again(&again), Some(again));
}

/// What is read of an event fits into a record, and is then read as the same unless it was cut.
fn event(bytes: &[u8]) {
    let Some((event, again)) = fuzzing::event_again(bytes) else { return };
    assert!(again.len() <= LARGEST_TEXT);
    let read = fuzzing::event(&again).expect("what we write ourselves");
    assert!(read == event || bytes.len() > LARGEST_TEXT / 8, "{event:?} {read:?}");
}

/// A time is read again as itself.
fn time(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    let Some((time, told)) = fuzzing::time_again(text, u64::MAX / 2) else { return };
    assert_eq!(fuzzing::time_again(&told, 0).map(|(time, _)| time), Some(time), "{told}");
}
