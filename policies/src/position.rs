//! Where a value stands: file, line and column. Made once, when text is read, and carried along unchanged.

use core::fmt;
use core::ops::Range;

use crate::said::Said;

/// A place in a file, or a default of the crate itself (line 0).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The file as its source was named.
    pub file: Said,
    /// Line, from 1; 0 for a default.
    pub line: u32,
    /// Column in characters, from 1; 0 for a default.
    pub column: u32,
}

impl Position {
    /// The place of what no file states.
    #[must_use]
    pub fn built_in() -> Self {
        Self { file: Said::Built("built-in"), line: 0, column: 0 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            f.write_str(&self.file)
        } else {
            write!(f, "{}:{}:{}", self.file, self.line, self.column)
        }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub at: Position,
}

impl<T> Located<T> {
    pub(crate) fn new(value: T, at: Position) -> Self {
        Self { value, at }
    }

    pub(crate) fn built_in(value: T) -> Self {
        Self { value, at: Position::built_in() }
    }
}

/// Turns byte offsets of one text into positions. Every rule has one, so lines are found once.
pub(crate) struct Lines<'a> {
    file: Said,
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(file: &Said, text: &'a str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = core::iter::once(0).chain(newlines.map(|(at, _)| at + 1)).collect();
        Self { file: file.clone(), text, starts }
    }

    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    /// The position of a span's start; past the end, the end's.
    pub(crate) fn at(&self, span: &Range<usize>) -> Position {
        let mut offset = span.start.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.starts.partition_point(|start| *start <= offset).saturating_sub(1);
        let start = self.starts.get(line).copied().unwrap_or(0);
        Position {
            file: self.file.clone(),
            line: count(line),
            column: count(self.text[start..offset].chars().count()),
        }
    }
}

fn count(zero_based: usize) -> u32 {
    u32::try_from(zero_based).unwrap_or(u32::MAX - 1) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let lines = Lines::new(&Said::Built("f"), "a\nßé = 1\n");
        assert_eq!(lines.at(&(0..1)).to_string(), "f:1:1");
        let one = "a\nßé = 1\n".find('1').unwrap();
        assert_eq!(lines.at(&(one..one + 1)).to_string(), "f:2:6");
        assert_eq!(lines.at(&(999..999)).to_string(), "f:3:1");
        assert_eq!(Position::built_in().to_string(), "built-in");
    }
}
