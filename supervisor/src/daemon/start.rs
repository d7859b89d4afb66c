//! The hand-over of a run to the launcher.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use stockade_protocol::ExecId;
use stockade_protocol::launch::ToLauncher;
use stockade_protocol::outcome::{CancelReason, Outcome, SetupFailure, SetupStage};

use super::state::State;
use crate::aside::Foreign;
use crate::dispatcher::Event;
use crate::feed::{self, Source};
use crate::link::When;
use crate::runs::{Input, Pipe, Waiting};

impl State {
    /// Hands a run over. What can't be handed over ends as a set-up that failed; what waited for longer than its grant lasts isn't
    /// begun at all.
    pub(super) fn start(&mut self, id: ExecId) {
        if self.runs.get(&id).is_some_and(|run| self.has_lost_its_grant(run)) {
            return self.end_before_it_begins(id);
        }
        let Some(run) = self.runs.get_mut(&id) else { return };
        if core::mem::take(&mut run.is_held) {
            // What waited here is the launcher's.
            let source = run.waiting.take().and_then(|waiting| waiting.input.source());
            run.timing.hand();
            self.tell_launcher(id, &ToLauncher::Start { exec_id: id });
            return self.read_input(id, source);
        }
        if let Some(failure) = run.waiting.as_mut().and_then(|waiting| waiting.unopened.take()) {
            return self.fail(id, failure);
        }
        let result = self.pipe_input(id).and_then(|()| self.hand_over(id));
        self.told_of_taken();
        match result {
            Ok(source) => self.read_input(id, source),
            Err(error) => {
                if let Some(run) = self.runs.get(&id) {
                    tracing::error!(parent: run.span(), %error, "the run can't be handed to the launcher");
                }
                let errno = error.raw_os_error().unwrap_or(0);
                let subject = if errno == 0 { error.to_string() } else { "standard input's pipe".to_owned() };
                self.fail(id, SetupFailure { stage: SetupStage::Check, errno, subject: subject.into() });
            }
        }
    }

    /// Ends a run that no launcher has.
    fn fail(&mut self, id: ExecId, failure: SetupFailure) {
        let outcome = Outcome::SetupFailed { failure };
        self.handle(Event::Ended { now: self.now(), run: id, outcome, reaped: true });
    }

    fn end_before_it_begins(&mut self, id: ExecId) {
        let Some(run) = self.runs.get(&id) else { return };
        tracing::info!(parent: run.span(), "its grant is over, and so it isn't begun");
        let (now, reason) = (self.now(), CancelReason::GrantOver);
        if run.is_held {
            self.tell_launcher(id, &ToLauncher::Cancel { exec_id: id, reason: reason.clone() });
        }
        let outcome = Outcome::Cancelled { reason };
        self.handle(Event::Ended { now, run: id, outcome, reaped: true });
    }

    /// Gives what its input is to be read from.
    fn hand_over(&mut self, id: ExecId) -> io::Result<Option<Source>> {
        let Some(run) = self.runs.get_mut(&id) else { return Ok(None) };
        let Some(waiting) = run.waiting.take() else { return Ok(None) };
        let Waiting { launch, spec, workspace, input, output, pipe, proof, .. } = *waiting;
        run.launcher = self.links.current();
        let proof = proof.map(|proof| proof.try_clone()).transpose()?;
        let (reader, writer) = pipe.map(|pipe| (pipe.reader, pipe.writer)).unzip();
        let (passed, source) = match input {
            Input::Passed(descriptor) => (descriptor.give(), None),
            other => (reader, other.source()),
        };
        let workspace = workspace.and_then(Foreign::give).into_iter();
        let output = output.into_iter().filter_map(Foreign::give);
        // The launcher holds the pipe open: our own end is not that of the tool's input.
        let descriptors = workspace.chain(passed).chain(output).chain(writer).chain(proof).collect();
        self.links.hand(launch, spec, descriptors, When::Now).map_err(io::Error::other)?;
        run.timing.hand();
        self.tell_of_input(id);
        Ok(source)
    }

    /// Has a run held that has to wait. We keep it, too: a launcher may die.
    pub(super) fn hold(&mut self, id: ExecId) {
        let waiting = self.runs.get(&id).and_then(|run| run.waiting.as_ref());
        if waiting.is_some_and(|waiting| waiting.unopened.is_some()) {
            // No launcher will have it.
            return self.dispatcher.is_not_held(id);
        }
        let held = self.has_room_to_hold().and_then(|()| self.pipe_input(id)).and_then(|()| {
            let Some(waiting) = self.runs.get(&id).and_then(|run| run.waiting.as_ref()) else {
                return Ok(());
            };
            let (launch, spec) = (waiting.launch.clone(), Arc::clone(&waiting.spec));
            self.links.hand(launch, spec, copies(waiting)?, When::Told).map_err(io::Error::other)?;
            let Some(run) = self.runs.get_mut(&id) else { return Ok(()) };
            run.launcher = self.links.current();
            run.is_held = true;
            Ok(())
        });
        match held {
            Ok(()) => self.tell_of_input(id),
            Err(error) => {
                // It would end with us, so its client isn't told of it before it starts.
                if let Some(run) = self.runs.get(&id) {
                    tracing::warn!(parent: run.span(), %error, "the run waits here only");
                }
                self.dispatcher.is_not_held(id);
            }
        }
        self.told_of_taken();
    }

    /// Whether a run that waits may take more descriptors than it came with.
    fn has_room_to_hold(&self) -> io::Result<()> {
        let next = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 0)?;
        if self.is_too_full_for(next) { Err(Errno::MFILE.into()) } else { Ok(()) }
    }

    /// Launchers' channels may have taken runs: whatever becomes of us they happen, so their clients may be told.
    pub(crate) fn told_of_taken(&mut self) {
        for id in self.links.take_taken() {
            if let Some(run) = self.runs.get_mut(&id) {
                run.is_sure = true;
                self.ring_followers(id);
            }
        }
    }

    /// Makes the pipe that becomes the tool's standard input, if that passes through us, and begins to fill it with what a
    /// client sends: what is in there before the tool is started doesn't need us any more.
    fn pipe_input(&mut self, id: ExecId) -> io::Result<()> {
        let Some(run) = self.runs.get_mut(&id) else { return Ok(()) };
        let Some((feed, waiting)) = run.feed.as_ref().zip(run.waiting.as_mut()) else { return Ok(()) };
        if waiting.pipe.is_some() {
            return Ok(());
        }
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        // Ours alone: the tool's end must block as a pipe does.
        let flags = rustix::fs::fcntl_getfl(&writer)?;
        rustix::fs::fcntl_setfl(&writer, flags | OFlags::NONBLOCK)?;
        let (feed, filled, daemon) = (Rc::clone(feed), writer.try_clone()?, self.daemon.clone());
        waiting.pipe = Some(Pipe { reader, writer });
        tokio::task::spawn_local(async move {
            let result = feed.write_to(filled).await;
            let Some(daemon) = daemon.upgrade() else { return };
            let mut state = daemon.state.borrow_mut();
            if let Err(error) = result {
                state.input_lost(id, &error);
            }
            state.tell_of_input(id);
        });
        Ok(())
    }

    /// Tells a run's launcher, if it has one, that all of its input is in the pipe, if it is.
    fn tell_of_input(&mut self, id: ExecId) {
        let feed = self.runs.get(&id).and_then(|run| run.feed.as_ref()).filter(|feed| feed.is_over());
        if let Some(bytes) = feed.map(|feed| feed.written()) {
            self.tell_launcher(id, &ToLauncher::InputEnded { exec_id: id, bytes });
        }
    }

    /// Begins to read what a run's input is read from: not before it's started, for what is read is gone from there.
    fn read_input(&mut self, id: ExecId, source: Option<Source>) {
        let feed = self.runs.get(&id).and_then(|run| run.feed.clone());
        let Some((source, feed)) = source.zip(feed) else { return };
        // Closing the feed ends the task, so it outlives no run.
        let daemon = self.daemon.clone();
        tokio::task::spawn_local(feed::relay(source, feed, move |over| {
            if let Some(daemon) = daemon.upgrade() {
                daemon.state.borrow_mut().input_exceeded(id, over.0);
            }
        }));
    }
}

/// What a launch needs beside it, once more.
fn copies(waiting: &Waiting) -> io::Result<Vec<OwnedFd>> {
    let copy = |foreign: &Foreign| foreign.get()?.try_clone();
    let passed = match &waiting.input {
        Input::Passed(descriptor) => Some(copy(descriptor)),
        _ => waiting.pipe.as_ref().map(|pipe| pipe.reader.try_clone()),
    };
    let writer = waiting.pipe.as_ref().map(|pipe| pipe.writer.try_clone());
    let output = waiting.output.iter().map(copy);
    let proof = waiting.proof.iter().map(|proof| proof.try_clone());
    waiting.workspace.iter().map(copy).chain(passed).chain(output).chain(writer).chain(proof).collect()
}
