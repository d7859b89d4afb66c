//! An upgrade with runs going on: another program in the daemon's place, which has them all.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use stockade_protocol::client::{ClientMessage, ExecRequest, ServerMessage};
use stockade_protocol::outcome::{CancelReason, Outcome};
use stockade_tests::binaries::copy_program;
use stockade_tests::wire::{Wire, request};
use stockade_tests::{Daemon, Ground, Mode, not_tested};

use crate::follower::Follower;

/// Runs that go on meanwhile, unless `STOCKADE_UPGRADE_RUNS` says otherwise: one user of root's daemon may have 192.
const RUNS: usize = 12;
const KEEP: [&str; 1] = ["--keep-runs"];
const SOON: Duration = Duration::from_secs(60);

#[test]
fn an_upgrade_has_every_run_there_is() {
    let mode = Mode::a_daemon();
    let daemon = Daemon::start_at(Ground::new(mode.server()), &KEEP);
    println!("{}", upgrade(mode, &daemon, || {}));
}

/// As the two units have it: the launcher's program is another file by then, too.
#[test]
fn an_upgrade_of_both_units_has_every_run_there_is() {
    let mode = Mode::a_daemon();
    if !mode.server().is_root() {
        return not_tested("an upgrade of both units", "only root's launchers are another user's");
    }
    let ground = Ground::new(mode.server());
    let [launcher, next] = ["launcher", "launcher.next"].map(|name| ground.base().join(name));
    copy_program(&ground.binaries.launcher, &launcher);
    copy_program(&ground.binaries.launcher, &next);
    let daemon = Daemon::start_apart_at(ground, launcher.clone());
    // It has neither its first launcher's runs nor its settings: as after a stop that keeps runs.
    daemon.signal(Signal::TERM);
    assert!(daemon.ends_within(SOON));
    daemon.start_again(&KEEP);
    let seen = upgrade(mode, &daemon, || std::fs::rename(&next, &launcher).unwrap());
    println!("two units: {seen}");
}

/// Gives what was seen.
fn upgrade(mode: Mode, daemon: &Daemon, replace: impl FnOnce()) -> String {
    let count = std::env::var("STOCKADE_UPGRADE_RUNS").map_or(RUNS, |runs| runs.parse().unwrap());
    let ground = Ground::new(mode.client());
    let asked = || ExecRequest {
        detach: true,
        ..request(&ground, "test-long", &["bash", "-c", "echo here; exec sleep 300"])
    };
    let mut runs: Vec<Follower> = (0..count).map(|_| Follower::of(daemon, &ground, asked())).collect();
    for run in &mut runs {
        run.follow(|run| !run.output.is_empty());
    }
    let upgraded = daemon.ground.base().join("upgraded");
    copy_program(&daemon.ground.binaries.stockade, &upgraded);
    daemon.ground.person.own(&upgraded);
    replace();
    let began = Instant::now();
    daemon.signal(Signal::TERM);
    while !daemon.ends_within(Duration::ZERO) {
        assert!(began.elapsed() < SOON, "it doesn't end");
        std::thread::sleep(Duration::from_millis(1));
    }
    daemon.follow_with(daemon.ground.command(&upgraded), &KEEP);
    let mut wire = loop {
        match Wire::try_connect(daemon, ground.person) {
            Ok(wire) => break wire,
            Err(error) => {
                assert!(began.elapsed() < SOON, "the next doesn't serve: {error}; {}", daemon.log());
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    wire.greet();
    wire.send(&ClientMessage::List, &[]);
    let ServerMessage::Runs(listed) = wire.message() else { panic!("no list") };
    let gap = began.elapsed();
    for run in &mut runs {
        assert!(listed.iter().any(|listed| listed.exec_id == run.exec_id), "{} isn't there", run.exec_id);
        run.come_back(daemon);
        let exec_id = run.exec_id;
        run.say(&ClientMessage::Cancel { exec_id });
        assert_eq!(run.follow_to_the_end().0, Outcome::Cancelled { reason: CancelReason::Asked });
        assert_eq!(run.output, b"here\n");
    }
    // Whoever comes gets a run.
    let mut late = Follower::of(daemon, &ground, request(&ground, "default", &["echo", "new"]));
    assert_eq!(late.follow_to_the_end().0, Outcome::Exited { code: 0 });
    let launchers = daemon.launchers().len();
    // One that keeps nothing: what is left goes with it.
    daemon.signal(Signal::TERM);
    assert!(daemon.ends_within(SOON));
    daemon.start_again(&[]);
    assert_eq!(launchers, 2, "runs to come have a launcher of the new program");
    format!("{count} runs, {} ms from the signal to the first list of all", gap.as_millis())
}
