//! `stockade man`: a page for man(1) of every subcommand, from the same description that its help has.
//!
//! The generator makes name, synopsis and options. What it would put under `EXTRA`, our help's examples and remarks, gets sections
//! of its own here, and each page says the files and variables that count for its subcommand.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::error::CliError;
use crate::{cli, file_page, out};

const EXAMPLES: &str = "Examples:
  stockade man run | man -l -
  stockade man policy explain | man -l -
  stockade man stockade.toml | man -l -
  stockade man --directory /usr/local/share/man";

/// What a subcommand ends with unless its help says more.
const EXIT_STATUS: &str = "0; 1 if it could not be done; 2 for a wrong command line.";

/// Prints a page of the manual, or writes all of them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The subcommand that the page is about, or stockade.toml; none: the page about all of it
    #[arg(value_name = "COMMAND", conflicts_with = "directory")]
    command: Vec<String>,
    /// Write every page below this directory, into man1 and man5, which are made if they aren't there
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// A file or a variable, what it is, and the pages that name it; the main page names all.
type Row = (&'static str, &'static str, &'static [&'static str]);

const CLIENTS: &[&str] =
    &["run", "attach", "logs", "ps", "kill", "status", "stats", "tool", "breaker", "reload", "serve"];
const DECIDING: &[&str] = &["run", "policy", "tool", "doctor", "serve"];
const CONFIGURED: &[&str] = &["config", "reload", "serve"];
const PAINTED: &[&str] = &[
    "run", "attach", "logs", "ps", "status", "stats", "policy", "config", "tool", "breaker", "doctor",
    "serve",
];

const FILES: &[Row] = &[
    ("/run/stockade/stockade.sock", "The socket of the machine's daemon.", CLIENTS),
    (
        "$XDG_RUNTIME_DIR/stockade/stockade.sock",
        "The socket of a user's own daemon, which is looked for first.",
        CLIENTS,
    ),
    (
        "/etc/stockade/stockade.toml, /etc/stockade/stockade.d/*.toml",
        "The configuration of root's daemon: see stockade.toml(5).",
        CONFIGURED,
    ),
    (
        "~/.config/stockade/stockade.toml, ~/.config/stockade/stockade.d/*.toml",
        "The configuration of a user's daemon; in $XDG_CONFIG_HOME where that is set.",
        CONFIGURED,
    ),
    ("/etc/stockade/policies/", "The operator's policies, a file each.", DECIDING),
    (
        "~/.config/stockade/policies/",
        "Your own policies; in $XDG_CONFIG_HOME where that is set. Root's daemon doesn't read them.",
        DECIDING,
    ),
    (
        "/etc/stockade/limits.toml",
        "How often what may be asked of root's daemon, and when a tool is taken for broken.",
        &["serve", "config", "breaker"],
    ),
    (
        "/etc/stockade/tools/",
        "The operator's tools, a file each; in keys/ the keys that are trusted.",
        &["tool"],
    ),
    ("~/.config/stockade/tools/", "Your own tools; in $XDG_CONFIG_HOME where that is set.", &["tool"]),
    ("/etc/stockade/audit.key", "The master key of the record of root's daemon.", &["audit"]),
    (
        "~/.config/stockade/audit.key",
        "The master key of a user's record; in $XDG_CONFIG_HOME where that is set.",
        &["audit"],
    ),
    ("/var/lib/stockade/audit/", "The record of root's daemon.", &["audit"]),
    (
        "~/.local/state/stockade/audit/",
        "The record of a user's daemon; in $XDG_STATE_HOME where that is set.",
        &["audit"],
    ),
    ("/var/lib/stockade/statistics.db", "The statistics of root's daemon.", &["stats"]),
    (
        "~/.local/state/stockade/statistics.db",
        "The statistics of a user's daemon; in $XDG_STATE_HOME where that is set.",
        &["stats"],
    ),
    ("/var/lib/stockade/", "The state of root's daemon.", &["serve"]),
    (
        "~/.local/state/stockade/",
        "The state of a user's daemon; in $XDG_STATE_HOME where that is set.",
        &["serve"],
    ),
];

const ENVIRONMENT: &[Row] = &[
    ("STOCKADE_SOCKET", "The daemon's socket, in place of the usual ones and the configuration's.", CLIENTS),
    ("STOCKADE_LOG", "What the daemon logs on standard error (info; stockade_supervisor=debug).", &["serve"]),
    ("XDG_RUNTIME_DIR", "Where a user's own daemon has its socket.", CLIENTS),
    (
        "XDG_CONFIG_HOME",
        "Where your own policies and your daemon's configuration are, below ~/.config otherwise.",
        &["run", "policy", "config", "tool", "audit", "doctor", "serve"],
    ),
    (
        "XDG_STATE_HOME",
        "Where a user's daemon keeps its state, below ~/.local/state otherwise.",
        &["serve", "audit", "stats"],
    ),
    (
        "HOME",
        "Your home directory. Root's is taken from the user database.",
        &["run", "policy", "config", "tool", "doctor", "serve"],
    ),
    ("NO_COLOR", "If set and not empty: no colours, on a terminal either.", PAINTED),
    ("TERM", "dumb: no colours either.", PAINTED),
];

pub(crate) fn man(arguments: &Arguments) -> Result<u8, CliError> {
    let root = built();
    if let Some(directory) = &arguments.directory {
        let failed = || CliError::io(format!("write the pages into {}", directory.display()));
        write_all(&root, directory).map_err(failed())?;
        return Ok(0);
    }
    let version = root.get_version().unwrap_or_default();
    if arguments.command.len() == 1 && arguments.command[0] == file_page::NAME {
        return out::print(file_page::page(version).as_bytes());
    }
    let mut command = &root;
    for word in &arguments.command {
        command = find(command, word)?;
    }
    out::print(page(&root, command).as_bytes())
}

/// Our command line, with every subcommand's full name.
fn built() -> Command {
    // The page about `help` would say nothing; every page says what its subcommand does.
    let mut root = cli::command().disable_help_subcommand(true);
    root.build();
    root
}

fn find<'a>(command: &'a Command, word: &str) -> Result<&'a Command, CliError> {
    command.find_subcommand(word).ok_or_else(|| {
        let known: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        let word = crate::escape::line(word.as_bytes());
        let name = command.get_bin_name().unwrap_or("stockade");
        let text = if known.is_empty() {
            format!("`{name}` has no subcommands, so no page about `{word}`")
        } else {
            format!("`{name}` has no subcommand `{word}`; there are: {}", known.join(", "))
        };
        CliError::Asked(text)
    })
}

/// A page is found only in the directory of its section.
fn write_all(root: &Command, directory: &Path) -> io::Result<()> {
    let (commands, files) = (directory.join("man1"), directory.join("man5"));
    fs::create_dir_all(&commands)?;
    fs::create_dir_all(&files)?;
    let version = root.get_version().unwrap_or_default();
    fs::write(files.join(format!("{}.5", file_page::NAME)), file_page::page(version))?;
    every(root).into_iter().try_for_each(|command| {
        fs::write(commands.join(format!("{}.1", name_of(command))), page(root, command))
    })
}

/// A command and all below it.
fn every(command: &Command) -> Vec<&Command> {
    std::iter::once(command).chain(command.get_subcommands().flat_map(every)).collect()
}

/// `stockade-policy-explain`.
fn name_of(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// A page.
fn page(root: &Command, command: &Command) -> String {
    let release = format!("stockade {}", root.get_version().unwrap_or_default());
    let generated =
        Man::new(command.clone()).title(name_of(command).to_uppercase()).source(release).manual("Stockade");
    let mut text = Vec::new();
    // A vector takes whatever is written.
    let _written = generated
        .render_title(&mut text)
        .and_then(|()| generated.render_name_section(&mut text))
        .and_then(|()| generated.render_synopsis_section(&mut text))
        .and_then(|()| generated.render_description_section(&mut text))
        .and_then(|()| generated.render_options_section(&mut text));
    if command.has_subcommands() {
        let _written = generated.render_subcommands_section(&mut text);
    }
    let mut page = String::from_utf8_lossy(&text).into_owned();
    page.push_str(&ours(root, command));
    page
}

/// The sections that we make ourselves.
fn ours(root: &Command, command: &Command) -> String {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let mut roff = Roff::new();
    let mut status = EXIT_STATUS.to_owned();
    for paragraph in help.split("\n\n") {
        if let Some(lines) = paragraph.strip_prefix("Examples:\n") {
            roff.control("SH", ["EXAMPLES"]);
            roff.control("EX", []);
            for line in lines.lines() {
                roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
            }
            roff.control("EE", []);
        } else if let Some(text) = paragraph.strip_prefix("Exit status: ") {
            status = text.replace('\n', " ");
        } else if let Some((title, text)) =
            paragraph.split_once(": ").filter(|(title, _)| !title.contains(' '))
        {
            section(&mut roff, &title.to_uppercase(), &text.replace('\n', " "));
        }
    }
    section(&mut roff, "EXIT STATUS", &status);
    rows(&mut roff, "FILES", FILES, command);
    rows(&mut roff, "ENVIRONMENT", ENVIRONMENT, command);
    section(&mut roff, "SEE ALSO", &see_also(root, command));
    roff.render()
}

fn section(roff: &mut Roff, title: &str, text: &str) {
    roff.control("SH", [title]);
    roff.text([roman(text)]);
}

fn rows(roff: &mut Roff, title: &str, rows: &[Row], command: &Command) {
    // `stockade-policy-explain` is about what `policy` is about.
    let about = name_of(command).split('-').nth(1);
    let here: Vec<&Row> =
        rows.iter().filter(|(_, _, pages)| about.is_none_or(|about| pages.contains(&about))).collect();
    if here.is_empty() {
        return;
    }
    roff.control("SH", [title]);
    for (name, text, _) in here {
        roff.control("TP", []);
        roff.text([bold(*name)]);
        roff.text([roman(*text)]);
    }
}

/// The page above, and those below.
fn see_also(root: &Command, command: &Command) -> String {
    let name = name_of(command);
    let above =
        every(root).into_iter().filter(|other| other.get_subcommands().any(|below| name_of(below) == name));
    let pages = above.chain(command.get_subcommands()).map(|other| format!("{}(1)", name_of(other)));
    pages.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a reader sees it: the roff language has its own way to write a dash.
    fn plain(root: &Command, command: &Command) -> String {
        page(root, command).replace("\\-", "-")
    }

    #[test]
    fn every_page_names_every_option_of_its_subcommand() {
        let root = built();
        assert!(every(&root).len() > 12);
        for command in every(&root) {
            let page = plain(&root, command);
            for argument in command.get_arguments() {
                let long = argument.get_long().map(|long| format!("--{long}"));
                let short = argument.get_short().map(|short| format!("-{short}"));
                for name in long.iter().chain(&short) {
                    assert!(page.contains(name), "{}: {name}", name_of(command));
                }
            }
        }
    }

    #[test]
    fn every_page_has_its_sections() {
        let root = built();
        for command in every(&root) {
            let page = plain(&root, command);
            let examples = command.get_after_help().map(|_| "EXAMPLES");
            for title in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "\"EXIT STATUS\"", "\"SEE ALSO\""]
                .into_iter()
                .chain(examples)
            {
                assert!(page.contains(&format!("\n.SH {title}\n")), "{}: {title}\n{page}", name_of(command));
            }
        }
    }

    #[test]
    fn a_page_names_the_files_and_variables_of_its_subcommand() {
        let root = built();
        let run = plain(&root, find(&root, "run").unwrap());
        assert!(run.contains("/etc/stockade/policies/") && run.contains("STOCKADE_SOCKET"));
        assert!(!run.contains("STOCKADE_LOG"));
        let explain = find(find(&root, "policy").unwrap(), "explain").unwrap();
        assert!(plain(&root, explain).contains("/etc/stockade/policies/"));
        let all = plain(&root, &root);
        for (name, _, pages) in FILES.iter().chain(ENVIRONMENT) {
            assert!(all.contains(name), "{name}");
            for page in *pages {
                assert!(plain(&root, find(&root, page).unwrap()).contains(name), "{page}: {name}");
            }
        }
    }

    #[test]
    fn all_pages_are_written_with_their_sections() {
        let directory = tempfile::tempdir().unwrap();
        write_all(&built(), directory.path()).unwrap();
        for name in ["man1/stockade.1", "man1/stockade-config-check.1", "man5/stockade.toml.5"] {
            let text = fs::read_to_string(directory.path().join(name)).unwrap();
            assert!(text.contains("\n.SH NAME\n"), "{name}");
        }
    }

    /// What our help says behind its options arrives on the page, whatever a line begins with.
    #[test]
    fn a_page_has_the_examples_and_the_status_of_its_help() {
        let root = built();
        let run = plain(&root, find(&root, "run").unwrap());
        assert!(run.contains("stockade run --policy build"), "{run}");
        assert!(run.contains("137 over its memory; 126 found but not executable"), "{run}");
        assert!(plain(&root, find(&root, "serve").unwrap()).contains("\n.SH SIGNALS\nSIGHUP"));
    }

    #[test]
    fn an_unknown_subcommand_is_named_with_those_there_are() {
        let root = built();
        let told = |command, word| find(command, word).unwrap_err().to_string();
        assert!(told(&root, "rnu").contains("attach, logs"), "{}", told(&root, "rnu"));
        assert!(told(find(&root, "run").unwrap(), "x").contains("has no subcommands"));
    }
}
