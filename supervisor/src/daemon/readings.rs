//! What connections read of the record: where each stands, and what a thread is given for a page of it.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use stockade_audit::{AuditError, Bounds, Filter, Keys, Page, Passed, Place, Reader};
use stockade_protocol::bounds::{MAX_AUDIT_PAGE, MAX_AUDIT_PAGE_BYTES};

use crate::dispatcher::{ConnectionId, Share};

/// Connections that may read, together and of one user.
const READINGS: usize = 32;
const READINGS_OF_ONE: usize = 4;
/// Who has so few of them finds room where many have taken the rest.
const FEW: usize = 1;
/// Bytes of the record that are looked at for a page, roughly: where little of it fits others have their turn in between.
const LOOKED: u64 = 32 * 1024 * 1024;
/// Bytes at its end in which the last records are looked for, roughly: far less than a slow disk reads, and a processor opens, in the
/// time that a page may take.
const LOOKED_BACK: u64 = 64 * 1024 * 1024;
const BOUNDS: Bounds = Bounds { records: MAX_AUDIT_PAGE, bytes: MAX_AUDIT_PAGE_BYTES, looked: LOOKED };

/// Where a reading stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// That it's asked for isn't durable yet.
    Recorded,
    /// Its next page is to be made.
    Queued,
    /// It's being made.
    Made,
    /// Its client has it.
    Idle,
    /// There is nothing more in the record.
    Waits,
}

/// What one connection reads.
#[derive(Debug)]
pub(super) struct Reading {
    /// Another one of the same connection has another.
    pub(super) number: u64,
    pub(super) uid: u32,
    pub(super) filter: Filter,
    /// Of the last ones so many: until they're found.
    pub(super) last: Option<u32>,
    pub(super) follow: bool,
    pub(super) place: Place,
    pub(super) passed: Passed,
    /// What was durable before the record was looked at the last time.
    pub(super) seen: u64,
    /// By which files its client may.
    pub(super) generation: u64,
    pub(super) standing: Standing,
    pub(super) stop: Arc<AtomicBool>,
    /// How often a page of it was to be made.
    pub(super) queued: u64,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// All that read.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    pub(super) of: HashMap<ConnectionId, Reading>,
    pub(super) queued: VecDeque<ConnectionId>,
    pub(super) at_work: usize,
    pub(super) begun: u64,
    pub(super) is_watched: bool,
}

impl Readings {
    pub(super) fn get(&mut self, connection: ConnectionId, number: u64) -> Option<&mut Reading> {
        self.of.get_mut(&connection).filter(|reading| reading.number == number)
    }

    pub(super) fn queue(&mut self, connection: ConnectionId) {
        if let Some(reading) = self.of.get_mut(&connection) {
            reading.standing = Standing::Queued;
            reading.queued += 1;
            self.queued.push_back(connection);
        }
    }

    /// A connection reads no more.
    pub(super) fn forget(&mut self, connection: ConnectionId) {
        self.of.remove(&connection);
        self.queued.retain(|queued| *queued != connection);
    }

    pub(super) fn has_room(&self, uid: u32, many_owners: bool) -> bool {
        has_room(self.of.values().map(|reading| reading.uid), uid, many_owners)
    }
}

/// Whether another reading of a user's has room beside these, each a user's.
fn has_room(readings: impl Iterator<Item = u32>, uid: u32, many_owners: bool) -> bool {
    let (mut taken, mut own) = (0, 0);
    for of in readings {
        taken += 1;
        own += usize::from(of == uid);
    }
    own < READINGS_OF_ONE && Share::new(READINGS, FEW, many_owners).allows(taken, own, 1)
}

/// What a thread makes a page of.
pub(super) struct Work {
    pub(super) directory: PathBuf,
    pub(super) keys: Arc<Keys>,
    pub(super) filter: Filter,
    pub(super) last: Option<u32>,
    pub(super) place: Place,
    pub(super) stop: Arc<AtomicBool>,
}

/// What has come of it.
pub(super) struct Made {
    pub(super) page: Page,
    pub(super) place: Place,
    pub(super) passed: Passed,
    pub(super) is_partial: bool,
}

impl Work {
    pub(super) fn make(self) -> Result<Made, AuditError> {
        let Self { directory, keys, filter, last, place, stop } = self;
        let mut reader = Reader::at(&directory, &keys, place);
        let is_whole = match last {
            Some(many) => reader.go_to_last(many as usize, &filter, LOOKED_BACK, &stop)?,
            None => true,
        };
        let page = reader.page(&filter, BOUNDS, &stop)?;
        Ok(Made { page, place: reader.place(), passed: reader.passed(), is_partial: !is_whole })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_reads_by_few_connections_and_leaves_room_for_others() {
        for many_owners in [true, false] {
            let mut readings = Vec::new();
            for uid in 1..100 {
                while has_room(readings.iter().copied(), uid, many_owners) {
                    readings.push(uid);
                }
                assert!(readings.iter().filter(|of| **of == uid).count() <= READINGS_OF_ONE);
            }
            assert_eq!(readings.len(), READINGS);
            let of_the_first = readings.iter().filter(|of| **of == 1).count();
            assert_eq!(of_the_first, READINGS_OF_ONE);
        }
    }

    #[test]
    fn a_page_fits_a_frame() {
        let beside = 64;
        assert!(
            MAX_AUDIT_PAGE_BYTES + MAX_AUDIT_PAGE * beside < stockade_protocol::bounds::MAX_FRAME as usize
        );
        const { assert!(stockade_audit::LARGEST_TEXT <= MAX_AUDIT_PAGE_BYTES) };
    }
}
