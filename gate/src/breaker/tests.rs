//! Breakers by random histories, beside a plain model that knows which run is which; what is written down.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use proptest::prelude::*;

use super::snapshot::{Damage, Snapshot};
use super::{Breakers, MOST_OUTCOMES, Settings, State};
use crate::asked::{Action, Asked, Given, Load, Moment, Principal, Thing};
use crate::refusal::{Reason, Refusal};
use crate::row::{Ending, Stage};
use crate::verdict::Verdict;

const NANOSECOND: Duration = Duration::from_nanos(1);
const SECOND: Duration = Duration::from_secs(1);
const TOOL: &str = "search";

/// The calendar when the daemon began.
fn began() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn at(uptime: Duration) -> Moment {
    Moment { uptime, wall: began() + uptime }
}

fn principal(uid: u32) -> Principal {
    Principal { uid, gids: vec![uid], pid: 1, unit: None, roles: BTreeSet::new() }
}

/// The run of a user's that is asked for: one at a time, unless a test says otherwise.
fn call(principal: &Principal, at: Moment) -> Asked<'_> {
    Asked {
        at,
        run: principal.uid.into(),
        principal,
        action: Action::Call,
        policy: Some("build"),
        tool: Some(TOOL),
        thing: Thing::default(),
        given: Given::Nothing,
        workspace: None,
        owner: None,
        load: Load::default(),
    }
}

fn judge(breakers: &mut Breakers, uid: u32, uptime: Duration) -> Option<Refusal> {
    breakers.judge(&call(&principal(uid), at(uptime))).err()
}

fn end(breakers: &mut Breakers, run: u32, ending: Ending, uptime: Duration) {
    breakers.ended(run.into(), Some(TOOL), ending, at(uptime));
}

fn settings() -> Settings {
    Settings {
        failures: 3,
        percent: 0,
        of_at_least: 1,
        window: 10 * SECOND,
        open: 5 * SECOND,
        open_at_most: 20 * SECOND,
        probes: 1,
        successes: 2,
        lost_after: 60 * SECOND,
    }
}

fn breakers(settings: Settings) -> Breakers {
    Breakers::new(settings, BTreeMap::new())
}

/// One that has just opened.
fn opened(settings: Settings) -> Breakers {
    let mut breakers = breakers(settings);
    for _ in 0..settings.failures {
        assert_eq!(judge(&mut breakers, 1, Duration::ZERO), None);
        end(&mut breakers, 1, Ending::Failure, Duration::ZERO);
    }
    breakers
}

fn state(breakers: &Breakers, uptime: Duration) -> State {
    breakers.list(at(uptime)).first().map_or(State::Closed, |shown| shown.state)
}

#[test]
fn what_waits_for_a_person_is_no_probe_and_is_judged_again_when_it_goes_on() {
    let mut breakers = opened(settings());
    assert_eq!(judge(&mut breakers, 1, 5 * SECOND), None);
    assert!(judge(&mut breakers, 2, 6 * SECOND).is_some(), "the twin: it keeps its place while it runs");
    breakers.waits(1, Some(TOOL));
    assert_eq!(judge(&mut breakers, 2, 6 * SECOND), None, "the place of who waits is free");
    let refused = breakers.goes_on(1, Some(TOOL), at(7 * SECOND)).unwrap_err();
    assert_eq!((refused.reason, refused.retry_after), (Reason::BreakerOpen, Some(59 * SECOND)));
    end(&mut breakers, 2, Ending::Failure, 8 * SECOND);
    let refused = breakers.goes_on(1, Some(TOOL), at(9 * SECOND)).unwrap_err();
    assert_eq!(refused.retry_after, Some(9 * SECOND), "open for twice as long");
    assert!(breakers.goes_on(1, Some(TOOL), at(18 * SECOND)).is_ok());
    assert!(judge(&mut breakers, 2, 18 * SECOND).is_some(), "a probe again");
    end(&mut breakers, 1, Ending::Success, 19 * SECOND);
    assert_eq!(state(&breakers, 19 * SECOND), State::HalfOpen);
    assert!(breakers.goes_on(3, None, at(19 * SECOND)).is_ok(), "a command has no breaker");
}

#[test]
fn failures_open_it_and_successes_of_probes_close_it() {
    let mut breakers = opened(settings());
    let refusal = judge(&mut breakers, 2, Duration::ZERO).unwrap();
    assert_eq!((refusal.reason, refusal.retry_after), (Reason::BreakerOpen, Some(5 * SECOND)));
    assert!(judge(&mut breakers, 2, 5 * SECOND - NANOSECOND).is_some());
    assert_eq!(state(&breakers, 5 * SECOND - NANOSECOND), State::Open);
    assert_eq!(judge(&mut breakers, 2, 5 * SECOND), None);
    assert_eq!(state(&breakers, 5 * SECOND), State::HalfOpen);
    assert!(judge(&mut breakers, 1, 6 * SECOND).is_some(), "there is one probe at once");
    end(&mut breakers, 2, Ending::Success, 7 * SECOND);
    assert_eq!(judge(&mut breakers, 1, 7 * SECOND), None);
    end(&mut breakers, 1, Ending::Success, 7 * SECOND);
    assert_eq!(state(&breakers, 7 * SECOND), State::Closed);
    assert_eq!(breakers.list(at(7 * SECOND)), []);
}

#[test]
fn a_probe_that_fails_opens_it_for_twice_as_long_up_to_a_bound() {
    let mut breakers = opened(settings());
    let mut now = Duration::ZERO;
    for seconds in [5, 10, 20, 20] {
        let after = judge(&mut breakers, 1, now).unwrap().retry_after.unwrap();
        assert_eq!(after.as_secs(), seconds);
        now += after;
        assert_eq!(judge(&mut breakers, 1, now), None);
        end(&mut breakers, 1, Ending::Failure, now);
    }
}

#[test]
fn a_share_of_failures_counts_only_of_enough_outcomes() {
    let mut breakers = breakers(Settings { failures: 0, percent: 50, of_at_least: 6, ..settings() });
    for (ending, expected) in [
        (Ending::Failure, State::Closed),
        (Ending::Failure, State::Closed),
        (Ending::Success, State::Closed),
        (Ending::Success, State::Closed),
        (Ending::Success, State::Closed),
        (Ending::Failure, State::Open),
    ] {
        assert_eq!(judge(&mut breakers, 1, Duration::ZERO), None);
        end(&mut breakers, 1, ending, Duration::ZERO);
        assert_eq!(state(&breakers, Duration::ZERO), expected);
    }
}

#[test]
fn a_probe_refused_later_in_the_row_is_given_back() {
    let mut breakers = opened(settings());
    let one = principal(1);
    let asked = call(&one, at(5 * SECOND));
    for _ in 0..3 {
        assert_eq!(breakers.judge(&asked), Ok(Verdict::Pass));
        breakers.take_back(&asked);
    }
    assert_eq!(judge(&mut breakers, 2, 5 * SECOND), None);
    assert!(judge(&mut breakers, 2, 5 * SECOND).is_some());
}

#[test]
fn a_probe_that_never_ends_leaves_its_place_after_a_time_and_not_before() {
    let mut breakers = opened(settings());
    assert_eq!(judge(&mut breakers, 1, 6 * SECOND), None);
    let refusal = judge(&mut breakers, 2, 7 * SECOND).unwrap();
    assert_eq!(refusal.retry_after, Some(59 * SECOND));
    assert!(judge(&mut breakers, 2, 66 * SECOND - NANOSECOND).is_some());
    assert_eq!(judge(&mut breakers, 2, 66 * SECOND), None);
}

#[test]
fn a_cancelled_probe_says_nothing_and_leaves_its_place() {
    let mut breakers = opened(settings());
    for _ in 0..5 {
        assert_eq!(judge(&mut breakers, 1, 6 * SECOND), None);
        end(&mut breakers, 1, Ending::Neither, 6 * SECOND);
    }
    assert_eq!(state(&breakers, 6 * SECOND), State::HalfOpen);
}

#[test]
fn what_began_before_it_broke_neither_closes_nor_opens_it_and_leaves_probes_their_place() {
    let mut breakers = breakers(settings());
    for run in 1..=5 {
        assert_eq!(judge(&mut breakers, run, Duration::ZERO), None);
    }
    for run in 1..=3 {
        end(&mut breakers, run, Ending::Failure, Duration::ZERO);
    }
    assert_eq!(judge(&mut breakers, 6, 5 * SECOND), None);
    end(&mut breakers, 4, Ending::Failure, 5 * SECOND);
    end(&mut breakers, 5, Ending::Success, 5 * SECOND);
    let shown = breakers.list(at(5 * SECOND)).pop().unwrap();
    assert_eq!((shown.state, shown.times, shown.probes), (State::HalfOpen, 1, 1));
    assert!(judge(&mut breakers, 7, 5 * SECOND).is_some());
    // The one that never began gives its own place back, whoever's other runs go on.
    end(&mut breakers, 6, Ending::Neither, 5 * SECOND);
    assert_eq!(judge(&mut breakers, 7, 5 * SECOND), None);
}

#[test]
fn so_many_outcomes_are_kept_and_the_oldest_forgotten() {
    let mut breakers = breakers(Settings { failures: 5, ..settings() });
    for number in 0..MOST_OUTCOMES + 44 {
        assert_eq!(judge(&mut breakers, 1, Duration::ZERO), None);
        end(&mut breakers, 1, if number < 4 { Ending::Failure } else { Ending::Success }, Duration::ZERO);
    }
    let shown = breakers.list(at(Duration::ZERO)).pop().unwrap();
    assert_eq!((shown.outcomes, shown.failures), (MOST_OUTCOMES, 0));
}

#[test]
fn other_tools_and_plain_runs_pass() {
    let mut breakers = opened(settings());
    let one = principal(1);
    let other = Asked { tool: Some("other"), ..call(&one, at(Duration::ZERO)) };
    let run = Asked { tool: None, action: Action::Run, ..call(&one, at(Duration::ZERO)) };
    let attach = Asked { action: Action::Attach, ..call(&one, at(Duration::ZERO)) };
    for asked in [other, run, attach] {
        assert_eq!(breakers.judge(&asked), Ok(Verdict::Pass));
    }
    assert!(breakers.reset(TOOL) && !breakers.reset(TOOL) && !breakers.reset("none"));
    assert_eq!(judge(&mut breakers, 1, Duration::ZERO), None);
}

#[test]
fn how_breakers_stand_is_told_alike_by_the_list_and_in_short() {
    let mut breakers = opened(settings());
    for (uptime, state, retry_after) in [
        (Duration::ZERO, State::Open, Some(5 * SECOND)),
        (5 * SECOND - NANOSECOND, State::Open, Some(NANOSECOND)),
        (5 * SECOND, State::HalfOpen, None),
    ] {
        assert_eq!(breakers.states(at(uptime)).collect::<Vec<_>>(), [(TOOL, state)]);
        let shown = breakers.list(at(uptime)).pop().unwrap();
        assert_eq!((shown.state, shown.retry_after), (state, retry_after));
    }
    breakers.reset(TOOL);
    assert!(breakers.states(at(SECOND)).all(|(_, state)| state == State::Closed));
    assert_eq!(breakers.list(at(SECOND)), []);
}

#[test]
fn nothing_is_kept_of_tools_that_end_well_long_ago_and_never_too_many() {
    let mut breakers = breakers(settings());
    for number in 0..super::MAX_TOOLS + 10 {
        let name = format!("tool-{number}");
        let one = principal(1);
        let uptime = 20 * SECOND * u32::try_from(number).unwrap();
        let asked = Asked { tool: Some(&name), ..call(&one, at(uptime)) };
        assert_eq!(breakers.judge(&asked), Ok(Verdict::Pass));
        breakers.ended(1, Some(&name), Ending::Success, at(uptime));
    }
    assert!(breakers.list(at(Duration::ZERO)).len() <= super::MAX_TOOLS);
}

/// A run as the model knows it.
#[derive(Debug, Clone, Copy)]
struct Run {
    number: u32,
    since: Duration,
    /// In which half-open time it was let pass.
    probe_of: Option<u32>,
}

/// The plain model: what stands in the module's page, gone through anew each time.
#[derive(Debug, Default)]
struct Model {
    /// All outcomes since it last opened or closed.
    outcomes: Vec<(Duration, bool)>,
    open_until: Option<Duration>,
    half_open: bool,
    successes: u32,
    times: u32,
    /// Half-open times so far.
    round: u32,
    running: Vec<Run>,
}

impl Model {
    fn probes(&self, now: Duration, settings: &Settings) -> usize {
        let is_probe = |run: &&Run| {
            self.half_open && run.probe_of == Some(self.round) && now - run.since < settings.lost_after
        };
        self.running.iter().filter(is_probe).count()
    }

    fn passes(&mut self, number: u32, now: Duration, settings: &Settings) -> bool {
        if let Some(until) = self.open_until {
            if now < until {
                return false;
            }
            (self.open_until, self.half_open, self.successes) = (None, true, 0);
            self.round += 1;
        }
        if self.half_open && self.probes(now, settings) >= settings.probes as usize {
            return false;
        }
        self.running.push(Run { number, since: now, probe_of: self.half_open.then_some(self.round) });
        true
    }

    fn end(&mut self, run: usize, ending: Ending, now: Duration, settings: &Settings) {
        let run = self.running.remove(run);
        let is_probe = run.probe_of == Some(self.round);
        if ending == Ending::Neither || self.open_until.is_some() {
            return;
        }
        let failed = ending == Ending::Failure;
        if self.half_open {
            if failed && is_probe {
                self.open(now, settings);
            } else if is_probe {
                self.successes += 1;
                if self.successes >= settings.successes {
                    (self.half_open, self.times) = (false, 0);
                    self.outcomes.clear();
                }
            }
            return;
        }
        self.outcomes.push((now, failed));
        let counting = self.outcomes.iter().rev().take(MOST_OUTCOMES as usize);
        let counting: Vec<bool> =
            counting.filter(|(when, _)| now - *when < settings.window).map(|(_, failed)| *failed).collect();
        let failures = counting.iter().filter(|failed| **failed).count();
        let by_count = settings.failures > 0 && failures >= settings.failures as usize;
        let by_share = settings.percent > 0
            && counting.len() >= settings.of_at_least as usize
            && failures * 100 >= settings.percent as usize * counting.len();
        if failed && (by_count || by_share) {
            self.open(now, settings);
        }
    }

    fn open(&mut self, now: Duration, settings: &Settings) {
        self.times += 1;
        let long = (1..self.times).fold(settings.open, |long, _| long * 2).min(settings.open_at_most);
        (self.open_until, self.half_open) = (Some(now + long), false);
        self.outcomes.clear();
    }
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Call,
    /// And refused by a later stage.
    Refused,
    /// Of the run with this number, of those that go on.
    End(usize, Ending),
    Wait(Duration),
}

fn event() -> impl Strategy<Value = Event> {
    let ending = prop_oneof![
        3 => Just(Ending::Failure),
        3 => Just(Ending::Success),
        1 => Just(Ending::Neither)
    ];
    prop_oneof![
        5 => Just(Event::Call),
        1 => Just(Event::Refused),
        5 => (0usize..8, ending).prop_map(|(run, ending)| Event::End(run, ending)),
        2 => (0u64..8_000_000_000).prop_map(|long| Event::Wait(Duration::from_nanos(long))),
        1 => Just(Event::Wait(30 * SECOND)),
    ]
}

fn any_settings() -> impl Strategy<Value = Settings> {
    (0u32..5, 0u32..=100, 1u32..6, 1u32..4, 1u32..4).prop_map(
        |(failures, percent, of_at_least, probes, successes)| Settings {
            failures,
            percent,
            of_at_least,
            probes,
            successes,
            ..settings()
        },
    )
}

proptest! {
    /// As the model: who passes when; and whichever run ends, there are never more probes at once than there may be.
    #[test]
    fn random_histories_go_as_the_model_says(
        settings in any_settings(),
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut breakers = breakers(settings);
        let mut model = Model::default();
        let mut now = Duration::ZERO;
        for (number, event) in (0_u32..).zip(events) {
            match event {
                Event::Wait(long) => now += long,
                Event::Call => {
                    let refusal = judge(&mut breakers, number, now);
                    prop_assert_eq!(refusal.is_none(), model.passes(number, now, &settings));
                    if let Some(refusal) = refusal {
                        exact(&breakers, number, now, &refusal)?;
                    }
                }
                Event::Refused => {
                    let one = principal(number);
                    let asked = call(&one, at(now));
                    let passed = breakers.judge(&asked).is_ok();
                    prop_assert_eq!(passed, model.passes(number, now, &settings));
                    if passed {
                        breakers.take_back(&asked);
                        model.running.pop();
                    }
                }
                // One that is taken for lost doesn't end by anybody's word.
                Event::End(run, ending)
                    if model.running.get(run).is_some_and(|run| now - run.since < settings.lost_after) =>
                {
                    end(&mut breakers, model.running[run].number, ending, now);
                    model.end(run, ending, now, &settings);
                }
                Event::End(..) => {}
            }
            prop_assert!(model.probes(now, &settings) <= settings.probes as usize);
        }
        // Whatever has happened, it isn't so for ever.
        prop_assert_eq!(judge(&mut breakers, 0, now + settings.lost_after + settings.open_at_most), None);
    }

    /// Whatever isn't a tool's failure never opens anything.
    #[test]
    fn what_is_not_a_failure_opens_nothing(
        settings in any_settings(),
        endings in prop::collection::vec(prop::bool::ANY, 1..100),
    ) {
        let mut breakers = breakers(settings);
        for (number, well) in endings.into_iter().enumerate() {
            let now = Duration::from_millis(number as u64);
            prop_assert_eq!(judge(&mut breakers, 1, now), None);
            end(&mut breakers, 1, if well { Ending::Success } else { Ending::Neither }, now);
        }
    }

    /// A restart at any time, with the calendar set to anything meanwhile: what was open isn't open for longer than it would
    /// have been in all, nor does it pass as closed; what was closed counts its failures still.
    #[test]
    fn a_restart_forgets_no_failure_and_a_clock_that_was_set_holds_nobody_up(
        events in prop::collection::vec(event(), 1..60),
        down in 0u64..40,
        step in -1_000_000i64..1_000_000,
    ) {
        let settings = settings();
        let mut breakers = breakers(settings);
        let mut running: Vec<u32> = Vec::new();
        let mut now = Duration::ZERO;
        for (number, event) in (0_u32..).zip(events) {
            match event {
                Event::Wait(long) => now += long,
                Event::Call if judge(&mut breakers, number, now).is_none() => running.push(number),
                Event::End(run, ending) if run < running.len() => end(&mut breakers, running.remove(run), ending, now),
                _ => {}
            }
        }
        let snapshot = breakers.snapshot(at(now));
        let text = serde_json::to_string(&snapshot).unwrap();
        let snapshot = serde_json::from_str(&text).unwrap();
        let wall = at(now).wall + Duration::from_secs(down);
        let set = |step: i64| if step < 0 {
            wall - Duration::from_secs(step.unsigned_abs())
        } else {
            wall + Duration::from_secs(step.unsigned_abs())
        };
        let mut next = Breakers::new(settings, BTreeMap::new());
        next.restore(&snapshot, Moment { uptime: Duration::ZERO, wall: set(step) });
        let before = breakers.list(at(now)).pop();
        let after = next.list(Moment { uptime: Duration::ZERO, wall: set(step) }).pop();
        match before {
            None => prop_assert!(after.is_none()),
            Some(before) => match before.state {
                State::Open => {
                    let after = after.unwrap();
                    prop_assert_ne!(after.state, State::Closed);
                    let left = after.retry_after.unwrap_or_default();
                    prop_assert!(left <= settings.open_for(before.times));
                    if step == 0 {
                        let expected = before.retry_after.unwrap().saturating_sub(Duration::from_secs(down));
                        prop_assert!(left >= expected && left < expected + Duration::from_millis(1));
                    }
                    prop_assert_eq!(judge(&mut next, 1, left), None);
                    prop_assert!(judge(&mut next, 2, left).is_some(), "one probe at once");
                }
                State::HalfOpen => prop_assert_ne!(after.unwrap().state, State::Closed),
                // Set back, or at once: every failure counts that did.
                State::Closed if step <= 0 && down == 0 => prop_assert_eq!(after.unwrap().failures, before.failures),
                State::Closed => {}
            },
        }
    }
}

/// Refused a nanosecond earlier, and let pass then.
fn exact(breakers: &Breakers, uid: u32, now: Duration, refusal: &Refusal) -> Result<(), TestCaseError> {
    let after = refusal.retry_after.unwrap();
    prop_assert!(after > Duration::ZERO);
    let (mut early, mut then) = (breakers.clone(), breakers.clone());
    let again = judge(&mut early, uid, now + after - NANOSECOND).map(|refusal| refusal.retry_after);
    prop_assert_eq!(again, Some(Some(NANOSECOND)));
    prop_assert_eq!(judge(&mut then, uid, now + after), None);
    Ok(())
}

#[test]
fn a_text_is_read_as_it_was_written_and_a_damaged_or_newer_one_is_not() {
    let snapshot = opened(settings()).snapshot(at(SECOND));
    assert_eq!(snapshot.len(), 1);
    let whole = serde_json::to_string(&snapshot).unwrap();
    assert_eq!(Snapshot::parse(whole.as_bytes()), Ok(snapshot));
    let cut = &whole[..whole.len() - 2];
    for text in ["", "{", "[]", "{\"version\":1}", "{\"version\":1,\"tools\":{},\"more\":1}", cut] {
        assert!(matches!(Snapshot::parse(text.as_bytes()), Err(Damage::Text(_))), "{text}");
    }
    assert_eq!(Snapshot::parse(b"{\"version\":2,\"other\":[]}"), Err(Damage::Newer(2)));
}
