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

use stockade_protocol::Bytes;
use stockade_protocol::bounds::MAX_PATH;
use stockade_protocol::spec::{Access, Level, Mount, MountKind};

use super::error::ResolveError;
use super::request::{can_hide, shown};
use crate::amount::Size;
use crate::place::{Base, Place, Roots, depth, is_within};
use crate::policy::Policy;
use crate::position::Located;
use crate::rule::Rule;

/// The most mounts, and the most guarded paths, of one run.
const MAX_PATHS: usize = 512;
/// The size of a private directory where `tmp-size` isn't set.
const PRIVATE_SIZE: Size = Size::mebibytes(64);

/// Which rule gives what beneath a path.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Grants<'p> {
    pub(crate) read: Option<Rule<'p>>,
    pub(crate) write: Option<Rule<'p>>,
    pub(crate) execute: Option<Rule<'p>>,
}

impl Grants<'_> {
    fn access(&self) -> Access {
        Access { read: self.read.is_some(), write: self.write.is_some(), execute: self.execute.is_some() }
    }

    fn add(&mut self, other: &Self) {
        self.read = self.read.or(other.read);
        self.write = self.write.or(other.write);
        self.execute = self.execute.or(other.execute);
    }
}

/// One mount and its rules.
#[derive(Debug)]
pub(crate) struct Entry<'p> {
    pub(crate) target: Vec<u8>,
    pub(crate) kind: MountKind,
    pub(crate) grants: Grants<'p>,
}

impl Entry<'_> {
    /// Whether the host's files are here.
    pub(crate) fn is_host(&self) -> bool {
        matches!(self.kind, MountKind::Bind { .. } | MountKind::Workspace)
    }
}

/// A path that is denied or protected.
#[derive(Debug)]
pub(crate) struct Guard<'p> {
    pub(crate) path: Bytes,
    pub(crate) rule: Rule<'p>,
}

/// Everything visible, and the rules behind it.
#[derive(Debug, Default)]
pub(crate) struct Visible<'p> {
    pub(crate) entries: Vec<Entry<'p>>,
    pub(crate) deny: Vec<Guard<'p>>,
    pub(crate) protect: Vec<Guard<'p>>,
    /// Denied paths that lie on no host's file: what links of the host make of them is the worker's to find out.
    pub(crate) deny_elsewhere: Vec<Bytes>,
    /// Denies and protections of what isn't visible.
    pub(crate) moot: Vec<Guard<'p>>,
}

/// What of it a spec has.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) mounts: Vec<Mount>,
    pub(super) deny: Vec<Bytes>,
    pub(super) deny_elsewhere: Vec<Bytes>,
    pub(super) protect: Vec<Bytes>,
}

impl<'p> Visible<'p> {
    pub(super) fn new(policy: &'p Policy, roots: &Roots) -> Result<Self, ResolveError> {
        let mut entries = Entries(listed(policy, roots)?);
        add_private(&mut entries, policy, roots);
        add_kernel(&mut entries, policy);
        let Entries(mut entries) = entries;
        add_up(&mut entries);
        let mut visible = Self {
            entries,
            deny: Vec::new(),
            protect: Vec::new(),
            deny_elsewhere: Vec::new(),
            moot: Vec::new(),
        };
        visible.guard(policy, roots)?;
        let count = visible.entries.len().max(visible.deny.len() + visible.protect.len());
        if count > MAX_PATHS {
            return Err(ResolveError::TooManyPaths { policy: policy.name.clone(), count, limit: MAX_PATHS });
        }
        Ok(visible)
    }

    pub(super) fn seen(self) -> Seen {
        let mount = |entry: Entry<'_>| Mount {
            access: entry.grants.access(),
            target: Bytes(entry.target),
            kind: entry.kind,
        };
        let paths = |guards: Vec<Guard<'_>>| guards.into_iter().map(|guard| guard.path).collect();
        Seen {
            mounts: self.entries.into_iter().map(mount).collect(),
            deny: paths(self.deny),
            deny_elsewhere: self.deny_elsewhere,
            protect: paths(self.protect),
        }
    }

    /// The entry that decides over a path: the deepest at or above it.
    pub(crate) fn deciding(&self, path: &[u8]) -> Option<&Entry<'p>> {
        self.entries.iter().rfind(|entry| is_within(path, &entry.target))
    }

    /// Whether a directory is there: shown by a mount, or on the way to one.
    pub(crate) fn is_there(&self, path: &[u8]) -> bool {
        self.deciding(path).is_some() || self.entries.iter().any(|entry| is_within(&entry.target, path))
    }

    fn guard(&mut self, policy: &'p Policy, roots: &Roots) -> Result<(), ResolveError> {
        let filesystem = &policy.document.filesystem;
        for place in filesystem.deny.iter().flatten() {
            let guard = guard("deny", place, roots)?;
            if is_within(&roots.workspace, &guard.path) {
                return Err(ResolveError::Denied {
                    what: "workspace",
                    path: shown(&roots.workspace),
                    rule: guard.rule.to_string(),
                    at: guard.rule.at(),
                });
            }
            self.entries.retain(|entry| !is_within(&entry.target, &guard.path));
            self.deny.push(guard);
        }
        for place in filesystem.protect.iter().flatten() {
            self.protect.push(guard("protect", place, roots)?);
        }
        let writable = |entry: &&mut Entry<'_>| entry.grants.write.is_some() && entry.is_host();
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

fn guard<'p>(
    list: &'static str,
    place: &'p Located<Place>,
    roots: &Roots,
) -> Result<Guard<'p>, ResolveError> {
    Ok(Guard { path: Bytes(expand(list, place, roots)?), rule: Rule::Entry(list, place) })
}

/// Parents first; what lies beneath another of the same list is held by it.
fn without_doubles(mut guards: Vec<Guard<'_>>) -> Vec<Guard<'_>> {
    guards.sort_by_cached_key(|guard| depth(&guard.path));
    let firsts = firsts(&guards);
    let mut kept: Vec<Guard<'_>> = Vec::with_capacity(guards.len());
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

/// Which guards are the first of their path.
fn firsts(guards: &[Guard<'_>]) -> Vec<bool> {
    let mut firsts = vec![true; guards.len()];
    let mut order: Vec<usize> = (0..guards.len()).collect();
    // Most begin alike and end differently.
    let ends: Vec<u64> = guards.iter().map(|guard| end(&guard.path)).collect();
    order.sort_unstable_by(|one, other| {
        let paths = || guards[*one].path.cmp(&guards[*other].path);
        ends[*one].cmp(&ends[*other]).then_with(paths).then(one.cmp(other))
    });
    for pair in order.windows(2) {
        firsts[pair[1]] = guards[pair[0]].path != guards[pair[1]].path;
    }
    firsts
}

/// The last bytes of a path, as a number.
fn end(path: &[u8]) -> u64 {
    path.iter().rev().take(size_of::<u64>()).fold(0, |end, byte| end << 8 | u64::from(*byte))
}

fn expand(list: &'static str, place: &Located<Place>, roots: &Roots) -> Result<Vec<u8>, ResolveError> {
    place.value.expand(roots).ok_or_else(|| ResolveError::LongPath {
        rule: Rule::Entry(list, place).to_string(),
        at: place.at.clone(),
        limit: MAX_PATH,
    })
}

/// Sorted by depth, then by name; no two of the same target.
struct Entries<'p>(Vec<Entry<'p>>);

impl<'p> Entries<'p> {
    fn find(&self, target: &[u8]) -> Result<usize, usize> {
        self.0.binary_search_by(|entry| order(&entry.target).cmp(&order(target)))
    }

    /// What is there, which goes.
    fn take(&mut self, target: &[u8]) -> Option<Entry<'p>> {
        self.find(target).ok().map(|at| self.0.remove(at))
    }

    /// In place of what is there.
    fn put(&mut self, entry: Entry<'p>) {
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
fn listed<'p>(policy: &'p Policy, roots: &Roots) -> Result<Vec<Entry<'p>>, ResolveError> {
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
    let mut entries: Vec<Entry<'_>> = Vec::with_capacity(places.len());
    for (_, target, key, place) in places {
        let create = place.value.is_base(Base::Cache);
        let grants = grants(key, Rule::Entry(key, place));
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
fn grants<'p>(list: &str, rule: Rule<'p>) -> Grants<'p> {
    let (write, execute) = match list {
        "write" => (Some(rule), None),
        "execute" => (None, Some(rule)),
        _ => (None, None),
    };
    Grants { read: Some(rule), write, execute }
}

/// Step 2: private directories.
fn add_private<'p>(entries: &mut Entries<'p>, policy: &'p Policy, roots: &Roots) {
    let filesystem = &policy.document.filesystem;
    let size = filesystem.tmp_size.as_ref().filter(|size| size.value != Size::ZERO);
    let bytes = size.map_or(PRIVATE_SIZE, |size| size.value).bytes();
    let mut private = |path: &[u8], mode: u32, rule: Rule<'p>| {
        if path == roots.workspace {
            return;
        }
        let target = path.to_vec();
        // Listed or not, it can be read and written; it is executable only if it is listed as that.
        let execute = entries.take(&target).and_then(|entry| entry.grants.execute);
        let grants = Grants { read: Some(rule), write: Some(rule), execute };
        let kind = MountKind::Tmpfs { size: bytes, mode };
        entries.put(Entry { target, kind, grants });
    };
    if let Some(hidden) =
        filesystem.hidden_home.as_ref().filter(|hidden| hidden.value && can_hide(&roots.home))
    {
        private(&roots.home, 0o700, Rule::Key("hidden-home", &hidden.at));
    }
    if let Some(size) = size {
        let rule = Rule::Key("tmp-size", &size.at);
        private(b"/tmp", 0o1777, rule);
        private(b"/var/tmp", 0o1777, rule);
    }
}

/// Step 2: what the kernel shows.
fn add_kernel<'p>(entries: &mut Entries<'p>, policy: &'p Policy) {
    let own = Rule::Own("every run has a /proc of its own");
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
    let rule = Rule::Key("dev", &first.at);
    let target = b"/dev".to_vec();
    let grants = Grants { read: Some(rule), write: Some(rule), execute: None };
    entries.put(Entry { target, kind: MountKind::Dev { nodes, shm_size }, grants });
}

/// Step 3: grants add up along a path, and what then says nothing new goes.
fn add_up(entries: &mut Vec<Entry<'_>>) {
    let mut kept = 0;
    for at in 0..entries.len() {
        let (before, [entry, ..]) = entries.split_at_mut(at) else { continue };
        let above = before[..kept].iter().rfind(|above| is_within(&entry.target, &above.target));
        if let Some(above) = above.filter(|above| above.is_host() && entry.is_host()) {
            entry.grants.add(&above.grants);
            let plain = entry.kind == MountKind::Bind { create: false };
            if plain && entry.grants.access() == above.grants.access() {
                continue;
            }
        }
        entries.swap(kept, at);
        kept += 1;
    }
    entries.truncate(kept);
}
