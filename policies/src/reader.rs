//! Reads tables of TOML with positions: every key must be known, every value has one expected form, and an error
//! says where it stands, what it is and what belongs there. It knows nothing of policies.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{PolicyError, Problem};
use crate::nearest::probably_meant;
use crate::position::{Lines, Located, Position};

/// The most entries of one list or table.
pub(crate) const MAX_ENTRIES: usize = 1024;

/// One table, whose keys are all known.
pub(crate) struct Section<'a, 'text> {
    lines: &'a Lines<'text>,
    name: &'static str,
    table: &'a DeTable<'text>,
}

impl<'a, 'text> Section<'a, 'text> {
    /// Takes a table in, if it has no key but these. `name` is as a person would say it: `[limits]`.
    pub(crate) fn new(
        lines: &'a Lines<'text>,
        name: &'static str,
        table: &'a DeTable<'text>,
        known: &[&str],
    ) -> Result<Self, PolicyError> {
        let unknown = table.keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
        // The first in the text, not in the alphabet.
        let Some(key) = unknown.min_by_key(|key| key.span().start) else {
            return Ok(Self { lines, name, table });
        };
        let text = key.get_ref().as_ref();
        let suggestion = match probably_meant(text, known.iter().copied()) {
            Some(name) => format!("; did you mean `{name}`?"),
            None => format!("; there are: {}", known.join(", ")),
        };
        let problem = Problem::UnknownKey { key: shown(text), section: name.into(), suggestion };
        Err(PolicyError::at(&lines.at(&key.span()), problem))
    }

    fn value(&self, key: &str) -> Option<(&'a DeValue<'text>, Position)> {
        let spanned: &Spanned<DeValue<'text>> = self.table.get(key)?;
        Some((spanned.get_ref(), self.lines.at(&spanned.span())))
    }

    /// A table below this one.
    pub(crate) fn section(
        &self,
        key: &str,
        name: &'static str,
        known: &[&str],
    ) -> Result<Option<Section<'a, 'text>>, PolicyError> {
        let Some((value, at)) = self.value(key) else { return Ok(None) };
        let table = value.as_table().ok_or_else(|| self.wrong_type(key, value, &at, "a table"))?;
        Section::new(self.lines, name, table, known).map(Some)
    }

    /// A text that `parse` understands.
    pub(crate) fn text<T>(
        &self,
        key: &str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<Located<T>>, PolicyError> {
        let Some((value, at)) = self.value(key) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| self.wrong_type(key, value, &at, expected))?;
        parse_at(key, expected, text, at, parse).map(Some)
    }

    /// A whole number from `lowest` to `highest`.
    pub(crate) fn number(
        &self,
        key: &str,
        lowest: u64,
        highest: u64,
    ) -> Result<Option<Located<u64>>, PolicyError> {
        let Some((value, at)) = self.value(key) else { return Ok(None) };
        let expected = format!("a whole number from {lowest} to {highest}");
        let number = whole_number(value).ok_or_else(|| self.wrong_type(key, value, &at, &expected))?;
        if (lowest..=highest).contains(&number) {
            return Ok(Some(Located::new(number, at)));
        }
        let reason = format!("{number} is out of range");
        Err(PolicyError::at(&at, Problem::Value { key: key.into(), reason, expected }))
    }

    pub(crate) fn truth(&self, key: &str) -> Result<Option<Located<bool>>, PolicyError> {
        let Some((value, at)) = self.value(key) else { return Ok(None) };
        let truth = value.as_bool().ok_or_else(|| self.wrong_type(key, value, &at, "true or false"))?;
        Ok(Some(Located::new(truth, at)))
    }

    /// A text that `parse` understands, or the number 0, which needs no unit.
    pub(crate) fn text_or_zero<T>(
        &self,
        key: &str,
        expected: &str,
        zero: T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<Located<T>>, PolicyError> {
        match self.value(key) {
            Some((value, at)) if whole_number(value) == Some(0) => Ok(Some(Located::new(zero, at))),
            _ => self.text(key, expected, parse),
        }
    }

    /// A list of texts. Present and empty is something else than absent.
    pub(crate) fn list<T>(
        &self,
        key: &str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<Vec<Located<T>>>, PolicyError> {
        self.elements(key, expected, |element, at| {
            let text = element.as_str().ok_or_else(|| self.wrong_type(key, element, &at, expected))?;
            parse_at(key, expected, text, at, &parse)
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
        let Some((value, at)) = self.value(key) else { return Ok(None) };
        let expected = format!("a list of whole numbers from {lowest} to {highest}, or \"{}\"", word.0);
        if value.as_str() == Some(word.0) {
            return Ok(Some(Located::new(word.1, at)));
        }
        if value.as_str().is_some() {
            let reason = "no other word stands here".into();
            return Err(PolicyError::at(&at, Problem::Value { key: key.into(), reason, expected }));
        }
        let numbers = self.elements(key, &expected, |element, at| {
            let number =
                whole_number(element).ok_or_else(|| self.wrong_type(key, element, &at, &expected))?;
            if (lowest..=highest).contains(&number) {
                return Ok(number);
            }
            let reason = format!("{number} is out of range");
            Err(PolicyError::at(&at, Problem::Value { key: key.into(), reason, expected: expected.clone() }))
        })?;
        Ok(numbers.map(|numbers| Located::new(list(numbers), at)))
    }

    fn elements<T>(
        &self,
        key: &str,
        expected: &str,
        element: impl Fn(&'a DeValue<'text>, Position) -> Result<T, PolicyError>,
    ) -> Result<Option<Vec<T>>, PolicyError> {
        let Some((value, at)) = self.value(key) else { return Ok(None) };
        let array = value
            .as_array()
            .ok_or_else(|| self.wrong_type(key, value, &at, &format!("a list: {expected}")))?;
        bounded(key, array.len(), &at)?;
        array
            .iter()
            .map(|spanned| element(spanned.get_ref(), self.lines.at(&spanned.span())))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// A table of texts: every name that `name` understands, with its value.
    pub(crate) fn texts<N>(
        &self,
        key: &str,
        expected: &str,
        name: impl Fn(&str) -> Result<N, String>,
    ) -> Result<Vec<(N, Located<String>)>, PolicyError> {
        let Some((value, at)) = self.value(key) else { return Ok(Vec::new()) };
        let table = value.as_table().ok_or_else(|| self.wrong_type(key, value, &at, expected))?;
        bounded(key, table.len(), &at)?;
        let mut entries = Vec::with_capacity(table.len());
        for (entry, value) in table {
            let named = parse_at(key, expected, entry.get_ref(), self.lines.at(&entry.span()), &name)?;
            let at = self.lines.at(&value.span());
            let text = value
                .get_ref()
                .as_str()
                .ok_or_else(|| self.wrong_type(key, value.get_ref(), &at, expected))?;
            entries.push((named.value, Located::new(text.to_owned(), at)));
        }
        Ok(entries)
    }

    fn wrong_type(&self, key: &str, value: &DeValue<'_>, at: &Position, expected: &str) -> PolicyError {
        let key = if self.name.starts_with('[') { format!("{} {key}", self.name) } else { key.into() };
        PolicyError::at(at, Problem::Type { key, found: kind(value), expected: expected.into() })
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn parse_at<T>(
    key: &str,
    expected: &str,
    text: &str,
    at: Position,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Located<T>, PolicyError> {
    match parse(text) {
        Ok(value) => Ok(Located::new(value, at)),
        Err(reason) => Err(PolicyError::at(
            &at,
            Problem::Value { key: key.into(), reason: shown(&reason), expected: expected.into() },
        )),
    }
}

fn bounded(key: &str, count: usize, at: &Position) -> Result<(), PolicyError> {
    if count <= MAX_ENTRIES {
        return Ok(());
    }
    Err(PolicyError::at(at, Problem::TooLarge { what: format!("`{key}`"), count, limit: MAX_ENTRIES }))
}

fn whole_number(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    let digits = integer.as_str();
    u64::from_str_radix(digits.strip_prefix('+').unwrap_or(digits), integer.radix()).ok()
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
