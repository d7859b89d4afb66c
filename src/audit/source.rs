//! Where records come from: the record's files, or the daemon that has them, for whom its rules permit to read them.

use core::ops::ControlFlow;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use stockade_audit::{AuditError, Class, Entry, Keys, Passed, Reader};
use stockade_client::{AuditClass, AuditPage, AuditQuestion, AuditRecord, Client, ClientError};

use super::{Place, Wanted, show};
use crate::error::CliError;
use crate::place::{self, Found};
use crate::{out, sources};

/// So much is gathered before it's printed, in bytes.
const PIECE: usize = 64 * 1024;

/// Where the record is, for who may have to ask for it.
#[derive(Debug, clap::Args)]
pub(super) struct Where {
    #[command(flatten)]
    place: Place,
    /// Asks the daemon at this socket, which answers whom its rules permit to `read-audit` [default: where the files can't be read, the daemon that is there]
    #[arg(long, value_name = "PATH", conflicts_with_all = ["directory", "key"])]
    socket: Option<PathBuf>,
}

/// Where records come from.
pub(super) enum Source {
    /// The record's directory and its keys.
    Files(PathBuf, Box<Keys>),
    /// A daemon.
    Daemon(Box<Client>),
}

impl Where {
    /// The files, if they can be read, or else the daemon, if there is one and nobody named files.
    pub(super) fn open(&self) -> Result<Source, CliError> {
        if let Some(socket) = &self.socket {
            return Ok(Source::Daemon(Box::new(place::need("audit", Some(socket))?)));
        }
        let error = match self.place.open() {
            Ok((directory, keys)) => return Ok(Source::Files(directory, Box::new(keys))),
            Err(error) => error,
        };
        if !self.place.is_usual() || !is_closed(&error) {
            return Err(error);
        }
        let candidates = match self.place.system {
            true => self.place.surroundings().listen().into_iter().collect(),
            false => sources::surroundings().sockets(),
        };
        match place::look_at(candidates)? {
            Found::Daemon(client, path) => {
                say_so(&path);
                Ok(Source::Daemon(Box::new(place::greeted(client, path)?)))
            }
            Found::Nobody(_) => Err(error),
        }
    }
}

fn say_so(path: &Path) {
    let path = path.display();
    out::complain(&format!("stockade: the record's files can't be read: the daemon at {path} is asked"));
}

/// Whether the files aren't there, or aren't ours to read.
fn is_closed(error: &CliError) -> bool {
    match error {
        CliError::Io { source, .. } | CliError::Audit(AuditError::Io { source, .. }) => {
            matches!(source.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
        }
        _ => false,
    }
}

/// Prints each record that a daemon has and that fits, as `told` says, until there is no more; with what to exit.
pub(super) fn from_daemon(
    client: &mut Client,
    question: &AuditQuestion,
    told: &mut dyn FnMut(&Entry) -> String,
) -> Result<u8, CliError> {
    let denied = |error| match error {
        ClientError::Denied(denied) => CliError::Denied(denied),
        other => other.into(),
    };
    let mut page = client.audit(question).map_err(denied)?;
    let mut unknown = 0;
    loop {
        let mut text = String::new();
        for record in &page.records {
            match entry_of(record) {
                Some(entry) => text.push_str(&told(&entry)),
                None => unknown += 1,
            }
        }
        let status = out::print(text.as_bytes())?;
        if page.partial {
            out::complain(
                "stockade: the last ones were looked for in the newest part of the record alone; `stockade audit query` looks through all of it",
            );
        }
        if status != 0 || !page.more {
            show::passed(passed(&page, unknown));
            return Ok(status);
        }
        page = client.audit_more(question.follow).map_err(denied)?;
    }
}

fn passed(page: &AuditPage, unknown: u64) -> Passed {
    Passed { erased: page.erased, unreadable: page.unreadable + unknown }
}

/// `None`: a newer daemon's, which is unknown here.
fn entry_of(record: &AuditRecord) -> Option<Entry> {
    let class = match record.class {
        AuditClass::Security => Class::Security,
        AuditClass::Access => Class::Access,
        AuditClass::Operation => Class::Operation,
        _ => return None,
    };
    Entry::of(record.sequence, record.time_ns, class, &record.text)
}

/// Prints each record that fits as `told` says.
pub(super) fn all(
    place: &Where,
    wanted: &Wanted,
    mut told: impl FnMut(&Entry) -> String,
) -> Result<u8, CliError> {
    match place.open()? {
        Source::Daemon(mut client) => from_daemon(&mut client, &wanted.question(), &mut told),
        Source::Files(directory, keys) => from_files(&directory, &keys, wanted, &mut told),
    }
}

fn from_files(
    directory: &Path,
    keys: &Keys,
    wanted: &Wanted,
    told: &mut dyn FnMut(&Entry) -> String,
) -> Result<u8, CliError> {
    let mut reader = Reader::new(directory, keys);
    let (mut text, mut ended) = (String::new(), Ok(0));
    let mut each = |entry: Entry| {
        text.push_str(&told(&entry));
        if text.len() < PIECE {
            return ControlFlow::Continue(());
        }
        ended = out::print(text.as_bytes());
        text.clear();
        if matches!(ended, Ok(0)) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let read = reader.read(&wanted.filter(), &mut each)?;
    if read.is_break() {
        return ended;
    }
    let status = out::print(text.as_bytes())?;
    show::passed(reader.passed());
    Ok(status)
}
