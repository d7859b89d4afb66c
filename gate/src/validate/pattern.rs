//! A schema's regular expressions, each as a table that takes a byte at a time.
//!
//! An engine that makes its automaton while it matches takes microseconds a byte where a text makes it need ever new states
//! (`[ab]*a[ab]{200}c`), and so would be slow by what a caller sends. Here all states are made when the schema is read, and one of
//! which there would be too many is refused then: what is sent costs the same for each byte, whatever it is.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::Arc;

use jsonschema_regex::RepeatedClass;
use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::{Anchored, Input, MatchKind, util::syntax};

use super::{MAX_PATTERN, MAX_PATTERN_MEMORY, MAX_PATTERN_TABLE, MAX_PATTERN_TABLES, MAX_PATTERNS};

/// A class's table, in bytes: a bit for each character of Unicode's first plane.
const REPEATED: usize = 65_536 / 8;

/// One of them.
pub(crate) enum Pattern {
    /// Any.
    Table(Box<dense::DFA<Vec<u32>>>),
    /// `^X{m,n}$` of one class: its characters are counted, for which a table would be as long as the count is high.
    Repeated(RepeatedClass),
}

/// Its table isn't for people.
impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pattern")
    }
}

impl Pattern {
    /// As JSON Schema means it: `\d`, `\w` and `\b` are ASCII's, and it is looked for anywhere in a text.
    ///
    /// # Errors
    /// Why it can't be one.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        if text.len() > MAX_PATTERN {
            return Err(format!(
                "{} bytes of regular expression are over the limit of {MAX_PATTERN}",
                text.len()
            ));
        }
        let bad = |reason: String| format!("it isn't a regular expression that can be a pattern: {reason}");
        let said = jsonschema_regex::to_rust_regex(text)
            .map_err(|()| bad("look-around and back references aren't".into()))?;
        let said = with_ascii_words(&said);
        if let Some(repeated) = RepeatedClass::from_translated(&said) {
            return Ok(Self::Repeated(repeated));
        }
        let hir = syntax::parse_with(&said, &syntax::Config::new().nest_limit(64))
            .map_err(|error| bad(last_line(&error)))?;
        let large = || {
            let remedy = "repeat less of it, or say `maxLength` for how long it may be";
            Err(format!("the table of this pattern is over {MAX_PATTERN_TABLE} bytes; {remedy}"))
        };
        let config = thompson::Config::new().nfa_size_limit(Some(MAX_PATTERN_MEMORY));
        let nfa = thompson::Compiler::new().configure(config).build_from_hir(&hir);
        let config = dense::Config::new()
            .start_kind(StartKind::Unanchored)
            // Whether there is a match is asked, and never where: what is behind the first isn't gone on with.
            .match_kind(MatchKind::LeftmostFirst)
            .dfa_size_limit(Some(MAX_PATTERN_TABLE))
            .determinize_size_limit(Some(MAX_PATTERN_MEMORY));
        let Ok(nfa) = nfa else { return large() };
        if nfa.look_set_any().contains_word_unicode() {
            return Err(bad("a word's end as Unicode sees it can't be looked for".into()));
        }
        match dense::Builder::new().configure(config).build_from_nfa(&nfa) {
            Ok(table) => Ok(Self::Table(Box::new(table))),
            Err(_) => large(),
        }
    }

    /// Whether it is anywhere in a text. It takes the same for each byte.
    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Repeated(class) => class.is_match(text),
            Self::Table(table) => {
                let input = Input::new(text).anchored(Anchored::No).earliest(true);
                // A table without bytes at which it stops doesn't fail.
                table.try_search_fwd(&input).is_ok_and(|found| found.is_some())
            }
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Table(table) => table.memory_usage(),
            Self::Repeated(_) => REPEATED,
        }
    }
}

/// JSON Schema's words are of ASCII, and the engine's of Unicode unless it's told.
fn with_ascii_words(pattern: &str) -> String {
    let (mut said, mut rest) = (String::new(), pattern);
    while let Some((before, behind)) = rest.split_once('\\') {
        said.push_str(before);
        let escaped: String = behind.chars().take(1).collect();
        rest = &behind[escaped.len()..];
        let is_word = matches!(escaped.as_str(), "b" | "B") && !rest.starts_with('{');
        let (open, close) = if is_word { ("(?-u:\\", ")") } else { ("\\", "") };
        said.extend([open, &escaped, close]);
    }
    said + rest
}

/// The last line of a syntax error says what is wrong; the others draw it.
fn last_line(error: &regex_syntax::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// Those of a schema.
#[derive(Clone, Default)]
pub struct Patterns {
    /// Each once, however often it is said.
    made: BTreeMap<String, Arc<Pattern>>,
    said: usize,
    bytes: usize,
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.made.keys()).finish()
    }
}

impl Patterns {
    /// Makes one more.
    ///
    /// # Errors
    /// Why it can't be, or that there are too many; that is said once.
    pub(super) fn add(&mut self, text: &str) -> Result<(), String> {
        self.said += 1;
        if self.said == MAX_PATTERNS + 1 {
            return Err(format!("there are more than {MAX_PATTERNS} regular expressions"));
        }
        if self.said > MAX_PATTERNS || self.bytes > MAX_PATTERN_TABLES || self.made.contains_key(text) {
            return Ok(());
        }
        let pattern = Pattern::new(text)?;
        self.bytes += pattern.size();
        if self.bytes > MAX_PATTERN_TABLES {
            return Err(format!(
                "the tables of all patterns up to this one are over {MAX_PATTERN_TABLES} bytes"
            ));
        }
        self.made.insert(text.to_owned(), Arc::new(pattern));
        Ok(())
    }

    pub(super) fn get(&self, text: &str) -> Option<Arc<Pattern>> {
        self.made.get(text).cloned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_matched_is_what_json_schema_says() {
        for (pattern, fits, doesnt) in [
            ("b", "abc", "ac"),
            ("^[a-z]+$", "abc", "abc1"),
            ("^\\w+$", "a_1", "\u{e4}"),
            ("^\\d$", "7", "\u{661}"),
            ("^.$", "\u{1f600}", "ab"),
            ("\\bcat\\b", "\u{e4}cat.", "concat"),
            ("cat\\B", "cats", "cat"),
            (r"^\\b$", "\\b", "b"),
            ("^[\\p{L} .'-]{1,100}$", "\u{e4} b", "1"),
            ("^\\p{L}+$", "\u{e4}b", "a1"),
            ("^[^/]{1,255}$", "a", ""),
            ("", "", "\u{0}"),
        ] {
            let made = Pattern::new(pattern).unwrap();
            assert!(made.matches(fits), "{pattern}");
            assert!(pattern.is_empty() || !made.matches(doesnt), "{pattern}");
        }
    }

    #[test]
    fn one_that_a_text_could_make_slow_is_refused() {
        for text in ["[ab]*a[ab]{200}c", "[ab]*a[ab]{800}c", "a{1000}{1000}", "^(\\p{L}{1,50}x){1,50}$"] {
            assert!(Pattern::new(text).err().unwrap().contains("table of this pattern"), "{text}");
        }
        for text in ["(?=a)b", "(a)\\1", "(", "(?<!a)b"] {
            assert!(Pattern::new(text).err().unwrap().contains("regular expression"), "{text}");
        }
    }

    #[test]
    fn all_tables_together_are_bounded_and_the_same_one_is_made_once() {
        let mut patterns = Patterns::default();
        let large = |at: usize| format!("^\\p{{L}}+{at}");
        let made = (0..MAX_PATTERNS).map(|at| patterns.add(&large(at)));
        let wrong: Vec<String> = made.filter_map(Result::err).collect();
        assert!(wrong.len() == 1 && wrong[0].contains("tables of all patterns"), "{wrong:?}");
        let mut patterns = Patterns::default();
        assert!((0..MAX_PATTERNS).all(|_| patterns.add(&large(8)).is_ok()));
        assert!(patterns.add("a").unwrap_err().contains("more than 64"));
    }

    proptest! {
        /// As the engine does that makes its automaton while it matches.
        #[test]
        fn it_agrees_with_another_engine(pattern in "[ab^$.|*+?()]{0,8}", text in "[abc\n]{0,12}") {
            let other = regex::Regex::new(&pattern).ok();
            let made = Pattern::new(&pattern).ok();
            if let (Some(other), Some(made)) = (other, made) {
                prop_assert_eq!(made.matches(&text), other.is_match(&text));
            }
        }
    }
}
