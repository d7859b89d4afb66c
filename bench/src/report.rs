//! What a person reads: one table a case, a variant a line, its measures as columns; what could not be measured, by
//! name and with the reason; and JSON for programs.

use crate::csv::number;
use crate::error::BenchError;
use crate::results::{ABOUT, NOT_MEASURED, Results, Row, Value};

/// The results as tables.
pub(crate) fn text(results: &Results) -> String {
    let mut text = format!("{}\n", results.axis);
    let about = results.rows.iter().filter(|row| row.case == ABOUT);
    let about: Vec<String> = about.map(|row| format!("{} {}", row.measure, shown(row))).collect();
    text.push_str(&format!("  {}\n", about.join(", ")));
    for case in results.cases() {
        text.push_str(&format!("\n{case}\n"));
        text.push_str(&case_table(results, case));
    }
    text.push('\n');
    text
}

/// The results as one JSON object.
pub(crate) fn json(results: &[Results]) -> Result<String, BenchError> {
    let text = serde_json::to_string_pretty(results);
    text.map(|text| text + "\n").map_err(|error| BenchError::io("write JSON")(error.into()))
}

fn shown(row: &Row) -> String {
    match &row.value {
        Value::Text(words) => words.clone(),
        Value::Number(value) if row.unit.is_empty() => format!("{value}"),
        Value::Number(value) => format!("{} {}", number(*value), row.unit),
    }
}

fn case_table(results: &Results, case: &str) -> String {
    let rows = || results.rows.iter().filter(|row| row.case == case);
    let (mut variants, mut measures): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for row in rows().filter(|row| row.measure != NOT_MEASURED) {
        if !variants.contains(&row.variant.as_str()) {
            variants.push(&row.variant);
        }
        if !measures.contains(&row.measure.as_str()) {
            measures.push(&row.measure);
        }
    }
    let mut table: Vec<Vec<String>> = Vec::new();
    if !variants.is_empty() {
        table.push(["".to_owned()].into_iter().chain(measures.iter().map(ToString::to_string)).collect());
    }
    for variant in variants {
        let cell = |measure: &&str| {
            let found = rows().find(|row| row.variant == variant && row.measure == *measure);
            found.map(shown).unwrap_or_default()
        };
        table.push([variant.to_owned()].into_iter().chain(measures.iter().map(cell)).collect());
    }
    let mut text = aligned(&table);
    for row in rows().filter(|row| row.measure == NOT_MEASURED) {
        text.push_str(&format!("  not measured: {}: {}\n", row.variant, shown(row)));
    }
    text
}

/// Columns under each other: the first to the left, numbers to the right.
pub(crate) fn aligned(table: &[Vec<String>]) -> String {
    let columns = table.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        table.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in table {
        let mut shown = String::from("  ");
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let width = *width;
            match column {
                0 => shown.push_str(&format!("{cell:<width$}")),
                _ => shown.push_str(&format!("  {cell:>width$}")),
            }
        }
        text.push_str(shown.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed() -> Results {
        let mut results = Results::new("latency");
        results.about("seed", "42");
        results.number("true", "bare", "median", 812.25, "us");
        results.number("true", "warm", "median", 950.5, "us");
        results.number("true", "warm", "ratio", 1.17, "x bare");
        results.not_measured("true", "nsjail", "not installed");
        results
    }

    #[test]
    fn a_case_is_a_table_and_what_was_not_measured_is_named() {
        let expected = "latency\n  seed 42\n\ntrue\n          median         ratio\n  bare  812.2 us\n  \
                        warm  950.5 us  1.170 x bare\n  not measured: nsjail: not installed\n\n";
        assert_eq!(text(&fixed()), expected);
    }

    #[test]
    fn json_has_every_row() {
        let value: serde_json::Value = serde_json::from_str(&json(&[fixed()]).unwrap()).unwrap();
        assert_eq!(value[0]["axis"], "latency");
        assert_eq!(value[0]["rows"].as_array().unwrap().len(), 5);
        assert_eq!(value[0]["rows"][3]["value"], 1.17);
        assert_eq!(value[0]["rows"][4]["value"], "not installed");
    }
}
