//! Errors of JSON-RPC: codes, and beside them as much structure as the binary form has.

use serde::Serialize;
use stockade_protocol::ExecId;
use stockade_protocol::client::{ProtocolError, ProtocolErrorCode};
use stockade_protocol::denied::{Denied, DenyReason};

use crate::bounds::SHOWN_MESSAGE;

/// Not JSON.
pub(crate) const PARSE_ERROR: i32 = -32_700;
/// JSON, and not a request.
pub(crate) const INVALID_REQUEST: i32 = -32_600;
/// No such method.
pub(crate) const METHOD_NOT_FOUND: i32 = -32_601;
/// Parameters that the method doesn't take.
pub(crate) const INVALID_PARAMS: i32 = -32_602;
/// Refused: what a binary client is told by `Denied`.
pub(crate) const DENIED: i32 = -32_001;
/// Asked before `initialize`, as the Language Server Protocol numbers it.
pub(crate) const NOT_INITIALIZED: i32 = -32_002;
/// The connection ends: what a binary client is told by `Error`.
pub(crate) const CONNECTION: i32 = -32_003;
/// The answers of a batch have become too large.
pub(crate) const ANSWER_TOO_LARGE: i32 = -32_004;

/// An error object.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Refusal {
    /// For machines.
    pub(crate) code: i32,
    /// For people: one sentence, lower case, without a full stop.
    pub(crate) message: String,
    /// What else there is to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<Box<RefusalData>>,
}

/// What an error says beside its code.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct RefusalData {
    /// The reason: of a denial a `DenyReason`, of a connection's end a `ProtocolErrorCode` (docs/protocol.md), as a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    /// What would help.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
    /// When to try again, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    /// Who has decided: a stage of the gate, or `admission` behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    decided: Option<Decided>,
    /// The run that it's about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    exec_id: Option<ExecId>,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
enum Reason {
    Denied(DenyReason),
    Protocol(ProtocolErrorCode),
}

#[cfg(test)]
impl schemars::JsonSchema for Reason {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Reason".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

/// The stage of the gate that refused, and its rule.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Decided {
    stage: String,
    rule: String,
}

/// A sentence that may repeat what came, cut.
fn cut(mut message: String) -> String {
    if message.len() > SHOWN_MESSAGE {
        message.truncate(message.floor_char_boundary(SHOWN_MESSAGE));
        message.push('…');
    }
    message
}

impl Refusal {
    pub(crate) fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: cut(message.into()), data: None }
    }

    pub(crate) fn parse(error: &dyn core::fmt::Display) -> Self {
        Self::new(PARSE_ERROR, format!("not JSON: {error}"))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(INVALID_REQUEST, message)
    }

    pub(crate) fn params(message: impl Into<String>) -> Self {
        Self::new(INVALID_PARAMS, message)
    }

    pub(crate) fn denied(denied: &Denied, exec_id: Option<ExecId>) -> Self {
        let decided = denied
            .decided
            .as_ref()
            .map(|decided| Decided { stage: decided.stage.clone(), rule: decided.rule.clone() });
        let data = RefusalData {
            reason: Some(Reason::Denied(denied.reason)),
            remedy: denied.remedy.clone(),
            retry_after_ms: denied.retry_after_ms,
            decided,
            exec_id,
        };
        Self { code: DENIED, message: cut(denied.message.clone()), data: Some(Box::new(data)) }
    }

    pub(crate) fn protocol(error: &ProtocolError) -> Self {
        let code = match error.code {
            ProtocolErrorCode::Malformed => PARSE_ERROR,
            ProtocolErrorCode::TooLarge => INVALID_REQUEST,
            _ => CONNECTION,
        };
        let data = RefusalData { reason: Some(Reason::Protocol(error.code)), ..RefusalData::default() };
        Self { code, message: error.text.clone(), data: Some(Box::new(data)) }
    }
}
