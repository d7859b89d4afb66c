//! The shipped policies as trees of TOML, so that no run reads their text: `src/shipped.rs` includes what is made here,
//! `src/tree.rs` has its types. Nodes are offsets into the text and not references, as in `calls`.

use std::fmt::Write as _;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The shipped policies, in this order.
pub(crate) const NAMES: [&str; 6] = ["strict", "default", "build", "loopback", "moderate", "minimal"];

/// The policies of [`NAMES`] as Rust, from their texts.
pub(crate) fn built(texts: &[String]) -> Result<String, String> {
    let mut out = format!("pub(crate) static PROFILES: [(&str, &str, Built); {}] = [\n", NAMES.len());
    for (name, text) in NAMES.iter().zip(texts) {
        let mut tree = Tree { text, nodes: Vec::new() };
        let root = DeTable::parse(text).map_err(|error| format!("profiles/{name}.toml: {error}"))?;
        tree.table(0, root.get_ref()).map_err(|wrong| format!("profiles/{name}.toml: {wrong}"))?;
        let nodes = tree.nodes.concat();
        let _ = writeln!(
            out,
            "    ({name:?}, \"shipped/{name}.toml\", Built {{ text: {text:?}, nodes: &[\n{nodes}    ] }}),"
        );
    }
    out.push_str("];\n");
    Ok(out)
}

struct Tree<'a> {
    text: &'a str,
    /// Each as Rust.
    nodes: Vec<String>,
}

impl Tree<'_> {
    fn table(&mut self, at: usize, table: &DeTable<'_>) -> Result<(), String> {
        self.with("Table", at, |tree| {
            for (key, value) in table {
                tree.with_text("Key", key.span().start, key.get_ref(), |tree| tree.value(value))?;
            }
            Ok(())
        })
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>) -> Result<(), String> {
        let at = value.span().start;
        match value.get_ref() {
            DeValue::String(text) => self.with_text("Text", at, text, |_| Ok(())),
            DeValue::Integer(number) if number.radix() == 10 => {
                self.with_text("Number", at, number.as_str(), |_| Ok(()))
            }
            DeValue::Boolean(truth) => self.with(if *truth { "True" } else { "False" }, at, |_| Ok(())),
            DeValue::Array(list) => {
                self.with("List", at, |tree| list.iter().try_for_each(|element| tree.value(element)))
            }
            DeValue::Table(table) => self.table(at, table),
            _ => Err(format!("byte {at}: a shipped policy has no floats, dates, and numbers with a radix")),
        }
    }

    /// A node that the text says just so, perhaps in quotes.
    fn with_text(
        &mut self,
        kind: &str,
        at: usize,
        said: &str,
        inside: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        let quoted = usize::from(self.text[at..].starts_with(['"', '\'']));
        let start = at + quoted;
        if !self.text[start..].starts_with(said) {
            return Err(format!(
                "byte {at}: a shipped policy has its texts plain, in one line and without escapes"
            ));
        }
        self.node(kind, at, start..start + said.len(), inside)
    }

    fn with(
        &mut self,
        kind: &str,
        at: usize,
        inside: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        self.node(kind, at, 0..0, inside)
    }

    fn node(
        &mut self,
        kind: &str,
        at: usize,
        said: std::ops::Range<usize>,
        inside: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        let index = self.nodes.len();
        self.nodes.push(String::new());
        inside(self)?;
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|character| *character != '\n').count() + 1;
        let (start, end, next) = (said.start, said.end, self.nodes.len());
        self.nodes[index] = format!(
            "        Node {{ kind: Kind::{kind}, start: {start}, end: {end}, line: {line}, column: {column}, next: {next} }},\n"
        );
        Ok(())
    }
}
