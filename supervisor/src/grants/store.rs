//! The file of grants: SQLite, in the state directory, nobody else's to read.
//!
//! Whatever is committed is on disk (`synchronous = full`): after a kill at any moment, or without power, each grant is there as it was
//! committed last, or isn't there.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Row, Transaction, TransactionBehavior, params};
use rustix::fs::OFlags;
use stockade_gate::grants::{Clocks, Exactly, Grant, GrantId, MAX_GRANTS, MAX_UNIT, Terms, Uses, What, Whom};

use super::Write;

/// Its name in the state directory.
pub(super) const FILE: &str = "grants.sqlite";
/// What a damaged one is called.
const DAMAGED: &str = "grants.sqlite.damaged";
/// What SQLite puts beside it.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];
/// The most pages of it, of 4 KiB: 64 MiB, where all grants that there can be take some 6.
const MOST_PAGES: u32 = 16 * 1024;
/// What stays of the log beside it, in bytes.
const LOG_BYTES: u32 = 1024 * 1024;
/// How long a daemon that is just ending is waited for.
const BUSY: Duration = Duration::from_secs(2);

/// From each version to the next; the first from an empty file. A released step never changes.
///
/// Times are microseconds: `until_boot` since the start of the machine that `clock` names, `until_wall` since 1970. `seen` is the
/// latest time that was ever written by, `at` the other clock's when it was.
const STEPS: &[&str] = &["
    create table held (
        id blob primary key,
        uid integer not null,
        unit text,
        kind text not null,
        name text not null,
        digest blob,
        shown text,
        until_boot integer not null,
        until_wall integer not null,
        length integer not null,
        uses_of integer,
        uses_left integer,
        ends_runs integer not null,
        by_uid integer not null,
        why text not null
    ) strict, without rowid;
    create table clock (one integer primary key check (one = 0), boot text not null, seen integer not null) strict;
", "
    alter table clock add column at integer not null default 0;
"];
/// The version that this stockade writes.
#[allow(clippy::cast_possible_truncation, reason = "steps are written by hand")]
const VERSION: u32 = STEPS.len() as u32;
/// One more than there can be shows that there are too many.
#[allow(clippy::cast_possible_truncation, reason = "some thousands")]
const MOST_ROWS: u32 = MAX_GRANTS as u32 + 1;
const PUT: &str = "insert or replace into held values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// Why the file can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GrantsError {
    /// It can't be made or moved, or isn't a plain file.
    #[error("cannot use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// SQLite can't read or write it.
    #[error("cannot use {path}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// What is in it isn't what was written.
    #[error("{path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A newer daemon has written it.
    #[error(
        "{path} was written by a newer stockade (version {version} of the file, this one knows {VERSION}); start that one, \
         or remove the file to start without any grants"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}

impl GrantsError {
    /// Whether the file will never be good for anything again.
    fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Sqlite { source, .. } => match source {
                rusqlite::Error::SqliteFailure(error, _) => {
                    matches!(error.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
                }
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::SqlInputError { .. } => true,
                _ => false,
            },
            Self::Io { .. } | Self::Newer { .. } => false,
        }
    }
}

/// The file, open.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
    path: PathBuf,
}

/// Which start of the machine times in it are of, the latest by the calendar that it has seen, and the other clock's then; none: no such
/// time can be.
type Clock = (String, Option<Duration>, Option<Duration>);

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The file; none: there was none, and it's made with the first grant.
    pub(super) store: Option<Store>,
    /// What holds.
    pub(super) grants: Vec<Grant>,
    /// What was over when it was opened.
    pub(super) over: Vec<Grant>,
    /// What couldn't be written of that: it has to be before anything else is, and why it couldn't.
    pub(super) owed: Option<(Vec<Write>, String)>,
    /// A damaged file is there now.
    pub(super) aside: Option<(PathBuf, String)>,
}

/// Reads what an earlier daemon has written. A damaged file is set aside whole: no grant of it holds.
///
/// # Errors
/// A newer daemon has written it, or it can't be used.
pub(super) fn open(directory: &Path, boot: &str, now: Clocks) -> Result<Found, GrantsError> {
    let path = directory.join(FILE);
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::default()),
        _ => {}
    }
    let read = Store::open(directory).and_then(|mut store| {
        let found = store.resume(boot, now)?;
        Ok(Found { store: Some(store), ..found })
    });
    match read {
        Err(error) if error.is_damage() => {
            let aside = set_aside(directory)?;
            Ok(Found { aside: Some((aside, crate::admission::chain(&error))), ..Found::default() })
        }
        other => other,
    }
}

impl Store {
    /// Opens it, or makes it.
    ///
    /// # Errors
    /// It can't be used.
    pub(super) fn open(directory: &Path) -> Result<Self, GrantsError> {
        let path = directory.join(FILE);
        make(&path).map_err(|source| GrantsError::Io { path: path.clone(), source })?;
        let wrong = |source| GrantsError::Sqlite { path: path.clone(), source };
        let open = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&path, flags)?;
            connection.busy_timeout(BUSY)?;
            connection.pragma_update(None, "locking_mode", "exclusive")?;
            let version = connection.query_row("pragma user_version", [], |row| row.get::<_, u32>(0))?;
            Ok((connection, version))
        };
        let (mut connection, version) = open().map_err(wrong)?;
        if version > VERSION {
            return Err(GrantsError::Newer { path, version });
        }
        prepare(&mut connection, version).map_err(wrong)?;
        Ok(Self { connection, path })
    }

    fn wrong(&self) -> impl Fn(rusqlite::Error) -> GrantsError + use<> {
        let path = self.path.clone();
        move |source| GrantsError::Sqlite { path: path.clone(), source }
    }

    /// What holds of what is in it, and what was over: that is dropped, and what is left of the others is written anew, in one
    /// transaction. Where nothing can be written (a full disk) all the same holds that could be read.
    fn resume(&mut self, boot: &str, now: Clocks) -> Result<Found, GrantsError> {
        let (clock, all) = self.read()?;
        let damaged = || GrantsError::Damaged { path: self.path.clone() };
        let whole: Option<Vec<Grant>> = all.into_iter().collect();
        let all = whole.filter(|grants| grants.len() <= MAX_GRANTS).ok_or_else(damaged)?;
        let (of, seen) = match clock {
            Some((of, Some(wall), Some(boot))) => (of, Clocks { boot, wall }),
            None if all.is_empty() => (String::new(), Clocks::default()),
            _ => return Err(damaged()),
        };
        let is_same = !boot.is_empty() && of == boot;
        let (mut grants, mut over) = (Vec::new(), Vec::new());
        for grant in all {
            match grant.clone().resumed(is_same, now, seen) {
                Some(resumed) => grants.push(resumed),
                None => over.push(grant),
            }
        }
        let drops = over.iter().map(|grant| Write::Drop(grant.id));
        let puts = grants.iter().map(|grant| Write::Put(Box::new(grant.clone())));
        let writes: Vec<Write> = drops.chain(puts).collect();
        let owed = match self.write(writes.iter(), boot, now) {
            Ok(_holds) => None,
            Err(error) if error.is_damage() => return Err(error),
            Err(error) => Some((writes, crate::admission::chain(&error))),
        };
        Ok(Found { grants, over, owed, ..Found::default() })
    }

    /// All that is in it: the clock, and the grants, none for each that can't have been written.
    fn read(&self) -> Result<(Option<Clock>, Vec<Option<Grant>>), GrantsError> {
        let read = || {
            let mut clock = self.connection.prepare("select boot, seen, at from clock")?;
            let mut clocks =
                clock.query_map([], |row| Ok((row.get(0)?, micros(row, 1)?, micros(row, 2)?)))?;
            let clock = clocks.next().transpose()?;
            let mut held = self.connection.prepare("select * from held limit ?")?;
            let grants = held.query_map([MOST_ROWS], grant)?.collect::<Result<Vec<_>, _>>()?;
            Ok((clock, grants))
        };
        read().map_err(self.wrong())
    }

    fn within(&self) -> Result<Transaction<'_>, GrantsError> {
        // Nothing else uses the connection: it's borrowed for as long as the transaction lives.
        Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate).map_err(self.wrong())
    }

    /// Writes all of these, in their order, or nothing, and the time. They are on disk when it returns: whether any grant is there then
    /// that isn't over.
    ///
    /// # Errors
    /// They aren't, or nobody knows.
    pub(super) fn write<'w>(
        &mut self,
        all: impl Iterator<Item = &'w Write>,
        boot: &str,
        now: Clocks,
    ) -> Result<bool, GrantsError> {
        let wrong = self.wrong();
        let transaction = self.within()?;
        let write = || {
            let mut put = transaction.prepare(PUT)?;
            let mut left = transaction.prepare("update held set uses_left = ? where id = ?")?;
            let mut gone = transaction.prepare("delete from held where id = ?")?;
            for write in all {
                match write {
                    Write::Put(grant) => put_one(&mut put, grant)?,
                    Write::Left(id, count) => drop(left.execute(params![count, id.0])?),
                    Write::Drop(id) => drop(gone.execute([id.0])?),
                }
            }
            tick(&transaction, boot, now)?;
            let text = "select exists (select 1 from held where until_boot > ? and until_wall > ?)";
            transaction.query_row(text, [integer(now.boot), integer(now.wall)], |row| row.get(0))
        };
        let holds = write().map_err(&wrong)?;
        transaction.commit().map_err(&wrong)?;
        Ok(holds)
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

fn prepare(connection: &mut Connection, version: u32) -> rusqlite::Result<()> {
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    connection.pragma_update(None, "max_page_count", MOST_PAGES)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (to, step) in (1_u32..).zip(STEPS).filter(|(to, _)| *to > version) {
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", to)?;
    }
    transaction.commit()
}

/// Moves the file out of the way, for whoever wants to look at it.
fn set_aside(directory: &Path) -> Result<PathBuf, GrantsError> {
    // What goes with a file goes first: left beside another one it would be taken for that one's.
    for beside in BESIDE.into_iter().chain([""]) {
        let path = directory.join(format!("{FILE}{beside}"));
        match fs::rename(&path, directory.join(format!("{DAMAGED}{beside}"))) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(GrantsError::Io { path, source });
            }
            _ => {}
        }
    }
    Ok(directory.join(DAMAGED))
}

fn integer(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

fn micros(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Duration>> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).ok().map(Duration::from_micros))
}

/// The time goes along with everything: a clock that was set back afterwards is known for that, and what had run by then is over after
/// another start, whatever the calendar says there.
fn tick(transaction: &Transaction<'_>, boot: &str, now: Clocks) -> rusqlite::Result<()> {
    let text = "insert into clock (one, boot, seen, at) values (0, ?, ?, ?) on conflict (one) do update \
        set boot = excluded.boot, seen = max(seen, excluded.seen), at = excluded.at";
    transaction.execute(text, params![boot, integer(now.wall), integer(now.boot)]).map(drop)
}

fn put_one(put: &mut rusqlite::Statement<'_>, grant: &Grant) -> rusqlite::Result<()> {
    let (kind, name) = match &grant.what {
        What::Policy(name) => ("policy", name),
        What::Tool(name) => ("tool", name),
    };
    let given = grant.given.as_ref();
    put.execute(params![
        grant.id.0,
        grant.to.uid,
        grant.to.unit,
        kind,
        name,
        given.map(|given| given.digest),
        given.map(|given| &given.shown),
        integer(grant.until.boot),
        integer(grant.until.wall),
        integer(grant.length),
        grant.uses.map(|uses| uses.of),
        grant.uses.map(|uses| uses.left),
        grant.ends_runs,
        grant.by,
        grant.why,
    ])
    .map(drop)
}

/// A grant; `None`: no such one can have been written.
fn grant(row: &Row<'_>) -> rusqlite::Result<Option<Grant>> {
    let name: String = row.get(4)?;
    let what = match row.get::<_, String>(3)?.as_str() {
        "policy" => What::Policy(name),
        "tool" => What::Tool(name),
        _ => return Ok(None),
    };
    let given = match (row.get::<_, Option<[u8; 32]>>(5)?, row.get::<_, Option<String>>(6)?) {
        (Some(digest), Some(shown)) => Some(Exactly { digest, shown }),
        (None, None) => None,
        _ => return Ok(None),
    };
    let uses = match (row.get::<_, Option<u32>>(10)?, row.get::<_, Option<u32>>(11)?) {
        (Some(of), Some(left)) if left <= of => Some(Uses { of, left }),
        (None, None) => None,
        _ => return Ok(None),
    };
    let (Some(boot), Some(wall), Some(length)) = (micros(row, 7)?, micros(row, 8)?, micros(row, 9)?) else {
        return Ok(None);
    };
    let to = Whom { uid: row.get(1)?, unit: row.get(2)? };
    let (ends_runs, why) = (row.get(12)?, row.get(14)?);
    let terms = Terms { what, given, length, uses: uses.map(|uses| uses.of), ends_runs, why };
    if terms.check().is_err() || to.unit.as_ref().is_some_and(|unit| unit.len() > MAX_UNIT) {
        return Ok(None);
    }
    let Terms { what, given, length, why, .. } = terms;
    let (id, until, by) = (GrantId(row.get(0)?), Clocks { boot, wall }, row.get(13)?);
    Ok(Some(Grant { id, to, what, given, until, length, uses, ends_runs, by, why }))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
