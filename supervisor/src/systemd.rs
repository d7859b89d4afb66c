//! What systemd is told of us (sd_notify(3)), and the watchdog that it keeps on us.
//!
//! ```text
//! starting ──launcher up──> READY=1 ──SIGHUP──> RELOADING=1, READY=1 ──SIGTERM──> STOPPING=1, EXTEND_TIMEOUT_USEC=…
//!                              └── STATUS= when the figures have changed, once a second at the most
//! ```
//!
//! Everything is sent from the daemon's one thread, the watchdog's message too: a loop that hangs doesn't send it.
//! Sending never waits; a message that systemd doesn't take now is lost, and what it said is said again by the next.
//! Without `NOTIFY_SOCKET` nothing here does anything, and while nothing changes nothing here wakes up but for the
//! watchdog.

use core::cell::Cell;
use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::rc::Rc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::daemon::Daemon;

/// How often the status line may change.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// While runs get their grace, systemd is asked for more time so often…
const EXTEND_EVERY: Duration = Duration::from_secs(5);
/// …and for so much. What is left when the last run has ended is enough for clients' last events and the launcher's end.
const EXTEND_BY: Duration = Duration::from_secs(20);
/// Of the watchdog's time, the part after which it hears of us.
const WATCHDOG_DIVISOR: u32 = 2;

/// The way to systemd, if it has started us as a service that notifies.
#[derive(Debug, Default)]
pub(crate) struct Systemd {
    address: Option<SocketAddr>,
    watchdog: Option<Duration>,
    /// Whether it has been told that we serve.
    ready: Cell<bool>,
}

impl Systemd {
    /// As the environment says. A socket that can't be one is told of in the log, and nothing is sent.
    pub(crate) fn of_this_process() -> Self {
        let address = std::env::var_os("NOTIFY_SOCKET").and_then(|name| {
            address(&name)
                .inspect_err(|error| tracing::warn!(%error, ?name, "NOTIFY_SOCKET can't be used"))
                .ok()
        });
        // Nobody to hear it: no watchdog either.
        let watchdog = address.as_ref().and_then(|_| sd_notify::watchdog_enabled());
        Self { address, watchdog, ready: Cell::new(false) }
    }

    /// A test in systemd's place.
    #[cfg(test)]
    pub(crate) fn at(path: &std::path::Path) -> Self {
        Self { address: Some(address(path.as_os_str()).unwrap()), ..Self::default() }
    }

    /// Before the policies are read again, if anybody waits for that: whether it's to be told when they have been.
    pub(crate) fn reloading(&self) -> bool {
        if !self.ready.get() {
            return false;
        }
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "systemd can't be told of the reload"),
        }
        true
    }

    /// And after it, if it was told of its beginning.
    pub(crate) fn reloaded(&self) {
        self.send(&[NotifyState::Ready]);
    }

    /// Once we have been told to stop.
    pub(crate) fn stopping(&self) {
        self.send(&[NotifyState::Stopping, more_time()]);
    }

    pub(crate) fn send(&self, states: &[NotifyState<'_>]) {
        self.send_with(states, &[]);
    }

    /// With descriptors beside it.
    pub(crate) fn send_with(&self, states: &[NotifyState<'_>], descriptors: &[BorrowedFd<'_>]) {
        let Some(address) = &self.address else { return };
        let text: String = states.iter().map(|state| format!("{state}\n")).collect();
        // A socket each time: systemd's own may be another one since the last.
        let sent = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.connect_addr(address)?;
            stockade_wire::socket::send(&socket, text.as_bytes(), descriptors)
        });
        if let Err(error) = sent {
            tracing::warn!(%error, text, "systemd can't be told");
        }
    }
}

/// A path, or a name in the abstract namespace behind an `@`.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor an abstract name")),
    }
}

/// As [`address`]: its bytes, and whether it is abstract.
#[cfg(feature = "fuzzing")]
pub(crate) fn address_of(name: &OsStr) -> io::Result<(Vec<u8>, bool)> {
    let address = address(name)?;
    let path = address.as_pathname().map(|path| path.as_os_str().as_bytes());
    let bytes = path.or(address.as_abstract_name()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok((bytes.to_vec(), path.is_none()))
}

fn more_time() -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(EXTEND_BY.as_micros()).unwrap_or(u32::MAX))
}

/// What the status line is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Figures {
    launcher: bool,
    running: usize,
    queued: usize,
    draining: bool,
}

impl Figures {
    fn of(daemon: &Daemon) -> Self {
        let state = daemon.state.borrow();
        let counts = state.dispatcher.counts();
        Self {
            launcher: state.links.current().is_some(),
            running: counts.running,
            queued: counts.queued,
            draining: counts.draining,
        }
    }

    fn line(self, ready: bool) -> String {
        let Self { launcher, running, queued, draining } = self;
        let what = match (draining, launcher) {
            (true, _) => "stopping, no new runs: ",
            (false, true) => "",
            (false, false) if ready => "no launcher, another is being started: ",
            (false, false) => "starting, no launcher yet: ",
        };
        format!("{what}{running} running, {queued} waiting")
    }
}

/// Tells systemd when we serve and how we are, as long as the daemon lives.
pub(crate) async fn report(daemon: Rc<Daemon>, systemd: Rc<Systemd>) {
    if systemd.address.is_none() {
        return;
    }
    let mut told = None;
    loop {
        let figures = Figures::of(&daemon);
        if told != Some(figures) {
            told = Some(figures);
            let line = figures.line(systemd.ready.get());
            if figures.launcher && !systemd.ready.replace(true) {
                systemd.send(&[NotifyState::Ready, NotifyState::Status(&line)]);
            } else {
                systemd.send(&[NotifyState::Status(&line)]);
            }
        }
        // Who starts us waits for the first message; after it nobody does.
        if systemd.ready.get() {
            sleep(STATUS_EVERY).await;
        }
        if figures.draining {
            systemd.send(&[more_time()]);
            let _unchanged = timeout(EXTEND_EVERY, daemon.changed.notified()).await;
        } else {
            daemon.changed.notified().await;
        }
    }
}

/// Tells the watchdog, if there is one, that the loop turns.
pub(crate) async fn pat_the_watchdog(systemd: Rc<Systemd>) {
    let Some(within) = systemd.watchdog.filter(|within| !within.is_zero()) else { return };
    let mut turns = interval(within / WATCHDOG_DIVISOR);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        systemd.send(&[NotifyState::Watchdog]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notify_socket_is_a_path_or_an_abstract_name() {
        assert_eq!(address(OsStr::new("/run/n")).unwrap().as_pathname(), Some("/run/n".as_ref()));
        assert_eq!(address(OsStr::new("@n")).unwrap().as_abstract_name(), Some(&b"n"[..]));
        for wrong in ["", "n", "vsock:2:1"] {
            assert!(address(OsStr::new(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_status_line_says_how_many_run_and_why_none_may_start() {
        let figures = Figures { launcher: true, running: 3, queued: 1, draining: false };
        assert_eq!(figures.line(true), "3 running, 1 waiting");
        assert!(Figures { launcher: false, ..figures }.line(true).starts_with("no launcher"));
        assert!(Figures { launcher: false, ..figures }.line(false).starts_with("starting"));
        assert!(Figures { draining: true, ..figures }.line(true).starts_with("stopping"));
    }

    /// Otherwise systemd could give up in between.
    #[test]
    fn more_time_is_asked_for_before_it_is_used_up() {
        assert!(EXTEND_BY >= 2 * (EXTEND_EVERY + STATUS_EVERY));
        assert!(more_time().to_string().ends_with("=20000000"));
    }
}
