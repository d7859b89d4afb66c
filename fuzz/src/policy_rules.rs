//! Policies that extend each other, and requests that want less: what is denied stays denied, what is asked for never
//! widens anything, and one more rule does what it says and nothing else.

use std::path::{Path, PathBuf};

use arbitrary::{Arbitrary as _, Unstructured};
use stockade_policies::{PolicySet, Question, ResolveRequest, Resolved, Source, Subject, Trust, resolve};
use stockade_protocol::Bytes;
use stockade_protocol::client::Overrides;
use stockade_protocol::spec::MountKind;

use crate::agreement;

pub(crate) fn run(data: &[u8]) {
    let _short = tried(&mut Unstructured::new(data));
}

fn tried(data: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let parent = Rules::some(data)?;
    let child = Rules::some(data)?;
    let overrides = Overrides {
        wall_ms: amount(data)?,
        cpu_ms: amount(data)?,
        idle_ms: amount(data)?,
        memory: amount(data)?,
        processes: amount(data)?,
        output: amount(data)?,
    };
    let mut paths = Vec::new();
    for _ in 0..data.int_in_range(0..=8)? {
        paths.push(PathBuf::from(place(data, &ASKED)?));
    }
    let (parent_text, child_text) = (parent.text(None), child.text(Some("parent")));
    let (one, two) = (
        resolved(&[("parent", &parent_text)]),
        resolved(&[("parent", &parent_text), ("child", &child_text)]),
    );
    let Some(one) = one else { return Ok(()) };
    agreement::check(&one, &paths, &["read", "mkdir"]);
    if let Some(two) = two {
        agreement::check(&two, &paths, &["read", "mkdir"]);
        inherits(&one, &two, &paths);
    }
    narrowed(&parent_text, &one, overrides);
    let more = place(data, &GUARDED)?;
    let mut tighter = parent;
    tighter.deny.push(more);
    if let Some(tight) = resolved(&[("parent", &tighter.text(None))]) {
        gives_nothing(&one, &tight, &paths);
    }
    Ok(())
}

const PLACES: [&str; 5] = ["/srv", "/usr", "${workspace}", "${home}", "${tmp}"];
const GUARDED: [&str; 4] = ["/srv/z", "/usr/z", "${workspace}/z", "y"];
const ASKED: [&str; 9] = [
    "/srv",
    "/usr",
    "/home/u/project",
    "/home/u",
    "/tmp",
    "/proc",
    "/etc",
    "/home/u/project/z",
    "/home/u/project/y",
];

fn place(data: &mut Unstructured<'_>, bases: &[&str]) -> arbitrary::Result<String> {
    let mut path = (*data.choose(bases)?).to_owned();
    for _ in 0..data.int_in_range(0..=3)? {
        path.push_str(data.choose(&["/a", "/b", "/c"])?);
    }
    Ok(path)
}

fn places(data: &mut Unstructured<'_>, bases: &[&str]) -> arbitrary::Result<Vec<String>> {
    (0..data.int_in_range(0..=3)?).map(|_| place(data, bases)).collect()
}

fn amount(data: &mut Unstructured<'_>) -> arbitrary::Result<Option<u64>> {
    Ok(match data.int_in_range(0..=3)? {
        0 => None,
        1 => Some(data.int_in_range(0..=4)?),
        2 => Some(data.int_in_range(0..=1 << 40)?),
        _ => Some(u64::arbitrary(data)?),
    })
}

/// A policy's rules.
#[derive(Debug, Clone)]
struct Rules {
    lists: [(&'static str, Vec<String>); 4],
    deny: Vec<String>,
    level: Option<&'static str>,
    lines: Vec<&'static str>,
}

/// What else a policy may say, a table each, so that each stands once at most.
const LINES: [&str; 12] = [
    "[limits]\nwall-time = \"5s\"\nmemory = \"64MiB\"\n",
    "[limits]\noutput = \"none\"\nprocesses = 7\n",
    "[limits]\nidle-time = \"2s\"\nfile-size = \"1MiB\"\nnice = 3\n",
    "[network]\nmode = \"none\"\n",
    "[network]\nmode = \"loopback\"\n",
    "[network]\nmode = \"host\"\ntcp-connect = [443, 80]\ntcp-bind = []\n",
    "[environment]\nallow = [\"LC_*\", \"A\"]\nset = { B = \"b\" }\n",
    "[environment]\nallow = []\ndefault = { LC_D = \"${tmp}\" }\n",
    "[syscalls]\ndeny = [\"mkdir\"]\n",
    "[syscalls]\nallow = [\"mbind\"]\ndeny = [\"mkdir\", \"kill\"]\n",
    "[run-as]\nuser = \"caller\"\n",
    "[run-as]\nrange = \"200000-200100\"\n",
];

impl Rules {
    fn some(data: &mut Unstructured<'_>) -> arbitrary::Result<Self> {
        let lists = [
            ("read", places(data, &PLACES)?),
            ("write", places(data, &PLACES)?),
            ("execute", places(data, &PLACES)?),
            ("protect", places(data, &GUARDED)?),
        ];
        let deny = places(data, &GUARDED)?;
        let level = *data.choose(&[None, None, Some("strict"), Some("moderate"), Some("minimal")])?;
        let mut lines = Vec::new();
        for _ in 0..data.int_in_range(0..=3)? {
            lines.push(*data.choose(&LINES)?);
        }
        Ok(Self { lists, deny, level, lines })
    }

    fn text(&self, extends: Option<&str>) -> String {
        let mut text = extends.map_or(String::new(), |parent| format!("extends = {parent:?}\n"));
        text.extend(self.level.map(|level| format!("level = {level:?}\n")));
        text.push_str("[filesystem]\n");
        for (key, places) in self.lists.iter().chain([&("deny", self.deny.clone())]) {
            if !places.is_empty() {
                text.push_str(&format!("{key} = {places:?}\n"));
            }
        }
        text.extend(self.lines.iter().copied());
        text
    }
}

/// The last of these policies, resolved. `None`: they aren't right, or not for this request.
fn resolved(texts: &[(&str, &str)]) -> Option<Resolved> {
    resolved_with(texts, Overrides::default())
}

fn resolved_with(texts: &[(&str, &str)], overrides: Overrides) -> Option<Resolved> {
    let source = |(name, text): &(&str, &str)| Source {
        name: (*name).into(),
        file: format!("{name}.toml"),
        text: (*text).into(),
        trust: Trust::Operator,
    };
    let (name, _) = texts.last()?;
    let set = PolicySet::from_sources_named(texts.iter().map(source).collect(), name).ok()?;
    let subject = Subject {
        owner_uid: 1000,
        owner_gid: 1000,
        home: "/home/u".into(),
        workspace: "/home/u/project".into(),
        overrides,
        user_mode: false,
    };
    let environment = vec![(Bytes::from("LC_ALL"), Bytes::from("C")), (Bytes::from("A"), Bytes::from("a"))];
    resolve(set.get(name).ok()?, &ResolveRequest { subject, cwd: None, environment }).ok()
}

/// Whether what is at a path is the run's own, which no deny is about.
fn is_private(resolved: &Resolved, path: &Path) -> bool {
    let mount = resolved.spec.mounts.iter().rfind(|mount| path.starts_with(mount.target.as_path()));
    mount.is_some_and(|mount| matches!(mount.kind, MountKind::Tmpfs { .. }))
}

fn uses(resolved: &Resolved, path: &Path) -> [bool; 3] {
    [Question::Read, Question::Write, Question::Execute]
        .map(|question: fn(PathBuf) -> Question| resolved.explain(&question(path.to_owned())).allowed)
}

/// A child loses no deny and no protection of its parent's.
fn inherits(parent: &Resolved, child: &Resolved, paths: &[PathBuf]) {
    let guards = parent.spec.deny.iter().chain(&parent.spec.protect);
    let guarded = guards.flat_map(|guard| [guard.as_path().to_owned(), guard.as_path().join("below")]);
    for path in guarded.chain(paths.iter().cloned()).filter(|path| !is_private(child, path)) {
        let beneath = |list: &[Bytes]| list.iter().any(|guard| path.starts_with(guard.as_path()));
        let [read, write, execute] = uses(child, &path);
        let denied = beneath(&parent.spec.deny);
        assert!(!denied || !(read || execute), "{} is denied by the parent", path.display());
        assert!(!(denied || beneath(&parent.spec.protect)) || !write, "{} is guarded", path.display());
    }
}

/// What a request asks for is tighter or refused, and changes nothing but limits.
fn narrowed(text: &str, plain: &Resolved, overrides: Overrides) {
    let Some(tight) = resolved_with(&[("parent", text)], overrides) else { return };
    assert!(
        agreement::is_no_wider(&tight.spec.limits, &plain.spec.limits),
        "{:?} is wider than {:?}",
        tight.spec.limits,
        plain.spec.limits
    );
    let mut same = (*tight.spec).clone();
    same.limits = plain.spec.limits.clone();
    same.digest = plain.spec.digest;
    assert_eq!(same, *plain.spec, "another than a limit has changed");
    assert_eq!(tight.environment, plain.environment);
}

/// One more deny gives nothing that wasn't there.
fn gives_nothing(before: &Resolved, after: &Resolved, paths: &[PathBuf]) {
    for path in paths.iter().filter(|path| !is_private(after, path)) {
        let (before, after) = (uses(before, path), uses(after, path));
        let wider = before.iter().zip(after).any(|(before, after)| after && !before);
        assert!(!wider, "{}: {before:?}, and with one more deny {after:?}", path.display());
    }
}
