//! Texts of policies. Those of shipped policies stay where the build has put them: hundreds are handled by every run that
//! reads its policy, and none of them is copied or counted.

use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::ops::Deref;
use std::sync::Arc;

/// A text that a policy says, or a file's name: the same text is the same, wherever it stands.
#[derive(Clone)]
pub enum Said {
    /// The program's own.
    Built(&'static str),
    /// Read from a file.
    Read(Arc<str>),
}

impl Deref for Said {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Built(text) => text,
            Self::Read(text) => text,
        }
    }
}

impl From<&str> for Said {
    fn from(text: &str) -> Self {
        Self::Read(text.into())
    }
}

impl From<String> for Said {
    fn from(text: String) -> Self {
        Self::Read(text.into())
    }
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl PartialEq for Said {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Said {}

impl PartialOrd for Said {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Said {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl Hash for Said {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_text_is_the_same_wherever_it_stands() {
        let (built, read) = (Said::Built("a"), Said::from("a"));
        assert_eq!(built, read);
        assert_eq!(built.cmp(&read), Ordering::Equal);
        assert!(Said::Built("a") < Said::from("b"));
        assert!(HashSet::from([built.clone()]).contains(&read));
        assert_eq!(format!("{built:?} {built}"), format!("{read:?} {read}"));
    }
}
