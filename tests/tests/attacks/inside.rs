//! Each attack is stopped, under every policy that promises it, in every mode, cold and warm.

use std::sync::Arc;
use std::time::Duration;

use stockade_tests::{Daemon, Ended, Ground, Mode, Setting, not_tested, wait_until};

use crate::stage::Stage;
use crate::table::{self, Attack};
use crate::tries;

/// Everything that promises something: the columns of the page, and what others promise beside.
const POLICIES: &[&str] = &["strict", "default", "build", "loopback", "moderate", "minimal", "test-ports"];
/// Those whose runs get a spare.
const WARM: &[&str] = &["strict", "default", "loopback", "moderate"];
/// Of what may take long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a run is made again that found no spare: one is kept for ten seconds.
const ROUNDS: u32 = 5;

fn promised(policy: &str) -> Vec<&'static Attack> {
    // What holds under `default` holds under those that only give more time or a loopback.
    let like = |attack: &&Attack| match policy {
        // A datagram is sent there, and to nobody: what it might have reached is looked at (`Stage::expect_untouched`).
        "loopback" if attack.name == "udp-to-the-host" => false,
        "build" | "loopback" => attack.policies.contains(&policy) || attack.policies.contains(&"default"),
        _ => attack.policies.contains(&policy),
    };
    table::all().filter(like).collect()
}

/// The same mode and daemon, and a ground that nobody has aimed at.
fn afresh(setting: &Setting) -> Setting {
    Setting { mode: setting.mode, ground: Ground::new(setting.mode.client()), daemon: setting.daemon.clone() }
}

/// Tries everything that a policy promises to stop: what got through, in words.
fn through(setting: &Setting, policy: &str) -> Vec<String> {
    let attacks = promised(policy);
    let mut stage = Stage::new(&setting.ground);
    let words = tries::command(&setting.ground, &stage, &attacks);
    let ended = tries::finish(|| setting.run(policy).words(&words));
    stage.expect_untouched(&setting.ground, &ended.story());
    escaped(&attacks, &ended, &format!("{policy}, {:?}", setting.mode))
}

fn escaped(attacks: &[&Attack], ended: &Ended, place: &str) -> Vec<String> {
    let found = tries::answers(&ended.text());
    if found.is_empty() {
        return vec![format!("{place}: nothing was tried: {}", ended.story())];
    }
    let through = attacks.iter().filter(|attack| !tries::is_stopped(attack, &found));
    through.map(|attack| format!("{place}: {}: {}", attack.name, tries::told(attack, &found))).collect()
}

fn expect_stopped(settings: impl Iterator<Item = Setting>) {
    if cfg!(not(target_arch = "x86_64")) {
        not_tested("attacks by system call number", "the probe has the numbers of x86-64");
        return;
    }
    let mut escaped = Vec::new();
    for setting in settings {
        // A policy of the host's network is an operator's, whose directory isn't the suite's.
        let of_operator = |policy: &&&str| setting.mode == Mode::EmbeddedRoot && **policy == "test-ports";
        for policy in POLICIES.iter().filter(|policy| !of_operator(policy)) {
            escaped.extend(through(&afresh(&setting), policy));
        }
    }
    assert!(escaped.is_empty(), "{} not stopped:\n{}", escaped.len(), escaped.join("\n"));
}

/// A daemon of the test's own in each mode that has one.
fn daemons(arguments: &'static [&'static str]) -> impl Iterator<Item = Setting> {
    Mode::daemons_here().into_iter().map(|mode| {
        let daemon = Some(Arc::new(Daemon::start(mode.server(), arguments)));
        Setting { mode, ground: Ground::new(mode.client()), daemon }
    })
}

#[test]
fn attacks_are_stopped_in_runs_without_a_daemon() {
    expect_stopped(Mode::here().into_iter().filter(|mode| !mode.has_daemon()).map(Setting::new));
}

#[test]
fn attacks_are_stopped_in_cold_runs_of_a_daemon() {
    expect_stopped(daemons(&["--parked", "0"]));
}

/// Of the daemon as the package has it: one without privilege, its launcher apart.
#[test]
fn attacks_are_stopped_in_runs_of_the_service() {
    let of_root = Mode::daemons_here().into_iter().filter(|mode| mode.is_system());
    expect_stopped(of_root.map(Setting::new));
}

#[test]
fn attacks_are_stopped_in_warm_runs_of_a_daemon() {
    if cfg!(not(target_arch = "x86_64")) {
        not_tested("attacks by system call number, warm", "the probe has the numbers of x86-64");
        return;
    }
    let mut escaped = Vec::new();
    for setting in daemons(&[]) {
        for policy in WARM {
            escaped.extend(through_warm(&setting, policy));
        }
    }
    assert!(escaped.is_empty(), "{} not stopped:\n{}", escaped.len(), escaped.join("\n"));
}

/// As [`through`], in a run that the daemon has counted as one on a spare.
fn through_warm(setting: &Setting, policy: &str) -> Vec<String> {
    for _ in 0..ROUNDS {
        let setting = &afresh(setting);
        setting.run(policy).words(["true"]).finish().expect_code(0);
        wait_until(PATIENCE / ROUNDS, || warmth(setting, "parked") > 0);
        let before = settled_hits(setting);
        let found = through(setting, policy);
        if settled_hits(setting) > before || !found.is_empty() {
            return found;
        }
    }
    panic!("{policy}, {:?}: no run got a spare", setting.mode);
}

/// The hits of a daemon that serves this test alone and has nothing to do: told a tenth of a second late.
fn settled_hits(setting: &Setting) -> u64 {
    let mut hits = warmth(setting, "hits");
    wait_until(PATIENCE, || {
        std::thread::sleep(Duration::from_millis(250));
        let before = hits;
        hits = warmth(setting, "hits");
        hits == before
    });
    hits
}

fn warmth(setting: &Setting, name: &str) -> u64 {
    let ended = Ended::of(setting.ask(&["status", "--json"]));
    let status: serde_json::Value = serde_json::from_str(&ended.text()).unwrap();
    status["warmth"][name].as_u64().unwrap()
}
