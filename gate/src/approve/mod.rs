//! Approval: what is risky somebody is asked about first.
//!
//! ```text
//! access: a permit with `@approve` ───────────────────────┐
//! approval.toml: rules, each worth a score ──> stage ─────┴─> Verdict::Ask: the factors ──> question ──> votes: a yes, a no
//!                       history ──────────────────┘                                            │
//!                                                     digest of all that would run ────────────┘
//! ```
//!
//! A rule says of a request whether it's so; what can't be told counts as if it were. The sum of what holds is compared with two
//! thresholds: from one on somebody is asked, from the other on it's refused. Risk is an estimate, not a wall: it makes somebody
//! look, and what must never run is forbidden by rules of access and can't be done under the policy.
//!
//! Programs may be asked, too, before people or instead of them (`reviewers`): n of those that a file names have to say yes, each about this
//! very digest, and what an asker's questions cost is bounded for a day.
//!
//! An answer is about a digest of all that would run. Whoever asks can't answer, and an answer about anything else is none.
//!
//! There is one file, `approval.toml`, for rules and for who is needed. It may come from several directories: each is judged by
//! itself, and the strictest holds.
//!
//! Reading order: `settings`, `votes`, `digest`, `reviewers`, `panel`, `budget`, `rule`, `history`, `file`, `stage`.

mod budget;
mod digest;
mod file;
mod history;
mod panel;
#[cfg(test)]
mod panel_tests;
mod reviewers;
mod rule;
mod settings;
mod stage;
#[cfg(test)]
mod tests;
mod votes;

pub use budget::{Budgets, Charge, DAY, MAX_SPENDERS, Spent};
pub use digest::Canonical;
pub use file::{FILE, Filed, MAX_RULES, Thresholds, read};
pub use history::{LATELY, MAX_KNOWN, MAX_PRINCIPALS};
pub use panel::{Answer, MAX_ANSWER, MAX_REASON, Opinion, Panel, Seat, Sitting};
pub use reviewers::{MAX_REVIEWERS, Reviewer, Reviews};
pub use rule::{MAX_READ, Rule};
pub use settings::Settings;
pub use stage::Risk;
pub use votes::{Barred, Person, Question, Standing};
