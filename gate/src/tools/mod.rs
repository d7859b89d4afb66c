//! Tools: commands that an operator has described, each in a file of its own, and that are called with JSON parameters.
//!
//! ```text
//! tools/*.toml ──load──> texts ──manifest──> Tool { template, schema, settings } ──registry──> Registry   (all of it, or none)
//!       *.toml.sig ──signature──┘
//!
//! parameters ──validate──> ──template::expand──> arguments, what is to be opened      ──executable──> the program, as it was pinned
//! ```
//!
//! No shell has a part in it: a template is a list of arguments, and a value is one of them or within one, whatever is in it.
//!
//! Pure but for [`load`], which reads directories, and [`executable`], which reads a program.
//!
//! Reading order: [`template`], [`settings`], [`manifest`], [`signature`], [`registry`], [`load`], [`executable`].

pub mod executable;
pub mod expand;
pub mod load;
pub mod manifest;
pub mod registry;
pub mod settings;
pub mod signature;
pub mod template;

pub use expand::{ExpandError, Expanded};
pub use manifest::Tool;
pub use registry::{Registry, ToolError, UnknownTool};

/// The most tools of a registry.
pub const MAX_TOOLS: usize = 4_096;
/// The longest name of a tool, in bytes.
pub const MAX_NAME: usize = 64;
/// The longest title, in characters.
pub const MAX_TITLE: usize = 128;
/// The longest description, in characters.
pub const MAX_DESCRIPTION: usize = 4_096;
/// The most arguments of a template, those in groups counted.
pub const MAX_TEMPLATE: usize = 256;
/// The longest argument of a template, in bytes.
pub const MAX_PIECE: usize = 4_096;
/// The most examples.
pub const MAX_EXAMPLES: usize = 32;
/// The most roles that a tool names.
pub const MAX_ROLES: usize = 32;
/// The longest output that is a result, in bytes.
pub const MAX_RESULT: usize = 256 * 1024;
/// The most files that one call has opened, standard input left out.
pub const MAX_OPENINGS: usize = 4;

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Of bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// From 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        unhex(text).map(Self)
    }
}

impl core::fmt::Display for Digest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl core::fmt::Debug for Digest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hexadecimal digits, lower case, as so many bytes.
#[must_use]
pub fn unhex<const LENGTH: usize>(text: &str) -> Option<[u8; LENGTH]> {
    let plain = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 2 * LENGTH || !text.bytes().all(plain) {
        return None;
    }
    let mut bytes = [0; LENGTH];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Whether this can be a tool's name, or a role's: lower-case letters, digits and `-`, beginning with a letter.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() <= MAX_NAME
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(plain)
}

/// What is expected where a name belongs.
pub const NAME_EXPECTED: &str = "lower-case letters, digits and `-`, beginning with a letter";
