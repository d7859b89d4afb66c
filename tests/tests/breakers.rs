//! A real tool that fails, its breaker at the command line, and who may close it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

use serde_json::Value;
use stockade_tests::{Daemon, Ended, Ground, Person, not_tested};

const FAILING: &str = "name = \"failing\"\ndescription = \"Fails.\"\nversion = \"1\"\npolicy = \"default\"\n\
    [command]\nprogram = \"/bin/false\"\n[parameters]\ntype = \"object\"\n\
    [breaker]\nfailures = 2\nwindow = \"1h\"\npause = \"1h\"\n";

/// A ground whose daemon has the tool.
fn ground(person: Person) -> Ground {
    let ground = Ground::new(person);
    let tools = ground.configuration().join("tools");
    std::fs::create_dir_all(&tools).unwrap();
    std::fs::write(tools.join("failing.toml"), FAILING).unwrap();
    person.own_all(&ground.configuration());
    ground
}

/// Calls the tool until it isn't called any more.
fn fail(daemon: &Daemon, ground: &Ground) {
    let call = || {
        let mut command = daemon.ask(ground, &["tool", "call", "failing"]);
        command.current_dir(ground.work());
        Ended::of(command)
    };
    call().expect_code(1);
    call().expect_code(1);
    call().expect_code(125).expect_errors(&["failed too often", "stockade breaker reset failing"]);
}

/// How the breaker stands; none: there is nothing to say of it.
fn state(daemon: &Daemon, ground: &Ground) -> Option<String> {
    let listed = Ended::of(daemon.ask(ground, &["breaker", "list", "--json"]));
    listed.expect_code(0);
    let text = listed.text();
    let line: Value = serde_json::from_str(text.lines().next()?).unwrap();
    assert_eq!(line["tool"], "failing", "{text}");
    Some(line["state"].as_str().unwrap().to_owned())
}

#[test]
fn who_operates_the_daemon_closes_a_breaker_and_its_tool_is_called_again() {
    let (me, user) = (Person::me(), Person::user());
    let people = if me == user { vec![user] } else { vec![me, user] };
    for person in people {
        let daemon = Daemon::start_at(ground(person), &[]);
        let ground = &daemon.ground;
        assert_eq!(state(&daemon, ground), None);
        fail(&daemon, ground);
        let listed = Ended::of(daemon.ask(ground, &["breaker", "list"]));
        listed.expect_code(0);
        assert!(listed.text().contains("failing  open"), "{}", listed.story());
        let told = Ended::of(daemon.ask(ground, &["status"]));
        assert!(told.text().contains("1; 1 breakers open, 0 half-open"), "{}", told.story());
        let unknown = Ended::of(daemon.ask(ground, &["breaker", "reset", "fialing"]));
        unknown.expect_code(1).expect_errors(&["no tool is named `fialing`", "failing"]);
        let closed = Ended::of(daemon.ask(ground, &["breaker", "reset", "failing"]));
        closed.expect_code(0);
        assert!(closed.text().contains("is forgotten"), "{}", closed.story());
        assert_eq!(state(&daemon, ground), None);
        fail(&daemon, ground);
    }
}

#[test]
fn a_user_of_the_machines_daemon_sees_a_breaker_and_may_not_close_it_and_its_own_user_and_root_may() {
    if !Person::me().is_root() {
        not_tested("another user at a breaker", "that takes root");
        return;
    }
    let root = ground(Person::me());
    let launcher = root.binaries.launcher.clone();
    let daemon = Daemon::start_apart_at(root, launcher);
    let user = Ground::new(Person::user());
    for operator in [Person::me(), Person::service()] {
        let operator = Ground::new(operator);
        fail(&daemon, &user);
        assert_eq!(state(&daemon, &user).as_deref(), Some("open"));
        let denied = Ended::of(daemon.ask(&user, &["breaker", "reset", "failing"]));
        denied.expect_code(1).expect_errors(&["only root and the user that the daemon runs as", "access"]);
        assert_eq!(state(&daemon, &user).as_deref(), Some("open"));
        Ended::of(daemon.ask(&operator, &["breaker", "reset", "failing"])).expect_code(0);
        assert_eq!(state(&daemon, &user), None);
    }
}
