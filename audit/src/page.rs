//! A log read page by page, for who is handed what it says and has neither its files nor its keys: each page is bounded, and so is what
//! is looked at for it, and between two of them nothing is held but a place.

use core::ops::ControlFlow;
use core::sync::atomic::AtomicBool;

use crate::error::AuditError;
use crate::format::Class;
use crate::read::{Filter, Reader};
use crate::scan::Paused;

/// How much a page may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Records.
    pub records: usize,
    /// Bytes of their texts; one record always fits.
    pub bytes: usize,
    /// Bytes of segments that are looked at for it, roughly.
    pub looked: u64,
}

/// One record of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its number.
    pub sequence: u64,
    /// When, in nanoseconds since 1970.
    pub time: u64,
    /// Of which class it is.
    pub class: Class,
    /// What it says: JSON.
    pub text: Vec<u8>,
}

/// Records that fit, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// They.
    pub rows: Vec<Row>,
    /// Whether the log ended behind them when it was looked at.
    pub is_last: bool,
}

impl Reader<'_> {
    /// The next page. One that nobody waits for any more (`stop`) ends early.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn page(&mut self, filter: &Filter, bounds: Bounds, stop: &AtomicBool) -> Result<Page, AuditError> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let paused = self.forward((filter, Some(stop), bounds.looked), &mut |_place, entry, text| {
            let is_full = rows.len() >= bounds.records || bytes + text.len() > bounds.bytes;
            if is_full && !rows.is_empty() {
                return ControlFlow::Break(());
            }
            bytes += text.len();
            let (sequence, time, class) = (entry.sequence, entry.time, entry.class);
            rows.push(Row { sequence, time, class, text: text.to_vec() });
            ControlFlow::Continue(())
        })?;
        debug_assert!(paused != Some(Paused::Full) || !rows.is_empty());
        Ok(Page { rows, is_last: paused.is_none() })
    }
}
