//! Tables and values of TOML with their places, wherever they were read: of a text now, by the toml crate, or of a
//! shipped policy when the crate was built (`build/profiles.rs`). Who reads a policy from them can't tell the two apart.

use core::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::position::{Lines, Position};
use crate::said::Said;

/// A text that the build has read.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) text: &'static str,
    /// The first is the whole, a table.
    pub(crate) nodes: &'static [Node],
}

/// A key or a value of a built text. What belongs to it stands behind it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// Of keys, texts and numbers: the bytes of the text that say it, without quotes.
    pub(crate) start: u16,
    pub(crate) end: u16,
    pub(crate) line: u16,
    pub(crate) column: u16,
    /// Behind all that belongs to it.
    pub(crate) next: u16,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Keys, each with its value behind it.
    Table,
    Key,
    /// Elements.
    List,
    Text,
    Number,
    True,
    False,
}

/// A node, and what the text's file is called.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    file: &'static str,
    built: &'static Built,
    index: usize,
}

/// A value.
#[derive(Clone, Copy)]
pub(crate) enum Value<'a> {
    Read(&'a Lines<'a>, &'a Spanned<DeValue<'a>>),
    Built(Place),
}

/// A table.
#[derive(Clone, Copy)]
pub(crate) enum Table<'a> {
    Read(&'a Lines<'a>, &'a DeTable<'a>),
    Built(Place),
}

/// A key of a table and its value.
pub(crate) struct Entry<'a> {
    pub(crate) key: &'a str,
    at: At<'a>,
    pub(crate) value: Value<'a>,
}

/// Where a key stands, worked out when it is asked for.
enum At<'a> {
    Read(&'a Lines<'a>, Range<usize>),
    Built(Place),
}

impl Built {
    /// The whole. `file`: as positions name it.
    pub(crate) fn table<'a>(&'static self, file: &'static str) -> Table<'a> {
        Table::Built(Place { file, built: self, index: 0 })
    }
}

impl Place {
    fn node(self) -> Option<&'static Node> {
        self.built.nodes.get(self.index)
    }

    fn is(self, kind: Kind) -> bool {
        self.node().is_some_and(|node| node.kind == kind)
    }

    fn text(self) -> &'static str {
        let bytes = |node: &Node| usize::from(node.start)..usize::from(node.end);
        self.node().and_then(|node| self.built.text.get(bytes(node))).unwrap_or("")
    }

    /// What belongs to this node, but not what belongs to that.
    fn inside(self) -> impl Iterator<Item = Self> {
        let end = self.node().map_or(0, |node| usize::from(node.next));
        let first = Some(Self { index: self.index + 1, ..self });
        let behind = |place: &Self| Some(Self { index: place.node()?.next.into(), ..*place });
        core::iter::successors(first, behind).take_while(move |place| place.index < end)
    }

    fn position(self) -> Position {
        let (line, column) = self.node().map_or((1, 1), |node| (node.line.into(), node.column.into()));
        Position { file: Said::Built(self.file), line, column }
    }
}

impl<'a> Value<'a> {
    pub(crate) fn at(self) -> Position {
        match self {
            Self::Read(lines, value) => lines.at(&value.span()),
            Self::Built(place) => place.position(),
        }
    }

    pub(crate) fn as_text(self) -> Option<&'a str> {
        match self {
            Self::Read(_, value) => value.get_ref().as_str(),
            Self::Built(place) => place.is(Kind::Text).then(|| place.text()),
        }
    }

    /// A shipped policy's.
    pub(crate) fn as_built_text(self) -> Option<&'static str> {
        match self {
            Self::Read(..) => None,
            Self::Built(place) => place.is(Kind::Text).then(|| place.text()),
        }
    }

    /// A whole number that isn't negative.
    pub(crate) fn as_number(self) -> Option<u64> {
        let (digits, radix) = match self {
            Self::Read(_, value) => {
                let integer = value.get_ref().as_integer()?;
                (integer.as_str(), integer.radix())
            }
            Self::Built(place) => (place.is(Kind::Number).then(|| place.text())?, 10),
        };
        u64::from_str_radix(digits.strip_prefix('+').unwrap_or(digits), radix).ok()
    }

    pub(crate) fn as_truth(self) -> Option<bool> {
        match self {
            Self::Read(_, value) => value.get_ref().as_bool(),
            Self::Built(place) if place.is(Kind::True) => Some(true),
            Self::Built(place) => place.is(Kind::False).then_some(false),
        }
    }

    pub(crate) fn as_list(self) -> Option<Vec<Self>> {
        match self {
            Self::Read(lines, value) => {
                let array = value.get_ref().as_array()?;
                Some(array.iter().map(|element| Self::Read(lines, element)).collect())
            }
            Self::Built(place) => {
                let list = place.node().filter(|node| node.kind == Kind::List)?;
                // As many as nodes, where no element has anything in it.
                let mut elements = Vec::with_capacity(usize::from(list.next).saturating_sub(place.index + 1));
                elements.extend(place.inside().map(Self::Built));
                Some(elements)
            }
        }
    }

    pub(crate) fn as_table(self) -> Option<Table<'a>> {
        match self {
            Self::Read(lines, value) => value.get_ref().as_table().map(|table| Table::Read(lines, table)),
            Self::Built(place) => place.is(Kind::Table).then_some(Table::Built(place)),
        }
    }

    /// What it is, with its article.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Read(_, value) => match value.get_ref() {
                DeValue::String(_) => "a string",
                DeValue::Integer(_) => "an integer",
                DeValue::Float(_) => "a float",
                DeValue::Boolean(_) => "a boolean",
                DeValue::Datetime(_) => "a date",
                DeValue::Array(_) => "a list",
                DeValue::Table(_) => "a table",
            },
            Self::Built(place) => match place.node().map(|node| node.kind) {
                Some(Kind::Text) => "a string",
                Some(Kind::Number) => "an integer",
                Some(Kind::True | Kind::False) => "a boolean",
                Some(Kind::List) => "a list",
                Some(Kind::Table | Kind::Key) | None => "a table",
            },
        }
    }
}

impl<'a> Table<'a> {
    /// Of the text that it is of.
    pub(crate) fn start(self) -> Position {
        match self {
            Self::Read(lines, _) => lines.at(&(0..0)),
            Self::Built(place) => place.position(),
        }
    }

    pub(crate) fn entries(self) -> Vec<Entry<'a>> {
        match self {
            Self::Read(lines, table) => {
                let entry = |(key, value): (&'a Spanned<_>, _)| Entry {
                    key: AsRef::as_ref(key.get_ref()),
                    at: At::Read(lines, key.span()),
                    value: Value::Read(lines, value),
                };
                table.iter().map(entry).collect()
            }
            Self::Built(place) => {
                let value = |key: Place| Value::Built(Place { index: key.index + 1, ..key });
                let entry = |key: Place| Entry { key: key.text(), at: At::Built(key), value: value(key) };
                place.inside().map(entry).collect()
            }
        }
    }
}

impl Entry<'_> {
    /// The key's.
    pub(crate) fn at(&self) -> Position {
        match &self.at {
            At::Read(lines, span) => lines.at(span),
            At::Built(place) => place.position(),
        }
    }
}
