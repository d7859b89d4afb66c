//! What is measured, one file an axis.

mod build;
mod growth;
mod kill;
mod latency;
mod memory;
mod output;
mod start;
mod throughput;

use crate::arguments::Subcommand;
use crate::error::BenchError;
use crate::results::Results;
use crate::session::Session;

/// Measures one axis.
pub(crate) type Measure = fn(&mut Session) -> Result<Results, BenchError>;

/// What a subcommand measures, in order. The idle machine first: a start and a kill say most when nothing else ran.
pub(crate) fn of(subcommand: Subcommand) -> Vec<Measure> {
    match subcommand {
        Subcommand::All => vec![
            latency::idle,
            latency::loaded,
            throughput::measure,
            output::measure,
            start::measure,
            kill::measure,
            build::measure,
            memory::measure,
            growth::measure,
        ],
        Subcommand::Latency { load: false } => vec![latency::idle],
        Subcommand::Latency { load: true } => vec![latency::loaded],
        Subcommand::Throughput => vec![throughput::measure],
        Subcommand::Output => vec![output::measure],
        Subcommand::Memory => vec![memory::measure],
        Subcommand::Kill => vec![kill::measure],
        Subcommand::Build => vec![build::measure],
        Subcommand::Start => vec![start::measure],
        Subcommand::Growth => vec![growth::measure],
        Subcommand::List | Subcommand::Check { .. } => Vec::new(),
    }
}
