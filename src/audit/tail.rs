//! `stockade audit tail`: the last records, and those to come.

use core::ops::ControlFlow;
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::inotify;
use stockade_audit::{Entry, Keys, Reader};
use stockade_client::AuditQuestion;

use super::source::{Source, Where, from_daemon};
use super::{Wanted, show};
use crate::error::CliError;
use crate::out;

const EXAMPLES: &str = "Examples:
  stockade audit tail
  stockade audit tail --lines 100 --class security
  stockade audit tail --follow --json";

/// Prints the last records, and with --follow those to come
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// So many
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    lines: usize,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    wanted: Wanted,
    /// One JSON object a record
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

pub(super) fn tail(arguments: &Arguments) -> Result<u8, CliError> {
    let mut told = |entry: &Entry| if arguments.json { entry.json() + "\n" } else { show::line(entry) };
    match arguments.place.open()? {
        Source::Files(directory, keys) => from_files(arguments, &directory, &keys, &mut told),
        Source::Daemon(mut client) => {
            let last = Some(u32::try_from(arguments.lines).unwrap_or(u32::MAX));
            let question = AuditQuestion { last, follow: arguments.follow, ..arguments.wanted.question() };
            from_daemon(&mut client, &question, &mut told)
        }
    }
}

fn from_files(
    arguments: &Arguments,
    directory: &Path,
    keys: &Keys,
    told: &mut dyn FnMut(&Entry) -> String,
) -> Result<u8, CliError> {
    // Before it's read: nothing that is written meanwhile is missed.
    let watch = if arguments.follow { Some(Watch::of(directory)?) } else { None };
    let filter = arguments.wanted.filter();
    let mut reader = Reader::new(directory, keys);
    let text: String = reader.last(arguments.lines, &filter)?.iter().map(&mut *told).collect();
    let mut status = out::print(text.as_bytes())?;
    while let (Some(watch), 0) = (&watch, status) {
        watch.wait()?;
        let mut text = String::new();
        let mut each = |entry: Entry| {
            text.push_str(&told(&entry));
            ControlFlow::Continue(())
        };
        let _ = reader.read(&filter, &mut each)?;
        status = out::print(text.as_bytes())?;
    }
    Ok(status)
}

/// Says when something was written.
struct Watch(rustix::fd::OwnedFd);

impl Watch {
    fn of(directory: &Path) -> Result<Self, CliError> {
        use inotify::{CreateFlags, WatchFlags};
        let failed = || CliError::io(format!("watch {}", directory.display()));
        let watch = inotify::init(CreateFlags::CLOEXEC).map_err(|error| failed()(error.into()))?;
        let flags = WatchFlags::MODIFY | WatchFlags::MOVED_TO;
        inotify::add_watch(&watch, directory, flags).map_err(|error| failed()(error.into()))?;
        Ok(Self(watch))
    }

    /// Waits for it; what it was doesn't matter.
    fn wait(&self) -> Result<(), CliError> {
        let mut events = Vec::with_capacity(4096);
        match rustix::io::read(&self.0, spare_capacity(&mut events)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(CliError::io("watch the record")(error.into())),
        }
    }
}
