//! Whether a process is one of ours, or may be a run's.

use std::io;
use std::path::{Path, PathBuf};

/// A kind of namespace by which processes are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// Of process ids.
    Pid,
    /// Of user ids.
    User,
}

impl Namespace {
    /// As `/proc` and people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pid => "pid",
            Self::User => "user",
        }
    }
}

/// What a run's init is called: nothing of a run can leave it while it lives.
pub const INIT_NAME: &str = "stockade-init";
/// The longest chain of parents that is followed.
pub const MAX_ANCESTORS: usize = 4096;

/// Whether a process shares our namespaces, and none of those above it is a run's init, which levels without namespaces have,
/// too. What can't be looked at may be one.
#[must_use]
pub fn is_no_run(pid: i32) -> bool {
    shares_namespaces(pid) && has_no_init_above(pid).unwrap_or(false)
}

fn has_no_init_above(pid: i32) -> Option<bool> {
    let mut at = pid;
    for _ in 0..MAX_ANCESTORS {
        if at <= 1 {
            return Some(true);
        }
        let stat = std::fs::read(format!("/proc/{at}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        if parse_name(&stat)? == INIT_NAME {
            return Some(false);
        }
        at = parse_parent(&stat)?;
    }
    None
}

/// The name in a `/proc/PID/stat`, between the first bracket and the last: it may hold anything, brackets included.
#[must_use]
pub fn parse_name(stat: &str) -> Option<&str> {
    let (before, _) = stat.rsplit_once(')')?;
    Some(before.split_once('(')?.1)
}

/// The parent in a `/proc/PID/stat`: the second field after the name.
#[must_use]
pub fn parse_parent(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Whether a process is in our pid and user namespaces. A run at a level with namespaces isn't, and must neither command the
/// launcher nor pass for it, whatever it can reach and read. What can't be looked at isn't one of ours.
#[must_use]
pub fn shares_namespaces(pid: i32) -> bool {
    [Namespace::Pid, Namespace::User].into_iter().all(|kind| is_in_our(kind, pid).unwrap_or(false))
}

/// Whether a process is in our namespace of this kind.
///
/// Only root and its own user may follow a process's links to its namespaces. Anybody else goes by what everybody may read
/// (proc_pid_status(5), user_namespaces(7)): a process that is seen from our pid namespace and has no number but the one it
/// has here is in it; one with our maps of user, group and project ids is in our user namespace, or in one in which every id
/// is itself. That only the machine's root can make, and whoever maps users and groups so (a container engine) leaves out
/// projects, which the first namespace has all of.
///
/// # Errors
/// Those of reading `/proc`, of what can't be told from it, and that the process has ended.
pub fn is_in_our(kind: Namespace, pid: i32) -> io::Result<bool> {
    let link = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/{}", kind.name()));
    let ours = link("self")?;
    match link(&pid.to_string()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => seems_in_our(kind, pid),
        theirs => Ok(theirs? == ours),
    }
}

fn seems_in_our(kind: Namespace, pid: i32) -> io::Result<bool> {
    let theirs = PathBuf::from(format!("/proc/{pid}"));
    let ours = Path::new("/proc/self");
    match kind {
        Namespace::Pid if numbers(ours)? == 1 => Ok(numbers(&theirs)? == 1),
        Namespace::Pid => {
            Err(io::Error::other("/proc is of another pid namespace than ours, and tells too little"))
        }
        Namespace::User => {
            for map in ["uid_map", "gid_map", "projid_map"] {
                if std::fs::read(ours.join(map))? != std::fs::read(theirs.join(map))? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}

/// How many process ids a process has, seen from where `/proc` was mounted: one in each pid namespace from there to its own.
fn numbers(process: &Path) -> io::Result<usize> {
    let status = std::fs::read_to_string(process.join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let line = line.ok_or_else(|| io::Error::other("its status has no NSpid, as before kernel 4.1"))?;
    Ok(line.split_whitespace().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Namespace; 2] = [Namespace::Pid, Namespace::User];

    #[test]
    fn we_are_one_of_ours_and_who_is_not_there_is_not() {
        assert!(shares_namespaces(std::process::id().cast_signed()));
        assert!(is_no_run(std::process::id().cast_signed()));
        assert!(!shares_namespaces(i32::MAX));
        assert_eq!(has_no_init_above(i32::MAX), None);
    }

    /// A process in a user namespace of its own.
    #[allow(clippy::disallowed_methods, reason = "a test starts a process")]
    struct Foreign(std::process::Child);

    impl Foreign {
        /// `None`: this machine has no such program, or doesn't permit it.
        #[allow(clippy::disallowed_methods, reason = "a test starts a process")]
        fn new() -> Option<Self> {
            use std::process::{Command, Stdio};
            let mut command = Command::new("unshare");
            command.args(["--user", "sh", "-c", "echo here; exec sleep 60"]);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
            let mut said = [0; 5];
            let is_in = io::Read::read_exact(child.stdout.as_mut()?, &mut said).is_ok();
            let foreign = Self(child);
            is_in.then_some(foreign)
        }

        fn pid(&self) -> i32 {
            self.0.id().cast_signed()
        }

        /// Has every id be itself.
        fn map(&self, which: &str) -> io::Result<()> {
            std::fs::write(format!("/proc/{}/{which}", self.pid()), "0 0 4294967295")
        }
    }

    impl Drop for Foreign {
        fn drop(&mut self) {
            let _killed = self.0.kill().and_then(|()| self.0.wait());
        }
    }

    /// Who may not follow links to namespaces tells them apart all the same, unless projects were mapped, too: which is said
    /// in SECURITY.md.
    #[test]
    #[allow(clippy::print_stderr, reason = "a test may not be able to try it")]
    fn a_user_namespace_in_which_every_id_is_itself_is_told_from_ours_by_its_projects() {
        let whole = std::fs::read_to_string("/proc/self/projid_map").unwrap();
        let is_first = whole.split_whitespace().eq(["0", "0", "4294967295"]);
        let foreign = Foreign::new().filter(|foreign| is_first && foreign.map("uid_map").is_ok());
        let Some(foreign) = foreign else {
            eprintln!(
                "not tested here: a user namespace in which every id is itself: only the machine's root makes one"
            );
            return;
        };
        foreign.map("gid_map").unwrap();
        let read = |who: &str, map: &str| std::fs::read(format!("/proc/{who}/{map}")).unwrap();
        let theirs = foreign.pid().to_string();
        for map in ["uid_map", "gid_map"] {
            assert_eq!(read("self", map), read(&theirs, map), "by these it's ours");
        }
        assert!(!seems_in_our(Namespace::User, foreign.pid()).unwrap());
        assert!(!is_in_our(Namespace::User, foreign.pid()).unwrap());
        foreign.map("projid_map").unwrap();
        assert!(seems_in_our(Namespace::User, foreign.pid()).unwrap());
    }

    #[test]
    fn what_everybody_may_read_tells_the_same_of_us_and_nothing_of_who_is_not_there() {
        for kind in BOTH {
            assert!(seems_in_our(kind, std::process::id().cast_signed()).unwrap());
            assert!(seems_in_our(kind, i32::MAX).is_err());
        }
    }
}
