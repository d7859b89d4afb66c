//! Policy text to a resolved sandbox, and answers about it.
//!
//! ```text
//! *.toml ──document──> Document ──inherit──> effective Document ──policy──> Policy      (at load)
//!                                                                             │
//!                    request (workspace, home, environment, overrides) ──resolve──> Resolved { SandboxSpec, … }
//!                                                                                        │
//!                                                            explain(Question) ──────────┴──> Answer
//! ```
//!
//! What is known before a run isn't worked out by one: the build reads the shipped policies and the data files of
//! system calls, compiles the rules on arguments, and puts the filters of shipped policies together (`build/main.rs`).
//!
//! The crate is pure but for [`files`], which reads what [`directory`] finds. Every value carries the file, line and
//! column that stated it, through inheritance and resolution, so that an error and an answer name the rule that
//! decided. Nothing here enforces: the worker obeys the [`SandboxSpec`](stockade_protocol::spec::SandboxSpec),
//! and [`Resolved::explain`] reads that same spec.
//!
//! It must never widen: an unknown key, a missing unit, an ambiguous path or a value that a level can't hold is
//! an error, not a default. `docs/policies.md` is the reference for authors.
//!
//! How a text is read ([`files`], [`reader`], [`amount`], [`Mistake`]) knows nothing of policies; the daemon's
//! configuration is read the same way.
//!
//! Reading order: `said`, [`position`], [`error`], [`amount`], `place`, `names`, `tree`, [`free`], [`reader`], `document`, `inherit`, [`policy`],
//! [`set`], [`files`], [`directory`], [`syscalls`], [`mod@resolve`], [`explain`].
#![forbid(unsafe_code)]

pub mod amount;
pub mod directory;
mod document;
pub mod error;
pub mod explain;
pub mod files;
pub mod free;
mod inherit;
mod names;
pub mod nearest;
mod place;
pub mod policy;
pub mod position;
pub mod reader;
pub mod resolve;
mod rule;
mod said;
pub mod set;
mod shipped;
pub mod syscalls;
mod text;
mod tree;

pub use error::{Mistake, PolicyError, Problem};
pub use explain::{Answer, Question};
pub use policy::Policy;
pub use position::{Located, Position};
pub use resolve::{Confines, ResolveError, ResolveRequest, Resolved, Subject, Surroundings, resolve};
pub use said::Said;
pub use set::{PolicySet, Source, Trust, UnknownPolicy};
pub use text::quoted;
