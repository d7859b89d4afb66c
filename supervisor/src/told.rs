//! Which specs the launcher remembers, as it was told on the one ordered channel: told before the first run that names them,
//! and forgotten before there are more than it takes.

use std::collections::VecDeque;

use stockade_protocol::bounds::{MAX_LAUNCH_MESSAGE, MAX_SPECS};
use stockade_protocol::launch::SpecNumber;

/// Bytes of specs that a launcher is to remember. Room for more than one of the largest.
pub(crate) const TOLD_BYTES: usize = 2 * MAX_LAUNCH_MESSAGE;

/// The specs one launcher was told, with their bytes, the one used least lately first.
#[derive(Debug, Default)]
pub(crate) struct Told {
    specs: VecDeque<(SpecNumber, usize)>,
    bytes: usize,
}

impl Told {
    /// Whether it knows a spec, which is used now.
    pub(crate) fn knows(&mut self, number: SpecNumber) -> bool {
        // Most often it's the last.
        let Some(at) = self.specs.iter().rposition(|(known, _)| *known == number) else { return false };
        if at + 1 < self.specs.len()
            && let Some(used) = self.specs.remove(at)
        {
            self.specs.push_back(used);
        }
        true
    }

    /// One that it has to forget before it's told another of so many bytes. `None`: there is room.
    pub(crate) fn forgets(&mut self, bytes: usize) -> Option<SpecNumber> {
        if self.specs.len() < MAX_SPECS && self.bytes + bytes <= TOLD_BYTES {
            return None;
        }
        let (number, bytes) = self.specs.pop_front()?;
        self.bytes -= bytes;
        Some(number)
    }

    /// It was told one.
    pub(crate) fn learns(&mut self, number: SpecNumber, bytes: usize) {
        self.specs.push_back((number, bytes));
        self.bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What a launcher that is told so knows: the spec of every launch, and never more than it takes.
        #[test]
        fn a_launcher_knows_what_it_is_to_launch_and_no_more_than_it_takes(
            asked in proptest::collection::vec((0..400_u64, 1..TOLD_BYTES / 20), 1..1000),
        ) {
            let (mut told, mut launcher) = (Told::default(), HashMap::new());
            let mut sizes = HashMap::new();
            for (number, size) in asked {
                let size = *sizes.entry(number).or_insert(size);
                let number = SpecNumber(number);
                prop_assert_eq!(told.knows(number), launcher.contains_key(&number));
                if !launcher.contains_key(&number) {
                    while let Some(old) = told.forgets(size) {
                        prop_assert!(launcher.remove(&old).is_some());
                    }
                    told.learns(number, size);
                    launcher.insert(number, size);
                }
                prop_assert!(launcher.len() <= MAX_SPECS);
                prop_assert!(launcher.values().sum::<usize>() <= TOLD_BYTES);
            }
        }
    }

    #[test]
    fn what_is_used_is_not_what_is_forgotten() {
        let mut told = Told::default();
        for number in 0..MAX_SPECS as u64 {
            told.learns(SpecNumber(number), 1);
        }
        assert!(told.knows(SpecNumber(0)));
        assert_eq!(told.forgets(1), Some(SpecNumber(1)));
        assert_eq!(told.forgets(1), None);
    }

    #[test]
    fn the_largest_spec_finds_room() {
        let mut told = Told::default();
        told.learns(SpecNumber(1), MAX_LAUNCH_MESSAGE);
        told.learns(SpecNumber(2), MAX_LAUNCH_MESSAGE);
        assert_eq!(told.forgets(MAX_LAUNCH_MESSAGE), Some(SpecNumber(1)));
        assert_eq!(told.forgets(MAX_LAUNCH_MESSAGE), None);
    }
}
