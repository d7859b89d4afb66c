//! What is counted: of what there are rows, how runs end, and who refuses. Each is one list, whose words are names of columns in
//! the file, names in JSON and heads of the page: a new one is added at the end, with a step of the schema.

macro_rules! words {
    ($(#[doc = $about:literal])* $Type:ident { $($(#[doc = $doc:literal])* $Variant:ident => $word:literal),+ $(,)? }) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $Type {
            $($(#[doc = $doc])* $Variant,)+
        }

        impl $Type {
            /// All of them, in their order.
            pub const ALL: &[Self] = &[$(Self::$Variant),+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Its name.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$Variant => $word,)+
                }
            }

            /// The one of this name.
            #[must_use]
            pub fn of(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.word() == word)
            }

            /// Its place among all.
            #[must_use]
            pub const fn place(self) -> usize {
                self as usize
            }
        }
    };
}

words! {
    /// Of what there are rows.
    Kind {
        /// Tools that were called.
        Tool => "tool",
        /// Policies that runs were under, those of tools too.
        Policy => "policy",
        /// Who asked: users, by their uids.
        Principal => "principal",
    }
}

words! {
    /// How a run ended.
    Ending {
        /// By itself, and well.
        Ok => "ok",
        /// By itself, and not well, or by a signal that wasn't ours.
        Failed => "failed",
        /// We ended it: a time limit.
        TimedOut => "timed-out",
        /// Over its memory.
        Memory => "memory",
        /// Over its output.
        Output => "output",
        /// Over its processes.
        Processes => "processes",
        /// Somebody asked for that, or nobody was left to ask.
        Cancelled => "cancelled",
        /// A process of ours died, and we can't know.
        Lost => "lost",
        /// Its confinement couldn't be made, so its command wasn't started.
        NeverBegan => "never-began",
    }
}

words! {
    /// Who refused: a stage of the gate, or what lies around it.
    Stage {
        /// May they?
        Access => "access",
        /// How often?
        Rate => "rate",
        /// Does the tool work at all?
        Breaker => "breaker",
        /// Is the input valid?
        Validate => "validate",
        /// Has someone approved?
        Approve => "approve",
        /// Can it be recorded?
        Record => "record",
        /// Do request and policy fit, and this machine?
        Admission => "admission",
        /// Is there room, and does the daemon take runs?
        Queue => "queue",
        /// A stage that is newer than this list.
        Other => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_again_and_places_are_those_of_the_list() {
        for (at, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!((Kind::of(kind.word()), kind.place()), (Some(*kind), at));
        }
        for (at, ending) in Ending::ALL.iter().enumerate() {
            assert_eq!((Ending::of(ending.word()), ending.place()), (Some(*ending), at));
        }
        for (at, stage) in Stage::ALL.iter().enumerate() {
            assert_eq!((Stage::of(stage.word()), stage.place()), (Some(*stage), at));
        }
        assert_eq!(Stage::of("nobody"), None);
    }
}
