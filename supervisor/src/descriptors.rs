//! What a passed descriptor is. Whether it may be used for what it was passed for is decided in
//! [`crate::admission`]; here the kernel is asked, and nothing is read from or changed on the descriptor. Nor is its
//! filesystem asked: it may be dead, or a client's own that never answers, and this is everybody's one thread.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, OFlags, Statx, StatxFlags};

/// What a descriptor is, as far as standard input and output care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A pipe or FIFO.
    Pipe,
    /// A regular file.
    File,
    /// A regular file of a filesystem that may never answer: read and closed where nobody else waits, never passed.
    /// Only who asks for it is told of it; [`kind`] says [`Kind::File`].
    Distant,
    /// A terminal.
    Terminal,
    /// `/dev/null`, `zero`, `full`, `random` or `urandom`.
    Harmless,
    /// A socket: relayed, never passed, since a descriptor sent into it would arrive at the client.
    Socket,
    /// A directory.
    Directory,
    /// A device, or anything else.
    Other,
    /// Opened with `O_PATH`: names something, can't be read or written.
    PathOnly,
}

impl Kind {
    /// Whether a tool may have it as it is.
    #[must_use]
    pub fn can_be_passed(self) -> bool {
        matches!(self, Self::Pipe | Self::File | Self::Terminal | Self::Harmless)
    }

    /// Whether it can be read or written for a tool.
    #[must_use]
    pub fn can_be_relayed(self) -> bool {
        self.can_be_passed() || matches!(self, Self::Socket | Self::Distant)
    }
}

/// Major number of the memory devices (linux/major.h), and those of its minors that do no harm.
const MEM_MAJOR: u32 = 1;
const HARMLESS_MINORS: [u32; 5] = [3, 5, 7, 8, 9];

/// Asks what a descriptor is.
///
/// # Errors
/// Those of fcntl(2) and statx(2).
pub fn kind(descriptor: impl AsFd) -> io::Result<Kind> {
    if rustix::fs::fcntl_getfl(&descriptor)?.contains(OFlags::PATH) {
        return Ok(Kind::PathOnly);
    }
    let status = cached_status(&descriptor)?;
    let device = (status.stx_rdev_major, status.stx_rdev_minor);
    Ok(match FileType::from_raw_mode(status.stx_mode.into()) {
        FileType::Fifo => Kind::Pipe,
        FileType::RegularFile => Kind::File,
        FileType::Socket => Kind::Socket,
        FileType::Directory => Kind::Directory,
        FileType::CharacterDevice if rustix::termios::isatty(&descriptor) => Kind::Terminal,
        FileType::CharacterDevice if device.0 == MEM_MAJOR && HARMLESS_MINORS.contains(&device.1) => {
            Kind::Harmless
        }
        _ => Kind::Other,
    })
}

/// The path of a directory's descriptor, in our view. `None`: it isn't a directory.
///
/// # Errors
/// Those of statx(2) and readlink(2).
pub fn directory_path(descriptor: impl AsFd) -> io::Result<Option<PathBuf>> {
    let status = cached_status(&descriptor)?;
    if FileType::from_raw_mode(status.stx_mode.into()) != FileType::Directory {
        return Ok(None);
    }
    std::fs::read_link(format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd())).map(Some)
}

/// Which file it is, by what tells it from all others: the numbers of its device and of itself.
///
/// # Errors
/// Those of statx(2).
pub fn identity(descriptor: impl AsFd) -> io::Result<[u64; 3]> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let status = rustix::fs::statx(descriptor, "", flags, StatxFlags::INO)?;
    Ok([status.stx_dev_major.into(), status.stx_dev_minor.into(), status.stx_ino])
}

/// What the kernel itself knows: a type never changes, so nobody need be asked.
fn cached_status(descriptor: impl AsFd) -> io::Result<Statx> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    Ok(rustix::fs::statx(descriptor, "", flags, StatxFlags::TYPE)?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::OwnedFd;

    use rustix::fs::Mode;

    use super::*;

    fn open(path: &str, flags: OFlags) -> OwnedFd {
        rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn each_kind_is_told_apart() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        assert_eq!(kind(&reader).unwrap(), Kind::Pipe);
        assert_eq!(kind(&writer).unwrap(), Kind::Pipe);
        let (socket, _other) = stockade_wire::socket::seqpacket_pair().unwrap();
        assert_eq!(kind(&socket).unwrap(), Kind::Socket);
        assert_eq!(kind(tempfile::tempfile().unwrap()).unwrap(), Kind::File);
        assert_eq!(kind(open("/dev/null", OFlags::RDWR)).unwrap(), Kind::Harmless);
        assert_eq!(kind(open("/", OFlags::RDONLY)).unwrap(), Kind::Directory);
        assert_eq!(kind(open("/dev/null", OFlags::PATH)).unwrap(), Kind::PathOnly);
        if let Ok(multiplexer) = File::open("/dev/ptmx") {
            assert_eq!(kind(multiplexer).unwrap(), Kind::Terminal);
        }
    }

    #[test]
    fn a_directory_tells_its_path_and_a_file_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().canonicalize().unwrap();
        assert_eq!(directory_path(File::open(&real).unwrap()).unwrap(), Some(real));
        assert_eq!(directory_path(tempfile::tempfile().unwrap()).unwrap(), None);
    }

    /// A FUSE mount whose server hasn't even said hello: whoever asks it anything waits for ever.
    #[test]
    fn a_filesystem_that_never_answers_is_not_asked() {
        use std::sync::mpsc;
        use std::time::Duration;

        use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};

        let Some(server) = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .ok()
            .filter(|_| rustix::process::geteuid().is_root())
        else {
            eprintln!("not tested: a filesystem that never answers: that takes root and /dev/fuse");
            return;
        };
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            let place = tempfile::tempdir().unwrap();
            let options = format!("fd={},rootmode=40000,user_id=0,group_id=0\0", server.as_raw_fd());
            let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).unwrap();
            let flags = MountFlags::NOSUID | MountFlags::NODEV;
            mount("never", place.path(), "fuse", flags, Some(options)).unwrap();
            let top = rustix::fs::open(place.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
            let answer = directory_path(&top).unwrap();
            identity(&top).unwrap();
            unmount(place.path(), UnmountFlags::DETACH).unwrap();
            tell.send((answer, place.path().canonicalize().unwrap())).unwrap();
        });
        let (answer, path) = told.recv_timeout(Duration::from_secs(10)).expect("it was asked");
        assert_eq!(answer, Some(path));
    }
}
