//! Output of runs whose secrets are named and not shown, on its way into a connection's buffer.
//!
//! A piece at a time, and for so long a turn at most: what a tool writes may be made to be looked at slowly.

use std::time::{Duration, Instant};

use stockade_protocol::ExecId;
use stockade_protocol::client::{ExecEvent, Redactions, Stream};
use stockade_protocol::codec::CodecError;
use stockade_protocol::ring::FIRST_SEQ;

use super::delivery::put_event;
use crate::frames::Workshop;
use crate::outbox::{Mark, Outbox};
use crate::output::Read;
use crate::redacted::{Piece, Reader};
use crate::redaction;
use crate::runs::Run;

/// So long one connection's output is looked through before others have their turn.
pub(super) const SPENT: Duration = Duration::from_millis(1);

/// Where the events of a batch go.
struct Events<'a> {
    id: ExecId,
    outbox: &'a mut Outbox,
    workshop: &'a mut Workshop,
    /// The first that the client hasn't got.
    wanted: u64,
    /// How many before the next are lost.
    lost: u64,
}

impl Events<'_> {
    /// One event's output; `None`: it's lost.
    fn put(
        &mut self,
        (seq, stream): (u64, Stream),
        shown: Option<(&[u8], [u64; 2])>,
    ) -> Result<(), CodecError> {
        if seq < self.wanted {
            match shown {
                Some((bytes, _)) => self.outbox.pass_over(self.id, stream, bytes),
                None => self.outbox.forget_tails(self.id),
            }
            return Ok(());
        }
        let Some((bytes, marks)) = shown else {
            self.lost += 1;
            return Ok(());
        };
        self.tell_lost(seq)?;
        for (all, more) in self.workshop.marks.iter_mut().zip(marks) {
            *all += more;
        }
        self.outbox.say_output((self.id, seq, stream), bytes, self.workshop)
    }

    /// Says what is lost before an event.
    fn tell_lost(&mut self, seq: u64) -> Result<(), CodecError> {
        let events = core::mem::take(&mut self.lost);
        if events == 0 {
            return Ok(());
        }
        self.outbox.say_tails(self.id, seq - 1, self.workshop);
        put_event(self.id, seq - 1, ExecEvent::OutputLost { events }, self.outbox, self.workshop)
    }
}

/// Puts the next piece of a run's output into a buffer, as far as it can be shown. Whether there may be more.
pub(super) fn put(
    id: ExecId,
    run: &Run,
    outbox: &mut Outbox,
    workshop: &mut Workshop,
) -> Result<bool, CodecError> {
    let Some(redacting) = &run.redacting else { return Ok(false) };
    let Some(wanted) = outbox.following.get(&id).map(|following| following.place.seq) else {
        return Ok(false);
    };
    let Some(mut reader) = outbox.take_reader(id, || redacting.sought()) else { return Ok(false) };
    let began = Instant::now();
    let mut piece = core::mem::take(&mut workshop.piece);
    let result =
        put_piece(run, &mut reader, &mut piece, &mut Events { id, outbox, workshop, wanted, lost: 0 });
    piece.clear();
    workshop.piece = piece;
    workshop.spent += began.elapsed();
    let place = reader.place;
    if let Some(following) = outbox.following.get_mut(&id) {
        following.place.seq = wanted.max(place.seq);
        following.reader = Some(reader);
    }
    if let Some(offset) = place.offset {
        outbox.mark(Mark::Output(id, offset));
    }
    result
}

fn put_piece(
    run: &Run,
    reader: &mut Reader,
    piece: &mut Piece,
    events: &mut Events<'_>,
) -> Result<bool, CodecError> {
    let (first, last, settled) = (reader.place.seq, run.wrote.next_seq, run.is_settled());
    let read = match &run.ring {
        Some(ring) => ring.read(&run.wrote, &mut reader.place, (u64::MAX, settled, run.acknowledged), piece),
        None => Ok(Read::Nothing),
    };
    let read = read.unwrap_or_else(|error| {
        tracing::error!(parent: run.span(), %error, "the run's output can't be read");
        Read::Nothing
    });
    match read {
        Read::Records => {
            for (record, bytes) in piece.records() {
                let shown = reader.take(record.stream, bytes);
                events.put((record.seq, record.stream), shown)?;
            }
        }
        Read::Lost(_) => {
            reader.doubt();
            events.lost += reader.place.seq.saturating_sub(events.wanted.max(first));
        }
        Read::Nothing if reader.place.seq >= last => put_ends(run, reader, events)?,
        // There is nothing to read it from any more.
        Read::Nothing if settled && run.ring.is_none() => {
            reader.doubt();
            reader.place.seq = last;
            events.lost += last.saturating_sub(events.wanted.max(first));
        }
        Read::Nothing => {}
    }
    events.tell_lost(reader.place.seq)?;
    Ok(reader.place.seq > first)
}

/// The ends of both streams, once there are.
fn put_ends(run: &Run, reader: &mut Reader, events: &mut Events<'_>) -> Result<(), CodecError> {
    let end = run.wrote.next_seq + run.ends();
    for (stream, seq) in [Stream::Stdout, Stream::Stderr].into_iter().zip(run.wrote.next_seq..end) {
        if seq == reader.place.seq {
            let shown = reader.end(stream);
            events.put((seq, stream), Some(shown))?;
            reader.place.seq += 1;
        }
    }
    // Numbers that nothing stands for.
    if reader.place.seq < end {
        events.lost += end - events.wanted.max(reader.place.seq);
        reader.place.seq = end;
    }
    Ok(())
}

/// Whether a follower's reader has output to read before the run's end is told: what it hides is told with that.
pub(super) fn has_more(run: &Run, reader: Option<&Reader>) -> bool {
    let next = reader.map_or(FIRST_SEQ, |reader| reader.place.seq);
    run.redacting.is_some() && run.ring.is_some() && next < run.end_of_output()
}

/// What was hidden from a follower.
pub(super) fn hidden(run: &Run, reader: Option<&Reader>) -> Option<Redactions> {
    run.redacting.as_ref()?;
    Some(redaction::told(reader.map(Reader::counts).unwrap_or_default()))
}
