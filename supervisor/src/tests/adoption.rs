//! A launcher that another supervisor has left, played by the test from its door on.

use std::cell::RefCell;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use stockade_protocol::client::{ClientMessage, ExecEvent, RunState, ServerMessage, Stream};
use stockade_protocol::confinement::{Confinement, Plan, StdioPath};
use stockade_protocol::denied::DenyReason;
use stockade_protocol::launch::{
    Adopted, FromLauncher, FromRelay, GrantNote, LAUNCH_VERSION, Program, Redaction, RunNote, ToLauncher,
    ToRelay, Token,
};
use stockade_protocol::outcome::{CancelReason, MemoryMechanism, Outcome, Usage};
use stockade_protocol::ring::FIRST_SEQ;
use stockade_protocol::spec::Level;
use stockade_protocol::{Bytes, ExecId};
use stockade_wire::channel::Channel;
use stockade_wire::{program, socket};

use super::access;
use super::metrics::scrape;
use super::redacted::{self, VALUE};
use super::stage::{Changes, Client, Stage, until};
use crate::output::tests::Writer;
use crate::runs::ACKNOWLEDGED_PART;
use crate::serve::Order;

const DOOR: &str = "launcher-0123456789abcdef.sock";
const LAUNCHER: Token = Token([0x11; 32]);
const SUPERVISOR: Token = Token([0x22; 32]);
const RING: u64 = 64 * 1024;

/// What stands at a door.
type Door = Rc<RefCell<Option<OwnedFd>>>;

/// A stage whose state directory names a launcher, and its door.
fn stage() -> (Stage, OwnedFd) {
    stage_with(Changes::default())
}

fn stage_with(changes: Changes) -> (Stage, OwnedFd) {
    let door = Door::default();
    let made = Rc::clone(&door);
    let before = move |directory: &Path| *made.borrow_mut() = Some(leave_launcher(directory));
    let stage = Stage::new(Changes { before: Some(Box::new(before)), ..changes });
    let door = door.borrow_mut().take().unwrap();
    (stage, door)
}

/// What another supervisor leaves.
fn leave_launcher(directory: &Path) -> OwnedFd {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    for name in ["daemon", "state"] {
        std::fs::DirBuilder::new().mode(0o700).create(directory.join(name)).unwrap();
    }
    let door =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .unwrap();
    let path = directory.join("daemon").join(DOOR);
    rustix::net::bind(&door, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    let path = path.display();
    rustix::net::listen(&door, 4).unwrap();
    let (launcher, supervisor) = ("11".repeat(32), "22".repeat(32));
    let text = format!(
        r#"{{"version": 1, "launchers": [
            {{"door": "{path}", "pid": 1, "parked": 8, "launcher": "{launcher}", "supervisor": "{supervisor}"}}]}}"#
    );
    let mut options = std::fs::OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(0o600).open(directory.join("state/launchers.json"));
    std::io::Write::write_all(file.as_mut().unwrap(), text.as_bytes()).unwrap();
    door
}

/// The most launchers that are written down.
const LAUNCHERS: usize = 16;

/// What as many daemons as there may be have left: launchers that go on, each with a door of this version.
fn leave_many(directory: &Path) -> Vec<OwnedFd> {
    let first = leave_launcher(directory);
    let register = directory.join("state/launchers.json");
    let mut text = std::fs::read_to_string(&register).unwrap();
    let (entry, mut doors) =
        (text[text.find("{\"door\"").unwrap()..text.find("]}").unwrap()].to_owned(), vec![first]);
    for number in 1..LAUNCHERS {
        let name = format!("launcher-{number:016x}.sock");
        let door =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let door = door.unwrap();
        rustix::net::bind(&door, &SocketAddrUnix::new(directory.join("daemon").join(&name)).unwrap())
            .unwrap();
        rustix::net::listen(&door, 4).unwrap();
        doors.push(door);
        text = text.replace("]}", &format!(", {}]}}", entry.replace(DOOR, &name)));
    }
    std::fs::write(register, text).unwrap();
    doors
}

/// The launcher after the greeting, and its relay.
struct Elder {
    channel: Channel,
    relay: Channel,
}

/// Takes the supervisor's call, and waits for its token.
fn answer(door: &OwnedFd) -> Channel {
    let channel = Channel::new(rustix::net::accept_with(door, SocketFlags::CLOEXEC).unwrap());
    channel.send(&FromLauncher::Known { version: LAUNCH_VERSION, token: LAUNCHER }, &[]).unwrap();
    match channel.receive().unwrap().expect("nothing said").0 {
        ToLauncher::Again { version: LAUNCH_VERSION, token } => assert_eq!(token, SUPERVISOR),
        other => panic!("{other:?}"),
    }
    channel
}

fn run(number: u8) -> ExecId {
    ExecId::from_bytes([number; 16])
}

fn adopted(exec_id: ExecId) -> Adopted {
    Adopted {
        exec_id,
        owner_uid: rustix::process::geteuid().as_raw(),
        ring_bytes: Some(RING),
        held: false,
        age_ms: 5_000,
        input_bytes: None,
        output_released: None,
        note: RunNote {
            request_id: 9,
            policy: "default".into(),
            command: "old command".into(),
            detach: true,
            wall_ms: None,
            fed: false,
            tool: None,
            redaction: None,
            grant: None,
            reviews: None,
        },
    }
}

fn started(exec_id: ExecId) -> FromLauncher {
    let confinement = Confinement {
        policy: "default".into(),
        policy_digest: [0; 32],
        level: Level::Strict,
        plan: Plan::User,
        layers: Vec::new(),
        memory: MemoryMechanism::Monitor,
        host_uid: 1,
        absent: Vec::new(),
        stdio: [StdioPath::Null; 3],
    };
    FromLauncher::Started { exec_id, confinement: Box::new(confinement) }
}

fn ended(exec_id: ExecId, outcome: Outcome) -> FromLauncher {
    FromLauncher::Ended { exec_id, outcome, usage: Usage::default(), trusted_files: Vec::new(), reaped: true }
}

impl Elder {
    /// Goes on after the runs were told.
    fn introduce(channel: Channel, program: Program) -> Self {
        let (ours, theirs) = socket::seqpacket_pair().unwrap();
        let (plan, memory) = (Plan::User, MemoryMechanism::Monitor);
        let hello =
            FromLauncher::Hello { version: LAUNCH_VERSION, pid: 1, plan, memory, program, replaced: false };
        channel.send(&hello, &[theirs.as_fd()]).unwrap();
        Self { channel, relay: Channel::new(ours) }
    }

    fn wrote(&self, exec_id: ExecId, writer: &Writer, acknowledged: u64) {
        let wrote = writer.wrote;
        let message = FromRelay::Wrote {
            exec_id,
            head: wrote.head,
            next_seq: wrote.next_seq,
            acknowledged,
            oldest_offset: wrote.oldest_offset,
            oldest_seq: wrote.oldest_seq,
            eof: wrote.eof,
        };
        self.relay.send(&message, &[]).unwrap();
    }

    fn told(&self) {
        self.relay.send(&FromRelay::Told, &[]).unwrap();
    }

    fn hears(&self) -> ToLauncher {
        self.channel.receive().unwrap().expect("the daemon has closed").0
    }
}

/// A launcher with one run whose ring holds this.
fn with_output(door: &OwnedFd, program: Program, payloads: &[&[u8]], acknowledged: u64) -> (Elder, Writer) {
    let channel = answer(door);
    channel.send(&FromLauncher::Adopted(Box::new(adopted(run(1)))), &[]).unwrap();
    let mut writer = Writer::new(RING);
    for payload in payloads {
        writer.write(Stream::Stdout, payload);
    }
    channel.send(&started(run(1)), &[writer.memfd().as_fd()]).unwrap();
    let elder = Elder::introduce(channel, program);
    elder.wrote(run(1), &writer, acknowledged);
    elder.told();
    (elder, writer)
}

#[test]
fn an_adopted_run_of_another_user_is_for_whom_rules_permit_it() {
    let (stage, door) = stage();
    let channel = answer(&door);
    let another = Adopted { owner_uid: 4_242, ..adopted(run(1)) };
    channel.send(&FromLauncher::Adopted(Box::new(another)), &[]).unwrap();
    let writer = Writer::new(RING);
    channel.send(&started(run(1)), &[writer.memfd().as_fd()]).unwrap();
    let elder = Elder::introduce(channel, program::of_this_process());
    elder.wrote(run(1), &writer, 0);
    elder.told();
    let mut client = stage.client();
    let ask = |client: &mut Client, message: ClientMessage| {
        client.say(&message);
        match client.next() {
            ServerMessage::Denied { denied, .. } => denied.reason,
            other => panic!("{other:?} instead of Denied"),
        }
    };
    let attach = || ClientMessage::Attach { exec_id: run(1), after_seq: 0 };
    let signal = || ClientMessage::Signal { exec_id: run(1), signal: 15 };
    assert_eq!(ask(&mut client, attach()), DenyReason::UnknownRun);
    let uid = rustix::process::geteuid().as_raw();
    let take_up = |role: &str, access: &str| {
        let reloads = || stage.said.count("policies reloaded");
        let before = reloads();
        access::put(stage.directory.path(), "roles.toml", &format!("[roles.{role}]\nusers = [\"{uid}\"]\n"));
        access::put(stage.directory.path(), "access.cedar", access);
        stage.order(Order::Reload);
        until("reloaded", || reloads() > before);
    };
    // Neither seen nor ended: as if it weren't there.
    take_up(
        "own",
        "forbid (principal, action == Action::\"list\", resource) when { resource.owner != principal.uid };",
    );
    assert!(client.runs().is_empty());
    assert_eq!(ask(&mut client, attach()), DenyReason::UnknownRun);
    assert_eq!(ask(&mut client, signal()), DenyReason::UnknownRun);
    // An operator sees and ends it, and reads nothing of it.
    take_up("operator", "");
    assert_eq!(client.runs()[0].owner_uid, 4_242);
    assert_eq!(ask(&mut client, attach()), DenyReason::NotPermitted);
    client.say(&ClientMessage::StdinEof { exec_id: run(1) });
    client.say(&signal());
    assert_eq!(elder.hears(), ToLauncher::Signal { exec_id: run(1), signal: 15 });
    // An admin reads it.
    take_up("admin", "");
    client.say(&attach());
    assert!(matches!(client.next(), ServerMessage::Event { .. }));
}

#[test]
fn an_adopted_run_is_listed_followed_and_ended_and_its_launcher_goes_on() {
    let (stage, door) = stage();
    let (elder, mut writer) = with_output(&door, program::of_this_process(), &[b"one", b"two"], 0);
    let mut client = stage.client();
    let listed = client.runs();
    assert_eq!((listed[0].exec_id, &listed[0].state), (run(1), &RunState::Running));
    assert!(listed[0].age_ms >= 5_000 && *listed[0].command == *b"old command", "{listed:?}");
    client.say(&ClientMessage::Attach { exec_id: run(1), after_seq: FIRST_SEQ });
    assert!(
        matches!(client.event(run(1), FIRST_SEQ + 1), ExecEvent::Output { bytes, .. } if *bytes == *b"two")
    );
    writer.wrote.eof = true;
    elder.wrote(run(1), &writer, 0);
    elder.channel.send(&ended(run(1), Outcome::Exited { code: 5 }), &[]).unwrap();
    assert_eq!(client.read_to_end(run(1), FIRST_SEQ + 2).1, Outcome::Exited { code: 5 });
    let (exec_id, forgotten) = (run(1), ToRelay::Forget { exec_id: run(1) });
    assert_eq!(elder.relay.receive::<ToRelay>().unwrap().unwrap().0, forgotten);
    assert_eq!(elder.hears(), ToLauncher::Release { exec_ids: vec![exec_id] });
    // Of our own program, it has the runs to come, too.
    let request = stage.request();
    let next = client.exec(request);
    assert!(matches!(elder.hears(), ToLauncher::Spec { .. }));
    assert!(matches!(elder.hears(), ToLauncher::Launch(launch) if launch.exec_id == next));
    let written = std::fs::read_to_string(stage.directory.path().join("state/launchers.json")).unwrap();
    assert!(written.contains(DOOR), "the next supervisor wouldn't find it: {written}");
}

#[test]
fn who_has_everything_of_a_full_ring_keeps_nobody_waiting_for_an_acknowledgement_that_was_lost() {
    let (stage, door) = stage();
    let payload = vec![b'x'; 8_000];
    let (elder, writer) = with_output(&door, program::of_this_process(), &[payload.as_slice(); 8], 0);
    let mut client = stage.client();
    client.say(&ClientMessage::Attach { exec_id: run(1), after_seq: writer.wrote.next_seq - 1 });
    let acknowledged = ToRelay::Acknowledge { exec_id: run(1), offset: writer.wrote.head };
    assert_eq!(elder.relay.receive::<ToRelay>().unwrap().unwrap().0, acknowledged);
}

#[test]
fn output_of_a_run_that_nobody_follows_yet_is_kept_for_its_client() {
    let unclaimed = Duration::from_secs(3);
    let began = Instant::now();
    let (stage, door) = stage_with(Changes { unclaimed: Some(unclaimed), ..Changes::default() });
    let payload = vec![b'x'; 8_000];
    let (elder, mut writer) = with_output(&door, program::of_this_process(), &[payload.as_slice(); 2], 0);
    let mut other = stage.client();
    for _ in 0..6 {
        writer.write(Stream::Stdout, &payload);
        elder.wrote(run(1), &writer, 0);
    }
    until("heard", || other.runs()[0].last_seq == writer.wrote.next_seq - 1);
    let mut client = stage.client();
    client.say(&ClientMessage::Attach { exec_id: run(1), after_seq: 0 });
    client.event(run(1), 1);
    client.event(run(1), 2);
    for number in 0..8 {
        assert!(matches!(client.event(run(1), FIRST_SEQ + number), ExecEvent::Output { .. }));
    }
    assert!(matches!(elder.relay.receive::<ToRelay>().unwrap().unwrap().0, ToRelay::Acknowledge { .. }));
    // The daemon's clock counts whole milliseconds.
    let waited = began.elapsed() + Duration::from_millis(2);
    assert!(waited > unclaimed, "given up after {waited:?}, before its client could come");
}

#[test]
fn clients_wait_until_everything_is_taken_over() {
    let (stage, door) = stage();
    let channel = answer(&door);
    let mut client = stage.stranger();
    client.say(&ClientMessage::Hello(stockade_protocol::client::Hello {
        magic: stockade_protocol::client::MAGIC,
        version: stockade_protocol::client::VERSION,
        features: 0,
    }));
    client.say(&ClientMessage::Attach { exec_id: run(1), after_seq: FIRST_SEQ });
    assert!(client.hears_nothing(), "served before the runs are known");
    channel.send(&FromLauncher::Adopted(Box::new(adopted(run(1)))), &[]).unwrap();
    let mut writer = Writer::new(RING);
    writer.write(Stream::Stdout, b"one");
    writer.write(Stream::Stdout, b"two");
    channel.send(&started(run(1)), &[writer.memfd().as_fd()]).unwrap();
    let elder = Elder::introduce(channel, program::of_this_process());
    assert!(client.hears_nothing(), "served before it is known where the rings stand");
    elder.wrote(run(1), &writer, 0);
    elder.told();
    client.next();
    assert!(
        matches!(client.event(run(1), FIRST_SEQ + 1), ExecEvent::Output { bytes, .. } if *bytes == *b"two")
    );
}

#[test]
fn one_of_another_program_keeps_its_runs_and_is_ended_after_the_last() {
    let (stage, door) = stage();
    let (elder, mut writer) = with_output(&door, Program::default(), &[b"one"], 0);
    let mut younger = stage.launcher();
    let mut client = stage.client();
    let next = client.exec(stage.request());
    assert_eq!(younger.play(b"new"), next);
    assert_eq!(client.read_to_end(next, 2).0, b"new");
    client.say(&ClientMessage::Attach { exec_id: run(1), after_seq: 2 });
    client.event(run(1), 3);
    client.say(&ClientMessage::Signal { exec_id: run(1), signal: 15 });
    assert_eq!(elder.hears(), ToLauncher::Signal { exec_id: run(1), signal: 15 });
    writer.wrote.eof = true;
    elder.wrote(run(1), &writer, 0);
    elder.channel.send(&ended(run(1), Outcome::Signaled { signal: 15, core_dumped: false }), &[]).unwrap();
    client.read_to_end(run(1), 4);
    assert_eq!(elder.hears(), ToLauncher::Release { exec_ids: vec![run(1)] });
    assert_eq!(elder.hears(), ToLauncher::Shutdown);
    drop(elder);
    // Its end is its own: the younger one's runs go on.
    let next = client.exec(stage.request());
    assert_eq!(younger.play(b"on"), next);
    assert_eq!(client.read_to_end(next, 2).0, b"on");
}

#[test]
fn one_that_dies_takes_its_own_runs_only() {
    let (stage, door) = stage();
    let (elder, _writer) = with_output(&door, Program::default(), &[b"one"], 0);
    let mut younger = stage.launcher();
    let mut client = stage.client();
    let own = client.exec(stage.request());
    let (launch, _) = younger.launch();
    younger.started(&launch);
    client.event(own, 2);
    client.say(&ClientMessage::Attach { exec_id: run(1), after_seq: 3 });
    drop(elder);
    assert!(matches!(client.event(run(1), 4), ExecEvent::Exited { outcome: Outcome::Lost { .. }, .. }));
    younger.end_output(own);
    younger.ended(own, Outcome::Exited { code: 0 });
    assert_eq!(client.read_to_end(own, 3).1, Outcome::Exited { code: 0 });
}

#[test]
fn who_answers_without_the_launchers_token_is_told_nothing() {
    let (stage, door) = stage();
    let channel = Channel::new(rustix::net::accept_with(&door, SocketFlags::CLOEXEC).unwrap());
    let known = FromLauncher::Known { version: LAUNCH_VERSION, token: SUPERVISOR };
    channel.send(&known, &[]).unwrap();
    let said = channel.receive::<ToLauncher>();
    assert!(matches!(said, Ok(None) | Err(_)), "{said:?}");
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    assert!(client.runs().is_empty());
    let run = client.exec(stage.request());
    assert_eq!(launcher.play(b""), run);
}

/// Whoever waits at a door may have left again.
fn answer_who_is_there(door: &OwnedFd) -> Channel {
    loop {
        let channel = Channel::new(rustix::net::accept_with(door, SocketFlags::CLOEXEC).unwrap());
        let known = FromLauncher::Known { version: LAUNCH_VERSION, token: LAUNCHER };
        if channel.send(&known, &[]).is_ok()
            && let Ok(Some((ToLauncher::Again { token, .. }, _))) = channel.receive()
        {
            assert_eq!(token, SUPERVISOR);
            return channel;
        }
    }
}

#[test]
fn one_that_says_nothing_keeps_nobody_waiting_and_is_taken_over_when_it_answers() {
    let (stage, door) = stage_with(Changes { met_within: Duration::from_millis(100), ..Changes::default() });
    // Without an answer of the elder.
    let mut younger = stage.launcher();
    let mut client = stage.client();
    assert!(client.runs().is_empty());
    let own = client.exec(stage.request());
    assert_eq!(younger.play(b"new"), own);
    assert_eq!(client.read_to_end(own, 2).0, b"new");
    let channel = answer_who_is_there(&door);
    channel.send(&FromLauncher::Adopted(Box::new(adopted(run(1)))), &[]).unwrap();
    let held = Adopted { held: true, ring_bytes: None, ..adopted(run(2)) };
    channel.send(&FromLauncher::Adopted(Box::new(held)), &[]).unwrap();
    let mut writer = Writer::new(RING);
    writer.write(Stream::Stdout, b"one");
    channel.send(&started(run(1)), &[writer.memfd().as_fd()]).unwrap();
    // Of our own program, too, it is an elder: another has the runs to come.
    let elder = Elder::introduce(channel, program::of_this_process());
    elder.wrote(run(1), &writer, 0);
    elder.told();
    until("known", || client.runs().iter().any(|listed| listed.exec_id == run(1)));
    // What waited there has its turn.
    assert_eq!(elder.hears(), ToLauncher::Start { exec_id: run(2) });
    client.say(&ClientMessage::Attach { exec_id: run(1), after_seq: 2 });
    assert!(matches!(client.event(run(1), 3), ExecEvent::Output { bytes, .. } if *bytes == *b"one"));
    let own = client.exec(stage.request());
    assert_eq!(younger.play(b"on"), own);
    assert_eq!(client.read_to_end(own, 2).0, b"on");
}

#[test]
fn one_whose_door_was_never_made_is_forgotten_at_the_next_start() {
    let path = |directory: &Path| directory.join("state/launchers.json");
    let before = move |directory: &Path| {
        drop(leave_launcher(directory));
        std::fs::remove_file(directory.join("daemon").join(DOOR)).unwrap();
    };
    let stage = Stage::new(Changes { before: Some(Box::new(before)), ..Changes::default() });
    let _launcher = stage.launcher();
    assert!(stage.client().runs().is_empty());
    let text = std::fs::read_to_string(path(stage.directory.path())).unwrap();
    assert!(!text.contains(DOOR), "{text}");
}

#[test]
fn what_was_adopted_is_counted_and_so_is_how_it_ends() {
    let (stage, door) = stage_with(Changes { metrics: true, ..Changes::default() });
    let (elder, mut writer) = with_output(&door, Program::default(), &[b"one"], 0);
    let _younger = stage.launcher();
    let mut client = stage.client();
    let told = scrape(&stage);
    for (name, value) in [("runs_adopted_total", 1.0), ("runs_unclaimed", 1.0), ("launchers_older", 1.0)] {
        assert_eq!(told[&format!("stockade_{name}")], value, "{name}");
    }
    client.say(&ClientMessage::Attach { exec_id: run(1), after_seq: 2 });
    client.event(run(1), 3);
    writer.wrote.eof = true;
    elder.wrote(run(1), &writer, 0);
    elder.channel.send(&ended(run(1), Outcome::Exited { code: 5 }), &[]).unwrap();
    client.read_to_end(run(1), 4);
    let told = scrape(&stage);
    assert_eq!((told["stockade_runs_adopted_total"], told["stockade_runs_unclaimed"]), (1.0, 0.0));
    assert_eq!(told["stockade_runs_total{outcome=\"exited\",policy=\"default\"}"], 1.0);
    assert_eq!(told["stockade_run_duration_seconds_count"], 1.0);
    // When it was asked for nobody here knows: nothing is made up.
    assert_eq!(told["stockade_run_start_seconds_count"], 0.0);
    assert_eq!(told["stockade_run_setup_seconds_count{stage=\"queue\"}"], 0.0);
    drop(elder);
    until("gone", || scrape(&stage)["stockade_launchers_older"] == 0.0);
}

/// Each upgrade while runs go on leaves one: there is an end of it, and who comes then serves all the same.
#[test]
fn beside_as_many_older_launchers_as_there_may_be_one_serves_that_no_run_outlives() {
    let doors = Rc::new(RefCell::new(Vec::new()));
    let made = Rc::clone(&doors);
    let before = move |directory: &Path| *made.borrow_mut() = leave_many(directory);
    let stage = Stage::new(Changes { before: Some(Box::new(before)), ..Changes::default() });
    let doors = doors.take();
    assert_eq!(doors.len(), LAUNCHERS);
    let elders: Vec<Elder> = (1..)
        .zip(&doors)
        .map(|(number, door)| {
            let channel = answer(door);
            let waiting = Adopted { held: true, ring_bytes: None, ..adopted(run(number)) };
            channel.send(&FromLauncher::Adopted(Box::new(waiting)), &[]).unwrap();
            let elder = Elder::introduce(channel, Program::default());
            elder.told();
            elder
        })
        .collect();
    let (mut younger, keep) = stage.launcher_greeted();
    assert!(keep.is_none(), "there was room for another door");
    let mut client = stage.client();
    until("all are known", || client.runs().len() == LAUNCHERS);
    let own = client.exec(stage.request());
    assert_eq!(younger.play(b"new"), own);
    assert_eq!(client.read_to_end(own, 2).0, b"new");
    let register = std::fs::read_to_string(stage.directory.path().join("state/launchers.json")).unwrap();
    assert_eq!(register.matches("\"door\"").count(), LAUNCHERS, "{register}");
    drop(elders);
}

/// A launcher with one run whose output is redacted, and whose ring of so many bytes was written with this.
fn with_secrets(door: &OwnedFd, capacity: u64, payloads: &[Vec<u8>], acknowledged: u64) -> (Elder, Writer) {
    let channel = answer(door);
    let mut adopted = adopted(run(1));
    adopted.ring_bytes = Some(capacity);
    let secrets = vec![("API_TOKEN".to_owned(), Bytes(VALUE.to_vec()))];
    adopted.note.redaction = Some(Redaction { secrets });
    channel.send(&FromLauncher::Adopted(Box::new(adopted)), &[]).unwrap();
    let mut writer = Writer::new(capacity);
    for payload in payloads {
        writer.write(Stream::Stdout, payload);
    }
    writer.wrote.eof = true;
    channel.send(&started(run(1)), &[writer.memfd().as_fd()]).unwrap();
    channel.send(&ended(run(1), Outcome::Exited { code: 0 }), &[]).unwrap();
    let elder = Elder::introduce(channel, program::of_this_process());
    elder.wrote(run(1), &writer, acknowledged);
    elder.told();
    (elder, writer)
}

/// What a client was given by the supervisor before is said again by this one, from wherever it goes on.
#[test]
fn a_secret_that_came_in_part_before_a_restart_is_hidden_after_it() {
    let payloads: Vec<Vec<u8>> = VALUE.chunks(3).map(<[u8]>::to_vec).chain([b" done\n".to_vec()]).collect();
    let last = FIRST_SEQ + payloads.len() as u64 - 1;
    for after in 2..=last {
        let (stage, door) = stage();
        let _elder = with_secrets(&door, RING, &payloads, 0);
        let seen = redacted::read(&mut stage.client(), run(1), after);
        // The mark goes out with the last piece of what it stands for.
        let expected: &[u8] = match last - after {
            0 => b"",
            1 => b" done\n",
            _ => b"[redacted:API_TOKEN] done\n",
        };
        assert_eq!(String::from_utf8_lossy(&seen.all()), String::from_utf8_lossy(expected), "after {after}");
        assert_eq!(seen.lost, 0);
    }
}

/// A ring that was written over while nobody was there: the state isn't known, and nothing is guessed.
#[test]
fn a_ring_that_was_written_over_shows_no_piece_of_a_secret_after_a_restart() {
    let text = VALUE.repeat(9_000);
    let payloads: Vec<Vec<u8>> =
        text.chunks(1_000).map(<[u8]>::to_vec).chain([b" done\n".to_vec()]).collect();
    let (stage, door) = stage();
    let (_elder, writer) = with_secrets(&door, RING, &payloads, 0);
    let oldest = writer.wrote.oldest_seq;
    assert!(oldest > FIRST_SEQ);
    for after in [2, oldest, oldest + 5] {
        let seen = redacted::read(&mut stage.client(), run(1), after);
        assert!(!redacted::shows_a_piece(&seen.all()), "after {after}");
        assert!(seen.lost > 0 && seen.all().ends_with(b"] done\n"), "after {after}");
    }
}

/// What a supervisor acknowledges stays so far behind that the next one loses nothing of what a client hasn't got.
#[test]
fn what_a_client_has_not_got_is_whole_after_a_restart_of_a_run_with_a_full_ring() {
    let text = VALUE.repeat(90_000);
    let payloads: Vec<Vec<u8>> = text.chunks(10_000).map(<[u8]>::to_vec).collect();
    let capacity = 1 << 20;
    let (stage, door) = stage();
    let (_elder, writer) = with_secrets(&door, capacity, &payloads, 0);
    // As much as it stays behind.
    let behind = writer.wrote.oldest_seq + capacity / ACKNOWLEDGED_PART / 10_000;
    let seen = redacted::read(&mut stage.client(), run(1), behind);
    assert_eq!(seen.lost, 0);
    assert!(!redacted::shows_a_piece(&seen.all()));
}

#[test]
fn an_adopted_reviewer_is_ended_and_nothing_of_it_counts_and_another_run_goes_on() {
    for reviews in [Some(run(9)), None] {
        let (stage, door) = stage();
        let channel = answer(&door);
        let mut adopted = adopted(run(1));
        adopted.note.reviews = reviews;
        channel.send(&FromLauncher::Adopted(Box::new(adopted)), &[]).unwrap();
        let mut writer = Writer::new(RING);
        channel.send(&started(run(1)), &[writer.memfd().as_fd()]).unwrap();
        let elder = Elder::introduce(channel, program::of_this_process());
        elder.wrote(run(1), &writer, 0);
        elder.told();
        let mut client = stage.client();
        if reviews.is_none() {
            // What it hears first is what somebody asks.
            client.say(&ClientMessage::Cancel { exec_id: run(1) });
        }
        let expected = if reviews.is_some() { CancelReason::Unneeded } else { CancelReason::Asked };
        match elder.hears() {
            ToLauncher::Cancel { exec_id, reason } => assert_eq!((exec_id, reason), (run(1), expected)),
            other => panic!("{other:?} instead of Cancel"),
        }
        assert_eq!(client.status().reviewing, 0);
        // And nobody has to come for it.
        writer.wrote.eof = true;
        elder.wrote(run(1), &writer, 0);
        elder.channel.send(&ended(run(1), Outcome::Exited { code: 0 }), &[]).unwrap();
        until("forgotten", || client.runs().is_empty() == reviews.is_some());
    }
}

#[test]
fn an_adopted_run_whose_grant_is_gone_ends_where_that_said_so_and_goes_on_where_not() {
    for ends_run in [true, false] {
        let (stage, door) = stage();
        let channel = answer(&door);
        let mut adopted = adopted(run(1));
        adopted.note.grant = Some(GrantNote { id: [7; 16], ends_run });
        channel.send(&FromLauncher::Adopted(Box::new(adopted)), &[]).unwrap();
        let writer = Writer::new(RING);
        channel.send(&started(run(1)), &[writer.memfd().as_fd()]).unwrap();
        let elder = Elder::introduce(channel, program::of_this_process());
        elder.wrote(run(1), &writer, 0);
        elder.told();
        let mut client = stage.client();
        assert_eq!(client.runs().len(), 1);
        if !ends_run {
            // What it hears first is what somebody asks.
            client.say(&ClientMessage::Cancel { exec_id: run(1) });
        }
        let expected = if ends_run { CancelReason::GrantOver } else { CancelReason::Asked };
        match elder.hears() {
            ToLauncher::Cancel { exec_id, reason } => assert_eq!((exec_id, reason), (run(1), expected)),
            other => panic!("{other:?} instead of Cancel"),
        }
    }
}
