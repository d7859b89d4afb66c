//! Bounds on memory: how much is held at once while something is read. It counts the whole process, so whoever asks has
//! only one thread.

use peak_alloc::PeakAlloc;
use stockade_protocol::bounds::MAX_LAUNCH_MESSAGE;

#[global_allocator]
static COUNTER: PeakAlloc = PeakAlloc;

/// What a decoder may take beyond what its message needs: it reserves at most 1 MiB ahead for one list, and lists nest
/// three deep at most.
pub const AHEAD: usize = 3 * 1024 * 1024;
/// Bytes in memory for a byte on the wire, in a vector that grows by doubling.
pub const FACTOR: usize = 3 * 3;

/// Does something that may hold so many bytes at most.
///
/// # Panics
/// It held more.
pub fn within<T>(bound: usize, what: impl FnOnce() -> T) -> T {
    let before = COUNTER.current_usage();
    COUNTER.reset_peak_usage();
    let done = what();
    let held = COUNTER.peak_usage().saturating_sub(before);
    assert!(held <= bound, "{held} bytes held, {bound} allowed");
    done
}

/// What decoding a client's frame of so many bytes may hold.
#[must_use]
pub const fn for_message(length: usize) -> usize {
    AHEAD + FACTOR * length
}

/// What decoding a launch message of so many bytes may hold: an announced text has its room before it is read, within the
/// wire's bound, which is greater here.
#[must_use]
pub const fn for_launch(length: usize) -> usize {
    MAX_LAUNCH_MESSAGE + AHEAD + FACTOR * length
}
