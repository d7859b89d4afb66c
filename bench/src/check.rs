//! `bench check`: the newest results of both spawn plans against the bounds.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use crate::bounds::{self, Bound, Verdict};
use crate::csv::{self, number};
use crate::error::BenchError;
use crate::out;
use crate::provenance::{Plan, Provenance};
use crate::report::aligned;
use crate::results::Results;

/// Prints for each plan every bound with what was measured. The status says nothing of them unless asked to be strict.
pub(crate) fn run(directory: &Path, here: &Provenance, strict: bool) -> Result<ExitCode, BenchError> {
    let bounds = bounds::all()?;
    let judge = |plan: Plan| Judged::of(plan, &plan.directory(directory), here, &bounds);
    let judged = Plan::ALL.into_iter().map(judge).collect::<Result<Vec<Judged>, _>>()?;
    for judged in &judged {
        out::print(&judged.text())?;
    }
    Ok(status(&judged, strict))
}

fn status(judged: &[Judged], strict: bool) -> ExitCode {
    if strict && !judged.iter().all(Judged::all_met) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What the results of one plan come to.
struct Judged {
    plan: Plan,
    verdicts: Vec<(Bound, Verdict)>,
    /// Axis, and why its results may not be today's.
    doubts: Vec<(String, String)>,
}

impl Judged {
    fn of(plan: Plan, directory: &Path, here: &Provenance, bounds: &[Bound]) -> Result<Self, BenchError> {
        let mut read: BTreeMap<&str, Result<Results, String>> = BTreeMap::new();
        let mut verdicts = Vec::new();
        for bound in bounds {
            if !read.contains_key(bound.axis.as_str()) {
                read.insert(&bound.axis, results(directory, &bound.axis)?);
            }
            let verdict = match &read[bound.axis.as_str()] {
                Ok(results) => bound.judge(results),
                Err(why) => Verdict::NotMeasured(why.clone()),
            };
            verdicts.push((bound.clone(), verdict));
        }
        let found = read.iter().filter_map(|(axis, results)| Some((axis, results.as_ref().ok()?)));
        let doubts = found.flat_map(|(axis, results)| {
            here.differences(results).into_iter().map(|difference| ((*axis).to_owned(), difference))
        });
        Ok(Self { plan, verdicts, doubts: doubts.collect() })
    }

    fn all_met(&self) -> bool {
        self.verdicts.iter().all(|(_, verdict)| matches!(verdict, Verdict::Measured { met: true, .. }))
    }

    fn count(&self) -> [usize; 3] {
        let count =
            |wanted: fn(&Verdict) -> bool| self.verdicts.iter().filter(|(_, one)| wanted(one)).count();
        [
            count(|verdict| matches!(verdict, Verdict::Measured { met: true, .. })),
            count(|verdict| matches!(verdict, Verdict::Measured { met: false, .. })),
            count(|verdict| matches!(verdict, Verdict::NotMeasured(_))),
        ]
    }

    fn text(&self) -> String {
        let [met, missed, unknown] = self.count();
        let mut text = format!(
            "{}, measured by {}: {met} met, {missed} missed, {unknown} not measured\n",
            self.plan.name(),
            self.plan.who()
        );
        if met + missed == 0 && self.doubts.is_empty() {
            return format!("{text}  `bench all` as {} measures them\n", self.plan.who());
        }
        let mut lines = vec![["", "bound", "measured", "limit", "", ""].map(str::to_owned).to_vec()];
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (bound, verdict) in &self.verdicts {
            lines.push([bound.what.clone(), bound.sign()].into_iter().chain(cells(verdict)).collect());
            if let Verdict::NotMeasured(why) = verdict {
                reasons.entry(why).or_default().push(&bound.what);
            }
        }
        text.push_str(&aligned(&lines));
        for (why, bounds) in reasons {
            text.push_str(&match bounds[..] {
                [only] => format!("  not measured: {only}: {why}\n"),
                _ => format!("  not measured: {} of them: {why}\n", bounds.len()),
            });
        }
        for (axis, doubt) in &self.doubts {
            text.push_str(&format!("  {axis}: {doubt}\n"));
        }
        text + "\n"
    }
}

/// The results of an axis, or why there are none.
fn results(directory: &Path, axis: &str) -> Result<Result<Results, String>, BenchError> {
    let path = directory.join(format!("{axis}.csv"));
    match std::fs::read_to_string(&path) {
        Ok(text) => csv::parse(&path, &text).map(Ok),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Ok(Err(format!("there are no results of `{axis}`; `bench all` measures it")))
        }
        Err(error) => Err(BenchError::io(format!("read {}", path.display()))(error)),
    }
}

/// Value, limit, whether it's met, and how far it's from the limit in per cent of it.
fn cells(verdict: &Verdict) -> [String; 4] {
    match verdict {
        Verdict::Measured { value, limit, met } => {
            let apart = 100.0 * (value - limit).abs() / limit.abs().max(f64::MIN_POSITIVE);
            let far = if *met { format!("{apart:.0} % to spare") } else { format!("by {apart:.0} %") };
            [number(*value), number(*limit), if *met { "met" } else { "missed" }.to_owned(), far]
        }
        Verdict::NotMeasured(_) => ["-", "-", "not measured", ""].map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with a start's results in the system's part, by this machine and binary.
    fn place(here: &Provenance) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        let mut results = Results::new("start");
        here.write(&mut results);
        results.number("start", "ready", "median", 31.5, "ms");
        std::fs::create_dir(place.path().join("system")).unwrap();
        std::fs::write(place.path().join("system/start.csv"), csv::text(&results)).unwrap();
        place
    }

    fn judge(plan: Plan, place: &tempfile::TempDir, here: &Provenance) -> Judged {
        Judged::of(plan, &plan.directory(place.path()), here, &bounds::all().unwrap()).unwrap()
    }

    #[test]
    fn every_bound_is_a_line_with_how_far_and_what_is_missing_says_why() {
        let here = Provenance::of("/bin/true".as_ref());
        let place = place(&here);
        let judged = judge(Plan::System, &place, &here);
        let text = judged.text();
        let line = text.lines().find(|line| line.contains("daemon's start to ready")).unwrap();
        assert!(line.ends_with("31.50  20.00        missed  by 58 %"), "{line:?}");
        let only =
            "not measured: make -j2 of a C project, inside by outside: there are no results of `build`;";
        assert!(text.contains(only), "{text}");
        assert!(text.contains(" of them: there are no results of `latency`;"), "{text}");
        assert_eq!(judged.count(), [0, 1, bounds::all().unwrap().len() - 1]);
        assert!(judged.doubts.is_empty(), "{:?}", judged.doubts);
    }

    #[test]
    fn a_plan_that_nobody_measured_is_there_and_has_nothing() {
        let here = Provenance::of("/bin/true".as_ref());
        let text = judge(Plan::User, &place(&here), &here).text();
        assert!(text.starts_with("user, measured by a user: 0 met, 0 missed, "), "{text}");
        assert!(text.ends_with("`bench all` as a user measures them\n"), "{text}");
    }

    #[test]
    fn results_of_another_binary_are_named_by_their_axis() {
        let place = place(&Provenance::of("/bin/true".as_ref()));
        let judged = judge(Plan::System, &place, &Provenance::of("/bin/sh".as_ref()));
        assert_eq!(judged.doubts.len(), 1);
        assert!(judged.text().contains("  start: measured on "), "{}", judged.text());
    }

    #[test]
    fn only_the_strict_fail_and_only_when_something_is_not_met() {
        let here = Provenance::of("/bin/true".as_ref());
        let place = place(&here);
        let mut judged = judge(Plan::System, &place, &here);
        judged.verdicts.retain(|(bound, _)| bound.axis == "start" && bound.variant == "ready");
        assert_eq!(status(std::slice::from_ref(&judged), false), ExitCode::SUCCESS);
        assert_eq!(status(std::slice::from_ref(&judged), true), ExitCode::FAILURE);
        judged.verdicts[0].1 = Verdict::Measured { value: 1.0, limit: 2.0, met: true };
        assert_eq!(status(std::slice::from_ref(&judged), true), ExitCode::SUCCESS);
        judged.verdicts[0].1 = Verdict::NotMeasured("nobody tried".into());
        assert_eq!(status(&[judged], true), ExitCode::FAILURE);
    }

    #[test]
    fn how_far_is_in_per_cent_of_the_limit() {
        let table = [
            (1.2, 1.2, true, "0 % to spare"),
            (0.9, 1.2, true, "25 % to spare"),
            (2.4, 1.2, false, "by 100 %"),
            (0.45, 0.9, false, "by 50 %"),
        ];
        for (value, limit, met, expected) in table {
            assert_eq!(cells(&Verdict::Measured { value, limit, met })[3], expected);
        }
    }

    #[test]
    fn a_broken_result_file_is_an_error_not_a_missing_number() {
        let here = Provenance::of("/bin/true".as_ref());
        let place = place(&here);
        std::fs::write(place.path().join("system/latency.csv"), "nonsense\n").unwrap();
        assert!(run(place.path(), &here, false).is_err());
    }
}
