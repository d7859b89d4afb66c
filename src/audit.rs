//! `stockade audit`: the record of what was asked and what came of it, read from its files. No daemon is needed, but for whom may not
//! read them and is permitted to have them read.

mod backup;
mod export;
mod once;
mod query;
mod rotate_key;
mod show;
mod source;
mod tail;
mod verify;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use stockade_audit::{Class, Filter, Keys, MasterKey, time};
use stockade_client::{AuditClass, AuditQuestion};
use stockade_supervisor::paths::{Scope, Surroundings};

use crate::error::CliError;
use crate::sources;

const EXAMPLES: &str = "Examples:
  stockade audit verify --heads /mnt/elsewhere/heads
  stockade audit tail --follow
  stockade audit query --since 2h --outcome refused
  stockade audit export --format ocsf --since 2026-11-01 > november.jsonl
  stockade audit rotate-key --new-key /etc/stockade/audit.key.new
  stockade audit backup /var/backups/stockade-audit

Exit status: 0; 1 if it could not be done, or the record isn't what was written; 2 for a wrong command line.";

/// Reads, checks, exports and backs up the record of what was asked and what came of it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    subcommand: Subcommand,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    Verify(verify::Arguments),
    Tail(tail::Arguments),
    Query(query::Arguments),
    Export(export::Arguments),
    RotateKey(rotate_key::Arguments),
    Backup(backup::Arguments),
}

pub(crate) fn audit(arguments: &Arguments) -> Result<u8, CliError> {
    match &arguments.subcommand {
        Subcommand::Verify(arguments) => verify::verify(arguments),
        Subcommand::Tail(arguments) => tail::tail(arguments),
        Subcommand::Query(arguments) => query::query(arguments),
        Subcommand::Export(arguments) => export::export(arguments),
        Subcommand::RotateKey(arguments) => rotate_key::rotate_key(arguments),
        Subcommand::Backup(arguments) => backup::backup(arguments),
    }
}

/// Where the record is.
#[derive(Debug, clap::Args)]
struct Place {
    /// The record's directory [default: `audit` in the daemon's state directory]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// The master key's file [default: `audit.key` in the configuration's directory]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The places of root's daemon, whoever asks
    #[arg(long)]
    system: bool,
}

impl Place {
    fn surroundings(&self) -> Surroundings<'static> {
        let ours = sources::surroundings();
        if self.system { Surroundings { scope: Scope::Machine, ..ours } } else { ours }
    }

    fn directory(&self) -> PathBuf {
        self.directory.clone().unwrap_or_else(|| self.surroundings().state().join("audit"))
    }

    fn key(&self) -> PathBuf {
        self.key.clone().unwrap_or_else(|| self.surroundings().configuration().join("audit.key"))
    }

    fn master(&self) -> Result<MasterKey, CliError> {
        Ok(MasterKey::read_for(&self.key(), &self.directory())?)
    }

    /// Whether it's left to us where it is.
    fn is_usual(&self) -> bool {
        self.directory.is_none() && self.key.is_none()
    }

    /// The record's directory and its keys.
    fn open(&self) -> Result<(PathBuf, Keys), CliError> {
        let directory = self.directory();
        there(&directory)?;
        let keys = Keys::read(&directory, &self.master()?, None)?;
        Ok((directory, keys))
    }
}

/// A directory in which there is none has no record.
fn there(directory: &Path) -> Result<(), CliError> {
    let listed = std::fs::read_dir(directory);
    listed.map(drop).map_err(CliError::io(format!("read the record in {}", directory.display())))
}

/// Which records.
#[derive(Debug, clap::Args)]
struct Wanted {
    /// Not before: `2026-11-22`, `2026-11-22T10:00:00Z`, or so long ago: `90s`, `15m`, `2h`, `7d`
    #[arg(long, value_name = "TIME", value_parser = time_of)]
    since: Option<u64>,
    /// Before: as `--since`
    #[arg(long, value_name = "TIME", value_parser = time_of)]
    until: Option<u64>,
    /// Of this class. Repeatable
    #[arg(long, value_name = "CLASS", value_parser = class_of)]
    class: Vec<Class>,
    /// By the user of this uid
    #[arg(long, value_name = "UID")]
    principal: Option<u32>,
    /// About this tool
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// That ended so: `exited`, `timed-out`, `refused` and others
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<String>,
    /// About this run: its id, or how it begins or ends
    #[arg(long, value_name = "RUN")]
    exec: Option<String>,
    /// Of this name: `intent`, `outcome`, `refused`, `audit-opened` and others
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
}

impl Wanted {
    /// The same, as a daemon is asked.
    fn question(&self) -> AuditQuestion {
        let class_of = |class: &Class| match class {
            Class::Security => AuditClass::Security,
            Class::Access => AuditClass::Access,
            Class::Operation => AuditClass::Operation,
        };
        let classes = Class::ALL.iter().filter(|class| self.class.contains(class)).map(class_of).collect();
        AuditQuestion {
            since_ns: self.since,
            until_ns: self.until,
            classes,
            uid: self.principal,
            tool: self.tool.clone(),
            outcome: self.outcome.clone(),
            exec: self.exec.clone(),
            event: self.event.clone(),
            last: None,
            follow: false,
        }
    }

    fn filter(&self) -> Filter {
        Filter {
            since: self.since,
            until: self.until,
            classes: self.class.clone(),
            uid: self.principal,
            tool: self.tool.clone(),
            outcome: self.outcome.clone(),
            exec: self.exec.clone(),
            name: self.event.clone(),
        }
    }
}

fn time_of(text: &str) -> Result<u64, String> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    let expected =
        "expected a date, a date and time as 2026-11-22T10:00:00Z, or how long ago as 90s, 15m, 2h, 7d";
    time::parse(text, now).ok_or_else(|| expected.to_owned())
}

fn class_of(text: &str) -> Result<Class, String> {
    let found = Class::ALL.into_iter().find(|class| class.name() == text);
    found.ok_or_else(|| "expected security, access or operation".to_owned())
}
