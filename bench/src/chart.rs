//! One SVG an axis: a panel a case, a bar a variant, the tail as a line that goes on from the bar. Where ratios were
//! taken, the bars are ratios, with a line at 1.
//!
//! The text is placed by estimate (no font is read), so the same numbers give the same bytes on every machine.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::{
    BLACK, Color, DrawingArea, DrawingBackend, IntoDrawingArea, IntoFont, PathElement, RGBColor, Rectangle,
    SVGBackend, Text, TextStyle, WHITE,
};

use crate::csv::number;
use crate::error::BenchError;
use crate::results::{Results, Row, Value};

const WIDTH: u32 = 960;
const TITLE: u32 = 40;
const PANEL_HEAD: i32 = 30;
const BAR: i32 = 22;
/// Where bars begin, and where the longest ends.
const LEFT: i32 = 230;
const RIGHT: i32 = 690;
const FONT: &str = "sans-serif";
const BARS: RGBColor = RGBColor(61, 119, 176);
const REFERENCE: RGBColor = RGBColor(140, 140, 140);
const LINE: RGBColor = RGBColor(190, 60, 50);

/// What is drawn of one case.
#[derive(Debug, PartialEq)]
struct Panel {
    title: String,
    bars: Vec<Bar>,
    is_ratio: bool,
}

/// One variant of it.
#[derive(Debug, PartialEq)]
struct Bar {
    name: String,
    value: f64,
    tail: Option<f64>,
    /// The value as text.
    shown: String,
}

/// Draws the results; nothing is written where there is no number.
pub(crate) fn write(results: &Results, path: &Path) -> Result<(), BenchError> {
    let drawing = draw(results).map_err(|what| BenchError::Chart { path: path.into(), what })?;
    match drawing {
        Some(svg) => std::fs::write(path, svg).map_err(BenchError::io(format!("write {}", path.display()))),
        None => Ok(()),
    }
}

/// The drawing; `None`: there is nothing to draw.
fn draw(results: &Results) -> Result<Option<String>, String> {
    let panels: Vec<Panel> = results.cases().into_iter().filter_map(|case| panel(results, case)).collect();
    if panels.is_empty() {
        return Ok(None);
    }
    let height: i32 = panels.iter().map(height_of).sum();
    let mut svg = String::new();
    {
        let size = (WIDTH, TITLE + u32::try_from(height).unwrap_or(0) + 10);
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        paint(&area, &results.axis, &panels).map_err(|error| error.to_string())?;
        area.present().map_err(|error| error.to_string())?;
    }
    Ok(Some(svg + "\n"))
}

fn height_of(panel: &Panel) -> i32 {
    PANEL_HEAD + BAR * i32::try_from(panel.bars.len()).unwrap_or(0) + 12
}

/// Ratios where the case has any, else medians, else everything in the unit that most numbers have: sizes, not counts.
fn panel(results: &Results, case: &str) -> Option<Panel> {
    let rows = || results.rows.iter().filter(|row| row.case == case && matches!(row.value, Value::Number(_)));
    let measure = ["ratio", "median"].into_iter().find(|measure| rows().any(|row| row.measure == *measure));
    let drawn: Vec<&Row> = match measure {
        Some(measure) => rows().filter(|row| row.measure == measure).collect(),
        None => {
            let unit = most_common_unit(rows())?;
            rows().filter(|row| row.unit == unit).collect()
        }
    };
    let what = measure.or_else(|| drawn.first().map(|row| row.unit.as_str()))?;
    let is_ratio = measure == Some("ratio");
    let bars = drawn.iter().filter_map(|row| {
        let value = results.find(case, &row.variant, &row.measure)?;
        let tail = results.find(case, &row.variant, "p99").and_then(|end| {
            // On the scale of a ratio: as far above the bar as p99 is above the median.
            let scale = if is_ratio { value / results.find(case, &row.variant, "median")? } else { 1.0 };
            Some(end * scale)
        });
        let shown = format!("{} {}", number(value), row.unit);
        Some(Bar { name: row.variant.clone(), value, tail, shown })
    });
    Some(Panel { title: format!("{case}: {what}"), bars: bars.collect(), is_ratio })
}

/// Of units that as many numbers have, the first.
fn most_common_unit<'a>(rows: impl Iterator<Item = &'a Row>) -> Option<&'a str> {
    let units: Vec<&str> = rows.map(|row| row.unit.as_str()).filter(|unit| !unit.is_empty()).collect();
    let count = |wanted: &str| units.iter().filter(|unit| **unit == wanted).count();
    units.iter().rev().copied().max_by_key(|unit| count(unit))
}

fn paint<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    axis: &str,
    panels: &[Panel],
) -> Result<(), plotters::drawing::DrawingAreaErrorKind<B::ErrorType>> {
    area.fill(&WHITE)?;
    area.draw(&Text::new(axis.to_owned(), (16, 12), (FONT, 20).into_font()))?;
    let mut top = i32::try_from(TITLE).unwrap_or(0);
    for panel in panels {
        paint_panel(area, panel, top)?;
        top += height_of(panel);
    }
    Ok(())
}

fn paint_panel<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    panel: &Panel,
    top: i32,
) -> Result<(), plotters::drawing::DrawingAreaErrorKind<B::ErrorType>> {
    let small: TextStyle<'_> = (FONT, 13).into_font().color(&BLACK);
    area.draw(&Text::new(panel.title.clone(), (16, top + 6), (FONT, 15).into_font()))?;
    // A tail may be far out: the bars decide the scale, and a tail that leaves it ends at its edge.
    let longest = panel.bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let x = |value: f64| LEFT + pixels(value, longest);
    let mut y = top + PANEL_HEAD;
    for Bar { name, value, tail, shown } in &panel.bars {
        area.draw(&Text::new(name.clone(), (24, y + 4), small.clone()))?;
        let fill = if name.starts_with("bare") { REFERENCE } else { BARS };
        area.draw(&Rectangle::new([(LEFT, y + 3), (x(*value), y + BAR - 4)], fill.filled()))?;
        let mut end = x(*value);
        if let Some(tail) = tail {
            let middle = y + BAR / 2;
            area.draw(&PathElement::new([(end, middle), (x(*tail).max(end), middle)], fill.stroke_width(2)))?;
            end = end.max(x(*tail));
        }
        area.draw(&Text::new(shown.clone(), (end + 6, y + 4), small.clone()))?;
        y += BAR;
    }
    if panel.is_ratio {
        area.draw(&PathElement::new([(x(1.0), top + PANEL_HEAD), (x(1.0), y)], LINE.stroke_width(1)))?;
    }
    Ok(())
}

/// How long a bar is. A ratio's line at 1 fits too; a tail ends a little beyond the longest bar.
#[allow(clippy::cast_possible_truncation, reason = "bounded by the width of the drawing")]
fn pixels(value: f64, longest: f64) -> i32 {
    let full = f64::from(RIGHT - LEFT);
    if longest <= 0.0 { 0 } else { (value / longest * full).clamp(0.0, full * 1.1) as i32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed() -> Results {
        let mut results = Results::new("latency");
        for (variant, median, p99, ratio) in
            [("bare", 800.0, 1600.0, None), ("warm", 960.0, 1920.0, Some(1.2))]
        {
            results.number("true", variant, "median", median, "us");
            results.number("true", variant, "p99", p99, "us");
            if let Some(ratio) = ratio {
                results.number("true", variant, "ratio", ratio, "x bare");
            }
        }
        results.number("8 in flight", "bare", "median", 2500.0, "runs/s");
        results.not_measured("true", "crun", "not installed");
        results
    }

    #[test]
    fn a_case_with_ratios_is_drawn_as_ratios_and_the_tail_on_their_scale() {
        let drawn = panel(&fixed(), "true").unwrap();
        assert!(drawn.is_ratio);
        assert_eq!(
            drawn.bars,
            [Bar { name: "warm".into(), value: 1.2, tail: Some(2.4), shown: "1.200 x bare".into() }]
        );
    }

    #[test]
    fn a_case_without_ratios_is_drawn_in_its_unit() {
        let drawn = panel(&fixed(), "8 in flight").unwrap();
        assert_eq!((drawn.bars[0].shown.as_str(), drawn.is_ratio), ("2500 runs/s", false));
    }

    #[test]
    fn without_medians_what_is_in_the_unit_of_most_numbers_is_drawn_and_counts_are_not() {
        let mut results = Results::new("memory");
        results.number("idle", "all", "started within", 3.0, "ms");
        for (variant, kib) in [("supervisor", 3000.0), ("relay", 900.0)] {
            results.number("idle", variant, "processes", 1.0, "");
            results.number("idle", variant, "pss", kib, "KiB");
        }
        results.number("idle", "kernel, a worker", "grown", 150.0, "KiB");
        let drawn = panel(&results, "idle").unwrap();
        assert_eq!(drawn.title, "idle: KiB");
        let names: Vec<&str> = drawn.bars.iter().map(|bar| bar.name.as_str()).collect();
        assert_eq!(names, ["supervisor", "relay", "kernel, a worker"]);
    }

    #[test]
    fn the_drawing_is_svg_with_every_name_and_number_and_the_same_each_time() {
        let svg = draw(&fixed()).unwrap().unwrap();
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
        for word in ["latency", "true: ratio", "warm", "1.200", "8 in flight: median", "2500"] {
            assert!(svg.contains(word), "no {word:?} in {svg}");
        }
        assert!(!svg.contains("crun"), "what has no number has no bar");
        assert_eq!(draw(&fixed()).unwrap().unwrap(), svg);
    }

    #[test]
    fn nothing_is_drawn_where_there_is_no_number() {
        let mut results = Results::new("kill");
        results.about("seed", "1");
        results.not_measured("tree", "ours", "no daemon");
        assert_eq!(draw(&results).unwrap(), None);
    }

    #[test]
    fn bars_stay_within_the_drawing() {
        let table = [(0.0, 10.0, 0), (10.0, 10.0, RIGHT - LEFT), (5.0, 0.0, 0), (-1.0, 10.0, 0)];
        for (value, longest, expected) in table {
            assert_eq!(pixels(value, longest), expected);
        }
        assert!(LEFT + pixels(1e9, 1.0) < 760);
    }
}
