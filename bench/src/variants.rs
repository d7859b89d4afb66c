//! The names of all variants, for `--only` and `bench list`.

use crate::error::BenchError;
use crate::report::aligned;

/// One variant: its name and what it is.
pub(crate) struct Named {
    /// As `--only` takes it.
    pub(crate) name: &'static str,
    what: &'static str,
}

const fn named(name: &'static str, what: &'static str) -> Named {
    Named { name, what }
}

/// What ratios are to, always measured.
pub(crate) const REFERENCES: [&str; 4] = [BARE, BARE_SOCKET, PIPE, COPIED];
/// The bare spawn from here.
pub(crate) const BARE: &str = "bare";
/// The bare spawn by a process that is asked over a socket.
pub(crate) const BARE_SOCKET: &str = "bare-socket";
/// Output without us.
pub(crate) const PIPE: &str = "pipe";

/// Output copied.
pub(crate) const COPIED: &str = "copied";

/// Every variant, in the order of the tables.
pub(crate) const ALL: [Named; 84] = [
    named(BARE, "the command by itself, spawned from here (vfork and exec) and waited for"),
    named(BARE_SOCKET, "the same by a small process that lives on, asked and answered over a socket"),
    named("warm", "over the socket, policy `default`, the daemon as it comes, after unmeasured runs"),
    named("template", "as warm, with a template and nothing parked"),
    named("cold", "as warm, nothing prepared: every run in a workspace that is new"),
    named("strict", "as warm, policy `strict`"),
    named("moderate", "as warm, policy `moderate`"),
    named("minimal", "as warm, policy `minimal`"),
    named("passed", "as warm, a policy without a rule on output: descriptors go straight through"),
    named("relayed", "as warm, a policy with a rule on output: events"),
    named("pipelined", "as warm, every request in flight over one connection"),
    named("warm-8", "as warm, 8 in flight"),
    named("warm-64", "as warm, 64 in flight, beside warm-8 in the same rounds"),
    named("frames", "as warm, beside JSON-RPC in the same rounds"),
    named("frames-path", "as frames, the workspace by its path"),
    named("json", "as frames-path, by JSON-RPC, a message a line, every event told"),
    named("json-wait", "the same, answered at the run's end"),
    named("cli", "`stockade run` against the daemon, whole process"),
    named("embedded", "`stockade run --embedded`, whole process"),
    named("bubblewrap", "bwrap, whole process; it has no filter of its own"),
    named("firejail", "firejail, whole process, with its filter"),
    named("crun", "crun with a bundle, whole process, with a filter"),
    named("nsjail", "nsjail, whole process, without a filter"),
    named("minijail", "minijail0, whole process, without a filter"),
    named(PIPE, "output of a child through a plain pipe"),
    named("deadline", "from the end of a run's wall time until its `Exited` is here"),
    named("deadline-closed", "from there until no process of the run holds its pipe open"),
    named("deadline-minimal", "as deadline, policy `minimal`: no pid namespace that takes the tree with it"),
    named("cancel", "from a cancel until `Exited` is here"),
    named(
        "floor-system",
        "a worker of all layers that waits for one command, by root's plan, without a daemon",
    ),
    named("floor-user", "the same by a user's plan"),
    named("user-ns", "a user namespace, with maps"),
    named("other-ns", "mount, pid, ipc, uts and cgroup namespaces together"),
    named("net-ns", "a network namespace, made"),
    named("net-ns-gone", "a network namespace, made and cleared away, in the long run"),
    named("root", "a tmpfs with the system's directories bound, and pivoted"),
    named("filter", "the programs of policy `default`, loaded"),
    named("cgroup", "a control group (v2), made and removed"),
    named("cgroup-joined", "one joined by a write"),
    named("fresh", "the command in new namespaces of every kind, from making them until its end"),
    named("made", "a worker of ours, policy `default`, from its order until it's read back"),
    named("made-moderate", "the same by policy `moderate`: no network namespace"),
    named("ready", "from before the daemon's process is made until its socket accepts"),
    named("first-run", "from there until its first run of `/bin/true` has ended"),
    named(COPIED, "output copied, and nothing looked for"),
    named(
        "activated",
        "from a client's connect to a socket that a service manager holds until the daemon it starts answers",
    ),
    named(
        "unrecorded",
        "as warm, 8 in flight, the median of a burst; beside the next two in the same rounds",
    ),
    named("recorded", "the same, each request durable on a tmpfs before it runs"),
    named("recorded-on-disk", "the same on the disk of temporary directories"),
    named("unscraped", "as warm, the p99 of a burst; beside the next in the same rounds"),
    named("scraped", "as warm, the same while metrics are asked for once a second"),
    named("scrape", "metrics, asked for once, of a daemon with 200 tools that were each called"),
    named("redacted", "the same with 200 patterns and four values looked for"),
    named("redacted-patterns", "the same with 200 patterns only"),
    named("redacted-values", "the same with four values only"),
    named("redacted-dashes", "as redacted, output that is nothing but dashes: beginnings of keys"),
    named("redacted-starts", "as redacted, output that is nothing but beginnings of tokens"),
    named("redacted-fly", "as redacted, tokens of Fly that begin in each other and don't end"),
    named("redacted-onepassword", "the same of 1Password's tokens"),
    named("redacted-jwt", "the same of JSON Web Tokens"),
    named("redacted-aws", "the same of AWS's secret keys"),
    named("limiter", "a refusal by the limiter, one user known to it"),
    named("limiter-full", "the same, a million users known to it"),
    named("access", "a decision by 100 rules of access that is remembered"),
    named("access-first", "the same, each for somebody of whom nothing is remembered"),
    named("access-time", "the same, one rule of ten reads the time: nothing can be remembered"),
    named("access-parameters", "the same, one rule of ten reads 21 parameters of 2 KiB"),
    named(
        "access-granted",
        "what nobody permits, and one of 1,000 grants does, a thousand principals, all remembered",
    ),
    named("access-granted-time", "the same, one rule of ten reads the time: nothing is remembered"),
    named("access-not-granted", "what nobody permits, and none of 1,000 grants does"),
    named("access-not-granted-time", "the same, nothing is remembered"),
    named(
        "row",
        "the whole row of the gate but the record, 100 rules and 1,000 grants, a tool of 20 properties and 2 KiB: one pair again and again",
    ),
    named("row-first", "the same, each for somebody who never asked before"),
    named("row-first-tail", "of those, the 99th of a hundred"),
    named("row-many", "a thousand tools and a thousand principals, each with his own again and again"),
    named("row-many-first", "a thousand tools, each question by somebody who never asked before"),
    named("risk", "50 rules of risk, of which none holds, at a command of a few words"),
    named("risk-longest", "the same, at a command as long as rules read"),
    named("breaker", "a refusal by a breaker that is open"),
    named("record", "durable events of the record a second, 8 in flight, in memory"),
    named("fdatasync", "as many bytes as 8 events have, written and synced by nobody's record on this disk"),
    named("record-on-disk", "durable events of the record a second, 8 in flight, on this disk"),
    named("verify", "records a second that `verify` looks at without a key"),
    named("verify-with-key", "the same, with the key"),
];

/// Which of them are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Only(Vec<String>);

impl Only {
    /// From `--only`.
    ///
    /// # Errors
    /// [`BenchError::Asked`] for a name that no variant has.
    pub(crate) fn of(names: &[String]) -> Result<Self, BenchError> {
        match names.iter().find(|name| !ALL.iter().any(|known| known.name == **name)) {
            Some(unknown) => Err(BenchError::Asked(format!("no variant is named `{unknown}`"))),
            None => Ok(Self(names.to_vec())),
        }
    }

    /// Whether this one is wanted. What ratios are to always is.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.0.is_empty() || REFERENCES.contains(&name) || self.0.iter().any(|wanted| wanted == name)
    }
}

/// The list that `bench list` prints.
pub(crate) fn list() -> String {
    let width = ALL.iter().map(|variant| variant.name.len()).max().unwrap_or(0);
    let line = |variant: &Named| vec![format!("{:<width$}  {}", variant.name, variant.what)];
    aligned(&ALL.iter().map(line).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_all_different() {
        let names: std::collections::BTreeSet<&str> = ALL.iter().map(|variant| variant.name).collect();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn only_leaves_out_the_others_but_never_what_ratios_are_to() {
        let only = Only::of(&["warm".into(), "crun".into()]).unwrap();
        assert!(only.wants("warm") && only.wants("crun") && only.wants("bare") && only.wants("bare-socket"));
        assert!(!only.wants("cold"));
        assert!(Only::default().wants("cold"));
    }

    #[test]
    fn an_unknown_name_is_refused_with_a_remedy() {
        let error = Only::of(&["hot".into()]).unwrap_err();
        assert_eq!(error.to_string(), "no variant is named `hot`");
        assert!(error.remedy().is_some());
    }

    #[test]
    fn the_list_has_every_name() {
        let list = list();
        assert!(ALL.iter().all(|variant| list.contains(&format!("  {} ", variant.name))), "{list}");
    }
}
