//! System calls: the profiles as data, the rules on arguments, and the programs made from both.
//!
//! Three programs make the base filter, installed in this order; of equal answers the kernel takes the newest
//! program's, and no two of ours answer the same call:
//!
//! 1. `numbers`: every number in one balanced tree of ranges. Allowed; known but not allowed: `EPERM`; unknown,
//!    x32 (bit 30 set), `clone3`, `openat2` and some
//!    that programs try first on a new kernel: `ENOSYS`, so that libraries fall back. Written by hand, because
//!    seccompiler has one answer beside allow and compares no ranges; some 200 instructions instead of 1,500.
//! 2. `arguments`: of allowed calls, what is refused by argument, with `EPERM`. Compiled by seccompiler.
//! 3. `families`: socket families that the network's mode hasn't, with `EAFNOSUPPORT`. Compiled by seccompiler.
//!
//! The base never denies what pid 1 of a run needs (`syscalls/init.txt`); what of that a tool mustn't have is in
//! the `delta`, one program. After the delta a child may do nothing but `execve` and `_exit`. A call from another
//! architecture (`int 0x80`) kills the process. Arguments are compared by the 32 bits that the kernel reads.
//!
//! Calls that are always allowed have the same answer whatever their arguments, in every program, so the kernel's
//! bitmap answers them without running any.

mod arguments;
mod assemble;
mod interpret;
mod plan;
mod profile;
mod table;

pub use interpret::{Call, Verdict, evaluate};
pub(crate) use plan::{Filter, Filters, Plan, Request};
pub use table::Arch;

#[cfg(test)]
mod differential;
