//! The words behind `stockade run`: what is parsed quickly is what clap parses; a command's own words are never ours.
//!
//! A zero byte parts them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use clap::Parser as _;

use crate::arguments::Arguments;
use crate::units;

pub(crate) fn run(data: &[u8]) {
    let words = data.split(|byte| *byte == 0).map(|word| OsStr::from_bytes(word).to_owned());
    let words: Vec<OsString> = core::iter::once(OsString::from("run")).chain(words).collect();
    let quickly = Arguments::parse_quickly(words.clone()).ok();
    let slowly = Arguments::try_parse_from(&words).ok();
    assert_eq!(format!("{quickly:?}"), format!("{slowly:?}"), "{words:?}");
    if let Some(arguments) = &quickly {
        assert!(!arguments.command.is_empty());
        // The command is the last words, as they came.
        assert!(words.ends_with(&arguments.command), "{words:?}: {arguments:?}");
        assert!(!(arguments.embedded && (arguments.detach || arguments.socket.is_some())));
        assert_eq!(arguments.demanded().len(), arguments.env.len());
        assert!(arguments.demanded().iter().all(|name| !name.is_empty() && !name.contains(&b'=')));
        let is_file = arguments.policy.contains('/') || arguments.policy.ends_with(".toml");
        assert_eq!(arguments.policy_file().is_some(), is_file);
    }
    words.iter().filter_map(|word| word.to_str()).for_each(amount);
}

/// An amount has a unit, is more than none, and is the same in the smallest one.
fn amount(word: &str) {
    for (amount, smallest) in [(units::time as fn(&str) -> Result<u64, String>, "ms"), (units::size, "B")] {
        if let Ok(value) = amount(word) {
            assert!(value > 0 && word.ends_with(|c: char| c.is_ascii_alphabetic()), "{word}");
            assert_eq!(amount(&format!("{value}{smallest}")), Ok(value), "{word}");
        }
    }
}
