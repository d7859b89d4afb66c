//! One run's record.

use std::collections::BTreeMap;

use stockade_protocol::outcome::Outcome;

use super::event::{ConnectionId, LauncherId};

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Waits for a slot.
    Queued,
    /// Handed to the launcher.
    Starting,
    /// The tool runs.
    Running,
    /// The run has ended; its output may still be on its way.
    Closing {
        /// How it ended.
        outcome: Outcome,
    },
    /// `Exited` is out.
    Ended {
        /// How it ended.
        outcome: Outcome,
    },
}

/// What the dispatcher knows of one run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) owner: u32,
    /// Who asked for it; of an adopted run, once somebody has claimed it.
    pub(super) origin: Option<ConnectionId>,
    pub(super) origin_gone: bool,
    pub(super) origin_delivered: bool,
    pub(super) detach: bool,
    pub(super) relayed: bool,
    pub(super) wall_ms: Option<u64>,
    pub(super) bytes: usize,
    pub(super) phase: Phase,
    /// Under which connection it waits.
    pub(super) waits_for: ConnectionId,
    /// Whether a launcher holds it while it waits.
    pub(super) held: bool,
    /// Whose launcher it was handed to.
    pub(super) launcher: Option<LauncherId>,
    /// When it was handed to the launcher.
    pub(super) started_at: u64,
    /// The sequence number of the next event.
    pub(super) next_seq: u64,
    /// Whether `Started` is out.
    pub(super) has_started: bool,
    /// What the ring has come to; it may be told before `Started`.
    pub(super) ring_next_seq: u64,
    pub(super) eof: bool,
    /// Bytes its ring takes.
    pub(super) kept: u64,
    /// Whether the launcher has been asked to end it.
    pub(super) cancelled: bool,
    /// It went on past its limit: what its outcome is, whatever the launcher says of the cancel.
    pub(super) overdue: Option<Outcome>,
    pub(super) acknowledged: bool,
    /// Its place among the ended, oldest first.
    pub(super) place: Option<u64>,
    /// Who follows it.
    pub(super) followers: BTreeMap<ConnectionId, Follower>,
}

/// Somebody who follows a run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Follower {
    /// Whether `Exited` was delivered.
    pub(super) delivered: bool,
    /// It isn't his: neither does it become his, nor is it kept for him.
    pub(super) is_stranger: bool,
}

impl Run {
    /// Whether it holds a slot.
    pub(super) fn holds_slot(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running)
    }

    /// Whether somebody still waits for `Exited`.
    pub(super) fn is_awaited(&self) -> bool {
        self.followers.values().any(|follower| !follower.delivered && !follower.is_stranger)
    }

    /// Whether nobody can want it any more.
    pub(super) fn is_done_with(&self) -> bool {
        let taken = self.acknowledged || (!self.detach && self.origin_gone && self.origin_delivered);
        matches!(self.phase, Phase::Ended { .. }) && taken && !self.is_awaited()
    }
}
