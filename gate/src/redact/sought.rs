//! What is looked for in the output of one run.

use std::sync::Arc;

use crate::redact::finder::Finder;
use crate::redact::forms::Forms;
use crate::redact::pattern::BEGINNING;
use crate::redact::values::{Form, Secret};

/// All that is looked for in the output of a run: made once, for both its streams and whoever reads them.
#[derive(Debug)]
pub struct Sought {
    pub(super) forms: Arc<Forms>,
    pub(super) secrets: Vec<Secret>,
    /// Values' forms: which secret's, and which of its forms. Their numbers come behind those of `forms`.
    pub(super) values: Vec<(usize, usize)>,
    /// Finds what all may begin with, and knows which value begins so.
    pub(super) finder: Finder,
    reach: usize,
}

impl Sought {
    /// For a run with these secrets.
    #[must_use]
    pub fn new(forms: Arc<Forms>, secrets: Vec<Secret>) -> Self {
        let mut finder = forms.finder.beside();
        let mut values = Vec::new();
        for (which, secret) in secrets.iter().enumerate() {
            for (form, Form { bytes, .. }) in secret.forms.iter().enumerate() {
                finder.add(&bytes[..bytes.len().min(BEGINNING)], forms.len() + values.len());
                values.push((which, form));
            }
        }
        let lengths = secrets.iter().flat_map(|secret| secret.forms.iter().map(|form| form.bytes.len()));
        let reach = forms.forms.iter().map(|form| form.pattern.longest).chain(lengths).max().unwrap_or(0);
        Self { forms, secrets, values, finder, reach }
    }

    /// No secret is longer than so many bytes: what begins before a place has ended so far behind it.
    #[must_use]
    pub fn reach(&self) -> usize {
        self.reach
    }

    /// Of which secret a number is, behind the forms' numbers; a form's is its own.
    pub(super) fn which(&self, number: usize) -> usize {
        match number.checked_sub(self.forms.len()) {
            None => number,
            Some(value) => self.forms.len() + self.values[value].0,
        }
    }

    pub(super) fn name(&self, which: usize) -> &str {
        match which.checked_sub(self.forms.len()) {
            None => &self.forms.forms[which].name,
            Some(secret) => &self.secrets[secret].name,
        }
    }
}
