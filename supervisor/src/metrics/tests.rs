//! The table, and the pages that speak of it: `docs/metrics.md`, the dashboard, the alerts.

use std::collections::BTreeSet;
use std::path::PathBuf;

use prometheus::{TEXT_FORMAT, TextEncoder};
use serde_json::Value;
use stockade_protocol::outcome::Outcome;

use super::figures::{Figures, POLICIES};
use super::table::{Kind, TABLE};
use super::timing::Timing;

fn page(name: &str) -> (PathBuf, String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (path, text)
}

/// What a text names of our metrics, without what a histogram's parts are called by.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("stockade_") || word.starts_with("process_"));
    let is_histogram =
        |name: &str| TABLE.iter().any(|m| m.name == name && matches!(m.kind, Kind::Histogram(_)));
    ours.map(|word| {
        let parts = ["_bucket", "_sum", "_count"].into_iter().filter_map(|part| word.strip_suffix(part));
        parts.into_iter().find(|name| is_histogram(name)).unwrap_or(word).to_owned()
    })
    .collect()
}

fn assert_there(names: &BTreeSet<String>, whose: &str) {
    let strangers: Vec<_> =
        names.iter().filter(|name| !TABLE.iter().any(|metric| metric.name == **name)).collect();
    assert!(strangers.is_empty(), "{whose} names {strangers:?}, which the table doesn't have");
}

#[test]
fn names_stand_once_in_the_table_and_each_is_made() {
    let names: BTreeSet<&str> = TABLE.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), TABLE.len());
    assert!(TABLE.len() > 30);
    Figures::new().unwrap();
}

/// The table of the page, as the table of the code has it. `STOCKADE_BLESS=1` writes it.
#[test]
fn page_has_the_metrics_that_there_are() {
    const BEGIN: &str = "<!-- table: written from supervisor/src/metrics/table.rs -->\n";
    const END: &str = "<!-- end of the table -->\n";
    let mut table = "| name | type | labels | says |\n|---|---|---|---|\n".to_owned();
    for metric in TABLE {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let kind = match metric.kind {
            Kind::Counter | Kind::Total => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let row = format!("| `{}` | {kind} | {} | {} |\n", metric.name, labels.join(", "), metric.help);
        table.push_str(&row.replace("|  |", "| |"));
    }
    let (path, text) = page("metrics.md");
    let (before, rest) = text.split_once(BEGIN).expect("the table's beginning");
    let (there, after) = rest.split_once(END).expect("the table's end");
    if std::env::var_os("STOCKADE_BLESS").is_some() {
        std::fs::write(path, [before, BEGIN, &table, END, after].concat()).unwrap();
    } else {
        assert_eq!(there, table, "docs/metrics.md: STOCKADE_BLESS=1 writes the table anew");
    }
    assert_there(&named(&text), "docs/metrics.md");
}

#[test]
fn every_panel_of_the_dashboard_shows_metrics_that_there_are() {
    let (_, text) = page("grafana/stockade.json");
    let board: Value = serde_json::from_str(&text).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut shown = BTreeSet::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id isn't its own");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title} shows nothing");
        for target in targets {
            let names = named(target["expr"].as_str().unwrap());
            assert!(!names.is_empty(), "{title}: {target} names no metric of ours");
            assert_there(&names, title);
            shown.extend(names);
        }
    }
    assert!(ids.len() >= 12, "only {} panels", ids.len());
    for variable in board["templating"]["list"].as_array().unwrap() {
        assert_there(&named(&variable["query"].to_string()), "a variable");
    }
    assert!(shown.len() >= 20, "only {shown:?}");
}

#[test]
fn every_alert_is_about_metrics_that_there_are_and_says_what_to_do() {
    let (_, text) = page("prometheus/alerts.yaml");
    let alerts: Vec<&str> = text.split("- alert: ").skip(1).collect();
    assert!(alerts.len() >= 8, "only {}", alerts.len());
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        let names = named(alert);
        assert!(!names.is_empty(), "{name} is about no metric of ours");
        assert_there(&names, name);
        for part in ["expr: ", "for: ", "severity: ", "summary: ", "description: "] {
            assert!(alert.contains(part), "{name} has no {part}");
        }
    }
}

#[test]
fn policies_beyond_the_bound_are_counted_together() {
    let mut figures = Figures::new().unwrap();
    let names: Vec<String> = (0..POLICIES + 50).map(|number| format!("policy-{number}")).collect();
    figures.know(names.iter().map(String::as_str));
    for name in &names {
        figures.ended(name, &Timing::default(), &Outcome::Exited { code: 0 }, None);
    }
    let text = TextEncoder::new().encode_to_string(&figures.registry.gather()).unwrap();
    assert!(TEXT_FORMAT.starts_with("text/plain"));
    let series = |policy: &str| format!("stockade_runs_total{{outcome=\"exited\",policy=\"{policy}\"}}");
    assert!(text.contains(&format!("{} 1\n", series("policy-0"))));
    assert!(text.contains(&format!("{} 1\n", series(&format!("policy-{}", POLICIES - 1)))));
    assert!(!text.contains(&series(&format!("policy-{POLICIES}"))));
    assert!(text.contains(&format!("{} 50\n", series("other"))));
    let total: u64 = figures.by_outcome().into_iter().map(|outcome| outcome.count).sum();
    assert_eq!(total, (POLICIES + 50) as u64);
}
