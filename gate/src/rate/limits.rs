//! Which limits hold for whom.

use std::collections::{BTreeMap, BTreeSet};

use crate::rate::pace::Adaptive;
use crate::rate::quota::Limit;

/// A limit, and who says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stated {
    /// The limit.
    pub limit: Limit,
    /// Its place, as refusals name it: a file's name and a line, without the directory.
    pub rule: String,
}

impl Stated {
    /// Nobody has said anything: no limit.
    #[must_use]
    pub fn nothing() -> Self {
        Self { limit: Limit::None, rule: "built-in".into() }
    }
}

/// Principals of some roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// Its name.
    pub name: String,
    /// Who has one of these is of this tier, unless an earlier one has him.
    pub roles: BTreeSet<String>,
    /// Hundredths of every limit. 0 is never.
    pub percent: u32,
    /// In place of the limit for each tool and policy that has none of its own.
    pub each: Option<Stated>,
    /// In place of the limit on all of a principal's.
    pub total: Option<Stated>,
}

/// All limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// On one principal and one tool, or one policy.
    pub each: Stated,
    /// On all that a principal asks for.
    pub total: Stated,
    /// On one principal and this tool.
    pub tools: BTreeMap<String, Stated>,
    /// On one principal and plain runs under this policy.
    pub policies: BTreeMap<String, Stated>,
    /// In their order: the first that fits holds.
    pub tiers: Vec<Tier>,
    /// When limits move.
    pub adaptive: Adaptive,
}

impl Default for Limits {
    /// None.
    fn default() -> Self {
        let (each, total) = (Stated::nothing(), Stated::nothing());
        let (tools, policies) = (BTreeMap::new(), BTreeMap::new());
        Self { each, total, tools, policies, tiers: Vec::new(), adaptive: Adaptive::default() }
    }
}

/// What is asked for, of which each principal has a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What<'a> {
    Tool(&'a str),
    Policy(&'a str),
    /// What there isn't, whatever it's called: a name that anybody can think of gets no cell of its own.
    Nothing,
}

/// The limits on one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holding<'a> {
    pub(super) each: &'a Stated,
    pub(super) total: &'a Stated,
    pub(super) percent: u32,
}

impl Limits {
    pub(super) fn holding(&self, what: What<'_>, roles: &BTreeSet<String>) -> Holding<'_> {
        let tier = self.tiers.iter().find(|tier| !tier.roles.is_disjoint(roles));
        let own = match what {
            What::Tool(name) => self.tools.get(name),
            What::Policy(name) => self.policies.get(name),
            What::Nothing => None,
        };
        let each = own.or_else(|| tier?.each.as_ref()).unwrap_or(&self.each);
        let total = tier.and_then(|tier| tier.total.as_ref()).unwrap_or(&self.total);
        Holding { each, total, percent: tier.map_or(100, |tier| tier.percent) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stated(rule: &str) -> Stated {
        Stated { limit: Limit::Never, rule: rule.into() }
    }

    #[test]
    fn a_tools_own_limit_holds_then_the_first_tiers_then_everybodys() {
        let tier = |name: &str, percent, each: Option<&str>| Tier {
            name: name.into(),
            roles: BTreeSet::from([name.to_owned()]),
            percent,
            each: each.map(stated),
            total: None,
        };
        let limits = Limits {
            each: stated("each"),
            total: stated("total"),
            tools: BTreeMap::from([("search".into(), stated("search"))]),
            tiers: vec![tier("slow", 10, Some("slow-each")), tier("quick", 500, None)],
            ..Limits::default()
        };
        let table: [(&str, &[&str], (&str, u32)); 6] = [
            ("search", &[], ("search", 100)),
            ("search", &["slow"], ("search", 10)),
            ("other", &["slow"], ("slow-each", 10)),
            ("other", &["quick", "slow"], ("slow-each", 10)),
            ("other", &["quick"], ("each", 500)),
            ("other", &["client"], ("each", 100)),
        ];
        for (tool, roles, (rule, percent)) in table {
            let roles = roles.iter().copied().map(str::to_owned).collect();
            let holding = limits.holding(What::Tool(tool), &roles);
            assert_eq!((holding.each.rule.as_str(), holding.percent), (rule, percent), "{tool} {roles:?}");
            assert_eq!(holding.total.rule, "total");
        }
        assert_eq!(limits.holding(What::Policy("search"), &BTreeSet::new()).each.rule, "each");
    }
}
