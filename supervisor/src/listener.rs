//! The socket that clients connect to, and the lock that makes us the only supervisor of a state directory.
//!
//! The socket's directory is ours, no symbolic link, and nobody else may write to it (a user's: nor enter it), nor
//! replace one of those above it; otherwise somebody could put a socket of their own in the place of ours. A stale socket is replaced; a live one
//! is refused with its server's process id. Looking, removing and binding happen under a lock, so two daemons that
//! start at once can't remove each other's socket. It is on a file that only we may open: root's directory itself
//! can be opened, and so locked for good, by anybody.
//!
//! The socket appears when nothing is missing: it is bound under a name of its own, gets its group and mode, and
//! listens, before it is renamed. Who finds it may connect.
//!
//! ```text
//! lock ──> stale ones removed ──> NAME.new bound, listening ──> group, mode ──> NAME ── drop ──> removed
//! ```

use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use interprocess::local_socket::traits::tokio::Listener as _;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName as _};
use interprocess::os::unix::local_socket::ListenerOptionsExt as _;
use interprocess::os::unix::uds_local_socket::tokio::Listener as Accepting;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::Gid;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::accounts;
use crate::activation::Passed;
use crate::ancestors::{self, Unsafe};
use crate::paths::Scope;

/// What follows a socket's name until it has its group and mode. The kernel goes on telling that name to whoever asks
/// for the socket's address; nothing of ours does.
const UNFINISHED: &str = ".new";
/// The longest path of a socket: `sun_path` without its NUL and [`UNFINISHED`].
const MAX_SOCKET_PATH: usize = 107 - UNFINISHED.len();
const LOCK: &str = "supervisor.lock";

/// Why there is no socket to serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// No path is known for it.
    #[error(
        "no place for the socket: XDG_RUNTIME_DIR isn't set; name one with --socket, in a directory of your own"
    )]
    NoPlace,
    /// The path can't be a socket's.
    #[error("{path} can't be a socket: {reason}")]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// Something that isn't a socket has its name.
    #[error(
        "{path} can't be a socket: something else is there, which isn't a socket and isn't removed; look what it is"
    )]
    Occupied {
        /// The path.
        path: PathBuf,
    },
    /// A directory can't be made or looked at.
    #[error("cannot use the directory {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory isn't safe.
    #[error("the directory {path} isn't safe: {reason}; {remedy}")]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// What would help.
        remedy: String,
    },
    /// Somebody serves there.
    #[error("{path} is served already, by process {pid}")]
    Live {
        /// The socket.
        path: PathBuf,
        /// The server's process id.
        pid: i32,
    },
    /// Another supervisor has the state directory.
    #[error("the state directory {path} belongs to a supervisor already{}", by_process(.pid))]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Its process id, if the lock's file says.
        pid: Option<i32>,
    },
    /// No such group.
    #[error("there is no group `{0}`; make it, or name another")]
    Group(String),
    /// Binding failed.
    #[error("cannot listen on {path}")]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn by_process(pid: &Option<i32>) -> String {
    pid.map(|pid| format!(", process {pid}")).unwrap_or_default()
}

/// Who may use a socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access<'a> {
    /// Our effective user id.
    pub(crate) uid: u32,
    /// Whether others than we have business here.
    pub(crate) scope: Scope,
    /// The group, in a machine's daemon.
    pub(crate) group: Option<&'a str>,
}

impl Access<'_> {
    fn directory_mode(self) -> u32 {
        if self.scope.is_machine() { 0o755 } else { 0o700 }
    }

    /// Bits that the directory must not have.
    fn forbidden(self) -> u32 {
        if self.scope.is_machine() { 0o022 } else { 0o077 }
    }

    fn socket_mode(self) -> u32 {
        if self.scope.is_machine() { 0o660 } else { 0o600 }
    }
}

/// A socket that listens. Its name is removed when this is dropped, if we have made it.
pub(crate) struct Listener {
    accepting: Accepting,
    pub(crate) path: PathBuf,
    is_ours: bool,
}

impl Listener {
    /// Makes and checks the directory, replaces a stale socket, and binds. Within a tokio runtime.
    ///
    /// # Errors
    /// [`ListenError`].
    pub(crate) fn bind(path: &Path, access: Access<'_>) -> Result<Self, ListenError> {
        check_path(path)?;
        let group = access.group.map(group_named).transpose()?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        let held = make_directory(directory, access)?;
        // Held until the end of this function; let go of by the close.
        let _lock = lock_for(path, &held)
            .map_err(|errno| ListenError::Directory { path: directory.to_owned(), source: errno.into() })?;
        let unfinished = &path.with_file_name(name_with(path, UNFINISHED));
        remove_stale(path)?;
        // A daemon that was killed may have left it; whoever makes it has the lock.
        remove_stale(unfinished)?;
        let failed = |source: io::Error| ListenError::Bind { path: path.to_owned(), source };
        let name = unfinished.as_path().to_fs_name::<GenericFilePath>().map_err(failed)?;
        // Removes the unfinished name if we don't get to the end.
        let mut accepting = ListenerOptions::new()
            .name(name)
            .mode(access.socket_mode())
            .create_tokio_as::<Accepting>()
            .map_err(failed)?;
        if let Some(group) = group {
            nix::unistd::chown(unfinished, None, Some(group)).map_err(|errno| failed(errno.into()))?;
        }
        // Whatever the umask took from it; the group is the right one by now.
        std::fs::set_permissions(unfinished, std::fs::Permissions::from_mode(access.socket_mode()))
            .map_err(failed)?;
        std::fs::rename(unfinished, path).map_err(failed)?;
        accepting.do_not_reclaim_name_on_drop();
        Ok(Self { accepting, path: path.to_owned(), is_ours: true })
    }

    /// Takes one that was made for us. Within a tokio runtime.
    ///
    /// # Errors
    /// [`ListenError::Bind`].
    pub(crate) fn take(Passed { socket, path }: Passed) -> Result<Self, ListenError> {
        match Accepting::try_from(OwnedFd::from(socket)) {
            Ok(accepting) => Ok(Self { accepting, path, is_ours: false }),
            Err(source) => Err(ListenError::Bind { path, source }),
        }
    }

    /// The next connection, non-blocking and close-on-exec.
    ///
    /// # Errors
    /// Those of accept(2).
    pub(crate) async fn accept(&self) -> io::Result<OwnedFd> {
        OwnedFd::try_from(self.accepting.accept().await?)
    }
}

impl Drop for Listener {
    /// While we still listen, so nobody can have taken the name for a stale one and put another socket there.
    fn drop(&mut self) {
        if self.is_ours
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "the socket can't be removed");
        }
    }
}

fn check_path(path: &Path) -> Result<(), ListenError> {
    let reason = if !path.is_absolute() {
        "it isn't absolute"
    } else if path.file_name().is_none() {
        "it has no name"
    } else if path.as_os_str().as_bytes().len() > MAX_SOCKET_PATH {
        "it is longer than 103 bytes (the kernel allows 107, and until it is ready its name has 4 more)"
    } else {
        return Ok(());
    };
    Err(ListenError::Path { path: path.to_owned(), reason })
}

fn group_named(name: &str) -> Result<Gid, ListenError> {
    accounts::group(name).map(Gid::from_raw).ok_or_else(|| ListenError::Group(name.to_owned()))
}

/// Makes a directory if it isn't there, and checks it. A descriptor of it.
fn make_directory(path: &Path, access: Access<'_>) -> Result<OwnedFd, ListenError> {
    let failed = |source: io::Error| ListenError::Directory { path: path.to_owned(), source };
    let mode = access.directory_mode();
    check_ancestors(path, access)?;
    if !path.exists() {
        DirBuilder::new().recursive(true).mode(mode).create(path).map_err(failed)?;
        // Whatever the umask was.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
        // Somebody may have been faster, where everybody may make directories.
        check_ancestors(path, access)?;
    }
    let not_safe =
        |reason: String, remedy: String| ListenError::Unsafe { path: path.to_owned(), reason, remedy };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(directory) => File::from(directory),
        Err(Errno::LOOP | Errno::NOTDIR) => {
            let reason = "it is a symbolic link or no directory".to_owned();
            return Err(not_safe(reason, "name the real directory".to_owned()));
        }
        Err(errno) => return Err(failed(errno.into())),
    };
    let found = directory.metadata().map_err(failed)?;
    if found.uid() != access.uid {
        let reason = format!("it belongs to user {}, not to {}", found.uid(), access.uid);
        return Err(not_safe(reason, "use a directory of your own".to_owned()));
    }
    if found.mode() & access.forbidden() != 0 {
        let reason =
            format!("others may {} it", if access.scope.is_machine() { "write to" } else { "enter" });
        return Err(not_safe(reason, format!("chmod {mode:o} {}, or use another", path.display())));
    }
    Ok(directory.into())
}

/// Checks the directories above one.
fn check_ancestors(path: &Path, access: Access<'_>) -> Result<(), ListenError> {
    ancestors::check(path, access.uid).map_err(|error| match error {
        Unsafe::Place { path, reason, remedy } => ListenError::Unsafe { path, reason, remedy },
        Unsafe::Io { path, source } => ListenError::Directory { path, source },
    })
}

/// A socket's name with something after it.
fn name_with(socket: &Path, suffix: &str) -> OsString {
    let mut name = socket.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    name
}

/// The lock that starting daemons take turns by: `NAME.lock` beside the socket. It stays, for whoever waits on it.
fn lock_for(socket: &Path, directory: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let name = name_with(socket, ".lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
    Ok(lock)
}

/// Removes a socket that nobody serves.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let failed = |source: io::Error| ListenError::Bind { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::Occupied { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match server_of(path).map_err(failed)? {
        Some(pid) => Err(ListenError::Live { path: path.to_owned(), pid }),
        None => std::fs::remove_file(path).map_err(failed),
    }
}

/// The process that listens on a socket; 0 if it can't be told.
fn server_of(path: &Path) -> io::Result<Option<i32>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => Ok(Some(getsockopt(&socket, PeerCredentials).map_or(0, |peer| peer.pid()))),
        // Its queue of connections is full: somebody is there.
        Err(Errno::AGAIN) => Ok(Some(0)),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// The lock on a state directory, held as long as this lives.
#[derive(Debug)]
pub(crate) struct StateLock {
    _file: File,
}

impl StateLock {
    /// Makes and checks the directory, and locks it.
    ///
    /// # Errors
    /// [`ListenError`].
    pub(crate) fn take(directory: &Path, uid: u32) -> Result<Self, ListenError> {
        let failed = |source: io::Error| ListenError::Directory { path: directory.to_owned(), source };
        // Nobody else has business here, whoever runs the daemon.
        let access = Access { uid, scope: Scope::of(uid), group: None };
        let opened = make_directory(directory, access)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&opened, LOCK, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| failed(errno.into()))?;
        let mut file = File::from(file);
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let text = io::read_to_string(&file).unwrap_or_default();
                let pid = text.trim().parse().ok();
                return Err(ListenError::Locked { path: directory.to_owned(), pid });
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn access() -> Access<'static> {
        let uid = rustix::process::geteuid().as_raw();
        Access { uid, scope: Scope::of(uid), group: None }
    }

    /// A directory as the daemon makes its own.
    fn ours(top: &tempfile::TempDir) -> PathBuf {
        let directory = top.path().join("ours");
        DirBuilder::new().mode(access().directory_mode()).create(&directory).unwrap();
        directory
    }

    /// As a user's own must be, whatever the umask.
    fn private() -> tempfile::TempDir {
        let mode = std::fs::Permissions::from_mode(0o700);
        tempfile::Builder::new().permissions(mode).tempdir().unwrap()
    }

    fn within(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn a_fresh_socket_has_its_mode_in_a_directory_of_ours() {
        within(async {
            let top = private();
            let path = top.path().join("new/stockade.sock");
            let listener = Listener::bind(&path, access()).unwrap();
            let mode = |path: &Path| std::fs::symlink_metadata(path).unwrap().mode() & 0o777;
            assert_eq!(mode(&path), access().socket_mode());
            assert_eq!(mode(path.parent().unwrap()), access().directory_mode());
            let client = UnixStream::connect(&path).unwrap();
            let accepted = listener.accept().await.unwrap();
            drop((client, accepted, listener));
            assert_eq!(names(path.parent().unwrap()), ["stockade.sock.lock"]);
        });
    }

    /// The names in a directory.
    fn names(directory: &Path) -> Vec<OsString> {
        directory.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    /// A group that isn't our own, which only root can give a socket to.
    fn other_group() -> Option<(String, u32)> {
        let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
        let name =
            groups.lines().filter(|line| !line.contains(":0:")).find_map(|line| line.split(':').next());
        let found = name.and_then(|name| Some((name.to_owned(), accounts::group(name)?)));
        found.filter(|_| access().uid == 0)
    }

    #[test]
    fn a_socket_appears_with_its_owner_group_and_mode() {
        use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
        within(async {
            let top = private();
            let directory = ours(&top);
            let path = directory.join("s");
            let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
            add_watch(&inotify, &directory, WatchFlags::ALL_EVENTS).unwrap();
            let other = other_group();
            let group = other.as_ref().map(|(name, _)| name.as_str());
            let _listener = Listener::bind(&path, Access { group, ..access() }).unwrap();
            let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
            let mut reader = Reader::new(&inotify, &mut buffer);
            let mut happened = Vec::new();
            while let Ok(event) = reader.next() {
                if event.file_name().is_some_and(|name| name.to_bytes() == b"s") {
                    happened.push(event.events());
                }
            }
            // Not made there, and nothing changed once it was there.
            assert_eq!(happened, [ReadFlags::MOVED_TO]);
            let found = std::fs::symlink_metadata(&path).unwrap();
            assert_eq!(found.mode() & 0o777, access().socket_mode());
            assert_eq!(found.uid(), access().uid);
            match other {
                Some((_, id)) => assert_eq!(found.gid(), id),
                None => eprintln!("not tested: the socket's group: that takes root, and a group"),
            }
        });
    }

    #[test]
    fn what_a_killed_daemon_left_unfinished_is_replaced_and_what_is_served_there_is_not() {
        let _starting = crate::starting::none();
        within(async {
            let top = private();
            let path = ours(&top).join("s");
            let unfinished = path.with_extension("new");
            drop(UnixListener::bind(&unfinished).unwrap());
            drop(Listener::bind(&path, access()).unwrap());
            assert!(!unfinished.exists());
            let served = UnixListener::bind(&unfinished).unwrap();
            let error = Listener::bind(&path, access()).err().unwrap();
            assert!(matches!(&error, ListenError::Live { path, .. } if *path == unfinished), "{error}");
            assert!(UnixStream::connect(&unfinished).is_ok());
            drop(served);
            std::fs::remove_file(&unfinished).unwrap();
            std::fs::write(&unfinished, "precious").unwrap();
            assert!(matches!(Listener::bind(&path, access()), Err(ListenError::Occupied { .. })));
            assert!(!path.exists());
        });
    }

    #[test]
    fn a_socket_that_cannot_be_finished_leaves_nothing() {
        within(async {
            let top = private();
            let directory = ours(&top);
            // Only a directory could have this name.
            let error = Listener::bind(&directory.join("s/"), access()).err().unwrap();
            assert!(matches!(error, ListenError::Bind { .. }), "{error}");
            assert_eq!(names(&directory), ["s.lock"]);
        });
    }

    #[test]
    fn the_longest_path_can_be_bound_and_one_byte_more_is_refused() {
        within(async {
            let top = private();
            let directory = ours(&top);
            let room = MAX_SOCKET_PATH - directory.as_os_str().len() - 1;
            let path = directory.join("s".repeat(room));
            let listener = Listener::bind(&path, access()).unwrap();
            assert!(UnixStream::connect(&path).is_ok());
            drop(listener);
            let path = directory.join("s".repeat(room + 1));
            assert!(matches!(Listener::bind(&path, access()), Err(ListenError::Path { .. })));
        });
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_refused_with_its_pid() {
        let _starting = crate::starting::none();
        within(async {
            let top = private();
            let path = ours(&top).join("s");
            drop(UnixListener::bind(&path).unwrap());
            assert!(path.exists());
            let _first = Listener::bind(&path, access()).unwrap();
            let Err(ListenError::Live { pid, .. }) = Listener::bind(&path, access()) else {
                panic!("bound twice")
            };
            assert_eq!(pid.cast_unsigned(), std::process::id());
        });
    }

    #[test]
    fn something_that_is_no_socket_is_left_alone() {
        within(async {
            let top = private();
            let path = ours(&top).join("s");
            std::fs::write(&path, "precious").unwrap();
            assert!(matches!(Listener::bind(&path, access()), Err(ListenError::Occupied { .. })));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        });
    }

    #[test]
    fn a_directory_that_others_may_change_or_a_link_to_one_is_refused() {
        within(async {
            let top = private();
            let open = top.path().join("open");
            std::fs::create_dir(&open).unwrap();
            std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
            let error = Listener::bind(&open.join("s"), access()).err().unwrap();
            assert!(matches!(error, ListenError::Unsafe { .. }), "{error}");
            let real = top.path().join("real");
            DirBuilder::new().mode(0o700).create(&real).unwrap();
            let link = top.path().join("link");
            std::os::unix::fs::symlink(&real, &link).unwrap();
            let error = Listener::bind(&link.join("s"), access()).err().unwrap();
            assert!(matches!(error, ListenError::Unsafe { .. }), "{error}");
        });
    }

    #[test]
    fn a_directory_below_one_that_others_may_change_is_refused_by_that_one() {
        let top = private();
        let open = top.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        let error = StateLock::take(&open.join("a/state"), access().uid).unwrap_err();
        assert!(matches!(&error, ListenError::Unsafe { path, .. } if *path == open), "{error}");
        assert!(error.to_string().contains("chmod go-w"), "{error}");
        assert!(!open.join("a").exists(), "nothing is made there");
    }

    #[test]
    fn a_lock_that_somebody_holds_on_the_directory_keeps_nobody_from_serving() {
        let top = private();
        let directory = top.path().join("open-to-readers");
        DirBuilder::new().mode(access().directory_mode()).create(&directory).unwrap();
        let theirs = File::open(&directory).unwrap();
        rustix::fs::flock(&theirs, FlockOperation::LockExclusive).unwrap();
        let (done, bound) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            within(async move {
                done.send(Listener::bind(&directory.join("s"), access()).is_ok()).unwrap();
            });
        });
        assert_eq!(bound.recv_timeout(std::time::Duration::from_secs(20)), Ok(true));
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_named() {
        let long = PathBuf::from(format!("/tmp/{}", "x".repeat(200)));
        for path in [PathBuf::from("relative"), long, PathBuf::from("/")] {
            assert!(matches!(check_path(&path), Err(ListenError::Path { .. })), "{path:?}");
        }
    }

    #[test]
    fn one_supervisor_has_a_state_directory() {
        let _starting = crate::starting::none();
        let top = private();
        let uid = access().uid;
        let lock = StateLock::take(&top.path().join("state"), uid).unwrap();
        let error = StateLock::take(&top.path().join("state"), uid).unwrap_err();
        let ours = i32::try_from(std::process::id()).unwrap();
        assert!(matches!(error, ListenError::Locked { pid: Some(pid), .. } if pid == ours), "{error}");
        assert!(error.to_string().ends_with(&format!(", process {ours}")));
        drop(lock);
        assert!(StateLock::take(&top.path().join("state"), uid).is_ok());
    }

    #[test]
    fn a_group_that_does_not_exist_is_named() {
        let error = group_named("no-such-group-here").unwrap_err();
        assert!(error.to_string().contains("no-such-group-here"));
    }
}
