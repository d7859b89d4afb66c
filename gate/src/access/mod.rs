//! Access: who may do what.
//!
//! ```text
//! roles.toml ──> roles: uids, groups and units ─────────────┐
//! shipped.cedar, access.cedar ──> permits, forbids ─────────┤
//! invariants.cedar ──> forbids only ────────────────────────┴─> engine ──> cache ──> stage: locked out? permitted?
//! ```
//!
//! Rules are Cedar's, checked against a schema (`schema.cedarschema`) when they're loaded. What no rule permits is refused; what
//! any rule forbids is refused, whoever permits it: so what stands in `invariants.cedar` nothing overrides. Cedar passes over a
//! rule that can't be evaluated; that would have a broken forbid forbid nothing. Here a forbid that can't be evaluated refuses.
//!
//! With no file of its own this stage isn't there at all. With any of them everybody has what `shipped.cedar` permits, and what
//! `access.cedar` adds.
//!
//! A decision is remembered by all that it can depend on, and only if no rule for that action reads what is given, the time or the
//! load. What is remembered goes when files are read again. What a rule may read of arguments is bounded: nobody makes a decision
//! dear by what he sends.
//!
//! Where no rule permits something and none forbids it, a grant may ([`crate::grants`]): it's looked for behind what is remembered, and
//! by the engines only that the daemon's own files make.
//!
//! Reading order: `roles`, `statements`, `rules`, `reads`, `question`, `engine`, `cache`, `lockout`, `stage`.

mod cache;
mod engine;
#[cfg(test)]
mod granted_tests;
mod lockout;
mod question;
mod reads;
mod roles;
mod rules;
mod stage;
mod statements;
#[cfg(test)]
mod tests;

pub use cache::MAX_DECISIONS;
pub use engine::{Decision, Engine, Explained, Named, Unjudgeable};
pub use lockout::{
    KEYS as LOCKOUT_KEYS, Locked, Lockout, MAX_KEYS, MAX_OF_ONE, Settings, read as read_lockout,
};
pub use question::{MAX_BYTES, MAX_VALUES};
pub use roles::{
    Account, FILE as ROLES_FILE, Member, Members, Roles, SHIPPED as SHIPPED_ROLES, read as read_roles,
};
pub use rules::{Effect, MAX_RULES, Origin, Rule, Source};
pub use stage::Access;
pub use statements::{MAX_BYTES as MAX_FILE, MAX_DEPTH, MAX_OPERATORS};

/// The operator's own rules, in the directory of configuration.
pub const ACCESS_FILE: &str = "access.cedar";
/// Forbids that nothing overrides.
pub const INVARIANTS_FILE: &str = "invariants.cedar";
