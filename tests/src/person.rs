//! Who runs something: ourselves, or an unprivileged user when we are root.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// The unprivileged user's id. No entry in the password file: a machine's user could own something that matters.
const USER: u32 = 54_321;
/// The id of the user that a machine's daemon runs as, where it isn't root.
const SERVICE: u32 = 54_320;
/// Its group, which must have a name: a daemon's socket is given to a named group.
const GROUP: u32 = 100;

/// A user and a group of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Person {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Person {
    /// Whoever runs the tests.
    #[must_use]
    pub fn me() -> Self {
        Self { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() }
    }

    /// An unprivileged user: whoever runs the tests, unless that's root.
    #[must_use]
    pub fn user() -> Self {
        let me = Self::me();
        if me.is_root() { Self { uid: USER, gid: GROUP } } else { me }
    }

    /// Whom the package has its daemon run as; in a group that it may give its socket to.
    #[must_use]
    pub fn service() -> Self {
        Self { uid: SERVICE, gid: GROUP }
    }

    /// Whether it's root.
    #[must_use]
    pub fn is_root(self) -> bool {
        self.uid == 0
    }

    /// Makes a command run as this person, without any other group.
    pub fn take(self, command: &mut Command) {
        if self != Self::me() {
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// Gives a path to this person.
    pub fn own(self, path: &Path) {
        if self != Self::me() {
            std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid)).unwrap();
        }
    }

    /// Gives a path and everything beneath it to this person.
    pub fn own_all(self, path: &Path) {
        self.own(path);
        if path.is_dir() && !path.is_symlink() {
            for entry in std::fs::read_dir(path).unwrap() {
                self.own_all(&entry.unwrap().path());
            }
        }
    }
}
