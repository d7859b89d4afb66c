//! One policy, ready to be resolved: inheritance done, contradictions refused, the system call filter compiled.
//!
//! What a policy doesn't state and has no parent for is, for limits, what the shipped `default` has; for
//! everything else the least: level strict, no path, no network, no variable.

use std::fmt::Write as _;
use std::sync::Arc;

use stockade_protocol::spec::{IoPriority, Level, NetworkMode, NetworkSpec, Ports};

use crate::amount::{Bound, Size, Time};
use crate::document::{Document, Limits};
use crate::error::{PolicyError, Problem};
use crate::names::{HARMLESS_NODES, UidRange, User, level_text};
use crate::place::Base;
use crate::position::{Located, Position};
use crate::said::Said;
use crate::syscalls::{Filter, Filters, Plan, Request};
use crate::text;

/// A policy. Immutable.
#[derive(Debug, Clone)]
pub struct Policy {
    pub(crate) name: String,
    pub(crate) file: Said,
    /// Names of the ancestors, the parent first.
    pub(crate) ancestors: Vec<String>,
    /// Whether every file it is made from is an operator's or shipped.
    pub(crate) trusted: bool,
    /// Whether every file it is made from is shipped.
    pub(crate) shipped: bool,
    pub(crate) document: Arc<Document>,
    pub(crate) level: Located<Level>,
    pub(crate) mode: Located<NetworkMode>,
    pub(crate) network: NetworkSpec,
    pub(crate) limits: EffectiveLimits,
    pub(crate) user: Located<User>,
    pub(crate) range: UidRange,
    pub(crate) plan: Arc<Plan>,
    pub(crate) filter: Arc<Filter>,
}

/// Limits with every default filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EffectiveLimits {
    pub(crate) wall_time: Bound<Time>,
    pub(crate) cpu_time: Bound<Time>,
    pub(crate) idle_time: Bound<Time>,
    pub(crate) memory: Bound<Size>,
    pub(crate) processes: u64,
    pub(crate) open_files: u64,
    pub(crate) file_size: Bound<Size>,
    pub(crate) output: Bound<Size>,
    pub(crate) stdin: Bound<Size>,
    pub(crate) core: Size,
    pub(crate) stack: Size,
    pub(crate) address_space: Bound<Size>,
    pub(crate) nice: u8,
    pub(crate) io_priority: IoPriority,
}

impl EffectiveLimits {
    /// The one place of defaults for limits. Those that the issue of a run names are `default`'s.
    const DEFAULT: Self = Self {
        wall_time: Bound::At(Time::seconds(60)),
        cpu_time: Bound::None,
        idle_time: Bound::None,
        memory: Bound::At(Size::mebibytes(512)),
        processes: 128,
        open_files: 1024,
        file_size: Bound::At(Size::mebibytes(1024)),
        output: Bound::At(Size::mebibytes(16)),
        stdin: Bound::None,
        core: Size::ZERO,
        stack: Size::mebibytes(8),
        address_space: Bound::None,
        nice: 0,
        io_priority: IoPriority::BestEffort(4),
    };

    fn of(limits: &Limits) -> Self {
        fn or<T: Copy>(stated: Option<&Located<T>>, default: T) -> T {
            stated.map_or(default, |located| located.value)
        }
        let default = Self::DEFAULT;
        Self {
            wall_time: or(limits.wall_time.as_ref(), default.wall_time),
            cpu_time: or(limits.cpu_time.as_ref(), default.cpu_time),
            idle_time: or(limits.idle_time.as_ref(), default.idle_time),
            memory: or(limits.memory.as_ref(), default.memory),
            processes: or(limits.processes.as_ref(), default.processes),
            open_files: or(limits.open_files.as_ref(), default.open_files),
            file_size: or(limits.file_size.as_ref(), default.file_size),
            output: or(limits.output.as_ref(), default.output),
            stdin: or(limits.stdin.as_ref(), default.stdin),
            core: or(limits.core.as_ref(), default.core),
            stack: or(limits.stack.as_ref(), default.stack),
            address_space: or(limits.address_space.as_ref(), default.address_space),
            // The reader allows 0 to 19.
            nice: limits.nice.as_ref().map_or(default.nice, |nice| u8::try_from(nice.value).unwrap_or(19)),
            io_priority: or(limits.io_priority.as_ref(), default.io_priority),
        }
    }
}

/// What a policy is made from.
pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) file: Said,
    pub(crate) ancestors: Vec<String>,
    pub(crate) trusted: bool,
    pub(crate) shipped: bool,
    /// Effective: inheritance is done.
    pub(crate) document: Document,
}

impl Policy {
    pub(crate) fn new(parts: Parts, filters: &mut Filters) -> Result<Self, PolicyError> {
        let Parts { name, file, ancestors, trusted, shipped, document } = parts;
        let level = document.level.clone().unwrap_or_else(|| Located::built_in(Level::Strict));
        let mode = document.network.mode.clone().unwrap_or_else(|| Located::built_in(NetworkMode::None));
        let user = document.run_as.user.clone().unwrap_or_else(|| {
            let minimal = level.value == Level::Minimal;
            Located::built_in(if minimal { User::Caller } else { User::Ephemeral })
        });
        check_level(&document, &level, &mode, &user)?;
        check_home(&document)?;
        check_tmp(&document)?;
        let network = network(&document, mode.value);
        let request =
            Request { level: level.value, network: &network, syscalls: &document.syscalls, trusted };
        let plan = Plan::new(&request)?;
        let whole = Position { file: file.clone(), line: 1, column: 1 };
        let filter = filters
            .filter(&plan, &request)
            .map_err(|reason| PolicyError::at(&whole, Problem::Filter(reason)))?;
        let limits = EffectiveLimits::of(&document.limits);
        let range = document.run_as.range.as_ref().map_or(UidRange::DEFAULT, |range| range.value);
        Ok(Self {
            name,
            file,
            ancestors,
            trusted,
            shipped,
            level,
            mode,
            network,
            limits,
            user,
            range,
            plan: Arc::new(plan),
            filter,
            document: Arc::new(document),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it says it is for; empty if it doesn't.
    #[must_use]
    pub fn description(&self) -> &str {
        self.document.description.as_ref().map_or("", |text| &text.value)
    }

    /// The file it was read from.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Whether all of it comes with the program: it and every policy that it extends.
    #[must_use]
    pub fn is_shipped(&self) -> bool {
        self.shipped
    }

    /// Its level.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level.value
    }

    /// The network it gives.
    #[must_use]
    pub fn network(&self) -> &NetworkSpec {
        &self.network
    }

    /// Whether it has secrets in output named and not shown; `None`: it doesn't say.
    #[must_use]
    pub fn redacts(&self) -> Option<bool> {
        self.document.output.redact.as_ref().map(|redact| redact.value)
    }

    /// Names of the policies it extends, the parent first.
    #[must_use]
    pub fn ancestors(&self) -> &[String] {
        &self.ancestors
    }

    /// The whole policy as TOML that needs no parent, every default written out: what `policy show` prints. Read
    /// back, it is the same policy.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        // Writing to a string doesn't fail.
        let _ = writeln!(out, "# {}, from {}", self.name, self.file);
        if !self.ancestors.is_empty() {
            let _ = writeln!(out, "# with what it has of: {}", self.ancestors.join(", "));
        }
        out.push_str(&text::whole(self));
        out
    }
}

/// What the level can't hold.
fn check_level(
    document: &Document,
    level: &Located<Level>,
    mode: &Located<NetworkMode>,
    user: &Located<User>,
) -> Result<(), PolicyError> {
    let cannot = |at: &Position, cannot: &str, remedy: &str| {
        let level = level_text(level.value);
        PolicyError::at(at, Problem::Level { level, cannot: cannot.into(), remedy: remedy.into() })
    };
    if mode.value == NetworkMode::Loopback && level.value != Level::Strict {
        let remedy = "use level \"strict\", or mode \"none\"";
        return Err(cannot(&mode.at, "has no network namespace, so no loopback of its own", remedy));
    }
    if level.value != Level::Minimal {
        return Ok(());
    }
    let filesystem = &document.filesystem;
    let guards = [("deny", &filesystem.deny), ("protect", &filesystem.protect)];
    for (key, list) in guards {
        if let Some(first) = list.iter().flatten().next() {
            let what = format!("has no mounts, so it can't hold `{key}`");
            return Err(cannot(&first.at, &what, "use level \"moderate\", or extend a policy without it"));
        }
    }
    if let Some(size) = filesystem.tmp_size.as_ref().filter(|size| size.value != Size::ZERO) {
        return Err(cannot(&size.at, "has no mounts, so no private /tmp", "set `tmp-size = 0`"));
    }
    if let Some(hidden) = filesystem.hidden_home.as_ref().filter(|hidden| hidden.value) {
        return Err(cannot(&hidden.at, "has no mounts, so no private home", "set `hidden-home = false`"));
    }
    if user.value == User::Ephemeral {
        let remedy = "set `user = \"caller\"`";
        return Err(cannot(&user.at, "can't map the workspace to another user id", remedy));
    }
    Ok(())
}

/// What only an operator may say, in a user's own file before it is joined with its parents: what those say is
/// theirs. Mode `host` is judged for each request: see `resolve`.
pub(crate) fn check_users(document: &Document) -> Result<(), PolicyError> {
    if let Some(range) = &document.run_as.range {
        let problem = Problem::NotTrusted { what: "`range` may be set".into(), reason: String::new() };
        return Err(PolicyError::at(&range.at, problem));
    }
    let dear = |node: &&Located<String>| !HARMLESS_NODES.contains(&node.value.as_str());
    if let Some(node) = document.filesystem.dev.iter().flatten().find(dear) {
        let what = format!("`/dev/{}` may be given", node.value);
        let reason = format!("; any policy may give: {}", HARMLESS_NODES.join(", "));
        return Err(PolicyError::at(&node.at, Problem::NotTrusted { what, reason }));
    }
    Ok(())
}

/// A private home can't show the host's.
fn check_home(document: &Document) -> Result<(), PolicyError> {
    let filesystem = &document.filesystem;
    if !filesystem.hidden_home.as_ref().is_some_and(|hidden| hidden.value) {
        return Ok(());
    }
    let lists = [("read", &filesystem.read), ("write", &filesystem.write)];
    for (key, list) in lists {
        if let Some(home) = list.iter().flatten().find(|place| place.value.is_base(Base::Home)) {
            let conflict = format!(
                "`{key}` shows `${{home}}`, but `hidden-home = true` puts a private empty one there; \
                 set `hidden-home = false`, or show folders below it"
            );
            return Err(PolicyError::at(&home.at, Problem::Conflict(conflict)));
        }
    }
    Ok(())
}

/// What lies in a private directory isn't there before the run.
fn check_tmp(document: &Document) -> Result<(), PolicyError> {
    let filesystem = &document.filesystem;
    if filesystem.tmp_size.as_ref().is_none_or(|size| size.value == Size::ZERO) {
        return Ok(());
    }
    let lists = [("read", &filesystem.read), ("write", &filesystem.write), ("execute", &filesystem.execute)];
    for (key, list) in lists {
        if let Some(place) = list.iter().flatten().find(|place| place.value.is_below(Base::Tmp)) {
            let conflict = format!(
                "`{key}` shows `{}`, but `tmp-size` makes `${{tmp}}` the run's own and empty at its start; \
                 name the host's as a path beneath /tmp",
                place.value
            );
            return Err(PolicyError::at(&place.at, Problem::Conflict(conflict)));
        }
    }
    Ok(())
}

/// Without a network there are no ports.
fn network(document: &Document, mode: NetworkMode) -> NetworkSpec {
    let ports = |stated: &Option<Located<Ports>>| match stated {
        Some(ports) if mode != NetworkMode::None => ports.value.clone(),
        _ => Ports::Only(Vec::new()),
    };
    NetworkSpec {
        mode,
        tcp_connect: ports(&document.network.tcp_connect),
        tcp_bind: ports(&document.network.tcp_bind),
    }
}
