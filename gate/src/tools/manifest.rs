//! A tool's file: `docs/tools.md` is its description for people.
//!
//! Every key has one form; what isn't known, isn't there or doesn't fit is told with its place, all of it at once.

use std::time::Duration;

use serde_json::{Map, Number, Value};
use stockade_policies::free::Free;
use stockade_policies::reader::{self, Section};
use stockade_policies::{Located, Mistake, Position, Problem};
use stockade_protocol::client::Overrides;

use super::settings::{self, BREAKER, Breaker, LIMITS, RATE, Rate, Taking};
use super::template::{self, Argument, Group, Stdin, Template};
use super::{Digest, MAX_DESCRIPTION, MAX_EXAMPLES, MAX_ROLES, MAX_TITLE, NAME_EXPECTED, is_name};
use crate::validate::characters::Class;
use crate::validate::mismatch::shown;
use crate::validate::outline::Fault;
use crate::validate::{Mismatch, Schema, input};

const KEYS: [&str; 14] = [
    "name",
    "title",
    "description",
    "version",
    "policy",
    "roles",
    "command",
    "parameters",
    "result",
    "limits",
    "rate",
    "breaker",
    "examples",
    "failures",
];
const COMMAND: [&str; 4] = ["program", "sha256", "arguments", "stdin"];
const EXAMPLE: [&str; 4] = ["title", "parameters", "exit", "output"];
/// The longest that a key is shown, in characters; a reason may be twice as long.
const LONGEST_SHOWN: usize = 200;
/// The longest version, in bytes.
const MAX_VERSION: usize = 32;

/// A tool that can be called.
#[derive(Debug)]
pub struct Tool {
    /// Its name, that of its file.
    pub name: String,
    /// Its name for people; if it has none, its name.
    pub title: String,
    /// What it does, for who or what chooses among tools.
    pub description: String,
    /// Its version.
    pub version: String,
    /// The policy that its runs are under.
    pub policy: String,
    /// Where its file says so.
    pub policy_at: Position,
    /// The roles of which a caller must have one; `None`: it's for the rules of access alone to say.
    pub roles: Option<Vec<String>>,
    /// Its command.
    pub template: Template,
    /// The digest that its program must have.
    pub pin: Option<Digest>,
    /// What it's called with.
    pub parameters: Schema,
    /// What its output is, as one JSON text, if it promises any.
    pub result: Option<Schema>,
    /// Limits on its runs, which can only be tighter than its policy's.
    pub limits: Overrides,
    /// How often it may be called.
    pub rate: Option<Rate>,
    /// When it counts as broken.
    pub breaker: Option<Breaker>,
    /// The exit statuses that count as its own failure; `None`: all but 0.
    pub failures: Option<Vec<u8>>,
    /// How it's called, and what comes of it.
    pub examples: Vec<Example>,
    /// Of its file.
    pub digest: Digest,
    /// Its file, as the registry was given it.
    pub file: String,
}

/// An example: a call, and what has to come of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// What it shows.
    pub title: String,
    /// What the tool is called with.
    pub parameters: Map<String, Value>,
    /// The exit status.
    pub exit: u8,
    /// What its output has in it.
    pub output: Option<String>,
}

impl Tool {
    /// Reads a file. `name`: as the file is called, without its ending. `spent`: the processor time this thread has spent.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn read(
        file: &str,
        name: &str,
        text: &str,
        spent: &dyn Fn() -> Duration,
    ) -> Result<Self, Vec<Mistake>> {
        let (mut mistakes, mut tool) = (Vec::new(), None);
        reader::document((file, text), ("the tool", &KEYS), &mut mistakes, |root, mistakes| {
            let mut reading = Reading { root, mistakes, spent };
            tool = reading.tool(file, name, Digest::of(text.as_bytes()));
        });
        match tool {
            Some(tool) if mistakes.is_empty() => Ok(tool),
            _ => Err(mistakes),
        }
    }

    /// Whether an exit status is the tool's own failure.
    #[must_use]
    pub fn is_failure(&self, status: u8) -> bool {
        self.failures.as_ref().map_or(status != 0, |failures| failures.contains(&status))
    }

    /// Whether an output is what the tool promises. Nothing is promised: nothing is wrong.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_output(&self, output: &[u8]) -> Result<(), Vec<Mismatch>> {
        let Some(schema) = &self.result else { return Ok(()) };
        let value = input::parse(output).map_err(|mismatch| vec![mismatch])?;
        schema.check(&value)
    }
}

struct Reading<'a, 's> {
    root: &'a Section<'s>,
    mistakes: &'a mut Vec<Mistake>,
    spent: &'a dyn Fn() -> Duration,
}

impl Reading<'_, '_> {
    fn tool(&mut self, file: &str, stem: &str, digest: Digest) -> Option<Tool> {
        let name = self.name(stem);
        let title = self.text("title", |text| plain(text, MAX_TITLE, false));
        let description = self.text("description", |text| plain(text, MAX_DESCRIPTION, true));
        let description = self.needed("description", description, "what the tool does");
        let version = self.text("version", version);
        let version = self.needed("version", version, "a version, as in \"1.0.0\"");
        let policy_at = self.root.at("policy");
        let policy = self.text("policy", policy);
        let policy = self.needed("policy", policy, "a policy's name");
        let roles = self.roles();
        let failures = self.failures();
        let parameters = self.parameters();
        let result = self.schema("result").map(|(schema, _)| schema);
        let command = self.command(parameters.as_ref().map(|(schema, _)| schema.said()));
        let limits = self.below("limits", "[limits]", &LIMITS, settings::limits);
        let rate = self.below("rate", "[rate]", &RATE, settings::rate);
        let breaker = self.below("breaker", "[breaker]", &BREAKER, settings::breaker);
        let examples = self.examples(parameters.as_ref().map(|(schema, _)| schema));
        let (template, pin) = command?;
        let name = name?;
        Some(Tool {
            title: title.unwrap_or_else(|| name.clone()),
            name,
            description: description?,
            version: version?,
            policy: policy?,
            policy_at: policy_at?,
            roles,
            template,
            pin,
            parameters: parameters?.0,
            result,
            limits: limits.unwrap_or_default(),
            rate,
            breaker,
            failures,
            examples,
            digest,
            file: file.to_owned(),
        })
    }

    fn wrong(&mut self, at: &Position, key: &str, reason: impl Into<String>, expected: &str) {
        // They may have a file's own text in them.
        let (key, reason) = (shown(key, LONGEST_SHOWN), shown(&reason.into(), 2 * LONGEST_SHOWN));
        let problem = Problem::Value { key, reason, expected: expected.into() };
        self.mistakes.push(Mistake::new(at, problem));
    }

    fn kept<T>(&mut self, read: Result<Option<T>, Mistake>) -> Option<T> {
        read.unwrap_or_else(|mistake| {
            self.mistakes.push(mistake);
            None
        })
    }

    fn text<T>(&mut self, key: &str, parse: fn(&str) -> Result<T, String>) -> Option<T> {
        let expected = match key {
            "version" => "a version, as in \"1.0.0\"",
            "policy" => "a policy's name",
            _ => "plain text",
        };
        self.kept(self.root.text(key, expected, parse)).map(|found| found.value)
    }

    fn needed<T>(&mut self, key: &str, found: Option<T>, expected: &str) -> Option<T> {
        if found.is_none() && self.root.at(key).is_none() {
            let start = self.root.start();
            self.wrong(&start, key, "it isn't there", expected);
        }
        found
    }

    fn below<T>(
        &mut self,
        key: &str,
        name: &'static str,
        known: &[&str],
        take: fn(&mut Taking<'_, '_>) -> Option<T>,
    ) -> Option<T> {
        let section = self.root.below(key, name, known, self.mistakes)?;
        take(&mut Taking { section: &section, mistakes: self.mistakes })
    }

    fn name(&mut self, stem: &str) -> Option<String> {
        let stated = self.kept(self.root.text("name", NAME_EXPECTED, name));
        if let Some(stated) = &stated
            && stated.value != stem
        {
            let reason = format!("`{}` is another name than its file's", stated.value);
            self.wrong(&stated.at, "name", reason, &format!("`{}`", stem.escape_debug()));
        }
        self.needed("name", stated.map(|stated| stated.value), NAME_EXPECTED)
    }

    fn roles(&mut self) -> Option<Vec<String>> {
        let roles = self.kept(self.root.list("roles", "a role's name", name, ToOwned::to_owned))?;
        if roles.is_empty() || roles.len() > MAX_ROLES {
            let at = self.root.at("roles").unwrap_or_else(|| self.root.start());
            self.wrong(
                &at,
                "roles",
                "none could call it, or there are too many",
                "1 to 32 roles, or no such key",
            );
        }
        Some(roles.into_iter().map(|role| role.value).collect())
    }

    fn failures(&mut self) -> Option<Vec<u8>> {
        let found = self.kept(self.root.free("failures"))?;
        let Free::List(list) = &found.value else {
            self.wrong(&found.at, "failures", "it is no list", "a list of exit statuses from 1 to 255");
            return None;
        };
        let mut statuses = Vec::new();
        for one in list {
            match one.value {
                Free::Integer(status @ 1..=255) => statuses.extend(u8::try_from(status)),
                _ => self.wrong(
                    &one.at,
                    "failures",
                    "it is no exit status of a failure",
                    "a whole number from 1 to 255",
                ),
            }
        }
        Some(statuses)
    }

    fn parameters(&mut self) -> Option<(Schema, Located<Free>)> {
        if self.root.at("parameters").is_none() {
            let start = self.root.start();
            self.wrong(
                &start,
                "parameters",
                "it isn't there",
                "a JSON Schema of an object, as in type = \"object\"",
            );
        }
        self.schema("parameters")
    }

    /// A schema, and where each part of it stands.
    fn schema(&mut self, key: &'static str) -> Option<(Schema, Located<Free>)> {
        let found = self.kept(self.root.free(key))?;
        let mut said = json(&found.value);
        if key == "parameters" {
            self.object(&found, &mut said)?;
        }
        match Schema::compile(&said, self.spent) {
            Ok(schema) => Some((schema, found)),
            Err(faults) => {
                for Fault { pointer, reason } in faults {
                    let at = place(&found, &pointer);
                    self.wrong(&at, &format!("{key}{pointer}"), reason, "a JSON Schema within the bounds");
                }
                None
            }
        }
    }

    /// Parameters are an object, and have no members but those that are described.
    fn object(&mut self, found: &Located<Free>, said: &mut Value) -> Option<()> {
        if said.get("type").is_none_or(|said| said != "object") {
            self.wrong(&found.at, "parameters", "it describes no object", "type = \"object\"");
            return None;
        }
        let object = said.as_object_mut()?;
        match object.get("additionalProperties") {
            None => drop(object.insert("additionalProperties".into(), Value::Bool(false))),
            Some(Value::Bool(false)) => {}
            Some(_) => {
                let at = place(found, "/additionalProperties");
                let key = "parameters/additionalProperties";
                self.wrong(
                    &at,
                    key,
                    "members that nobody has described can't be checked",
                    "false, or no such key",
                );
                return None;
            }
        }
        Some(())
    }

    fn command(&mut self, schema: Option<&Value>) -> Option<(Template, Option<Digest>)> {
        let start = self.root.start();
        let Some(section) = self.root.below("command", "[command]", &COMMAND, self.mistakes) else {
            if self.root.at("command").is_none() {
                self.wrong(&start, "command", "it isn't there", "a table with `program` and `arguments`");
            }
            return None;
        };
        let before = self.mistakes.len();
        let program = self.kept(section.text("program", "the program's absolute path", program));
        if program.is_none() && section.at("program").is_none() {
            self.wrong(&section.start(), "program", "it isn't there", "the program's absolute path");
        }
        let digest = |text: &str| Digest::parse(text).ok_or_else(|| "it is no SHA-256 digest".to_owned());
        let pin = self.kept(section.text("sha256", "64 hexadecimal digits, lower case", digest));
        let expected = "\"nothing\", \"parameters\", or a hole of the kind `file`, as in \"{input:file}\"";
        let stdin: Option<Located<Stdin>> = self.kept(section.text("stdin", expected, template::stdin));
        let groups =
            self.kept(section.free("arguments")).map(|found| self.groups(&found)).unwrap_or_default();
        if self.mistakes.len() > before {
            return None;
        }
        let stdin = stdin.map(|stdin| stdin.value).unwrap_or_default();
        let template = Template { program: program?.value, groups, stdin };
        if let Some(schema) = schema {
            let at = section.at("arguments").unwrap_or_else(|| section.start());
            for fault in template.faults(schema) {
                self.wrong(&at, "arguments", fault, "a template that takes each parameter as what it is");
            }
        }
        Some((template, pin.map(|pin| pin.value)))
    }

    fn groups(&mut self, found: &Located<Free>) -> Vec<Group> {
        let expected = "a list of arguments, in which a list is a group";
        let Free::List(list) = &found.value else {
            self.wrong(&found.at, "arguments", "it is no list", expected);
            return Vec::new();
        };
        let mut groups = Vec::new();
        for element in list {
            match &element.value {
                Free::List(list) => groups.push(list.iter().filter_map(|one| self.argument(one)).collect()),
                _ => groups.extend(self.argument(element).map(|argument| vec![argument])),
            }
        }
        groups
    }

    fn argument(&mut self, found: &Located<Free>) -> Option<Argument> {
        let Free::Text(text) = &found.value else {
            self.wrong(
                &found.at,
                "arguments",
                "it is no text",
                "an argument, as in \"--\" or \"{path:path}\"",
            );
            return None;
        };
        let expected = "an argument with holes, as in \"{limit:integer}\"";
        match template::argument(text) {
            Ok(argument) => Some(argument),
            Err(reason) => {
                self.wrong(&found.at, "arguments", reason, expected);
                None
            }
        }
    }

    fn examples(&mut self, schema: Option<&Schema>) -> Vec<Example> {
        let found = self.root.each("examples", "[[examples]]", &EXAMPLE, self.mistakes);
        if let Some((_, at)) = found.get(MAX_EXAMPLES) {
            self.wrong(
                at,
                "examples",
                format!("there are {}", found.len()),
                &format!("at most {MAX_EXAMPLES}"),
            );
        }
        found.iter().filter_map(|(section, at)| self.example(section, at, schema)).collect()
    }

    fn example(&mut self, section: &Section<'_>, at: &Position, schema: Option<&Schema>) -> Option<Example> {
        let title = self.kept(section.text("title", "plain text", |text| plain(text, MAX_TITLE, false)));
        let output = self.kept(section.text("output", "text", |text| Ok(text.to_owned())));
        let exit = self.kept(section.number("exit", 0, 255));
        let parameters = self.kept(section.free("parameters"));
        let value =
            parameters.as_ref().map_or_else(|| Value::Object(Map::new()), |found| normal(json(&found.value)));
        for mismatch in schema.and_then(|schema| schema.check(&value).err()).into_iter().flatten() {
            let at = parameters.as_ref().map_or_else(|| at.clone(), |found| place(found, &mismatch.pointer));
            let got = format!(
                "at {}: {}",
                if mismatch.pointer.is_empty() { "the whole" } else { &mismatch.pointer },
                mismatch.got
            );
            self.wrong(&at, "examples.parameters", got, &mismatch.expected);
        }
        let Value::Object(parameters) = value else { return None };
        Some(Example {
            title: title.map(|title| title.value).unwrap_or_default(),
            parameters,
            exit: exit.and_then(|exit| u8::try_from(exit.value).ok()).unwrap_or(0),
            output: output.map(|output| output.value),
        })
    }
}

/// TOML as JSON.
fn json(free: &Free) -> Value {
    match free {
        Free::Text(text) => text.clone().into(),
        Free::Integer(number) => (*number).into(),
        Free::Float(number) => Number::from_f64(*number).map_or(Value::Null, Value::Number),
        Free::Truth(truth) => (*truth).into(),
        Free::List(list) => list.iter().map(|one| json(&one.value)).collect(),
        Free::Table(fields) => {
            Value::Object(fields.iter().map(|field| (field.key.clone(), json(&field.value.value))).collect())
        }
    }
}

/// As parameters come out of being read.
fn normal(value: Value) -> Value {
    match value {
        Value::String(text) => input::normal(text).into(),
        Value::Array(list) => list.into_iter().map(normal).collect(),
        Value::Object(object) => {
            object.into_iter().map(|(key, value)| (input::normal(key), normal(value))).collect()
        }
        other => other,
    }
}

/// Where in a file a JSON pointer leads, as far as there is something.
fn place(whole: &Located<Free>, pointer: &str) -> Position {
    let (mut here, mut at) = (whole, whole.at.clone());
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        let next = match &here.value {
            Free::Table(fields) => {
                fields.iter().find(|field| field.key == step).map(|field| (&field.value, field.at.clone()))
            }
            Free::List(list) => {
                step.parse::<usize>().ok().and_then(|place| list.get(place)).map(|one| (one, one.at.clone()))
            }
            _ => None,
        };
        let Some((found, position)) = next else { break };
        (here, at) = (found, position);
    }
    at
}

fn name(text: &str) -> Result<String, String> {
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("`{}` is no such name", text.escape_debug()))
    }
}

/// Text that shows what it says, to a person and to a model: nothing in it is hidden.
fn plain(text: &str, longest: usize, may_break: bool) -> Result<String, String> {
    let odd = |c: char| {
        c == '\0' || Class::of(c).is_some_and(|class| !(may_break && class == Class::LineBreak && c == '\n'))
    };
    if let Some(odd) = text.chars().find(|c| odd(*c)) {
        return Err(format!("it has the character U+{:04X} in it", u32::from(odd)));
    }
    match text.chars().count() {
        0 => Err("it is empty".into()),
        count if count > longest => Err(format!("{count} characters are over the limit of {longest}")),
        _ => Ok(text.to_owned()),
    }
}

fn version(text: &str) -> Result<String, String> {
    let plain_byte = |byte: u8| byte.is_ascii_alphanumeric() || b".+-".contains(&byte);
    let fits = text.starts_with(|first: char| first.is_ascii_digit())
        && text.len() <= MAX_VERSION
        && text.bytes().all(plain_byte);
    if fits { Ok(text.to_owned()) } else { Err(format!("`{}` is no version", text.escape_debug())) }
}

fn policy(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    let first = text.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
    if first && text.len() <= stockade_protocol::bounds::MAX_POLICY_NAME && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err(format!("`{}` is no policy's name", text.escape_debug()))
    }
}

fn program(text: &str) -> Result<String, String> {
    let steps = text.split('/').skip(1);
    let fits = text.len() <= stockade_protocol::bounds::MAX_PATH
        && text.starts_with('/')
        && steps.clone().all(|name| !matches!(name, "" | "." | ".."))
        && text.chars().all(|c| c != '\0' && Class::of(c).is_none());
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!("`{}` isn't the whole path of a program", text.escape_debug()))
    }
}

#[cfg(test)]
mod tests;
