//! What one axis measured: rows of `case, variant, measure, value, unit`, the same shape for every axis, so that one
//! file writes them, one draws them and one holds them against the bounds.

use serde::Serialize;

use crate::stats::{Samples, median, quantile, ratios};

/// The measure of a row that says why there is no number.
pub(crate) const NOT_MEASURED: &str = "not measured";
/// The case of rows about the measurement itself: seed, rounds, kernel.
pub(crate) const ABOUT: &str = "about";

/// A number, or words where there is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Value {
    /// A number.
    Number(f64),
    /// Words.
    Text(String),
}

/// One line of a result file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    /// What was run, or under which conditions: `true`, `python`, `64 in flight`.
    pub(crate) case: String,
    /// How it was run: `bare`, `warm`, `bubblewrap`.
    pub(crate) variant: String,
    /// Which number of it: `median`, `p99`, `ratio`.
    pub(crate) measure: String,
    /// The number.
    pub(crate) value: Value,
    /// Its unit; empty for words.
    pub(crate) unit: String,
}

/// Which end of the samples is the bad one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    /// Times, sizes: the tail is p99.
    Less,
    /// Rates: the tail is p1.
    More,
}

impl Better {
    /// The name of the tail and the part of the samples below it.
    fn tail(self) -> (&'static str, f64) {
        match self {
            Self::Less => ("p99", 0.99),
            Self::More => ("p1", 0.01),
        }
    }
}

/// The samples of one variant in one case.
#[derive(Debug, Clone)]
pub(crate) struct Sampled {
    /// Its name.
    pub(crate) variant: String,
    /// The variant whose sample of the same round its ratios are to.
    pub(crate) against: Option<String>,
    /// One a round.
    pub(crate) samples: Samples,
}

/// Everything one axis measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Results {
    /// The axis, which names the files.
    pub(crate) axis: String,
    /// In the order of measuring.
    pub(crate) rows: Vec<Row>,
}

impl Results {
    /// None yet.
    pub(crate) fn new(axis: &str) -> Self {
        Self { axis: axis.to_owned(), rows: Vec::new() }
    }

    /// A number.
    pub(crate) fn number(&mut self, case: &str, variant: &str, measure: &str, value: f64, unit: &str) {
        self.row(case, variant, measure, Value::Number(value), unit);
    }

    /// Words about the measurement.
    pub(crate) fn about(&mut self, what: &str, words: impl Into<String>) {
        self.row(ABOUT, "", what, Value::Text(words.into()), "");
    }

    /// That a variant could not be measured, and why.
    pub(crate) fn not_measured(&mut self, case: &str, variant: &str, why: impl Into<String>) {
        self.row(case, variant, NOT_MEASURED, Value::Text(why.into()), "");
    }

    fn row(&mut self, case: &str, variant: &str, measure: &str, value: Value, unit: &str) {
        self.rows.push(Row {
            case: case.to_owned(),
            variant: variant.to_owned(),
            measure: measure.to_owned(),
            value,
            unit: unit.to_owned(),
        });
    }

    /// What the samples of one case say: median and tail; against its reference the median of the ratios of each
    /// round, the ratio of the medians, and that of the tails.
    pub(crate) fn samples(&mut self, case: &str, unit: &str, better: Better, all: &[Sampled]) {
        let (tail, part) = better.tail();
        let seen = |sampled: &Sampled| sampled.samples.iter().copied().flatten().collect::<Vec<f64>>();
        for one in all {
            let (Some(middle), Some(end)) = (median(seen(one)), quantile(seen(one), part)) else { continue };
            self.number(case, &one.variant, "median", middle, unit);
            self.number(case, &one.variant, tail, end, unit);
            let count = u32::try_from(seen(one).len()).unwrap_or(u32::MAX);
            self.number(case, &one.variant, "samples", f64::from(count), "");
            let Some(against) = &one.against else { continue };
            let Some(reference) = all.iter().find(|other| other.variant == *against) else { continue };
            let (Some(ratio), Some(bare), Some(bare_end)) = (
                median(ratios(&one.samples, &reference.samples)),
                median(seen(reference)),
                quantile(seen(reference), part),
            ) else {
                continue;
            };
            let to = format!("x {against}");
            self.number(case, &one.variant, "ratio", ratio, &to);
            self.number(case, &one.variant, "ratio of medians", middle / bare, &to);
            self.number(case, &one.variant, &format!("ratio of {tail}"), end / bare_end, &to);
        }
    }

    /// A number, if it was measured.
    pub(crate) fn find(&self, case: &str, variant: &str, measure: &str) -> Option<f64> {
        let mut rows = self.rows.iter();
        rows.find_map(|row| match row.value {
            Value::Number(value) if row.case == case && row.variant == variant && row.measure == measure => {
                Some(value)
            }
            _ => None,
        })
    }

    /// Words about the measurement, if they were kept.
    pub(crate) fn words(&self, what: &str) -> Option<&str> {
        self.rows.iter().find_map(|row| match &row.value {
            Value::Text(words) if row.case == ABOUT && row.measure == what => Some(words.as_str()),
            _ => None,
        })
    }

    /// Why a variant wasn't measured, where that is known.
    pub(crate) fn why_not(&self, case: &str, variant: &str) -> Option<&str> {
        self.rows.iter().find_map(|row| match &row.value {
            Value::Text(why) if row.measure == NOT_MEASURED && row.variant == variant && row.case == case => {
                Some(why.as_str())
            }
            _ => None,
        })
    }

    /// The cases that have numbers or reasons, each once, in their order.
    pub(crate) fn cases(&self) -> Vec<&str> {
        let mut cases: Vec<&str> = Vec::new();
        for row in self.rows.iter().filter(|row| row.case != ABOUT) {
            if !cases.contains(&row.case.as_str()) {
                cases.push(&row.case);
            }
        }
        cases
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(variant: &str, against: Option<&str>, samples: &[f64]) -> Sampled {
        let samples = samples.iter().copied().map(Some).collect();
        Sampled { variant: variant.into(), against: against.map(Into::into), samples }
    }

    #[test]
    fn samples_become_medians_tails_and_ratios_to_the_same_round() {
        let mut results = Results::new("latency");
        let bare = sampled("bare", None, &[1.0, 2.0, 10.0]);
        let warm = sampled("warm", Some("bare"), &[2.0, 6.0, 30.0]);
        results.samples("true", "us", Better::Less, &[bare, warm]);
        let warm = |measure| results.find("true", "warm", measure);
        assert_eq!(warm("median"), Some(6.0));
        assert_eq!(warm("p99"), Some(30.0));
        assert_eq!(warm("ratio"), Some(3.0));
        assert_eq!(warm("ratio of medians"), Some(3.0));
        assert_eq!(warm("ratio of p99"), Some(3.0));
        assert_eq!(warm("samples"), Some(3.0));
        assert_eq!(results.find("true", "bare", "ratio"), None);
    }

    #[test]
    fn rates_have_their_tail_at_the_low_end() {
        let mut results = Results::new("throughput");
        results.samples("8", "runs/s", Better::More, &[sampled("bare", None, &[100.0, 300.0, 200.0])]);
        assert_eq!(results.find("8", "bare", "p1"), Some(100.0));
        assert_eq!(results.find("8", "bare", "p99"), None);
    }

    #[test]
    fn a_variant_without_samples_has_no_numbers_and_keeps_its_reason() {
        let mut results = Results::new("latency");
        results.samples("true", "us", Better::Less, &[sampled("nsjail", Some("bare"), &[])]);
        results.not_measured("true", "nsjail", "not installed");
        assert_eq!(results.find("true", "nsjail", "median"), None);
        assert_eq!(results.why_not("true", "nsjail"), Some("not installed"));
        assert_eq!(results.why_not("true", "crun"), None);
    }
}
