//! `stockade attach`: follows a run as if it had been started here.

use std::path::PathBuf;

use crate::daemon::Session;
use crate::error::CliError;
use crate::follow::Follow;
use crate::{place, runs};

const EXAMPLES: &str = "Examples:
  id=$(stockade run --detach -- make -j4)
  stockade attach $id         its output from the first byte that is kept, its exit status, Ctrl-C reaches it

Exit status: the run's, as of `stockade run`; 1 if it could not be followed; 2 for a wrong command line.";

/// Follows a run to its end: its output, its exit status, and Ctrl-C reaches it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Its id, or a part of the beginning or end that only one run has
    #[arg(value_name = "RUN")]
    run: String,
    /// Events as JSON lines
    #[arg(long)]
    json: bool,
    /// Say what was enforced and used
    #[arg(short, long)]
    verbose: bool,
    /// The daemon's socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(crate) fn attach(arguments: &Arguments) -> Result<u8, CliError> {
    let mut client = place::need("attach", arguments.socket.as_deref())?;
    let exec_id = runs::find(&mut client, &arguments.run)?;
    let mut follow = Follow::new(arguments.json, arguments.verbose);
    Session::attach(client, exec_id, &mut follow)
}
