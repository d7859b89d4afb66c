//! Keys of 32 bytes, overwritten when they're dropped, and what is made of them.

use core::fmt;
use std::io;

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use hmac::{Hmac, Mac as _};
use rustix::io::Errno;
use rustix::rand::GetRandomFlags;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Bytes of a key, of a hash and of a MAC.
pub(crate) const KEY: usize = 32;
/// Bytes that sealing adds.
pub(crate) const TAG: usize = 16;
/// Bytes of a nonce.
pub(crate) const NONCE: usize = 12;
/// A key that is sealed.
pub(crate) const WRAPPED: usize = KEY + TAG;

/// A hash or a MAC.
pub(crate) type Hash = [u8; KEY];

/// A key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Zeroizing<[u8; KEY]>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    pub(crate) fn of(bytes: [u8; KEY]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(crate) fn random() -> io::Result<Self> {
        random::<KEY>().map(Self::of)
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY] {
        &self.0
    }

    /// HMAC-SHA-256 of `message` with this key.
    pub(crate) fn mac(&self, message: &[u8]) -> Hash {
        let mut block = Zeroizing::new([0; 64]);
        block[..KEY].copy_from_slice(&*self.0);
        let mut mac = Hmac::<Sha256>::new((&*block).into());
        mac.update(message);
        mac.finalize().into_bytes().into()
    }

    /// Another key, from which this one can't be had.
    pub(crate) fn derive(&self, label: &str) -> Self {
        Self::of(self.mac(label.as_bytes()))
    }

    /// Another key by one hash: as [`Self::derive`], for what is done with every record.
    pub(crate) fn next(&self) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"next");
        hash.update(*self.0);
        Self::of(hash.finalize().into())
    }

    /// What shows that somebody has this key, and doesn't show the key.
    pub(crate) fn commitment(&self) -> Hash {
        self.mac(b"commitment")
    }

    /// What seals with this key. Dear to make: once for many uses.
    pub(crate) fn cipher(&self) -> Cipher {
        Cipher(Box::new(Aes256Gcm::new((&*self.0).into())))
    }

    /// Seals another key with this one: 12 random bytes, 32 sealed ones, the tag.
    pub(crate) fn wrap(&self, inner: &Self, bound: &[u8]) -> io::Result<Vec<u8>> {
        let nonce = random::<NONCE>()?;
        let mut out = nonce.to_vec();
        let mut sealed = Zeroizing::new(inner.0.to_vec());
        let tag = self.cipher().seal(&nonce, bound, &mut sealed)?;
        out.extend_from_slice(&sealed);
        out.extend_from_slice(&tag);
        Ok(out)
    }

    /// Opens what [`Self::wrap`] has made with the same `bound`.
    pub(crate) fn unwrap(&self, wrapped: &[u8], bound: &[u8]) -> Option<Self> {
        let (nonce, rest) = wrapped.split_first_chunk::<NONCE>()?;
        let mut opened = Zeroizing::new(Vec::with_capacity(KEY));
        self.cipher().open(nonce, bound, rest, &mut opened).then_some(())?;
        opened.as_slice().try_into().ok().map(Self::of)
    }
}

/// AES-256-GCM with one key.
pub(crate) struct Cipher(Box<Aes256Gcm>);

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(..)")
    }
}

impl Cipher {
    /// Seals in place.
    pub(crate) fn seal(&self, nonce: &[u8; NONCE], bound: &[u8], bytes: &mut [u8]) -> io::Result<[u8; TAG]> {
        let sealed = self.0.encrypt_inout_detached(&Nonce::from(*nonce), bound, bytes.into());
        // Only more than 64 GiB at once can't be sealed.
        sealed.map(Into::into).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
    }

    /// Opens into `out`, which is emptied first and is empty where it isn't what was sealed.
    pub(crate) fn open(&self, nonce: &[u8; NONCE], bound: &[u8], sealed: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        let Some((bytes, tag)) = sealed.split_last_chunk::<TAG>() else { return false };
        out.extend_from_slice(bytes);
        let nonce = Nonce::from(*nonce);
        let opened = self.0.decrypt_inout_detached(&nonce, bound, out.as_mut_slice().into(), tag.into());
        if opened.is_err() {
            out.clear();
        }
        opened.is_ok()
    }
}

/// Random bytes of the kernel's.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        match rustix::rand::getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(more) => filled += more,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

/// SHA-256 of the parts, one behind the other.
pub(crate) fn hash(parts: &[&[u8]]) -> Hash {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes of lower-case hexadecimal.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

/// As [`unhex`], of exactly so many bytes.
pub(crate) fn unhex_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    unhex(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_key_opens_with_its_key_and_its_place_only() {
        let (outer, inner) = (Secret::of([1; 32]), Secret::of([2; 32]));
        let wrapped = outer.wrap(&inner, b"here").unwrap();
        assert_eq!(wrapped.len(), NONCE + WRAPPED);
        assert_eq!(outer.unwrap(&wrapped, b"here"), Some(inner.clone()));
        assert_eq!(outer.unwrap(&wrapped, b"there"), None);
        assert_eq!(inner.unwrap(&wrapped, b"here"), None);
        assert_eq!(outer.unwrap(&wrapped[..20], b"here"), None);
        let mut changed = wrapped.clone();
        changed[30] ^= 1;
        assert_eq!(outer.unwrap(&changed, b"here"), None);
        assert_ne!(outer.wrap(&inner, b"here").unwrap(), wrapped, "a nonce of its own each time");
    }

    /// RFC 4231, test case 2 has a shorter key; 32 zero bytes behind it don't change an HMAC.
    #[test]
    fn a_mac_is_hmac_sha_256() {
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let mac = Secret::of(key).mac(b"what do ya want for nothing?");
        assert_eq!(hex(&mac), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn hexadecimal_is_read_as_it_is_written_and_not_otherwise() {
        assert_eq!(unhex(&hex(&[0, 0xa5, 255])), Some(vec![0, 0xa5, 255]));
        for wrong in ["a", "0x", "A5", "+1", "\u{e9}"] {
            assert_eq!(unhex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_secret_isnt_shown() {
        assert_eq!(format!("{:?}", Secret::of([7; 32])), "Secret(..)");
    }
}
