//! A run without a daemon, under the machine's rules of access where an operator has installed any.
//!
//! What it can't promise: its user owns the process that asks. Who wants to go around it starts something else than this program;
//! it keeps the honest from what they may not, and says so in the same words. Refusals are forgotten with the process, so nobody is
//! locked out.

use std::path::Path;
use std::time::{Duration, SystemTime};

use stockade_gate::access::{Access, Settings};
use stockade_gate::tools::Tool;
use stockade_gate::validate::Parameters;
use stockade_gate::{Action, Asked, Given, Moment, Principal, Thing};
use stockade_policies::{Policy, PolicySet};
use stockade_protocol::Bytes;
use stockade_protocol::denied::Denied;
use stockade_supervisor::access::{ourselves, rules, told};
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

/// Whether the machine's rules permit us to run it.
///
/// # Errors
/// The files can't be read: then nothing is permitted; the inner one is a refusal.
pub(crate) fn judge(sought: Sought<'_>) -> Result<Result<(), Denied>, CliError> {
    let uid = rustix::process::geteuid().as_raw();
    let found = rules(Some(Path::new(SYSTEM_CONFIGURATION)), Scope::Machine, uid)?;
    if found.is_empty() {
        return Ok(Ok(()));
    }
    let mut access = Access::default();
    access.set(found.into_iter().map(|placed| placed.engine).collect(), Settings::default());
    Ok(ask(&mut access, &ourselves(), sought))
}

fn ask(access: &mut Access, principal: &Principal, sought: Sought<'_>) -> Result<(), Denied> {
    let is_shipped = |set: &PolicySet, name: &str| set.get(name).is_ok_and(Policy::is_shipped);
    let words: Vec<Vec<u8>>;
    let base = Asked::by(principal, Action::Run, Moment { uptime: Duration::ZERO, wall: SystemTime::now() });
    let asked = match sought {
        Sought::Run { policies, policy, is_file, words: given } => {
            words = given.iter().map(|word| word.to_vec()).collect();
            let is_shipped = !is_file && is_shipped(policies, policy);
            // A file's policy is none that rules could speak of, whatever it's called.
            let known = Some(policy).filter(|_| !is_file && policies.contains(policy));
            let named = if is_file { "" } else { policy };
            let thing = Thing { named, is_shipped, tool_roles: None };
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
            },
            given: Given::Parameters(parameters),
            ..base
        },
    };
    access.permits(&asked).map_err(told)
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
        let mut access = Access::default();
        let engine = Engine::new(&[source], Roles::default()).unwrap_or_else(|_| unreachable!());
        access.set(vec![Arc::new(engine)], Settings::default());
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
            assert_eq!(ask(&mut access, &principal, sought).is_ok(), expected, "{policy} {is_file}");
        }
    }
}
