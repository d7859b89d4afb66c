//! The data files of `policies/syscalls/`: one system call a line with its reason.
//!
//! A line is empty, a comment (`#`), `NAME REASON`, `include PROFILE`, or `- NAME REASON`, which takes a call of an
//! included profile away again. A line that is none of these, or names a call that no architecture has, fails the
//! build. The build reads the files by this, and the tests read them again to compare with what the build made.

use std::collections::BTreeMap;

/// A data file: its name as answers show it, and its text.
pub(crate) type Source<'a> = (&'static str, &'a str);

/// One line of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) file: &'static str,
    pub(crate) line: u16,
    pub(crate) reason: &'a str,
}

/// Calls by name.
pub(crate) type Calls<'a> = BTreeMap<&'a str, Entry<'a>>;

/// All the data files, read.
#[derive(Debug)]
pub(crate) struct Profiles<'a> {
    /// What a policy can name in `[syscalls] profile`.
    pub(crate) named: BTreeMap<&'static str, Calls<'a>>,
    /// What pid 1 of a run needs.
    pub(crate) init: Calls<'a>,
    /// What only an operator may allow.
    pub(crate) never: Calls<'a>,
}

/// The data files, in this order.
pub(crate) const FILES: [&str; 4] =
    ["syscalls/standard.txt", "syscalls/minimal.txt", "syscalls/init.txt", "syscalls/never.txt"];

/// Reads the texts of [`FILES`]. `known` says whether any architecture has a call of this name.
pub(crate) fn read<'a>(texts: [&'a str; 4], known: &dyn Fn(&str) -> bool) -> Result<Profiles<'a>, String> {
    let source = |index: usize| (FILES[index], texts[index]);
    let mut named = BTreeMap::new();
    for (index, name) in ["standard", "minimal"].into_iter().enumerate() {
        let calls = parse(source(index), &named, known)?;
        named.insert(name, calls);
    }
    let none = BTreeMap::new();
    let (init, never) = (parse(source(2), &none, known)?, parse(source(3), &none, known)?);
    Ok(Profiles { named, init, never })
}

fn parse<'a>(
    (file, text): Source<'a>,
    earlier: &BTreeMap<&'static str, Calls<'a>>,
    known: &dyn Fn(&str) -> bool,
) -> Result<Calls<'a>, String> {
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
        if !known(name) {
            return Err(wrong("names no system call"));
        }
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
    fn lines_without_reason_or_with_unknown_names_are_refused() {
        let known = |name: &str| name == "read";
        assert!(parse(("f", "# why\n\nread why"), &BTreeMap::new(), &known).is_ok());
        for text in ["read", "no_such_call why", "read a\nread b", "- read why", "include nothing"] {
            assert!(parse(("f", text), &BTreeMap::new(), &known).is_err(), "{text}");
        }
    }
}
