//! What the machine's kernel has of what confinement is made of, as its own files say; `stockade doctor` tries each.

use std::path::Path;

/// The kernel's release.
pub(crate) fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Each feature's name, and whether it is there; one that no file tells of is left out.
pub(super) fn features() -> Vec<(&'static str, bool)> {
    features_below(Path::new("/"))
}

fn features_below(root: &Path) -> Vec<(&'static str, bool)> {
    let text = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let there = |path: &str| Some(root.join(path).exists());
    let number = |path: &str| text(path)?.trim().parse::<u64>().ok();
    let user_namespaces = number("proc/sys/user/max_user_namespaces").map(|most| {
        // Debian's switch; elsewhere there is none.
        most > 0 && number("proc/sys/kernel/unprivileged_userns_clone") != Some(0)
    });
    let restricted = number("proc/sys/kernel/apparmor_restrict_unprivileged_userns").unwrap_or(0) != 0;
    let has_landlock = |modules: String| modules.trim().split(',').any(|module| module == "landlock");
    [
        ("landlock", text("sys/kernel/security/lsm").map(has_landlock)),
        ("seccomp-filter", there("proc/sys/kernel/seccomp/actions_avail")),
        ("user-namespaces", user_namespaces.map(|there| there && !restricted)),
        ("cgroup-v2", there("sys/fs/cgroup/cgroup.controllers")),
        ("pressure", there("proc/pressure/memory")),
    ]
    .into_iter()
    .filter_map(|(name, there)| there.map(|there| (name, there)))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_is_there_not_there_or_left_out() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let none = features_below(root.path());
        assert_eq!(none, [("seccomp-filter", false), ("cgroup-v2", false), ("pressure", false)]);
        write("sys/kernel/security/lsm", "lockdown,capability,landlock,yama\n");
        write("proc/sys/user/max_user_namespaces", "1000\n");
        write("proc/sys/kernel/seccomp/actions_avail", "kill allow\n");
        write("sys/fs/cgroup/cgroup.controllers", "memory pids\n");
        write("proc/pressure/memory", "");
        let all = features_below(root.path());
        assert!(all.len() == 5 && all.iter().all(|(_, there)| *there), "{all:?}");
        for (path, text) in [
            ("proc/sys/user/max_user_namespaces", "0\n"),
            ("proc/sys/kernel/unprivileged_userns_clone", "0\n"),
            ("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n"),
        ] {
            let before = std::fs::read(root.path().join(path)).ok();
            write(path, text);
            assert!(features_below(root.path()).contains(&("user-namespaces", false)), "{path}");
            match before {
                Some(before) => std::fs::write(root.path().join(path), before).unwrap(),
                None => std::fs::remove_file(root.path().join(path)).unwrap(),
            }
        }
        write("sys/kernel/security/lsm", "capability,notlandlock");
        assert!(features_below(root.path()).contains(&("landlock", false)));
    }
}
