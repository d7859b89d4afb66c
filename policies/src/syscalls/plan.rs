//! What a policy's system calls come to: which are allowed by which line, what is refused by argument, and the
//! programs made from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stockade_protocol::spec::{Level, NetworkMode, NetworkSpec, Ports, SeccompSpec};

use super::arguments::{Variant, rules};
use super::filter::{AS_OLDER_KERNEL, programs};
use super::interpret::{self, Verdict, evaluate};
use super::table::{
    Arch, BpfInstruction, Call, Calls, INIT, List, NEVER, PROFILES, built_programs, names, rule_count,
};
use crate::document::Syscalls;
use crate::error::{PolicyError, Problem};
use crate::nearest::{nearest_first, probably_meant};
use crate::position::{Located, Position};
use crate::said::Said;

/// Without these no tool starts or ends.
const NEEDED_TO_START: [&str; 3] = ["execve", "exit", "exit_group"];

/// The profile for a level without namespaces.
const MINIMAL: &str = "minimal";

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
    list: &'static List,
    added: Vec<(Call, Position)>,
    denied: Vec<(Call, Position)>,
    /// What of the list and of what was added isn't denied.
    allowed: Calls,
}

/// The programs of a plan, and the rules they were made from. The same for every policy that says the same.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) spec: SeccompSpec,
    arch: Arch,
    variant: Variant,
}

/// Filters that were made already, by what they were made from: everything that [`Filter::new`] reads.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filters(BTreeMap<(Arch, Calls, Variant), Arc<Filter>>);

/// An answer about one call.
pub(crate) struct CallAnswer {
    pub(crate) allowed: bool,
    pub(crate) rule: String,
    pub(crate) at: Position,
    pub(crate) note: String,
}

impl Plan {
    pub(crate) fn new(request: &Request<'_>) -> Result<Self, PolicyError> {
        let profile = profile_name(request);
        let list = PROFILES
            .into_iter()
            .find_map(|(name, list)| (name == profile.value).then_some(list))
            .ok_or_else(|| unknown_profile(&profile))?;
        if request.level == Level::Minimal && profile.value != MINIMAL {
            let problem = Problem::Conflict(format!(
                "profile `{}` can't be had at level `minimal`, where the host's shared memory, semaphores and message \
                 queues would be in reach: say `profile = \"{MINIMAL}\"`, and `allow` what is wanted of them",
                crate::reader::shown(&profile.value)
            ));
            return Err(PolicyError::at(&profile.at, problem));
        }
        let mut allowed = list.calls;
        let mut added = Vec::new();
        for call in request.syscalls.allow.iter().flatten() {
            let known = known("allow", call)?;
            if let Some(never) = NEVER.entry(known).filter(|_| !request.trusted) {
                let what = format!("`{}` may be allowed", known.name());
                let reason = format!(": {}", never.reason);
                return Err(PolicyError::at(&call.at, Problem::NotTrusted { what, reason }));
            }
            allowed.insert(known);
            added.push((known, call.at.clone()));
        }
        let mut denied = Vec::new();
        for call in request.syscalls.deny.iter().flatten() {
            let known = known("deny", call)?;
            let name = known.name();
            if NEEDED_TO_START.contains(&name) {
                let problem =
                    Problem::Conflict(format!("`{name}` can't be denied: no tool could start or end"));
                return Err(PolicyError::at(&call.at, problem));
            }
            allowed.remove(known);
            denied.push((known, call.at.clone()));
        }
        Ok(Self { profile, list, added, denied, allowed })
    }

    /// What a tool meets, by the programs, for a call by name; `None` if there is no such call anywhere.
    pub(crate) fn explain(&self, filter: &Filter, spec: &SeccompSpec, name: &str) -> Option<CallAnswer> {
        let known = Call::named(name)?;
        let (rule, at) = self.reason(known);
        let Some(number) = filter.arch.number_of(known) else {
            return Some(CallAnswer {
                allowed: false,
                rule,
                at,
                note: "this architecture has no such call".into(),
            });
        };
        let verdicts = samples(name).map(|arguments| {
            let arch = filter.arch.audit();
            let call = interpret::Call { number, arch, arguments, ..interpret::Call::default() };
            evaluate(spec.base.iter().chain(&spec.delta), &call)
        });
        let verdict = verdicts.into_iter().find(|verdict| *verdict == Verdict::Allow).unwrap_or(verdicts[0]);
        let of_call = rules(filter.variant).into_iter().filter(|rule| rule.call == name);
        let refused: Vec<_> = of_call.map(|rule| rule.reason).collect();
        let note = match verdict {
            Verdict::Allow if refused.is_empty() => String::new(),
            Verdict::Allow => format!("refused {}", unique(&refused).join("; ")),
            Verdict::Errno(ENOSYS) => "answers ENOSYS, so that programs fall back".into(),
            Verdict::Errno(_) => "answers EPERM".into(),
            Verdict::KillProcess | Verdict::Other(_) => "ends the process".into(),
        };
        Some(CallAnswer { allowed: verdict == Verdict::Allow, rule, at, note })
    }

    fn reason(&self, call: Call) -> (String, Position) {
        let name = call.name();
        // Said twice, the first counts.
        let stated = |list: &[(Call, Position)]| list.iter().find(|(stated, _)| *stated == call).cloned();
        if let Some((_, at)) = stated(&self.denied) {
            return (format!("[syscalls] deny: {name}"), at);
        }
        if let Some((_, at)) = stated(&self.added) {
            return (format!("[syscalls] allow: {name}"), at);
        }
        let profile = &self.profile.value;
        if let Some(entry) = self.list.entry(call) {
            let at = Position { file: Said::Built(entry.file), line: entry.line, column: 1 };
            return (format!("profile `{profile}`: {name}: {}", entry.reason), at);
        }
        let why = NEVER.entry(call).map_or(String::new(), |entry| format!(": {}", entry.reason));
        (format!("profile `{profile}` doesn't list {name}{why}"), self.profile.at.clone())
    }
}

impl Variant {
    pub(super) fn of(level: Level, network: &NetworkSpec) -> Self {
        let there = network.mode != NetworkMode::None;
        Self {
            minimal: level == Level::Minimal,
            network: there,
            internet: there || level == Level::Strict,
            plain_tcp: network.mode == NetworkMode::Host && network.tcp_connect != Ports::Any,
        }
    }
}

impl Filters {
    /// The filter of a plan, made if it isn't there yet.
    pub(crate) fn filter(&mut self, plan: &Plan, request: &Request<'_>) -> Result<Arc<Filter>, String> {
        let arch = Arch::current().ok_or("there is no table for this architecture")?;
        let variant = Variant::of(request.level, request.network);
        if let Some(filter) = self.0.get(&(arch, plan.allowed, variant)) {
            return Ok(Arc::clone(filter));
        }
        let made = Filter::built(plan, variant, arch).map_or_else(|| Filter::new(plan, variant, arch), Ok);
        let filter = Arc::new(made?);
        self.0.insert((arch, plan.allowed, variant), Arc::clone(&filter));
        Ok(filter)
    }
}

impl Filter {
    /// The build's, where it has made one for these calls: for those of a profile as it is.
    fn built(plan: &Plan, variant: Variant, arch: Arch) -> Option<Self> {
        let (programs, allowed) = built_programs(arch, variant, &plan.allowed)?;
        Some(Self::of(programs.map(<[_]>::to_vec), allowed, variant, arch))
    }

    pub(super) fn new(plan: &Plan, variant: Variant, arch: Arch) -> Result<Self, String> {
        let older = Calls::named(&AS_OLDER_KERNEL);
        let made = programs((arch, variant), &plan.allowed, &INIT.calls, &older)?;
        Ok(Self::of([made.base, made.delta.unwrap_or_default()], made.allowed, variant, arch))
    }

    /// Of its base and its delta, which may be empty.
    fn of([base, delta]: [Vec<BpfInstruction>; 2], allowed: usize, variant: Variant, arch: Arch) -> Self {
        let delta = if delta.is_empty() { Vec::new() } else { vec![delta] };
        let rules = u32::try_from(allowed + rule_count(variant)).unwrap_or(u32::MAX);
        Self { spec: SeccompSpec { base: vec![base], delta, rules }, arch, variant }
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn rules(&self) -> Vec<super::arguments::Rule> {
        rules(self.variant)
    }
}

const ENOSYS: u16 = 38;

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
    let default = if request.level == Level::Minimal { MINIMAL } else { "standard" };
    request.syscalls.profile.clone().unwrap_or_else(|| Located::built_in(default.into()))
}

fn unknown_profile(profile: &Located<String>) -> PolicyError {
    let names = nearest_first(&profile.value, PROFILES.map(|(name, _)| name)).join(", ");
    let reason = format!("there is no profile `{}`", crate::reader::shown(&profile.value));
    let problem = Problem::Value { key: "profile".into(), reason, expected: format!("one of: {names}") };
    PolicyError::at(&profile.at, problem)
}

fn known(key: &'static str, call: &Located<String>) -> Result<Call, PolicyError> {
    Call::named(&call.value).ok_or_else(|| {
        let suggestion = probably_meant(&call.value, names())
            .map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        let name = crate::reader::shown(&call.value);
        PolicyError::at(&call.at, Problem::UnknownCall { key, name, suggestion })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PolicySet;

    #[test]
    fn filters_of_shipped_policies_are_the_builds_and_are_what_would_be_made_here() {
        let (set, arch) = (PolicySet::shipped(), Arch::current().unwrap());
        for name in set.names() {
            let policy = set.get(name).unwrap();
            let variant = Variant::of(policy.level.value, &policy.network);
            let built = Filter::built(&policy.plan, variant, arch);
            let made = Filter::new(&policy.plan, variant, arch).unwrap();
            assert_eq!(built.map(|built| built.spec), Some(made.spec), "{name}");
        }
    }
}
