//! One rule: when it holds, and what it's worth.
//!
//! All conditions of a rule have to hold, and of the names of one condition any. What a request doesn't have (a call has no words,
//! a command no parameters) makes a condition not hold; what it has and can't be read makes the rule count.

use core::cell::OnceCell;
use std::path::Path;

use serde_json::Value;
use stockade_protocol::spec::NetworkMode;

use super::history::{History, Key};
use crate::asked::{Asked, Given};
use crate::validate::pattern::Pattern;

/// The most bytes of words, or of parameters, that rules read: each pattern looks at each of them. More counts as what can't be
/// read.
pub const MAX_READ: usize = 4 * 1024;

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// What it's worth.
    pub score: u32,
    /// Why, for who is asked.
    pub reason: String,
    pub(super) when: Vec<Condition>,
}

/// What has to be so.
#[derive(Debug)]
pub(super) enum Condition {
    /// One of these tools is called.
    Tool(Vec<String>),
    /// It runs under one of these policies.
    Policy(Vec<String>),
    /// The command's program is one of these: by its whole path where that has a `/`, else by its last part.
    Program(Vec<String>),
    /// Any word of the command matches.
    Word(Pattern),
    /// There is a parameter at this JSON pointer, and if anything is said of it, it matches.
    Parameter(String, Option<Pattern>),
    /// A path beneath one of these is named, or the workspace is there.
    Path(Vec<String>),
    /// The policy gives one of these networks.
    Network(Vec<NetworkMode>),
    /// One of these is so of who asks.
    History(Vec<Past>),
}

/// What may be so of who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    /// Nothing of this tool or program of his has ever run to its end.
    FirstTime,
    /// Something of his was refused within the last hour.
    RefusedLately,
    /// Something of his has failed within the last hour.
    FailedLately,
}

impl Past {
    /// As files say it.
    pub(super) const WORDS: [(&'static str, Self); 3] = [
        ("first-time", Self::FirstTime),
        ("refused-lately", Self::RefusedLately),
        ("failed-lately", Self::FailedLately),
    ];
}

/// Whether something is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    So,
    NotSo,
    /// It can't be told.
    Unknown,
}

fn is(so: bool) -> Is {
    if so { Is::So } else { Is::NotSo }
}

/// A request as rules read it: what several of them look at is looked up once.
pub(super) struct Seen<'a> {
    asked: &'a Asked<'a>,
    history: &'a History,
    key: Option<Key>,
    words: OnceCell<Option<Vec<&'a str>>>,
    paths: OnceCell<Option<Paths>>,
}

/// The absolute paths that words name, and whether any word leads where nobody can tell.
struct Paths {
    named: Vec<String>,
    is_unclear: bool,
}

impl<'a> Seen<'a> {
    pub(super) fn new(asked: &'a Asked<'a>, history: &'a History, key: Option<Key>) -> Self {
        Self { asked, history, key, words: OnceCell::new(), paths: OnceCell::new() }
    }

    /// The words of a command, or the texts of parameters; `None`: they can't be read.
    fn words(&self) -> Option<&[&'a str]> {
        self.words.get_or_init(|| words(self.asked.given)).as_deref()
    }

    /// The paths that they name; `None`: they can't be read.
    fn paths(&self) -> Option<&Paths> {
        self.paths.get_or_init(|| self.words().map(paths)).as_ref()
    }
}

fn words(given: Given<'_>) -> Option<Vec<&str>> {
    match given {
        Given::Nothing => Some(Vec::new()),
        Given::Command(words) => {
            let bytes: usize = words.iter().map(|word| word.len() + 1).sum();
            if bytes > MAX_READ {
                return None;
            }
            words.iter().map(|word| core::str::from_utf8(word).ok()).collect()
        }
        Given::Parameters(parameters) => {
            if parameters.text().len() > MAX_READ {
                return None;
            }
            let mut found = Vec::new();
            texts(parameters.value().ok()?, &mut found);
            Some(found)
        }
    }
}

/// All texts in a value, names of members among them: what a tool is given and may take for a path.
fn texts<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(all) => all.iter().for_each(|one| texts(one, found)),
        Value::Object(object) => object.iter().for_each(|(name, one)| {
            found.push(name);
            texts(one, found);
        }),
        _ => {}
    }
}

impl Rule {
    /// Whether it holds: only if nothing in it doesn't, and what can't be told is no reason against it.
    pub(super) fn holds(&self, seen: &Seen<'_>) -> Is {
        let mut all = Is::So;
        for condition in &self.when {
            match condition.holds(seen) {
                Is::NotSo => return Is::NotSo,
                Is::Unknown => all = Is::Unknown,
                Is::So => {}
            }
        }
        all
    }
}

impl Condition {
    fn holds(&self, seen: &Seen<'_>) -> Is {
        let asked = seen.asked;
        let one_of = |names: &[String], name: Option<&str>| {
            is(name.is_some_and(|name| names.iter().any(|one| one == name)))
        };
        match self {
            Self::Tool(names) => one_of(names, asked.tool),
            Self::Policy(names) => one_of(names, asked.policy),
            Self::Program(names) => program(names, asked.given),
            Self::Word(pattern) => match (asked.given, seen.words()) {
                (Given::Command(_), Some(words)) => is(words.iter().any(|word| pattern.matches(word))),
                (Given::Command(_), None) => Is::Unknown,
                _ => Is::NotSo,
            },
            Self::Parameter(pointer, pattern) => parameter(pointer, pattern.as_ref(), asked.given),
            Self::Path(prefixes) => path(prefixes, seen),
            Self::Network(modes) => match asked.thing.network {
                Some(mode) => is(modes.contains(&mode)),
                None => Is::Unknown,
            },
            Self::History(pasts) => is(pasts.iter().any(|past| seen.is_so(*past))),
        }
    }
}

impl Seen<'_> {
    fn is_so(&self, past: Past) -> bool {
        let (uid, now) = (self.asked.principal.uid, self.asked.at.uptime);
        match past {
            Past::FirstTime => self.key.is_none_or(|key| self.history.is_first(uid, &key)),
            Past::RefusedLately => self.history.was_refused(uid, now),
            Past::FailedLately => self.history.has_failed(uid, now),
        }
    }
}

fn program(names: &[String], given: Given<'_>) -> Is {
    let Given::Command(words) = given else { return Is::NotSo };
    let Some(program) = words.first() else { return Is::NotSo };
    let last = program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    is(names.iter().any(|name| {
        let against = if name.contains('/') { program.as_slice() } else { last };
        name.as_bytes() == against
    }))
}

fn parameter(pointer: &str, pattern: Option<&Pattern>, given: Given<'_>) -> Is {
    let Given::Parameters(parameters) = given else { return Is::NotSo };
    let Ok(value) = parameters.value() else { return Is::Unknown };
    let (Some(found), Some(pattern)) = (value.pointer(pointer), pattern) else {
        return is(value.pointer(pointer).is_some());
    };
    let text = match found {
        Value::String(text) if text.len() <= MAX_READ => text.clone(),
        Value::Number(_) | Value::Bool(_) | Value::Null => found.to_string(),
        _ => return Is::Unknown,
    };
    is(pattern.matches(&text))
}

/// Whether a path beneath one of these is named anywhere in the words, or the workspace is there. If one of these is beneath what is
/// named, or beneath the workspace, nobody can tell: a relative word may lead there, and so may whatever goes down a tree.
fn path(prefixes: &[String], seen: &Seen<'_>) -> Is {
    let beneath = |path: &str| prefixes.iter().any(|prefix| is_beneath(prefix, path));
    let above = |path: &str| prefixes.iter().any(|prefix| is_beneath(path, prefix));
    let workspace = seen.asked.workspace.map(Path::to_str);
    if workspace.is_some_and(|workspace| workspace.is_none_or(beneath)) {
        return Is::So;
    }
    let Some(paths) = seen.paths() else { return Is::Unknown };
    if paths.named.iter().any(|path| beneath(path)) {
        return Is::So;
    }
    let is_above = workspace.flatten().is_some_and(above) || paths.named.iter().any(|path| above(path));
    if paths.is_unclear || is_above { Is::Unknown } else { Is::NotSo }
}

/// Words are what a program may be told, in whatever form, so paths are looked for behind `=`, in options, and in pieces of shell
/// text. One with a `..` leads where nobody can tell.
fn paths(words: &[&str]) -> Paths {
    let mut paths = Paths { named: Vec::new(), is_unclear: false };
    for piece in words.iter().flat_map(|word| word.split(is_between)) {
        if piece.split('/').any(|part| part == "..") {
            paths.is_unclear = true;
            continue;
        }
        // Behind an option's letters; what begins otherwise is beneath where it runs, which is the workspace.
        let from = piece.find('/').filter(|at| *at == 0 || piece.starts_with('-'));
        paths.named.extend(from.and_then(|from| piece.get(from..)).map(plain));
    }
    paths
}

/// What stands between paths in words and in shell text.
fn is_between(letter: char) -> bool {
    letter.is_whitespace() || "=:,;|&<>()[]{}\"'`@\\+!".contains(letter)
}

/// Without `.` and doubled slashes; the root is `/`.
fn plain(path: &str) -> String {
    let mut plain = String::with_capacity(path.len() + 1);
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        plain.push('/');
        plain.push_str(part);
    }
    if plain.is_empty() {
        plain.push('/');
    }
    plain
}

fn is_beneath(prefix: &str, path: &str) -> bool {
    prefix == "/" || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
