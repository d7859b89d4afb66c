//! Signatures over a tool's whole file (Ed25519, RFC 8032), beside it as `NAME.toml.sig`, and the keys that are trusted.
//!
//! ```toml
//! key = "…"           # the public key, 64 hexadecimal digits
//! signature = "…"     # 128 of them
//! ```
//!
//! A key's file is `key = "…"`, and a secret key's `secret = "…"`. What is signed begins with words of its own, so that no signature
//! over anything else is one over a tool. A signature that is there has to hold, whether one is required or not.

use std::collections::BTreeMap;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use stockade_policies::reader::{self, Section};
use stockade_policies::{Mistake, Problem};

use super::{hex, unhex};

/// The most keys that are trusted.
pub const MAX_KEYS: usize = 256;
/// What stands before a file's bytes in what is signed.
const DOMAIN: &[u8] = b"stockade tool file, version 1\0";

/// The keys that are trusted, by their bytes, and what each is called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys(BTreeMap<[u8; 32], String>);

/// Why a signature doesn't count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// There is none.
    #[error("it isn't signed")]
    Missing,
    /// By a key that isn't among the trusted ones.
    #[error("it's signed with the key {0}, which isn't trusted")]
    Untrusted(String),
    /// Not over this file.
    #[error("its signature isn't over what the file says now")]
    Wrong,
}

impl SignatureError {
    /// What would help.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Missing => "read the file, then sign it with `stockade tool sign`",
            Self::Untrusted(_) => "put the key's file among the trusted ones, or sign it with one of those",
            Self::Wrong => "read the file again, then sign it again with `stockade tool sign`",
        }
    }
}

impl Keys {
    /// Adds a key's file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn add(&mut self, file: &str, name: &str, text: &str) -> Result<(), Vec<Mistake>> {
        let [key] = fields(file, text, ["key"])?;
        let bytes = digits::<32>(file, &key)?;
        // A weak key signs anything.
        let weak = VerifyingKey::from_bytes(&bytes).map_or(true, |key| key.is_weak());
        if weak {
            return Err(vec![wrong(&key, "it is no usable public key")]);
        }
        self.0.insert(bytes, name.to_owned());
        Ok(())
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whose signature stands over a file.
    ///
    /// # Errors
    /// Why none does.
    pub fn verify(&self, text: &[u8], signed: &Signed) -> Result<&str, SignatureError> {
        let untrusted = || SignatureError::Untrusted(hex(&signed.key));
        let name = self.0.get(&signed.key).ok_or_else(untrusted)?;
        let key = VerifyingKey::from_bytes(&signed.key).map_err(|_| untrusted())?;
        let signature = Signature::from_bytes(&signed.signature);
        key.verify_strict(&message(text), &signature).map_err(|_| SignatureError::Wrong)?;
        Ok(name)
    }
}

/// A signature's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    key: [u8; 32],
    signature: [u8; 64],
}

impl Signed {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(file: &str, text: &str) -> Result<Self, Vec<Mistake>> {
        let [key, signature] = fields(file, text, ["key", "signature"])?;
        Ok(Self { key: digits(file, &key)?, signature: digits(file, &signature)? })
    }

    /// As its file says it.
    #[must_use]
    pub fn text(&self) -> String {
        format!("key = \"{}\"\nsignature = \"{}\"\n", hex(&self.key), hex(&self.signature))
    }
}

/// A key that signs.
pub struct Secret(SigningKey);

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// Of 32 random bytes.
    #[must_use]
    pub fn of(random: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(random))
    }

    /// Reads its file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(file: &str, text: &str) -> Result<Self, Vec<Mistake>> {
        let [secret] = fields(file, text, ["secret"])?;
        Ok(Self::of(&digits(file, &secret)?))
    }

    /// As its file says it.
    #[must_use]
    pub fn text(&self) -> String {
        format!("secret = \"{}\"\n", hex(self.0.as_bytes()))
    }

    /// As the public key's file says it.
    #[must_use]
    pub fn public_text(&self) -> String {
        format!("key = \"{}\"\n", hex(self.0.verifying_key().as_bytes()))
    }

    /// Signs a tool's file.
    #[must_use]
    pub fn sign(&self, text: &[u8]) -> Signed {
        Signed { key: self.0.verifying_key().to_bytes(), signature: self.0.sign(&message(text)).to_bytes() }
    }
}

fn message(text: &[u8]) -> Vec<u8> {
    [DOMAIN, text].concat()
}

struct Field {
    key: &'static str,
    text: String,
    at: stockade_policies::Position,
}

/// A file of texts, each of which has to be there.
fn fields<const COUNT: usize>(
    file: &str,
    text: &str,
    keys: [&'static str; COUNT],
) -> Result<[Field; COUNT], Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let mut found: Vec<Field> = Vec::new();
    reader::document((file, text), ("the file", &keys), &mut mistakes, |root, mistakes| {
        for key in keys {
            match field(root, key) {
                Ok(field) => found.push(field),
                Err(mistake) => mistakes.push(mistake),
            }
        }
    });
    match <[Field; COUNT]>::try_from(found) {
        Ok(found) if mistakes.is_empty() => Ok(found),
        _ => Err(mistakes),
    }
}

fn field(root: &Section<'_>, key: &'static str) -> Result<Field, Mistake> {
    let expected = "hexadecimal digits, lower case";
    match root.text(key, expected, |text| Ok(text.to_owned()))? {
        Some(found) => Ok(Field { key, text: found.value, at: found.at }),
        None => {
            let problem = Problem::Value {
                key: key.into(),
                reason: "it isn't there".into(),
                expected: expected.into(),
            };
            Err(Mistake::new(&root.start(), problem))
        }
    }
}

fn digits<const LENGTH: usize>(_file: &str, field: &Field) -> Result<[u8; LENGTH], Vec<Mistake>> {
    unhex(&field.text)
        .ok_or_else(|| vec![wrong(field, &format!("it isn't {} hexadecimal digits", 2 * LENGTH))])
}

/// Without what stands there: it may be a secret.
fn wrong(field: &Field, reason: &str) -> Mistake {
    let problem = Problem::Value {
        key: field.key.into(),
        reason: reason.into(),
        expected: "hexadecimal digits, lower case".into(),
    };
    Mistake::new(&field.at, problem)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trusting(secret: &Secret) -> Keys {
        let mut keys = Keys::default();
        keys.add("k.toml", "k", &secret.public_text()).unwrap();
        keys
    }

    #[test]
    fn a_signature_is_one_over_this_file_by_a_trusted_key() {
        let (ours, theirs) = (Secret::of(&[1; 32]), Secret::of(&[2; 32]));
        let keys = trusting(&ours);
        let signed = Signed::read("s", &ours.sign(b"text").text()).unwrap();
        assert_eq!(keys.verify(b"text", &signed), Ok("k"));
        assert_eq!(keys.verify(b"texT", &signed), Err(SignatureError::Wrong));
        assert!(matches!(keys.verify(b"text", &theirs.sign(b"text")), Err(SignatureError::Untrusted(_))));
        // Theirs, under our key's name.
        let forged = Signed { key: signed.key, ..theirs.sign(b"text") };
        assert_eq!(keys.verify(b"text", &forged), Err(SignatureError::Wrong));
        // Over the same bytes, but not as a tool's.
        let plain = Signed { key: signed.key, signature: ours.0.sign(b"text").to_bytes() };
        assert_eq!(keys.verify(b"text", &plain), Err(SignatureError::Wrong));
    }

    #[test]
    fn keys_are_read_as_they_are_written_and_never_shown() {
        let secret = Secret::of(&[7; 32]);
        assert_eq!(Secret::read("f", &secret.text()).unwrap().public_text(), secret.public_text());
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        let told = Secret::read("f", "secret = \"1234567890\"").unwrap_err();
        assert!(!told[0].to_string().contains("1234567890"), "{told:?}");
    }

    #[test]
    fn weak_keys_and_other_texts_are_refused() {
        let mut keys = Keys::default();
        for text in [
            "",
            "key = 1",
            "key = \"00\"",
            "kei = \"00\"",
            &format!("key = \"{}\"", "0".repeat(64)),
            &format!("key = \"01{}\"", "0".repeat(62)),
        ] {
            assert!(keys.add("f", "n", text).is_err(), "{text}");
        }
        assert_eq!(keys.count(), 0);
    }

    proptest! {
        // The arithmetic takes its time where nothing is optimised.
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn no_changed_bit_passes(text in prop::collection::vec(any::<u8>(), 1..64), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let secret = Secret::of(&[3; 32]);
            let (keys, signed) = (trusting(&secret), secret.sign(&text));
            prop_assert!(keys.verify(&text, &signed).is_ok());
            let mut other = text.clone();
            other[at.index(text.len())] ^= 1 << bit;
            prop_assert!(keys.verify(&other, &signed).is_err());
            let mut changed = signed.clone();
            changed.signature[at.index(64)] ^= 1 << bit;
            prop_assert!(keys.verify(&text, &changed).is_err());
        }
    }
}
