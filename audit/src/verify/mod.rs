//! Whether a log is what was written, with its keys and without: what was changed, dropped, put elsewhere or cut off, and
//! which record is the first of which that can be said.
//!
//! Without keys the chain and the signatures are checked, and so is each head that was copied; with them each record's MAC and
//! its sealing, too. `docs/audit.md` says what nobody can find out.

mod heads;
mod terms;
mod walk;

use core::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::AuditError;
use crate::files::{Directory, HEAD, KEYS};
use crate::head::Head;
use crate::keys::{Keys, MasterKey, VerificationKey, published};
use crate::secret::hex;
use heads::Heads;
use walk::Walk;

/// The most findings that are told one by one.
const FINDINGS: usize = 64;
/// The largest file of copies that is read, in bytes.
const LARGEST_COPIES: u64 = 128 * 1024 * 1024;

/// What a log is checked with.
#[derive(Debug)]
pub struct Check {
    /// The master key.
    pub master: Option<MasterKey>,
    /// The first secret of the MACs, where it's kept elsewhere.
    pub verification: Option<VerificationKey>,
    /// Files with copies of heads: a line each, as they were copied or as a journal prints them.
    pub copies: Vec<PathBuf>,
    /// Whose signatures have to stand in it.
    pub public: Option<[u8; 32]>,
    /// By when records may have been erased because they had been kept long enough.
    pub now: SystemTime,
}

impl Default for Check {
    fn default() -> Self {
        Self { master: None, verification: None, copies: Vec::new(), public: None, now: SystemTime::now() }
    }
}

/// What was done to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tampering {
    /// Something isn't what was written, or wasn't written by the log.
    Changed,
    /// Records between others are missing.
    Dropped,
    /// Records stand where others were.
    Reordered,
    /// The end is missing.
    Cut,
    /// The key isn't the one that it was written with: what needs it wasn't checked.
    WrongKey,
}

impl Tampering {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Dropped => "dropped",
            Self::Reordered => "reordered",
            Self::Cut => "cut",
            Self::WrongKey => "wrong-key",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What was done.
    pub tampering: Tampering,
    /// In which segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<u64>,
    /// The record's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// Where in the segment, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// One sentence.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.tampering.name())?;
        for (name, number) in [("record", self.sequence), ("segment", self.segment), ("byte", self.offset)] {
            if let Some(number) = number {
                write!(f, ", {name} {number}")?;
            }
        }
        write!(f, ": {}", self.text)
    }
}

/// A record that a writer was killed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Unfinished {
    /// In which segment.
    pub segment: u64,
    /// From which byte.
    pub offset: u64,
    /// How many bytes of it there are.
    pub bytes: u64,
}

/// What a log turned out to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// What is wrong, the first first; the first 64.
    pub findings: Vec<Finding>,
    /// How much is wrong.
    pub wrong: u64,
    /// Segments that are there.
    pub segments: u64,
    /// Records that are there, erased ones among them.
    pub records: u64,
    /// Those whose body was erased when its time had come.
    pub erased: u64,
    /// The first record's number; 0: none.
    pub first: u64,
    /// The last one's.
    pub last: u64,
    /// What the last writer was killed over: no record that anybody was told to be durable.
    pub unfinished: Option<Unfinished>,
    /// What writers before it were killed over, each as the next one found it.
    pub recovered: Vec<Unfinished>,
    /// Signed heads that were compared, those at segments' ends and the copies.
    pub heads: u64,
    /// The last record that a head was copied or signed for: nothing before it can have been cut off.
    pub signed: u64,
    /// Whose signatures these are, in hexadecimal.
    pub public: String,
    /// Whether that was known from elsewhere: given, or of the copies, or by the master key.
    pub known: bool,
    /// Whether what is sealed was opened.
    pub opened: bool,
    /// Whether the MACs were checked.
    pub macs: bool,
}

impl Report {
    /// Whether nothing is wrong. What a writer was killed over isn't wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.wrong == 0
    }

    fn add(&mut self, finding: Finding) {
        self.wrong += 1;
        if self.findings.len() < FINDINGS {
            self.findings.push(finding);
        }
    }

    fn say(&mut self, tampering: Tampering, segment: Option<u64>, text: impl Into<String>) {
        self.add(Finding { tampering, segment, sequence: None, offset: None, text: text.into() });
    }
}

/// Checks a log. One that is being written to is checked up to where it was when its end was read.
///
/// # Errors
/// [`AuditError`]: it can't be read at all. What is wrong with what can is in the report.
pub fn verify(directory: &Path, check: &Check) -> Result<Report, AuditError> {
    let directory = Directory::of(directory);
    let mut report = Report::default();
    // Before the segments: what was signed by now is in them.
    let beside = directory.read(HEAD)?;
    let mut copied = Vec::new();
    for path in &check.copies {
        let read = heads::read(path, LARGEST_COPIES)?;
        if read.is_empty() {
            let text = format!("there is no head in {}: nothing was compared with it", path.display());
            report.say(Tampering::Changed, None, text);
        }
        copied.extend(read);
    }
    let is_empty = directory.segments()?.is_empty();
    if is_empty {
        report.say(Tampering::Cut, None, "there is no segment, and a log has one from its first start on");
    }
    let keys = keys(&directory, check, &mut report);
    let published = published(&directory);
    let known = check
        .public
        .or_else(|| keys.as_ref().map(|keys| keys.signing.public()))
        .or_else(|| copied.iter().find(|head| head.is_signed()).map(|head| head.public));
    let first_header = || {
        let first = directory.segments().ok()?.first().copied()?;
        directory.read_header(first).ok()?.map(|header| header.public)
    };
    let public = known.or_else(|| published.map(|keys| keys.public)).or_else(first_header);
    report.known = known.is_some();
    report.opened = keys.is_some();
    report.macs = keys.as_ref().is_some_and(|keys| keys.root.is_some());
    let Some(public) = public else {
        if !is_empty || !copied.is_empty() {
            report.say(Tampering::Changed, None, "there are neither keys nor a whole segment");
        }
        return Ok(report);
    };
    report.public = hex(&public);
    if published.is_some_and(|keys| keys.public != public) {
        report.say(Tampering::Changed, None, format!("`{KEYS}` is another log's"));
    }
    let mut heads = Heads::new(public);
    if let Some(beside) = beside {
        match core::str::from_utf8(&beside).ok().and_then(Head::parse) {
            Some(head) => heads.add(head, &mut report),
            // A machine that lost its power may have left it empty; nothing is concluded from it then.
            None if beside.iter().all(|byte| *byte == 0) => {}
            None => report.say(Tampering::Changed, None, format!("`{HEAD}` isn't what was written")),
        }
    }
    copied.into_iter().for_each(|head| heads.add(head, &mut report));
    let mut walk = Walk::new(&directory, keys.as_ref(), heads, check.now, report);
    walk.all()?;
    Ok(walk.end())
}

fn keys(directory: &Directory, check: &Check, report: &mut Report) -> Option<Keys> {
    let master = check.master.as_ref()?;
    match Keys::read(directory.path(), master, check.verification.as_ref()) {
        Ok(keys) => Some(keys),
        Err(error @ AuditError::WrongKey(_)) => {
            report.say(Tampering::WrongKey, None, error.to_string());
            None
        }
        Err(error) => {
            report.say(Tampering::Changed, None, error.to_string());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::segment::{Start, Writing};

    /// Whoever has the signing key and not the MACs' can't sign for a log of his own.
    #[test]
    fn a_head_that_commits_to_another_mac_key_is_told_by_the_keys() {
        let folder = tempfile::tempdir().unwrap();
        let master = MasterKey::create(&folder.path().join("key")).unwrap();
        let directory = Directory::prepare(&folder.path().join("audit")).unwrap();
        let keys = Keys::create(&directory, &master, None).unwrap();
        let start = Start {
            number: 1,
            first: 1,
            before: [0; 32],
            tail: (0, [0; 32]),
            days: [1; 3],
            time: 1,
            newest: 0,
        };
        let macs = keys.macs(1).unwrap();
        let events = [Event::security("one", ""), Event::security("two", "")];
        let writing = Writing::begin(&directory, &keys, &macs, &start, &events).unwrap();
        let head = writing.head(&keys);
        let copies = folder.path().join("heads");
        let check = |head: &Head, master| {
            std::fs::write(&copies, format!("{head}\n")).unwrap();
            let check = Check { master, copies: vec![copies.clone()], ..Check::default() };
            verify(directory.path(), &check).unwrap()
        };
        assert!(check(&head, Some(master.clone())).is_clean());
        let other = keys.signing.head(Head { mac: [7; 32], ..head });
        let report = check(&other, Some(master));
        assert_eq!(report.findings[0].tampering, Tampering::Changed, "{:?}", report.findings);
        assert!(check(&other, None).is_clean(), "nothing shows it without the keys");
    }
}
