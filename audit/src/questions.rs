//! Questions that people are asked, and those that were given up: each distinct one of an hour is written, so that who asks for a thing
//! and gives up again and again hides nothing else that he has asked for.
//!
//! Who asks says what is distinct, and could do that without end. So each user has a bound on it; what is beyond is a [flood](crate::flood)
//! as any other, whose number is told.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::event::{Event, What};
use crate::secret::{Hash, hash};

/// For so long it's known what was written.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
/// So many of a user's are written, whatever they are.
pub(crate) const FIRST: u32 = 60;
/// And so many different ones, those among them.
pub(crate) const DISTINCT: usize = 256;
/// Of so many users, and kinds of a user's, that's known at once: about five megabytes.
const USERS: usize = 512;

/// What a question is written as when it's asked, and when nobody has answered it.
const NAMES: [&str; 2] = ["approval-asked", "approval-over"];
/// The stage that refuses what was given up: by that it's written what it was.
const STAGE: &str = "approve";

/// Of one user, and one kind of event.
#[derive(Debug)]
struct Asked {
    since: Instant,
    many: u32,
    distinct: HashSet<Hash>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    asked: HashMap<(Option<u32>, &'static str), Asked>,
}

impl Questions {
    /// Whether an event is of a question that is written in any case.
    pub(crate) fn lets_through(&mut self, event: &Event, now: Instant) -> bool {
        let Some((kind, about)) = of(event) else { return false };
        let key = (event.principal.as_ref().map(|who| who.uid), kind);
        if !self.asked.contains_key(&key) && self.asked.len() >= USERS {
            self.asked.retain(|_, asked| now.saturating_duration_since(asked.since) < HOUR);
            if self.asked.len() >= USERS {
                return false;
            }
        }
        let fresh = || Asked { since: now, many: 0, distinct: HashSet::new() };
        let asked = self.asked.entry(key).or_insert_with(fresh);
        if now.saturating_duration_since(asked.since) >= HOUR {
            *asked = fresh();
        }
        asked.many = asked.many.saturating_add(1);
        let is_new = asked.distinct.len() < DISTINCT && asked.distinct.insert(hash(&[about.as_bytes()]));
        is_new || asked.many <= FIRST
    }
}

/// Of which kind an event is, and what tells it from others of that; `None`: it's of no question.
fn of(event: &Event) -> Option<(&'static str, String)> {
    match &event.what {
        What::Security(note) => {
            let name = named(&note.name)?;
            Some((name, note.asks.clone().unwrap_or_default()))
        }
        // What it was: a digest says that it's another one, and nobody can read that.
        What::Refused(refused) if refused.stage == STAGE => Some((STAGE, refused.request.digest())),
        _ => None,
    }
}

/// The name of what a question is written as, if it's one of those.
pub(crate) fn named(name: &str) -> Option<&'static str> {
    NAMES.into_iter().find(|one| *one == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Given, Principal, Refused, Repeated, Request};
    use crate::flood::{Flood, Floods};

    fn by(uid: u32, what: What) -> Event {
        Event { principal: Some(Principal { uid, ..Principal::default() }), what }
    }

    fn request(word: &str) -> Request {
        let given = Some(Given::of([word.as_bytes()]));
        Request { action: "run".into(), given, exec: Some(format!("{word}'s")), ..Request::default() }
    }

    fn asked(uid: u32, word: &str) -> Event {
        let mut event = Event::security("approval-asked", "it's risky");
        if let What::Security(note) = &mut event.what {
            note.asks = Some(request(word).digest());
        }
        by(uid, event.what)
    }

    fn given_up(uid: u32, word: &str) -> Event {
        let request = request(word);
        by(uid, What::Refused(Refused { request, stage: STAGE.into(), ..Refused::default() }))
    }

    fn counted(told: &[Event]) -> u64 {
        let count = |event: &Event| match &event.what {
            What::Repeated(Repeated { count, .. }) => *count,
            other => panic!("{other:?}"),
        };
        told.iter().map(count).sum()
    }

    #[test]
    fn a_question_among_thousands_of_another_is_written_and_of_those_their_number() {
        for event in [asked, given_up] {
            let flood = Flood::default();
            let (mut floods, begin) = (Floods::new(flood, 1), Instant::now());
            let (mut written, mut told) = (0, Vec::new());
            for second in 0..60 {
                let now = begin + Duration::from_secs(second);
                told.extend(floods.over(now, false));
                for _ in 0..100 {
                    written += u64::from(floods.lets_through(&mut event(7, "make noise"), 0, now));
                }
            }
            let now = begin + Duration::from_secs(60);
            assert!(floods.lets_through(&mut event(7, "rm -r /srv/live"), 0, now), "the one to be hidden");
            assert!(floods.lets_through(&mut event(8, "make noise"), 0, now), "another user's");
            told.extend(floods.over(now, true));
            assert_eq!(written + counted(&told), 6_000, "all others, exactly");
            // The first ones, and 20 within each ten seconds, as of any flood.
            assert_eq!(written, u64::from(FIRST) + 6 * u64::from(flood.burst));
        }
    }

    #[test]
    fn different_ones_are_written_up_to_a_bound_and_again_in_the_next_hour() {
        let (mut questions, begin) = (Questions::default(), Instant::now());
        let mut through = |many: usize, from: usize, now| {
            (from..from + many).filter(|at| questions.lets_through(&asked(7, &at.to_string()), now)).count()
        };
        assert_eq!(through(1_000, 0, begin), DISTINCT);
        assert_eq!(through(1_000, 1_000, begin + HOUR - Duration::from_secs(1)), 0);
        assert_eq!(through(1_000, 0, begin + HOUR), DISTINCT);
    }

    #[test]
    fn what_is_known_of_questions_is_bounded_and_who_comes_then_is_a_flood_as_any_other() {
        let (mut questions, begin) = (Questions::default(), Instant::now());
        for uid in 0..2_000 {
            assert_eq!(questions.lets_through(&asked(uid, "x"), begin), (uid as usize) < USERS, "{uid}");
        }
        assert!(questions.lets_through(&asked(5_000, "x"), begin + HOUR));
        assert_eq!(questions.asked.len(), 1, "what is an hour old makes room");
        assert!(!questions.lets_through(&by(1, Event::security("others-run", "").what), begin));
    }

    #[test]
    fn questions_without_number_leave_a_users_refusals_told_apart() {
        let (mut floods, now) = (Floods::new(Flood::default(), 1), Instant::now());
        for at in 0..1_000 {
            floods.lets_through(&mut asked(7, &at.to_string()), 0, now);
            floods.lets_through(&mut given_up(7, &at.to_string()), 0, now);
        }
        let refused = |tool: String| {
            let request = Request { action: "call".into(), tool: Some(tool), ..Request::default() };
            by(7, What::Refused(Refused { request, stage: "rate".into(), ..Refused::default() }))
        };
        let written = (0..40).filter(|at| floods.lets_through(&mut refused(format!("tool-{at}")), 0, now));
        assert_eq!(written.count(), 40);
    }
}
