//! Runs as spans: whose they are, what they say, and a collector that is late, rude or gone.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use stockade_protocol::outcome::{Outcome, SetupFailure, SetupStage};
use stockade_protocol::{Bytes, ExecId};

use super::stage::{Changes, LONG, Launcher, Stage, until};
use crate::serve::Order;
use crate::traces::Collector;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn stage(collector: &TcpListener) -> Stage {
    Stage::new(Changes { traces: Some(to(collector.local_addr().unwrap())), ..Changes::default() })
}

fn to(address: SocketAddr) -> Collector {
    format!("http://{address}").parse().unwrap()
}

/// The next request that the collector hears: its body. It is answered with this status.
fn heard(collector: &TcpListener, status: &str) -> Vec<u8> {
    let (mut socket, _) = collector.accept().unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let mut bytes = Vec::new();
    let (head, length) = loop {
        let mut buffer = [0; 4096];
        let read = socket.read(&mut buffer).unwrap();
        assert!(read > 0, "a request without an end");
        bytes.extend_from_slice(&buffer[..read]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let length = head.split("Content-Length: ").nth(1).unwrap();
        let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
        if bytes.len() >= end + 4 + length {
            break (head, length);
        }
    };
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("Content-Type: application/x-protobuf\r\n"), "{head}");
    let _gone = write!(socket, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    bytes.split_off(bytes.len() - length)
}

/// Fields of a protobuf message: number and value, a fixed one or a number as its bytes.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let end = bytes.iter().position(|byte| *byte < 0x80).unwrap() + 1;
        let (number, rest) = bytes.split_at(end);
        *bytes = rest;
        number.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key & 7 {
            0 => varint(&mut bytes).to_le_bytes().to_vec(),
            wire => {
                let length = if wire == 1 { 8 } else { usize::try_from(varint(&mut bytes)).unwrap() };
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                value.to_vec()
            }
        };
        found.push((key >> 3, value));
    }
    found
}

fn all(message: &[u8], number: u64) -> Vec<Vec<u8>> {
    fields(message).into_iter().filter(|(found, _)| *found == number).map(|(_, value)| value).collect()
}

fn one(message: &[u8], number: u64) -> Vec<u8> {
    all(message, number).pop().unwrap_or_default()
}

/// The spans of a request.
fn spans(request: &[u8]) -> Vec<Vec<u8>> {
    all(&one(&one(request, 1), 2), 2)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn name(span: &[u8]) -> String {
    String::from_utf8(one(span, 5)).unwrap()
}

fn time(span: &[u8], number: u64) -> u64 {
    u64::from_le_bytes(one(span, number).try_into().unwrap())
}

/// Has a run done whose client has this in its environment.
fn run(stage: &Stage, launcher: &mut Launcher, traceparent: Option<&str>) -> ExecId {
    let mut client = stage.client();
    let mut request = stage.request();
    if let Some(value) = traceparent {
        request.environment.push((Bytes::from("TRACEPARENT"), value.into()));
    }
    let id = client.exec(request);
    assert_eq!(launcher.play(b"x"), id);
    client.read_to_end(id, 2);
    id
}

#[test]
fn a_run_is_a_span_of_its_clients_trace_and_its_parts_are_its_children() {
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let stage = stage(&collector);
    let mut launcher = stage.launcher();
    let id = run(&stage, &mut launcher, Some(&format!("00-{TRACE}-{PARENT}-01")));
    let request = heard(&collector, "200 OK");
    let spans = spans(&request);
    let names: Vec<String> = spans.iter().map(|span| name(span)).collect();
    assert_eq!(names, ["run", "queue", "launch", "command"]);
    assert!(spans.iter().all(|span| hex(&one(span, 1)) == TRACE));
    assert_eq!(hex(&one(&spans[0], 4)), PARENT);
    let whole = one(&spans[0], 2);
    assert!(whole.len() == 8 && spans[1..].iter().all(|span| one(span, 4) == whole), "parts of the run");
    assert!(spans.iter().all(|span| time(span, 7) <= time(span, 8)), "none ends before it begins");
    assert!(spans[1..].windows(2).all(|pair| time(&pair[0], 8) == time(&pair[1], 7)), "one after another");
    assert_eq!((time(&spans[0], 7), time(&spans[0], 8)), (time(&spans[1], 7), time(&spans[3], 8)));
    let attributes = all(&spans[0], 9);
    let text = |key: &str| {
        let pair = attributes.iter().find(|pair| one(pair, 1) == key.as_bytes()).expect("an attribute");
        String::from_utf8(one(&one(pair, 2), 1)).unwrap()
    };
    assert_eq!(text("stockade.exec_id"), id.to_string());
    assert_eq!((text("stockade.policy"), text("stockade.outcome")), ("default".into(), "exited".into()));
    assert!(all(&spans[0], 15).is_empty(), "no error");
}

#[test]
fn without_a_parent_the_runs_id_is_the_traces_and_one_that_is_not_sampled_is_not_told() {
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let stage = stage(&collector);
    let mut launcher = stage.launcher();
    run(&stage, &mut launcher, Some(&format!("00-{TRACE}-{PARENT}-00")));
    let id = run(&stage, &mut launcher, None);
    let nonsense = run(&stage, &mut launcher, Some("00-nonsense"));
    let mut traces = Vec::new();
    while traces.len() < 8 {
        for span in spans(&heard(&collector, "202 Accepted")) {
            let is_root = name(&span) == "run";
            assert_eq!(one(&span, 4).is_empty(), is_root, "only the run itself has no parent");
            traces.push(hex(&one(&span, 1)));
        }
    }
    traces.dedup();
    assert_eq!(traces, [hex(id.as_bytes()), hex(nonsense.as_bytes())]);
}

#[test]
fn a_run_that_we_ended_is_an_error_that_says_why() {
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let stage = stage(&collector);
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let id = client.exec(stage.request());
    let (launch, _) = launcher.launch();
    launcher.started(&launch);
    launcher.end_output(id);
    launcher.ended(id, Outcome::MemoryExceeded { limit: 1 << 20, seen: 2 << 20 });
    client.read_to_end(id, 2);
    let request = heard(&collector, "200 OK");
    let status = one(&spans(&request)[0], 15);
    assert_eq!(one(&status, 2), b"memory-exceeded");
    assert_eq!(one(&status, 3)[0], 2);
    // One that never began: at which stage, and not on what.
    let id = client.exec(stage.request());
    launcher.launch();
    let failure = SetupFailure { stage: SetupStage::Exec, errno: 2, subject: "/secret/path".into() };
    launcher.ended(id, Outcome::SetupFailed { failure });
    client.read_to_end(id, 2);
    let request = heard(&collector, "200 OK");
    let has = |text: &[u8]| request.windows(text.len()).any(|window| window == text);
    assert!(has(b"setup-failed") && has(b"stockade.setup_stage") && has(b"exec"));
    assert!(!has(b"/secret") && !has(b"/bin/true"), "a path is told");
    let names: Vec<String> = spans(&request).iter().map(|span| name(span)).collect();
    assert_eq!(names, ["run", "queue"], "it never started");
}

#[test]
fn a_collector_that_refuses_or_says_nothing_costs_its_spans_and_nothing_else() {
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let traces = Some(to(collector.local_addr().unwrap()));
    let stage = Stage::new(Changes { traces, metrics: true, ..Changes::default() });
    let mut launcher = stage.launcher();
    let lost = || {
        let mut socket = std::os::unix::net::UnixStream::connect(stage.metrics()).unwrap();
        socket.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        let line = text.lines().find(|line| line.starts_with("stockade_trace_spans_total{result=\"lost\"}"));
        line.unwrap().rsplit(' ').next().unwrap().parse::<u32>().unwrap()
    };
    run(&stage, &mut launcher, None);
    heard(&collector, "503 Service Unavailable");
    until("lost", || lost() == 4);
    // Now it takes the connection and says nothing: runs go on.
    run(&stage, &mut launcher, None);
    let (silent, _) = collector.accept().unwrap();
    for _ in 0..5 {
        run(&stage, &mut launcher, None);
    }
    // Those that waited meanwhile come, and one more that waits when the daemon stops.
    let rest = std::thread::spawn(move || {
        let mut count = 0;
        while count < 6 * 4 {
            count += spans(&heard(&collector, "200 OK")).len();
        }
        count
    });
    drop(silent);
    until("lost, too", || lost() == 8);
    run(&stage, &mut launcher, None);
    stage.order(Order::Stop);
    drop(launcher);
    stage.join();
    assert_eq!(rest.join().unwrap(), 6 * 4);
}

#[test]
fn no_collector_at_all_keeps_no_daemon_from_stopping() {
    // Bound, so that nobody else is there either; and nobody listens.
    let (family, kind) = (AddressFamily::INET, SocketType::STREAM);
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
    assert!(TcpStream::connect(address).is_err());
    let stage = Stage::new(Changes { traces: Some(to(address)), ..Changes::default() });
    let mut launcher = stage.launcher();
    run(&stage, &mut launcher, None);
    stage.order(Order::Stop);
    drop(launcher);
    stage.join();
}
