//! Deny inside allow: names that stay out of reach, or as they are, in a workspace that may be written.
//!
//! `deny` holds whether the name exists or not; `protect` holds for what exists when the run starts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests wait")]

use stockade_tests::setting::Ended;
use stockade_tests::{Setting, left, wait_until};

/// Of what must come, on a busy machine too.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A workspace with everything that `test-deny` names, and `future.txt` and `later/` missing.
fn furnish(setting: &Setting) {
    for (name, text) in [
        ("secret.txt", "hush\n"),
        ("deep/er/hidden.txt", "hush\n"),
        ("deep/kept.txt", "kept\n"),
        ("locked/inside.txt", "hush\n"),
        ("kept.txt", "kept\n"),
        ("keptdir/file", "kept\n"),
        ("plain.txt", "plain\n"),
    ] {
        setting.ground.put(name, text);
    }
}

/// What each name must hold afterwards.
fn expect_untouched(setting: &Setting, ended: &Ended) {
    for (name, text) in [
        ("secret.txt", "hush\n"),
        ("deep/er/hidden.txt", "hush\n"),
        ("deep/kept.txt", "kept\n"),
        ("locked/inside.txt", "hush\n"),
        ("kept.txt", "kept\n"),
        ("keptdir/file", "kept\n"),
    ] {
        let found = std::fs::read_to_string(setting.ground.work().join(name));
        assert_eq!(found.ok().as_deref(), Some(text), "{name}: {}", ended.story());
    }
}

/// Each line must fail inside, hushed text must not come out, and nothing named may have changed.
#[track_caller]
fn expect_refused(lines: &[&str]) {
    for setting in Setting::each() {
        for line in lines {
            furnish(&setting);
            let ended = setting.bash("test-deny", &format!("{line} && echo PASSED; true"));
            ended.expect_code(0);
            assert!(!ended.text().contains("PASSED"), "{line}: {}", ended.story());
            assert!(!ended.text().contains("hush"), "{line}: {}", ended.story());
            expect_untouched(&setting, &ended);
        }
    }
}

const READS: &[&str] = &[
    "cat secret.txt",
    "cat ./deep/../secret.txt",
    "cat deep/er/hidden.txt",
    "cat locked/inside.txt",
    "ls locked | grep .",
    "cp secret.txt copy && cat copy",
    "cat /proc/self/root$PWD/secret.txt",
    "cat /proc/self/cwd/secret.txt",
    "cd deep/er && cat hidden.txt",
    "exec 5<secret.txt && cat <&5",
];

const CHANGES: &[&str] = &[
    "echo x > secret.txt",
    "echo x >> secret.txt",
    "echo x 1<> secret.txt",
    "truncate -s 0 secret.txt",
    "rm -f secret.txt",
    "mv secret.txt gone.txt",
    "mv -f plain.txt secret.txt",
    "ln -f plain.txt secret.txt",
    "ln secret.txt other.txt",
    "chmod 777 locked/inside.txt",
    "touch locked/new",
    "rm -rf locked",
    "mv locked unlocked",
    "sed -i s/hush/loud/ secret.txt",
    "perl -e 'rename(\"plain.txt\", \"secret.txt\") or exit 1'",
];

const MOVES: &[&str] = &[
    "mv deep away",
    "mv deep/er deep/away",
    "mv deep away; mkdir -p deep/er && echo x > deep/er/hidden.txt",
    "perl -e 'rename(\"deep\", \"away\") or exit 1'",
];

const LINKS: &[&str] = &[
    "ln -s secret.txt alias && cat alias",
    "ln -s deep short && cat short/er/hidden.txt",
    "ln -s . self && cat self/self/secret.txt",
    "ln -s secret.txt alias2 && echo x > alias2",
];

const PROTECTED: &[&str] = &[
    "echo x > kept.txt",
    "echo x >> deep/kept.txt",
    "truncate -s 0 kept.txt",
    "rm -f kept.txt",
    "mv kept.txt gone.txt",
    "mv -f plain.txt kept.txt",
    "chmod 777 kept.txt",
    "touch -d 2001-01-01 kept.txt",
    "echo x > keptdir/file",
    "touch keptdir/new",
    "rm -rf keptdir",
    "mv keptdir away",
    "mv deep away",
];

#[test]
fn every_try_on_a_guarded_file_succeeds_where_it_is_not_guarded() {
    let Some(setting) = Setting::each().next() else { return };
    for line in [READS, CHANGES, MOVES, LINKS, PROTECTED].concat() {
        let _ = std::fs::remove_dir_all(setting.ground.work());
        furnish(&setting);
        let ended = setting.bash("default", &format!("{line} && echo PASSED; true"));
        assert!(ended.text().contains("PASSED"), "{line}: {}", ended.story());
    }
}

#[test]
fn denied_file_cannot_be_read() {
    expect_refused(READS);
}

#[test]
fn denied_file_cannot_be_changed() {
    expect_refused(CHANGES);
}

#[test]
fn ancestor_of_a_denied_file_cannot_be_moved_away() {
    expect_refused(MOVES);
}

#[test]
fn symbolic_link_does_not_lead_to_a_denied_file() {
    expect_refused(LINKS);
}

#[test]
fn protected_file_can_be_read() {
    for setting in Setting::each() {
        furnish(&setting);
        let ended = setting.bash("test-deny", "cat kept.txt deep/kept.txt keptdir/file");
        ended.expect_code(0).expect_text("kept\nkept\nkept");
    }
}

#[test]
fn protected_file_cannot_be_changed() {
    expect_refused(PROTECTED);
}

#[test]
fn rest_of_the_workspace_stays_writable_beside_a_denied_file() {
    for setting in Setting::each() {
        furnish(&setting);
        let line =
            "echo new > made && echo x > deep/other && mkdir deep/er/more && rm plain.txt && mv made moved";
        setting.bash("test-deny", line).expect_code(0);
        let work = setting.ground.work();
        assert!(work.join("moved").exists() && work.join("deep/er/more").is_dir());
        assert!(!work.join("plain.txt").exists());
    }
}

#[test]
fn denied_name_that_does_not_exist_cannot_be_made_and_leaves_no_ghost() {
    for setting in Setting::each() {
        for line in [
            "echo x > future.txt",
            "touch future.txt",
            "mkdir future.txt",
            "echo y > z; mv z future.txt",
            "ln -s /etc/passwd future.txt",
            "mkdir -p later && echo x > later/on.txt",
        ] {
            let before = left::names(&setting.ground.work());
            let ended = setting.bash("test-deny", &format!("{line} && echo PASSED; rm -f z; true"));
            ended.expect_code(0);
            let work = setting.ground.work();
            let made =
                std::fs::read(work.join("future.txt")).or_else(|_| std::fs::read(work.join("later/on.txt")));
            assert!(made.is_err(), "{line}: {}", ended.story());
            if !line.contains("later") {
                assert_eq!(left::names(&work), before, "{line}: {}", ended.story());
            }
            let _ = std::fs::remove_dir_all(work.join("later"));
        }
    }
}

#[test]
fn placeholder_stays_as_long_as_one_of_two_runs_needs_it() {
    for setting in Setting::each() {
        let first = setting.run("test-deny").words(["sleep", "0.5"]).start();
        let line = "sleep 1.5; (echo x > future.txt) 2>/dev/null && echo PASSED; true";
        let second = setting.run("test-deny").words(["bash", "-c", line]).start();
        first.finish().expect_code(0);
        let ended = second.finish();
        ended.expect_code(0).expect_text("");
        let found = left::names(&setting.ground.work());
        assert!(!found.contains("future.txt"), "{found:?}: {}", ended.story());
    }
}

#[test]
fn client_killed_in_the_middle_leaves_no_ghost_for_long() {
    for setting in Setting::each() {
        let mut started = setting.run("test-deny").words(["sleep", "30"]).start();
        std::thread::sleep(std::time::Duration::from_millis(500));
        started.child.kill().unwrap();
        started.child.wait().unwrap();
        let is_clean = || left::names(&setting.ground.work()).is_empty();
        let cleaned = wait_until(std::time::Duration::from_secs(3), is_clean);
        if !cleaned {
            // What a kill left, the next run takes away.
            setting.bash("test-deny", "true").expect_code(0);
        }
        assert!(
            wait_until(PATIENCE, is_clean),
            "{:?}: {:?}",
            setting.mode,
            left::names(&setting.ground.work())
        );
    }
}

#[test]
fn hooks_and_config_of_an_existing_repository_stay_as_they_are() {
    for setting in Setting::each() {
        setting.ground.put(".git/config", "[core]\n");
        setting.ground.put(".git/hooks/pre-commit.sample", "sample\n");
        setting.ground.put(".git/HEAD", "ref: refs/heads/main\n");
        for line in [
            "echo x > .git/hooks/pre-commit",
            "echo '[alias]' >> .git/config",
            "mv .git .git2; mkdir -p .git/hooks && echo x > .git/hooks/pre-commit",
            "rm -rf .git/hooks",
            "mv .git/hooks .git/old",
            "ln -sf /tmp .git/hooks",
            "perl -e 'unlink \".git/config\" or exit 1'",
            "git config core.fsmonitor 'touch /tmp/x'",
        ] {
            let ended = setting.bash("default", &format!("({line}) 2>&1; true"));
            let work = setting.ground.work();
            assert!(!work.join(".git/hooks/pre-commit").exists(), "{line}: {}", ended.story());
            assert!(work.join(".git/hooks/pre-commit.sample").exists(), "{line}: {}", ended.story());
            let config = std::fs::read_to_string(work.join(".git/config"));
            assert_eq!(config.unwrap(), "[core]\n", "{line}: {}", ended.story());
        }
    }
}

#[test]
fn start_up_and_editor_files_that_exist_stay_as_they_are() {
    let names = [
        ".bashrc",
        ".profile",
        ".vscode/tasks.json",
        ".stockade/policy.toml",
        ".config/stockade/policies/mine.toml",
        ".envrc",
        ".mcp.json",
        ".hg/hgrc",
        ".ssh/authorized_keys",
        ".config/systemd/user/mine.service",
    ];
    for setting in Setting::each() {
        for name in names {
            setting.ground.put(name, "mine\n");
        }
        for name in names {
            let ended = setting.bash("default", &format!("echo theirs > {name}; rm -f {name}; true"));
            let found = std::fs::read_to_string(setting.ground.work().join(name));
            assert_eq!(found.ok().as_deref(), Some("mine\n"), "{name}: {}", ended.story());
        }
    }
}

#[test]
fn repository_can_be_made_where_there_is_none_and_its_trusted_files_are_listed() {
    for setting in Setting::each() {
        let run = setting.run("default").option(&["--json"]).words(["git", "init", "-q", "."]);
        let ended = run.finish();
        ended.expect_code(0);
        assert!(setting.ground.work().join(".git/config").exists(), "{}", ended.story());
        let last = ended.text().lines().last().unwrap().to_owned();
        assert!(last.contains(".git/config"), "{last}");
    }
}

#[test]
fn run_leaves_no_ghost_of_guarded_names_in_an_empty_workspace() {
    for setting in Setting::each() {
        setting.bash("default", "true").expect_code(0);
        let found = left::names(&setting.ground.work());
        assert!(found.is_empty(), "{:?}: {found:?}", setting.mode);
    }
}

#[test]
fn rename_on_the_host_does_not_open_a_guarded_file_to_a_live_run() {
    for setting in Setting::each() {
        furnish(&setting);
        // It tries before the rename and long after it: the moment between the rename and the end is the named gap.
        let line = "try() { (echo theirs > kept.txt) 2>/dev/null; cat secret.txt 2>/dev/null; }; \
                    try; : > tried; until [ -e go ]; do sleep 0.02; done; try; true";
        let mut started = setting.run("test-deny").words(["bash", "-c", line]).start();
        assert!(wait_until(PATIENCE, || setting.ground.work().join("tried").exists()));
        // What an editor or `git config` does: a new file renamed over the old one.
        for (name, text) in [("kept.txt", "kept\n"), ("secret.txt", "hush\n")] {
            setting.ground.put("swap", text);
            std::fs::rename(setting.ground.work().join("swap"), setting.ground.work().join(name)).unwrap();
        }
        // It's ended for that, or masked again: then it goes on.
        wait_until(std::time::Duration::from_secs(10), || started.child.try_wait().unwrap().is_some());
        setting.ground.put("go", "");
        let ended = started.finish();
        assert!(!ended.text().contains("hush"), "{}", ended.story());
        expect_untouched(&setting, &ended);
    }
}

#[test]
fn links_and_devices_with_privilege_cannot_be_left_in_the_workspace() {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    for setting in Setting::each() {
        let probe = setting.ground.put_probe();
        let probe = probe.display();
        let line = format!(
            "cp /bin/true tool; chmod u+s tool; chmod 6755 tool; {probe} create-mode made 6755; \
             {probe} mkdir-mode dir 6755; {probe} make-device null 1 3; {probe} make-device-plain white; \
             perl -e 'chmod 04755, \"tool\"'; tar --version >/dev/null; install -m 4755 /bin/true tool2; true"
        );
        let ended = setting.bash("default", &line);
        for name in left::names(&setting.ground.work()) {
            let found = std::fs::symlink_metadata(setting.ground.work().join(&name)).unwrap();
            assert_eq!(found.mode() & 0o6000, 0, "{name}: {}", ended.story());
            let kind = found.file_type();
            assert!(!kind.is_char_device() && !kind.is_block_device(), "{name}: {}", ended.story());
        }
    }
}
