//! What the attacks aim at: files, sockets, memory, queues and a process of the host, all of the client's own user.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use stockade_tests::binaries::copy_program;
use stockade_tests::setting::{marker, text_of};
use stockade_tests::{Ground, left, wait_until};

/// Files outside the workspace that attacks may try to change, one each.
const FILES: u32 = 16;

/// Keys are the machine's: each stage has one of its own.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Everything to aim at; gone when dropped.
pub(crate) struct Stage {
    tcp: TcpListener,
    udp: UdpSocket,
    _terminal: OwnedFd,
    terminal: String,
    _abstract: UnixListener,
    _path: UnixListener,
    _datagrams: [UnixDatagram; 2],
    abstract_name: String,
    victim: Child,
    shared: Child,
    shared_file: PathBuf,
    key: u32,
    id: String,
}

impl Stage {
    /// Sets it up on a ground.
    pub(crate) fn new(ground: &Ground) -> Self {
        let id = marker("stage");
        let abstract_name = id.clone();
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        let path = ground.outside().join("listener.sock");
        let path_listener = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        for number in 0..FILES {
            std::fs::write(ground.outside().join(format!("u{number}")), "untouched\n").unwrap();
        }
        std::fs::create_dir(ground.outside().join("empty")).unwrap();
        let datagrams = ground.outside().join("datagrams.sock");
        let datagram_listener = UnixDatagram::bind(&datagrams).unwrap();
        let name = SocketAddr::from_abstract_name(format!("{abstract_name}-datagrams")).unwrap();
        let abstract_datagrams = UnixDatagram::bind_addr(&name).unwrap();
        let tool = ground.outside().join("tool");
        copy_program(std::path::Path::new("/bin/true"), &tool);
        ground.person.own_all(&ground.outside());
        let (terminal, name) = own_terminal(ground);
        let shared_file = PathBuf::from("/dev/shm").join(&id);
        std::fs::write(&shared_file, "shared\n").unwrap();
        ground.person.own(&shared_file);
        let key =
            1 << 30 | (std::process::id() & 0x3f_ffff) << 8 | NEXT.fetch_add(1, Ordering::Relaxed) & 0xff;
        // A segment, semaphores and a queue of System V, and a POSIX queue, removed when the process that holds them is told
        // to end, with the queue that an attack makes where it's possible. Small ones: their bytes are counted for the user.
        let code = format!(
            "my $n = '{id}'; my $m = qq($n-new); my $a = pack(q(q8), 0, 1, 64); syscall(240, $n, 0102, 0600, $a); \
             $SIG{{TERM}} = sub {{ shmctl($s, 0, 0); semctl($e, 0, 0, 0); msgctl($q, 0, 0); syscall(241, $n); syscall(241, $m); exit }}; \
             $s = shmget({key}, 4096, 0600|01000); $e = semget({key}, 1, 0600|01000); $q = msgget({key}, 0600|01000); \
             open F, '>', '{}'; close F; sleep 10 while 1",
            text_of(&ground.outside().join("shared-is-there"))
        );
        let mut holder = ground.command("perl");
        holder.args(["-e", &code]);
        let shared = holder.spawn().unwrap();
        let there = ground.outside().join("shared-is-there");
        assert!(wait_until(std::time::Duration::from_secs(60), || there.exists()));
        let mut sleeper = ground.command("sleep");
        sleeper.arg("1000");
        Self {
            tcp: TcpListener::bind("127.0.0.1:0").unwrap(),
            udp: UdpSocket::bind("127.0.0.1:0").unwrap(),
            _terminal: terminal,
            terminal: name,
            _abstract: UnixListener::bind_addr(&address).unwrap(),
            _path: path_listener,
            _datagrams: [datagram_listener, abstract_datagrams],
            abstract_name,
            victim: sleeper.spawn().unwrap(),
            shared,
            shared_file,
            key,
            id,
        }
    }

    /// Puts the stage's names into a probe's words.
    pub(crate) fn fill(&self, ground: &Ground, text: &str) -> String {
        let port = self.tcp.local_addr().unwrap().port().to_string();
        let udp = self.udp.local_addr().unwrap().port().to_string();
        let names = [
            ("{port}", port),
            ("{udp}", udp),
            ("{abstract}", self.abstract_name.clone()),
            ("{socket}", text_of(&ground.outside().join("listener.sock"))),
            ("{datagrams}", text_of(&ground.outside().join("datagrams.sock"))),
            ("{disk}", disk()),
            ("{victim}", self.victim.id().to_string()),
            ("{outside}", text_of(&ground.outside())),
            ("{secret}", text_of(&ground.outside().join("secret.txt"))),
            ("{home}", text_of(&ground.home())),
            ("{work}", text_of(&ground.work())),
            ("{probe}", text_of(&ground.work().join("probe"))),
            ("{shared}", text_of(&self.shared_file)),
            ("{terminal}", self.terminal.clone()),
            ("{key}", self.key.to_string()),
            ("{id}", self.id.clone()),
        ];
        names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }

    /// Fails the test if anything outside the workspace isn't as it was.
    pub(crate) fn expect_untouched(&mut self, ground: &Ground, why: &str) {
        for number in 0..FILES {
            let path = ground.outside().join(format!("u{number}"));
            let text = std::fs::read_to_string(&path);
            assert_eq!(text.ok().as_deref(), Some("untouched\n"), "{}: {why}", path.display());
        }
        let secret = std::fs::read_to_string(ground.outside().join("secret.txt"));
        assert_eq!(secret.unwrap(), "the secret\n", "{why}");
        self.udp.set_nonblocking(true).unwrap();
        assert!(self.udp.recv(&mut [0; 16]).is_err(), "a datagram has arrived: {why}");
        self.tcp.set_nonblocking(true).unwrap();
        assert!(self.tcp.accept().is_err(), "a connection has arrived: {why}");
        assert!(self.victim.try_wait().unwrap().is_none(), "the victim is gone: {why}");
        let names = left::names(&ground.outside());
        assert!(!names.iter().any(|name| name.starts_with("new")), "{names:?}: {why}");
    }
}

/// The machine's disk, or a name that none has.
fn disk() -> String {
    let names = ["vda", "sda", "nvme0n1", "xvda", "mmcblk0"].map(|name| format!("/dev/{name}"));
    let [first, ..] = &names;
    names.iter().find(|path| std::path::Path::new(path).exists()).unwrap_or(first).clone()
}

/// A terminal of the host that belongs to the ground's person, and its path.
fn own_terminal(ground: &Ground) -> (OwnedFd, String) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let held = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&held).unwrap();
    unlockpt(&held).unwrap();
    let name = ptsname(&held, Vec::new()).unwrap().into_string().unwrap();
    ground.person.own(std::path::Path::new(&name));
    (held, name)
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.victim.kill();
        let _ = self.victim.wait();
        let _ = Command::new("kill").arg(self.shared.id().to_string()).status();
        let _ = self.shared.wait();
        let _ = std::fs::remove_file(&self.shared_file);
    }
}
