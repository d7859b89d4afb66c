//! `docs/jsonrpc.schema.json`: JSON Schema of every method, notification and error, from the types that read and write them.
//!
//! Compared, so that it can't go stale; `STOCKADE_BLESS=1 cargo test -p stockade-jsonrpc schema` renews it. The types' schemas are
//! made in tests only: nothing that is shipped links what makes them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test reads and writes a file of the tree")]

use std::collections::BTreeSet;
use std::path::Path;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use stockade_protocol::client as wire;

use crate::asked::{self, METHODS};
use crate::refusal::Refusal;
use crate::told::{self, NOTIFICATIONS, Told};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/jsonrpc.schema.json");

struct Methods {
    generator: SchemaGenerator,
    methods: Map<String, Value>,
}

impl Methods {
    fn method<P: JsonSchema, R: JsonSchema>(&mut self, name: &str) {
        let (params, result) = (self.generator.subschema_for::<P>(), self.generator.subschema_for::<R>());
        self.methods.insert(name.to_owned(), json!({ "params": params, "result": result }));
    }

    fn waited<P: JsonSchema>(&mut self, name: &str) {
        let params = self.generator.subschema_for::<P>();
        let either = [
            self.generator.subschema_for::<told::AcceptedTold>(),
            self.generator.subschema_for::<told::EndedTold>(),
        ];
        self.methods.insert(name.to_owned(), json!({ "params": params, "result": { "anyOf": either } }));
    }
}

fn methods() -> Methods {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut all = Methods { generator, methods: Map::new() };
    all.method::<asked::InitializeParams, told::Initialized>("initialize");
    all.waited::<asked::ExecParams>("exec");
    all.waited::<asked::CallParams>("call");
    all.method::<asked::RunParams, told::Done>("cancel");
    all.method::<asked::SignalParams, told::Done>("signal");
    all.method::<asked::StdinParams, told::Done>("stdin");
    all.method::<asked::ResizeParams, told::Done>("resize");
    all.method::<asked::AttachParams, told::Done>("attach");
    all.method::<asked::AcknowledgeParams, told::Done>("acknowledge");
    all.method::<asked::NoParams, told::RunsTold>("list");
    all.method::<asked::NoParams, told::StatusTold>("status");
    all.method::<asked::NoParams, told::BreakersTold>("breakers");
    all.method::<asked::StatisticsParams, told::StatisticsTold>("statistics");
    all.method::<asked::ExplainParams, told::Explained>("policy/explain");
    all
}

fn schema() -> Value {
    let Methods { mut generator, methods } = methods();
    let notifications = json!({
        "run/awaitsApproval": generator.subschema_for::<told::RunAwaitsApproval<'_>>(),
        "run/accepted": generator.subschema_for::<told::RunAccepted>(),
        "run/started": generator.subschema_for::<told::RunStarted>(),
        "run/output": generator.subschema_for::<told::RunOutput<'_>>(),
        "run/outputLost": generator.subschema_for::<told::RunOutputLost>(),
        "run/limitWarning": generator.subschema_for::<told::RunLimitWarning>(),
        "run/exited": generator.subschema_for::<told::RunExited>(),
    });
    let names: BTreeSet<&str> = notifications.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, NOTIFICATIONS.into_iter().collect());
    let names: BTreeSet<&str> = methods.keys().map(String::as_str).collect();
    assert_eq!(names, METHODS.into_iter().collect());
    let client = json!({ "$/cancelRequest": generator.subschema_for::<asked::CancelRequest>() });
    let error = generator.subschema_for::<Refusal>();
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Stockade's JSON-RPC: parameters and results of methods, parameters of notifications, and errors",
        "methods": methods,
        "notifications": notifications,
        "clientNotifications": client,
        "error": error,
        "$defs": generator.take_definitions(true),
    });
    // A crate of the workspace may ask serde_json to keep the order in which keys were put: the file's order is the alphabet's.
    schema.sort_all_objects();
    schema
}

#[test]
fn schema_on_disk_is_that_of_the_types() {
    let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("STOCKADE_BLESS").is_some() {
        std::fs::write(FILE, &text).unwrap();
    }
    let on_disk = std::fs::read_to_string(Path::new(FILE)).unwrap_or_default();
    assert!(on_disk == text, "docs/jsonrpc.schema.json is stale: STOCKADE_BLESS=1 renews it");
}

fn camel(key: &str) -> String {
    let mut parts = key.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |whole, part| whole + &part[..1].to_uppercase() + &part[1..])
}

/// Keys of a value, and of what is in it.
fn keys(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                found.insert(camel(key));
                keys(value, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

/// A field that the wire has got since is to be told here, too.
#[test]
fn what_is_told_has_every_field_of_the_wire() {
    let count = || wire::Count { name: "n".into(), count: 1 };
    let report = wire::StatusReport {
        version: String::new(),
        pid: 1,
        launcher_pid: 1,
        uptime_ms: 1,
        plan: stockade_protocol::confinement::Plan::User,
        memory: stockade_protocol::outcome::MemoryMechanism::Monitor,
        running: 1,
        slots: 1,
        queued: 1,
        queue_bound: 1,
        connections: 1,
        accepted: 1,
        denied: 1,
        ended: 1,
        unreaped: 1,
        warmth: Default::default(),
        draining: false,
        policies: vec!["p".into()],
        unready: vec![],
        known: 1,
        launchers: 1,
        outcomes: vec![count()],
        denials: vec![count()],
        process: Default::default(),
        connection_bytes: 1,
        kernel: String::new(),
        metrics: String::new(),
        tools: 1,
        limiter: Some(wire::LimiterReport { share: 1, pressure: wire::LimitPressure::Calm, keys: 1 }),
        breakers_open: 1,
        breakers_half_open: 1,
        often_wrong: vec![wire::OftenWrong { tool: "t".into(), rule: "r".into(), count: 1 }],
        approvals_waiting: 0,
        grants: 0,
        grant_requests: 0,
        reviewing: 0,
        locked_out: vec![wire::LockedOut { uid: 1, unit: None, retry_after_ms: 1 }],
    };
    let usage = stockade_protocol::outcome::Usage { stalled: Some(Default::default()), ..Default::default() };
    let breaker = wire::BreakerSummary {
        tool: "t".into(),
        state: wire::BreakerState::Open,
        retry_after_ms: None,
        failures: 1,
        outcomes: 1,
        opened: 1,
        probes: 1,
    };
    let both = [
        (json!(report), json!(report.told())),
        (json!(usage), json!(usage.told())),
        (json!(breaker), json!(breaker.told())),
    ];
    for (of_the_wire, told) in both {
        let (mut expected, mut found) = (BTreeSet::new(), BTreeSet::new());
        keys(&of_the_wire, &mut expected);
        keys(&told, &mut found);
        assert_eq!(found, expected);
    }
}
