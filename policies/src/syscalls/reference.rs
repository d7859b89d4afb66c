//! The rules of a filter, read plainly, one call at a time: what the programs that are made from them are compared with.
//! Tests do that, and the fuzzer by way of `fuzzing`; nothing that is shipped has this.

use std::sync::OnceLock;

use stockade_protocol::spec::{Level, NetworkSpec, SeccompSpec};

use super::arguments::{Refusal, Rule, Site, Test, Variant};
use super::interpret::{Call, Verdict, evaluate};
use super::listing::{self, Profiles};
use super::plan::{Filter, Plan, Request};
use super::table::Arch;
use crate::document::Syscalls;
use crate::position::Located;

/// A filter, and which calls a tool may make as the data files say it: read here and not by the tables that the programs
/// are of.
#[derive(Debug)]
pub struct Reference {
    profile: &'static str,
    listed: &'static Profiles<'static>,
    allow: Vec<String>,
    deny: Vec<String>,
    filter: Filter,
    rules: Vec<Rule>,
    arch: Arch,
}

impl Reference {
    /// The filter of an operator's policy that allows and denies these calls beside its level's profile.
    ///
    /// # Errors
    /// Why there is no such policy.
    pub fn new(
        level: Level,
        network: &NetworkSpec,
        (allow, deny): (&[&str], &[&str]),
        arch: Arch,
    ) -> Result<Self, String> {
        let owned = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let located = |list: &[&str]| owned(list).into_iter().map(Located::built_in).collect();
        let syscalls =
            Syscalls { allow: Some(located(allow)), deny: Some(located(deny)), ..Syscalls::default() };
        let request = Request { level, network, syscalls: &syscalls, trusted: true };
        let plan = Plan::new(&request).map_err(|error| error.to_string())?;
        let filter = Filter::new(&plan, Variant::of(level, network), arch)?;
        let profile = if level == Level::Minimal { "minimal" } else { "standard" };
        let rules = filter.rules();
        Ok(Self { profile, listed: listed()?, allow: owned(allow), deny: owned(deny), filter, rules, arch })
    }

    /// Whether only an operator's policy may allow a call.
    #[must_use]
    pub fn is_for_operators(&self, name: &str) -> bool {
        self.listed.never.contains_key(name)
    }

    /// The programs.
    #[must_use]
    pub fn spec(&self) -> &SeccompSpec {
        &self.filter.spec
    }

    /// The rules on arguments.
    #[cfg(test)]
    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether the policy gives a tool this call, whatever its arguments.
    pub(super) fn allows(&self, name: &str) -> bool {
        let stated = |list: &[String]| list.iter().any(|stated| stated == name);
        let profiled = || self.listed.named.get(self.profile).is_some_and(|calls| calls.contains_key(name));
        !stated(&self.deny) && (stated(&self.allow) || profiled())
    }

    /// What pid 1 of a run meets, by the programs.
    #[must_use]
    pub fn base(&self, number: u32, arguments: [u64; 6]) -> Verdict {
        let call = Call { arch: self.arch.audit(), number, arguments, ..Call::default() };
        evaluate(&self.filter.spec.base, &call)
    }

    /// What a tool meets, by the programs: base and delta. `arch`: `AUDIT_ARCH_*` of the call.
    #[must_use]
    pub fn tool(&self, arch: u32, number: u32, arguments: [u64; 6]) -> Verdict {
        let call = Call { arch, number, arguments, ..Call::default() };
        evaluate(self.filter.spec.base.iter().chain(&self.filter.spec.delta), &call)
    }

    /// What the rules say: of the base and the delta, or of the base alone.
    #[must_use]
    pub fn wanted(&self, number: u32, arguments: [u64; 6], delta: bool) -> Verdict {
        let Some(name) = self.arch.name(number) else { return Verdict::Errno(38) };
        let allowed = self.allows(name) || (!delta && self.listed.init.contains_key(name));
        if !allowed {
            return Verdict::Errno(if super::filter::AS_OLDER_KERNEL.contains(&name) { 38 } else { 1 });
        }
        let low = |argument: u8| arguments[usize::from(argument)] & 0xffff_ffff;
        let holds = |(argument, test): &(u8, Test)| match *test {
            Test::Is(value) => low(*argument) == u64::from(value),
            Test::IsNot(value) => low(*argument) != u64::from(value),
            Test::Masked(mask, value) => low(*argument) & u64::from(mask) == u64::from(value),
        };
        let matching = |refusal| {
            self.rules.iter().any(|rule| {
                rule.call == name
                    && rule.refusal == refusal
                    && (delta || rule.site == Site::Base)
                    && rule.conditions.iter().all(holds)
            })
        };
        if matching(Refusal::NoFamily) {
            return Verdict::Errno(97);
        }
        if matching(Refusal::NotPermitted) { Verdict::Errno(1) } else { Verdict::Allow }
    }
}

/// The data files, read once.
pub(super) fn listed() -> Result<&'static Profiles<'static>, String> {
    static LISTED: OnceLock<Result<Profiles<'static>, String>> = OnceLock::new();
    let texts = [
        include_str!("../../syscalls/standard.txt"),
        include_str!("../../syscalls/minimal.txt"),
        include_str!("../../syscalls/init.txt"),
        include_str!("../../syscalls/never.txt"),
    ];
    let known = |name: &str| Arch::ALL.iter().any(|arch| arch.number(name).is_some());
    LISTED.get_or_init(|| listing::read(texts, &known)).as_ref().map_err(Clone::clone)
}
