//! The order of confinement, one file a stage. The order is held by types: each stage consumes the one before.
//!
//! | site | stage | type after it |
//! |---|---|---|
//! | beside | network and user namespaces, by a child | [`beside::Beside`] |
//! | birth | open the binds as the owner | [`sources::Sources`] |
//! | birth | what all runs of a template have of a root | [`foundation::Foundation`] |
//! | birth | mount namespace, root of tmpfs and binds, masks, pivot | [`root::Pivoted`] |
//! | park | network, loopback, host name, `/proc` | [`worker::Isolated`] |
//! | park | user namespace, ids | [`worker::Identified`] |
//! | park | rlimits, priorities | [`worker::Limited`] |
//! | park | capabilities, securebits, `no_new_privs` | [`worker::Unprivileged`] |
//! | park | base filters on | [`worker::Filtered`] |
//! | park | Landlock ruleset built | [`worker::Locked`] |
//! | run | session, descriptors, Landlock domain, delta filters, exec | the tool |
//!
//! Why this order: mounts need privilege, so they come first; an idmapped bind can't be made inside a user
//! namespace, so that comes after; Landlock forbids mounting, so it follows every mount; the filter forbids what
//! nearly all of the others needed, so it follows them; a Landlock ruleset can be built under it, by anybody.

pub(crate) mod beside;
pub(crate) mod foundation;
pub(crate) mod guard;
pub(crate) mod identity;
pub(crate) mod landlock;
pub(crate) mod limits;
pub(crate) mod listing;
pub(crate) mod missing;
pub(crate) mod mounts;
pub(crate) mod network;
pub(crate) mod placeholder;
pub(crate) mod proc;
pub(crate) mod root;
pub(crate) mod sources;
pub(crate) mod worker;
