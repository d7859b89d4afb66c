//! The probe's only unsafe code: system calls by number, as no library would make them, and a process of its own for
//! each try. Nothing in this file decides anything.
#![allow(unsafe_code, reason = "calls that no safe wrapper makes are what is tried")]

use std::ffi::CString;

/// One argument of a system call.
#[derive(Debug)]
pub(crate) enum Word {
    /// As it is, all 64 bits of it.
    Number(u64),
    /// The address of a text with its end.
    Text(CString),
    /// The address of a buffer.
    Buffer(Vec<u8>),
}

impl Word {
    fn value(&mut self) -> u64 {
        match self {
            Self::Number(number) => *number,
            Self::Text(text) => text.as_ptr().expose_provenance() as u64,
            Self::Buffer(bytes) => bytes.as_mut_ptr().expose_provenance() as u64,
        }
    }
}

/// Makes a system call by its number with up to six arguments; missing ones are 0.
///
/// # Errors
/// The errno.
pub(crate) fn call(number: i64, words: &mut [Word]) -> Result<i64, i32> {
    let mut values = [0_u64; 6];
    for (value, word) in values.iter_mut().zip(words) {
        *value = word.value();
    }
    let [a, b, c, d, e, f] = values;
    // SAFETY: addresses among the arguments are of texts and buffers that live until the call is over; what the kernel writes
    // to it writes to a buffer that is larger than the structure the call names. Whatever else a hostile call does, it does
    // to this process, which has been made for this one call.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if answer == -1 { Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { Ok(answer) }
}

/// Makes `getpid` by the 32-bit gate, whose numbers are another architecture's.
///
/// # Errors
/// The errno.
#[cfg(target_arch = "x86_64")]
pub(crate) fn getpid_by_old_gate() -> Result<i64, i32> {
    const GETPID: i32 = 20;
    let mut answer = GETPID;
    // SAFETY: the gate reads eax, answers there, and clobbers what is named; this call takes no address.
    unsafe {
        core::arch::asm!("int 0x80", inout("eax") answer, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    if answer < 0 { Err(-answer) } else { Ok(answer.into()) }
}

/// Other architectures have no such gate.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn getpid_by_old_gate() -> Result<i64, i32> {
    Err(libc::ENOSYS)
}

/// fork(2): whether the caller is the child, else the child's number. For a process with one thread, which the probe is
/// when it forks.
///
/// # Errors
/// Those of fork(2).
pub(crate) fn fork() -> nix::Result<nix::unistd::ForkResult> {
    // SAFETY: there is one thread, so the child has everything in the state it was in here.
    unsafe { nix::unistd::fork() }
}

/// Ends this process without running what another copy of it would run as well.
pub(crate) fn leave(code: i32) -> ! {
    // SAFETY: it takes a number and doesn't return.
    unsafe { libc::_exit(code) }
}

/// Ends this process by SIGALRM after so many seconds.
pub(crate) fn die_in(seconds: u32) {
    // SAFETY: it takes a number, and no handler is set.
    unsafe { libc::alarm(seconds) };
}
