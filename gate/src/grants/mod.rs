//! Grants: more than the rules give, to somebody, for a while.
//!
//! ```text
//! grant add, request + answer ──> held: by whom it's for and what ──┐
//!                                                                   v
//! rules of access: nobody permits it ────────────────────────> redeemed: one use is taken ──> the run
//!                  somebody forbids it ──> refused                  └── nothing came of it: given back
//! ```
//!
//! A grant is asked only where no rule permits and none forbids: what an operator has forbidden, or a forbid that can't be evaluated,
//! no grant overrides. It is looked up behind what is remembered of decisions, so that nothing of it is ever remembered as a permit.
//!
//! Time is told ([`Clocks`]): both of a clock that counts through sleep and never steps, and of the calendar's. A grant is over when
//! either says so: no step of a clock, and no restart, makes one last longer.
//!
//! What is here is memory. Who writes it down takes the [`Change`]s, in their order.
//!
//! Reading order: `grant`, `exactly`, `held`, `requests`.

mod exactly;
mod grant;
mod held;
mod requests;
#[cfg(test)]
mod tests;

pub use exactly::{Digest, MAX_BYTES, of_command, of_parameters, shown_command, shown_parameters};
pub use grant::{
    BadGrant, Clocks, Exactly, Grant, GrantId, LONGEST, MAX_NAME, MAX_SHOWN, MAX_UNIT, MAX_USES, MAX_WHY,
    SHORTEST, Terms, Uses, What, Whom,
};
pub use held::{Change, Full, Held, MAX_GRANTS, MAX_OF_ONE, Redeemed};
pub use requests::{
    LASTS, MAX_A_MINUTE_OF_ONE, MAX_REQUESTS, MAX_REQUESTS_OF_ONE, NoRequest, Pending, Requests,
};
