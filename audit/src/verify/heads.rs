//! Heads that a log is compared with.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use super::{Report, Tampering};
use crate::error::AuditError;
use crate::files::open;
use crate::head::Head;

/// The longest line that is read of a file of copies.
const LONGEST_LINE: usize = 4096;

/// The heads in a file. What is no head in it is passed over: a journal has other lines, and the last one may not be whole.
pub(super) fn read(path: &Path, largest: u64) -> Result<Vec<Head>, AuditError> {
    let failed = || AuditError::io("read", path);
    let file = open(path).map_err(failed())?;
    // The newest heads are at its end: what isn't read must not look as if it had been compared.
    let length = file.metadata().map_err(failed())?.len();
    if length > largest {
        return Err(AuditError::Refused {
            path: path.to_owned(),
            problem: format!("it has {length} bytes, and {largest} are read at most"),
            remedy: "take out what isn't a head, or name it in parts",
        });
    }
    let mut lines = BufReader::new(file.take(largest));
    let (mut heads, mut line) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line).map_err(failed())? == 0 {
            return Ok(heads);
        }
        if line.len() <= LONGEST_LINE {
            heads.extend(core::str::from_utf8(&line).ok().and_then(Head::parse));
        }
    }
}

/// All of them, by the record that each is of.
pub(super) struct Heads {
    public: [u8; 32],
    log: Option<[u8; 16]>,
    by_record: BTreeMap<u64, Vec<Head>>,
}

impl Heads {
    pub(super) fn new(public: [u8; 32]) -> Self {
        Self { public, log: None, by_record: BTreeMap::new() }
    }

    /// Takes a head if it's signed by the right key.
    pub(super) fn add(&mut self, head: Head, report: &mut Report) {
        if head.public != self.public || self.log.is_some_and(|log| log != head.log) || !head.is_signed() {
            let text = format!("the head of record {} isn't one of this log's", head.sequence);
            return report.say(Tampering::Changed, None, text);
        }
        self.log = Some(head.log);
        report.signed = report.signed.max(head.sequence);
        let same = self.by_record.entry(head.sequence).or_default();
        if !same.contains(&head) {
            same.push(head);
        }
    }

    pub(super) fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The log that they are of, if any is known.
    pub(super) fn log(&self) -> Option<[u8; 16]> {
        self.log
    }

    /// What was signed of a record.
    pub(super) fn of(&self, sequence: u64) -> Option<&[Head]> {
        self.by_record.get(&sequence).map(Vec::as_slice)
    }
}
