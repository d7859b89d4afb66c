//! Every limit of the dispatcher, by name, with its default. Times are milliseconds.

use stockade_protocol::bounds::{MAX_FRAME, UNCLAIMED_MS};

use super::share::Share;

/// Runs that may be started and not finished. 64 in flight must be possible on two cores; most runs wait for
/// something other than a processor, so this bounds memory and processes, not load.
pub const SLOTS: u32 = 256;
/// Workers parked for one owner, policy and workspace. How many of them there are goes by how often runs come.
pub const PARKED: u32 = 8;
/// Runs that may wait for a slot.
pub const QUEUE: u32 = 1024;
/// Bytes of requests that may wait for a slot, together. A queue of the largest requests would be 768 MiB.
pub const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// Runs one connection may follow whose `Exited` it hasn't taken yet.
pub const RUNS_PER_CONNECTION: usize = 1024;
/// How long an ended run is kept for a client that comes back.
pub const RETENTION_SECONDS: u32 = 10 * 60;
/// Ended runs kept, in total.
pub const KEPT_RUNS: usize = 2048;
/// Ended runs kept, of one owner.
pub const KEPT_RUNS_PER_OWNER: usize = 512;
/// Bytes of output kept of ended runs, in total.
pub const KEPT_OUTPUT: u64 = 256 * 1024 * 1024;
/// Bytes of output kept of ended runs, of one owner.
pub const KEPT_OUTPUT_PER_OWNER: u64 = 64 * 1024 * 1024;
/// How long the end of output may stay away after the end of the run, counted from the last progress and only
/// while nobody holds the output up.
pub const CLOSING_MS: u64 = 5_000;
/// How long a worker may take to be made before the run is cancelled. The launcher has bounds of its own; this
/// one notices when they don't hold.
pub const STARTING_MS: u64 = 120_000;
/// How long after its wall time a run may go on before we take the launcher for hung: it arms the limit itself.
pub const OVERDUE_MS: u64 = 30_000;
/// How long a cancelled run may stay unanswered before the launcher is replaced.
pub const UNANSWERED_MS: u64 = 30_000;
/// After the grace of a drain: how long the last ends may take.
pub const DRAIN_TAIL_MS: u64 = 10_000;

/// The limits in force.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// See [`SLOTS`]. An owner has little who has none.
    pub slots: Share,
    /// See [`QUEUE`]. An owner has little of whom nothing waits.
    pub queue: Share,
    /// See [`QUEUE_BYTES`]. One request of any size is little.
    pub queue_bytes: Share,
    /// See [`RUNS_PER_CONNECTION`].
    pub runs_per_connection: usize,
    /// See [`RETENTION_SECONDS`].
    pub retention_ms: u64,
    /// See [`UNCLAIMED_MS`].
    pub unclaimed_ms: u64,
    /// See [`KEPT_RUNS`].
    pub kept_runs: usize,
    /// See [`KEPT_RUNS_PER_OWNER`].
    pub kept_runs_per_owner: usize,
    /// See [`KEPT_OUTPUT`].
    pub kept_output: u64,
    /// See [`KEPT_OUTPUT_PER_OWNER`].
    pub kept_output_per_owner: u64,
}

impl Bounds {
    /// With `slots` and `queue`, for one owner (a user's daemon) or for many (root's).
    #[must_use]
    pub fn new(slots: usize, queue: usize, many_owners: bool) -> Self {
        Self {
            slots: Share::new(slots, 1, many_owners),
            queue: Share::new(queue, 1, many_owners),
            queue_bytes: Share::new(QUEUE_BYTES, MAX_FRAME as usize, many_owners),
            runs_per_connection: RUNS_PER_CONNECTION,
            retention_ms: u64::from(RETENTION_SECONDS) * 1000,
            unclaimed_ms: UNCLAIMED_MS,
            kept_runs: KEPT_RUNS,
            kept_runs_per_owner: KEPT_RUNS_PER_OWNER,
            kept_output: KEPT_OUTPUT,
            kept_output_per_owner: KEPT_OUTPUT_PER_OWNER,
        }
    }
}
