//! What every axis is given: the ground, the options, the seeded order.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::arguments::Options;
use crate::axes::Axis;
use crate::error::BenchError;
use crate::ground::Ground;
use crate::provenance::Provenance;
use crate::results::{Better, Results};
use crate::rounds::{Case, Variant};
use crate::shuffle::Shuffle;
use crate::spawn::Null;
use crate::variants::Only;

/// One start of the benchmark.
#[derive(Debug)]
pub(crate) struct Session {
    /// Where.
    pub(crate) ground: Ground,
    /// `/dev/null`.
    pub(crate) null: Null,
    /// Which variants.
    pub(crate) only: Only,
    rounds: Option<u32>,
    seed: u64,
    provenance: Provenance,
}

impl Session {
    /// From the command line.
    pub(crate) fn new(options: &Options) -> Result<Self, BenchError> {
        raise_descriptor_limit();
        let only = Only::of(&options.only)?;
        let clock =
            || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| u64::from(now.subsec_nanos()));
        let ground = Ground::new(options.stockade.as_deref())?;
        Ok(Self {
            provenance: Provenance::of(&ground.stockade),
            ground,
            null: Null::open()?,
            only,
            rounds: options.rounds,
            seed: options.seed.unwrap_or_else(clock),
        })
    }

    /// Those of these variants that are wanted.
    pub(crate) fn wanted<'a>(&self, mut variants: Vec<Variant<'a>>) -> Vec<Variant<'a>> {
        variants.retain(|variant| self.only.wants(&variant.name));
        variants
    }

    /// How many rounds an axis takes.
    pub(crate) fn rounds(&self, axis: &Axis) -> u32 {
        self.rounds.unwrap_or(axis.rounds)
    }

    /// Fresh results with what must be known to repeat them, and the order of their rounds.
    pub(crate) fn begin(&self, axis: &Axis) -> (Results, Shuffle) {
        let rounds = self.rounds(axis);
        let mut results = Results::new(axis.name);
        results.about("seed", self.seed.to_string());
        results.about("rounds", rounds.to_string());
        self.provenance.write(&mut results);
        crate::out::say(&format!("{}: seed {}, {rounds} rounds", axis.name, self.seed));
        (results, Shuffle::new(self.seed))
    }
}

/// A case of times in microseconds.
pub(crate) fn times(name: &str, rounds: u32) -> Case<'_> {
    Case { name, unit: "us", better: Better::Less, rounds }
}

/// A thousand connections take a thousand descriptors; where that isn't allowed, the axis that needs them says so.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
