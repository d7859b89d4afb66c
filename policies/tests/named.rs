//! A set made for one name only: the same policy, and whatever is wrong with others doesn't matter.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use stockade_policies::{PolicySet, Source, Trust};

fn source(name: &str, text: &str) -> Source {
    let file = format!("{name}.toml");
    Source { name: name.into(), file, text: format!("name = \"{name}\"\n{text}"), trust: Trust::Operator }
}

fn sources() -> Vec<Source> {
    vec![
        source("child", "extends = \"parent\"\n[limits]\nwall-time = \"5s\"\n"),
        source("parent", "extends = \"build\"\n[filesystem]\ndeny = [\"secret\"]\n"),
    ]
}

#[test]
fn a_policy_read_alone_is_the_policy_of_the_whole_set() {
    let whole = PolicySet::from_sources(sources()).unwrap();
    for name in whole.names() {
        let alone = PolicySet::from_sources_named(sources(), name).unwrap();
        assert_eq!(alone.names(), [name]);
        assert_eq!(alone.get(name).unwrap().to_toml(), whole.get(name).unwrap().to_toml(), "{name}");
    }
}

#[test]
fn a_broken_neighbour_does_not_matter_and_a_broken_ancestor_does() {
    let with = |broken: Source| {
        let mut all = sources();
        all.retain(|source| source.name != broken.name);
        all.push(broken);
        PolicySet::from_sources_named(all, "child")
            .map(|set| set.names().len())
            .map_err(|error| error.to_string())
    };
    assert_eq!(with(source("other", "no-such-key = 1\n")), Ok(1));
    assert!(with(source("parent", "no-such-key = 1\n")).unwrap_err().contains("parent.toml"));
    assert!(with(source("parent", "extends = \"child\"\n")).unwrap_err().contains("child"));
}

#[test]
fn an_operators_replacement_of_a_shipped_policy_is_the_one_that_is_read() {
    let own = source("default", "extends = \"default\"\n[limits]\nwall-time = \"7s\"\n");
    let set = PolicySet::from_sources_named(vec![own], "default").unwrap();
    assert!(set.get("default").unwrap().to_toml().contains("7s"));
}

#[test]
fn a_name_that_is_not_there_gets_the_names_that_are() {
    let set = PolicySet::from_sources_named(sources(), "chidl").unwrap();
    assert_eq!(set.get("chidl").unwrap_err().names[0], "child");
}
