//! Floods: of many like events within a short time only the first are written one by one; how many more there were is said
//! once the time is over. What a run is accounted for by, an intent or an outcome, is always written, and so is what a person has
//! answered or granted: questions may be many, and hide each other, but none that was answered.
//!
//! What events are alike by has words of the caller's in it, and nobody may get out of being counted by always asking for
//! something else, nor get others out of it: each user has a bound on kinds of events, and all have one together. What is
//! beyond a bound is counted by less of what it says.
//!
//! And sampling, of events about how the service does, and of those alone.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::event::{Event, Principal, Repeated, What, cut};
use crate::format::Class;
use crate::questions::{Questions, named};

/// What is a flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flood {
    /// So many like events are written one by one.
    pub burst: u32,
    /// Within so long.
    pub window: Duration,
}

impl Default for Flood {
    fn default() -> Self {
        Self { burst: 20, window: Duration::from_secs(10) }
    }
}

/// Different kinds of events of one user at once; those beyond are told apart without the caller's words.
const KINDS_OF_ONE: usize = 64;
/// Those of all users; those beyond are told apart by class and user alone.
const KINDS: usize = 4096;
/// The longest text that a kind is known by, in bytes.
const LONGEST: usize = 256;

/// What people have answered and given who may: as many as they do; and answers of programs: as many as budgets let askers have.
const ANSWERS: [&str; 7] =
    ["approved", "not-approved", "granted", "grant-answered", "grant-revoked", "review-begun", "reviewed"];

/// What makes events alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Like {
    class: Class,
    uid: Option<u32>,
    text: String,
}

#[derive(Debug)]
struct Seen {
    since: Instant,
    many: u64,
    /// Of those that weren't written: the time of the first and of the last.
    left_out: Option<(u64, u64)>,
    principal: Option<Principal>,
}

/// Which floods there are.
#[derive(Debug)]
pub(crate) struct Floods {
    flood: Flood,
    /// Of events of operation one in so many is written.
    operations: u32,
    seen: HashMap<Like, Seen>,
    /// How many kinds of each user are among them.
    kinds: HashMap<Option<u32>, usize>,
    counts: HashMap<String, u64>,
    questions: Questions,
}

impl Floods {
    pub(crate) fn new(flood: Flood, operations: u32) -> Self {
        let (seen, kinds, counts, questions) = Default::default();
        Self { flood, operations: operations.max(1), seen, kinds, counts, questions }
    }

    /// Whether an event is written. It's counted, if not.
    pub(crate) fn lets_through(&mut self, event: &mut Event, time: u64, now: Instant) -> bool {
        let operations = u64::from(self.operations);
        if let What::Operation(note) = &mut event.what
            && operations > 1
            && (self.counts.contains_key(&note.name) || self.counts.len() < KINDS)
        {
            let count = self.counts.entry(note.name.clone()).or_default();
            *count += 1;
            if *count % operations != 1 {
                return false;
            }
            note.of = Some(operations);
        }
        if self.questions.lets_through(event, now) {
            return true;
        }
        let Some(like) = self.like(event) else { return true };
        let kinds = &mut self.kinds;
        let seen = self.seen.entry(like).or_insert_with_key(|like| {
            *kinds.entry(like.uid).or_default() += 1;
            Seen { since: now, many: 0, left_out: None, principal: event.principal.clone() }
        });
        seen.many += 1;
        if seen.many <= u64::from(self.flood.burst) {
            return true;
        }
        let first = seen.left_out.map_or(time, |(first, _)| first);
        seen.left_out = Some((first, time));
        false
    }

    /// What an event is counted as; `None`: it's written in any case.
    fn like(&self, event: &Event) -> Option<Like> {
        let uid = event.principal.as_ref().map(|who| who.uid);
        let like = |text: Option<String>| {
            text.map(|text| Like { class: event.class(), uid, text: cut(text, LONGEST) })
        };
        let is_full = self.seen.len() >= KINDS;
        let is_many = self.kinds.get(&uid).is_some_and(|many| *many >= KINDS_OF_ONE);
        let own = like(text(event, true))?;
        if self.seen.contains_key(&own) || !(is_full || is_many) {
            return Some(own);
        }
        let plain = like(text(event, false))?;
        if self.seen.contains_key(&plain) || !is_full {
            return Some(plain);
        }
        like(Some("events of many kinds".to_owned()))
    }

    /// What is to be said of floods whose time is over; of all of them at the end.
    pub(crate) fn over(&mut self, now: Instant, all: bool) -> Vec<Event> {
        let (window, burst) = (self.flood.window, u64::from(self.flood.burst));
        let mut told = Vec::new();
        self.seen.retain(|like, seen| {
            if !all && now.saturating_duration_since(seen.since) < window {
                return true;
            }
            if let Some((first, last)) = seen.left_out {
                let (like, class) = (like.text.clone(), like.class);
                let what = Repeated { like, class, count: seen.many - burst, first, last };
                told.push(Event { principal: seen.principal.clone(), what: What::Repeated(what) });
            }
            if let Some(many) = self.kinds.get_mut(&like.uid) {
                *many = many.saturating_sub(1);
            }
            false
        });
        self.kinds.retain(|_, many| *many > 0);
        told
    }

    /// Whether there is anything that will have to be said.
    pub(crate) fn is_quiet(&self) -> bool {
        self.seen.is_empty()
    }
}

/// What an event is like, with the caller's words and without; `None`: it's written in any case.
fn text(event: &Event, with_words: bool) -> Option<String> {
    match &event.what {
        What::Refused(refused) => {
            let tool = refused.request.tool.as_deref().filter(|_| with_words).unwrap_or("-");
            let (stage, rule) = (&refused.stage, &refused.rule);
            Some(format!("refused {} {tool} {stage} {rule}", refused.request.action))
        }
        What::Security(note) if ANSWERS.contains(&note.name.as_str()) => None,
        // Each is about something else.
        What::Security(note) if named(&note.name).is_some() => Some(note.name.clone()),
        What::Security(note) => {
            let about = note.about.as_deref().filter(|_| with_words).unwrap_or("-");
            Some(format!("{} {about}", note.name))
        }
        // Whichever run it's about: each would be a kind, and take the place of a kind of refusals.
        What::Operation(note) => Some(note.name.clone()),
        What::Intent(_) | What::Outcome(_) | What::Repeated(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{Outcome, Refused, Request};

    const FLOOD: Flood = Flood { burst: 3, window: Duration::from_secs(10) };

    fn refused(uid: u32, tool: &str) -> Event {
        let request = Request { action: "call".into(), tool: Some(tool.into()), ..Request::default() };
        let what = What::Refused(Refused { request, ..Refused::default() });
        Event { principal: Some(Principal { uid, ..Principal::default() }), what }
    }

    proptest! {
        #[test]
        fn every_event_is_written_or_counted_once(
            events in proptest::collection::vec((0u32..3, 0u8..2, 0u64..20), 0..40), names in 1u64..150,
        ) {
            let mut floods = Floods::new(FLOOD, 1);
            let (begin, mut seconds) = (Instant::now(), 0);
            let (mut written, mut counted) = (0, 0);
            let mut tell = |events: Vec<Event>| {
                for event in events {
                    if let What::Repeated(repeated) = event.what {
                        assert!(repeated.count > 0 && repeated.first <= repeated.last);
                        counted += repeated.count;
                    }
                }
            };
            for (uid, tool, later) in &events {
                seconds += later;
                let now = begin + Duration::from_secs(seconds);
                tell(floods.over(now, false));
                for name in 0..names {
                    let tool = format!("{tool}-{name}");
                    written += u64::from(floods.lets_through(&mut refused(*uid, &tool), seconds, now));
                }
                prop_assert_eq!(floods.kinds.values().sum::<usize>(), floods.seen.len());
            }
            tell(floods.over(begin, true));
            prop_assert_eq!(written + counted, names * events.len() as u64);
            prop_assert!(floods.is_quiet() && floods.kinds.is_empty());
        }
    }

    #[test]
    fn the_first_of_a_flood_are_written_and_of_the_others_their_number() {
        let mut floods = Floods::new(FLOOD, 1);
        let now = Instant::now();
        let through = (0..10).filter(|at| floods.lets_through(&mut refused(7, "lint"), *at, now)).count();
        assert_eq!(through, 3);
        assert!(floods.lets_through(&mut refused(8, "lint"), 0, now), "another's");
        assert!(floods.over(now, false).is_empty());
        let told = floods.over(now + FLOOD.window, false);
        let What::Repeated(repeated) = &told[0].what else { panic!("{told:?}") };
        assert_eq!((repeated.count, repeated.first, repeated.last, told.len()), (7, 3, 9, 1));
        assert_eq!((told[0].principal.as_ref().unwrap().uid, told[0].class()), (7, Class::Access));
        assert!(floods.lets_through(&mut refused(7, "lint"), 0, now), "a new time");
    }

    /// How many of so many refusals with names of their own are written.
    fn written(floods: &mut Floods, uid: u32, many: u32) -> usize {
        let now = Instant::now();
        (0..many).filter(|at| floods.lets_through(&mut refused(uid, &format!("tool-{at}")), 0, now)).count()
    }

    #[test]
    fn who_asks_for_something_else_each_time_is_counted_and_others_as_before() {
        let mut floods = Floods::new(FLOOD, 1);
        assert_eq!(written(&mut floods, 7, 10_000), KINDS_OF_ONE + 3);
        let now = Instant::now();
        let mut through = |uid, tool: &str| {
            (0..1000).filter(|_| floods.lets_through(&mut refused(uid, tool), 0, now)).count()
        };
        assert_eq!(through(8, "lint"), 3, "another's");
        assert_eq!(through(7, "tool-3"), 2, "one that he was told apart by");
        let told = floods.over(now, true);
        let counted = |event: &Event| match &event.what {
            What::Repeated(repeated) => (event.principal.as_ref().unwrap().uid, repeated.count),
            other => panic!("{other:?}"),
        };
        let of = |uid| {
            told.iter().map(counted).filter(|(one, _)| *one == uid).map(|(_, count)| count).sum::<u64>()
        };
        assert_eq!((of(7), of(8)), (10_000 - 67 + 998, 997));
    }

    #[test]
    fn however_many_users_ask_nobody_is_written_one_by_one() {
        let mut floods = Floods::new(FLOOD, 1);
        for uid in 0..100 {
            assert!(written(&mut floods, uid, 200) <= KINDS_OF_ONE + 3);
        }
        assert_eq!(written(&mut floods, 1000, 1000), 3, "who comes when all is full");
        assert!(floods.seen.len() <= KINDS + 101, "{}", floods.seen.len());
        let long = "x".repeat(1 << 20);
        floods.over(Instant::now(), true);
        assert!(floods.lets_through(&mut refused(1, &long), 0, Instant::now()));
        assert!(floods.seen.keys().all(|like| like.text.len() <= LONGEST + 3));
    }

    #[test]
    fn what_a_run_is_accounted_for_by_is_always_written() {
        let mut floods = Floods::new(Flood { burst: 0, ..FLOOD }, 100);
        for _ in 0..50 {
            let intent = What::Intent(Request::default());
            let answers = ANSWERS.map(|name| Event::security(name, "").what);
            for what in [intent, What::Outcome(Outcome::default())].into_iter().chain(answers) {
                assert!(floods.lets_through(&mut Event { principal: None, what }, 0, Instant::now()));
            }
            let mut other = Event::security("others-run", "");
            assert!(!floods.lets_through(&mut other, 0, Instant::now()));
        }
    }

    #[test]
    fn one_in_so_many_is_written_of_operations_and_all_of_the_rest() {
        let mut floods = Floods::new(Flood { burst: 1000, ..FLOOD }, 10);
        let now = Instant::now();
        let mut through =
            |event: &Event| (0..100).filter(|_| floods.lets_through(&mut event.clone(), 0, now)).count();
        assert_eq!(through(&Event::operation("one", "")), 10);
        assert_eq!(through(&Event::operation("other", "")), 10);
        assert_eq!(through(&Event::security("one", "")), 100);
        assert_eq!(through(&refused(1, "x")), 100);
    }
}
