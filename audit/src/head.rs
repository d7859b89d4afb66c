//! The head: where the log stands, signed. A copy of it at a place that nobody who can write to the log can write to shows
//! later that nothing before it was changed or cut off.
//!
//! It's one line of text, so that a journal can keep it and a person can read it.

use core::fmt;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::format::SIGNATURE;
use crate::secret::{Hash, Secret, hash, hex, unhex_array};

/// The first words of a head's line, with its version.
pub const HEAD_LINE: &str = "stockade-audit-head 1 ";
/// The longest line that is read.
const LONGEST_LINE: usize = 1024;

/// Where a log stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Which log.
    pub log: [u8; 16],
    /// The segment that it's in.
    pub segment: u64,
    /// The last record's number; 0: none yet.
    pub sequence: u64,
    /// When it was signed, in nanoseconds since 1970.
    pub time: u64,
    /// What that record is known by: SHA-256 of `link`, its chain and its MAC.
    pub chain: [u8; 32],
    /// What commits to the next MAC key, and doesn't show it.
    pub mac: [u8; 32],
    /// Whose signature it is.
    pub public: [u8; 32],
    /// Over all of that.
    pub signature: [u8; 64],
}

/// What signs heads.
pub(crate) struct Signing(SigningKey);

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signing(..)")
    }
}

impl Signing {
    pub(crate) fn of(seed: &Secret) -> Self {
        Self(SigningKey::from_bytes(seed.bytes()))
    }

    pub(crate) fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs a hash that stands for more, for one purpose.
    pub(crate) fn sign(&self, purpose: &str, message: &Hash) -> [u8; SIGNATURE] {
        self.0.sign(&hash(&[purpose.as_bytes(), message])).to_bytes()
    }

    /// A head, signed.
    pub(crate) fn head(&self, mut head: Head) -> Head {
        head.public = self.public();
        head.signature = self.sign(PURPOSE, &head.digest());
        head
    }
}

/// Whether a signature of a hash is that of a key, for one purpose.
pub(crate) fn is_signed(
    public: &[u8; 32],
    purpose: &str,
    message: &Hash,
    signature: &[u8; SIGNATURE],
) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(public) else { return false };
    let message = hash(&[purpose.as_bytes(), message]);
    key.verify_strict(&message, &Signature::from_bytes(signature)).is_ok()
}

const PURPOSE: &str = "stockade audit head";

impl Head {
    fn digest(&self) -> Hash {
        let numbers = [self.segment, self.sequence, self.time].map(u64::to_le_bytes);
        hash(&[&self.log, numbers.as_flattened(), &self.chain, &self.mac, &self.public])
    }

    /// Whether the signature is that of its key. Whether that key is the right one is another question.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        is_signed(&self.public, PURPOSE, &self.digest(), &self.signature)
    }

    /// Reads a line, or what a line of a journal ends with. `None`: it has no head, or not a whole one.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        // A line that a killed writer has begun has the next one's head behind it.
        let line = &line[line.rfind(HEAD_LINE)?..];
        let words = line.get(HEAD_LINE.len()..).filter(|_| line.len() <= LONGEST_LINE)?;
        let mut words = words.split_whitespace();
        let mut word = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
        Some(Self {
            log: unhex_array(word("log")?)?,
            segment: number(word("segment")?)?,
            sequence: number(word("sequence")?)?,
            time: number(word("time")?)?,
            chain: unhex_array(word("chain")?)?,
            mac: unhex_array(word("mac")?)?,
            public: unhex_array(word("public")?)?,
            signature: unhex_array(word("signature")?)?,
        })
    }
}

/// A number as it's written: no sign, no zero in front.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { log, segment, sequence, time, chain, mac, public, signature } = self;
        write!(f, "{HEAD_LINE}log={} segment={segment} sequence={sequence} time={time}", hex(log))?;
        write!(f, " chain={} mac={} public={}", hex(chain), hex(mac), hex(public))?;
        write!(f, " signature={}", hex(signature))
    }
}

#[cfg(test)]
impl Head {
    /// One that nobody has signed.
    pub(crate) fn example() -> Self {
        Self {
            log: [1; 16],
            segment: 2,
            sequence: 3,
            time: 4,
            chain: [5; 32],
            mac: [6; 32],
            public: [0; 32],
            signature: [0; 64],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Signing::of(&Secret::of([3; 32])).head(Head::example())
    }

    #[test]
    fn a_line_is_read_as_it_was_written_whatever_stands_before_it() {
        let line = head().to_string();
        assert_eq!(Head::parse(&line), Some(head()));
        assert_eq!(Head::parse(&format!("Nov 22 10:00:00 host stockade[7]: {line}\n")), Some(head()));
        for at in 0..line.len() {
            assert_eq!(Head::parse(&format!("{}{line}", &line[..at])), Some(head()), "behind {at} bytes");
        }
        assert_eq!(Head::parse(&line[..line.len() - 2]), None);
        assert_eq!(Head::parse(""), None);
    }

    #[test]
    fn every_digit_of_a_line_is_covered_by_the_signature() {
        assert!(head().is_signed());
        let line = head().to_string();
        for at in HEAD_LINE.len()..line.len() {
            let mut changed = line.clone().into_bytes();
            if !changed[at].is_ascii_hexdigit() {
                continue;
            }
            changed[at] = if changed[at] == b'1' { b'2' } else { b'1' };
            let read = Head::parse(core::str::from_utf8(&changed).unwrap());
            assert!(read.is_none_or(|read| !read.is_signed()), "digit {at}");
        }
    }
}
