//! How fast limits go: a clock that all cells are charged by, which goes slower while the machine is busy.
//!
//! ```text
//! share of its full pace:  ceiling ──under pressure: × 3/4 a second──> floor
//!                             ^────────calm: + 1/20 of the way a second────┘
//! ```
//!
//! That is additive increase and multiplicative decrease (Chiu and Jain, 1989), in steps at whole seconds of uptime, so that
//! when a clock will have come to a time can be worked out, and doesn't depend on how often anybody has looked.

use core::time::Duration;

use crate::asked::Load;

/// A whole pace, in millionths.
const WHOLE: u32 = 1_000_000;
/// Steps are taken so often, in nanoseconds.
const STEP: u64 = 1_000_000_000;
/// So many steps from the floor to the ceiling.
const STEPS_UP: u32 = 20;
/// The lowest floor and the highest ceiling, in hundredths.
pub(super) const PERCENT: (u32, u32) = (1, 1_000);

/// A time by the pace's clock, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Virtual(pub(super) u64);

/// When limits move, and how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adaptive {
    /// Pressure begins at so many hundredths of time in which something waited for a processor.
    pub cpu: Option<u32>,
    /// The same of memory.
    pub memory: Option<u32>,
    /// Pressure begins at so many runs.
    pub runs: Option<u32>,
    /// The least that is left of limits, in hundredths: 1 to 1,000, and not over the ceiling.
    pub floor: u32,
    /// The most that they grow to.
    pub ceiling: u32,
}

impl Default for Adaptive {
    /// Limits that don't move.
    fn default() -> Self {
        Self { cpu: None, memory: None, runs: None, floor: 100, ceiling: 100 }
    }
}

/// How busy the machine is, for limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// All that is looked at is below three quarters of its threshold: limits grow.
    Calm,
    /// Neither, or not known: limits stay where they are.
    Between,
    /// Something has reached its threshold: limits shrink.
    High,
}

impl Adaptive {
    /// What a load means.
    #[must_use]
    pub fn pressure(&self, load: &Load) -> Pressure {
        let percent = |share: Option<f64>| share.map(|share| share * 100.0);
        let looked_at = [
            (self.cpu, percent(load.cpu)),
            (self.memory, percent(load.memory)),
            (self.runs, Some(f64::from(load.runs))),
        ];
        let mut calm = true;
        for (threshold, found) in looked_at {
            let Some(threshold) = threshold.map(f64::from) else { continue };
            match found {
                Some(found) if found >= threshold => return Pressure::High,
                Some(found) if found < threshold * 0.75 => {}
                _ => calm = false,
            }
        }
        if calm { Pressure::Calm } else { Pressure::Between }
    }

    fn bounds(&self) -> (u32, u32) {
        let millionths = |percent: u32| percent.clamp(PERCENT.0, PERCENT.1) * (WHOLE / 100);
        let ceiling = millionths(self.ceiling);
        (millionths(self.floor).min(ceiling), ceiling)
    }

    fn step(&self, share: u32, pressure: Pressure) -> u32 {
        let (floor, ceiling) = self.bounds();
        match pressure {
            Pressure::Between => share.clamp(floor, ceiling),
            Pressure::High => (share - share / 4).clamp(floor, ceiling),
            Pressure::Calm => {
                share.saturating_add(((ceiling - floor) / STEPS_UP).max(1)).clamp(floor, ceiling)
            }
        }
    }
}

/// The clock.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    adaptive: Adaptive,
    pressure: Pressure,
    /// Nanoseconds of uptime up to which it has gone.
    at: u64,
    /// Millionths of nanoseconds that it has gone.
    gone: u128,
    /// Of its whole pace, in millionths; never 0.
    share: u32,
}

impl Pace {
    /// At its ceiling.
    pub(super) fn new(adaptive: Adaptive) -> Self {
        let share = adaptive.bounds().1;
        Self { adaptive, pressure: Pressure::Between, at: 0, gone: 0, share }
    }

    /// The same clock with other bounds, which hold at once.
    pub(super) fn adapt(&mut self, adaptive: Adaptive) {
        let (floor, ceiling) = adaptive.bounds();
        self.share = self.share.clamp(floor, ceiling);
        self.adaptive = adaptive;
    }

    /// Goes on to an uptime, as it was until then; from then on the machine is as busy as this. A time that has passed
    /// changes nothing.
    pub(super) fn observe(&mut self, uptime: Duration, load: &Load) -> Virtual {
        self.go_to(nanoseconds(uptime));
        self.pressure = self.adaptive.pressure(load);
        self.now()
    }

    pub(super) fn now(&self) -> Virtual {
        Virtual(u64::try_from(self.gone / u128::from(WHOLE)).unwrap_or(u64::MAX))
    }

    /// Its share of its whole pace, in millionths.
    pub(super) fn share(&self) -> u32 {
        self.share
    }

    pub(super) fn pressure(&self) -> Pressure {
        self.pressure
    }

    /// How long until it comes to a time, with the machine as busy as it is.
    pub(super) fn until(&self, when: Virtual) -> Duration {
        let wanted = u128::from(when.0) * u128::from(WHOLE);
        let mut ahead = self.clone();
        loop {
            let missing = wanted.saturating_sub(ahead.gone);
            let takes = u64::try_from(missing.div_ceil(u128::from(ahead.share))).unwrap_or(u64::MAX);
            if ahead.is_steady() || takes <= ahead.to_next_step() {
                return Duration::from_nanos((ahead.at - self.at).saturating_add(takes));
            }
            ahead.go_to(ahead.at + ahead.to_next_step());
        }
    }

    fn is_steady(&self) -> bool {
        self.adaptive.step(self.share, self.pressure) == self.share
    }

    fn to_next_step(&self) -> u64 {
        STEP - self.at % STEP
    }

    fn go_to(&mut self, to: u64) {
        while self.at < to {
            // Whole days may lie between two looks: without steps left to take they're one.
            let next = if self.is_steady() { to } else { to.min(self.at + self.to_next_step()) };
            self.gone += u128::from(next - self.at) * u128::from(self.share);
            self.at = next;
            if self.at.is_multiple_of(STEP) {
                self.share = self.adaptive.step(self.share, self.pressure);
            }
        }
    }
}

fn nanoseconds(uptime: Duration) -> u64 {
    u64::try_from(uptime.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn adaptive() -> impl Strategy<Value = Adaptive> {
        (1u32..=1_000, 1u32..=1_000).prop_map(|(one, other)| Adaptive {
            runs: Some(8),
            floor: one.min(other),
            ceiling: one.max(other),
            ..Adaptive::default()
        })
    }

    fn load(runs: u32) -> Load {
        Load { runs, ..Load::default() }
    }

    #[test]
    fn what_is_not_known_neither_shrinks_limits_nor_lets_them_grow() {
        let adaptive = Adaptive { cpu: Some(60), memory: Some(10), ..Adaptive::default() };
        let pressure = |cpu, memory| adaptive.pressure(&Load { cpu, memory, runs: u32::MAX });
        assert_eq!(pressure(Some(0.6), None), Pressure::High);
        assert_eq!(pressure(None, Some(0.5)), Pressure::High);
        assert_eq!(pressure(Some(0.1), Some(0.01)), Pressure::Calm);
        for (cpu, memory) in
            [(None, None), (Some(0.1), None), (Some(0.5), Some(0.0)), (Some(f64::NAN), Some(0.0))]
        {
            assert_eq!(pressure(cpu, memory), Pressure::Between, "{cpu:?} {memory:?}");
        }
    }

    #[test]
    fn from_ceiling_to_floor_in_seconds_and_back_in_twenty() {
        let mut pace = Pace::new(Adaptive { runs: Some(8), floor: 25, ..Adaptive::default() });
        pace.observe(Duration::ZERO, &load(8));
        let mut seen = Vec::new();
        for second in 1..=6 {
            pace.observe(Duration::from_secs(second), &load(8));
            seen.push(pace.share());
        }
        assert_eq!(seen, [750_000, 562_500, 421_875, 316_407, 250_000, 250_000]);
        pace.observe(Duration::from_secs(10), &load(0));
        pace.observe(Duration::from_secs(29), &load(0));
        assert_eq!(pace.share(), 962_500);
        pace.observe(Duration::from_secs(30), &load(0));
        assert_eq!(pace.share(), 1_000_000);
    }

    proptest! {
        /// Within its bounds always; under constant pressure it goes one way only, and comes to its end.
        #[test]
        fn the_pace_is_bounded_and_goes_one_way_while_the_pressure_is_the_same(
            adaptive in adaptive(),
            phases in proptest::collection::vec((0u32..12, 0u64..40_000_000_000), 1..12),
        ) {
            let mut pace = Pace::new(adaptive);
            let (floor, ceiling) = adaptive.bounds();
            let mut at = 0;
            for (runs, long) in phases {
                pace.observe(Duration::from_nanos(at), &load(runs));
                let mut last = pace.share();
                for part in 1..=8 {
                    pace.observe(Duration::from_nanos(at + long * part / 8), &load(runs));
                    let share = pace.share();
                    prop_assert!((floor..=ceiling).contains(&share));
                    match adaptive.pressure(&load(runs)) {
                        Pressure::High => prop_assert!(share <= last),
                        Pressure::Calm => prop_assert!(share >= last),
                        Pressure::Between => prop_assert_eq!(share, last),
                    }
                    last = share;
                }
                at += long;
            }
            pace.observe(Duration::from_nanos(at), &load(8));
            pace.observe(Duration::from_nanos(at + 40_000_000_000), &load(8));
            prop_assert_eq!(pace.share(), floor);
            pace.observe(Duration::from_nanos(at + 40_000_000_000), &load(0));
            pace.observe(Duration::from_nanos(at + 70_000_000_000), &load(0));
            prop_assert_eq!(pace.share(), ceiling);
        }

        /// Whoever looks at it in between changes nothing, and a time that has passed doesn't turn it back.
        #[test]
        fn how_often_it_is_looked_at_changes_nothing(
            adaptive in adaptive(),
            runs in 0u32..12,
            mut looks in proptest::collection::vec(0u64..30_000_000_000, 0..20),
        ) {
            let mut plain = Pace::new(adaptive);
            let mut watched = plain.clone();
            for pace in [&mut plain, &mut watched] {
                pace.observe(Duration::ZERO, &load(runs));
            }
            looks.sort_unstable();
            for look in looks {
                watched.observe(Duration::from_nanos(look), &load(runs));
                let now = watched.now();
                watched.observe(Duration::from_nanos(look / 2), &load(runs));
                prop_assert_eq!(watched.now(), now);
            }
            let end = Duration::from_secs(30);
            prop_assert_eq!(plain.observe(end, &load(runs)), watched.observe(end, &load(runs)));
        }

        /// To the nanosecond.
        #[test]
        fn when_it_comes_to_a_time_is_exact(
            adaptive in adaptive(),
            before in (0u32..12, 0u64..20_000_000_000),
            runs in 0u32..12,
            ahead in 1u64..200_000_000_000,
        ) {
            let mut pace = Pace::new(adaptive);
            pace.observe(Duration::ZERO, &load(before.0));
            let at = Duration::from_nanos(before.1);
            let when = Virtual(pace.observe(at, &load(runs)).0 + ahead);
            let wait = pace.until(when);
            prop_assert!(wait > Duration::ZERO);
            let mut early = pace.clone();
            prop_assert!(early.observe(at + wait - Duration::from_nanos(1), &load(runs)) < when);
            prop_assert!(pace.observe(at + wait, &load(runs)) >= when);
        }
    }
}
