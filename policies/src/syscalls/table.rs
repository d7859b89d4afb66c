//! Names and numbers of system calls, by architecture, and the profiles: tables that the build makes (`build/calls.rs`)
//! from the `syscalls` crate and the data files `syscalls/*.txt`. Nothing of them is read or hashed at run time. And the
//! rules of `arguments`, compiled (`build/rules.rs`).

use core::ops::Range;

pub(super) use stockade_protocol::spec::BpfInstruction;

use super::arguments::{Site, Variant};
pub use super::sets::Arch;
pub(super) use super::sets::{Call, Calls};

include!(concat!(env!("OUT_DIR"), "/calls.rs"));
include!(concat!(env!("OUT_DIR"), "/rules.rs"));
include!(concat!(env!("OUT_DIR"), "/filters.rs"));

/// A row of the table of names: where its name stands in [`NAMES`], and its numbers in the order of [`Arch::ALL`].
struct Named {
    start: u16,
    end: u16,
    numbers: [Option<u16>; 2],
}

/// One data file's calls, and those that it includes.
#[derive(Debug)]
pub(super) struct List {
    pub(super) calls: Calls,
    /// By rising call.
    lines: &'static [Line],
}

/// A line of a data file: the indexes are of [`FILES`] and [`REASONS`].
#[derive(Debug)]
struct Line {
    call: Call,
    file: u8,
    line: u16,
    start: u16,
    end: u16,
}

/// The rules of `arguments` on one call at one site: in which variants (by their bits) they are these, and where in
/// [`CODE`] their instructions stand. Several checks may be the same ones.
struct Check {
    call: Call,
    variants: u16,
    site: Site,
    start: u16,
    end: u16,
}

/// A call's rules, compiled: which instructions of the table they are, and they. They end in an answer on every way.
pub(super) type Compiled = (Call, Range<u16>, &'static [BpfInstruction]);

/// The rules of a policy at one site, one check a call.
pub(super) fn compiled_rules(variant: Variant, site: Site) -> impl Iterator<Item = Compiled> {
    let bit = variant.bit();
    let mine = CHECKS.iter().filter(move |check| check.site == site && check.variants & bit != 0);
    mine.filter_map(|check| {
        let code = CODE.get(usize::from(check.start)..usize::from(check.end))?;
        Some((check.call, check.start..check.end, code))
    })
}

/// A filter that the build has made, for a set of calls: its programs are parts of [`FILTER_CODE`].
struct Built {
    arch: Arch,
    variant: u16,
    calls: Calls,
    base: Range<u16>,
    delta: Range<u16>,
    allowed: u16,
}

/// Base and delta of a filter that the build has made, and how many calls the base lets through.
pub(super) fn built_programs(
    arch: Arch,
    variant: Variant,
    calls: &Calls,
) -> Option<([&'static [BpfInstruction]; 2], usize)> {
    let bit = variant.bit();
    let built = FILTERS.iter().find(|it| it.arch == arch && it.variant == bit && it.calls == *calls)?;
    let code = |part: &Range<u16>| FILTER_CODE.get(usize::from(part.start)..usize::from(part.end));
    Some(([code(&built.base)?, code(&built.delta)?], built.allowed.into()))
}

/// How many rules a policy has.
pub(super) fn rule_count(variant: Variant) -> usize {
    RULE_COUNTS.get(variant.bit().trailing_zeros() as usize).copied().unwrap_or(0).into()
}

/// Where a list has a call, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) file: &'static str,
    pub(super) line: u32,
    pub(super) reason: &'static str,
}

impl Call {
    /// The call of this name that some architecture has.
    pub(super) fn named(name: &str) -> Option<Self> {
        let found = CALLS.binary_search_by(|row| row.name().cmp(name)).ok()?;
        u16::try_from(found).ok().map(Self)
    }

    pub(super) fn name(self) -> &'static str {
        CALLS.get(usize::from(self.0)).map_or("", Named::name)
    }

    /// Every call of every architecture, by name.
    #[cfg(test)]
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..).map(Self).take(CALLS.len())
    }
}

impl Named {
    fn name(&self) -> &'static str {
        NAMES.get(usize::from(self.start)..usize::from(self.end)).unwrap_or("")
    }
}

impl Calls {
    /// Calls by their names; what no architecture has is left out.
    pub(super) fn named(names: &[&str]) -> Self {
        let mut calls = Self::default();
        names.iter().filter_map(|name| Call::named(name)).for_each(|call| calls.insert(call));
        calls
    }
}

impl List {
    pub(super) fn entry(&self, call: Call) -> Option<Entry> {
        let found = self.lines.binary_search_by_key(&call, |line| line.call).ok()?;
        let line = self.lines.get(found)?;
        Some(Entry {
            file: FILES.get(usize::from(line.file))?,
            line: line.line.into(),
            reason: REASONS.get(usize::from(line.start)..usize::from(line.end))?,
        })
    }
}

/// What a policy can name in `[syscalls] profile`, sorted.
pub(super) const PROFILES: [(&str, &List); 2] = [("minimal", &MINIMAL), ("standard", &STANDARD)];

impl Arch {
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

    /// The number of a call, where this architecture has it.
    #[must_use]
    pub fn number(self, name: &str) -> Option<u32> {
        self.number_of(Call::named(name)?)
    }

    pub(super) fn number_of(self, call: Call) -> Option<u32> {
        let [x86_64, aarch64] = CALLS.get(usize::from(call.0))?.numbers;
        match self {
            Self::X86_64 => x86_64,
            Self::Aarch64 => aarch64,
        }
        .map(u32::from)
    }

    /// The name of a number, where this architecture has it.
    #[must_use]
    pub fn name(self, number: u32) -> Option<&'static str> {
        let number = u16::try_from(number).ok()?;
        let found = self.table().binary_search_by_key(&number, |(number, _)| *number).ok()?;
        self.table().get(found).map(|(_, call)| call.name())
    }

    /// Every call's name, by rising number.
    pub fn calls(self) -> impl Iterator<Item = (u32, &'static str)> {
        self.by_number().map(|(number, call)| (number, call.name()))
    }

    /// Every call, by rising number.
    pub(super) fn by_number(self) -> impl Iterator<Item = (u32, Call)> {
        self.table().iter().map(|(number, call)| (u32::from(*number), *call))
    }

    fn table(self) -> &'static [(u16, Call)] {
        match self {
            Self::X86_64 => &X86_64,
            Self::Aarch64 => &AARCH64,
        }
    }
}

/// Every name of every architecture.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    Arch::ALL.iter().flat_map(|arch| arch.calls().map(|(_, name)| name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syscalls::listing::Calls as Listed;

    #[test]
    fn tables_have_the_names_and_numbers_of_the_syscalls_crate() {
        for number in 0..2048 {
            let name = syscalls::x86_64::Sysno::new(number).map(|call| call.name());
            assert_eq!(Arch::X86_64.name(u32::try_from(number).unwrap()), name, "{number}");
            let name = syscalls::aarch64::Sysno::new(number).map(|call| call.name());
            assert_eq!(Arch::Aarch64.name(u32::try_from(number).unwrap()), name, "{number}");
        }
    }

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
        assert_eq!(Call::named("no_such_call"), None);
    }

    /// What the files say, read again by the build's parser.
    #[test]
    fn lists_have_every_line_of_the_data_files_and_no_other() {
        let listed = crate::syscalls::reference::listed().unwrap();
        let same = |list: &List, listed: &Listed<'static>| {
            assert!(!listed.is_empty());
            for call in Call::all() {
                let entry = listed.get(call.name()).map(|entry| Entry {
                    file: entry.file,
                    line: entry.line.into(),
                    reason: entry.reason,
                });
                assert_eq!(list.entry(call), entry, "{}", call.name());
                assert_eq!(list.calls.has(call), entry.is_some(), "{}", call.name());
            }
        };
        assert_eq!(PROFILES.map(|(name, _)| name).to_vec(), listed.named.keys().copied().collect::<Vec<_>>());
        for (name, list) in PROFILES {
            same(list, &listed.named[name]);
        }
        same(&INIT, &listed.init);
        same(&NEVER, &listed.never);
    }

    #[test]
    fn data_files_are_right_and_disjoint_where_they_must_be() {
        for (name, list) in PROFILES {
            assert!(list.lines.len() > 200, "{name}");
            for call in Call::all().filter(|call| NEVER.calls.has(*call)) {
                assert!(!list.calls.has(call), "{name} allows {}", call.name());
                assert!(!INIT.calls.has(call), "{}", call.name());
            }
        }
        for call in ["execve", "clone", "wait4", "waitid", "seccomp", "landlock_restrict_self", "sendmsg"] {
            assert!(INIT.calls.has(Call::named(call).unwrap()), "{call}");
        }
    }

    #[test]
    fn sets_of_calls_add_and_take_away() {
        let [read, write] = ["read", "write"].map(|name| Call::named(name).unwrap());
        let mut set = Calls::named(&["read", "no_such_call"]);
        assert!(set.has(read) && !set.has(write) && !set.is_empty());
        assert_eq!(set.with(&Calls::named(&["write"])), Calls::named(&["write", "read"]));
        assert_eq!(set.without(&set), Calls::default());
        set.insert(write);
        set.remove(read);
        assert_eq!(set, Calls::named(&["write"]));
    }
}
