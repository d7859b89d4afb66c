//! Where a daemon's policies are, and whose they may be.
//!
//! They decide what runs may do. So a file of them must belong to root or to whoever reads them, who alone may write to it;
//! and nobody else may be able to put another in its place. The same holds for the configuration's files.

use std::fs::Metadata;
use std::path::{Path, PathBuf};

use stockade_policies::files::Refusal;
use stockade_policies::{PolicyError, PolicySet, Trust, directory};

use crate::ancestors::{self, Unsafe};
use crate::config::Configuration;
use crate::paths::Scope;

/// Where policies are: at the usual places, and where the configuration says, on top. What root's daemon (or another for the whole
/// machine) is told to read is the operator's.
#[must_use]
pub fn directories(
    usual: &[(PathBuf, Trust)],
    configuration: &Configuration,
    scope: Scope,
) -> Vec<(PathBuf, Trust)> {
    let trust = if scope.is_machine() { Trust::Operator } else { Trust::User };
    let more = configuration.daemon.policies.paths().iter().map(|path| (path.clone(), trust));
    usual.iter().cloned().chain(more).collect()
}

/// Whether what stands in a directory of policies, or the directory itself, may be obeyed by this user's process.
///
/// # Errors
/// What is wrong, and what would help.
pub fn look(path: &Path, found: &Metadata, uid: u32) -> Result<(), Refusal> {
    if !found.is_dir() {
        return ancestors::belongs(found, uid);
    }
    // All that is above a file of it: the directory, too.
    ancestors::check(&path.join("file"), uid).map_err(|error| match error {
        Unsafe::Place { path, reason, remedy } => {
            Refusal::new(format!("{} isn't safe: {reason}", path.display()), remedy)
        }
        Unsafe::Io { path, source } => Refusal::new(
            format!("{} can't be looked at: {source}", path.display()),
            "see that every directory above can be entered",
        ),
    })
}

/// The policies that hold.
///
/// # Errors
/// As [`PolicySet::load`].
pub(crate) fn load(directories: &[(PathBuf, Trust)], uid: u32) -> Result<PolicySet, PolicyError> {
    PolicySet::load(directories, &|path, found| look(path, found, uid))
}

/// All that a daemon with this configuration would refuse its policies for. `usual`: beside those that the configuration
/// names; `uid` and `scope`: as whom the daemon runs, and for whom it is.
#[must_use]
pub fn mistakes(
    usual: &[(PathBuf, Trust)],
    configuration: &Configuration,
    (uid, scope): (u32, Scope),
) -> Vec<PolicyError> {
    let directories = directories(usual, configuration, scope);
    let (sources, mut wrong) = directory::all(&directories, &|path, found| look(path, found, uid));
    let unread = !wrong.is_empty();
    // Of a file that can't be read others may be the children: what is wrong with those is told once it can.
    let texts = PolicySet::mistakes(sources);
    wrong.extend(texts.into_iter().filter(|error| !unread || !is_about_another(error)));
    wrong
}

fn is_about_another(error: &PolicyError) -> bool {
    matches!(error, PolicyError::Text(mistake) if mistake.problem.key() == Some("extends"))
}
