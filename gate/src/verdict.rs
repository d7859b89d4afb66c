//! What a stage says to what it doesn't refuse: it passes, or somebody is asked first.
//!
//! A stage can't let something pass that somebody has to be asked about by leaving a field alone: that there is a question is a
//! value of its own, which whoever calls the row has to take apart.

/// What a stage, or the whole row, says to what isn't refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "what somebody has to be asked about isn't permitted yet"]
pub enum Verdict {
    /// It passes.
    Pass,
    /// It passes once somebody has approved it.
    Ask(Ask),
}

/// Why somebody is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ask {
    /// All that speaks for asking, in the order of the stages.
    pub because: Vec<Factor>,
    /// The sum of what factors are worth.
    pub score: u32,
}

/// One reason to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Factor {
    /// The rule's name or place.
    pub name: String,
    /// What it's worth; `None`: it asks by itself, whatever others are worth.
    pub score: Option<u32>,
    /// Why, for a person: an operator's words.
    pub reason: String,
}

/// `deploys (+60): it changes what customers see`.
impl core::fmt::Display for Factor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.score {
            Some(score) => write!(f, "{} (+{score}): {}", self.name, self.reason),
            None => write!(f, "{}: {}", self.name, self.reason),
        }
    }
}

impl Ask {
    /// For one reason that asks by itself.
    #[must_use]
    pub fn by(name: impl Into<String>, reason: impl Into<String>) -> Self {
        let factor = Factor { name: name.into(), score: None, reason: reason.into() };
        Self { because: vec![factor], score: 0 }
    }
}

impl Verdict {
    /// What holds where both hold: somebody is asked if either asks, and told the reasons of both.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Ask(mut one), Self::Ask(other)) => {
                one.because.extend(other.because);
                one.score = one.score.saturating_add(other.score);
                Self::Ask(one)
            }
            (Self::Ask(ask), Self::Pass) | (Self::Pass, Self::Ask(ask)) => Self::Ask(ask),
            (Self::Pass, Self::Pass) => Self::Pass,
        }
    }

    /// Whether nobody has to be asked.
    #[must_use]
    pub fn is_pass(&self) -> bool {
        matches!(self, Self::Pass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_never_outvoted_and_all_reasons_are_kept_in_their_order() {
        let ask = |name: &str| Verdict::Ask(Ask::by(name, "x"));
        assert_eq!(Verdict::Pass.and(Verdict::Pass), Verdict::Pass);
        assert_eq!(Verdict::Pass.and(ask("a")), ask("a"));
        assert_eq!(ask("a").and(Verdict::Pass), ask("a"));
        let Verdict::Ask(both) = ask("a").and(ask("b")) else { panic!("nobody is asked") };
        let names: Vec<_> = both.because.iter().map(|factor| factor.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn a_score_doesnt_wrap() {
        let ask = || Verdict::Ask(Ask { because: Vec::new(), score: u32::MAX - 1 });
        assert_eq!(ask().and(ask()), Verdict::Ask(Ask { because: Vec::new(), score: u32::MAX }));
    }
}
