//! Host uids of runs: one each from the policy's range, and none in two live runs of this machine, whoever has launched them.
//!
//! Launchers of daemons share the even ones. Each holds those of its runs by locks of the kernel's (an open file
//! description's, fcntl_locking(2)): the byte at an uid's number, in one file of root's. They are gone with the launcher
//! however it ends, and nothing is written. Embedded launchers have the odd ones, without a file: each takes one at random.
//!
//! Both ask the kernel then whether a process has it: of a launcher that was killed, runs may be dying still; two embedded
//! launchers may have taken the same, or one that doesn't know of these rules. Left are two embedded ones that take the same
//! within the same few milliseconds, before either has made a process with it.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Uid, getpriority_user};
use stockade_protocol::outcome::SetupStage;

use crate::failure::{At as _, Staged, failed};

/// What is done with uids before a run has one.
const STAGE: SetupStage = SetupStage::Identity;
/// Where the register is: tmpfiles.d/stockade.conf makes the same directory.
const DIRECTORY: &str = "/run/stockade";
/// Its name there.
const REGISTER: &str = "uids";

/// The uids of one launcher's runs.
#[derive(Debug)]
pub(crate) struct Uids {
    kind: Kind,
    used: HashSet<u32>,
    next: u32,
}

/// Which of a range it may take, and how.
#[derive(Debug)]
enum Kind {
    /// The odd ones, for one run.
    Embedded,
    /// The even ones that no other launcher has locked. Opened when the first is taken: a user's launcher takes none.
    Daemon(Option<Register>),
}

impl Uids {
    /// Of a launcher that has taken none yet. Begins somewhere, so that two meet rarely.
    pub(crate) fn new(embedded: bool) -> Self {
        let kind = if embedded { Kind::Embedded } else { Kind::Daemon(None) };
        // A few of its bits will do.
        let [a, b, c, d, ..] = RandomState::new().hash_one(0).to_ne_bytes();
        Self { kind, used: HashSet::new(), next: u32::from_ne_bytes([a, b, c, d]) }
    }

    /// A free uid of the range.
    ///
    /// # Errors
    /// `Identity`: all are taken, or what others have taken can't be found out.
    pub(crate) fn take(&mut self, start: u32, count: u32) -> Staged<u32> {
        for _ in 0..count {
            let uid = start.saturating_add(self.next % count);
            self.next = self.next.wrapping_add(1);
            if !self.used.contains(&uid) && self.kind.claim(uid)? {
                self.used.insert(uid);
                return Ok(uid);
            }
        }
        Err(failed(STAGE, libc::EAGAIN, "no free uid in the run-as range"))
    }

    /// Gives a uid back. One that wasn't taken here is no error.
    pub(crate) fn give_back(&mut self, uid: u32) {
        if self.used.remove(&uid)
            && let Kind::Daemon(Some(register)) = &self.kind
        {
            // Refused, it stays ours until our end.
            drop(register.lock(uid, libc::F_UNLCK));
        }
    }
}

impl Kind {
    /// Whether a uid is ours now.
    fn claim(&mut self, uid: u32) -> Staged<bool> {
        match self {
            Self::Embedded => Ok(uid % 2 == 1 && is_nobodys(uid).at(STAGE, "getpriority")?),
            Self::Daemon(_) if uid % 2 == 1 => Ok(false),
            Self::Daemon(register) => {
                let register = match register {
                    Some(register) => register,
                    none => none.insert(Register::open(Path::new(DIRECTORY))?),
                };
                let at_register = || format!("{DIRECTORY}/{REGISTER}").into_bytes();
                if !register.lock(uid, libc::F_WRLCK).at(STAGE, at_register())? {
                    return Ok(false);
                }
                if is_nobodys(uid).at(STAGE, "getpriority")? {
                    return Ok(true);
                }
                register.lock(uid, libc::F_UNLCK).at(STAGE, at_register())?;
                Ok(false)
            }
        }
    }
}

/// Whether no process that we can see has this user id. The kernel needs to look at none, where nobody on the machine has it.
fn is_nobodys(uid: u32) -> rustix::io::Result<bool> {
    match getpriority_user(Uid::from_raw(uid)) {
        Ok(_) => Ok(false),
        Err(Errno::SRCH) => Ok(true),
        Err(error) => Err(error),
    }
}

/// The file whose bytes are locked.
#[derive(Debug)]
struct Register(OwnedFd);

impl Register {
    /// Opens it, or makes it. Nobody else may lock it, or put another in its place.
    ///
    /// # Errors
    /// `Identity`: it can't be made, or it or its directory is somebody else's.
    fn open(directory: &Path) -> Staged<Self> {
        let subject = || directory.join(REGISTER).into_os_string().into_encoded_bytes();
        match rustix::fs::mkdir(directory, Mode::from(0o755)) {
            // Others have their sockets in it, whatever mask of modes we were born with.
            Ok(()) => rustix::fs::chmod(directory, Mode::from(0o755)).at(STAGE, subject())?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error).at(STAGE, subject()),
        }
        let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let folder = rustix::fs::openat(CWD, directory, flags | OFlags::DIRECTORY, Mode::empty());
        let folder = folder.at(STAGE, subject())?;
        let made = OFlags::RDWR | OFlags::CREATE | OFlags::NONBLOCK;
        let file = rustix::fs::openat(&folder, REGISTER, flags | made, Mode::from(0o600));
        let file = file.at(STAGE, subject())?;
        if !is_ours(&folder, FileType::Directory, 0o022).at(STAGE, subject())?
            || !is_ours(&file, FileType::RegularFile, 0o077).at(STAGE, subject())?
        {
            return Err(failed(STAGE, libc::EPERM, subject()));
        }
        Ok(Self(file))
    }

    /// Locks a uid's byte, or lets it go. `false`: it's somebody else's.
    fn lock(&self, uid: u32, kind: i32) -> io::Result<bool> {
        let kind = libc::c_short::try_from(kind).unwrap_or(libc::c_short::MAX);
        let whence = libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default();
        let byte = libc::flock { l_type: kind, l_whence: whence, l_start: uid.into(), l_len: 1, l_pid: 0 };
        match fcntl(self.0.as_fd(), FcntlArg::F_OFD_SETLK(&byte)) {
            Ok(_) => Ok(true),
            Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether something is of this type, and ours, and gives others none of these rights.
fn is_ours(file: &OwnedFd, kind: FileType, forbidden: u32) -> rustix::io::Result<bool> {
    let status = rustix::fs::fstat(file)?;
    let us = rustix::process::geteuid().as_raw();
    let is_alone = kind == FileType::Directory || status.st_nlink == 1;
    Ok(FileType::from_raw_mode(status.st_mode) == kind
        && status.st_uid == us
        && status.st_mode & forbidden == 0
        && is_alone)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::PathBuf;

    use super::*;

    /// A directory of the test's own, gone afterwards.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("stockade-uids-{name}-{}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }

        /// A launcher's uids, by a register here.
        fn launcher(&self) -> Uids {
            let mut uids = Uids::new(false);
            uids.kind = Kind::Daemon(Some(Register::open(&self.0.join("run")).unwrap()));
            uids
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    /// Uids that nobody has, for each test its own.
    const RANGE: u32 = 4_100_000_000;

    #[test]
    fn two_launchers_share_a_range_and_no_uid() {
        let folder = Folder::new("share");
        let (mut one, mut other) = (folder.launcher(), folder.launcher());
        let mut taken: Vec<u32> = Vec::new();
        for _ in 0..5 {
            taken.push(one.take(RANGE, 20).unwrap());
            taken.push(other.take(RANGE, 20).unwrap());
        }
        taken.sort_unstable();
        // The other half of the pair: all there are were taken, so by chance no two would have been the same.
        assert_eq!(taken, (RANGE..RANGE + 20).step_by(2).collect::<Vec<_>>());
        assert_eq!(one.take(RANGE, 20).unwrap_err().errno, libc::EAGAIN);
        let free = *other.used.iter().next().unwrap();
        other.give_back(free);
        assert_eq!(one.take(RANGE, 20), Ok(free));
    }

    #[test]
    fn what_a_launcher_had_is_free_when_it_is_gone_and_not_before() {
        let folder = Folder::new("gone");
        let (mut one, mut other) = (folder.launcher(), folder.launcher());
        assert_eq!(one.take(RANGE + 100, 2), Ok(RANGE + 100));
        // Somebody else's are not let go.
        other.give_back(RANGE + 100);
        assert!(other.take(RANGE + 100, 2).is_err());
        drop(one);
        assert_eq!(other.take(RANGE + 100, 2), Ok(RANGE + 100));
    }

    #[test]
    fn embedded_launchers_and_those_of_daemons_have_none_in_common() {
        let folder = Folder::new("halves");
        let (mut embedded, mut daemons) = (Uids::new(true), folder.launcher());
        let mut all: Vec<u32> = Vec::new();
        for _ in 0..8 {
            let (odd, even) =
                (embedded.take(RANGE + 200, 16).unwrap(), daemons.take(RANGE + 200, 16).unwrap());
            assert_eq!((odd % 2, even % 2), (1, 0));
            all.extend([odd, even]);
        }
        all.sort_unstable();
        assert_eq!(all, (RANGE + 200..RANGE + 216).collect::<Vec<_>>());
        assert!(embedded.take(RANGE + 200, 16).is_err());
    }

    #[test]
    fn a_uid_that_a_process_has_is_taken_by_nobody() {
        let us = rustix::process::getuid().as_raw();
        assert!(!is_nobodys(us).unwrap());
        assert!(is_nobodys(RANGE + 300).unwrap());
        // Ours and the one beside it: of the right kind one is in use, and the other is of the wrong kind.
        let folder = Folder::new("living");
        let mut uids = if us % 2 == 1 { Uids::new(true) } else { folder.launcher() };
        assert_eq!(uids.take(us, 1).unwrap_err().errno, libc::EAGAIN);
        if let Kind::Daemon(_) = uids.kind {
            // It isn't kept from others either.
            let Kind::Daemon(Some(other)) = folder.launcher().kind else { unreachable!() };
            assert!(other.lock(us, libc::F_WRLCK).unwrap());
        }
    }

    #[test]
    fn a_register_that_is_not_ours_alone_is_refused_by_its_name() {
        let folder = Folder::new("others");
        let place = folder.0.join("run");
        drop(Register::open(&place).unwrap());
        let refused = |why: &str| {
            let failure = Register::open(&place).expect_err(why);
            assert_eq!(failure.subject.to_text(), place.join(REGISTER).to_str().unwrap(), "{why}");
        };
        let modes =
            |mode: u32, file: &Path| std::fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
        modes(0o666, &place.join(REGISTER));
        refused("others may lock it");
        modes(0o600, &place.join(REGISTER));
        modes(0o777, &place);
        refused("others may put another in its place");
        modes(0o755, &place);
        std::fs::hard_link(place.join(REGISTER), place.join("another")).unwrap();
        refused("it has another name");
        std::fs::remove_file(place.join("another")).unwrap();
        drop(Register::open(&place).unwrap());
        std::fs::rename(place.join(REGISTER), place.join("moved")).unwrap();
        symlink("moved", place.join(REGISTER)).unwrap();
        refused("it's a link");
        std::fs::rename(&place, folder.0.join("elsewhere")).unwrap();
        symlink("elsewhere", &place).unwrap();
        refused("its directory is a link");
        std::fs::remove_file(&place).unwrap();
        std::fs::write(&place, "").unwrap();
        refused("its directory is none");
    }
}
