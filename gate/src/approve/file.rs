//! Reads `approval.toml`: what is risky, from when on somebody is asked, and who is needed. Pure: whoever opens the file gives its
//! text.

use core::time::Duration;
use std::collections::BTreeSet;

use stockade_policies::amount::{TIME_EXPECTED, Time};
use stockade_policies::reader::{self, Known, Section};
use stockade_policies::{Located, Mistake, Position, Problem};
use stockade_protocol::spec::NetworkMode;

use super::reviewers::{self, Reviews};
use super::rule::{Condition, Past, Rule};
use super::settings::{LONGEST, MOST_NEEDED, SHORTEST, Settings};
use crate::validate::pattern::Pattern;

/// The file's name, in the directory of configuration.
pub const FILE: &str = "approval.toml";
/// The most rules of a file.
pub const MAX_RULES: usize = 64;
/// The most that one rule is worth, and the highest threshold.
const MOST_SCORE: u64 = 1_000_000;
/// The longest name of a rule, or of a reviewer, in bytes.
pub(super) const MAX_NAME: usize = 64;
/// The longest reason, in bytes.
const MAX_REASON: usize = 256;
/// The most names of one condition.
const MAX_NAMES: usize = 64;

const KEYS: [&str; 5] = ["approval", "thresholds", "rule", reviewers::KEYS[0], reviewers::KEYS[1]];
const APPROVAL: Known<'_> =
    Known { key: "approval", name: "[approval]", keys: &["needed", "within", "own-unit"] };
const THRESHOLDS: Known<'_> = Known { key: "thresholds", name: "[thresholds]", keys: &["ask", "refuse"] };
const RULE: [&str; 4] = ["name", "score", "reason", "when"];
const WHEN: [&str; 9] = [
    "tool",
    "policy",
    "program",
    "word-matches",
    "parameter",
    "value-matches",
    "path-prefix",
    "network",
    "history",
];

/// From when on something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// From this score on somebody is asked.
    pub ask: u32,
    /// From this one on it's refused, and nobody is asked; `None`: never.
    pub refuse: Option<u32>,
}

/// What a file says.
#[derive(Debug, Default)]
pub struct Filed {
    /// Who is needed.
    pub settings: Settings,
    /// From when on somebody is asked; `None`: there are no rules.
    pub thresholds: Option<Thresholds>,
    /// What is risky, in the file's order.
    pub rules: Vec<Rule>,
    /// Tools that rules name, and where.
    pub tools: Vec<Located<String>>,
    /// Policies that rules name, and where.
    pub policies: Vec<Located<String>>,
    /// Programs that are asked, too; `None`: only people are.
    pub reviews: Option<Reviews>,
}

/// Reads a text. `file`: as errors name it.
///
/// # Errors
/// All that is wrong with it, in its order; at least one mistake.
pub fn read(file: &str, text: &str) -> Result<Filed, Vec<Mistake>> {
    let mut filed = Filed::default();
    let mut mistakes = Vec::new();
    reader::document((file, text), (FILE, &KEYS), &mut mistakes, |root, mistakes| {
        filed = whole(root, mistakes);
    });
    if mistakes.is_empty() { Ok(filed) } else { Err(mistakes) }
}

fn whole(root: &Section<'_>, mistakes: &mut Vec<Mistake>) -> Filed {
    let mut filed = Filed::default();
    // A file that lost what it had says the same as none, and nobody would be asked.
    if KEYS.iter().all(|key| root.at(key).is_none()) && mistakes.is_empty() {
        let text = "it has nothing in it, and nobody is asked";
        mistakes.push(wrong(&root.start(), text, "write a `[[rule]]`, or remove the file"));
        return filed;
    }
    if let Some(section) = root.table(&APPROVAL, mistakes) {
        settings(&section, &mut filed.settings, mistakes);
    }
    filed.reviews = reviewers::read(root, mistakes);
    let tables = root.each("rule", "[[rule]]", &RULE, mistakes);
    if let Some((_, at)) = tables.get(MAX_RULES) {
        let problem =
            Problem::TooLarge { what: "rules of risk".into(), count: tables.len(), limit: MAX_RULES };
        mistakes.push(Mistake::new(at, problem));
        return filed;
    }
    let mut names = BTreeSet::new();
    for (section, at) in &tables {
        if let Some(rule) = rule(section, at, &mut filed, mistakes) {
            if !names.insert(rule.name.clone()) {
                let text = format!("there is a rule `{}` already", rule.name);
                mistakes.push(wrong(at, text, "give each rule a name of its own"));
            }
            filed.rules.push(rule);
        }
    }
    thresholds(root, tables.first().map(|(_, at)| at), &mut filed, mistakes);
    filed
}

fn settings(section: &Section<'_>, into: &mut Settings, mistakes: &mut Vec<Mistake>) {
    let needed = noted(section.number("needed", 1, MOST_NEEDED.into()), mistakes);
    into.needed = needed.and_then(|needed| u32::try_from(needed.value).ok()).unwrap_or(into.needed);
    let parse = |text: &str| {
        let time = Duration::from_millis(Time::parse(text)?.milliseconds());
        if (SHORTEST..=LONGEST).contains(&time) {
            return Ok(time);
        }
        Err("it isn't from a second to a day".to_owned())
    };
    let within = noted(section.text("within", TIME_EXPECTED, parse), mistakes);
    into.within = within.map_or(into.within, |within| within.value);
    let own = noted(section.truth("own-unit"), mistakes);
    into.own_unit = own.map_or(into.own_unit, |own| own.value);
}

fn thresholds(root: &Section<'_>, first: Option<&Position>, filed: &mut Filed, mistakes: &mut Vec<Mistake>) {
    let Some(section) = root.table(&THRESHOLDS, mistakes) else {
        if let Some(at) = first.filter(|_| root.at(THRESHOLDS.key).is_none()) {
            let text = "rules of risk, and nothing says from when on somebody is asked";
            mistakes.push(wrong(at, text, "write `[thresholds]` with `ask = 50`, say"));
        }
        return;
    };
    let Some(first) = first else {
        let text = "[thresholds] holds for nothing: there are no rules of risk";
        mistakes.push(wrong(&section.start(), text, "write a `[[rule]]`, or take it out"));
        return;
    };
    let score = |key: &str, mistakes: &mut Vec<Mistake>| {
        let number = noted(section.number(key, 1, MOST_SCORE), mistakes)?;
        u32::try_from(number.value).ok()
    };
    let (ask, refuse) = (score("ask", mistakes), score("refuse", mistakes));
    let Some(ask) = ask else {
        if section.at("ask").is_none() {
            mistakes.push(wrong(
                &section.start(),
                "`ask` isn't there",
                "say from which score on somebody is asked",
            ));
        }
        return;
    };
    if let (Some(refuse), Some(at)) = (refuse, section.at("refuse"))
        && refuse < ask
    {
        let text = format!("it's refused from {refuse} on, and nobody is asked below {ask}");
        mistakes.push(wrong(&at, text, "a `refuse` that isn't below `ask`"));
    }
    let most = filed.rules.iter().fold(0_u32, |sum, rule| sum.saturating_add(rule.score));
    if mistakes.is_empty() && most < ask {
        let text = format!("all rules together are worth {most}, and {ask} is never reached");
        mistakes.push(wrong(first, text, "lower `ask`, or raise scores"));
    }
    filed.thresholds = Some(Thresholds { ask, refuse });
}

fn rule(
    section: &Section<'_>,
    at: &Position,
    filed: &mut Filed,
    mistakes: &mut Vec<Mistake>,
) -> Option<Rule> {
    let before = mistakes.len();
    let named = |key: &str, most: usize, mistakes: &mut Vec<Mistake>| {
        let expected = format!("1 to {most} bytes of text");
        let parse = |text: &str| line(text, most);
        let read = noted(section.text(key, expected.as_str(), parse), mistakes);
        if read.is_none() && section.at(key).is_none() {
            mistakes.push(missing(at, key, &expected));
        }
        read.map(|read| read.value)
    };
    let (name, reason) = (named("name", MAX_NAME, mistakes), named("reason", MAX_REASON, mistakes));
    let score = noted(section.number("score", 1, MOST_SCORE), mistakes);
    if score.is_none() && section.at("score").is_none() {
        mistakes.push(missing(at, "score", "a whole number: what it's worth"));
    }
    let when = section.below("when", "when", &WHEN, mistakes);
    if when.is_none() && section.at("when").is_none() {
        mistakes.push(missing(at, "when", "what has to be so: `when = { tool = [\"deploy\"] }`"));
    }
    let when = conditions(&when?, filed, mistakes);
    if mistakes.len() > before {
        return None;
    }
    Some(Rule { name: name?, score: u32::try_from(score?.value).ok()?, reason: reason?, when })
}

/// One line of text that a person reads.
pub(super) fn line(text: &str, most: usize) -> Result<String, String> {
    match text {
        "" => Err("it's empty".into()),
        text if text.len() > most => Err(format!("it has {} bytes", text.len())),
        text if text.chars().any(char::is_control) => Err("it has control characters".into()),
        text => Ok(text.to_owned()),
    }
}

fn conditions(section: &Section<'_>, filed: &mut Filed, mistakes: &mut Vec<Mistake>) -> Vec<Condition> {
    let mut when = Vec::new();
    let before = mistakes.len();
    let name = |text: &str| line(text, 256);
    if let Some(tools) = list(section, "tool", "names of tools", name, mistakes) {
        filed.tools.extend(tools.iter().cloned());
        when.push(Condition::Tool(values(tools)));
    }
    if let Some(policies) = list(section, "policy", "names of policies", name, mistakes) {
        filed.policies.extend(policies.iter().cloned());
        when.push(Condition::Policy(values(policies)));
    }
    when.extend(list(section, "program", "programs", name, mistakes).map(values).map(Condition::Program));
    when.extend(pattern(section, "word-matches", mistakes).map(Condition::Word));
    parameter(section, &mut when, mistakes);
    when.extend(
        list(section, "path-prefix", "absolute paths", prefix, mistakes).map(values).map(Condition::Path),
    );
    when.extend(
        list(section, "network", "\"none\", \"loopback\" or \"host\"", network, mistakes)
            .map(values)
            .map(Condition::Network),
    );
    let past = |text: &str| {
        let found = Past::WORDS.into_iter().find(|(word, _)| *word == text);
        found.map(|(_, past)| past).ok_or_else(|| "it's none of those".to_owned())
    };
    let words = "\"first-time\", \"refused-lately\" or \"failed-lately\"";
    when.extend(list(section, "history", words, past, mistakes).map(values).map(Condition::History));
    if when.is_empty() && mistakes.len() == before {
        let text = "a rule that says nothing of when it holds";
        mistakes.push(wrong(&section.start(), text, "name a tool, a program, a path, …"));
    }
    when
}

fn parameter(section: &Section<'_>, when: &mut Vec<Condition>, mistakes: &mut Vec<Mistake>) {
    let pointer = |text: &str| match text {
        text if text.len() > 256 => Err("it's longer than 256 bytes".to_owned()),
        text if text.is_empty() || text.starts_with('/') => Ok(text.to_owned()),
        _ => Err("it doesn't begin with a slash".to_owned()),
    };
    let at = noted(section.text("parameter", "a JSON pointer: \"/target\"", pointer), mistakes);
    let value = pattern(section, "value-matches", mistakes);
    match (at, section.at("value-matches")) {
        (Some(at), _) => when.push(Condition::Parameter(at.value, value)),
        (None, Some(place)) if section.at("parameter").is_none() => {
            mistakes.push(missing(&place, "parameter", "the JSON pointer of the value: \"/target\""));
        }
        _ => {}
    }
}

fn prefix(text: &str) -> Result<String, String> {
    let is_plain = text.starts_with('/')
        && (text == "/" || !text.ends_with('/'))
        && !text
            .split('/')
            .skip(1)
            .any(|part| matches!(part, "." | "..") || (part.is_empty() && text != "/"));
    if is_plain { line(text, 4_096) } else { Err("it isn't an absolute path in its plain form".into()) }
}

fn network(text: &str) -> Result<NetworkMode, String> {
    match text {
        "none" => Ok(NetworkMode::None),
        "loopback" => Ok(NetworkMode::Loopback),
        "host" => Ok(NetworkMode::Host),
        _ => Err("it's none of those".into()),
    }
}

fn pattern(section: &Section<'_>, key: &str, mistakes: &mut Vec<Mistake>) -> Option<Pattern> {
    let parse = |text: &str| {
        line(text, crate::validate::MAX_PATTERN)?;
        Pattern::new(text).map_err(|reason| reason.lines().next().unwrap_or_default().to_owned())
    };
    noted(section.text(key, "a regular expression", parse), mistakes).map(|found| found.value)
}

/// One at least of these; a list of none would never hold.
fn list<T>(
    section: &Section<'_>,
    key: &str,
    expected: &str,
    parse: impl Fn(&str) -> Result<T, String>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Vec<Located<T>>> {
    // Nothing of this file is shipped: a built text never comes.
    let read = section.list(key, expected, |text| parse(text).map(Some), |text| parse(text).ok());
    let found = noted(read, mistakes)?;
    let place = section.at(key).unwrap_or_else(|| section.start());
    if found.is_empty() || found.len() > MAX_NAMES {
        let text = format!("`{key}` has {} of them", found.len());
        mistakes.push(wrong(&place, text, format!("1 to {MAX_NAMES} of them: {expected}")));
        return None;
    }
    found.into_iter().map(|one| Some(Located { value: one.value?, at: one.at })).collect()
}

fn values<T>(all: Vec<Located<T>>) -> Vec<T> {
    all.into_iter().map(|one| one.value).collect()
}

pub(super) fn noted<T>(read: Result<Option<T>, Mistake>, mistakes: &mut Vec<Mistake>) -> Option<T> {
    read.unwrap_or_else(|mistake| {
        mistakes.push(mistake);
        None
    })
}

pub(super) fn wrong(at: &Position, wrong: impl Into<String>, remedy: impl Into<String>) -> Mistake {
    Mistake::new(at, Problem::Rule { wrong: wrong.into(), remedy: remedy.into() })
}

pub(super) fn missing(at: &Position, key: &str, expected: &str) -> Mistake {
    let problem =
        Problem::Value { key: key.into(), reason: "it isn't there".into(), expected: expected.into() };
    Mistake::new(at, problem)
}
