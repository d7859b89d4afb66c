//! Holds `docs/protocol.md` to the types: each listing of bytes is the example it names, each message of the client wire has
//! one, and each table has the fields, types, variants and numbers that the sources have.
//!
//! A listing is a fenced block whose info string is `hex NAME`, with an example's name. `STOCKADE_BLESS=1` writes listings
//! anew (see `frozen.rs`); tables are written by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::LazyLock;

use common::examples::{self, Form};
use common::hex;
use stockade_protocol::bounds;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn page_path() -> PathBuf {
    root().join("../docs/protocol.md")
}

/// Name and text of each listing.
fn listings(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in page.lines() {
        match (&mut open, line) {
            (None, _) if line.starts_with("```hex ") => {
                open = Some((line[7..].trim().to_owned(), String::new()));
            }
            (Some(_), "```") => found.extend(open.take()),
            (Some((_, text)), _) => *text += &format!("{line}\n"),
            (None, _) => {}
        }
    }
    assert!(open.is_none(), "a listing without an end");
    found
}

/// What each listing has to say.
fn wanted() -> BTreeMap<String, (Vec<u8>, String)> {
    let mut wanted = BTreeMap::new();
    for example in examples::all() {
        let listing = example.annotator.listing(example.header());
        wanted.insert(example.name, (example.bytes, listing));
    }
    for (name, record) in examples::records() {
        let bytes = record.encode();
        let said = [
            format!("length of the payload: {}", record.length),
            format!("{:?}", record.stream),
            "zero".to_owned(),
            format!("sequence number {}", record.seq),
        ];
        let cuts = [&bytes[..4], &bytes[4..5], &bytes[5..8], &bytes[8..]];
        let listing =
            cuts.iter().zip(said).map(|(cut, said)| format!("{:<48}# {said}\n", hex::spaced(cut))).collect();
        wanted.insert(name, (bytes.to_vec(), listing));
    }
    wanted
}

static PAGE: LazyLock<String> = LazyLock::new(|| {
    let page = std::fs::read_to_string(page_path()).unwrap();
    if !common::blessing() {
        return page;
    }
    let wanted = wanted();
    let mut blessed = String::new();
    let mut within = false;
    for line in page.lines() {
        if let Some(name) = line.strip_prefix("```hex ") {
            within = true;
            let listing = wanted.get(name.trim()).map(|(_, listing)| listing.as_str());
            blessed +=
                &format!("{line}\n{}", listing.unwrap_or_else(|| panic!("no example is named {name}")));
        } else if within {
            within = line != "```";
            if !within {
                blessed += "```\n";
            }
        } else {
            blessed += &format!("{line}\n");
        }
    }
    std::fs::write(page_path(), &blessed).unwrap();
    blessed
});

#[test]
fn page_listings_decode_to_the_examples_they_name() {
    let wanted = wanted();
    let examples: BTreeMap<String, _> =
        examples::all().into_iter().map(|example| (example.name.clone(), example)).collect();
    let listings = listings(&PAGE);
    assert!(listings.len() > 20, "only {} listings", listings.len());
    for (name, text) in &listings {
        let (bytes, listing) = wanted.get(name).unwrap_or_else(|| panic!("no example is named {name}"));
        let read = hex::decode(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(hex::spaced(&read), hex::spaced(bytes), "{name}");
        assert_eq!(text, listing, "{name}: what the listing says of its bytes");
        if let Some(example) = examples.get(name) {
            let payload = if example.form == Form::Frame { &read[4..] } else { &read[..] };
            let (again, said) = (example.again)(payload).unwrap();
            assert_eq!(again, read, "{name}");
            assert_eq!(said, example.text, "{name}");
        }
    }
}

#[test]
fn page_has_a_listing_of_every_message_of_the_client_wire() {
    let shown: BTreeSet<String> = listings(&PAGE).into_iter().map(|(name, _)| name).collect();
    for example in examples::all().iter().filter(|example| example.form == Form::Frame) {
        assert!(shown.contains(&example.name), "no listing of {}", example.name);
    }
    for (name, _) in examples::records() {
        assert!(shown.contains(&name), "no listing of {name}");
    }
}

/// A type of the sources: a structure's fields, or an enum's variants with theirs, each as the page's tables have it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shape {
    rows: Vec<Vec<String>>,
}

/// How the page names a Rust type.
fn wire_type(rust: &str) -> String {
    let rust = rust.trim().rsplit("::").next().unwrap().trim();
    let inside = |prefix: &str| rust.strip_prefix(prefix).and_then(|rest| rest.strip_suffix('>'));
    if let Some(inner) = inside("Box<") {
        return wire_type(inner);
    }
    if let Some(inner) = inside("Vec<") {
        return format!("list of {}", wire_type(inner));
    }
    if let Some(inner) = inside("Option<") {
        return format!("option of {}", wire_type(inner));
    }
    if let Some((element, count)) =
        rust.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')?.split_once("; "))
    {
        return if element == "u8" {
            format!("{count} bytes")
        } else {
            format!("{count} × {}", wire_type(element))
        };
    }
    if let Some((first, second)) =
        rust.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')?.split_once(", "))
    {
        return format!("({}, {})", wire_type(first), wire_type(second));
    }
    match rust {
        "Bytes" => "bytes",
        "String" => "text",
        "ExecId" => "id",
        other => other,
    }
    .to_owned()
}

/// The structures and enums of one source file. Relies on rustfmt's form.
fn shapes(source: &str, into: &mut BTreeMap<String, Shape>) {
    let mut current: Option<(String, Shape)> = None;
    let mut fields: Option<(String, Vec<String>)> = None;
    for line in source.lines() {
        let code = line.trim();
        if code.starts_with("//") || code.starts_with('#') {
            continue;
        }
        let Some((_, shape)) = &mut current else {
            let named = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum "));
            current = named.and_then(|rest| Some((rest.strip_suffix(" {")?.to_owned(), Shape::default())));
            continue;
        };
        let index = shape.rows.len().to_string();
        if line == "}" {
            into.extend(current.take());
        } else if let Some((variant, list)) = &mut fields {
            if code == "}," {
                shape.rows.push(vec![index, variant.clone(), list.join(", ")]);
                fields = None;
            } else {
                let (field, kind) = code.trim_end_matches(',').split_once(": ").expect(code);
                list.push(format!("{field}: {}", wire_type(kind)));
            }
        } else if let Some((field, kind)) = code.strip_prefix("pub ").and_then(|rest| rest.split_once(": ")) {
            shape.rows.push(vec![field.to_owned(), wire_type(kind.trim_end_matches(','))]);
        } else if let Some(variant) = code.strip_suffix(" {") {
            fields = Some((variant.to_owned(), Vec::new()));
        } else if let Some((variant, kind)) = code.strip_suffix("),").and_then(|rest| rest.split_once('(')) {
            shape.rows.push(vec![index, variant.to_owned(), wire_type(kind)]);
        } else {
            shape.rows.push(vec![index, code.trim_end_matches(',').to_owned(), String::new()]);
        }
    }
}

/// A table's cell without Markdown: no backticks, a link's text only.
fn plain(cell: &str) -> String {
    let mut text = String::new();
    let mut rest = cell.trim();
    while let Some((before, after)) = rest.split_once('[') {
        let (name, link) = after.split_once("](").expect("a link");
        text += before;
        text += name;
        rest = link.split_once(')').expect("a link's end").1;
    }
    (text + rest).replace('`', "")
}

/// The rows of the table under the heading ``### `name` ``, without their last column (the words).
fn table(page: &str, name: &str) -> Option<Vec<Vec<String>>> {
    let (_, section) = page.split_once(&format!("\n### `{name}`\n"))?;
    let rows =
        section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| {
        let cells: Vec<String> = line.trim_matches('|').split('|').map(plain).collect();
        cells[..cells.len() - 1].to_vec()
    };
    Some(rows.skip(2).map(cells).collect())
}

#[test]
fn page_tables_equal_the_types() {
    let mut all = BTreeMap::new();
    for source in
        ["client", "confinement", "denied", "outcome", "spec", "statistics", "approval", "grants", "audit"]
    {
        shapes(&std::fs::read_to_string(root().join(format!("src/{source}.rs"))).unwrap(), &mut all);
    }
    // From the two messages down to every type they reach.
    let mut reached = BTreeSet::new();
    let mut waiting = vec!["ClientMessage".to_owned(), "ServerMessage".to_owned()];
    while let Some(name) = waiting.pop() {
        if !reached.insert(name.clone()) {
            continue;
        }
        let shape = &all[&name];
        let table = table(&PAGE, &name).unwrap_or_else(|| panic!("the page has no table of {name}"));
        for (row, (said, is)) in table.iter().zip(&shape.rows).enumerate() {
            assert_eq!(said, is, "{name}, row {row}");
        }
        assert_eq!(table.len(), shape.rows.len(), "{name}: rows of its table");
        let types = shape.rows.iter().filter_map(|row| row.last());
        let words = types.flat_map(|cell| cell.split(|c: char| !c.is_alphanumeric()));
        waiting.extend(words.filter(|word| all.contains_key(*word)).map(str::to_owned));
    }
    assert!(reached.len() > 20, "{reached:?}");
    for example in examples::all().iter().filter(|example| reached.contains(example.kind())) {
        let row = table(&PAGE, example.kind()).unwrap().into_iter().find(|row| row[1] == example.variant());
        let (_, index, _) = example.annotator.outermost.unwrap();
        assert_eq!(row.expect(&example.name)[0], index.to_string(), "{}", example.name);
    }
}

#[test]
fn page_limits_equal_the_constants() {
    let constants: [(&str, u64); 34] = [
        ("MAX_FRAME", bounds::MAX_FRAME.into()),
        ("MAX_DESCRIPTORS", bounds::MAX_DESCRIPTORS as u64),
        ("MAX_ARGUMENTS", bounds::MAX_ARGUMENTS as u64),
        ("MAX_ARGUMENT", bounds::MAX_ARGUMENT as u64),
        ("MAX_ARGUMENTS_TOTAL", bounds::MAX_ARGUMENTS_TOTAL as u64),
        ("MAX_ENVIRONMENT", bounds::MAX_ENVIRONMENT as u64),
        ("MAX_PATH", bounds::MAX_PATH as u64),
        ("MAX_POLICY_NAME", bounds::MAX_POLICY_NAME as u64),
        ("MAX_OUTPUT_CHUNK", bounds::MAX_OUTPUT_CHUNK as u64),
        ("MAX_PARAMETERS", bounds::MAX_PARAMETERS as u64),
        ("MAX_STDIN_CHUNK", bounds::MAX_STDIN_CHUNK as u64),
        ("MAX_OFTEN_WRONG", bounds::MAX_OFTEN_WRONG as u64),
        ("MAX_APPROVAL_SHOWN", bounds::MAX_APPROVAL_SHOWN as u64),
        ("MAX_APPROVAL_REASON", bounds::MAX_APPROVAL_REASON as u64),
        ("MAX_RELOAD_LINES", bounds::MAX_RELOAD_LINES as u64),
        ("MAX_RELOAD_LINE", bounds::MAX_RELOAD_LINE as u64),
        ("MAX_AUDIT_PAGE", bounds::MAX_AUDIT_PAGE as u64),
        ("MAX_AUDIT_PAGE_BYTES", bounds::MAX_AUDIT_PAGE_BYTES as u64),
        ("MAX_AUDIT_LAST", bounds::MAX_AUDIT_LAST.into()),
        ("MAX_AUDIT_FILTER", bounds::MAX_AUDIT_FILTER as u64),
        ("MAX_MARKS", bounds::MAX_MARKS as u64),
        ("MAX_RUN_OPENINGS", bounds::MAX_RUN_OPENINGS as u64),
        ("MAX_RESULT_SAID", bounds::MAX_RESULT_SAID as u64),
        ("MAX_RESULT_SENTENCE", bounds::MAX_RESULT_SENTENCE as u64),
        ("MAX_SECRETS", bounds::MAX_SECRETS as u64),
        ("MAX_SECRET_BYTES", bounds::MAX_SECRET_BYTES as u64),
        ("MARKED_RECORD", bounds::MARKED_RECORD as u64),
        ("MARK_AFTER_MS", bounds::MARK_AFTER_MS),
        ("MAX_LAUNCH_INLINE", bounds::MAX_LAUNCH_INLINE as u64),
        ("MAX_LAUNCH_MESSAGE", bounds::MAX_LAUNCH_MESSAGE as u64),
        ("MAX_SPECS", bounds::MAX_SPECS as u64),
        ("MAX_PARKED", bounds::MAX_PARKED.into()),
        ("RING_BYTES", bounds::RING_BYTES),
        ("UNCLAIMED_MS", bounds::UNCLAIMED_MS),
    ];
    for (name, value) in constants {
        let row = format!("| `{name}` | {value} |");
        let words = format!("{value} (`{name}`)");
        let within = format!("{value} bytes (`{name}`)");
        let time = format!("{value} milliseconds (`{name}`)");
        assert!(
            [row, words, within, time].iter().any(|form| PAGE.contains(form)),
            "{name} = {value} isn't on the page"
        );
    }
    // None is missing above.
    let source = std::fs::read_to_string(root().join("src/bounds.rs")).unwrap();
    let names: Vec<&str> =
        source.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next()).collect();
    assert_eq!(names.len(), constants.len(), "{names:?}");
}

#[test]
fn page_links_within_itself_lead_somewhere() {
    let anchor = |heading: &str| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-' || *c == '_');
        kept.collect::<String>().replace(' ', "-")
    };
    let anchors: BTreeSet<String> = PAGE.lines().filter(|line| line.starts_with('#')).map(anchor).collect();
    for link in PAGE.split("](#").skip(1) {
        let target = link.split(')').next().unwrap();
        assert!(anchors.contains(target), "no heading for #{target}");
    }
}
