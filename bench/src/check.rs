//! `bench check`: the newest results against the bounds.

use std::path::Path;
use std::process::ExitCode;

use crate::bounds::{self, Bound, Verdict};
use crate::csv::{self, number};
use crate::error::BenchError;
use crate::out;
use crate::report::aligned;

/// Prints every bound with what was measured. The status says nothing of them unless asked to be strict.
pub(crate) fn run(directory: &Path, strict: bool) -> Result<ExitCode, BenchError> {
    let judged = judge(directory, bounds::all()?)?;
    out::print(&table(&judged))?;
    Ok(status(&judged, strict))
}

fn status(judged: &[(Bound, Verdict)], strict: bool) -> ExitCode {
    let all_met = judged.iter().all(|(_, verdict)| matches!(verdict, Verdict::Measured { met: true, .. }));
    if strict && !all_met { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn judge(directory: &Path, bounds: Vec<Bound>) -> Result<Vec<(Bound, Verdict)>, BenchError> {
    let mut judged = Vec::new();
    for bound in bounds {
        let path = directory.join(format!("{}.csv", bound.axis));
        let verdict = match std::fs::read_to_string(&path) {
            Ok(text) => bound.judge(&csv::parse(&path, &text)?),
            Err(error) => Verdict::NotMeasured(format!("{}.csv: {error}", bound.axis)),
        };
        judged.push((bound, verdict));
    }
    Ok(judged)
}

fn table(judged: &[(Bound, Verdict)]) -> String {
    let mut lines = vec![["", "bound", "measured", "limit", "met"].map(str::to_owned).to_vec()];
    let mut reasons = String::new();
    for (bound, verdict) in judged {
        let cells = match verdict {
            Verdict::Measured { value, limit, met } => {
                [number(*value), number(*limit), if *met { "yes" } else { "no" }.to_owned()]
            }
            Verdict::NotMeasured(why) => {
                reasons.push_str(&format!("  not measured: {}: {why}\n", bound.what));
                ["-".to_owned(), "-".to_owned(), "not measured".to_owned()]
            }
        };
        lines.push([bound.what.clone(), bound.sign()].into_iter().chain(cells).collect());
    }
    aligned(&lines) + &reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Results;

    #[test]
    fn every_bound_is_a_line_and_what_is_missing_says_why() {
        let place = tempfile::tempdir().unwrap();
        let mut results = Results::new("start");
        results.number("start", "ready", "median", 31.5, "ms");
        std::fs::write(place.path().join("start.csv"), csv::text(&results)).unwrap();
        let judged = judge(place.path(), bounds::all().unwrap()).unwrap();
        let table = table(&judged);
        let line = table.lines().find(|line| line.contains("daemon's start to ready")).unwrap();
        let cells: Vec<&str> = line.split_whitespace().rev().take(3).collect();
        assert_eq!(cells, ["no", "20.00", "31.50"]);
        assert!(
            table.contains("not measured: warm run of /bin/true over the socket, median: latency.csv:"),
            "{table}"
        );
        assert_eq!(status(&judged, false), ExitCode::SUCCESS);
        assert_eq!(status(&judged, true), ExitCode::FAILURE);
        let met = Verdict::Measured { value: 1.0, limit: 2.0, met: true };
        assert_eq!(status(&[(judged[0].0.clone(), met)], true), ExitCode::SUCCESS);
    }

    #[test]
    fn a_broken_result_file_is_an_error_not_a_missing_number() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("latency.csv"), "nonsense\n").unwrap();
        assert!(judge(place.path(), bounds::all().unwrap()).is_err());
    }
}
