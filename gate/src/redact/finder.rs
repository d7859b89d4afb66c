//! Where anything may begin: two bitmaps of pairs of bytes, the first and second, and the third and fourth, and behind them the
//! beginnings themselves.

use crate::redact::pattern::BEGINNING;

/// Bits of a map: one for each pair of bytes.
const WORDS: usize = 65_536 / 64;

/// How something begins, as far as it is looked at: so many bytes of these.
#[derive(Debug, Clone, Copy)]
struct Beginning {
    bytes: [u8; BEGINNING],
    length: usize,
    number: usize,
}

/// Beginnings, each with the number of what begins so.
#[derive(Debug, Clone)]
pub(super) struct Finder {
    first: Box<[u64; WORDS]>,
    second: Box<[u64; WORDS]>,
    /// By their first byte.
    beginnings: Vec<Beginning>,
    /// Where those of a first byte begin in it.
    starts: Box<[u32; 257]>,
}

impl Default for Finder {
    fn default() -> Self {
        Self {
            first: Box::new([0; WORDS]),
            second: Box::new([0; WORDS]),
            beginnings: Vec::new(),
            starts: Box::new([0; 257]),
        }
    }
}

fn has(map: &[u64; WORDS], pair: [u8; 2]) -> bool {
    let pair = usize::from(u16::from_le_bytes(pair));
    map[pair / 64] >> (pair % 64) & 1 == 1
}

fn put(map: &mut [u64; WORDS], one: Option<u8>, other: Option<u8>) {
    let choices = |byte: Option<u8>| byte.map_or(0..=255, |byte| byte..=byte);
    for one in choices(one) {
        for other in choices(other) {
            let pair = usize::from(u16::from_le_bytes([one, other]));
            map[pair / 64] |= 1 << (pair % 64);
        }
    }
}

impl Finder {
    /// One more beginning, of at least one byte.
    pub(super) fn add(&mut self, beginning: &[u8], number: usize) {
        let byte = |index: usize| beginning.get(index).copied();
        let Some(first) = byte(0) else { return };
        put(&mut self.first, Some(first), byte(1));
        put(&mut self.second, byte(2), byte(3));
        let place = self.beginnings.partition_point(|other| other.bytes[0] <= first);
        let (mut bytes, length) = ([0; BEGINNING], beginning.len().min(BEGINNING));
        bytes[..length].copy_from_slice(&beginning[..length]);
        self.beginnings.insert(place, Beginning { bytes, length, number });
        for start in &mut self.starts[usize::from(first) + 1..] {
            *start += 1;
        }
    }

    /// The next place, from this one on, at which something may begin.
    pub(super) fn next(&self, text: &[u8], from: usize) -> Option<usize> {
        let rest = text.get(from..)?;
        let place = rest.windows(4).position(|window| {
            has(&self.first, [window[0], window[1]]) && has(&self.second, [window[2], window[3]])
        });
        if let Some(place) = place {
            return Some(from + place);
        }
        // Fewer than four bytes are left: whatever they may be the beginning of.
        let tail = from.max(text.len().saturating_sub(3));
        (tail..text.len()).find(|at| self.at(&text[*at..]).next().is_some())
    }

    /// The numbers of all whose beginning this is, as far as the text goes.
    pub(super) fn at<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
        let of_first = text.first().map_or(&[][..], |first| {
            let start = |byte: usize| usize::try_from(self.starts[byte]).unwrap_or(0);
            &self.beginnings[start(usize::from(*first))..start(usize::from(*first) + 1)]
        });
        let fits = move |beginning: &&Beginning| {
            let length = beginning.length.min(text.len());
            beginning.bytes[..length] == text[..length]
        };
        of_first.iter().filter(fits).map(|beginning| beginning.number)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// As looking at every place.
        #[test]
        fn every_place_where_something_begins_is_found_and_none_before_it(
            beginnings in prop::collection::vec("[ab-]{1,6}", 0..6),
            text in "[abc-]{0,60}",
        ) {
            let mut finder = Finder::default();
            for (number, beginning) in beginnings.iter().enumerate() {
                finder.add(beginning.as_bytes(), number);
            }
            let text = text.as_bytes();
            let fits = |at: usize, beginning: &String| {
                let length = beginning.len().min(text.len() - at);
                beginning.as_bytes()[..length] == text[at..at + length]
            };
            let mut found = Vec::new();
            let mut from = 0;
            while let Some(at) = finder.next(text, from) {
                let mut numbers: Vec<usize> = finder.at(&text[at..]).collect();
                numbers.sort_unstable();
                if !numbers.is_empty() {
                    found.push((at, numbers));
                }
                from = at + 1;
            }
            let expected: Vec<(usize, Vec<usize>)> = (0..text.len())
                .map(|at| (at, (0..beginnings.len()).filter(|number| fits(at, &beginnings[*number])).collect()))
                .filter(|(_, numbers): &(usize, Vec<usize>)| !numbers.is_empty())
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
