//! The one file that names the codec: fixed-width little-endian bincode 2, with an explicit size limit.
//!
//! bincode is finished and unmaintained (RUSTSEC-2025-0141). Whatever follows it changes this file only.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bounds::{MAX_FRAME, MAX_LAUNCH_MESSAGE};

/// Bytes of a frame's header: its payload's length, little endian.
pub const HEADER: usize = 4;

/// Why bytes are not a message, or a message can't become bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The frame announces more than the limit. Nothing was allocated for it.
    #[error("frame of {length} bytes is over the limit of {limit}")]
    TooLarge {
        /// What the header announces, in bytes.
        length: u64,
        /// What this side takes, in bytes.
        limit: u64,
    },
    /// A frame of no bytes: no message is that short.
    #[error("frame of 0 bytes")]
    Empty,
    /// The bytes don't decode as the expected message.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// A whole message, and then more bytes in the same frame.
    #[error("{0} bytes left over after the message")]
    TrailingBytes(usize),
    /// The message can't be encoded within its limit.
    #[error("message can't be encoded: {0}")]
    Unencodable(String),
}

const CLIENT: Configuration<LittleEndian, Fixint, Limit<{ MAX_FRAME as usize }>> =
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit();
const LAUNCH: Configuration<LittleEndian, Fixint, Limit<MAX_LAUNCH_MESSAGE>> =
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit();

/// Reads a frame's header.
///
/// # Errors
/// [`CodecError::Empty`] and [`CodecError::TooLarge`]; `limit` is in bytes of payload.
pub fn payload_length(header: [u8; HEADER], limit: u32) -> Result<usize, CodecError> {
    let length = u32::from_le_bytes(header);
    if length == 0 {
        return Err(CodecError::Empty);
    }
    if length > limit {
        return Err(CodecError::TooLarge { length: length.into(), limit: limit.into() });
    }
    Ok(length as usize)
}

/// Encodes a message as a whole frame, header included, at the end of `out`.
///
/// # Errors
/// [`CodecError::TooLarge`] when the payload passes `limit` bytes; `out` is then as it was.
pub fn encode_frame<T: Serialize>(message: &T, limit: u32, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    let result = bincode::serde::encode_into_std_write(message, out, CLIENT)
        .map_err(|error| CodecError::Unencodable(error.to_string()))
        .and_then(|length| match u32::try_from(length) {
            Ok(small) if small <= limit => Ok(small),
            _ => Err(CodecError::TooLarge { length: length as u64, limit: limit.into() }),
        });
    match result {
        Ok(length) => {
            out[start..start + HEADER].copy_from_slice(&length.to_le_bytes());
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}

/// Decodes a frame's payload.
///
/// # Errors
/// [`CodecError::Malformed`], or [`CodecError::TrailingBytes`] if the message ends before the payload does.
pub fn decode_payload<T: DeserializeOwned>(payload: &[u8]) -> Result<T, CodecError> {
    whole(bincode::serde::decode_from_slice(payload, CLIENT), payload.len())
}

/// Encodes a launch message (supervisor, launcher, and the processes below it).
///
/// # Errors
/// [`CodecError::Unencodable`] when it passes [`MAX_LAUNCH_MESSAGE`].
pub fn encode_launch<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = bincode::serde::encode_to_vec(message, LAUNCH)
        .map_err(|error| CodecError::Unencodable(error.to_string()))?;
    if bytes.len() > MAX_LAUNCH_MESSAGE {
        return Err(CodecError::TooLarge { length: bytes.len() as u64, limit: MAX_LAUNCH_MESSAGE as u64 });
    }
    Ok(bytes)
}

/// Decodes a launch message.
///
/// # Errors
/// As [`decode_payload`].
pub fn decode_launch<T: DeserializeOwned>(payload: &[u8]) -> Result<T, CodecError> {
    whole(bincode::serde::decode_from_slice(payload, LAUNCH), payload.len())
}

fn whole<T>(
    decoded: Result<(T, usize), bincode::error::DecodeError>,
    length: usize,
) -> Result<T, CodecError> {
    let (message, read) = decoded.map_err(|error| match error {
        // Its own words name the variant of an error of ours that nobody knows.
        bincode::error::DecodeError::OtherString(words) => CodecError::Malformed(words),
        other => CodecError::Malformed(other.to_string()),
    })?;
    if read < length { Err(CodecError::TrailingBytes(length - read)) } else { Ok(message) }
}
