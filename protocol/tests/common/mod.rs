//! What the tests of the wire share: one example of every message, bytes as hex, and a second, independent
//! encoder that says which bytes belong to which field.
//!
//! Reading order: [`hex`], [`annotate`], [`examples`].
#![allow(dead_code, reason = "each test binary uses its part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

pub(crate) mod annotate;
pub(crate) mod examples;
pub(crate) mod hex;

/// Whether the checked-in bytes are to be written instead of compared: `STOCKADE_BLESS=1`.
///
/// Only while a wire version is open; `frozen.rs` refuses it for a version that is released.
pub(crate) fn blessing() -> bool {
    std::env::var_os("STOCKADE_BLESS").is_some_and(|value| value == "1")
}
