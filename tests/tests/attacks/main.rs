//! Attacks in pairs: each is stopped inside under every policy that promises it, in every mode, and possible
//! outside, tried by the same probe.
//!
//! All attacks of one group are tried in one run, each in a process of its own; a group fails with every attack
//! that got through. An attack that the machine itself refuses outside proves nothing here: its twin is said by name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

mod stage;
mod table;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use stage::Stage;
use stockade_tests::{Ended, Ground, Person, Setting, not_tested};
use table::{Attack, How, Outside};

const PERL: &str = "use POSIX (); $| = 1; sub a { my ($r) = @_; \
                    print $r == -1 ? 'errno=' . ($! + 0) . \"\\n\" : \"ok $r\\n\" } ";

/// The script that tries each attack in a process of its own and says what came of it.
fn script(attacks: &[&Attack], stage: &Stage, ground: &Ground) -> String {
    let mut text = String::from("cd \"$(dirname \"$0\")\"\n");
    for attack in attacks {
        let quoted = |code: &str| format!("'{}'", stage.fill(ground, code).replace('\'', "'\\''"));
        let command = match attack.how {
            How::Probe(words) => {
                format!("{} {}", ground.work().join("probe").display(), stage.fill(ground, words))
            }
            How::Perl(code) => format!("perl -e {}", quoted(&format!("{PERL}{code}"))),
            How::Python(code) if code.starts_with("NUMBER") => {
                let code = format!("{code}{}", table::AFTER_NUMBER);
                format!("/usr/bin/python3 -c {}", quoted(&code))
            }
            How::Python(code) => format!("/usr/bin/python3 -c {}", quoted(code)),
            How::Shell(code) => format!("if bash -c {}; then echo ok; else echo failed; fi", quoted(code)),
        };
        let _ = write!(text, "echo '@@ {}'\n({command}) 2>&1 </dev/null\necho \"@= $?\"\n", attack.name);
    }
    text
}

/// The answers of a script by attack.
fn answers(output: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for part in output.split("@@ ").skip(1) {
        let (name, rest) = part.split_once('\n').unwrap_or((part, ""));
        let (said, status) = rest.rsplit_once("@= ").unwrap_or((rest, "?"));
        let known = |word: &&str| ["ok", "failed", "not-so"].contains(word) || word.starts_with("errno=");
        let word = said.split_whitespace().rev().find(known).map(str::to_owned);
        let killed = status.trim().parse::<u32>().is_ok_and(|status| (129..=192).contains(&status));
        let answer = match word {
            Some(word) => word,
            None if killed => "killed".to_owned(),
            None => format!("said {said:?}, status {}", status.trim()),
        };
        found.insert(name.to_owned(), answer);
    }
    found
}

/// Writes the script where the client's workspace is, with the probe and a file of one's own.
fn furnish(ground: &Ground, text: &str) -> String {
    let _ = ground.put_probe();
    ground.put("mine", "mine\n");
    stockade_tests::setting::text_of(&ground.put("try.sh", text))
}

/// Each attack of a group, under every policy that promises to stop it, in every mode.
fn expect_stopped(group: &[Attack]) {
    if cfg!(not(target_arch = "x86_64")) {
        not_tested("attacks by system call number", "the table has the numbers of x86-64");
        return;
    }
    let mut through = Vec::new();
    for policy in ["strict", "default", "loopback", "moderate", "minimal"] {
        let attacks: Vec<&Attack> = group.iter().filter(|attack| attack.policies.contains(&policy)).collect();
        if attacks.is_empty() {
            continue;
        }
        for setting in Setting::each() {
            let mut stage = Stage::new(&setting.ground);
            let path = furnish(&setting.ground, &script(&attacks, &stage, &setting.ground));
            let ended = setting.run(policy).words(["bash", &path]).finish();
            let found = answers(&ended.text());
            for attack in &attacks {
                let answer = found.get(attack.name).map_or("no answer", String::as_str);
                if !attack.inside.contains(&answer) {
                    let (mode, layer) = (setting.mode, attack.layer);
                    through.push(format!("{policy}, {mode:?}: {} ({layer}): {answer}", attack.name));
                }
            }
            if found.is_empty() {
                through.push(ended.story());
            }
            stage.expect_untouched(&setting.ground, &ended.story());
        }
    }
    assert!(through.is_empty(), "{} not stopped:\n{}", through.len(), through.join("\n"));
}

/// The twins: without the sandbox each attack's answer is another one.
fn expect_possible_outside(group: &[Attack]) {
    let mut possible = 0;
    for outside in [Outside::Caller, Outside::Root] {
        let person = if outside == Outside::Root { Person::me() } else { Person::user() };
        for attack in group.iter().filter(|attack| attack.outside == outside) {
            let twin = format!("twin of {}", attack.name);
            if outside == Outside::Root && !person.is_root() {
                not_tested(&twin, "outside it needs root");
                continue;
            }
            let ground = Ground::new(person);
            let stage = Stage::new(&ground);
            let path = furnish(&ground, &script(&[attack], &stage, &ground));
            let mut command = ground.command("bash");
            command.arg(&path);
            let ended = Ended::of(command);
            let found = answers(&ended.text());
            let answer = found.get(attack.name).map_or("no answer", String::as_str);
            if attack.inside.contains(&answer) {
                not_tested(&twin, &format!("this machine refuses it outside, too: {answer}"));
            } else {
                assert!(!answer.starts_with("said") && answer != "no answer", "{twin}: {}", ended.story());
                possible += 1;
            }
        }
    }
    assert!(possible > 0, "no attack of the group is possible outside: the group proves nothing here");
}

#[test]
fn system_calls_that_give_power_are_refused_inside() {
    expect_stopped(table::SYSTEM_CALLS);
}

#[test]
fn system_calls_that_give_power_are_answered_outside() {
    expect_possible_outside(table::SYSTEM_CALLS);
}

#[test]
fn bits_and_nodes_that_give_privilege_are_refused_inside() {
    expect_stopped(table::PRIVILEGE_BITS);
}

#[test]
fn bits_and_nodes_that_give_privilege_are_possible_outside() {
    expect_possible_outside(table::PRIVILEGE_BITS);
}

#[test]
fn files_that_no_policy_names_are_out_of_reach_inside() {
    expect_stopped(table::FILESYSTEM);
}

#[test]
fn files_that_no_policy_names_are_in_reach_outside() {
    expect_possible_outside(table::FILESYSTEM);
}

#[test]
fn processes_of_the_host_are_out_of_reach_inside() {
    expect_stopped(table::PROCESSES);
}

#[test]
fn processes_of_the_host_are_in_reach_outside() {
    expect_possible_outside(table::PROCESSES);
}

#[test]
fn ways_to_talk_out_are_closed_inside() {
    expect_stopped(table::TALKING);
}

#[test]
fn ways_to_talk_out_are_open_outside() {
    expect_possible_outside(table::TALKING);
}

#[test]
fn run_has_no_capability_and_cannot_gain_any() {
    for setting in Setting::each() {
        let probe = stockade_tests::setting::text_of(&setting.ground.put_probe());
        for policy in ["default", "moderate", "minimal"] {
            let ended = setting.run(policy).words([probe.as_str(), "capabilities"]).finish();
            ended.expect_code(0);
            let text = ended.text();
            let sets: Vec<&str> = text.split_whitespace().filter_map(|word| word.split('=').nth(1)).collect();
            assert_eq!(sets.len(), 5, "{}", ended.story());
            // Without privilege the bounding set can't be dropped at the level without namespaces.
            let bound = if policy == "minimal" && !setting.mode.is_system() { 4 } else { 5 };
            let is_empty = |set: &&str| set.bytes().all(|digit| digit == b'0');
            assert!(sets.iter().filter(|set| is_empty(set)).count() >= bound, "{policy}: {}", ended.story());
            for (line, value) in [("NoNewPrivs", "1"), ("Seccomp", "2")] {
                let ended = setting.run(policy).words([probe.as_str(), "status", line]).finish();
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
            ("default", vec!["unix-pair", "here.sock"], "unix-pair ok hello"),
            ("loopback", vec!["loopback-pair"], "loopback-pair ok hello"),
            ("default", vec!["threads", "50"], "threads ok 50"),
            ("default", vec!["make-fifo", "fifo"], "make-fifo ok"),
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
            let ended = setting.run(policy).words(std::iter::once(probe.as_str()).chain(words)).finish();
            ended.expect_code(0).expect_text(text);
        }
    }
}
