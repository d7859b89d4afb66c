//! What breakers know, over restarts: read at the start, written a while after it has changed and at the end.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use stockade_gate::breaker::snapshot::{Damage, LARGEST, Snapshot, VERSION};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Gate;
use crate::admission::chain;
use crate::daemon::Daemon;
use crate::state_file;

/// Its name in the state directory.
const FILE: &str = "breakers.json";
/// What a damaged one is called.
const DAMAGED: &str = "breakers.json.damaged";
/// How long changes are gathered: so much a daemon that is killed may forget.
const GATHER: Duration = Duration::from_secs(1);
/// When a write that failed is tried again, though nothing else has changed.
const RETRY: Duration = Duration::from_secs(10);

/// Why what was written down can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeptError {
    /// It can't be read or written.
    #[error("cannot use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
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

/// Takes up what an earlier daemon has written down. A damaged file is no error: it's set aside, and said to be.
///
/// # Errors
/// It can't be read, or a newer daemon has written it.
pub(crate) fn restore(gate: &mut Gate, state: &Path) -> Result<(), KeptError> {
    let path = state.join(FILE);
    let wrong = |source| KeptError::Io { path: path.clone(), source };
    let Some(text) = state_file::read(&path, LARGEST).map_err(wrong)? else { return Ok(()) };
    match Snapshot::parse(&text) {
        Ok(snapshot) => gate.restore(&snapshot),
        Err(Damage::Newer(version)) => return Err(KeptError::Newer { path, version }),
        Err(Damage::Text(reason)) => {
            let aside = state.join(DAMAGED);
            std::fs::rename(&path, &aside).map_err(wrong)?;
            tracing::warn!(
                path = %aside.display(),
                reason,
                "what was known of breakers is damaged and set aside: all are closed"
            );
        }
    }
    Ok(())
}

/// Writes what has changed, each time that something has, until `over` is told or dropped, and then once more. Never twice at a
/// time.
pub(crate) async fn keep(daemon: Rc<Daemon>, state: PathBuf, mut over: oneshot::Receiver<()>) {
    let bell = daemon.state.borrow().gate.changed();
    let (mut written, mut failed) = (0, false);
    loop {
        let gathered = async {
            tokio::select! {
                () = bell.notified() => sleep(GATHER).await,
                () = sleep(RETRY), if failed => {}
            }
        };
        let is_over = tokio::select! {
            _told = &mut over => true,
            () = gathered => false,
        };
        failed = !write(&daemon, &state, &mut written).await;
        if is_over {
            return;
        }
    }
}

/// Writes what has changed since, if anything has; whether it's on disk now.
async fn write(daemon: &Rc<Daemon>, state: &Path, written: &mut u64) -> bool {
    let (changes, snapshot) = {
        let state = daemon.state.borrow();
        state.gate.snapshot(state.uptime())
    };
    if changes == *written {
        return true;
    }
    let path = state.join(FILE);
    let save = move || {
        let text = serde_json::to_vec(&snapshot)?;
        state_file::replace(&path, &text)
    };
    // The disk may be slow, and the loop is everybody's.
    match spawn_blocking(save).await {
        Ok(Ok(())) => {
            *written = changes;
            return true;
        }
        Ok(Err(error)) => tracing::warn!(
            reason = chain(&error),
            again_s = RETRY.as_secs(),
            "what breakers know can't be written: a restart closes them; see that the state directory has room"
        ),
        Err(error) => tracing::error!(%error, "what breakers know can't be written"),
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_set_aside_and_a_newer_one_is_refused_and_left_alone() {
        for text in ["", "{", "{\"version\":1}", "{\"version\":1,\"tools\":{},\"more\":1}"] {
            let state = tempfile::tempdir().unwrap();
            std::fs::write(state.path().join(FILE), text).unwrap();
            restore(&mut Gate::default(), state.path()).unwrap();
            assert_eq!(std::fs::read_to_string(state.path().join(DAMAGED)).unwrap(), text);
            assert!(!state.path().join(FILE).exists());
            restore(&mut Gate::default(), state.path()).unwrap();
        }
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join(FILE);
        std::fs::write(&path, "{\"version\":2,\"other\":[]}").unwrap();
        let error = restore(&mut Gate::default(), state.path()).unwrap_err().to_string();
        assert!(error.contains("newer stockade (version 2") && path.exists(), "{error}");
    }
}
