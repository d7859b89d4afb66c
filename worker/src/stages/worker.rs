//! The worker's own stages, from its birth in fresh namespaces to parked and locked. Each consumes the one before:
//! applying one twice, too early or out of order doesn't compile.

use std::os::fd::OwnedFd;

use nix::sched::CloneFlags;
use stockade_protocol::confinement::Plan;
use stockade_protocol::outcome::SetupStage;
use stockade_protocol::spec::NetworkMode;

use crate::failure::{At, Staged, failed};
use crate::messages::Prepare;
use crate::stages::network::{self, Making};
use crate::stages::{identity, landlock, limits, proc, sources};
use crate::sys::{self, Program};

/// The `CLONE_NEW*` flags a worker is born with, but for those of mounts and network, which a lone worker enters later.
pub(crate) fn namespaces(plan: Plan) -> i32 {
    const ALWAYS: i32 = libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
    match plan {
        Plan::System => ALWAYS,
        Plan::User => ALWAYS | libc::CLONE_NEWUSER,
        _ => 0,
    }
}

/// How the worker gets its ids mapped.
#[derive(Debug)]
pub(crate) enum Mapper {
    /// By its template, when it is in its user namespace: a byte up means "map me", a byte down "done".
    Template(OwnedFd),
    /// By its launcher, before: a namespace to enter, or `None` where it was born in it.
    Launcher(Option<OwnedFd>),
}

impl Mapper {
    /// Enters the user namespace (system plan).
    fn enter(&self) -> Staged<()> {
        const STAGE: SetupStage = SetupStage::UserNamespace;
        match self {
            Self::Template(socket) => {
                nix::sched::unshare(CloneFlags::CLONE_NEWUSER).at(STAGE, "unshare")?;
                // Its maps are written through /proc, which must show this process as its own.
                dumpable(true)?;
                rustix::io::write(socket, &[0]).at(STAGE, "id map")?;
                wait_for_byte(socket)
            }
            Self::Launcher(Some(namespace)) => {
                nix::sched::setns(namespace, CloneFlags::CLONE_NEWUSER).at(STAGE, "setns")
            }
            Self::Launcher(None) => Err(failed(STAGE, libc::EBADF, "namespace")),
        }
    }

    /// Waits for the map of a namespace that the worker was born in (user plan). Without one nothing may be written there,
    /// not even a host name.
    fn wait(&self) -> Staged<()> {
        match self {
            Self::Template(socket) => wait_for_byte(socket),
            Self::Launcher(_) => Ok(()),
        }
    }
}

fn wait_for_byte(socket: &OwnedFd) -> Staged<()> {
    const STAGE: SetupStage = SetupStage::UserNamespace;
    let mut byte = [0];
    // No byte: the template failed, and has said so itself.
    match rustix::io::read(socket, &mut byte).at(STAGE, "id map")? {
        0 => Err(failed(STAGE, libc::EPIPE, "id map")),
        _ => Ok(()),
    }
}

/// Just cloned: fresh namespaces, still privileged in them.
#[derive(Debug)]
pub(crate) struct Unconfined<'a> {
    prepare: &'a Prepare,
    mapper: Mapper,
    network: Option<Making>,
}

/// `/proc`, loopback and host name are the run's own.
#[derive(Debug)]
pub(crate) struct Isolated<'a> {
    prepare: &'a Prepare,
    mapper: Mapper,
    proc: Option<OwnedFd>,
}

/// Has the run's ids.
#[derive(Debug)]
pub(crate) struct Identified<'a> {
    prepare: &'a Prepare,
    proc: Option<OwnedFd>,
}

/// Has the run's rlimits and priorities.
#[derive(Debug)]
pub(crate) struct Limited<'a> {
    prepare: &'a Prepare,
    proc: Option<OwnedFd>,
}

/// Has no capability and can get none.
#[derive(Debug)]
pub(crate) struct Unprivileged<'a> {
    prepare: &'a Prepare,
    proc: Option<OwnedFd>,
}

/// Nothing is left to do but to start the tool.
#[derive(Debug)]
pub(crate) struct Locked {
    /// The run's own `/proc`.
    pub(crate) proc: Option<OwnedFd>,
    /// The ruleset the tool will enter.
    pub(crate) landlock: landlock::Prepared,
    /// The filters the tool will add.
    pub(crate) delta: Vec<Program>,
    /// How many filters are on already.
    pub(crate) installed: u32,
}

impl<'a> Unconfined<'a> {
    /// The first thing in a worker. `network`: a namespace to join, where it wasn't born in its own.
    pub(crate) fn new(prepare: &'a Prepare, mapper: Mapper, network: Option<Making>) -> Self {
        Self { prepare, mapper, network }
    }

    /// Makes what belongs to the fresh namespaces: `/proc`, loopback, host name.
    pub(crate) fn isolate(self) -> Staged<Isolated<'a>> {
        let Self { prepare, mapper, network } = self;
        let spec = &prepare.launch.spec;
        if prepare.plan == Plan::Minimal {
            return Ok(Isolated { prepare, mapper, proc: None });
        }
        if prepare.plan == Plan::User {
            mapper.wait()?;
        }
        network.map_or(Ok(()), Making::join)?;
        rustix::system::sethostname(spec.hostname.as_bytes()).at(SetupStage::Namespaces, "host name")?;
        if spec.network.mode == NetworkMode::Loopback {
            network::loopback_up()?;
        }
        let proc = proc::mount()?;
        Ok(Isolated { prepare, mapper, proc: Some(proc) })
    }
}

impl<'a> Isolated<'a> {
    /// Enters the user namespace (system plan; the user plan was born in one) and takes the run's ids.
    pub(crate) fn identify(self) -> Staged<Identified<'a>> {
        let Self { prepare, mapper, proc } = self;
        // A keyring of its own, before the identity changes hands. A kernel without keys shares none; where a filter
        // around us (a container's, our own) forbids the call, it forbids the tool every use of keys as well.
        match sys::join_session_keyring() {
            Ok(()) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {}
            Err(error) => return Err(error).at(SetupStage::Identity, "session keyring"),
        }
        let owner = &prepare.launch.owner;
        match prepare.plan {
            Plan::System => {
                nix::unistd::setgroups(&[]).at(SetupStage::Identity, "supplementary groups")?;
                mapper.enter()?;
                identity::take_ids(prepare.inside_uid, prepare.inside_gid, false)?;
            }
            Plan::User => identity::take_ids(prepare.inside_uid, prepare.inside_gid, false)?,
            _ => {
                if nix::unistd::geteuid().is_root() && owner.uid != 0 {
                    identity::empty_bounding_set()?;
                    sources::become_owner(owner)?;
                }
                sources::make_wanted(&prepare.launch.spec)?;
            }
        }
        Ok(Identified { prepare, proc })
    }
}

impl<'a> Identified<'a> {
    /// Applies rlimits and priorities. `already`: processes that count and aren't the run's.
    pub(crate) fn limit(self, already: u64) -> Staged<Limited<'a>> {
        limits::apply(&self.prepare.launch.spec.limits, already)?;
        Ok(Limited { prepare: self.prepare, proc: self.proc })
    }
}

impl<'a> Limited<'a> {
    /// Drops every capability for good. The last change of credentials.
    pub(crate) fn drop_privileges(self) -> Staged<Unprivileged<'a>> {
        identity::drop_capabilities()?;
        if self.prepare.plan != Plan::Minimal {
            // Where there is no pid namespace to die with init, init hears of the launcher's end by its channel and
            // kills the tree itself.
            identity::die_with_parent()?;
        }
        // So that the launcher can read back what holds; cleared before the tool starts.
        dumpable(true)?;
        Ok(Unprivileged { prepare: self.prepare, proc: self.proc })
    }
}

impl Unprivileged<'_> {
    /// Builds the Landlock ruleset and installs the base filters.
    pub(crate) fn lock(self) -> Staged<Locked> {
        const STAGE: SetupStage = SetupStage::Seccomp;
        let spec = &self.prepare.launch.spec;
        let landlock = landlock::prepare(spec)?;
        let program = |instructions: &Vec<_>| {
            Program::new(instructions).ok_or_else(|| failed(STAGE, libc::EINVAL, "program length"))
        };
        let base = spec.seccomp.base.iter().map(program).collect::<Staged<Vec<_>>>()?;
        let delta = spec.seccomp.delta.iter().map(program).collect::<Staged<Vec<_>>>()?;
        if base.is_empty() {
            return Err(failed(STAGE, libc::EINVAL, "no filter"));
        }
        let installed = u32::try_from(base.len()).unwrap_or(u32::MAX);
        for filter in &base {
            sys::install_filter(filter).at(STAGE, "base filter")?;
        }
        Ok(Locked { proc: self.proc, landlock, delta, installed })
    }
}

/// Whether this process's `/proc` files are its user's, or root's alone.
pub(crate) fn dumpable(yes: bool) -> Staged<()> {
    use rustix::process::DumpableBehavior::{Dumpable, NotDumpable};
    rustix::process::set_dumpable_behavior(if yes { Dumpable } else { NotDumpable })
        .at(SetupStage::Identity, "dumpable")
}
