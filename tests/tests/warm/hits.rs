//! Which runs get a spare, and which never do.

use stockade_tests::{Mode, Person, left, not_tested, wait_until};

use crate::stage::{PATIENCE, Warm};

/// Runs `true` so that a spare waits, and fails the test if the next run gets it.
#[track_caller]
fn expect_miss<'a>(warm: &'a Warm, of: &'a Warm, run: impl FnOnce(&'a Warm) -> stockade_tests::Run<'a>) {
    warm.heat("default");
    let before = warm.counted();
    of.finish(run(of)).expect_code(0);
    let after = warm.counted();
    assert_eq!((after.hits, after.misses), (before.hits, before.misses + 1));
    assert!(!warm.spares().is_empty(), "the spare is gone");
}

#[test]
fn second_of_two_like_runs_is_a_hit_and_both_are_counted() {
    for warm in Warm::each() {
        let cold = warm.finish(warm.line("default", "echo cold"));
        cold.expect_code(0).expect_text("cold");
        let counts = warm.counted();
        assert_eq!((counts.templates, counts.hits, counts.misses), (1, 0, 1));
        for time in 1..=3 {
            warm.hit(warm.line("default", "echo warm; exit 3")).expect_code(3).expect_text("warm");
            let counts = warm.counted();
            assert_eq!((counts.templates, counts.hits, counts.misses), (1, time, 1));
        }
    }
}

#[test]
fn embedded_run_takes_no_spare() {
    for warm in Warm::each() {
        warm.heat("default");
        let (before, spares) = (warm.counted(), warm.spares());
        let mut command = warm.ground().stockade();
        command.args(["run", "--embedded", "--", "true"]);
        stockade_tests::Ended::of(command).expect_code(0);
        assert_eq!(warm.spares(), spares);
        let after = warm.recount();
        assert_eq!((after.hits, after.misses), (before.hits, before.misses));
    }
}

#[test]
fn run_with_an_override_gets_no_spare_of_one_without() {
    for warm in Warm::each() {
        let memory = ["--memory", "100MiB"];
        expect_miss(&warm, &warm, |warm| warm.setting.run("default").option(&memory).words(["true"]));
        expect_miss(&warm, &warm, |warm| {
            warm.setting.run("default").option(&["--timeout", "9s"]).words(["true"])
        });
    }
}

#[test]
fn run_under_another_policy_gets_no_spare_of_the_first() {
    for warm in Warm::each() {
        expect_miss(&warm, &warm, |warm| warm.setting.run("test-idle").words(["true"]));
    }
}

#[test]
fn run_in_another_workspace_gets_no_spare_of_the_first() {
    for warm in Warm::each() {
        let other = warm.beside(warm.setting.mode);
        expect_miss(&warm, &other, |other| other.setting.run("default").words(["true"]));
        // The same one, deeper.
        let deep = warm.ground().put("deep/file", "x");
        let deep = deep.parent().unwrap();
        expect_miss(&warm, &warm, |warm| warm.setting.run("default").within(deep).words(["true"]));
    }
}

#[test]
fn run_of_another_owner_gets_no_spare_even_in_the_same_workspace() {
    if !Person::me().is_root() {
        return not_tested("spares of two owners", "only root's daemon serves two users");
    }
    let users = Warm::new(Mode::RootDaemonForUser);
    let roots = users.beside(Mode::RootDaemonForRoot);
    let work = users.ground().work();
    expect_miss(&users, &roots, |roots| roots.setting.run("default").within(&work).words(["true"]));
}

#[test]
fn level_without_namespaces_keeps_no_spare() {
    for warm in Warm::each() {
        for run in 1..=3 {
            warm.finish(warm.setting.run("minimal").words(["true"])).expect_code(0);
            let counts = warm.counted();
            assert_eq!((counts.hits, counts.misses, counts.parked), (0, run, 0));
        }
        let gone = wait_until(PATIENCE, || warm.named("stockade-init").is_empty());
        assert!(gone, "{:?}", warm.named("stockade-init"));
        assert_eq!(warm.recount().parked, 0);
    }
}

#[test]
fn policy_that_denies_what_is_not_there_keeps_no_spare_and_no_ghost() {
    for warm in Warm::each() {
        for run in 1..=3 {
            let line = "(echo x > future.txt) 2>/dev/null && echo PASSED; true";
            warm.finish(warm.line("test-deny", line)).expect_code(0).expect_text("");
            let counts = warm.counted();
            assert_eq!((counts.hits, counts.misses, counts.parked), (0, run, 0));
            assert_eq!(left::names(&warm.ground().work()), [].into());
        }
        assert_eq!(warm.recount().parked, 0);
        assert!(warm.spares().is_empty());
        assert_eq!(left::names(&warm.ground().work()), [].into());
    }
}

#[test]
fn run_after_a_reload_has_the_new_rules_though_a_spare_of_the_old_ones_waits() {
    for warm in Warm::each() {
        let daemon = warm.daemon();
        let put = |files: u32| {
            let text = format!(
                "name = \"test-new\"\ndescription = \"new\"\nextends = \"default\"\n[limits]\nopen-files = {files}\n"
            );
            std::fs::write(daemon.ground.policies().join("test-new.toml"), text).unwrap();
            daemon.ground.person.own_all(&daemon.ground.policies());
            let told = daemon.log().matches("policies reloaded").count();
            daemon.signal(rustix::process::Signal::HUP);
            let reloaded = || daemon.log().matches("policies reloaded").count() > told;
            assert!(wait_until(PATIENCE, reloaded), "{}", daemon.log());
        };
        put(71);
        warm.heat("test-new");
        warm.hit(warm.line("test-new", "ulimit -n")).expect_text("71");
        assert!(wait_until(PATIENCE, || !warm.spares().is_empty()));
        let old = warm.spares();
        put(72);
        assert_eq!(left::alive(&old), old, "the old rules' spare is to wait beside");
        warm.finish(warm.line("test-new", "ulimit -n")).expect_text("72");
        let anew = || warm.spares().iter().any(|spare| !old.contains(spare));
        assert!(wait_until(PATIENCE, anew), "{:?}", warm.counts());
        warm.hit(warm.line("test-new", "ulimit -n")).expect_text("72");
    }
}
