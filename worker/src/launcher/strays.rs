//! Orphans of runs without a pid namespace: when such a run's own init is killed, what it leaves comes to the launcher,
//! their subreaper.
//!
//! A stray tells itself from a process of ours by its session: a tool begins a session of its own, nothing of it can
//! enter the launcher's again (setpgid(2) stays within a session), and nothing of ours ever leaves it.

use rustix::process::{Pid, Signal};

use crate::init;

/// Kills every stray with all that is below it. Whether there was one.
pub(super) fn kill() -> bool {
    // Not by rustix, whose ids are never 0: a session that is led from outside our pid namespace is (as in a container
    // whose first process was entered from its host).
    let Ok(ours) = nix::unistd::getsid(None) else { return false };
    let mut found = false;
    for child in init::children("self") {
        if !is_stray(child, ours) {
            continue;
        }
        found = true;
        init::kill_descendants(child);
        // Our own child, and reaped by nobody else: the pid is still its.
        let _ = rustix::process::kill_process(child, Signal::KILL);
    }
    found
}

/// In another session, and not merely waiting to be reaped.
fn is_stray(child: Pid, ours: nix::unistd::Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.as_raw_nonzero()));
    // The name, in brackets, may hold anything.
    let Some((state, rest)) = stat.ok().and_then(|text| {
        let (_, fields) = text.rsplit_once(") ")?;
        fields.split_once(' ').map(|(state, rest)| (state.to_owned(), rest.to_owned()))
    }) else {
        return false;
    };
    let session = rest.split(' ').nth(2).and_then(|word| word.parse().ok());
    state != "Z" && session != Some(ours.as_raw())
}
