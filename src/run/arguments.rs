//! The words behind `stockade run`: what clap makes of them, and the same without clap for the plainest.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};
use stockade_protocol::Bytes;

use crate::units;

/// The policy of who names none.
const DEFAULT_POLICY: &str = "default";

const EXAMPLES: &str = "Examples:
  stockade run -- make test                              in this directory, policy `default`
  stockade run --policy build --timeout 10m -- cargo build
  stockade run --policy ./ci.toml -- ./check.sh          a policy of your own, without the daemon
  stockade run --env CC=clang --memory 256MiB -- make
  id=$(stockade run --detach -- ./long.sh); stockade logs --follow $id

Exit status: the command's; 124 a time limit; 137 over its memory; 126 found but not executable; 127 not found;
128+n signal n; 125 everything else of ours: denied, set-up failed, cancelled, too much output, too many processes.";

/// Runs a command confined: what it can't reach, it can't hurt.
#[derive(Debug, clap::Parser)]
#[command(name = "stockade run", bin_name = "stockade run", after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A policy's name, or a file of yours (with a `/` in it, or ending in .toml), which runs without the daemon
    #[arg(short, long, value_name = "NAME|FILE", default_value = DEFAULT_POLICY)]
    pub(crate) policy: String,
    /// The directory it works in [default: this one]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workspace: Option<PathBuf>,
    /// End it after so long (500ms, 30s, 5m); may only be less than the policy says
    #[arg(short, long, value_name = "TIME", value_parser = units::time)]
    pub(crate) timeout: Option<u64>,
    /// End it over so much memory (256MiB); may only be less than the policy says
    #[arg(short, long, value_name = "SIZE", value_parser = units::size)]
    pub(crate) memory: Option<u64>,
    /// A variable it must have: from here, or with this value. The policy has to allow its name
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = OsStringValueParser::new().try_map(|text| variable(&text)))]
    pub(crate) env: Vec<Variable>,
    /// Print the run's id and leave it to the daemon
    #[arg(short, long, conflicts_with = "embedded")]
    pub(crate) detach: bool,
    /// Events as JSON lines on standard output, the command's output among them
    #[arg(long)]
    pub(crate) json: bool,
    /// The daemon's socket [default: $STOCKADE_SOCKET, the user's, the system's]
    #[arg(long, value_name = "PATH", conflicts_with = "embedded")]
    pub(crate) socket: Option<PathBuf>,
    /// Without the daemon, whether there is one or not
    #[arg(long)]
    pub(crate) embedded: bool,
    /// Say what was enforced and used
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// A `--env`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(super) name: Bytes,
    pub(super) value: Option<Bytes>,
}

fn variable(text: &OsStr) -> Result<Variable, String> {
    let bytes = text.as_bytes();
    let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (&bytes[..at], Some(Bytes::from(&bytes[at + 1..]))),
        None => (bytes, None),
    };
    if name.is_empty() {
        Err("expected NAME or NAME=VALUE".into())
    } else {
        Ok(Variable { name: Bytes::from(name), value })
    }
}

impl Arguments {
    /// As clap parses them. What most runs are has no options to be told from anything, and clap takes as long to learn what
    /// there could be as a namespace takes to be made.
    pub(crate) fn parse_quickly(words: Vec<OsString>) -> Result<Self, clap::Error> {
        match Self::plain(&words) {
            Some(plain) => Ok(plain),
            None => <Self as clap::Parser>::try_parse_from(words),
        }
    }

    /// The plainest command lines: `run`, perhaps `--embedded` and a policy, each once, `--` and the command. `None`: clap is to
    /// say what it is.
    fn plain(words: &[OsString]) -> Option<Self> {
        let mut words = words.get(1..)?.iter();
        let (mut embedded, mut policy) = (false, None);
        loop {
            match words.next()?.to_str()? {
                "--" => break,
                "--embedded" if !embedded => embedded = true,
                "-p" | "--policy" if policy.is_none() => {
                    let name = words.next()?.to_str()?;
                    policy = Some(name).filter(|name| !name.is_empty() && !name.starts_with('-'));
                    policy?;
                }
                _ => return None,
            }
        }
        let command: Vec<_> = words.cloned().collect();
        (!command.is_empty()).then(|| Self {
            policy: policy.unwrap_or(DEFAULT_POLICY).to_owned(),
            workspace: None,
            timeout: None,
            memory: None,
            env: Vec::new(),
            detach: false,
            json: false,
            socket: None,
            embedded,
            verbose: false,
            command,
        })
    }

    /// Whether the policy is a file's path, not a name.
    pub(crate) fn policy_file(&self) -> Option<&Path> {
        let is_file = self.policy.contains('/') || self.policy.ends_with(".toml");
        is_file.then(|| Path::new(&self.policy))
    }

    /// The names that `--env` demands.
    pub(crate) fn demanded(&self) -> Vec<Bytes> {
        self.env.iter().map(|variable| variable.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use clap::Parser;

    use super::*;

    fn parse(words: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(std::iter::once(&"stockade run").chain(words))
    }

    #[test]
    fn everything_from_the_command_on_is_the_commands() {
        let table: [(&[&str], &[&str]); 5] = [
            (&["--", "true"], &["true"]),
            (&["true"], &["true"]),
            (&["ls", "-l", "--policy", "x"], &["ls", "-l", "--policy", "x"]),
            (&["-v", "--", "--odd", "--help"], &["--odd", "--help"]),
            (&["sh", "-c", "a -- b", "--"], &["sh", "-c", "a -- b", "--"]),
        ];
        for (words, command) in table {
            assert_eq!(parse(words).unwrap().command, command, "{words:?}");
        }
    }

    #[test]
    fn a_command_line_without_a_command_or_that_contradicts_itself_is_refused() {
        let table: [&[&str]; 8] = [
            &[],
            &["--"],
            &["--timeout", "30", "true"],
            &["--memory", "1G", "true"],
            &["--env", "=x", "true"],
            &["--detach", "--embedded", "true"],
            &["--socket", "/x", "--embedded", "true"],
            &["--no-such", "true"],
        ];
        for words in table {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn what_is_parsed_quickly_is_parsed_alike() {
        let table: [&[&str]; 14] = [
            &["run", "--embedded", "--", "true"],
            &["run", "--embedded", "-p", "strict", "--", "true", "--embedded"],
            &["run", "--policy", "x", "--", "-p", "y"],
            &["run", "--embedded", "--embedded", "--", "true"],
            &["run", "-p", "x", "-p", "y", "--", "true"],
            &["run", "-p", "--", "true"],
            &["run", "-p", "-x", "--", "true"],
            &["run", "-p", "", "--", "true"],
            &["run", "--", "true"],
            &["run", "--", "--odd", "--", "-p", "x"],
            &["run", "--", ""],
            &["run", "true"],
            &["run", "-p", "x", "--", "true"],
            &["run", "--"],
        ];
        for words in table {
            let words: Vec<OsString> = words.iter().map(Into::into).collect();
            let quickly = Arguments::parse_quickly(words.clone()).map(|parsed| format!("{parsed:?}"));
            let slowly = Arguments::try_parse_from(&words).map(|parsed| format!("{parsed:?}"));
            assert_eq!(quickly.ok(), slowly.ok(), "{words:?}");
        }
    }

    #[test]
    fn a_policy_with_a_slash_or_an_ending_is_a_file() {
        for (policy, file) in
            [("default", false), ("./x", true), ("x.toml", true), ("a/b", true), ("default.tom", false)]
        {
            assert_eq!(parse(&["-p", policy, "true"]).unwrap().policy_file().is_some(), file, "{policy}");
        }
    }

    #[test]
    fn a_variable_has_a_name_and_perhaps_a_value() {
        let of = |text: &str| variable(OsStr::new(text));
        assert_eq!(of("A=b=c").unwrap(), Variable { name: "A".into(), value: Some("b=c".into()) });
        assert_eq!(of("A=").unwrap(), Variable { name: "A".into(), value: Some("".into()) });
        assert_eq!(of("A").unwrap(), Variable { name: "A".into(), value: None });
        assert!(of("").is_err());
    }

    #[test]
    fn arguments_need_not_be_utf8() {
        let odd = OsStr::from_bytes(b"\xff\xfe").to_owned();
        let words = [OsString::from("stockade run"), "--".into(), "echo".into(), odd.clone()];
        assert_eq!(Arguments::try_parse_from(words).unwrap().command[1], odd);
    }
}
