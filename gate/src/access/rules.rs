//! Rules: read from texts, each with its place, and held against the schema before any of them holds.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use cedar_policy::{
    ActionConstraint, EntityUid, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator,
};
use miette::Diagnostic;
use stockade_policies::nearest::probably_meant;
use stockade_policies::{Mistake, Position, Problem};

use super::question::action_uid;
use super::reads::{self, Found};
use super::roles::Roles;
use super::statements::{self, Statement};
use crate::asked::Action;

/// The most rules of an engine, the shipped ones among them.
pub const MAX_RULES: usize = 1_000;
/// The longest text of an annotation, in bytes.
const MAX_ANNOTATION: usize = 256;
/// What a rule may be annotated with.
const ANNOTATIONS: [&str; 4] = ["id", "message", "description", APPROVE];
/// What has somebody asked before what the rule permits.
const APPROVE: &str = "approve";

const SHIPPED: &str = include_str!("shipped.cedar");

/// As a validator; `None` can't be, and would have every file refused.
static VALIDATOR: LazyLock<Option<Validator>> = LazyLock::new(|| {
    let schema = Schema::from_cedarschema_str(include_str!("schema.cedarschema")).ok()?;
    Some(Validator::new(schema.0))
});

/// Where a rule comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It comes with the program.
    Shipped,
    /// `access.cedar`.
    Access,
    /// `invariants.cedar`.
    Invariants,
}

/// A file of rules.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Which.
    pub origin: Origin,
    /// As errors name it.
    pub file: &'a str,
    /// What it says.
    pub text: &'a str,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It permits.
    Permit,
    /// It forbids, whatever else permits.
    Forbid,
}

/// A rule, as it is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it does.
    pub effect: Effect,
    /// Whose it is.
    pub origin: Origin,
    /// Its place.
    pub at: Position,
    /// Its `@id`.
    pub id: Option<String>,
    /// Its `@message`: for whom it refuses.
    pub message: Option<String>,
    /// Its `@approve`: somebody is asked first, for this reason.
    pub approve: Option<String>,
}

/// The file's name and a line: a refusal carries no directory of the machine's.
impl core::fmt::Display for Rule {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let file = self.at.file.rsplit('/').next().unwrap_or_default();
        match (&self.id, self.origin) {
            (Some(id), Origin::Shipped) => write!(f, "{id} (shipped)"),
            (Some(id), _) => write!(f, "{id} ({file}:{})", self.at.line),
            (None, _) => write!(f, "{file}:{}", self.at.line),
        }
    }
}

/// A rule, and what evaluates it.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) rule: Rule,
    pub(super) policy: Policy,
    pub(super) found: Found,
}

/// Reads the shipped rules and these.
///
/// # Errors
/// All that is wrong with them, in the order of their files; at least one mistake.
pub(super) fn read(sources: &[Source<'_>], roles: &Roles) -> Result<Vec<Read>, Vec<Mistake>> {
    let shipped = Source { origin: Origin::Shipped, file: "shipped.cedar", text: SHIPPED };
    let (mut all, mut mistakes, mut ids) = (Vec::new(), Vec::new(), BTreeMap::new());
    for source in core::iter::once(&shipped).chain(sources) {
        let cut = statements::cut(source.file, source.text).unwrap_or_else(|mistake| {
            mistakes.push(mistake);
            Vec::new()
        });
        let count = all.len() + cut.len();
        if count > MAX_RULES {
            let problem = Problem::TooLarge { what: "rules of access".into(), count, limit: MAX_RULES };
            mistakes.push(Mistake::new(&statements::place(source.file, source.text, 0), problem));
            continue;
        }
        for statement in cut {
            match one(source, statement, all.len(), roles, &mut ids) {
                Ok(read) => all.push(read),
                Err(wrong) => mistakes.extend(wrong),
            }
        }
    }
    if mistakes.is_empty() {
        mistakes = against_schema(&all, sources);
    }
    if mistakes.is_empty() { Ok(all) } else { Err(mistakes) }
}

fn wrong(at: &Position, wrong: impl Into<String>, remedy: impl Into<String>) -> Mistake {
    Mistake::new(at, Problem::Rule { wrong: wrong.into(), remedy: remedy.into() })
}

fn one(
    source: &Source<'_>,
    statement: Statement<'_>,
    number: usize,
    roles: &Roles,
    ids: &mut BTreeMap<String, Position>,
) -> Result<Read, Vec<Mistake>> {
    let at = statements::place(source.file, source.text, statement.from);
    let parsed = Policy::parse(Some(PolicyId::new(number.to_string())), statement.text);
    let policy = parsed.map_err(|errors| {
        let errors: Vec<_> = errors.iter().map(|error| told(source, statement.from, error)).collect();
        errors
    })?;
    let effect = match policy.effect() {
        cedar_policy::Effect::Permit => Effect::Permit,
        cedar_policy::Effect::Forbid => Effect::Forbid,
    };
    if effect == Effect::Permit && source.origin == Origin::Invariants {
        let remedy = "this file forbids, and nothing overrides it: a permit belongs in access.cedar";
        return Err(vec![wrong(&at, "a `permit` among the invariants", remedy)]);
    }
    let annotation = |key: &str| policy.annotation(key).map(ToOwned::to_owned);
    let (id, message, approve) = (annotation("id"), annotation("message"), annotation(APPROVE));
    let rule = Rule { effect, origin: source.origin, at, id, message, approve };
    let mut mistakes = annotations(&policy, &rule.at);
    mistakes.extend(approval(&policy, &rule));
    if let Some(id) = &rule.id
        && let Some(first) = ids.insert(id.clone(), rule.at.clone())
    {
        let text = format!("there is a rule `{}` already, at {first}", id.escape_debug());
        mistakes.push(wrong(&rule.at, text, "give each rule an id of its own"));
    }
    let found = match policy.to_json() {
        Ok(json) => reads::look(&json),
        Err(error) => {
            mistakes.push(wrong(&rule.at, error.to_string(), "say it more simply"));
            Found::default()
        }
    };
    mistakes.extend(names(&found, &rule.at, roles));
    if mistakes.is_empty() { Ok(Read { rule, policy, found }) } else { Err(mistakes) }
}

fn annotations(policy: &Policy, at: &Position) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for (key, text) in policy.annotations() {
        let plain = text.chars().all(|character| !character.is_control());
        if !ANNOTATIONS.contains(&key) {
            let text = format!("unknown annotation `@{key}`; there are: {}", ANNOTATIONS.join(", "));
            mistakes.push(wrong(at, text, "take it away, or write it as a comment"));
        } else if text.is_empty() || text.len() > MAX_ANNOTATION || !plain {
            let text = format!("the text of `@{key}` is empty, too long, or has control characters");
            mistakes.push(wrong(at, text, format!("write 1 to {MAX_ANNOTATION} bytes of text")));
        }
    }
    mistakes
}

/// What is wrong with a rule that has somebody asked: only what becomes a run can wait for an answer.
fn approval(policy: &Policy, rule: &Rule) -> Option<Mistake> {
    rule.approve.as_ref()?;
    if rule.effect == Effect::Forbid {
        let text = "`@approve` on a `forbid`: what is forbidden nobody can approve";
        return Some(wrong(&rule.at, text, "put it on the rule that permits it"));
    }
    let asked = [Action::Run, Action::Call].map(action_uid);
    let is_asked = |uid: &EntityUid| asked.contains(&Some(uid));
    let only = match policy.action_constraint() {
        ActionConstraint::Any => false,
        ActionConstraint::In(all) => all.iter().all(is_asked),
        ActionConstraint::Eq(one) => is_asked(&one),
    };
    let text = "`@approve` on a rule about more than runs and calls, and nobody is asked about anything else";
    let remedy = "name them: `action in [Action::\"run\", Action::\"call\"]`";
    (!only).then(|| wrong(&rule.at, text, remedy))
}

/// Names that mean nobody: such a rule would never apply, and nobody would notice.
fn names(found: &Found, at: &Position, roles: &Roles) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for (kind, id) in &found.names {
        let is_uid = || id.parse::<u32>().is_ok_and(|uid| uid.to_string() == *id);
        match kind.as_str() {
            "Role" if !roles.is_one(id) => {
                let meant = probably_meant(id, roles.names());
                let text = format!("there is no role `{}`", id.escape_debug());
                let remedy = match meant {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => "name it in roles.toml: `[roles.NAME]`".to_owned(),
                };
                mistakes.push(wrong(at, text, remedy));
            }
            "User" if !is_uid() => {
                let text = format!("`User::\"{}\"` is nobody: users are named by uid", id.escape_debug());
                mistakes.push(wrong(
                    at,
                    text,
                    "write User::\"1000\", or give a role to the user's name in roles.toml",
                ));
            }
            _ => {}
        }
    }
    mistakes
}

/// What the schema has against rules.
fn against_schema(all: &[Read], sources: &[Source<'_>]) -> Vec<Mistake> {
    let start = Position::built_in();
    let Some(validator) = VALIDATOR.as_ref() else {
        return vec![wrong(
            &start,
            "the schema of rules can't be read",
            "this is a fault of the program: report it",
        )];
    };
    let set = match PolicySet::from_policies(all.iter().map(|read| read.policy.clone())) {
        Ok(set) => set,
        Err(error) => {
            return vec![wrong(&start, error.to_string(), "this is a fault of the program: report it")];
        }
    };
    let result = validator.validate(&set, ValidationMode::Strict);
    let errors = result.validation_errors().map(|error| (error.policy_id(), error as &dyn Diagnostic));
    // A rule that can never apply, or that reads as another: whoever has written it means something else.
    let warnings =
        result.validation_warnings().map(|warning| (warning.policy_id(), warning as &dyn Diagnostic));
    let mut mistakes: Vec<Mistake> = errors
        .chain(warnings)
        .map(|(id, error)| {
            let read = number(id).and_then(|number| all.get(number));
            let rule = read.map(|read| &read.rule);
            let source = sources.iter().find(|source| rule.is_some_and(|rule| rule.origin == source.origin));
            match (rule, source) {
                (Some(rule), Some(source)) => told(source, offset(source.text, &rule.at), error),
                (rule, _) => {
                    let at = rule.map_or(&start, |rule| &rule.at);
                    wrong(at, sentence(error), "see the guide: docs/access.md")
                }
            }
        })
        .collect();
    mistakes.sort_by(|one, other| one.at.cmp(&other.at));
    mistakes
}

/// The number of a rule.
pub(super) fn number(id: &PolicyId) -> Option<usize> {
    let text: &str = id.as_ref();
    text.parse().ok()
}

/// The byte that a place stands for.
fn offset(text: &str, at: &Position) -> usize {
    let lines = usize::try_from(at.line.saturating_sub(1)).unwrap_or(usize::MAX);
    let before: usize = text.split_inclusive('\n').take(lines).map(str::len).sum();
    let column = usize::try_from(at.column.saturating_sub(1)).unwrap_or(usize::MAX);
    let within = text.get(before..).unwrap_or_default().char_indices().nth(column);
    before + within.map_or(0, |(at, _)| at)
}

/// What Cedar says is wrong, at its place in the file. `from`: where the rule begins, in bytes.
fn told(source: &Source<'_>, from: usize, error: &dyn Diagnostic) -> Mistake {
    let label = error.labels().and_then(|mut labels| labels.next());
    let at = from + label.as_ref().map_or(0, miette::LabeledSpan::offset);
    let expected = label.as_ref().and_then(|label| label.label()).map(str::to_owned);
    let help = error.help().map(|help| help.to_string());
    let remedy = expected.or(help).unwrap_or_else(|| "see the guide: docs/access.md".to_owned());
    wrong(&statements::place(source.file, source.text, at), sentence(error), remedy)
}

/// The error without the rule's number, which is ours.
fn sentence(error: &dyn Diagnostic) -> String {
    let text = error.to_string();
    let text = text
        .strip_prefix("for policy `")
        .and_then(|rest| rest.split_once("`, "))
        .map_or(text.as_str(), |(_, rest)| rest);
    text.to_owned()
}
