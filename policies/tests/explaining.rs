//! Answers, with the file and line of the rule that decided.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::{execute, read, resolved, write};
use stockade_policies::{Answer, PolicySet, Question, resolve};

const POLICY: &str = r#"level = "strict"
[filesystem]
read = ["/usr", "/etc"]
write = [
    "${workspace}",
]
execute = ["/usr"]
deny = [".env"]
protect = [".git/hooks"]
tmp-size = "1MiB"
hidden-home = true
dev = ["null"]
[network]
mode = "host"
tcp-connect = [443]
[environment]
allow = ["LC_*"]
set = { B = "b" }
default = { LC_D = "${tmp}" }
[syscalls]
deny = ["mkdir"]
allow = ["mbind"]
"#;

#[track_caller]
fn check(answer: &Answer, allowed: bool, place: (&str, u32), rule: &str, note: &str) {
    let place = (place.0.to_owned(), place.1);
    assert_eq!((answer.allowed, (answer.file.clone(), answer.line)), (allowed, place), "{answer:?}");
    assert!(answer.rule.contains(rule), "{answer:?}");
    assert!(if note.is_empty() { answer.note.is_empty() } else { answer.note.contains(note) }, "{answer:?}");
}

#[test]
fn paths_name_their_rule() {
    let resolved = resolved(POLICY);
    check(&read(&resolved, "/usr/bin/x"), true, ("p.toml", 3), "read: \"/usr\"", "");
    check(&read(&resolved, "/etc//./x"), true, ("p.toml", 3), "read: \"/etc\"", "");
    check(&execute(&resolved, "/usr/bin/x"), true, ("p.toml", 7), "execute: \"/usr\"", "");
    check(&execute(&resolved, "/etc/x"), false, ("p.toml", 1), "no entry of [filesystem] execute", "");
    check(&write(&resolved, "/etc/x"), false, ("p.toml", 1), "no entry of [filesystem] write", "");
    check(&write(&resolved, "src/x"), true, ("p.toml", 5), "write: \"${workspace}\"", "");
    check(&write(&resolved, "/home/u/project"), true, ("p.toml", 5), "write", "2 guarded paths beneath it");
    check(&read(&resolved, "src/x"), true, ("p.toml", 5), "write: \"${workspace}\"", "");
    check(
        &read(&resolved, ".env"),
        false,
        ("p.toml", 8),
        "deny: \"${workspace}/.env\"",
        "whether it exists or not",
    );
    check(&write(&resolved, ".env/x"), false, ("p.toml", 8), "deny", "no access at all");
    check(
        &write(&resolved, ".git/hooks/x"),
        false,
        ("p.toml", 9),
        "protect",
        "where it exists when the run starts",
    );
    check(&read(&resolved, ".git/hooks/x"), true, ("p.toml", 5), "write", "");
    check(&write(&resolved, "/tmp/x"), true, ("p.toml", 10), "tmp-size", "private to the run");
    check(&read(&resolved, "/home/u/.ssh/id"), true, ("p.toml", 11), "hidden-home", "private to the run");
    check(&read(&resolved, "/home/other"), false, ("p.toml", 1), "no entry of [filesystem] shows it", "");
    check(&read(&resolved, "/home"), false, ("p.toml", 1), "shows it", "on the way");
    check(&read(&resolved, "/proc/self/status"), true, ("built-in", 0), "/proc", "own processes");
    check(&write(&resolved, "/proc/sys/x"), false, ("p.toml", 1), "write", "");
    check(&write(&resolved, "/dev/null"), true, ("p.toml", 12), "dev", "");
    check(&write(&resolved, "/dev/shm/x"), true, ("p.toml", 12), "dev", "");
    check(&read(&resolved, "/dev/sda"), false, ("p.toml", 12), "dev", "doesn't list it");
    check(&read(&resolved, "/usr/../etc/x"), false, ("built-in", 0), "no rule", "without `..`");
    assert!(!read(&resolved, "/usrx").allowed);
}

#[test]
fn ports_name_their_rule() {
    let with = resolved(POLICY);
    let connect = |port| with.explain(&Question::Connect(port));
    check(&connect(443), true, ("p.toml", 15), "lists 443", "");
    check(&connect(80), false, ("p.toml", 15), "doesn't list 80", "");
    check(&with.explain(&Question::Bind(8080)), false, ("p.toml", 1), "tcp-bind doesn't list 8080", "");
    let shipped = PolicySet::shipped();
    let default = resolve(shipped.get("default").unwrap(), &common::request()).unwrap();
    let answer = default.explain(&Question::Connect(443));
    check(&answer, false, ("shipped/strict.toml", answer.line), "mode = \"none\"", "nothing in it");
    let loopback = resolve(shipped.get("loopback").unwrap(), &common::request()).unwrap();
    assert!(loopback.explain(&Question::Connect(8080)).allowed);
    assert!(loopback.explain(&Question::Bind(8080)).allowed);
    assert!(!loopback.explain(&Question::Connect(0)).allowed);
}

#[test]
fn variables_name_their_rule() {
    let resolved = resolved(POLICY);
    let answer = |name: &str| resolved.explain(&Question::Env(name.into()));
    check(&answer("B"), true, ("p.toml", 18), "set: B", "");
    assert_eq!(answer("B").value.as_deref(), Some(&b"b"[..]));
    check(&answer("LC_ALL"), true, ("p.toml", 17), "allow: \"LC_*\"", "the caller has no such variable");
    check(&answer("LC_D"), true, ("p.toml", 19), "default: LC_D", "");
    assert_eq!(answer("LC_D").value.as_deref(), Some(&b"/tmp"[..]));
    check(&answer("LC_TOKEN"), false, ("p.toml", 1), "doesn't list it", "");
    check(&answer("AWS_SECRET_ACCESS_KEY"), false, ("p.toml", 1), "doesn't list it", "");
    check(&answer("HOME"), true, ("built-in", 0), "HOME", "");
    assert_eq!(answer("HOME").value.as_deref(), Some(&b"/home/u"[..]));
    check(&answer("PATH"), true, ("built-in", 0), "default", "");
    assert!(answer("PATH").value.is_some_and(|value| value.ends_with(b"/bin")));
}

#[test]
fn system_calls_are_answered_by_the_finished_filter() {
    let resolved = resolved(POLICY);
    let answer = |name: &str| resolved.explain(&Question::Syscall(name.into()));
    check(&answer("mkdir"), false, ("p.toml", 21), "deny: mkdir", "EPERM");
    check(&answer("mbind"), true, ("p.toml", 22), "allow: mbind", "");
    let read = answer("read");
    assert!(read.allowed && read.file == "syscalls/standard.txt" && read.line > 0, "{read:?}");
    check(&answer("clone3"), false, ("built-in", 0), "flags lie in memory", "ENOSYS");
    check(&answer("ptrace"), false, ("built-in", 0), "controls other processes", "EPERM");
    assert!(answer("clone").note.contains("with a flag for a new namespace"));
    assert!(answer("ioctl").allowed && answer("ioctl").note.contains("TIOCSTI"));
    let socket = answer("socket");
    assert!(socket.allowed && socket.note.contains("family") && socket.note.contains("UDP"), "{socket:?}");
    check(&answer("no_such_call"), false, ("built-in", 0), "no system call of that name", "ENOSYS");
    let shipped = PolicySet::shipped();
    let minimal = resolve(shipped.get("minimal").unwrap(), &common::request()).unwrap();
    assert!(!minimal.explain(&Question::Syscall("shmget".into())).allowed);
    for name in ["setpriority", "prlimit64", "ioprio_set"] {
        let answer = minimal.explain(&Question::Syscall(name.into()));
        assert!(answer.allowed && answer.note.contains("of another process"), "{answer:?}");
    }
}

#[test]
fn inherited_rules_name_the_parents_file() {
    let set = common::set(&[
        ("parent", "[filesystem]\nwrite = [\"${workspace}\"]\ndeny = [\"secret\"]"),
        ("child", "extends = \"parent\"\n[filesystem]\nread = [\"/usr\"]"),
    ])
    .unwrap();
    let resolved = resolve(set.get("child").unwrap(), &common::request()).unwrap();
    check(&write(&resolved, "x"), true, ("parent.toml", 2), "write", "");
    check(&read(&resolved, "secret/x"), false, ("parent.toml", 3), "deny", "no access");
    check(&read(&resolved, "/usr/x"), true, ("child.toml", 3), "read", "");
}
