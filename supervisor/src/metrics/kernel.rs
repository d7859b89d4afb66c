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

/// The Landlock ABI that the shipped policies `moderate` (it names ports) and `minimal` (signals) need.
const MODERATE_ABI: u8 = 4;
const MINIMAL_ABI: u8 = 6;

/// Each level, and whether its shipped policy has what it needs here; one that depends on what no file tells of is left
/// out. Who has privilege needs no leave to make user namespaces.
pub(super) fn levels(
    features: &[(&'static str, bool)],
    landlock: u8,
    is_privileged: bool,
) -> Vec<(&'static str, bool)> {
    let has = |name| features.iter().find(|(feature, _)| *feature == name).map(|(_, there)| *there);
    let filters = has("seccomp-filter");
    let namespaces = if is_privileged { Some(true) } else { has("user-namespaces") };
    let strict = filters.zip(namespaces).map(|(filters, namespaces)| filters && namespaces);
    [
        ("strict", strict),
        ("moderate", strict.map(|strict| strict && landlock >= MODERATE_ABI)),
        ("minimal", filters.map(|filters| filters && landlock >= MINIMAL_ABI)),
    ]
    .into_iter()
    .filter_map(|(level, supported)| supported.map(|supported| (level, supported)))
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

    #[test]
    fn a_level_is_supported_with_all_it_needs_and_left_out_where_that_isnt_known() {
        let all = [("seccomp-filter", true), ("user-namespaces", true)];
        let supported = |features: &[_], abi, is_privileged| {
            let levels = levels(features, abi, is_privileged);
            levels.into_iter().filter(|(_, yes)| *yes).map(|(level, _)| level).collect::<Vec<_>>()
        };
        assert_eq!(supported(&all, 6, false), ["strict", "moderate", "minimal"]);
        assert_eq!(supported(&all, 5, false), ["strict", "moderate"]);
        assert_eq!(supported(&all, 3, false), ["strict"]);
        let without = [("seccomp-filter", true), ("user-namespaces", false)];
        assert_eq!(supported(&without, 9, false), ["minimal"]);
        assert_eq!(supported(&without, 9, true), ["strict", "moderate", "minimal"]);
        assert_eq!(supported(&[("seccomp-filter", false), all[1]], 9, true), [""; 0]);
        assert_eq!(levels(&[("seccomp-filter", true)], 9, false), [("minimal", true)]);
        assert_eq!(levels(&[], 9, true), []);
    }
}
