//! What decoding costs in memory: a small frame that announces much must not make us allocate much.
//!
//! One test in a process of its own, because the counter counts the whole process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use peak_alloc::PeakAlloc;
use stockade_protocol::bounds::{MAX_FRAME, MAX_LAUNCH_MESSAGE};
use stockade_protocol::client::{ClientMessage, ServerMessage};
use stockade_protocol::codec;
use stockade_protocol::launch::ToLauncher;

#[global_allocator]
static COUNTER: PeakAlloc = PeakAlloc;

/// What a decoder may take beyond what its message needs: it reserves at most 1 MiB ahead for one list, and lists nest
/// three deep at most (programs of instructions in a spec).
const AHEAD: usize = 3 * 1024 * 1024;

/// Bytes in memory for a byte on the wire: the worst is an empty list in a list (8 bytes there, 24 here), in a vector
/// that grows by doubling (the old one and the new one live at once).
const FACTOR: usize = 3 * 3;

/// The most that `decode` held at once.
fn peak_of(decode: impl FnOnce()) -> usize {
    let before = COUNTER.current_usage();
    COUNTER.reset_peak_usage();
    decode();
    COUNTER.peak_usage().saturating_sub(before)
}

/// `Exec` with a list that announces `length` elements, and `room` bytes of zeros after it.
fn exec_with(length: u64, room: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.extend_from_slice(&1_u32.to_le_bytes());
    payload.extend_from_slice(&7_u64.to_le_bytes());
    payload.extend_from_slice(&length.to_le_bytes());
    payload.resize(payload.len() + room, 0);
    payload
}

#[test]
fn decoding_allocates_in_proportion_to_what_came_and_not_to_what_is_announced() {
    let lengths = [0, 1, 1 << 10, 1 << 20, 3 << 20, 1 << 32, 1 << 48, u64::MAX / 24, u64::MAX];
    for length in lengths {
        for room in [0, 64, 64 * 1024, MAX_FRAME as usize - 20] {
            let payload = exec_with(length, room);
            let peak = peak_of(|| drop(codec::decode_payload::<ClientMessage>(&payload)));
            let bound = AHEAD + FACTOR * payload.len();
            assert!(
                peak <= bound,
                "{length} announced in {} bytes: {peak} held, bound {bound}",
                payload.len()
            );
        }
        // A byte string, a text and a list, announced by themselves in the other direction and to the launcher.
        for variant in 0..8_u32 {
            let mut payload = variant.to_le_bytes().to_vec();
            for _ in 0..16 {
                payload.extend_from_slice(&length.to_le_bytes());
            }
            let peak = peak_of(|| drop(codec::decode_payload::<ServerMessage>(&payload)));
            assert!(peak <= AHEAD, "{length} announced in variant {variant}: {peak} held");
            // An announced text has its room before it's read, within the wire's bound, which is greater here.
            let peak = peak_of(|| drop(codec::decode_launch::<ToLauncher>(&payload)));
            let bound = AHEAD + MAX_LAUNCH_MESSAGE;
            assert!(peak <= bound, "{length} announced to a launcher in variant {variant}: {peak} held");
        }
    }
    // The counter counts: an honest frame of the greatest size holds about what it carries.
    let payload = [
        &2_u32.to_le_bytes()[..],
        &16_u64.to_le_bytes(),
        &[0; 16],
        &1_000_000_u64.to_le_bytes(),
        &vec![0; 1_000_000],
    ]
    .concat();
    let peak = peak_of(|| drop(codec::decode_payload::<ClientMessage>(&payload).unwrap()));
    assert!((1_000_000..3_000_000).contains(&peak), "{peak}");
    const { assert!(MAX_LAUNCH_MESSAGE <= 4 * 1024 * 1024, "a launch message is held whole") }
}
