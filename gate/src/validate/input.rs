//! Bytes to a JSON value: bounded while it is read, before anything is kept of what is too much.
//!
//! What two readers could read differently is refused: keys that stand twice (also if they are the same only once they are
//! normalised), numbers that 64 bits don't hold exactly. Text comes out in the normal form C of Unicode.

use core::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use unicode_normalization::{UnicodeNormalization as _, is_nfc};

use super::mismatch::{Mismatch, pointer};
use super::{MAX_DEPTH, MAX_PARAMETERS, MAX_VALUES};

/// What looking at a text costs that has nothing in it, in bytes of one that has.
pub const EACH_TEXT: usize = 16;
/// Whole numbers beyond it are not exact as floats.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Reads parameters: one JSON value.
///
/// # Errors
/// What is wrong with it, and where.
pub fn parse(text: &[u8]) -> Result<Value, Mismatch> {
    if text.len() > MAX_PARAMETERS {
        let expected = format!("at most {MAX_PARAMETERS} bytes");
        return Err(Mismatch::plain("", expected, format!("{} bytes", text.len())));
    }
    let mut state = State::default();
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = Seed { state: &mut state, depth: 0 }.deserialize(&mut reader);
    match read.and_then(|value| reader.end().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(error) => Err(state.told(&error)),
    }
}

/// Text in normal form.
#[must_use]
pub fn normal(text: String) -> String {
    if text.is_ascii() || is_nfc(&text) { text } else { text.nfc().collect() }
}

/// How large a value is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// The values that it is made of.
    pub values: usize,
    /// The bytes of its texts, and of its members' names; each counts for [`EACH_TEXT`] more.
    pub texts: usize,
    /// Of them those of names.
    pub names: usize,
}

/// How large a value is, if it is within the bounds that [`parse`] keeps and its text is in normal form.
///
/// # Errors
/// What isn't so.
pub fn size(value: &Value) -> Result<Size, Mismatch> {
    let mut size = Size::default();
    within(value, MAX_DEPTH, &mut size)
        .map_err(|expected| Mismatch::plain("", expected, "something else"))?;
    Ok(size)
}

fn within(value: &Value, deeper: usize, size: &mut Size) -> Result<(), String> {
    size.values += 1;
    if size.values > MAX_VALUES {
        return Err(format!("at most {MAX_VALUES} values"));
    }
    let levels = || if deeper == 0 { Err(format!("at most {MAX_DEPTH} levels")) } else { Ok(()) };
    let is_normal = |text: &str| text.is_ascii() || is_nfc(text);
    let form = |fits: bool| if fits { Ok(()) } else { Err("text in Unicode's normal form C".to_owned()) };
    match value {
        Value::String(text) => {
            size.texts += text.len() + EACH_TEXT;
            form(is_normal(text))
        }
        Value::Array(list) => {
            levels()?;
            list.iter().try_for_each(|one| within(one, deeper - 1, size))
        }
        Value::Object(object) => {
            levels()?;
            object.iter().try_for_each(|(name, one)| {
                size.texts += name.len() + EACH_TEXT;
                size.names += name.len() + EACH_TEXT;
                form(is_normal(name))?;
                within(one, deeper - 1, size)
            })
        }
        _ => Ok(()),
    }
}

#[derive(Default)]
struct State {
    values: usize,
    wrong: Option<(String, String)>,
    /// Where, from within outwards.
    at: Vec<String>,
}

impl State {
    fn told(mut self, error: &serde_json::Error) -> Mismatch {
        self.at.reverse();
        let at = pointer(self.at.iter().map(String::as_str));
        match self.wrong {
            Some((expected, got)) => Mismatch::plain(&at, expected, got),
            None => Mismatch::plain(&at, "JSON", format!("an error: {error}")),
        }
    }
}

struct Seed<'s> {
    state: &'s mut State,
    depth: usize,
}

impl Seed<'_> {
    /// The reader wants an error of its own kind; what is said is ours.
    fn refuse<E: serde::de::Error>(self, expected: impl Into<String>, got: impl Into<String>) -> E {
        self.state.wrong = Some((expected.into(), got.into()));
        E::custom("refused")
    }

    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth < MAX_DEPTH {
            return Ok(self);
        }
        Err(self.refuse(format!("at most {MAX_DEPTH} levels"), "more"))
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        self.state.values += 1;
        if self.state.values > MAX_VALUES {
            return Err(self.refuse(format!("at most {MAX_VALUES} values"), "more"));
        }
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(truth.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Value, E> {
        match Number::from_f64(number).filter(|_| number.abs() <= EXACT) {
            Some(number) => Ok(Value::Number(number)),
            None => Err(self.refuse("a number that 64 bits hold exactly", format!("{number:e}"))),
        }
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(normal(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(normal(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let Self { state, depth } = self.deeper()?;
        let mut list = Vec::new();
        loop {
            let seed = Seed { state: &mut *state, depth: depth + 1 };
            match elements.next_element_seed(seed) {
                Ok(Some(value)) => list.push(value),
                Ok(None) => return Ok(Value::Array(list)),
                Err(error) => {
                    state.at.push(list.len().to_string());
                    return Err(error);
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let Self { state, depth } = self.deeper()?;
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let key = normal(key);
            if object.contains_key(&key) {
                let seed = Seed { state: &mut *state, depth };
                let error = seed.refuse("each key once, also in Unicode's normal form", "it twice");
                state.at.push(key);
                return Err(error);
            }
            let seed = Seed { state: &mut *state, depth: depth + 1 };
            match entries.next_value_seed(seed) {
                Ok(value) => object.insert(key, value),
                Err(error) => {
                    state.at.push(key);
                    return Err(error);
                }
            };
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn wrong(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_also_in_another_spelling() {
        assert!(wrong(r#"{"a":1,"a":2}"#).starts_with("/a: expected each key once"));
        assert!(wrong(r#"{"x":[{"a":1,"\u0061":2}]}"#).starts_with("/x/0/a: "));
        // e with an acute accent, as one character and as two.
        assert!(wrong("{\"\u{e9}\":1,\"e\u{301}\":2}").contains("each key once"));
        // The ångström sign is another character's other name.
        assert!(wrong("{\"\u{212b}\":1,\"\u{c5}\":2}").contains("each key once"));
    }

    #[test]
    fn text_comes_out_in_one_form() {
        assert_eq!(parse("{\"e\u{301}\":\"a\u{308}\"}".as_bytes()).unwrap(), json!({ "\u{e9}": "\u{e4}" }));
    }

    #[test]
    fn depth_size_and_count_are_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(wrong(&nested(MAX_DEPTH + 1)).contains("at most 64 levels"));
        assert!(parse(nested(100_000).as_bytes()).is_err());
        assert!(wrong(&" ".repeat(MAX_PARAMETERS + 1)).contains("at most 1048576 bytes"));
        assert!(wrong(&format!("[{}1]", "1,".repeat(MAX_VALUES))).contains("at most 65536 values"));
    }

    #[test]
    fn numbers_are_exact_or_refused() {
        assert_eq!(parse(b"[18446744073709551615,-9223372036854775808,0.5]").unwrap()[2], json!(0.5));
        for text in ["18446744073709551616", "1e300", "-9223372036854775809", "1e999"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in ["", "{", "1 2", "{\"a\"}", "\"\\ud800\"", "nul", "[1,]", "{'a':1}", "NaN", "// x\n1"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(b"\"\xff\"").is_err());
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(|text| Value::from(normal(text))),
        ];
        leaf.prop_recursive(4, 48, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map("\\PC{0,8}".prop_map(normal), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_in_order_is_read_as_any_reader_reads_it(value in values()) {
            prop_assert!(size(&value).is_ok());
            prop_assert_eq!(parse(value.to_string().as_bytes()), Ok(value));
        }

        #[test]
        fn no_bytes_are_read_as_something_that_another_reader_refuses(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = parse(&bytes) {
                let other: Value = serde_json::from_slice(&bytes).unwrap();
                prop_assert_eq!(value.to_string(), normal(other.to_string()));
            }
        }

        #[test]
        fn pieces_of_json_are_read_alike(text in "[\\[\\]{}:,\"a1\\\\u.e -]{0,24}") {
            if let Ok(value) = parse(text.as_bytes()) {
                prop_assert_eq!(value, serde_json::from_str::<Value>(&text).unwrap());
            }
        }
    }
}
