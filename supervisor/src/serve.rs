//! `stockade serve`: the daemon from its first line to its last.
//!
//! ```text
//! configuration ──> lock ──> policies ──> socket ──> launcher ──> serving ──SIGTERM──> draining ──> stopped
//!                                                                    │ SIGHUP: reload      │ SIGTERM: kill
//! ```
//!
//! Everything happens on one thread. Whoever calls [`serve`] has installed a tracing subscriber.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stockade_audit::AuditError;
use stockade_policies::{PolicyError, PolicySet, Trust};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{sleep, sleep_until, timeout};

use crate::activation::{ActivationError, Doors, Passed};
use crate::config::{Configured, Sources};
use crate::daemon::{Daemon, Settings, place_of_reviews};
use crate::dispatcher::Event;
use crate::gate::kept::{self, KeptError};
use crate::gate::{Faults, Files, Gate};
use crate::grants::{self, GrantsError};
use crate::launch_link::{self, Starter};
use crate::launcher::{self, Purpose};
use crate::limits::Limits;
use crate::listener::{Access, ListenError, Listener, StateLock};
use crate::log::{self, Log};
use crate::metrics::{self, Door, EndpointError, Figures};
use crate::outbox::Outbox;
use crate::paths::Surroundings;
use crate::record::{self, Record};
use crate::register::{Register, RegisterError};
use crate::reload::{Reload, SetLevel};
use crate::shelf::Shelf;
use crate::spare::{PER_RUN, SPARE};
use crate::statistics;
use crate::systemd::{self, Systemd};
use crate::traces::{self, Collector, Traces};
use crate::{connection, paths, policies, redaction};

/// How long the opening frame may take.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// How long any frame may take from its first byte to its last.
const FRAME_WITHIN: Duration = Duration::from_secs(30);
/// How long a launcher that is there already may take to say who it is: clients wait meanwhile.
const MET_WITHIN: Duration = Duration::from_secs(3);
/// How long clients may take to fetch the last events when the daemon stops.
const LAST_EVENTS_WITHIN: Duration = Duration::from_secs(2);
/// How long they may take to fetch answers when runs go on without us: a pause for everybody.
const LAST_ANSWERS_WITHIN: Duration = Duration::from_millis(20);
/// How long launchers may take to read what they are told.
const LAST_ORDERS_WITHIN: Duration = Duration::from_secs(5);
/// How long to wait when no descriptor is left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Open files of the daemon itself: its own sockets and files, what is kept from clients, and connections of some of them.
const DESCRIPTORS: u64 = 80 + SPARE;

/// How to serve.
#[derive(Default)]
pub struct ServeOptions {
    /// What holds at the start.
    pub configured: Configured,
    /// What that was made of, to be read again at a reload.
    pub sources: Sources,
    /// Policy directories beside the shipped policies and below those that the configuration names; see
    /// [`Surroundings::policies`].
    pub policy_directories: Vec<(PathBuf, Trust)>,
    /// Where tracing writes to, if that wants its lines handed over.
    pub log: Option<Log>,
    /// Sets what is logged, if a reload may.
    pub set_level: Option<SetLevel>,
    /// The Landlock ABI that the kernel offers, to be told; 0: none.
    pub landlock_abi: u8,
}

/// Why the daemon didn't serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// No socket or no state directory.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// What launchers there are can't be told.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// Bad policies.
    #[error("cannot load the policies")]
    Policies(#[from] PolicyError),
    /// Bad files of the gate.
    #[error("cannot load the gate's files")]
    Gate(#[from] Faults),
    /// What is known of breakers can't be read.
    #[error(transparent)]
    Breakers(#[from] KeptError),
    /// What is written of grants can't be read.
    #[error(transparent)]
    Grants(#[from] GrantsError),
    /// The record can't be written.
    #[error("cannot open the record")]
    Record(#[from] AuditError),
    /// No place for the metrics.
    #[error(transparent)]
    Metrics(#[from] EndpointError),
    /// What systemd has passed can't be served.
    #[error(transparent)]
    Activation(#[from] ActivationError),
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
    /// Everybody's runs take a launcher that is root's.
    #[error(
        "to serve everybody takes root, or a launcher that is root's: enable stockade-launcher.socket and name it with --launcher"
    )]
    Launcher,
    /// The event loop or its signals.
    #[error("cannot make the event loop")]
    Runtime(#[source] io::Error),
}

/// Serves until it is told to stop by SIGTERM or SIGINT.
///
/// # Errors
/// [`ServeError`], before anything was served.
pub fn serve(options: ServeOptions) -> Result<(), ServeError> {
    let scope = options.sources.scope;
    let uid = rustix::process::geteuid().as_raw();
    let elsewhere = options.configured.values.daemon.launcher.path().map(Path::to_owned);
    if scope.is_machine() && uid != 0 && elsewhere.is_none() {
        return Err(ServeError::Launcher);
    }
    let apart = elsewhere.is_some();
    let starter: Starter = match elsewhere {
        None => Box::new(|| launcher::start(Purpose::Daemon).map(|(channel, child)| (channel, Some(child)))),
        Some(path) => Box::new(move || launcher::connect(&path).map(|channel| (channel, None))),
    };
    let (passed, doors) = Passed::to_this_process()?;
    let settings = Settings {
        uid,
        scope,
        apart,
        pid: rustix::process::getpid().as_raw_nonzero().get(),
        hello_within: HELLO_WITHIN,
        frame_within: FRAME_WITHIN,
        met_within: MET_WITHIN,
        home_of: paths::home_of,
        opener: None,
    };
    let limits = Limits::of(&options.configured.values, scope);
    raise_descriptor_limit(limits.bounds.slots.total)?;
    let given = Given { passed, doors, systemd: Systemd::of_this_process(), ..Given::default() };
    serve_with(options, settings, limits, starter, given)
}

/// What a daemon is given by who starts it: by systemd, or by a test.
#[derive(Default)]
pub(crate) struct Given {
    /// The socket, if it is there already.
    pub(crate) passed: Option<Passed>,
    /// Doors of launchers that an earlier daemon had held for us.
    pub(crate) doors: Doors,
    /// Who wants to know how we are.
    pub(crate) systemd: Systemd,
    /// What it is told in place of signals.
    pub(crate) orders: Option<Orders>,
    /// What requests have to pass.
    pub(crate) gate: Option<Gate>,
}

/// The gate of the directory of configuration.
fn gate_of(
    sources: &Sources,
    surroundings: &Surroundings<'_>,
    configured: &Configured,
    policies: &PolicySet,
) -> Result<Gate, Faults> {
    let Surroundings { scope, uid, .. } = *surroundings;
    let (directory, tools) = (sources.directory.as_deref(), &configured.values.tools);
    Files::load(directory, (scope, uid), tools, Some(policies)).map(Gate::of)
}

/// Serves with these settings and limits.
pub(crate) fn serve_with(
    options: ServeOptions,
    settings: Settings,
    limits: Limits,
    starter: Starter,
    given: Given,
) -> Result<(), ServeError> {
    let surroundings = Surroundings { scope: settings.scope, ..Surroundings::of_this_process() };
    let ServeOptions { configured, sources, policy_directories: usual, log, set_level, landlock_abi } =
        options;
    let asked = configured.values.daemon.clone();
    let named = configured.values.settled(&surroundings).daemon;
    let state = named.state_directory.path().unwrap_or(Path::new(""));
    let _lock = StateLock::take(state, surroundings.uid)?;
    let directories = policies::directories(&usual, &configured.values, surroundings.scope);
    let policies = policies::load(&directories, surroundings.uid)?;
    redaction::prepare(&policies);
    let mut gate = given.gate.map_or_else(|| gate_of(&sources, &surroundings, &configured, &policies), Ok)?;
    kept::restore(&mut gate, state)?;
    let granted = grants::open(state, surroundings.scope)?;
    let recorded = Record::open(&configured.values.audit, state, surroundings.scope)?;
    if let Some(passed) = &given.passed {
        passed.agrees(asked.socket.path(), asked.group.name())?;
    }
    // Doors stand beside our socket. The directory of one that was passed isn't ours to judge.
    let doors = match &given.passed {
        Some(_) => state,
        None => named.socket.path().and_then(Path::parent).ok_or(ListenError::NoPlace)?,
    };
    let systemd = Rc::new(given.systemd);
    let shelf = Shelf::new(Rc::clone(&systemd), given.doors);
    let register = Register::open(state, doors, configured.values.runs.parked.number(), shelf)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Runtime)?;
    let reload = Reload { running: configured, sources, usual, set_level };
    let result = LocalSet::new().block_on(&runtime, async {
        let access = Access { uid: surroundings.uid, scope: surroundings.scope, group: named.group.name() };
        let mut figures = Figures::new().map_err(|error| EndpointError::Table(error.into()))?;
        figures.landlock = landlock_abi;
        let door = match reload.running.values.telemetry.metrics.get() {
            Some(endpoint) => Some(Door::open(endpoint, access).await?),
            None => None,
        };
        let collector = reload.running.values.telemetry.traces.get().cloned();
        let listener = match given.passed {
            Some(passed) => Listener::take(passed)?,
            None => Listener::bind(named.socket.path().ok_or(ListenError::NoPlace)?, access)?,
        };
        let orders = given.orders.map_or_else(signals, Ok).map_err(ServeError::Runtime)?;
        let outside = Outside { listener, orders, systemd };
        let daemon = Daemon::new(settings, limits, policies, figures);
        daemon.state.borrow_mut().judge_by(gate, place_of_reviews(state));
        let recording = recorded.map(|opened| record::begin(&daemon, opened));
        let granting = grants::begin(&daemon, granted);
        let counting = statistics::begin(&daemon, &reload.running.values.statistics, state);
        let (over, is_over) = oneshot::channel();
        let keeping = spawn_local(kept::keep(Rc::clone(&daemon), state.to_owned(), is_over));
        let telling = door.map(|door| tell(&daemon, door));
        let traces = collector.map(|collector| trace(&daemon, collector));
        run(Rc::clone(&daemon), outside, (starter, register), (reload, log)).await;
        drop(over);
        let _ended = keeping.await;
        statistics::end(&daemon, counting).await;
        grants::end(&daemon, granting).await;
        if let Some(recording) = recording {
            record::end(&daemon, recording).await;
        }
        if let Some((traces, sending)) = traces {
            traces::last(&traces, sending).await;
        }
        if let Some(telling) = telling {
            telling.abort();
            // Its socket's name is gone when it is.
            let _ended = telling.await;
        }
        Ok(())
    });
    // A directory service that is slow to tell a home must not keep us.
    runtime.shutdown_background();
    result
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
    u64::try_from(slots).unwrap_or(u64::MAX).saturating_mul(PER_RUN).saturating_add(DESCRIPTORS)
}

/// What the daemon is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Stop; the second time, at once.
    Stop,
    /// Read configuration and policies again.
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

async fn run(
    daemon: Rc<Daemon>,
    outside: Outside,
    (starter, register): (Starter, Register),
    (mut reload, log): (Reload, Option<Log>),
) {
    let Outside { listener, mut orders, systemd } = outside;
    let link = spawn_local(launch_link::keep(Rc::clone(&daemon), starter, register));
    let timer = spawn_local(keep_time(Rc::clone(&daemon)));
    let reporting = spawn_local(systemd::report(Rc::clone(&daemon), Rc::clone(&systemd)));
    let watched = spawn_local(systemd::pat_the_watchdog(Rc::clone(&systemd)));
    let handing = log.map(|log| spawn_local(log::hand_over(log)));
    tracing::info!(
        socket = %listener.path.display(),
        pid = daemon.settings.pid,
        slots = daemon.state.borrow().limits.bounds.slots.total,
        policies = ?daemon.state.borrow().specs.policies().names(),
        "serving"
    );
    let accepting = spawn_local(accept_all(Rc::clone(&daemon), listener));
    let mut asked = 0_u32;
    loop {
        let order = tokio::select! {
            () = daemon.stop.notified() => break,
            () = daemon.reload.notified() => Order::Reload,
            Some(order) = orders.recv() => order,
        };
        match order {
            Order::Reload => {
                let is_told = systemd.reloading();
                let waiting = daemon.state.borrow_mut().take_reloads();
                let report = reload.again(&daemon).await;
                daemon.state.borrow_mut().tell_reloaded(waiting, &report);
                if is_told {
                    systemd.reloaded();
                }
            }
            Order::Stop => {
                systemd.stopping();
                daemon.state.borrow_mut().end_approvals();
                if daemon.state.borrow().limits.keep_runs {
                    leave(&daemon);
                } else {
                    asked += stop(&daemon, asked);
                }
            }
        }
    }
    // Nobody new; those who are here get their last events.
    accepting.abort();
    daemon.state.borrow_mut().end_approvals();
    daemon.state.borrow_mut().refuse_all_undecided();
    if daemon.state.borrow().limits.keep_runs {
        // What isn't sent to clients by then the next supervisor sends; what launchers are told nobody else knows.
        let _late = timeout(LAST_ANSWERS_WITHIN, last_events(&daemon)).await;
        let _late = timeout(LAST_ORDERS_WITHIN, last_orders(&daemon)).await;
        daemon.state.borrow().links.leaving.set(true);
    } else {
        let _late = timeout(LAST_EVENTS_WITHIN, last_events(&daemon)).await;
        launch_link::shut_down(&daemon).await;
    }
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

/// Tells metrics and health, until it is aborted.
fn tell(daemon: &Rc<Daemon>, door: Door) -> JoinHandle<()> {
    let endpoint = door.endpoint();
    tracing::info!(at = %endpoint, "metrics are served");
    daemon.state.borrow_mut().figures.told_at = Some(endpoint);
    spawn_local(metrics::serve(Rc::clone(daemon), door))
}

/// Has spans of runs sent, until it is aborted.
fn trace(daemon: &Rc<Daemon>, collector: Collector) -> (Rc<Traces>, JoinHandle<()>) {
    tracing::info!(%collector, "runs are traced");
    let traces = Traces::new(collector);
    daemon.state.borrow_mut().traces = Some(Rc::clone(&traces));
    let sending = spawn_local(traces::send_all(Rc::clone(daemon), Rc::clone(&traces)));
    (traces, sending)
}

/// The first time: no new runs, and grace for the others. The second time: no grace.
fn stop(daemon: &Daemon, asked: u32) -> u32 {
    let mut state = daemon.state.borrow_mut();
    let (now, grace_ms) = (state.now(), state.limits.grace_ms);
    if asked == 0 {
        tracing::info!(grace_ms, "stopping: no new runs, and grace for the others");
        state.handle(Event::Drain { now, grace: grace_ms });
    } else {
        tracing::warn!("stopping at once");
        state.handle(Event::Kill { now });
    }
    1
}

/// No new runs, and the others go on without us.
fn leave(daemon: &Daemon) {
    let mut state = daemon.state.borrow_mut();
    let now = state.now();
    tracing::info!(running = state.dispatcher.counts().running, "stopping; runs go on for the next daemon");
    state.handle(Event::Leave { now });
}

/// Waits until every client has what there is for it.
async fn last_events(daemon: &Daemon) {
    while daemon.state.borrow().connections.values().any(Outbox::has_something_to_send) {
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until launchers have been told everything.
async fn last_orders(daemon: &Daemon) {
    while daemon.state.borrow().links.have_something_to_send() {
        sleep(Duration::from_millis(1)).await;
    }
}

async fn accept_all(daemon: Rc<Daemon>, listener: Listener) {
    // Who comes back asks for a run that the last supervisor has accepted.
    daemon.adopted.notified().await;
    loop {
        match listener.accept().await {
            Ok(socket) if daemon.state.borrow().is_too_full_for(&socket) => {
                connection::turn_away(&daemon, socket);
                // Those whose close hangs take what is kept: before the last of it the others wait at the door.
                while !daemon.state.borrow().table.has_room_to_refuse() {
                    sleep(ACCEPT_PAUSE).await;
                }
            }
            Ok(socket) => {
                spawn_local(connection::serve(Rc::clone(&daemon), socket));
            }
            Err(error) => {
                tracing::error!(%error, "a connection can't be accepted");
                if let Some(Errno::MFILE | Errno::NFILE) = Errno::from_io_error(&error) {
                    daemon.state.borrow().table.is_full();
                }
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
