//! What runs came to, kept over restarts: what of the daemon's is counted, and when it's written.
//!
//! ```text
//! an end, a refusal ──> tally, in memory ──a few seconds after the first──> the writer's thread ([`stockade_stats`])
//! ```
//!
//! The loop counts and hands over; it never waits for the disk. What is counted and not handed over yet is lost with a daemon that is
//! killed: `GATHER` of it at most. While nothing happens nobody wakes.
//!
//! A run is counted when it ends, and a daemon that takes over a run that has ended already is told of that end once more. So the
//! ids of counted runs are written along with the counts, in one transaction, until launchers have forgotten them. Where the file
//! can't be read at the start nobody knows which those are: then no run of an earlier daemon is counted, rather than one twice.

mod asking;
pub(crate) mod report;

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use stockade_protocol::ExecId;
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::outcome::Outcome;
use stockade_protocol::statistics::{StatisticsQuestion, StatisticsReport};
use stockade_stats::{
    Ending, Question, Reader, Report, RunId, Said, Settings, Stage, StoreError, Tally, Who, Writer,
};
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};
use tokio::time::{sleep, timeout};

use crate::config::Counting;
use crate::daemon::Daemon;
use crate::runs::Run;
pub(crate) use asking::Asker;
use report::{question_of, report_of};

/// How long what is counted is gathered before it's written: so much a daemon that is killed may lose. Tests have less patience.
pub(crate) const GATHER: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });
/// How long the file has a run yet that is needed no more: launchers are told so in batches, a while later, and one that wasn't tells
/// the next daemon of it again.
const FORGET_AFTER: Duration = Duration::from_secs(30);
/// Runs that wait for that. Beyond them the next daemon finds out that nobody tells of them.
const MOST_FORGETTING: usize = 65_536;
/// How long the last of it may take to be written when the daemon ends.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(crate) struct Statistics {
    tally: Tally,
    writer: Writer,
    /// Runs that an earlier daemon has counted, and that aren't forgotten since; `None`: nobody knows.
    earlier: Option<BTreeSet<RunId>>,
    /// Runs that are needed no more, since when, the first of them first.
    forgetting: VecDeque<(Instant, RunId)>,
    forget_after: Duration,
    /// Whose questions wait for an answer.
    asking: Vec<Asker>,
    /// Rung with the first thing that is counted after a write.
    changed: Rc<Notify>,
}

impl Statistics {
    /// Those of a daemon with this state, if it's to count; `None` too where there can be no thread for it.
    pub(crate) fn open(configured: &Counting, state: &Path) -> Option<Self> {
        if !configured.enabled.is_on() {
            return None;
        }
        let (hours, days) = (configured.keep_hours.number(), configured.keep_days.number());
        let opened = stockade_stats::open(Settings::new(state, hours, days), Box::new(tell));
        let made = opened.map(|(writer, earlier)| Self {
            tally: Tally::default(),
            writer,
            earlier,
            forgetting: VecDeque::new(),
            forget_after: FORGET_AFTER,
            asking: Vec::new(),
            changed: Rc::default(),
        });
        made.inspect_err(|error| tracing::warn!(%error, "there are no statistics: no thread can be started"))
            .ok()
    }

    /// A run has ended; `is_ok`: if it ended by itself, whether well.
    pub(crate) fn ended(&mut self, run: &Run, outcome: &Outcome, is_ok: bool) {
        let id = *run.exec_id.as_bytes();
        match &self.earlier {
            Some(earlier) if earlier.contains(&id) => {
                // Told of late, the file may have dropped it: the next daemon has to know it, too.
                self.forgetting.retain(|(_, forgetting)| *forgetting != id);
                self.note(|tally| tally.remember(id));
                return;
            }
            // It may have been. The next daemon is told of it again, and may know.
            None if run.is_adopted => return,
            _ => {}
        }
        // Of a lost one nobody has measured the end.
        let is_known = run.started && run.timing.has_end() && !matches!(outcome, Outcome::Lost { .. });
        let used = is_known.then_some((run.usage.wall_us, run.usage.memory_peak));
        let who = who_of(run);
        self.note(|tally| tally.end(now(), id, who, ending(outcome, is_ok), used));
    }

    /// A request was refused.
    pub(crate) fn denied(&mut self, who: Who<'_>, by: Stage) {
        self.note(|tally| tally.deny(now(), who, by));
    }

    /// No launcher tells of a run any more.
    pub(crate) fn forgotten(&mut self, run: ExecId) {
        if let Some(earlier) = &mut self.earlier {
            earlier.remove(run.as_bytes());
        }
        self.forget_later(*run.as_bytes());
    }

    fn forget_later(&mut self, run: RunId) {
        if self.forgetting.len() < MOST_FORGETTING {
            self.forgetting.push_back((Instant::now(), run));
        }
    }

    /// Launchers have told of all their runs, and these are there.
    pub(crate) fn adopted<'a>(&mut self, runs: impl Iterator<Item = &'a ExecId>) {
        let Some(earlier) = &self.earlier else { return };
        let there: BTreeSet<RunId> = runs.map(|run| *run.as_bytes()).collect();
        // A launcher that was silent may still come with some of them: here they're known until the end.
        let gone: Vec<RunId> = earlier.difference(&there).copied().collect();
        gone.into_iter().for_each(|run| self.forget_later(run));
    }

    fn note(&mut self, note: impl FnOnce(&mut Tally)) {
        if self.tally.is_empty() {
            self.changed.notify_one();
        }
        note(&mut self.tally);
    }

    /// Has what was counted written.
    fn hand_over(&mut self) {
        let due = self.forgetting.partition_point(|(since, _)| since.elapsed() >= self.forget_after);
        for (_, run) in self.forgetting.drain(..due) {
            self.tally.forget(run);
        }
        if !self.tally.is_empty() {
            self.writer.write(core::mem::take(&mut self.tally));
        }
    }

    /// Has a question answered, with all that was counted until now, or, while the thread waits for the disk, until it began to;
    /// whether it will be: too many may wait. `is_operator`: whether he may have the places that are kept.
    pub(crate) fn ask(
        &mut self,
        asker: Asker,
        is_operator: bool,
        question: Question,
        answer: impl FnOnce(Report) + Send + 'static,
    ) -> bool {
        if !asking::has_room(&self.asking, asker, is_operator) {
            return false;
        }
        // One tally is on its way at most.
        if !self.writer.is_busy() {
            self.hand_over();
        }
        let asked = self.writer.ask(question, answer);
        if asked {
            self.asking.push(asker);
        }
        asked
    }

    /// Somebody has his answer, or can't have one.
    pub(crate) fn answered(&mut self, asker: Asker) {
        if let Some(at) = self.asking.iter().position(|asking| *asking == asker) {
            self.asking.swap_remove(at);
        }
    }
}

/// To whom a run is counted.
pub(crate) fn who_of(run: &Run) -> Who<'_> {
    let tool = run.tool.as_ref().map(|called| called.name.as_str());
    Who { tool, policy: Some(&run.policy), uid: run.owner }
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn ending(outcome: &Outcome, is_ok: bool) -> Ending {
    match outcome {
        Outcome::Exited { .. } if is_ok => Ending::Ok,
        Outcome::Exited { .. } | Outcome::Signaled { .. } => Ending::Failed,
        Outcome::TimedOut { .. } => Ending::TimedOut,
        Outcome::MemoryExceeded { .. } => Ending::Memory,
        Outcome::OutputExceeded { .. } => Ending::Output,
        Outcome::ProcessesExceeded { .. } => Ending::Processes,
        Outcome::Cancelled { .. } => Ending::Cancelled,
        Outcome::SetupFailed { .. } => Ending::NeverBegan,
        // Also what this daemon has no word for.
        _ => Ending::Lost,
    }
}

/// Who refused: the gate's stage that says so; else what lies before the gate or behind it.
pub(crate) fn stage(denied: &Denied) -> Stage {
    match (&denied.decided, &denied.reason) {
        (Some(decided), _) => Stage::of(&decided.stage).unwrap_or(Stage::Other),
        (None, DenyReason::Busy | DenyReason::Draining | DenyReason::Unavailable) => Stage::Queue,
        (None, _) => Stage::Admission,
    }
}

/// Logs what the writer's thread has to say.
fn tell(said: Said) {
    match said {
        Said::SetAside { path, why } => {
            tracing::warn!(path = %path.display(), why, "the statistics were damaged and are set aside: they begin anew");
        }
        Said::Unwritten { why } => tracing::warn!(
            why,
            "statistics can't be written: they're counted in memory until they can be, and a restart forgets them"
        ),
        Said::Written => tracing::info!("statistics are written again"),
        Said::Dropped => tracing::warn!(
            "the file of statistics is as large as it may be: its oldest quarter is dropped; lower statistics.keep-hours"
        ),
    }
}

/// What a file says where no daemon has it: whoever can read it may see all of it.
///
/// # Errors
/// There is none, or it can't be read.
pub fn read(directory: &Path, question: StatisticsQuestion) -> Result<StatisticsReport, ReadError> {
    let question = question_of(question).map_err(|denied| ReadError::Question(denied.message))?;
    let report = Reader::open(directory)?.answer(&question)?;
    Ok(report_of(report, now()))
}

/// Why a file says nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The question is none.
    #[error("{0}")]
    Question(String),
    /// The file.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ReadError {
    /// What would help, where we know.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Question(_) => None,
            Self::Store(error) => error.remedy(),
        }
    }
}

/// Counts from now on, if the daemon is to.
pub(crate) fn begin(daemon: &Rc<Daemon>, configured: &Counting, state: &Path) -> Option<JoinHandle<()>> {
    let statistics = Statistics::open(configured, state)?;
    let changed = Rc::clone(&statistics.changed);
    daemon.state.borrow_mut().statistics = Some(statistics);
    Some(spawn_local(keep(Rc::clone(daemon), changed)))
}

/// Has written what was counted, a while after it was, until it's aborted.
async fn keep(daemon: Rc<Daemon>, changed: Rc<Notify>) {
    loop {
        changed.notified().await;
        sleep(GATHER).await;
        // While the thread waits for the disk the tally stays here, and is bounded here.
        while daemon.state.borrow().statistics.as_ref().is_some_and(|statistics| statistics.writer.is_busy())
        {
            sleep(GATHER).await;
        }
        if let Some(statistics) = &mut daemon.state.borrow_mut().statistics {
            statistics.hand_over();
        }
    }
}

/// The end: what was counted is written, if the disk answers.
pub(crate) async fn end(daemon: &Daemon, keeping: Option<JoinHandle<()>>) {
    keeping.iter().for_each(JoinHandle::abort);
    let Some(mut statistics) = daemon.state.borrow_mut().statistics.take() else { return };
    statistics.hand_over();
    let closing = spawn_blocking(move || statistics.writer.close());
    if timeout(CLOSE_WITHIN, closing).await.is_err() {
        tracing::error!("the last statistics can't be written: the disk doesn't answer");
    }
}

/// What one question is answered with.
pub(crate) fn answer_to() -> (impl FnOnce(Report) + Send + 'static, oneshot::Receiver<Report>) {
    let (sender, receiver) = oneshot::channel();
    // Nobody may wait any more.
    (move |report| drop(sender.send(report)), receiver)
}

#[cfg(test)]
#[path = "once_tests.rs"]
mod once_tests;

#[cfg(test)]
mod tests {
    use stockade_gate::StageName;
    use stockade_protocol::outcome::Clock;

    use super::*;

    #[test]
    fn every_stage_of_the_gate_has_its_column_and_what_lies_around_it_too() {
        for name in StageName::ALL {
            let denied = Denied::new(DenyReason::NotPermitted, "x").decided_by(name.name(), "y");
            assert_eq!(stage(&denied).word(), name.name());
        }
        let newer = Denied::new(DenyReason::NotPermitted, "x").decided_by("newer", "y");
        assert_eq!(stage(&newer), Stage::Other);
        assert_eq!(stage(&Denied::new(DenyReason::Busy, "x")), Stage::Queue);
        assert_eq!(stage(&Denied::new(DenyReason::BadRequest, "x")), Stage::Admission);
    }

    #[test]
    fn an_end_is_what_it_says_and_a_status_is_well_where_the_tool_says_so() {
        let exited = Outcome::Exited { code: 3 };
        assert_eq!((ending(&exited, true), ending(&exited, false)), (Ending::Ok, Ending::Failed));
        let late = Outcome::TimedOut { clock: Clock::Wall, limit_ms: 1 };
        assert_eq!(ending(&late, true), Ending::TimedOut);
        assert_eq!(ending(&Outcome::Signaled { signal: 9, core_dumped: false }, true), Ending::Failed);
        assert_eq!(ending(&Outcome::Lost { reason: "x".into() }, true), Ending::Lost);
    }
}
