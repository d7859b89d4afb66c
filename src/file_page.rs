//! The manual's page about the configuration's files, stockade.toml(5): from the same description that reads them.

use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use stockade_supervisor::config::{Configuration, Key, When, Whose, tables};

/// The page's name, without its section.
pub(crate) const NAME: &str = "stockade.toml";

const FILES: [(&str, &str); 4] = [
    ("/etc/stockade/stockade.toml", "The configuration of root's daemon."),
    ("/etc/stockade/stockade.d/*.toml", "More of it, sorted by their names: each over those before it."),
    (
        "~/.config/stockade/stockade.toml",
        "The configuration of a user's own daemon; in $XDG_CONFIG_HOME where that is set.",
    ),
    ("~/.config/stockade/stockade.d/*.toml", "More of it."),
];

const DESCRIPTION: [&str; 3] = [
    "What a daemon, stockade serve, is told by files. They are TOML, with the tables and keys below; a key that isn't here is \
     an error, and so is a value without its unit. A file of the directory stockade.d wins over stockade.toml and over files \
     before it in the alphabet; a variable or an option of the command line wins over all files.",
    "Each file must belong to root or to the daemon's user, and nobody else may write to it, nor to a directory on the way to \
     it. A symbolic link is followed within its directory only.",
    "The daemon reads its configuration when it starts, and again, together with the policies, on SIGHUP: all or nothing. If \
     anything is wrong, the log says what, and all stays as it was.",
];

const EXAMPLE: &str = "[daemon]
group = \"agents\"

[runs]
slots = 64
retention = \"1h\"

[connections]
memory = \"256MiB\"";

/// When a daemon that runs takes up another value of a key.
pub(crate) fn taken_up(key: &Key) -> &'static str {
    match key.when {
        When::Reload => "at a reload",
        When::Restart => "at a restart",
    }
}

/// The page.
pub(crate) fn page(version: &str) -> String {
    let mut roff = Roff::new();
    roff.control("TH", ["stockade.toml", "5", "", &format!("stockade {version}"), "Stockade"]);
    section(&mut roff, "NAME", [roman("stockade.toml - the configuration of stockade's daemon")]);
    roff.control("SH", ["SYNOPSIS"]);
    FILES.iter().for_each(|(path, _)| {
        roff.text([italic(*path)]);
        roff.control("br", []);
    });
    roff.control("SH", ["DESCRIPTION"]);
    for paragraph in DESCRIPTION {
        roff.control("PP", []);
        roff.text([roman(paragraph)]);
    }
    let defaults = Configuration::default();
    for table in tables() {
        section(&mut roff, table.title, [roman(joined(table.about))]);
        for key in table.keys {
            roff.control("TP", []);
            roff.text([bold(key.name), roman(" = "), italic((key.toml)(&defaults))]);
            let whose = if key.whose == Whose::Roots { "Root's daemon only. " } else { "" };
            let text = format!(
                "{} {whose}Expected: {}. Taken up {}.",
                joined(key.about),
                (key.expected)(),
                taken_up(key)
            );
            roff.text([roman(text)]);
        }
    }
    roff.control("SH", ["EXAMPLES"]);
    roff.control("EX", []);
    EXAMPLE.lines().for_each(|line| {
        roff.text([roman(line)]);
    });
    roff.control("EE", []);
    roff.control("SH", ["FILES"]);
    for (path, text) in FILES {
        roff.control("TP", []);
        roff.text([bold(path)]);
        roff.text([roman(text)]);
    }
    section(&mut roff, "SEE ALSO", [roman("stockade-config(1), stockade-serve(1)")]);
    roff.render()
}

fn section<const N: usize>(roff: &mut Roff, title: &str, text: [Inline; N]) {
    roff.control("SH", [title]);
    roff.text(text);
}

fn joined(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use stockade_supervisor::config::{Configured, Text, keys};

    use super::*;

    #[test]
    fn the_page_has_every_table_and_key_with_its_default() {
        let page = page("1").replace("\\-", "-").replace("\\&", "");
        let defaults = Configuration::default();
        for table in tables() {
            assert!(page.contains(&format!("\n.SH {}\n", table.title)), "{page}");
        }
        for key in keys() {
            let line = format!("\\fB{}\\fR = \\fI{}\\fR", key.name, (key.toml)(&defaults));
            assert!(page.contains(&line), "{line}\n{page}");
        }
    }

    #[test]
    fn the_pages_example_is_a_configuration() {
        let text = Text { file: "example".into(), text: EXAMPLE.into() };
        Configured::of_texts(&[text]).unwrap();
    }
}
