//! Secrets in output are named and not shown, in every way of running, and shown where no policy hides them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test reads as slowly as somebody who looks")]

use std::sync::Arc;
use std::time::Duration;

use stockade_tests::setting::Setting;
use stockade_tests::{Daemon, Ground, Mode, wait_until};

const VALUE: &str = "c0rrect-horse-battery";
const MARK: &str = "[redacted:API_TOKEN]";
/// Both let the secret in, and bound no output, so that it could be passed.
const ALLOWS: &str =
    "extends = \"default\"\n[environment]\nallow = [\"API_TOKEN\"]\n[limits]\noutput = \"none\"\n";
const SOON: Duration = Duration::from_secs(60);

fn put_policies(ground: &Ground) {
    for (name, rest) in
        [("hides", "[output]\nredact = true\n"), ("shows", ""), ("little", "[output]\nredact = true\n")]
    {
        let text = ALLOWS.replace("none", if name == "little" { "10B" } else { "none" });
        std::fs::write(ground.policies().join(format!("{name}.toml")), format!("{text}{rest}")).unwrap();
    }
    ground.person.own_all(&ground.policies());
}

/// Every mode, with a daemon of its own where it has one.
fn each() -> impl Iterator<Item = Setting> {
    Mode::here().into_iter().map(|mode| {
        let daemon = mode.has_daemon().then(|| {
            let ground = Ground::new(mode.server());
            put_policies(&ground);
            Arc::new(Daemon::start_at(ground, &[]))
        });
        let ground = Ground::new(mode.client());
        put_policies(&ground);
        Setting { mode, ground, daemon }
    })
}

/// What a line of bash shows, which finds the secret in a variable.
fn shown(setting: &Setting, policy: &str, options: &[&str], line: &str) -> (String, String) {
    let run = setting.run(policy).option(&["--env", "API_TOKEN"]).option(options);
    let ended = run.variable("API_TOKEN", VALUE).words(["bash", "-c", line]).finish();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&ended.stdout), text(&ended.stderr))
}

#[test]
fn a_secret_is_hidden_over_every_split_of_writes_and_shown_under_a_policy_that_hides_nothing() {
    // Each printf is a write of its own, and some have a pause behind them.
    let line = "for ((i = 1; i < ${#API_TOKEN}; i++)); do printf %s \"${API_TOKEN:0:i}\"; \
                if ((i > 3 && i % 5 == 0)); then sleep 0.12; fi; printf '%s\\n' \"${API_TOKEN:i}\"; done; \
                echo \"err $API_TOKEN\" >&2; echo -n \"$API_TOKEN\" | base64";
    for setting in each() {
        let (out, err) = shown(&setting, "hides", &[], line);
        // All splits, and 28 characters that are nothing but its base64.
        let splits = VALUE.len() - 1;
        assert_eq!(out, format!("{MARK}\n").repeat(splits + 1), "{:?}: {err}", setting.mode);
        assert_eq!(err, format!("err {MARK}\n"), "{:?}", setting.mode);
        let (out, err) = shown(&setting, "shows", &[], line);
        assert!(out.starts_with(&format!("{VALUE}\n").repeat(splits)), "{:?}: {out}", setting.mode);
        assert_eq!(err, format!("err {VALUE}\n"), "{:?}", setting.mode);
    }
}

#[test]
fn a_run_says_what_was_hidden_and_that_its_output_is_not_passed() {
    for setting in each() {
        let (out, err) = shown(&setting, "hides", &["-v"], "echo $API_TOKEN $API_TOKEN");
        assert_eq!(out, format!("{MARK} {MARK}\n"), "{:?}", setting.mode);
        assert!(err.contains("stdout relayed, stderr relayed"), "{err}");
        assert!(err.contains("output is redacted; hidden: API_TOKEN (2 times)"), "{err}");
        let (_, err) = shown(&setting, "hides", &["-v"], "true");
        assert!(err.contains("output is redacted; there was nothing to hide"), "{err}");
        let (out, err) = shown(&setting, "shows", &["-v"], "echo $API_TOKEN");
        assert!(out.starts_with(VALUE) && err.contains("stdout passed, stderr passed"), "{err}");
        assert!(!err.contains("output is redacted"), "{err}");
        let (out, _) = shown(&setting, "hides", &["--json"], "echo $API_TOKEN");
        let last = out.lines().last().unwrap();
        assert!(
            last.contains(r#""redactions":{"marks":[{"name":"API_TOKEN","count":1}],"late":0}"#),
            "{last}"
        );
        assert!(!out.contains(VALUE), "{out}");
        let (out, _) = shown(&setting, "shows", &["--json"], "true");
        assert!(out.lines().last().unwrap().contains(r#""redactions":null"#), "{out}");
    }
}

#[test]
fn a_limit_that_cuts_a_secret_shows_none_of_it_and_counts_what_the_tool_wrote() {
    for setting in each() {
        let (out, err) = shown(&setting, "little", &["-v"], "echo -n $API_TOKEN; sleep 5");
        assert_eq!(out, MARK, "{:?}: {err}", setting.mode);
        assert!(err.contains("more than 10 bytes") && err.contains("10 bytes out through us"), "{err}");
    }
}

#[test]
fn a_prompt_that_may_be_the_beginning_of_a_secret_is_shown_when_nothing_follows() {
    for setting in each() {
        let mut command =
            setting.run("hides").words(["bash", "-c", "printf 'your key: ghp_'; sleep 60"]).into_command();
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        let (mut seen, mut buffer) = (Vec::new(), [0; 64]);
        while !seen.ends_with(b"ghp_") {
            let count = std::io::Read::read(&mut out, &mut buffer).unwrap();
            assert!(count > 0, "{:?}: {}", setting.mode, String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..count]);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// While nobody takes what there is, a tool that waits to write is not silent.
#[test]
fn a_reader_that_pauses_sees_no_half_of_a_secret() {
    const COUNT: usize = 8_000;
    let line = format!(
        "one=' ghp_abcdefghijklmnopqrstuvwxyz0123456789'; for ((i = 0; i < {COUNT}; i++)); do all+=$one; done; \
         printf %s \"$all\""
    );
    for setting in each() {
        let mut command = setting.run("hides").words(["bash", "-c", &line]).into_command();
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        let (mut seen, mut buffer) = (Vec::new(), vec![0; 3_001]);
        while let count @ 1.. = std::io::Read::read(&mut out, &mut buffer).unwrap() {
            seen.extend_from_slice(&buffer[..count]);
            if seen.len() % 7 == 0 {
                std::thread::sleep(Duration::from_millis(70));
            }
        }
        assert!(child.wait().unwrap().success(), "{:?}", setting.mode);
        let seen = String::from_utf8(seen).unwrap();
        let marks = seen.split(' ').filter(|word| word.starts_with("[redacted:")).count();
        let other = seen.split(' ').find(|word| !word.is_empty() && !word.starts_with("[redacted:"));
        assert_eq!((marks, other), (COUNT, None), "{:?}", setting.mode);
    }
}

#[test]
fn whoever_attaches_or_reads_the_logs_is_given_the_same() {
    for setting in each().filter(|setting| setting.daemon.is_some()) {
        let line = "printf %s ${API_TOKEN:0:9}; sleep 0.1; echo ${API_TOKEN:9} 1; until [ -e go ]; do sleep 0.01; done; \
                    printf %s ${API_TOKEN:0:9}; sleep 0.1; echo ${API_TOKEN:9} 2";
        let (id, _) = shown(&setting, "hides", &["--detach"], line);
        let attach = || {
            let mut command = setting.ask(&["attach", id.trim()]);
            command.stdout(std::process::Stdio::piped()).spawn().unwrap()
        };
        let first = attach();
        let logs = || {
            let output = setting.ask(&["logs", id.trim()]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let expected = format!("{MARK} 1\n");
        assert!(wait_until(SOON, || logs() == expected), "{:?}: {}", setting.mode, logs());
        let second = attach();
        setting.ground.put("go", "");
        for reader in [first, second] {
            let output = reader.wait_with_output().unwrap();
            let expected = format!("{MARK} 1\n{MARK} 2\n");
            assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{:?}", setting.mode);
        }
    }
}

/// The operator's file: read again with the others, all of it or none.
#[test]
fn an_operators_file_holds_for_policies_that_do_not_say_and_a_bad_one_changes_nothing() {
    for setting in each() {
        let server = setting.daemon.as_ref().map_or(&setting.ground, |daemon| &daemon.ground);
        if server.person.is_root() {
            // It would be the machine's own file.
            continue;
        }
        let file = server.configuration().join("redact.toml");
        let write = |text: &str| {
            std::fs::create_dir_all(server.configuration()).unwrap();
            std::fs::write(&file, text).unwrap();
            server.person.own_all(&server.configuration());
            if let Some(daemon) = &setting.daemon {
                let before = daemon.log().matches("reloaded").count();
                daemon.signal(rustix::process::Signal::HUP);
                assert!(wait_until(SOON, || daemon.log().matches("reloaded").count() > before));
            }
        };
        let line = "echo acme-abcdefgh $API_TOKEN";
        assert_eq!(shown(&setting, "shows", &[], line).0, format!("acme-abcdefgh {VALUE}\n"));
        let form = "[forms.acme]\npattern = 'acme-[a-z]{8}'\n";
        write(form);
        assert_eq!(shown(&setting, "hides", &[], line).0, format!("[redacted:acme] {MARK}\n"));
        assert_eq!(shown(&setting, "shows", &[], line).0, format!("acme-abcdefgh {VALUE}\n"));
        write(&format!("by-default = true\n{form}"));
        assert_eq!(shown(&setting, "shows", &[], line).0, format!("[redacted:acme] {MARK}\n"));
        write("by-default = true\n[forms.acme]\npattern = 'acme-.*'\n");
        let (out, err) = shown(&setting, "shows", &[], line);
        match &setting.daemon {
            Some(_) => assert_eq!(out, format!("[redacted:acme] {MARK}\n"), "the old file stays"),
            None => assert!(
                out.is_empty() && err.contains("redact.toml:3:") && err.contains("10240 bytes"),
                "{err}"
            ),
        }
    }
}
