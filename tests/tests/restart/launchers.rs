//! What becomes of launchers, and who may be the next supervisor of one.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, kill_process};
use stockade_protocol::launch::{FromLauncher, LAUNCH_VERSION, ToLauncher, Token};
use stockade_protocol::outcome::Outcome;
use stockade_tests::binaries::copy_program;
use stockade_tests::setting::marker;
use stockade_tests::wire::request;
use stockade_tests::{Daemon, Ended, Ground, Mode, Person, left, wait_until};
use stockade_wire::channel::Channel;

use crate::follower::Follower;

const SOON: Duration = Duration::from_secs(60);

fn started() -> (Daemon, Ground) {
    let mode = Mode::a_daemon();
    (Daemon::start(mode.server(), &[]), Ground::new(mode.client()))
}

/// A run that has said something and goes on until there is a file `go`.
fn running(daemon: &Daemon, ground: &Ground, word: &str) -> Follower {
    let line = format!("echo here; until [ -e go ]; do sleep 0.02; done; echo {word}");
    let mut run = Follower::of(daemon, ground, request(ground, "test-long", &["bash", "-c", &line]));
    run.follow(|run| !run.output.is_empty());
    run
}

fn is_alive(pid: u32) -> bool {
    left::process(pid).is_some_and(|process| process.state != 'Z')
}

/// The one door there is.
fn door(daemon: &Daemon) -> PathBuf {
    let directory = daemon.socket.parent().unwrap();
    let is_door = |name: &String| name.starts_with("launcher-");
    let mut found = Vec::new();
    let one = wait_until(SOON, || {
        found = left::names(directory).into_iter().filter(is_door).collect();
        found.len() == 1
    });
    assert!(one, "{found:?}");
    directory.join(&found[0])
}

fn knock(daemon: &Daemon) -> Channel {
    let socket: OwnedFd =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .unwrap();
    rustix::net::connect(&socket, &SocketAddrUnix::new(door(daemon)).unwrap()).unwrap();
    Channel::new(socket)
}

#[test]
fn a_daemon_of_another_program_leaves_runs_to_the_older_launcher_until_they_have_ended() {
    let (daemon, ground) = started();
    let word = marker("older");
    let mut run = running(&daemon, &ground, &word);
    let before = daemon.launchers();
    assert_eq!(before.len(), 1);
    let upgraded = daemon.ground.base().join("upgraded");
    copy_program(&daemon.ground.binaries.stockade, &upgraded);
    daemon.ground.person.own(&upgraded);
    daemon.kill();
    daemon.start_another(daemon.ground.command(&upgraded), &[]);
    run.come_back(&daemon);
    let answers = |line: &str| {
        let mut command = daemon.ask(&ground, &["run", "--policy", "default"]);
        command.args(["--", "bash", "-c", line]);
        Ended::of(command).expect_code(0).text()
    };
    assert_eq!(answers("echo new"), "new");
    let now = daemon.launchers();
    assert!(now.len() == 2 && now.contains(&before[0]), "{before:?}, {now:?}");
    let status = Ended::of(daemon.ask(&ground, &["status", "--json"]));
    let report: serde_json::Value = serde_json::from_str(&status.text()).unwrap();
    assert_ne!(report["launcher_pid"].as_u64(), Some(before[0].into()), "runs to come go to the older one");
    assert!(is_alive(before[0]), "it has a run");
    ground.put("go", "");
    assert_eq!(run.follow_to_the_end().0, Outcome::Exited { code: 0 });
    run.acknowledge();
    assert!(wait_until(SOON, || !is_alive(before[0])), "it has no run and goes on: {}", daemon.log());
    assert!(wait_until(SOON, || daemon.launchers().len() == 1));
    assert_eq!(answers("echo newer"), "newer");
}

#[test]
fn a_daemon_of_the_same_program_goes_on_with_the_launcher_there_is() {
    let (daemon, ground) = started();
    let word = marker("same");
    let run = running(&daemon, &ground, &word);
    let before = daemon.launchers();
    daemon.kill_and_start_again(&[]);
    let mut command = daemon.ask(&ground, &["run", "--policy", "default"]);
    command.args(["--", "echo", "new"]);
    Ended::of(command).expect_code(0).expect_text("new");
    assert_eq!(daemon.launchers(), before);
    Ended::of(daemon.ask(&ground, &["kill", &run.exec_id.to_string()])).expect_code(0);
    assert!(wait_until(SOON, || left::with_word(&word).is_empty()));
}

#[test]
fn a_launcher_without_runs_ends_with_its_daemon_and_leaves_nothing() {
    let (daemon, ground) = started();
    let mut command = daemon.ask(&ground, &["run", "--policy", "default"]);
    command.args(["--", "true"]);
    Ended::of(command).expect_code(0);
    let tree = left::tree(daemon.launchers()[0]);
    assert!(!tree.is_empty());
    // The daemon knows that nobody needs the run any more, and when it has told so a tenth of a second later, it answers again.
    let answers = || Ended::of(daemon.ask(&ground, &["status"])).expect_code(0).text();
    answers();
    std::thread::sleep(Duration::from_millis(200));
    answers();
    answers();
    daemon.kill();
    let gone = wait_until(SOON, || left::alive(&tree).is_empty());
    assert!(gone, "{:#?}", left::alive(&tree));
    daemon.start_again(&[]);
    assert!(wait_until(SOON, || daemon.launchers().len() == 1));
    drop(door(&daemon));
}

#[test]
fn runs_of_a_launcher_that_has_died_with_its_daemon_are_known_no_more_and_nothing_is_left() {
    let (daemon, ground) = started();
    let word = marker("both");
    let mut run = running(&daemon, &ground, &word);
    let launcher = daemon.launchers()[0];
    daemon.kill();
    kill_process(Pid::from_raw(launcher.cast_signed()).unwrap(), Signal::KILL).unwrap();
    assert!(wait_until(SOON, || left::with_word(&word).is_empty()), "its runs didn't die with it");
    daemon.start_again(&[]);
    let ended = Ended::of(daemon.ask(&ground, &["attach", &run.exec_id.to_string()]));
    ended.expect_code(125).expect_errors(&[&run.exec_id.to_string()]);
    assert!(wait_until(SOON, || daemon.launchers().len() == 1 && daemon.launchers()[0] != launcher));
    drop(door(&daemon));
    run.end = None;
}

#[test]
fn a_launcher_opens_to_nobody_without_the_token() {
    let (daemon, ground) = started();
    let word = marker("token");
    let mut run = running(&daemon, &ground, &word);
    if !daemon.ground.person.is_root() && Person::me().is_root() {
        panic!("the suite connects as the daemon's user");
    }
    let channel = knock(&daemon);
    let Some((FromLauncher::Known { token, .. }, _)) = channel.receive::<FromLauncher>().unwrap() else {
        panic!("it doesn't say who it is")
    };
    // What it says is no token of the supervisor's.
    for wrong in [token, Token([0; 32])] {
        let channel = knock(&daemon);
        channel.receive::<FromLauncher>().unwrap().unwrap();
        channel.send(&ToLauncher::Again { version: LAUNCH_VERSION, token: wrong }, &[]).unwrap();
        let mut closes = [PollFd::new(&channel, PollFlags::IN)];
        let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
        assert_eq!(poll(&mut closes, Some(&patience)).unwrap(), 1, "it says nothing");
        let answer = channel.receive::<FromLauncher>();
        assert!(matches!(answer, Ok(None) | Err(_)), "{answer:?}");
    }
    // Orders without a greeting are none, either.
    let channel = knock(&daemon);
    channel.send(&ToLauncher::Shutdown, &[]).unwrap();
    drop(channel);
    ground.put("go", "");
    assert_eq!(run.follow_to_the_end().0, Outcome::Exited { code: 0 });
    run.acknowledge();
}

/// Connects, and prints how much it is told.
const KNOCK: &str = "import socket, sys\ns = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
                     s.settimeout(20)\ns.connect(sys.argv[1])\nprint(len(s.recv(4096)))\n";

/// A run is in namespaces of its own: whatever it can reach, it neither commands a launcher nor learns its secret.
#[test]
fn a_launchers_door_is_closed_to_processes_in_other_namespaces() {
    let (daemon, _ground) = started();
    let path = door(&daemon);
    let ask = |words: &[&str]| {
        let mut command = std::process::Command::new("setpriv");
        command.arg("--no-new-privs").args(words).args(["python3", "-c", KNOCK]).arg(&path);
        daemon.ground.person.take(&mut command);
        Ended::of(command)
    };
    let beside = ask(&[]);
    assert!(beside.text().parse::<usize>().is_ok_and(|length| length > 32), "{}", beside.story());
    let may = std::process::Command::new("unshare").args(["--user", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        stockade_tests::not_tested(
            "a launcher's door from other namespaces",
            "user namespaces are forbidden here",
        );
        return;
    }
    for apart in [&["unshare", "--user"][..], &["unshare", "--user", "--pid", "--fork"]] {
        ask(apart).expect_code(0).expect_text("0");
    }
    if daemon.ground.person.is_root() {
        ask(&["unshare", "--pid", "--fork"]).expect_code(0).expect_text("0");
    }
}

#[test]
fn a_launchers_door_is_closed_to_other_users() {
    if !Person::me().is_root() {
        stockade_tests::not_tested("a stranger at a launcher's door", "needs a second user, so root");
        return;
    }
    let daemon = Daemon::start(Person::me(), &[]);
    assert!(wait_until(SOON, || daemon.launchers().len() == 1));
    let path = door(&daemon);
    // First by its mode; where somebody has changed that, by the launcher.
    let ask = |person: Person, mode: u32| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let mut command = std::process::Command::new("python3");
        command.args(["-c", KNOCK]).arg(&path).current_dir("/");
        person.take(&mut command);
        Ended::of(command)
    };
    assert_ne!(ask(Person::user(), 0o600).code, Some(0), "the door's mode lets a stranger in");
    ask(Person::user(), 0o666).expect_text("0");
    let known = ask(Person::me(), 0o600);
    assert!(known.text().parse::<usize>().is_ok_and(|length| length > 32), "{}", known.story());
}

#[test]
fn a_register_that_is_damaged_or_newer_is_refused_with_its_name_and_a_remedy() {
    for (text, says) in [("{\"version\": 1, \"laun", "damaged"), ("{\"version\": 99}", "newer")] {
        let ground = Ground::new(Mode::a_daemon().server());
        let state = ground.base().join("state");
        std::fs::create_dir_all(&state).unwrap();
        std::fs::write(state.join("launchers.json"), text).unwrap();
        ground.person.own_all(&state);
        let socket = ground.base().join("daemon/stockade.sock");
        let mut command = stockade_tests::daemon::serve(&ground, &socket);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let ended = Ended::of(command);
        assert_ne!(ended.code, Some(0));
        ended.expect_errors(&[says, "launchers.json", "remove"]);
        assert!(!socket.exists());
    }
}
