//! A run through the daemon: one poll loop over the socket, the signals and our own output. No thread, no runtime.
//!
//! ```text
//! asked ──Accepted──> accepted ──Started──> running ──Exited──> ended
//!    └──Denied──> ended        └──Exited (set-up failed)──> ended
//! ```
//!
//! The socket is read only while our own output takes more: a reader of ours that is slow stops its run's pipe in
//! the daemon, and costs nobody memory. Before `Started` there is no command a signal could reach, so the first one
//! cancels.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Instant;

use rustix::event::PollFlags;
use stockade_client::{Client, ClientError, ConnectError, Request};
use stockade_protocol::ExecId;
use stockade_protocol::client::{ExecEvent, ServerMessage};

use crate::error::CliError;
use crate::follow::Follow;
use crate::signals::{Signals, Wish};
use crate::wait::wait;

/// SIGPIPE: what a command meets when nobody reads its output.
const SIGPIPE: u8 = 13;

/// One run that is followed.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    client: Client,
    follow: &'a mut Follow,
    signals: Signals,
    /// By when the daemon must have answered our greeting.
    greeted_by: Instant,
    request_id: Option<u64>,
    exec_id: Option<ExecId>,
    started: bool,
    told_broken: bool,
    /// A signal that came before the run had an id.
    cancel: bool,
    done: bool,
}

impl<'a> Session<'a> {
    fn new(client: Client, follow: &'a mut Follow) -> Result<Self, CliError> {
        let signals = Signals::take().map_err(CliError::io("take the signals"))?;
        Ok(Self {
            client,
            follow,
            signals,
            greeted_by: Instant::now() + Client::ANSWER_WITHIN,
            request_id: None,
            exec_id: None,
            started: false,
            told_broken: false,
            cancel: false,
            done: false,
        })
    }

    /// Asks for a run and follows it to its end. The status to exit with. `path`: where the daemon is, which may not have
    /// answered our greeting yet.
    pub(crate) fn run(
        mut client: Client,
        path: PathBuf,
        request: &Request,
        follow: &'a mut Follow,
    ) -> Result<u8, CliError> {
        // First of all: what is left to do here is done while the daemon is at it.
        let request_id = match client.begin(request) {
            Ok(request_id) => request_id,
            Err(error) => return Err(of_greeting(error.into(), client.is_greeted(), path)),
        };
        let mut session = Self::new(client, follow)?;
        session.request_id = Some(request_id);
        session.serve().map_err(|error| of_greeting(error, session.client.is_greeted(), path))
    }

    /// Follows a run that is there already, from its first event that is kept.
    pub(crate) fn attach(client: Client, exec_id: ExecId, follow: &'a mut Follow) -> Result<u8, CliError> {
        let mut session = Self::new(client, follow)?;
        session.exec_id = Some(exec_id);
        session.client.attach(exec_id, 0)?;
        session.serve()
    }

    fn serve(&mut self) -> Result<u8, CliError> {
        loop {
            while !self.done && !self.follow.pending() {
                match self.client.next_waiting() {
                    Some(message) => self.message(message?)?,
                    None => break,
                }
            }
            self.tell_broken()?;
            if self.done && !self.follow.pending() {
                let status = self.follow.status().unwrap_or(crate::exit::OURS);
                return Ok(self.follow.finish(status));
            }
            if let Some(status) = self.wait()? {
                return Ok(status);
            }
        }
    }

    /// Waits for the next thing and does what doesn't depend on messages. `Some`: leave now.
    fn wait(&mut self) -> Result<Option<u8>, CliError> {
        let reading = !self.done && !self.follow.pending();
        let (stdout, stderr) = (&self.follow.stdout, &self.follow.stderr);
        let wanted = [
            Some((self.signals.as_fd(), PollFlags::IN)),
            reading.then(|| (self.client.as_fd(), PollFlags::IN)),
            stdout.pending().then(|| (stdout.as_fd(), PollFlags::OUT)),
            stderr.pending().then(|| (stderr.as_fd(), PollFlags::OUT)),
        ];
        let deadline = (!self.client.is_greeted()).then_some(self.greeted_by);
        let [signal, socket, ..] = wait(wanted, deadline).map_err(CliError::io("wait for the daemon"))?;
        if deadline.is_some_and(|deadline| !socket && Instant::now() >= deadline) {
            return Err(ClientError::Silent(Client::ANSWER_WITHIN).into());
        }
        self.follow.stdout.flush();
        self.follow.stderr.flush();
        if socket {
            self.client.pump()?;
        }
        if signal && let Some(wish) = self.signals.next() {
            return self.obey(wish);
        }
        Ok(None)
    }

    fn message(&mut self, message: ServerMessage) -> Result<(), CliError> {
        match message {
            ServerMessage::Event { exec_id, seq, event } => {
                match &event {
                    ExecEvent::Accepted { request_id } if self.request_id == Some(*request_id) => {
                        self.exec_id = Some(exec_id);
                        if self.cancel {
                            self.client.cancel(exec_id)?;
                        }
                    }
                    ExecEvent::Started { .. } | ExecEvent::Output { .. } => self.started = true,
                    _ => {}
                }
                if self.exec_id != Some(exec_id) {
                    return Ok(());
                }
                self.follow.event(exec_id, seq, &event);
                if matches!(event, ExecEvent::Exited { .. }) {
                    self.done = true;
                    // The end is ours now; that the daemon hears of it no more is its loss, not the run's.
                    let _ = self.client.acknowledge(exec_id, seq);
                }
            }
            ServerMessage::Denied { request_id, exec_id, denied } => {
                let of_request = request_id != 0 && self.request_id == Some(request_id);
                // A denied signal or cancel of a run that has just ended changes nothing.
                let of_attach = self.request_id.is_none() && exec_id == self.exec_id && !self.started;
                if of_request || of_attach {
                    self.follow.denied(&denied);
                    self.done = true;
                }
            }
            ServerMessage::Error(error) => return Err(ClientError::Refused(error).into()),
            _ => {}
        }
        Ok(())
    }

    fn obey(&mut self, wish: Wish) -> Result<Option<u8>, CliError> {
        if self.done {
            // The run is over; only our own reader keeps us.
            return Ok(match wish {
                Wish::Forward(signal) | Wish::Leave(signal) => Some(128 + signal),
                Wish::Cancel => Some(self.follow.status().unwrap_or(crate::exit::OURS)),
            });
        }
        match (wish, self.exec_id) {
            (Wish::Leave(signal), _) => return Ok(Some(128 + signal)),
            (Wish::Forward(signal), Some(exec_id)) if self.started => self.client.signal(exec_id, signal)?,
            (Wish::Forward(_) | Wish::Cancel, Some(exec_id)) => self.client.cancel(exec_id)?,
            (_, None) => self.cancel = true,
        }
        Ok(None)
    }

    /// Nobody reads our output any more: the command should know, as it would unconfined.
    fn tell_broken(&mut self) -> Result<(), CliError> {
        if self.told_broken || self.done || !self.follow.stdout.broken() {
            return Ok(());
        }
        let Some(exec_id) = self.exec_id else { return Ok(()) };
        self.told_broken = true;
        if self.follow.is_json() {
            self.client.cancel(exec_id)?;
        } else {
            self.client.signal(exec_id, SIGPIPE)?;
        }
        Ok(())
    }
}

/// An error of a conversation, which is one of the greeting as long as that wasn't answered.
fn of_greeting(error: CliError, greeted: bool, path: PathBuf) -> CliError {
    match error {
        CliError::Client(source) if !greeted => ConnectError::Handshake { path, source }.into(),
        error => error,
    }
}

/// Asks for a detached run; returns its id once it's admitted.
pub(crate) fn detach(client: &mut Client, request: &Request) -> Result<ExecId, CliError> {
    client.exec(request).map_err(|error| match error {
        ClientError::Denied(denied) => CliError::Denied(denied),
        other => other.into(),
    })
}
