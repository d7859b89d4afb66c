//! What the launcher and one worker say to each other, over the worker's own `SOCK_SEQPACKET` channel, and to a template over its. Both ends
//! are the same build, so these types are not frozen.
//!
//! ```text
//! launcher ── Prepare, once; Make, each worker ──> template ── clones it
//! worker ── Cloned(pidfd), by its template; Rooted, Filtered, Parked ──> launcher, who reads back
//! launcher ── Own, if it waits for a command ──> worker
//! launcher ── Start ──> worker ── Running, if the tool goes on for a while; or Stale ──> launcher
//! launcher ── Signal ──> worker ── Ended ──> launcher;  Failed at any point before the tool runs
//! ```

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::event::Timespec;
use serde::{Deserialize, Serialize};
use stockade_protocol::Bytes;
use stockade_protocol::confinement::Plan;
use stockade_protocol::launch::{Opening, Owner};
use stockade_protocol::outcome::{SetupFailure, SetupStage};
use stockade_protocol::spec::SandboxSpec;
use stockade_wire::channel::{Channel, ChannelError};

use crate::failure::{At, Staged};
use crate::laps::LAPS;
use crate::stages::identity::IdMap;

/// To a template.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum ToTemplate {
    /// What all its workers are made from; comes first. Beside it: the workspace, if it was passed.
    Prepare(Box<Prepare>),
    /// Make a worker. Beside it: the worker's end of its channel, the network namespace that it may use again, and its control
    /// group, if it has one.
    Make {
        /// Who it is.
        ids: Ids,
        /// Whether there is a network namespace.
        network: bool,
    },
}

/// To a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum ToWorker<'a> {
    /// Its standard descriptors where none will be passed; beside it those that it says. To a spare, once.
    Own([bool; 3]),
    /// Start this tool. Beside it those of its standard descriptors that it says, in place of its own.
    Start(Cow<'a, Command>, [bool; 3]),
    /// Start the tool that it was born with (embedded).
    Go,
    /// A signal for the tool's process group.
    Signal(u8),
}

/// Standard input, output and error, as far as they are there.
#[derive(Debug, Default)]
pub(crate) struct Standard(pub(crate) [Option<OwnedFd>; 3]);

impl Standard {
    /// Those that came beside a message which says that these are there. `None`: others did.
    pub(crate) fn beside(which: [bool; 3], descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut came = descriptors.into_iter();
        let standard = which.map(|is_there| if is_there { came.next() } else { None });
        let whole = standard.each_ref().map(Option::is_some) == which && came.next().is_none();
        whole.then_some(Self(standard))
    }

    /// These, and where one isn't there, the other's.
    pub(crate) fn or<'a>(&'a self, other: &'a Self) -> [Option<BorrowedFd<'a>>; 3] {
        let [a, b, c] = &self.0;
        let [x, y, z] = &other.0;
        [(a, x), (b, y), (c, z)].map(|(one, other)| one.as_ref().or(other.as_ref()).map(|fd| fd.as_fd()))
    }

    /// All three, if they are there, of these and the other's.
    pub(crate) fn all(self, other: Self) -> Option<[OwnedFd; 3]> {
        let ([a, b, c], [x, y, z]) = (self.0, other.0);
        Some([a.or(x)?, b.or(y)?, c.or(z)?])
    }
}

/// To a sweeper, which removes placeholders as the owner. Ends with its channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sweep {
    /// As whom.
    pub(crate) owner: Owner,
    /// Placeholders; their locks are beside this.
    pub(crate) held: Vec<Bytes>,
    /// Directories made above them, topmost first; in the last message only.
    pub(crate) made: Vec<Bytes>,
}

/// Everything that a worker needs until it's parked: the same for every run of one owner, policy and workspace, but for
/// its ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Prepare {
    /// What holds.
    pub(crate) spec: Arc<SandboxSpec>,
    /// Whose run it is.
    pub(crate) owner: Owner,
    /// The owner's home directory.
    pub(crate) home: Bytes,
    /// The workspace's path.
    pub(crate) workspace: Bytes,
    /// Whether the workspace was passed as a descriptor.
    pub(crate) workspace_passed: bool,
    /// Which spawn plan.
    pub(crate) plan: Plan,
    /// Whether writable binds must be idmapped from the owner's ids to the run's.
    pub(crate) idmap: bool,
    /// Who the run is.
    pub(crate) ids: Ids,
}

/// Who a run is, outside and inside of its user namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ids {
    /// Host uid of the run.
    pub(crate) host_uid: u32,
    /// Host gid of the run.
    pub(crate) host_gid: u32,
    /// The user id it has inside.
    pub(crate) inside_uid: u32,
    /// The group id it has inside.
    pub(crate) inside_gid: u32,
}

/// What a parked worker is told to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Command {
    /// The program and its arguments.
    pub(crate) argv: Vec<Bytes>,
    /// Its whole environment.
    pub(crate) environment: Vec<(Bytes, Bytes)>,
    /// Its working directory.
    pub(crate) cwd: Bytes,
    /// What it finds open, below the workspace at this path.
    pub(crate) openings: Vec<Opening>,
    pub(crate) workspace: Bytes,
}

impl Prepare {
    /// The ids of the run's user namespace.
    pub(crate) fn run_map(&self) -> IdMap {
        let ids = self.ids;
        let inside = (ids.inside_uid, ids.inside_gid);
        let outside = if self.plan == Plan::User { inside } else { (ids.host_uid, ids.host_gid) };
        IdMap { inside, outside }
    }

    /// The home directory as paths of a spec are written, so that it can be compared with them by bytes.
    pub(crate) fn normalised_home(&self) -> Bytes {
        Bytes::from(self.home.as_path().components().collect::<PathBuf>())
    }

    /// What an idmapped bind maps: the owner's ids to the run's.
    pub(crate) fn owner_map(&self) -> IdMap {
        let inside = (self.owner.uid, self.owner.gid);
        IdMap { inside, outside: (self.ids.host_uid, self.ids.host_gid) }
    }
}

/// From a template or an init.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum FromWorker {
    /// Placeholders were placed; a lock for each of `held` is beside it. Before `Cloned`, in pieces.
    Placed {
        /// The placeholders.
        held: Vec<Bytes>,
        /// Directories made above them, topmost first.
        made: Vec<Bytes>,
    },
    /// The init exists; its pidfd is beside this.
    Cloned {
        /// Process id as the launcher sees it.
        pid: i32,
    },
    /// All mounts are made, and no other will be.
    Rooted,
    /// Of a worker that its run waits for: its filters are on, and nothing that can be read back of it will change any more.
    Filtered {
        /// How many filters.
        installed: u32,
    },
    /// Everything is locked and waits. Beside it: the run's `/proc`, then its tmpfs mounts (namespaces only).
    Parked(Box<Parked>),
    /// What must be guarded has come to be since it was parked: no tool was started, and the worker ends.
    Stale,
    /// The tool was started so long ago, in microseconds, and goes on. Not said of one that has ended by then.
    Running(u64),
    /// A stage failed; no tool was started.
    Failed(SetupFailure),
    /// The tool was started, has ended, and nothing of the run is left but init.
    Ended(Box<Ended>),
}

/// How often a message is tried that isn't taken just now: too many descriptors may be on their way in sockets, of which a run of
/// many open files may send few, and its user's other runs count.
const TRIES: usize = 1000;
/// The pause before it's tried again.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// Sends a message over a blocking channel, and waits where it isn't taken just now.
///
/// # Errors
/// The other end has gone, or what it was; `ETOOMANYREFS` if too many descriptors stay on their way.
pub(crate) fn send<T: Serialize>(
    channel: &Channel,
    message: &T,
    beside: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut sent = channel.send(message, beside);
    for _ in 0..TRIES {
        if !sent.as_ref().is_err_and(ChannelError::will_pass) {
            break;
        }
        let _ = rustix::event::poll(&mut [], Some(&PAUSE));
        sent = channel.send(message, beside);
    }
    sent.map_err(|error| match error {
        ChannelError::Io(error) => error,
        _ => io::Error::from_raw_os_error(libc::EPROTO),
    })
}

/// Says something with descriptors beside it.
///
/// # Errors
/// `Template`: as [`send`].
pub(crate) fn say(channel: &Channel, message: &FromWorker, beside: &[BorrowedFd<'_>]) -> Staged<()> {
    send(channel, message, beside).at(SetupStage::Template, "channel")
}

/// What a parked worker says of itself. Compared with what the kernel says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Parked {
    /// Binds whose source doesn't exist.
    pub(crate) absent: Vec<Bytes>,
    /// Paths that carry a mask (denied or protected), as the run sees them.
    pub(crate) guarded: Vec<Bytes>,
    /// The Landlock ABI in force, 0 if none.
    pub(crate) landlock_abi: u8,
    /// How many Landlock rules.
    pub(crate) landlock_rules: u32,
    /// How many filters the tool will have: base and delta.
    pub(crate) filters: u32,
    /// How many of them are installed already.
    pub(crate) filters_installed: u32,
    /// How many tmpfs descriptors follow the `/proc` descriptor.
    pub(crate) tmpfs: u32,
    /// What its stages took, in nanoseconds, if it was measured.
    pub(crate) took_ns: Option<[u32; LAPS]>,
}

/// How the tool ended.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// Raw wait status.
    pub(crate) status: i32,
    /// From the tool's start to its end, in microseconds.
    pub(crate) wall_us: u64,
    /// What every process of the run used, but init.
    pub(crate) used: Used,
    /// Protected names that came into being.
    pub(crate) trusted_files: Vec<Bytes>,
}

/// Numbers of `struct rusage`.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Used {
    /// Processor time in user mode, in microseconds.
    pub(crate) user_us: u64,
    /// Processor time in kernel mode, in microseconds.
    pub(crate) system_us: u64,
    /// Resident memory of the largest process, in bytes.
    pub(crate) largest: u64,
    /// Voluntary context switches.
    pub(crate) voluntary: u64,
    /// Involuntary context switches.
    pub(crate) involuntary: u64,
}

impl Used {
    /// Counts another child in, with what it has waited for itself.
    pub(crate) fn add(&mut self, other: Self) {
        self.user_us += other.user_us;
        self.system_us += other.system_us;
        self.largest = self.largest.max(other.largest);
        self.voluntary += other.voluntary;
        self.involuntary += other.involuntary;
    }
}

impl From<&libc::rusage> for Used {
    fn from(usage: &libc::rusage) -> Self {
        let count = |value: i64| u64::try_from(value).unwrap_or(0);
        let micros = |time: libc::timeval| count(time.tv_sec) * 1_000_000 + count(time.tv_usec);
        Self {
            user_us: micros(usage.ru_utime),
            system_us: micros(usage.ru_stime),
            largest: count(usage.ru_maxrss) * 1024,
            voluntary: count(usage.ru_nvcsw),
            involuntary: count(usage.ru_nivcsw),
        }
    }
}
