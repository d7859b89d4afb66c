//! A mode with a place to work in, and commands run there.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{Daemon, Ground, Mode, wait_until};

/// How long any command of the suite may take, unless it says otherwise.
const PATIENCE: Duration = Duration::from_secs(90);

/// A mode, a ground of its client, and the daemon if the mode has one.
#[derive(Debug)]
pub struct Setting {
    /// The mode.
    pub mode: Mode,
    /// The client's ground.
    pub ground: Ground,
    /// The daemon.
    pub daemon: Option<Arc<Daemon>>,
}

impl Setting {
    /// A fresh ground in a mode, with the shared daemon.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        let daemon = mode.has_daemon().then(|| Daemon::shared(mode));
        Self { mode, ground: Ground::new(mode.client()), daemon }
    }

    /// One setting for each mode that can be tested here.
    pub fn each() -> impl Iterator<Item = Self> {
        Mode::here().into_iter().map(Self::new)
    }

    /// A subcommand of `stockade` in this setting.
    #[must_use]
    pub fn ask(&self, words: &[&str]) -> Command {
        self.daemon.as_ref().map_or_else(
            || {
                let mut command = self.ground.stockade();
                command.args(words);
                command
            },
            |daemon| daemon.ask(&self.ground, words),
        )
    }

    /// A run under a policy, to be filled.
    pub fn run(&self, policy: &str) -> Run<'_> {
        let mut command = self.ground.stockade();
        command.arg("run").arg("--policy").arg(policy);
        match &self.daemon {
            Some(daemon) => command.arg("--socket").arg(&daemon.socket),
            None => command.arg("--embedded"),
        };
        Run { setting: self, command, input: None, patience: PATIENCE, words: Vec::new() }
    }

    /// Runs a line of `bash` under a policy.
    #[must_use]
    pub fn bash(&self, policy: &str, line: &str) -> Ended {
        self.run(policy).words(["bash", "-c", line]).finish()
    }
}

/// A run that isn't started yet.
#[derive(Debug)]
#[must_use]
pub struct Run<'a> {
    setting: &'a Setting,
    command: Command,
    input: Option<Vec<u8>>,
    patience: Duration,
    words: Vec<OsString>,
}

impl Run<'_> {
    /// An option of `stockade run`.
    pub fn option(mut self, words: &[&str]) -> Self {
        self.command.args(words);
        self
    }

    /// A variable of the client's environment.
    pub fn variable(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Where the client stands.
    pub fn within(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// What the client has on its input.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// How long it may take before the harness gives up.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Words of the command.
    pub fn words<W: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.words.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// The client's command, complete, for a test that starts it itself.
    pub fn into_command(mut self) -> Command {
        self.command.arg("--").args(&self.words);
        self.command
    }

    /// Starts it.
    #[must_use]
    pub fn start(self) -> Started {
        let (input, patience, mode) = (self.input.clone(), self.patience, self.setting.mode);
        Started::of(self.into_command(), input, patience, &format!("{mode:?}"))
    }

    /// Runs it to its end.
    #[must_use]
    pub fn finish(self) -> Ended {
        self.start().finish()
    }
}

/// A command that was started.
#[derive(Debug)]
pub struct Started {
    /// The client's process.
    pub child: Child,
    began: Instant,
    patience: Duration,
    stdout: Collected,
    stderr: Collected,
    title: String,
}

impl Started {
    /// Starts a command with its output collected.
    #[must_use]
    pub fn of(mut command: Command, input: Option<Vec<u8>>, patience: Duration, mode: &str) -> Self {
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let title = format!("{mode}: {command:?}");
        let began = Instant::now();
        let mut child = command.spawn().unwrap();
        if let (Some(bytes), Some(mut pipe)) = (input, child.stdin.take()) {
            std::thread::spawn(move || {
                // A command needn't read its input: a closed pipe is no failure of the test.
                let _ = pipe.write_all(&bytes);
            });
        }
        let stdout = Collected::of(child.stdout.take().unwrap());
        let stderr = Collected::of(child.stderr.take().unwrap());
        Self { child, began, patience, stdout, stderr, title }
    }

    /// Sends the client a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits until the command has said this. The client knows then that it has begun.
    #[track_caller]
    pub fn says(&self, word: &str) {
        assert!(wait_until(self.patience, || self.stdout.has(word)), "{}: no {word:?}", self.title);
    }

    /// Interrupts the client, and waits until it has taken notice: two interrupts that wait would be one.
    pub fn interrupt(&self) {
        const INTERRUPT: u64 = 1 << 1;
        self.signal(rustix::process::Signal::INT);
        let is_taken = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
            let waits =
                |line: &str| line.strip_prefix("SigPnd:").or(line.strip_prefix("ShdPnd:")).map(str::to_owned);
            let waiting = status.lines().filter_map(waits);
            waiting
                .map(|mask| u64::from_str_radix(mask.trim(), 16).unwrap())
                .all(|mask| mask & INTERRUPT == 0)
        };
        assert!(wait_until(self.patience, is_taken), "{} takes no notice", self.title);
    }

    /// Waits for its end.
    #[must_use]
    pub fn finish(mut self) -> Ended {
        let deadline = self.began + self.patience;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!("{} didn't end within {:?}", self.title, self.patience);
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let (at, took) = (Instant::now(), self.began.elapsed());
        let (stdout, stderr) = (self.stdout.whole(), self.stderr.whole());
        Ended { code: status.code(), signal: status.signal(), stdout, stderr, took, at, title: self.title }
    }
}

/// What comes out of a pipe.
#[derive(Debug)]
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Collected {
    fn of(mut pipe: impl std::io::Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&bytes);
        let thread = std::thread::spawn(move || {
            let mut piece = vec![0; 64 * 1024];
            loop {
                let read = match pipe.read(&mut piece) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    read => read.unwrap(),
                };
                if read == 0 {
                    return;
                }
                into.lock().unwrap().extend_from_slice(&piece[..read]);
            }
        });
        Self { bytes, thread }
    }

    /// Whether this has come by now.
    fn has(&self, word: &str) -> bool {
        self.bytes.lock().unwrap().windows(word.len()).any(|window| window == word.as_bytes())
    }

    /// Everything, once the pipe has ended.
    fn whole(self) -> Vec<u8> {
        self.thread.join().unwrap();
        std::mem::take(&mut *self.bytes.lock().unwrap())
    }
}

/// A command that has ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Exit status.
    pub code: Option<i32>,
    /// The signal that ended the client.
    pub signal: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// From its start to its end.
    pub took: Duration,
    /// When it ended.
    pub at: Instant,
    title: String,
}

impl Ended {
    /// Runs any command and collects its output.
    #[must_use]
    pub fn of(command: Command) -> Self {
        Started::of(command, None, PATIENCE, "").finish()
    }

    /// Standard output as text, without white space around it.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim().to_owned()
    }

    /// Everything there is to say about it.
    #[must_use]
    pub fn story(&self) -> String {
        let cut = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned();
        let (out, err) = (cut(&self.stdout), cut(&self.stderr));
        let (code, signal, took) = (self.code, self.signal, self.took);
        format!(
            "{}\nended with {code:?}, signal {signal:?}, after {took:?}\n-- out:\n{out}\n-- err:\n{err}",
            self.title
        )
    }

    /// Fails the test unless the exit status is this.
    #[track_caller]
    pub fn expect_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "expected {code}: {}", self.story());
        self
    }

    /// Fails the test unless the output, without white space around it, is this.
    #[track_caller]
    pub fn expect_text(&self, text: &str) -> &Self {
        assert_eq!(self.text(), text, "{}", self.story());
        self
    }

    /// Fails the test unless standard error holds each of these words.
    #[track_caller]
    pub fn expect_errors(&self, words: &[&str]) -> &Self {
        let errors = self.errors();
        for word in words {
            assert!(errors.contains(word), "no {word:?} on standard error: {}", self.story());
        }
        self
    }
}

/// A word that no other process of the machine has among its arguments.
#[must_use]
pub fn marker(word: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("stockade-mark-{word}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A path as text; the suite's own paths are all UTF-8.
#[must_use]
pub fn text_of(path: &Path) -> String {
    PathBuf::from(path).into_os_string().into_string().unwrap()
}
