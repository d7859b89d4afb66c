//! `stockade audit query`: the records that fit.

use core::ops::ControlFlow;

use stockade_audit::{Entry, Reader};

use super::{Place, Wanted, show};
use crate::error::CliError;
use crate::out;

const EXAMPLES: &str = "Examples:
  stockade audit query --since 2h --outcome refused
  stockade audit query --principal 1000 --tool lint
  stockade audit query --exec 774b --json
  stockade audit query --class security --since 2026-11-01";

/// So much is gathered before it's printed, in bytes.
const PIECE: usize = 64 * 1024;

/// Prints the records that fit all that is said, the oldest first
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    wanted: Wanted,
    /// One JSON object a record
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

pub(super) fn query(arguments: &Arguments) -> Result<u8, CliError> {
    let Arguments { wanted, json, place } = arguments;
    all(place, wanted, |entry| if *json { entry.json() + "\n" } else { show::line(entry) })
}

/// Prints each record that fits as `told` says.
pub(super) fn all(place: &Place, wanted: &Wanted, told: impl Fn(&Entry) -> String) -> Result<u8, CliError> {
    let (directory, keys) = place.open()?;
    let mut reader = Reader::new(&directory, &keys);
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
