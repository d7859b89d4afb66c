//! System calls: the profiles as data, the rules on arguments, and the programs made from both.
//!
//! Text to table to program: `policies/syscalls/*.txt` say which calls a profile has and why; the build
//! (`build/calls.rs`, by the parser in `build/listing.rs`) makes tables of them that `table` holds; `plan` joins a
//! profile's set of calls with what a policy allows and denies; `filter` and `assemble` make programs of that and of the rules
//! in `arguments`, which the build compiles (`build/rules.rs`). The programs of a profile as shipped policies have it are the
//! build's, too (`build/filters.rs`).
//!
//! The base filter is one program:
//!
//! 1. A balanced tree over the numbers, by hand, because seccompiler has one answer beside allow and compares no
//!    ranges. Allowed; known but not allowed: `EPERM`; unknown, x32 (bit 30 set), `clone3`, `openat2` and some that
//!    programs try first on a new kernel: `ENOSYS`, so that libraries fall back.
//! 2. For each allowed call that has them, its rules on arguments, where the tree's leaf jumps to. Compiled by
//!    seccompiler. First a socket family that the network's mode hasn't, with `EAFNOSUPPORT`; then `EPERM`.
//!
//! The base never denies what pid 1 of a run needs (`syscalls/init.txt`); what of that a tool mustn't have is in
//! the `delta`, one program. After the delta a child may do nothing but `execve` and `_exit`. A call from another
//! architecture (`int 0x80`) kills the process. Arguments are compared by the 32 bits that the kernel reads.
//!
//! Calls without rules are allowed or refused by architecture and number alone, so the kernel's bitmap answers the
//! allowed ones without running any program.

mod arguments;
mod assemble;
mod filter;
mod interpret;
mod plan;
mod sets;
mod table;

pub use interpret::{Call, Verdict, evaluate};
pub(crate) use plan::{Filter, Filters, Plan, Request};
pub use table::Arch;

#[cfg(test)]
mod differential;
/// The build's parser of the data files, to compare with the tables that it made.
#[cfg(any(test, feature = "fuzzing"))]
#[path = "../../build/listing.rs"]
mod listing;
#[cfg(any(test, feature = "fuzzing"))]
mod reference;

#[cfg(any(test, feature = "fuzzing"))]
pub use reference::Reference;
