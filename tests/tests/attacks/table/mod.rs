//! The attacks: what is tried, which layers stop it, who can do it without them, which policies promise to stop it.
//!
//! The probe's words, the answers and the page for people (`docs/guarantees.md`) come from here and nowhere else.

mod bounds;
mod calls;
mod files;
mod privilege;
mod processes;
mod talking;

use Layer::{Filter, FlatFilter, Identity, Landlock, Namespaces};

/// What stops an attack by itself. Each is tried alone where the table names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    /// A root, processes, network, names and message queues of the run's own.
    Namespaces,
    /// The Landlock domain.
    Landlock,
    /// The filter of system calls, of every level.
    Filter,
    /// The filter of a level that lacks the namespace which stops it at the others.
    FlatFilter,
    /// No capability, no new privilege, an unprivileged uid, limits: what the kernel itself refuses to such a process.
    Identity,
}

impl Layer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Landlock => "Landlock",
            Self::Filter => "filter",
            Self::FlatFilter => "filter of a level without that namespace",
            Self::Identity => "identity and limits",
        }
    }
}

/// Where the same is possible: the other half of the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Twin {
    /// In a run with every layer left out that the launcher can leave out, as an unprivileged user.
    Bare,
    /// Outside, as an unprivileged user.
    User,
    /// Outside, as root: the kernel refuses it to everybody else, whatever a sandbox does.
    Root,
}

impl Twin {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "without the layers",
            Self::User => "outside",
            Self::Root => "outside, as root",
        }
    }
}

/// One attack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attack {
    /// What the page and a failure call it.
    pub(crate) name: &'static str,
    /// The probe's words.
    pub(crate) words: &'static str,
    /// Answers that mean it was stopped.
    pub(crate) stopped: &'static [&'static str],
    /// The layers that stop it, each by itself.
    pub(crate) by: &'static [Layer],
    /// Where it's possible.
    pub(crate) twin: Twin,
    /// The policies that promise to stop it.
    pub(crate) policies: &'static [&'static str],
    /// Why the others don't.
    pub(crate) gap: &'static str,
}

/// A class of attacks.
pub(crate) struct Class {
    pub(crate) name: &'static str,
    pub(crate) attacks: &'static [Attack],
}

/// Every class.
pub(crate) const CLASSES: &[Class] = &[
    Class { name: "System calls that give power", attacks: calls::ATTACKS },
    Class {
        name: "Bits, nodes and attributes that give privilege to whoever comes later",
        attacks: privilege::ATTACKS,
    },
    Class { name: "Files that no policy names", attacks: files::ATTACKS },
    Class { name: "Other processes, identity and limits", attacks: processes::ATTACKS },
    Class { name: "Talking out", attacks: talking::ATTACKS },
    Class { name: "What the kernel has for all together", attacks: bounds::ATTACKS },
];

/// Every attack.
pub(crate) fn all() -> impl Iterator<Item = &'static Attack> {
    CLASSES.iter().flat_map(|class| class.attacks)
}

/// The policies of the page's columns, one a level and the one that writes nothing.
pub(crate) const COLUMNS: &[&str] = &["strict", "default", "moderate", "minimal"];
const ALL: &[&str] = COLUMNS;
/// Those with a root of their own.
const ROOTED: &[&str] = &["strict", "default", "moderate"];
/// Those that let the workspace be written.
const WRITABLE: &[&str] = &["default", "moderate", "minimal"];
/// Those without a network namespace.
const FLAT: &[&str] = &["moderate", "minimal"];

const NO: &[&str] = &["errno=1", "errno=38"];
const GONE: &[&str] = &["errno=2", "errno=13", "errno=1"];
const NOBODY: &[&str] = &["errno=3", "errno=1"];
const UNREACHABLE: &[&str] = &["errno=101", "errno=111", "errno=1", "errno=13", "errno=97", "errno=113"];
const FAMILY: &[&str] = &["errno=1", "errno=97", "errno=13", "errno=38", "errno=93", "errno=22", "errno=94"];
const READ_ONLY: &[&str] = &["errno=30", "errno=13", "errno=1", "errno=2"];

const fn attack(name: &'static str, words: &'static str, stopped: &'static [&'static str]) -> Attack {
    Attack { name, words, stopped, by: &[Filter], twin: Twin::Bare, policies: ALL, gap: "" }
}

impl Attack {
    const fn by(self, by: &'static [Layer]) -> Self {
        Self { by, ..self }
    }

    const fn twin(self, twin: Twin) -> Self {
        Self { twin, ..self }
    }

    const fn only(self, policies: &'static [&'static str], gap: &'static str) -> Self {
        Self { policies, gap, ..self }
    }
}
