//! The example of `docs/audit.md`, decoded by what that page says: with its offsets and labels written out once more here, and
//! then by the code. `STOCKADE_BLESS=1` writes it anew.

use crate::event::{Event, Principal, Request, What};
use crate::format::{Body, Header, Label, Link, Ratchet, Record};
use crate::format::{Class, Kind};
use crate::head::{Signing, is_signed};
use crate::secret::{Secret, hash, hex, unhex};
use crate::segment::HEADER_PURPOSE;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/audit.md");

fn event() -> Event {
    let request = Request { action: "run".into(), exec: Some("e1".into()), ..Request::default() };
    let principal = Principal { uid: 1000, ..Principal::default() };
    Event { principal: Some(principal), what: What::Intent(request) }
}

/// The example's bytes.
fn made() -> Vec<u8> {
    let (root, signing) = (Secret::of([0x11; 32]), Signing::of(&Secret::of([0x22; 32])));
    let mut header = Header {
        log: [0x44; 16],
        number: 1,
        first: 1,
        time: 1_795_341_621_000_000_000,
        before: [0; 32],
        tail: 0,
        tail_hash: [0; 32],
        days: [366, 184, 92],
        newest: 0,
        wrapping: [0x55; 16],
        wrapped: [0; 60],
        public: signing.public(),
        chain: [0; 32],
        mac: [0; 32],
        signature: [0; 64],
    };
    let wrapped = Secret::of([0x33; 32]).wrap(&root, &header.bound()).unwrap();
    header.wrapped.copy_from_slice(&wrapped);
    header.chain = header.own_chain();
    header.mac = Ratchet::header(&root, &header.chain);
    header.signature = signing.sign(HEADER_PURPOSE, &header.chain);
    let mut bytes = header.encode();
    let mut body = event().encode();
    let length = u32::try_from(body.len() + 16).unwrap();
    let label =
        Label { kind: Kind::Event, class: Class::Access, sequence: 1, time: header.time + 1, body: length };
    let tag = root.cipher().seal(&label.nonce(), &label.covered(), &mut body).unwrap();
    body.extend(tag);
    let chain = label.chain(&Link { chain: header.chain, mac: header.mac }, &hash(&[&body]));
    let mac = Ratchet::of(&root, 1).mac(&chain);
    Record { label, body: Body::Whole(&body), chain, mac, length: 0 }.encode(&mut bytes);
    bytes
}

fn bless(page: &str) {
    let digits = hex(&made());
    let lines: Vec<&str> =
        digits.as_bytes().chunks(96).map(|line| core::str::from_utf8(line).unwrap()).collect();
    let (before, rest) = page.split_once("```text\nEXAMPLE\n```").unwrap_or_else(|| {
        let (before, rest) = page.rsplit_once("```text\n").unwrap();
        (before, rest.split_once("```").unwrap().1)
    });
    let after = rest.split_once("Its event: `").unwrap();
    let event = String::from_utf8(event().encode()).unwrap();
    let text = format!(
        "{before}```text\n{}\n```{}Its event: `{event}`{}",
        lines.join("\n"),
        after.0,
        after.1.split_once('`').unwrap().1
    );
    std::fs::write(PAGE, text).unwrap();
}

#[test]
fn the_example_on_the_page_is_what_the_page_says() {
    let mut page = std::fs::read_to_string(PAGE).unwrap();
    if std::env::var_os("STOCKADE_BLESS").is_some() {
        bless(&page);
        page = std::fs::read_to_string(PAGE).unwrap();
    }
    let (_, rest) = page.rsplit_once("```text\n").unwrap();
    let digits: String = rest.split_once("```").unwrap().0.split_whitespace().collect();
    let bytes = unhex(&digits).unwrap();
    let told = rest.split_once("Its event: `").unwrap().1.split_once('`').unwrap().0;
    let number = |at: usize, many: usize| {
        bytes[at..at + many].iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let root = Secret::of([0x11; 32]);
    // By the page.
    assert_eq!(&bytes[..8], b"STKAUDIT");
    assert_eq!([number(8, 2), number(10, 2), number(12, 4), number(32, 8), number(40, 8)], [1, 380, 0, 1, 1]);
    assert_eq!([number(128, 2), number(130, 2), number(132, 2), number(134, 8)], [366, 184, 92, 0]);
    let key = Secret::of([0x33; 32]).unwrap(&bytes[160..220], &bytes[..160]).unwrap();
    assert_eq!(key, root, "the segment's key, sealed");
    let chain = hash(&[b"stockade audit segment", &bytes[..252]]);
    assert_eq!(chain, bytes[252..284]);
    let header_mac = Secret::of(root.mac(b"header")).mac(&chain);
    assert_eq!(header_mac, bytes[284..316]);
    let public = bytes[220..252].try_into().unwrap();
    let signature = bytes[316..380].try_into().unwrap();
    assert!(is_signed(&public, "stockade audit segment header", &chain, &signature));
    let record = &bytes[380..];
    assert_eq!(record[..4], [0xa5, b'S', b'A', b'R']);
    let n = usize::try_from(number(380 + 12, 4)).unwrap();
    assert_eq!((record.len(), number(380 + 4, 4)), (96 + n, (96 + n) as u64));
    assert_eq!((&record[8..12], number(380 + 16, 8)), (&[1, 1, 2, 0][..], 1));
    let body = &record[32..32 + n];
    let linked = hash(&[b"record", &chain, &header_mac, &record[8..11], &record[12..32], &hash(&[body])]);
    assert_eq!(linked, record[32 + n..64 + n]);
    assert_eq!(Secret::of(root.mac(b"records")).mac(&linked), record[64 + n..]);
    let mut nonce = [0; 12];
    nonce[0] = 1;
    let mut text = Vec::new();
    assert!(key.cipher().open(&nonce, &[&record[8..11], &record[12..32]].concat(), body, &mut text));
    assert_eq!(String::from_utf8(text.clone()).unwrap(), told);
    // By the code.
    assert_eq!(Event::decode(&text), Some(event()));
    assert_eq!(Header::decode(&bytes).unwrap().chain, chain);
    assert_eq!(Record::decode(record).unwrap().chain, linked);
}
