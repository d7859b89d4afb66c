//! A segment read a window at a time, so that who reads holds a bounded part of it, can stop anywhere, and go on there later.
//!
//! What has been kept long enough is erased meanwhile: its segment is written anew, and places in it move. So a [`Place`] knows which file
//! it's in, and the last record of it that was opened: in another file of that number it begins anew, and passes over what was told. Only
//! there: numbers aren't believed otherwise, or one that somebody has changed would hide all records behind it.

use core::ops::ControlFlow;
use core::sync::atomic::{AtomicBool, Ordering};
use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::error::AuditError;
use crate::event::Event;
use crate::files::{Directory, open};
use crate::format::{BEHIND, Body, FIXED, HEADER, Header, Kind, LARGEST_BODY, Record};
use crate::keys::Keys;
use crate::read::{Entry, Filter, Passed};
use crate::secret::Cipher;
use crate::segment::{Piece, Pieces};

/// Bytes of a segment that are looked at together.
pub(crate) const WINDOW: u64 = if cfg!(test) { 128 * 1024 } else { 1024 * 1024 };
/// The longest record.
const LARGEST_RECORD: u64 = (FIXED + LARGEST_BODY + BEHIND) as u64;

/// Where a reading goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// The segment, and from which byte.
    pub(crate) segment: u64,
    from: u64,
    /// Which file that segment was; 0: none was looked at.
    file: u64,
    /// The last record before it that was opened.
    sequence: u64,
    /// Up to this one they were told, from another file.
    told: u64,
}

impl Place {
    /// Before all records of a segment.
    pub(crate) fn before(segment: u64) -> Self {
        Self { segment, from: HEADER as u64, ..Self::default() }
    }

    /// The same, or where a later segment begins.
    pub(crate) fn in_segment(self, segment: u64) -> Self {
        if segment > self.segment { Self::before(segment) } else { self }
    }
}

/// Why a segment isn't read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paused {
    /// The record behind the place wasn't taken.
    Full,
    /// As much was looked at as may be, or nobody waits for it any more.
    Enough,
}

/// What is read, and how much of it.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    pub(crate) directory: &'a Directory,
    pub(crate) keys: &'a Keys,
    pub(crate) filter: &'a Filter,
    /// Set, once nobody waits for it any more.
    pub(crate) stop: Option<&'a AtomicBool>,
    /// Bytes that may yet be looked at; it's gone over by less than a window.
    pub(crate) most: u64,
    pub(crate) passed: Passed,
}

/// Who is told a record that fits: the place before it, itself, and its text. `Break`: it isn't taken.
pub(crate) type Each<'e> = &'e mut dyn FnMut(&Place, Entry, &[u8]) -> ControlFlow<()>;

impl Scan<'_> {
    /// Reads a segment on from a place to where it ends now, or is paused. One that is gone has nothing.
    pub(crate) fn segment(
        &mut self,
        place: &mut Place,
        each: Each<'_>,
    ) -> Result<Option<Paused>, AuditError> {
        let path = self.directory.segment(place.segment);
        let mut file = match open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(AuditError::io("read", &path)(error)),
        };
        let failed = || AuditError::io("read", &path);
        let is = file.metadata().map_err(failed())?.ino();
        if place.file != is {
            let told = place.sequence;
            *place = Place { file: is, sequence: told, told, ..Place::before(place.segment) };
        }
        let mut header = Vec::with_capacity(HEADER);
        file.by_ref().take(HEADER as u64).read_to_end(&mut header).map_err(failed())?;
        let key = Header::decode(&header).ok().and_then(|header| self.keys.of_segment(&header));
        let cipher = key.map(|key| key.cipher());
        let mut window = Vec::new();
        loop {
            if self.most == 0 || self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                return Ok(Some(Paused::Enough));
            }
            let length = self.fill(&path, &mut file, (&header, &mut window), place.from)?;
            if length == 0 {
                return Ok(None);
            }
            self.most = self.most.saturating_sub(length);
            let read = self.window(&window, place, cipher.as_ref(), each);
            match read {
                ControlFlow::Break(()) => return Ok(Some(Paused::Full)),
                ControlFlow::Continue(()) if length < WINDOW => return Ok(None),
                ControlFlow::Continue(()) => {}
            }
        }
    }

    /// The header, and a window behind the place; how long the window is.
    fn fill(
        &self,
        path: &Path,
        file: &mut File,
        (header, window): (&[u8], &mut Vec<u8>),
        from: u64,
    ) -> Result<u64, AuditError> {
        window.clear();
        window.extend_from_slice(header);
        let read =
            file.seek(SeekFrom::Start(from)).and_then(|_| file.by_ref().take(WINDOW).read_to_end(window));
        Ok(read.map_err(AuditError::io("read", path))? as u64)
    }

    fn window(
        &mut self,
        window: &[u8],
        place: &mut Place,
        cipher: Option<&Cipher>,
        each: Each<'_>,
    ) -> ControlFlow<()> {
        let begin = place.from;
        let is_cut = window.len() - HEADER.min(window.len()) == usize::try_from(WINDOW).unwrap_or(usize::MAX);
        let mut opened = Vec::new();
        for piece in Pieces::of(window) {
            match piece {
                Piece::Record(at, record) => {
                    self.record(&record, place, (cipher, &mut opened), each)?;
                    place.from = begin + (at + record.length - HEADER) as u64;
                }
                Piece::Odd(range) => {
                    self.passed.unreadable += 1;
                    place.from = begin + (range.end - HEADER) as u64;
                }
                // A whole window without a record: one that begins in it may end behind it.
                Piece::Tail(range, _) if is_cut && range.start == HEADER => {
                    self.passed.unreadable += 1;
                    place.from = begin + WINDOW - LARGEST_RECORD.min(WINDOW - 1);
                }
                // The rest stands in the next window, or it's being written right now, or it's what a writer was killed over.
                Piece::Tail(..) => {}
            }
        }
        ControlFlow::Continue(())
    }

    fn record(
        &mut self,
        record: &Record<'_>,
        place: &mut Place,
        (cipher, opened): (Option<&Cipher>, &mut Vec<u8>),
        each: Each<'_>,
    ) -> ControlFlow<()> {
        let label = &record.label;
        if label.sequence <= place.told
            || label.kind == Kind::Seal
            || !self.filter.fits_label(label.time, label.class)
        {
            return ControlFlow::Continue(());
        }
        let Body::Whole(body) = &record.body else {
            self.passed.erased += 1;
            return ControlFlow::Continue(());
        };
        let opens = cipher.is_some_and(|cipher| cipher.open(&label.nonce(), &label.covered(), body, opened));
        let Some(event) = opens.then(|| Event::decode(opened)).flatten() else {
            self.passed.unreadable += 1;
            return ControlFlow::Continue(());
        };
        if self.filter.fits(&event) {
            let entry = Entry { sequence: label.sequence, time: label.time, class: label.class, event };
            each(place, entry, opened)?;
        }
        place.sequence = label.sequence;
        ControlFlow::Continue(())
    }
}
