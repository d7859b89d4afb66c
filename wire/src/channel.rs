//! Launch messages over a `SOCK_SEQPACKET` socket: one message a datagram, its descriptors beside it.
//!
//! The first byte of a datagram says where the message is: `INLINE`, behind it; `SPILLED`, in a sealed memfd
//! that is the datagram's first descriptor (for messages that a socket buffer might not take).

use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;
use stockade_protocol::bounds::{MAX_LAUNCH_INLINE, MAX_LAUNCH_MESSAGE};
use stockade_protocol::codec::{self, CodecError};

use crate::socket;

const INLINE: u8 = 0;
const SPILLED: u8 = 1;
const SEALS: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// Why a channel gave no message, or took none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The socket failed. `WouldBlock` on a non-blocking one.
    #[error("channel")]
    Io(#[from] io::Error),
    /// The bytes are no message.
    #[error("channel message")]
    Codec(#[from] CodecError),
    /// A datagram that breaks the rules above.
    #[error("channel datagram breaks the rules: {0}")]
    Framing(&'static str),
}

impl ChannelError {
    /// Whether the other end has closed with something unread in it. The kernel tells so once, before what the other end had
    /// sent, which is still there.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::ConnectionReset)
    }

    /// Whether the same message may be taken a moment later, though nothing will tell when: too many descriptors are on their way
    /// in sockets (`ETOOMANYREFS`), or the kernel has no memory for it just now.
    #[must_use]
    pub fn will_pass(&self) -> bool {
        const PASSING: [Errno; 3] = [Errno::TOOMANYREFS, Errno::NOBUFS, Errno::NOMEM];
        matches!(self, Self::Io(error) if PASSING.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error())))
    }

    /// Whether a non-blocking socket had nothing, or no room.
    #[must_use]
    pub fn would_block(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// One end of a channel. Blocking or not as the socket is.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Over a connected `SOCK_SEQPACKET` socket.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// The socket, given up.
    #[must_use]
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Sends one message with its descriptors.
    ///
    /// # Errors
    /// [`ChannelError::Codec`] if it's too large; [`ChannelError::Io`].
    pub fn send<T: Serialize>(
        &self,
        message: &T,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        let packed = Packed::new(message)?;
        packed.send(&self.socket, descriptors)
    }

    /// Receives one message. `None`: the other end has closed.
    ///
    /// # Errors
    /// [`ChannelError`]; after `Framing` or `Codec` the channel is still in step (datagrams keep their bounds).
    pub fn receive<T: DeserializeOwned>(&self) -> Result<Option<(T, Vec<OwnedFd>)>, ChannelError> {
        // As large as the datagram that waits: most are a few bytes, and a buffer for the largest is 24 pages.
        let waiting = socket::waiting(&self.socket)?;
        let mut buffer = vec![0; waiting.min(MAX_LAUNCH_INLINE + 1)];
        let received = socket::receive(&self.socket, &mut buffer)?;
        if received.length == 0 {
            return Ok(None);
        }
        if received.truncated {
            return Err(ChannelError::Framing("truncated"));
        }
        unpack(&buffer[..received.length], received.descriptors).map(Some)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A message that is ready to be sent, perhaps later (a non-blocking socket's queue).
#[derive(Debug)]
pub struct Packed {
    datagram: Vec<u8>,
    spill: Option<OwnedFd>,
    size: usize,
}

impl Packed {
    /// Encodes a message, into a sealed memfd if it's large.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub fn new<T: Serialize>(message: &T) -> Result<Self, ChannelError> {
        let bytes = codec::encode_launch(message)?;
        if bytes.len() <= MAX_LAUNCH_INLINE {
            let mut datagram = Vec::with_capacity(bytes.len() + 1);
            datagram.push(INLINE);
            datagram.extend_from_slice(&bytes);
            return Ok(Self { datagram, spill: None, size: bytes.len() });
        }
        let memfd =
            rustix::fs::memfd_create("stockade-message", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
                .map_err(io::Error::from)?;
        let mut file = std::fs::File::from(memfd);
        file.write_all(&bytes)?;
        rustix::fs::fcntl_add_seals(&file, SEALS).map_err(io::Error::from)?;
        Ok(Self { datagram: vec![SPILLED], spill: Some(file.into()), size: bytes.len() })
    }

    /// Bytes of the message, wherever they are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Sends it.
    ///
    /// # Errors
    /// [`ChannelError::Io`], `WouldBlock` included: nothing was sent then.
    pub fn send(&self, socket: impl AsFd, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let mut all = Vec::with_capacity(descriptors.len() + 1);
        all.extend(self.spill.as_ref().map(AsFd::as_fd));
        all.extend_from_slice(descriptors);
        socket::send(socket, &self.datagram, &all)?;
        Ok(())
    }
}

/// Decodes one received datagram; the descriptors that remain are the message's.
///
/// # Errors
/// [`ChannelError::Framing`], [`ChannelError::Codec`], [`ChannelError::Io`] (reading a spilled message).
pub fn unpack<T: DeserializeOwned>(
    datagram: &[u8],
    mut descriptors: Vec<OwnedFd>,
) -> Result<(T, Vec<OwnedFd>), ChannelError> {
    match datagram.split_first() {
        Some((&INLINE, bytes)) => Ok((codec::decode_launch(bytes)?, descriptors)),
        Some((&SPILLED, [])) if !descriptors.is_empty() => {
            let spill = descriptors.remove(0);
            Ok((codec::decode_launch(&read_spill(&spill)?)?, descriptors))
        }
        _ => Err(ChannelError::Framing("no known kind")),
    }
}

fn read_spill(spill: &OwnedFd) -> Result<Vec<u8>, ChannelError> {
    let seals = rustix::fs::fcntl_get_seals(spill).map_err(io::Error::from)?;
    if !seals.contains(SEALS) {
        return Err(ChannelError::Framing("spilled message isn't sealed"));
    }
    let size = rustix::fs::fstat(spill).map_err(io::Error::from)?.st_size;
    let size = usize::try_from(size).map_err(|_| ChannelError::Framing("size of spilled message"))?;
    if size > MAX_LAUNCH_MESSAGE {
        return Err(CodecError::TooLarge { length: size as u64, limit: MAX_LAUNCH_MESSAGE as u64 }.into());
    }
    let mut bytes = vec![0; size];
    let mut done = 0;
    while done < size {
        let read = rustix::io::pread(spill, &mut bytes[done..], done as u64).map_err(io::Error::from)?;
        if read == 0 {
            return Err(ChannelError::Framing("spilled message is short"));
        }
        done += read;
    }
    Ok(bytes)
}
