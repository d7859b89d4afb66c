//! What the host changes while a spare waits is what the next run finds.

use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use stockade_protocol::client::ClientMessage;
use stockade_tests::wire::{self, Wire};
use stockade_tests::{left, wait_until};

use crate::stage::{PATIENCE, Warm};

/// A spare waits, and has seen everything as it was.
#[track_caller]
fn parked(policy: &str) -> impl Iterator<Item = (Warm, Vec<left::Process>)> {
    let policy = policy.to_owned();
    Warm::each().map(move |warm| {
        warm.heat(&policy);
        let spares = warm.spares();
        assert!(!spares.is_empty());
        (warm, spares)
    })
}

/// The spares that waited were given back: none of them ran anything for its client, and others wait.
#[track_caller]
fn expect_replaced(warm: &Warm, spares: &[left::Process]) {
    crate::stage::expect_gone(spares);
    warm.recount();
    warm.heat("default");
}

#[test]
fn repository_that_came_to_be_while_a_spare_waited_is_protected() {
    for (warm, spares) in parked("default") {
        let before = warm.counted();
        warm.ground().put(".git/config", "[core]\n");
        warm.ground().put(".git/hooks/pre-commit.sample", "sample\n");
        warm.ground().put(".git/HEAD", "ref: refs/heads/main\n");
        let line = "for try in 'echo theirs >> .git/config' 'echo theirs > .git/hooks/pre-commit' \
                    'mv .git .git2' 'rm -rf .git/hooks' 'mv .git/hooks .git/old'; do \
                    (eval \"$try\") 2>/dev/null && echo \"PASSED $try\"; done; cat .git/config; echo done";
        let ended = warm.finish(warm.line("default", line));
        ended.expect_code(0).expect_text("[core]\ndone");
        let work = warm.ground().work();
        assert_eq!(
            std::fs::read_to_string(work.join(".git/config")).unwrap(),
            "[core]\n",
            "{}",
            ended.story()
        );
        assert!(!work.join(".git/hooks/pre-commit").exists(), "{}", ended.story());
        let after = warm.recount();
        // Nothing told the launcher of it: the spare itself found that it was stale, after it was given out.
        assert!(after.hits > before.hits, "no spare was tried: {after:?}");
        assert!(
            after.hits + after.misses > before.hits + before.misses + 1,
            "no spare was given back: {after:?}"
        );
        expect_replaced(&warm, &spares);
        let ended = warm.hit(warm.line("default", line));
        ended.expect_code(0).expect_text("[core]\ndone");
    }
}

#[test]
fn every_kind_of_trusted_file_that_came_to_be_while_a_spare_waited_is_protected() {
    for (warm, _) in parked("default") {
        for name in [".bashrc", ".vscode/tasks.json", ".envrc", ".stockade/policy.toml", ".cargo/config.toml"]
        {
            warm.heat("default");
            warm.ground().put(name, "mine\n");
            let line = format!(
                "(echo theirs > {name}) 2>/dev/null && echo PASSED; (rm -f {name}) 2>/dev/null; true"
            );
            warm.finish(warm.line("default", &line)).expect_code(0).expect_text("");
            let found = std::fs::read_to_string(warm.ground().work().join(name));
            assert_eq!(found.ok().as_deref(), Some("mine\n"), "{name}");
            warm.recount();
        }
    }
}

/// A new file renamed over an old one, as an editor does it.
fn replace(warm: &Warm, name: &str, text: &str) {
    let new = warm.ground().put("swap", text);
    std::fs::rename(new, warm.ground().work().join(name)).unwrap();
}

#[test]
fn protected_file_that_was_replaced_while_a_spare_waited_is_protected() {
    for warm in Warm::each() {
        warm.ground().put(".bashrc", "old\n");
        warm.heat("default");
        let spares = warm.spares();
        replace(&warm, ".bashrc", "mine\n");
        let line =
            "(echo theirs > .bashrc) 2>/dev/null && echo PASSED; (mv .bashrc away) 2>/dev/null; cat .bashrc";
        warm.finish(warm.line("default", line)).expect_text("mine");
        assert_eq!(std::fs::read_to_string(warm.ground().work().join(".bashrc")).unwrap(), "mine\n");
        expect_replaced(&warm, &spares);
        warm.hit(warm.line("default", line)).expect_text("mine");
    }
}

#[test]
fn protected_file_that_was_removed_and_made_again_while_a_spare_waited_is_protected() {
    for warm in Warm::each() {
        warm.ground().put(".git/config", "old\n");
        warm.heat("default");
        let spares = warm.spares();
        std::fs::remove_dir_all(warm.ground().work().join(".git")).unwrap();
        warm.ground().put(".git/config", "mine\n");
        let line = "(echo theirs > .git/config) 2>/dev/null && echo PASSED; (mv .git away) 2>/dev/null; cat .git/config";
        warm.finish(warm.line("default", line)).expect_text("mine");
        expect_replaced(&warm, &spares);
        warm.hit(warm.line("default", line)).expect_text("mine");
    }
}

#[test]
fn workspace_that_was_replaced_by_another_of_its_name_is_the_new_one() {
    for warm in Warm::each() {
        warm.ground().put("which", "old\n");
        warm.heat("default");
        warm.hit(warm.line("default", "cat which")).expect_text("old");
        let (work, away): (PathBuf, PathBuf) = (warm.ground().work(), warm.ground().base().join("away"));
        std::fs::rename(&work, &away).unwrap();
        std::fs::create_dir(&work).unwrap();
        warm.ground().put("which", "new\n");
        for _ in 0..2 {
            let ended = warm.finish(warm.line("default", "cat which; echo made > made"));
            ended.expect_code(0).expect_text("new");
            assert_eq!(std::fs::read_to_string(work.join("made")).unwrap(), "made\n");
            assert!(!away.join("made").exists());
        }
        // And back again: that the old one's template may still be there must not matter.
        std::fs::rename(&work, warm.ground().base().join("new")).unwrap();
        std::fs::rename(&away, &work).unwrap();
        warm.finish(warm.line("default", "cat which")).expect_code(0).expect_text("old");
        warm.recount();
    }
}

#[test]
fn files_that_the_host_made_changed_or_removed_while_a_spare_waited_are_so_in_the_next_run() {
    for warm in Warm::each() {
        warm.ground().put("changed", "old");
        warm.ground().put("replaced", "old");
        warm.ground().put("removed", "old");
        warm.heat("default");
        warm.ground().put("added", "new");
        warm.ground().put("folder/added", "new");
        warm.ground().put("changed", "new");
        replace(&warm, "replaced", "new");
        std::fs::remove_file(warm.ground().work().join("removed")).unwrap();
        let ended = warm.hit(warm.line("default", "cat added folder/added changed replaced; ls"));
        ended.expect_code(0).expect_text("newnewnewnewadded\nchanged\nfolder\nreplaced");
    }
}

#[test]
fn run_of_a_workspace_that_is_gone_fails_and_leaves_nothing() {
    for (warm, _) in parked("default") {
        let away = warm.ground().base().join("away");
        std::fs::rename(warm.ground().work(), &away).unwrap();
        let words = ["run", "--policy", "default", "--workspace"];
        let mut command = warm.setting.ask(&words);
        command.arg(warm.ground().work()).args(["--", "true"]).current_dir(warm.ground().base());
        assert_eq!(stockade_tests::Ended::of(command).code, Some(125));
        std::fs::rename(&away, warm.ground().work()).unwrap();
        warm.recount();
        assert!(wait_until(PATIENCE, || !warm.spares().is_empty()) || warm.templates().is_empty());
    }
}

#[test]
fn repository_that_came_to_be_just_before_a_run_was_asked_for_is_protected() {
    // The spare is made while the first run of a round goes on and after it: whatever it had looked up by then counts
    // for nothing, since the repository is there before the second is asked for.
    const ROUNDS: u32 = 60;
    for warm in Warm::each() {
        let ground = warm.ground();
        let (git, away) = (ground.work().join(".git"), ground.base().join("away"));
        std::fs::create_dir(&away).unwrap();
        std::fs::write(away.join("config"), "[core]\n").unwrap();
        ground.person.own_all(&away);
        let mut wire = Wire::greeted(warm.daemon(), ground.person);
        let work = wire::workspace(ground);
        let before = warm.counts();
        for round in 0..ROUNDS {
            let _ = wire.run(wire::request(ground, "default", &["true"]), &work);
            std::thread::sleep(Duration::from_micros(u64::from(round) * 100));
            std::fs::rename(&away, &git).unwrap();
            let line = "echo theirs > .git/config";
            let _ = wire.run(wire::request(ground, "default", &["sh", "-c", line]), &work);
            let config = std::fs::read_to_string(git.join("config")).unwrap();
            assert_eq!(config, "[core]\n", "{:?}, round {round}", warm.setting.mode);
            std::fs::rename(&git, &away).unwrap();
        }
        let after = warm.recount();
        assert!(after.hits > before.hits, "no run was warm: {after:?}");
        // Spares that could not be made, since the tree changed under them, were no reason to make no more.
        warm.heat("default");
    }
}

#[test]
fn protected_file_that_was_replaced_just_before_a_run_was_asked_for_is_protected() {
    const ROUNDS: u32 = 60;
    for warm in Warm::each() {
        let ground = warm.ground();
        ground.put(".bashrc", "old\n");
        let mut wire = Wire::greeted(warm.daemon(), ground.person);
        let work = wire::workspace(ground);
        for round in 0..ROUNDS {
            let swap = ground.put("swap", "mine\n");
            let _ = wire.run(wire::request(ground, "default", &["true"]), &work);
            std::thread::sleep(Duration::from_micros(u64::from(round) * 100));
            std::fs::rename(&swap, ground.work().join(".bashrc")).unwrap();
            let line = "(echo theirs > .bashrc) 2>/dev/null; exit 7";
            let events = wire.run(wire::request(ground, "default", &["sh", "-c", line]), &work);
            let found = std::fs::read_to_string(ground.work().join(".bashrc")).unwrap();
            assert_eq!(found, "mine\n", "{:?}, round {round}", warm.setting.mode);
            let last = format!("{:?}", events.last());
            assert!(last.contains("code: 7"), "{:?}, round {round}: {last}", warm.setting.mode);
        }
        warm.recount();
    }
}

/// A launcher that hears of a request and of the change before it at once takes note of the change first.
#[test]
fn spare_whose_guard_went_while_the_launcher_was_busy_is_not_given_out() {
    for warm in Warm::each() {
        let ground = warm.ground();
        ground.put(".bashrc", "old\n");
        let swap = ground.put("swap", "mine\n");
        warm.heat("default");
        let work = wire::workspace(ground);
        let ask = |words: &[&str]| {
            let mut wire = Wire::greeted(warm.daemon(), ground.person);
            let request = Box::new(wire::request(ground, "default", words));
            wire.send(&ClientMessage::Exec(request), &[work.as_fd()]);
            // Its launch has left then.
            let _ = wire.accepted();
            wire
        };
        let launcher = Pid::from_raw(i32::try_from(warm.launcher()).unwrap()).unwrap();
        kill_process(launcher, Signal::STOP).unwrap();
        // In the poller's queue the first request stands before the change.
        let mut first = ask(&["true"]);
        std::fs::rename(&swap, ground.work().join(".bashrc")).unwrap();
        let mut second = ask(&["sh", "-c", "(echo theirs > .bashrc) 2>/dev/null; exit 7"]);
        kill_process(launcher, Signal::CONT).unwrap();
        for (wire, code) in [(&mut first, "code: 0"), (&mut second, "code: 7")] {
            let last = format!("{:?}", wire.follow().last());
            assert!(last.contains(code), "{:?}: {last}", warm.setting.mode);
        }
        assert_eq!(std::fs::read_to_string(ground.work().join(".bashrc")).unwrap(), "mine\n");
        warm.recount();
    }
}

#[test]
fn tool_whose_spare_was_stale_has_its_output_its_input_and_its_status() {
    for (warm, _) in parked("default") {
        warm.ground().put(".git/config", "[core]\n");
        // By its name, too: the pipes have to be the worker's that runs it in the end.
        let line = "cat; echo out; echo named > /dev/stdout; echo err >&2; echo named > /dev/stderr; exit 7";
        let ended = warm.finish(warm.line("default", line).input("in\n"));
        ended.expect_code(7).expect_text("in\nout\nnamed");
        assert_eq!(ended.errors(), "err\nnamed", "{}", ended.story());
        warm.recount();
    }
}
