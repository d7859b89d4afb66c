//! The clock that people set: where it's read at all, nothing is decided by it.

use std::path::Path;

/// Who reads it, and for what.
const READERS: [&str; 12] = [
    // Ids that sort by time: a clock that steps back makes ids that sort earlier, and random all the same.
    "protocol/src/id.rs",
    // What rules of access would say now, asked beforehand: they may speak of the hour of the day. Nothing is let in by the answer.
    "src/access/alone.rs",
    "src/access/check.rs",
    // Records bear the calendar's time: whoever looks for those of the last hour, and whoever says how old the last one is.
    "src/audit.rs",
    "src/audit/verify.rs",
    // Statistics are by the calendar's hours: `--since` is so long before now.
    "src/stats.rs",
    // Hours that are too old are put to their days, and days that are too old dropped: a clock that jumps ahead makes figures old
    // (docs/statistics.md says so), and no run ends or waits by it.
    "stats/src/writer.rs",
    // For rules about the hour of the day, and for what outlives the daemon; intervals of the gate go by the other clock.
    "supervisor/src/gate/mod.rs",
    // A grant's end over a start of the machine, which no other clock outlives. Within one start the other clock decides, too, and what
    // is over by either is: a step back makes none last longer.
    "supervisor/src/grants/clocks.rs",
    // When the process began, for Prometheus.
    "supervisor/src/metrics/figures.rs",
    // To which hour of the statistics something is counted.
    "supervisor/src/statistics/mod.rs",
    // When a span began and ended, for a collector.
    "supervisor/src/traces/span.rs",
];

fn sources(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// Deadlines, limits, retention and pauses go by the monotonic clock, which nobody can step: a run neither ends early nor late
/// when somebody sets the time.
#[test]
fn nothing_is_decided_by_the_clock_that_can_be_set() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for krate in [
        "src",
        "protocol/src",
        "wire/src",
        "policies/src",
        "stats/src",
        "worker/src",
        "supervisor/src",
        "client/src",
    ] {
        sources(&root.join(krate), &mut files);
    }
    assert!(files.len() > 100, "found only {} sources", files.len());
    let reads = |path: &&std::path::PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        ["SystemTime", "ClockId::Realtime", "CLOCK_REALTIME"].iter().any(|word| text.contains(word))
    };
    let mut found: Vec<String> = files
        .iter()
        .filter(reads)
        .map(|path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned())
        .collect();
    found.sort();
    assert_eq!(found, READERS);
    // The gate is told the time, and reads no clock at all.
    let mut gate = Vec::new();
    sources(&root.join("gate/src"), &mut gate);
    assert!(gate.len() > 10, "found only {} sources of the gate", gate.len());
    for path in gate {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("SystemTime::now") && !text.contains("Instant::now"), "{}", path.display());
    }
}
