//! What must be guarded and isn't there: whether it has come to be.
//!
//! Asked between a run's request and its tool's start, so each directory is asked for once, whatever number of names lie
//! beneath it, and not at all where a listing of the one above has just told that it isn't there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::CWD;
use stockade_protocol::Bytes;

use crate::stages::listing::{Listing, WORTH_IT};

/// What stands now where nothing stood, or stands above it and isn't a plain directory: `.git` as a file or a link
/// says where settings and hooks are, and what can't be looked into may hold them.
pub(crate) fn came_to_be(missing: &[Bytes]) -> Vec<Bytes> {
    let mut in_each: BTreeMap<&[u8], Vec<&Bytes>> = BTreeMap::new();
    for path in missing {
        in_each.entry(parts(path).0).or_default().push(path);
    }
    let (mut came, mut looked) = (BTreeSet::new(), Looked::default());
    // A directory comes before what lies beneath it.
    for (above, paths) in in_each {
        match looked.way(above) {
            Way::Nowhere => {}
            Way::Odd(here) => drop(came.insert(Bytes::from(here))),
            Way::Plain => {
                if paths.len() >= WORTH_IT {
                    looked.listings.insert(above, Listing::of(CWD, as_path(above)));
                }
                let there = paths.into_iter().filter(|path| looked.may_be_in(above, parts(path).1));
                came.extend(there.filter(|path| !is_gone(path.as_path())).cloned());
            }
        }
    }
    came.into_iter().collect()
}

fn is_gone(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// An absolute path's directory and its name in it. Bytes, since comparing paths means taking them apart.
fn parts(path: &[u8]) -> (&[u8], &[u8]) {
    let at = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    let (above, name) = path.split_at(at);
    let above = if above.is_empty() { b"/" } else { above };
    (above, name.get(1..).unwrap_or_default())
}

fn as_path(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

/// What is on the way to a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way<'a> {
    /// Plain directories, and it is one.
    Plain,
    /// It isn't there.
    Nowhere,
    /// The first that exists and isn't a plain directory, or can't be passed.
    Odd(&'a [u8]),
}

/// What was seen so far of one look.
#[derive(Debug, Default)]
struct Looked<'a> {
    ways: BTreeMap<&'a [u8], Way<'a>>,
    listings: BTreeMap<&'a [u8], Listing>,
}

impl<'a> Looked<'a> {
    fn way(&mut self, directory: &'a [u8]) -> Way<'a> {
        if let Some(known) = self.ways.get(directory) {
            return *known;
        }
        let (above, name) = parts(directory);
        let way = if name.is_empty() {
            step(directory, directory)
        } else {
            match self.way(above) {
                Way::Plain if !self.may_be_in(above, name) => Way::Nowhere,
                Way::Plain => step(directory, above),
                way => way,
            }
        };
        self.ways.insert(directory, way);
        way
    }

    /// Whether a listing, if there is one, leaves it open that a name is there.
    fn may_be_in(&self, directory: &[u8], name: &[u8]) -> bool {
        self.listings.get(directory).is_none_or(|listing| !listing.lacks(name))
    }
}

/// The last step of a way.
fn step<'a>(directory: &'a [u8], above: &'a [u8]) -> Way<'a> {
    match as_path(directory).symlink_metadata() {
        Ok(there) if there.is_dir() => Way::Plain,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Way::Nowhere,
        Ok(_) => Way::Odd(directory),
        Err(_) => Way::Odd(above),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    /// What is to come out, each path looked for by itself, step by step from the top.
    fn plainly(missing: &[Bytes]) -> Vec<Bytes> {
        let mut came = BTreeSet::new();
        'paths: for path in missing {
            let path = path.as_path();
            let mut way: Vec<&Path> = path.ancestors().skip(1).collect();
            way.reverse();
            let mut before = way[0];
            for here in way {
                match here.symlink_metadata() {
                    Ok(there) if there.is_dir() => before = here,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue 'paths,
                    Ok(_) => {
                        came.insert(Bytes::from(here));
                        continue 'paths;
                    }
                    Err(_) => {
                        came.insert(Bytes::from(before));
                        continue 'paths;
                    }
                }
            }
            if !is_gone(path) {
                came.insert(Bytes::from(path));
            }
        }
        came.into_iter().collect()
    }

    /// Enough of them in one directory that it's listed.
    const NAMES: [&str; 11] = [
        ".git/hooks",
        ".git/config",
        ".git/modules/a/hooks",
        ".vscode",
        ".idea",
        ".envrc",
        ".gitmodules",
        ".husky/b",
        "d/.git/hooks",
        "d/.git/config",
        "d/e/\u{e9}",
    ];

    #[test]
    fn what_has_come_to_be_is_what_looking_for_each_by_itself_finds() {
        let mut found = 0;
        for made in [
            &[][..],
            &[".git/"],
            &[".git/hooks/"],
            &[".git/config", ".git/hooks/"],
            &[".git"],
            &[".git@"],
            &[".git/modules/a/hooks/x", ".idea@"],
            &[".git/modules"],
            &["d/"],
            &["d@"],
            &["d/.git", "d/e/"],
            &["d/.git/", "d/e/\u{e9}", ".husky"],
            &[".GIT/hooks/", ".VsCode", "\u{212a}"],
        ] {
            let ground = tempfile::tempdir().unwrap();
            for name in made {
                let path: PathBuf = ground.path().join(name.trim_end_matches(['/', '@']));
                create_dir_all(path.parent().unwrap()).unwrap();
                match name.chars().last() {
                    Some('/') => create_dir_all(&path).unwrap(),
                    Some('@') => symlink(ground.path(), &path).unwrap(),
                    _ => write(&path, "").unwrap(),
                }
            }
            let missing: Vec<Bytes> =
                NAMES.iter().map(|name| Bytes::from(ground.path().join(name))).collect();
            let came = came_to_be(&missing);
            assert_eq!(came, plainly(&missing), "{made:?}");
            found += came.len();
        }
        assert!(found > 10, "{found}: next to nothing was made");
    }

    #[test]
    fn what_comes_to_be_after_a_look_is_found_by_the_next() {
        let ground = tempfile::tempdir().unwrap();
        let missing: Vec<Bytes> = NAMES.iter().map(|name| Bytes::from(ground.path().join(name))).collect();
        assert!(came_to_be(&missing).is_empty());
        create_dir_all(ground.path().join(".git/hooks")).unwrap();
        assert_eq!(came_to_be(&missing), [Bytes::from(ground.path().join(".git/hooks"))]);
    }
}
