//! `stockade grant`: more than the rules of access give, to somebody, for a while.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use serde_json::{Value, json};
use stockade_client::{Client, ClientError};
use stockade_gate::tools::hex;
use stockade_policies::amount::{TIME_EXPECTED, Time};
use stockade_protocol::grants::{GrantGiven, GrantList, GrantSummary, GrantTerms, GrantWhat};
use stockade_protocol::{Bytes, ExecId};
use stockade_supervisor::access::Who;
use stockade_supervisor::words::duration;

use crate::color::Paint;
use crate::error::CliError;
use crate::{access, escape, ids, json, out, place, table};

/// The most characters of arguments in a table.
const COLUMN: usize = 60;

const EXAMPLES: &str = "Examples:
  stockade grant add alice --policy build-host --for 10m --why 'the release'
  stockade grant add 1000+agent.service --tool deploy --args '{\"to\":\"staging\"}' --for 1h --uses 3 --why TICKET-7
  stockade grant add alice --policy build-host --for 1h --ends-runs --why 'to look' -- make test
  stockade grant request --policy build-host --for 10m --why 'the tests fail there only'
  stockade grant list
  stockade grant answer 0192f0c1-7a10-7c3b-9d44-5a610ef28399 yes
  stockade grant revoke 8399";

/// Gives somebody more than the rules do, for a while; asks for that; and takes it away.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The daemon's socket
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    subcommand: Subcommand,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    /// Gives it: for whom the rules permit to `grant`, and to nobody himself
    Add {
        /// A user's name or uid; behind a `+` the systemd unit, nothing for who is of none [default: whatever the unit]
        who: String,
        #[command(flatten)]
        terms: Terms,
    },
    /// Asks for it, for oneself: it waits for an hour until somebody answers
    Request {
        #[command(flatten)]
        terms: Terms,
    },
    /// What holds and what waits for an answer: one's own, or everybody's for whom the rules permit to `grant`, `approve` or `inspect`
    List {
        /// One JSON object a grant or request
        #[arg(long)]
        json: bool,
    },
    /// Answers somebody's request: for whom the rules permit to `approve`, and never one's own
    Answer {
        /// Its whole id: a part of it might be another's by now
        id: String,
        /// Whether he is given it
        #[arg(value_parser = ["yes", "no"])]
        answer: String,
    },
    /// Takes a grant away, at once, or withdraws a request: one's own, or anybody's for whom the rules permit to `grant`
    Revoke {
        /// Its id, or a part of the beginning or end that only one has
        id: String,
    },
}

/// What is given or asked for.
#[derive(Debug, clap::Args)]
struct Terms {
    /// To run commands under this policy
    #[arg(long, value_name = "NAME", required_unless_present = "tool", conflicts_with = "tool")]
    policy: Option<String>,
    /// To call this tool
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// With these parameters of the tool only: a JSON object
    #[arg(long, value_name = "JSON", requires = "tool")]
    args: Option<String>,
    /// For how long: 1s to 24h
    #[arg(long = "for", value_name = "TIME", value_parser = time_of)]
    length: Time,
    /// How often [default: any number of times]
    #[arg(long, value_name = "N")]
    uses: Option<u32>,
    /// Runs by it end with it
    #[arg(long)]
    ends_runs: bool,
    /// The reason, for whoever looks later
    #[arg(long, value_name = "TEXT")]
    why: String,
    /// With this command line only
    #[arg(last = true, conflicts_with = "tool")]
    command: Vec<OsString>,
}

fn time_of(text: &str) -> Result<Time, String> {
    Time::parse(text).map_err(|reason| format!("{reason}; expected {TIME_EXPECTED}"))
}

impl Terms {
    fn told(&self) -> GrantTerms {
        let what = match (&self.policy, &self.tool) {
            (_, Some(tool)) => GrantWhat::Tool(tool.clone()),
            (policy, None) => GrantWhat::Policy(policy.clone().unwrap_or_default()),
        };
        let words = || self.command.iter().map(|word| Bytes::from(word.as_bytes())).collect();
        let command = (!self.command.is_empty()).then(|| GrantGiven::Command(words()));
        let parameters = self.args.as_ref().map(|text| GrantGiven::Parameters(Bytes::from(text.as_str())));
        GrantTerms {
            what,
            given: parameters.or(command),
            length_ms: self.length.milliseconds(),
            uses: self.uses,
            ends_runs: self.ends_runs,
            why: self.why.clone(),
        }
    }
}

pub(crate) fn grant(arguments: &Arguments) -> Result<u8, CliError> {
    let mut client = place::need("grant", arguments.socket.as_deref())?;
    let text = match &arguments.subcommand {
        Subcommand::Add { who, terms } => {
            let Who { uid, unit } = access::someone(who)?;
            let made = client.grant_add(uid, unit.as_deref(), &terms.told()).map_err(denied)?;
            format!("{}: granted {}\n", made.id, sentence(&made))
        }
        Subcommand::Request { terms } => {
            let made = client.grant_request(&terms.told()).map_err(denied)?;
            format!(
                "{}: asked for {}; `stockade grant list` says whether it's given\n",
                made.id,
                sentence(&made)
            )
        }
        Subcommand::List { json } => {
            let list = client.grants().map_err(denied)?;
            let all = || list.grants.iter().chain(&list.requests);
            if *json {
                let lines: Vec<u8> = all().flat_map(|one| json::line(&object(one))).collect();
                return out::print(&lines);
            }
            listed(&list, Paint::to(&std::io::stdout()))
        }
        Subcommand::Answer { id, answer } => {
            let id = whole(&mut client, id)?;
            match client.grant_answer(&id, answer == "yes").map_err(denied)? {
                Some(made) => format!("{id}: granted {}\n", sentence(&made)),
                None => format!("{id}: refused\n"),
            }
        }
        Subcommand::Revoke { id } => {
            let id = find(&mut client, id, |list| list.grants.into_iter().chain(list.requests).collect())?;
            let runs = client.grant_revoke(&id).map_err(denied)?;
            let ended = if runs == 0 { String::new() } else { format!(", and {runs} runs end with it") };
            format!("{id}: gone{ended}\n")
        }
    };
    out::print(text.as_bytes())
}

fn denied(error: ClientError) -> CliError {
    match error {
        ClientError::Denied(denied) => CliError::Denied(denied),
        other => other.into(),
    }
}

/// The request of this name, which has to be whole: what is found by a part of it may be another one than was looked at.
fn whole(client: &mut Client, text: &str) -> Result<String, CliError> {
    if text.parse::<ExecId>().is_ok() {
        return Ok(text.to_owned());
    }
    let all = client.grants().map_err(denied)?.requests;
    let like = all.iter().filter(|one| one.id.starts_with(text) || one.id.ends_with(text));
    let like: Vec<_> = like.map(|one| format!("{}: {}", one.id, sentence(one))).collect();
    let text = escape::line(text.as_bytes());
    let found = if like.is_empty() { "no request is like it".to_owned() } else { like.join("\n  ") };
    Err(CliError::Asked(format!(
        "`{text}` is no whole id, and an answer is about one request: give all of it\n  {found}"
    )))
}

/// The one whose name begins or ends so. What isn't among those that one sees goes to the daemon as it is, which has the words.
fn find(
    client: &mut Client,
    text: &str,
    among: impl Fn(GrantList) -> Vec<GrantSummary>,
) -> Result<String, CliError> {
    let all = among(client.grants().map_err(denied)?);
    let found = ids::one_of(text, &all, |one| one.id.clone())?;
    Ok(found.map_or_else(|| text.to_owned(), |one| one.id.clone()))
}

/// Whose it is, as one would name him.
fn who(one: &GrantSummary) -> String {
    let unit =
        one.unit.as_deref().map_or_else(String::new, |unit| format!("+{}", escape::line(unit.as_bytes())));
    format!("{}{unit}", one.uid)
}

fn what(one: &GrantSummary) -> String {
    let (kind, name) = match &one.what {
        GrantWhat::Policy(name) => ("policy", name.as_str()),
        GrantWhat::Tool(name) => ("tool", name.as_str()),
        _ => ("something", "unknown"),
    };
    format!("{kind} {}", escape::line(name.as_bytes()))
}

/// With which arguments.
fn with(one: &GrantSummary) -> String {
    one.shown.as_deref().map_or_else(|| "any".to_owned(), |shown| escape::line(shown.as_bytes()))
}

/// In a table; all of it stands in the sentences about one, and in JSON.
fn cut(text: String) -> String {
    if text.chars().count() <= COLUMN { text } else { text.chars().take(COLUMN - 1).chain(['…']).collect() }
}

/// Whether it gives anything: one that is used up does no more, and is there until its time is over.
fn state(one: &GrantSummary) -> &'static str {
    match (one.by, one.uses_left) {
        (None, _) => "requested",
        (Some(_), Some(0)) => "used up",
        (Some(_), _) => "holds",
    }
}

fn uses(one: &GrantSummary) -> String {
    match (one.uses_left, one.uses) {
        (Some(left), Some(of)) => format!("{left} of {of}"),
        _ => "any".to_owned(),
    }
}

/// In whole seconds, rounded up: what was given for ten minutes is told as that.
fn lasts(one: &GrantSummary) -> String {
    duration(one.left_ms.div_ceil(1_000).saturating_mul(1_000))
}

pub(crate) fn sentence(one: &GrantSummary) -> String {
    let exactly = one.shown.as_ref().map_or_else(String::new, |_| format!(" with exactly `{}`", with(one)));
    let uses = one.uses_left.map_or_else(String::new, |left| format!(", {left} uses"));
    let ends = if one.ends_runs { ", runs end with it" } else { "" };
    format!("{} to {}{exactly} for {}{uses}{ends}", what(one), who(one), lasts(one))
}

fn object(one: &GrantSummary) -> Value {
    let mut object = json!(one);
    object["digest"] = one.digest.map(|digest| hex(&digest)).into();
    object["state"] = state(one).into();
    object
}

fn listed(list: &GrantList, paint: Paint) -> String {
    let head = ["ID", "STATE", "WHO", "WHAT", "WITH", "FOR", "USES", "BY", "WHY"].map(str::to_owned);
    let row = |one: &GrantSummary| {
        let ends = if one.ends_runs { ", ends runs" } else { "" };
        [
            escape::line(one.id.as_bytes()),
            state(one).to_owned(),
            who(one),
            what(one),
            cut(with(one)),
            format!("{}{ends}", lasts(one)),
            uses(one),
            one.by.map_or_else(|| "-".to_owned(), |by| by.to_string()),
            escape::line(one.why.as_bytes()),
        ]
    };
    let rows: Vec<_> =
        core::iter::once(head).chain(list.grants.iter().chain(&list.requests).map(row)).collect();
    let mut text =
        table::columns(&rows, |row, _, cell| if row == 0 { paint.bold(cell) } else { cell.to_owned() });
    if list.left_out > 0 {
        text.push_str(&format!("{} more aren't shown\n", list.left_out));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(by: Option<u32>) -> GrantSummary {
        GrantSummary {
            id: "018f2d5e-7a10-7c3b-9d44-5a610ef28399".into(),
            uid: 1_000,
            unit: Some("agent\x1b[2J".into()),
            what: GrantWhat::Policy("build".into()),
            digest: Some([0xab; 32]),
            shown: Some("make \x1b test".into()),
            left_ms: 90_000,
            uses: Some(3),
            uses_left: Some(2),
            ends_runs: true,
            by,
            why: "TICKET-7".into(),
        }
    }

    #[test]
    fn a_list_says_all_of_a_grant_and_nothing_that_a_terminal_obeys() {
        let list = GrantList { grants: vec![one(Some(0))], requests: vec![one(None)], left_out: 5 };
        let paint = Paint::to(&std::fs::File::open("/dev/null").unwrap_or_else(|_| unreachable!()));
        let text = listed(&list, paint);
        for part in
            ["holds", "requested", "policy build", "2 of 3", "ends runs", "TICKET-7", "5 more", "90 s"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains('\x1b') && !sentence(&one(None)).contains('\x1b'), "{text}");
    }

    #[test]
    fn an_object_has_the_digest_in_hexadecimal_and_says_whether_it_holds() {
        let object = object(&one(Some(0)));
        assert_eq!(
            (object["digest"].as_str(), object["state"].as_str()),
            (Some(&*"ab".repeat(32)), Some("holds"))
        );
        assert_eq!(self::object(&one(None))["state"], "requested");
        let used_up = |by| GrantSummary { uses_left: Some(0), ..one(by) };
        assert_eq!(self::object(&used_up(Some(0)))["state"], "used up");
        assert_eq!(self::object(&used_up(None))["state"], "requested");
    }
}
