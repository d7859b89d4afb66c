//! The command line.

use std::path::PathBuf;

use clap::Parser;

const EXAMPLES: &str = "Examples:
  cargo run --release -p bench -- all                     every axis; tables here, CSV and SVG in bench/results
  cargo run --release -p bench -- latency --rounds 1000   one axis
  cargo run --release -p bench -- latency --load          the same with every processor kept busy
  cargo run --release -p bench -- latency --only warm,cli,bubblewrap
  cargo run --release -p bench -- throughput --json | jq
  cargo run --release -p bench -- check                   the newest results against the bounds
  cargo bench -p bench                                    the same as `all`

Ratios are to the bare spawn of the same round. Results of a part (--only) are printed, and written only where
--results says. As root it measures the system's spawn plan, as anybody else the user's: results lie in the directory
`system` or `user` of bench/results, and `check` reads both.";

/// Measures what a confined run costs.
#[derive(Debug, Parser)]
#[command(name = "bench", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) subcommand: Subcommand,
    #[command(flatten)]
    pub(crate) options: Options,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Subcommand)]
pub(crate) enum Subcommand {
    /// Every axis, latency also under load
    All,
    /// From a request to its end: `/bin/true` and `python3 -c pass`
    Latency {
        /// Keep every processor busy with something else
        #[arg(long)]
        load: bool,
    },
    /// Runs a second at 1, 2, 8 and 64 in flight; fairness between two clients
    Throughput,
    /// Bytes a second of output, relayed and passed, beside a plain pipe
    Output,
    /// Memory of the daemon's processes: idle, and with many runs
    Memory,
    /// From a deadline to the end of the last process of fifty
    Kill,
    /// `make -j2` of a C project, inside beside outside
    Build,
    /// The daemon's start
    Start,
    /// What ten thousand policies and a thousand connections cost
    Growth,
    /// What the layers cost at the least, asked of the kernel without a daemon
    Floor,
    /// The gate: redacting output, refusing too many requests
    Gate,
    /// The record: durable events a second, and records that are verified
    Record,
    /// What JSON-RPC adds to a run
    Jsonrpc,
    /// The variants' names
    List,
    /// The results against the bounds
    Check {
        /// Exit with 1 unless every bound was measured and is met
        #[arg(long)]
        strict: bool,
    },
}

/// What every axis heeds.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct Options {
    /// Rounds [default: each axis its own]
    #[arg(long, global = true, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rounds: Option<u32>,
    /// These variants, and what their ratios are to
    #[arg(long, global = true, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// JSON on standard output in place of tables
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Seed of the order within rounds [default: another each time; it is printed]
    #[arg(long, global = true, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// The binary under test [default: built like this one]; with `check` the one that results should be of
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) stockade: Option<PathBuf>,
    /// Where results are written, in `system` or `user`, and read by `check` [default: bench/results]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) results: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(words: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(std::iter::once(&"bench").chain(words))
    }

    #[test]
    fn the_command_line_is_consistent_and_its_help_has_examples() {
        Arguments::command().debug_assert();
        let help = Arguments::command().render_long_help().to_string();
        assert!(help.contains("Examples:") && help.contains("-- check"), "{help}");
        for subcommand in Arguments::command().get_subcommands() {
            assert!(subcommand.get_about().is_some(), "{} has no sentence", subcommand.get_name());
        }
    }

    #[test]
    fn options_stand_before_or_after_the_axis() {
        for words in [["--rounds", "7", "kill"], ["kill", "--rounds", "7"]] {
            let arguments = parse(&words).unwrap();
            assert_eq!(arguments.subcommand, Subcommand::Kill);
            assert_eq!(arguments.options.rounds, Some(7));
        }
    }

    #[test]
    fn names_are_separated_by_commas() {
        let arguments = parse(&["latency", "--load", "--only", "warm,cli", "--json", "--seed", "3"]).unwrap();
        assert_eq!(arguments.subcommand, Subcommand::Latency { load: true });
        assert_eq!(arguments.options.only, ["warm", "cli"]);
        assert!(arguments.options.json);
        assert_eq!(arguments.options.seed, Some(3));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let table: [&[&str]; 5] =
            [&[], &["speed"], &["kill", "--rounds", "0"], &["kill", "--load"], &["all", "--strict"]];
        for words in table {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
