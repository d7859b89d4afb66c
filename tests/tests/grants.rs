//! Grants at the command line: what is given is had, whatever kills the daemon, and nothing more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use stockade_audit::MasterKey;
use stockade_tests::{Daemon, Ended, Ground, Mode, Person, not_tested, wait_until};

const PATIENCE: Duration = Duration::from_secs(40);
const PAGE: &str = include_str!("../../docs/access.md");
/// A user whom nobody is.
const NOBODY: &str = "4242";

/// A ground whose daemon has rules that permit nothing of the policy `own`, and whose person may grant.
fn ground(person: Person) -> Ground {
    let ground = Ground::new(person);
    std::fs::create_dir_all(ground.policies()).unwrap();
    std::fs::write(ground.policies().join("own.toml"), "extends = \"default\"\n").unwrap();
    std::fs::create_dir_all(ground.configuration()).unwrap();
    let roles = format!("[roles.approver]\nusers = [\"{}\"]\n", person.uid);
    std::fs::write(ground.configuration().join("roles.toml"), roles).unwrap();
    std::fs::write(ground.configuration().join("limits.toml"), "[lockout]\nrefusals = 0\n").unwrap();
    person.own_all(&ground.configuration());
    ground
}

/// The same, of one that records.
fn recording(person: Person) -> Ground {
    let ground = ground(person);
    let key = ground.base().join("audit.key");
    MasterKey::create(&key).unwrap();
    person.own(&key);
    ground.configure(&[("stockade.toml", &format!("[audit]\nkey = \"{}\"\n", key.display()))]);
    ground
}

/// What `stockade audit` says of its record.
fn audit(ground: &Ground, words: &[&str]) -> Ended {
    let mut command = ground.stockade();
    command.arg("audit").args(words).arg("--directory").arg(ground.base().join("state/audit"));
    command.arg("--key").arg(ground.base().join("audit.key"));
    Ended::of(command)
}

/// All that there is, as who may see it is told.
fn list(daemon: &Daemon) -> Vec<Value> {
    let listed = Ended::of(daemon.ask(&daemon.ground, &["grant", "list", "--json"]));
    listed.expect_code(0);
    listed.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn own_run(daemon: &Daemon, ground: &Ground, words: &[&str]) -> Ended {
    let mut command = daemon.ask(ground, &["run", "--policy", "own"]);
    command.current_dir(ground.work()).arg("--").args(words);
    Ended::of(command)
}

fn grant(daemon: &Daemon, ground: &Ground, words: &[&str]) -> Ended {
    let (before, command) =
        words.split_at(words.iter().position(|word| *word == "--").unwrap_or(words.len()));
    let mut asked = daemon.ask(ground, &["grant"]);
    asked.args(before).args(command);
    Ended::of(asked)
}

/// That something was done, and is told so.
fn says(ended: &Ended, text: &str) {
    ended.expect_code(0);
    assert!(ended.text().contains(text), "{}", ended.story());
}

/// The id that an answer begins with.
fn id(ended: &Ended) -> String {
    ended.expect_code(0);
    ended.text().split(':').next().unwrap().to_owned()
}

#[test]
fn what_is_granted_is_had_as_long_as_it_says_and_over_a_restart_and_what_is_revoked_is_not() {
    for mode in [Mode::RootDaemonForUser, Mode::RootDaemonForRoot] {
        if !Mode::daemons_here().contains(&mode) {
            continue;
        }
        let daemon = Daemon::start_at(ground(mode.server()), &[]);
        let (giver, user) = (&daemon.ground, Ground::new(mode.client()));
        let uid = user.person.uid.to_string();
        let refused = own_run(&daemon, &user, &["true"]);
        refused.expect_code(125).expect_errors(&["no grant does", "stockade grant request --policy NAME"]);
        let add = |words: &[&str]| {
            let mut all = vec!["add", &uid, "--policy", "own", "--why", "a test", "--for", "1h"];
            all.extend(words);
            grant(&daemon, giver, &all)
        };
        let given = add(&["--uses", "2"]);
        says(&given, "granted policy own");
        own_run(&daemon, &user, &["true"]).expect_code(0);
        daemon.kill_and_start_again(&[]);
        own_run(&daemon, &user, &["true"]).expect_code(0);
        daemon.kill_and_start_again(&[]);
        own_run(&daemon, &user, &["true"]).expect_code(125);
        assert_eq!(list(&daemon)[0]["uses_left"], 0);
        // These arguments and no others.
        let exact = id(&add(&["--", "echo", "a b"]));
        own_run(&daemon, &user, &["echo", "a b"]).expect_code(0);
        own_run(&daemon, &user, &["echo", "a", "b"]).expect_code(125);
        grant(&daemon, giver, &["revoke", &exact[30..]]).expect_code(0);
        own_run(&daemon, &user, &["echo", "a b"]).expect_code(125);
        // A run that is to end with it does.
        let ends = id(&add(&["--ends-runs"]));
        let mut command = daemon.ask(&user, &["run", "--policy", "own"]);
        command.current_dir(user.work()).args(["--", "sh", "-c", "echo x >begun; sleep 600"]);
        let running = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        assert!(wait_until(PATIENCE, || user.work().join("begun").exists()));
        daemon.kill_and_start_again(&[]);
        let gone = grant(&daemon, giver, &["revoke", &ends]);
        says(&gone, "1 runs end with it");
        let ended = running.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(said.contains("its grant is over, or was revoked"), "{mode:?}: {said}");
    }
}

#[test]
fn a_request_is_answered_by_somebody_else_and_a_run_ends_when_its_time_is_over() {
    if !Mode::daemons_here().contains(&Mode::RootDaemonForUser) {
        return;
    }
    let daemon = Daemon::start_at(ground(Person::me()), &[]);
    let (root, user) = (&daemon.ground, Ground::new(Person::user()));
    let words = ["request", "--policy", "own", "--for", "3s", "--ends-runs", "--why", "a test"];
    let asked = id(&grant(&daemon, &user, &words));
    own_run(&daemon, &user, &["true"]).expect_code(125);
    grant(&daemon, &user, &["answer", &asked, "yes"]).expect_code(1).expect_errors(&["approve"]);
    grant(&daemon, &user, &["add", NOBODY, "--policy", "own", "--for", "1h", "--why", "x"])
        .expect_code(1)
        .expect_errors(&["no rule permits you to grant"]);
    assert_eq!(list(&daemon)[0]["state"], "requested");
    grant(&daemon, root, &["answer", &asked, "yes"]).expect_code(0);
    assert_eq!(list(&daemon)[0]["state"], "holds");
    let ended = own_run(&daemon, &user, &["sleep", "600"]);
    ended.expect_errors(&["its grant is over"]);
    own_run(&daemon, &user, &["true"]).expect_code(125);
    assert!(list(&daemon).is_empty());
    let status = Ended::of(daemon.ask(root, &["status", "--json"]));
    assert!(status.text().contains("\"grants\":0"), "{}", status.story());
    let again = id(&grant(&daemon, &user, &words));
    grant(&daemon, root, &["answer", &again[30..], "no"]).expect_code(1).expect_errors(&[
        "no whole id",
        &again,
        "policy own to",
    ]);
    says(&grant(&daemon, root, &["answer", &again, "no"]), "refused");
    own_run(&daemon, &user, &["true"]).expect_code(125);
}

#[test]
fn nobody_grants_to_himself_and_what_cant_be_said_is_a_wrong_command_line() {
    let user = Person::user();
    if user.is_root() || !Mode::daemons_here().contains(&Mode::UserDaemon) {
        not_tested("a user's own grants", "that takes a user's daemon");
        return;
    }
    let daemon = Daemon::start_at(ground(user), &[]);
    let own = &daemon.ground;
    let uid = user.uid.to_string();
    let policy = ["--policy", "own", "--for", "1h", "--why", "x"];
    let add = |who: &str| grant(&daemon, own, &[&["add", who], policy.as_slice()].concat());
    add(&uid).expect_code(1).expect_errors(&["nobody grants anything to himself", "another systemd unit"]);
    let asked = id(&grant(&daemon, own, &[&["request"], policy.as_slice()].concat()));
    grant(&daemon, own, &["answer", &asked, "yes"]).expect_code(1).expect_errors(&["himself"]);
    grant(&daemon, own, &["revoke", &asked]).expect_code(0);
    own_run(&daemon, own, &["true"]).expect_code(125);
    add(NOBODY).expect_code(0);
    add("no-such-user-here").expect_code(1).expect_errors(&["there is no user"]);
    for words in [
        ["add", NOBODY, "--policy", "own", "--why", "x"].as_slice(),
        &["add", NOBODY, "--for", "1h", "--why", "x"],
        &["add", NOBODY, "--policy", "own", "--tool", "t", "--for", "1h", "--why", "x"],
        &["add", NOBODY, "--policy", "own", "--for", "long", "--why", "x"],
        &["answer", "abcd", "perhaps"],
    ] {
        grant(&daemon, own, words).expect_code(2);
    }
    let long = ["add", NOBODY, "--policy", "own", "--for", "25h", "--why", "x"];
    grant(&daemon, own, &long).expect_code(1).expect_errors(&["1 second to 24 hours"]);
}

/// One command that is on its way while its daemon is killed; whether it was told that it's done.
fn begin(daemon: &Daemon, ground: &Ground, words: &[&str]) -> Child {
    let mut command = daemon.ask(ground, &["grant"]);
    command.args(words).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn was_told(child: &mut Child) -> bool {
    child.wait().unwrap().success()
}

/// What was asked of the daemon so far, and what it has answered.
#[derive(Default)]
struct Asked {
    tried: BTreeSet<String>,
    told: BTreeSet<String>,
    revoking: BTreeSet<String>,
    revoked: BTreeSet<String>,
}

impl Asked {
    /// Every grant that was told is there unless somebody began to revoke it, what was told to be gone isn't, and there is no other and
    /// none in part.
    fn check(&self, all: &BTreeMap<String, Value>) {
        for (why, one) in all {
            assert!(self.tried.contains(why), "nobody asked for {one}");
            assert!(!self.revoked.contains(why), "it was revoked: {one}");
            let parts = (one["uid"].as_u64(), one["uses"].as_u64(), one["uses_left"].as_u64());
            assert_eq!(parts, (Some(4242), Some(5), Some(5)), "{one}");
            assert_eq!((one["what"]["policy"].as_str(), one["by"].is_u64()), (Some("own"), true), "{one}");
        }
        for why in self.told.difference(&self.revoking) {
            assert!(all.contains_key(why), "{why} was granted, and isn't there");
        }
    }
}

/// The grants to nobody, by their reasons; and the uses that are left of the other one.
fn there(daemon: &Daemon) -> (BTreeMap<String, Value>, Option<u64>) {
    let (mut all, mut left) = (BTreeMap::new(), None);
    for one in list(daemon) {
        let why = one["why"].as_str().unwrap().to_owned();
        if why == "many" {
            left = one["uses_left"].as_u64();
        } else {
            all.insert(why, one);
        }
    }
    (all, left)
}

/// Runs that leave a mark if they begin.
fn run_some(daemon: &Daemon, user: &Ground, round: usize) -> Vec<Child> {
    let run = |number| {
        let line = format!("echo x >began.{round}.{number}");
        let mut command = daemon.ask(user, &["run", "--policy", "own"]);
        command.current_dir(user.work()).args(["--", "sh", "-c", &line]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    (0..3).map(run).collect()
}

/// Marks of those that have begun.
fn marks(user: &Ground) -> BTreeSet<String> {
    let names = stockade_tests::left::names(&user.work());
    names.into_iter().filter(|name| name.starts_with("began.")).collect()
}

/// How many of them have begun.
fn begun(user: &Ground) -> u64 {
    marks(user).len() as u64
}

/// Each grant that was told stands in the record, and each run that has begun, by a grant and with what came of it; and what was done
/// to nobody's record is what was written.
fn check_record(ground: &Ground, asked: &Asked, user: &Ground) -> (usize, usize) {
    audit(ground, &["verify"]).expect_code(0);
    let (mut granted, mut ran, mut outcomes) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
    for line in audit(ground, &["query", "--json"]).text().lines() {
        let one: Value = serde_json::from_str(line).unwrap();
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
        if one["name"] == "granted" {
            granted.extend(text(&one["text"]).and_then(|text| Some(text.rsplit_once(": ")?.1.to_owned())));
        } else if one["event"] == "intent" {
            let because = one["because"][0].as_str().unwrap_or_default();
            assert!(because.starts_with("grant "), "{line}");
            let mark = one["given"]["text"][2].as_str().unwrap().rsplit_once('>').unwrap().1.to_owned();
            ran.insert(mark, text(&one["exec"]).unwrap());
        } else if one["event"] == "outcome" {
            outcomes.insert(text(&one["exec"]).unwrap());
        }
    }
    let missing: Vec<_> = asked.told.difference(&granted).collect();
    assert!(missing.is_empty(), "granted, and not in the record: {missing:?}");
    let marks = marks(user);
    let missing: Vec<_> = marks.iter().filter(|mark| !ran.contains_key(*mark)).collect();
    assert!(missing.is_empty(), "ran, and no intent of them: {missing:?}");
    let missing: Vec<_> = marks.iter().filter(|mark| !outcomes.contains(&ran[*mark])).collect();
    assert!(missing.is_empty(), "ran, and no outcome of them: {missing:?}");
    (granted.len(), marks.len())
}

/// Of so many rounds one goes on until a run has begun.
const LETS_BEGIN: usize = 4;

/// Lets all that goes on come a bit further than in the round before.
fn go_on(round: usize, has_begun: impl FnMut() -> bool) {
    if round.is_multiple_of(LETS_BEGIN) {
        // Else each is killed before it has come so far, and nothing is said of uses.
        wait_until(PATIENCE, has_begun);
    }
    std::thread::sleep(Duration::from_micros(500 * (round as u64 * 7 % 60)));
}

fn mode_of_kills() -> Option<Mode> {
    if Mode::daemons_here().contains(&Mode::RootDaemonForUser) {
        return Some(Mode::RootDaemonForUser);
    }
    not_tested("uses of grants over kills", "that takes root: nobody grants to himself");
    Mode::daemons_here().contains(&Mode::UserDaemon).then_some(Mode::UserDaemon)
}

/// Kills, unless `STOCKADE_RESTARTS` says otherwise.
const KILLS: usize = 100;

/// Adds, revocations and runs go on while the daemon is killed again and again.
#[test]
fn whenever_a_daemon_is_killed_what_it_has_told_of_grants_holds_no_use_is_given_twice_and_none_is_half() {
    const MANY: u64 = 100_000;
    let kills = std::env::var("STOCKADE_RESTARTS").map_or(KILLS, |kills| kills.parse().unwrap());
    let Some(mode) = mode_of_kills() else { return };
    let daemon = Daemon::start_at(recording(mode.server()), &[]);
    let (giver, user) = (&daemon.ground, Ground::new(mode.client()));
    let redeems = mode.server() != mode.client();
    if redeems {
        let (uid, uses) = (user.person.uid.to_string(), MANY.to_string());
        let words = ["add", &uid, "--policy", "own", "--for", "24h", "--uses", &uses, "--why", "many"];
        grant(&daemon, giver, &words).expect_code(0);
    }
    let (mut asked, mut least, mut runs, mut most) = (Asked::default(), MANY, 0, 0);
    for round in 0..kills {
        let (known, _) = there(&daemon);
        let whys: Vec<String> = (0..3).map(|number| format!("{round}.{number}")).collect();
        let mut adding: Vec<_> = whys
            .iter()
            .map(|why| {
                asked.tried.insert(why.clone());
                let words = ["add", NOBODY, "--policy", "own", "--for", "24h", "--uses", "5", "--why", why];
                begin(&daemon, giver, &words)
            })
            .collect();
        // The oldest are taken away, so that there are never too many.
        let going: Vec<_> = known.iter().take(2).map(|(why, one)| (why.clone(), one["id"].clone())).collect();
        let mut revoking: Vec<_> = going
            .iter()
            .map(|(why, id)| {
                asked.revoking.insert(why.clone());
                (why, begin(&daemon, giver, &["revoke", id.as_str().unwrap()]))
            })
            .collect();
        let mut running = if redeems { run_some(&daemon, &user, round) } else { Vec::new() };
        runs += running.len() as u64;
        go_on(round, || !redeems || begun(&user) > most);
        daemon.kill_and_start_again(&[]);
        for (why, child) in whys.iter().zip(&mut adding) {
            if was_told(child) {
                asked.told.insert(why.clone());
            }
        }
        for (why, child) in &mut revoking {
            if was_told(child) {
                asked.revoked.insert((*why).clone());
            }
        }
        for child in &mut running {
            child.wait().unwrap();
        }
        let (all, left) = there(&daemon);
        asked.check(&all);
        if redeems {
            let (left, began) = (left.expect("it's gone"), begun(&user));
            assert!(left <= least, "uses grew from {least} to {left}");
            assert!(MANY - left >= began, "{began} runs began by {} uses", MANY - left);
            assert!(MANY - left <= runs, "{} uses by {runs} runs", MANY - left);
            (least, most) = (left, most.max(began));
        }
    }
    assert!(!asked.told.is_empty() && !asked.revoked.is_empty(), "nothing was ever told: nothing is tested");
    assert!(!redeems || most >= (kills / LETS_BEGIN) as u64, "only {most} of {runs} runs ever began");
    daemon.kill_and_start_again(&[]);
    asked.check(&there(&daemon).0);
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.ends_within(PATIENCE));
    let (granted, ran) = check_record(giver, &asked, &user);
    println!(
        "{kills} kills, {} grants told, {granted} recorded, {} revoked, {runs} runs asked for, {ran} begun",
        asked.told.len(),
        asked.revoked.len()
    );
}

#[test]
fn the_guide_to_grants_is_followed_as_it_stands() {
    if !Mode::daemons_here().contains(&Mode::RootDaemonForRoot) {
        return;
    }
    let ground = ground(Person::me());
    std::fs::write(ground.policies().join("build-host.toml"), "extends = \"strict\"\n").unwrap();
    let daemon = Daemon::start_at(ground, &[]);
    let (_, section) = PAGE.split_once("\n## Grants\n").unwrap();
    let block = section.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let expected = [
        "granted policy build-host to 1000 for 10",
        "with exactly `make test`",
        "asked for policy build-host",
        "requested",
        "refused by rules, permitted by a grant",
    ];
    let lines: Vec<&str> = block.lines().collect();
    assert_eq!(lines.len(), expected.len());
    for (line, text) in lines.iter().zip(expected) {
        let mut command = daemon.ground.command("/bin/sh");
        let program = daemon.ground.stockade();
        let shell = format!("stockade() {{ {:?} \"$@\"; }}; {line}", program.get_program());
        command.arg("-c").arg(shell).env("STOCKADE_SOCKET", &daemon.socket);
        command.current_dir(daemon.ground.configuration());
        let ended = Ended::of(command);
        ended.expect_code(0);
        assert!(ended.text().contains(text), "{line}: {}", ended.story());
    }
}
