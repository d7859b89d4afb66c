//! A run without a daemon, under the machine's rules of access and its limits where an operator has installed any. Of limits those
//! hold that need no memory: what is never let through.
//!
//! What it can't promise: its user owns the process that asks. Who wants to go around it starts something else than this program;
//! it keeps the honest from what they may not, and says so in the same words. Refusals are forgotten with the process, so nobody is
//! locked out.

use std::path::Path;
use std::time::{Duration, SystemTime};

use stockade_gate::access::{Access, Settings};
use stockade_gate::approve::Risk;
use stockade_gate::rate::Limiter;
use stockade_gate::tools::Tool;
use stockade_gate::validate::Parameters;
use stockade_gate::{Action, Asked, Given, Moment, Principal, Stage as _, StageName, Thing, Verdict};
use stockade_policies::{Policy, PolicySet};
use stockade_protocol::Bytes;
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_supervisor::access::{ourselves, rules, told};
use stockade_supervisor::paths::{SYSTEM_CONFIGURATION, Scope};
use stockade_supervisor::{approval, limiter};

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
    /// `None`: nothing is limited.
    limiter: Option<Limiter>,
    risk: Risk,
}

/// Whether the machine's rules permit us to run it in this workspace, without anybody being asked first: nobody can be here.
///
/// # Errors
/// The files can't be read: then nothing is permitted; the inner one is a refusal.
pub(crate) fn judge(sought: Sought<'_>, workspace: &Path) -> Result<Result<(), Denied>, CliError> {
    let uid = rustix::process::geteuid().as_raw();
    let directory = Path::new(SYSTEM_CONFIGURATION);
    let found = rules(Some(directory), Scope::Machine, uid)?;
    let files = approval::files(Some(directory), Scope::Machine, uid)?;
    let tool = if let Sought::Call { tool, .. } = sought { Some(tool) } else { None };
    let limiter = limiter(directory, uid, tool)?;
    if found.is_empty() && files.is_empty() && limiter.is_none() {
        return Ok(Ok(()));
    }
    let mut principal = ourselves();
    // Limits are for roles, too.
    for placed in &found {
        let roles = placed.engine.roles();
        principal.roles = roles.of(principal.uid, &principal.gids, principal.unit.as_deref());
    }
    let mut rules = Rules { limiter, risk: approval::risk(files), ..Rules::default() };
    rules.access.set(found.into_iter().map(|placed| placed.engine).collect(), Settings::default());
    Ok(ask(&mut rules, &principal, sought, workspace))
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
    let limited = rules.limiter.as_mut().map_or(Ok(Verdict::Pass), |limiter| limiter.judge(&asked));
    match access.and(limited.map_err(told)?).and(rules.risk.weigh(&asked).map_err(told)?) {
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
    fn what_is_never_let_through_isnt_without_a_daemon_either_and_all_else_passes() {
        let set = PolicySet::from_sources(vec![]).unwrap_or_else(|_| unreachable!());
        let text = "name = \"sum\"\ndescription = \"x\"\nversion = \"1\"\npolicy = \"default\"\n[command]\nprogram = \"/bin/true\"\n[parameters]\ntype = \"object\"\n";
        let tool = |more: &str| {
            let read = Tool::read("sum.toml", "sum", &format!("{text}{more}"), &|| Duration::ZERO);
            read.unwrap_or_else(|_| unreachable!())
        };
        let (plain, never) = (tool(""), tool("[rate]\nper-minute = 0\nburst = 1\n"));
        let parameters = Parameters::new(b"{}".to_vec());
        let guest = Principal { uid: 9, gids: vec![9], pid: 1, unit: None, roles: Default::default() };
        let ci = Principal { roles: ["ci".to_owned()].into(), ..guest.clone() };
        let run = |policy| Sought::Run { policies: &set, policy, is_file: false, words: &[] };
        let call = |tool| Sought::Call { tool, policies: &set, parameters: &parameters };
        let table = [
            ("[policies.strict]\nrate = \"never\"\n", &guest, run("strict"), Some("strict")),
            ("[policies.strict]\nrate = \"never\"\n", &guest, run("default"), None),
            ("[policies.strict]\nrate = \"1/d\"\n", &guest, run("strict"), None),
            ("[tools.sum]\nrate = \"0/s\"\n", &guest, call(&plain), Some("sum")),
            ("", &guest, call(&never), Some("sum")),
            ("", &guest, call(&plain), None),
            // What the file says of a tool goes before what the tool says.
            ("[tools.sum]\nrate = \"1/s\"\n", &guest, call(&never), None),
            (
                "[tiers.ci]\nroles = [\"ci\"]\npercent = 0\n[rate]\ntotal = \"9/s\"\n",
                &ci,
                run("default"),
                Some("one user"),
            ),
            (
                "[tiers.ci]\nroles = [\"ci\"]\npercent = 0\n[rate]\ntotal = \"9/s\"\n",
                &guest,
                run("default"),
                None,
            ),
        ];
        for (text, principal, sought, refused) in table {
            let top = tempfile::tempdir().unwrap_or_else(|_| unreachable!());
            std::fs::write(top.path().join("limits.toml"), text).unwrap_or_else(|_| unreachable!());
            let tool = if let Sought::Call { tool, .. } = sought { Some(tool) } else { None };
            let uid = rustix::process::geteuid().as_raw();
            let limiter = limiter(top.path(), uid, tool).unwrap_or_else(|error| panic!("{error}"));
            let said = ask(&mut Rules { limiter, ..Rules::default() }, principal, sought, Path::new("/w"));
            let said = said.map_err(|denied| (denied.reason, denied.retry_after_ms, denied.message));
            match (said, refused) {
                (Ok(()), None) => {}
                (Err((DenyReason::RateLimited, None, message)), Some(word)) => {
                    assert!(message.contains(word) && message.ends_with("is 0: never"), "{message}");
                }
                other => panic!("{text}: {other:?}"),
            }
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
