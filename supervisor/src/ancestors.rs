//! Whether nobody else can put a directory of his own in the place of one of ours: every directory on the way to it
//! must be root's or ours, and nobody else may write to it, or only where the sticky bit keeps what is ours.
//!
//! The way is walked from the root and through each symbolic link, so what has been checked stays as it is: only
//! root and we can change it. sshd and systemd ask for the same.

use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;
use stockade_policies::files::Refusal;

/// The most links on a way, as in the kernel.
const LINKS: usize = 40;
/// The first user id that most systems give to people (`UID_MIN` of login.defs(5)).
const FIRST_PERSON: u32 = 1000;
/// The mode bits that count.
const STICKY: u32 = 0o1000;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// What is wrong with a way.
#[derive(Debug)]
pub(crate) enum Unsafe {
    /// This directory or link, why, and what would help.
    Place { path: PathBuf, reason: String, remedy: String },
    /// It can't be looked at.
    Io { path: PathBuf, source: io::Error },
}

/// Who we are.
#[derive(Debug, Clone, Copy)]
struct Us {
    uid: u32,
    gid: u32,
}

/// Whether a file is root's or ours, and nobody else may write to it.
///
/// # Errors
/// What is wrong, and what would help.
pub(crate) fn belongs(file: &Metadata, uid: u32) -> Result<(), Refusal> {
    let us = Us { uid, gid: rustix::process::getegid().as_raw() };
    if file.uid() != 0 && file.uid() != us.uid {
        let whose = if uid == 0 { "root's" } else { "root's or yours" };
        let reason = format!("it belongs to user {}, who could say anything in it", file.uid());
        return Err(Refusal::new(reason, format!("make it {whose}, with chown")));
    }
    if others_write(file, us) {
        return Err(Refusal::new("others may write to it", "chmod go-w it"));
    }
    Ok(())
}

fn others_write(found: &Metadata, us: Us) -> bool {
    // The group of a user alone, by the numbers that most systems give it. A system's user may share his: stockade's is that of
    // its clients.
    let is_private = us.uid >= FIRST_PERSON && us.gid == us.uid && found.gid() == us.gid;
    let writes = if is_private { OTHERS_WRITE } else { OTHERS_WRITE | GROUP_WRITES };
    found.mode() & writes != 0
}

/// Checks every directory above `path`. Where the way ends nothing is there yet, and what we make is ours.
///
/// # Errors
/// The first that isn't safe.
pub(crate) fn check(path: &Path, uid: u32) -> Result<(), Unsafe> {
    let us = Us { uid, gid: rustix::process::getegid().as_raw() };
    let path = &std::path::absolute(path).map_err(|source| Unsafe::Io { path: path.to_owned(), source })?;
    let mut here = PathBuf::from("/");
    check_one(&here, us)?;
    let mut ahead: Vec<OsString> = Vec::new();
    push(&mut ahead, path.parent().unwrap_or(Path::new("/")));
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        if name == OsStr::new("..") {
            here.pop();
            continue;
        }
        let next = here.join(name);
        let failed = |source| Unsafe::Io { path: next.clone(), source };
        match check_one(&next, us) {
            Err(Unsafe::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
            Ok(false) => here = next,
            Ok(true) => {
                links += 1;
                if links > LINKS {
                    return Err(failed(Errno::LOOP.into()));
                }
                let target = std::fs::read_link(&next).map_err(failed)?;
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                push(&mut ahead, &target);
            }
        }
    }
    Ok(())
}

/// Puts the components of a path before those that are ahead.
fn push(ahead: &mut Vec<OsString>, path: &Path) {
    let named = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    let names: Vec<OsString> = path.components().filter_map(named).collect();
    ahead.extend(names.into_iter().rev());
}

/// Checks one directory or link. Whether it is a link.
fn check_one(path: &Path, us: Us) -> Result<bool, Unsafe> {
    let found =
        std::fs::symlink_metadata(path).map_err(|source| Unsafe::Io { path: path.to_owned(), source })?;
    let not_safe =
        |reason: String, remedy: String| Err(Unsafe::Place { path: path.to_owned(), reason, remedy });
    if found.uid() != 0 && found.uid() != us.uid {
        let reason = format!("it belongs to user {}, who could put another in its place", found.uid());
        return not_safe(reason, "use a place whose every directory is root's or yours".to_owned());
    }
    // A link's mode says nothing.
    if found.is_symlink() {
        return Ok(true);
    }
    if found.mode() & STICKY == 0 && others_write(&found, us) {
        let reason = "others may write to it, and so replace what is in it".to_owned();
        return not_safe(reason, format!("chmod go-w {}, or use another place", path.display()));
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn us() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn make(path: &Path, mode: u32) -> PathBuf {
        std::fs::create_dir(path).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.to_owned()
    }

    fn unsafe_place(path: &Path) -> PathBuf {
        match check(path, us()) {
            Err(Unsafe::Place { path, remedy, reason }) => {
                assert!(!remedy.is_empty() && !reason.is_empty());
                path
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused_however_far_above() {
        let top = tempfile::tempdir().unwrap();
        let top = top.path().canonicalize().unwrap();
        let open = make(&top.join("open"), 0o777);
        let inner = make(&open.join("inner"), 0o700);
        let ours = make(&inner.join("ours"), 0o700);
        assert_eq!(unsafe_place(&ours), open);
        assert_eq!(unsafe_place(&inner.join("not/there/yet")), open);
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o1777)).unwrap();
        check(&ours, us()).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
        check(&ours, us()).unwrap();
        check(&inner.join("not/there/yet"), us()).unwrap();
    }

    #[test]
    fn the_way_is_checked_through_links_and_back() {
        let top = tempfile::tempdir().unwrap();
        let top = top.path().canonicalize().unwrap();
        let open = make(&top.join("open"), 0o777);
        make(&open.join("inner"), 0o700);
        let good = make(&top.join("good"), 0o700);
        symlink("../open/inner", good.join("link")).unwrap();
        symlink(good.join("link"), top.join("second")).unwrap();
        assert_eq!(unsafe_place(&top.join("second/ours")), open);
        symlink("good", top.join("third")).unwrap();
        check(&top.join("third/ours"), us()).unwrap();
        symlink("loop", top.join("loop")).unwrap();
        assert!(matches!(check(&top.join("loop/ours"), us()), Err(Unsafe::Io { .. })));
    }

    #[test]
    fn a_directory_or_a_link_of_somebody_else_is_refused() {
        if us() != 0 {
            eprintln!("not tested: what belongs to somebody else: that takes root");
            return;
        }
        let top = tempfile::tempdir().unwrap();
        let top = top.path().canonicalize().unwrap();
        let theirs = make(&top.join("theirs"), 0o755);
        let somebody = Some(nix::unistd::Uid::from_raw(12_345));
        nix::unistd::chown(&theirs, somebody, None).unwrap();
        assert_eq!(unsafe_place(&theirs.join("ours")), theirs);
        let link = top.join("link");
        symlink(make(&top.join("good"), 0o755), &link).unwrap();
        check(&link.join("ours"), us()).unwrap();
        std::os::unix::fs::lchown(&link, Some(12_345), None).unwrap();
        assert_eq!(unsafe_place(&link.join("ours")), link);
    }
}
