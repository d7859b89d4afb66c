//! JSON-RPC 2.0: what the client wire says, as JSON, for editors, agents and scripts.
//!
//! ```text
//!  bytes ──framing──> one message ──envelope──> calls ──asked──> ClientMessage ──> the daemon
//!                                                  │
//!  bytes <─framing── responses, notifications <─ session <─told── ServerMessage <──┘
//! ```
//!
//! This crate owns the JSON form and a connection's session, and nothing else: every request becomes the message that a binary
//! client would have sent, and every event comes from the one that it would have been sent. It has no socket, no clock and no thread;
//! the supervisor carries bytes in and out. So all of it can be tried with any bytes (`fuzz/src/jsonrpc.rs`).
//!
//! It must never decide about a run, never keep more than its bounds name, and never panic, whatever comes.
//!
//! Reading order: [`bounds`], `text` (bytes that may not be text), `tail` (characters cut at a chunk's end), [`framing`], `id`,
//! `envelope`, `refusal`, [`asked`] (parameters), `told` (results and notifications), `waits`, [`session`]. `docs/jsonrpc.md` is for
//! who writes a client; `docs/jsonrpc.schema.json` is made from the types by a test (`schema`).
#![forbid(unsafe_code)]

pub mod asked;
mod batch;
pub mod bounds;
mod envelope;
pub mod framing;
mod id;
mod refusal;
#[cfg(test)]
mod schema;
pub mod session;
mod tail;
mod text;
mod told;
mod waits;

pub use framing::{Framing, FramingError, Kind};
pub use session::{Call, Session, Todo};
pub use tail::Tail;
pub use text::Text;
pub use told::Explained;
