//! `stockade access`: who may do what, by the files and the engine that a daemon asks; and letting somebody in again.

mod alone;
mod check;
mod granted;

use std::ffi::OsString;
use std::path::PathBuf;

use serde_json::json;
use stockade_client::ClientError;
use stockade_gate::access::Member;
use stockade_gate::approve::Risk;
use stockade_supervisor::access::{Placed, Who, rules};
use stockade_supervisor::approval::{self, Programs};
use stockade_supervisor::paths::{Scope, Surroundings};

pub(crate) use alone::{Sought, judge};

use crate::color::Paint;
use crate::error::CliError;
use crate::{escape, json, out, place, sources, table};

const EXAMPLES: &str = "Examples:
  stockade access check alice run build --why
  stockade access check alice run build -- git push --force
  stockade access check 1000+agent.service call search --parameters '{\"depth\": 3}'
  stockade access check alice kill bob --json
  stockade access list
  stockade access unlock 1000+agent.service

Exit status: 0; `check`: 0 permitted, 1 refused, 3 permitted once somebody has approved it; 2 for a wrong command line.";

/// Says who may do what and why, and lets in again who was locked out.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    subcommand: Subcommand,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    /// Whether somebody may do something, by the files that a daemon started now would read
    Check(Question),
    /// The roles, and who has them
    List {
        #[command(flatten)]
        whose: Whose,
        /// One JSON object a role
        #[arg(long)]
        json: bool,
    },
    /// Lets in again whom repeated refusals have locked out: for who operates the daemon
    Unlock {
        /// A user's name or uid; behind a `+` the unit, nothing for who is of none [default: whatever the unit]
        who: String,
        /// The daemon's socket
        #[arg(long, value_name = "PATH")]
        socket: Option<PathBuf>,
    },
}

/// Which files.
#[derive(Debug, clap::Args)]
struct Whose {
    /// The configuration's directory [default: /etc/stockade; of a user ~/.config/stockade]
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
    /// As root's daemon reads them
    #[arg(long)]
    system: bool,
}

/// Of `access check`.
#[derive(Debug, clap::Args)]
struct Question {
    /// A user's name or uid; behind a `+` the systemd unit
    who: String,
    /// run, call, attach, kill, list, grant, approve, read-audit, reload, inspect or operate
    action: String,
    /// A policy, a tool, or whose run it is; nothing where it's about the daemon
    what: Option<String>,
    /// What a tool is given: a JSON object
    #[arg(long, value_name = "JSON")]
    parameters: Option<String>,
    #[command(flatten)]
    whose: Whose,
    /// The daemon that is asked about grants [default: where one with these files listens; with --config none]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Say who was asked about, and by which rules
    #[arg(long)]
    why: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// The command, for `run`
    #[arg(last = true)]
    command: Vec<OsString>,
}

pub(crate) fn access(arguments: &Arguments) -> Result<u8, CliError> {
    match &arguments.subcommand {
        Subcommand::Check(question) => check::check(question),
        Subcommand::List { whose, json } => list(whose, *json),
        Subcommand::Unlock { who, socket } => {
            let Who { uid, unit } = someone(who)?;
            let count = place::need("access unlock", socket.as_deref())?.unlock(uid, unit.as_deref());
            let count = count.map_err(|error| match error {
                ClientError::Denied(denied) => CliError::Denied(denied),
                other => other.into(),
            })?;
            let who = escape::line(who.as_bytes());
            let text = match count {
                0 => format!("{who}: wasn't locked out\n"),
                count => format!("{who}: let in again ({count} locked out)\n"),
            };
            out::print(text.as_bytes())
        }
    }
}

pub(crate) fn someone(text: &str) -> Result<Who, CliError> {
    Who::parse(text)
        .ok_or_else(|| CliError::Asked(format!("there is no user `{}` here", escape::line(text.as_bytes()))))
}

impl Question {
    /// Where the daemon is that has these files, if one is running.
    fn daemon(&self) -> Option<PathBuf> {
        let usual = || self.whose.config.is_none().then(|| self.whose.surroundings().listen()).flatten();
        self.socket.clone().or_else(usual)
    }
}

impl Whose {
    fn surroundings(&self) -> Surroundings<'static> {
        let ours = sources::surroundings();
        if self.system { Surroundings { uid: 0, scope: Scope::Machine, ..ours } } else { ours }
    }

    fn directory(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| self.surroundings().configuration())
    }

    /// The rules that hold; none: nobody is asked.
    fn rules(&self) -> Result<Vec<Placed>, CliError> {
        let Surroundings { scope, .. } = self.surroundings();
        Ok(rules(Some(&self.directory()), scope, rustix::process::geteuid().as_raw())?)
    }

    /// The same, where there are any.
    fn some_rules(&self) -> Result<Vec<Placed>, CliError> {
        let found = self.rules()?;
        if found.is_empty() { Err(self.none()) } else { Ok(found) }
    }

    /// What has somebody asked first.
    fn risk(&self) -> Result<Risk, CliError> {
        let Surroundings { scope, .. } = self.surroundings();
        let uid = rustix::process::geteuid().as_raw();
        Ok(approval::risk(approval::files(Some(&self.directory()), scope, uid)?))
    }

    /// Programs that look at what somebody is asked about.
    fn programs(&self, rules: &[Placed]) -> Result<Programs, CliError> {
        let Surroundings { scope, .. } = self.surroundings();
        let uid = rustix::process::geteuid().as_raw();
        Ok(Programs::load(Some(&self.directory()), scope, uid, rules)?)
    }

    fn none(&self) -> CliError {
        let directory = escape::line(self.directory().as_os_str().as_encoded_bytes());
        CliError::Asked(format!(
            "there are no files of access in {directory}: nobody is asked, and everybody has his own runs"
        ))
    }
}

fn list(whose: &Whose, as_json: bool) -> Result<u8, CliError> {
    let found = whose.some_rules()?;
    let roles =
        || found.iter().flat_map(|placed| placed.engine.roles().all().map(move |role| (placed, role)));
    if as_json {
        let members = |all: &[Member]| -> Vec<_> {
            all.iter().map(|one| json!({ "name": one.said, "id": one.id })).collect()
        };
        let lines: Vec<u8> = roles()
            .flat_map(|(placed, (role, has))| {
                json::line(&json!({
                    "role": role, "directory": placed.directory, "users": members(&has.users),
                    "groups": members(&has.groups), "units": has.units,
                }))
            })
            .collect();
        return out::print(&lines);
    }
    let members = |all: &[Member]| {
        let shown = all.iter().map(|one| {
            let said = escape::line(one.said.as_bytes());
            if one.said == one.id.to_string() { said } else { format!("{said} ({})", one.id) }
        });
        shown.collect::<Vec<_>>().join(" ")
    };
    let head = ["ROLE", "USERS", "GROUPS", "UNITS"].map(str::to_owned);
    let rows: Vec<_> = core::iter::once(head)
        .chain(roles().map(|(_, (role, has))| {
            let units = escape::line(has.units.join(" ").as_bytes());
            [escape::line(role.as_bytes()), members(&has.users), members(&has.groups), units]
        }))
        .collect();
    let paint = Paint::to(&std::io::stdout());
    let text =
        table::columns(&rows, |row, _, cell| if row == 0 { paint.bold(cell) } else { cell.to_owned() });
    out::print(text.as_bytes())
}
