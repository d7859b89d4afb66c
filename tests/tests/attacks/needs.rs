//! What every run is and has, and that what honest programs need is met.

use stockade_tests::{Ended, Setting};

#[test]
fn run_has_no_capability_and_cannot_gain_any() {
    for setting in Setting::each() {
        let probe = stockade_tests::setting::text_of(&setting.ground.put_probe());
        for policy in ["default", "moderate", "minimal"] {
            let words = [probe.as_str(), "capabilities"];
            let ended = crate::tries::finish(|| setting.run(policy).words(words));
            ended.expect_code(0);
            let text = ended.text();
            let sets: Vec<&str> = text.split_whitespace().filter_map(|word| word.split('=').nth(1)).collect();
            assert_eq!(sets.len(), 5, "{}", ended.story());
            // Without privilege the bounding set can't be dropped at the level without namespaces.
            let bound = if policy == "minimal" && !setting.mode.is_system() { 4 } else { 5 };
            let is_empty = |set: &&str| set.bytes().all(|digit| digit == b'0');
            assert!(sets.iter().filter(|set| is_empty(set)).count() >= bound, "{policy}: {}", ended.story());
            for (line, value) in [("NoNewPrivs", "1"), ("Seccomp", "2")] {
                let words = [probe.as_str(), "status", line];
                let ended = crate::tries::finish(|| setting.run(policy).words(words));
                ended.expect_code(0).expect_text(&format!("status ok {value}"));
            }
        }
    }
}

#[test]
fn run_inherits_no_descriptor_but_the_standard_three() {
    for setting in Setting::each() {
        let probe = setting.ground.put_probe();
        let mut run = setting.run("default").words([probe.to_str().unwrap(), "descriptors"]).into_command();
        let words: Vec<_> =
            std::iter::once(run.get_program()).chain(run.get_args()).map(ToOwned::to_owned).collect();
        let outside = setting.ground.outside();
        let mut shell = setting.ground.command("bash");
        shell.args(["-c", "exec 7<\"$0\" 9<\"$0\" 33</etc/hostname; exec \"$@\""]).arg(&outside).args(words);
        run = shell;
        Ended::of(run).expect_code(0).expect_text("descriptors ok 0 1 2");
    }
}

#[test]
fn run_sees_its_own_processes_only() {
    for setting in Setting::each() {
        let probe = setting.ground.put_probe();
        for policy in ["default", "moderate"] {
            let ended = setting.run(policy).words([probe.to_str().unwrap(), "processes"]).finish();
            ended.expect_code(0);
            let count: u32 = ended.text().trim_start_matches("processes ok ").parse().unwrap();
            assert!(count <= 3, "{}", ended.story());
        }
    }
}

#[test]
fn run_without_network_sees_loopback_only() {
    for setting in Setting::each() {
        let probe = setting.ground.put_probe();
        let ended = setting.run("default").words([probe.to_str().unwrap(), "interfaces"]).finish();
        ended.expect_code(0);
        let seen = ended.text();
        assert!(seen == "interfaces ok lo" || seen.contains("errno="), "{}", ended.story());
    }
}

#[test]
fn innocent_needs_are_met() {
    for setting in Setting::each() {
        let probe = stockade_tests::setting::text_of(&setting.ground.put_probe());
        let lines = [
            ("default", vec!["unix-pair", "/dev/shm/here.sock"], "unix-pair ok hello"),
            ("loopback", vec!["loopback-pair"], "loopback-pair ok hello"),
            ("default", vec!["threads", "50"], "threads ok 50"),
            ("default", vec!["make-fifo", "/dev/shm/fifo"], "make-fifo ok"),
            ("default", vec!["watchers", "2"], "watchers ok 2"),
            ("default", vec!["terminals", "100"], "terminals ok 100"),
            ("default", vec!["timers", "400"], "timers ok 400"),
            ("default", vec!["files", "900"], "files ok 900"),
            ("default", vec!["read-by-link", "mine"], "read-by-link ok x"),
            ("default", vec!["reopen-standard", "1"], "reopen-standard ok"),
            ("strict", vec!["read", "mine"], "read ok x"),
            ("moderate", vec!["create", "made"], "create ok"),
            ("minimal", vec!["create", "made2"], "create ok"),
            ("minimal", vec!["rename", "made2", "made3"], "rename ok"),
            ("default", vec!["create-mode", "file", "755"], "create-mode ok mode=755"),
            ("default", vec!["allocate", "100"], "allocate ok 100"),
            ("default", vec!["set-attribute", "mine", "user.x"], "set-attribute ok"),
            ("default", vec!["watch", "mine"], "watch ok"),
            ("default", vec!["rename-exchange", "mine", "yours"], "rename-exchange ok"),
            ("default", vec!["run-from-memory", "/bin/true"], ""),
        ];
        setting.ground.put("mine", "x");
        setting.ground.put("yours", "y");
        for (policy, words, text) in lines {
            let words: Vec<&str> = std::iter::once(probe.as_str()).chain(words).collect();
            let ended = crate::tries::finish(|| setting.run(policy).words(&words));
            ended.expect_code(0).expect_text(text);
        }
    }
}
