//! Questions and reports as they cross a socket.

use stockade_protocol::client::Count;
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::statistics::{
    Spread, StatisticsBy, StatisticsQuestion, StatisticsReport, StatisticsRow,
};
use stockade_stats::{Kind, Question, Report, Row};

/// Bytes of the rows of an answer: it's made and encoded on the loop.
const ANSWER_BYTES: usize = 512 * 1024;
/// What a row takes beside its texts: numbers, and lengths of lists.
const ROW_BYTES: usize = 160;
/// A question in our own words.
///
/// # Errors
/// It's none.
pub(crate) fn question_of(question: StatisticsQuestion) -> Result<Question, Denied> {
    let StatisticsQuestion { by, name, since_s: since } = question;
    let kind = by.map(kind_of).transpose()?;
    if kind.is_none() && name.is_some() {
        let denied =
            Denied::new(DenyReason::BadRequest, "a name is of a tool, a policy or a principal: say which");
        return Err(denied.remedy("send `by` beside it"));
    }
    Ok(Question { kinds: kind.into_iter().collect(), name, since })
}

fn kind_of(by: StatisticsBy) -> Result<Kind, Denied> {
    match by {
        StatisticsBy::Tool => Ok(Kind::Tool),
        StatisticsBy::Policy => Ok(Kind::Policy),
        StatisticsBy::Principal => Ok(Kind::Principal),
        _ => Err(Denied::new(DenyReason::BadRequest, "this daemon counts nothing of that kind")),
    }
}

/// A report as it crosses a socket, as much of it as fits: the rows with the most runs, of each kind those with the most first. `now`: in seconds since the
/// epoch.
pub(crate) fn report_of(report: Report, now: u64) -> StatisticsReport {
    let Report { from, mut rows, unwritten } = report;
    rows.sort_by(|a, b| {
        let weight = |row: &Row| (row.cell.runs(), row.cell.denied());
        weight(b).cmp(&weight(a)).then_with(|| (a.kind, &a.name).cmp(&(b.kind, &b.name)))
    });
    let all = rows.len();
    let mut bytes = 0;
    let mut fits = |row: &StatisticsRow| {
        let counts = row.outcomes.iter().chain(&row.denials);
        let counts: usize = counts.map(|count| count.name.len() + 2 * size_of::<u64>()).sum();
        bytes += ROW_BYTES + row.name.len() + counts;
        bytes <= ANSWER_BYTES
    };
    let shown = rows.iter().map(|row| (row.kind, row_of(row)));
    let mut rows: Vec<(Kind, StatisticsRow)> = shown.take_while(|(_, row)| fits(row)).collect();
    // Those of a kind stay in their order.
    rows.sort_by_key(|(kind, _)| *kind);
    let rows: Vec<StatisticsRow> = rows.into_iter().map(|(_, row)| row).collect();
    StatisticsReport { from_s: from, to_s: now, left_out: (all - rows.len()) as u64, rows, unwritten }
}

fn row_of(row: &Row) -> StatisticsRow {
    let count = |(name, count): (&str, u64)| (count > 0).then(|| Count { name: name.to_owned(), count });
    let spread = |of: &stockade_stats::Spread| Spread {
        count: of.count(),
        mean: of.mean(),
        p50: of.percentile(50),
        p99: of.percentile(99),
        max: of.most(),
    };
    let known = |of: &stockade_stats::Spread| (of.count() > 0).then(|| spread(of));
    StatisticsRow {
        by: match row.kind {
            Kind::Tool => StatisticsBy::Tool,
            Kind::Policy => StatisticsBy::Policy,
            Kind::Principal => StatisticsBy::Principal,
        },
        name: row.name.clone(),
        runs: row.cell.runs(),
        outcomes: row.cell.endings().filter_map(|(ending, times)| count((ending.word(), times))).collect(),
        denials: row.cell.denials().filter_map(|(stage, times)| count((stage.word(), times))).collect(),
        wall_us: known(&row.cell.wall),
        memory: known(&row.cell.memory),
        breaker: None,
        limited_ms: None,
    }
}

#[cfg(test)]
mod tests {
    use stockade_protocol::client::ServerMessage;
    use stockade_stats::{Cell, Ending, Stage};

    use super::*;

    #[test]
    fn an_answer_fits_a_frame_and_says_what_it_left_out() {
        let mut cell = Cell::default();
        Ending::ALL.iter().for_each(|ending| cell.end(*ending, Some((1, 2))));
        Stage::ALL.iter().for_each(|stage| cell.deny(*stage));
        let row =
            |number: usize| Row { kind: Kind::Tool, name: format!("{number:0>128}"), cell: cell.clone() };
        let mut rows: Vec<Row> = (0..2_048).map(row).collect();
        // The last of all kinds, and not the least.
        let mut busy = Row { kind: Kind::Principal, name: "7".into(), cell: cell.clone() };
        busy.cell.merge(&cell);
        rows.push(busy);
        let report = report_of(Report { from: None, rows, unwritten: None }, 7);
        assert_eq!(report.left_out + report.rows.len() as u64, 2_049);
        assert_eq!(report.rows.last().unwrap().name, "7");
        assert!(report.left_out > 0 && report.rows.len() > 500, "{}", report.rows.len());
        let mut frame = Vec::new();
        crate::frames::push(&ServerMessage::Statistics(Box::new(report)), &mut frame).unwrap();
        assert!(frame.len() < ANSWER_BYTES * 5 / 4, "{}", frame.len());
    }
}
