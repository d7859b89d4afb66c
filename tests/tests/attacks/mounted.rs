//! Workspaces that are mounts, or have some in them: an overlay, a read-only submount, devices and setuid bits that are there
//! already. Everything is mounted in a mount namespace of the test's own, so these are runs without a daemon.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use stockade_tests::setting::text_of;
use stockade_tests::{Ended, Mode, Person, Setting, not_tested, program};

/// The settings in which mounts can be made: those of a test that runs as root.
fn settings(of: &str) -> Vec<Setting> {
    let needed = ["unshare", "setpriv", "mount"];
    if !Person::me().is_root() || needed.iter().any(|name| program(name).is_none()) {
        not_tested(of, "it needs root, to mount, and util-linux");
        return Vec::new();
    }
    let can_mount = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "none", "/mnt"]).status();
    if !can_mount.is_ok_and(|status| status.success()) {
        not_tested(of, "this root may not mount");
        return Vec::new();
    }
    Mode::here().into_iter().filter(|mode| !mode.has_daemon()).map(Setting::new).collect()
}

/// Runs a line of bash under a policy, in a mount namespace in which `prepare` was run as root before, with `$1` the ground.
fn run(setting: &Setting, prepare: &str, policy: &str, line: &str) -> Ended {
    let inner = setting.run(policy).words(["bash", "-c", line]).into_command();
    let person = setting.ground.person;
    let mut command = Command::new("unshare");
    command.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.args(["-m", "--propagation", "private", "bash", "-c"]);
    // The workspace is entered after it was covered.
    command.arg(format!("set -e; base=$1; {prepare}; cd \"$base/work\"; shift; exec \"$@\"")).arg("-");
    command.arg(setting.ground.base()).args(["setpriv", "--clear-groups"]);
    command.arg(format!("--reuid={}", person.uid)).arg(format!("--regid={}", person.gid));
    command.arg(inner.get_program()).args(inner.get_args());
    Ended::of(command)
}

#[test]
fn workspace_on_an_overlay_is_confined_or_refused_by_name() {
    const OVERLAY: &str = "layers=\"$base/layers\"; mkdir \"$layers\"; mount -t tmpfs layers \"$layers\"; mkdir \"$layers/up\" \"$layers/in\"; \
        chown --reference=\"$base/work\" \"$layers/up\"; \
        mount -t overlay overlay -o \"lowerdir=$base/work,upperdir=$layers/up,workdir=$layers/in\" \"$base/work\"";
    for setting in settings("a workspace on an overlay") {
        setting.ground.put("below", "below\n");
        let secret = text_of(&setting.ground.outside().join("secret.txt"));
        let line =
            format!("cat below; echo made > made; cat made; stat -c %u made; cat {secret} || echo NO-SECRET");
        let ended = run(&setting, OVERLAY, "default", &line);
        if ended.code == Some(125) {
            // What it says has to tell what is the matter, and the way out.
            assert!(setting.mode.is_system(), "{}", ended.story());
            ended.expect_errors(&["idmap", "work"]);
            assert!(ended.text().is_empty(), "{}", ended.story());
            continue;
        }
        let owner = setting.ground.person.uid;
        let own = if owner == 0 { String::new() } else { format!("{owner}\n") };
        ended.expect_code(0);
        assert!(ended.text().starts_with(&format!("below\nmade\n{own}")), "{}", ended.story());
        assert!(ended.text().ends_with("NO-SECRET"), "{}", ended.story());
    }
}

#[test]
fn mounts_within_a_workspace_keep_their_read_only_flags_and_lend_no_privilege() {
    const MOUNTS: &str = "mkdir \"$base/work/fixed\" \"$base/work/free\"; \
        mount -t tmpfs fixed \"$base/work/fixed\"; mount -t tmpfs -o mode=777 free \"$base/work/free\"; \
        echo fixed > \"$base/work/fixed/file\"; chmod 666 \"$base/work/fixed/file\"; chmod 777 \"$base/work/fixed\"; \
        mount -o remount,ro,bind \"$base/work/fixed\"; \
        for d in \"$base/work/free\" \"$base/work\"; do mknod \"$d/device\" c 1 5; chmod 666 \"$d/device\"; \
        cp /bin/cat \"$d/cat-of-root\"; chmod 4755 \"$d/cat-of-root\"; done; \
        echo roots > \"$base/work/roots\"; chmod 600 \"$base/work/roots\"";
    for setting in settings("mounts within a workspace") {
        for policy in ["default", "moderate"] {
            let work = setting.ground.work();
            let line = "cat fixed/file; (echo x > fixed/file) 2>/dev/null && echo CHANGED; \
                (echo x > fixed/new) 2>/dev/null && echo CHANGED; echo y > free/new && echo WRITTEN; \
                for d in . free; do head -c 1 $d/device >/dev/null 2>&1 && echo DEVICE; done; \
                [ $UID = 0 ] || for d in . free; do $d/cat-of-root roots 2>/dev/null; done; echo end";
            let ended = run(&setting, MOUNTS, policy, line);
            // In the user plan a submount that the user can't write stays so; what can be written may be.
            let text = ended.text().replace("WRITTEN\n", "");
            let wanted = ["fixed\nend", "fixed\nroots\nroots\nend"];
            let is_own_root = setting.ground.person.is_root();
            assert!(text == wanted[0] || is_own_root && text == wanted[1], "{policy}: {}", ended.story());
            for name in ["device", "cat-of-root", "roots"] {
                assert_eq!(std::fs::symlink_metadata(work.join(name)).unwrap().uid(), 0, "{name}");
                std::fs::remove_file(work.join(name)).unwrap();
            }
            for name in ["fixed", "free"] {
                std::fs::remove_dir(work.join(name)).unwrap();
            }
        }
    }
}

/// The twin: without the sandbox device and bit work.
#[test]
fn device_and_setuid_bit_in_a_workspace_work_where_nothing_prevents_it() {
    const MADE: &str = "mount -t tmpfs -o mode=777 free \"$base/work\"; cd \"$base/work\"; mknod device c 1 5; chmod 666 device; \
        cp /bin/cat cat-of-root; chmod 4755 cat-of-root; echo roots > roots; chmod 600 roots";
    for setting in settings("devices and bits without a sandbox") {
        let person = setting.ground.person;
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "bash", "-c"]);
        command.arg(format!(
            "set -e; base=$1; {MADE}; exec setpriv --clear-groups --reuid={} --regid={} bash -c 'head -c 1 device | wc -c; ./cat-of-root roots'",
            person.uid, person.gid
        ));
        command.arg("-").arg(setting.ground.base());
        let ended = Ended::of(command);
        ended.expect_code(0).expect_text("1\nroots");
    }
}
