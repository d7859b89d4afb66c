//! Host uids of runs: one each from the policy's range, none in two live runs of this launcher.

use std::collections::HashSet;

/// The uids in use.
#[derive(Debug, Default)]
pub(crate) struct Uids {
    used: HashSet<u32>,
    next: u32,
}

impl Uids {
    /// A free uid of the range. Starts somewhere of this process's own, so that two launchers rarely meet.
    pub(crate) fn take(&mut self, start: u32, count: u32) -> Option<u32> {
        if self.next == 0 {
            self.next = std::process::id().wrapping_mul(509).max(1);
        }
        for _ in 0..count {
            let uid = start.checked_add(self.next % count)?;
            self.next = self.next.wrapping_add(1).max(1);
            if self.used.insert(uid) {
                return Some(uid);
            }
        }
        None
    }

    /// Gives a uid back. One that wasn't taken here is no error.
    pub(crate) fn give_back(&mut self, uid: u32) {
        self.used.remove(&uid);
    }
}
