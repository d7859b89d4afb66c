//! Standard input on its way to a tool.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use stockade_protocol::client::{ClientMessage, ExecEvent, ExecRequest, StdinMode};
use stockade_protocol::confinement::StdioPath;
use stockade_protocol::denied::DenyReason;
use stockade_protocol::launch::ToLauncher;
use stockade_protocol::outcome::{CancelReason, Outcome};

use super::stage::{Changes, Stage};

const CODE_0: Outcome = Outcome::Exited { code: 0 };
/// At most 1000 bytes of input.
const LIMITED: &str = "name = \"custom\"\nextends = \"default\"\n[limits]\nstdin = \"1000B\"\n";

fn with(stage: &Stage, stdin: StdinMode) -> ExecRequest {
    ExecRequest { stdin, ..stage.request() }
}

#[test]
fn inline_input_arrives_and_ends() {
    let stage = Stage::new(Changes::default());
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let bytes: Vec<u8> = (0..200_000_u32).map(|number| u8::try_from(number % 251).unwrap()).collect();
    let run = client.exec(with(&stage, StdinMode::Inline(bytes.clone().into())));
    let (launch, mut descriptors) = launcher.launch();
    assert!(launch.stdin_passed);
    let mut read = Vec::new();
    std::fs::File::from(descriptors.remove(0)).read_to_end(&mut read).unwrap();
    assert!(read == bytes);
    launcher.ended(run, CODE_0);
    assert_eq!(client.read_to_end(run, 2).2.bytes_in, 200_000);
}

#[test]
fn streamed_input_arrives_in_order_and_ends_when_told() {
    let stage = Stage::new(Changes::default());
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let run = client.exec(with(&stage, StdinMode::Stream));
    let relayed = |event| match event {
        ExecEvent::Started { confinement } => confinement.stdio[0] == StdioPath::Relayed,
        other => panic!("{other:?}"),
    };
    // Some of it before the launcher has the run, some after.
    for text in ["a", "b"] {
        client.say(&ClientMessage::StdinData { exec_id: run, bytes: text.into() });
    }
    let (launch, mut descriptors) = launcher.launch();
    launcher.started(&launch);
    assert!(relayed(client.event(run, 2)), "the client can't know that it must stream");
    client.say(&ClientMessage::StdinData { exec_id: run, bytes: "c".into() });
    client.say(&ClientMessage::StdinEof { exec_id: run });
    client.say(&ClientMessage::StdinData { exec_id: run, bytes: "too late".into() });
    let mut read = String::new();
    std::fs::File::from(descriptors.remove(0)).read_to_string(&mut read).unwrap();
    assert_eq!(read, "abc");
    launcher.end_output(run);
    launcher.ended(run, CODE_0);
    client.read_to_end(run, 3);
}

#[test]
fn a_flood_of_input_that_no_tool_reads_stops_its_client_and_no_other() {
    let stage = Stage::new(Changes::default());
    let mut launcher = stage.launcher();
    let mut flooding = stage.client();
    let run = flooding.exec(with(&stage, StdinMode::Stream));
    let (_, descriptors) = launcher.launch();
    flooding.socket.set_nonblocking(true).unwrap();
    let mut frame = Vec::new();
    let data = ClientMessage::StdinData { exec_id: run, bytes: vec![0; 200_000].into() };
    stockade_protocol::codec::encode_frame(&data, 1 << 20, &mut frame).unwrap();
    let mut taken = 0;
    let blocked = std::time::Duration::from_millis(300);
    let mut since = std::time::Instant::now();
    while since.elapsed() < blocked {
        let at = taken % frame.len();
        if let Ok(sent) = flooding.socket.write(&frame[at..]) {
            taken += sent;
            since = std::time::Instant::now();
        }
    }
    assert!(taken < 4 << 20, "{taken} bytes of input were taken that no tool reads");
    let mut other = stage.client();
    let second = other.exec(stage.request());
    assert_eq!(launcher.play(b"x"), second);
    other.read_to_end(second, 2);
    // The client goes away while it is stopped: that is noticed all the same.
    drop(flooding);
    let reason = CancelReason::ClientGone;
    assert_eq!(launcher.next(), ToLauncher::Cancel { exec_id: run, reason });
    drop(descriptors);
}

#[test]
fn more_input_than_the_policy_allows_is_refused_inline_and_ends_a_stream() {
    let stage = Stage::new(Changes { policy: Some(LIMITED), ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let custom = |stdin| ExecRequest { policy: "custom".into(), ..with(&stage, stdin) };
    let denied = client.denied(custom(StdinMode::Inline(vec![0; 1001].into())), &[]);
    assert_eq!(denied.reason, DenyReason::BadRequest);
    let run = client.exec(custom(StdinMode::Stream));
    let (_, _descriptors) = launcher.launch();
    client.say(&ClientMessage::StdinData { exec_id: run, bytes: vec![0; 600].into() });
    client.say(&ClientMessage::StdinData { exec_id: run, bytes: vec![0; 600].into() });
    let reason = CancelReason::InputExceeded { limit: 1000 };
    assert_eq!(launcher.next(), ToLauncher::Cancel { exec_id: run, reason: reason.clone() });
    launcher.ended(run, Outcome::Cancelled { reason: reason.clone() });
    assert_eq!(client.read_to_end(run, 2).1, Outcome::Cancelled { reason });
}

#[test]
fn a_relayed_descriptor_is_read_and_counted() {
    let stage = Stage::new(Changes { policy: Some(LIMITED), ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let custom = || ExecRequest { policy: "custom".into(), ..with(&stage, StdinMode::Descriptor) };
    // A socket, a pipe and a file: each ends the tool's input where it ends itself.
    let (mut socket, theirs) = UnixStream::pair().unwrap();
    socket.write_all(b"hello").unwrap();
    drop(socket);
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::io::write(&writer, b"hello").unwrap();
    drop(writer);
    let path = stage.directory.path().join("file");
    std::fs::write(&path, "hello").unwrap();
    for descriptor in [theirs.into(), reader, super::stage::open(&path)] {
        let run = client.exec_with(custom(), &[descriptor]);
        let (_, mut descriptors) = launcher.launch();
        let mut read = String::new();
        std::fs::File::from(descriptors.remove(0)).read_to_string(&mut read).unwrap();
        assert_eq!(read, "hello");
        launcher.ended(run, CODE_0);
        assert_eq!(client.read_to_end(run, 2).2.bytes_in, 5);
    }
    let (mut socket, theirs) = UnixStream::pair().unwrap();
    let run = client.exec_with(custom(), &[theirs.into()]);
    let (_, _descriptors) = launcher.launch();
    socket.write_all(&[0; 1001]).unwrap();
    let reason = CancelReason::InputExceeded { limit: 1000 };
    assert_eq!(launcher.next(), ToLauncher::Cancel { exec_id: run, reason });
}

#[test]
fn what_the_client_cannot_read_is_not_read_for_it() {
    let stage = Stage::new(Changes { policy: Some(LIMITED), ..Changes::default() });
    let _launcher = stage.launcher();
    let mut client = stage.client();
    let (_reader, writer) = rustix::pipe::pipe().unwrap();
    let request = ExecRequest { policy: "custom".into(), ..with(&stage, StdinMode::Descriptor) };
    let denied = client.denied(request, &[writer]);
    assert!(denied.message.contains("Bad file descriptor"), "{denied}");
}

#[test]
fn a_directory_or_a_device_is_no_input() {
    let stage = Stage::new(Changes::default());
    let _launcher = stage.launcher();
    let mut client = stage.client();
    let directory = super::stage::open(std::path::Path::new("/"));
    let denied = client.denied(with(&stage, StdinMode::Descriptor), &[directory]);
    assert_eq!(denied.reason, DenyReason::BadRequest);
    assert!(denied.message.contains("a directory"), "{denied}");
}
