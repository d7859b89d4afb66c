//! What couldn't be tested on this machine, and why: on the terminal and in a summary file.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Mutex;

static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Says `not tested here: NAME: WHY`, once a process, past the test runner's capture, and notes it in
/// `not-tested.txt` of the build directory (or in the file `STOCKADE_NOT_TESTED` names).
pub fn not_tested(name: &str, why: &str) {
    let line = format!("not tested here: {name}: {why}\n");
    if !SAID.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(line.clone()) {
        return;
    }
    // The macros that print are captured in passing tests; the stream itself isn't.
    let _ = std::io::stderr().write_all(line.as_bytes());
    let file = std::env::var_os("STOCKADE_NOT_TESTED")
        .map_or_else(|| crate::binaries::build_directory().join("not-tested.txt"), Into::into);
    if let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(file) {
        let _ = file.write_all(line.as_bytes());
    }
}
