//! Doors for the fuzzer to what the processes of this crate say to each other, and to what the launcher permits: compiled
//! with the feature `fuzzing` only, which the crate `fuzz` turns on and nothing that is shipped. Nothing behaves otherwise
//! with it.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use stockade_protocol::codec::{CodecError, decode_launch, encode_launch};
use stockade_protocol::confinement::Plan;
use stockade_protocol::launch::Launch;
use stockade_protocol::outcome::SetupFailure;
use stockade_protocol::spec::SandboxSpec;

use crate::launcher::check;
use crate::messages::{FromWorker, Sweep, ToTemplate, ToWorker};
use crate::monitor::read::{Memory, Share, Stat, parse_rollup, parse_stat, parse_status};
use crate::monitor::{MonitorCommand, MonitorReport};
use crate::relay::{RelayCommand, RelayReport};

/// Decodes a message, and encodes it again.
pub type Again = fn(&[u8]) -> Result<Vec<u8>, CodecError>;

/// What crosses the channels below the launcher, in both directions.
pub const MESSAGES: [(&str, Again); 8] = [
    ("ToTemplate", again::<ToTemplate>),
    ("ToWorker", again::<ToWorker<'static>>),
    ("FromWorker", again::<FromWorker>),
    ("Sweep", again::<Sweep>),
    ("RelayCommand", again::<RelayCommand>),
    ("RelayReport", again::<RelayReport>),
    ("MonitorCommand", again::<MonitorCommand>),
    ("MonitorReport", again::<MonitorReport>),
];

fn again<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
    encode_launch(&decode_launch::<T>(bytes)?)
}

/// Whether a launcher whose workers are made by `plan` permits runs to be confined to this, and this launch within it.
///
/// # Errors
/// What it refuses.
pub fn permitted(spec: Arc<SandboxSpec>, launch: Option<&Launch>, plan: Plan) -> Result<(), SetupFailure> {
    let within = check::permit(spec, plan)?;
    launch.map_or(Ok(()), |launch| check::permit_launch(launch, &within, false))
}

/// What the monitor reads of a process's `stat`, `status` and `smaps_rollup`: a process chooses its name in them.
#[must_use]
pub fn process(text: &[u8]) -> (Option<Stat>, Option<Memory>, Option<Share>) {
    (parse_stat(text), parse_status(text), parse_rollup(text))
}
