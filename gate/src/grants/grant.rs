//! One grant: to whom, what, and how long.

use core::fmt;
use std::time::Duration;

use super::exactly::Digest;
use crate::asked::Principal;

/// The shortest time that a grant can be given for.
pub const SHORTEST: Duration = Duration::from_secs(1);
/// The longest.
pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// The most uses that can be counted: more are as good as any number.
pub const MAX_USES: u32 = 1_000_000;
/// The longest reason, in bytes.
pub const MAX_WHY: usize = 256;
/// The longest name of a policy or a tool, in bytes.
pub const MAX_NAME: usize = 128;
/// The longest name of a unit, in bytes: that of a user's has his manager's before it.
pub const MAX_UNIT: usize = 300;
/// The most bytes of exact arguments as they are shown: nobody gives what he can't read whole.
pub const MAX_SHOWN: usize = 4096;

/// Names one grant, or one request for one, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantId(pub [u8; 16]);

/// What two clocks say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Clocks {
    /// Since the machine was started, sleep included: never steps, and begins anew with each start.
    pub boot: Duration,
    /// Since 1970, by the calendar: somebody may set it.
    pub wall: Duration,
}

impl Clocks {
    /// So much later, on both.
    #[must_use]
    pub fn after(self, length: Duration) -> Self {
        Self { boot: self.boot.saturating_add(length), wall: self.wall.saturating_add(length) }
    }
}

/// Who is given something.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Whom {
    /// His uid.
    pub uid: u32,
    /// His systemd unit; empty: of none; none: whatever it is.
    pub unit: Option<String>,
}

impl Whom {
    /// Whether somebody is meant.
    #[must_use]
    pub fn is(&self, principal: &Principal) -> bool {
        let unit = principal.unit.as_deref().unwrap_or_default();
        self.uid == principal.uid && self.unit.as_deref().is_none_or(|own| own == unit)
    }

    /// Whether somebody could give it to himself. Units of one user are different principals, where both are known. Root could write
    /// the rules, too.
    #[must_use]
    pub fn is_himself(&self, giver: &Principal) -> bool {
        let known = |unit: Option<&str>| unit.filter(|unit| !unit.is_empty()).map(ToOwned::to_owned);
        let (to, of) = (known(self.unit.as_deref()), known(giver.unit.as_deref()));
        let are_two = to.is_some() && of.is_some() && to != of;
        giver.uid != 0 && self.uid == giver.uid && !are_two
    }
}

/// As the command line names him.
impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.unit {
            None => write!(f, "{}", self.uid),
            Some(unit) => write!(f, "{}+{unit}", self.uid),
        }
    }
}

/// What is given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// To run commands under this policy.
    Policy(String),
    /// To call this tool.
    Tool(String),
}

impl What {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Policy(name) | Self::Tool(name) => name,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(name) => write!(f, "policy {name}"),
            Self::Tool(name) => write!(f, "tool {name}"),
        }
    }
}

/// These arguments and no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exactly {
    /// By which they are known.
    pub digest: Digest,
    /// They, as they are shown.
    pub shown: String,
}

/// How often it can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uses {
    /// In all.
    pub of: u32,
    /// Yet.
    pub left: u32,
}

/// What is asked for, or given: all of a grant but who has it, by whom and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// What.
    pub what: What,
    /// With these arguments only.
    pub given: Option<Exactly>,
    /// For how long.
    pub length: Duration,
    /// How often; none: any number of times.
    pub uses: Option<u32>,
    /// Whether runs by it end with it.
    pub ends_runs: bool,
    /// The reason.
    pub why: String,
}

/// Why there can be no such grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadGrant {
    /// Its time.
    #[error("a grant lasts from 1 second to 24 hours, not {0:?}")]
    Length(Duration),
    /// Its uses.
    #[error("a grant has 1 to {MAX_USES} uses, not {0}; leave them out for any number")]
    Uses(u32),
    /// Its reason.
    #[error("a grant has a reason: 1 to {MAX_WHY} bytes of text without control characters")]
    Why,
    /// The name of a policy or a tool.
    #[error("nothing that can be granted is called so: a name has 1 to {MAX_NAME} letters, digits and `-_.`")]
    Name,
    /// A unit's name.
    #[error("no unit is called so: a name has up to {MAX_UNIT} bytes without control characters")]
    Unit,
    /// What is shown of arguments.
    #[error(
        "arguments that are granted exactly have up to {MAX_SHOWN} bytes as they are shown: nobody could read these whole"
    )]
    Shown,
}

fn is_plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

impl Terms {
    /// Whether a grant can be so.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), BadGrant> {
        let name = self.what.name();
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_of_name) {
            return Err(BadGrant::Name);
        }
        if !(SHORTEST..=LONGEST).contains(&self.length) {
            return Err(BadGrant::Length(self.length));
        }
        if let Some(uses) = self.uses.filter(|uses| !(1..=MAX_USES).contains(uses)) {
            return Err(BadGrant::Uses(uses));
        }
        if self.why.is_empty() || self.why.len() > MAX_WHY || !is_plain(&self.why) {
            return Err(BadGrant::Why);
        }
        let shown = self.given.as_ref().map_or("", |given| given.shown.as_str());
        if shown.len() > MAX_SHOWN || !is_plain(shown) { Err(BadGrant::Shown) } else { Ok(()) }
    }
}

/// More than the rules give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Its name.
    pub id: GrantId,
    /// Who has it.
    pub to: Whom,
    /// What.
    pub what: What,
    /// With these arguments only.
    pub given: Option<Exactly>,
    /// When it's over: when either clock says so.
    pub until: Clocks,
    /// For how long it was given.
    pub length: Duration,
    /// How often; none: any number of times.
    pub uses: Option<Uses>,
    /// Whether runs by it end with it.
    pub ends_runs: bool,
    /// Who gave it.
    pub by: u32,
    /// The reason.
    pub why: String,
}

impl Grant {
    /// A new one.
    ///
    /// # Errors
    /// There can be no such grant.
    pub fn new(id: GrantId, to: Whom, terms: Terms, by: u32, now: Clocks) -> Result<Self, BadGrant> {
        terms.check()?;
        if to.unit.as_deref().is_some_and(|unit| unit.len() > MAX_UNIT || !is_plain(unit)) {
            return Err(BadGrant::Unit);
        }
        let Terms { what, given, length, uses, ends_runs, why } = terms;
        let (until, uses) = (now.after(length), uses.map(|of| Uses { of, left: of }));
        Ok(Self { id, to, what, given, until, length, uses, ends_runs, by, why })
    }

    /// Whether it's over.
    #[must_use]
    pub fn is_over(&self, now: Clocks) -> bool {
        now.boot >= self.until.boot || now.wall >= self.until.wall
    }

    /// How long it lasts yet.
    #[must_use]
    pub fn left(&self, now: Clocks) -> Duration {
        let boot = self.until.boot.saturating_sub(now.boot);
        boot.min(self.until.wall.saturating_sub(now.wall))
    }

    /// As it holds for a daemon that finds it written down; `None`: it's over. Within one start of the machine both ends stand. In
    /// another one the calendar says what is left of it, and if that was set back, the latest time that was `seen` by it does. It's
    /// never more than was left by the other clock when that was seen last: of a machine whose calendar begins anew with each start,
    /// only what ran after that is had once more.
    #[must_use]
    pub fn resumed(mut self, is_same_boot: bool, now: Clocks, seen: Clocks) -> Option<Self> {
        if !is_same_boot {
            let left = self.until.wall.saturating_sub(now.wall.max(seen.wall));
            let left = left.min(self.until.boot.saturating_sub(seen.boot)).min(self.length);
            self.until.boot = now.boot.saturating_add(left);
        }
        Some(self).filter(|grant| !grant.is_over(now))
    }
}
