//! Statistics of a daemon that serves: the same after a restart and after any death, each run once, and nobody else's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs")]

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use stockade_tests::{Daemon, Ended, Ground, Mode, Person, not_tested, wait_until};

const SOON: Duration = Duration::from_secs(60);
const TOOL: &str = "name = \"fussy\"\ndescription = \"Ends with 3.\"\nversion = \"1\"\npolicy = \"default\"\n\
    [command]\nprogram = \"/bin/sh\"\narguments = [\"-c\", \"exit 3\"]\n[parameters]\ntype = \"object\"\n";

fn file(daemon: &Daemon) -> PathBuf {
    daemon.ground.base().join("state/statistics.db")
}

fn run(daemon: &Daemon, ground: &Ground, words: &[&str]) -> Command {
    let mut command = daemon.ask(ground, &["run"]);
    command.current_dir(ground.work()).args(words);
    command
}

fn stats(daemon: &Daemon, ground: &Ground, words: &[&str]) -> Ended {
    Ended::of(daemon.ask(ground, &[&["stats", "--json"], words].concat()))
}

/// What the daemon's own user is told.
fn told(daemon: &Daemon) -> Value {
    let told = stats(daemon, &daemon.ground, &[]);
    told.expect_code(0);
    serde_json::from_str(&told.text()).unwrap()
}

/// One row of an answer.
fn row<'a>(told: &'a Value, by: &str, name: &str) -> Option<&'a Value> {
    told["rows"].as_array().unwrap().iter().find(|row| row["by"] == by && row["name"] == name)
}

fn runs(told: &Value, by: &str, name: &str) -> u64 {
    row(told, by, name).map_or(0, |row| row["runs"].as_u64().unwrap())
}

#[test]
fn what_runs_came_to_is_told_by_tool_policy_and_user_and_is_the_same_after_a_restart() {
    for mode in Mode::daemons_here() {
        let server = Ground::new(mode.server());
        let tools = server.configuration().join("tools");
        std::fs::create_dir_all(&tools).unwrap();
        std::fs::write(tools.join("fussy.toml"), TOOL).unwrap();
        server.person.own_all(&server.configuration());
        let daemon = Daemon::start_at(server, &[]);
        let ground = Ground::new(mode.client());
        Ended::of(run(&daemon, &ground, &["--", "true"])).expect_code(0);
        Ended::of(run(&daemon, &ground, &["--", "sh", "-c", "exit 7"])).expect_code(7);
        let late = Ended::of(run(&daemon, &ground, &["--timeout", "100ms", "--", "sleep", "60"]));
        assert_ne!(late.code, Some(0), "{}", late.story());
        assert_ne!(Ended::of(run(&daemon, &ground, &["--policy", "nosuch", "--", "true"])).code, Some(0));
        let mut call = daemon.ask(&ground, &["tool", "call", "fussy"]);
        call.current_dir(ground.work());
        Ended::of(call).expect_code(3);
        let mut unknown = daemon.ask(&ground, &["tool", "call", "nosuch"]);
        unknown.current_dir(ground.work());
        assert_ne!(Ended::of(unknown).code, Some(0));

        let before = told(&daemon);
        let uid = ground.person.uid.to_string();
        let user = row(&before, "principal", &uid).unwrap();
        assert_eq!(user["runs"], 4, "{before:#}");
        assert_eq!(user["outcomes"], json!({ "ok": 1, "failed": 2, "timed-out": 1 }));
        assert_eq!(user["denials"], json!({ "admission": 1, "validate": 1 }));
        assert_eq!(user["wall_us"]["count"], 4);
        assert!(user["wall_us"]["max"].as_u64().unwrap() >= 100_000, "{user}");
        assert!(user["memory"]["p50"].as_u64().unwrap() > 0, "{user}");
        assert_eq!(runs(&before, "policy", "default"), 4);
        assert_eq!(runs(&before, "tool", "fussy"), 1);
        assert_eq!(row(&before, "tool", "(unknown)").unwrap()["denials"], json!({ "validate": 1 }));
        assert_eq!(row(&before, "policy", "(unknown)").unwrap()["denials"], json!({ "admission": 1 }));
        assert!(row(&before, "tool", "nosuch").is_none() && row(&before, "policy", "nosuch").is_none());

        daemon.signal(Signal::TERM);
        assert!(daemon.ends_within(SOON));
        let mode = std::fs::metadata(file(&daemon)).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600);
        // Without a daemon the file says the same.
        let mut read = daemon.ground.stockade();
        read.args(["stats", "--json", "--directory"]).arg(daemon.ground.base().join("state"));
        let read = Ended::of(read);
        read.expect_code(0);
        let read: Value = serde_json::from_str(&read.text()).unwrap();
        assert_eq!(runs(&read, "principal", &uid), 4);
        daemon.start_again(&[]);
        let after = told(&daemon);
        assert_eq!((&after["rows"], &after["from_s"]), (&before["rows"], &before["from_s"]));
        Ended::of(run(&daemon, &ground, &["--", "true"])).expect_code(0);
        let one = stats(&daemon, &daemon.ground, &["--user", &uid]);
        let one: Value = serde_json::from_str(&one.text()).unwrap();
        assert_eq!((runs(&one, "principal", &uid), one["rows"].as_array().unwrap().len()), (5, 1));
        let screen = Ended::of(daemon.ask(&daemon.ground, &["stats", "--by", "policy"]));
        assert!(screen.text().starts_with("POLICY"), "{}", screen.story());
    }
}

#[test]
fn a_user_of_the_machines_daemon_sees_his_own_row_and_no_others() {
    if !Person::me().is_root() {
        not_tested("another user's statistics", "that takes root");
        return;
    }
    let daemon = Daemon::start_apart();
    let (user, root) = (Ground::new(Person::user()), Ground::new(Person::me()));
    Ended::of(run(&daemon, &user, &["--", "true"])).expect_code(0);
    Ended::of(run(&daemon, &root, &["--", "true"])).expect_code(0);
    let own = stats(&daemon, &user, &[]);
    own.expect_code(0);
    let own: Value = serde_json::from_str(&own.text()).unwrap();
    let uid = user.person.uid.to_string();
    assert_eq!(own["rows"].as_array().unwrap().len(), 1, "{own:#}");
    assert_eq!(runs(&own, "principal", &uid), 1);
    for words in [&["--by", "tool"][..], &["--policy", "default"], &["--user", "0"]] {
        let denied = stats(&daemon, &user, words);
        denied.expect_code(1).expect_errors(&["what others have asked for", "access"]);
    }
    for operator in [root, Ground::new(Person::service())] {
        let all = stats(&daemon, &operator, &["--by", "principal"]);
        let all: Value = serde_json::from_str(&all.text()).unwrap();
        assert_eq!((runs(&all, "principal", &uid), runs(&all, "principal", "0")), (1, 1), "{all:#}");
    }
}

/// It is kept for its client, so the next daemon is told of its end once more.
#[test]
fn a_run_that_has_ended_is_counted_once_whoever_takes_it_over() {
    for mode in Mode::daemons_here() {
        for is_written in [true, false] {
            let daemon = Daemon::start(mode.server(), &[]);
            let ground = Ground::new(mode.client());
            Ended::of(run(&daemon, &ground, &["--detach", "--", "true"])).expect_code(0);
            let is_kept = || Ended::of(daemon.ask(&ground, &["ps", "--all"])).text().contains("exit 0");
            assert!(wait_until(SOON, is_kept));
            if is_written {
                // Who is answered is told what is written.
                assert_eq!(runs(&told(&daemon), "policy", "default"), 1);
            }
            for _ in 0..2 {
                daemon.kill_and_start_again(&[]);
                assert!(wait_until(SOON, is_kept));
                let told = told(&daemon);
                assert_eq!(runs(&told, "policy", "default"), 1, "written: {is_written}: {told:#}");
            }
        }
    }
}

#[test]
fn a_daemon_that_is_killed_while_it_writes_loses_little_and_spoils_nothing() {
    const KILLS: u64 = 10;
    let mode = Mode::a_daemon();
    let daemon = Daemon::start(mode.server(), &[]);
    let ground = Ground::new(mode.client());
    let mut least = 0;
    for round in 0..KILLS {
        let mut clients: Vec<_> = (0..4)
            .map(|_| {
                let mut command = run(&daemon, &ground, &["--", "true"]);
                command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
            })
            .collect();
        let seen = runs(&told(&daemon), "policy", "default");
        assert!(seen >= least, "{seen} runs, and {least} were told before");
        least = seen;
        // Each answer has the thread write first.
        let asks: Vec<_> = (0..3)
            .map(|_| {
                let mut ask = daemon.ask(&daemon.ground, &["stats"]);
                ask.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
            })
            .collect();
        std::thread::sleep(Duration::from_millis(round * 3));
        daemon.kill_and_start_again(&[]);
        clients.extend(asks);
        for mut client in clients {
            let _ended = client.wait().unwrap();
        }
    }
    let told = told(&daemon);
    let all = runs(&told, "policy", "default");
    assert!((least..=KILLS * 4).contains(&all), "{all} of {} runs, {least} before", KILLS * 4);
    assert_eq!(runs(&told, "principal", &ground.person.uid.to_string()), all, "{told:#}");
    assert!(!daemon.log().contains("set aside"), "{}", daemon.log());
}

#[test]
fn whatever_the_file_is_the_daemon_serves_and_says_so() {
    let mode = Mode::a_daemon();
    let daemon = Daemon::start(mode.server(), &[]);
    let ground = Ground::new(mode.client());
    let path = file(&daemon);
    let again = |says: &str| {
        daemon.start_again(&[]);
        Ended::of(run(&daemon, &ground, &["--", "true"])).expect_code(0);
        let told = told(&daemon);
        // And the one before, if its daemon couldn't write it down and it's told of once more.
        assert!((1..=2).contains(&runs(&told, "policy", "default")), "{says}: {told:#}");
        assert!(wait_until(SOON, || daemon.log().contains(says)), "{says}: {}", daemon.log());
        daemon.kill();
        told
    };
    let clear = || {
        // One that was killed while it made the file leaves a journal, which would make another file of ours.
        for beside in ["", "-wal", "-journal"] {
            let _ = std::fs::remove_file(path.with_file_name(format!("statistics.db{beside}")));
        }
    };
    daemon.kill();
    clear();
    std::fs::write(&path, "this was a database once").unwrap();
    daemon.ground.person.own(&path);
    assert_eq!(again("the statistics were damaged and are set aside")["unwritten"], Value::Null);
    let aside = std::fs::read_to_string(path.with_file_name("statistics.db.damaged")).unwrap();
    assert_eq!(aside, "this was a database once");
    // The number of its version, where SQLite has it: a newer one's.
    daemon.start_again(&[]);
    daemon.signal(Signal::TERM);
    assert!(daemon.ends_within(SOON));
    let mut newer = std::fs::read(&path).unwrap();
    newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
    std::fs::write(&path, &newer).unwrap();
    let told = again("newer stockade");
    assert!(told["unwritten"].as_str().unwrap().contains("newer stockade (version 99"), "{told:#}");
    assert_eq!(std::fs::read(&path).unwrap(), newer);
    // What can't be written: root may write anything but this.
    clear();
    std::fs::create_dir(&path).unwrap();
    let told = again("Is a directory");
    assert!(told["unwritten"].is_string(), "{told:#}");
    std::fs::remove_dir(&path).unwrap();
    daemon.start_again(&[]);
    assert_eq!(self::told(&daemon)["unwritten"], Value::Null);
}
