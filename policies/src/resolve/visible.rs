//! What a run can see: the list of mounts, and what is denied or protected within them.
//!
//! 1. Every path of `read`, `write` and `execute` becomes a bind with what all three lists say of it (`write` and
//!    `execute` include reading); the workspace's own path becomes the workspace.
//! 2. `/tmp`, `/var/tmp` and a hidden home become private; `/proc` and `/dev` are added. The workspace wins over a
//!    private directory of the same path.
//! 3. Lists that allow add up along a path, as Landlock's rules do: a path has what the binds above it have, too,
//!    unless a private directory lies between. A bind that so says nothing new is left out.
//! 4. `deny` removes what lies beneath it; `protect` takes writing away. What of both lies in the host's files is
//!    kept for the worker to mask; the rest is about files that aren't visible anyway.
//!
//! Sorted parents first: a later mount covers an earlier one, so the deepest mount above a path decides.

use std::collections::HashSet;

use stockade_protocol::Bytes;
use stockade_protocol::bounds::MAX_PATH;
use stockade_protocol::spec::{Access, Level, Mount, MountKind};

use super::error::ResolveError;
use super::request::{can_hide, shown};
use crate::amount::Size;
use crate::place::{Base, Place, Roots, depth, is_within};
use crate::policy::Policy;
use crate::position::{Located, Position};
use crate::rule::Rule;

/// The most mounts, and the most guarded paths, of one run.
const MAX_PATHS: usize = 512;
/// The size of a private directory where `tmp-size` isn't set.
const PRIVATE_SIZE: Size = Size::mebibytes(64);

/// Which rule gives what beneath a path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Grants {
    pub(crate) read: Option<Rule>,
    pub(crate) write: Option<Rule>,
    pub(crate) execute: Option<Rule>,
}

impl Grants {
    fn access(&self) -> Access {
        Access { read: self.read.is_some(), write: self.write.is_some(), execute: self.execute.is_some() }
    }

    fn add(&mut self, other: &Self) {
        fn fill(own: &mut Option<Rule>, other: &Option<Rule>) {
            if own.is_none() {
                own.clone_from(other);
            }
        }
        fill(&mut self.read, &other.read);
        fill(&mut self.write, &other.write);
        fill(&mut self.execute, &other.execute);
    }
}

/// One mount and its rules.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) target: Vec<u8>,
    pub(crate) kind: MountKind,
    pub(crate) grants: Grants,
}

impl Entry {
    /// Whether the host's files are here.
    pub(crate) fn is_host(&self) -> bool {
        matches!(self.kind, MountKind::Bind { .. } | MountKind::Workspace)
    }
}

/// A path that is denied or protected.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    pub(crate) path: Bytes,
    pub(crate) rule: Rule,
}

/// Everything visible, and the rules behind it.
#[derive(Debug, Clone)]
pub(crate) struct Visible {
    pub(crate) policy: String,
    pub(crate) entries: Vec<Entry>,
    pub(crate) deny: Vec<Guard>,
    pub(crate) protect: Vec<Guard>,
    /// Denied paths that lie on no host's file: what links of the host make of them is the worker's to find out.
    pub(crate) deny_elsewhere: Vec<Bytes>,
    /// Denies and protections of what isn't visible.
    pub(crate) moot: Vec<Guard>,
}

impl Visible {
    pub(super) fn new(policy: &Policy, roots: &Roots) -> Result<Self, ResolveError> {
        let mut entries = Entries(listed(policy, roots)?);
        add_private(&mut entries, policy, roots);
        add_kernel(&mut entries, policy);
        let Entries(mut entries) = entries;
        add_up(&mut entries);
        let mut visible = Self {
            policy: policy.name.clone(),
            entries,
            deny: Vec::new(),
            protect: Vec::new(),
            deny_elsewhere: Vec::new(),
            moot: Vec::new(),
        };
        visible.guard(policy, roots)?;
        let count = visible.entries.len().max(visible.deny.len() + visible.protect.len());
        if count > MAX_PATHS {
            return Err(ResolveError::TooManyPaths { policy: visible.policy, count, limit: MAX_PATHS });
        }
        Ok(visible)
    }

    pub(super) fn mounts(&self) -> Vec<Mount> {
        let mount = |entry: &Entry| Mount {
            target: Bytes(entry.target.clone()),
            kind: entry.kind.clone(),
            access: entry.grants.access(),
        };
        self.entries.iter().map(mount).collect()
    }

    /// The entry that decides over a path: the deepest at or above it.
    pub(crate) fn deciding(&self, path: &[u8]) -> Option<&Entry> {
        self.entries.iter().rfind(|entry| is_within(path, &entry.target))
    }

    /// Whether a directory is there: shown by a mount, or on the way to one.
    pub(crate) fn is_there(&self, path: &[u8]) -> bool {
        self.deciding(path).is_some() || self.entries.iter().any(|entry| is_within(&entry.target, path))
    }

    fn guard(&mut self, policy: &Policy, roots: &Roots) -> Result<(), ResolveError> {
        let filesystem = &policy.document.filesystem;
        for place in filesystem.deny.iter().flatten() {
            let guard = guard("deny", place, roots)?;
            if is_within(&roots.workspace, &guard.path) {
                return Err(ResolveError::Denied {
                    what: "workspace",
                    path: shown(&roots.workspace),
                    rule: guard.rule.text.to_string(),
                    at: guard.rule.at,
                });
            }
            self.entries.retain(|entry| !is_within(&entry.target, &guard.path));
            self.deny.push(guard);
        }
        for place in filesystem.protect.iter().flatten() {
            self.protect.push(guard("protect", place, roots)?);
        }
        let writable = |entry: &&mut Entry| entry.grants.write.is_some() && entry.is_host();
        for entry in self.entries.iter_mut().filter(writable) {
            if self.protect.iter().any(|guard| is_within(&entry.target, &guard.path)) {
                entry.grants.write = None;
            }
        }
        self.keep_what_can_be_masked();
        Ok(())
    }

    fn keep_what_can_be_masked(&mut self) {
        let denies = without_doubles(core::mem::take(&mut self.deny));
        let (deny, mut moot) = denies
            .into_iter()
            .partition::<Vec<_>, _>(|guard| self.deciding(&guard.path).is_some_and(Entry::is_host));
        self.deny_elsewhere = moot.iter().map(|guard| guard.path.clone()).collect();
        let protects = without_doubles(core::mem::take(&mut self.protect));
        // Most stand in one folder, and what decides over it decides over all of them.
        let mut last: Option<(Vec<u8>, bool)> = None;
        let (protect, rest) = protects.into_iter().partition::<Vec<_>, _>(|guard| {
            let folder = folder(&guard.path);
            let known = last.as_ref().filter(|(last, _)| last == folder).map(|(_, changeable)| *changeable);
            let changeable = known.unwrap_or_else(|| {
                let entry = self.deciding(folder);
                let changeable = entry.is_some_and(|entry| entry.is_host() && entry.grants.write.is_some());
                last = Some((folder.to_vec(), changeable));
                changeable
            });
            changeable && !deny.iter().any(|denied| is_within(&guard.path, &denied.path))
        });
        moot.extend(rest);
        (self.deny, self.protect, self.moot) = (deny, protect, moot);
    }
}

/// Where a path's last name stands.
fn folder(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) if slash > 0 => &path[..slash],
        _ => b"/",
    }
}

fn guard(list: &'static str, place: &Located<Place>, roots: &Roots) -> Result<Guard, ResolveError> {
    Ok(Guard { path: Bytes(expand(list, place, roots)?), rule: Rule::entry(list, place) })
}

/// Parents first; what lies beneath another of the same list is held by it.
fn without_doubles(mut guards: Vec<Guard>) -> Vec<Guard> {
    guards.sort_by_cached_key(|guard| depth(&guard.path));
    let mut seen = HashSet::with_capacity(guards.len());
    let firsts: Vec<bool> = guards.iter().map(|guard| seen.insert(&guard.path)).collect();
    let mut kept: Vec<Guard> = Vec::with_capacity(guards.len());
    // What holds the folder of the last one. By their order, everything that can hold a folder stands before what it
    // has in it.
    let mut last: Option<(Vec<u8>, bool)> = None;
    for (guard, _) in guards.into_iter().zip(firsts).filter(|(_, is_first)| *is_first) {
        let folder = folder(&guard.path);
        let known = last.as_ref().filter(|(last, _)| last == folder).map(|(_, held)| *held);
        let held = known.unwrap_or_else(|| {
            let held = kept.iter().any(|above| is_within(folder, &above.path));
            last = Some((folder.to_vec(), held));
            held
        });
        if !held {
            kept.push(guard);
        }
    }
    kept
}

fn expand(list: &'static str, place: &Located<Place>, roots: &Roots) -> Result<Vec<u8>, ResolveError> {
    place.value.expand(roots).ok_or_else(|| ResolveError::LongPath {
        rule: Rule::entry(list, place).text.to_string(),
        at: place.at.clone(),
        limit: MAX_PATH,
    })
}

/// Sorted by depth, then by name; no two of the same target.
struct Entries(Vec<Entry>);

impl Entries {
    fn find(&self, target: &[u8]) -> Result<usize, usize> {
        self.0.binary_search_by(|entry| order(&entry.target).cmp(&order(target)))
    }

    /// What is there, which goes.
    fn take(&mut self, target: &[u8]) -> Option<Entry> {
        self.find(target).ok().map(|at| self.0.remove(at))
    }

    /// In place of what is there.
    fn put(&mut self, entry: Entry) {
        match self.find(&entry.target) {
            Ok(at) => self.0[at] = entry,
            Err(at) => self.0.insert(at, entry),
        }
    }
}

fn order(target: &[u8]) -> (usize, &[u8]) {
    (depth(target), target)
}

/// Step 1: what the lists say.
fn listed(policy: &Policy, roots: &Roots) -> Result<Vec<Entry>, ResolveError> {
    let filesystem = &policy.document.filesystem;
    let lists = [("read", &filesystem.read), ("write", &filesystem.write), ("execute", &filesystem.execute)];
    let mut places =
        Vec::with_capacity(lists.iter().map(|(_, list)| list.as_ref().map_or(0, Vec::len)).sum());
    for (key, list) in lists {
        for place in list.iter().flatten() {
            let target = expand(key, place, roots)?;
            places.push((depth(&target), target, key, place));
        }
    }
    // Of the same target, in the order of the lists: the first rule that gives something is the one that is named.
    places.sort_by(|(depth, target, ..), (other, than, ..)| (depth, target).cmp(&(other, than)));
    let mut entries: Vec<Entry> = Vec::with_capacity(places.len());
    for (_, target, key, place) in places {
        let create = place.value.is_base(Base::Cache);
        let grants = grants(key, Rule::entry(key, place));
        match entries.last_mut().filter(|last| last.target == target) {
            Some(last) => {
                last.grants.add(&grants);
                if create && last.kind != MountKind::Workspace {
                    last.kind = MountKind::Bind { create };
                }
            }
            None => {
                let workspace = target == roots.workspace;
                let kind = if workspace { MountKind::Workspace } else { MountKind::Bind { create } };
                entries.push(Entry { target, kind, grants });
            }
        }
    }
    Ok(entries)
}

/// What an entry of a list gives. All three show it.
fn grants(list: &str, rule: Rule) -> Grants {
    let (write, execute) = match list {
        "write" => (Some(rule.clone()), None),
        "execute" => (None, Some(rule.clone())),
        _ => (None, None),
    };
    Grants { read: Some(rule), write, execute }
}

/// Step 2: private directories.
fn add_private(entries: &mut Entries, policy: &Policy, roots: &Roots) {
    let filesystem = &policy.document.filesystem;
    let size = filesystem.tmp_size.as_ref().filter(|size| size.value != Size::ZERO);
    let bytes = size.map_or(PRIVATE_SIZE, |size| size.value).bytes();
    let mut private = |path: &[u8], mode: u32, rule: &Rule| {
        if path == roots.workspace {
            return;
        }
        let target = path.to_vec();
        // Listed or not, it can be read and written; it is executable only if it is listed as that.
        let execute = entries.take(&target).and_then(|entry| entry.grants.execute);
        let grants = Grants { read: Some(rule.clone()), write: Some(rule.clone()), execute };
        let kind = MountKind::Tmpfs { size: bytes, mode };
        entries.put(Entry { target, kind, grants });
    };
    if let Some(hidden) =
        filesystem.hidden_home.as_ref().filter(|hidden| hidden.value && can_hide(&roots.home))
    {
        private(&roots.home, 0o700, &Rule::key("hidden-home", &hidden.at));
    }
    if let Some(size) = size {
        let rule = Rule::key("tmp-size", &size.at);
        private(b"/tmp", 0o1777, &rule);
        private(b"/var/tmp", 0o1777, &rule);
    }
}

/// Step 2: what the kernel shows.
fn add_kernel(entries: &mut Entries, policy: &Policy) {
    let own = Rule::text("every run has a /proc of its own", &Position::built_in());
    let grants = Grants { read: Some(own), ..Grants::default() };
    let target = b"/proc".to_vec();
    entries.put(Entry { target, kind: MountKind::Proc, grants });
    let filesystem = &policy.document.filesystem;
    let Some(first) = filesystem.dev.iter().flatten().next() else { return };
    let mut nodes: Vec<Bytes> =
        filesystem.dev.iter().flatten().map(|node| Bytes::from(node.value.as_str())).collect();
    nodes.sort();
    nodes.dedup();
    let shm = filesystem.tmp_size.as_ref().map(|size| size.value).filter(|size| *size != Size::ZERO);
    let shm_size = if policy.level.value == Level::Minimal { 0 } else { shm.unwrap_or(PRIVATE_SIZE).bytes() };
    let rule = Rule::key("dev", &first.at);
    let target = b"/dev".to_vec();
    let grants = Grants { read: Some(rule.clone()), write: Some(rule), execute: None };
    entries.put(Entry { target, kind: MountKind::Dev { nodes, shm_size }, grants });
}

/// Step 3: grants add up along a path, and what then says nothing new goes.
fn add_up(entries: &mut Vec<Entry>) {
    let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
    for mut entry in core::mem::take(entries) {
        let above = kept.iter().rfind(|above| is_within(&entry.target, &above.target));
        if let Some(above) = above.filter(|above| above.is_host() && entry.is_host()) {
            entry.grants.add(&above.grants);
            let plain = entry.kind == MountKind::Bind { create: false };
            if plain && entry.grants.access() == above.grants.access() {
                continue;
            }
        }
        kept.push(entry);
    }
    *entries = kept;
}
