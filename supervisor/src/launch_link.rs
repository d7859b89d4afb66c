//! A launcher's life: started or [taken over](crate::adopting), greeted, listened to, and followed by another when it dies.
//!
//! ```text
//! adopt ──> Again sent ─┐
//! start ──> Hello sent ─┴> Hello received, rings told ──> messages both ways ──> it closes, breaks a rule, or is replaced
//!   ^                                                                                  │ its runs end as Lost
//!   └──────────────── after a pause that doubles while launchers die young ────────────┘
//! ```
//!
//! The relay's socket comes with the launcher's Hello; either one's end is the end of both, since a launcher
//! without its relay can't give a run its output. A launcher that is replaced is killed first: its runs die with
//! it, by the kernel's hand.

use core::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags};
use stockade_protocol::bounds::MAX_LAUNCH_INLINE;
use stockade_protocol::launch::{FromRelay, Keep, LAUNCH_VERSION, ToLauncher};
use stockade_wire::channel::{Channel, unpack};
use stockade_wire::{program, socket};
use tokio::sync::oneshot;
use tokio::time::{sleep, sleep_until, timeout};

use crate::admission::chain;
use crate::adopting::{adopt_all, take_charge};
use crate::daemon::Daemon;
use crate::dispatcher::{Event, LauncherId};
use crate::keeper::{How, Keeper, Process};
use crate::launcher::LauncherError;
use crate::link::{Introduction, Link, Socket};
use crate::register::Register;
use crate::turn::Turn;
use crate::watched::Watched;

/// How long a fresh launcher may take to introduce itself.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// How long what a launcher has said last is read, once its relay has ended.
const LAST_WORDS_WITHIN: Duration = Duration::from_millis(500);
/// A launcher that lived longer than this died of something new.
const YOUNG: Duration = Duration::from_secs(5);
/// The pause before the second launcher, doubled with each that dies young.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// After so many that died young, what waits is told that there is none.
const GIVE_UP_AFTER: u32 = 5;
/// How long a launcher may take to end after its channel has closed, or after it was asked to.
const END_WITHIN: Duration = Duration::from_secs(5);
/// How long a full channel with too many descriptors in flight is left alone.
const IN_FLIGHT_PAUSE: Duration = Duration::from_millis(20);

/// Starts launchers. Without a process: elsewhere, or in tests something else answers the channel.
pub(crate) type Starter = Box<dyn FnMut() -> Result<(Channel, Option<Child>), LauncherError>>;

/// Takes over what launchers are there, says so, and keeps one until the daemon's last hour.
pub(crate) async fn keep(daemon: Rc<Daemon>, mut starter: Starter, register: Register) {
    let mut adopted = adopt_all(&daemon, &register).await;
    take_charge(&daemon);
    daemon.state.borrow_mut().count_adopted();
    daemon.adopted.notify_one();
    let mut young = 0_u32;
    loop {
        let born = Instant::now();
        let reason = match adopted.take() {
            Some(life) => life.await.unwrap_or_else(|error| error.to_string()),
            None => start(&daemon, &mut starter, &register).await,
        };
        if daemon.state.borrow().links.are_last {
            tracing::info!(reason, "the launcher has ended");
            return;
        }
        tracing::error!(reason, "the launcher is gone");
        young = if born.elapsed() < YOUNG { young + 1 } else { 1 };
        if young >= GIVE_UP_AFTER {
            let mut state = daemon.state.borrow_mut();
            let now = state.now();
            state.handle(Event::LauncherUnavailable { now, reason });
        }
        if young > 1 {
            sleep((FIRST_PAUSE * 2_u32.saturating_pow(young - 2)).min(LONGEST_PAUSE)).await;
        }
    }
}

/// A launcher of our own, until its end. Why it ended.
async fn start(daemon: &Rc<Daemon>, starter: &mut Starter, register: &Register) -> String {
    let (channel, child) = match starter() {
        Ok(started) => started,
        Err(error) => return chain(&error),
    };
    // Without a door it ends with us, and its runs with it.
    let pid = child.as_ref().map(Child::id);
    let made = register.add(pid).map_err(|error| {
        tracing::error!(
            reason = chain(&error),
            "runs won't outlive this daemon: there is no door for the next"
        );
    });
    let (keep, door) = made.map_or((None, Vec::new()), |(entry, door)| (Some(entry.keep), vec![door]));
    let parked = register.parked();
    let greeting =
        Greeting { hello: ToLauncher::Hello { version: LAUNCH_VERSION, keep, parked }, beside: door };
    let mut written = Written::new(daemon, register, keep);
    let leaving = Rc::clone(&daemon.state.borrow().links.leaving);
    let process = child.map_or(Process::Nobody, Process::Child);
    let reason = live(daemon, channel, Keeper::new(process, leaving), greeting, None).await;
    written.is_over();
    reason
}

/// What is written of a launcher for the next supervisor, and its door. Dropped, both are gone, also where we give up to wait for
/// its end: then it is killed. Unless we leave, or may not be able to kill it.
pub(crate) struct Written {
    register: Register,
    keep: Option<Keep>,
    leaving: Rc<Cell<bool>>,
    /// Whether it can't be there any more.
    goes: bool,
}

impl Written {
    /// Of one of this daemon's.
    pub(crate) fn new(daemon: &Daemon, register: &Register, keep: Option<Keep>) -> Self {
        let leaving = Rc::clone(&daemon.state.borrow().links.leaving);
        Self { register: register.clone(), keep, leaving, goes: !daemon.settings.apart }
    }

    /// It has ended.
    pub(crate) fn is_over(&mut self) {
        self.goes = true;
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if self.goes && !self.leaving.get() {
            self.register.remove(self.keep);
        }
    }
}

/// What a launcher is told first.
pub(crate) struct Greeting {
    /// The message.
    pub(crate) hello: ToLauncher,
    /// What goes along.
    pub(crate) beside: Vec<OwnedFd>,
}

/// To be told whether runs to come go to a launcher that was taken over, and whether its settings are ours.
pub(crate) type Judged = Option<(oneshot::Sender<bool>, bool)>;

/// One launcher's life. Why it ended; its runs have ended with it.
pub(crate) async fn live(
    daemon: &Rc<Daemon>,
    channel: Channel,
    mut keeper: Keeper,
    greeting: Greeting,
    judged: Judged,
) -> String {
    let socket = match make_async(channel.into_socket()) {
        Ok(socket) => socket,
        Err(error) => return format!("the launcher's channel can't be watched: {error}"),
    };
    let id = {
        let mut state = daemon.state.borrow_mut();
        let mut link = Link::new(Rc::clone(&socket), keeper.pid());
        if let Err(error) = link.send(&greeting.hello, greeting.beside) {
            return format!("the launcher can't be greeted: {error}");
        }
        state.links.add(link)
    };
    let reason = tokio::select! {
        reason = converse(daemon, id, &socket, judged) => reason,
        reason = send_all(daemon, id) => reason,
    };
    let found = daemon.state.borrow_mut().links.get_mut(id).and_then(farewell);
    if let Some((pid, pidfd)) = found {
        keeper.found(pid, pidfd);
    }
    daemon.state.borrow_mut().launcher_leaves(id);
    let reason = match keeper.end().await {
        // Which socket was seen to close first says nothing; how the process ended does.
        Some(How::Itself(status)) => format!("the launcher died: {status}"),
        Some(How::Killed) => format!("the launcher was killed: {reason}"),
        None => reason,
    };
    daemon.state.borrow_mut().launcher_died(id, reason.clone());
    reason
}

/// To one that may be root's when we aren't, so that we couldn't kill it. Its process, if it was found by what it said.
fn farewell(link: &mut Link) -> Option<(i32, OwnedFd)> {
    // If it has died already, nobody hears this.
    let _unsent = link.send(&ToLauncher::Shutdown, Vec::new());
    let pid = link.pid;
    pid.zip(link.pidfd.take())
}

fn make_async(socket: OwnedFd) -> io::Result<Socket> {
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(Rc::new(Watched::new(socket)?))
}

/// Reads what the launcher says, and then its relay too.
async fn converse(daemon: &Rc<Daemon>, id: LauncherId, socket: &Socket, judged: Judged) -> String {
    let met = async {
        let relay = greeting(daemon, id, socket).await?;
        // Before a client may ask: where the rings of runs that were there before us stand.
        hear_of_rings(daemon, &relay).await?;
        Ok(relay)
    };
    let relay = match timeout(HELLO_WITHIN, met).await {
        Ok(Ok(relay)) => relay,
        Ok(Err(reason)) => return reason,
        Err(_elapsed) => return "the launcher didn't introduce itself in time".to_owned(),
    };
    take_up(daemon, id, &relay, judged);
    let mut launcher = core::pin::pin!(read_launcher(daemon, id, socket));
    tokio::select! {
        reason = &mut launcher => reason,
        reason = read_relay(daemon, &relay) => {
            // They end together. What the launcher has said of its runs' ends is true all the same; but no run is given to it
            // that nobody would relay.
            daemon.state.borrow_mut().launcher_leaves(id);
            let _late = timeout(LAST_WORDS_WITHIN, launcher).await;
            reason
        }
    }
}

/// Gives a launcher its place: our own, and one of our kind, takes the runs to come.
fn take_up(daemon: &Rc<Daemon>, id: LauncherId, relay: &Socket, judged: Judged) {
    let mut state = daemon.state.borrow_mut();
    let now = state.now();
    let Some(link) = state.links.get_mut(id) else { return };
    link.relay = Some(Rc::clone(relay));
    let apart = daemon.settings.apart;
    if apart {
        find_process(link);
    }
    let pid = link.pid;
    // Elsewhere another program is started than ours; whether it would still be this one only it can tell.
    let is_same =
        |theirs: Introduction| !theirs.replaced && (apart || theirs.program == program::of_this_process());
    let is_ours = link.introduction.is_some_and(is_same);
    let has_one = state.links.current().is_some();
    let is_current = judged.as_ref().is_none_or(|(_, ours)| *ours && is_ours && !has_one);
    if is_current {
        if let Some(pid) = pid.filter(|_| apart) {
            // The mounts that it can bind are those that count.
            daemon.aside.see_by(pid);
        }
        state.links.make_current(id);
        // Of one that is taken over, once all others are, too: what they have takes slots.
        if judged.is_none() {
            state.handle(Event::LauncherUp { now, launcher: id });
        }
    }
    drop(state);
    if let Some((told, _)) = judged {
        let _nobody_waits = told.send(is_current);
    }
}

/// The process of a launcher that was started elsewhere, by what it says.
fn find_process(link: &mut Link) {
    let said = link.introduction.and_then(|theirs| i32::try_from(theirs.pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = said.filter(|_| link.pid.is_none()) {
        link.pid = Some(pid.as_raw_nonzero().get());
        link.pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
    }
}

async fn greeting(daemon: &Rc<Daemon>, id: LauncherId, socket: &Socket) -> Result<Socket, String> {
    let mut buffer = vec![0; MAX_LAUNCH_INLINE + 1];
    loop {
        let (datagram, descriptors) =
            receive(socket, &mut buffer).await.map_err(|why| why.of("the launcher"))?;
        let (message, descriptors) =
            unpack(datagram, descriptors).map_err(|error| format!("the launcher's message: {error}"))?;
        let relay = daemon.state.borrow_mut().heard_launcher(id, message, descriptors)?;
        if let Some(relay) = relay {
            return make_async(relay)
                .map_err(|error| format!("the relay's socket can't be watched: {error}"));
        }
    }
}

/// Hears the relay until it has told of every ring there is.
async fn hear_of_rings(daemon: &Rc<Daemon>, socket: &Socket) -> Result<(), String> {
    let mut buffer = vec![0; MAX_LAUNCH_INLINE + 1];
    loop {
        let (datagram, descriptors) =
            receive(socket, &mut buffer).await.map_err(|why| why.of("the relay"))?;
        match unpack(datagram, descriptors) {
            Ok((FromRelay::Told, _none)) => return Ok(()),
            Ok((message, _none)) => daemon.state.borrow_mut().heard_relay(&message),
            Err(error) => return Err(format!("the relay's message: {error}")),
        }
    }
}

async fn read_launcher(daemon: &Rc<Daemon>, id: LauncherId, socket: &Socket) -> String {
    let mut buffer = vec![0; MAX_LAUNCH_INLINE + 1];
    let mut turn = Turn::default();
    loop {
        let (datagram, descriptors) = match receive(socket, &mut buffer).await {
            Ok(received) => received,
            Err(why) => return why.of("the launcher"),
        };
        let result = unpack(datagram, descriptors)
            .map_err(|error| format!("the launcher's message: {error}"))
            .and_then(|(message, descriptors)| {
                daemon.state.borrow_mut().heard_launcher(id, message, descriptors).map(drop)
            });
        if let Err(reason) = result {
            return reason;
        }
        turn.took_one().await;
    }
}

async fn read_relay(daemon: &Rc<Daemon>, socket: &Socket) -> String {
    let mut buffer = vec![0; MAX_LAUNCH_INLINE + 1];
    let mut turn = Turn::default();
    loop {
        let (datagram, descriptors) = match receive(socket, &mut buffer).await {
            Ok(received) => received,
            Err(why) => return why.of("the relay"),
        };
        match unpack(datagram, descriptors) {
            Ok((message, _none)) => daemon.state.borrow_mut().heard_relay(&message),
            Err(error) => return format!("the relay's message: {error}"),
        }
        turn.took_one().await;
    }
}

/// Why nothing was received.
enum Silence {
    Closed,
    Broken(io::Error),
    Truncated,
}

impl Silence {
    fn of(self, who: &str) -> String {
        match self {
            Self::Closed => format!("{who} ended"),
            Self::Broken(error) => format!("{who}'s channel broke: {error}"),
            Self::Truncated => format!("{who} sent more than a message may hold"),
        }
    }
}

async fn receive<'a>(socket: &Socket, buffer: &'a mut [u8]) -> Result<(&'a [u8], Vec<OwnedFd>), Silence> {
    loop {
        let mut guard = socket.readable().await.map_err(Silence::Broken)?;
        match guard.try_io(|socket| socket::receive(socket, buffer)) {
            Err(_would_block) => {}
            Ok(Err(error)) => return Err(Silence::Broken(error)),
            Ok(Ok(received)) if received.length == 0 => return Err(Silence::Closed),
            Ok(Ok(received)) if received.truncated => return Err(Silence::Truncated),
            Ok(Ok(received)) => return Ok((&buffer[..received.length], received.descriptors)),
        }
    }
}

/// Sends what could not be sent at once.
async fn send_all(daemon: &Rc<Daemon>, id: LauncherId) -> String {
    const GONE: &str = "the launcher is gone";
    let Some(bell) = daemon.state.borrow().links.get(id).map(|link| Rc::clone(&link.bell)) else {
        return GONE.to_owned();
    };
    loop {
        let release_at = daemon.state.borrow().links.get(id).and_then(|link| link.release_at);
        tokio::select! {
            () = bell.notified() => {}
            () = sleep_until_some(release_at) => {
                if let Some(link) = daemon.state.borrow_mut().links.get_mut(id) {
                    link.tell_released();
                }
            }
        }
        loop {
            let (launcher, relay, channel, relay_socket) = {
                let mut state = daemon.state.borrow_mut();
                let Some(link) = state.links.get_mut(id) else { return GONE.to_owned() };
                if let Some(reason) = link.replace.take() {
                    return reason;
                }
                let (launcher, relay) = (link.flush(), link.flush_relay());
                let (channel, relay_socket) = (link.channel.clone(), link.relay.clone());
                state.told_of_taken();
                (launcher, relay, channel, relay_socket)
            };
            match (blocked(launcher), blocked(relay)) {
                (Err(error), _) => return format!("the launcher's channel broke: {error}"),
                (_, Err(error)) => return format!("the relay's channel broke: {error}"),
                (Ok(false), Ok(false)) => break,
                (Ok(true), _) => wait_writable(channel.as_ref(), &bell).await,
                (_, Ok(true)) => wait_writable(relay_socket.as_ref(), &bell).await,
            }
        }
    }
}

async fn sleep_until_some(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => core::future::pending().await,
    }
}

fn blocked(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

/// Waits until a full socket takes more, for a moment at the most: descriptors in flight ring no bell when they
/// land, and the other socket may have room meanwhile.
async fn wait_writable(socket: Option<&Socket>, bell: &tokio::sync::Notify) {
    let Some(socket) = socket else { return };
    let writable = async {
        match socket.writable(OwnedFd::try_clone).await {
            // Before the next attempt: an edge that comes in between sets it again.
            Ok(mut guard) => guard.clear_ready(),
            // No descriptor is left: the pause it is.
            Err(_error) => core::future::pending().await,
        }
    };
    tokio::select! {
        () = writable => {}
        () = bell.notified() => {}
        () = sleep(IN_FLIGHT_PAUSE) => {}
    }
}

/// Asks the launchers to end, and waits for them.
pub(crate) async fn shut_down(daemon: &Rc<Daemon>) {
    let gone = {
        let mut state = daemon.state.borrow_mut();
        state.links.are_last = true;
        if let Err(error) = state.links.send_all(&ToLauncher::Shutdown) {
            tracing::error!(%error, "the launcher can't be asked to end");
        }
        Rc::clone(&state.links.gone)
    };
    let all = async {
        while !daemon.state.borrow().links.is_empty() {
            gone.notified().await;
        }
    };
    if timeout(END_WITHIN, all).await.is_err() {
        tracing::error!("the launcher doesn't end when asked, and is killed");
    }
}
