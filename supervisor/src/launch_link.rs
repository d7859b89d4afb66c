//! Keeps a launcher: starts one, moves messages, and starts another when it dies.
//!
//! ```text
//! start ──> Hello sent ──> Hello received ──> messages both ways ──> it closes, breaks a rule, or is replaced
//!   ^                                                                        │ its runs end as Lost
//!   └────────────── after a pause that doubles while launchers die young ────┘
//! ```
//!
//! The relay's socket comes with the launcher's Hello; either one's end is the end of both, since a launcher
//! without its relay can't give a run its output. A launcher that is replaced is killed first: its runs die with
//! it, by the kernel's hand.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};
use std::rc::Rc;
use std::time::{Duration, Instant};

use stockade_protocol::bounds::MAX_LAUNCH_INLINE;
use stockade_protocol::launch::{LAUNCH_VERSION, ToLauncher};
use stockade_wire::channel::{Channel, unpack};
use stockade_wire::socket;
use tokio::time::{sleep, timeout};

use crate::daemon::Daemon;
use crate::dispatcher::Event;
use crate::launcher::LauncherError;
use crate::link::Socket;
use crate::turn::Turn;
use crate::watched::Watched;

/// How long a fresh launcher may take to introduce itself.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
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

/// Starts launchers. In tests something else answers the channel.
pub(crate) type Starter = Box<dyn FnMut() -> Result<(Channel, Option<Child>), LauncherError>>;

/// Keeps a launcher until the daemon's last hour.
pub(crate) async fn keep(daemon: Rc<Daemon>, mut starter: Starter) {
    let mut young = 0_u32;
    loop {
        let born = Instant::now();
        let reason = match starter() {
            Ok((channel, child)) => live(&daemon, channel, child).await,
            Err(error) => crate::admission::chain(&error),
        };
        if daemon.state.borrow().link.is_last {
            tracing::info!(reason, "the launcher has ended");
            daemon.state.borrow_mut().launcher_died(reason);
            return;
        }
        tracing::error!(reason, "the launcher is gone");
        young = if born.elapsed() < YOUNG { young + 1 } else { 1 };
        {
            let mut state = daemon.state.borrow_mut();
            state.launcher_died(reason.clone());
            if young >= GIVE_UP_AFTER {
                let now = state.now();
                state.handle(Event::LauncherUnavailable { now, reason });
            }
        }
        if young > 1 {
            sleep((FIRST_PAUSE * 2_u32.saturating_pow(young - 2)).min(LONGEST_PAUSE)).await;
        }
    }
}

/// One launcher's life. Why it ended.
async fn live(daemon: &Rc<Daemon>, channel: Channel, child: Option<Child>) -> String {
    let mut child = Keeper(child);
    let socket = match make_async(channel.into_socket()) {
        Ok(socket) => socket,
        Err(error) => return format!("the launcher's channel can't be watched: {error}"),
    };
    {
        let mut state = daemon.state.borrow_mut();
        state.link.channel = Some(Rc::clone(&socket));
        state.link.child = child.pid();
        if let Err(error) = state.link.send(&ToLauncher::Hello { version: LAUNCH_VERSION }, Vec::new()) {
            return format!("the launcher can't be greeted: {error}");
        }
    }
    let reason = tokio::select! {
        reason = converse(daemon, &socket) => reason,
        reason = send_all(daemon) => reason,
    };
    match child.end().await {
        // Which socket was seen to close first says nothing; how the process ended does.
        Some(How::Itself(status)) => format!("the launcher died: {status}"),
        Some(How::Killed) => format!("the launcher was killed: {reason}"),
        None => reason,
    }
}

fn make_async(socket: OwnedFd) -> io::Result<Socket> {
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(Rc::new(Watched::new(socket)?))
}

/// Reads what the launcher says, and then its relay too.
async fn converse(daemon: &Rc<Daemon>, socket: &Socket) -> String {
    let relay = match timeout(HELLO_WITHIN, greeting(daemon, socket)).await {
        Ok(Ok(relay)) => relay,
        Ok(Err(reason)) => return reason,
        Err(_elapsed) => return "the launcher didn't introduce itself in time".to_owned(),
    };
    {
        let mut state = daemon.state.borrow_mut();
        state.link.relay = Some(Rc::clone(&relay));
        let now = state.now();
        state.handle(Event::LauncherUp { now });
    }
    tokio::select! {
        reason = read_launcher(daemon, socket) => reason,
        reason = read_relay(daemon, &relay) => reason,
    }
}

async fn greeting(daemon: &Rc<Daemon>, socket: &Socket) -> Result<Socket, String> {
    let mut buffer = vec![0; MAX_LAUNCH_INLINE + 1];
    loop {
        let (datagram, descriptors) =
            receive(socket, &mut buffer).await.map_err(|why| why.of("the launcher"))?;
        let (message, descriptors) =
            unpack(datagram, descriptors).map_err(|error| format!("the launcher's message: {error}"))?;
        let relay = daemon.state.borrow_mut().heard_launcher(message, descriptors)?;
        if let Some(relay) = relay {
            return make_async(relay)
                .map_err(|error| format!("the relay's socket can't be watched: {error}"));
        }
    }
}

async fn read_launcher(daemon: &Rc<Daemon>, socket: &Socket) -> String {
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
                daemon.state.borrow_mut().heard_launcher(message, descriptors).map(drop)
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
async fn send_all(daemon: &Rc<Daemon>) -> String {
    let bell = Rc::clone(&daemon.state.borrow().link.bell);
    loop {
        bell.notified().await;
        loop {
            let (launcher, relay, channel, relay_socket) = {
                let mut state = daemon.state.borrow_mut();
                if let Some(reason) = state.link.replace.take() {
                    return reason;
                }
                let (launcher, relay) = (state.link.flush(), state.link.flush_relay());
                (launcher, relay, state.link.channel.clone(), state.link.relay.clone())
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
        match socket.writable().await {
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

/// Asks the launcher to end, and waits for it.
pub(crate) async fn shut_down(daemon: &Rc<Daemon>) {
    let gone = {
        let mut state = daemon.state.borrow_mut();
        state.link.is_last = true;
        if state.link.channel.is_none() {
            return;
        }
        if let Err(error) = state.link.send(&ToLauncher::Shutdown, Vec::new()) {
            tracing::error!(%error, "the launcher can't be asked to end");
        }
        Rc::clone(&state.link.gone)
    };
    if timeout(END_WITHIN, gone.notified()).await.is_err() {
        tracing::error!("the launcher doesn't end when asked, and is killed");
    }
}

/// A launcher's process: killed if it is still there when we let go of it.
struct Keeper(Option<Child>);

/// How a launcher's process ended.
enum How {
    Itself(ExitStatus),
    Killed,
}

impl Keeper {
    fn pid(&self) -> Option<i32> {
        self.0.as_ref().and_then(|child| i32::try_from(child.id()).ok())
    }

    /// Waits a little for its end, then kills it. How it ended.
    async fn end(&mut self) -> Option<How> {
        let child = self.0.as_mut()?;
        let until = Instant::now() + Duration::from_millis(500);
        loop {
            match child.try_wait() {
                Ok(Some(status)) => {
                    self.0 = None;
                    return Some(How::Itself(status));
                }
                Ok(None) if Instant::now() < until => sleep(Duration::from_millis(5)).await,
                Ok(None) | Err(_) => break,
            }
        }
        self.kill();
        Some(How::Killed)
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.0.take()
            && let Err(error) = child.kill().and_then(|()| child.wait().map(drop))
        {
            tracing::error!(%error, "the launcher can't be killed");
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.kill();
    }
}
