//! The frame of an `Output` event, taken apart: a head of [`HEAD`] bytes, and the payload behind it.
//!
//! `Output` is the one event that comes in bulk, and its payload is the last thing in its frame. So the head can be
//! written, and read, by itself: it's the frame of an `Output` without bytes, with two lengths patched. Then a
//! payload moves between a ring, a socket and the event without a copy for the codec's sake. Tests hold that head
//! and payload are byte for byte what the codec gives.

use stockade_protocol::bounds::{MAX_FRAME, MAX_OUTPUT_CHUNK};
use stockade_protocol::client::{ExecEvent, ServerMessage, Stream};
use stockade_protocol::codec::{self, CodecError, HEADER};
use stockade_protocol::{Bytes, ExecId};

/// Bytes of a head.
pub const HEAD: usize = 56;
/// Bytes of a byte string's length in the codec: the head's last.
const LENGTH: usize = 8;

/// What a head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The run.
    pub exec_id: ExecId,
    /// The event's number.
    pub seq: u64,
    /// Which stream.
    pub stream: Stream,
    /// Bytes of payload that follow.
    pub length: usize,
}

impl Head {
    /// The head's bytes. `frame` is room to work in.
    ///
    /// # Errors
    /// [`CodecError::TooLarge`]: a payload over [`MAX_OUTPUT_CHUNK`].
    pub fn encode(&self, frame: &mut Vec<u8>) -> Result<(), CodecError> {
        if self.length > MAX_OUTPUT_CHUNK {
            return Err(CodecError::TooLarge {
                length: self.length as u64,
                limit: u64::try_from(MAX_OUTPUT_CHUNK).unwrap_or(u64::MAX),
            });
        }
        frame.clear();
        codec::encode_frame(&self.without_bytes(), MAX_FRAME, frame)?;
        let announced = u32::try_from(frame.len() - HEADER + self.length).unwrap_or(u32::MAX);
        frame[..HEADER].copy_from_slice(&announced.to_le_bytes());
        let at = frame.len() - LENGTH;
        frame[at..].copy_from_slice(&(self.length as u64).to_le_bytes());
        Ok(())
    }

    /// Reads the head at the start of a frame. `None`: it's no `Output`, or not a whole head; the codec tells.
    #[must_use]
    pub fn decode(frame: &[u8]) -> Option<Self> {
        let mut head = *frame.first_chunk::<HEAD>()?;
        let announced = u32::from_le_bytes(*frame.first_chunk::<HEADER>()?) as usize;
        let length = usize::try_from(u64::from_le_bytes(*head.last_chunk::<LENGTH>()?)).ok()?;
        if length > MAX_OUTPUT_CHUNK || announced != HEAD - HEADER + length {
            return None;
        }
        head[HEAD - LENGTH..].fill(0);
        match codec::decode_payload(&head[HEADER..]).ok()? {
            ServerMessage::Event { exec_id, seq, event: ExecEvent::Output { stream, bytes } }
                if bytes.is_empty() =>
            {
                Some(Self { exec_id, seq, stream, length })
            }
            _ => None,
        }
    }

    /// The message, with its payload.
    #[must_use]
    pub fn with(&self, bytes: Vec<u8>) -> ServerMessage {
        let event = ExecEvent::Output { stream: self.stream, bytes: bytes.into() };
        ServerMessage::Event { exec_id: self.exec_id, seq: self.seq, event }
    }

    fn without_bytes(&self) -> ServerMessage {
        let event = ExecEvent::Output { stream: self.stream, bytes: Bytes::default() };
        ServerMessage::Event { exec_id: self.exec_id, seq: self.seq, event }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use stockade_protocol::client::ProtocolError;

    use super::*;

    fn frame(message: &ServerMessage) -> Vec<u8> {
        let mut frame = Vec::new();
        codec::encode_frame(message, MAX_FRAME, &mut frame).unwrap();
        frame
    }

    #[test]
    fn head_and_payload_are_what_the_codec_gives() {
        let exec_id = ExecId::from_bytes([7; 16]);
        for (seq, stream, payload) in [
            (3, Stream::Stdout, vec![]),
            (u64::MAX, Stream::Stderr, vec![0, 255, b'\n']),
            (9, Stream::Stdout, vec![1; MAX_OUTPUT_CHUNK]),
        ] {
            let head = Head { exec_id, seq, stream, length: payload.len() };
            let plain = frame(&head.with(payload.clone()));
            let mut encoded = vec![b'x'];
            head.encode(&mut encoded).unwrap();
            assert_eq!(encoded.len(), HEAD);
            encoded.extend_from_slice(&payload);
            assert_eq!(encoded, plain);
            assert_eq!(Head::decode(&plain), Some(head));
            assert_eq!(Head::decode(&plain[..HEAD]), Some(head));
            assert_eq!(Head::decode(&plain[..HEAD - 1]), None);
        }
    }

    #[test]
    fn a_payload_over_the_bound_has_no_head() {
        let exec_id = ExecId::from_bytes([7; 16]);
        let head = Head { exec_id, seq: 3, stream: Stream::Stdout, length: MAX_OUTPUT_CHUNK + 1 };
        assert!(head.encode(&mut Vec::new()).is_err());
        assert_eq!(Head::decode(&frame(&head.with(vec![0; MAX_OUTPUT_CHUNK + 1]))), None);
    }

    #[test]
    fn what_is_no_output_or_lies_about_its_length_is_left_to_the_codec() {
        let exec_id = ExecId::from_bytes([7; 16]);
        let event = ExecEvent::OutputLost { events: 4 };
        let text = "x".repeat(100);
        let code = stockade_protocol::client::ProtocolErrorCode::Slow;
        for message in [
            ServerMessage::Event { exec_id, seq: 3, event },
            ServerMessage::Error(ProtocolError { code, text }),
            ServerMessage::Runs(Vec::new()),
        ] {
            assert_eq!(Head::decode(&frame(&message)), None);
        }
        let head = Head { exec_id, seq: 3, stream: Stream::Stdout, length: 10 };
        let good = frame(&head.with(vec![0; 10]));
        for (at, lie) in [(0, good[0] + 1), (HEAD - LENGTH, 11), (HEAD - 1, 1)] {
            let mut bad = good.clone();
            bad[at] = lie;
            assert_eq!(Head::decode(&bad), None);
        }
    }
}
