//! Stockade's Rust client: asks the supervisor for confined runs and follows them.
//!
//! One [`Client`] is one connection; any number of runs may go on over it. Nothing here starts a thread or needs a
//! runtime: every call either returns at once or waits in `poll(2)`, and [`Client`] can stand in a poll loop of
//! the caller's ([`Client::socket`] and [`Client::due`] say what to wait for; see [`Client::pump`]).
//!
//! ```no_run
//! use stockade_client::{Client, ExecEvent, Request};
//!
//! let mut client = Client::connect("/run/user/1000/stockade/stockade.sock".as_ref())?;
//! let request = Request::new(["python3", "-c", "print(6*7)"]).workspace("/home/me/project".as_ref())?;
//! let exec_id = client.exec(&request)?;
//! for event in client.events(exec_id) {
//!     match event?.event {
//!         ExecEvent::Output { bytes, .. } => assert_eq!(&*bytes, b"42\n"),
//!         ExecEvent::Exited { outcome, .. } => println!("{outcome:?}"),
//!         _ => {}
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Runs can be left to themselves and picked up again, by this or another process of the same user:
//!
//! ```no_run
//! # use stockade_client::{Client, Request};
//! # let mut client = Client::connect("/run/stockade/stockade.sock".as_ref())?;
//! let exec_id = client.exec(&Request::new(["make", "-j4"]).workspace(".".as_ref())?.detach())?;
//! drop(client);
//! // Later:
//! let mut client = Client::connect("/run/stockade/stockade.sock".as_ref())?;
//! client.attach(exec_id, 0)?;
//! for event in client.events(exec_id) {
//!     println!("{:?}", event?);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # When the supervisor goes
//!
//! Runs outlive the supervisor, and a client that follows one outlives it, too. When the connection breaks while the end
//! of a run is still to come, the client connects again to the same path, for [`RETURN_WITHIN`] at most, and attaches to
//! its runs after the last event it has. Whoever reads the events sees a pause, and then the rest: each event once, in its
//! order. [`Client::pause`] and [`Client::on_pause`] tell of it.
//!
//! What is asked meanwhile (a signal, a cancel, a list) is asked when there is a supervisor again, and what waits for an
//! answer waits on. What can't be known is said, never guessed:
//!
//! * an `Exec` that wasn't answered isn't sent again: [`ClientError::Unanswered`];
//! * standard input that was sent as messages may lack its last bytes: [`ClientError::InputInDoubt`];
//! * a run that the next supervisor doesn't know: [`ClientError::Lost`];
//! * events that are no longer kept: [`ExecEvent::OutputLost`];
//! * a signal that was sent just before the break may not have arrived. A cancel is asked for again.
//!
//! No supervisor in time is [`ClientError::Gone`]; one that refuses, or speaks another version, ends the client at once. A
//! client that follows nothing, or that was made over a socket without a path, has [`ClientError::Closed`] as soon as the
//! connection breaks.
//!
//! What the wire looks like is in `docs/protocol.md`. This crate decides nothing: which policy applies, and what
//! of a request the policy admits, is the supervisor's.
#![forbid(unsafe_code)]

mod client;
mod connection;
mod error;
mod events;
mod follows;
mod incoming;
mod outage;
mod request;

pub use client::Client;
pub use error::{About, ClientError, ConnectError};
pub use events::{Events, RunEvent};
pub use outage::{Pause, RETURN_WITHIN};
pub use request::Request;
pub use stockade_protocol::audit::{AuditClass, AuditPage, AuditQuestion, AuditRecord};
pub use stockade_protocol::client::{
    BreakerState, BreakerSummary, ExecEvent, OutputMode, Overrides, RunState, RunSummary, StatusReport,
    StdinMode, Stream,
};
pub use stockade_protocol::confinement::{Confinement, StdioPath};
pub use stockade_protocol::denied::{Denied, DenyReason};
pub use stockade_protocol::outcome::{CancelReason, Clock, Outcome, Usage};
pub use stockade_protocol::statistics::{
    Spread, StatisticsBy, StatisticsQuestion, StatisticsReport, StatisticsRow,
};
pub use stockade_protocol::{Bytes, ExecId};
