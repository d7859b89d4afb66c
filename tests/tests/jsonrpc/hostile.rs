//! Clients that are broken or mean: they're told, or told and closed, and a binary client beside them goes on.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stockade_protocol::client::ExecEvent;
use stockade_protocol::outcome::Outcome;
use stockade_tests::json::{Json, exec};
use stockade_tests::wire::{Wire, request, workspace};
use stockade_tests::{Daemon, Ground, Mode, Person, left};

/// Does something with a daemon, while a binary client is connected, and looks whether that gets its run afterwards.
fn beside_a_binary_client(attack: impl Fn(&Daemon, Person)) {
    super::each(|daemon, person| {
        let ground = Ground::new(person);
        let mut honest = Wire::greeted(daemon, person);
        attack(daemon, person);
        let began = Instant::now();
        let events = honest.run(request(&ground, "default", &["echo", "fine"]), &workspace(&ground));
        let fine = matches!(
            &events.last().unwrap().1,
            ExecEvent::Exited { outcome: Outcome::Exited { code: 0 }, .. }
        );
        assert!(fine && began.elapsed() < Duration::from_secs(30), "{events:?}");
    });
}

/// The connection must be told an error without an id, of this code, and be closed.
#[track_caller]
fn expect_closed(json: &mut Json, code: i64) {
    let told = json.message();
    assert_eq!((&told["id"], &told["error"]["code"]), (&Value::Null, &json!(code)), "{told}");
    assert!(!told["error"]["message"].as_str().unwrap().is_empty());
    assert!(json.is_closed());
}

#[test]
fn half_a_line_of_a_gibibyte_is_refused_at_the_bound() {
    beside_a_binary_client(|daemon, person| {
        let memory = left::resident(daemon.pid());
        let mut json = Json::opened(daemon, person);
        json.wire.send_bytes(b"{\"jsonrpc\":\"2.0\",\"x\":\"").unwrap();
        let piece = vec![b'x'; 1024 * 1024];
        let sent = (0..1024).take_while(|_| json.wire.send_bytes(&piece).is_ok()).count();
        assert!(sent < 64, "{sent} MiB were taken");
        assert!(left::resident(daemon.pid()) < memory + 32 * 1024, "it was kept");
    });
    beside_a_binary_client(|daemon, person| {
        let mut json = Json::opened(daemon, person);
        json.wire.send_bytes(&[vec![b'{'; 1024 * 1024], vec![b'x'; 10]].concat()).unwrap();
        expect_closed(&mut json, -32_600);
    });
}

#[test]
fn nesting_of_a_hundred_thousand_is_answered() {
    beside_a_binary_client(|daemon, person| {
        let mut json = Json::opened(daemon, person);
        let deep = |open: &str, close: &str| [open.repeat(100_000), close.repeat(100_000)].concat();
        for params in [deep("[", "]"), format!("{{\"argv\":{}}}", deep("[", "]")), deep("{\"a\":", "}")] {
            let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"exec\",\"params\":{params}}}\n");
            json.wire.send_bytes(text.as_bytes()).unwrap();
            let code = json.message()["error"]["code"].take();
            assert!(code == -32_602 || code == -32_600 || code == -32_700, "{code}");
        }
        json.wire.send_bytes(format!("{}\n", deep("[", "]")).as_bytes()).unwrap();
        assert_eq!(json.message()[0]["error"]["code"], -32_600);
        json.wire.send_bytes(format!("{}\n", "[".repeat(100_000)).as_bytes()).unwrap();
        assert_eq!(json.message()["error"]["code"], -32_700);
        assert!(json.result("status", json!({})).is_object());
    });
}

#[test]
fn bytes_that_are_not_text_are_a_parse_error_and_the_connection_goes_on() {
    beside_a_binary_client(|daemon, person| {
        let mut json = Json::opened(daemon, person);
        for line in [&b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}\n"[..], b"{]\n", b"{\"a\":\xc3}\n"]
        {
            json.wire.send_bytes(line).unwrap();
            assert_eq!(json.message()["error"]["code"], -32_700);
        }
        assert!(json.result("status", json!({})).is_object());
    });
}

#[test]
fn methods_that_are_none_and_parameters_that_are_wrong_are_told_and_the_connection_goes_on() {
    beside_a_binary_client(|daemon, person| {
        let ground = Ground::new(person);
        let mut json = Json::opened(daemon, person);
        assert_eq!(json.error("session/open", json!({}))["code"], -32_601);
        assert_eq!(json.error(&"x".repeat(100_000), json!({}))["code"], -32_601);
        for (key, value) in [
            ("extra", json!(1)),
            ("argv", json!("true")),
            ("argv", json!([{ "base64": "%" }])),
            ("stdin", json!("descriptor")),
            ("overrides", json!({ "wall": 1 })),
            ("env", json!([["A", "b"]])),
        ] {
            let mut asked = exec(&ground, "default", &["true"]);
            asked[key] = value;
            assert_eq!(json.error("exec", asked)["code"], -32_602, "{key}");
        }
        assert_eq!(json.error("status", json!([1]))["code"], -32_602);
        assert_eq!(json.error("cancel", json!({ "execId": "x" }))["code"], -32_602);
        let twice = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"cancel\",\"params\":{\"execId\":\"a\",\"execId\":\"b\"}}\n";
        json.wire.send_bytes(twice.as_bytes()).unwrap();
        assert_eq!(json.message()["error"]["code"], -32_602);
        assert!(json.result("status", json!({})).is_object());
    });
}

#[test]
fn an_id_that_is_in_use_is_refused_and_the_first_request_is_answered() {
    beside_a_binary_client(|daemon, person| {
        let ground = Ground::new(person);
        let mut json = Json::opened(daemon, person);
        let mut asked = exec(&ground, "default", &["sleep", "1"]);
        asked["wait"] = json!(true);
        for id in [json!("a"), json!(7)] {
            json.send(&json!({ "jsonrpc": "2.0", "id": id, "method": "exec", "params": asked }));
            json.send(&json!({ "jsonrpc": "2.0", "id": id, "method": "status" }));
            let refused = json.message();
            assert_eq!((&refused["id"], &refused["error"]["code"]), (&id, &json!(-32_600)));
            assert_eq!(json.message()["result"]["outcome"]["kind"], "exited");
            json.send(&json!({ "jsonrpc": "2.0", "id": id, "method": "status" }));
            assert!(json.message()["result"].is_object(), "it may be used again");
        }
    });
}

#[test]
fn nothing_is_done_before_a_session_is_opened_and_it_is_opened_once() {
    beside_a_binary_client(|daemon, person| {
        let mut json = Json::connect(daemon, person);
        assert_eq!(json.error("status", json!({}))["code"], -32_002);
        let opened = json.result("initialize", json!({ "processId": 1, "capabilities": {} }));
        assert_eq!(opened["serverInfo"]["name"], "stockade");
        assert!(opened["capabilities"]["methods"].as_array().unwrap().contains(&json!("exec")));
        assert_eq!(json.error("initialize", json!({}))["code"], -32_600);
    });
}

#[test]
fn batches_of_none_and_of_too_many_are_one_error() {
    beside_a_binary_client(|daemon, person| {
        let mut json = Json::opened(daemon, person);
        let batch = |count| format!("[{}]\n", vec!["{}"; count].join(","));
        for count in [0, 257, 100_000] {
            json.wire.send_bytes(batch(count).as_bytes()).unwrap();
            let told = json.message();
            assert_eq!((&told["id"], &told["error"]["code"]), (&Value::Null, &json!(-32_600)), "{count}");
        }
        json.wire.send_bytes(batch(256).as_bytes()).unwrap();
        assert_eq!(json.message().as_array().unwrap().len(), 256);
    });
}

/// A batch of questions whose answers are some kilobytes each, and of a run that goes on.
fn hog(ground: &Ground, number: usize) -> Value {
    let mut open = exec(ground, "test-long", &["sleep", "30"]);
    open["wait"] = json!(true);
    let status = |at: usize| json!({ "jsonrpc": "2.0", "id": format!("{number}-{at}"), "method": "status" });
    let mut asked: Vec<Value> = (0..255).map(status).collect();
    asked.push(json!({ "jsonrpc": "2.0", "id": format!("{number}-open"), "method": "exec", "params": open }));
    json!(asked)
}

#[test]
fn answers_that_wait_for_the_last_of_their_batch_are_bounded_together() {
    beside_a_binary_client(|daemon, person| {
        let ground = Ground::new(person);
        let before = left::resident(daemon.pid());
        let mut json = Json::opened(daemon, person);
        for number in 0..16 {
            json.send(&hog(&ground, number));
        }
        // The next is refused whole, and so they were all read.
        json.send(&hog(&ground, 16));
        let refused = json.message();
        assert_eq!((&refused["id"], &refused["error"]["code"]), (&Value::Null, &json!(-32_600)), "{refused}");
        let (after, bound) = (left::resident(daemon.pid()), 24 * 1024);
        assert!(after < before + bound, "{before} to {after} KiB");
        let run = json.result("list", json!({}))["runs"][0]["execId"].take();
        json.result("cancel", json!({ "execId": run }));
        let answers = json.message();
        let answers = answers.as_array().unwrap();
        let end = answers
            .iter()
            .find(|answer| answer["id"].as_str().is_some_and(|id| id.ends_with("-open")))
            .unwrap();
        assert_eq!((answers.len(), &end["result"]["outcome"]["kind"]), (256, &json!("cancelled")));
    });
}

#[test]
fn two_framings_on_one_connection_end_it() {
    beside_a_binary_client(|daemon, person| {
        let mut json = Json::opened(daemon, person);
        json.wire.send_bytes(b"Content-Length: 2\r\n\r\n{}").unwrap();
        expect_closed(&mut json, -32_700);
        let mut json = Json::opened_with_headers(daemon, person);
        json.wire.send_bytes(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\"}\n").unwrap();
        expect_closed(&mut json, -32_700);
    });
}

#[test]
fn headers_that_are_none_end_the_connection() {
    beside_a_binary_client(|daemon, person| {
        for (header, code) in [
            ("Content-Length: 99999999999999999999\r\n\r\n", -32_600),
            ("Content-Length: 1048577\r\n\r\n", -32_600),
            ("Content-Length: -5\r\n\r\n", -32_700),
            ("Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", -32_700),
            ("Content-Type: application/json\r\n\r\n{}", -32_700),
            (&"Content-Type: x\r\n".repeat(10_000), -32_600),
        ] {
            let mut json = Json::opened_with_headers(daemon, person);
            // The daemon may close while we still send.
            let _ = json.wire.send_bytes(header.as_bytes());
            expect_closed(&mut json, code);
        }
    });
}

#[test]
fn descriptors_beside_json_end_the_connection() {
    beside_a_binary_client(|daemon, person| {
        let null = std::fs::File::open("/dev/null").unwrap();
        let mut json = Json::opened(daemon, person);
        json.wire.send_bytes_with(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\"}\n", &[null.as_fd()]);
        expect_closed(&mut json, -32_003);
        let mut json = Json::connect(daemon, person);
        json.wire
            .send_bytes_with(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\"}\n", &[null.as_fd()]);
        expect_closed(&mut json, -32_003);
    });
}

#[test]
fn a_message_at_one_byte_a_second_is_too_slow() {
    beside_a_binary_client(|daemon, person| {
        let mut json = Json::connect(daemon, person);
        let refused = b"{\"jsonrpc\":\"2.0\",\"id\":1".iter().position(|byte| {
            json.wire.send_bytes(&[*byte]).is_err() || json.try_next(Duration::from_secs(1)).is_some()
        });
        assert!(refused.is_some(), "it goes on for ever");
    });
}

/// Ten thousand requests are on their way, and none of their answers is read.
#[test]
fn a_client_that_pipelines_and_reads_nothing_stops_itself_only() {
    for mode in Mode::daemons_here() {
        // Of its own: others would change how much memory it has.
        let daemon = Daemon::start(mode.server(), &[]);
        let ground = Ground::new(mode.client());
        let mut honest = Wire::greeted(&daemon, mode.client());
        let memory = left::resident(daemon.pid());
        let mut deaf = Json::opened(&daemon, mode.client());
        deaf.wire.set_patience(Duration::from_secs(2));
        let line = |id: usize| format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"status\"}}\n");
        let whole: String = (0..10_000).map(line).collect();
        let _ = deaf.wire.send_bytes(whole.as_bytes());
        let events = honest.run(request(&ground, "default", &["echo", "fine"]), &workspace(&ground));
        assert!(matches!(
            events.last().unwrap().1,
            ExecEvent::Exited { outcome: Outcome::Exited { code: 0 }, .. }
        ));
        assert!(left::resident(daemon.pid()) < memory + 16 * 1024, "the daemon keeps what nobody reads");
        // It reads after all: each that was taken is answered, in its order.
        for id in 0..2_000 {
            let told = deaf.message();
            assert_eq!(told["id"], id);
            assert!(told["result"]["version"].is_string());
        }
    }
}

/// The output of a run that nobody reads stays in its ring.
#[test]
fn a_client_that_never_reads_stops_only_its_own_run() {
    for mode in Mode::daemons_here() {
        let daemon = Daemon::start(mode.server(), &[]);
        let ground = Ground::new(mode.client());
        let mut deaf = Json::opened(&daemon, mode.client());
        let line = "head -c 30000000 /dev/zero; echo done > finished";
        deaf.ask("exec", &exec(&ground, "test-long", &["sh", "-c", line]));
        std::thread::sleep(Duration::from_millis(700));
        let memory = left::resident(daemon.pid());
        let mut other = Json::opened(&daemon, mode.client());
        let mut asked = exec(&ground, "default", &["seq", "20000"]);
        asked["wait"] = json!(true);
        assert_eq!(other.result("exec", asked)["outcome"]["code"], 0);
        assert!(!ground.work().join("finished").exists(), "the run of the deaf client went on");
        assert!(left::resident(daemon.pid()) < memory + 20 * 1024, "the daemon keeps what nobody reads");
        let run = deaf.message()["result"]["execId"].take();
        let events = deaf.follow(&run);
        assert_eq!(stockade_tests::json::output(&events, "stdout").len(), 30_000_000);
        assert_eq!(events.last().unwrap().1["outcome"]["code"], 0);
    }
}
