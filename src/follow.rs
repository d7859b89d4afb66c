//! What a person or a program sees of one run: output and `--json` on standard output, one line on standard error
//! where we ended it, more of them with `-v`.
//!
//! Both ways of running (through a daemon, embedded) feed the same events here, so they look the same.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use stockade_gate::tools::Tool;
use stockade_protocol::ExecId;
use stockade_protocol::approval::RiskFactor;
use stockade_protocol::client::{ExecEvent, Redactions, ResultCheck, Stream};
use stockade_protocol::confinement::{Confinement, Plan, StdioPath};
use stockade_protocol::denied::Denied;
use stockade_protocol::outcome::{MemoryMechanism, Outcome, Usage};
use stockade_protocol::spec::Level;
use stockade_supervisor::promised::Printed;
use stockade_supervisor::words::{duration, size};

use crate::color::Paint;
use crate::json::Connection;
use crate::sink::Sink;
use crate::{escape, exit, json, words};

/// Follows one run.
#[derive(Debug)]
pub(crate) struct Follow {
    pub(crate) stdout: Sink<BorrowedFd<'static>>,
    pub(crate) stderr: Sink<BorrowedFd<'static>>,
    json: bool,
    verbose: bool,
    terminal: bool,
    paint: Paint,
    status: Option<u8>,
    /// A tool that says what it prints, of which nobody else looks whether it does; and what it has printed so far.
    promised: Option<(Arc<Tool>, Printed)>,
}

impl Follow {
    pub(crate) fn new(json: bool, verbose: bool) -> Self {
        let stderr = rustix::stdio::stderr();
        Self {
            stdout: Sink::new(rustix::stdio::stdout()),
            stderr: Sink::new(stderr),
            json,
            verbose,
            terminal: rustix::termios::isatty(stderr),
            paint: Paint::to(&std::io::stderr()),
            status: None,
            promised: None,
        }
    }

    /// The same, of a tool that says what it prints.
    pub(crate) fn promised(mut self, tool: Option<Arc<Tool>>) -> Self {
        self.promised = tool.map(|tool| (tool, Printed::default()));
        self
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether it looks at output, or only hands it on.
    pub(crate) fn looks(&self) -> bool {
        self.json || self.promised.is_some()
    }

    /// Whether output waits for somebody to read ours.
    pub(crate) fn pending(&self) -> bool {
        self.stdout.pending() || self.stderr.pending()
    }

    /// What to exit with; known after `Exited`.
    pub(crate) fn status(&self) -> Option<u8> {
        self.status
    }

    /// One event of the run.
    pub(crate) fn event(&mut self, exec_id: ExecId, seq: u64, event: &ExecEvent) {
        let checked = self.checked(event);
        let event = checked.as_ref().unwrap_or(event);
        if self.json {
            self.stdout.push(&json::event(exec_id, seq, event));
        }
        match event {
            ExecEvent::Output { stream, bytes } if !self.json => match stream {
                Stream::Stdout => self.stdout.push(bytes),
                Stream::Stderr => self.stderr.push(bytes),
            },
            ExecEvent::OutputLost { events } => {
                self.note(&format!("{events} events are no longer kept; output is missing here"));
            }
            ExecEvent::Started { confinement } => self.started(confinement),
            ExecEvent::LimitWarning { limit, value, bound } if self.verbose => {
                self.note(&format!("near a limit: {limit} is {value} of {bound}"));
            }
            ExecEvent::Exited { outcome, usage, trusted_files, redactions, result_check } => {
                let names: Vec<_> = trusted_files.iter().map(|path| escape::line(path)).collect();
                if let Some(redactions) = redactions.as_ref().filter(|_| self.verbose) {
                    self.note(&hidden(redactions));
                }
                self.exited(outcome, usage, &names);
                if let Some(check) = result_check {
                    self.result(check);
                }
            }
            _ => {}
        }
    }

    /// The request was refused.
    pub(crate) fn denied(&mut self, denied: &Denied) {
        if self.json {
            self.stdout.push(&json::denied(denied));
        }
        self.note(&words::denied(denied));
        self.status = Some(exit::OURS);
    }

    /// The request waits until somebody has approved it.
    pub(crate) fn awaits(&mut self, exec_id: ExecId, within_ms: u64, score: u32, factors: &[RiskFactor]) {
        if self.json {
            self.stdout.push(&json::awaits(exec_id, within_ms, score, factors));
        }
        self.note(&format!(
            "waits until somebody has approved it, {} at most: {exec_id}",
            duration(within_ms)
        ));
        for factor in factors {
            let worth = factor.score.map(|score| format!(" (+{score})")).unwrap_or_default();
            let (name, reason) =
                (escape::line(factor.name.as_bytes()), escape::line(factor.reason.as_bytes()));
            self.note(&format!("  because {name}{worth}: {reason}"));
        }
    }

    /// Puts out what can be.
    pub(crate) fn flush(&mut self) {
        self.stdout.flush();
        self.stderr.flush();
    }

    /// There has been no daemon for a while, and we wait for it so long in all.
    pub(crate) fn waiting(&mut self, within: Duration) {
        if self.json {
            self.stdout.push(&json::connection(Connection::Waiting { within_ms: milliseconds(within) }));
        }
        self.note(&waiting(within));
    }

    /// After a pause that was told of there is a daemon again.
    pub(crate) fn back(&mut self, after: Duration) {
        if self.json {
            self.stdout.push(&json::connection(Connection::Back { after_ms: milliseconds(after) }));
        }
        self.note(&format!("the daemon is back after {}", duration(milliseconds(after))));
    }

    /// Whether output of ours could not be written; then the status can't be a success.
    pub(crate) fn finish(&mut self, status: u8) -> u8 {
        self.stdout.drain();
        let failure = self.stdout.failure();
        if let Some(errno) = failure {
            self.note(&format!("cannot write standard output: {}", said(errno)));
        }
        self.stderr.drain();
        if failure.is_some() && status == 0 { exit::OURS } else { status }
    }

    /// A line of ours on standard error.
    pub(crate) fn note(&mut self, text: &str) {
        let line = format!("{} {text}\n", self.paint.bold("stockade:"));
        self.stderr.push(line.as_bytes());
    }

    /// A line of ours, with `-v` only.
    pub(crate) fn detail(&mut self, text: &str) {
        if self.verbose {
            self.note(text);
        }
    }

    fn started(&mut self, confinement: &Confinement) {
        if !self.verbose {
            return;
        }
        self.note(&format!(
            "policy {}, level {}, {}; memory by {}; host uid {}; stdin {}, stdout {}, stderr {}",
            escape::line(confinement.policy.as_bytes()),
            level(confinement.level),
            plan(confinement.plan),
            mechanism(confinement.memory),
            confinement.host_uid,
            stdio(confinement.stdio[0]),
            stdio(confinement.stdio[1]),
            stdio(confinement.stdio[2]),
        ));
        for report in &confinement.layers {
            let held =
                if report.enforced { self.paint.green("enforced") } else { self.paint.yellow("not asked") };
            let name = format!("{:?}", report.layer).to_lowercase();
            self.note(&format!("  {name:<10} {held}  {}", escape::line(report.detail.as_bytes())));
        }
        if !confinement.absent.is_empty() {
            let absent: Vec<_> = confinement.absent.iter().map(|path| escape::line(path)).collect();
            self.note(&format!("  not on this machine: {}", absent.join(", ")));
        }
    }

    /// The end, with what came of looking at what a tool promises, where that is ours to do.
    fn checked(&mut self, event: &ExecEvent) -> Option<ExecEvent> {
        let (tool, printed) = self.promised.as_mut()?;
        match event {
            ExecEvent::Output { stream, bytes } => printed.feed(*stream, bytes),
            ExecEvent::OutputLost { .. } => printed.lose("some of its output is no longer kept"),
            ExecEvent::Exited { outcome: Outcome::Exited { code }, .. } if !tool.is_failure(*code) => {
                let mut event = event.clone();
                if let ExecEvent::Exited { redactions, result_check, .. } = &mut event {
                    *result_check = printed.check(tool, redactions.is_some());
                }
                return Some(event);
            }
            _ => {}
        }
        None
    }

    /// Whether a tool has printed what it promises: if not, or nobody knows, its success is none for whoever relies on that.
    fn result(&mut self, check: &ResultCheck) {
        let what = match check.fits {
            Some(true) => return self.detail("the tool printed what it promises"),
            Some(false) => "the tool didn't print what it promises",
            None => "nobody could look whether the tool printed what it promises",
        };
        for said in &check.said {
            self.note(&format!("{what}: {}", escape::line(said.as_bytes())));
        }
        self.status = Some(exit::OURS);
    }

    fn exited(&mut self, outcome: &Outcome, usage: &Usage, trusted: &[String]) {
        if let Some(why) = words::why(outcome) {
            self.note(&why);
        }
        // A note, not a reason: where standard error is read by a program, it asks with -v or --json.
        if !trusted.is_empty() && (self.terminal || self.verbose) {
            let text = format!("new files that other programs will trust: {}", trusted.join(", "));
            let text = self.paint.yellow(&text);
            self.note(&text);
        }
        if self.verbose {
            self.note(&used(usage));
        }
        self.status = Some(exit::status(outcome));
    }
}

/// What is said of a pause without a daemon.
pub(crate) fn waiting(within: Duration) -> String {
    format!("the daemon is gone; waiting for it to come back, up to {}", duration(milliseconds(within)))
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What is said of an output in which secrets are hidden.
fn hidden(redactions: &Redactions) -> String {
    if redactions.marks.is_empty() {
        return "output is redacted; there was nothing to hide".to_owned();
    }
    let names = redactions.marks.iter().map(|mark| match mark.count {
        1 => escape::line(mark.name.as_bytes()),
        count => format!("{} ({count} times)", escape::line(mark.name.as_bytes())),
    });
    let late = match redactions.late {
        0 => String::new(),
        late => format!("; of {late} the beginning was seen"),
    };
    format!("output is redacted; hidden: {}{late}", names.collect::<Vec<_>>().join(", "))
}

fn used(usage: &Usage) -> String {
    let stalled = usage.stalled.map_or(String::new(), |stalled| {
        let [cpu, memory, io] =
            [stalled.cpu_us, stalled.memory_us, stalled.io_us].map(|time| duration(time / 1000));
        format!(", held up {cpu} for a processor, {memory} for memory, {io} for a disk")
    });
    format!(
        "wall {}, user {}, system {}, memory {} (by {}), {} processes at most, {} bytes out through us{stalled}",
        duration(usage.wall_us / 1000),
        duration(usage.user_us / 1000),
        duration(usage.system_us / 1000),
        size(usage.memory_peak),
        mechanism(usage.memory_mechanism),
        usage.processes_peak,
        usage.bytes_out,
    )
}

/// A level's name, as policies spell it.
pub(crate) fn level(level: Level) -> &'static str {
    match level {
        Level::Strict => "strict",
        Level::Moderate => "moderate",
        Level::Minimal => "minimal",
    }
}

/// A spawn plan's name.
pub(crate) fn plan(plan: Plan) -> &'static str {
    match plan {
        Plan::System => "system plan",
        Plan::User => "user plan",
        Plan::Minimal => "no namespaces",
        _ => "another plan",
    }
}

/// What measures memory.
pub(crate) fn mechanism(mechanism: MemoryMechanism) -> &'static str {
    match mechanism {
        MemoryMechanism::Rusage => "rusage",
        MemoryMechanism::Monitor => "monitor",
        MemoryMechanism::Cgroup => "cgroup",
        _ => "another mechanism",
    }
}

fn stdio(path: StdioPath) -> &'static str {
    match path {
        StdioPath::Null => "null",
        StdioPath::Passed => "passed",
        StdioPath::Relayed => "relayed",
        StdioPath::Terminal => "terminal",
        _ => "otherwise",
    }
}

/// What the system says of an errno.
fn said(errno: Errno) -> String {
    std::io::Error::from(errno).to_string()
}
