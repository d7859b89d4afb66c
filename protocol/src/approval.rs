//! What crosses a client's socket of requests that wait until somebody has approved them.

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::client::Overrides;
use crate::id::ExecId;

/// A request that waits, as who answers is shown it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalSummary {
    /// The run that comes of it.
    pub exec_id: ExecId,
    /// What an answer is about: a digest of all that would run, what isn't shown here among it.
    pub digest: [u8; 32],
    /// Who asks.
    pub owner_uid: u32,
    /// The systemd unit that he is of, if it's known.
    pub unit: Option<String>,
    /// The policy's name.
    pub policy: String,
    /// The tool's name, of a call.
    pub tool: Option<String>,
    /// The command.
    pub argv: Vec<Bytes>,
    /// What the tool was given.
    pub parameters: Option<Bytes>,
    /// The workspace.
    pub workspace: Bytes,
    /// The working directory; empty: the workspace itself.
    pub cwd: Bytes,
    /// Names of the variables that it's given.
    pub environment: Vec<Bytes>,
    /// Where standard input comes from.
    pub input: ApprovalInput,
    /// Whether anything of that is shown shorter than it is, or left out: [`crate::bounds::MAX_APPROVAL_SHOWN`] of each part are shown, and fewer in a list of many.
    pub is_cut: bool,
    /// What the factors are worth together.
    pub score: u32,
    /// Why somebody is asked.
    pub factors: Vec<RiskFactor>,
    /// How many have to say yes.
    pub needed: u32,
    /// How many have.
    pub approved: u32,
    /// How long it waits yet, in milliseconds.
    pub left_ms: u64,
    /// Whether who is told of it may answer: not for what is his own.
    pub may_answer: bool,
    /// What the variables are, in the order of their names; none: a secret, by its name or by the policy's word.
    pub values: Vec<Option<Bytes>>,
    /// Limits that whoever asks has tightened.
    pub overrides: Overrides,
    /// The files that standard output and error are, as the kernel calls them, if they're the client's own; empty: the daemon takes the output.
    pub output: Vec<Bytes>,
    /// How long the parts are, shown or not.
    pub whole: ApprovalWhole,
    /// How far reviewer programs are, one of each file that has any.
    pub panels: Vec<ReviewPanel>,
}

/// The reviewer programs of one file, and how far they are with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewPanel {
    /// How many have to say yes.
    pub needed: u32,
    /// How many have.
    pub approved: u32,
    /// Whether the asker's budget is spent, and so nobody of them looks: people alone decide.
    pub is_spent: bool,
    /// Each of them; none where a list of many is shown shorter.
    pub reviewers: Vec<ReviewerReport>,
}

/// How far one reviewer program is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewerReport {
    /// Its name.
    pub name: String,
    /// What it has said.
    pub opinion: ReviewOpinion,
    /// Why, in its words; or why what it has said counts for nothing.
    pub reason: String,
}

/// What a reviewer program says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ReviewOpinion {
    /// It hasn't said anything yet.
    Open,
    /// It may run.
    Yes,
    /// It may not.
    No,
    /// It has ended without an answer that counts, or wasn't asked.
    Nothing,
}

/// How long the parts of a request are that may be shown shorter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalWhole {
    /// Words of the command.
    pub words: u64,
    /// Their bytes.
    pub argv: u64,
    /// Bytes of a tool's parameters.
    pub parameters: u64,
    /// Variables.
    pub variables: u64,
    /// Bytes of their names and values.
    pub environment: u64,
    /// Bytes of standard input that the request has.
    pub input: u64,
}

/// Where the standard input of what waits comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ApprovalInput {
    /// Nowhere.
    None,
    /// These bytes.
    Inline(Bytes),
    /// The client sends it while it runs: nobody has seen it yet.
    Stream,
    /// A descriptor of the client's: what comes of it nobody has seen yet.
    Descriptor,
}

/// One reason to ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RiskFactor {
    /// The rule's name or place.
    pub name: String,
    /// What it's worth; none: it asks by itself.
    pub score: Option<u32>,
    /// Why, in an operator's words.
    pub reason: String,
}

/// What became of a request that waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ApprovalEnd {
    /// As many said yes as it takes.
    Approved,
    /// Somebody said no.
    Refused,
    /// Nobody answered in time, or not enough did.
    Late,
    /// Its client left, or cancelled it.
    Withdrawn,
    /// It was approved, and isn't any more what was asked about: files were read again, its tool's program or its workspace is another, its tool's breaker is open.
    Changed,
    /// The daemon ends.
    Draining,
}
