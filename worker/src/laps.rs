//! How long the stages of a worker's making take: a look at the clock after each (the kernel's page, no system call), told along
//! with what a parked worker says anyway. A worker that is made with its command (embedded) looks at none: nobody would hear.

use std::time::{Duration, Instant};

/// A stage that a worker goes through by itself, in the order of [`stockade_protocol::launch::MAKING`], of which the first is
/// its template's and the last its launcher's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lap {
    /// What its namespaces need before anything else.
    Namespaces,
    /// The binds' sources were opened as the owner.
    Open,
    /// The root was built, and is stood in.
    Mount,
    /// Network, host name and `/proc` are its own.
    Network,
    /// User namespace and ids.
    Identity,
    /// Limits and priorities.
    Rlimits,
    /// No capability is left.
    Capabilities,
    /// The base filters are on.
    Seccomp,
    /// The Landlock ruleset was built.
    Landlock,
}

/// How many there are.
pub(crate) const LAPS: usize = Lap::Landlock as usize + 1;

/// A worker's own stages so far.
#[derive(Debug)]
pub(crate) struct Laps {
    last: Option<Instant>,
    took_ns: [u32; LAPS],
}

impl Laps {
    /// Begins now, or measures nothing.
    pub(crate) fn begin(measured: bool) -> Self {
        Self { last: measured.then(Instant::now), took_ns: [0; LAPS] }
    }

    /// What was done since the last one was this stage.
    pub(crate) fn end(&mut self, lap: Lap) {
        if let Some(last) = &mut self.last {
            let now = Instant::now();
            let total = &mut self.took_ns[lap as usize];
            *total = total.saturating_add(nanoseconds(now.saturating_duration_since(*last)));
            *last = now;
        }
    }

    /// What each took, in nanoseconds, if that was measured.
    pub(crate) fn took_ns(&self) -> Option<[u32; LAPS]> {
        self.last.map(|_| self.took_ns)
    }
}

/// As the wire has them: up to four seconds.
pub(crate) fn nanoseconds(took: Duration) -> u32 {
    u32::try_from(took.as_nanos()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use stockade_protocol::launch::MAKING;

    use super::*;

    #[test]
    fn a_worker_tells_of_every_stage_of_the_wires_but_its_template_and_its_launchers() {
        assert_eq!(MAKING.len(), LAPS + 2);
        let mut laps = Laps::begin(true);
        laps.end(Lap::Open);
        laps.end(Lap::Open);
        let took = laps.took_ns().unwrap();
        assert!(took[Lap::Open as usize] > 0);
        assert_eq!(took.iter().filter(|took| **took > 0).count(), 1);
    }

    #[test]
    fn what_is_not_measured_says_nothing() {
        let mut laps = Laps::begin(false);
        laps.end(Lap::Open);
        assert_eq!(laps.took_ns(), None);
    }
}
