//! Approvals at the command line: docs/approval.md is followed, and users of one daemon answer for each other and not for themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use stockade_tests::page::blocks;
use stockade_tests::{Daemon, Ended, Ground, Person, not_tested, wait_until};

const PAGE: &str = include_str!("../../docs/approval.md");
const LONG: Duration = Duration::from_secs(60);

const APPROVAL: &str = "[thresholds]\nask = 50\n[[rule]]\nname = \"marked\"\nscore = 50\nreason = \"it's marked\"\n\
    when = { word-matches = \"^asked$\" }\n";

#[test]
fn the_guide_is_followed_as_it_stands() {
    let ground = Ground::new(Person::user());
    for block in blocks(PAGE, "toml").into_iter().chain(blocks(PAGE, "cedar")) {
        let name = block.lines().next().unwrap().trim_start_matches(['#', '/', ' ']);
        ground.configure(&[(name, block)]);
    }
    let lines: Vec<&str> = blocks(PAGE, "sh")[1].lines().collect();
    let expected: [(i32, &[&str]); 5] = [
        (3, &["permitted after approval: releases-are-looked-at (access.cedar:2)", "seen by customers"]),
        (3, &["its risk is 90", "factor: forced-push (+60): it rewrites", "factor: never-before (+30)"]),
        (3, &["permitted: owner-runs-shipped-policies", "permitted after approval: its risk is 130"]),
        (1, &["refused: the risk of it is too high for anybody to approve (190)"]),
        (
            3,
            &[
                "programs: 1 have to say yes of plain words; it costs 1 of a day's 100",
                "people: none, programs decide",
            ],
        ),
    ];
    assert_eq!(lines.len(), expected.len());
    for (line, (status, texts)) in lines.iter().zip(expected) {
        let words: Vec<&str> = line.split(" || ").next().unwrap().split_whitespace().skip(1).collect();
        let mut command = ground.stockade();
        command.current_dir(ground.configuration()).args(words);
        let ended = Ended::of(command);
        for text in texts {
            assert!(ended.text().contains(text), "{line}: {text}: {}", ended.story());
        }
        ended.expect_code(status);
    }
    let mut check = ground.stockade();
    check.args(["config", "check"]);
    Ended::of(check).expect_code(0);
    let mut json = ground.stockade();
    json.current_dir(ground.configuration()).args([
        "access",
        "check",
        "3000",
        "run",
        "default",
        "--config",
        ".",
        "--json",
        "--",
        "cat",
        "/srv/live",
    ]);
    let ended = Ended::of(json);
    let line: Value = serde_json::from_str(ended.text().trim()).unwrap();
    assert_eq!((&line["permitted"], &line["asks"]), (&false.into(), &true.into()), "{line}");
    assert_eq!(line["risk"].as_array().unwrap().len(), 2, "{line}");
}

/// A daemon by which a user asks, and root answers.
fn with_a_user_and_root() -> Option<(Daemon, Ground, Ground)> {
    if !Person::me().is_root() {
        not_tested("another user who approves", "that takes root");
        return None;
    }
    let root = Ground::new(Person::me());
    root.configure(&[("approval.toml", APPROVAL)]);
    let launcher = root.binaries.launcher.clone();
    let daemon = Daemon::start_apart_at(root, launcher);
    Some((daemon, Ground::new(Person::user()), Ground::new(Person::me())))
}

/// Starts `stockade run` of these words.
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

/// The only request that waits, as somebody is shown it.
fn waiting(daemon: &Daemon, approver: &Ground) -> Value {
    let mut found = Value::Null;
    let came = wait_until(LONG, || {
        let listed = Ended::of(daemon.ask(approver, &["approve", "--json"]));
        listed.expect_code(0);
        let first = listed.text().lines().next().map(|line| serde_json::from_str(line).unwrap());
        found = first.unwrap_or_default();
        !found.is_null()
    });
    assert!(came, "nothing waits");
    found
}

#[test]
fn a_users_request_waits_for_root_who_sees_no_escape_of_his_and_not_for_himself() {
    let Some((daemon, user, root)) = with_a_user_and_root() else { return };
    let (status, out, _) = end(begin(&daemon, &user, &["--", "/bin/echo", "plain"]));
    assert_eq!((status, out.as_str()), (0, "plain\n"));

    let child = begin(&daemon, &user, &["--", "/bin/echo", "asked", "\x1b]0;owned\x07"]);
    let one = waiting(&daemon, &root);
    let id = one["exec_id"].as_str().unwrap();
    assert_eq!((one["owner_uid"].as_u64(), &one["may_answer"]), (Some(54_321), &true.into()));
    let shown = Ended::of(daemon.ask(&root, &["approve"]));
    assert!(
        shown.text().contains("asked by    user 54321") && !shown.text().contains('\x1b'),
        "{}",
        shown.story()
    );
    assert!(shown.text().contains("because     marked (+50): it's marked"), "{}", shown.story());
    // He may not answer, nor see what waits: there are no rules of access, and he is neither root nor the daemon's user.
    let digest = one["digest"].as_str().unwrap();
    for words in [&["approve"][..], &["approve", id, "--digest", digest]] {
        Ended::of(daemon.ask(&user, words))
            .expect_code(1)
            .expect_errors(&["only root and the user that the daemon runs as"]);
    }
    let status = Ended::of(daemon.ask(&root, &["status"]));
    assert!(status.text().contains("approvals    1 wait"), "{}", status.story());
    for (none, says) in [("ffff", "nothing waits under"), (&id[33..], "too short for an id")] {
        Ended::of(daemon.ask(&root, &["approve", none])).expect_code(1).expect_errors(&[says]);
    }
    // Without a terminal nothing is approved but what was seen.
    let unseen = Ended::of(daemon.ask(&root, &["approve", id]));
    unseen.expect_code(1).expect_errors(&["approving takes a `y` at the terminal, or `--digest`"]);
    let other = Ended::of(daemon.ask(&root, &["approve", id, "--digest", "00000000"]));
    other.expect_code(1).expect_errors(&[&format!("has the digest {digest}, not 00000000")]);
    for short in [&digest[..7], "xxxxxxxx"] {
        Ended::of(daemon.ask(&root, &["approve", id, "--digest", short])).expect_code(2);
    }
    assert_eq!(waiting(&daemon, &root)["approved"], 0);
    let approved = Ended::of(daemon.ask(&root, &["approve", &id[32..], "--digest", &digest[..8]]));
    approved.expect_code(0);
    assert!(approved.text().ends_with(": approved"), "{}", approved.story());
    let (status, out, errors) = end(child);
    assert_eq!((status, out.as_str()), (0, "asked \x1b]0;owned\x07\n"), "{errors}");
    assert!(errors.contains("waits until somebody has approved it, "), "{errors}");
    assert!(errors.contains("because marked (+50): it's marked"), "{errors}");

    let child = begin(&daemon, &user, &["--json", "--", "/bin/echo", "asked"]);
    let one = waiting(&daemon, &root);
    let id = one["exec_id"].as_str().unwrap();
    let refused = Ended::of(daemon.ask(&root, &["approve", id, "--refuse", "--reason", "not\x1b now"]));
    refused.expect_code(0);
    let (status, out, errors) = end(child);
    assert_eq!(status, 125, "{errors}");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["awaits_approval"]["exec_id"], id);
    assert_eq!(lines[1]["denied"]["reason"], "not-approved");
    assert!(errors.contains("somebody who was asked has refused it: not\\u{1b} now"), "{errors}");
    assert!(!errors.contains('\x1b'), "{errors:?}");
}

#[test]
fn in_a_users_own_daemon_nobody_but_another_answers_and_nobody_is_a_no() {
    for person in [Person::me(), Person::user()] {
        let ground = Ground::new(person);
        ground.configure(&[("approval.toml", &format!("[approval]\nwithin = \"5s\"\n{APPROVAL}"))]);
        let daemon = Daemon::start_at(ground, &[]);
        let ground = &daemon.ground;
        let child = begin(&daemon, ground, &["--", "/bin/echo", "asked"]);
        let one = waiting(&daemon, ground);
        assert_eq!(one["may_answer"], false);
        let (id, digest) = (one["exec_id"].as_str().unwrap(), one["digest"].as_str().unwrap());
        let own = Ended::of(daemon.ask(ground, &["approve", id, "--digest", digest]));
        own.expect_code(1).expect_errors(&["nobody approves what he has asked for himself"]);
        let (status, out, errors) = end(child);
        assert_eq!((status, out.as_str()), (125, ""), "{errors}");
        assert!(errors.contains("nobody has approved it in time: 0 of 1"), "{errors}");
    }
}

#[test]
fn root_answers_at_a_users_own_daemon_and_does_nothing_else_there() {
    if !Person::me().is_root() {
        not_tested("root at a user's daemon", "that takes root");
        return;
    }
    let ground = Ground::new(Person::user());
    ground.configure(&[("approval.toml", APPROVAL)]);
    let daemon = Daemon::start_at(ground, &[]);
    let (ground, root) = (&daemon.ground, Ground::new(Person::me()));
    let child = begin(&daemon, ground, &["--", "/bin/echo", "asked"]);
    let one = waiting(&daemon, &root);
    assert_eq!((one["owner_uid"].as_u64(), &one["may_answer"]), (Some(54_321), &true.into()));
    let (id, digest) = (one["exec_id"].as_str().unwrap(), one["digest"].as_str().unwrap());
    for words in
        [&["ps"][..], &["run", "--", "true"], &["kill", id], &["breaker", "list"], &["grant", "list"]]
    {
        let mut command = root.stockade();
        let (verb, rest) = words.split_first().unwrap();
        command.arg(verb);
        // The socket stands behind the verb and its own verb, before a command.
        let at = usize::from(["breaker", "grant"].contains(verb));
        command.args(&rest[..at]).arg("--socket").arg(&daemon.socket).args(&rest[at..]);
        let refused = Ended::of(command);
        assert_ne!(refused.code, Some(0), "{}", refused.story());
        refused.expect_errors(&["root may answer approvals at the daemon of user 54321"]);
    }
    Ended::of(daemon.ask(&root, &["status"])).expect_code(0);
    Ended::of(daemon.ask(&root, &["approve", id, "--digest", digest])).expect_code(0);
    assert_eq!(end(child).1, "asked\n");
}

#[test]
fn a_daemon_that_dies_while_somebody_is_asked_has_begun_nothing_and_a_call_ends_as_a_run() {
    let ground = Ground::new(Person::user());
    let tool = "name = \"say\"\ndescription = \"A test's.\"\nversion = \"1\"\npolicy = \"default\"\n\
        [command]\nprogram = \"/bin/echo\"\narguments = [\"{word:text}\"]\n\
        [parameters]\ntype = \"object\"\nrequired = [\"word\"]\nproperties.word = { type = \"string\" }\n";
    let rule = "[[rule]]\nname = \"said\"\nscore = 50\nreason = \"it's said\"\nwhen = { tool = [\"say\"] }\n";
    std::fs::create_dir_all(ground.configuration().join("tools")).unwrap();
    ground.configure(&[("approval.toml", &format!("{APPROVAL}{rule}")), ("tools/say.toml", tool)]);
    let daemon = Daemon::start_at(ground, &[]);
    for words in [&["run", "--", "/bin/echo", "asked"][..], &["tool", "call", "say", r#"{"word":"asked"}"#]] {
        let mut command = daemon.ground.stockade();
        command.current_dir(daemon.ground.work()).env("STOCKADE_SOCKET", &daemon.socket).args(words);
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let _one = waiting(&daemon, &daemon.ground);
        daemon.kill_and_start_again(&[]);
        let (status, out, errors) = end(child);
        assert_eq!((status, out.as_str()), (125, ""), "{words:?}: {errors}");
        assert!(
            errors.contains("nothing runs before a yes") && !errors.contains("may have been"),
            "{errors}"
        );
    }
}

#[test]
fn a_signal_gives_up_what_waits() {
    let ground = Ground::new(Person::user());
    ground.configure(&[("approval.toml", APPROVAL)]);
    let daemon = Daemon::start_at(ground, &[]);
    let ground = &daemon.ground;
    let child = begin(&daemon, ground, &["--", "/bin/echo", "asked"]);
    let _one = waiting(&daemon, ground);
    let pid = rustix::process::Pid::from_child(&child);
    // Not INT: whoever is started in the background of a script ignores that, and so do we.
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let (status, out, errors) = end(child);
    assert_eq!((status, out.as_str()), (125, ""), "{errors}");
    assert!(errors.contains("it was cancelled while it waited"), "{errors}");
    let listed = Ended::of(daemon.ask(ground, &["approve"]));
    assert_eq!(listed.text(), "nothing waits for an approval");
}

/// A terminal whose keys are pressed here, and what stands on it.
struct Terminal {
    held: std::fs::File,
    child: Child,
    said: String,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let held = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&held).unwrap();
        unlockpt(&held).unwrap();
        let name = ptsname(&held, Vec::new()).unwrap().into_string().unwrap();
        let open = || std::fs::File::options().read(true).write(true).open(&name).unwrap();
        let end = open();
        rustix::io::ioctl_fionbio(&held, true).unwrap();
        let mut held = std::fs::File::from(held);
        // Typed ahead: meant for nothing that was shown.
        std::io::Write::write_all(&mut held, b"y\ny\ny\n").unwrap();
        let child = command.stdin(open()).stdout(open()).stderr(end).spawn().unwrap();
        Self { held, child, said: String::new() }
    }

    fn types(&mut self, text: &str) {
        std::io::Write::write_all(&mut self.held, text.as_bytes()).unwrap();
    }

    /// Waits until that stands there, behind what was seen before.
    fn sees(&mut self, text: &str) -> String {
        let mut at = None;
        let came = wait_until(LONG, || {
            let mut bytes = [0; 4_096];
            while let Ok(read @ 1..) = std::io::Read::read(&mut self.held, &mut bytes) {
                self.said.push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
            at = self.said.find(text);
            at.is_some()
        });
        assert!(came, "no {text:?} in {:?}", self.said);
        self.said.drain(..at.unwrap() + text.len()).collect()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn a_yes_is_said_behind_what_is_shown_and_nothing_that_was_typed_before_is_one() {
    let Some((daemon, user, root)) = with_a_user_and_root() else { return };
    let first = begin(&daemon, &user, &["--", "/bin/echo", "asked", "first"]);
    let one = waiting(&daemon, &root);
    let (id, digest) = (one["exec_id"].as_str().unwrap().to_owned(), one["digest"].as_str().unwrap());
    let question = format!("approve {} (its digest)? y, or n", &digest[..8]);
    // By its number: what was typed before is thrown away, and nothing is approved until the question was answered.
    let mut terminal = Terminal::start(daemon.ask(&root, &["approve", &id]));
    let seen = terminal.sees(&question);
    assert!(seen.contains("command     /bin/echo asked first\r\n"), "{seen}");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(waiting(&daemon, &root)["exec_id"], id.as_str(), "approved by what was typed before");
    terminal.types("\n");
    terminal.sees("nothing was answered");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(1));
    let mut terminal = Terminal::start(daemon.ask(&root, &["approve", &id]));
    terminal.sees(&question);
    terminal.types("y\n");
    terminal.sees(": approved");
    assert_eq!(end(first).1, "asked first\n");

    // And one behind another.
    let mut watch = Terminal::start(daemon.ask(&root, &["approve", "--watch"]));
    let first = begin(&daemon, &user, &["--", "/bin/echo", "asked", "second"]);
    let second = begin(&daemon, &user, &["--", "/bin/echo", "asked", "third"]);
    assert!(wait_until(LONG, || {
        let listed = Ended::of(daemon.ask(&root, &["approve", "--json"]));
        listed.text().lines().count() == 2
    }));
    watch.sees("approve ");
    watch.types("y\ny\ny\n");
    watch.sees(": approved");
    watch.sees("approve ");
    std::thread::sleep(Duration::from_millis(300));
    let left = waiting(&daemon, &root);
    watch.types("n not this\n");
    watch.sees(": refused");
    let (first, second) = (end(first), end(second));
    assert_eq!(first.0.min(second.0), 0);
    let refused = if first.0 == 0 { second } else { first };
    assert!(refused.0 == 125 && refused.2.contains("not this"), "{left} {refused:?}");
}
