//! Reads `limits.toml`: how often what may be done, and when breakers open. Pure: whoever opens the file gives its text.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use stockade_policies::reader::{self, Known, Section};
use stockade_policies::{Located, Mistake, Position, Problem};

use crate::access::{self, LOCKOUT_KEYS};
use crate::breaker::{self, BREAKER_KEYS, Settings};
use crate::rate::limits::{Limits, Stated, Tier};
use crate::rate::pace::{Adaptive, PERCENT};
use crate::rate::quota::{Limit, MOST, RATE_EXPECTED};

/// The file's name, in the directory of configuration.
pub const FILE: &str = "limits.toml";

const KEYS: [&str; 8] = ["rate", "tools", "policies", "tiers", "adaptive", "breaker", "breakers", "lockout"];
const RATE: Known<'_> =
    Known { key: "rate", name: "[rate]", keys: &["each", "burst", "total", "total-burst"] };
const TOOLS: Known<'_> = Known { key: "tools", name: "[tools.NAME]", keys: &["rate", "burst"] };
const POLICIES: Known<'_> = Known { key: "policies", name: "[policies.NAME]", keys: &["rate", "burst"] };
const TIERS: Known<'_> = Known {
    key: "tiers",
    name: "[tiers.NAME]",
    keys: &["roles", "percent", "each", "burst", "total", "total-burst"],
};
const ADAPTIVE: Known<'_> =
    Known { key: "adaptive", name: "[adaptive]", keys: &["cpu", "memory", "runs", "floor", "ceiling"] };
const BREAKER: Known<'_> = Known { key: "breaker", name: "[breaker]", keys: &BREAKER_KEYS };
const BREAKERS: Known<'_> = Known { key: "breakers", name: "[breakers.NAME]", keys: &BREAKER_KEYS };
const LOCKOUT: Known<'_> = Known { key: "lockout", name: "[lockout]", keys: &LOCKOUT_KEYS };

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limited {
    /// How often.
    pub limits: Limits,
    /// Breakers of tools without their own.
    pub breaker: Settings,
    /// Tools' own, by name.
    pub breakers: BTreeMap<String, Settings>,
    /// Where it names tools, in its order within each kind of table.
    pub named: Vec<Named>,
    /// Where it names roles.
    pub roles: Vec<Located<String>>,
    /// When somebody is locked out, and where it says so.
    pub lockout: Option<Located<access::Settings>>,
}

/// A tool's name in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The table's: `tools` or `breakers`.
    pub table: &'static str,
    /// The tool's.
    pub name: String,
    /// Where.
    pub at: Position,
}

/// As a warning that no tool is named so.
impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, name, at } = self;
        write!(f, "{at}: [{table}.{}] is for a tool that isn't there", name.escape_debug())
    }
}

impl Limited {
    /// Names that no tool has: what is said of them holds for nothing. `is_tool`: whether there is a tool of a name.
    pub fn of_no_tool(&self, is_tool: impl Fn(&str) -> bool) -> impl Iterator<Item = &Named> {
        self.named.iter().filter(move |named| !is_tool(&named.name))
    }
}

/// Reads a text. `file`: as errors name it.
///
/// # Errors
/// All that is wrong with it, in its order; at least one mistake.
pub fn read(file: &str, text: &str) -> Result<Limited, Vec<Mistake>> {
    let mut limited = Limited::default();
    let mut mistakes = Vec::new();
    reader::document((file, text), ("limits.toml", &KEYS), &mut mistakes, |root, mistakes| {
        limited = whole(root, mistakes);
    });
    if mistakes.is_empty() { Ok(limited) } else { Err(mistakes) }
}

fn whole(root: &Section<'_>, mistakes: &mut Vec<Mistake>) -> Limited {
    let mut limited = Limited::default();
    let limits = &mut limited.limits;
    if let Some(section) = root.table(&RATE, mistakes) {
        limits.each = stated(&section, "each", "burst", mistakes).unwrap_or_else(Stated::nothing);
        limits.total = stated(&section, "total", "total-burst", mistakes).unwrap_or_else(Stated::nothing);
    }
    for (known, into) in [(&TOOLS, &mut limits.tools), (&POLICIES, &mut limits.policies)] {
        for (name, section) in root.named(known, mistakes) {
            if known.key == TOOLS.key {
                limited.named.push(Named { table: TOOLS.key, name: name.value.clone(), at: name.at.clone() });
            }
            match stated(&section, "rate", "burst", mistakes) {
                Some(stated) => drop(into.insert(name.value, stated)),
                None if section.at("rate").or(section.at("burst")).is_none() => {
                    mistakes.push(missing(&name.at, "rate", RATE_EXPECTED));
                }
                None => {}
            }
        }
    }
    for (name, section) in root.named(&TIERS, mistakes) {
        limits.tiers.extend(tier(&name, &section, &mut limited.roles, mistakes));
    }
    if let Some(section) = root.table(&LOCKOUT, mistakes) {
        let value = access::read_lockout(&section, mistakes);
        limited.lockout = Some(Located { value, at: section.start() });
    }
    if let Some(section) = root.table(&ADAPTIVE, mistakes) {
        limits.adaptive = adaptive(&section, mistakes);
    }
    if let Some(section) = root.table(&BREAKER, mistakes) {
        limited.breaker = breaker::read(&section, limited.breaker, mistakes);
    }
    for (name, section) in root.named(&BREAKERS, mistakes) {
        limited.named.push(Named { table: BREAKERS.key, name: name.value.clone(), at: name.at.clone() });
        limited.breakers.insert(name.value, breaker::read(&section, limited.breaker, mistakes));
    }
    limited
}

/// A rate and its burst; a burst without a rate is a mistake.
fn stated(section: &Section<'_>, rate: &str, burst: &str, mistakes: &mut Vec<Mistake>) -> Option<Stated> {
    let at_once = number(section, burst, (1, MOST), mistakes);
    if section.at(rate).is_none() {
        if let Some(at) = section.at(burst) {
            mistakes.push(missing(&at, rate, RATE_EXPECTED));
        }
        return None;
    }
    let limit = section.text(rate, RATE_EXPECTED, |text| Limit::parse(text, at_once));
    let Located { value: limit, at } = noted(limit, mistakes)?;
    Some(Stated { limit, rule: rule(&at) })
}

/// The file's name and a line: a refusal carries no directory of the machine's.
fn rule(at: &Position) -> String {
    let name = at.file.rsplit('/').next().unwrap_or(FILE);
    format!("{name}:{}", at.line)
}

fn tier(
    name: &Located<String>,
    section: &Section<'_>,
    named: &mut Vec<Located<String>>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Tier> {
    let expected = "the names of roles";
    let parse = |text: &str| if text.is_empty() { Err("no name".into()) } else { Ok(text.to_owned()) };
    let roles = noted(section.list("roles", expected, parse, ToOwned::to_owned), mistakes);
    let each = stated(section, "each", "burst", mistakes);
    let total = stated(section, "total", "total-burst", mistakes);
    let percent = number(section, "percent", (0, 100_000), mistakes).unwrap_or(100);
    let roles: BTreeSet<String> = match roles {
        Some(roles) => {
            named.extend(roles.iter().cloned());
            roles.into_iter().map(|role| role.value).collect()
        }
        None if section.at("roles").is_none() => BTreeSet::new(),
        None => return None,
    };
    if roles.is_empty() {
        mistakes.push(missing(&name.at, "roles", "the names of roles, one at least"));
        return None;
    }
    Some(Tier { name: name.value.clone(), roles, percent, each, total })
}

fn adaptive(section: &Section<'_>, mistakes: &mut Vec<Mistake>) -> Adaptive {
    let default = Adaptive::default();
    let adaptive = Adaptive {
        cpu: number(section, "cpu", (1, 100), mistakes),
        memory: number(section, "memory", (1, 100), mistakes),
        runs: number(section, "runs", (1, 1_000_000), mistakes),
        floor: number(section, "floor", PERCENT, mistakes).unwrap_or(25),
        ceiling: number(section, "ceiling", PERCENT, mistakes).unwrap_or(default.ceiling),
    };
    if let Some(at) = section.at("floor").or_else(|| section.at("ceiling"))
        && adaptive.floor > adaptive.ceiling
    {
        let reason = format!("{} is over the ceiling of {}", adaptive.floor, adaptive.ceiling);
        let expected = "a floor that isn't over the ceiling".into();
        mistakes.push(Mistake::new(&at, Problem::Value { key: "floor".into(), reason, expected }));
    }
    let looks = [adaptive.cpu, adaptive.memory, adaptive.runs];
    if let (Some(at), true) =
        (section.at("floor").or_else(|| section.at("ceiling")), looks.iter().all(Option::is_none))
    {
        mistakes.push(missing(&at, "cpu", "a threshold of `cpu`, `memory` or `runs`"));
    }
    adaptive
}

fn number(
    section: &Section<'_>,
    key: &str,
    (lowest, highest): (u32, u32),
    mistakes: &mut Vec<Mistake>,
) -> Option<u32> {
    let number = noted(section.number(key, lowest.into(), highest.into()), mistakes)?;
    u32::try_from(number.value).ok()
}

fn noted<T>(read: Result<Option<T>, Mistake>, mistakes: &mut Vec<Mistake>) -> Option<T> {
    read.unwrap_or_else(|mistake| {
        mistakes.push(mistake);
        None
    })
}

fn missing(at: &Position, key: &str, expected: &str) -> Mistake {
    let problem =
        Problem::Value { key: key.into(), reason: "it isn't there".into(), expected: expected.into() };
    Mistake::new(at, problem)
}
