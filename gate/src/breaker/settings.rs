//! When a breaker opens, for how long, and when it closes.

use core::time::Duration;

use stockade_policies::amount::{TIME_EXPECTED, Time};
use stockade_policies::reader::Section;
use stockade_policies::{Located, Mistake};

/// The most outcomes of a tool that are kept, and so the most that a threshold can be.
pub const MOST_OUTCOMES: u32 = 256;
/// The most probes at once, and the most successes that are asked for.
const MOST_PROBES: u32 = 64;

/// The keys of a table of them.
pub(crate) const BREAKER_KEYS: [&str; 9] = [
    "failures",
    "percent",
    "of-at-least",
    "window",
    "open",
    "open-at-most",
    "probes",
    "successes",
    "lost-after",
];

/// One tool's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// So many failures within the window open it. 0: their count alone never does.
    pub failures: u32,
    /// So many failures of a hundred outcomes within the window open it. 0: their share alone never does.
    pub percent: u32,
    /// A share is one of so many outcomes at least; 1 at least.
    pub of_at_least: u32,
    /// How long an outcome counts. The last [`MOST_OUTCOMES`] do.
    pub window: Duration,
    /// For how long it's open the first time; each time that a probe fails twice as long.
    pub open: Duration,
    /// For how long at most.
    pub open_at_most: Duration,
    /// Probes at once while it's half-open; 1 at least.
    pub probes: u32,
    /// Successes that close it; 1 at least.
    pub successes: u32,
    /// A run that hasn't ended after so long is taken for lost.
    pub lost_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            failures: 10,
            percent: 50,
            of_at_least: 20,
            window: Duration::from_secs(60),
            open: Duration::from_secs(30),
            open_at_most: Duration::from_secs(600),
            probes: 1,
            successes: 2,
            lost_after: Duration::from_secs(3_600),
        }
    }
}

impl Settings {
    /// For how long it's open, the nth time in a row (from 1).
    pub(super) fn open_for(&self, times: u32) -> Duration {
        let doubled =
            2u32.checked_pow(times.saturating_sub(1)).and_then(|factor| self.open.checked_mul(factor));
        doubled.unwrap_or(self.open_at_most).min(self.open_at_most.max(self.open))
    }
}

/// What a table says, and of the rest what `base` says. Mistakes are added.
pub(crate) fn read(section: &Section<'_>, base: Settings, mistakes: &mut Vec<Mistake>) -> Settings {
    let mut settings = base;
    let mut number = |key: &str, lowest: u32, highest: u32, into: &mut u32| match section.number(
        key,
        lowest.into(),
        highest.into(),
    ) {
        Ok(Some(Located { value, .. })) => *into = u32::try_from(value).unwrap_or(*into),
        Ok(None) => {}
        Err(mistake) => mistakes.push(mistake),
    };
    number("failures", 0, MOST_OUTCOMES, &mut settings.failures);
    number("percent", 0, 100, &mut settings.percent);
    number("of-at-least", 1, MOST_OUTCOMES, &mut settings.of_at_least);
    number("probes", 1, MOST_PROBES, &mut settings.probes);
    number("successes", 1, MOST_PROBES, &mut settings.successes);
    let mut time = |key: &str, into: &mut Duration| {
        let parse = |text: &str| match Time::parse(text)? {
            time if time.milliseconds() == 0 => Err("no time at all".into()),
            time => Ok(time),
        };
        match section.text(key, TIME_EXPECTED, parse) {
            Ok(Some(Located { value, .. })) => *into = Duration::from_millis(value.milliseconds()),
            Ok(None) => {}
            Err(mistake) => mistakes.push(mistake),
        }
    };
    time("window", &mut settings.window);
    time("open", &mut settings.open);
    time("open-at-most", &mut settings.open_at_most);
    time("lost-after", &mut settings.lost_after);
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_open_time_doubles_up_to_its_bound() {
        let settings = Settings::default();
        let seconds: Vec<u64> = (1..8).map(|times| settings.open_for(times).as_secs()).collect();
        assert_eq!(seconds, [30, 60, 120, 240, 480, 600, 600]);
        assert_eq!(settings.open_for(u32::MAX).as_secs(), 600);
        let odd = Settings { open_at_most: Duration::from_secs(1), ..settings };
        assert_eq!(odd.open_for(1).as_secs(), 30, "a bound below the first time doesn't shorten that");
    }
}
