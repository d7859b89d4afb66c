//! The daemon's configuration, from its files to what the daemon does: checking, showing, starting, reloading.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use stockade_tests::daemon::serve;
use stockade_tests::{Daemon, Ended, Ground, Mode, Person, wait_until};

/// Writes a file of the configuration, as the person's.
fn configure(ground: &Ground, name: &str, text: &str) -> PathBuf {
    let path = ground.configuration().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    ground.person.own_all(&ground.configuration());
    path
}

fn stockade(ground: &Ground, words: &[&str]) -> Ended {
    let mut command = ground.stockade();
    command.args(words);
    Ended::of(command)
}

fn objects(ended: &Ended) -> Vec<Value> {
    let object = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    ended.text().lines().map(object).collect()
}

/// A ground of the person that a daemon here would be of.
fn ground() -> Ground {
    Ground::new(Mode::a_daemon().server())
}

#[test]
fn what_is_printed_as_the_default_is_a_file_in_order_that_changes_nothing() {
    let ground = ground();
    let printed = stockade(&ground, &["config", "default"]);
    printed.expect_code(0);
    let file = configure(&ground, "stockade.toml", &printed.text());
    stockade(&ground, &["config", "check", file.to_str().unwrap()]).expect_code(0);
    let config = ground.configuration();
    let shown = stockade(&ground, &["config", "show", "--config", config.to_str().unwrap(), "--json"]);
    shown.expect_code(0).expect_text("");
}

#[test]
fn checking_names_everything_that_is_wrong_in_every_file() {
    let ground = Ground::new(Person::user());
    let good = configure(&ground, "stockade.toml", "[runs]\nslots = 3\n");
    let bad = configure(&ground, "stockade.d/a.toml", "[runs]\nslots = 0\nqeue = 1\n");
    let worse = configure(&ground, "stockade.d/b.toml", "[");
    let paths = [&good, &bad, &worse].map(|path| path.to_str().unwrap());
    let named = stockade(&ground, &["config", "check", paths[0], paths[1], paths[2], "--json"]);
    named.expect_code(1);
    let (objects, errors) = (objects(&named), |object: &Value| object["errors"].as_array().unwrap().len());
    assert_eq!(objects.iter().map(errors).collect::<Vec<_>>(), [0, 2, 1], "{}", named.story());
    assert!(objects[0]["ok"] == true && objects[1]["ok"] == false);
    assert_eq!(objects[1]["file"], paths[1]);
    // All of a user's own: found by itself.
    let all = stockade(&ground, &["config", "check"]);
    all.expect_code(1);
    let text = all.text();
    // The directories of policies have nothing wrong.
    let lines: Vec<_> = text.lines().filter(|line| !line.ends_with("/policies: ok")).collect();
    assert_eq!(lines.len(), 3, "{}", all.story());
    assert!(lines[0].starts_with(&format!("{}:2:9: `slots`: 0 is out of range", paths[1])), "{text}");
    assert!(lines[1].contains(":3:1: unknown key `qeue` in [runs]; did you mean `queue`?"), "{text}");
    std::fs::remove_file(bad).unwrap();
    std::fs::remove_file(worse).unwrap();
    stockade(&ground, &["config", "check"]).expect_code(0);
    stockade(&ground, &["config", "check", "/no/such/file"]).expect_code(1);
}

#[test]
fn a_key_of_roots_daemon_is_refused_to_a_user_unless_asked_as_root() {
    let ground = Ground::new(Person::user());
    let file = configure(&ground, "draft.toml", "[daemon]\ngroup = \"users\"\n");
    let path = file.to_str().unwrap();
    let refused = stockade(&ground, &["config", "check", path]);
    refused.expect_code(1);
    assert!(
        refused.text().contains("draft.toml:2:9: `daemon.group` is for root's daemon"),
        "{}",
        refused.story()
    );
    stockade(&ground, &["config", "check", "--system", path]).expect_code(0);
}

#[test]
fn showing_says_of_each_value_who_states_it() {
    let ground = Ground::new(Person::user());
    configure(&ground, "stockade.toml", "[runs]\nslots = 3\nqueue = 5\n");
    let drop_in = configure(&ground, "stockade.d/a.toml", "\n[runs]\nqueue = 6\n");
    let stated = objects(&stockade(&ground, &["config", "show", "--json", "--grace", "7s"]));
    let keys: Vec<_> = stated.iter().map(|object| object["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["runs.slots", "runs.queue", "runs.grace"]);
    assert!(stated[0]["value"] == 3 && stated[0]["line"] == 2);
    assert!(
        stated[1]["value"] == 6 && stated[1]["file"] == drop_in.to_str().unwrap() && stated[1]["line"] == 3
    );
    assert!(stated[2]["value"] == "7s" && stated[2]["from"] == "--grace");
    let mut command = ground.stockade();
    command.args(["config", "show", "--effective", "--json"]).env("STOCKADE_SOCKET", "/else/where");
    let all = objects(&Ended::of(command));
    let of = |key: &str| all.iter().find(|object| object["key"] == key).unwrap();
    assert!(all.len() > 12, "{all:?}");
    assert_eq!(of("daemon.socket")["from"], "$STOCKADE_SOCKET");
    assert_eq!(of("runs.parked")["from"], "default");
    let state = of("daemon.state-directory")["value"].as_str().unwrap().to_owned();
    assert!(state.ends_with(".local/state/stockade") && state.starts_with('/'), "{state}");
}

fn status(daemon: &Daemon) -> Value {
    let client = Ground::new(daemon.ground.person);
    let ended = Ended::of(daemon.ask(&client, &["status", "--json"]));
    serde_json::from_str(&ended.text()).unwrap_or_else(|error| panic!("{error}: {}", ended.story()))
}

#[test]
fn who_has_files_read_again_is_told_what_holds_or_all_that_is_wrong() {
    let ground = ground();
    configure(&ground, "stockade.toml", "[runs]\nslots = 3\n");
    let daemon = Daemon::start_at(ground, &[]);
    let own = Ground::new(daemon.ground.person);
    let reload = |who: &Ground, words: &[&str]| Ended::of(daemon.ask(who, &[&["reload"], words].concat()));
    let bad = configure(&daemon.ground, "stockade.d/b.toml", "[runs]\nslots = \"x\"\nqueue = -1\n");
    reload(&own, &[]).expect_code(1).expect_errors(&["b.toml:2:9: ", "b.toml:3:9: ", "nothing is reloaded"]);
    let told: Value = serde_json::from_str(&reload(&own, &["--json"]).text()).unwrap();
    assert_eq!((&told["reloaded"], told["wrong"].as_array().unwrap().len()), (&false.into(), 2), "{told}");
    assert_eq!(status(&daemon)["slots"], 3);
    std::fs::remove_file(bad).unwrap();
    configure(&daemon.ground, "stockade.toml", "[runs]\nslots = 1\nparked = 2\n");
    if Person::me().is_root() {
        let other = Ground::new(Person::user());
        reload(&other, &[]).expect_code(1).expect_errors(&["only root and the user that the daemon runs as"]);
        assert_eq!(status(&daemon)["slots"], 3);
    }
    let ended = reload(&own, &[]);
    ended.expect_code(0);
    assert!(ended.text().starts_with("reloaded: ") && ended.text().ends_with("takes a restart: runs.parked"));
    assert_eq!(status(&daemon)["slots"], 1);
}

#[test]
fn a_daemon_has_what_its_files_say_and_takes_up_what_they_say_at_a_reload() {
    let ground = ground();
    configure(&ground, "stockade.toml", "[runs]\nslots = 3\n");
    configure(&ground, "stockade.d/a.toml", "[runs]\nqueue = 5\n");
    let daemon = Daemon::start_at(ground, &[]);
    assert!(status(&daemon)["slots"] == 3 && status(&daemon)["queue_bound"] == 5);
    assert!(!daemon.log().contains("layer"), "the level is info");
    // A run that goes on keeps what it has, and its slot.
    let client = Ground::new(daemon.ground.person);
    let run = |options: &[&str], words: &[&str]| {
        let mut command = daemon.ask(&client, &["run"]);
        command.args(options).arg("--").args(words);
        Ended::of(command)
    };
    let id = run(&["--detach"], &["sleep", "60"]);
    id.expect_code(0);

    let bad = configure(&daemon.ground, "stockade.d/b.toml", "[runs]\nslots = 1\nqueue = -1\n");
    daemon.signal(Signal::HUP);
    let log = |text: &str| wait_until(Duration::from_secs(60), || daemon.log().contains(text));
    assert!(log("nothing is reloaded"), "{}", daemon.log());
    assert!(daemon.log().contains("b.toml:3:9: `[runs] queue` is an integer"), "{}", daemon.log());
    assert!(status(&daemon)["slots"] == 3);

    std::fs::remove_file(bad).unwrap();
    let more = "[runs]\nslots = 1\nparked = 2\n[log]\nlevel = \"debug\"\n";
    configure(&daemon.ground, "stockade.toml", more);
    daemon.signal(Signal::HUP);
    assert!(log("policies reloaded"), "{}", daemon.log());
    let told = daemon.log();
    for (key, old, new, what) in
        [("runs.slots", "3", "1", "changed"), ("runs.parked", "8", "2", "takes a restart")]
    {
        let line = |line: &&str| {
            [format!("key=\"{key}\""), format!("old=\"{old}\""), format!("new=\"{new}\"")]
                .iter()
                .all(|part| line.contains(part.as_str()))
        };
        let line = told.lines().find(line).unwrap_or_else(|| panic!("{key}: {told}"));
        assert!(line.contains(what), "{line}");
    }
    let now = status(&daemon);
    assert!(now["slots"] == 1 && now["running"] == 1, "{now}");
    Ended::of(daemon.ask(&client, &["kill", id.text().trim()])).expect_code(0);
    // The other level holds, too.
    run(&[], &["true"]).expect_code(0);
    assert!(log("DEBUG"), "{}", daemon.log());
}

#[test]
fn a_daemon_with_a_bad_configuration_or_one_that_others_may_write_serves_nobody() {
    let refused = |ground: &Ground, parts: &[&str]| {
        let socket = ground.base().join("daemon/stockade.sock");
        let status = serve(ground, &socket).status().unwrap();
        let log = std::fs::read_to_string(ground.base().join("daemon.log")).unwrap();
        assert_eq!(status.code(), Some(78), "{log}");
        assert!(parts.iter().all(|part| log.contains(part)), "{log}");
        assert!(!socket.exists());
    };
    let ground = ground();
    configure(&ground, "stockade.toml", "[runs]\nslotz = 3\nqueue = -1\n");
    refused(&ground, &["stockade.toml:2:1: unknown key `slotz`", "and 1 more: `stockade config check`"]);
    let file = configure(&ground, "stockade.toml", "[runs]\nslots = 3\n");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    refused(&ground, &["stockade.toml: others may write to it; chmod go-w it"]);
}

/// A policy of the person's own, with this mode.
fn write_policy(ground: &Ground, text: &str, mode: u32) -> PathBuf {
    let path = ground.policies().join("mine.toml");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    ground.person.own(&path);
    path
}

/// What `config check` says of the person's policies, after what it ends with.
fn checked(ground: &Ground) -> (i32, Vec<Value>) {
    let ended = stockade(ground, &["config", "check", "--json"]);
    let own = ground.policies();
    let objects = objects(&ended);
    let about = objects.iter().find(|object| object["file"] == own.to_str().unwrap());
    let about = about.unwrap_or_else(|| panic!("{}", ended.story()));
    assert_eq!(about["ok"].as_bool().unwrap(), about["errors"].as_array().unwrap().is_empty());
    (ended.code.unwrap(), about["errors"].as_array().unwrap().clone())
}

#[test]
fn checking_refuses_the_policies_that_a_reload_refuses_and_no_others() {
    let ground = Ground::new(Person::user());
    write_policy(&ground, "extends = \"default\"\n", 0o644);
    let daemon = Daemon::start_at(ground, &[]);
    let ground = &daemon.ground;
    let times = |text: &str| daemon.log().matches(text).count();
    let reload = |line: &str| {
        let before = times(line);
        daemon.signal(Signal::HUP);
        assert!(wait_until(Duration::from_secs(60), || times(line) > before), "{line}: {}", daemon.log());
    };
    assert_eq!(checked(ground), (0, Vec::new()));
    reload("policies reloaded");

    let path = write_policy(ground, "extends = \"default\"\n[limits]\nproceses = 3\n", 0o644);
    let (code, errors) = checked(ground);
    assert!(code == 1 && errors.len() == 1, "{errors:?}");
    let expected = [("file", path.to_str().unwrap()), ("key", "proceses")];
    assert!(expected.iter().all(|(key, value)| errors[0][key] == *value), "{errors:?}");
    assert!(errors[0]["line"] == 3 && errors[0]["column"] == 1, "{errors:?}");
    assert!(errors[0]["remedy"].as_str().unwrap().contains("processes"), "{errors:?}");
    reload("nothing is reloaded");
    // For people, in a sentence.
    let said = stockade(ground, &["config", "check"]).text();
    assert!(said.contains("mine.toml:3:1: unknown key `proceses`"), "{said}");

    // Each file by itself is in order.
    write_policy(ground, "extends = \"no-such-policy\"\n", 0o644);
    let (code, errors) = checked(ground);
    assert!(code == 1 && errors[0]["key"] == "extends" && errors[0]["line"] == 1, "{errors:?}");
    reload("nothing is reloaded");
    write_policy(ground, "extends = \"build\"\n", 0o644);
    assert_eq!(checked(ground), (0, Vec::new()));
    reload("policies reloaded");
}

#[test]
fn a_policy_that_others_may_write_to_or_replace_is_refused_and_otherwise_holds() {
    let ground = Ground::new(Person::user());
    let path = write_policy(&ground, "extends = \"default\"\n", 0o644);
    let run = || {
        let mut command = ground.stockade();
        command.args(["run", "--embedded", "--policy", "mine", "--", "true"]);
        Ended::of(command)
    };
    let refused = |reason: &str, remedy: &str| {
        let (code, errors) = checked(&ground);
        assert!(code == 1 && errors.len() == 1, "{errors:?}");
        assert!(errors[0]["error"].as_str().unwrap().contains(reason), "{errors:?}");
        assert!(errors[0]["remedy"].as_str().unwrap().contains(remedy), "{errors:?}");
        let ended = run();
        ended.expect_code(125);
        assert!(ended.errors().contains(reason) && ended.errors().contains(remedy), "{}", ended.story());
        let socket = ground.base().join("daemon/stockade.sock");
        let status = serve(&ground, &socket).status().unwrap();
        assert!(status.code() == Some(78) && !socket.exists(), "{status}");
    };
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    assert_eq!(checked(&ground).0, 0);
    run().expect_code(0);
    mode(&path, 0o646);
    refused("mine.toml: others may write to it", "chmod go-w it");
    mode(&path, 0o644);
    mode(&ground.policies(), 0o757);
    refused("others may write to it, and so replace what is in it", "chmod go-w");
    mode(&ground.policies(), 0o755);
    assert_eq!(checked(&ground).0, 0);
    run().expect_code(0);
    if !Person::me().is_root() {
        stockade_tests::not_tested("a policy that is somebody else's", "giving files away needs root");
        return;
    }
    std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
    refused("mine.toml: it belongs to user 12345", "make it root's or yours, with chown");
    // Root's are everybody's.
    std::os::unix::fs::chown(&path, Some(0), None).unwrap();
    assert_eq!(checked(&ground).0, 0);
    run().expect_code(0);
}
