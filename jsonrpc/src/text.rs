//! Bytes in JSON: text where they are UTF-8, else `{"base64": "…"}`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use core::fmt;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use stockade_protocol::Bytes;

/// Owned bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text(pub Bytes);

/// Borrowed bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TextOf<'a>(pub(crate) &'a [u8]);

impl Serialize for TextOf<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(text) = core::str::from_utf8(self.0) {
            return serializer.serialize_str(text);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("base64", &STANDARD.encode(self.0))?;
        map.end()
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        TextOf(&self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or {\"base64\": …}")
            }
            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(Bytes::from(text)))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
                let Some(key) = map.next_key::<String>()? else {
                    return Err(A::Error::missing_field("base64"));
                };
                if key != "base64" {
                    return Err(A::Error::unknown_field(&key, &["base64"]));
                }
                let coded: String = map.next_value()?;
                if map.next_key::<String>()?.is_some() {
                    return Err(A::Error::custom("beside `base64` nothing may stand"));
                }
                let bytes = STANDARD
                    .decode(coded)
                    .map_err(|error| A::Error::custom(format!("not base64: {error}")))?;
                Ok(Text(Bytes::from(bytes)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Text {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Bytes: a string where they are UTF-8, else an object with their base64 (RFC 4648, section 4)",
            "oneOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": { "base64": { "type": "string", "contentEncoding": "base64" } },
                    "required": ["base64"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn bytes_are_text_or_base64_and_come_back() {
        for (bytes, json) in
            [(&b"a\n\"\xc3\xa9"[..], "\"a\\n\\\"\u{e9}\""), (b"\xff\x00", "{\"base64\":\"/wA=\"}")]
        {
            assert_eq!(serde_json::to_string(&TextOf(bytes)).unwrap(), json);
            assert_eq!(serde_json::from_str::<Text>(json).unwrap().0.as_ref() as &[u8], bytes);
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        for json in [
            "1",
            "[97]",
            "null",
            "{}",
            "{\"base64\":\"%\"}",
            "{\"base64\":\"YQ==\",\"x\":1}",
            "{\"text\":\"a\"}",
        ] {
            assert!(serde_json::from_str::<Text>(json).is_err(), "{json}");
        }
    }
}
