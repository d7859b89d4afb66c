//! A copy of a log while it's written to: all of it up to some record, and nothing behind that.
//!
//! What makes the MACs to come stays behind: who gets hold of a backup must not be able to go on with the log.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use crate::error::AuditError;
use crate::files::{Directory, HEAD, KEYS, private, segment_name};
use crate::format::HEADER;
use crate::segment::{Piece, Pieces};

/// How often a copy is begun again because segments had been kept long enough meanwhile.
const TRIES: u32 = 3;

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Copied {
    /// Segments.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Copies a log to a directory that isn't there yet, or is empty.
///
/// # Errors
/// [`AuditError`]: something can't be read or written. What was copied by then is left.
pub fn backup(from: &Path, to: &Path) -> Result<Copied, AuditError> {
    let source = Directory::of(from);
    match DirBuilder::new().mode(0o700).create(to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mut entries = fs::read_dir(to).map_err(AuditError::io("list", to))?;
            if entries.next().is_some() {
                return Err(AuditError::Refused {
                    path: to.to_owned(),
                    problem: "there is something in it".to_owned(),
                    remedy: "name a directory that isn't there yet",
                });
            }
        }
        made => made.map_err(AuditError::io("make", to))?,
    }
    let target = Directory::prepare(to)?;
    let mut tries = 0;
    loop {
        tries += 1;
        match copy(&source, &target) {
            Err(AuditError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound && tries < TRIES =>
            {
                for number in target.segments()? {
                    let path = target.segment(number);
                    fs::remove_file(&path).map_err(AuditError::io("remove", &path))?;
                }
            }
            done => return done,
        }
    }
}

fn copy(source: &Directory, target: &Directory) -> Result<Copied, AuditError> {
    // Read first: all that was signed by now is in the segments that follow.
    for name in [KEYS, HEAD] {
        if let Some(bytes) = source.read(name)? {
            write(&target.join(name), &bytes)?;
        }
    }
    let numbers = source.segments()?;
    let mut copied = Copied::default();
    for number in &numbers {
        let mut bytes = source.read_segment(*number)?;
        if numbers.last() == Some(number) {
            // What is being written right now is no part of it.
            let end = Pieces::of(&bytes).find_map(|piece| match piece {
                Piece::Tail(range, _) => Some(range.start),
                _ => None,
            });
            bytes.truncate(end.unwrap_or(bytes.len()).max(HEADER.min(bytes.len())));
        }
        write(&target.join(&segment_name(*number)), &bytes)?;
        copied.segments += 1;
        copied.bytes += bytes.len() as u64;
    }
    target.sync().map_err(AuditError::io("write", target.path()))?;
    Ok(copied)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), AuditError> {
    let put = |mut file: File| file.write_all(bytes).and_then(|()| file.sync_all());
    let file = private(path).create(true).write(true).truncate(true).open(path);
    file.and_then(put).map_err(AuditError::io("write", path))
}
