//! A call's parameters, which are read when somebody first looks at them: who calls too often is refused before that.

use std::cell::OnceCell;

use serde_json::Value;

use super::input;
use super::mismatch::Mismatch;

/// Parameters as they came, and as they were read.
#[derive(Debug)]
pub struct Parameters {
    text: Vec<u8>,
    read: OnceCell<Result<Value, Mismatch>>,
}

impl Parameters {
    /// Of this text: a JSON object, if they are any.
    #[must_use]
    pub fn new(text: Vec<u8>) -> Self {
        Self { text, read: OnceCell::new() }
    }

    /// What they are.
    ///
    /// # Errors
    /// As [`input::parse`].
    pub fn value(&self) -> Result<&Value, &Mismatch> {
        self.read.get_or_init(|| input::parse(&self.text)).as_ref()
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_read_when_they_are_first_looked_at_and_never_again() {
        let parameters = Parameters::new(b"{\"a\":1}".to_vec());
        assert!(parameters.read.get().is_none());
        let first: *const Value = parameters.value().unwrap();
        assert_eq!(parameters.value().unwrap()["a"], 1);
        assert!(core::ptr::eq(first, parameters.value().unwrap()));
        assert!(Parameters::new(b"{".to_vec()).value().is_err());
    }
}
