//! Templates and their parked workers: what makes the next run of the same owner, policy and workspace cost little more
//! than its tool.
//!
//! ```text
//! first run ──> template started ──> worker made, parked, told its command        (a miss)
//!                    └── spares made, parked, read back ──> told a later command  (a hit)
//! ```
//!
//! A spare is a worker like any other that hasn't been told its command yet: its own namespaces, mounts, ids and control
//! group, made anew and read back. It's given to nobody but the owner it was made for, with the same spec to the byte and
//! the same workspace by inode and mount, once, and not when it's older than [`SPARE_AGE`]. What must be guarded and has
//! come to be since is found by the worker itself, which then ends ([`FromWorker::Stale`]).
//!
//! [`FromWorker::Stale`]: crate::messages::FromWorker::Stale

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, StatxFlags};
use rustix::process::{Pid, Signal};
use stockade_protocol::bounds::MAX_PARKED;
use stockade_protocol::confinement::{Plan, Warmth};
use stockade_protocol::launch::{MAX_MADE, Made};
use stockade_protocol::outcome::SetupStage;
use stockade_protocol::spec::SandboxSpec;
use stockade_wire::channel::{Channel, ChannelError};

use super::bank::{ALL_SLOTS, Bank};
use super::outbox::Outbox;
use super::{FIRST_TEMPLATE, spawn};
use crate::failure::{At, Staged, failed};
use crate::messages::{Prepare, ToTemplate};
use crate::poller::Poller;
use crate::stages::network::Slot;

/// The most templates; the one that was used least lately makes room.
const TEMPLATES: usize = 32;
/// How long a template stays without a run. Meanwhile it holds the workspace's directory open.
const IDLE: Duration = Duration::from_secs(10);
/// How long a template that was let go may take to end: one that is stopped wouldn't, and whoever waits for a worker of its
/// would wait for ever.
const LEAVING: Duration = Duration::from_secs(5);
/// How old a spare may be when it's given out: what a policy names and wasn't there then isn't there for it.
const SPARE_AGE: Duration = Duration::from_secs(10);
/// The most spares of all templates.
const ALL_SPARES: usize = 64;
/// How long after one couldn't be made the next is tried: what the host renames while one is made makes that one fail.
const REST: Duration = Duration::from_millis(100);
/// How long making one takes, generously: so much demand is met from spares.
const MAKING: Duration = Duration::from_millis(6);
/// The weight of the newest interval between two runs in their mean.
const NEWEST: f64 = 0.2;

/// Which directory a workspace is: device, inode and mount. The template holds it open, so none of them is another's
/// meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: (u32, u32),
    inode: u64,
    mount: u64,
}

impl Identity {
    /// Of an open directory. Its filesystem, which may be dead, is asked nothing.
    pub(crate) fn of(workspace: &OwnedFd) -> io::Result<Self> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
        let found = rustix::fs::statx(workspace, "", flags, wanted)?;
        if !StatxFlags::from_bits_retain(found.stx_mask).contains(wanted) {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        let device = (found.stx_dev_major, found.stx_dev_minor);
        Ok(Self { device, inode: found.stx_ino, mount: found.stx_mnt_id })
    }
}

/// One template.
#[derive(Debug)]
pub(crate) struct Template {
    /// Its process.
    pub(crate) pid: Pid,
    /// What tells it from others of this launcher.
    pub(crate) number: u64,
    /// What it's asked to make.
    orders: Outbox,
    prepare: Prepare,
    identity: Option<Identity>,
    /// Whether the output of its last run was relayed: then that of the next will be.
    pub(crate) relayed: bool,
    /// Network namespaces of its ended runs.
    bank: Bank,
    /// Runs that wait for their command, the oldest first.
    spares: VecDeque<(u64, Instant)>,
    /// Making a spare failed not long ago.
    rests_until: Option<Instant>,
    used: Instant,
    /// The mean interval between its runs, in seconds.
    interval: f64,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Templates {
    all: Vec<Template>,
    /// The most spares of one of them.
    most: usize,
    /// Those that were let go and have not ended, and when they are killed.
    leaving: Vec<(Pid, Instant)>,
    next: u64,
    warmth: Warmth,
    /// What making each worker took since that was last told.
    made: Vec<Made>,
}

impl Template {
    /// Gives it an order, as soon as it can take it: more workers may be asked for at once than its channel takes.
    ///
    /// # Errors
    /// `Template`: it's gone.
    pub(crate) fn make(&mut self, order: &ToTemplate, beside: Vec<OwnedFd>, poller: &Poller) -> Staged<()> {
        self.orders
            .deliver(order, beside, poller)
            .map_err(|error| failed(SetupStage::Template, errno(&error), "channel"))
    }

    /// Hands over what has waited.
    pub(crate) fn order(&mut self, poller: &Poller) {
        drop(self.orders.flush(poller));
    }

    /// What its workers are made from.
    pub(crate) fn prepare(&self) -> &Prepare {
        &self.prepare
    }

    fn may_keep_spares(&self) -> bool {
        let rests = self.rests_until.is_some_and(|until| until > Instant::now());
        // A placeholder would lie on the host's disk for as long as a spare waits.
        let places = !(self.prepare.spec.deny.is_empty() && self.prepare.spec.deny_elsewhere.is_empty());
        // Without a descriptor nobody can tell whether the directory is still the same.
        let known = self.identity.is_some();
        !rests && known && !places && self.prepare.plan != Plan::Minimal
    }

    /// How many spares its demand asks for: those of the time that making one takes, and one.
    fn wanted(&self, most: usize) -> usize {
        if most == 0 || !self.may_keep_spares() {
            return 0;
        }
        let in_time = MAKING.as_secs_f64() / self.interval.max(1e-6);
        1 + (1..most).take_while(|count| (*count as f64) <= in_time).count()
    }
}

fn errno(error: &ChannelError) -> i32 {
    match error {
        ChannelError::Io(error) => error.raw_os_error().unwrap_or(libc::EIO),
        _ => libc::EPROTO,
    }
}

impl Templates {
    /// Allows so many spares of one template. Until then there are none.
    pub(crate) fn may_park(&mut self, most: u32) {
        self.most = usize::try_from(most.min(MAX_PARKED)).unwrap_or(0);
    }

    /// The one for these workers, started if there is none: `prepare`'s ids don't matter.
    ///
    /// # Errors
    /// `Template`.
    pub(crate) fn find(
        &mut self,
        prepare: &Prepare,
        workspace: Option<&OwnedFd>,
        poller: &Poller,
    ) -> Staged<u64> {
        let identity = workspace.and_then(|workspace| Identity::of(workspace).ok());
        let now = Instant::now();
        let fits = |template: &&mut Template| {
            template.identity == identity
                && (identity.is_some() || !prepare.workspace_passed)
                && is_same(&template.prepare, prepare)
        };
        if let Some(template) = self.all.iter_mut().find(fits) {
            let since = now.saturating_duration_since(template.used).as_secs_f64();
            template.interval = template.interval.min(IDLE.as_secs_f64()) * (1.0 - NEWEST) + since * NEWEST;
            template.used = now;
            return Ok(template.number);
        }
        let template = self.start(prepare, identity, (workspace, poller), now)?;
        let number = template.number;
        if self.all.len() >= TEMPLATES
            && let Some(at) = (0..self.all.len()).min_by_key(|at| self.all[*at].used)
        {
            // Its spares see the end of their channels when the launcher lets go of them: see `expired`.
            self.all[at].used = now.checked_sub(IDLE).unwrap_or(now);
        }
        self.all.push(template);
        Ok(number)
    }

    fn start(
        &mut self,
        prepare: &Prepare,
        identity: Option<Identity>,
        (workspace, poller): (Option<&OwnedFd>, &Poller),
        now: Instant,
    ) -> Staged<Template> {
        const STAGE: SetupStage = SetupStage::Template;
        let (pid, socket) = spawn::template().at(STAGE, "start")?;
        let channel = Channel::new(socket);
        rustix::io::ioctl_fionbio(&channel, true).at(STAGE, "channel")?;
        let workspace = workspace.map(OwnedFd::try_clone).transpose().at(STAGE, "workspace")?;
        self.next += 1;
        // It answers to nobody but its workers' channels.
        let orders = Outbox::silent(channel, FIRST_TEMPLATE + self.next);
        let (number, prepare, interval) = (self.next, prepare.clone(), IDLE.as_secs_f64());
        let spares = VecDeque::new();
        let mut template = Template {
            pid,
            number,
            orders,
            prepare,
            identity,
            relayed: false,
            bank: Bank::default(),
            spares,
            rests_until: None,
            used: now,
            interval,
        };
        let first = ToTemplate::Prepare(Box::new(template.prepare.clone()));
        template.make(&first, workspace.into_iter().collect(), poller)?;
        Ok(template)
    }

    /// A template by its number.
    pub(crate) fn get(&mut self, number: u64) -> Option<&mut Template> {
        self.all.iter_mut().find(|template| template.number == number)
    }

    /// The orders that wait for the templates' channels.
    pub(crate) fn orders(&mut self) -> impl Iterator<Item = &mut Outbox> {
        self.all.iter_mut().map(|template| &mut template.orders)
    }

    /// A network namespace for a template's next worker to use again.
    pub(crate) fn take_slot(&mut self, number: u64) -> Option<Slot> {
        self.bank(number)?.take()
    }

    /// Keeps the network namespace of a template's worker that is gone, if there is room for it.
    pub(crate) fn keep_slot(&mut self, number: u64, slot: Slot) {
        let there: usize = self.all.iter().map(|template| template.bank.len()).sum();
        if let Some(bank) = self.bank(number).filter(|_| there < ALL_SLOTS) {
            bank.keep(slot);
        }
    }

    fn bank(&mut self, number: u64) -> Option<&mut Bank> {
        self.all.iter_mut().find(|template| template.number == number).map(|template| &mut template.bank)
    }

    /// A spare of a template, the oldest that is young enough.
    pub(crate) fn take_spare(&mut self, number: u64) -> Option<u64> {
        let now = Instant::now();
        let template = self.all.iter_mut().find(|template| template.number == number)?;
        let at =
            template.spares.iter().position(|(_, made)| now.saturating_duration_since(*made) < SPARE_AGE);
        at.and_then(|at| template.spares.remove(at)).map(|(run, _)| run)
    }

    /// Counts a run that got a spare, or got none.
    pub(crate) fn count(&mut self, is_hit: bool) {
        if is_hit {
            self.warmth.hits += 1;
        } else {
            self.warmth.misses += 1;
        }
    }

    /// The template that wants another spare most, if one does.
    pub(crate) fn wanting(&self) -> Option<u64> {
        let there: usize = self.all.iter().map(|template| template.spares.len()).sum();
        if there >= ALL_SPARES {
            return None;
        }
        let lacks = |template: &&Template| template.wanted(self.most) > template.spares.len();
        self.all.iter().filter(lacks).max_by_key(|template| template.used).map(|template| template.number)
    }

    /// A run that was begun as a spare.
    pub(crate) fn add_spare(&mut self, number: u64, run: u64) {
        if let Some(template) = self.all.iter_mut().find(|template| template.number == number) {
            template.spares.push_back((run, Instant::now()));
        }
    }

    /// A run that ended, or will be given to nobody.
    pub(crate) fn forget_spare(&mut self, run: u64) {
        for template in &mut self.all {
            template.spares.retain(|(spare, _)| *spare != run);
        }
    }

    /// Lets templates go that nobody has used for long; gives the spares that nobody will use.
    pub(crate) fn expired(&mut self, now: Instant) -> Vec<u64> {
        let mut old = Vec::new();
        for (pid, until) in &mut self.leaving {
            if *until <= now {
                // Our own child, and not reaped yet: the pid is still its.
                let _ = rustix::process::kill_process(*pid, Signal::KILL);
                *until = now + LEAVING;
            }
        }
        let leaving = &mut self.leaving;
        self.all.retain_mut(|template| {
            let idle = now.saturating_duration_since(template.used) >= IDLE;
            template.spares.retain(|(run, made)| {
                let keep = !idle && now.saturating_duration_since(*made) < SPARE_AGE;
                if !keep {
                    old.push(*run);
                }
                keep
            });
            if idle {
                // It sees the end of its channel, and ends.
                leaving.push((template.pid, now + LEAVING));
            }
            !idle
        });
        old
    }

    /// Whether there is a spare, or a network namespace for one.
    pub(crate) fn has_spares(&self) -> bool {
        self.all.iter().any(|template| !template.spares.is_empty() || template.bank.len() > 0)
    }

    /// Lets go of everything that is kept for runs that nobody has asked for; gives the spares.
    pub(crate) fn shed(&mut self) -> Vec<u64> {
        self.all.iter_mut().for_each(|template| template.bank = Bank::default());
        self.all.iter_mut().flat_map(|template| template.spares.drain(..)).map(|(run, _)| run).collect()
    }

    /// When the next one expires.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let spares = self.all.iter().flat_map(|template| &template.spares).map(|(_, made)| *made + SPARE_AGE);
        let leaving = self.leaving.iter().map(|(_, until)| *until);
        let orders = self.all.iter().filter_map(|template| template.orders.retry_at());
        self.all.iter().map(|template| template.used + IDLE).chain(spares).chain(leaving).chain(orders).min()
    }

    /// A process that died: if it was a template, it makes no more workers. Gives its spares.
    pub(crate) fn died(&mut self, pid: Pid) -> Vec<u64> {
        self.leaving.retain(|(leaving, _)| *leaving != pid);
        let Some(at) = self.all.iter().position(|template| template.pid == pid) else { return Vec::new() };
        self.all.swap_remove(at).spares.into_iter().map(|(run, _)| run).collect()
    }

    /// A template whose spares can't be made keeps none for a while.
    pub(crate) fn give_up(&mut self, number: u64) {
        if let Some(template) = self.all.iter_mut().find(|template| template.number == number) {
            template.rests_until = Some(Instant::now() + REST);
        }
    }

    /// Ends a template that doesn't answer.
    pub(crate) fn kill(&mut self, number: u64) {
        if let Some(template) = self.get(number) {
            // Our own child, and not reaped yet: the pid is still its.
            let _ = rustix::process::kill_process(template.pid, Signal::KILL);
        }
    }

    /// Lets all go.
    pub(crate) fn clear(&mut self) {
        self.all.clear();
    }

    /// A spare was read back; it took so long to make.
    pub(crate) fn parked(&mut self, took: Duration) {
        self.warmth.refill_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    }

    /// A worker was made. What can't be told soon is let go.
    pub(crate) fn made(&mut self, made: Option<Made>) {
        self.made.extend(made.filter(|_| self.made.len() < MAX_MADE));
    }

    /// What making workers took since the last time.
    pub(crate) fn take_made(&mut self) -> Vec<Made> {
        core::mem::take(&mut self.made)
    }

    /// Whether there is any such.
    pub(crate) fn has_made(&self) -> bool {
        !self.made.is_empty()
    }

    /// What they did so far.
    pub(crate) fn warmth(&self) -> Warmth {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let parked = self.all.iter().map(|template| template.spares.len()).sum();
        Warmth { templates: count(self.all.len()), parked: count(parked), ..self.warmth }
    }
}

/// Whether two are the same but for their ids.
fn is_same(one: &Prepare, other: &Prepare) -> bool {
    // What differs most often comes first.
    one.workspace == other.workspace
        && one.owner == other.owner
        && one.plan == other.plan
        && one.idmap == other.idmap
        && one.workspace_passed == other.workspace_passed
        && one.home == other.home
        && is_same_spec(&one.spec, &other.spec)
}

/// To the byte. Runs of one number share their spec; one that was told again has another number.
fn is_same_spec(one: &Arc<SandboxSpec>, other: &Arc<SandboxSpec>) -> bool {
    Arc::ptr_eq(one, other) || (one.digest == other.digest && one == other)
}
