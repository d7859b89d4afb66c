//! `docs/policies.md` says what is so: its examples load, its keys are the keys there are, its figures hold.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::{request, source};
use stockade_policies::{PolicySet, Source, Trust, resolve};

const DOCUMENT: &str = include_str!("../../docs/policies.md");

/// Every fenced TOML example, by the file name in its first line.
fn examples() -> Vec<Source> {
    let example = |block: &str| {
        let (text, _) = block.split_once("\n```").expect("a fence without end");
        let file = text.lines().next().unwrap().strip_prefix("# ").expect("an example without a file name");
        source(file.strip_suffix(".toml").unwrap(), text, Trust::Operator)
    };
    DOCUMENT.split("```toml\n").skip(1).map(example).collect()
}

#[test]
fn examples_load_and_resolve() {
    let sources = examples();
    assert!(sources.len() >= 4);
    let names: Vec<String> = sources.iter().map(|source| source.name.clone()).collect();
    let set = PolicySet::from_sources(sources).unwrap();
    for name in names {
        resolve(set.get(&name).unwrap(), &request()).unwrap();
    }
    let look = resolve(set.get("look").unwrap(), &request()).unwrap();
    assert!(!common::write(&look, "x").allowed);
    assert_eq!(look.spec.limits.wall_ms, Some(300_000), "`look` extends the operator's `default`");
}

#[test]
fn every_key_is_documented_with_its_default() {
    let bare = PolicySet::from_sources(vec![source("bare", "", Trust::Operator)]).unwrap();
    let printed = bare.get("bare").unwrap().to_toml();
    for line in printed.lines().filter(|line| line.contains(" = ")) {
        let (key, value) = line.split_once(" = ").unwrap();
        let row = DOCUMENT
            .lines()
            .find(|row| {
                row.starts_with("| ") && row.contains(&format!("`{key}`")) && row.matches('|').count() >= 4
            })
            .unwrap_or_else(|| panic!("{key} isn't documented"));
        let plain = !matches!(value, "\"bare\"" | "\"\"" | "[]" | "false" | "\"0B\"");
        assert!(!plain || row.contains(value), "{key}: the document doesn't say {value}: {row}");
    }
    for key in ["extends", "tmp-size", "profile"] {
        assert!(DOCUMENT.contains(&format!("| `{key}` |")), "{key}");
    }
}

#[test]
fn shipped_policies_are_documented() {
    let shipped = PolicySet::shipped();
    for name in shipped.names() {
        let policy = shipped.get(name).unwrap();
        let row = DOCUMENT.lines().find(|row| row.starts_with(&format!("| `{name}` | "))).expect(name);
        let level = format!("{:?}", policy.level()).to_lowercase();
        assert!(row.contains(&format!("| {level} |")), "{row}");
    }
}
