//! What becomes of one run.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use stockade_protocol::Bytes;
use stockade_protocol::client::{ClientMessage, ExecRequest, Overrides, StdinMode};
use stockade_protocol::outcome::{CancelReason, Clock, Outcome};
use stockade_tests::setting::marker;
use stockade_tests::wire::request;
use stockade_tests::{Daemon, Ended, Ground, Mode, left, wait_until};

use crate::follower::Follower;

const SOON: Duration = Duration::from_secs(60);

/// A daemon of its own and a client's ground, for each mode.
fn each() -> impl Iterator<Item = (Daemon, Ground)> {
    Mode::daemons_here()
        .into_iter()
        .map(|mode| (Daemon::start(mode.server(), &[]), Ground::new(mode.client())))
}

fn bash(ground: &Ground, line: &str) -> ExecRequest {
    request(ground, "default", &["bash", "-c", line])
}

/// Three hundred lines, one each ten milliseconds, and their text. The last fifty wait for [`go`].
fn lines() -> (&'static str, String) {
    let line = "for i in {1..300}; do if [ $i = 250 ]; then until [ -e go ]; do sleep 0.01; done; fi; \
                echo line $i; sleep 0.01; done; exit 3";
    (line, (1..=300).map(|number| format!("line {number}\n")).collect())
}

fn go(ground: &Ground) {
    ground.put("go", "");
}

#[test]
fn a_run_outlives_a_killed_daemon_and_no_byte_of_it_is_lost_or_doubled() {
    for (daemon, ground) in each() {
        let (line, text) = lines();
        let mut run = Follower::of(&daemon, &ground, bash(&ground, line));
        for bytes in [200, 1000] {
            run.follow(|run| run.output.len() > bytes);
            daemon.kill();
            // What was in the socket when it was killed is still there.
            run.follow(|_| false);
            assert!(run.end.is_none(), "it has ended too soon to be tested");
            daemon.start_again(&[]);
            run.come_back(&daemon);
        }
        go(&ground);
        assert_eq!(run.follow_to_the_end().0, Outcome::Exited { code: 3 });
        assert_eq!(String::from_utf8_lossy(&run.output), text);
        run.acknowledge();
    }
}

/// The first half of a secret comes before its daemon is killed, the rest after the next has come.
#[test]
fn a_secret_is_hidden_though_the_daemon_is_killed_in_the_middle_of_it() {
    const VALUE: &str = "c0rrect-horse-battery";
    for mode in Mode::daemons_here() {
        let server = Ground::new(mode.server());
        for (name, rest) in [("hides", "[output]\nredact = true\n"), ("shows", "")] {
            let text = format!("extends = \"default\"\n[environment]\nallow = [\"API_TOKEN\"]\n{rest}");
            std::fs::write(server.policies().join(format!("{name}.toml")), text).unwrap();
        }
        server.person.own_all(&server.policies());
        let (daemon, ground) = (Daemon::start_at(server, &[]), Ground::new(mode.client()));
        for (policy, expected) in [("hides", "[redacted:API_TOKEN]"), ("shows", VALUE)] {
            let line = "printf 'it is '; sleep 0.2; printf %s ${API_TOKEN:0:9}; until [ -e go ]; do sleep 0.01; done; \
                        printf %s ${API_TOKEN:9}; echo .";
            let mut asked = ExecRequest { policy: policy.into(), detach: true, ..bash(&ground, line) };
            asked.environment.push(("API_TOKEN".into(), VALUE.into()));
            let mut run = Follower::of(&daemon, &ground, asked);
            run.follow(|run| run.output.starts_with(b"it is "));
            // Long enough for a silence behind its first half.
            wait_until(Duration::from_millis(500), || false);
            daemon.kill();
            run.follow(|_| false);
            daemon.start_again(&[]);
            run.come_back(&daemon);
            go(&ground);
            let (outcome, usage) = run.follow_to_the_end().clone();
            assert_eq!(outcome, Outcome::Exited { code: 0 });
            assert_eq!(String::from_utf8_lossy(&run.output), format!("it is {expected}.\n"), "{mode:?}");
            assert_eq!(usage.bytes_out, 8 + VALUE.len() as u64, "what it wrote, not what was shown");
            let text = core::mem::take(&mut run.output);
            run.end = None;
            run.come_back_from_the_start(&daemon);
            run.follow_to_the_end();
            assert_eq!(run.output, text, "{mode:?}: once more");
            run.acknowledge();
            std::fs::remove_file(ground.work().join("go")).unwrap();
        }
    }
}

#[test]
fn what_has_ended_while_no_daemon_was_there_is_told_with_its_true_end() {
    for (daemon, ground) in each() {
        let (made, word) = (ground.work().join("made"), marker("unseen"));
        let line = format!("echo before; sleep 0.5; echo after; touch made; exit 7 # {word}");
        let mut run = Follower::of(&daemon, &ground, bash(&ground, &line));
        run.follow(|run| !run.output.is_empty());
        daemon.kill();
        assert!(wait_until(SOON, || made.exists()), "it doesn't go on");
        assert!(wait_until(SOON, || left::with_word(&word).is_empty()), "it doesn't end");
        daemon.start_again(&[]);
        run.come_back(&daemon);
        let (outcome, usage) = run.follow_to_the_end().clone();
        assert_eq!(outcome, Outcome::Exited { code: 7 });
        assert!(usage.wall_us > 400_000, "{usage:?}");
        assert_eq!(usage.bytes_out, 13, "{usage:?}");
        assert_eq!(run.output, b"before\nafter\n");
        // Once more: it is kept until it's acknowledged, through another death, too.
        daemon.kill_and_start_again(&[]);
        let mut again = run;
        again.end = None;
        again.output.clear();
        again.come_back_from_the_start(&daemon);
        assert_eq!(again.follow_to_the_end().0, Outcome::Exited { code: 7 });
        assert_eq!(again.output, b"before\nafter\n");
        again.acknowledge();
        let listed = || Ended::of(daemon.ask(&ground, &["ps"])).text();
        assert!(wait_until(SOON, || !listed().contains(&again.exec_id.to_string())), "{}", listed());
    }
}

#[test]
fn limits_hold_while_no_daemon_is_there() {
    // Long enough for us to be there before, and of all at once.
    const LIMIT_MS: u64 = 6_000;
    let start = |(daemon, ground): (Daemon, Ground)| {
        let word = marker("unattended");
        let mut asked = bash(&ground, &format!("echo here; sleep 50; echo {word}"));
        asked.overrides = Overrides { wall_ms: Some(LIMIT_MS), ..Overrides::default() };
        let mut run = Follower::of(&daemon, &ground, asked);
        run.follow(|run| !run.output.is_empty());
        daemon.kill();
        assert!(!left::with_word(&word).is_empty(), "it died with the daemon");
        (daemon, ground, run, word)
    };
    let started: Vec<_> = each().map(start).collect();
    for (daemon, _ground, mut run, word) in started {
        assert!(wait_until(SOON, || left::with_word(&word).is_empty()), "it goes on");
        daemon.start_again(&[]);
        run.come_back(&daemon);
        assert_eq!(run.follow_to_the_end().0, Outcome::TimedOut { clock: Clock::Wall, limit_ms: LIMIT_MS });
        run.acknowledge();
    }
}

#[test]
fn a_stop_that_keeps_runs_ends_none_and_refuses_new_ones_until_the_next_daemon() {
    for mode in Mode::daemons_here() {
        let daemon = Daemon::start(mode.server(), &["--keep-runs"]);
        let ground = Ground::new(mode.client());
        let (line, text) = lines();
        let mut run = Follower::of(&daemon, &ground, bash(&ground, line));
        run.follow(|run| run.output.len() > 500);
        daemon.signal(Signal::TERM);
        assert!(daemon.ends_within(SOON), "{}", daemon.log());
        run.follow(|_| false);
        assert!(!daemon.socket.exists(), "nobody serves it");
        daemon.start_again(&[]);
        run.come_back(&daemon);
        go(&ground);
        assert_eq!(run.follow_to_the_end().0, Outcome::Exited { code: 3 });
        assert_eq!(String::from_utf8_lossy(&run.output), text);
        run.acknowledge();
        let after = Ended::of({
            let mut command = daemon.ask(&ground, &["run", "--policy", "default"]);
            command.args(["--", "echo", "after"]);
            command
        });
        after.expect_code(0).expect_text("after");
    }
}

#[test]
fn a_run_keeps_its_owner_its_policy_and_its_command() {
    for (daemon, ground) in each() {
        let word = marker("kept");
        let mut asked = request(&ground, "strict", &["bash", "-c", &format!("sleep 50; echo {word}")]);
        asked.detach = true;
        let run = Follower::of(&daemon, &ground, asked);
        let id = run.exec_id.to_string();
        let mine = || Ended::of(daemon.ask(&ground, &["ps", "--json"])).text();
        assert!(wait_until(SOON, || mine().contains("running")), "{}", mine());
        daemon.kill_and_start_again(&[]);
        let listed = mine();
        for word in [&id, "strict", &word, "running"] {
            assert!(listed.contains(word), "no {word} in {listed}");
        }
        if daemon.ground.person.is_root() && !ground.person.is_root() {
            // Root sees everybody's, and another user's own daemon would see none.
            let roots = Ground::new(daemon.ground.person);
            assert!(Ended::of(daemon.ask(&roots, &["ps"])).text().contains(&id));
        }
        Ended::of(daemon.ask(&ground, &["kill", &id])).expect_code(0);
        assert!(wait_until(SOON, || left::with_word(&word).is_empty()), "it can't be killed");
    }
}

#[test]
fn a_run_whose_input_the_daemon_was_writing_is_lost_and_sees_no_end_of_input() {
    for (daemon, ground) in each() {
        let made = ground.work().join("input-ended");
        let mut asked = bash(&ground, "cat; touch input-ended");
        asked.stdin = StdinMode::Stream;
        let mut run = Follower::of(&daemon, &ground, asked);
        let exec_id = run.exec_id;
        run.say(&ClientMessage::StdinData { exec_id, bytes: Bytes::from("half of it") });
        run.follow(|run| !run.output.is_empty());
        daemon.kill_and_start_again(&[]);
        run.come_back(&daemon);
        let (outcome, _) = run.follow_to_the_end();
        assert!(matches!(outcome, Outcome::Lost { reason } if reason.contains("input")), "{outcome:?}");
        assert!(!made.exists(), "it took the daemon's end for that of its input");
        run.acknowledge();
    }
}

#[test]
fn a_run_whose_input_was_written_whole_goes_on() {
    for (daemon, ground) in each() {
        let mut asked = bash(&ground, "cat; sleep 1; echo end");
        asked.stdin = StdinMode::Inline(Bytes::from("all of it\n"));
        let mut run = Follower::of(&daemon, &ground, asked);
        run.follow(|run| !run.output.is_empty());
        // That its input has been written whole the launcher is told right after the write: before anything else is answered.
        Ended::of(daemon.ask(&ground, &["status"])).expect_code(0);
        daemon.kill_and_start_again(&[]);
        run.come_back(&daemon);
        let (outcome, usage) = run.follow_to_the_end().clone();
        assert_eq!(outcome, Outcome::Exited { code: 0 });
        assert_eq!(usage.bytes_in, 10, "{usage:?}");
        assert_eq!(run.output, b"all of it\nend\n");
        run.acknowledge();
    }
}

#[test]
fn a_run_that_nobody_comes_back_for_ends_and_a_detached_one_does_not() {
    let mode = Mode::a_daemon();
    let (daemon, ground) = (Daemon::start(mode.server(), &[]), Ground::new(mode.client()));
    let (attached, detached) = (marker("attached"), marker("detached"));
    let with = |word: &str, detach| {
        let mut asked = bash(&ground, &format!("echo here; sleep 300; echo {word}"));
        asked.policy = "build".to_owned();
        asked.detach = detach;
        let mut run = Follower::of(&daemon, &ground, asked);
        run.follow(|run| !run.output.is_empty());
        run
    };
    let (one, other) = (with(&attached, false), with(&detached, true));
    daemon.kill_and_start_again(&[]);
    drop(one);
    std::thread::sleep(Duration::from_secs(20));
    assert!(!left::with_word(&attached).is_empty(), "its client had ten seconds more");
    assert!(wait_until(SOON, || left::with_word(&attached).is_empty()), "it goes on without a client");
    assert!(!left::with_word(&detached).is_empty(), "it needs no client");
    Ended::of(daemon.ask(&ground, &["kill", &other.exec_id.to_string()])).expect_code(0);
}

#[test]
fn what_waits_for_a_slot_waits_on_through_a_death_and_is_run_once() {
    for mode in Mode::daemons_here() {
        let slots = ["--slots", "1"];
        let (daemon, ground) = (Daemon::start(mode.server(), &slots), Ground::new(mode.client()));
        let count = ground.work().join("count");
        let line = "echo first; until [ -e go ]; do sleep 0.02; done; echo over";
        let mut first = Follower::of(&daemon, &ground, bash(&ground, line));
        first.follow(|run| !run.output.is_empty());
        let waits = || Follower::of(&daemon, &ground, bash(&ground, "echo ran >> count; echo second"));
        let (mut second, mut third) = (waits(), waits());
        let mut gone = waits();
        let exec_id = gone.exec_id;
        gone.say(&ClientMessage::Cancel { exec_id });
        assert_eq!(gone.follow_to_the_end().0, Outcome::Cancelled { reason: CancelReason::Asked });
        daemon.kill_and_start_again(&slots);
        assert!(!count.exists(), "it had no slot");
        go(&ground);
        for run in [&mut first, &mut second, &mut third] {
            run.come_back(&daemon);
        }
        for run in [&mut first, &mut second, &mut third] {
            assert_eq!(run.follow_to_the_end().0, Outcome::Exited { code: 0 });
            run.acknowledge();
        }
        assert_eq!(second.output, b"second\n");
        // Nobody has kept the one that was cancelled for later.
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(500));
            assert_eq!(std::fs::read_to_string(&count).unwrap(), "ran\nran\n");
            daemon.kill_and_start_again(&slots);
        }
    }
}

/// What passes through the daemon: all of it is there while the run waits, or a part of it.
#[test]
fn what_waits_with_its_input_goes_on_if_that_was_all_there_and_is_lost_if_not() {
    for mode in Mode::daemons_here() {
        let slots = ["--slots", "1"];
        let (daemon, ground) = (Daemon::start(mode.server(), &slots), Ground::new(mode.client()));
        let mut first = Follower::of(&daemon, &ground, bash(&ground, "until [ -e go ]; do sleep 0.02; done"));
        let waits = |stdin| {
            let asked = ExecRequest { stdin, ..bash(&ground, "echo ran >> count; cat") };
            Follower::of(&daemon, &ground, asked)
        };
        let mut inline = waits(StdinMode::Inline("inline".into()));
        let (mut whole, mut part) = (waits(StdinMode::Stream), waits(StdinMode::Stream));
        for run in [&mut whole, &mut part] {
            let exec_id = run.exec_id;
            run.say(&ClientMessage::StdinData { exec_id, bytes: "streamed".into() });
        }
        let exec_id = whole.exec_id;
        whole.say(&ClientMessage::StdinEof { exec_id });
        // What was said before a question has been heard when that is answered; what follows from it, after a few.
        for run in [&mut inline, &mut whole, &mut part] {
            for _ in 0..4 {
                run.question();
            }
        }
        daemon.kill_and_start_again(&slots);
        go(&ground);
        for run in [&mut first, &mut inline, &mut whole, &mut part] {
            run.come_back(&daemon);
            run.follow_to_the_end();
        }
        let end = |run: &Follower| run.end.clone().map(|(outcome, usage)| (outcome, usage.bytes_in));
        assert_eq!(end(&inline), Some((Outcome::Exited { code: 0 }, 6)), "{mode:?}");
        assert_eq!(end(&whole), Some((Outcome::Exited { code: 0 }, 8)), "{mode:?}");
        assert_eq!((inline.output.as_slice(), whole.output.as_slice()), (&b"inline"[..], &b"streamed"[..]));
        let reason = "its standard input came through the supervisor, which has ended".to_owned();
        assert_eq!(end(&part).map(|(outcome, _)| outcome), Some(Outcome::Lost { reason }), "{mode:?}");
        let count = std::fs::read_to_string(ground.work().join("count")).unwrap();
        assert_eq!(count, "ran\nran\n", "what was lost had no slot");
        for run in [&mut first, &mut inline, &mut whole, &mut part] {
            run.acknowledge();
        }
    }
}

#[test]
fn the_command_line_comes_back_by_itself_and_misses_nothing() {
    for mode in Mode::daemons_here() {
        let daemon = Daemon::start(mode.server(), &[]);
        let ground = Ground::new(mode.client());
        let (line, text) = lines();
        let follow = |words: &[&str]| {
            let mut command = daemon.ask(&ground, &["run", "--policy", "default"]);
            command.args(words).args(["--", "bash", "-c", line]);
            // No descriptor that could be passed: output comes over the socket, as an editor's does.
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            command.stdout(OwnedFd::from(theirs)).stderr(Stdio::piped()).stdin(Stdio::null());
            let child = command.spawn().unwrap();
            drop(command);
            (child, ours)
        };
        let (mut child, mut output) = follow(&[]);
        let mut came = vec![0; 600];
        output.read_exact(&mut came).unwrap();
        for _ in 0..2 {
            daemon.kill_and_start_again(&[]);
            std::thread::sleep(Duration::from_millis(200));
        }
        go(&ground);
        output.read_to_end(&mut came).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(3), "{mode:?}");
        assert_eq!(String::from_utf8_lossy(&came), text);
    }
}
