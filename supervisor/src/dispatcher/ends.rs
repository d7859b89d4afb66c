//! Ends that we decide: where a run stands says what has to be done for it.

use stockade_protocol::ExecId;
use stockade_protocol::outcome::{CancelReason, Outcome};

use super::bounds::UNANSWERED_MS;
use super::core::Dispatcher;
use super::event::Effect;
use super::run::Phase;

impl Dispatcher {
    /// Cancels a run, once.
    pub(super) fn cancel(&mut self, now: u64, id: ExecId, reason: CancelReason, effects: &mut Vec<Effect>) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        match run.phase {
            Phase::Queued => {
                let outcome = Outcome::Cancelled { reason: reason.clone() };
                self.end_waiting(now, id, (reason, outcome), effects);
            }
            Phase::Starting | Phase::Running if !run.cancelled => {
                run.cancelled = true;
                self.timers.set(id, Some(now + UNANSWERED_MS));
                effects.push(Effect::Cancel { run: id, reason });
            }
            _ => {}
        }
    }

    /// Ends a run that waits, here and where it's held.
    fn end_waiting(
        &mut self,
        now: u64,
        id: ExecId,
        (reason, outcome): (CancelReason, Outcome),
        effects: &mut Vec<Effect>,
    ) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let (owner, waits_for) = (run.owner, run.waits_for);
        if core::mem::take(&mut run.held) {
            effects.push(Effect::Cancel { run: id, reason });
        }
        run.phase = Phase::Closing { outcome };
        self.leave_queue(owner, waits_for, id);
        self.exit(now, id, effects);
    }

    /// Ends a run as lost. What it has said for itself by then stands.
    pub(super) fn fail(&mut self, now: u64, id: ExecId, reason: String, effects: &mut Vec<Effect>) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let lost = Outcome::Lost { reason };
        match run.phase {
            Phase::Queued => self.end_waiting(now, id, (CancelReason::Asked, lost), effects),
            Phase::Starting | Phase::Running if !run.cancelled => {
                run.overdue = Some(lost);
                self.cancel(now, id, CancelReason::Asked, effects);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::{ConnectionId, Event, LauncherId, Request};
    use super::super::{Bounds, Emission};
    use super::*;

    fn request(number: u8) -> Event {
        let run = ExecId::from_bytes([number; 16]);
        Event::Request(Request {
            now: 0,
            run,
            connection: ConnectionId(1),
            request_id: u64::from(number),
            owner: 1000,
            detach: true,
            relayed: false,
            wall_ms: None,
            bytes: 1,
        })
    }

    /// What it can't do without went wrong before it had a slot: it ends here and where it's held, and never starts.
    #[test]
    fn a_run_that_fails_while_it_waits_is_lost_and_given_up_where_it_is_held() {
        let mut dispatcher = Dispatcher::new(Bounds::new(1, 8, false));
        dispatcher.handle(Event::LauncherUp { now: 0, launcher: LauncherId(1) });
        let (first, second) = (ExecId::from_bytes([1; 16]), ExecId::from_bytes([2; 16]));
        dispatcher.handle(request(1));
        assert!(dispatcher.handle(request(2)).contains(&Effect::Hold { run: second }));
        let reason = "no memory".to_owned();
        let effects = dispatcher.handle(Event::Fail { now: 1, run: second, reason: reason.clone() });
        assert!(
            effects.contains(&Effect::Cancel { run: second, reason: CancelReason::Asked }),
            "{effects:?}"
        );
        let is_end = |effect: &Effect| match effect {
            Effect::Emit { run, what: Emission::Exited { outcome }, .. } => {
                *run == second && *outcome == Outcome::Lost { reason: reason.clone() }
            }
            _ => false,
        };
        assert!(effects.iter().any(is_end), "{effects:?}");
        let outcome = Outcome::Exited { code: 0 };
        let effects = dispatcher.handle(Event::Ended { now: 2, run: first, outcome, reaped: true });
        assert!(!effects.contains(&Effect::Start { run: second }), "{effects:?}");
    }
}
