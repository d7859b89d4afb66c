//! A run's own secrets: values that are known, in the forms in which tools print them.

use core::fmt;
use std::collections::BTreeSet;

/// The shortest value that is looked for, in bytes. A shorter one is everywhere.
pub const MIN_VALUE: usize = 6;
/// The shortest form of one.
const MIN_FORM: usize = 6;
/// Of a longer value so many bytes are looked for, which is plenty; what comes behind isn't hidden.
pub const MAX_VALUE: usize = 8_192;
/// And of a longer form of one: percent-encoding makes three of one.
pub const MAX_FORM: usize = 3 * MAX_VALUE;

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A secret, by the name that is shown in its place.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its name.
    pub name: String,
    pub(super) forms: Vec<Form>,
}

/// One form of a value.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) bytes: Vec<u8>,
    /// For each beginning of it, by its last byte: how long the longest shorter one is that it ends with.
    pub(super) borders: Vec<u16>,
}

const _: () = assert!(MAX_FORM <= u16::MAX as usize, "a border has to hold any length");

impl Form {
    fn new(mut bytes: Vec<u8>) -> Self {
        bytes.truncate(MAX_FORM);
        let mut borders = vec![0; bytes.len()];
        let mut border: u16 = 0;
        for at in 1..bytes.len() {
            while border > 0 && bytes[usize::from(border)] != bytes[at] {
                border = borders[usize::from(border) - 1];
            }
            border += u16::from(bytes[usize::from(border)] == bytes[at]);
            borders[at] = border;
        }
        Self { bytes, borders }
    }
}

impl fmt::Debug for Secret {
    /// Without its value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A value is too short to be looked for: to be told to whoever gave it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("secret `{name}` is under {MIN_VALUE} bytes, and can't be hidden in output; choose a longer one")]
pub struct TooShort {
    /// The secret's name.
    pub name: String,
}

impl Secret {
    /// A value, and all forms of it that are looked for: itself; within base64 and base64url, wherever it begins there;
    /// percent-encoded; within JSON; hexadecimal.
    ///
    /// # Errors
    /// It's too short.
    pub fn new(name: &str, value: &[u8]) -> Result<Self, TooShort> {
        if value.len() < MIN_VALUE {
            return Err(TooShort { name: name.to_owned() });
        }
        let value = &value[..value.len().min(MAX_VALUE)];
        let mut forms = BTreeSet::from([value.to_vec()]);
        for alphabet in [STANDARD, URL_SAFE] {
            forms.extend((0..3).map(|before| within_base64(value, before, alphabet)));
        }
        for (space, digits) in [("%20", HEX), ("+", HEX), ("%20", HEX_UPPER), ("+", HEX_UPPER)] {
            forms.insert(percent_encoded(value, space, digits));
        }
        for digits in [HEX, HEX_UPPER] {
            forms.insert(value.iter().flat_map(|byte| hex(*byte, digits)).collect());
        }
        forms.insert(within_json(value));
        forms.retain(|form| form.len() >= MIN_FORM);
        Ok(Self { name: name.to_owned(), forms: forms.into_iter().map(Form::new).collect() })
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";
const HEX_UPPER: &[u8; 16] = b"0123456789ABCDEF";

fn hex(byte: u8, digits: &[u8; 16]) -> [u8; 2] {
    [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]
}

/// The characters that say nothing but this value, if so many bytes (modulo 3) stand before it. RFC 4648.
fn within_base64(value: &[u8], before: usize, alphabet: &[u8; 64]) -> Vec<u8> {
    let bits = |index: usize| -> u8 {
        // The six bits of a character, of which each is one of a byte.
        (0..6).fold(0, |bits, bit| {
            let at = index * 6 + bit;
            let byte = value[at / 8 - before];
            bits << 1 | byte >> (7 - at % 8) & 1
        })
    };
    let first = (before * 8).div_ceil(6);
    let end = (before + value.len()) * 8 / 6;
    (first..end).map(|index| alphabet[usize::from(bits(index))]).collect()
}

/// RFC 3986, 2.3: what isn't unreserved is encoded.
fn percent_encoded(value: &[u8], space: &str, digits: &[u8; 16]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for byte in value {
        match byte {
            b' ' => encoded.extend_from_slice(space.as_bytes()),
            _ if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) => encoded.push(*byte),
            _ => {
                encoded.push(b'%');
                encoded.extend_from_slice(&hex(*byte, digits));
            }
        }
    }
    encoded
}

/// RFC 8259, 7, in its shortest form.
fn within_json(value: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::new();
    for byte in value {
        match byte {
            b'"' | b'\\' => escaped.extend_from_slice(&[b'\\', *byte]),
            b'\n' => escaped.extend_from_slice(b"\\n"),
            b'\r' => escaped.extend_from_slice(b"\\r"),
            b'\t' => escaped.extend_from_slice(b"\\t"),
            0..0x20 => {
                escaped.extend_from_slice(b"\\u00");
                escaped.extend_from_slice(&hex(*byte, HEX));
            }
            _ => escaped.push(*byte),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Plain base64, bit by bit, without padding.
    fn base64(text: &[u8]) -> Vec<u8> {
        let bits: Vec<u8> =
            text.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
        let six = |bits: &[u8]| (0..6).fold(0u8, |all, bit| all << 1 | bits.get(bit).copied().unwrap_or(0));
        bits.chunks(6).map(|bits| STANDARD[usize::from(six(bits))]).collect()
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        assert_eq!(base64(b"foobar"), b"Zm9vYmFy");
        assert_eq!(within_base64(b"foobar", 0, STANDARD), b"Zm9vYmFy");
    }

    proptest! {
        #[test]
        fn a_value_within_base64_is_found_wherever_it_begins(
            before in prop::collection::vec(any::<u8>(), 0..7),
            value in prop::collection::vec(any::<u8>(), MIN_VALUE..40),
            behind in prop::collection::vec(any::<u8>(), 0..5),
        ) {
            let secret = Secret::new("it", &value).unwrap();
            let encoded = base64(&[before, value, behind].concat());
            let url_safe: Vec<u8> = encoded
                .iter()
                .map(|byte| match byte { b'+' => b'-', b'/' => b'_', other => *other })
                .collect();
            for encoded in [encoded, url_safe] {
                prop_assert!(secret.forms.iter().any(|form| encoded.windows(form.bytes.len()).any(|part| part == form.bytes)));
            }
        }
    }

    #[test]
    fn forms_are_those_that_tools_print() {
        let secret = Secret::new("it", b"p\"ss w\xf6rd/1\n").unwrap();
        let has = |form: &[u8]| secret.forms.iter().any(|other| other.bytes == form);
        assert!(has(b"p\"ss w\xf6rd/1\n") && has(b"p%22ss%20w%f6rd%2f1%0a") && has(b"p%22ss+w%F6rd%2F1%0A"));
        assert!(has(b"p\\\"ss w\xf6rd/1\\n") && has(b"7022737320 77f672642f310a".replace(b' ').as_slice()));
        assert!(Secret::new("short", b"12345").unwrap_err().to_string().contains("`short`"));
        assert!(!format!("{secret:?}").contains("rd/1"));
    }

    trait Replace {
        fn replace(&self, byte: u8) -> Vec<u8>;
    }

    impl<const N: usize> Replace for &[u8; N] {
        fn replace(&self, byte: u8) -> Vec<u8> {
            self.iter().copied().filter(|other| *other != byte).collect()
        }
    }
}
