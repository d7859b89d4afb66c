//! What a schema is made of, before anything compiles it: every keyword known, everything bounded, no circle.
//!
//! Schemas have been used to stop servers: a definition that refers to itself twice, or to one that refers to one …, each
//! twice, is a hundred bytes and takes for ever. Here a subschema counts as often as it is referred to, so such a one is over the
//! bound, and one that refers to itself is refused. What a check costs is then at most that bound times the values checked.
//!
//! A keyword that isn't known is refused as anywhere else in our files: `minLenght` would check nothing. Left out on purpose:
//! `$id`, `$anchor` and `$dynamicRef` (other ways to refer), `unevaluatedProperties` and `unevaluatedItems` (they check what is
//! below once more, at each level), and what only annotates an encoding.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::characters::Class;
use super::pattern::Patterns;
use super::url::Rules;
use super::{MAX_SCHEMA, MAX_SCHEMA_DEPTH, MAX_SUBSCHEMAS, formats};
use crate::validate::mismatch::pointer;

/// The dialect; `$schema` may say it.
pub const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Where definitions stand, as `$ref` names them.
const DEFINITIONS: &str = "#/$defs/";

/// The types there are.
const TYPES: [&str; 7] = ["string", "integer", "number", "boolean", "array", "object", "null"];

/// What belongs to a keyword.
#[derive(Clone, Copy, PartialEq)]
enum Holds {
    Value,
    One,
    List,
    Named,
}

const KEYWORDS: [(&str, Holds); 53] = [
    ("$schema", Holds::Value),
    ("$comment", Holds::Value),
    ("$ref", Holds::Value),
    ("$defs", Holds::Named),
    ("title", Holds::Value),
    ("description", Holds::Value),
    ("default", Holds::Value),
    ("examples", Holds::Value),
    ("deprecated", Holds::Value),
    ("readOnly", Holds::Value),
    ("writeOnly", Holds::Value),
    ("type", Holds::Value),
    ("enum", Holds::Value),
    ("const", Holds::Value),
    ("multipleOf", Holds::Value),
    ("maximum", Holds::Value),
    ("exclusiveMaximum", Holds::Value),
    ("minimum", Holds::Value),
    ("exclusiveMinimum", Holds::Value),
    ("maxLength", Holds::Value),
    ("minLength", Holds::Value),
    ("pattern", Holds::Value),
    ("format", Holds::Value),
    ("maxItems", Holds::Value),
    ("minItems", Holds::Value),
    ("uniqueItems", Holds::Value),
    ("maxContains", Holds::Value),
    ("minContains", Holds::Value),
    ("maxProperties", Holds::Value),
    ("minProperties", Holds::Value),
    ("required", Holds::Value),
    ("dependentRequired", Holds::Value),
    ("prefixItems", Holds::List),
    ("items", Holds::One),
    ("contains", Holds::One),
    ("properties", Holds::Named),
    ("patternProperties", Holds::Named),
    ("additionalProperties", Holds::One),
    ("propertyNames", Holds::One),
    ("dependentSchemas", Holds::Named),
    ("if", Holds::One),
    ("then", Holds::One),
    ("else", Holds::One),
    ("allOf", Holds::List),
    ("anyOf", Holds::List),
    ("oneOf", Holds::List),
    ("not", Holds::One),
    ("x-stockade-allow", Holds::Value),
    ("x-stockade-url", Holds::Value),
    // Left out, with words of their own.
    ("$id", Holds::Value),
    ("$anchor", Holds::Value),
    ("$dynamicRef", Holds::Value),
    ("$dynamicAnchor", Holds::Value),
];
/// How many of those are known: the rest are named to be refused.
const KNOWN: usize = 49;

/// What is wrong with a schema, and where in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {reason}")]
pub struct Fault {
    /// A JSON pointer into the schema.
    pub pointer: String,
    /// What.
    pub reason: String,
}

/// A schema within the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outline {
    /// Its subschemas, each counted as often as it is referred to, itself included.
    pub subschemas: usize,
    /// How deep they are nested, references followed.
    pub depth: usize,
    /// What a value is held against at the most: subschemas, and choices of `enum`.
    pub parts: usize,
    /// Whether elements have to be unique anywhere: the one keyword whose cost can grow with the square of the values.
    pub is_unique: bool,
    /// What looks at each byte of a text at the most, a pattern's step being 1: all keywords that read texts.
    pub per_byte: usize,
    /// The same of a member's name, for what reads only those.
    pub per_name_byte: usize,
}

/// What a byte costs where characters are counted, or texts are told apart. (`const` and `enum` look at no more of a text than they
/// have themselves.)
const PLAIN_BYTE: usize = 1;
/// A byte of a name under `patternProperties`: the library matches it twice, and makes its automaton meanwhile.
const NAME_BYTE: usize = 256;

/// What a schema's own keywords cost for each byte of a text, and of a member's name.
fn bytes(object: &Map<String, Value>) -> (usize, usize) {
    let has = |key: &str| usize::from(object.contains_key(key));
    let plain = has("pattern") + has("minLength") + has("maxLength") + has("uniqueItems");
    let format = object.get("format").and_then(Value::as_str).map_or(0, formats::per_byte);
    let named = object.get("patternProperties").and_then(Value::as_object).map_or(0, Map::len);
    (plain * PLAIN_BYTE + format, named * NAME_BYTE)
}

/// Looks at a schema.
///
/// # Errors
/// All that is wrong with its shape; then whether it is too large or goes in a circle.
pub fn outline(root: &Value) -> Result<(Outline, Patterns), Vec<Fault>> {
    let mut look = Look { faults: Vec::new(), subschemas: 0, patterns: Patterns::default() };
    if deep(root, 2 * MAX_SCHEMA_DEPTH) {
        look.fault("", format!("it is nested deeper than {MAX_SCHEMA_DEPTH} schemas"));
        return Err(look.faults);
    }
    let bytes = root.to_string().len();
    if bytes > MAX_SCHEMA {
        look.fault("", format!("{bytes} bytes are over the limit of {MAX_SCHEMA}"));
        return Err(look.faults);
    }
    look.texts(root, &mut Vec::new());
    look.schema(root, &mut Vec::new());
    if look.faults.is_empty() {
        let mut measure = Measure { root, known: BTreeMap::new(), within: Vec::new() };
        match measure.whole() {
            Ok(outline) => return Ok((outline, look.patterns)),
            Err(fault) => look.faults.push(fault),
        }
    }
    Err(look.faults)
}

/// What a `$ref` names.
pub(super) fn referred<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    root.get("$defs")?.get(reference.strip_prefix(DEFINITIONS)?)
}

fn deep(value: &Value, most: usize) -> bool {
    match value {
        Value::Array(list) => most == 0 || list.iter().any(|one| deep(one, most - 1)),
        Value::Object(object) => most == 0 || object.values().any(|one| deep(one, most - 1)),
        _ => false,
    }
}

struct Look {
    faults: Vec<Fault>,
    subschemas: usize,
    patterns: Patterns,
}

impl Look {
    fn fault(&mut self, at: &str, reason: impl Into<String>) {
        self.faults.push(Fault { pointer: at.to_owned(), reason: reason.into() });
    }

    fn fault_at(&mut self, at: &[String], reason: impl Into<String>) {
        self.fault(&pointer(at.iter().map(String::as_str)), reason);
    }

    /// A schema is read by people and by models: nothing in it, in a name neither, is hidden.
    fn texts(&mut self, value: &Value, at: &mut Vec<String>) {
        let odd = |text: &str| {
            let is_odd =
                |c: char| c == '\0' || Class::of(c).is_some_and(|class| class != Class::Tab && c != '\n');
            text.chars().find(|c| is_odd(*c))
        };
        let told = |look: &mut Self, text: &str, at: &[String]| {
            if let Some(odd) = odd(text) {
                look.fault_at(at, format!("it has the character U+{:04X} in it", u32::from(odd)));
            }
        };
        match value {
            Value::String(text) => told(self, text, at),
            Value::Array(list) => {
                for (place, one) in list.iter().enumerate() {
                    at.push(place.to_string());
                    self.texts(one, at);
                    at.pop();
                }
            }
            Value::Object(object) => {
                for (name, one) in object {
                    at.push(name.clone());
                    told(self, name, at);
                    self.texts(one, at);
                    at.pop();
                }
            }
            _ => {}
        }
    }

    fn schema(&mut self, schema: &Value, at: &mut Vec<String>) {
        self.subschemas += 1;
        if self.subschemas == MAX_SUBSCHEMAS + 1 {
            self.fault_at(at, format!("there are more than {MAX_SUBSCHEMAS} subschemas"));
        }
        if self.subschemas > MAX_SUBSCHEMAS {
            return;
        }
        let object = match schema {
            Value::Bool(_) => return,
            Value::Object(object) => object,
            _ => return self.fault_at(at, "a schema is a table, or true or false"),
        };
        for (key, value) in object {
            at.push(key.clone());
            match KEYWORDS[..KNOWN].iter().find(|(known, _)| known == key) {
                Some((_, holds)) => self.keyword(key, *holds, value, at),
                None => self.unknown(key, at),
            }
            at.pop();
        }
        let is_url = object.get("format").is_some_and(|format| format == "url");
        if object.contains_key("x-stockade-url") != is_url {
            self.fault_at(
                at,
                "`format = \"url\"` and `x-stockade-url = { schemes = […], hosts = […] }` stand together",
            );
        }
    }

    fn unknown(&mut self, key: &str, at: &[String]) {
        let left_out = KEYWORDS[KNOWN..].iter().any(|(name, _)| *name == key)
            || key.starts_with("unevaluated")
            || key.starts_with("content");
        if left_out {
            return self.fault_at(at, format!("`{}` can't be used here", key.escape_debug()));
        }
        let known = KEYWORDS[..KNOWN].iter().map(|(name, _)| *name);
        let meant = stockade_policies::nearest::probably_meant(key, known);
        let meant = meant.map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
        self.fault_at(at, format!("no keyword is named `{}`{meant}", key.escape_debug()));
    }

    fn keyword(&mut self, key: &str, holds: Holds, value: &Value, at: &mut Vec<String>) {
        match (holds, value) {
            (Holds::One, one) => self.schema(one, at),
            (Holds::List, Value::Array(list)) => {
                for (place, one) in list.iter().enumerate() {
                    at.push(place.to_string());
                    self.schema(one, at);
                    at.pop();
                }
            }
            (Holds::Named, Value::Object(named)) => self.named(key, named, at),
            (Holds::Value, value) => self.value(key, value, at),
            (Holds::List, _) => self.fault_at(at, "it is a list of schemas"),
            (Holds::Named, _) => self.fault_at(at, "it is a table of schemas"),
        }
    }

    fn named(&mut self, key: &str, named: &Map<String, Value>, at: &mut Vec<String>) {
        for (name, one) in named {
            at.push(name.clone());
            if key == "patternProperties" {
                self.pattern(name, at);
            }
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if key == "$defs" && (name.is_empty() || !name.bytes().all(plain)) {
                self.fault_at(at, "a definition's name has letters, digits, `-`, `_` and `.`");
            }
            if super::input::normal(name.clone()) != *name {
                self.fault_at(
                    at,
                    "the name isn't in Unicode's normal form C, in which parameters are compared",
                );
            }
            self.schema(one, at);
            at.pop();
        }
    }

    fn value(&mut self, key: &str, value: &Value, at: &[String]) {
        match (key, value.as_str()) {
            ("type", _) => {
                let known = |name: &Value| name.as_str().is_some_and(|name| TYPES.contains(&name));
                if !(known(value)
                    || value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(known)))
                {
                    self.fault_at(at, format!("it is one of, or a list of: {}", TYPES.join(", ")));
                }
            }
            ("$schema", said) if said != Some(DIALECT) || at.len() > 1 => {
                self.fault_at(at, format!("it is \"{DIALECT}\", at the top"));
            }
            ("$ref", Some(name)) if name.starts_with(DEFINITIONS) => {}
            ("$ref", _) => self.fault_at(
                at,
                format!("it names a definition of the same schema, as in \"{DEFINITIONS}name\""),
            ),
            ("pattern", Some(pattern)) => self.pattern(pattern, at),
            ("format", Some(format)) if formats::is_known(format) => {}
            ("format", _) => self.fault_at(at, format!("the formats are: {}", formats::names().join(", "))),
            ("x-stockade-allow", _) => {
                let known = |name: &Value| name.as_str().and_then(Class::named).is_some();
                if !value.as_array().is_some_and(|list| list.iter().all(known)) {
                    let names: Vec<&str> = Class::ALL.into_iter().map(Class::name).collect();
                    self.fault_at(at, format!("it is a list of: {}", names.join(", ")));
                }
            }
            ("x-stockade-url", _) => {
                if let Err(reason) = Rules::of(value) {
                    self.fault_at(at, reason);
                }
            }
            _ => {}
        }
    }

    fn pattern(&mut self, pattern: &str, at: &[String]) {
        if let Err(reason) = self.patterns.add(pattern) {
            self.fault_at(at, reason);
        }
    }
}

/// How large a schema is with its references followed.
struct Measure<'a> {
    root: &'a Value,
    known: BTreeMap<&'a str, Outline>,
    /// The references that lead here.
    within: Vec<&'a str>,
}

impl<'a> Measure<'a> {
    fn whole(&mut self) -> Result<Outline, Fault> {
        // What nothing refers to can be a circle, too.
        let named: Vec<&'a String> =
            self.root.get("$defs").and_then(Value::as_object).into_iter().flat_map(Map::keys).collect();
        for name in named {
            self.definition(name)?;
        }
        let outline = self.schema(self.root)?;
        let fault = |reason| Err(Fault { pointer: String::new(), reason });
        if outline.subschemas > MAX_SUBSCHEMAS {
            return fault(format!(
                "with all references followed there are more than {MAX_SUBSCHEMAS} subschemas"
            ));
        }
        if outline.depth > MAX_SCHEMA_DEPTH {
            return fault(format!(
                "with all references followed it is nested deeper than {MAX_SCHEMA_DEPTH} schemas"
            ));
        }
        Ok(outline)
    }

    fn definition(&mut self, name: &'a str) -> Result<Outline, Fault> {
        if let Some(known) = self.known.get(name) {
            return Ok(*known);
        }
        let fault = |reason| Fault { pointer: format!("/$defs/{name}"), reason };
        if self.within.contains(&name) {
            let mut circle = self.within.clone();
            circle.push(name);
            return Err(fault(format!("it goes in a circle: {}", circle.join(" → "))));
        }
        let root = self.root;
        let Some(schema) = root.get("$defs").and_then(|named| named.get(name)) else {
            return Err(fault("a `$ref` names it, and it isn't there".to_owned()));
        };
        self.within.push(name);
        let outline = self.schema(schema)?;
        self.within.pop();
        self.known.insert(name, outline);
        Ok(outline)
    }

    fn schema(&mut self, schema: &'a Value) -> Result<Outline, Fault> {
        let (per_byte, per_name_byte) = schema.as_object().map(bytes).unwrap_or_default();
        let mut whole =
            Outline { subschemas: 1, depth: 1, parts: 1, is_unique: false, per_byte, per_name_byte };
        let Some(object) = schema.as_object() else { return Ok(whole) };
        let mut add = |below: Outline| {
            whole.subschemas = whole.subschemas.saturating_add(below.subschemas);
            whole.depth = whole.depth.max(below.depth.saturating_add(1));
            whole.parts = whole.parts.saturating_add(below.parts);
            whole.is_unique |= below.is_unique;
            whole.per_byte = whole.per_byte.saturating_add(below.per_byte);
            whole.per_name_byte = whole.per_name_byte.saturating_add(below.per_name_byte);
        };
        for (key, value) in object {
            let holds = KEYWORDS.iter().find(|(known, _)| known == key).map(|(_, holds)| *holds);
            match (key.as_str(), holds, value) {
                ("$ref", _, Value::String(name)) => {
                    add(self.definition(name.strip_prefix(DEFINITIONS).unwrap_or_default())?);
                }
                ("$defs", ..) => {}
                (_, Some(Holds::One), one) => add(self.schema(one)?),
                (_, Some(Holds::List), Value::Array(list)) => {
                    for one in list {
                        add(self.schema(one)?);
                    }
                }
                (_, Some(Holds::Named), Value::Object(named)) => {
                    for one in named.values() {
                        add(self.schema(one)?);
                    }
                }
                _ => {}
            }
        }
        let choices = object.get("enum").and_then(Value::as_array).map_or(0, Vec::len);
        whole.parts = whole.parts.saturating_add(choices);
        whole.is_unique |= object.get("uniqueItems") == Some(&Value::Bool(true));
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(schema: &Value) -> String {
        let faults = outline(schema).unwrap_err();
        faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_plain_schema_is_counted() {
        let schema = json!({
            "type": "object",
            "properties": { "a": { "enum": ["x", "y"] }, "b": { "$ref": "#/$defs/b" } },
            "$defs": { "b": { "items": true, "uniqueItems": true } },
        });
        let whole =
            Outline { subschemas: 5, depth: 4, parts: 7, is_unique: true, per_byte: 1, per_name_byte: 0 };
        assert_eq!(outline(&schema).unwrap().0, whole);
        let plain =
            Outline { subschemas: 1, depth: 1, parts: 1, is_unique: false, per_byte: 0, per_name_byte: 0 };
        assert_eq!(outline(&json!({ "minItems": 1 })).unwrap().0, plain);
    }

    #[test]
    fn what_reads_texts_counts_as_often_as_it_is_referred_to() {
        let schema = json!({
            "patternProperties": { "^a": { "$ref": "#/$defs/a" }, "b$": { "$ref": "#/$defs/a" } },
            "$defs": { "a": { "pattern": "x", "minLength": 1, "maxLength": 9, "format": "regex" } },
        });
        let whole = outline(&schema).unwrap().0;
        assert_eq!(whole.per_byte, 2 * (3 + formats::per_byte("regex")));
        assert_eq!(whole.per_name_byte, 2 * NAME_BYTE);
    }

    #[test]
    fn the_schema_of_91_bytes_and_its_kin_are_refused() {
        let twice = json!({ "allOf": [{ "$ref": "#" }, { "$ref": "#" }] });
        assert!(faults(&twice).contains("names a definition"));
        let to_itself = json!({ "$ref": "#/$defs/a", "$defs": { "a": { "allOf": [{ "$ref": "#/$defs/a" }, { "$ref": "#/$defs/a" }] } } });
        assert!(faults(&to_itself).contains("circle: a → a"));
        let unused = json!({ "$defs": { "a": { "not": { "$ref": "#/$defs/b" } }, "b": { "items": { "$ref": "#/$defs/a" } } } });
        assert!(faults(&unused).contains("circle: a → b → a"));
    }

    #[test]
    fn doubling_references_count_as_often_as_they_are_followed() {
        for key in ["allOf", "anyOf", "oneOf", "prefixItems"] {
            let mut named = json!({ "d0": true });
            for level in 1..30 {
                let below = format!("#/$defs/d{}", level - 1);
                named[format!("d{level}")] = json!({ key: [{ "$ref": below }, { "$ref": below }] });
            }
            assert!(
                faults(&json!({ "$ref": "#/$defs/d29", "$defs": named }))
                    .contains("more than 1000 subschemas"),
                "{key}"
            );
        }
    }

    #[test]
    fn chains_of_references_are_as_deep_as_what_they_lead_to() {
        let mut named = json!({ "d0": true });
        for level in 1..900 {
            named[format!("d{level}")] = json!({ "$ref": format!("#/$defs/d{}", level - 1) });
        }
        assert!(faults(&json!({ "$ref": "#/$defs/d899", "$defs": named })).contains("deeper than 32"));
    }

    #[test]
    fn size_depth_count_and_patterns_are_bounded() {
        assert!(
            faults(&json!({ "description": "x".repeat(MAX_SCHEMA) })).contains("over the limit of 65536")
        );
        let nested = |depth| (0..depth).fold(json!(true), |inner, _| json!({ "not": inner }));
        assert!(outline(&nested(MAX_SCHEMA_DEPTH - 1)).is_ok());
        assert!(faults(&nested(MAX_SCHEMA_DEPTH)).contains("deeper than 32"));
        assert!(faults(&nested(500)).contains("deeper than 32"));
        let named: Map<String, Value> = (0..1_000).map(|at| (at.to_string(), json!(true))).collect();
        assert!(faults(&json!({ "properties": named })).contains("more than 1000 subschemas"));
        let all: Vec<Value> =
            (0..=crate::validate::MAX_PATTERNS).map(|at| json!({ "pattern": at.to_string() })).collect();
        assert!(faults(&json!({ "anyOf": all })).contains("more than 64 regular expressions"));
        assert!(faults(&json!({ "pattern": "x".repeat(1_025) })).contains("over the limit of 1024"));
    }

    #[test]
    fn references_lead_to_definitions_of_the_same_schema_only() {
        for name in [
            "http://example.com/s.json",
            "file:///etc/passwd",
            "#",
            "#/properties/a",
            "other",
            "#a",
            "//x",
            "",
        ] {
            assert!(faults(&json!({ "$ref": name })).contains("names a definition"), "{name}");
        }
        assert!(faults(&json!({ "$ref": "#/$defs/a" })).contains("isn't there"));
        for key in [
            "$id",
            "$anchor",
            "$dynamicRef",
            "$dynamicAnchor",
            "$recursiveRef",
            "unevaluatedProperties",
            "contentSchema",
        ] {
            assert!(outline(&json!({ key: "http://example.com" })).is_err(), "{key}");
        }
        assert!(faults(&json!({ "items": { "$schema": DIALECT } })).contains("at the top"));
        assert!(faults(&json!({ "$schema": "http://json-schema.org/draft-07/schema#" })).contains("2020-12"));
    }

    #[test]
    fn nothing_in_a_schema_is_hidden() {
        for odd in ["\u{e0041}", "\u{202e}", "\u{200b}", "\u{1b}", "\r", "\0"] {
            let text = format!("a{odd}b");
            for schema in [
                json!({ "description": text }),
                json!({ "properties": { "a": { "title": text } } }),
                json!({ "properties": { text.clone(): true } }),
                json!({ "anyOf": [{ "examples": [{ "a": text }] }] }),
                json!({ "enum": [text] }),
            ] {
                assert!(faults(&schema).contains("it has the character U+"), "{schema}");
            }
        }
        assert!(outline(&json!({ "description": "two\nlines,\ta tab" })).is_ok());
    }

    #[test]
    fn what_is_misspelt_is_told_with_what_was_meant() {
        assert_eq!(
            faults(&json!({ "properties": { "a": { "minLenght": 1 } } })),
            "/properties/a/minLenght: no keyword is named `minLenght`; did you mean `minLength`?"
        );
        assert!(faults(&json!({ "format": "hostnam" })).contains("the formats are: "));
        assert!(faults(&json!({ "x-stockade-allow": ["newline"] })).contains("line-break"));
        assert!(faults(&json!({ "x-stockade-url": {} })).contains("format = \"url\""));
        assert!(faults(&json!({ "items": 1 })).contains("a schema is a table"));
        assert!(faults(&json!({ "properties": { "e\u{301}": true } })).contains("normal form"));
    }
}
