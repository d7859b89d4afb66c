//! The ways a command can be run: with or without a daemon, whose daemon, for whom.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::{Person, not_tested};

/// A way to run a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// No daemon, as an unprivileged user.
    EmbeddedUser,
    /// No daemon, as root.
    EmbeddedRoot,
    /// A user's own daemon.
    UserDaemon,
    /// Root's daemon, asked by an unprivileged user.
    RootDaemonForUser,
    /// Root's daemon, asked by root.
    RootDaemonForRoot,
}

impl Mode {
    const ALL: [Self; 5] = [
        Self::EmbeddedUser,
        Self::UserDaemon,
        Self::RootDaemonForUser,
        Self::EmbeddedRoot,
        Self::RootDaemonForRoot,
    ];

    /// The modes that can be tested here; the others are said by name.
    #[must_use]
    pub fn here() -> Vec<Self> {
        Self::ALL.into_iter().filter(|mode| mode.is_possible()).collect()
    }

    /// The modes with a daemon that can be tested here.
    #[must_use]
    pub fn daemons_here() -> Vec<Self> {
        Self::here().into_iter().filter(|mode| mode.has_daemon()).collect()
    }

    /// One daemon for a test that needs no more: root's when we are root, else our own.
    #[must_use]
    pub fn a_daemon() -> Self {
        if Person::me().is_root() { Self::RootDaemonForRoot } else { Self::UserDaemon }
    }

    fn is_possible(self) -> bool {
        let name = format!("mode {self:?}");
        if let Ok(wanted) = std::env::var("STOCKADE_TEST_MODES")
            && !wanted.split(',').any(|mode| name.ends_with(mode))
        {
            not_tested(&name, "STOCKADE_TEST_MODES leaves it out");
            return false;
        }
        if self.needs_root() && !Person::me().is_root() {
            not_tested(&name, "the system plan needs root, and the tests don't run as root");
            return false;
        }
        if !self.needs_root_daemon() && !user_namespaces_allowed() {
            not_tested(&name, "this machine forbids user namespaces to unprivileged users");
            return false;
        }
        true
    }

    fn needs_root(self) -> bool {
        matches!(self, Self::EmbeddedRoot | Self::RootDaemonForUser | Self::RootDaemonForRoot)
    }

    fn needs_root_daemon(self) -> bool {
        self.needs_root()
    }

    /// Whether a daemon is asked.
    #[must_use]
    pub fn has_daemon(self) -> bool {
        matches!(self, Self::UserDaemon | Self::RootDaemonForUser | Self::RootDaemonForRoot)
    }

    /// Who asks.
    #[must_use]
    pub fn client(self) -> Person {
        match self {
            Self::EmbeddedUser | Self::UserDaemon | Self::RootDaemonForUser => Person::user(),
            Self::EmbeddedRoot | Self::RootDaemonForRoot => Person::me(),
        }
    }

    /// Who runs the daemon, or the embedded supervisor.
    #[must_use]
    pub fn server(self) -> Person {
        match self {
            Self::EmbeddedUser | Self::UserDaemon => Person::user(),
            Self::EmbeddedRoot | Self::RootDaemonForUser | Self::RootDaemonForRoot => Person::me(),
        }
    }

    /// Whether runs get a host uid of their own.
    #[must_use]
    pub fn is_system(self) -> bool {
        self.server().is_root()
    }
}

/// Whether an unprivileged user may make a user namespace here, tried once.
fn user_namespaces_allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(|| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
        Person::user().take(&mut command);
        command.current_dir("/").status().is_ok_and(|status| status.success())
    })
}
