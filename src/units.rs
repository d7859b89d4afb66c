//! Sizes and times on the command line. Never bare numbers: `--timeout 30` could mean anything.

/// Milliseconds from a text like `500ms`, `30s`, `5m`, `1.5h`.
pub(crate) fn time(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 5] =
        [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    parse(text, &UNITS)
        .ok_or_else(|| "expected a time with its unit, like 500ms, 30s, 5m or 1h (more than zero)".to_owned())
}

/// Bytes from a text like `64KiB`, `512MiB`, `1.5GiB`, `10MB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("B", 1),
    ];
    parse(text, &UNITS).ok_or_else(|| {
        "expected a size with its unit, like 64KiB, 512MiB or 1.5GiB (more than zero)".to_owned()
    })
}

/// A number with at most three decimals, times its unit; exact, and more than zero.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(split);
    let &(_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    let (whole, decimals) = number.trim_end().split_once('.').unwrap_or((number.trim_end(), "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 3 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let thousandths: u64 = format!("{decimals:0<3}").parse().ok()?;
    let value = whole.checked_mul(scale)?.checked_add(scale.checked_mul(thousandths)? / 1000)?;
    (value > 0).then_some(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn times_have_units() {
        let table = [("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("1.5h", 5_400_000), ("0.25s", 250)];
        for (text, expected) in table {
            assert_eq!(time(text).unwrap(), expected, "{text}");
        }
        for text in
            ["", "30", "s", "0s", "-1s", "1e3s", "30 sec", "1.2345s", "1..5s", "99999999999999999999d"]
        {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_units() {
        let table =
            [("1B", 1), ("64KiB", 65_536), ("512MiB", 512 << 20), ("1.5GiB", 3 << 29), ("10MB", 10_000_000)];
        for (text, expected) in table {
            assert_eq!(size(text).unwrap(), expected, "{text}");
        }
        for text in ["512", "0MiB", "512mib", "18446744073709551615TiB", "MiB", "1,5GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
