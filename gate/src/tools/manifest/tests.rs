use super::*;

const WHOLE: &str = r#"
name = "search"
title = "Search"
description = """
Finds lines.
In files."""
version = "1.0.0"
policy = "default"
roles = ["client"]
failures = [2]

[command]
program = "/usr/bin/grep"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
arguments = ["-n", ["--max-count={limit:integer}"], "-e", "{pattern:text,option}", "--", "{paths:path...}"]

[parameters]
type = "object"
required = ["pattern"]

[parameters.properties]
pattern = { type = "string", format = "regex" }
limit = { type = "integer", minimum = 1 }
paths = { type = "array", items = { type = "string", format = "workspace-path" } }

[result]
type = "object"

[limits]
wall-time = "10s"
memory = "64MiB"

[rate]
per-minute = 60
burst = 5

[breaker]
failures = 5
window = "1m"
pause = "30s"

[[examples]]
parameters = { pattern = "a", limit = 2 }
exit = 1

[[examples]]
title = "All"
parameters = { pattern = "." }
output = "x"
"#;

fn read(text: &str) -> Result<Tool, Vec<String>> {
    let read = Tool::read("search.toml", "search", text, &|| Duration::ZERO);
    read.map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

/// What is wrong with the whole file after one change.
fn wrong(old: &str, new: &str) -> Vec<String> {
    assert!(WHOLE.contains(old), "{old}");
    read(&WHOLE.replacen(old, new, 1)).unwrap_err()
}

#[test]
fn a_whole_file_is_read() {
    let tool = read(WHOLE).unwrap();
    assert_eq!(
        (tool.name.as_str(), tool.policy.as_str(), tool.version.as_str()),
        ("search", "default", "1.0.0")
    );
    assert_eq!(
        tool.limits,
        Overrides { wall_ms: Some(10_000), memory: Some(64 << 20), ..Overrides::default() }
    );
    assert_eq!(tool.rate, Some(Rate { per_minute: 60, burst: 5 }));
    let breaker = tool.breaker.unwrap();
    assert_eq!((breaker.failures, breaker.window, breaker.probes), (5, Duration::from_secs(60), 1));
    assert!(tool.is_failure(2) && !tool.is_failure(1));
    assert_eq!(tool.examples.len(), 2);
    assert_eq!((tool.examples[0].exit, tool.examples[1].output.as_deref()), (1, Some("x")));
    assert_eq!(tool.digest, Digest::of(WHOLE.as_bytes()));
    let made = tool.template.expand(&tool.examples[0].parameters).unwrap();
    let texts: Vec<String> =
        made.arguments.into_iter().map(|text| String::from_utf8(text).unwrap()).collect();
    assert_eq!(texts, ["/usr/bin/grep", "-n", "--max-count=2", "-e", "a", "--"]);
}

#[test]
fn members_that_nobody_described_are_refused_unless_said_otherwise_which_cant_be() {
    let tool = read(WHOLE).unwrap();
    assert!(tool.parameters.check(&serde_json::json!({ "pattern": "a", "other": 1 })).is_err());
    let told = wrong("required = [\"pattern\"]", "additionalProperties = true");
    assert!(
        told[0].starts_with("search.toml:19:1: `parameters/additionalProperties`: members that nobody"),
        "{told:?}"
    );
}

#[test]
fn each_mistake_is_told_at_its_place() {
    for (old, new, expected) in [
        (
            "name = \"search\"",
            "name = \"other\"",
            "search.toml:2:8: `name`: `other` is another name than its file's",
        ),
        ("name = \"search\"", "", "search.toml:1:1: `name`: it isn't there"),
        ("name = \"search\"", "name = \"Search\"", "search.toml:2:8: `name`: `Search` is no such name"),
        (
            "description = \"\"\"\nFinds",
            "description = \"\"\"\u{202e}\nFinds",
            "search.toml:4:15: `description`: it has the character U+202E",
        ),
        (
            "title = \"Search\"",
            "title = \"a\u{e0041}b\"",
            "search.toml:3:9: `title`: it has the character U+E0041",
        ),
        ("version = \"1.0.0\"", "version = \"one\"", "search.toml:7:11: `version`: `one` is no version"),
        (
            "policy = \"default\"",
            "policy = \"../x\"",
            "search.toml:8:10: `policy`: `../x` is no policy's name",
        ),
        ("roles = [\"client\"]", "roles = []", "search.toml:9:9: `roles`: none could call it"),
        ("failures = [2]", "failures = [0]", "search.toml:10:13: `failures`: it is no exit status"),
        (
            "failures = [2]",
            "failure = [2]",
            "search.toml:10:1: unknown key `failure` in the tool; did you mean `failures`?",
        ),
        ("/usr/bin/grep", "grep", "search.toml:13:11: `program`: `grep` isn't the whole path"),
        ("/usr/bin/grep", "/usr/../bin/grep", "search.toml:13:11: `program`"),
        ("sha256 = \"00", "sha256 = \"zz", "search.toml:14:10: `sha256`: it is no SHA-256 digest"),
        ("\"-n\", ", "1, ", "search.toml:15:14: `arguments`: it is no text"),
        ("{limit:integer}", "{limit}", "search.toml:15:21: `arguments`: `{limit}` has no kind"),
        (
            "{limit:integer}",
            "{limit:text}",
            "search.toml:15:13: `arguments`: `{limit:text}` takes what says `type = \"string\"`",
        ),
        (
            "[\"--max-count={limit:integer}\"], ",
            "",
            "search.toml:15:13: `arguments`: the parameter `limit` stands nowhere",
        ),
        (
            "type = \"object\"\nrequired",
            "type = \"array\"\nrequired",
            "search.toml:17:1: `parameters`: it describes no object",
        ),
        (
            "minimum = 1",
            "minimun = 1",
            "search.toml:23:29: `parameters/properties/limit/minimun`: no keyword is named `minimun`; did you mean `minimum`?",
        ),
        ("wall-time = \"10s\"", "wall-time = 10", "search.toml:30:13: `[limits] wall-time` is an integer"),
        ("per-minute = 60", "", "search.toml:33:1: `per-minute`: it isn't there"),
        ("window = \"1m\"", "window = \"0s\"", "search.toml:39:10: `window`: no time at all"),
        (
            "{ pattern = \"a\", limit = 2 }",
            "{ pattern = \"a\", limit = 0 }",
            "search.toml:43:31: `examples.parameters`: at /limit: 0; expected at least 1",
        ),
        ("exit = 1", "exit = 256", "search.toml:44:8: `exit`: 256 is out of range"),
    ] {
        let told = wrong(old, new);
        assert!(told.len() == 1 && told[0].starts_with(expected), "{new}: {told:#?}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let told = read("nane = 1\n[command]\nprogram = 1\n[limits]\nmemory = \"1\"\n[parameters]\ntype = \"object\"\nminLenght = 1\n").unwrap_err();
    for expected in
        ["nane", "`name`", "`description`", "`version`", "`policy`", "program", "`memory`", "minLenght"]
    {
        assert!(told.iter().any(|line| line.contains(expected)), "{expected}: {told:#?}");
    }
}

#[test]
fn an_output_is_what_the_tool_promises() {
    let tool = read(WHOLE).unwrap();
    assert!(tool.check_output(b"{}\n").is_ok());
    assert!(
        tool.check_output(b"[]").is_err()
            && tool.check_output(b"").is_err()
            && tool.check_output(b"{} {}").is_err()
    );
}

#[test]
fn text_that_is_no_tool_never_panics() {
    for text in [
        "",
        "[",
        "a = ",
        "[command]",
        "parameters = 1",
        "[[parameters]]",
        "examples = 1",
        "[command]\narguments = {}",
        "\0",
    ] {
        assert!(read(text).is_err(), "{text:?}");
    }
}
