//! The shipped policies load, resolve, promise what the documentation says, and are the same when printed and read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::{execute, mounts, of, read, request, source, subject, write};
use stockade_policies::{PolicySet, Question, ResolveRequest, Resolved, Subject, Trust, resolve};
use stockade_protocol::Bytes;
use stockade_protocol::spec::{Level, NetworkMode, Ports, RunAs};

const NAMES: [&str; 6] = ["build", "default", "loopback", "minimal", "moderate", "strict"];

fn shipped(name: &str) -> Resolved {
    resolve(PolicySet::shipped().get(name).unwrap(), &request()).unwrap()
}

#[test]
fn every_shipped_policy_loads_and_resolves() {
    assert_eq!(PolicySet::shipped().names(), NAMES);
    for name in NAMES {
        let policy = PolicySet::shipped().get(name).unwrap().clone();
        assert!(!policy.description().is_empty(), "{name}");
        assert_eq!(policy.file(), format!("shipped/{name}.toml"));
        for (home, workspace) in [
            ("/home/u", "/home/u/project"),
            ("/home/u", "/home/u"),
            ("/root", "/srv/work"),
            ("/", "/tmp"),
            ("/nonexistent", "/tmp/x"),
            ("/dev", "/var/tmp/x"),
            ("/bin", "/opt/app"),
        ] {
            for user_mode in [false, true] {
                let request =
                    of(Subject { home: home.into(), workspace: workspace.into(), user_mode, ..subject() });
                let resolved = resolve(&policy, &request).expect(name);
                assert!(read(&resolved, "src/main.c").allowed, "{name} {home} {workspace}");
                assert!(execute(&resolved, "/usr/bin/true").allowed, "{name} {home}");
                assert!(read(&resolved, "/dev/null").allowed, "{name} {home}");
            }
        }
    }
}

#[test]
fn shipped_limits_are_the_promised_ones() {
    let limits = shipped("default").spec.limits.clone();
    assert_eq!(limits.wall_ms, Some(60_000));
    assert_eq!(limits.memory, Some(512 << 20));
    assert_eq!(limits.processes, 128);
    assert_eq!(limits.output, Some(16 << 20));
    assert_eq!(limits.core, 0);
    assert_eq!((limits.cpu_ms, limits.idle_ms, limits.stdin, limits.address_space), (None, None, None, None));
    let build = shipped("build").spec.limits.clone();
    assert_eq!(build.wall_ms, Some(30 * 60_000));
    assert_eq!((build.memory, build.processes, build.output), (Some(4 << 30), 1024, Some(256 << 20)));
    for name in ["strict", "loopback", "moderate", "minimal"] {
        assert_eq!(shipped(name).spec.limits, limits, "{name}");
    }
}

#[test]
fn limits_that_a_policy_leaves_out_are_those_of_default() {
    let bare = common::resolved("[filesystem]\nread = [\"${workspace}\"]");
    assert_eq!(bare.spec.limits, shipped("default").spec.limits);
}

#[test]
fn shipped_networks_and_levels_are_the_promised_ones() {
    for name in NAMES {
        let spec = shipped(name).spec;
        let (level, mode) = match name {
            "loopback" => (Level::Strict, NetworkMode::Loopback),
            "moderate" => (Level::Moderate, NetworkMode::None),
            "minimal" => (Level::Minimal, NetworkMode::None),
            _ => (Level::Strict, NetworkMode::None),
        };
        assert_eq!((spec.level, spec.network.mode), (level, mode), "{name}");
        let ports = if name == "loopback" { Ports::Any } else { Ports::Only(vec![]) };
        assert_eq!((&spec.network.tcp_connect, &spec.network.tcp_bind), (&ports, &ports), "{name}");
        let run_as = if name == "minimal" {
            RunAs::Caller
        } else {
            RunAs::Ephemeral { start: 2_000_000_000, count: 65_536 }
        };
        assert_eq!(spec.run_as, run_as, "{name}");
        assert_eq!(spec.seccomp.base.len(), 1);
    }
    let user = of(Subject { user_mode: true, ..subject() });
    assert_eq!(
        resolve(PolicySet::shipped().get("default").unwrap(), &user).unwrap().spec.run_as,
        RunAs::Caller
    );
}

#[test]
fn strict_writes_nothing_of_the_hosts() {
    let strict = shipped("strict");
    for path in ["x", "/usr/x", "/etc/x", "/home/u/project/.git/hooks/x"] {
        assert!(!write(&strict, path).allowed, "{path}");
    }
    for path in ["/tmp/x", "/var/tmp/x", "/home/u/.x", "/dev/shm/x", "/dev/null"] {
        assert!(write(&strict, path).allowed, "{path}");
    }
    assert!(strict.spec.mounts.iter().all(|mount| {
        !mount.access.write || !matches!(mount.kind, stockade_protocol::spec::MountKind::Bind { .. })
    }));
}

#[test]
fn default_protects_what_is_trusted_later_and_hides_what_is_secret() {
    let default = shipped("default");
    assert!(write(&default, "src/main.rs").allowed);
    for path in [
        ".git/hooks/pre-commit",
        ".git/config",
        ".vscode/tasks.json",
        ".bashrc",
        ".claude/settings.json",
        ".stockade/x",
    ] {
        assert!(!write(&default, path).allowed, "{path}");
        assert!(read(&default, path).allowed, "{path}");
    }
    assert!(write(&default, ".git/objects/x").allowed);
    // The home is private: what a secret's path shows is empty.
    for path in ["/home/u/.ssh/id_ed25519", "/home/u/.cargo/credentials.toml", "/home/u/.aws/credentials"] {
        assert!(read(&default, path).note.contains("private to the run"), "{path}");
    }
    for path in [
        "/home/other/.ssh/id_rsa",
        "/run/docker.sock",
        "/run/user/1000/bus",
        "/var/lib/x",
        "/root/x",
        "/boot/x",
    ] {
        assert!(!read(&default, path).allowed, "{path}");
    }
    assert!(execute(&default, "/home/u/.cargo/bin/cargo").allowed);
    assert!(!write(&default, "/home/u/.cargo/bin/cargo").allowed);
    assert!(execute(&default, "/tmp/a.out").allowed);
    assert!(!execute(&default, "/etc/x").allowed);
    assert!(default.spec.deny.is_empty(), "a shipped deny would leave placeholders on hosts");
}

#[test]
fn build_has_a_cache_that_outlives_the_run() {
    let build = shipped("build");
    assert!(mounts(&build).contains(&"/home/u/.cache/stockade/build made rwx".to_owned()));
    let cache = (Bytes::from("XDG_CACHE_HOME"), Bytes::from("/home/u/.cache/stockade/build"));
    assert!(build.environment.contains(&cache));
    assert!(!write(&build, ".git/config").allowed);
}

#[test]
fn minimal_has_nothing_that_needs_mounts() {
    let minimal = shipped("minimal");
    assert!(minimal.spec.protect.is_empty() && minimal.spec.deny.is_empty());
    assert!(mounts(&minimal).iter().all(|line| !line.contains(" tmpfs ")));
    assert!(!read(&minimal, "/tmp/x").allowed);
    assert!(!read(&minimal, "/home/u/.ssh/id_rsa").allowed);
    assert!(!minimal.spec.seccomp.delta.is_empty());
}

#[test]
fn secrets_of_the_environment_stay_outside() {
    let environment = [
        "PATH",
        "LANG",
        "LC_ALL",
        "TERM",
        "CARGO_HOME",
        "CARGO_REGISTRY_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "GITHUB_TOKEN",
        "SSH_AUTH_SOCK",
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "LD_PRELOAD",
        "DBUS_SESSION_BUS_ADDRESS",
        "XDG_RUNTIME_DIR",
        "DISPLAY",
        "http_proxy",
        "NPM_TOKEN",
        "CMAKE_TOKEN",
        "TMPDIR",
        "HOME",
    ];
    let environment = environment.map(|name| (Bytes::from(name), Bytes::from("theirs"))).to_vec();
    for name in NAMES {
        let request = ResolveRequest { environment: environment.clone(), ..request() };
        let resolved = resolve(PolicySet::shipped().get(name).unwrap(), &request).unwrap();
        let theirs: Vec<String> = resolved
            .environment
            .iter()
            .filter(|(_, value)| value.0 == b"theirs")
            .map(|(name, _)| name.to_text())
            .collect();
        let expected: &[&str] = match name {
            "strict" => &["LANG", "LC_ALL", "PATH", "TERM"],
            _ => &["CARGO_HOME", "LANG", "LC_ALL", "PATH", "TERM"],
        };
        assert_eq!(theirs, expected, "{name}");
        for (asked, _) in &environment {
            let answer = resolved.explain(&Question::Env(asked.to_text()));
            let there = resolved.environment.iter().any(|(have, _)| have == asked);
            assert_eq!(answer.allowed, there, "{name} {asked:?}");
        }
    }
}

#[test]
fn what_is_printed_is_the_same_policy() {
    for name in NAMES {
        let shipped = PolicySet::shipped().get(name).unwrap().clone();
        let again = PolicySet::from_sources(vec![source(name, &shipped.to_toml(), Trust::Operator)]).unwrap();
        let again = again.get(name).unwrap();
        let (one, other) = (resolve(&shipped, &request()).unwrap(), resolve(again, &request()).unwrap());
        assert_eq!(one.spec, other.spec, "{name}");
        assert_eq!(one.environment, other.environment, "{name}");
        assert_eq!(shipped.description(), again.description());
        assert!(again.ancestors().is_empty());
    }
}
