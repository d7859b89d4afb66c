//! Control groups against a real kernel: needs a delegated group (`systemd-run --pipe --wait -p Delegate=yes`).
//! Elsewhere each test prints that it tested nothing, and why.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::explicit_write,
    reason = "tests"
)]

use std::io::Write as _;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use stockade_protocol::ExecId;
use stockade_protocol::spec::{IoPriority, Limits};
use stockade_worker::cgroup::{Cgroups, RunCgroup};

const MIB: u64 = 1024 * 1024;
/// Emulated machines are slow.
const SOON: Duration = Duration::from_secs(60);

/// The delegated group, taken over once; `None` after saying what isn't tested.
fn cgroups(test: &str) -> Option<&'static Cgroups> {
    static GROUPS: OnceLock<Result<Cgroups, String>> = OnceLock::new();
    let groups = GROUPS.get_or_init(|| match Cgroups::find().unwrap() {
        Ok(found) => Ok(Cgroups::take(&found).unwrap()),
        Err(absence) => Err(absence.to_string()),
    });
    if let Err(absence) = groups {
        // Not by a macro: a passing test's are captured.
        writeln!(std::io::stderr(), "NOT TESTED: {test}: {absence}").unwrap();
    }
    groups.as_ref().ok()
}

fn limits(memory: u64, processes: u64) -> Limits {
    Limits {
        wall_ms: None,
        cpu_ms: None,
        idle_ms: None,
        memory: Some(memory),
        processes,
        open_files: 1024,
        file_size: None,
        output: None,
        stdin: None,
        core: 0,
        stack: 8 * MIB,
        address_space: None,
        nice: 0,
        io_priority: IoPriority::BestEffort(4),
    }
}

/// A shell in a group: it runs its script once it's in there.
fn start(group: &RunCgroup, script: &str) -> Child {
    let mut child = Command::new("bash")
        .args(["-c", &format!("read -r go; {script}")])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    group.attach(child.id().cast_signed()).unwrap();
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    child
}

fn exceptional(events: impl AsFd, within: Duration) -> bool {
    let timeout = Timespec { tv_sec: within.as_secs().cast_signed(), tv_nsec: within.subsec_nanos().into() };
    let events = events.as_fd();
    rustix::event::poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&timeout)).unwrap() == 1
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_hog_is_warned_of_and_killed_whole_at_its_limit() {
    let Some(cgroups) = cgroups("a_hog_is_warned_of_and_killed_whole_at_its_limit") else { return };
    let group = cgroups.create(&ExecId::generate(), &limits(96 * MIB, 64)).unwrap();
    let growth = group.growth().unwrap();
    assert!(!exceptional(&growth.memory, Duration::from_millis(50)), "nothing has happened yet");
    let neighbour_group = cgroups.create(&ExecId::generate(), &limits(96 * MIB, 64)).unwrap();
    let mut neighbour = start(&neighbour_group, "sleep 600");

    let started = Instant::now();
    let mut hog = start(&group, "sleep 600 & tail /dev/zero");
    assert!(exceptional(&growth.memory, SOON), "memory.high is told");
    let warned = started.elapsed();
    assert!(group.events().unwrap().high > 0);
    group.lift_high().unwrap();
    assert!(!hog.wait().unwrap().success());
    eprintln!("hog of 96 MiB: warned after {warned:?}, dead after {:?}", started.elapsed());
    until("oom.group kills the sleeper, too", || !group.is_populated().unwrap());
    assert!(group.events().unwrap().oom_kill >= 1);
    let counters = group.counters().unwrap();
    assert!(counters.memory_peak > 80 * MIB && counters.memory_peak <= 97 * MIB, "{counters:?}");
    assert!(group.try_remove().unwrap());

    assert!(neighbour.try_wait().unwrap().is_none(), "another group's run lives");
    neighbour_group.remove_within(SOON).unwrap();
    neighbour.wait().unwrap();
}

#[test]
fn an_unlifted_high_slows_a_hog_down() {
    // The reason for lifting: measured, so that it shows when a kernel stops doing so.
    let Some(cgroups) = cgroups("an_unlifted_high_slows_a_hog_down") else { return };
    let group = cgroups.create(&ExecId::generate(), &limits(96 * MIB, 64)).unwrap();
    let mut hog = start(&group, "tail /dev/zero");
    let growth = group.growth().unwrap();
    assert!(group.events().unwrap().high > 0 || exceptional(&growth.memory, SOON));
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(8) && group.is_populated().unwrap() {
        std::thread::yield_now();
    }
    let counters = group.counters().unwrap();
    eprintln!(
        "8 s after memory.high = 76.8 MiB of 96 MiB without lifting it: alive {}, at {} KiB",
        group.is_populated().unwrap(),
        counters.memory / 1024
    );
    assert!(group.is_populated().unwrap(), "it's stuck between high and max");
    group.remove_within(SOON).unwrap();
    hog.wait().unwrap();
}

#[test]
fn forks_over_the_limit_are_refused_and_told() {
    let Some(cgroups) = cgroups("forks_over_the_limit_are_refused_and_told") else { return };
    let group = cgroups.create(&ExecId::generate(), &limits(256 * MIB, 20)).unwrap();
    let growth = group.growth().unwrap();
    let mut bomb = start(&group, "while :; do sleep 600 & done");
    assert!(exceptional(&growth.processes, SOON), "pids.events is told");
    assert!(group.events().unwrap().forks_refused > 0);
    let counters = group.counters().unwrap();
    assert_eq!(counters.processes_peak, 21, "the policy's 20, and init");
    group.remove_within(SOON).unwrap();
    bomb.wait().unwrap();
}

#[test]
fn a_kill_leaves_nobody_however_deep() {
    let Some(cgroups) = cgroups("a_kill_leaves_nobody_however_deep") else { return };
    let group = cgroups.create(&ExecId::generate(), &limits(256 * MIB, 64)).unwrap();
    let mut tree = start(
        &group,
        "trap '' TERM HUP INT; for i in 1 2 3 4 5; do setsid bash -c 'trap \"\" TERM; sleep 600 & sleep 600' & done; wait",
    );
    until("the tree stands", || group.counters().unwrap().processes > 10);
    assert!(!group.try_remove().unwrap(), "it's occupied");
    group.kill().unwrap();
    assert!(!tree.wait().unwrap().success());
    until("all are gone", || !group.is_populated().unwrap());
    assert!(group.try_remove().unwrap());
    assert!(group.try_remove().unwrap(), "removing twice is no error");
}

#[test]
fn a_frozen_run_uses_no_time_and_can_be_killed() {
    let Some(cgroups) = cgroups("a_frozen_run_uses_no_time_and_can_be_killed") else { return };
    let group = cgroups.create(&ExecId::generate(), &limits(256 * MIB, 64)).unwrap();
    let mut spinner = start(&group, "while :; do :; done");
    until("it spins", || group.counters().unwrap().user_us > 20_000);
    group.freeze(true).unwrap();
    until("it's frozen", || group.is_frozen().unwrap());
    let before = group.counters().unwrap().user_us;
    until("time passes", {
        let since = Instant::now();
        move || since.elapsed() > Duration::from_millis(300)
    });
    assert_eq!(group.counters().unwrap().user_us, before);
    group.remove_within(SOON).unwrap();
    spinner.wait().unwrap();
}

#[test]
fn a_limit_the_kernel_refuses_leaves_no_group_behind() {
    let Some(cgroups) = cgroups("a_limit_the_kernel_refuses_leaves_no_group_behind") else { return };
    let exec_id = ExecId::generate();
    let group = cgroups.create(&exec_id, &limits(256 * MIB, 64)).unwrap();
    let error = cgroups.create(&exec_id, &limits(256 * MIB, 64)).unwrap_err();
    assert!(error.to_string().starts_with("cannot make the control group"), "{error}");
    group.remove_within(SOON).unwrap();
    let exec_id = ExecId::generate();
    let error = cgroups.create(&exec_id, &limits(256 * MIB, u64::MAX - 1)).unwrap_err();
    assert!(error.to_string().contains("pids.max"), "{error}");
    assert!(!cgroups.path().join(format!("run-{exec_id}")).exists());
}
