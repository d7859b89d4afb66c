//! The daemon's configuration: any two texts of which the later wins.
//!
//! A zero byte parts them.

use core::slice;

use stockade_supervisor::config::{Configured, Mistakes, Text, tables};
use stockade_supervisor::paths::Scope;

use crate::shown;

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let (first, second) = text.split_once('\0').unwrap_or((text, ""));
    let [first, second] = [("first.toml", first), ("second.toml", second)]
        .map(|(file, text)| Text { file: file.to_owned(), text: text.to_owned() });
    let one = read(slice::from_ref(&first));
    let other = read(slice::from_ref(&second));
    let both = read(&[first, second]);
    let (Some(one), Some(other)) = (one, other) else {
        assert!(both.is_none(), "what is wrong in one of them is wrong in both");
        return;
    };
    let both = both.expect("each of them is right");
    assert_eq!(both, other.over(one), "the later text wins, and the earlier has the rest");
    written(&both);
    for scope in [Scope::Machine, Scope::User] {
        if let Err(mistakes) = both.check(scope) {
            assert!(!scope.is_machine(), "the machine's daemon may have everything");
            told(&mistakes);
        }
    }
}

fn read(texts: &[Text]) -> Option<Configured> {
    Configured::of_texts(texts).inspect_err(told).ok()
}

fn told(mistakes: &Mistakes) {
    assert!(!mistakes.0.is_empty(), "refused without a reason");
    shown::check(&mistakes.to_string());
    mistakes.0.iter().for_each(|mistake| shown::check(&mistake.to_string()));
}

/// Every key as a file says it, read again, is the same configuration.
fn written(configured: &Configured) {
    let mut text = String::new();
    for table in tables() {
        text.push_str(&format!("{}\n", table.title));
        for key in table.keys {
            text.push_str(&format!("{} = {}\n", key.name, (key.toml)(&configured.values)));
        }
    }
    let again = read(&[Text { file: "again.toml".to_owned(), text: text.clone() }]);
    let again = again.unwrap_or_else(|| panic!("what was written can't be read: {text}"));
    assert_eq!(again.values, configured.values, "{text}");
    assert!(configured.changes(&again).is_empty(), "{text}");
}
