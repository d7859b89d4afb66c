//! JSON-RPC on the daemon's socket: what editors, agents and scripts are answered, in either framing, and that it's the same run
//! with the same events as a binary client's. `hostile` has clients that are broken or mean, `document` the page and the examples.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

mod document;
mod hostile;

use serde_json::{Value, json};
use stockade_tests::json::{Json, bytes, exec, output};
use stockade_tests::wire::{Wire, request, workspace};
use stockade_tests::{Daemon, Ground, Mode, Person, not_tested, wait_until};

/// With the shared daemon of each mode.
pub(crate) fn each(test: impl Fn(&Daemon, Person)) {
    for mode in Mode::daemons_here() {
        test(&Daemon::shared(mode), mode.client());
    }
}

fn methods(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(method, _)| method.as_str()).collect()
}

#[test]
fn a_run_is_answered_with_its_id_and_told_to_its_end_in_either_framing() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        for mut json in [Json::opened(daemon, person), Json::opened_with_headers(daemon, person)] {
            let run = json
                .result("exec", exec(&ground, "default", &["sh", "-c", "echo out; echo oops >&2; exit 7"]));
            let events = json.follow(&run["execId"]);
            assert_eq!(methods(&events).first(), Some(&"run/started"), "{events:?}");
            assert_eq!(output(&events, "stdout"), b"out\n");
            assert_eq!(output(&events, "stderr"), b"oops\n");
            let (_, exited) = events.last().unwrap();
            assert_eq!(exited["outcome"], json!({ "kind": "exited", "code": 7 }));
            assert!(exited["usage"]["wallUs"].as_u64().unwrap() > 0);
            let seqs: Vec<u64> = events.iter().map(|(_, params)| params["seq"].as_u64().unwrap()).collect();
            assert_eq!(seqs, (2..2 + seqs.len() as u64).collect::<Vec<_>>());
            let (_, started) = &events[0];
            assert_eq!(started["confinement"]["policyDigest"].as_str().unwrap().len(), 64);
        }
    });
}

/// The workspace is the caller's: opened as the peer, whoever the daemon is.
#[test]
fn a_workspace_is_opened_as_the_peer() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        let mut json = Json::opened(daemon, person);
        let mut asked = exec(&ground, "default", &["sh", "-c", "echo written > file && stat -c %u file"]);
        asked["wait"] = json!(true);
        let ended = json.result("exec", asked);
        assert_eq!(ended["outcome"]["kind"], "exited", "{ended}");
        assert_eq!(std::fs::read_to_string(ground.work().join("file")).unwrap(), "written\n");
        if person.is_root() {
            return;
        }
        // What its opener may not enter is none.
        let closed = Ground::new(Person::me());
        if Person::me().is_root() {
            let mut asked = exec(&closed, "default", &["true"]);
            asked["wait"] = json!(true);
            std::fs::set_permissions(closed.work(), std::os::unix::fs::PermissionsExt::from_mode(0o700))
                .unwrap();
            let ended = json.result("exec", asked);
            assert_eq!(ended["outcome"]["kind"], "setup-failed", "{ended}");
        }
    });
}

#[test]
fn a_run_that_is_waited_for_is_answered_with_its_output() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        let mut json = Json::opened(daemon, person);
        let mut asked = exec(&ground, "default", &["sh", "-c", "printf 'h\\303\\251'; printf '\\377' >&2"]);
        asked["wait"] = json!(true);
        let ended = json.result("exec", asked);
        assert_eq!(ended["stdout"], "h\u{e9}");
        assert_eq!(ended["stderr"], json!({ "base64": "/w==" }));
        assert_eq!(
            (&ended["truncated"], &ended["outcome"]),
            (&json!(false), &json!({ "kind": "exited", "code": 0 }))
        );
        // Far more than is kept, and than the ring holds: the run isn't held up by it.
        let mut asked = exec(&ground, "test-long", &["head", "-c", "5000000", "/dev/zero"]);
        asked["wait"] = json!(true);
        let ended = json.result("exec", asked);
        assert_eq!((&ended["truncated"], &ended["outcome"]["kind"]), (&json!(true), &json!("exited")));
        assert_eq!(bytes(&ended["stdout"]), vec![0; 256 * 1024]);
        assert_eq!(ended["usage"]["bytesOut"], 5_000_000);
        assert!(json.try_next(std::time::Duration::from_millis(200)).is_none(), "nothing else is told of it");
    });
}

/// Each of thousands of characters is cut somewhere; none of it shows.
#[test]
fn text_stays_text_wherever_its_chunks_are_cut_and_bytes_come_whole() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        ground.put("text", "\u{20ac}\u{e9}x\u{1f600}".repeat(60_000));
        ground.put("bytes", (0..600_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
        let mut json = Json::opened(daemon, person);
        for (line, name, is_text) in [("cat text", "text", true), ("cat bytes", "bytes", false)] {
            let run = json.result("exec", exec(&ground, "test-long", &["sh", "-c", line]));
            let events = json.follow(&run["execId"]);
            let came = output(&events, "stdout");
            assert!(came == std::fs::read(ground.work().join(name)).unwrap(), "{name}: {} bytes", came.len());
            let is_string =
                |(_, params): &(String, Value)| params["data"].is_string() || params["data"].is_null();
            assert_eq!(events.iter().all(is_string), is_text, "{name}");
        }
        // What is held to the end comes before it.
        let run = json.result("exec", exec(&ground, "default", &["printf", "a\\303"]));
        let events = json.follow(&run["execId"]);
        assert_eq!(output(&events, "stdout"), b"a\xc3");
        assert_eq!(events.last().unwrap().0, "run/exited");
    });
}

#[test]
fn input_reaches_a_run_in_pieces_and_in_line() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        let mut json = Json::opened(daemon, person);
        let mut asked = exec(&ground, "default", &["cat"]);
        asked["stdin"] = json!("stream");
        let run = json.result("exec", asked)["execId"].take();
        assert_eq!(json.result("stdin", json!({ "execId": run, "data": "text " })), json!({}));
        json.result("stdin", json!({ "execId": run, "data": { "base64": "/wA=" }, "eof": true }));
        assert_eq!(output(&json.follow(&run), "stdout"), b"text \xff\0");
        let mut asked = exec(&ground, "default", &["cat"]);
        asked["stdin"] = json!({ "inline": "in line" });
        asked["wait"] = json!(true);
        assert_eq!(json.result("exec", asked)["stdout"], "in line");
        // The feed fills, and reading stops until there is room: nothing is lost.
        let mut asked = exec(&ground, "default", &["sh", "-c", "sleep 0.3; wc -c"]);
        asked["stdin"] = json!("stream");
        let run = json.result("exec", asked)["execId"].take();
        for _ in 0..40 {
            json.ask("stdin", &json!({ "execId": run, "data": "x".repeat(100_000) }));
        }
        json.ask("stdin", &json!({ "execId": run, "eof": true }));
        assert_eq!(output(&json.follow(&run), "stdout").trim_ascii(), b"4000000");
    });
}

#[test]
fn runs_are_cancelled_signalled_and_listed() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        let mut json = Json::opened(daemon, person);
        let run = json.result("exec", exec(&ground, "default", &["sleep", "50"]))["execId"].take();
        let runs = json.result("list", json!({}));
        let listed = runs["runs"].as_array().unwrap().iter().find(|listed| listed["execId"] == run).unwrap();
        assert_eq!((&listed["policy"], &listed["command"]), (&json!("default"), &json!("sleep 50")));
        json.result("cancel", json!({ "execId": run }));
        let events = json.follow(&run);
        assert_eq!(
            events.last().unwrap().1["outcome"],
            json!({ "kind": "cancelled", "reason": { "kind": "asked" } })
        );
        let run = json.result("exec", exec(&ground, "default", &["sleep", "50"]))["execId"].take();
        assert_eq!(json.message()["method"], "run/started");
        json.result("signal", json!({ "execId": run, "signal": 15 }));
        assert_eq!(json.follow(&run).last().unwrap().1["outcome"]["signal"], 15);
        json.result("resize", json!({ "execId": run, "rows": 5, "columns": 5 }));
        let error =
            json.error("signal", json!({ "execId": "01900000-0000-7000-8000-000000000001", "signal": 15 }));
        assert_eq!((&error["code"], &error["data"]["reason"]), (&json!(-32_001), &json!("unknown-run")));
        assert_eq!(error["data"]["execId"], "01900000-0000-7000-8000-000000000001");
    });
}

/// As editors cancel: by the request's id. One that was answered already isn't anybody's.
#[test]
fn a_request_that_is_waited_for_is_cancelled_by_its_id() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        let mut json = Json::opened_with_headers(daemon, person);
        let mut asked = exec(&ground, "default", &["sleep", "50"]);
        asked["wait"] = json!(true);
        json.send(&json!({ "jsonrpc": "2.0", "id": "mine", "method": "exec", "params": asked }));
        assert!(wait_until(std::time::Duration::from_secs(30), || {
            let runs = json.result("list", json!({}));
            runs["runs"].as_array().unwrap().iter().any(|run| run["state"]["kind"] == "running")
        }));
        json.send(&json!({ "jsonrpc": "2.0", "method": "$/cancelRequest", "params": { "id": "nobody's" } }));
        json.send(&json!({ "jsonrpc": "2.0", "method": "$/cancelRequest", "params": { "id": "mine" } }));
        assert_eq!(json.answer(&json!("mine"))["result"]["outcome"]["reason"]["kind"], "asked");
    });
}

#[test]
fn a_run_is_attached_to_after_a_number() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        let mut json = Json::opened(daemon, person);
        let line = "for i in 1 2 3 4 5 6; do echo line $i; sleep 0.05; done; sleep 1";
        let mut asked = exec(&ground, "default", &["sh", "-c", line]);
        asked["detach"] = json!(true);
        let run = json.result("exec", asked)["execId"].take();
        let first = loop {
            let message = json.message();
            if message["method"] == "run/output" {
                break message["params"].clone();
            }
        };
        drop(json);
        let mut again = Json::opened(daemon, person);
        assert_eq!(again.result("attach", json!({ "execId": run, "afterSeq": first["seq"] })), json!({}));
        let error = again.error("attach", json!({ "execId": run }));
        assert_eq!(error["data"]["reason"], "bad-request", "it's followed already");
        let events = again.follow(&run);
        let whole = [bytes(&first["data"]), output(&events, "stdout")].concat();
        assert_eq!(whole, b"line 1\nline 2\nline 3\nline 4\nline 5\nline 6\n");
        again.result("acknowledge", json!({ "execId": run, "seq": events.last().unwrap().1["seq"] }));
    });
}

#[test]
fn who_attaches_from_the_beginning_is_told_that_it_was_accepted() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        let mut json = Json::opened(daemon, person);
        let run = json.result("exec", exec(&ground, "default", &["sleep", "1"]))["execId"].take();
        let mut other = Json::opened(daemon, person);
        other.result("attach", json!({ "execId": run }));
        let events = other.follow(&run);
        assert_eq!(methods(&events), ["run/accepted", "run/started", "run/exited"]);
    });
}

/// A character whose first byte was told about to another connection.
#[test]
fn who_attaches_within_a_character_is_given_it_whole() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        let mut json = Json::opened(daemon, person);
        let line = "printf 'a\\303'; sleep 0.7; printf '\\251b'; sleep 1";
        let mut asked = exec(&ground, "default", &["sh", "-c", line]);
        asked["detach"] = json!(true);
        let run = json.result("exec", asked)["execId"].take();
        assert_eq!(json.message()["method"], "run/started");
        let first = json.message();
        assert_eq!(first["params"]["data"], "a");
        drop(json);
        let mut again = Json::opened(daemon, person);
        again.result("attach", json!({ "execId": run, "afterSeq": first["params"]["seq"] }));
        let events = again.follow(&run);
        assert_eq!(output(&events, "stdout"), "\u{e9}b".as_bytes(), "{events:?}");
    });
}

#[test]
fn what_is_refused_says_why_with_all_that_a_binary_client_is_told() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        let mut json = Json::opened(daemon, person);
        let error = json.error("exec", exec(&ground, "no-such-policy", &["true"]));
        assert_eq!((&error["code"], &error["data"]["reason"]), (&json!(-32_001), &json!("unknown-policy")));
        let mut asked = exec(&ground, "default", &["true"]);
        asked["workspace"] = json!("relative");
        assert_eq!(json.error("exec", asked)["data"]["reason"], "bad-request");
        let asked = json!({ "tool": "no-such-tool", "workspace": ground.work() });
        assert_eq!(json.error("call", asked)["data"]["reason"], "unknown-tool");
    });
}

#[test]
fn status_breakers_and_statistics_are_told() {
    each(|daemon, person| {
        let mut json = Json::opened(daemon, person);
        let status = json.result("status", json!({}));
        assert_eq!((&status["pid"], &status["draining"]), (&json!(daemon.pid()), &json!(false)));
        assert!(status["policies"].as_array().unwrap().contains(&json!("default")));
        assert_eq!(json.result("breakers", json!({})), json!({ "breakers": [] }));
        // Without files of statistics it's refused; which it is, each is answered by its own id.
        let id = json.ask("statistics", &json!({ "by": "policy" }));
        let status = json.ask("status", &json!({}));
        assert!(json.answer(&json!(status))["result"].is_object());
        let answer = json.answer(&json!(id));
        assert!(answer["result"]["rows"].is_array() || answer["error"]["code"] == -32_001, "{answer}");
    });
}

#[test]
fn a_policy_is_explained_as_the_command_line_does() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        let mut json = Json::opened(daemon, person);
        for (what, thing) in [
            ("read", "file"),
            ("write", ".git/hooks/pre-commit"),
            ("write", "~/.ssh/id_ed25519"),
            ("execute", "/usr/bin/env"),
            ("connect", "443"),
            ("env", "AWS_SECRET_ACCESS_KEY"),
            ("syscall", "ptrace"),
        ] {
            let asked =
                json!({ "policy": "default", "what": what, "thing": thing, "workspace": ground.work() });
            let told = json.result("policy/explain", asked);
            let mut command = ground.stockade();
            command
                .args(["policy", "explain", "default", what, thing, "--json", "--workspace"])
                .arg(ground.work());
            let said: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
            assert_eq!(told, said, "{what} {thing}");
        }
        let asked = |policy: &str, thing: &str| json!({ "policy": policy, "what": "connect", "thing": thing, "workspace": "/" });
        assert_eq!(json.error("policy/explain", asked("nobody's", "1"))["data"]["reason"], "unknown-policy");
        assert_eq!(json.error("policy/explain", asked("default", "http"))["data"]["reason"], "bad-request");
    });
}

/// A daemon with a policy that has a secret in it, and with rules by which only `permitted` may be used, or without.
fn with_a_secret_policy(permitted: Option<&str>) -> (Daemon, Person) {
    let mode = Mode::a_daemon();
    let ground = Ground::new(mode.server());
    let configuration = ground.configuration();
    std::fs::create_dir_all(configuration.join("policies")).unwrap();
    let prod = "extends = \"default\"\n[environment]\nset = { DEPLOY_TOKEN = \"hunter2-very-secret\" }\n";
    std::fs::write(configuration.join("policies/prod.toml"), prod).unwrap();
    if let Some(permitted) = permitted {
        let rule = format!(
            "permit (principal, action == Action::\"run\", resource == Policy::\"{permitted}\");\n\
            forbid (principal, action == Action::\"run\", resource) unless {{ resource == Policy::\"{permitted}\" }};\n"
        );
        std::fs::write(configuration.join("access.cedar"), rule).unwrap();
    }
    (Daemon::start_at(ground, &[]), mode.client())
}

#[test]
fn a_policy_is_explained_to_who_could_use_it_and_never_with_what_it_sets() {
    let asked = |policy: &str, what: &str, thing: &str| json!({ "policy": policy, "what": what, "thing": thing, "workspace": "/srv/project" });
    for (permitted, sees_prod) in [(None, true), (Some("prod"), true), (Some("default"), false)] {
        let (daemon, person) = with_a_secret_policy(permitted);
        let mut json = Json::opened(&daemon, person);
        let token = asked("prod", "env", "DEPLOY_TOKEN");
        if sees_prod {
            let told = json.result("policy/explain", token);
            assert_eq!((&told["allowed"], &told["note"]), (&json!(true), &json!("")), "{told}");
            assert!(!told.to_string().contains("hunter2"), "{told}");
            let file = told["file"].as_str().unwrap();
            // root may look into the daemon.
            assert_eq!(file.starts_with('/'), permitted.is_none() || person.is_root(), "{file}");
            continue;
        }
        // What there isn't is refused alike, and nothing that there is is named.
        let (of, none) =
            (json.error("policy/explain", token), json.error("policy/explain", asked("nope", "env", "A")));
        assert_eq!(of, none);
        assert_eq!(of["data"]["reason"], "not-permitted");
        assert!(!of.to_string().contains("prod"), "{of}");
        let told = json.result("policy/explain", asked("default", "env", "PATH"));
        assert_eq!(told["policy"], "default");
    }
}

/// Root at a user's daemon is there for approvals.
#[test]
fn a_visitor_is_told_how_the_daemon_is_and_whatever_else_he_asks_ends_his_connection() {
    if !Person::me().is_root() {
        return not_tested("root at a user's daemon", "that takes root");
    }
    let user = Person::user();
    let daemon = Daemon::start_at(Ground::new(user), &[]);
    let explain = json!({ "policy": "default", "what": "env", "thing": "A", "workspace": "/srv/project" });
    for (method, params) in
        [("policy/explain", explain.clone()), ("list", json!({})), ("statistics", json!({}))]
    {
        let mut json = Json::opened(&daemon, Person::me());
        assert!(json.result("status", json!({})).is_object());
        json.send(&json!({ "jsonrpc": "2.0", "id": "other", "method": method, "params": params }));
        let told = json.message();
        assert_eq!(
            (&told["id"], &told["error"]["data"]["reason"]),
            (&Value::Null, &json!("not-permitted")),
            "{method}: {told}"
        );
        assert!(json.is_closed(), "{method}");
    }
    // Whose daemon it is may ask that.
    assert!(Json::opened(&daemon, user).result("policy/explain", explain).is_object());
}

#[test]
fn a_batch_is_answered_in_one_piece() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        let mut json = Json::opened(daemon, person);
        let mut waited = exec(&ground, "default", &["echo", "hello"]);
        waited["wait"] = json!(true);
        json.send(&json!([
            { "jsonrpc": "2.0", "id": "run", "method": "exec", "params": waited },
            { "jsonrpc": "2.0", "method": "$/whatever" },
            { "jsonrpc": "2.0", "id": "status", "method": "status" },
            { "jsonrpc": "2.0", "id": "none", "method": "no/such/method" },
            7,
        ]));
        let answers = json.message();
        let of =
            |id: Value| answers.as_array().unwrap().iter().find(|answer| answer["id"] == id).unwrap().clone();
        assert_eq!(answers.as_array().unwrap().len(), 4, "{answers}");
        assert_eq!(of(json!("run"))["result"]["stdout"], "hello\n");
        assert!(of(json!("status"))["result"]["version"].is_string());
        assert_eq!(of(json!("none"))["error"]["code"], -32_601);
        assert_eq!(of(Value::Null)["error"]["code"], -32_600);
        json.send(&json!([{ "jsonrpc": "2.0", "method": "$/whatever" }]));
        assert!(json.result("status", json!({})).is_object(), "of notifications alone nothing comes");
    });
}

/// Both clients see the same run, and what one asks for the other may end.
#[test]
fn a_binary_client_and_one_of_json_see_the_same_runs() {
    each(|daemon, person| {
        let ground = Ground::new(person);
        let mut json = Json::opened(daemon, person);
        let mut binary = Wire::greeted(daemon, person);
        let asked = request(&ground, "default", &["sh", "-c", "echo one; sleep 50"]);
        let folder = workspace(&ground);
        binary.send(
            &stockade_protocol::client::ClientMessage::Exec(Box::new(asked)),
            &[std::os::fd::AsFd::as_fd(&folder)],
        );
        let run = json!(binary.accepted().to_string());
        json.result("attach", json!({ "execId": run }));
        assert_eq!(json.message()["method"], "run/accepted");
        json.result("cancel", json!({ "execId": run }));
        let events = json.follow(&run);
        assert_eq!(events.last().unwrap().1["outcome"]["kind"], "cancelled");
        let same = binary.follow();
        assert_eq!(same.len(), events.len(), "{same:?} {events:?}");
    });
}

/// Named and not shown, over every split of writes, told as it comes, in one piece, and to who attaches in the middle; and shown
/// under a policy that hides nothing.
#[test]
fn a_secret_is_hidden_here_too_and_shown_where_no_policy_hides_it() {
    const VALUE: &str = "c0rrect-horse-b\u{e4}ttery";
    const MARK: &str = "[redacted:API_TOKEN]";
    let mode = Mode::a_daemon();
    let ground = Ground::new(mode.server());
    for (name, rest) in [("hides", "[output]\nredact = true\n"), ("shows", "")] {
        let text = format!("extends = \"default\"\n[environment]\nallow = [\"API_TOKEN\"]\n{rest}");
        std::fs::write(ground.policies().join(format!("{name}.toml")), text).unwrap();
    }
    ground.person.own_all(&ground.policies());
    let daemon = Daemon::start_at(ground, &[]);
    let ground = Ground::new(mode.client());
    let line = "for ((i = 1; i < ${#API_TOKEN}; i++)); do printf %s \"${API_TOKEN:0:i}\"; printf '%s\\n' \"${API_TOKEN:i}\"; done; \
                printf '\\303'; sleep 0.3; printf '\\251\\n'";
    let mut json = Json::opened(&daemon, mode.client());
    for (policy, shown) in [("hides", MARK), ("shows", VALUE)] {
        let expected = format!("{shown}\n").repeat(VALUE.chars().count() - 1) + "\u{e9}\n";
        let mut asked = exec(&ground, policy, &["bash", "-c", line]);
        asked["env"]["API_TOKEN"] = json!(VALUE);
        asked["env"]["LC_ALL"] = json!("C.UTF-8");
        asked["detach"] = json!(true);
        let run = json.result("exec", asked.clone())["execId"].take();
        let mut other = Json::opened(&daemon, mode.client());
        other.result("attach", json!({ "execId": run }));
        for events in [json.follow(&run), other.follow(&run)] {
            let text = String::from_utf8(output(&events, "stdout")).unwrap();
            assert_eq!(text, expected, "{policy}");
            assert!(events.iter().all(|(_, params)| !params["data"].is_object()), "cut within a character");
            assert_eq!(events.last().unwrap().1["redactions"].is_null(), policy == "shows");
        }
        asked["wait"] = json!(true);
        assert_eq!(json.result("exec", asked)["stdout"], expected, "{policy}");
    }
}
