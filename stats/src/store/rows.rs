//! A cell as a row, and a row as a cell.

use std::fmt::Write as _;
use std::sync::LazyLock;

use rusqlite::types::Value;
use rusqlite::{Row, params_from_iter};

use crate::cell::Cell;
use crate::spread::Spread;
use crate::words::{Ending, Stage};

/// The columns of a cell, in the order of [`values`] and [`cell`].
static COLUMNS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let column = |prefix: &str, word: &str| format!("{prefix}_{}", word.replace('-', "_"));
    let endings = Ending::ALL.iter().map(|ending| column("ended", ending.word()));
    let denials = Stage::ALL.iter().map(|stage| column("denied", stage.word()));
    let spreads = ["wall", "memory"].into_iter();
    let spreads = spreads.flat_map(|of| ["sum", "most", "sketch"].map(|part| format!("{of}_{part}")));
    endings.chain(denials).chain(spreads).collect()
});

/// The columns, with commas between them.
pub(super) static NAMES: LazyLock<String> = LazyLock::new(|| COLUMNS.join(", "));

/// Puts a row in its place, or in the place of the one that is there: its key's four columns, then those of the cell.
pub(super) static PUT: LazyLock<String> = LazyLock::new(|| {
    let mut text = format!("insert into cell (kind, span, name, start, {}) values (?, ?, ?, ?", *NAMES);
    text.extend(COLUMNS.iter().map(|_| ", ?"));
    text.push_str(") on conflict (kind, span, name, start) do update set ");
    for (at, column) in COLUMNS.iter().enumerate() {
        // Writing to a text can't fail.
        let _ = write!(text, "{}{column} = excluded.{column}", if at == 0 { "" } else { ", " });
    }
    text
});

/// What a number is in the file: those of SQLite end at 2^63.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn values(cell: &Cell) -> impl Iterator<Item = Value> {
    let counts = cell.endings.iter().chain(&cell.denials).map(|count| Value::Integer(number(*count)));
    let spreads = [&cell.wall, &cell.memory].into_iter().flat_map(|spread| {
        let (sum, most) = (number(spread.sum()), number(spread.most()));
        [Value::Integer(sum), Value::Integer(most), Value::Blob(spread.to_bytes())]
    });
    counts.chain(spreads)
}

/// All that [`PUT`] takes.
pub(super) fn parameters(key: [Value; 4], cell: &Cell) -> impl rusqlite::Params {
    params_from_iter(key.into_iter().chain(values(cell)).collect::<Vec<_>>())
}

/// The cell of a row whose columns begin at `first`; `None`: it isn't what was written.
pub(super) fn cell(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Cell>> {
    let mut at = first;
    let mut next = || {
        at += 1;
        at - 1
    };
    let count = |at| row.get::<_, i64>(at).map(|count| u64::try_from(count).ok());
    let mut cell = Cell::default();
    for field in cell.endings.iter_mut().chain(&mut cell.denials) {
        let Some(count) = count(next())? else { return Ok(None) };
        *field = count;
    }
    for spread in [&mut cell.wall, &mut cell.memory] {
        let (sum, most) = (count(next())?, count(next())?);
        let bytes = row.get_ref(next())?.as_blob()?;
        let Some(found) = sum.zip(most).and_then(|(sum, most)| Spread::of_parts(sum, most, bytes).ok())
        else {
            return Ok(None);
        };
        *spread = found;
    }
    Ok(Some(cell))
}
