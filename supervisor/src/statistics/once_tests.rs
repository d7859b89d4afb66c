//! A run is counted once, whichever daemons are told of its end, and whatever the file is then.

use stockade_protocol::launch::{Adopted, RunNote};
use tempfile::TempDir;

use super::*;
use crate::dispatcher::LauncherId;

const OUTCOME: Outcome = Outcome::Exited { code: 0 };

/// A daemon's statistics.
fn open(state: &Path) -> Statistics {
    let opened = Statistics::open(&Counting::default(), state).unwrap();
    Statistics { forget_after: Duration::ZERO, ..opened }
}

fn run(number: u8) -> Run {
    let note = RunNote {
        request_id: 1,
        policy: "default".into(),
        command: "true".into(),
        detach: true,
        wall_ms: None,
        fed: false,
        tool: None,
        redaction: None,
        grant: None,
        reviews: None,
    };
    let adopted = Adopted {
        exec_id: ExecId::from_bytes([number; 16]),
        owner_uid: 1_000,
        ring_bytes: None,
        held: false,
        age_ms: 0,
        input_bytes: None,
        output_released: None,
        note,
    };
    Run::adopted(adopted, LauncherId(1), 0, || unreachable!("nothing is hidden in its output"))
}

/// One of this daemon's own.
fn own(number: u8) -> Run {
    Run { is_adopted: false, ..run(number) }
}

/// Has everything written that was handed over, and ends as a daemon does that is killed.
fn kill(statistics: Statistics) {
    statistics.writer.close();
}

/// How many runs the file has.
fn counted(state: &TempDir) -> u64 {
    let statistics = open(state.path());
    let (sender, receiver) = std::sync::mpsc::channel();
    assert!(statistics.writer.ask(Question::default(), move |report| sender.send(report).unwrap()));
    let report = receiver.recv().unwrap();
    kill(statistics);
    report.rows.iter().filter(|row| row.kind == stockade_stats::Kind::Policy).map(|row| row.cell.runs()).sum()
}

/// A launcher tells of what it keeps before it's known, and then there may be daemons that don't live long.
#[test]
fn an_id_that_nobody_tells_of_any_more_makes_no_other_run_count_twice() {
    let state = tempfile::tempdir().unwrap();
    let mut first = open(state.path());
    first.ended(&own(1), &OUTCOME, true);
    first.ended(&own(2), &OUTCOME, true);
    first.hand_over();
    kill(first);
    for is_written in [false, true, false, true] {
        let mut next = open(state.path());
        next.ended(&run(1), &OUTCOME, true);
        next.adopted([run(1).exec_id].iter());
        if is_written {
            next.hand_over();
        }
        kill(next);
    }
    assert_eq!(counted(&state), 2);
    let mut last = open(state.path());
    assert_eq!(last.earlier, Some(BTreeSet::from([[1; 16]])), "the other is forgotten");
    // Told of, and forgotten at once: so does the file.
    last.ended(&run(1), &OUTCOME, true);
    last.forgotten(run(1).exec_id);
    last.hand_over();
    kill(last);
    assert_eq!(open(state.path()).earlier, Some(BTreeSet::new()));
}

/// A launcher is told so a while later, and not at all where the daemon is killed before.
#[test]
fn a_run_that_is_needed_no_more_counts_once_where_its_launcher_was_never_told_so() {
    let state = tempfile::tempdir().unwrap();
    let opened = || Statistics::open(&Counting::default(), state.path()).unwrap();
    let mut first = opened();
    first.ended(&own(1), &OUTCOME, true);
    first.forgotten(run(1).exec_id);
    first.hand_over();
    kill(first);
    let mut next = opened();
    next.ended(&run(1), &OUTCOME, true);
    next.adopted([run(1).exec_id].iter());
    next.hand_over();
    kill(next);
    assert_eq!(counted(&state), 1);
}

#[test]
fn what_this_daemon_counts_before_all_launchers_are_known_stays_counted() {
    let state = tempfile::tempdir().unwrap();
    let mut first = open(state.path());
    first.ended(&own(1), &OUTCOME, true);
    first.hand_over();
    kill(first);
    let mut next = open(state.path());
    next.ended(&run(2), &OUTCOME, true);
    next.hand_over();
    next.adopted([run(2).exec_id].iter());
    next.hand_over();
    kill(next);
    let mut last = open(state.path());
    last.ended(&run(2), &OUTCOME, true);
    last.hand_over();
    kill(last);
    assert_eq!(counted(&state), 2);
}

#[test]
fn while_nobody_knows_what_was_counted_no_run_of_an_earlier_daemon_is() {
    let state = tempfile::tempdir().unwrap();
    let mut first = open(state.path());
    first.ended(&own(1), &OUTCOME, true);
    first.hand_over();
    kill(first);
    let (path, aside) = (state.path().join(stockade_stats::FILE), state.path().join("aside"));
    std::fs::rename(&path, &aside).unwrap();
    std::fs::create_dir(&path).unwrap();
    let mut blind = open(state.path());
    assert_eq!(blind.earlier, None);
    blind.ended(&run(1), &OUTCOME, true);
    blind.ended(&own(2), &OUTCOME, true);
    blind.adopted([run(1).exec_id].iter());
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    blind.hand_over();
    kill(blind);
    assert_eq!(counted(&state), 2);
    // And the next knows both.
    let mut last = open(state.path());
    last.ended(&run(1), &OUTCOME, true);
    last.ended(&run(2), &OUTCOME, true);
    last.hand_over();
    kill(last);
    assert_eq!(counted(&state), 2);
}
