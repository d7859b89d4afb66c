//! Where things are: the socket, the policies, the state. One rule each, shared by the daemon and the command
//! line, as functions of the environment so that tables can test them.
//!
//! A relative path in a variable is ignored, as the XDG base directory specification asks.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use stockade_policies::Trust;

use crate::accounts;

/// The socket's place below a runtime directory.
const SOCKET: &str = "stockade/stockade.sock";
/// Where a machine's own daemon listens.
pub const SYSTEM_SOCKET: &str = "/run/stockade/stockade.sock";
/// The configuration of a machine's own daemon.
pub const SYSTEM_CONFIGURATION: &str = "/etc/stockade";
/// An operator's policies.
pub const SYSTEM_POLICIES: &str = "/etc/stockade/policies";
/// The state of a machine's own daemon.
pub const SYSTEM_STATE: &str = "/var/lib/stockade";

/// For whom a daemon is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scope {
    /// For everybody on this machine whom its socket lets in: root's, or one with a launcher that is root's.
    Machine,
    /// For the user who runs it.
    #[default]
    User,
}

impl Scope {
    /// Of a daemon with a launcher of its own.
    #[must_use]
    pub fn of(uid: u32) -> Self {
        if uid == 0 { Self::Machine } else { Self::User }
    }

    /// Whether it's for everybody.
    #[must_use]
    pub fn is_machine(self) -> bool {
        self == Self::Machine
    }
}

/// What a path is worked out from.
pub struct Surroundings<'a> {
    /// Looks up an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// Our user id.
    pub uid: u32,
    /// For whom the daemon is.
    pub scope: Scope,
    /// Our home directory.
    pub home: PathBuf,
}

/// The directories of configuration whose files of the gate hold for a daemon with this one: before a user's own the machine's, which
/// his stand under.
#[must_use]
pub fn configurations(own: Option<&Path>, scope: Scope) -> Vec<PathBuf> {
    let machines = (!scope.is_machine()).then(|| PathBuf::from(SYSTEM_CONFIGURATION));
    let mut directories: Vec<PathBuf> = machines.into_iter().chain(own.map(Path::to_owned)).collect();
    directories.dedup();
    directories
}

impl Surroundings<'static> {
    /// Of this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        Self {
            variable: &|name: &str| std::env::var_os(name),
            uid,
            scope: Scope::of(uid),
            home: home_of(uid),
        }
    }
}

impl Surroundings<'_> {
    fn absolute(&self, variable: &str) -> Option<PathBuf> {
        (self.variable)(variable).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// Where a client looks for a daemon, in this order: `$STOCKADE_SOCKET` alone if it is set, else
    /// `$XDG_RUNTIME_DIR/stockade/stockade.sock`, then `/run/stockade/stockade.sock`.
    #[must_use]
    pub fn sockets(&self) -> Vec<PathBuf> {
        if let Some(path) = self.absolute("STOCKADE_SOCKET") {
            return vec![path];
        }
        let own = self.absolute("XDG_RUNTIME_DIR").map(|directory| directory.join(SOCKET));
        own.into_iter().chain([PathBuf::from(SYSTEM_SOCKET)]).collect()
    }

    /// Where a daemon listens: `$STOCKADE_SOCKET`; else, as root, `/run/stockade/stockade.sock`, and as a user
    /// `$XDG_RUNTIME_DIR/stockade/stockade.sock`. `None`: a user without a runtime directory has to name one.
    #[must_use]
    pub fn listen(&self) -> Option<PathBuf> {
        self.absolute("STOCKADE_SOCKET").or_else(|| {
            if self.scope.is_machine() {
                return Some(PathBuf::from(SYSTEM_SOCKET));
            }
            self.absolute("XDG_RUNTIME_DIR").map(|directory| directory.join(SOCKET))
        })
    }

    /// The state directory: `/var/lib/stockade` as root, else `$XDG_STATE_HOME/stockade`, else
    /// `~/.local/state/stockade`.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        if self.scope.is_machine() {
            return PathBuf::from(SYSTEM_STATE);
        }
        self.absolute("XDG_STATE_HOME").unwrap_or_else(|| self.home.join(".local/state")).join("stockade")
    }

    /// Policy directories, later ones on top: `/etc/stockade/policies`, and for a user
    /// `$XDG_CONFIG_HOME/stockade/policies`, else `~/.config/stockade/policies`.
    #[must_use]
    pub fn policies(&self) -> Vec<(PathBuf, Trust)> {
        let mut directories = vec![(PathBuf::from(SYSTEM_POLICIES), Trust::Operator)];
        if !self.scope.is_machine() {
            directories.push((self.configuration().join("policies"), Trust::User));
        }
        directories
    }

    /// The configuration's directory: `/etc/stockade`, and for a user `$XDG_CONFIG_HOME/stockade`, else
    /// `~/.config/stockade`.
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        if self.scope.is_machine() {
            return PathBuf::from(SYSTEM_CONFIGURATION);
        }
        self.absolute("XDG_CONFIG_HOME").unwrap_or_else(|| self.home.join(".config")).join("stockade")
    }
}

/// The home directory of a user: for ourselves `$HOME`, else the user database's; else a directory that doesn't
/// exist, so that nothing is granted by accident. May block for seconds where a directory service has to be asked.
#[must_use]
pub fn home_of(uid: u32) -> PathBuf {
    let own = || {
        let ours = uid == rustix::process::geteuid().as_raw();
        std::env::var_os("HOME").map(PathBuf::from).filter(|home| ours && is_usable(home))
    };
    let known = || accounts::home(uid).filter(|home| is_usable(home));
    // Root's $HOME is often that of whoever became root.
    let home = if uid == 0 { known().or_else(own) } else { own().or_else(known) };
    home.unwrap_or_else(nowhere)
}

/// The home of whoever has none.
pub(crate) fn nowhere() -> PathBuf {
    PathBuf::from("/nonexistent")
}

fn is_usable(home: &Path) -> bool {
    home.is_absolute() && home != Path::new("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &'static [(&'static str, &'static str)], uid: u32) -> Surroundings<'static> {
        let variable: &'static dyn Fn(&str) -> Option<OsString> = Box::leak(Box::new(|name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        }));
        Surroundings { variable, uid, scope: Scope::of(uid), home: PathBuf::from("/home/me") }
    }

    const RUNTIME: (&str, &str) = ("XDG_RUNTIME_DIR", "/run/user/7");

    #[test]
    fn a_client_looks_at_the_named_socket_only_or_its_own_then_the_systems() {
        let named = with(&[("STOCKADE_SOCKET", "/tmp/s"), RUNTIME], 7);
        assert_eq!(named.sockets(), [PathBuf::from("/tmp/s")]);
        let own = PathBuf::from("/run/user/7/stockade/stockade.sock");
        assert_eq!(with(&[RUNTIME], 7).sockets(), [own, PathBuf::from(SYSTEM_SOCKET)]);
        assert_eq!(with(&[], 7).sockets(), [PathBuf::from(SYSTEM_SOCKET)]);
        assert_eq!(with(&[("XDG_RUNTIME_DIR", "run")], 7).sockets(), [PathBuf::from(SYSTEM_SOCKET)]);
    }

    #[test]
    fn root_listens_for_everybody_and_a_user_in_the_runtime_directory() {
        assert_eq!(with(&[RUNTIME], 0).listen(), Some(PathBuf::from(SYSTEM_SOCKET)));
        assert_eq!(with(&[RUNTIME], 7).listen(), Some(PathBuf::from("/run/user/7/stockade/stockade.sock")));
        assert_eq!(with(&[], 7).listen(), None);
        assert_eq!(with(&[("STOCKADE_SOCKET", "/tmp/s")], 7).listen(), Some(PathBuf::from("/tmp/s")));
    }

    #[test]
    fn root_reads_no_users_policies() {
        let system = (PathBuf::from(SYSTEM_POLICIES), Trust::Operator);
        assert_eq!(with(&[("XDG_CONFIG_HOME", "/c")], 0).policies().len(), 1);
        let own = (PathBuf::from("/c/stockade/policies"), Trust::User);
        assert!(with(&[("XDG_CONFIG_HOME", "/c")], 7).policies() == [system, own]);
    }

    #[test]
    fn the_configuration_is_the_systems_or_a_users_own() {
        const OTHER: (&str, &str) = ("XDG_CONFIG_HOME", "/c");
        assert_eq!(with(&[OTHER], 0).configuration(), PathBuf::from(SYSTEM_CONFIGURATION));
        assert_eq!(with(&[OTHER], 7).configuration(), PathBuf::from("/c/stockade"));
        assert_eq!(with(&[], 7).configuration(), PathBuf::from("/home/me/.config/stockade"));
    }

    #[test]
    fn a_daemon_for_everybody_has_the_systems_places_whoever_runs_it() {
        let everybodys = Surroundings { scope: Scope::Machine, ..with(&[RUNTIME], 7) };
        assert_eq!(everybodys.listen(), Some(PathBuf::from(SYSTEM_SOCKET)));
        assert_eq!(everybodys.state(), PathBuf::from(SYSTEM_STATE));
        assert_eq!(everybodys.configuration(), PathBuf::from(SYSTEM_CONFIGURATION));
        assert!(everybodys.policies() == [(PathBuf::from(SYSTEM_POLICIES), Trust::Operator)]);
    }

    #[test]
    fn state_is_the_systems_or_below_home() {
        assert_eq!(with(&[], 0).state(), PathBuf::from(SYSTEM_STATE));
        assert_eq!(with(&[], 7).state(), PathBuf::from("/home/me/.local/state/stockade"));
    }

    #[test]
    fn a_user_nobody_knows_has_no_home() {
        assert_eq!(home_of(4_000_000_001), PathBuf::from("/nonexistent"));
    }
}
