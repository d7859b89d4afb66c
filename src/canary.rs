//! The doctor's canaries: each tries exactly one thing, so that what happened is what the kernel says, not what
//! anybody believes.
//!
//! They run twice: inside a run (this file's role, in a copy of our own binary within the run's workspace) and in
//! the doctor itself. What fails without confinement, too, proves nothing about the confinement.

macro_rules! canaries {
    ($($name:literal $layer:ident $must:ident $levels:ident $what:literal $attempt:expr;)*) => {
        &[$(Canary {
            name: $name, layer: Layer::$layer, must: Must::$must, levels: $levels, what: $what, attempt: $attempt,
        }),*]
    };
}

pub(crate) mod deep;

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags};
use stockade_protocol::confinement::Layer;
use stockade_protocol::spec::Level;

/// The role's name: not a subcommand, not in any help.
pub(crate) const ROLE: &str = "canary";
/// A variable that no shipped policy lets through.
pub(crate) const VARIABLE: &str = "STOCKADE_DOCTOR_CANARY";
/// The canary that looks for it.
pub(crate) const GIVEN: &str = "secret-variable";
/// Descriptors a canary opens; the doctor's policies allow fewer.
const DESCRIPTORS: usize = 200;
/// How long a hog holds its memory: many ticks of the monitor.
const HOLD: Duration = Duration::from_millis(500);

/// Where canaries try.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The workspace.
    pub(crate) work: PathBuf,
    /// A directory that no run may see.
    pub(crate) outside: PathBuf,
    /// A port of the host's loopback where the doctor listens.
    pub(crate) port: u16,
    /// The doctor's process id on the host.
    pub(crate) doctor: i32,
}

impl Place {
    /// As the role takes it.
    pub(crate) fn words(&self) -> [String; 4] {
        let Self { work, outside, port, doctor } = self;
        [work.display().to_string(), outside.display().to_string(), port.to_string(), doctor.to_string()]
    }
}

/// What must become of it in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Must {
    /// Fail.
    Fail,
    /// Succeed: else the layer denies too much.
    Succeed,
}

/// One attempt.
#[derive(Debug)]
pub(crate) struct Canary {
    /// Its name, on the wire between run and doctor.
    pub(crate) name: &'static str,
    /// The layer it speaks for.
    pub(crate) layer: Layer,
    /// What must become of it.
    pub(crate) must: Must,
    /// The levels that promise it.
    pub(crate) levels: &'static [Level],
    /// What it does, for people.
    pub(crate) what: &'static str,
    attempt: fn(&Place) -> io::Result<()>,
}

impl Canary {
    /// Tries it here and now. The errno, if it failed.
    pub(crate) fn attempt(&self, place: &Place) -> Option<i32> {
        (self.attempt)(place).err().map(|error| error.raw_os_error().unwrap_or(libc_eio()))
    }
}

/// An errno for failures that have none.
fn libc_eio() -> i32 {
    rustix::io::Errno::IO.raw_os_error()
}

const EVERY: &[Level] = &[Level::Strict, Level::Moderate, Level::Minimal];
const MOUNTS: &[Level] = &[Level::Strict, Level::Moderate];
const MINIMAL: &[Level] = &[Level::Minimal];
const STRICT: &[Level] = &[Level::Strict];

/// All of them, by layer.
pub(crate) const ALL: &[Canary] = canaries! {
    "signal-caller" Namespaces Fail MOUNTS "signal the process that asked for the run" signal_caller;
    "signal-itself" Namespaces Succeed MOUNTS "signal itself" signal_itself;
    "read-outside" Root Fail MOUNTS "read a file outside the workspace" read_outside;
    "read-inside" Root Succeed MOUNTS "read a file of the workspace" read_inside;
    "write-denied" Guard Fail STRICT "write beneath a path the policy denies" |place| write(&place.work.join("denied/file"));
    "write-beside" Guard Succeed STRICT "write beside it" |place| write(&place.work.join("beside"));
    "connect-host" Network Fail STRICT "connect to a loopback service of the host" connect_host;
    "unix-pair" Network Succeed STRICT "talk over a pair of local sockets" unix_pair;
    "no-new-privileges" Identity Fail EVERY "have or gain privileges (capabilities, no_new_privs)" may_have_privileges;
    "owns-its-files" Identity Succeed EVERY "own the files it makes" owns_its_files;
    "many-descriptors" Rlimits Fail EVERY "open 200 files where 64 are allowed" |_| open_many(DESCRIPTORS);
    "few-descriptors" Rlimits Succeed EVERY "open 8 files" |_| open_many(8);
    "landlock-outside" Landlock Fail MINIMAL "read a file outside the workspace, without mounts to hide it" read_outside;
    "landlock-inside" Landlock Succeed MINIMAL "read a file of the workspace" read_inside;
    "setuid-bit" Seccomp Fail EVERY "set a file's setuid bit" setuid_bit;
    "steal-descriptor" Seccomp Fail EVERY "take a descriptor by pidfd_getfd" steal_descriptor;
    "plain-mode" Seccomp Succeed EVERY "change a file's plain mode bits" plain_mode;
    "secret-variable" Process Fail EVERY "see a variable the policy doesn't allow" |_| variable(VARIABLE);
    "path-variable" Process Succeed EVERY "see PATH" |_| variable("PATH");
};

/// The role: `canary WORK OUTSIDE PORT PID` tries all and prints a line each; `canary hog MEBIBYTES` holds memory.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let text = |at: usize| arguments.get(at).and_then(|word| word.to_str());
    if text(0) == Some("hog") {
        return text(1).and_then(|size| size.parse().ok()).map_or(ExitCode::FAILURE, hog);
    }
    let (Some(work), Some(outside)) = (arguments.first(), arguments.get(1)) else { return ExitCode::FAILURE };
    let (Some(Ok(port)), Some(Ok(doctor))) = (text(2).map(str::parse), text(3).map(str::parse)) else {
        return ExitCode::FAILURE;
    };
    let place = Place { work: work.into(), outside: outside.into(), port, doctor };
    let mut report = String::new();
    for canary in ALL.iter().chain(deep::DEEP) {
        let errno = canary.attempt(&place).unwrap_or(0);
        report.push_str(&format!("{} {errno}\n", canary.name));
    }
    match io::stdout().write_all(report.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn hog(mebibytes: usize) -> ExitCode {
    let held = vec![1_u8; mebibytes << 20];
    if let Ok(hold) = rustix::thread::Timespec::try_from(HOLD) {
        let _ = rustix::thread::nanosleep(&hold);
    }
    // Read again, so that it was held.
    if std::hint::black_box(&held).last() == Some(&1) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn signal_caller(place: &Place) -> io::Result<()> {
    let pid = Pid::from_raw(place.doctor).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::test_kill_process(pid)?)
}

fn signal_itself(_: &Place) -> io::Result<()> {
    Ok(rustix::process::test_kill_process(rustix::process::getpid())?)
}

fn read_outside(place: &Place) -> io::Result<()> {
    std::fs::read(place.outside.join("secret")).map(drop)
}

fn read_inside(place: &Place) -> io::Result<()> {
    std::fs::read(place.work.join("plain")).map(drop)
}

fn write(path: &Path) -> io::Result<()> {
    std::fs::write(path, b"canary")
}

fn connect_host(place: &Place) -> io::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, place.port));
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).map(drop)
}

fn unix_pair(_: &Place) -> io::Result<()> {
    let (mut one, two) = std::os::unix::net::UnixStream::pair()?;
    one.write_all(b"x")?;
    rustix::io::read(&two, &mut [0]).map(drop).map_err(Into::into)
}

/// Succeeds where privileges are there or could be gained, as they could by any ordinary process.
fn may_have_privileges(_: &Place) -> io::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let empty = |name| field(name).is_some_and(|mask| mask.bytes().all(|digit| digit == b'0'));
    let has_none = ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"].into_iter().all(empty);
    let gains_none = field("NoNewPrivs:") == Some("1");
    if has_none && gains_none { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
}

fn owns_its_files(place: &Place) -> io::Result<()> {
    let path = place.work.join("owned");
    write(&path)?;
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(path)?);
    if owner == rustix::process::geteuid().as_raw() {
        Ok(())
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

fn open_many(count: usize) -> io::Result<()> {
    let open: io::Result<Vec<_>> = (0..count).map(|_| std::fs::File::open("/dev/null")).collect();
    open.map(drop)
}

fn mode(place: &Place, bits: u32) -> io::Result<()> {
    let path = place.work.join("moded");
    write(&path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(bits))
}

fn setuid_bit(place: &Place) -> io::Result<()> {
    mode(place, 0o4700)
}

fn plain_mode(place: &Place) -> io::Result<()> {
    mode(place, 0o700)
}

fn steal_descriptor(_: &Place) -> io::Result<()> {
    let ourselves = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    let stolen = std::os::fd::AsRawFd::as_raw_fd(&ourselves.as_fd());
    Ok(rustix::process::pidfd_getfd(&ourselves, stolen, rustix::process::PidfdGetfdFlags::empty())
        .map(drop)?)
}

fn variable(name: &str) -> io::Result<()> {
    std::env::var_os(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn names_are_no_two_canaries() {
        let all = || ALL.iter().chain(deep::DEEP).map(|canary| canary.name);
        assert_eq!(all().collect::<std::collections::BTreeSet<_>>().len(), all().count());
    }

    #[test]
    fn every_layer_with_a_canary_that_must_fail_has_one_that_must_succeed() {
        let layers = |must: Must| -> Vec<_> {
            ALL.iter().filter(|canary| canary.must == must).map(|canary| canary.layer).collect()
        };
        let (fail, succeed) = (layers(Must::Fail), layers(Must::Succeed));
        for layer in &fail {
            assert!(succeed.contains(layer), "{layer:?}");
        }
        assert!(succeed.iter().all(|layer| fail.contains(layer)));
    }

    #[test]
    fn canaries_that_must_fail_inside_succeed_without_confinement() {
        let directory = tempfile::tempdir().unwrap();
        let (work, outside) = (directory.path().join("work"), directory.path().join("outside"));
        std::fs::create_dir_all(work.join("denied")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(work.join("plain"), "x").unwrap();
        std::fs::write(outside.join("secret"), "x").unwrap();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let doctor = i32::try_from(std::process::id()).unwrap();
        let place = Place { work, outside, port, doctor };
        // Variables are given to a run by the doctor; this process has none of them.
        let here = ALL.iter().filter(|canary| canary.name != GIVEN);
        for canary in here {
            assert_eq!(canary.attempt(&place), None, "{}", canary.name);
        }
    }
}
