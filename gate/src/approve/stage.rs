//! The stage.

use core::fmt::Write as _;
use core::time::Duration;
use std::sync::Arc;

use super::file::{FILE, Filed};
use super::history::{History, Key, key};
use super::rule::{Is, Seen};
use crate::asked::{Action, Asked, Given, Moment};
use crate::refusal::{Reason, Refusal};
use crate::row::{Ending, Stage, StageName};
use crate::verdict::{Ask, Factor, Verdict};

/// The most bytes of factors in a refusal's message.
const MAX_SAID: usize = 512;

/// Risk: a [`Stage`] that runs and calls go through.
#[derive(Debug, Clone, Default)]
pub struct Risk {
    files: Vec<Arc<Filed>>,
    history: History,
}

impl Risk {
    /// Has these hold. What is known of users stays.
    pub fn set(&mut self, files: Vec<Arc<Filed>>) {
        self.files = files;
    }

    /// Whether there is any rule.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.files.iter().any(|filed| !filed.rules.is_empty())
    }

    /// Something of a user's was refused, by another stage or by who was asked.
    pub fn refused(&mut self, uid: u32, now: Duration) {
        if self.is_on() {
            self.history.refused(uid, now);
        }
    }

    /// What rules say. Nothing is learned from it: for who would only know.
    ///
    /// # Errors
    /// The refusal.
    pub fn weigh(&self, asked: &Asked<'_>) -> Result<Verdict, Refusal> {
        if !matches!(asked.action, Action::Run | Action::Call) {
            return Ok(Verdict::Pass);
        }
        let seen = Seen::new(asked, &self.history, key_of(asked));
        let mut verdict = Verdict::Pass;
        for filed in &self.files {
            let Some(thresholds) = filed.thresholds else { continue };
            let ask = ask(filed, &seen);
            if thresholds.refuse.is_some_and(|refuse| ask.score >= refuse) {
                return Err(refusal(&ask));
            }
            if ask.score >= thresholds.ask {
                verdict = verdict.and(Verdict::Ask(ask));
            }
        }
        Ok(verdict)
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        self.history.sizes()
    }
}

/// By what it's known whether the same has run before.
fn key_of(asked: &Asked<'_>) -> Option<Key> {
    let policy = asked.policy.unwrap_or_default();
    match (asked.tool, asked.given) {
        (Some(tool), _) => Some(key(0, policy, tool.as_bytes())),
        (None, Given::Command(words)) => Some(key(1, policy, words.first()?)),
        _ => None,
    }
}

fn ask(filed: &Filed, seen: &Seen<'_>) -> Ask {
    let mut ask = Ask::default();
    for rule in &filed.rules {
        let reason = match rule.holds(seen) {
            Is::NotSo => continue,
            Is::So => rule.reason.clone(),
            Is::Unknown => format!("{} (it can't be told, and counts)", rule.reason),
        };
        ask.score = ask.score.saturating_add(rule.score);
        ask.because.push(Factor { name: rule.name.clone(), score: Some(rule.score), reason });
    }
    ask
}

/// Factors in one sentence, shortened.
#[must_use]
pub(super) fn said(because: &[Factor]) -> String {
    let mut text = String::new();
    for (at, factor) in because.iter().enumerate() {
        let before = if at == 0 { "" } else { "; " };
        let one = format!("{before}{factor}");
        if text.len() + one.len() > MAX_SAID && at > 0 {
            let _infallible = write!(text, "; and {} more", because.len() - at);
            break;
        }
        text.push_str(&one);
    }
    text
}

fn refusal(ask: &Ask) -> Refusal {
    let text =
        format!("the risk of it is too high for anybody to approve ({}): {}", ask.score, said(&ask.because));
    Refusal::new(StageName::Approve, Reason::NotApproved, format!("{FILE}: thresholds.refuse"), text)
        .remedy("ask for less, or have an operator look at approval.toml")
}

impl Stage for Risk {
    fn name(&self) -> StageName {
        StageName::Approve
    }

    fn judge(&mut self, asked: &Asked<'_>) -> Result<Verdict, Refusal> {
        let verdict = self.weigh(asked)?;
        if let (Action::Run | Action::Call, Some(key)) = (asked.action, key_of(asked)) {
            self.history.goes(asked.run, asked.principal.uid, key);
        }
        Ok(verdict)
    }

    fn take_back(&mut self, asked: &Asked<'_>) {
        self.history.forget(asked.run);
    }

    fn ended(&mut self, run: u128, _tool: Option<&str>, ending: Ending, at: Moment) {
        self.history.ended(run, ending, at.uptime);
    }
}

impl Ask {
    /// Its reasons in one sentence, shortened.
    #[must_use]
    pub fn said(&self) -> String {
        said(&self.because)
    }
}
