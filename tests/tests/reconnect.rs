//! `stockade attach`, `run` and `logs` when the connection to the daemon breaks: a proxy cuts it, and the run, which is
//! detached, goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use stockade_protocol::client::{ServerMessage, VERSION, Welcome};
use stockade_protocol::codec;
use stockade_tests::{Ended, Mode, Proxy, Setting, wait_until};

/// Of what may take long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(45);
/// What is said of a pause that lasts.
const WAITING: &str = "waiting for it to come back";

/// A client, its daemon, and what stands between.
struct Stage {
    setting: Setting,
    proxy: Proxy,
}

impl Stage {
    fn new() -> Self {
        let setting = Setting::new(Mode::a_daemon());
        let proxy = Proxy::before(setting.daemon.as_ref().unwrap(), &setting.ground);
        Self { setting, proxy }
    }

    /// Starts a detached run, past the proxy; its id.
    fn detached(&self, line: &str) -> String {
        let run = self.setting.run("default").option(&["--detach"]).words(["bash", "-c", line]);
        let ended = run.finish();
        ended.expect_code(0);
        ended.text()
    }

    /// A subcommand through the proxy.
    fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = self.setting.ground.stockade();
        command.args(&words[..1]).arg("--socket").arg(&self.proxy.path).args(&words[1..]);
        command
    }

    /// Starts a subcommand through the proxy, with its streams in files.
    fn start(&self, words: &[&str]) -> Running {
        let [stdout, stderr] =
            ["stdout", "stderr"].map(|name| self.setting.ground.base().join(format!("client.{name}")));
        let mut command = self.command(words);
        command.stdin(Stdio::null());
        command.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
        Running { child: command.spawn().unwrap(), stdout, stderr }
    }

    fn reopen(&self) {
        self.proxy.reopen(self.setting.daemon.as_ref().unwrap());
    }

    /// Lets a run that waits for it go on.
    fn go(&self) {
        self.setting.ground.put("go", "");
    }
}

/// A subcommand that runs.
struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    fn text(&self) -> String {
        std::fs::read_to_string(&self.stdout).unwrap()
    }

    fn errors(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap()
    }

    /// Waits for what must come to stand on one of its streams.
    fn says(&self, word: &str) {
        let says = || self.text().contains(word) || self.errors().contains(word);
        assert!(wait_until(PATIENCE, says), "no {word:?}: {} {}", self.text(), self.errors());
    }

    /// Waits for its end; its status.
    fn ends(&mut self) -> Option<i32> {
        let child = &mut self.child;
        let ended = wait_until(2 * PATIENCE, || child.try_wait().unwrap().is_some());
        if !ended {
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        assert!(ended, "it doesn't end: {} {}", self.text(), self.errors());
        status.code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a file in the workspace, then ends with 7.
const WAITS: &str = "echo begun; until [ -e go ]; do sleep 0.02; done; echo went on; exit 7";

#[test]
fn an_attached_run_loses_and_doubles_nothing_however_often_the_connection_is_cut() {
    let stage = Stage::new();
    // Less than is kept of a run's output, each line a record of its own, too, so that nothing may be missing.
    let id = stage.detached("for n in {1..25000}; do echo $n; done; exit 7");
    // Within heads and payloads of events, at once, after many.
    let budgets = [200, 1_000, 3_000, 20_000, 300, 30_001, 40_000];
    stage.proxy.cut_after(&budgets);
    let mut running = stage.start(&["attach", &id]);
    assert_eq!(running.ends(), Some(7), "{}", running.errors());
    let expected: String = (1..=25_000).map(|number| format!("{number}\n")).collect();
    assert!(running.text() == expected, "{} bytes: {}", running.text().len(), running.errors());
    assert_eq!(stage.proxy.came(), budgets.len() + 1);
}

#[test]
fn logs_are_followed_over_cuts() {
    let stage = Stage::new();
    let id = stage.detached("for n in {1..30000}; do echo $n; done");
    // The first is more than the list that is asked for before.
    stage.proxy.cut_after(&[20_000, 50_000]);
    let mut running = stage.start(&["logs", "--follow", &id]);
    assert_eq!(running.ends(), Some(0), "{}", running.errors());
    let expected: String = (1..=30_000).map(|number| format!("{number}\n")).collect();
    assert!(running.text() == expected, "{} bytes: {}", running.text().len(), running.errors());
    assert_eq!(stage.proxy.came(), 3);
}

#[test]
fn a_pause_that_lasts_is_told_of_and_the_rest_follows() {
    let stage = Stage::new();
    let id = stage.detached(WAITS);
    let mut running = stage.start(&["attach", &id]);
    running.says("begun");
    stage.proxy.close();
    running.says(WAITING);
    stage.go();
    stage.reopen();
    assert_eq!(running.ends(), Some(7), "{}", running.errors());
    assert_eq!(running.text(), "begun\nwent on\n");
    assert!(running.errors().contains("up to 30 s"), "{}", running.errors());
    assert!(running.errors().contains("the daemon is back after"), "{}", running.errors());
}

#[test]
fn a_pause_is_an_object_of_its_own_in_json() {
    let stage = Stage::new();
    let id = stage.detached(WAITS);
    let mut running = stage.start(&["attach", "--json", &id]);
    running.says("begun");
    stage.proxy.close();
    running.says("within_ms");
    stage.go();
    stage.reopen();
    assert_eq!(running.ends(), Some(7), "{}", running.errors());
    let lines: Vec<Value> =
        running.text().lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let told: Vec<_> = lines.iter().filter(|line| !line["connection"].is_null()).collect();
    assert_eq!(told[0]["connection"]["waiting"]["within_ms"], 30_000);
    assert!(told[1]["connection"]["back"]["after_ms"].as_u64().unwrap() >= 1_000);
    assert_eq!(told.len(), 2);
    let numbers: Vec<_> = lines.iter().filter_map(|line| line["seq"].as_u64()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert_eq!(lines.last().unwrap()["event"]["exited"]["outcome"]["exited"]["code"], 7);
}

#[test]
fn an_interrupt_in_a_pause_leaves_and_says_how_to_come_back() {
    let stage = Stage::new();
    let id = stage.detached(WAITS);
    let mut running = stage.start(&["attach", &id]);
    running.says("begun");
    stage.proxy.close();
    running.says(WAITING);
    let pid = rustix::process::Pid::from_child(&running.child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(running.ends(), Some(130), "{}", running.errors());
    assert!(running.errors().contains(&format!("stockade attach {id}")), "{}", running.errors());
    // The run has heard nothing of it.
    stage.go();
    let ended = Ended::of(stage.setting.ask(&["attach", &id]));
    ended.expect_code(7).expect_text("begun\nwent on");
}

/// It takes the half minute that it's about.
#[test]
fn a_daemon_that_does_not_come_back_is_given_up_and_the_run_is_left_alone() {
    let stage = Stage::new();
    let id = stage.detached(WAITS);
    let mut running = stage.start(&["attach", &id]);
    running.says("begun");
    stage.proxy.close();
    assert_eq!(running.ends(), Some(1), "{}", running.errors());
    let errors = running.errors();
    for word in [WAITING, "did not come back within 30s", &format!("stockade attach {id}")] {
        assert!(errors.contains(word), "no {word:?}: {errors}");
    }
    stage.go();
    let ended = Ended::of(stage.setting.ask(&["attach", &id]));
    ended.expect_code(7).expect_text("begun\nwent on");
}

#[test]
fn a_daemon_that_comes_back_with_another_version_is_an_error_and_the_run_is_left_alone() {
    let stage = Stage::new();
    let id = stage.detached(WAITS);
    let mut running = stage.start(&["attach", &id]);
    running.says("begun");
    stage.proxy.close();
    let listener = UnixListener::bind(&stage.proxy.path).unwrap();
    let other = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let welcome = Welcome { version: VERSION + 1, features: 0, max_frame: 1024, server: "later".into() };
        let mut frame = Vec::new();
        codec::encode_frame(&ServerMessage::Welcome(welcome), 1024, &mut frame).unwrap();
        stream.write_all(&frame).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    assert_eq!(running.ends(), Some(1), "{}", running.errors());
    let errors = running.errors();
    for word in ["speaks version", &format!("stockade attach {id}")] {
        assert!(errors.contains(word), "no {word:?}: {errors}");
    }
    other.join().unwrap();
    stage.go();
    Ended::of(stage.setting.ask(&["attach", &id])).expect_code(7);
}

#[test]
fn an_interrupt_after_a_pause_reaches_the_command() {
    let stage = Stage::new();
    let id = stage.detached("trap 'echo caught; exit 9' INT; echo begun; while sleep 0.02; do :; done");
    let mut running = stage.start(&["attach", &id]);
    running.says("begun");
    let came = stage.proxy.came();
    stage.proxy.close();
    running.says(WAITING);
    stage.reopen();
    running.says("the daemon is back");
    assert!(stage.proxy.came() > came);
    let pid = rustix::process::Pid::from_child(&running.child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(running.ends(), Some(9), "{}", running.errors());
    assert_eq!(running.text(), "begun\ncaught\n");
}

#[test]
fn a_run_that_was_asked_for_and_not_answered_is_an_error_and_not_asked_for_again() {
    let stage = Stage::new();
    // Before the greeting is answered, and within the answer to the request, which stands behind it.
    for budget in [0, 60] {
        let came = stage.proxy.came();
        stage.proxy.cut_after(&[budget]);
        let ended = Ended::of(stage.command(&["run", "--", "true"]));
        ended.expect_code(125).expect_errors(&["may have been started", "stockade ps"]);
        assert_eq!(stage.proxy.came(), came + 1);
    }
}

#[test]
fn a_run_that_the_daemon_has_no_more_is_lost_and_said_to_be() {
    let stage = Stage::new();
    let id = stage.detached("echo begun; until [ -e go ]; do sleep 0.02; done");
    let mut running = stage.start(&["attach", &id]);
    running.says("begun");
    stage.proxy.close();
    // Whoever reads the end to its end, and says so, has the daemon forget the run.
    stage.go();
    Ended::of(stage.setting.ask(&["attach", &id])).expect_code(0);
    stage.reopen();
    assert_eq!(running.ends(), Some(1), "{}", running.errors());
    assert!(running.errors().contains("is lost: the supervisor was restarted"), "{}", running.errors());
}
