//! The row: which stages there are, and how a request goes through them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use crate::asked::{Asked, Moment};
use crate::refusal::Refusal;
use crate::verdict::Verdict;

/// The stages, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StageName {
    /// May they?
    Access,
    /// How often?
    Rate,
    /// Does the tool work at all?
    Breaker,
    /// Is the input valid?
    Validate,
    /// Has someone approved?
    Approve,
    /// Can it be recorded?
    Record,
}

impl StageName {
    /// All of them, in their order.
    pub const ALL: [Self; 6] =
        [Self::Access, Self::Rate, Self::Breaker, Self::Validate, Self::Approve, Self::Record];

    /// Its name in files and records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Rate => "rate",
            Self::Breaker => "breaker",
            Self::Validate => "validate",
            Self::Approve => "approve",
            Self::Record => "record",
        }
    }
}

/// How something that was let through ended, as far as stages learn from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The tool did what it's for.
    Success,
    /// By its own fault: an exit status that its file calls a failure, a time limit, a memory limit.
    Failure,
    /// By nobody's fault, or another's: cancelled, lost, never set up.
    Neither,
}

/// One stage. Every call returns within microseconds.
pub trait Stage {
    /// Which.
    fn name(&self) -> StageName;

    /// Lets a request pass, has somebody asked first, or says why not. What it takes for the first two (a token, a probe) it takes
    /// here.
    ///
    /// # Errors
    /// The refusal. Nothing was taken then.
    fn judge(&mut self, asked: &Asked<'_>) -> Result<Verdict, Refusal>;

    /// A later stage has refused what this one let pass: what it has taken is free again, if that is for it to give.
    fn take_back(&mut self, _asked: &Asked<'_>) {}

    /// Nobody runs it yet: somebody is asked about it first, and that may take a while. What only one that runs may hold is free again.
    fn waits(&mut self, _run: u128, _tool: Option<&str>) {}

    /// What has waited may run: looked at again, as far as it may have changed meanwhile.
    ///
    /// # Errors
    /// The refusal. [`Stage::ended`] follows, as for what passed.
    fn goes_on(&mut self, _run: u128, _tool: Option<&str>, _at: Moment) -> Result<(), Refusal> {
        Ok(())
    }

    /// The run of a request that passed has ended, perhaps without having begun. `run`: as in [`Asked`].
    fn ended(&mut self, _run: u128, _tool: Option<&str>, _ending: Ending, _at: Moment) {}
}

/// A stage that somebody else keeps, too: who has it take up other files, and asks it how it is.
impl<S: Stage> Stage for Rc<RefCell<S>> {
    fn name(&self) -> StageName {
        self.borrow().name()
    }

    fn judge(&mut self, asked: &Asked<'_>) -> Result<Verdict, Refusal> {
        self.borrow_mut().judge(asked)
    }

    fn take_back(&mut self, asked: &Asked<'_>) {
        self.borrow_mut().take_back(asked);
    }

    fn waits(&mut self, run: u128, tool: Option<&str>) {
        self.borrow_mut().waits(run, tool);
    }

    fn goes_on(&mut self, run: u128, tool: Option<&str>, at: Moment) -> Result<(), Refusal> {
        self.borrow_mut().goes_on(run, tool, at)
    }

    fn ended(&mut self, run: u128, tool: Option<&str>, ending: Ending, at: Moment) {
        self.borrow_mut().ended(run, tool, ending, at);
    }
}

/// The stages of a daemon.
#[derive(Default)]
pub struct Row {
    stages: Vec<Box<dyn Stage>>,
}

impl core::fmt::Debug for Row {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.stages.iter().map(|stage| stage.name())).finish()
    }
}

impl Row {
    /// A row of these, which are put in their order.
    #[must_use]
    pub fn new(mut stages: Vec<Box<dyn Stage>>) -> Self {
        stages.sort_by_key(|stage| stage.name());
        Self { stages }
    }

    /// Whether there is no stage.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stages.is_empty()
    }

    /// Has a request go through all stages but those that its policy leaves out. Somebody is asked if any of them asks: only once
    /// none has refused, so nobody is bothered with what wouldn't run anyway.
    ///
    /// # Errors
    /// The first refusal. What earlier stages took is given back.
    pub fn judge(&mut self, asked: &Asked<'_>, left_out: &BTreeSet<StageName>) -> Result<Verdict, Refusal> {
        let (mut passed, mut verdict) = (Vec::new(), Verdict::Pass);
        for (at, stage) in self.stages.iter_mut().enumerate() {
            if left_out.contains(&stage.name()) {
                continue;
            }
            match stage.judge(asked) {
                Ok(one) => verdict = verdict.and(one),
                Err(refusal) => {
                    for at in passed {
                        let stage: &mut Box<dyn Stage> = &mut self.stages[at];
                        stage.take_back(asked);
                    }
                    return Err(refusal);
                }
            }
            passed.push(at);
        }
        Ok(verdict)
    }

    /// Tells every stage that what it has let pass waits until somebody has approved it.
    pub fn waits(&mut self, run: u128, tool: Option<&str>) {
        for stage in &mut self.stages {
            stage.waits(run, tool);
        }
    }

    /// Has every stage look again at what has waited.
    ///
    /// # Errors
    /// The first refusal.
    pub fn goes_on(&mut self, run: u128, tool: Option<&str>, at: Moment) -> Result<(), Refusal> {
        self.stages.iter_mut().try_for_each(|stage| stage.goes_on(run, tool, at))
    }

    /// Tells every stage how something ended.
    pub fn ended(&mut self, run: u128, tool: Option<&str>, ending: Ending, at: Moment) {
        for stage in &mut self.stages {
            stage.ended(run, tool, ending, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::asked::{Action, Given, Load, Principal, Thing};
    use crate::refusal::Reason;
    use crate::verdict::Ask;

    type Log = Rc<RefCell<Vec<String>>>;

    struct Noting(StageName, bool, Log);

    impl Stage for Noting {
        fn name(&self) -> StageName {
            self.0
        }

        fn judge(&mut self, _asked: &Asked<'_>) -> Result<Verdict, Refusal> {
            self.2.borrow_mut().push(format!("{} asked", self.0.name()));
            let refusal = || Refusal::new(self.0, Reason::NotPermitted, "test", "it's a test");
            if self.1 { Ok(Verdict::Pass) } else { Err(refusal()) }
        }

        fn take_back(&mut self, _asked: &Asked<'_>) {
            self.2.borrow_mut().push(format!("{} undone", self.0.name()));
        }
    }

    fn asked(principal: &Principal) -> Asked<'_> {
        Asked {
            at: Moment { uptime: Duration::ZERO, wall: SystemTime::UNIX_EPOCH },
            run: 1,
            principal,
            action: Action::Run,
            policy: Some("default"),
            tool: None,
            thing: Thing::default(),
            given: Given::Nothing,
            workspace: None,
            owner: None,
            load: Load::default(),
        }
    }

    fn row(refuses: Option<StageName>) -> (Row, Log) {
        let log = Log::default();
        let stage = |name: StageName| -> Box<dyn Stage> {
            Box::new(Noting(name, refuses != Some(name), Rc::clone(&log)))
        };
        (Row::new(StageName::ALL.into_iter().rev().map(stage).collect()), log)
    }

    #[test]
    fn a_refusal_ends_the_row_and_undoes_what_stages_before_it_took() {
        let principal = Principal { uid: 1, gids: vec![1], pid: 2, unit: None, roles: BTreeSet::new() };
        let (mut row, log) = row(Some(StageName::Breaker));
        let refusal = row.judge(&asked(&principal), &BTreeSet::new()).unwrap_err();
        assert_eq!(refusal.stage, StageName::Breaker);
        let expected = ["access asked", "rate asked", "breaker asked", "access undone", "rate undone"];
        assert_eq!(*log.borrow(), expected);
    }

    #[test]
    fn a_stage_that_is_left_out_is_neither_asked_nor_undone() {
        let principal = Principal { uid: 1, gids: vec![1], pid: 2, unit: None, roles: BTreeSet::new() };
        let left_out = BTreeSet::from([StageName::Rate, StageName::Validate]);
        let (mut row, log) = row(Some(StageName::Record));
        row.judge(&asked(&principal), &left_out).unwrap_err();
        assert!(!log.borrow().iter().any(|line| line.starts_with("rate") || line.starts_with("validate")));
        let (mut row, log) = self::row(None);
        assert_eq!(row.judge(&asked(&principal), &left_out).unwrap(), Verdict::Pass);
        assert_eq!(*log.borrow(), ["access asked", "breaker asked", "approve asked", "record asked"]);
    }

    struct Asking(StageName);

    impl Stage for Asking {
        fn name(&self) -> StageName {
            self.0
        }

        fn judge(&mut self, _asked: &Asked<'_>) -> Result<Verdict, Refusal> {
            Ok(Verdict::Ask(Ask::by(self.0.name(), "it's a test")))
        }
    }

    #[test]
    fn whoever_asks_is_heard_whatever_passes_behind_it_and_nobody_is_asked_about_what_is_refused() {
        let principal = Principal { uid: 1, gids: vec![1], pid: 2, unit: None, roles: BTreeSet::new() };
        let log = Log::default();
        let others = |refuses: bool| -> Vec<Box<dyn Stage>> {
            vec![
                Box::new(Asking(StageName::Access)),
                Box::new(Noting(StageName::Rate, true, Rc::clone(&log))),
                Box::new(Asking(StageName::Approve)),
                Box::new(Noting(StageName::Record, !refuses, Rc::clone(&log))),
            ]
        };
        let verdict = Row::new(others(false)).judge(&asked(&principal), &BTreeSet::new()).unwrap();
        let Verdict::Ask(ask) = verdict else { panic!("nobody is asked") };
        let names: Vec<_> = ask.because.iter().map(|factor| factor.name.as_str()).collect();
        assert_eq!(names, ["access", "approve"]);
        Row::new(others(true)).judge(&asked(&principal), &BTreeSet::new()).unwrap_err();
    }
}
