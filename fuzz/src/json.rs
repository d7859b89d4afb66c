//! JSON: requests, messages and events as objects, which say the same as their bytes; and the register of launchers, which a
//! supervisor finds in its state directory.
//!
//! First byte: which kind. The rest: the text.

use core::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use stockade_protocol::ExecId;
use stockade_protocol::client::{ClientMessage, ExecEvent, ExecRequest, ServerMessage};
use stockade_protocol::codec;
use stockade_protocol::confinement::Confinement;
use stockade_protocol::denied::Denied;
use stockade_supervisor::fuzzing;

use crate::{held, shown};

const KINDS: [fn(&[u8]); 8] = [
    both_ways::<ExecRequest>,
    both_ways::<ClientMessage>,
    both_ways::<ServerMessage>,
    both_ways::<ExecEvent>,
    both_ways::<Denied>,
    both_ways::<Confinement>,
    both_ways::<ExecId>,
    register,
];

pub(crate) fn run(data: &[u8]) {
    let Some((&kind, text)) = data.split_first() else { return };
    KINDS[usize::from(kind) % KINDS.len()](text);
}

/// What is read is written and read again as the same, as an object and as bytes.
fn both_ways<T: Serialize + DeserializeOwned + PartialEq + Debug>(text: &[u8]) {
    // An array of numbers takes two bytes a byte, a text none.
    let read = held::within(held::for_message(text.len()), || serde_json::from_slice::<T>(text).ok());
    let Some(value) = read else { return };
    let written = serde_json::to_vec(&value).expect("our own types have an object");
    assert!(!written.contains(&b'\n'), "one line an object");
    assert_eq!(serde_json::from_slice::<T>(&written).expect("its own object"), value);
    let bytes = codec::encode_launch(&value).expect("a short text is a short message");
    assert_eq!(codec::decode_launch::<T>(&bytes).expect("its own bytes"), value);
}

/// What is taken is written again as what is read as the same; a refusal says what is wrong and what helps.
fn register(text: &[u8]) {
    match held::within(held::for_message(text.len()), || fuzzing::launchers(text)) {
        Ok(written) => assert_eq!(fuzzing::launchers(&written).expect("what was written"), written),
        Err(refusal) => {
            shown::check(&refusal);
            assert!(refusal.contains("launchers.json"), "{refusal}");
        }
    }
}
