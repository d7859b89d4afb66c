//! Whether what a tool printed is the result that its file promises (`[result]`).
//!
//! It's looked at when the run has ended well: what a tool prints that has failed is told as it is. Nothing is held back for it,
//! so a caller has the output before it knows; `Exited` says what came of it.

use stockade_gate::tools::{MAX_RESULT, Tool};
use stockade_gate::validate::mismatch::shown;
use stockade_protocol::bounds::{MAX_RESULT_SAID, MAX_RESULT_SENTENCE};
use stockade_protocol::client::{ResultCheck, Stream};

/// The longest thing that is said, in characters: each may take four bytes, and so does the mark of what was cut.
const LONGEST: usize = MAX_RESULT_SENTENCE / 4 - 1;

/// What a tool has printed so far, as long as it can be a result.
#[derive(Debug, Default)]
pub struct Printed {
    bytes: Vec<u8>,
    is_too_long: bool,
    /// Why it can't be looked at, if so.
    missing: Option<&'static str>,
}

impl Printed {
    /// A piece of output.
    pub fn feed(&mut self, stream: Stream, bytes: &[u8]) {
        if stream != Stream::Stdout || self.is_too_long {
            return;
        }
        self.is_too_long = self.bytes.len() + bytes.len() > MAX_RESULT;
        if self.is_too_long {
            self.bytes = Vec::new();
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Something is missing.
    pub fn lose(&mut self, why: &'static str) {
        self.missing.get_or_insert(why);
    }

    /// Whether it is what the tool promises, that has ended well. `None`: it promises nothing. `is_secret`: the output is redacted,
    /// and what is wrong is told by the schema's rules alone, without a word of what was printed.
    #[must_use]
    pub fn check(&self, tool: &Tool, is_secret: bool) -> Option<ResultCheck> {
        tool.result.as_ref()?;
        if let Some(why) = self.missing {
            return Some(ResultCheck { fits: None, said: vec![why.into()] });
        }
        if self.is_too_long {
            let said = format!("expected at most {MAX_RESULT} bytes, got more");
            return Some(ResultCheck { fits: Some(false), said: vec![said] });
        }
        let Err(mismatches) = tool.check_output(&self.bytes) else {
            return Some(ResultCheck { fits: Some(true), said: Vec::new() });
        };
        let said = mismatches.iter().take(MAX_RESULT_SAID).map(|mismatch| match is_secret {
            true if mismatch.rule.is_empty() => "it isn't what the schema says".to_owned(),
            true => format!("it breaks the rule {}", mismatch.rule),
            false => mismatch.to_string(),
        });
        let said = said.map(|said| shown(&said, LONGEST)).collect();
        Some(ResultCheck { fits: Some(false), said })
    }
}
