//! What people are shown: short, and without anything that a terminal obeys.

/// Bytes that an error for a person may have.
const LONGEST: usize = 8_000;

/// Checks a message for a person.
///
/// # Panics
/// It is long, or has control characters.
pub fn check(message: &str) {
    assert!(message.len() <= LONGEST, "a message of {} bytes", message.len());
    assert!(!message.chars().any(char::is_control), "control characters in {message:?}");
}
