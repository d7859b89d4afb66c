//! All tools: whole and in order, or not at all. A reload makes another registry, or keeps the old one.

use core::ops::Bound;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use stockade_policies::Mistake;
use stockade_policies::files::FileError;
use stockade_policies::nearest::nearest_first;

use super::manifest::Tool;
use super::signature::{Keys, SignatureError, Signed};
use super::{Digest, MAX_NAME, MAX_TOOLS, is_name};

/// The most names that are told of when one isn't there.
const MAX_NEAREST: usize = 3;
/// The most pairs of letters that are compared to find them: each costs some nanoseconds, and who asks may ask for anything.
const MAX_COMPARED: usize = 32 * 1024;

/// A tool's file, read.
#[derive(Debug, Clone)]
pub struct Text {
    /// As errors name it.
    pub file: String,
    /// As it is called, without its ending.
    pub name: String,
    /// What it says.
    pub text: String,
    /// The file of its signature, if there is one: as errors name it, and what it says.
    pub signature: Option<(String, String)>,
}

/// Whose signatures count, and whether there has to be one.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// The keys.
    pub keys: Keys,
    /// A tool without a signature isn't taken.
    pub is_required: bool,
}

/// One thing that is wrong with the tools.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// At a place of a file.
    #[error(transparent)]
    Text(#[from] Mistake),
    /// A file, or a directory of them, can't be read or isn't one that is.
    #[error(transparent)]
    File(#[from] FileError),
    /// A signature is missing, or doesn't count.
    #[error("{file}: {why}; {}", why.remedy())]
    Signature {
        /// The tool's file.
        file: String,
        /// Why.
        why: SignatureError,
    },
    /// Two directories have a tool of the same name.
    #[error("{second}: a tool named `{name}` is already there: {first}; rename one of them")]
    Duplicate {
        /// The name.
        name: String,
        /// The file that has it.
        first: String,
        /// The file that has it, too.
        second: String,
    },
    /// More than can be held.
    #[error("{path}: {count} tools are over the limit of {MAX_TOOLS}; take away what isn't needed")]
    TooMany {
        /// The directory.
        path: PathBuf,
        /// How many there are.
        count: usize,
    },
}

/// No tool of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no tool is named `{}`{}", name.escape_debug(), near(nearest, *tools))]
pub struct UnknownTool {
    /// The name, shortened.
    pub name: String,
    /// Those that are most like it, of those that stand about where it would; none, if it can be no tool's name.
    pub nearest: Vec<String>,
    /// How many tools there are.
    pub tools: usize,
}

fn near(names: &[String], tools: usize) -> String {
    match (names, tools) {
        (_, 0) => "; there are none".to_owned(),
        ([], _) => String::new(),
        _ => format!("; the nearest are: {}", names.join(", ")),
    }
}

/// The tools.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    tools: BTreeMap<String, Arc<Tool>>,
    digest: Option<Digest>,
}

impl Registry {
    /// Of these texts. `spent`: the processor time that this thread has spent, by which compiling schemas is bounded.
    ///
    /// # Errors
    /// All that is wrong with any of them.
    pub fn of(texts: &[Text], trust: &Trust, spent: &dyn Fn() -> Duration) -> Result<Self, Vec<ToolError>> {
        let (mut tools, mut wrong) = (BTreeMap::new(), Vec::new());
        for text in texts {
            wrong.extend(distrusted(text, trust));
            match Tool::read(&text.file, &text.name, &text.text, spent) {
                Ok(tool) => {
                    if let Some(first) = tools.insert(tool.name.clone(), Arc::new(tool)) {
                        let (name, first) = (first.name.clone(), first.file.clone());
                        wrong.push(ToolError::Duplicate { name, first, second: text.file.clone() });
                    }
                }
                Err(mistakes) => wrong.extend(mistakes.into_iter().map(ToolError::from)),
            }
        }
        let digest = Some(digest(&tools));
        if wrong.is_empty() { Ok(Self { tools, digest }) } else { Err(wrong) }
    }

    /// A tool.
    ///
    /// # Errors
    /// There is none of this name; the nearest names.
    pub fn get(&self, name: &str) -> Result<&Arc<Tool>, UnknownTool> {
        self.tools.get(name).ok_or_else(|| {
            let nearest = if is_name(name) { nearest_first(name, self.like(name)) } else { Vec::new() };
            let nearest = nearest.into_iter().take(MAX_NEAREST).map(ToOwned::to_owned).collect();
            let tools = self.tools.len();
            UnknownTool { name: name.chars().take(MAX_NAME).collect(), nearest, tools }
        })
    }

    /// A tool, if there is one: for who needs no words about that there is none.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<Tool>> {
        self.tools.get(name)
    }

    /// Names of about its length, outwards from where it would stand among them, as many as may be compared with it.
    fn like(&self, name: &str) -> Vec<&str> {
        let apart = (name.len() / 3).max(2);
        let is_like = |other: &&str| other.len().abs_diff(name.len()) <= apart;
        let place = Bound::Excluded(name);
        let before = self.tools.range::<str, _>((Bound::Unbounded, place)).rev();
        let behind = self.tools.range::<str, _>((place, Bound::Unbounded));
        let mut before = before.map(|(other, _)| other.as_str()).filter(is_like);
        let mut behind = behind.map(|(other, _)| other.as_str()).filter(is_like);
        let (mut like, mut left) = (Vec::new(), MAX_COMPARED);
        loop {
            let next = [before.next(), behind.next()];
            for other in next.into_iter().flatten() {
                match left.checked_sub(name.len() * other.len()) {
                    Some(fewer) => left = fewer,
                    None => return like,
                }
                like.push(other);
            }
            if next == [None, None] {
                return like;
            }
        }
    }

    /// All of them, by name.
    pub fn tools(&self) -> impl ExactSizeIterator<Item = &Arc<Tool>> {
        self.tools.values()
    }

    /// The digest of all of it: another one, if a byte of any tool's file is.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest.unwrap_or_else(|| digest(&self.tools))
    }
}

/// Over each name's length, the name, and its file's digest, in the names' order: no two sets have the same bytes.
fn digest(tools: &BTreeMap<String, Arc<Tool>>) -> Digest {
    let mut bytes = Vec::new();
    for (name, tool) in tools {
        bytes.extend_from_slice(&(name.len() as u64).to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(&tool.digest.0);
    }
    Digest::of(&bytes)
}

/// A signature that is there has to hold, required or not.
fn distrusted(text: &Text, trust: &Trust) -> Vec<ToolError> {
    let error = |why| vec![ToolError::Signature { file: text.file.clone(), why }];
    match &text.signature {
        None if trust.is_required => error(SignatureError::Missing),
        None => Vec::new(),
        Some((file, said)) => match Signed::read(file, said) {
            Err(mistakes) => mistakes.into_iter().map(ToolError::from).collect(),
            Ok(signed) => {
                trust.keys.verify(text.text.as_bytes(), &signed).err().map(error).unwrap_or_default()
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::signature::Secret;
    use super::*;

    fn tool(name: &str) -> Text {
        let text = format!(
            "name = \"{name}\"\ndescription = \"x\"\nversion = \"1\"\npolicy = \"default\"\n[command]\nprogram = \"/bin/true\"\n[parameters]\ntype = \"object\"\n"
        );
        Text { file: format!("{name}.toml"), name: name.into(), text, signature: None }
    }

    fn registry(texts: &[Text], trust: &Trust) -> Result<Registry, Vec<String>> {
        let made = Registry::of(texts, trust, &|| Duration::ZERO);
        made.map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn it_has_all_or_is_none_and_tells_all_that_is_wrong() {
        let made = registry(&[tool("b"), tool("a")], &Trust::default()).unwrap();
        let names: Vec<&str> = made.tools().map(|tool| tool.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let (mut bad, mut worse) = (tool("c"), tool("d"));
        bad.text.push_str("x = 1\n");
        worse.text = "[".into();
        let wrong = registry(&[tool("a"), bad, worse], &Trust::default()).unwrap_err();
        assert!(
            wrong.len() == 2 && wrong[0].starts_with("c.toml:") && wrong[1].starts_with("d.toml:"),
            "{wrong:?}"
        );
    }

    #[test]
    fn no_tool_stands_before_another_of_its_name() {
        let mut other = tool("a");
        other.file = "elsewhere/a.toml".into();
        let wrong = registry(&[tool("a"), other], &Trust::default()).unwrap_err();
        assert_eq!(
            wrong,
            ["elsewhere/a.toml: a tool named `a` is already there: a.toml; rename one of them"]
        );
    }

    #[test]
    fn an_unknown_name_is_told_with_the_nearest() {
        let made = registry(&[tool("search"), tool("fetch"), tool("build"), tool("test")], &Trust::default())
            .unwrap();
        let unknown = made.get("serach").unwrap_err();
        assert!(unknown.to_string().starts_with("no tool is named `serach`; the nearest are: search, "));
        assert_eq!(made.get("\u{1b}[2J").unwrap_err().to_string().find('\u{1b}'), None);
        assert_eq!(
            Registry::default().get("x").unwrap_err().to_string(),
            "no tool is named `x`; there are none"
        );
        assert!(made.get(&"x".repeat(1 << 20)).unwrap_err().to_string().len() < 400);
        assert_eq!(made.get("Search").unwrap_err().to_string(), "no tool is named `Search`");
    }

    #[test]
    fn what_is_compared_with_an_unknown_name_is_bounded_however_many_tools_there_are() {
        let text = |name: &str| Arc::new(Tool::read("", name, &tool(name).text, &|| Duration::ZERO).unwrap());
        let of = |names: &[String]| Registry {
            tools: names.iter().map(|name| (name.clone(), text(name))).collect(),
            digest: None,
        };
        let few: Vec<String> = (0..200).map(|at| format!("t{at:03}-search")).collect();
        let few = of(&few);
        assert_eq!(few.like("t100-serach").len(), 200);
        assert_eq!(few.get("t199-serach").unwrap_err().nearest[0], "t199-search");
        assert!(few.like("t").is_empty(), "all are longer");
        let many: Vec<String> =
            (0..1_000).map(|at| format!("t{at:03}-{}", "a".repeat(MAX_NAME - 5))).collect();
        let many = of(&many);
        let wanted = format!("t500x{}", "a".repeat(MAX_NAME - 5));
        let like = many.like(&wanted);
        assert!(
            like.iter().map(|other| other.len() * wanted.len()).sum::<usize>() <= MAX_COMPARED,
            "{like:?}"
        );
        assert_eq!(many.get(&wanted).unwrap_err().nearest[0], format!("t500-{}", "a".repeat(MAX_NAME - 5)));
        assert!(many.get(&wanted.to_uppercase()).unwrap_err().nearest.is_empty());
    }

    #[test]
    fn every_byte_of_every_file_is_in_the_digest() {
        let digest = |texts: &[Text]| registry(texts, &Trust::default()).unwrap().digest();
        let mut changed = tool("a");
        changed.text.push('#');
        let all = [
            digest(&[]),
            digest(&[tool("a")]),
            digest(&[changed]),
            digest(&[tool("a"), tool("b")]),
            digest(&[tool("b")]),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        assert_eq!(digest(&[tool("b"), tool("a")]), digest(&[tool("a"), tool("b")]));
    }

    #[test]
    fn signatures_hold_or_nothing_does() {
        let (ours, theirs) = (Secret::of(&[1; 32]), Secret::of(&[2; 32]));
        let signed = |secret: &Secret| {
            let mut text = tool("a");
            text.signature = Some(("a.toml.sig".into(), secret.sign(text.text.as_bytes()).text()));
            text
        };
        let mut trust = Trust { is_required: true, ..Trust::default() };
        trust.keys.add("k.toml", "k", &ours.public_text()).unwrap();
        assert!(registry(&[signed(&ours)], &trust).is_ok());
        let mut changed = signed(&ours);
        changed.text = changed.text.replace("/bin/true", "/bin/sh");
        for (text, expected) in [
            (tool("a"), "a.toml: it isn't signed; read the file"),
            (signed(&theirs), "isn't trusted"),
            (changed.clone(), "isn't over what the file says now"),
        ] {
            assert!(registry(&[text], &trust).unwrap_err()[0].contains(expected));
        }
        // One that isn't required has to hold all the same.
        trust.is_required = false;
        assert!(registry(&[tool("a")], &trust).is_ok());
        assert!(registry(&[changed], &trust).is_err() && registry(&[signed(&theirs)], &trust).is_err());
        let mut cut = signed(&ours);
        cut.signature = Some(("a.toml.sig".into(), "key = \"\"".into()));
        assert!(registry(&[cut], &trust).unwrap_err()[0].starts_with("a.toml.sig:"));
    }
}
