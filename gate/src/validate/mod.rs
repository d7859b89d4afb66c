//! Is the input what the tool takes? From bytes to a value, and from a value to a yes or a list of what is wrong.
//!
//! ```text
//! bytes ──input──> Value ──schema (characters, JSON Schema, formats)──> fits │ mismatches ──repeated──> what is often got wrong
//!                              ^
//!          manifest ──outline──┘   once, when the tool is registered: bounds, known keywords, no circles
//! ```
//!
//! What a schema may cost is bounded by its structure before anything compiles it: so many subschemas, each counted as often as
//! it is referred to; no reference to itself; regular expressions as tables, each byte of which costs the same. And what a value
//! costs is known from its size before it's checked: values times parts of the schema, bytes times what looks at them. So no
//! parameters can make it slow.
//!
//! What fitted is remembered by a digest (`fitting`), until the tools are read again.
//!
//! Pure but for [`beneath`], which opens a path beneath a workspace's descriptor.
//!
//! Reading order: [`input`], [`parameters`], [`characters`], [`outline`], `pattern`, [`formats`], [`url`], [`schema`], [`mismatch`], [`repeated`], `fitting`, [`stage`], [`beneath`].

pub mod beneath;
pub mod characters;
mod fitting;
pub mod formats;
pub mod input;
pub mod mismatch;
pub mod outline;
pub mod parameters;
pub(crate) mod pattern;
pub mod repeated;
pub mod schema;
pub mod stage;
pub mod url;

pub use input::parse;
pub use mismatch::Mismatch;
pub use parameters::Parameters;
pub use repeated::Repeated;
pub use schema::Schema;
pub use stage::Validate;

/// The longest text of parameters, in bytes.
pub const MAX_PARAMETERS: usize = 1024 * 1024;
/// The deepest that parameters are nested: a list in an object is 2.
pub const MAX_DEPTH: usize = 64;
/// The most values in parameters, those in lists and objects counted.
pub const MAX_VALUES: usize = 64 * 1024;
/// The most values times parts of their schema (subschemas, choices of `enum`): what one check may cost.
pub const MAX_WORK: usize = 4 * 1024 * 1024;
/// The most values where a schema has elements be unique anywhere: that each is compared with each can be brought about.
pub const MAX_UNIQUE_VALUES: usize = 2_048;
/// The longest schema, in bytes as JSON without spaces.
pub const MAX_SCHEMA: usize = 64 * 1024;
/// The deepest that subschemas are nested, references followed.
pub const MAX_SCHEMA_DEPTH: usize = 32;
/// The most subschemas of a schema, each counted as often as it is referred to.
pub const MAX_SUBSCHEMAS: usize = 1_000;
/// The most regular expressions of a schema.
pub const MAX_PATTERNS: usize = 64;
/// The longest regular expression, of a schema or among parameters, in bytes.
pub const MAX_PATTERN: usize = 1_024;
/// The largest table of a schema's regular expression, in bytes: it has to stay in a processor's own cache.
pub const MAX_PATTERN_TABLE: usize = 256 * 1024;
/// What making a table may take, in bytes.
pub const MAX_PATTERN_MEMORY: usize = 1024 * 1024;
/// All tables of a schema together, in bytes.
pub const MAX_PATTERN_TABLES: usize = 2 * 1024 * 1024;
/// The most bytes of text times what a byte costs under a schema: each pattern, length and format looks at all of them at the worst.
pub const MAX_TEXT_WORK: usize = 4 * 1024 * 1024;
/// The longest that a schema takes to compile, in milliseconds of the thread's own processor time.
pub const MAX_COMPILE_MS: u64 = 250;
/// The most mismatches that are told of one request.
pub const MAX_MISMATCHES: usize = 8;
