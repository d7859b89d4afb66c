//! How owners share what there is only so much of.
//!
//! The last quarter is kept for those who have little of it so far. So a hog takes three quarters, and so do two
//! of them together, or ten: whoever comes next finds room for a first piece, however much the others want. Who
//! has his first piece competes for the three quarters like everybody else.

/// The part that is kept, as a divisor.
const KEPT_DIVISOR: usize = 4;

/// A bound on what owners share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// All there is.
    pub total: usize,
    /// How much of it only an owner with little may take.
    pub kept: usize,
    /// What an owner may have and still count as one with little.
    pub little: usize,
}

impl Share {
    /// Of `total`, for many owners or for one, who needs nothing kept from him.
    #[must_use]
    pub const fn new(total: usize, little: usize, many_owners: bool) -> Self {
        Self { total, kept: if many_owners { total / KEPT_DIVISOR } else { 0 }, little }
    }

    /// Whether an owner who has `own` of all the `taken` may have `more`.
    #[must_use]
    pub const fn allows(self, taken: usize, own: usize, more: usize) -> bool {
        let kept = if own.saturating_add(more) <= self.little { 0 } else { self.kept };
        taken.saturating_add(more).saturating_add(kept) <= self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_quarter_is_for_who_has_little() {
        let share = Share::new(8, 1, true);
        assert!(share.allows(5, 5, 1));
        assert!(!share.allows(6, 3, 1), "however little of it is his");
        assert!(share.allows(6, 0, 1));
        assert!(share.allows(7, 0, 1));
        assert!(!share.allows(8, 0, 1));
        assert!(!share.allows(6, 0, 2), "two aren't little");
        assert!(Share::new(8, 1, false).allows(7, 7, 1));
    }

    #[test]
    fn of_what_cannot_be_divided_nothing_is_kept() {
        assert!(Share::new(3, 1, true).allows(2, 2, 1));
        assert!(!Share::new(0, 1, true).allows(0, 0, 1));
        assert!(!Share::new(8, 1, true).allows(usize::MAX, 0, usize::MAX));
    }
}
