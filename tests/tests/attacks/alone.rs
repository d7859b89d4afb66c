//! Runs with layers left out: the launcher driven over its own channel with a spec that the test makes. No client can ask
//! for one of these; whoever holds that channel decides what is confined anyway.
//!
//! How a layer is left out: namespaces by the level that has none; the filter by a program that allows everything; the
//! Landlock domain by one more line of that program, by which entering it does nothing and says that it was done.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Stdio;
use std::sync::Arc;

use stockade_policies::{Confines, PolicySet, Subject};
use stockade_protocol::client::Overrides;
use stockade_protocol::launch::{
    FromLauncher, LAUNCH_VERSION, Launch, LaunchOutput, Owner, RunNote, SpecNumber, ToLauncher,
};
use stockade_protocol::outcome::Outcome;
use stockade_protocol::spec::{BpfInstruction, SandboxSpec, SeccompSpec};
use stockade_protocol::{Bytes, ExecId};
use stockade_tests::Ground;
use stockade_wire::channel::Channel;

/// Which layers there are, beside identity and limits, which every run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alone {
    /// None.
    Nothing,
    Namespaces,
    Landlock,
    /// The filter of a policy.
    Filter(&'static str),
}

const fn line(code: u16, jt: u8, jf: u8, k: u32) -> BpfInstruction {
    BpfInstruction { code, jt, jf, k }
}

// linux/bpf_common.h, linux/seccomp.h
const LOAD: u16 = 0x20;
const IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
/// An errno of 0: the call isn't made, and succeeds.
const DONE: u32 = 0x0005_0000;
/// The same number on every architecture.
const LANDLOCK_RESTRICT_SELF: u32 = 446;

const EVERYTHING: [BpfInstruction; 1] = [line(RETURN, 0, 0, ALLOW)];
const EVERYTHING_BUT_LANDLOCK: [BpfInstruction; 4] = [
    line(LOAD, 0, 0, 0),
    line(IF_EQUAL, 0, 1, LANDLOCK_RESTRICT_SELF),
    line(RETURN, 0, 0, DONE),
    line(RETURN, 0, 0, ALLOW),
];

/// What a shipped policy (or one of the suite's) comes to on a ground.
fn resolved(ground: &Ground, policy: &str) -> SandboxSpec {
    let set = if PolicySet::shipped().get(policy).is_ok() {
        PolicySet::shipped()
    } else {
        PolicySet::load(&[(ground.policies(), stockade_policies::set::Trust::Operator)], &|_, _| Ok(()))
            .unwrap()
    };
    let subject = Subject {
        owner_uid: ground.person.uid,
        owner_gid: ground.person.gid,
        home: ground.home(),
        workspace: ground.work(),
        overrides: Overrides::default(),
        user_mode: !ground.person.is_root(),
    };
    Arc::unwrap_or_clone(Confines::of(set.get(policy).unwrap(), &subject).unwrap().spec)
}

fn spec(ground: &Ground, alone: Alone) -> SandboxSpec {
    let only = |program: &[BpfInstruction]| SeccompSpec {
        base: vec![program.to_vec()],
        delta: Vec::new(),
        rules: 0,
    };
    match alone {
        Alone::Nothing => {
            SandboxSpec { seccomp: only(&EVERYTHING_BUT_LANDLOCK), ..resolved(ground, "minimal") }
        }
        Alone::Namespaces => {
            SandboxSpec { seccomp: only(&EVERYTHING_BUT_LANDLOCK), ..resolved(ground, "default") }
        }
        Alone::Landlock => SandboxSpec { seccomp: only(&EVERYTHING), ..resolved(ground, "minimal") },
        Alone::Filter(policy) => {
            let mut seccomp = resolved(ground, policy).seccomp;
            seccomp.base.insert(0, EVERYTHING_BUT_LANDLOCK.to_vec());
            SandboxSpec { seccomp, ..resolved(ground, "minimal") }
        }
    }
}

/// Runs a command with those layers alone, as the ground's person: what it wrote.
pub(crate) fn run(ground: &Ground, alone: Alone, argv: &[&str]) -> String {
    let (ours, theirs) = stockade_wire::socket::seqpacket_pair().unwrap();
    let mut command = ground.stockade();
    let mut launcher = command.args(["launcher", "--embedded"]).stdin(Stdio::from(theirs)).spawn().unwrap();
    drop(command);
    let channel = Channel::new(ours);
    let number = SpecNumber(1);
    channel.send(&ToLauncher::Hello { version: LAUNCH_VERSION, keep: None, parked: 0 }, &[]).unwrap();
    channel.send(&ToLauncher::Spec { number, spec: Arc::new(spec(ground, alone)) }, &[]).unwrap();
    let (mut read, write) = std::io::pipe().unwrap();
    let directory = File::open(ground.work()).unwrap();
    let (out, err): (OwnedFd, OwnedFd) = (write.try_clone().unwrap().into(), write.into());
    let launch = launch(ground, number, argv);
    channel
        .send(&ToLauncher::Launch(Box::new(launch)), &[directory.as_fd(), out.as_fd(), err.as_fd()])
        .unwrap();
    drop((out, err));
    let outcome = loop {
        let (message, _) = channel.receive::<FromLauncher>().unwrap().expect("the launcher goes on");
        if let FromLauncher::Ended { outcome, .. } = message {
            break outcome;
        }
    };
    drop(channel);
    let mut output = String::new();
    read.read_to_string(&mut output).unwrap();
    launcher.wait().unwrap();
    assert_eq!(outcome, Outcome::Exited { code: 0 }, "{alone:?}: {output}");
    output
}

fn launch(ground: &Ground, spec: SpecNumber, argv: &[&str]) -> Launch {
    let (uid, gid) = (ground.person.uid, ground.person.gid);
    Launch {
        exec_id: ExecId::generate(),
        owner: Owner { uid, gid, groups: Vec::new() },
        spec,
        argv: argv.iter().map(|word| Bytes::from(*word)).collect(),
        environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
        cwd: ground.work().as_path().into(),
        home: ground.home().as_path().into(),
        workspace: ground.work().as_path().into(),
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
    }
}
