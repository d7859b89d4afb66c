//! What is hidden in output: the operator's file, and what is looked for in one run's.
//!
//! The forms that are shipped are made once, when somebody first wants them: their tables take a while, and most daemons and
//! command lines redact nothing. A daemon of whose policies one redacts makes them before it serves (`prepare`).

use core::cell::RefCell;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Weak};

use stockade_gate::redact::{Forms, Secret, Sought, forms};
use stockade_policies::PolicySet;
use stockade_policies::files::{self, FileError};
use stockade_protocol::bounds::MAX_MARKS;
use stockade_protocol::client::{Count, Redactions};
use stockade_protocol::launch::Redaction;

use crate::gate::Fault;
use crate::policies;

/// The forms that are known everywhere. A test of theirs holds that they load; without them nothing is shown at all.
pub(crate) fn shipped() -> Arc<Forms> {
    static SHIPPED: LazyLock<Arc<Forms>> = LazyLock::new(|| match Forms::shipped() {
        Ok(forms) => Arc::new(forms),
        Err(mistakes) => {
            tracing::error!(?mistakes, "the forms that are shipped can't be read: no secret could be hidden");
            std::process::abort()
        }
    });
    Arc::clone(&SHIPPED)
}

/// Makes what the policies will want, where that may take a while.
pub(crate) fn prepare(policies: &PolicySet) {
    let redacts = |name: &&str| policies.get(name).is_ok_and(|policy| policy.redacts() == Some(true));
    if policies.names().iter().any(redacts) {
        shipped();
    }
}

/// What the files say is looked for, and what is shipped; `None`: there is no file. `uid`: as whom we run.
///
/// # Errors
/// All that is wrong with any of them.
pub fn forms(directories: &[PathBuf], uid: u32) -> Result<Option<Arc<Forms>>, Vec<Fault>> {
    let texts = texts(directories, uid)?;
    if texts.is_empty() {
        return Ok(None);
    }
    let made =
        Forms::with_all(&texts).map_err(|wrong| wrong.into_iter().map(Fault::from).collect::<Vec<_>>());
    made.map(|forms| Some(Arc::new(forms)))
}

/// Whether the files have it that output is redacted where a policy doesn't say.
///
/// # Errors
/// As [`forms()`], but for what is wrong with the forms themselves.
pub fn by_default(directories: &[PathBuf], uid: u32) -> Result<bool, Vec<Fault>> {
    let mut by_default = false;
    for (file, text) in texts(directories, uid)? {
        let stated = Forms::default_of(&file, &text);
        by_default |= stated.map_err(|wrong| wrong.into_iter().map(Fault::from).collect::<Vec<_>>())?;
    }
    Ok(by_default)
}

fn texts(directories: &[PathBuf], uid: u32) -> Result<Vec<(String, String)>, Vec<Fault>> {
    let mut texts = Vec::new();
    for directory in directories {
        let path = directory.join(forms::FILE);
        match files::text(&path, directory, |found| policies::look(&path, found, uid)) {
            Ok(text) => texts.push((path.display().to_string(), text)),
            Err(FileError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(vec![error.into()]),
        }
    }
    Ok(texts)
}

/// What is hidden in one run's output. Made when its run is, and costs nothing much until there is output.
#[derive(Debug)]
pub struct Redacting {
    forms: Arc<Forms>,
    redaction: Redaction,
    /// As long as somebody reads: a secret's spellings are many times as long as it is.
    sought: RefCell<Weak<Sought>>,
}

impl Redacting {
    /// `forms`: `None`: what is shipped.
    #[must_use]
    pub fn new(redaction: Redaction, forms: Option<Arc<Forms>>) -> Self {
        Self { forms: forms.unwrap_or_else(shipped), redaction, sought: RefCell::default() }
    }

    /// What is looked for, the same for both streams and all readers.
    pub fn sought(&self) -> Arc<Sought> {
        let mut made = self.sought.borrow_mut();
        if let Some(sought) = made.upgrade() {
            return sought;
        }
        let secret = |(name, value): &(String, stockade_protocol::Bytes)| Secret::new(name, value).ok();
        let secrets = self.redaction.secrets.iter().filter_map(secret).collect();
        let sought = Arc::new(Sought::new(Arc::clone(&self.forms), secrets));
        *made = Arc::downgrade(&sought);
        sought
    }

    /// There is no output any more: nobody has to know the values.
    pub(crate) fn forget_values(&mut self) {
        self.redaction.secrets = Vec::new();
    }
}

/// What is told of what was hidden.
#[must_use]
pub fn told(counts: stockade_gate::redact::Counts) -> Redactions {
    let marks = counts.marks.into_iter().take(MAX_MARKS).map(|(name, count)| Count { name, count });
    Redactions { marks: marks.collect(), late: counts.late }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_for_is_one_for_all_readers_and_gone_with_the_last() {
        let value = stockade_protocol::Bytes(b"c0rrect-horse".to_vec());
        let redaction = Redaction { secrets: vec![("API".to_owned(), value)] };
        let mut redacting = Redacting::new(redaction, Some(Arc::new(Forms::none())));
        let (one, other) = (redacting.sought(), redacting.sought());
        assert!(Arc::ptr_eq(&one, &other) && one.reach() > 0);
        redacting.forget_values();
        assert!(redacting.sought().reach() > 0, "who reads goes on");
        drop((one, other));
        assert_eq!(redacting.sought().reach(), 0, "nobody read, and the values are gone");
    }
}
