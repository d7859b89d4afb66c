//! What is asked: all that the stages of the gate see of a request, and of the world at its time.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use stockade_protocol::spec::NetworkMode;

use crate::validate::Parameters;

/// Who asks: what the kernel says of the peer, and the roles that the operator gives to such a one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Its uid, as the daemon sees it.
    pub uid: u32,
    /// Its group ids, the first its own.
    pub gids: Vec<u32>,
    /// Its process, held by a pidfd as long as it's asked about.
    pub pid: i32,
    /// The systemd unit that its control group is of.
    pub unit: Option<String>,
    /// The names of its roles.
    pub roles: BTreeSet<String>,
}

/// What somebody would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Action {
    /// Run a command line under a policy.
    Run,
    /// Call a registered tool.
    Call,
    /// Follow a run.
    Attach,
    /// Signal or end a run.
    Kill,
    /// See a run in a list.
    List,
    /// Give somebody more than he has.
    Grant,
    /// Answer for what waits for an approval.
    Approve,
    /// Read the audit record.
    ReadAudit,
    /// Have the daemon read its files again.
    Reload,
    /// Look into the daemon: the names of its policies and tools, breakers, who is locked out.
    Inspect,
    /// Close a breaker, lift a lock-out.
    Operate,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Run,
        Self::Call,
        Self::Attach,
        Self::Kill,
        Self::List,
        Self::Grant,
        Self::Approve,
        Self::ReadAudit,
        Self::Reload,
        Self::Inspect,
        Self::Operate,
    ];

    /// Its name in rules and records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Call => "call",
            Self::Attach => "attach",
            Self::Kill => "kill",
            Self::List => "list",
            Self::Grant => "grant",
            Self::Approve => "approve",
            Self::ReadAudit => "read-audit",
            Self::Reload => "reload",
            Self::Inspect => "inspect",
            Self::Operate => "operate",
        }
    }
}

/// What a command or a tool is given.
#[derive(Debug, Clone, Copy)]
pub enum Given<'a> {
    /// Nothing: the action has no arguments.
    Nothing,
    /// A command line, the program first. Bytes, since they needn't be UTF-8.
    Command(&'a [Vec<u8>]),
    /// A tool's parameters.
    Parameters(&'a Parameters),
}

/// A point in time, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Since the daemon began, by a clock that never steps: for intervals.
    pub uptime: Duration,
    /// By the calendar, which may step: for what is written down and for deadlines that outlive the daemon.
    pub wall: SystemTime,
}

/// How busy the machine is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    /// Share of time in which something waited for a processor, 0 to 1 (`some avg10` of /proc/pressure/cpu); `None`: unknown.
    pub cpu: Option<f64>,
    /// The same of memory.
    pub memory: Option<f64>,
    /// Runs that go on.
    pub runs: u32,
}

/// What rules of access know of the thing that is asked for, beside its name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Thing<'a> {
    /// The name that was asked for, whether there is such a policy or tool or not: who may not know is told the same of both.
    pub named: &'a str,
    /// Whether the policy comes with the program, and so does all that it extends.
    pub is_shipped: bool,
    /// The roles that the tool's file names.
    pub tool_roles: Option<&'a [String]>,
    /// The network that the policy gives; `None`: it isn't known.
    pub network: Option<NetworkMode>,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// When.
    pub at: Moment,
    /// Which run comes of it if it passes: a number that no other one has.
    pub run: u128,
    /// By whom.
    pub principal: &'a Principal,
    /// For what.
    pub action: Action,
    /// The policy's name: that of the request, or of the tool. `None` with [`Action::Run`]: there is no such policy.
    pub policy: Option<&'a str>,
    /// The tool's name. `None` with [`Action::Call`]: there is no such tool.
    pub tool: Option<&'a str>,
    /// What else there is to know of it.
    pub thing: Thing<'a>,
    /// What it's given.
    pub given: Given<'a>,
    /// The workspace's path in the daemon's view.
    pub workspace: Option<&'a Path>,
    /// Whose run it is that is asked for.
    pub owner: Option<u32>,
    /// How busy the machine is.
    pub load: Load,
}

impl<'a> Asked<'a> {
    /// Asked by somebody, of nothing yet: no policy, no tool, no run, and a machine of which nothing is known.
    #[must_use]
    pub fn by(principal: &'a Principal, action: Action, at: Moment) -> Self {
        Self {
            at,
            run: 0,
            principal,
            action,
            policy: None,
            tool: None,
            thing: Thing::default(),
            given: Given::Nothing,
            workspace: None,
            owner: None,
            load: Load::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_have_names_of_their_own() {
        let names: BTreeSet<_> = Action::ALL.into_iter().map(Action::name).collect();
        assert_eq!(names.len(), Action::ALL.len());
    }
}
