//! `stockade audit rotate-key`: another master key.

use std::path::PathBuf;

use serde_json::json;
use stockade_audit::{MasterKey, rotate};

use super::Place;
use crate::error::CliError;
use crate::{json, out};

const EXAMPLES: &str = "Examples:
  stockade audit rotate-key --new-key /etc/stockade/audit.key.new
  mv /etc/stockade/audit.key.new /etc/stockade/audit.key

The daemon goes on with the keys that it has, and needs the new one at its next start.";

/// Wraps the record's keys with another master key; what was written stays readable
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The new key's file, which is made if it isn't there
    #[arg(long, value_name = "FILE")]
    new_key: PathBuf,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

pub(super) fn rotate_key(arguments: &Arguments) -> Result<u8, CliError> {
    let (directory, old) = (arguments.place.directory(), arguments.place.master()?);
    super::there(&directory)?;
    let path = &arguments.new_key;
    let made = !path.exists();
    let new =
        if made { MasterKey::create_for(path, &directory)? } else { MasterKey::read_for(path, &directory)? };
    rotate(&directory, &old, &new)?;
    if arguments.json {
        return out::print(&json::line(&json!({ "key": path.display().to_string(), "made": made })));
    }
    let text =
        format!("the keys are wrapped with {}; the daemon needs it at its next start\n", path.display());
    out::print(text.as_bytes())
}
