//! What a daemon does for its clients beyond one run: listing, detaching, attaching, draining, reloading.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

use std::io::Write as _;
use std::time::Duration;

use rustix::process::Signal;
use stockade_tests::setting::{Started, marker};
use stockade_tests::{Daemon, Ended, Ground, Mode, Person, Setting, left, wait_until};

/// Of what must come, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a detached run; its id.
fn detached(setting: &Setting, line: &str) -> String {
    let ended = setting.run("default").option(&["--detach"]).words(["bash", "-c", line]).finish();
    ended.expect_code(0);
    let id = ended.text();
    assert_eq!(id.len(), 36, "{}", ended.story());
    id
}

fn ask(setting: &Setting, words: &[&str]) -> Ended {
    Ended::of(setting.ask(words))
}

#[test]
fn detached_run_goes_on_and_its_output_can_be_read_later() {
    for mode in Mode::daemons_here() {
        let setting = Setting::new(mode);
        let id = detached(&setting, "echo one; sleep 1; echo two > made; echo two; exit 3");
        let made = setting.ground.work().join("made");
        assert!(wait_until(PATIENCE, || made.exists()), "{mode:?}");
        assert!(
            wait_until(PATIENCE, || ask(&setting, &["logs", &id]).text() == "one\ntwo"),
            "{}",
            ask(&setting, &["logs", &id]).story()
        );
    }
}

#[test]
fn attaching_follows_a_run_to_its_end_and_gives_its_status() {
    for mode in Mode::daemons_here() {
        let setting = Setting::new(mode);
        let id = detached(&setting, "for i in 1 2 3 4 5; do echo line $i; sleep 0.3; done; exit 7");
        let ended = ask(&setting, &["attach", &id]);
        ended.expect_code(7).expect_text("line 1\nline 2\nline 3\nline 4\nline 5");
    }
}

#[test]
fn runs_are_listed_while_they_last_and_killed_by_id() {
    for mode in Mode::daemons_here() {
        let setting = Setting::new(mode);
        let word = marker("listed");
        let id = detached(&setting, &format!("sleep 60; echo {word}"));
        let listed = ask(&setting, &["ps"]);
        listed.expect_code(0);
        assert!(listed.text().contains(&id), "{}", listed.story());
        assert!(wait_until(PATIENCE, || !left::with_word(&word).is_empty()));
        ask(&setting, &["kill", &id]).expect_code(0);
        let gone = wait_until(PATIENCE, || left::with_word(&word).is_empty());
        assert!(gone, "{mode:?}: {:?}", left::with_word(&word));
    }
}

#[test]
fn runs_of_another_owner_can_be_neither_seen_nor_killed() {
    if !Person::me().is_root() {
        stockade_tests::not_tested("two owners of one daemon", "only root's daemon serves two users");
        return;
    }
    let roots = Setting::new(Mode::RootDaemonForRoot);
    let users = Setting::new(Mode::RootDaemonForUser);
    let id = detached(&roots, "sleep 60");
    let listed = ask(&users, &["ps"]);
    assert!(!listed.text().contains(&id), "{}", listed.story());
    for words in [["kill", id.as_str()], ["attach", &id], ["logs", &id]] {
        let ended = ask(&users, &words);
        assert_ne!(ended.code, Some(0), "{}", ended.story());
    }
    assert!(ask(&roots, &["ps"]).text().contains(&id));
    ask(&roots, &["kill", &id]).expect_code(0);
}

#[test]
fn user_of_another_uid_is_refused_by_a_users_daemon() {
    if !Person::me().is_root() {
        stockade_tests::not_tested("a stranger at a user's socket", "needs a second user, so root");
        return;
    }
    let daemon = Daemon::shared(Mode::UserDaemon);
    let stranger = Ground::new(Person { uid: 54_322, gid: 100 });
    let mut command = stranger.stockade();
    command.args(["run", "--policy", "default", "--socket"]).arg(&daemon.socket).args(["--", "true"]);
    let ended = Ended::of(command);
    ended.expect_code(125);
}

#[test]
fn status_tells_plan_and_slots() {
    for mode in Mode::daemons_here() {
        let setting = Setting::new(mode);
        let ended = ask(&setting, &["status", "--json"]);
        ended.expect_code(0);
        let report: serde_json::Value = serde_json::from_str(&ended.text()).unwrap();
        let daemon = setting.daemon.as_ref().unwrap();
        assert_eq!(report["pid"], daemon.pid(), "{}", ended.story());
        assert!(report["slots"].as_u64().unwrap() >= 64, "{}", ended.story());
    }
}

#[test]
fn second_daemon_on_the_same_socket_is_refused_and_told_the_pid() {
    for mode in Mode::daemons_here() {
        let daemon = Daemon::shared(mode);
        let ended = Ended::of(daemon.another());
        assert_ne!(ended.code, Some(0), "{}", ended.story());
        assert!(ended.errors().contains(&daemon.pid().to_string()), "{}", ended.story());
    }
}

#[test]
fn stale_socket_is_replaced() {
    let person = Mode::a_daemon().server();
    let ground = Ground::new(person);
    let folder = ground.base().join("daemon");
    std::fs::create_dir(&folder).unwrap();
    let mode = if person.is_root() { 0o755 } else { 0o700 };
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    drop(std::os::unix::net::UnixListener::bind(folder.join("stockade.sock")).unwrap());
    person.own_all(&folder);
    let daemon = Daemon::start_at(ground, &[]);
    assert!(daemon.socket.exists());
}

#[test]
fn socket_of_a_daemon_has_the_mode_of_its_kind() {
    use std::os::unix::fs::PermissionsExt as _;
    for mode in Mode::daemons_here() {
        let daemon = Daemon::shared(mode);
        let bits = std::fs::metadata(&daemon.socket).unwrap().permissions().mode() & 0o777;
        let expected = if mode.is_system() { 0o660 } else { 0o600 };
        assert_eq!(bits, expected, "{mode:?}: {bits:o}");
    }
}

#[test]
fn terminated_daemon_refuses_new_runs_and_lets_the_running_one_end() {
    let person = Mode::a_daemon().server();
    let daemon = Daemon::start(person, &[]);
    let ground = Ground::new(person);
    let words = ["run", "--policy", "default"];
    let mut command = daemon.ask(&ground, &words);
    command.args(["--", "bash", "-c", ": > up; until [ -e go ]; do sleep 0.02; done; echo whole"]);
    let running = Started::of(command, None, PATIENCE, "a run that is going on");
    assert!(wait_until(PATIENCE, || ground.work().join("up").exists()));
    daemon.signal(Signal::TERM);
    assert!(daemon.is_draining(), "{}", daemon.log());
    let mut late = daemon.ask(&ground, &words);
    late.args(["--", "true"]);
    Ended::of(late).expect_code(125);
    ground.put("go", "");
    running.finish().expect_code(0).expect_text("whole");
    assert!(daemon.ends_within(PATIENCE), "{}", daemon.log());
}

#[test]
fn second_termination_ends_the_daemon_and_its_runs_at_once() {
    let person = Mode::a_daemon().server();
    let daemon = Daemon::start(person, &["--grace", "1h"]);
    let ground = Ground::new(person);
    let word = marker("second-term");
    let mut command = daemon.ask(&ground, &["run", "--policy", "default"]);
    command.args(["--", "bash", "-c", &format!("sleep 300; echo {word}")]);
    let running = Started::of(command, None, 2 * PATIENCE, "a long run");
    assert!(wait_until(PATIENCE, || left::with_word(&word).len() > 1));
    daemon.signal(Signal::TERM);
    // Two signals that wait would be one.
    assert!(daemon.is_draining(), "{}", daemon.log());
    daemon.signal(Signal::TERM);
    assert!(daemon.ends_within(PATIENCE), "{}", daemon.log());
    running.finish().expect_code(125);
    assert!(wait_until(PATIENCE, || left::with_word(&word).is_empty()));
}

/// Runs die with the launcher, not with the supervisor: what remains is the launcher's to keep for the next one. Here none
/// comes, nor could the client come back: the run ends, and the launcher after it.
#[test]
fn killed_daemon_leaves_its_runs_to_the_next_and_nothing_if_none_comes() {
    let person = Mode::a_daemon().server();
    let daemon = Daemon::start(person, &[]);
    let ground = Ground::new(person);
    let word = marker("daemon-killed");
    let mut command = daemon.ask(&ground, &["run", "--policy", "build"]);
    command.args(["--", "bash", "-c", &format!("sleep 300; echo {word}")]);
    let running = Started::of(command, None, 2 * PATIENCE, "a long run");
    assert!(wait_until(PATIENCE, || left::with_word(&word).len() > 1));
    let tool = || left::with_word(&word).into_iter().filter(|process| process.command.starts_with("bash"));
    daemon.kill();
    std::thread::sleep(Duration::from_secs(10));
    assert!(tool().next().is_some(), "it died with the daemon");
    running.finish().expect_code(125);
    assert!(wait_until(2 * PATIENCE, || tool().next().is_none()), "nobody needs it any more");
    Daemon::start_again(&daemon, &[]);
}

#[test]
fn killed_launcher_ends_its_runs_as_lost_and_is_replaced() {
    let person = Mode::a_daemon().server();
    let daemon = Daemon::start(person, &[]);
    let ground = Ground::new(person);
    let word = marker("launcher-killed");
    let run = |line: &str| {
        let mut command = daemon.ask(&ground, &["run", "--policy", "default"]);
        command.args(["--", "bash", "-c", line]);
        Started::of(command, None, PATIENCE, "a run")
    };
    let running = run(&format!("sleep 40; echo {word}"));
    assert!(wait_until(PATIENCE, || left::with_word(&word).len() > 1));
    let status = Ended::of(daemon.ask(&ground, &["status", "--json"]));
    let report: serde_json::Value = serde_json::from_str(&status.text()).unwrap();
    let launcher = i32::try_from(report["launcher_pid"].as_u64().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(launcher).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    running.finish().expect_code(125);
    assert!(wait_until(PATIENCE, || left::with_word(&word).is_empty()));
    run("echo again").finish().expect_code(0).expect_text("again");
}

/// A reader of the log who has stopped, from the first line on.
#[test]
fn a_log_that_nobody_reads_stops_nobody() {
    let person = Mode::a_daemon().server();
    let ground = Ground::new(person);
    let socket = ground.base().join("daemon/stockade.sock");
    let (_reader, mut writer) = std::io::pipe().unwrap();
    let room = rustix::pipe::fcntl_getpipe_size(&writer).unwrap();
    writer.write_all(&vec![b'x'; room]).unwrap();
    let mut command = stockade_tests::daemon::serve(&ground, &socket);
    let mut daemon = command.env("STOCKADE_LOG", "debug").stderr(writer).spawn().unwrap();
    let up = wait_until(PATIENCE, || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    let mut ends = Vec::new();
    for number in 0..3 {
        let mut command = ground.stockade();
        command.args(["run", "--policy", "default", "--socket"]).arg(&socket);
        command.args(["--", "echo", &number.to_string()]);
        ends.push(Started::of(command, None, PATIENCE, "a run").finish());
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(daemon.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let ended = wait_until(PATIENCE, || daemon.try_wait().unwrap().is_some());
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(up, "it doesn't serve");
    for (number, end) in ends.iter().enumerate() {
        end.expect_code(0).expect_text(&number.to_string());
    }
    assert!(ended, "it doesn't end");
}

#[test]
fn reload_with_a_bad_policy_keeps_the_old_set() {
    let person = Mode::a_daemon().server();
    let daemon = Daemon::start(person, &[]);
    let ground = Ground::new(person);
    let run = |policy: &str| {
        let mut command = daemon.ask(&ground, &["run", "--policy", policy]);
        command.args(["--", "true"]);
        Ended::of(command)
    };
    let bad = daemon.ground.policies().join("test-bad.toml");
    std::fs::write(&bad, "name = \"test-bad\"\nextends = \"default\"\nunknown-key = 1\n").unwrap();
    let good = daemon.ground.policies().join("test-new.toml");
    std::fs::write(&good, "name = \"test-new\"\ndescription = \"new\"\nextends = \"default\"\n").unwrap();
    person.own_all(&daemon.ground.policies());
    daemon.signal(Signal::HUP);
    assert!(wait_until(PATIENCE, || daemon.log().contains("test-bad")), "{}", daemon.log());
    run("test-second").expect_code(0);
    run("test-new").expect_code(125);
    std::fs::remove_file(&bad).unwrap();
    daemon.signal(Signal::HUP);
    assert!(wait_until(PATIENCE, || run("test-new").code == Some(0)), "{}", daemon.log());
}

#[test]
fn run_cannot_become_a_client_of_its_own_daemon() {
    for mode in Mode::daemons_here() {
        let setting = Setting::new(mode);
        let daemon = setting.daemon.as_ref().unwrap();
        let _ = setting.ground.put_stockade();
        let socket = daemon.socket.to_str().unwrap();
        let words = ["./stockade", "run", "--socket", socket, "--", "echo", "inner"];
        let ended = setting.run("default").words(words).finish();
        assert_ne!(ended.code, Some(0), "{}", ended.story());
        assert!(!ended.text().contains("inner"), "{}", ended.story());
    }
}
