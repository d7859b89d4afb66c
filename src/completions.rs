//! `stockade completions`: what a shell needs to complete our command lines, on standard output.

use clap_complete::{Shell, generate};

use crate::error::CliError;
use crate::{cli, out};

const EXAMPLES: &str = "Examples:
  source <(stockade completions bash)             in this shell
  stockade completions bash > ~/.local/share/bash-completion/completions/stockade
  stockade completions zsh > ~/.zfunc/_stockade   a directory of $fpath
  stockade completions fish > ~/.config/fish/completions/stockade.fish";

/// Prints a shell's completions for this command line.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn completions(arguments: &Arguments) -> Result<u8, CliError> {
    out::print(&text(arguments.shell))
}

fn text(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    generate(shell, &mut cli::command(), "stockade", &mut text);
    text
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_completes_every_subcommand_and_option() {
        for shell in Shell::value_variants() {
            let text = String::from_utf8(text(*shell)).unwrap();
            for command in cli::command().get_subcommands() {
                assert!(text.contains(command.get_name()), "{shell}: {}", command.get_name());
                for option in command.get_arguments().filter_map(clap::Arg::get_long) {
                    assert!(text.contains(option), "{shell}: {} --{option}", command.get_name());
                }
            }
        }
    }
}
