//! The program of a tool: is it the one that was pinned?
//!
//! A digest costs as much as the program is long, so what was read once is recognised, good or not, by what the kernel says of the
//! open file: device, inode, size and both times, of which the change time can't be set. Nobody who may not write to the file can then
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
        /// What it is.
        found: Identity,
        /// What it should be.
        pinned: Digest,
    },
    /// It became another while it was read.
    #[error("the tool's program was written to while it was read; call it again once that is done")]
    Written,
    /// Nobody has read it as it is now.
    #[error("the tool's program has been replaced since it was read")]
    Unread,
}

/// Whether a program is the one that was pinned. Reads all of it.
///
/// # Errors
/// Why it isn't to be run.
pub fn verify(
    path: &Path,
    pinned: Digest,
    look: &dyn Fn(&Metadata) -> Result<(), Refusal>,
) -> Result<(), ExecutableError> {
    check(identify(path, look)?, pinned)
}

/// What a program is. Reads all of it: some 2 GB take a second.
///
/// # Errors
/// It can't be read, or somebody else may write to it.
pub fn identify(
    path: &Path,
    look: &dyn Fn(&Metadata) -> Result<(), Refusal>,
) -> Result<Identity, ExecutableError> {
    let (mut file, before) = enter(path, look)?;
    let found = identity(&before, digest(&mut file).map_err(ExecutableError::Read)?);
    let after = file.metadata().map_err(ExecutableError::Read)?;
    if found == identity(&after, found.digest) { Ok(found) } else { Err(ExecutableError::Written) }
}

/// Whether a program is the one that was pinned, without reading it: `known` is what [`identify`] has found, and it has to be that
/// file still.
///
/// # Errors
/// Why it isn't to be run; `Unread` if it's another file by now.
pub fn recognise(
    path: &Path,
    pinned: Digest,
    known: Option<&Identity>,
    look: &dyn Fn(&Metadata) -> Result<(), Refusal>,
) -> Result<(), ExecutableError> {
    let (_, now) = enter(path, look)?;
    match known {
        Some(known) if *known == identity(&now, known.digest) => check(*known, pinned),
        _ => Err(ExecutableError::Unread),
    }
}

fn check(found: Identity, pinned: Digest) -> Result<(), ExecutableError> {
    if found.digest == pinned { Ok(()) } else { Err(ExecutableError::Changed { found, pinned }) }
}

fn enter(
    path: &Path,
    look: &dyn Fn(&Metadata) -> Result<(), Refusal>,
) -> Result<(File, Metadata), ExecutableError> {
    let flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(ExecutableError::Read)?;
    let before = file.metadata().map_err(ExecutableError::Read)?;
    if !before.is_file() || before.len() > MAX_PROGRAM {
        let refusal = Refusal::new("it is no file of at most 4 GiB", "name the program itself");
        return Err(ExecutableError::Refused(refusal));
    }
    look(&before).map_err(ExecutableError::Refused)?;
    Ok((file, before))
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
        verify(&path, pinned, &fine).unwrap();
        let known = identify(&path, &fine).unwrap();
        recognise(&path, pinned, Some(&known), &fine).unwrap();
        // What was known under another pin isn't known under this one.
        let other_pin = recognise(&path, Digest::of(b"two"), Some(&known), &fine);
        assert!(matches!(other_pin, Err(ExecutableError::Changed { .. })));
        // Another one of the same length under the same name.
        let other = top.path().join("other");
        std::fs::write(&other, "two").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(matches!(verify(&path, pinned, &fine), Err(ExecutableError::Changed { .. })));
        for known in [None, Some(&known)] {
            let again = recognise(&path, pinned, known, &fine);
            assert!(matches!(again, Err(ExecutableError::Unread)), "{again:?}");
        }
    }

    #[test]
    fn a_file_that_was_written_to_isnt_recognised_though_it_says_the_same() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("program");
        std::fs::write(&path, "one").unwrap();
        let known = identify(&path, &fine).unwrap();
        // The clock of files may be as slow as the scheduler's tick.
        while identify(&path, &fine).unwrap() == known {
            std::fs::write(&path, "one").unwrap();
        }
        let again = recognise(&path, Digest::of(b"one"), Some(&known), &fine);
        assert!(matches!(again, Err(ExecutableError::Unread)), "{again:?}");
    }

    /// What was known of it is taken at its word: here that is another digest than reading it would find.
    #[test]
    fn what_is_recognised_isnt_read() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("program");
        std::fs::write(&path, "one").unwrap();
        let found = identify(&path, &fine).unwrap();
        let marked = Identity { digest: Digest::of(b"three"), ..found };
        recognise(&path, Digest::of(b"three"), Some(&marked), &fine).unwrap();
        let again = recognise(&path, Digest::of(b"one"), Some(&marked), &fine);
        assert!(matches!(again, Err(ExecutableError::Changed { found, .. }) if found == marked));
    }

    #[test]
    fn what_is_no_program_or_anybodys_is_refused() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("program");
        assert!(matches!(identify(&path, &fine), Err(ExecutableError::Read(_))));
        assert!(matches!(identify(top.path(), &fine), Err(ExecutableError::Refused(_))));
        std::fs::write(&path, "").unwrap();
        let known = identify(&path, &fine).unwrap();
        let look = |_: &Metadata| Err(Refusal::new("others may write to it", "chmod go-w it"));
        assert!(matches!(identify(&path, &look), Err(ExecutableError::Refused(_))));
        let again = recognise(&path, Digest::of(b""), Some(&known), &look);
        assert!(matches!(again, Err(ExecutableError::Refused(_))));
    }
}
