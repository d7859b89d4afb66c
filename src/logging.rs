//! Where the daemon's log goes: standard error as lines, or the journal as entries with fields, if that is what standard
//! error is.
//!
//! Either way by the supervisor's [`Log`]: whoever reads may stop, and the daemon must not.

use std::io;
use std::os::fd::AsFd;

use stockade_supervisor::config::LogLevel;
use stockade_supervisor::{LastLines, Log, SetLevel};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::color;
use crate::journal::{Journal, Socket, lost};

/// What the record's signed heads are told as.
const HEADS: &str = "stockade_audit_head";

/// Starts it. Logged is what the environment says, whatever else is said (`own`); else what the configuration does, which a
/// reload can change.
///
/// # Errors
/// No thread can be started.
pub(crate) fn start(
    own: Option<EnvFilter>,
    level: LogLevel,
) -> io::Result<(Log, LastLines, Option<SetLevel>)> {
    let of_level = |level: LogLevel| EnvFilter::new(logged(level));
    let may_change = own.is_none();
    let (filter, handle) = reload::Layer::new(own.unwrap_or_else(|| of_level(level)));
    let set_level: SetLevel = Box::new(move |level| {
        if let Err(error) = handle.reload(of_level(level)) {
            tracing::error!(%error, %level, "the log's level can't be changed");
        }
    });
    let is_journal = is_journal(io::stderr(), std::env::var("JOURNAL_STREAM").ok().as_deref());
    // Its socket may be out of reach where its stream isn't.
    let socket = if is_journal { Socket::open().ok() } else { None };
    let (log, last) = match socket {
        Some(socket) => {
            let (log, last) = Log::entries_to(socket, lost)?;
            tracing_subscriber::registry().with(filter).with(Journal::new(log.clone())).init();
            (log, last)
        }
        None => {
            let (log, last) = Log::to(io::stderr())?;
            let lines = tracing_subscriber::fmt::layer()
                .with_ansi(color::wanted(&io::stderr()))
                .with_writer(Lines(log.clone()));
            tracing_subscriber::registry().with(filter).with(lines).init();
            (log, last)
        }
    };
    settle_before_a_panic(&log);
    Ok((log, last, may_change.then_some(set_level)))
}

/// What is logged at a level. The record's heads always are: copied to the journal they make sure that nobody cuts its end off.
fn logged(level: LogLevel) -> String {
    format!("{},{HEADS}=info", level.name())
}

/// Whether a stream is the journal's: `JOURNAL_STREAM` names its device and inode, as systemd.exec(5) has it. A program
/// whose standard error was redirected has inherited the variable, and not the stream.
fn is_journal(stream: impl AsFd, variable: Option<&str>) -> bool {
    let named = variable.and_then(|text| text.split_once(':'));
    let numbers = named.and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    let Ok(found) = rustix::fs::fstat(stream) else { return false };
    numbers.is_some_and(|numbers: (u64, u64)| numbers == (found.st_dev, found.st_ino))
}

/// A panic ends the process: what was logged before has to be there to explain it.
fn settle_before_a_panic(log: &Log) {
    let (log, print) = (log.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        log.settle();
        print(panic);
    }));
}

/// Writes lines by their level: warnings and errors wait for nothing.
struct Lines(Log);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.0.clone()
    }

    fn make_writer_for(&'a self, line: &Metadata<'_>) -> Log {
        if *line.level() <= Level::WARN { self.0.urgent() } else { self.make_writer() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_records_heads_are_logged_whatever_the_level() {
        let filter = EnvFilter::new(logged("error".parse().unwrap()));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(filter), || {
            assert!(tracing::enabled!(target: HEADS, Level::INFO));
            assert!(!tracing::enabled!(target: "stockade_audit", Level::WARN));
        });
    }

    #[test]
    fn only_the_stream_that_the_variable_names_is_the_journal() {
        let file = tempfile::tempfile().unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        let ours = format!("{}:{}", stat.st_dev, stat.st_ino);
        assert!(is_journal(&file, Some(&ours)));
        assert!(!is_journal(tempfile::tempfile().unwrap(), Some(&ours)));
        for text in ["", ":", "1", "1:2", "x:y"] {
            assert!(!is_journal(&file, Some(text)), "{text}");
        }
        assert!(!is_journal(&file, None));
    }
}
