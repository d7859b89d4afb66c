//! What comes of a run when its connection breaks.

use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;

use stockade_client::{Client, ClientError, ExecEvent, RETURN_WITHIN};
use stockade_protocol::client::{ClientMessage, ProtocolError, ProtocolErrorCode, ServerMessage, VERSION};

use crate::looped::{Looped, attach, frames, request, started, story, tell_rest};
use crate::script::{Door, exited, id, output};

/// After `Accepted`, after `Started`, within an output of some kilobytes, between the last output and `Exited`, and
/// within any of their frames.
#[test]
fn a_break_at_any_byte_loses_and_doubles_nothing() {
    let story = story();
    let bytes = frames(id(1), &story);
    let bulk = bytes.windows(100).position(|window| window == "bulk ".repeat(20).as_bytes()).unwrap();
    let (far, farther) = (bulk + 1_000, bulk + 9_000);
    let cuts = (0..bytes.len()).filter(|cut| !(far..farther).contains(cut) || cut % 997 == 0);
    let (door, mut tried) = (Door::open(), 0);
    for cut in cuts {
        let (mut looped, mut first) = Looped::new(&door);
        looped.run(&mut first, id(1));
        first.0.write_all(&bytes[..cut]).unwrap();
        drop(first);
        let mut second = looped.returns_to(&door);
        tell_rest(&mut second, id(1), &story);
        assert_eq!(looped.rest_of(id(1)), story, "cut after {cut} bytes");
        tried += 1;
    }
    assert!(tried > 1_000);
}

/// By whole events: what is asked for is right, not only what comes through in the end.
#[test]
fn each_event_is_the_last_before_a_break_once() {
    let story = story();
    for seen in 0..story.len() {
        let door = Door::open();
        let (mut looped, mut first) = Looped::new(&door);
        looped.run(&mut first, id(1));
        first.0.write_all(&frames(id(1), &story[..seen])).unwrap();
        drop(first);
        let mut second = looped.returns_to(&door);
        assert_eq!(second.read(), attach(id(1), seen as u64 + 1));
        second.0.write_all(&frames(id(1), &story[seen..])).unwrap();
        assert_eq!(looped.rest_of(id(1)), story);
    }
}

#[test]
fn a_break_by_reset_is_a_break() {
    let door = Door::open();
    let (mut looped, mut first) = Looped::new(&door);
    looped.run(&mut first, id(1));
    // The supervisor goes with this unread.
    looped.client.signal(id(1), 10).unwrap();
    drop(first);
    let mut second = looped.returns_to(&door);
    tell_rest(&mut second, id(1), &story());
    assert_eq!(looped.rest_of(id(1)), story());
}

#[test]
fn a_break_that_a_write_meets_first_is_a_break() {
    let door = Door::open();
    let (mut looped, mut first) = Looped::new(&door);
    looped.run(&mut first, id(1));
    first.event(id(1), 2, started());
    drop(first);
    looped.client.signal(id(1), 10).unwrap();
    assert_eq!(looped.event(), (id(1), 2, started()));
    let mut second = looped.returns_to(&door);
    assert_eq!(second.read(), attach(id(1), 2));
    assert_eq!(second.read(), Some(ClientMessage::Signal { exec_id: id(1), signal: 10 }));
}

#[test]
fn two_breaks_lose_nothing_and_all_runs_are_followed_from_where_each_was() {
    let door = Door::open();
    let (mut looped, mut script) = Looped::new(&door);
    looped.run(&mut script, id(1));
    looped.run(&mut script, id(2));
    script.event(id(1), 2, started());
    drop(script);
    let mut script = looped.returns_to(&door);
    assert_eq!((script.read(), script.read()), (attach(id(1), 2), attach(id(2), 1)));
    script.event(id(2), 2, started());
    script.event(id(2), 3, exited(3));
    script.event(id(1), 3, output("one"));
    drop(script);
    let mut script = looped.returns_to(&door);
    assert_eq!(script.read(), attach(id(1), 3));
    script.event(id(1), 4, exited(4));
    let all: Vec<_> = core::iter::repeat_with(|| looped.event()).take(5).collect();
    let expected = [
        (id(1), 2, started()),
        (id(2), 2, started()),
        (id(2), 3, exited(3)),
        (id(1), 3, output("one")),
        (id(1), 4, exited(4)),
    ];
    assert_eq!(all, expected);
}

#[test]
fn what_comes_twice_is_dropped_and_what_is_missing_is_said() {
    let door = Door::open();
    let (mut looped, mut first) = Looped::new(&door);
    looped.run(&mut first, id(1));
    let story = story();
    first.0.write_all(&frames(id(1), &story[..3])).unwrap();
    drop(first);
    let mut second = looped.returns_to(&door);
    assert_eq!(second.read(), attach(id(1), 4));
    second.0.write_all(&frames(id(1), &story)).unwrap();
    second.event(id(1), 6, exited(7));
    second.event(id(2), 1, output("a stranger's"));
    assert_eq!(looped.rest_of(id(1)), story);

    looped.run(&mut second, id(3));
    drop(second);
    let mut third = looped.returns_to(&door);
    assert_eq!(third.read(), attach(id(3), 1));
    third.event(id(3), 4, output("late"));
    third.event(id(3), 5, exited(0));
    let lost = ExecEvent::OutputLost { events: 2 };
    assert_eq!(looped.rest_of(id(3)), [(3, lost), (4, output("late")), (5, exited(0))]);
}

#[test]
fn a_close_with_a_reason_and_bytes_that_are_no_message_are_no_break() {
    let door = Door::open();
    let (mut looped, mut script) = Looped::new(&door);
    looped.run(&mut script, id(1));
    let error = ProtocolError { code: ProtocolErrorCode::Slow, text: "too slow".into() };
    script.say(&ServerMessage::Error(error));
    drop(script);
    assert!(matches!(looped.next(), Err(ClientError::Refused(_))));
    assert!(matches!(looped.next(), Err(ClientError::Closed)));

    let (mut looped, mut script) = Looped::new(&door);
    looped.run(&mut script, id(1));
    script.0.write_all(b"\x03\x00\x00\x00GET").unwrap();
    drop(script);
    assert!(matches!(looped.client.pump_at(looped.now), Err(ClientError::Codec(_))));
    assert!(looped.client.pause().is_none() && door.come().is_none());
}

#[test]
fn who_iterates_sees_a_pause_and_every_event_and_is_told_of_the_pause_once() {
    let door = Door::open();
    let path = door.path();
    let (go, gone) = mpsc::channel();
    let script = std::thread::spawn(move || {
        let mut first = door.next();
        first.welcome(VERSION);
        first.accept(id(1));
        first.0.write_all(&frames(id(1), &story()[..2])).unwrap();
        drop(first);
        // Nobody answers before the pause was told.
        let mut second = door.next();
        gone.recv().unwrap();
        second.welcome(VERSION);
        tell_rest(&mut second, id(1), &story());
        second
    });
    let mut client = Client::connect(&path).unwrap();
    let (tell, told) = mpsc::channel();
    client.on_pause(Duration::from_millis(30), move |pause| {
        tell.send(pause).unwrap();
        go.send(()).unwrap();
    });
    let run = client.exec(&request()).unwrap();
    let events: Vec<_> =
        client.events(run).map(|event| event.unwrap()).map(|of| (of.seq, of.event)).collect();
    assert_eq!(events, story());
    drop(script.join().unwrap());
    let pauses: Vec<_> = told.try_iter().collect();
    assert_eq!(pauses.len(), 1);
    assert_eq!(pauses[0].until - pauses[0].since, RETURN_WITHIN);
}

#[test]
fn who_wants_no_return_has_the_end_at_once() {
    let door = Door::open();
    let (mut looped, mut first) = Looped::new(&door);
    looped.client.return_within(Duration::ZERO);
    looped.run(&mut first, id(1));
    drop(first);
    assert!(matches!(looped.next(), Err(ClientError::Closed)));
    assert!(door.come().is_none());
}
