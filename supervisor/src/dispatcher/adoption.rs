//! Runs that another supervisor has accepted, and its launcher has kept: they are taken over where they stand, hold their
//! slots, and wait a while for the clients that were cut off.

use std::collections::BTreeMap;

use stockade_protocol::ExecId;
use stockade_protocol::outcome::CancelReason;
use stockade_protocol::ring::FIRST_SEQ;

use super::bounds::{OVERDUE_MS, STARTING_MS};
use super::core::Dispatcher;
use super::event::{Adopted, ConnectionId, Effect};
use super::run::{Phase, Run};

/// Under whom adopted runs wait: no connection has this number.
const NOBODY: ConnectionId = ConnectionId(0);

impl Dispatcher {
    /// Takes a run over. Its launcher says next whether it has started, and whether it has ended.
    pub(super) fn adopt(&mut self, adopted: &Adopted) {
        let &Adopted { now, run: id, launcher, owner, detach, relayed, wall_ms, held } = adopted;
        let run = Run {
            owner,
            origin: None,
            origin_gone: false,
            origin_delivered: false,
            detach,
            relayed,
            wall_ms,
            bytes: 0,
            phase: if held { Phase::Queued } else { Phase::Starting },
            waits_for: NOBODY,
            held,
            launcher: Some(launcher),
            started_at: now,
            next_seq: 2,
            has_started: false,
            ring_next_seq: FIRST_SEQ,
            eof: false,
            kept: 0,
            cancelled: false,
            overdue: None,
            acknowledged: false,
            place: None,
            followers: BTreeMap::new(),
        };
        if self.runs.insert(id, run).is_some() {
            return;
        }
        self.totals.accepted += 1;
        self.claims.set(id, Some(now.saturating_add(self.bounds.unclaimed_ms)));
        if held {
            self.queue.push(owner, NOBODY, id);
            return;
        }
        // It runs already: there may be more runs than slots until some have ended.
        self.running += 1;
        *self.holding.entry(owner).or_default() += 1;
        // At the latest then it should have started, or ended: the launcher arms its limits itself.
        self.timers.set(id, Some(now.saturating_add(STARTING_MS).saturating_add(OVERDUE_MS)));
    }

    /// Somebody follows a run. Of one that nobody has claimed yet, he is from now on who asked for it.
    pub(super) fn claim(&mut self, connection: ConnectionId, id: ExecId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        if run.origin.is_none() && !run.origin_gone {
            run.origin = Some(connection);
            self.claims.set(id, None);
        }
    }

    /// Ends the runs that nobody has claimed in time, unless they may go on without a client.
    pub(super) fn unclaimed(&mut self, now: u64, effects: &mut Vec<Effect>) {
        while let Some(id) = self.claims.take_due(now) {
            let Some(run) = self.runs.get_mut(&id) else { continue };
            if run.origin.is_none()
                && let Some((connection, _)) =
                    run.followers.iter().find(|(_, follower)| !follower.is_stranger)
            {
                // Nobody else has come, and somebody is there.
                run.origin = Some(*connection);
                effects.push(Effect::Unclaimed { run: id });
                continue;
            }
            run.origin_gone = true;
            let detach = run.detach;
            effects.push(Effect::Unclaimed { run: id });
            if !detach {
                self.cancel(now, id, CancelReason::ClientGone, effects);
            }
            self.forget_if_done(id, effects);
        }
    }
}

#[cfg(test)]
mod tests {
    use stockade_protocol::bounds::UNCLAIMED_MS;
    use stockade_protocol::outcome::Outcome;

    use super::super::event::{Event, LauncherId};
    use super::super::{Bounds, Emission};
    use super::*;

    const OWNER: u32 = 1000;
    const OLD: LauncherId = LauncherId(1);
    const NEW: LauncherId = LauncherId(2);

    fn id(number: u8) -> ExecId {
        ExecId::from_bytes([number; 16])
    }

    fn adopted(number: u8, held: bool, detach: bool) -> Event {
        let (run, launcher, owner) = (id(number), OLD, OWNER);
        let (relayed, wall_ms) = (false, None);
        Event::Adopted(Adopted { now: 0, run, launcher, owner, detach, relayed, wall_ms, held })
    }

    fn attach(connection: u64, number: u8) -> Event {
        let (connection, owner, run) = (ConnectionId(connection), OWNER, id(number));
        Event::Attach { connection, owner, run, after_seq: 1, is_stranger: false }
    }

    fn with(slots: usize, events: impl IntoIterator<Item = Event>) -> Dispatcher {
        let mut dispatcher = Dispatcher::new(Bounds::new(slots, 8, false));
        for event in events {
            dispatcher.handle(event);
        }
        dispatcher
    }

    fn cancels(effects: &[Effect]) -> Vec<ExecId> {
        let cancelled = |effect: &Effect| match effect {
            Effect::Cancel { run, .. } => Some(*run),
            _ => None,
        };
        effects.iter().filter_map(cancelled).collect()
    }

    fn ended(number: u8, now: u64) -> Event {
        Event::Ended { now, run: id(number), outcome: Outcome::Exited { code: 0 }, reaped: true }
    }

    #[test]
    fn adopted_runs_hold_their_slots_and_those_that_waited_get_theirs_from_their_own_launcher() {
        let mut dispatcher = with(1, [adopted(1, false, true), adopted(2, true, true)]);
        let started = Event::Started { now: 1, run: id(1) };
        assert!(matches!(
            dispatcher.handle(started)[..],
            [Effect::Emit { what: Emission::Started, seq: 2, .. }]
        ));
        assert_eq!(dispatcher.handle(Event::LauncherUp { now: 1, launcher: NEW }), []);
        let effects = dispatcher.handle(ended(1, 2));
        assert_eq!(effects.last(), Some(&Effect::Start { run: id(2) }));
        // The older launcher has it, whoever is there for runs to come.
        let effects = dispatcher.handle(Event::LauncherDown { now: 3, launcher: OLD, reason: "x".into() });
        let lost = |effect: &Effect| {
            matches!(effect, Effect::Emit { run, what: Emission::Exited { outcome: Outcome::Lost { .. } }, .. }
                if *run == id(2))
        };
        assert!(effects.iter().any(lost), "{effects:?}");
    }

    #[test]
    fn what_an_older_launcher_held_is_lost_with_it() {
        let mut dispatcher = with(1, [adopted(1, true, false)]);
        let effects = dispatcher.handle(Event::LauncherDown { now: 1, launcher: OLD, reason: "x".into() });
        assert!(matches!(effects[..], [Effect::Emit { what: Emission::Exited { .. }, .. }]), "{effects:?}");
        assert_eq!(dispatcher.counts().queued, 0);
    }

    #[test]
    fn nobody_comes_in_time_and_what_is_not_detached_ends() {
        for held in [false, true] {
            let mut dispatcher =
                with(4, [adopted(1, held, false), adopted(2, held, true), adopted(3, held, false)]);
            dispatcher.handle(attach(7, 3));
            assert_eq!(dispatcher.next_deadline(), Some(UNCLAIMED_MS));
            let effects = dispatcher.handle(Event::Tick { now: UNCLAIMED_MS });
            assert_eq!(cancels(&effects), [id(1)], "held: {held}");
            let unclaimed = |effect: &&Effect| matches!(effect, Effect::Unclaimed { .. });
            assert_eq!(effects.iter().filter(unclaimed).count(), 2);
        }
    }

    #[test]
    fn who_comes_first_is_whose_it_is() {
        let mut dispatcher = with(4, [adopted(1, false, false)]);
        dispatcher.handle(attach(7, 1));
        dispatcher.handle(attach(8, 1));
        let gone = |connection| Event::Disconnected { now: 5, connection: ConnectionId(connection) };
        assert_eq!(cancels(&dispatcher.handle(gone(8))), []);
        assert_eq!(cancels(&dispatcher.handle(gone(7))), [id(1)]);
    }

    #[test]
    fn a_stranger_who_looks_on_never_becomes_the_one_who_asked() {
        let stranger = |number, after_seq| Event::Attach {
            connection: ConnectionId(9),
            owner: OWNER,
            run: id(number),
            after_seq,
            is_stranger: true,
        };
        let gone = |connection| Event::Disconnected { now: 5, connection: ConnectionId(connection) };
        let mut dispatcher = with(4, [adopted(1, false, false), adopted(2, false, false)]);
        // He has seen something of it, as a client that comes back says: the owner's claim is still to come.
        dispatcher.handle(stranger(1, 1));
        assert_eq!(cancels(&dispatcher.handle(gone(9))), []);
        dispatcher.handle(stranger(1, 1));
        dispatcher.handle(attach(7, 1));
        assert_eq!(cancels(&dispatcher.handle(gone(9))), []);
        assert_eq!(cancels(&dispatcher.handle(gone(7))), [id(1)]);
        // One that only he follows nobody has claimed.
        dispatcher.handle(stranger(2, 1));
        let effects = dispatcher.handle(Event::Tick { now: UNCLAIMED_MS });
        assert!(effects.contains(&Effect::Unclaimed { run: id(2) }));
        assert_eq!(cancels(&effects), [id(2)]);
    }

    #[test]
    fn who_only_looks_on_takes_nobodys_run_but_keeps_one_that_nobody_wants() {
        let look = |number| Event::Attach {
            connection: ConnectionId(9),
            owner: OWNER,
            run: id(number),
            after_seq: 0,
            is_stranger: false,
        };
        let mut dispatcher = with(4, [adopted(1, false, false), adopted(2, false, false)]);
        dispatcher.handle(look(1));
        dispatcher.handle(attach(7, 1));
        dispatcher.handle(look(2));
        let effects = dispatcher.handle(Event::Tick { now: UNCLAIMED_MS });
        assert_eq!(effects, [Effect::Unclaimed { run: id(2) }]);
        let gone = |connection| Event::Disconnected { now: 5, connection: ConnectionId(connection) };
        assert_eq!(cancels(&dispatcher.handle(gone(9))), [id(2)]);
        assert_eq!(cancels(&dispatcher.handle(gone(7))), [id(1)]);
    }

    /// What the current launcher holds it has to be told to give up, whoever else has died or can't be had.
    #[test]
    fn what_is_cancelled_while_it_waits_is_cancelled_where_it_is_held() {
        let mut dispatcher = with(1, [adopted(1, false, true)]);
        dispatcher.handle(Event::LauncherUp { now: 0, launcher: NEW });
        let request = crate::dispatcher::event::Request {
            now: 1,
            run: id(2),
            connection: ConnectionId(7),
            request_id: 1,
            owner: OWNER,
            detach: false,
            relayed: false,
            wall_ms: None,
            bytes: 1,
        };
        let effects = dispatcher.handle(Event::Request(request));
        assert!(effects.contains(&Effect::Hold { run: id(2) }), "{effects:?}");
        dispatcher.handle(adopted(3, true, true));
        // An older one's death frees the slot of its run, and changes nothing of what another holds.
        dispatcher.handle(Event::Bounds { now: 2, bounds: Box::new(Bounds::new(0, 8, false)) });
        dispatcher.handle(Event::LauncherDown { now: 2, launcher: OLD, reason: "x".into() });
        let cancel = Event::Cancel { now: 3, connection: ConnectionId(7), owner: OWNER, run: id(2) };
        assert_eq!(cancels(&dispatcher.handle(cancel)), [id(2)]);
    }

    #[test]
    fn what_an_older_launcher_holds_is_given_up_there_when_nothing_can_be_started() {
        let mut dispatcher = with(1, [adopted(1, true, true)]);
        let effects = dispatcher.handle(Event::LauncherUnavailable { now: 1, reason: "x".into() });
        assert_eq!(cancels(&effects), [id(1)]);
    }

    #[test]
    fn what_its_client_may_come_back_for_is_not_forgotten_for_want_of_room() {
        let mut bounds = Bounds::new(4, 8, false);
        bounds.kept_runs = 1;
        let mut dispatcher = Dispatcher::new(bounds);
        for number in 1..=3 {
            dispatcher.handle(adopted(number, false, true));
            let effects = dispatcher.handle(ended(number, 0));
            assert!(!effects.iter().any(|effect| matches!(effect, Effect::Forget { .. })), "{effects:?}");
        }
        dispatcher.handle(Event::Tick { now: UNCLAIMED_MS });
        dispatcher.handle(adopted(4, false, true));
        let effects = dispatcher.handle(ended(4, UNCLAIMED_MS));
        assert!(effects.contains(&Effect::Forget { run: id(1) }), "{effects:?}");
    }

    #[test]
    fn a_run_is_adopted_once() {
        let mut dispatcher = with(4, [adopted(1, false, true), adopted(1, false, true)]);
        assert_eq!((dispatcher.counts().running, dispatcher.counts().accepted), (1, 1));
        dispatcher.handle(ended(1, 1));
        assert_eq!(dispatcher.counts().running, 0);
    }
}
