//! The launcher driven over its wire, without a supervisor or a policy: what the worker does with a spec.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests"
)]

use std::fs::File;
use std::io::{PipeReader, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use stockade_protocol::launch::{
    FromLauncher, Keep, LAUNCH_VERSION, Launch, LaunchOutput, Owner, RunNote, SpecNumber, ToLauncher, Token,
};
use stockade_protocol::outcome::{CancelReason, Clock, Outcome, SetupStage};
use stockade_protocol::spec::{
    Access, BpfInstruction, IoPriority, Level, Limits, Mount, MountKind, NetworkMode, NetworkSpec, Ports,
    RunAs, SandboxSpec, SeccompSpec,
};
use stockade_protocol::{Bytes, ExecId};
use stockade_wire::channel::Channel;

const READ: Access = Access { read: true, write: false, execute: true };
const ALL: Access = Access { read: true, write: true, execute: true };

const SPEC: SpecNumber = SpecNumber(1);

fn spec(workspace: &Path) -> SandboxSpec {
    let bind =
        |path: &str| Mount { target: path.into(), kind: MountKind::Bind { create: false }, access: READ };
    let mut mounts: Vec<Mount> = ["/usr", "/bin", "/lib", "/lib64", "/etc", "/nowhere"].map(bind).into();
    mounts.push(Mount {
        target: "/tmp".into(),
        kind: MountKind::Tmpfs { size: 1 << 20, mode: 0o1777 },
        access: ALL,
    });
    mounts.push(Mount { target: "/proc".into(), kind: MountKind::Proc, access: READ });
    let nodes = ["null", "zero", "full", "random", "urandom"].map(Bytes::from).into();
    mounts.push(Mount {
        target: "/dev".into(),
        kind: MountKind::Dev { nodes, shm_size: 1 << 20 },
        access: ALL,
    });
    mounts.push(Mount { target: workspace.into(), kind: MountKind::Workspace, access: ALL });
    SandboxSpec {
        policy: "test".into(),
        digest: [0; 32],
        level: Level::Strict,
        mounts,
        deny: Vec::new(),
        deny_elsewhere: Vec::new(),
        protect: Vec::new(),
        network: NetworkSpec {
            mode: NetworkMode::None,
            tcp_connect: Ports::Only(Vec::new()),
            tcp_bind: Ports::Only(Vec::new()),
        },
        limits: Limits {
            wall_ms: Some(60_000),
            cpu_ms: None,
            idle_ms: None,
            memory: Some(512 << 20),
            processes: 64,
            open_files: 256,
            file_size: None,
            output: None,
            stdin: None,
            core: 0,
            stack: 8 << 20,
            address_space: None,
            nice: 0,
            io_priority: IoPriority::BestEffort(4),
        },
        seccomp: SeccompSpec {
            base: vec![vec![BpfInstruction { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 }]],
            delta: Vec::new(),
            rules: 0,
        },
        run_as: RunAs::Ephemeral { start: 2_000_000_000, count: 65_536 },
        hostname: "stockade".into(),
    }
}

struct Ran {
    output: String,
    outcome: Outcome,
    trusted: Vec<Bytes>,
    messages: Vec<FromLauncher>,
}

fn run_with(spec: SandboxSpec, workspace: &Path, argv: &[&str]) -> Ran {
    let (mut child, channel, mut read) = begin(spec, workspace, argv);
    let mut messages = Vec::new();
    let (outcome, trusted) = loop {
        let (message, _) = channel.receive::<FromLauncher>().unwrap().expect("the launcher goes on");
        if let FromLauncher::Ended { outcome, trusted_files, .. } = &message {
            let end = (outcome.clone(), trusted_files.clone());
            messages.push(message);
            break end;
        }
        messages.push(message);
    };
    let mut output = String::new();
    read.read_to_string(&mut output).unwrap();
    drop(channel);
    child.wait().unwrap();
    Ran { output, outcome, trusted, messages }
}

/// A launcher that was told to run this, its channel, and the output's pipe.
fn begin(spec: SandboxSpec, workspace: &Path, argv: &[&str]) -> (Child, Channel, PipeReader) {
    let (child, channel) = launcher();
    tell(&channel, SPEC, spec);
    let read = launch(&channel, SPEC, workspace, argv);
    (child, channel, read)
}

fn launcher() -> (Child, Channel) {
    let (ours, theirs) = stockade_wire::socket::seqpacket_pair().unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_stockade-launcher"))
        .args(["launcher", "--embedded"])
        .stdin(Stdio::from(theirs))
        .spawn()
        .unwrap();
    let channel = Channel::new(ours);
    channel.send(&ToLauncher::Hello { version: LAUNCH_VERSION, keep: None, parked: 0 }, &[]).unwrap();
    (child, channel)
}

fn tell(channel: &Channel, number: SpecNumber, spec: SandboxSpec) {
    channel.send(&ToLauncher::Spec { number, spec: Arc::new(spec) }, &[]).unwrap();
}

/// Has a command run within a spec that was told. Its output.
fn launch(channel: &Channel, spec: SpecNumber, workspace: &Path, argv: &[&str]) -> PipeReader {
    let (read, write) = std::io::pipe().unwrap();
    let uid = rustix::process::geteuid().as_raw();
    let launch = Launch {
        exec_id: ExecId::generate(),
        owner: Owner { uid, gid: rustix::process::getegid().as_raw(), groups: Vec::new() },
        spec,
        argv: argv.iter().map(|a| Bytes::from(*a)).collect(),
        environment: vec![("PATH".into(), "/usr/bin:/bin".into()), ("HOME".into(), "/home/none".into())],
        cwd: workspace.into(),
        home: "/home/none".into(),
        workspace: workspace.into(),
        workspace_passed: true,
        stdin_passed: false,
        output: LaunchOutput::Passed,
        note: RunNote {
            request_id: 1,
            policy: "test".into(),
            command: argv.join(" ").as_str().into(),
            detach: false,
            wall_ms: None,
            fed: false,
            tool: None,
            redaction: None,
            grant: None,
            reviews: None,
        },
        proved: false,
        openings: Vec::new(),
    };
    let directory = File::open(workspace).unwrap();
    let (out, err): (OwnedFd, OwnedFd) = (write.try_clone().unwrap().into(), write.into());
    channel
        .send(&ToLauncher::Launch(Box::new(launch)), &[directory.as_fd(), out.as_fd(), err.as_fd()])
        .unwrap();
    read
}

fn outcome(channel: &Channel) -> Outcome {
    loop {
        let (message, _) = channel.receive::<FromLauncher>().unwrap().expect("the launcher goes on");
        if let FromLauncher::Ended { outcome, .. } = message {
            return outcome;
        }
    }
}

fn workspace() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Waits for what must come, on a busy machine too.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed().as_secs() < 60, "never: {what}");
        std::thread::yield_now();
    }
}

fn sh(script: &str) -> Ran {
    let workspace = workspace();
    run_with(spec(workspace.path()), workspace.path(), &["sh", "-c", script])
}

#[test]
fn a_run_that_names_an_unknown_spec_fails_and_says_so() {
    let workspace = workspace();
    let (mut child, channel) = launcher();
    tell(&channel, SPEC, spec(workspace.path()));
    channel.send(&ToLauncher::ForgetSpec { number: SPEC }, &[]).unwrap();
    for number in [SPEC, SpecNumber(2)] {
        let mut read = launch(&channel, number, workspace.path(), &["sh", "-c", "echo RAN"]);
        let Outcome::SetupFailed { failure } = outcome(&channel) else { panic!("it ran") };
        assert_eq!(
            (failure.stage, failure.subject.to_text().as_str()),
            (SetupStage::Check, "spec isn't known")
        );
        let mut output = String::new();
        read.read_to_string(&mut output).unwrap();
        assert_eq!(output, "");
    }
    drop(channel);
    child.wait().unwrap();
}

#[test]
fn two_specs_of_one_launcher_confine_each_their_own_runs() {
    let workspace = workspace();
    let (mut child, channel) = launcher();
    let mut shut = spec(workspace.path());
    shut.protect = vec![Bytes::from(workspace.path().join("kept"))];
    std::fs::write(workspace.path().join("kept"), "kept").unwrap();
    tell(&channel, SpecNumber(1), shut);
    tell(&channel, SpecNumber(2), spec(workspace.path()));
    for (number, expected) in [(1, "kept"), (2, "2\n"), (1, "2\n")] {
        let script = format!("echo {number} > kept");
        let _output = launch(&channel, SpecNumber(number), workspace.path(), &["sh", "-c", &script]);
        outcome(&channel);
        assert_eq!(std::fs::read_to_string(workspace.path().join("kept")).unwrap(), expected, "{number}");
    }
    drop(channel);
    child.wait().unwrap();
}

const OK: Outcome = Outcome::Exited { code: 0 };

#[test]
fn a_tool_runs_and_its_exit_code_comes_back() {
    let ran = sh("echo hello; exit 7");
    assert_eq!((ran.output.as_str(), ran.outcome), ("hello\n", Outcome::Exited { code: 7 }));
}

#[test]
fn what_holds_is_reported_layer_by_layer() {
    let ran = sh("true");
    let started = ran.messages.iter().find_map(|message| match message {
        FromLauncher::Started { confinement, .. } => Some(confinement.clone()),
        _ => None,
    });
    let confinement = started.expect("a report");
    assert_eq!(confinement.layers.len(), 10, "{confinement:?}");
    assert!(confinement.layers[1].detail.ends_with("on a sealed tmpfs"), "{confinement:?}");
    assert_eq!(confinement.absent, [Bytes::from("/nowhere")]);
}

#[test]
fn the_tool_is_alone_in_its_root() {
    let ran = sh("echo $$; ls /; id -u; ls /proc | grep -c '^[0-9]'; cat /etc/hostname >/dev/null; hostname");
    assert_eq!(ran.outcome, OK, "{}", ran.output);
    assert!(!ran.output.contains("root"), "{}", ran.output);
    assert!(ran.output.contains("usr\n"), "{}", ran.output);
    assert!(ran.output.ends_with("stockade\n"), "{}", ran.output);
}

#[test]
fn the_workspace_is_writable_and_keeps_its_owner() {
    use std::os::unix::fs::MetadataExt as _;
    let workspace = workspace();
    let ran = run_with(
        spec(workspace.path()),
        workspace.path(),
        &["sh", "-c", "echo x > made && mkdir d && mv made d/"],
    );
    assert_eq!(ran.outcome, OK, "{}", ran.output);
    let made = workspace.path().join("d/made").metadata().unwrap();
    assert_eq!(made.uid(), rustix::process::geteuid().as_raw());
}

#[test]
fn a_missing_program_is_told_with_where_it_was_looked_for() {
    let workspace = workspace();
    let ran = run_with(spec(workspace.path()), workspace.path(), &["no-such-tool"]);
    let Outcome::SetupFailed { failure } = ran.outcome else { panic!("{:?}", ran.outcome) };
    assert_eq!((failure.stage, failure.errno), (SetupStage::Exec, libc::ENOENT));
    assert_eq!(failure.subject.to_text(), "/usr/bin/no-such-tool:/bin/no-such-tool");
}

#[test]
fn wall_time_ends_the_run() {
    let workspace = workspace();
    let mut spec = spec(workspace.path());
    spec.limits.wall_ms = Some(200);
    let ran = run_with(spec, workspace.path(), &["sh", "-c", "trap '' TERM; sleep 90 & sleep 90"]);
    assert_eq!(ran.outcome, Outcome::TimedOut { clock: Clock::Wall, limit_ms: 200 });
}

/// Init says after 2 ms that its tool runs: a shorter limit holds from the tool's start all the same.
#[test]
fn wall_time_shorter_than_it_takes_to_be_told_of_the_tool_ends_the_run() {
    let workspace = workspace();
    let mut spec = spec(workspace.path());
    spec.limits.wall_ms = Some(1);
    let ran = run_with(spec, workspace.path(), &["sleep", "60"]);
    assert_eq!(ran.outcome, Outcome::TimedOut { clock: Clock::Wall, limit_ms: 1 });
    assert!(is_started(&ran.messages), "{:?}", ran.messages);
}

fn is_started(messages: &[FromLauncher]) -> bool {
    messages.iter().filter(|message| matches!(message, FromLauncher::Started { .. })).count() == 1
}

/// Most of these are killed before they say that the tool runs.
#[test]
fn a_worker_that_dies_as_its_tool_begins_is_told_as_started_and_lost() {
    for round in 0..10 {
        let workspace = workspace();
        let begun = ["sh", "-c", ": > up; exec sleep 60"];
        let (mut child, channel, _read) = begin(spec(workspace.path()), workspace.path(), &begun);
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        until("the tool begins", || workspace.path().join("up").exists());
        // On a busy machine the monitor may be there as well; and the kernel may leave one out of the list while another ends.
        let is_init = |pid: &&str| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "stockade-init\n")
        };
        let mut init = None;
        until("there is an init", || {
            let children = std::fs::read_to_string(&children).unwrap();
            init = children.split_ascii_whitespace().find(is_init).map(|pid| pid.parse().unwrap());
            init.is_some()
        });
        let init = rustix::process::Pid::from_raw(init.unwrap()).unwrap();
        rustix::process::kill_process(init, rustix::process::Signal::KILL).unwrap();
        let mut messages = Vec::new();
        while let Ok(Some((message, _))) = channel.receive::<FromLauncher>() {
            let is_end = matches!(message, FromLauncher::Ended { .. });
            messages.push(message);
            if is_end {
                break;
            }
        }
        assert!(is_started(&messages), "round {round}: {messages:?}");
        let lost = |message: &FromLauncher| {
            matches!(message, FromLauncher::Ended { outcome: Outcome::Lost { .. }, .. })
        };
        assert!(messages.last().is_some_and(lost), "round {round}: {messages:?}");
        drop(channel);
        child.wait().unwrap();
    }
}

#[test]
fn denied_and_protected_paths_hold() {
    let workspace = workspace();
    let path = |name: &str| Bytes::from(workspace.path().join(name));
    std::fs::create_dir_all(workspace.path().join(".git/hooks")).unwrap();
    std::fs::write(workspace.path().join(".git/config"), "kept").unwrap();
    std::fs::write(workspace.path().join("secret"), "secret").unwrap();
    let mut spec = spec(workspace.path());
    spec.protect = vec![path(".git/hooks"), path(".git/config"), path(".vscode")];
    spec.deny = vec![path("secret")];
    let script = "cat .git/config; cat secret && echo READ-SECRET; echo x > .git/config && echo WROTE; \
        rm -f .git/config; mv .git .git2 && echo MOVED; touch .git/hooks/pre-commit && echo HOOKED; \
        ln .git/config linked && echo LINKED; mkdir .vscode; echo x > .git/other && echo end";
    let ran = run_with(spec, workspace.path(), &["sh", "-c", script]);
    for word in ["READ-SECRET", "WROTE", "MOVED", "HOOKED", "LINKED"] {
        assert!(!ran.output.contains(word), "{}", ran.output);
    }
    assert!(ran.output.starts_with("kept") && ran.output.ends_with("end\n"), "{}", ran.output);
    assert_eq!(std::fs::read_to_string(workspace.path().join(".git/config")).unwrap(), "kept");
    assert_eq!(ran.trusted, [path(".vscode")]);
}

#[test]
fn a_denied_path_that_does_not_exist_cannot_come_to_be_and_leaves_no_ghost() {
    let workspace = workspace();
    let path = |name: &str| Bytes::from(workspace.path().join(name));
    let mut spec = spec(workspace.path());
    spec.deny = vec![path(".env"), path("secrets/key"), "/tmp/private".into()];
    let script = "echo x > .env && echo MADE; mkdir -p secrets/key/x && echo MADE; rmdir .env && echo GONE; \
        mv secrets s2 && echo MOVED; touch secrets/other || echo REFUSED; rm secrets/other; ls /tmp/private && echo SEEN; echo end";
    let ran = run_with(spec, workspace.path(), &["sh", "-c", script]);
    for word in ["MADE", "GONE", "MOVED", "REFUSED", "SEEN"] {
        assert!(!ran.output.contains(word), "{}", ran.output);
    }
    assert_eq!(ran.outcome, OK);
    assert_eq!(std::fs::read_dir(workspace.path()).unwrap().count(), 0, "ghosts are left");
}

#[test]
fn without_the_deny_the_same_paths_can_be_made() {
    let ran = sh("echo x > .env && mkdir -p secrets/key && mv secrets s2 && echo MADE");
    assert_eq!(ran.output, "MADE\n");
}

#[test]
fn a_rename_on_the_host_that_dissolves_a_mask_ends_the_run() {
    let workspace = workspace();
    let config = workspace.path().join("config");
    std::fs::write(&config, "kept").unwrap();
    let mut spec = spec(workspace.path());
    spec.protect = vec![config.clone().into()];
    let other = workspace.path().join("config.lock");
    let renamed = std::thread::spawn(move || {
        until("the tool begins", || config.with_file_name("up").exists());
        std::fs::write(&other, "new").unwrap();
        std::fs::rename(&other, &config).unwrap();
    });
    let ran = run_with(spec, workspace.path(), &["sh", "-c", "touch up; sleep 50; echo x > config"]);
    renamed.join().unwrap();
    assert!(
        matches!(ran.outcome, Outcome::Cancelled { reason: CancelReason::GuardDissolved { .. } }),
        "{:?}",
        ran.outcome
    );
    assert_eq!(std::fs::read_to_string(workspace.path().join("config")).unwrap(), "new");
}

#[test]
fn a_file_above_a_guarded_name_cannot_be_replaced_by_a_directory() {
    let workspace = workspace();
    let path = |name: &str| Bytes::from(workspace.path().join(name));
    std::fs::write(workspace.path().join(".git"), "gitdir: elsewhere").unwrap();
    std::fs::write(workspace.path().join("plain"), "x").unwrap();
    let mut spec = spec(workspace.path());
    spec.protect = vec![path(".git/hooks"), path(".git/config")];
    spec.deny = vec![path("plain/secret")];
    let script = "echo gitdir: evil > .git && echo WROTE; rm -f .git; mv .git g2 && echo MOVED; \
        mkdir -p .git/hooks && echo MADE; rm -f plain; mkdir -p plain/secret && echo MADE; echo end";
    let ran = run_with(spec, workspace.path(), &["sh", "-c", script]);
    for word in ["WROTE", "MOVED", "MADE"] {
        assert!(!ran.output.contains(word), "{}", ran.output);
    }
    assert_eq!(std::fs::read_to_string(workspace.path().join(".git")).unwrap(), "gitdir: elsewhere");
    assert_eq!((ran.outcome, ran.trusted), (OK, Vec::new()), "{}", ran.output);
}

#[test]
fn a_file_or_link_made_above_a_protected_name_is_listed() {
    for script in ["echo gitdir: evil > .git", "ln -s /elsewhere .git", "mkdir -p .git/hooks; chmod 0 .git"] {
        let workspace = workspace();
        let path = |name: &str| Bytes::from(workspace.path().join(name));
        let mut spec = spec(workspace.path());
        spec.protect = vec![path(".git/hooks"), path(".vscode")];
        let ran = run_with(spec, workspace.path(), &["sh", "-c", script]);
        assert_eq!(ran.outcome, OK, "{}", ran.output);
        let listed: Vec<String> = ran.trusted.iter().map(Bytes::to_text).collect();
        assert_eq!(listed.len(), 1, "{script}: {listed:?}");
        let top = workspace.path().join(".git");
        assert!(Path::new(&listed[0]).starts_with(&top), "{script}: {listed:?}");
        std::fs::set_permissions(&top, std::os::unix::fs::PermissionsExt::from_mode(0o700)).ok();
    }
}

/// Starts a run without namespaces that leaves the tool's process group, and gives its launcher, its init and what
/// it consists of.
fn scattered(workspace: &Path) -> (Child, Channel, String, Vec<String>) {
    let mut spec = spec(workspace);
    spec.level = Level::Minimal;
    let script = "setsid sh -c '(setsid sleep 60 & echo $! > c); echo $$ > b; exec sleep 60' & \
        while ! [ -s b -a -s c ]; do sleep 0.01; done; echo $$ > a; exec sleep 60";
    let (child, channel, _read) = begin(spec, workspace, &["sh", "-c", script]);
    let read = |name: &str| {
        let mut text = String::new();
        until("the run comes up", || {
            text = std::fs::read_to_string(workspace.join(name)).unwrap_or_default();
            text.ends_with('\n')
        });
        text.trim().to_owned()
    };
    let pids = ["a", "b", "c"].map(read);
    assert!(pids.iter().all(|pid| is_alive(pid)), "{pids:?}");
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pids[0])).unwrap();
    let init = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().to_owned();
    (child, channel, init, pids.into())
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with(['Z', 'X']))
}

fn all_end(pids: &[String]) {
    until("all have ended", || !pids.iter().any(|pid| is_alive(pid)));
}

#[test]
fn killed_launcher_takes_a_run_without_namespaces_with_it() {
    let workspace = workspace();
    let (mut launcher, _channel, _init, pids) = scattered(workspace.path());
    launcher.kill().unwrap();
    all_end(&pids);
    launcher.wait().unwrap();
}

#[test]
fn killed_init_takes_a_run_without_namespaces_with_it() {
    let workspace = workspace();
    let (mut launcher, channel, init, pids) = scattered(workspace.path());
    let init = rustix::process::Pid::from_raw(init.parse().unwrap()).unwrap();
    rustix::process::kill_process(init, rustix::process::Signal::KILL).unwrap();
    all_end(&pids);
    let outcome = loop {
        let (message, _) = channel.receive::<FromLauncher>().unwrap().expect("the launcher goes on");
        if let FromLauncher::Ended { outcome, .. } = message {
            break outcome;
        }
    };
    assert!(matches!(outcome, Outcome::Lost { .. }), "{outcome:?}");
    drop(channel);
    launcher.wait().unwrap();
}

/// A container's processes may be led by a session outside its pid namespace; getsid(2) then says 0.
#[test]
fn a_session_led_from_outside_leaves_no_strays_either() {
    let killed = "killed_init_takes_a_run_without_namespaces_with_it";
    let ids: &[&str] =
        if rustix::process::geteuid().is_root() { &[] } else { &["--user", "--map-current-user"] };
    let test = std::env::current_exe().unwrap();
    let inside = Command::new("unshare")
        .args(ids)
        .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(test)
        .args(["--exact", killed])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inside.stdout);
    assert!(inside.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn a_denied_path_that_leads_elsewhere_by_a_link_denies_what_it_leads_to() {
    let workspace = workspace();
    let beside = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let link = beside.path().join("link");
    std::os::unix::fs::symlink(workspace.path(), &link).unwrap();
    std::fs::write(workspace.path().join("secret"), "READ-SECRET").unwrap();
    let mut denying = spec(workspace.path());
    denying.deny_elsewhere = vec![link.join("secret").into(), link.join("not-yet").into()];
    let script = ["sh", "-c", "cat secret; mkdir not-yet/x && echo MADE; echo end"];
    let ran = run_with(denying, workspace.path(), &script);
    assert!(!ran.output.contains("READ-SECRET") && !ran.output.contains("MADE"), "{}", ran.output);
    assert!(ran.output.ends_with("end\n"), "{}", ran.output);
    assert!(!workspace.path().join("not-yet").exists(), "a ghost is left");
    let ran = run_with(spec(workspace.path()), workspace.path(), &["sh", "-c", "cat secret"]);
    assert_eq!(ran.output, "READ-SECRET");
}

#[test]
fn protected_and_denied_names_that_are_links_hold_as_links_and_where_they_lead() {
    use std::os::unix::fs::symlink;
    let workspace = workspace();
    let at = |name: &str| workspace.path().join(name);
    std::fs::create_dir_all(at("real-git/hooks")).unwrap();
    std::fs::write(at("settings"), "kept").unwrap();
    std::fs::write(at("secret"), "READ-SECRET").unwrap();
    symlink("real-git", at(".git")).unwrap();
    symlink("settings", at(".vimrc")).unwrap();
    symlink("/nowhere", at(".tmux.conf")).unwrap();
    symlink("secret", at(".env")).unwrap();
    let mut guarded = spec(workspace.path());
    guarded.protect = [".git/hooks", ".vimrc", ".tmux.conf"].map(|name| Bytes::from(at(name))).into();
    guarded.deny = vec![at(".env").into()];
    let script = "cat .vimrc; for l in .git .vimrc .tmux.conf .env; do rm -f $l && echo REMOVED; mv $l x && echo MOVED; done; \
        touch real-git/hooks/h && echo HOOKED; echo x > settings && echo WROTE; cat .env secret; echo end";
    let ran = run_with(guarded, workspace.path(), &["sh", "-c", script]);
    for word in ["REMOVED", "MOVED", "HOOKED", "WROTE", "READ-SECRET"] {
        assert!(!ran.output.contains(word), "{}", ran.output);
    }
    assert!(ran.output.starts_with("kept") && ran.output.ends_with("end\n"), "{}", ran.output);
    let ran = run_with(spec(workspace.path()), workspace.path(), &["sh", "-c", script]);
    for word in ["REMOVED", "HOOKED", "WROTE", "READ-SECRET"] {
        assert!(ran.output.contains(word), "{}", ran.output);
    }
}

/// A channel whose other end dies with something unread in it tells that before what the other end had sent. What a supervisor
/// sent last counts: it has told its clients of it.
#[test]
fn the_last_words_of_a_supervisor_that_died_are_heard_and_the_next_is_told_what_came_of_them() {
    const KEEP: Keep = Keep { launcher: Token([1; 32]), supervisor: Token([2; 32]) };
    let directory = tempfile::tempdir().unwrap();
    let workspace = directory.path().join("workspace");
    std::fs::create_dir(&workspace).unwrap();
    let address = SocketAddrUnix::new(directory.path().join("door")).unwrap();
    let socket = || {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap()
    };
    let door = socket();
    rustix::net::bind(&door, &address).unwrap();
    let (ours, theirs) = stockade_wire::socket::seqpacket_pair().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_stockade-launcher"));
    let mut child = command.arg("launcher").stdin(Stdio::from(theirs)).spawn().unwrap();
    drop(command);
    let channel = Channel::new(ours);
    let hello = ToLauncher::Hello { version: LAUNCH_VERSION, keep: Some(KEEP), parked: 0 };
    channel.send(&hello, &[door.as_fd()]).unwrap();
    // Its answer stays unread.
    assert!(stockade_wire::socket::waiting(&channel).unwrap() > 0);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    tell(&channel, SPEC, spec(&workspace));
    let output = launch(&channel, SPEC, &workspace, &["/bin/sh", "-c", "echo heard"]);
    drop(channel);
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    assert_eq!(std::io::read_to_string(output).unwrap(), "heard\n");
    let next = socket();
    rustix::net::connect(&next, &address).unwrap();
    let next = Channel::new(next);
    let hear = || next.receive::<FromLauncher>().unwrap().expect("it has closed").0;
    assert_eq!(hear(), FromLauncher::Known { version: LAUNCH_VERSION, token: KEEP.launcher });
    next.send(&ToLauncher::Again { version: LAUNCH_VERSION, token: KEEP.supervisor }, &[]).unwrap();
    let FromLauncher::Adopted(adopted) = hear() else { panic!("nothing is told of the run") };
    assert!(*adopted.note.command == *b"/bin/sh -c echo heard", "{adopted:?}");
    loop {
        if let FromLauncher::Ended { exec_id, outcome, .. } = hear() {
            assert_eq!((exec_id, outcome), (adopted.exec_id, Outcome::Exited { code: 0 }));
            break;
        }
    }
    next.send(&ToLauncher::Shutdown, &[]).unwrap();
    child.wait().unwrap();
}

/// Who speaks is looked at when he greets; who doesn't greet is heard in nothing. Greeted, the same is done: see above.
#[test]
fn a_launcher_that_nobody_has_greeted_runs_nothing_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let workspace = directory.path().join("workspace");
    std::fs::create_dir(&workspace).unwrap();
    let (ours, theirs) = stockade_wire::socket::seqpacket_pair().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_stockade-launcher"));
    let mut child = command.arg("launcher").stdin(Stdio::from(theirs)).spawn().unwrap();
    drop(command);
    let channel = Channel::new(ours);
    let pid = rustix::process::Pid::from_child(&child);
    // Both messages are there before it hears the first.
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    tell(&channel, SPEC, spec(&workspace));
    let output = launch(&channel, SPEC, &workspace, &["/bin/sh", "-c", "echo ran; echo ran > ran"]);
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    assert_eq!(std::io::read_to_string(output).unwrap(), "");
    let until = Instant::now() + Duration::from_secs(60);
    let ended = loop {
        match child.try_wait().unwrap() {
            None if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            ended => break ended,
        }
    };
    let _killed_before = child.kill();
    assert!(ended.expect("it goes on").success());
    assert!(!workspace.join("ran").exists());
}
