//! The gate's files: all of them in order, or none of them holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stockade_gate::access::Roles;
use stockade_gate::approve::Filed;
use stockade_gate::breaker;
use stockade_gate::rate::{self, Limit, Limited, Limiter, Quota, Stated};
use stockade_gate::redact::Forms;
use stockade_gate::tools::executable::{self, Identity};
use stockade_gate::tools::{Registry, Tool, ToolError, load};
use stockade_policies::files::{self, FileError};
use stockade_policies::nearest::probably_meant;
use stockade_policies::{Mistake, PolicySet, Problem};

use super::access::{self, Placed};
use super::approval::{self, Programs};
use crate::admission::chain;
use crate::config::{Configuration, Tooling};
use crate::paths::{Scope, configurations};
use crate::policies;
use crate::redaction;

/// The directory of tools, in the configuration's.
pub(super) const TOOLS: &str = "tools";

/// What the gate's files say.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// What may be called.
    pub(crate) tools: Arc<Registry>,
    /// What pinned programs are, by the tools' names: those that can be read.
    pub(crate) pinned: BTreeMap<String, Identity>,
    /// How often, and when a tool is taken for broken; `None`: nobody has said anything about either.
    pub(crate) limited: Option<Limited>,
    /// What is looked for in output; `None`: what is shipped.
    pub(crate) forms: Option<Arc<Forms>>,
    /// Who may; none: nobody is asked.
    pub(crate) rules: Vec<Placed>,
    /// The roles that limits are for: those of the directory of configuration.
    pub(crate) roles: Roles,
    /// What somebody is asked about; none: nothing but what rules of access have him asked about.
    pub(crate) approval: Vec<Arc<Filed>>,
    /// Programs that look at that.
    pub(crate) programs: Programs,
    /// The directories with a rule, of either kind, by which somebody is asked.
    pub(crate) asking: BTreeSet<PathBuf>,
}

/// All that is wrong with them.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct Faults(pub Vec<Fault>);

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Of tools.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// At a place of another file.
    #[error(transparent)]
    Text(#[from] Mistake),
    /// Another file can't be read, or isn't one that is.
    #[error(transparent)]
    File(#[from] FileError),
}

/// All that a daemon with this directory of configuration would refuse the gate's files for. `uid`: as whom it runs. `usual`: where
/// policies are beside those that the configuration names.
#[must_use]
pub fn faults(
    directory: &Path,
    (scope, uid): (Scope, u32),
    configured: &Configuration,
    usual: &[(PathBuf, stockade_policies::Trust)],
) -> Vec<Fault> {
    // What is wrong with policies is told elsewhere; which there are nobody knows then.
    let policies = policies::load(&policies::directories(usual, configured, scope), uid).ok();
    Files::load(Some(directory), (scope, uid), &configured.tools, policies.as_ref())
        .err()
        .map(|Faults(all)| all)
        .unwrap_or_default()
}

/// An error a line, as it would be told alone.
fn lines(errors: &[Fault]) -> String {
    errors.iter().map(|error| chain(error)).collect::<Vec<_>>().join("\n")
}

impl Files {
    /// Those of a configuration's directory; tools are the machine's, too, for a user's daemon. `uid`: as whom the daemon runs;
    /// `policies`: which tools may name, if that is known.
    ///
    /// # Errors
    /// All that is wrong with any of them.
    pub(crate) fn load(
        directory: Option<&Path>,
        (scope, uid): (Scope, u32),
        tooling: &Tooling,
        policies: Option<&PolicySet>,
    ) -> Result<Self, Faults> {
        let mut wrong: Vec<Fault> = Vec::new();
        let tools = tools(directory, scope, uid, tooling).unwrap_or_else(|errors| {
            wrong.extend(errors.into_iter().map(Fault::from));
            Registry::default()
        });
        let own = directory.filter(|_| !scope.is_machine());
        wrong.extend(policies.into_iter().flat_map(|policies| under_none(&tools, policies, own)));
        let limited = directory.map_or(Ok(None), |directory| limited(directory, uid));
        let limited = limited.unwrap_or_else(|errors| {
            wrong.extend(errors);
            None
        });
        let forms = redaction::forms(&configurations(directory, scope), uid).unwrap_or_else(|errors| {
            wrong.extend(errors);
            None
        });
        let rules = access::rules(directory, scope, uid).unwrap_or_else(|Faults(errors)| {
            wrong.extend(errors);
            Vec::new()
        });
        let approval = approval::placed(directory, scope, uid).unwrap_or_else(|Faults(errors)| {
            wrong.extend(errors);
            Vec::new()
        });
        if wrong.is_empty() {
            wrong.extend(approval::faults(&approval, &tools));
        }
        let asking = asking(&approval, &rules);
        let programs = Programs::of(&approval, &asking);
        let approval: Vec<_> = approval.into_iter().map(|(_, filed)| filed).collect();
        let own = rules.iter().find(|placed| directory == Some(&*placed.directory) && placed.has_roles);
        let roles = own.map(|placed| placed.engine.roles().clone());
        if let (Some(limited), true) = (&limited, wrong.is_empty()) {
            wrong.extend(without_effect(limited, roles.as_ref(), !rules.is_empty()));
        }
        if wrong.is_empty() {
            warn_of_names(limited.as_ref(), &tools);
            warn_of_roles(&tools, &rules);
            warn_of_tools(&tools, &approval);
            let needs_people = !asking.is_empty() && !programs.instead_of_people;
            warn_of_answers(&approval, needs_people, scope);
            let pinned = pinned(&tools, uid);
            let (limited, tools) = (with_tools(limited, &tools), Arc::new(tools));
            let roles = roles.unwrap_or_default();
            Ok(Self { limited, pinned, tools, forms, rules, roles, approval, programs, asking })
        } else {
            Err(Faults(wrong))
        }
    }
}

fn tools(
    directory: Option<&Path>,
    scope: Scope,
    uid: u32,
    tooling: &Tooling,
) -> Result<Registry, Vec<ToolError>> {
    let directories: Vec<PathBuf> =
        configurations(directory, scope).into_iter().map(|directory| directory.join(TOOLS)).collect();
    let look = |path: &Path, found: &std::fs::Metadata| policies::look(path, found, uid);
    load::registry(&directories, tooling.require_signed.is_on(), &look)
}

/// Tools whose policy there isn't. `own`: the only directory whose tools are a mistake for it, in a user's daemon: the machine's may be
/// for its own daemon, which has other policies.
fn under_none(tools: &Registry, policies: &PolicySet, own: Option<&Path>) -> Vec<Fault> {
    let mut wrong = Vec::new();
    for tool in tools.tools().filter(|tool| !policies.contains(&tool.policy)) {
        if own.is_some_and(|own| !Path::new(&tool.file).starts_with(own)) {
            tracing::warn!(
                tool = tool.name,
                policy = tool.policy,
                "a tool of the machine's runs under a policy that isn't here, and can't be called"
            );
            continue;
        }
        let meant = probably_meant(&tool.policy, policies.names());
        let remedy = meant.map_or_else(
            || "write one, in a directory of policies, or name another".to_owned(),
            |meant| format!("did you mean `{meant}`?"),
        );
        let problem = Problem::Rule { wrong: format!("there is no policy `{}`", tool.policy), remedy };
        wrong.push(Mistake::new(&tool.policy_at, problem).into());
    }
    wrong
}

/// Reads the programs that are pinned. One that can't be read now isn't known, and isn't run.
fn pinned(tools: &Registry, uid: u32) -> BTreeMap<String, Identity> {
    let identity = |tool: &Arc<Tool>| {
        let _pin = tool.pin?;
        let program = Path::new(&tool.template.program);
        match executable::identify(program, &|found| policies::look(program, found, uid)) {
            Ok(identity) => Some((tool.name.clone(), identity)),
            Err(error) => {
                let reason = chain(&error);
                tracing::warn!(tool = tool.name, reason, "a tool's program can't be read, and isn't run");
                None
            }
        }
    };
    tools.tools().filter_map(identity).collect()
}

/// Says which names of the file of limits no tool has: what stands there holds for nothing.
fn warn_of_names(limited: Option<&Limited>, tools: &Registry) {
    for named in limited.into_iter().flat_map(|all| all.of_no_tool(|name| tools.find(name).is_some())) {
        tracing::warn!("{named}");
    }
}

/// The directories with a rule, of either kind, by which somebody is asked.
pub(super) fn asking(approval: &[(PathBuf, Arc<Filed>)], rules: &[Placed]) -> BTreeSet<PathBuf> {
    let by_risk =
        approval.iter().filter(|(_, filed)| !filed.rules.is_empty()).map(|(directory, _)| directory);
    let by_rules = rules.iter().filter(|placed| placed.engine.asks()).map(|placed| &placed.directory);
    by_risk.chain(by_rules).cloned().collect()
}

/// Says who can answer where it needn't be somebody else: in his own daemon only root does, or the user himself from another unit, if he may.
fn warn_of_answers(approval: &[Arc<Filed>], is_asked: bool, scope: Scope) {
    if !is_asked {
        return;
    }
    if approval::settings(approval).own_unit {
        tracing::warn!(
            "own-unit: who can start anything in another of his units, of the system's manager, answers for himself"
        );
    } else if !scope.is_machine() {
        tracing::warn!(
            "somebody is asked first, and only root can answer: all other clients of this daemon are of one user"
        );
    }
}

/// What of limits would hold for nobody: tiers of roles that there aren't, a lock-out where nothing is asked.
fn without_effect(limited: &Limited, roles: Option<&Roles>, is_asked: bool) -> Vec<Fault> {
    let mistake =
        |at, wrong: String, remedy: String| Mistake::new(at, Problem::Rule { wrong, remedy }).into();
    let mut wrong: Vec<Fault> = Vec::new();
    for role in limited.roles.iter().filter(|role| roles.is_none_or(|roles| !roles.is_one(&role.value))) {
        let meant = roles.and_then(|roles| probably_meant(&role.value, roles.names()));
        let remedy = match (roles, meant) {
            (_, Some(meant)) => format!("did you mean `{meant}`?"),
            (Some(_), None) => "name it in roles.toml, or take it out".to_owned(),
            (None, None) => {
                "roles are given in roles.toml, and there is none: write one, or take the tier out".to_owned()
            }
        };
        wrong.push(mistake(&role.at, format!("there is no role `{}`", role.value.escape_debug()), remedy));
    }
    if let Some(lockout) = limited.lockout.as_ref().filter(|_| !is_asked) {
        let remedy = "write roles.toml or access.cedar, or take it out".to_owned();
        wrong.push(mistake(
            &lockout.at,
            "[lockout] locks nobody out: there are no rules of access".to_owned(),
            remedy,
        ));
    }
    wrong
}

/// Says which roles of tools nobody can have.
fn warn_of_roles(tools: &Registry, rules: &[Placed]) {
    for tool in tools.tools() {
        for role in tool.roles.iter().flatten() {
            if rules.iter().any(|placed| !placed.engine.roles().is_one(role)) {
                tracing::warn!(tool = tool.name, role, "a tool is for a role that there isn't");
            }
        }
    }
}

/// Says which tools that somebody would be asked about there aren't.
fn warn_of_tools(tools: &Registry, approval: &[Arc<Filed>]) {
    for named in approval.iter().flat_map(|filed| &filed.tools) {
        if tools.find(&named.value).is_none() {
            let (at, tool) = (&named.at, named.value.escape_debug());
            tracing::warn!("{at}: a rule of risk is about the tool `{tool}`, which isn't there");
        }
    }
}

fn limited(directory: &Path, uid: u32) -> Result<Option<Limited>, Vec<Fault>> {
    let path = directory.join(rate::FILE);
    match files::text(&path, directory, |found| policies::look(&path, found, uid)) {
        Ok(text) => {
            let read = rate::read(&path.display().to_string(), &text);
            read.map(Some).map_err(|mistakes| mistakes.into_iter().map(Fault::from).collect())
        }
        Err(FileError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(vec![error.into()]),
    }
}

/// The limits of this directory's file, and a tool's own, with nobody owing anything: where no process stays that would remember who
/// does, it refuses what is never let through, and nothing else. `None`: nothing says how often.
///
/// # Errors
/// All that is wrong with the file.
pub fn limiter(directory: &Path, uid: u32, tool: Option<&Tool>) -> Result<Option<Limiter>, Faults> {
    let own = tool.and_then(|tool| own_rate(tool).map(|stated| (tool.name.clone(), stated)));
    let limited = limited(directory, uid).map_err(Faults)?;
    if limited.is_none() && own.is_none() {
        return Ok(None);
    }
    let mut limits = limited.unwrap_or_default().limits;
    own.into_iter().for_each(|(name, stated)| {
        limits.tools.entry(name).or_insert(stated);
    });
    Ok(Some(Limiter::new(limits)))
}

/// What tools say themselves, where the file of limits doesn't speak of them.
fn with_tools(limited: Option<Limited>, tools: &Registry) -> Option<Limited> {
    let says = |tool: &Arc<Tool>| tool.rate.is_some() || tool.breaker.is_some();
    let speaks = limited.is_some() || tools.tools().any(says);
    let mut limited = limited.unwrap_or_default();
    for tool in tools.tools() {
        if let Some(stated) = own_rate(tool) {
            limited.limits.tools.entry(tool.name.clone()).or_insert(stated);
        }
        own_breaker(tool, limited.breaker, &mut limited.breakers);
    }
    speaks.then_some(limited)
}

fn own_rate(tool: &Tool) -> Option<Stated> {
    let rate = tool.rate?;
    let minute = u64::try_from(Duration::from_secs(60).as_nanos()).unwrap_or(u64::MAX);
    let limit = match rate.per_minute {
        0 => Limit::Never,
        // The file's own bounds are within the limiter's.
        count => Quota::new(count, minute, rate.burst).map_or(Limit::Never, Limit::At),
    };
    Some(Stated { limit, rule: format!("{}.toml: rate", tool.name) })
}

fn own_breaker(tool: &Tool, base: breaker::Settings, all: &mut BTreeMap<String, breaker::Settings>) {
    let Some(own) = tool.breaker else { return };
    let settings = breaker::Settings {
        failures: own.failures,
        window: own.window,
        open: own.pause,
        open_at_most: base.open_at_most.max(own.pause),
        probes: own.probes,
        ..base
    };
    all.entry(tool.name.clone()).or_insert(settings);
}
