//! Rules as answers and errors name them. A rule is said in words only when it is asked for: resolving a request
//! handles hundreds of them, and shows none.

use core::fmt;

use crate::names::NamePattern;
use crate::place::Place;
use crate::position::{Located, Position};
use crate::text::quoted;

/// A rule that decides: where a policy states it, or words of our own.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rule<'a> {
    /// What no policy states.
    Own(&'static str),
    /// A key of `[filesystem]` that isn't a list.
    Key(&'static str, &'a Position),
    /// An entry of a list of `[filesystem]`.
    Entry(&'static str, &'a Located<Place>),
    /// An entry of `[environment] allow`.
    Allowed(&'a Located<NamePattern>),
    /// A variable of a table of `[environment]`.
    Variable(&'static str, &'a str, &'a Position),
}

impl Rule<'_> {
    /// Where it stands.
    pub(crate) fn at(self) -> Position {
        match self {
            Self::Own(_) => Position::built_in(),
            Self::Key(_, at) | Self::Variable(_, _, at) => at.clone(),
            Self::Entry(_, place) => place.at.clone(),
            Self::Allowed(pattern) => pattern.at.clone(),
        }
    }
}

/// As a person would say it.
impl fmt::Display for Rule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(words) => f.write_str(words),
            Self::Key(key, _) => write!(f, "[filesystem] {key}"),
            Self::Entry(list, place) => write!(f, "[filesystem] {list}: {}", quoted(&place.value)),
            Self::Allowed(pattern) => write!(f, "[environment] allow: {}", quoted(&pattern.value)),
            Self::Variable(table, name, _) => write!(f, "[environment] {table}: {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_said_as_they_are_written() {
        let place = Located::built_in(Place::absolute("${home}/.cargo").unwrap());
        // A policy's own text may hold anything that a path may: what a terminal would obey is escaped.
        let odd = Located::built_in(Place::absolute("/a\tb").unwrap());
        assert_eq!(Rule::Entry("read", &odd).to_string(), "[filesystem] read: \"/a\\u0009b\"");
        let pattern = Located::built_in(NamePattern::parse("LC_*").unwrap());
        let rules = [
            (Rule::Allowed(&pattern), "[environment] allow: \"LC_*\""),
            (Rule::Own("a rule"), "a rule"),
            (Rule::Key("hidden-home", &place.at), "[filesystem] hidden-home"),
            (Rule::Entry("read", &place), "[filesystem] read: \"${home}/.cargo\""),
            (Rule::Variable("set", "A", &place.at), "[environment] set: A"),
        ];
        for (rule, words) in rules {
            assert_eq!(rule.to_string(), words);
            assert_eq!(rule.at(), Position::built_in());
        }
    }
}
