//! What dies or stops while nobody looks costs no run, and nothing of it stays.

use rustix::process::Signal;
use stockade_tests::wait_until;
use stockade_tests::wire::{self, Wire};

use crate::stage::{PATIENCE, Warm, expect_gone, signal};

#[track_caller]
fn expect_warm_again(warm: &Warm) {
    warm.recount();
    warm.heat("default");
    warm.hit(warm.line("default", "echo warm")).expect_code(0).expect_text("warm");
}

#[test]
fn spare_that_was_killed_is_given_to_nobody() {
    for warm in Warm::each() {
        warm.heat("default");
        for _ in 0..3 {
            warm.heat("default");
            let spares = warm.spares();
            signal(&spares, Signal::KILL);
            expect_gone(&spares);
            warm.finish(warm.line("default", "echo whole")).expect_code(0).expect_text("whole");
            warm.recount();
        }
        expect_warm_again(&warm);
    }
}

#[test]
fn run_goes_on_when_its_template_dies() {
    for warm in Warm::each() {
        warm.heat("default");
        let line = ": > left; while [ ! -e go ]; do sleep 0.02; done; echo whole; exit 3";
        let started = warm.start_hit(warm.line("default", line));
        assert!(wait_until(PATIENCE, || warm.ground().work().join("left").exists()));
        let templates = warm.templates();
        assert_eq!(templates.len(), 1);
        signal(&templates, Signal::KILL);
        expect_gone(&templates);
        warm.ground().put("go", "");
        started.finish().expect_code(3).expect_text("whole");
        expect_warm_again(&warm);
    }
}

#[test]
fn template_that_was_killed_takes_its_spares_along_and_is_replaced() {
    for warm in Warm::each() {
        warm.heat("default");
        let (templates, spares) = (warm.templates(), warm.spares());
        assert!(!templates.is_empty() && !spares.is_empty());
        signal(&templates, Signal::KILL);
        expect_gone(&templates);
        expect_gone(&spares);
        warm.finish(warm.line("default", "echo whole")).expect_code(0).expect_text("whole");
        expect_warm_again(&warm);
        assert!(warm.templates().iter().all(|template| !templates.contains(template)));
    }
}

#[test]
fn template_and_spares_killed_together_leave_nothing() {
    for warm in Warm::each() {
        warm.heat("default");
        let all = [warm.templates(), warm.spares()].concat();
        signal(&all, Signal::KILL);
        expect_gone(&all);
        warm.finish(warm.line("default", "echo whole")).expect_code(0).expect_text("whole");
        expect_warm_again(&warm);
    }
}
#[test]
fn template_that_was_stopped_is_replaced_within_its_bound() {
    let all: Vec<Warm> = Warm::each().collect();
    let stopped: Vec<_> = all
        .iter()
        .map(|warm| {
            warm.heat("default");
            let templates = warm.templates();
            signal(&templates, Signal::STOP);
            // The spare that waits needs it no more.
            warm.hit(warm.line("default", "echo whole")).expect_code(0).expect_text("whole");
            (templates, warm.start(warm.line("default", "echo whole")))
        })
        .collect();
    for (warm, (templates, started)) in all.iter().zip(stopped) {
        // A run whose worker it doesn't make any more ends with a reason, and the template after it.
        let ended = started.finish();
        if ended.code != Some(0) {
            ended.expect_code(125).expect_errors(&["set-up"]);
        }
        expect_gone(&templates);
        expect_warm_again(warm);
    }
}

#[test]
fn spare_that_is_dying_is_given_to_nobody() {
    for warm in Warm::each() {
        let ground = warm.ground();
        let mut wire = Wire::greeted(warm.daemon(), ground.person);
        let work = wire::workspace(ground);
        for round in 0..20 {
            warm.heat("default");
            let spares = warm.spares();
            signal(&spares, Signal::KILL);
            let events = wire.run(wire::request(ground, "default", &["sh", "-c", "exit 7"]), &work);
            let last = format!("{:?}", events.last());
            assert!(last.contains("code: 7"), "{:?}, round {round}: {last}", warm.setting.mode);
            warm.recount();
        }
    }
}
