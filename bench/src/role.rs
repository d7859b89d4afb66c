//! Processes of the benchmark's own, which it starts from its own binary. Each ends with its parent.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;

use nix::sched::CloneFlags;
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::error::BenchError;
use crate::floor::{layers, parked, steps};
use crate::process::{kernel_memory, settled_kernel_memory};
use crate::spawn::{self, Null, micros};

/// Spawns its arguments whenever a byte comes over descriptor 0, and answers with one when they have ended.
const SPAWNER: &str = "role-spawner";
/// Keeps a processor busy.
const BURNER: &str = "role-burner";
/// Makes so many network namespaces and prints how much the kernel's memory grew with each, in KiB.
const NETWORK_NAMESPACES: &str = "role-network-namespaces";

/// Runs the role of this name, if it is one.
pub(crate) fn run(name: &OsString, arguments: &[OsString]) -> Option<ExitCode> {
    let ended = match name.to_str()? {
        SPAWNER => spawn_on_request(arguments),
        BURNER => burn(),
        NETWORK_NAMESPACES => hold_network_namespaces(arguments),
        parked::OUTER => parked::outer(arguments),
        parked::INNER => parked::inner(arguments),
        steps::STEP => steps::run(arguments),
        _ => return None,
    };
    Some(match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::out::say(&format!("bench: {}", crate::error::chain(&error)));
            ExitCode::FAILURE
        }
    })
}

/// The spawner, and whatever becomes one.
pub(crate) fn spawn_on_request(words: &[OsString]) -> Result<(), BenchError> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned();
    let mut socket = UnixStream::from(socket.map_err(BenchError::io("take the socket"))?);
    let null = Null::open()?;
    let (program, arguments) =
        words.split_first().ok_or_else(|| BenchError::Wrong("nothing to spawn was named".into()))?;
    let mut asked = [0];
    while socket.read(&mut asked).map_err(BenchError::io("read a request"))? == 1 {
        let mut command = spawn::command(program);
        command.args(arguments);
        null.give(&mut command)?;
        let worked = spawn::timed(&mut command).is_ok();
        socket.write_all(&[u8::from(worked)]).map_err(BenchError::io("answer"))?;
    }
    Ok(())
}

/// Never returns: ends by the signal at its parent's death, or by the one that [`Load`] sends.
fn burn() -> Result<(), BenchError> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(BenchError::errno("follow the parent's death"))?;
    let mut number = 1_u64;
    loop {
        number = std::hint::black_box(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number >> 7));
    }
}

fn hold_network_namespaces(words: &[OsString]) -> Result<(), BenchError> {
    let count = words.first().and_then(|word| word.to_str()?.parse::<u32>().ok());
    let count = count.ok_or_else(|| BenchError::Wrong("how many network namespaces wasn't said".into()))?;
    layers::rights()?;
    let before = settled_kernel_memory()?;
    let mut held = Vec::new();
    for _ in 0..count {
        layers::namespaces(CloneFlags::CLONE_NEWNET)?;
        // The descriptor keeps it when the next takes its place.
        held.push(File::open("/proc/self/ns/net").map_err(BenchError::io("open a network namespace"))?);
    }
    let grown = u32::try_from(kernel_memory()?.saturating_sub(before)).unwrap_or(u32::MAX);
    crate::out::print(&format!("{}\n", f64::from(grown) / f64::from(count.max(1))))
}

/// What one network namespace takes of the kernel's memory in KiB, by so many of them.
pub(crate) fn network_namespace_kib(count: u32) -> Result<f64, BenchError> {
    number(NETWORK_NAMESPACES, &[count.to_string().as_ref()])
}

fn own_role(role: &str) -> Result<Command, BenchError> {
    let me = std::env::current_exe().map_err(BenchError::io("tell where this binary is"))?;
    let mut command = spawn::command(me);
    command.arg(role);
    Ok(command)
}

/// Runs a role that prints one number.
pub(crate) fn number(role: &str, words: &[&OsStr]) -> Result<f64, BenchError> {
    let said = spawn::tried(own_role(role)?.args(words))?;
    let said = String::from_utf8_lossy(&said);
    said.trim().parse().map_err(|_| BenchError::Wrong(format!("{role} said {said:?}")))
}

/// A small process that lives on and spawns on request: what a daemon's bare spawn would cost if it confined
/// nothing.
#[derive(Debug)]
pub(crate) struct Spawner {
    child: Child,
    socket: UnixStream,
}

impl Spawner {
    /// Starts one for this command.
    pub(crate) fn start(words: &[&str]) -> Result<Self, BenchError> {
        Self::start_role(SPAWNER, &[], words)
    }

    /// Starts a role that becomes one.
    pub(crate) fn start_role(role: &str, first: &[&OsStr], words: &[&str]) -> Result<Self, BenchError> {
        let (ours, theirs) = UnixStream::pair().map_err(BenchError::io("make a socket pair"))?;
        let mut command = own_role(role)?;
        command.args(first).args(words).stdin(Stdio::from(OwnedFd::from(theirs))).stderr(Stdio::piped());
        let child = command.spawn().map_err(BenchError::io(format!("start {role}")))?;
        Ok(Self { child, socket: ours })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next byte it says. One that has ended says why.
    pub(crate) fn hear(&mut self) -> Result<u8, BenchError> {
        let mut said = [0];
        match self.socket.read_exact(&mut said) {
            Ok(()) => Ok(said[0]),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(BenchError::Wrong(self.last_words()))
            }
            Err(error) => Err(BenchError::io("hear from a role")(error)),
        }
    }

    /// One spawn and its end; how long that took, in microseconds.
    pub(crate) fn timed(&mut self) -> Result<f64, BenchError> {
        let began = Instant::now();
        self.socket.write_all(&[1]).map_err(BenchError::io("ask the spawner"))?;
        let answer = self.hear()?;
        let took = micros(began.elapsed());
        if answer == 1 {
            Ok(took)
        } else {
            Err(BenchError::Wrong("the command failed in the spawner".into()))
        }
    }

    /// Ends it: the end of its socket is its end.
    pub(crate) fn end(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.child.wait();
    }

    fn last_words(&mut self) -> String {
        let mut said = String::new();
        let _ = self.child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut said));
        // Of a role within a role, the inner one speaks first.
        let first = said.lines().next().unwrap_or("it ended and said nothing");
        first.trim_start_matches("bench: ").to_owned()
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        self.end();
    }
}

/// Keeps every processor busy while it is held.
#[derive(Debug)]
pub(crate) struct Load(Vec<Child>);

impl Load {
    /// Starts a burner a processor.
    pub(crate) fn start() -> Result<Self, BenchError> {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let mut load = Self(Vec::new());
        for _ in 0..count {
            let child = own_role(BURNER)?.stdin(Stdio::null()).spawn();
            load.0.push(child.map_err(BenchError::io("start a burner"))?);
        }
        Ok(load)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
