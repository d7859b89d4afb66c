//! Names that can't be wrong: policies, environment variables, device nodes, ports, id ranges, I/O priorities.

use core::fmt;

use stockade_protocol::bounds::MAX_POLICY_NAME;
use stockade_protocol::spec::{IoPriority, Level, NetworkMode, Ports};

use crate::said::Said;

/// The lowest host uid a range may begin with: below it are the ids of people and services.
const LOWEST_UID: u32 = 65_536;
/// The highest host uid a range may end with: above it the kernel has `-1` and `-2`.
const HIGHEST_UID: u32 = u32::MAX - 2;

/// Device nodes that any policy may name: they hold nothing of anybody's.
pub(crate) const HARMLESS_NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Ends of variable names that a pattern with `*` doesn't match: they are usually secrets.
const SECRET_ENDS: [&str; 9] =
    ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "KEY", "CREDENTIALS", "CREDENTIAL", "AUTH"];

/// Whether a variable's name ends as those of secrets do.
pub(crate) fn ends_like_a_secret(name: &[u8]) -> bool {
    SECRET_ENDS.iter().any(|end| {
        name.len() >= end.len() && name[name.len() - end.len()..].eq_ignore_ascii_case(end.as_bytes())
    })
}

/// Whether this can be a policy's name: it is also a file's stem and stands in messages.
pub(crate) fn policy_name(text: &str) -> Result<String, String> {
    let mut bytes = text.bytes();
    let first_fits = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let rest_fits =
        bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte));
    if !first_fits || !rest_fits {
        return Err(format!("`{}` is no policy name", text.escape_debug()));
    }
    if text.len() > MAX_POLICY_NAME {
        return Err(format!("a name of {} bytes is over the limit of {MAX_POLICY_NAME}", text.len()));
    }
    Ok(text.to_owned())
}

pub(crate) const POLICY_NAME_EXPECTED: &str =
    "lower-case letters, digits, `-`, `_` and `.`, beginning with a letter or digit";

pub(crate) fn level(text: &str) -> Result<Level, String> {
    match text {
        "strict" => Ok(Level::Strict),
        "moderate" => Ok(Level::Moderate),
        "minimal" => Ok(Level::Minimal),
        _ => Err(format!("`{}` is no level", text.escape_debug())),
    }
}

pub(crate) fn level_text(level: Level) -> &'static str {
    match level {
        Level::Strict => "strict",
        Level::Moderate => "moderate",
        Level::Minimal => "minimal",
    }
}

pub(crate) fn mode(text: &str) -> Result<NetworkMode, String> {
    match text {
        "none" => Ok(NetworkMode::None),
        "loopback" => Ok(NetworkMode::Loopback),
        "host" => Ok(NetworkMode::Host),
        _ => Err(format!("`{}` is no network mode", text.escape_debug())),
    }
}

pub(crate) fn mode_text(mode: NetworkMode) -> &'static str {
    match mode {
        NetworkMode::None => "none",
        NetworkMode::Loopback => "loopback",
        NetworkMode::Host => "host",
    }
}

/// Which environment variables are let through: a whole name, or its beginning and a `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamePattern {
    text: Said,
    prefix: bool,
}

impl NamePattern {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (name, prefix) = match text.strip_suffix('*') {
            Some(beginning) => (beginning, true),
            None => (text, false),
        };
        if prefix && name.is_empty() {
            return Err("`*` alone would let every secret through".into());
        }
        check_variable(name)?;
        Ok(Self { text: name.into(), prefix })
    }

    /// As [`NamePattern::parse`], of a shipped policy's text: a test holds that it's what parsing gives.
    pub(crate) fn built(text: &'static str) -> Self {
        let name = text.strip_suffix('*');
        Self { text: Said::Built(name.unwrap_or(text)), prefix: name.is_some() }
    }

    /// A pattern with `*` matches no name that ends like a secret's; such a name must be written out.
    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        if !self.prefix {
            return self.text.as_bytes() == name;
        }
        name.starts_with(self.text.as_bytes()) && !ends_like_a_secret(name)
    }

    /// Whether it's of these names, whatever they end with: where what matches is hidden, and not let through.
    pub(crate) fn covers(&self, name: &[u8]) -> bool {
        if self.prefix { name.starts_with(self.text.as_bytes()) } else { self.matches(name) }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.prefix { "*" } else { "" })
    }
}

/// A variable's whole name.
pub(crate) fn variable(text: &str) -> Result<String, String> {
    check_variable(text).map(|()| text.to_owned())
}

fn check_variable(text: &str) -> Result<(), String> {
    let fits = !text.starts_with(|character: char| character.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if fits { Ok(()) } else { Err(format!("`{}` is no variable name", text.escape_debug())) }
}

/// A node's path below `/dev`.
pub(crate) fn node(text: &str) -> Result<String, String> {
    let name_fits = |name: &str| !matches!(name, "" | "." | "..");
    if text.bytes().all(|byte| byte.is_ascii_graphic() && !b"*?[".contains(&byte))
        && text.split('/').all(name_fits)
    {
        Ok(text.to_owned())
    } else {
        Err(format!("`{}` is no name below /dev", text.escape_debug()))
    }
}

/// Sorted, without doubles.
pub(crate) fn ports_only(mut ports: Vec<u16>) -> Ports {
    ports.sort_unstable();
    ports.dedup();
    Ports::Only(ports)
}

/// A range of host uids, first and count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UidRange {
    pub(crate) start: u32,
    pub(crate) count: u32,
}

impl UidRange {
    /// The default: 2000000000 to 2000065535.
    pub(crate) const DEFAULT: Self = Self { start: 2_000_000_000, count: 65_536 };

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('-').and_then(|(first, last)| {
            let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            (digits(first) && digits(last)).then_some(())?;
            Some((first.parse::<u32>().ok()?, last.parse::<u32>().ok()?))
        });
        let Some((first, last)) = parsed else {
            return Err(format!("`{}` is no range of user ids", text.escape_debug()));
        };
        if last < first {
            return Err(format!("`{text}` ends before it begins"));
        }
        if first < LOWEST_UID || last > HIGHEST_UID {
            return Err(format!("`{text}` leaves {LOWEST_UID} to {HIGHEST_UID}"));
        }
        Ok(Self { start: first, count: last - first + 1 })
    }
}

impl fmt::Display for UidRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.start + (self.count - 1))
    }
}

/// Whose user id a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    Caller,
    Ephemeral,
}

pub(crate) fn user(text: &str) -> Result<User, String> {
    match text {
        "caller" => Ok(User::Caller),
        "ephemeral" => Ok(User::Ephemeral),
        _ => Err(format!("`{}` is neither", text.escape_debug())),
    }
}

pub(crate) const IO_EXPECTED: &str = "\"idle\", or \"best-effort 0\" (first) to \"best-effort 7\" (last)";

pub(crate) fn io_priority(text: &str) -> Result<IoPriority, String> {
    if text == "idle" {
        return Ok(IoPriority::Idle);
    }
    match text.strip_prefix("best-effort ").map(str::as_bytes) {
        Some([digit @ b'0'..=b'7']) => Ok(IoPriority::BestEffort(digit - b'0')),
        _ => Err(format!("`{}` is no I/O priority", text.escape_debug())),
    }
}

pub(crate) fn io_text(priority: IoPriority) -> String {
    match priority {
        IoPriority::Idle => "idle".into(),
        IoPriority::BestEffort(level) => format!("best-effort {level}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_names_are_plain() {
        for name in ["default", "a", "0", "my-policy_1.2"] {
            assert!(policy_name(name).is_ok(), "{name}");
        }
        let long = "a".repeat(MAX_POLICY_NAME + 1);
        for name in ["", "Default", "-a", ".a", "a/b", "..", "a b", "a\0", "ä", long.as_str()] {
            assert!(policy_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn pattern_with_star_never_matches_what_looks_like_a_secret() {
        let cargo = NamePattern::parse("CARGO_*").unwrap();
        assert!(cargo.matches(b"CARGO_HOME") && cargo.matches(b"CARGO_"));
        for name in
            ["CARGO_REGISTRY_TOKEN", "CARGO_REGISTRIES_X_TOKEN", "CARGO_API_KEY", "CARGO_secret", "CARGOX"]
        {
            assert!(!cargo.matches(name.as_bytes()), "{name}");
        }
        assert!(NamePattern::parse("CARGO_REGISTRY_TOKEN").unwrap().matches(b"CARGO_REGISTRY_TOKEN"));
        for text in ["*", "", "A=B", "A**", "*A", "1A", "A B"] {
            assert!(NamePattern::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn ranges_stay_clear_of_people() {
        assert_eq!(UidRange::parse("2000000000-2000065535").unwrap(), UidRange::DEFAULT);
        assert_eq!(UidRange::DEFAULT.to_string(), "2000000000-2000065535");
        for text in
            ["", "5", "0-100000", "1000-2000", "70000-69999", "70000-4294967295", "+70000-80000", "a-b"]
        {
            assert!(UidRange::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn nodes_and_priorities_are_checked() {
        assert!(node("null").is_ok() && node("dri/renderD128").is_ok());
        for text in ["", "../mem", "/null", "a//b", "a b", "sd*"] {
            assert!(node(text).is_err(), "{text:?}");
        }
        assert_eq!(io_priority("best-effort 7").unwrap(), IoPriority::BestEffort(7));
        for text in ["", "best-effort", "best-effort 8", "best-effort  1", "realtime 0"] {
            assert!(io_priority(text).is_err(), "{text:?}");
        }
    }
}
