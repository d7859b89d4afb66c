//! What a tool's file says to other parts: how much a run of it may take, how often it may be called, when it counts as broken.
//! Read here, obeyed by them.

use std::time::Duration;

use stockade_policies::amount::{SIZE_EXPECTED, Size, TIME_EXPECTED, Time};
use stockade_policies::reader::Section;
use stockade_policies::{Located, Mistake, Problem};
use stockade_protocol::client::Overrides;

/// The most calls a minute that can be said.
const MAX_RATE: u64 = 1_000_000;
/// The most failures or probes that can be said.
const MAX_FAILURES: u64 = 10_000;

/// How often one principal may call a tool: `[rate]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Calls a minute; 0: never.
    pub per_minute: u32,
    /// So many at once, before that counts. At least 1.
    pub burst: u32,
}

/// When a tool counts as broken: `[breaker]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    /// So many failures within the window.
    pub failures: u32,
    /// Milliseconds that a failure counts.
    pub window: Duration,
    /// How long it isn't called then.
    pub pause: Duration,
    /// How many calls at a time try it afterwards. At least 1.
    pub probes: u32,
}

/// Keys of `[limits]`.
pub(super) const LIMITS: [&str; 6] = ["wall-time", "cpu-time", "idle-time", "memory", "processes", "output"];
/// Keys of `[rate]`.
pub(super) const RATE: [&str; 2] = ["per-minute", "burst"];
/// Keys of `[breaker]`.
pub(super) const BREAKER: [&str; 4] = ["failures", "window", "pause", "probes"];

/// Takes values out of a table and keeps what is wrong with them.
pub(super) struct Taking<'a, 's> {
    pub(super) section: &'a Section<'s>,
    pub(super) mistakes: &'a mut Vec<Mistake>,
}

impl Taking<'_, '_> {
    pub(super) fn kept<T>(&mut self, read: Result<Option<Located<T>>, Mistake>) -> Option<Located<T>> {
        read.unwrap_or_else(|mistake| {
            self.mistakes.push(mistake);
            None
        })
    }

    fn number(&mut self, key: &str, lowest: u64, highest: u64) -> Option<u32> {
        let found = self.kept(self.section.number(key, lowest, highest))?;
        u32::try_from(found.value).ok()
    }

    fn time(&mut self, key: &str) -> Option<u64> {
        let some = |text: &str| match Time::parse(text)?.milliseconds() {
            0 => Err("no time at all".to_owned()),
            time => Ok(time),
        };
        Some(self.kept(self.section.text(key, TIME_EXPECTED, some))?.value)
    }

    fn size(&mut self, key: &str) -> Option<u64> {
        let some = |text: &str| match Size::parse(text)?.bytes() {
            0 => Err("nothing at all".to_owned()),
            bytes => Ok(bytes),
        };
        Some(self.kept(self.section.text(key, SIZE_EXPECTED, some))?.value)
    }

    /// What has to be there.
    fn needed<T>(&mut self, key: &str, found: Option<T>, expected: &str) -> Option<T> {
        if found.is_none() && self.section.at(key).is_none() {
            let at = self.section.start();
            let problem = Problem::Value {
                key: key.into(),
                reason: "it isn't there".into(),
                expected: expected.into(),
            };
            self.mistakes.push(Mistake::new(&at, problem));
        }
        found
    }
}

/// `[limits]`.
pub(super) fn limits(from: &mut Taking<'_, '_>) -> Option<Overrides> {
    Some(Overrides {
        wall_ms: from.time("wall-time"),
        cpu_ms: from.time("cpu-time"),
        idle_ms: from.time("idle-time"),
        memory: from.size("memory"),
        processes: from.kept(from.section.number("processes", 1, MAX_RATE)).map(|found| found.value),
        output: from.size("output"),
    })
}

/// `[rate]`.
pub(super) fn rate(from: &mut Taking<'_, '_>) -> Option<Rate> {
    let per_minute = from.number("per-minute", 0, MAX_RATE);
    let per_minute = from.needed("per-minute", per_minute, "calls a minute")?;
    Some(Rate { per_minute, burst: from.number("burst", 1, MAX_RATE).unwrap_or(1) })
}

/// `[breaker]`.
pub(super) fn breaker(from: &mut Taking<'_, '_>) -> Option<Breaker> {
    let failures = from.number("failures", 1, MAX_FAILURES);
    let failures = from.needed("failures", failures, "a whole number");
    let window = from.time("window");
    let window = from.needed("window", window, TIME_EXPECTED);
    let pause = from.time("pause");
    let pause = from.needed("pause", pause, TIME_EXPECTED);
    let probes = from.number("probes", 1, MAX_FAILURES).unwrap_or(1);
    let (failures, window, pause) =
        (failures?, Duration::from_millis(window?), Duration::from_millis(pause?));
    Some(Breaker { failures, window, pause, probes })
}
