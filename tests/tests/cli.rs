//! What the command line promises to whoever types it: where runs go, what is refused and in which words, what
//! `policy`, `doctor`, `ps`, `kill` and `logs` say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use stockade_tests::setting::{Started, marker, text_of};
use stockade_tests::{Ended, Ground, Mode, Person, Setting, left, not_tested, wait_until};

/// Of what must come, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// One ground without a daemon, for what doesn't depend on the mode.
fn ground() -> Ground {
    Ground::new(Person::me())
}

/// `stockade` with these words.
fn stockade(ground: &Ground, words: &[&str]) -> Ended {
    let mut command = ground.stockade();
    command.args(words);
    Ended::of(command)
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.text()).unwrap_or_else(|error| panic!("{error}: {}", ended.story()))
}

#[test]
fn help_of_every_subcommand_has_examples_and_is_a_success() {
    let ground = ground();
    for words in
        [&["--help"][..], &["run", "--help"], &["serve", "--help"], &["ps", "--help"], &["kill", "--help"]]
            .into_iter()
            .chain([
                &["attach", "--help"][..],
                &["logs", "--help"],
                &["status", "--help"],
                &["doctor", "--help"],
            ])
            .chain([&["policy", "--help"][..], &["policy", "explain", "--help"]])
            .chain([&["man", "--help"][..], &["completions", "--help"]])
    {
        let ended = stockade(&ground, words);
        ended.expect_code(0);
        assert!(ended.text().contains("Examples:"), "{}", ended.story());
    }
}

#[test]
fn wrong_command_line_is_125_for_a_run_and_2_for_everything_else() {
    let ground = ground();
    for words in [&["run"][..], &["run", "--no-such", "true"], &["run", "--timeout", "30", "true"]] {
        stockade(&ground, words).expect_code(125);
    }
    for words in [&["no-such"][..], &["ps", "--no-such"], &["kill"], &["policy", "explain", "default"]] {
        stockade(&ground, words).expect_code(2);
    }
}

#[test]
fn named_socket_that_is_not_there_is_an_error_and_nothing_runs() {
    let ground = ground();
    let ended = stockade(&ground, &["run", "--socket", "/no/such.sock", "--", "touch", "ran"]);
    ended.expect_code(125).expect_errors(&["/no/such.sock", "stockade serve"]);
    assert!(!ground.work().join("ran").exists());
}

#[test]
fn socket_nobody_listens_on_is_an_error_and_no_quiet_embedded_run() {
    let ground = ground();
    let socket = ground.base().join("stale.sock");
    drop(UnixListener::bind(&socket).unwrap());
    let mut command = ground.stockade();
    command.env("STOCKADE_SOCKET", &socket).args(["run", "--", "touch", "ran"]);
    Ended::of(command).expect_code(125).expect_errors(&["stale.sock", "--embedded"]);
    assert!(!ground.work().join("ran").exists());
}

#[test]
fn socket_of_another_program_is_an_error_and_no_quiet_embedded_run() {
    let ground = ground();
    let socket = ground.base().join("other.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let other = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let mut command = ground.stockade();
    command.env("STOCKADE_SOCKET", &socket).args(["run", "--", "touch", "ran"]);
    Ended::of(command).expect_code(125).expect_errors(&["other.sock"]);
    assert!(!ground.work().join("ran").exists());
    other.join().unwrap();
}

#[test]
fn subcommands_of_a_daemon_without_one_name_where_they_looked() {
    let ground = ground();
    let own = text_of(&ground.runtime().join("stockade/stockade.sock"));
    for words in [&["ps"][..], &["status"], &["kill", "--all"], &["logs", "0123"], &["attach", "0123"]] {
        stockade(&ground, words).expect_code(1).expect_errors(&[own.as_str(), "stockade serve"]);
    }
    let ended = stockade(&ground, &["run", "--detach", "--", "true"]);
    ended.expect_code(125).expect_errors(&["--detach", own.as_str()]);
}

#[test]
fn without_a_daemon_a_run_is_embedded_and_says_so_when_asked() {
    for mode in [Mode::EmbeddedUser, Mode::EmbeddedRoot] {
        if !Mode::here().contains(&mode) {
            continue;
        }
        let setting = Setting::new(mode);
        let mut command = setting.ground.stockade();
        command.args(["run", "-v", "--", "echo", "ran"]);
        Ended::of(command)
            .expect_code(0)
            .expect_text("ran")
            .expect_errors(&["without a daemon", "policy default"]);
    }
}

#[test]
fn policy_of_a_file_runs_without_the_daemon_and_is_refused_with_one() {
    for setting in Setting::each() {
        let text = "name = \"own\"\nextends = \"default\"\n[limits]\nwall-time = \"400ms\"\n";
        setting.ground.put("own.toml", text);
        let mut command = setting.ground.stockade();
        command.args(["run", "--policy", "./own.toml", "--", "sleep", "20"]);
        let ended = Ended::of(command);
        ended.expect_code(124);
        if let Some(daemon) = &setting.daemon {
            let mut command = setting.ground.stockade();
            command
                .args(["run", "--policy", "own.toml", "--socket"])
                .arg(&daemon.socket)
                .args(["--", "true"]);
            Ended::of(command).expect_code(125).expect_errors(&["name", "file"]);
        }
    }
}

#[test]
fn policy_of_a_file_with_an_error_names_file_line_and_column() {
    let ground = ground();
    ground.put("bad.toml", "name = \"bad\"\nextends = \"default\"\n[limits]\nwall-tme = \"5s\"\n");
    let ended = stockade(&ground, &["run", "--policy", "bad.toml", "--", "true"]);
    ended.expect_code(125).expect_errors(&["bad.toml:4:1", "wall-time"]);
    let checked = stockade(&ground, &["policy", "check", "bad.toml"]);
    checked.expect_code(1);
    assert!(checked.text().contains("bad.toml:4:1"), "{}", checked.story());
}

#[test]
fn variable_that_is_demanded_and_not_allowed_is_refused_and_an_allowed_one_arrives() {
    for setting in Setting::each().filter(|setting| setting.daemon.is_none()) {
        let refused = setting.run("default").option(&["--env", "MY_SECRET=1"]).words(["true"]).finish();
        refused.expect_code(125).expect_errors(&["MY_SECRET", "allow", "stockade policy explain"]);
        let line = ["sh", "-c", "echo $LC_TIME"];
        let run = setting.run("default").option(&["--env", "LC_TIME=here"]).words(line);
        run.finish().expect_code(0).expect_text("here");
        let missing = setting.run("default").option(&["--env", "NOT_SET_ANYWHERE"]).words(["true"]).finish();
        missing.expect_code(125).expect_errors(&["NOT_SET_ANYWHERE"]);
    }
}

#[test]
fn variable_that_a_daemon_leaves_away_is_noted() {
    for setting in Setting::each().filter(|setting| setting.daemon.is_some()) {
        let line = ["sh", "-c", "echo ${MY_SECRET-none} $LC_TIME"];
        let options = ["--env", "MY_SECRET=1", "--env", "LC_TIME=here"];
        let ended = setting.run("default").option(&options).words(line).finish();
        ended.expect_code(0).expect_text("none here").expect_errors(&["MY_SECRET", "leaves it away"]);
        assert!(!ended.errors().contains("LC_TIME"), "{}", ended.story());
    }
}

#[test]
fn refusal_as_json_is_one_line_with_its_reason() {
    for setting in Setting::each() {
        let ended = setting.run("no-such-policy").option(&["--json"]).words(["true"]).finish();
        ended.expect_code(125);
        assert_eq!(json(&ended)["denied"]["reason"], "unknown-policy", "{}", ended.story());
    }
}

#[test]
fn reader_that_leaves_ends_the_command_as_its_pipe_would() {
    for setting in Setting::each() {
        let word = marker("reader");
        let line = format!("yes {word}");
        let mut command = setting.run("default").words(["bash", "-c", &line]).into_command();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut first = [0; 10];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        drop(child.stdout.take());
        let mut status = None;
        let ended = wait_until(PATIENCE, || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        if !ended {
            child.kill().unwrap();
        }
        assert_eq!(status.and_then(|status| status.code()), Some(128 + 13), "{:?}", setting.mode);
        assert!(wait_until(PATIENCE, || left::with_word(&word).is_empty()), "{:?}", setting.mode);
    }
}

#[test]
fn slow_reader_gets_every_byte_and_can_still_interrupt() {
    for setting in Setting::each() {
        let line = "trap 'exit 130' INT; head -c 3000000 /dev/zero; while :; do sleep 0.05; done";
        let mut command = setting.run("default").words(["bash", "-c", line]).into_command();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        // Long enough for every buffer on the way to be full.
        std::thread::sleep(Duration::from_millis(600));
        let mut stdout = child.stdout.take().unwrap();
        let mut buffer = vec![0; 3_000_000];
        stdout.read_exact(&mut buffer).unwrap();
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let mut rest = Vec::new();
        stdout.read_to_end(&mut rest).unwrap();
        assert_eq!(rest.len(), 0, "{:?}", setting.mode);
        assert_eq!(child.wait().unwrap().code(), Some(130), "{:?}", setting.mode);
    }
}

#[test]
fn reader_that_pauses_after_the_runs_end_still_gets_every_byte() {
    // With one size all is on its way when the run ends, with the other some of it can't be.
    for bytes in [300_000, 1_500_000] {
        let line = format!("head -c {bytes} /dev/zero");
        let settings: Vec<_> = Setting::each().collect();
        let mut children: Vec<_> = settings
            .iter()
            .map(|setting| {
                let mut command = setting.run("default").words(["bash", "-c", &line]).into_command();
                command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
            })
            .collect();
        // Longer than anybody waits for output that doesn't move.
        std::thread::sleep(Duration::from_secs(7));
        for (setting, child) in settings.iter().zip(&mut children) {
            let mut seen = Vec::new();
            child.stdout.take().unwrap().read_to_end(&mut seen).unwrap();
            assert_eq!(seen.len(), bytes, "{:?}", setting.mode);
            assert_eq!(child.wait().unwrap().code(), Some(0), "{:?}", setting.mode);
        }
    }
}

#[test]
fn input_from_a_socket_is_relayed_and_arrives_untouched() {
    for setting in Setting::each() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let bytes: Vec<u8> = (0..=255_u8).cycle().take(700_000).collect();
        let sent = bytes.clone();
        let writer = std::thread::spawn(move || ours.write_all(&sent));
        let mut command = setting.run("default").words(["cat"]).into_command();
        command.stdin(OwnedFd::from(theirs));
        let ended =
            Started::of(command, None, Duration::from_secs(60), &format!("{:?}", setting.mode)).finish();
        writer.join().unwrap().unwrap();
        ended.expect_code(0);
        assert!(ended.stdout == bytes, "{:?}: {} bytes came", setting.mode, ended.stdout.len());
    }
}

#[test]
fn no_colours_where_nobody_looks() {
    for setting in Setting::each() {
        let ended =
            setting.run("default").option(&["-v", "--timeout", "100ms"]).words(["sleep", "9"]).finish();
        ended.expect_code(124);
        assert!(!ended.stderr.contains(&0x1b), "{}", ended.story());
    }
}

#[test]
fn command_with_terminal_escapes_is_listed_escaped() {
    let setting = Setting::new(Mode::a_daemon());
    let line = "sleep 30 # \x1b]0;owned\x07";
    let ended = setting.run("default").option(&["--detach"]).words(["sh", "-c", line]).finish();
    let id = ended.expect_code(0).text();
    let listed = Ended::of(setting.ask(&["ps"]));
    listed.expect_code(0);
    assert!(listed.text().contains(&id) && listed.text().contains("owned"), "{}", listed.story());
    assert!(!listed.stdout.contains(&0x1b) && !listed.stdout.contains(&0x07), "{}", listed.story());
    Ended::of(setting.ask(&["kill", &id])).expect_code(0);
}

#[test]
fn run_is_named_by_the_end_of_its_id_and_signalled_by_name() {
    let setting = Setting::new(Mode::a_daemon());
    let line = "trap 'echo caught; exit 9' USR1; echo ready; while :; do sleep 0.1; done";
    let ended = setting.run("default").option(&["--detach"]).words(["bash", "-c", line]).finish();
    let id = ended.expect_code(0).text();
    let part = &id[id.len() - 12..];
    let ready = wait_until(PATIENCE, || Ended::of(setting.ask(&["logs", part])).text() == "ready");
    assert!(ready, "{}", Ended::of(setting.ask(&["logs", part])).story());
    Ended::of(setting.ask(&["kill", "--signal", "USR1", part])).expect_code(0);
    Ended::of(setting.ask(&["attach", part])).expect_code(9).expect_text("ready\ncaught");
    Ended::of(setting.ask(&["kill", "ffffffffffff"]))
        .expect_code(1)
        .expect_errors(&["no run", "stockade ps"]);
}

#[test]
fn policies_are_listed_and_shown_whole() {
    let ground = ground();
    let listed = stockade(&ground, &["policy", "list"]);
    listed.expect_code(0);
    for name in ["strict", "default", "build", "moderate", "minimal", "loopback"] {
        assert!(listed.text().lines().any(|line| line.starts_with(name)), "{name}: {}", listed.story());
    }
    let shown = stockade(&ground, &["policy", "show", "default"]);
    shown.expect_code(0);
    assert!(shown.text().contains("wall-time"), "{}", shown.story());
    // What is shown is a policy that can be read back.
    let own = shown.text().replace("name = \"default\"", "name = \"own\"");
    // But for what only an operator may say.
    let own: Vec<_> = own.lines().filter(|line| !line.starts_with("range")).collect();
    ground.put("own.toml", own.join("\n"));
    let checked = stockade(&ground, &["policy", "check", "own.toml"]);
    checked.expect_code(0);
    let unknown = stockade(&ground, &["policy", "show", "defualt"]);
    unknown.expect_code(1).expect_errors(&["defualt", "default"]);
}

#[test]
fn explain_answers_with_the_rule_its_place_and_a_status() {
    let ground = ground();
    let port = ["connect", "443"];
    let denied: [&[&str]; 6] = [
        &["write", ".git/hooks/pre-commit"],
        &["read", "/srv/secret"],
        &["write", "/usr/bin/env"],
        &port,
        &["env", "AWS_SECRET_ACCESS_KEY"],
        &["syscall", "ptrace"],
    ];
    let allowed: [&[&str]; 4] =
        [&["write", "file"], &["execute", "/usr/bin/env"], &["env", "PATH"], &["syscall", "openat"]];
    for (cases, code, word) in [(&denied[..], 1, "denied"), (&allowed[..], 0, "allowed")] {
        for case in cases {
            let ended = stockade(&ground, &[&["policy", "explain", "default"], *case].concat());
            ended.expect_code(code);
            assert!(ended.text().starts_with(word), "{case:?}: {}", ended.story());
        }
    }
    for case in [["default", "connect", "http"], ["no-such", "read", "x"], ["./no-such.toml", "read", "x"]] {
        stockade(&ground, &[&["policy", "explain"], &case[..]].concat()).expect_code(2);
    }
    let ended = stockade(&ground, &["policy", "explain", "default", "write", ".git/config", "--json"]);
    let answer = json(ended.expect_code(1));
    assert_eq!(answer["allowed"], false);
    assert!(
        answer["file"].as_str().unwrap().contains("default") && answer["line"].as_u64() > Some(0),
        "{answer}"
    );
}

#[test]
fn doctor_tries_every_layer_and_says_which_levels_there_are() {
    for setting in Setting::each().filter(|setting| setting.daemon.is_none()) {
        let ended = stockade(&setting.ground, &["doctor", "--json"]);
        let report = json(&ended);
        let names = |of: &str| -> Vec<String> {
            let rows = report[of].as_array().unwrap();
            rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
        };
        let layers = "namespaces root guard network identity resources rlimits landlock seccomp process";
        assert_eq!(names("layers").join(" "), layers);
        assert_eq!(names("levels"), ["strict", "moderate", "minimal"]);
        // The mode is possible here, so `default` is.
        assert_eq!(report["default"]["works"], true, "{report:#}");
        for row in report["layers"].as_array().unwrap().iter().chain(report["levels"].as_array().unwrap()) {
            assert_ne!(row["works"], false, "{:?}: {row}", setting.mode);
        }
        ended.expect_code(0);
        let shown = stockade(&setting.ground, &["doctor"]);
        shown.expect_code(0);
        assert!(
            shown.text().starts_with("LAYER") && shown.text().contains("ok: the policy `default` runs here")
        );
        let left: Vec<_> = std::fs::read_dir(setting.ground.base().join("tmp")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn deep_doctor_tries_each_canary_at_each_level_and_in_the_daemons_runs() {
    for setting in Setting::each() {
        let socket = setting.daemon.as_ref().map(|daemon| daemon.socket.display().to_string());
        let mut words = vec!["doctor", "--deep", "--json"];
        words.extend(socket.iter().flat_map(|socket| ["--socket", socket.as_str()]));
        let ended = stockade(&setting.ground, &words);
        let report = json(ended.expect_code(0));
        let rows = report["canaries"].as_array().unwrap();
        let places = match socket {
            Some(_) => &["strict", "moderate", "minimal", "default", "daemon", "again"][..],
            None => &["strict", "moderate", "minimal", "default"],
        };
        for row in rows {
            assert_eq!(row["places"].as_object().unwrap().len(), places.len(), "{row}");
            for place in places {
                let cell = row["places"][place].as_str().unwrap();
                let known = ["stopped", "works", "-", "unknown"];
                assert!(known.contains(&cell), "{:?}: {row}", setting.mode);
            }
        }
        // In each place some are stopped and some work: else nothing was tried.
        for place in places {
            let count = |cell: &str| rows.iter().filter(|row| row["places"][place] == cell).count();
            assert!(count("stopped") >= 10 && count("works") >= 5, "{place}: {report:#}");
        }
    }
}

#[test]
fn deep_doctor_says_what_there_was_no_run_for() {
    for setting in Setting::each().filter(|setting| setting.daemon.is_none()) {
        // Where namespaces are forbidden.
        let _ = setting.ground.put_stockade();
        let ended = setting.run("default").words(["./stockade", "doctor", "--deep"]).finish();
        ended.expect_code(1);
        assert!(
            ended.text().contains("not tried") && ended.text().contains("strict: no run:"),
            "{}",
            ended.story()
        );
    }
    stockade(&ground(), &["doctor", "--deep", "--socket", "/no/such.sock"])
        .expect_code(1)
        .expect_errors(&["/no/such.sock"]);
    stockade(&ground(), &["doctor", "--socket", "/no/such.sock"]).expect_code(2);
}

#[test]
fn doctor_where_namespaces_are_forbidden_names_the_layer_and_what_would_do_without() {
    for setting in Setting::each().filter(|setting| setting.daemon.is_none()) {
        // A run is such a place.
        let _ = setting.ground.put_stockade();
        let ended = setting.run("default").words(["./stockade", "doctor", "--json"]).finish();
        let report = json(ended.expect_code(1));
        assert_eq!(report["default"]["works"], false, "{report:#}");
        let row = |of: &str, name: &str| {
            let rows = report[of].as_array().unwrap();
            rows.iter().find(|row| row["name"] == name).unwrap().clone()
        };
        assert_eq!(row("layers", "namespaces")["works"], false, "{report:#}");
        assert_eq!(row("levels", "strict")["works"], false, "{report:#}");
        assert!(report["default"]["remedy"].as_str().unwrap_or("").contains("minimal"), "{report:#}");
    }
}

/// Whether a program is there; says so by name if it isn't.
fn there_is(program: &str, what: &str) -> bool {
    let found = std::process::Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    let found = found.unwrap().status.success();
    if !found {
        not_tested(what, &format!("there is no {program} here"));
    }
    found
}

#[test]
fn manual_is_written_a_page_a_subcommand_and_reads_without_complaint() {
    let ground = ground();
    let tree = ground.work().join("new/man");
    stockade(&ground, &["man", "--directory", tree.to_str().unwrap()]).expect_code(0);
    let (pages, files) = (tree.join("man1"), tree.join("man5"));
    let help = stockade(&ground, &["--help"]).text();
    let commands =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() > 10, "{help}");
    for command in commands.into_iter().filter(|command| *command != "help") {
        let page = std::fs::read_to_string(pages.join(format!("stockade-{command}.1"))).unwrap();
        assert_eq!(stockade(&ground, &["man", command]).text(), page.trim(), "{command}");
    }
    let main = std::fs::read_to_string(pages.join("stockade.1")).unwrap();
    assert_eq!(stockade(&ground, &["man"]).text(), main.trim());
    assert!(pages.join("stockade-policy-explain.1").exists());
    let file = std::fs::read_to_string(files.join("stockade.toml.5")).unwrap();
    assert_eq!(stockade(&ground, &["man", "stockade.toml"]).text(), file.trim());
    if there_is("groff", "that groff has no complaint about the pages") {
        for page in [&pages, &files].into_iter().flat_map(|pages| std::fs::read_dir(pages).unwrap()) {
            let page = page.unwrap().path();
            let mut groff = std::process::Command::new("groff");
            groff.args(["-man", "-ww", "-z", "-Tutf8"]).arg(&page);
            let ended = groff.output().unwrap();
            assert!(ended.status.success() && ended.stderr.is_empty(), "{}: {ended:?}", page.display());
        }
    }
}

#[test]
fn manual_of_an_unknown_subcommand_names_those_there_are() {
    let ended = stockade(&ground(), &["man", "rnu"]);
    ended.expect_code(1);
    assert!(ended.errors().contains("attach, logs"), "{}", ended.story());
}

#[test]
fn completions_are_read_by_their_shell_without_complaint() {
    let ground = ground();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = stockade(&ground, &["completions", shell]);
        ended.expect_code(0);
        assert!(ended.text().contains("policy"), "{}", ended.story());
        if !["bash", "zsh", "fish"].contains(&shell)
            || !there_is(shell, &format!("that {shell} reads its completions"))
        {
            continue;
        }
        let script = ground.put("completions", ended.text());
        let read = std::process::Command::new(shell).arg("-n").arg(script).output().unwrap();
        assert!(read.status.success() && read.stderr.is_empty(), "{shell}: {read:?}");
    }
}

#[test]
fn run_from_a_removed_directory_needs_a_workspace_and_nothing_else() {
    let ground = ground();
    let gone = ground.work().join("gone");
    let from_gone = |words: &str| {
        std::fs::create_dir(&gone).unwrap();
        let stockade = ground.stockade();
        let script = format!("rmdir \"$PWD\" && exec \"$0\" run {words}");
        let mut shell = ground.command("sh");
        shell.current_dir(&gone).arg("-c").arg(script).arg(stockade.get_program());
        Ended::of(shell)
    };
    let work = ground.work();
    let ended = from_gone(&format!("--embedded --workspace {} -- pwd", work.display()));
    ended.expect_code(0).expect_text(work.to_str().unwrap());
    let ended = from_gone("--embedded -- pwd");
    ended.expect_code(125);
    assert!(ended.errors().contains("cannot tell the current directory"), "{}", ended.story());
}
