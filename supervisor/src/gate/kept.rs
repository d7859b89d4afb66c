//! What breakers know, over restarts: read at the start, written a while after it has changed and at the end.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use stockade_gate::breaker::store::{self, StoreError};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Gate;
use crate::admission::chain;
use crate::daemon::Daemon;

/// How long changes are gathered: so much a daemon that is killed may forget.
const GATHER: Duration = Duration::from_secs(1);

/// Takes up what an earlier daemon has written down.
///
/// # Errors
/// It can't be read, or a newer daemon has written it.
pub(crate) fn restore(gate: &mut Gate, state: &Path) -> Result<(), StoreError> {
    let loaded = store::load(state)?;
    if let Some(aside) = loaded.set_aside {
        tracing::warn!(
            path = %aside.path.display(),
            reason = aside.reason,
            "what was known of breakers is damaged and set aside: all are closed"
        );
    }
    gate.restore(&loaded.snapshot);
    Ok(())
}

/// Writes what has changed, each time that something has.
pub(crate) async fn keep(daemon: Rc<Daemon>, state: PathBuf) {
    let bell = daemon.state.borrow().gate.changed();
    let mut written = 0;
    loop {
        bell.notified().await;
        sleep(GATHER).await;
        write(&daemon, &state, &mut written).await;
    }
}

/// Writes what has changed since, if anything has.
pub(crate) async fn write(daemon: &Rc<Daemon>, state: &Path, written: &mut u64) {
    let (changes, snapshot) = {
        let state = daemon.state.borrow();
        state.gate.snapshot(state.uptime())
    };
    if changes == *written {
        return;
    }
    let place = state.to_owned();
    // The disk may be slow, and the loop is everybody's.
    match spawn_blocking(move || store::save(&place, &snapshot)).await {
        Ok(Ok(())) => *written = changes,
        Ok(Err(error)) => {
            tracing::warn!(
                reason = chain(&error),
                "what breakers know can't be written: a restart closes them"
            );
        }
        Err(error) => tracing::error!(%error, "what breakers know can't be written"),
    }
}
