//! The file in which breakers outlive their daemon: the old one or the new one at any moment, never half of either.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::Deserialize;

use crate::breaker::snapshot::{Snapshot, VERSION};

/// Its name in the state directory.
pub const FILE: &str = "breakers.json";
/// What a damaged one is called.
const DAMAGED: &str = "breakers.json.damaged";
/// What one that is being written is called.
const NEW: &str = "breakers.json.new";
/// The largest file that is read, in bytes: as many tools as there may be, with as many outcomes each as are kept.
const LARGEST: u64 = 32 * 1024 * 1024;

/// Why the file can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It can't be read or written.
    #[error("cannot use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A newer daemon has written it.
    #[error(
        "{path} was written by a newer stockade (version {version} of the file, this one knows {VERSION}); start that one, \
         or remove the file to start with all breakers closed"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}

/// What was found.
#[derive(Debug)]
pub struct Loaded {
    /// How breakers stood.
    pub snapshot: Snapshot,
    /// A file that was damaged and so was set aside: to be told, for all breakers are closed.
    pub set_aside: Option<SetAside>,
}

/// A damaged file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// What it is called now.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// The version alone, whatever else there is.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Reads the file of a state directory; none is one with nothing in it.
///
/// # Errors
/// It can't be read, or a newer daemon has written it. A damaged one is no error: it's set aside, and said to be.
pub fn load(state: &Path) -> Result<Loaded, StoreError> {
    let path = state.join(FILE);
    let wrong = |source| StoreError::Io { path: path.clone(), source };
    let text = match read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Loaded { snapshot: Snapshot::default(), set_aside: None });
        }
        Err(error) => return Err(wrong(error)),
    };
    match parse(&text) {
        Ok(snapshot) => Ok(Loaded { snapshot, set_aside: None }),
        Err(Damage::Newer(version)) => Err(StoreError::Newer { path, version }),
        Err(Damage::Text(reason)) => {
            let aside = state.join(DAMAGED);
            std::fs::rename(&path, &aside).map_err(wrong)?;
            let set_aside = Some(SetAside { path: aside, reason });
            Ok(Loaded { snapshot: Snapshot::default(), set_aside })
        }
    }
}

/// Puts a file with this in the old one's place. When it returns, it's on the disk.
///
/// # Errors
/// It can't be written; the old one is there still.
pub fn save(state: &Path, snapshot: &Snapshot) -> Result<(), StoreError> {
    let path = state.join(FILE);
    replace(state, &path, snapshot).map_err(|source| StoreError::Io { path, source })
}

fn replace(state: &Path, path: &Path, snapshot: &Snapshot) -> io::Result<()> {
    let text = serde_json::to_vec(snapshot)?;
    let new = state.join(NEW);
    // One that is left of a daemon that was killed is in nobody's way; a link in its place isn't followed.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(&text)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(state)?.sync_all()
}

enum Damage {
    Newer(u32),
    Text(String),
}

fn parse(text: &[u8]) -> Result<Snapshot, Damage> {
    let damaged = |error: serde_json::Error| Damage::Text(error.to_string());
    if text.len() as u64 > LARGEST {
        return Err(Damage::Text(format!("it's over {LARGEST} bytes")));
    }
    let Versioned { version } = serde_json::from_slice(text).map_err(damaged)?;
    if version > VERSION {
        return Err(Damage::Newer(version));
    }
    serde_json::from_slice(text).map_err(damaged)
}

/// No link is followed, and nobody is waited for: a FIFO in its place is an error.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it isn't a plain file"));
    }
    let mut text = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut text)?;
    Ok(text)
}
