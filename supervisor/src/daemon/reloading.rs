//! Who asks for a reload, and is told what came of it.
//!
//! The files are read by one reload after the other ([`crate::reload`]). Whoever asks while one goes on is answered by the next: what it
//! reads was there when he asked.

use stockade_audit::Principal;
use stockade_gate::Action;
use stockade_protocol::client::{ReloadReport, ServerMessage};
use stockade_protocol::denied::{Denied, DenyReason};

use super::breakers::may_operate;
use super::state::State;
use crate::dispatcher::ConnectionId;

/// Connections that may wait for a reload.
const WAITING: usize = 64;
/// When to ask again while too many wait, in milliseconds.
const BUSY_MS: u64 = 1_000;

impl State {
    /// A client wants the files to be read again.
    pub(super) fn ask_reload(&mut self, connection: ConnectionId, uid: u32) {
        let daemons = self.settings.uid;
        let may =
            self.operates(connection, Action::Reload, || may_operate(uid, daemons, "have files read again"));
        let asked = may.and_then(|()| {
            if self.reloads.len() >= WAITING || self.reloads.iter().any(|(waits, _)| *waits == connection) {
                let text = "a reload is waited for already, by this connection or by too many others";
                return Err(Denied::new(DenyReason::Busy, text).retry_after(BUSY_MS));
            }
            Ok(())
        });
        match asked {
            Ok(()) => {
                tracing::info!(uid, "a reload is asked for");
                self.reloads.push((connection, self.principal(connection)));
                self.reload.notify_one();
            }
            Err(denied) => {
                self.answer(connection, &ServerMessage::Denied { request_id: 0, exec_id: None, denied });
            }
        }
    }

    /// Who has asked by now: the reload that begins answers them.
    pub(crate) fn take_reloads(&mut self) -> Vec<(ConnectionId, Principal)> {
        core::mem::take(&mut self.reloads)
    }

    /// Tells those who have asked what came of it, and the record of who has left meanwhile, too.
    pub(crate) fn tell_reloaded(&mut self, asked: Vec<(ConnectionId, Principal)>, report: &ReloadReport) {
        let (name, text) = match report.wrong.first() {
            None => ("reloaded", "files were read again, and hold".to_owned()),
            Some(first) => ("not-reloaded", format!("files were read again, and the old ones stay: {first}")),
        };
        for (connection, principal) in asked {
            if let Some(record) = &self.record {
                record.watched(principal, name, text.clone(), "daemon");
            }
            self.answer(connection, &ServerMessage::Reloaded(Box::new(report.clone())));
        }
    }
}
