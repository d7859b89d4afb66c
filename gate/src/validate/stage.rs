//! The stage: is it a tool's call, are its parameters what the tool takes, and does a command come of them?
//!
//! What isn't a call passes: a command line has no schema. What is a call and names no tool that there is, or has no parameters, is
//! refused.

use std::sync::Arc;

use serde_json::Value;

use super::fitting::Fitting;
use super::mismatch::Mismatch;
use super::repeated::{Repeated, Table};
use crate::asked::{Action, Asked, Given};
use crate::refusal::{Reason, Refusal};
use crate::row::{Stage, StageName};
use crate::tools::{Registry, Tool};
use crate::verdict::Verdict;

/// Whether parameters are what a tool takes.
#[derive(Debug, Default)]
pub struct Validate {
    registry: Arc<Registry>,
    mismatches: Table,
    fitting: Fitting,
}

impl Validate {
    /// Of these tools.
    #[must_use]
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry, ..Self::default() }
    }

    /// Takes up other tools. What was got wrong stays known: the rules that are no more fall out of the table by themselves. What
    /// fitted doesn't: it may not fit these.
    pub fn replace(&mut self, registry: Arc<Registry>) {
        self.registry = registry;
        self.fitting.clear();
    }

    /// What callers often get wrong, the most frequent first: rules of tools' schemas, never what was sent. At most
    /// [`super::repeated::MAX_RULES`] of them; nothing is copied.
    #[must_use]
    pub fn often_wrong(&self) -> Vec<Repeated<'_>> {
        self.mismatches.often()
    }

    fn call(&mut self, asked: &Asked<'_>) -> Result<(), Refusal> {
        let refused =
            |reason, rule: &str, message: String| Refusal::new(StageName::Validate, reason, rule, message);
        let name = asked.tool.unwrap_or_default();
        let tool = self.registry.get(name).map_err(|unknown| {
            let nearest = unknown.nearest.first().map(|name| format!("did you mean `{name}`?"));
            let refusal = refused(Reason::UnknownTool, "tools", unknown.to_string());
            nearest.map_or(refusal.clone(), |nearest| refusal.remedy(nearest))
        })?;
        let tool = Arc::clone(tool);
        if asked.policy.is_some_and(|policy| policy != tool.policy) {
            let message =
                format!("the tool `{name}` runs under the policy `{}`, and under no other", tool.policy);
            return Err(refused(Reason::BadParameters, &tool.file_rule("policy"), message));
        }
        let Given::Parameters(parameters) = asked.given else {
            let message = format!("the tool `{name}` is called with parameters: a JSON object");
            return Err(refused(Reason::BadParameters, &tool.file_rule("parameters"), message));
        };
        let key = Fitting::key(&tool.name, parameters);
        if key.as_ref().is_some_and(|key| self.fitting.has(key)) {
            return Ok(());
        }
        let value = parameters.value().map_err(|mismatch| {
            let refusal = refused(Reason::BadParameters, &tool.file_rule("parameters"), mismatch.to_string());
            refusal.remedy(remedy(&tool))
        })?;
        self.check(&tool, value, asked)?;
        key.into_iter().for_each(|key| self.fitting.put(key));
        Ok(())
    }

    fn check(&mut self, tool: &Tool, parameters: &Value, asked: &Asked<'_>) -> Result<(), Refusal> {
        let refused = |rule: String, message: String| {
            let refusal = Refusal::new(StageName::Validate, Reason::BadParameters, rule, message);
            refusal.remedy(remedy(tool))
        };
        if let Err(mismatches) = tool.parameters.check(parameters) {
            for mismatch in &mismatches {
                self.mismatches.note(&tool.name, &mismatch.rule, asked.at.uptime);
            }
            let rule = mismatches.first().map_or_else(String::new, |mismatch| tool.file_rule(&mismatch.rule));
            let told: Vec<String> = mismatches.iter().map(Mismatch::to_string).collect();
            return Err(refused(rule, told.join("; ")));
        }
        // What the schema lets pass may still be no argument: one that would be an option.
        let expanded = parameters.as_object().map(|parameters| tool.template.expand(parameters));
        match expanded {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => {
                self.mismatches.note(&tool.name, "command", asked.at.uptime);
                Err(refused(tool.file_rule("command"), error.to_string()))
            }
            None => Err(refused(tool.file_rule("parameters"), "the parameters are no object".into())),
        }
    }
}

fn remedy(tool: &Tool) -> String {
    format!("`stockade tool show {}` says what it takes", tool.name)
}

impl Tool {
    /// A rule of its file, without the directory that it is in.
    fn file_rule(&self, rule: &str) -> String {
        format!("{}.toml: {}", self.name, if rule.is_empty() { "parameters" } else { rule })
    }
}

impl Stage for Validate {
    fn name(&self) -> StageName {
        StageName::Validate
    }

    fn judge(&mut self, asked: &Asked<'_>) -> Result<Verdict, Refusal> {
        if asked.action == Action::Call {
            self.call(asked)?;
        }
        Ok(Verdict::Pass)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::{Duration, SystemTime};

    use serde_json::json;

    use super::*;
    use crate::asked::{Load, Moment, Principal, Thing};
    use crate::tools::registry::{Text, Trust};
    use crate::validate::Parameters;

    const TOOL: &str = r#"
name = "search"
description = "Finds lines."
version = "1.0.0"
policy = "default"
[command]
program = "/usr/bin/grep"
arguments = ["--max-count={limit:integer}", "--", "{pattern:text}"]
[parameters]
type = "object"
required = ["pattern"]
properties.pattern = { type = "string" }
properties.limit = { type = "integer", minimum = 1 }
"#;

    fn stage() -> Validate {
        let text = Text {
            file: "/secret/place/search.toml".into(),
            name: "search".into(),
            text: TOOL.into(),
            signature: None,
        };
        let registry = Registry::of(&[text], &Trust::default(), &|| Duration::ZERO).unwrap();
        Validate::new(Arc::new(registry))
    }

    fn parameters(value: &Value) -> Parameters {
        Parameters::new(value.to_string().into_bytes())
    }

    fn judge(
        stage: &mut Validate,
        action: Action,
        tool: Option<&str>,
        given: Given<'_>,
        at: u64,
    ) -> Result<(), Refusal> {
        let principal = Principal { uid: 1, gids: vec![1], pid: 2, unit: None, roles: BTreeSet::new() };
        stage
            .judge(&Asked {
                at: Moment { uptime: Duration::from_secs(at), wall: SystemTime::UNIX_EPOCH },
                run: 1,
                principal: &principal,
                action,
                policy: Some("default"),
                tool,
                thing: Thing::default(),
                given,
                workspace: None,
                owner: None,
                load: Load::default(),
            })
            .map(|verdict| assert_eq!(verdict, Verdict::Pass))
    }

    #[test]
    fn what_fits_passes_and_what_is_no_call_too() {
        let mut stage = stage();
        let parameters = parameters(&json!({ "pattern": "x", "limit": 3 }));
        assert_eq!(
            judge(&mut stage, Action::Call, Some("search"), Given::Parameters(&parameters), 0),
            Ok(())
        );
        assert_eq!(judge(&mut stage, Action::Run, None, Given::Command(&[]), 0), Ok(()));
    }

    #[test]
    fn a_call_without_a_tool_or_parameters_or_of_what_isnt_there_is_refused() {
        let mut stage = stage();
        let parameters = parameters(&json!({ "pattern": "x" }));
        for (tool, given, reason) in [
            (None, Given::Parameters(&parameters), Reason::UnknownTool),
            (Some("serach"), Given::Parameters(&parameters), Reason::UnknownTool),
            (Some("search"), Given::Nothing, Reason::BadParameters),
            (Some("search"), Given::Command(&[]), Reason::BadParameters),
        ] {
            assert_eq!(judge(&mut stage, Action::Call, tool, given, 0).unwrap_err().reason, reason);
        }
        let refusal = judge(&mut stage, Action::Call, Some("serach"), Given::Nothing, 0).unwrap_err();
        assert_eq!(refusal.remedy.as_deref(), Some("did you mean `search`?"));
    }

    #[test]
    fn parameters_that_are_no_json_are_refused_with_what_the_tool_takes() {
        let mut stage = stage();
        let cut = Parameters::new(b"{\"pattern\":".to_vec());
        let refusal =
            judge(&mut stage, Action::Call, Some("search"), Given::Parameters(&cut), 0).unwrap_err();
        assert_eq!(
            (refusal.reason, refusal.rule.as_str()),
            (Reason::BadParameters, "search.toml: parameters")
        );
        assert!(refusal.remedy.is_some_and(|remedy| remedy.contains("tool show search")));
    }

    #[test]
    fn a_refusal_names_the_place_and_the_rule_and_no_path_of_the_host() {
        let mut stage = stage();
        let parameters = parameters(&json!({ "limit": 0, "patern": 1 }));
        let refusal =
            judge(&mut stage, Action::Call, Some("search"), Given::Parameters(&parameters), 0).unwrap_err();
        assert!(refusal.message.contains("/limit: expected at least 1, got 0"), "{refusal:?}");
        assert!(refusal.message.contains("did you mean `pattern`?"), "{refusal:?}");
        assert!(refusal.rule.starts_with("search.toml: /"), "{refusal:?}");
        assert!(!format!("{refusal:?}").contains("/secret"));
    }

    #[test]
    fn a_value_that_would_be_an_option_is_refused_though_it_is_text() {
        let mut stage = stage();
        let parameters = parameters(&json!({ "pattern": "--include=*" }));
        let refusal =
            judge(&mut stage, Action::Call, Some("search"), Given::Parameters(&parameters), 0).unwrap_err();
        assert_eq!(
            refusal.message,
            "/pattern: a value that begins with `-` would be an option of the program"
        );
    }

    #[test]
    fn what_is_often_got_wrong_is_recorded_with_counts() {
        let mut stage = stage();
        let parameters = parameters(&json!({ "pattern": "x", "limit": 0 }));
        for at in 0..7 {
            judge(&mut stage, Action::Call, Some("search"), Given::Parameters(&parameters), at * 60)
                .unwrap_err();
        }
        let often = stage.often_wrong();
        assert_eq!(
            (often[0].tool, often[0].rule, often[0].count),
            ("search", "/properties/limit/minimum", 7)
        );
        assert_eq!(often.len(), 1);
    }

    fn limited(most: u32) -> Arc<Registry> {
        let text = TOOL.replace("minimum = 1", &format!("minimum = 1, maximum = {most}"));
        let text = Text { file: "search.toml".into(), name: "search".into(), text, signature: None };
        Arc::new(Registry::of(&[text], &Trust::default(), &|| Duration::ZERO).unwrap())
    }

    #[test]
    fn what_fitted_fits_again_and_is_looked_at_anew_once_the_tools_are_others() {
        let mut stage = Validate::new(limited(9));
        let parameters = || parameters(&json!({ "pattern": "x", "limit": 7 }));
        for _again in 0..2 {
            judge(&mut stage, Action::Call, Some("search"), Given::Parameters(&parameters()), 0).unwrap();
        }
        stage.replace(limited(5));
        let refusal =
            judge(&mut stage, Action::Call, Some("search"), Given::Parameters(&parameters()), 0).unwrap_err();
        assert!(refusal.message.contains("/limit: expected at most 5, got 7"), "{refusal:?}");
    }

    #[test]
    fn what_fits_one_tool_is_not_thereby_what_another_takes() {
        let text = |name: &str, most: u32| {
            let text = TOOL.replace("minimum = 1", &format!("minimum = 1, maximum = {most}"));
            let text = text.replace("\"search\"", &format!("\"{name}\""));
            Text { file: format!("{name}.toml"), name: name.into(), text, signature: None }
        };
        let texts = [text("wide", 9), text("narrow", 5)];
        let registry = Registry::of(&texts, &Trust::default(), &|| Duration::ZERO).unwrap();
        let mut stage = Validate::new(Arc::new(registry));
        let parameters = parameters(&json!({ "pattern": "x", "limit": 7 }));
        let mut asks = |tool| judge(&mut stage, Action::Call, Some(tool), Given::Parameters(&parameters), 0);
        assert_eq!(asks("wide"), Ok(()));
        assert_eq!(asks("narrow").unwrap_err().reason, Reason::BadParameters);
        assert_eq!(asks("wide"), Ok(()));
    }

    #[test]
    fn what_did_not_fit_is_told_each_time() {
        let mut stage = stage();
        for _again in 0..2 {
            let parameters = parameters(&json!({ "pattern": "-x" }));
            judge(&mut stage, Action::Call, Some("search"), Given::Parameters(&parameters), 0).unwrap_err();
        }
    }

    #[test]
    fn other_tools_come_in_place_of_the_old() {
        let mut stage = stage();
        stage.replace(Arc::default());
        let parameters = parameters(&json!({ "pattern": "x" }));
        let refusal =
            judge(&mut stage, Action::Call, Some("search"), Given::Parameters(&parameters), 0).unwrap_err();
        assert_eq!(refusal.message, "no tool is named `search`; there are none");
    }
}
