//! A limit: so many in a time, and so many at once.

use core::fmt;

use crate::rate::pace::Virtual;

/// What is expected where a rate belongs.
pub const RATE_EXPECTED: &str =
    "a whole number and a time (s, m, h, d), as in \"10/s\"; \"never\"; or \"none\" for no limit";
/// The most at once, and the most in a unit of time.
pub(super) const MOST: u32 = 1_000_000;
/// The longest in which a burst may come back, in nanoseconds: 366 days. A hundred times as long still fits into 64 bits, and a
/// tier can't make it longer than that.
const LONGEST: u64 = 366 * 24 * 3_600 * 1_000_000_000;

const UNITS: [(&str, u64); 4] =
    [("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000), ("d", 86_400_000_000_000)];

/// How often something may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Never: a rate of 0.
    Never,
    /// As often as anybody likes.
    None,
    /// So often.
    At(Quota),
}

/// So many in a time, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    count: u32,
    /// In nanoseconds.
    per: u64,
    burst: u32,
}

/// A limit as cells are charged by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Charge {
    /// What one costs, in nanoseconds of the pace's clock.
    pub(super) interval: u64,
    /// What may be owed.
    pub(super) room: u64,
}

impl Limit {
    /// A rate as a file says it, with so many at once. `burst`: `None` is as many as come in a second, and 1 at least.
    ///
    /// # Errors
    /// What is wrong, without what was expected: that is [`RATE_EXPECTED`].
    pub fn parse(text: &str, burst: Option<u32>) -> Result<Self, String> {
        match text {
            "never" => return Ok(Self::Never),
            "none" => return Ok(Self::None),
            _ => {}
        }
        let (count, per) = rate(text)?;
        if count == 0 {
            return Ok(Self::Never);
        }
        let a_second = u64::from(count) * UNITS[0].1 / per;
        let burst = burst.unwrap_or_else(|| u32::try_from(a_second).unwrap_or(MOST).max(1));
        Quota::new(count, per, burst).map(Self::At)
    }

    /// This many hundredths of it: 0 is never.
    pub(super) fn charge(self, percent: u32) -> Option<Result<Charge, Never>> {
        match self {
            Self::None => None,
            Self::At(quota) if percent > 0 => Some(Ok(quota.charge(percent))),
            Self::At(_) | Self::Never => Some(Err(Never)),
        }
    }
}

/// Nothing passes, at no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Never;

impl Quota {
    /// So many in so many nanoseconds, and so many at once.
    ///
    /// # Errors
    /// One of them is 0 or over a million, or what is taken at once comes back in more than 366 days.
    pub fn new(count: u32, per: u64, burst: u32) -> Result<Self, String> {
        for (what, amount) in [("rate", count), ("burst", burst)] {
            if !(1..=MOST).contains(&amount) {
                return Err(format!("a {what} of {amount} is out of range"));
            }
        }
        let quota = Self { count, per, burst };
        let fills = u128::from(quota.burst) * u128::from(per).div_ceil(u128::from(count));
        if per == 0 || fills > u128::from(LONGEST) {
            return Err(format!("{burst} at once would take over 366 days to come back"));
        }
        Ok(quota)
    }

    /// This many hundredths of it, in words.
    pub(super) fn said(self, percent: u32) -> String {
        let unit = UNITS.iter().find(|(_, per)| *per == self.per).map_or("ns", |(unit, _)| unit);
        let hundredths = u64::from(self.count) * u64::from(percent);
        let rest = format!("{:02}", hundredths % 100);
        let rest = Some(rest.trim_end_matches('0')).filter(|rest| !rest.is_empty());
        let rest = rest.map_or_else(String::new, |rest| format!(".{rest}"));
        format!("{}{rest}/{unit}, {} at once", hundredths / 100, self.burst(percent))
    }

    fn burst(self, percent: u32) -> u64 {
        (u64::from(self.burst) * u64::from(percent)).div_ceil(100)
    }

    /// What one costs is rounded up: never more than was asked for.
    fn charge(self, percent: u32) -> Charge {
        let per = u128::from(self.per) * 100;
        let interval = per.div_ceil(u128::from(self.count) * u128::from(percent));
        let interval = u64::try_from(interval).unwrap_or(u64::MAX).max(1);
        let burst = self.burst(percent);
        // The burst shrinks as the interval grows, but never below one: 100 × 366 days at the most.
        Charge { interval, room: interval.saturating_mul(burst) }
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said(100))
    }
}

impl Charge {
    /// When a cell lets one through, by the pace's clock: now, or later.
    pub(super) fn when(self, owed: Virtual, now: Virtual) -> Virtual {
        let owed = self.bounded(owed, now);
        Virtual(owed.0.saturating_sub(self.room - self.interval))
    }

    /// What a cell owes when one has been let through.
    pub(super) fn take(self, owed: Virtual, now: Virtual) -> Virtual {
        Virtual(self.bounded(owed, now).0.max(now.0).saturating_add(self.interval))
    }

    /// A cell never owes more than there is room for, unless its limit was another one before: then it owes all there is now.
    fn bounded(self, owed: Virtual, now: Virtual) -> Virtual {
        Virtual(owed.0.min(now.0.saturating_add(self.room)))
    }
}

fn rate(text: &str) -> Result<(u32, u64), String> {
    let (count, unit) = text.split_once('/').ok_or_else(|| format!("`{text}` has no `/`"))?;
    if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("`{text}` doesn't begin with a whole number"));
    }
    let count = count.parse::<u32>().ok().filter(|count| *count <= MOST);
    let count = count.ok_or_else(|| format!("`{text}` is over {MOST}"))?;
    let Some((_, per)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("`{unit}` is no time here"));
    };
    Ok((count, *per))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_a_number_and_a_time() {
        let at = |count, per, burst| Ok(Limit::At(Quota { count, per, burst }));
        assert_eq!(Limit::parse("10/s", None), at(10, 1_000_000_000, 10));
        assert_eq!(Limit::parse("10/m", None), at(10, 60_000_000_000, 1));
        assert_eq!(Limit::parse("5/h", Some(7)), at(5, 3_600_000_000_000, 7));
        for text in ["0/s", "0/d", "never"] {
            assert_eq!(Limit::parse(text, Some(5)), Ok(Limit::Never), "{text}");
        }
        assert_eq!(Limit::parse("none", None), Ok(Limit::None));
        for text in
            ["", "/", "10", "/s", "10/", "-1/s", "+1/s", "1.5/s", "10/min", "10/S", "1000001/s", "1 /s"]
        {
            assert!(Limit::parse(text, None).is_err(), "{text}");
        }
        assert!(Limit::parse("1/d", Some(366)).is_ok() && Limit::parse("1/d", Some(367)).is_err());
        assert!(Limit::parse("1/s", Some(0)).is_err());
    }

    #[test]
    fn hundredths_never_round_to_more_than_was_asked_for_nor_to_nothing() {
        let Ok(Limit::At(quota)) = Limit::parse("7/s", Some(10)) else { panic!("it's a rate") };
        assert_eq!(quota.charge(100), Charge { interval: 142_857_143, room: 1_428_571_430 });
        assert_eq!(quota.charge(200), Charge { interval: 71_428_572, room: 20 * 71_428_572 });
        assert_eq!(quota.charge(1), Charge { interval: 14_285_714_286, room: 14_285_714_286 });
        assert_eq!(Limit::At(quota).charge(0), Some(Err(Never)));
        assert_eq!(Limit::None.charge(0), None);
    }
}
