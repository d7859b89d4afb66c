//! The same for runs without a daemon: the command line's process is supervisor and launcher at once, and each fault has one of
//! its own.

use std::collections::BTreeMap;
use std::time::Duration;

use stockade_tests::setting::{Started, marker};
use stockade_tests::{Ended, Ground, Mode, left, wait_until};

use crate::calls;
use crate::campaign::{Tally, draw};
use crate::chance::Chance;
use crate::injector::{Counts, Deed, Fault, Injector};
use crate::roles::Role;
use crate::runs::{Kind, says};
use syscalls::Sysno;

/// A limit against hanging: a set-up that gets no answer is given up after 15 s.
const PATIENCE: Duration = Duration::from_secs(60);
/// Those that a command line asks for in other words, too.
const KINDS: [Kind; 3] = [Kind::Relayed, Kind::Passed, Kind::Denying];

struct Stage {
    injector: Injector,
    ground: Ground,
    next: u64,
    known: BTreeMap<Kind, (Vec<u8>, Counts)>,
}

impl Stage {
    fn new(mode: Mode) -> Self {
        let injector = Injector::new(mode.server(), &calls::all());
        let mut stage =
            Self { injector, ground: Ground::new(mode.client()), next: 1, known: BTreeMap::new() };
        for kind in KINDS {
            let (ended, counts) = stage.counted(kind);
            ended.expect_code(7);
            stage.known.insert(kind, (ended.stdout, counts));
        }
        stage
    }

    fn counted(&mut self, kind: Kind) -> (Ended, Counts) {
        let started = self.start(kind, "none");
        self.next += 1;
        self.injector.count(|| started.finish())
    }

    fn start(&self, kind: Kind, word: &str) -> Started {
        let outside = self.ground.outside();
        // The word shows in the arguments of whatever is left.
        let line = format!("{}; : {word}", kind.line(outside.to_str().unwrap()));
        let mut command = self.injector.stockade(&self.ground);
        command.args(["run", "--embedded", "--policy", kind.policy(), "--", "sh", "-c", &line]);
        command.arg(self.next.to_string());
        Started::of(command, None, PATIENCE, "embedded")
    }

    fn inject(&mut self, kind: Kind, fault: Fault, tally: &mut Tally) -> Vec<String> {
        let word = marker("fault");
        self.injector.arm(fault);
        let ended = self.start(kind, &word).finish();
        let fired = self.injector.disarm();
        let marks = std::fs::read_to_string(self.ground.work().join(format!("ran.{}", self.next)));
        let marks = marks.unwrap_or_default();
        self.next += 1;
        *(if fired.is_some() { &mut tally.injected } else { &mut tally.missed }) += 1;
        let end =
            ended.code.map_or_else(|| format!("signal {:?}", ended.signal), |code| format!("status {code}"));
        *tally.outcomes.entry(end).or_default() += 1;
        let whole = &self.known[&kind].0;
        let says_all = says(&ended.stdout, whole, fired.as_ref().map(|_| fault.deed));
        let is_whole = says_all && marks == "start\nend\n";
        let may_be = match ended.code {
            // Also where its output has nowhere to go, which is said.
            Some(7) => is_whole || (writes(&fault) && fired.is_some() && !ended.errors().is_empty()),
            // Of ours: with a reason, and what it says of the tool is so.
            Some(125..=127 | 69..=78) => {
                let not_begun =
                    ["set-up", "cannot", "can't"].iter().any(|word| ended.errors().contains(word));
                fired.is_some()
                    && !ended.errors().is_empty()
                    && (marks.is_empty() || !not_begun || ended.errors().contains("lost"))
            }
            // The tool's process, by somebody else's hand.
            Some(137) => fault.deed == Deed::Kill,
            // Of the command line's own death nobody tells but its status.
            None => {
                let own = matches!(fault.role, Role::Supervisor | Role::Newborn);
                fired.is_some() && (own || fault.deed == Deed::KillAll(Role::Supervisor))
            }
            // Its output has nowhere to go.
            Some(code) if writes(&fault) => fired.is_some() && code != 0,
            Some(_) => false,
        };
        let mut wrong = Vec::new();
        if !may_be || !(says_all || whole.starts_with(&ended.stdout)) {
            wrong.push(format!("its marks are {marks:?}; {}", ended.story()));
        }
        if !wait_until(PATIENCE, || left::with_word(&word).is_empty()) {
            wrong.push(format!("still there: {:#?}", left::with_word(&word)));
        }
        wrong
    }
}

fn writes(fault: &Fault) -> bool {
    let writing = [Sysno::write, Sysno::writev, Sysno::pwritev2];
    fault.role == Role::Supervisor && writing.contains(&fault.call)
}

/// Has the same call fail at each of its moments, in every kind of run. How often it was made.
pub(crate) fn fail_each(mode: Mode, role: Role, call: Sysno, errno: i32) -> (u32, Vec<String>) {
    let mut stage = Stage::new(mode);
    let (mut tally, mut wrong) = (Tally::default(), Vec::new());
    for kind in KINDS {
        for nth in 1..=stage.known[&kind].1.get(&(role, call)).copied().unwrap_or(0) + 1 {
            let fault = Fault { role, call, nth, deed: Deed::Fail(errno) };
            wrong.extend(
                stage.inject(kind, fault, &mut tally).into_iter().map(|what| format!("{fault}: {what}")),
            );
        }
    }
    (tally.injected, wrong)
}

/// Has so many faults happen in a mode.
pub(crate) fn run(mode: Mode, seed: u64, faults: u32) -> Tally {
    let mut tally = Tally::default();
    let mut chance = Chance::new(seed);
    let mounts = left::mounts();
    let mut stage = Stage::new(mode);
    while tally.injected < faults && tally.wrong.len() < 10 {
        let kind = chance.of(&KINDS);
        let fault = draw(&stage.known[&kind].1, &mut chance);
        let wrong = stage.inject(kind, fault, &mut tally);
        if !wrong.is_empty() {
            tally.wrong.push(format!("{mode:?}, seed {seed}, {kind:?}: {fault}: {wrong:#?}"));
        }
    }
    // What denies clears up what runs before it have left of the same.
    stage.counted(Kind::Denying).0.expect_code(7);
    let ghosts = left::names(&stage.ground.work()).into_iter().filter(|name| !name.starts_with("ran."));
    let mut left: Vec<String> = ghosts.collect();
    left.extend(left::names(&stage.ground.base().join("tmp")));
    if !left.is_empty() || left::mounts() != mounts {
        tally.wrong.push(format!("{mode:?}: {left:?}, or mounts, are left"));
    }
    tally
}
