//! docs/limits.md: what it shows is read as it stands, and it has every key and every default.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use stockade_gate::access::read_roles;
use stockade_gate::breaker::{MOST_OUTCOMES, Settings};
use stockade_gate::rate::{MAX_KEYS, read};
use stockade_gate::redact::{FLUSH_AFTER, Forms, HELD_OF_VALUE, MAX_SPAN, MIN_VALUE};

const PAGE: &str = include_str!("../../docs/limits.md");

/// The file of this name that the page shows.
fn shown(name: &str) -> &'static str {
    let from =
        PAGE.find(&format!("```toml\n# {name}\n")).unwrap_or_else(|| panic!("the page shows no {name}"));
    PAGE[from..].split("```").nth(1).and_then(|text| text.strip_prefix("toml\n")).unwrap()
}

#[test]
fn files_of_the_page_are_read_as_they_stand() {
    let limited = read("limits.toml", shown("limits.toml")).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    assert_eq!(limited.limits.tools.len(), 2);
    // Tiers of roles that there aren't a daemon wouldn't take.
    let roles = read_roles("roles.toml", shown("roles.toml"), &|_| None);
    let roles = roles.unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    let named: Vec<_> = limited.roles.iter().map(|role| role.value.as_str()).collect();
    assert_eq!(named, ["ci", "nightly", "guest"]);
    assert!(named.iter().all(|role| roles.is_one(role)), "{named:?}");
    assert_eq!(
        limited.limits.tiers.iter().map(|tier| tier.name.as_str()).collect::<Vec<_>>(),
        ["ci", "guests"]
    );
    assert_eq!((limited.breaker, limited.breakers["search"].failures), (Settings::default(), 3));
    let forms =
        Forms::with("redact.toml", shown("redact.toml")).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    assert_eq!(forms.len(), Forms::shipped().unwrap().len() + 2);
}

#[test]
fn the_page_has_the_bounds_and_defaults_that_hold() {
    let settings = Settings::default();
    let rows = [
        format!("0 to {MOST_OUTCOMES}; 0: their count never does | {} |", settings.failures),
        format!("their share never does | {}, {} |", settings.percent, settings.of_at_least),
        format!("the last {MOST_OUTCOMES} do | {} minute |", settings.window.as_secs() / 60),
        format!("twice as long | {} seconds |", settings.open.as_secs()),
        format!("the longest | {} minutes |", settings.open_at_most.as_secs() / 60),
        format!(
            "1 to 64 | {} |\n| `successes` | that close it, 1 to 64 | {} |",
            settings.probes, settings.successes
        ),
        format!("can last | {} hour |", settings.lost_after.as_secs() / 3_600),
        format!("values of the run's own secrets**, of {MIN_VALUE} bytes or more"),
        format!("has been silent for {} ms", FLUSH_AFTER.as_millis()),
        format!("| {HELD_OF_VALUE} bytes or more of the beginning of a known value |"),
    ];
    for row in rows {
        assert!(PAGE.contains(&row), "the page doesn't say: {row}");
    }
    assert_eq!((MAX_KEYS, MAX_SPAN), (1_048_576, 10_240));
    assert!(PAGE.contains("1,048,576") && PAGE.contains("10,240 bytes"));
}
