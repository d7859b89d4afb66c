//! What the processes of a launcher hear from each other and from the supervisor, and it from them: datagrams, and records
//! of a run's ring.
//!
//! First byte: which kind. The rest: the datagram.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use stockade_protocol::bounds::{
    MAX_ARGUMENT, MAX_ARGUMENTS, MAX_ARGUMENTS_TOTAL, MAX_ENVIRONMENT, MAX_LAUNCH_MESSAGE, MAX_PATH,
};
use stockade_protocol::codec::{self, CodecError};
use stockade_protocol::confinement::{Confinement, Plan};
use stockade_protocol::launch::{FromLauncher, FromRelay, Launch, ToLauncher, ToRelay};
use stockade_protocol::ring::{self, Record};
use stockade_protocol::spec::{Level, RunAs, SandboxSpec};
use stockade_wire::channel;
use stockade_worker::fuzzing::{self, Again};

use crate::held;

/// Messages between processes of different builds, and two parts of them that are kept by themselves.
const WIRE: [Again; 7] = [
    again::<ToLauncher>,
    again::<FromLauncher>,
    again::<ToRelay>,
    again::<FromRelay>,
    again::<SandboxSpec>,
    again::<Launch>,
    again::<Confinement>,
];
const PERMITTED: usize = WIRE.len();
const RING: usize = PERMITTED + 1;
const DATAGRAM: usize = RING + 1;
const BELOW: usize = DATAGRAM + 1;

fn again<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
    codec::encode_launch(&codec::decode_launch::<T>(bytes)?)
}

pub(crate) fn run(data: &[u8]) {
    let Some((&kind, datagram)) = data.split_first() else { return };
    match usize::from(kind) % (BELOW + fuzzing::MESSAGES.len()) {
        PERMITTED => permitted(datagram),
        RING => records(datagram),
        DATAGRAM => whole(datagram),
        kind => {
            let again = WIRE.get(kind).copied().unwrap_or_else(|| fuzzing::MESSAGES[kind - BELOW].1);
            one_spelling(datagram, again);
        }
    }
}

/// What is taken encodes to what came; and what is refused cost no more than it was long.
fn one_spelling(datagram: &[u8], again: Again) {
    let bound = held::for_launch(datagram.len()) + held::FACTOR * datagram.len();
    match held::within(bound, || again(datagram)) {
        Ok(bytes) => assert_eq!(bytes, datagram, "another spelling"),
        Err(error) => {
            assert!(!matches!(error, CodecError::Unencodable(_)), "decoded, and can't be encoded: {error}");
        }
    }
}

/// A datagram as it comes from a socket: what it carries is what its bytes say, and a kind that nobody knows is refused.
fn whole(datagram: &[u8]) {
    let unpacked = channel::unpack::<ToLauncher>(datagram, Vec::new());
    match datagram.split_first() {
        Some((0, payload)) => {
            let taken = unpacked.ok().map(|(message, _)| message);
            assert_eq!(taken, codec::decode_launch(payload).ok());
        }
        _ => assert!(unpacked.is_err(), "no kind that is known"),
    }
}

/// What a launcher permits, whoever asks.
fn permitted(datagram: &[u8]) {
    let Ok((spec, mut launch)) = codec::decode_launch::<(SandboxSpec, Launch)>(datagram) else { return };
    let spec = Arc::new(spec);
    // For whom the launcher may start runs is asked first; whoever fuzzes isn't root, perhaps.
    launch.owner.uid = launch.owner.uid.max(1);
    for plan in [Plan::System, Plan::User] {
        if fuzzing::permitted(Arc::clone(&spec), Some(&launch), plan).is_err() {
            continue;
        }
        if let (Plan::System, RunAs::Ephemeral { start, count }) = (plan, spec.run_as)
            && spec.level != Level::Minimal
        {
            assert!(start >= 100_000 && count > 0 && start.checked_add(count).is_some(), "{start} {count}");
        }
        let lists = [&spec.deny, &spec.deny_elsewhere, &spec.protect];
        let paths = lists.into_iter().flatten().chain(spec.mounts.iter().map(|mount| &mount.target));
        let mut count = 0;
        for path in paths.chain([&launch.cwd, &launch.workspace]) {
            let plain = path.starts_with(b"/") && !path.split(|byte| *byte == b'/').any(|name| name == b"..");
            assert!(plain && path.len() <= MAX_PATH && !path.contains(&0), "{path:?}");
            count += 1;
        }
        assert!(count <= 1024 + 2, "{count} paths");
        assert!(
            (1..=MAX_ARGUMENTS).contains(&launch.argv.len()) && launch.environment.len() <= MAX_ENVIRONMENT
        );
        let words = launch.argv.iter().map(|word| word.len() + 1);
        let lengths =
            words.chain(launch.environment.iter().map(|(name, value)| name.len() + value.len() + 2));
        assert!(lengths.clone().all(|length| length <= MAX_ARGUMENT));
        assert!(lengths.sum::<usize>() <= MAX_ARGUMENTS_TOTAL);
        assert!(spec.level != Level::Minimal || lists.iter().all(|list| list.is_empty()));
    }
}

/// Headers of a ring, which may say anything: each is refused, or the one spelling of itself, and lies within the ring.
fn records(bytes: &[u8]) {
    const CAPACITY: u64 = 4096;
    let mut offset = 0_u64;
    for header in bytes.as_chunks::<{ ring::HEADER }>().0 {
        let Some(record) = Record::decode(header) else { continue };
        assert_eq!(record.encode(), *header);
        let length = record.length as usize;
        let [(at, first), (start, second)] = ring::pieces(offset, length, CAPACITY);
        assert!(at < CAPACITY && start == 0 && first + second == length && first as u64 <= CAPACITY - at);
        offset = offset.wrapping_add(record.seq);
    }
    assert!(bytes.len() <= MAX_LAUNCH_MESSAGE);
}
