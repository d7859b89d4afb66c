//! How the daemon is, for whoever watches many: what it counts, and the little HTTP that tells it.
//!
//! Counting is always on, since `stockade status` tells some of it, too: counters and histograms of fixed size, made once and
//! touched by the loop's one thread. What is known anyway (runs, slots, descriptors) is looked at when somebody asks. Labels
//! come from lists of ours and from names of policies and of tools, the first 200 of each; a client can make no series.
//!
//! ```text
//!  the life of a run ──> figures (counters, histograms) ─┐
//!  GET /metrics ──> gauges are set ──────────────────────┴──> registry ──> text, on a thread of its own
//!  GET /healthz, /readyz ──> one look at the state
//! ```
//!
//! What lives here, in reading order: `table`, every metric's name, labels and help; `labels`, the words of the bounded ones;
//! `figures`, the counted, and `gated`, what is counted of the gate; `timing`, a run's moments; `gauges`, what is looked at; `kernel` and `process`, what files of the kernel's say of it and of us;
//! `endpoint`, where it is served; `http`, by which rules.

mod endpoint;
mod figures;
mod gated;
mod gauges;
mod http;
mod kernel;
mod labels;
#[cfg(test)]
mod lint;
mod process;
mod table;
#[cfg(test)]
mod tests;
mod timing;

pub(crate) use endpoint::Door;
pub use endpoint::{Endpoint, EndpointError};
pub(crate) use figures::Figures;
pub(crate) use gated::GrantEvent;
pub(crate) use gauges::unready;
#[cfg(feature = "fuzzing")]
pub(crate) use http::head_of;
pub(crate) use http::serve;
pub(crate) use kernel::kernel;
pub(crate) use labels::{approval_word, reason_word, stage_word, word};
#[cfg(test)]
pub(crate) use lint::complaints;
pub(crate) use process::Process;
#[cfg(test)]
pub(crate) use table::TABLE;
pub(crate) use timing::{Moments, Timing};
