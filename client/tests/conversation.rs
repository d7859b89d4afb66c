//! The client against a scripted supervisor on the other end of a socket pair.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod script;

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::JoinHandle;

use script::{Script, exited, id, output};
use stockade_client::{Client, ClientError, ConnectError, Denied, DenyReason, ExecEvent, Request};
use stockade_protocol::bounds::{MAX_FRAME, MAX_STDIN_CHUNK};
use stockade_protocol::client::{
    ClientMessage, ProtocolError, ProtocolErrorCode, ServerMessage, VERSION, Welcome,
};

fn supervisor(script: impl FnOnce(Script) + Send + 'static) -> (OwnedFd, JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (ours.into(), std::thread::spawn(move || script(Script(theirs))))
}

#[test]
fn two_runs_on_one_connection_each_get_their_own_events() {
    let (socket, script) = supervisor(|mut script| {
        script.welcome(VERSION);
        for run in [1, 2] {
            let Some(ClientMessage::Exec(request)) = script.read() else { panic!("expected a request") };
            // An event of the other run comes before the answer.
            if run == 2 {
                script.event(id(1), 2, output("first"));
            }
            script.event(id(run), 1, ExecEvent::Accepted { request_id: request.request_id });
        }
        script.event(id(2), 2, output("second"));
        script.event(id(1), 3, exited(1));
        script.event(id(2), 3, exited(2));
    });
    let mut client = Client::over(socket).unwrap();
    let request = Request::new(["true"]).workspace_path("/srv");
    let runs = [client.exec(&request).unwrap(), client.exec(&request).unwrap()];
    assert_eq!(runs, [id(1), id(2)]);
    let mut events = |run| client.events(run).map(|event| event.unwrap().event).collect::<Vec<_>>();
    assert_eq!(events(id(2)), [output("second"), exited(2)]);
    assert_eq!(events(id(1)), [output("first"), exited(1)]);
    script.join().unwrap();
}

#[test]
fn a_denied_request_is_an_error_with_its_reason_and_the_connection_goes_on() {
    let (socket, script) = supervisor(|mut script| {
        script.welcome(VERSION);
        let Some(ClientMessage::Exec(request)) = script.read() else { panic!("expected a request") };
        let denied = Denied::new(DenyReason::Busy, "slots and queue are full").retry_after(50);
        script.say(&ServerMessage::Denied { request_id: request.request_id, exec_id: None, denied });
        assert!(matches!(script.read(), Some(ClientMessage::List)));
        script.say(&ServerMessage::Runs(vec![]));
    });
    let mut client = Client::over(socket).unwrap();
    let Err(ClientError::Denied(denied)) = client.exec(&Request::new(["true"]).workspace_path("/srv")) else {
        panic!("expected a denial")
    };
    assert_eq!((denied.reason, denied.retry_after_ms), (DenyReason::Busy, Some(50)));
    assert_eq!(client.list().unwrap(), []);
    script.join().unwrap();
}

#[test]
fn a_supervisor_that_vanishes_mid_run_is_an_error_not_an_end() {
    let (socket, script) = supervisor(|mut script| {
        script.welcome(VERSION);
        script.read();
        script.event(id(1), 1, ExecEvent::Accepted { request_id: 1 });
        script.event(id(1), 2, output("half"));
    });
    let mut client = Client::over(socket).unwrap();
    let run = client.exec(&Request::new(["true"]).workspace_path("/srv")).unwrap();
    script.join().unwrap();
    let events: Vec<_> = client.events(run).collect();
    assert_eq!(events.len(), 2);
    assert!(matches!(events[0], Ok(ref event) if event.event == output("half")));
    assert!(matches!(events[1], Err(ClientError::Closed)));
}

#[test]
fn why_the_supervisor_closes_arrives_even_when_the_next_write_fails() {
    let (socket, script) = supervisor(|mut script| {
        script.welcome(VERSION);
        let text = "this peer may not be a client".to_owned();
        script.say(&ServerMessage::Error(ProtocolError { code: ProtocolErrorCode::NotPermitted, text }));
    });
    let mut client = Client::over(socket).unwrap();
    script.join().unwrap();
    let Err(ClientError::Refused(error)) = client.exec(&Request::new(["true"]).workspace_path("/srv")) else {
        panic!("expected a refusal")
    };
    assert_eq!(error.code, ProtocolErrorCode::NotPermitted);
}

#[test]
fn another_version_is_refused_and_both_are_named() {
    let (socket, script) = supervisor(|mut script| script.welcome(VERSION + 1));
    let error = Client::over(socket).unwrap_err();
    assert_eq!(error.to_string(), "the supervisor speaks version 2 of the wire, this client version 1");
    script.join().unwrap();
}

/// A supervisor behind a socket of a name, for one connection.
fn listening(script: impl FnOnce(Script) + Send + 'static) -> (tempfile::TempDir, PathBuf, JoinHandle<()>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let script = std::thread::spawn(move || script(Script(listener.accept().unwrap().0)));
    (directory, path, script)
}

#[test]
fn a_request_is_on_its_way_before_the_greeting_is_answered() {
    let (_directory, path, script) = listening(|mut script| {
        assert!(matches!(script.read(), Some(ClientMessage::Hello(_))));
        let Some(ClientMessage::Exec(request)) = script.read() else { panic!("expected a request") };
        let server = "script".to_owned();
        script.say(&ServerMessage::Welcome(Welcome {
            version: VERSION,
            features: 1,
            max_frame: MAX_FRAME,
            server,
        }));
        script.event(id(1), 1, ExecEvent::Accepted { request_id: request.request_id });
    });
    let mut client = Client::open(&path).unwrap();
    assert!(!client.is_greeted());
    assert_eq!(client.exec(&Request::new(["true"]).workspace_path("/srv")).unwrap(), id(1));
    assert!(client.is_greeted());
    assert_eq!(client.welcome().server, "script");
    script.join().unwrap();
}

#[test]
fn who_is_not_wanted_hears_it_though_he_has_asked_already() {
    let (_directory, path, script) = listening(|mut script| {
        assert!(matches!(script.read(), Some(ClientMessage::Hello(_))));
        let text = "this peer may not be a client".to_owned();
        script.say(&ServerMessage::Error(ProtocolError { code: ProtocolErrorCode::NotPermitted, text }));
    });
    let mut client = Client::open(&path).unwrap();
    let Err(ClientError::Refused(error)) = client.exec(&Request::new(["true"]).workspace_path("/srv")) else {
        panic!("expected a refusal")
    };
    assert_eq!(error.code, ProtocolErrorCode::NotPermitted);
    assert!(!client.is_greeted());
    script.join().unwrap();
}

#[test]
fn an_event_before_the_welcome_is_no_answer() {
    let (_directory, path, script) = listening(|mut script| {
        script.read();
        script.event(id(1), 1, ExecEvent::Accepted { request_id: 1 });
    });
    let error = Client::connect(&path).unwrap_err();
    let ConnectError::Handshake { source: ClientError::Unexpected(_), .. } = error else {
        panic!("{error:?}")
    };
    script.join().unwrap();
}

#[test]
fn a_large_standard_input_crosses_while_the_supervisor_floods_with_output() {
    const BYTES: usize = 5 * MAX_STDIN_CHUNK + 7;
    const EVENTS: u64 = 200;
    let (socket, script) = supervisor(|mut script| {
        script.welcome(VERSION);
        script.read();
        script.event(id(1), 1, ExecEvent::Accepted { request_id: 1 });
        // More than the socket holds, before the first byte of input is read.
        for seq in 2..2 + EVENTS {
            script.event(id(1), seq, output(&"x".repeat(8192)));
        }
        let mut seen = 0;
        loop {
            match script.read() {
                Some(ClientMessage::StdinData { bytes, .. }) => seen += bytes.len(),
                Some(ClientMessage::StdinEof { .. }) => break,
                other => panic!("unexpected {other:?}"),
            }
        }
        script.event(id(1), 2 + EVENTS, output(&seen.to_string()));
        script.event(id(1), 3 + EVENTS, exited(0));
    });
    let mut client = Client::over(socket).unwrap();
    let run = client.exec(&Request::new(["wc", "-c"]).stdin_stream().workspace_path("/srv")).unwrap();
    client.stdin(run, &vec![0; BYTES]).unwrap();
    client.stdin_eof(run).unwrap();
    let events: Vec<_> = client.events(run).map(Result::unwrap).collect();
    assert_eq!(events.len() as u64, EVENTS + 2);
    assert_eq!(events[events.len() - 2].event, output(&BYTES.to_string()));
    script.join().unwrap();
}

#[test]
fn a_frame_over_the_limit_is_refused_before_it_is_sent() {
    let (socket, script) = supervisor(|mut script| script.welcome(VERSION));
    let mut client = Client::over(socket).unwrap();
    let request = Request::new(["true"]).stdin_bytes(vec![0; 2 * MAX_FRAME as usize]);
    assert!(matches!(client.exec(&request), Err(ClientError::Codec(_))));
    script.join().unwrap();
}

#[test]
fn a_socket_that_is_not_there_and_one_nobody_listens_on_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stockade.sock");
    let kind = |result: Result<Client, ConnectError>| match result {
        Err(ConnectError::Socket { source, .. }) => source.kind(),
        other => panic!("unexpected {other:?}"),
    };
    assert_eq!(kind(Client::connect(&path)), std::io::ErrorKind::NotFound);
    drop(UnixListener::bind(&path).unwrap());
    assert_eq!(kind(Client::connect(&path)), std::io::ErrorKind::ConnectionRefused);
}
