//! What `doctor --deep` tries besides: more ways to the same ends, each at every level that promises to stop it.
//!
//! Each leaves what it finds as it was, for the doctor tries it without confinement, too. What only root could do anyway is
//! told to be unknown where anybody else asks.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Pid, PidfdFlags};
use stockade_protocol::confinement::Layer;

use super::{Canary, EVERY, MOUNTS, Must, Place, STRICT, mode, write};

/// The kernel's ciphers (`AF_ALG`), `linux/socket.h`.
const CIPHERS: u16 = 38;

/// All of them, by layer.
pub(crate) const DEEP: &[Canary] = canaries! {
    "see-caller" Namespaces Fail MOUNTS "read the environment of the process that asked for the run" |place| read(format!("/proc/{}/environ", place.doctor));
    "hold-caller" Namespaces Fail MOUNTS "hold the process that asked for the run by a descriptor" hold_caller;
    "thread" Namespaces Succeed EVERY "start a thread" |_| std::thread::spawn(|| ()).join().map_err(|_| ErrorKind::Other.into());
    "link-outside" Root Fail EVERY "read a file outside by a symbolic link" link_outside;
    "hard-link-outside" Root Fail EVERY "make a hard link to a file outside" hard_link_outside;
    "move-outside" Root Fail EVERY "move a file out of the workspace" move_outside;
    "socket-outside" Root Fail EVERY "connect to a socket outside the workspace" |place| UnixStream::connect(place.outside.join("socket")).map(drop);
    "link-inside" Root Succeed EVERY "read a file of the workspace by a symbolic link" link_inside;
    "move-denied" Guard Fail STRICT "rename a path the policy denies" |place| there_and_back(place, "denied");
    "remove-denied" Guard Fail STRICT "remove a path the policy denies" remove_denied;
    "move-beside" Guard Succeed STRICT "rename a directory beside it" move_beside;
    "datagram" Network Fail STRICT "send a datagram to the host's loopback" datagram;
    "abstract-socket" Network Fail EVERY "connect to an abstract socket of the host" abstract_socket;
    "raw-socket" Identity Fail EVERY "open a raw network socket" |_| socket(AddressFamily::INET, SocketType::RAW, Some(rustix::net::ipproto::ICMP));
    "packet-socket" Identity Fail EVERY "open a socket for whole packets" |_| socket(AddressFamily::PACKET, SocketType::RAW, None);
    "password-hashes" Identity Fail MOUNTS "read the machine's password hashes" |_| read("/etc/shadow");
    "host-name" Identity Fail EVERY "set the host's name" host_name;
    "root-directory" Identity Fail EVERY "change the root directory" |_| Ok(rustix::process::chroot("/")?);
    "kernel-log" Landlock Fail EVERY "read the kernel's log" |_| read_one("/dev/kmsg");
    "kernel-setting" Landlock Fail EVERY "write a setting of the kernel" |_| open_to_write("/proc/sys/kernel/core_pattern");
    "magic-key" Landlock Fail EVERY "press the kernel's magic key" |_| open_to_write("/proc/sysrq-trigger");
    "setgid-bit" Seccomp Fail EVERY "set a file's setgid bit" |place| mode(place, 0o2700);
    "device-node" Seccomp Fail EVERY "make a device node" device_node;
    "new-filesystem" Seccomp Fail EVERY "make a filesystem" new_filesystem;
    "crypto-socket" Seccomp Fail EVERY "reach the kernel's ciphers by a socket" |_| socket(AddressFamily::from_raw(CIPHERS), SocketType::SEQPACKET, None);
    "memory-file" Seccomp Succeed EVERY "make a file in memory" |_| Ok(rustix::fs::memfd_create("canary", rustix::fs::MemfdFlags::CLOEXEC).map(drop)?);
    "priority" Rlimits Fail EVERY "raise its own priority" priority;
};

/// What abstract socket the doctor listens at.
///
/// # Errors
/// None that the kernel gives: the name is short.
pub(crate) fn listens_at(port: u16) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("stockade-doctor-{port}"))
}

fn read(path: impl AsRef<Path>) -> io::Result<()> {
    std::fs::read(path).map(drop)
}

/// Opens only: reading would wait.
fn read_one(path: &str) -> io::Result<()> {
    OpenOptions::new().read(true).open(path).map(drop)
}

fn open_to_write(path: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path).map(drop)
}

fn hold_caller(place: &Place) -> io::Result<()> {
    let pid = Pid::from_raw(place.doctor).ok_or(ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty()).map(drop)?)
}

fn linked(place: &Place, name: &str, to: &Path) -> io::Result<()> {
    let link = place.work.join(name);
    std::os::unix::fs::symlink(to, &link)?;
    let result = read(&link);
    std::fs::remove_file(link).and(result)
}

fn link_outside(place: &Place) -> io::Result<()> {
    linked(place, "link-outside", &place.outside.join("secret"))
}

fn link_inside(place: &Place) -> io::Result<()> {
    linked(place, "link-inside", &place.work.join("plain"))
}

fn hard_link_outside(place: &Place) -> io::Result<()> {
    let link = place.work.join("hard-link");
    std::fs::hard_link(place.outside.join("secret"), &link)?;
    std::fs::remove_file(link)
}

fn move_outside(place: &Place) -> io::Result<()> {
    let (from, to) = (place.work.join("moving"), place.outside.join("moved"));
    write(&from)?;
    let result = std::fs::rename(&from, &to);
    let _either = std::fs::remove_file(if result.is_ok() { to } else { from });
    result
}

fn there_and_back(place: &Place, name: &str) -> io::Result<()> {
    let (from, to) = (place.work.join(name), place.work.join("elsewhere"));
    std::fs::rename(&from, &to)?;
    std::fs::rename(to, from)
}

fn move_beside(place: &Place) -> io::Result<()> {
    std::fs::create_dir(place.work.join("beside-denied"))?;
    let result = there_and_back(place, "beside-denied");
    std::fs::remove_dir(place.work.join("beside-denied")).and(result)
}

fn remove_denied(place: &Place) -> io::Result<()> {
    let denied = place.work.join("denied");
    // A file of an earlier canary may be in it.
    let _either = std::fs::remove_file(denied.join("file"));
    std::fs::remove_dir(&denied)?;
    std::fs::create_dir(denied)
}

fn datagram(place: &Place) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.send_to(b"canary", (Ipv4Addr::LOCALHOST, place.port)).map(drop)
}

fn abstract_socket(place: &Place) -> io::Result<()> {
    UnixStream::connect_addr(&listens_at(place.port)?).map(drop)
}

fn socket(
    family: AddressFamily,
    kind: SocketType,
    protocol: Option<rustix::net::Protocol>,
) -> io::Result<()> {
    Ok(rustix::net::socket(family, kind, protocol).map(drop)?)
}

fn host_name(_: &Place) -> io::Result<()> {
    let name = nix::unistd::gethostname()?;
    Ok(nix::unistd::sethostname(name)?)
}

fn device_node(place: &Place) -> io::Result<()> {
    let path = place.work.join("node");
    rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(1, 3))?;
    std::fs::remove_file(path)
}

fn new_filesystem(_: &Place) -> io::Result<()> {
    Ok(rustix::mount::fsopen("tmpfs", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC).map(drop)?)
}

fn priority(_: &Place) -> io::Result<()> {
    let before = rustix::process::getpriority_process(None)?;
    rustix::process::setpriority_process(None, before - 1)?;
    Ok(rustix::process::setpriority_process(None, before)?)
}
