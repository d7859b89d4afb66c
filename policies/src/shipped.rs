//! The policies that come with the program, as text.

use crate::set::{Source, Trust};

const PROFILES: [(&str, &str); 6] = [
    ("strict", include_str!("../profiles/strict.toml")),
    ("default", include_str!("../profiles/default.toml")),
    ("build", include_str!("../profiles/build.toml")),
    ("loopback", include_str!("../profiles/loopback.toml")),
    ("moderate", include_str!("../profiles/moderate.toml")),
    ("minimal", include_str!("../profiles/minimal.toml")),
];

/// The shipped policies.
pub(crate) fn sources() -> Vec<Source> {
    let source = |(name, text): (&str, &str)| Source {
        name: name.to_owned(),
        file: format!("shipped/{name}.toml"),
        text: text.to_owned(),
        trust: Trust::Shipped,
    };
    PROFILES.into_iter().map(source).collect()
}
