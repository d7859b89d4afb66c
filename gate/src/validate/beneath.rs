//! A path below a workspace, opened: from the workspace's descriptor, by the kernel's own rule (`RESOLVE_BENEATH` of openat2(2)).
//!
//! No symbolic link is followed, not even one that stays within: the path that was checked, by a policy or a person, is then the
//! path of what is opened. Whoever hands the descriptor on has to ask the policy first whether it lets that path be read: the
//! run's own masks don't bind what is opened outside of it. Nothing that could block or act by being opened is: only regular files
//! and directories. Whose rights count are those of who calls this.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::formats::is_workspace_path;

/// Why a path isn't opened. None names a path: the caller's own is in his parameters, and no other is his to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BeneathError {
    /// It can't be one.
    #[error("it is no path below the workspace")]
    NoPath,
    /// It leads out of the workspace.
    #[error("it leads out of the workspace")]
    Outside,
    /// There is a symbolic link on its way, or at its end.
    #[error("there is a symbolic link on its way; name what it leads to")]
    Link,
    /// A FIFO, a socket, a device.
    #[error("it is neither a file nor a directory")]
    Kind,
    /// The system says no.
    #[error("it can't be opened: {0}")]
    System(Errno),
}

/// Opens a file or directory for reading.
///
/// # Errors
/// Why it isn't opened.
pub fn open(workspace: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, BeneathError> {
    if !is_workspace_path(path) {
        return Err(BeneathError::NoPath);
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    // Only named at first: to open a device or a FIFO is to do something with it.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let named =
        rustix::fs::openat2(workspace, path, flags, Mode::empty(), resolve).map_err(|error| match error {
            Errno::XDEV => BeneathError::Outside,
            Errno::LOOP => BeneathError::Link,
            other => BeneathError::System(other),
        })?;
    let found = rustix::fs::fstat(named.as_fd()).map_err(BeneathError::System)?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile | FileType::Directory => {}
        FileType::Symlink => return Err(BeneathError::Link),
        _ => return Err(BeneathError::Kind),
    }
    // By its descriptor: the same file, whatever has the name by now.
    let again = format!("/proc/self/fd/{}", rustix::fd::AsRawFd::as_raw_fd(&named));
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    rustix::fs::openat(CWD, again, flags, Mode::empty()).map_err(BeneathError::System)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    use super::*;

    fn workspace() -> (tempfile::TempDir, File) {
        let top = tempfile::tempdir().unwrap();
        let inside = top.path().join("inside");
        std::fs::create_dir_all(inside.join("a/b")).unwrap();
        std::fs::write(inside.join("a/b/file"), "text").unwrap();
        std::fs::write(top.path().join("secret"), "secret").unwrap();
        symlink("../secret", inside.join("out")).unwrap();
        symlink("a/b/file", inside.join("in")).unwrap();
        symlink("/", inside.join("root")).unwrap();
        symlink("a", inside.join("folder")).unwrap();
        rustix::fs::mknodat(CWD, inside.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let opened = File::open(&inside).unwrap();
        (top, opened)
    }

    #[test]
    fn what_is_below_the_workspace_is_opened() {
        let (_top, workspace) = workspace();
        let mut text = String::new();
        File::from(open(workspace.as_fd(), "a/b/file").unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
        assert!(open(workspace.as_fd(), "a/./b").is_ok() && open(workspace.as_fd(), ".").is_ok());
    }

    #[test]
    fn nothing_else_is() {
        let (_top, workspace) = workspace();
        for (path, expected) in [
            ("../secret", BeneathError::NoPath),
            ("a/../../secret", BeneathError::NoPath),
            ("/etc/passwd", BeneathError::NoPath),
            ("out", BeneathError::Link),
            ("in", BeneathError::Link),
            ("root/etc/passwd", BeneathError::Link),
            ("folder/b/file", BeneathError::Link),
            ("fifo", BeneathError::Kind),
            ("none", BeneathError::System(Errno::NOENT)),
        ] {
            assert_eq!(open(workspace.as_fd(), path).unwrap_err(), expected, "{path}");
        }
        // The same way can be gone outside of it.
        assert!(File::open(_top.path().join("inside/out")).is_ok());
    }

    #[test]
    fn magic_links_lead_nowhere() {
        let proc = File::open("/proc/self").unwrap();
        assert_eq!(open(proc.as_fd(), "root/etc/hostname").unwrap_err(), BeneathError::Link);
        assert_eq!(open(proc.as_fd(), "exe").unwrap_err(), BeneathError::Link);
    }
}
