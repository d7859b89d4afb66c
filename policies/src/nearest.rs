//! The nearest of the names there are, when one is mistyped.

/// Names sorted by likeness to `wanted`, the nearest first; equals in their own order.
#[must_use]
pub fn nearest_first<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = bounded(wanted);
    let mut scored: Vec<(usize, &str)> =
        names.into_iter().map(|name| (strsim::damerau_levenshtein(wanted, name), name)).collect();
    scored.sort_by_key(|(distance, _)| *distance);
    scored.into_iter().map(|(_, name)| name).collect()
}

/// The nearest name, if it is near enough that it was probably meant.
#[must_use]
pub fn probably_meant<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let best = nearest_first(wanted, names).into_iter().next()?;
    let bound = (wanted.chars().count() / 3).max(2);
    (strsim::damerau_levenshtein(bounded(wanted), best) <= bound).then_some(best)
}

/// The comparison is quadratic: what is longer than any name of ours is compared by its beginning.
fn bounded(text: &str) -> &str {
    const LONGEST: usize = 128;
    match text.char_indices().nth(LONGEST) {
        Some((offset, _)) => &text[..offset],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_name_comes_first_and_far_ones_are_not_suggested() {
        let names = ["strict", "default", "build"];
        assert_eq!(nearest_first("defualt", names)[0], "default");
        assert_eq!(probably_meant("wal-time", ["wall-time", "cpu-time"]), Some("wall-time"));
        assert_eq!(probably_meant("entirely-else", names), None);
        assert_eq!(nearest_first(&"x".repeat(1 << 20), names).len(), 3);
    }
}
