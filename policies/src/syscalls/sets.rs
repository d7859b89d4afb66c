//! System calls and sets of them, whatever tables they come from: the crate's (`table`), or the build's, which makes those and
//! the filters of shipped policies (`build/filters.rs`).

/// A system call, whatever the architecture: its place in the table of names, which is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Call(pub(super) u16);

/// A set of calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Calls(pub(super) [u64; 8]);

/// An architecture with filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arch {
    /// AMD and Intel, 64 bits.
    X86_64,
    /// ARM, 64 bits.
    Aarch64,
}

impl Arch {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// `AUDIT_ARCH_*` of linux/audit.h, as `seccomp_data.arch` has it.
    #[must_use]
    pub const fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Aarch64 => 0xc000_00b7,
        }
    }
}

impl Calls {
    pub(super) fn has(&self, call: Call) -> bool {
        self.0[usize::from(call.0 / 64)] & 1 << (call.0 % 64) != 0
    }

    pub(super) fn insert(&mut self, call: Call) {
        self.0[usize::from(call.0 / 64)] |= 1 << (call.0 % 64);
    }

    pub(super) fn remove(&mut self, call: Call) {
        self.0[usize::from(call.0 / 64)] &= !(1 << (call.0 % 64));
    }

    /// These and those.
    pub(super) fn with(mut self, others: &Self) -> Self {
        self.0.iter_mut().zip(others.0).for_each(|(own, other)| *own |= other);
        self
    }

    /// These, but for those.
    pub(super) fn without(mut self, others: &Self) -> Self {
        self.0.iter_mut().zip(others.0).for_each(|(own, other)| *own &= !other);
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0 == [0; 8]
    }
}
