//! Times as people write them: RFC 3339 in UTC, and how long ago.

/// Seconds of a day.
const DAY: u64 = 24 * 3600;
/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// `2026-11-22T10:00:00.123456789Z` of nanoseconds since 1970.
#[must_use]
pub fn rfc3339(time: u64) -> String {
    let (seconds, nanoseconds) = (time / SECOND, time % SECOND);
    let (days, of_day) = (seconds / DAY, seconds % DAY);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}Z")
}

/// Nanoseconds since 1970 of `2026-11-22`, `2026-11-22T10:00:00Z`, with a fraction of a second or an offset from UTC where there
/// is a time; or of `90s`, `15m`, `3h`, `2d` before `now`. `None`: it's none of these.
#[must_use]
pub fn parse(text: &str, now: u64) -> Option<u64> {
    if let Some((number, unit)) = text.len().checked_sub(1).and_then(|at| text.split_at_checked(at)) {
        let unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => DAY,
            _ => 0,
        };
        if unit > 0 && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
            let seconds = number.parse::<u64>().ok()?.checked_mul(unit)?;
            return Some(now.saturating_sub(seconds.checked_mul(SECOND)?));
        }
    }
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let (year, month, day) =
        (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    if parts.next().is_some() || year < 1970 || !(1..=12).contains(&month) {
        return None;
    }
    let days = days_before(year, month) + day.checked_sub(1)?;
    // A day that the month doesn't have is another date.
    if self::date(days) != (year, month, day) {
        return None;
    }
    days.checked_mul(DAY * SECOND)?.checked_add(time.map_or(Some(0), of_day)?)
}

/// Nanoseconds of a day of `10:00:00.5+02:00`, in UTC; before the day begins they're refused.
fn of_day(text: &str) -> Option<u64> {
    let at = text.find(['Z', '+', '-'])?;
    let (clock, zone) = text.split_at(at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = clock.split(':');
    let (hour, minute, second) =
        (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 || fraction.len() > 9 {
        return None;
    }
    let fraction = digits(fraction, fraction.len())? * 10_u64.pow(9 - u32::try_from(fraction.len()).ok()?);
    let clock = (hour * 3600 + minute * 60 + second) * SECOND + fraction;
    let Some((hour, minute)) = zone.get(1..)?.split_once(':') else {
        return (zone == "Z").then_some(clock);
    };
    let offset = (digits(hour, 2)? * 3600 + digits(minute, 2)? * 60) * SECOND;
    if zone.starts_with('+') { clock.checked_sub(offset) } else { clock.checked_add(offset) }
}

fn digits(text: &str, many: usize) -> Option<u64> {
    let is_number = text.len() == many && many > 0 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days between 1970 and a month.
fn days_before(year: u64, month: u64) -> u64 {
    let before = year - 1;
    let leaps = before / 4 - before / 100 + before / 400 - (1969 / 4 - 1969 / 100 + 1969 / 400);
    (year - 1970) * 365 + leaps + (1..month).map(|month| days_of(year, month)).sum::<u64>()
}

/// Year, month and day of a day since 1970.
fn date(days: u64) -> (u64, u64, u64) {
    // No year has more than 366 days, so this is that year or one before it.
    let mut year = 1970 + days / 366;
    while days_before(year + 1, 1) <= days {
        year += 1;
    }
    let mut left = days - days_before(year, 1);
    let mut month = 1;
    while left >= days_of(year, month) {
        left -= days_of(year, month);
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_times_are_told_as_date_tells_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_795_341_621, "2026-11-22T10:00:21"),
            (4_107_542_399, "2100-02-28T23:59:59"),
        ] {
            assert_eq!(rfc3339(seconds * SECOND), format!("{text}.000000000Z"));
        }
    }

    proptest! {
        #[test]
        fn a_time_is_read_as_it_was_written(time in any::<u64>()) {
            prop_assert_eq!(parse(&rfc3339(time), 0), Some(time));
        }

        #[test]
        fn any_text_is_a_time_or_none(text in ".{0,40}") {
            let _ = parse(&text, 5);
        }
    }

    #[test]
    fn offsets_fractions_dates_and_times_ago_are_read() {
        let ten = parse("2026-11-22T10:00:00Z", 0).unwrap();
        assert_eq!(parse("2026-11-22T12:00:00+02:00", 0), Some(ten));
        assert_eq!(parse("2026-11-22T10:00:00.5Z", 0), Some(ten + SECOND / 2));
        assert_eq!(parse("2026-11-22", 0), Some(ten - 10 * 3600 * SECOND));
        assert_eq!(parse("3h", ten), Some(ten - 3 * 3600 * SECOND));
        for wrong in [
            "",
            "h",
            "-1h",
            "2026-02-30",
            "2026-13-01",
            "10:00",
            "2026-11-22T25:00:00Z",
            "2026-11-22T10:00:00",
        ] {
            assert_eq!(parse(wrong, ten), None, "{wrong}");
        }
    }
}
