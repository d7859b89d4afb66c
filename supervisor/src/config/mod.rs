//! The daemon's configuration: what can be set, by which files, and what holds then.
//!
//! ```text
//! stockade.toml ──> stockade.d/*.toml ──> variables, options ──> Configured: values, and who said so
//!     (nothing stated: the defaults)         each over those before it
//! ```
//!
//! `keys` is the one description of every key: its type, its default, what it means, and whether a daemon that runs can
//! take another value. The default file, the manual's page, the document's tables and the log of a reload are made of it.
//!
//! All or nothing: what is wrong anywhere is told, all of it, and then nothing of it holds. Pure but for `files`.
//!
//! Reading order: `values`, `keys`, `layers`, `files`, `text`.

mod files;
mod keys;
mod layers;
#[cfg(test)]
mod tests;
mod text;
mod values;

pub use files::{DROP_INS, FILE, Sources, file};
pub use keys::{
    Auditing, Configuration, Connections, Counting, Key, Logging, Runs, Serving, Table, Tooling, When, Whose,
    keys, tables,
};
pub use layers::{Change, ConfigurationError, Configured, Mistakes, Origin, Text};
pub use text::default_text;
pub use values::{
    Count, Directories, Group, LogLevel, Maybe, Named, Parked, Place, Queue, Slots, Space, Span, Switch,
    Value,
};
