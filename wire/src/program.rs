//! Which program a process runs.

use std::os::unix::fs::MetadataExt as _;

use stockade_protocol::launch::Program;

/// The file that this process was started from, also when another has taken its name.
#[must_use]
pub fn of_this_process() -> Program {
    let Ok(file) = std::fs::metadata("/proc/self/exe") else { return Program::default() };
    let modified_ns = file.mtime().saturating_mul(1_000_000_000).saturating_add(file.mtime_nsec());
    Program { device: file.dev(), inode: file.ino(), modified_ns }
}
