//! Naming something by its id on the command line: a part of the beginning or end that only one has.

use crate::error::CliError;
use crate::escape;

/// The shortest part of an id that may stand for it.
pub(crate) const SHORTEST: usize = 4;

/// The one of these that is meant; `None`: none of them.
///
/// # Errors
/// [`CliError::Asked`]: it's too short, or could be several.
pub(crate) fn one_of<'a, T>(
    text: &str,
    all: &'a [T],
    id: impl Fn(&T) -> String,
) -> Result<Option<&'a T>, CliError> {
    let shown = escape::line(text.as_bytes());
    if text.len() < SHORTEST {
        return Err(CliError::Asked(format!(
            "{shown:?} is too short for an id: {SHORTEST} characters at least"
        )));
    }
    let meant = |one: &&T| {
        let id = id(one);
        id.starts_with(text) || id.ends_with(text)
    };
    match all.iter().filter(meant).collect::<Vec<_>>()[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        ref several => {
            let ids: Vec<_> = several.iter().map(|one| id(one)).collect();
            Err(CliError::Asked(format!("{shown:?} could be any of {}", ids.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_part_that_one_has_names_it() {
        let all = ["0190-aa01".to_owned(), "0190-bb01".to_owned()];
        let find = |text: &str| one_of(text, &all, String::clone);
        assert_eq!(find("aa01").unwrap(), Some(&all[0]));
        assert_eq!(find(&all[1]).unwrap(), Some(&all[1]));
        assert_eq!(find("cc01").unwrap(), None);
        for (text, says) in [("0190", "could be any of"), ("a01", "too short"), ("", "too short")] {
            let error = find(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
