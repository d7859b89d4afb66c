//! What comes from the supervisor: bytes in, messages out.
//!
//! ```text
//!            the head of an `Output` whose payload isn't all there
//!   frames ─────────────────────────────────────────────────────> payload
//!          <─────────────────────────────────────────────────────
//!                               its last byte
//! ```
//!
//! A payload in bulk is read straight into the bytes that its event will have. For that the reads between payloads
//! are small; they become large when what comes is many small messages.

use std::io;

use rustix::buffer::spare_capacity;
use stockade_protocol::bounds::MAX_FRAME;
use stockade_protocol::client::ServerMessage;
use stockade_protocol::codec::CodecError;
use stockade_wire::frames::FrameBuffer;
use stockade_wire::output::{HEAD, Head};

/// Bytes of the first read between payloads.
const SMALL: usize = 4 * 1024;
/// Bytes of the largest.
const LARGE: usize = 128 * 1024;
/// A payload of which less is missing comes with the next read, and is copied.
const WORTH_IT: usize = 4 * 1024;

/// Why nothing came.
#[derive(Debug)]
pub(crate) enum Silence {
    /// Nothing is there now.
    WouldBlock,
    /// The supervisor has gone.
    Closed,
    /// Reading failed.
    Io(io::Error),
}

/// An `Output` whose payload is being read.
#[derive(Debug)]
struct Payload {
    head: Head,
    bytes: Vec<u8>,
}

/// The receiving side of one connection.
#[derive(Debug)]
pub(crate) struct Incoming {
    frames: FrameBuffer,
    payload: Option<Payload>,
    /// Where reads between payloads go.
    read: Vec<u8>,
}

impl Incoming {
    pub(crate) fn new() -> Self {
        Self { frames: FrameBuffer::new(MAX_FRAME), payload: None, read: Vec::new() }
    }

    /// Reads once and answers how many bytes, from a socket that doesn't block. No message to a client names a descriptor: with a plain read the
    /// kernel closes one that comes all the same.
    pub(crate) fn fill(&mut self, socket: impl std::os::fd::AsFd) -> Result<usize, Silence> {
        let into = match &mut self.payload {
            Some(payload) => &mut payload.bytes,
            None => {
                let filled = self.read.len() == self.read.capacity();
                let size = if filled { (2 * self.read.capacity()).clamp(SMALL, LARGE) } else { 0 };
                self.read.clear();
                self.read.reserve_exact(size);
                &mut self.read
            }
        };
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&socket, spare_capacity(into)));
        let read = match read.map_err(io::Error::from) {
            Ok(0) => return Err(Silence::Closed),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Silence::WouldBlock),
            // A supervisor that was killed with our bytes unread; what it said before is read already.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(Silence::Closed),
            Err(error) => return Err(Silence::Io(error)),
        };
        if self.payload.is_none() {
            self.frames.append(&self.read);
        }
        Ok(read)
    }

    /// Takes the next whole message; `None`: more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<ServerMessage>, CodecError> {
        if let Some(payload) = self.payload.take_if(|payload| payload.bytes.len() >= payload.head.length) {
            // A vector may have more room than was asked for, and then what follows came along.
            let Payload { head, mut bytes } = payload;
            if bytes.len() > head.length {
                self.frames.append(&bytes[head.length..]);
                bytes.truncate(head.length);
            }
            return Ok(Some(head.with(bytes)));
        }
        if self.payload.is_some() {
            return Ok(None);
        }
        let message = self.frames.next_message()?;
        if message.is_none() {
            self.begin_payload();
        }
        Ok(message)
    }

    /// From here on reads into the payload of the frame that has begun, if it's one in bulk.
    fn begin_payload(&mut self) {
        let begun = self.frames.begun();
        let Some(head) = Head::decode(begun) else { return };
        let came = begun.len() - HEAD;
        if head.length - came < WORTH_IT {
            return;
        }
        let mut bytes = Vec::with_capacity(head.length);
        bytes.extend_from_slice(&begun[HEAD..]);
        self.frames.forget_begun();
        self.payload = Some(Payload { head, bytes });
        // What follows a payload in bulk is another head, most likely.
        self.read.clear();
        self.read.shrink_to(SMALL);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use stockade_protocol::ExecId;
    use stockade_protocol::bounds::MAX_OUTPUT_CHUNK;
    use stockade_protocol::client::{ExecEvent, Stream};
    use stockade_protocol::codec;

    use super::*;

    fn event(seq: u64, event: ExecEvent) -> ServerMessage {
        ServerMessage::Event { exec_id: ExecId::from_bytes([7; 16]), seq, event }
    }

    fn output(seq: u64, length: usize) -> ServerMessage {
        let bytes = (0..length).map(|at| ((at as u64 * 7 + seq) % 251) as u8).collect::<Vec<_>>().into();
        event(seq, ExecEvent::Output { stream: Stream::Stdout, bytes })
    }

    /// Messages of all sizes, in bulk and not, one behind the other.
    fn conversation() -> Vec<ServerMessage> {
        let sizes = [
            0,
            1,
            MAX_OUTPUT_CHUNK,
            MAX_OUTPUT_CHUNK,
            10,
            SMALL - HEAD,
            SMALL,
            SMALL + 1,
            2 * WORTH_IT,
            MAX_OUTPUT_CHUNK - 1,
        ];
        let mut all: Vec<_> = (3..).zip(sizes.repeat(3)).map(|(seq, size)| output(seq, size)).collect();
        all.extend((100..3000).map(|seq| output(seq, 20)));
        all.insert(5, event(5, ExecEvent::OutputLost { events: 2 }));
        all.push(output(4000, MAX_OUTPUT_CHUNK));
        all
    }

    fn bytes(messages: &[ServerMessage]) -> Vec<u8> {
        let mut all = Vec::new();
        for message in messages {
            codec::encode_frame(message, MAX_FRAME, &mut all).unwrap();
        }
        all
    }

    /// Writes so many bytes at a time, and reads all that came before the next.
    fn received(bytes: &[u8], step: usize) -> Vec<ServerMessage> {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (mut incoming, mut seen) = (Incoming::new(), Vec::new());
        for piece in bytes.chunks(step) {
            theirs.write_all(piece).unwrap();
            while incoming.fill(&ours).is_ok() {
                while let Some(message) = incoming.next().unwrap() {
                    seen.push(message);
                }
            }
        }
        drop(theirs);
        assert!(matches!(incoming.fill(&ours), Err(Silence::Closed)));
        seen
    }

    #[test]
    fn messages_are_the_same_however_their_bytes_arrive() {
        let messages = conversation();
        let bytes = bytes(&messages);
        for step in [1, 7, HEAD - 1, HEAD, HEAD + 1, 1000, SMALL, 50_000, 100_000] {
            assert!(received(&bytes, step) == messages, "{step} bytes at a time");
        }
    }

    #[test]
    fn a_payload_in_bulk_is_read_to_where_it_stays() {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let frame = bytes(&[output(3, MAX_OUTPUT_CHUNK)]);
        theirs.write_all(&frame[..HEAD + 10]).unwrap();
        let mut incoming = Incoming::new();
        incoming.fill(&ours).unwrap();
        assert_eq!(incoming.next().unwrap(), None);
        let place = incoming.payload.as_ref().unwrap().bytes.as_ptr();
        theirs.write_all(&frame[HEAD + 10..]).unwrap();
        incoming.fill(&ours).unwrap();
        let Some(ServerMessage::Event { event: ExecEvent::Output { bytes, .. }, .. }) =
            incoming.next().unwrap()
        else {
            panic!("no output");
        };
        assert_eq!(bytes.as_ptr(), place);
    }
}
