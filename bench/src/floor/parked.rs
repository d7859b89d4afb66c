//! A worker of all layers that waits for a command: the least that a confined run can cost on the request's path.
//!
//! ```text
//! bench ──socket──> outer: namespaces, root, control group ──> inner: pid 1, its ids, Landlock, filters; waits
//!                                                                 │ one byte asks: vfork, exec, wait, one byte answers
//! ```
//!
//! By the system's plan the outer one is root in the first user namespace and the inner one has a host uid and a user
//! namespace of its own; by the user's plan the user namespace comes first and all else is in it.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;

use nix::sched::CloneFlags;
use rustix::process::geteuid;

use super::layers::{self, Group, OTHERS, OURSELVES};
use crate::error::BenchError;
use crate::provenance::Plan;
use crate::role::{self, Spawner};
use crate::spawn;

/// The roles.
pub(crate) const OUTER: &str = "role-floor-outer";
pub(crate) const INNER: &str = "role-floor-inner";
/// A host uid that nobody has: of the range that the shipped policies give out.
const RUN: u32 = 2_000_065_000;
/// What the inner one says when it waits.
const READY: u8 = 2;

/// A worker that waits, and its control group.
#[derive(Debug)]
pub(crate) struct Parked {
    spawner: Spawner,
    group: Option<Group>,
}

impl Parked {
    /// Makes one by this plan, with its root on this directory.
    pub(crate) fn make(plan: Plan, place: &Path, words: &[&str]) -> Result<Self, BenchError> {
        if plan == Plan::System && !geteuid().is_root() {
            return Err(BenchError::Wrong("only root has the system's plan".into()));
        }
        let spawner = Spawner::start_role(OUTER, &[plan.name().as_ref(), place.as_os_str()], words)?;
        let group = (plan == Plan::System).then(|| Group::named(&group_name(spawner.id())).ok()).flatten();
        let mut parked = Self { spawner, group };
        match parked.spawner.hear()? {
            READY => {}
            other => return Err(BenchError::Wrong(format!("a worker of the floor said {other}"))),
        }
        Ok(parked)
    }

    /// The spawner that it has become.
    pub(crate) fn spawner(&mut self) -> &mut Spawner {
        &mut self.spawner
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.spawner.end();
        if let Some(group) = &self.group {
            // Where none could be made none is there.
            let _ = group.remove();
        }
    }
}

fn group_name(pid: u32) -> String {
    format!("stockade-bench-{pid}")
}

/// Plan and directory, then the command.
pub(crate) fn outer(words: &[OsString]) -> Result<(), BenchError> {
    let [plan, place, command @ ..] = words else { return Err(incomplete()) };
    let plan = plan_of(plan)?;
    match plan {
        Plan::System => {
            let group = Group::named(&group_name(std::process::id()));
            // Where there is none, or none may be made, the floor is without: `steps` says so.
            let _ = group.and_then(|group| group.make().and_then(|()| group.join()));
        }
        Plan::User => layers::user_namespace()?,
    }
    layers::namespaces(OTHERS | CloneFlags::CLONE_NEWNET)?;
    layers::root(place.as_ref())?;
    let mut inner = spawn::command(OURSELVES);
    inner.arg(INNER).arg(plan.name()).args(command);
    if plan == Plan::System {
        inner.uid(RUN).gid(RUN);
    }
    let status = inner.status().map_err(BenchError::io("start the inner one"))?;
    spawn::succeeded(status, || "the inner one".into())
}

/// Plan, then the command.
pub(crate) fn inner(words: &[OsString]) -> Result<(), BenchError> {
    let [plan, command @ ..] = words else { return Err(incomplete()) };
    if plan_of(plan)? == Plan::System {
        layers::user_namespace()?;
    }
    let filters = layers::filters()?;
    layers::landlock()?;
    layers::filter(&filters)?;
    let socket = std::io::stdin().as_fd().try_clone_to_owned().map_err(BenchError::io("take the socket"))?;
    UnixStream::from(socket).write_all(&[READY]).map_err(BenchError::io("say that it's ready"))?;
    role::spawn_on_request(command)
}

fn plan_of(word: &OsString) -> Result<Plan, BenchError> {
    Plan::ALL.into_iter().find(|plan| *word == *plan.name()).ok_or_else(incomplete)
}

fn incomplete() -> BenchError {
    BenchError::Wrong("plan, directory and command weren't all named".into())
}
