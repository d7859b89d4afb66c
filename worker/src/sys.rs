//! The only unsafe code of the project: one function a system call, one block a function, one reason a block.
//!
//! What `rustix` and `nix` offer safely isn't here. Nothing in this file decides anything.
#![allow(unsafe_code, reason = "this is the one file where system calls without a safe wrapper are made")]

use core::ffi::{c_char, c_int, c_long, c_void};
use core::ptr;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::mm::{MapFlags, ProtFlags};
use rustix::process::Pid;

use crate::program::{Openings, Program, RawOpening, Strings};

use crate::room::ToolStack;

/// What `clone3` answers: who we are now.
#[derive(Debug)]
pub(crate) enum Cloned {
    /// The new process.
    Child,
    /// The caller; the child, and a descriptor of it.
    Parent {
        /// The child's process id as the caller sees it.
        pid: Pid,
        /// The child's pidfd, close-on-exec.
        pidfd: OwnedFd,
    },
}

/// `struct clone_args` (linux/sched.h), size version 2.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// `clone3(2)` like `fork`: the child goes on here, on a copy of this memory. `flags` are `CLONE_NEW*` and
/// `CLONE_PARENT`; `cgroup` is the directory of the group to be born in.
///
/// # Errors
/// Those of clone3(2).
pub(crate) fn clone_process(flags: c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut pidfd: c_int = -1;
    let into_cgroup: u64 = if cgroup.is_some() { 0x2_0000_0000 } else { 0 };
    let parent = flags & libc::CLONE_PARENT != 0;
    let args = CloneArgs {
        flags: u64::from(flags.cast_unsigned()) | u64::from(libc::CLONE_PIDFD.cast_unsigned()) | into_cgroup,
        pidfd: ptr::from_mut(&mut pidfd).expose_provenance() as u64,
        exit_signal: if parent { 0 } else { u64::from(libc::SIGCHLD.cast_unsigned()) },
        cgroup: cgroup.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned())),
        ..CloneArgs::default()
    };
    // SAFETY: the kernel reads `args` for its size, which is that of the struct above, and writes one int through
    // its `pidfd`, which outlives the call. No stack and no CLONE_VM: the child has its own copy of everything,
    // and the caller has one thread, so no lock is held by a thread that doesn't exist in the copy.
    let answer = unsafe { libc::syscall(libc::SYS_clone3, ptr::from_ref(&args), size_of::<CloneArgs>()) };
    let answer = match check(answer) {
        // A filter around us that can't read the arguments (a container's, our own) says there is no such call.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) && cgroup.is_none() => {
            clone_as_before(&args, &mut pidfd)?
        }
        other => other?,
    };
    match c_int::try_from(answer) {
        Ok(0) => Ok(Cloned::Child),
        Ok(raw) => {
            let pid = Pid::from_raw(raw).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
            Ok(Cloned::Parent { pid, pidfd: own(pidfd) })
        }
        Err(_) => Err(io::Error::from_raw_os_error(libc::EOVERFLOW)),
    }
}

/// `clone(2)` for what [`clone_process`] asks: flags and the exit signal in one word, the pidfd where the parent's
/// copy of the thread id would go.
fn clone_as_before(args: &CloneArgs, pidfd: &mut c_int) -> io::Result<c_long> {
    let word = c_long::try_from(args.flags | args.exit_signal)
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: as with clone3 above: the kernel writes one int through `pidfd`, which outlives the call. The stack is
    // 0, so the child goes on with a copy of ours; the other two, whose order differs by architecture, are unused.
    let answer =
        unsafe { libc::syscall(libc::SYS_clone, word, 0_usize, ptr::from_mut(pidfd), 0_usize, 0_usize) };
    check(answer)
}

/// Takes a descriptor that a call above has just made.
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: every caller passes a descriptor that the kernel returned in the call before, which nothing else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// What `mount_setattr` should change.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct MountAttributes<'a> {
    /// `MOUNT_ATTR_*` to set.
    pub(crate) set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub(crate) clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, or 0.
    pub(crate) propagation: u64,
    /// The user namespace of an idmapped mount; adds `MOUNT_ATTR_IDMAP`.
    pub(crate) idmap: Option<BorrowedFd<'a>>,
}

/// `mount_setattr(2)` on the mount that `mount` is (an `open_tree` or `fsmount` descriptor).
///
/// # Errors
/// Those of `mount_setattr(2)`; `EINVAL` for a filesystem that can't be idmapped.
pub(crate) fn mount_setattr(
    mount: BorrowedFd<'_>,
    recursive: bool,
    attributes: MountAttributes<'_>,
) -> io::Result<()> {
    let (idmap, userns) = match attributes.idmap {
        Some(fd) => (libc::MOUNT_ATTR_IDMAP, u64::from(fd.as_raw_fd().cast_unsigned())),
        None => (0, 0),
    };
    let raw = libc::mount_attr {
        attr_set: attributes.set | idmap,
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: userns,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the kernel reads an empty, NUL-terminated path and `raw` for its size; it writes nothing of ours.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            ptr::from_ref(&raw),
            size_of::<libc::mount_attr>(),
        )
    };
    check(answer).map(drop)
}

/// Installs a seccomp filter on the calling thread (`SECCOMP_SET_MODE_FILTER`).
///
/// # Errors
/// Those of seccomp(2); `EACCES` without `no_new_privs`.
pub(crate) fn install_filter(program: &Program) -> io::Result<()> {
    let raw = program.as_raw();
    // SAFETY: the kernel reads `raw` and the instructions it points to, which `program` owns and keeps meanwhile.
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, ptr::from_ref(&raw)) };
    check(answer).map(drop)
}

/// `ioprio_set(2)` for the calling process.
///
/// # Errors
/// Those of `ioprio_set(2)`.
pub(crate) fn set_io_priority(class: c_int, level: c_int) -> io::Result<()> {
    const WHO_PROCESS: c_int = 1;
    // SAFETY: three integers; the kernel reads and writes no memory of ours.
    let answer = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, (class << 13) | level) };
    check(answer).map(drop)
}

/// Joins a new, anonymous session keyring (keyctl(2), `KEYCTL_JOIN_SESSION_KEYRING`), so that no run shares its
/// caller's.
///
/// # Errors
/// Those of keyctl(2); `ENOSYS` on a kernel without keys.
pub(crate) fn join_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring; the kernel reads and writes no memory of ours.
    let answer = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, ptr::null::<c_char>()) };
    check(answer).map(drop)
}

/// Brings the loopback interface of the current network namespace up (netdevice(7), `SIOCSIFFLAGS`).
///
/// # Errors
/// Those of the ioctl.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut name = [0; libc::IFNAMSIZ];
    name[0] = b'l'.cast_signed();
    name[1] = b'o'.cast_signed();
    let up = c_int::from(i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(i16::MAX));
    let request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: i16::try_from(up).unwrap_or(0) },
    };
    // SAFETY: the kernel reads one `ifreq`, which outlives the call, and writes nothing back for this request.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, ptr::from_ref(&request)) };
    check(answer.into()).map(drop)
}

/// Sets the dispositions of signals (bit n-1 is signal n) back to the default: what a tool expects to be born with.
pub(crate) fn reset_signals(which: u64) {
    for signal in (1..=64).filter(|signal| which & 1 << (signal - 1) != 0) {
        // SAFETY: SIG_DFL installs no code of ours; for SIGKILL, SIGSTOP and libc's own signals the call fails and
        // changes nothing.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// What `wait4` says of an ended child.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reaped {
    /// Which.
    pub(crate) pid: Pid,
    /// The raw wait status.
    pub(crate) status: i32,
    /// What it and its waited-for descendants used.
    pub(crate) usage: libc::rusage,
}

/// `wait4(2)` without waiting: any child if `pid` is `None`. `Ok(None)`: none has ended.
///
/// # Errors
/// Those of wait4(2); `ECHILD` if there is no child.
pub(crate) fn try_wait(pid: Option<Pid>) -> io::Result<Option<Reaped>> {
    let mut status: c_int = 0;
    let mut usage = empty_usage();
    let which = pid.map_or(-1, |pid| pid.as_raw_nonzero().get());
    // SAFETY: the kernel writes one int and one `rusage`, both ours and outliving the call.
    let answer = unsafe {
        libc::wait4(
            which,
            ptr::from_mut(&mut status),
            libc::WNOHANG | libc::__WALL,
            ptr::from_mut(&mut usage),
        )
    };
    let raw = check(answer.into())?;
    let pid = i32::try_from(raw).ok().and_then(Pid::from_raw);
    Ok(pid.map(|pid| Reaped { pid, status, usage }))
}

/// Nothing used.
pub(crate) fn empty_usage() -> libc::rusage {
    // SAFETY: `rusage` is integers only; all zero bytes are a valid value of it.
    unsafe { core::mem::zeroed() }
}

/// What a tool's exec needs, everything allocated before: between vfork and exec only system calls are made.
#[derive(Debug)]
pub(crate) struct ExecPlan {
    candidates: Vec<CString>,
    arguments: Strings,
    environment: Strings,
    stdio: [OwnedFd; 3],
    landlock: Option<OwnedFd>,
    filters: Vec<Program>,
    openings: Openings,
    stack: ToolStack,
}

/// Where a tool's start failed, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExecStep {
    /// `setsid`.
    Session,
    /// `dup2` onto 0, 1, 2.
    Stdio,
    /// `landlock_restrict_self`.
    Landlock,
    /// `close_range`.
    Close,
    /// Opening a file below the workspace: which one.
    Open(usize),
    /// The delta filters.
    Seccomp,
    /// `execve` of every candidate.
    Exec,
}

impl ExecPlan {
    /// `stdio` descriptors must be above 2. `candidates` are tried in order. The tool is held by a Landlock ruleset and filters.
    pub(crate) fn new(
        candidates: Vec<CString>,
        arguments: Vec<CString>,
        environment: Vec<CString>,
        stdio: [OwnedFd; 3],
        (landlock, filters): (Option<OwnedFd>, Vec<Program>),
        openings: Openings,
        stack: ToolStack,
    ) -> Self {
        Self {
            candidates,
            arguments: Strings::new(arguments),
            environment: Strings::new(environment),
            stdio,
            landlock,
            filters,
            openings,
            stack,
        }
    }

    /// Starts the tool as `clone(CLONE_VM|CLONE_VFORK)` + exec and gives its process id. The caller's memory is
    /// shared and the caller stopped until the exec, so this costs the same whatever the caller's size.
    ///
    /// # Errors
    /// The step that failed and its errno; nothing runs then. `Ok(Err)` is the child's failure, `Err` clone's.
    pub(crate) fn start(mut self) -> io::Result<Result<Pid, (ExecStep, i32)>> {
        let mut child = ChildPlan {
            candidates: self.candidates.iter().map(|c| c.as_ptr()).collect(),
            arguments: self.arguments.pointers.as_ptr(),
            environment: self.environment.pointers.as_ptr(),
            stdio: [self.stdio[0].as_raw_fd(), self.stdio[1].as_raw_fd(), self.stdio[2].as_raw_fd()],
            landlock: self.landlock.as_ref().map_or(-1, AsRawFd::as_raw_fd),
            filters: self.filters.iter().map(Program::as_raw).collect(),
            openings: self.openings.as_raw(),
            failure: None,
        };
        let top = self.stack.top().cast::<c_void>();
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: the child runs `tool_child` on a stack of its own, whose top `top` is and which outlives it
        // (CLONE_VFORK: we don't run until it has exec'd or ended). It gets `child`, all of whose pointers point
        // into `self`, which lives as long. It allocates nothing and takes no lock.
        let answer = unsafe { libc::clone(tool_child, top, flags, ptr::from_mut(&mut child).cast()) };
        let raw = check(answer.into())?;
        if let Some(failure) = child.failure {
            return Ok(Err(failure));
        }
        let pid = i32::try_from(raw).ok().and_then(Pid::from_raw);
        pid.map(Ok).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
    }
}

struct ChildPlan {
    candidates: Vec<*const c_char>,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    stdio: [RawFd; 3],
    landlock: RawFd,
    filters: Vec<libc::sock_fprog>,
    openings: Vec<RawOpening>,
    failure: Option<(ExecStep, i32)>,
}

/// The tool's process between vfork and exec. System calls only: it shares the memory of its stopped parent.
extern "C" fn tool_child(plan: *mut c_void) -> c_int {
    // SAFETY: `ExecPlan::start` passes a `ChildPlan` that outlives this process's use of the shared memory, and is
    // stopped meanwhile, so this is the only reference.
    let plan = unsafe { &mut *plan.cast::<ChildPlan>() };
    let step = tool_steps(plan);
    plan.failure = Some((step, errno()));
    127
}

/// Runs until a step fails; gives that step. On success the program is another.
fn tool_steps(plan: &ChildPlan) -> ExecStep {
    if unblock_signals() < 0 || call(libc::SYS_setsid, [0; 4]) < 0 {
        return ExecStep::Session;
    }
    for (target, source) in (0..).zip(plan.stdio) {
        if call(libc::SYS_dup3, [source.into(), target, 0, 0]) < 0 {
            return ExecStep::Stdio;
        }
    }
    if plan.landlock >= 0 && call(libc::SYS_landlock_restrict_self, [plan.landlock.into(), 0, 0, 0]) < 0 {
        return ExecStep::Landlock;
    }
    if call(libc::SYS_close_range, [3, c_long::from(i32::MAX), 0, 0]) < 0 {
        return ExecStep::Close;
    }
    for (at, opening) in plan.openings.iter().enumerate() {
        if open_below(opening) < 0 {
            return ExecStep::Open(at);
        }
    }
    for filter in &plan.filters {
        let address = ptr::from_ref(filter).expose_provenance().cast_signed() as c_long;
        if call(libc::SYS_seccomp, [libc::SECCOMP_SET_MODE_FILTER.into(), 0, address, 0]) < 0 {
            return ExecStep::Seccomp;
        }
    }
    let mut best = libc::ENOENT;
    for candidate in &plan.candidates {
        let addresses = [
            candidate.expose_provenance().cast_signed() as c_long,
            plan.arguments.expose_provenance().cast_signed() as c_long,
            plan.environment.expose_provenance().cast_signed() as c_long,
            0,
        ];
        call(libc::SYS_execve, addresses);
        match errno() {
            libc::ENOENT | libc::ENOTDIR => {}
            // Found but not for us: a later candidate may do (execvp(3)).
            libc::EACCES => best = libc::EACCES,
            other => {
                best = other;
                break;
            }
        }
    }
    set_errno(best);
    ExecStep::Exec
}

/// Opens a regular file step by step from a directory, through no symbolic link, and gives it its number. After Landlock and before
/// the tool's own filter: `openat2`, which would do it in one step, is a call whose arguments no filter can read.
fn open_below(opening: &RawOpening) -> c_long {
    let (last, directories) = match opening.steps.split_last() {
        Some((last, directories)) if !directories.is_empty() => (*last, directories),
        _ => return fail(libc::EINVAL),
    };
    let mut at = c_long::from(libc::AT_FDCWD);
    for (depth, name) in directories.iter().enumerate() {
        // Where the workspace is the run's own mounts say; below it nothing leads elsewhere.
        let follow = if depth == 0 { 0 } else { libc::O_NOFOLLOW };
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC | follow;
        let next = open_at(at, *name, flags);
        close_directory(at);
        if next < 0 {
            return next;
        }
        at = next;
    }
    // Without O_NONBLOCK a FIFO would be waited for.
    let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = open_at(at, last, flags);
    close_directory(at);
    // EISDIR of a directory, ESPIPE of what is read only once. Where devices are no run has a workspace with namespaces.
    if file < 0 || call(libc::SYS_pread64, [file, 0, 0, 0]) < 0 {
        return -1;
    }
    let plain = [file, libc::F_SETFL.into(), libc::O_RDONLY.into(), 0];
    if call(libc::SYS_fcntl, plain) < 0 {
        return -1;
    }
    let number = c_long::from(opening.number);
    if file == number {
        return 0;
    }
    if call(libc::SYS_dup3, [file, number, 0, 0]) < 0 { -1 } else { call(libc::SYS_close, [file, 0, 0, 0]) }
}

fn open_at(at: c_long, name: *const c_char, flags: c_int) -> c_long {
    call(libc::SYS_openat, [at, name.expose_provenance().cast_signed() as c_long, flags.into(), 0])
}

/// Closing doesn't fail here, and the error of what was done before it stays.
fn close_directory(at: c_long) {
    if at >= 0 {
        let before = errno();
        call(libc::SYS_close, [at, 0, 0, 0]);
        set_errno(before);
    }
}

fn fail(errno: c_int) -> c_long {
    set_errno(errno);
    -1
}

/// One system call of integers and addresses, for the child between vfork and exec.
fn call(number: c_long, arguments: [c_long; 4]) -> c_long {
    let [a, b, c, d] = arguments;
    // SAFETY: called only from `tool_steps` and what it calls: the addresses it passes are those of the plan, which outlives the
    // child's use of this memory; the other arguments are integers.
    unsafe { libc::syscall(number, a, b, c, d) }
}

fn unblock_signals() -> c_long {
    let none: u64 = 0;
    // SAFETY: the kernel reads eight bytes of an empty signal set, which outlives the call.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            ptr::from_ref(&none),
            ptr::null::<u64>(),
            size_of::<u64>(),
        )
    }
}

fn errno() -> c_int {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn set_errno(value: c_int) {
    // SAFETY: the call only gives an address.
    let location = unsafe { libc::__errno_location() };
    // SAFETY: the address is that of this thread's errno, a valid int.
    unsafe { *location = value };
}

fn check(answer: c_long) -> io::Result<c_long> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// The Landlock ABI this kernel offers; 0 where it has none, or Landlock isn't switched on.
/// (`landlock_create_ruleset(2)` with `LANDLOCK_CREATE_RULESET_VERSION`.)
#[must_use]
pub fn landlock_abi() -> u8 {
    const VERSION: c_int = 1;
    // SAFETY: a null attribute of size 0 with the version flag asks for a number; no memory is read or written.
    let answer =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, ptr::null::<c_void>(), 0_usize, VERSION) };
    u8::try_from(answer).unwrap_or(0)
}

/// What a holder does, in memory that it shares with us.
struct HolderPlan {
    /// Our end of its socket: in its table of descriptors it's a copy, which must not keep it from seeing our end's end.
    ours: RawFd,
    theirs: RawFd,
    unshare: c_int,
}

/// Bytes of a holder's stack. It makes five system calls.
const HOLDER_STACK: usize = 16 * 1024;

/// Starts a process that is born in fresh namespaces (`CLONE_NEW*` of `born`), enters others (`unshare`; no user namespace,
/// which needs memory of its own), says so over its socket (an errno as four bytes, 0 for none), and holds them until the
/// socket's other end, `ours`, is closed. It shares our memory: a copy would cost more than all it does. Gives its pidfd.
///
/// # Errors
/// Those of clone(2).
pub(crate) fn hold(
    born: c_int,
    unshare: c_int,
    ours: BorrowedFd<'_>,
    theirs: BorrowedFd<'_>,
) -> io::Result<OwnedFd> {
    let plan = HolderPlan { ours: ours.as_raw_fd(), theirs: theirs.as_raw_fd(), unshare };
    // Neither is ever given back: it may still use them when we have forgotten it. A worker has three of them at most,
    // and ends with its run.
    let plan: &'static mut HolderPlan = Box::leak(Box::new(plan));
    // Not cleared: that would make all of it the worker's own memory, for as long as it waits.
    let stack = Box::leak(Box::<[u128]>::new_uninit_slice(HOLDER_STACK / size_of::<u128>()));
    let top = stack.as_mut_ptr_range().end.cast::<c_void>();
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_PIDFD | libc::SIGCHLD | born;
    // SAFETY: the child runs `holder` on a stack of its own, whose top `top` is, with `plan`; both live for ever and
    // nobody else uses them. The kernel writes one int through the pointer to `pidfd` before the call returns. The child
    // allocates nothing, takes no lock, and makes its system calls without the C library, whose errno is ours.
    let answer = unsafe {
        libc::clone(holder, top, flags, ptr::from_mut(plan).cast::<c_void>(), ptr::from_mut(&mut pidfd))
    };
    check(answer.into())?;
    Ok(own(pidfd))
}

/// The life of a holder: system calls only. One that can't tell that it holds doesn't: its end tells.
extern "C" fn holder(plan: *mut c_void) -> c_int {
    // SAFETY: `hold` passes a leaked `HolderPlan` that only this process uses from then on.
    let plan = unsafe { &*plan.cast::<HolderPlan>() };
    // SAFETY: a descriptor of this process's own table, a copy that `hold`'s clone made, in which nothing else uses it; its
    // copies elsewhere aren't touched.
    let ours = unsafe { OwnedFd::from_raw_fd(plan.ours) };
    // SAFETY: as above.
    let theirs = unsafe { OwnedFd::from_raw_fd(plan.theirs) };
    drop(ours);
    let errno = if plan.unshare == 0 { 0 } else { unshare_alone(plan.unshare) };
    let held = rustix::io::write(&theirs, &errno.to_ne_bytes());
    let held = held.and_then(|_told| rustix::io::read(&theirs, &mut [0]));
    c_int::from(held.is_err())
}

/// `unshare(2)` without the C library's errno: 0, or what went wrong.
fn unshare_alone(flags: c_int) -> c_int {
    let flags = rustix::thread::UnshareFlags::from_bits_retain(flags.cast_unsigned());
    // SAFETY: no flag that would take the descriptors of another thread away: callers pass `CLONE_NEW*` only.
    match unsafe { rustix::thread::unshare_unsafe(flags) } {
        Ok(()) => 0,
        Err(errno) => errno.raw_os_error(),
    }
}

/// Closes every descriptor above 2 but these.
///
/// # Errors
/// Those of `close_range(2)`.
pub(crate) fn close_all_but(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept.into_iter().chain([RawFd::MAX]) {
        if first < fd {
            // SAFETY: integers only. The descriptors' owners are copies that a cloned process never touches again.
            let answer =
                unsafe { libc::syscall(libc::SYS_close_range, c_long::from(first), c_long::from(fd - 1), 0) };
            check(answer)?;
        }
        first = first.max(fd.saturating_add(1));
    }
    Ok(())
}

/// `kcmp(2)` with `KCMP_VM`: whether two processes have one address space (one was vforked by the other, and hasn't
/// executed anything yet). Both pids as the caller sees them.
///
/// # Errors
/// Those of kcmp(2): `EPERM`, `ESRCH`, `ENOSYS` (a kernel without `CONFIG_KCMP`).
pub(crate) fn share_address_space(one: Pid, other: Pid) -> io::Result<bool> {
    const KCMP_VM: c_int = 1;
    // SAFETY: kcmp with KCMP_VM takes five numbers and touches no memory of ours.
    let order = unsafe {
        libc::syscall(libc::SYS_kcmp, one.as_raw_nonzero().get(), other.as_raw_nonzero().get(), KCMP_VM, 0, 0)
    };
    if order < 0 { Err(io::Error::last_os_error()) } else { Ok(order == 0) }
}

/// `sched_setscheduler(2)`: the calling thread runs round robin, at the lowest real-time priority. Its children don't.
///
/// # Errors
/// Those of sched_setscheduler(2): `EPERM` without `CAP_SYS_NICE` or an `RLIMIT_RTPRIO`.
pub(crate) fn be_real_time() -> io::Result<()> {
    /// `struct sched_param` as the kernel has it; some C libraries put more behind it.
    #[repr(C)]
    struct Parameters {
        priority: c_int,
    }
    let parameters = Parameters { priority: 1 };
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the kernel reads one sched_param, an int, which lives until the call returns.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const parameters) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `SO_PEERGROUPS` (unix(7)): the supplementary groups that the other end had when it connected.
///
/// # Errors
/// Those of getsockopt(2); `ERANGE` for more than any user has.
pub(crate) fn peer_groups(connection: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    /// The kernel's own bound, `NGROUPS_MAX`.
    const MOST: usize = 65_536;
    let mut groups = vec![0_u32; MOST];
    let mut bytes = libc::socklen_t::try_from(MOST * size_of::<u32>()).unwrap_or(0);
    // SAFETY: the kernel writes at most `bytes` bytes of numbers to where so many are, and how many into `bytes`.
    let answer = unsafe {
        libc::getsockopt(
            connection.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(usize::try_from(bytes).unwrap_or(0) / size_of::<u32>());
    Ok(groups)
}

/// A mapping of a file that is shared with others. Only the kernel ever touches what is mapped: what others do to the
/// file is no matter for our memory, and where it was cut short a call fails with `EFAULT`.
#[derive(Debug)]
pub(crate) struct Mapping {
    at: *mut c_void,
    length: usize,
}

impl Mapping {
    /// The first `length` bytes of a file.
    pub(crate) fn new(file: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        // SAFETY: at an address that the kernel chooses there is no memory that anybody uses.
        let at = unsafe {
            rustix::mm::mmap(ptr::null_mut(), length, ProtFlags::WRITE, MapFlags::SHARED, file, 0)
        }?;
        Ok(Self { at, length })
    }

    /// `readv(2)` into two pieces of it, each an offset and a length.
    pub(crate) fn read(&self, from: BorrowedFd<'_>, pieces: [(usize, usize); 2]) -> io::Result<usize> {
        let parts = pieces.map(|(at, length)| libc::iovec {
            iov_base: self.at.wrapping_byte_add(at.min(self.length)),
            iov_len: length.min(self.length.saturating_sub(at)),
        });
        // SAFETY: the kernel reads two `iovec`s, and writes within the mapping, to which no reference of ours points.
        let answer = unsafe { libc::readv(from.as_raw_fd(), parts.as_ptr(), 2) };
        usize::try_from(answer).map_err(|_| io::Error::last_os_error())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, and nothing points into it.
        let _ = unsafe { rustix::mm::munmap(self.at, self.length) };
    }
}
