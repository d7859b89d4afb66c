//! The data files of `policies/syscalls/`: one system call a line with its reason.
//!
//! A line is empty, a comment (`#`), `NAME REASON`, `include PROFILE`, or `- NAME REASON`, which takes a call of an
//! included profile away again. Calls that no architecture's table has are an error, which a test would show.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::table::known;

/// One line of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) file: &'static str,
    pub(super) line: u32,
    pub(super) reason: &'static str,
}

/// Calls by name.
pub(super) type Calls = BTreeMap<&'static str, Entry>;

/// All the data files.
#[derive(Debug)]
pub(super) struct Profiles {
    /// What a policy can name in `[syscalls] profile`.
    pub(super) named: BTreeMap<&'static str, Calls>,
    /// What pid 1 of a run needs.
    pub(super) init: Calls,
    /// What only an operator may allow.
    pub(super) never: Calls,
}

const STANDARD: (&str, &str) = ("syscalls/standard.txt", include_str!("../../syscalls/standard.txt"));
const MINIMAL: (&str, &str) = ("syscalls/minimal.txt", include_str!("../../syscalls/minimal.txt"));
const INIT: (&str, &str) = ("syscalls/init.txt", include_str!("../../syscalls/init.txt"));
const NEVER: (&str, &str) = ("syscalls/never.txt", include_str!("../../syscalls/never.txt"));

/// The data, read once. An error is a fault of this crate, and then no policy loads.
pub(super) fn profiles() -> Result<&'static Profiles, &'static str> {
    static PROFILES: LazyLock<Result<Profiles, String>> = LazyLock::new(read);
    PROFILES.as_ref().map_err(String::as_str)
}

fn read() -> Result<Profiles, String> {
    let mut named = BTreeMap::new();
    for (name, source) in [("standard", STANDARD), ("minimal", MINIMAL)] {
        let calls = parse(source, &named)?;
        named.insert(name, calls);
    }
    let none = BTreeMap::new();
    Ok(Profiles { init: parse(INIT, &none)?, never: parse(NEVER, &none)?, named })
}

fn parse(
    (file, text): (&'static str, &'static str),
    earlier: &BTreeMap<&'static str, Calls>,
) -> Result<Calls, String> {
    let mut calls = Calls::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| format!("{file}:{number}: {what}");
        if let Some(profile) = line.strip_prefix("include ") {
            let profile = earlier.get(profile.trim()).ok_or_else(|| wrong("includes an unknown profile"))?;
            calls.extend(profile.iter().map(|(name, entry)| (*name, *entry)));
            continue;
        }
        let taken = line.strip_prefix("- ");
        let (name, reason) =
            taken.unwrap_or(line).split_once(char::is_whitespace).ok_or_else(|| wrong("has no reason"))?;
        let name = known(name).ok_or_else(|| wrong("names no system call"))?;
        let entry = Entry { file, line: number, reason: reason.trim() };
        let had = if taken.is_some() { calls.remove(name) } else { calls.insert(name, entry) };
        if had.is_some() != taken.is_some() {
            return Err(wrong("names a call twice, or takes away one that isn't there"));
        }
    }
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_files_are_right_and_disjoint_where_they_must_be() {
        let profiles = profiles().unwrap();
        for (name, calls) in &profiles.named {
            assert!(calls.len() > 200, "{name}");
            for call in profiles.never.keys() {
                assert!(!calls.contains_key(call), "{name} allows {call}");
            }
        }
        for call in profiles.never.keys() {
            assert!(!profiles.init.contains_key(call), "{call}");
        }
        for call in ["execve", "clone", "wait4", "waitid", "seccomp", "landlock_restrict_self", "sendmsg"] {
            assert!(profiles.init.contains_key(call), "{call}");
        }
    }

    #[test]
    fn lines_without_reason_or_with_unknown_names_are_refused() {
        for text in ["read", "no_such_call why", "read a\nread b", "- read why", "include nothing"] {
            assert!(parse(("f", text), &BTreeMap::new()).is_err(), "{text}");
        }
    }
}
