//! What runs came to: by tool, by policy and by principal, in hours and days, kept over restarts.
//!
//! ```text
//! an end, a denial ──> Tally (memory, the daemon's loop) ──every few seconds──> Writer (a thread) ──> Store (SQLite)
//!                                                                                  │  hours that are old ──> days ──> gone
//! who asks ────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Three tables and not their product: a thousand tools and a thousand principals are two thousand rows an hour and no million.
//! Each run and each denial is counted once in each table that it belongs to, and stands in the file once: in its hour, or, when
//! that is too old to be kept by itself, in its day. So sums over any stretch of time are those of what was counted.
//!
//! The crate knows neither the daemon nor its types, has no clock and logs nothing: it is told what happened and when, and says
//! by a function that it's given what it has to say. Nothing of it runs before somebody opens a [`Writer`] or a [`Reader`].
//!
//! Reading order: `words` (what is counted), `spread` (quantiles), `cell` (one row), `tally` (memory), `store` (the file),
//! `report` (what is asked and answered), `writer` (the thread).
#![forbid(unsafe_code)]

mod cell;
mod report;
mod spread;
mod store;
mod tally;
mod words;
mod writer;

pub use cell::Cell;
pub use report::{Question, Report, Row};
pub use spread::{ERROR_PERCENT, Spread};
pub use store::{DAMAGED, FILE, Reader, Settings, StoreError};
pub use tally::{MOST_POLICIES, MOST_PRINCIPALS, MOST_TOOLS, OTHER, RunId, Tally, UNKNOWN, Who};
pub use words::{Ending, Kind, Stage};
pub use writer::{MOST_QUESTIONS, Opened, Said, Tell, Writer, open};
