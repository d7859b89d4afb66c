//! Grants in the daemon: what is on disk of them, who waits for that, and the runs that end with them.
//!
//! ```text
//! grant add ──> the record ──durable──> the file's thread ──durable──> held ([`stockade_gate::grants`]), answered
//! a run is let through ───> one use fewer ──> the file's thread ──durable──> to the record, and to the dispatcher
//!     └── uses aren't counted: at once                 └── not in time, or not at all: refused, the use is given back
//! nothing came of a run ──> one use more, written when it can be
//! ```
//!
//! What is taken is on disk before anything runs, and what is given back is there afterwards: a daemon that is killed in between has
//! lost a use, and never given one twice. A grant that is taken away holds no more at once, and is answered when it's gone from the disk.
//!
//! The file is made with the first grant; without one there is no file and no thread. Where it can't be used at the start there are no
//! grants, and the daemon serves without.

pub(crate) mod clocks;
mod store;
mod writer;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use stockade_gate::grants::{Change, Grant, GrantId, Requests};
use stockade_protocol::ExecId;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};
use tokio::time::{sleep, timeout};

use crate::admission::chain;
use crate::daemon::Daemon;
use crate::daemon::redeeming::Redeeming;
use crate::dispatcher::ConnectionId;
use crate::paths::Scope;
use crate::record::{Most, WITHIN};
use crate::watched::watch;
pub use store::GrantsError;
use writer::Writer;

/// How often it's looked whether the disk has answered.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Something to be on disk.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    /// A grant.
    Put(Box<Grant>),
    /// So many uses are left of it.
    Left(GrantId, u32),
    /// It isn't any more.
    Drop(GrantId),
}

impl From<Change> for Write {
    fn from(change: Change) -> Self {
        match change {
            Change::Left(id, count) => Self::Left(id, count),
            Change::Drop(id) => Self::Drop(id),
        }
    }
}

impl Write {
    /// Of which grant.
    fn id(&self) -> GrantId {
        match self {
            Self::Put(grant) => grant.id,
            Self::Left(id, _) | Self::Drop(id) => *id,
        }
    }

    /// What is to be written yet if this couldn't be.
    fn undone(&self) -> Option<Self> {
        match self {
            Self::Put(grant) => Some(Self::Drop(grant.id)),
            Self::Left(..) => None,
            Self::Drop(id) => Some(Self::Drop(*id)),
        }
    }
}

/// What the file's thread says.
#[derive(Debug)]
pub(crate) enum Told {
    /// Of a run that was let through.
    Redeemed(ExecId, Result<(), String>),
    /// Of a grant that is to hold: whether it's recorded.
    Recorded(GrantId, Result<(), String>),
    /// The same: whether it's on disk.
    Made(GrantId, Result<(), String>),
    /// Of one that holds no more.
    Gone(GrantId, Result<(), String>),
    /// There is something to wait for, which was not so before.
    Waits,
}

/// A grant that isn't on disk yet.
#[derive(Debug)]
pub(crate) struct Making {
    pub(crate) grant: Grant,
    /// The request that it answers.
    pub(crate) request: Option<GrantId>,
    pub(crate) connection: ConnectionId,
    pub(crate) principal: stockade_audit::Principal,
    /// Whether it has been handed over to be written: before that it stands in the record, or is on its way there.
    pub(crate) is_handed: bool,
    pub(crate) since: Instant,
}

/// A grant that is on disk still.
#[derive(Debug)]
pub(crate) struct Going {
    pub(crate) connection: ConnectionId,
    /// What it's called by who takes it away: its own name, or that of the request that it answers.
    pub(crate) named: GrantId,
    pub(crate) runs: u32,
    pub(crate) since: Instant,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Grants {
    directory: PathBuf,
    /// Why there are none and can be none.
    broken: Option<String>,
    writer: Option<Writer>,
    teller: mpsc::UnboundedSender<Told>,
    pub(crate) requests: Requests,
    pub(crate) making: HashMap<GrantId, Making>,
    pub(crate) going: HashMap<GrantId, Going>,
    /// Runs whose use isn't on disk yet.
    pub(crate) redeeming: HashMap<ExecId, Redeeming>,
    pub(crate) most: Most,
    /// Runs that end with their grants.
    pub(crate) depending: HashMap<ExecId, GrantId>,
    timer: Option<Rc<AsyncFd<OwnedFd>>>,
}

/// What an earlier daemon has left.
#[derive(Debug)]
pub(crate) struct Opened {
    grants: Grants,
    told: mpsc::UnboundedReceiver<Told>,
    held: Vec<Grant>,
    over: Vec<Grant>,
    aside: Option<PathBuf>,
}

#[cfg(test)]
impl Opened {
    /// Those that hold.
    pub(crate) fn held(&self) -> &[Grant] {
        &self.held
    }
}

/// Reads what an earlier daemon has written.
///
/// # Errors
/// A newer daemon has.
pub(crate) fn open(state: &Path, scope: Scope) -> Result<Opened, GrantsError> {
    let (mut found, mut broken) = (store::Found::default(), None);
    match store::open(state, &clocks::boot(), clocks::now()) {
        Ok(read) => found = read,
        Err(newer @ GrantsError::Newer { .. }) => return Err(newer),
        Err(error) => {
            let why = chain(&error);
            tracing::error!(why, "grants can't be read: none holds, and none is taken until a restart");
            broken = Some(why);
        }
    }
    if let Some((path, why)) = &found.aside {
        tracing::error!(path = %path.display(), why, "the grants are damaged and set aside: none of them holds");
    }
    if !found.over.is_empty() {
        tracing::info!(count = found.over.len(), "grants were over when the daemon began");
    }
    if let Some((_, why)) = &found.owed {
        tracing::error!(why, "what is left of grants can't be written: they hold, and it's tried again");
    }
    let (teller, told) = mpsc::unbounded_channel();
    let owed = found.owed.map_or_else(Vec::new, |(owed, _)| owed);
    let writer = found.store.map(|store| Writer::start(state.to_owned(), Some(store), owed));
    let writer = writer.transpose().unwrap_or_else(|error| {
        tracing::error!(%error, "there can be no grants: no thread can be started");
        broken = Some(error.to_string());
        found.grants.clear();
        None
    });
    let grants = Grants {
        directory: state.to_owned(),
        broken,
        writer,
        teller,
        requests: Requests::default(),
        making: HashMap::new(),
        going: HashMap::new(),
        redeeming: HashMap::new(),
        most: Most::of(scope),
        depending: HashMap::new(),
        timer: None,
    };
    Ok(Opened {
        grants,
        told,
        held: found.grants,
        over: found.over,
        aside: found.aside.map(|(path, _)| path),
    })
}

impl Grants {
    /// Whether something can be written, as far as anybody knows: the thread is started for the first.
    ///
    /// # Errors
    /// It can't; why.
    pub(crate) fn is_usable(&mut self) -> Result<(), String> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        if self.writer.is_none() {
            self.writer = Some(
                Writer::start(self.directory.clone(), None, Vec::new()).map_err(|error| error.to_string())?,
            );
        }
        Ok(())
    }

    /// Whether one more may wait for the disk.
    pub(crate) fn has_room(&self) -> bool {
        self.writer.as_ref().is_none_or(Writer::has_room)
    }

    /// Has these written, and nobody told.
    pub(crate) fn write(&self, writes: Vec<Write>) {
        match &self.writer {
            _ if writes.is_empty() => {}
            Some(writer) => writer.write(writes, None),
            None => tracing::error!("something of grants isn't written: there is no thread"),
        }
    }

    /// Has these written, and is told.
    pub(crate) fn tell(
        &self,
        writes: Vec<Write>,
        told: impl FnOnce(Result<(), String>) -> Told + Send + 'static,
    ) {
        let told = self.telling(told);
        let tell = move |result: Result<(), std::sync::Arc<str>>| told(result.map_err(|why| why.to_string()));
        match &self.writer {
            Some(writer) => writer.write(writes, Some(Box::new(tell))),
            None => tell(Err("there is no thread that writes".into())),
        }
    }

    /// What somebody else is to call who is waited for.
    pub(crate) fn telling(
        &self,
        told: impl FnOnce(Result<(), String>) -> Told + Send + 'static,
    ) -> impl FnOnce(Result<(), String>) + Send + 'static {
        if self.making.len() + self.going.len() + self.redeeming.len() == 1 {
            // A disk that hangs says nothing: from now on somebody has to look at the time.
            let _ = self.teller.send(Told::Waits);
        }
        let teller = self.teller.clone();
        move |result| {
            // A loop that is over waits for nothing.
            let _ = teller.send(told(result));
        }
    }

    /// The grant that is on its way by a yes to this request.
    pub(crate) fn answering(&self, request: GrantId) -> Option<GrantId> {
        self.making.values().find(|making| making.request == Some(request)).map(|making| making.grant.id)
    }

    fn waits(&self) -> bool {
        !(self.making.is_empty() && self.going.is_empty() && self.redeeming.is_empty())
    }

    /// Has the timer ring after so long. It's made when it's first needed.
    pub(crate) fn ring_after(&mut self, daemon: &std::rc::Weak<Daemon>, after: Option<Duration>) {
        if self.timer.is_none() && after.is_some() {
            let made = clocks::timer().and_then(|timer| Ok(Rc::new(watch(timer, Interest::READABLE)?)));
            match made {
                Ok(timer) => {
                    spawn_local(keep_time(daemon.clone(), Rc::clone(&timer)));
                    self.timer = Some(timer);
                }
                Err(error) => {
                    tracing::error!(%error, "there is no timer: runs end with their grants late");
                }
            }
        }
        if let Some(timer) = &self.timer
            && let Err(error) = clocks::set(timer.get_ref(), after)
        {
            tracing::error!(%error, "the timer can't be set: runs end with their grants late");
        }
    }
}

/// Ends runs whose grants are over, each time that the timer rings.
async fn keep_time(daemon: std::rc::Weak<Daemon>, timer: Rc<AsyncFd<OwnedFd>>) {
    loop {
        let Ok(mut ready) = timer.readable().await else { return };
        let _count = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut [0_u8; 8])?));
        let Some(daemon) = daemon.upgrade() else { return };
        daemon.state.borrow_mut().end_with_grants();
    }
}

/// Has grants hold from now on.
pub(crate) fn begin(daemon: &Rc<Daemon>, opened: Opened) -> JoinHandle<()> {
    let Opened { grants, told, held, over, aside } = opened;
    let mut state = daemon.state.borrow_mut();
    if !held.is_empty() {
        tracing::info!(count = held.len(), "grants of an earlier daemon hold");
    }
    {
        let mut all = state.gate.held();
        held.into_iter().for_each(|grant| all.put(grant));
    }
    let broken = grants.broken.clone();
    state.grants = Some(grants);
    state.note_over(&over);
    state.wait_for_ends();
    if let Some(why) = broken {
        state.note_security("grants-unreadable", format!("there are no grants until a restart: {why}"));
    }
    if let Some(path) = aside {
        let text =
            format!("the file of grants was damaged: it's {} now, and no grant of it holds", path.display());
        state.note_security("grants-damaged", text);
    }
    drop(state);
    spawn_local(hear(Rc::clone(daemon), told))
}

/// The end: what was handed over is written, if the disk answers.
pub(crate) async fn end(daemon: &Daemon, hearing: JoinHandle<()>) {
    let Some(grants) = daemon.state.borrow_mut().grants.take() else { return };
    hearing.abort();
    let Some(writer) = grants.writer else { return };
    let closing = spawn_blocking(move || writer.close());
    if timeout(WITHIN, closing).await.is_err() {
        tracing::error!("the file of grants can't be closed: the disk doesn't answer");
    }
}

/// Carries out what the file's thread says, until it's aborted.
async fn hear(daemon: Rc<Daemon>, mut told: mpsc::UnboundedReceiver<Told>) {
    let mut looked = Instant::now();
    loop {
        let waits = daemon.state.borrow().grants.as_ref().is_some_and(Grants::waits);
        tokio::select! {
            said = told.recv() => {
                let Some(said) = said else { return };
                let mut state = daemon.state.borrow_mut();
                match said {
                    Told::Redeemed(run, result) => state.redeemed(run, result),
                    Told::Recorded(id, result) => state.grant_recorded(id, result),
                    Told::Made(id, result) => state.grant_made(id, result),
                    Told::Gone(id, result) => state.grant_gone(id, result),
                    Told::Waits => {}
                }
            }
            () = sleep(LOOK_EVERY), if waits => {}
        }
        if waits && looked.elapsed() >= LOOK_EVERY {
            looked = Instant::now();
            daemon.state.borrow_mut().give_up_grants();
        }
    }
}

/// Whether somebody has waited too long.
pub(crate) fn is_late(since: Instant) -> bool {
    since.elapsed() >= WITHIN
}

/// Why it's given up.
pub(crate) fn late() -> String {
    format!("the disk hasn't answered for {WITHIN:?}")
}

/// Has a daemon to come find these.
#[cfg(test)]
pub(crate) fn put_beforehand(state: &Path, grants: impl IntoIterator<Item = Grant>) {
    let writes: Vec<Write> = grants.into_iter().map(|grant| Write::Put(Box::new(grant))).collect();
    let mut store = store::Store::open(state).expect("there is no file");
    store.write(writes.iter(), &clocks::boot(), clocks::now()).expect("they aren't written");
}
