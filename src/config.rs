//! `stockade config`: what a daemon's configuration says, whether it is in order, and what could be in it.

use std::path::PathBuf;

use serde_json::{Value, json};
use stockade_supervisor::config::{Configured, Origin, default_text, keys};
use stockade_supervisor::paths::{Scope, Surroundings};

use crate::color::Paint;
use crate::error::CliError;
use crate::serve::Options;
use crate::{config_check, escape, json, out, sources, table};

const EXAMPLES: &str = "Examples:
  stockade config default > ~/.config/stockade/stockade.toml
  stockade config check
  stockade config check --system packaging/stockade.toml
  stockade config show
  stockade config show --effective --slots 8
  stockade config show --effective --json

Exit status: 0 in order; 1 something is wrong; 2 for a wrong command line.";

/// Shows and checks the daemon's configuration, and prints a commented one.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    subcommand: Subcommand,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    /// Checks files, or all that a reload would read, policies too: every error with file, line and column
    Check {
        /// Files of the configuration, each for itself [default: all that a daemon started now would read]
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        /// As root's daemon reads it
        #[arg(long)]
        system: bool,
        /// One JSON object a file: `errors` has each with its file, line, column, key and remedy
        #[arg(long)]
        json: bool,
    },
    /// What is configured, and by whom: a file and its line, a variable, an option
    Show {
        /// Every key: with defaults and the usual places, too; all that would hold in a daemon started now
        #[arg(long)]
        effective: bool,
        /// As root's daemon reads it
        #[arg(long)]
        system: bool,
        /// One JSON object a key
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        options: Box<Options>,
    },
    /// A file with every key, its meaning, its unit and its default, all of it commented out
    Default,
}

pub(crate) fn config(arguments: &Arguments) -> Result<u8, CliError> {
    match &arguments.subcommand {
        Subcommand::Check { files, system, json } => config_check::check(files, &whose(*system), *json),
        Subcommand::Show { effective, system, json, options } => {
            show(options, &whose(*system), *effective, *json)
        }
        Subcommand::Default => out::print(default_text().as_bytes()),
    }
}

fn whose(system: bool) -> Surroundings<'static> {
    let ours = sources::surroundings();
    if system { Surroundings { uid: 0, scope: Scope::Machine, ..ours } } else { ours }
}

/// A key, its value as a file says it, and who says so.
type Row = (&'static str, String, Origin);

fn show(
    options: &Options,
    surroundings: &Surroundings<'_>,
    effective: bool,
    as_json: bool,
) -> Result<u8, CliError> {
    let configured = options.sources(surroundings).load()?;
    let rows = rows(&configured, surroundings, effective);
    if as_json {
        let lines: Vec<u8> = rows.iter().flat_map(|row| json::line(&object(row))).collect();
        return out::print(&lines);
    }
    let head = ["KEY", "VALUE", "FROM"].map(str::to_owned);
    let cells = |(key, value, origin): &Row| {
        [(*key).to_owned(), escape::line(value.as_bytes()), escape::line(origin.to_string().as_bytes())]
    };
    let rows: Vec<_> = std::iter::once(head).chain(rows.iter().map(cells)).collect();
    let paint = Paint::to(&std::io::stdout());
    let text =
        table::columns(&rows, |row, _, cell| if row == 0 { paint.bold(cell) } else { cell.to_owned() });
    out::print(text.as_bytes())
}

/// What somebody says; or with `effective` every key, at the places that it comes to.
fn rows(configured: &Configured, surroundings: &Surroundings<'_>, effective: bool) -> Vec<Row> {
    let mut values = configured.values.clone();
    if effective {
        values = values.settled(surroundings);
        let usual = surroundings.policies().into_iter().map(|(path, _)| path);
        values.daemon.policies =
            usual.chain(values.daemon.policies.paths().iter().cloned()).collect::<Vec<_>>().into();
    }
    keys()
        .map(|key| (key.path, (key.toml)(&values), configured.origin(key)))
        .filter(|(_, _, origin)| effective || *origin != Origin::Default)
        .collect()
}

fn object((key, value, origin): &Row) -> Value {
    // What we write as TOML of a number, a text or a list is JSON, too.
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.clone()));
    let mut object = json!({ "key": key, "value": value, "from": origin.to_string() });
    if let Origin::File(at) = origin {
        object["file"] = json!(&*at.file);
        object["line"] = json!(at.line);
    }
    object
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::ffi::OsString;

    use clap::Parser;
    use stockade_supervisor::config::{Sources, Whose, tables};

    use super::*;
    use crate::file_page;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    const LINE: [&str; 21] = [
        "serve",
        "--socket",
        "/s",
        "--policies",
        "/a",
        "--policies",
        "/b",
        "--state-directory",
        "/t",
        "--launcher",
        "/l",
        "--slots",
        "3",
        "--queue",
        "4",
        "--parked",
        "5",
        "--grace",
        "6s",
        "--retention",
        "7m",
    ];

    fn of_a_user() -> Surroundings<'static> {
        Surroundings { variable: &|_| None, uid: 7, scope: Scope::User, home: "/home/me".into() }
    }

    /// Every option is a key of its own, under the name that `set` gives it.
    #[test]
    fn options_are_keys_and_say_who_they_are() {
        let options = Line::parse_from(LINE).options;
        let configured = options.sources(&of_a_user()).load().unwrap();
        let rows: Vec<_> = rows(&configured, &of_a_user(), false)
            .into_iter()
            .map(|(key, value, origin)| (key, value, origin.to_string()))
            .collect();
        let expected = [
            ("daemon.socket", "\"/s\"", "--socket"),
            ("daemon.policies", "[\"/a\", \"/b\"]", "--policies"),
            ("daemon.state-directory", "\"/t\"", "--state-directory"),
            ("daemon.launcher", "\"/l\"", "--launcher"),
            ("runs.slots", "3", "--slots"),
            ("runs.queue", "4", "--queue"),
            ("runs.parked", "5", "--parked"),
            ("runs.grace", "\"6s\"", "--grace"),
            ("runs.retention", "\"7m\"", "--retention"),
        ]
        .map(|(key, value, origin)| (key, value.to_owned(), origin.to_owned()));
        assert_eq!(rows, expected);
    }

    #[test]
    fn an_option_takes_what_its_key_takes_and_nothing_else() {
        for (option, text) in [
            ("--slots", "0"),
            ("--slots", "65537"),
            ("--queue", "-1"),
            ("--parked", "65"),
            ("--grace", "10"),
            ("--grace", "0s"),
            ("--retention", "400d"),
            ("--group", "a b"),
        ] {
            assert!(Line::try_parse_from(["serve", option, text]).is_err(), "{option} {text}");
        }
    }

    #[test]
    fn a_group_is_roots_daemons_on_the_command_line_too() {
        let options = Line::parse_from(["serve", "--group", "users"]).options;
        let error = options.sources(&of_a_user()).load().unwrap_err().to_string();
        assert!(error.starts_with("--group: `daemon.group` is for root's daemon"), "{error}");
        let root = Surroundings { uid: 0, scope: Scope::Machine, ..of_a_user() };
        let sources = Sources { directory: None, ..options.sources(&root) };
        assert_eq!(sources.load().unwrap().values.daemon.group.name(), Some("users"));
    }

    #[test]
    fn variables_win_over_files_and_options_over_variables() {
        let variable: &dyn Fn(&str) -> Option<OsString> = &|name| match name {
            "STOCKADE_SOCKET" => Some("/v".into()),
            "STOCKADE_LOG" => Some("warn,stockade_supervisor=debug".into()),
            _ => None,
        };
        let surroundings = Surroundings { variable, uid: 7, scope: Scope::User, home: "/home/me".into() };
        let said = |words: &[&str]| {
            let options = Line::parse_from(words).options;
            let configured = options.sources(&surroundings).load().unwrap();
            let rows = rows(&configured, &surroundings, false).into_iter();
            rows.map(|(key, value, origin)| format!("{key} {value} {origin}")).collect::<Vec<_>>()
        };
        let log = "log.level \"debug\" $STOCKADE_LOG";
        assert_eq!(said(&["serve"]), ["daemon.socket \"/v\" $STOCKADE_SOCKET", log]);
        assert_eq!(said(&["serve", "--socket", "/s"]), ["daemon.socket \"/s\" --socket", log]);
    }

    #[test]
    fn what_is_effective_names_every_key_and_the_usual_places() {
        let configured = Configured::default();
        let rows = rows(&configured, &of_a_user(), true);
        assert_eq!(rows.len(), keys().count());
        let value = |key| rows.iter().find(|(name, ..)| *name == key).unwrap().1.clone();
        assert_eq!(value("daemon.state-directory"), "\"/home/me/.local/state/stockade\"");
        assert_eq!(
            value("daemon.policies"),
            "[\"/etc/stockade/policies\", \"/home/me/.config/stockade/policies\"]"
        );
        assert!(super::rows(&configured, &of_a_user(), false).is_empty());
    }

    #[test]
    fn every_value_is_json_of_its_own_kind() {
        let configured = Configured::default();
        for row in rows(&configured, &of_a_user(), true) {
            let value = object(&row)["value"].clone();
            let is_text = row.1.starts_with('"');
            assert!(value.is_string() == is_text, "{row:?}: {value}");
            let is_other = value.is_array() || value.is_number() || value.is_boolean();
            assert!(is_text || is_other, "{row:?}: {value}");
        }
    }

    /// The document has a row for each key, with what belongs there, its default, and when it is taken up.
    #[test]
    fn the_document_has_every_key() {
        const DOCUMENT: &str = include_str!("../docs/configuration.md");
        let defaults = Configured::default();
        for table in tables() {
            let title = format!("## `{}`", table.title);
            assert!(DOCUMENT.contains(&title), "{title}");
            for key in table.keys {
                let about: Vec<&str> = key.about.iter().map(|line| line.trim()).collect();
                let when = file_page::taken_up(key);
                let whose = if key.whose == Whose::Roots { "Root's daemon only. " } else { "" };
                let row = format!(
                    "| `{}` | {whose}{} | {} | `{}` | {when} |",
                    key.name,
                    about.join(" "),
                    (key.expected)(),
                    (key.toml)(&defaults.values)
                );
                assert!(DOCUMENT.contains(&row), "docs/configuration.md lacks\n{row}");
            }
        }
    }
}
