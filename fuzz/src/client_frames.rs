//! The stream between a client and the supervisor, in both directions: frames cut from pieces of any size.
//!
//! First byte: how long the pieces are. The rest: the stream.

use core::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use stockade_protocol::bounds::{MAX_FRAME, MAX_OUTPUT_CHUNK};
use stockade_protocol::client::{ClientMessage, ExecEvent, ServerMessage};
use stockade_protocol::codec::{self, CodecError, HEADER};
use stockade_wire::frames::FrameBuffer;
use stockade_wire::output::{HEAD, Head};

use crate::held;

/// A limit that streams of this size meet.
const SMALL: u32 = 96;

pub(crate) fn run(data: &[u8]) {
    let Some((&piece, stream)) = data.split_first() else { return };
    let piece = usize::from(piece).max(1);
    for limit in [MAX_FRAME, SMALL] {
        both_ways::<ClientMessage>(stream, piece, limit);
        both_ways::<ServerMessage>(stream, piece, limit);
    }
    head(stream);
}

/// What was heard of a stream.
#[derive(Debug, PartialEq, Eq)]
struct Heard<T> {
    messages: Vec<T>,
    /// Where the frame begins that isn't whole, or isn't a message.
    end: usize,
    error: Option<CodecError>,
}

/// The pieces don't matter, and the messages are the bytes that came.
fn both_ways<T: Serialize + DeserializeOwned + PartialEq + Debug>(stream: &[u8], piece: usize, limit: u32) {
    let heard = hear::<T>(stream, piece, limit);
    assert_eq!(hear::<T>(stream, stream.len().max(1), limit), heard, "pieces of {piece}");
    let mut spelled = Vec::new();
    for message in &heard.messages {
        codec::encode_frame(message, limit, &mut spelled).expect("what came in one frame goes into one");
    }
    assert_eq!(spelled, stream[..heard.end], "another spelling");
}

fn hear<T: DeserializeOwned>(stream: &[u8], piece: usize, limit: u32) -> Heard<T> {
    // The messages, those that are being made, and the stream.
    let bound = held::for_message(stream.len()) + 2 * held::FACTOR * stream.len();
    held::within(bound, || {
        let mut buffer = FrameBuffer::new(limit);
        let mut heard = Heard { messages: Vec::new(), end: 0, error: None };
        for part in stream.chunks(piece) {
            buffer.append(part);
            loop {
                let waiting = buffer.begun().len();
                match buffer.next_message() {
                    Ok(Some(message)) => {
                        heard.messages.push(message);
                        heard.end += waiting - buffer.begun().len();
                    }
                    Ok(None) => break,
                    Err(error) => {
                        heard.error = Some(error);
                        return heard;
                    }
                }
            }
            // Never more than one frame is kept for what hasn't come.
            assert!(buffer.begun().len() < HEADER + limit as usize, "a whole frame waits");
        }
        assert_eq!(buffer.begun(), &stream[heard.end..]);
        assert_eq!(buffer.is_mid_frame(), heard.end < stream.len());
        heard
    })
}

/// The head of an `Output` that is read by itself is what the codec says, and the other way round.
fn head(stream: &[u8]) {
    let Some(announced) = stream.first_chunk::<HEADER>() else { return };
    let head = Head::decode(stream);
    if let Some(head) = &head {
        let mut again = Vec::new();
        head.encode(&mut again).expect("a head that was read");
        assert_eq!(again, stream[..HEAD]);
    }
    let Ok(length) = codec::payload_length(*announced, MAX_FRAME) else {
        assert_eq!(head, None);
        return;
    };
    let Some(payload) = stream.get(HEADER..HEADER + length) else { return };
    match codec::decode_payload::<ServerMessage>(payload) {
        Ok(ServerMessage::Event { exec_id, seq, event: ExecEvent::Output { stream, bytes } })
            if bytes.len() <= MAX_OUTPUT_CHUNK =>
        {
            let whole = Head { exec_id, seq, stream, length: bytes.len() };
            assert_eq!(head, Some(whole));
            assert_eq!(
                codec::decode_payload::<ServerMessage>(payload),
                Ok(whole.with(bytes.to_vec())),
                "the head with its payload"
            );
        }
        _ => assert_eq!(head, None),
    }
}
