//! The launcher of one run without a daemon: where it is, what it says and what it's told.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use stockade_protocol::launch::{FromLauncher, LAUNCH_VERSION, Launch, ToLauncher};
use stockade_protocol::spec::SandboxSpec;
use stockade_supervisor::launcher::{self, Purpose};
use stockade_wire::channel::{Channel, ChannelError};
use stockade_worker::Embedded;

use crate::error::CliError;

/// The launcher of one run: within this process where that may be, else a copy of it, else a process started anew.
#[derive(Debug)]
pub(crate) enum Link {
    /// Within this process.
    Inside(Box<Embedded>),
    /// A process of its own, at the other end of this.
    Apart(Channel),
}

/// What a launcher says next.
#[derive(Debug)]
pub(crate) enum Heard {
    /// This.
    Said(FromLauncher),
    /// Nothing now.
    Nothing,
    /// Nothing ever: it is gone.
    Gone,
}

impl Link {
    /// Starts a launcher with its run; `passing` are the descriptors beside it.
    ///
    /// # Errors
    /// [`CliError::Embedded`]: there is none, or it can't be spoken with.
    pub(crate) fn start(
        launch: Launch,
        spec: Arc<SandboxSpec>,
        passing: Vec<OwnedFd>,
    ) -> Result<Self, CliError> {
        let failed = |error: std::io::Error| CliError::Embedded(error.into());
        if Embedded::may_launch(&spec) {
            return Embedded::start(launch, spec, passing)
                .map(|launcher| Self::Inside(Box::new(launcher)))
                .map_err(failed);
        }
        let passing: Vec<_> = passing.iter().map(AsFd::as_fd).collect();
        let channel = if stockade_worker::may_copy() {
            Channel::new(stockade_worker::copy_as_launcher(launch, spec, &passing).map_err(failed)?)
        } else {
            let (channel, _launcher) =
                launcher::start(Purpose::Embedded).map_err(|error| CliError::Embedded(error.into()))?;
            channel
                .send(&ToLauncher::Hello { version: LAUNCH_VERSION, keep: None, parked: 0 }, &[])
                .and_then(|()| channel.send(&ToLauncher::Spec { number: launch.spec, spec }, &[]))
                .and_then(|()| channel.send(&ToLauncher::Launch(Box::new(launch)), &passing))
                .map_err(|error| CliError::Embedded(error.into()))?;
            channel
        };
        rustix::io::ioctl_fionbio(&channel, true).map_err(|errno| failed(errno.into()))?;
        Ok(Self::Apart(channel))
    }

    /// When it wants to be turned though nothing has happened.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Inside(launcher) => launcher.deadline(),
            Self::Apart(_) => None,
        }
    }

    /// Lets it do what is to be done now.
    ///
    /// # Errors
    /// [`CliError::Io`].
    pub(crate) fn turn(&mut self) -> Result<(), CliError> {
        match self {
            Self::Inside(launcher) => launcher.turn().map_err(CliError::io("wait for the run")),
            Self::Apart(_) => Ok(()),
        }
    }

    /// Takes one thing that it has said.
    ///
    /// # Errors
    /// [`CliError::Launcher`]: it speaks another language, or there is no memory for what it says.
    pub(crate) fn hear(&mut self) -> Result<Heard, CliError> {
        match self {
            Self::Inside(launcher) => Ok(launcher.take().map_or(Heard::Nothing, Heard::Said)),
            Self::Apart(channel) => match channel.receive() {
                Ok(Some((message, _))) => Ok(Heard::Said(message)),
                Ok(None) => Ok(Heard::Gone),
                Err(error) if error.would_block() => Ok(Heard::Nothing),
                Err(error) => Err(CliError::Launcher(error)),
            },
        }
    }

    /// Takes its channel away, by which it ends, and with it the run.
    pub(crate) fn close(&self) {
        if let Self::Apart(channel) = self {
            // Of a channel that is gone it has ended already.
            let _ = rustix::net::shutdown(channel, rustix::net::Shutdown::Both);
        }
    }

    /// Says something to it.
    ///
    /// # Errors
    /// [`CliError::Launcher`]; not that it's gone, which its channel's end tells.
    pub(crate) fn tell(&mut self, message: ToLauncher) -> Result<(), CliError> {
        match self {
            Self::Inside(launcher) => launcher.tell(message),
            Self::Apart(channel) => match channel.send(&message, &[]) {
                // A launcher that died is told by its channel's end, with what became of the run.
                Err(ChannelError::Io(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
                other => other.map_err(CliError::Launcher)?,
            },
        }
        Ok(())
    }
}

impl AsFd for Link {
    /// Readable when it wants to be turned, or has said something.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Inside(launcher) => launcher.as_fd(),
            Self::Apart(channel) => channel.as_fd(),
        }
    }
}
