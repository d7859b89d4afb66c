//! `stockade serve`: the daemon from its first line to its last.
//!
//! ```text
//! options ──> lock ──> policies ──> socket ──> launcher ──> serving ──SIGTERM──> draining ──> stopped
//!                                                              │ SIGHUP: reload      │ SIGTERM: kill
//! ```
//!
//! Everything happens on one thread. Whoever calls [`serve`] has installed a tracing subscriber.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stockade_policies::{PolicyError, PolicySet, Trust};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, sleep_until, timeout};

use crate::activation::{ActivationError, Passed};
use crate::daemon::{Daemon, Settings};
use crate::dispatcher::{Bounds, Event, Share, bounds};
use crate::launch_link::{self, Starter};
use crate::launcher::{self, Purpose};
use crate::ledger::Memory;
use crate::listener::{Access, ListenError, Listener, StateLock};
use crate::log::{self, Log};
use crate::outbox::Outbox;
use crate::paths::Surroundings;
use crate::systemd::{self, Systemd};
use crate::{connection, paths, reload};

/// Connections at once.
const CONNECTIONS: usize = 4096;
/// Connections of one user, in root's daemon.
const CONNECTIONS_PER_OWNER: usize = 2048;
/// Bytes that may wait in connections, beside what is free in each.
const CONNECTION_MEMORY: usize = 512 * 1024 * 1024;
/// Those of one user, in root's daemon.
const CONNECTION_MEMORY_PER_OWNER: usize = 128 * 1024 * 1024;
/// With so many bytes in them an owner has little: the largest frame, and as much that waits for him.
const LITTLE_CONNECTION_MEMORY: usize = 4 * 1024 * 1024;
/// How long the opening frame may take.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// How long any frame may take from its first byte to its last.
const FRAME_WITHIN: Duration = Duration::from_secs(30);
/// How long clients may take to fetch the last events when the daemon stops.
const LAST_EVENTS_WITHIN: Duration = Duration::from_secs(2);
/// How long to wait when no descriptor is left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Open files of the daemon itself: its own sockets and files, and connections of some clients.
const DESCRIPTORS: u64 = 128;
/// Open files of a run that goes on.
const DESCRIPTORS_PER_RUN: u64 = 3;

/// How to serve.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// The socket; by default as [`Surroundings::listen`] says.
    pub socket: Option<PathBuf>,
    /// Policy directories beside the shipped policies, later ones on top; see [`Surroundings::policies`].
    pub policy_directories: Vec<(PathBuf, Trust)>,
    /// The state directory; by default as [`Surroundings::state`] says.
    pub state_directory: Option<PathBuf>,
    /// The group that may use root's daemon.
    pub group: Option<String>,
    /// Runs at once; by default [`bounds::SLOTS`].
    pub slots: Option<usize>,
    /// Requests that may wait; by default [`bounds::QUEUE`].
    pub queue: Option<usize>,
    /// The most workers parked for one user, policy and workspace; by default [`bounds::PARKED`].
    pub parked: Option<u32>,
    /// How long runs may go on when the daemon is asked to stop.
    pub grace: Duration,
    /// How long ended runs are kept for a client that comes back.
    pub retention: Duration,
    /// Where tracing writes to, if that wants its lines handed over.
    pub log: Option<Log>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            socket: None,
            policy_directories: Vec::new(),
            state_directory: None,
            group: None,
            slots: None,
            queue: None,
            parked: None,
            grace: Duration::from_secs(10),
            retention: Duration::from_millis(bounds::RETENTION_MS),
            log: None,
        }
    }
}

/// Why the daemon didn't serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// No socket or no state directory.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Bad policies.
    #[error("cannot load the policies")]
    Policies(#[from] PolicyError),
    /// What systemd has passed can't be served.
    #[error(transparent)]
    Activation(#[from] ActivationError),
    /// A limit that makes no sense.
    #[error("{0}")]
    Option(&'static str),
    /// Too few open files for the runs that are to go on at once.
    #[error(
        "the limit on open files is {limit}, but {slots} runs at once need {needed}; raise it (LimitNOFILE= in the unit, `ulimit -n`), or lower --slots"
    )]
    Descriptors {
        /// The hard limit.
        limit: u64,
        /// Runs at once.
        slots: usize,
        /// What would do.
        needed: u64,
    },
    /// The event loop or its signals.
    #[error("cannot make the event loop")]
    Runtime(#[source] io::Error),
}

/// Serves until it is told to stop by SIGTERM or SIGINT.
///
/// # Errors
/// [`ServeError`], before anything was served.
#[allow(clippy::needless_pass_by_value, reason = "a daemon's options are its own")]
pub fn serve(options: ServeOptions) -> Result<(), ServeError> {
    let purpose = Purpose::Daemon { parked: options.parked.unwrap_or(bounds::PARKED) };
    let starter: Starter =
        Box::new(move || launcher::start(purpose).map(|(channel, child)| (channel, Some(child))));
    let passed = Passed::to_this_process()?;
    let settings = settings(&options, rustix::process::geteuid().as_raw())?;
    raise_descriptor_limit(settings.bounds.slots.total)?;
    let given = Given { passed, systemd: Systemd::of_this_process(), orders: None };
    serve_with(&options, settings, starter, given)
}

/// What a daemon is given by who starts it: by systemd, or by a test.
#[derive(Default)]
pub(crate) struct Given {
    /// The socket, if it is there already.
    pub(crate) passed: Option<Passed>,
    /// Who wants to know how we are.
    pub(crate) systemd: Systemd,
    /// What it is told in place of signals.
    pub(crate) orders: Option<Orders>,
}

/// Serves with these settings.
pub(crate) fn serve_with(
    options: &ServeOptions,
    settings: Settings,
    starter: Starter,
    given: Given,
) -> Result<(), ServeError> {
    let surroundings = Surroundings::of_this_process();
    let state = options.state_directory.clone().unwrap_or_else(|| surroundings.state());
    let _lock = StateLock::take(&state, surroundings.uid)?;
    let policies = PolicySet::load(&options.policy_directories)?;
    let group = options.group.as_deref();
    if let Some(passed) = &given.passed {
        passed.agrees(options.socket.as_deref(), group)?;
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Runtime)?;
    let result = LocalSet::new().block_on(&runtime, async {
        let listener = match given.passed {
            Some(passed) => Listener::take(passed)?,
            None => {
                let socket = options.socket.clone().or_else(|| surroundings.listen());
                let access = Access { uid: surroundings.uid, group };
                Listener::bind(&socket.ok_or(ListenError::NoPlace)?, access)?
            }
        };
        let orders = given.orders.map_or_else(signals, Ok).map_err(ServeError::Runtime)?;
        let outside = Outside { listener, orders, systemd: Rc::new(given.systemd) };
        run(Daemon::new(settings, policies), outside, starter, options).await;
        Ok(())
    });
    // A directory service that is slow to tell a home must not keep us.
    runtime.shutdown_background();
    result
}

pub(crate) fn settings(options: &ServeOptions, uid: u32) -> Result<Settings, ServeError> {
    let slots = options.slots.unwrap_or(bounds::SLOTS);
    if slots == 0 {
        return Err(ServeError::Option("with 0 slots nothing could ever run; give at least 1"));
    }
    if options.group.is_some() && uid != 0 {
        return Err(ServeError::Option("only root's daemon serves a group; leave --group out"));
    }
    let mut bounds = Bounds::new(slots, options.queue.unwrap_or(bounds::QUEUE), uid == 0);
    let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    bounds.retention_ms = milliseconds(options.retention);
    Ok(Settings {
        uid,
        pid: rustix::process::getpid().as_raw_nonzero().get(),
        bounds,
        grace_ms: milliseconds(options.grace),
        connections: CONNECTIONS,
        connections_per_owner: if uid == 0 { CONNECTIONS_PER_OWNER } else { CONNECTIONS },
        memory: Memory {
            share: Share::new(CONNECTION_MEMORY, LITTLE_CONNECTION_MEMORY, uid == 0),
            per_owner: if uid == 0 { CONNECTION_MEMORY_PER_OWNER } else { CONNECTION_MEMORY },
        },
        hello_within: HELLO_WITHIN,
        frame_within: FRAME_WITHIN,
        home_of: paths::home_of,
    })
}

/// Connections, rings and waiting requests each take descriptors: as many as we may have. With fewer than our runs take,
/// runs would fail one by one and by chance, so the daemon doesn't begin.
fn raise_descriptor_limit(slots: usize) -> Result<(), ServeError> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, ?current, "the limit on open files can't be raised");
    }
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let needed = descriptors_for(slots);
    if limit < needed { Err(ServeError::Descriptors { limit, slots, needed }) } else { Ok(()) }
}

fn descriptors_for(slots: usize) -> u64 {
    u64::try_from(slots).unwrap_or(u64::MAX).saturating_mul(DESCRIPTORS_PER_RUN).saturating_add(DESCRIPTORS)
}

/// What the daemon is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Stop; the second time, at once.
    Stop,
    /// Read the policies again.
    Reload,
}

/// Where orders come from: signals, or in tests a channel.
pub(crate) type Orders = mpsc::UnboundedReceiver<Order>;

/// Turns signals into orders.
fn signals() -> io::Result<Orders> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let (sender, orders) = mpsc::unbounded_channel();
    spawn_local(async move {
        loop {
            let order = tokio::select! {
                _ = terminate.recv() => Order::Stop,
                _ = interrupt.recv() => Order::Stop,
                _ = hang_up.recv() => Order::Reload,
            };
            if sender.send(order).is_err() {
                return;
            }
        }
    });
    Ok(orders)
}

/// What the daemon hears from and speaks to, beside its launcher.
struct Outside {
    listener: Listener,
    orders: Orders,
    systemd: Rc<Systemd>,
}

async fn run(daemon: Rc<Daemon>, outside: Outside, starter: Starter, options: &ServeOptions) {
    let Outside { listener, mut orders, systemd } = outside;
    let link = spawn_local(launch_link::keep(Rc::clone(&daemon), starter));
    let timer = spawn_local(keep_time(Rc::clone(&daemon)));
    let reporting = spawn_local(systemd::report(Rc::clone(&daemon), Rc::clone(&systemd)));
    let watched = spawn_local(systemd::pat_the_watchdog(Rc::clone(&systemd)));
    let handing = options.log.clone().map(|log| spawn_local(log::hand_over(log)));
    tracing::info!(
        socket = %listener.path.display(),
        pid = daemon.settings.pid,
        slots = daemon.settings.bounds.slots.total,
        policies = ?daemon.state.borrow().specs.policies().names(),
        "serving"
    );
    let accepting = spawn_local(accept_all(Rc::clone(&daemon), listener));
    let mut asked = 0_u32;
    loop {
        tokio::select! {
            () = daemon.stop.notified() => break,
            Some(order) = orders.recv() => match order {
                Order::Reload => {
                    systemd.reloading();
                    reload::reload(&daemon, &options.policy_directories);
                    systemd.reloaded();
                }
                Order::Stop => {
                    systemd.stopping();
                    asked += stop(&daemon, asked);
                }
            },
        }
    }
    // Nobody new; those who are here get their last events.
    accepting.abort();
    let _late = timeout(LAST_EVENTS_WITHIN, last_events(&daemon)).await;
    launch_link::shut_down(&daemon).await;
    for task in [&link, &timer, &reporting, &watched] {
        task.abort();
    }
    // An aborted task is dropped, and with it the socket's name and a launcher that did not end.
    let _ended = accepting.await;
    let _ended = link.await;
    tracing::info!("stopped");
    if let Some(handing) = handing {
        handing.abort();
    }
}

/// The first time: no new runs, and grace for the others. The second time: no grace.
fn stop(daemon: &Daemon, asked: u32) -> u32 {
    let mut state = daemon.state.borrow_mut();
    let now = state.now();
    if asked == 0 {
        tracing::info!(
            grace_ms = daemon.settings.grace_ms,
            "stopping: no new runs, and grace for the others"
        );
        state.handle(Event::Drain { now, grace: daemon.settings.grace_ms });
    } else {
        tracing::warn!("stopping at once");
        state.handle(Event::Kill { now });
    }
    1
}

/// Waits until every client has what there is for it.
async fn last_events(daemon: &Daemon) {
    while daemon.state.borrow().connections.values().any(Outbox::has_something_to_send) {
        sleep(Duration::from_millis(5)).await;
    }
}

async fn accept_all(daemon: Rc<Daemon>, listener: Listener) {
    loop {
        match listener.accept().await {
            Ok(socket) => {
                spawn_local(connection::serve(Rc::clone(&daemon), socket));
            }
            Err(error) => {
                tracing::error!(%error, "a connection can't be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Tells the dispatcher the time when it is due.
async fn keep_time(daemon: Rc<Daemon>) {
    loop {
        let next = daemon.state.borrow().dispatcher.next_deadline();
        daemon.state.borrow().armed.set(next);
        match next {
            None => daemon.timer.notified().await,
            Some(at) => {
                let at = daemon.state.borrow().instant(at);
                tokio::select! {
                    () = sleep_until(at.into()) => {
                        let mut state = daemon.state.borrow_mut();
                        let now = state.now();
                        state.handle(Event::Tick { now });
                    }
                    () = daemon.timer.notified() => {}
                }
            }
        }
    }
}
