//! What the launcher permits, whatever the supervisor says: otherwise the supervisor would be root by another name.

use std::sync::Arc;

use stockade_protocol::Bytes;
use stockade_protocol::bounds::{
    MAX_ARGUMENT, MAX_ARGUMENTS, MAX_ARGUMENTS_TOTAL, MAX_ENVIRONMENT, MAX_PATH,
};
use stockade_protocol::confinement::Plan;
use stockade_protocol::launch::Launch;
use stockade_protocol::outcome::SetupStage;
use stockade_protocol::spec::{Level, MountKind, RunAs, SandboxSpec};

use crate::failure::{Staged, failed};

/// No range of run uids may reach below: ids of people and services live there.
const LOWEST_RUN_UID: u32 = 100_000;
/// The most mounts, denied and protected paths of one spec together.
const MAX_PATHS: usize = 1024;

/// A spec that this launcher permits, and the plan its workers are made by. Only [`permit`] makes one.
#[derive(Debug, Clone)]
pub(crate) struct Permitted {
    spec: Arc<SandboxSpec>,
    plan: Plan,
}

impl Permitted {
    /// The spec, and the plan its workers are made by.
    pub(crate) fn into_parts(self) -> (Arc<SandboxSpec>, Plan) {
        (self.spec, self.plan)
    }
}

/// Whether runs may be confined to this. `plan`: of levels with namespaces.
///
/// # Errors
/// `Check` with what is out of bounds.
pub(crate) fn permit(spec: Arc<SandboxSpec>, plan: Plan) -> Staged<Permitted> {
    let refuse = |errno: i32, what: &str| Err(failed(SetupStage::Check, errno, what));
    let plan = if spec.level == Level::Minimal { Plan::Minimal } else { plan };
    if let (Plan::System, RunAs::Ephemeral { start, count }) = (plan, spec.run_as)
        && (start < LOWEST_RUN_UID || count == 0 || start.checked_add(count).is_none())
    {
        return refuse(libc::EPERM, "run-as range");
    }
    let guarded = [&spec.deny, &spec.deny_elsewhere, &spec.protect];
    let paths = spec.mounts.len() + guarded.map(Vec::len).iter().sum::<usize>();
    if paths > MAX_PATHS {
        return refuse(libc::E2BIG, "paths");
    }
    if plan == Plan::Minimal && !guarded.iter().all(|list| list.is_empty()) {
        return refuse(libc::EOPNOTSUPP, "deny or protect at a level without mounts");
    }
    let targets = spec.mounts.iter().map(|mount| &mount.target);
    if !targets.chain(guarded.into_iter().flatten()).all(is_plain) {
        return refuse(libc::EINVAL, "path");
    }
    Ok(Permitted { spec, plan })
}

/// Whether this launch may be made, within a spec that is permitted.
///
/// # Errors
/// As [`permit`].
pub(crate) fn permit_launch(launch: &Launch, within: &Permitted, closing: bool) -> Staged<()> {
    let refuse = |errno: i32, what: &str| Err(failed(SetupStage::Check, errno, what));
    if closing {
        return refuse(libc::ESHUTDOWN, "launcher is stopping");
    }
    let Permitted { spec, plan } = within;
    let me = rustix::process::geteuid().as_raw();
    if me != 0 && launch.owner.uid != me {
        return refuse(libc::EPERM, "owner");
    }
    if *plan == Plan::System && spec.run_as == RunAs::Caller && launch.owner.uid == 0 {
        return refuse(libc::EPERM, "run-as caller is root");
    }
    if !is_plain(&launch.cwd) || !is_plain(&launch.workspace) {
        return refuse(libc::EINVAL, "path");
    }
    if !spec.mounts.iter().any(|mount| mount.kind == MountKind::Workspace) && launch.workspace_passed {
        return refuse(libc::EINVAL, "workspace without a mount");
    }
    arguments(launch)
}

fn is_plain(path: &Bytes) -> bool {
    let is_odd = |name: &[u8]| name == b".." || name.contains(&0);
    path.first() == Some(&b'/') && path.len() <= MAX_PATH && !path.split(|b| *b == b'/').any(is_odd)
}

fn arguments(launch: &Launch) -> Staged<()> {
    let refuse = |what: &str| Err(failed(SetupStage::Check, libc::E2BIG, what));
    if launch.argv.is_empty() || launch.argv.len() > MAX_ARGUMENTS {
        return refuse("argv");
    }
    if launch.environment.len() > MAX_ENVIRONMENT {
        return refuse("environment");
    }
    let entries = launch.environment.iter().map(|(name, value)| name.len() + value.len() + 2);
    let lengths = launch.argv.iter().map(|argument| argument.len() + 1).chain(entries);
    let mut total = 0;
    for length in lengths {
        total += length;
        if length > MAX_ARGUMENT || total > MAX_ARGUMENTS_TOTAL {
            return refuse("arguments");
        }
    }
    Ok(())
}
