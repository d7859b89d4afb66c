//! Whatever fails, dies or stops at whatever moment: each run that was accepted has one end and a true one, its client hears of
//! it, nothing is left, and the next run is served.
//!
//! Nothing in the product knows of this: a daemon is started by `stockade-injector`, which has its system calls, and those of all
//! it starts, wait for the harness ([`injector`]). Kills, stops and pauses happen at those calls, too: they are the
//! boundaries between any two things that a process does.
//!
//! Reading order: [`roles`], [`injector`], [`calls`], [`runs`], [`campaign`], [`embedded`], [`fixed`], [`full`], [`clock`].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

mod calls;
mod campaign;
mod chance;
mod clock;
mod embedded;
mod fixed;
mod full;
mod injector;
mod roles;
mod runs;

use stockade_tests::Mode;

/// The campaign of every day.
const USUAL_SEED: u64 = 20_261_122;
/// Faults by chance, unless `STOCKADE_FAULTS` says otherwise: for all modes together.
const FAULTS: u32 = 200;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// What a campaign begins with, said where it matters: `STOCKADE_FAULTS_SEED`; else another each time for who asks for a number of
/// faults, and always the same for who doesn't: what fails then fails for whoever looks for the cause.
fn seed() -> u64 {
    let asked = number("STOCKADE_FAULTS").map(|_| u64::from(std::process::id()) << 20);
    number("STOCKADE_FAULTS_SEED").or(asked).unwrap_or(USUAL_SEED)
}

/// Each mode's part of all faults.
fn part() -> u32 {
    let faults = number("STOCKADE_FAULTS").map_or(FAULTS, |faults| u32::try_from(faults).unwrap());
    faults.div_ceil(u32::try_from(Mode::here().len()).unwrap())
}

#[test]
fn faults_by_chance_lose_no_run_and_leave_nothing() {
    for mode in Mode::daemons_here() {
        let tally = campaign::run(mode, seed(), part());
        println!("{mode:?}: {tally}");
        assert!(tally.wrong.is_empty(), "{}", tally.wrong.join("\n\n"));
        assert!(tally.injected >= part(), "{tally}");
    }
}

#[test]
fn faults_by_chance_in_an_embedded_run_are_told_and_leave_nothing() {
    for mode in Mode::here().into_iter().filter(|mode| !mode.has_daemon()) {
        let tally = embedded::run(mode, seed(), part());
        println!("{mode:?}: {tally}");
        assert!(tally.wrong.is_empty(), "{}", tally.wrong.join("\n\n"));
        assert!(tally.injected >= part(), "{tally}");
    }
}
