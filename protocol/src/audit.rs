//! The record, as somebody who may read it asks for it and is told: records in pages. Keys cross no wire.

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;

/// Which records are wanted: those that fit all that is said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditQuestion {
    /// Not before, in nanoseconds since the epoch.
    pub since_ns: Option<u64>,
    /// Before.
    pub until_ns: Option<u64>,
    /// Of these classes; empty: of all.
    pub classes: Vec<AuditClass>,
    /// By the user of this uid.
    pub uid: Option<u32>,
    /// About this tool.
    pub tool: Option<String>,
    /// That ended so.
    pub outcome: Option<String>,
    /// About this run: its id, or how it begins or ends.
    pub exec: Option<String>,
    /// Of this name.
    pub event: Option<String>,
    /// Only the last so many that fit, at most [`crate::bounds::MAX_AUDIT_LAST`], and what comes behind them; none: from the first on.
    pub last: Option<u32>,
    /// Whether to be told of those to come, too.
    pub follow: bool,
}

/// Of which class a record is: by that it's kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AuditClass {
    /// What somebody who looks for an attack wants to see.
    Security,
    /// What was asked for, and what came of it.
    Access,
    /// How the service does.
    Operation,
}

/// Records that fit, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPage {
    /// At most [`crate::bounds::MAX_AUDIT_PAGE`], of [`crate::bounds::MAX_AUDIT_PAGE_BYTES`] together. May be empty, also where there is more.
    pub records: Vec<AuditRecord>,
    /// Whether there is a next page, which `AuditMore` asks for.
    pub more: bool,
    /// Of the last ones so many weren't looked for in all of the record.
    pub partial: bool,
    /// Records so far that fit as far as can be seen, and were erased in their time.
    pub erased: u64,
    /// Records so far that can't be opened, and places where there is none.
    pub unreadable: u64,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Its number.
    pub sequence: u64,
    /// When, in nanoseconds since the epoch.
    pub time_ns: u64,
    /// Of which class it is.
    pub class: AuditClass,
    /// What it says: a JSON object.
    pub text: Bytes,
}
