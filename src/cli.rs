//! The command line: which subcommand, its help, how errors are told.
//!
//! `run` is looked for first and parsed alone: it is on everybody's hot path, and building the description of
//! every other subcommand costs more than connecting to the daemon.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser};
use stockade_supervisor::sysexits;

use crate::color::Paint;
use crate::error::{CliError, chain};
use crate::{
    access, approve, attach, audit, breaker, completions, config, doctor, exit, grant, kill, logs, man, out,
    policy, ps, reload, run, serve, stats, status, tool,
};

const EXAMPLES: &str = "Examples:
  stockade run -- python3 -c 'print(6*7)'
  stockade doctor
  stockade policy explain default write .git/hooks/pre-commit
  stockade serve &

`stockade SUBCOMMAND --help` has more of them.";

/// Runs commands confined, at nearly the speed of running them unprotected, and says what was enforced.
#[derive(Debug, Parser)]
#[command(name = "stockade", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    subcommand: Subcommand,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    Run(run::Arguments),
    Serve(serve::Arguments),
    Ps(ps::Arguments),
    Kill(kill::Arguments),
    Attach(attach::Arguments),
    Logs(logs::Arguments),
    Status(status::Arguments),
    Stats(stats::Arguments),
    Doctor(doctor::Arguments),
    Policy(policy::Arguments),
    Config(config::Arguments),
    Reload(reload::Arguments),
    Tool(tool::Arguments),
    Breaker(breaker::Arguments),
    Access(access::Arguments),
    Approve(approve::Arguments),
    Grant(grant::Arguments),
    Audit(audit::Arguments),
    Man(man::Arguments),
    Completions(completions::Arguments),
}

/// The description of the whole command line. Dear to build: never for a run.
pub(crate) fn command() -> clap::Command {
    Arguments::command()
}

/// Everything but the roles.
pub(crate) fn main(words: Vec<OsString>) -> ExitCode {
    let running = words.first().is_some_and(|word| word == "run");
    let wrong_usage = match words.first() {
        _ if running => exit::OURS,
        Some(word) if word == "serve" => sysexits::USAGE,
        _ => exit::USAGE,
    };
    let parsed = if running {
        run::Arguments::parse_quickly(words).map(Subcommand::Run)
    } else {
        let words = std::iter::once(OsString::from("stockade")).chain(words);
        Arguments::try_parse_from(words).map(|arguments| arguments.subcommand)
    };
    let subcommand = match parsed {
        Ok(subcommand) => subcommand,
        Err(error) => return wrong(&error, wrong_usage),
    };
    dispatch(&subcommand)
        .unwrap_or_else(|error| {
            tell(&error);
            // A call ends as a run does.
            error.status(running || matches!(&subcommand, Subcommand::Tool(arguments) if arguments.is_call()))
        })
        .into()
}

/// Says on standard error why it could not be done, and what would help.
pub(crate) fn tell(error: &CliError) {
    let prefix = Paint::to(&std::io::stderr()).bold("stockade:");
    out::complain(&format!("{prefix} {}", chain(error)));
    if let Some(remedy) = error.remedy() {
        out::complain(&format!("{prefix} {remedy}"));
    }
}

fn dispatch(subcommand: &Subcommand) -> Result<u8, CliError> {
    match subcommand {
        Subcommand::Run(arguments) => run::run(arguments),
        Subcommand::Serve(arguments) => serve::serve(arguments),
        Subcommand::Ps(arguments) => ps::ps(arguments),
        Subcommand::Kill(arguments) => kill::kill(arguments),
        Subcommand::Attach(arguments) => attach::attach(arguments),
        Subcommand::Logs(arguments) => logs::logs(arguments),
        Subcommand::Status(arguments) => status::status(arguments),
        Subcommand::Stats(arguments) => stats::stats(arguments),
        Subcommand::Doctor(arguments) => doctor::doctor(arguments),
        Subcommand::Policy(arguments) => policy::policy(arguments),
        Subcommand::Config(arguments) => config::config(arguments),
        Subcommand::Reload(arguments) => reload::reload(arguments),
        Subcommand::Tool(arguments) => tool::tool(arguments),
        Subcommand::Breaker(arguments) => breaker::breaker(arguments),
        Subcommand::Grant(arguments) => grant::grant(arguments),
        Subcommand::Access(arguments) => access::access(arguments),
        Subcommand::Approve(arguments) => approve::approve(arguments),
        Subcommand::Audit(arguments) => audit::audit(arguments),
        Subcommand::Man(arguments) => man::man(arguments),
        Subcommand::Completions(arguments) => completions::completions(arguments),
    }
}

/// Help and version are no errors; a wrong command line is one, with its subcommand's status for that.
fn wrong(error: &clap::Error, status: u8) -> ExitCode {
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => status.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
        run::Arguments::command().debug_assert();
    }

    #[test]
    fn every_subcommand_and_option_is_in_the_document() {
        const DOCUMENT: &str = include_str!("../docs/cli.md");
        fn check(command: &clap::Command) {
            for subcommand in command.get_subcommands() {
                let name = subcommand.get_name();
                assert!(
                    DOCUMENT.contains(&format!("`stockade {name}"))
                        || DOCUMENT.contains(&format!("[`{name}`]"))
                        || DOCUMENT.contains(&format!("`stockade policy {name}"))
                        || DOCUMENT.contains(&format!("`stockade config {name}"))
                        || DOCUMENT.contains(&format!("`stockade tool {name}"))
                        || DOCUMENT.contains(&format!("`stockade breaker {name}"))
                        || DOCUMENT.contains(&format!("`stockade access {name}"))
                        || DOCUMENT.contains(&format!("`stockade grant {name}"))
                        || DOCUMENT.contains(&format!("`stockade audit {name}")),
                    "{name}"
                );
                for option in subcommand.get_arguments().filter_map(clap::Arg::get_long) {
                    assert!(DOCUMENT.contains(&format!("--{option}")), "{name} --{option}");
                }
                check(subcommand);
            }
        }
        check(&Arguments::command());
    }

    #[test]
    fn every_subcommand_has_a_sentence_and_examples() {
        for subcommand in Arguments::command().get_subcommands() {
            let name = subcommand.get_name();
            assert!(subcommand.get_about().is_some(), "{name} has no sentence");
            let after = subcommand.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.contains("Examples:"), "{name} has no examples");
        }
    }
}
