//! Rules of access at the command line: docs/access.md is followed, and a daemon says what `access check` says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

use serde_json::Value;
use stockade_tests::page::blocks;
use stockade_tests::{Daemon, Ended, Ground, Person};

const PAGE: &str = include_str!("../../docs/access.md");

#[test]
fn the_guide_is_followed_as_it_stands() {
    let ground = Ground::new(Person::user());
    let mut count = 0;
    for block in blocks(PAGE, "toml").into_iter().chain(blocks(PAGE, "cedar")) {
        let name = block.lines().next().unwrap().trim_start_matches(['#', '/', ' ']);
        ground.configure(&[(name, block)]);
        count += 1;
    }
    assert_eq!(count, 4);
    std::fs::create_dir_all(ground.policies()).unwrap();
    ground.configure(&[("policies/build-host.toml", "extends = \"strict\"\n")]);
    let said = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let quoted = line.split('\'').nth(1);
        let mut command = ground.stockade();
        command.current_dir(ground.configuration());
        let until = words.iter().position(|word| *word == "||").unwrap_or(words.len());
        for word in &words[1..until] {
            // The one word that has a space in it.
            if let Some(quoted) = quoted.filter(|quoted| quoted.contains(word.trim_matches('\''))) {
                if word.starts_with('\'') {
                    command.arg(quoted);
                }
                continue;
            }
            command.arg(word);
        }
        Ended::of(command)
    };
    let lines: Vec<&str> = blocks(PAGE, "sh")[0].lines().collect();
    let expected = [
        (0, "permitted: owner-runs-shipped-policies (shipped)"),
        (0, "permitted: builders-build (access.cedar:2)"),
        (1, "refused: no rule permits it"),
        (1, "refused: no-forced-push (invariants.cedar:2) forbids it"),
        (1, "refused: no tool is named `search`; there are none"),
        (1, "\"permitted\":false"),
        (0, "release"),
    ];
    assert_eq!(lines.len(), expected.len());
    for (line, (status, text)) in lines.iter().zip(expected) {
        let ended = said(line);
        assert!(ended.text().contains(text), "{line}: {}", ended.story());
        ended.expect_code(status);
    }
    Ended::of({
        let mut check = ground.stockade();
        check.args(["config", "check"]);
        check
    })
    .expect_code(0);
}

#[test]
fn check_knows_the_policies_that_a_daemon_with_that_configuration_has_and_no_others() {
    for person in [Person::me(), Person::user()] {
        let ground = Ground::new(person);
        let (elsewhere, more) = (ground.base().join("elsewhere"), ground.base().join("more"));
        for (directory, name) in [(elsewhere.join("policies"), "beside.toml"), (more.clone(), "more.toml")] {
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join(name), "extends = \"strict\"\n").unwrap();
        }
        let rules = "@id(\"all\") permit (principal, action == Action::\"run\", resource);\n\
            @id(\"no-uname\") forbid (principal, action, resource) when { context has program && context.program like \"*uname\" };\n";
        let risk = "[thresholds]\nask = 5\n[[rule]]\nname = \"odd\"\nscore = 5\nreason = \"x\"\nwhen = { word-matches = \"^odd$\" }\n";
        std::fs::write(elsewhere.join("access.cedar"), rules).unwrap();
        std::fs::write(elsewhere.join("approval.toml"), risk).unwrap();
        std::fs::write(
            elsewhere.join("stockade.toml"),
            format!("[daemon]\npolicies = [\"{}\"]\n", more.display()),
        )
        .unwrap();
        person.own_all(&elsewhere);
        person.own_all(&more);
        let uid = person.uid.to_string();
        let check = |words: &[&str]| {
            let mut command = ground.stockade();
            command.args(["access", "check", &uid, "run"]).args(&words[..1]);
            command.arg("--why").arg("--config").arg(&elsewhere).arg("--").args(&words[1..]);
            Ended::of(command)
        };
        let permitted = check(&["more", "ls"]);
        assert!(permitted.text().contains("permitted: all (access.cedar"), "{}", permitted.story());
        permitted.expect_code(0);
        // Beside the configuration lie policies that a daemon with it doesn't read.
        for missing in ["beside", "nosuch"] {
            let refused = check(&[missing, "ls"]);
            let text = refused.text();
            assert!(
                text.starts_with(&format!("refused: no policy named `{missing}`; there are: ")),
                "{}",
                refused.story()
            );
            assert!(text.contains("more") && !text.contains("permitted"), "{}", refused.story());
            refused.expect_code(1);
        }
        check(&["more", "ls", "odd"]).expect_code(3);
        let forbidden = check(&["more", "/bin/uname", "odd"]);
        let text = forbidden.text();
        assert!(text.contains("refused: no-uname") && !text.contains("permitted"), "{}", forbidden.story());
        forbidden.expect_code(1);
    }
}

#[test]
fn a_daemon_refuses_what_check_refuses_locks_out_and_an_operator_lets_in_again() {
    let (me, user) = (Person::me(), Person::user());
    for person in if me == user { vec![user] } else { vec![me, user] } {
        let ground = Ground::new(person);
        let uid = person.uid.to_string();
        std::fs::create_dir_all(ground.policies()).unwrap();
        let own = "extends = \"strict\"\n";
        std::fs::write(ground.policies().join("own.toml"), own).unwrap();
        ground.configure(&[
                ("roles.toml", "[roles.operator]\n"),
                (
                    "invariants.cedar",
                    "@id(\"no-uname\")\n@message(\"uname tells too much\")\nforbid (principal, action == Action::\"run\", resource) when { context.program like \"*uname\" };\n",
                ),
                ("limits.toml", "[lockout]\nrefusals = 3\n"),
            ],
        );
        let daemon = Daemon::start_at(ground, &[]);
        let ground = &daemon.ground;
        let ask = |words: &[&str]| Ended::of(daemon.ask(ground, words));
        let run = |words: &[&str]| {
            let mut command = ground.stockade();
            command.current_dir(ground.work()).args(["run", "--socket"]).arg(&daemon.socket).args(words);
            Ended::of(command)
        };
        let check = |words: &[&str]| {
            let mut command = ground.stockade();
            command
                .args(["access", "check", &uid, "run"])
                .args(words)
                .arg("--json")
                .arg("--config")
                .arg(ground.configuration());
            let ended = Ended::of(command);
            let line: Value = serde_json::from_str(ended.text().lines().next().unwrap()).unwrap();
            line["permitted"].as_bool().unwrap()
        };
        run(&["--", "/bin/true"]).expect_code(0);
        assert!(!check(&["nosuch"]));
        let refused = run(&["--", "/bin/uname"]);
        refused.expect_code(125).expect_errors(&["uname tells too much", "no-uname (invariants.cedar:1)"]);
        for _ in 0..2 {
            run(&["--policy", "nosuch", "--", "/bin/true"])
                .expect_code(125)
                .expect_errors(&["no rule permits"]);
        }
        run(&["--", "/bin/true"]).expect_code(125).expect_errors(&["locked out"]);
        let status = ask(&["status"]);
        assert!(status.text().contains(&format!("locked out   {uid}")), "{}", status.story());
        ask(&["access", "unlock", &uid]).expect_code(1).expect_errors(&["locked out"]);
        // What is forgotten at a restart is no more.
        daemon.kill_and_start_again(&[]);
        run(&["--", "/bin/true"]).expect_code(0);
        let unlocked = ask(&["access", "unlock", &uid]);
        assert_eq!(unlocked.text().contains("wasn't locked out"), person.is_root(), "{}", unlocked.story());
    }
}
