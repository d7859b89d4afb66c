//! What comes out: output in which secrets are named and not shown.
//!
//! ```text
//! patterns (known forms, an operator's) ──┐
//!                                         ├──> candidates: whatever begins as one of them does, each going on by itself
//! values of the run's own secrets ────────┘        │
//! bytes ──finder──> where any of them may begin ───┘ ──> spans ──> bytes outside of all spans, a mark for each span
//! ```
//!
//! A candidate begins at a byte and takes one after another, whatever pieces they come in, until nothing it takes can be a
//! secret any more. Its longest span is one that is hidden; spans that overlap are one. What is hidden is so decided by the
//! text alone, never by how it was cut up; only bytes behind the beginning of a candidate that may yet be one are held back.
//!
//! **Flushing.** Held bytes may be what somebody waits for (a prompt), so that after [`FLUSH_AFTER`] they go out. A span that is one
//! already (a private key that is still coming) goes out as its mark, and what comes of it is swallowed. What is only the beginning
//! of one goes out as it is, is still followed, and the rest of it is hidden when it turns out to be one. The beginning of a *known
//! value*, from [`HELD_OF_VALUE`] bytes on, never goes out before it's clear that it isn't one, and at the end of the stream it's hidden: nobody waits for that.
//!
//! Each step of a pattern costs the same (a table), a pattern's length is bounded, and so are what is held and what is followed.
//! `aho-corasick` isn't used: docs/limits.md has what was measured.
//!
//! Reading order: `pattern`, [`forms`], `values`, `finder`, `sought`, `stream`.

mod finder;
pub mod forms;
mod pattern;
mod sought;
mod stream;
#[cfg(test)]
mod tests;
mod values;

pub use forms::Forms;
pub use pattern::{MAX_SPAN, PatternError};
pub use sought::Sought;
pub use stream::{Counts, FLUSH_AFTER, HELD_OF_VALUE, Redactor};
pub use values::{MAX_FORM, MAX_VALUE, MIN_VALUE, Secret, TooShort};
