//! Lock-out: who is refused again and again is refused for a while without being looked at.
//!
//! By uid **and** unit: an agent that runs as its user but in a unit of its own shuts nobody out but itself. Nobody can have another
//! locked out: the kernel says whose a refusal is. Only refusals by rules of access and by a person who was
//! asked count, and none while one is locked out.

use core::time::Duration;
use std::collections::{HashMap, VecDeque};

use stockade_policies::Mistake;
use stockade_policies::amount::Time;
use stockade_policies::reader::Section;

/// The most principals of which refusals are remembered.
pub const MAX_KEYS: usize = 4_096;
/// The most of them with one uid: who makes himself many units pushes out his own.
pub const MAX_OF_ONE: usize = 64;
/// Its keys in `limits.toml`.
pub const KEYS: [&str; 3] = ["refusals", "within", "for"];
/// The most refusals that a file may say.
const MAX_REFUSALS: u64 = 100;
/// The longest times that a file may say: a day.
const MAX_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// When somebody is locked out, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// After so many refusals; 0: never.
    pub refusals: u32,
    /// Within this time.
    pub within: Duration,
    /// For so long.
    pub lasts: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(count * 60);
        Self { refusals: 5, within: minutes(5), lasts: minutes(30) }
    }
}

/// Reads `[lockout]`.
pub fn read(section: &Section<'_>, mistakes: &mut Vec<Mistake>) -> Settings {
    let mut settings = Settings::default();
    match section.number("refusals", 0, MAX_REFUSALS) {
        Ok(Some(number)) => settings.refusals = u32::try_from(number.value).unwrap_or(settings.refusals),
        Ok(None) => {}
        Err(mistake) => mistakes.push(mistake),
    }
    let parse = |text: &str| {
        let time = Duration::from_millis(Time::parse(text)?.milliseconds());
        let is_within = (Duration::from_secs(1)..=MAX_TIME).contains(&time);
        if is_within { Ok(time) } else { Err("it isn't from a second to a day".to_owned()) }
    };
    for (key, into) in [("within", &mut settings.within), ("for", &mut settings.lasts)] {
        match section.text(key, "a time from \"1s\" to \"24h\"", parse) {
            Ok(Some(time)) => *into = time.value,
            Ok(None) => {}
            Err(mistake) => mistakes.push(mistake),
        }
    }
    settings
}

/// Who is locked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locked {
    /// His uid.
    pub uid: u32,
    /// His unit.
    pub unit: Option<String>,
    /// For how long yet.
    pub left: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: u32,
    unit: Option<String>,
}

/// What is remembered of one.
#[derive(Debug, Clone, Default)]
struct Entry {
    /// When he was refused, the latest last; never more than lock him out.
    at: VecDeque<Duration>,
    /// Until when he is locked out.
    until: Option<Duration>,
}

impl Entry {
    fn left(&self, now: Duration) -> Option<Duration> {
        self.until.and_then(|until| until.checked_sub(now)).filter(|left| !left.is_zero())
    }

    fn latest(&self) -> Duration {
        self.at.back().copied().max(self.until).unwrap_or_default()
    }
}

/// Who was refused of late. Times are since the daemon's start: none of it outlives that.
#[derive(Debug, Clone, Default)]
pub struct Lockout {
    settings: Settings,
    entries: HashMap<Key, Entry>,
}

impl Lockout {
    /// Other settings from now on. Who is locked out stays so, unless nobody is any more.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
        if settings.refusals == 0 {
            self.entries.clear();
        }
    }

    /// How long somebody is locked out yet.
    #[must_use]
    pub fn left(&self, uid: u32, unit: Option<&str>, now: Duration) -> Option<Duration> {
        if self.entries.is_empty() {
            return None;
        }
        match self.entries.get(&Key { uid, unit: unit.map(ToOwned::to_owned) }) {
            Some(entry) => entry.left(now),
            None => self.left_of_all(uid, now),
        }
    }

    /// Who was locked out in as many units as are counted is in every other one, until the first of them is let in: else he would be
    /// counted nowhere.
    fn left_of_all(&self, uid: u32, now: Duration) -> Option<Duration> {
        let own = || self.entries.iter().filter(|(key, _)| key.uid == uid);
        if own().count() < MAX_OF_ONE {
            return None;
        }
        own().map(|(_, entry)| entry.left(now)).collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    /// Somebody was refused; whether he is locked out for it.
    pub fn refused(&mut self, uid: u32, unit: Option<&str>, now: Duration) -> bool {
        let Settings { refusals, within, lasts } = self.settings;
        if refusals == 0 {
            return false;
        }
        let key = Key { uid, unit: unit.map(ToOwned::to_owned) };
        if !self.entries.contains_key(&key) && !self.has_room_for(uid, now) {
            return false;
        }
        let entry = self.entries.entry(key).or_default();
        if entry.left(now).is_some() {
            return false;
        }
        entry.until = None;
        entry.at.retain(|at| now.saturating_sub(*at) < within);
        entry.at.push_back(now);
        if entry.at.len() < refusals as usize {
            return false;
        }
        entry.at.clear();
        entry.until = Some(now.saturating_add(lasts));
        true
    }

    /// Makes room for one more of a user's, of those who aren't locked out: his own, if he has too many; else whoever was refused
    /// longest ago. There is none if all are locked out: that one more isn't counted locks nobody out who shouldn't be.
    fn has_room_for(&mut self, uid: u32, now: Duration) -> bool {
        let own = self.entries.keys().filter(|key| key.uid == uid).count();
        if own < MAX_OF_ONE && self.entries.len() < MAX_KEYS {
            return true;
        }
        let goes =
            |(key, entry): &(&Key, &Entry)| entry.left(now).is_none() && (own < MAX_OF_ONE || key.uid == uid);
        let oldest = self.entries.iter().filter(goes).min_by_key(|(_, entry)| entry.latest());
        let oldest = oldest.map(|(key, _)| key.clone());
        oldest.is_some_and(|oldest| self.entries.remove(&oldest).is_some())
    }

    /// Lifts what somebody is locked out by: that of one unit, of none (`Some(None)`), or of all of a user's; how many there were.
    pub fn lift(&mut self, uid: u32, unit: Option<Option<&str>>, now: Duration) -> usize {
        let meant = |key: &Key| key.uid == uid && unit.is_none_or(|unit| key.unit.as_deref() == unit);
        let locked = self.entries.iter().filter(|(key, entry)| meant(key) && entry.left(now).is_some());
        let count = locked.count();
        self.entries.retain(|key, _| !meant(key));
        count
    }

    /// Who is locked out, by uid and unit.
    #[must_use]
    pub fn all(&self, now: Duration) -> Vec<Locked> {
        let locked = self.entries.iter().filter_map(|(key, entry)| {
            Some(Locked { uid: key.uid, unit: key.unit.clone(), left: entry.left(now)? })
        });
        let mut all: Vec<_> = locked.collect();
        all.sort_by(|one, other| (one.uid, &one.unit).cmp(&(other.uid, &other.unit)));
        all
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, proptest};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn times(lockout: &mut Lockout, who: (u32, Option<&str>), at: Duration, count: usize) -> bool {
        (0..count).fold(false, |locked, _| lockout.refused(who.0, who.1, at) || locked)
    }

    #[test]
    fn who_is_locked_out_in_as_many_units_as_are_counted_is_in_all_others() {
        let mut lockout = Lockout::default();
        for number in 0..MAX_OF_ONE {
            assert_eq!(lockout.left(1, Some("another"), MINUTE), None);
            assert!(times(&mut lockout, (1, Some(&format!("unit-{number}"))), MINUTE, 5));
        }
        assert!(lockout.left(1, Some("another"), MINUTE).is_some());
        assert_eq!(lockout.left(2, Some("another"), MINUTE), None);
        lockout.lift(1, Some(Some("unit-0")), MINUTE);
        assert_eq!(lockout.left(1, Some("another"), MINUTE), None);
    }

    #[test]
    fn five_in_five_minutes_lock_one_unit_out_for_thirty_and_nobody_else() {
        let mut lockout = Lockout::default();
        assert!(!times(&mut lockout, (7, Some("agent")), MINUTE, 4));
        assert_eq!(lockout.left(7, Some("agent"), MINUTE), None);
        assert!(times(&mut lockout, (7, Some("agent")), 2 * MINUTE, 1));
        assert_eq!(lockout.left(7, Some("agent"), 3 * MINUTE), Some(29 * MINUTE));
        for (uid, unit) in [(7, None), (7, Some("")), (7, Some("other")), (8, Some("agent"))] {
            assert_eq!(lockout.left(uid, unit, 3 * MINUTE), None, "{uid} {unit:?}");
        }
        assert_eq!(lockout.all(3 * MINUTE).len(), 1);
        // To the nanosecond, and then he begins anew.
        let end = 32 * MINUTE;
        assert_eq!(
            lockout.left(7, Some("agent"), end - Duration::from_nanos(1)),
            Some(Duration::from_nanos(1))
        );
        assert_eq!(lockout.left(7, Some("agent"), end), None);
        assert!(!times(&mut lockout, (7, Some("agent")), end, 4));
        assert!(lockout.all(end).is_empty());
    }

    #[test]
    fn refusals_that_are_longer_ago_dont_count_and_neither_does_any_while_locked_out() {
        let mut lockout = Lockout::default();
        times(&mut lockout, (7, None), MINUTE, 4);
        assert!(!times(&mut lockout, (7, None), 6 * MINUTE, 4));
        assert!(times(&mut lockout, (7, None), 6 * MINUTE, 1));
        times(&mut lockout, (7, None), 20 * MINUTE, 100);
        assert_eq!(lockout.left(7, None, 20 * MINUTE), Some(16 * MINUTE));
    }

    #[test]
    fn what_is_lifted_is_lifted_for_whom_it_is_meant() {
        let mut lockout = Lockout::default();
        for unit in [None, Some("a"), Some("b")] {
            times(&mut lockout, (7, unit), MINUTE, 5);
        }
        times(&mut lockout, (8, None), MINUTE, 5);
        assert_eq!(lockout.lift(7, Some(Some("a")), MINUTE), 1);
        assert_eq!(lockout.lift(7, Some(Some("a")), MINUTE), 0);
        assert_eq!(lockout.lift(7, Some(None), MINUTE), 1);
        assert_eq!(lockout.lift(7, None, MINUTE), 1);
        assert_eq!(lockout.all(MINUTE).len(), 1);
    }

    #[test]
    fn who_has_many_units_pushes_out_his_own_and_nobody_who_is_locked_out() {
        let mut lockout = Lockout::default();
        times(&mut lockout, (8, None), MINUTE, 4);
        times(&mut lockout, (7, Some("locked")), MINUTE, 5);
        for unit in 0..10 * MAX_OF_ONE {
            lockout.refused(7, Some(&unit.to_string()), 2 * MINUTE);
        }
        assert_eq!(lockout.entries.len(), MAX_OF_ONE + 1);
        assert!(lockout.left(7, Some("locked"), 2 * MINUTE).is_some());
        assert!(times(&mut lockout, (8, None), 2 * MINUTE, 1), "another's were forgotten for it");
    }

    proptest! {
        #[test]
        fn nobody_is_locked_out_by_less_than_it_takes_and_the_table_is_bounded(
            history in prop::collection::vec((0..3_u32, 0..3_usize, 0..120_u64), 0..200),
        ) {
            let settings = Settings { refusals: 3, within: MINUTE, lasts: 2 * MINUTE };
            let mut lockout = Lockout::default();
            lockout.set(settings);
            let mut now = Duration::ZERO;
            let mut counted: HashMap<(u32, usize), Vec<Duration>> = HashMap::new();
            for (uid, unit, later) in history {
                now += Duration::from_secs(later);
                let name = unit.to_string();
                let was_locked = lockout.left(uid, Some(&name), now).is_some();
                let locks = lockout.refused(uid, Some(&name), now);
                let known = counted.entry((uid, unit)).or_default();
                if !was_locked {
                    known.push(now);
                    known.retain(|at| now - *at < settings.within);
                }
                proptest::prop_assert_eq!(locks, !was_locked && known.len() == 3);
                if locks {
                    known.clear();
                    proptest::prop_assert_eq!(lockout.left(uid, Some(&name), now), Some(settings.lasts));
                }
            }
            proptest::prop_assert!(lockout.entries.len() <= 9);
        }
    }
}
