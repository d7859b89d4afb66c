//! Doors of launchers in systemd's descriptor store (sd_notify(3), `FDSTORE=1`): what it holds for us, our successor is started with.
//!
//! A door is kept by its place in the filesystem as well, and found there without systemd. What is held is the door itself, opened
//! with `O_PATH`: whoever has it can connect, also when its name is gone. Who listens behind it has to prove itself all the same, by
//! the secret in the state directory. Nothing that could be half said is ever handed on: a connection isn't, only the way to one.

use core::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use sd_notify::NotifyState;

use crate::systemd::Systemd;

/// What a door's name in the store begins with; the rest is hexadecimal digits.
const PREFIX: &str = "launcher-";

/// What is held for us, and the way to have more held.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    systemd: Rc<Systemd>,
    held: RefCell<BTreeMap<String, PathBuf>>,
}

impl Shelf {
    /// With what this process was started with: names and descriptors, which stay open as long as it lives.
    pub(crate) fn new(systemd: Rc<Systemd>, passed: impl IntoIterator<Item = (String, RawFd)>) -> Self {
        let way = |number: RawFd| PathBuf::from(format!("/proc/self/fd/{number}"));
        let held = passed.into_iter().map(|(name, number)| (name, way(number))).collect();
        Self { systemd, held: RefCell::new(held) }
    }

    /// The way to a door that is held, for connect(2); `None`: it isn't held, or is no socket.
    pub(crate) fn way_to(&self, door: &Path) -> Option<PathBuf> {
        let way = self.held.borrow().get(name_of(door)?).cloned()?;
        is_socket(&way).then_some(way)
    }

    /// Has a door held. Where systemd can't, it is only found by its place.
    pub(crate) fn put(&self, door: &Path) {
        let Some(name) = name_of(door).filter(|name| !self.held.borrow().contains_key(*name)) else { return };
        match open(door) {
            Ok(opened) => {
                // Nothing ever comes by it that systemd could wait for.
                let named = format!("FDNAME={name}");
                let states = ["FDSTORE=1", &named, "FDPOLL=0"].map(NotifyState::Custom);
                self.systemd.send_with(&states, &[opened.as_fd()]);
            }
            Err(error) => tracing::warn!(%error, door = %door.display(), "a door can't be held"),
        }
    }

    /// Has a door let go.
    pub(crate) fn remove(&self, door: &Path) {
        if let Some(name) = name_of(door) {
            self.held.borrow_mut().remove(name);
            self.forget(name);
        }
    }

    /// Has every door let go that isn't among these.
    pub(crate) fn keep_only<'a>(&self, doors: impl Iterator<Item = &'a Path>) {
        let known: Vec<&str> = doors.filter_map(name_of).collect();
        let gone = |name: &String, _: &mut PathBuf| !known.contains(&name.as_str());
        for (name, _) in self.held.borrow_mut().extract_if(.., gone) {
            self.forget(&name);
        }
    }

    fn forget(&self, name: &str) {
        let named = format!("FDNAME={name}");
        self.systemd.send(&["FDSTOREREMOVE=1", &named].map(NotifyState::Custom));
    }
}

/// Whether a passed descriptor has the name of a door.
pub(crate) fn is_door(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// What a door is called in the store.
fn name_of(door: &Path) -> Option<&str> {
    door.file_stem()?.to_str().filter(|name| is_door(name))
}

fn open(door: &Path) -> Result<OwnedFd, Errno> {
    let opened = rustix::fs::open(door, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode);
    if kind == FileType::Socket { Ok(opened) } else { Err(Errno::NOTSOCK) }
}

fn is_socket(way: &Path) -> bool {
    rustix::fs::stat(way).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Socket)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    #[test]
    fn a_door_is_known_by_its_name_and_nothing_else_is() {
        for name in ["launcher-0123456789abcdef", "launcher-0"] {
            assert!(is_door(name), "{name}");
        }
        for name in ["launcher-", "launcher-xyz", "launcher", "clients", "unknown", ""] {
            assert!(!is_door(name), "{name}");
        }
        assert_eq!(name_of(Path::new("/run/launcher-0a.sock")), Some("launcher-0a"));
        assert_eq!(name_of(Path::new("/run/launcher.sock")), None);
    }

    #[test]
    fn a_door_is_handed_over_by_name_once_and_let_go_by_it() {
        let place = tempfile::tempdir().unwrap();
        let told = UnixDatagram::bind(place.path().join("notify")).unwrap();
        told.set_nonblocking(true).unwrap();
        let hear = || {
            let mut buffer = [0; 256];
            stockade_wire::socket::receive(&told, &mut buffer)
                .map(|received| {
                    (
                        String::from_utf8(buffer[..received.length].to_vec()).unwrap(),
                        received.descriptors.len(),
                    )
                })
                .ok()
        };
        let systemd = Rc::new(Systemd::at(&place.path().join("notify")));
        let door = place.path().join("launcher-0a.sock");
        let listening = UnixListener::bind(&door).unwrap();
        let shelf = Shelf::new(Rc::clone(&systemd), []);
        shelf.put(&door);
        assert_eq!(hear(), Some(("FDSTORE=1\nFDNAME=launcher-0a\nFDPOLL=0\n".to_owned(), 1)));
        shelf.remove(&door);
        assert_eq!(hear(), Some(("FDSTOREREMOVE=1\nFDNAME=launcher-0a\n".to_owned(), 0)));

        // The next one is started with it, and finds it though its name is gone.
        let held = open(&door).unwrap();
        std::fs::remove_file(&door).unwrap();
        let passed = ["launcher-0a", "launcher-0b"].map(|name| (name.to_owned(), held.as_raw_fd()));
        let next = Shelf::new(systemd, passed);
        let way = next.way_to(&door).unwrap();
        std::os::unix::net::UnixStream::connect(way).unwrap();
        listening.accept().unwrap();
        // It's held already; and what nobody has written down is let go.
        next.put(&door);
        assert_eq!(hear(), None);
        next.keep_only([door.as_path()].into_iter());
        assert_eq!(hear(), Some(("FDSTOREREMOVE=1\nFDNAME=launcher-0b\n".to_owned(), 0)));
        assert_eq!(next.way_to(&place.path().join("launcher-0b.sock")), None);
    }

    #[test]
    fn what_is_no_socket_is_neither_handed_over_nor_a_way() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("launcher-0a.sock");
        std::fs::write(&file, "").unwrap();
        assert_eq!(open(&file).unwrap_err(), Errno::NOTSOCK);
        let held = rustix::fs::open(&file, OFlags::PATH, Mode::empty()).unwrap();
        let shelf = Shelf::new(Rc::default(), [("launcher-0a".to_owned(), held.as_raw_fd())]);
        assert_eq!(shelf.way_to(&file), None);
    }
}
