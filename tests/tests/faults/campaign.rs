//! Faults by chance, one after another, each with its run and with a run after it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;
use std::time::Duration;

use stockade_protocol::ExecId;
use stockade_protocol::client::{ClientMessage, ExecEvent, ServerMessage};
use stockade_protocol::outcome::Outcome;
use stockade_tests::wire::{Wire, request, workspace};
use stockade_tests::{Daemon, Ground, Mode, left, wait_until};
use syscalls::Sysno;

use crate::calls;
use crate::chance::Chance;
use crate::injector::{self, Counts, Deed, Fault, Injector};
use crate::roles::Role;
use crate::runs::{Client, Kind, Story};

/// Faults that one daemon goes through before the next takes its place.
const A_DAEMON: u32 = 60;
/// Launchers that may die of faults before a daemon is replaced: one whose launchers all die young waits longer and longer.
const DEATHS: u32 = 3;
/// Of what has to settle.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came of a campaign.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) injected: u32,
    /// Armed, but the call wasn't made so often.
    pub(crate) missed: u32,
    /// What the runs came to.
    pub(crate) outcomes: BTreeMap<String, u32>,
    /// Faults that a supervisor died of.
    pub(crate) deadly: BTreeMap<String, u32>,
    pub(crate) slowest_next: Duration,
    pub(crate) wrong: Vec<String>,
}

impl core::fmt::Display for Tally {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { injected, missed, outcomes, slowest_next, .. } = self;
        write!(f, "{injected} faults, {missed} that didn't come to pass, {outcomes:?}; ")?;
        write!(f, "the slowest next run took {slowest_next:?}; supervisors that ended: {:#?}", self.deadly)
    }
}

/// A daemon that faults happen to.
pub(crate) struct Stage {
    injector: Injector,
    ground: Ground,
    daemon: Daemon,
    arguments: Vec<&'static str>,
    next: u64,
    /// What each kind says of itself, and which calls it makes.
    known: BTreeMap<Kind, (Vec<u8>, Counts)>,
    descriptors: BTreeMap<Role, BTreeMap<String, usize>>,
}

impl Stage {
    pub(crate) fn new(mode: Mode, warm: bool) -> Self {
        let injector = Injector::new(mode.server(), &calls::all());
        let ground = Ground::new(mode.client());
        let server = Ground::new(mode.server());
        let program = injector.stockade(&server);
        let arguments = if warm { vec![] } else { vec!["--parked", "0"] };
        let daemon = Daemon::start_program(server, program, &arguments);
        let (next, known, descriptors) = (1, BTreeMap::new(), BTreeMap::new());
        let mut stage = Self { injector, ground, daemon, arguments, next, known, descriptors };
        stage.learn();
        stage.empty();
        stage.descriptors = stage.settled(None).unwrap();
        stage
    }

    pub(crate) fn start_again(&self) {
        self.daemon.start_another(self.injector.stockade(&self.daemon.ground), &self.arguments);
    }

    pub(crate) fn run(&mut self, kind: Kind) -> Story {
        let id = self.next;
        self.next += 1;
        let start_again = || self.start_again();
        Client { daemon: &self.daemon, ground: &self.ground, start_again: &start_again }.run(kind, id)
    }

    pub(crate) fn judge(&self, kind: Kind, story: &Story, fired: Option<Deed>) -> Vec<String> {
        // What ends early says what the others do, as far as it comes.
        let of = if kind.lasts() { Kind::Relayed } else { kind };
        let whole = self.known.get(&of).map_or(story.output.as_slice(), |(output, _)| output);
        let client = Client { daemon: &self.daemon, ground: &self.ground, start_again: &|| {} };
        client.judge(kind, story, whole, fired)
    }

    /// Runs each kind twice without a fault: what comes of it, and the calls that are made for it.
    fn learn(&mut self) {
        for kind in Kind::ALL {
            let first = self.run(kind);
            let wrong = self.judge(kind, &first, None);
            assert!(wrong.is_empty(), "{kind:?} without a fault: {wrong:#?}\n{}", self.daemon.log());
            let id = self.next;
            self.next += 1;
            let client = Client { daemon: &self.daemon, ground: &self.ground, start_again: &|| {} };
            let (second, counts) = self.injector.count(|| {
                let story = client.run(kind, id);
                // What is done after its end, too: for the next.
                std::thread::sleep(Duration::from_millis(20));
                story
            });
            let same = first.output == second.output || kind.lasts();
            assert!(same, "{kind:?}: {:?}, then {:?}", first.output, second.output);
            self.known.insert(kind, (second.output, counts));
        }
    }

    /// One fault in one run, and a run after it. What was wrong.
    pub(crate) fn inject(&mut self, kind: Kind, fault: Fault, tally: &mut Tally) -> Vec<String> {
        let pid = self.daemon.pid();
        self.injector.arm(fault);
        let story = self.run(kind);
        // Some happen between runs only.
        let fired = self.injector.disarm().map(|_| fault.deed);
        let mut wrong = self.judge(kind, &story, fired);
        *(if fired.is_some() { &mut tally.injected } else { &mut tally.missed }) += 1;
        let word = story.outcome.as_ref().map_or_else(
            || story.denied.as_ref().map_or("no answer".to_owned(), |denied| format!("{:?}", denied.reason)),
            |outcome| format!("{outcome:?}").split([' ', '{']).next().unwrap().to_owned(),
        );
        *tally.outcomes.entry(word).or_default() += 1;
        if matches!(fault.deed, Deed::Kill | Deed::KillAll(_) | Deed::Outlive(_)) {
            // Who was killed while a run ended may have been needed by the next.
            let beside = self.run(Kind::Relayed);
            wrong.extend(self.judge(Kind::Relayed, &beside, fired));
        }
        let next = self.run(Kind::Relayed);
        tally.slowest_next = tally.slowest_next.max(next.took);
        wrong.extend(
            self.judge(Kind::Relayed, &next, None).into_iter().map(|what| format!("next run: {what}")),
        );
        if self.daemon.pid() != pid {
            let what = format!("{:?} {} {:?}", fault.role, fault.call, fault.deed);
            *tally.deadly.entry(what).or_default() += 1;
        }
        wrong
    }

    /// Takes away what waits for runs to come: without, all is the same each time.
    fn empty(&self) {
        let waiting =
            || [Role::Template, Role::Worker, Role::Init].map(|role| self.injector.processes(role)).concat();
        assert!(wait_until(PATIENCE, || {
            waiting().into_iter().for_each(injector::kill);
            waiting().is_empty()
        }));
    }

    /// What nobody has heard the end of is kept for whoever comes for it: that is us.
    fn acknowledge_all(&self) {
        let mut wire = Wire::greeted(&self.daemon, self.ground.person);
        wire.send(&ClientMessage::List, &[]);
        let ServerMessage::Runs(runs) = wire.message() else { panic!("no list") };
        for exec_id in runs.into_iter().map(|run| run.exec_id) {
            wire.send(&ClientMessage::Attach { exec_id, after_seq: 0 }, &[]);
            let _events = wire.follow();
        }
    }

    /// How often a role makes a call in a run of this kind.
    pub(crate) fn known_calls(&self, kind: Kind, role: Role, call: Sysno) -> u32 {
        self.known[&kind].1.get(&(role, call)).copied().unwrap_or(0)
    }

    /// What the daemon said last.
    pub(crate) fn log(&self) -> String {
        tail(&self.daemon.log())
    }

    /// The launcher that is written down.
    pub(crate) fn launcher(&self) -> u32 {
        assert!(wait_until(PATIENCE, || self.daemon.launchers().len() == 1), "{}", self.log());
        self.daemon.launchers()[0]
    }

    pub(crate) fn kill_daemon(&self) {
        self.daemon.kill();
    }

    /// Whether a process ends in time.
    pub(crate) fn ends(&self, pid: u32) -> bool {
        wait_until(PATIENCE, || left::process(pid).is_none_or(|process| process.state == 'Z'))
    }

    /// A run that goes on until it's [followed](Self::follow).
    pub(crate) fn long_run(&self) -> ExecId {
        let line = "echo here; while [ ! -e go ]; do sleep 0.05; done; exit 3";
        let mut asked = request(&self.ground, "default", &["sh", "-c", line]);
        asked.detach = true;
        let mut wire = Wire::greeted(&self.daemon, self.ground.person);
        wire.send(&ClientMessage::Exec(Box::new(asked)), &[workspace(&self.ground).as_fd()]);
        let exec_id = wire.accepted();
        while !matches!(wire.message(), ServerMessage::Event { event: ExecEvent::Output { .. }, .. }) {}
        exec_id
    }

    /// Whether the daemon knows a run.
    pub(crate) fn knows(&self, exec_id: ExecId) -> bool {
        let mut wire = Wire::greeted(&self.daemon, self.ground.person);
        wire.send(&ClientMessage::Attach { exec_id, after_seq: 0 }, &[]);
        matches!(wire.message(), ServerMessage::Event { .. })
    }

    /// Follows a long run to its end.
    pub(crate) fn follow(&self, exec_id: ExecId) {
        assert!(wait_until(PATIENCE, || self.knows(exec_id)), "it isn't known again: {}", self.log());
        self.ground.put("go", "");
        let mut wire = Wire::greeted(&self.daemon, self.ground.person);
        wire.send(&ClientMessage::Attach { exec_id, after_seq: 0 }, &[]);
        let events = wire.follow();
        let said =
            |event: &ExecEvent| matches!(event, ExecEvent::Output { bytes, .. } if bytes.0 == b"here\n");
        assert_eq!(events.iter().filter(|(_, event)| said(event)).count(), 1, "{events:?}");
        let end = &events.last().unwrap().1;
        assert!(matches!(end, ExecEvent::Exited { outcome: Outcome::Exited { code: 3 }, .. }), "{end:?}");
        std::fs::remove_file(self.ground.work().join("go")).unwrap();
    }

    /// The descriptors of the processes that stay, by what they are, once nothing goes on any more; with `wanted`, once they
    /// are those.
    fn settled(
        &mut self,
        wanted: Option<&BTreeMap<Role, BTreeMap<String, usize>>>,
    ) -> Result<BTreeMap<Role, BTreeMap<String, usize>>, String> {
        let mut found = BTreeMap::new();
        let mut before = BTreeMap::new();
        let so = wait_until(PATIENCE, || {
            std::thread::sleep(Duration::from_millis(60));
            before = core::mem::take(&mut found);
            for role in [Role::Supervisor, Role::Launcher, Role::Relay, Role::Monitor, Role::Survey] {
                let all = self.injector.processes(role);
                found.insert(role, all.into_iter().map(descriptors).next().unwrap_or_default());
            }
            // Of a launcher that it has taken over.
            found
                .entry(Role::Supervisor)
                .and_modify(|held| held.retain(|word, _| word != "anon_inode:[pidfd]"));
            wanted.map_or_else(|| found == before, |wanted| found == *wanted)
        });
        if so { Ok(found) } else { Err(format!("{found:#?} instead of {wanted:#?}")) }
    }

    /// What is wrong with the daemon after its faults.
    pub(crate) fn left(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        // One that denies clears up what a launcher that was killed has left of the same; the other has the monitor started.
        for kind in [Kind::Denying, Kind::Deadline] {
            let story = self.run(kind);
            wrong.extend(self.judge(kind, &story, None));
        }
        self.acknowledge_all();
        self.empty();
        let wanted = self.descriptors.clone();
        wrong.extend(self.settled(Some(&wanted)).err());
        let ghosts: Vec<String> =
            left::names(&self.ground.work()).into_iter().filter(|name| !name.starts_with("ran.")).collect();
        if !ghosts.is_empty() {
            wrong.push(format!("left in the workspace: {ghosts:?}"));
        }
        let log = self.daemon.log();
        wrong.extend(log.lines().filter(|line| line.contains("panicked at")).map(str::to_owned));
        wrong
    }
}

/// What a fault may be in a run that makes these calls: at any of them.
pub(crate) fn draw(counts: &Counts, chance: &mut Chance) -> Fault {
    let ours: Vec<_> = counts.iter().filter(|((role, _), _)| *role != Role::Tool).collect();
    let ((role, call), count) = chance.of(&ours);
    let nth = u32::try_from(chance.below(u64::from(*count))).unwrap() + 1;
    let errors = calls::errors(*call);
    let others = [Role::Supervisor, Role::Launcher, Role::Relay, Role::Monitor, Role::Template, Role::Init];
    let moment = Duration::from_millis(10 + chance.below(90));
    let deed = match chance.below(20) {
        // A language's own start has no answer to that.
        _ if (*role, *call) == (Role::Newborn, Sysno::mmap) => Deed::Kill,
        0..12 if !errors.is_empty() => Deed::Fail(chance.of(errors)),
        0..15 => Deed::Kill,
        15..17 => Deed::KillAll(chance.of(&others)),
        17..19 => Deed::Stop(chance.of(&others), moment),
        _ => Deed::Pause(moment),
    };
    Fault { role: *role, call: *call, nth, deed }
}

/// The open descriptors of a process, by what they are.
fn descriptors(pid: u32) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return found };
    for link in entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok()) {
        // Held from the first client on that passes a descriptor.
        if link.ends_with("mountinfo") {
            continue;
        }
        let word: String = link.to_string_lossy().chars().filter(|c| !c.is_ascii_digit()).collect();
        *found.entry(word).or_default() += 1;
    }
    found
}

/// Has so many faults happen in a mode.
pub(crate) fn run(mode: Mode, seed: u64, faults: u32) -> Tally {
    let mut tally = Tally::default();
    let mut batch = 0;
    while tally.injected < faults && tally.wrong.len() < 10 {
        // Each batch has a seed of its own, so that it can be had alone.
        run_batch(mode, seed.wrapping_add(batch), faults - tally.injected, &mut tally);
        batch += 1;
    }
    tally
}

/// The faults of one daemon.
fn run_batch(mode: Mode, seed: u64, most: u32, tally: &mut Tally) {
    let mut chance = Chance::new(seed);
    let warm = chance.below(2) == 0;
    let mut stage = Stage::new(mode, warm);
    let (had, mut launchers) = (tally.injected, BTreeSet::new());
    let mut story = Vec::new();
    while tally.injected - had < A_DAEMON.min(most) && launchers.len() <= DEATHS as usize {
        let kind = chance.of(&Kind::ALL);
        let fault = draw(&stage.known[&kind].1, &mut chance);
        story.push(format!("{kind:?}: {fault}"));
        let wrong = stage.inject(kind, fault, tally);
        launchers.extend(stage.daemon.launchers());
        if !wrong.is_empty() {
            let last: Vec<_> = story.iter().rev().take(4).collect();
            tally.wrong.push(format!(
                "{mode:?}, {}, STOCKADE_FAULTS_SEED={seed}, faults (last first) {last:#?}:\n{wrong:#?}\nthe daemon said:\n{}",
                if warm { "warm" } else { "cold" },
                tail(&stage.daemon.log())
            ));
            if tally.wrong.len() > 20 {
                return;
            }
        }
    }
    let wrong = stage.left();
    if !wrong.is_empty() {
        tally.wrong.push(format!(
            "{mode:?}, STOCKADE_FAULTS_SEED={seed}, after {} faults:\n{wrong:#?}\nthe daemon said:\n{}",
            story.len(),
            tail(&stage.daemon.log())
        ));
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().rev().take(12).collect();
    let short = |line: &str| {
        // Without the command of the run, which is always the same.
        let (head, rest) = line.split_once(" owner=").unwrap_or((line, ""));
        format!("{head}{}", rest.rsplit_once("}: ").map_or(rest, |(_, said)| said))
    };
    lines.into_iter().rev().map(short).collect::<Vec<_>>().join("\n")
}
