//! The supervisor: the daemon that decides about runs, and what the embedded command line shares with it.
//!
//! It parses, judges, queues, relays and logs. It confines nothing and starts nothing but the launcher (and getent, for users whom
//! no file names), and no line of it is unsafe. Everything happens on one thread, in synchronous steps between awaits;
//! what may wait for ever for something that a client has passed happens on others (`aside`), and so does what may
//! wait for a directory service (`homes`).
//!
//! ```text
//!  client ── frames ──> connection ──> daemon ──> dispatcher (pure)
//!                           ^            │  ^          │
//!                           └── outbox <─┤  └─ effects ┘
//!                                        v
//!                                   launch_link ── messages ──> launcher, relay
//! ```
//!
//! Reading order. Pure, and shared with the embedded command line: [`paths`], `accounts`, [`words`], [`descriptors`],
//! [`admission`], [`launcher`]. The decisions: [`dispatcher`]. What can be set: [`config`], [`policies`], `limits`. The daemon: `peer`, `ancestors`, `listener`,
//! `activation`, `connection`, `proof`, `mounts`, `aside`, `watched`, `turn`, `patience`, `homes`, `ledger`, `form`, `outbox`, `outgoing`, `frames`, `specs`, `runs`, `feed`
//! (standard input), `output` (a run's ring), `told`, `link`, `links`, `register`, `door`, `launch_link`, `keeper`, `adopting`, `silent`, `metrics`, `traces`, `daemon`, `reload`, `log`, `systemd`, and [`serve()`], which ties them
//! together; [`sysexits`] says what its process ends with.
#![forbid(unsafe_code)]

mod accounts;
mod activation;
pub mod admission;
mod adopting;
mod ancestors;
mod aside;
pub mod config;
mod connection;
mod daemon;
pub mod descriptors;
pub mod dispatcher;
mod door;
mod feed;
mod form;
mod frames;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gate;
mod grants;
mod homes;
mod keeper;
mod launch_link;
pub mod launcher;
mod ledger;
mod limits;
mod link;
mod links;
mod listener;
mod log;
mod metrics;
mod mounts;
mod outbox;
mod outgoing;
mod output;
pub mod paths;
mod patience;
mod peer;
pub mod policies;
pub mod promised;
mod proof;
mod record;
mod redacted;
pub mod redaction;
mod register;
mod reload;
mod runs;
mod serve;
mod shelf;
mod silent;
mod spare;
mod specs;
#[cfg(test)]
mod starting;
mod state_file;
pub mod statistics;
pub mod sysexits;
mod systemd;
#[cfg(test)]
mod tests;
mod told;
mod traces;
mod turn;
mod unit;
mod watched;
pub mod words;

pub use activation::ActivationError;
pub use gate::{Fault, Faults, KeptError, access, approval, faults};
pub use grants::GrantsError;
pub use listener::ListenError;
pub use log::{LINE, LastLines, Log};
pub use metrics::{Endpoint, EndpointError};
pub use peer::NotAClient;
pub use register::RegisterError;
pub use reload::SetLevel;
pub use serve::{ServeError, ServeOptions, serve};
pub use traces::{Collector, NoCollector};
