//! Specs on their way to the launcher: each told once, and before the first run that names it. The stage's launcher looks
//! every launch's spec up, and fails a test that names one it wasn't told or that tells it more than it takes.

use stockade_protocol::Bytes;
use stockade_protocol::bounds::{MAX_LAUNCH_INLINE, MAX_SPECS};
use stockade_protocol::client::{ExecRequest, Workspace};
use stockade_protocol::codec::encode_launch;
use stockade_protocol::launch::Launch;
use stockade_protocol::outcome::Outcome;

use super::opened;
use super::stage::{Changes, Launcher, Stage, until};
use crate::serve::Order;

fn within(stage: &Stage, workspace: usize) -> ExecRequest {
    let path = Bytes::from(format!("/work/{workspace}").as_str());
    ExecRequest { workspace: Workspace::Path { path }, ..stage.request() }
}

fn end(launcher: &mut Launcher, launch: &Launch) {
    launcher.started(launch);
    launcher.end_output(launch.exec_id);
    launcher.ended(launch.exec_id, Outcome::Exited { code: 0 });
}

#[test]
fn a_spec_is_told_once_for_all_its_runs() {
    let stage = Stage::new(Changes { opener: opened::careless, ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    for _ in 0..10 {
        for workspace in [1, 2] {
            let run = client.exec(within(&stage, workspace));
            assert_eq!(launcher.play(b""), run);
            client.read_to_end(run, 2);
        }
    }
    assert_eq!(launcher.told, 2);
}

#[test]
fn a_launcher_that_comes_after_another_is_told_anew() {
    let stage = Stage::new(Changes { opener: opened::careless, ..Changes::default() });
    let mut client = stage.client();
    for _ in 0..2 {
        let mut launcher = stage.launcher();
        let run = client.exec(stage.request());
        assert_eq!(launcher.play(b""), run);
        client.read_to_end(run, 2);
        assert_eq!(launcher.told, 1);
    }
}

/// More of them than the launcher takes, and more bytes than its channel: what it doesn't read waits, in order.
#[test]
fn specs_and_launches_keep_their_order_when_the_channel_is_full() {
    let runs = 3 * MAX_SPECS;
    let stage = Stage::new(Changes { slots: 2 * runs, opener: opened::careless, ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    for workspace in 0..runs {
        client.ask(within(&stage, workspace));
    }
    for workspace in 0..runs {
        let (launch, _) = launcher.launch();
        assert_eq!(launch.workspace.to_text(), format!("/work/{workspace}"));
        let spec = launcher.spec(&launch);
        assert!(spec.mounts.iter().any(|mount| mount.target == launch.workspace), "another's spec");
    }
    assert_eq!(launcher.told, runs);
}

#[test]
fn a_spec_that_travels_in_a_memfd_is_there_before_its_run() {
    let paths: Vec<String> = (0..420).map(|number| format!("\"{number:0250}\"")).collect();
    let text =
        format!("name = \"custom\"\nextends = \"default\"\n[filesystem]\nprotect = [{}]\n", paths.join(","));
    let stage = Stage::new(Changes { policy: Some(text.leak()), ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    for _ in 0..5 {
        let run = client.exec(ExecRequest { policy: "custom".into(), ..stage.request() });
        let (launch, _) = launcher.launch();
        assert!(encode_launch(&launcher.spec(&launch)).unwrap().len() > MAX_LAUNCH_INLINE);
        end(&mut launcher, &launch);
        client.read_to_end(run, 2);
    }
}

#[test]
fn a_run_after_a_reload_has_the_new_spec_and_one_that_waited_keeps_the_old() {
    let policy =
        |wall: u32| format!("name = \"custom\"\nextends = \"default\"\n[limits]\nwall-time = \"{wall}s\"\n");
    let stage = Stage::new(Changes { policy: Some(policy(7).leak()), slots: 1, ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let request = || ExecRequest { policy: "custom".into(), ..stage.request() };
    let first = client.exec(request());
    let waiting = client.exec(request());
    let policies = stage.directory.path().join("policies");
    std::fs::write(policies.join("custom.toml"), policy(8)).unwrap();
    std::fs::write(policies.join("second.toml"), "name = \"second\"\nextends = \"default\"\n").unwrap();
    stage.order(Order::Reload);
    until("reloaded", || client.status().policies.iter().any(|name| name == "second"));
    let after = client.exec(request());
    for (run, wall_ms) in [(first, 7_000), (waiting, 7_000), (after, 8_000)] {
        let (launch, _) = launcher.launch();
        assert_eq!((launch.exec_id, launcher.spec(&launch).limits.wall_ms), (run, Some(wall_ms)));
        end(&mut launcher, &launch);
    }
    assert_eq!(launcher.told, 2);
}
