//! A damaged file is moved out of the way, for whoever wants to look at it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{BESIDE, DAMAGED, FILE, StoreError};

/// Moves the file aside; where it is now. One that was there before is replaced: two of them would help nobody, and a hundred fill the
/// disk.
pub(crate) fn set_aside(directory: &Path) -> Result<PathBuf, StoreError> {
    let aside = directory.join(DAMAGED);
    // What goes with a file goes first: left beside another one it would be taken for that one's.
    for beside in BESIDE {
        let from = directory.join(format!("{FILE}{beside}"));
        let to = directory.join(format!("{DAMAGED}{beside}"));
        moved(&from, &to).map_err(|source| StoreError::Io { path: from, source })?;
    }
    let from = directory.join(FILE);
    moved(&from, &aside).map_err(|source| StoreError::Io { path: from, source })?;
    Ok(aside)
}

fn moved(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::remove_file(to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
        other => other,
    }
}
