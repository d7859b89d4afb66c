//! Files of access: those of the machine, and those of a user's own daemon beside them.
//!
//! A user's daemon stands under both: what the machine's operator doesn't permit, no file of the user's permits. A directory without
//! any of the three files has no say.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stockade_gate::access::{
    ACCESS_FILE, Account, Engine, INVARIANTS_FILE, Origin, ROLES_FILE, Roles, Source, read_roles,
};
use stockade_gate::{Principal, Refusal};
use stockade_policies::files;
use stockade_protocol::denied::Denied;

use super::files::{Fault, Faults};
use crate::paths::{SYSTEM_CONFIGURATION, Scope, configurations};
use crate::{accounts, policies, unit};

/// The rules of one directory.
#[derive(Debug, Clone)]
pub struct Placed {
    /// The directory.
    pub directory: PathBuf,
    /// Its rules and roles.
    pub engine: Arc<Engine>,
    /// Whether it has a file of roles.
    pub has_roles: bool,
    /// Whether they are the daemon's own: not the machine's above a user's daemon.
    pub is_own: bool,
}

/// The rules that hold for a daemon with this directory of configuration; none: there are no files of access, and nothing is asked.
/// `uid`: as whom it runs.
///
/// # Errors
/// All that is wrong with any of the files.
pub fn rules(directory: Option<&Path>, scope: Scope, uid: u32) -> Result<Vec<Placed>, Faults> {
    let machines = Path::new(SYSTEM_CONFIGURATION);
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for directory in &configurations(directory, scope) {
        match of_directory(directory, uid) {
            Ok(placed) => {
                let is_own = scope.is_machine() || directory != machines;
                found.extend(placed.map(|placed| Placed { is_own, ..placed }));
            }
            Err(faults) => wrong.extend(faults),
        }
    }
    if wrong.is_empty() { Ok(found) } else { Err(Faults(wrong)) }
}

fn of_directory(directory: &Path, uid: u32) -> Result<Option<Placed>, Vec<Fault>> {
    let mut wrong: Vec<Fault> = Vec::new();
    let mut read = |name: &str| {
        text(directory, name, uid).unwrap_or_else(|fault| {
            wrong.push(fault);
            None
        })
    };
    let (roles, access, invariants) = (read(ROLES_FILE), read(ACCESS_FILE), read(INVARIANTS_FILE));
    if roles.is_none() && access.is_none() && invariants.is_none() {
        return if wrong.is_empty() { Ok(None) } else { Err(wrong) };
    }
    let has_roles = roles.is_some();
    let roles = roles.map_or(Ok(Roles::default()), |(file, text)| read_roles(&file, &text, &look_up));
    let roles = roles.unwrap_or_else(|mistakes| {
        wrong.extend(mistakes.into_iter().map(Fault::from));
        Roles::default()
    });
    // Rules that name roles aren't held against roles that can't be read.
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let texts = [(Origin::Access, &access), (Origin::Invariants, &invariants)];
    let sources: Vec<Source<'_>> = texts
        .into_iter()
        .filter_map(|(origin, read)| read.as_ref().map(|(file, text)| Source { origin, file, text }))
        .collect();
    let engine = Engine::new(&sources, roles);
    let engine = engine.map_err(|mistakes| mistakes.into_iter().map(Fault::from).collect::<Vec<_>>())?;
    Ok(Some(Placed { directory: directory.to_owned(), engine: Arc::new(engine), has_roles, is_own: false }))
}

/// A file's name as it's told, and what it says; none: it isn't there. A link that leads nowhere is there, and can't be read: rules
/// that somebody has put there don't stop to hold because they are gone.
pub(super) fn text(directory: &Path, name: &str, uid: u32) -> Result<Option<(String, String)>, Fault> {
    let path = directory.join(name);
    match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        _ => {}
    }
    let text = files::text(&path, directory, |found| policies::look(&path, found, uid))?;
    // Who may put another file in this one's place.
    let found =
        directory.metadata().map_err(|source| files::FileError::Read { path: directory.into(), source })?;
    policies::look(directory, &found, uid)
        .map_err(|refusal| files::FileError::Refused { path: directory.into(), refusal })?;
    Ok(Some((path.display().to_string(), text)))
}

/// Somebody who is named on a command line: a user's name or uid, and behind a `+` a systemd unit (nothing: of none).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The uid.
    pub uid: u32,
    /// The unit; none: nobody has said.
    pub unit: Option<String>,
}

impl Who {
    /// Of a text. `None`: there is no such user. May ask a directory service.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (user, unit) =
            text.split_once('+').map_or((text, None), |(user, unit)| (user, Some(unit.to_owned())));
        let is_number = !user.is_empty() && user.bytes().all(|byte| byte.is_ascii_digit());
        let uid = if is_number { user.parse().ok()? } else { accounts::user(user)? };
        Some(Self { uid, unit })
    }

    /// As stages would know one who has just logged in: his groups are those that the user database has. Of ourselves they are the
    /// kernel's.
    #[must_use]
    pub fn principal(&self) -> Principal {
        let own = (self.uid == rustix::process::geteuid().as_raw()).then(own_groups);
        let gids = own.unwrap_or_else(|| accounts::groups_of(self.uid));
        let unit = self.unit.clone().filter(|unit| !unit.is_empty());
        Principal { uid: self.uid, gids, pid: 0, unit, roles: BTreeSet::new() }
    }
}

/// Ourselves, as a daemon would see us.
#[must_use]
pub fn ourselves() -> Principal {
    let uid = rustix::process::geteuid().as_raw();
    let unit = std::fs::read_to_string("/proc/self/cgroup").ok().as_deref().and_then(unit::of_cgroups);
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    Principal { uid, gids: own_groups(), pid, unit, roles: BTreeSet::new() }
}

fn own_groups() -> Vec<u32> {
    let more = rustix::process::getgroups().unwrap_or_default();
    core::iter::once(rustix::process::getegid()).chain(more).map(rustix::process::Gid::as_raw).collect()
}

/// A refusal as a client is told it.
#[must_use]
pub fn told(refusal: Refusal) -> Denied {
    super::denied(refusal)
}

fn look_up(account: Account<'_>) -> Option<u32> {
    match account {
        Account::User(name) => accounts::user(name),
        Account::Group(name) => accounts::group(name),
    }
}
