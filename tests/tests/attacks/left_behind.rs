//! What a run leaves behind is inert, and what it's handed stays what it was. What is denied and protected within a workspace
//! is tried in `tests/tests/guard.rs`.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use stockade_tests::setting::text_of;
use stockade_tests::{Ended, Ground, Person, Setting, wait_until};

use crate::stage::Stage;
use crate::table;
use crate::tries;

/// Everything beneath a directory that isn't a plain file, a directory or a link, or has a bit that gives privilege.
fn strange(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let status = std::fs::symlink_metadata(&path).unwrap();
        let kind = status.file_type();
        let special = kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device();
        if special || (!kind.is_symlink() && status.mode() & 0o6000 != 0) {
            found.push(format!("{} {:o}", path.display(), status.mode()));
        }
        if kind.is_dir() {
            found.extend(strange(&path));
        }
    }
    found
}

/// After every attack of the table has been tried, nothing in the workspace, the cache and the home is any of this.
#[test]
fn nothing_with_privilege_and_nothing_that_blocks_is_left_on_the_hosts_disk() {
    for setting in Setting::each() {
        for policy in ["default", "build", "moderate", "minimal"] {
            let attacks: Vec<_> = table::all().collect();
            let setting = Setting {
                mode: setting.mode,
                ground: Ground::new(setting.mode.client()),
                daemon: setting.daemon.clone(),
            };
            let stage = Stage::new(&setting.ground);
            let words = tries::command(&setting.ground, &stage, &attacks);
            let ended = tries::finish(|| setting.run(policy).words(&words));
            assert!(tries::answers(&ended.text()).len() >= 150, "{}", ended.story());
            for directory in [setting.ground.work(), setting.ground.home()] {
                let left = strange(&directory);
                assert!(left.is_empty(), "{policy}, {:?}: {left:#?}", setting.mode);
            }
            drop(stage);
        }
    }
}

/// The twin: outside the same list leaves all of it.
#[test]
fn what_would_be_left_is_left_where_nothing_prevents_it() {
    let ground = Ground::new(Person::user());
    let stage = Stage::new(&ground);
    let attacks: Vec<_> = table::all().collect();
    let words = tries::command(&ground, &stage, &attacks);
    let mut command = ground.command(&words[0]);
    command.args(&words[1..]);
    let ended = Ended::of(command);
    let left = strange(&ground.work());
    assert!(left.len() >= 8, "{left:#?}: {}", ended.story());
}

/// A file that is the command's input can be read, and not opened again for writing.
#[test]
fn input_that_was_passed_for_reading_is_not_opened_for_writing() {
    for setting in Setting::each() {
        let probe = text_of(&setting.ground.put_probe());
        let input = setting.ground.outside().join("input.txt");
        std::fs::write(&input, "input\n").unwrap();
        std::fs::set_permissions(&input, std::fs::Permissions::from_mode(0o666)).unwrap();
        setting.ground.person.own(&input);
        for policy in ["strict", "default", "moderate", "minimal"] {
            let mut command =
                setting.run(policy).words([probe.as_str(), "reopen-standard", "0"]).into_command();
            command.stdin(std::fs::File::open(&input).unwrap());
            let ended = Ended::of(command);
            ended.expect_code(0);
            assert!(ended.text().contains("errno="), "{policy}: {}", ended.story());
        }
        let mut command = setting.ground.command(&probe);
        command.args(["reopen-standard", "0"]).stdin(std::fs::File::open(&input).unwrap());
        Ended::of(command).expect_text("reopen-standard ok");
    }
}

/// The kernel signals whoever a pipe has been given to when there is something to read: not a process of the host's.
#[test]
fn process_of_the_host_gets_no_signal_by_way_of_a_pipe() {
    for setting in Setting::each() {
        let probe = text_of(&setting.ground.put_probe());
        let sleeper = || {
            let mut sleeper = setting.ground.command("sleep");
            sleeper.arg("1000");
            sleeper.spawn().unwrap()
        };
        let mut victim = sleeper();
        for policy in ["default", "moderate", "minimal"] {
            let pid = victim.id().to_string();
            let words = [probe.as_str(), "signal-by-pipe", &pid];
            let ended = tries::finish(|| setting.run(policy).words(words));
            ended.expect_code(0);
            assert!(victim.try_wait().unwrap().is_none(), "{policy}: {}", ended.story());
        }
        // Outside the same signal ends it.
        let mut command = setting.ground.command(&probe);
        command.args(["signal-by-pipe", &victim.id().to_string()]);
        Ended::of(command).expect_text("signal-by-pipe ok");
        let ended = wait_until(Duration::from_secs(10), || victim.try_wait().unwrap().is_some());
        let _ = victim.kill();
        let _ = victim.wait();
        assert!(ended, "SIGIO ends nobody here");
    }
}
