//! What the clocks say, and a timer by the one that counts through sleep.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use stockade_gate::grants::Clocks;

/// What names one start of the machine.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// The longest name of one.
const MAX_BOOT: usize = 64;

/// What they say now.
pub(crate) fn now() -> Clocks {
    let boot = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(boot.tv_sec).unwrap_or(0);
    let boot = Duration::new(seconds, u32::try_from(boot.tv_nsec).unwrap_or(0));
    Clocks { boot, wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() }
}

/// This start of the machine; empty: nobody knows, and it's never taken for an earlier one.
pub(super) fn boot() -> String {
    let text = std::fs::read_to_string(BOOT).unwrap_or_default();
    text.trim().chars().take(MAX_BOOT).collect()
}

/// A timer.
pub(super) fn timer() -> io::Result<OwnedFd> {
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    Ok(timerfd_create(TimerfdClockId::Boottime, flags)?)
}

/// Has it ring after so long; none: not at all.
pub(super) fn set(timer: &OwnedFd, after: Option<Duration>) -> io::Result<()> {
    // Nothing would be "not at all".
    let after = after.map(|after| after.max(Duration::from_nanos(1)));
    let value = after.map_or(Timespec { tv_sec: 0, tv_nsec: 0 }, |after| Timespec {
        tv_sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(after.subsec_nanos()),
    });
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
    Ok(())
}
