//! The heart of every comparison: each round runs every variant once, in an order of its own, so that whatever else
//! the machine does hits all alike and a ratio within a round means something.
//!
//! A variant that fails is out from there on: its first error is the reason why it wasn't measured. Nothing that
//! failed is ever a sample.

use crate::error::{BenchError, chain};
use crate::progress::Progress;
use crate::results::{Better, Results, Sampled};
use crate::shuffle::Shuffle;

/// One variant: a name, what its ratios are to, and how to take one sample.
pub(crate) struct Variant<'a> {
    /// Its name.
    pub(crate) name: String,
    /// The variant of the same round that its ratios are to.
    pub(crate) against: Option<&'static str>,
    /// Unmeasured samples before the first round; at least one, which also shows whether it works at all.
    pub(crate) unmeasured: u32,
    /// Takes one sample.
    pub(crate) sample: Box<dyn FnMut() -> Result<f64, BenchError> + 'a>,
}

impl<'a> Variant<'a> {
    /// With one unmeasured sample and without a reference.
    pub(crate) fn new(name: impl Into<String>, sample: impl FnMut() -> Result<f64, BenchError> + 'a) -> Self {
        Self { name: name.into(), against: None, unmeasured: 1, sample: Box::new(sample) }
    }

    /// With ratios to this variant.
    pub(crate) fn against(mut self, name: &'static str) -> Self {
        self.against = Some(name);
        self
    }

    /// With so many unmeasured samples first.
    pub(crate) fn after(mut self, unmeasured: u32) -> Self {
        self.unmeasured = unmeasured;
        self
    }
}

/// The variants of a case, and those that can't even be set up.
#[derive(Default)]
pub(crate) struct Entrants<'a> {
    /// Those that can be tried.
    pub(crate) variants: Vec<Variant<'a>>,
    /// The others, with the reason.
    pub(crate) missing: Vec<(String, String)>,
}

impl<'a> Entrants<'a> {
    /// Adds a variant, or the reason why it's missing.
    pub(crate) fn add(&mut self, name: &str, variant: Result<Variant<'a>, BenchError>) {
        match variant {
            Ok(variant) => self.variants.push(variant),
            Err(error) => self.missing.push((name.to_owned(), chain(&error))),
        }
    }
}

impl<'a> From<Vec<Variant<'a>>> for Entrants<'a> {
    fn from(variants: Vec<Variant<'a>>) -> Self {
        Self { variants, missing: Vec::new() }
    }
}

/// What a case is measured in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// The unit of its samples.
    pub(crate) unit: &'a str,
    /// Which end is bad.
    pub(crate) better: Better,
    /// Rounds.
    pub(crate) rounds: u32,
}

/// Measures a case and writes it into the results. The samples come back for what is worked out of them.
pub(crate) fn interleave<'a>(
    results: &mut Results,
    shuffle: &mut Shuffle,
    case: Case<'_>,
    entrants: impl Into<Entrants<'a>>,
) -> Vec<Sampled> {
    let Entrants { mut variants, missing } = entrants.into();
    let mut taken: Vec<Sampled> = variants
        .iter()
        .map(|variant| Sampled {
            variant: variant.name.clone(),
            against: variant.against.map(str::to_owned),
            samples: Vec::new(),
        })
        .collect();
    let mut progress = Progress::begin(&results.axis, case.name, case.rounds);
    let mut reasons: Vec<Option<String>> =
        variants.iter_mut().map(|variant| try_unmeasured(variant).err().map(|error| chain(&error))).collect();
    progress.warmed_up();
    for round in 0..case.rounds {
        progress.over(round);
        for index in shuffle.order(variants.len()) {
            let sample = match reasons[index] {
                Some(_) => None,
                None => match (variants[index].sample)() {
                    Ok(sample) => Some(sample),
                    Err(error) => {
                        reasons[index] = Some(format!("in round {}: {}", round + 1, chain(&error)));
                        None
                    }
                },
            };
            taken[index].samples.push(sample);
        }
    }
    drop(progress);
    results.samples(case.name, case.unit, case.better, &taken);
    for (variant, reason) in variants.iter().zip(reasons) {
        if let Some(reason) = reason {
            results.not_measured(case.name, &variant.name, reason);
        }
    }
    for (name, reason) in missing {
        results.not_measured(case.name, &name, reason);
    }
    taken
}

fn try_unmeasured(variant: &mut Variant<'_>) -> Result<(), BenchError> {
    (0..variant.unmeasured.max(1)).try_for_each(|_| (variant.sample)().map(drop))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const CASE: Case<'_> = Case { name: "c", unit: "us", better: Better::Less, rounds: 3 };

    #[test]
    fn every_round_runs_every_variant_once() {
        let ran = RefCell::new(Vec::new());
        let variants = ["a", "b", "c"].map(|name| {
            let ran = &ran;
            Variant::new(name, move || {
                ran.borrow_mut().push(name);
                Ok(1.0)
            })
        });
        let taken = interleave(&mut Results::new("x"), &mut Shuffle::new(5), CASE, Vec::from(variants));
        assert!(taken.iter().all(|sampled| sampled.samples == [Some(1.0); 3]));
        let ran = ran.borrow();
        assert_eq!(ran.len(), 3 + 9, "one unmeasured sample each, then three rounds");
        for round in ran[3..].chunks(3) {
            let mut sorted = round.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, ["a", "b", "c"]);
        }
    }

    #[test]
    fn a_variant_that_fails_is_out_with_its_reason_and_the_others_go_on() {
        let mut left = 2;
        let failing = Variant::new("bad", || {
            left -= 1;
            if left < 0 { Err(BenchError::Wrong("broken".into())) } else { Ok(1.0) }
        });
        let mut results = Results::new("x");
        let variants = vec![failing, Variant::new("good", || Ok(2.0)).against("bad")];
        let taken = interleave(&mut results, &mut Shuffle::new(5), CASE, variants);
        assert_eq!(taken[0].samples, [Some(1.0), None, None]);
        assert_eq!(taken[1].samples, [Some(2.0); 3]);
        assert_eq!(results.why_not("c", "bad"), Some("in round 2: broken"));
        assert_eq!(results.find("c", "good", "ratio"), Some(2.0));
    }

    #[test]
    fn a_variant_that_never_works_has_no_samples() {
        let bad = Variant::new("bad", || Err(BenchError::Wrong("not installed".into())));
        let mut results = Results::new("x");
        let taken = interleave(&mut results, &mut Shuffle::new(5), CASE, vec![bad]);
        assert_eq!(taken[0].samples, [None; 3]);
        assert_eq!(results.why_not("c", "bad"), Some("not installed"));
        assert_eq!(results.find("c", "bad", "median"), None);
    }

    #[test]
    fn unmeasured_samples_come_first() {
        let mut count = 0;
        let warm = Variant::new("warm", || {
            count += 1;
            Ok(f64::from(count))
        });
        let taken = interleave(&mut Results::new("x"), &mut Shuffle::new(5), CASE, vec![warm.after(10)]);
        assert_eq!(taken[0].samples, [Some(11.0), Some(12.0), Some(13.0)]);
    }
}
