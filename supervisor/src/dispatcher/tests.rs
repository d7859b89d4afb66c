//! The promises of the dispatcher, held by a model under random events, and its single rules by example.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use stockade_protocol::ExecId;
use stockade_protocol::denied::DenyReason;
use stockade_protocol::outcome::{CancelReason, Clock, Outcome};

use super::bounds::{CLOSING_MS, DRAIN_TAIL_MS, OVERDUE_MS, UNANSWERED_MS};
use super::event::Request;
use super::{Bounds, ConnectionId, Dispatcher, Effect, Emission, Event, LauncherId, Phase, Share};

const OWNER: u32 = 1000;
const CLIENT: ConnectionId = ConnectionId(1);
const LAUNCHER: LauncherId = LauncherId(1);

fn id(number: u16) -> ExecId {
    let [high, low] = number.to_be_bytes();
    ExecId::from_bytes([0, 0, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, high, low])
}

fn request(number: u16) -> Request {
    Request {
        now: 0,
        run: id(number),
        connection: CLIENT,
        request_id: u64::from(number),
        owner: OWNER,
        detach: false,
        relayed: true,
        wall_ms: None,
        bytes: 1,
    }
}

fn ready(slots: usize, queue: usize) -> Dispatcher {
    let mut dispatcher = Dispatcher::new(Bounds::new(slots, queue, true));
    assert_eq!(dispatcher.handle(Event::LauncherUp { now: 0, launcher: LAUNCHER }), []);
    dispatcher
}

fn exited(code: u8) -> Outcome {
    Outcome::Exited { code }
}

fn ended(run: ExecId, now: u64) -> Event {
    Event::Ended { now, run, outcome: exited(0), reaped: true }
}

fn wrote(run: ExecId, next_seq: u64, eof: bool) -> Event {
    Event::Wrote { now: 0, run, next_seq, kept: 100, eof, held: false }
}

fn denial(effects: &[Effect]) -> Option<DenyReason> {
    effects.iter().find_map(|effect| match effect {
        Effect::Deny { denied, .. } => Some(denied.reason),
        _ => None,
    })
}

fn exit_of(effects: &[Effect]) -> Option<(u64, Outcome)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Emit { seq, what: Emission::Exited { outcome }, .. } => Some((*seq, outcome.clone())),
        _ => None,
    })
}

#[test]
fn a_run_goes_from_request_to_exit_in_numbered_steps() {
    let mut dispatcher = ready(1, 1);
    let effects = dispatcher.handle(Event::Request(request(1)));
    assert_eq!(
        effects,
        [
            Effect::Emit { run: id(1), seq: 1, what: Emission::Accepted { request_id: 1 } },
            Effect::Follow { connection: CLIENT, run: id(1), after_seq: 0 },
            Effect::Start { run: id(1) },
        ]
    );
    let effects = dispatcher.handle(Event::Started { now: 0, run: id(1) });
    assert_eq!(effects, [Effect::Emit { run: id(1), seq: 2, what: Emission::Started }]);
    assert_eq!(dispatcher.handle(wrote(id(1), 5, false)), []);
    assert_eq!(dispatcher.handle(ended(id(1), 0)), [Effect::Finish { run: id(1) }]);
    let effects = dispatcher.handle(wrote(id(1), 6, true));
    assert_eq!(exit_of(&effects), Some((6, exited(0))));
    assert!(matches!(dispatcher.phase(id(1), OWNER), Some(Phase::Ended { .. })));
    assert_eq!(dispatcher.phase(id(1), OWNER + 1), None);
}

#[test]
fn a_run_whose_set_up_fails_has_two_events() {
    let mut dispatcher = ready(1, 1);
    dispatcher.handle(Event::Request(request(1)));
    let effects = dispatcher.handle(ended(id(1), 0));
    assert_eq!(exit_of(&effects).unwrap().0, 2);
}

#[test]
fn one_owner_never_holds_the_last_slots_and_gets_the_next_when_his_own_end() {
    let mut dispatcher = ready(4, 8);
    let starts = |effects: &[Effect]| !starts(effects).is_empty();
    for number in 1..=3 {
        assert!(starts(&dispatcher.handle(Event::Request(request(number)))), "{number}");
    }
    assert!(!starts(&dispatcher.handle(Event::Request(request(4)))), "waits though a slot is free");
    let other = Request { owner: OWNER + 1, ..request(5) };
    let effects = dispatcher.handle(Event::Request(other));
    assert!(effects.contains(&Effect::Start { run: id(5) }), "{effects:?}");
    assert!(!starts(&dispatcher.handle(ended(id(5), 0))));
    assert!(dispatcher.handle(ended(id(1), 0)).contains(&Effect::Start { run: id(4) }));
}

/// A request of an owner's own connection.
fn of(owner: u32, number: u16) -> Event {
    let connection = ConnectionId(u64::from(owner));
    Event::Request(Request { owner, connection, ..request(number) })
}

fn starts(effects: &[Effect]) -> Vec<ExecId> {
    let start = |effect: &Effect| if let Effect::Start { run } = effect { Some(*run) } else { None };
    effects.iter().filter_map(start).collect()
}

#[test]
fn hogs_together_leave_first_slots_to_others_who_come_before_them_when_there_is_none() {
    let mut dispatcher = ready(8, 64);
    for number in 0..20 {
        dispatcher.handle(of(1 + u32::from(number % 2), number));
    }
    assert_eq!(dispatcher.counts().running, 6, "two of eight are kept");
    assert_eq!(starts(&dispatcher.handle(of(3, 30))), [id(30)]);
    assert_eq!(starts(&dispatcher.handle(of(3, 31))), [], "it has its first");
    assert_eq!(starts(&dispatcher.handle(of(4, 40))), [id(40)]);
    assert_eq!(starts(&dispatcher.handle(of(5, 50))), [], "all are taken");
    assert_eq!(starts(&dispatcher.handle(ended(id(0), 0))), [id(50)], "ahead of those who waited longer");
    for number in 1..3 {
        assert_eq!(
            starts(&dispatcher.handle(ended(id(number), 0))),
            [],
            "the kept ones are free again first"
        );
    }
    assert_eq!(starts(&dispatcher.handle(ended(id(3), 0))).len(), 1);
}

#[test]
fn a_queue_that_hogs_have_filled_refuses_no_newcomer() {
    let mut dispatcher = ready(4, 4);
    for number in 0..20 {
        dispatcher.handle(of(1 + u32::from(number % 2), number));
    }
    assert_eq!((dispatcher.counts().running, dispatcher.counts().queued), (3, 3));
    assert_eq!(starts(&dispatcher.handle(of(3, 30))), [id(30)], "a slot is kept for it");
    assert_eq!(denial(&dispatcher.handle(of(4, 40))), None, "and then a place to wait");
    assert_eq!(dispatcher.counts().queued, 4);
    assert_eq!(denial(&dispatcher.handle(of(5, 50))), Some(DenyReason::Busy));
    // A slot is free for a newcomer, and the queue is full: it needs no place there.
    dispatcher.handle(ended(id(30), 0));
    dispatcher.handle(ended(id(40), 0));
    assert_eq!(denial(&dispatcher.handle(of(1, 60))), Some(DenyReason::Busy));
    dispatcher.bounds.queue.total = 0;
    assert_eq!(starts(&dispatcher.handle(of(5, 51))), [id(51)]);
}

#[test]
fn a_full_queue_says_busy_and_when_to_try_again() {
    let mut dispatcher = ready(1, 1);
    dispatcher.handle(Event::Request(request(1)));
    assert_eq!(denial(&dispatcher.handle(Event::Request(request(2)))), None);
    let effects = dispatcher.handle(Event::Request(request(3)));
    let [Effect::Deny { denied, request_id: 3, run: None, .. }] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!(denied.reason, DenyReason::Busy);
    assert!(denied.retry_after_ms.unwrap() >= 50);
}

#[test]
fn a_queue_of_large_requests_is_full_by_its_bytes() {
    let mut dispatcher = ready(1, 100);
    dispatcher.bounds.queue_bytes = Share { total: 10, kept: 0, little: 0 };
    for (number, bytes) in [(1, 9), (2, 9)] {
        let effects = dispatcher.handle(Event::Request(Request { bytes, ..request(number) }));
        assert_eq!(denial(&effects), None);
    }
    let effects = dispatcher.handle(Event::Request(Request { bytes: 2, ..request(3) }));
    assert_eq!(denial(&effects), Some(DenyReason::Busy));
}

#[test]
fn one_owner_cannot_fill_the_queue_for_another() {
    let mut dispatcher = ready(1, 4);
    for number in 0..4 {
        assert_eq!(denial(&dispatcher.handle(Event::Request(request(number)))), None);
    }
    assert_eq!(denial(&dispatcher.handle(Event::Request(request(5)))), Some(DenyReason::Busy));
    let other = Request { owner: OWNER + 1, connection: ConnectionId(2), ..request(6) };
    assert_eq!(denial(&dispatcher.handle(Event::Request(other))), None);
}

#[test]
fn one_owner_cannot_fill_the_queue_with_bytes_for_another() {
    let mut dispatcher = ready(1, 100);
    dispatcher.bounds.queue_bytes = Share { total: 10, kept: 3, little: 3 };
    let mut ask = |number, owner, bytes| {
        let connection = ConnectionId(u64::from(owner));
        denial(&dispatcher.handle(Event::Request(Request { owner, connection, bytes, ..request(number) })))
    };
    assert_eq!(ask(1, OWNER, 0), None);
    assert_eq!(ask(2, OWNER, 7), None);
    assert_eq!(ask(3, OWNER, 1), Some(DenyReason::Busy));
    assert_eq!(ask(4, OWNER + 1, 3), None);
}

#[test]
fn other_bounds_hold_from_then_on_and_end_nothing() {
    let mut dispatcher = ready(8, 8);
    for number in 1..=3 {
        assert_eq!(starts(&dispatcher.handle(Event::Request(request(number)))), [id(number)]);
    }
    let bounds = |slots, queue| Event::Bounds { now: 0, bounds: Box::new(Bounds::new(slots, queue, false)) };
    assert_eq!(dispatcher.handle(bounds(2, 2)), []);
    for number in 4..=5 {
        assert_eq!(starts(&dispatcher.handle(Event::Request(request(number)))), []);
    }
    assert_eq!(denial(&dispatcher.handle(Event::Request(request(6)))), Some(DenyReason::Busy));
    // Three ran, and two may.
    assert_eq!(starts(&dispatcher.handle(ended(id(1), 0))), []);
    assert_eq!(starts(&dispatcher.handle(ended(id(2), 0))), [id(4)]);
    assert_eq!(starts(&dispatcher.handle(bounds(3, 2))), [id(5)]);
}

#[test]
fn a_cancelled_queued_run_ends_and_never_starts() {
    let mut dispatcher = ready(1, 4);
    dispatcher.handle(Event::Request(request(1)));
    dispatcher.handle(Event::Request(request(2)));
    let cancel = Event::Cancel { now: 0, connection: CLIENT, owner: OWNER, run: id(2) };
    let effects = dispatcher.handle(cancel);
    assert_eq!(exit_of(&effects), Some((2, Outcome::Cancelled { reason: CancelReason::Asked })));
    let effects = dispatcher.handle(ended(id(1), 0));
    assert!(!effects.contains(&Effect::Start { run: id(2) }), "{effects:?}");
}

#[test]
fn a_foreign_run_is_unknown_to_cancel_and_attach() {
    let mut dispatcher = ready(1, 4);
    dispatcher.handle(Event::Request(request(1)));
    let other = ConnectionId(2);
    let cancel = Event::Cancel { now: 0, connection: other, owner: OWNER + 1, run: id(1) };
    assert_eq!(denial(&dispatcher.handle(cancel)), Some(DenyReason::UnknownRun));
    let attach =
        Event::Attach { connection: other, owner: OWNER + 1, run: id(1), after_seq: 0, is_stranger: false };
    assert_eq!(denial(&dispatcher.handle(attach)), Some(DenyReason::UnknownRun));
}

#[test]
fn a_client_that_goes_away_takes_its_run_along_unless_it_is_detached() {
    let mut dispatcher = ready(2, 4);
    dispatcher.handle(Event::Request(request(1)));
    dispatcher.handle(Event::Request(Request { detach: true, ..request(2) }));
    let effects = dispatcher.handle(Event::Disconnected { now: 0, connection: CLIENT });
    assert_eq!(effects, [Effect::Cancel { run: id(1), reason: CancelReason::ClientGone }]);
}

#[test]
fn the_end_of_output_is_waited_for_a_while_and_longer_while_a_client_holds_it_up() {
    let mut dispatcher = ready(1, 4);
    dispatcher.handle(Event::Request(request(1)));
    dispatcher.handle(Event::Started { now: 0, run: id(1) });
    dispatcher.handle(ended(id(1), 10));
    dispatcher.handle(Event::Taken { now: 20, run: id(1), held: true });
    assert_eq!(dispatcher.next_deadline(), None);
    assert_eq!(exit_of(&dispatcher.handle(Event::Tick { now: 1_000_000 })), None);
    dispatcher.handle(Event::Taken { now: 1_000_000, run: id(1), held: false });
    assert_eq!(dispatcher.next_deadline(), Some(1_000_000 + CLOSING_MS));
    let effects = dispatcher.handle(Event::Tick { now: 1_000_000 + CLOSING_MS });
    assert_eq!(exit_of(&effects), Some((3, exited(0))));
}

#[test]
fn a_dead_launcher_loses_its_runs_at_once_and_keeps_those_that_wait() {
    let mut dispatcher = ready(1, 4);
    dispatcher.handle(Event::Request(request(1)));
    dispatcher.handle(Event::Request(request(2)));
    let effects =
        dispatcher.handle(Event::LauncherDown { now: 5, launcher: LAUNCHER, reason: "killed".into() });
    assert_eq!(exit_of(&effects), Some((2, Outcome::Lost { reason: "killed".into() })));
    assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Finish { .. })).count(), 1);
    let effects = dispatcher.handle(Event::LauncherUp { now: 6, launcher: LAUNCHER });
    assert_eq!(effects, [Effect::Start { run: id(2) }]);
}

#[test]
fn without_any_launcher_what_waits_fails_and_what_comes_is_refused() {
    let mut dispatcher = Dispatcher::new(Bounds::new(1, 4, true));
    dispatcher.handle(Event::Request(request(1)));
    let effects = dispatcher.handle(Event::LauncherUnavailable { now: 5, reason: "no memory".into() });
    assert!(matches!(exit_of(&effects), Some((2, Outcome::SetupFailed { .. }))));
    assert_eq!(denial(&dispatcher.handle(Event::Request(request(2)))), Some(DenyReason::Unavailable));
    dispatcher.handle(Event::LauncherUp { now: 6, launcher: LAUNCHER });
    assert_eq!(denial(&dispatcher.handle(Event::Request(request(3)))), None);
}

#[test]
fn a_drain_refuses_new_runs_gives_grace_then_cancels_and_stops() {
    let mut dispatcher = ready(1, 4);
    dispatcher.handle(Event::Request(request(1)));
    dispatcher.handle(Event::Request(request(2)));
    let effects = dispatcher.handle(Event::Drain { now: 100, grace: 1_000 });
    assert_eq!(exit_of(&effects), Some((2, Outcome::Cancelled { reason: CancelReason::Draining })));
    assert_eq!(denial(&dispatcher.handle(Event::Request(request(3)))), Some(DenyReason::Draining));
    assert_eq!(dispatcher.next_deadline(), Some(1_100));
    let effects = dispatcher.handle(Event::Tick { now: 1_100 });
    assert_eq!(effects, [Effect::Cancel { run: id(1), reason: CancelReason::Draining }]);
    let effects = dispatcher.handle(ended(id(1), 1_200));
    assert_eq!(effects.last(), Some(&Effect::Stop));
}

#[test]
fn a_drain_stops_even_if_the_launcher_never_answers() {
    let mut dispatcher = ready(1, 4);
    dispatcher.handle(Event::Request(request(1)));
    dispatcher.handle(Event::Kill { now: 100 });
    let effects = dispatcher.handle(Event::Tick { now: 100 + DRAIN_TAIL_MS });
    assert_eq!(effects, [Effect::Stop]);
    assert_eq!(dispatcher.handle(Event::Tick { now: 200 + DRAIN_TAIL_MS }), []);
}

#[test]
fn a_launcher_that_forgets_a_deadline_is_asked_and_then_replaced() {
    let mut dispatcher = ready(1, 4);
    dispatcher.handle(Event::Request(Request { wall_ms: Some(1_000), ..request(1) }));
    dispatcher.handle(Event::Started { now: 0, run: id(1) });
    let late = 1_000 + OVERDUE_MS;
    let effects = dispatcher.handle(Event::Tick { now: late });
    assert!(matches!(effects.as_slice(), [Effect::Cancel { .. }]), "{effects:?}");
    let mut answered = Event::Ended {
        now: late,
        run: id(1),
        outcome: Outcome::Cancelled { reason: CancelReason::Asked },
        reaped: true,
    };
    let effects = dispatcher.handle(Event::Tick { now: late + UNANSWERED_MS });
    assert!(matches!(effects.as_slice(), [Effect::ReplaceLauncher { .. }]), "{effects:?}");
    if let Event::Ended { now, .. } = &mut answered {
        *now = late + UNANSWERED_MS;
    }
    dispatcher.handle(answered);
    let effects = dispatcher.handle(wrote(id(1), 3, true));
    let outcome = Outcome::TimedOut { clock: Clock::Wall, limit_ms: 1_000 };
    assert_eq!(exit_of(&effects), Some((3, outcome)));
}

fn run_to_end(dispatcher: &mut Dispatcher, request: Request, kept: u64) -> Vec<Effect> {
    let run = request.run;
    dispatcher.handle(Event::Request(request));
    dispatcher.handle(Event::Started { now: 0, run });
    dispatcher.handle(Event::Wrote { now: 0, run, next_seq: 4, kept, eof: true, held: false });
    dispatcher.handle(ended(run, 0))
}

#[test]
fn an_acknowledged_run_is_forgotten_once_every_follower_has_its_exit() {
    let mut dispatcher = ready(1, 4);
    run_to_end(&mut dispatcher, request(1), 10);
    let other = ConnectionId(2);
    dispatcher.handle(Event::Attach {
        connection: other,
        owner: OWNER,
        run: id(1),
        after_seq: 0,
        is_stranger: false,
    });
    dispatcher.handle(Event::Delivered { connection: CLIENT, run: id(1) });
    assert_eq!(dispatcher.handle(Event::Acknowledged { owner: OWNER, run: id(1), seq: 3 }), []);
    assert_eq!(dispatcher.handle(Event::Acknowledged { owner: OWNER, run: id(1), seq: 4 }), []);
    let effects = dispatcher.handle(Event::Delivered { connection: other, run: id(1) });
    assert_eq!(effects, [Effect::Forget { run: id(1) }]);
}

#[test]
fn an_unfetched_run_is_kept_for_the_retention() {
    let mut dispatcher = ready(1, 4);
    run_to_end(&mut dispatcher, Request { detach: true, ..request(1) }, 10);
    dispatcher.handle(Event::Disconnected { now: 0, connection: CLIENT });
    let over = dispatcher.bounds.retention_ms;
    assert_eq!(dispatcher.handle(Event::Tick { now: over - 1 }), []);
    assert_eq!(dispatcher.handle(Event::Tick { now: over }), [Effect::Forget { run: id(1) }]);
}

#[test]
fn over_the_cap_on_output_the_oldest_output_goes_but_not_the_run() {
    let mut dispatcher = ready(1, 4);
    dispatcher.bounds.kept_output_per_owner = 15;
    run_to_end(&mut dispatcher, request(1), 10);
    let effects = run_to_end(&mut dispatcher, request(2), 10);
    assert_eq!(effects.last(), Some(&Effect::DropOutput { run: id(1) }));
    assert!(dispatcher.phase(id(1), OWNER).is_some());
}

#[test]
fn over_the_cap_on_records_the_oldest_that_nobody_awaits_goes() {
    let mut dispatcher = ready(1, 4);
    dispatcher.bounds.kept_runs_per_owner = 1;
    run_to_end(&mut dispatcher, request(1), 0);
    run_to_end(&mut dispatcher, Request { detach: true, connection: ConnectionId(2), ..request(2) }, 0);
    assert!(dispatcher.phase(id(1), OWNER).is_some(), "somebody awaits both");
    dispatcher.handle(Event::Disconnected { now: 0, connection: ConnectionId(2) });
    let effects = run_to_end(&mut dispatcher, request(3), 0);
    assert_eq!(effects.last(), Some(&Effect::Forget { run: id(2) }));
}

/// One random step. Numbers are taken modulo what exists.
#[derive(Debug, Clone)]
enum Step {
    Request { connection: u8, detach: bool, relayed: bool, wall: Option<u16> },
    Started(u8),
    Ended(u8, bool),
    Wrote(u8, u8, bool, bool),
    Cancel(u8, u8),
    Attach(u8, u8, u8),
    Delivered(u8, u8),
    Acknowledged(u8),
    Disconnected(u8),
    LauncherDown,
    LauncherUp,
    Unavailable,
    Drain,
    Pass(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (any::<u8>(), any::<bool>(), any::<bool>(), any::<Option<u16>>()).prop_map(
            |(connection, detach, relayed, wall)| Step::Request { connection, detach, relayed, wall }),
        8 => any::<u8>().prop_map(Step::Started),
        6 => (any::<u8>(), any::<bool>()).prop_map(|(run, reaped)| Step::Ended(run, reaped)),
        6 => (any::<u8>(), 0_u8..4, any::<bool>(), any::<bool>())
            .prop_map(|(run, more, eof, held)| Step::Wrote(run, more, eof, held)),
        3 => (any::<u8>(), any::<u8>()).prop_map(|(run, owner)| Step::Cancel(run, owner)),
        2 => (any::<u8>(), any::<u8>(), any::<u8>()).prop_map(|(c, run, seq)| Step::Attach(c, run, seq)),
        3 => (any::<u8>(), any::<u8>()).prop_map(|(c, run)| Step::Delivered(c, run)),
        2 => any::<u8>().prop_map(Step::Acknowledged),
        1 => any::<u8>().prop_map(Step::Disconnected),
        1 => Just(Step::LauncherDown),
        2 => Just(Step::LauncherUp),
        1 => Just(Step::Unavailable),
        1 => Just(Step::Drain),
        4 => any::<u32>().prop_map(|by| Step::Pass(by % 200_000)),
    ]
}

const SLOTS: usize = 8;
/// Of those, for owners without a run.
const KEPT: usize = 2;
/// Connections, and so owners but one: the first two have the same.
const CONNECTIONS: u8 = 5;

fn owner_of(connection: ConnectionId) -> u32 {
    u32::try_from(connection.0).unwrap().max(1)
}

/// What an observer of the effects alone can say.
#[derive(Debug, Default)]
struct Model {
    owners: BTreeMap<ExecId, u32>,
    holding: BTreeSet<ExecId>,
    started: BTreeSet<ExecId>,
    finished: BTreeSet<ExecId>,
    seqs: BTreeMap<ExecId, u64>,
    exited: BTreeSet<ExecId>,
    cancelled_in_queue: BTreeSet<ExecId>,
    held: BTreeSet<ExecId>,
    forgotten: BTreeSet<ExecId>,
    /// The ring's numbering, as the relay would tell it.
    ring: BTreeMap<ExecId, u64>,
    tool_started: BTreeSet<ExecId>,
    stops: usize,
}

impl Model {
    fn observe(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Start { run } => {
                    assert!(self.started.insert(*run), "started twice");
                    assert!(!self.exited.contains(run), "started after its end");
                    assert!(!self.cancelled_in_queue.contains(run), "started though cancelled");
                    if self.held_by(self.owners[run]) > 0 {
                        assert!(self.holding.len() < SLOTS - KEPT, "a kept slot for one who has a slot");
                        assert_eq!(self.newcomers(), 0, "one without a slot is passed over");
                    }
                    self.holding.insert(*run);
                    assert!(self.holding.len() <= SLOTS, "more than the slots run");
                }
                Effect::Finish { run } => {
                    assert!(self.started.contains(run), "finished without a start");
                    assert!(self.finished.insert(*run), "finished twice");
                    assert!(self.holding.remove(run));
                }
                Effect::Emit { run, seq, what } => self.emitted(*run, *seq, what),
                Effect::Forget { run } => {
                    assert!(self.exited.contains(run), "forgotten before its end");
                    assert!(self.forgotten.insert(*run), "forgotten twice");
                }
                Effect::Hold { run } => {
                    assert!(!self.started.contains(run), "held though started");
                    assert!(!self.exited.contains(run), "held after its end");
                    self.held.insert(*run);
                }
                Effect::Cancel { run, .. } => {
                    assert!(self.holding.contains(run) || self.held.contains(run), "nobody has it");
                }
                Effect::DropOutput { run } => assert!(self.exited.contains(run)),
                Effect::Follow { run, .. } => assert!(!self.forgotten.contains(run)),
                Effect::Stop => {
                    self.stops += 1;
                    assert_eq!(self.stops, 1, "stopped twice");
                }
                Effect::Deny { .. } | Effect::ReplaceLauncher { .. } | Effect::Unclaimed { .. } => {}
            }
        }
    }

    fn emitted(&mut self, run: ExecId, seq: u64, what: &Emission) {
        assert!(!self.exited.contains(&run), "an event after Exited");
        // Output takes the numbers between Started and Exited.
        let output = match what {
            Emission::Exited { .. } if self.tool_started.contains(&run) => self.ring[&run] - 3,
            _ => 0,
        };
        let last = self.seqs.insert(run, seq).unwrap_or(0) + output;
        assert_eq!(seq, last + 1, "sequence numbers rise by one: {what:?}");
        match what {
            Emission::Accepted { .. } => assert_eq!(seq, 1),
            Emission::Started => {
                self.tool_started.insert(run);
            }
            Emission::Exited { .. } => {
                self.exited.insert(run);
                if !self.started.contains(&run) {
                    self.cancelled_in_queue.insert(run);
                }
            }
        }
    }

    fn held_by(&self, owner: u32) -> usize {
        self.holding.iter().filter(|run| self.owners[run] == owner).count()
    }

    /// Runs that wait, of owners without a slot.
    fn newcomers(&self) -> usize {
        let waits = |run: &&ExecId| !self.started.contains(run) && !self.exited.contains(run);
        let waiting = self.seqs.keys().filter(waits);
        waiting.filter(|run| self.held_by(self.owners[run]) == 0).count()
    }

    fn nth(&self, number: u8) -> Option<ExecId> {
        let known: Vec<ExecId> = self.seqs.keys().copied().collect();
        (!known.is_empty()).then(|| known[usize::from(number) % known.len()])
    }
}

struct World {
    dispatcher: Dispatcher,
    model: Model,
    now: u64,
    next: u16,
    up: bool,
    draining: bool,
}

impl World {
    fn new() -> Self {
        let mut bounds = Bounds::new(SLOTS, 8, true);
        bounds.kept_runs = 6;
        bounds.kept_runs_per_owner = 4;
        bounds.kept_output = 50;
        bounds.kept_output_per_owner = 30;
        bounds.runs_per_connection = 5;
        let dispatcher = Dispatcher::new(bounds);
        Self { dispatcher, model: Model::default(), now: 0, next: 0, up: false, draining: false }
    }

    fn handle(&mut self, event: Event) {
        let effects = self.dispatcher.handle(event);
        self.model.observe(&effects);
        assert_eq!(self.dispatcher.counts().running, self.model.holding.len());
        if self.up && !self.draining && self.model.holding.len() < SLOTS {
            assert_eq!(self.model.newcomers(), 0, "one without a slot waits though a slot is free");
        }
    }

    fn take(&mut self, step: Step) {
        let now = self.now;
        let client = |number: u8| ConnectionId(u64::from(number % CONNECTIONS));
        let owner = owner_of;
        let event = match step {
            Step::Request { connection, detach, relayed, wall } => {
                self.next += 1;
                let connection = client(connection);
                let run = id(self.next);
                self.model.ring.insert(run, 3);
                self.model.owners.insert(run, owner(connection));
                Event::Request(Request {
                    now,
                    connection,
                    owner: owner(connection),
                    detach,
                    relayed,
                    wall_ms: wall.map(u64::from),
                    ..request(self.next)
                })
            }
            Step::Pass(by) => {
                self.now += u64::from(by);
                Event::Tick { now: self.now }
            }
            Step::LauncherDown => {
                self.up = false;
                Event::LauncherDown { now, launcher: LAUNCHER, reason: "x".into() }
            }
            Step::LauncherUp => {
                self.up = true;
                Event::LauncherUp { now, launcher: LAUNCHER }
            }
            Step::Unavailable if !self.up => Event::LauncherUnavailable { now, reason: "x".into() },
            Step::Unavailable => return,
            Step::Drain => {
                self.draining = true;
                Event::Drain { now, grace: 50_000 }
            }
            Step::Disconnected(connection) => Event::Disconnected { now, connection: client(connection) },
            about_a_run => match self.about_a_run(&about_a_run, client, owner) {
                Some(event) => event,
                None => return,
            },
        };
        self.handle(event);
    }

    fn about_a_run(
        &mut self,
        step: &Step,
        client: impl Fn(u8) -> ConnectionId,
        owner: impl Fn(ConnectionId) -> u32,
    ) -> Option<Event> {
        let now = self.now;
        Some(match *step {
            // A launcher speaks of runs it has been given, and once each.
            Step::Started(run) => {
                let run = self.model.nth(run).filter(|run| self.model.holding.contains(run))?;
                (!self.model.tool_started.contains(&run)).then_some(Event::Started { now, run })?
            }
            Step::Ended(run, reaped) => {
                let run = self.model.nth(run).filter(|run| self.model.holding.contains(run))?;
                Event::Ended { now, run, outcome: exited(0), reaped }
            }
            Step::Wrote(run, more, eof, held) => {
                let run = self.model.nth(run)?;
                if self.model.exited.contains(&run) || !self.model.started.contains(&run) {
                    return None;
                }
                let next_seq = self.model.ring.get_mut(&run)?;
                *next_seq += u64::from(more);
                Event::Wrote { now, run, next_seq: *next_seq, kept: 10, eof, held }
            }
            Step::Cancel(run, connection) => {
                let connection = client(connection);
                let run = self.model.nth(run)?;
                Event::Cancel { now, connection, owner: owner(connection), run }
            }
            Step::Attach(connection, run, seq) => {
                let connection = client(connection);
                let (run, after_seq) = (self.model.nth(run)?, u64::from(seq % 8));
                Event::Attach { connection, owner: owner(connection), run, after_seq, is_stranger: false }
            }
            Step::Delivered(connection, run) => {
                let run = self.model.nth(run).filter(|run| self.model.exited.contains(run))?;
                Event::Delivered { connection: client(connection), run }
            }
            Step::Acknowledged(run) => {
                let run = self.model.nth(run)?;
                Event::Acknowledged { owner: 1, run, seq: self.dispatcher.last_seq(run) }
            }
            _ => return None,
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn random_events_break_no_promise(steps in proptest::collection::vec(step(), 0..250)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        // Whatever happened, a stop ends every run that was accepted, once.
        world.draining = true;
        world.handle(Event::Kill { now: world.now });
        let running: Vec<ExecId> = world.model.holding.iter().copied().collect();
        for run in running {
            world.handle(Event::Ended { now: world.now, run, outcome: exited(1), reaped: true });
        }
        for _ in 0..1_000 {
            let Some(at) = world.dispatcher.next_deadline() else { break };
            world.now = world.now.max(at);
            world.handle(Event::Tick { now: world.now });
        }
        let accepted: BTreeSet<ExecId> = world.model.seqs.keys().copied().collect();
        let held: BTreeSet<ExecId> = accepted.difference(&world.model.exited).copied().collect();
        for run in &held {
            // Only a run whose output a client holds up may still be without its Exited; it has no slot.
            let phase = world.dispatcher.phase(*run, world.model.owners[run]);
            let closing = matches!(phase, Some(Phase::Closing { .. }));
            prop_assert!(closing, "{:?}", phase);
        }
        prop_assert_eq!(&world.model.started, &world.model.finished);
        prop_assert!(world.model.holding.is_empty());
        prop_assert_eq!(world.model.stops, 1);
    }
}
