//! Adding to rows, within one transaction.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{OptionalExtension as _, Statement, Transaction};

use super::{StoreError, rows};
use crate::cell::Cell;
use crate::tally::own_or_other;
use crate::words::Kind;

/// How many rows there are of a kind, in a span that begins then: span, start, kind.
pub(super) type Known = BTreeMap<(u64, u64, Kind), usize>;

/// A transaction that adds to rows.
pub(super) struct Put<'a> {
    select: Statement<'a>,
    put: Statement<'a>,
    count: Statement<'a>,
    known: &'a mut Known,
    path: &'a Path,
}

impl<'a> Put<'a> {
    pub(super) fn new(
        transaction: &'a Transaction<'_>,
        path: &'a Path,
        known: &'a mut Known,
    ) -> Result<Self, StoreError> {
        let select = format!(
            "select {} from cell where kind = ? and span = ? and name = ? and start = ?",
            *rows::NAMES
        );
        let count = "select count(*) from cell where span = ? and start = ? and kind = ?";
        let made = || {
            let (select, put) = (transaction.prepare(&select)?, transaction.prepare(&rows::PUT)?);
            Ok((select, put, transaction.prepare(count)?))
        };
        let (select, put, count) =
            made().map_err(|source| StoreError::Sqlite { path: path.to_owned(), source })?;
        Ok(Self { select, put, count, known, path })
    }

    /// Adds to the row of a name, or to that of the others if it may have none.
    pub(super) fn add(
        &mut self,
        kind: Kind,
        span: u64,
        name: &str,
        start: u64,
        more: &Cell,
    ) -> Result<(), StoreError> {
        let put = match self.there(kind, span, name, start)? {
            Some(there) => self.put(kind, span, name, start, Some(there), more),
            None => {
                let rows = self.rows(kind, span, start)?;
                let own = own_or_other(rows, kind, name);
                let there = if own == name { None } else { self.there(kind, span, own, start)? };
                if there.is_none() {
                    self.known.insert((span, start, kind), rows + 1);
                }
                self.put(kind, span, own, start, there, more)
            }
        };
        put.map_err(|source| StoreError::Sqlite { path: self.path.to_owned(), source })
    }

    fn there(&mut self, kind: Kind, span: u64, name: &str, start: u64) -> Result<Option<Cell>, StoreError> {
        let found = self.select.query_row(key(kind, span, name, start), |row| rows::cell(row, 0)).optional();
        match found.map_err(|source| StoreError::Sqlite { path: self.path.to_owned(), source })? {
            Some(None) => Err(StoreError::Damaged { path: self.path.to_owned() }),
            Some(there) => Ok(there),
            None => Ok(None),
        }
    }

    fn put(
        &mut self,
        kind: Kind,
        span: u64,
        name: &str,
        start: u64,
        there: Option<Cell>,
        more: &Cell,
    ) -> rusqlite::Result<()> {
        let key = key(kind, span, name, start);
        let put = match there {
            None => self.put.execute(rows::parameters(key, more)),
            Some(mut sum) => {
                sum.merge(more);
                self.put.execute(rows::parameters(key, &sum))
            }
        };
        put.map(drop)
    }

    /// How many names have rows.
    fn rows(&mut self, kind: Kind, span: u64, start: u64) -> Result<usize, StoreError> {
        if let Some(rows) = self.known.get(&(span, start, kind)) {
            return Ok(*rows);
        }
        let key = (rows::number(span), rows::number(start), kind.word());
        let rows = self.count.query_row(key, |row| row.get::<_, u32>(0));
        let rows = rows.map_err(|source| StoreError::Sqlite { path: self.path.to_owned(), source })?;
        Ok(rows as usize)
    }
}

fn key(kind: Kind, span: u64, name: &str, start: u64) -> [Value; 4] {
    let (span, start) = (Value::Integer(rows::number(span)), Value::Integer(rows::number(start)));
    [Value::Text(kind.word().to_owned()), span, Value::Text(name.to_owned()), start]
}
