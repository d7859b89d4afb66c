//! A policy file as it is written: every key optional, every value parsed and located, nothing inherited yet.

use std::collections::BTreeMap;

use stockade_protocol::spec::{IoPriority, Level, NetworkMode, Ports};

use crate::amount::{Bound, SIZE_EXPECTED, Size, TIME_EXPECTED, Time};
use crate::error::{PolicyError, Problem};
use crate::names::{
    IO_EXPECTED, NamePattern, POLICY_NAME_EXPECTED, UidRange, User, io_priority, level, mode, node,
    policy_name, ports_only, user, variable,
};
use crate::place::Place;
use crate::position::{Lines, Located, Position};
use crate::reader::{self, Section};
use crate::said::Said;
use crate::tree::{Built, Table};

/// The longest description, in bytes.
const MAX_DESCRIPTION: usize = 1024;
/// The kernel's own bound on processes (`PID_MAX_LIMIT`).
const MAX_PROCESSES: u64 = 4 * 1024 * 1024;
/// The kernel's own bound on descriptors (`fs.nr_open`'s default).
const MAX_OPEN_FILES: u64 = 1024 * 1024;
/// Fewer descriptors start no program.
const MIN_OPEN_FILES: u64 = 16;
/// A smaller stack starts no program.
const MIN_STACK: Size = Size::mebibytes(1);
/// Less memory starts no program.
const MIN_MEMORY: Size = Size::mebibytes(1);

type Opt<T> = Option<Located<T>>;
type List<T> = Option<Vec<Located<T>>>;

/// One file, or after inheritance one policy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Document {
    pub(crate) description: Opt<String>,
    pub(crate) extends: Opt<String>,
    pub(crate) level: Opt<Level>,
    pub(crate) filesystem: Filesystem,
    pub(crate) network: Network,
    pub(crate) environment: Environment,
    pub(crate) limits: Limits,
    pub(crate) output: Output,
    pub(crate) syscalls: Syscalls,
    pub(crate) run_as: RunAs,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Filesystem {
    pub(crate) read: List<Place>,
    pub(crate) write: List<Place>,
    pub(crate) execute: List<Place>,
    pub(crate) deny: List<Place>,
    pub(crate) protect: List<Place>,
    pub(crate) tmp_size: Opt<Size>,
    pub(crate) hidden_home: Opt<bool>,
    pub(crate) dev: List<String>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Network {
    pub(crate) mode: Opt<NetworkMode>,
    pub(crate) tcp_connect: Opt<Ports>,
    pub(crate) tcp_bind: Opt<Ports>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    pub(crate) allow: List<NamePattern>,
    /// Where the caller's doesn't arrive.
    pub(crate) default: BTreeMap<String, Located<String>>,
    pub(crate) set: BTreeMap<String, Located<String>>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Limits {
    pub(crate) wall_time: Opt<Bound<Time>>,
    pub(crate) cpu_time: Opt<Bound<Time>>,
    pub(crate) idle_time: Opt<Bound<Time>>,
    pub(crate) memory: Opt<Bound<Size>>,
    pub(crate) processes: Opt<u64>,
    pub(crate) open_files: Opt<u64>,
    pub(crate) file_size: Opt<Bound<Size>>,
    pub(crate) output: Opt<Bound<Size>>,
    pub(crate) stdin: Opt<Bound<Size>>,
    pub(crate) core: Opt<Size>,
    pub(crate) stack: Opt<Size>,
    pub(crate) address_space: Opt<Bound<Size>>,
    pub(crate) nice: Opt<u64>,
    pub(crate) io_priority: Opt<IoPriority>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Output {
    /// Whether secrets in it are named and not shown.
    pub(crate) redact: Opt<bool>,
    /// Variables whose values are secrets, beside those whose names say so.
    pub(crate) secrets: List<NamePattern>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Syscalls {
    pub(crate) profile: Opt<String>,
    pub(crate) allow: List<String>,
    pub(crate) deny: List<String>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct RunAs {
    pub(crate) user: Opt<User>,
    pub(crate) range: Opt<UidRange>,
}

/// Reads one file's text. `name` is what the policy is called after its file.
pub(crate) fn parse(file: &Said, name: &str, text: &str) -> Result<Document, PolicyError> {
    let lines = Lines::new(file, text);
    reader::whole(&lines, |root| document(root, name, &lines.at(&(0..0))))
}

/// As [`parse`], for a shipped policy, which the build has read.
pub(crate) fn built(file: &'static str, name: &str, built: &'static Built) -> Result<Document, PolicyError> {
    document(built.table(file), name, &Position { file: Said::Built(file), line: 1, column: 1 })
}

fn document(root: Table<'_>, name: &str, start: &Position) -> Result<Document, PolicyError> {
    let known = [
        "name",
        "description",
        "extends",
        "level",
        "filesystem",
        "network",
        "environment",
        "limits",
        "output",
        "syscalls",
        "run-as",
    ];
    let policy = Section::new("the policy", root, &known)?;
    check_name(&policy, name, start)?;
    Ok(Document {
        description: policy.text("description", "a sentence", description)?,
        extends: policy.text("extends", POLICY_NAME_EXPECTED, policy_name)?,
        level: policy.text("level", "\"strict\", \"moderate\" or \"minimal\"", level)?,
        filesystem: filesystem(&policy)?,
        network: network(&policy)?,
        environment: environment(&policy)?,
        limits: limits(&policy)?,
        output: output(&policy)?,
        syscalls: syscalls(&policy)?,
        run_as: run_as(&policy)?,
    })
}

fn check_name(policy: &Section<'_>, expected: &str, start: &Position) -> Result<(), PolicyError> {
    let stated = policy.text("name", POLICY_NAME_EXPECTED, policy_name)?;
    if let Err(reason) = policy_name(expected) {
        let problem =
            Problem::Value { key: "file name".into(), reason, expected: POLICY_NAME_EXPECTED.into() };
        return Err(PolicyError::at(start, problem));
    }
    match stated {
        Some(name) if name.value != expected => {
            let problem = Problem::Name { found: name.value, expected: expected.into() };
            Err(PolicyError::at(&name.at, problem))
        }
        _ => Ok(()),
    }
}

fn description(text: &str) -> Result<String, String> {
    if text.len() > MAX_DESCRIPTION {
        return Err(format!("{} bytes are over the limit of {MAX_DESCRIPTION}", text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err("it has a control character or a line break in it".into());
    }
    Ok(text.to_owned())
}

fn filesystem(policy: &Section<'_>) -> Result<Filesystem, PolicyError> {
    let known = ["read", "write", "execute", "deny", "protect", "tmp-size", "hidden-home", "dev"];
    let Some(section) = policy.section("filesystem", "[filesystem]", &known)? else {
        return Ok(Filesystem::default());
    };
    let absolute = "a path that begins with `/`, `${workspace}`, `${home}`, `${tmp}` or `${cache}`";
    let guarded = "a path below the workspace, or one that begins with `/` or a variable";
    Ok(Filesystem {
        read: section.list("read", absolute, |text| shown_place(text, Use::Read), Place::built)?,
        write: section.list("write", absolute, |text| shown_place(text, Use::Write), Place::built)?,
        execute: section.list("execute", absolute, |text| shown_place(text, Use::Execute), Place::built)?,
        deny: section.list("deny", guarded, Place::guarded, Place::built)?,
        protect: section.list("protect", guarded, Place::guarded, Place::built)?,
        tmp_size: section.text_or_zero("tmp-size", SIZE_EXPECTED, Size::ZERO, Size::parse)?,
        hidden_home: section.truth("hidden-home")?,
        dev: section.list("dev", "a node's name below /dev, as in \"null\"", node, ToOwned::to_owned)?,
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Use {
    Read,
    Write,
    Execute,
}

/// A place that may stand in `read`, `write` or `execute`.
fn shown_place(text: &str, purpose: Use) -> Result<Place, String> {
    let place = Place::absolute(text)?;
    if place.is_root() {
        return Err("`/` would show everything; name the directories that are needed".into());
    }
    if place.is_literally_within("/proc") {
        return Err("the run has a /proc of its own; nothing of the host's can be shown".into());
    }
    if place.is_literally_within("/dev") {
        return Err("devices are listed by name in `dev`".into());
    }
    if purpose != Use::Read && place.is_literally_within("/sys") {
        return Err("/sys can only be read".into());
    }
    Ok(place)
}

fn network(policy: &Section<'_>) -> Result<Network, PolicyError> {
    let Some(section) = policy.section("network", "[network]", &["mode", "tcp-connect", "tcp-bind"])? else {
        return Ok(Network::default());
    };
    let ports = |key| {
        section.numbers_or(key, ("any", Ports::Any), (1, 65_535), |numbers| {
            ports_only(numbers.into_iter().filter_map(|port| u16::try_from(port).ok()).collect())
        })
    };
    Ok(Network {
        mode: section.text("mode", "\"none\", \"loopback\" or \"host\"", mode)?,
        tcp_connect: ports("tcp-connect")?,
        tcp_bind: ports("tcp-bind")?,
    })
}

fn environment(policy: &Section<'_>) -> Result<Environment, PolicyError> {
    let Some(section) = policy.section("environment", "[environment]", &["allow", "default", "set"])? else {
        return Ok(Environment::default());
    };
    let expected = "a variable's name, or its beginning and `*`, as in \"LC_*\"";
    Ok(Environment {
        allow: section.list("allow", expected, NamePattern::parse, NamePattern::built)?,
        default: variables(&section, "default")?,
        set: variables(&section, "set")?,
    })
}

fn variables(
    section: &Section<'_>,
    key: &'static str,
) -> Result<BTreeMap<String, Located<String>>, PolicyError> {
    let texts = section.texts(key, "variables and their texts, as in { LANG = \"C\" }", variable)?;
    if let Some((name, value)) = texts.iter().find(|(_, value)| value.value.contains('\0')) {
        let problem = Problem::Value {
            key: format!("{key}.{name}"),
            reason: "it has a NUL in it".into(),
            expected: "text without one".into(),
        };
        return Err(PolicyError::at(&value.at, problem));
    }
    Ok(texts.into_iter().collect())
}

fn limits(policy: &Section<'_>) -> Result<Limits, PolicyError> {
    let known = [
        "wall-time",
        "cpu-time",
        "idle-time",
        "memory",
        "processes",
        "open-files",
        "file-size",
        "output",
        "stdin",
        "core",
        "stack",
        "address-space",
        "nice",
        "io-priority",
    ];
    let Some(section) = policy.section("limits", "[limits]", &known)? else {
        return Ok(Limits::default());
    };
    let time = |key| section.text(key, format_args!("{TIME_EXPECTED}, or \"none\""), bound_time);
    let size_from = |key, lowest: Size| {
        section.text(key, format_args!("{SIZE_EXPECTED}, or \"none\""), |text| bound_size(text, lowest))
    };
    let size = |key| {
        let expected = format_args!("{SIZE_EXPECTED}, or \"none\"");
        section.text_or_zero(key, expected, Bound::At(Size::ZERO), |text| bound_size(text, Size::ZERO))
    };
    Ok(Limits {
        wall_time: time("wall-time")?,
        cpu_time: time("cpu-time")?,
        idle_time: time("idle-time")?,
        memory: size_from("memory", MIN_MEMORY)?,
        processes: section.number("processes", 1, MAX_PROCESSES)?,
        open_files: section.number("open-files", MIN_OPEN_FILES, MAX_OPEN_FILES)?,
        file_size: size("file-size")?,
        output: size("output")?,
        stdin: size("stdin")?,
        core: section.text_or_zero("core", SIZE_EXPECTED, Size::ZERO, Size::parse)?,
        stack: section.text("stack", SIZE_EXPECTED, |text| at_least(Size::parse(text)?, MIN_STACK))?,
        address_space: size_from("address-space", MIN_MEMORY)?,
        nice: section.number("nice", 0, 19)?,
        io_priority: section.text("io-priority", IO_EXPECTED, io_priority)?,
    })
}

fn bound_time(text: &str) -> Result<Bound<Time>, String> {
    if text == "none" {
        return Ok(Bound::None);
    }
    match Time::parse(text)? {
        time if time.milliseconds() == 0 => Err("no time at all would end every run at its start".into()),
        time => Ok(Bound::At(time)),
    }
}

fn bound_size(text: &str, lowest: Size) -> Result<Bound<Size>, String> {
    if text == "none" { Ok(Bound::None) } else { at_least(Size::parse(text)?, lowest).map(Bound::At) }
}

fn at_least(size: Size, lowest: Size) -> Result<Size, String> {
    if size < lowest { Err(format!("`{size}` is under {lowest}, which starts no program")) } else { Ok(size) }
}

fn output(policy: &Section<'_>) -> Result<Output, PolicyError> {
    let Some(section) = policy.section("output", "[output]", &["redact", "secrets"])? else {
        return Ok(Output::default());
    };
    let expected = "a variable's name, or its beginning and `*`, as in \"DATABASE_*\"";
    Ok(Output {
        redact: section.truth("redact")?,
        secrets: section.list("secrets", expected, NamePattern::parse, NamePattern::built)?,
    })
}

fn syscalls(policy: &Section<'_>) -> Result<Syscalls, PolicyError> {
    let Some(section) = policy.section("syscalls", "[syscalls]", &["profile", "allow", "deny"])? else {
        return Ok(Syscalls::default());
    };
    let plain = |text: &str| Ok(text.to_owned());
    Ok(Syscalls {
        profile: section.text("profile", "a profile's name", plain)?,
        allow: section.list("allow", "a system call's name", plain, ToOwned::to_owned)?,
        deny: section.list("deny", "a system call's name", plain, ToOwned::to_owned)?,
    })
}

fn run_as(policy: &Section<'_>) -> Result<RunAs, PolicyError> {
    let Some(section) = policy.section("run-as", "[run-as]", &["user", "range"])? else {
        return Ok(RunAs::default());
    };
    let range = "the first and last host user id, as in \"2000000000-2000065535\"";
    Ok(RunAs {
        user: section.text("user", "\"caller\" or \"ephemeral\"", user)?,
        range: section.text("range", range, UidRange::parse)?,
    })
}
