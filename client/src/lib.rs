//! Stockade's Rust client: asks the supervisor for confined runs and follows them.
//!
//! One [`Client`] is one connection; any number of runs may go on over it. Nothing here starts a thread or needs a
//! runtime: every call either returns at once or waits in `poll(2)`, and [`Client`] can stand in a poll loop of
//! the caller's (it is [`AsFd`](std::os::fd::AsFd); see [`Client::pump`]).
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
//! What the wire looks like is in `docs/protocol.md`. This crate decides nothing: which policy applies, and what
//! of a request the policy admits, is the supervisor's.
#![forbid(unsafe_code)]

mod connection;
mod error;
mod incoming;
mod request;

pub use connection::{Client, Events, RunEvent};
pub use error::{ClientError, ConnectError};
pub use request::Request;
pub use stockade_protocol::client::{
    ExecEvent, OutputMode, Overrides, RunState, RunSummary, StatusReport, StdinMode, Stream,
};
pub use stockade_protocol::confinement::{Confinement, StdioPath};
pub use stockade_protocol::denied::{Denied, DenyReason};
pub use stockade_protocol::outcome::{CancelReason, Clock, Outcome, Usage};
pub use stockade_protocol::{Bytes, ExecId};
