//! Reads tables of TOML with positions: every key must be known, every value has one expected form, and an error
//! says where it stands, what it is and what belongs there. It knows nothing of policies: the daemon's configuration
//! is read with it, too. What belongs there is put into words only for an error.

use core::fmt::Display;

use toml::de::DeTable;

use crate::error::{Mistake, Problem};
use crate::free::Free;
use crate::names::{POLICY_NAME_EXPECTED, policy_name};
use crate::nearest::probably_meant;
use crate::position::{Lines, Located, Position};
use crate::said::Said;
use crate::tree::{Entry, Table, Value};

/// The longest text, in bytes.
pub const MAX_TEXT: usize = 256 * 1024;
/// The most entries of one list or table.
pub(crate) const MAX_ENTRIES: usize = 1024;

/// A text's whole, as a table.
///
/// # Errors
/// It's too long, or not TOML.
pub(crate) fn whole<T, E: From<Mistake>>(
    lines: &Lines<'_>,
    take: impl FnOnce(Table<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let start = || lines.at(&(0..0));
    let count = lines.text().len();
    if count > MAX_TEXT {
        let problem = Problem::TooLarge { what: "the file's bytes".into(), count, limit: MAX_TEXT };
        return Err(Mistake::new(&start(), problem).into());
    }
    let root = DeTable::parse(lines.text()).map_err(|error| {
        let at = error.span().map_or_else(start, |span| lines.at(&span));
        Mistake::new(&at, Problem::Syntax(shown(error.message())))
    })?;
    take(Table::Read(lines, root.get_ref()))
}

/// A table that a text may have.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Its key.
    pub key: &'a str,
    /// As a person would say it: `[runs]`.
    pub name: &'static str,
    /// The keys that it may have.
    pub keys: &'a [&'static str],
}

/// Reads a text that has tables only, these, and gives each that is there to `take`. Tables and keys that aren't known
/// are among the mistakes; what else is wrong `take` puts there, too. In the order of the text, at the end.
pub fn tables(
    (file, text): (&str, &str),
    (name, known): (&'static str, &[Known<'_>]),
    mistakes: &mut Vec<Mistake>,
    mut take: impl FnMut(&Known<'_>, &Section<'_>, &mut Vec<Mistake>),
) {
    let names: Vec<&str> = known.iter().map(|table| table.key).collect();
    document((file, text), (name, &names), mistakes, |root, mistakes| {
        for table in known {
            if let Some(section) = root.table(table, mistakes) {
                take(table, &section, mistakes);
            }
        }
    });
}

/// Reads a text of these keys, and gives its whole to `take`. Keys that aren't known are among the mistakes; what else is
/// wrong `take` puts there, too. In the order of the text, at the end.
pub fn document(
    (file, text): (&str, &str),
    (name, known): (&'static str, &[&str]),
    mistakes: &mut Vec<Mistake>,
    take: impl FnOnce(&Section<'_>, &mut Vec<Mistake>),
) {
    let file = Said::from(file);
    let read = whole(&Lines::new(&file, text), |root| {
        let root = Section { name, start: root.start(), entries: root.entries() };
        mistakes.extend(Section::unknown(name, &root.entries, known));
        take(&root, mistakes);
        Ok::<_, Mistake>(())
    });
    mistakes.extend(read.err());
    mistakes.sort_by_key(|mistake| (mistake.at.line, mistake.at.column));
}

/// One table, whose keys are all known.
pub struct Section<'a> {
    name: &'static str,
    /// Where it begins: at its header, or where its text does.
    start: Position,
    entries: Vec<Entry<'a>>,
}

impl<'a> Section<'a> {
    /// Takes a table in, if it has no key but these. `name` is as a person would say it: `[limits]`.
    pub(crate) fn new(name: &'static str, table: Table<'a>, known: &[&str]) -> Result<Self, Mistake> {
        let entries = table.entries();
        match Self::unknown(name, &entries, known).into_iter().next() {
            Some(mistake) => Err(mistake),
            None => Ok(Self { name, start: table.start(), entries }),
        }
    }

    /// The keys that aren't known, in the order of the text, not of the alphabet.
    fn unknown(name: &str, entries: &[Entry<'_>], known: &[&str]) -> Vec<Mistake> {
        let unknown = entries.iter().filter(|entry| !known.contains(&entry.key));
        let mut mistakes: Vec<Mistake> = unknown
            .map(|entry| {
                let suggestion = match probably_meant(entry.key, known.iter().copied()) {
                    Some(name) => format!("; did you mean `{name}`?"),
                    None => format!("; there are: {}", known.join(", ")),
                };
                let problem = Problem::UnknownKey { key: shown(entry.key), section: name.into(), suggestion };
                Mistake::new(&entry.at(), problem)
            })
            .collect();
        mistakes.sort_by_key(|mistake| (mistake.at.line, mistake.at.column));
        mistakes
    }

    /// Where it begins: for what it should have and hasn't.
    #[must_use]
    pub fn start(&self) -> Position {
        self.start.clone()
    }

    /// A table below this one, if it's there and is one. What is wrong with it and its keys is among the mistakes.
    pub fn table(&self, known: &Known<'_>, mistakes: &mut Vec<Mistake>) -> Option<Section<'a>> {
        let value = self.value(known.key)?;
        let Some(found) = value.as_table() else {
            mistakes.push(self.wrong_type(known.key, value, "a table"));
            return None;
        };
        let section = Section { name: known.name, start: value.at(), entries: found.entries() };
        mistakes.extend(Self::unknown(known.name, &section.entries, known.keys));
        Some(section)
    }

    /// The tables below a table of this one, each with the name that its author gave it, in the order of the text. `known`
    /// is what each of them may have; its name is said of each of them: `[tools.NAME]`.
    pub fn named(
        &self,
        known: &Known<'_>,
        mistakes: &mut Vec<Mistake>,
    ) -> Vec<(Located<String>, Section<'a>)> {
        let Some(value) = self.value(known.key) else { return Vec::new() };
        let Some(table) = value.as_table() else {
            mistakes.push(self.wrong_type(known.key, value, "a table of tables"));
            return Vec::new();
        };
        let entries = table.entries();
        if let Err(mistake) = bounded(known.key, entries.len(), value) {
            mistakes.push(mistake);
            return Vec::new();
        }
        let mut named = Vec::with_capacity(entries.len());
        for entry in entries {
            let parse =
                |text: &str| policy_name(text).map_err(|reason| reason.replace("no policy name", "no name"));
            match parse_at(known.key, POLICY_NAME_EXPECTED, entry.key, entry.at(), parse) {
                Ok(name) => {
                    let below = Section { name: known.name, start: entry.at(), entries: vec![entry] };
                    let known = Known { key: &name.value, ..*known };
                    named.extend(below.table(&known, mistakes).map(|section| (name, section)));
                }
                Err(mistake) => mistakes.push(mistake),
            }
        }
        named.sort_by(|(one, _), (other, _)| one.at.cmp(&other.at));
        named
    }

    /// Where a key's value stands, if it's there.
    #[must_use]
    pub fn at(&self, key: &str) -> Option<Position> {
        self.value(key).map(Value::at)
    }

    fn value(&self, key: &str) -> Option<Value<'a>> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| entry.value)
    }

    /// A table below this one. What is wrong with it is among the mistakes.
    pub fn below(
        &self,
        key: &str,
        name: &'static str,
        known: &[&str],
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Section<'a>> {
        let value = self.value(key)?;
        let Some(table) = value.as_table() else {
            mistakes.push(self.wrong_type(key, value, "a table"));
            return None;
        };
        let section = Section { name, start: value.at(), entries: table.entries() };
        mistakes.extend(Section::unknown(name, &section.entries, known));
        Some(section)
    }

    /// Tables below this one, `[[key]]`, each with its place. What is wrong with them is among the mistakes.
    pub fn each(
        &self,
        key: &str,
        name: &'static str,
        known: &[&str],
        mistakes: &mut Vec<Mistake>,
    ) -> Vec<(Section<'a>, Position)> {
        let tables = self.elements(key, "tables", |element| {
            let table = element.as_table().ok_or_else(|| self.wrong_type(key, element, "a table"))?;
            Ok((Section { name, start: element.at(), entries: table.entries() }, element.at()))
        });
        let tables = tables.unwrap_or_else(|mistake| {
            mistakes.push(mistake);
            None
        });
        let tables = tables.unwrap_or_default();
        for (table, _) in &tables {
            mistakes.extend(Section::unknown(name, &table.entries, known));
        }
        tables
    }

    /// A value of any shape.
    ///
    /// # Errors
    /// What in it can't be.
    pub fn free(&self, key: &str) -> Result<Option<Located<Free>>, Mistake> {
        self.value(key).map(|value| Free::of(key, value)).transpose()
    }

    /// A table below this one.
    pub(crate) fn section(
        &self,
        key: &str,
        name: &'static str,
        known: &[&str],
    ) -> Result<Option<Section<'a>>, Mistake> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let table = value.as_table().ok_or_else(|| self.wrong_type(key, value, "a table"))?;
        Section::new(name, table, known).map(Some)
    }

    /// A text that `parse` understands.
    ///
    /// # Errors
    /// What stands there instead.
    pub fn text<T>(
        &self,
        key: &str,
        expected: impl Display + Copy,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<Located<T>>, Mistake> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let text = value.as_text().ok_or_else(|| self.wrong_type(key, value, expected))?;
        parse_at(key, expected, text, value.at(), parse).map(Some)
    }

    /// A whole number from `lowest` to `highest`.
    ///
    /// # Errors
    /// What stands there instead.
    pub fn number(&self, key: &str, lowest: u64, highest: u64) -> Result<Option<Located<u64>>, Mistake> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let expected = format_args!("a whole number from {lowest} to {highest}");
        let number = value.as_number().ok_or_else(|| self.wrong_type(key, value, expected))?;
        let at = value.at();
        if (lowest..=highest).contains(&number) {
            return Ok(Some(Located::new(number, at)));
        }
        let (reason, expected) = (format!("{number} is out of range"), expected.to_string());
        Err(Mistake::new(&at, Problem::Value { key: key.into(), reason, expected }))
    }

    /// A key that is true or false, if it's there.
    ///
    /// # Errors
    /// It's something else.
    pub fn truth(&self, key: &str) -> Result<Option<Located<bool>>, Mistake> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let truth = value.as_truth().ok_or_else(|| self.wrong_type(key, value, "true or false"))?;
        Ok(Some(Located::new(truth, value.at())))
    }

    /// A text that `parse` understands, or the number 0, which needs no unit.
    pub(crate) fn text_or_zero<T>(
        &self,
        key: &str,
        expected: impl Display + Copy,
        zero: T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<Located<T>>, Mistake> {
        match self.value(key) {
            Some(value) if value.as_number() == Some(0) => Ok(Some(Located::new(zero, value.at()))),
            _ => self.text(key, expected, parse),
        }
    }

    /// A list of texts. Present and empty is something else than absent. `built` is `parse` for a shipped policy's, in
    /// which nothing is wrong.
    ///
    /// # Errors
    /// What stands there instead.
    pub fn list<T>(
        &self,
        key: &str,
        expected: impl Display + Copy,
        parse: impl Fn(&str) -> Result<T, String>,
        built: impl Fn(&'static str) -> T,
    ) -> Result<Option<Vec<Located<T>>>, Mistake> {
        self.elements(key, expected, |element| {
            if let Some(text) = element.as_built_text() {
                return Ok(Located::new(built(text), element.at()));
            }
            let text = element.as_text().ok_or_else(|| self.wrong_type(key, element, expected))?;
            parse_at(key, expected, text, element.at(), &parse)
        })
    }

    /// A list of whole numbers, or one word instead of it.
    pub(crate) fn numbers_or<T>(
        &self,
        key: &str,
        word: (&str, T),
        (lowest, highest): (u64, u64),
        list: impl Fn(Vec<u64>) -> T,
    ) -> Result<Option<Located<T>>, Mistake> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let (at, (word, of_word)) = (value.at(), word);
        let expected = format!("a list of whole numbers from {lowest} to {highest}, or \"{word}\"");
        if value.as_text() == Some(word) {
            return Ok(Some(Located::new(of_word, at)));
        }
        if value.as_text().is_some() {
            let reason = "no other word stands here".into();
            return Err(Mistake::new(&at, Problem::Value { key: key.into(), reason, expected }));
        }
        let numbers = self.elements(key, &expected, |element| {
            let number = element.as_number().ok_or_else(|| self.wrong_type(key, element, &expected))?;
            if (lowest..=highest).contains(&number) {
                return Ok(number);
            }
            let reason = format!("{number} is out of range");
            let problem = Problem::Value { key: key.into(), reason, expected: expected.clone() };
            Err(Mistake::new(&element.at(), problem))
        })?;
        Ok(numbers.map(|numbers| Located::new(list(numbers), at)))
    }

    fn elements<T>(
        &self,
        key: &str,
        expected: impl Display + Copy,
        element: impl Fn(Value<'a>) -> Result<T, Mistake>,
    ) -> Result<Option<Vec<T>>, Mistake> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let list =
            value.as_list().ok_or_else(|| self.wrong_type(key, value, format_args!("a list: {expected}")))?;
        bounded(key, list.len(), value)?;
        let mut read = Vec::with_capacity(list.len());
        for one in list {
            read.push(element(one)?);
        }
        Ok(Some(read))
    }

    /// A table of texts: every name that `name` understands, with its value.
    pub(crate) fn texts<N>(
        &self,
        key: &str,
        expected: impl Display + Copy,
        name: impl Fn(&str) -> Result<N, String>,
    ) -> Result<Vec<(N, Located<String>)>, Mistake> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let table = value.as_table().ok_or_else(|| self.wrong_type(key, value, expected))?;
        let texts = table.entries();
        bounded(key, texts.len(), value)?;
        let mut entries = Vec::with_capacity(texts.len());
        for entry in texts {
            let named = parse_at(key, expected, entry.key, entry.at(), &name)?;
            let wrong = || self.wrong_type(key, entry.value, expected);
            let text = entry.value.as_text().ok_or_else(wrong)?;
            entries.push((named.value, Located::new(text.to_owned(), entry.value.at())));
        }
        Ok(entries)
    }

    fn wrong_type(&self, key: &str, value: Value<'_>, expected: impl Display) -> Mistake {
        let key = if self.name.starts_with('[') { format!("{} {key}", self.name) } else { key.into() };
        let problem = Problem::Type { key, found: value.kind(), expected: expected.to_string() };
        Mistake::new(&value.at(), problem)
    }
}

fn parse_at<T>(
    key: &str,
    expected: impl Display,
    text: &str,
    at: Position,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Located<T>, Mistake> {
    match parse(text) {
        Ok(value) => Ok(Located::new(value, at)),
        Err(reason) => Err(Mistake::new(
            &at,
            Problem::Value { key: key.into(), reason: shown(&reason), expected: expected.to_string() },
        )),
    }
}

fn bounded(key: &str, count: usize, value: Value<'_>) -> Result<(), Mistake> {
    if count <= MAX_ENTRIES {
        return Ok(());
    }
    let problem = Problem::TooLarge { what: format!("`{key}`"), count, limit: MAX_ENTRIES };
    Err(Mistake::new(&value.at(), problem))
}

/// Text of a file in a message: no control characters, not without end.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 400;
    let mut safe: String = text
        .chars()
        .take(LONGEST)
        .flat_map(|character| {
            let escaped = if character.is_control() {
                character.escape_default().collect::<String>()
            } else {
                character.into()
            };
            escaped.chars().collect::<Vec<_>>()
        })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        safe.push('…');
    }
    safe
}
