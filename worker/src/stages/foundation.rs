//! The foundation: what of a root is the same for every run of one template. A worker that has built it hands it on, and the
//! next ones stand on a copy of its mount namespace instead of building theirs from nothing (system plan only: nobody may
//! enter a mount namespace that belongs to another worker's user namespace).
//!
//! ```text
//! one worker:   sources ── lays the foundation, seals it ── tells its template ── copies the namespace ── adds the run's own
//! later ones:   fewer sources ─────────────────────────── enters its namespace ── copies the namespace ── adds the run's own
//! ```
//!
//! In it are the directories and links of the root, the binds that no run may write and that need no idmap, and the nodes of
//! `/dev`: names on two sealed tmpfs, and what all runs see of the host anyway. Whatever a run can write, or has a uid of its
//! own for, is put on top by each worker for itself, guards too. No mount is shared: a copy of a namespace has its own. It's
//! as old as [`AGE`] at the most, and isn't used when what the spec names has come to be or has gone since.
//!
//! The template keeps it, not the launcher: it holds mounts of the host's, whose last close may wait for a dead server.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::time::ClockId;
use serde::{Deserialize, Serialize};
use stockade_protocol::Bytes;
use stockade_protocol::confinement::Plan;
use stockade_protocol::outcome::SetupStage;
use stockade_protocol::spec::SandboxSpec;
use stockade_wire::channel::Channel;
use stockade_wire::socket;

use crate::failure::{At, Staged};
use crate::messages::Prepare;
use crate::stages::guard;

/// How old it may be when a worker is made on it: what the host has changed of it isn't seen meanwhile.
const AGE: Duration = Duration::from_secs(5);

/// What of a mount of the spec is in the foundation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Place {
    /// The mount itself; of `/dev` all but what is the run's own.
    Laid,
    /// An empty directory, or else file, to mount on.
    Point { directory: bool },
    /// Nothing: its source doesn't exist.
    Nothing,
    /// Nothing: it lies in a mount of the run's own.
    Above,
}

/// What was laid.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Laid {
    /// One a mount of the spec.
    pub(crate) places: Vec<Place>,
    /// Nodes that the host doesn't have.
    pub(crate) absent: Vec<Bytes>,
    /// When its sources were opened, since the machine's start.
    opened: Duration,
}

impl Laid {
    pub(crate) fn new(places: Vec<Place>, absent: Vec<Bytes>, opened: Duration) -> Self {
        Self { places, absent, opened }
    }

    /// Whether a mount of the spec needs no source.
    pub(crate) fn has(&self, mount: usize) -> bool {
        self.places.get(mount) == Some(&Place::Laid)
    }
}

/// The time that [`Laid`] goes by.
pub(crate) fn now() -> Duration {
    Duration::try_from(rustix::time::clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// A foundation to stand on.
#[derive(Debug)]
pub(crate) struct Foundation {
    pub(crate) laid: Laid,
    namespace: OwnedFd,
}

impl Foundation {
    /// Makes a copy of it the caller's mount namespace, and its root the caller's root.
    ///
    /// # Errors
    /// `Namespaces`.
    pub(crate) fn stand_on(self) -> Staged<Laid> {
        const STAGE: SetupStage = SetupStage::Namespaces;
        nix::sched::setns(&self.namespace, CloneFlags::CLONE_NEWNS).at(STAGE, "mount")?;
        copy_namespace()?;
        Ok(self.laid)
    }
}

/// Leaves the mount namespace for a copy of it.
pub(crate) fn copy_namespace() -> Staged<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).at(SetupStage::Namespaces, "mount")
}

/// What a worker has for foundations: perhaps one, and where to tell of one that it lays.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) foundation: Option<Foundation>,
    pub(crate) teller: Teller,
}

impl Ground {
    /// The descriptors of it.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.foundation.iter().map(|foundation| foundation.namespace.as_fd()).chain([self.teller.0.as_fd()])
    }
}

/// Where workers tell their template of what they have laid.
#[derive(Debug)]
pub(crate) struct Teller(Channel);

impl Teller {
    /// Tells of the caller's mount namespace as it is now. `proc`: the host's. That it isn't heard is no fault.
    pub(crate) fn tell(&self, laid: &Laid, proc: &OwnedFd) {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let namespace = rustix::fs::openat(proc, "self/ns/mnt", flags, Mode::empty());
        drop(namespace.map(|namespace| self.0.send(laid, &[namespace.as_fd()])));
    }
}

/// What a template keeps.
#[derive(Debug)]
pub(crate) struct Keeper {
    hears: Channel,
    teller: OwnedFd,
    kept: Option<Foundation>,
}

impl Keeper {
    /// For a template whose workers can share a foundation.
    ///
    /// # Errors
    /// Those of socketpair(2) and ioctl(2).
    pub(crate) fn new(prepare: &Prepare) -> io::Result<Option<Self>> {
        if !is_possible(prepare) {
            return Ok(None);
        }
        let (hears, teller) = socket::seqpacket_pair()?;
        rustix::io::ioctl_fionbio(&hears, true)?;
        rustix::io::ioctl_fionbio(&teller, true)?;
        Ok(Some(Self { hears: Channel::new(hears), teller, kept: None }))
    }

    /// Hears what workers have told since, and lets go of what is too old.
    pub(crate) fn refresh(&mut self) {
        while let Ok(Some((laid, mut namespace))) = self.hears.receive::<Laid>() {
            self.kept = namespace.pop().map(|namespace| Foundation { laid, namespace });
        }
        self.kept.take_if(|kept| now().saturating_sub(kept.laid.opened) >= AGE);
    }

    /// In a worker, which is a copy of the template: what it has of it.
    pub(crate) fn into_ground(self) -> Ground {
        Ground { foundation: self.kept, teller: Teller(Channel::new(self.teller)) }
    }
}

/// Whether workers can share one. A mask needs a place in the root's own tmpfs, which is sealed then.
fn is_possible(prepare: &Prepare) -> bool {
    let spec = &prepare.spec;
    prepare.plan == Plan::System
        && spec.deny.is_empty()
        && spec.deny_elsewhere.is_empty()
        && is_parents_first(spec)
}

/// Whether no mount covers an earlier one: then it doesn't matter which of two that aren't in each other comes first.
fn is_parents_first(spec: &SandboxSpec) -> bool {
    let targets: Vec<&Bytes> = spec.mounts.iter().map(|mount| &mount.target).collect();
    let covers = |at: usize| targets[..at].iter().any(|earlier| guard::is_beneath(earlier, targets[at]));
    !(0..targets.len()).any(covers)
}
