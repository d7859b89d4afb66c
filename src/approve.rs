//! `stockade approve`: what waits until somebody has approved it, and the answer.
//!
//! All that is shown comes from whoever asks, who would like nothing better than to have something else seen: no byte of it reaches
//! the terminal but as an escape, words keep their ends, and what is left out is said to be. An answer names the digest of what was
//! shown; the daemon takes it for nothing else.

mod shown;
mod watch;

use std::path::PathBuf;

use serde_json::{Value, json};
use stockade_client::{Client, ClientError};
use stockade_protocol::approval::{ApprovalEnd, ApprovalSummary};

use crate::error::CliError;
use crate::{escape, exit, json, out, place};

const EXAMPLES: &str = "Examples:
  stockade approve                     what waits
  stockade approve 0192f0c1            the request whose number begins so
  stockade approve 0192f0c1 --refuse --reason 'not before the release'
  stockade approve --watch             asks about each that comes
  stockade approve --json | jq -r .exec_id

Exit status: 0; 1 where the answer doesn't count, nothing waits under that number, or what was approved doesn't run; 2 for a wrong command line.";

/// Lists what waits until somebody has approved it, and answers.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Approve this one: its number, or the beginning of it
    id: Option<String>,
    /// Refuse it
    #[arg(long, requires = "id")]
    refuse: bool,
    /// Why, for whoever asked and for the record
    #[arg(long, value_name = "TEXT", requires = "id", default_value = "", hide_default_value = true)]
    reason: String,
    /// Tell of each that comes, and ask about it at the terminal
    #[arg(long, conflicts_with = "id")]
    watch: bool,
    /// One JSON object for each; with --watch one for each that comes and that is over, and nothing is asked
    #[arg(long)]
    json: bool,
    /// The daemon's socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(crate) fn approve(arguments: &Arguments) -> Result<u8, CliError> {
    let mut client = place::need("approve", arguments.socket.as_deref())?;
    if arguments.watch {
        return watch::watch(&mut client, arguments.json);
    }
    let (waiting, more) = client.approvals(false).map_err(refused)?;
    let Some(id) = &arguments.id else { return list(&waiting, more, arguments.json) };
    let one = find(&waiting, id)?;
    if !arguments.json {
        out::print(shown::whole(one).as_bytes())?;
    }
    answer(&mut client, one, !arguments.refuse, &arguments.reason, arguments.json)
}

fn list(waiting: &[ApprovalSummary], more: u32, as_json: bool) -> Result<u8, CliError> {
    if as_json {
        let lines: Vec<u8> = waiting.iter().flat_map(|one| json::line(&object(one))).collect();
        return out::print(&lines);
    }
    let mut text: String = waiting.iter().map(|one| shown::whole(one) + "\n").collect();
    match (waiting.len(), more) {
        (0, 0) => text.push_str("nothing waits for an approval\n"),
        (_, 0) => {}
        (_, more) => text.push_str(&format!("and {more} more\n")),
    }
    out::print(text.as_bytes())
}

/// As JSON has it: the digest in hexadecimal.
fn object(one: &ApprovalSummary) -> Value {
    let mut object = json!(one);
    object["digest"] = shown::hex(&one.digest).into();
    object
}

/// The one whose number begins so.
fn find<'a>(waiting: &'a [ApprovalSummary], id: &str) -> Result<&'a ApprovalSummary, CliError> {
    let begins = |one: &&ApprovalSummary| one.exec_id.to_string().starts_with(id);
    let mut found = waiting.iter().filter(begins);
    let shown = escape::line(id.as_bytes());
    match (found.next(), found.next()) {
        (Some(one), None) if !id.is_empty() => Ok(one),
        (Some(_), _) => {
            Err(CliError::Asked(format!("`{shown}` is the beginning of several numbers: write more of it")))
        }
        (None, _) => Err(CliError::Asked(format!("nothing waits under `{shown}`: see `stockade approve`"))),
    }
}

fn answer(
    client: &mut Client,
    one: &ApprovalSummary,
    approve: bool,
    reason: &str,
    as_json: bool,
) -> Result<u8, CliError> {
    let answered = client.answer_approval(one.exec_id, one.digest, approve, reason);
    let (missing, how) = answered.map_err(refused)?;
    let status = if how == Some(ApprovalEnd::Changed) { exit::FAILED } else { 0 };
    if as_json {
        let line = json!({ "exec_id": one.exec_id, "missing": missing, "how": how });
        return out::print_with(&json::line(&line), status);
    }
    out::print_with(format!("{}: {}\n", one.exec_id, shown::answered(missing, how)).as_bytes(), status)
}

fn refused(error: ClientError) -> CliError {
    match error {
        ClientError::Denied(denied) => CliError::Denied(denied),
        other => other.into(),
    }
}
