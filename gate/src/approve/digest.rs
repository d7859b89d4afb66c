//! What an answer is about, as one number.
//!
//! Each part goes in with its name and both lengths, so two that differ anywhere have different bytes: nothing of one part can be
//! taken for a piece of the next.

use sha2::{Digest as _, Sha256};

/// What is said of the form, so that a digest of another one is never taken for one of this.
const FORM: &[u8] = b"stockade approval 1";

/// The digest of what would run, part by part.
#[derive(Debug, Clone)]
pub struct Canonical(Sha256);

impl Default for Canonical {
    fn default() -> Self {
        let mut digest = Self(Sha256::new());
        digest.put(FORM);
        digest
    }
}

impl Canonical {
    fn put(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// A part.
    #[must_use]
    pub fn part(mut self, name: &str, bytes: &[u8]) -> Self {
        self.put(name.as_bytes());
        self.put(&[1]);
        self.put(bytes);
        self
    }

    /// A part that may not be there, which is something else than an empty one.
    #[must_use]
    pub fn maybe(self, name: &str, bytes: Option<&[u8]>) -> Self {
        match bytes {
            Some(bytes) => self.part(name, bytes),
            None => self.list(name, []),
        }
    }

    /// A part of many, in their order.
    #[must_use]
    pub fn list<'a>(mut self, name: &str, parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let parts: Vec<&[u8]> = parts.into_iter().collect();
        self.put(name.as_bytes());
        self.put(&[2]);
        self.put(&(parts.len() as u64).to_le_bytes());
        for part in parts {
            self.put(part);
        }
        self
    }

    /// A part that is a number.
    #[must_use]
    pub fn number(self, name: &str, number: u64) -> Self {
        self.part(name, &number.to_le_bytes())
    }

    /// The digest.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}
