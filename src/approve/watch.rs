//! `stockade approve --watch`: each that comes to wait, and a question about it at the terminal.

use std::collections::VecDeque;
use std::io::{BufRead as _, IsTerminal as _};

use serde_json::json;
use stockade_client::{Client, ClientError};
use stockade_protocol::ExecId;
use stockade_protocol::approval::{ApprovalEnd, ApprovalSummary};
use stockade_protocol::client::ServerMessage;

use super::{object, refused, shown};
use crate::error::CliError;
use crate::{json, out, words};

/// What is waited for an answer about.
struct Watch<'a> {
    client: &'a mut Client,
    waiting: VecDeque<ApprovalSummary>,
    json: bool,
}

/// A person's answer.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Yes,
    No(String),
    /// Somebody else shall answer, or nobody.
    Nothing,
}

/// Until the daemon or the terminal ends.
pub(super) fn watch(client: &mut Client, json: bool) -> Result<u8, CliError> {
    if !json && !std::io::stdin().is_terminal() {
        let text = "--watch asks at the terminal, and standard input isn't one; with --json it only tells";
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
                if !watch.ask(&one)? {
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

    /// Asks a person; `false`: nobody is there any more.
    fn ask(&mut self, one: &ApprovalSummary) -> Result<bool, CliError> {
        let question = "approve it? y, or n with a reason behind it; nothing: leave it to others > ";
        out::print(format!("{}{question}", shown::whole(one)).as_bytes())?;
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        if read.map_err(CliError::io("read the answer"))? == 0 {
            return Ok(false);
        }
        let (approve, reason) = match said(&line) {
            Said::Yes => (true, String::new()),
            Said::No(reason) => (false, reason),
            Said::Nothing => return Ok(true),
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

/// What a line says: only a plain yes is one.
fn said(line: &str) -> Said {
    let line = line.trim();
    let (word, reason) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    match word {
        "y" | "yes" if reason.is_empty() => Said::Yes,
        "n" | "no" => Said::No(reason.trim().to_owned()),
        _ => Said::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_yes_is_one() {
        for yes in ["y", "yes\n", " y \n"] {
            assert_eq!(said(yes), Said::Yes);
        }
        assert_eq!(said("n not now\n"), Said::No("not now".into()));
        assert_eq!(said("no"), Said::No(String::new()));
        for nothing in ["", "\n", "Y es", "yy", "y but", "approve", "1"] {
            assert_eq!(said(nothing), Said::Nothing, "{nothing}");
        }
    }
}
