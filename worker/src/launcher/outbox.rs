//! A channel that is never waited for: what the other end has no room for queues here, in order.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use serde::Serialize;
use stockade_wire::channel::{Channel, Packed};

use crate::poller::{Interest, Poller};

/// A non-blocking channel and what waits for it. The queue is bounded by the runs there are: each sends a fixed
/// number of messages, beside samples, which are dropped while anything waits.
#[derive(Debug)]
pub(crate) struct Outbox {
    channel: Channel,
    token: u64,
    queue: VecDeque<(Packed, Vec<OwnedFd>)>,
}

impl Outbox {
    /// Makes the socket non-blocking and listens to it under `token`.
    pub(crate) fn new(socket: OwnedFd, token: u64, poller: &Poller) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        poller.add(&socket, token, Interest::Read)?;
        Ok(Self { channel: Channel::new(socket), token, queue: VecDeque::new() })
    }

    /// The channel, to receive from.
    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Sends now, or as soon as there is room. A dead other end shows when it is read from.
    pub(crate) fn send<T: Serialize>(&mut self, message: &T, descriptors: Vec<OwnedFd>, poller: &Poller) {
        let Ok(packed) = Packed::new(message) else { return };
        self.queue.push_back((packed, descriptors));
        self.flush(poller);
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self, poller: &Poller) {
        while let Some((packed, descriptors)) = self.queue.front() {
            let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            match packed.send(&self.channel, &borrowed) {
                Err(error) if error.would_block() => break,
                _ => drop(self.queue.pop_front()),
            }
        }
        let interest = Interest::of(true, !self.queue.is_empty());
        drop(poller.modify(&self.channel, self.token, interest));
    }
}
