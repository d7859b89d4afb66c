//! For whom a run is, by the kernel's own word: a supervisor with less privilege than its launcher isn't believed, or whoever takes
//! it over could have commands run for anybody, root included.
//!
//! The proof is the client's connection as the supervisor has accepted it. Of that the kernel says who connected (`SO_PEERCRED`,
//! `SO_PEERGROUPS`), whoever holds it. What else a supervisor can come by doesn't pass for one: a connection that it has made
//! itself, to a listener of root's, say, has a peer with a name; a pair of sockets, as the relay's, has no name at this end.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{UnixAddr, getpeername, getsockname, getsockopt};
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;
use stockade_protocol::launch::{Launch, Owner};
use stockade_protocol::outcome::SetupStage;

use super::Launcher;
use crate::failure::{Staged, failed};
use crate::sys;

/// How a failure names it.
const SUBJECT: &str = "owner's proof";

impl Launcher {
    /// Whether a launch is for whom it says, as far as its supervisor isn't believed. Takes the proof from `beside`.
    ///
    /// # Errors
    /// `Check`: it isn't shown to be.
    pub(super) fn prove(&self, launch: &Launch, beside: &mut Vec<OwnedFd>) -> Staged<()> {
        let proof = if launch.proved { beside.pop() } else { None };
        if self.believes == Some(true) {
            return Ok(());
        }
        let shown = proof.is_some_and(|connection| is_of(&connection, &launch.owner).unwrap_or(false));
        if shown { Ok(()) } else { Err(failed(SetupStage::Check, libc::EPERM, SUBJECT)) }
    }
}

/// Whether a supervisor of this user is believed: it could do by itself all that it has done for others.
pub(super) fn believes(supervisor: u32) -> bool {
    supervisor == 0 || supervisor == rustix::process::geteuid().as_raw()
}

/// Whether this is an accepted connection of this user's, and he has these groups.
fn is_of(connection: &OwnedFd, owner: &Owner) -> io::Result<bool> {
    let ours: UnixAddr = getsockname(connection.as_raw_fd())?;
    let theirs: UnixAddr = getpeername(connection.as_raw_fd())?;
    let is_accepted = ours.path().is_some() && theirs.path().is_none() && theirs.as_abstract().is_none();
    if socket_type(connection)? != SocketType::STREAM || !is_accepted {
        return Ok(false);
    }
    let client = getsockopt(connection, PeerCredentials)?;
    let groups = sys::peer_groups(connection.as_fd())?;
    Ok(client.pid() > 0
        && (client.uid(), client.gid()) == (owner.uid, owner.gid)
        && owner.groups.iter().all(|group| groups.contains(group)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn me() -> Owner {
        let groups = nix::unistd::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
        Owner { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw(), groups }
    }

    #[test]
    fn an_accepted_connection_shows_who_has_connected_and_nobody_else() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let accepted = OwnedFd::from(listener.accept().unwrap().0);
        assert!(is_of(&accepted, &me()).unwrap());
        // Also once it has left.
        drop(client);
        assert!(is_of(&accepted, &me()).unwrap());
        let other = |change: fn(&mut Owner)| {
            let mut owner = me();
            change(&mut owner);
            owner
        };
        assert!(!is_of(&accepted, &other(|owner| owner.uid += 1)).unwrap());
        assert!(!is_of(&accepted, &other(|owner| owner.gid += 1)).unwrap());
        assert!(!is_of(&accepted, &other(|owner| owner.groups.push(60_123))).unwrap());
        assert!(is_of(&accepted, &other(|owner| owner.groups.clear())).unwrap());
    }

    fn launch(proved: bool) -> Launch {
        let note = stockade_protocol::launch::RunNote {
            request_id: 1,
            policy: "test".into(),
            command: "true".into(),
            detach: false,
            wall_ms: None,
            fed: false,
            tool: None,
            redaction: None,
            grant: None,
            reviews: None,
        };
        Launch {
            exec_id: stockade_protocol::ExecId::generate(),
            owner: me(),
            spec: stockade_protocol::launch::SpecNumber(1),
            argv: vec!["true".into()],
            environment: Vec::new(),
            cwd: "/".into(),
            home: "/".into(),
            workspace: "/".into(),
            workspace_passed: false,
            stdin_passed: false,
            output: stockade_protocol::launch::LaunchOutput::Passed,
            note,
            proved,
            openings: Vec::new(),
        }
    }

    #[test]
    fn a_supervisor_with_less_privilege_has_to_show_who_asks() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        let accepted = OwnedFd::from(listener.accept().unwrap().0);
        let other = || std::fs::File::open("/dev/null").map(OwnedFd::from).unwrap();
        let mut launcher = Launcher::new(None, true).unwrap();
        launcher.believes = Some(false);
        let refused = launcher.prove(&launch(false), &mut vec![other()]).unwrap_err();
        assert_eq!((refused.stage, refused.errno), (SetupStage::Check, libc::EPERM));
        assert!(launcher.prove(&launch(true), &mut Vec::new()).is_err());
        assert!(launcher.prove(&launch(true), &mut vec![other()]).is_err());
        // What else is beside it stays.
        let mut beside = vec![other(), accepted];
        launcher.prove(&launch(true), &mut beside).unwrap();
        assert_eq!(beside.len(), 1);
        // One that could do it all by itself is believed.
        launcher.believes = Some(true);
        launcher.prove(&launch(false), &mut Vec::new()).unwrap();
        assert!(believes(0) && believes(rustix::process::geteuid().as_raw()));
        assert!(!believes(rustix::process::geteuid().as_raw() + 1));
    }

    /// Of each the kernel says that its peer is who has made it, or who listens: for a supervisor that was taken over, root.
    #[test]
    fn what_a_supervisor_can_come_by_otherwise_is_no_proof() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let connected = OwnedFd::from(UnixStream::connect(&path).unwrap());
        assert!(!is_of(&connected, &me()).unwrap());
        assert!(!is_of(&listener.into(), &me()).unwrap_or(false));
        let (pair, _other) = UnixStream::pair().unwrap();
        assert!(!is_of(&pair.into(), &me()).unwrap());
        let (packets, _other) = stockade_wire::socket::seqpacket_pair().unwrap();
        assert!(!is_of(&packets, &me()).unwrap());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(!is_of(&file.into(), &me()).unwrap_or(false));
    }
}
