//! What a policy's system calls come to: which are allowed by which line, what is refused by argument, and the
//! programs made from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stockade_protocol::spec::{Level, NetworkSpec, SeccompSpec};

use super::arguments::{Refusal, Rule, Site, rules};
use super::assemble::{Answer, by_number, refusing};
use super::interpret::{Call, Verdict, evaluate};
use super::profile::{Calls, Profiles, profiles};
use super::table::{Arch, known, names};
use crate::document::Syscalls;
use crate::error::{PolicyError, Problem};
use crate::nearest::{nearest_first, probably_meant};
use crate::position::{Located, Position};

/// Answered `ENOSYS` where they aren't allowed, as an older kernel would: libraries then fall back. Of the first
/// two a filter can't read the arguments, the others are new enough that programs try them first.
pub(super) const AS_OLDER_KERNEL: [&str; 9] = [
    "clone3",
    "openat2",
    "statmount",
    "listmount",
    "file_getattr",
    "file_setattr",
    "lsm_get_self_attr",
    "lsm_list_modules",
    "set_mempolicy_home_node",
];
/// Without these no tool starts or ends.
const NEEDED_TO_START: [&str; 3] = ["execve", "exit", "exit_group"];

/// What the plan is made from.
pub(crate) struct Request<'a> {
    pub(crate) level: Level,
    pub(crate) network: &'a NetworkSpec,
    pub(crate) syscalls: &'a Syscalls,
    /// Whether every file of the policy is an operator's or shipped.
    pub(crate) trusted: bool,
}

/// Which calls a tool may make, and why.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    profile: Located<String>,
    calls: &'static Calls,
    added: BTreeMap<&'static str, Position>,
    denied: BTreeMap<&'static str, Position>,
}

/// The programs of a plan, and the rules they were made from. The same for every policy that says the same.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) spec: SeccompSpec,
    arch: Arch,
    rules: Vec<Rule>,
}

/// Filters that were made already, by what they were made from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filters(BTreeMap<String, Arc<Filter>>);

/// An answer about one call.
pub(crate) struct CallAnswer {
    pub(crate) allowed: bool,
    pub(crate) rule: String,
    pub(crate) at: Position,
    pub(crate) note: String,
}

impl Plan {
    pub(crate) fn new(request: &Request<'_>) -> Result<Self, PolicyError> {
        let profiles = profiles()
            .map_err(|fault| PolicyError::at(&Position::built_in(), Problem::Filter(fault.to_owned())))?;
        let profile = profile_name(request);
        let calls =
            profiles.named.get(profile.value.as_str()).ok_or_else(|| unknown_profile(&profile, profiles))?;
        let mut added = BTreeMap::new();
        for call in request.syscalls.allow.iter().flatten() {
            let name = call_name("allow", call)?;
            if let Some(never) = profiles.never.get(name).filter(|_| !request.trusted) {
                let what = format!("`{name}` may be allowed");
                let reason = format!(": {}", never.reason);
                return Err(PolicyError::at(&call.at, Problem::NotTrusted { what, reason }));
            }
            added.entry(name).or_insert_with(|| call.at.clone());
        }
        let mut denied = BTreeMap::new();
        for call in request.syscalls.deny.iter().flatten() {
            let name = call_name("deny", call)?;
            if NEEDED_TO_START.contains(&name) {
                let problem =
                    Problem::Conflict(format!("`{name}` can't be denied: no tool could start or end"));
                return Err(PolicyError::at(&call.at, problem));
            }
            denied.entry(name).or_insert_with(|| call.at.clone());
        }
        Ok(Self { profile, calls, added, denied })
    }

    /// Whether a tool may make this call, arguments aside. A deny always wins.
    pub(super) fn allows(&self, name: &str) -> bool {
        !self.denied.contains_key(name) && (self.added.contains_key(name) || self.calls.contains_key(name))
    }

    /// What a tool meets, by the programs, for a call by name; `None` if there is no such call anywhere.
    pub(crate) fn explain(&self, filter: &Filter, spec: &SeccompSpec, name: &str) -> Option<CallAnswer> {
        let name = known(name)?;
        let (rule, at) = self.reason(name);
        let Some(number) = filter.arch.number(name) else {
            return Some(CallAnswer {
                allowed: false,
                rule,
                at,
                note: "this architecture has no such call".into(),
            });
        };
        let verdicts = samples(name).map(|arguments| {
            let call = Call { number, arch: filter.arch.audit(), arguments, ..Call::default() };
            evaluate(spec.base.iter().chain(&spec.delta), &call)
        });
        let verdict = verdicts.into_iter().find(|verdict| *verdict == Verdict::Allow).unwrap_or(verdicts[0]);
        let refused: Vec<_> =
            filter.rules.iter().filter(|rule| rule.call == name).map(|rule| rule.reason).collect();
        let note = match verdict {
            Verdict::Allow if refused.is_empty() => String::new(),
            Verdict::Allow => format!("refused {}", unique(&refused).join("; ")),
            Verdict::Errno(ENOSYS) => "answers ENOSYS, so that programs fall back".into(),
            Verdict::Errno(_) => "answers EPERM".into(),
            Verdict::KillProcess | Verdict::Other(_) => "ends the process".into(),
        };
        Some(CallAnswer { allowed: verdict == Verdict::Allow, rule, at, note })
    }

    fn reason(&self, name: &'static str) -> (String, Position) {
        if let Some(at) = self.denied.get(name) {
            return (format!("[syscalls] deny: {name}"), at.clone());
        }
        if let Some(at) = self.added.get(name) {
            return (format!("[syscalls] allow: {name}"), at.clone());
        }
        let profile = &self.profile.value;
        if let Some(entry) = self.calls.get(name) {
            let at = Position { file: Arc::from(entry.file), line: entry.line, column: 1 };
            return (format!("profile `{profile}`: {name}: {}", entry.reason), at);
        }
        let never = profiles().ok().and_then(|profiles| profiles.never.get(name));
        let why = never.map_or(String::new(), |entry| format!(": {}", entry.reason));
        (format!("profile `{profile}` doesn't list {name}{why}"), self.profile.at.clone())
    }
}

impl Filters {
    /// The filter of a plan, made if it isn't there yet.
    pub(crate) fn filter(&mut self, plan: &Plan, request: &Request<'_>) -> Result<Arc<Filter>, String> {
        let arch = Arch::current().ok_or("there is no table for this architecture")?;
        let key = format!(
            "{arch:?} {:?} {:?} {} +{:?} -{:?}",
            request.level,
            request.network,
            plan.profile.value,
            plan.added.keys(),
            plan.denied.keys()
        );
        if let Some(filter) = self.0.get(&key) {
            return Ok(Arc::clone(filter));
        }
        let filter = Arc::new(Filter::new(plan, request.level, request.network, arch)?);
        self.0.insert(key, Arc::clone(&filter));
        Ok(filter)
    }
}

impl Filter {
    pub(super) fn new(plan: &Plan, level: Level, network: &NetworkSpec, arch: Arch) -> Result<Self, String> {
        let init = &profiles().map_err(str::to_owned)?.init;
        let rules = rules(level, network);
        let in_base = |name: &str| plan.allows(name) || init.contains_key(name);
        let answers: BTreeMap<u32, Answer> = arch
            .calls()
            .map(|(number, name)| (number, if in_base(name) { Answer::Allow } else { refusal(name) }))
            .collect();
        let base = |refusal| {
            let mine = move |rule: &&Rule| rule.site == Site::Base && rule.refusal == refusal;
            rules.iter().filter(mine).filter(|rule| in_base(rule.call))
        };
        let none = std::iter::empty::<&str>;
        let programs = vec![
            by_number(arch, &answers, Answer::Errno(ENOSYS))?,
            refusing(arch, none(), base(Refusal::NotPermitted), libc::EPERM)?,
            refusing(arch, none(), base(Refusal::NoFamily), libc::EAFNOSUPPORT)?,
        ];
        let withheld: Vec<&str> = init.keys().filter(|name| !plan.allows(name)).copied().collect();
        let late: Vec<&Rule> =
            rules.iter().filter(|rule| rule.site == Site::Delta && in_base(rule.call)).collect();
        let count = answers.values().filter(|answer| **answer == Answer::Allow).count() + rules.len();
        let delta = if withheld.is_empty() && late.is_empty() {
            Vec::new()
        } else {
            vec![refusing(arch, withheld.into_iter(), late.into_iter(), libc::EPERM)?]
        };
        let spec = SeccompSpec { base: programs, delta, rules: u32::try_from(count).unwrap_or(u32::MAX) };
        Ok(Self { spec, arch, rules })
    }

    #[cfg(test)]
    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

const ENOSYS: u16 = 38;
const EPERM: u16 = 1;

fn refusal(name: &str) -> Answer {
    Answer::Errno(if AS_OLDER_KERNEL.contains(&name) { ENOSYS } else { EPERM })
}

/// Arguments to ask the programs with: none, and what is plainest for calls that refuse zeros.
fn samples(name: &str) -> [[u64; 6]; 2] {
    const AF_UNIX: u64 = 1;
    const SOCK_STREAM: u64 = 1;
    let second = match name {
        "socket" | "socketpair" => [AF_UNIX, SOCK_STREAM, 0, 0, 0, 0],
        // IOPRIO_WHO_PROCESS
        "ioprio_set" => [1, 0, 0, 0, 0, 0],
        _ => [0; 6],
    };
    [[0; 6], second]
}

fn unique<'a>(texts: &[&'a str]) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    texts.iter().copied().filter(|text| seen.insert(*text)).collect()
}

fn profile_name(request: &Request<'_>) -> Located<String> {
    let default = if request.level == Level::Minimal { "minimal" } else { "standard" };
    request.syscalls.profile.clone().unwrap_or_else(|| Located::built_in(default.into()))
}

fn unknown_profile(profile: &Located<String>, profiles: &Profiles) -> PolicyError {
    let names = nearest_first(&profile.value, profiles.named.keys().copied()).join(", ");
    let reason = format!("there is no profile `{}`", crate::reader::shown(&profile.value));
    let problem = Problem::Value { key: "profile".into(), reason, expected: format!("one of: {names}") };
    PolicyError::at(&profile.at, problem)
}

fn call_name(key: &'static str, call: &Located<String>) -> Result<&'static str, PolicyError> {
    known(&call.value).ok_or_else(|| {
        let suggestion = probably_meant(&call.value, names())
            .map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        let name = crate::reader::shown(&call.value);
        PolicyError::at(&call.at, Problem::UnknownCall { key, name, suggestion })
    })
}
