//! Rules as answers and errors name them. A rule is said in words only when it is asked for: resolving a request
//! handles hundreds of them, and shows none.

use core::fmt;
use std::sync::Arc;

use crate::names::NamePattern;
use crate::place::Place;
use crate::position::{Located, Position};

/// A rule that decides, as a person would say it, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) text: Words,
    pub(crate) at: Position,
}

/// What a rule says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Words {
    /// These words.
    Text(Arc<str>),
    /// A key of `[filesystem]` that isn't a list.
    Key(&'static str),
    /// An entry of a list of `[filesystem]`.
    Entry(&'static str, Place),
    /// An entry of `[environment] allow`.
    Allowed(NamePattern),
}

impl Rule {
    pub(crate) fn text(text: &str, at: &Position) -> Self {
        Self { text: Words::Text(text.into()), at: at.clone() }
    }

    pub(crate) fn key(key: &'static str, at: &Position) -> Self {
        Self { text: Words::Key(key), at: at.clone() }
    }

    pub(crate) fn entry(list: &'static str, place: &Located<Place>) -> Self {
        Self { text: Words::Entry(list, place.value.clone()), at: place.at.clone() }
    }

    pub(crate) fn allowed(pattern: &Located<NamePattern>) -> Self {
        Self { text: Words::Allowed(pattern.value.clone()), at: pattern.at.clone() }
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Key(key) => write!(f, "[filesystem] {key}"),
            Self::Entry(list, place) => write!(f, "[filesystem] {list}: \"{place}\""),
            Self::Allowed(pattern) => write!(f, "[environment] allow: \"{pattern}\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_said_as_they_are_written() {
        let place = Located::built_in(Place::absolute("${home}/.cargo").unwrap());
        let pattern = Located::built_in(NamePattern::parse("LC_*").unwrap());
        let rules = [
            (Rule::allowed(&pattern), "[environment] allow: \"LC_*\""),
            (Rule::text("a rule", &place.at), "a rule"),
            (Rule::key("hidden-home", &place.at), "[filesystem] hidden-home"),
            (Rule::entry("read", &place), "[filesystem] read: \"${home}/.cargo\""),
        ];
        for (rule, words) in rules {
            assert_eq!(rule.text.to_string(), words);
        }
    }
}
