//! Which launchers were started from a state directory, so that the next supervisor finds them: a file that is the old or the
//! new one at any moment, never half of either.
//!
//! It holds the secrets by which launchers and supervisors know each other, so nobody else may read it. The launchers keep
//! everything else there is to know of their runs.

use core::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use stockade_protocol::launch::{Keep, Token};

use crate::door::{self, Way};
use crate::shelf::Shelf;
use crate::state_file;

/// The version of the file that is written, and the newest that is read.
const VERSION: u32 = 1;
/// Its name in the state directory.
const NAME: &str = "launchers.json";
/// The largest file that is read, in bytes.
const LARGEST: u64 = 64 * 1024;
/// The most launchers: each upgrade leaves one as long as its runs go on.
const LAUNCHERS: usize = 16;

/// Why there is no register.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// It can't be read or written.
    #[error("cannot use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It isn't what was written.
    #[error(
        "{path} is damaged: {reason}; remove it to start without the runs that an earlier daemon may have left"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A newer supervisor has written it.
    #[error(
        "{path} was written by a newer stockade (version {version} of the file, this one knows {VERSION}); start that one, \
         or remove the file to start without the runs it may have left"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// More launchers than there may be.
    #[error(
        "{LAUNCHERS} older launchers still have runs; no other may outlive this daemon until some have ended"
    )]
    Full,
    /// The kernel gives no secrets.
    #[error("cannot make a secret")]
    Secret(#[source] io::Error),
}

/// A launcher that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its door: wherever sockets are now, it is where they were.
    door: String,
    /// Its process id when it was started, for people. `None`: it was started elsewhere.
    pid: Option<u32>,
    /// The most workers parked for one template.
    pub(crate) parked: u32,
    pub(crate) keep: Keep,
}

impl Entry {
    /// Whether it was started elsewhere, and not as a child of a supervisor's.
    pub(crate) fn is_apart(&self) -> bool {
        self.pid.is_none()
    }
}

/// The register, open.
#[derive(Debug, Clone)]
pub(crate) struct Register(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    state: PathBuf,
    doors: PathBuf,
    parked: u32,
    entries: RefCell<Vec<Entry>>,
    shelf: Shelf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Document {
    version: u32,
    #[serde(default)]
    launchers: Vec<Written>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    door: String,
    pid: Option<u32>,
    parked: u32,
    launcher: String,
    supervisor: String,
}

impl Register {
    /// Reads what is there. `state`: the state directory; `doors`: where doors are; `parked`: what launchers are started with;
    /// `shelf`: doors that systemd holds, too.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub(crate) fn open(state: &Path, doors: &Path, parked: u32, shelf: Shelf) -> Result<Self, RegisterError> {
        let entries = read(&state.join(NAME))?;
        shelf.keep_only(entries.iter().map(|entry| Path::new(&entry.door)));
        // Of an earlier version, or of a time without systemd.
        entries.iter().for_each(|entry| shelf.put(Path::new(&entry.door)));
        let (state, doors) = (state.to_owned(), doors.to_owned());
        Ok(Self(Rc::new(Inner { state, doors, parked, entries: RefCell::new(entries), shelf })))
    }

    /// The launchers that were started, oldest first.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.0.entries.borrow().clone()
    }

    /// What launchers are started with.
    pub(crate) fn parked(&self) -> u32 {
        self.0.parked
    }

    /// Where a launcher's door is.
    pub(crate) fn way_to(&self, entry: &Entry) -> Way {
        let path = PathBuf::from(&entry.door);
        Way { held: self.0.shelf.way_to(&path), path }
    }

    /// Writes another launcher down and makes its door, in this order: killed in between we leave what the next one finds
    /// and forgets, and never a door that nobody knows of.
    ///
    /// # Errors
    /// [`RegisterError`]; no door is left then.
    pub(crate) fn add(&self, pid: Option<u32>) -> Result<(Entry, OwnedFd), RegisterError> {
        if self.0.entries.borrow().len() >= LAUNCHERS {
            return Err(RegisterError::Full);
        }
        let secret = || secret().map_err(RegisterError::Secret);
        let keep = Keep { launcher: secret()?, supervisor: secret()? };
        let name = format!("launcher-{}.sock", &hex(&secret()?.0)[..16]);
        let path = self.0.doors.join(&name);
        let failed = |source: io::Error| RegisterError::Io { path: path.clone(), source };
        // A path that is no text can't be written down.
        let door = path.to_str().ok_or(io::ErrorKind::InvalidFilename.into()).map_err(failed)?.to_owned();
        let entry = Entry { door, pid, parked: self.0.parked, keep };
        self.0.entries.borrow_mut().push(entry.clone());
        let made = self.write().and_then(|()| door::make(&self.0.doors, &name).map_err(failed));
        match made {
            Ok(listening) => {
                self.0.shelf.put(&path);
                Ok((entry, listening))
            }
            Err(error) => {
                self.remove(Some(keep));
                Err(error)
            }
        }
    }

    /// Forgets a launcher that has ended, and its door.
    pub(crate) fn remove(&self, keep: Option<Keep>) {
        let Some(keep) = keep else { return };
        let gone: Vec<Entry> =
            self.0.entries.borrow_mut().extract_if(.., |entry| entry.keep == keep).collect();
        for entry in gone {
            let door = Path::new(&entry.door);
            self.0.shelf.remove(door);
            if let Err(error) = std::fs::remove_file(door)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, door = entry.door, "a launcher's door can't be removed");
            }
        }
        if let Err(error) = self.write() {
            tracing::error!(
                reason = crate::admission::chain(&error),
                "what launchers there are can't be written down"
            );
        }
    }

    fn write(&self) -> Result<(), RegisterError> {
        let path = self.0.state.join(NAME);
        let launchers = self.0.entries.borrow().iter().map(Written::from).collect();
        let text = serde_json::to_vec_pretty(&Document { version: VERSION, launchers });
        let written = text.map_err(io::Error::from).and_then(|text| state_file::replace(&path, &text));
        written.map_err(|source| RegisterError::Io { path, source })
    }
}

impl From<&Entry> for Written {
    fn from(entry: &Entry) -> Self {
        Self {
            door: entry.door.clone(),
            pid: entry.pid,
            parked: entry.parked,
            launcher: hex(&entry.keep.launcher.0),
            supervisor: hex(&entry.keep.supervisor.0),
        }
    }
}

impl TryFrom<Written> for Entry {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { door, pid, parked, launcher, supervisor } = written;
        if !door.starts_with('/') || door.contains('\0') {
            return Err(format!("`{}` can't be where a door is", door.escape_debug()));
        }
        let token = |text: &str| unhex(text).map(Token).ok_or("a secret isn't 64 hexadecimal digits");
        Ok(Self {
            door,
            pid,
            parked,
            keep: Keep { launcher: token(&launcher)?, supervisor: token(&supervisor)? },
        })
    }
}

fn read(path: &Path) -> Result<Vec<Entry>, RegisterError> {
    match state_file::read(path, LARGEST) {
        Ok(text) => text.map_or(Ok(Vec::new()), |text| entries(path, &text)),
        Err(source) => Err(RegisterError::Io { path: path.to_owned(), source }),
    }
}

/// What a file says.
fn entries(path: &Path, text: &[u8]) -> Result<Vec<Entry>, RegisterError> {
    let damaged = |reason: String| RegisterError::Damaged { path: path.to_owned(), reason };
    if text.len() as u64 > LARGEST {
        return Err(damaged(format!("it is longer than {LARGEST} bytes")));
    }
    let text = core::str::from_utf8(text).map_err(|_| damaged("it is no text".to_owned()))?;
    // The version first: of a newer one nothing else need be what we know.
    // It says what stands there, whatever that is.
    let wrong = |error: serde_json::Error| damaged(error.to_string().replace(char::is_control, "\u{fffd}"));
    let version: Version = serde_json::from_str(text).map_err(wrong)?;
    if version.version > VERSION {
        return Err(RegisterError::Newer { path: path.to_owned(), version: version.version });
    }
    let document: Document = serde_json::from_str(text).map_err(wrong)?;
    document.launchers.into_iter().map(|written| Entry::try_from(written).map_err(damaged)).collect()
}

/// A file of this text, as it would be written again.
#[cfg(feature = "fuzzing")]
pub(crate) fn rewritten(text: &[u8]) -> Result<Vec<u8>, RegisterError> {
    let path = Path::new(NAME);
    let launchers = entries(path, text)?.iter().map(Written::from).collect();
    serde_json::to_vec_pretty(&Document { version: VERSION, launchers })
        .map_err(|error| RegisterError::Io { path: path.to_owned(), source: error.into() })
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

fn secret() -> io::Result<Token> {
    let mut bytes = [0; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(Token(bytes))
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(nibble.into(), 16).unwrap_or('0'));
        }
        text
    })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    if digits.len() == 64 { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn open(directory: &Path) -> Result<Register, RegisterError> {
        Register::open(directory, directory, 8, Shelf::default())
    }

    #[test]
    fn the_next_finds_what_the_one_before_has_written_and_nothing_that_was_removed() {
        let directory = tempfile::tempdir().unwrap();
        let before = open(directory.path()).unwrap();
        let (one, _door) = before.add(Some(1)).unwrap();
        let (two, _door) = before.add(None).unwrap();
        assert_eq!(open(directory.path()).unwrap().entries(), [one.clone(), two.clone()]);
        assert!(before.way_to(&one).path.exists());
        before.remove(Some(one.keep));
        assert!(!before.way_to(&one).path.exists() && before.way_to(&two).path.exists());
        assert_eq!(open(directory.path()).unwrap().entries(), [two]);
    }

    #[test]
    fn secrets_differ_and_nobody_else_may_read_them() {
        let directory = tempfile::tempdir().unwrap();
        let register = open(directory.path()).unwrap();
        let (one, _door) = register.add(None).unwrap();
        let (two, _door) = register.add(None).unwrap();
        let all = [one.keep.launcher, one.keep.supervisor, two.keep.launcher, two.keep.supervisor];
        for (at, token) in all.iter().enumerate() {
            assert!(!all[..at].contains(token) && token.0 != [0; 32]);
        }
        for path in [directory.path().join(NAME), register.way_to(&one).path] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_damaged_or_newer_file_is_refused_by_name_and_an_unfinished_one_is_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        let token = "0".repeat(64);
        let with = |door: &str, secret: &str| {
            format!(
                r#"{{"version": 1, "launchers": [{{"door": "{door}", "pid": 1, "parked": 8, "launcher": "{secret}", "supervisor": "{token}"}}]}}"#
            )
        };
        for (text, says) in [
            ("", "damaged"),
            ("{\"version\": 1, \"launchers\": [", "damaged"),
            ("{\"launchers\": []}", "version"),
            (&with("../door", &token), "can't be where a door is"),
            (&with("/run/door", "abc"), "hexadecimal"),
            ("{\"version\": 2, \"anything\": []}", "newer"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = open(directory.path()).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("launchers.json"), "{text}: {error}");
        }
        std::fs::write(&path, with("/run/door", &token)).unwrap();
        assert_eq!(open(directory.path()).unwrap().entries().len(), 1);
        std::fs::write(path.with_extension("new"), "{").unwrap();
        let register = open(directory.path()).unwrap();
        register.add(None).unwrap();
        assert_eq!(open(directory.path()).unwrap().entries().len(), 2);
    }

    /// Whoever is killed in between has written it down already: a door that isn't written down would stay for ever.
    #[test]
    fn a_door_is_written_down_before_it_is_made_and_not_any_more_when_it_cant_be() {
        let directory = tempfile::tempdir().unwrap();
        let nowhere = directory.path().join("nowhere");
        let register = Register::open(directory.path(), &nowhere, 8, Shelf::default()).unwrap();
        assert!(
            matches!(register.add(None), Err(RegisterError::Io { path, .. }) if path.starts_with(&nowhere))
        );
        assert!(directory.path().join(NAME).exists(), "nothing was written down before");
        assert_eq!(open(directory.path()).unwrap().entries(), []);
        std::fs::create_dir(&nowhere).unwrap();
        register.add(None).unwrap();
        assert_eq!(open(directory.path()).unwrap().entries().len(), 1);
    }

    #[test]
    fn there_are_never_more_than_the_bound() {
        let directory = tempfile::tempdir().unwrap();
        let register = open(directory.path()).unwrap();
        for _ in 0..LAUNCHERS {
            register.add(None).unwrap();
        }
        assert!(matches!(register.add(None), Err(RegisterError::Full)));
    }
}
