//! What the codec does with frames that aren't as they should be: every one is an error by name, none is a panic, and
//! what is decoded was there to the last byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::examples::{self, Example};
use proptest::prelude::*;
use stockade_protocol::bounds::{MAX_FRAME, MAX_LAUNCH_MESSAGE};
use stockade_protocol::client::{
    ClientMessage, ExecRequest, OutputMode, Overrides, ServerMessage, StdinMode, ToolCall, Workspace,
};
use stockade_protocol::codec::{self, CodecError};
use stockade_protocol::launch::{FromLauncher, FromOpener, FromRelay, ToLauncher, ToOpener, ToRelay};
use stockade_protocol::ring::{self, Record};
use stockade_protocol::{Bytes, ExecId};

#[test]
fn header_of_an_empty_frame_is_refused() {
    assert_eq!(codec::payload_length([0; 4], MAX_FRAME), Err(CodecError::Empty));
}

#[test]
fn header_at_the_limit_is_taken_and_one_over_it_is_refused() {
    for limit in [1, 4_096, MAX_FRAME] {
        assert_eq!(codec::payload_length(limit.to_le_bytes(), limit), Ok(usize::try_from(limit).unwrap()));
        let over = limit + 1;
        let refused = CodecError::TooLarge { length: over.into(), limit: limit.into() };
        assert_eq!(codec::payload_length(over.to_le_bytes(), limit), Err(refused));
    }
    assert!(matches!(codec::payload_length([0xff; 4], MAX_FRAME), Err(CodecError::TooLarge { .. })));
}

#[test]
fn header_of_json_or_of_lsp_framing_is_over_the_limit() {
    for foreign in [*b"{\"js", *b"[{\"j", *b"Cont", *b"GET "] {
        assert!(matches!(codec::payload_length(foreign, MAX_FRAME), Err(CodecError::TooLarge { .. })));
    }
}

#[test]
fn message_cut_at_any_byte_is_malformed() {
    for example in examples::all() {
        let payload = example.payload();
        for length in 0..payload.len() {
            let error = (example.again)(&payload[..length]).expect_err(&example.name);
            assert!(matches!(error, CodecError::Malformed(_)), "{} cut at {length}: {error}", example.name);
        }
    }
}

#[test]
fn bytes_after_a_message_are_refused_and_counted() {
    for example in examples::all() {
        for extra in [1_usize, 7, 4_096] {
            let mut payload = example.payload().to_vec();
            payload.resize(payload.len() + extra, 0);
            let error = (example.again)(&payload).expect_err(&example.name);
            assert_eq!(error, CodecError::TrailingBytes(extra), "{}", example.name);
        }
    }
}

#[test]
fn unknown_variant_is_malformed() {
    for example in examples::all() {
        let mut payload = example.payload().to_vec();
        payload[..4].copy_from_slice(&example.variants.to_le_bytes());
        let error = (example.again)(&payload).expect_err(&example.name);
        assert!(matches!(error, CodecError::Malformed(_)), "{}: {error}", example.name);
        let words = error.to_string();
        assert!(
            words.starts_with("malformed message: invalid value: integer"),
            "words of the codec's: {words}"
        );
    }
}

/// The last byte of an `Exec` is a bool, the last of a `Welcome` is text.
#[test]
fn byte_that_is_no_bool_and_text_that_is_no_utf8_are_malformed() {
    for (name, byte) in [("ClientMessage/Exec", 2), ("ServerMessage/Welcome", 0xff)] {
        let example = find(name);
        let mut payload = example.payload().to_vec();
        *payload.last_mut().unwrap() = byte;
        assert!(matches!((example.again)(&payload), Err(CodecError::Malformed(_))), "{name}");
    }
}

/// A list that announces more elements than there can be bytes for.
#[test]
fn list_with_an_impossible_length_is_malformed() {
    let example = find("ClientMessage/Exec");
    let mut payload = example.payload().to_vec();
    // Variant (4), request_id (8), then the length of argv (8).
    for length in [u64::MAX, u64::from(u32::MAX), 1 << 40] {
        payload[12..20].copy_from_slice(&length.to_le_bytes());
        assert!(matches!((example.again)(&payload), Err(CodecError::Malformed(_))), "{length}");
    }
}

#[test]
fn message_over_the_limit_is_not_encoded_and_leaves_the_buffer_as_it_was() {
    let exec_id = examples::RUN;
    let message = ClientMessage::StdinData { exec_id, bytes: Bytes(vec![b'x'; 8_192]) };
    let mut out = b"before".to_vec();
    assert!(matches!(codec::encode_frame(&message, 4_096, &mut out), Err(CodecError::TooLarge { .. })));
    assert_eq!(out, b"before");
    let message = ClientMessage::StdinData { exec_id, bytes: Bytes(vec![b'x'; MAX_FRAME as usize]) };
    assert!(codec::encode_frame(&message, MAX_FRAME, &mut out).is_err());
    assert_eq!(out, b"before");
}

#[test]
fn launch_message_over_the_limit_is_not_encoded() {
    let message = ToLauncher::Cancel {
        exec_id: examples::RUN,
        reason: stockade_protocol::outcome::CancelReason::GuardDissolved {
            path: Bytes(vec![b'x'; MAX_LAUNCH_MESSAGE]),
        },
    };
    assert!(codec::encode_launch(&message).is_err());
}

fn find(name: &str) -> Example {
    examples::all().into_iter().find(|example| example.name == name).unwrap()
}

fn byte_strings(most: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..most).prop_map(Bytes)
}

prop_compose! {
    fn overrides()(
        times in any::<[Option<u64>; 3]>(),
        amounts in any::<[Option<u64>; 3]>(),
    ) -> Overrides {
        let [wall_ms, cpu_ms, idle_ms] = times;
        let [memory, processes, output] = amounts;
        Overrides { wall_ms, cpu_ms, idle_ms, memory, processes, output }
    }
}

prop_compose! {
    fn requests()(
        request_id in any::<u64>(),
        argv in prop::collection::vec(byte_strings(64), 0..8),
        environment in prop::collection::vec((byte_strings(16), byte_strings(64)), 0..8),
        cwd in byte_strings(64),
        policy in ".{0,20}",
        path in byte_strings(64),
        passed in any::<bool>(),
        overrides in overrides(),
        stdin in prop_oneof![
            Just(StdinMode::None),
            byte_strings(256).prop_map(StdinMode::Inline),
            Just(StdinMode::Stream),
            Just(StdinMode::Descriptor),
        ],
        output in prop_oneof![Just(OutputMode::Stream), Just(OutputMode::Descriptor)],
        detach in any::<bool>(),
        tool in proptest::option::of((".{0,20}", byte_strings(64))),
    ) -> ExecRequest {
        let tool = tool.map(|(name, parameters)| ToolCall { name, parameters });
        let workspace = if passed { Workspace::Descriptor { path } } else { Workspace::Path { path } };
        ExecRequest { request_id, argv, environment, cwd, policy, workspace, overrides, stdin, output, detach, tool }
    }
}

fn client_messages() -> impl Strategy<Value = ClientMessage> {
    let id = any::<[u8; 16]>().prop_map(ExecId::from_bytes);
    prop_oneof![
        requests().prop_map(|request| ClientMessage::Exec(Box::new(request))),
        (id.clone(), byte_strings(512))
            .prop_map(|(exec_id, bytes)| ClientMessage::StdinData { exec_id, bytes }),
        (id.clone(), any::<u8>()).prop_map(|(exec_id, signal)| ClientMessage::Signal { exec_id, signal }),
        (id.clone(), any::<(u16, u16)>()).prop_map(|(exec_id, (rows, columns))| ClientMessage::Resize {
            exec_id,
            rows,
            columns
        }),
        (id, any::<u64>()).prop_map(|(exec_id, after_seq)| ClientMessage::Attach { exec_id, after_seq }),
    ]
}

/// Bytes at random; and examples with a few bytes changed, which get much deeper into a decoder.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let damaged = (
        any::<prop::sample::Index>(),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    )
        .prop_map(|(which, changes)| {
            let examples = examples::all();
            let mut payload = which.get(&examples).payload().to_vec();
            for (at, byte) in changes {
                let at = at.index(payload.len());
                payload[at] = byte;
            }
            payload
        });
    prop_oneof![prop::collection::vec(any::<u8>(), 0..512), damaged]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_client_message_comes_back_from_its_frame(message in client_messages()) {
        let mut frame = b"earlier".to_vec();
        codec::encode_frame(&message, MAX_FRAME, &mut frame).unwrap();
        let frame = &frame[b"earlier".len()..];
        let (header, payload) = frame.split_at(codec::HEADER);
        let length = codec::payload_length(header.try_into().unwrap(), MAX_FRAME).unwrap();
        prop_assert_eq!(length, payload.len());
        prop_assert_eq!(codec::decode_payload::<ClientMessage>(payload).unwrap(), message.clone());
        prop_assert_eq!(common::annotate::annotate(&message).bytes(), payload);
    }

    /// No panic; and what is taken for a message encodes to exactly the bytes that came: no two spellings of one.
    #[test]
    fn any_bytes_are_an_error_or_the_one_spelling_of_a_message(payload in hostile()) {
        if let Ok(message) = codec::decode_payload::<ClientMessage>(&payload) {
            let mut frame = Vec::new();
            codec::encode_frame(&message, MAX_FRAME, &mut frame).unwrap();
            prop_assert_eq!(&frame[codec::HEADER..], &payload[..]);
        }
        if let Ok(message) = codec::decode_payload::<ServerMessage>(&payload) {
            let mut frame = Vec::new();
            codec::encode_frame(&message, MAX_FRAME, &mut frame).unwrap();
            prop_assert_eq!(&frame[codec::HEADER..], &payload[..]);
        }
        if let Ok(message) = codec::decode_launch::<ToLauncher>(&payload) {
            prop_assert_eq!(codec::encode_launch(&message).unwrap(), payload.clone());
        }
        if let Ok(message) = codec::decode_launch::<FromLauncher>(&payload) {
            prop_assert_eq!(codec::encode_launch(&message).unwrap(), payload.clone());
        }
        if let Ok(message) = codec::decode_launch::<ToRelay>(&payload) {
            prop_assert_eq!(codec::encode_launch(&message).unwrap(), payload.clone());
        }
        if let Ok(message) = codec::decode_launch::<FromRelay>(&payload) {
            prop_assert_eq!(codec::encode_launch(&message).unwrap(), payload.clone());
        }
        if let Ok(message) = codec::decode_launch::<ToOpener>(&payload) {
            prop_assert_eq!(codec::encode_launch(&message).unwrap(), payload.clone());
        }
        if let Ok(message) = codec::decode_launch::<FromOpener>(&payload) {
            prop_assert_eq!(codec::encode_launch(&message).unwrap(), payload);
        }
    }

    #[test]
    fn any_header_is_within_the_limit_or_an_error(header in any::<[u8; 4]>(), limit in 1..=MAX_FRAME) {
        match codec::payload_length(header, limit) {
            Ok(length) => prop_assert!(length >= 1 && length <= limit as usize),
            Err(CodecError::Empty) => prop_assert_eq!(header, [0; 4]),
            Err(CodecError::TooLarge { length, .. }) => prop_assert!(length > limit.into()),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    /// A record's header, taken, is the one spelling of itself; a reserved byte or another stream is refused.
    #[test]
    fn any_ring_header_is_refused_or_the_one_spelling_of_a_record(header in any::<[u8; ring::HEADER]>(), stream in 0_u8..4) {
        let mut plausible = header;
        plausible[4] = stream;
        plausible[5..8].fill(0);
        for bytes in [header, plausible] {
            if let Some(record) = Record::decode(&bytes) {
                prop_assert_eq!(record.encode(), bytes);
            }
        }
        prop_assert_eq!(Record::decode(&plausible).is_some(), stream == 1 || stream == 2);
    }

    /// The pieces of a record cover its bytes once, in order, within the ring.
    #[test]
    fn any_record_has_its_pieces_within_the_ring(offset in any::<u64>(), length in 0_usize..4_096, power in 12_u32..24) {
        let capacity = 1_u64 << power;
        let [(at, first), (zero, second)] = ring::pieces(offset, length, capacity);
        prop_assert_eq!(at, offset % capacity);
        prop_assert_eq!(zero, 0);
        prop_assert_eq!(first + second, length);
        prop_assert!(at + first as u64 <= capacity);
        prop_assert!(second == 0 || at + first as u64 == capacity);
    }

    #[test]
    fn any_id_comes_back_from_its_text(bytes in any::<[u8; 16]>()) {
        let id = ExecId::from_bytes(bytes);
        prop_assert_eq!(id.to_string().parse::<ExecId>().unwrap(), id);
    }
}
