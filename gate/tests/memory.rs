//! What a million keys of the limiter take, counted by the allocator: a test program of its own, in which nothing else allocates.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use peak_alloc::PeakAlloc;
use stockade_gate::rate::{FILE, Limiter, read};
use stockade_gate::{Action, Asked, Given, Load, Moment, Principal, Stage as _, Thing};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const MIB: usize = 1024 * 1024;

#[test]
fn a_million_principals_with_a_tool_each_take_less_than_200_mib_and_nothing_when_they_are_idle() {
    let limits = read(FILE, "[rate]\neach = \"1/m\"\nburst = 5\ntotal = \"10/m\"\n").unwrap().limits;
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let mut limiter = Limiter::new(limits);
    let mut principal = Principal { uid: 0, gids: vec![0], pid: 1, unit: None, roles: BTreeSet::new() };
    for uid in 0..1_000_000 {
        principal.uid = uid;
        let asked = Asked {
            run: 1,
            at: Moment { uptime: Duration::from_micros(uid.into()), wall: SystemTime::UNIX_EPOCH },
            principal: &principal,
            action: Action::Call,
            policy: Some("build"),
            tool: Some("search"),
            thing: Thing::default(),
            given: Given::Nothing,
            workspace: None,
            owner: None,
            load: Load::default(),
        };
        assert!(limiter.judge(&asked).unwrap().is_pass());
    }
    let peak = ALLOCATED.peak_usage() - before;
    println!("{} keys: {} MiB at most", limiter.status().keys, peak / MIB);
    assert_eq!(
        limiter.status().keys,
        2_000_000,
        "a cell for each principal and tool, and one for each principal"
    );
    assert!(peak <= 200 * MIB, "{} MiB", peak / MIB);
    for second in 0..64 {
        limiter.observe(Duration::from_secs(1_000 + second), &Load::default());
    }
    assert_eq!(limiter.status().keys, 0);
    assert!(ALLOCATED.current_usage() - before <= MIB);
}
