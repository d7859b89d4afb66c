//! The worker's own stages, from its birth in fresh namespaces to parked and locked. Each consumes the one before:
//! applying one twice, too early or out of order doesn't compile.

use std::os::fd::OwnedFd;

use stockade_protocol::confinement::Plan;
use stockade_protocol::outcome::SetupStage;
use stockade_protocol::spec::NetworkMode;

use crate::failure::{At, Staged, failed};
use crate::messages::Prepare;
use crate::program::Program;
use crate::stages::beside::Beside;
use crate::stages::root::Pivoted;
use crate::stages::{identity, landlock, limits, network, proc, sources};
use crate::sys;

/// The `CLONE_NEW*` flags a worker is born with, but for those of mounts and network, which a lone worker enters later.
pub(crate) fn namespaces(plan: Plan) -> i32 {
    const ALWAYS: i32 = libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
    match plan {
        Plan::System => ALWAYS,
        Plan::User => ALWAYS | libc::CLONE_NEWUSER,
        _ => 0,
    }
}

/// Which stage a worker's clone is: in the user plan a user namespace is the first thing it needs.
pub(crate) fn birth_stage(plan: Plan) -> SetupStage {
    if plan == Plan::User { SetupStage::UserNamespace } else { SetupStage::Namespaces }
}

/// Just cloned: fresh namespaces, still privileged in them.
#[derive(Debug)]
pub(crate) struct Unconfined<'a> {
    prepare: &'a Prepare,
    beside: Beside,
}

/// `/proc`, loopback and host name are the run's own.
#[derive(Debug)]
pub(crate) struct Isolated<'a> {
    prepare: &'a Prepare,
    beside: Beside,
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

/// Is under the base filters. Nothing that can be read back of it changes any more.
#[derive(Debug)]
pub(crate) struct Filtered<'a> {
    prepare: &'a Prepare,
    proc: Option<OwnedFd>,
    delta: Vec<Program>,
    /// How many filters are on.
    pub(crate) installed: u32,
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
    /// The first thing in a worker that stands in its root.
    pub(crate) fn new(prepare: &'a Prepare, beside: Beside) -> Self {
        Self { prepare, beside }
    }

    /// Makes what belongs to the fresh namespaces: `/proc`, loopback, host name.
    pub(crate) fn isolate(self) -> Staged<Isolated<'a>> {
        let Self { prepare, mut beside } = self;
        let spec = &prepare.spec;
        if prepare.plan == Plan::Minimal {
            return Ok(Isolated { prepare, beside, proc: None });
        }
        beside.join_network()?;
        rustix::system::sethostname(spec.hostname.as_bytes()).at(SetupStage::Namespaces, "host name")?;
        if spec.network.mode == NetworkMode::Loopback {
            network::loopback_up()?;
        }
        if prepare.plan == Plan::User {
            // While the host's stands there, whose `sys` can be written. (In the system plan the namespace is entered later.)
            limits::bound_watchers(identity::open_proc()?)?;
        }
        let proc = proc::mount()?;
        Ok(Isolated { prepare, beside, proc: Some(proc) })
    }
}

impl<'a> Isolated<'a> {
    /// Enters the user namespace (system plan; the user plan was born in one) and takes the run's ids.
    pub(crate) fn identify(self) -> Staged<Identified<'a>> {
        let Self { prepare, beside, proc } = self;
        // A keyring of its own, before the identity changes hands. A kernel without keys shares none; where a filter
        // around us (a container's, our own) forbids the call, it forbids the tool every use of keys as well.
        match sys::join_session_keyring() {
            Ok(()) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {}
            Err(error) => return Err(error).at(SetupStage::Identity, "session keyring"),
        }
        let owner = &prepare.owner;
        match prepare.plan {
            Plan::System => {
                nix::unistd::setgroups(&[]).at(SetupStage::Identity, "supplementary groups")?;
                beside.enter_user(prepare.run_map())?;
                identity::take_ids(prepare.ids.inside_uid, prepare.ids.inside_gid, false)?;
            }
            Plan::User => identity::take_ids(prepare.ids.inside_uid, prepare.ids.inside_gid, false)?,
            _ => {
                if nix::unistd::geteuid().is_root() && owner.uid != 0 {
                    identity::empty_bounding_set()?;
                    sources::become_owner(owner)?;
                }
                sources::make_wanted(&prepare.spec)?;
            }
        }
        Ok(Identified { prepare, proc })
    }
}

impl<'a> Identified<'a> {
    /// Applies rlimits and priorities. `already`: processes that count and aren't the run's.
    pub(crate) fn limit(self, already: u64) -> Staged<Limited<'a>> {
        limits::apply(&self.prepare.spec.limits, already)?;
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

impl<'a> Unprivileged<'a> {
    /// Installs the base filters, which let a ruleset be built: a tool may confine itself further, too.
    pub(crate) fn filter(self) -> Staged<Filtered<'a>> {
        const STAGE: SetupStage = SetupStage::Seccomp;
        let seccomp = &self.prepare.spec.seccomp;
        let program = |instructions: &Vec<_>| {
            Program::new(instructions).ok_or_else(|| failed(STAGE, libc::EINVAL, "program length"))
        };
        let base = seccomp.base.iter().map(program).collect::<Staged<Vec<_>>>()?;
        let delta = seccomp.delta.iter().map(program).collect::<Staged<Vec<_>>>()?;
        if base.is_empty() {
            return Err(failed(STAGE, libc::EINVAL, "no filter"));
        }
        let installed = u32::try_from(base.len()).unwrap_or(u32::MAX);
        for filter in &base {
            sys::install_filter(filter).at(STAGE, "base filter")?;
        }
        Ok(Filtered { prepare: self.prepare, proc: self.proc, delta, installed })
    }
}

impl Filtered<'_> {
    /// Builds the Landlock ruleset. `pivoted`: the root that it's for.
    pub(crate) fn lock(self, pivoted: &Pivoted) -> Staged<Locked> {
        let landlock = landlock::prepare(&self.prepare.spec, &pivoted.absent, &pivoted.links)?;
        Ok(Locked { proc: self.proc, landlock, delta: self.delta, installed: self.installed })
    }
}

/// Whether this process's `/proc` files are its user's, or root's alone.
pub(crate) fn dumpable(yes: bool) -> Staged<()> {
    use rustix::process::DumpableBehavior::{Dumpable, NotDumpable};
    rustix::process::set_dumpable_behavior(if yes { Dumpable } else { NotDumpable })
        .at(SetupStage::Identity, "dumpable")
}
