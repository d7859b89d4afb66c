//! Reviewer programs: real ones, which look at what somebody asks for, confined as their tools' files say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use stockade_tests::page::blocks;
use stockade_tests::{Daemon, Ended, Ground, Person, left, not_tested, program, wait_until};

const PAGE: &str = include_str!("../../docs/approval.md");
const LONG: Duration = Duration::from_secs(60);

const RULES: &str = "[thresholds]\nask = 50\n[[rule]]\nname = \"marked\"\nscore = 50\nreason = \"it's marked\"\n\
    when = { word-matches = \"^asked$\" }\n";

/// What each of these scripts begins with: the request, its digest, and how it answers.
const HEAD: &str = "IFS= read -r line\ndigest=${line##*\\\"digest\\\":\\\"}\ndigest=${digest%%\\\"*}\n\
    say() { printf '{\"digest\":\"%s\",\"approve\":%s,\"reason\":\"%s\"}\\n' \"$digest\" \"$1\" \"$2\"; }\n";
/// Refuses what has the word `bad` in it, in words that a terminal would obey.
const CAREFUL: &str =
    "case $line in *'\"bad\"'*) say false 'it is bad\\u001b[2J';; *) say true fine;; esac\n";

/// Has these scripts look, whose `[reviews]` say this.
fn configure(ground: &Ground, reviews: &str, scripts: &[(&str, &str)]) {
    let looks = ground.base().join("looks");
    std::fs::create_dir_all(&looks).unwrap();
    stockade_tests::binaries::copy_program(&ground.binaries.probe, &looks.join("probe"));
    let place = looks.display();
    let policy =
        format!("extends = \"strict\"\n[filesystem]\nread = [\"{place}\"]\nexecute = [\"{place}\"]\n");
    std::fs::write(ground.policies().join("looks.toml"), policy).unwrap();
    ground.person.own_all(&ground.policies());
    let mut approval = RULES.to_owned();
    for (name, script) in scripts {
        std::fs::write(looks.join(name), format!("{HEAD}{script}")).unwrap();
        approval.push_str(&format!("[[reviewer]]\nname = \"the {name}\"\ntool = \"{name}\"\ncost = 1\n"));
        let tool = format!(
            "name = \"{name}\"\ndescription = \"Looks.\"\nversion = \"1\"\npolicy = \"looks\"\n\
             [command]\nprogram = \"/bin/sh\"\narguments = [\"{place}/{name}\"]\n[parameters]\ntype = \"object\"\n"
        );
        ground.configure(&[(&format!("tools/{name}.toml"), &tool)]);
    }
    ground.person.own_all(&looks);
    ground.configure(&[("approval.toml", &format!("{approval}[reviews]\n{reviews}"))]);
}

/// Daemons of each kind that there can be here, whose programs decide, and a ground of who asks there.
fn daemons(reviews: &str, scripts: &[(&str, &str)]) -> Vec<(Daemon, Ground)> {
    let user = Ground::new(Person::user());
    configure(&user, reviews, scripts);
    let mut all = vec![(Daemon::start_at(user, &[]), Ground::new(Person::user()))];
    if Person::me().is_root() {
        let root = Ground::new(Person::me());
        configure(&root, reviews, scripts);
        all.push((Daemon::start_at(root, &[]), Ground::new(Person::user())));
        let apart = Ground::new(Person::me());
        configure(&apart, reviews, scripts);
        let launcher = apart.binaries.launcher.clone();
        all.push((Daemon::start_apart_at(apart, launcher), Ground::new(Person::user())));
    } else {
        not_tested("reviewers of root's daemon, and of one with root's launchers", "that takes root");
    }
    all
}

fn begin(daemon: &Daemon, ground: &Ground, words: &[&str]) -> Child {
    let mut command: Command = ground.stockade();
    command.current_dir(ground.work()).args(["run", "--socket"]).arg(&daemon.socket).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) -> (i32, String, String) {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn programs_look_at_what_is_asked_for_and_decide_in_every_kind_of_daemon() {
    let scripts = [("first", CAREFUL), ("second", CAREFUL), ("broken", "say true fine\nexit 3\n")];
    for (daemon, ground) in daemons("needed = 2\ninstead-of-people = true\n", &scripts) {
        let (status, out, errors) = end(begin(&daemon, &ground, &["--", "/bin/echo", "asked", "good"]));
        assert_eq!((status, out.as_str()), (0, "asked good\n"), "{errors}{}", daemon.log());
        let (status, out, errors) = end(begin(&daemon, &ground, &["--", "/bin/echo", "asked", "bad"]));
        assert_eq!((status, out.as_str()), (125, ""), "{errors}");
        assert!(errors.contains("the reviewer the "), "{errors}");
        assert!(
            errors.contains("has refused it: it is bad\\u{1b}[2J") && !errors.contains('\x1b'),
            "{errors:?}"
        );
        // What isn't risky nobody looks at.
        let (status, ..) = end(begin(&daemon, &ground, &["--", "/bin/echo", "bad"]));
        assert_eq!(status, 0);
        let rooms = daemon.ground.base().join("state/reviews");
        let is_empty = || rooms.read_dir().is_ok_and(|mut all| all.next().is_none());
        assert!(wait_until(LONG, is_empty), "{rooms:?}: directories of reviewers are left");
    }
}

#[test]
fn one_yes_too_few_is_a_no_whatever_keeps_the_others_from_it() {
    for (broken, why) in [
        ("say true fine\nexit 3\n", "it has ended with status 3"),
        ("say true fine\nkill -9 $$\n", "it has died of signal 9"),
        ("digest=$(printf '%064d' 0)\nsay true fine\n", "its answer is about something else"),
        ("say true fine\nsay true fine\n", "what it has printed is no answer"),
        ("say true fine\nhead -c 5000 /dev/zero | tr '\\0' ' '\n", "it has printed more than 4096 bytes"),
        ("say true fine\nhead -c 100000 /dev/zero\n", "it was ended: "),
        ("echo looking\n", "what it has printed is no answer"),
        ("sleep 60\nsay true fine\n", "it "),
    ] {
        let scripts = [("first", CAREFUL), ("broken", broken)];
        let ground = Ground::new(Person::user());
        // Long enough for a machine that is busy, but where it's the time that is tried.
        let within = if broken.starts_with("sleep") { 4 } else { 50 };
        configure(&ground, &format!("within = \"{within}s\"\ninstead-of-people = true\n"), &scripts);
        let daemon = Daemon::start_at(ground, &[]);
        let (status, out, errors) = end(begin(&daemon, &daemon.ground, &["--", "/bin/echo", "asked"]));
        assert_eq!((status, out.as_str()), (125, ""), "{broken}: {errors}");
        let says = format!("the reviewer the broken has said nothing that counts: {why}");
        assert!(errors.contains(&says), "{broken}: {errors}");
    }
}

#[test]
fn a_reviewer_is_confined_and_can_neither_reach_the_network_nor_answer_at_the_daemon() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tries = |socket: &str, place: &str| {
        format!(
            "for try in 'connect-tcp {address}' 'connect-unix {socket}'; do\n\
             case $({place}/probe $try) in *' ok'*) can=\"$can ${{try%% *}}\";; *=*) cannot=\"$cannot ${{try%% *}}\";; esac\ndone\n\
             say false \"it can:$can; it can't:$cannot\"\n"
        )
    };
    let ground = Ground::new(Person::user());
    let socket = ground.base().join("daemon/stockade.sock");
    let place = ground.base().join("looks");
    let script = tries(socket.to_str().unwrap(), place.to_str().unwrap());
    configure(&ground, "instead-of-people = true\n", &[("prober", &script)]);
    let daemon = Daemon::start_at(ground, &[]);
    assert_eq!(daemon.socket, socket);
    let (status, _, errors) = end(begin(&daemon, &daemon.ground, &["--", "/bin/echo", "asked"]));
    assert!(errors.contains("it can:; it can't: connect-tcp connect-unix"), "{errors}");
    assert_eq!(status, 125);
    // The twin: outside it can all of that.
    let mut outside = daemon.ground.command("/bin/sh");
    outside.current_dir(daemon.ground.work()).arg(place.join("prober"));
    let ended = Ended::of(outside);
    assert!(ended.text().contains("it can: connect-tcp connect-unix; it can't:\""), "{}", ended.story());
}

#[test]
fn an_asker_who_leaves_and_a_daemon_that_ends_take_the_programs_with_them() {
    let scripts = [("sleeper", "sleep 61713\nsay true fine\n")];
    let looks = || left::with_word("61713").iter().any(|process| process.command.starts_with("sleep"));
    for (daemon, ground) in daemons("within = \"50s\"\ninstead-of-people = true\n", &scripts) {
        let child = begin(&daemon, &ground, &["--", "/bin/echo", "asked"]);
        assert!(wait_until(LONG, looks), "nobody looks: {}", daemon.log());
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        assert!(wait_until(LONG, || !looks()), "it looks for nobody");
        let _reaped = child.wait_with_output().unwrap();
        // A killed daemon leaves it to the launcher, and the next one ends it: nobody waits for it.
        let child = begin(&daemon, &ground, &["--", "/bin/echo", "asked"]);
        assert!(wait_until(LONG, looks), "nobody looks: {}", daemon.log());
        daemon.kill_and_start_again(&[]);
        assert!(wait_until(LONG, || !looks()), "it outlives the daemon that asked it");
        let (status, out, errors) = end(child);
        assert!(status != 0 && out.is_empty(), "{status} {out} {errors}");
        let rooms = daemon.ground.base().join("state/reviews");
        let is_empty = || rooms.read_dir().map_or(true, |mut all| all.next().is_none());
        assert!(wait_until(LONG, is_empty), "{rooms:?}: directories of reviewers are left");
    }
}

#[test]
fn nobody_spends_anothers_budget_and_people_see_that_programs_havent_looked() {
    if !Person::me().is_root() {
        return not_tested("budgets of two users", "that takes root");
    }
    let root = Ground::new(Person::me());
    configure(&root, "budget = 1\n", &[("first", CAREFUL)]);
    let daemon = Daemon::start_at(root, &[]);
    let (user, other) = (Ground::new(Person::user()), Ground::new(Person::service()));
    let approver = Ground::new(Person::me());
    let waits = |user: &Ground, spent: bool| -> (Child, Value) {
        let child = begin(&daemon, user, &["--", "/bin/echo", "asked"]);
        let mut found = Value::Null;
        let came = wait_until(LONG, || {
            let listed = Ended::of(daemon.ask(&approver, &["approve", "--json"]));
            let first = listed.text().lines().next().map(|line| serde_json::from_str(line).unwrap());
            found = first.unwrap_or_default();
            found["may_answer"] == true
        });
        assert!(came, "{found}: {}", daemon.log());
        assert_eq!(found["panels"][0]["is_spent"], spent, "{found}");
        (child, found)
    };
    let yes = |(child, one): (Child, Value)| {
        let (id, digest) = (one["exec_id"].as_str().unwrap(), one["digest"].as_str().unwrap());
        let shown = Ended::of(daemon.ask(&approver, &["approve", id, "--digest", digest]));
        shown.expect_code(0);
        assert_eq!(end(child).1, "asked\n");
        shown.text().to_owned()
    };
    let shown = yes(waits(&user, false));
    assert!(shown.contains("programs    1 said yes, of 1 that have to"), "{shown}");
    assert!(shown.contains("the first: yes: fine"), "{shown}");
    let shown = yes(waits(&user, true));
    assert!(shown.contains("programs    HAVEN'T LOOKED: the asker's budget for them is spent"), "{shown}");
    yes(waits(&other, false));
}

#[test]
fn the_programs_of_the_guide_do_what_it_says() {
    if program("jq").is_none() || program("git").is_none() {
        return not_tested("the guide's reviewers", "there is no jq, or no git");
    }
    let ground = Ground::new(Person::user());
    for block in blocks(PAGE, "toml") {
        let name = block.lines().next().unwrap().trim_start_matches(['#', ' ']);
        if let Some(name) = name.strip_prefix("reviewed/") {
            ground.configure(&[(name, block)]);
        }
    }
    let daemon = Daemon::start_at(ground, &[]);
    let of = |words: &[&str]| end(begin(&daemon, &daemon.ground, words));
    let (status, out, errors) = of(&["--", "git", "--version"]);
    assert!(status == 0 && out.starts_with("git version"), "{out} {errors}");
    let (status, out, errors) = of(&["--", "git", "--version", "--force"]);
    assert_eq!((status, out.as_str()), (125, ""), "{errors}");
    assert!(errors.contains("the reviewer plain words has refused it"), "{errors}");
    // Nor is anything let through that hides behind what a program isn't shown.
    let padding = "x".repeat(17_000);
    let (status, out, errors) = of(&["--", "git", "--version", &padding, "--force"]);
    assert_eq!((status, out.as_str()), (125, ""), "{errors}");
    assert!(errors.contains("longer than a program is shown"), "{errors}");
}
