//! Naming a run on the command line: its whole id, or a part of its beginning or end that only one run has.

use stockade_client::Client;
use stockade_protocol::ExecId;

use crate::error::CliError;
use crate::{escape, ids};

/// The run that is meant.
///
/// # Errors
/// [`CliError::Asked`]: none, or several.
pub(crate) fn find(client: &mut Client, text: &str) -> Result<ExecId, CliError> {
    if let Ok(exec_id) = text.parse() {
        return Ok(exec_id);
    }
    let runs = client.list()?;
    let found = ids::one_of(text, &runs, |run| run.exec_id.to_string())?;
    let none = || {
        let shown = escape::line(text.as_bytes());
        CliError::Asked(format!("no run {shown:?}: `stockade ps` lists yours"))
    };
    found.map(|run| run.exec_id).ok_or_else(none)
}
