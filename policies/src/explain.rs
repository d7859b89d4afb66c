//! May a run do this, and which rule says so? Answered from the resolved spec that enforces: its mounts, guards,
//! ports, environment and finished filter, not from the policy's text.
//!
//! An answer is about the policy. That a file doesn't exist, belongs to somebody else or that nobody listens on a
//! port is for the kernel to say.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use stockade_protocol::spec::{Level, MountKind, NetworkMode, Ports};

use crate::names::mode_text;
use crate::place::is_within;
use crate::position::Position;
use crate::resolve::{Guard, Origin, Resolved, Visible, allowing};
use crate::rule::Rule;

/// What may be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Question {
    /// Read a file, or list a directory. A relative path is beneath the workspace.
    Read(PathBuf),
    /// Write, create, remove, rename, link or truncate.
    Write(PathBuf),
    /// Execute a file.
    Execute(PathBuf),
    /// Connect to a TCP port.
    Connect(u16),
    /// Take connections on a TCP port.
    Bind(u16),
    /// Whether an environment variable reaches the tool.
    Env(String),
    /// Make a system call, by name.
    Syscall(String),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether the policy allows it.
    pub allowed: bool,
    /// The rule that decided, as a person would say it.
    pub rule: String,
    /// The file the rule stands in.
    pub file: String,
    /// Its line; 0 for a default.
    pub line: u32,
    /// What else is to be known; may be empty.
    pub note: String,
    /// Of a variable that the policy sets: to what. That may be a secret: it's for who may read the policy's file.
    pub value: Option<Vec<u8>>,
}

/// Answers to what is asked of a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Read,
    Write,
    Execute,
}

impl Answer {
    fn new(allowed: bool, rule: impl Into<String>, at: &Position, note: impl Into<String>) -> Self {
        let (file, line) = (at.file.to_string(), at.line);
        Self { allowed, rule: rule.into(), file, line, note: note.into(), value: None }
    }

    fn by(allowed: bool, rule: Rule<'_>, note: impl Into<String>) -> Self {
        Self::new(allowed, rule.to_string(), &rule.at(), note)
    }
}

impl Resolved {
    /// Answers a question about this run.
    #[must_use]
    pub fn explain(&self, question: &Question) -> Answer {
        match question {
            Question::Read(path) => self.path(path, Use::Read),
            Question::Write(path) => self.path(path, Use::Write),
            Question::Execute(path) => self.path(path, Use::Execute),
            Question::Connect(port) => self.port("tcp-connect", *port),
            Question::Bind(port) => self.port("tcp-bind", *port),
            Question::Env(name) => self.variable(name),
            Question::Syscall(name) => self.call(name),
        }
    }

    fn path(&self, path: &std::path::Path, purpose: Use) -> Answer {
        let Some(path) = self.absolute(path) else {
            let note = "ask for a path without `..` and NUL";
            return Answer::new(false, "no rule is about such a path", &Position::built_in(), note);
        };
        let visible = self.visible();
        if let Some(guard) = beneath(&visible.deny, &path) {
            return Answer::by(false, guard.rule, "no access at all, whether it exists or not");
        }
        let Some(entry) = visible.deciding(&path) else { return self.invisible(&visible, &path) };
        if purpose == Use::Write
            && let Some(guard) = beneath(&visible.protect, &path)
        {
            let note = "where it exists when the run starts; what comes into being during the run is listed at its end";
            return Answer::by(false, guard.rule, note);
        }
        let (rule, key) = match purpose {
            Use::Read => (entry.grants.read, "read"),
            Use::Write => (entry.grants.write, "write"),
            Use::Execute => (entry.grants.execute, "execute"),
        };
        match (&entry.kind, rule) {
            (MountKind::Proc, Some(rule)) => Answer::by(true, rule, "of the run's own processes only"),
            (MountKind::Dev { nodes, shm_size }, Some(rule)) => {
                let there = path == b"/dev" && purpose == Use::Read || is_node(&path, nodes, *shm_size);
                Answer::by(there, rule, if there { "" } else { "the policy's `dev` doesn't list it" })
            }
            (_, Some(rule)) => Answer::by(true, rule, note(&visible, &path, purpose)),
            (_, None) => self.not_granted(&visible, &path, key),
        }
    }

    /// Something shows the path, but nothing grants this use of it.
    fn not_granted(&self, visible: &Visible<'_>, path: &[u8], key: &str) -> Answer {
        let guard = beneath(&visible.moot, path).filter(|_| key == "write");
        if let Some(guard) = guard {
            return Answer::by(false, guard.rule, "");
        }
        let rule = format!("no entry of [filesystem] {key} is at or above it");
        Answer::new(false, rule, &self.policy_itself(), "")
    }

    fn invisible(&self, visible: &Visible<'_>, path: &[u8]) -> Answer {
        if let Some(guard) = beneath(&visible.moot, path) {
            return Answer::by(false, guard.rule, "");
        }
        let note = if visible.is_there(path) { "it is only on the way to what is shown" } else { "" };
        Answer::new(false, "no entry of [filesystem] shows it", &self.policy_itself(), note)
    }

    /// What the spec was made from, rule by rule: it was, so there is no error.
    fn visible(&self) -> Visible<'_> {
        self.confines.visible().unwrap_or_default()
    }

    fn port(&self, key: &str, port: u16) -> Answer {
        let network = &self.spec.network;
        let (ports, stated) = if key == "tcp-connect" {
            (&network.tcp_connect, &self.confines.policy.document.network.tcp_connect)
        } else {
            (&network.tcp_bind, &self.confines.policy.document.network.tcp_bind)
        };
        if network.mode == NetworkMode::None {
            let note = match self.spec.level {
                Level::Strict => "the run's network namespace has nothing in it",
                Level::Moderate | Level::Minimal => "only AF_UNIX sockets can be made",
            };
            return Answer::new(false, "[network] mode = \"none\"", &self.confines.policy.mode.at, note);
        }
        let at = stated.as_ref().map_or_else(|| self.policy_itself(), |ports| ports.at.clone());
        let note = match (network.mode, key) {
            (NetworkMode::Loopback, _) => "among the run's own processes only",
            (_, "tcp-bind") if port < 1024 => "the kernel may refuse ports below 1024 on its own account",
            (_, "tcp-bind") => "a socket that listens without a bind gets a free port, which no rule sees",
            _ => "",
        };
        match ports {
            Ports::Any => Answer::new(port != 0, format!("[network] {key} = \"any\""), &at, note),
            Ports::Only(list) if list.contains(&port) => {
                Answer::new(true, format!("[network] {key} lists {port}"), &at, note)
            }
            Ports::Only(_) => {
                let mode = mode_text(network.mode);
                Answer::new(false, format!("[network] {key} doesn't list {port} (mode \"{mode}\")"), &at, "")
            }
        }
    }

    fn variable(&self, name: &str) -> Answer {
        // What they are was resolved without an error.
        let variables = self.confines.variables(&self.given).unwrap_or_default();
        if let Some(variable) = variables.get(name.as_bytes()) {
            let is_set = !matches!(variable.origin, Origin::Caller(_));
            let value = is_set.then(|| variable.value.to_vec());
            return Answer { value, ..Answer::by(true, variable.origin.rule(), "") };
        }
        match allowing(&self.confines.policy, name.as_bytes()) {
            Some(pattern) => Answer::by(true, Rule::Allowed(pattern), "the caller has no such variable"),
            None => Answer::new(false, "[environment] allow doesn't list it", &self.policy_itself(), ""),
        }
    }

    fn call(&self, name: &str) -> Answer {
        match self.confines.policy.plan.explain(&self.confines.policy.filter, &self.spec.seccomp, name) {
            Some(answer) => Answer::new(answer.allowed, answer.rule, &answer.at, answer.note),
            None => {
                let note = "what the kernel may have under that name answers ENOSYS";
                Answer::new(false, "no system call of that name is known", &Position::built_in(), note)
            }
        }
    }

    /// The policy as a whole, for answers about what it doesn't say.
    fn policy_itself(&self) -> Position {
        Position { file: self.confines.policy.file.clone(), line: 1, column: 1 }
    }

    fn absolute(&self, path: &std::path::Path) -> Option<Vec<u8>> {
        let bytes = path.as_os_str().as_bytes();
        let names = bytes.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
        let mut out =
            if bytes.starts_with(b"/") { Vec::new() } else { self.confines.roots.workspace.clone() };
        for name in names {
            if name == b".." || name.contains(&0) {
                return None;
            }
            out.push(b'/');
            out.extend_from_slice(name);
        }
        Some(if out.is_empty() { b"/".to_vec() } else { out })
    }
}

/// What else is to be known of a path that is granted.
fn note(visible: &Visible<'_>, path: &[u8], purpose: Use) -> String {
    let private = visible.deciding(path).is_some_and(|entry| !entry.is_host());
    if private {
        return "private to the run, empty at its start, gone at its end".into();
    }
    let guards = visible.deny.iter().chain(&visible.protect);
    let below = guards.into_iter().filter(|guard| is_within(&guard.path, path)).count();
    match purpose {
        Use::Write if below > 0 => {
            format!("{below} guarded paths beneath it stay as they are, and it can't be renamed away")
        }
        _ => String::new(),
    }
}

fn beneath<'a, 'p>(guards: &'a [Guard<'p>], path: &[u8]) -> Option<&'a Guard<'p>> {
    guards.iter().find(|guard| is_within(path, &guard.path))
}

/// What stands below a run's `/dev`: see `MountKind::Dev`.
fn is_node(path: &[u8], nodes: &[stockade_protocol::Bytes], shm_size: u64) -> bool {
    const ALWAYS: [&[u8]; 7] = [b"fd", b"stdin", b"stdout", b"stderr", b"ptmx", b"pts", b"shm"];
    let Some(name) = path.strip_prefix(b"/dev/") else { return false };
    let first = name.split(|byte| *byte == b'/').next().unwrap_or(name);
    let always = ALWAYS.contains(&first) && (first != b"shm" || shm_size > 0);
    always || nodes.iter().any(|node| node.0 == name)
}
