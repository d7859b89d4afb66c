//! All policies there are: the shipped ones and those of files. Made whole or not at all, never changed.
//!
//! * An operator's policy may take a shipped one's name and replaces it; it may extend the one it replaces, under
//!   that same name. A user's may not: nothing that a person reads as `default` is then something else.
//! * Otherwise two sources never have the same name.
//! * A policy is trusted as much as the least trusted file among itself and its ancestors.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use crate::directory::Look;
use crate::document::{self, Document};
use crate::error::{PolicyError, Problem};
use crate::inherit::inherit;
use crate::nearest::nearest_first;
use crate::policy::{Parts, Policy, check_users};
use crate::position::Located;
use crate::reader::shown;
use crate::said::Said;
use crate::syscalls::Filters;
use crate::tree::Built;
use crate::{directory, shipped};

/// The most policies of one set. A service for many tools has thousands.
pub(crate) const MAX_POLICIES: usize = 16 * 1024;
/// The most ancestors of a policy.
const MAX_ANCESTORS: usize = 8;

/// Whose a policy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trust {
    /// It comes with the program.
    Shipped,
    /// The machine's operator wrote it.
    Operator,
    /// A user wrote it. It may not give the host's network (but for a daemon of that user's own), set a range of
    /// user ids, name device nodes beyond the harmless ones, or allow system calls of `syscalls/never.txt`.
    User,
}

/// One policy's text.
#[derive(Debug, Clone)]
pub struct Source {
    /// The policy's name: its file's stem.
    pub name: String,
    /// The file as errors and answers show it.
    pub file: String,
    /// Its TOML.
    pub text: String,
    /// Whose it is.
    pub trust: Trust,
}

/// A policy that isn't read yet.
struct Unread {
    name: String,
    file: Said,
    body: Body,
    trust: Trust,
}

enum Body {
    Text(String),
    /// As positions name it, and what it says.
    Shipped(&'static str, &'static Built),
}

impl Unread {
    /// The shipped policies, and these.
    fn all(sources: Vec<Source>) -> Result<Vec<Self>, PolicyError> {
        if sources.len() > MAX_POLICIES {
            return Err(PolicyError::TooMany { count: sources.len(), limit: MAX_POLICIES });
        }
        let shipped = shipped::PROFILES.iter().map(|(name, file, built)| Self {
            name: (*name).to_owned(),
            file: Said::Built(file),
            body: Body::Shipped(file, built),
            trust: Trust::Shipped,
        });
        let given = sources.into_iter().map(|Source { name, file, text, trust }| Self {
            name,
            file: file.into(),
            body: Body::Text(text),
            trust,
        });
        Ok(shipped.chain(given).collect())
    }

    fn read(&self) -> Result<Document, PolicyError> {
        match &self.body {
            Body::Text(text) => document::parse(&self.file, &self.name, text),
            Body::Shipped(file, built) => document::built(file, &self.name, built),
        }
    }
}

/// Every policy, by name. Immutable; share it by `Arc`.
#[derive(Debug, Default)]
pub struct PolicySet {
    policies: Policies,
}

/// No policy of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no policy named `{asked}`; there are: {}", names.join(", "))]
pub struct UnknownPolicy {
    /// The name asked for, shortened and without control characters.
    pub asked: String,
    /// The names there are, the nearest first.
    pub names: Vec<String>,
}

impl PolicySet {
    /// The shipped policies alone.
    #[must_use]
    pub fn shipped() -> Self {
        Self { policies: shipped_parts().0.clone() }
    }

    /// The shipped policies and these.
    ///
    /// # Errors
    /// The first thing that is wrong with any of them: then there is no set.
    pub fn from_sources(sources: Vec<Source>) -> Result<Self, PolicyError> {
        // Most policies have a filter that a shipped one has, too.
        Self::build(sources, &mut shipped_parts().1.clone())
    }

    fn build(sources: Vec<Source>, filters: &mut Filters) -> Result<Self, PolicyError> {
        Self::of(&Files::read(Unread::all(sources)?)?, filters)
    }

    /// As [`PolicySet::from_sources`], but of all these only the policy of this name: the others, its ancestors
    /// apart, are neither read nor compiled, and what is wrong with them doesn't matter. For one run that doesn't
    /// outlive its set. All of them where there is none of that name, so that asking for it names the nearest.
    ///
    /// # Errors
    /// As [`PolicySet::from_sources`].
    pub fn from_sources_named(sources: Vec<Source>, name: &str) -> Result<Self, PolicyError> {
        let all = Unread::all(sources)?;
        if !all.iter().any(|source| source.name == name) {
            return Self::of(&Files::read(all)?, &mut Filters::default());
        }
        let mut all: Vec<(Unread, Option<Arc<Document>>)> =
            all.into_iter().map(|source| (source, None)).collect();
        let mut needed = vec![name.to_owned()];
        let mut at = 0;
        while at < needed.len() && at <= MAX_ANCESTORS {
            let wanted = needed[at].clone();
            for (source, parsed) in all.iter_mut().filter(|(source, _)| source.name == wanted) {
                if parsed.is_none() {
                    let document = source.read()?;
                    needed.extend(document.extends.as_ref().map(|extends| extends.value.clone()));
                    *parsed = Some(Arc::new(document));
                }
            }
            at += 1;
        }
        let files = Files::of(all.into_iter().filter(|(source, _)| needed.contains(&source.name)))?;
        let mut set = Self::default();
        if let Some(file) = files.by_name.get(name) {
            let chain = files.chain(name, file)?;
            // Nobody else needs the documents: then they are joined without a copy.
            drop(files);
            let policy = Policy::new(chain.joined(), &mut Filters::default())?;
            set.policies.insert(name.to_owned(), Arc::new(policy));
        }
        Ok(set)
    }

    fn of(files: &Files, filters: &mut Filters) -> Result<Self, PolicyError> {
        let mut policies = BTreeMap::new();
        for (name, file) in &files.by_name {
            let policy = Policy::new(files.chain(name, file)?.joined(), filters)?;
            policies.insert(name.clone(), Arc::new(policy));
        }
        Ok(Self { policies })
    }

    /// All that [`PolicySet::from_sources`] would refuse these for: what is wrong with each text; and if nothing is, with
    /// what they make together.
    #[must_use]
    pub fn mistakes(sources: Vec<Source>) -> Vec<PolicyError> {
        let all = match Unread::all(sources) {
            Ok(all) => all,
            Err(error) => return vec![error],
        };
        let (mut read, mut wrong) = (Vec::new(), Vec::new());
        for source in all {
            match source.read() {
                Ok(document) => read.push((source, Some(Arc::new(document)))),
                Err(error) => wrong.push(error),
            }
        }
        if !wrong.is_empty() {
            return wrong;
        }
        let files = match Files::of(read.into_iter()) {
            Ok(files) => files,
            Err(error) => return vec![error],
        };
        let mut filters = shipped_parts().1.clone();
        let policy = |(name, file): (&String, &File)| {
            files.chain(name, file).and_then(|chain| Policy::new(chain.joined(), &mut filters)).err()
        };
        files.by_name.iter().filter_map(policy).collect()
    }

    /// The shipped policies and those of directories; a directory that doesn't exist has none. `look` says whose they
    /// may be.
    ///
    /// # Errors
    /// As [`PolicySet::from_sources`], and what can't be read.
    pub fn load(directories: &[(PathBuf, Trust)], look: Look<'_>) -> Result<Self, PolicyError> {
        let (sources, wrong) = directory::all(directories, look);
        match wrong.into_iter().next() {
            Some(error) => Err(error),
            None => Self::from_sources(sources),
        }
    }

    /// A policy by its name.
    ///
    /// # Errors
    /// [`UnknownPolicy`], with the names there are.
    pub fn get(&self, name: &str) -> Result<&Policy, UnknownPolicy> {
        /// As many names as help a person.
        const NAMED: usize = 32;
        self.policies.get(name).map(Arc::as_ref).ok_or_else(|| {
            let names = nearest_first(name, self.policies.keys().map(String::as_str));
            UnknownPolicy {
                asked: shown(name).chars().take(80).collect(),
                names: names.into_iter().take(NAMED).map(ToOwned::to_owned).collect(),
            }
        })
    }

    /// Whether there is one of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.policies.contains_key(name)
    }

    /// All names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.policies.keys().map(String::as_str).collect()
    }
}

type Policies = BTreeMap<String, Arc<Policy>>;

/// The shipped policies and their filters, made once. A test holds that they load; if they didn't, there would be
/// none of them, and every run would be refused.
fn shipped_parts() -> &'static (Policies, Filters) {
    static SHIPPED: LazyLock<(Policies, Filters)> = LazyLock::new(|| {
        let mut filters = Filters::default();
        let set = PolicySet::build(Vec::new(), &mut filters).unwrap_or_default();
        (set.policies, filters)
    });
    &SHIPPED
}

/// A file that was read, not yet joined with its parents.
struct File {
    file: Said,
    trust: Trust,
    document: Arc<Document>,
}

/// A policy and its ancestors, the parent first.
struct Chain {
    names: Vec<String>,
    file: Said,
    trusted: bool,
    shipped: bool,
    documents: Vec<Arc<Document>>,
}

/// All files, by the policy's name; and shipped ones that an operator's replace.
struct Files {
    by_name: BTreeMap<String, File>,
    replaced: BTreeMap<String, File>,
}

impl Files {
    fn read(sources: Vec<Unread>) -> Result<Self, PolicyError> {
        Self::of(sources.into_iter().map(|source| (source, None)))
    }

    /// Of sources, some of which are parsed already.
    fn of(sources: impl Iterator<Item = (Unread, Option<Arc<Document>>)>) -> Result<Self, PolicyError> {
        let mut files = Self { by_name: BTreeMap::new(), replaced: BTreeMap::new() };
        for (source, parsed) in sources {
            let document = parsed.map_or_else(|| source.read().map(Arc::new), Ok)?;
            let Unread { name, file, trust, .. } = source;
            if trust == Trust::User {
                check_users(&document)?;
            }
            match (files.by_name.remove(&name), trust) {
                (None, _) => {}
                (Some(earlier), Trust::Operator) if earlier.trust == Trust::Shipped => {
                    files.replaced.insert(name.clone(), earlier);
                }
                (Some(earlier), _) if earlier.trust == Trust::Shipped => {
                    return Err(PolicyError::Shadow { name, file: file.to_string() });
                }
                (Some(earlier), _) => {
                    return Err(PolicyError::Duplicate {
                        name,
                        first: earlier.file.to_string(),
                        second: file.to_string(),
                    });
                }
            }
            files.by_name.insert(name, File { file, trust, document });
        }
        Ok(files)
    }

    /// A file and its ancestors.
    fn chain(&self, name: &str, file: &File) -> Result<Chain, PolicyError> {
        let mut chain = vec![(name.to_owned(), file)];
        let mut last = file;
        while let Some(extends) = &last.document.extends {
            let (child, _) = &chain[chain.len() - 1];
            let parent = self.parent(child, last, extends)?;
            let circle = chain.iter().any(|(_, seen)| core::ptr::eq(*seen, parent));
            chain.push((extends.value.clone(), parent));
            let names = || chain.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" → ");
            if circle {
                return Err(PolicyError::at(&extends.at, Problem::Circle { chain: names() }));
            }
            if chain.len() - 1 > MAX_ANCESTORS {
                let problem = Problem::Deep { limit: MAX_ANCESTORS, chain: names() };
                return Err(PolicyError::at(&extends.at, problem));
            }
            last = parent;
        }
        check_output(&chain)?;
        Ok(Chain {
            file: file.file.clone(),
            trusted: chain.iter().all(|(_, file)| file.trust != Trust::User),
            shipped: chain.iter().all(|(_, file)| file.trust == Trust::Shipped),
            documents: chain.iter().map(|(_, file)| Arc::clone(&file.document)).collect(),
            names: chain.into_iter().map(|(name, _)| name).collect(),
        })
    }

    /// A policy that replaces a shipped one and extends its own name means the shipped one.
    fn parent(&self, child: &str, file: &File, extends: &Located<String>) -> Result<&File, PolicyError> {
        let own = extends.value == child && file.trust != Trust::Shipped;
        let found = match self.replaced.get(&extends.value).filter(|_| own) {
            Some(replaced) => Some(replaced),
            None => self.by_name.get(&extends.value),
        };
        found.ok_or_else(|| {
            let names = nearest_first(&extends.value, self.by_name.keys().map(String::as_str));
            let names = names.into_iter().take(32).collect::<Vec<_>>().join(", ");
            PolicyError::at(&extends.at, Problem::UnknownParent { parent: extends.value.clone(), names })
        })
    }
}

/// What hides secrets in output a user's policy can't take away from an operator's that it extends. `chain`: the child first.
fn check_output(chain: &[(String, &File)]) -> Result<(), PolicyError> {
    let mut is_operators = false;
    for (_, file) in chain.iter().rev() {
        match &file.document.output.redact {
            Some(stated) if file.trust != Trust::User => is_operators = stated.value,
            Some(stated) if is_operators && !stated.value => {
                let what = "what an operator's policy redacts may be shown".into();
                return Err(PolicyError::at(&stated.at, Problem::NotTrusted { what, reason: String::new() }));
            }
            _ => {}
        }
    }
    Ok(())
}

impl Chain {
    /// The policy with what it has of its ancestors.
    fn joined(self) -> Parts {
        let Self { mut names, file, trusted, shipped, documents } = self;
        let name = names.remove(0);
        let documents = documents.into_iter().rev().map(Arc::unwrap_or_clone);
        let document = documents.reduce(|parent, child| inherit(child, parent)).unwrap_or_default();
        Parts { name, file, ancestors: names, trusted, shipped, document }
    }
}
