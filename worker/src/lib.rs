//! The processes that confine and watch runs: launcher, relay, monitor, opener, template and init.
//!
//! Each has one thread and one role, chosen before anything else happens ([`role`]). None parses text or knows a
//! policy: they obey a resolved `SandboxSpec`. Reading order: [`role`], `messages`, `launcher`, `plan`,
//! `template`, `birth`, `stages` (the order of confinement), `init`, then the satellites [`relay`], [`monitor`] and `opener`.
//! `sys` is the only unsafe code.

mod birth;
pub mod cgroup;
mod failure;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod init;
mod laps;
mod launcher;
mod messages;
pub mod monitor;
mod opener;
mod plan;
pub mod poller;
mod program;
pub mod relay;
pub mod ring;
pub mod role;
mod room;
mod signals;
mod stages;
mod sys;
mod template;

pub use launcher::{Embedded, copy_as_launcher, may_copy};
pub use role::run_role;
pub use signals::Dispositions;
pub use sys::landlock_abi;
