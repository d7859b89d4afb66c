//! For tests: when processes may be started.
//!
//! Between fork and exec a process has every descriptor of ours, also those that are closed on exec. A lock that a test gives up, or
//! a socket that it closes, is held on by a process that another test is just starting.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static STARTING: RwLock<()> = RwLock::new(());

/// Held from before the fork until the program has been executed, as `Command::spawn` waits for it.
pub(crate) fn one() -> RwLockWriteGuard<'static, ()> {
    STARTING.write().unwrap_or_else(PoisonError::into_inner)
}

/// While this is held, nobody has a descriptor of ours but we.
pub(crate) fn none() -> RwLockReadGuard<'static, ()> {
    STARTING.read().unwrap_or_else(PoisonError::into_inner)
}
