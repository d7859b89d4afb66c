//! `stockade access check`: what a daemon would say, from its files and its engine, and which rules say it.

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use stockade_gate::access::{Decision, Explained, Origin, Unjudgeable};
use stockade_gate::approve::Reviews;
use stockade_gate::tools::{Registry, load};
use stockade_gate::validate::Parameters;
use stockade_gate::{Action, Asked, Given, Moment, Principal, Refusal, Thing, Verdict};
use stockade_policies::{Policy, PolicySet};
use stockade_protocol::spec::NetworkMode;
use stockade_supervisor::access::{Placed, Who};
use stockade_supervisor::approval::Programs;
use stockade_supervisor::config::Configured;
use stockade_supervisor::paths::configurations;
use stockade_supervisor::policies;

use super::granted::Granted;
use super::{Question, someone};
use crate::error::{CliError, chain};
use crate::serve::Options;
use crate::{escape, exit, json, out};

/// What an engine says.
struct Said<'a> {
    placed: &'a Placed,
    said: Result<Explained, Unjudgeable>,
}

impl Said<'_> {
    /// As far as rules of access say it; `None`: they refuse.
    fn answer(&self) -> Option<Answer> {
        match self.said.as_ref().ok()?.decision {
            Decision::Permitted(_) => Some(Answer::Permitted),
            Decision::Asked(_) => Some(Answer::Asked),
            _ => None,
        }
    }

    /// What these say to what a grant permits; `None`: none may.
    fn granted(&self, asked: &Asked<'_>) -> Option<Answer> {
        if !self.is_open() {
            return None;
        }
        let asks = self.placed.engine.would_ask(asked).ok()?.is_some();
        Some(if asks { Answer::Asked } else { Answer::Permitted })
    }

    /// Whether a grant may permit what these refuse: they are the daemon's own, and no rule says anything.
    fn is_open(&self) -> bool {
        let is_nobody = |explained: &Explained| explained.decision == Decision::Nobody;
        self.placed.is_own && self.said.as_ref().is_ok_and(is_nobody)
    }
}

/// What all files together say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Permitted,
    /// Once somebody has approved it.
    Asked,
    Refused,
}

impl Answer {
    /// `granted`: of what a grant permits.
    fn of_rules(said: &[Said<'_>], granted: Option<&Asked<'_>>) -> Self {
        let open = |one: &Said<'_>| granted.and_then(|asked| one.granted(asked));
        let rules = said.iter().map(|one| one.answer().or_else(|| open(one)).unwrap_or(Self::Refused));
        rules.fold(Self::Permitted, Self::max)
    }

    fn of_risk(risk: &Result<Verdict, Refusal>) -> Self {
        match risk {
            Ok(Verdict::Pass) => Self::Permitted,
            Ok(Verdict::Ask(_)) => Self::Asked,
            Err(_) => Self::Refused,
        }
    }

    fn status(self) -> u8 {
        match self {
            Self::Permitted => 0,
            Self::Asked => ASKED,
            Self::Refused => exit::FAILED,
        }
    }
}

/// The exit status where somebody has to approve it first.
const ASKED: u8 = 3;

/// What there is, in the directory that is asked about.
struct Known {
    policies: PolicySet,
    tools: Registry,
}

pub(super) fn check(question: &Question) -> Result<u8, CliError> {
    let (found, risk) = (question.whose.rules()?, question.whose.risk()?);
    let programs = question.whose.programs(&found)?;
    if found.is_empty() && !risk.is_on() {
        return Err(question.whose.none());
    }
    let who = someone(&question.who)?;
    let action = action(&question.action)?;
    let principal = who.principal();
    let known = Known::of(question)?;
    let parameters = Parameters::new(question.parameters.as_deref().unwrap_or("{}").as_bytes().to_vec());
    let words: Vec<Vec<u8>> = question.command.iter().map(|word| word.as_bytes().to_vec()).collect();
    let asked = asked(question, action, &known, (&principal, &words, &parameters))?;
    let said: Vec<Said<'_>> =
        found.iter().map(|placed| Said { placed, said: placed.engine.explain(&asked) }).collect();
    let weighed = risk.weigh(&asked);
    let granted = is_open(action, &said).then(|| Granted::look(question.daemon().as_deref(), &asked));
    let by_grant = matches!(granted, Some(Granted::By(_)));
    let by_grant = by_grant.then_some(&asked);
    let by_rules = Answer::of_rules(&said, by_grant);
    // Who is refused by rules isn't told what there is, and what he asks for isn't weighed.
    let weighed = if by_rules == Answer::Refused { Ok(Verdict::Pass) } else { weighed };
    let missing = question.what.as_deref().and_then(|named| known.missing(action, named));
    let missing = missing.filter(|_| by_rules != Answer::Refused);
    let answer = if missing.is_some() { Answer::Refused } else { by_rules.max(Answer::of_risk(&weighed)) };
    let status = answer.status();
    if question.json {
        let mut object = object(&who, &principal, action, &said, answer == Answer::Permitted);
        object["asks"] = json!(answer == Answer::Asked);
        object["risk"] = json!(factors(&weighed));
        object["missing"] = json!(missing);
        object["programs"] = json!(programs.reviews().map(reviews).collect::<Vec<_>>());
        object["people"] = json!(!programs.instead_of_people);
        object["grant"] = match &granted {
            Some(Granted::By(grant)) => grant.id.as_str().into(),
            _ => Value::Null,
        };
        return out::print_with(&json::line(&object), status);
    }
    if let Some(missing) = missing {
        let text = format!("refused: {}\n", escape::line(missing.as_bytes()));
        return out::print_with(text.as_bytes(), status);
    }
    let mut text = text(question, &principal, &said);
    if let Some(granted) = granted {
        text.push_str(&granted.sentence());
    }
    text.push_str(&of_risk(question, &weighed));
    if answer == Answer::Asked {
        text.push_str(&of_programs(&programs));
    }
    out::print_with(text.as_bytes(), status)
}

/// Whether a grant may permit what rules refuse: where nobody permits it, by the daemon's own files, and no others refuse it.
fn is_open(action: Action, said: &[Said<'_>]) -> bool {
    matches!(action, Action::Run | Action::Call)
        && said.iter().all(|one| one.answer().is_some() || one.is_open())
        && said.iter().any(Said::is_open)
}

/// What of risk there is, a line each.
fn factors(weighed: &Result<Verdict, Refusal>) -> Vec<String> {
    match weighed {
        Ok(Verdict::Pass) => Vec::new(),
        Ok(Verdict::Ask(ask)) => ask.because.iter().map(ToString::to_string).collect(),
        Err(refusal) => vec![refusal.message.clone()],
    }
}

fn of_risk(question: &Question, weighed: &Result<Verdict, Refusal>) -> String {
    let mut lines = match weighed {
        Ok(Verdict::Pass) => return String::new(),
        Ok(Verdict::Ask(ask)) => format!("permitted after approval: its risk is {}\n", ask.score),
        Err(refusal) => return format!("refused: {}\n", escape::line(refusal.message.as_bytes())),
    };
    for factor in factors(weighed).iter().filter(|_| question.why) {
        lines.push_str(&format!("factor: {}\n", escape::line(factor.as_bytes())));
    }
    lines
}

/// The reviewer programs of one file.
fn reviews(reviews: &Reviews) -> Value {
    let names: Vec<&str> = reviews.reviewers.iter().map(|one| one.name.as_str()).collect();
    json!({ "reviewers": names, "needed": reviews.needed, "cost": reviews.cost(), "budget": reviews.budget })
}

/// Which programs are asked, a line each file, and whether anybody else is.
fn of_programs(programs: &Programs) -> String {
    let mut lines = String::new();
    for one in programs.reviews() {
        let names: Vec<_> =
            one.reviewers.iter().map(|reviewer| escape::line(reviewer.name.as_bytes())).collect();
        let (needed, names, cost) = (one.needed, names.join(", "), one.cost());
        lines.push_str(&format!(
            "programs: {needed} have to say yes of {names}; it costs {cost} of a day's {}\n",
            one.budget
        ));
    }
    if programs.instead_of_people {
        lines.push_str("people: none, programs decide\n");
    } else if !lines.is_empty() {
        lines.push_str("people: asked once programs have said yes\n");
    }
    lines
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
        let options = Options::of_directory(question.whose.config.clone());
        let Configured { values, .. } = options.sources(&surroundings).load()?;
        let uid = rustix::process::geteuid().as_raw();
        let look = |path: &std::path::Path, found: &std::fs::Metadata| policies::look(path, found, uid);
        // Those of the usual places, wherever the configuration is: as `serve --config` reads them.
        let directories = policies::directories(&surroundings.policies(), &values, surroundings.scope);
        let policies =
            PolicySet::load(&directories, &look).map_err(|error| CliError::Policies(error.into()))?;
        let tools: Vec<PathBuf> = configurations(Some(&directory), surroundings.scope)
            .into_iter()
            .map(|directory| directory.join("tools"))
            .collect();
        let tools = load::registry(&tools, values.tools.require_signed.is_on(), &look).map_err(|errors| {
            let lines: Vec<String> = errors.iter().map(|error| chain(error)).collect();
            CliError::Asked(lines.join("\n"))
        })?;
        Ok(Self { policies, tools })
    }

    /// What there isn't of what is asked about: a daemon refuses it, whatever its rules say.
    fn missing(&self, action: Action, named: &str) -> Option<String> {
        let policy = match action {
            Action::Run => named,
            Action::Call => match self.tools.get(named) {
                Ok(tool) => &tool.policy,
                Err(unknown) => return Some(unknown.to_string()),
            },
            _ => return None,
        };
        self.policies.get(policy).err().map(|unknown| unknown.to_string())
    }

    fn network(&self, policy: &str) -> Option<NetworkMode> {
        self.policies.get(policy).ok().map(|policy| policy.network().mode)
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
            let (is_shipped, network) = (known.is_shipped(named), known.network(named));
            let thing = Thing { named, is_shipped, tool_roles: None, network };
            Asked { policy, thing, given: Given::Command(words), ..base }
        }
        Action::Call => {
            let named = need("a tool")?;
            let given = Given::Parameters(parameters);
            match known.tools.find(named) {
                Some(tool) => {
                    let is_shipped = known.is_shipped(&tool.policy);
                    let (tool_roles, network) = (tool.roles.as_deref(), known.network(&tool.policy));
                    let thing = Thing { named, is_shipped, tool_roles, network };
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
        Decision::Asked(_) => "asked",
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
        Decision::Asked(number) => {
            let asks = said.placed.engine.rule(number).and_then(|rule| rule.approve.as_deref());
            let why = escape::line(asks.unwrap_or_default().as_bytes());
            format!("permitted after approval: {} has somebody asked: {why}", rule(number))
        }
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
