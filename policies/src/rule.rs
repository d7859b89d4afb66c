//! Rules as answers and errors name them. Their words are made once, when a policy is loaded, so that resolving a
//! request only counts references.

use std::sync::Arc;

use crate::document::Filesystem;
use crate::place::Place;
use crate::position::{Located, Position};

/// A rule that decides, as a person would say it, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) text: Arc<str>,
    pub(crate) at: Position,
}

impl Rule {
    /// A key of `[filesystem]` that isn't a list.
    pub(crate) fn key(key: &str, at: &Position) -> Self {
        Self { text: format!("[filesystem] {key}").into(), at: at.clone() }
    }
}

/// A path and the rule that it is.
#[derive(Debug, Clone)]
pub(crate) struct PlaceRule {
    pub(crate) place: Place,
    pub(crate) rule: Rule,
}

/// The lists of `[filesystem]`.
#[derive(Debug)]
pub(crate) struct PlaceRules {
    pub(crate) read: Vec<PlaceRule>,
    pub(crate) write: Vec<PlaceRule>,
    pub(crate) execute: Vec<PlaceRule>,
    pub(crate) deny: Vec<PlaceRule>,
    pub(crate) protect: Vec<PlaceRule>,
}

impl PlaceRules {
    pub(crate) fn new(filesystem: &Filesystem) -> Self {
        let rules = |key: &str, list: &Option<Vec<Located<Place>>>| {
            let rule = |place: &Located<Place>| PlaceRule {
                rule: Rule {
                    text: format!("[filesystem] {key}: \"{}\"", place.value).into(),
                    at: place.at.clone(),
                },
                place: place.value.clone(),
            };
            list.iter().flatten().map(rule).collect()
        };
        Self {
            read: rules("read", &filesystem.read),
            write: rules("write", &filesystem.write),
            execute: rules("execute", &filesystem.execute),
            deny: rules("deny", &filesystem.deny),
            protect: rules("protect", &filesystem.protect),
        }
    }
}
