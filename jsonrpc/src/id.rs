//! A request's id, given back as it came.

use core::hash::{Hash, Hasher};

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::bounds::MAX_ID;

/// A string or a number. Two strings are the same if their characters are; two numbers if they're written the same.
#[derive(Debug, Clone)]
pub(crate) struct Id {
    raw: Box<RawValue>,
    /// What is compared: of a string its characters, with a quote in front.
    key: String,
}

impl Id {
    /// `None`: neither a string nor a number, or too long, or too large a number.
    pub(crate) fn of(raw: &RawValue) -> Option<Self> {
        let text = raw.get();
        let key = match text.as_bytes().first()? {
            _ if text.len() > MAX_ID => return None,
            b'"' => format!("\"{}", serde_json::from_str::<String>(text).ok()?),
            // One that readers can't hold would make our answer none to them.
            b'-' | b'0'..=b'9' if text.parse::<f64>().is_ok_and(f64::is_finite) => text.to_owned(),
            _ => return None,
        };
        Some(Self { raw: raw.to_owned(), key })
    }

    /// Bytes that it takes.
    pub(crate) fn held(&self) -> usize {
        self.raw.get().len() + self.key.len()
    }
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Id {}

impl Hash for Id {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.raw.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn id(text: &str) -> Option<Id> {
        Id::of(serde_json::from_str::<&RawValue>(text).unwrap())
    }

    #[test]
    fn an_id_is_given_back_as_it_was_written() {
        for text in ["1", "-7", "1.0", "1e3", "18446744073709551616", "\"a\"", "\"\\u0061\"", "\"\""] {
            assert_eq!(serde_json::to_string(&id(text).unwrap()).unwrap(), text);
        }
        for text in ["null", "true", "[]", "{}", "1e400", "-4e0444"] {
            assert!(id(text).is_none(), "{text}");
        }
        assert!(id(&format!("\"{}\"", "x".repeat(MAX_ID))).is_none());
    }

    #[test]
    fn strings_are_compared_by_their_characters_and_never_with_numbers() {
        assert_eq!(id("\"a\""), id("\"\\u0061\""));
        assert_ne!(id("\"1\""), id("1"));
        assert_ne!(id("1"), id("1.0"));
    }
}
