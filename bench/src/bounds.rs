//! The bounds, as data: `bench/bounds.toml`.

use serde::Deserialize;

use crate::error::BenchError;
use crate::results::Results;

/// The file.
const TEXT: &str = include_str!("../bounds.toml");

/// All bounds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    bound: Vec<Bound>,
}

/// One bound on one row of a result file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Bound {
    /// In words.
    pub(crate) what: String,
    /// Which file.
    pub(crate) axis: String,
    /// Which row.
    pub(crate) case: String,
    /// Which row.
    pub(crate) variant: String,
    /// Which row.
    pub(crate) measure: String,
    at_most: Option<f64>,
    at_least: Option<f64>,
    below: Option<String>,
}

/// What a bound says of results.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// Met or not, with the number and the limit that held for it.
    Measured {
        /// The number.
        value: f64,
        /// The bound's.
        limit: f64,
        /// Whether it's met.
        met: bool,
    },
    /// There is no number, and why.
    NotMeasured(String),
}

/// Every bound.
pub(crate) fn all() -> Result<Vec<Bound>, BenchError> {
    let file = toml::from_str::<File>(TEXT);
    file.map(|file| file.bound).map_err(|error| BenchError::Wrong(format!("bench/bounds.toml: {error}")))
}

impl Bound {
    /// The bound in signs.
    pub(crate) fn sign(&self) -> String {
        match (self.at_most, self.at_least, &self.below) {
            (Some(most), ..) => format!("<= {most}"),
            (_, Some(least), _) => format!(">= {least}"),
            (.., Some(other)) => format!("< {other}"),
            _ => String::new(),
        }
    }

    /// Holds results against it.
    pub(crate) fn judge(&self, results: &Results) -> Verdict {
        let find = |variant: &str| {
            results.find(&self.case, variant, &self.measure).ok_or_else(|| {
                let why = results.why_not(&self.case, variant);
                Verdict::NotMeasured(format!("{variant}: {}", why.unwrap_or("no such row in the results")))
            })
        };
        let judged = || {
            let value = find(&self.variant)?;
            Ok(match (self.at_most, self.at_least, &self.below) {
                (Some(limit), ..) => Verdict::Measured { value, limit, met: value <= limit },
                (_, Some(limit), _) => Verdict::Measured { value, limit, met: value >= limit },
                (.., Some(other)) => {
                    let limit = find(other)?;
                    Verdict::Measured { value, limit, met: value < limit }
                }
                _ => Verdict::NotMeasured("the bound has no number".into()),
            })
        };
        judged().unwrap_or_else(|verdict| verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(text: &str) -> Bound {
        let row =
            "what = \"w\"\naxis = \"latency\"\ncase = \"true\"\nvariant = \"warm\"\nmeasure = \"ratio\"\n";
        toml::from_str(&format!("{row}{text}")).unwrap()
    }

    fn results() -> Results {
        let mut results = Results::new("latency");
        results.number("true", "warm", "ratio", 1.2, "x bare");
        results.number("true", "bubblewrap", "ratio", 6.4, "x bare");
        results.not_measured("true", "crun", "not installed");
        results
    }

    #[test]
    fn the_file_has_one_number_a_bound_and_names_variants_that_there_are() {
        let axes = crate::axes::ALL.map(|axis| axis.name);
        let all = all().unwrap();
        assert!(all.len() > 15, "only {}", all.len());
        for bound in all {
            let given = [bound.at_most.is_some(), bound.at_least.is_some(), bound.below.is_some()];
            assert_eq!(given.iter().filter(|given| **given).count(), 1, "{}", bound.what);
            assert!(axes.contains(&bound.axis.as_str()), "{}", bound.what);
            let known = crate::variants::ALL.iter().any(|variant| variant.name == bound.variant);
            assert!(known || bound.axis == "memory", "{}: {}", bound.what, bound.variant);
        }
    }

    #[test]
    fn a_bound_is_met_up_to_its_limit_and_not_beyond() {
        let table = [
            ("at-most = 1.2", true),
            ("at-most = 1.19", false),
            ("at-least = 1.2", true),
            ("at-least = 1.21", false),
            ("below = \"bubblewrap\"", true),
            ("below = \"warm\"", false),
        ];
        for (text, expected) in table {
            let verdict = bound(text).judge(&results());
            assert!(
                matches!(verdict, Verdict::Measured { met, .. } if met == expected),
                "{text}: {verdict:?}"
            );
        }
    }

    #[test]
    fn what_was_not_measured_is_never_met_and_says_why() {
        let verdict = bound("below = \"crun\"").judge(&results());
        assert_eq!(verdict, Verdict::NotMeasured("crun: not installed".into()));
        let verdict = bound("at-most = 2.0").judge(&Results::new("latency"));
        assert_eq!(verdict, Verdict::NotMeasured("warm: no such row in the results".into()));
    }
}
