//! What the daemon gives its clients, as the configuration says it: what a reload can change while it runs.

use crate::config::Configuration;
use crate::dispatcher::{Bounds, Share};
use crate::ledger::Memory;
use crate::paths::Scope;

/// Connections at once.
pub(crate) const CONNECTIONS: u32 = 4096;
/// Connections of one user, in root's daemon.
pub(crate) const CONNECTIONS_PER_OWNER: u32 = 2048;
/// MiB that may wait in connections, beside what is free in each.
pub(crate) const CONNECTION_MEBIBYTES: u32 = 512;
/// Those of one user, in root's daemon.
pub(crate) const CONNECTION_MEBIBYTES_PER_OWNER: u32 = 128;
/// With so many bytes in them an owner has little: the largest frame, and as much that waits for him.
const LITTLE_CONNECTION_MEMORY: usize = 4 * 1024 * 1024;
/// How long runs may go on when the daemon is told to stop.
pub(crate) const GRACE_SECONDS: u32 = 10;

/// How many days the record's classes are kept, unless the configuration says otherwise: 12, 6 and 3 months.
pub(crate) const KEEP_SECURITY: u32 = 366;
pub(crate) const KEEP_ACCESS: u32 = 184;
pub(crate) const KEEP_OPERATION: u32 = 92;
/// Hours whose statistics are kept each by itself: a week.
pub(crate) const KEEP_HOURS: u32 = 7 * 24;
/// Days whose statistics are kept.
pub(crate) const KEEP_DAYS: u32 = 366;

/// The limits in force.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// The dispatcher's.
    pub(crate) bounds: Bounds,
    /// Grace of a drain, in milliseconds.
    pub(crate) grace_ms: u64,
    /// Whether runs go on without us when we stop.
    pub(crate) keep_runs: bool,
    /// Most connections at once, in total and of one user.
    pub(crate) connections: usize,
    pub(crate) connections_per_owner: usize,
    /// Bytes that may wait in them.
    pub(crate) memory: Memory,
}

impl Limits {
    /// Of a daemon of this scope. A user's has no other user, so what is for each is for all.
    pub(crate) fn of(configuration: &Configuration, scope: Scope) -> Self {
        let Configuration { runs, connections, .. } = configuration;
        let has_users = scope.is_machine();
        let mut bounds = Bounds::new(runs.slots.count(), runs.queue.count(), has_users);
        bounds.retention_ms = runs.retention.milliseconds();
        let own = |each: usize, all: usize| if has_users { each } else { all };
        let memory = connections.memory.bytes();
        Self {
            bounds,
            grace_ms: runs.grace.milliseconds(),
            keep_runs: runs.keep.is_on(),
            connections: connections.total.count(),
            connections_per_owner: own(connections.per_user.count(), connections.total.count()),
            memory: Memory {
                share: Share::new(memory, LITTLE_CONNECTION_MEMORY, has_users),
                per_owner: own(connections.memory_per_user.bytes(), memory),
            },
        }
    }
}
