//! The socket that systemd has made for us (sd_listen_fds(3)): it is there before we are, and stays when we go.
//!
//! What is passed is looked at before it is served: one Unix stream socket with a path, listening. Its name, its group
//! and its mode are its unit's affair, so it is never unlinked, and options that say something else are refused.
//! Beside it there may be the doors of launchers that systemd has held since our predecessor ([`crate::shelf`]).
//! Whatever else is passed is refused: somebody meant something by it that we wouldn't do.

use std::io;
use std::os::fd::RawFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;

use crate::shelf::is_door;

/// What its unit calls the socket (`FileDescriptorName=`), unless it leaves that to systemd.
const CLIENTS: &str = "clients";

/// Why a passed socket isn't served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActivationError {
    /// The variables that tell of what was passed are wrong.
    #[error("cannot tell which descriptors were passed (LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES)")]
    Variables(#[source] io::Error),
    /// More than one socket, or something with a name that isn't ours.
    #[error(
        "{} descriptors were passed, named {}; pass one socket and nothing else, with FileDescriptorName={CLIENTS} in its unit",
        .0.len(),
        .0.join(", ")
    )]
    Names(Vec<String>),
    /// No stream socket of this machine.
    #[error(
        "the descriptor `{name}` that was passed isn't a Unix stream socket; use ListenStream=/PATH in its unit"
    )]
    Type {
        /// What its unit calls it.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A connection, or a socket that was only bound.
    #[error("the socket `{0}` that was passed doesn't listen; use ListenStream= with Accept=no in its unit")]
    Deaf(String),
    /// Anybody could connect.
    #[error(
        "the socket `{0}` that was passed has no path, so no mode guards it; use ListenStream=/PATH in its unit"
    )]
    NoPath(String),
    /// An option wants another socket.
    #[error("--socket says {}, but the socket that was passed is {}; leave --socket out", asked.display(), passed.display())]
    Other {
        /// The option's.
        asked: PathBuf,
        /// The passed one's.
        passed: PathBuf,
    },
    /// An option wants to choose who may connect.
    #[error(
        "--group can't change a socket that was passed; leave it out, and use SocketGroup= in the socket's unit"
    )]
    Group,
}

/// Doors of launchers, by their names in systemd's store. Their descriptors stay open.
pub(crate) type Doors = Vec<(String, RawFd)>;

/// A socket that was made for us, and where it is.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) socket: UnixListener,
    pub(crate) path: PathBuf,
}

impl Passed {
    /// What this process was started with, if anything was passed to it. Takes it: the next call finds nothing.
    ///
    /// # Errors
    /// [`ActivationError`]: what was passed can't be served.
    pub(crate) fn to_this_process() -> Result<(Option<Self>, Doors), ActivationError> {
        // Both read the same variables: one knows names and closes them all on exec, the other owns them.
        let passed: Vec<(RawFd, String)> =
            sd_notify::listen_fds_with_names().map_err(ActivationError::Variables)?.collect();
        let doors = passed.iter().filter(|(_, name)| is_door(name));
        let doors: Doors = doors.map(|(number, name)| (name.clone(), *number)).collect();
        let names: Vec<String> = passed.into_iter().map(|(_, name)| name).collect();
        if names.len() == doors.len() {
            return Ok((None, doors));
        }
        let index = ours(&names).ok_or_else(|| ActivationError::Names(names.clone()))?;
        let name = names[index].clone();
        let wrong = |source| ActivationError::Type { name: name.clone(), source };
        let socket = ListenFd::from_env().take_unix_listener(index).map_err(wrong)?;
        let socket = Self::check(socket.ok_or_else(|| wrong(io::ErrorKind::NotFound.into()))?, name)?;
        Ok((Some(socket), doors))
    }

    fn check(socket: UnixListener, name: String) -> Result<Self, ActivationError> {
        let wrong = |source| ActivationError::Type { name: name.clone(), source };
        if !socket_acceptconn(&socket).map_err(|errno| wrong(errno.into()))? {
            return Err(ActivationError::Deaf(name));
        }
        let address = socket.local_addr().map_err(wrong)?;
        match address.as_pathname() {
            Some(path) => Ok(Self { path: path.to_owned(), socket }),
            None => Err(ActivationError::NoPath(name)),
        }
    }

    /// Whether the options agree with it.
    ///
    /// # Errors
    /// [`ActivationError::Other`], [`ActivationError::Group`].
    pub(crate) fn agrees(&self, socket: Option<&Path>, group: Option<&str>) -> Result<(), ActivationError> {
        if let Some(asked) = socket.filter(|asked| *asked != self.path) {
            return Err(ActivationError::Other { asked: asked.to_owned(), passed: self.path.clone() });
        }
        if group.is_some() { Err(ActivationError::Group) } else { Ok(()) }
    }
}

/// Which one is the clients' socket: the only one that is no door, by its name or by one that its unit didn't choose.
pub(crate) fn ours(names: &[String]) -> Option<usize> {
    let mut others = names.iter().enumerate().filter(|(_, name)| !is_door(name));
    let (Some((index, name)), None) = (others.next(), others.next()) else { return None };
    // Without FileDescriptorName= it is the unit's own, and `unknown` where names aren't passed at all.
    let unchosen = name == "unknown" || name.ends_with(".socket");
    (name == CLIENTS || unchosen).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::Listener;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn one_socket_is_ours_by_its_name_or_by_none_and_two_never_are() {
        let names = |names: &[&str]| ours(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        for name in ["clients", "unknown", "stockade.socket"] {
            assert_eq!(names(&[name]), Some(0), "{name}");
        }
        assert_eq!(names(&["metrics"]), None);
        assert_eq!(names(&["clients", "clients"]), None);
        assert_eq!(names(&["clients", "metrics"]), None);
        assert_eq!(names(&["launcher-0a", "clients", "launcher-0b"]), Some(1));
        assert_eq!(names(&["launcher-0a"]), None);
        assert_eq!(names(&["launcher-0a", "launcher", "clients"]), None);
    }

    #[test]
    fn a_socket_with_a_path_that_listens_is_taken_and_no_other() {
        use std::os::fd::OwnedFd;
        use std::os::linux::net::SocketAddrExt as _;
        use std::os::unix::net::{SocketAddr, UnixStream};
        let top = directory();
        let path = top.path().join("s");
        let passed = Passed::check(UnixListener::bind(&path).unwrap(), "s".to_owned()).unwrap();
        assert_eq!(passed.path, path);
        let connection = UnixListener::from(OwnedFd::from(UnixStream::connect(&path).unwrap()));
        let error = Passed::check(connection, "s".to_owned()).unwrap_err();
        assert!(matches!(error, ActivationError::Deaf(_)), "{error}");
        let name = format!("stockade-test-{}", std::process::id());
        let unguarded = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
        let error = Passed::check(unguarded, "s".to_owned()).unwrap_err();
        assert!(matches!(error, ActivationError::NoPath(_)), "{error}");
    }

    #[test]
    fn options_that_say_something_else_than_the_passed_socket_are_refused() {
        let top = directory();
        let path = top.path().join("s");
        let passed = Passed::check(UnixListener::bind(&path).unwrap(), "s".to_owned()).unwrap();
        passed.agrees(None, None).unwrap();
        passed.agrees(Some(&path), None).unwrap();
        let other = passed.agrees(Some(Path::new("/run/other.sock")), None).unwrap_err();
        assert!(other.to_string().contains("/run/other.sock"), "{other}");
        assert!(matches!(passed.agrees(None, Some("users")), Err(ActivationError::Group)));
    }

    #[test]
    fn a_socket_that_was_made_for_us_keeps_its_name_when_we_go() {
        let top = directory();
        let path = top.path().join("s");
        let passed = Passed::check(UnixListener::bind(&path).unwrap(), "s".to_owned()).unwrap();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let listener = Listener::take(passed).unwrap();
            let client = std::os::unix::net::UnixStream::connect(&path).unwrap();
            let accepted = listener.accept().await.unwrap();
            drop((client, accepted, listener));
        });
        assert!(path.exists());
    }
}
