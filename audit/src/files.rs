//! The directory of a log: whose it must be, what lies in it, who writes to it, and files that are the old or the new one at
//! any moment.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use crate::error::AuditError;
use crate::format::{HEADER, Header, LARGEST_SEGMENT};

/// The wrapped keys.
pub(crate) const KEYS: &str = "keys";
/// The secret of the MACs of the segments to come.
pub(crate) const MACS: &str = "mac";
/// The newest head.
pub(crate) const HEAD: &str = "head";
/// What a writer holds.
const LOCK: &str = "lock";
/// What follows a segment's number in its name.
const SEGMENT: &str = ".segment";
/// Digits of a segment's number in its name.
const DIGITS: usize = 20;
/// The largest of the other files that is read, in bytes.
const LARGEST: u64 = 1024 * 1024;

/// Where a log is.
#[derive(Debug, Clone)]
pub(crate) struct Directory(PathBuf);

/// Held by the one writer of a directory, until it's dropped.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    /// Closing it isn't enough: a process that another thread is starting right now has it, too, until it executes its program.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

impl Directory {
    pub(crate) fn of(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The directory, made where there is none: ours, and closed to everybody else.
    pub(crate) fn prepare(path: &Path) -> Result<Self, AuditError> {
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(AuditError::io("make", path)(error)),
        }
        let found = fs::symlink_metadata(path).map_err(AuditError::io("look at", path))?;
        let refused = |problem: &str, remedy| AuditError::Refused {
            path: path.to_owned(),
            problem: problem.to_owned(),
            remedy,
        };
        if !found.is_dir() {
            return Err(refused("it's no directory", "name a directory of the daemon's own"));
        }
        if found.uid() != rustix::process::geteuid().as_raw() {
            return Err(refused("it's somebody else's", "have the daemon's user own it"));
        }
        if found.mode() & 0o077 != 0 {
            return Err(refused("others may use it", "chmod 0700 it"));
        }
        Ok(Self::of(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Becomes the one writer.
    pub(crate) fn lock(&self) -> Result<Lock, AuditError> {
        let path = self.join(LOCK);
        let file = private(&path).create(true).write(true).truncate(false).open(&path);
        let file = file.map_err(AuditError::io("open", &path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock(file)),
            Err(Errno::WOULDBLOCK) => Err(AuditError::Held(self.0.clone())),
            Err(error) => Err(AuditError::io("lock", &path)(error.into())),
        }
    }

    /// The numbers of the segments that are there, in order.
    pub(crate) fn segments(&self) -> Result<Vec<u64>, AuditError> {
        let failed = || AuditError::io("list", &self.0);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            let digits = name.to_str().and_then(|name| name.strip_suffix(SEGMENT));
            let digits = digits.filter(|digits| digits.len() == DIGITS);
            let number: Option<u64> = digits.and_then(|digits| digits.parse().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Bytes of all segments but one; those that can't be looked at aside.
    pub(crate) fn bytes_beside(&self, number: u64) -> u64 {
        let others = self.segments().unwrap_or_default().into_iter().filter(|other| *other != number);
        others.filter_map(|other| fs::metadata(self.segment(other)).ok()).map(|found| found.len()).sum()
    }

    pub(crate) fn segment(&self, number: u64) -> PathBuf {
        self.0.join(segment_name(number))
    }

    /// All of a segment, as long as it is now.
    pub(crate) fn read_segment(&self, number: u64) -> Result<Vec<u8>, AuditError> {
        read(&self.segment(number), LARGEST_SEGMENT)
    }

    /// The header of a segment, as far as its form goes.
    pub(crate) fn read_header(&self, number: u64) -> Result<Option<Header>, AuditError> {
        let path = self.segment(number);
        let mut bytes = Vec::with_capacity(HEADER);
        let file = open(&path).map_err(AuditError::io("open", &path))?;
        file.take(HEADER as u64).read_to_end(&mut bytes).map_err(AuditError::io("read", &path))?;
        Ok(Header::decode(&bytes).ok())
    }

    /// A small file of ours; `None`: there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, AuditError> {
        match read(&self.join(name), LARGEST) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(AuditError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts a file in the place of another one, durably where it's asked for.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8], durably: bool) -> Result<File, AuditError> {
        let (new, path) = (self.join(&format!("{name}.new")), self.join(name));
        let write = || {
            // One that a killed writer left.
            let _ = fs::remove_file(&new);
            let mut file = private(&new).create_new(true).read(true).append(true).open(&new)?;
            file.write_all(bytes)?;
            // Root may do something for the daemon's user, who has to be able to read it then.
            let owner = fs::metadata(&self.0)?;
            if owner.uid() != file.metadata()?.uid() {
                fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
            }
            if durably {
                file.sync_all()?;
            }
            fs::rename(&new, &path)?;
            if durably {
                self.sync()?;
            }
            Ok(file)
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&new);
            AuditError::io("write", &path)(error)
        })
    }

    /// Makes what was put in and taken out durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

/// A segment's file name.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:0DIGITS$}{SEGMENT}")
}

/// How files of ours are opened: nobody else's to read, and no link to somewhere else.
pub(crate) fn private(path: &Path) -> OpenOptions {
    debug_assert!(path.file_name().is_some());
    let mut options = OpenOptions::new();
    let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC).bits().cast_signed();
    options.mode(0o600).custom_flags(flags);
    options
}

/// Opens a file to read it, without waiting where it's no file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it's no file")) }
}

fn read(path: &Path, largest: u64) -> Result<Vec<u8>, AuditError> {
    let file = open(path).map_err(AuditError::io("open", path))?;
    let length = file.metadata().map_err(AuditError::io("read", path))?.len();
    if length > largest {
        return Err(AuditError::damaged(path, format!("it has {length} bytes, more than {largest}")));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(largest).read_to_end(&mut bytes).map_err(AuditError::io("read", path))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_directory_that_others_may_use_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        Directory::prepare(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        let error = Directory::prepare(&path).unwrap_err();
        assert_eq!(error.remedy(), Some("chmod 0700 it"));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(Directory::prepare(&link).is_err(), "a link to one");
    }

    #[test]
    fn a_directory_has_one_writer() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::of(folder.path());
        let lock = directory.lock().unwrap();
        assert!(matches!(directory.lock(), Err(AuditError::Held(_))));
        // As a process has it that is being started meanwhile.
        let _also = lock.0.try_clone().unwrap();
        drop(lock);
        directory.lock().unwrap();
    }

    #[test]
    fn only_what_is_named_as_a_segment_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::of(folder.path());
        for name in ["head", "00000000000000000012.segment", "3.segment", "00000000000000000002.segment.new"]
        {
            fs::write(directory.join(name), "").unwrap();
        }
        directory.replace("00000000000000000002.segment", b"x", true).unwrap();
        assert_eq!(directory.segments().unwrap(), [2, 12]);
    }
}
