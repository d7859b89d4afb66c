//! The tables, and how older ones become them.

use rusqlite::{Connection, Transaction};

/// The version that this stockade writes: how many steps there are.
#[allow(clippy::cast_possible_truncation, reason = "steps are written by hand")]
pub(super) const VERSION: u32 = STEPS.len() as u32;

/// From each version to the next; the first from an empty file. A released step never changes: a column more is a step more.
///
/// `span` is the seconds that a row stands for, `start` the first of them since the epoch; times are microseconds, memory is bytes,
/// a sketch is a digest and a DDSketch. Names of columns are the words of `words.rs`.
pub(super) const STEPS: &[&str] = &["
    create table cell (
        kind text not null,
        span integer not null,
        name text not null,
        start integer not null,
        ended_ok integer not null,
        ended_failed integer not null,
        ended_timed_out integer not null,
        ended_memory integer not null,
        ended_output integer not null,
        ended_processes integer not null,
        ended_cancelled integer not null,
        ended_lost integer not null,
        ended_never_began integer not null,
        denied_access integer not null,
        denied_rate integer not null,
        denied_breaker integer not null,
        denied_validate integer not null,
        denied_approve integer not null,
        denied_record integer not null,
        denied_admission integer not null,
        denied_queue integer not null,
        denied_other integer not null,
        wall_sum integer not null,
        wall_most integer not null,
        wall_sketch blob not null,
        memory_sum integer not null,
        memory_most integer not null,
        memory_sketch blob not null
    ) strict;
    create unique index cell_of_name on cell (kind, span, name, start);
    create index cell_of_time on cell (span, start);
    create table counted (run blob primary key) strict, without rowid;
"];

/// The file's version; 0: it's empty.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("pragma user_version", [], |row| row.get(0))
}

/// Brings a file of an older version to the last of these steps.
pub(super) fn migrate(transaction: &Transaction<'_>, steps: &[&str]) -> rusqlite::Result<()> {
    let version = version(transaction)?;
    for (to, step) in (1_u32..).zip(steps).filter(|(to, _)| *to > version) {
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", to)?;
    }
    Ok(())
}
