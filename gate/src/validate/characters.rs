//! Characters that text among parameters doesn't have unless its schema lets them in with `x-stockade-allow`: they say one thing
//! to a program and another, or nothing, to who reads it.
//!
//! Zero characters are never let in: no argument of a program can hold one. Not refused are the joiners and the variation selectors
//! that scripts and emoji are written with. Names of members have none of these characters, ever.

use std::collections::BTreeMap;

use serde_json::Value;

use super::mismatch::{Mismatch, pointer};
use super::outline::referred;
use super::{MAX_DEPTH, MAX_MISMATCHES};

/// A kind of characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Line feed, carriage return, and Unicode's separators of lines and paragraphs.
    LineBreak,
    /// The tab.
    Tab,
    /// Other control characters.
    Control,
    /// What turns the direction of writing.
    Bidi,
    /// What nobody sees: zero-width spaces, fillers, tags, and the like.
    Invisible,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::LineBreak, Self::Tab, Self::Control, Self::Bidi, Self::Invisible];

    /// Its name in `x-stockade-allow`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LineBreak => "line-break",
            Self::Tab => "tab",
            Self::Control => "control",
            Self::Bidi => "bidi",
            Self::Invisible => "invisible",
        }
    }

    /// Of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::LineBreak => "line breaks",
            Self::Tab => "tabs",
            Self::Control => "control characters",
            Self::Bidi => "characters that turn the direction of writing",
            Self::Invisible => "invisible characters",
        }
    }

    /// Of a character; `None`: a plain one, or the zero character, which is of no class.
    #[must_use]
    pub fn of(character: char) -> Option<Self> {
        match character {
            '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => Some(Self::LineBreak),
            '\t' => Some(Self::Tab),
            '\0' => None,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                Some(Self::Bidi)
            }
            '\u{ad}'
            | '\u{34f}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'
            | '\u{2060}'..='\u{2065}'
            | '\u{206a}'..='\u{206f}'
            | '\u{3164}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}' => Some(Self::Invisible),
            other if other.is_control() => Some(Self::Control),
            _ => None,
        }
    }
}

/// A set of classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Classes(u8);

impl Classes {
    fn with(self, class: Class) -> Self {
        Self(self.0 | 1 << class as u8)
    }

    fn has(self, class: Class) -> bool {
        self.0 & (1 << class as u8) != 0
    }

    fn of_schema(schema: &Value) -> Self {
        let names = schema.get("x-stockade-allow").and_then(Value::as_array);
        let names = names.into_iter().flatten().filter_map(Value::as_str);
        names.filter_map(Class::named).fold(Self::default(), Self::with)
    }

    /// The first character of a text that isn't in it.
    fn first_other(self, text: &str) -> Option<char> {
        // Most text is plain, and this is all that is done about it.
        if text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            return None;
        }
        text.chars().find(|character| match Class::of(*character) {
            Some(class) => !self.has(class),
            None => *character == '\0',
        })
    }
}

/// What is let in where: the shape of a schema, as far as any of it lets anything in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    here: Classes,
    members: BTreeMap<String, Allowed>,
    /// Members whose names match a pattern, whichever.
    patterned: Option<Box<Allowed>>,
    /// Members that aren't named.
    others: Option<Box<Allowed>>,
    /// Elements by their place.
    first: Vec<Allowed>,
    /// The elements behind those.
    rest: Option<Box<Allowed>>,
}

impl Allowed {
    /// Of a schema that an outline has been made of, so that it is bounded and has no circle. What any of the schemas that
    /// apply at a place lets in is let in there.
    #[must_use]
    pub(super) fn of(root: &Value) -> Self {
        let mut allowed = Self::default();
        allowed.add(root, root);
        allowed.pruned()
    }

    fn add(&mut self, root: &Value, schema: &Value) {
        self.here.0 |= Classes::of_schema(schema).0;
        if let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(|name| referred(root, name))
        {
            self.add(root, target);
        }
        for key in ["allOf", "anyOf", "oneOf"] {
            for one in schema.get(key).and_then(Value::as_array).into_iter().flatten() {
                self.add(root, one);
            }
        }
        for key in ["if", "then", "else"] {
            if let Some(one) = schema.get(key) {
                self.add(root, one);
            }
        }
        let members = |key| schema.get(key).and_then(Value::as_object).into_iter().flatten();
        for (_, one) in members("dependentSchemas") {
            self.add(root, one);
        }
        for (name, one) in members("properties") {
            self.members.entry(name.clone()).or_default().add(root, one);
        }
        for (_, one) in members("patternProperties") {
            self.patterned.get_or_insert_default().add(root, one);
        }
        if let Some(one) = schema.get("additionalProperties") {
            self.others.get_or_insert_default().add(root, one);
        }
        for (at, one) in schema.get("prefixItems").and_then(Value::as_array).into_iter().flatten().enumerate()
        {
            if self.first.len() <= at {
                self.first.push(Self::default());
            }
            self.first[at].add(root, one);
        }
        for key in ["items", "contains"] {
            if let Some(one) = schema.get(key) {
                self.rest.get_or_insert_default().add(root, one);
            }
        }
    }

    /// Without what lets nothing in.
    fn pruned(mut self) -> Self {
        // Members that let nothing in stay where those that aren't named let something in.
        let keep = self.others.is_some();
        let members = self.members.into_iter().map(|(name, one)| (name, one.pruned()));
        self.members = members.filter(|(_, one)| keep || !one.is_nothing()).collect();
        let pruned = |one: Box<Self>| Some(one.pruned()).filter(|one| !one.is_nothing()).map(Box::new);
        self.patterned = self.patterned.and_then(pruned);
        self.others = self.others.and_then(pruned);
        self.rest = self.rest.and_then(pruned);
        self.first = self.first.into_iter().map(Self::pruned).collect();
        if self.first.iter().all(Self::is_nothing) {
            self.first.clear();
        }
        self
    }

    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Where a value has characters that aren't let in: the first of each text, so many texts at most.
    pub(super) fn mismatches(&self, value: &Value) -> Vec<Mismatch> {
        let mut found = Vec::new();
        self.look(value, &mut Vec::new(), &mut found);
        found
    }

    fn look<'v>(&self, value: &'v Value, at: &mut Vec<Step<'v>>, found: &mut Vec<Mismatch>) {
        if found.len() >= MAX_MISMATCHES || at.len() > MAX_DEPTH {
            return;
        }
        match value {
            Value::String(text) => {
                found.extend(self.here.first_other(text).map(|character| told(at, character)));
            }
            Value::Array(list) => {
                for (place, element) in list.iter().enumerate() {
                    let below = self.first.get(place).into_iter().chain(self.rest.as_deref());
                    at.push(Step::Element(place));
                    Self::merged(below, |below| below.look(element, at, found));
                    at.pop();
                }
            }
            Value::Object(object) => {
                for (name, member) in object {
                    at.push(Step::Member(name));
                    found.extend(Classes::default().first_other(name).map(|character| told(at, character)));
                    let below = self.members.get(name).or(self.others.as_deref());
                    let below = below.into_iter().chain(self.patterned.as_deref());
                    Self::merged(below, |below| below.look(member, at, found));
                    at.pop();
                }
            }
            _ => {}
        }
    }

    /// Gives on what all of these let in together. Two at once are rare, and so is even one.
    fn merged<'a>(mut all: impl Iterator<Item = &'a Self>, go_on: impl FnOnce(&Self)) {
        static NOTHING: Allowed = Allowed {
            here: Classes(0),
            members: BTreeMap::new(),
            patterned: None,
            others: None,
            first: Vec::new(),
            rest: None,
        };
        let Some(one) = all.next() else { return go_on(&NOTHING) };
        match all.next() {
            None => go_on(one),
            Some(other) => go_on(&one.clone().and(other)),
        }
    }

    fn and(mut self, other: &Self) -> Self {
        self.here.0 |= other.here.0;
        for (name, one) in &other.members {
            let both = self.members.remove(name).unwrap_or_default().and(one);
            self.members.insert(name.clone(), both);
        }
        for (at, one) in other.first.iter().enumerate() {
            if self.first.len() <= at {
                self.first.push(Self::default());
            }
            self.first[at] = std::mem::take(&mut self.first[at]).and(one);
        }
        let both = |one: Option<Box<Self>>, other: &Option<Box<Self>>| match (one, other) {
            (Some(one), Some(other)) => Some(Box::new(one.and(other))),
            (one, other) => one.or_else(|| other.clone()),
        };
        self.patterned = both(self.patterned, &other.patterned);
        self.others = both(self.others, &other.others);
        self.rest = both(self.rest, &other.rest);
        self
    }
}

enum Step<'v> {
    Member(&'v str),
    Element(usize),
}

fn told(at: &[Step<'_>], character: char) -> Mismatch {
    let steps: Vec<String> = at
        .iter()
        .map(|step| match step {
            Step::Member(name) => (*name).to_owned(),
            Step::Element(place) => place.to_string(),
        })
        .collect();
    Mismatch::of_character(&pointer(steps.iter().map(String::as_str)), character, Class::of(character))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wrong(schema: &Value, value: &Value) -> Vec<String> {
        Allowed::of(schema).mismatches(value).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nothing_is_let_in_unless_a_schema_says_so() {
        for (text, code) in [
            ("a\nb", "U+000A"),
            ("a\tb", "U+0009"),
            ("\u{1b}[31m", "U+001B"),
            ("\u{9b}31m", "U+009B"),
            ("a\u{202e}b", "U+202E"),
            ("a\u{2066}b", "U+2066"),
            ("a\u{200b}b", "U+200B"),
            ("a\u{e0041}b", "U+E0041"),
            ("a\0b", "U+0000"),
            ("a\u{7f}b", "U+007F"),
        ] {
            let found = wrong(&json!({}), &json!({ "a": [text] }));
            assert_eq!(found.len(), 1, "{text:?}");
            assert!(found[0].starts_with("/a/0: ") && found[0].ends_with(code), "{found:?}");
        }
        assert!(wrong(&json!({}), &json!("Grüße 漢字 🚀 👩\u{200d}🔧 ⚠\u{fe0f}")).is_empty());
    }

    #[test]
    fn each_class_is_let_in_by_its_name_at_its_place_only() {
        let schema = json!({
            "properties": { "a": { "x-stockade-allow": ["line-break"] }, "b": { "$ref": "#/$defs/t" } },
            "patternProperties": { "^x": { "x-stockade-allow": ["bidi"] } },
            "$defs": { "t": { "items": { "anyOf": [{ "x-stockade-allow": ["tab", "control"] }, true] } } },
        });
        assert!(wrong(&schema, &json!({ "a": "1\n2", "b": ["\t\u{1b}"], "xy": "\u{202e}" })).is_empty());
        assert_eq!(wrong(&schema, &json!({ "a": "\t", "b": ["\n"], "c": "\n" })).len(), 3);
    }

    #[test]
    fn zero_characters_and_odd_names_are_never_let_in() {
        let all: Vec<&str> = Class::ALL.into_iter().map(Class::name).collect();
        let schema = json!({ "x-stockade-allow": all, "additionalProperties": { "x-stockade-allow": all } });
        assert!(wrong(&schema, &json!({ "a": "\n\t\u{1b}\u{202e}\u{200b}" })).is_empty());
        assert_eq!(wrong(&schema, &json!({ "a": "\0" })).len(), 1);
        assert_eq!(wrong(&schema, &json!({ "a\u{202e}": "" })).len(), 1);
    }

    #[test]
    fn so_many_are_told_and_no_more() {
        assert_eq!(wrong(&json!({}), &json!(vec!["\n"; 1000])).len(), MAX_MISMATCHES);
    }
}
