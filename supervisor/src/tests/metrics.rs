//! What the daemon tells of itself: figures by what has happened, health by how it is, and a server that nobody can hold up.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;

use stockade_protocol::client::{ClientMessage, ExecEvent};
use stockade_protocol::confinement::{Confinement, Layer, LayerReport, Plan, StdioPath, Warmth};
use stockade_protocol::launch::{FromLauncher, MAKING, Made};
use stockade_protocol::outcome::{CancelReason, MemoryMechanism, Outcome, SetupFailure, SetupStage, Usage};
use stockade_protocol::spec::Level;

use super::stage::{Changes, Stage, until};
use crate::metrics::{TABLE, complaints};
use crate::serve::Order;

fn stage() -> Stage {
    Stage::new(Changes { metrics: true, slots: 3, queue: 7, ..Changes::default() })
}

/// What is answered to these bytes, all of it.
fn ask(stage: &Stage, request: &[u8]) -> String {
    let mut socket = UnixStream::connect(stage.metrics()).unwrap();
    // What is refused early may be closed before all of it is sent.
    let _cut = socket.write_all(request);
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

/// The status and the body of a path.
fn get(stage: &Stage, path: &str) -> (u16, String) {
    let answer = ask(stage, format!("GET {path} HTTP/1.1\r\nHost: stockade\r\n\r\n").as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// Every series of a scrape with its value.
pub(super) fn scrape(stage: &Stage) -> BTreeMap<String, f64> {
    let (status, body) = get(stage, "/metrics");
    assert_eq!(status, 200, "{body}");
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(s, v)| (s.to_owned(), v.parse().unwrap()))
        .collect()
}

#[test]
fn what_has_happened_is_counted_where_it_belongs() {
    let stage = stage();
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    until("ready", || get(&stage, "/readyz").0 == 200);
    let before = scrape(&stage);
    assert_eq!(
        before["stockade_runs_total{outcome=\"lost\",policy=\"default\"}"], 0.0,
        "known before it has run"
    );

    // One that ends by itself, told with what it used.
    let run = client.exec(stage.request());
    let (launch, _) = launcher.launch();
    launcher.started(&launch);
    launcher.write(run, b"four");
    launcher.end_output(run);
    let usage = Usage {
        wall_us: 0,
        user_us: 1_500_000,
        system_us: 500_000,
        memory_peak: 3 << 20,
        memory_mechanism: MemoryMechanism::Monitor,
        ..Usage::default()
    };
    let outcome = Outcome::Exited { code: 3 };
    launcher
        .say(&FromLauncher::Ended { exec_id: run, outcome, usage, trusted_files: vec![], reaped: true }, &[]);
    client.read_to_end(run, 2);
    // One that a client ends, and one that never begins.
    let killed = client.exec(stage.request());
    let (launch, _) = launcher.launch();
    launcher.started(&launch);
    client.event(killed, 2);
    client.say(&ClientMessage::Cancel { exec_id: killed });
    launcher.next();
    launcher.end_output(killed);
    launcher.ended(killed, Outcome::Cancelled { reason: CancelReason::Asked });
    client.read_to_end(killed, 3);
    let failed = client.exec(stage.request());
    launcher.launch();
    let failure = SetupFailure { stage: SetupStage::Landlock, errno: 1, subject: "x".into() };
    launcher.ended(failed, Outcome::SetupFailed { failure });
    client.read_to_end(failed, 2);
    // One of a policy that there isn't.
    let mut request = stage.request();
    request.policy = "no-such".into();
    client.denied(request, &[]);

    let after = scrape(&stage);
    let grown = |name: &str| after[name] - before.get(name).copied().unwrap_or(0.0);
    assert_eq!(grown("stockade_runs_total{outcome=\"exited\",policy=\"default\"}"), 1.0);
    assert_eq!(grown("stockade_runs_total{outcome=\"cancelled\",policy=\"default\"}"), 1.0);
    assert_eq!(grown("stockade_runs_total{outcome=\"setup-failed\",policy=\"default\"}"), 1.0);
    assert_eq!(grown("stockade_runs_total{outcome=\"lost\",policy=\"default\"}"), 0.0);
    assert_eq!(grown("stockade_setup_failures_total{stage=\"landlock\"}"), 1.0);
    assert_eq!(grown("stockade_denials_total{reason=\"unknown-policy\"}"), 1.0);
    assert_eq!(grown("stockade_requests_accepted_total"), 3.0);
    assert_eq!(grown("stockade_run_setup_seconds_count{stage=\"queue\"}"), 3.0);
    // Of those that began.
    for histogram in ["start_seconds", "duration_seconds", "cpu_seconds", "memory_peak_bytes"] {
        assert_eq!(grown(&format!("stockade_run_{histogram}_count")), 2.0, "{histogram}");
    }
    assert_eq!(grown("stockade_run_setup_seconds_count{stage=\"launch\"}"), 2.0);
    assert_eq!(grown("stockade_run_cpu_seconds_sum"), 2.0);
    assert_eq!(grown("stockade_run_memory_peak_bytes_bucket{le=\"4194304\"}"), 2.0);
    assert_eq!(grown("stockade_run_memory_peak_bytes_bucket{le=\"1048576\"}"), 1.0);
    assert_eq!(grown("stockade_kill_seconds_count"), 1.0);
    assert_eq!(grown("stockade_relayed_bytes_total{stream=\"output\"}"), 4.0);
    assert_eq!(after["stockade_slots"], 3.0);
    assert_eq!(after["stockade_queue_slots"], 7.0);
    assert_eq!(after["stockade_connections"], 1.0);
    assert_eq!(after["stockade_launcher_starts_total"], 1.0);
    assert!(after["process_resident_memory_bytes"] > 1e5 && after["process_open_fds"] > 3.0);
}

#[test]
fn workers_that_were_made_are_told_by_stage() {
    let stage = stage();
    let launcher = stage.launcher();
    let count = |stage: &str| format!("stockade_worker_setup_seconds_count{{stage=\"{stage}\"}}");
    let before = scrape(&stage);
    let series = before.keys().filter(|name| name.starts_with("stockade_worker_setup_seconds_count")).count();
    assert_eq!((series, before[&count("verify")]), (MAKING.len(), 0.0), "each is there from the start");
    let took =
        |first| Made { took_ns: std::array::from_fn(|at| first + u32::try_from(at).unwrap() * 1_000_000) };
    let made = vec![took(0), took(500_000)];
    launcher.say(&FromLauncher::Warmth { warmth: Warmth::default(), made }, &[]);
    until("it's told", || scrape(&stage)[&count("template")] == 2.0);
    let told = scrape(&stage);
    assert_eq!(told[&count("verify")], 2.0);
    let sum = told["stockade_worker_setup_seconds_sum{stage=\"verify\"}"];
    assert!((sum - 0.0205).abs() < 1e-9, "{sum}");
    assert_eq!(told["stockade_worker_setup_seconds_bucket{stage=\"open\",le=\"0.0025\"}"], 2.0);
    assert_eq!(told["stockade_worker_setup_seconds_bucket{stage=\"open\",le=\"0.001\"}"], 0.0);
}

#[test]
fn what_goes_on_and_what_holds_is_told() {
    let stage = stage();
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let runs: Vec<_> = (0..5).map(|_| client.exec(stage.request())).collect();
    let (launch, _) = launcher.launch();
    let report = |layer, enforced| LayerReport { layer, enforced, detail: String::new() };
    let confinement = Box::new(Confinement {
        policy: "default".into(),
        policy_digest: [0; 32],
        level: Level::Strict,
        plan: Plan::User,
        layers: vec![report(Layer::Landlock, true), report(Layer::Network, false)],
        memory: MemoryMechanism::Monitor,
        host_uid: 1,
        absent: Vec::new(),
        stdio: [StdioPath::Null; 3],
    });
    launcher.say(&FromLauncher::Started { exec_id: runs[0], confinement }, &[]);
    assert_eq!(launch.exec_id, runs[0]);
    client.event(runs[0], 2);
    let told = scrape(&stage);
    assert_eq!(told["stockade_runs_running"], 3.0);
    assert_eq!(told["stockade_runs_queued"], 2.0);
    assert_eq!(told["stockade_run_layers_total{enforced=\"true\",layer=\"landlock\"}"], 1.0);
    assert_eq!(told["stockade_run_layers_total{enforced=\"false\",layer=\"network\"}"], 1.0);
    assert_eq!(told["stockade_run_layers_total{enforced=\"true\",layer=\"network\"}"], 0.0);
    assert_eq!((told["stockade_landlock_abi"], told["stockade_runs_unclaimed"]), (5.0, 0.0));
    assert_eq!(told.get("stockade_level_supported{level=\"minimal\"}"), Some(&0.0), "it needs ABI 6");
    let posture = told.keys().find(|series| series.starts_with("stockade_posture_info")).unwrap();
    assert!(posture.contains("plan=\"user\"") && posture.contains("memory=\"monitor\""), "{posture}");
}

#[test]
fn a_lost_run_is_counted_as_lost_and_nothing_is_made_up_of_what_it_used() {
    let stage = stage();
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let run = client.exec(stage.request());
    let (launch, _) = launcher.launch();
    launcher.started(&launch);
    client.event(run, 2);
    drop(launcher);
    assert!(matches!(client.read_to_end(run, 3).1, Outcome::Lost { .. }));
    let told = scrape(&stage);
    assert_eq!(told["stockade_runs_total{outcome=\"lost\",policy=\"default\"}"], 1.0);
    for histogram in ["start_seconds", "duration_seconds", "cpu_seconds", "memory_peak_bytes"] {
        assert_eq!(told[&format!("stockade_run_{histogram}_count")], 0.0, "{histogram}");
    }
}

#[test]
fn readiness_goes_with_the_launcher_and_with_draining_and_health_stays() {
    let stage = stage();
    let (status, why) = get(&stage, "/readyz");
    assert_eq!((status, why.contains("no launcher is up")), (503, true), "{why}");
    assert_eq!(get(&stage, "/healthz"), (200, "ok\n".to_owned()));
    let mut launcher = stage.launcher();
    until("ready", || get(&stage, "/readyz") == (200, "ready\n".to_owned()));
    assert_eq!(scrape(&stage)["stockade_ready"], 1.0);
    drop(launcher);
    until("not ready", || get(&stage, "/readyz").0 == 503);
    launcher = stage.launcher();
    until("ready again", || get(&stage, "/readyz").0 == 200);
    assert_eq!(scrape(&stage)["stockade_launcher_starts_total"], 2.0);
    // Draining, as long as a run goes on.
    let mut client = stage.client();
    let run = client.exec(stage.request());
    let (launch, _) = launcher.launch();
    launcher.started(&launch);
    assert!(matches!(client.event(run, 2), ExecEvent::Started { .. }));
    stage.order(Order::Stop);
    until("draining", || get(&stage, "/readyz") == (503, "the daemon is stopping\n".to_owned()));
    assert_eq!(get(&stage, "/healthz").0, 200);
    let socket = stage.metrics();
    drop(launcher);
    drop(client);
    stage.join();
    assert!(!socket.exists(), "the metrics' socket is left behind");
}

#[test]
fn a_scrape_has_every_metric_of_the_table_and_keeps_the_linters_rules() {
    let stage = stage();
    let _launcher = stage.launcher();
    until("ready", || get(&stage, "/readyz").0 == 200);
    let (_, text) = get(&stage, "/metrics");
    assert_eq!(complaints(&text), Vec::<String>::new());
    for metric in TABLE {
        let has =
            |line: &str| line.strip_prefix(metric.name).is_some_and(|rest| rest.starts_with([' ', '{', '_']));
        assert!(text.lines().any(has), "{} isn't told", metric.name);
    }
    let told = text.lines().filter(|line| line.starts_with("# TYPE ")).count();
    assert_eq!(told, TABLE.len(), "what is told isn't in the table");
}

#[test]
fn metrics_socket_has_the_mode_of_the_daemons_own() {
    let stage = stage();
    let mode = |path| std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(stage.metrics()), mode(stage.socket.clone()));
}

#[test]
fn what_is_no_scrape_is_told_so() {
    let stage = stage();
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(9000));
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(40));
    for (request, status) in [
        ("POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405"),
        ("GET /nothing HTTP/1.1\r\n\r\n", "404"),
        ("GET http://elsewhere/metrics HTTP/1.1\r\n\r\n", "404"),
        ("GET /metrics\r\n\r\n", "400"),
        ("\x16\x03\x01\x02\x00\x01\x00 hello", "400"),
        (&long, "431"),
        (&many, "431"),
    ] {
        let answer = ask(&stage, request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:.60}: {answer}");
    }
    let head = ask(&stage, b"HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(!head.contains("Content-Length: 0\r\n"), "{head}");
    assert_eq!(get(&stage, "/metrics?x=y").0, 200);
}

#[test]
fn visitors_who_say_nothing_keep_nobody_waiting_for_good() {
    let stage = stage();
    // More than are served at once; half of them in the middle of a word.
    let silent: Vec<_> = (0..20)
        .map(|number| {
            let mut socket = UnixStream::connect(stage.metrics()).unwrap();
            if number % 2 == 0 {
                socket.write_all(b"GET /metr").unwrap();
            }
            socket
        })
        .collect();
    // They are sent away one after another, and runs go on meanwhile.
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let run = client.exec(stage.request());
    launcher.play(b"x");
    assert_eq!(client.read_to_end(run, 2).0, b"x");
    assert_eq!(get(&stage, "/healthz").0, 200);
    drop(silent);
}
