//! How busy the machine is: the kernel's pressure stall information (Documentation/accounting/psi.rst).

use stockade_gate::Load;

/// What the kernel says now; what it doesn't say isn't known.
pub(super) fn look() -> Load {
    let share = |of: &str| {
        let text = std::fs::read_to_string(format!("/proc/pressure/{of}")).ok()?;
        some_of_ten_seconds(&text)
    };
    Load { cpu: share("cpu"), memory: share("memory"), runs: 0 }
}

/// The share of the last ten seconds in which something waited: `some avg10=1.25 avg60=…`, in hundredths.
fn some_of_ten_seconds(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let percent: f64 = line.split(' ').find_map(|word| word.strip_prefix("avg10="))?.parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_read_or_unknown() {
        let text = "some avg10=12.50 avg60=0.26 avg300=0.08 total=14379544\nfull avg10=99.00 avg60=0 avg300=0 total=0\n";
        assert_eq!(some_of_ten_seconds(text), Some(0.125));
        for wrong in
            ["", "full avg10=1.00\n", "some avg10=x\n", "some avg10=-1\n", "some avg10=NaN\n", "some\n"]
        {
            assert_eq!(some_of_ten_seconds(wrong), None, "{wrong:?}");
        }
    }
}
