//! What crosses Stockade's sockets: types, frames and versions. This crate does no I/O.
//!
//! Two wires use it. Clients and the supervisor speak [`client`] messages in length-prefixed frames; the
//! supervisor and the launcher speak [`launch`] messages, one a `SOCK_SEQPACKET` datagram. Both are encoded by
//! [`codec`], the only file that names the codec. bincode isn't self-describing, so the types of one wire
//! version are frozen: a change of a shape is a new version, and `tests/frozen.rs` holds the bytes.
//!
//! Reading order: [`id`], [`bytes`], [`bounds`], [`codec`], [`client`], [`outcome`], [`denied`],
//! [`confinement`], [`statistics`], [`approval`], [`grants`], [`audit`], [`spec`], [`launch`], [`ring`].
#![forbid(unsafe_code)]

pub mod approval;
pub mod audit;
pub mod bounds;
pub mod bytes;
pub mod client;
pub mod codec;
pub mod confinement;
pub mod denied;
pub mod grants;
pub mod id;
pub mod launch;
pub mod outcome;
pub mod ring;
pub mod spec;
pub mod statistics;

pub use bytes::Bytes;
pub use id::ExecId;
