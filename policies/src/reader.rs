//! Reads tables of TOML with positions: every key must be known, every value has one expected form, and an error
//! says where it stands, what it is and what belongs there. It knows nothing of policies. What belongs there is put
//! into words only for an error.

use core::fmt::Display;

use crate::error::{PolicyError, Problem};
use crate::nearest::probably_meant;
use crate::position::{Located, Position};
use crate::tree::{Entry, Table, Value};

/// The most entries of one list or table.
pub(crate) const MAX_ENTRIES: usize = 1024;

/// One table, whose keys are all known.
pub(crate) struct Section<'a> {
    name: &'static str,
    entries: Vec<Entry<'a>>,
}

impl<'a> Section<'a> {
    /// Takes a table in, if it has no key but these. `name` is as a person would say it: `[limits]`.
    pub(crate) fn new(name: &'static str, table: Table<'a>, known: &[&str]) -> Result<Self, PolicyError> {
        let entries = table.entries();
        let unknown = entries.iter().filter(|entry| !known.contains(&entry.key));
        // The first in the text, not in the alphabet.
        let first = unknown.map(|entry| (entry.at(), entry.key)).min_by_key(|(at, _)| (at.line, at.column));
        let Some((at, text)) = first else { return Ok(Self { name, entries }) };
        let suggestion = match probably_meant(text, known.iter().copied()) {
            Some(name) => format!("; did you mean `{name}`?"),
            None => format!("; there are: {}", known.join(", ")),
        };
        let problem = Problem::UnknownKey { key: shown(text), section: name.into(), suggestion };
        Err(PolicyError::at(&at, problem))
    }

    fn value(&self, key: &str) -> Option<Value<'a>> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| entry.value)
    }

    /// A table below this one.
    pub(crate) fn section(
        &self,
        key: &str,
        name: &'static str,
        known: &[&str],
    ) -> Result<Option<Section<'a>>, PolicyError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let table = value.as_table().ok_or_else(|| self.wrong_type(key, value, "a table"))?;
        Section::new(name, table, known).map(Some)
    }

    /// A text that `parse` understands.
    pub(crate) fn text<T>(
        &self,
        key: &str,
        expected: impl Display + Copy,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<Located<T>>, PolicyError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let text = value.as_text().ok_or_else(|| self.wrong_type(key, value, expected))?;
        parse_at(key, expected, text, value.at(), parse).map(Some)
    }

    /// A whole number from `lowest` to `highest`.
    pub(crate) fn number(
        &self,
        key: &str,
        lowest: u64,
        highest: u64,
    ) -> Result<Option<Located<u64>>, PolicyError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let expected = format_args!("a whole number from {lowest} to {highest}");
        let number = value.as_number().ok_or_else(|| self.wrong_type(key, value, expected))?;
        let at = value.at();
        if (lowest..=highest).contains(&number) {
            return Ok(Some(Located::new(number, at)));
        }
        let (reason, expected) = (format!("{number} is out of range"), expected.to_string());
        Err(PolicyError::at(&at, Problem::Value { key: key.into(), reason, expected }))
    }

    pub(crate) fn truth(&self, key: &str) -> Result<Option<Located<bool>>, PolicyError> {
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
    ) -> Result<Option<Located<T>>, PolicyError> {
        match self.value(key) {
            Some(value) if value.as_number() == Some(0) => Ok(Some(Located::new(zero, value.at()))),
            _ => self.text(key, expected, parse),
        }
    }

    /// A list of texts. Present and empty is something else than absent. `built` is `parse` for a shipped policy's, in
    /// which nothing is wrong.
    pub(crate) fn list<T>(
        &self,
        key: &str,
        expected: impl Display + Copy,
        parse: impl Fn(&str) -> Result<T, String>,
        built: impl Fn(&'static str) -> T,
    ) -> Result<Option<Vec<Located<T>>>, PolicyError> {
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
    ) -> Result<Option<Located<T>>, PolicyError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let (at, (word, of_word)) = (value.at(), word);
        let expected = format!("a list of whole numbers from {lowest} to {highest}, or \"{word}\"");
        if value.as_text() == Some(word) {
            return Ok(Some(Located::new(of_word, at)));
        }
        if value.as_text().is_some() {
            let reason = "no other word stands here".into();
            return Err(PolicyError::at(&at, Problem::Value { key: key.into(), reason, expected }));
        }
        let numbers = self.elements(key, &expected, |element| {
            let number = element.as_number().ok_or_else(|| self.wrong_type(key, element, &expected))?;
            if (lowest..=highest).contains(&number) {
                return Ok(number);
            }
            let reason = format!("{number} is out of range");
            let problem = Problem::Value { key: key.into(), reason, expected: expected.clone() };
            Err(PolicyError::at(&element.at(), problem))
        })?;
        Ok(numbers.map(|numbers| Located::new(list(numbers), at)))
    }

    fn elements<T>(
        &self,
        key: &str,
        expected: impl Display + Copy,
        element: impl Fn(Value<'a>) -> Result<T, PolicyError>,
    ) -> Result<Option<Vec<T>>, PolicyError> {
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
    ) -> Result<Vec<(N, Located<String>)>, PolicyError> {
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

    fn wrong_type(&self, key: &str, value: Value<'_>, expected: impl Display) -> PolicyError {
        let key = if self.name.starts_with('[') { format!("{} {key}", self.name) } else { key.into() };
        let problem = Problem::Type { key, found: value.kind(), expected: expected.to_string() };
        PolicyError::at(&value.at(), problem)
    }
}

fn parse_at<T>(
    key: &str,
    expected: impl Display,
    text: &str,
    at: Position,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Located<T>, PolicyError> {
    match parse(text) {
        Ok(value) => Ok(Located::new(value, at)),
        Err(reason) => Err(PolicyError::at(
            &at,
            Problem::Value { key: key.into(), reason: shown(&reason), expected: expected.to_string() },
        )),
    }
}

fn bounded(key: &str, count: usize, value: Value<'_>) -> Result<(), PolicyError> {
    if count <= MAX_ENTRIES {
        return Ok(());
    }
    let problem = Problem::TooLarge { what: format!("`{key}`"), count, limit: MAX_ENTRIES };
    Err(PolicyError::at(&value.at(), problem))
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
