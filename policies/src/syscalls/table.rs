//! Names and numbers of system calls, by architecture.

use std::collections::HashMap;
use std::sync::LazyLock;

use seccompiler::TargetArch;
use syscalls::{aarch64, x86_64};

/// Numbers are looked for below this; no architecture here has one above.
const NUMBERS: usize = 1024;

/// An architecture with filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    /// AMD and Intel, 64 bits.
    X86_64,
    /// ARM, 64 bits.
    Aarch64,
}

impl Arch {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// This machine's, if there are filters for it.
    #[must_use]
    pub const fn current() -> Option<Self> {
        if cfg!(target_arch = "x86_64") {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else {
            None
        }
    }

    /// `AUDIT_ARCH_*` of linux/audit.h, as `seccomp_data.arch` has it.
    #[must_use]
    pub const fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// The number of a call, where this architecture has it.
    #[must_use]
    pub fn number(self, name: &str) -> Option<u32> {
        // A name that is parsed is compared with hundreds of others, and a short run waits for hundreds of names.
        static NUMBERS: [LazyLock<HashMap<&str, u32>>; 2] = [
            LazyLock::new(|| Arch::X86_64.calls().map(|(number, name)| (name, number)).collect()),
            LazyLock::new(|| Arch::Aarch64.calls().map(|(number, name)| (name, number)).collect()),
        ];
        let [x86_64, aarch64] = &NUMBERS;
        match self {
            Self::X86_64 => x86_64.get(name).copied(),
            Self::Aarch64 => aarch64.get(name).copied(),
        }
    }

    /// The name of a number, where this architecture has it.
    #[must_use]
    pub fn name(self, number: u32) -> Option<&'static str> {
        let id = usize::try_from(number).ok()?;
        match self {
            Self::X86_64 => x86_64::Sysno::new(id).map(|call| call.name()),
            Self::Aarch64 => aarch64::Sysno::new(id).map(|call| call.name()),
        }
    }

    /// Every call, by rising number.
    pub fn calls(self) -> impl Iterator<Item = (u32, &'static str)> {
        (0..NUMBERS).filter_map(move |id| {
            let number = u32::try_from(id).ok()?;
            Some((number, self.name(number)?))
        })
    }

    pub(super) fn target(self) -> TargetArch {
        match self {
            Self::X86_64 => TargetArch::x86_64,
            Self::Aarch64 => TargetArch::aarch64,
        }
    }
}

/// The table's own copy of a name that some architecture has.
pub(super) fn known(name: &str) -> Option<&'static str> {
    Arch::ALL.iter().find_map(|arch| arch.number(name).and_then(|number| arch.name(number)))
}

/// Every name of every architecture.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    Arch::ALL.iter().flat_map(|arch| arch.calls().map(|(_, name)| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree_with_the_c_library() {
        if Arch::current() == Some(Arch::X86_64) {
            for (name, number) in [
                ("read", libc::SYS_read),
                ("openat", libc::SYS_openat),
                ("clone3", libc::SYS_clone3),
                ("socket", libc::SYS_socket),
                ("fchmodat2", libc::SYS_fchmodat2),
            ] {
                assert_eq!(Arch::X86_64.number(name).map(i64::from), Some(number), "{name}");
            }
        }
        for arch in Arch::ALL {
            for (number, name) in arch.calls() {
                assert_eq!(arch.number(name), Some(number));
            }
            assert!(arch.calls().count() > 300);
        }
        assert_eq!(Arch::X86_64.audit(), 62 | 0x8000_0000 | 0x4000_0000);
        assert_eq!(Arch::Aarch64.audit(), 183 | 0x8000_0000 | 0x4000_0000);
        assert_eq!(known("no_such_call"), None);
    }
}
