//! A channel that is never waited for: what the other end has no room for queues here, in order.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::Serialize;
use stockade_wire::channel::{Channel, ChannelError, Packed};

use crate::poller::{Interest, Poller};

/// How long a channel is left alone while too many descriptors are on their way, or no memory is there: nothing tells that
/// they have landed, or that it is.
pub(crate) const IN_FLIGHT_PAUSE: Duration = Duration::from_millis(5);

/// A non-blocking channel and what waits for it. The queue is bounded by the runs there are: each sends a fixed
/// number of messages, beside samples, which are dropped while anything waits.
#[derive(Debug)]
pub(crate) struct Outbox {
    channel: Channel,
    token: u64,
    /// Whether its other end has anything to say.
    hears: bool,
    /// What it's registered for; `None`: it isn't.
    interest: Option<Interest>,
    queue: VecDeque<(Rc<Packed>, Vec<OwnedFd>)>,
    /// When it's tried again though nothing tells that there is room.
    again: Option<Instant>,
}

impl Outbox {
    /// Makes the socket non-blocking and listens to it under `token`.
    pub(crate) fn new(socket: OwnedFd, token: u64, poller: &Poller) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        poller.add(&socket, token, Interest::Read)?;
        let interest = Some(Interest::Read);
        Ok(Self { hears: true, interest, ..Self::silent(Channel::new(socket), token) })
    }

    /// Of an other end that never says anything: only while something waits is the poller asked, for room. The channel must be
    /// non-blocking.
    pub(crate) fn silent(channel: Channel, token: u64) -> Self {
        Self { channel, token, hears: false, interest: None, queue: VecDeque::new(), again: None }
    }

    /// The channel, to receive from.
    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Sends now, or as soon as there is room. A dead other end shows when it is read from.
    pub(crate) fn send<T: Serialize>(&mut self, message: &T, descriptors: Vec<OwnedFd>, poller: &Poller) {
        drop(self.deliver(message, descriptors, poller));
    }

    /// As [`send`](Self::send), for an other end that isn't read from.
    ///
    /// # Errors
    /// It's gone, or the message is none that can be sent.
    pub(crate) fn deliver<T: Serialize>(
        &mut self,
        message: &T,
        descriptors: Vec<OwnedFd>,
        poller: &Poller,
    ) -> Result<(), ChannelError> {
        self.deliver_packed(Rc::new(Packed::new(message)?), descriptors, poller)
    }

    /// As [`deliver`](Self::deliver), of a message that somebody keeps.
    ///
    /// # Errors
    /// The other end is gone.
    pub(crate) fn deliver_packed(
        &mut self,
        packed: Rc<Packed>,
        descriptors: Vec<OwnedFd>,
        poller: &Poller,
    ) -> Result<(), ChannelError> {
        self.queue.push_back((packed, descriptors));
        self.flush(poller)
    }

    /// Sends what waits.
    ///
    /// # Errors
    /// The other end is gone, and what waited for it with it.
    pub(crate) fn flush(&mut self, poller: &Poller) -> Result<(), ChannelError> {
        self.again = None;
        let mut sent = Ok(());
        while let Some((packed, descriptors)) = self.queue.front() {
            let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            match packed.send(&self.channel, &borrowed) {
                Err(error) if error.would_block() => break,
                Err(error) if error.will_pass() => {
                    self.again = Some(Instant::now() + IN_FLIGHT_PAUSE);
                    break;
                }
                told => {
                    sent = sent.and(told);
                    self.queue.pop_front();
                }
            }
        }
        self.listen(poller);
        sent
    }

    /// When it must be flushed though the poller says nothing.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.again
    }

    /// Asks the poller for what it's to tell of this, if that is something else than before.
    fn listen(&mut self, poller: &Poller) {
        let waits = !self.queue.is_empty() && self.again.is_none();
        let wanted = (self.hears || waits).then(|| Interest::of(self.hears, waits));
        if wanted == self.interest {
            return;
        }
        drop(match (self.interest, wanted) {
            (None, Some(wanted)) => poller.add(&self.channel, self.token, wanted),
            (_, Some(wanted)) => poller.modify(&self.channel, self.token, wanted),
            (_, None) => poller.remove(&self.channel),
        });
        self.interest = wanted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue, its other end, and the poller.
    fn pair() -> (Outbox, Channel, Poller) {
        let (ours, theirs) = stockade_wire::socket::seqpacket_pair().unwrap();
        rustix::io::ioctl_fionbio(&ours, true).unwrap();
        rustix::io::ioctl_fionbio(&theirs, true).unwrap();
        (Outbox::silent(Channel::new(ours), 7), Channel::new(theirs), Poller::new().unwrap())
    }

    fn ready(poller: &Poller) -> Vec<crate::poller::Ready> {
        let mut ready = Vec::new();
        poller.wait(&mut ready, Some(Duration::ZERO)).unwrap();
        ready
    }

    #[test]
    fn what_a_full_channel_does_not_take_waits_in_order_and_nothing_is_asked_afterwards() {
        const MESSAGES: u64 = 5000;
        let (mut outbox, theirs, poller) = pair();
        for number in 0..MESSAGES {
            outbox.deliver(&number, Vec::new(), &poller).unwrap();
        }
        assert!(!outbox.queue.is_empty(), "the channel has taken them all: nothing is tested");
        assert!(ready(&poller).is_empty(), "no room yet");
        for number in 0..MESSAGES {
            let (heard, _) = theirs.receive::<u64>().unwrap().unwrap();
            assert_eq!(heard, number);
            for event in ready(&poller) {
                assert!(event.token == 7 && event.writable);
                outbox.flush(&poller).unwrap();
            }
        }
        assert!(outbox.queue.is_empty() && outbox.interest.is_none());
        drop(theirs);
        assert!(ready(&poller).is_empty(), "its end is somebody else's business");
    }

    #[test]
    fn an_other_end_that_is_gone_is_told_and_keeps_nothing() {
        let (mut outbox, theirs, poller) = pair();
        while outbox.queue.is_empty() {
            outbox.deliver(&0_u64, Vec::new(), &poller).unwrap();
        }
        drop(theirs);
        outbox.flush(&poller).unwrap_err();
        assert!(outbox.queue.is_empty() && ready(&poller).is_empty());
        outbox.deliver(&0_u64, Vec::new(), &poller).unwrap_err();
    }
}
