//! What doesn't want to end: each ends with the right status, and nothing of it is alive shortly after.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

use std::time::Duration;

use stockade_tests::setting::{Ended, marker};
use stockade_tests::{Setting, left, wait_until};

/// Nothing with the word stays alive after the client's end. How long it takes to die is measured by the benchmark: here a machine may
/// be as busy as it likes.
#[track_caller]
fn expect_nothing_alive(ended: &Ended, word: &str) {
    let mut alive = Vec::new();
    let gone = wait_until(Duration::from_secs(60), || {
        alive = left::with_word(word).into_iter().filter(|process| process.state != 'Z').collect();
        alive.is_empty()
    });
    assert!(gone, "still alive: {alive:#?}\nof {}", ended.story());
}

#[test]
fn fork_bomb_ends_as_too_many_processes() {
    for setting in Setting::each() {
        let word = marker("fork-bomb");
        let ended = setting.run("default").words(["perl", "-e", "fork while 1", &word]).finish();
        ended.expect_code(125).expect_errors(&["processes"]);
        expect_nothing_alive(&ended, &word);
    }
}

#[test]
fn fork_bomb_that_renews_itself_ends_as_too_many_processes() {
    for setting in Setting::each() {
        let word = marker("shell-bomb");
        let line = format!("bomb() {{ bomb | bomb & }}; bomb; sleep 20; : {word}");
        let ended = setting.bash("default", &line);
        ended.expect_code(125).expect_errors(&["processes"]);
        expect_nothing_alive(&ended, &word);
    }
}

#[test]
fn thread_bomb_is_stopped_by_the_kernels_cap_or_ends_as_too_many_processes() {
    for setting in Setting::each() {
        let word = marker("thread-bomb");
        let probe = setting.ground.put_probe();
        let ended =
            setting.run("default").words([probe.to_str().unwrap(), "threads", "3000", &word]).finish();
        // Refused by the cap above the limit it may be gone before the monitor looks.
        let capped = ended.code == Some(0) && ended.text().contains("EAGAIN");
        assert!(capped || ended.code == Some(125), "{}", ended.story());
        expect_nothing_alive(&ended, &word);
    }
}

#[test]
fn allocation_of_ten_gigabytes_ends_with_137() {
    for setting in Setting::each() {
        let word = marker("hog");
        let probe = setting.ground.put_probe();
        let words = [probe.to_str().unwrap(), "allocate", "10240", &word];
        let ended = setting.run("default").words(words).finish();
        ended.expect_code(137).expect_errors(&["memory", "512"]);
        expect_nothing_alive(&ended, &word);
    }
}

#[test]
fn allocation_spread_over_many_processes_ends_with_137() {
    for setting in Setting::each() {
        let word = marker("hogs");
        let hog = "perl -e '$x = \"x\" x (40 << 20); sleep 20'";
        let line = format!("for i in $(seq 30); do {hog} {word} & done; sleep 20");
        let ended = setting.bash("default", &line);
        ended.expect_code(137).expect_errors(&["memory"]);
        expect_nothing_alive(&ended, &word);
    }
}

#[test]
fn temporary_files_count_as_memory_or_are_bounded() {
    for setting in Setting::each() {
        let probe = setting.ground.put_probe();
        let words = [probe.to_str().unwrap(), "fill", "/tmp/fill", "4096"];
        let ended = setting.run("default").words(words).finish();
        let bounded = ended.text().contains("ENOSPC") || ended.text().contains("EFBIG");
        assert!(ended.code == Some(137) || bounded, "{}", ended.story());
        assert!(!std::path::Path::new("/tmp/fill").exists());
    }
}

#[test]
fn output_of_ten_gigabytes_ends_at_the_limit() {
    for setting in Setting::each() {
        let word = marker("flood");
        let probe = setting.ground.put_probe();
        let ended = setting.run("default").words([probe.to_str().unwrap(), "flood", "10240", &word]).finish();
        ended.expect_code(125).expect_errors(&["output"]);
        assert_eq!(ended.stdout.len(), 16 * 1024 * 1024, "{:?}", setting.mode);
        expect_nothing_alive(&ended, &word);
    }
}

#[test]
fn sleeper_that_ignores_termination_ends_at_its_deadline() {
    for setting in Setting::each() {
        let word = marker("sleeper");
        let line = format!("trap '' TERM INT HUP QUIT; while :; do sleep 1000; done; : {word}");
        let ended = setting.bash("test-second", &line);
        ended.expect_code(124);
        expect_nothing_alive(&ended, &word);
    }
}

#[test]
fn limits_hold_while_orphans_die_without_a_pause() {
    for setting in Setting::each() {
        let word = marker("orphans");
        let line = format!("for i in 1 2 3 4; do (while :; do (true &); done) & done; wait; : {word}");
        let ended = setting.bash("test-second", &line);
        ended.expect_code(124);
        expect_nothing_alive(&ended, &word);
    }
}

#[test]
fn daemon_that_forked_twice_ends_with_its_run() {
    let code = "use POSIX; exit 0 if fork; POSIX::setsid(); exit 0 if fork; \
                open STDIN, '</dev/null'; open STDOUT, '>/dev/null'; open STDERR, '>/dev/null'; sleep 1000";
    for setting in Setting::each() {
        let word = marker("daemon");
        let line = format!("perl -e '{}' {word}; sleep 0.2; echo done", code.replace('\'', "'\\''"));
        let ended = setting.bash("default", &line);
        ended.expect_code(0).expect_text("done");
        expect_nothing_alive(&ended, &word);
    }
}

#[test]
fn grandchild_that_holds_the_output_does_not_keep_the_run() {
    for setting in Setting::each() {
        let word = marker("holder");
        let ended = setting.bash("default", &format!("setsid sleep 1000 & echo done; : {word}"));
        ended.expect_code(0).expect_text("done");
        expect_nothing_alive(&ended, &word);
    }
}

#[test]
fn spinner_without_descriptors_ends_at_its_deadline() {
    for setting in Setting::each() {
        let word = marker("spinner");
        let code = "POSIX::close($_) for 0..64; 1 while 1";
        let ended = setting.run("test-second").words(["perl", "-MPOSIX", "-e", code, &word]).finish();
        ended.expect_code(124);
        expect_nothing_alive(&ended, &word);
    }
}

#[test]
fn stopped_tree_ends_at_its_deadline() {
    for setting in Setting::each() {
        let word = marker("stopped");
        let ended = setting.bash("test-second", &format!("sleep 1000 & kill -STOP $! $$; : {word}"));
        ended.expect_code(124);
        expect_nothing_alive(&ended, &word);
    }
}

#[test]
fn flood_of_zombies_is_reaped_or_ends_as_too_many_processes() {
    for setting in Setting::each() {
        let word = marker("zombies");
        // Each child forks and exits at once: its child is init's to reap.
        let code =
            "for (1..2000) { my $p = fork; if (!$p) { exit 0 if fork; exit 0 } waitpid $p, 0 } print 'fine'";
        let ended = setting.run("default").words(["perl", "-e", code, &word]).finish();
        if ended.code == Some(125) {
            // On a busy machine they may come faster than they are reaped.
            ended.expect_errors(&["processes"]);
        } else {
            ended.expect_code(0).expect_text("fine");
        }
        expect_nothing_alive(&ended, &word);
    }
}

#[test]
fn killing_everything_from_inside_hurts_only_the_run() {
    for setting in Setting::each() {
        let ended = setting.bash("default", "kill -9 -1; kill -9 1; kill -STOP 1; echo still");
        ended.expect_code(0).expect_text("still");
        setting.bash("default", "echo next").expect_code(0).expect_text("next");
    }
}
