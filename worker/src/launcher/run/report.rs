//! How a run ended, and what it used: the one outcome, from what was decided, told and seen.

use std::time::Duration;

use stockade_protocol::ExecId;
use stockade_protocol::launch::FromLauncher;
use stockade_protocol::outcome::{Clock, MemoryMechanism, Outcome, SetupFailure, Usage};

use super::Run;
use crate::cgroup::Counters;

/// The message that a run never began.
pub(crate) fn failed_to_begin(exec_id: ExecId, failure: SetupFailure) -> FromLauncher {
    never_begun(exec_id, Outcome::SetupFailed { failure })
}

/// The end of a run of which nothing was ever made.
pub(crate) fn never_begun(exec_id: ExecId, outcome: Outcome) -> FromLauncher {
    FromLauncher::Ended { exec_id, outcome, usage: Usage::default(), trusted_files: Vec::new(), reaped: true }
}

impl Run {
    /// The message of the run's end; `None` if it was sent before.
    pub(crate) fn end(&mut self, reaped: bool) -> Option<FromLauncher> {
        if core::mem::replace(&mut self.told, true) || self.is_spare() {
            return None;
        }
        self.unreaped = !reaped;
        self.counters = self.cgroup.as_ref().and_then(|group| group.counters().ok());
        let trusted_files =
            self.ended.as_mut().map(|e| core::mem::take(&mut e.trusted_files)).unwrap_or_default();
        let (exec_id, outcome, usage) = (self.exec_id, self.outcome(), self.usage());
        Some(FromLauncher::Ended { exec_id, outcome, usage, trusted_files, reaped })
    }

    fn outcome(&self) -> Outcome {
        if let Some(outcome) = &self.ends.verdict {
            return outcome.clone();
        }
        if let Some(ended) = &self.ended {
            // Without a pid namespace our kill reaches the tool before its init, which may still tell of it.
            return match &self.verdict {
                Some(verdict) if is_kill(ended.status) => verdict.clone(),
                _ => from_status(ended.status),
            };
        }
        if let Some(verdict) = &self.verdict {
            return verdict.clone();
        }
        if let Some(outcome) = self.killed_for_memory() {
            return outcome;
        }
        // We were stopped, perhaps before we heard that the tool runs, and its init kept the clock.
        if let (Some((status, _)), Some(limit_ms)) = (&self.init_end, self.limits.wall_ms)
            && libc::WIFEXITED(*status)
            && self.started.is_some()
            && self.begun.elapsed() >= Duration::from_millis(limit_ms)
        {
            return Outcome::TimedOut { clock: Clock::Wall, limit_ms };
        }
        let reason = match self.init_end {
            Some((status, _)) if libc::WIFSIGNALED(status) => {
                format!("its init was killed by signal {} from outside", libc::WTERMSIG(status))
            }
            _ if self.started.is_none() => "its template or init ended before the tool began".to_owned(),
            _ => "its init ended without a word".to_owned(),
        };
        Outcome::Lost { reason }
    }

    /// `memory.oom.group` takes init with the rest, so this is how such an end looks.
    pub(super) fn killed_for_memory(&self) -> Option<Outcome> {
        let limit = self.limits.memory?;
        let events = self.cgroup.as_ref()?.events().ok()?;
        let seen = self.counters.map_or(limit, |counters| counters.memory_peak);
        (events.oom_kill > 0).then_some(Outcome::MemoryExceeded { limit, seen })
    }

    fn usage(&self) -> Usage {
        let used = self.ended.as_ref().map(|ended| ended.used).or(self.init_end.map(|(_, used)| used));
        let used = used.unwrap_or_default();
        // An init that told its tool's end told it exactly; else what was seen from here.
        let told = self.ended.as_ref().map(|ended| Duration::from_micros(ended.wall_us));
        let seen = || match (self.started, self.ended_at) {
            (Some(from), Some(to)) => to.saturating_duration_since(from),
            (Some(from), None) => from.elapsed(),
            _ => Duration::ZERO,
        };
        let wall = told.unwrap_or_else(seen);
        let (memory, processes) = self.sampled;
        let mechanism = match (&self.counters, memory > used.largest) {
            (Some(_), _) => MemoryMechanism::Cgroup,
            (None, true) => MemoryMechanism::Monitor,
            (None, false) => MemoryMechanism::Rusage,
        };
        let counted = self.counters.unwrap_or(Counters {
            memory_peak: memory.max(used.largest),
            processes_peak: processes,
            user_us: used.user_us,
            system_us: used.system_us,
            ..Counters::default()
        });
        Usage {
            wall_us: u64::try_from(wall.as_micros()).unwrap_or(u64::MAX),
            user_us: counted.user_us,
            system_us: counted.system_us,
            memory_peak: counted.memory_peak,
            memory_mechanism: mechanism,
            bytes_in: 0,
            bytes_out: 0,
            processes_peak: counted.processes_peak.max(u64::from(self.started.is_some())),
            context_switches_voluntary: used.voluntary,
            context_switches_involuntary: used.involuntary,
            stalled: counted.stalled,
        }
    }
}

/// The outcome of a run whose output is lost.
pub(crate) fn output_lost(errno: i32) -> Outcome {
    Outcome::Lost { reason: format!("its output could not be relayed (errno {errno})") }
}

fn is_kill(status: i32) -> bool {
    libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL
}

fn from_status(status: i32) -> Outcome {
    if libc::WIFSIGNALED(status) {
        let signal = u8::try_from(libc::WTERMSIG(status)).unwrap_or(0);
        return Outcome::Signaled { signal, core_dumped: libc::WCOREDUMP(status) };
    }
    Outcome::Exited { code: u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX) }
}
