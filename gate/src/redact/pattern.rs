//! One pattern, as a table that takes a byte at a time.

use std::collections::BTreeSet;
use std::sync::Arc;

use regex_automata::MatchKind;
use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::util::start::Config as Start;
use regex_automata::{Anchored, util::syntax};
use regex_syntax::hir::literal::{ExtractKind, Extractor};

/// The longest span that a pattern may match, in bytes.
pub const MAX_SPAN: usize = 10_240;
/// The longest text of a pattern, in bytes.
const MAX_TEXT: usize = 4_096;
/// The largest table of one pattern, and what making it may take, in bytes.
const MAX_TABLE: usize = 4 * 1024 * 1024;
/// The most ways in which a pattern may begin.
const MAX_BEGINNINGS: usize = 1_024;
/// The most bytes that one byte of a beginning may be.
const MAX_CHOICES: usize = 64;
/// Of a beginning so many bytes are looked for at most, and at least if there are so many.
pub(super) const BEGINNING: usize = 8;
const SHORT_BEGINNING: usize = 4;
/// More beginnings than that are cut shorter: what they have in common is enough to look for.
const FEW_BEGINNINGS: usize = 16;

/// Why a pattern can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// It isn't one.
    #[error("it's no pattern: {0}")]
    Syntax(String),
    /// It has no longest match, or too long a one.
    #[error(
        "it matches more than {MAX_SPAN} bytes; say how often each part may come, as in `{{8,64}}`, or where it ends, with `longest`"
    )]
    Unbounded,
    /// It matches nothing at all.
    #[error("it matches an empty text")]
    Empty,
    /// It may begin with nearly anything, so that every byte would have to be tried.
    #[error(
        "it may begin in more than {MAX_BEGINNINGS} ways; begin it with letters that stand there, or with one of at most {MAX_CHOICES}"
    )]
    Vague,
    /// Its table is too large.
    #[error("its table is over {MAX_TABLE} bytes; match less of it")]
    Large,
}

/// A pattern.
#[derive(Clone)]
pub(super) struct Pattern {
    table: Arc<dense::DFA<Vec<u32>>>,
    /// The longest span, in bytes.
    pub(super) longest: usize,
    /// Each match begins with one of these, which are cut at [`BEGINNING`] bytes.
    pub(super) beginnings: Vec<Vec<u8>>,
}

/// How far a pattern has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At(StateID);

/// What came of some bytes.
pub(super) struct Taken {
    /// Where it stands, if anything that comes can still match.
    pub(super) at: Option<At>,
    /// The last match's end among these bytes.
    pub(super) end: Option<usize>,
    /// How many of them it took, the one among them at which it ended.
    pub(super) taken: usize,
}

impl core::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Pattern").field("beginnings", &self.beginnings).finish_non_exhaustive()
    }
}

impl Pattern {
    /// Of bytes, not characters: `\w` and `\b` are ASCII's. `longest`: where a match ends that would be longer, in bytes.
    pub(super) fn new(text: &str, longest: Option<usize>) -> Result<Self, PatternError> {
        if text.len() > MAX_TEXT {
            return Err(PatternError::Syntax(format!("it's over {MAX_TEXT} bytes long")));
        }
        let config = syntax::Config::new().unicode(false).utf8(false).nest_limit(64);
        let hir = syntax::parse_with(text, &config).map_err(|error| PatternError::Syntax(said(&error)))?;
        let properties = hir.properties();
        let own = properties.maximum_len();
        let longest = own.into_iter().chain(longest).min().filter(|longest| *longest <= MAX_SPAN);
        let longest = longest.ok_or(PatternError::Unbounded)?;
        if properties.minimum_len().is_none_or(|shortest| shortest == 0) {
            return Err(PatternError::Empty);
        }
        let mut extractor = Extractor::new();
        extractor.kind(ExtractKind::Prefix).limit_class(MAX_CHOICES).limit_total(MAX_BEGINNINGS);
        let beginnings = extractor.extract(&hir);
        let beginnings = beginnings.literals().ok_or(PatternError::Vague)?;
        let literals: Vec<&[u8]> = beginnings.iter().map(AsRef::as_ref).collect();
        let beginnings = few(&literals);
        if beginnings.is_empty() || beginnings.iter().any(Vec::is_empty) {
            return Err(PatternError::Vague);
        }
        Ok(Self { table: Arc::new(table(&hir)?), longest, beginnings })
    }

    /// Where a match would begin, behind this byte.
    pub(super) fn start(&self, before: Option<u8>) -> Option<At> {
        let start = Start::new().anchored(Anchored::Yes).look_behind(before);
        self.table.start_state(&start).ok().filter(|state| !self.table.is_dead_state(*state)).map(At)
    }

    /// Takes bytes until nothing can match any more.
    pub(super) fn take(&self, at: At, bytes: &[u8]) -> Taken {
        let (mut state, mut end) = (at.0, None);
        for (index, byte) in bytes.iter().enumerate() {
            state = self.table.next_state(state, *byte);
            if self.table.is_special_state(state) {
                // A match is told one byte later: it ended before this one.
                if self.table.is_match_state(state) {
                    end = Some(index);
                } else if self.table.is_dead_state(state) || self.table.is_quit_state(state) {
                    return Taken { at: None, end, taken: index + 1 };
                }
            }
        }
        Taken { at: Some(At(state)), end, taken: bytes.len() }
    }

    /// Whether what it took would match if nothing came any more.
    pub(super) fn ends(&self, at: At) -> bool {
        self.table.is_match_state(self.table.next_eoi_state(at.0))
    }

    /// What its table takes, in bytes.
    pub(super) fn size(&self) -> usize {
        self.table.memory_usage()
    }
}

/// The literals, cut so that they are few or short.
fn few(literals: &[&[u8]]) -> Vec<Vec<u8>> {
    let cut = |longest: usize| {
        let cut = literals.iter().map(|literal| literal[..literal.len().min(longest)].to_vec());
        cut.collect::<BTreeSet<_>>()
    };
    let few = (SHORT_BEGINNING..=BEGINNING).rev().map(cut).find(|cut| cut.len() <= FEW_BEGINNINGS);
    few.unwrap_or_else(|| cut(SHORT_BEGINNING)).into_iter().collect()
}

fn table(hir: &regex_syntax::hir::Hir) -> Result<dense::DFA<Vec<u32>>, PatternError> {
    let config = thompson::Config::new().utf8(false).nfa_size_limit(Some(MAX_TABLE));
    let nfa = thompson::Compiler::new().configure(config).build_from_hir(hir);
    let config = dense::Config::new()
        .start_kind(StartKind::Anchored)
        // Every match, so that the last that is seen is the longest.
        .match_kind(MatchKind::All)
        .dfa_size_limit(Some(MAX_TABLE))
        .determinize_size_limit(Some(MAX_TABLE));
    let nfa = nfa.map_err(|_| PatternError::Large)?;
    dense::Builder::new().configure(config).build_from_nfa(&nfa).map_err(|_| PatternError::Large)
}

/// The last line of a syntax error says what is wrong; the others draw it.
fn said(error: &regex_syntax::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_bounded_begins_with_something_and_matches_something() {
        for (text, expected) in [
            ("a(", PatternError::Syntax(String::new())),
            (r"\p{Greek}{3}", PatternError::Syntax(String::new())),
            ("(?=a)b", PatternError::Syntax(String::new())),
            ("token-[a-z]+", PatternError::Unbounded),
            ("token-[a-z]{1,20000}", PatternError::Unbounded),
            ("(?:token)?", PatternError::Empty),
            (r"\b", PatternError::Empty),
            (".token", PatternError::Vague),
            ("[^a]token", PatternError::Vague),
            ("[a-z]{0,5}", PatternError::Empty),
        ] {
            let error = Pattern::new(text, None).map(|_| ()).unwrap_err();
            match (&error, &expected) {
                (PatternError::Syntax(said), PatternError::Syntax(_)) => {
                    assert!(!said.contains('\n'), "{said}");
                }
                _ => assert_eq!(error, expected, "{text}"),
            }
        }
        let bomb = "(?:a{1,100}b{1,100}|b{1,100}a{1,100}){1,40}".to_owned();
        assert_eq!(Pattern::new(&bomb, None).map(|_| ()), Err(PatternError::Large));
        let digits = Pattern::new("[0-9]{16}", None).unwrap();
        assert!(digits.beginnings.len() <= MAX_BEGINNINGS);
    }

    #[test]
    fn the_longest_match_is_told_whatever_pieces_it_comes_in() {
        let pattern = Pattern::new(r"\bab(?:cd){1,3}(?:-end)?", None).unwrap();
        let whole = b"abcdcd-enx";
        for cut in 0..whole.len() {
            let first = pattern.take(pattern.start(Some(b' ')).unwrap(), &whole[..cut]);
            let second = pattern.take(first.at.unwrap(), &whole[cut..]);
            let end = second.end.map(|end| end + cut).or(first.end);
            assert!(second.at.is_none() && end == Some(6), "cut at {cut}: {end:?}");
        }
        let glued = pattern.start(Some(b'x')).map(|at| pattern.take(at, whole));
        assert!(glued.is_none_or(|taken| taken.end.is_none()), "a word before it");
        let exact = pattern.take(pattern.start(None).unwrap(), b"abcd");
        assert!(exact.end.is_none() && pattern.ends(exact.at.unwrap()));
    }
}
