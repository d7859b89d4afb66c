//! The rules of Prometheus' own linter (`promtool check metrics`), held over a text where that program isn't there.

use std::collections::BTreeMap;

/// Units that aren't base units, whatever their multiple, and their abbreviations.
const OTHER_UNITS: [&str; 22] = [
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "minutes",
    "hours",
    "days",
    "weeks",
    "kilobytes",
    "megabytes",
    "gigabytes",
    "kibibytes",
    "mebibytes",
    "gibibytes",
    "bits",
    "percent",
    "percentage",
    "celcius",
    "fahrenheit",
    "milliwatts",
    "amps",
    "meter",
    "inches",
];
const ABBREVIATIONS: [&str; 13] = ["s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h"];
const TYPES: [&str; 5] = ["counter", "gauge", "histogram", "summary", "untyped"];

/// What is wrong with a text of metrics.
pub(crate) fn complaints(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut helped: Vec<&str> = Vec::new();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            helped.push(name);
            if help.trim().is_empty() {
                wrong.push(format!("{name}: no help text"));
            }
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            if types.insert(name, kind).is_some() {
                wrong.push(format!("{name}: told twice"));
            }
        } else if !line.is_empty() {
            let (series, value) = line.rsplit_once(' ').unwrap_or((line, ""));
            let name = series.split('{').next().unwrap_or_default();
            *seen.entry(series).or_default() += 1;
            if value.parse::<f64>().is_err() {
                wrong.push(format!("{series}: `{value}` is no value"));
            }
            wrong.extend(of_series(name, series, &types));
        }
    }
    wrong.extend(types.iter().flat_map(|(name, kind)| of_name(name, kind)));
    wrong.extend(types.keys().filter(|name| !helped.contains(*name)).map(|name| format!("{name}: no help")));
    wrong.extend(seen.iter().filter(|(_, times)| **times > 1).map(|(series, _)| format!("{series}: twice")));
    wrong
}

/// The metric that a line belongs to, and its type.
fn family<'a>(name: &'a str, types: &BTreeMap<&str, &'a str>) -> Option<(&'a str, &'a str)> {
    let parts = ["_bucket", "_sum", "_count"].into_iter().filter_map(|part| name.strip_suffix(part));
    let of = |name: &'a str| types.get(name).map(|kind| (name, *kind));
    of(name).or_else(|| parts.filter_map(of).find(|(_, kind)| *kind == "histogram"))
}

fn of_series(name: &str, series: &str, types: &BTreeMap<&str, &str>) -> Vec<String> {
    let mut wrong = Vec::new();
    let Some((_, kind)) = family(name, types) else {
        return vec![format!("{series}: belongs to no metric with a type")];
    };
    let labels = series.split_once('{').map_or("", |(_, labels)| labels);
    for label in labels.split(['{', ',']).filter_map(|pair| pair.split_once('=')).map(|(label, _)| label) {
        if label.chars().any(|c| c.is_ascii_uppercase() || c == ':') {
            wrong.push(format!("{series}: the label {label} isn't snake_case"));
        }
        if (label == "le" && kind != "histogram") || label == "quantile" {
            wrong.push(format!("{series}: the label {label} is reserved"));
        }
    }
    wrong
}

fn of_name(name: &str, kind: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let words: Vec<&str> = name.split('_').collect();
    if (kind == "counter") != name.ends_with("_total") {
        wrong.push("counters end in _total, and nothing else does".to_owned());
    }
    if ["_bucket", "_sum", "_count"].iter().any(|part| name.ends_with(part)) {
        wrong.push("the suffix is a histogram's".to_owned());
    }
    for word in words {
        if OTHER_UNITS.contains(&word) || ABBREVIATIONS.contains(&word) {
            wrong.push(format!("`{word}` is no base unit written out"));
        }
        if TYPES.contains(&word) {
            wrong.push(format!("`{word}` is a type, not a subject"));
        }
    }
    if name.chars().any(|c| c.is_ascii_uppercase() || c == ':') {
        wrong.push("names are snake_case, without colons".to_owned());
    }
    wrong.into_iter().map(|text| format!("{name}: {text}")).collect()
}

#[test]
fn each_rule_finds_what_breaks_it() {
    let good = "# HELP a_total x\n# TYPE a_total counter\na_total{b=\"c\"} 1\n\
                # HELP d_seconds x\n# TYPE d_seconds histogram\nd_seconds_bucket{le=\"1\"} 1\nd_seconds_sum 1\nd_seconds_count 1\n";
    assert_eq!(complaints(good), Vec::<String>::new());
    for (from, to) in [
        ("a_total", "a"),
        ("d_seconds", "d_ms"),
        ("d_seconds", "d_milliseconds"),
        ("d_seconds", "d_seconds_total"),
        ("d_seconds", "dSeconds"),
        ("d_seconds", "d_histogram"),
        ("d_seconds", "d_count"),
        ("# HELP a_total x\n", ""),
        ("# HELP a_total x", "# HELP a_total  "),
        ("# TYPE a_total counter\n", ""),
        ("{b=", "{B="),
        ("{b=", "{le="),
        ("{b=\"c\"} 1", "{b=\"c\"} one"),
        ("a_total{b=\"c\"} 1\n", "a_total{b=\"c\"} 1\na_total{b=\"c\"} 1\n"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(complaints(&bad), Vec::<String>::new(), "{from} -> {to}");
    }
}
