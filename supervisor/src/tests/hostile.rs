//! Clients that break the protocol or ask for what they may not have. Others never notice.

use std::time::{Duration, Instant};

use stockade_protocol::Bytes;
use stockade_protocol::client::{
    ClientMessage, ExecRequest, Hello, MAGIC, ProtocolErrorCode, ServerMessage, StdinMode, Workspace,
};
use stockade_protocol::denied::DenyReason;

use super::stage::{Changes, Client, LONG, Stage, open, until};
use crate::config::FILE;
use crate::serve::Order;

/// What the daemon says before it closes.
fn closed_with(client: &mut Client) -> ProtocolErrorCode {
    let Some(ServerMessage::Error(error)) = client.try_next() else { panic!("closed without an error") };
    assert!(!error.text.is_empty());
    assert_eq!(client.try_next(), None, "not closed");
    error.code
}

fn hello(version: u16) -> ClientMessage {
    ClientMessage::Hello(Hello { magic: MAGIC, version, features: 0 })
}

#[test]
fn what_is_no_opening_is_answered_with_an_error_and_closed() {
    let stage = Stage::new(Changes::default());
    let _launcher = stage.launcher();
    let mut honest = stage.client();
    let bytes: [(&[u8], ProtocolErrorCode); 5] = [
        (&0xffff_ffff_u32.to_le_bytes(), ProtocolErrorCode::TooLarge),
        // A frame that any client may send, but not before it has opened.
        (&1025_u32.to_le_bytes(), ProtocolErrorCode::TooLarge),
        (&0_u32.to_le_bytes(), ProtocolErrorCode::Malformed),
        (b"GET / HTTP/1.1\r\n\r\n", ProtocolErrorCode::TooLarge),
        (&[4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], ProtocolErrorCode::Malformed),
    ];
    for (bytes, code) in bytes {
        let mut stranger = stage.stranger();
        stranger.say_bytes(bytes);
        assert_eq!(closed_with(&mut stranger), code, "{bytes:?}");
    }
    let messages = [
        (ClientMessage::List, ProtocolErrorCode::Unexpected),
        (hello(0), ProtocolErrorCode::Version),
        (
            ClientMessage::Hello(Hello { magic: *b"stockade", version: 1, features: 0 }),
            ProtocolErrorCode::Version,
        ),
    ];
    for (message, code) in messages {
        let mut stranger = stage.stranger();
        stranger.say(&message);
        assert_eq!(closed_with(&mut stranger), code, "{message:?}");
    }
    let mut twice = stage.client();
    twice.say(&hello(1));
    assert_eq!(closed_with(&mut twice), ProtocolErrorCode::Unexpected);
    assert_eq!(honest.status().connections, 1);
}

#[test]
fn a_newer_client_is_offered_our_version() {
    let stage = Stage::new(Changes::default());
    let mut newer = stage.stranger();
    newer.say(&hello(9));
    let ServerMessage::Welcome(welcome) = newer.next() else { panic!("no welcome") };
    assert_eq!((welcome.version, welcome.max_frame), (1, 1 << 20));
}

#[test]
fn a_client_that_takes_too_long_is_closed() {
    let quick = Duration::from_millis(200);
    let stage = Stage::new(Changes { hello_within: quick, ..Changes::default() });
    assert_eq!(closed_with(&mut stage.stranger()), ProtocolErrorCode::Slow);
    // Its twin has no limit on the greeting: whoever is to be a client mustn't be late himself.
    let stage = Stage::new(Changes { hello_within: LONG, frame_within: quick, ..Changes::default() });
    let begin = Instant::now();
    let mut dripping = stage.client();
    dripping.say_bytes(&[9, 0]);
    // One byte now and then doesn't help: the frame has to be whole in time.
    while dripping.say_bytes(&[0]) && begin.elapsed() < Duration::from_millis(350) {
        std::thread::yield_now();
        if !dripping.hears_nothing() {
            break;
        }
    }
    assert_eq!(closed_with(&mut dripping), ProtocolErrorCode::Slow);
    let mut idle = stage.client();
    std::thread::park_timeout(quick * 2);
    assert_eq!(idle.status().connections, 1, "an idle client may stay");
}

#[test]
fn a_frame_cut_in_the_middle_harms_nobody() {
    let stage = Stage::new(Changes::default());
    let mut honest = stage.client();
    for length in [1, 3, 4, 5] {
        let mut cut = stage.client();
        cut.say_bytes(&[200, 0, 0, 0, 1][..length]);
        drop(cut);
    }
    until("only one is left", || honest.status().connections == 1);
}

#[test]
fn descriptors_that_do_not_fit_their_message_close_the_connection() {
    let stage = Stage::new(Changes::default());
    let workspace = stage.workspace();
    let request = ExecRequest {
        workspace: Workspace::Descriptor { path: workspace.clone().into() },
        stdin: StdinMode::Descriptor,
        ..stage.request()
    };
    let exec = ClientMessage::Exec(Box::new(request));
    let mut too_few = stage.client();
    too_few.say_with(&exec, &[open(&workspace)]);
    assert_eq!(closed_with(&mut too_few), ProtocolErrorCode::Unexpected);
    let mut unasked = stage.client();
    unasked.say_with(&ClientMessage::List, &[open(&workspace)]);
    assert!(matches!(unasked.next(), ServerMessage::Runs(_)));
    assert_eq!(closed_with(&mut unasked), ProtocolErrorCode::Unexpected);
}

#[test]
fn a_client_that_asks_and_never_reads_is_not_read_either() {
    let stage = Stage::new(Changes::default());
    let mut honest = stage.client();
    let mut deaf = stage.client();
    deaf.socket.set_nonblocking(true).unwrap();
    let mut frame = Vec::new();
    stockade_protocol::codec::encode_frame(&ClientMessage::Status, 1 << 20, &mut frame).unwrap();
    let mut asked = 0;
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_millis(300) {
        if deaf.say_bytes(&frame) {
            asked += 1;
            since = Instant::now();
        }
        assert!(asked < 100_000, "a client that doesn't read is answered without end");
    }
    honest.status();
}

#[test]
fn requests_that_are_wrong_are_denied_with_the_reason() {
    let stage = Stage::new(Changes::default());
    let mut client = stage.client();
    let bad = DenyReason::BadRequest;
    let path = |path: &str| Workspace::Path { path: path.into() };
    let good = || stage.request();
    let cases: Vec<(&str, ExecRequest, DenyReason)> = vec![
        ("empty", ExecRequest { argv: Vec::new(), ..good() }, bad),
        ("NUL", ExecRequest { argv: vec!["a\0b".into()], ..good() }, bad),
        ("long", ExecRequest { argv: vec!["a".into(), Bytes(vec![b'x'; 200_000])], ..good() }, bad),
        ("many", ExecRequest { argv: vec!["a".into(); 20_000], ..good() }, bad),
        ("total", ExecRequest { argv: vec![Bytes(vec![b'x'; 100_000]); 9], ..good() }, bad),
        ("name", ExecRequest { environment: vec![("A=B".into(), "".into())], ..good() }, bad),
        ("value", ExecRequest { environment: vec![("A".into(), "\0".into())], ..good() }, bad),
        ("relative", ExecRequest { workspace: path("here"), ..good() }, bad),
        ("dots", ExecRequest { workspace: path("/tmp/../etc"), ..good() }, bad),
        ("system", ExecRequest { workspace: path("/etc"), ..good() }, bad),
        ("root", ExecRequest { workspace: path("/"), ..good() }, bad),
        ("outside", ExecRequest { cwd: "/somewhere".into(), ..good() }, bad),
        ("unknown", ExecRequest { policy: "defualt".into(), ..good() }, DenyReason::UnknownPolicy),
        ("by path", ExecRequest { policy: "../default".into(), ..good() }, DenyReason::UnknownPolicy),
        ("NUL", ExecRequest { policy: "default\0".into(), ..good() }, DenyReason::UnknownPolicy),
        ("huge", ExecRequest { policy: "x".repeat(500_000), ..good() }, DenyReason::UnknownPolicy),
        ("empty", ExecRequest { policy: String::new(), ..good() }, DenyReason::UnknownPolicy),
    ];
    for (what, request, reason) in cases {
        let denied = client.denied(request, &[]);
        assert_eq!(denied.reason, reason, "{what}: {denied}");
        assert!(denied.message.len() < 1000, "{what}: {} bytes of message", denied.message.len());
    }
    let mut wider = good();
    wider.overrides.memory = Some(u64::MAX);
    assert_eq!(client.denied(wider, &[]).reason, bad);
    let denied = client.denied(ExecRequest { policy: "defualt".into(), ..good() }, &[]);
    let names = denied.message.split("there are: ").nth(1).unwrap();
    assert!(names.starts_with("default"), "the nearest first: {names}");
    assert_eq!(client.status().denied, 19);
}

#[test]
fn a_workspace_descriptor_must_be_the_directory_it_is_said_to_be() {
    let stage = Stage::new(Changes::default());
    let mut client = stage.client();
    let workspace = stage.workspace();
    let claim = |path: &std::path::Path| ExecRequest {
        workspace: Workspace::Descriptor { path: path.into() },
        ..stage.request()
    };
    let denied = client.denied(claim(&workspace.join("other")), &[open(&workspace)]);
    assert!(denied.message.contains("leads to"), "{denied}");
    let file = workspace.join("file");
    std::fs::write(&file, "").unwrap();
    let denied = client.denied(claim(&file), &[open(&file)]);
    assert!(denied.message.contains("isn't a directory"), "{denied}");
    let gone = workspace.join("gone");
    std::fs::create_dir(&gone).unwrap();
    let descriptor = open(&gone);
    std::fs::remove_dir(&gone).unwrap();
    let denied = client.denied(claim(&gone), &[descriptor]);
    assert!(denied.message.contains("(deleted)"), "{denied}");
}

#[test]
fn a_full_queue_says_busy_and_other_runs_go_on() {
    let stage = Stage::new(Changes { slots: 1, queue: 2, ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let runs: Vec<_> = (0..3).map(|_| client.exec(stage.request())).collect();
    // Root's daemon leaves a part of the queue to others.
    let denied = loop {
        let denied = client.denied(stage.request(), &[]);
        if denied.reason == DenyReason::Busy {
            break denied;
        }
    };
    assert!(denied.retry_after_ms.is_some());
    for run in runs {
        assert_eq!(launcher.play(b"x"), run);
        client.read_to_end(run, 2);
    }
}

/// The loop stands still while three clients send what takes it a while, and then an honest one asks. Each flood ends with what
/// closes its connection: whether one was read to its end before him, the answer tells.
#[test]
fn a_flood_of_messages_that_need_no_answer_starves_nobody() {
    let stage = Stage::new(Changes::default());
    let mut honest = stage.client();
    let mut floods = [stage.client(), stage.client(), stage.client()];
    let mut frames = Vec::new();
    let message = ClientMessage::StdinEof { exec_id: stockade_protocol::ExecId::from_bytes([1; 16]) };
    for message in std::iter::repeat_n(&message, 1_000).chain([&hello(1)]) {
        stockade_protocol::codec::encode_frame(message, 1 << 20, &mut frames).unwrap();
    }
    let levels = stage.levels.lock().unwrap();
    let file = stage.directory.path().join("configuration").join(FILE);
    std::fs::write(file, "[log]\nlevel = \"error\"\n").unwrap();
    stage.order(Order::Reload);
    // The last that is said before the level is set, which waits for us.
    until("it stands still", || stage.said.has(&["policies reloaded"]));
    for flood in &mut floods {
        assert!(flood.say_bytes(&frames));
    }
    honest.say(&ClientMessage::Status);
    drop(levels);
    let ServerMessage::Status(status) = honest.next() else { panic!("no status") };
    assert_eq!(status.connections, 4, "a flood was read to its end before anybody else");
    for flood in &mut floods {
        assert_eq!(closed_with(flood), ProtocolErrorCode::Unexpected);
    }
}

/// The first part of a frame of 1 MiB.
fn part(bytes: usize) -> Vec<u8> {
    let mut part = (1_u32 << 20).to_le_bytes().to_vec();
    part.resize(bytes, 0);
    part
}

#[test]
fn the_memory_of_an_owner_is_bounded_and_who_asks_for_little_is_still_served() {
    const EACH: usize = 900 << 10;
    let stage = Stage::new(Changes { memory: Some(8 << 20), frame_within: LONG, ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut early = stage.client();
    let mut holding = Vec::new();
    for _ in 0..32 {
        let mut client = stage.client();
        // Refused, it closes while we write.
        let _closed = client.say_bytes(&part(EACH));
        client.socket.set_nonblocking(true).unwrap();
        holding.push(client);
    }
    // Who holds is silent, and who is refused is told so before he isn't counted any more.
    let refuse = |holding: &mut Vec<Client>| {
        for mut told in holding.extract_if(.., |client| client.has_heard()) {
            assert_eq!(closed_with(&mut told), ProtocolErrorCode::TooMany);
        }
        holding.len()
    };
    until("no more is held than may be", || {
        let held = refuse(&mut holding);
        held * EACH <= 8 << 20 && early.status().connections as usize == held + 1
    });
    let run = early.exec(stage.request());
    assert_eq!(launcher.play(b"x"), run);
    assert_eq!(early.read_to_end(run, 2).0, b"x");
    let mut late = stage.client();
    until("all are counted", || late.status().connections as usize == refuse(&mut holding) + 2);
    assert!(holding.len() >= 3, "only {} are held", holding.len());
}

#[test]
fn output_waits_for_memory_and_comes_when_there_is_some() {
    let stage = Stage::new(Changes { memory: Some(1 << 20), frame_within: LONG, ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let run = client.exec(stage.request());
    let (launch, _) = launcher.launch();
    launcher.started(&launch);
    client.event(run, 2);
    let mut hog = stage.client();
    hog.say_bytes(&part(900 << 10));
    until("it is held", || {
        let mut other = stage.client();
        // Too much beside what the first holds, and no more than there is.
        other.say_bytes(&part(300 << 10)) && !other.hears_nothing()
    });
    launcher.write(run, &[b'x'; 50_000]);
    assert!(client.hears_nothing(), "sent, though there is no memory for it");
    drop(hog);
    launcher.end_output(run);
    launcher.ended(run, stockade_protocol::outcome::Outcome::Exited { code: 0 });
    assert_eq!(client.read_to_end(run, 3).0.len(), 50_000);
}
