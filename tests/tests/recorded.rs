//! The record of a daemon that serves: what was asked stands in it before it runs, whatever happens to the daemon.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use stockade_audit::MasterKey;
use stockade_tests::{Daemon, Ended, Ground, Mode, Person, not_tested, wait_until};

const PATIENCE: Duration = Duration::from_secs(40);

/// Gives a daemon a key and has it record.
fn recording(ground: &Ground, more: &str) {
    let (key, files) = (ground.base().join("audit.key"), ground.configuration());
    MasterKey::create(&key).unwrap();
    ground.person.own(&key);
    std::fs::create_dir_all(&files).unwrap();
    let text = format!("[audit]\nkey = \"{}\"\n{more}", key.display());
    std::fs::write(files.join("stockade.toml"), text).unwrap();
    ground.person.own_all(&ground.base().join("config"));
}

fn audit(ground: &Ground, words: &[&str]) -> Ended {
    let mut command = ground.stockade();
    command.arg("audit").args(words).arg("--directory").arg(ground.base().join("state/audit"));
    command.arg("--key").arg(ground.base().join("audit.key"));
    Ended::of(command)
}

/// All events, as the record has them.
fn events(ground: &Ground) -> Vec<Value> {
    let exported = audit(ground, &["export"]);
    exported.expect_code(0);
    exported.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn run(daemon: &Daemon, ground: &Ground, words: &[&str]) -> Command {
    let mut command = daemon.ask(ground, &["run", "--policy", "default"]);
    command.arg("--").args(words);
    command
}

#[test]
fn a_run_a_call_and_a_refusal_are_found_by_their_commands() {
    for mode in Mode::daemons_here() {
        let server = Ground::new(mode.server());
        recording(&server, "");
        let daemon = Daemon::start_at(server, &[]);
        let ground = Ground::new(mode.client());
        Ended::of(run(&daemon, &ground, &["sh", "-c", "exit 3"])).expect_code(3);
        let mut refused = daemon.ask(&ground, &["run", "--policy", "nosuch"]);
        refused.args(["--", "true"]);
        assert!(Ended::of(refused).code != Some(0));
        // Read while the daemon goes on: an outcome may be a moment behind what its client is told.
        let server = &daemon.ground;
        assert!(wait_until(PATIENCE, || events(server).iter().any(|one| one["event"] == "outcome")));
        let all = events(server);
        let of =
            |name: &str| all.iter().find(|one| one["event"] == name).unwrap_or_else(|| panic!("{all:?}"));
        let (intent, outcome, refused) = (of("intent"), of("outcome"), of("refused"));
        assert_eq!(intent["given"]["text"], serde_json::json!(["sh", "-c", "exit 3"]));
        assert_eq!(intent["principal"]["uid"], ground.person.uid);
        assert_eq!((&outcome["outcome"], &outcome["code"]), (&"exited".into(), &3.into()));
        assert_eq!(outcome["exec"], intent["exec"]);
        assert_eq!(refused["reason"], "unknown-policy");
        audit(server, &["verify"]).expect_code(0);
    }
}

/// What a client was told is in the record: each run that began has its intent, though its daemon was killed at any moment.
#[test]
fn a_daemon_that_is_killed_leaves_an_intent_of_each_run_that_began() {
    const KILLS: usize = 12;
    for mode in Mode::daemons_here() {
        let server = Ground::new(mode.server());
        recording(&server, "");
        let daemon = Daemon::start_at(server, &[]);
        let ground = Ground::new(mode.client());
        let is_mark = |name: &String| name.starts_with("began.");
        let mut began = BTreeSet::new();
        for round in 0..KILLS {
            let mut running: Vec<_> = (0..6)
                .map(|number| {
                    let line = format!("echo x >began.{round}.{number}");
                    let mut command = run(&daemon, &ground, &["sh", "-c", &line]);
                    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
                    command.spawn().unwrap()
                })
                .collect();
            if round + 1 == KILLS {
                // In one round at least something has run before, however busy the machine is.
                let is_there = || stockade_tests::left::names(&ground.work()).iter().any(&is_mark);
                assert!(wait_until(PATIENCE, is_there), "nothing ever ran: {}", daemon.log());
            }
            std::thread::sleep(Duration::from_millis(3 * round as u64));
            daemon.kill_and_start_again(&[]);
            for child in &mut running {
                child.wait().unwrap();
            }
        }
        began.extend(stockade_tests::left::names(&ground.work()).into_iter().filter(is_mark));
        assert!(!began.is_empty(), "nothing ever ran: nothing is tested");
        let intents: BTreeSet<String> = events(&daemon.ground)
            .iter()
            .filter(|one| one["event"] == "intent")
            .filter_map(|one| Some(one["given"]["text"][2].as_str()?.strip_prefix("echo x >")?.to_owned()))
            .collect();
        let missing: Vec<_> = began.difference(&intents).collect();
        assert!(missing.is_empty(), "{mode:?}: ran and isn't recorded: {missing:?}");
        audit(&daemon.ground, &["verify"]).expect_code(0);
    }
}

/// A small filesystem on the record's directory, which is unmounted again.
struct Small<'a>(&'a Path);

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[test]
fn on_a_full_disk_nothing_runs_that_cant_be_recorded_unless_the_operator_wants_that() {
    if !Person::me().is_root() {
        return not_tested("a full disk", "only root can mount a small one");
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    assert!(Command::new("mount").args(["--make-rprivate", "/"]).status().unwrap().success());
    for (mode, more) in
        Mode::daemons_here().into_iter().flat_map(|mode| [(mode, ""), (mode, "required = false\n")])
    {
        let server = Ground::new(mode.server());
        recording(&server, more);
        let log = server.base().join("state/audit");
        std::fs::create_dir_all(&log).unwrap();
        let options = format!("size=256k,mode=700,uid={},gid={}", mode.server().uid, mode.server().gid);
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "small"]).arg(&log).status();
        assert!(mounted.unwrap().success());
        let small = Small(&log);
        mode.server().own(&server.base().join("state"));
        std::fs::set_permissions(
            server.base().join("state"),
            std::os::unix::fs::PermissionsExt::from_mode(0o700),
        )
        .unwrap();
        let daemon = Daemon::start_at(server, &[]);
        let ground = Ground::new(mode.client());
        Ended::of(run(&daemon, &ground, &["true"])).expect_code(0);
        let full =
            (0..64).any(|page| std::fs::write(log.join(format!("filling-{page}")), [0; 4096]).is_err());
        assert!(full, "it takes more than it's to hold");
        // What is left of its last page takes some records yet.
        let outcomes: BTreeMap<i32, String> = (0..40)
            .map(|_| {
                let ended = Ended::of(run(&daemon, &ground, &["sh", "-c", "echo ran"]));
                (ended.code.unwrap(), ended.story())
            })
            .collect();
        if more.is_empty() {
            let (code, story) = outcomes.last_key_value().unwrap();
            assert!(
                *code != 0 && story.contains("can't be recorded"),
                "{mode:?}: {outcomes:?}\n{}",
                daemon.log()
            );
            assert!(!story.contains("ran\n"), "{story}");
        } else {
            assert_eq!(outcomes.keys().copied().collect::<Vec<_>>(), [0], "{mode:?}: {outcomes:?}");
            assert!(daemon.log().contains("isn't recorded, and starts all the same"), "{}", daemon.log());
        }
        for page in 0..64 {
            let _ = std::fs::remove_file(log.join(format!("filling-{page}")));
        }
        let again = || Ended::of(run(&daemon, &ground, &["true"])).code == Some(0);
        assert!(wait_until(PATIENCE, again), "it doesn't recover: {}", daemon.log());
        daemon.signal(rustix::process::Signal::TERM);
        assert!(daemon.ends_within(PATIENCE));
        drop(small);
    }
}
