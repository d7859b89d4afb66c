//! Doors for the fuzzer to what reads text of strangers, and is nobody else's: compiled with the feature `fuzzing` only,
//! which the crate `fuzz` turns on and nothing that is shipped. Nothing behaves otherwise with it.

use core::pin::Pin;
use core::task::{Context, Poll};
use std::ffi::OsStr;
use std::io;

use stockade_protocol::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use crate::{activation, metrics, peer, register, systemd, traces};

/// A file of this text as the register of launchers, and as it would be written again.
///
/// # Errors
/// Why it isn't taken, in words.
pub fn launchers(text: &[u8]) -> Result<Vec<u8>, String> {
    register::rewritten(text).map_err(|error| crate::admission::chain(&error))
}

/// What a request's head comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// What is asked for.
    Asked {
        /// `GET`
        method: String,
        /// `/metrics`
        path: String,
    },
    /// The whole answer, since nothing can be asked like that.
    Refused(Vec<u8>),
    /// It ends before it is a head.
    Cut,
}

/// The head of a request to the metrics that comes in pieces of so many bytes, and how many bytes were read for it.
pub fn http(request: &[u8], piece: usize) -> (Head, usize) {
    let mut pieces = Pieces { rest: request, piece: piece.max(1) };
    let head = now(metrics::head_of(&mut pieces));
    (head.unwrap_or(Head::Cut), request.len() - pieces.rest.len())
}

/// The client's span that an environment names, as the variable would say it again.
#[must_use]
pub fn traceparent(environment: &[(Bytes, Bytes)]) -> Option<String> {
    traces::Parent::of(environment).map(traces::Parent::to_text)
}

/// Where `NOTIFY_SOCKET` leads: a path, or a name in the abstract namespace (`true`).
///
/// # Errors
/// It leads nowhere.
pub fn notify_socket(name: &OsStr) -> io::Result<(Vec<u8>, bool)> {
    systemd::address_of(name)
}

/// Which of the descriptors that were passed under these names is the clients' socket.
#[must_use]
pub fn clients_socket(names: &[String]) -> Option<usize> {
    activation::ours(names)
}

/// What a process's `stat` says of its name and its parent, and its `status` of its groups, if its ids are these.
#[must_use]
pub fn process<'a>(
    stat: &'a str,
    status: &str,
    ids: (u32, u32),
) -> (Option<&'a str>, Option<i32>, Option<Vec<u32>>) {
    peer::said_of(stat, status, ids)
}

/// Bytes that come in pieces.
struct Pieces<'a> {
    rest: &'a [u8],
    piece: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.rest.len().min(self.piece).min(into.remaining());
        let (next, rest) = self.rest.split_at(length);
        into.put_slice(next);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

/// A future that waits for nothing. `None`: it would have.
fn now<T>(future: impl Future<Output = io::Result<T>>) -> Option<T> {
    let mut context = Context::from_waker(core::task::Waker::noop());
    match core::pin::pin!(future).poll(&mut context) {
        Poll::Ready(done) => done.ok(),
        Poll::Pending => None,
    }
}
