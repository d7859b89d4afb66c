//! What a real daemon tells of itself: held against Prometheus' own tools where they are, and refused where nobody may
//! be told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use stockade_tests::{Daemon, Ended, Ground, Person, daemon, not_tested, program, wait_until};

/// Of what may take long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is answered to a scrape.
fn scraped(mut socket: impl std::io::Read + std::io::Write) -> String {
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: stockade\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    body.to_owned()
}

/// Root's daemon and a user's, or only the latter.
fn people() -> Vec<Person> {
    let (me, user) = (Person::me(), Person::user());
    if me == user { vec![user] } else { vec![me, user] }
}

/// Has a file or a text judged by promtool.
fn promtool(words: &[&str], text: &str) {
    let Some(tool) = program("promtool") else {
        not_tested(&format!("promtool {}", words.join(" ")), "promtool isn't installed");
        return;
    };
    let mut child = Command::new(tool)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(output.status.success(), "promtool {words:?}: {said}");
}

#[test]
fn a_real_scrape_counts_a_real_run_and_promtool_finds_nothing_wrong() {
    for person in people() {
        let ground = Ground::new(person);
        let socket = ground.base().join("daemon/metrics.sock");
        let place = format!("unix:{}", socket.display());
        let daemon = Daemon::start_at(ground, &["--metrics", &place]);
        let mut command = daemon.ask(&daemon.ground, &["run"]);
        command.args(["--", "true"]).current_dir(daemon.ground.work());
        Ended::of(command).expect_code(0);
        let text = scraped(UnixStream::connect(&socket).unwrap());
        assert!(text.contains("stockade_runs_total{outcome=\"exited\",policy=\"default\"} 1\n"), "{text}");
        assert!(
            text.contains("stockade_run_layers_total{enforced=\"true\",layer=\"seccomp\"} 1\n"),
            "{text}"
        );
        promtool(&["check", "metrics"], &text);
    }
}

/// A worker of every stage was made, so each of them took some time.
#[test]
fn every_stage_of_making_a_worker_is_told_by_a_real_daemon() {
    for person in people() {
        let ground = Ground::new(person);
        let socket = ground.base().join("daemon/metrics.sock");
        let place = format!("unix:{}", socket.display());
        let daemon = Daemon::start_at(ground, &["--metrics", &place]);
        let mut command = daemon.ask(&daemon.ground, &["run", "--policy", "default"]);
        command.args(["--", "true"]).current_dir(daemon.ground.work());
        Ended::of(command).expect_code(0);
        let mut text = String::new();
        let is_told = |text: &str, series: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse::<f64>().ok());
            line.is_some_and(|value| value > 0.0)
        };
        let told = wait_until(PATIENCE, || {
            text = scraped(UnixStream::connect(&socket).unwrap());
            is_told(&text, "stockade_worker_setup_seconds_count{stage=\"verify\"}")
        });
        assert!(told, "{text}");
        for stage in [
            "template",
            "namespaces",
            "open",
            "mount",
            "network",
            "identity",
            "rlimits",
            "capabilities",
            "seccomp",
            "landlock",
            "verify",
        ] {
            let series = format!("stockade_worker_setup_seconds_sum{{stage=\"{stage}\"}}");
            assert!(is_told(&text, &series), "{stage}: {text}");
        }
    }
}

/// The three levels' own policies, and whether one of them can be run is what the figure says.
#[test]
fn a_level_is_told_to_be_supported_where_its_policy_runs_and_not_where_it_is_refused() {
    for person in people() {
        let ground = Ground::new(person);
        let socket = ground.base().join("daemon/metrics.sock");
        let place = format!("unix:{}", socket.display());
        let daemon = Daemon::start_at(ground, &["--metrics", &place]);
        let text = scraped(UnixStream::connect(&socket).unwrap());
        for level in ["strict", "moderate", "minimal"] {
            let mut command = daemon.ask(&daemon.ground, &["run", "--policy", level]);
            command.args(["--", "true"]).current_dir(daemon.ground.work());
            let supported = u8::from(Ended::of(command).code == Some(0));
            let series = format!("stockade_level_supported{{level=\"{level}\"}} {supported}\n");
            assert!(text.contains(&series), "{series}{text}");
        }
        let abi = text.lines().find_map(|line| line.strip_prefix("stockade_landlock_abi ")).unwrap();
        let minimal = text.contains("stockade_level_supported{level=\"minimal\"} 1\n");
        assert_eq!(abi.parse::<u32>().unwrap() >= 6, minimal, "{text}");
    }
}

#[test]
fn a_free_port_of_the_loopback_is_named_in_the_log_and_answers() {
    let daemon = Daemon::start(Person::user(), &["--metrics", "127.0.0.1:0"]);
    // Lines come together, a moment after they were said.
    assert!(wait_until(PATIENCE, || daemon.log().contains("metrics are served")), "{}", daemon.log());
    let log = daemon.log();
    let at = log.split("metrics are served").nth(1).unwrap();
    let start = at.find("127.0.0.1:").unwrap();
    let address: String =
        at[start..].chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect();
    assert!(scraped(TcpStream::connect(&address).unwrap()).contains("stockade_build_info{"));
}

/// `stockade serve` with these metrics, which doesn't get to serve.
fn refused(place: &str) -> Ended {
    let ground = Ground::new(Person::user());
    let socket = ground.base().join("daemon/stockade.sock");
    let mut command = daemon::serve(&ground, &socket);
    command.args(["--metrics", place]).stderr(Stdio::piped());
    let ended = Ended::of(command);
    assert!(!socket.exists(), "it served before it was refused");
    ended
}

#[test]
fn no_place_is_taken_from_another_program_and_none_is_open_to_the_network() {
    let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = theirs.local_addr().unwrap().to_string();
    let ended = refused(&place);
    assert_eq!(ended.code, Some(69), "{}", ended.story());
    assert!(ended.errors().contains(&format!("{place}: another program listens there")), "{}", ended.story());
    for place in ["0.0.0.0:9747", "[::]:9747", "metrics.sock"] {
        let ended = refused(place);
        ended.expect_code(64);
        assert!(ended.errors().contains("127.0.0.1:PORT"), "{}", ended.story());
    }
    // A directory where another user could put a socket of his own.
    let ended = refused("unix:/tmp/stockade-metrics-test.sock");
    assert_eq!(ended.code, Some(77), "{}", ended.story());
    assert!(ended.errors().contains("isn't safe"), "{}", ended.story());
}

#[test]
fn alerts_are_rules_that_promtool_takes() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/prometheus/alerts.yaml");
    promtool(&["check", "rules", rules.to_str().unwrap()], "");
}

#[test]
fn status_tells_how_runs_ended_and_where_metrics_are_told() {
    let daemon = Daemon::start(Person::user(), &["--metrics", "127.0.0.1:0"]);
    let run = |words: &[&str]| {
        let mut command = daemon.ask(&daemon.ground, &["run"]);
        command.arg("--").args(words).current_dir(daemon.ground.work());
        Ended::of(command)
    };
    run(&["true"]).expect_code(0);
    run(&["no-such-program"]).expect_code(127);
    let status = |words: &[&str]| Ended::of(daemon.ask(&daemon.ground, words));
    let told: serde_json::Value = serde_json::from_str(&status(&["status", "--json"]).text()).unwrap();
    assert_eq!(told["unready"], serde_json::json!([]), "{told}");
    assert_eq!(told["outcomes"]["exited"], 1, "{told}");
    assert_eq!(told["outcomes"]["setup-failed"], 1, "{told}");
    assert_eq!(told["launchers"], 1, "{told}");
    assert!(told["metrics"].as_str().unwrap().starts_with("127.0.0.1:"), "{told}");
    assert!(told["process"]["memory"].as_u64().unwrap() > 100_000, "{told}");
    let screen = status(&["status"]);
    for part in ["state        ready", "ended        2: exited 1, setup-failed 1", "metrics      127.0.0.1:"]
    {
        assert!(screen.text().contains(part), "{}", screen.story());
    }
}

#[test]
fn a_log_that_is_not_the_journals_stays_text_whatever_the_variable_says() {
    let ground = Ground::new(Person::user());
    let socket = ground.base().join("daemon/stockade.sock");
    let mut command = daemon::serve(&ground, &socket);
    // As a service's child would inherit it whose standard error was redirected.
    let mut child = command.env("JOURNAL_STREAM", "8:12345").spawn().unwrap();
    let log = || std::fs::read_to_string(ground.base().join("daemon.log")).unwrap_or_default();
    let told = wait_until(PATIENCE, || log().contains("serving"));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .unwrap();
    child.wait().unwrap();
    assert!(told && log().contains(" INFO "), "{}", log());
}
