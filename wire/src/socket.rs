//! `sendmsg` and `recvmsg` with descriptors.

use core::mem::MaybeUninit;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use stockade_protocol::bounds::MAX_DESCRIPTORS;

/// The most descriptors that the kernel lets one message carry (`SCM_MAX_FD`). There is room for all of them: those
/// without room the kernel closes then and there, and the close of what a stranger sends may wait for ever.
pub const KERNEL_DESCRIPTORS: usize = 253;

/// What one `recvmsg` brought.
#[derive(Debug)]
pub struct Received {
    /// Bytes written to the buffer. 0: the other end has closed.
    pub length: usize,
    /// Descriptors, close-on-exec; more than [`MAX_DESCRIPTORS`] only with `truncated`.
    pub descriptors: Vec<OwnedFd>,
    /// The datagram was longer than the buffer, or carried more descriptors than allowed. What of the bytes didn't fit is
    /// gone.
    pub truncated: bool,
}

/// Sends bytes, with descriptors beside the first of them. Never raises `SIGPIPE`.
///
/// # Errors
/// Those of `sendmsg(2)`; `InvalidInput` for more than [`MAX_DESCRIPTORS`].
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let sent = retry(|| {
        rustix::net::sendmsg(&socket, &[io::IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
    })?;
    Ok(sent)
}

/// Receives bytes, and whatever descriptors came beside them, close-on-exec.
///
/// # Errors
/// Those of `recvmsg(2)`, `WouldBlock` included.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(KERNEL_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let answer = loop {
        match rustix::net::recvmsg(
            &socket,
            &mut [io::IoSliceMut::new(buffer)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            descriptors.extend(passed);
        }
    }
    let truncated = answer.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        || descriptors.len() > MAX_DESCRIPTORS;
    Ok(Received { length: answer.bytes, descriptors, truncated })
}

/// Of a stream socket, how many bytes [`receive`] with this buffer would bring, and surely no descriptor, if it's given a buffer of
/// that length; `None`: it might bring some. Nothing is taken from the socket, and 0 is its end. What comes meanwhile changes
/// nothing of that: it stands behind.
///
/// # Errors
/// Those of `recvmsg(2)`, `WouldBlock` included.
pub fn without_descriptors(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    // They stay in the socket, so none of them is closed for want of room here.
    let peek = retry(|| {
        let mut none = RecvAncillaryBuffer::new(&mut []);
        let flags = RecvFlags::PEEK | RecvFlags::CMSG_CLOEXEC;
        rustix::net::recvmsg(&socket, &mut [io::IoSliceMut::new(buffer)], &mut none, flags)
    })?;
    Ok(if peek.flags.contains(ReturnFlags::CTRUNC) { None } else { Some(peek.bytes) })
}

/// Bytes of the datagram that waits on a `SOCK_SEQPACKET` socket; 0 if the other end has closed.
///
/// # Errors
/// Those of recv(2), `WouldBlock` included.
pub fn waiting(socket: impl AsFd) -> io::Result<usize> {
    let mut nothing = [0; 0];
    let (_, length) = retry(|| rustix::net::recv(&socket, &mut nothing, RecvFlags::PEEK | RecvFlags::TRUNC))?;
    Ok(length)
}

/// A connected pair of `SOCK_SEQPACKET` sockets, close-on-exec.
///
/// # Errors
/// Those of `socketpair(2)`.
pub fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let pair =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok(pair)
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_look_tells_what_a_receive_would_bring_and_takes_nothing() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut buffer = [0; 16];
        let look = |buffer: &mut [u8]| without_descriptors(&theirs, buffer);
        assert_eq!(look(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        send(&ours, b"none", &[]).unwrap();
        let none = look(&mut buffer).unwrap();
        assert_eq!(none, Some(4));
        // Behind what brings none, and within the same receive, but for one of the length that was told.
        send(&ours, b"one", &[ours.as_fd()]).unwrap();
        assert_eq!((look(&mut buffer).unwrap(), look(&mut buffer).unwrap()), (None, None));
        let received = receive(&theirs, &mut buffer[..4]).unwrap();
        assert_eq!((received.length, received.descriptors.len()), (4, 0));
        let received = receive(&theirs, &mut buffer).unwrap();
        assert_eq!((&buffer[..received.length], received.descriptors.len()), (&b"one"[..], 1));
        drop((ours, received));
        assert_eq!(look(&mut buffer).unwrap(), Some(0));
    }
}
