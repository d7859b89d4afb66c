//! The program of a tool: is it the one that was pinned? Opened once; what is checked is what the descriptor refers to.
//!
//! A digest costs as much as the program is long, so what was read is known again, good or not, by what the kernel says of the open
//! file: device, inode, size and both times, of which the change time can't be set. Nobody who may not write to the file can then
//! have changed it; that nobody else may is for `look` to say, here as for every file that says what is run.

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

/// What a file was when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// As it was found, pinned or not.
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
        "the tool's program isn't the one that was registered: its SHA-256 digest is {}, not {pinned}",
        found.digest
    )]
    Changed {
        /// What it is: to be kept, so that it isn't read again as long as it's the same.
        found: Identity,
        /// What it should be.
        pinned: Digest,
    },
    /// It became another while it was read.
    #[error("the tool's program was written to while it was read; call it again once that is done")]
    Written,
}

/// Opens a program that has to have a digest. `known`: as it was found before, by this or by [`ExecutableError::Changed`].
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
    let known = known.filter(|known| **known == identity(&before, known.digest));
    let found = match known {
        Some(known) => *known,
        None => {
            let found = identity(&before, digest(&mut file).map_err(ExecutableError::Read)?);
            let after = file.metadata().map_err(ExecutableError::Read)?;
            if found != identity(&after, found.digest) {
                return Err(ExecutableError::Written);
            }
            found
        }
    };
    if found.digest == pinned { Ok((file, found)) } else { Err(ExecutableError::Changed { found, pinned }) }
}

fn identity(found: &Metadata, digest: Digest) -> Identity {
    Identity {
        device: found.dev(),
        inode: found.ino(),
        size: found.size(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
        digest,
    }
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

    /// What was known of it is taken at its word: here that is another digest than reading it would find.
    #[test]
    fn what_was_read_isnt_read_again_pinned_or_not() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("program");
        std::fs::write(&path, "one").unwrap();
        let Err(ExecutableError::Changed { found, .. }) = open(&path, Digest::of(b"two"), None, &fine) else {
            panic!("it isn't the one that was pinned")
        };
        assert_eq!(found.digest, Digest::of(b"one"));
        assert_eq!(open(&path, Digest::of(b"one"), Some(&found), &fine).unwrap().1, found);
        let marked = Identity { digest: Digest::of(b"three"), ..found };
        let again = open(&path, Digest::of(b"two"), Some(&marked), &fine);
        assert!(matches!(again, Err(ExecutableError::Changed { found, .. }) if found == marked));
        // Another file, or the same one written to, is read.
        std::fs::write(&path, "two!").unwrap();
        assert!(open(&path, Digest::of(b"two!"), Some(&marked), &fine).is_ok());
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
