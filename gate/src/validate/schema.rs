//! A schema, compiled once; and whether a value is what it says.
//!
//! The library (`jsonschema`) is given what an outline has found bounded, may fetch nothing, and has patterns matched by us, with
//! tables. Whether a value fits is decided without making a list of what is wrong; that list is made for what is small enough.

use core::fmt;
use std::sync::Arc;
use std::time::Duration;

use jsonschema::{Draft, Keyword, PatternOptions, ValidationError, Validator};
use serde_json::Value;

use super::characters::Allowed;
use super::mismatch::{LONGEST, Mismatch, shown};
use super::outline::{Fault, Outline, outline};
use super::pattern::{Pattern, Patterns};
use super::url::Rules;
use super::{
    MAX_COMPILE_MS, MAX_MISMATCHES, MAX_PATTERN_TABLE, MAX_TEXT_WORK, MAX_UNIQUE_VALUES, MAX_WORK, formats,
    input,
};

/// The most values times subschemas for which it is worked out what is wrong where: each of them can be a mismatch to hold.
const MAX_DETAILED: usize = 64 * 1024;

/// A compiled schema.
pub struct Schema {
    validator: Validator,
    allowed: Allowed,
    outline: Outline,
    said: Value,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Schema").field(&self.outline).finish()
    }
}

impl Schema {
    /// Compiles what a file says. `spent`: the processor time that this thread has spent until now.
    ///
    /// # Errors
    /// All that is wrong with it, or that it took too long.
    pub fn compile(said: &Value, spent: &dyn Fn() -> Duration) -> Result<Self, Vec<Fault>> {
        let begun = spent();
        let (outline, patterns) = outline(said)?;
        let validator = build(said, patterns).map_err(|error| vec![fault(&error)])?;
        let schema = Self { validator, allowed: Allowed::of(said), outline, said: said.clone() };
        if spent().saturating_sub(begun) > Duration::from_millis(MAX_COMPILE_MS) {
            let reason = format!("compiling it takes longer than {MAX_COMPILE_MS} ms");
            return Err(vec![Fault { pointer: String::new(), reason }]);
        }
        Ok(schema)
    }

    /// As a file says it.
    #[must_use]
    pub fn said(&self) -> &Value {
        &self.said
    }

    /// Whether a value is what the schema says.
    ///
    /// # Errors
    /// What is wrong, so many at most.
    pub fn check(&self, value: &Value) -> Result<(), Vec<Mismatch>> {
        let size = input::size(value).map_err(|mismatch| vec![mismatch])?;
        let values = size.values;
        let most = MAX_WORK / self.outline.parts.max(1);
        let most = if self.outline.is_unique { most.min(MAX_UNIQUE_VALUES) } else { most };
        if values > most {
            let expected = format!("at most {most} values, of which this schema makes that much work");
            return Err(vec![Mismatch::plain("", expected, values.to_string())]);
        }
        self.texts(size).map_err(|mismatch| vec![mismatch])?;
        let mut found = self.allowed.mismatches(value);
        if !self.validator.is_valid(value) {
            if values.saturating_mul(self.outline.subschemas) <= MAX_DETAILED {
                let errors = self.validator.iter_errors(value).take(MAX_MISMATCHES);
                found.extend(errors.map(|error| Mismatch::of(&error, &self.members(&error))));
            }
            if found.is_empty() {
                found.push(Mismatch::plain("", "what the schema says", "too much to say where it differs"));
            }
        }
        found.truncate(MAX_MISMATCHES);
        if found.is_empty() { Ok(()) } else { Err(found) }
    }

    /// Whether the texts aren't too long for all that looks at them.
    fn texts(&self, size: input::Size) -> Result<(), Mismatch> {
        let names = size.names.saturating_mul(self.outline.per_name_byte);
        let all = size.texts.saturating_mul(self.outline.per_byte);
        if names > MAX_TEXT_WORK {
            let most = MAX_TEXT_WORK / self.outline.per_name_byte.max(1);
            let expected =
                format!("at most {most} bytes of members' names, which this schema matches with patterns");
            return Err(Mismatch::plain("", expected, size.names.to_string()));
        }
        if names.saturating_add(all) > MAX_TEXT_WORK {
            let most = (MAX_TEXT_WORK - names) / self.outline.per_byte.max(1);
            let expected = format!(
                "at most {most} bytes of text, of which this schema's patterns, formats and lengths make that much work"
            );
            return Err(Mismatch::plain("", expected, size.texts.to_string()));
        }
        Ok(())
    }

    /// The names of the members that an object may have which has another.
    fn members(&self, error: &ValidationError<'_>) -> Vec<&str> {
        let at = error.schema_path().as_str();
        let Some(at) = at.strip_suffix("/additionalProperties") else { return Vec::new() };
        let named =
            self.said.pointer(at).and_then(|schema| schema.get("properties")).and_then(Value::as_object);
        named.into_iter().flat_map(|named| named.keys().map(String::as_str)).collect()
    }
}

fn build(said: &Value, patterns: Patterns) -> Result<Validator, ValidationError<'static>> {
    // For the names of `patternProperties`, which the library matches itself.
    let names = PatternOptions::regex().size_limit(MAX_PATTERN_TABLE).dfa_size_limit(MAX_PATTERN_TABLE);
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .offline()
        .with_pattern_options(names)
        .should_validate_formats(true)
        .should_ignore_unknown_formats(false)
        .with_format("identifier", formats::is_identifier)
        .with_format("regex", formats::is_regex)
        .with_format("workspace-path", formats::is_workspace_path)
        .with_keyword("pattern", move |_, value, _| {
            let said = value.as_str().unwrap_or_default();
            let made =
                patterns.get(said).ok_or_else(|| ValidationError::schema("it is a regular expression"))?;
            Ok(Box::new(Matched { said: said.to_owned(), made }))
        })
        // The keyword that has to stand beside it checks.
        .with_format("url", |_: &str| true)
        .with_keyword("x-stockade-url", |_, value, _| match Rules::of(value) {
            Ok(rules) => Ok(Box::new(Url(rules))),
            Err(reason) => Err(ValidationError::schema(reason)),
        })
        .build(said)
}

fn fault(error: &ValidationError<'_>) -> Fault {
    let Mismatch { pointer, expected, got, .. } = Mismatch::of(error, &[]);
    Fault { pointer, reason: format!("expected {expected}, got {got}") }
}

struct Matched {
    said: String,
    made: Arc<Pattern>,
}

impl<'i> Keyword<'i> for Matched {
    fn validate(&self, instance: &'i Value) -> Result<(), ValidationError<'i>> {
        if self.is_valid(instance) {
            return Ok(());
        }
        Err(ValidationError::custom(format!("text that matches `{}`", shown(&self.said, LONGEST))))
    }

    fn is_valid(&self, instance: &'i Value) -> bool {
        instance.as_str().is_none_or(|text| self.made.matches(text))
    }
}

struct Url(Rules);

impl<'i> Keyword<'i> for Url {
    fn validate(&self, instance: &'i Value) -> Result<(), ValidationError<'i>> {
        let Some(text) = instance.as_str() else { return Ok(()) };
        self.0.check(text).map_err(ValidationError::custom)
    }

    fn is_valid(&self, instance: &'i Value) -> bool {
        self.validate(instance).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn compiled(said: &Value) -> Schema {
        Schema::compile(said, &|| Duration::ZERO).unwrap()
    }

    fn wrong(said: &Value, value: &Value) -> Vec<String> {
        compiled(said).check(value).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn mismatches_say_where_what_was_expected_and_what_was_got() {
        let schema = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["pattern"],
            "properties": {
                "pattern": { "type": "string", "minLength": 2, "pattern": "^[a-z]+$" },
                "limit": { "type": "integer", "minimum": 1, "maximum": 100 },
                "kind": { "enum": ["file", "folder"] },
                "paths": { "type": "array", "maxItems": 2, "uniqueItems": true, "items": { "type": "string", "format": "workspace-path" } },
                "url": { "type": "string", "format": "url", "x-stockade-url": { "schemes": ["https"] } },
                "inner": { "$ref": "#/$defs/inner" },
                "either": { "oneOf": [{ "type": "null" }, { "type": "boolean" }] },
            },
            "$defs": { "inner": { "type": "object", "properties": { "depth": true }, "additionalProperties": false } },
        });
        for (value, expected) in [
            (json!([]), "the whole: expected an object, got a list of 0"),
            (json!({}), "the whole: expected the member `pattern`, got an object without it"),
            (json!({ "pattern": 5 }), "/pattern: expected a string, got 5"),
            (json!({ "pattern": "x" }), "/pattern: expected at least 2 characters, got 1"),
            (
                json!({ "pattern": "A\u{7f}".repeat(2) }),
                "/pattern: expected text without control characters, got U+007F",
            ),
            (json!({ "pattern": "AA" }), "/pattern: expected text that matches `^[a-z]+$`, got \"AA\""),
            (json!({ "pattern": "aa", "limit": 250 }), "/limit: expected at most 100, got 250"),
            (json!({ "pattern": "aa", "limit": 1.5 }), "/limit: expected a whole number, got 1.5"),
            (
                json!({ "pattern": "aa", "kind": "fle" }),
                "/kind: expected one of \"file\", \"folder\", got \"fle\"",
            ),
            (
                json!({ "pattern": "aa", "paths": ["../x"] }),
                "/paths/0: expected a path below the workspace, without `..`, got \"../x\"",
            ),
            (
                json!({ "pattern": "aa", "paths": ["a", "a"] }),
                "/paths: expected each element once, got a list of 2",
            ),
            (
                json!({ "pattern": "aa", "paths": ["a", "b", "c"] }),
                "/paths: expected at most 2 elements, got 3",
            ),
            (
                json!({ "pattern": "aa", "url": "http://example.com" }),
                "/url: expected a URL that begins with https://, got \"http://example.com\"",
            ),
            (
                json!({ "pattern": "aa", "patern": 1 }),
                "the whole: expected no other members (did you mean `pattern`?), got `patern`",
            ),
            (
                json!({ "pattern": "aa", "inner": { "dept": 1 } }),
                "/inner: expected no other members (did you mean `depth`?), got `dept`",
            ),
            (
                json!({ "pattern": "aa", "either": 1 }),
                "/either: expected what fits exactly one of 2 alternatives, got 1",
            ),
        ] {
            assert_eq!(wrong(&schema, &value)[0], expected, "{value}");
        }
        assert!(
            compiled(&schema)
                .check(&json!({ "pattern": "aa", "url": "https://example.com", "paths": ["a/b"] }))
                .is_ok()
        );
    }

    #[test]
    fn what_is_wrong_with_a_schema_is_told_where_it_is() {
        let told = |said: &Value| Schema::compile(said, &|| Duration::ZERO).unwrap_err()[0].to_string();
        assert!(
            told(&json!({ "properties": { "a": { "type": "strin" } } }))
                .starts_with("/properties/a/type: it is one of")
        );
        assert!(told(&json!({ "items": { "minLength": -1 } })).starts_with("/items/minLength: expected"));
        for pattern in ["(?=a)", "(a)\\1", "(", "a{1000}{1000}{1000}"] {
            assert!(told(&json!({ "items": { "pattern": pattern } })).contains("pattern"), "{pattern}");
        }
    }

    #[test]
    fn a_schema_that_takes_long_to_compile_is_refused() {
        let clock = Cell::new(Duration::ZERO);
        let slow = |by: u64| {
            let spent = || clock.replace(clock.get() + Duration::from_millis(by));
            Schema::compile(&json!({}), &spent)
        };
        assert!(slow(MAX_COMPILE_MS).is_ok());
        assert!(slow(MAX_COMPILE_MS + 1).unwrap_err()[0].to_string().contains("longer than 250 ms"));
    }

    #[test]
    fn patterns_that_make_others_backtrack_are_linear() {
        let schema = compiled(&json!({ "pattern": "^(a+)+$" }));
        // Of exponential time where it is tried one way after the other; nothing here is measured, it has to come to an end.
        assert!(schema.check(&json!(format!("{}!", "a".repeat(100_000)))).is_err());
        assert!(schema.check(&json!("a".repeat(100_000))).is_ok());
    }

    #[test]
    fn so_many_mismatches_are_told_and_no_more() {
        let schema = json!({ "items": { "type": "string" } });
        assert_eq!(wrong(&schema, &json!(vec![1; 1_000])).len(), MAX_MISMATCHES);
        let many = json!(vec![1; super::super::MAX_VALUES - 1]);
        assert_eq!(
            wrong(&schema, &many),
            ["the whole: expected what the schema says, got too much to say where it differs"]
        );
    }

    #[test]
    fn what_parse_wouldnt_give_is_refused_too() {
        let deep = (0..=super::super::MAX_DEPTH).fold(json!(0), |inner, _| json!([inner]));
        assert!(wrong(&json!(true), &deep)[0].contains("at most 64 levels"));
        assert!(wrong(&json!(true), &json!({ "e\u{301}": 0 }))[0].contains("normal form"));
        assert!(
            wrong(&json!(true), &json!(vec![0; super::super::MAX_VALUES]))[0]
                .contains("at most 65536 values")
        );
    }

    #[test]
    fn what_a_check_may_cost_is_bounded_by_schema_and_values_together() {
        let choices: Vec<usize> = (0..4_000).collect();
        let large = json!({ "items": { "enum": choices } });
        assert!(compiled(&large).check(&json!(vec![1; 1_000])).is_ok());
        assert!(wrong(&large, &json!(vec![1; 2_000]))[0].contains("at most 1048 values"));
        // Lists of nothing but lists: different ones, which a hash of what is in them can't tell apart.
        let lists: Vec<Value> = (0..1_000).map(|at| json!(vec![json!([]); at % 40])).collect();
        let unique = json!({ "items": { "uniqueItems": true } });
        assert!(wrong(&unique, &json!(lists))[0].contains("at most 2048 values"));
        assert!(compiled(&unique).check(&json!([[1, 2, 3]])).is_ok());
    }

    #[test]
    fn no_schema_is_fetched_or_opened() {
        for name in ["http://127.0.0.1:1/s.json", "file:///etc/hostname", "json-schema:///x"] {
            assert!(Schema::compile(&json!({ "$ref": name }), &|| Duration::ZERO).is_err(), "{name}");
            assert!(build(&json!({ "$ref": name }), Patterns::default()).is_err(), "{name}");
        }
    }

    #[test]
    fn what_reads_texts_is_bounded_by_them_and_the_schema_together() {
        let long = |count: usize| json!("ab".repeat(count / 2));
        let several =
            |count: usize| json!({ "allOf": vec![json!({ "pattern": "[ab]*a[ab]{6}c|^[ab]*$" }); count] });
        assert!(compiled(&several(8)).check(&long(500_000)).is_ok());
        assert!(wrong(&several(60), &long(500_000))[0].contains("at most 69905 bytes of text"));
        // The one whose automaton would be made anew for nearly every byte isn't taken.
        let slow = Schema::compile(&json!({ "pattern": "[ab]*a[ab]{200}c" }), &|| Duration::ZERO);
        assert!(slow.unwrap_err()[0].to_string().contains("/pattern: the table of this pattern is over"));
        // Compiling each of so many would take half a minute.
        let regex = json!({ "items": { "format": "regex" } });
        assert!(compiled(&regex).check(&json!(vec!["(?i:\\pL)"; 1_000])).is_ok());
        assert!(wrong(&regex, &json!(vec!["(?i:\\pL)"; 65_000]))[0].contains("at most 65536 bytes of text"));
        assert!(wrong(&regex, &json!(vec!["a"; 65_000]))[0].contains("at most 65536 bytes of text"));
        let names = json!({ "patternProperties": { "^a": true } });
        let member = |bytes: usize| json!({ "a".repeat(bytes): 1 });
        assert!(compiled(&names).check(&member(16_000)).is_ok());
        assert!(wrong(&names, &member(17_000))[0].contains("at most 16384 bytes of members' names"));
    }

    proptest! {
        #[test]
        fn what_fits_has_no_mismatch_and_what_doesnt_has_one(text in "\\PC{0,8}|[\\x00-\\x20a]{0,4}", number in -5..15_i64) {
            let schema = compiled(&json!({
                "properties": { "a": { "type": "string", "maxLength": 4 }, "b": { "minimum": 0, "maximum": 10 } },
            }));
            let text = input::normal(text);
            let plain = text.chars().all(|c| c != '\0' && super::super::characters::Class::of(c).is_none());
            let fits = plain && text.chars().count() <= 4 && (0..=10).contains(&number);
            prop_assert_eq!(schema.check(&json!({ "a": text, "b": number })).is_ok(), fits);
        }
    }
}
