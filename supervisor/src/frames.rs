//! Frames on their way to a client, encoded at the end of its buffer.
//!
//! `Output` is the one event that comes in bulk. Its frame is the frame of an empty `Output` with two lengths
//! patched and the bytes behind it, so that a chunk is copied once and nothing is allocated for it. A test holds
//! that the result is byte for byte what the codec gives.

use stockade_protocol::bounds::MAX_FRAME;
use stockade_protocol::client::{ExecEvent, ServerMessage, Stream};
use stockade_protocol::codec::{self, CodecError, HEADER};
use stockade_protocol::{Bytes, ExecId};

/// Bytes of a byte string's length in the codec.
const LENGTH: usize = 8;

/// Appends a message.
///
/// # Errors
/// [`CodecError`]; `out` is then as it was.
pub(crate) fn push(message: &ServerMessage, out: &mut Vec<u8>) -> Result<(), CodecError> {
    codec::encode_frame(message, MAX_FRAME, out)
}

/// Appends an `Output` event.
///
/// # Errors
/// [`CodecError`]; `out` is then as it was.
pub(crate) fn push_output(
    exec_id: ExecId,
    seq: u64,
    stream: Stream,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let start = out.len();
    let event = ExecEvent::Output { stream, bytes: Bytes::default() };
    push(&ServerMessage::Event { exec_id, seq, event }, out)?;
    let length = out.len() - start - HEADER + payload.len();
    let Some(announced) = u32::try_from(length).ok().filter(|length| *length <= MAX_FRAME) else {
        out.truncate(start);
        return Err(CodecError::TooLarge { length: length as u64, limit: MAX_FRAME.into() });
    };
    out[start..start + HEADER].copy_from_slice(&announced.to_le_bytes());
    let end = out.len();
    out[end - LENGTH..].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    out.extend_from_slice(payload);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patched_output_frame_is_what_the_codec_gives() {
        let exec_id = ExecId::from_bytes([7; 16]);
        for (seq, stream, payload) in [
            (3, Stream::Stdout, vec![]),
            (u64::MAX, Stream::Stderr, vec![0, 255, b'\n']),
            (9, Stream::Stdout, vec![1; 64 * 1024]),
        ] {
            let mut patched = vec![b'x'];
            push_output(exec_id, seq, stream, &payload, &mut patched).unwrap();
            let mut plain = vec![b'x'];
            let event = ExecEvent::Output { stream, bytes: payload.into() };
            push(&ServerMessage::Event { exec_id, seq, event }, &mut plain).unwrap();
            assert_eq!(patched, plain);
        }
    }

    #[test]
    fn an_output_over_the_frame_limit_leaves_the_buffer_alone() {
        let mut out = vec![b'x'];
        let payload = vec![0; MAX_FRAME as usize];
        assert!(push_output(ExecId::from_bytes([7; 16]), 3, Stream::Stdout, &payload, &mut out).is_err());
        assert_eq!(out, b"x");
    }
}
