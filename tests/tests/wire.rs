//! The daemon's socket against clients that are broken or mean: they are told and closed, and nobody else notices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

use std::os::fd::AsFd as _;
use std::time::Duration;

use stockade_protocol::Bytes;
use stockade_protocol::ExecId;
use stockade_protocol::bounds::{MAX_FRAME, MAX_POLICY_NAME};
use stockade_protocol::client::{
    ClientMessage, ExecEvent, ExecRequest, ProtocolErrorCode, ServerMessage, StdinMode, VERSION, Workspace,
};
use stockade_protocol::denied::DenyReason;
use stockade_protocol::outcome::{CancelReason, Outcome};
use stockade_tests::setting::marker;
use stockade_tests::wire::{Came, Wire, frame, hello, request, workspace};
use stockade_tests::{Daemon, Ground, Mode, Person, left, not_tested, wait_until};

/// Of what must come, on a busy machine too.
const SOON: Duration = Duration::from_secs(60);

/// Does something with the shared daemon of each mode, and looks whether an honest client still gets its run.
fn each(mut attack: impl FnMut(&Daemon, Person)) {
    for mode in Mode::daemons_here() {
        let daemon = Daemon::shared(mode);
        attack(&daemon, mode.client());
        let ground = Ground::new(mode.client());
        let mut honest = Wire::greeted(&daemon, mode.client());
        let events = honest.run(request(&ground, "default", &["echo", "fine"]), &workspace(&ground));
        assert_eq!(outcome(&events), Outcome::Exited { code: 0 }, "{mode:?}: {events:?}");
    }
}

fn outcome(events: &[(u64, ExecEvent)]) -> Outcome {
    match events.last() {
        Some((_, ExecEvent::Exited { outcome, .. })) => outcome.clone(),
        other => panic!("the last event isn't the end: {other:?}"),
    }
}

/// The connection must end with an error of this code.
#[track_caller]
fn expect_error(wire: &mut Wire, code: ProtocolErrorCode) {
    match wire.receive(SOON) {
        Came::Message(message) => match *message {
            ServerMessage::Error(error) => {
                assert_eq!(error.code, code, "{error}");
                assert!(!error.text.is_empty());
            }
            other => panic!("not an error: {other:?}"),
        },
        other => panic!("no error but {other:?}"),
    }
    assert_eq!(wire.receive(SOON), Came::Closed);
}

/// The request must be refused for this reason.
#[track_caller]
fn expect_denied(wire: &mut Wire, reason: DenyReason) -> String {
    match wire.message() {
        ServerMessage::Denied { denied, .. } => {
            assert_eq!(denied.reason, reason, "{denied:?}");
            denied.message
        }
        other => panic!("not denied: {other:?}"),
    }
}

#[test]
fn length_of_four_gigabytes_is_refused_before_anything_comes() {
    each(|daemon, person| {
        for length in [u32::MAX, MAX_FRAME + 1] {
            let mut wire = Wire::greeted(daemon, person);
            wire.send_bytes(&length.to_le_bytes()).unwrap();
            expect_error(&mut wire, ProtocolErrorCode::TooLarge);
        }
    });
}

#[test]
fn length_of_zero_is_malformed() {
    each(|daemon, person| {
        let mut wire = Wire::greeted(daemon, person);
        wire.send_bytes(&[0; 4]).unwrap();
        expect_error(&mut wire, ProtocolErrorCode::Malformed);
    });
}

#[test]
fn first_frame_that_is_no_greeting_is_refused() {
    each(|daemon, person| {
        for bytes in
            [b"GET / HTTP/1.1\r\n\r\n".to_vec(), frame(&ClientMessage::List), vec![0xff; 64], vec![0; 64]]
        {
            let mut wire = Wire::connect(daemon, person);
            // The daemon may close while we still send.
            let _ = wire.send_bytes(&bytes);
            let came = wire.receive(SOON);
            let is_refusal = match &came {
                Came::Closed => true,
                Came::Message(message) => matches!(**message, ServerMessage::Error(_)),
                Came::Nothing => false,
            };
            assert!(is_refusal, "{bytes:?}: {came:?}");
        }
    });
}

#[test]
fn version_that_is_unknown_is_refused_with_both_versions() {
    each(|daemon, person| {
        let mut wire = Wire::connect(daemon, person);
        wire.send(&hello(0), &[]);
        expect_error(&mut wire, ProtocolErrorCode::Version);
        // A later client can speak this version, too.
        let mut later = Wire::connect(daemon, person);
        later.send(&hello(VERSION + 1), &[]);
        match later.message() {
            ServerMessage::Welcome(welcome) => assert_eq!(welcome.version, VERSION),
            ServerMessage::Error(error) => assert_eq!(error.code, ProtocolErrorCode::Version),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn second_greeting_is_unexpected() {
    each(|daemon, person| {
        let mut wire = Wire::greeted(daemon, person);
        wire.send(&hello(VERSION), &[]);
        expect_error(&mut wire, ProtocolErrorCode::Unexpected);
    });
}

#[test]
fn bytes_that_are_no_message_are_malformed() {
    each(|daemon, person| {
        for payload in [
            vec![0xff; 9],
            vec![9, 0, 0, 0, 1],
            [frame(&ClientMessage::List)[4..].to_vec(), vec![0]].concat(),
        ] {
            let mut wire = Wire::greeted(daemon, person);
            let length = u32::try_from(payload.len()).unwrap();
            wire.send_bytes(&[length.to_le_bytes().to_vec(), payload].concat()).unwrap();
            expect_error(&mut wire, ProtocolErrorCode::Malformed);
        }
    });
}

#[test]
fn frame_cut_in_the_middle_is_forgotten() {
    each(|daemon, person| {
        let bytes = frame(&ClientMessage::Status);
        let mut wire = Wire::greeted(daemon, person);
        wire.send_bytes(&bytes[..bytes.len() - 1]).unwrap();
        wire.finish_sending();
        let came = wire.receive(SOON);
        assert!(!matches!(came, Came::Nothing), "the connection stays open after half a frame");
    });
}

#[test]
fn greeting_at_one_byte_a_second_is_too_slow() {
    each(|daemon, person| {
        let mut wire = Wire::connect(daemon, person);
        let greeting = frame(&hello(VERSION));
        let is_refused = |byte: &u8| {
            wire.send_bytes(&[*byte]).is_err() || wire.receive(Duration::from_secs(1)) != Came::Nothing
        };
        let refused = greeting.iter().position(is_refused);
        assert!(refused.is_some_and(|at| at + 1 < greeting.len()), "refused at byte {refused:?}");
    });
}

#[test]
fn silent_connection_is_closed() {
    each(|daemon, person| {
        let mut wire = Wire::connect(daemon, person);
        expect_error(&mut wire, ProtocolErrorCode::Slow);
    });
}

#[test]
fn message_in_single_bytes_is_understood() {
    each(|daemon, person| {
        let mut wire = Wire::greeted(daemon, person);
        for byte in frame(&ClientMessage::Status) {
            wire.send_bytes(&[byte]).unwrap();
        }
        assert!(matches!(wire.message(), ServerMessage::Status(_)));
    });
}

#[test]
fn connections_past_the_bound_are_refused_and_the_others_live() {
    each(|daemon, person| {
        if person != Person::me() {
            not_tested("thousands of connections as another user", "each needs a process of that user");
            return;
        }
        let mut first = Wire::greeted(daemon, person);
        // Some of our own are for the tests beside this one.
        let ours = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        let connect = |_| std::os::unix::net::UnixStream::connect(&daemon.socket).unwrap();
        let held: Vec<_> = (0..3000.min(ours / 2)).map(connect).collect();
        first.send(&ClientMessage::Status, &[]);
        assert!(matches!(first.message(), ServerMessage::Status(_)));
        drop(held);
        // Those that were refused or are gone free their place.
        assert!(wait_until(SOON, || left::descriptors(daemon.pid()) < 200));
    });
}

#[test]
fn client_that_never_reads_stops_only_its_own_run() {
    for mode in Mode::daemons_here() {
        // Of its own: others would change how much memory it has.
        let daemon = Daemon::start(mode.server(), &[]);
        let ground = Ground::new(mode.client());
        let mut deaf = Wire::greeted(&daemon, mode.client());
        let asked =
            request(&ground, "test-long", &["sh", "-c", "head -c 100000000 /dev/zero; echo done > finished"]);
        let folder = workspace(&ground);
        deaf.send(&ClientMessage::Exec(Box::new(asked)), &[folder.as_fd()]);
        std::thread::sleep(Duration::from_millis(700));
        let memory = left::resident(daemon.pid());
        let mut other = Wire::greeted(&daemon, mode.client());
        let events = other.run(request(&ground, "default", &["seq", "20000"]), &folder);
        assert_eq!(outcome(&events), Outcome::Exited { code: 0 });
        assert!(!ground.work().join("finished").exists(), "the run of the deaf client went on");
        assert!(left::resident(daemon.pid()) < memory + 20 * 1024, "the daemon keeps what nobody reads");
        // It reads after all: every byte comes, in order, and then the end.
        let events = deaf.follow();
        let bytes: usize = events
            .iter()
            .map(|(_, event)| if let ExecEvent::Output { bytes, .. } = event { bytes.len() } else { 0 })
            .sum();
        assert_eq!(outcome(&events), Outcome::Exited { code: 0 });
        assert_eq!(bytes, 100_000_000);
        assert!(events.iter().enumerate().all(|(at, (seq, _))| *seq == at as u64 + 1));
    }
}

#[test]
fn client_that_vanishes_takes_its_run_with_it() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        let word = marker("vanished");
        let mut wire = Wire::greeted(daemon, person);
        let asked = request(&ground, "default", &["sh", "-c", &format!("sleep 50; echo {word}")]);
        wire.send(&ClientMessage::Exec(Box::new(asked)), &[workspace(&ground).as_fd()]);
        assert!(wait_until(SOON, || !left::with_word(&word).is_empty()));
        drop(wire);
        assert!(wait_until(SOON, || left::with_word(&word).is_empty()));
    });
}

#[test]
fn cancel_ends_a_run_as_asked() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        let mut wire = Wire::greeted(daemon, person);
        let asked = request(&ground, "default", &["sleep", "50"]);
        wire.send(&ClientMessage::Exec(Box::new(asked)), &[workspace(&ground).as_fd()]);
        let exec_id = wire.accepted();
        wire.send(&ClientMessage::Cancel { exec_id }, &[]);
        assert_eq!(outcome(&wire.follow()), Outcome::Cancelled { reason: CancelReason::Asked });
    });
}

#[test]
fn stream_of_input_reaches_the_run() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        let mut wire = Wire::greeted(daemon, person);
        let mut asked = request(&ground, "default", &["wc", "-c"]);
        asked.stdin = StdinMode::Stream;
        wire.send(&ClientMessage::Exec(Box::new(asked)), &[workspace(&ground).as_fd()]);
        let exec_id = wire.accepted();
        for _ in 0..40 {
            let bytes = Bytes::from(vec![b'x'; 100_000]);
            if let Err(error) = wire.try_send(&ClientMessage::StdinData { exec_id, bytes }, &[]) {
                panic!("{error}; {:?}", wire.receive(SOON));
            }
        }
        wire.send(&ClientMessage::StdinEof { exec_id }, &[]);
        let events = wire.follow();
        let said = events.iter().any(
            |(_, event)| matches!(event, ExecEvent::Output { bytes, .. } if bytes.to_text().trim() == "4000000"),
        );
        assert!(said, "{events:?}");
    });
}

#[test]
fn inline_input_reaches_the_run() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        let mut wire = Wire::greeted(daemon, person);
        let mut asked = request(&ground, "default", &["cat"]);
        asked.stdin = StdinMode::Inline(Bytes::from("in line"));
        let events = wire.run(asked, &workspace(&ground));
        let said = events
            .iter()
            .any(|(_, event)| matches!(event, ExecEvent::Output { bytes, .. } if &**bytes == b"in line"));
        assert!(said, "{events:?}");
    });
}

#[test]
fn events_are_numbered_from_one_without_gaps_and_end_once() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        let mut wire = Wire::greeted(daemon, person);
        let line = "for i in 1 2 3 4 5; do echo $i; echo $i >&2; sleep 0.05; done";
        let events = wire.run(request(&ground, "default", &["sh", "-c", line]), &workspace(&ground));
        assert!(events.iter().enumerate().all(|(at, (seq, _))| *seq == at as u64 + 1), "{events:?}");
        assert!(matches!(events[0].1, ExecEvent::Accepted { .. }));
        assert!(matches!(events[1].1, ExecEvent::Started { .. }));
        assert_eq!(events.iter().filter(|(_, event)| matches!(event, ExecEvent::Exited { .. })).count(), 1);
        assert!(matches!(wire.receive(Duration::from_millis(300)), Came::Nothing));
    });
}

#[test]
fn policy_names_that_are_none_are_refused_as_unknown() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        let names = [
            "../default".to_owned(),
            "/etc/stockade/policies/default.toml".to_owned(),
            "default.toml".to_owned(),
            "default\0".to_owned(),
            "..".to_owned(),
            String::new(),
            "Default".to_owned(),
            "x".repeat(MAX_POLICY_NAME + 1),
            "y".repeat(900_000),
            "\u{1b}[31mred".to_owned(),
        ];
        for name in names {
            let mut wire = Wire::greeted(daemon, person);
            let mut asked = request(&ground, "default", &["true"]);
            asked.policy = name;
            wire.send(&ClientMessage::Exec(Box::new(asked)), &[workspace(&ground).as_fd()]);
            match wire.message() {
                ServerMessage::Denied { denied, .. } => {
                    let known = [DenyReason::UnknownPolicy, DenyReason::BadRequest];
                    assert!(known.contains(&denied.reason), "{denied:?}");
                    assert!(denied.message.len() < 2000, "{} bytes of message", denied.message.len());
                }
                other => panic!("not denied: {other:?}"),
            }
        }
    });
}

#[test]
fn requests_that_are_wrong_are_refused_as_bad() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        ground.put("file", "x");
        let good = || request(&ground, "default", &["true"]);
        let wrong: Vec<(&str, ExecRequest)> = vec![
            ("no argv", ExecRequest { argv: Vec::new(), ..good() }),
            ("an empty program", ExecRequest { argv: vec![Bytes::default()], ..good() }),
            ("a NUL in argv", ExecRequest { argv: vec![Bytes::from("echo"), Bytes::from("a\0b")], ..good() }),
            ("20,000 arguments", ExecRequest { argv: vec![Bytes::from("x"); 20_000], ..good() }),
            ("a long argument", ExecRequest { argv: vec![Bytes::from(vec![b'x'; 140_000]); 2], ..good() }),
            ("a cwd outside", ExecRequest { cwd: Bytes::from("/etc"), ..good() }),
            ("a relative cwd", ExecRequest { cwd: Bytes::from("x"), ..good() }),
            (
                "a cwd that climbs",
                ExecRequest {
                    cwd: Bytes::from([ground.work().to_str().unwrap(), "/../outside"].concat()),
                    ..good()
                },
            ),
            ("a NUL in the cwd", ExecRequest { cwd: Bytes::from("/a\0"), ..good() }),
            (
                "a name of a variable with =",
                ExecRequest { environment: vec![(Bytes::from("A=B"), Bytes::from("c"))], ..good() },
            ),
            (
                "a NUL in a variable",
                ExecRequest { environment: vec![(Bytes::from("LANG"), Bytes::from("c\0"))], ..good() },
            ),
            (
                "another path than the descriptor's",
                ExecRequest {
                    workspace: Workspace::Descriptor { path: Bytes::from("/somewhere") },
                    ..good()
                },
            ),
            ("a wall time of 0", {
                let mut asked = good();
                asked.overrides.wall_ms = Some(0);
                asked
            }),
            ("more wall time than the policy's", {
                let mut asked = good();
                asked.overrides.wall_ms = Some(u64::MAX);
                asked
            }),
        ];
        for (what, asked) in wrong {
            let mut wire = Wire::greeted(daemon, person);
            wire.send(&ClientMessage::Exec(Box::new(asked)), &[workspace(&ground).as_fd()]);
            match wire.message() {
                ServerMessage::Denied { denied, .. } => {
                    let known = [DenyReason::BadRequest, DenyReason::Policy];
                    assert!(known.contains(&denied.reason), "{what}: {denied:?}");
                }
                other => panic!("{what}: not denied but {other:?}"),
            }
        }
    });
}

#[test]
fn descriptor_that_is_missing_surplus_or_no_directory_is_refused() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        let file = std::fs::File::open("/etc/hostname").unwrap();
        let folder = workspace(&ground);
        let cases = [vec![], vec![file.as_fd()], vec![folder.as_fd(), file.as_fd()]];
        for descriptors in cases {
            let mut wire = Wire::greeted(daemon, person);
            let asked = request(&ground, "default", &["true"]);
            wire.send(&ClientMessage::Exec(Box::new(asked)), &descriptors);
            // One more message, so that a surplus one is noticed by what it stands beside.
            let _ = wire.try_send(&ClientMessage::Status, &[]);
            match wire.message() {
                ServerMessage::Error(error) => assert_eq!(error.code, ProtocolErrorCode::Unexpected),
                ServerMessage::Denied { denied, .. } => assert_eq!(denied.reason, DenyReason::BadRequest),
                other => panic!("{} descriptors: {other:?}", descriptors.len()),
            }
        }
    });
}

#[test]
fn runs_that_do_not_exist_are_unknown() {
    each(|daemon, person| {
        let exec_id = ExecId::generate();
        let mut wire = Wire::greeted(daemon, person);
        for message in [
            ClientMessage::Cancel { exec_id },
            ClientMessage::Signal { exec_id, signal: 15 },
            ClientMessage::Attach { exec_id, after_seq: 0 },
        ] {
            wire.send(&message, &[]);
            expect_denied(&mut wire, DenyReason::UnknownRun);
        }
        // A run may just have ended while its input was on the way: no error.
        for message in [
            ClientMessage::StdinData { exec_id, bytes: Bytes::from("x") },
            ClientMessage::StdinEof { exec_id },
            ClientMessage::Acknowledge { exec_id, seq: 9 },
        ] {
            wire.send(&message, &[]);
        }
        wire.send(&ClientMessage::Status, &[]);
        assert!(matches!(wire.message(), ServerMessage::Status(_)));
    });
}

#[test]
fn signal_of_a_number_that_is_none_is_refused() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        for signal in [0, 65, 255] {
            let mut wire = Wire::greeted(daemon, person);
            let asked = request(&ground, "default", &["sleep", "20"]);
            wire.send(&ClientMessage::Exec(Box::new(asked)), &[workspace(&ground).as_fd()]);
            let exec_id = wire.accepted();
            wire.send(&ClientMessage::Signal { exec_id, signal }, &[]);
            loop {
                match wire.message() {
                    ServerMessage::Denied { denied, .. } => {
                        break assert_eq!(denied.reason, DenyReason::BadRequest);
                    }
                    ServerMessage::Event { event: ExecEvent::Started { .. }, .. } => {}
                    other => panic!("signal {signal}: {other:?}"),
                }
            }
        }
    });
}

#[test]
fn attaching_again_resumes_after_the_last_number() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        let mut wire = Wire::greeted(daemon, person);
        let line = "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.2; done";
        let mut asked = request(&ground, "default", &["sh", "-c", line]);
        asked.detach = true;
        wire.send(&ClientMessage::Exec(Box::new(asked)), &[workspace(&ground).as_fd()]);
        let exec_id = wire.accepted();
        drop(wire);
        let mut text = Vec::new();
        let mut last = 0;
        // Three events a connection, until the end.
        'all: for _ in 0..20 {
            let mut again = Wire::greeted(daemon, person);
            again.send(&ClientMessage::Attach { exec_id, after_seq: last }, &[]);
            for _ in 0..3 {
                let ServerMessage::Event { seq, event, .. } = again.message() else { panic!("not an event") };
                assert_eq!(seq, last + 1, "{event:?}");
                last = seq;
                match event {
                    ExecEvent::Output { bytes, .. } => text.extend_from_slice(&bytes),
                    ExecEvent::Exited { outcome, .. } => {
                        assert_eq!(outcome, Outcome::Exited { code: 0 });
                        break 'all;
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(String::from_utf8(text).unwrap(), "1\n2\n3\n4\n5\n6\n7\n8\n");
    });
}

#[test]
fn output_that_was_lost_is_reported_as_lost() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        let mut wire = Wire::greeted(daemon, person);
        let line = "head -c 8000000 /dev/zero; echo tail; : > written";
        let mut asked = request(&ground, "default", &["sh", "-c", line]);
        asked.detach = true;
        wire.send(&ClientMessage::Exec(Box::new(asked)), &[workspace(&ground).as_fd()]);
        let exec_id = wire.accepted();
        drop(wire);
        assert!(wait_until(SOON, || ground.work().join("written").exists()));
        let mut again = Wire::greeted(daemon, person);
        again.send(&ClientMessage::Attach { exec_id, after_seq: 0 }, &[]);
        let events = again.follow();
        assert!(
            events.iter().any(|(_, event)| matches!(event, ExecEvent::OutputLost { .. })),
            "{}",
            events.len()
        );
        let tail = events
            .iter()
            .any(|(_, event)| matches!(event, ExecEvent::Output { bytes, .. } if bytes.ends_with(b"tail\n")));
        assert!(tail, "the tail is kept");
        assert_eq!(outcome(&events), Outcome::Exited { code: 0 });
    });
}

#[test]
fn queue_that_is_full_answers_busy_with_a_time() {
    let person = Mode::a_daemon().server();
    let daemon = Daemon::start(person, &["--slots", "1", "--queue", "1"]);
    let ground = Ground::new(person);
    let mut wire = Wire::greeted(&daemon, person);
    let mut busy = false;
    for number in 0..4 {
        let mut asked = request(&ground, "default", &["sleep", "20"]);
        asked.request_id = number;
        wire.send(&ClientMessage::Exec(Box::new(asked)), &[workspace(&ground).as_fd()]);
        loop {
            match wire.message() {
                ServerMessage::Denied { denied, request_id, .. } => {
                    assert_eq!((denied.reason, request_id), (DenyReason::Busy, number));
                    assert!(denied.retry_after_ms.is_some());
                    busy = true;
                    break;
                }
                ServerMessage::Event { event: ExecEvent::Accepted { .. }, .. } => break,
                ServerMessage::Event { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(busy);
}

/// Frames of 1 MiB that never come to their end, on 250 connections of root's; somebody else asks for little.
#[test]
fn what_waits_in_one_owners_connections_is_bounded_and_another_owner_is_served() {
    if !Person::me().is_root() {
        not_tested("two owners of one daemon", "that takes root");
        return;
    }
    let daemon = Daemon::start(Person::me(), &[]);
    let mut part = (1_u32 << 20).to_le_bytes().to_vec();
    part.resize(1 << 20, 0);
    let mut hogs: Vec<Wire> = (0..250).map(|_| Wire::greeted(&daemon, Person::me())).collect();
    for hog in &mut hogs {
        // Refused, it is closed while we write.
        let _closed = hog.send_bytes(&part);
    }
    let mut other = Wire::greeted(&daemon, Person::user());
    other.send(&ClientMessage::Status, &[]);
    let Came::Message(message) = other.receive(SOON) else { panic!("not served") };
    assert!(matches!(*message, ServerMessage::Status(_)), "{message:?}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kibibytes < 192 << 10, "the daemon has had {kibibytes} KiB");
    expect_error(hogs.last_mut().unwrap(), ProtocolErrorCode::TooMany);
}

/// Where launchers believe their supervisor, and where they look at the connection themselves, which a name makes worthless.
#[test]
fn a_client_whose_socket_has_a_name_is_told_so_where_its_connection_has_to_prove_who_asks() {
    for mode in Mode::daemons_here().into_iter().filter(|mode| mode.client() == Person::me()) {
        let (daemon, ground) = (Daemon::shared(mode), Ground::new(mode.client()));
        let mut wire = Wire::named(&daemon);
        let asked = request(&ground, "default", &["echo", "fine"]);
        if mode.server().is_root() {
            wire.send(&ClientMessage::Exec(Box::new(asked)), &[workspace(&ground).as_fd()]);
            let said = expect_denied(&mut wire, DenyReason::NotPermitted);
            assert!(said.contains("has a name"), "{said}");
            // All else it may.
            wire.send(&ClientMessage::Status, &[]);
            assert!(matches!(wire.message(), ServerMessage::Status(_)));
        } else {
            let events = wire.run(asked, &workspace(&ground));
            assert_eq!(outcome(&events), Outcome::Exited { code: 0 }, "{mode:?}: {events:?}");
        }
    }
}
