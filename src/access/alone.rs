//! A run without a daemon, under the machine's rules of access where an operator has installed any.
//!
//! What it can't promise: its user owns the process that asks. Who wants to go around it starts something else than this program;
//! it keeps the honest from what they may not, and says so in the same words. Refusals are forgotten with the process, so nobody is
//! locked out.

use std::path::Path;
use std::time::{Duration, SystemTime};

use stockade_gate::access::{Access, Settings};
use stockade_gate::approve::Risk;
use stockade_gate::tools::Tool;
use stockade_gate::validate::Parameters;
use stockade_gate::{Action, Asked, Given, Moment, Principal, StageName, Thing, Verdict};
use stockade_policies::{Policy, PolicySet};
use stockade_protocol::Bytes;
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_supervisor::access::{ourselves, rules, told};
use stockade_supervisor::approval;
use stockade_supervisor::paths::{SYSTEM_CONFIGURATION, Scope};

use crate::error::CliError;

/// What somebody would run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sought<'a> {
    /// A command under a policy of a set. `is_file`: it was given as a file, and is nobody's but the caller's.
    Run { policies: &'a PolicySet, policy: &'a str, is_file: bool, words: &'a [Bytes] },
    /// A tool.
    Call { tool: &'a Tool, policies: &'a PolicySet, parameters: &'a Parameters },
}

/// The machine's files, as far as they hold without a daemon.
#[derive(Default)]
struct Rules {
    access: Access,
    risk: Risk,
}

/// Whether the machine's rules permit us to run it in this workspace, without anybody being asked first: nobody can be here.
///
/// # Errors
/// The files can't be read: then nothing is permitted; the inner one is a refusal.
pub(crate) fn judge(sought: Sought<'_>, workspace: &Path) -> Result<Result<(), Denied>, CliError> {
    let uid = rustix::process::geteuid().as_raw();
    let directory = Some(Path::new(SYSTEM_CONFIGURATION));
    let found = rules(directory, Scope::Machine, uid)?;
    let files = approval::files(directory, Scope::Machine, uid)?;
    if found.is_empty() && files.is_empty() {
        return Ok(Ok(()));
    }
    let mut rules = Rules { risk: approval::risk(files), ..Rules::default() };
    rules.access.set(found.into_iter().map(|placed| placed.engine).collect(), Settings::default());
    Ok(ask(&mut rules, &ourselves(), sought, workspace))
}

fn ask(rules: &mut Rules, principal: &Principal, sought: Sought<'_>, workspace: &Path) -> Result<(), Denied> {
    let is_shipped = |set: &PolicySet, name: &str| set.get(name).is_ok_and(Policy::is_shipped);
    let network = |set: &PolicySet, name: &str| set.get(name).ok().map(|policy| policy.network().mode);
    let words: Vec<Vec<u8>>;
    let at = Moment { uptime: Duration::ZERO, wall: SystemTime::now() };
    let base = Asked { workspace: Some(workspace), ..Asked::by(principal, Action::Run, at) };
    let asked = match sought {
        Sought::Run { policies, policy, is_file, words: given } => {
            words = given.iter().map(|word| word.to_vec()).collect();
            let is_shipped = !is_file && is_shipped(policies, policy);
            // A file's policy is none that rules could speak of, whatever it's called.
            let known = Some(policy).filter(|_| !is_file && policies.contains(policy));
            let named = if is_file { "" } else { policy };
            let thing = Thing { named, is_shipped, tool_roles: None, network: network(policies, policy) };
            Asked { policy: known, thing, given: Given::Command(&words), ..base }
        }
        Sought::Call { tool, policies, parameters } => Asked {
            action: Action::Call,
            policy: Some(&tool.policy),
            tool: Some(&tool.name),
            thing: Thing {
                named: &tool.name,
                is_shipped: is_shipped(policies, &tool.policy),
                tool_roles: tool.roles.as_deref(),
                network: network(policies, &tool.policy),
            },
            given: Given::Parameters(parameters),
            ..base
        },
    };
    let access =
        if rules.access.is_on() { rules.access.permits(&asked).map_err(told)? } else { Verdict::Pass };
    match access.and(rules.risk.weigh(&asked).map_err(told)?) {
        Verdict::Pass => Ok(()),
        Verdict::Ask(ask) => {
            let text = format!(
                "somebody has to approve it first, and without a daemon nobody is asked: {}",
                ask.said()
            );
            Err(Denied::new(DenyReason::NotApproved, text)
                .decided_by(StageName::Approve.name(), "no-daemon")
                .remedy("start a daemon, `stockade serve`, and have it asked there"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stockade_gate::access::{Engine, Origin, Roles, Source};
    use stockade_policies::{Source as Text, Trust};

    use super::*;

    #[test]
    fn a_policy_given_as_a_file_is_no_shipped_one_and_none_that_rules_name() {
        let rules = "permit (principal, action == Action::\"run\", resource == Policy::\"mine\");";
        let source = Source { origin: Origin::Access, file: "access.cedar", text: rules };
        let mut all = Rules::default();
        let engine = Engine::new(&[source], Roles::default()).unwrap_or_else(|_| unreachable!());
        all.access.set(vec![Arc::new(engine)], Settings::default());
        let text = |name: &str, trust| Text {
            name: name.into(),
            file: format!("{name}.toml"),
            text: "extends = \"strict\"".into(),
            trust,
        };
        let set = PolicySet::from_sources(vec![text("mine", Trust::User), text("default", Trust::Operator)]);
        let set = set.unwrap_or_else(|_| unreachable!());
        let principal = Principal { uid: 9, gids: vec![9], pid: 1, unit: None, roles: Default::default() };
        let table = [
            ("strict", false, true),
            ("strict", true, false),
            ("mine", false, true),
            ("mine", true, false),
            ("default", false, false),
            ("nosuch", false, false),
        ];
        for (policy, is_file, expected) in table {
            let sought = Sought::Run { policies: &set, policy, is_file, words: &[] };
            assert_eq!(
                ask(&mut all, &principal, sought, Path::new("/w")).is_ok(),
                expected,
                "{policy} {is_file}"
            );
        }
    }

    #[test]
    fn what_somebody_would_be_asked_about_is_refused_and_the_rest_isnt() {
        let asking = "@approve(\"look first\") permit (principal, action == Action::\"run\", resource == Policy::\"strict\");";
        let text = "[thresholds]\nask = 5\n[[rule]]\nname = \"w\"\nscore = 5\nreason = \"live\"\nwhen = { path-prefix = [\"/live\"] }\n";
        let filed = stockade_gate::approve::read("approval.toml", text).unwrap_or_else(|_| unreachable!());
        let set = PolicySet::from_sources(vec![]).unwrap_or_else(|_| unreachable!());
        let principal = Principal { uid: 9, gids: vec![9], pid: 1, unit: None, roles: Default::default() };
        let mut rules = Rules { risk: approval::risk(vec![Arc::new(filed)]), ..Rules::default() };
        let said = |rules: &mut Rules, policy, workspace: &str| {
            let sought = Sought::Run { policies: &set, policy, is_file: false, words: &[] };
            ask(rules, &principal, sought, Path::new(workspace))
                .map_err(|denied| (denied.reason, denied.message))
        };
        assert_eq!(said(&mut rules, "strict", "/w"), Ok(()));
        let (reason, text) = said(&mut rules, "strict", "/live/x").unwrap_err();
        assert!(reason == DenyReason::NotApproved && text.contains("w (+5): live"), "{text}");
        let source = Source { origin: Origin::Access, file: "access.cedar", text: asking };
        let engine = Engine::new(&[source], Roles::default()).unwrap_or_else(|_| unreachable!());
        rules.access.set(vec![Arc::new(engine)], Settings::default());
        let (reason, text) = said(&mut rules, "strict", "/w").unwrap_err();
        assert!(reason == DenyReason::NotApproved && text.contains("look first"), "{text}");
        assert_eq!(said(&mut rules, "default", "/w"), Ok(()));
    }
}
