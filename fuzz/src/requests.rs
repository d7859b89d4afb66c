//! Requests as clients make them, arguments and environment first: what is admitted is what the policy gives, and what the
//! launcher permits; what is refused is refused in words.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use arbitrary::{Arbitrary as _, Unstructured};
use stockade_policies::{Confines, PolicySet, Subject};
use stockade_protocol::bounds::{MAX_ARGUMENTS_TOTAL, MAX_ENVIRONMENT};
use stockade_protocol::client::{ExecRequest, OutputMode, Overrides, StdinMode, Workspace};
use stockade_protocol::confinement::Plan;
use stockade_protocol::launch::{Launch, Owner, ToLauncher};
use stockade_protocol::{Bytes, ExecId, codec};
use stockade_supervisor::admission::{Admitted, Caller, Once, OutputRules, Passed, StdinPlan, admit};
use stockade_supervisor::descriptors::Kind;

use crate::{agreement, shown};

static POLICIES: LazyLock<PolicySet> = LazyLock::new(PolicySet::shipped);
const RUN: ExecId = ExecId::from_bytes([7; 16]);

pub(crate) fn run(data: &[u8]) {
    let _short = tried(&mut Unstructured::new(data));
}

fn tried(data: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let caller = caller(data)?;
    let passed = passed(data)?;
    let request = request(data)?;
    let admitted = admit(request.clone(), RUN, &caller, &*POLICIES, &passed, OutputRules::default());
    let once = admit(request.clone(), RUN, &caller, Once(&POLICIES), &passed, OutputRules::default());
    match (admitted, once) {
        (Ok(admitted), Ok(once)) => {
            assert_eq!(admitted.launch, once.launch, "for one run, and for many");
            checked(&request, &caller, &admitted);
        }
        (Err(denied), Err(once)) => {
            assert_eq!(denied, once);
            shown::check(&denied.message);
            denied.remedy.iter().for_each(|remedy| shown::check(remedy));
        }
        (one, other) => panic!("admitted for many: {}, for one: {}", one.is_ok(), other.is_ok()),
    }
    Ok(())
}

fn checked(request: &ExecRequest, caller: &Caller, admitted: &Admitted) {
    let Admitted { launch, spec, stdin, .. } = admitted;
    assert_eq!((&launch.argv, &launch.owner), (&request.argv, &caller.owner));
    words(launch);
    let (Workspace::Path { path } | Workspace::Descriptor { path }) = &request.workspace else {
        panic!("a workspace of no known kind");
    };
    assert_eq!(&launch.workspace, path);
    assert!(launch.cwd.as_path().starts_with(launch.workspace.as_path()), "{}", launch.cwd.to_text());
    let there = |path: &std::path::Path| {
        let above = spec.mounts.iter().any(|mount| path.starts_with(mount.target.as_path()));
        above && !spec.deny.iter().any(|denied| path.starts_with(denied.as_path()))
    };
    assert!(there(launch.cwd.as_path()), "the working directory {} isn't there", launch.cwd.to_text());
    // Without what was asked for, the limits are no tighter than this.
    if request.overrides != Overrides::default() {
        let plain = POLICIES
            .get(&request.policy)
            .map(|policy| Confines::of_one_run(policy, &subject(request, caller)));
        let plain = plain.expect("a policy that was found").expect("a request that was admitted");
        assert!(agreement::is_no_wider(&spec.limits, &plain.spec.limits));
    }
    if let StdinPlan::Inline(bytes) = stdin {
        assert!(spec.limits.stdin.is_none_or(|most| bytes.len() as u64 <= most));
    }
    // The launcher takes what the supervisor has admitted, if it may run it for this owner at all.
    let mut ours = launch.clone();
    ours.owner.uid = rights();
    let taken = stockade_worker::fuzzing::permitted(Arc::clone(spec), Some(&ours), Plan::User);
    assert!(taken.is_ok(), "{taken:?}");
    let message = ToLauncher::Launch(Box::new(launch.clone()));
    let bytes = codec::encode_launch(&message).expect("what is admitted is a message");
    assert_eq!(codec::decode_launch::<ToLauncher>(&bytes), Ok(message));
}

/// For whom, and where; limits as the policy has them.
fn subject(request: &ExecRequest, caller: &Caller) -> Subject {
    let (Workspace::Path { path } | Workspace::Descriptor { path }) = &request.workspace else {
        panic!("a workspace of no known kind");
    };
    Subject {
        owner_uid: caller.owner.uid,
        owner_gid: caller.owner.gid,
        home: caller.home.clone(),
        workspace: path.as_path().to_owned(),
        overrides: Overrides::default(),
        user_mode: caller.user_mode,
    }
}

/// What a tool's `execve` would be given.
fn words(launch: &Launch) {
    assert!(launch.argv.first().is_some_and(|program| !program.is_empty()));
    assert!(launch.argv.iter().all(|word| !word.contains(&0)));
    for (name, value) in &launch.environment {
        assert!(!name.is_empty() && !name.contains(&b'=') && !name.contains(&0) && !value.contains(&0));
    }
    assert!(launch.environment.is_sorted_by(|one, next| one.0 < next.0), "sorted, each name once");
    assert!(launch.environment.len() <= MAX_ENVIRONMENT);
    for needed in ["HOME", "PATH"] {
        assert!(launch.environment.iter().any(|(name, _)| **name == *needed.as_bytes()), "{needed}");
    }
    for secret in ["AWS_SECRET_ACCESS_KEY", "LD_PRELOAD", "GITHUB_TOKEN"] {
        assert!(launch.environment.iter().all(|(name, _)| **name != *secret.as_bytes()), "{secret} arrives");
    }
    let total: usize = launch.argv.iter().map(|word| word.len() + 1).sum();
    assert!(total <= MAX_ARGUMENTS_TOTAL);
}

/// As whom a launcher of this process may start runs.
fn rights() -> u32 {
    static ME: LazyLock<u32> = LazyLock::new(|| {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata("/proc/self").map_or(0, |process| process.uid())
    });
    *ME
}

fn caller(data: &mut Unstructured<'_>) -> arbitrary::Result<Caller> {
    let homes = ["/home/u", "/", "/root", "/usr/share/empty", "/home/u/w", "/dev", "relative", ""];
    Ok(Caller {
        owner: Owner { uid: u32::arbitrary(data)?, gid: u32::arbitrary(data)?, groups: Vec::new() },
        home: PathBuf::from(*data.choose(&homes)?),
        user_mode: bool::arbitrary(data)?,
    })
}

fn passed(data: &mut Unstructured<'_>) -> arbitrary::Result<Passed> {
    const KINDS: [Kind; 9] = [
        Kind::Pipe,
        Kind::File,
        Kind::Distant,
        Kind::Terminal,
        Kind::Harmless,
        Kind::Socket,
        Kind::Directory,
        Kind::Other,
        Kind::PathOnly,
    ];
    let workspace = match data.int_in_range(0..=2)? {
        0 => None,
        1 => Some(None),
        _ => Some(Some(PathBuf::from("/home/u/w"))),
    };
    let stdin = if bool::arbitrary(data)? { Some(*data.choose(&KINDS)?) } else { None };
    let output =
        if bool::arbitrary(data)? { Some([*data.choose(&KINDS)?, *data.choose(&KINDS)?]) } else { None };
    Ok(Passed { workspace, stdin, output })
}

fn request(data: &mut Unstructured<'_>) -> arbitrary::Result<ExecRequest> {
    let path = path(data)?;
    let policies = POLICIES.names();
    let policy = match data.int_in_range(0..=7)? {
        0 => String::arbitrary(data)?,
        _ => (*data.choose(&policies)?).to_owned(),
    };
    Ok(ExecRequest {
        request_id: u64::arbitrary(data)?,
        cwd: if bool::arbitrary(data)? { Bytes::default() } else { beneath(data, &path)? },
        workspace: if bool::arbitrary(data)? {
            Workspace::Path { path }
        } else {
            Workspace::Descriptor { path }
        },
        policy,
        overrides: Overrides {
            wall_ms: Option::arbitrary(data)?,
            cpu_ms: Option::arbitrary(data)?,
            idle_ms: Option::arbitrary(data)?,
            memory: Option::arbitrary(data)?,
            processes: Option::arbitrary(data)?,
            output: Option::arbitrary(data)?,
        },
        stdin: match data.int_in_range(0..=3)? {
            0 => StdinMode::None,
            1 => StdinMode::Inline(bytes(data)?),
            2 => StdinMode::Stream,
            _ => StdinMode::Descriptor,
        },
        output: if bool::arbitrary(data)? { OutputMode::Stream } else { OutputMode::Descriptor },
        detach: bool::arbitrary(data)?,
        tool: None,
        environment: environment(data)?,
        argv: argv(data)?,
    })
}

fn bytes(data: &mut Unstructured<'_>) -> arbitrary::Result<Bytes> {
    Ok(Bytes(Vec::arbitrary(data)?))
}

/// Where a workspace is: mostly a place for work.
fn path(data: &mut Unstructured<'_>) -> arbitrary::Result<Bytes> {
    const PATHS: [&str; 10] = [
        "/home/u/w",
        "/srv/w",
        "/tmp/w",
        "/home/u",
        "/usr",
        "/",
        "/home/u/../w",
        "/run/media/u/disk",
        "/etc/w",
        "w",
    ];
    match data.int_in_range(0..=15)? {
        0 => bytes(data),
        at => Ok(Bytes::from(PATHS[usize::min(at / 2, PATHS.len() - 1)])),
    }
}

fn beneath(data: &mut Unstructured<'_>, path: &Bytes) -> arbitrary::Result<Bytes> {
    let mut cwd = path.to_vec();
    cwd.extend_from_slice(
        data.choose(&["", "/a", "/.git", "/.env", "/..", "x", "/", "//a", "/.git/hooks"])?.as_bytes(),
    );
    if bool::arbitrary(data)? {
        cwd.extend_from_slice(&bytes(data)?);
    }
    Ok(Bytes(cwd))
}

fn environment(data: &mut Unstructured<'_>) -> arbitrary::Result<Vec<(Bytes, Bytes)>> {
    const NAMES: [&str; 10] = [
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "TERM",
        "AWS_SECRET_ACCESS_KEY",
        "LD_PRELOAD",
        "GITHUB_TOKEN",
        "LC_=",
        "TRACEPARENT",
    ];
    let mut environment = Vec::new();
    for _ in 0..data.int_in_range(0..=6)? {
        let name = match data.int_in_range(0..=3)? {
            0 => bytes(data)?,
            _ => Bytes::from(*data.choose(&NAMES)?),
        };
        environment.push((name, bytes(data)?));
    }
    // Now and then more, or longer, than anybody may.
    match u8::arbitrary(data)? {
        254 => environment.resize(MAX_ENVIRONMENT + 1, ("A".into(), "b".into())),
        255 => environment.push(("A".into(), Bytes(vec![b'a'; 128 * 1024]))),
        _ => {}
    }
    Ok(environment)
}

fn argv(data: &mut Unstructured<'_>) -> arbitrary::Result<Vec<Bytes>> {
    let mut argv = Vec::new();
    for _ in 0..data.int_in_range(0..=5)? {
        argv.push(bytes(data)?);
    }
    match u8::arbitrary(data)? {
        253 => argv.resize(16 * 1024 + 1, "x".into()),
        254 => argv.push(Bytes(vec![b'x'; 128 * 1024])),
        255 => argv.resize(7, Bytes(vec![b'x'; 127 * 1024])),
        _ => {}
    }
    Ok(argv)
}
