//! The table, and the pages that speak of it: `docs/metrics.md`, the dashboard, the alerts.

use std::collections::BTreeSet;
use std::path::PathBuf;

use prometheus::{TEXT_FORMAT, TextEncoder};
use serde_json::Value;
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::outcome::Outcome;

use super::figures::{Figures, POLICIES};
use super::gated::TOOLS;
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

/// What Grafana would refuse or draw wrong, as far as its file's form says: places, names of queries, the data source; and what
/// Prometheus would answer with nothing: labels that a metric doesn't have.
#[test]
fn every_panel_has_a_place_of_its_own_and_asks_for_labels_that_there_are() {
    let board: Value = serde_json::from_str(&page("grafana/stockade.json").1).unwrap();
    assert!(board["schemaVersion"].as_u64().unwrap() >= 36 && board["uid"] == "stockade");
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in board["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id isn't its own");
        let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(side("w") > 0 && side("h") > 0 && side("x") + side("w") <= 24, "{title}: beyond the edge");
        for (x, y) in (side("x")..side("x") + side("w"))
            .flat_map(|x| (side("y")..side("y") + side("h")).map(move |y| (x, y)))
        {
            assert!(taken.insert((x, y)), "{title}: over another panel");
        }
        let kind = panel["type"].as_str().unwrap();
        assert!(["row", "stat", "timeseries", "table"].contains(&kind), "{title}: {kind}");
        let mut references = BTreeSet::new();
        for target in panel["targets"].as_array().unwrap_or(&Vec::new()) {
            assert!(references.insert(target["refId"].as_str().unwrap()), "{title}: two queries of one name");
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            assert_labels(title, target["expr"].as_str().unwrap());
        }
    }
}

/// Labels of series, and of what they are summed by: the target's, a histogram's, or those of a metric that is named.
fn assert_labels(title: &str, query: &str) {
    let known: BTreeSet<&str> = TABLE
        .iter()
        .filter(|metric| named(query).contains(metric.name))
        .flat_map(|metric| metric.labels)
        .copied()
        .chain(["instance", "le"])
        .collect();
    let selected = query
        .split('{')
        .skip(1)
        .filter_map(|part| part.split_once('}'))
        .flat_map(|(labels, _)| labels.split(','));
    let selected = selected.map(|pair| pair.split(['=', '!']).next().unwrap_or_default());
    let grouped = query
        .split("by (")
        .skip(1)
        .filter_map(|part| part.split_once(')'))
        .flat_map(|(labels, _)| labels.split(','));
    for label in selected.chain(grouped).map(str::trim) {
        assert!(known.contains(label), "{title}: `{label}` in {query}");
    }
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

#[test]
fn tools_beyond_the_bound_and_those_that_arent_loaded_are_counted_together_and_without_a_name() {
    let mut figures = Figures::new().unwrap();
    let names: Vec<String> = (0..TOOLS + 50).map(|number| format!("tool-{number}")).collect();
    figures.gated.know(names.iter().map(String::as_str));
    let exited = Outcome::Exited { code: 0 };
    for name in &names {
        figures.gated.called(Some(name), &exited);
    }
    figures.gated.called(None, &exited);
    let text = TextEncoder::new().encode_to_string(&figures.registry.gather()).unwrap();
    let series = |tool: &str| format!("stockade_tool_calls_total{{outcome=\"exited\",tool=\"{tool}\"}}");
    assert!(text.contains(&format!("{} 1\n", series("tool-0"))));
    assert!(text.contains(&format!("{} 1\n", series(&format!("tool-{}", TOOLS - 1)))));
    assert!(!text.contains(&series(&format!("tool-{TOOLS}"))));
    assert!(text.contains(&format!("{} 51\n", series(""))));
}

#[test]
fn a_refusal_counts_by_the_stage_that_decided_and_makes_no_series_of_a_stages_own_words() {
    let figures = Figures::new().unwrap();
    let often = || Denied::new(DenyReason::RateLimited, "too often");
    let by = |stage: &str, rule: &str| often().decided_by(stage, rule);
    for denied in [by("rate", "limits.toml:3"), by("x\"y", "z"), often(), by("admission", "policies")] {
        figures.denied(&denied);
    }
    let text = TextEncoder::new().encode_to_string(&figures.registry.gather()).unwrap();
    for line in [
        "stockade_denials_total{reason=\"rate-limited\"} 4\n",
        "stockade_gate_refusals_total{reason=\"rate-limited\",stage=\"rate\"} 1\n",
        "stockade_gate_refusals_total{reason=\"rate-limited\",stage=\"other\"} 1\n",
        "stockade_gate_refusals_total{reason=\"breaker-open\",stage=\"breaker\"} 0\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("x\"y") && !text.contains("limits.toml") && !text.contains("admission"));
}
