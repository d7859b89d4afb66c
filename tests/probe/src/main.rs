//! The hostile probe: one subcommand an attack (and one an innocent need), which tries exactly one thing and
//! prints one line, `NAME ok`, `NAME ok DETAIL` or `NAME errno=E (NAME)`.
//!
//! It judges nothing: whether an answer is right is for the suite to say, which runs the same probe inside, with layers
//! left out, and outside. It exits with 0 whatever the kernel answered, with 2 when it was called wrongly.
//!
//! Reading order: [`raw`] (the one file with unsafe code), [`calls`] (system calls by number), [`files`], [`processes`],
//! [`network`], [`kernel`], [`bombs`], [`tries`] (many tries in one run).
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its line on the output is all it is for")]
#![allow(clippy::disallowed_methods, reason = "a probe may start programs and sleep: that's what it tries")]

mod bombs;
mod calls;
mod files;
mod kernel;

mod network;
mod processes;
mod raw;
mod tries;

use std::io::Write as _;
use std::process::ExitCode;

/// What came of a try: a detail for the line (often empty), or the kernel's answer.
type Answer = Result<String, Refused>;

/// The kernel's answer, or a wrong call of this program.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refused {
    /// An errno.
    Errno(i32),
    /// It wasn't refused by the kernel, but what was tried didn't come about either.
    NotSo(String),
    /// The arguments don't fit the subcommand.
    Usage(String),
}

impl From<rustix::io::Errno> for Refused {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Errno(errno.raw_os_error())
    }
}

impl From<nix::errno::Errno> for Refused {
    fn from(errno: nix::errno::Errno) -> Self {
        Self::Errno(errno as i32)
    }
}

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Self {
        error.raw_os_error().map_or_else(|| Self::NotSo(error.to_string()), Self::Errno)
    }
}

/// The arguments after the subcommand.
struct Arguments(Vec<String>);

impl Arguments {
    fn text(&self, at: usize) -> Result<&str, Refused> {
        self.0.get(at).map(String::as_str).ok_or_else(|| Refused::Usage(format!("argument {at} is missing")))
    }

    fn number<T: core::str::FromStr>(&self, at: usize) -> Result<T, Refused> {
        let text = self.text(at)?;
        text.parse().map_err(|_| Refused::Usage(format!("argument {at} isn't a fitting number: {text}")))
    }

    fn octal(&self, at: usize) -> Result<u32, Refused> {
        let text = self.text(at)?;
        u32::from_str_radix(text, 8).map_err(|_| Refused::Usage(format!("argument {at} isn't octal: {text}")))
    }
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let Some(name) = words.next() else {
        eprintln!("usage: stockade-probe NAME [ARGUMENT…]");
        return ExitCode::from(2);
    };
    match attempt(&name, &Arguments(words.collect())) {
        Ok(line) => {
            // The output may be closed on purpose (a test of that); there is nobody to tell then.
            let _ = writeln!(std::io::stdout(), "{line}");
            ExitCode::SUCCESS
        }
        Err(usage) => {
            eprintln!("stockade-probe {name}: {usage}");
            ExitCode::from(2)
        }
    }
}

/// Makes a try: the line that says what came of it.
///
/// # Errors
/// How it was called wrongly.
fn attempt(name: &str, arguments: &Arguments) -> Result<String, String> {
    let found = files::find(name)
        .or_else(|| processes::find(name))
        .or_else(|| network::find(name))
        .or_else(|| kernel::find(name))
        .or_else(|| bombs::find(name))
        .or_else(|| tries::find(name));
    let answer = match found {
        Some(attempt) => attempt(arguments),
        None => calls::make(name, arguments).ok_or("no probe has this name")?,
    };
    match answer {
        Ok(detail) if detail.is_empty() => Ok(format!("{name} ok")),
        Ok(detail) => Ok(format!("{name} ok {detail}")),
        Err(Refused::Errno(errno)) => {
            Ok(format!("{name} errno={errno} ({:?})", nix::errno::Errno::from_raw(errno)))
        }
        Err(Refused::NotSo(why)) => Ok(format!("{name} not-so {why}")),
        Err(Refused::Usage(why)) => Err(why),
    }
}

/// A try.
type Attempt = fn(&Arguments) -> Answer;

/// Finds a name in a module's table.
fn look_up(table: &[(&str, Attempt)], name: &str) -> Option<Attempt> {
    table.iter().find(|(known, _)| *known == name).map(|(_, attempt)| *attempt)
}
