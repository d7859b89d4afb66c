//! Traces: a run as a span of the client's trace, told to a collector by OTLP over HTTP. Off unless asked for.
//!
//! ```text
//!  request, with TRACEPARENT in its environment or without ──> the run ──> its end: four spans
//!                                                                            │ a queue with a bound
//!            collector <── POST /v1/traces, what came within a second ───────┘
//! ```
//!
//! Spans are made when a run is over, of the moments that metrics know, so a run costs nothing more on its way. A collector
//! that is slow or gone costs its spans, which are counted, and nothing else.
//!
//! What lives here, in reading order: `parent`, what the client says; `span`, what is told; `encode`, in which bytes;
//! `collector`, to whom, and the sending.

mod collector;
mod encode;
mod parent;
mod span;

pub use collector::{Collector, NoCollector};
pub(crate) use collector::{Traces, last, send_all};
pub(crate) use parent::Parent;
pub(crate) use span::{Ended, Span, spans};
