//! These exact arguments: by a digest, and as they are shown.
//!
//! A command's words are told apart by their lengths. A tool's parameters are put in one form, keys in their order: spaces and the order
//! of keys say nothing. What is larger than a bound has no digest, and no grant for it: nobody makes a decision dear by what he sends.

use core::fmt::Write as _;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::asked::Given;
use crate::validate::Parameters;

/// The most bytes of a command line, or of parameters, that can be granted exactly.
pub const MAX_BYTES: usize = 16 * 1024;

/// SHA-256 of arguments in their one form.
pub type Digest = [u8; 32];

/// Of a command line; `None`: it's too large.
pub fn of_command<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> Option<Digest> {
    let mut digest = Sha256::new_with_prefix(b"command\0");
    let mut bytes = 0;
    for word in words {
        bytes += word.len() + 1;
        if bytes > MAX_BYTES {
            return None;
        }
        digest.update((word.len() as u64).to_le_bytes());
        digest.update(word);
    }
    Some(digest.finalize().into())
}

/// Of a tool's parameters; `None`: they are too large, or none.
#[must_use]
pub fn of_parameters(parameters: &Parameters) -> Option<Digest> {
    if parameters.text().len() > MAX_BYTES {
        return None;
    }
    let mut digest = Sha256::new_with_prefix(b"parameters\0");
    digest.update(one_form(parameters.value().ok()?).as_bytes());
    Some(digest.finalize().into())
}

/// Of what is given.
pub(super) fn of(given: Given<'_>) -> Option<Digest> {
    match given {
        Given::Nothing => None,
        Given::Command(words) => of_command(words.iter().map(Vec::as_slice)),
        Given::Parameters(parameters) => of_parameters(parameters),
    }
}

/// A command as it's shown: each word apart from the next, and nothing that a terminal would obey. What is too long to be shown is no
/// grant ([`super::BadGrant::Shown`]).
pub fn shown_command<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(byte);
    let quoted = |word: &[u8]| {
        if !word.is_empty() && word.iter().all(is_plain) {
            return String::from_utf8_lossy(word).into_owned();
        }
        format!("\"{}\"", word.escape_ascii())
    };
    words.into_iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// Parameters as they are shown: as JSON, of which no character is left out.
#[must_use]
pub fn shown_parameters(parameters: &Parameters) -> String {
    let mut text = String::new();
    for character in parameters.value().map(one_form).unwrap_or_default().chars() {
        if character.is_control() {
            let _ = write!(text, "\\u{:04x}", u32::from(character));
        } else {
            text.push(character);
        }
    }
    text
}

fn one_form(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

/// As JSON. How deep it can be the parameters' reader bounds.
fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(object) => {
            let mut pairs: Vec<_> = object.iter().collect();
            pairs.sort_unstable_by_key(|(key, _)| *key);
            text.push('{');
            for (at, (key, inner)) in pairs.into_iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                let _ = write!(text, "{comma}{}:", Value::from(key.as_str()));
                write(inner, text);
            }
            text.push('}');
        }
        Value::Array(all) => {
            text.push('[');
            for (at, inner) in all.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { "," });
                write(inner, text);
            }
            text.push(']');
        }
        leaf => {
            let _ = write!(text, "{leaf}");
        }
    }
}
