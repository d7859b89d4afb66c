//! Forms of secrets, by name: those that are known everywhere, and an operator's. Read from text like every other file.

use std::collections::BTreeSet;

use stockade_policies::reader::{self, Known, Section};
use stockade_policies::{Located, Mistake, Position, Problem};

use crate::redact::finder::Finder;
use crate::redact::pattern::{MAX_SPAN, Pattern, PatternError};

/// Forms that are known everywhere: names of tokens, each with its source and cases.
const SHIPPED: &str = include_str!("forms.toml");
/// An operator's file, in the directory of configuration.
pub const FILE: &str = "redact.toml";
/// All tables together, in bytes.
const MAX_TABLES: usize = 64 * 1024 * 1024;

const FORMS: Known<'_> = Known {
    key: "forms",
    name: "[forms.NAME]",
    keys: &["source", "pattern", "longest", "matches", "misses"],
};

/// What a file is called where something is wrong with it, and its keys.
const ROOT: (&str, &[&str]) = ("the file", &["by-default", "forms"]);

/// A file's text.
#[derive(Debug, Clone, Copy)]
struct Text<'a> {
    file: &'a str,
    text: &'a str,
    /// Its forms' cases are tried.
    is_tried: bool,
}

/// A test tries the shipped ones' cases; a daemon's start needn't wait for that.
const KNOWN: Text<'static> = Text { file: "forms.toml", text: SHIPPED, is_tried: false };

/// A form.
#[derive(Debug, Clone)]
pub(super) struct Form {
    pub(super) name: String,
    pub(super) pattern: Pattern,
}

/// All forms that are looked for, made once and shared by all runs.
#[derive(Debug, Clone)]
pub struct Forms {
    pub(super) forms: Vec<Form>,
    pub(super) finder: Finder,
    /// Whether the operator has it that output is redacted where a policy doesn't say.
    pub(super) by_default: bool,
}

impl Forms {
    /// None: only a run's own values are looked for.
    #[must_use]
    pub fn none() -> Self {
        Self { forms: Vec::new(), finder: Finder::default(), by_default: false }
    }

    /// Those that are known everywhere.
    ///
    /// # Errors
    /// Never: a test holds it.
    pub fn shipped() -> Result<Self, Vec<Mistake>> {
        Self::read(&[KNOWN])
    }

    /// The same, and their cases are tried.
    #[cfg(test)]
    pub(super) fn shipped_and_tried() -> Result<Self, Vec<Mistake>> {
        Self::read(&[Text { is_tried: true, ..KNOWN }])
    }

    /// Those that are known everywhere, and an operator's, which take the place of known ones of the same name. `file`: as errors
    /// name it.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn with(file: &str, text: &str) -> Result<Self, Vec<Mistake>> {
        Self::read(&[Text { file, text, is_tried: true }, KNOWN])
    }

    /// The same, of several files: earlier ones' forms take the place of later ones'.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn with_all(texts: &[(String, String)]) -> Result<Self, Vec<Mistake>> {
        let own = texts.iter().map(|(file, text)| Text { file, text, is_tried: true });
        Self::read(&own.chain([KNOWN]).collect::<Vec<_>>())
    }

    /// What a file says of policies that don't, and nothing else of it: the whole of it is read when something is looked for.
    ///
    /// # Errors
    /// It isn't TOML, or it's said in another way.
    pub fn default_of(file: &str, text: &str) -> Result<bool, Vec<Mistake>> {
        let (mut mistakes, mut by_default) = (Vec::new(), false);
        reader::document((file, text), ROOT, &mut mistakes, |root, mistakes| {
            by_default = states_default(root, mistakes);
        });
        if mistakes.is_empty() { Ok(by_default) } else { Err(mistakes) }
    }

    /// Earlier texts' forms take the place of later ones'.
    fn read(texts: &[Text<'_>]) -> Result<Self, Vec<Mistake>> {
        let mut forms: Vec<Form> = Vec::new();
        let mut mistakes = Vec::new();
        let mut named = BTreeSet::new();
        let (mut tables, mut by_default) = (0, false);
        for text in texts {
            let source = (text.file, text.text);
            reader::document(source, ROOT, &mut mistakes, |root, mistakes| {
                by_default |= states_default(root, mistakes);
                for (name, section) in root.named(&FORMS, mistakes) {
                    if !named.insert(name.value.clone()) {
                        continue;
                    }
                    let Some(pattern) = form(&name, &section, mistakes) else { continue };
                    if text.is_tried {
                        cases(&pattern, &section, mistakes);
                    }
                    tables += pattern.size();
                    forms.push(Form { name: name.value, pattern });
                    if tables > MAX_TABLES {
                        let what = "the bytes of all tables".into();
                        let problem = Problem::TooLarge { what, count: tables, limit: MAX_TABLES };
                        mistakes.push(Mistake::new(&name.at, problem));
                        break;
                    }
                }
            });
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let mut finder = Finder::default();
        for (number, form) in forms.iter().enumerate() {
            for beginning in &form.pattern.beginnings {
                finder.add(beginning, number);
            }
        }
        Ok(Self { forms, finder, by_default })
    }

    /// Whether the operator has it that output is redacted where a policy doesn't say.
    #[must_use]
    pub fn by_default(&self) -> bool {
        self.by_default
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.forms.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }
}

fn states_default(root: &Section<'_>, mistakes: &mut Vec<Mistake>) -> bool {
    root.truth("by-default")
        .unwrap_or_else(|mistake| {
            mistakes.push(mistake);
            None
        })
        .is_some_and(|stated| stated.value)
}

fn form(name: &Located<String>, section: &Section<'_>, mistakes: &mut Vec<Mistake>) -> Option<Pattern> {
    let expected = "a pattern whose length is bounded, as in 'acme-[a-z0-9]{32}'";
    let most = u64::try_from(MAX_SPAN).unwrap_or(u64::MAX);
    let longest = section.number("longest", 1, most).unwrap_or_else(|mistake| {
        mistakes.push(mistake);
        None
    });
    let longest = longest.and_then(|longest| usize::try_from(longest.value).ok());
    let read = section.text("pattern", expected, |text| {
        Pattern::new(text, longest).map_err(|error: PatternError| error.to_string())
    });
    for key in ["matches", "misses", "source"] {
        let wrong = match key {
            "source" => section.text(key, "where it's said", |text| Ok(text.to_owned())).err(),
            _ => section.list(key, "a text", |text| Ok(text.to_owned()), ToOwned::to_owned).err(),
        };
        mistakes.extend(wrong);
    }
    let mistake = match read {
        Ok(Some(pattern)) => return Some(pattern.value),
        Ok(None) => missing(&name.at, expected),
        Err(mistake) => mistake,
    };
    mistakes.push(mistake);
    None
}

/// What must match does, and what mustn't doesn't: an operator's own cases are tried whenever his file is read.
fn cases(pattern: &Pattern, section: &Section<'_>, mistakes: &mut Vec<Mistake>) {
    for (key, wanted) in [("matches", true), ("misses", false)] {
        let texts = section.list(key, "a text", |text| Ok(text.to_owned()), ToOwned::to_owned);
        for text in texts.ok().flatten().unwrap_or_default() {
            if found(pattern, expanded(&text.value).as_bytes()) != wanted {
                let reason = if wanted {
                    "the pattern finds nothing in it"
                } else {
                    "the pattern finds something in it"
                };
                let expected = if wanted { "a text with a match" } else { "a text without" }.into();
                let problem = Problem::Value { key: key.into(), reason: reason.into(), expected };
                mistakes.push(Mistake::new(&text.at, problem));
            }
        }
    }
}

/// Whether it's anywhere in a text.
fn found(pattern: &Pattern, text: &[u8]) -> bool {
    (0..text.len()).any(|at| {
        let before = at.checked_sub(1).map(|before| text[before]);
        let taken = pattern.start(before).map(|start| pattern.take(start, &text[at..]));
        taken.is_some_and(|taken| taken.end.is_some() || taken.at.is_some_and(|at| pattern.ends(at)))
    })
}

/// A case's text, with characters in the place of `<36>` and its like: see the file.
pub(super) fn expanded(text: &str) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('<') {
        expanded.push_str(before);
        match behind.split_once('>').and_then(|(word, behind)| Some((some(word)?, behind))) {
            Some((characters, behind)) => {
                expanded.push_str(&characters);
                rest = behind;
            }
            None => {
                expanded.push('<');
                rest = behind;
            }
        }
    }
    expanded + rest
}

/// So many characters of a kind.
fn some(word: &str) -> Option<String> {
    let (count, kind) = word.split_once(':').unwrap_or((word, ""));
    let characters = match kind {
        "" => "aB3dE5gH7jK9mN1pQ2sT4vW6xY8z",
        "hex" => "0a1b2c3d4e5f6789",
        "upper" => "A2BC3DE4FG5HJ6KM7",
        "lower" => "abcdefghijkmnpqrst",
        "digit" => "1928374650",
        _ => return None,
    };
    let count: usize = count.parse().ok().filter(|count| *count <= 4_096)?;
    Some(characters.chars().cycle().take(count).collect())
}

fn missing(at: &Position, expected: &str) -> Mistake {
    let reason = "it isn't there".into();
    Mistake::new(at, Problem::Value { key: "pattern".into(), reason, expected: expected.into() })
}
