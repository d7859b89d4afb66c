//! What isn't in a directory, from one listing: a policy guards many names of which few are there, and asking for each is
//! most of what looking them up costs.
//!
//! A listing only ever says that a name is certainly not there. Filesystems may fold cases, so names are compared without;
//! what they do beyond ASCII nobody here knows, so one name that isn't ASCII makes the listing say nothing, like a
//! directory that is large or may not be read. Then each name is asked for.

use core::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, RawDir};

/// The most entries of a listing: beyond that, asking is cheaper.
const ENTRIES: usize = 256;
/// Bytes read at once.
const BUFFER: usize = 8192;
/// As many names to look for make a listing worth it.
pub(crate) const WORTH_IT: usize = 4;

/// The names in a directory, in lower case and sorted; `None`: not known.
#[derive(Debug, Default)]
pub(crate) struct Listing(Option<Vec<Vec<u8>>>);

impl Listing {
    /// Of a directory, by a descriptor or `CWD` and a path.
    pub(crate) fn of(at: impl AsFd, path: &std::path::Path) -> Self {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(directory) = rustix::fs::openat(at, path, flags, Mode::empty()) else { return Self(None) };
        let mut buffer = [MaybeUninit::<u8>::uninit(); BUFFER];
        let mut entries = RawDir::new(directory, &mut buffer);
        let mut names = Vec::new();
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) if entry.file_name().to_bytes().is_ascii() && names.len() < ENTRIES => {
                    names.push(entry.file_name().to_bytes().to_ascii_lowercase());
                }
                _ => return Self(None),
            }
        }
        names.sort_unstable();
        Self(Some(names))
    }

    /// Whether a name is certainly not there.
    pub(crate) fn lacks(&self, name: &[u8]) -> bool {
        let order = |listed: &Vec<u8>| listed.iter().copied().cmp(name.iter().map(u8::to_ascii_lowercase));
        name.is_ascii() && self.0.as_ref().is_some_and(|names| names.binary_search_by(order).is_err())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use rustix::fs::CWD;

    use super::*;

    fn listing(names: &[&str]) -> Listing {
        let directory = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        Listing::of(CWD, directory.path())
    }

    #[test]
    fn only_what_is_certainly_not_there_is_lacking() {
        let some = listing(&[".git", "Makefile"]);
        assert!(some.lacks(b".vscode") && listing(&[]).lacks(b"x"));
        assert!(!some.lacks(b".git") && !some.lacks(b".GIT") && !some.lacks(b"makefile"));
        assert!(!some.lacks("\u{212a}".as_bytes()), "a name beyond ASCII may be another's");
    }

    #[test]
    fn listing_that_cannot_be_trusted_says_nothing() {
        assert!(!listing(&["a", "\u{e9}"]).lacks(b"x"));
        let many: Vec<String> = (0..300).map(|number| number.to_string()).collect();
        assert!(!listing(&many.iter().map(String::as_str).collect::<Vec<_>>()).lacks(b"x"));
        assert!(!Listing::of(CWD, std::path::Path::new("/nonexistent")).lacks(b"x"));
        assert!(!Listing::of(CWD, std::path::Path::new("/etc/hostname")).lacks(b"x"));
    }
}
