//! Whom a launcher answers to: a supervisor at the other end of a channel, or the process that it is itself a part of.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use stockade_protocol::launch::FromLauncher;

use super::outbox::Outbox;
use crate::poller::Poller;

/// Where a launcher's messages go.
#[derive(Debug)]
pub(super) enum Upward {
    /// Over a channel.
    Apart(Outbox),
    /// To whoever calls this launcher, and asks for them: nothing is encoded, and nobody is woken.
    Here(VecDeque<FromLauncher>),
}

impl Upward {
    /// To the other end of `socket`, heard under `token`.
    ///
    /// # Errors
    /// As [`Outbox::new`].
    pub(super) fn apart(socket: OwnedFd, token: u64, poller: &Poller) -> io::Result<Self> {
        Outbox::new(socket, token, poller).map(Self::Apart)
    }

    /// Says something. Descriptors are beside messages of runs whose output is relayed, of which there are none here.
    pub(super) fn send(&mut self, message: FromLauncher, descriptors: Vec<OwnedFd>, poller: &Poller) {
        match self {
            Self::Apart(outbox) => outbox.send(&message, descriptors, poller),
            Self::Here(messages) => messages.push_back(message),
        }
    }

    /// What was said first and not taken yet, if it's to be taken here.
    pub(super) fn take(&mut self) -> Option<FromLauncher> {
        match self {
            Self::Apart(_) => None,
            Self::Here(messages) => messages.pop_front(),
        }
    }

    /// Whether something waits to be taken here.
    pub(super) fn waits(&self) -> bool {
        matches!(self, Self::Here(messages) if !messages.is_empty())
    }

    /// What is sent from, where there is a channel.
    pub(super) fn outbox(&self) -> Option<&Outbox> {
        match self {
            Self::Apart(outbox) => Some(outbox),
            Self::Here(_) => None,
        }
    }

    /// As [`outbox`](Self::outbox).
    pub(super) fn outbox_mut(&mut self) -> Option<&mut Outbox> {
        match self {
            Self::Apart(outbox) => Some(outbox),
            Self::Here(_) => None,
        }
    }
}
