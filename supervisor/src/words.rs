//! Sentences for people: what set-up failed on, and why we ended a run, each with what would help.
//!
//! Across a fork only numbers travel (a stage, an errno, a subject). Here they become words, in one place for the
//! daemon's log and the command line. A subject may hold any bytes; whoever writes to a terminal escapes.

use core::fmt;
use std::io;

use nix::errno::Errno;
use stockade_protocol::outcome::{CancelReason, Clock, Outcome, SetupFailure, SetupStage};

/// What happened, and what would help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// What happened. Lower case, no full stop.
    pub text: String,
    /// What would help, if we know.
    pub remedy: Option<String>,
}

impl Sentence {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), remedy: None }
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl fmt::Display for Sentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// Why a run ended, where it wasn't the tool that ended it. `None`: the tool did.
#[must_use]
pub fn outcome(outcome: &Outcome) -> Option<Sentence> {
    Some(match outcome {
        Outcome::TimedOut { clock, limit_ms } => timed_out(*clock, *limit_ms),
        Outcome::MemoryExceeded { limit, seen } => {
            Sentence::new(format!("ended over its memory: {} of {} allowed", size(*seen), size(*limit)))
                .remedy("a higher `memory`, the policy's or the tool's")
        }
        Outcome::OutputExceeded { limit } => {
            Sentence::new(format!("ended over its output: more than {}", size(*limit)))
                .remedy("write to a file, or a higher `output`, the policy's or the tool's")
        }
        Outcome::ProcessesExceeded { limit, seen } => {
            Sentence::new(format!("ended over its processes: {seen} of {limit} allowed"))
                .remedy("a higher `processes`, the policy's or the tool's")
        }
        Outcome::Cancelled { reason } => cancelled(reason),
        Outcome::SetupFailed { failure } => setup_failure(failure),
        Outcome::Lost { reason } => Sentence::new(format!("lost: {reason}")),
        Outcome::Exited { .. } | Outcome::Signaled { .. } => return None,
        _ => Sentence::new("ended for a reason this version has no words for"),
    })
}

fn timed_out(clock: Clock, limit_ms: u64) -> Sentence {
    let limit = duration(limit_ms);
    match clock {
        Clock::Wall => Sentence::new(format!("ended at its time limit of {limit}"))
            .remedy("a longer `wall-time`, the policy's or the tool's"),
        Clock::Cpu => Sentence::new(format!("ended at its limit of {limit} of processor time"))
            .remedy("a longer `cpu-time`, the policy's or the tool's"),
        Clock::Idle => Sentence::new(format!("ended after {limit} without output"))
            .remedy("a longer `idle-time`, the policy's or the tool's"),
        _ => Sentence::new(format!("ended at a time limit of {limit}")),
    }
}

fn cancelled(reason: &CancelReason) -> Sentence {
    match reason {
        CancelReason::Asked => Sentence::new("cancelled as asked"),
        CancelReason::ClientGone => Sentence::new("cancelled because its client went away")
            .remedy("`--detach` lets a run outlive its client"),
        CancelReason::Draining => Sentence::new("cancelled because the daemon is stopping"),
        CancelReason::GuardDissolved { path } => Sentence::new(format!(
            "ended because the protected path {} lost its mask: another program replaced it on the host",
            path.to_text()
        ))
        .remedy("run it again, and leave the path alone meanwhile"),
        CancelReason::GrantOver => Sentence::new("ended because its grant is over, or was revoked")
            .remedy("`stockade grant request` asks for another"),
        CancelReason::Unneeded => Sentence::new("ended because what it was to review waits no more"),
        _ => Sentence::new("cancelled"),
    }
}

/// Why a tool never began.
#[must_use]
pub fn setup_failure(failure: &SetupFailure) -> Sentence {
    let SetupFailure { stage, errno, subject } = failure;
    let subject = subject.to_text();
    let errno = Errno::from_raw(*errno);
    let because = Because { subject: &subject, errno };
    match stage {
        SetupStage::Exec => exec(&subject, errno),
        SetupStage::Check => because.sentence("the launcher refused the run"),
        SetupStage::Open => open(&because),
        SetupStage::File => file(&because),
        SetupStage::Template => because.sentence("cannot make a worker"),
        SetupStage::UserNamespace => user_namespace(&because),
        SetupStage::Namespaces => needs_namespaces(because.sentence("cannot enter new namespaces"), errno),
        SetupStage::Mount => because.sentence("cannot build the root of the sandbox"),
        SetupStage::Guard => guard(&because),
        SetupStage::Network => because.sentence("cannot set up the network"),
        SetupStage::Idmap => idmap(&because),
        SetupStage::Cgroup => because
            .sentence("cannot make the control group")
            .remedy("delegate a control group v2 subtree to the daemon, or none at all"),
        SetupStage::Identity => identity(&because),
        SetupStage::Capabilities => because.sentence("cannot drop privileges"),
        SetupStage::Rlimits => rlimits(&because),
        SetupStage::Landlock => landlock(&because),
        SetupStage::Seccomp => seccomp(&because),
        SetupStage::Verify => because
            .sentence("what the kernel reports isn't what the policy asks for, so nothing was started")
            .remedy("`stockade doctor` tells which layer"),
        SetupStage::Cwd => cwd(&because),
        SetupStage::Terminal => because.sentence("cannot make a terminal"),
        _ => because.sentence("set-up failed at a stage this version has no words for"),
    }
}

/// No system call failed.
const NONE: Errno = Errno::UnknownErrno;

struct Because<'a> {
    subject: &'a str,
    errno: Errno,
}

impl Because<'_> {
    /// `WHAT: SUBJECT: REASON`, without the parts that are empty.
    fn sentence(&self, what: &str) -> Sentence {
        let mut text = what.to_owned();
        if !self.subject.is_empty() {
            text.push_str(": ");
            text.push_str(self.subject);
        }
        if self.errno != NONE {
            text.push_str(": ");
            text.push_str(&io::Error::from(self.errno).to_string());
        }
        Sentence::new(text)
    }
}

fn exec(subject: &str, errno: Errno) -> Sentence {
    let mut directories = Vec::new();
    let mut name = subject;
    for candidate in subject.split(':') {
        if let Some((directory, last)) = candidate.rsplit_once('/') {
            directories.push(if directory.is_empty() { "/" } else { directory });
            name = last;
        }
    }
    let searched = directories.len() > 1;
    let shown = if searched { name } else { subject };
    match errno {
        Errno::ENOENT if searched => Sentence::new(format!(
            "exec: {shown}: not found; looked in {}, inside the sandbox",
            directories.join(":")
        ))
        .remedy("`execute` of the policy must list where it is"),
        Errno::ENOENT => Sentence::new(format!("exec: {shown}: not found inside the sandbox"))
            .remedy("it, its interpreter or its loader isn't visible to this policy"),
        Errno::EACCES => Sentence::new(format!("exec: {shown}: found but may not be executed"))
            .remedy("it lacks the x bit, or `execute` of the policy doesn't list where it is"),
        Errno::ENOEXEC => Sentence::new(format!("exec: {shown}: not a program this machine can execute"))
            .remedy("a script needs a first line like #!/bin/sh"),
        Errno::E2BIG => Sentence::new(format!("exec: {shown}: arguments and environment are too large")),
        _ => Because { subject: shown, errno }.sentence("exec"),
    }
}

fn open(because: &Because<'_>) -> Sentence {
    let sentence = because.sentence("cannot open as the caller");
    match because.errno {
        Errno::ENOENT => sentence.remedy("the directory is gone or was never there"),
        Errno::ENOTDIR => sentence.remedy("a workspace is a directory"),
        Errno::EACCES | Errno::EPERM => sentence.remedy("the caller must be allowed to enter it"),
        Errno::ETIMEDOUT => sentence.remedy("is a network filesystem not answering?"),
        _ => sentence,
    }
}

fn file(because: &Because<'_>) -> Sentence {
    let sentence = because.sentence("cannot open a file of the workspace for the tool");
    match because.errno {
        Errno::ELOOP | Errno::ENOTDIR => {
            sentence.remedy("no symbolic link is followed below the workspace: name where it leads")
        }
        Errno::EISDIR | Errno::ESPIPE => sentence.remedy("it takes a regular file"),
        Errno::EACCES | Errno::EPERM => sentence
            .remedy("the policy doesn't let the run read it, or the file isn't readable for its owner"),
        _ => sentence,
    }
}

fn user_namespace(because: &Because<'_>) -> Sentence {
    needs_namespaces(because.sentence("cannot make a user namespace"), because.errno)
}

fn needs_namespaces(sentence: Sentence, errno: Errno) -> Sentence {
    match errno {
        Errno::EPERM | Errno::EACCES => sentence.remedy(
            "this machine forbids user namespaces (a container's profile, AppArmor, or \
             kernel.unprivileged_userns_clone); allow them, or use the policy `minimal`, which needs none",
        ),
        Errno::ENOSPC | Errno::EUSERS => sentence.remedy(
            "the kernel's limit is reached: raise user.max_user_namespaces and its like, or use the policy `minimal`",
        ),
        Errno::EINVAL | Errno::ENOSYS => {
            sentence.remedy("this kernel was built without them; use the policy `minimal`, which needs none")
        }
        _ => sentence,
    }
}

fn guard(because: &Because<'_>) -> Sentence {
    let sentence = because.sentence("cannot guard a denied or protected path");
    match because.errno {
        Errno::ELOOP => sentence.remedy("it leads through a symbolic link; name the real path in the policy"),
        _ => sentence,
    }
}

fn idmap(because: &Because<'_>) -> Sentence {
    let sentence = because.sentence("cannot map the workspace's owner to the run's user");
    match because.errno {
        Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP => sentence.remedy(
            "its filesystem has no idmapped mounts (overlayfs, NFS and some others, or a kernel before 5.12); \
             use a workspace on ext4, xfs, btrfs or tmpfs, or a policy with run-as = \"caller\"",
        ),
        Errno::EPERM => sentence.remedy("the daemon lacks the privilege over that mount; use run-as = \"caller\""),
        _ => sentence,
    }
}

fn identity(because: &Because<'_>) -> Sentence {
    if because.subject.contains('/') {
        return because.sentence("cannot tell which host uids other launchers' runs have").remedy(
            "the directory must be root's and writable by nobody else, and the file there root's, of mode 0600; \
             removed while no launcher runs, it's made again",
        );
    }
    let sentence = because.sentence("cannot change to the run's user");
    match because.errno {
        Errno::EAGAIN => sentence.remedy(
            "give the policy a larger run-as.range: runs of daemons have its even numbers, those without a daemon its odd ones",
        ),
        _ => sentence,
    }
}

fn rlimits(because: &Because<'_>) -> Sentence {
    let sentence = because.sentence("cannot set a resource limit");
    match because.errno {
        Errno::EPERM => sentence.remedy("the daemon's own hard limit is lower than the policy's"),
        _ => sentence,
    }
}

fn landlock(because: &Because<'_>) -> Sentence {
    let sentence = because.sentence("cannot apply Landlock");
    match because.errno {
        Errno::ENOSYS | Errno::EOPNOTSUPP => sentence.remedy(
            "this kernel has no Landlock (it came with 5.13; `minimal` needs ABI 6, kernel 6.12), or it isn't in \
             the boot's lsm= list; `stockade doctor` tells which policies do without",
        ),
        _ => sentence,
    }
}

fn seccomp(because: &Because<'_>) -> Sentence {
    let sentence = because.sentence("cannot install the system call filter");
    match because.errno {
        Errno::EINVAL | Errno::ENOSYS => sentence.remedy("this kernel was built without seccomp filters"),
        _ => sentence,
    }
}

fn cwd(because: &Because<'_>) -> Sentence {
    let sentence = because.sentence("cannot enter the working directory");
    match because.errno {
        Errno::ENOENT => sentence.remedy("it doesn't exist inside the sandbox"),
        Errno::EACCES => sentence.remedy("the run's user may not enter it"),
        _ => sentence,
    }
}

const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// A number of bytes as a person writes it: exact in whole units, else to a tenth.
#[must_use]
pub fn size(bytes: u64) -> String {
    for (name, unit) in UNITS {
        if bytes >= unit {
            let tenths = u128::from(bytes) * 10 / u128::from(unit);
            return match tenths % 10 {
                0 => format!("{} {name}", tenths / 10),
                rest => format!("{}.{rest} {name}", tenths / 10),
            };
        }
    }
    format!("{bytes} bytes")
}

/// A number of milliseconds as a person writes it.
#[must_use]
pub fn duration(milliseconds: u64) -> String {
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    match (seconds, rest) {
        (0, rest) => format!("{rest} ms"),
        (seconds, 0) if seconds >= 120 && seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        (seconds, 0) => format!("{seconds} s"),
        (seconds, rest) => format!("{seconds}.{} s", format!("{rest:03}").trim_end_matches('0')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(stage: SetupStage, errno: Errno, subject: &str) -> Sentence {
        setup_failure(&SetupFailure { stage, errno: errno as i32, subject: subject.into() })
    }

    #[test]
    fn a_missing_tool_is_named_with_where_we_looked() {
        let sentence = failure(SetupStage::Exec, Errno::ENOENT, "/usr/bin/python4:/bin/python4");
        assert_eq!(sentence.text, "exec: python4: not found; looked in /usr/bin:/bin, inside the sandbox");
        let sentence = failure(SetupStage::Exec, Errno::ENOENT, "/work/tool");
        assert_eq!(sentence.text, "exec: /work/tool: not found inside the sandbox");
        let sentence = failure(SetupStage::Exec, Errno::EACCES, "./a");
        assert_eq!(sentence.text, "exec: ./a: found but may not be executed");
    }

    #[test]
    fn forbidden_namespaces_name_the_policy_that_needs_none() {
        for stage in [SetupStage::UserNamespace, SetupStage::Namespaces] {
            let remedy = failure(stage, Errno::EPERM, "").remedy.unwrap_or_default();
            assert!(remedy.contains("`minimal`"), "{remedy}");
        }
    }

    #[test]
    fn a_filesystem_without_idmapped_mounts_is_named_with_both_ways_out() {
        let sentence = failure(SetupStage::Idmap, Errno::EINVAL, "/work");
        assert_eq!(
            sentence.text,
            "cannot map the workspace's owner to the run's user: /work: Invalid argument (os error 22)"
        );
        let remedy = sentence.remedy.unwrap_or_default();
        assert!(remedy.contains("overlayfs") && remedy.contains("run-as = \"caller\""), "{remedy}");
    }

    #[test]
    fn a_register_of_uids_that_cannot_be_used_is_named_with_what_mends_it() {
        let sentence = failure(SetupStage::Identity, Errno::EPERM, "/run/stockade/uids");
        assert!(sentence.text.contains("/run/stockade/uids: Operation not permitted"), "{sentence}");
        assert!(sentence.remedy.is_some_and(|remedy| remedy.contains("0600")));
        let elsewhere = failure(SetupStage::Identity, Errno::EPERM, "\u{2026}/uids");
        assert!(
            elsewhere.remedy.is_some_and(|remedy| remedy.contains("0600")),
            "told by a daemon, without its place"
        );
        let sentence = failure(SetupStage::Identity, Errno::EAGAIN, "no free uid in the run-as range");
        assert!(sentence.remedy.is_some_and(|remedy| remedy.contains("run-as.range")));
    }

    #[test]
    fn a_failure_without_an_errno_ends_with_its_subject() {
        let sentence = failure(SetupStage::Check, Errno::from_raw(0), "uid out of range");
        assert_eq!(sentence.text, "the launcher refused the run: uid out of range");
    }

    #[test]
    fn what_the_tool_did_itself_has_no_sentence() {
        assert_eq!(outcome(&Outcome::Exited { code: 3 }), None);
        assert_eq!(outcome(&Outcome::Signaled { signal: 9, core_dumped: false }), None);
        assert!(outcome(&Outcome::TimedOut { clock: Clock::Idle, limit_ms: 1 }).is_some());
    }

    #[test]
    fn sizes_and_times_are_written_as_a_person_writes_them() {
        let sizes = [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (512 << 20, "512 MiB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
        let times = [(5, "5 ms"), (1000, "1 s"), (1500, "1.5 s"), (60_000, "60 s"), (1_800_000, "30 min")];
        for (milliseconds, text) in times {
            assert_eq!(duration(milliseconds), text);
        }
    }
}
