//! What the launcher permits, whatever the supervisor says: otherwise the supervisor would be root by another name.

use std::sync::Arc;

use stockade_protocol::Bytes;
use stockade_protocol::bounds::{
    MAX_ARGUMENT, MAX_ARGUMENTS, MAX_ARGUMENTS_TOTAL, MAX_ENVIRONMENT, MAX_PATH, MAX_RUN_OPENINGS,
};
use stockade_protocol::confinement::Plan;
use stockade_protocol::launch::{Launch, Opening};
use stockade_protocol::outcome::SetupStage;
use stockade_protocol::spec::{Level, MountKind, RunAs, SandboxSpec};

use crate::failure::{Staged, failed};

/// No range of run uids may reach below: ids of people and services live there.
const LOWEST_RUN_UID: u32 = 100_000;
/// The number of the first descriptor beside the standard ones.
pub(crate) const FIRST_BESIDE: u32 = 3;
/// The longest name of a file, in bytes (`NAME_MAX`).
const MAX_FILE_NAME: usize = 255;
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
    if !are_in_order(&launch.openings, launch.stdin_passed) {
        return refuse(libc::EINVAL, "files to open");
    }
    arguments(launch)
}

/// Whether these are few enough, numbered as they should be, and below the workspace as far as their text tells.
fn are_in_order(openings: &[Opening], stdin_passed: bool) -> bool {
    let beside = openings.iter().filter(|opening| opening.number != 0);
    let is_odd = |name: &[u8]| name == b".." || name.len() > MAX_FILE_NAME || name.contains(&0);
    let is_below = |path: &[u8]| {
        !path.starts_with(b"/") && path.len() <= MAX_PATH && !path.split(|b| *b == b'/').any(is_odd)
    };
    openings.len() <= MAX_RUN_OPENINGS
        && openings.iter().filter(|opening| opening.number == 0).count() <= usize::from(!stdin_passed)
        && beside.zip(FIRST_BESIDE..).all(|(opening, number)| opening.number == number)
        && openings.iter().all(|opening| is_below(&opening.path))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn openings(all: &[(u32, &str)]) -> Vec<Opening> {
        all.iter().map(|(number, path)| Opening { number: *number, path: (*path).into() }).collect()
    }

    #[test]
    fn files_to_open_are_few_numbered_without_a_gap_and_below_the_workspace() {
        for good in [&[][..], &[(0, "a")], &[(3, "a/b"), (4, "./c//d")], &[(0, "a"), (3, "b")]] {
            assert!(are_in_order(&openings(good), false), "{good:?}");
        }
        let long = "a".repeat(MAX_FILE_NAME + 1);
        let bad: [&[(u32, &str)]; 9] = [
            &[(1, "a")],
            &[(4, "a")],
            &[(3, "a"), (3, "b")],
            &[(0, "a"), (0, "b")],
            &[(3, "/etc/passwd")],
            &[(3, "a/../../b")],
            &[(3, "a\0b")],
            &[(3, &long)],
            &[(3, "a"), (4, "b"), (5, "c"), (6, "d"), (7, "e"), (8, "f")],
        ];
        for bad in bad {
            assert!(!are_in_order(&openings(bad), false), "{bad:?}");
        }
        // Standard input comes from one place.
        assert!(!are_in_order(&openings(&[(0, "a")]), true));
        assert!(are_in_order(&openings(&[(3, "a")]), true));
    }
}
