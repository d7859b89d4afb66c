//! System calls of a process held up and answered from outside: seccomp's user notification (seccomp_unotify(2)).
//!
//! The suite's only unsafe code: the kernel has no other way to it than seccomp(2) and ioctl(2), and the libraries that we
//! link wrap neither the flag nor the requests.
#![allow(unsafe_code, reason = "system calls that no library of ours wraps")]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};

use syscalls::Sysno;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// A system call that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    id: u64,
    /// The thread that calls, as we see it.
    pub thread: u32,
    /// What it calls.
    pub call: Sysno,
    /// With what, as numbers.
    pub arguments: [u64; 6],
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The kernel does it.
    Go,
    /// It comes back with this errno, and nothing was done.
    Fail(i32),
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap(), jt: 0, jf: 0, k }
}

fn jump(k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    let code = u16::try_from(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K).unwrap();
    libc::sock_filter { code, jt, jf, k }
}

/// Holds up these calls for a listener and lets all others pass.
fn program(calls: &[Sysno]) -> Vec<libc::sock_filter> {
    let load = |at: u32| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at);
    let answer = |what: u32| statement(libc::BPF_RET | libc::BPF_K, what);
    let mut program = vec![load(4), jump(ARCHITECTURE, 1, 0), answer(libc::SECCOMP_RET_ALLOW), load(0)];
    for call in calls {
        program.push(jump(u32::try_from(call.id()).unwrap(), 0, 1));
        program.push(answer(libc::SECCOMP_RET_USER_NOTIF));
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program
}

/// Has these calls of this thread, and of whatever it becomes or starts, wait for who holds the descriptor that is made. From
/// now on each of them blocks until somebody answers.
///
/// # Errors
/// Those of seccomp(2): `EBUSY` where somebody listens already.
pub fn hold_up(calls: &[Sysno]) -> io::Result<OwnedFd> {
    if !rustix::process::geteuid().is_root() {
        rustix::thread::set_no_new_privs(true)?;
    }
    let mut instructions = program(calls);
    let program = libc::sock_fprog {
        len: u16::try_from(instructions.len()).unwrap(),
        filter: instructions.as_mut_ptr(),
    };
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    // SAFETY: the kernel reads the structure and as many instructions as it names; both live until it returns.
    let made =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: with this flag the call returns a descriptor that it has just made, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(made).unwrap()) })
}

/// The next call that waits; `None` if the one that was there has gone.
///
/// # Errors
/// Those of the ioctl.
pub fn receive(listener: impl AsFd) -> io::Result<Option<Held>> {
    let data = libc::seccomp_data { nr: 0, arch: 0, instruction_pointer: 0, args: [0; 6] };
    let mut notice = libc::seccomp_notif { id: 0, pid: 0, flags: 0, data };
    // SAFETY: the kernel writes one structure of this type, which is zeroed as it demands.
    let came =
        unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notice) };
    if came < 0 {
        let error = io::Error::last_os_error();
        let gone = [Some(libc::ENOENT), Some(libc::EINTR)].contains(&error.raw_os_error());
        return if gone { Ok(None) } else { Err(error) };
    }
    let call = usize::try_from(notice.data.nr).ok().and_then(Sysno::new);
    Ok(call.map(|call| Held { id: notice.id, thread: notice.pid, call, arguments: notice.data.args }))
}

/// Answers a call. Whoever called may be gone.
///
/// # Errors
/// Those of the ioctl.
pub fn answer(listener: impl AsFd, held: &Held, answer: Answer) -> io::Result<()> {
    let (error, flags) = match answer {
        Answer::Go => (0, u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap()),
        Answer::Fail(errno) => (-errno, 0),
    };
    let response = libc::seccomp_notif_resp { id: held.id, val: 0, error, flags };
    // SAFETY: the kernel reads one structure of this type.
    let sent = unsafe {
        libc::ioctl(listener.as_fd().as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const response)
    };
    if sent < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ENOENT) { Ok(()) } else { Err(error) };
    }
    Ok(())
}
