//! A launcher that can let nobody in for a while: it waits without turning in circles, and its runs are known when it can.

use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use stockade_tests::{Daemon, Ended, Ground, Mode, left, wait_until};

const SOON: Duration = Duration::from_secs(60);

/// Processor time that a process has used, in ticks of a hundredth of a second.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_launcher_without_a_free_descriptor_rests_and_its_runs_are_known_when_it_has_one() {
    let mode = Mode::a_daemon();
    let (daemon, ground) = (Daemon::start(mode.server(), &[]), Ground::new(mode.client()));
    let mut command = daemon.ask(&ground, &["run", "--detach"]);
    command.args(["--", "sh", "-c", "echo here; sleep 300"]);
    let id = Ended::of(command).expect_code(0).text();
    let listed = || Ended::of(daemon.ask(&ground, &["ps"])).text().contains(&id);
    // From then on it needs nothing more of its launcher.
    let said = || Ended::of(daemon.ask(&ground, &["logs", &id])).text().contains("here");
    assert!(wait_until(SOON, said) && listed());
    let elder = daemon.launchers()[0];
    // It is watched, too, from a while after its start on.
    let is_watched = || left::tree(elder).iter().any(|process| process.command.contains("monitor"));
    assert!(wait_until(SOON, is_watched));
    std::thread::sleep(Duration::from_millis(500));
    let pid = Pid::from_raw(elder.cast_signed());
    let before = getrlimit(Resource::Nofile);
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(0), ..before }).unwrap();
    daemon.kill();
    // Somebody waits at its door from here on.
    daemon.start_again(&[]);
    let gives_up = wait_until(SOON, || daemon.log().contains("launcher doesn't answer"));
    assert!(gives_up && !listed(), "{}", daemon.log());
    let used = ticks(elder);
    std::thread::sleep(Duration::from_secs(2));
    let used = ticks(elder) - used;
    assert!(used < 50, "{used} of 200 ticks went into looking at the door");
    prlimit(pid, Resource::Nofile, before).unwrap();
    assert!(wait_until(SOON, listed), "{}", daemon.log());
    Ended::of(daemon.ask(&ground, &["kill", &id])).expect_code(0);
}
