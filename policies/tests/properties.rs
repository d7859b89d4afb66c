//! What holds for every policy and every request, tried on random ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::path::PathBuf;

use common::{execute, of, read, request, set, subject, write};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use proptest::{prop_assert, prop_assert_eq, prop_assume};
use stockade_policies::{PolicySet, Question, Resolved, Subject, resolve};
use stockade_protocol::client::Overrides;
use stockade_protocol::spec::{Limits, Mount, MountKind};

/// Paths that meet each other often.
fn place() -> impl Strategy<Value = String> {
    let base = prop_oneof![Just("/srv"), Just("/usr"), Just("${workspace}"), Just("${home}"), Just("${tmp}")];
    (base, names()).prop_map(|(base, names)| format!("{base}{names}"))
}

fn names() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 0..3)
        .prop_map(|names| names.iter().map(|name| format!("/{name}")).collect())
}

/// Paths to ask about.
fn asked() -> impl Strategy<Value = String> {
    let base = prop_oneof![
        Just("/srv"),
        Just("/usr"),
        Just("/home/u/project"),
        Just("/home/u"),
        Just("/tmp"),
        Just("/dev"),
        Just("/proc"),
        Just("/etc")
    ];
    (base, names(), names()).prop_map(|(base, some, more)| format!("{base}{some}{more}"))
}

fn list(key: &str, places: &[String]) -> String {
    let quoted: Vec<String> = places.iter().map(|place| format!("{place:?}")).collect();
    format!("{key} = [{}]\n", quoted.join(", "))
}

#[derive(Debug, Clone)]
struct Lists {
    read: Vec<String>,
    write: Vec<String>,
    execute: Vec<String>,
    deny: Vec<String>,
    protect: Vec<String>,
    private: bool,
}

impl Lists {
    fn text(&self, extends: Option<&str>) -> String {
        let mut text = extends.map_or(String::new(), |parent| format!("extends = {parent:?}\n"));
        text.push_str("[filesystem]\n");
        for (key, places) in [
            ("read", &self.read),
            ("write", &self.write),
            ("execute", &self.execute),
            ("deny", &self.deny),
            ("protect", &self.protect),
        ] {
            text.push_str(&list(key, places));
        }
        if self.private {
            text.push_str("tmp-size = \"1MiB\"\ndev = [\"null\"]\n");
        }
        text
    }
}

fn lists() -> impl Strategy<Value = Lists> {
    let places = |most| proptest::collection::vec(place(), 0..most);
    let guarded = || {
        proptest::collection::vec(
            (place(), names()).prop_map(|(place, more)| format!("{place}/z{more}")),
            0..3,
        )
    };
    (places(4), places(4), places(4), guarded(), guarded(), any::<bool>()).prop_map(
        |(mut read, write, execute, deny, protect, private)| {
            read.push("${workspace}".into());
            let (mut write, mut execute) = (write, execute);
            if private {
                // Refused: what lies in a private directory can't be named before the run.
                for list in [&mut read, &mut write, &mut execute] {
                    list.retain(|place| !place.starts_with("${tmp}/"));
                }
            }
            Lists { read, write, execute, deny, protect, private }
        },
    )
}

fn ask(resolved: &Resolved, paths: &[String]) -> Vec<(bool, bool, bool)> {
    let one = |path: &String| {
        (read(resolved, path).allowed, write(resolved, path).allowed, execute(resolved, path).allowed)
    };
    paths.iter().map(one).collect()
}

/// What the spec's mounts say of a path, read as a worker does: the last mount above it.
fn by_mounts<'a>(resolved: &'a Resolved, path: &str) -> Option<&'a Mount> {
    let path = PathBuf::from(path);
    resolved.spec.mounts.iter().rfind(|mount| path.starts_with(mount.target.as_path()))
}

fn is_private(resolved: &Resolved, path: &str) -> bool {
    by_mounts(resolved, path).is_some_and(|mount| matches!(mount.kind, MountKind::Tmpfs { .. }))
}

fn no_wider(one: &Limits, than: &Limits) -> bool {
    let within = |one: Option<u64>, than: Option<u64>| match (one, than) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(one), Some(than)) => one <= than,
    };
    within(one.wall_ms, than.wall_ms)
        && within(one.cpu_ms, than.cpu_ms)
        && within(one.idle_ms, than.idle_ms)
        && within(one.memory, than.memory)
        && within(one.output, than.output)
        && within(one.stdin, than.stdin)
        && within(one.file_size, than.file_size)
        && within(one.address_space, than.address_space)
        && one.processes <= than.processes
        && one.open_files <= than.open_files
        && one.core <= than.core
        && one.stack <= than.stack
        && one.nice >= than.nice
        && one.io_priority == than.io_priority
}

fn asked_limit() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![
        Just(None),
        (0u64..4).prop_map(Some),
        (0u64..1 << 40).prop_map(Some),
        any::<u64>().prop_map(Some)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn overrides_never_widen_any_limit(
        which in 0usize..6,
        wall_ms in asked_limit(), cpu_ms in asked_limit(), idle_ms in asked_limit(),
        memory in asked_limit(), processes in asked_limit(), output in asked_limit(),
    ) {
        let shipped = PolicySet::shipped();
        let policy = shipped.get(shipped.names()[which]).unwrap();
        let plain = resolve(policy, &request()).unwrap().spec;
        let overrides = Overrides { wall_ms, cpu_ms, idle_ms, memory, processes, output };
        if let Ok(tight) = resolve(policy, &of(Subject { overrides, ..subject() })) {
            prop_assert!(no_wider(&tight.spec.limits, &plain.limits));
            prop_assert_eq!(&tight.spec.mounts, &plain.mounts);
            prop_assert_eq!(&tight.spec.seccomp, &plain.seccomp);
        }
    }

    #[test]
    fn children_never_lose_a_deny_or_a_protection(
        parent in lists(), child in lists(), paths in proptest::collection::vec(asked(), 20),
    ) {
        let Ok(set) = set(&[("parent", &parent.text(None)), ("child", &child.text(Some("parent")))]) else {
            return Ok(());
        };
        let (Ok(one), Ok(two)) =
            (resolve(set.get("parent").unwrap(), &request()), resolve(set.get("child").unwrap(), &request()))
        else { return Ok(()) };
        let mut paths = paths;
        paths.extend(one.spec.deny.iter().chain(&one.spec.protect).map(stockade_protocol::Bytes::to_text));
        paths.extend(one.spec.deny.iter().map(|path| format!("{}/below", path.to_text())));
        for path in &paths {
            if is_private(&two, path) {
                // A deny is about the host's files; what the run makes for itself is its own.
                continue;
            }
            let path = PathBuf::from(path);
            let beneath = |list: &[stockade_protocol::Bytes]| list.iter().any(|guard| path.starts_with(guard.as_path()));
            if beneath(&one.spec.deny) {
                prop_assert!(!two.explain(&Question::Read(path.clone())).allowed, "{:?}", path);
                prop_assert!(!two.explain(&Question::Execute(path.clone())).allowed, "{:?}", path);
            }
            if beneath(&one.spec.deny) || beneath(&one.spec.protect) {
                prop_assert!(!two.explain(&Question::Write(path.clone())).allowed, "{:?}", path);
            }
        }
    }

    #[test]
    fn writing_and_executing_include_reading(policy in lists(), paths in proptest::collection::vec(asked(), 30)) {
        let set = set(&[("p", &policy.text(None))]).unwrap();
        let Ok(resolved) = resolve(set.get("p").unwrap(), &request()) else { return Ok(()) };
        for (index, (read, write, execute)) in ask(&resolved, &paths).into_iter().enumerate() {
            prop_assert!(read || (!write && !execute), "{}", paths[index]);
        }
    }

    #[test]
    fn answers_are_what_mounts_and_guards_say(policy in lists(), paths in proptest::collection::vec(asked(), 30)) {
        let set = set(&[("p", &policy.text(None))]).unwrap();
        let Ok(resolved) = resolve(set.get("p").unwrap(), &request()) else { return Ok(()) };
        for path in paths.iter().filter(|path| !path.starts_with("/dev")) {
            let beneath = |list: &[stockade_protocol::Bytes]| {
                list.iter().any(|guard| PathBuf::from(path).starts_with(guard.as_path()))
            };
            let access = by_mounts(&resolved, path).map(|mount| mount.access).unwrap_or_default();
            let denied = beneath(&resolved.spec.deny);
            prop_assert_eq!(read(&resolved, path).allowed, access.read && !denied, "{}", path);
            let guarded = denied || beneath(&resolved.spec.protect);
            prop_assert_eq!(write(&resolved, path).allowed, access.write && !guarded, "{}", path);
            prop_assert_eq!(execute(&resolved, path).allowed, access.execute && !denied, "{}", path);
        }
    }

    #[test]
    fn another_allowed_path_takes_nothing_away(
        policy in lists(), more in place(), which in 0usize..3, paths in proptest::collection::vec(asked(), 30),
    ) {
        prop_assume!(!policy.private || !more.starts_with("${tmp}/"));
        let mut wider = policy.clone();
        [&mut wider.read, &mut wider.write, &mut wider.execute][which].push(more);
        let set = set(&[("p", &policy.text(None)), ("q", &wider.text(None))]).unwrap();
        let (Ok(one), Ok(two)) = (resolve(set.get("p").unwrap(), &request()), resolve(set.get("q").unwrap(), &request()))
        else { return Ok(()) };
        for (path, (before, after)) in paths.iter().zip(ask(&one, &paths).into_iter().zip(ask(&two, &paths))) {
            if is_private(&one, path) {
                // What is shown beneath a private directory takes that place of it.
                continue;
            }
            prop_assert!(!before.0 || after.0, "read {}", path);
            prop_assert!(!before.1 || after.1, "write {}", path);
            prop_assert!(!before.2 || after.2, "execute {}", path);
        }
    }

    #[test]
    fn another_deny_gives_nothing(
        policy in lists(), more in place(), paths in proptest::collection::vec(asked(), 30),
    ) {
        prop_assume!(more.contains("/a") || more.contains("/b") || more.contains("/c"));
        let mut tighter = policy.clone();
        tighter.deny.push(more);
        let set = set(&[("p", &policy.text(None)), ("q", &tighter.text(None))]).unwrap();
        let (Ok(one), Ok(two)) = (resolve(set.get("p").unwrap(), &request()), resolve(set.get("q").unwrap(), &request()))
        else { return Ok(()) };
        for (path, (before, after)) in paths.iter().zip(ask(&one, &paths).into_iter().zip(ask(&two, &paths))) {
            if is_private(&two, path) {
                // Without the bind that was denied, the private directory above it shows.
                continue;
            }
            prop_assert!(!after.0 || before.0, "read {}", path);
            prop_assert!(!after.1 || before.1, "write {}", path);
            prop_assert!(!after.2 || before.2, "execute {}", path);
        }
    }

    #[test]
    fn empty_lists_allow_nothing(paths in proptest::collection::vec(asked(), 30), port in any::<u16>(), name in "[A-Z_]{1,12}") {
        let text = "[filesystem]\nread = [\"${workspace}/only\"]\nwrite = []\nexecute = []\ndev = []\n[network]\nmode = \"loopback\"\ntcp-connect = []\ntcp-bind = []\n[environment]\nallow = []";
        let set = set(&[("p", text)]).unwrap();
        let resolved = resolve(set.get("p").unwrap(), &request()).unwrap();
        for path in paths.iter().filter(|path| !path.starts_with("/proc")) {
            prop_assert!(!read(&resolved, path).allowed && !write(&resolved, path).allowed && !execute(&resolved, path).allowed);
        }
        prop_assert!(!resolved.explain(&Question::Connect(port)).allowed);
        prop_assert!(!resolved.explain(&Question::Bind(port)).allowed);
        prop_assume!(name != "HOME" && name != "PATH");
        prop_assert!(!resolved.explain(&Question::Env(name)).allowed);
    }

    #[test]
    fn no_text_panics_or_gets_an_error_without_end(text in ".{0,200}", lines in proptest::collection::vec("(level|extends|\\[filesystem\\]|read|deny|\\[limits\\]|memory|wall-time) ?=? ?.{0,20}", 0..6)) {
        for text in [text, lines.join("\n")] {
            if let Err(error) = set(&[("p", &text)]) {
                let message = error.to_string();
                prop_assert!(message.len() < 4_000 && !message.chars().any(char::is_control), "{:?}", message);
            }
        }
    }

    #[test]
    fn same_request_has_the_same_answer(policy in lists()) {
        let set = set(&[("p", &policy.text(None))]).unwrap();
        let policy = set.get("p").unwrap();
        match (resolve(policy, &request()), resolve(policy, &request())) {
            (Ok(one), Ok(two)) => prop_assert_eq!(one.spec, two.spec),
            (Err(one), Err(two)) => prop_assert_eq!(one, two),
            _ => prop_assert!(false),
        }
    }
}
