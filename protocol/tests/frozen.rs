//! Holds the bytes of wire version 1: of one example of every variant of every message and part of a message.
//!
//! `frozen/v1.txt` has them as `name = hex`. Its first line says whether the version is `open` (unreleased: after a wanted
//! change of a type, `STOCKADE_BLESS=1 cargo test -p stockade-protocol` writes the file and the listings of
//! `docs/protocol.md` anew, and the diff is reviewed) or `released` (its bytes never change again: a change of a shape is a
//! new version, with types, examples and a file of its own).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::LazyLock;

use common::examples::{self, Form};
use common::hex;
use stockade_protocol::codec;
use stockade_protocol::ring::Record;

const OPEN: &str = "# wire version 1: open";
const RELEASED: &str = "# wire version 1: released";

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/frozen/v1.txt")
}

/// What the types of today give, in the order of the page.
fn current() -> Vec<(String, Vec<u8>)> {
    let records = examples::records().into_iter().map(|(name, record)| (name, record.encode().to_vec()));
    examples::all().into_iter().map(|example| (example.name, example.bytes)).chain(records).collect()
}

fn file_of(state: &str) -> String {
    let lines = current().into_iter().map(|(name, bytes)| format!("{name} = {}\n", hex::encode(&bytes)));
    format!("{state}\n{}", lines.collect::<String>())
}

/// Writes the file anew, once, when that is asked for and the version is open.
static BLESSED: LazyLock<()> = LazyLock::new(|| {
    if common::blessing() {
        let state = std::fs::read_to_string(path()).unwrap_or_default();
        assert!(
            !state.starts_with(RELEASED),
            "version 1 is released: its bytes don't change, a new version is due"
        );
        std::fs::write(path(), file_of(OPEN)).unwrap();
    }
});

/// The state line, and the bytes by name.
fn frozen() -> (String, BTreeMap<String, Vec<u8>>) {
    LazyLock::force(&BLESSED);
    let text = std::fs::read_to_string(path()).unwrap();
    let (state, rest) = text.split_once('\n').unwrap();
    let entries = rest.lines().map(|line| {
        let (name, bytes) = line.split_once(" = ").expect("name = hex");
        (name.to_owned(), hex::decode(bytes).unwrap())
    });
    (state.to_owned(), entries.collect())
}

#[test]
fn frozen_bytes_equal_what_the_types_encode() {
    let (state, frozen) = frozen();
    assert!(state == OPEN || state == RELEASED, "unknown state {state:?}");
    let current: BTreeMap<_, _> = current().into_iter().collect();
    let names = |map: &BTreeMap<String, Vec<u8>>| map.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&frozen), names(&current), "an example came or went");
    for (name, bytes) in &frozen {
        assert_eq!(hex::spaced(bytes), hex::spaced(&current[name]), "the bytes of {name} have changed");
    }
}

#[test]
fn frozen_bytes_decode_to_the_example_and_encode_to_themselves() {
    let (_, frozen) = frozen();
    for example in examples::all() {
        let bytes = &frozen[&example.name];
        let payload = if example.form == Form::Frame {
            let header = bytes[..codec::HEADER].try_into().unwrap();
            let length = codec::payload_length(header, stockade_protocol::bounds::MAX_FRAME).unwrap();
            assert_eq!(length, bytes.len() - codec::HEADER, "{}", example.name);
            &bytes[codec::HEADER..]
        } else {
            bytes
        };
        let (again, text) = (example.again)(payload).unwrap();
        assert_eq!(&again, bytes, "{}", example.name);
        assert_eq!(text, example.text, "{}", example.name);
    }
    for (name, record) in examples::records() {
        let bytes = frozen[&name].as_slice().try_into().unwrap();
        assert_eq!(Record::decode(bytes), Some(record), "{name}");
    }
}

/// The second encoder knows only the page's rules.
#[test]
fn frozen_bytes_equal_those_of_an_encoder_written_from_the_page() {
    for example in examples::all() {
        assert_eq!(
            hex::spaced(&example.annotator.bytes()),
            hex::spaced(example.payload()),
            "{}",
            example.name
        );
    }
}

#[test]
fn frozen_examples_have_every_variant_of_every_type_once() {
    let mut seen: BTreeMap<String, (u32, BTreeSet<u32>)> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for example in examples::all() {
        assert!(names.insert(example.name.clone()), "two examples are named {}", example.name);
        let (kind, index, _) = example.annotator.outermost.expect("an enum");
        assert_eq!(kind, example.kind(), "{}", example.name);
        let entry = seen.entry(kind.to_owned()).or_insert((example.variants, BTreeSet::new()));
        assert!(entry.0 > 0, "{kind} doesn't say how many variants it has");
        entry.1.insert(index);
    }
    for (kind, (variants, indices)) in &seen {
        let all: BTreeSet<u32> = (0..*variants).collect();
        assert_eq!(indices, &all, "{kind} has variants without an example");
    }
    // Every enum of the crate's sources that is encoded has examples here.
    let sources = ["client", "confinement", "denied", "grants", "launch", "outcome", "spec", "statistics"];
    for source in sources {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("src/{source}.rs"));
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let Some(rest) = line.strip_prefix("pub enum ") else { continue };
            let name: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
            assert!(seen.contains_key(&name), "{source}.rs: {name} has no examples");
        }
    }
}

#[test]
fn frozen_hello_is_26_bytes_and_starts_with_0x16_in_every_version() {
    let hello = examples::all().into_iter().find(|example| example.name == "ClientMessage/Hello").unwrap();
    assert_eq!(hello.bytes.len(), 26);
    assert_eq!(hello.bytes[0], 0x16);
    assert_eq!(&hello.bytes[8..16], b"STOCKADE");
}
