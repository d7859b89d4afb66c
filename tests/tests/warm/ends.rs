//! What waits for runs ends with the daemon, or when no run has come for long.

use std::os::unix::fs::MetadataExt as _;

use rustix::process::Signal;
use stockade_tests::left::{self, Process};
use stockade_tests::{Mode, Person, not_tested, wait_until};

use crate::stage::{PATIENCE, Warm, expect_gone};

/// The uids that policies give to runs (`run-as.range` of the shipped ones).
const RANGE: std::ops::RangeInclusive<u32> = 2_000_000_000..=2_000_065_535;

/// Everything beneath the launcher that is there for runs to come.
fn waiting(warm: &Warm) -> Vec<Process> {
    [warm.templates(), warm.named("stockade-init")].concat()
}

fn uids(processes: &[Process]) -> Vec<u32> {
    let uid = |process: &Process| std::fs::metadata(format!("/proc/{}", process.pid)).ok().map(|of| of.uid());
    processes.iter().filter_map(uid).collect()
}

#[test]
fn terminated_daemon_leaves_no_template_and_no_spare() {
    for warm in Warm::each() {
        let other = warm.other_owner();
        let clients: Vec<&Warm> = std::iter::once(&warm).chain(&other).collect();
        let mounts = left::mounts();
        for client in &clients {
            client.heat("default");
            client.heat("loopback");
        }
        let tree = warm.daemon().tree();
        let waiting = waiting(&warm);
        assert!(waiting.len() >= 4 * clients.len(), "{waiting:#?}");
        if warm.setting.mode.is_system() {
            assert!(uids(&waiting).iter().any(|uid| RANGE.contains(uid)), "{waiting:#?}");
        }
        warm.daemon().signal(Signal::TERM);
        assert!(warm.daemon().ends_within(PATIENCE), "{}", warm.daemon().log());
        expect_gone(&waiting);
        expect_gone(&tree);
        assert_eq!(left::mounts(), mounts);
    }
}

#[test]
fn killed_launcher_leaves_no_template_and_no_spare() {
    for warm in Warm::each() {
        warm.heat("default");
        let waiting = waiting(&warm);
        assert!(waiting.len() >= 2, "{waiting:#?}");
        let launcher = left::process(warm.launcher()).unwrap();
        crate::stage::signal(&[launcher], Signal::KILL);
        expect_gone(&waiting);
        // Another launcher follows, which counts from nothing.
        let again = wait_until(PATIENCE, || {
            let ended = warm.line("default", "echo again").finish();
            ended.code == Some(0) && ended.text() == "again"
        });
        assert!(again, "{}", warm.daemon().log());
    }
}

#[test]
fn templates_and_spares_end_when_no_run_comes() {
    let all: Vec<Warm> = Warm::each().collect();
    for warm in &all {
        warm.heat("default");
    }
    for warm in &all {
        let spares = waiting(warm);
        // They may have ended while the others were heated: nothing is claimed of the time before.
        expect_gone(&spares);
        let none = wait_until(PATIENCE, || waiting(warm).is_empty() && warm.counts().templates == 0);
        assert!(none, "{:?}", warm.counts());
        let counts = warm.counts();
        assert_eq!((counts.templates, counts.parked), (0, 0));
        assert_eq!(uids(&left::tree(warm.launcher())).iter().filter(|uid| RANGE.contains(uid)).count(), 0);
        // And the next run begins anew.
        warm.recount();
        warm.finish(warm.line("default", "echo cold")).expect_text("cold");
        warm.heat("default");
        warm.hit(warm.line("default", "echo warm")).expect_text("warm");
    }
}

#[test]
fn spares_are_dropped_while_memory_is_short_and_runs_go_on() {
    if !Person::me().is_root() {
        return not_tested("spares without memory", "only root can show a daemon another /proc/meminfo");
    }
    // Of this thread's own, and of what it starts: there another file stands where the daemon reads.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let mount = |words: &[&str]| {
        let status = std::process::Command::new("mount").args(words).status().unwrap();
        assert!(status.success(), "mount {words:?}");
    };
    mount(&["--make-rprivate", "/"]);
    let scratch = stockade_tests::scratch::Scratch::new("meminfo");
    let file = scratch.path().join("meminfo");
    let say = |available: u32| {
        let text = format!("MemTotal:  1000000 kB\nMemFree:  1 kB\nMemAvailable:  {available} kB\n");
        std::fs::write(&file, text).unwrap();
    };
    say(500_000);
    mount(&["--bind", file.to_str().unwrap(), "/proc/meminfo"]);
    for mode in Mode::daemons_here().into_iter().filter(|mode| mode.is_system()) {
        let warm = Warm::new(mode);
        warm.heat("default");
        let spares = warm.spares();
        say(10_000);
        expect_gone(&spares);
        for _ in 0..3 {
            let before = warm.counted();
            warm.finish(warm.line("default", "echo done")).expect_code(0).expect_text("done");
            let after = warm.counted();
            assert_eq!((after.hits, after.misses), (before.hits, before.misses + 1));
        }
        assert_eq!(warm.recount().parked, 0);
        say(500_000);
        warm.heat("default");
        warm.hit(warm.line("default", "echo done")).expect_code(0).expect_text("done");
    }
}
