//! What a run that has ended has printed on standard output, from its ring: where all of it stands as long as it's no more than a
//! ring has. What may be a part of it isn't taken for the whole.

use stockade_protocol::client::Stream;
use stockade_protocol::ring::FIRST_SEQ;

use crate::output::{Place, Read};
use crate::redacted::Piece;
use crate::runs::Run;

/// All of it; of what is longer than `most`, the beginning, which is longer, too.
///
/// # Errors
/// Why it isn't known.
pub(super) fn printed(run: &Run, most: usize) -> Result<Vec<u8>, &'static str> {
    if run.ring_bytes.is_none() {
        // By a file that promised nothing when the run was launched.
        return Err("its output didn't pass through the daemon");
    }
    if !run.wrote.eof {
        // It has ended, and its relay said nothing for a while.
        return Err("the end of its output wasn't told");
    }
    let Some(ring) = &run.ring else {
        // Nothing was written, or another supervisor has let it go.
        return if run.wrote.next_seq > FIRST_SEQ {
            Err("its output isn't kept any more")
        } else {
            Ok(Vec::new())
        };
    };
    let (mut output, mut piece) = (Vec::new(), Piece::default());
    let mut place = Place { seq: FIRST_SEQ, offset: Some(0) };
    while place.seq < run.wrote.next_seq && output.len() <= most {
        piece.clear();
        match ring.read(&run.wrote, &mut place, (run.wrote.next_seq, true, run.acknowledged), &mut piece) {
            Ok(Read::Records) => {
                let records = piece.records().filter(|(record, _)| record.stream == Stream::Stdout);
                records.for_each(|(_, bytes)| output.extend_from_slice(bytes));
            }
            Ok(Read::Nothing | Read::Lost(_)) | Err(_) => {
                return Err("a part of its output isn't kept any more");
            }
        }
    }
    Ok(output)
}
