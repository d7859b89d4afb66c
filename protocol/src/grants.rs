//! Grants: more than the rules of access give, to somebody, for a while.

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;

/// What is granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GrantWhat {
    /// To run commands under this policy.
    Policy(String),
    /// To call this tool.
    Tool(String),
}

/// Arguments, of which exactly these are granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GrantGiven {
    /// A command line.
    Command(Vec<Bytes>),
    /// A tool's parameters: a JSON object. Spaces and the order of keys say nothing.
    Parameters(Bytes),
}

/// What somebody would have granted, or asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantTerms {
    /// What.
    pub what: GrantWhat,
    /// With these arguments only; none: with any.
    pub given: Option<GrantGiven>,
    /// For how long, in milliseconds: a second to a day.
    pub length_ms: u64,
    /// How often; none: any number of times.
    pub uses: Option<u32>,
    /// Whether runs by it end with it.
    pub ends_runs: bool,
    /// The reason, for whoever looks later.
    pub why: String,
}

/// A grant, or a request for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantSummary {
    /// Its name.
    pub id: String,
    /// Whose it is: his uid.
    pub uid: u32,
    /// His systemd unit; empty: of none; none: whatever his unit.
    pub unit: Option<String>,
    /// What.
    pub what: GrantWhat,
    /// SHA-256 of the arguments that it's for, in their one form; none: for any.
    pub digest: Option<[u8; 32]>,
    /// As much of these arguments as is shown.
    pub shown: Option<String>,
    /// How long it lasts yet, in milliseconds; of a request: for how long it is to be.
    pub left_ms: u64,
    /// How often it can be used in all; none: any number of times.
    pub uses: Option<u32>,
    /// How often yet.
    pub uses_left: Option<u32>,
    /// Whether runs by it end with it.
    pub ends_runs: bool,
    /// Who gave it; none: nobody yet, it's a request.
    pub by: Option<u32>,
    /// The reason.
    pub why: String,
}

/// The grants and requests that somebody may see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantList {
    /// What holds, the oldest first.
    pub grants: Vec<GrantSummary>,
    /// What waits for an answer, the oldest first.
    pub requests: Vec<GrantSummary>,
    /// How many didn't fit.
    pub left_out: u32,
}
