//! Configuration and policies read again, all or nothing: if anything of either is bad, the old of both stay.
//!
//! A run that has been accepted keeps what it was accepted with; only what comes later meets the new. What a daemon can't
//! change while it runs stays as it is, and the log says that it takes a restart.

use std::path::PathBuf;
use std::rc::Rc;

use stockade_policies::{PolicyError, PolicySet, Trust};
use stockade_protocol::bounds::{MAX_RELOAD_LINE, MAX_RELOAD_LINES};
use stockade_protocol::client::ReloadReport;
use tokio::task::{JoinError, spawn_blocking};

use crate::admission::chain;
use crate::config::{Configured, LogLevel, Mistakes, Sources, When};
use crate::daemon::Daemon;
use crate::gate::{Faults, Files};
use crate::limits::Limits;
use crate::policies;
use crate::redaction;

/// Sets what is logged.
pub type SetLevel = Box<dyn Fn(LogLevel)>;

/// What is read again, and what holds until then.
pub(crate) struct Reload {
    pub(crate) running: Configured,
    pub(crate) sources: Sources,
    /// Policy directories, beside those that the configuration names.
    pub(crate) usual: Vec<(PathBuf, Trust)>,
    pub(crate) set_level: Option<SetLevel>,
}

/// Why everything stays as it is.
#[derive(Debug, thiserror::Error)]
enum Bad {
    #[error("the configuration is bad")]
    Configuration(#[source] Mistakes),
    #[error("the policies are bad")]
    Policies(#[source] PolicyError),
    #[error("the gate's files are bad")]
    Gate(#[source] Faults),
    #[error(
        "the files of access are gone: rules that hold aren't given up by a reload; restart the daemon if they should be"
    )]
    NoRules,
    #[error(
        "nothing in {0} has anybody asked first any more: that isn't given up by a reload; restart the daemon if it should be"
    )]
    NoApproval(PathBuf),
    #[error("what reads them has broken")]
    Thread(#[source] JoinError),
}

impl Bad {
    /// What is wrong, for who has asked: all that is known of it, bounded.
    fn report(&self) -> ReloadReport {
        let mut wrong: Vec<String> = match self {
            Self::Configuration(Mistakes(all)) => all.iter().map(|error| chain(error)).collect(),
            Self::Gate(Faults(all)) => all.iter().map(|fault| chain(fault)).collect(),
            other => vec![chain(other)],
        };
        let left_out = wrong.len().saturating_sub(MAX_RELOAD_LINES);
        wrong.truncate(MAX_RELOAD_LINES);
        for line in wrong.iter_mut().filter(|line| line.len() > MAX_RELOAD_LINE) {
            line.truncate(line.floor_char_boundary(MAX_RELOAD_LINE));
        }
        ReloadReport {
            wrong,
            left_out: u32::try_from(left_out).unwrap_or(u32::MAX),
            ..ReloadReport::default()
        }
    }
}

/// What was read, all of it in order.
struct Read {
    configured: Configured,
    policies: PolicySet,
    gate: Files,
}

impl Reload {
    /// A reload, from its beginning to its end: what is to be told when one begins, and when it has ended, stands here.
    pub(crate) async fn again(&mut self, daemon: &Rc<Daemon>) -> ReloadReport {
        // A thousand files take a while, and the loop is everybody's.
        let (sources, usual) = (self.sources.clone(), self.usual.clone());
        let read = match spawn_blocking(move || read(&sources, &usual)).await {
            Ok(read) => read,
            Err(gone) => Err(Bad::Thread(gone)),
        };
        // A directory that is being swapped, or isn't mounted just now, would open everything.
        let read = read.and_then(|read| {
            let gate = &daemon.state.borrow().gate;
            match gate.asks_no_more(&read.gate) {
                _ if gate.has_rules() && read.gate.rules.is_empty() => Err(Bad::NoRules),
                Some(directory) => Err(Bad::NoApproval(directory)),
                None => Ok(read),
            }
        });
        match read {
            Ok(read) => self.take(daemon, read),
            Err(bad) => {
                tracing::error!(
                    reason = chain(&bad),
                    "nothing is reloaded: the old configuration and policies stay"
                );
                daemon.state.borrow().figures.reloaded(false);
                bad.report()
            }
        }
    }

    fn take(&mut self, daemon: &Rc<Daemon>, read: Read) -> ReloadReport {
        let Read { mut configured, policies, gate } = read;
        let mut report = ReloadReport::default();
        for change in self.running.changes(&configured) {
            let (key, old, new) = (change.key.path, change.old.as_str(), change.new.as_str());
            if change.key.when == When::Restart {
                tracing::warn!(key, old, new, "takes a restart: the old value stays until then");
                configured.copy(change.key, &self.running);
                report.takes_restart.push(key.to_owned());
            } else {
                tracing::info!(key, old, new, "changed");
            }
        }
        let mut state = daemon.state.borrow_mut();
        let (before, after) = (state.specs.policies().names().len(), policies.names().len());
        tracing::info!(before, after, names = ?policies.names(), "policies reloaded");
        state.specs.replace(policies);
        let tools = gate.tools.tools().len();
        tracing::info!(count = tools, "tools reloaded");
        report.policies = u32::try_from(after).unwrap_or(u32::MAX);
        report.tools = u32::try_from(tools).unwrap_or(u32::MAX);
        state.gate.take_up(gate);
        state.figures.reloaded(true);
        state.set_limits(Limits::of(&configured.values, self.sources.scope));
        let level = configured.values.log.level;
        if let Some(set_level) = self.set_level.as_ref().filter(|_| level != self.running.values.log.level) {
            set_level(level);
        }
        self.running = configured;
        report
    }
}

fn read(sources: &Sources, usual: &[(PathBuf, Trust)]) -> Result<Read, Bad> {
    let configured = sources.load().map_err(Bad::Configuration)?;
    let Sources { uid, scope, .. } = *sources;
    let gate =
        Files::load(sources.directory.as_deref(), scope, uid, &configured.values.tools).map_err(Bad::Gate)?;
    let directories = policies::directories(usual, &configured.values, scope);
    let policies = policies::load(&directories, uid).map_err(Bad::Policies)?;
    redaction::prepare(&policies);
    Ok(Read { configured, policies, gate })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_cut_between_characters() {
        let report = Bad::NoApproval("ä".repeat(MAX_RELOAD_LINE).into()).report();
        let [line] = report.wrong.as_slice() else { panic!("{report:?}") };
        assert!((MAX_RELOAD_LINE - 1..=MAX_RELOAD_LINE).contains(&line.len()), "{}", line.len());
    }
}
