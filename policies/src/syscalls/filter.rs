//! What a set of calls comes to: the programs of a filter. The build makes those of shipped policies by this, too.

use super::arguments::{Site, Variant};
use super::assemble::{Answer, Checks, program};
use super::sets::{Arch, Calls};
use super::table::BpfInstruction;

const ENOSYS: u16 = 38;
const EPERM: u16 = 1;

/// Answered `ENOSYS` where they aren't allowed, as an older kernel would: libraries then fall back. Of the first
/// two a filter can't read the arguments, without the third databases use threads, the others are new enough that programs try them first.
pub(super) const AS_OLDER_KERNEL: [&str; 10] = [
    "clone3",
    "openat2",
    "io_setup",
    "statmount",
    "listmount",
    "file_getattr",
    "file_setattr",
    "lsm_get_self_attr",
    "lsm_list_modules",
    "set_mempolicy_home_node",
];

/// The programs of a filter.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Programs {
    pub(super) base: Vec<BpfInstruction>,
    /// `None`: the base withholds all that is to be withheld.
    pub(super) delta: Option<Vec<BpfInstruction>>,
    /// How many calls the base lets through, perhaps by their arguments.
    pub(super) allowed: usize,
}

/// The programs for a tool that may make the calls of `allowed`. `init`: what pid 1 needs beside; `older`: the calls of
/// [`AS_OLDER_KERNEL`].
pub(super) fn programs(
    (arch, variant): (Arch, Variant),
    allowed: &Calls,
    init: &Calls,
    older: &Calls,
) -> Result<Programs, String> {
    let in_base = allowed.with(init);
    let answer = |call| match call {
        call if in_base.has(call) => Answer::Allow,
        call if older.has(call) => Answer::Errno(ENOSYS),
        _ => Answer::Errno(EPERM),
    };
    let checks = Checks::new(arch, variant, Site::Base, &in_base);
    let base = program(arch, answer, Answer::Errno(ENOSYS), &checks)?;
    let withheld = init.without(allowed);
    let answer = |call| if withheld.has(call) { Answer::Errno(EPERM) } else { Answer::Allow };
    let late = Checks::new(arch, variant, Site::Delta, &in_base);
    let delta = if withheld.is_empty() && late.is_empty() {
        None
    } else {
        Some(program(arch, answer, Answer::Allow, &late)?)
    };
    Ok(Programs { base, delta, allowed: arch.by_number().filter(|(_, call)| in_base.has(*call)).count() })
}
