//! The door for JSON-RPC: messages read, taken one after the other, and answered by the connection's session.
//!
//! Each request becomes the message that a binary client would have sent, and goes the same way ([`State::message`]
//! (crate::daemon::State::message)), one at a time: the next isn't taken before this one's effect has room. A batch is one message
//! whose requests are taken like that; until they are they count as this connection's memory.

use std::path::PathBuf;

use stockade_jsonrpc::{Call, FramingError, Kind, Session, Todo};
use stockade_protocol::ExecId;
use stockade_protocol::client::{ClientMessage, ProtocolErrorCode};
use tokio::time::Instant;

use super::{Connection, End, Incoming, broken};
use crate::daemon::{Found, Pause};
use crate::form::Form;
use crate::ledger::Entry;
use crate::turn::Turn;

impl Connection<'_> {
    /// Reads messages until the end. `until`: when the first must be whole.
    pub(super) async fn read_json(
        &mut self,
        kind: Kind,
        frames: &mut Incoming,
        until: Instant,
    ) -> Result<End, End> {
        // First: whatever is wrong from here on is told as JSON.
        self.begin_session(kind);
        frames.become_text(kind)?;
        let waiting = self.daemon.state.borrow().ledger.entry(self.uid);
        let mut turn = Turn::default();
        let mut until = Some(until);
        loop {
            let text = self.next_text(frames, until.take()).await?;
            let calls = self.with_session(|session| session.open(&text));
            drop(text);
            frames.count();
            self.count(&calls, &waiting)?;
            for call in calls {
                self.take_call(call).await?;
                turn.took_one().await;
            }
            // Of a message that was wrong altogether, too.
            self.wait_for_room().await;
            self.is_within_memory()?;
            waiting.set(0);
            turn.took_one().await;
        }
    }

    fn begin_session(&self, kind: Kind) {
        let random = ExecId::generate();
        let first = random.as_bytes()[8..].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let session = Session::new(kind, env!("CARGO_PKG_VERSION"), first);
        if let Some(outbox) = self.daemon.state.borrow_mut().connections.get_mut(&self.id) {
            outbox.form = Form::Json(Box::new(session));
        }
    }

    /// The next whole message. `until`: when it must be there, if that doesn't depend on when it begins.
    async fn next_text(&mut self, frames: &mut Incoming, mut until: Option<Instant>) -> Result<Vec<u8>, End> {
        loop {
            let Some(text) = &mut frames.text else { return Err(End::Gone) };
            if let Some(message) = text.next_message().map_err(not_a_message)? {
                return Ok(message);
            }
            if text.is_mid_message() {
                until.get_or_insert_with(|| Instant::now() + self.daemon.settings.frame_within);
            }
            self.fill(frames, until, "a message").await?;
        }
    }

    fn count(&self, calls: &[Call], waiting: &Entry) -> Result<(), End> {
        let bytes = calls.iter().map(Call::held).sum();
        if !waiting.allows(bytes) {
            return Err(broken(ProtocolErrorCode::TooMany, waiting.refusal()));
        }
        waiting.set(bytes);
        Ok(())
    }

    async fn take_call(&mut self, call: Call) -> Result<(), End> {
        let needs_home = call.is_for_a_run() || call.is_for_a_policy();
        let home = if needs_home { self.home().await? } else { PathBuf::new() };
        self.wait_for_room().await;
        self.wait_for_closings().await?;
        let pause = match self.with_session(|session| session.take(call)) {
            Todo::Done => Pause::None,
            Todo::Exec(request) => {
                let workspace = self.workspace(&request).await?;
                // It has taken a while, perhaps.
                self.wait_for_room().await;
                self.put_found(ClientMessage::Exec(request), Found { home, workspace })?
            }
            Todo::Messages(messages) => {
                let mut last = Pause::None;
                for message in messages {
                    if let Pause::Feed(feed) = self.put(message)? {
                        last = Pause::Feed(feed);
                    }
                }
                self.with_session(Session::done);
                last
            }
            Todo::Explain(asked) => {
                let answer = self.daemon.state.borrow_mut().explain(self.id, &asked, &home)?;
                self.with_session(|session| session.explained(answer.as_ref()));
                // A policy is resolved for it: as much as for a run.
                tokio::task::yield_now().await;
                Pause::None
            }
            Todo::CancelRun(run) => self.put(ClientMessage::Cancel { exec_id: run })?,
            Todo::CancelNumber(number) => {
                let run = self.daemon.state.borrow_mut().give_up_asked(self.id, number);
                run.map_or(Ok(Pause::None), |run| self.put(ClientMessage::Cancel { exec_id: run }))?
            }
        };
        self.is_within_memory()?;
        self.pause(pause).await
    }

    fn put(&self, message: ClientMessage) -> Result<Pause, End> {
        self.put_found(message, Found::default())
    }

    fn put_found(&self, message: ClientMessage, found: Found) -> Result<Pause, End> {
        Ok(self.daemon.state.borrow_mut().message(self.id, message, found, || None)?)
    }

    fn with_session<T: Default>(&self, act: impl FnOnce(&mut Session) -> T) -> T {
        let mut state = self.daemon.state.borrow_mut();
        state.connections.get_mut(&self.id).map(|outbox| outbox.with_session(act)).unwrap_or_default()
    }
}

fn not_a_message(error: FramingError) -> End {
    let code = match error {
        FramingError::TooLarge | FramingError::HeaderTooLarge => ProtocolErrorCode::TooLarge,
        _ => ProtocolErrorCode::Malformed,
    };
    broken(code, error.to_string())
}
