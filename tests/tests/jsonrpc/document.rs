//! docs/jsonrpc.md, whose examples are tried word for word, and `examples/`, each run where its interpreter is there.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use stockade_tests::json::Json;
use stockade_tests::{Daemon, Ended, Ground, Mode, Person, not_tested, program};

const PAGE: &str = include_str!("../../../docs/jsonrpc.md");

const GREET: &str = r#"
name = "greet"
description = "Greets."
version = "1"
policy = "default"
[command]
program = "/bin/echo"
arguments = ["hello", "{name:text}"]
[parameters]
type = "object"
required = ["name"]
properties.name = { type = "string" }
"#;

/// The workspace that the page names.
const WORKSPACE: &str = "/home/me/project";

/// What the page calls a run, and what it is.
type Names = HashMap<String, String>;

fn is_run(text: &str) -> bool {
    text.len() == 36 && text.starts_with("01a207c7-")
}

/// Whether what came is what the page says. `…` stands for anything, as a value or as all other keys; a run's id that is new on the
/// page is that of the run.
fn matches(page: &Value, came: &Value, names: &mut Names) -> bool {
    match (page, came) {
        (Value::String(text), _) if text == "…" => true,
        (Value::String(text), Value::String(came)) if is_run(text) => {
            names.entry(text.clone()).or_insert_with(|| came.clone()) == came
        }
        (Value::Object(page), Value::Object(came)) => {
            let is_open = page.contains_key("…");
            let known = page.iter().filter(|(key, _)| *key != "…");
            known.clone().all(|(key, value)| came.get(key).is_some_and(|came| matches(value, came, names)))
                && (is_open || came.len() == known.count())
        }
        (Value::Array(page), Value::Array(came)) => {
            page.len() == came.len() && page.iter().zip(came).all(|(page, came)| matches(page, came, names))
        }
        _ => page == came,
    }
}

/// A daemon of its own, with the page's tool.
fn daemon() -> (Daemon, Person) {
    let mode = Mode::a_daemon();
    let ground = Ground::new(mode.server());
    let tools = ground.configuration().join("tools");
    std::fs::create_dir_all(&tools).unwrap();
    std::fs::write(tools.join("greet.toml"), GREET).unwrap();
    (Daemon::start_at(ground, &[]), mode.client())
}

#[test]
fn examples_of_the_page_come_out_as_it_says() {
    let (daemon, person) = daemon();
    let ground = Ground::new(person);
    let work = ground.work().to_str().unwrap().to_owned();
    let mut json = Json::connect(&daemon, person);
    let (mut names, mut tried) = (Names::new(), 0);
    for block in PAGE.split("```jsonrpc\n").skip(1) {
        let block = block.split("```").next().unwrap();
        for line in block.lines() {
            if let Some(sent) = line.strip_prefix("--> ") {
                let mut sent = sent.replace(WORKSPACE, &work);
                for (name, run) in &names {
                    sent = sent.replace(name, run);
                }
                json.wire.send_bytes(format!("{sent}\n").as_bytes()).unwrap();
            } else {
                let page: Value = serde_json::from_str(line.strip_prefix("<-- ").unwrap()).unwrap();
                let came = json.message();
                assert!(matches(&page, &came, &mut names), "the page says\n{page}\nand it was\n{came}");
                tried += 1;
            }
        }
    }
    assert!(tried > 35, "only {tried} lines of the page were found");
    assert_eq!(json.try_next(Duration::from_millis(200)), None);
}

#[test]
fn methods_and_notifications_are_all_on_the_page() {
    let (daemon, person) = daemon();
    let mut json = Json::connect(&daemon, person);
    let opened = json.result("initialize", json!({}));
    let names =
        |of: &str| -> Vec<String> { serde_json::from_value(opened["capabilities"][of].clone()).unwrap() };
    for method in names("methods") {
        assert!(PAGE.contains(&format!("### `{method}`\n")), "{method}");
        assert!(PAGE.contains(&format!("\"method\":\"{method}\"")), "{method} has no example");
    }
    for notification in names("notifications") {
        assert!(PAGE.contains(&format!("| `{notification}` |")), "{notification}");
    }
}

fn example(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples").join(name);
    let lines = std::fs::read_to_string(&path).unwrap().lines().count();
    assert!(lines < 70, "{name} has {lines} lines");
    path
}

/// Runs an example three times: output on both streams and a status; text and bytes; a refusal.
fn try_example(name: &str, interpreter: &str, has_bytes: bool) {
    let (daemon, person) = daemon();
    let ground = Ground::new(person);
    // Where whoever runs it can read it.
    let script = ground.put(name, std::fs::read_to_string(example(name)).unwrap());
    let run = |words: &[&str]| {
        let mut command: Command = ground.command(interpreter);
        command.arg(&script).args(words).env("STOCKADE_SOCKET", &daemon.socket).current_dir(ground.work());
        Ended::of(command)
    };
    let ended = run(&["sh", "-c", "echo out; echo oops >&2; pwd; exit 7"]);
    ended.expect_code(7);
    assert_eq!(ended.stdout, format!("out\n{}\n", ground.work().display()).as_bytes(), "{name}");
    assert_eq!(ended.errors(), "oops", "{name}");
    let ended = run(&["-p", "test-long", "sh", "-c", "printf 'h\\303'; sleep 0.2; printf '\\251!'"]);
    ended.expect_code(0);
    assert_eq!(ended.text(), "h\u{e9}!", "{name}");
    if has_bytes {
        assert_eq!(run(&["printf", "\\377\\000"]).stdout, b"\xff\0", "{name}");
    }
    let ended = run(&["-p", "nobodys", "true"]);
    assert_ne!(ended.code, Some(0), "{name}");
    assert!(ended.errors().contains("nobodys"), "{name}");
    has_no_end(&ground, name, interpreter, &script);
}

/// A daemon that says yes and is gone: no run has ended, and no example says that one has.
fn has_no_end(ground: &Ground, name: &str, interpreter: &str, script: &Path) {
    let socket = ground.work().join("gone.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    let gone = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut came = Vec::new();
        while !came.windows(6).any(|six| six == b"\"exec\"") {
            let mut piece = [0; 4096];
            let length = stream.read(&mut piece).unwrap();
            assert!(length > 0);
            came.extend_from_slice(&piece[..length]);
        }
        let answer = r#"{"jsonrpc":"2.0","id":2,"result":{"execId":"01a207c7-d40a-75b1-b016-1d44fae7c6e9"}}"#;
        let text = if came.starts_with(b"Content-Length") {
            format!("Content-Length: {}\r\n\r\n{answer}", answer.len())
        } else {
            format!("{answer}\n")
        };
        stream.write_all(text.as_bytes()).unwrap();
    });
    let mut command: Command = ground.command(interpreter);
    command.arg(script).arg("true").env("STOCKADE_SOCKET", &socket).current_dir(ground.work());
    let ended = Ended::of(command);
    gone.join().unwrap();
    assert!(ended.code.is_some_and(|code| code != 0), "{name}: {}", ended.story());
}

#[test]
fn example_in_python_runs_commands() {
    match program("python3") {
        Some(_) => try_example("exec.py", "python3", true),
        None => not_tested("examples/exec.py", "there is no python3"),
    }
}

#[test]
fn example_in_node_runs_commands() {
    match program("node") {
        Some(_) => try_example("exec.mjs", "node", true),
        None => not_tested("examples/exec.mjs", "there is no node"),
    }
}

#[test]
fn example_in_shell_runs_commands() {
    match (program("socat"), program("jq")) {
        (Some(_), Some(_)) => try_example("exec.sh", "sh", false),
        _ => not_tested("examples/exec.sh", "there is no socat, or no jq"),
    }
}

/// Bytes that are no text as their numbers.
const DRIVE: &str = r#"
local stockade, over = dofile(vim.env.EXAMPLE), false
local function shown(text)
  return (text:gsub("[^%g\n ]", function(byte) return ("\\%03d"):format(byte:byte()) end))
end
stockade.exec({ "sh", "-c", "echo out; sleep 0.3; printf '\\377\\000+\\n'; exit 7" }, {
  output = function(stream, text) io.write(stream, " ", shown(text)) end,
  exit = function(outcome) io.write(outcome.kind, " ", outcome.code, "\n") over = true end,
  error = function(text) io.write("error ", text, "\n") over = true end,
})
vim.wait(20000, function() return over end)
"#;

const COMMAND: &str = r#"
dofile(vim.env.EXAMPLE)
vim.cmd("Stockade printf one\\\\ntwo\\\\n")
local function text() return table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), "\n") end
vim.wait(20000, function() return text():find("%[") ~= nil end)
io.write(text())
"#;

#[test]
fn example_in_lua_runs_commands() {
    let Some(nvim) = program("nvim") else {
        return not_tested("examples/stockade.lua", "there is no nvim");
    };
    let mut version = Command::new(&nvim);
    let version = version.arg("--version").output().unwrap().stdout;
    let release = String::from_utf8_lossy(&version).split_whitespace().nth(1).unwrap().to_owned();
    let numbers: Vec<u32> = release.split(['v', '.', '-']).filter_map(|part| part.parse().ok()).collect();
    if numbers < vec![0, 7] {
        return not_tested("examples/stockade.lua", &format!("nvim is {release}, and it needs 0.7"));
    }
    let (daemon, person) = daemon();
    let ground = Ground::new(person);
    let script = ground.put("stockade.lua", std::fs::read_to_string(example("stockade.lua")).unwrap());
    let drive = |name: &str, lines: &str| {
        let mut command: Command = ground.command(&nvim);
        let drive = ground.put(name, lines);
        command.args(["--headless", "--clean", "-c"]).arg(format!("luafile {}", drive.display()));
        command.args(["-c", "qa!"]).env("EXAMPLE", &script).env("STOCKADE_SOCKET", &daemon.socket);
        Ended::of({
            command.current_dir(ground.work());
            command
        })
    };
    let ended = drive("drive.lua", DRIVE);
    assert_eq!(ended.text(), "stdout out\nstdout \\255\\000+\nexited 7", "{}", ended.errors());
    // What it's for: an editor's command.
    let ended = drive("command.lua", COMMAND);
    assert_eq!(ended.text(), "one\ntwo\n\n[exited 0]", "{}", ended.errors());
}
