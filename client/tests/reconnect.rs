//! Connections that break, against supervisors that come and go. Most tests pass the time in themselves, so that
//! half a minute takes none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod script;

use std::io::Write;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use script::{Door, Script, exited, frame, id, output};
use stockade_client::{
    About, Client, ClientError, Confinement, Denied, DenyReason, ExecEvent, ExecId, Outcome, RETURN_WITHIN,
    Request, StdioPath, Usage,
};
use stockade_protocol::Bytes;
use stockade_protocol::client::{ClientMessage, ProtocolError, ProtocolErrorCode, ServerMessage, VERSION};
use stockade_protocol::confinement::Plan;
use stockade_protocol::outcome::MemoryMechanism;
use stockade_protocol::spec::Level;

/// Of what must come, on a busy machine.
const PATIENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// A client in a poll loop whose clock is ours.
struct Looped {
    client: Client,
    now: Instant,
}

impl Looped {
    /// A client and its supervisor, greeted.
    fn new(door: &Door) -> (Self, Script) {
        let client = Client::open(&door.path()).unwrap();
        let mut script = door.next();
        script.welcome(VERSION);
        let mut looped = Self { client, now: Instant::now() };
        while !looped.client.is_greeted() {
            looped.turn();
        }
        (looped, script)
    }

    /// One turn: waits for the socket while there is one, else lets the time pass until something is due.
    fn turn(&mut self) {
        if let Some(socket) = self.client.socket() {
            let mut polled = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
            assert_eq!(rustix::event::poll(&mut polled, Some(&PATIENCE)), Ok(1), "nothing comes");
        } else if let Some(due) = self.client.due() {
            self.now = self.now.max(due);
        }
        self.client.pump_at(self.now).unwrap();
    }

    /// What comes next.
    fn next(&mut self) -> Result<ServerMessage, ClientError> {
        loop {
            if let Some(received) = self.client.next_waiting() {
                return received;
            }
            self.turn();
        }
    }

    fn event(&mut self) -> (ExecId, u64, ExecEvent) {
        match self.next() {
            Ok(ServerMessage::Event { exec_id, seq, event }) => (exec_id, seq, event),
            other => panic!("expected an event: {other:?}"),
        }
    }

    /// Everything until a run's `Exited`.
    fn rest_of(&mut self, run: ExecId) -> Vec<(u64, ExecEvent)> {
        let mut all = Vec::new();
        loop {
            let (of, seq, event) = self.event();
            assert_eq!(of, run);
            let is_last = matches!(event, ExecEvent::Exited { .. });
            all.push((seq, event));
            if is_last {
                return all;
            }
        }
    }

    /// Asks for a run and has it accepted.
    fn run(&mut self, script: &mut Script, run: ExecId) {
        self.client.begin(&request()).unwrap();
        script.accept(run);
        assert!(matches!(self.event(), (of, 1, ExecEvent::Accepted { .. }) if of == run));
    }

    /// Goes on until the client stands at the door again. What comes meanwhile stays waiting.
    fn comes_to(&mut self, door: &Door) -> Script {
        loop {
            self.turn();
            if let Some(script) = door.come() {
                return script;
            }
        }
    }

    /// As [`Looped::comes_to`], and it's greeted.
    fn returns_to(&mut self, door: &Door) -> Script {
        let mut script = self.comes_to(door);
        script.welcome(VERSION);
        while self.client.pause().is_some() {
            self.turn();
        }
        script
    }
}

fn request() -> Request {
    Request::new(["true"]).workspace_path("/srv")
}

fn started() -> ExecEvent {
    let confinement = Confinement {
        policy: "default".into(),
        policy_digest: [0xa5; 32],
        level: Level::Strict,
        plan: Plan::User,
        layers: vec![],
        memory: MemoryMechanism::Monitor,
        host_uid: 1000,
        absent: vec![],
        stdio: [StdioPath::Null, StdioPath::Relayed, StdioPath::Relayed],
    };
    ExecEvent::Started { confinement: Box::new(confinement) }
}

/// What happens to a run after it's accepted.
fn story() -> Vec<(u64, ExecEvent)> {
    let events = [started(), output("one"), output(&"bulk ".repeat(2_000)), output("three"), exited(7)];
    (2..).zip(events).collect()
}

fn frames(run: ExecId, events: &[(u64, ExecEvent)]) -> Vec<u8> {
    let message = |(seq, event): &(u64, ExecEvent)| ServerMessage::Event {
        exec_id: run,
        seq: *seq,
        event: event.clone(),
    };
    events.iter().flat_map(|event| frame(&message(event))).collect()
}

fn attach(run: ExecId, after_seq: u64) -> Option<ClientMessage> {
    Some(ClientMessage::Attach { exec_id: run, after_seq })
}

/// Tells a client that attaches the rest of the story.
fn tell_rest(script: &mut Script, run: ExecId, story: &[(u64, ExecEvent)]) {
    let Some(ClientMessage::Attach { exec_id, after_seq }) = script.read() else { panic!("no attach") };
    assert_eq!(exec_id, run);
    let rest: Vec<_> = story.iter().filter(|(seq, _)| *seq > after_seq).cloned().collect();
    script.0.write_all(&frames(run, &rest)).unwrap();
}

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

/// With a test of its own for each, so that none is forgotten by a change of the story.
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
fn a_supervisor_that_comes_back_after_a_while_is_found() {
    let mut door = Door::open();
    let (mut looped, mut first) = Looped::new(&door);
    looped.run(&mut first, id(1));
    door.close();
    drop(first);
    let broke = looped.now;
    while looped.now < broke + Duration::from_secs(20) {
        looped.turn();
    }
    let pause = looped.client.pause().expect("a pause");
    assert_eq!(pause.until - pause.since, RETURN_WITHIN);
    assert!(looped.client.socket().is_none());
    door.reopen();
    let mut second = looped.returns_to(&door);
    assert!(looped.client.pause().is_none() && looped.client.due().is_none());
    tell_rest(&mut second, id(1), &story());
    assert_eq!(looped.rest_of(id(1)), story());
}

#[test]
fn a_supervisor_that_does_not_come_back_is_given_up_in_time_and_every_run_hears_it() {
    let mut door = Door::open();
    let (mut looped, mut first) = Looped::new(&door);
    looped.run(&mut first, id(1));
    looped.run(&mut first, id(2));
    door.close();
    drop(first);
    let broke = looped.now;
    let Err(ClientError::Gone { within, source: Some(source) }) = looped.next() else {
        panic!("expected an end")
    };
    assert_eq!((within, source.kind()), (RETURN_WITHIN, std::io::ErrorKind::NotFound));
    assert_eq!(looped.now, broke + RETURN_WITHIN);
    for run in [id(1), id(2)] {
        let events: Vec<_> = looped.client.events(run).collect();
        assert!(matches!(events[..], [Err(ClientError::Gone { .. })]), "{events:?}");
    }
    assert!(matches!(looped.client.cancel(id(1)), Err(ClientError::Gone { .. })));
    assert!(looped.client.pause().is_none() && looped.client.due().is_none());
}

#[test]
fn a_supervisor_that_lets_connect_and_never_answers_is_given_up_in_time() {
    let door = Door::open();
    let (mut looped, mut first) = Looped::new(&door);
    looped.run(&mut first, id(1));
    drop(first);
    let _silent = looped.comes_to(&door);
    let until = looped.client.pause().unwrap().until;
    assert_eq!(looped.client.due(), Some(until));
    looped.client.pump_at(until - Duration::from_nanos(1)).unwrap();
    assert!(looped.client.pause().is_some());
    looped.client.pump_at(until).unwrap();
    assert!(matches!(looped.next(), Err(ClientError::Gone { source: None, .. })));
}

#[test]
fn a_supervisor_that_goes_at_once_each_time_is_given_up_in_time() {
    let door = Door::open();
    let (mut looped, mut script) = Looped::new(&door);
    looped.run(&mut script, id(1));
    let broke = looped.now;
    drop(script);
    let mut times = 0;
    while looped.client.pause().is_none_or(|pause| pause.since == broke) && looped.now < broke + RETURN_WITHIN
    {
        looped.turn();
        if let Some(mut script) = door.come() {
            script.welcome(VERSION);
            assert_eq!(looped.client.pump_at(looped.now).ok(), Some(()));
            times += 1;
        }
    }
    assert!(matches!(looped.next(), Err(ClientError::Gone { .. })));
    assert!((20..=80).contains(&times), "{times} times");
}

#[test]
fn a_supervisor_of_another_version_is_an_error_and_not_asked_again() {
    let door = Door::open();
    let (mut looped, mut first) = Looped::new(&door);
    looped.run(&mut first, id(1));
    drop(first);
    looped.comes_to(&door).welcome(VERSION + 1);
    let error = looped.client.pump_at(looped.now).unwrap_err();
    assert!(matches!(error, ClientError::Version { theirs, ours: VERSION } if theirs == VERSION + 1));
    assert!(matches!(looped.next(), Err(ClientError::Closed)));
    assert!(door.come().is_none());
}

#[test]
fn a_supervisor_that_is_full_is_tried_again_and_one_that_refuses_is_not() {
    let error = |code| ServerMessage::Error(ProtocolError { code, text: "no".into() });
    let door = Door::open();
    let (mut looped, mut script) = Looped::new(&door);
    looped.run(&mut script, id(1));
    drop(script);
    looped.comes_to(&door).say(&error(ProtocolErrorCode::TooMany));
    let mut script = looped.comes_to(&door);
    script.say(&error(ProtocolErrorCode::NotPermitted));
    let refused = looped.client.pump_at(looped.now).unwrap_err();
    assert!(matches!(refused, ClientError::Refused(error) if error.code == ProtocolErrorCode::NotPermitted));
    assert!(matches!(looped.next(), Err(ClientError::Closed)));
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

fn unknown(run: ExecId) -> ServerMessage {
    let denied = Denied::new(DenyReason::UnknownRun, "there's no such run");
    ServerMessage::Denied { request_id: 0, exec_id: Some(run), denied }
}

#[test]
fn a_run_that_the_next_supervisor_does_not_know_is_lost_and_the_others_go_on() {
    let door = Door::open();
    let (mut looped, mut first) = Looped::new(&door);
    looped.run(&mut first, id(1));
    looped.run(&mut first, id(2));
    drop(first);
    let mut second = looped.returns_to(&door);
    assert_eq!((second.read(), second.read()), (attach(id(1), 1), attach(id(2), 1)));
    second.say(&unknown(id(1)));
    second.event(id(2), 2, exited(2));
    let error = looped.next().unwrap_err();
    assert_eq!(error.about(), Some(About::Run(id(1))));
    assert!(error.to_string().contains("restarted"), "{error}");
    assert_eq!(looped.event(), (id(2), 2, exited(2)));
    // Nothing is followed any more.
    drop(second);
    assert!(matches!(looped.next(), Err(ClientError::Closed)));
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
        let exited = ExecEvent::Exited { outcome: Outcome::Exited { code: 0 }, usage, trusted_files: vec![] };
        second.event(id(1), 2, exited.clone());
        if doubt {
            assert!(is_in_doubt(&looped.next().map(drop)));
        }
        assert_eq!(looped.rest_of(id(1)), [(2, exited)]);
    }
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
