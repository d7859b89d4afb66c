//! Reading a log, whether or not somebody writes to it meanwhile.

use core::ops::ControlFlow;
use std::collections::VecDeque;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use serde::Serialize;

use crate::error::AuditError;
use crate::event::Event;
use crate::files::{Directory, open};
use crate::format::{Body, Class, HEADER, Header, Kind, LARGEST_SEGMENT, Record};
use crate::keys::Keys;
use crate::secret::Cipher;
use crate::segment::{Piece, Pieces};
use crate::time::rfc3339;

/// One record.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its number.
    pub sequence: u64,
    /// When, in nanoseconds since 1970.
    pub time: u64,
    /// Of which class it is.
    pub class: Class,
    /// What it says.
    pub event: Event,
}

#[derive(Serialize)]
struct Line<'a> {
    sequence: u64,
    time: String,
    class: Class,
    #[serde(flatten)]
    event: &'a Event,
}

impl Entry {
    /// One JSON object, without a line's end.
    #[must_use]
    pub fn json(&self) -> String {
        let Self { sequence, time, class, event } = self;
        let line = Line { sequence: *sequence, time: rfc3339(*time), class: *class, event };
        // Our own types have string keys and no failing Serialize.
        serde_json::to_string(&line).unwrap_or_default()
    }
}

/// Which records are asked for: those that fit all that is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Not before, in nanoseconds since 1970.
    pub since: Option<u64>,
    /// Before.
    pub until: Option<u64>,
    /// Of these classes; empty: of all.
    pub classes: Vec<Class>,
    /// By this user.
    pub uid: Option<u32>,
    /// About this tool.
    pub tool: Option<String>,
    /// That ended so.
    pub outcome: Option<String>,
    /// About this run: its id, or how it begins or ends.
    pub exec: Option<String>,
    /// Of this name.
    pub name: Option<String>,
}

impl Filter {
    fn fits_label(&self, time: u64, class: Class) -> bool {
        self.since.is_none_or(|since| since <= time)
            && self.until.is_none_or(|until| time < until)
            && (self.classes.is_empty() || self.classes.contains(&class))
    }

    fn fits(&self, event: &Event) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_ref().is_none_or(|wanted| found == Some(wanted.as_str()))
        };
        let uid = event.principal.as_ref().map(|who| who.uid);
        let exec = event.exec();
        self.uid.is_none_or(|wanted| uid == Some(wanted))
            && is(&self.tool, event.tool())
            && is(&self.outcome, event.outcome())
            && is(&self.name, Some(event.name()))
            && self.exec.as_ref().is_none_or(|part| {
                exec.is_some_and(|exec| exec.starts_with(part.as_str()) || exec.ends_with(part.as_str()))
            })
    }
}

/// What wasn't told, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Passed {
    /// Records that were erased when their time had come.
    pub erased: u64,
    /// Records that can't be opened, and places where there is none: `verify` says more.
    pub unreadable: u64,
}

/// Reads a log from its beginning, and goes on where it ended.
#[derive(Debug)]
pub struct Reader<'a> {
    directory: Directory,
    keys: &'a Keys,
    /// The segment that is read, and from which byte.
    segment: u64,
    from: u64,
    passed: Passed,
}

impl<'a> Reader<'a> {
    /// Of a directory, with its keys.
    #[must_use]
    pub fn new(directory: &Path, keys: &'a Keys) -> Self {
        let directory = Directory::of(directory);
        Self { directory, keys, segment: 0, from: HEADER as u64, passed: Passed::default() }
    }

    /// What wasn't told so far.
    #[must_use]
    pub fn passed(&self) -> Passed {
        self.passed
    }

    /// Tells each record that fits, from where the last call ended up to where the log ends now.
    ///
    /// # Errors
    /// [`AuditError`]: a file can't be read.
    pub fn read(
        &mut self,
        filter: &Filter,
        each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, AuditError> {
        let numbers: Vec<u64> =
            self.directory.segments()?.into_iter().filter(|number| *number >= self.segment).collect();
        for number in &numbers {
            if *number > self.segment {
                (self.segment, self.from) = (*number, HEADER as u64);
            }
            if self.read_segment(filter, each)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The last records that fit, at most so many, the oldest first; the next call of [`Self::read`] goes on behind them.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn last(&mut self, many: usize, filter: &Filter) -> Result<Vec<Entry>, AuditError> {
        let numbers = self.directory.segments()?;
        let mut found = VecDeque::new();
        let mut behind = None;
        for number in numbers.iter().rev() {
            (self.segment, self.from) = (*number, HEADER as u64);
            let mut here = Vec::new();
            let mut keep = |entry| {
                here.push(entry);
                ControlFlow::Continue(())
            };
            let _ = self.read_segment(filter, &mut keep)?;
            behind.get_or_insert((self.segment, self.from));
            here.into_iter().rev().for_each(|entry| found.push_front(entry));
            if found.len() >= many {
                break;
            }
        }
        (self.segment, self.from) = behind.unwrap_or((0, HEADER as u64));
        let too_many = found.len().saturating_sub(many);
        Ok(found.into_iter().skip(too_many).collect())
    }

    fn read_segment(
        &mut self,
        filter: &Filter,
        each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, AuditError> {
        let bytes = self.bytes()?;
        let header = Header::decode(&bytes).ok();
        let cipher = header.as_ref().and_then(|header| self.keys.of_segment(header)).map(|key| key.cipher());
        let mut opened = Vec::new();
        let shift = self.from - HEADER as u64;
        for piece in Pieces::of(&bytes) {
            match piece {
                Piece::Record(at, record) => {
                    self.from = shift + (at + record.length) as u64;
                    if !filter.fits_label(record.label.time, record.label.class) {
                        continue;
                    }
                    let Some(entry) = self.entry(&record, cipher.as_ref(), &mut opened) else { continue };
                    if filter.fits(&entry.event) && each(entry).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Piece::Odd(_) => self.passed.unreadable += 1,
                // It may be written right now, or it's what a writer was killed over.
                Piece::Tail(..) => {}
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The header, and what lies behind the place where we are.
    fn bytes(&self) -> Result<Vec<u8>, AuditError> {
        let path = self.directory.segment(self.segment);
        let failed = || AuditError::io("read", &path);
        let mut file = open(&path).map_err(failed())?;
        let mut bytes = Vec::new();
        file.by_ref().take(HEADER as u64).read_to_end(&mut bytes).map_err(failed())?;
        file.seek(SeekFrom::Start(self.from)).map_err(failed())?;
        file.take(LARGEST_SEGMENT).read_to_end(&mut bytes).map_err(failed())?;
        Ok(bytes)
    }

    fn entry(&mut self, record: &Record<'_>, cipher: Option<&Cipher>, opened: &mut Vec<u8>) -> Option<Entry> {
        let label = &record.label;
        let body = match (label.kind, &record.body) {
            (Kind::Seal, _) => return None,
            (Kind::Event, Body::Erased(_)) => {
                self.passed.erased += 1;
                return None;
            }
            (Kind::Event, Body::Whole(body)) => body,
        };
        let opens = cipher.is_some_and(|cipher| cipher.open(&label.nonce(), &label.covered(), body, opened));
        let event = opens.then(|| Event::decode(opened)).flatten();
        if event.is_none() {
            self.passed.unreadable += 1;
        }
        Some(Entry { sequence: label.sequence, time: label.time, class: label.class, event: event? })
    }
}
