//! TOML of a shape that only its reader knows: owned, and every value with its place.

use toml::de::{DeInteger, DeValue};

use crate::error::{Mistake, Problem};
use crate::position::{Located, Position};
use crate::tree::{Table, Value};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Free {
    /// A string.
    Text(String),
    /// A whole number that 64 bits hold with their sign.
    Integer(i64),
    /// Any other number, and a finite one.
    Float(f64),
    /// True or false.
    Truth(bool),
    /// A list.
    List(Vec<Located<Free>>),
    /// A table, its keys in the alphabet's order, each once.
    Table(Vec<Field>),
}

/// A key of a table, and what it has.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The key.
    pub key: String,
    /// Where it stands.
    pub at: Position,
    /// Its value.
    pub value: Located<Free>,
}

impl Free {
    /// What a value is.
    ///
    /// # Errors
    /// It, or something in it, is what no [`Free`] can be: a date, or a number that is too large.
    pub(crate) fn of(key: &str, value: Value<'_>) -> Result<Located<Self>, Mistake> {
        let at = value.at();
        let wrong = |found, expected: &str| {
            Mistake::new(&at, Problem::Type { key: key.into(), found, expected: expected.into() })
        };
        let free = match value {
            Value::Read(_, read) => match read.get_ref() {
                DeValue::Integer(integer) => {
                    Self::Integer(whole(integer).ok_or_else(|| wrong("an integer", "one of 64 bits"))?)
                }
                DeValue::Float(float) => {
                    let float = float.as_str().parse().ok().filter(|float: &f64| float.is_finite());
                    Self::Float(float.ok_or_else(|| wrong("a float", "a finite one"))?)
                }
                DeValue::Datetime(_) => return Err(wrong("a date", "a string")),
                _ => return Self::rest(key, value),
            },
            Value::Built(_) => return Self::rest(key, value),
        };
        Ok(Located { value: free, at })
    }

    fn rest(key: &str, value: Value<'_>) -> Result<Located<Self>, Mistake> {
        let free = if let Some(table) = value.as_table() {
            Self::table(table)?
        } else if let Some(list) = value.as_list() {
            Self::List(list.into_iter().map(|element| Self::of(key, element)).collect::<Result<_, _>>()?)
        } else if let Some(truth) = value.as_truth() {
            Self::Truth(truth)
        } else {
            Self::Text(value.as_text().unwrap_or_default().to_owned())
        };
        Ok(Located { value: free, at: value.at() })
    }

    fn table(table: Table<'_>) -> Result<Self, Mistake> {
        let field = |entry: crate::tree::Entry<'_>| {
            Ok(Field { key: entry.key.to_owned(), at: entry.at(), value: Self::of(entry.key, entry.value)? })
        };
        let mut fields = table.entries().into_iter().map(field).collect::<Result<Vec<_>, Mistake>>()?;
        fields.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(Self::Table(fields))
    }
}

fn whole(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader;

    fn read(text: &str) -> Result<Located<Free>, Vec<Mistake>> {
        let (mut mistakes, mut found) = (Vec::new(), None);
        reader::document(("f", text), ("it", &["a"]), &mut mistakes, |root, mistakes| {
            found = root.free("a").unwrap_or_else(|mistake| {
                mistakes.push(mistake);
                None
            });
        });
        found.ok_or(mistakes)
    }

    #[test]
    fn values_of_any_shape_keep_their_places() {
        let found = read("a = [1, -2.5,\n true, {b = \"x\", a = 0x10}]\n").unwrap();
        let Free::List(list) = found.value else { panic!("{found:?}") };
        assert_eq!(list[0].value, Free::Integer(1));
        assert_eq!(list[1].value, Free::Float(-2.5));
        assert_eq!((list[2].value.clone(), list[2].at.to_string()), (Free::Truth(true), "f:2:2".into()));
        let Free::Table(fields) = &list[3].value else { panic!("{list:?}") };
        assert_eq!((fields[0].key.as_str(), &fields[0].value.value), ("a", &Free::Integer(16)));
        assert_eq!(fields[1].value.at.to_string(), "f:2:13");
    }

    #[test]
    fn what_has_no_place_in_json_is_refused_where_it_stands() {
        for text in ["a = 2020-01-01", "a = [inf]", "a = {b = nan}", "a = 99999999999999999999"] {
            let mistakes = read(text).unwrap_err();
            assert_eq!(mistakes.len(), 1, "{text}");
            assert!(mistakes[0].to_string().starts_with("f:1:"), "{}", mistakes[0]);
        }
    }
}
