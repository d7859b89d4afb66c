//! How a figure is spread: its mean and its greatest value exactly, its quantiles to within one percent of the value.
//!
//! Quantiles are a DDSketch's (Masson, Rim, Lee: "DDSketch: a fast and fully-mergeable quantile sketch", VLDB 2019): counts in
//! buckets whose bounds grow by two percent. Two of them add up to what one would have counted of both, whatever the order: that
//! is what lets hours become days. Values are held below [`HIGHEST`], so that all buckets there can be fit, and none ever collapses
//! into another.

use sha2::{Digest as _, Sha256};
use sketches_ddsketch::DDSketch;

/// How far a quantile may be from the true one, in percent of that.
pub const ERROR_PERCENT: u8 = 1;
/// The highest value that is told apart: 2^53 microseconds are 285 years, 2^53 bytes 8 PiB. From 1 to here are 1,837 buckets of the
/// 2,048 that a sketch has.
const HIGHEST: u64 = 1 << 53;
/// The bytes of a digest before a sketch in the file.
const DIGEST: usize = 8;
/// The largest sketch that is read: each bucket takes 18 bytes at most.
const LARGEST: usize = 64 * 1024;

/// See the module. In bytes, or in microseconds.
#[derive(Clone, Default)]
pub struct Spread {
    sum: u64,
    most: u64,
    /// Made with the first value: a row of denials has none.
    sketch: Option<Box<DDSketch>>,
}

impl core::fmt::Debug for Spread {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { sum, most, .. } = self;
        f.debug_struct("Spread").field("count", &self.count()).field("sum", sum).field("most", most).finish()
    }
}

impl PartialEq for Spread {
    /// Whether both answer everything alike. (Their sketches add up values once more, as floating point numbers, which we never ask for.)
    fn eq(&self, other: &Self) -> bool {
        let exact = |spread: &Self| (spread.sum, spread.most, spread.count());
        exact(self) == exact(other) && (0..=1_000).all(|part| self.quantile(part) == other.quantile(part))
    }
}

/// What is kept of a sketch isn't one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damaged;

impl Spread {
    /// Counts a value.
    pub fn add(&mut self, value: u64) {
        let value = value.min(HIGHEST);
        self.sum = self.sum.saturating_add(value);
        self.most = self.most.max(value);
        #[allow(clippy::cast_precision_loss, reason = "2^53 and below are exact")]
        self.sketch.get_or_insert_default().add(value as f64);
    }

    /// Counts all that another has counted.
    pub fn merge(&mut self, other: &Self) {
        self.sum = self.sum.saturating_add(other.sum);
        self.most = self.most.max(other.most);
        let Some(theirs) = &other.sketch else { return };
        match &mut self.sketch {
            None => self.sketch = Some(theirs.clone()),
            // Both are of the one configuration that there is, so they fit.
            Some(ours) => drop(ours.merge(theirs)),
        }
    }

    /// How many values there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.sketch.as_ref().map_or(0, |sketch| sketch.count() as u64)
    }

    /// Their mean; 0: there were none.
    #[must_use]
    pub fn mean(&self) -> u64 {
        self.sum.checked_div(self.count()).unwrap_or(0)
    }

    /// The greatest.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.most
    }

    /// The value below which so many of a hundred are, within [`ERROR_PERCENT`]; 0: there were none.
    #[must_use]
    pub fn percentile(&self, percent: u8) -> u64 {
        self.quantile(u16::from(percent.min(100)) * 10)
    }

    /// The value below which so many of a thousand are.
    fn quantile(&self, part: u16) -> u64 {
        let count = self.count();
        // The value at the least rank that has so many at or below it: of three values the 99th percentile is the greatest.
        let rank = count.saturating_mul(part.into()).div_ceil(1_000).max(1);
        if rank >= count {
            return self.most;
        }
        // Sketches take a part of the way from the first rank to the last, and go down to the next: half a rank more is this one.
        #[allow(clippy::cast_precision_loss, reason = "2^53 and below are exact")]
        let part = (rank as f64 - 0.5) / (count as f64 - 1.0);
        let quantile = |sketch: &DDSketch| sketch.quantile(part.min(1.0)).ok().flatten();
        let value = self.sketch.as_deref().and_then(quantile).unwrap_or(0.0).round();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "values are from 0 to 2^53, and a cast of anything else stays within its bounds"
        )]
        let value = value as u64;
        // The bucket of the greatest value reaches beyond it.
        value.min(self.most)
    }

    /// The sum of all values.
    pub(crate) fn sum(&self) -> u64 {
        self.sum
    }

    fn buckets(&self) -> Vec<u8> {
        self.sketch.as_ref().map(|sketch| sketch.to_java_bytes()).unwrap_or_default()
    }

    /// The sketch as it is kept: a digest of its bytes, and they. Empty: there were no values.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let buckets = self.buckets();
        if buckets.is_empty() { buckets } else { [&digest(&buckets)[..], &buckets].concat() }
    }

    /// One that was kept. A sketch's own decoder believes what it reads, so nothing reaches it that we haven't written.
    ///
    /// # Errors
    /// The bytes aren't those that were written.
    pub(crate) fn of_parts(sum: u64, most: u64, bytes: &[u8]) -> Result<Self, Damaged> {
        if bytes.is_empty() {
            return if (sum, most) == (0, 0) { Ok(Self::default()) } else { Err(Damaged) };
        }
        let (said, buckets) = bytes.split_at_checked(DIGEST).ok_or(Damaged)?;
        if buckets.len() > LARGEST || digest(buckets) != said {
            return Err(Damaged);
        }
        let sketch = DDSketch::from_java_bytes(buckets).map_err(|_| Damaged)?;
        Ok(Self { sum, most, sketch: Some(Box::new(sketch)) })
    }
}

fn digest(buckets: &[u8]) -> [u8; DIGEST] {
    let mut digest = [0; DIGEST];
    digest.copy_from_slice(&Sha256::digest(buckets)[..DIGEST]);
    digest
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[u64]) -> Spread {
        let mut spread = Spread::default();
        values.iter().for_each(|value| spread.add(*value));
        spread
    }

    /// Values of every size: most figures are small, and few are huge.
    fn values() -> impl Strategy<Value = Vec<u64>> {
        vec((0_u32..64, any::<u64>()).prop_map(|(shift, value)| value >> shift), 0..400)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn spreads_that_are_merged_in_any_split_and_order_are_that_of_all(all in values(), cuts in vec(any::<prop::sample::Index>(), 0..6)) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(all.len() + 1)).collect();
            cuts.extend([0, all.len()]);
            cuts.sort_unstable();
            let parts: Vec<Spread> = cuts.windows(2).map(|cut| of(&all[cut[0]..cut[1]])).collect();
            let whole = of(&all);
            let (mut forward, mut backward) = (Spread::default(), Spread::default());
            parts.iter().for_each(|part| forward.merge(part));
            parts.iter().rev().for_each(|part| backward.merge(part));
            prop_assert_eq!(&forward, &whole);
            prop_assert_eq!(&backward, &whole);
            for percent in [0, 1, 25, 50, 75, 99, 100] {
                prop_assert_eq!(forward.percentile(percent), whole.percentile(percent));
            }
        }

        #[test]
        fn a_percentile_is_within_its_error_of_the_true_one(mut all in values().prop_filter("some", |all| !all.is_empty()), percent in 0_u8..=100) {
            let spread = of(&all);
            all.iter_mut().for_each(|value| *value = (*value).min(HIGHEST));
            all.sort_unstable();
            let rank = (all.len() * usize::from(percent)).div_ceil(100).max(1);
            let (want, got) = (all[rank - 1], spread.percentile(percent));
            // A whole number is half a unit off at most, beside the sketch's own error.
            let error = want / 100 * u64::from(ERROR_PERCENT) + 1;
            prop_assert!(got.abs_diff(want) <= error, "{got} instead of {want}");
            prop_assert_eq!(spread.most(), *all.last().unwrap());
        }

        #[test]
        fn a_spread_comes_back_from_its_bytes_and_no_other_bytes_are_taken(all in values(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let spread = of(&all);
            let mut bytes = spread.to_bytes();
            prop_assert_eq!(&Spread::of_parts(spread.sum(), spread.most(), &bytes).unwrap(), &spread);
            prop_assert!(bytes.len() <= LARGEST);
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
                prop_assert_eq!(Spread::of_parts(spread.sum(), spread.most(), &bytes), Err(Damaged));
                bytes.truncate(at);
                prop_assert!(Spread::of_parts(spread.sum(), spread.most() | 1, &bytes).is_err());
            }
        }
    }

    #[test]
    fn nothing_counted_has_no_figures_and_nothing_is_too_large() {
        let none = Spread::default();
        assert_eq!((none.count(), none.mean(), none.percentile(99), none.most()), (0, 0, 0, 0));
        let all = of(&[0, u64::MAX]);
        assert_eq!((all.count(), all.most(), all.percentile(0)), (2, HIGHEST, 0));
        assert_eq!(of(&[7]).percentile(50), 7);
    }
}
