//! Reading: by the daemon, and by whoever has the file where there is none.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::schema::{self, VERSION};
use super::{BESIDE, FILE, StoreError, rows};
use crate::report::{Question, Report, Sum};
use crate::tally::{DAY, HOUR};

/// The file, open to be read where no daemon has it.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
}

impl Reader {
    /// Opens it. Nothing is written but, where a daemon has been killed, what SQLite needs to read its last writes.
    ///
    /// # Errors
    /// There is none, or it can't be read: [`StoreError::remedy`].
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(FILE);
        let io = |source| StoreError::Io { path: path.clone(), source };
        let readable = OpenOptions::new().read(true).open(&path).and_then(|file| file.metadata());
        if !readable.map_err(io)?.is_file() {
            return Err(io(io::Error::new(io::ErrorKind::InvalidInput, "it isn't a plain file")));
        }
        let wrong = |source| StoreError::Sqlite { path: path.clone(), source };
        // Without a log or a journal beside it nobody writes it, and nothing has to be made beside it.
        let is_settled = BESIDE[..2].iter().all(|beside| !directory.join(format!("{FILE}{beside}")).exists());
        let open = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = if is_settled {
                let uri = format!("file:{}?immutable=1", escaped(&path));
                Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?
            } else {
                Connection::open_with_flags(&path, flags)?
            };
            connection.busy_timeout(Duration::ZERO)?;
            let version = schema::version(&connection)?;
            Ok((connection, version))
        };
        let (connection, version) = open().map_err(wrong)?;
        if version > VERSION {
            return Err(StoreError::Newer { path, version });
        }
        Ok(Self { connection, path })
    }

    /// Answers.
    ///
    /// # Errors
    /// It can't be read, or is damaged.
    pub fn answer(&self, question: &Question) -> Result<Report, StoreError> {
        sum(&self.connection, &self.path, question).map(Sum::report)
    }
}

/// A path as it stands in a URI of SQLite.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}

/// What is in a file, added up.
pub(super) fn sum(connection: &Connection, path: &Path, question: &Question) -> Result<Sum, StoreError> {
    let select = format!(
        "select start, name, {} from cell where kind = ?1 and span in ({HOUR}, {DAY}) and start + span > ?2 \
         and (?3 is null or name = ?3)",
        *rows::NAMES
    );
    let mut sum = Sum::default();
    let wrong = |source| StoreError::Sqlite { path: path.to_owned(), source };
    for kind in question.kinds() {
        let mut statement = connection.prepare(&select).map_err(wrong)?;
        let key = (kind.word(), rows::number(question.since), question.name.as_deref());
        let mut found = statement.query(key).map_err(wrong)?;
        while let Some(row) = found.next().map_err(wrong)? {
            let read = || -> rusqlite::Result<_> { Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)) };
            let (start, name) = read().map_err(wrong)?;
            let damaged = || StoreError::Damaged { path: path.to_owned() };
            let cell = rows::cell(row, 2).map_err(wrong)?.ok_or_else(damaged)?;
            sum.add(u64::try_from(start).unwrap_or(0), *kind, &name, &cell);
        }
    }
    Ok(sum)
}
