//! What is wrong with parameters, for whoever has sent them: where, what was expected, what was got. Short, without a character
//! that a terminal would obey, and without a path of the host.

use core::fmt::{self, Write as _};

use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use serde_json::Value;
use stockade_policies::nearest::probably_meant;

use super::characters::Class;
use super::formats;

/// The longest a value is shown, in characters.
pub(super) const LONGEST: usize = 60;
/// The longest a pointer is shown, in characters.
const LONGEST_POINTER: usize = 200;
/// The most names or choices that are listed.
const MOST: usize = 8;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Where, as a JSON pointer (RFC 6901); empty: the whole.
    pub pointer: String,
    /// What was expected there.
    pub expected: String,
    /// What is there.
    pub got: String,
    /// The rule: a JSON pointer into the schema. Empty where no schema is needed to see it.
    pub rule: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = if self.pointer.is_empty() { "the whole" } else { &self.pointer };
        write!(f, "{at}: expected {}, got {}", self.expected, self.got)
    }
}

impl Mismatch {
    /// Without a rule of a schema.
    #[must_use]
    pub fn plain(pointer: &str, expected: impl Into<String>, got: impl Into<String>) -> Self {
        let (expected, got) = (expected.into(), got.into());
        Self { pointer: shown(pointer, LONGEST_POINTER), expected, got, rule: String::new() }
    }

    /// Of what the schema says. `members`: the names that an object there may have, if that is known.
    pub(super) fn of(error: &ValidationError<'_>, members: &[&str]) -> Self {
        let (expected, got) = described(error.kind(), error.instance(), members);
        let pointer = shown(error.instance_path().as_str(), LONGEST_POINTER);
        Self { pointer, expected, got, rule: shown(error.schema_path().as_str(), LONGEST_POINTER) }
    }

    /// A character that the schema doesn't let in.
    pub(super) fn of_character(pointer: &str, character: char, class: Option<Class>) -> Self {
        let what = class.map_or("zero characters", Class::plural);
        let mut mismatch =
            Self::plain(pointer, format!("text without {what}"), format!("U+{:04X}", u32::from(character)));
        mismatch.rule = class
            .map_or_else(|| "x-stockade-allow".into(), |class| format!("x-stockade-allow {}", class.name()));
        mismatch
    }
}

/// A JSON pointer of these steps.
pub(super) fn pointer<'a>(steps: impl Iterator<Item = &'a str>) -> String {
    steps.fold(String::new(), |mut pointer, step| {
        pointer.push('/');
        pointer.push_str(&step.replace('~', "~0").replace('/', "~1"));
        pointer
    })
}

/// Text in a message: shortened, what isn't a plain printing character as an escape.
#[must_use]
pub fn shown(text: &str, longest: usize) -> String {
    let mut safe = String::with_capacity(text.len().min(longest * 4));
    let mut characters = text.chars();
    for character in characters.by_ref().take(longest) {
        if is_odd(character) {
            // Writing to a string doesn't fail.
            let _ = write!(safe, "{}", character.escape_unicode());
        } else {
            safe.push(character);
        }
    }
    if characters.next().is_some() {
        safe.push('…');
    }
    safe
}

/// What nobody sees, or a terminal obeys; joiners and variation selectors, which parameters may have, too.
fn is_odd(character: char) -> bool {
    matches!(character, '\0' | '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}')
        || Class::of(character).is_some()
}

/// A value in a message.
#[must_use]
pub fn value(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{}\"", shown(text, LONGEST)),
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(object) => format!("an object of {}", object.len()),
        plain => plain.to_string(),
    }
}

fn described(kind: &ValidationErrorKind, instance: &Value, members: &[&str]) -> (String, String) {
    use ValidationErrorKind as K;
    let characters = || instance.as_str().map_or(0, |text| text.chars().count());
    let count = || match instance {
        Value::Array(list) => list.len(),
        Value::Object(object) => object.len(),
        _ => 0,
    };
    let expected = match kind {
        K::AdditionalProperties { unexpected } => return unexpected_members(unexpected, members),
        K::Required { property } => {
            let name = property.as_str().map_or_else(String::new, |name| shown(name, LONGEST));
            return (format!("the member `{name}`"), "an object without it".into());
        }
        K::MaxLength { limit } => return (format!("at most {limit} characters"), characters().to_string()),
        K::MinLength { limit } => return (format!("at least {limit} characters"), characters().to_string()),
        K::MaxItems { limit } => return (format!("at most {limit} elements"), count().to_string()),
        K::MinItems { limit } => return (format!("at least {limit} elements"), count().to_string()),
        K::MaxProperties { limit } => return (format!("at most {limit} members"), count().to_string()),
        K::MinProperties { limit } => return (format!("at least {limit} members"), count().to_string()),
        K::PropertyNames { error } => return described(error.kind(), error.instance(), &[]),
        K::Type { kind: TypeKind::Single(one) } => article(one.as_str()).to_owned(),
        K::Type { kind: TypeKind::Multiple(several) } => {
            listed(several.iter().map(|one| article(one.as_str()).to_owned()), " or ")
        }
        K::Constant { expected_value } => value(expected_value),
        K::Enum { options } => {
            let options = options.as_array().map_or(&[][..], Vec::as_slice);
            format!("one of {}", listed(options.iter().map(value), ", "))
        }
        K::Maximum { limit } => format!("at most {limit}"),
        K::Minimum { limit } => format!("at least {limit}"),
        K::ExclusiveMaximum { limit } => format!("less than {limit}"),
        K::ExclusiveMinimum { limit } => format!("more than {limit}"),
        K::MultipleOf { multiple_of } => format!("a multiple of {multiple_of}"),
        K::Format { format } => formats::expected(format).to_owned(),
        K::Custom { message, .. } => message.clone(),
        K::UniqueItems => "each element once".into(),
        K::Contains => "an element of the kind that has to be among them".into(),
        K::AnyOf { context } => format!("what fits one of {} alternatives", context.len()),
        K::OneOfNotValid { context } | K::OneOfMultipleValid { context } => {
            format!("what fits exactly one of {} alternatives", context.len())
        }
        K::Not { .. } => "what doesn't fit the excluded alternative".into(),
        K::FalseSchema => "nothing".into(),
        other => format!("what `{}` says", shown(other.keyword(), LONGEST)),
    };
    (expected, value(instance))
}

fn unexpected_members(unexpected: &[String], members: &[&str]) -> (String, String) {
    let names = listed(unexpected.iter().map(|name| format!("`{}`", shown(name, LONGEST))), ", ");
    let meant = match unexpected {
        [one] => probably_meant(one, members.iter().copied()),
        _ => None,
    };
    let expected = match (meant, members) {
        (Some(name), _) => format!("no other members (did you mean `{name}`?)"),
        (None, []) => "no other members".to_owned(),
        (None, _) => {
            format!("no members but {}", listed(members.iter().map(|name| format!("`{name}`")), ", "))
        }
    };
    (expected, names)
}

fn listed(texts: impl ExactSizeIterator<Item = String>, between: &str) -> String {
    let more = texts.len().saturating_sub(MOST);
    let mut list = texts.take(MOST).collect::<Vec<_>>().join(between);
    if more > 0 {
        let _ = write!(list, " and {more} more");
    }
    list
}

fn article(kind: &str) -> &str {
    match kind {
        "string" => "a string",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "an object",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_shown_short_and_harmless() {
        assert_eq!(value(&Value::from("a\u{1b}[2J\u{202e}b")), "\"a\\u{1b}[2J\\u{202e}b\"");
        assert_eq!(value(&Value::from("x".repeat(100))), format!("\"{}…\"", "x".repeat(60)));
        assert_eq!(value(&serde_json::json!([1, 2])), "a list of 2");
        assert_eq!(pointer(["a/b", "c~d", "0"].into_iter()), "/a~1b/c~0d/0");
    }

    proptest! {
        #[test]
        fn nothing_that_a_terminal_obeys_is_shown(text in any::<String>()) {
            let shown = shown(&text, LONGEST);
            prop_assert!(shown.chars().all(|c| !c.is_control() && Class::of(c).is_none()));
            prop_assert!(shown.len() <= LONGEST * 10 + 3);
        }
    }
}
