//! Opening, writing, and what becomes too old.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use rustix::fs::OFlags;

use super::put::{Known, Put};
use super::schema::{self, STEPS};
use super::{FILE, StoreError, read, rows};
use crate::report::{Question, Sum};
use crate::tally::{DAY, HOUR, RunId, Tally};
use crate::words::Kind;

/// The most pages of the file, of 4 KiB: 256 MiB. Rows of a thousand tools and a thousand principals take some 2 MiB an hour.
const MOST_PAGES: u32 = 64 * 1024;
/// What stays of the log beside the file once it's written to that, in bytes.
const LOG_BYTES: u32 = 4 * 1024 * 1024;
/// Memory for pages, in KiB.
const CACHE_KIB: i32 = 2 * 1024;
/// Hours that are put to their days between two writes: whoever waits for an answer waits for them.
const HOURS_A_TURN: usize = 24;
/// How long another is waited for who has the file: whoever reads it, or a daemon that is just ending. A daemon that starts waits so
/// long at most.
const BUSY: Duration = Duration::from_secs(2);
/// Tables of an hour or a day whose rows are known to be so many.
const MOST_KNOWN: usize = 256;

/// Where the file is, and how long what stays in it.
#[derive(Debug, Clone)]
pub struct Settings {
    directory: PathBuf,
    keep_hours: u64,
    keep_days: u64,
    pub(crate) most_pages: u32,
}

impl Settings {
    /// In this directory; hours stay so many hours, and then days so many days.
    #[must_use]
    pub fn new(directory: &Path, keep_hours: u32, keep_days: u32) -> Self {
        let (keep_hours, keep_days) = (keep_hours.into(), keep_days.into());
        Self { directory: directory.to_owned(), keep_hours, keep_days, most_pages: MOST_PAGES }
    }

    /// The directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

/// The file, open to be written.
#[derive(Debug)]
pub(crate) struct Store {
    connection: Connection,
    settings: Settings,
    path: PathBuf,
    /// How many rows a kind has in a span that begins then.
    known: Known,
    /// The hour in which nothing was too old any more.
    tended: u64,
}

impl Store {
    /// Opens it, or makes it.
    ///
    /// # Errors
    /// It can't be used.
    pub(crate) fn open(settings: &Settings) -> Result<Self, StoreError> {
        Self::open_with(settings, STEPS)
    }

    pub(super) fn open_with(settings: &Settings, steps: &[&str]) -> Result<Self, StoreError> {
        let path = settings.directory.join(FILE);
        make(&path).map_err(|source| StoreError::Io { path: path.clone(), source })?;
        let wrong = |source| StoreError::Sqlite { path: path.clone(), source };
        let open = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&path, flags)?;
            connection.busy_timeout(BUSY)?;
            connection.pragma_update(None, "locking_mode", "exclusive")?;
            let version = schema::version(&connection)?;
            Ok((connection, version))
        };
        let (mut connection, version) = open().map_err(wrong)?;
        if version as usize > steps.len() {
            return Err(StoreError::Newer { path, version });
        }
        prepare(&mut connection, settings.most_pages, steps).map_err(wrong)?;
        let settings = settings.clone();
        Ok(Self { connection, settings, path, known: Known::new(), tended: 0 })
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    fn wrong(&self) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
        let path = self.path.clone();
        move |source| StoreError::Sqlite { path: path.clone(), source }
    }

    fn within(&self) -> Result<Transaction<'_>, StoreError> {
        // Nothing else uses the connection: it's borrowed for as long as the transaction lives.
        Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate).map_err(self.wrong())
    }

    /// The runs that were counted and may be told of again.
    pub(crate) fn counted(&self) -> Result<BTreeSet<RunId>, StoreError> {
        let read = || {
            let mut statement = self.connection.prepare("select run from counted")?;
            let ids = statement.query_map([], |row| row.get::<_, RunId>(0))?;
            ids.collect::<Result<_, _>>()
        };
        read().map_err(self.wrong())
    }

    /// Writes what was counted: all of it, or nothing.
    pub(crate) fn write(&mut self, tally: &Tally) -> Result<(), StoreError> {
        let mut known = core::mem::take(&mut self.known);
        let transaction = self.within()?;
        let mut put = Put::new(&transaction, &self.path, &mut known)?;
        for (start, kind, name, cell) in tally.rows() {
            put.add(kind, HOUR, name, start, cell)?;
        }
        drop(put);
        let remember = || {
            let mut add = transaction.prepare("insert or ignore into counted (run) values (?)")?;
            let runs = tally.counted.iter().chain(&tally.remembered);
            runs.into_iter().try_for_each(|run| add.execute([run]).map(drop))?;
            let mut remove = transaction.prepare("delete from counted where run = ?")?;
            tally.forgotten.iter().try_for_each(|run| remove.execute([run]).map(drop))
        };
        remember().map_err(self.wrong())?;
        transaction.commit().map_err(self.wrong())?;
        if known.len() <= MOST_KNOWN {
            self.known = known;
        }
        Ok(())
    }

    /// Puts hours that are too old to their days, and drops days that are: once an hour, unless there is more than a turn's work.
    pub(crate) fn tend(&mut self, now: u64) -> Result<(), StoreError> {
        let hour = now - now % HOUR;
        if self.tended == hour {
            return Ok(());
        }
        let oldest = hour.saturating_sub(self.settings.keep_hours.saturating_mul(HOUR));
        let next = "select min(start) from cell where span = ? and start < ?";
        for _ in 0..HOURS_A_TURN {
            let bound = [rows::number(HOUR), rows::number(oldest)];
            let start: Option<i64> =
                self.connection.query_row(next, bound, |row| row.get(0)).map_err(self.wrong())?;
            let Some(start) = start else {
                self.tended = hour;
                break;
            };
            self.roll(u64::try_from(start).unwrap_or(0))?;
        }
        let oldest = (now - now % DAY).saturating_sub(self.settings.keep_days.saturating_mul(DAY));
        let bound = [rows::number(DAY), rows::number(oldest)];
        let dropped = self.connection.execute("delete from cell where span = ? and start < ?", bound);
        dropped.map(drop).map_err(self.wrong())
    }

    /// Puts one hour to its day.
    fn roll(&self, start: u64) -> Result<(), StoreError> {
        let transaction = self.within()?;
        let select = format!("select kind, name, {} from cell where span = ? and start = ?", *rows::NAMES);
        let key = [rows::number(HOUR), rows::number(start)];
        let read = || {
            let mut statement = transaction.prepare(&select)?;
            let found = statement.query_map(key, |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, rows::cell(row, 2)?))
            })?;
            found.collect::<Result<Vec<_>, _>>()
        };
        let hour = read().map_err(self.wrong())?;
        let mut known = Known::new();
        let mut put = Put::new(&transaction, &self.path, &mut known)?;
        for (kind, name, cell) in hour {
            let damaged = || StoreError::Damaged { path: self.path.clone() };
            let (kind, cell) = Kind::of(&kind).zip(cell).ok_or_else(damaged)?;
            put.add(kind, DAY, &name, start - start % DAY, &cell)?;
        }
        drop(put);
        transaction.execute("delete from cell where span = ? and start = ?", key).map_err(self.wrong())?;
        transaction.commit().map_err(self.wrong())
    }

    /// Drops the oldest quarter of all rows: the file has no more room. Whether there was anything to drop.
    pub(crate) fn make_room(&mut self) -> Result<bool, StoreError> {
        self.known.clear();
        let pages = self.connection.query_row("pragma page_count", [], |row| row.get::<_, u32>(0));
        if pages.map_err(self.wrong())? < self.settings.most_pages / 10 * 9 {
            // It's the disk that is full, and what we drop others would take.
            return Ok(false);
        }
        let text = "delete from cell where rowid in \
            (select rowid from cell order by start limit (select count(*) / 4 + 1 from cell))";
        self.connection.execute(text, []).map(|dropped| dropped > 0).map_err(self.wrong())
    }

    /// What is in the file, added up.
    pub(crate) fn sum(&self, question: &Question) -> Result<Sum, StoreError> {
        read::sum(&self.connection, &self.path, question)
    }
}

/// Makes the file, if there is none: nobody else may read it. No link is followed.
fn make(path: &Path) -> io::Result<()> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let mut file = OpenOptions::new();
    file.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    if file.open(path)?.metadata()?.is_file() {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it isn't a plain file"))
    }
}

/// Sets how the file is used, and brings it to the last version.
fn prepare(connection: &mut Connection, most_pages: u32, steps: &[&str]) -> rusqlite::Result<()> {
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    connection.pragma_update(None, "max_page_count", most_pages)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    schema::migrate(&transaction, steps)?;
    transaction.commit()
}
