//! `stockade audit backup`: a copy that is consistent, while the daemon writes.

use std::path::PathBuf;

use stockade_audit::Check;

use super::Place;
use crate::error::CliError;
use crate::{exit, json, out};

const EXAMPLES: &str = "Examples:
  stockade audit backup /var/backups/stockade-audit-2026-11-22
  stockade audit verify --directory /var/backups/stockade-audit-2026-11-22

The key isn't in it: keep it somewhere else.";

/// Copies the record to a directory that isn't there yet, and checks the copy
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Where to
    #[arg(value_name = "DIR")]
    to: PathBuf,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

pub(super) fn backup(arguments: &Arguments) -> Result<u8, CliError> {
    let directory = arguments.place.directory();
    super::there(&directory)?;
    let copied = stockade_audit::backup(&directory, &arguments.to)?;
    let report = stockade_audit::verify(&arguments.to, &Check::default())?;
    let status = if report.is_clean() { 0 } else { exit::FAILED };
    if arguments.json {
        let text = serde_json::json!({ "copied": copied, "report": report });
        return out::print_with(&json::line(&text), status);
    }
    let mut text =
        format!("{} segments, {} records, {} bytes\n", copied.segments, report.records, copied.bytes);
    for finding in &report.findings {
        text.push_str(&format!("{finding}\n"));
    }
    out::print_with(text.as_bytes(), status)
}
