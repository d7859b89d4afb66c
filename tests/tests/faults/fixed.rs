//! Faults that once did harm, at every moment of a run at which the same call is made.

use std::time::Duration;

use rustix::process::Signal;
use stockade_tests::{Mode, left, wait_until};
use syscalls::Sysno;

use crate::campaign::{Stage, Tally};
use crate::embedded;
use crate::injector::{Deed, Fault};
use crate::roles::Role;
use crate::runs::Kind;

/// What happened, and to which runs.
const FOUND: &[(&str, Kind, Role, Sysno, Deed)] = &[
    // The launcher never learned of the worker, and waited for ever: the run had no end.
    ("a template can't tell of a worker", Kind::Deadline, Role::Template, Sysno::sendmsg, fail(libc::ENOMEM)),
    // Its end was nobody's, so that the launcher waited for it for ever, and outlived its daemon.
    (
        "a worker dies before its template tells of it",
        Kind::Deadline,
        Role::Template,
        Sysno::sendmsg,
        Deed::Outlive(Role::Worker),
    ),
    (
        "an init dies before its template tells of it",
        Kind::Deadline,
        Role::Template,
        Sysno::sendmsg,
        Deed::Outlive(Role::Init),
    ),
    // Every run after it was refused, for ever: spares never ended, and so the launcher didn't.
    ("the monitor dies", Kind::Deadline, Role::Monitor, Sysno::epoll_pwait, Deed::Kill),
    // The failure was told of the worker and not of the run, which had no end.
    ("a pipe can't be given to a run", Kind::Relayed, Role::Launcher, Sysno::fchown, fail(libc::EPERM)),
    ("a pipe can't be looked at", Kind::Passed, Role::Launcher, Sysno::statx, fail(libc::ENOMEM)),
    // The template waited for a holder that had nothing to say; so did whoever asked it for a worker.
    ("a holder can't tell", Kind::Relayed, Role::Template, Sysno::write, fail(libc::ENOMEM)),
    // Messages were dropped: the run ended well and without its output.
    (
        "the launcher finds no memory to send",
        Kind::Relayed,
        Role::Launcher,
        Sysno::sendmsg,
        fail(libc::ENOBUFS),
    ),
    // Its guards were said to be dissolved: by our own clearing up.
    ("an init can't report", Kind::Denying, Role::Init, Sysno::sendmsg, fail(libc::ENOMEM)),
    // The run was said never to have begun, 5 ms after it had.
    ("the monitor can't be started", Kind::Deadline, Role::Launcher, Sysno::socketpair, fail(libc::EMFILE)),
    // The rest of its input was dropped, and the tool went on with less.
    ("input can't be written", Kind::Fed, Role::Supervisor, Sysno::write, fail(libc::EIO)),
    ("input can't be watched", Kind::Fed, Role::Supervisor, Sysno::epoll_ctl, fail(libc::ENOMEM)),
];

const fn fail(errno: i32) -> Deed {
    Deed::Fail(errno)
}

#[test]
fn what_was_once_found_does_no_harm_at_any_moment() {
    for mode in Mode::daemons_here() {
        for parked in [true, false] {
            let mut stage = Stage::new(mode, parked);
            let mut tally = Tally::default();
            for (name, kind, role, call, deed) in FOUND {
                // As often as it's made now and then, and once more.
                for nth in 1..=stage.known_calls(*kind, *role, *call) + 1 {
                    let fault = Fault { role: *role, call: *call, nth, deed: *deed };
                    let wrong = stage.inject(*kind, fault, &mut tally);
                    assert!(wrong.is_empty(), "{mode:?}: {name}: {fault}: {wrong:#?}\n{}", stage.log());
                }
            }
            let wrong = stage.left();
            assert!(wrong.is_empty(), "{mode:?}: {wrong:#?}\n{}", stage.log());
            assert!(tally.injected > 10, "nothing was tried: {tally:?}");
        }
    }
}

/// The run's end was heard of no more: it was said not to have begun, and its output was there.
#[test]
fn an_embedded_run_that_cannot_be_heard_is_told_to_be_lost() {
    for mode in Mode::here().into_iter().filter(|mode| !mode.has_daemon()) {
        let mut injected = 0;
        for (call, errno) in [(Sysno::recvmsg, libc::ENOMEM), (Sysno::signalfd4, libc::EMFILE)] {
            let (made, wrong) = embedded::fail_each(mode, Role::Supervisor, call, errno);
            assert!(wrong.is_empty(), "{mode:?}: {wrong:#?}");
            injected += made;
        }
        assert!(injected > 0, "{mode:?}: nothing was tried");
        println!("{mode:?}: {injected} faults");
    }
}

/// Stops a process, and waits until it has.
fn stop(pid: u32) {
    crate::injector::signal(pid, Signal::STOP);
    let stopped = || left::process(pid).is_some_and(|process| process.state == 'T');
    assert!(wait_until(Duration::from_secs(30), stopped), "it doesn't stop");
}

/// The kernel hangs up on whoever is stopped when its parent dies, and then has it go on.
#[test]
fn a_launcher_that_is_stopped_when_its_daemon_dies_goes_on_with_its_runs() {
    for mode in Mode::daemons_here() {
        let stage = Stage::new(mode, true);
        let going = stage.long_run();
        let launcher = stage.launcher();
        stop(launcher);
        stage.kill_daemon();
        stage.start_again();
        stage.follow(going);
    }
}

/// A launcher that somebody has stopped while there was no daemon: the next one serves without it, and has its runs as soon as
/// it goes on.
#[test]
fn a_launcher_that_was_stopped_while_its_daemon_was_replaced_is_taken_over_when_it_goes_on() {
    for mode in Mode::daemons_here() {
        let mut stage = Stage::new(mode, true);
        let going = stage.long_run();
        let launcher = stage.launcher();
        stage.kill_daemon();
        stop(launcher);
        stage.start_again();
        let next = stage.run(Kind::Relayed);
        let wrong = stage.judge(Kind::Relayed, &next, None);
        assert!(wrong.is_empty(), "{mode:?}: beside a stopped one: {wrong:#?}\n{}", stage.log());
        assert!(!stage.knows(going), "nothing is tested: it was never stopped");
        crate::injector::signal(launcher, Signal::CONT);
        stage.follow(going);
        assert!(stage.ends(launcher), "it has no run any more: {}", stage.log());
        let wrong = stage.left();
        assert!(wrong.is_empty(), "{mode:?}: {wrong:#?}\n{}", stage.log());
    }
}
