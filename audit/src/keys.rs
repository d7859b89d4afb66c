//! Where keys come from: the master key from a file or a systemd credential, and all others from `keys`, wrapped with it.
//!
//! ```text
//! master key (a file outside of the directory)
//!   └── keys: signing key · wrapping keys, the newest last · root of the MACs, unless it was taken away
//!         └── each segment's header: the key of its records
//! ```
//!
//! A new master key wraps `keys` anew and adds a wrapping key; no segment is touched, and old ones stay readable.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::error::AuditError;
use crate::event::nanoseconds;
use crate::files::{Directory, KEYS, MACS, open, private};
use crate::format::{Header, Ratchet};
use crate::head::Signing;
use crate::secret::{KEY, Secret, hex, random, unhex, unhex_array};

/// The version of `keys` and `mac`.
const VERSION: u32 = 1;

/// The key that all others are wrapped with.
#[derive(Debug, Clone)]
pub struct MasterKey(Secret);

impl MasterKey {
    /// Reads one: 32 bytes, in a file of ours or root's that nobody else may read.
    ///
    /// # Errors
    /// [`AuditError`]: it can't be read, or isn't kept as a key must be.
    pub fn read(path: &Path) -> Result<Self, AuditError> {
        read_secret(path, None).map(Self)
    }

    /// As [`Self::read`], for somebody who looks at a log of another user's: the key may be that user's, too.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_for(path: &Path, log: &Path) -> Result<Self, AuditError> {
        read_secret(path, Some(log)).map(Self)
    }

    /// Makes one, in a file that isn't there yet.
    ///
    /// # Errors
    /// [`AuditError`]: the file is there, or can't be written.
    pub fn create(path: &Path) -> Result<Self, AuditError> {
        let secret = random_secret()?;
        write_secret(path, &secret)?;
        Ok(Self(secret))
    }

    /// As [`Self::create`], for a log of another user's, who owns the file then.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_for(path: &Path, log: &Path) -> Result<Self, AuditError> {
        let key = Self::create(path)?;
        let owner = std::fs::metadata(log).map_err(AuditError::io("look at", log))?;
        if owner.uid() != rustix::process::geteuid().as_raw() {
            let owned = std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid()));
            owned.map_err(AuditError::io("give away", path))?;
        }
        Ok(key)
    }

    fn wrapping(&self) -> Secret {
        self.0.derive("stockade audit wrap")
    }
}

/// The first secret of the MACs, for whoever keeps it somewhere else: who has it can check every record's MAC, and who only
/// has what is on the machine can't make one for a record that was written already.
#[derive(Debug, Clone)]
pub struct VerificationKey(pub(crate) Secret);

impl VerificationKey {
    /// Reads one; as [`MasterKey::read_for`].
    ///
    /// # Errors
    /// As [`MasterKey::read`].
    pub fn read(path: &Path, log: &Path) -> Result<Self, AuditError> {
        read_secret(path, Some(log)).map(Self)
    }
}

fn random_secret() -> Result<Secret, AuditError> {
    Secret::random().map_err(|source| AuditError::System { doing: "make a key", source })
}

fn write_secret(path: &Path, secret: &Secret) -> Result<(), AuditError> {
    use std::io::Write as _;
    let failed = || AuditError::io("make", path);
    let mut file = private(path).create_new(true).write(true).open(path).map_err(failed())?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = file.write_all(secret.bytes()).and_then(|()| file.sync_all());
    // Its name, too: what was wrapped with it mustn't outlive it.
    written.and_then(|()| Directory::of(folder).sync()).map_err(|error| {
        let _ = std::fs::remove_file(path);
        failed()(error)
    })
}

/// The verification key that a first start which didn't come to its end has left, if it has.
fn left_behind(path: &Path) -> Result<Option<Secret>, AuditError> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        // It was made, and not written.
        Ok(found) if found.is_file() && found.len() == 0 => {
            std::fs::remove_file(path).map_err(AuditError::io("remove", path))?;
            Ok(None)
        }
        _ => read_secret(path, None).map(Some),
    }
}

fn read_secret(path: &Path, log: Option<&Path>) -> Result<Secret, AuditError> {
    let refused = |problem: String, remedy| AuditError::Refused { path: path.to_owned(), problem, remedy };
    let failed = || AuditError::io("read", path);
    let mut file = open(path).map_err(failed())?;
    let found = file.metadata().map_err(failed())?;
    let us = rustix::process::geteuid().as_raw();
    let logs = log.and_then(|log| std::fs::metadata(log).ok()).map(|log| log.uid());
    if found.uid() != us && found.uid() != 0 && Some(found.uid()) != logs {
        return Err(refused(format!("it's user {}'s", found.uid()), "have the daemon's user or root own it"));
    }
    // systemd gives a unit's user the right to read a credential by a list, whose mask shows as the group's right.
    let allowed = if found.uid() == 0 && is_credential(path) { 0o440 } else { 0o600 };
    if found.mode() & 0o7777 & !(allowed | 0o600) != 0 {
        return Err(refused("others may read or write it".to_owned(), "chmod 0600 it"));
    }
    if found.len() != KEY as u64 {
        let remedy = "make one with `head -c 32 /dev/urandom`, or by `stockade audit rotate-key`";
        return Err(refused(format!("it has {} bytes, and a key has {KEY}", found.len()), remedy));
    }
    let mut bytes = [0; KEY];
    file.read_exact(&mut bytes).map_err(failed())?;
    Ok(Secret::of(bytes))
}

fn is_credential(path: &Path) -> bool {
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    directory.is_some_and(|directory| directory.is_absolute() && path.parent() == Some(&directory))
}

/// `keys`, as it stands in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Written {
    version: u32,
    log: String,
    public: String,
    /// What shows which master key it is.
    master: String,
    signing: String,
    wrapping: Vec<WrittenKey>,
    /// What shows which root of the MACs it is.
    root: String,
    root_wrapped: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WrittenKey {
    id: String,
    since: u64,
    wrapped: String,
}

/// What `keys` says to everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) log: [u8; 16],
    pub(crate) public: [u8; KEY],
}

/// All keys of a log.
#[derive(Debug)]
pub struct Keys {
    pub(crate) log: [u8; 16],
    pub(crate) signing: Signing,
    seed: Secret,
    wrapping: Vec<([u8; 16], u64, Secret)>,
    /// The first secret of the MACs. `None`: it was taken away, and wasn't given.
    pub(crate) root: Option<Secret>,
    /// Whether it stands in `keys`.
    root_kept: bool,
    root_commitment: [u8; KEY],
}

impl Keys {
    /// Reads those of a directory, with its master key and, where it's kept elsewhere, the verification key.
    ///
    /// # Errors
    /// [`AuditError::WrongKey`] where either isn't the right one; others.
    pub fn read(
        directory: &Path,
        master: &MasterKey,
        verification: Option<&VerificationKey>,
    ) -> Result<Self, AuditError> {
        let path = directory.join(KEYS);
        let bytes = Directory::of(directory).read(KEYS)?;
        let bytes = bytes.ok_or_else(|| AuditError::damaged(&path, "it isn't there"))?;
        Self::open(&path, &bytes, master, verification)
    }

    fn open(
        path: &Path,
        bytes: &[u8],
        master: &MasterKey,
        verification: Option<&VerificationKey>,
    ) -> Result<Self, AuditError> {
        let written = parse(path, bytes)?;
        let odd = || AuditError::damaged(path, "it isn't what was written");
        let log = unhex_array(&written.log).ok_or_else(odd)?;
        if master.0.commitment() != unhex_array(&written.master).ok_or_else(odd)? {
            return Err(AuditError::WrongKey(path.to_owned()));
        }
        let outer = master.wrapping();
        let inner =
            |what: &str, id: &[u8], wrapped: &str| outer.unwrap(&unhex(wrapped)?, &bound(&log, what, id));
        let seed = inner("signing", &[], &written.signing).ok_or_else(odd)?;
        let mut wrapping = Vec::new();
        for key in &written.wrapping {
            let id: [u8; 16] = unhex_array(&key.id).ok_or_else(odd)?;
            wrapping.push((id, key.since, inner("wrapping", &id, &key.wrapped).ok_or_else(odd)?));
        }
        let root_commitment = unhex_array(&written.root).ok_or_else(odd)?;
        let kept = written.root_wrapped.as_ref();
        let kept = kept.map(|wrapped| inner("root", &[], wrapped).ok_or_else(odd)).transpose()?;
        let given = verification.map(|key| key.0.clone());
        if given.as_ref().is_some_and(|root| root.commitment() != root_commitment) {
            return Err(AuditError::WrongKey(path.to_owned()));
        }
        let signing = Signing::of(&seed);
        if hex(&signing.public()) != written.public || wrapping.is_empty() {
            return Err(odd());
        }
        let root_kept = kept.is_some();
        Ok(Self { log, signing, seed, wrapping, root: kept.or(given), root_kept, root_commitment })
    }

    /// Makes those of a new log, and the first secret of its MACs. The root of the MACs goes to `verification` and not into
    /// `keys`, where one is named.
    ///
    /// `keys` comes last: as long as it isn't there, there is no log, and whatever a start that was killed has left is made
    /// anew. `mac` comes first, since without `keys` it's what says that there was such a start.
    pub(crate) fn create(
        directory: &Directory,
        master: &MasterKey,
        verification: Option<&Path>,
    ) -> Result<Self, AuditError> {
        let system = |source| AuditError::System { doing: "make a key", source };
        let mut left = None;
        if let Some(path) = verification {
            if directory.read(MACS)?.is_some() {
                left = left_behind(path)?;
            } else if path.symlink_metadata().is_ok() {
                return Err(AuditError::Refused {
                    path: path.to_owned(),
                    problem: "it's there already, and would be another log's".to_owned(),
                    remedy: "move it away, or name another file",
                });
            }
        }
        let is_left = left.is_some();
        let (seed, root) = (random_secret()?, left.map_or_else(random_secret, Ok)?);
        let mut keys = Self {
            log: random().map_err(system)?,
            signing: Signing::of(&seed),
            seed,
            wrapping: Vec::new(),
            root_commitment: root.commitment(),
            root: Some(root.clone()),
            root_kept: verification.is_none(),
        };
        keys.add()?;
        keys.write_macs(directory, 1, &root)?;
        if let Some(path) = verification.filter(|_| !is_left) {
            write_secret(path, &root).inspect_err(|_| {
                // It has to be refused the next time, too, if it's refused because it's there.
                let _ = std::fs::remove_file(directory.join(MACS));
            })?;
        }
        keys.write(directory, master)?;
        Ok(keys)
    }

    fn add(&mut self) -> Result<(), AuditError> {
        let id = random().map_err(|source| AuditError::System { doing: "make a key", source })?;
        self.wrapping.push((id, nanoseconds(SystemTime::now()), random_secret()?));
        Ok(())
    }

    fn write(&self, directory: &Directory, master: &MasterKey) -> Result<(), AuditError> {
        let outer = master.wrapping();
        let wrapped = |what: &str, id: &[u8], key: &Secret| {
            let wrapped = outer.wrap(key, &bound(&self.log, what, id));
            wrapped.map(|bytes| hex(&bytes)).map_err(AuditError::io("seal", &directory.join(KEYS)))
        };
        let mut wrapping = Vec::new();
        for (id, since, key) in &self.wrapping {
            let wrapped = wrapped("wrapping", id, key)?;
            wrapping.push(WrittenKey { id: hex(id), since: *since, wrapped });
        }
        let root = self.root.as_ref().filter(|_| self.root_kept);
        let written = Written {
            version: VERSION,
            log: hex(&self.log),
            public: hex(&self.signing.public()),
            master: hex(&master.0.commitment()),
            signing: wrapped("signing", &[], &self.seed)?,
            wrapping,
            root: hex(&self.root_commitment),
            root_wrapped: root.map(|root| wrapped("root", &[], root)).transpose()?,
        };
        let mut text = serde_json::to_vec_pretty(&written)
            .map_err(|error| AuditError::damaged(&directory.join(KEYS), error.to_string()))?;
        text.push(b'\n');
        directory.replace(KEYS, &text, true).map(drop)
    }

    /// The key that headers are wrapped with from now on, and its name.
    pub(crate) fn newest(&self) -> Option<(&[u8; 16], &Secret)> {
        self.wrapping.last().map(|(id, _, key)| (id, key))
    }

    /// The key of a segment's records.
    pub(crate) fn of_segment(&self, header: &Header) -> Option<Secret> {
        let (_, _, key) = self.wrapping.iter().find(|(id, ..)| *id == header.wrapping)?;
        key.unwrap(&header.wrapped, &header.bound())
    }

    /// The secret of the MACs of a segment, from the first one on.
    pub(crate) fn macs(&self, segment: u64) -> Option<Secret> {
        let root = self.root.clone()?;
        Some((1..segment).fold(root, |secret, _| Ratchet::behind(&secret)))
    }

    /// Which segment the stored secret of the MACs is for, and that. `Ok(None)`: there is none.
    pub(crate) fn read_macs(&self, directory: &Directory) -> Result<Option<(u64, Secret)>, AuditError> {
        let path = directory.join(MACS);
        let Some(bytes) = directory.read(MACS)? else { return Ok(None) };
        let opened = || {
            let written: WrittenMacs = serde_json::from_slice(&bytes).ok()?;
            let id: [u8; 16] = unhex_array(&written.wrapping)?;
            let (_, _, key) = self.wrapping.iter().find(|(one, ..)| *one == id)?;
            let bound = bound(&self.log, "mac", &written.segment.to_le_bytes());
            let secret = key.unwrap(&unhex(&written.wrapped)?, &bound)?;
            (written.version == VERSION).then_some((written.segment, secret))
        };
        opened().map(Some).ok_or_else(|| AuditError::damaged(&path, "it isn't what was written"))
    }

    /// Stores the secret of the MACs from a segment on; what was there before is gone.
    pub(crate) fn write_macs(
        &self,
        directory: &Directory,
        segment: u64,
        secret: &Secret,
    ) -> Result<(), AuditError> {
        let path = directory.join(MACS);
        let Some((id, key)) = self.newest() else { return Err(AuditError::damaged(&path, "no key for it")) };
        let wrapped = key.wrap(secret, &bound(&self.log, "mac", &segment.to_le_bytes()));
        let wrapped = hex(&wrapped.map_err(AuditError::io("seal", &path))?);
        let written = WrittenMacs { version: VERSION, segment, wrapping: hex(id), wrapped };
        let text = serde_json::to_vec(&written);
        let text = text.map_err(|error| AuditError::damaged(&path, error.to_string()))?;
        directory.replace(MACS, &text, true).map(drop)
    }
}

/// `mac`, as it stands in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMacs {
    version: u32,
    segment: u64,
    wrapping: String,
    wrapped: String,
}

fn bound(log: &[u8; 16], what: &str, id: &[u8]) -> Vec<u8> {
    [what.as_bytes(), b"\0", log, id].concat()
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Written, AuditError> {
    let written: Written = serde_json::from_slice(bytes)
        .map_err(|error| AuditError::damaged(path, format!("it can't be read: {error}")))?;
    if written.version != VERSION {
        return Err(AuditError::damaged(path, format!("it's of version {}", written.version)));
    }
    Ok(written)
}

/// What `keys` of a directory says without a key; `None`: there is none, or it can't be read as one.
pub(crate) fn published(directory: &Directory) -> Option<Published> {
    let written = parse(&directory.join(KEYS), &directory.read(KEYS).ok()??).ok()?;
    Some(Published { log: unhex_array(&written.log)?, public: unhex_array(&written.public)? })
}

/// Wraps all keys of a directory with another master key and adds a wrapping key, which the next writer uses. One that runs
/// goes on with what it has.
///
/// # Errors
/// [`AuditError::WrongKey`]: `old` isn't the one in use; others.
pub fn rotate(directory: &Path, old: &MasterKey, new: &MasterKey) -> Result<(), AuditError> {
    let place = Directory::of(directory);
    // One at a time: the directory itself is what is locked, since the writer has the file.
    let lock = std::fs::File::open(directory).map_err(AuditError::io("open", directory))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|error| AuditError::io("lock", directory)(error.into()))?;
    let mut keys = Keys::read(directory, old, None)?;
    keys.add()?;
    keys.write(&place, new)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_master_key_has_32_bytes_and_is_nobody_elses_to_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        MasterKey::create(&path).unwrap();
        assert!(MasterKey::create(&path).is_err(), "never over another one");
        MasterKey::read(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o440] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = MasterKey::read(&path).unwrap_err();
            assert_eq!(error.remedy(), Some("chmod 0600 it"), "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        MasterKey::read(&path).unwrap();
        for length in [0, 31, 33, 64] {
            let path = folder.path().join(length.to_string());
            fs::write(&path, vec![1; length]).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(MasterKey::read(&path).is_err(), "{length} bytes");
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(MasterKey::read(&link).is_err(), "a link");
        assert!(MasterKey::read(folder.path()).is_err(), "a folder");
    }

    #[test]
    fn only_the_new_master_key_opens_what_was_rotated_and_old_keys_are_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::of(folder.path());
        let (old, new) = (MasterKey(Secret::of([1; 32])), MasterKey(Secret::of([2; 32])));
        let first = Keys::create(&directory, &old, None).unwrap();
        rotate(folder.path(), &old, &new).unwrap();
        assert!(matches!(Keys::read(folder.path(), &old, None), Err(AuditError::WrongKey(_))));
        let keys = Keys::read(folder.path(), &new, None).unwrap();
        assert_eq!(keys.wrapping[0], first.wrapping[0]);
        assert_eq!((keys.wrapping.len(), keys.root.is_some()), (2, true));
        assert_eq!(keys.root, first.root);
        assert_eq!(published(&directory).unwrap().public, first.signing.public());
        assert!(matches!(rotate(folder.path(), &old, &new), Err(AuditError::WrongKey(_))));
    }

    #[test]
    fn a_verification_key_that_is_kept_elsewhere_is_not_in_the_directory() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::prepare(&folder.path().join("log")).unwrap();
        let master = MasterKey(Secret::of([1; 32]));
        let away = folder.path().join("verification");
        Keys::create(&directory, &master, Some(&away)).unwrap();
        assert!(Keys::read(directory.path(), &master, None).unwrap().root.is_none());
        let key = VerificationKey::read(&away, folder.path()).unwrap();
        assert!(Keys::read(directory.path(), &master, Some(&key)).unwrap().root.is_some());
        let other = VerificationKey(Secret::of([9; 32]));
        assert!(matches!(Keys::read(directory.path(), &master, Some(&other)), Err(AuditError::WrongKey(_))));
    }

    #[test]
    fn a_changed_file_of_keys_is_told_from_a_wrong_key() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::of(folder.path());
        let master = MasterKey(Secret::of([1; 32]));
        Keys::create(&directory, &master, None).unwrap();
        let text = String::from_utf8(directory.read(KEYS).unwrap().unwrap()).unwrap();
        let at = text.find("\"wrapped\": \"").unwrap() + 20;
        let digit = if text.as_bytes()[at] == b'0' { "1" } else { "0" };
        let mut changed = text.clone();
        changed.replace_range(at..=at, digit);
        fs::write(directory.join(KEYS), changed).unwrap();
        assert!(matches!(Keys::read(folder.path(), &master, None), Err(AuditError::Damaged { .. })));
    }
}
