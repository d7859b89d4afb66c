//! Where results come from: which spawn plan was measured, on which kernel, with which binary and when. What of that
//! isn't so here and now is named by `bench check`.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::BenchError;
use crate::results::Results;

/// The words about a measurement that `check` compares.
const KERNEL: &str = "kernel";
const BINARY: &str = "binary";
const MEASURED: &str = "measured";

/// The spawn plan, which is whoever measures: root's, or any user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Root's.
    System,
    /// A user's own.
    User,
}

impl Plan {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::System, Self::User];

    /// The one that this process measures.
    pub(crate) fn ours() -> Self {
        if rustix::process::geteuid().is_root() { Self::System } else { Self::User }
    }

    /// Its name, which is that of its directory of results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
        }
    }

    /// Who measures it.
    pub(crate) fn who(self) -> &'static str {
        match self {
            Self::System => "root",
            Self::User => "a user",
        }
    }

    /// Where its results lie.
    pub(crate) fn directory(self, results: &Path) -> PathBuf {
        results.join(self.name())
    }
}

/// What measured, and what it measured on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Provenance {
    kernel: String,
    /// `None`: there is no binary here to compare with.
    binary: Option<String>,
}

impl Provenance {
    /// Of this machine and this binary.
    pub(crate) fn of(binary: &Path) -> Self {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let binary = std::fs::read(binary).ok().map(|bytes| fingerprint(&bytes));
        Self { kernel: kernel.trim().to_owned(), binary }
    }

    /// Writes it into results that begin.
    pub(crate) fn write(&self, results: &mut Results) {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        results.about(KERNEL, self.kernel.clone());
        results.about("processors", processors.to_string());
        results.about("as", Plan::ours().who());
        results.about(BINARY, self.binary.clone().unwrap_or_default());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        results.about(MEASURED, date(now));
    }

    /// What of results isn't of here: in words, each a reason not to hold them for today's.
    pub(crate) fn differences(&self, results: &Results) -> Vec<String> {
        let said = |what| results.words(what).unwrap_or("nothing");
        let mut differences = Vec::new();
        if said(KERNEL) != self.kernel {
            differences.push(format!("measured on kernel {}, this is {}", said(KERNEL), self.kernel));
        }
        match &self.binary {
            Some(binary) if said(BINARY) != binary => {
                differences.push(format!("measured on {} with another binary than this one", said(MEASURED)));
            }
            Some(_) => {}
            None => differences.push(format!("measured on {}; no binary is here to compare", said(MEASURED))),
        }
        differences
    }
}

/// The binary of a directory of results' reader: named, or beside us.
pub(crate) fn binary(named: Option<&Path>) -> Result<PathBuf, BenchError> {
    match named {
        Some(path) => Ok(path.to_owned()),
        None => Ok(crate::ground::beside_us()?.join("stockade")),
    }
}

/// FNV-1a in 64 bits: tells one build from another, and no more is asked of it.
fn fingerprint(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// `YYYY-MM-DD` of a time since 1970, in UTC. See Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
fn date(since: Duration) -> String {
    let days = since.as_secs() / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on, so that a leap day is the last of its year.
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Provenance {
        Provenance { kernel: "6.18.1".into(), binary: Some("abc".into()) }
    }

    #[test]
    fn results_of_here_have_no_differences() {
        let mut results = Results::new("kill");
        here().write(&mut results);
        assert_eq!(here().differences(&results), [""; 0]);
        assert_eq!(results.words("as"), Some(Plan::ours().who()));
    }

    #[test]
    fn another_kernel_and_another_binary_are_named() {
        let mut results = Results::new("kill");
        here().write(&mut results);
        let other = Provenance { kernel: "6.19.0".into(), binary: Some("def".into()) };
        let differences = other.differences(&results);
        assert_eq!(differences[0], "measured on kernel 6.18.1, this is 6.19.0");
        assert!(differences[1].ends_with("with another binary than this one"), "{differences:?}");
        let nothing = Provenance { binary: None, ..here() };
        assert!(nothing.differences(&results)[0].ends_with("no binary is here to compare"));
        assert_eq!(here().differences(&Results::new("old")).len(), 2, "results that don't say it");
    }

    #[test]
    fn builds_that_differ_in_a_byte_have_other_fingerprints() {
        assert_eq!(fingerprint(b""), "cbf29ce484222325");
        assert_eq!(fingerprint(b"a"), "af63dc4c8601ec8c");
        assert_ne!(fingerprint(b"one build"), fingerprint(b"one built"));
    }

    #[test]
    fn dates_are_the_calendars() {
        let table = [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_798_675_199, "2026-12-30"),
        ];
        for (seconds, expected) in table {
            assert_eq!(date(Duration::from_secs(seconds)), expected);
        }
    }
}
