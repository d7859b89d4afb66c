//! Characters that a chunk of output cuts: their bytes wait for the next chunk of the stream, or its end.
//!
//! A tool's output is cut wherever its pipe was full, so also within a character. What is held is at most the three bytes that
//! can begin a character of four, and only what can still become one: the next chunk decides, and what it doesn't complete is sent as
//! bytes. Joined in their order, the pieces are always the bytes that the tool wrote.

use core::str::from_utf8;
use std::borrow::Cow;

/// The most that is held.
const MOST: usize = 3;

/// What is held of one stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tail {
    bytes: [u8; MOST],
    length: u8,
}

impl Tail {
    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// What can be sent now: all that was held and came, but for what begins a character and may yet become one.
    pub fn join<'a>(&mut self, chunk: &'a [u8]) -> Cow<'a, [u8]> {
        let mut whole =
            if self.is_empty() { Cow::Borrowed(chunk) } else { Cow::Owned([&self.take(), chunk].concat()) };
        if let Err(error) = from_utf8(&whole)
            && error.error_len().is_none()
        {
            let at = error.valid_up_to();
            let held = whole.len() - at;
            if held <= MOST {
                self.bytes[..held].copy_from_slice(&whole[at..]);
                self.length = u8::try_from(held).unwrap_or(0);
                match &mut whole {
                    Cow::Borrowed(bytes) => *bytes = &bytes[..at],
                    Cow::Owned(bytes) => bytes.truncate(at),
                }
            }
        }
        whole
    }

    /// What is held, which is none any more: nothing follows it.
    pub fn take(&mut self) -> Vec<u8> {
        let held = self.bytes[..usize::from(self.length)].to_vec();
        *self = Self::default();
        held
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(chunks: &[&[u8]]) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut tail = Tail::default();
        let pieces = chunks.iter().map(|chunk| tail.join(chunk).into_owned()).collect();
        (pieces, tail.take())
    }

    #[test]
    fn a_cut_character_comes_whole_with_the_next_chunk() {
        let (pieces, rest) = pieces(&[b"a\xe2\x82", b"\xac b\xf0", b"\x9f", b"\x98", b"\x80!"]);
        assert_eq!(pieces, [&b"a"[..], "\u{20ac} b".as_bytes(), b"", b"", "\u{1f600}!".as_bytes()]);
        assert!(rest.is_empty());
    }

    #[test]
    fn what_never_becomes_a_character_is_sent_as_bytes() {
        assert_eq!(pieces(&[b"\xe2\x82", b"x"]), (vec![vec![], b"\xe2\x82x".to_vec()], vec![]));
        assert_eq!(pieces(&[b"ok\xc3"]), (vec![b"ok".to_vec()], b"\xc3".to_vec()));
        assert_eq!(pieces(&[b"\xff\xc3"]).0, [b"\xff\xc3"], "bytes hold nothing back");
    }

    proptest! {
        #[test]
        fn pieces_joined_are_the_bytes_and_text_stays_text(
            text in "\\PC{0,40}", noise in prop::collection::vec(any::<u8>(), 0..6), cuts in prop::collection::vec(1_usize..7, 1..60)
        ) {
            for bytes in [text.as_bytes().to_vec(), [text.as_bytes(), &noise].concat()] {
                let (mut tail, mut rest, mut joined) = (Tail::default(), bytes.as_slice(), Vec::new());
                let is_text = from_utf8(&bytes).is_ok();
                for cut in cuts.iter().cycle() {
                    if rest.is_empty() { break; }
                    let (chunk, behind) = rest.split_at((*cut).min(rest.len()));
                    rest = behind;
                    let piece = tail.join(chunk);
                    prop_assert!(!is_text || from_utf8(&piece).is_ok());
                    joined.extend_from_slice(&piece);
                }
                joined.extend(tail.take());
                prop_assert_eq!(joined, bytes);
            }
        }
    }
}
