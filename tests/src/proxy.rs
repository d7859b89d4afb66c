//! A socket between clients and a daemon, which can be cut and closed, so that a client loses a daemon that lives on.
//!
//! The daemon sees this process as its peer: it's for clients who are the person that the tests run as.

use std::collections::VecDeque;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::{Daemon, Ground, wait_until};

/// More than a `Hello`, so whoever has sent so many bytes has asked for something.
const ASKED: usize = 60;
/// Of what may take long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A socket before a daemon's. Nobody can come through any more when it's dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where clients connect.
    pub path: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// After how many bytes to the client each of the next connections is cut.
    budgets: Mutex<VecDeque<usize>>,
    open: Mutex<Vec<[UnixStream; 2]>>,
    came: AtomicUsize,
}

impl Proxy {
    /// Stands before a daemon, on a client's ground.
    #[must_use]
    pub fn before(daemon: &Daemon, ground: &Ground) -> Self {
        let path = ground.base().join("proxy.sock");
        let proxy = Self { path, shared: Arc::default() };
        proxy.reopen(daemon);
        proxy
    }

    /// Cuts each of the next connections after so many bytes to the client, once it has asked for something.
    pub fn cut_after(&self, budgets: &[usize]) {
        lock(&self.shared.budgets).extend(budgets);
    }

    /// How many connections there have been.
    #[must_use]
    pub fn came(&self) -> usize {
        self.shared.came.load(Ordering::SeqCst)
    }

    /// Nobody is here any more: no connection, no socket.
    pub fn close(&self) {
        std::fs::remove_file(&self.path).unwrap();
        for pair in lock(&self.shared.open).drain(..) {
            cut(&pair);
        }
    }

    /// Listens again.
    pub fn reopen(&self, daemon: &Daemon) {
        let listener = UnixListener::bind(&self.path).unwrap();
        let (shared, to) = (Arc::clone(&self.shared), daemon.socket.clone());
        // Waits for ever behind a socket whose name is gone, and costs nothing.
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                connect(&shared, client, &to);
            }
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if self.path.exists() {
            self.close();
        }
    }
}

fn connect(shared: &Arc<Shared>, client: UnixStream, to: &Path) {
    let daemon = UnixStream::connect(to).unwrap();
    shared.came.fetch_add(1, Ordering::SeqCst);
    lock(&shared.open).push([client.try_clone().unwrap(), daemon.try_clone().unwrap()]);
    let budget = lock(&shared.budgets).pop_front();
    let asked = Arc::new(AtomicUsize::new(0));
    let ways = [(client.try_clone().unwrap(), daemon.try_clone().unwrap()), (daemon, client)];
    for (number, (from, to)) in ways.into_iter().enumerate() {
        let asked = Arc::clone(&asked);
        std::thread::spawn(move || {
            match (number, budget) {
                (0, _) => pass(&from, &to, &asked, None),
                (_, None) => pass(&from, &to, &AtomicUsize::new(0), None),
                (_, Some(budget)) => {
                    pass(&from, &to, &AtomicUsize::new(0), Some(budget));
                    wait_until(PATIENCE, || asked.load(Ordering::SeqCst) >= ASKED);
                }
            }
            cut(&[from, to]);
        });
    }
}

/// Passes bytes on, and descriptors with them, until the end or so many bytes. Counts them.
fn pass(from: &UnixStream, to: &UnixStream, count: &AtomicUsize, budget: Option<usize>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(received) = stockade_wire::socket::receive(from, &mut buffer) {
        let left = budget.map_or(usize::MAX, |budget| budget - count.load(Ordering::SeqCst));
        let bytes = &buffer[..received.length.min(left)];
        let mut beside: Vec<_> = received.descriptors.iter().map(AsFd::as_fd).collect();
        let mut rest = bytes;
        while !rest.is_empty() {
            let Ok(sent) = stockade_wire::socket::send(to, rest, &beside) else { return };
            rest = &rest[sent..];
            beside.clear();
        }
        count.fetch_add(bytes.len(), Ordering::SeqCst);
        if received.length == 0 || received.length >= left {
            return;
        }
    }
}

/// Ends both sides. Whoever has them open still reads what was passed on before.
fn cut(pair: &[UnixStream; 2]) {
    for stream in pair {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
