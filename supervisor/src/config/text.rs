//! The default file: every key with what it means, what belongs there, and its default; all of it commented out.

use super::keys::{Configuration, Key, When, Whose, tables};

const HEAD: &str = "\
# The configuration of stockade's daemon: see stockade.toml(5).
#
# Every key is here with its default; what has no comment sign any more holds in its place. Files of the directory
# stockade.d beside this one come after it, sorted by their names, and win over it; so do options of the command line.
# Check with `stockade config check`; take up with a reload (SIGHUP). A key that says so takes a restart.
";

/// The text of the default file.
#[must_use]
pub fn default_text() -> String {
    let defaults = Configuration::default();
    let mut text = HEAD.to_owned();
    for table in tables() {
        text.push('\n');
        comment(&mut text, table.about);
        text.push_str(&format!("#{}\n", table.title));
        for key in table.keys {
            text.push('\n');
            comment(&mut text, key.about);
            text.push_str(&format!("# {}.\n", capital(&(key.expected)())));
            if let Some(note) = note(key) {
                text.push_str(&format!("# {note}\n"));
            }
            text.push_str(&format!("#{} = {}\n", key.name, (key.toml)(&defaults)));
        }
    }
    text
}

fn comment(text: &mut String, lines: &[&str]) {
    lines.iter().for_each(|line| text.push_str(&format!("#{line}\n")));
}

fn note(key: &Key) -> Option<&'static str> {
    match (key.when, key.whose) {
        (When::Restart, Whose::Roots) => Some("Root's daemon only; takes a restart."),
        (When::Restart, Whose::Anybodys) => Some("Takes a restart."),
        (When::Reload, Whose::Roots) => Some("Root's daemon only."),
        (When::Reload, Whose::Anybodys) => None,
    }
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(characters).collect()
}
