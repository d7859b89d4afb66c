//! One question, and who has answered it.
//!
//! ```text
//! asked ──yes of somebody else, about this digest──> asked … needed of them ──> approved
//!   └──one no────────────────────────────────────────────────────────────────> refused
//! ```
//!
//! Units tell the asker from who answers only where somebody has said so, and only units that the system's manager has made: a unit
//! beneath a user's own manager is one that he makes himself, at will. Answers are counted by uid in any case: one person in two
//! units is one.
//!
//! What has no answer in time its owner refuses. One no is a no: who has a reason against it isn't outvoted by who hasn't seen it.

use super::settings::Settings;

/// Somebody who asks or answers, as the kernel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// His uid.
    pub uid: u32,
    /// The systemd unit that he is of; `None`: it isn't known.
    pub unit: Option<String>,
}

impl Person {
    /// Whether he can be told from who asks: by their uids, or where `own_unit` says so by their units, if both are the system's.
    fn is_another_than(&self, asker: &Self, own_unit: bool) -> bool {
        let units = || match (self.systems_unit(), asker.systems_unit()) {
            (Some(one), Some(other)) => one != other,
            _ => false,
        };
        self.uid != asker.uid || (own_unit && units())
    }

    /// His unit, if it isn't a user's own manager or of its making (`user@1000.service/x.service`).
    fn systems_unit(&self) -> Option<&str> {
        self.unit.as_deref().filter(|unit| !unit.starts_with("user@") && !unit.contains('/'))
    }
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    asker: Person,
    digest: [u8; 32],
    settings: Settings,
    yes: Vec<Person>,
}

/// How a question stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "what waits isn't approved"]
pub enum Standing {
    /// So many more have to say yes.
    Waits(u32),
    /// It may run.
    Approved,
    /// It may not.
    Refused,
}

/// Why an answer doesn't count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Barred {
    /// It's his own request.
    #[error("nobody approves what he has asked for himself")]
    Himself,
    /// It's about something else.
    #[error("the answer is about something else than what waits: its digest is another")]
    OtherDigest,
    /// He has said yes already, in whatever unit.
    #[error("this user has approved it already, and it takes others")]
    Already,
}

impl Question {
    /// Asked by somebody, about this.
    #[must_use]
    pub fn new(asker: Person, digest: [u8; 32], settings: Settings) -> Self {
        Self { asker, digest, settings, yes: Vec::new() }
    }

    /// What it is about.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Who has said yes.
    #[must_use]
    pub fn approvers(&self) -> &[Person] {
        &self.yes
    }

    /// Who asks.
    #[must_use]
    pub fn asker(&self) -> &Person {
        &self.asker
    }

    /// How many have said yes.
    #[must_use]
    pub fn yes(&self) -> u32 {
        u32::try_from(self.yes.len()).unwrap_or(u32::MAX)
    }

    /// How many have to.
    #[must_use]
    pub fn needed(&self) -> u32 {
        self.settings.needed.max(1)
    }

    /// Whether somebody could answer.
    ///
    /// # Errors
    /// Why not.
    pub fn may_answer(&self, who: &Person) -> Result<(), Barred> {
        if !who.is_another_than(&self.asker, self.settings.own_unit) {
            return Err(Barred::Himself);
        }
        if self.yes.iter().any(|one| one.uid == who.uid) {
            return Err(Barred::Already);
        }
        Ok(())
    }

    /// Takes an answer. `digest`: what it is about.
    ///
    /// # Errors
    /// It doesn't count.
    pub fn answer(&mut self, who: &Person, digest: [u8; 32], approve: bool) -> Result<Standing, Barred> {
        if digest != self.digest {
            return Err(Barred::OtherDigest);
        }
        match self.may_answer(who) {
            // Who has said yes may think better of it.
            Err(Barred::Already) if !approve => {}
            judged => judged?,
        }
        if !approve {
            return Ok(Standing::Refused);
        }
        self.yes.push(who.clone());
        let missing = self.needed().saturating_sub(self.yes());
        Ok(if missing == 0 { Standing::Approved } else { Standing::Waits(missing) })
    }
}
