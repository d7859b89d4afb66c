//! `stockade approve`: what waits until somebody has approved it, and the answer.
//!
//! All that is shown comes from whoever asks, who would like nothing better than to have something else seen: no byte of it reaches
//! the terminal but as an escape, words keep their ends, and what is left out is said to be. An answer names the digest of what was
//! shown; the daemon takes it for nothing else.
//!
//! A number says nothing of what waits under it: its beginning is the clock's, and who asks may give up one request and make another
//! while somebody types. So a yes is said to what was seen: at the terminal behind it, or with the digest that was shown.

mod ask;
mod shown;
mod watch;

use std::path::PathBuf;

use serde_json::{Value, json};
use stockade_client::{Client, ClientError};
use stockade_gate::tools::hex;
use stockade_protocol::ExecId;
use stockade_protocol::approval::{ApprovalEnd, ApprovalSummary};

use self::ask::Said;
use crate::error::CliError;
use crate::{escape, exit, ids, json, out, place};

/// Bytes of a digest.
const DIGEST: usize = 32;

const EXAMPLES: &str = "Examples:
  stockade approve                     what waits
  stockade approve 5a0d                the request whose number ends so: shows it, and asks
  stockade approve 5a0d --digest 5f03a9c1
  stockade approve 5a0d --refuse --reason 'not before the release'
  stockade approve --watch             asks about each that comes
  stockade approve --json | jq -r .exec_id

Exit status: 0; 1 where nothing was answered or the answer doesn't count, nothing waits under that number, or what was approved doesn't run; 2 for a wrong command line.";

/// Lists what waits until somebody has approved it, and answers.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Show this one, and ask about it at the terminal: its number, or a part of its end or beginning that only one has
    id: Option<String>,
    /// Approve it without a question, if its digest is this: as many digits as one has seen, 8 at least
    #[arg(long, value_name = "HEX", requires = "id", value_parser = digits)]
    digest: Option<String>,
    /// Refuse it, without a question
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
    let exec_id = find(&waiting, id)?;
    let Some(one) = client.approval(exec_id).map_err(refused)? else { return Err(nothing(id)) };
    let Some((approve, reason)) = decide(&one, arguments)? else {
        return Err(CliError::Asked(format!("nothing was answered: {exec_id} waits")));
    };
    answer(&mut client, &one, approve, &reason, arguments.json)
}

/// What a digest begins with.
fn digits(text: &str) -> Result<String, String> {
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("a digest has hexadecimal digits".to_owned());
    }
    if !(shown::FIRST_DIGITS..=2 * DIGEST).contains(&text.len()) {
        return Err(format!("{} to {} digits of it are needed", shown::FIRST_DIGITS, 2 * DIGEST));
    }
    Ok(text.to_ascii_lowercase())
}

/// Whether it's approved, and why; `None`: whoever was asked has said neither.
fn decide(one: &ApprovalSummary, arguments: &Arguments) -> Result<Option<(bool, String)>, CliError> {
    if let Some(digits) = &arguments.digest {
        let digest = hex(&one.digest);
        if !digest.starts_with(digits.as_str()) {
            let text = format!(
                "what waits under {} has the digest {digest}, not {digits}: it isn't what was seen",
                one.exec_id
            );
            return Err(CliError::Asked(text));
        }
    }
    let reason = arguments.reason.clone();
    if arguments.refuse || arguments.digest.is_some() {
        if !arguments.json {
            out::print(shown::whole(one).as_bytes())?;
        }
        return Ok(Some((!arguments.refuse, reason)));
    }
    if arguments.json || !ask::is_possible() {
        let text = "approving takes a `y` at the terminal, or `--digest` with the first digits of the one that was seen: `stockade approve` shows it";
        return Err(CliError::Asked(text.to_owned()));
    }
    if !one.may_answer {
        out::print(shown::whole(one).as_bytes())?;
        return Err(CliError::Asked(shown::not_yours(one).to_owned()));
    }
    Ok(match ask::ask(one)? {
        Said::Yes => Some((true, reason)),
        Said::No(text) => Some((false, if text.is_empty() { reason } else { text })),
        Said::Nothing | Said::Gone => None,
    })
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
    object["digest"] = hex(&one.digest).into();
    object
}

/// The one whose number ends or begins so. A whole number need not be listed.
fn find(waiting: &[ApprovalSummary], id: &str) -> Result<ExecId, CliError> {
    if let Ok(id) = id.parse() {
        return Ok(id);
    }
    let found = ids::one_of(id, waiting, |one| one.exec_id.to_string())?;
    found.map(|one| one.exec_id).ok_or_else(|| nothing(id))
}

fn nothing(id: &str) -> CliError {
    let shown = escape::line(id.as_bytes());
    CliError::Asked(format!(
        "nothing waits under `{shown}`: see `stockade approve`; a number, or {} of its last digits",
        ids::SHORTEST
    ))
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
