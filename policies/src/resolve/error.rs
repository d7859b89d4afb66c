//! Why a policy can't be resolved for a request.

use stockade_protocol::codec::CodecError;
use stockade_protocol::denied::{Denied, DenyReason};

use crate::position::Position;

/// Why a policy can't be resolved for a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// A path of the request isn't one that can be used.
    #[error("the {what} `{path}` {reason}")]
    Path {
        /// `workspace`, `home directory` or `working directory`.
        what: &'static str,
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The workspace is a place of the system.
    #[error("the workspace `{path}` {reason}")]
    SystemWorkspace {
        /// The path.
        path: String,
        /// What is there.
        reason: String,
    },
    /// The working directory isn't beneath the workspace.
    #[error("the working directory `{cwd}` is outside the workspace `{workspace}`")]
    CwdOutside {
        /// The working directory.
        cwd: String,
        /// The workspace.
        workspace: String,
    },
    /// The policy takes away what the run stands on.
    #[error("{at}: the {what} `{path}` lies beneath `{rule}`")]
    Denied {
        /// `workspace` or `working directory`.
        what: &'static str,
        /// The path.
        path: String,
        /// The rule.
        rule: String,
        /// Where it stands.
        at: Position,
    },
    /// The policy doesn't show the working directory.
    #[error("policy `{policy}` shows nothing at the working directory `{cwd}`")]
    Invisible {
        /// The policy.
        policy: String,
        /// The working directory.
        cwd: String,
    },
    /// A path of the policy is too long once its variables are replaced.
    #[error("{at}: `{rule}` is longer than {limit} bytes once its variables are replaced")]
    LongPath {
        /// The rule.
        rule: String,
        /// Where it stands.
        at: Position,
        /// The limit in bytes.
        limit: usize,
    },
    /// The policy has too many paths.
    #[error("policy `{policy}` has {count} paths, over the limit of {limit}")]
    TooManyPaths {
        /// The policy.
        policy: String,
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// Only an operator's policy gives the host's network to others.
    #[error("{at}: policy `{policy}` gives the host's network, which only an operator's policy may")]
    HostNetwork {
        /// The policy.
        policy: String,
        /// Where it says so.
        at: Position,
    },
    /// A limit of the request is wider than the policy's.
    #[error("{limit} = {asked} is wider than policy `{policy}` allows ({allowed})")]
    Widens {
        /// The limit's key.
        limit: &'static str,
        /// What is asked for.
        asked: String,
        /// The policy's.
        allowed: String,
        /// The policy.
        policy: String,
    },
    /// A limit of the request lets nothing run.
    #[error("{limit} = 0 lets nothing run")]
    Zero {
        /// The limit's key.
        limit: &'static str,
    },
    /// An environment entry can't be given to a program.
    #[error("the environment variable `{name}` has a NUL in its value")]
    Environment {
        /// Its name.
        name: String,
    },
    /// The resolved policy doesn't fit a message.
    #[error("the resolved policy doesn't fit a message")]
    TooLarge {
        /// Why.
        #[source]
        source: CodecError,
    },
}

impl ResolveError {
    /// As a refusal for a client, with a remedy where there is one.
    #[must_use]
    pub fn denied(&self) -> Denied {
        let message = match self {
            Self::TooLarge { source } => format!("{self}: {source}"),
            // The file by its name: in which directory of the host it lies is nothing for a client.
            Self::Denied { at, .. } | Self::LongPath { at, .. } | Self::HostNetwork { at, .. } => {
                let name = at.file.rsplit('/').next().unwrap_or_default();
                self.to_string().replacen(&*at.file, name, 1)
            }
            _ => self.to_string(),
        };
        let (reason, remedy) = match self {
            Self::Path { .. } | Self::Environment { .. } => (DenyReason::BadRequest, None),
            Self::SystemWorkspace { .. } => {
                (DenyReason::BadRequest, Some("choose a directory of your own, such as the project's"))
            }
            Self::CwdOutside { .. } => (
                DenyReason::BadRequest,
                Some("choose a directory beneath the workspace, or another workspace"),
            ),
            Self::Widens { .. } => {
                (DenyReason::BadRequest, Some("ask for less, or choose a policy that allows it"))
            }
            Self::Zero { .. } => (DenyReason::BadRequest, Some("leave the limit out, or ask for at least 1")),
            Self::Denied { .. } => (DenyReason::Policy, Some("choose another workspace, or another policy")),
            Self::Invisible { .. } => {
                (DenyReason::Policy, Some("add \"${workspace}\" to `read` or `write` of the policy"))
            }
            Self::HostNetwork { .. } => {
                (DenyReason::Policy, Some("ask the operator for a policy in /etc/stockade/policies"))
            }
            Self::LongPath { .. } | Self::TooManyPaths { .. } | Self::TooLarge { .. } => {
                (DenyReason::Policy, None)
            }
        };
        let denied = Denied::new(reason, message);
        match remedy {
            Some(remedy) => denied.remedy(remedy),
            None => denied,
        }
    }
}
