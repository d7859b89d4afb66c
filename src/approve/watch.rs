//! `stockade approve --watch`: each that comes to wait, and a question about it at the terminal.

use std::collections::VecDeque;

use serde_json::json;
use stockade_client::{Client, ClientError};
use stockade_protocol::ExecId;
use stockade_protocol::approval::{ApprovalEnd, ApprovalSummary};
use stockade_protocol::client::ServerMessage;

use super::ask::{self, Said};
use super::{object, refused, shown};
use crate::error::CliError;
use crate::{json, out, words};

/// What is waited for an answer about.
struct Watch<'a> {
    client: &'a mut Client,
    waiting: VecDeque<ApprovalSummary>,
    json: bool,
}

/// Until the daemon or the terminal ends.
pub(super) fn watch(client: &mut Client, json: bool) -> Result<u8, CliError> {
    if !json && !ask::is_possible() {
        let text =
            "--watch asks at the terminal, and standard input or output isn't one; with --json it only tells";
        return Err(CliError::Asked(text.into()));
    }
    let mut watch = Watch { client, waiting: VecDeque::new(), json };
    watch.list()?;
    loop {
        while let Some(message) = watch.client.next_waiting() {
            watch.message(message?)?;
        }
        match watch.waiting.pop_front() {
            Some(one) if !json && one.may_answer => {
                if !watch.ask(one.exec_id)? {
                    return Ok(0);
                }
            }
            Some(_) => {}
            None => {
                let message = watch.client.receive(None)?;
                watch.message(message)?;
            }
        }
    }
}

impl Watch<'_> {
    fn list(&mut self) -> Result<(), CliError> {
        let (waiting, _) = self.client.approvals(true).map_err(refused)?;
        for one in waiting {
            self.came(one)?;
        }
        Ok(())
    }

    fn message(&mut self, message: ServerMessage) -> Result<(), CliError> {
        match message {
            ServerMessage::ApprovalAsked(one) => self.came(*one),
            ServerMessage::ApprovalOver { exec_id, how } => self.over(exec_id, how),
            ServerMessage::ApprovalsMissed => self.list(),
            ServerMessage::Error(error) => Err(ClientError::Refused(error).into()),
            _ => Ok(()),
        }
    }

    fn came(&mut self, one: ApprovalSummary) -> Result<(), CliError> {
        if self.waiting.iter().any(|known| known.exec_id == one.exec_id) {
            return Ok(());
        }
        if self.json {
            out::print(&json::line(&json!({ "asked": object(&one) })))?;
        } else if !one.may_answer {
            out::print(format!("{}\n", shown::whole(&one)).as_bytes())?;
        }
        self.waiting.push_back(one);
        Ok(())
    }

    fn over(&mut self, exec_id: ExecId, how: ApprovalEnd) -> Result<(), CliError> {
        self.waiting.retain(|one| one.exec_id != exec_id);
        if self.json {
            out::print(&json::line(&json!({ "over": { "exec_id": exec_id, "how": how } })))?;
        } else {
            out::print(format!("{exec_id}: {}\n", shown::end(how)).as_bytes())?;
        }
        Ok(())
    }

    /// Asks a person about what still waits, shown whole; `false`: nobody is there any more.
    fn ask(&mut self, exec_id: ExecId) -> Result<bool, CliError> {
        let Some(one) = self.client.approval(exec_id).map_err(refused)? else { return Ok(true) };
        let (approve, reason) = match ask::ask(&one)? {
            Said::Yes => (true, String::new()),
            Said::No(reason) => (false, reason),
            Said::Nothing => return Ok(true),
            Said::Gone => return Ok(false),
        };
        let text = match self.client.answer_approval(one.exec_id, one.digest, approve, &reason) {
            Ok((missing, how)) => shown::answered(missing, how),
            Err(ClientError::Denied(denied)) => words::denied(&denied),
            Err(other) => return Err(other.into()),
        };
        out::print(format!("{}: {text}\n", one.exec_id).as_bytes())?;
        Ok(true)
    }
}
