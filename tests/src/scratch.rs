//! A directory that is gone when it's dropped.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A fresh directory, open to every user for looking, below `/tmp` (or `STOCKADE_TEST_TMP`).
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one; the word shows in its name.
    #[must_use]
    pub fn new(word: &str) -> Self {
        let above = std::env::var_os("STOCKADE_TEST_TMP").map_or_else(|| PathBuf::from("/tmp"), Into::into);
        let path = loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = above.join(format!("stockade-test-{}-{word}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => break path,
                // A process of our number was killed once before it could tidy up.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        };
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        Self(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("STOCKADE_TEST_KEEP").is_some() {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.0)
            && !std::thread::panicking()
        {
            panic!("{} can't be removed: {error}", self.0.display());
        }
    }
}
