//! Text of strangers on a terminal: names, arguments and output come from commands nobody vouches for, and a
//! terminal obeys what it's shown (CSI, OSC, bidirectional overrides). Whatever isn't a plain printing character
//! is shown as an escape instead.

use std::borrow::Cow;
use std::fmt::Write as _;

/// One line for a person: control characters, line ends included, and bytes that aren't UTF-8 are escaped.
pub(crate) fn line(bytes: &[u8]) -> String {
    escape(bytes, |_| false)
}

/// As [`line()`], but line ends and tabs stand, and what chooses between two looks of the sign before it.
pub(crate) fn text(bytes: &[u8]) -> String {
    escape(bytes, |c| matches!(c, '\n' | '\t' | '\u{fe0e}' | '\u{fe0f}'))
}

/// As [`line()`], and so that no two texts look the same: a backslash is escaped, too, blanks but a plain one between others, and of
/// several plain ones how many there are. Whoever is to approve a text has to see what it is.
pub(crate) fn exact(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    let mut blanks = 0;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == ' ' {
                blanks += 1;
                continue;
            }
            put_blanks(&mut out, core::mem::take(&mut blanks));
            if c == '\\' || obeyed(c) || is_blank(c) {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            put_blanks(&mut out, core::mem::take(&mut blanks));
            let _infallible = write!(out, "\\x{byte:02x}");
        }
    }
    put_blanks(&mut out, blanks);
    out
}

fn put_blanks(out: &mut String, count: usize) {
    match count {
        0 => {}
        1 => out.push(' '),
        count => {
            let _infallible = write!(out, "\\x20{{{count}}}");
        }
    }
}

/// What looks like a blank and is none; the pattern of Braille without a dot among them.
fn is_blank(c: char) -> bool {
    !c.is_ascii() && (c.is_whitespace() || c == '\u{2800}')
}

/// Output for a terminal, escaped as [`text`]; or for anything else, as it is.
pub(crate) fn for_terminal(bytes: &[u8], terminal: bool) -> Cow<'_, [u8]> {
    if terminal { Cow::Owned(text(bytes).into_bytes()) } else { Cow::Borrowed(bytes) }
}

fn escape(bytes: &[u8], keep: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if keep(c) || !obeyed(c) {
                out.push(c);
            } else {
                out.extend(c.escape_default());
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String doesn't fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Whether a terminal, or the eye, would do something else than show this character in its place: controls; what Unicode has
/// nobody see (`Default_Ignorable_Code_Point`: bidirectional marks, embeddings and isolates, zero-width characters, fillers,
/// tags), by which two different names look the same; separators of lines and paragraphs; and annotations between lines.
fn obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped_and_the_rest_stands() {
        let table: &[(&[u8], &str)] = &[
            (b"plain text", "plain text"),
            ("Grüße 漢字 🚀".as_bytes(), "Grüße 漢字 🚀"),
            (b"\x1b[2J\x1b]0;owned\x07", "\\u{1b}[2J\\u{1b}]0;owned\\u{7}"),
            (b"a\nb\r\tc", "a\\nb\\r\\tc"),
            (b"\x9b31m", "\\x9b31m"),
            ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
            ("safe\u{202e}txt.exe".as_bytes(), "safe\\u{202e}txt.exe"),
            ("zero\u{200b}width".as_bytes(), "zero\\u{200b}width"),
            ("soft\u{ad}hyphen, \u{3164}, \u{206a}".as_bytes(), "soft\\u{ad}hyphen, \\u{3164}, \\u{206a}"),
            (b"\x7f", "\\u{7f}"),
            (b"\xff\xfe", "\\xff\\xfe"),
        ];
        for (bytes, expected) in table {
            assert_eq!(line(bytes), *expected);
        }
    }

    #[test]
    fn what_is_shown_exactly_looks_like_nothing_else() {
        let table: &[(&[u8], &str)] = &[
            (b"a b c", "a b c"),
            (b"a\nb", "a\\nb"),
            (b"a\\nb", "a\\\\nb"),
            (b"a  b", "a\\x20{2}b"),
            (b" {2}a", " {2}a"),
            (b"a   ", "a\\x20{3}"),
            (b"  \xff  ", "\\x20{2}\\xff\\x20{2}"),
            ("\u{3000}\u{2800}\u{a0}\u{2003}x".as_bytes(), "\\u{3000}\\u{2800}\\u{a0}\\u{2003}x"),
            ("Grüße 漢字".as_bytes(), "Grüße 漢字"),
        ];
        for (bytes, expected) in table {
            assert_eq!(exact(bytes), *expected);
        }
        // Of all short texts of these no two look the same.
        let letters =
            [&b" "[..], b"\\", b"\n", b"n", b"x20{2}", b"\xff", b"{2}", "\u{a0}".as_bytes(), b"u{a0}"];
        let mut texts = vec![Vec::new()];
        let mut seen = std::collections::HashMap::new();
        for _ in 0..4 {
            texts = texts.iter().flat_map(|text| letters.map(|letter| [text, letter].concat())).collect();
            for text in &texts {
                let other = seen.entry(exact(text)).or_insert_with(|| text.clone());
                assert_eq!(other, text);
            }
        }
    }

    #[test]
    fn text_keeps_line_ends_tabs_and_looks_only() {
        assert_eq!(text(b"a\tb\nc\r\x1b"), "a\tb\nc\\r\\u{1b}");
        assert_eq!(text("⚠\u{fe0f}".as_bytes()), "⚠\u{fe0f}");
        assert_eq!(line("⚠\u{fe0f}".as_bytes()), "⚠\\u{fe0f}");
    }
}
