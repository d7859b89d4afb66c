//! Which systemd unit a process is of, by its control group.
//!
//! ```text
//! /system.slice/deploy.service                                        deploy.service
//! /user.slice/user-1000.slice/session-3.scope                         session-3.scope
//! /user.slice/user-1000.slice/user@1000.service/app.slice/x.service   user@1000.service/x.service
//! ```
//!
//! The first that isn't a slice is the unit: what is below belongs to whom that unit is delegated to, and is called as he likes. A
//! user's own manager is such a one. Its units count with its name before theirs, so that nobody calls himself as the system's unit
//! is called. What isn't a unit's path is of none.

/// The longest name, in bytes: systemd's own bound.
const MAX_NAME: usize = 255;

/// The unit, by `/proc/PID/cgroup`. `None`: of none.
pub(crate) fn of_cgroups(text: &str) -> Option<String> {
    let path = |prefix: &str| text.lines().find_map(|line| line.strip_prefix(prefix));
    // One hierarchy; or systemd's own, where there are several.
    let systemds = || text.lines().find_map(|line| Some(line.split_once(":name=systemd:")?.1));
    of_path(path("0::").filter(|path| *path != "/").or_else(systemds)?)
}

fn of_path(path: &str) -> Option<String> {
    let mut names = path.strip_prefix('/')?.split('/').map(unescaped);
    let unit = names.by_ref().find(|name| !name.ends_with(".slice")).filter(|name| is_unit(name))?;
    let is_manager = |name: &str| {
        let uid = name.strip_prefix("user@").and_then(|rest| rest.strip_suffix(".service"));
        uid.is_some_and(|uid| !uid.is_empty() && uid.bytes().all(|byte| byte.is_ascii_digit()))
    };
    if !is_manager(unit) {
        return Some(unit.to_owned());
    }
    let own = names.find(|name| !name.ends_with(".slice")).filter(|name| is_unit(name));
    Some(own.map_or_else(|| unit.to_owned(), |own| format!("{unit}/{own}")))
}

/// As systemd writes names that would be taken for files of the kernel's.
fn unescaped(name: &str) -> &str {
    name.strip_prefix('_').unwrap_or(name)
}

fn is_unit(name: &str) -> bool {
    let stem = name.strip_suffix(".service").or_else(|| name.strip_suffix(".scope"));
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    name.len() <= MAX_NAME && stem.is_some_and(|stem| !stem.is_empty() && stem.bytes().all(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_the_first_that_is_no_slice_and_a_users_own_has_its_manager_before_it() {
        let table = [
            ("0::/system.slice/deploy.service\n", Some("deploy.service")),
            ("0::/system.slice/deploy.service/worker.service\n", Some("deploy.service")),
            ("0::/system.slice/system-getty.slice/getty@tty1.service", Some("getty@tty1.service")),
            ("0::/user.slice/user-1000.slice/session-3.scope", Some("session-3.scope")),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/deploy.service",
                Some("user@1000.service/deploy.service"),
            ),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/init.scope",
                Some("user@1000.service/init.scope"),
            ),
            ("0::/user.slice/user-1000.slice/user@1000.service/x", Some("user@1000.service")),
            ("0::/user.slice/user-1000.slice/user@1000.service", Some("user@1000.service")),
            ("0::/system.slice/_cgroup.service", Some("cgroup.service")),
            ("12:pids:/x.service\n1:name=systemd:/system.slice/old.service\n0::/", Some("old.service")),
            ("12:pids:/x.service\n", None),
            ("0::/", None),
            ("0::/../../system.slice/deploy.service", None),
            ("0::/docker/0123abc", None),
            ("0::/x/deploy.service", None),
            ("0::/system.slice/.service", None),
            ("0::/system.slice/a b.service", None),
            ("0::/system.slice/deploy.service (deleted)", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(of_cgroups(text).as_deref(), expected, "{text}");
        }
    }
}
