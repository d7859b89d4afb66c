//! Frames on their way to a client.
//!
//! [`push`] encodes any message. Output comes in bulk and goes another way: [`Frames`] takes a run's records where they
//! are read, so that a payload goes from the ring to where it's sent from, and nothing is allocated for it.

use std::time::Duration;

use stockade_protocol::ExecId;
use stockade_protocol::bounds::MAX_FRAME;
use stockade_protocol::client::ServerMessage;
use stockade_protocol::codec::{self, CodecError};
use stockade_protocol::ring::Record;
use stockade_wire::output::Head;

use crate::outgoing::{Outgoing, Spare};
use crate::output::Taker;
use crate::redacted::Piece;

/// Appends a message.
///
/// # Errors
/// [`CodecError`]; `out` is then as it was.
pub(crate) fn push(message: &ServerMessage, out: &mut Vec<u8>) -> Result<(), CodecError> {
    codec::encode_frame(message, MAX_FRAME, out)
}

/// What frames are made with. Reused by every connection.
#[derive(Debug, Default)]
pub(crate) struct Workshop {
    /// One message, or the head of one.
    frame: Vec<u8>,
    /// Records that are redacted.
    pub(crate) piece: Piece,
    /// How long that has taken since somebody last asked, and the marks that clients were given, of forms and of values.
    pub(crate) spent: Duration,
    pub(crate) marks: [u64; 2],
    pub(crate) spare: Spare,
}

impl Workshop {
    /// Puts a message behind what waits.
    ///
    /// # Errors
    /// [`CodecError`]; nothing was put then.
    pub(crate) fn put(&mut self, message: &ServerMessage, outgoing: &mut Outgoing) -> Result<(), CodecError> {
        self.frame.clear();
        push(message, &mut self.frame)?;
        outgoing.put(&self.frame, &mut self.spare);
        Ok(())
    }
}

/// Makes a run's records `Output` frames.
#[derive(Debug)]
pub(crate) struct Frames<'a> {
    exec_id: ExecId,
    outgoing: &'a mut Outgoing,
    workshop: &'a mut Workshop,
    /// Bytes that waited before.
    before: usize,
    /// Why it took no more.
    pub(crate) failure: Option<CodecError>,
}

impl<'a> Frames<'a> {
    pub(crate) fn new(exec_id: ExecId, outgoing: &'a mut Outgoing, workshop: &'a mut Workshop) -> Self {
        let before = outgoing.waiting().len();
        Self { exec_id, outgoing, workshop, before, failure: None }
    }
}

impl Taker for Frames<'_> {
    fn room(&mut self, record: &Record) -> Option<&mut [u8]> {
        let Record { seq, stream, length } = *record;
        let length = length as usize;
        let head = Head { exec_id: self.exec_id, seq, stream, length };
        let Workshop { frame: bytes, spare, .. } = &mut *self.workshop;
        if let Err(error) = head.encode(bytes) {
            self.failure = Some(error);
            return None;
        }
        let room = self.outgoing.room(bytes.len() + length, spare);
        let (front, payload) = room.split_at_mut(bytes.len());
        front.copy_from_slice(bytes);
        Some(payload)
    }

    fn give_up(&mut self) {
        self.outgoing.truncate(self.before);
    }
}

#[cfg(test)]
mod tests {
    use stockade_protocol::client::{ExecEvent, Stream};

    use super::*;

    #[test]
    fn a_record_becomes_the_frame_that_the_codec_gives_and_goes_when_given_up() {
        let exec_id = ExecId::from_bytes([7; 16]);
        let (mut outgoing, mut workshop) = (Outgoing::default(), Workshop::default());
        outgoing.put(b"before", &mut None);
        let mut frames = Frames::new(exec_id, &mut outgoing, &mut workshop);
        let record = Record { length: 3, stream: Stream::Stderr, seq: 9 };
        frames.room(&record).unwrap().copy_from_slice(b"abc");
        let mut expected = b"before".to_vec();
        let event = ExecEvent::Output { stream: Stream::Stderr, bytes: "abc".into() };
        push(&ServerMessage::Event { exec_id, seq: 9, event }, &mut expected).unwrap();
        assert_eq!(frames.outgoing.waiting(), expected);
        frames.give_up();
        assert_eq!(outgoing.waiting(), b"before");
    }

    #[test]
    fn a_record_over_the_bound_is_not_taken() {
        let (mut outgoing, mut workshop) = (Outgoing::default(), Workshop::default());
        let mut frames = Frames::new(ExecId::from_bytes([7; 16]), &mut outgoing, &mut workshop);
        let record = Record { length: MAX_FRAME, stream: Stream::Stdout, seq: 3 };
        assert!(frames.room(&record).is_none());
        assert!(frames.failure.is_some());
        assert_eq!(outgoing.waiting(), b"");
    }
}
