//! What was asked when the connection broke, or is asked in the pause.

use stockade_client::{About, Client, ClientError, ExecEvent, Outcome, Usage};
use stockade_protocol::Bytes;
use stockade_protocol::client::{ClientMessage, ServerMessage, VERSION};

use crate::looped::{Looped, attach, request};
use crate::script::{Door, Script, exited, id};

#[test]
fn a_request_without_an_answer_is_an_error_and_is_never_sent_again() {
    let door = Door::open();
    let (mut looped, mut first) = Looped::new(&door);
    looped.run(&mut first, id(1));
    let request_id = looped.client.begin(&request()).unwrap();
    assert!(matches!(first.read(), Some(ClientMessage::Exec(_))));
    drop(first);
    let mut second = looped.returns_to(&door);
    let error = looped.next().unwrap_err();
    assert_eq!(error.about(), Some(About::Request(request_id)));
    assert!(error.to_string().contains("may have been started"), "{error}");
    assert_eq!(second.read(), attach(id(1), 1));
    // The next thing that comes is another request, not the same again.
    let another = looped.client.begin(&request()).unwrap();
    assert!(matches!(second.read(), Some(ClientMessage::Exec(exec)) if exec.request_id == another));
}

#[test]
fn a_request_without_an_answer_is_an_error_where_nothing_is_followed() {
    let door = Door::open();
    let path = door.path();
    let script = std::thread::spawn(move || {
        let mut script = door.next();
        script.welcome(VERSION);
        assert!(matches!(script.read(), Some(ClientMessage::Exec(_))));
        drop(script);
        door.come().is_none()
    });
    let mut client = Client::connect(&path).unwrap();
    let error = client.exec(&request()).unwrap_err();
    assert!(matches!(error, ClientError::Unanswered { request_id: 1 }), "{error:?}");
    assert!(matches!(client.list(), Err(ClientError::Closed)));
    assert!(script.join().unwrap());
}

#[test]
fn a_request_that_could_not_be_sent_is_sent_to_the_next_supervisor() {
    let door = Door::open();
    let (mut looped, mut first) = Looped::new(&door);
    looped.run(&mut first, id(1));
    drop(first);
    let script = std::thread::spawn(move || {
        let mut second = door.next();
        second.welcome(VERSION);
        assert_eq!(second.read(), attach(id(1), 1));
        second.accept(id(2));
        second
    });
    assert_eq!(looped.client.exec(&request()).unwrap(), id(2));
    drop(script.join().unwrap());
}

#[test]
fn what_is_asked_in_a_pause_is_asked_when_it_is_over() {
    let door = Door::open();
    let (mut looped, mut first) = Looped::new(&door);
    looped.run(&mut first, id(1));
    looped.run(&mut first, id(2));
    // Perhaps this came through, perhaps not: it's asked again.
    looped.client.cancel(id(2)).unwrap();
    drop(first);
    while looped.client.pause().is_none() {
        looped.turn();
    }
    looped.client.signal(id(1), 15).unwrap();
    looped.client.cancel(id(1)).unwrap();
    looped.client.attach(id(3), 9).unwrap();
    looped.client.acknowledge(id(1), 1).unwrap();
    let mut second = looped.returns_to(&door);
    let cancel = |exec_id| Some(ClientMessage::Cancel { exec_id });
    let said: Vec<_> = core::iter::repeat_with(|| second.read()).take(6).collect();
    let signal = Some(ClientMessage::Signal { exec_id: id(1), signal: 15 });
    let (one, two, three) = (attach(id(1), 1), attach(id(2), 1), attach(id(3), 9));
    assert_eq!(said, [one, cancel(id(1)), two, cancel(id(2)), three, signal]);
    // And after it as always.
    looped.client.signal(id(1), 9).unwrap();
    assert_eq!(second.read(), Some(ClientMessage::Signal { exec_id: id(1), signal: 9 }));
}

#[test]
fn a_question_that_a_break_cuts_short_is_answered_by_the_next_supervisor() {
    let door = Door::open();
    let (mut looped, mut first) = Looped::new(&door);
    looped.run(&mut first, id(1));
    let script = std::thread::spawn(move || {
        assert_eq!(first.read(), Some(ClientMessage::List));
        drop(first);
        let mut second = door.next();
        second.welcome(VERSION);
        assert_eq!(second.read(), attach(id(1), 1));
        assert_eq!(second.read(), Some(ClientMessage::List));
        second.say(&ServerMessage::Runs(vec![]));
        second
    });
    assert_eq!(looped.client.list().unwrap(), []);
    drop(script.join().unwrap());
}

/// A run whose input is streamed, with three bytes sent.
fn streaming(door: &Door) -> (Looped, Script) {
    let (mut looped, mut script) = Looped::new(door);
    looped.client.begin(&request().stdin_stream()).unwrap();
    script.accept(id(1));
    looped.event();
    looped.client.stdin(id(1), b"abc").unwrap();
    assert!(matches!(script.read(), Some(ClientMessage::StdinData { .. })));
    (looped, script)
}

fn is_in_doubt(result: &Result<(), ClientError>) -> bool {
    matches!(result, Err(ClientError::InputInDoubt { exec_id }) if *exec_id == id(1))
}

#[test]
fn streamed_input_is_not_continued_over_a_break_that_its_sender_has_not_heard_of() {
    let door = Door::open();
    for ends in [false, true] {
        let (mut looped, first) = streaming(&door);
        drop(first);
        let mut second = looped.returns_to(&door);
        assert_eq!(second.read(), attach(id(1), 1));
        let client = &mut looped.client;
        let refused = if ends { client.stdin_eof(id(1)) } else { client.stdin(id(1), b"def") };
        assert!(is_in_doubt(&refused));
        // Who has heard of it decides.
        looped.client.stdin(id(1), b"abcdef").unwrap();
        let said = second.read();
        assert_eq!(said, Some(ClientMessage::StdinData { exec_id: id(1), bytes: Bytes::from("abcdef") }));
    }
}

#[test]
fn streamed_input_in_doubt_is_told_to_who_reads_and_the_run_goes_on() {
    let door = Door::open();
    let (mut looped, first) = streaming(&door);
    drop(first);
    let mut second = looped.returns_to(&door);
    second.event(id(1), 2, exited(0));
    let events: Vec<_> = looped.client.events(id(1)).collect();
    assert!(matches!(events[..], [Err(ClientError::InputInDoubt { .. })]), "{events:?}");
    assert_eq!(looped.rest_of(id(1)), [(2, exited(0))]);
}

#[test]
fn streamed_input_sent_in_a_pause_waits_and_is_refused() {
    let door = Door::open();
    let (mut looped, first) = streaming(&door);
    drop(first);
    let script = std::thread::spawn(move || {
        let mut second = door.next();
        second.welcome(VERSION);
        (second.read(), second.read())
    });
    assert!(is_in_doubt(&looped.client.stdin(id(1), b"def")));
    looped.client.cancel(id(1)).unwrap();
    let cancel = Some(ClientMessage::Cancel { exec_id: id(1) });
    assert_eq!(script.join().unwrap(), (attach(id(1), 1), cancel));
}

#[test]
fn streamed_input_that_had_ended_is_in_doubt_only_if_less_reached_the_tool() {
    let door = Door::open();
    for (bytes_in, doubt) in [(3, false), (1, true)] {
        let (mut looped, mut first) = streaming(&door);
        looped.client.stdin_eof(id(1)).unwrap();
        assert!(matches!(first.read(), Some(ClientMessage::StdinEof { .. })));
        drop(first);
        let mut second = looped.returns_to(&door);
        let usage = Usage { bytes_in, ..Usage::default() };
        let exited = ExecEvent::Exited {
            outcome: Outcome::Exited { code: 0 },
            usage,
            trusted_files: vec![],
            redactions: None,
            result_check: None,
        };
        second.event(id(1), 2, exited.clone());
        if doubt {
            assert!(is_in_doubt(&looped.next().map(drop)));
        }
        assert_eq!(looped.rest_of(id(1)), [(2, exited)]);
    }
}
