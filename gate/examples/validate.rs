//! What the check of a call's parameters costs: 20 properties, 2 KiB, warm, by one thread; beside what reading the same JSON
//! without any check costs. `cargo run --release -p stockade-gate --example validate`.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement, for people")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use stockade_gate::tools::Registry;
use stockade_gate::tools::registry::{Text, Trust};
use stockade_gate::validate::{Parameters, Validate, parse};
use stockade_gate::{Action, Asked, Given, Load, Moment, Principal, Stage as _, Thing};

const CALLS: usize = 50_000;

/// A tool of 20 properties: texts with patterns, lengths and formats, numbers, choices, lists, an object.
fn tool(name: &str) -> Text {
    let mut properties = String::new();
    let mut arguments = String::new();
    for at in 0..20 {
        let (schema, hole) = match at % 5 {
            0 => ("type = \"string\", minLength = 1, maxLength = 1000", "text"),
            1 => ("type = \"string\", pattern = \"^[a-z][a-z0-9-]*( [a-z0-9-]+)*$\"", "text"),
            2 => ("type = \"integer\", minimum = 0, maximum = 100000", "integer"),
            3 => ("type = \"string\", format = \"workspace-path\"", "path"),
            _ => {
                ("type = \"array\", maxItems = 64, items = { type = \"string\", maxLength = 64 }", "text...")
            }
        };
        writeln!(properties, "p{at} = {{ {schema} }}").unwrap();
        write!(arguments, "\"--p{at}={{p{at}:{hole}}}\", ").unwrap();
    }
    let text = format!(
        "name = \"{name}\"\ndescription = \"x\"\nversion = \"1\"\npolicy = \"default\"\n[command]\nprogram = \"/bin/true\"\n\
         arguments = [{arguments}]\n[parameters]\ntype = \"object\"\nrequired = [\"p0\", \"p1\", \"p2\"]\n[parameters.properties]\n{properties}"
    );
    Text { file: format!("{name}.toml"), name: name.into(), text, signature: None }
}

fn parameters() -> String {
    let words = "the quick brown fox jumps over the lazy dog and then some more of it";
    let one = |at: usize| match at % 5 {
        0 => format!("\"{words} {words} {words}\""),
        1 => format!("\"{words}\""),
        2 => "4711".to_owned(),
        3 => "\"src/some/where/below/the/workspace.rs\"".to_owned(),
        _ => format!("[{}]", ["\"an element of a list\""; 6].join(",")),
    };
    let members: Vec<String> = (0..20).map(|at| format!("\"p{at}\":{}", one(at))).collect();
    format!("{{{}}}", members.join(","))
}

fn measured(what: &str, mut call: impl FnMut()) {
    for _ in 0..CALLS / 10 {
        call();
    }
    let mut times: Vec<Duration> = (0..CALLS)
        .map(|_| {
            let begun = Instant::now();
            call();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 1_000).min(times.len() - 1)].as_nanos();
    println!("{what}: p50 {} ns, p99 {} ns", at(500), at(990));
}

fn main() {
    let text = parameters();
    println!("{} bytes of parameters", text.len());
    measured("read without a check (serde_json)", || {
        black_box(serde_json::from_str::<serde_json::Value>(black_box(&text)).unwrap());
    });
    measured("read (bounds, keys once, normal form)", || {
        black_box(parse(black_box(text.as_bytes())).unwrap());
    });
    let value = parse(text.as_bytes()).unwrap();
    let given = Parameters::new(text.clone().into_bytes());
    let principal = Principal { uid: 1, gids: vec![1], pid: 2, unit: None, roles: BTreeSet::new() };
    for count in [1, 1_000] {
        let texts: Vec<Text> = (0..count).map(|at| tool(&format!("tool-{at}"))).collect();
        let begun = Instant::now();
        let registry = Registry::of(&texts, &Trust::default(), &|| Duration::ZERO).unwrap();
        println!("{count} tools registered in {:?}", begun.elapsed());
        let name = format!("tool-{}", count / 2);
        let tool = Arc::clone(registry.get(&name).unwrap());
        let mut stage = Validate::new(Arc::new(registry));
        measured(&format!("the stage, {count} tools (schema, characters, expansion)"), || {
            let asked = Asked {
                run: 1,
                at: Moment { uptime: Duration::ZERO, wall: SystemTime::UNIX_EPOCH },
                principal: &principal,
                action: Action::Call,
                policy: Some("default"),
                tool: Some(&name),
                thing: Thing::default(),
                given: Given::Parameters(black_box(&given)),
                workspace: None,
                owner: None,
                load: Load::default(),
            };
            assert!(stage.judge(black_box(&asked)).unwrap().is_pass());
        });
        measured("  of it the schema", || tool.parameters.check(black_box(&value)).unwrap());
    }
}
