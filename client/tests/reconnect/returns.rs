//! Supervisors that come back late, otherwise, or never.

use std::time::Duration;

use stockade_client::{About, ClientError, Denied, DenyReason, ExecId, RETURN_WITHIN};
use stockade_protocol::client::{ProtocolError, ProtocolErrorCode, ServerMessage, VERSION};

use crate::looped::{Looped, attach, story, tell_rest};
use crate::script::{Door, exited, id};

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
