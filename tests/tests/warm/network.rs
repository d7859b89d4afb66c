//! Network namespaces are used again, where nobody can tell that they were used: by the same owner, under the same policy, in
//! the same workspace, and never by two runs at once.
//!
//! Which one a run is in is told by its cookie: the kernel gives each another one for as long as it runs, where inodes come
//! again.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;

use stockade_tests::setting::Started;
use stockade_tests::{Mode, not_tested, wait_until};

use crate::stage::{PATIENCE, Warm};

/// Runs after which every namespace that may be used again has been.
const MANY: usize = 8;
/// More than are kept of all templates.
const ALL: usize = 70;
/// Prints the cookie (`SO_NETNS_COOKIE`), by a socket that is closed again.
const COOKIE: &str = "python3 -ISc 'import _socket as s; print(int.from_bytes(s.socket(1, 1).getsockopt(1, 71, 8), \"little\"))'";

/// The daemons of root's: a worker of a user's own daemon has a namespace that belongs to its user namespace.
fn each() -> impl Iterator<Item = Warm> {
    let (used, others): (Vec<_>, Vec<_>) =
        Mode::daemons_here().into_iter().partition(|mode| mode.is_system());
    if used.is_empty() {
        not_tested("network namespaces used again", &format!("no daemon of root's among {others:?}"));
    }
    used.into_iter().map(Warm::new)
}

/// Runs a line, and gives the cookie of where it ran.
#[track_caller]
fn cookie_of(warm: &Warm, policy: &str, line: &str) -> u64 {
    let ended = warm.finish(warm.line(policy, &format!("{line}\n{COOKIE}")));
    ended.expect_code(0).text().trim().parse().unwrap_or_else(|_| panic!("{}", ended.story()))
}

/// The cookies of many runs that do nothing, one after the other; among them is one that comes again.
#[track_caller]
fn cookies(warm: &Warm, policy: &str) -> BTreeSet<u64> {
    let all: Vec<u64> = (0..MANY).map(|_| cookie_of(warm, policy, ":")).collect();
    let different: BTreeSet<u64> = all.iter().copied().collect();
    assert!(different.len() < all.len(), "none was used again: {all:?}");
    different
}

#[test]
fn network_namespace_is_used_again_for_the_same_owner_and_policy_only() {
    for warm in each() {
        let mine = cookies(&warm, "default");
        let strict = cookies(&warm, "strict");
        assert!(mine.is_disjoint(&strict), "{mine:?} {strict:?}");
        if let Some(other) = warm.other_owner() {
            let theirs = cookies(&other, "default");
            assert!(theirs.is_disjoint(&mine) && theirs.is_disjoint(&strict), "{theirs:?} {mine:?}");
        }
        let elsewhere = warm.beside(warm.setting.mode);
        assert!(cookies(&elsewhere, "default").is_disjoint(&mine));
    }
}

#[test]
fn no_two_live_runs_are_in_one_network_namespace() {
    for warm in each() {
        let at = |number: usize| warm.ground().work().join(format!("at-{number}"));
        let begin = |number: usize| {
            let line = format!(
                "{COOKIE} > new-{number}; cat new-{number}; mv new-{number} at-{number}; \
                 while [ ! -e go-{number} ]; do sleep 0.02; done"
            );
            let started = warm.start(warm.line("default", &line));
            assert!(wait_until(PATIENCE, || at(number).exists()));
            started
        };
        let finish = |number: usize, started: Started| {
            warm.ground().put(&format!("go-{number}"), "");
            started.finish().expect_code(0).text().trim().parse::<u64>().unwrap()
        };
        // One that stays while others come and go, and leave theirs.
        let long = begin(0);
        let mut short = cookies(&warm, "default");
        let both = [1, 2].map(|number| (number, begin(number)));
        let [one, other] = both.map(|(number, started)| finish(number, started));
        assert_ne!(one, other);
        short.extend([one, other]);
        let long = finish(0, long);
        assert!(!short.contains(&long), "{long} {short:?}");
        // The last that was given back is the first to be used again, so all that are free are used at once.
        let mut live = Vec::new();
        let is_free = wait_until(PATIENCE, || {
            let number = 3 + live.len();
            live.push((number, begin(number)));
            std::fs::read_to_string(at(number)).unwrap().trim() == long.to_string() || live.len() == ALL
        });
        let after: Vec<u64> = live.into_iter().map(|(number, started)| finish(number, started)).collect();
        assert!(is_free && after.contains(&long), "it isn't free when its run has ended: {long} {after:?}");
    }
}

#[test]
fn loopback_network_is_never_used_again() {
    for warm in each() {
        let all: BTreeSet<u64> = (0..MANY).map(|_| cookie_of(&warm, "loopback", ":")).collect();
        assert_eq!(all.len(), MANY, "{all:?}");
    }
}

/// Fails the test if the namespace of a run that does this is another's later. The twin is every run that does nothing.
#[track_caller]
fn expect_burnt(leave: &str) {
    for warm in each() {
        cookies(&warm, "default");
        let left = cookie_of(&warm, "default", leave);
        let later = cookies(&warm, "default");
        assert!(!later.contains(&left), "{left} is used again: {later:?}");
    }
}

#[test]
fn network_namespace_whose_counters_have_moved_is_not_used_again() {
    // Nothing is sent: there is no way; that is counted.
    expect_burnt(
        "perl -MSocket -e 'socket(S, AF_INET, SOCK_DGRAM, 0) or exit 1; \
         exit defined send(S, \"x\", 0, pack_sockaddr_in(9, inet_aton(\"192.0.2.1\")))' || exit 1",
    );
}

#[test]
fn network_namespace_in_which_a_flow_label_lingers_is_not_used_again() {
    // `struct in6_flowlabel_req`: for ::1, label 4711, get, share: any process of the user's, create, gone 60 s after its last use.
    expect_burnt(
        "perl -MSocket -e 'socket(S, AF_INET6, SOCK_DGRAM, 0) or exit 1; \
         setsockopt(S, 41, 32, pack(\"x15CNCCSSSx4\", 1, 4711, 0, 3, 1, 60, 60)) or exit 1' || exit 1; \
         grep -qi 01267 /proc/net/ip6_flowlabel || exit 1",
    );
}

#[test]
fn network_namespace_of_a_socket_that_somebody_holds_is_not_used_again() {
    const PASS: &str = "python3 -c '\nimport socket, array\n\
         s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)\ns.connect(\"accomplice\")\n\
         a = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)\na.bind(\"\\0mark\")\na.listen()\n\
         s.sendmsg([b\"x\"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array(\"i\", [a.fileno()]))])' || exit 1";
    for warm in each() {
        cookies(&warm, "default");
        let at = warm.ground().work().join("accomplice");
        let listener = UnixListener::bind(&at).unwrap();
        warm.ground().person.own(&at);
        let held = std::thread::spawn(move || -> OwnedFd {
            let (stream, _) = listener.accept().unwrap();
            let mut received = stockade_wire::socket::receive(stream.as_fd(), &mut [0]).unwrap();
            received.descriptors.pop().unwrap()
        });
        let left = cookie_of(&warm, "default", PASS);
        let held = held.join().unwrap();
        let later = cookies(&warm, "default");
        assert!(!later.contains(&left), "{left} is used again: {later:?}");
        drop(held);
    }
}
