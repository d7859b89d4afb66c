//! Where anything may begin: a bitmap of two digests of four bytes (Bloom, 1970), and behind it the beginnings themselves, in
//! order. Nearly every place costs one look at the map.

use crate::redact::pattern::BEGINNING;

/// Bits of the map, as a power of two: it has to stay in a processor's nearest cache.
const BITS: u32 = 17;
const WORDS: usize = 1 << (BITS - 6);
/// Bits of the map of pairs, for beginnings that are shorter than three bytes.
const PAIRS: usize = 65_536 / 64;
/// So many bytes a beginning is looked up by.
const KEY: usize = 4;

/// How something begins, as far as it is looked at: so many bytes of these.
#[derive(Debug, Clone, Copy)]
struct Beginning {
    /// Its first four, the first of them the highest; what isn't there is 0.
    key: u32,
    bytes: [u8; BEGINNING],
    length: usize,
    number: usize,
}

/// Beginnings, each with the number of what begins so.
#[derive(Debug, Clone)]
pub(super) struct Finder {
    digests: Box<[u64; WORDS]>,
    pairs: Option<Box<[u64; PAIRS]>>,
    /// Those that are looked up by one, two, three and four bytes, each by its key.
    beginnings: [Vec<Beginning>; KEY],
}

impl Default for Finder {
    fn default() -> Self {
        Self { digests: Box::new([0; WORDS]), pairs: None, beginnings: Default::default() }
    }
}

/// Multiplicative hashing (Knuth, The Art of Computer Programming 3, 6.4), by the golden ratio and by another.
fn digests(bytes: [u8; KEY]) -> [usize; 2] {
    let digest = |factor: u32| {
        usize::try_from(u32::from_le_bytes(bytes).wrapping_mul(factor) >> (32 - BITS)).unwrap_or(0)
    };
    [digest(0x9E37_79B1), digest(0x85EB_CA77)]
}

fn pair(bytes: [u8; 2]) -> usize {
    usize::from(u16::from_le_bytes(bytes))
}

fn has(map: &[u64], bit: usize) -> bool {
    map[bit / 64] >> (bit % 64) & 1 == 1
}

fn put(map: &mut [u64], bit: usize) {
    map[bit / 64] |= 1 << (bit % 64);
}

fn key(bytes: &[u8]) -> u32 {
    let byte = |index: usize| bytes.get(index).copied().unwrap_or(0);
    u32::from_be_bytes([byte(0), byte(1), byte(2), byte(3)])
}

impl Finder {
    /// Finds what another finds, and nothing else yet; who is asked for it is that other.
    pub(super) fn beside(&self) -> Self {
        Self { digests: self.digests.clone(), pairs: self.pairs.clone(), ..Self::default() }
    }

    /// One more beginning, of at least one byte.
    pub(super) fn add(&mut self, beginning: &[u8], number: usize) {
        match *beginning {
            [] => return,
            [one] => (0..=255).for_each(|other| self.put_pair([one, other])),
            [one, other] => self.put_pair([one, other]),
            [a, b, c] => (0..=255).for_each(|last| self.put_digests([a, b, c, last])),
            [a, b, c, d, ..] => self.put_digests([a, b, c, d]),
        }
        let (mut bytes, length) = ([0; BEGINNING], beginning.len().min(BEGINNING));
        bytes[..length].copy_from_slice(&beginning[..length]);
        let list = &mut self.beginnings[length.min(KEY) - 1];
        let key = key(beginning);
        let place = list.partition_point(|other| other.key <= key);
        list.insert(place, Beginning { key, bytes, length, number });
    }

    fn put_digests(&mut self, bytes: [u8; KEY]) {
        for digest in digests(bytes) {
            put(&mut *self.digests, digest);
        }
    }

    fn put_pair(&mut self, bytes: [u8; 2]) {
        put(&mut **self.pairs.get_or_insert_with(|| Box::new([0; PAIRS])), pair(bytes));
    }

    /// The next place, from this one on, at which something may begin; the last three bytes are among them always.
    pub(super) fn next(&self, text: &[u8], from: usize) -> Option<usize> {
        let rest = text.get(from..).filter(|rest| !rest.is_empty())?;
        let digest = |window: &[u8]| {
            let [one, other] = digests([window[0], window[1], window[2], window[3]]);
            has(&*self.digests, one) && has(&*self.digests, other)
        };
        let place = match &self.pairs {
            None => rest.windows(KEY).position(digest),
            Some(pairs) => rest
                .windows(KEY)
                .position(|window| digest(window) || has(&**pairs, pair([window[0], window[1]]))),
        };
        Some(from + place.unwrap_or_else(|| (rest.len() + 1).saturating_sub(KEY)))
    }

    /// Adds the numbers of all whose beginning this is, as far as the text goes.
    pub(super) fn at(&self, text: &[u8], numbers: &mut Vec<usize>) {
        let wanted = key(text);
        for (list, long) in self.beginnings.iter().zip(1..).filter(|(list, _)| !list.is_empty()) {
            let compared = text.len().min(long);
            let shift = 8 * (KEY - compared);
            let part = |key: u32| u64::from(key) >> shift;
            let first = list.partition_point(|beginning| part(beginning.key) < part(wanted));
            let same = list[first..].iter().take_while(|beginning| part(beginning.key) == part(wanted));
            numbers.extend(same.filter(|beginning| beginning.is_of(text)).map(|beginning| beginning.number));
        }
    }
}

impl Beginning {
    fn is_of(&self, text: &[u8]) -> bool {
        let length = self.length.min(text.len());
        self.bytes[..length] == text[..length]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// As looking at every place.
        #[test]
        fn every_place_where_something_begins_is_found_with_all_that_does(
            beginnings in prop::collection::vec("[ab-]{1,6}", 0..6),
            others in prop::collection::vec("[ab-]{1,6}", 0..3),
            text in "[abc-]{0,60}",
        ) {
            let mut shared = Finder::default();
            for (number, beginning) in beginnings.iter().enumerate() {
                shared.add(beginning.as_bytes(), number);
            }
            let mut own = shared.beside();
            for (number, beginning) in others.iter().enumerate() {
                own.add(beginning.as_bytes(), beginnings.len() + number);
            }
            let all: Vec<&String> = beginnings.iter().chain(&others).collect();
            let text = text.as_bytes();
            let fits = |at: usize, beginning: &String| {
                let length = beginning.len().min(text.len() - at);
                beginning.as_bytes()[..length] == text[at..at + length]
            };
            let mut found = Vec::new();
            let mut from = 0;
            while let Some(at) = own.next(text, from) {
                let mut numbers = Vec::new();
                shared.at(&text[at..], &mut numbers);
                own.at(&text[at..], &mut numbers);
                numbers.sort_unstable();
                if !numbers.is_empty() {
                    found.push((at, numbers));
                }
                from = at + 1;
            }
            let expected: Vec<(usize, Vec<usize>)> = (0..text.len())
                .map(|at| (at, (0..all.len()).filter(|number| fits(at, all[*number])).collect()))
                .filter(|(_, numbers): &(usize, Vec<usize>)| !numbers.is_empty())
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
