//! The two spawn plans: how a process comes to stand in the run's finished root.
//!
//! * System: copies of the sources are made in the initial mount namespace (descriptors of another one can't be bound)
//!   and idmapped in the initial user namespace (from inside one that's `EPERM`).
//! * User: a user namespace first, since only there may it mount.
//!
//! A worker of the user plan is born in its user namespace; one of the system plan enters it when all its mounts are made.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use stockade_protocol::Bytes;
use stockade_protocol::confinement::Plan;
use stockade_protocol::outcome::SetupStage;
use stockade_wire::channel::Channel;

use crate::failure::{At, Staged};
use crate::laps::{Lap, Laps};
use crate::messages::{self, FromWorker, Prepare};
use crate::stages::beside::Beside;
use crate::stages::foundation::{self, Ground, Laid};
use crate::stages::identity;
use crate::stages::placeholder::Placed;
use crate::stages::root::{self, Pivoted, Trees};
use crate::stages::sources::{self, LedTo, Sources};

/// Builds the root that the plan asks for, and steps into it.
///
/// # Errors
/// Those of the stages. The process must end then: it may stand in a half-built root.
pub(crate) fn enter_root(
    channel: &Channel,
    prepare: &mut Prepare,
    workspace: Option<OwnedFd>,
    ground: Option<Ground>,
    (beside, laps): (&mut Beside, &mut Laps),
) -> Staged<Pivoted> {
    match prepare.plan {
        Plan::System => {
            let idmap = prepare.idmap.then(|| beside.idmap(prepare)).transpose()?;
            system_root(channel, prepare, workspace, ground, (idmap.as_ref(), laps))
        }
        Plan::User => user_root(channel, prepare, workspace.as_ref(), laps),
        _ => Ok(no_root(prepare)),
    }
}

fn system_root(
    channel: &Channel,
    prepare: &mut Prepare,
    workspace: Option<OwnedFd>,
    ground: Option<Ground>,
    (idmap, laps): (Option<&OwnedFd>, &mut Laps),
) -> Staged<Pivoted> {
    let Some(Ground { foundation, teller }) = ground else {
        let found = find(channel, prepare, workspace, (idmap, laps), None)?.keep(prepare);
        root::enter_mount_namespace()?;
        return root::build(prepare, found.trees, &found.missing);
    };
    if let Some(foundation) = foundation {
        let again = workspace.as_ref().map(OwnedFd::try_clone).transpose();
        let again = again.at(SetupStage::Open, prepare.workspace.clone())?;
        let found = find(channel, prepare, again, (idmap, laps), Some(&foundation.laid))?;
        if found.trees.fit(&foundation.laid) {
            let (found, laid) = (found.keep(prepare), foundation.stand_on()?);
            return root::finish(prepare, found.trees, &found.missing, laid);
        }
    }
    let proc = identity::open_proc()?;
    let opened = foundation::now();
    let mut found = find(channel, prepare, workspace, (idmap, laps), None)?.keep(prepare);
    root::enter_mount_namespace()?;
    let laid = root::lay(prepare, &mut found.trees, opened)?;
    teller.tell(&laid, &proc);
    foundation::copy_namespace()?;
    root::finish(prepare, found.trees, &found.missing, laid)
}

/// What the system plan has of the host before it leaves its mount namespace.
struct Found {
    trees: Trees,
    missing: HashSet<Bytes>,
    led_to: LedTo,
}

impl Found {
    /// What is found is what the root is built from.
    fn keep(mut self, prepare: &mut Prepare) -> Self {
        core::mem::take(&mut self.led_to).extend(&mut prepare.spec);
        self
    }
}

fn find(
    channel: &Channel,
    prepare: &Prepare,
    workspace: Option<OwnedFd>,
    (idmap, laps): (Option<&OwnedFd>, &mut Laps),
    laid: Option<&Laid>,
) -> Staged<Found> {
    let Sources { sources, placed, led_to, missing } = sources::open(prepare, workspace, laid)?;
    laps.end(Lap::Open);
    hand_up(channel, placed)?;
    Ok(Found { trees: root::detach(prepare, sources, idmap)?, missing, led_to })
}

/// Leaves the mount namespace that a passed descriptor belongs to, so the workspace is carried over as the working
/// directory, which follows.
fn user_root(
    channel: &Channel,
    prepare: &mut Prepare,
    workspace: Option<&OwnedFd>,
    laps: &mut Laps,
) -> Staged<Pivoted> {
    if let Some(workspace) = workspace {
        rustix::process::fchdir(workspace).at(SetupStage::Open, prepare.workspace.clone())?;
    }
    root::enter_mount_namespace()?;
    let workspace = match workspace {
        None => None,
        Some(_) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let again = rustix::fs::openat(CWD, ".", flags, Mode::empty());
            Some(again.at(SetupStage::Open, prepare.workspace.clone())?)
        }
    };
    let Sources { sources, placed, led_to, missing } = sources::open(prepare, workspace, None)?;
    laps.end(Lap::Open);
    hand_up(channel, placed)?;
    led_to.extend(&mut prepare.spec);
    let trees = root::detach(prepare, sources, None)?;
    root::build(prepare, trees, &missing)
}

/// The launcher keeps the locks on placeholders for as long as the run lives, and has them swept.
fn hand_up(channel: &Channel, placed: Placed) -> Staged<()> {
    let send = |message: &FromWorker, locks: &[BorrowedFd<'_>]| {
        messages::send(channel, message, locks).at(SetupStage::Guard, "channel")
    };
    if !placed.made.is_empty() {
        let message = FromWorker::Placed { held: Vec::new(), made: placed.made };
        send(&message, &[])?;
    }
    for batch in sources::batches(placed.held) {
        let locks: Vec<_> = batch.iter().map(|held| held.lock.as_fd()).collect();
        let held = batch.iter().map(|held| held.path.clone()).collect();
        send(&FromWorker::Placed { held, made: Vec::new() }, &locks)?;
    }
    Ok(())
}

/// Without namespaces the host's root stays, and Landlock alone decides what of it can be used.
fn no_root(prepare: &Prepare) -> Pivoted {
    let missing = |path: &&Bytes| path.as_path().symlink_metadata().is_err();
    let spec = &prepare.spec;
    Pivoted {
        absent: Vec::new(),
        links: Vec::new(),
        guarded: Vec::new(),
        missing: spec.protect.iter().filter(missing).cloned().collect(),
        tmpfs: Vec::new(),
    }
}
