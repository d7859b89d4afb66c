//! What a confined run costs: beside a bare spawn, beside other jails, round by round in one process.
//!
//! Reading order: `rounds` (how everything is compared), `stats` and `results` (what is made of the samples),
//! `axes` (what is measured, one file an axis), `check` (the bounds) with `provenance` (whose results they are). `ground`, `daemon`, `ours`, `others`, `floor`
//! and `role` are what is compared.
//!
//! Nothing here is a test of anything but its own arithmetic: a machine has its moods, so no time is ever asserted.
//! `bench check` says which bounds are met.
#![forbid(unsafe_code)]

mod arguments;
mod axes;
mod bounds;
mod chart;
mod check;
mod csv;
mod daemon;
mod error;
mod floor;
mod ground;
mod others;
mod ours;
mod out;
mod process;
mod progress;
mod provenance;
mod report;
mod results;
mod role;
mod rounds;
mod session;
mod shuffle;
mod spawn;
mod stats;
mod variants;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Options, Subcommand};
use crate::error::{BenchError, chain};
use crate::provenance::{Plan, Provenance};
use crate::results::Results;
use crate::session::Session;

/// The binary: a role of ours, or the command line.
#[must_use]
pub fn main(words: Vec<OsString>) -> ExitCode {
    if let Some((first, rest)) = words.split_first()
        && let Some(ended) = role::run(first, rest)
    {
        return ended;
    }
    let arguments = match Arguments::try_parse_from(std::iter::once(OsString::from("bench")).chain(words)) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match run(&arguments) {
        Ok(ended) => ended,
        Err(error) => {
            out::say(&format!("bench: {}", chain(&error)));
            if let Some(remedy) = error.remedy() {
                out::say(&format!("bench: {remedy}"));
            }
            ExitCode::FAILURE
        }
    }
}

/// `cargo bench`, which adds `--bench` to the words, is `all` unless they name something else. Without that word it is
/// `cargo test` that starts us, which measures nothing.
#[must_use]
pub fn main_of_cargo_bench(words: Vec<OsString>) -> ExitCode {
    if words.first().is_some_and(|word| word.to_string_lossy().starts_with("role-")) {
        return main(words);
    }
    match words_of_cargo_bench(words) {
        Some(words) => main(words),
        None => {
            out::say("measured by `cargo bench -p bench`, never by a test");
            ExitCode::SUCCESS
        }
    }
}

fn words_of_cargo_bench(mut words: Vec<OsString>) -> Option<Vec<OsString>> {
    let before = words.len();
    words.retain(|word| word != "--bench");
    if words.len() == before {
        return None;
    }
    if words.first().is_none_or(|word| word.to_string_lossy().starts_with('-')) {
        words.insert(0, "all".into());
    }
    Some(words)
}

fn run(arguments: &Arguments) -> Result<ExitCode, BenchError> {
    let directory = arguments.options.results.clone().unwrap_or_else(results_directory);
    let measured = match arguments.subcommand {
        Subcommand::List => {
            out::print(&variants::list())?;
            return Ok(ExitCode::SUCCESS);
        }
        Subcommand::Check { strict } => {
            let binary = provenance::binary(arguments.options.stockade.as_deref())?;
            return check::run(&directory, &Provenance::of(&binary), strict);
        }
        axis => axes::of(axis),
    };
    let mut session = Session::new(&arguments.options)?;
    out::say(&axes::announcement(&measured, arguments.options.rounds));
    let mut all = Vec::new();
    for axis in measured {
        let results = (axis.measure)(&mut session)?;
        if !arguments.options.json {
            out::print(&report::text(&results))?;
        }
        keep(&results, &directory, &arguments.options)?;
        all.push(results);
    }
    if arguments.options.json {
        out::print(&report::json(&all)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `bench/results` of the tree this was built from.
fn results_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results")
}

/// Writes `AXIS.csv` and `AXIS.svg` into the directory of our spawn plan. A part never replaces the whole unless asked to.
fn keep(results: &Results, directory: &Path, options: &Options) -> Result<(), BenchError> {
    if !options.only.is_empty() && options.results.is_none() {
        return Ok(());
    }
    let directory = &Plan::ours().directory(directory);
    std::fs::create_dir_all(directory).map_err(BenchError::io(format!("make {}", directory.display())))?;
    let file = |extension: &str| directory.join(format!("{}.{extension}", results.axis));
    ground::write(&file("csv"), &csv::text(results))?;
    chart::write(results, &file("svg"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &[&str]) -> Vec<OsString> {
        text.iter().map(OsString::from).collect()
    }

    #[test]
    fn cargo_bench_is_all_unless_it_names_something() {
        let table: [(&[&str], Option<&[&str]>); 5] = [
            (&["--bench"], Some(&["all"])),
            (&["--rounds", "5", "--bench"], Some(&["all", "--rounds", "5"])),
            (&["latency", "--bench"], Some(&["latency"])),
            (&[], None),
            (&["--nocapture"], None),
        ];
        for (given, expected) in table {
            assert_eq!(words_of_cargo_bench(words(given)), expected.map(words), "{given:?}");
        }
    }

    #[test]
    fn results_are_files_of_the_axis_and_a_part_replaces_no_whole() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("results");
        let mut results = Results::new("latency");
        results.number("true", "bare", "median", 1.0, "us");
        let part = Options { only: vec!["warm".into()], ..Options::default() };
        keep(&results, &directory, &part).unwrap();
        assert!(!directory.exists());
        keep(&results, &directory, &Options::default()).unwrap();
        let read = std::fs::read_to_string(Plan::ours().directory(&directory).join("latency.csv")).unwrap();
        assert!(csv::parse("latency.csv".as_ref(), &read).unwrap().find("true", "bare", "median").is_some());
        assert!(
            std::fs::read_to_string(Plan::ours().directory(&directory).join("latency.svg"))
                .unwrap()
                .starts_with("<svg ")
        );
    }
}
