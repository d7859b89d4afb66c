//! Tools at the command line: the guide can be followed word for word, a call is a run under the tool's policy with what was
//! checked and nothing else, and what isn't in order isn't taken.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use stockade_tests::{Daemon, Ended, Ground, Mode, Person, Setting, not_tested};

/// Each person that can be tested here, with a place of his own.
fn grounds() -> Vec<Ground> {
    let mut persons = vec![Person::me()];
    if Person::user() != Person::me() {
        persons.push(Person::user());
    }
    persons.into_iter().map(Ground::new).collect()
}

fn stockade(ground: &Ground, words: &[&str]) -> Ended {
    let mut command = ground.stockade();
    command.args(words);
    Ended::of(command)
}

/// A tool's file in the workspace, below `tools`.
fn put(ground: &Ground, name: &str, rest: &str) {
    let head = format!("name = \"{name}\"\ndescription = \"A test's.\"\nversion = \"1\"\n");
    ground.put(&format!("tools/{name}.toml"), head + rest);
}

const ECHO: &str = r#"
policy = "default"
[command]
program = "/bin/echo"
arguments = ["[{text:text}]", ["-n{count:integer}"], "{list:text...}"]
[parameters]
type = "object"
required = ["text"]
properties.text = { type = "string" }
properties.count = { type = "integer" }
properties.list = { type = "array", items = { type = "string" } }
"#;

/// The blocks of the guide that are typed, each with what is printed then, if the guide says so.
fn typed() -> Vec<(String, Option<String>)> {
    let guide = include_str!("../../docs/tools.md");
    let mut blocks: Vec<(&str, &str)> = Vec::new();
    let mut rest = guide;
    while let Some((before, after)) = rest.split_once("```") {
        let (kind, after) = after.split_once('\n').unwrap();
        let (text, after) = after.split_once("```").unwrap();
        if !before.trim().is_empty() {
            blocks.push(("prose", before));
        }
        blocks.push((kind, text));
        rest = after;
    }
    let answer = |at: usize| match blocks.get(at + 1) {
        Some(("text", text)) => Some((*text).to_owned()),
        _ => None,
    };
    let typed = blocks.iter().enumerate().filter(|(_, (kind, _))| *kind == "sh");
    typed.map(|(at, (_, text))| ((*text).to_owned(), answer(at))).collect()
}

#[test]
fn the_guide_can_be_followed_word_for_word() {
    let typed = typed();
    assert!(typed.len() >= 5 && typed.iter().filter(|(_, answer)| answer.is_some()).count() >= 4);
    for (umask, ground) in
        ["022", "077"].into_iter().flat_map(|umask| grounds().into_iter().map(move |ground| (umask, ground)))
    {
        for (text, answer) in &typed {
            let mut command = ground.command("sh");
            let programs = ground.binaries.stockade.parent().unwrap().display();
            command.args(["-c", &format!("umask {umask}; PATH={programs}:$PATH; exec 2>&1; {text}")]);
            let ended = Ended::of(command);
            if let Some(answer) = answer {
                assert_eq!(ended.text(), answer.trim(), "{text}\n{}", ended.story());
            } else {
                ended.expect_code(0);
            }
        }
    }
}

#[test]
fn the_documents_tools_are_in_order_and_their_examples_come_out() {
    let ground = Ground::new(Person::me());
    for (name, text) in [
        ("search", include_str!("../../docs/tools/search.toml")),
        ("count", include_str!("../../docs/tools/count.toml")),
    ] {
        ground.put(&format!("tools/{name}.toml"), text);
    }
    stockade(&ground, &["tool", "check", "tools/search.toml", "tools/count.toml"]).expect_code(0);
    let tested = stockade(&ground, &["tool", "--directory", "tools", "test"]);
    tested.expect_code(0);
    assert!(tested.text().contains("search: What is here has no such line: ok"), "{}", tested.story());
    ground.put("words", "one two three\nfour\n");
    let counted =
        stockade(&ground, &["tool", "--directory", "tools", "call", "count", r#"{"file":"words"}"#]);
    counted.expect_code(0).expect_text("{\"words\":4}");
}

#[test]
fn a_call_is_a_run_with_the_values_as_they_are() {
    for setting in Setting::each() {
        put(&setting.ground, "echo", ECHO);
        let parameters = r#"{"text": "a b\\; $(id) ' \" *", "list": ["{x}", "> y", ""]}"#;
        let ended = Ended::of(setting.ask(&["tool", "--directory", "tools", "call", "echo", parameters]));
        ended.expect_code(0);
        assert_eq!(ended.stdout, b"[a b\\; $(id) ' \" *] {x} > y \n", "{}", ended.story());
        assert!(!setting.ground.work().join("y").exists());
    }
}

#[test]
fn what_doesnt_fit_runs_nothing() {
    let ground = Ground::new(Person::me());
    put(&ground, "echo", ECHO);
    for (parameters, expected) in [
        ("", "expected JSON"),
        ("[]", "expected an object"),
        ("{}", "the member `text`"),
        (r#"{"text":"ran","text":"ran"}"#, "each key once"),
        (r#"{"text":"ran","other":1}"#, "no members but `count`, `list`, `text`"),
        (r#"{"text":"ran","list":["-n"]}"#, "would be an option"),
        (r#"{"text":"ran\u001b"}"#, "U+001B"),
        (r#"{"text":"ran\u0000"}"#, "U+0000"),
    ] {
        let ended = stockade(&ground, &["tool", "--directory", "tools", "call", "echo", parameters]);
        ended.expect_code(125).expect_errors(&[expected]);
        assert!(ended.stdout.is_empty(), "{}", ended.story());
    }
    let unknown = stockade(&ground, &["tool", "--directory", "tools", "call", "ehco"]);
    unknown.expect_code(125).expect_errors(&["no tool is named `ehco`", "echo"]);
}

#[test]
fn the_tools_limits_hold_and_its_input_is_its_own() {
    for setting in Setting::each() {
        let rest = "policy = \"default\"\nlimits.wall-time = \"300ms\"\n[command]\nprogram = \"/bin/sleep\"\narguments = [\"60\"]\n[parameters]\ntype = \"object\"\n";
        put(&setting.ground, "slow", rest);
        Ended::of(setting.ask(&["tool", "--directory", "tools", "call", "slow", "{}"])).expect_code(124);
        // With and without it: what stands on our standard input reaches no tool.
        for (stdin, expected) in [("nothing", ""), ("parameters", "{\"a\":1}")] {
            let rest = format!(
                "policy = \"default\"\n[command]\nprogram = \"/bin/cat\"\nstdin = \"{stdin}\"\narguments = [[\"-\", \"-A\", \"{{b:flag}}\"], [\"-u\", \"{{a:integer,option}}\", \"{{b:flag}}\"]]\n[parameters]\ntype = \"object\"\nproperties.a = {{ type = \"integer\" }}\nproperties.b = {{ type = \"boolean\" }}\n"
            );
            put(&setting.ground, "cat", &rest);
            setting.ground.put("ours", "ours\n");
            let mut command = setting.ask(&["tool", "--directory", "tools", "call", "cat", "{\"a\":1}"]);
            command.stdin(std::fs::File::open(setting.ground.work().join("ours")).unwrap());
            Ended::of(command).expect_code(0).expect_text(expected);
        }
    }
}

/// `cat` of a file of the workspace that is handed on as standard input.
fn reader(policy: &str) -> String {
    format!(
        "policy = \"{policy}\"\n[command]\nprogram = \"/bin/cat\"\nstdin = \"{{file:file}}\"\n[parameters]\ntype = \"object\"\nproperties.file = {{ type = \"string\", format = \"workspace-path\" }}\n"
    )
}

#[test]
fn a_file_is_handed_on_only_if_the_policy_lets_it_be_read() {
    let ground = Ground::new(Person::me());
    put(&ground, "open", &reader("default"));
    put(&ground, "denying", &reader("test-deny"));
    ground.put("secret.txt", "the secret\n");
    ground.put("plain.txt", "plain\n");
    std::os::unix::fs::symlink("secret.txt", ground.work().join("link")).unwrap();
    let call = |tool: &str, file: &str| {
        let parameters = format!("{{\"file\":\"{file}\"}}");
        stockade(&ground, &["tool", "--directory", "tools", "call", tool, &parameters, "--embedded"])
    };
    call("denying", "plain.txt").expect_code(0).expect_text("plain");
    call("open", "secret.txt").expect_code(0).expect_text("the secret");
    let denied = call("denying", "secret.txt");
    denied.expect_code(125).expect_errors(&["test-deny", "secret.txt"]);
    assert!(denied.stdout.is_empty(), "{}", denied.story());
    for file in ["link", "../outside/secret.txt", "/etc/hostname"] {
        let refused = call("denying", file);
        refused.expect_code(125);
        assert!(refused.stdout.is_empty(), "{}", refused.story());
    }
}

/// Files as standard input and as arguments: opened within the run, whatever door the call came by, through no link, and nothing that
/// the policy doesn't let it read.
#[test]
fn files_are_handed_on_as_descriptors_with_a_daemon_and_without() {
    let tool = |policy: &str| {
        format!(
            "policy = \"{policy}\"\n[command]\nprogram = \"/bin/cat\"\nstdin = \"{{first:file}}\"\narguments = [\"-\", [\"{{second:file}}\"], [\"{{third:file}}\"]]\n\
             [parameters]\ntype = \"object\"\nrequired = [\"first\"]\nproperties.first = {{ type = \"string\", format = \"workspace-path\" }}\n\
             properties.second = {{ type = \"string\", format = \"workspace-path\" }}\nproperties.third = {{ type = \"string\", format = \"workspace-path\" }}\n"
        )
    };
    let held = |ground: &Ground, call: &dyn Fn(&str, &str) -> Ended| {
        ground.put("below/one", "1\n");
        ground.put("two", "2\n");
        ground.put("secret.txt", "the secret\n");
        std::os::unix::fs::symlink("two", ground.work().join("link")).unwrap();
        std::os::unix::fs::symlink("below", ground.work().join("linked")).unwrap();
        let all = call("cats", r#"{"first":"below/one","second":"./two","third":"secret.txt"}"#);
        all.expect_code(0).expect_text("1\n2\nthe secret");
        call("cats", r#"{"first":"two","third":"below//one"}"#).expect_code(0).expect_text("2\n1");
        for bad in ["link", "linked/one", "nothing", "below", "two/three"] {
            for place in ["first", "second"] {
                let given = format!(r#"{{"first":"two","{place}":"{bad}"}}"#);
                let given = if place == "first" { format!(r#"{{"first":"{bad}"}}"#) } else { given };
                let refused = call("cats", &given);
                refused.expect_code(125).expect_errors(&[if bad == "below" { "director" } else { bad }]);
                assert!(refused.stdout.is_empty(), "{}", refused.story());
            }
        }
        let denied = call("denying", r#"{"first":"two","second":"secret.txt"}"#);
        denied.expect_code(125).expect_errors(&["secret.txt"]);
        assert!(denied.stdout.is_empty(), "{}", denied.story());
        call("denying", r#"{"first":"two","second":"below/one"}"#).expect_code(0).expect_text("2\n1");
    };
    for ground in grounds() {
        put(&ground, "cats", &tool("default"));
        put(&ground, "denying", &tool("test-deny"));
        held(&ground, &|tool, parameters| {
            stockade(&ground, &["tool", "--directory", "tools", "call", tool, parameters, "--embedded"])
        });
    }
    for mode in Mode::daemons_here() {
        let server = Ground::new(mode.server());
        std::fs::create_dir_all(server.configuration().join("tools")).unwrap();
        let named = |name: &str, policy| {
            format!("name = \"{name}\"\ndescription = \"A test's.\"\nversion = \"1\"\n{}", tool(policy))
        };
        let (cats, denying) = (named("cats", "default"), named("denying", "test-deny"));
        server.configure(&[("tools/cats.toml", &cats), ("tools/denying.toml", &denying)]);
        let daemon = Daemon::start_at(server, &[]);
        let ground = Ground::new(mode.client());
        held(&ground, &|tool, parameters| {
            let mut command = daemon.ask(&ground, &["tool", "call", tool, parameters]);
            command.current_dir(ground.work());
            Ended::of(command)
        });
    }
}

#[test]
fn a_program_that_isnt_the_pinned_one_isnt_run() {
    for ground in grounds() {
        ground.put_program("program", "#!/bin/sh\necho the first\n");
        let program = ground.work().join("program");
        let digest = |path: &Path| {
            let mut command = ground.command("sha256sum");
            command.arg(path);
            Ended::of(command).text().split(' ').next().unwrap().to_owned()
        };
        let rest = format!(
            "policy = \"default\"\n[command]\nprogram = \"{}\"\nsha256 = \"{}\"\n[parameters]\ntype = \"object\"\n",
            program.display(),
            digest(&program)
        );
        put(&ground, "pinned", &rest);
        let call =
            || stockade(&ground, &["tool", "--directory", "tools", "call", "pinned", "{}", "--embedded"]);
        call().expect_code(0).expect_text("the first");
        std::fs::remove_file(&program).unwrap();
        ground.put_program("program", "#!/bin/sh\necho the other\n");
        let refused = call();
        refused.expect_code(125).expect_errors(&["isn't the one that was registered"]);
        assert!(refused.stdout.is_empty(), "{}", refused.story());
    }
}

#[test]
fn tools_that_others_may_write_to_are_refused() {
    for ground in grounds() {
        put(&ground, "echo", ECHO);
        let list = || stockade(&ground, &["tool", "--directory", "tools", "list"]);
        list().expect_code(0);
        let file = ground.work().join("tools/echo.toml");
        for path in [&file, &ground.work().join("tools")] {
            let before = std::fs::metadata(path).unwrap().permissions();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
            list().expect_code(1).expect_errors(&["others may write to it"]);
            std::fs::set_permissions(path, before).unwrap();
        }
        list().expect_code(0);
        if !Person::me().is_root() {
            not_tested("a tool's file that is somebody else's", "that takes root");
            continue;
        }
        std::os::unix::fs::chown(&file, Some(12_345), None).unwrap();
        list().expect_code(1).expect_errors(&["belongs to user 12345"]);
    }
}

#[test]
fn what_isnt_in_order_isnt_added_and_whats_there_stays() {
    for ground in grounds() {
        let tool = |words: &[&str]| stockade(&ground, &[&["tool"], words].concat());
        put(&ground, "echo", ECHO);
        // Where a user's own are.
        if !ground.person.is_root() {
            tool(&["add", "tools/echo.toml"]).expect_code(0);
            tool(&["list"]).expect_code(0);
            assert!(ground.configuration().join("tools/echo.toml").exists());
            tool(&["remove", "echo"]).expect_code(0);
        }
        let there = ["--directory", "there"];
        let tool = |words: &[&str]| tool(&[&there[..], words].concat());
        tool(&["add", "tools/echo.toml"]).expect_code(0);
        tool(&["add", "tools/echo.toml"]).expect_code(1).expect_errors(&["--replace"]);
        ground.put("bad/echo.toml", "name = 1\nnane = 2\n");
        let bad = tool(&["add", "--replace", "bad/echo.toml"]);
        bad.expect_code(1).expect_errors(&["echo.toml:1:8", "echo.toml:2:1", "did you mean `name`?"]);
        tool(&["list"]).expect_code(0);
        // One that is broken already: nothing can be added until it is mended.
        std::fs::write(ground.work().join("there/broken.toml"), "x").unwrap();
        ground.person.own_all(&ground.work());
        tool(&["list"]).expect_code(1);
        tool(&["add", "--replace", "tools/echo.toml"]).expect_code(1).expect_errors(&["broken.toml"]);
        tool(&["remove", "broken"]).expect_code(0);
        tool(&["remove", "../tools/echo"]).expect_code(1);
        assert!(ground.work().join("tools/echo.toml").exists());
        tool(&["remove", "echo"]).expect_code(0);
        assert_eq!(std::fs::read_dir(ground.work().join("there")).unwrap().count(), 0);
    }
}

#[test]
fn roots_tools_are_for_all_to_read_whatever_roots_umask_is() {
    if !Person::me().is_root() {
        not_tested("the modes of tools that root puts in place", "nobody here is root");
        return;
    }
    let ground = Ground::new(Person::me());
    ground.put("new/echo.toml", format!("name = \"echo\"\ndescription = \"x\"\nversion = \"1\"\n{ECHO}"));
    let script = "umask 077; \"$0\" tool --directory a/tools add new/echo.toml && \"$0\" tool keygen s > public && \"$0\" tool sign new/echo.toml --key s";
    let mut command = ground.command("sh");
    command.args(["-c", script]).arg(&ground.binaries.stockade);
    Ended::of(command).expect_code(0);
    for (name, mode) in
        [("a", 0o755), ("a/tools", 0o755), ("a/tools/echo.toml", 0o644), ("new/echo.toml.sig", 0o644)]
    {
        let found = ground.work().join(name).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}");
    }
}

#[test]
fn secret_keys_are_ones_own_and_never_overwritten() {
    let ground = Ground::new(Person::me());
    put(&ground, "echo", ECHO);
    stockade(&ground, &["tool", "keygen", "secret.toml"]).expect_code(0);
    let secret = ground.work().join("secret.toml");
    assert_eq!(std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&secret).unwrap();
    stockade(&ground, &["tool", "keygen", "secret.toml"]).expect_code(1);
    assert_eq!(std::fs::read(&secret).unwrap(), before);
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o640)).unwrap();
    let sign = || stockade(&ground, &["tool", "sign", "tools/echo.toml", "--key", "secret.toml"]);
    let refused = sign();
    refused.expect_code(1).expect_errors(&["others may read this secret key"]);
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    sign().expect_code(0);
    let untrusted = stockade(&ground, &["tool", "--directory", "tools", "list"]);
    untrusted.expect_code(1).expect_errors(&["isn't trusted"]);
}

#[test]
fn what_is_told_as_json_is_one_object_a_line() {
    let ground = Ground::new(Person::me());
    put(&ground, "echo", ECHO);
    ground.put("bad.toml", "x = 1\n");
    let lines = |words: &[&str]| -> Vec<serde_json::Value> {
        let ended = stockade(&ground, words);
        ended.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let listed = lines(&["tool", "--directory", "tools", "list", "--json"]);
    assert_eq!((listed.len(), &listed[0]["name"]), (1, &"echo".into()));
    let shown = lines(&["tool", "--directory", "tools", "show", "echo", "--json"]);
    assert_eq!(shown[0]["parameters"]["additionalProperties"], false);
    let checked = lines(&["tool", "check", "tools/echo.toml", "bad.toml", "--json"]);
    assert_eq!((&checked[0]["ok"], &checked[1]["ok"]), (&true.into(), &false.into()));
    assert!(checked[1]["errors"].as_array().unwrap().len() > 3);
}

/// What a daemon has in its configuration's directory it calls by name, whatever a client has in his; its refusals are told.
#[test]
fn a_daemon_calls_the_tools_that_it_has() {
    for mode in Mode::daemons_here() {
        let server = Ground::new(mode.server());
        let tools = server.configuration().join("tools");
        std::fs::create_dir_all(&tools).unwrap();
        let head = "name = \"say\"\ndescription = \"A test's.\"\nversion = \"1\"\n";
        let breaker = "[rate]\nper-minute = 2\nburst = 2\n";
        std::fs::write(tools.join("say.toml"), format!("{head}{ECHO}{breaker}")).unwrap();
        for made in [server.configuration(), tools.clone(), tools.join("say.toml")] {
            mode.server().own(&made);
        }
        let daemon = Daemon::start_at(server, &[]);
        let ground = Ground::new(mode.client());
        let call = |name: &str, parameters: &str| {
            let mut command = daemon.ask(&ground, &["tool", "call", name, parameters]);
            command.current_dir(ground.work());
            Ended::of(command)
        };
        call("say", r#"{"text":"-x y","list":["a","b c"]}"#).expect_code(0).expect_text("[-x y] a b c");
        // Of what can't be, nothing is run, and of what is unknown neither.
        call("say", r#"{"text":1}"#).expect_code(125).expect_errors(&["/text"]);
        call("sya", "{}").expect_code(125).expect_errors(&["say"]);
        call("say", r#"{"text":"again"}"#).expect_code(125).expect_errors(&["(rate: say.toml"]);
    }
}

const RESULT: &str = r#"
policy = "default"
[command]
program = "/bin/echo"
arguments = ["{json:text}"]
[parameters]
type = "object"
required = ["json"]
properties.json = { type = "string" }
[result]
type = "object"
required = ["count"]
properties.count = { type = "integer", minimum = 1 }
"#;

/// What a tool prints is told as it comes; who relies on what its file promises is told where it isn't that.
#[test]
fn a_success_that_isnt_what_the_tool_promises_is_none() {
    let held = |call: &dyn Fn(&[&str]) -> Ended| {
        call(&["count", r#"{"json":"{\"count\":3}"}"#]).expect_code(0).expect_text(r#"{"count":3}"#);
        let wrong = ["count", r#"{"json":"{\"count\":0}"}"#];
        let ended = call(&wrong);
        let why = "the tool didn't print what it promises: /count: expected at least 1, got 0";
        ended.expect_code(125).expect_errors(&[why]);
        assert_eq!(ended.text(), r#"{"count":0}"#);
        let told = call(&["--json", wrong[0], wrong[1]]);
        let told = told.expect_code(125).text();
        let last: serde_json::Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
        assert_eq!(last["event"]["exited"]["result_check"]["fits"], false, "{told}");
    };
    for ground in grounds() {
        put(&ground, "count", RESULT);
        held(&|words| {
            let words = [&["tool", "--directory", "tools", "call", "--embedded"], words].concat();
            stockade(&ground, &words)
        });
    }
    for mode in Mode::daemons_here() {
        let server = Ground::new(mode.server());
        let text = format!("name = \"count\"\ndescription = \"A test's.\"\nversion = \"1\"\n{RESULT}");
        std::fs::create_dir_all(server.configuration().join("tools")).unwrap();
        server.configure(&[("tools/count.toml", &text)]);
        let daemon = Daemon::start_at(server, &[]);
        let ground = Ground::new(mode.client());
        held(&|words| {
            let mut command = daemon.ask(&ground, &[&["tool", "call"], words].concat());
            command.current_dir(ground.work());
            Ended::of(command)
        });
    }
}

/// What a start or a reload would refuse of the gate's files, `config check` does, with file, line and key.
#[test]
fn config_check_looks_at_tools_and_limits() {
    let person = Person::user();
    let ground = Ground::new(person);
    let configuration = ground.configuration();
    std::fs::create_dir_all(configuration.join("tools")).unwrap();
    let head = "name = \"say\"\ndescription = \"A test's.\"\nversion = \"1\"\n";
    let files =
        [("tools/say.toml", format!("{head}{ECHO}")), ("limits.toml", "[rate]\neach = \"1/s\"\n".into())];
    let put = |name: &str, text: &str| std::fs::write(configuration.join(name), text).unwrap();
    files.iter().for_each(|(name, text)| put(name, text));
    for made in ["", "tools", "tools/say.toml", "limits.toml"] {
        person.own(&configuration.join(made));
    }
    stockade(&ground, &["config", "check"]).expect_code(0);
    put("tools/say.toml", &format!("{head}{ECHO}\n[rates]\n"));
    put("limits.toml", "[rate]\neach = \"often\"\n");
    let told = stockade(&ground, &["config", "check"]);
    let text = told.expect_code(1).text();
    for said in ["tools/say.toml:", "unknown key `rates`", "limits.toml:2:8"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    let json = stockade(&ground, &["config", "check", "--json"]);
    let first = json.expect_code(1).text();
    let first: serde_json::Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    let errors = first["errors"].as_array().unwrap();
    assert!(errors.iter().any(|error| error["line"] == 2 && error["key"] == "each"), "{first}");
}
