//! A command as a template: a program and arguments with holes. What may stand in a hole is told by its kind, and checked against
//! the tool's schema when the tool is registered.
//!
//! ```toml
//! arguments = ["--line-number", ["--max-count={limit:integer}"], ["--include", "{globs:text...}"], "--", "{pattern:text,option}"]
//! ```
//!
//! * `{name:kind}` is a whole argument, or inside one. `{{` and `}}` are braces.
//! * A list within the list is a group: it stands if every parameter that it names is given, and otherwise not at all. An argument
//!   by itself is a group of one.
//! * `{name:kind...}` takes a list: its group stands once for each element, so that `--include a --include b` comes of it.
//! * `{name:flag}` takes true or false, and is no argument itself: its group stands if it is true.
//! * A value can't become an option: an argument that begins with a hole doesn't begin with `-`, and text stands inside an argument
//!   that begins with `-` only behind a `=`; unless the hole says `,option`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{MAX_OPENINGS, MAX_PIECE, MAX_TEMPLATE};

/// What stands in a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// Nothing: its group stands, or not.
    Flag,
    /// A path below the workspace, as text.
    Path,
    /// A file below the workspace, opened by whoever starts the run: its argument names the descriptor.
    File,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Text, Self::Integer, Self::Number, Self::Flag, Self::Path, Self::File];

    /// Its name in a template.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Flag => "flag",
            Self::Path => "path",
            Self::File => "file",
        }
    }

    /// The type that its parameter has in a schema.
    fn schema_type(self) -> &'static str {
        match self {
            Self::Text | Self::Path | Self::File => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Flag => "boolean",
        }
    }

    fn is_of_the_workspace(self) -> bool {
        matches!(self, Self::Path | Self::File)
    }
}

/// A hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hole {
    /// The parameter.
    pub name: String,
    /// What stands there.
    pub kind: Kind,
    /// Whether the parameter is a list, of which one element stands there.
    pub is_list: bool,
    /// Whether the value may become an option, or part of one's name.
    pub is_option: bool,
}

/// A part of an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// This text.
    Literal(String),
    /// A value.
    Hole(Hole),
}

/// An argument.
pub type Argument = Vec<Piece>;
/// Arguments that stand or fall together.
pub type Group = Vec<Argument>;

/// Where standard input comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Stdin {
    /// There is none.
    #[default]
    Nothing,
    /// The parameters, as one line of JSON.
    Parameters,
    /// A file below the workspace that a parameter names; nothing if the parameter isn't given.
    File(String),
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template {
    /// The program's path.
    pub program: String,
    /// What stands behind it.
    pub groups: Vec<Group>,
    /// Its standard input.
    pub stdin: Stdin,
}

/// Reads an argument.
///
/// # Errors
/// What is wrong with it.
pub fn argument(text: &str) -> Result<Argument, String> {
    if text.len() > MAX_PIECE || text.contains('\0') {
        return Err(format!("it is longer than {MAX_PIECE} bytes, or has a zero character in it"));
    }
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let doubled = |brace| rest.starts_with(brace);
        if doubled("{{") || doubled("}}") {
            literal.push(next);
            rest = &rest[2..];
        } else if next == '}' {
            return Err("a `}` that closes nothing; a brace itself is written twice".into());
        } else if next == '{' {
            let end = rest.find('}').ok_or("a `{` that nothing closes; a brace itself is written twice")?;
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Hole(hole(&rest[1..end])?));
            rest = &rest[end + 1..];
        } else {
            literal.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    if !literal.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    options(&pieces)?;
    Ok(pieces)
}

/// Reads where standard input comes from.
///
/// # Errors
/// What is wrong with it.
pub fn stdin(text: &str) -> Result<Stdin, String> {
    match text {
        "nothing" => return Ok(Stdin::Nothing),
        "parameters" => return Ok(Stdin::Parameters),
        _ => {}
    }
    match argument(text)?.as_slice() {
        [Piece::Hole(Hole { name, kind: Kind::File, is_list: false, .. })] => Ok(Stdin::File(name.clone())),
        _ => Err(format!("`{}` is none of them", text.escape_debug())),
    }
}

fn hole(text: &str) -> Result<Hole, String> {
    let (text, is_option) = text.strip_suffix(",option").map_or((text, false), |text| (text, true));
    let (text, is_list) = text.strip_suffix("...").map_or((text, false), |text| (text, true));
    let Some((name, kind)) = text.split_once(':') else {
        return Err(format!(
            "`{{{}}}` has no kind: it is written as in `{{limit:integer}}`",
            text.escape_debug()
        ));
    };
    let Some(kind) = Kind::ALL.into_iter().find(|known| known.name() == kind) else {
        let kinds = Kind::ALL.map(Kind::name).join(", ");
        return Err(format!("`{}` is no kind; there are: {kinds}", kind.escape_debug()));
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(plain) {
        return Err(format!("`{}` is no parameter's name", name.escape_debug()));
    }
    if is_list && matches!(kind, Kind::Flag | Kind::File) {
        return Err(format!("a list of the kind `{}` can't be", kind.name()));
    }
    Ok(Hole { name: name.to_owned(), kind, is_list, is_option })
}

/// Whether an argument leaves the choice of an option to nobody who calls.
fn options(pieces: &[Piece]) -> Result<(), String> {
    let Some(Piece::Literal(first)) = pieces.first() else { return Ok(()) };
    if !first.starts_with('-') {
        return Ok(());
    }
    // Behind the name of an option: `--name=`, or for a number `-C`.
    let mut before = String::new();
    for piece in pieces {
        match piece {
            Piece::Literal(text) => before.push_str(text),
            Piece::Hole(hole) if hole.is_option || before.contains('=') => {}
            Piece::Hole(hole) => {
                let is_letter = !before.starts_with("--") && before.len() > 1;
                if !(is_letter && matches!(hole.kind, Kind::Integer | Kind::Number)) {
                    return Err(format!(
                        "`{{{}:{}}}` would be part of an option's name; put it behind a `=`, in an argument of its own, or write `,option`",
                        hole.name,
                        hole.kind.name()
                    ));
                }
            }
        }
    }
    Ok(())
}

impl Template {
    /// All holes.
    pub fn holes(&self) -> impl Iterator<Item = &Hole> {
        self.groups.iter().flatten().flatten().filter_map(|piece| match piece {
            Piece::Hole(hole) => Some(hole),
            Piece::Literal(_) => None,
        })
    }

    /// Whether a template and a schema of parameters are of each other. What isn't is told, all of it.
    #[must_use]
    pub fn faults(&self, schema: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        if self.groups.iter().map(Vec::len).sum::<usize>() > MAX_TEMPLATE {
            faults.push(format!("there are more than {MAX_TEMPLATE} arguments"));
        }
        if self.holes().filter(|hole| hole.kind == Kind::File).count() > MAX_OPENINGS {
            faults.push(format!("there are more than {MAX_OPENINGS} holes of the kind `file`"));
        }
        let empty = serde_json::Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let mut used: BTreeSet<&str> = BTreeSet::new();
        for group in &self.groups {
            faults.extend(of_group(group));
        }
        for hole in self.holes() {
            used.insert(&hole.name);
            faults.extend(of_hole(hole, properties.get(&hole.name), schema));
        }
        if let Stdin::File(name) = &self.stdin {
            used.insert(name);
            let hole = Hole { name: name.clone(), kind: Kind::File, is_list: false, is_option: false };
            faults.extend(of_hole(&hole, properties.get(name), schema));
        }
        if self.stdin != Stdin::Parameters {
            let unused = properties.keys().filter(|name| !used.contains(name.as_str()));
            faults.extend(unused.map(|name| {
                format!("the parameter `{name}` stands nowhere in the command; give it a hole, take it away, or write `stdin = \"parameters\"`")
            }));
        }
        faults
    }
}

fn of_group(group: &Group) -> Option<String> {
    let mut lists = BTreeSet::new();
    let mut stands = false;
    for argument in group {
        let is_flag = |piece: &Piece| matches!(piece, Piece::Hole(Hole { kind: Kind::Flag, .. }));
        if argument.iter().any(is_flag) && argument.len() > 1 {
            return Some("a flag is inside an argument; it is written by itself, in a list with the arguments that it's for".into());
        }
        stands |= !argument.iter().any(is_flag);
        for piece in argument {
            if let Piece::Hole(Hole { name, is_list: true, .. }) = piece {
                lists.insert(name);
            }
        }
    }
    if !stands {
        return Some("a flag stands alone; it is written in a list with the arguments that it's for".into());
    }
    (lists.len() > 1).then(|| "two lists are in one group; give each a group of its own".into())
}

fn of_hole(hole: &Hole, property: Option<&Value>, root: &Value) -> Option<String> {
    let Hole { name, kind, .. } = hole;
    let Some(property) = property else {
        return Some(format!("`{{{name}:{}}}` names no property of the parameters", kind.name()));
    };
    let property = followed(property, root);
    let one = if hole.is_list {
        if property.get("type").is_none_or(|said| said != "array") {
            return Some(format!(
                "`{{{name}:{}...}}` takes a list: its property says `type = \"array\"`",
                kind.name()
            ));
        }
        property.get("items").map_or(&Value::Null, |items| followed(items, root))
    } else {
        property
    };
    let expected = kind.schema_type();
    if one.get("type").is_none_or(|said| said != expected) {
        return Some(format!("`{{{name}:{}}}` takes what says `type = \"{expected}\"`", kind.name()));
    }
    let is_path = one.get("format").is_some_and(|format| format == "workspace-path");
    if is_path != kind.is_of_the_workspace() {
        return Some(format!(
            "`{name}`: the kinds `path` and `file`, and no others, take what says `format = \"workspace-path\"`"
        ));
    }
    None
}

fn followed<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix("#/$defs/"));
    name.and_then(|name| root.get("$defs")?.get(name)).unwrap_or(schema)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn holes_are_read_with_kind_and_marks() {
        let pieces = argument("--glob={g:text...,option}!{{x}}").unwrap();
        assert_eq!(pieces[0], Piece::Literal("--glob=".into()));
        assert_eq!(
            pieces[1],
            Piece::Hole(Hole { name: "g".into(), kind: Kind::Text, is_list: true, is_option: true })
        );
        assert_eq!(pieces[2], Piece::Literal("!{x}".into()));
        assert_eq!(argument("").unwrap(), [Piece::Literal(String::new())]);
    }

    #[test]
    fn what_is_no_hole_is_refused() {
        for text in [
            "{a}",
            "{a:string}",
            "{:text}",
            "{a:text",
            "a}",
            "{a b:text}",
            "{a:flag...}",
            "{a:file...}",
            "{}",
            "{a:text,options}",
            "a\0",
            "{a:text..}",
        ] {
            assert!(argument(text).is_err(), "{text}");
        }
        assert!(argument(&"a".repeat(MAX_PIECE + 1)).is_err());
    }

    #[test]
    fn a_value_is_no_part_of_an_options_name() {
        for text in [
            "-{a:text}",
            "--{a:text}",
            "--no-{a:text}",
            "-{a:integer}",
            "-C{a:text}",
            "-x{a:path}",
            "--depth{a:integer}",
            "-{a:text}=x",
        ] {
            assert!(argument(text).unwrap_err().contains("option's name"), "{text}");
        }
        for text in [
            "--glob={a:text}",
            "-C{a:integer}",
            "-C{a:number}",
            "--{a:text,option}",
            "x-{a:text}",
            "{a:text}",
            "--a={b:text}-{c:text}",
        ] {
            assert!(argument(text).is_ok(), "{text}");
        }
    }

    fn template(groups: &[&[&str]]) -> Template {
        let groups =
            groups.iter().map(|group| group.iter().map(|text| argument(text).unwrap()).collect()).collect();
        Template { program: "/bin/x".into(), groups, stdin: Stdin::Nothing }
    }

    #[test]
    fn holes_and_schema_are_of_each_other() {
        let schema = json!({ "properties": {
            "t": { "type": "string" }, "n": { "$ref": "#/$defs/n" }, "l": { "type": "array", "items": { "type": "string" } },
            "m": { "type": "array", "items": { "type": "string" } }, "f": { "type": "boolean" }, "p": { "type": "string", "format": "workspace-path" },
        }, "$defs": { "n": { "type": "integer" } } });
        let all: &[&[&str]] = &[
            &["{t:text}"],
            &["{n:integer}"],
            &["{l:text...}"],
            &["{m:text...}"],
            &["-v", "{f:flag}"],
            &["{p:path}"],
        ];
        assert_eq!(template(all).faults(&schema), Vec::<String>::new());
        let with = |more: &[&str]| {
            let mut groups = all.to_vec();
            groups.push(more);
            template(&groups).faults(&schema)
        };
        for (more, expected) in [
            (&["{x:text}"][..], "names no property"),
            (&["{t:integer}"], "type = \"integer\""),
            (&["{n:text}"], "type = \"string\""),
            (&["{t:text...}"], "type = \"array\""),
            (&["{l:text}"], "type = \"string\""),
            (&["{l:integer...}"], "type = \"integer\""),
            (&["{p:text}"], "workspace-path"),
            (&["{t:path}"], "workspace-path"),
            (&["{f:flag}"], "stands alone"),
            (&["x{f:flag}"], "inside an argument"),
            (&["{l:text...}", "{m:text...}"], "two lists"),
        ] {
            let faults = with(more);
            assert!(faults.len() == 1 && faults[0].contains(expected), "{more:?}: {faults:?}");
        }
        assert!(template(&all[1..]).faults(&schema)[0].contains("`t` stands nowhere"));
        let too_many = template(&vec![&["x"][..]; MAX_TEMPLATE + 1]);
        assert!(too_many.faults(&json!({}))[0].contains("more than 256"));
    }

    #[test]
    fn standard_input_is_nothing_the_parameters_or_a_file() {
        assert_eq!(stdin("nothing"), Ok(Stdin::Nothing));
        assert_eq!(stdin("{a:file}"), Ok(Stdin::File("a".into())));
        for text in ["", "/etc/passwd", "{a:text}", "{a:file}x", "{a:path}"] {
            assert!(stdin(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_literals_are_themselves(text in "\\PC{0,16}|[{}a:tex.,\\-=]{0,16}") {
            if let Ok(pieces) = argument(&text)
                && pieces.iter().all(|piece| matches!(piece, Piece::Literal(_)))
            {
                prop_assert_eq!(pieces, vec![Piece::Literal(text.replace("{{", "{").replace("}}", "}"))]);
            }
        }
    }
}
