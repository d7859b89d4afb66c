//! OTLP's bytes: an `ExportTraceServiceRequest` in protobuf, as far as a span of ours fills it.
//!
//! <https://github.com/open-telemetry/opentelemetry-proto>: `collector/trace/v1/trace_service.proto`, `trace/v1/trace.proto`. Two
//! dozen crates would make the same of it, two of them in a second version.

use super::span::{Span, Value};

/// Wire types of protobuf.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;

const INTERNAL: u64 = 1;
const SERVER: u64 = 2;
const ERROR: u64 = 2;

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3 | VARINT);
    varint(out, value);
}

fn fixed(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3 | FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | BYTES);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A message within another.
fn message(out: &mut Vec<u8>, field: u64, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    fill(&mut inner);
    bytes(out, field, &inner);
}

fn attribute(out: &mut Vec<u8>, field: u64, key: &str, value: &Value) {
    message(out, field, |pair| {
        bytes(pair, 1, key.as_bytes());
        message(pair, 2, |any| match value {
            Value::Text(text) => bytes(any, 1, text.as_bytes()),
            Value::Number(value) => number(any, 3, *value),
        });
    });
}

/// The whole request.
pub(super) fn request(spans: &[Span]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 * spans.len());
    message(&mut out, 1, |of_resource| {
        message(of_resource, 1, |resource| {
            attribute(resource, 1, "service.name", &Value::Text("stockade".to_owned()));
            attribute(resource, 1, "service.version", &Value::Text(env!("CARGO_PKG_VERSION").to_owned()));
            attribute(resource, 1, "process.pid", &Value::Number(std::process::id().into()));
        });
        message(of_resource, 2, |of_scope| {
            message(of_scope, 1, |scope| bytes(scope, 1, b"stockade"));
            for span in spans {
                message(of_scope, 2, |out| one(out, span));
            }
        });
    });
    out
}

fn one(out: &mut Vec<u8>, span: &Span) {
    bytes(out, 1, &span.trace);
    bytes(out, 2, &span.id);
    if let Some(parent) = &span.parent {
        bytes(out, 4, parent);
    }
    bytes(out, 5, span.name.as_bytes());
    number(out, 6, if span.is_server { SERVER } else { INTERNAL });
    fixed(out, 7, span.start);
    fixed(out, 8, span.end);
    for (key, value) in &span.attributes {
        attribute(out, 9, key, value);
    }
    if let Some(why) = &span.error {
        message(out, 15, |status| {
            bytes(status, 2, why.as_bytes());
            number(status, 3, ERROR);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_the_bytes_that_the_description_gives_it() {
        let span = Span {
            trace: [1; 16],
            id: [2; 8],
            parent: Some([3; 8]),
            name: "run",
            is_server: true,
            start: 1,
            end: 300,
            attributes: vec![("a", Value::Number(300)), ("b", Value::Text("c".into()))],
            error: Some("why"),
        };
        let mut out = Vec::new();
        one(&mut out, &span);
        let mut wanted = vec![0x0a, 16];
        wanted.extend([1; 16]);
        wanted.extend([0x12, 8]);
        wanted.extend([2; 8]);
        wanted.extend([0x22, 8]);
        wanted.extend([3; 8]);
        wanted.extend(b"\x2a\x03run\x30\x02");
        wanted.extend(b"\x39\x01\0\0\0\0\0\0\0\x41\x2c\x01\0\0\0\0\0\0");
        wanted.extend(b"\x4a\x08\x0a\x01a\x12\x03\x18\xac\x02");
        wanted.extend(b"\x4a\x08\x0a\x01b\x12\x03\x0a\x01c");
        wanted.extend(b"\x7a\x07\x12\x03why\x18\x02");
        assert_eq!(out, wanted);
        assert!(request(&[span]).starts_with(&[0x0a]));
    }
}
