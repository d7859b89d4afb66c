//! `stockade access check`: what a daemon would say, from its files and its engine, and which rules say it.

use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use stockade_gate::access::{Decision, Explained, Origin, Unjudgeable};
use stockade_gate::grants::{Whom, of_command, of_parameters};
use stockade_gate::tools::{Registry, load};
use stockade_gate::validate::Parameters;
use stockade_gate::{Action, Asked, Given, Moment, Principal, Thing};
use stockade_policies::{Policy, PolicySet};
use stockade_protocol::grants::{GrantSummary, GrantWhat};
use stockade_supervisor::access::{Placed, Who};
use stockade_supervisor::config::Configured;
use stockade_supervisor::paths::{SYSTEM_CONFIGURATION, Scope};
use stockade_supervisor::policies;

use super::{Question, someone};
use crate::error::{CliError, chain};
use crate::place::{self, Found};
use crate::serve::Options;
use crate::{escape, exit, grant, json, out};

/// What an engine says.
struct Said<'a> {
    placed: &'a Placed,
    said: Result<Explained, Unjudgeable>,
}

impl Said<'_> {
    fn is_permitted(&self) -> bool {
        self.said.as_ref().is_ok_and(|explained| matches!(explained.decision, Decision::Permitted(_)))
    }
}

/// What there is, in the directory that is asked about.
struct Known {
    policies: PolicySet,
    tools: Registry,
}

pub(super) fn check(question: &Question) -> Result<u8, CliError> {
    let found = question.whose.some_rules()?;
    let who = someone(&question.who)?;
    let action = action(&question.action)?;
    let principal = who.principal();
    let known = Known::of(question)?;
    let parameters = Parameters::new(question.parameters.as_deref().unwrap_or("{}").as_bytes().to_vec());
    let words: Vec<Vec<u8>> = question.command.iter().map(|word| word.as_bytes().to_vec()).collect();
    let asked = asked(question, action, &known, (&principal, &words, &parameters))?;
    let said: Vec<Said<'_>> =
        found.iter().map(|placed| Said { placed, said: placed.engine.explain(&asked) }).collect();
    let by_rules = said.iter().all(Said::is_permitted);
    let granted = if is_open(action, &said) { Some(granted(&asked)?) } else { None };
    let permitted = by_rules || matches!(granted, Some(Granted::By(_)));
    let status = if permitted { 0 } else { exit::FAILED };
    if question.json {
        let mut object = object(&who, &principal, action, &said, permitted);
        object["grant"] = match &granted {
            Some(Granted::By(grant)) => grant.id.as_str().into(),
            _ => Value::Null,
        };
        return out::print_with(&json::line(&object), status);
    }
    let mut text = text(question, &principal, &said);
    if let Some(granted) = granted {
        text.push_str(&granted.sentence());
    }
    out::print_with(text.as_bytes(), status)
}

/// Whether a grant may permit what rules refuse: where nobody permits it, by the daemon's own files, and all others do.
fn is_open(action: Action, said: &[Said<'_>]) -> bool {
    let is_nobody =
        |one: &Said<'_>| one.said.as_ref().is_ok_and(|explained| explained.decision == Decision::Nobody);
    let grants = |one: &Said<'_>| one.is_permitted() || one.placed.is_own && is_nobody(one);
    matches!(action, Action::Run | Action::Call)
        && said.iter().all(grants)
        && !said.iter().all(Said::is_permitted)
}

/// What a daemon's grants say.
enum Granted {
    By(Box<GrantSummary>),
    Nobody,
    NotAsked,
}

impl Granted {
    fn sentence(&self) -> String {
        match self {
            Self::By(one) => format!(
                "refused by rules, permitted by a grant: {}: {}\n",
                escape::line(one.id.as_bytes()),
                grant::sentence(one)
            ),
            Self::Nobody => "no grant that you may see permits it\n".to_owned(),
            Self::NotAsked => "grants aren't looked at: there is no daemon to ask\n".to_owned(),
        }
    }
}

/// Asks the daemon, if there is one, whether a grant fits: by the names, unit and digest that it tells, as it would itself.
fn granted(asked: &Asked<'_>) -> Result<Granted, CliError> {
    let mut client = match place::look(None)? {
        Found::Daemon(client, path) => place::greeted(client, path)?,
        Found::Nobody(_) => return Ok(Granted::NotAsked),
    };
    let what = match asked.action {
        Action::Run => asked.policy.map(|name| GrantWhat::Policy(name.to_owned())),
        _ => asked.tool.map(|name| GrantWhat::Tool(name.to_owned())),
    };
    let digest = match asked.given {
        Given::Command(words) => of_command(words.iter().map(Vec::as_slice)),
        Given::Parameters(parameters) => of_parameters(parameters),
        Given::Nothing => None,
    };
    let fits = |one: &GrantSummary| {
        let to = Whom { uid: one.uid, unit: one.unit.clone() };
        to.is(asked.principal)
            && what.as_ref() == Some(&one.what)
            && one.uses_left.is_none_or(|left| left > 0)
            && one.digest.is_none_or(|of| digest == Some(of))
    };
    let found = client.grants()?.grants.into_iter().find(fits);
    Ok(found.map_or(Granted::Nobody, |one| Granted::By(Box::new(one))))
}

fn action(name: &str) -> Result<Action, CliError> {
    let names = || Action::ALL.map(Action::name).join(", ");
    let found = Action::ALL.into_iter().find(|action| action.name() == name);
    found.ok_or_else(|| {
        CliError::Asked(format!(
            "no action is called `{}`; there are: {}",
            escape::line(name.as_bytes()),
            names()
        ))
    })
}

impl Known {
    fn of(question: &Question) -> Result<Self, CliError> {
        let surroundings = question.whose.surroundings();
        let directory = question.whose.directory();
        let configured = match &question.whose.config {
            None => Options::default().sources(&surroundings).load()?,
            Some(_) => Configured::default(),
        };
        let mut directories = surroundings.policies();
        let own = directory.join("policies");
        let trust = if surroundings.scope == Scope::Machine {
            stockade_policies::Trust::Operator
        } else {
            stockade_policies::Trust::User
        };
        if question.whose.config.is_some() {
            directories = vec![(own, trust)];
        }
        directories
            .extend(configured.values.daemon.policies.paths().iter().map(|path| (path.clone(), trust)));
        let uid = rustix::process::geteuid().as_raw();
        let look = |path: &std::path::Path, found: &std::fs::Metadata| policies::look(path, found, uid);
        let policies =
            PolicySet::load(&directories, &look).map_err(|error| CliError::Policies(error.into()))?;
        let machines = std::path::Path::new(SYSTEM_CONFIGURATION).join("tools");
        let mut tools = if surroundings.scope == Scope::Machine { Vec::new() } else { vec![machines] };
        tools.push(directory.join("tools"));
        tools.dedup();
        let tools = load::registry(&tools, false, &look).map_err(|errors| {
            let lines: Vec<String> = errors.iter().map(|error| chain(error)).collect();
            CliError::Asked(lines.join("\n"))
        })?;
        Ok(Self { policies, tools })
    }

    fn is_shipped(&self, policy: &str) -> bool {
        self.policies.get(policy).is_ok_and(Policy::is_shipped)
    }
}

fn asked<'a>(
    question: &'a Question,
    action: Action,
    known: &'a Known,
    (principal, words, parameters): (&'a Principal, &'a [Vec<u8>], &'a Parameters),
) -> Result<Asked<'a>, CliError> {
    let what = question.what.as_deref();
    let need = |kind: &str| {
        what.ok_or_else(|| CliError::Asked(format!("{} is of something: name {kind}", action.name())))
    };
    let base = Asked::by(principal, action, Moment { uptime: Duration::ZERO, wall: SystemTime::now() });
    Ok(match action {
        Action::Run => {
            let named = need("a policy")?;
            let policy = Some(named).filter(|name| known.policies.contains(name));
            let thing = Thing { named, is_shipped: known.is_shipped(named), tool_roles: None };
            Asked { policy, thing, given: Given::Command(words), ..base }
        }
        Action::Call => {
            let named = need("a tool")?;
            let given = Given::Parameters(parameters);
            match known.tools.find(named) {
                Some(tool) => {
                    let is_shipped = known.is_shipped(&tool.policy);
                    let thing = Thing { named, is_shipped, tool_roles: tool.roles.as_deref() };
                    Asked { policy: Some(&tool.policy), tool: Some(&tool.name), thing, given, ..base }
                }
                None => Asked { thing: Thing { named, ..Thing::default() }, given, ..base },
            }
        }
        Action::Attach | Action::Kill | Action::List => {
            Asked { owner: Some(someone(need("whose run it is")?)?.uid), policy: Some(""), ..base }
        }
        _ if what.is_some_and(|what| what != "daemon") => {
            return Err(CliError::Asked(format!("{} is of the daemon: name nothing else", action.name())));
        }
        _ => base,
    })
}

fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Permitted(_) => "permitted",
        Decision::Forbidden(_) => "forbidden",
        Decision::Broken(_) => "broken",
        Decision::Nobody => "nobody",
    }
}

fn sentence(said: &Said<'_>) -> String {
    let explained = match &said.said {
        Ok(explained) => explained,
        Err(error) => return format!("refused: {error}"),
    };
    let rule = |number: usize| said.placed.engine.rule(number).map(ToString::to_string).unwrap_or_default();
    match explained.decision {
        Decision::Permitted(number) => format!("permitted: {}", rule(number)),
        Decision::Forbidden(number) => format!("refused: {} forbids it", rule(number)),
        Decision::Broken(number) => {
            format!("refused: {} may forbid it, and can't be evaluated", rule(number))
        }
        Decision::Nobody => "refused: no rule permits it".to_owned(),
    }
}

fn text(question: &Question, principal: &Principal, said: &[Said<'_>]) -> String {
    let mut lines = Vec::new();
    if question.why {
        let gids: Vec<_> = principal.gids.iter().map(u32::to_string).collect();
        let unit = principal
            .unit
            .as_deref()
            .map_or_else(|| "no unit".to_owned(), |unit| format!("unit {}", escape::line(unit.as_bytes())));
        lines.push(format!("who: uid {}, groups {}, {unit}", principal.uid, gids.join(" ")));
    }
    for one in said {
        let directory = escape::line(one.placed.directory.as_os_str().as_encoded_bytes());
        let before = if said.len() > 1 { format!("{directory}: ") } else { String::new() };
        lines.push(format!("{before}{}", sentence(one)));
        let Some(explained) = one.said.as_ref().ok().filter(|_| question.why) else { continue };
        let roles: Vec<_> = explained.roles.iter().map(String::as_str).collect();
        lines.push(format!("roles: {}", if roles.is_empty() { "none".to_owned() } else { roles.join(" ") }));
        for (numbers, what) in [(&explained.because, "says so"), (&explained.broken, "can't be evaluated")] {
            for rule in numbers.iter().filter_map(|number| one.placed.engine.rule(*number)) {
                let at =
                    if rule.origin == Origin::Shipped { String::new() } else { format!(", {}", rule.at) };
                lines.push(format!("rule: {rule}{at}: {what}"));
            }
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

fn object(who: &Who, principal: &Principal, action: Action, said: &[Said<'_>], permitted: bool) -> Value {
    let answers: Vec<Value> = said
        .iter()
        .map(|one| {
            let rules = |numbers: &[usize]| -> Vec<Value> {
                let found = numbers.iter().filter_map(|number| one.placed.engine.rule(*number));
                found.map(|rule| json!({ "id": rule.id, "file": &*rule.at.file, "line": rule.at.line })).collect()
            };
            match &one.said {
                Ok(explained) => json!({
                    "directory": one.placed.directory, "decision": word(explained.decision), "roles": explained.roles,
                    "because": rules(&explained.because), "broken": rules(&explained.broken), "error": null,
                }),
                Err(error) => json!({
                    "directory": one.placed.directory, "decision": "unjudgeable", "roles": [],
                    "because": [], "broken": [], "error": error.to_string(),
                }),
            }
        })
        .collect();
    json!({
        "permitted": permitted, "uid": who.uid, "gids": principal.gids, "unit": principal.unit,
        "action": action.name(), "answers": answers,
    })
}
