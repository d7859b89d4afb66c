//! Outcomes that stand in the record twice: a daemon that is killed between writing one and having its launcher forget the run is
//! followed by one that is told of the end again, and writes it again.

use std::collections::{HashMap, VecDeque};

use stockade_audit::{Entry, What};

use crate::out;

/// Runs of which is known that their outcome was told: a few megabytes, and far more than end between a daemon's death and what the next
/// one writes of it.
const KNOWN: usize = 65_536;

/// Which outcomes were told.
#[derive(Debug, Default)]
pub(super) struct Once {
    told: HashMap<String, (String, Option<i32>)>,
    order: VecDeque<String>,
    again: u64,
}

impl Once {
    /// Whether an outcome was told already, as it is. Another one of the same run is told, too: that mustn't be.
    pub(super) fn is_again(&mut self, entry: &Entry) -> bool {
        let What::Outcome(outcome) = &entry.event.what else { return false };
        let came = (outcome.outcome.clone(), outcome.code);
        if self.told.get(&outcome.exec) == Some(&came) {
            self.again += 1;
            return true;
        }
        if self.told.insert(outcome.exec.clone(), came).is_none() {
            self.order.push_back(outcome.exec.clone());
        }
        if self.order.len() > KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.told.remove(&oldest);
        }
        false
    }

    /// Says on standard error what was told once.
    pub(super) fn say(&self) {
        if self.again > 0 {
            let many = self.again;
            out::complain(&format!(
                "stockade: {many} outcomes stand in the record again, by the daemon that followed one that was killed"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use stockade_audit::{Class, Event, Outcome};

    use super::*;

    fn entry(exec: &str, outcome: &str, code: i32) -> Entry {
        let outcome =
            Outcome { exec: exec.into(), outcome: outcome.into(), code: Some(code), ..Outcome::default() };
        let event = Event { principal: None, what: What::Outcome(outcome) };
        Entry { sequence: 1, time: 1, class: Class::Access, event }
    }

    #[test]
    fn an_outcome_is_told_once_and_another_of_the_same_run_too() {
        let mut once = Once::default();
        for (one, is_again) in [
            (entry("a", "exited", 0), false),
            (entry("b", "exited", 0), false),
            (entry("a", "exited", 0), true),
            (entry("a", "exited", 1), false),
            (entry("b", "lost", 0), false),
        ] {
            assert_eq!(once.is_again(&one), is_again, "{one:?}");
        }
        assert_eq!(once.again, 1);
        for at in 0..2 * KNOWN {
            once.is_again(&entry(&at.to_string(), "exited", 0));
        }
        assert!(once.told.len() <= KNOWN && once.order.len() <= KNOWN);
        assert!(!once.is_again(&entry("a", "exited", 1)), "so long ago");
    }
}
