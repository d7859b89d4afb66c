//! The opener: opens directories as their owner, for who can name them only.
//!
//! A client of a door that passes no descriptors names its workspace by a path. Neither the supervisor, which isn't him, nor
//! the launcher, whom a dead FUSE or NFS mount would stop, may look that up. So a process of his own does: it takes his uid,
//! gid and groups for good, and answers the supervisor's questions with directories until its socket ends.
//!
//! ```text
//!   launcher ── Become(owner), its socket beside it ──> opener ── takes his ids ──> one question, one answer, ...
//! ```
//!
//! It reads nothing and changes nothing: what it gives is a place (`O_PATH`), and his. A mount that doesn't answer stops it
//! alone, until its own alarm ends it.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use nix::unistd::alarm;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};
use stockade_protocol::bounds::MAX_PATH;
use stockade_protocol::launch::{FromOpener, Owner, ToOpener};
use stockade_protocol::outcome::SetupStage;
use stockade_wire::channel::{Channel, unpack};
use stockade_wire::socket;

use crate::birth;
use crate::failure::{Staged, failed};
use crate::stages::{identity, sources};

/// How long one directory may take, in seconds: longer than anybody waits for it. What a dead mount makes wait can be killed.
const WITHIN: u32 = 6;

/// Bytes of a question: a path and what is around it.
const QUESTION: usize = MAX_PATH + 64;

/// The first message to an opener; its socket is beside it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Become {
    /// As whom it opens.
    pub(crate) owner: Owner,
    /// Whether that is another one than it is.
    pub(crate) is_another: bool,
}

/// The opener's life: until its socket ends.
pub(crate) fn run(channel: OwnedFd) -> ExitCode {
    birth::have_defaults(u64::MAX);
    match serve(Channel::new(channel)) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever asks it sees the end of its socket.
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(channel: Channel) -> Staged<()> {
    const STAGE: SetupStage = SetupStage::Open;
    let strange = || failed(STAGE, libc::EPROTO, "channel");
    let (Become { owner, is_another }, mut beside) =
        channel.receive().map_err(|_| strange())?.ok_or_else(strange)?;
    drop(channel);
    if is_another {
        sources::become_owner(&owner)?;
    }
    // After that, which would have undone it.
    identity::die_with_parent()?;
    let asked = Channel::new(beside.pop().ok_or_else(strange)?);
    let mut buffer = [0; QUESTION];
    loop {
        let received = socket::receive(&asked, &mut buffer).map_err(|_| strange())?;
        if received.length == 0 {
            return Ok(());
        }
        let (question, _) =
            unpack(&buffer[..received.length], received.descriptors).map_err(|_| strange())?;
        let ToOpener::Open { path } = question else { return Err(strange()) };
        alarm::set(WITHIN);
        let opened = open(path.as_path());
        alarm::cancel();
        let sent = match &opened {
            Ok(directory) => asked.send(&FromOpener::Opened, &[directory.as_fd()]),
            Err(errno) => asked.send(&FromOpener::Failed { errno: errno.raw_os_error() }, &[]),
        };
        sent.map_err(|_| strange())?;
    }
}

/// Opens a directory by its path. Its last name may be no link, as where a worker opens it; and no link of /proc's counts, which
/// leads by what process it's asked.
fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    if !path.is_absolute() || path.as_os_str().len() > MAX_PATH {
        return Err(rustix::io::Errno::INVAL);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_directory_is_opened_as_a_place_and_nothing_else_is() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        std::fs::create_dir_all(at("real/inner")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        symlink("real", at("link")).unwrap();
        for good in ["real", "link/inner"] {
            let opened = open(&at(good)).unwrap();
            assert!(rustix::fs::fcntl_getfl(&opened).unwrap().contains(OFlags::PATH), "{good}");
        }
        for (bad, why) in [("none", Errno::NOENT), ("file", Errno::NOTDIR), ("link", Errno::NOTDIR)] {
            assert_eq!(open(&at(bad)).unwrap_err(), why, "{bad}");
        }
        assert_eq!(open(Path::new("real")).unwrap_err(), Errno::INVAL);
        let long = format!("/{}", "a".repeat(MAX_PATH));
        assert_eq!(open(Path::new(&long)).unwrap_err(), Errno::INVAL);
        // Which directory that is depends on who looks.
        assert_eq!(open(Path::new("/proc/self/root/proc")).unwrap_err(), Errno::LOOP);
    }
}
