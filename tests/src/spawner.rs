//! What systemd does for `stockade-launcher.socket` (`Accept=yes`): a launcher for each connection, which is its standard input.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode};
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType};

use crate::{Person, wait_until};

/// Connections that may wait.
const BACKLOG: i32 = 16;
/// How long launchers may take to end once their supervisor has asked them to.
const PATIENCE: Duration = Duration::from_secs(60);

/// A socket that starts launchers.
#[derive(Debug)]
pub struct Spawner {
    /// Where supervisors connect to.
    pub path: PathBuf,
    launchers: Arc<Mutex<Vec<Child>>>,
    listening: Arc<OwnedFd>,
    accepting: Option<JoinHandle<()>>,
}

impl Spawner {
    /// One at this path that only this person may connect to. Its launchers are whoever runs the tests.
    #[must_use]
    pub fn start(path: PathBuf, program: PathBuf, whose: Person) -> Self {
        let listening = socket();
        rustix::net::bind(&listening, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::fs::chmodat(CWD, &path, Mode::RUSR | Mode::WUSR, AtFlags::empty()).unwrap();
        whose.own(&path);
        rustix::net::listen(&listening, BACKLOG).unwrap();
        let (launchers, listening) = (Arc::<Mutex<Vec<Child>>>::default(), Arc::new(listening));
        let (started, socket) = (Arc::clone(&launchers), Arc::clone(&listening));
        let accepting = std::thread::spawn(move || {
            while let Ok(connection) = rustix::net::accept_with(&socket, SocketFlags::CLOEXEC) {
                let mut started = started.lock().unwrap_or_else(PoisonError::into_inner);
                // Those that have ended meanwhile are no more than zombies.
                started.retain_mut(|launcher| matches!(launcher.try_wait(), Ok(None)));
                started.push(launch(&program, connection));
            }
        });
        Self { path, launchers, listening, accepting: Some(accepting) }
    }

    /// The process ids of its launchers that haven't ended.
    #[must_use]
    pub fn launchers(&self) -> Vec<u32> {
        let mut launchers = self.launchers.lock().unwrap_or_else(PoisonError::into_inner);
        launchers.retain_mut(|launcher| matches!(launcher.try_wait(), Ok(None)));
        launchers.iter().map(Child::id).collect()
    }
}

fn socket() -> OwnedFd {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

fn launch(program: &Path, connection: OwnedFd) -> Child {
    let mut command = Command::new(program);
    command.arg("launcher").env_clear().current_dir("/").stdin(Stdio::from(connection));
    command.stdout(Stdio::null()).spawn().unwrap()
}

impl Drop for Spawner {
    fn drop(&mut self) {
        // Whoever waits for a connection hears of that.
        rustix::net::shutdown(&self.listening, Shutdown::Both).unwrap();
        let stopped = self.accepting.take().map(JoinHandle::join);
        let all_ended = wait_until(PATIENCE, || self.launchers().is_empty());
        for launcher in &mut *self.launchers.lock().unwrap_or_else(PoisonError::into_inner) {
            let _killed = launcher.kill().and_then(|()| launcher.wait());
        }
        if !std::thread::panicking() {
            assert!(matches!(stopped, Some(Ok(()))), "the spawner has died");
            assert!(all_ended, "a launcher goes on without its supervisor");
        }
    }
}
