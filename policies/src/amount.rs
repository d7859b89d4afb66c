//! Sizes and times with their units. A bare number is never one of them, so `60` can't be read as minutes.

use core::fmt;

/// The largest size a text may state: 1 EiB, so that sums of a few stay below `u64::MAX`.
const MAX_SIZE: u64 = 1 << 60;
/// The longest time a text may state: 366 days, in milliseconds.
const MAX_TIME_MS: u64 = 366 * 24 * 3_600_000;

const SIZE_UNITS: [(&str, u64); 5] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
const TIME_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// What is expected where a size belongs.
pub const SIZE_EXPECTED: &str = "a size with its unit (B, KiB, MiB, GiB, TiB), as in \"256MiB\"";
/// What is expected where a time belongs.
pub const TIME_EXPECTED: &str = "a time with its unit (ms, s, m, h, d), as in \"30s\"";

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

/// A length of time in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(u64);

/// A limit that a policy can lift by saying `"none"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound<T> {
    /// No limit.
    None,
    /// At most this.
    At(T),
}

impl<T> Bound<T> {
    pub(crate) fn limit(self) -> Option<T> {
        match self {
            Self::None => None,
            Self::At(limit) => Some(limit),
        }
    }
}

impl Size {
    pub(crate) const ZERO: Self = Self(0);

    /// So many MiB.
    #[must_use]
    pub const fn mebibytes(count: u32) -> Self {
        Self((count as u64) << 20)
    }

    /// From digits and a unit.
    ///
    /// # Errors
    /// What is wrong, without what was expected: that is [`SIZE_EXPECTED`].
    pub fn parse(text: &str) -> Result<Self, String> {
        let size = amount(text, &SIZE_UNITS)?;
        if size > MAX_SIZE { Err(format!("`{text}` is over 1 EiB")) } else { Ok(Self(size)) }
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl Time {
    /// So many seconds.
    #[must_use]
    pub const fn seconds(count: u32) -> Self {
        Self(count as u64 * 1_000)
    }

    /// From digits and a unit.
    ///
    /// # Errors
    /// What is wrong, without what was expected: that is [`TIME_EXPECTED`].
    pub fn parse(text: &str) -> Result<Self, String> {
        let time = amount(text, &TIME_UNITS)?;
        if time > MAX_TIME_MS { Err(format!("`{text}` is over 366 days")) } else { Ok(Self(time)) }
    }

    /// In milliseconds.
    #[must_use]
    pub const fn milliseconds(self) -> u64 {
        self.0
    }
}

/// Decimal digits, then exactly one unit; nothing before, between or after.
fn amount(text: &str, units: &[(&str, u64)]) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(format!("`{text}` doesn't begin with a whole number"));
    }
    if unit.is_empty() {
        return Err(format!("`{text}` has no unit"));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("`{unit}` is no unit here"));
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(*factor))
        .ok_or_else(|| format!("`{text}` is too large"))
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        display(self.0, &SIZE_UNITS, f)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        display(self.0, &TIME_UNITS, f)
    }
}

impl<T: fmt::Display> fmt::Display for Bound<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::At(limit) => limit.fmt(f),
        }
    }
}

/// In the largest unit that loses nothing.
fn display(amount: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (unit, factor) = units
        .iter()
        .rev()
        .find(|(_, factor)| amount != 0 && amount.is_multiple_of(*factor))
        .unwrap_or(&units[0]);
    write!(f, "{}{unit}", amount / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_need_their_unit() {
        for (text, bytes) in [("0B", 0), ("1B", 1), ("256MiB", 256 << 20), ("3GiB", 3 << 30)] {
            assert_eq!(Size::parse(text).unwrap().bytes(), bytes);
        }
        for text in ["", "5", "MiB", "5 MiB", "5MB", "5mib", "-5MiB", "1.5GiB", "99999999999GiB", "5MiBx"] {
            assert!(Size::parse(text).is_err(), "{text}");
        }
        for (text, ms) in [("1ms", 1), ("30s", 30_000), ("5m", 300_000), ("2h", 7_200_000)] {
            assert_eq!(Time::parse(text).unwrap().milliseconds(), ms);
        }
        for text in ["", "5", "s", "5 s", "5min", "5S", "-1s", "1h30m", "400d", "99999999999999999999s"] {
            assert!(Time::parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_printed_parses_back(bytes in 0..=MAX_SIZE, ms in 0..=MAX_TIME_MS) {
            proptest::prop_assert_eq!(Size::parse(&Size(bytes).to_string()).unwrap(), Size(bytes));
            proptest::prop_assert_eq!(Time::parse(&Time(ms).to_string()).unwrap(), Time(ms));
        }
    }
}
