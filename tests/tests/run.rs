//! What `stockade run` promises to whoever calls it: the exit status, the bytes, the environment, the place.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use rustix::process::Signal;
use stockade_tests::setting::marker;
use stockade_tests::{Ended, Person, Setting, left, wait_until};

/// Of what must come, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn exit_status_of_every_kind_is_passed_on() {
    for setting in Setting::each() {
        for code in [0, 1, 2, 3, 77, 124, 125, 126, 127, 128, 137, 200, 254, 255] {
            setting.bash("default", &format!("exit {code}")).expect_code(code);
        }
    }
}

#[test]
fn exit_status_of_a_signal_is_128_and_its_number() {
    for setting in Setting::each() {
        for (name, number) in [("HUP", 1), ("INT", 2), ("ABRT", 6), ("KILL", 9), ("SEGV", 11), ("TERM", 15)] {
            setting.bash("default", &format!("kill -{name} $$")).expect_code(128 + number);
        }
    }
}

#[test]
fn program_that_does_not_exist_is_127_and_names_where_it_looked() {
    for setting in Setting::each() {
        let ended = setting.run("default").words(["no-such-program-here"]).finish();
        ended.expect_code(127).expect_errors(&["no-such-program-here", "/usr/bin"]);
    }
}

#[test]
fn absolute_program_that_does_not_exist_is_127() {
    for setting in Setting::each() {
        let ended = setting.run("default").words(["/usr/bin/no-such-program-here"]).finish();
        ended.expect_code(127).expect_errors(&["/usr/bin/no-such-program-here"]);
    }
}

#[test]
fn file_that_is_not_executable_is_126() {
    for setting in Setting::each() {
        setting.ground.put("plain.txt", "no program\n");
        setting.run("default").words(["./plain.txt"]).finish().expect_code(126).expect_errors(&["plain.txt"]);
    }
}

#[test]
fn directory_as_program_is_126() {
    for setting in Setting::each() {
        setting.run("default").words(["/usr"]).finish().expect_code(126);
    }
}

#[test]
fn script_in_the_workspace_with_a_shebang_runs() {
    for setting in Setting::each() {
        setting.ground.put_program("script", "#!/bin/sh\necho \"ran $1\"\n");
        setting.run("default").words(["./script", "it"]).finish().expect_code(0).expect_text("ran it");
    }
}

#[test]
fn bytes_of_input_and_output_are_untouched() {
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for setting in Setting::each() {
        let ended = setting.run("default").input(bytes.clone()).words(["cat"]).finish();
        ended.expect_code(0);
        assert!(ended.stdout == bytes, "{:?}: {} bytes came", setting.mode, ended.stdout.len());
    }
}

#[test]
fn output_and_errors_stay_apart() {
    for setting in Setting::each() {
        let ended = setting.bash("default", "echo out; echo err >&2");
        ended.expect_code(0).expect_text("out");
        assert_eq!(ended.errors(), "err", "{}", ended.story());
    }
}

#[test]
fn arguments_that_are_not_utf8_arrive_as_they_are() {
    let odd = OsStr::from_bytes(b"\xff\xfe odd\n\x01'\"");
    for setting in Setting::each() {
        let words = [OsStr::new("printf"), OsStr::new("%s"), odd];
        let ended = setting.run("default").words(words).finish();
        ended.expect_code(0);
        assert_eq!(ended.stdout, odd.as_bytes(), "{}", ended.story());
    }
}

#[test]
fn command_without_input_reads_end_of_file() {
    for setting in Setting::each() {
        setting.run("default").words(["wc", "-c"]).finish().expect_code(0).expect_text("0");
    }
}

#[test]
fn environment_passes_only_what_the_policy_allows() {
    for setting in Setting::each() {
        let run = setting.run("default").variable("SECRET_TOKEN", "hush").variable("LC_TIME", "C");
        let ended = run.variable("LD_PRELOAD_NOT", "x").words(["env"]).finish();
        ended.expect_code(0);
        let text = ended.text();
        assert!(text.contains("LC_TIME=C"), "{}", ended.story());
        assert!(text.lines().any(|line| line.starts_with("PATH=")), "{}", ended.story());
        assert!(!text.contains("hush"), "{}", ended.story());
        assert!(!text.contains("LD_PRELOAD_NOT"), "{}", ended.story());
    }
}

#[test]
fn working_directory_is_the_callers_within_the_workspace() {
    for setting in Setting::each() {
        setting.ground.put("a/b/file", "x");
        let inner = setting.ground.work().join("a/b");
        let work = setting.ground.work();
        let option = ["--workspace", work.to_str().unwrap()];
        let ended = setting.run("default").option(&option).within(&inner).words(["pwd"]).finish();
        ended.expect_code(0).expect_text(inner.to_str().unwrap());
    }
}

#[test]
fn default_workspace_is_the_current_directory() {
    for setting in Setting::each() {
        let work = setting.ground.work();
        setting.run("default").words(["pwd"]).finish().expect_code(0).expect_text(work.to_str().unwrap());
    }
}

#[test]
fn files_written_in_the_workspace_belong_to_the_caller() {
    use std::os::unix::fs::MetadataExt as _;
    for setting in Setting::each() {
        setting.bash("default", "echo text > made; mkdir dir; echo more > dir/file").expect_code(0);
        for name in ["made", "dir", "dir/file"] {
            let owner = std::fs::metadata(setting.ground.work().join(name)).unwrap().uid();
            assert_eq!(owner, setting.ground.person.uid, "{:?}: {name}", setting.mode);
        }
    }
}

/// A project that a group shares, as on many machines.
#[test]
fn what_is_a_foreign_groups_in_the_workspace_is_the_owners_to_write_and_to_nobody_else() {
    use std::os::unix::fs::MetadataExt as _;
    const FOREIGN: u32 = 60_123;
    if !Person::me().is_root() {
        stockade_tests::not_tested("a workspace of a foreign group", "giving a file away needs root");
        return;
    }
    for setting in Setting::each() {
        let ground = &setting.ground;
        let (folder, file) = (ground.put("folder/inner", ""), ground.put("file", "old\n"));
        let (theirs, hidden) = (ground.put("theirs", "secret\n"), ground.put("hidden", "secret\n"));
        for path in [&ground.work(), folder.parent().unwrap(), &file] {
            std::os::unix::fs::chown(path, None, Some(FOREIGN)).unwrap();
        }
        // What only the group may read, and what somebody else of it has.
        for (path, owner) in [(&theirs, Some(60_124)), (&hidden, None)] {
            std::os::unix::fs::chown(path, owner, Some(FOREIGN)).unwrap();
        }
        let mode = std::os::unix::fs::PermissionsExt::from_mode;
        std::fs::set_permissions(&theirs, mode(0o660)).unwrap();
        std::fs::set_permissions(&hidden, mode(0o060)).unwrap();
        let lines =
            "echo new > file && echo made > folder/made && mv folder/inner moved && rm moved || exit 9
            cat theirs || cat hidden || chgrp {FOREIGN} folder/made || exit 7";
        let ended = setting.bash("default", &lines.replace("{FOREIGN}", &FOREIGN.to_string()));
        // Root outside may do all of that; its runs are nobody of any other group.
        ended.expect_code(7);
        assert!(!ended.text().contains("secret"), "{}", ended.story());
        let made = std::fs::metadata(ground.work().join("folder/made")).unwrap();
        assert_eq!((made.uid(), made.gid()), (ground.person.uid, ground.person.gid), "{:?}", setting.mode);
        assert_eq!(std::fs::metadata(&file).unwrap().gid(), FOREIGN);
    }
}

#[test]
fn wall_time_of_the_policy_ends_the_run_with_124() {
    for setting in Setting::each() {
        let ended = setting.run("test-second").words(["sleep", "30"]).finish();
        ended.expect_code(124).expect_errors(&["time", "1"]);
    }
}

#[test]
fn timeout_option_ends_the_run_with_124() {
    for setting in Setting::each() {
        let ended = setting.run("default").option(&["--timeout", "500ms"]).words(["sleep", "30"]).finish();
        ended.expect_code(124).expect_errors(&["time", "500"]);
    }
}

#[test]
fn timeout_option_that_would_widen_is_refused_with_125() {
    for setting in Setting::each() {
        let ended = setting.run("test-second").option(&["--timeout", "1h"]).words(["true"]).finish();
        assert!(matches!(ended.code, Some(0 | 125)), "{}", ended.story());
        let ended = setting.run("test-second").option(&["--timeout", "1h"]).words(["sleep", "3"]).finish();
        assert!(matches!(ended.code, Some(124 | 125)), "{}", ended.story());
    }
}

#[test]
fn idle_time_ends_a_silent_run_and_not_a_talking_one() {
    // All at once: it takes its time.
    let talking = "for i in {1..21}; do echo $i; sleep 0.2; done";
    let settings: Vec<_> = Setting::each().collect();
    let start = |setting: &Setting| {
        let run = |words: &[&str]| setting.run("test-idle").words(words).start();
        (run(&["sleep", "50"]), run(&["bash", "-c", talking]))
    };
    let started: Vec<_> = settings.iter().map(start).collect();
    for (silent, talking) in started {
        silent.finish().expect_code(124).expect_errors(&["idle"]);
        talking.finish().expect_code(0);
    }
}

#[test]
fn processor_time_ends_a_spinning_run_with_124() {
    for setting in Setting::each() {
        let ended = setting.bash("test-cpu", "while :; do :; done");
        ended.expect_code(124).expect_errors(&["of processor time"]);
    }
}

#[test]
fn memory_option_ends_a_hog_with_137() {
    for setting in Setting::each() {
        let probe = setting.ground.put_probe();
        let run = setting.run("default").option(&["--memory", "64MiB"]);
        let ended = run.words([probe.as_os_str(), OsStr::new("allocate"), OsStr::new("400")]).finish();
        ended.expect_code(137).expect_errors(&["memory"]);
    }
}

#[test]
fn output_over_the_limit_ends_the_run_and_keeps_what_fits() {
    for setting in Setting::each() {
        let ended = setting.bash("test-output", "yes | head -c 50000000");
        ended.expect_code(125).expect_errors(&["output"]);
        assert_eq!(ended.stdout.len(), 1024 * 1024, "{:?}", setting.mode);
    }
}

/// All that it writes fits into its pipe, so it's over before anybody has read a byte.
#[test]
fn output_over_the_limit_ends_a_run_that_has_ended_by_itself_too() {
    for setting in Setting::each() {
        for _ in 0..5 {
            let words = ["head", "-c", "60000", "/dev/zero"];
            let ended = setting.run("test-little-output").words(words).finish();
            ended.expect_code(125).expect_errors(&["output"]);
            assert_eq!(ended.stdout.len(), 4096, "{:?}", setting.mode);
            let words = ["head", "-c", "4096", "/dev/zero"];
            let ended = setting.run("test-little-output").words(words).finish();
            ended.expect_code(0);
            assert_eq!(ended.stdout.len(), 4096, "{:?}", setting.mode);
        }
    }
}

#[test]
fn interrupt_reaches_the_command_which_may_handle_it() {
    for setting in Setting::each() {
        let line = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.1; done";
        let started = setting.run("default").words(["bash", "-c", line]).start();
        started.says("ready");
        started.interrupt();
        let ended = started.finish();
        ended.expect_code(5);
        assert!(ended.text().contains("caught"), "{}", ended.story());
    }
}

#[test]
fn second_interrupt_cancels_a_command_that_ignores_the_first() {
    for setting in Setting::each() {
        let word = marker("stubborn");
        let line = format!("trap '' INT TERM; echo ready; while :; do sleep 0.1; done # {word}");
        let started = setting.run("default").words(["bash", "-c", &line]).start();
        started.says("ready");
        for _ in 0..2 {
            started.interrupt();
        }
        let ended = started.finish();
        assert!(matches!(ended.code, Some(125 | 130)), "{}", ended.story());
        assert!(wait_until(PATIENCE, || left::with_word(&word).is_empty()));
    }
}

#[test]
fn run_ends_at_its_time_limit_though_the_command_line_is_stopped() {
    for setting in Setting::each().filter(|setting| !setting.mode.has_daemon()) {
        let word = marker("stopped");
        // Long enough for us to stop the client before.
        let run = setting.run("default").option(&["--timeout", "5s"]);
        let line = format!("echo > up; setsid sleep 50 & sleep 50; echo {word}");
        let started = run.words(["bash", "-c", &line]).start();
        let up = setting.ground.work().join("up");
        assert!(wait_until(PATIENCE, || up.exists()), "{:?}", setting.mode);
        started.signal(Signal::STOP);
        let inside = || left::with_word(&word).len() > 1;
        assert!(inside(), "{:?}: it ended before it was stopped", setting.mode);
        // What has the word is then the command line alone.
        let gone = wait_until(PATIENCE, || !inside());
        assert!(gone, "{:?}: {:?}", setting.mode, left::with_word(&word));
        started.signal(Signal::CONT);
        started.finish().expect_code(124).expect_errors(&["time limit"]);
    }
}

#[test]
fn killed_client_takes_its_run_with_it() {
    for setting in Setting::each() {
        let word = marker("orphan");
        let mut started =
            setting.run("default").words(["bash", "-c", &format!("sleep 50; echo {word}")]).start();
        let up = wait_until(PATIENCE, || left::with_word(&word).len() > 1);
        assert!(up, "{:?}: {:?}", setting.mode, left::with_word(&word));
        started.child.kill().unwrap();
        started.child.wait().unwrap();
        let gone = wait_until(PATIENCE, || left::with_word(&word).is_empty());
        assert!(gone, "{:?}: {:?}", setting.mode, left::with_word(&word));
    }
}

#[test]
fn unknown_policy_names_the_nearest() {
    for setting in Setting::each() {
        let ended = setting.run("defualt").words(["true"]).finish();
        ended.expect_code(125).expect_errors(&["defualt", "default"]);
    }
}

#[test]
fn workspace_that_is_a_file_or_gone_is_named() {
    for setting in Setting::each() {
        let file = setting.ground.put("file", "x");
        for (path, word) in [(file.to_str().unwrap(), "file"), ("/no/such/place", "/no/such/place")] {
            let ended = setting.run("default").option(&["--workspace", path]).words(["true"]).finish();
            ended.expect_code(125).expect_errors(&[word]);
        }
    }
}

#[test]
fn workspace_that_would_cover_the_system_is_refused() {
    for setting in Setting::each() {
        for path in ["/", "/usr", "/proc", "/etc"] {
            let ended = setting.run("default").option(&["--workspace", path]).words(["true"]).finish();
            ended.expect_code(125);
        }
    }
}

#[test]
fn workspace_that_is_not_the_callers_is_named() {
    for setting in Setting::each().filter(|setting| !setting.ground.person.is_root()) {
        let closed = setting.ground.base().join("closed");
        std::fs::create_dir(&closed).unwrap();
        setting.ground.person.own(&closed);
        std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
        let path = closed.join("inner");
        let run = setting.run("default").option(&["--workspace", path.to_str().unwrap()]);
        let ended = run.words(["true"]).finish();
        std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        ended.expect_code(125).expect_errors(&["closed"]);
        // Whoever isn't root can't clear away what it can't look into.
        std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    }
}

#[test]
fn workspace_behind_a_symbolic_link_works() {
    for setting in Setting::each() {
        setting.ground.put("file", "found\n");
        let link = setting.ground.base().join("link");
        std::os::unix::fs::symlink(setting.ground.work(), &link).unwrap();
        let run = setting.run("default").option(&["--workspace", link.to_str().unwrap()]);
        run.words(["cat", "file"]).finish().expect_code(0).expect_text("found");
        let run = setting.run("default").within(&link).variable("PWD", &link);
        run.words(["bash", "-c", "cat file; echo x > made"]).finish().expect_code(0).expect_text("found");
        assert!(setting.ground.work().join("made").exists());
    }
}

#[test]
fn directory_of_the_client_that_is_gone_is_named() {
    for setting in Setting::each() {
        let gone = setting.ground.work().join("gone");
        std::fs::create_dir(&gone).unwrap();
        setting.ground.person.own(&gone);
        let run = setting.run("default").words(["true"]).into_command();
        let words: Vec<_> =
            std::iter::once(run.get_program()).chain(run.get_args()).map(ToOwned::to_owned).collect();
        let mut shell = setting.ground.command("bash");
        shell.args(["-c", "cd gone; rmdir ../gone; exec \"$@\"", "bash"]).args(words);
        Ended::of(shell).expect_code(125).expect_errors(&["director"]);
    }
}

#[test]
fn home_as_workspace_is_the_real_home() {
    for setting in Setting::each().filter(|setting| !setting.mode.has_daemon()) {
        let home = setting.ground.home();
        let run = setting.run("default").within(&home);
        run.words(["cat", "secret.txt"]).finish().expect_code(0).expect_text("the secret of home");
    }
}

#[test]
fn sandbox_within_a_sandbox_works_at_minimal_and_else_says_so() {
    for setting in Setting::each() {
        let _ = setting.ground.put_stockade();
        let words = ["./stockade", "run", "--embedded", "--", "echo", "inner"];
        let ended = setting.run("default").words(words).finish();
        ended.expect_code(125).expect_errors(&["minimal"]);
        // A container's filter is much like ours: the level that is for such places works there.
        let words = ["./stockade", "run", "--embedded", "--policy", "minimal", "--", "echo", "inner"];
        setting.run("default").words(words).finish().expect_code(0).expect_text("inner");
    }
}

#[test]
fn hidden_variables_of_the_loader_do_not_reach_the_tool() {
    for setting in Setting::each() {
        let run = setting.run("default").variable("LD_PRELOAD", "/nonexistent.so").variable("BASH_ENV", "/x");
        let ended = run.words(["sh", "-c", "echo ${LD_PRELOAD-unset} ${BASH_ENV-unset}"]).finish();
        ended.expect_code(0).expect_text("unset unset");
    }
}

#[test]
fn variable_that_is_asked_for_and_not_allowed_does_not_arrive() {
    for setting in Setting::each() {
        let run = setting.run("default").option(&["--env", "MY_SECRET=x"]);
        let ended = run.words(["sh", "-c", "echo got $MY_SECRET"]).finish();
        assert!(!ended.text().contains('x'), "{}", ended.story());
        // A daemon is told variables, not which of them somebody insists on: it leaves out what isn't allowed.
        if !setting.mode.has_daemon() {
            ended.expect_code(125).expect_errors(&["MY_SECRET", "default"]);
        }
        let run = setting.run("default").option(&["--env", "LC_TIME=C"]);
        run.words(["sh", "-c", "echo $LC_TIME"]).finish().expect_code(0).expect_text("C");
    }
}

#[test]
fn first_command_of_the_readme_prints_42_from_the_callers_own_environment() {
    let binaries = stockade_tests::binaries::Binaries::get();
    let mut command = std::process::Command::new(&binaries.stockade);
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    command.args(["run", "--", "python3", "-c", "print(6*7)"]).current_dir(root);
    command.env_remove("STOCKADE_SOCKET").env_remove("XDG_RUNTIME_DIR");
    Ended::of(command).expect_code(0).expect_text("42");
}

#[test]
fn argument_over_the_kernels_limit_is_refused_by_name() {
    for setting in Setting::each() {
        // The kernel itself refuses a longer one to the client; a few of the longest together are over our bound.
        let long = "x".repeat(127 * 1024);
        let words = ["true", &long, &long, &long, &long, &long, &long, &long, &long];
        let ended = setting.run("default").words(words).finish();
        ended.expect_code(125).expect_errors(&["argument"]);
    }
}

#[test]
fn json_events_are_lines_with_one_exited_at_the_end() {
    for setting in Setting::each() {
        let ended = setting.run("default").option(&["--json"]).words(["echo", "hello"]).finish();
        ended.expect_code(0);
        let lines: Vec<serde_json::Value> =
            ended.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let text: Vec<String> = lines.iter().map(ToString::to_string).collect();
        assert!(text.first().unwrap().contains("accepted"), "{}", ended.story());
        assert!(text.get(1).unwrap().contains("started"), "{}", ended.story());
        assert_eq!(text.iter().filter(|line| line.contains("\"exited\"")).count(), 1, "{}", ended.story());
        assert!(text.last().unwrap().contains("exited"), "{}", ended.story());
        assert!(ended.text().contains("hello"), "{}", ended.story());
    }
}
