//! Tries on other processes, on identity and on limits.

use std::os::fd::AsFd as _;
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::uio::RemoteIoVec;
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, Signal};

use crate::raw::{self, Word};
use crate::{Answer, Arguments, Attempt, Refused, look_up};

const TABLE: &[(&str, Attempt)] = &[
    ("signal", signal),
    ("signal-all", signal_all),
    ("signal-pidfd", signal_pidfd),
    ("ptrace-seize", ptrace_seize),
    ("ptrace-traceme", ptrace_traceme),
    ("read-memory", read_memory),
    ("get-descriptor", get_descriptor),
    ("foreign-priority", foreign_priority),
    ("foreign-limit", foreign_limit),
    ("raise-limit", raise_limit),
    ("signal-by-pipe", signal_by_pipe),
    ("raise-priority", raise_priority),
    ("become-root", become_root),
    ("take-groups", take_groups),
    ("new-namespaces", new_namespaces),
    ("enter-namespace", enter_namespace),
    ("capabilities", capabilities),
    ("status", status),
    ("processes", processes),
    ("descriptors", descriptors),
    ("session", session),
    ("terminal", terminal),
    ("identity", identity),
    ("parent", parent),
    ("sleep", sleep),
];

pub(crate) fn find(name: &str) -> Option<Attempt> {
    look_up(TABLE, name)
}

fn pid(arguments: &Arguments, at: usize) -> Result<rustix::process::Pid, Refused> {
    let raw: i32 = arguments.number(at)?;
    rustix::process::Pid::from_raw(raw).ok_or_else(|| Refused::Usage("a process id isn't 0".to_owned()))
}

fn signal(arguments: &Arguments) -> Answer {
    let raw: i32 = arguments.number(1)?;
    let signal = if raw == 0 { None } else { Some(nix::sys::signal::Signal::try_from(raw)?) };
    nix::sys::signal::kill(Pid::from_raw(arguments.number(0)?), signal)?;
    Ok(String::new())
}

/// Everything this process may signal at all (`kill(-1, 0)`): only a look, nobody is hurt.
fn signal_all(_: &Arguments) -> Answer {
    nix::sys::signal::kill(Pid::from_raw(-1), None)?;
    Ok(String::new())
}

fn signal_pidfd(arguments: &Arguments) -> Answer {
    let held = rustix::process::pidfd_open(pid(arguments, 0)?, PidfdFlags::empty())?;
    rustix::process::pidfd_send_signal(&held, Signal::CONT)?;
    Ok(String::new())
}

fn ptrace_seize(arguments: &Arguments) -> Answer {
    ptrace::seize(Pid::from_raw(arguments.number(0)?), ptrace::Options::empty())?;
    Ok(String::new())
}

fn ptrace_traceme(_: &Arguments) -> Answer {
    ptrace::traceme()?;
    Ok(String::new())
}

/// Reads eight bytes at an address of another process.
fn read_memory(arguments: &Arguments) -> Answer {
    let target = Pid::from_raw(arguments.number(0)?);
    let mut bytes = [0; 8];
    let base = usize::from_str_radix(arguments.text(1)?.trim_start_matches("0x"), 16)
        .map_err(|_| Refused::Usage("an address in hexadecimal".to_owned()))?;
    let remote = [RemoteIoVec { base, len: 8 }];
    nix::sys::uio::process_vm_readv(target, &mut [std::io::IoSliceMut::new(&mut bytes)], &remote)?;
    Ok(String::new())
}

fn get_descriptor(arguments: &Arguments) -> Answer {
    let held = rustix::process::pidfd_open(pid(arguments, 0)?, PidfdFlags::empty())?;
    rustix::process::pidfd_getfd(&held, arguments.number(1)?, PidfdGetfdFlags::empty())?;
    Ok(String::new())
}

fn foreign_priority(arguments: &Arguments) -> Answer {
    rustix::process::setpriority_process(Some(pid(arguments, 0)?), 19)?;
    Ok(String::new())
}

fn foreign_limit(arguments: &Arguments) -> Answer {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let lower = Rlimit { current: Some(64), maximum: limit.maximum };
    rustix::process::prlimit(Some(pid(arguments, 0)?), Resource::Nofile, lower)?;
    Ok(String::new())
}

/// Raises a limit past its hard bound.
fn raise_limit(arguments: &Arguments) -> Answer {
    let resource = match arguments.text(0)? {
        "core" => Resource::Core,
        "files" => Resource::Nofile,
        "processes" => Resource::Nproc,
        "file-size" => Resource::Fsize,
        "locked" => Resource::Memlock,
        "realtime" => Resource::Rtprio,
        "nice" => Resource::Nice,
        "queues" => Resource::Msgqueue,
        other => return Err(Refused::Usage(format!("no limit is called {other}"))),
    };
    let limit = rustix::process::getrlimit(resource);
    let Some(hard) = limit.maximum else { return Err(Refused::NotSo("there is no bound".to_owned())) };
    let more = Some(hard + 1);
    rustix::process::setrlimit(resource, Rlimit { current: more, maximum: more })?;
    Ok(String::new())
}

/// Makes a process the one that is told when a pipe has something to read, and writes to it: the kernel signals for us.
fn signal_by_pipe(arguments: &Arguments) -> Answer {
    use std::os::fd::AsRawFd as _;
    const FCNTL: i64 = 72;
    const F_SETOWN: u64 = 8;
    let (read, write) = rustix::pipe::pipe()?;
    let number = u64::from(read.as_raw_fd().cast_unsigned());
    let owner: u64 = arguments.number(0)?;
    raw::call(FCNTL, &mut [Word::Number(number), Word::Number(F_SETOWN), Word::Number(owner)])
        .map_err(Refused::Errno)?;
    rustix::fs::fcntl_setfl(&read, rustix::fs::OFlags::from_bits_retain(ASYNC))?;
    rustix::io::write(&write, b"x")?;
    Ok(String::new())
}

/// `O_ASYNC`, which rustix has no name for on every architecture.
const ASYNC: u32 = 0o20_000;

fn raise_priority(_: &Arguments) -> Answer {
    rustix::process::setpriority_process(None, -20)?;
    Ok(String::new())
}

fn become_root(_: &Arguments) -> Answer {
    nix::unistd::setuid(nix::unistd::Uid::from_raw(0))?;
    // A user namespace may call the caller 0 inside; what counts is a file of the host's root.
    let stat = rustix::fs::stat("/")?;
    Ok(format!("root-directory-of={}", stat.st_uid))
}

fn take_groups(_: &Arguments) -> Answer {
    nix::unistd::setgroups(&[nix::unistd::Gid::from_raw(0)])?;
    Ok(String::new())
}

fn namespace_flags(text: &str) -> Result<nix::sched::CloneFlags, Refused> {
    use nix::sched::CloneFlags;
    let mut flags = CloneFlags::empty();
    for word in text.split(',') {
        flags |= match word {
            "user" => CloneFlags::CLONE_NEWUSER,
            "mount" => CloneFlags::CLONE_NEWNS,
            "pid" => CloneFlags::CLONE_NEWPID,
            "net" => CloneFlags::CLONE_NEWNET,
            "ipc" => CloneFlags::CLONE_NEWIPC,
            "uts" => CloneFlags::CLONE_NEWUTS,
            "cgroup" => CloneFlags::CLONE_NEWCGROUP,
            _ => return Err(Refused::Usage(format!("no namespace called {word}"))),
        };
    }
    Ok(flags)
}

fn new_namespaces(arguments: &Arguments) -> Answer {
    nix::sched::unshare(namespace_flags(arguments.text(0)?)?)?;
    Ok(String::new())
}

fn enter_namespace(arguments: &Arguments) -> Answer {
    let held = std::fs::File::open(arguments.text(0)?)?;
    nix::sched::setns(held.as_fd(), nix::sched::CloneFlags::empty())?;
    Ok(String::new())
}

/// The capability lines of this process; refused-looking when all are empty is for the suite to judge.
fn capabilities(_: &Arguments) -> Answer {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let lines: Vec<String> =
        status.lines().filter(|line| line.starts_with("Cap")).map(|line| line.replace(":\t", "=")).collect();
    Ok(lines.join(" "))
}

/// One line of /proc/self/status.
fn status(arguments: &Arguments) -> Answer {
    let wanted = arguments.text(0)?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(wanted)?.strip_prefix(':'))
        .map(|value| value.trim().to_owned())
        .ok_or_else(|| Refused::NotSo(format!("no line {wanted}")))
}

/// How many processes /proc shows.
fn processes(_: &Arguments) -> Answer {
    let mut count = 0_u32;
    for entry in std::fs::read_dir("/proc")? {
        count += u32::from(entry?.file_name().to_string_lossy().parse::<u32>().is_ok());
    }
    Ok(count.to_string())
}

/// The open descriptors, besides the one that lists them.
fn descriptors(_: &Arguments) -> Answer {
    let mut open = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if std::fs::read_link(format!("/proc/self/fd/{name}")).is_ok() {
            open.push(name);
        }
    }
    open.sort();
    open.pop();
    Ok(open.join(" "))
}

fn session(_: &Arguments) -> Answer {
    let session = rustix::process::getsid(None)?;
    Ok(session.as_raw_nonzero().to_string())
}

fn terminal(_: &Arguments) -> Answer {
    std::fs::File::open("/dev/tty")?;
    Ok(String::new())
}

fn identity(_: &Arguments) -> Answer {
    Ok(format!("uid={} gid={}", rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw()))
}

fn parent(_: &Arguments) -> Answer {
    Ok(rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get()).to_string())
}

fn sleep(arguments: &Arguments) -> Answer {
    std::thread::sleep(Duration::from_millis(arguments.number(0)?));
    Ok(String::new())
}
