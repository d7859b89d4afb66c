//! Every error names file, line and column, what stands there, and what was expected.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::{set, source};
use stockade_policies::{PolicyError, PolicySet, Trust};

/// Text, and what its error says.
const TEXTS: &[(&str, &str)] = &[
    (
        "[environment]\ndefault = { \"1\" = \"x\" }",
        "p.toml:2:13: `default`: `1` is no variable name; expected variables and their texts",
    ),
    (
        "[filesystem]\nread = [\"${tmp}/x\"]\ntmp-size = \"1MiB\"",
        "p.toml:2:9: `read` shows `${tmp}/x`, but `tmp-size` makes `${tmp}` the run's own",
    ),
    (
        "level = \"strct\"",
        "p.toml:1:9: `level`: `strct` is no level; expected \"strict\", \"moderate\" or \"minimal\"",
    ),
    ("levle = \"strict\"", "p.toml:1:1: unknown key `levle` in the policy; did you mean `level`?"),
    (
        "\n[limits]\nwal-time = \"5s\"",
        "p.toml:3:1: unknown key `wal-time` in [limits]; did you mean `wall-time`?",
    ),
    (
        "[limits]\nzzzzzzzzzz = 1",
        "p.toml:2:1: unknown key `zzzzzzzzzz` in [limits]; there are: wall-time, cpu-time, ",
    ),
    ("[filesystme]\n", "p.toml:1:2: unknown key `filesystme` in the policy; did you mean `filesystem`?"),
    ("filesystem = 3", "p.toml:1:14: `filesystem` is an integer; expected a table"),
    (
        "[limits]\nwall-time = 60",
        "p.toml:2:13: `[limits] wall-time` is an integer; expected a time with its unit",
    ),
    (
        "[limits]\nwall-time = \"60\"",
        "p.toml:2:13: `wall-time`: `60` has no unit; expected a time with its unit",
    ),
    (
        "[limits]\nwall-time = \"0s\"",
        "p.toml:2:13: `wall-time`: no time at all would end every run at its start",
    ),
    ("[limits]\nmemory = 512", "p.toml:2:10: `[limits] memory` is an integer; expected a size with its unit"),
    (
        "[limits]\nmemory = \"512MB\"",
        "p.toml:2:10: `memory`: `MB` is no unit here; expected a size with its unit",
    ),
    ("[limits]\nmemory = 0", "p.toml:2:10: `[limits] memory` is an integer"),
    ("[limits]\nstack = \"4KiB\"", "p.toml:2:9: `stack`: `4KiB` is under 1MiB, which starts no program"),
    ("[limits]\nnice = 20", "p.toml:2:8: `nice`: 20 is out of range; expected a whole number from 0 to 19"),
    (
        "[limits]\nnice = -1",
        "p.toml:2:8: `[limits] nice` is an integer; expected a whole number from 0 to 19",
    ),
    ("[limits]\nprocesses = 0", "p.toml:2:13: `processes`: 0 is out of range"),
    ("[limits]\nprocesses = \"5\"", "p.toml:2:13: `[limits] processes` is a string; expected a whole number"),
    (
        "[limits]\nio-priority = \"high\"",
        "p.toml:2:15: `io-priority`: `high` is no I/O priority; expected \"idle\"",
    ),
    ("[filesystem]\nread = \"/usr\"", "p.toml:2:8: `[filesystem] read` is a string; expected a list"),
    ("[filesystem]\nread = [\"/usr\", 3]", "p.toml:2:17: `[filesystem] read` is an integer; expected a path"),
    (
        "[filesystem]\nread = [\n  \"usr\"\n]",
        "p.toml:3:3: `read`: `usr` doesn't begin with `/` or a variable",
    ),
    ("[filesystem]\nread = [\"/a/*.c\"]", "p.toml:2:9: `read`: `/a/*.c`: `*` is no pattern in a path"),
    ("[filesystem]\nread = [\"/a/../b\"]", "p.toml:2:9: `read`: `/a/../b`: `..` can lead anywhere"),
    ("[filesystem]\nread = [\"${hom}/x\"]", "p.toml:2:9: `read`: `${hom}/x`: the variables are"),
    ("[filesystem]\nread = [\"~/x\"]", "p.toml:2:9: `read`: `~/x`: write `${home}`"),
    ("[filesystem]\nwrite = [\"/\"]", "p.toml:2:10: `write`: `/` would show everything"),
    ("[filesystem]\nread = [\"/proc/1\"]", "p.toml:2:9: `read`: the run has a /proc of its own"),
    ("[filesystem]\nread = [\"/dev/sda\"]", "p.toml:2:9: `read`: devices are listed by name in `dev`"),
    ("[filesystem]\nwrite = [\"/sys/x\"]", "p.toml:2:10: `write`: /sys can only be read"),
    ("[filesystem]\ndeny = [\"*.env\"]", "p.toml:2:9: `deny`: `*.env`: `*` is no pattern in a path"),
    (
        "[filesystem]\ndeny = [\"${workspace}\"]",
        "p.toml:2:9: `deny`: `${workspace}` would take the whole of it away",
    ),
    ("[filesystem]\ndev = [\"../mem\"]", "p.toml:2:8: `dev`: `../mem` is no name below /dev"),
    (
        "[filesystem]\nhidden-home = \"yes\"",
        "p.toml:2:15: `[filesystem] hidden-home` is a string; expected true or false",
    ),
    (
        "[filesystem]\nhidden-home = true\nread = [\"${home}\"]",
        "p.toml:3:9: `read` shows `${home}`, but `hidden-home = true`",
    ),
    (
        "[network]\nmode = \"lo\"",
        "p.toml:2:8: `mode`: `lo` is no network mode; expected \"none\", \"loopback\" or \"host\"",
    ),
    (
        "[network]\ntcp-connect = [0]",
        "p.toml:2:16: `tcp-connect`: 0 is out of range; expected a list of whole numbers from 1 to 65535, or \"any\"",
    ),
    ("[network]\ntcp-connect = [65536]", "p.toml:2:16: `tcp-connect`: 65536 is out of range"),
    (
        "[network]\ntcp-connect = \"all\"",
        "p.toml:2:15: `tcp-connect`: no other word stands here; expected a list",
    ),
    ("[environment]\nallow = [\"*\"]", "p.toml:2:10: `allow`: `*` alone would let every secret through"),
    ("[environment]\nset = { \"A=B\" = \"x\" }", "p.toml:2:9: `set`: `A=B` is no variable name"),
    (
        "[environment]\nset = { A = 1 }",
        "p.toml:2:13: `[environment] set` is an integer; expected variables and their texts",
    ),
    (
        "[environment]\nset = { A = \"x\\u0000\" }",
        "p.toml:2:13: `set.A`: it has a NUL in it; expected text without one",
    ),
    (
        "[syscalls]\nprofile = \"standrad\"",
        "p.toml:2:11: `profile`: there is no profile `standrad`; expected one of: standard, minimal",
    ),
    (
        "[syscalls]\ndeny = [\"opnat\"]",
        "p.toml:2:9: `deny`: no system call is named `opnat`; did you mean `openat`?",
    ),
    ("[syscalls]\ndeny = [\"execve\"]", "p.toml:2:9: `execve` can't be denied: no tool could start or end"),
    (
        "[run-as]\nuser = \"root\"",
        "p.toml:2:8: `user`: `root` is neither; expected \"caller\" or \"ephemeral\"",
    ),
    ("[run-as]\nrange = \"0-65535\"", "p.toml:2:9: `range`: `0-65535` leaves 65536 to 4294967293"),
    ("extends = \"defualt\"", "p.toml:1:11: `extends`: no policy named `defualt`; there are: default, "),
    ("extends = \"p\"", "p.toml:1:11: `extends` goes in a circle: p → p"),
    ("name = \"q\"", "p.toml:1:8: `name` is `q`, but the policy is called `p` after its file"),
    (
        "level = \"minimal\"\n[filesystem]\ndeny = [\"x\"]",
        "p.toml:3:9: level `minimal` has no mounts, so it can't hold `deny`",
    ),
    (
        "level = \"minimal\"\n[filesystem]\ntmp-size = \"1MiB\"",
        "p.toml:3:12: level `minimal` has no mounts, so no private /tmp; set `tmp-size = 0`",
    ),
    (
        "level = \"minimal\"\n[filesystem]\nhidden-home = true",
        "p.toml:3:15: level `minimal` has no mounts, so no private home",
    ),
    (
        "level = \"minimal\"\n[run-as]\nuser = \"ephemeral\"",
        "p.toml:3:8: level `minimal` can't map the workspace to another user id",
    ),
    (
        "level = \"moderate\"\n[network]\nmode = \"loopback\"",
        "p.toml:3:8: level `moderate` has no network namespace",
    ),
    (
        "level = \"minimal\"\n[syscalls]\nprofile = \"standard\"",
        "p.toml:3:11: profile `standard` can't be had at level `minimal`, where the host's shared memory, semaphores and message queues would be in reach: say `profile = \"minimal\"`, and `allow` what is wanted of them",
    ),
    ("extends = \"default\"\nlevel = \"minimal\"", "shipped/default.toml:"),
    ("level = ", "p.toml:1:9: not valid TOML: "),
    ("a = 1\na = 2", "p.toml:2:1: not valid TOML: duplicate key"),
    (
        "description = \"a\\nb\"",
        "p.toml:1:15: `description`: it has a control character or a line break in it",
    ),
];

#[test]
fn errors_name_place_finding_and_expectation() {
    for (text, expected) in TEXTS {
        match set(&[("p", text)]) {
            Ok(_) => panic!("accepted: {text}"),
            Err(error) => {
                let message = error.to_string();
                assert!(
                    message.starts_with(expected),
                    "{text}\n  said:     {message}\n  expected: {expected}"
                );
                assert!(!message.contains('\n'), "{message}");
            }
        }
    }
}

#[test]
fn circles_and_depth_are_bounded() {
    let circle =
        set(&[("a", "extends = \"b\""), ("b", "extends = \"c\""), ("c", "extends = \"a\"")]).unwrap_err();
    assert_eq!(circle.to_string(), "c.toml:1:11: `extends` goes in a circle: a → b → c → a");
    let names: Vec<String> = (0..10).map(|number| format!("p{number}")).collect();
    let texts: Vec<String> = (0..10).map(|number| format!("extends = \"p{}\"", number + 1)).collect();
    let mut chain: Vec<(&str, &str)> =
        names.iter().zip(&texts).map(|(name, text)| (name.as_str(), text.as_str())).collect();
    chain.push(("p10", ""));
    let deep = set(&chain).unwrap_err().to_string();
    assert!(deep.contains("`extends` is deeper than 8 policies: p0 → p1"), "{deep}");
    assert!(set(&chain[2..]).is_ok());
}

#[test]
fn texts_without_end_are_refused_before_they_are_read() {
    let long = format!("# {}", "x".repeat(256 * 1024));
    let error = set(&[("p", &long)]).unwrap_err().to_string();
    assert!(error.starts_with("p.toml:1:1: the file's bytes: 262146 is over the limit of 262144"), "{error}");
    let list = format!("[filesystem]\nread = [{}]", "\"/x\",".repeat(1025));
    let error = set(&[("p", &list)]).unwrap_err().to_string();
    assert!(error.starts_with("p.toml:2:8: `read`: 1025 is over the limit of 1024"), "{error}");
    let nested = format!("a = {}", "[".repeat(10_000));
    assert!(set(&[("p", &nested)]).is_err());
    let key = format!("{} = 1", "k".repeat(100_000));
    assert!(set(&[("p", &key)]).unwrap_err().to_string().len() < 1_000);
}

#[test]
fn names_of_files_are_policy_names() {
    for name in ["", "A", "a b", "../a", "a\n"] {
        assert!(set(&[(name, "")]).is_err(), "{name:?}");
    }
}

#[test]
fn shipped_names_are_an_operators_to_replace_and_nobody_elses() {
    let text = "extends = \"default\"\n[limits]\nwall-time = \"5s\"";
    let load = |trust| PolicySet::from_sources(vec![source("default", text, trust)]);
    let replaced = load(Trust::Operator).unwrap();
    assert_eq!(replaced.get("default").unwrap().ancestors(), ["default", "strict"]);
    // What extends the name has the operator's.
    let build = replaced.get("loopback").unwrap();
    let resolved = stockade_policies::resolve(build, &common::request()).unwrap();
    assert_eq!(resolved.spec.limits.wall_ms, Some(5_000));
    match load(Trust::User).unwrap_err() {
        PolicyError::Shadow { name, file } => {
            assert_eq!((name.as_str(), file.as_str()), ("default", "default.toml"));
        }
        error => panic!("{error}"),
    }
    let twice = vec![source("mine", "", Trust::Operator), source("mine", "", Trust::User)];
    let error = PolicySet::from_sources(twice).unwrap_err().to_string();
    assert_eq!(error, "mine.toml: policy `mine` is already defined by mine.toml");
}

#[test]
fn users_may_not_say_what_is_an_operators() {
    let texts = [
        ("[run-as]\nrange = \"70000-80000\"", "p.toml:2:9: `range` may be set only by an operator's policy"),
        ("[filesystem]\ndev = [\"kvm\"]", "p.toml:2:8: `/dev/kvm` may be given only by an operator's policy"),
        (
            "[syscalls]\nallow = [\"ptrace\"]",
            "p.toml:2:10: `ptrace` may be allowed only by an operator's policy: controls",
        ),
        (
            "[syscalls]\nallow = [\"clone3\"]",
            "p.toml:2:10: `clone3` may be allowed only by an operator's policy: its flags",
        ),
    ];
    for (text, expected) in texts {
        let load = |trust| PolicySet::from_sources(vec![source("p", text, trust)]);
        assert!(load(Trust::Operator).is_ok(), "{text}");
        let error = load(Trust::User).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    // A user's child of an operator's policy is a user's.
    let parent = source("parent", "[syscalls]\nallow = [\"ptrace\"]", Trust::Operator);
    let child = source("child", "extends = \"parent\"", Trust::User);
    assert!(PolicySet::from_sources(vec![parent, child]).is_err());
}

#[test]
fn unknown_policies_list_the_nearest_first() {
    let unknown = PolicySet::shipped().get("defualt").unwrap_err();
    assert_eq!(unknown.names[0], "default");
    assert!(unknown.to_string().starts_with("no policy named `defualt`; there are: default, "));
    for asked in ["../../etc/passwd", "a\0b", "\u{1b}[2J", &"x".repeat(1 << 20)] {
        let message = PolicySet::shipped().get(asked).unwrap_err().to_string();
        assert!(message.len() < 600 && !message.chars().any(char::is_control), "{message:?}");
    }
}
