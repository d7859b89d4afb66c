//! A run through the daemon: one poll loop over the socket, the signals and our own output. No thread, no runtime.
//!
//! ```text
//! asked ──Accepted──> accepted ──Started──> running ──Exited──> ended
//!    └──Denied──> ended        └──Exited (set-up failed)──> ended
//! ```
//!
//! When the daemon goes while the run's end is still to come, the client comes back to the next one by itself
//! (`client/src/connection.rs`) and the loop goes on; here a pause that lasts is told of, and a signal ends the wait.
//!
//! The socket is read only while our own output takes more: a reader of ours that is slow stops its run's pipe in
//! the daemon, and costs nobody memory. Before `Started` there is no command a signal could reach, so the first one
//! cancels.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use stockade_client::{Client, ClientError, ConnectError, Pause, Request};
use stockade_protocol::ExecId;
use stockade_protocol::client::{ExecEvent, ServerMessage};
use stockade_protocol::outcome::Outcome;

use crate::error::CliError;
use crate::follow::Follow;
use crate::signals::{Signals, Wish};
use crate::wait::wait;

/// SIGPIPE: what a command meets when nobody reads its output.
const SIGPIPE: u8 = 13;
/// SIGINT: Ctrl-C.
const SIGINT: u8 = 2;

/// A pause without a daemon that is shorter isn't told of: an upgrade takes less.
pub(crate) const PAUSE_TOLD_AFTER: Duration = Duration::from_secs(1);

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
    /// It wrote on until its limit on output, before it heard that nobody reads.
    outran: bool,
    /// The pause that was told of, until it's told that it's over.
    told_pause: Option<Pause>,
    /// The signal that came last, as far as it's known which.
    asked: Option<u8>,
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
            outran: false,
            told_pause: None,
            asked: None,
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
                    Some(Ok(message)) => self.message(message)?,
                    Some(Err(error)) => return Err(self.failed(error)),
                    None => break,
                }
            }
            self.tell_broken()?;
            if self.done && !self.follow.pending() {
                let status = self.follow.status().unwrap_or(crate::exit::OURS);
                return Ok(self.follow.finish(if self.outran { 128 + SIGPIPE } else { status }));
            }
            if let Some(status) = self.wait()? {
                return Ok(status);
            }
        }
    }

    /// Waits for the next thing and does what doesn't depend on messages. `Some`: leave now.
    fn wait(&mut self) -> Result<Option<u8>, CliError> {
        // Nothing comes from a daemon that hasn't answered our greeting, so a reader of ours who is slow is no reason to
        // keep it waiting.
        let reading = !self.done && (!self.follow.pending() || self.client.pause().is_some());
        let (stdout, stderr) = (&self.follow.stdout, &self.follow.stderr);
        let wanted = [
            Some((self.signals.as_fd(), PollFlags::IN)),
            self.client.socket().filter(|_| reading).map(|socket| (socket, PollFlags::IN)),
            stdout.pending().then(|| (stdout.as_fd(), PollFlags::OUT)),
            stderr.pending().then(|| (stderr.as_fd(), PollFlags::OUT)),
        ];
        let greeted_by = (!self.client.is_greeted()).then_some(self.greeted_by);
        let due = self.client.due().filter(|_| !self.done);
        let deadline = [greeted_by, due, self.pause_due()].into_iter().flatten().min();
        let [signal, socket, ..] = wait(wanted, deadline).map_err(CliError::io("wait for the daemon"))?;
        if greeted_by.is_some_and(|deadline| !socket && Instant::now() >= deadline) {
            return Err(ClientError::Silent(Client::ANSWER_WITHIN).into());
        }
        self.follow.stdout.flush();
        self.follow.stderr.flush();
        if socket || due.is_some_and(|due| Instant::now() >= due) {
            let away = self.client.pause().is_some();
            if let Err(error) = self.client.pump() {
                // One that came back doesn't want us.
                if away {
                    self.tell_left_behind();
                }
                return Err(error.into());
            }
        }
        self.tell_pause();
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
                if let ExecEvent::Exited { outcome, .. } = &event {
                    self.done = true;
                    let is_told = self.told_broken && !self.follow.is_json();
                    self.outran = is_told && matches!(outcome, Outcome::OutputExceeded { .. });
                    // The end is ours now; that the daemon hears of it no more is its loss, not the run's.
                    let _ = self.client.acknowledge(exec_id, seq);
                }
            }
            ServerMessage::AwaitsApproval { request_id, exec_id, within_ms, score, factors }
                if self.request_id == Some(request_id) =>
            {
                // Known from now on, so that a signal gives it up.
                self.exec_id = Some(exec_id);
                self.follow.awaits(exec_id, within_ms, score, &factors);
                if self.cancel {
                    self.client.cancel(exec_id)?;
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
        if let Wish::Forward(signal) | Wish::Leave(signal) = wish {
            self.asked = Some(signal);
        }
        if self.done {
            // The run is over; only our own reader keeps us.
            return Ok(match wish {
                Wish::Forward(signal) | Wish::Leave(signal) => Some(128 + signal),
                Wish::Cancel => Some(self.follow.status().unwrap_or(crate::exit::OURS)),
            });
        }
        if self.client.pause().is_some() {
            // There's nobody to give it to. The run, which has heard nothing of it, goes on.
            self.tell_left_behind();
            return Ok(Some(128 + self.asked.unwrap_or(SIGINT)));
        }
        match (wish, self.exec_id) {
            (Wish::Leave(signal), _) => return Ok(Some(128 + signal)),
            (Wish::Forward(signal), Some(exec_id)) if self.started => self.client.signal(exec_id, signal)?,
            (Wish::Forward(_) | Wish::Cancel, Some(exec_id)) => self.client.cancel(exec_id)?,
            (_, None) => self.cancel = true,
        }
        Ok(None)
    }

    /// When to tell of the pause there is.
    fn pause_due(&self) -> Option<Instant> {
        let pause = self.client.pause().filter(|_| !self.done && self.told_pause.is_none())?;
        Some(pause.since + PAUSE_TOLD_AFTER)
    }

    fn tell_pause(&mut self) {
        if self.pause_due().is_some_and(|due| Instant::now() >= due) {
            self.told_pause = self.client.pause();
            if let Some(pause) = self.told_pause {
                self.follow.waiting(pause.until - pause.since);
            }
        } else if self.client.pause().is_none()
            && let Some(pause) = self.told_pause.take()
        {
            self.follow.back(pause.since.elapsed());
        }
    }

    /// Why the run isn't followed any more, after what can be said of the run itself.
    fn failed(&mut self, error: ClientError) -> CliError {
        if matches!(error, ClientError::Gone { .. }) {
            self.tell_left_behind();
        }
        error.into()
    }

    fn tell_left_behind(&mut self) {
        if let Some(exec_id) = self.exec_id {
            self.follow
                .note(&format!("the daemon is gone and the run may go on: `stockade attach {exec_id}`"));
        }
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

/// An error of a conversation, which is one of the greeting as long as that wasn't answered, and not of what was asked.
fn of_greeting(error: CliError, greeted: bool, path: PathBuf) -> CliError {
    match error {
        CliError::Client(source) if !greeted && source.about().is_none() => {
            ConnectError::Handshake { path, source }.into()
        }
        error => error,
    }
}

/// Asks for a detached run; returns its id once it's admitted. One that waits for an approval is told of.
pub(crate) fn detach(
    client: &mut Client,
    request: &Request,
    follow: &mut Follow,
) -> Result<ExecId, CliError> {
    let ours = client.begin(request)?;
    loop {
        match client.receive(None)? {
            ServerMessage::Event { exec_id, event: ExecEvent::Accepted { request_id }, .. }
                if request_id == ours =>
            {
                return Ok(exec_id);
            }
            ServerMessage::AwaitsApproval { request_id, exec_id, within_ms, score, factors }
                if request_id == ours =>
            {
                follow.awaits(exec_id, within_ms, score, &factors);
                follow.flush();
            }
            ServerMessage::Denied { request_id, denied, .. } if request_id == ours => {
                return Err(CliError::Denied(denied));
            }
            ServerMessage::Error(error) => return Err(ClientError::Refused(error).into()),
            _ => {}
        }
    }
}
