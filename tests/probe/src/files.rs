//! Tries on files: each the bare system call, so that what a library would do around it can't hide the answer.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};

use crate::{Answer, Arguments, Attempt, Refused, look_up};

const TABLE: &[(&str, Attempt)] = &[
    ("read", read),
    ("list", list),
    ("stat", stat),
    ("write", write),
    ("append", append),
    ("write-nothing", write_nothing),
    ("create", create),
    ("create-mode", create_mode),
    ("truncate", truncate),
    ("open-truncate", open_truncate),
    ("open-path-reopen", open_path_reopen),
    ("openat2", openat2),
    ("unlink", unlink),
    ("rmdir", rmdir),
    ("mkdir", mkdir),
    ("mkdir-mode", mkdir_mode),
    ("rename", rename),
    ("rename-exchange", rename_exchange),
    ("link", link),
    ("symlink", symlink),
    ("chmod", chmod),
    ("chown", chown),
    ("set-attribute", set_attribute),
    ("touch", touch),
    ("make-fifo", make_fifo),
    ("make-device", make_device),
    ("make-device-plain", make_device_plain),
    ("execute", execute),
    ("readlink", readlink),
    ("watch", watch),
    ("climb", climb),
    ("owner", owner),
    ("read-by-link", read_by_link),
    ("change-directory", change_directory),
    ("reopen-standard", reopen_standard),
    ("lock", lock),
    ("mode-of-standard", mode_of_standard),
];

pub(crate) fn find(name: &str) -> Option<Attempt> {
    look_up(TABLE, name)
}

fn read(arguments: &Arguments) -> Answer {
    let file = rustix::fs::open(arguments.text(0)?, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
    let mut bytes = [0; 4096];
    let mut file = std::fs::File::from(file);
    let length = file.read(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn list(arguments: &Arguments) -> Answer {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(arguments.text(0)?)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names.join(" "))
}

fn stat(arguments: &Arguments) -> Answer {
    let stat = rustix::fs::lstat(arguments.text(0)?)?;
    Ok(format!("mode={:o}", stat.st_mode))
}

fn put(path: &str, flags: OFlags) -> Answer {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::NONBLOCK | flags, Mode::from(0o644))?;
    std::fs::File::from(file).write_all(b"probe\n")?;
    Ok(String::new())
}

fn write(arguments: &Arguments) -> Answer {
    put(arguments.text(0)?, OFlags::empty())
}

/// Opens for writing, and writes nothing: what would come of it is known.
fn write_nothing(arguments: &Arguments) -> Answer {
    rustix::fs::open(arguments.text(0)?, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty())?;
    Ok(String::new())
}

fn append(arguments: &Arguments) -> Answer {
    put(arguments.text(0)?, OFlags::APPEND)
}

fn create(arguments: &Arguments) -> Answer {
    put(arguments.text(0)?, OFlags::CREATE | OFlags::EXCL)
}

fn create_mode(arguments: &Arguments) -> Answer {
    let mode = Mode::from(arguments.octal(1)?);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let file = rustix::fs::open(arguments.text(0)?, flags, mode)?;
    Ok(format!("mode={:o}", rustix::fs::fstat(&file)?.st_mode & 0o7777))
}

fn truncate(arguments: &Arguments) -> Answer {
    nix::unistd::truncate(arguments.text(0)?, 0)?;
    Ok(String::new())
}

fn open_truncate(arguments: &Arguments) -> Answer {
    rustix::fs::open(arguments.text(0)?, OFlags::RDONLY | OFlags::TRUNC, Mode::empty())?;
    Ok(String::new())
}

/// An O_PATH descriptor opened again for writing through /proc/self/fd.
fn open_path_reopen(arguments: &Arguments) -> Answer {
    let held = rustix::fs::open(arguments.text(0)?, OFlags::PATH, Mode::empty())?;
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
    put(&again, OFlags::empty())
}

fn openat2(arguments: &Arguments) -> Answer {
    rustix::fs::openat2(CWD, arguments.text(0)?, OFlags::RDONLY, Mode::empty(), ResolveFlags::empty())?;
    Ok(String::new())
}

fn unlink(arguments: &Arguments) -> Answer {
    rustix::fs::unlink(arguments.text(0)?)?;
    Ok(String::new())
}

fn rmdir(arguments: &Arguments) -> Answer {
    rustix::fs::rmdir(arguments.text(0)?)?;
    Ok(String::new())
}

fn mkdir(arguments: &Arguments) -> Answer {
    rustix::fs::mkdir(arguments.text(0)?, Mode::from(0o755))?;
    Ok(String::new())
}

fn mkdir_mode(arguments: &Arguments) -> Answer {
    let path = arguments.text(0)?;
    rustix::fs::mkdir(path, Mode::from(arguments.octal(1)?))?;
    Ok(format!("mode={:o}", rustix::fs::stat(path)?.st_mode & 0o7777))
}

fn rename(arguments: &Arguments) -> Answer {
    rustix::fs::rename(arguments.text(0)?, arguments.text(1)?)?;
    Ok(String::new())
}

fn rename_exchange(arguments: &Arguments) -> Answer {
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(CWD, arguments.text(0)?, CWD, arguments.text(1)?, flags)?;
    Ok(String::new())
}

fn link(arguments: &Arguments) -> Answer {
    rustix::fs::link(arguments.text(0)?, arguments.text(1)?)?;
    Ok(String::new())
}

fn symlink(arguments: &Arguments) -> Answer {
    rustix::fs::symlink(arguments.text(0)?, arguments.text(1)?)?;
    Ok(String::new())
}

fn chmod(arguments: &Arguments) -> Answer {
    let path = arguments.text(0)?;
    rustix::fs::chmod(path, Mode::from(arguments.octal(1)?))?;
    Ok(format!("mode={:o}", rustix::fs::stat(path)?.st_mode & 0o7777))
}

fn chown(arguments: &Arguments) -> Answer {
    let (uid, gid) = (Uid::from_raw(arguments.number(1)?), Gid::from_raw(arguments.number(2)?));
    rustix::fs::chown(arguments.text(0)?, Some(uid), Some(gid))?;
    Ok(String::new())
}

fn set_attribute(arguments: &Arguments) -> Answer {
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(arguments.text(0)?, arguments.text(1)?, b"probe", flags)?;
    Ok(String::new())
}

fn touch(arguments: &Arguments) -> Answer {
    let now = rustix::fs::Timespec { tv_sec: 1, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
    rustix::fs::utimensat(CWD, arguments.text(0)?, &times, AtFlags::empty())?;
    Ok(String::new())
}

fn make_fifo(arguments: &Arguments) -> Answer {
    rustix::fs::mknodat(CWD, arguments.text(0)?, FileType::Fifo, Mode::from(0o644), 0)?;
    Ok(String::new())
}

/// Makes a device node of /dev/null's numbers.
fn make_device(arguments: &Arguments) -> Answer {
    let (major, minor) = (arguments.number(1)?, arguments.number(2)?);
    let device = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(CWD, arguments.text(0)?, FileType::CharacterDevice, Mode::from(0o666), device)?;
    Ok(String::new())
}

/// Makes a whiteout, the one device node that needs no privilege.
fn make_device_plain(arguments: &Arguments) -> Answer {
    rustix::fs::mknodat(CWD, arguments.text(0)?, FileType::CharacterDevice, Mode::from(0o666), 0)?;
    Ok(String::new())
}

fn execute(arguments: &Arguments) -> Answer {
    let status = std::process::Command::new(arguments.text(0)?).args(&arguments.0[1..]).status()?;
    Ok(status.to_string())
}

fn readlink(arguments: &Arguments) -> Answer {
    let target = rustix::fs::readlink(arguments.text(0)?, Vec::new())?;
    Ok(target.to_string_lossy().into_owned())
}

fn watch(arguments: &Arguments) -> Answer {
    let inotify = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::empty())?;
    let flags = rustix::fs::inotify::WatchFlags::MODIFY;
    rustix::fs::inotify::add_watch(inotify.as_fd(), arguments.text(0)?, flags)?;
    Ok(String::new())
}

/// Goes up from the working directory as far as it leads, then looks for a path there.
fn climb(arguments: &Arguments) -> Answer {
    let mut at = rustix::fs::open(".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    for _ in 0..64 {
        at = rustix::fs::openat(&at, "..", OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    }
    let below = arguments.text(0)?.trim_start_matches('/');
    let found = rustix::fs::openat(&at, below, OFlags::RDONLY, Mode::empty())?;
    let mut text = String::new();
    std::fs::File::from(found).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

fn owner(arguments: &Arguments) -> Answer {
    let stat = rustix::fs::lstat(arguments.text(0)?)?;
    if stat.st_mode == 0 {
        return Err(Refused::NotSo("no mode".to_owned()));
    }
    Ok(format!("uid={} gid={}", stat.st_uid, stat.st_gid))
}

/// Makes a symbolic link in the working directory and reads through it.
fn read_by_link(arguments: &Arguments) -> Answer {
    let name = "leads";
    let _ = rustix::fs::unlink(name);
    match rustix::fs::symlink(arguments.text(0)?, name) {
        // Where it can't be made, one that is there already may lead as far.
        Ok(()) | Err(rustix::io::Errno::ROFS | rustix::io::Errno::ACCESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    let answer = read(&Arguments(vec![name.to_owned()]));
    let _ = rustix::fs::unlink(name);
    answer
}

fn change_directory(arguments: &Arguments) -> Answer {
    rustix::process::chdir(arguments.text(0)?)?;
    Ok(String::new())
}

/// Opens what a standard descriptor is again, by its name in /proc, for writing.
fn reopen_standard(arguments: &Arguments) -> Answer {
    let path = format!("/proc/self/fd/{}", arguments.number::<u8>(0)?);
    rustix::fs::open(&path, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty())?;
    Ok(String::new())
}

/// Takes the only lock there is on a file that may only be read.
fn lock(arguments: &Arguments) -> Answer {
    let file = rustix::fs::open(arguments.text(0)?, OFlags::RDONLY, Mode::empty())?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    Ok(String::new())
}

/// Changes the mode of what standard input is, by its descriptor.
fn mode_of_standard(_: &Arguments) -> Answer {
    rustix::fs::fchmod(std::io::stdin(), Mode::from(0o777))?;
    Ok(String::new())
}
