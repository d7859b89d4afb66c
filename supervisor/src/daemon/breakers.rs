//! What clients ask of breakers: anybody how they stand, who operates the daemon to close one.

use stockade_gate::{Action, StageName};
use stockade_protocol::client::ServerMessage;
use stockade_protocol::denied::{Denied, DenyReason};

use super::state::State;
use crate::dispatcher::ConnectionId;

const ROOT: u32 = 0;

impl State {
    /// The breakers of which there is something to say.
    pub(super) fn list_breakers(&mut self, connection: ConnectionId) {
        // They have the names of tools.
        if let Err(denied) = self.may_look(connection) {
            self.answer(connection, &ServerMessage::Denied { request_id: 0, exec_id: None, denied });
            return;
        }
        let breakers = self.gate.breakers(self.uptime());
        self.answer(connection, &ServerMessage::Breakers(breakers));
    }

    /// Whether somebody may see what is known of all tools. To look isn't what one is locked out for.
    ///
    /// # Errors
    /// The refusal.
    fn may_look(&mut self, connection: ConnectionId) -> Result<(), Denied> {
        if !self.gate.has_rules() {
            return Ok(());
        }
        let (asker, uptime) = (self.asker(connection)?, self.uptime());
        self.gate.looks(&asker, uptime)
    }

    /// Closes a tool's breaker.
    pub(super) fn reset_breaker(&mut self, connection: ConnectionId, uid: u32, tool: String) {
        let daemons = self.settings.uid;
        let may = self.operates(connection, Action::Operate, || may_operate(uid, daemons, "close a breaker"));
        let reset = may.and_then(|()| self.gate.reset_breaker(&tool));
        let answer = match reset {
            Ok(changed) => {
                tracing::info!(tool, uid, changed, "a breaker was closed by hand");
                if let Some(record) = self.record.as_ref().filter(|_| changed) {
                    let text = "a breaker was closed by hand".to_owned();
                    record.watched(self.principal(connection), "breaker-reset", text, &tool);
                }
                ServerMessage::BreakerReset { tool, changed }
            }
            Err(denied) => ServerMessage::Denied { request_id: 0, exec_id: None, denied },
        };
        self.answer(connection, &answer);
    }
}

/// Who has a broken tool called again has every caller call it: that is for who operates the daemon. `daemons`: as whom that runs.
/// Where there are rules of access, they say it.
pub(super) fn may_operate(uid: u32, daemons: u32, what: &str) -> Result<(), Denied> {
    if [ROOT, daemons].contains(&uid) {
        return Ok(());
    }
    let text = format!("only root and the user that the daemon runs as may {what}");
    Err(Denied::new(DenyReason::NotPermitted, text)
        .decided_by(StageName::Access.name(), "built-in")
        .remedy("ask an operator; a tool whose breaker is open is tried again by itself"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_but_root_and_the_daemons_user_may_reset() {
        let may_operate = |uid, daemons| may_operate(uid, daemons, "close a breaker");
        assert!(may_operate(0, 990).is_ok() && may_operate(990, 990).is_ok() && may_operate(0, 0).is_ok());
        for (uid, daemons) in [(1_000, 990), (990, 0), (u32::MAX, 990)] {
            let denied = may_operate(uid, daemons).unwrap_err();
            let decided = denied.decided.unwrap();
            assert_eq!((denied.reason, decided.stage.as_str()), (DenyReason::NotPermitted, "access"));
            assert!(denied.remedy.is_some());
        }
    }
}
