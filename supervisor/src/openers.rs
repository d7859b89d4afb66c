//! Directories that clients name by a path, opened as those clients: what a door without descriptors has in place of one.
//!
//! A launcher starts openers, processes with a client's uid, gid and groups, and each answers us on a socket of its own. So a
//! path costs its client's requests a question and an answer, the loop waits for nothing, and from there on the request is one
//! that has passed the directory: the same spare workers, the same approvals.
//!
//! ```text
//! path ──> an opener of his that is idle ──> asked ──> the directory, or why not
//!      ├── none: another is started             ├── its socket ends: another is asked
//!      └── all that he may have are busy: waits └── no answer in time: given up, and its client told so
//! ```
//!
//! A mount that doesn't answer hangs one opener, and its user's: he has [`MAX_OPENERS_OF_ONE`] of them. Who asks gets his answer
//! within [`WITHIN`] or is told that there is none. A directory is never kept for a second request: whether its path still leads
//! there, and whether he still may open it, only the next question tells.

use core::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use stockade_protocol::Bytes;
use stockade_protocol::bounds::{MAX_OPENERS, MAX_OPENERS_OF_ONE};
use stockade_protocol::launch::{FromOpener, Owner, ToLauncher, ToOpener};
use stockade_protocol::outcome::{SetupFailure, SetupStage};
use stockade_wire::channel::{Packed, unpack};
use stockade_wire::socket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use crate::aside::Foreign;
use crate::daemon::Daemon;
use crate::dispatcher::LauncherId;
use crate::watched::Watched;

/// How long a directory may take to be opened, its opener's start included.
const WITHIN: Duration = Duration::from_secs(5);
/// How long an opener stays without a question, and how often that is looked at.
const IDLE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_secs(10);
/// How often it's looked whether there is a launcher again.
const NO_LAUNCHER: Duration = Duration::from_millis(20);
/// How often another is started in place of one that was never there, and the pause before the first, which doubles.
const IN_VAIN: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Bytes of an answer.
const ANSWER: usize = 64;
/// What failures name where there is no opener.
const SUBJECT: &str = "opener";

/// How an opener is started in place of a launcher's: it has this end of its socket.
pub(crate) type Start = fn(OwnedFd);

/// For whom paths are opened, and what shows launchers that he asks.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) owner: Owner,
    pub(crate) proof: Option<Rc<OwnedFd>>,
}

/// An opener: our end of its socket.
#[derive(Debug)]
struct Opener {
    socket: Watched,
    /// Whose child it is, and so whose mounts it sees.
    launcher: Option<LauncherId>,
    /// When it became idle.
    since: Instant,
}

/// Those of one user.
#[derive(Debug)]
struct Own {
    /// Each with the ids that it has.
    idle: Vec<(Owner, Opener)>,
    busy: usize,
    /// Who holds one of these may ask.
    turns: Arc<Semaphore>,
}

impl Default for Own {
    fn default() -> Self {
        Self { idle: Vec::new(), busy: 0, turns: Arc::new(Semaphore::new(MAX_OPENERS_OF_ONE)) }
    }
}

impl Own {
    /// Forgets those that have been idle for long. Whether there is anything left, or anybody who waits.
    fn sweep(&mut self, now: Instant) -> bool {
        self.idle.retain(|(_, opener)| now.duration_since(opener.since) < IDLE);
        !self.idle.is_empty() || self.busy > 0 || Arc::strong_count(&self.turns) > 1
    }
}

/// All openers.
#[derive(Debug, Default)]
pub(crate) struct Openers {
    own: RefCell<HashMap<u32, Own>>,
    /// Whether somebody looks after those that are idle.
    swept: Cell<bool>,
}

/// One that is asked. Dropped before its answer has come it's given up: nobody else may take that answer for his.
struct Asked<'a> {
    openers: &'a Openers,
    owner: &'a Owner,
    opener: Option<Opener>,
    /// Whether it was started for this question.
    is_new: bool,
    _turn: OwnedSemaphorePermit,
}

impl Asked<'_> {
    /// It has answered, and others may ask it.
    fn keep(mut self, daemon: &Rc<Daemon>) {
        let Some(mut opener) = self.opener.take() else { return };
        opener.since = Instant::now();
        if let Some(own) = self.openers.own.borrow_mut().get_mut(&self.owner.uid) {
            own.idle.push((self.owner.clone(), opener));
        }
        self.openers.look_after(daemon);
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(own) = self.openers.own.borrow_mut().get_mut(&self.owner.uid) {
            own.busy -= 1;
        }
    }
}

impl Openers {
    /// A turn, and an opener of these ids: one that is idle, or `None` where one is to be started.
    async fn find<'a>(&'a self, owner: &'a Owner, launcher: Option<LauncherId>) -> Result<Asked<'a>, Errno> {
        let turns = Arc::clone(&self.own.borrow_mut().entry(owner.uid).or_default().turns);
        let turn = turns.acquire_owned().await.map_err(|_closed| Errno::AGAIN)?;
        let mut all = self.own.borrow_mut();
        let own = all.entry(owner.uid).or_default();
        // Another launcher's sees other mounts, perhaps.
        own.idle.retain(|(_, opener)| opener.launcher == launcher);
        let found = own.idle.iter().position(|(ids, _)| ids == owner);
        let opener = found.map(|at| own.idle.swap_remove(at).1);
        let is_new = opener.is_none();
        if is_new {
            make_room(&mut all, owner.uid)?;
        }
        all.entry(owner.uid).or_default().busy += 1;
        Ok(Asked { openers: self, owner, opener, is_new, _turn: turn })
    }

    /// Has idle ones end in time, as long as there are any.
    fn look_after(&self, daemon: &Rc<Daemon>) {
        if self.swept.replace(true) {
            return;
        }
        let daemon = Rc::downgrade(daemon);
        spawn_local(async move {
            loop {
                sleep(LOOK).await;
                let Some(daemon) = Weak::upgrade(&daemon) else { return };
                let mut own = daemon.openers.own.borrow_mut();
                let now = Instant::now();
                own.retain(|_, own| own.sweep(now));
                if own.is_empty() {
                    daemon.openers.swept.set(false);
                    return;
                }
            }
        });
    }
}

/// Has the one that was idle longest make room, where there may be no more: first of the same user.
fn make_room(all: &mut HashMap<u32, Own>, uid: u32) -> Result<(), Errno> {
    let own = all.entry(uid).or_default();
    // Who holds a turn is one of so many that may be busy.
    if own.idle.len() + own.busy >= MAX_OPENERS_OF_ONE && !own.idle.is_empty() {
        own.idle.remove(0);
    }
    if all.values().map(|own| own.idle.len() + own.busy).sum::<usize>() < MAX_OPENERS {
        return Ok(());
    }
    let idle = all.values_mut().filter(|own| !own.idle.is_empty());
    let oldest = |own: &&mut Own| own.idle.iter().map(|(_, opener)| opener.since).min();
    idle.min_by_key(oldest).map(|own| drop(own.idle.remove(0))).ok_or(Errno::AGAIN)
}

/// Why an opener gave no answer.
enum Unanswered {
    /// It has ended.
    Gone,
    /// It isn't to be asked again for that.
    Failed(Errno),
}

impl From<io::Error> for Unanswered {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(errno @ (Errno::MFILE | Errno::NFILE | Errno::TOOMANYREFS)) => Self::Failed(errno),
            _ => Self::Gone,
        }
    }
}

impl Daemon {
    /// Opens a directory as a client. Waits, but never for longer than [`WITHIN`].
    ///
    /// # Errors
    /// It can't be opened, or not in time.
    pub(crate) async fn open_as(
        self: &Rc<Self>,
        client: &Client,
        path: &Bytes,
    ) -> Result<Foreign, SetupFailure> {
        let failed = |errno: Errno, subject: Bytes| {
            Err(SetupFailure { stage: SetupStage::Open, errno: errno.raw_os_error(), subject })
        };
        match timeout(WITHIN, self.ask_openers(client, path)).await {
            Ok(Ok(Ok(directory))) => Ok(directory),
            Ok(Ok(Err(errno))) => failed(errno, path.clone()),
            Ok(Err(errno)) => failed(errno, SUBJECT.into()),
            Err(_elapsed) => failed(Errno::TIMEDOUT, path.clone()),
        }
    }

    /// What an opener says; as error why none says anything.
    async fn ask_openers(
        self: &Rc<Self>,
        client: &Client,
        path: &Bytes,
    ) -> Result<Result<Foreign, Errno>, Errno> {
        let question = Packed::new(&ToOpener::Open { path: path.clone() }).map_err(|_| Errno::INVAL)?;
        let mut pauses = (0..IN_VAIN).map(|time| FIRST_PAUSE * 2_u32.pow(time));
        loop {
            let launcher = self.state.borrow().links.current();
            if launcher.is_none() && self.settings.opener.is_none() {
                sleep(NO_LAUNCHER).await;
                continue;
            }
            let mut asked = self.openers.find(&client.owner, launcher).await?;
            let opener = match asked.opener.take() {
                Some(opener) => opener,
                None => self.start_opener(client, launcher)?,
            };
            let answer = answer_of(asked.opener.insert(opener), &question).await;
            match answer {
                Ok(answer) => {
                    asked.keep(self);
                    let directory = match answer {
                        Ok(directory) => self.aside.hold(Some(client.owner.uid), directory),
                        Err(errno) => return Ok(Err(errno)),
                    };
                    let is_full = directory.get().is_ok_and(|it| self.state.borrow().is_too_full_for(it));
                    return if is_full { Err(Errno::MFILE) } else { Ok(Ok(directory)) };
                }
                Err(Unanswered::Failed(errno)) => return Err(errno),
                // Launchers close the socket of one that they don't start; or this one has died, and we aren't told yet.
                Err(Unanswered::Gone) if asked.is_new => {
                    drop(asked);
                    let pause = pauses.next().ok_or(Errno::AGAIN)?;
                    sleep(pause).await;
                }
                Err(Unanswered::Gone) => {}
            }
        }
    }

    fn start_opener(&self, client: &Client, launcher: Option<LauncherId>) -> Result<Opener, Errno> {
        let failed = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN);
        let (ours, theirs) = socket::seqpacket_pair().map_err(failed)?;
        let mut state = self.state.borrow_mut();
        if state.is_too_full_for(&theirs) {
            return Err(Errno::MFILE);
        }
        if let Some(start) = self.settings.opener {
            start(theirs);
        } else {
            let proof = client.proof.as_deref().map(OwnedFd::try_clone).transpose().map_err(failed)?;
            let message = ToLauncher::Opener { owner: client.owner.clone(), proved: proof.is_some() };
            let beside = [theirs].into_iter().chain(proof).collect();
            let link = launcher.and_then(|launcher| state.links.get_mut(launcher)).ok_or(Errno::AGAIN)?;
            link.send(&message, beside).map_err(|_unsent| Errno::AGAIN)?;
        }
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok(Opener { socket: Watched::new(ours).map_err(failed)?, launcher, since: Instant::now() })
    }
}

/// Asks, and waits for the answer.
async fn answer_of(opener: &Opener, question: &Packed) -> Result<Result<OwnedFd, Errno>, Unanswered> {
    // There is room: nothing else is on its way.
    question.send(opener.socket.get_ref(), &[]).map_err(|_unsent| Unanswered::Gone)?;
    let mut buffer = [0; ANSWER];
    let received = loop {
        let mut guard = opener.socket.readable().await?;
        let receive =
            |socket: &tokio::io::unix::AsyncFd<OwnedFd>| socket::receive(socket.as_fd(), &mut buffer);
        if let Ok(received) = guard.try_io(receive) {
            break received?;
        }
    };
    let (answer, mut beside) =
        unpack(&buffer[..received.length], received.descriptors).map_err(|_strange| Unanswered::Gone)?;
    match (answer, beside.pop()) {
        (FromOpener::Opened, Some(directory)) if !received.truncated => Ok(Ok(directory)),
        (FromOpener::Opened, _) => Err(Unanswered::Failed(Errno::MFILE)),
        (FromOpener::Failed { errno }, _) => Ok(Err(Errno::from_raw_os_error(errno))),
        _ => Err(Unanswered::Gone),
    }
}
