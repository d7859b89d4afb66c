//! Our own standard output and error, written without ever waiting: one loop serves the run, the signals and both
//! streams, so none of them may hold it up.
//!
//! The descriptors are shared with whoever started us, so `O_NONBLOCK` is not ours to set. A pipe is written with
//! `RWF_NOWAIT`, a socket with `MSG_DONTWAIT`; where the kernel has neither, at most `PIPE_BUF` bytes once `poll`
//! has said that so many fit. Files don't wait.
//!
//! When the other end is gone the sink is [`Sink::broken`]: whoever feeds it then closes the pipe it reads, so
//! that the command meets the `SIGPIPE` it would have met unconfined.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::FileType;
use rustix::io::{Errno, ReadWriteFlags};
use rustix::net::SendFlags;

/// Bytes moved at once.
pub(crate) const CHUNK: usize = 64 * 1024;
/// Bytes moved at once at first.
const FIRST: usize = 4096;
/// What `poll` promises to fit into a pipe that is writable.
const PIPE_BUF: usize = 4096;

/// How a descriptor is written without waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Files: writing doesn't wait for a reader.
    Plain,
    /// `pwritev2` with `RWF_NOWAIT`.
    NoWait,
    /// `sendto` with `MSG_DONTWAIT`.
    Socket,
    /// Up to [`PIPE_BUF`] bytes, only when `poll` says so.
    Small,
}

/// One stream of ours.
#[derive(Debug)]
pub(crate) struct Sink<F> {
    fd: F,
    manner: Manner,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    error: Option<Errno>,
}

impl<F: AsFd> Sink<F> {
    pub(crate) fn new(fd: F) -> Self {
        let manner = match rustix::fs::fstat(&fd).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::Fifo) => Manner::NoWait,
            Ok(FileType::Socket) => Manner::Socket,
            Ok(FileType::CharacterDevice) if rustix::termios::isatty(&fd) => Manner::Small,
            _ => Manner::Plain,
        };
        Self { fd, manner, buffer: Vec::new(), start: 0, end: 0, error: None }
    }

    /// Whether bytes wait to be written. Feed no more then, and poll for writing.
    pub(crate) fn pending(&self) -> bool {
        self.end > self.start
    }

    /// Whether nothing more can be written, ever.
    pub(crate) fn broken(&self) -> bool {
        self.error.is_some()
    }

    /// Why not, where it's more than a reader that has left.
    pub(crate) fn failure(&self) -> Option<Errno> {
        self.error.filter(|errno| !matches!(*errno, Errno::PIPE | Errno::CONNRESET))
    }

    /// Adds bytes and writes what can be written.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.broken() {
            return;
        }
        self.buffer.truncate(self.end);
        self.buffer.extend_from_slice(bytes);
        self.end = self.buffer.len();
        self.flush();
    }

    /// Reads at most `most` bytes from a pipe, and writes what can be written. 0: the pipe's end. What is read while
    /// the sink is broken is dropped.
    ///
    /// # Errors
    /// Those of `read(2)`.
    pub(crate) fn feed(&mut self, source: impl AsFd, most: usize) -> rustix::io::Result<usize> {
        if self.buffer.len() < FIRST {
            self.buffer.resize(FIRST, 0);
        }
        let most = most.min(self.buffer.len());
        let read = rustix::io::read(source, &mut self.buffer[..most])?;
        // Most commands say little: room for much is made when a read has filled the first.
        if read == self.buffer.len() && read < CHUNK {
            self.buffer.resize(CHUNK, 0);
        }
        if !self.broken() {
            (self.start, self.end) = (0, read);
            self.flush();
        }
        Ok(read)
    }

    /// Writes what can be written.
    pub(crate) fn flush(&mut self) {
        while self.pending() && !self.broken() {
            match self.write() {
                Ok(written) => self.start += written,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) if self.manner == Manner::NoWait => {
                    self.manner = Manner::Small;
                }
                Err(errno) => {
                    self.error = Some(errno);
                    self.start = self.end;
                }
            }
        }
        if !self.pending() {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Writes everything, waiting as long as it takes.
    pub(crate) fn drain(&mut self) {
        self.flush();
        while self.pending() {
            if poll_out(self.fd.as_fd(), None).is_err() {
                return;
            }
            self.flush();
        }
    }

    fn write(&self) -> rustix::io::Result<usize> {
        let bytes = &self.buffer[self.start..self.end];
        match self.manner {
            Manner::Plain => rustix::io::write(&self.fd, bytes),
            // An offset of -1 is the descriptor's own position.
            Manner::NoWait => rustix::io::pwritev2(
                &self.fd,
                &[std::io::IoSlice::new(bytes)],
                u64::MAX,
                ReadWriteFlags::NOWAIT,
            ),
            Manner::Socket => rustix::net::send(&self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            Manner::Small => {
                let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
                if !poll_out(self.fd.as_fd(), Some(&now))? {
                    return Err(Errno::AGAIN);
                }
                rustix::io::write(&self.fd, &bytes[..bytes.len().min(PIPE_BUF)])
            }
        }
    }
}

impl<F: AsFd> AsFd for Sink<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn poll_out(fd: BorrowedFd<'_>, timeout: Option<&rustix::event::Timespec>) -> rustix::io::Result<bool> {
    let mut polled = [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::OUT)];
    match rustix::event::poll(&mut polled, timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Pushes far more than the other end holds, reads it all there, and compares.
    fn carries_all_without_waiting(mut sink: Sink<impl AsFd>, mut read: impl FnMut(&mut [u8]) -> usize) {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
        sink.push(&bytes);
        assert!(sink.pending(), "everything fitted: the test tests nothing");
        let mut seen = Vec::new();
        let mut buffer = vec![0; 10_000];
        while seen.len() < bytes.len() {
            let length = read(&mut buffer);
            seen.extend_from_slice(&buffer[..length]);
            sink.flush();
        }
        assert!(!sink.pending());
        assert!(seen == bytes);
    }

    #[test]
    fn a_pipe_nobody_reads_yet_does_not_stop_us_and_gets_every_byte() {
        for manner in [Manner::NoWait, Manner::Small] {
            let (reader, writer) = rustix::pipe::pipe().unwrap();
            let mut sink = Sink::new(writer.as_fd());
            assert_eq!(sink.manner, Manner::NoWait);
            sink.manner = manner;
            carries_all_without_waiting(sink, |buffer| rustix::io::read(&reader, buffer).unwrap());
        }
    }

    #[test]
    fn a_socket_nobody_reads_yet_does_not_stop_us_and_gets_every_byte() {
        let (reader, writer) = UnixStream::pair().unwrap();
        let sink = Sink::new(writer.as_fd());
        assert_eq!(sink.manner, Manner::Socket);
        carries_all_without_waiting(sink, |buffer| rustix::io::read(&reader, buffer).unwrap());
    }

    #[test]
    fn a_reader_that_left_breaks_the_sink_and_is_no_failure() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        drop(reader);
        let mut sink = Sink::new(writer.as_fd());
        sink.push(b"x");
        assert!(sink.broken() && !sink.pending());
        assert_eq!(sink.failure(), None);
        sink.push(b"more");
        assert!(!sink.pending());
    }

    #[test]
    fn a_full_disk_is_a_failure_and_has_its_errno() {
        let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else {
            eprintln!("not tested here: a full disk: /dev/full can't be opened");
            return;
        };
        let mut sink = Sink::new(full.as_fd());
        sink.push(b"x");
        assert_eq!(sink.failure(), Some(Errno::NOSPC));
    }

    #[test]
    fn feeding_takes_much_at_once_where_much_comes() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let (seen, out) = rustix::pipe::pipe().unwrap();
        let mut sink = Sink::new(out.as_fd());
        assert_eq!(rustix::io::write(&writer, &[7; 2 * FIRST]).unwrap(), 2 * FIRST);
        assert_eq!(sink.feed(&reader, CHUNK).unwrap(), FIRST);
        assert_eq!(sink.feed(&reader, CHUNK).unwrap(), FIRST);
        assert_eq!(rustix::io::read(&seen, &mut vec![0; CHUNK]).unwrap(), 2 * FIRST);
        assert_eq!(rustix::io::write(&writer, &[7; CHUNK]).unwrap(), CHUNK);
        assert_eq!(sink.feed(&reader, CHUNK).unwrap(), CHUNK);
    }

    #[test]
    fn feeding_reads_at_most_what_is_allowed() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let (seen, out) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&writer, b"0123456789").unwrap();
        let mut sink = Sink::new(out.as_fd());
        assert_eq!(sink.feed(&reader, 4).unwrap(), 4);
        let mut buffer = [0; 16];
        assert_eq!(rustix::io::read(&seen, &mut buffer).unwrap(), 4);
        assert_eq!(&buffer[..4], b"0123");
    }
}
