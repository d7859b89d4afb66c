//! Whom a launcher answers to: a supervisor at the other end of a channel, the one that comes after it, or the process that it is
//! itself a part of.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use stockade_protocol::launch::FromLauncher;
use stockade_wire::channel::ChannelError;

use super::outbox::Outbox;
use super::records::Records;
use crate::poller::Poller;

/// Where a launcher's messages go.
#[derive(Debug)]
pub(super) enum Upward {
    /// Over a channel.
    Apart(Apart),
    /// To whoever calls this launcher, and asks for them: nothing is encoded, and nobody is woken.
    Here(VecDeque<FromLauncher>),
}

/// A supervisor that is a process of its own.
#[derive(Debug)]
pub(super) struct Apart {
    /// `None`: it is gone, and what is said is kept for the next.
    outbox: Option<Outbox>,
    /// What the next will be told, if there can be one.
    records: Option<Records>,
}

impl Upward {
    /// To the other end of `socket`, heard under `token`.
    ///
    /// # Errors
    /// As [`Outbox::new`].
    pub(super) fn apart(socket: OwnedFd, token: u64, poller: &Poller) -> io::Result<Self> {
        let outbox = Some(Outbox::new(socket, token, poller)?);
        Ok(Self::Apart(Apart { outbox, records: None }))
    }

    /// From now on everything that the next supervisor has to know is kept.
    pub(super) fn keep_records(&mut self) {
        if let Self::Apart(apart) = self {
            apart.records.get_or_insert_default();
        }
    }

    /// What is kept, if anything is.
    pub(super) fn records(&self) -> Option<&Records> {
        match self {
            Self::Apart(apart) => apart.records.as_ref(),
            Self::Here(_) => None,
        }
    }

    /// As [`records`](Self::records).
    pub(super) fn records_mut(&mut self) -> Option<&mut Records> {
        match self {
            Self::Apart(apart) => apart.records.as_mut(),
            Self::Here(_) => None,
        }
    }

    /// Says something. Descriptors are beside messages of runs whose output is relayed, of which there are none here.
    pub(super) fn send(&mut self, message: FromLauncher, descriptors: Vec<OwnedFd>, poller: &Poller) {
        match self {
            Self::Apart(apart) => apart.send(&message, descriptors, poller),
            Self::Here(messages) => messages.push_back(message),
        }
    }

    /// The supervisor is gone.
    pub(super) fn lose(&mut self, poller: &Poller) {
        if let Self::Apart(apart) = self
            && let Some(outbox) = apart.outbox.take()
        {
            drop(poller.remove(outbox.channel()));
        }
    }

    /// Another supervisor takes its place, and is told everything that is kept.
    ///
    /// # Errors
    /// As [`Outbox::new`], and of what is kept.
    pub(super) fn take_over(
        &mut self,
        socket: OwnedFd,
        token: u64,
        poller: &Poller,
    ) -> Result<(), ChannelError> {
        self.lose(poller);
        let Self::Apart(apart) = self else { return Ok(()) };
        let mut outbox = Outbox::new(socket, token, poller)?;
        for (packed, beside) in apart.records.as_ref().map(Records::all).transpose()?.unwrap_or_default() {
            outbox.deliver_packed(packed, beside, poller)?;
        }
        apart.outbox = Some(outbox);
        Ok(())
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
            Self::Apart(apart) => apart.outbox.as_ref(),
            Self::Here(_) => None,
        }
    }

    /// As [`outbox`](Self::outbox).
    pub(super) fn outbox_mut(&mut self) -> Option<&mut Outbox> {
        match self {
            Self::Apart(apart) => apart.outbox.as_mut(),
            Self::Here(_) => None,
        }
    }
}

impl Apart {
    fn send(&mut self, message: &FromLauncher, descriptors: Vec<OwnedFd>, poller: &Poller) {
        let Some(records) = &mut self.records else {
            if let Some(outbox) = &mut self.outbox {
                outbox.send(message, descriptors, poller);
            }
            return;
        };
        // What can't be encoded can't be said.
        let Ok(packed) = records.keep(message, &descriptors) else { return };
        if let Some(outbox) = &mut self.outbox {
            // One that is gone shows when it is read from.
            drop(outbox.deliver_packed(Rc::clone(&packed), descriptors, poller));
        }
    }
}
