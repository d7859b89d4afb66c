//! What a tool that has ended well has printed, held against what its file promises: read from its ring, where all of it stands as
//! long as it's no more than a ring has.

use stockade_gate::tools::Tool;
use stockade_protocol::client::ResultCheck;
use stockade_protocol::ring::FIRST_SEQ;

use crate::output::{Place, Read};
use crate::promised::Printed;
use crate::redacted::Piece;
use crate::runs::Run;

/// Whether what a run printed is what its tool promises; `None`: it promises nothing. Only once its output has ended.
pub(super) fn check(run: &Run, tool: &Tool, piece: &mut Piece) -> Option<ResultCheck> {
    tool.result.as_ref()?;
    let mut printed = Printed::default();
    collect(run, piece, &mut printed);
    piece.clear();
    printed.check(tool, run.redacting.is_some())
}

fn collect(run: &Run, piece: &mut Piece, printed: &mut Printed) {
    let Some(ring) = &run.ring else {
        // Nothing was written, or it went past us: by a file that promised nothing when the run was launched.
        if run.ring_bytes.is_none() {
            printed.lose("its output didn't pass through the daemon");
        } else if run.wrote.next_seq > FIRST_SEQ {
            printed.lose("its output isn't kept any more");
        }
        return;
    };
    if !run.wrote.eof {
        // It has ended, and its relay said nothing for a while.
        return printed.lose("the end of its output wasn't told");
    }
    let mut place = Place { seq: FIRST_SEQ, offset: Some(0) };
    loop {
        piece.clear();
        match ring.read(&run.wrote, &mut place, (run.wrote.next_seq, true, run.acknowledged), piece) {
            Ok(Read::Records) => {
                piece.records().for_each(|(record, bytes)| printed.feed(record.stream, bytes));
            }
            Ok(Read::Nothing) if place.seq >= run.wrote.next_seq => return,
            Ok(Read::Nothing | Read::Lost(_)) | Err(_) => {
                return printed.lose("the beginning of its output isn't kept any more");
            }
        }
    }
}
