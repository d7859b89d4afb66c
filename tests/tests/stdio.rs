//! What a tool's standard descriptors are: the client's own where nothing forbids it, else pipes of ours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use stockade_tests::{Ended, Setting, not_tested, program};

#[test]
fn file_passes_through_where_the_policy_has_no_rule_on_output() {
    for setting in Setting::each() {
        let path = setting.ground.put("out", "");
        let file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        let inode = file.metadata().unwrap().ino();
        let words = ["stat", "-L", "-c", "%i", "/proc/self/fd/1"];
        let mut command = setting.run("test-plain").words(words).into_command();
        let status = command.stdout(file).stderr(Stdio::inherit()).status().unwrap();
        assert!(status.success(), "{:?}: {status}", setting.mode);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.trim(), inode.to_string(), "{:?}", setting.mode);
    }
}

#[test]
fn file_is_written_by_us_where_the_policy_has_a_rule_on_output() {
    for setting in Setting::each() {
        let path = setting.ground.put("out", "");
        let file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        let mut command = setting.run("default").words(["readlink", "/proc/self/fd/1"]).into_command();
        let status = command.stdout(file).stderr(Stdio::inherit()).status().unwrap();
        assert!(status.success(), "{:?}: {status}", setting.mode);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("pipe:"), "{:?}: {text}", setting.mode);
    }
}

#[test]
fn socket_is_never_handed_to_the_tool() {
    for setting in Setting::each() {
        for policy in ["default", "test-plain"] {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            let line = "for n in 0 1 2; do readlink /proc/self/fd/$n; done; cat";
            let mut command = setting.run(policy).words(["bash", "-c", line]).into_command();
            let input = OwnedFd::from(theirs.try_clone().unwrap());
            command.stdin(input).stdout(OwnedFd::from(theirs)).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            drop(command);
            std::io::Write::write_all(&mut ours, b"through\n").unwrap();
            ours.shutdown(std::net::Shutdown::Write).unwrap();
            let mut text = String::new();
            ours.read_to_string(&mut text).unwrap();
            assert!(child.wait().unwrap().success(), "{:?}, {policy}: {text}", setting.mode);
            assert!(!text.contains("socket:"), "{:?}, {policy}: {text}", setting.mode);
            assert!(text.ends_with("through\n"), "{:?}, {policy}: {text}", setting.mode);
        }
    }
}

#[test]
fn directory_as_input_is_refused() {
    for setting in Setting::each() {
        let folder = std::fs::File::open(setting.ground.outside()).unwrap();
        let mut command = setting.run("default").words(["ls", "/proc/self/fd/0/"]).into_command();
        command.stdin(folder);
        let ended = stockade_tests::setting::Started::of(
            command,
            None,
            std::time::Duration::from_secs(90),
            "a directory on standard input",
        )
        .finish();
        assert_ne!(ended.code, Some(0), "{}", ended.story());
        assert!(!ended.text().contains("secret"), "{}", ended.story());
    }
}

#[test]
fn closed_descriptors_of_the_client_do_not_become_something_else() {
    for setting in Setting::each() {
        let run = setting
            .run("default")
            .words(["bash", "-c", "echo out; echo err >&2; cat; exit 4"])
            .into_command();
        let words: Vec<_> =
            std::iter::once(run.get_program()).chain(run.get_args()).map(ToOwned::to_owned).collect();
        let mut shell = setting.ground.command("bash");
        shell.args(["-c", "exec \"$@\" <&- >&- 2>&-", "bash"]).args(words);
        let ended = Ended::of(shell);
        assert!(matches!(ended.code, Some(4 | 125)), "{}", ended.story());
    }
}

#[test]
fn reader_that_goes_away_ends_the_run_like_any_other_command() {
    for setting in Setting::each() {
        let run = setting.run("test-long").words(["yes"]).into_command();
        let words: Vec<_> =
            std::iter::once(run.get_program()).chain(run.get_args()).map(ToOwned::to_owned).collect();
        let mut shell = setting.ground.command("bash");
        shell.args(["-c", "\"$@\" | head -n 3; echo \"${PIPESTATUS[0]}\"", "bash"]).args(words);
        let ended = Ended::of(shell);
        let text = ended.text();
        assert!(text.starts_with("y\ny\ny\n"), "{}", ended.story());
        let status: i32 = text.lines().last().unwrap().parse().unwrap();
        assert_ne!(status, 0, "{}", ended.story());
    }
}

#[test]
fn terminal_that_passes_through_takes_no_injected_input() {
    if program("script").is_none() {
        not_tested("a terminal on the standard descriptors", "script isn't installed");
        return;
    }
    let code = "import fcntl, os\ntry:\n    fcntl.ioctl(0, 0x5412, b'x')\n    print('injected')\nexcept OSError as e:\n    print('errno', e.errno, os.isatty(0), os.isatty(1))";
    for setting in Setting::each() {
        setting.ground.put("inject.py", code);
        let run = setting.run("test-plain").words(["/usr/bin/python3", "inject.py"]).into_command();
        let line: Vec<String> = std::iter::once(run.get_program())
            .chain(run.get_args())
            .map(|word| format!("'{}'", word.to_str().unwrap()))
            .collect();
        let mut script = setting.ground.command("script");
        script.args(["-qec", &line.join(" "), "/dev/null"]);
        let ended = Ended::of(script);
        assert!(!ended.text().contains("injected"), "{}", ended.story());
        assert!(ended.text().contains("errno"), "{}", ended.story());
    }
}
