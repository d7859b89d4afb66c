//! How long others may take, where we go on without them.

use std::time::Duration;

/// In our own tests the others are threads beside us, on a machine that may be busy with something else: there they may take a
/// minute.
pub(crate) const fn patience(usual: Duration) -> Duration {
    if cfg!(test) { Duration::from_secs(60) } else { usual }
}
