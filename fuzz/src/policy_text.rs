//! A policy's text, as anybody may write it: to the spec that enforces, and to the answers about it.
//!
//! First byte: whose it is, and for whom it is resolved. The rest: the text.

use stockade_policies::{
    PolicySet, Question, ResolveRequest, Source, Subject, Trust, resolve, syscalls::Arch,
};
use stockade_protocol::Bytes;
use stockade_protocol::client::Overrides;
use stockade_protocol::spec::{NetworkMode, RunAs};

use crate::{agreement, shown};

/// A few calls of each kind: plain, with rules, what only an operator may allow, and what isn't one.
const CALLS: [&str; 12] = [
    "read",
    "mkdir",
    "socket",
    "clone",
    "clone3",
    "ptrace",
    "bpf",
    "mount",
    "kill",
    "seccomp",
    "ioprio_set",
    "x",
];

pub(crate) fn run(data: &[u8]) {
    let Some((&flags, text)) = data.split_first() else { return };
    let Ok(text) = core::str::from_utf8(text) else { return };
    let trust = if flags & 1 == 0 { Trust::Operator } else { Trust::User };
    let user_mode = flags & 2 != 0;
    let home = ["/home/u", "/", "/usr/share/empty", "/home/u/project/within"][usize::from(flags >> 2 & 3)];
    let source = || Source { name: "p".into(), file: "p.toml".into(), text: text.into(), trust };
    // For one run, which reads no other policy than it needs; now and then as the daemon does.
    let set = PolicySet::from_sources_named(vec![source()], "p");
    if flags & 0x70 == 0 {
        let whole = PolicySet::from_sources(vec![source()]);
        assert_eq!(whole.is_ok(), set.is_ok(), "alone and among all");
    }
    let set = match set {
        Ok(set) => set,
        Err(error) => return shown::check(&error.to_string()),
    };
    let policy = set.get("p").expect("it was read");
    let subject = Subject {
        owner_uid: 1000,
        owner_gid: 1000,
        home: home.into(),
        workspace: "/home/u/project".into(),
        overrides: Overrides::default(),
        user_mode,
    };
    let environment =
        ["PATH", "LC_ALL", "A", "TOKEN"].map(|name| (Bytes::from(name), Bytes::from("v"))).to_vec();
    let request = ResolveRequest { subject, cwd: None, environment };
    let resolved = match resolve(policy, &request) {
        Ok(resolved) => resolved,
        Err(error) => return shown::check(&error.to_string()),
    };
    let again = resolve(policy, &request).expect("the same again");
    assert_eq!((again.spec, again.environment), (resolved.spec.clone(), resolved.environment.clone()));
    agreement::check(&resolved, &[], &CALLS);
    if trust == Trust::User {
        assert!(
            user_mode || resolved.spec.network.mode != NetworkMode::Host,
            "a user gives the host's network"
        );
        let never = ["bpf", "ptrace", "mount", "keyctl", "kexec_load", "io_uring_setup"];
        for name in
            never.into_iter().filter(|name| Arch::current().is_some_and(|arch| arch.number(name).is_some()))
        {
            let answer = resolved.explain(&Question::Syscall(name.to_owned()));
            assert!(!answer.allowed, "a user allows {name}");
        }
    }
    if let RunAs::Ephemeral { start, count } = resolved.spec.run_as {
        assert!(!user_mode && start >= 100_000 && count > 0 && start.checked_add(count).is_some());
    }
}
