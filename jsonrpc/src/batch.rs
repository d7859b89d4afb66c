//! Batches whose requests aren't all answered yet.
//!
//! Their answers are kept until the last is there, and that may take as long as a run does. So what all of a session keep together is
//! bounded, and so is their number. An answer of a few kilobytes always has room: that a run was accepted, refused or has ended is
//! never left out. What is larger is, if there is no room for it.

use std::collections::HashMap;

use crate::bounds::{A_REQUEST, MAX_BATCH_ANSWERS, MAX_BATCHES, SMALL_ANSWER};

/// One of them.
#[derive(Debug, Default)]
struct Batch {
    /// How many answers are still to come.
    left: usize,
    answers: Vec<u8>,
}

/// All of a session.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    open: HashMap<u64, Batch>,
    next: u64,
    /// Bytes of answers that are kept.
    bytes: usize,
    /// Something had no room, and nothing was sent since.
    is_full: bool,
}

impl Batches {
    /// Begins one of so many answers; `None`: there are too many.
    pub(crate) fn begin(&mut self, left: usize) -> Option<u64> {
        let number = self.next;
        if left > 0 {
            if self.open.len() >= MAX_BATCHES {
                return None;
            }
            self.open.insert(number, Batch { left, answers: Vec::new() });
        }
        self.next += 1;
        Some(number)
    }

    /// Whether an answer of so many bytes has room. One that is of no batch has.
    pub(crate) fn has_room(&mut self, batch: Option<u64>, bytes: usize) -> bool {
        let is_kept = batch.is_some_and(|number| self.open.contains_key(&number));
        let has_room = !is_kept || bytes <= SMALL_ANSWER || self.bytes + bytes <= MAX_BATCH_ANSWERS;
        self.is_full |= !has_room;
        has_room
    }

    /// Whether an answer has had no room lately: nobody needs to look for others like it.
    pub(crate) fn is_full(&self, batch: Option<u64>) -> bool {
        batch.is_some() && self.is_full
    }

    /// Adds an answer; returned is what can be sent by now: the answer itself if it's of no batch, the whole of a batch at its last.
    pub(crate) fn add(&mut self, batch: Option<u64>, answer: Vec<u8>) -> Option<Vec<u8>> {
        let found = batch.and_then(|number| Some((number, self.open.get_mut(&number)?)));
        let Some((number, batch)) = found else { return Some(answer) };
        let before = batch.answers.len();
        batch.answers.push(if batch.answers.is_empty() { b'[' } else { b',' });
        batch.answers.extend_from_slice(&answer);
        self.bytes += batch.answers.len() - before;
        batch.left -= 1;
        if batch.left > 0 {
            return None;
        }
        let mut whole = self.open.remove(&number)?.answers;
        self.bytes -= whole.len();
        self.is_full = false;
        whole.push(b']');
        Some(whole)
    }

    /// Bytes of memory that they take, roughly.
    pub(crate) fn held(&self) -> usize {
        self.open.values().map(|batch| batch.answers.capacity() + A_REQUEST).sum()
    }
}
