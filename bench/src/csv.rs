//! Result files as RFC 4180 has them, lines ended by a newline alone.

use std::path::Path;

use crate::error::BenchError;
use crate::results::{Results, Row, Value};

/// The first line of every file.
const HEADER: &str = "case,variant,measure,value,unit";

/// The text of a result file.
pub(crate) fn text(results: &Results) -> String {
    let mut text = format!("{HEADER}\n");
    for row in &results.rows {
        let value = match &row.value {
            Value::Number(value) => number(*value),
            Value::Text(words) => words.clone(),
        };
        let fields = [&row.case, &row.variant, &row.measure, &value, &row.unit].map(|field| quoted(field));
        text.push_str(&fields.join(","));
        text.push('\n');
    }
    text
}

/// As many digits as mean something: a benchmark knows four.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 1000.0 => format!("{value:.0}"),
        large if large >= 100.0 => format!("{value:.1}"),
        large if large >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\"").replace(['\n', '\r'], " "))
    } else {
        field.to_owned()
    }
}

/// Reads a result file's text.
///
/// # Errors
/// [`BenchError::Results`] with the line.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Results, BenchError> {
    let wrong = |line: usize, what| BenchError::Results { path: path.into(), line: line + 1, what };
    let axis = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let mut results = Results { axis, rows: Vec::new() };
    let mut lines = text.lines().enumerate();
    if lines.next().is_none_or(|(_, line)| line != HEADER) {
        return Err(wrong(0, "not the header of a result file"));
    }
    for (at, line) in lines {
        let fields = fields(line).ok_or_else(|| wrong(at, "a quote that isn't closed"))?;
        let [case, variant, measure, value, unit] =
            <[String; 5]>::try_from(fields).map_err(|_| wrong(at, "not five fields"))?;
        let words = case == crate::results::ABOUT || measure == crate::results::NOT_MEASURED;
        let value = match value.parse() {
            _ if words => Value::Text(value),
            Ok(number) => Value::Number(number),
            Err(_) => return Err(wrong(at, "not a number")),
        };
        results.rows.push(Row { case, variant, measure, value, unit });
    }
    Ok(results)
}

/// The fields of a line; `None`: a quote is open at its end.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut within = false;
    let mut chars = line.chars().peekable();
    while let Some(next) = chars.next() {
        match next {
            '"' if within && chars.peek() == Some(&'"') => {
                chars.next();
                fields.last_mut()?.push('"');
            }
            '"' => within = !within,
            ',' if !within => fields.push(String::new()),
            other => fields.last_mut()?.push(other),
        }
    }
    (!within).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed() -> Results {
        let mut results = Results::new("latency");
        results.about("seed", "42");
        results.number("true", "bare", "median", 812.25, "us");
        results.number("true", "warm", "ratio", 1.17, "x bare-socket");
        results.not_measured("true", "nsjail", "says \"no\", with\na line");
        results
    }

    #[test]
    fn a_file_has_a_header_and_a_line_a_row() {
        let expected = "case,variant,measure,value,unit\nabout,,seed,42,\ntrue,bare,median,812.2,us\n\
                        true,warm,ratio,1.170,x bare-socket\n\
                        true,nsjail,not measured,\"says \"\"no\"\", with a line\",\n";
        assert_eq!(text(&fixed()), expected);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let read = parse("results/latency.csv".as_ref(), &text(&fixed())).unwrap();
        assert_eq!(read.axis, "latency");
        assert_eq!(read.find("true", "warm", "ratio"), Some(1.17));
        assert_eq!(read.why_not("true", "nsjail"), Some("says \"no\", with a line"));
        assert_eq!(read.rows[0].value, Value::Text("42".into()));
        assert_eq!(text(&read), text(&fixed()));
    }

    #[test]
    fn a_file_that_is_none_is_refused_with_its_line() {
        let table = [
            ("", "x.csv:1: not the header of a result file"),
            ("case,variant,measure,value,unit\na,b,c,1\n", "x.csv:2: not five fields"),
            ("case,variant,measure,value,unit\na,b,c,1,us\na,b,c,much,us\n", "x.csv:3: not a number"),
            ("case,variant,measure,value,unit\na,\"b,c,1,us\n", "x.csv:2: a quote that isn't closed"),
        ];
        for (text, expected) in table {
            assert_eq!(parse("x.csv".as_ref(), text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn numbers_have_four_digits_that_mean_something() {
        let table =
            [(1.169_9, "1.170"), (12.345, "12.35"), (812.26, "812.3"), (123_456.7, "123457"), (0.0, "0.000")];
        for (value, expected) in table {
            assert_eq!(number(value), expected);
        }
    }
}
