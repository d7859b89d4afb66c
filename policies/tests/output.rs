//! `[output]`: whether secrets in output are named and not shown, and which variables' values are secrets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::source;
use stockade_policies::{PolicySet, Source, Trust};

const ON: &str = "[output]\nredact = true\n";
const OFF: &str = "extends = \"parent\"\n[output]\nredact = false\n";
const SILENT: &str = "extends = \"parent\"\n";

fn redacts(sources: Vec<Source>, name: &str) -> Result<Option<bool>, String> {
    let set = PolicySet::from_sources(sources).map_err(|error| error.to_string())?;
    Ok(set.get(name).unwrap().redacts())
}

#[test]
fn a_child_redacts_as_its_parent_unless_it_says_otherwise() {
    let with = |child: &str, trust| vec![source("parent", ON, trust), source("child", child, trust)];
    assert_eq!(redacts(with(SILENT, Trust::Operator), "child"), Ok(Some(true)));
    assert_eq!(redacts(with(OFF, Trust::Operator), "child"), Ok(Some(false)));
    assert_eq!(redacts(with(OFF, Trust::User), "child"), Ok(Some(false)), "both are the user's");
    for shipped in PolicySet::shipped().names() {
        assert_eq!(PolicySet::shipped().get(shipped).unwrap().redacts(), None, "{shipped}");
    }
}

#[test]
fn a_user_takes_no_redaction_away_from_an_operators_policy() {
    let sources = |middle: Option<&str>| {
        let mut all = vec![source("parent", ON, Trust::Operator)];
        let child = if middle.is_some() { OFF.replace("parent", "middle") } else { OFF.to_owned() };
        all.extend(middle.map(|text| source("middle", text, Trust::User)));
        all.push(source("child", &child, Trust::User));
        all
    };
    let again = "extends = \"parent\"\n[output]\nredact = true\n";
    for middle in [None, Some(SILENT), Some(again)] {
        let error = redacts(sources(middle), "child").unwrap_err();
        assert!(
            error.starts_with("child.toml:3:") && error.contains("only by an operator's policy"),
            "{error}"
        );
    }
    let silent = vec![source("parent", ON, Trust::Operator), source("child", SILENT, Trust::User)];
    assert_eq!(redacts(silent, "child"), Ok(Some(true)));
}

#[test]
fn secrets_are_what_is_named_like_one_and_what_the_policy_lists() {
    let text = "extends = \"default\"\n[output]\nsecrets = [\"DATABASE_*\", \"PIN\"]\n";
    let set = PolicySet::from_sources(vec![source("listed", text, Trust::Operator)]).unwrap();
    let subject = common::request().subject;
    let names = |policy: &str| {
        let confines = stockade_policies::Confines::of(set.get(policy).unwrap(), &subject).unwrap();
        let environment: Vec<_> =
            ["API_TOKEN", "api_key", "DATABASE_URL", "DATABASE_KEY", "PIN", "PINS", "LANG"]
                .map(|name| (name.into(), "value".into()))
                .into();
        confines.secrets(&environment).map(|(name, _)| name.to_text()).collect::<Vec<_>>()
    };
    assert_eq!(names("listed"), ["API_TOKEN", "api_key", "DATABASE_URL", "DATABASE_KEY", "PIN"]);
    assert_eq!(names("default"), ["API_TOKEN", "api_key", "DATABASE_KEY"]);
}

#[test]
fn the_table_is_read_back_as_it_is_written() {
    let text = "[output]\nredact = true\nsecrets = [\"PIN\"]\n";
    let written = |text: &str| {
        let set = PolicySet::from_sources(vec![source("it", text, Trust::Operator)]).unwrap();
        set.get("it").unwrap().to_toml()
    };
    let once = written(text);
    assert!(once.contains("\n[output]\nredact = true\nsecrets = [\"PIN\"]\n"), "{once}");
    assert_eq!(written(&once), once);
    let error =
        redacts(vec![source("it", "[output]\nredact = \"yes\"\n", Trust::Operator)], "it").unwrap_err();
    assert!(error.contains("[output] redact") && error.contains("true or false"), "{error}");
}

#[test]
fn a_refusal_names_the_policys_file_and_not_where_it_lies() {
    let workspace = common::request().subject.workspace;
    let text = format!("extends = \"default\"\n[filesystem]\ndeny = [\"{}\"]\n", workspace.display());
    let mut source = source("it", &text, Trust::Operator);
    source.file = "/etc/stockade/policies/it.toml".into();
    let set = PolicySet::from_sources(vec![source]).unwrap();
    let denied = stockade_policies::resolve(set.get("it").unwrap(), &common::request()).unwrap_err().denied();
    assert!(
        denied.message.starts_with("it.toml:3:") && !denied.message.contains("/etc/"),
        "{}",
        denied.message
    );
}
