//! Files of approval: the machine's, and a user's own daemon's beside it.
//!
//! As with rules of access a user's daemon stands under both: what the machine's operator has somebody asked about, no file of the
//! user's permits without.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use stockade_gate::approve::{self, FILE, Filed, Reviews, Risk, Settings};
use stockade_gate::tools::Registry;
use stockade_gate::tools::expand::Input;
use stockade_policies::{Located, Mistake, Problem};

use super::access::{Placed, text};
use super::files::{Fault, Faults, TOOLS, asking};
use crate::paths::{Scope, configurations};

/// The files that hold for a daemon with this directory of configuration; none: nothing has a risk. `uid`: as whom it runs.
///
/// # Errors
/// All that is wrong with any of them.
pub fn files(directory: Option<&Path>, scope: Scope, uid: u32) -> Result<Vec<Arc<Filed>>, Faults> {
    let placed = placed(directory, scope, uid)?;
    Ok(placed.into_iter().map(|(_, filed)| filed).collect())
}

/// The same, each with its directory.
///
/// # Errors
/// As [`files`].
pub(super) fn placed(
    directory: Option<&Path>,
    scope: Scope,
    uid: u32,
) -> Result<Vec<(PathBuf, Arc<Filed>)>, Faults> {
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for directory in configurations(directory, scope) {
        match text(&directory, FILE, uid) {
            Ok(None) => {}
            Ok(Some((file, text))) => match approve::read(&file, &text) {
                Ok(filed) => found.push((directory, Arc::new(filed))),
                Err(mistakes) => wrong.extend(mistakes.into_iter().map(Fault::from)),
            },
            Err(fault) => wrong.push(fault),
        }
    }
    if wrong.is_empty() { Ok(found) } else { Err(Faults(wrong)) }
}

/// The risk that they see, for who has no past.
#[must_use]
pub fn risk(files: Vec<Arc<Filed>>) -> Risk {
    let mut risk = Risk::default();
    risk.set(files);
    risk
}

/// The reviewer programs of one directory.
#[derive(Debug)]
pub(crate) struct PlacedReviews {
    /// The directory.
    pub(crate) directory: PathBuf,
    /// They.
    pub(crate) reviews: Reviews,
}

/// Reviewer programs of all files, and whether they decide instead of people.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    pub(crate) placed: Vec<Arc<PlacedReviews>>,
    /// Whether nobody else is asked where they say yes.
    pub instead_of_people: bool,
}

impl Programs {
    /// Those of the files that hold for a daemon with this directory of configuration and these rules of access. `uid`: as whom it runs.
    ///
    /// # Errors
    /// As [`files`].
    pub fn load(directory: Option<&Path>, scope: Scope, uid: u32, rules: &[Placed]) -> Result<Self, Faults> {
        let placed = placed(directory, scope, uid)?;
        Ok(Self::of(&placed, &asking(&placed, rules)))
    }

    /// Those of each file.
    pub fn reviews(&self) -> impl Iterator<Item = &Reviews> {
        self.placed.iter().map(|placed| &placed.reviews)
    }

    /// `asking`: the directories with a rule by which somebody is asked. Each file's programs decide for that file alone: where any directory that asks doesn't say that its programs do, people are needed.
    pub(super) fn of(placed: &[(PathBuf, Arc<Filed>)], asking: &BTreeSet<PathBuf>) -> Self {
        let instead = |filed: &Filed| filed.reviews.as_ref().is_some_and(|reviews| reviews.instead_of_people);
        let says_so =
            |directory: &PathBuf| placed.iter().any(|(of, filed)| of == directory && instead(filed));
        let instead_of_people = !placed.is_empty()
            && placed.iter().all(|(_, filed)| instead(filed))
            && asking.iter().all(says_so);
        let reviews = placed.iter().filter_map(|(directory, filed)| {
            let (directory, reviews) = (directory.clone(), filed.reviews.clone()?);
            Some(Arc::new(PlacedReviews { directory, reviews }))
        });
        Self { placed: reviews.collect(), instead_of_people }
    }
}

/// What is wrong with the tools that are named as reviewers. Each has to be one of its own directory's, so that nobody who may write
/// elsewhere says what looks.
pub(super) fn faults(placed: &[(PathBuf, Arc<Filed>)], tools: &Registry) -> Vec<Fault> {
    let mut wrong = Vec::new();
    for (directory, filed) in placed {
        for reviewer in filed.reviews.iter().flat_map(|reviews| &reviews.reviewers) {
            wrong.extend(fault(&directory.join(TOOLS), &reviewer.tool, tools));
        }
    }
    wrong
}

fn fault(directory: &Path, named: &Located<String>, tools: &Registry) -> Option<Fault> {
    let name = named.value.escape_debug();
    let mistake = |wrong: String, remedy: &str| {
        let problem = Problem::Rule { wrong, remedy: remedy.to_owned() };
        Some(Mistake::new(&named.at, problem).into())
    };
    let tool = match tools.get(&named.value) {
        Ok(tool) => tool,
        Err(unknown) => {
            return mistake(unknown.to_string(), "a reviewer is a tool of this directory: write its file");
        }
    };
    if Path::new(&tool.file).parent() != Some(directory) {
        let text = format!("the tool `{name}` is another directory's");
        return mistake(text, "a reviewer is a tool of this directory: write one here");
    }
    let nothing = Map::new();
    let expanded = tool.template.expand(&nothing);
    match (tool.parameters.check(&Value::Object(nothing)), expanded) {
        (Ok(()), Ok(expanded)) if expanded.stdin == Input::Nothing && expanded.openings.is_empty() => None,
        (Ok(()), Ok(_)) => {
            let text = format!("the tool `{name}` has something on its standard input");
            mistake(text, "a reviewer is given the request there: leave out `stdin`")
        }
        _ => {
            let text = format!("the tool `{name}` takes parameters");
            mistake(text, "a reviewer is called without any: let it need none")
        }
    }
}

/// What an approval takes by all of them.
pub(super) fn settings(files: &[Arc<Filed>]) -> Settings {
    let all = files.iter().map(|filed| filed.settings).reduce(Settings::strictest);
    all.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_needed_unless_every_file_and_every_directory_that_asks_says_otherwise() {
        let reviewer = "[[reviewer]]\nname = \"a\"\ntool = \"a\"\ncost = 1\n[reviews]\n";
        let instead = format!("{reviewer}instead-of-people = true\n");
        let plain = "[approval]\nneeded = 1\n";
        let needs_people = |files: &[(&str, &str)], asking: &[&str]| {
            let of = |(directory, text): &(&str, &str)| {
                (PathBuf::from(directory), Arc::new(approve::read("approval.toml", text).unwrap()))
            };
            let placed: Vec<_> = files.iter().map(of).collect();
            let programs = Programs::of(&placed, &asking.iter().map(PathBuf::from).collect());
            assert_eq!(programs.placed.len(), files.iter().filter(|(_, text)| *text != plain).count());
            !programs.instead_of_people
        };
        for (files, asking, expected) in [
            (&[][..], &[][..], true),
            (&[("/m", plain)], &["/m"], true),
            (&[("/m", reviewer)], &["/m"], true),
            (&[("/m", instead.as_str())], &["/m"], false),
            // A user's file takes nothing of the machine's away, nor the machine's of a user's.
            (&[("/m", plain), ("/u", instead.as_str())], &["/u"], true),
            (&[("/m", reviewer), ("/u", instead.as_str())], &["/m", "/u"], true),
            (&[("/m", instead.as_str()), ("/u", reviewer)], &["/m"], true),
            (&[("/m", instead.as_str()), ("/u", instead.as_str())], &["/m", "/u"], false),
            // A rule of access that asks, in a directory whose file says nothing of programs, or that has none.
            (&[("/u", instead.as_str())], &["/m", "/u"], true),
        ] {
            assert_eq!(needs_people(files, asking), expected, "{files:?} {asking:?}");
        }
    }
}
