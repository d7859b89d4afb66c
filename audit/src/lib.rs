//! The record: what was asked, by whom, what was decided and what came of it, in segments that are only ever added to.
#![forbid(unsafe_code)]

mod backup;
#[cfg(test)]
mod document;
mod error;
mod event;
mod export;
mod files;
mod flood;
mod format;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod head;
mod keys;
mod log;
mod page;
mod questions;
mod read;
mod retention;
mod scan;
mod secret;
mod segment;
mod survey;
pub mod time;
mod verify;

pub use backup::{Copied, backup};
pub use error::AuditError;
pub use event::{Event, Given, Note, Outcome, Principal, Refused, Repeated, Request, What};
pub use export::ocsf;
pub use flood::Flood;
pub use format::{Class, LARGEST_TEXT};
pub use head::{HEAD_LINE, Head};
pub use keys::{Keys, MasterKey, VerificationKey, rotate};
pub use log::{Log, OnHead, Settings, State, Told, Unavailable, Written};
pub use page::{Bounds, Page, Row};
pub use read::{Entry, Filter, Passed, Reader};
pub use scan::Place;
pub use verify::{Check, Finding, Report, Tampering, Unfinished, verify};
