//! Launchers that come and go, and what they hold of what waits.

use stockade_protocol::ExecId;
use stockade_protocol::outcome::{CancelReason, Outcome, SetupFailure, SetupStage};

use super::core::{Dispatcher, Launcher};
use super::event::{Effect, LauncherId};
use super::run::{Phase, Run};

impl Dispatcher {
    /// Has a run held that has to wait.
    pub(super) fn hold(&mut self, id: ExecId, effects: &mut Vec<Effect>) {
        if let Launcher::Up(_) = self.launcher
            && let Some(run) = self.runs.get_mut(&id)
            && run.phase == Phase::Queued
            && !run.held
        {
            run.held = true;
            effects.push(Effect::Hold { run: id });
        }
    }

    /// A run that waits can't be held.
    pub fn is_not_held(&mut self, id: ExecId) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.held = false;
        }
    }

    /// Has everything held that waits: a launcher has come that doesn't hold it.
    pub(super) fn hold_all(&mut self, effects: &mut Vec<Effect>) {
        let mut waiting: Vec<ExecId> =
            self.runs.iter().filter(|(_, run)| run.phase == Phase::Queued).map(|(id, _)| *id).collect();
        waiting.sort_unstable();
        for id in waiting {
            self.hold(id, effects);
        }
    }

    /// What would be handed to it now would be lost with it: it waits for the next.
    pub(super) fn launcher_leaves(&mut self, launcher: LauncherId) {
        if self.launcher != Launcher::Up(launcher) {
            return;
        }
        self.launcher = Launcher::Down;
        // What it holds of our own requests we have, too.
        let ours = |run: &&mut Run| run.phase == Phase::Queued && run.launcher.is_none();
        for run in self.runs.values_mut().filter(ours) {
            run.held = false;
        }
    }

    pub(super) fn launcher_down(
        &mut self,
        now: u64,
        launcher: LauncherId,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) {
        self.launcher_leaves(launcher);
        // Nobody is left to say when they are gone.
        self.unreaped.retain(|_, of| *of != launcher);
        let had = |run: &Run| run.launcher == Some(launcher);
        let mut lost: Vec<ExecId> = self.runs.iter().filter(|(_, run)| had(run)).map(|(id, _)| *id).collect();
        lost.sort_unstable();
        for id in lost {
            let Some(run) = self.runs.get_mut(&id) else { continue };
            match run.phase {
                Phase::Starting | Phase::Running => {
                    run.phase = Phase::Closing { outcome: Outcome::Lost { reason: reason.to_owned() } };
                    self.finish(id, effects);
                    self.exit(now, id, effects);
                }
                // The relay died with the launcher: no more output will come, and how much there was nobody can tell.
                Phase::Closing { ref mut outcome } => {
                    if matches!(outcome, Outcome::Exited { .. } | Outcome::Signaled { .. }) {
                        let reason =
                            format!("{reason}; the tool had ended, and the end of its output wasn't told");
                        *outcome = Outcome::Lost { reason };
                    }
                    self.exit(now, id, effects);
                }
                // Adopted while it waited: nobody else has it.
                Phase::Queued => {
                    let (owner, waits_for) = (run.owner, run.waits_for);
                    run.phase = Phase::Closing { outcome: Outcome::Lost { reason: reason.to_owned() } };
                    self.leave_queue(owner, waits_for, id);
                    self.exit(now, id, effects);
                }
                Phase::Ended { .. } => {}
            }
        }
    }

    pub(super) fn unavailable(&mut self, now: u64, reason: String, effects: &mut Vec<Effect>) {
        while let Some(id) = self.queue.pop(|_| true) {
            let Some(run) = self.runs.get_mut(&id) else { continue };
            self.queue_bytes.take(run.owner, run.bytes);
            if core::mem::take(&mut run.held) {
                // An older launcher has it, and would hand it on to the next supervisor.
                effects.push(Effect::Cancel { run: id, reason: CancelReason::Draining });
            }
            let subject = format!("no launcher can be started: {reason}").into();
            let failure = SetupFailure { stage: SetupStage::Check, errno: 0, subject };
            run.phase = Phase::Closing { outcome: Outcome::SetupFailed { failure } };
            self.exit(now, id, effects);
        }
        self.launcher = Launcher::Unavailable(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::Request;
    use super::super::{Bounds, ConnectionId, Event};
    use super::*;

    const FIRST: LauncherId = LauncherId(1);
    const NEXT: LauncherId = LauncherId(2);

    fn request(run: ExecId) -> Event {
        Event::Request(Request {
            now: 0,
            run,
            connection: ConnectionId(1),
            request_id: 1,
            owner: 1000,
            detach: false,
            relayed: true,
            wall_ms: None,
            bytes: 1,
        })
    }

    #[test]
    fn what_is_asked_for_while_a_launcher_leaves_waits_for_the_next_and_is_not_lost() {
        let mut dispatcher = Dispatcher::new(Bounds::new(4, 4, true));
        dispatcher.handle(Event::LauncherUp { now: 0, launcher: FIRST });
        let (before, after) = (ExecId::generate(), ExecId::generate());
        assert!(dispatcher.handle(request(before)).contains(&Effect::Start { run: before }));
        dispatcher.handle(Event::LauncherLeaves { launcher: FIRST });
        let effects = dispatcher.handle(request(after));
        let is_told = |effect: &Effect| matches!(effect, Effect::Start { .. } | Effect::Hold { .. });
        assert!(!effects.iter().any(is_told), "{effects:?}");
        dispatcher.handle(Event::LauncherDown { now: 1, launcher: FIRST, reason: "x".into() });
        let lost =
            |phase: Option<&Phase>| matches!(phase, Some(Phase::Ended { outcome: Outcome::Lost { .. } }));
        assert!(lost(dispatcher.phase(before, 1000)) && !lost(dispatcher.phase(after, 1000)));
        let effects = dispatcher.handle(Event::LauncherUp { now: 2, launcher: NEXT });
        assert!(effects.contains(&Effect::Start { run: after }), "{effects:?}");
    }

    #[test]
    fn the_end_of_a_run_whose_output_has_no_end_is_known_only_if_it_was_ours_to_decide() {
        let mut dispatcher = Dispatcher::new(Bounds::new(4, 4, true));
        dispatcher.handle(Event::LauncherUp { now: 0, launcher: FIRST });
        let decided = Outcome::Cancelled { reason: CancelReason::Asked };
        let ends =
            [Outcome::Exited { code: 0 }, Outcome::Signaled { signal: 9, core_dumped: false }, decided];
        let runs = ends.map(|outcome| {
            let run = ExecId::generate();
            dispatcher.handle(request(run));
            dispatcher.handle(Event::Started { now: 1, run });
            dispatcher.handle(Event::Ended { now: 2, run, outcome: outcome.clone(), reaped: true });
            (run, outcome)
        });
        dispatcher.handle(Event::LauncherDown { now: 3, launcher: FIRST, reason: "it died".into() });
        for (run, outcome) in runs {
            let Some(Phase::Ended { outcome: told }) = dispatcher.phase(run, 1000) else { panic!("goes on") };
            match outcome {
                Outcome::Cancelled { .. } => assert_eq!(*told, outcome),
                _ => assert!(
                    matches!(told, Outcome::Lost { reason } if reason.starts_with("it died; ")),
                    "{told:?}"
                ),
            }
        }
    }

    #[test]
    fn a_launcher_that_is_not_the_current_one_leaves_and_runs_start_as_before() {
        let mut dispatcher = Dispatcher::new(Bounds::new(4, 4, true));
        dispatcher.handle(Event::LauncherUp { now: 0, launcher: NEXT });
        dispatcher.handle(Event::LauncherLeaves { launcher: FIRST });
        let run = ExecId::generate();
        assert!(dispatcher.handle(request(run)).contains(&Effect::Start { run }));
    }
}
