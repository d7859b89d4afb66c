//! `stockade doctor --deep`: every canary in every place that runs come from, each by itself.
//!
//! A column is a place: a level under the doctor's own policies, the policy `default` as it is here, and, where there is a
//! daemon, its `default` twice over its socket, for the second run may come from a parked worker. A row is a canary. What a
//! place doesn't promise isn't judged; what could not be tried is said, and proves nothing.

use serde_json::{Value, json};
use stockade_client::{Client, Request};
use stockade_protocol::client::ExecEvent;
use stockade_protocol::outcome::Outcome;
use stockade_protocol::spec::Level;

use super::{Examined, Ground, Ran, Refusal, Results, refusal};
use crate::canary::deep::DEEP;
use crate::canary::{ALL, Canary, Must};
use crate::color::Paint;
use crate::error::{CliError, chain};
use crate::place::{self, Found};
use crate::trial::Trial;
use crate::{escape, follow, table};

/// Canaries that only the doctor's own policies promise: of a path that they deny, and of a limit that they set.
const OF_OUR_POLICIES: [&str; 4] = ["write-denied", "move-denied", "remove-denied", "many-descriptors"];
/// The policy that is tried as it is.
const DEFAULT: &str = "default";
/// Runs over a daemon's socket.
const OVER_SOCKET: [&str; 2] = ["daemon", "again"];

/// What became of a canary in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    /// It must fail, and did.
    Stopped,
    /// It must succeed, and did.
    Works,
    /// It must fail, and didn't.
    GotThrough,
    /// It must succeed, and didn't.
    Refused,
    /// The place doesn't promise anything of it.
    NotPromised,
    /// Without confinement it fails, too.
    Unknown,
    /// There was no run, or no answer to this one.
    NotTried,
}

impl Cell {
    fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Works => "works",
            Self::GotThrough => "GOT THROUGH",
            Self::Refused => "REFUSED",
            Self::NotPromised => "-",
            Self::Unknown => "unknown",
            Self::NotTried => "not tried",
        }
    }

    fn is_broken(self) -> bool {
        matches!(self, Self::GotThrough | Self::Refused)
    }
}

/// A place that a run came from.
#[derive(Debug)]
struct Place {
    name: &'static str,
    ran: Result<(Level, Results), Refusal>,
    /// Whether it's under a policy of the doctor's.
    ours: bool,
}

/// All canaries in all places.
#[derive(Debug)]
pub(super) struct Deep {
    places: Vec<Place>,
    rows: Vec<(&'static Canary, Vec<Cell>)>,
}

impl Deep {
    /// Tries those that weren't yet, over a daemon's socket, too, where there is one.
    ///
    /// # Errors
    /// A socket that is there, or was named, and can't be used.
    pub(super) fn of(
        examined: &Examined,
        ground: &Ground,
        socket: Option<&std::path::Path>,
    ) -> Result<Self, CliError> {
        let of_level = |seen: &super::Seen| Place {
            name: follow::level(seen.level),
            ran: seen.canaries.clone().map(|results| (seen.level, results)),
            ours: true,
        };
        let mut places: Vec<Place> = examined.seen.iter().map(of_level).collect();
        places.push(Place { name: DEFAULT, ran: leveled(examined.here.clone()), ours: false });
        if let Found::Daemon(client, path) = place::look(socket)? {
            let mut client = place::greeted(client, path)?;
            for name in OVER_SOCKET {
                places.push(Place { name, ran: leveled(over(&mut client, ground)?), ours: false });
            }
        }
        let mut control = examined.control.clone();
        for canary in DEEP {
            control.insert(canary.name.to_owned(), canary.attempt(&ground.place).unwrap_or(0));
        }
        let row = |canary: &'static Canary| {
            (canary, places.iter().map(|place| place.judge(canary, &control)).collect())
        };
        Ok(Self { rows: ALL.iter().chain(DEEP).map(row).collect(), places })
    }

    /// Whether nothing that was promised is broken.
    pub(super) fn holds(&self) -> bool {
        !self.rows.iter().any(|(_, cells)| cells.iter().any(|cell| cell.is_broken()))
    }

    pub(super) fn json(&self) -> Value {
        let row = |(canary, cells): &(&Canary, Vec<Cell>)| {
            let places = self.places.iter().zip(cells);
            let places: serde_json::Map<_, _> = places
                .map(|(place, cell)| (place.name.to_owned(), cell.word().to_lowercase().into()))
                .collect();
            json!({
                "name": canary.name,
                "what": canary.what,
                "layer": format!("{:?}", canary.layer).to_lowercase(),
                "must": if canary.must == Must::Fail { "fail" } else { "succeed" },
                "places": places,
            })
        };
        self.rows.iter().map(row).collect()
    }

    /// The table, and what there was no run for.
    pub(super) fn shown(&self, paint: Paint) -> String {
        const COLUMNS: usize = 8;
        let line = |first: [String; 2], cells: Vec<String>| {
            let mut row = [const { String::new() }; COLUMNS];
            row.iter_mut().zip(first.into_iter().chain(cells)).for_each(|(cell, word)| *cell = word);
            row
        };
        let head: Vec<String> = self.places.iter().map(|place| place.name.to_uppercase()).collect();
        let mut rows = vec![line(["CANARY".into(), "LAYER".into()], head)];
        for (canary, cells) in &self.rows {
            let layer = format!("{:?}", canary.layer).to_lowercase();
            let cells = cells.iter().map(|cell| cell.word().to_owned()).collect();
            rows.push(line([canary.name.into(), layer], cells));
        }
        let mut text = table::columns(&rows, |row, _, cell| match (row, cell) {
            (0, cell) => paint.bold(cell),
            (_, "stopped" | "works") => paint.green(cell),
            (_, "GOT THROUGH" | "REFUSED") => paint.red(cell),
            (_, "unknown" | "not tried") => paint.yellow(cell),
            _ => cell.to_owned(),
        });
        for (canary, cells) in self.rows.iter().filter(|(_, cells)| cells.iter().any(|cell| cell.is_broken()))
        {
            let could = if cells.contains(&Cell::GotThrough) { "could" } else { "could not" };
            text.push_str(&format!("{}: a run {could} {}\n", paint.red(canary.name), canary.what));
        }
        for place in &self.places {
            if let Err(refusal) = &place.ran {
                let why = escape::line(refusal.why.as_bytes());
                text.push_str(&format!("{}: no run: {why}\n", paint.yellow(place.name)));
            }
        }
        text
    }
}

impl Place {
    fn judge(&self, canary: &Canary, control: &Results) -> Cell {
        let Ok((level, results)) = &self.ran else { return Cell::NotTried };
        if !canary.levels.contains(level) || (!self.ours && OF_OUR_POLICIES.contains(&canary.name)) {
            return Cell::NotPromised;
        }
        match (canary.must, results.get(canary.name)) {
            (_, None) => Cell::NotTried,
            (Must::Fail, Some(0)) => Cell::GotThrough,
            (Must::Fail, Some(_)) if control.get(canary.name) != Some(&0) => Cell::Unknown,
            (Must::Fail, Some(_)) => Cell::Stopped,
            (Must::Succeed, Some(0)) => Cell::Works,
            (Must::Succeed, Some(_)) => Cell::Refused,
        }
    }
}

/// A run's canaries with the level that its report says.
fn leveled(ran: Result<Ran, Refusal>) -> Result<(Level, Results), Refusal> {
    let Ran { results, held } = ran?;
    match held {
        Some(held) => Ok((held.level, results)),
        None => Err(Refusal { stage: None, why: "nobody said what held".into(), remedy: None }),
    }
}

/// All canaries in a run of the daemon's. The outer error is ours.
fn over(client: &mut Client, ground: &Ground) -> Result<Result<Ran, Refusal>, CliError> {
    let request = ground.request(DEFAULT, &ground.place.words())?;
    Ok(follow_run(client, &request).and_then(|trial| match refusal(&trial) {
        Some(refusal) => Err(refusal),
        None => Ok(Ran::of(trial)),
    }))
}

fn follow_run(client: &mut Client, request: &Request) -> Result<Trial, Refusal> {
    let said = |error: &dyn core::error::Error| Refusal { stage: None, why: chain(error), remedy: None };
    let exec_id = client.exec(request).map_err(|error| said(&error))?;
    let (mut confinement, mut output) = (None, Vec::new());
    for event in client.events(exec_id) {
        match event.map_err(|error| said(&error))?.event {
            ExecEvent::Started { confinement: held } => confinement = Some(held),
            ExecEvent::Output { bytes, .. } => output.extend_from_slice(&bytes),
            ExecEvent::Exited { outcome, .. } => return Ok(Trial::Ended { outcome, confinement, output }),
            _ => {}
        }
    }
    let outcome = Outcome::Lost { reason: "the daemon said nothing of its end".into() };
    Ok(Trial::Ended { outcome, confinement, output })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn all(of: impl Fn(&Canary) -> i32) -> Results {
        ALL.iter().chain(DEEP).map(|canary| (canary.name.to_owned(), of(canary))).collect()
    }

    fn place(results: Results, ours: bool) -> Place {
        Place { name: "strict", ran: Ok((Level::Strict, results)), ours }
    }

    #[test]
    fn what_holds_is_stopped_and_what_must_work_works() {
        let place = place(all(|canary| i32::from(canary.must == Must::Fail)), true);
        for canary in ALL.iter().chain(DEEP).filter(|canary| canary.levels.contains(&Level::Strict)) {
            let expected = if canary.must == Must::Fail { Cell::Stopped } else { Cell::Works };
            assert_eq!(place.judge(canary, &all(|_| 0)), expected, "{}", canary.name);
        }
    }

    #[test]
    fn a_broken_promise_a_missing_answer_and_a_vain_proof_are_told_apart() {
        let canary = &DEEP[0];
        let of = |errno: i32| BTreeMap::from([(canary.name.to_owned(), errno)]);
        let judge = |results: Results, control: Results| place(results, true).judge(canary, &control);
        assert_eq!(judge(of(0), of(0)), Cell::GotThrough);
        assert_eq!(judge(BTreeMap::new(), of(0)), Cell::NotTried);
        assert_eq!(judge(of(1), of(1)), Cell::Unknown);
        let succeed = DEEP.iter().find(|canary| canary.must == Must::Succeed).unwrap();
        let refused = BTreeMap::from([(succeed.name.to_owned(), 1)]);
        assert_eq!(place(refused, true).judge(succeed, &BTreeMap::new()), Cell::Refused);
        assert!(Cell::GotThrough.is_broken() && Cell::Refused.is_broken());
        assert!(!Cell::Unknown.is_broken() && !Cell::NotTried.is_broken());
    }

    #[test]
    fn a_policy_that_is_not_ours_promises_nothing_of_what_ours_deny() {
        for name in OF_OUR_POLICIES {
            let canary = ALL.iter().chain(DEEP).find(|canary| canary.name == name).unwrap();
            assert_eq!(place(all(|_| 0), false).judge(canary, &all(|_| 0)), Cell::NotPromised);
            assert_eq!(place(all(|_| 0), true).judge(canary, &all(|_| 0)), Cell::GotThrough);
        }
    }
}
