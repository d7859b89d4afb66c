//! Files of approval: the machine's, and a user's own daemon's beside it.
//!
//! As with rules of access a user's daemon stands under both: what the machine's operator has somebody asked about, no file of the
//! user's permits without.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stockade_gate::approve::{self, FILE, Filed, Risk, Settings};

use super::access::text;
use super::files::{Fault, Faults};
use crate::paths::{Scope, configurations};

/// The files that hold for a daemon with this directory of configuration; none: nothing has a risk. `uid`: as whom it runs.
///
/// # Errors
/// All that is wrong with any of them.
pub fn files(directory: Option<&Path>, scope: Scope, uid: u32) -> Result<Vec<Arc<Filed>>, Faults> {
    let placed = placed(directory, scope, uid)?;
    Ok(placed.into_iter().map(|(_, filed)| filed).collect())
}

/// The same, each with its directory.
///
/// # Errors
/// As [`files`].
pub(super) fn placed(
    directory: Option<&Path>,
    scope: Scope,
    uid: u32,
) -> Result<Vec<(PathBuf, Arc<Filed>)>, Faults> {
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for directory in configurations(directory, scope) {
        match text(&directory, FILE, uid) {
            Ok(None) => {}
            Ok(Some((file, text))) => match approve::read(&file, &text) {
                Ok(filed) => found.push((directory, Arc::new(filed))),
                Err(mistakes) => wrong.extend(mistakes.into_iter().map(Fault::from)),
            },
            Err(fault) => wrong.push(fault),
        }
    }
    if wrong.is_empty() { Ok(found) } else { Err(Faults(wrong)) }
}

/// The risk that they see, for who has no past.
#[must_use]
pub fn risk(files: Vec<Arc<Filed>>) -> Risk {
    let mut risk = Risk::default();
    risk.set(files);
    risk
}

/// What an approval takes by all of them.
pub(super) fn settings(files: &[Arc<Filed>]) -> Settings {
    let all = files.iter().map(|filed| filed.settings).reduce(Settings::strictest);
    all.unwrap_or_default()
}
