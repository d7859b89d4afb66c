//! The file: SQLite, so that it's whole after any crash, and so that anybody can look into it.
//!
//! One writer, which has the file to itself for as long as it has it open (`locking_mode = EXCLUSIVE`: no shared memory beside it, so
//! nothing has to be mapped or cleared up). WAL with `synchronous = NORMAL`: what was written is there after a crash of the daemon;
//! after one of the machine the last seconds may be missing, and the rest is whole.
//!
//! What is wrong with a file is one of three things. A newer stockade has written it: it's left alone ([`StoreError::Newer`]).
//! It's damaged: it's set aside, and another one begun. It can't be used just now (no room, no permission): that is tried again.

mod aside;
mod error;
mod file;
mod put;
mod read;
mod rows;
mod schema;
#[cfg(test)]
mod tests;

pub use error::StoreError;
pub use file::Settings;
pub use read::Reader;

pub(crate) use aside::set_aside;
pub(crate) use file::Store;

/// Its name in the state directory.
pub const FILE: &str = "statistics.db";
/// What SQLite may leave beside it, by its end: the log; the journal of a daemon that was killed while it made the file; the log's index, of a
/// reader.
const BESIDE: [&str; 3] = ["-wal", "-journal", "-shm"];
/// What a damaged one is called.
pub const DAMAGED: &str = "statistics.db.damaged";
