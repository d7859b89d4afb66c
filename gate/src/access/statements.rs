//! Cuts a text of Cedar's into its rules, each with its place, and bounds it before Cedar's parser sees any of it.
//!
//! Only texts, comments and brackets are known here. A cut at the wrong place can't hide anything: each piece is given to Cedar
//! whole, and what is left behind the last `;` must be nothing.

use stockade_policies::{Mistake, Position, Problem, Said};

/// The largest file, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;
/// How deep brackets may stand in one another.
pub const MAX_DEPTH: usize = 32;
/// Operators of one rule, by which its tree can grow deep without any bracket.
pub const MAX_OPERATORS: usize = 512;

/// One rule's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Statement<'a> {
    /// From its first character that counts.
    pub(super) text: &'a str,
    /// Where that is, in bytes.
    pub(super) from: usize,
}

/// The place of a byte.
pub(super) fn place(file: &str, text: &str, at: usize) -> Position {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Position { file: Said::from(file), line: number(line), column: number(column) }
}

/// Where in a rule a cut is looked for.
enum State {
    Plain,
    Comment,
    Text,
    /// Behind a backslash of a text.
    Escaped,
}

/// The rules of a text, in their order.
///
/// # Errors
/// The first thing that is over a bound, or what is left behind the last rule.
pub(super) fn cut<'a>(file: &str, text: &'a str) -> Result<Vec<Statement<'a>>, Mistake> {
    let too_large = |at: usize, what: &str, count: usize, limit: usize| {
        Mistake::new(&place(file, text, at), Problem::TooLarge { what: what.into(), count, limit })
    };
    if text.len() > MAX_BYTES {
        return Err(too_large(0, "the file's bytes", text.len(), MAX_BYTES));
    }
    let (mut state, mut depth, mut operators) = (State::Plain, 0_usize, 0_usize);
    let mut from: Option<usize> = None;
    let mut found = Vec::new();
    let mut last = ' ';
    for (at, character) in text.char_indices() {
        state = match (state, character) {
            (State::Comment, '\n') => State::Plain,
            (State::Comment, _) => State::Comment,
            (State::Text, '\\') => State::Escaped,
            (State::Text, '"') => State::Plain,
            (State::Text | State::Escaped, _) => State::Text,
            (State::Plain, '/') if text[at + 1..].starts_with('/') => State::Comment,
            (State::Plain, character) => {
                if !character.is_whitespace() {
                    from.get_or_insert(at);
                }
                match character {
                    '(' | '[' | '{' => depth += 1,
                    ')' | ']' | '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                // Words are operators too (`if`, `has`, `in`): each begins behind something that is no letter.
                let is_word = |character: char| character.is_alphanumeric() || character == '_';
                let begins = is_word(character) && !is_word(last);
                operators += usize::from(".&|=<>!+-*".contains(character) || begins);
                let start = from.unwrap_or(at);
                if depth > MAX_DEPTH {
                    return Err(too_large(at, "brackets in one another", depth, MAX_DEPTH));
                }
                if operators > MAX_OPERATORS {
                    return Err(too_large(
                        start,
                        "words and operators of one rule",
                        operators,
                        MAX_OPERATORS,
                    ));
                }
                if character == ';' && depth == 0 {
                    found.push(Statement { text: &text[start..=at], from: start });
                    (from, operators) = (None, 0);
                }
                if character == '"' { State::Text } else { State::Plain }
            }
        };
        last = character;
    }
    match from {
        None => Ok(found),
        Some(from) => {
            let wrong = "a rule doesn't end".to_owned();
            let problem = Problem::Rule { wrong, remedy: "end each rule with `;`".into() };
            Err(Mistake::new(&place(file, text, from), problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        cut("a.cedar", text).unwrap().into_iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn rules_end_at_semicolons_that_stand_in_no_text_no_comment_and_no_bracket() {
        let text = "// one; two\n@id(\"a;\\\"b\") permit (x;y) when { \"//\" == 1 }; // end;\n forbid;";
        assert_eq!(texts(text), ["@id(\"a;\\\"b\") permit (x;y) when { \"//\" == 1 };", "forbid;"]);
        assert!(texts(" \n// nothing\n").is_empty());
    }

    #[test]
    fn what_is_left_over_is_a_mistake_at_its_place() {
        for text in ["permit;\n  forbid (", "permit;\n  \"open", "permit;\n  x // ;"] {
            let mistake = cut("a.cedar", text).unwrap_err();
            assert!(mistake.to_string().starts_with("a.cedar:2:3: a rule doesn't end"), "{mistake}");
        }
    }

    #[test]
    fn bounds_hold_before_anything_is_parsed() {
        let deep = |count| format!("permit {}{};", "(".repeat(count), ")".repeat(count));
        assert!(cut("a", &deep(MAX_DEPTH)).is_ok() && cut("a", &deep(MAX_DEPTH + 1)).is_err());
        let long = |count| format!("permit{};", " if".repeat(count));
        assert!(cut("a", &long(MAX_OPERATORS - 1)).is_ok() && cut("a", &long(MAX_OPERATORS)).is_err());
        assert!(cut("a", &"!".repeat(MAX_OPERATORS + 1)).is_err());
        assert!(cut("a", &" ".repeat(MAX_BYTES)).is_ok() && cut("a", &" ".repeat(MAX_BYTES + 1)).is_err());
        // Each rule begins anew.
        assert!(cut("a", &long(MAX_OPERATORS - 1).repeat(3)).is_ok());
    }
}
