//! Parameters that have been found valid, and a template: arguments, and what is to be opened.
//!
//! It trusts nobody to have checked: a value that isn't of its hole's kind, has a zero character, or would be an option, is an error.

use serde_json::{Map, Value};
use stockade_protocol::Bytes;
use stockade_protocol::bounds::{MAX_ARGUMENT, MAX_ARGUMENTS, MAX_ARGUMENTS_TOTAL};
use stockade_protocol::launch::Opening;

use super::MAX_OPENINGS;
use super::template::{Argument, Group, Hole, Kind, Piece, Stdin, Template};
use crate::validate::formats::is_workspace_path;

/// The number of the first descriptor that is handed on beside the standard ones.
const FIRST_DESCRIPTOR: u32 = 3;
/// Whole numbers beyond it are not exact as floats.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expanded {
    /// The program's path, then its arguments.
    pub arguments: Vec<Vec<u8>>,
    /// What is opened below the workspace and handed on as descriptors of these numbers: by the run's own process, within all that
    /// confines it.
    pub openings: Vec<Opening>,
    /// Standard input.
    pub stdin: Input,
}

impl Expanded {
    /// All that a run finds open, standard input among it, if that is a file.
    #[must_use]
    pub fn opened(&self) -> Vec<Opening> {
        let stdin = match &self.stdin {
            Input::File(path) => Some(Opening { number: 0, path: path.as_str().into() }),
            Input::Nothing | Input::Bytes(_) => None,
        };
        stdin.into_iter().chain(self.openings.iter().cloned()).collect()
    }
}

/// Standard input.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Input {
    /// None.
    #[default]
    Nothing,
    /// These bytes.
    Bytes(Vec<u8>),
    /// This file, opened as [`Expanded::openings`] are.
    File(String),
}

/// Why no command comes of parameters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExpandError {
    /// A value isn't what its place takes. Where it's validated this can't be.
    #[error("/{name}: it is not of the kind `{kind}`")]
    Kind {
        /// The parameter.
        name: String,
        /// The kind.
        kind: &'static str,
    },
    /// A value would be an option.
    #[error("/{name}: a value that begins with `-` would be an option of the program")]
    Option {
        /// The parameter.
        name: String,
    },
    /// A value would be part of an option's name.
    #[error("/{name}: the value would be part of the name of an option of the program")]
    PartOfOption {
        /// The parameter.
        name: String,
    },
    /// A value has a zero character in it, which no argument can have.
    #[error("/{name}: it has a zero character in it")]
    Zero {
        /// The parameter.
        name: String,
    },
    /// Too many arguments, or too long ones.
    #[error("the command is too long: {what} is over the limit of {limit}")]
    TooLong {
        /// What.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

impl Template {
    /// The command for parameters.
    ///
    /// # Errors
    /// Why there is none.
    pub fn expand(&self, parameters: &Map<String, Value>) -> Result<Expanded, ExpandError> {
        let mut expansion = Expansion { parameters, made: Expanded::default(), bytes: 0 };
        expansion.push(self.program.clone().into_bytes())?;
        for group in &self.groups {
            expansion.group(group)?;
        }
        expansion.made.stdin = match &self.stdin {
            Stdin::Nothing => Input::Nothing,
            Stdin::Parameters => {
                Input::Bytes(format!("{}\n", Value::Object(parameters.clone())).into_bytes())
            }
            Stdin::File(name) => match parameters.get(name) {
                Some(value) => Input::File(path(name, value, Kind::File)?),
                None => Input::Nothing,
            },
        };
        Ok(expansion.made)
    }
}

struct Expansion<'a> {
    parameters: &'a Map<String, Value>,
    made: Expanded,
    bytes: usize,
}

impl Expansion<'_> {
    fn push(&mut self, argument: Vec<u8>) -> Result<(), ExpandError> {
        let too_long = |what, limit| Err(ExpandError::TooLong { what, limit });
        self.bytes += argument.len() + 1;
        if argument.len() >= MAX_ARGUMENT {
            return too_long("an argument's length", MAX_ARGUMENT - 1);
        }
        if self.made.arguments.len() >= MAX_ARGUMENTS {
            return too_long("the number of arguments", MAX_ARGUMENTS);
        }
        if self.bytes > MAX_ARGUMENTS_TOTAL {
            return too_long("the length of all arguments", MAX_ARGUMENTS_TOTAL);
        }
        self.made.arguments.push(argument);
        Ok(())
    }

    /// A group once, once for each element of its list, or not at all.
    fn group(&mut self, group: &Group) -> Result<(), ExpandError> {
        let mut list = None;
        for hole in holes(group) {
            let Some(value) = self.parameters.get(&hole.name) else { return Ok(()) };
            match (hole.kind, value) {
                (Kind::Flag, Value::Bool(false)) => return Ok(()),
                (Kind::Flag, Value::Bool(true)) => {}
                (Kind::Flag, _) => return Err(wrong(&hole.name, Kind::Flag)),
                _ if !hole.is_list => {}
                (kind, value) => list = Some(value.as_array().ok_or_else(|| wrong(&hole.name, kind))?),
            }
        }
        match list {
            None => self.once(group, None),
            Some(list) => list.iter().try_for_each(|element| self.once(group, Some(element))),
        }
    }

    fn once(&mut self, group: &Group, element: Option<&Value>) -> Result<(), ExpandError> {
        for argument in group {
            if matches!(argument.as_slice(), [Piece::Hole(Hole { kind: Kind::Flag, .. })]) {
                continue;
            }
            let made = self.argument(argument, element)?;
            self.push(made)?;
        }
        Ok(())
    }

    fn argument(&mut self, argument: &Argument, element: Option<&Value>) -> Result<Vec<u8>, ExpandError> {
        let mut made = Vec::new();
        for (at, piece) in argument.iter().enumerate() {
            let hole = match piece {
                Piece::Literal(text) => {
                    if made.is_empty() && text.starts_with('-') {
                        behind_nothing(&argument[..at])?;
                    }
                    made.extend_from_slice(text.as_bytes());
                    continue;
                }
                Piece::Hole(hole) => hole,
            };
            let own = if hole.is_list { element } else { self.parameters.get(&hole.name) };
            let text = self.text(hole, own.ok_or_else(|| wrong(&hole.name, hole.kind))?)?;
            if text.contains('\0') {
                return Err(ExpandError::Zero { name: hole.name.clone() });
            }
            append(&mut made, hole, &text)?;
        }
        Ok(made)
    }

    /// Another file, and its number.
    fn open(&mut self, path: Bytes) -> Result<u32, ExpandError> {
        let count = self.made.openings.len();
        let number =
            u32::try_from(count).ok().filter(|_| count < MAX_OPENINGS).map(|at| FIRST_DESCRIPTOR + at);
        let what = "the number of files that are opened";
        let number = number.ok_or(ExpandError::TooLong { what, limit: MAX_OPENINGS })?;
        self.made.openings.push(Opening { number, path });
        Ok(number)
    }

    fn text(&mut self, hole: &Hole, value: &Value) -> Result<String, ExpandError> {
        let (name, kind) = (&hole.name, hole.kind);
        match (kind, value) {
            (Kind::Text, Value::String(text)) => Ok(text.clone()),
            (Kind::Integer, Value::Number(number)) => integer(number).ok_or_else(|| wrong(name, kind)),
            (Kind::Number, Value::Number(number)) => Ok(number.to_string()),
            (Kind::Path, value) => path(name, value, kind),
            (Kind::File, value) => {
                let path = Bytes::from(path(name, value, kind)?.as_str());
                // A group that stands once for each element of a list has the same file each time.
                let known = self.made.openings.iter().find(|opening| opening.path == path);
                let number = match known {
                    Some(opening) => opening.number,
                    None => self.open(path)?,
                };
                Ok(format!("/proc/self/fd/{number}"))
            }
            _ => Err(wrong(name, kind)),
        }
    }
}

/// What the file says begins an option only because the values before it are empty: one of their holes has to say that it may be one.
fn behind_nothing(before: &[Piece]) -> Result<(), ExpandError> {
    let mut holes = before.iter().filter_map(|piece| match piece {
        Piece::Hole(hole) => Some(hole),
        Piece::Literal(_) => None,
    });
    match holes.next() {
        Some(first) if !first.is_option && !holes.any(|hole| hole.is_option) => {
            Err(ExpandError::Option { name: first.name.clone() })
        }
        _ => Ok(()),
    }
}

/// Adds a value to what an argument is so far. Whichever hole it begins with, if those before it are empty, has to say that it may be
/// an option; and so has each of which the option's name is.
fn append(made: &mut Vec<u8>, hole: &Hole, text: &str) -> Result<(), ExpandError> {
    let name = || hole.name.clone();
    if made.is_empty() && text.starts_with('-') && !hole.is_option {
        // A path has another name that is no option; a number or a text hasn't.
        if hole.kind != Kind::Path {
            return Err(ExpandError::Option { name: name() });
        }
        made.extend_from_slice(b"./");
    }
    if made.starts_with(b"-") && !made.contains(&b'=') && !text.is_empty() && !hole.is_option {
        let is_letter = !made.starts_with(b"--") && made.len() > 1;
        if !(is_letter && matches!(hole.kind, Kind::Integer | Kind::Number)) {
            return Err(ExpandError::PartOfOption { name: name() });
        }
    }
    made.extend_from_slice(text.as_bytes());
    Ok(())
}

fn holes(group: &Group) -> impl Iterator<Item = &Hole> {
    group.iter().flatten().filter_map(|piece| match piece {
        Piece::Hole(hole) => Some(hole),
        Piece::Literal(_) => None,
    })
}

fn wrong(name: &str, kind: Kind) -> ExpandError {
    ExpandError::Kind { name: name.to_owned(), kind: kind.name() }
}

fn path(name: &str, value: &Value, kind: Kind) -> Result<String, ExpandError> {
    let text = value.as_str().filter(|text| is_workspace_path(text));
    text.map(ToOwned::to_owned).ok_or_else(|| wrong(name, kind))
}

/// A whole number's digits. JSON Schema takes 2.0 for one, too.
fn integer(number: &serde_json::Number) -> Option<String> {
    if number.is_i64() || number.is_u64() {
        return Some(number.to_string());
    }
    let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= EXACT)?;
    Some(format!("{float:.0}")).map(|text| if text == "-0" { "0".to_owned() } else { text })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::template::argument;
    use super::*;

    #[test]
    fn a_file_in_a_group_that_stands_again_and_again_is_opened_once() {
        let many: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
        let parameters = json!({ "f": "a/b", "g": "c", "l": many });
        let groups: [&[&str]; 2] = [&["{f:file}", "{l:text...}"], &["{g:file}"]];
        let made = template(&groups).expand(parameters.as_object().unwrap()).unwrap();
        let opened: Vec<_> = made.openings.iter().map(|one| (one.number, one.path.to_text())).collect();
        assert_eq!(opened, [(3, "a/b".to_owned()), (4, "c".to_owned())]);
        assert_eq!(made.arguments.last().unwrap(), b"/proc/self/fd/4");
    }

    fn template(groups: &[&[&str]]) -> Template {
        let groups =
            groups.iter().map(|group| group.iter().map(|text| argument(text).unwrap()).collect()).collect();
        Template { program: "/bin/x".into(), groups, stdin: Stdin::Nothing }
    }

    fn expanded(groups: &[&[&str]], parameters: &Value) -> Result<String, ExpandError> {
        let made = template(groups).expand(parameters.as_object().unwrap())?;
        let texts: Vec<String> =
            made.arguments.into_iter().map(|text| String::from_utf8(text).unwrap()).collect();
        Ok(texts.join("|"))
    }

    #[test]
    fn values_stand_in_their_holes() {
        let groups: &[&[&str]] = &[&["-n"], &["-C{n:integer}"], &["--x={t:text}:{d:number}"], &["{p:path}"]];
        let parameters = json!({ "n": -3, "t": "a b", "d": 0.5, "p": "-x" });
        assert_eq!(expanded(groups, &parameters).unwrap(), "/bin/x|-n|-C-3|--x=a b:0.5|./-x");
        assert_eq!(expanded(&[&["{n:integer}"]], &json!({ "n": 2.0 })).unwrap(), "/bin/x|2");
        assert_eq!(
            expanded(&[&["{n:integer}"]], &json!({ "n": u64::MAX })).unwrap(),
            format!("/bin/x|{}", u64::MAX)
        );
    }

    #[test]
    fn groups_stand_or_fall_together() {
        let groups: &[&[&str]] = &[&["--max", "{n:integer}"], &["-v", "{v:flag}"], &["-e", "{l:text...}"]];
        assert_eq!(expanded(groups, &json!({})).unwrap(), "/bin/x");
        assert_eq!(expanded(groups, &json!({ "n": 1, "v": false, "l": [] })).unwrap(), "/bin/x|--max|1");
        assert_eq!(expanded(groups, &json!({ "v": true, "l": ["a", "b"] })).unwrap(), "/bin/x|-v|-e|a|-e|b");
    }

    #[test]
    fn a_value_is_an_option_only_where_its_hole_says_so() {
        let parameters = json!({ "t": "--help", "e": "", "l": ["a", "-rf"], "n": -1 });
        for groups in [
            &[&["{t:text}"][..]][..],
            &[&["{e:text}{t:text}"]],
            &[&["{e:text}-{t:text}"]],
            &[&["{l:text...}"]],
            &[&["{n:integer}"]],
        ] {
            assert!(matches!(expanded(groups, &parameters), Err(ExpandError::Option { .. })), "{groups:?}");
        }
        assert_eq!(
            expanded(&[&["{t:text,option}"], &["x{t:text}"]], &parameters).unwrap(),
            "/bin/x|--help|x--help"
        );
    }

    #[test]
    fn whichever_hole_an_argument_begins_with_has_to_say_so() {
        let parameters = json!({ "e": "", "t": "--exec=sh", "d": "-", "p": "-rf", "n": -1, "x": "x" });
        for (argument, expected) in [
            ("{e:text,option}{t:text}", None),
            ("{e:text,option}{n:integer}", None),
            ("{e:text,option}-{t:text}", None),
            ("{d:text,option}{t:text}", None),
            ("{d:text,option}{x:text}", None),
            ("{e:text}-x", None),
            ("{e:text}{e:text}-x", None),
            ("{e:text,option}{p:path}", Some("./-rf")),
            ("{e:text}{t:text,option}", Some("--exec=sh")),
            ("{e:text,option}-x", Some("-x")),
            ("{d:text,option}-x={x:text}", Some("--x=x")),
            ("{d:text,option}C{n:integer}", Some("-C-1")),
            ("{t:text,option}{x:text}", Some("--exec=shx")),
        ] {
            let made = expanded(&[&[argument]], &parameters);
            match expected {
                Some(expected) => assert_eq!(made.unwrap(), format!("/bin/x|{expected}"), "{argument}"),
                None => assert!(
                    matches!(made, Err(ExpandError::Option { .. } | ExpandError::PartOfOption { .. })),
                    "{argument}: {made:?}"
                ),
            }
        }
    }

    #[test]
    fn files_are_opened_by_number_and_named_by_it() {
        let made = template(&[&["--in={a:file}"], &["{b:file}"]])
            .expand(json!({ "a": "x/y", "b": "z" }).as_object().unwrap())
            .unwrap();
        assert_eq!(made.arguments[1..], [b"--in=/proc/self/fd/3".to_vec(), b"/proc/self/fd/4".to_vec()]);
        assert_eq!(
            made.openings,
            [Opening { number: 3, path: "x/y".into() }, Opening { number: 4, path: "z".into() }]
        );
        let mut with_input = template(&[]);
        with_input.stdin = Stdin::File("a".into());
        let made = with_input.expand(json!({ "a": "x" }).as_object().unwrap()).unwrap();
        assert_eq!(made.stdin, Input::File("x".into()));
        with_input.stdin = Stdin::Parameters;
        let made = with_input.expand(json!({ "a": "x" }).as_object().unwrap()).unwrap();
        assert_eq!(made.stdin, Input::Bytes(b"{\"a\":\"x\"}\n".to_vec()));
    }

    #[test]
    fn what_no_schema_would_let_pass_is_refused_here_too() {
        for (groups, parameters) in [
            (&[&["{t:text}"][..]][..], json!({ "t": 1 })),
            (&[&["{t:text}"]], json!({ "t": null })),
            (&[&["{t:text}"]], json!({ "t": "a\0b" })),
            (&[&["{t:integer}"]], json!({ "t": "1" })),
            (&[&["{t:integer}"]], json!({ "t": 1.5 })),
            (&[&["{t:path}"]], json!({ "t": "../x" })),
            (&[&["{t:file}"]], json!({ "t": "/etc/passwd" })),
            (&[&["x", "{t:flag}"]], json!({ "t": "true" })),
            (&[&["{t:text...}"]], json!({ "t": "x" })),
            (&[&["{t:text...}"]], json!({ "t": [["x"]] })),
            (&[&["{t:text}"]], json!({ "t": "x".repeat(MAX_ARGUMENT) })),
            (&[&["{t:text...}"]], json!({ "t": vec!["x"; MAX_ARGUMENTS] })),
            (&[&["{t:text...}"]], json!({ "t": vec!["x".repeat(100_000); 10] })),
        ] {
            assert!(expanded(groups, &parameters).is_err(), "{groups:?}");
        }
    }

    /// Texts as hostile as a caller can send them.
    fn texts() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[-= \"'\\\\$`;|&<>*?{}:a\n\t\0]{0,12}", "--?[a-z]{0,6}(=.{0,4})?"]
    }

    proptest! {
        #[test]
        fn no_value_adds_splits_or_drops_an_argument_or_becomes_an_option(
            one in texts(), two in texts(), list in prop::collection::vec(texts(), 0..5), number in any::<i64>(), flag in any::<bool>(), given in any::<[bool; 5]>(),
        ) {
            let groups: &[&[&str]] = &[
                &["-n"], &["{one:text}"], &["--two={two:text}{one:text}"], &["-C{number:integer}"], &["-e", "{list:text...}"], &["-v", "{flag:flag}"],
                &["pre{two:text}"], &["--", "{two:text}"],
            ];
            let mut parameters = Map::new();
            for ((name, value), given) in [("one", json!(one)), ("two", json!(two)), ("list", json!(list)), ("number", json!(number)), ("flag", json!(flag))].into_iter().zip(given) {
                if given {
                    parameters.insert(name.into(), value);
                }
            }
            if let Ok(made) = template(groups).expand(&parameters) {
                // What must come of it, said another way: each argument is one of these, in this order.
                let mut expected: Vec<String> = vec!["/bin/x".into(), "-n".into()];
                if given[0] { expected.push(one.clone()); }
                if given[0] && given[1] { expected.push(format!("--two={two}{one}")); }
                if given[3] { expected.push(format!("-C{number}")); }
                if given[2] { expected.extend(list.iter().flat_map(|text| ["-e".to_owned(), text.clone()])); }
                if given[4] && flag { expected.push("-v".into()); }
                if given[1] { expected.extend([format!("pre{two}"), "--".into(), two.clone()]); }
                let expected: Vec<Vec<u8>> = expected.into_iter().map(String::into_bytes).collect();
                prop_assert_eq!(&made.arguments, &expected);
                prop_assert!(made.arguments.iter().all(|argument| !argument.contains(&0)));
                prop_assert!(!given[0] || !one.starts_with('-'));
                prop_assert!(!given[1] || !two.starts_with('-'));
                prop_assert!(!given[2] || list.iter().all(|text| !text.starts_with('-')));
            } else {
                let refused = |given: bool, text: &str| given && (text.starts_with('-') || text.contains('\0'));
                prop_assert!(refused(given[0], &one) || refused(given[1], &two) || list.iter().any(|text| refused(given[2], text)));
            }
        }

        /// Where each byte of an argument comes from: the first, if it is `-`, and those of an option's name.
        #[test]
        fn every_byte_of_an_options_name_is_of_the_file_or_of_a_hole_that_says_so(
            pieces in prop::collection::vec(
                prop_oneof!["[-=a]{1,2}".prop_map(|text| (Some(text), String::new(), false)), ("[-=a]{0,2}", any::<bool>()).prop_map(|(value, says)| (None, value, says))],
                1..5,
            ),
        ) {
            let (mut said, mut parameters, mut bytes) = (String::new(), Map::new(), Vec::new());
            for (at, (literal, value, says)) in pieces.into_iter().enumerate() {
                let mark = if says { ",option" } else { "" };
                said += &literal.clone().unwrap_or_else(|| format!("{{p{at}:text{mark}}}"));
                parameters.insert(format!("p{at}"), json!(value));
                let is_free = literal.is_some() || says;
                bytes.extend(literal.unwrap_or(value).bytes().map(|byte| (byte, is_free)));
            }
            let Ok(one) = argument(&said) else { return Ok(()) };
            let template = Template { program: "/bin/x".into(), groups: vec![vec![one]], stdin: Stdin::Nothing };
            if let Ok(made) = template.expand(&parameters) {
                prop_assert_eq!(&made.arguments[1], &bytes.iter().map(|(byte, _)| *byte).collect::<Vec<u8>>());
                if made.arguments[1].starts_with(b"-") {
                    let name = bytes.iter().take_while(|(byte, _)| *byte != b'=');
                    prop_assert!(name.clone().all(|(_, is_free)| *is_free), "{} {:?}", said, parameters);
                }
            }
        }

        #[test]
        fn no_path_becomes_an_option_or_leads_away(path in "[-a./]{0,10}") {
            if let Ok(made) = template(&[&["{p:path}"]]).expand(json!({ "p": path }).as_object().unwrap()) {
                let text = String::from_utf8(made.arguments[1].clone()).unwrap();
                prop_assert!(!text.starts_with(['-', '/']) && text.split('/').all(|name| name != ".."));
            }
        }
    }
}
