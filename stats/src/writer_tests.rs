//! The thread: what it writes, what it says, and that nothing it meets stops it.

use std::path::Path;
use std::sync::{Arc, Mutex};

use super::*;
use crate::store::{DAMAGED, FILE};
use crate::tally::Who;
use crate::words::{Ending, Kind};

const NOW: u64 = 1_900_000_000;

/// What a writer has said, a word each.
type Heard = Arc<Mutex<Vec<String>>>;

fn start(directory: &Path) -> (Writer, Option<BTreeSet<RunId>>, Heard) {
    let heard = Heard::default();
    let told = Arc::clone(&heard);
    let tell = move |said| {
        told.lock().unwrap().push(match said {
            Said::SetAside { path, why } => format!("aside {} {why}", path.display()),
            Said::Unwritten { why } => format!("unwritten {why}"),
            Said::Written => "written".to_owned(),
            Said::Dropped => "dropped".to_owned(),
        });
    };
    let (writer, counted) = open(Settings::new(directory, 30, 30), Box::new(tell)).unwrap();
    (writer, counted, heard)
}

fn tally(run: u8) -> Tally {
    let mut tally = Tally::default();
    let who = Who { tool: Some("a"), policy: None, uid: 1 };
    tally.end(NOW, [run; 16], who, Ending::Ok, Some((1, 2)));
    tally
}

fn ask(writer: &Writer) -> Report {
    let (sender, receiver) = channel();
    assert!(writer.ask(Question::default(), move |report| sender.send(report).unwrap()));
    receiver.recv().unwrap()
}

fn runs(report: &Report) -> u64 {
    report.rows.iter().filter(|row| row.kind == Kind::Tool).map(|row| row.cell.runs()).sum()
}

#[test]
fn what_was_handed_over_is_written_and_a_run_that_was_counted_is_known_to_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let (writer, counted, heard) = start(directory.path());
    assert_eq!(counted, Some(BTreeSet::new()));
    writer.write(tally(1));
    assert_eq!(runs(&ask(&writer)), 1);
    assert!(!writer.is_busy());
    writer.write(tally(2));
    writer.close();
    let (writer, counted, _) = start(directory.path());
    assert_eq!(counted, Some(BTreeSet::from([[1; 16], [2; 16]])));
    assert_eq!(runs(&ask(&writer)), 2);
    let mut forgets = Tally::default();
    forgets.forget([1; 16]);
    writer.write(forgets);
    writer.close();
    assert_eq!(start(directory.path()).1, Some(BTreeSet::from([[2; 16]])));
    assert!(heard.lock().unwrap().is_empty(), "{heard:?}");
}

#[test]
fn a_damaged_file_is_set_aside_at_the_start_and_later_and_counting_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(FILE), "no database").unwrap();
    let (writer, _, heard) = start(directory.path());
    let aside = directory.path().join(DAMAGED);
    assert_eq!(std::fs::read_to_string(&aside).unwrap(), "no database");
    writer.write(tally(1));
    assert_eq!(runs(&ask(&writer)), 1);
    writer.close();
    let said = heard.lock().unwrap().join("; ");
    assert!(said.starts_with(&format!("aside {}", aside.display())), "{said}");
    // A row that turns out to be damaged when it's added to.
    let connection = rusqlite::Connection::open(directory.path().join(FILE)).unwrap();
    connection.execute("update cell set memory_sketch = x'00'", []).unwrap();
    drop(connection);
    let (writer, _, heard) = start(directory.path());
    writer.write(tally(2));
    let report = ask(&writer);
    assert_eq!((runs(&report), report.unwritten), (1, None));
    writer.close();
    assert_eq!(heard.lock().unwrap().len(), 1);
    let (writer, ..) = start(directory.path());
    assert_eq!(runs(&ask(&writer)), 1);
}

#[test]
fn what_cant_be_written_waits_and_is_told_and_is_written_once_it_can_be() {
    let directory = tempfile::tempdir().unwrap();
    let gone = directory.path().join("gone");
    let (writer, counted, heard) = start(&gone);
    assert_eq!(counted, None, "nobody knows what was counted");
    for run in 1..4 {
        writer.write(tally(run));
    }
    let report = ask(&writer);
    assert_eq!(runs(&report), 3);
    assert!(report.unwritten.is_some_and(|why| why.contains("No such file")));
    assert_eq!(heard.lock().unwrap().len(), 1, "said once: {heard:?}");
    std::fs::create_dir(&gone).unwrap();
    writer.write(tally(4));
    let report = ask(&writer);
    assert_eq!((runs(&report), report.unwritten), (4, None));
    assert_eq!(heard.lock().unwrap().last().unwrap(), "written");
    writer.close();
    let (writer, counted, _) = start(&gone);
    assert_eq!((runs(&ask(&writer)), counted.unwrap().len()), (4, 4));
}

#[test]
fn a_newer_file_is_left_alone_and_what_is_counted_stays_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let before = std::fs::read(&path).unwrap();
    let (writer, _, heard) = start(directory.path());
    writer.write(tally(1));
    let report = ask(&writer);
    assert_eq!(runs(&report), 1);
    assert!(report.unwritten.is_some_and(|why| why.contains("newer stockade (version 99")));
    writer.close();
    assert_eq!(heard.lock().unwrap().len(), 1);
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn no_more_questions_wait_than_may() {
    let directory = tempfile::tempdir().unwrap();
    let (writer, ..) = start(directory.path());
    let (release, held) = channel::<()>();
    // The thread stands in the first answer, and so the others wait.
    assert!(writer.ask(Question::default(), move |_| held.recv().unwrap_or_default()));
    for _ in 1..MOST_QUESTIONS {
        assert!(writer.ask(Question::default(), |_| {}));
    }
    assert!(!writer.ask(Question::default(), |_| {}));
    drop(release);
    while writer.questions.load(Ordering::Acquire) > 0 {
        std::thread::yield_now();
    }
    assert!(writer.ask(Question::default(), |_| {}));
    writer.close();
}

#[test]
#[allow(clippy::disallowed_methods, reason = "somebody has the file for a while")]
fn a_file_that_somebody_has_for_a_moment_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let (writer, ..) = start(directory.path());
    writer.write(tally(1));
    writer.close();
    let connection = rusqlite::Connection::open(directory.path().join(FILE)).unwrap();
    connection.execute_batch("begin exclusive").unwrap();
    let holds = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        connection.execute_batch("rollback").unwrap();
        drop(connection);
    });
    let (writer, counted, heard) = start(directory.path());
    assert_eq!(counted, Some(BTreeSet::from([[1; 16]])), "{heard:?}");
    writer.close();
    holds.join().unwrap();
}

#[test]
fn a_damaged_row_that_is_too_old_is_no_reason_to_tend_nothing_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let (writer, ..) = start(directory.path());
    writer.write(tally(1));
    writer.close();
    let connection = rusqlite::Connection::open(directory.path().join(FILE)).unwrap();
    connection.execute("update cell set start = 3600, wall_sketch = x'00'", []).unwrap();
    drop(connection);
    let (writer, _, heard) = start(directory.path());
    writer.write(tally(2));
    let report = ask(&writer);
    // What was written just now went with the file.
    assert_eq!((runs(&report), report.unwritten), (0, None));
    writer.write(tally(3));
    assert_eq!(runs(&ask(&writer)), 1);
    writer.close();
    let heard = heard.lock().unwrap();
    assert!(heard.len() == 1 && heard[0].starts_with("aside"), "{heard:?}");
}

#[test]
fn a_question_opens_a_file_that_could_not_be_opened() {
    let directory = tempfile::tempdir().unwrap();
    let (writer, ..) = start(directory.path());
    writer.write(tally(1));
    writer.close();
    let (path, aside) = (directory.path().join(FILE), directory.path().join("aside"));
    std::fs::rename(&path, &aside).unwrap();
    std::fs::create_dir(&path).unwrap();
    let (writer, _, heard) = start(directory.path());
    let report = ask(&writer);
    assert!(runs(&report) == 0 && report.unwritten.is_some(), "{report:?}");
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    let report = ask(&writer);
    assert_eq!((runs(&report), report.unwritten), (1, None));
    assert_eq!(heard.lock().unwrap().last().unwrap(), "written");
    writer.close();
}
