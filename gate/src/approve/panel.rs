//! What reviewer programs say of one question, and what they make of it together.
//!
//! ```text
//! asked ──yes, about this digest──> asked … needed of them ──> lets it through
//!   ├──no, or nothing: an end without an answer, another digest, no end in time──> asked
//!   └──too few are left for as many yes as it takes ─────────> refuses
//! ```
//!
//! Of a program only a yes counts, and only the first thing that it says. So nothing that one may do by mistake (end, hang, print
//! something else) is better for an asker than a no, and the order of answers makes no difference: there are as many yes in the end
//! as are needed, or there aren't.

use serde::Deserialize;

use crate::tools::unhex;

/// The longest answer that is read, in bytes.
pub const MAX_ANSWER: usize = 4 * 1024;
/// The longest reason that is kept of one, in bytes.
pub const MAX_REASON: usize = 512;

/// What a program has printed, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What it is about.
    digest: [u8; 32],
    /// Whether that may run.
    approve: bool,
    /// Why. The program's words, in which an asker's may stand.
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Printed {
    digest: String,
    approve: bool,
    reason: String,
}

impl Answer {
    /// Reads one JSON object, and nothing beside it.
    ///
    /// # Errors
    /// It's none, or too long.
    pub fn read(printed: &[u8]) -> Result<Self, String> {
        if printed.len() > MAX_ANSWER {
            return Err(format!("it has printed more than {MAX_ANSWER} bytes"));
        }
        let Printed { digest, approve, mut reason } = serde_json::from_slice(printed)
            .map_err(|error| format!("what it has printed is no answer: {error}"))?;
        let digest = unhex(&digest).ok_or("its `digest` isn't the 64 hexadecimal digits of one")?;
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        Ok(Self { digest, approve, reason })
    }
}

/// How far one reviewer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opinion {
    /// It hasn't said anything yet.
    Open,
    /// It may run.
    Yes,
    /// It may not.
    No,
    /// It will say nothing that counts.
    Nothing,
}

/// One reviewer of a question.
#[derive(Debug, Clone)]
pub struct Seat {
    name: String,
    opinion: Opinion,
    reason: String,
}

impl Seat {
    /// The reviewer's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has said.
    #[must_use]
    pub fn opinion(&self) -> Opinion {
        self.opinion
    }

    /// Why, in its words, or in ours why it hasn't said anything that counts.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// How a panel stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "what waits isn't let through"]
pub enum Sitting {
    /// Some have yet to answer.
    Waits,
    /// Enough have said yes.
    LetsThrough,
    /// Enough can't say yes any more.
    Refuses,
}

/// The reviewers of one file, about one question.
#[derive(Debug, Clone)]
pub struct Panel {
    digest: [u8; 32],
    needed: u32,
    seats: Vec<Seat>,
}

impl Panel {
    /// About this. `needed`: so many have to say yes, and never fewer than one.
    #[must_use]
    pub fn new(digest: [u8; 32], needed: u32, names: impl IntoIterator<Item = String>) -> Self {
        let seat = |name| Seat { name, opinion: Opinion::Open, reason: String::new() };
        Self { digest, needed: needed.max(1), seats: names.into_iter().map(seat).collect() }
    }

    /// How many have to say yes.
    #[must_use]
    pub fn needed(&self) -> u32 {
        self.needed
    }

    /// The reviewers, in the file's order.
    #[must_use]
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// How many have said yes.
    #[must_use]
    pub fn yes(&self) -> u32 {
        self.count(Opinion::Yes)
    }

    fn count(&self, opinion: Opinion) -> u32 {
        let count = self.seats.iter().filter(|seat| seat.opinion == opinion).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// How it stands.
    pub fn standing(&self) -> Sitting {
        match (self.yes(), self.count(Opinion::Open)) {
            (yes, _) if yes >= self.needed => Sitting::LetsThrough,
            (yes, open) if yes.saturating_add(open) < self.needed => Sitting::Refuses,
            _ => Sitting::Waits,
        }
    }

    /// Takes what one has said; its first word stands. `answer`: or why there is none.
    pub fn answer(&mut self, seat: usize, answer: Result<Answer, String>) -> Sitting {
        let is_about = |answer: &Answer| answer.digest == self.digest;
        let (opinion, reason) = match answer {
            Ok(answer) if !is_about(&answer) => {
                (Opinion::Nothing, "its answer is about something else: the digest is another".to_owned())
            }
            Ok(Answer { approve: true, reason, .. }) => (Opinion::Yes, reason),
            Ok(Answer { reason, .. }) => (Opinion::No, reason),
            Err(why) => (Opinion::Nothing, why),
        };
        if let Some(seat) = self.seats.get_mut(seat).filter(|seat| seat.opinion == Opinion::Open) {
            (seat.opinion, seat.reason) = (opinion, reason);
        }
        self.standing()
    }

    /// The time is over: who hasn't answered doesn't.
    pub fn late(&mut self) -> Sitting {
        for seat in 0..self.seats.len() {
            let _standing = self.answer(seat, Err("it hasn't answered in time".to_owned()));
        }
        self.standing()
    }
}
