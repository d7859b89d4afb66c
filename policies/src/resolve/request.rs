//! Checks the paths of a request, and says what the variables stand for.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use stockade_protocol::bounds::MAX_PATH;

use super::Subject;
use super::error::ResolveError;
use crate::place::{Roots, is_within};
use crate::policy::Policy;

/// A workspace at or above one of these would cover what programs run from.
const SYSTEM: [&str; 19] = [
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr/bin",
    "/usr/lib",
    "/usr/sbin",
    "/usr/share",
    "/var/lib",
    "/var/run",
];
/// A workspace beneath one of these isn't a place for work, and why.
const NO_PLACE_FOR_WORK: [(&str, &str); 7] = [
    ("/proc", "where the kernel shows processes"),
    ("/sys", "where the kernel shows devices"),
    ("/dev", "where devices are"),
    ("/boot", "where the system starts from"),
    ("/etc", "where the system is configured"),
    ("/run", "where services have their sockets"),
    ("/var/run", "where services have their sockets"),
];
/// Where desktops mount a user's disks.
const REMOVABLE: &str = "/run/media";

/// What the variables stand for, once workspace and home are checked.
pub(super) fn roots(policy: &Policy, subject: &Subject) -> Result<Roots, ResolveError> {
    let workspace = normalised("workspace", &subject.workspace)?;
    check_workspace(&workspace)?;
    let home = normalised("home directory", &subject.home)?;
    let mut cache = if home == b"/" { Vec::new() } else { home.clone() };
    cache.extend_from_slice(b"/.cache/stockade/");
    cache.extend_from_slice(policy.name.as_bytes());
    Ok(Roots { workspace, home, cache })
}

/// Whether a private home can be put here: it must not cover a place of the system (service users have homes like
/// `/`, `/bin` and `/dev`).
pub(super) fn can_hide(home: &[u8]) -> bool {
    home != b"/" && system_place(home).is_none() && no_place_for_work(home).is_none()
}

fn check_workspace(workspace: &[u8]) -> Result<(), ResolveError> {
    let refused = |reason: String| ResolveError::SystemWorkspace { path: shown(workspace), reason };
    if workspace == b"/" {
        return Err(refused("is the whole machine".into()));
    }
    if let Some(place) = system_place(workspace) {
        return Err(refused(format!("covers `{place}`, which belongs to the system")));
    }
    if let Some((place, what)) = no_place_for_work(workspace) {
        return Err(refused(format!("lies beneath `{place}`, {what}")));
    }
    Ok(())
}

fn system_place(path: &[u8]) -> Option<&'static str> {
    SYSTEM.into_iter().find(|place| is_within(place.as_bytes(), path))
}

fn no_place_for_work(path: &[u8]) -> Option<(&'static str, &'static str)> {
    let removable = is_within(path, REMOVABLE.as_bytes()) && path != REMOVABLE.as_bytes();
    NO_PLACE_FOR_WORK.into_iter().find(|(place, _)| is_within(path, place.as_bytes()) && !removable)
}

/// An absolute path without `.`, doubled and trailing slashes. `..` is refused: only the kernel can follow it.
pub(super) fn normalised(what: &'static str, path: &Path) -> Result<Vec<u8>, ResolveError> {
    let bytes = path.as_os_str().as_bytes();
    let refused = |reason: &str| ResolveError::Path { what, path: shown(bytes), reason: reason.into() };
    if bytes.is_empty() {
        return Err(refused("is empty"));
    }
    if bytes[0] != b'/' {
        return Err(refused("is not absolute"));
    }
    if bytes.len() > MAX_PATH {
        return Err(refused(&format!("is longer than {MAX_PATH} bytes")));
    }
    if bytes.contains(&0) {
        return Err(refused("has a NUL in it"));
    }
    let mut out = Vec::with_capacity(bytes.len());
    for name in bytes.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return Err(refused("has `..` in it")),
            name => {
                out.push(b'/');
                out.extend_from_slice(name);
            }
        }
    }
    Ok(if out.is_empty() { b"/".to_vec() } else { out })
}

/// For a message: no control characters, not without end.
pub(super) fn shown(path: &[u8]) -> String {
    const LONGEST: usize = 300;
    let text = String::from_utf8_lossy(path);
    let short: String = text.chars().take(LONGEST).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{}{more}", short.escape_debug())
}
