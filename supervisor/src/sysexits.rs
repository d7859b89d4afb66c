//! What the process of a daemon that didn't serve exits with (sysexits.h), and what would help.
//!
//! Each of these stays as it is until somebody does something about it, so a unit's `RestartPreventExitStatus=` names
//! them all but [`OSERR`]. A daemon that is killed, or panics, ends by a signal instead, and is worth another start.

use std::io;

use stockade_audit::AuditError;
use stockade_policies::PolicyError;

use crate::activation::ActivationError;
use crate::gate::KeptError;
use crate::listener::ListenError;
use crate::metrics::EndpointError;
use crate::register::RegisterError;
use crate::serve::ServeError;

/// A wrong command line, or options that don't go together.
pub const USAGE: u8 = 64;
/// A user or group that doesn't exist.
pub const NOUSER: u8 = 67;
/// Somebody else serves there already.
pub const UNAVAILABLE: u8 = 69;
/// The kernel doesn't give what a daemon needs; it may do so later.
pub const OSERR: u8 = 71;
/// A file, a socket or a directory can't be made: a full or read-only disk, something else in its place.
pub const CANTCREAT: u8 = 73;
/// A directory that isn't ours, that others may change, or that we may not use.
pub const NOPERM: u8 = 77;
/// Policies, units or limits that have to be mended.
pub const CONFIG: u8 = 78;

impl ServeError {
    /// The exit status that says which kind of trouble it is.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::Listen(error) => of_listening(error),
            Self::Activation(ActivationError::Other { .. } | ActivationError::Group) | Self::Launcher => {
                USAGE
            }
            Self::Activation(_) | Self::Descriptors { .. } | Self::Gate(_) => CONFIG,
            Self::Breakers(KeptError::Io { source, .. }) => of_io(source, CANTCREAT),
            Self::Breakers(_) | Self::Grants(_) => CONFIG,
            Self::Register(RegisterError::Io { source, .. }) => of_io(source, CANTCREAT),
            Self::Register(_) => CONFIG,
            Self::Metrics(EndpointError::Socket(error)) => of_listening(error),
            Self::Metrics(EndpointError::Taken(_)) => UNAVAILABLE,
            Self::Metrics(EndpointError::Bind { source, .. }) => of_io(source, CANTCREAT),
            Self::Metrics(_) => CONFIG,
            Self::Policies(PolicyError::Read { source, .. }) => of_io(source, CONFIG),
            Self::Policies(_) => CONFIG,
            Self::Record(AuditError::Io { source, .. }) => of_io(source, CANTCREAT),
            Self::Record(AuditError::Held(_)) => UNAVAILABLE,
            Self::Record(_) => CONFIG,
            Self::Runtime(_) => OSERR,
        }
    }

    /// What would help, where the message itself doesn't say.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Listen(ListenError::Directory { source, .. } | ListenError::Bind { source, .. }) => {
                remedy_of_io(source)
            }
            Self::Listen(ListenError::Live { .. }) => Some(
                "that one is the daemon: use it, or stop it first (process 1 is systemd, for stockade.socket)",
            ),
            Self::Listen(ListenError::Locked { .. }) => {
                Some("stop that one first, or give this one a --state-directory of its own")
            }
            Self::Policies(_) => {
                Some("mend it and look with `stockade policy check FILE` before the next start")
            }
            Self::Gate(_) => Some("mend it and look with `stockade config check` before the next start"),
            Self::Record(error) => error.remedy(),
            Self::Runtime(source) => remedy_of_io(source),
            Self::Register(RegisterError::Io { source, .. })
            | Self::Breakers(KeptError::Io { source, .. }) => remedy_of_io(source),
            Self::Listen(_)
            | Self::Activation(_)
            | Self::Register(_)
            | Self::Metrics(_)
            | Self::Launcher
            | Self::Breakers(_)
            | Self::Grants(_)
            | Self::Descriptors { .. } => None,
        }
    }
}

fn of_listening(error: &ListenError) -> u8 {
    match error {
        ListenError::Path { .. } => USAGE,
        ListenError::NoPlace => CONFIG,
        ListenError::Occupied { .. } => CANTCREAT,
        ListenError::Unsafe { .. } => NOPERM,
        ListenError::Group(_) => NOUSER,
        ListenError::Live { .. } | ListenError::Locked { .. } => UNAVAILABLE,
        ListenError::Directory { source, .. } | ListenError::Bind { source, .. } => of_io(source, CANTCREAT),
    }
}

fn of_io(source: &io::Error, otherwise: u8) -> u8 {
    match source.kind() {
        io::ErrorKind::PermissionDenied => NOPERM,
        io::ErrorKind::AddrInUse => UNAVAILABLE,
        _ => otherwise,
    }
}

fn remedy_of_io(source: &io::Error) -> Option<&'static str> {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("free some space on its filesystem (df tells), or name another place")
        }
        io::ErrorKind::ReadOnlyFilesystem => Some("mount it writable, or name another place"),
        io::ErrorKind::PermissionDenied => {
            Some("use a directory of your own, or let its owner make it for you")
        }
        io::ErrorKind::NotFound => Some("make the directory above it, or name another place"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn io(kind: io::ErrorKind) -> io::Error {
        kind.into()
    }

    #[test]
    fn each_kind_of_trouble_has_its_status_and_says_what_helps() {
        let path = PathBuf::from("/run/x");
        let directory =
            |kind| ServeError::Listen(ListenError::Directory { path: path.clone(), source: io(kind) });
        let bind = |kind| ServeError::Listen(ListenError::Bind { path: path.clone(), source: io(kind) });
        let table = [
            (directory(io::ErrorKind::StorageFull), CANTCREAT),
            (directory(io::ErrorKind::ReadOnlyFilesystem), CANTCREAT),
            (directory(io::ErrorKind::PermissionDenied), NOPERM),
            (bind(io::ErrorKind::StorageFull), CANTCREAT),
            (ServeError::Listen(ListenError::Live { path: path.clone(), pid: 1 }), UNAVAILABLE),
            (ServeError::Listen(ListenError::Locked { path: path.clone(), pid: None }), UNAVAILABLE),
        ];
        for (error, status) in table {
            assert_eq!(error.status(), status, "{error}");
            assert!(error.remedy().is_some(), "{error}");
        }
        let newer = RegisterError::Newer { path: path.clone(), version: 2 };
        assert_eq!(ServeError::Register(newer).status(), CONFIG);
        assert_eq!(ServeError::Activation(ActivationError::Group).status(), USAGE);
        assert_eq!(ServeError::Activation(ActivationError::Deaf("s".to_owned())).status(), CONFIG);
        assert_eq!(ServeError::Runtime(io(io::ErrorKind::Other)).status(), OSERR);
        assert_eq!(bind(io::ErrorKind::AddrInUse).status(), UNAVAILABLE);
    }
}
