//! Host uids of runs, where several launchers of root's choose them: of two daemons, after one was killed, without a daemon.

use std::fs::File;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use stockade_tests::{Daemon, Ended, Ground, Person, not_tested, wait_until};

const SOON: Duration = Duration::from_secs(60);
/// Gives two uids to runs of daemons, and two to those without.
const POLICY: &str = "test-uids";

/// The range of a policy for this process's tests: whoever else tests on this machine has another.
fn range() -> u32 {
    2_100_000_000 + std::process::id() * 4
}

/// A daemon of root's that parks no workers, which have uids, too.
fn daemon() -> Daemon {
    let ground = Ground::new(Person::me());
    let range = format!("{}-{}", range(), range() + 3);
    let text = format!("name = \"{POLICY}\"\nextends = \"default\"\n\n[run-as]\nrange = \"{range}\"\n");
    std::fs::write(ground.policies().join(format!("{POLICY}.toml")), text).unwrap();
    Daemon::start_at(ground, &["--parked", "0"])
}

/// A run that goes on until there is a file `go` in its workspace.
struct Going {
    child: Child,
    said: PathBuf,
    uid: u32,
}

impl Going {
    fn on(daemon: &Daemon, ground: &Ground, name: &str) -> Self {
        let said = ground.base().join(name);
        let line = "until [ -e go ]; do sleep 0.02; done";
        let words = ["run", "--verbose", "--policy", POLICY];
        let mut command = daemon.ask(ground, &words);
        command.args(["--", "bash", "-c", line]).stderr(File::create(&said).unwrap());
        let mut child = command.spawn().unwrap();
        let mut uid = None;
        let up = wait_until(SOON, || {
            uid = uid_in(&std::fs::read_to_string(&said).unwrap());
            uid.is_some() || child.try_wait().unwrap().is_some()
        });
        let text = std::fs::read_to_string(&said).unwrap();
        assert!(up && uid.is_some(), "{text}");
        Self { child, said, uid: uid.unwrap_or_default() }
    }

    fn end(mut self) {
        let ended = wait_until(SOON, || self.child.try_wait().unwrap().is_some());
        let said = std::fs::read_to_string(&self.said).unwrap();
        assert!(ended && self.child.wait().unwrap().success(), "{said}");
    }
}

/// What `--verbose` says.
fn uid_in(text: &str) -> Option<u32> {
    text.split_once("host uid ")?.1.split(';').next()?.parse().ok()
}

#[test]
fn launchers_of_two_daemons_never_give_one_uid_to_two_runs() {
    if !Person::me().is_root() {
        return not_tested("host uids of two launchers", "only root's runs have uids of their own");
    }
    let (one, other) = (daemon(), daemon());
    let ground = Ground::new(Person::me());
    let first = Going::on(&one, &ground, "first");
    let second = Going::on(&other, &ground, "second");
    let both = [range(), range() + 2];
    assert!(both.contains(&first.uid) && both.contains(&second.uid), "{} {}", first.uid, second.uid);
    assert_ne!(first.uid, second.uid);
    for daemon in [&one, &other] {
        let mut command = daemon.ask(&ground, &["run", "--policy", POLICY]);
        command.args(["--", "true"]);
        Ended::of(command).expect_code(125).expect_errors(&["run-as.range"]);
    }
    // What a launcher had is another's once it and its runs are gone, however that came.
    let launcher = i32::try_from(one.launchers()[0]).unwrap();
    kill_process(Pid::from_raw(launcher).unwrap(), Signal::KILL).unwrap();
    let third = || {
        let mut command = other.ask(&ground, &["run", "--verbose", "--policy", POLICY]);
        command.args(["--", "true"]);
        let ended = Ended::of(command);
        (ended.code == Some(0)).then(|| uid_in(&ended.errors())).flatten()
    };
    let mut found = None;
    assert!(wait_until(SOON, || {
        found = third();
        found.is_some()
    }));
    assert_eq!(found, Some(first.uid));
    let mut lost = first;
    assert!(wait_until(SOON, || lost.child.try_wait().unwrap().is_some()));
    ground.put("go", "");
    second.end();
}

#[test]
fn a_run_without_a_daemon_has_a_uid_that_no_launcher_gives() {
    if !Person::me().is_root() {
        return not_tested("host uids without a daemon", "only root's runs have uids of their own");
    }
    let ground = Ground::new(Person::me());
    for _ in 0..8 {
        let mut command = ground.stockade();
        command.args(["run", "--embedded", "--verbose", "--policy", "default", "--", "true"]);
        let ended = Ended::of(command);
        let uid = uid_in(&ended.errors());
        assert!(uid.is_some_and(|uid| uid % 2 == 1), "{uid:?}");
    }
}
