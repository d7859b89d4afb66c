//! Reading a log, whether or not somebody writes to it meanwhile.

use core::ops::ControlFlow;
use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::VecDeque;
use std::path::Path;

use serde::Serialize;

use crate::error::AuditError;
use crate::event::Event;
use crate::files::Directory;
use crate::format::Class;
use crate::keys::Keys;
use crate::scan::{Each, Paused, Place, Scan};
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
    /// One whose text comes from somewhere else; `None`: it's no event that is known here.
    #[must_use]
    pub fn of(sequence: u64, time: u64, class: Class, text: &[u8]) -> Option<Self> {
        Some(Self { sequence, time, class, event: Event::decode(text)? })
    }

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
    pub(crate) fn fits_label(&self, time: u64, class: Class) -> bool {
        self.since.is_none_or(|since| since <= time)
            && self.until.is_none_or(|until| time < until)
            && (self.classes.is_empty() || self.classes.contains(&class))
    }

    pub(crate) fn fits(&self, event: &Event) -> bool {
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
    place: Place,
    passed: Passed,
}

impl<'a> Reader<'a> {
    /// Of a directory, with its keys.
    #[must_use]
    pub fn new(directory: &Path, keys: &'a Keys) -> Self {
        Self::at(directory, keys, Place::default())
    }

    /// The same, from a place on that an earlier one has come to.
    #[must_use]
    pub fn at(directory: &Path, keys: &'a Keys, place: Place) -> Self {
        Self { directory: Directory::of(directory), keys, place, passed: Passed::default() }
    }

    /// Where it goes on.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// What wasn't told so far.
    #[must_use]
    pub fn passed(&self) -> Passed {
        self.passed
    }

    /// Tells each record that fits, from where the last call ended up to where the log ends now. Of one that `each` breaks at the next
    /// call tells again.
    ///
    /// # Errors
    /// [`AuditError`]: a file can't be read.
    pub fn read(
        &mut self,
        filter: &Filter,
        each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, AuditError> {
        let paused = self.forward((filter, None, u64::MAX), &mut |_place, entry, _text| each(entry))?;
        Ok(if paused.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// The last records that fit, so many, the oldest first, and what has come meanwhile; the next call of [`Self::read`] goes on behind them.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn last(&mut self, many: usize, filter: &Filter) -> Result<Vec<Entry>, AuditError> {
        let _whole = self.go_to_last(many, filter, u64::MAX, &AtomicBool::new(false))?;
        let mut found = Vec::new();
        let mut each = |entry| {
            found.push(entry);
            ControlFlow::Continue(())
        };
        let _ = self.read(filter, &mut each)?;
        Ok(found)
    }

    /// From the place on, segment by segment; `None`: to the end of the log as it is now.
    pub(crate) fn forward(
        &mut self,
        (filter, stop, most): (&Filter, Option<&AtomicBool>, u64),
        each: Each<'_>,
    ) -> Result<Option<Paused>, AuditError> {
        let mut numbers = self.directory.segments()?;
        numbers.retain(|number| *number >= self.place.segment);
        let (directory, keys, passed) = (&self.directory, self.keys, self.passed);
        let mut scan = Scan { directory, keys, filter, stop, most, passed };
        for number in numbers {
            let mut place = self.place.in_segment(number);
            let paused = scan.segment(&mut place, each);
            (self.place, self.passed) = (place, scan.passed);
            if let Some(paused) = paused? {
                return Ok(Some(paused));
            }
        }
        Ok(None)
    }

    /// Goes to before the last records that fit, at most so many; whether as many were looked for as there may be: the newest `most`
    /// bytes are looked through, and the rest of the segment that they end in.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn go_to_last(
        &mut self,
        many: usize,
        filter: &Filter,
        most: u64,
        stop: &AtomicBool,
    ) -> Result<bool, AuditError> {
        let (directory, keys) = (&self.directory, self.keys);
        // What is passed over here is told when it's read.
        let passed = Passed::default();
        let mut scan = Scan { directory, keys, filter, stop: Some(stop), most: u64::MAX, passed };
        let mut found: VecDeque<Place> = VecDeque::new();
        let mut behind = None;
        let mut is_whole = true;
        for number in directory.segments()?.into_iter().rev() {
            if found.len() >= many && behind.is_some() {
                break;
            }
            is_whole = u64::MAX - scan.most < most && !stop.load(Ordering::Relaxed);
            if !is_whole {
                break;
            }
            let (wanted, mut here) = (many - found.len(), VecDeque::new());
            let mut keep = |place: &Place, _entry: Entry, _text: &[u8]| {
                here.push_back(*place);
                if here.len() > wanted {
                    here.pop_front();
                }
                ControlFlow::Continue(())
            };
            let mut place = Place::before(number);
            let _never_full = scan.segment(&mut place, &mut keep)?;
            behind.get_or_insert(place);
            here.into_iter().rev().for_each(|place| found.push_front(place));
        }
        self.place = found.front().copied().or(behind).unwrap_or_default();
        Ok(is_whole)
    }
}
