//! A run of the doctor's: embedded, its output kept, whatever becomes of it told and not judged.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use stockade_client::Request;
use stockade_policies::PolicySet;
use stockade_protocol::client::Stream;
use stockade_protocol::confinement::Confinement;
use stockade_protocol::denied::Denied;
use stockade_protocol::launch::{FromLauncher, Opening};
use stockade_protocol::outcome::Outcome;
use stockade_supervisor::redaction::Redacting;

use crate::embedded;
use crate::error::CliError;
use crate::hiding::{self, Hiding};
use crate::link::{Heard, Link};
use crate::wait::wait;

/// The most output that is kept.
const MOST: usize = 64 * 1024;
/// How long a trial may take: far more than any needs.
const PATIENCE: Duration = Duration::from_secs(30);

/// What became of a trial.
#[derive(Debug)]
pub(crate) enum Trial {
    /// It was refused.
    Denied(Denied),
    /// It ended.
    Ended {
        /// How.
        outcome: Outcome,
        /// What held, if it began.
        confinement: Option<Box<Confinement>>,
        /// Standard output.
        output: Vec<u8>,
    },
}

impl Trial {
    /// With the secrets in its output named and not shown.
    fn hidden(self, redacting: &Redacting) -> Self {
        let Self::Ended { outcome, confinement, output } = self else { return self };
        let mut hiding = Hiding::new(redacting);
        let mut shown = hiding.feed(Stream::Stdout, &output);
        shown.extend(hiding.finish(Stream::Stdout));
        Self::Ended { outcome, confinement, output: shown }
    }
}

/// Tries a request, that finds these files open. Its output mode must be events, its input none.
///
/// # Errors
/// Where there is no launcher, or no word from it.
pub(crate) fn attempt(
    policies: &PolicySet,
    request: Request,
    openings: &[Opening],
) -> Result<Trial, CliError> {
    let (exec, descriptors) = request.into_parts();
    let by_default = hiding::by_default(policies, &exec.policy)?;
    let more = embedded::More { by_default, openings };
    match embedded::admit_and_start(policies, exec, descriptors, &[], more)? {
        // The launcher leaves when its channel closes.
        Ok((mut link, mut plan)) => {
            let trial = follow(&mut link, &mut plan.pipes)?;
            Ok(match plan.redacting {
                Some(redacting) => trial.hidden(&redacting),
                None => trial,
            })
        }
        Err(denied) => Ok(Trial::Denied(denied)),
    }
}

fn follow(link: &mut Link, pipes: &mut [Option<OwnedFd>; 2]) -> Result<Trial, CliError> {
    let by = Instant::now() + PATIENCE;
    let (mut confinement, mut end, mut output) = (None, None, Vec::new());
    loop {
        if pipes.iter().all(Option::is_none)
            && let Some(outcome) = end.take()
        {
            return Ok(Trial::Ended { outcome, confinement, output });
        }
        if Instant::now() >= by {
            let reason = "no end within the doctor's patience".to_owned();
            return Ok(Trial::Ended { outcome: Outcome::Lost { reason }, confinement, output });
        }
        let pipe = |at: usize| pipes[at].as_ref().map(|pipe| (pipe.as_fd(), PollFlags::IN));
        let launcher = end.is_none().then(|| (link.as_fd(), PollFlags::IN));
        let until = link.deadline().map_or(by, |at| at.min(by));
        let [_, out, err] =
            wait([launcher, pipe(0), pipe(1)], Some(until)).map_err(CliError::io("wait for the launcher"))?;
        for (at, ready) in [out, err].into_iter().enumerate() {
            let mut buffer = [0; 4096];
            let Some(pipe) = pipes[at].as_ref().filter(|_| ready) else { continue };
            match rustix::io::read(pipe, &mut buffer) {
                Ok(0) | Err(_) => pipes[at] = None,
                Ok(length) if at == 0 && output.len() < MOST => output.extend_from_slice(&buffer[..length]),
                Ok(_) => {}
            }
        }
        link.turn()?;
        while end.is_none() {
            match link.hear()? {
                Heard::Said(FromLauncher::Started { confinement: held, .. }) => confinement = Some(held),
                Heard::Said(FromLauncher::Ended { outcome, .. }) => end = Some(outcome),
                Heard::Said(_) => {}
                Heard::Gone => end = Some(Outcome::Lost { reason: "the launcher died".into() }),
                Heard::Nothing => break,
            }
        }
    }
}
