//! `stockade audit query`: the records that fit.

use super::once::Once;
use super::source::{Where, all};
use super::{Wanted, show};
use crate::error::CliError;

const EXAMPLES: &str = "Examples:
  stockade audit query --since 2h --outcome refused
  stockade audit query --principal 1000 --tool lint
  stockade audit query --exec 774b --json
  stockade audit query --class security --since 2026-11-01";

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
    place: Where,
}

pub(super) fn query(arguments: &Arguments) -> Result<u8, CliError> {
    let Arguments { wanted, json, place } = arguments;
    let mut once = Once::default();
    let status = all(place, wanted, |entry| match (once.is_again(entry), *json) {
        (true, _) => String::new(),
        (false, true) => entry.json() + "\n",
        (false, false) => show::line(entry),
    })?;
    once.say();
    Ok(status)
}
