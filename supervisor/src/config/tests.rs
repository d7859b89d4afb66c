//! From texts to what holds, by tables and for random texts; which files are obeyed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{Permissions, create_dir, set_permissions, write};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::paths::Scope;

/// Values that each key takes, as a file says them; the first isn't the default.
const SAMPLES: &[(&str, &[&str])] = &[
    ("daemon.socket", &["\"/run/s\"", "\"\""]),
    ("daemon.group", &["\"agents\"", "\"\""]),
    ("daemon.policies", &["[\"/a\", \"/b c\"]", "[]"]),
    ("daemon.state-directory", &["\"/var/x\"", "\"\""]),
    ("daemon.launcher", &["\"/run/l.sock\"", "\"\""]),
    ("runs.slots", &["1", "65536", "8"]),
    ("runs.queue", &["0", "1048576"]),
    ("runs.parked", &["0", "64"]),
    ("runs.grace", &["\"1ms\"", "\"366d\""]),
    ("runs.keep", &["true", "false"]),
    ("runs.retention", &["\"1h\"", "\"90s\""]),
    ("connections.total", &["1", "1048576"]),
    ("connections.per-user", &["1", "7"]),
    ("connections.memory", &["\"16MiB\"", "\"1TiB\""]),
    ("connections.memory-per-user", &["\"4MiB\"", "\"2GiB\""]),
    ("telemetry.metrics", &["\"127.0.0.1:9747\"", "\"unix:/run/m\"", "\"\""]),
    ("tools.require-signed", &["true", "false"]),
    ("audit.key", &["\"/a/b\"", "\"\""]),
    ("audit.copy", &["\"/a/b\"", "\"\""]),
    ("audit.required", &["false", "true"]),
    ("audit.keep-security", &["1", "3660"]),
    ("audit.keep-access", &["1", "90"]),
    ("audit.keep-operation", &["1", "7"]),
    ("audit.operations-one-in", &["7", "1000000"]),
    ("audit.verification-key", &["\"/a/b\"", "\"\""]),
    ("statistics.enabled", &["false", "true"]),
    ("statistics.keep-hours", &["24", "2160"]),
    ("statistics.keep-days", &["1", "30"]),
    ("telemetry.traces", &["\"http://127.0.0.1:4318\"", "\"\""]),
    ("log.level", &["\"debug\"", "\"error\"", "\"trace\"", "\"warn\""]),
];

/// What is wrong, and what is said of it.
const WRONG: &[(&str, &str)] = &[
    ("[runs", "f:1:6: not valid TOML: "),
    ("[rums]\n", "f:1:2: unknown key `rums` in the configuration; did you mean `runs`?"),
    (
        "slots = 1",
        "f:1:1: unknown key `slots` in the configuration; there are: daemon, runs, tools, audit, statistics, connections, telemetry, log",
    ),
    ("\n[runs]\nslotz = 1", "f:3:1: unknown key `slotz` in [runs]; did you mean `slots`?"),
    ("[metrics]\n", "f:1:2: unknown key `metrics` in the configuration; there are: "),
    ("runs = 3", "f:1:8: `runs` is an integer; expected a table"),
    ("[runs]\nslots = 0", "f:2:9: `slots`: 0 is out of range; expected a whole number from 1 to 65536"),
    ("[runs]\nslots = \"8\"", "f:2:9: `[runs] slots` is a string; expected a whole number from 1 to 65536"),
    ("[runs]\nslots = -1", "f:2:9: `[runs] slots` is an integer; expected a whole number"),
    ("[runs]\nparked = 65", "f:2:10: `parked`: 65 is out of range; expected a whole number from 0 to 64"),
    (
        "[runs]\ngrace = 10",
        "f:2:9: `[runs] grace` is an integer; expected a time with its unit (ms, s, m, h, d)",
    ),
    ("[runs]\ngrace = \"10\"", "f:2:9: `grace`: `10` has no unit; expected a time with its unit"),
    ("[runs]\ngrace = \"0s\"", "f:2:9: `grace`: no time at all is too short; expected a time"),
    ("[runs]\nretention = \"400d\"", "f:2:13: `retention`: `400d` is over 366 days; expected a time"),
    (
        "[connections]\nmemory = \"15MiB\"",
        "f:2:10: `memory`: `15MiB` is out of range; expected a size with its unit (B, KiB, MiB, GiB, TiB), as in \"256MiB\", \
         from 16MiB to 1TiB",
    ),
    ("[connections]\nmemory = \"1GB\"", "f:2:10: `memory`: `GB` is no unit here; expected a size"),
    ("[daemon]\nsocket = \"s\"", "f:2:10: `socket`: `s` isn't absolute; expected an absolute path, or \"\""),
    ("[daemon]\nsocket = \"/a\\u0000\"", "f:2:10: `socket`: it is over 4096 bytes, or has a NUL in it"),
    (
        "[daemon]\npolicies = \"/a\"",
        "f:2:12: `[daemon] policies` is a string; expected a list: an absolute path",
    ),
    (
        "[daemon]\npolicies = [\"/a\",\n\"b\"]",
        "f:3:1: `policies`: `b` isn't absolute; expected an absolute path",
    ),
    (
        "[daemon]\ngroup = \"a:b\"",
        "f:2:9: `group`: `a:b` is no group's name; expected a group's name, or \"\"",
    ),
    (
        "[log]\nlevel = \"loud\"",
        "f:2:9: `level`: `loud` is no level; expected one of \"error\", \"warn\", \"info\", \"debug\", \"trace\"",
    ),
];

fn text(text: impl Into<String>) -> Text {
    Text { file: "f".into(), text: text.into() }
}

fn of(texts: &[Text]) -> Result<Configured, Vec<String>> {
    let words = |mistakes: Mistakes| mistakes.0.iter().map(ToString::to_string).collect();
    Configured::of_texts(texts).map_err(words)
}

fn key(path: &str) -> &'static Key {
    keys().find(|key| key.path == path).unwrap()
}

/// A file that states these.
fn stating<'a>(values: impl IntoIterator<Item = (&'a str, &'a str)>) -> Text {
    let mut tables: BTreeMap<&str, String> = BTreeMap::new();
    for (path, value) in values {
        let (table, name) = path.split_once('.').unwrap();
        tables.entry(table).or_default().push_str(&format!("{name} = {value}\n"));
    }
    text(tables.iter().map(|(table, keys)| format!("[{table}]\n{keys}")).collect::<String>())
}

/// The default file with the comment signs taken away before what is no comment.
fn uncommented() -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => {
            rest.to_owned() + "\n"
        }
        _ => line.to_owned() + "\n",
    };
    default_text().lines().map(line).collect()
}

#[test]
fn the_default_file_says_nothing_and_without_its_comment_signs_the_defaults() {
    let silent = of(&[text(default_text())]).unwrap();
    assert_eq!(silent, Configured::default());
    let said = of(&[text(uncommented())]).unwrap();
    assert_eq!(said.values, Configuration::default());
    for key in keys() {
        assert!(matches!(said.origin(key), Origin::File(_)), "the file lacks {}", key.path);
    }
}

#[test]
fn the_default_file_has_lines_that_fit_and_says_what_belongs_to_each_key() {
    let file = default_text();
    assert!(file.lines().all(|line| line.chars().count() <= 130), "{file}");
    for key in keys() {
        let line = format!("#{} = ", key.name);
        let (before, _) = file.split_once(&line).unwrap();
        let about = key.about.last().unwrap();
        assert!(before.contains(&format!("#{about}\n")), "{}", key.path);
        let expected: String = (key.expected)().chars().skip(1).collect();
        assert!(before.contains(&expected), "{}: {expected}", key.path);
    }
}

#[test]
fn every_key_takes_its_samples_and_says_them_again() {
    let known: BTreeSet<&str> = keys().map(|key| key.path).collect();
    assert_eq!(known, SAMPLES.iter().map(|(path, _)| *path).collect());
    let defaults = Configuration::default();
    for (path, samples) in SAMPLES {
        assert_ne!((key(path).toml)(&defaults), samples[0], "{path}");
        for sample in *samples {
            let configured = of(&[stating([(*path, *sample)])]).unwrap();
            assert_eq!((key(path).toml)(&configured.values), *sample, "{path}");
            assert_eq!(configured.origin(key(path)).to_string().split(':').next(), Some("f"));
        }
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_what_was_expected() {
    for (wrong, expected) in WRONG {
        let errors = of(&[text(*wrong)]).unwrap_err();
        assert_eq!(errors.len(), 1, "{wrong:?}: {errors:?}");
        assert!(errors[0].starts_with(expected), "{wrong:?}:\n{}\n{expected}", errors[0]);
    }
}

#[test]
fn everything_that_is_wrong_is_said_of_every_file_in_order() {
    let first = Text { file: "a".into(), text: "[runs]\nslots = 0\nqeue = 1\n[lgo]\n".into() };
    let second = Text { file: "b".into(), text: "[log]\nlevel = 3\n".into() };
    let third = Text { file: "c".into(), text: "[".into() };
    let errors = of(&[first, second, third]).unwrap_err();
    let places: Vec<_> = errors.iter().map(|error| error.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["a:2:9", "a:3:1", "a:4:2", "b:2:9", "c:1:2"]);
    let all = Configured::of_texts(&[text("[runs]\nslots = 0\nqueue = -1\n")]).unwrap_err().to_string();
    assert!(all.ends_with("(and 1 more: `stockade config check` says which)"), "{all}");
}

#[test]
fn a_value_says_who_said_it_last() {
    let drop_in = Text { file: "d".into(), text: "[runs]\nslots = 2\n".into() };
    let mut configured = of(&[text("[runs]\nslots = 1\nqueue = 3"), drop_in]).unwrap();
    assert_eq!(configured.origin(key("runs.slots")).to_string(), "d:2:9");
    assert_eq!(configured.origin(key("runs.queue")).to_string(), "f:3:9");
    assert_eq!(configured.origin(key("runs.parked")), Origin::Default);
    let mut over = Configured::default();
    over.set("runs.slots", Origin::Option("--slots"), |to| to.runs.slots = Slots::nearest(9));
    configured = over.over(configured);
    assert_eq!((configured.values.runs.slots.number(), configured.values.runs.queue.number()), (9, 3));
    assert_eq!(configured.origin(key("runs.slots")).to_string(), "--slots");
    let variable = Origin::Variable("STOCKADE_SOCKET").to_string();
    assert_eq!(variable, "$STOCKADE_SOCKET");
}

#[test]
fn changes_are_told_key_by_key() {
    let old = of(&[text("[runs]\nslots = 1\n[log]\nlevel = \"warn\"")]).unwrap();
    let new = of(&[text("[runs]\nslots = 2\n[daemon]\nsocket = \"/s\"\n[log]\nlevel = \"warn\"")]).unwrap();
    let changes: Vec<_> =
        old.changes(&new).into_iter().map(|change| (change.key.path, change.old, change.new)).collect();
    let expected = [("daemon.socket", "\"\"", "\"/s\""), ("runs.slots", "1", "2")];
    assert_eq!(changes, expected.map(|(key, old, new)| (key, old.to_owned(), new.to_owned())));
    assert!(old.changes(&old).is_empty());
}

#[test]
fn what_only_roots_daemon_has_is_refused_to_a_user() {
    for key in keys() {
        let (_, samples) = SAMPLES.iter().find(|(path, _)| *path == key.path).unwrap();
        let configured = of(&[stating([(key.path, samples[0])])]).unwrap();
        configured.check(Scope::Machine).unwrap();
        let refused = configured.check(Scope::User).err().map(|mistakes| mistakes.to_string());
        assert_eq!(refused.is_some(), key.whose == Whose::Roots, "{}", key.path);
        assert!(refused.is_none_or(|error| error.contains(key.path) && error.starts_with("f:2:")));
    }
}

/// Some keys, each with a value.
fn statements() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    subsequence(SAMPLES.to_vec(), 0..=SAMPLES.len()).prop_flat_map(|chosen| {
        chosen.into_iter().map(|(path, samples)| (Just(path), select(samples))).collect::<Vec<_>>()
    })
}

proptest! {
    #[test]
    fn later_files_win_and_what_nobody_says_is_the_default(
        files in proptest::collection::vec(statements(), 0..5),
    ) {
        let texts: Vec<Text> = files.iter().map(|file| stating(file.iter().copied())).collect();
        let configured = of(&texts).unwrap();
        let defaults = Configuration::default();
        for key in keys() {
            let said = files.iter().flatten().rfind(|(path, _)| *path == key.path);
            let expected = said.map_or_else(|| (key.toml)(&defaults), |(_, value)| (*value).to_owned());
            prop_assert_eq!((key.toml)(&configured.values), expected, "{}", key.path);
            prop_assert_eq!(configured.origin(key) == Origin::Default, said.is_none());
        }
    }

    #[test]
    fn what_is_over_wins_and_leaves_the_rest(below in statements(), above in statements()) {
        let (below, above) = (of(&[stating(below)]).unwrap(), of(&[stating(above)]).unwrap());
        let both = above.over(below.clone());
        for key in keys() {
            let from = if above.origin(key) == Origin::Default { &below } else { &above };
            prop_assert_eq!((key.toml)(&both.values), (key.toml)(&from.values));
            prop_assert_eq!(both.origin(key), from.origin(key));
        }
    }

    #[test]
    fn an_unknown_key_is_refused_in_every_table(table in 0..4_usize, name in "[a-z][a-z-]{0,12}") {
        let table = &tables()[table];
        prop_assume!(table.keys.iter().all(|key| key.name != name));
        let errors = of(&[text(format!("{}\n{name} = 1\n", table.title))]).unwrap_err();
        prop_assert_eq!(errors.len(), 1);
        let expected = format!("f:2:1: unknown key `{name}` in {}", table.title);
        prop_assert!(errors[0].starts_with(&expected), "{}", errors[0]);
    }

    #[test]
    fn no_text_panics_or_gets_an_error_without_end(
        any in ".{0,200}",
        lines in proptest::collection::vec(
            "(\\[(daemon|runs|connections|log)\\]|socket|group|policies|slots|grace|memory|level) ?=? ?.{0,20}", 0..6),
    ) {
        for wild in [any, lines.join("\n")] {
            for error in of(&[text(wild)]).err().unwrap_or_default() {
                prop_assert!(error.len() < 4_000 && !error.chars().any(char::is_control), "{:?}", error);
            }
        }
    }
}

/// A configuration's directory that is ours.
struct Ground(tempfile::TempDir);

impl Ground {
    fn new() -> Self {
        let ground = tempfile::tempdir().unwrap();
        create_dir(ground.path().join(DROP_INS)).unwrap();
        Self(ground)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        write(self.path().join(name), text).unwrap();
        set_permissions(self.path().join(name), Permissions::from_mode(0o644)).unwrap();
    }

    fn load(&self) -> Result<Configured, Vec<String>> {
        let uid = rustix::process::geteuid().as_raw();
        let directory = Some(self.path().to_owned());
        let sources =
            Sources { directory, is_named: true, uid, scope: Scope::of(uid), over: Configured::default() };
        sources.load().map_err(|mistakes| mistakes.0.iter().map(ToString::to_string).collect())
    }

    fn slots(&self) -> u32 {
        self.load().unwrap().values.runs.slots.number()
    }
}

#[test]
fn drop_ins_win_in_the_order_of_their_names_and_other_files_say_nothing() {
    let ground = Ground::new();
    assert_eq!(ground.load().unwrap(), Configured::default());
    ground.write(FILE, "[runs]\nslots = 1\n");
    assert_eq!(ground.slots(), 1);
    ground.write("stockade.d/20-b.toml", "[runs]\nslots = 3\n");
    ground.write("stockade.d/10-a.toml", "[runs]\nslots = 2\n");
    for name in ["stockade.d/30.toml.bak", "stockade.d/.40.toml", "other.toml"] {
        ground.write(name, "[runs]\nslots = 4\n");
    }
    assert_eq!(ground.slots(), 3);
    std::fs::remove_file(ground.path().join("stockade.d/20-b.toml")).unwrap();
    assert_eq!(ground.slots(), 2);
}

#[test]
fn a_directory_that_is_named_has_to_be_there() {
    let directory = Some("/nowhere/at/all".into());
    let mut sources = Sources { directory, is_named: true, ..Sources::default() };
    let error = sources.load().unwrap_err().to_string();
    assert!(error.starts_with("cannot read /nowhere/at/all: No such file"), "{error}");
    sources.is_named = false;
    assert_eq!(sources.load().unwrap(), Configured::default());
}

#[test]
fn one_bad_file_means_nothing_holds_and_all_that_is_wrong_is_told() {
    let ground = Ground::new();
    ground.write(FILE, "[runs]\nslots = 0\n");
    ground.write("stockade.d/a.toml", "[runs]\nslots = 2\n");
    create_dir(ground.path().join("stockade.d/b.toml")).unwrap();
    ground.write("stockade.d/c.toml", "x = 1\n");
    let errors = ground.load().unwrap_err();
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(errors[0].contains("b.toml: not a regular file; "), "{errors:?}");
    assert!(errors[1].contains("stockade.toml:2:9: `slots`"), "{errors:?}");
    assert!(errors[2].contains("c.toml:1:1: unknown key `x`"), "{errors:?}");
}

#[test]
fn a_file_that_others_may_write_to_or_replace_is_refused() {
    let ground = Ground::new();
    ground.write(FILE, "[runs]\nslots = 1\n");
    ground.write("stockade.d/a.toml", "[runs]\nslots = 2\n");
    assert_eq!(ground.slots(), 2);
    for name in [FILE, "stockade.d/a.toml", DROP_INS, ""] {
        let path = ground.path().join(name);
        let mode = path.metadata().unwrap().permissions();
        set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        let errors = ground.load().unwrap_err();
        assert!(errors.iter().any(|error| error.contains("others may write to it")), "{name}: {errors:?}");
        assert!(errors.iter().all(|error| error.contains("chmod")), "{name}: {errors:?}");
        set_permissions(&path, mode).unwrap();
    }
    assert_eq!(ground.slots(), 2);
}

#[test]
fn a_link_leads_to_a_file_beside_it_or_nowhere() {
    let ground = Ground::new();
    let elsewhere = tempfile::tempdir().unwrap();
    write(elsewhere.path().join("x.toml"), "[runs]\nslots = 9\n").unwrap();
    ground.write("mine.toml", "[runs]\nslots = 5\n");
    symlink("mine.toml", ground.path().join(FILE)).unwrap();
    assert_eq!(ground.slots(), 5);
    symlink(elsewhere.path().join("x.toml"), ground.path().join("stockade.d/x.toml")).unwrap();
    let errors = ground.load().unwrap_err();
    assert!(errors[0].contains("a link that leads out of its directory"), "{errors:?}");
}

#[test]
fn a_file_of_somebody_else_is_refused() {
    if rustix::process::geteuid().as_raw() != 0 {
        eprintln!("not tested: what belongs to somebody else: that takes root");
        return;
    }
    let ground = Ground::new();
    ground.write(FILE, "[runs]\nslots = 1\n");
    std::os::unix::fs::chown(ground.path().join(FILE), Some(12_345), None).unwrap();
    let errors = ground.load().unwrap_err();
    assert!(errors[0].contains("it belongs to user 12345"), "{errors:?}");
}

#[test]
fn a_file_that_is_checked_may_be_anywhere_and_anybodys() {
    let ground = Ground::new();
    ground.write("draft.toml", "[runs]\nslots = 5\n");
    set_permissions(ground.path().join("draft.toml"), Permissions::from_mode(0o666)).unwrap();
    symlink("draft.toml", ground.path().join("link.toml")).unwrap();
    for name in ["draft.toml", "link.toml"] {
        let text = file(&ground.path().join(name)).unwrap();
        assert!(text.file.ends_with(name));
        Configured::of_texts(&[text]).unwrap();
    }
    assert!(file(&ground.path().join("none.toml")).unwrap_err().to_string().starts_with("cannot read /"));
}
