//! Who is needed, and how long they may take.

use core::time::Duration;

/// The most people that can be needed.
pub(super) const MOST_NEEDED: u32 = 16;
/// The shortest and the longest time for an answer.
pub(super) const SHORTEST: Duration = Duration::from_secs(1);
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What an approval takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// So many people have to say yes, 1 at least.
    pub needed: u32,
    /// And have so long for it.
    pub within: Duration,
    /// Whether somebody of the asker's own uid may answer from another unit of the system's manager.
    pub own_unit: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { needed: 1, within: Duration::from_secs(5 * 60), own_unit: false }
    }
}

impl Settings {
    /// What holds where both do.
    #[must_use]
    pub fn strictest(self, other: Self) -> Self {
        Self {
            needed: self.needed.max(other.needed),
            within: self.within.min(other.within),
            own_unit: self.own_unit && other.own_unit,
        }
    }
}
