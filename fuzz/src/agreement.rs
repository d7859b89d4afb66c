//! What explains is what enforces: answers about a resolved policy, compared with the spec that the worker obeys.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stockade_policies::syscalls::{Arch, Call, Verdict, evaluate};
use stockade_policies::{Question, Resolved};
use stockade_protocol::Bytes;
use stockade_protocol::codec;
use stockade_protocol::confinement::Plan;
use stockade_protocol::spec::{Access, Limits, MountKind, NetworkMode, Ports, SandboxSpec};

use crate::shown;

/// Checks the answers to whatever the spec itself brings up, and to these paths and calls.
pub(crate) fn check(resolved: &Resolved, paths: &[PathBuf], calls: &[&str]) {
    let spec = &resolved.spec;
    spec.mounts.iter().for_each(|mount| about(resolved, mount.target.as_path()));
    for path in spec.deny.iter().chain(&spec.protect) {
        about(resolved, path.as_path());
        about(resolved, &path.as_path().join("x"));
        path.as_path().parent().into_iter().for_each(|above| about(resolved, above));
    }
    paths.iter().for_each(|path| about(resolved, path));
    ports(resolved);
    variables(resolved);
    calls.iter().for_each(|name| call(resolved, name));
    carried(spec);
}

fn allowed(resolved: &Resolved, question: &Question) -> bool {
    let answer = resolved.explain(question);
    shown::check(&answer.rule);
    shown::check(&answer.note);
    answer.allowed
}

/// As a worker reads a spec: the last mount above a path decides, but for what is guarded.
fn about(resolved: &Resolved, path: &Path) {
    let spec = &resolved.spec;
    let beneath = |list: &[Bytes]| list.iter().any(|guard| path.starts_with(guard.as_path()));
    let mount = spec.mounts.iter().rfind(|mount| path.starts_with(mount.target.as_path()));
    if mount.is_some_and(|mount| matches!(mount.kind, MountKind::Dev { .. })) {
        // Of /dev only some names are there at all.
        return;
    }
    let Access { read, write, execute } = mount.map(|mount| mount.access).unwrap_or_default();
    let denied = beneath(&spec.deny);
    let guarded = denied || beneath(&spec.protect);
    let answers = [Question::Read, Question::Write, Question::Execute]
        .map(|question: fn(PathBuf) -> Question| allowed(resolved, &question(path.to_owned())));
    let wanted = [read && !denied, write && !guarded, execute && !denied];
    assert_eq!(answers, wanted, "{}: read, write, execute", path.display());
    assert!(read || !(write || execute), "{}: used and not read", path.display());
}

fn ports(resolved: &Resolved) {
    let network = &resolved.spec.network;
    let mut asked = vec![0, 1, 80, 443, 8080, u16::MAX];
    for ports in [&network.tcp_connect, &network.tcp_bind] {
        if let Ports::Only(ports) = ports {
            asked.extend(ports);
        }
    }
    for port in asked {
        let given = |ports: &Ports| {
            let listed = match ports {
                Ports::Any => port != 0,
                Ports::Only(ports) => ports.contains(&port),
            };
            listed && network.mode != NetworkMode::None
        };
        assert_eq!(
            allowed(resolved, &Question::Connect(port)),
            given(&network.tcp_connect),
            "connect {port}"
        );
        assert_eq!(allowed(resolved, &Question::Bind(port)), given(&network.tcp_bind), "bind {port}");
    }
}

fn variables(resolved: &Resolved) {
    for (name, value) in &resolved.environment {
        assert!(!name.is_empty() && !name.contains(&b'=') && !name.contains(&0) && !value.contains(&0));
        if let Ok(name) = core::str::from_utf8(name) {
            assert!(allowed(resolved, &Question::Env(name.to_owned())), "{name} arrives");
        }
    }
    assert!(resolved.environment.is_sorted_by(|one, next| one.0 < next.0), "names are sorted, each once");
}

/// What is denied by name is denied whatever the arguments are.
fn call(resolved: &Resolved, name: &str) {
    let seccomp = &resolved.spec.seccomp;
    let arch = Arch::current().expect("this machine has filters");
    let allowed = allowed(resolved, &Question::Syscall(name.to_owned()));
    let Some(number) = arch.number(name) else {
        assert!(!allowed, "{name} isn't there");
        return;
    };
    let verdict = |arguments| {
        let call = Call { number, arch: arch.audit(), arguments, ..Call::default() };
        evaluate(seccomp.base.iter().chain(&seccomp.delta), &call)
    };
    let tried = [[0; 6], [1; 6], [u64::MAX; 6], [1, 1, 0, 0, 0, 0], [2, 1, 6, 0, 0, 0], [1, 0, 0, 0, 0, 0]];
    let any = tried.into_iter().any(|arguments| verdict(arguments) == Verdict::Allow);
    assert!(allowed || !any, "{name} is said to be denied, and some of it is allowed");
    assert!(!allowed || any, "{name} is said to be allowed, and nothing of it is");
}

/// It is a message, the same one each time, and one that a launcher takes.
fn carried(spec: &Arc<SandboxSpec>) {
    let bytes = codec::encode_launch(&**spec).expect("it fits into a message");
    assert_eq!(codec::decode_launch::<SandboxSpec>(&bytes).as_ref(), Ok(&**spec));
    let paths = spec.mounts.len() + spec.deny.len() + spec.deny_elsewhere.len() + spec.protect.len();
    let permitted = stockade_worker::fuzzing::permitted(Arc::clone(spec), None, Plan::User);
    assert!(permitted.is_ok() || paths > 1024, "{permitted:?}");
}

/// Whether no limit is wider than another's.
pub(crate) fn is_no_wider(one: &Limits, than: &Limits) -> bool {
    let within = |one: Option<u64>, than: Option<u64>| match (one, than) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(one), Some(than)) => one <= than,
    };
    let optional = |limits: &Limits| {
        let Limits { wall_ms, cpu_ms, idle_ms, memory, output, stdin, file_size, address_space, .. } =
            *limits;
        [wall_ms, cpu_ms, idle_ms, memory, output, stdin, file_size, address_space]
    };
    let fixed = |limits: &Limits| {
        let Limits { processes, open_files, core, stack, .. } = *limits;
        [processes, open_files, core, stack]
    };
    optional(one).into_iter().zip(optional(than)).all(|(one, than)| within(one, than))
        && fixed(one).into_iter().zip(fixed(than)).all(|(one, than)| one <= than)
        && one.nice >= than.nice
        && one.io_priority == than.io_priority
}
