//! `stockade audit export`: records for other programs.

use stockade_audit::ocsf;

use super::Wanted;
use super::source::{Where, all};
use crate::error::CliError;

const EXAMPLES: &str = "Examples:
  stockade audit export > record.jsonl
  stockade audit export --format ocsf --since 1d | send-somewhere";

/// Prints the records that fit for other programs, one JSON object a line
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// How
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// As `query --json` has them
    Json,
    /// Events of the Open Cybersecurity Schema Framework, 1.3.0
    Ocsf,
}

pub(super) fn export(arguments: &Arguments) -> Result<u8, CliError> {
    let Arguments { format, wanted, place } = arguments;
    all(place, wanted, |entry| match format {
        Format::Json => entry.json() + "\n",
        Format::Ocsf => ocsf(entry, env!("CARGO_PKG_VERSION")).to_string() + "\n",
    })
}
