//! Which policies there are for a command line without a daemon: the shipped ones, the operator's, and one's own.
//!
//! Root at a command line has policies of its own, too (root's daemon has none but the operator's, since it
//! serves others). They are trusted as a user's are.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use stockade_policies::files::Refusal;
use stockade_policies::{PolicyError, PolicySet, Source, Trust, directory};
use stockade_supervisor::paths::{SYSTEM_POLICIES, Scope, Surroundings, home_of};
use stockade_supervisor::policies;

use crate::error::CliError;

/// Our home directory. Root's is asked of the user database, which is slow: once.
pub(crate) fn home() -> &'static Path {
    static HOME: LazyLock<PathBuf> = LazyLock::new(|| home_of(rustix::process::geteuid().as_raw()));
    &HOME
}

/// What paths are worked out from.
pub(crate) fn surroundings() -> Surroundings<'static> {
    let uid = rustix::process::geteuid().as_raw();
    Surroundings {
        variable: &|name: &str| std::env::var_os(name),
        uid,
        scope: Scope::of(uid),
        home: home().to_owned(),
    }
}

/// The policy directories, in their order.
pub(crate) fn directories() -> Vec<(PathBuf, Trust)> {
    let surroundings = surroundings();
    let mut directories = surroundings.policies();
    if surroundings.uid == 0 {
        let own = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let own = own.unwrap_or_else(|| surroundings.home.join(".config"));
        directories.push((own.join("stockade/policies"), Trust::User));
    }
    directories
}

/// All policies there are here.
///
/// # Errors
/// [`CliError::Policies`]: one bad file, and there is no set.
pub(crate) fn all() -> Result<PolicySet, CliError> {
    PolicySet::load(&directories(), &look).map_err(wrong)
}

/// One policy by its name, for one run: what is wrong with others doesn't matter.
///
/// # Errors
/// What is wrong with it or its ancestors.
pub(crate) fn named(name: &str) -> Result<PolicySet, CliError> {
    PolicySet::from_sources_named(read()?, name).map_err(wrong)
}

fn read() -> Result<Vec<Source>, CliError> {
    let (sources, refused) = directory::all(&directories(), &look);
    refused.into_iter().next().map_or(Ok(sources), |error| Err(wrong(error)))
}

fn look(path: &Path, found: &Metadata) -> Result<(), Refusal> {
    policies::look(path, found, rustix::process::geteuid().as_raw())
}

fn wrong(error: PolicyError) -> CliError {
    CliError::Policies(error.into())
}

/// The policy of a file; with the name it has.
///
/// # Errors
/// What is wrong with the file or its ancestors.
pub(crate) fn with_file(file: &Path) -> Result<(PolicySet, String), CliError> {
    let mut sources = read()?;
    let source = directory::file(file, trust_of(file)).map_err(wrong)?;
    let name = source.name.clone();
    // Asked for by path: the file itself is meant, whatever a directory has under the same name.
    sources.retain(|other: &Source| other.name != name);
    sources.push(source);
    Ok((PolicySet::from_sources_named(sources, &name).map_err(wrong)?, name))
}

/// A file of the operator's directory is the operator's, wherever it is asked for; any other is the user's.
fn trust_of(file: &Path) -> Trust {
    let real = file.canonicalize();
    if real.is_ok_and(|file| file.parent() == Some(Path::new(SYSTEM_POLICIES))) {
        Trust::Operator
    } else {
        Trust::User
    }
}
