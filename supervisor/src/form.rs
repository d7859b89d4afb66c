//! How messages for one client are spelled: as frames, or as JSON-RPC.
//!
//! The door that a client has come by decides, once, before its first message. Everything else about a connection is the same for
//! both: what waits is counted, marked and acknowledged by bytes, whatever they say.

use stockade_jsonrpc::Session;

/// The spelling.
#[derive(Debug, Default)]
pub(crate) enum Form {
    /// `docs/protocol.md`.
    #[default]
    Frames,
    /// `docs/jsonrpc.md`.
    Json(Box<Session>),
}

impl Form {
    /// The session, where there is one.
    pub(crate) fn session(&mut self) -> Option<&mut Session> {
        match self {
            Self::Frames => None,
            Self::Json(session) => Some(session),
        }
    }

    /// Whether output is told as JSON.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self, Self::Json(_))
    }

    /// Bytes of memory that it takes.
    pub(crate) fn held(&self) -> usize {
        match self {
            Self::Frames => 0,
            Self::Json(session) => session.held(),
        }
    }
}
