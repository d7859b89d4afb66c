//! Parameters that fitted, by their digest: what was checked once needn't be again.
//!
//! A tool's schema, compiled, is some hundred kilobytes that are scattered over memory: with a thousand tools called in turn it's
//! in no cache of the processor any more, and looking at it takes longer than to digest what is asked. Only what fits is
//! remembered, so that a refusal always says anew what is wrong.

use std::collections::HashSet;

use sha2::{Digest as _, Sha256};

use super::Parameters;

/// The most that are remembered: about a megabyte.
const MAX_FITTING: usize = 16_384;
/// Longer parameters are looked at each time, in bytes: they are rare, and to digest them costs as much as to read them.
const MAX_DIGESTED: usize = 64 * 1024;

/// Parameters of a tool, as they're remembered.
pub(super) type Key = [u8; 32];

/// What is known to fit.
#[derive(Debug, Default)]
pub(super) struct Fitting {
    known: HashSet<Key>,
}

impl Fitting {
    /// The digest of a tool's name and the parameters' text, if they are of those that are remembered.
    pub(super) fn key(tool: &str, parameters: &Parameters) -> Option<Key> {
        let text = parameters.text();
        if text.len() > MAX_DIGESTED {
            return None;
        }
        let mut digest = Sha256::new();
        digest.update((tool.len() as u64).to_le_bytes());
        digest.update(tool.as_bytes());
        digest.update(text);
        Some(digest.finalize().into())
    }

    pub(super) fn has(&self, key: &Key) -> bool {
        self.known.contains(key)
    }

    /// Remembers one. Where there is no room everything is forgotten, as with decisions of access.
    pub(super) fn put(&mut self, key: Key) {
        if self.known.len() >= MAX_FITTING {
            self.known.clear();
        }
        self.known.insert(key);
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tool: &str, text: &[u8]) -> Option<Key> {
        Fitting::key(tool, &Parameters::new(text.to_vec()))
    }

    #[test]
    fn a_key_is_of_the_tool_and_of_the_text_and_of_where_one_ends() {
        assert_eq!(key("a", b"{}"), key("a", b"{}"));
        assert_ne!(key("a", b"{}"), key("b", b"{}"));
        assert_ne!(key("a", b"{}"), key("a", b"{ }"));
        assert_ne!(key("ab", b"c"), key("a", b"bc"));
    }

    #[test]
    fn there_is_a_bound_and_long_parameters_have_no_key() {
        let mut fitting = Fitting::default();
        for number in 0..=MAX_FITTING {
            fitting.put(key("a", number.to_string().as_bytes()).unwrap());
        }
        assert_eq!(fitting.known.len(), 1);
        assert!(key("a", &vec![b' '; MAX_DIGESTED]).is_some());
        assert_eq!(key("a", &vec![b' '; MAX_DIGESTED + 1]), None);
    }
}
