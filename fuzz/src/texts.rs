//! Short texts of strangers: the head of an HTTP request, a client's `traceparent`, what systemd says in the environment, the
//! kernel's files about processes that choose their own names, and text that is shown on a terminal.
//!
//! First byte: which. The rest: the text.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use stockade_protocol::Bytes;
use stockade_supervisor::fuzzing::{self, Head};

use crate::{escape, held};

const KINDS: [fn(&[u8]); 5] = [http, traceparent, systemd, process, terminal];

pub(crate) fn run(data: &[u8]) {
    let Some((&kind, text)) = data.split_first() else { return };
    KINDS[usize::from(kind) % KINDS.len()](text);
}

/// The most that is read of a head, in bytes: its bound.
const HEAD: usize = 8 * 1024;

/// A head is the same in whichever pieces it comes, costs no more than its bound, and nothing of it is in an answer's head.
fn http(text: &[u8]) {
    let Some((&piece, request)) = text.split_first() else { return };
    let read = |piece| held::within(8 * HEAD, || fuzzing::http(request, piece));
    let (whole, taken) = read(request.len());
    let (pieces, also) = read(usize::from(piece));
    assert!(taken <= HEAD && also <= HEAD, "{taken} and {also} bytes read of a head");
    match (&whole, &pieces) {
        (Head::Asked { method, path }, same) => {
            assert_eq!(&whole, same);
            assert!(!method.is_empty() && !path.is_empty());
            for word in [method, path] {
                assert!(request.windows(word.len()).any(|part| part == word.as_bytes()), "{word:?}");
            }
        }
        (Head::Refused(one), Head::Refused(other)) => {
            // Which of two things that are wrong is met first may depend on the pieces.
            answered(one);
            answered(other);
        }
        (one, other) => assert_eq!(one, other),
    }
}

/// One status line, a body as long as it says, and no more.
fn answered(answer: &[u8]) {
    let text = core::str::from_utf8(answer).expect("our own words");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    let mut lines = head.split("\r\n");
    let status = lines.next().expect("a status line");
    assert!(status.starts_with("HTTP/1.1 400 ") || status.starts_with("HTTP/1.1 431 "), "{status}");
    let lengths: Vec<_> = lines.filter_map(|line| line.strip_prefix("Content-Length: ")).collect();
    assert_eq!(lengths, [body.len().to_string()]);
    assert!(!head.contains(['\n', '\r']) || head.split("\r\n").all(|line| !line.contains(['\n', '\r'])));
}

/// What is a parent is one that the standard has, and is read again as the same; the last of several counts.
fn traceparent(text: &[u8]) {
    let of = |text: &[u8]| {
        let first = (Bytes::from("TRACEPARENT"), Bytes::from("00-1-1-01"));
        fuzzing::traceparent(&[first, (Bytes::from("TRACEPARENT"), Bytes::from(text))])
    };
    let Some(parent) = of(text) else { return };
    assert_eq!(of(parent.as_bytes()).as_deref(), Some(&*parent));
    let came = core::str::from_utf8(text).expect("a parent is text");
    // All but the version and the flags stands in what came.
    assert_eq!(came.get(2..53), parent.get(2..53));
    assert!(!came.starts_with("ff") && parent.len() == 55);
    let flags = u8::from_str_radix(&came[53..55], 16).expect("two digits");
    assert_eq!(parent.ends_with("01"), flags & 1 == 1);
}

/// `NOTIFY_SOCKET` and the names of what was passed.
fn systemd(text: &[u8]) {
    match fuzzing::notify_socket(OsStr::from_bytes(text)) {
        Ok((name, true)) => assert_eq!(text, [b"@", &*name].concat()),
        Ok((name, false)) => assert!(name == text && text.starts_with(b"/") && !text.contains(&0)),
        Err(_) => {}
    }
    let Ok(text) = core::str::from_utf8(text) else { return };
    let names: Vec<String> = text.split(':').map(str::to_owned).collect();
    let ours = names.len() == 1 && (text == "clients" || text == "unknown" || text.ends_with(".socket"));
    assert_eq!(fuzzing::clients_socket(&names), ours.then_some(0));
}

/// A process's files: whatever its name is, the fields behind it are what they are.
fn process(text: &[u8]) {
    let lossy = String::from_utf8_lossy(text);
    let (_, _, groups) = fuzzing::process(&lossy, &lossy, (1000, 1000));
    assert!(groups.is_none_or(|groups| groups.len() <= lossy.len()));
    let _any = stockade_worker::fuzzing::process(text);
    // A name may hold anything but NUL, and is cut at 15 bytes.
    let name = lossy.replace('\0', " ");
    let stat = format!(
        "17 ({name}) S 4711 17 17 0 -1 4194560 1 0 0 0 5 6 7 8 20 0 3 0 99 4096 12 18446744073709551615"
    );
    let (found, parent, _) = fuzzing::process(&stat, "", (0, 0));
    assert_eq!((found, parent), (Some(&*name), Some(4711)));
    let (said, _, _) = stockade_worker::fuzzing::process(stat.as_bytes());
    let said = said.expect("a whole stat");
    assert_eq!((said.parent, said.threads, said.started, said.virtual_bytes), (4711, 3, 99, 4096));
    let status =
        format!("Name:\t{}\nUid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nGroups:\t1 2 \n", name.escape_debug());
    let (_, _, groups) = fuzzing::process("", &status, (7, 8));
    assert_eq!(groups, Some(vec![1, 2]), "{status}");
}

/// What a terminal obeys, or an eye can't see, by Unicode's own lists: controls, what Unicode ignores by default
/// (`Default_Ignorable_Code_Point`), and the two separators of lines and paragraphs.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(u32::from(c),
            0xad | 0x34f | 0x61c | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180b..=0x180f | 0x200b..=0x200f
            | 0x2028..=0x202e | 0x2060..=0x206f | 0x3164 | 0xfe00..=0xfe0f | 0xfeff | 0xffa0
            | 0xfff0..=0xfffb | 0x1_bca0..=0x1_bca3 | 0x1_d173..=0x1_d17a | 0xe_0000..=0xe_0fff)
}

/// Nothing that a terminal obeys is left, what it doesn't is as it was, and escaping twice is escaping once.
fn terminal(bytes: &[u8]) {
    let (line, text) = (escape::line(bytes), escape::text(bytes));
    for (shown, kept) in [(&line, ""), (&text, "\n\t\u{fe0e}\u{fe0f}")] {
        let wrong = shown.chars().find(|c| is_obeyed(*c) && !kept.contains(*c));
        assert_eq!(wrong.map(char::escape_unicode).map(|wrong| wrong.to_string()), None);
        assert!(shown.len() <= 10 * bytes.len(), "{} bytes become {}", bytes.len(), shown.len());
    }
    assert_eq!(escape::line(line.as_bytes()), line);
    // What is shown exactly can be read back: nothing else looks so.
    let exact = escape::exact(bytes);
    assert_eq!(escape::line(exact.as_bytes()), exact);
    assert!(!exact.contains("  ") && read_back(&exact) == bytes, "{exact:?}");
    assert_eq!(escape::text(text.as_bytes()), text);
    assert_eq!(escape::line(text.as_bytes()), line);
    let plain = core::str::from_utf8(bytes).is_ok_and(|plain| !plain.chars().any(is_obeyed));
    assert!(!plain || line.as_bytes() == bytes, "{line}");
    assert_eq!(escape::for_terminal(bytes, true), text.as_bytes());
    assert_eq!(escape::for_terminal(bytes, false), bytes);
}

/// The bytes of which a text was made by [`escape::exact`].
fn read_back(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some(letter) = rest.chars().next() {
        rest = &rest[letter.len_utf8()..];
        if letter != '\\' {
            bytes.extend(letter.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let braced =
            |rest: &str, from: usize| rest[from..].find('}').map(|end| rest[from..from + end].to_owned());
        let taken = match rest.as_bytes() {
            [b'x', b'2', b'0', b'{', ..] => {
                let count = braced(rest, 4).unwrap();
                bytes.extend(vec![b' '; count.parse().unwrap()]);
                5 + count.len()
            }
            [b'x', ..] => {
                bytes.push(u8::from_str_radix(&rest[1..3], 16).unwrap());
                3
            }
            [b'u', ..] => {
                let number = braced(rest, 2).unwrap();
                let letter = char::from_u32(u32::from_str_radix(&number, 16).unwrap()).unwrap();
                bytes.extend(letter.encode_utf8(&mut [0; 4]).as_bytes());
                3 + number.len()
            }
            [sign, ..] => {
                bytes.push(match sign {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    other => *other,
                });
                1
            }
            [] => panic!("an escape without an end"),
        };
        rest = &rest[taken..];
    }
    bytes
}
