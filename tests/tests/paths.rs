//! Workspaces that clients name by their path: opened as those clients, by processes of theirs, and then as good as passed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use stockade_tests::json::{Json, exec};
use stockade_tests::left::{self, Process};
use stockade_tests::{Daemon, Ended, Ground, Mode, Person, not_tested, wait_until};

const LONG: Duration = Duration::from_secs(60);
/// How long a directory may take to be opened.
const WITHIN: Duration = Duration::from_secs(5);

/// Runs a command to its end in a ground's workspace, by its path.
fn run(json: &mut Json, ground: &Ground, words: &[&str]) -> Value {
    let mut asked = exec(ground, "default", words);
    asked["wait"] = json!(true);
    json.result("exec", asked)
}

fn is_done(ended: &Value) {
    assert_eq!(ended["outcome"], json!({ "kind": "exited", "code": 0 }), "{ended}");
}

/// A daemon's openers, by those of its processes that were there before.
fn openers(daemon: &Daemon) -> Vec<Process> {
    let has_role = |process: &Process| process.command.split_whitespace().nth(1) == Some("opener");
    daemon.tree().into_iter().filter(has_role).collect()
}

/// A line of a process's status, without its name.
fn status(process: &Process, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn send(process: &Process, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(process.pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn an_opener_has_its_clients_ids_and_no_privilege_and_is_asked_again() {
    for mode in Mode::daemons_here() {
        let (daemon, person) = (Daemon::start(mode.server(), &[]), mode.client());
        let ground = Ground::new(person);
        let mut json = Json::opened(&daemon, person);
        assert!(openers(&daemon).is_empty(), "before there is a question");
        is_done(&run(&mut json, &ground, &["true"]));
        let first = openers(&daemon);
        assert_eq!(first.len(), 1, "{first:?}");
        let (uid, gid) = (person.uid, person.gid);
        assert_eq!(status(&first[0], "Uid"), format!("{uid} {uid} {uid} {uid}"));
        assert_eq!(status(&first[0], "Gid"), format!("{gid} {gid} {gid} {gid}"));
        if !person.is_root() {
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(status(&first[0], set), "0000000000000000", "{set}");
            }
        }
        // From another connection, too.
        let mut other = Json::opened(&daemon, person);
        is_done(&run(&mut other, &ground, &["true"]));
        assert_eq!(left::alive(&first).len(), openers(&daemon).len(), "another was started");
    }
}

/// As one on a mount that is dead, or that its user has stopped.
#[test]
fn an_opener_that_hangs_costs_its_user_a_while_and_nobody_else() {
    let Some(mode) = Mode::daemons_here().into_iter().find(|mode| !mode.client().is_root()) else {
        return not_tested("an opener that hangs", "there is no daemon for a user");
    };
    let (daemon, person) = (Daemon::start(mode.server(), &[]), mode.client());
    let ground = Ground::new(person);
    let mut json = Json::opened(&daemon, person);
    is_done(&run(&mut json, &ground, &["true"]));
    let stopped = openers(&daemon);
    stopped.iter().for_each(|opener| send(opener, Signal::STOP));
    let began = Instant::now();
    let id = json.ask("exec", &{
        let mut asked = exec(&ground, "default", &["true"]);
        asked["wait"] = json!(true);
        asked
    });
    // Others of his aren't kept waiting, nor is anybody else.
    let mut other = Json::opened(&daemon, person);
    is_done(&run(&mut other, &ground, &["true"]));
    if mode.server().is_root() {
        let (mut roots, place) = (Json::opened(&daemon, Person::me()), Ground::new(Person::me()));
        is_done(&run(&mut roots, &place, &["true"]));
    }
    assert!(began.elapsed() < WITHIN, "{:?}", began.elapsed());
    let answer = json.answer(&json!(id));
    let failure = &answer["result"]["outcome"]["failure"];
    assert_eq!((&failure["stage"], &failure["errno"]), (&json!("open"), &json!(110)), "{answer}");
    assert!(began.elapsed() >= WITHIN);
    is_done(&run(&mut json, &ground, &["true"]));
    // One that goes on sees that nobody asks it any more.
    stopped.iter().for_each(|opener| send(opener, Signal::CONT));
    assert!(wait_until(LONG, || left::alive(&stopped).is_empty()), "{stopped:?}");
}

#[test]
fn openers_that_died_and_those_of_a_launcher_that_did_are_followed_by_others() {
    for mode in Mode::daemons_here() {
        let (daemon, person) = (Daemon::start(mode.server(), &[]), mode.client());
        let ground = Ground::new(person);
        let mut json = Json::opened(&daemon, person);
        is_done(&run(&mut json, &ground, &["true"]));
        openers(&daemon).iter().for_each(|opener| send(opener, Signal::KILL));
        is_done(&run(&mut json, &ground, &["true"]));
        let before = openers(&daemon);
        let launcher = json.result("status", json!({}))["launcherPid"].as_i64().unwrap();
        let launcher = Pid::from_raw(i32::try_from(launcher).unwrap()).unwrap();
        rustix::process::kill_process(launcher, Signal::KILL).unwrap();
        assert!(wait_until(LONG, || left::alive(&before).is_empty()), "they outlive their launcher");
        is_done(&run(&mut json, &ground, &["true"]));
    }
}

/// How many of ten runs by path had a worker that was parked.
fn hits(daemon: &Daemon, person: Person) -> u64 {
    let ground = Ground::new(person);
    let mut json = Json::opened(daemon, person);
    for _ in 0..10 {
        is_done(&run(&mut json, &ground, &["true"]));
        // Time for the next to be made.
        wait_until(Duration::from_millis(300), || false);
    }
    json.result("status", json!({}))["warmth"]["hits"].as_u64().unwrap()
}

#[test]
fn a_run_in_a_workspace_that_is_named_by_its_path_gets_a_parked_worker() {
    for mode in Mode::daemons_here() {
        let hits_of = |arguments: &[&str]| hits(&Daemon::start(mode.server(), arguments), mode.client());
        assert!(hits_of(&[]) >= 5);
        assert_eq!(hits_of(&["--parked", "0"]), 0);
    }
}

const APPROVAL: &str = "[thresholds]\nask = 50\n[[rule]]\nname = \"marked\"\nscore = 50\nreason = \"it's marked\"\n\
    when = { word-matches = \"^asked$\" }\n";

/// With a daemon that is nobody and launchers of root's: they start openers for who shows that he asks.
#[test]
fn root_approves_what_a_user_has_asked_for_by_path_and_it_runs_in_the_directory_that_was_opened() {
    if !Person::me().is_root() {
        return not_tested("another user who approves", "that takes root");
    }
    let root = Ground::new(Person::me());
    root.configure(&[("approval.toml", APPROVAL)]);
    let launcher = root.binaries.launcher.clone();
    let daemon = Daemon::start_apart_at(root, launcher);
    let (user, roots) = (Ground::new(Person::user()), Ground::new(Person::me()));
    user.put("which", "the one that was opened");
    let mut json = Json::opened(&daemon, Person::user());
    let asked = |words: &[&str]| {
        let mut asked = exec(&user, "default", words);
        asked["wait"] = json!(true);
        asked
    };
    let approve = |execution: &Value, digest: &Value| {
        let words = ["approve", execution.as_str().unwrap(), "--digest", digest.as_str().unwrap()];
        Ended::of(daemon.ask(&roots, &words))
    };
    let digest = || {
        let listed = Ended::of(daemon.ask(&roots, &["approve", "--json"]));
        let line: Value = serde_json::from_str(listed.text().lines().next().unwrap()).unwrap();
        line["digest"].clone()
    };
    let id = json.ask("exec", &asked(&["sh", "-c", "cat which", "asked"]));
    let told = json.message();
    assert_eq!(
        (&told["method"], &told["params"]["requestId"]),
        (&json!("run/awaitsApproval"), &json!(id)),
        "{told}"
    );
    approve(&told["params"]["execId"], &digest()).expect_code(0);
    let answer = json.answer(&json!(id));
    assert_eq!(answer["result"]["stdout"], "the one that was opened", "{answer}");
    // Another directory under the same name isn't what was asked about.
    let id = json.ask("exec", &asked(&["sh", "-c", "cat which", "asked"]));
    let told = json.message();
    let (work, away) = (user.work().to_owned(), user.work().with_file_name("away"));
    let digest = digest();
    std::fs::rename(&work, &away).unwrap();
    std::fs::create_dir(&work).unwrap();
    approve(&told["params"]["execId"], &digest);
    let answer = json.answer(&json!(id));
    std::fs::remove_dir(&work).unwrap();
    std::fs::rename(&away, &work).unwrap();
    assert_eq!(answer["error"]["data"]["reason"], "not-approved", "{answer}");
    assert_eq!(answer["error"]["data"]["decided"]["rule"], "workspace", "{answer}");
}
