//! The engine: rules of one directory, its roles, and what they say to a question.
//!
//! Rules are kept by the action that they are about, and by whom and which thing their scope names: a question is put to those only
//! that could say something to it. What a scope says in any other way than `in Role::"…"`, `== User::"…"` or `== Tool::"…"` is asked
//! about always.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cedar_policy::{
    ActionConstraint, AuthorizationError, Authorizer, EntityUid, Policy, PolicySet, PrincipalConstraint,
    ResourceConstraint,
};
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
    /// This one permits it once somebody has approved it, and none forbids it; others may permit it without.
    Asked(usize),
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

/// What rules' scopes say: a role or a user, and a thing; nothing where it's anybody or anything.
type Scope = (Option<EntityUid>, Option<EntityUid>);

/// Rules about one action.
#[derive(Debug, Default)]
struct About {
    by_scope: HashMap<Scope, PolicySet>,
    /// Of those, the permits that have somebody asked.
    asking: HashMap<Scope, PolicySet>,
    reads: Reads,
}

impl About {
    /// The rules that could say something: those of all, of one of these principals, of this thing, and of both.
    fn of<'a>(&'a self, whom: &'a [EntityUid], what: &'a EntityUid) -> impl Iterator<Item = &'a PolicySet> {
        among(&self.by_scope, whom, what)
    }
}

fn among<'a>(
    rules: &'a HashMap<Scope, PolicySet>,
    whom: &'a [EntityUid],
    what: &'a EntityUid,
) -> impl Iterator<Item = &'a PolicySet> {
    let whom = core::iter::once(None).chain(whom.iter().cloned().map(Some));
    let scopes = whom.flat_map(move |whom| [(whom.clone(), None), (whom, Some(what.clone()))]);
    scopes.filter_map(|scope| rules.get(&scope))
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

    /// Whether any rule has somebody asked first.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.rules.iter().any(|rule| rule.approve.is_some())
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
        let (mut permits, mut forbids, mut broken) = (Vec::new(), Vec::new(), Vec::new());
        for policies in about.of(&question.whom, &question.what) {
            let response = self.authorizer.is_authorized(&question.request, policies, &question.entities);
            let is_allowed = response.decision() == cedar_policy::Decision::Allow;
            // What Cedar names as its reason are the permits, unless something forbids.
            let because = if is_allowed { &mut permits } else { &mut forbids };
            because.extend(response.diagnostics().reason().filter_map(rules::number));
            for error in response.diagnostics().errors() {
                let AuthorizationError::PolicyEvaluationError(error) = error;
                let unknown = || Unjudgeable::Broken("a rule that isn't known couldn't be evaluated".into());
                broken.push(rules::number(error.policy_id()).ok_or_else(unknown)?);
            }
        }
        let is_allowed = forbids.is_empty() && !permits.is_empty();
        let mut because = if forbids.is_empty() { permits } else { forbids };
        because.sort_unstable();
        broken.sort_unstable();
        let decision = self.weigh(is_allowed, &because, &broken);
        Ok(Explained { decision, because, broken, roles })
    }

    /// The rule that would have somebody asked, if what is asked were permitted: one whose permit fits, or may fit, whatever forbids it.
    /// For what something beside the rules permits: nobody is spared a question by that.
    ///
    /// # Errors
    /// As [`Engine::decide`].
    pub fn would_ask(&self, asked: &Asked<'_>) -> Result<Option<usize>, Unjudgeable> {
        let Some(about) = self.about.get(&asked.action).filter(|about| !about.asking.is_empty()) else {
            return Ok(None);
        };
        let principal = asked.principal;
        let roles = self.roles.of(principal.uid, &principal.gids, principal.unit.as_deref());
        let question = question::of(asked, roles.iter(), about.reads)?;
        let mut asking: Vec<usize> = Vec::new();
        for policies in among(&about.asking, &question.whom, &question.what) {
            let response = self.authorizer.is_authorized(&question.request, policies, &question.entities);
            let diagnostics = response.diagnostics();
            let broken = diagnostics
                .errors()
                .map(|AuthorizationError::PolicyEvaluationError(error)| error.policy_id());
            asking.extend(diagnostics.reason().chain(broken).filter_map(rules::number));
        }
        Ok(asking.into_iter().min())
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
        // The strictest of those that permit: what one of them has somebody asked about, no other one spares. One that can't be
        // evaluated may permit it, too.
        let asks = |number: &&usize| self.rule(**number).is_some_and(|rule| rule.approve.is_some());
        let asking = because.iter().chain(broken).find(asks).filter(|_| is_allowed);
        match (broken.iter().find(|number| is_forbid(number)), because.first()) {
            (Some(forbid), _) => Decision::Broken(*forbid),
            (None, Some(_)) if let Some(asking) = asking => Decision::Asked(*asking),
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
        let asks = read.rule.approve.is_some();
        let sets = core::iter::once(&mut about.by_scope).chain(asks.then_some(&mut about.asking));
        for policies in sets.map(|set| set.entry(scope(&read.policy)).or_default()) {
            // Numbers are given once; should one be there all the same, nothing may be left out quietly.
            if policies.add(read.policy.clone()).is_err() {
                return About::default();
            }
        }
    }
    about
}

/// Whom and what a rule is about at the most: who or what else asks, it says nothing.
fn scope(policy: &Policy) -> Scope {
    let is = |uid: &EntityUid, kind: &str| uid.type_name().to_string() == kind;
    let whom = match policy.principal_constraint() {
        PrincipalConstraint::In(role) | PrincipalConstraint::IsIn(_, role) if is(&role, "Role") => Some(role),
        PrincipalConstraint::Eq(user) if is(&user, "User") => Some(user),
        _ => None,
    };
    let what = match policy.resource_constraint() {
        ResourceConstraint::Eq(thing) => Some(thing),
        _ => None,
    };
    (whom, what)
}

fn is_about(policy: &Policy, action: Action) -> bool {
    let Some(uid) = action_uid(action) else { return true };
    match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::In(all) => all.iter().any(|one: &EntityUid| one == uid),
        ActionConstraint::Eq(one) => one == *uid,
    }
}
