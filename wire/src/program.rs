//! Which program a process runs.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

use stockade_protocol::launch::Program;

/// The file that this process was started from, also when another has taken its name.
#[must_use]
pub fn of_this_process() -> Program {
    std::fs::metadata(OURSELVES).map(|file| of(&file)).unwrap_or_default()
}

/// Whether the name that this process's program had when it was started is another file's by now, or nobody's.
#[must_use]
pub fn is_replaced() -> bool {
    // Of a file that has been removed the link ends with ` (deleted)`, and there is none of that name.
    let there = std::fs::read_link(OURSELVES).and_then(std::fs::metadata);
    !there.is_ok_and(|file| of(&file) == of_this_process())
}

fn of(file: &Metadata) -> Program {
    let modified_ns = file.mtime().saturating_mul(1_000_000_000).saturating_add(file.mtime_nsec());
    Program { device: file.dev(), inode: file.ino(), modified_ns }
}

/// What this process was started from, also when it has no name any more.
const OURSELVES: &str = "/proc/self/exe";

#[cfg(test)]
mod tests {
    use super::*;

    /// A process whose program is removed is tried where there is one: in the launcher's tests.
    #[test]
    fn a_test_that_goes_on_is_the_program_that_its_file_is() {
        assert!(!is_replaced());
        assert_ne!(of_this_process(), Program::default());
    }
}
