//! What `src/syscalls/table.rs` is in the crate: the build's own tables, from which it makes that one's. What is shared with the
//! crate (`src/syscalls/assemble.rs`, `filter.rs`) asks these.

use std::ops::Range;
use std::sync::OnceLock;

use crate::arguments::{Site, Variant};
use crate::sets::{Arch, Call};

/// As the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BpfInstruction {
    pub(crate) code: u16,
    pub(crate) jt: u8,
    pub(crate) jf: u8,
    pub(crate) k: u32,
}

/// A call's compiled rules at a site, in the variants of these bits.
pub(crate) type Check = (Call, u16, Site, Range<u16>);

/// Set once, when they are known.
#[derive(Debug)]
pub(crate) struct Tables {
    /// By rising number, in the order of [`Arch::ALL`].
    pub(crate) by_number: [Vec<(u32, Call)>; 2],
    pub(crate) checks: Vec<Check>,
    pub(crate) code: Vec<BpfInstruction>,
}

pub(crate) static TABLES: OnceLock<Tables> = OnceLock::new();

impl Arch {
    pub(crate) fn by_number(self) -> impl Iterator<Item = (u32, Call)> {
        let at = usize::from(self == Self::Aarch64);
        TABLES.get().into_iter().flat_map(move |tables| tables.by_number[at].iter().copied())
    }

    pub(crate) fn number_of(self, call: Call) -> Option<u32> {
        self.by_number().find(|(_, known)| *known == call).map(|(number, _)| number)
    }
}

/// As the crate's.
pub(crate) fn compiled_rules(
    variant: Variant,
    site: Site,
) -> impl Iterator<Item = (Call, Range<u16>, &'static [BpfInstruction])> {
    let bit = variant.bit();
    TABLES.get().into_iter().flat_map(move |tables| {
        let mine =
            tables.checks.iter().filter(move |(_, variants, at, _)| *at == site && variants & bit != 0);
        mine.filter_map(|(call, _, _, range)| {
            let code = tables.code.get(usize::from(range.start)..usize::from(range.end))?;
            Some((*call, range.clone(), code))
        })
    })
}
