//! The program of a tool: is it the one that was pinned? Opened once; what is checked is what the descriptor refers to.
//!
//! A digest costs as much as the program is long, so what was found good is known again by what the kernel says of the open file:
//! device, inode, size and both times, of which the change time can't be set. Nobody who may not write to the file can then have
//! changed it; that nobody else may is for `look` to say, here as for every file that says what is run.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use sha2::Digest as _;
use stockade_policies::files::Refusal;

use super::Digest;

/// The longest program that is pinned, in bytes.
pub const MAX_PROGRAM: u64 = 4 << 30;
const CHUNK: usize = 128 * 1024;

/// What a file was when it was found good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    digest: Digest,
}

/// Why a program isn't run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutableError {
    /// The system says no.
    #[error("the tool's program can't be read")]
    Read(#[source] io::Error),
    /// It's no program, or somebody else may write to it.
    #[error("the tool's program: {0}")]
    Refused(Refusal),
    /// It isn't the one that was pinned.
    #[error(
        "the tool's program isn't the one that was registered: its SHA-256 digest is {found}, not {pinned}"
    )]
    Changed {
        /// What it is.
        found: Digest,
        /// What it should be.
        pinned: Digest,
    },
}

/// Opens a program that has to have a digest. `known`: as it was found good before.
///
/// # Errors
/// Why it isn't to be run.
pub fn open(
    path: &Path,
    pinned: Digest,
    known: Option<&Identity>,
    look: &dyn Fn(&Metadata) -> Result<(), Refusal>,
) -> Result<(File, Identity), ExecutableError> {
    let flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let mut file =
        OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(ExecutableError::Read)?;
    let before = file.metadata().map_err(ExecutableError::Read)?;
    if !before.is_file() || before.len() > MAX_PROGRAM {
        let refusal = Refusal::new("it is no file of at most 4 GiB", "name the program itself");
        return Err(ExecutableError::Refused(refusal));
    }
    look(&before).map_err(ExecutableError::Refused)?;
    let identity = |found: &Metadata, digest| Identity {
        device: found.dev(),
        inode: found.ino(),
        size: found.size(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
        digest,
    };
    let now = identity(&before, pinned);
    if known == Some(&now) {
        return Ok((file, now));
    }
    let found = digest(&mut file).map_err(ExecutableError::Read)?;
    let after = identity(&file.metadata().map_err(ExecutableError::Read)?, pinned);
    if found != pinned || after != now {
        return Err(ExecutableError::Changed { found, pinned });
    }
    Ok((file, now))
}

/// The digest of a program, to be pinned.
///
/// # Errors
/// It can't be read.
pub fn digest_of(path: &Path) -> io::Result<Digest> {
    digest(&mut File::open(path)?)
}

fn digest(file: &mut File) -> io::Result<Digest> {
    let mut hash = sha2::Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut left = MAX_PROGRAM;
    while left > 0 {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        hash.update(&chunk[..count]);
        left = left.saturating_sub(count as u64);
    }
    Ok(Digest(hash.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fine(_: &Metadata) -> Result<(), Refusal> {
        Ok(())
    }

    #[test]
    fn a_program_is_the_one_that_was_pinned_or_isnt_run() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("program");
        std::fs::write(&path, "one").unwrap();
        let pinned = digest_of(&path).unwrap();
        assert_eq!(pinned, Digest::of(b"one"));
        let (_, known) = open(&path, pinned, None, &fine).unwrap();
        assert!(open(&path, pinned, Some(&known), &fine).is_ok());
        // Another one of the same length under the same name.
        let other = top.path().join("other");
        std::fs::write(&other, "two").unwrap();
        std::fs::rename(&other, &path).unwrap();
        for known in [None, Some(&known)] {
            assert!(matches!(open(&path, pinned, known, &fine), Err(ExecutableError::Changed { .. })));
        }
    }

    #[test]
    fn what_was_opened_is_what_was_checked_whatever_has_the_name_by_then() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("program");
        std::fs::write(&path, "one").unwrap();
        let (file, _) = open(&path, Digest::of(b"one"), None, &fine).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "two").unwrap();
        let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        assert_eq!(std::fs::read_to_string(again).unwrap(), "one");
    }

    #[test]
    fn what_was_known_under_another_pin_isnt_known() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("program");
        std::fs::write(&path, "one").unwrap();
        let (_, known) = open(&path, Digest::of(b"one"), None, &fine).unwrap();
        assert!(open(&path, Digest::of(b"two"), Some(&known), &fine).is_err());
    }

    #[test]
    fn what_is_no_program_or_anybodys_is_refused() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("program");
        assert!(matches!(open(&path, Digest::of(b""), None, &fine), Err(ExecutableError::Read(_))));
        assert!(matches!(open(top.path(), Digest::of(b""), None, &fine), Err(ExecutableError::Refused(_))));
        std::fs::write(&path, "").unwrap();
        let look = |_: &Metadata| Err(Refusal::new("others may write to it", "chmod go-w it"));
        assert!(matches!(open(&path, Digest::of(b""), None, &look), Err(ExecutableError::Refused(_))));
    }
}
