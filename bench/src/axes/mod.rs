//! What is measured, one file an axis.

mod build;
mod floor;
mod gate;
mod growth;
mod jsonrpc;
mod kill;
mod latency;
mod memory;
mod output;
mod record;
mod row;
mod start;
mod throughput;

use std::time::Duration;

use crate::arguments::Subcommand;
use crate::error::BenchError;
use crate::progress::span;
use crate::results::Results;
use crate::session::Session;

/// One axis.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axis {
    /// Its name, which names its files.
    pub(crate) name: &'static str,
    /// Rounds, unless others are asked for.
    pub(crate) rounds: u32,
    /// What each of them takes, on a quiet machine with two processors and all jails of `install-others`.
    pub(crate) round: Duration,
    /// What it takes besides.
    pub(crate) besides: Duration,
    /// Measures it.
    pub(crate) measure: fn(&mut Session) -> Result<Results, BenchError>,
}

impl Axis {
    fn takes(&self, rounds: Option<u32>) -> Duration {
        self.besides + self.round * rounds.unwrap_or(self.rounds)
    }
}

/// All of them, in the order of measuring. The idle machine first: a start and a kill say most when nothing else ran.
pub(crate) const ALL: [Axis; 13] = [
    floor::AXIS,
    latency::IDLE,
    latency::LOADED,
    throughput::AXIS,
    output::AXIS,
    start::AXIS,
    kill::AXIS,
    build::AXIS,
    memory::AXIS,
    growth::AXIS,
    gate::AXIS,
    record::AXIS,
    jsonrpc::AXIS,
];

/// What a subcommand measures.
pub(crate) fn of(subcommand: Subcommand) -> Vec<Axis> {
    match subcommand {
        Subcommand::All => ALL.into(),
        Subcommand::Latency { load: false } => vec![latency::IDLE],
        Subcommand::Latency { load: true } => vec![latency::LOADED],
        Subcommand::Throughput => vec![throughput::AXIS],
        Subcommand::Output => vec![output::AXIS],
        Subcommand::Memory => vec![memory::AXIS],
        Subcommand::Kill => vec![kill::AXIS],
        Subcommand::Build => vec![build::AXIS],
        Subcommand::Start => vec![start::AXIS],
        Subcommand::Growth => vec![growth::AXIS],
        Subcommand::Gate => vec![gate::AXIS],
        Subcommand::Record => vec![record::AXIS],
        Subcommand::Jsonrpc => vec![jsonrpc::AXIS],
        Subcommand::Floor => vec![floor::AXIS],
        Subcommand::List | Subcommand::Check { .. } => Vec::new(),
    }
}

/// What is going to be measured, and how long that takes.
pub(crate) fn announcement(axes: &[Axis], rounds: Option<u32>) -> String {
    let takes: Duration = axes.iter().map(|axis| axis.takes(rounds)).sum();
    let names: Vec<&str> = axes.iter().map(|axis| axis.name).collect();
    format!("{}: about {} on a quiet machine with two processors", names.join(", "), span(takes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_takes_what_its_rounds_take_and_what_it_takes_besides() {
        let axis =
            Axis { rounds: 4, round: Duration::from_secs(2), besides: Duration::from_secs(1), ..kill::AXIS };
        assert_eq!(axis.takes(None), Duration::from_secs(9));
        assert_eq!(axis.takes(Some(10)), Duration::from_secs(21));
        assert_eq!(announcement(&[axis], None), "kill: about 9 s on a quiet machine with two processors");
    }

    /// Longer than that nobody waits for it: an axis that grows takes it from its own rounds, or from another's.
    #[test]
    fn all_axes_together_take_no_more_than_twelve_minutes() {
        let takes: Duration = ALL.iter().map(|axis| axis.takes(None)).sum();
        assert!(takes <= Duration::from_secs(12 * 60), "{takes:?}");
    }

    #[test]
    fn every_axis_has_a_name_of_its_own_and_is_one_that_can_be_asked_for() {
        let names: std::collections::BTreeSet<&str> = ALL.iter().map(|axis| axis.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert_eq!(of(Subcommand::All).len(), ALL.len());
    }
}
