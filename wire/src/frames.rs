//! Cuts a client's byte stream into frames. Does no I/O: bytes and descriptors are pushed in, messages taken out.
//!
//! A frame's length is checked before anything is kept for it; the buffer never holds more than one frame of the
//! limit and one read. Descriptors queue in the order they came; a message takes those its fields name.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use serde::de::DeserializeOwned;
use stockade_protocol::bounds::MAX_DESCRIPTORS;
use stockade_protocol::codec::{self, CodecError, HEADER};

/// Bytes of room that are kept when nothing waits.
const KEPT: usize = 64 * 1024;

/// The reading side of one connection.
#[derive(Debug)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    start: usize,
    descriptors: VecDeque<OwnedFd>,
    limit: u32,
}

/// More descriptors wait than any message may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_DESCRIPTORS} descriptors are waiting for their message")]
pub struct TooManyDescriptors;

impl FrameBuffer {
    /// For payloads of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self { bytes: Vec::new(), start: 0, descriptors: VecDeque::new(), limit }
    }

    /// From here on, for payloads of at most `limit` bytes.
    pub fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// Adds what one read brought.
    ///
    /// # Errors
    /// [`TooManyDescriptors`]; the connection should be closed.
    pub fn push(&mut self, bytes: &[u8], descriptors: Vec<OwnedFd>) -> Result<(), TooManyDescriptors> {
        self.append(bytes);
        self.descriptors.extend(descriptors);
        if self.descriptors.len() > MAX_DESCRIPTORS { Err(TooManyDescriptors) } else { Ok(()) }
    }

    /// Adds what one read brought on a connection where no descriptors are received.
    pub fn append(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The bytes of the frame that has begun and isn't whole, if [`FrameBuffer::next_message`] gave none.
    #[must_use]
    pub fn begun(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Whoever saw what has begun takes it elsewhere: what comes next begins a frame.
    pub fn forget_begun(&mut self) {
        self.bytes.clear();
        self.start = 0;
    }

    /// Takes the next whole message; `None`: more bytes are needed.
    ///
    /// # Errors
    /// [`CodecError`]; a length over the limit is told as soon as its header is there.
    pub fn next_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, CodecError> {
        let waiting = &self.bytes[self.start..];
        let Some(header) = waiting.first_chunk::<HEADER>() else { return Ok(None) };
        let length = codec::payload_length(*header, self.limit)?;
        let Some(payload) = waiting.get(HEADER..HEADER + length) else { return Ok(None) };
        let message = codec::decode_payload(payload);
        self.start += HEADER + length;
        if self.start == self.bytes.len() && self.bytes.capacity() > KEPT {
            // Who has sent one large frame doesn't keep its room for ever.
            self.bytes = Vec::new();
            self.start = 0;
        }
        message.map(Some)
    }

    /// Bytes of memory that this takes, with so many bytes more at least.
    #[must_use]
    pub fn held_with(&self, more: usize) -> usize {
        self.bytes.capacity().max(self.bytes.len() - self.start + more)
    }

    /// Takes the oldest waiting descriptor.
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }

    /// Descriptors that no message has taken yet.
    #[must_use]
    pub fn waiting_descriptors(&self) -> usize {
        self.descriptors.len()
    }

    /// Whether a frame has begun and isn't whole yet.
    #[must_use]
    pub fn is_mid_frame(&self) -> bool {
        self.bytes.len() > self.start
    }
}
