//! Who ends a launcher whose loop doesn't turn: systemd, in a unit of the launcher's own (`WatchdogSec=`; sd_notify(3)).
//!
//! A supervisor that isn't root can't kill one that is.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// The shortest time that is taken for one: a typing error mustn't keep a processor busy.
const SHORTEST: Duration = Duration::from_millis(100);
/// What is told.
const ALIVE: &[u8] = b"WATCHDOG=1";

/// One that wants to hear from us.
#[derive(Debug)]
pub(super) struct Watchdog {
    socket: UnixDatagram,
    every: Duration,
    next: Instant,
}

impl Watchdog {
    /// Of this process's environment, if there is one and it is meant.
    pub(super) fn of_this_process() -> Option<Self> {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let within = Duration::from_micros(number("WATCHDOG_USEC")?);
        if std::env::var_os("WATCHDOG_PID").is_some() && number("WATCHDOG_PID")? != std::process::id().into()
        {
            return None;
        }
        let path = std::env::var_os("NOTIFY_SOCKET")?;
        let address = match path.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&path),
        };
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_nonblocking(true).ok()?;
        socket.connect_addr(&address.ok()?).ok()?;
        // Half of the time, as sd_watchdog_enabled(3) advises.
        Some(Self { socket, every: (within / 2).max(SHORTEST), next: Instant::now() })
    }

    /// When it's to hear from us.
    pub(super) fn due(&self) -> Instant {
        self.next
    }

    /// Tells it that we are alive, if it's time.
    pub(super) fn pat(&mut self, now: Instant) {
        if now >= self.next {
            // One that doesn't read doesn't care.
            drop(self.socket.send(ALIVE));
            self.next = now + self.every;
        }
    }
}
