//! The stage.

use core::time::Duration;
use std::sync::Arc;

use super::cache::{self, Decisions};
use super::engine::{Decision, Engine, Unjudgeable};
use super::lockout::{Locked, Lockout, Settings};
use crate::asked::{Action, Asked, Moment, Principal};
use crate::grants::Held;
use crate::refusal::{Reason, Refusal};
use crate::row::{Ending, Stage, StageName};
use crate::verdict::{Ask, Verdict};

/// What a refusal names as its rule where no rule permits anything.
const NOBODY: &str = "no-rule-permits";
/// What a refusal names as its rule where somebody is locked out.
const LOCKOUT: &str = "lockout";

/// Access: a [`Stage`] that everything goes through.
///
/// It may have several engines, each of a directory: what all of them permit is permitted. So a user's own files take away from
/// what the machine's permit, and never add to it.
///
/// What nobody permits a grant may: of the engines that [`Access::let_grants`] says, and not of those before them.
#[derive(Debug, Default)]
pub struct Access {
    engines: Vec<Arc<Engine>>,
    /// The first engine that grants add to; none: no grant adds to any.
    granting: Option<usize>,
    held: Held,
    decisions: Decisions,
    lockout: Lockout,
    /// Who was locked out since somebody last asked.
    newly: Vec<(u32, Option<String>)>,
}

impl Access {
    /// Has these hold. What was decided is forgotten; who is locked out stays so. No grant adds to them until somebody says so.
    pub fn set(&mut self, engines: Vec<Arc<Engine>>, settings: Settings) {
        self.engines = engines;
        self.granting = None;
        self.decisions.clear();
        self.lockout.set(settings);
    }

    /// Has grants add to what engines permit, from this one on: whoever grants isn't above those before it.
    pub fn let_grants(&mut self, from: usize) {
        self.granting = Some(from).filter(|from| *from < self.engines.len());
    }

    /// Whether a grant could add to anything.
    #[must_use]
    pub fn can_grant(&self) -> bool {
        self.granting.is_some()
    }

    /// The grants.
    #[must_use]
    pub fn grants(&self) -> &Held {
        &self.held
    }

    /// The grants.
    pub fn grants_mut(&mut self) -> &mut Held {
        &mut self.held
    }

    /// Whether it asks anything.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.engines.is_empty()
    }

    /// Whether any rule reads the load.
    #[must_use]
    pub fn reads_load(&self) -> bool {
        self.engines.iter().any(|engine| engine.reads_load())
    }

    /// What rules say, and no grant. Nothing counts for it: for who would only know. If any rule that permits it has somebody asked
    /// first, so it is, whatever other rules or other engines permit without.
    ///
    /// # Errors
    /// The refusal.
    pub fn permits(&mut self, asked: &Asked<'_>) -> Result<Verdict, Refusal> {
        self.weigh(asked).map_err(|refused| *refused.refusal)
    }

    /// What rules say, and if they refuse it, whether a grant may permit it all the same: where nobody permits it, by engines that
    /// grants add to, and all others permit it. What any of them would have somebody asked about is asked all the same.
    fn weigh(&mut self, asked: &Asked<'_>) -> Result<Verdict, Refused> {
        let mut verdict = Verdict::Pass;
        let mut open = None;
        for (number, engine) in self.engines.iter().enumerate() {
            let key = engine.can_be_remembered(asked.action).then(|| cache::key(number, asked));
            let known = key.and_then(|key| self.decisions.get(&key));
            let decision = match known {
                Some(known) => known,
                None => {
                    let decision =
                        engine.decide(asked).map_err(|error| Refused::by_rules(unjudgeable(&error)))?;
                    if let Some(key) = key {
                        self.decisions.put(key, decision);
                    }
                    decision
                }
            };
            let is_open = decision == Decision::Nobody
                && self.granting.is_some_and(|from| number >= from)
                && matches!(asked.action, Action::Run | Action::Call);
            match decision {
                Decision::Permitted(_) => {}
                Decision::Asked(number) if matches!(asked.action, Action::Run | Action::Call) => {
                    verdict = verdict.and(Verdict::Ask(ask(engine, number)));
                }
                _ if is_open => {
                    open = open.or_else(|| Some(nobody(asked)));
                    if !self.held.is_empty()
                        && let Some(number) =
                            engine.would_ask(asked).map_err(|error| Refused::by_rules(unjudgeable(&error)))?
                    {
                        verdict = verdict.and(Verdict::Ask(ask(engine, number)));
                    }
                }
                // Of all else nothing waits for an answer; no such rule is loaded.
                _ => return Err(Refused::by_rules(refusal(engine, asked.action, decision))),
            }
        }
        match open {
            None => Ok(verdict),
            Some(refusal) => Err(Refused { refusal: Box::new(refusal), open: Some(verdict) }),
        }
    }

    /// Whether rules permit what nobody is asked about: all but runs and calls.
    ///
    /// # Errors
    /// The refusal. What somebody would have to be asked about is refused.
    pub fn allows(&mut self, asked: &Asked<'_>) -> Result<(), Refusal> {
        match self.permits(asked)? {
            Verdict::Pass => Ok(()),
            Verdict::Ask(ask) => {
                let rule = ask.because.into_iter().next().map(|factor| factor.name).unwrap_or_default();
                let text = format!("you may {} only once somebody has approved it", doing(asked.action));
                Err(Refusal::new(StageName::Access, Reason::NotApproved, rule, text))
            }
        }
    }

    /// As the stage judges, of what nobody is asked about. What is refused counts.
    ///
    /// # Errors
    /// The refusal.
    pub fn judge_allowed(&mut self, asked: &Asked<'_>) -> Result<(), Refusal> {
        self.is_let_in(asked.principal, asked.action, asked.at.uptime)?;
        self.allows(asked).inspect_err(|refusal| self.count(asked.principal, refusal, asked.at.uptime))
    }

    /// Whether somebody may do something at all, by rules or by a grant, of which no use is taken: for who asks about it. What is
    /// refused counts.
    ///
    /// # Errors
    /// The refusal.
    pub fn could(&mut self, asked: &Asked<'_>) -> Result<(), Refusal> {
        self.is_let_in(asked.principal, asked.action, asked.at.uptime)?;
        let Err(Refused { refusal, open }) = self.weigh(asked) else { return Ok(()) };
        if open.is_some() && self.held.fitting(asked).is_some() {
            return Ok(());
        }
        self.count(asked.principal, &refusal, asked.at.uptime);
        Err(*refusal)
    }

    /// Refuses who is locked out. What is his he may still end and list, if rules permit it.
    ///
    /// # Errors
    /// The refusal, with how long it lasts.
    pub fn is_let_in(&self, principal: &Principal, action: Action, now: Duration) -> Result<(), Refusal> {
        if matches!(action, Action::Kill | Action::List) {
            return Ok(());
        }
        let left = self.lockout.left(principal.uid, principal.unit.as_deref(), now);
        left.map_or(Ok(()), |left| {
            let message = "this user and unit were refused too often, and are locked out for a while";
            Err(Refusal::new(StageName::Access, Reason::LockedOut, LOCKOUT, message)
                .remedy("wait, or have an operator lift it: `stockade access unlock`")
                .retry_after(left))
        })
    }

    /// Counts a refusal that was told.
    pub fn count(&mut self, principal: &Principal, refusal: &Refusal, now: Duration) {
        let unit = principal.unit.as_deref();
        if refusal.reason == Reason::NotPermitted && self.lockout.refused(principal.uid, unit, now) {
            self.newly.push((principal.uid, principal.unit.clone()));
        }
    }

    /// Somebody who was asked has said no: whoever asks again and again until one is tired of it is locked out, too.
    pub fn refused_by_person(&mut self, uid: u32, unit: Option<&str>, now: Duration) {
        if self.is_on() && self.lockout.refused(uid, unit, now) {
            self.newly.push((uid, unit.map(ToOwned::to_owned)));
        }
    }

    /// Who was locked out since this was last asked.
    pub fn newly_locked(&mut self) -> Vec<(u32, Option<String>)> {
        core::mem::take(&mut self.newly)
    }

    /// Who is locked out.
    #[must_use]
    pub fn locked(&self, now: Duration) -> Vec<Locked> {
        self.lockout.all(now)
    }

    /// As [`Lockout::lift`].
    pub fn lift(&mut self, uid: u32, unit: Option<Option<&str>>, now: Duration) -> usize {
        self.lockout.lift(uid, unit, now)
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.decisions.len()
    }
}

impl Stage for Access {
    fn name(&self) -> StageName {
        StageName::Access
    }

    fn judge(&mut self, asked: &Asked<'_>) -> Result<Verdict, Refusal> {
        self.is_let_in(asked.principal, asked.action, asked.at.uptime)?;
        let Refused { refusal, open } = match self.weigh(asked) {
            Ok(verdict) => return Ok(verdict),
            Err(refused) => refused,
        };
        if let Some(verdict) = open
            && self.held.redeem(asked).is_some()
        {
            return Ok(verdict);
        }
        self.count(asked.principal, &refusal, asked.at.uptime);
        Err(*refusal)
    }

    fn take_back(&mut self, asked: &Asked<'_>) {
        self.held.give_back(asked.run);
    }

    fn ended(&mut self, run: u128, _tool: Option<&str>, _ending: Ending, _at: Moment) {
        // Of one that has begun nothing is known here any more.
        self.held.give_back(run);
    }
}

/// Rules permit something not.
struct Refused {
    refusal: Box<Refusal>,
    /// What holds if a grant permits it; none: no grant may.
    open: Option<Verdict>,
}

impl Refused {
    fn by_rules(refusal: Refusal) -> Self {
        Self { refusal: Box::new(refusal), open: None }
    }
}

/// What a grant could permit, and none does. Of what there isn't the same is said, to the letter: so it names nothing.
fn nobody(asked: &Asked<'_>) -> Refusal {
    let message = format!("no rule permits you to {}, and no grant does", doing(asked.action));
    let kind = if asked.action == Action::Call { "tool" } else { "policy" };
    let remedy = format!(
        "ask for a grant: `stockade grant request --{kind} NAME --for 10m --why TEXT`; `stockade access check` says which rule decides"
    );
    Refusal::new(StageName::Access, Reason::NotPermitted, NOBODY, message).remedy(remedy)
}

/// Why a rule has somebody asked.
fn ask(engine: &Engine, number: usize) -> Ask {
    let rule = engine.rule(number);
    let reason = rule.and_then(|rule| rule.approve.clone()).unwrap_or_default();
    Ask::by(rule.map(ToString::to_string).unwrap_or_default(), reason)
}

fn unjudgeable(error: &Unjudgeable) -> Refusal {
    let (reason, remedy) = match error {
        Unjudgeable::BadParameters(_) => (Reason::BadParameters, "give what is wrong there as it's expected"),
        Unjudgeable::TooMuch => {
            (Reason::NotPermitted, "give less, or have an operator write rules that read no arguments")
        }
        Unjudgeable::NotText => {
            (Reason::NotPermitted, "give text, or have an operator write rules that read no arguments")
        }
        Unjudgeable::Broken(_) => {
            (Reason::NotPermitted, "have an operator write rules that read no arguments")
        }
    };
    Refusal::new(StageName::Access, reason, "context", error.to_string()).remedy(remedy)
}

fn refusal(engine: &Engine, action: Action, decision: Decision) -> Refusal {
    let new = |rule: String, message: String| {
        Refusal::new(StageName::Access, Reason::NotPermitted, rule, message)
            .remedy("ask who operates this machine: `stockade access check` says which rule decides")
    };
    let rule = match decision {
        Decision::Permitted(number)
        | Decision::Asked(number)
        | Decision::Forbidden(number)
        | Decision::Broken(number) => engine.rule(number),
        Decision::Nobody => None,
    };
    match (decision, rule) {
        (Decision::Forbidden(_), Some(rule)) => {
            let message =
                rule.message.clone().unwrap_or_else(|| format!("a rule forbids you to {}", doing(action)));
            new(rule.to_string(), message)
        }
        (Decision::Broken(_), Some(rule)) => {
            let message = format!("a rule that may forbid you to {} can't be evaluated", doing(action));
            new(rule.to_string(), message)
        }
        _ => new(NOBODY.to_owned(), format!("no rule permits you to {}", doing(action))),
    }
}

/// As it stands in a sentence.
fn doing(action: Action) -> &'static str {
    match action {
        Action::Run => "run commands under this policy",
        Action::Call => "call this tool",
        Action::Attach => "follow this run",
        Action::Kill => "signal or end this run",
        Action::List => "see this run",
        Action::Grant => "grant anything",
        Action::Approve => "approve anything",
        Action::ReadAudit => "read the record",
        Action::Reload => "have files read again",
        Action::Inspect => "look into the daemon",
        Action::Operate => "operate the daemon",
    }
}
