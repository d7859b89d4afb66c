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
    let lines: Vec<_> = text.lines().collect();
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
