//! The gate's files: which there are, whole and in order, or none of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stockade_gate::tools::{Registry, ToolError, load};

use crate::admission::chain;
use crate::paths::{SYSTEM_CONFIGURATION, Scope};
use crate::policies;

/// The directory of tools, in the configuration's.
const TOOLS: &str = "tools";

/// What the gate's files say.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// What may be called.
    pub(crate) tools: Arc<Registry>,
}

/// All that is wrong with them.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct Faults(Vec<ToolError>);

/// An error a line, as it would be told alone.
fn lines(errors: &[ToolError]) -> String {
    errors.iter().map(|error| chain(error)).collect::<Vec<_>>().join("\n")
}

impl Files {
    /// Those of a configuration's directory, and for a user's daemon the machine's, too. `uid`: as whom the daemon runs.
    ///
    /// # Errors
    /// All that is wrong with any of them.
    pub(crate) fn load(directory: Option<&Path>, scope: Scope, uid: u32) -> Result<Self, Faults> {
        let machines = Path::new(SYSTEM_CONFIGURATION);
        let mut directories: Vec<PathBuf> =
            (!scope.is_machine()).then(|| machines.join(TOOLS)).into_iter().collect();
        directories.extend(directory.map(|directory| directory.join(TOOLS)));
        directories.dedup();
        let look = |path: &Path, found: &std::fs::Metadata| policies::look(path, found, uid);
        let tools = load::registry(&directories, false, &look).map_err(Faults)?;
        Ok(Self { tools: Arc::new(tools) })
    }
}
