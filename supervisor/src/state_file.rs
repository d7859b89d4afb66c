//! Files of the state directory: the old one or the new one at any moment, never half of either.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

/// What a file says, up to `longest` bytes and one more; `None`: there is none. No link is followed, and nobody is waited for.
///
/// # Errors
/// It can't be read, or isn't a plain file.
pub(crate) fn read(path: &Path, longest: u64) -> io::Result<Option<Vec<u8>>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it isn't a plain file"));
    }
    let mut text = Vec::new();
    file.take(longest.saturating_add(1)).read_to_end(&mut text)?;
    Ok(Some(text))
}

/// Puts a file with these bytes, which nobody else may read, in the place of another: on disk before it has its name.
///
/// # Errors
/// It can't be written; the old one is there still.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    // One that is left of a daemon that was killed is in nobody's way; a link in its place isn't followed.
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished);
    let written = written.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| std::fs::rename(&unfinished, path)) {
        // Half a file would only take the room that there is too little of.
        let _ = std::fs::remove_file(&unfinished);
        return Err(error);
    }
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_file_is_read_as_it_was_put_and_what_a_killed_writer_left_is_in_nobodys_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        assert_eq!(read(&path, 10).unwrap(), None);
        for text in ["one", "other"] {
            std::fs::write(directory.path().join("a.new"), "half of i").unwrap();
            replace(&path, text.as_bytes()).unwrap();
            assert_eq!(read(&path, 10).unwrap().unwrap(), text.as_bytes());
        }
        let names = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["a.json"]);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        // So much that it shows that there is more.
        assert_eq!(read(&path, 2).unwrap().unwrap(), b"oth");
    }

    #[test]
    fn what_cant_be_put_in_its_place_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        std::fs::create_dir_all(path.join("in the way")).unwrap();
        replace(&path, b"one").unwrap_err();
        assert!(!directory.path().join("a.new").exists());
    }

    #[test]
    fn a_link_a_folder_and_a_fifo_are_no_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        std::fs::create_dir(&path).unwrap();
        assert!(read(&path, 10).is_err());
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(directory.path().join("elsewhere"), "x").unwrap();
        symlink("elsewhere", &path).unwrap();
        assert!(read(&path, 10).is_err());
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read(&path, 10).is_err());
    }
}
