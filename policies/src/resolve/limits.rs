//! The limits of a request: the policy's, or tighter.

use stockade_protocol::client::Overrides;
use stockade_protocol::spec::Limits;

use super::error::ResolveError;
use crate::amount::{Size, Time};
use crate::policy::Policy;

pub(super) fn limits(policy: &Policy, overrides: &Overrides) -> Result<Limits, ResolveError> {
    let own = &policy.limits;
    let milliseconds = |time: Option<Time>| time.map(Time::milliseconds);
    let bytes = |size: Option<Size>| size.map(Size::bytes);
    let tighter = Tighter { policy: &policy.name };
    let processes = tighter.limit("processes", Some(own.processes), overrides.processes, "")?;
    Ok(Limits {
        wall_ms: tighter.limit("wall-time", milliseconds(own.wall_time.limit()), overrides.wall_ms, "ms")?,
        cpu_ms: tighter.limit("cpu-time", milliseconds(own.cpu_time.limit()), overrides.cpu_ms, "ms")?,
        idle_ms: tighter.limit("idle-time", milliseconds(own.idle_time.limit()), overrides.idle_ms, "ms")?,
        memory: tighter.limit("memory", bytes(own.memory.limit()), overrides.memory, "B")?,
        processes: processes.unwrap_or(own.processes),
        open_files: own.open_files,
        file_size: bytes(own.file_size.limit()),
        output: tighter.limit("output", bytes(own.output.limit()), overrides.output, "B")?,
        stdin: bytes(own.stdin.limit()),
        core: own.core.bytes(),
        stack: own.stack.bytes(),
        address_space: bytes(own.address_space.limit()),
        nice: own.nice,
        io_priority: own.io_priority,
    })
}

struct Tighter<'a> {
    policy: &'a str,
}

impl Tighter<'_> {
    /// What is asked for if it is no wider than the policy's; the policy's if nothing is.
    fn limit(
        &self,
        limit: &'static str,
        own: Option<u64>,
        asked: Option<u64>,
        unit: &str,
    ) -> Result<Option<u64>, ResolveError> {
        match (own, asked) {
            (own, None) => Ok(own),
            (_, Some(0)) => Err(ResolveError::Zero { limit }),
            (Some(own), Some(asked)) if asked > own => Err(ResolveError::Widens {
                limit,
                asked: format!("{asked}{unit}"),
                allowed: format!("{own}{unit}"),
                policy: self.policy.to_owned(),
            }),
            (_, asked) => Ok(asked),
        }
    }
}
