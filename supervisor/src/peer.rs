//! Who is at the other end of a connection, and whether it may be a client.
//!
//! The kernel says who (`SO_PEERCRED`, `SO_PEERPIDFD`); `/proc` says the rest while the pidfd proves that the
//! process is still the same. Refused are: a process of the launcher's tree or of any init's (a run must never
//! become a client), one in a foreign pid or user namespace (a container's root isn't our root, and its pids say nothing to us), and
//! in a user's daemon anybody but that user and root. Root is a visitor there: he may answer what waits for an approval, which nobody
//! else can who isn't the asker, and nothing else. What can't be read is refused, too.
//!
//! The supplementary groups are read from `/proc/PID/status`, since `SO_PEERGROUPS` has no safe wrapper. They are
//! taken only if all four user ids and group ids there are still those of the socket: a set-user-id program that
//! took over the process since it connected lends nothing. So is the systemd unit that its control group is of: once, while the
//! process is the same; one that can't be read is none, and gives nobody a role.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::{PeerCredentials, PeerPidfd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use stockade_protocol::launch::Owner;
use stockade_wire::kin::{self, INIT_NAME, MAX_ANCESTORS, Namespace, parse_name, parse_parent};

use crate::paths::Scope;
use crate::unit;

/// The most supplementary groups of an owner: the kernel's own bound is 65536, far more than any user has.
const MAX_GROUPS: usize = 1024;

const ROOT: u32 = 0;

/// The most that is read of a file of `/proc`: a `status` with the most groups that are taken.
const LARGEST_FILE: usize = 16 * 1024;

/// Why a peer may not be a client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotAClient {
    /// The kernel doesn't say who it is.
    #[error("cannot ask who the peer is")]
    Unknown(#[source] io::Error),
    /// Its process id isn't visible here.
    #[error("the peer is in a foreign pid namespace")]
    Invisible,
    /// It has ended, or is another process by now.
    #[error("the peer process {0} is gone")]
    Gone(i32),
    /// Another user, at a user's own daemon.
    #[error("user {theirs} may not use the daemon of user {ours}")]
    OtherUser {
        /// Its user.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// A run, or a process of one.
    #[error("process {0} belongs to a run: a run can't be a client")]
    Run(i32),
    /// In another namespace than we are.
    #[error("process {pid} is in a foreign {kind} namespace")]
    ForeignNamespace {
        /// Its process id.
        pid: i32,
        /// `pid` or `user`.
        kind: &'static str,
    },
    /// What decides can't be read.
    #[error("cannot read {path} to check the peer")]
    Unreadable {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its identity changed since it connected.
    #[error("process {0} has changed its user or groups since it connected")]
    Changed(i32),
}

/// For whom we look.
#[derive(Debug, Clone)]
pub(crate) struct Viewer {
    /// Our effective user id.
    pub(crate) uid: u32,
    /// Whether others may be our clients.
    pub(crate) scope: Scope,
    /// Our process id: everything beneath us belongs to a run.
    pub(crate) pid: i32,
    /// The launchers' process ids, should they have another parent than us.
    pub(crate) launchers: Vec<i32>,
}

impl Viewer {
    /// Whether this is a user's own daemon.
    pub(crate) fn is_user_mode(&self) -> bool {
        !self.scope.is_machine()
    }
}

/// A peer that may be a client.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Who it acts for.
    pub(crate) owner: Owner,
    /// Its process id.
    pub(crate) pid: i32,
    /// The systemd unit that it was of when it connected.
    pub(crate) unit: Option<String>,
    /// Root, at a user's own daemon: he may see what waits for an approval, and answer.
    pub(crate) is_visitor: bool,
}

/// Asks who is there, and judges.
///
/// # Errors
/// [`NotAClient`].
pub(crate) fn inspect(socket: &OwnedFd, viewer: &Viewer) -> Result<Peer, NotAClient> {
    let credentials =
        getsockopt(socket, PeerCredentials).map_err(|errno| NotAClient::Unknown(errno.into()))?;
    let (pid, uid, gid) = (credentials.pid(), credentials.uid(), credentials.gid());
    if pid <= 0 {
        return Err(NotAClient::Invisible);
    }
    // Before kernel 6.5 there is no pidfd of a peer; one opened by number is as good as /proc is, and no better.
    let pidfd = match getsockopt(socket, PeerPidfd) {
        Ok(pidfd) => pidfd,
        Err(nix::errno::Errno::ENOPROTOOPT) => open_pidfd(pid).ok_or(NotAClient::Gone(pid))?,
        Err(_) => return Err(NotAClient::Gone(pid)),
    };
    let is_visitor = viewer.is_user_mode() && uid != viewer.uid;
    if is_visitor && uid != ROOT {
        return Err(NotAClient::OtherUser { theirs: uid, ours: viewer.uid });
    }
    let groups = groups_of(pid, uid, gid)?;
    check_ancestry(pid, viewer)?;
    for kind in [Namespace::Pid, Namespace::User] {
        check_namespace(pid, kind)?;
    }
    let cgroups = read(format!("/proc/{pid}/cgroup"), pid);
    if has_ended(&pidfd) {
        return Err(NotAClient::Gone(pid));
    }
    let unit = cgroups.ok().as_deref().and_then(unit::of_cgroups);
    Ok(Peer { owner: Owner { uid, gid, groups }, pid, unit, is_visitor })
}

fn open_pidfd(pid: i32) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid)?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

fn has_ended(pidfd: impl AsFd) -> bool {
    let mut set = [PollFd::new(&pidfd, PollFlags::IN)];
    !matches!(poll(&mut set, Some(&Timespec::default())), Ok(0))
}

/// Reads a file of `/proc` in as few calls as it takes: the library's way begins with 32 bytes.
fn read(path: String, pid: i32) -> Result<String, NotAClient> {
    let whole = || -> io::Result<String> {
        let mut file = std::fs::File::open(&path)?;
        let mut text = vec![0; LARGEST_FILE];
        let mut length = 0;
        while length < text.len() {
            match file.read(&mut text[length..])? {
                0 => break,
                count => length += count,
            }
        }
        text.truncate(length);
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    whole().map_err(|source| {
        let gone = [nix::libc::ENOENT, nix::libc::ESRCH].map(Some).contains(&source.raw_os_error());
        if gone { NotAClient::Gone(pid) } else { NotAClient::Unreadable { path: path.into(), source } }
    })
}

fn groups_of(pid: i32, uid: u32, gid: u32) -> Result<Vec<u32>, NotAClient> {
    let status = read(format!("/proc/{pid}/status"), pid)?;
    parse_groups(&status, uid, gid).ok_or(NotAClient::Changed(pid))
}

/// The groups in a `status`, if all its ids are these.
fn parse_groups(status: &str, uid: u32, gid: u32) -> Option<Vec<u32>> {
    let numbers = |key: &str| -> Option<Vec<u32>> {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().map(|number| number.parse().ok()).collect()
    };
    let same =
        |key: &str, id: u32| numbers(key).is_some_and(|ids| ids.len() == 4 && ids.iter().all(|&i| i == id));
    if !same("Uid:", uid) || !same("Gid:", gid) {
        return None;
    }
    numbers("Groups:").filter(|groups| groups.len() <= MAX_GROUPS)
}

fn check_ancestry(pid: i32, viewer: &Viewer) -> Result<(), NotAClient> {
    let mut at = pid;
    for _ in 0..MAX_ANCESTORS {
        if viewer.launchers.contains(&at) || (at == viewer.pid && at != pid) {
            return Err(NotAClient::Run(pid));
        }
        if at <= 1 {
            return Ok(());
        }
        let stat = read(format!("/proc/{at}/stat"), pid)?;
        if parse_name(&stat) == Some(INIT_NAME) {
            return Err(NotAClient::Run(pid));
        }
        at = parse_parent(&stat).ok_or(NotAClient::Gone(pid))?;
    }
    Err(NotAClient::Run(pid))
}

/// All that is read from a process's own words.
#[cfg(feature = "fuzzing")]
pub(crate) fn said_of<'a>(
    stat: &'a str,
    status: &str,
    (uid, gid): (u32, u32),
) -> (Option<&'a str>, Option<i32>, Option<Vec<u32>>) {
    (parse_name(stat), parse_parent(stat), parse_groups(status, uid, gid))
}

fn check_namespace(pid: i32, kind: Namespace) -> Result<(), NotAClient> {
    match kin::is_in_our(kind, pid) {
        Ok(true) => Ok(()),
        Ok(false) => Err(NotAClient::ForeignNamespace { pid, kind: kind.name() }),
        Err(source) => {
            let path = PathBuf::from(format!("/proc/{pid}/ns/{}", kind.name()));
            Err(NotAClient::Unreadable { path, source })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ourselves() -> Viewer {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let uid = rustix::process::geteuid().as_raw();
        Viewer { uid, scope: Scope::of(uid), pid, launchers: Vec::new() }
    }

    fn pair() -> (OwnedFd, OwnedFd) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        (ours.into(), theirs.into())
    }

    #[test]
    fn a_peer_of_ours_is_known_with_its_groups() {
        let (socket, _other) = pair();
        let peer = inspect(&socket, &ourselves()).unwrap();
        assert_eq!(peer.pid, ourselves().pid);
        assert_eq!(peer.owner.uid, ourselves().uid);
        let mut groups: Vec<u32> =
            nix::unistd::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
        let mut seen = peer.owner.groups;
        groups.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, groups);
    }

    #[test]
    fn a_descendant_of_the_launcher_is_refused() {
        let (socket, _other) = pair();
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
        let viewer = Viewer { launchers: vec![parent], ..ourselves() };
        assert!(matches!(inspect(&socket, &viewer), Err(NotAClient::Run(_))));
        let viewer = Viewer { launchers: vec![ourselves().pid], ..ourselves() };
        assert!(matches!(inspect(&socket, &viewer), Err(NotAClient::Run(_))));
    }

    #[test]
    fn a_descendant_of_the_supervisor_is_refused_and_the_supervisor_itself_is_not() {
        let (socket, _other) = pair();
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
        let viewer = Viewer { pid: parent, ..ourselves() };
        assert!(matches!(inspect(&socket, &viewer), Err(NotAClient::Run(_))));
        assert!(inspect(&socket, &ourselves()).is_ok());
    }

    #[test]
    fn another_user_is_refused_by_a_users_daemon_and_root_is_a_visitor() {
        let (socket, _other) = pair();
        let viewer = Viewer { uid: ourselves().uid + 1, scope: Scope::User, ..ourselves() };
        let judged = inspect(&socket, &viewer);
        if ourselves().uid == ROOT {
            assert!(judged.unwrap().is_visitor);
        } else {
            assert!(matches!(judged, Err(NotAClient::OtherUser { .. })));
        }
        assert!(!inspect(&socket, &ourselves()).unwrap().is_visitor);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        assert!(check_namespace(ourselves().pid, Namespace::Pid).is_ok());
        let error = check_namespace(i32::MAX, Namespace::Pid).unwrap_err();
        assert!(matches!(error, NotAClient::Unreadable { .. }));
    }

    #[test]
    #[allow(
        clippy::disallowed_methods,
        clippy::print_stderr,
        reason = "a test starts a process and may not be able to"
    )]
    fn a_process_in_a_foreign_user_or_pid_namespace_is_refused() {
        use std::io::{BufRead as _, BufReader};
        use std::process::{Command, Stdio};
        let foreign =
            [(["--user", "--map-root-user"], Namespace::User), (["--pid", "--fork"], Namespace::Pid)];
        for (flags, kind) in foreign {
            let starting = crate::starting::one();
            let child = Command::new("unshare")
                .args(flags)
                // Substituted, so that readlink is reaped by then and isn't taken for the process inside.
                .args(["sh", "-c", "here=$(readlink /proc/self/ns/user); echo $here; exec sleep 30"])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn();
            drop(starting);
            let Ok(mut child) = child else {
                eprintln!("not tested here: a peer in a foreign {kind:?} namespace: no unshare program");
                continue;
            };
            let mut said = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
            let parent = i32::try_from(child.id()).unwrap();
            if said.is_empty() {
                eprintln!(
                    "not tested here: a peer in a foreign {kind:?} namespace: not permitted to make one"
                );
            } else {
                // A pid namespace is entered by unshare's child.
                let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
                let inside = children.ok().and_then(|pids| pids.split_whitespace().next()?.parse().ok());
                let pid = inside.unwrap_or(parent);
                let refused = check_namespace(pid, kind);
                assert!(matches!(refused, Err(NotAClient::ForeignNamespace { .. })), "{kind:?}: {refused:?}");
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            }
            let _killed_before = child.kill();
            child.wait().unwrap();
        }
    }

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parse_parent("7 (a) b) 1 (c) S 42 7 7 0 -1"), Some(42));
        assert_eq!(parse_parent("7 (x) S"), None);
        assert_eq!(parse_parent(""), None);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a child of the test's own stands for a run")]
    fn a_descendant_of_any_runs_init_is_refused() {
        use std::io::{BufRead as _, BufReader, Write as _};
        use std::process::{Command, Stdio};
        // A shell that takes an init's name, and a child of it that waits.
        let script =
            "printf stockade-init > /proc/$$/comm; sleep 60 >/dev/null & echo $!; read -r _; kill $!";
        let mut command = Command::new("sh");
        let piped = command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let starting = crate::starting::one();
        let mut shell = piped.spawn().unwrap();
        drop(starting);
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let child: i32 = line.trim().parse().unwrap();
        // Seen by somebody who isn't above it, as a supervisor beside it is.
        let viewer = Viewer { pid: i32::MAX, ..ourselves() };
        let answer = check_ancestry(child, &viewer);
        shell.stdin.take().unwrap().write_all(b"\n").unwrap();
        shell.wait().unwrap();
        assert!(matches!(answer, Err(NotAClient::Run(_))), "{answer:?}");
        assert!(check_ancestry(ourselves().pid, &viewer).is_ok());
    }

    #[test]
    fn the_name_is_found_whatever_it_holds() {
        assert_eq!(parse_name("7 (a) b) 1 (c) S 42 7 7 0 -1"), Some("a) b) 1 (c"));
        assert_eq!(parse_name("7 x"), None);
    }

    #[test]
    fn groups_count_only_while_every_id_is_the_sockets() {
        let status = |uids: &str| format!("Name:\tx\nUid:\t{uids}\nGid:\t5\t5\t5\t5\nGroups:\t5 27 \n");
        assert_eq!(parse_groups(&status("7\t7\t7\t7"), 7, 5), Some(vec![5, 27]));
        assert_eq!(parse_groups(&status("7\t0\t7\t0"), 7, 5), None);
        assert_eq!(parse_groups(&status("7\t7\t7\t7"), 7, 6), None);
        assert_eq!(parse_groups("", 7, 5), None);
    }
}
