//! The output of a run whose secrets are named and not shown, as one reader is given it.
//!
//! ```text
//!   ring ──records 3, 4, …──> redactor of the stream ──> events 3, 4, …: what may be shown with this record
//!                                       └── both streams' ends ──> two events more: what was held to the last
//! ```
//!
//! What is shown with a record follows from the records before it and from nothing else: no clock is asked. Where somebody may be
//! waiting for what is held back the relay has put a record without bytes. So each reader, whenever he comes, also one of another
//! supervisor, is given the same bytes under the same numbers. A reader that begins in the middle has the ring read from its oldest
//! record on, and is shown what follows the last that he has.
//!
//! **Gaps.** Where the ring was written over nobody knows what had begun. Its records, and twice as many bytes of each stream as a
//! secret can be long (once for what began in the gap, once for what is held behind that), or up to its first silence, are *lost*,
//! and told as such: what is shown behind them doesn't depend on what stood in the gap. `is_in_doubt` is that.
//!
//! It must never show a byte that no redactor has let go.

use std::sync::Arc;
use std::time::Duration;

use stockade_gate::redact::{Counts, Redactor, Sought};
use stockade_protocol::bounds::{MARKED_RECORD, MAX_OUTPUT_CHUNK};
use stockade_protocol::client::Stream;
use stockade_protocol::ring::{FIRST_SEQ, Record};

use crate::output::{Place, Taker};

/// Events behind a run's last record: what is held at the end of each stream.
pub(crate) const ENDS: u64 = 2;
/// Bytes of records that are taken at once, and a little more for each: others have their turn in between.
const PIECE: usize = MARKED_RECORD;
const A_RECORD: usize = 64;
/// In place of the rest of an event that marks have made too long.
const REST: &[u8] = b"[redacted:rest]";
/// What one reader takes of memory, roughly: what is held, and what is followed.
pub(crate) const READER: usize = 64 * 1024;

/// Records as they were read.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    bytes: Vec<u8>,
    records: Vec<Record>,
}

impl Taker for Piece {
    fn room(&mut self, record: &Record) -> Option<&mut [u8]> {
        let length = record.length as usize;
        let taken = self.bytes.len() + self.records.len() * A_RECORD;
        if !self.records.is_empty() && taken + length > PIECE {
            return None;
        }
        let at = self.bytes.len();
        self.bytes.resize(at + length, 0);
        self.records.push(*record);
        Some(&mut self.bytes[at..])
    }

    fn give_up(&mut self) {
        self.clear();
    }
}

impl Piece {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
    }

    /// Each record with its bytes.
    pub(crate) fn records(&self) -> impl Iterator<Item = (&Record, &[u8])> {
        let mut rest = self.bytes.as_slice();
        self.records.iter().map(move |record| {
            let (bytes, behind) = rest.split_at(record.length as usize);
            rest = behind;
            (record, bytes)
        })
    }
}

/// One stream.
#[derive(Debug)]
struct Flow {
    redactor: Redactor,
    /// So many bytes are in doubt yet: behind a gap.
    doubted: usize,
}

impl Flow {
    fn new(sought: &Arc<Sought>, doubted: usize) -> Self {
        Self { redactor: Redactor::of(Arc::clone(sought)), doubted }
    }

    /// Whether what comes of a record can be shown; then it's added to `out`.
    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        let is_in_doubt = self.doubted > 0;
        if bytes.is_empty() {
            self.redactor.flush(out);
            self.doubted = 0;
        } else {
            self.redactor.feed(Duration::ZERO, bytes, out);
            self.doubted = self.doubted.saturating_sub(bytes.len());
        }
        if is_in_doubt && self.doubted == 0 {
            self.redactor.recount();
        }
        !is_in_doubt
    }
}

/// One reader of one run.
#[derive(Debug)]
pub(crate) struct Reader {
    sought: Arc<Sought>,
    flows: [Flow; 2],
    /// The next record; behind the last of them the streams' ends, by number.
    pub(crate) place: Place,
    /// What was hidden before the last gap.
    before: Counts,
    out: Vec<u8>,
}

impl Reader {
    /// One that is yet to read anything.
    pub(crate) fn new(sought: Arc<Sought>) -> Self {
        let flows = [Flow::new(&sought, 0), Flow::new(&sought, 0)];
        let place = Place { seq: FIRST_SEQ, offset: None };
        Self { sought, flows, place, before: Counts::default(), out: Vec::new() }
    }

    /// What is to be shown with a record, and the marks in it, of forms and of values; `None`: it counts as lost.
    pub(crate) fn take(&mut self, stream: Stream, bytes: &[u8]) -> Option<(&[u8], [u64; 2])> {
        let flow = &mut self.flows[index(stream)];
        let before = flow.redactor.marks();
        self.out.clear();
        let is_shown = flow.take(bytes, &mut self.out);
        is_shown.then(|| shown(&mut self.out, before, self.flows[index(stream)].redactor.marks()))
    }

    /// What is shown at the end of a stream: behind it nothing comes. Nothing, where that is in doubt.
    pub(crate) fn end(&mut self, stream: Stream) -> (&[u8], [u64; 2]) {
        let flow = &mut self.flows[index(stream)];
        let before = flow.redactor.marks();
        self.out.clear();
        flow.redactor.finish(&mut self.out);
        if flow.doubted > 0 {
            self.out.clear();
            flow.redactor.recount();
            return (&[], [0; 2]);
        }
        shown(&mut self.out, before, self.flows[index(stream)].redactor.marks())
    }

    /// What came before isn't known.
    pub(crate) fn doubt(&mut self) {
        self.before = self.counts();
        let doubted = 2 * self.sought.reach();
        self.flows = [Flow::new(&self.sought, doubted), Flow::new(&self.sought, doubted)];
    }

    /// What was hidden of all that can be shown.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = self.before.clone();
        for flow in self.flows.iter().filter(|flow| flow.doubted == 0) {
            let Counts { marks, late } = flow.redactor.counts();
            for (name, count) in marks {
                *counts.marks.entry(name).or_insert(0) += count;
            }
            counts.late += late;
        }
        counts
    }
}

/// At most what an event holds; and how many marks there are more than before.
fn shown(out: &mut Vec<u8>, before: [u64; 2], after: [u64; 2]) -> (&[u8], [u64; 2]) {
    if out.len() > MAX_OUTPUT_CHUNK {
        out.truncate(MAX_OUTPUT_CHUNK - REST.len());
        out.extend_from_slice(REST);
    }
    (out, [after[0] - before[0], after[1] - before[1]])
}

fn index(stream: Stream) -> usize {
    usize::from(stream == Stream::Stderr)
}
