//! What the launcher and its relay report.

use std::os::fd::OwnedFd;

use stockade_protocol::client::ExecEvent;
use stockade_protocol::confinement::{Confinement, StdioPath};
use stockade_protocol::launch::{Adopted, FromLauncher, FromRelay, LAUNCH_VERSION};
use stockade_protocol::outcome::{Outcome, SetupFailure, SetupStage};
use stockade_protocol::{Bytes, ExecId};

use super::state::State;
use crate::dispatcher::{self, Event, LauncherId};
use crate::link::Introduction;
use crate::output::{Ring, Wrote};
use crate::runs::Run;

/// Bytes of a run's trusted files that are told, of its absent paths, and of any one text: what a client is told
/// has to fit a frame, and a launcher's message may be larger than one.
const TRUSTED_FILES: usize = 512 * 1024;
const ABSENT: usize = 256 * 1024;
const TEXT: usize = 16 * 1024;

/// As many of these as fit.
fn shortened(names: Vec<Bytes>, bound: usize) -> Vec<Bytes> {
    let (mut bytes, all) = (0, names.len());
    let kept: Vec<Bytes> = names
        .into_iter()
        .take_while(|name| {
            bytes += name.len() + size_of::<u64>();
            bytes <= bound
        })
        .collect();
    if kept.len() < all {
        tracing::warn!(all, kept = kept.len(), "a list of names is too long to be told and is cut");
    }
    kept
}

fn truncate(text: &mut String, bound: usize) {
    if text.len() > bound {
        let mut end = bound;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}

/// Where our own files lie is nothing for a client, nor where the program of a tool does: of their paths he's told the last part, and
/// the log has them whole. Paths that a request or its policy names he knows.
fn hide_place(failure: &mut SetupFailure, of: Whose) {
    let is_known = match failure.stage {
        SetupStage::Open
        | SetupStage::Mount
        | SetupStage::Guard
        | SetupStage::Idmap
        | SetupStage::Landlock
        | SetupStage::Verify
        | SetupStage::File => of != Whose::Review,
        // The command of a call is its tool's file's.
        SetupStage::Cwd | SetupStage::Exec => of == Whose::Command,
        _ => false,
    };
    let subject = &failure.subject.0;
    if let Some(last) = subject.rsplit(|byte| *byte == b'/').next()
        && !is_known
        && subject.contains(&b'/')
    {
        tracing::warn!(stage = ?failure.stage, subject = %subject.escape_ascii(), "a run fails on a path that its client isn't told");
        failure.subject = Bytes([b"\xe2\x80\xa6/", last].concat());
    }
}

/// Whose run has failed: who is told knows as much of its paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// A client's command.
    Command,
    /// A client's call of a tool.
    Call,
    /// The daemon's own, for a reviewer program.
    Review,
}

impl Whose {
    fn is(run: Option<&Run>) -> Self {
        match run {
            Some(run) if run.reviews.is_some() => Self::Review,
            Some(run) if run.tool.is_some() => Self::Call,
            _ => Self::Command,
        }
    }
}

fn shortened_outcome(mut outcome: Outcome, of: Whose) -> Outcome {
    match &mut outcome {
        Outcome::SetupFailed { failure } => {
            hide_place(failure, of);
            failure.subject.0.truncate(TEXT);
        }
        Outcome::Lost { reason } => truncate(reason, TEXT),
        _ => {}
    }
    outcome
}

impl State {
    /// A message of the launcher. `Err`: it breaks the rules, and the launcher has to go.
    pub(crate) fn heard_launcher(
        &mut self,
        launcher: LauncherId,
        message: FromLauncher,
        mut descriptors: Vec<OwnedFd>,
    ) -> Result<Option<OwnedFd>, String> {
        let now = self.now();
        match message {
            FromLauncher::Hello { version, pid, plan, memory, program, replaced } => {
                if version == 0 || version > LAUNCH_VERSION {
                    return Err(format!("the launcher speaks version {version}, not {LAUNCH_VERSION}"));
                }
                tracing::info!(pid, ?plan, ?memory, "the launcher is ready");
                if let Some(link) = self.links.get_mut(launcher) {
                    link.introduction = Some(Introduction { plan, memory, program, replaced, pid });
                }
                self.figures.launcher_up();
                let relay = descriptors.pop().ok_or("the launcher sent no relay")?;
                return Ok(Some(relay));
            }
            FromLauncher::Adopted(adopted) => self.adopt(launcher, *adopted),
            FromLauncher::Started { exec_id, confinement } => {
                self.tool_started(now, exec_id, confinement, descriptors.pop());
            }
            FromLauncher::Warning { exec_id, limit, value, bound } => {
                if let Some(run) = self.runs.get(&exec_id) {
                    tracing::info!(parent: run.span(), limit, value, bound, "a limit is near");
                }
                self.warn_followers(exec_id, &ExecEvent::LimitWarning { limit, value, bound });
            }
            FromLauncher::Ended { exec_id, outcome, usage, trusted_files, reaped } => {
                self.end_output_without_ring(now, exec_id);
                if let Some(run) = self.runs.get_mut(&exec_id) {
                    run.usage = usage;
                    run.timing.end();
                    run.trusted_files = shortened(trusted_files, TRUSTED_FILES);
                    if !reaped {
                        tracing::warn!(parent: run.span(), "ended, but a process of it isn't reaped yet");
                    }
                }
                let outcome = shortened_outcome(outcome, Whose::is(self.runs.get(&exec_id)));
                self.handle(Event::Ended { now, run: exec_id, outcome, reaped });
                self.settle_acknowledgement(exec_id);
            }
            FromLauncher::Reaped { exec_id } => {
                tracing::info!(%exec_id, "the last process is reaped");
                self.handle(Event::Reaped { run: exec_id });
            }
            FromLauncher::Warmth { warmth, made } => {
                self.figures.made(&made);
                if let Some(link) = self.links.get_mut(launcher) {
                    link.warmth = warmth;
                }
            }
            _ => tracing::warn!("the launcher said something this version doesn't know"),
        }
        Ok(None)
    }

    fn tool_started(
        &mut self,
        now: u64,
        id: ExecId,
        mut confinement: Box<Confinement>,
        ring: Option<OwnedFd>,
    ) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        for layer in &confinement.layers {
            let (layer, enforced, detail) = (layer.layer, layer.enforced, layer.detail.as_str());
            tracing::debug!(parent: run.span(), ?layer, enforced, detail, "layer");
        }
        // The launcher sees a descriptor; that it is the end of a pipe of ours only we know.
        if run.feed.is_some() || run.fed_before.is_some() {
            confinement.stdio[0] = StdioPath::Relayed;
        }
        confinement.absent = shortened(core::mem::take(&mut confinement.absent), ABSENT);
        for layer in &mut confinement.layers {
            truncate(&mut layer.detail, TEXT);
        }
        run.timing.start();
        self.figures.started(&confinement);
        run.confinement = Some(confinement);
        run.ring = run.ring_bytes.zip(ring).map(|(capacity, memfd)| Ring::new(memfd, capacity));
        self.handle(Event::Started { now, run: id });
    }

    /// A run that has a ring's worth of output to come, and no ring, had none: the relay never heard of it, and its end is
    /// that of its output.
    fn end_output_without_ring(&mut self, now: u64, id: ExecId) {
        let is_without = |run: &&mut Run| run.started && run.ring_bytes.is_some() && run.ring.is_none();
        let Some(run) = self.runs.get_mut(&id).filter(is_without) else { return };
        run.wrote.eof = true;
        let next_seq = run.wrote.next_seq + run.ends();
        self.handle(Event::Wrote { now, run: id, next_seq, kept: 0, eof: true, held: false });
    }

    /// A message of the relay.
    pub(crate) fn heard_relay(&mut self, message: &FromRelay) {
        let &FromRelay::Wrote { exec_id, head, next_seq, acknowledged, oldest_offset, oldest_seq, eof } =
            message
        else {
            return;
        };
        let now = self.now();
        let Some(run) = self.runs.get_mut(&exec_id) else { return };
        // What was said of the end stands: after `Exited` nothing follows.
        if run.exited.is_some() {
            run.wrote.oldest_offset = run.wrote.oldest_offset.max(oldest_offset).min(run.wrote.head);
            run.wrote.oldest_seq = run.wrote.oldest_seq.max(oldest_seq).min(run.wrote.next_seq);
            self.ring_followers(exec_id);
            return;
        }
        if head < run.wrote.head
            || next_seq < run.wrote.next_seq
            || oldest_seq > next_seq
            || oldest_offset > head
        {
            tracing::error!(parent: run.span(), "the relay's report makes no sense and is ignored");
            return;
        }
        // An adopted run's was told by another supervisor.
        run.acknowledged = run.acknowledged.max(acknowledged);
        run.taken = run.taken.max(acknowledged);
        run.wrote = Wrote { head, next_seq, oldest_offset, oldest_seq, eof };
        let kept = run.ring_bytes.map_or(0, |capacity| head.min(capacity));
        let next_seq = next_seq + run.ends();
        let held = !run.followers.is_empty() && run.taken < head;
        self.handle(Event::Wrote { now, run: exec_id, next_seq, kept, eof, held });
        self.settle_acknowledgement(exec_id);
        self.ring_followers(exec_id);
        self.links.nudge_relays();
    }

    /// A run that another supervisor has launched, of whose end nobody was told yet.
    fn adopt(&mut self, launcher: LauncherId, adopted: Adopted) {
        let now = self.now();
        let (detach, wall_ms, held) = (adopted.note.detach, adopted.note.wall_ms, adopted.held);
        let run = Run::adopted(adopted, launcher, now, || self.gate.forms());
        tracing::info!(parent: run.span(), age_ms = run.age_before, "adopted");
        let event = dispatcher::event::Adopted {
            now,
            run: run.exec_id,
            launcher,
            owner: run.owner,
            detach,
            relayed: run.ring_bytes.is_some(),
            wall_ms,
            held,
        };
        self.figures.adopted();
        self.runs.insert(run.exec_id, run);
        let id = event.run;
        self.handle(Event::Adopted(event));
        self.adopt_grant(id);
        self.end_if_review(id);
    }

    /// A launcher doesn't answer any more; how it ends is found out.
    pub(crate) fn launcher_leaves(&mut self, launcher: LauncherId) {
        self.handle(Event::LauncherLeaves { launcher });
    }

    /// A launcher has died. Its runs end here; what it still had to be told is void.
    pub(crate) fn launcher_died(&mut self, launcher: LauncherId, reason: String) {
        self.links.remove(launcher);
        // What it held and we have, too, goes to the next.
        for run in
            self.runs.values_mut().filter(|run| run.launcher == Some(launcher) && run.waiting.is_some())
        {
            run.launcher = None;
            run.is_held = false;
            run.is_sure = false;
        }
        let now = self.now();
        self.handle(Event::LauncherDown { now, launcher, reason });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(stage: SetupStage, subject: &str, of: Whose) -> String {
        let failure = SetupFailure { stage, errno: 1, subject: subject.into() };
        match shortened_outcome(Outcome::SetupFailed { failure }, of) {
            Outcome::SetupFailed { failure } => failure.subject.to_text(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn where_our_own_files_lie_no_client_is_told() {
        let group = "/sys/fs/cgroup/system.slice/stockade.service/run-7/memory.max";
        for of in [Whose::Command, Whose::Call, Whose::Review] {
            assert_eq!(told(SetupStage::Cgroup, group, of), "\u{2026}/memory.max");
            assert_eq!(told(SetupStage::Identity, "/run/stockade/uids", of), "\u{2026}/uids");
            assert_eq!(told(SetupStage::Template, "channel", of), "channel");
        }
        for (stage, subject) in [
            (SetupStage::Exec, "/usr/bin/python4:/bin/python4"),
            (SetupStage::Open, "/home/ada/project"),
            (SetupStage::Guard, "/home/ada/project/.git"),
        ] {
            assert_eq!(told(stage, subject, Whose::Command), subject, "what was asked for is named");
        }
    }

    #[test]
    fn where_the_program_of_a_tool_lies_its_caller_isnt_told_and_what_he_named_he_is() {
        let program = "/opt/secret-vendor/bin/thing";
        assert_eq!(told(SetupStage::Exec, program, Whose::Call), "\u{2026}/thing");
        assert_eq!(told(SetupStage::Cwd, "/opt/secret-vendor", Whose::Call), "\u{2026}/secret-vendor");
        assert_eq!(told(SetupStage::Exec, program, Whose::Command), program);
        assert_eq!(told(SetupStage::Open, "/home/ada/project", Whose::Call), "/home/ada/project");
        assert_eq!(told(SetupStage::Open, "/var/lib/stockade/reviews/1", Whose::Review), "\u{2026}/1");
    }
}
