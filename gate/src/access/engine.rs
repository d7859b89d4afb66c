//! The engine: rules of one directory, its roles, and what they say to a question.
//!
//! Rules are kept by the action that they are about, so that a question is put to those only that could say something to it.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{ActionConstraint, AuthorizationError, Authorizer, EntityUid, Policy, PolicySet};
use stockade_policies::Mistake;

use super::question::{self, action_uid};
use super::reads::Reads;
use super::roles::Roles;
use super::rules::{self, Effect, Origin, Read, Rule, Source};
use crate::asked::{Action, Asked};

pub use super::question::Unjudgeable;

/// What rules say. The numbers are those of rules: [`Engine::rule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// This one permits it, and none forbids it.
    Permitted(usize),
    /// This one forbids it.
    Forbidden(usize),
    /// This one forbids, and can't be evaluated.
    Broken(usize),
    /// None permits it.
    Nobody,
}

/// What rules say, and which of them have a word in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// What holds.
    pub decision: Decision,
    /// Rules that say so: permits, or forbids where there is one.
    pub because: Vec<usize>,
    /// Rules that can't be evaluated: permits among them permit nothing.
    pub broken: Vec<usize>,
    /// The roles that were counted.
    pub roles: BTreeSet<String>,
}

/// How many rules there are, by whose they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Named {
    /// Those of `access.cedar`.
    pub access: usize,
    /// Those of `invariants.cedar`.
    pub invariants: usize,
}

/// Rules about one action.
#[derive(Debug, Default)]
struct About {
    policies: PolicySet,
    reads: Reads,
}

/// Rules and roles of one directory.
#[derive(Debug, Default)]
pub struct Engine {
    authorizer: Authorizer,
    about: BTreeMap<Action, About>,
    rules: Vec<Rule>,
    roles: Roles,
}

impl Engine {
    /// The shipped rules and these, for who has these roles.
    ///
    /// # Errors
    /// All that is wrong with the rules; at least one mistake.
    pub fn new(sources: &[Source<'_>], roles: Roles) -> Result<Self, Vec<Mistake>> {
        let all = rules::read(sources, &roles)?;
        let mut about: BTreeMap<Action, About> = BTreeMap::new();
        for action in Action::ALL {
            about.insert(action, of_action(action, &all));
        }
        let rules = all.into_iter().map(|read| read.rule).collect();
        Ok(Self { authorizer: Authorizer::new(), about, rules, roles })
    }

    /// Its roles.
    #[must_use]
    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    /// A rule, by its number.
    #[must_use]
    pub fn rule(&self, number: usize) -> Option<&Rule> {
        self.rules.get(number)
    }

    /// How many rules its operator has.
    #[must_use]
    pub fn named(&self) -> Named {
        let count = |origin| self.rules.iter().filter(|rule| rule.origin == origin).count();
        Named { access: count(Origin::Access), invariants: count(Origin::Invariants) }
    }

    /// Whether the same question has the same answer until something is read again.
    pub(super) fn can_be_remembered(&self, action: Action) -> bool {
        self.about.get(&action).is_none_or(|about| about.reads.can_be_remembered())
    }

    /// Whether any rule reads the load.
    #[must_use]
    pub fn reads_load(&self) -> bool {
        self.about.values().any(|about| about.reads.load)
    }

    /// What the rules say. The principal's roles are looked up here: those that he comes with may be another directory's.
    ///
    /// # Errors
    /// The rules read what is given, and can't read this. That is a refusal.
    pub fn decide(&self, asked: &Asked<'_>) -> Result<Decision, Unjudgeable> {
        self.explain(asked).map(|explained| explained.decision)
    }

    /// What the rules say, and which of them.
    ///
    /// # Errors
    /// As [`Engine::decide`].
    pub fn explain(&self, asked: &Asked<'_>) -> Result<Explained, Unjudgeable> {
        let principal = asked.principal;
        let roles = self.roles.of(principal.uid, &principal.gids, principal.unit.as_deref());
        let nothing = About::default();
        let about = self.about.get(&asked.action).unwrap_or(&nothing);
        let question = question::of(asked, roles.iter(), about.reads)?;
        let response = self.authorizer.is_authorized(&question.request, &about.policies, &question.entities);
        let sorted = |mut numbers: Vec<usize>| {
            numbers.sort_unstable();
            numbers
        };
        let because = sorted(response.diagnostics().reason().filter_map(rules::number).collect());
        let mut is_known = true;
        let broken = response.diagnostics().errors().filter_map(|error| {
            let number = match error {
                AuthorizationError::PolicyEvaluationError(error) => rules::number(error.policy_id()),
            };
            is_known &= number.is_some();
            number
        });
        let broken = sorted(broken.collect());
        if !is_known {
            return Err(Unjudgeable::Broken("a rule that isn't known couldn't be evaluated".into()));
        }
        let is_allowed = response.decision() == cedar_policy::Decision::Allow;
        let decision = self.weigh(is_allowed, &because, &broken);
        Ok(Explained { decision, because, broken, roles })
    }

    /// Cedar's word, but for forbids that couldn't be evaluated: Cedar passes over them.
    fn weigh(&self, is_allowed: bool, because: &[usize], broken: &[usize]) -> Decision {
        let is_forbid = |number: &usize| self.rule(*number).is_none_or(|rule| rule.effect == Effect::Forbid);
        if !is_allowed {
            // The shipped forbid is about tools that say whose they are: to say that it decides would say that there is such a tool.
            let own =
                |number: &&usize| self.rule(**number).is_some_and(|rule| rule.origin != Origin::Shipped);
            if let Some(first) = because.iter().find(own) {
                return Decision::Forbidden(*first);
            }
        }
        match (broken.iter().find(|number| is_forbid(number)), because.first()) {
            (Some(forbid), _) => Decision::Broken(*forbid),
            (None, Some(permit)) if is_allowed => Decision::Permitted(*permit),
            (None, _) => Decision::Nobody,
        }
    }
}

fn of_action(action: Action, all: &[Read]) -> About {
    let mut about = About::default();
    for read in all {
        if !is_about(&read.policy, action) {
            continue;
        }
        about.reads = about.reads.and(read.found.reads);
        // Numbers are given once; should one be there all the same, nothing may be left out quietly.
        if about.policies.add(read.policy.clone()).is_err() {
            return About::default();
        }
    }
    about
}

fn is_about(policy: &Policy, action: Action) -> bool {
    let Some(uid) = action_uid(action) else { return true };
    match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::In(all) => all.iter().any(|one: &EntityUid| one == uid),
        ActionConstraint::Eq(one) => one == *uid,
    }
}
