//! What is often got wrong: the same rule of a tool's schema, five times within an hour or more often. Whoever looks at it learns that
//! a schema, or how it is described, isn't what callers need.
//!
//! A rule is named by its place in the schema and never by what a caller has sent, so there can't be more than the schemas have;
//! and no more than so many are kept, whatever: the one that was longest quiet goes first.

use std::collections::BTreeMap;
use std::time::Duration;

/// So many within [`WITHIN`] are recorded.
pub const OFTEN: usize = 5;
/// How long a mismatch counts.
pub const WITHIN: Duration = Duration::from_secs(3_600);
/// The most rules that are kept.
pub const MAX_RULES: usize = 1_024;

/// A rule that is often broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeated<'a> {
    /// The tool.
    pub tool: &'a str,
    /// The rule: a JSON pointer into its schema; `command`: no command came of what the schema let pass. Empty: no schema is needed
    /// to see it.
    pub rule: &'a str,
    /// How often in all, since it was first seen or had last been quiet for an hour.
    pub count: u64,
    /// When first, since the daemon began.
    pub first: Duration,
    /// When last.
    pub last: Duration,
}

/// All mismatches of the last hour.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    rules: BTreeMap<(String, String), Seen>,
}

#[derive(Debug, Clone)]
struct Seen {
    count: u64,
    first: Duration,
    /// The last so many times, the oldest first.
    recent: Vec<Duration>,
    is_recorded: bool,
}

impl Table {
    /// Notes one, at a time since the daemon began.
    pub(super) fn note(&mut self, tool: &str, rule: &str, at: Duration) {
        let key = (tool.to_owned(), rule.to_owned());
        if !self.rules.contains_key(&key) && self.rules.len() >= MAX_RULES {
            let quietest = self.rules.iter().min_by_key(|(_, seen)| seen.recent.last().copied());
            if let Some(key) = quietest.map(|(key, _)| key.clone()) {
                self.rules.remove(&key);
            }
        }
        let seen = self.rules.entry(key).or_insert_with(|| Seen::new(at));
        let quiet = |last: &Duration| at.saturating_sub(*last) > WITHIN;
        if seen.recent.last().is_some_and(quiet) {
            *seen = Seen::new(at);
        }
        seen.count = seen.count.saturating_add(1);
        seen.recent.retain(|time| at.saturating_sub(*time) <= WITHIN);
        if seen.recent.len() == OFTEN {
            seen.recent.remove(0);
        }
        seen.recent.push(at);
        seen.is_recorded |= seen.recent.len() == OFTEN;
    }

    /// What has been got wrong so many times within an hour, the most frequent first.
    pub(super) fn often(&self) -> Vec<Repeated<'_>> {
        let recorded = self.rules.iter().filter(|(_, seen)| seen.is_recorded);
        let mut often: Vec<Repeated<'_>> = recorded
            .map(|((tool, rule), seen)| Repeated {
                tool,
                rule,
                count: seen.count,
                first: seen.first,
                last: seen.recent.last().copied().unwrap_or(seen.first),
            })
            .collect();
        often.sort_by_key(|one| core::cmp::Reverse(one.count));
        often
    }
}

impl Seen {
    fn new(at: Duration) -> Self {
        Self { count: 0, first: at, recent: Vec::new(), is_recorded: false }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn minutes(count: u64) -> Duration {
        Duration::from_secs(60 * count)
    }

    #[test]
    fn five_within_an_hour_are_recorded_once_and_counted_on() {
        let mut table = Table::default();
        for time in [0, 10, 20, 30] {
            table.note("t", "/a", minutes(time));
            assert!(table.often().is_empty());
        }
        table.note("t", "/a", minutes(60));
        let expected = Repeated { tool: "t", rule: "/a", count: 5, first: minutes(0), last: minutes(60) };
        assert_eq!(table.often(), [expected]);
        table.note("t", "/a", minutes(61));
        assert_eq!(table.often(), [Repeated { count: 6, last: minutes(61), ..expected }]);
    }

    #[test]
    fn five_in_more_than_an_hour_or_of_different_rules_are_not() {
        let mut table = Table::default();
        for at in 0..20 {
            table.note("t", "/a", minutes(at * 16));
        }
        for at in 0..4 {
            table.note("t", "/b", minutes(at));
            table.note("u", "/b", minutes(at));
        }
        assert_eq!(table.often(), []);
    }

    #[test]
    fn what_was_quiet_for_an_hour_begins_anew() {
        let mut table = Table::default();
        (0..5).for_each(|at| table.note("t", "/a", minutes(at)));
        assert_eq!(table.often().len(), 1);
        table.note("t", "/a", minutes(65));
        assert!(table.often().is_empty());
    }

    #[test]
    fn the_table_is_bounded_and_keeps_what_was_heard_of_last() {
        let mut table = Table::default();
        for at in 0..5 {
            table.note("t", "often", Duration::from_secs(at));
        }
        for rule in 0..10 * MAX_RULES as u64 {
            table.note("t", &rule.to_string(), Duration::from_secs(10 + rule));
            if rule % 100 == 0 {
                table.note("t", "often", Duration::from_secs(10 + rule));
            }
        }
        assert_eq!(table.rules.len(), MAX_RULES);
        assert_eq!(table.often()[0].rule, "often");
    }

    proptest! {
        #[test]
        fn it_agrees_with_counting_them_all(steps in prop::collection::vec((0..3_u8, 0..40_u64), 0..60)) {
            let (mut table, mut now) = (Table::default(), 0);
            let mut all: Vec<(u8, u64)> = Vec::new();
            for (rule, wait) in steps {
                now += wait;
                all.push((rule, now));
                let rule_name = rule.to_string();
                let is_often = |table: &Table| table.often().iter().any(|one| one.rule == rule_name);
                let was_often = is_often(&table);
                table.note("t", &rule_name, minutes(now));
                let within = all.iter().filter(|(other, at)| *other == rule && now - at <= 60).count();
                if within >= OFTEN {
                    prop_assert!(is_often(&table));
                } else if !was_often {
                    prop_assert!(!is_often(&table));
                }
            }
        }
    }
}
