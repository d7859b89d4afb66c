//! Floods: of many like events within a short time only the first are written one by one; how many more there were is said
//! once the time is over. What a run is accounted for by, an intent or an outcome, is always written.
//!
//! And sampling, of events about how the service does, and of those alone.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::event::{Event, Principal, Repeated, What};
use crate::format::Class;

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

/// Different kinds of floods at once; what is beyond is written one by one.
const KINDS: usize = 4096;

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
    counts: HashMap<String, u64>,
}

impl Floods {
    pub(crate) fn new(flood: Flood, operations: u32) -> Self {
        Self { flood, operations: operations.max(1), seen: HashMap::new(), counts: HashMap::new() }
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
        let Some(text) = like(event) else { return true };
        let like = Like { class: event.class(), uid: event.principal.as_ref().map(|who| who.uid), text };
        if !self.seen.contains_key(&like) && self.seen.len() >= KINDS {
            return true;
        }
        let principal = || event.principal.clone();
        let seen = self.seen.entry(like).or_insert_with(|| Seen {
            since: now,
            many: 0,
            left_out: None,
            principal: principal(),
        });
        seen.many += 1;
        if seen.many <= u64::from(self.flood.burst) {
            return true;
        }
        let first = seen.left_out.map_or(time, |(first, _)| first);
        seen.left_out = Some((first, time));
        false
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
            false
        });
        told
    }

    /// Whether there is anything that will have to be said.
    pub(crate) fn is_quiet(&self) -> bool {
        self.seen.is_empty()
    }
}

/// What an event is like; `None`: it's written in any case.
fn like(event: &Event) -> Option<String> {
    match &event.what {
        What::Refused(refused) => {
            let tool = refused.request.tool.as_deref().unwrap_or("-");
            let (stage, rule) = (&refused.stage, &refused.rule);
            Some(format!("refused {} {tool} {stage} {rule}", refused.request.action))
        }
        What::Security(note) | What::Operation(note) => {
            Some(format!("{} {}", note.name, note.about.as_deref().unwrap_or("-")))
        }
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
            events in proptest::collection::vec((0u32..3, 0u8..2, 0u64..20), 0..200),
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
                written += u64::from(floods.lets_through(&mut refused(*uid, &tool.to_string()), seconds, now));
            }
            tell(floods.over(begin, true));
            prop_assert_eq!(written + counted, events.len() as u64);
            prop_assert!(floods.is_quiet());
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

    #[test]
    fn what_a_run_is_accounted_for_by_is_always_written() {
        let mut floods = Floods::new(Flood { burst: 0, ..FLOOD }, 100);
        for _ in 0..50 {
            let intent = What::Intent(Request::default());
            for what in [intent, What::Outcome(Outcome::default())] {
                assert!(floods.lets_through(&mut Event { principal: None, what }, 0, Instant::now()));
            }
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
