//! Tries on the machine itself: mounts, names, memory that runs.

use std::ffi::CString;
use std::os::fd::AsFd as _;

use nix::mount::{MntFlags, MsFlags};
use rustix::fs::MemfdFlags;
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::raw::{self, Word};
use crate::{Answer, Arguments, Attempt, Refused, look_up};

const TABLE: &[(&str, Attempt)] = &[
    ("mount-tmpfs", mount_tmpfs),
    ("mount-proc", mount_proc),
    ("bind", bind),
    ("remount-writable", remount_writable),
    ("unmount", unmount),
    ("new-mount-api", new_mount_api),
    ("open-tree", open_tree),
    ("pivot-root", pivot_root),
    ("change-root", change_root),
    ("set-hostname", set_hostname),
    ("personality", personality),
    ("run-from-memory", run_from_memory),
    ("write-own-image", write_own_image),
    ("new-keyring-file", new_keyring_file),
    ("old-gate", old_gate),
    ("terminal-request", terminal_request),
];

pub(crate) fn find(name: &str) -> Option<Attempt> {
    look_up(TABLE, name)
}

fn mount_tmpfs(arguments: &Arguments) -> Answer {
    let none: Option<&str> = None;
    nix::mount::mount(Some("none"), arguments.text(0)?, Some("tmpfs"), MsFlags::empty(), none)?;
    // Leave nothing mounted where this is possible (the twin outside).
    nix::mount::umount2(arguments.text(0)?, MntFlags::MNT_DETACH)?;
    Ok(String::new())
}

fn mount_proc(arguments: &Arguments) -> Answer {
    let none: Option<&str> = None;
    nix::mount::mount(Some("proc"), arguments.text(0)?, Some("proc"), MsFlags::empty(), none)?;
    nix::mount::umount2(arguments.text(0)?, MntFlags::MNT_DETACH)?;
    Ok(String::new())
}

fn bind(arguments: &Arguments) -> Answer {
    let none: Option<&str> = None;
    nix::mount::mount(Some(arguments.text(0)?), arguments.text(1)?, none, MsFlags::MS_BIND, none)?;
    nix::mount::umount2(arguments.text(1)?, MntFlags::MNT_DETACH)?;
    Ok(String::new())
}

fn remount_writable(arguments: &Arguments) -> Answer {
    let none: Option<&str> = None;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
    nix::mount::mount(none, arguments.text(0)?, none, flags, none)?;
    Ok(String::new())
}

fn unmount(arguments: &Arguments) -> Answer {
    nix::mount::umount2(arguments.text(0)?, MntFlags::MNT_DETACH)?;
    Ok(String::new())
}

fn new_mount_api(_: &Arguments) -> Answer {
    rustix::mount::fsopen("tmpfs", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC)?;
    Ok(String::new())
}

fn open_tree(arguments: &Arguments) -> Answer {
    let flags =
        rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE | rustix::mount::OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(rustix::fs::CWD, arguments.text(0)?, flags)?;
    Ok(String::new())
}

fn pivot_root(_: &Arguments) -> Answer {
    nix::unistd::pivot_root(".", ".")?;
    Ok(String::new())
}

fn change_root(arguments: &Arguments) -> Answer {
    nix::unistd::chroot(arguments.text(0)?)?;
    Ok(String::new())
}

fn set_hostname(_: &Arguments) -> Answer {
    // The name it has: possible or not is what's asked, and nothing changes where it's possible.
    let name = nix::unistd::gethostname()?;
    nix::unistd::sethostname(name)?;
    Ok(String::new())
}

/// Turns address randomisation off for what it executes.
fn personality(_: &Arguments) -> Answer {
    nix::sys::personality::set(nix::sys::personality::Persona::ADDR_NO_RANDOMIZE)?;
    Ok(String::new())
}

/// Copies a program into a memfd and executes it by descriptor with an empty path.
fn run_from_memory(arguments: &Arguments) -> Answer {
    let bytes = std::fs::read(arguments.text(0)?)?;
    let held = rustix::fs::memfd_create("probe", MemfdFlags::CLOEXEC)?;
    rustix::io::write(&held, &bytes)?;
    let name = CString::new("probe").map_err(|error| Refused::NotSo(error.to_string()))?;
    let empty = CString::default();
    let environment: [CString; 0] = [];
    let flags = nix::fcntl::AtFlags::AT_EMPTY_PATH;
    nix::unistd::execveat(held.as_fd(), &empty, &[name], &environment, flags)?;
    Ok(String::new())
}

/// Opens the program that a process runs for writing.
fn write_own_image(arguments: &Arguments) -> Answer {
    let path = arguments.text(0)?;
    rustix::fs::accessat(rustix::fs::CWD, path, rustix::fs::Access::EXISTS, AtFlags::empty())?;
    rustix::fs::open(path, OFlags::WRONLY, Mode::empty())?;
    Ok(String::new())
}

/// Whether the kernel's keys are listed.
fn new_keyring_file(_: &Arguments) -> Answer {
    let keys = std::fs::read_to_string("/proc/keys")?;
    Ok(keys.lines().count().to_string())
}

/// A system call by the 32-bit gate.
fn old_gate(_: &Arguments) -> Answer {
    raw::getpid_by_old_gate().map_err(Refused::Errno)?;
    Ok(String::new())
}

/// An ioctl on a terminal of its own that is its controlling one, so that only a filter can refuse: of all 64 bits of the
/// request, with a byte to point to.
fn terminal_request(arguments: &Arguments) -> Answer {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    const IOCTL: i64 = 16;
    let digits = arguments.text(0)?.trim_start_matches("0x");
    let request = u64::from_str_radix(digits, 16).map_err(|_| Refused::Usage("a request".to_owned()))?;
    let _ = rustix::process::setsid();
    let held = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&held)?;
    unlockpt(&held)?;
    let name = ptsname(&held, Vec::new())?;
    let own = rustix::fs::open(&name, OFlags::RDWR, Mode::empty())?;
    rustix::process::ioctl_tiocsctty(&own)?;
    let number = u64::from(std::os::fd::AsRawFd::as_raw_fd(&own).cast_unsigned());
    let mut words = [Word::Number(number), Word::Number(request), Word::Buffer(vec![0; 64])];
    let answer = raw::call(IOCTL, &mut words);
    // Whose controlling terminal goes away is hung up on, before there is a line.
    core::mem::forget(held);
    answer.map(|_| String::new()).map_err(Refused::Errno)
}
