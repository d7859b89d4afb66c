//! The record of a daemon that serves: what was asked stands in it before it runs, whatever happens to the daemon.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Lines of `--json`, without those of who reads.
fn lines_of(ended: &Ended) -> Vec<String> {
    ended.expect_code(0);
    ended.text().lines().filter(|line| !line.contains("read-audit")).map(ToOwned::to_owned).collect()
}

#[test]
fn an_auditor_who_cant_read_the_files_is_told_the_same_by_the_daemon_and_nobody_else_is() {
    for mode in Mode::daemons_here() {
        let server = Ground::new(mode.server());
        recording(&server, "");
        let ground = Ground::new(mode.client());
        let uid = ground.person.uid;
        let role = |name: &str| format!("[roles.{name}]\nusers = [\"{uid}\"]\n");
        server.configure(&[("roles.toml", &role("auditor"))]);
        let daemon = Daemon::start_at(server, &[]);
        let server = &daemon.ground;
        for code in 0..4 {
            Ended::of(run(&daemon, &ground, &["sh", "-c", &format!("exit {code}")])).expect_code(code);
        }
        let written = || events(server).iter().filter(|one| one["event"] == "outcome").count() == 4;
        assert!(wait_until(PATIENCE, written), "{:?}", events(server));
        let asked = |words: &[&str]| Ended::of(daemon.ask(&ground, &[&["audit"], words].concat()));
        // What the files say is what the daemon says.
        for words in [
            &["query", "--json"][..],
            &["query", "--json", "--event", "outcome"],
            &["query", "--json", "--class", "access", "--principal", &uid.to_string()],
            &["query", "--json", "--until", "2026-01-01"],
            &["export"],
            &["export", "--format", "ocsf", "--outcome", "exited"],
            &["tail", "--lines", "3", "--json", "--event", "outcome"],
        ] {
            assert_eq!(lines_of(&asked(words)), lines_of(&audit(server, words)), "{words:?}");
        }
        assert_eq!(lines_of(&asked(&["tail", "--lines", "3", "--json", "--event", "outcome"])).len(), 3);
        // By itself, and it says so; who names files means those.
        let mut found = ground.stockade();
        found.env("STOCKADE_SOCKET", &daemon.socket).args(["audit", "query", "--json", "--event", "outcome"]);
        let found = Ended::of(found);
        assert_eq!(lines_of(&found).len(), 4);
        assert!(
            found.errors().contains("the daemon at") && found.errors().contains("is asked"),
            "{}",
            found.errors()
        );
        let mut named = ground.stockade();
        named.env("STOCKADE_SOCKET", &daemon.socket).args(["audit", "query", "--directory", "/nonexistent"]);
        Ended::of(named).expect_code(1).expect_errors(&["cannot read the record in /nonexistent"]);
        is_told_what_comes(&daemon, &ground);
        let read = events(server).iter().filter(|one| one["action"] == "read-audit").count();
        assert_eq!(read, 10, "each reading stands in the record");
        // Another role, and nobody is told anything.
        server.configure(&[("roles.toml", &role("client"))]);
        daemon.signal(rustix::process::Signal::HUP);
        assert!(wait_until(PATIENCE, || daemon.log().contains("policies reloaded")));
        let refused = asked(&["query"]);
        refused.expect_code(1);
        assert!(
            refused.text().is_empty() && refused.errors().contains("read the record"),
            "{}",
            refused.story()
        );
    }
}

/// Who follows is told of a run that comes then.
fn is_told_what_comes(daemon: &Daemon, ground: &Ground) {
    let words = ["audit", "tail", "--lines", "1", "--follow", "--json", "--event", "outcome"];
    let mut command = daemon.ask(ground, &words);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains("\"code\":3"));
    Ended::of(run(daemon, ground, &["sh", "-c", "exit 77"])).expect_code(77);
    assert!(lines.next().unwrap().contains("\"code\":77"));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn who_may_not_answer_and_tries_is_written_down_without_rules_of_access_too() {
    if !Person::me().is_root() {
        not_tested("a user who may not answer", "that takes root");
        return;
    }
    let server = Ground::new(Person::me());
    recording(&server, "");
    let daemon = Daemon::start_at(server, &[]);
    let ground = Ground::new(Person::user());
    Ended::of(daemon.ask(&ground, &["approve"])).expect_code(1);
    let server = &daemon.ground;
    let tried = || {
        let all = events(server);
        all.iter().any(|one| one["name"] == "not-permitted" && one["principal"]["uid"] == ground.person.uid)
    };
    assert!(wait_until(PATIENCE, tried), "{:?}", events(server));
}

/// What a client was told is in the record: each run that began has its intent, and each end that somebody heard of its outcome, though
/// the daemon was killed at any moment.
#[test]
fn a_daemon_that_is_killed_over_and_over_misses_no_intent_and_no_outcome() {
    let kills = std::env::var("STOCKADE_RESTARTS").map_or(KILLS, |kills| kills.parse().unwrap());
    for mode in Mode::daemons_here() {
        let server = Ground::new(mode.server());
        recording(&server, "");
        let daemon = Daemon::start_at(server, &[]);
        let ground = Ground::new(mode.client());
        let is_over = AtomicBool::new(false);
        let ended: Vec<(String, Option<i32>)> = std::thread::scope(|scope| {
            let client = |client: usize| {
                let (daemon, ground, is_over) = (&daemon, &ground, &is_over);
                scope.spawn(move || ask_on(daemon, ground, client, is_over))
            };
            let clients: Vec<_> = (0..CLIENTS).map(client).collect();
            for round in 0..kills {
                std::thread::sleep(Duration::from_millis(7 * (round % 13)));
                daemon.kill_and_start_again(&[]);
            }
            is_over.store(true, Ordering::Relaxed);
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
        });
        let told: BTreeSet<&str> =
            ended.iter().filter(|(_, code)| *code == Some(OWN)).map(|(mark, _)| mark.as_str()).collect();
        assert!(!told.is_empty(), "nothing ever ran: nothing is tested\n{}", daemon.log());

        let mut all = Vec::new();
        let is_whole = || {
            all = events(&daemon.ground);
            let (intents, outcomes) = (intents(&all), outcomes(&all));
            told.iter().all(|mark| intents.get(*mark).is_some_and(|exec| outcomes.contains_key(exec)))
        };
        // The last ones may be a moment behind what their clients are told.
        let is_whole = wait_until(PATIENCE, is_whole);
        let (intents, outcomes) = (intents(&all), outcomes(&all));
        let missing: Vec<_> = told.iter().filter(|mark| !intents.contains_key(**mark)).collect();
        assert!(missing.is_empty(), "{mode:?}: ran, and no intent of them: {missing:?}");
        let missing: Vec<_> = told.iter().filter(|mark| !outcomes.contains_key(&intents[**mark])).collect();
        assert!(is_whole && missing.is_empty(), "{mode:?}: told, and no outcome of them: {missing:?}");
        let ran =
            stockade_tests::left::names(&ground.work()).into_iter().filter(|name| name.starts_with("began."));
        let missing: Vec<_> = ran.filter(|mark| !intents.contains_key(mark)).collect();
        assert!(missing.is_empty(), "{mode:?}: ran, and no intent of them: {missing:?}");
        // Written twice, at the most, by the one who was killed and the one after it: never otherwise.
        for mark in &told {
            let came = &outcomes[&intents[*mark]];
            assert!(came.iter().all(|outcome| *outcome == ("exited".to_owned(), i64::from(OWN))), "{came:?}");
        }
        audit(&daemon.ground, &["verify"]).expect_code(0);
        let twice = outcomes.values().filter(|came| came.len() > 1).count();
        println!(
            "{mode:?}: {kills} kills, {} asked, {} told, {} intents, {twice} outcomes twice",
            ended.len(),
            told.len(),
            intents.len()
        );
    }
}

/// Kills, unless `STOCKADE_RESTARTS` says otherwise.
const KILLS: u64 = 20;
/// Who ask meanwhile.
const CLIENTS: usize = 6;
/// What commands end with, and the command line by itself never does.
const OWN: i32 = 42;

/// Asks for one run after another until it's over: the mark that each leaves, and what its client ended with.
fn ask_on(
    daemon: &Daemon,
    ground: &Ground,
    client: usize,
    is_over: &AtomicBool,
) -> Vec<(String, Option<i32>)> {
    let mut ended = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let mark = format!("began.{client}.{}", ended.len());
        let line = format!("echo x >{mark}; exit {OWN}");
        let mut command = run(daemon, ground, &["sh", "-c", &line]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let code = command.status().unwrap().code();
        ended.push((mark, code));
    }
    ended
}

/// Marks, and the runs that were to leave them.
fn intents(all: &[Value]) -> BTreeMap<String, String> {
    let of = |one: &Value| {
        let line = one["given"]["text"][2].as_str()?;
        let mark = line.strip_prefix("echo x >")?.split(';').next()?;
        Some((mark.to_owned(), one["exec"].as_str()?.to_owned()))
    };
    all.iter().filter(|one| one["event"] == "intent").filter_map(of).collect()
}

/// What came of runs.
fn outcomes(all: &[Value]) -> BTreeMap<String, Vec<(String, i64)>> {
    let mut found: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for one in all.iter().filter(|one| one["event"] == "outcome") {
        let came = (one["outcome"].as_str().unwrap().to_owned(), one["code"].as_i64().unwrap_or(-1));
        found.entry(one["exec"].as_str().unwrap().to_owned()).or_default().push(came);
    }
    found
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
