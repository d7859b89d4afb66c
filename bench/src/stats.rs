//! What samples say: medians, tails, ratios. Pure, and without a unit.

/// Samples of one variant, one a round; `None` where a round gave none.
pub(crate) type Samples = Vec<Option<f64>>;

/// The value below which `part` (0 to 1) of the samples lie, by nearest rank: always a value that was seen. `None`
/// without samples.
pub(crate) fn quantile(samples: impl IntoIterator<Item = f64>, part: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = samples.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let rank = sorted.iter().enumerate().find(|(index, _)| share(index + 1, sorted.len()) >= part);
    rank.map(|(_, value)| *value).or_else(|| sorted.last().copied())
}

/// The middle value; of an even number of samples, the mean of the two in the middle.
pub(crate) fn median(samples: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = samples.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    match sorted.len() % 2 {
        0 => Some(f64::midpoint(*sorted.get(middle.wrapping_sub(1))?, upper)),
        _ => Some(upper),
    }
}

/// Sample by reference of the same round, for every round that has both.
pub(crate) fn ratios(samples: &[Option<f64>], reference: &[Option<f64>]) -> Vec<f64> {
    let both =
        samples.iter().zip(reference).filter_map(|(sample, reference)| Some(((*sample)?, (*reference)?)));
    both.filter(|(_, reference)| *reference != 0.0).map(|(sample, reference)| sample / reference).collect()
}

/// `part` of `whole`, as a fraction.
#[allow(clippy::cast_precision_loss, reason = "counts of samples lie far below 2^52")]
pub(crate) fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_or_the_mean_of_the_two_in_the_middle() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0]), Some(3.0));
        assert_eq!(median([9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median([4.0, 1.0, 100.0, 2.0]), Some(3.0));
    }

    #[test]
    fn quantile_is_the_nearest_rank_and_a_value_that_was_seen() {
        let hundred = || (1..=100).map(f64::from);
        assert_eq!(quantile(hundred(), 0.99), Some(99.0));
        assert_eq!(quantile(hundred(), 0.01), Some(1.0));
        assert_eq!(quantile(hundred(), 1.0), Some(100.0));
        assert_eq!(quantile([2.0, 1.0], 0.99), Some(2.0));
        assert_eq!(quantile([], 0.99), None);
    }

    #[test]
    fn ratios_pair_the_samples_of_one_round_and_skip_rounds_that_lack_one() {
        let samples = [Some(2.0), None, Some(9.0), Some(4.0)];
        let bare = [Some(1.0), Some(1.0), Some(3.0), None];
        assert_eq!(ratios(&samples, &bare), [2.0, 3.0]);
        assert_eq!(ratios(&[Some(1.0)], &[Some(0.0)]), [0.0; 0]);
    }

    /// A machine that gets slower half way through moves both medians, and no ratio.
    #[test]
    fn ratios_of_rounds_hold_where_the_machine_changes() {
        let bare = [Some(1.0), Some(1.0), Some(10.0), Some(10.0), Some(10.0)];
        let ours = [Some(2.0), Some(2.0), Some(20.0), Some(20.0), None];
        assert_eq!(median(ratios(&ours, &bare)), Some(2.0));
    }
}
