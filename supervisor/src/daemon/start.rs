//! The hand-over of a run to the launcher.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::pipe::PipeFlags;
use stockade_protocol::ExecId;
use stockade_protocol::launch::ToLauncher;
use stockade_protocol::outcome::{Outcome, SetupFailure, SetupStage};

use super::state::State;
use crate::aside::Foreign;
use crate::dispatcher::Event;
use crate::feed::{self, Feed};
use crate::link::When;
use crate::runs::{Input, Waiting};

impl State {
    /// Hands a run over. What can't be handed over ends as a set-up that failed.
    pub(super) fn start(&mut self, id: ExecId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        if core::mem::take(&mut run.is_held) {
            run.waiting = None;
            run.timing.hand();
            return self.tell_launcher(id, &ToLauncher::Start { exec_id: id });
        }
        let Some(waiting) = run.waiting.take() else { return };
        let feed = run.feed.clone();
        let Waiting { launch, spec, workspace, input, output, proof } = *waiting;
        run.launcher = self.links.current();
        let result = input_of(input, feed).and_then(|(stdin, tasks)| {
            // The launcher holds the pipe open: our own end is not that of the tool's input.
            let held = tasks.as_ref().map(|tasks| tasks.pipe.try_clone()).transpose()?;
            let proof = proof.map(|proof| proof.try_clone()).transpose()?;
            let given = |foreign: Vec<Foreign>| foreign.into_iter().filter_map(Foreign::give);
            let workspace = given(workspace.into_iter().collect());
            let descriptors = workspace.chain(stdin).chain(given(output)).chain(held).chain(proof).collect();
            self.links.hand(launch, spec, descriptors, When::Now).map_err(io::Error::other)?;
            run.timing.hand();
            Ok(tasks)
        });
        self.told_of_taken();
        match result {
            Ok(tasks) => self.feed_run(id, tasks),
            Err(error) => {
                if let Some(run) = self.runs.get(&id) {
                    tracing::error!(parent: run.span(), %error, "the run can't be handed to the launcher");
                }
                let errno = error.raw_os_error().unwrap_or(0);
                let subject = if errno == 0 { error.to_string() } else { "standard input's pipe".to_owned() };
                let failure = SetupFailure { stage: SetupStage::Check, errno, subject: subject.into() };
                let outcome = Outcome::SetupFailed { failure };
                self.handle(Event::Ended { now: self.now(), run: id, outcome, reaped: true });
            }
        }
    }

    /// Has a run held that has to wait. We keep it, too: a launcher may die.
    pub(super) fn hold(&mut self, id: ExecId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let Some(waiting) = &run.waiting else { return };
        let held = run.feed.is_none().then(|| copies(waiting)).transpose();
        let told = match held {
            Ok(Some(descriptors)) => {
                let (launch, spec) = (waiting.launch.clone(), Arc::clone(&waiting.spec));
                self.links.hand(launch, spec, descriptors, When::Told).map(Some).map_err(io::Error::other)
            }
            // Its input passes through us, and ends with us.
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        match told {
            Ok(Some(())) => {
                run.launcher = self.links.current();
                run.is_held = true;
            }
            Ok(None) => self.wait_here(id),
            Err(error) => {
                tracing::warn!(parent: run.span(), %error, "the run waits here only, and would end with us");
                self.wait_here(id);
            }
        }
        self.told_of_taken();
    }

    fn wait_here(&mut self, id: ExecId) {
        self.dispatcher.is_not_held(id);
        if let Some(run) = self.runs.get_mut(&id) {
            run.is_sure = true;
        }
        self.ring_followers(id);
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

    fn feed_run(&mut self, id: ExecId, tasks: Option<Tasks>) {
        let Some(Tasks { feed, pipe, source }) = tasks else { return };
        let (written, daemon) = (Rc::clone(&feed), self.daemon.clone());
        tokio::task::spawn_local(async move {
            let result = Rc::clone(&written).write_to(pipe).await;
            let Some(daemon) = daemon.upgrade() else { return };
            let mut state = daemon.state.borrow_mut();
            if let Err(error) = result {
                state.input_lost(id, &error);
            }
            let ended = ToLauncher::InputEnded { exec_id: id, bytes: written.written() };
            state.tell_launcher(id, &ended);
        });
        let Some(source) = source else { return };
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
    let passed = match &waiting.input {
        Input::Passed(descriptor) => Some(descriptor),
        _ => None,
    };
    let all = waiting.workspace.iter().chain(passed).chain(&waiting.output);
    let all = all.map(|foreign| foreign.get()?.try_clone());
    all.chain(waiting.proof.iter().map(|proof| proof.try_clone())).collect()
}

struct Tasks {
    feed: Rc<Feed>,
    pipe: OwnedFd,
    source: Option<feed::Source>,
}

/// The descriptor that becomes the tool's standard input, and what will fill it.
fn input_of(input: Input, feed: Option<Rc<Feed>>) -> io::Result<(Option<OwnedFd>, Option<Tasks>)> {
    let source = match input {
        Input::Null => return Ok((None, None)),
        Input::Passed(descriptor) => return Ok((descriptor.give(), None)),
        Input::Fed => None,
        Input::Relayed(source) => Some(source),
    };
    let Some(feed) = feed else { return Ok((None, None)) };
    let (reader, pipe) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    // Ours alone: the tool's end must block as a pipe does.
    let flags = rustix::fs::fcntl_getfl(&pipe)?;
    rustix::fs::fcntl_setfl(&pipe, flags | OFlags::NONBLOCK)?;
    Ok((Some(reader), Some(Tasks { feed, pipe, source })))
}
