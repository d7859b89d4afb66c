//! The events of one run, as an iterator.

use stockade_protocol::ExecId;
use stockade_protocol::client::{ExecEvent, ServerMessage};

use crate::client::Client;
use crate::error::{About, ClientError};

/// One thing that happened to one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunEvent {
    /// The run.
    pub exec_id: ExecId,
    /// Its place among the run's events.
    pub seq: u64,
    /// What.
    pub event: ExecEvent,
}

/// A run's events until its `Exited`; see [`Client::events`].
#[derive(Debug)]
pub struct Events<'a> {
    client: &'a mut Client,
    exec_id: ExecId,
    done: bool,
}

impl<'a> Events<'a> {
    pub(crate) fn new(client: &'a mut Client, exec_id: ExecId) -> Self {
        Self { client, exec_id, done: false }
    }
}

impl Iterator for Events<'_> {
    type Item = Result<RunEvent, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let ours = self.exec_id;
        let event = self.client.wait_for(None, Some(About::Run(ours)), |message| match message {
            ServerMessage::Event { exec_id, seq, event } if *exec_id == ours => {
                // The message is removed next; its bytes are taken, not copied.
                let event = core::mem::replace(event, ExecEvent::OutputLost { events: 0 });
                Some(Ok(RunEvent { exec_id: ours, seq: *seq, event }))
            }
            ServerMessage::Denied { exec_id: Some(exec_id), denied, .. } if *exec_id == ours => {
                Some(Err(ClientError::Denied(denied.clone())))
            }
            _ => None,
        });
        let event = event.and_then(core::convert::identity);
        self.done = !matches!(&event, Ok(event) if !matches!(event.event, ExecEvent::Exited { .. }));
        Some(event)
    }
}
