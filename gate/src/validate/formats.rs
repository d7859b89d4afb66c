//! Formats of texts: our own, and which of JSON Schema's are checked. A format that isn't known is refused, not ignored.

use regex_syntax::ast::parse::ParserBuilder;
use regex_syntax::ast::{self, Ast, RepetitionKind, RepetitionRange};

use super::MAX_PATTERN;

/// The longest path, in bytes: the kernel's bound without its zero.
const MAX_PATH: usize = stockade_protocol::bounds::MAX_PATH;
/// The longest name in a path, in bytes (`NAME_MAX`).
const MAX_NAME: usize = 255;
/// The longest identifier, in bytes.
const MAX_IDENTIFIER: usize = 128;

/// The most parts of an expression among parameters, with all that it counts written out.
const MAX_PARTS: usize = 16 * 1024;
/// What finding out costs for each byte, as measured; see [`per_byte`].
const PER_BYTE: usize = 1;
const PER_BYTE_OF_ADDRESS: usize = 4;
const PER_BYTE_OF_REGEX: usize = 64;

/// Ours, and what each expects.
const OURS: [(&str, &str); 4] = [
    ("identifier", "letters, digits, `-`, `_` and `.`, beginning with a letter or digit"),
    ("regex", "a regular expression without look-around and back references"),
    ("url", "a URL that isn't private"),
    ("workspace-path", "a path below the workspace, without `..`"),
];
/// JSON Schema's, as the library checks them.
const THEIRS: [(&str, &str); 11] = [
    ("date", "a date, as in 2026-11-22"),
    ("date-time", "a date and time, as in 2026-11-22T10:00:00Z"),
    ("duration", "a duration, as in PT1H"),
    ("email", "an address of mail"),
    ("hostname", "a host name"),
    ("ipv4", "an IPv4 address"),
    ("ipv6", "an IPv6 address"),
    ("json-pointer", "a JSON pointer"),
    ("time", "a time, as in 10:00:00Z"),
    ("uri-reference", "a URI or a relative reference"),
    ("uuid", "a UUID"),
];

/// All names.
#[must_use]
pub fn names() -> Vec<&'static str> {
    OURS.iter().chain(&THEIRS).map(|(name, _)| *name).collect()
}

/// Whether there is such a format.
#[must_use]
pub fn is_known(name: &str) -> bool {
    names().contains(&name)
}

/// What a format expects, in words.
#[must_use]
pub fn expected(name: &str) -> &'static str {
    let found = OURS.iter().chain(&THEIRS).find(|(known, _)| *known == name);
    found.map_or("text of a format", |(_, expected)| expected)
}

/// What finding out costs for each byte of a text, a step of a pattern's table being 1.
pub(super) fn per_byte(name: &str) -> usize {
    match name {
        "regex" => PER_BYTE_OF_REGEX,
        "email" | "url" => PER_BYTE_OF_ADDRESS,
        _ => PER_BYTE,
    }
}

/// Plain ASCII: can't be an option, a path, or another text that looks the same.
#[must_use]
pub fn is_identifier(text: &str) -> bool {
    text.len() <= MAX_IDENTIFIER
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// A regular expression that takes linear time and little memory wherever it's used as it's meant: the syntax of the regex crate,
/// which is that of RE2. It is read and measured, and never compiled: that takes as long as whoever has written it likes. So a
/// class of characters by a name that Unicode hasn't passes; whoever compiles it says so.
#[must_use]
pub fn is_regex(text: &str) -> bool {
    if text.len() > MAX_PATTERN {
        return false;
    }
    let read = ParserBuilder::new().nest_limit(32).build().parse(text);
    read.is_ok_and(|read| parts(&read) <= MAX_PARTS)
}

/// What an expression is made of when all that it counts is written out.
fn parts(read: &Ast) -> usize {
    let all = |list: &[Ast]| list.iter().map(parts).fold(1, usize::saturating_add);
    match read {
        Ast::Repetition(repeated) => parts(&repeated.ast).saturating_mul(times(&repeated.op)),
        Ast::Group(group) => parts(&group.ast).saturating_add(1),
        Ast::Alternation(either) => all(&either.asts),
        Ast::Concat(row) => all(&row.asts),
        _ => 1,
    }
}

fn times(how: &ast::RepetitionOp) -> usize {
    let most = match &how.kind {
        RepetitionKind::Range(
            RepetitionRange::Exactly(most)
            | RepetitionRange::AtLeast(most)
            | RepetitionRange::Bounded(_, most),
        ) => *most,
        _ => 1,
    };
    usize::try_from(most).unwrap_or(usize::MAX).max(1)
}

/// A relative path that stays below where it begins, as far as its text tells; [`super::beneath`] holds it of the real thing.
#[must_use]
pub fn is_workspace_path(text: &str) -> bool {
    if text.is_empty() || text.len() > MAX_PATH || text.starts_with('/') || text.contains('\0') {
        return false;
    }
    text.split('/').all(|name| name != ".." && name.len() <= MAX_NAME)
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_stay_below_the_workspace() {
        for text in ["a", "a/b", ".", "./a", "a//b", "..a", "a..", "...", "-x", "a/", "~"] {
            assert!(is_workspace_path(text), "{text}");
        }
        for text in ["", "/", "/a", "..", "../a", "a/../b", "a/..", "a\0b", "./..", "//a"] {
            assert!(!is_workspace_path(text), "{text}");
        }
        assert!(!is_workspace_path(&"a".repeat(MAX_NAME + 1)) && !is_workspace_path(&"a/".repeat(2_048)));
    }

    #[test]
    fn regular_expressions_are_of_the_linear_kind() {
        for text in ["", "a+", "(a|b)*c", "\\w{3}", "^x$", "(?i)abc"] {
            assert!(is_regex(text), "{text}");
        }
        for text in ["(a", "(?=a)", "(a)\\1", "(?<!x)y", "a{100000}", "((((a{100}){100}){100}){100})", "["] {
            assert!(!is_regex(text), "{text}");
        }
        assert!(!is_regex(&"a".repeat(MAX_PATTERN + 1)) && !is_regex(&"(".repeat(500)));
        assert!(!is_regex(&format!("{}a{}", "(".repeat(60), ")".repeat(60))));
    }

    #[test]
    fn identifiers_are_plain() {
        for text in ["a", "0", "main-2.x_y"] {
            assert!(is_identifier(text), "{text}");
        }
        for text in ["", "-a", ".a", "a/b", "a b", "ä", "a\n", "--help"] {
            assert!(!is_identifier(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_path_that_passes_leads_up_or_away(text in "[a./\\-]{0,12}") {
            if is_workspace_path(&text) {
                let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
                prop_assert!(Path::new(&text).components().all(plain));
            }
        }

        #[test]
        fn nothing_panics(text in any::<String>()) {
            let _ = (is_regex(&text), is_identifier(&text), is_workspace_path(&text));
        }
    }
}
