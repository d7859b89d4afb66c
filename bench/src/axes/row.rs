//! The whole row of the gate: who asks, may he, how often, is the tool's breaker open, are the parameters right. With one tool and one
//! principal, and with a thousand of each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use stockade_gate::access::Access;
use stockade_gate::breaker::{Breakers, Settings};
use stockade_gate::rate::{FILE, Limiter, read};
use stockade_gate::tools::Registry;
use stockade_gate::tools::registry::{Text, Trust};
use stockade_gate::validate::{Parameters, Validate};
use stockade_gate::{Action, Asked, Given, Moment, Principal, Row, Thing};

use crate::error::BenchError;
use crate::rounds::Variant;

/// Questions of one sample.
const QUESTIONS: usize = 1_000;
/// Tools, and principals, where there are many.
const MANY: usize = 1_000;
/// Properties of a tool's schema.
const PROPERTIES: usize = 20;
/// Bytes of each value: two KiB together.
const VALUE: usize = 85;
/// Of a sample's questions, the one that is told as its tail.
const TAIL: usize = QUESTIONS * 99 / 100;
/// The group that may call everything.
const GROUP: u32 = 7;

/// A row, its tools, and who has asked so far.
struct Questions {
    row: Row,
    tools: Vec<String>,
    asked: u64,
}

impl Questions {
    fn new(access: Access, tools: usize) -> Result<Self, BenchError> {
        let wrong = |mistakes: Vec<String>| BenchError::Wrong(mistakes.join("; "));
        let text = "[rate]\neach = \"100000/s\"\ntotal = \"100000/s\"\n";
        let limits = read(FILE, text).map_err(|mistakes| wrong(vec![format!("{mistakes:?}")]))?.limits;
        let names: Vec<String> = (0..tools).map(|number| format!("t{number}")).collect();
        let texts: Vec<Text> = names.iter().map(|name| manifest(name)).collect();
        let registry = Registry::of(&texts, &Trust::default(), &|| Duration::ZERO)
            .map_err(|errors| wrong(errors.iter().map(ToString::to_string).collect()))?;
        let validate = Validate::new(Arc::new(registry));
        let breakers = Breakers::new(Settings::default(), BTreeMap::new());
        let row = Row::new(vec![
            Box::new(access),
            Box::new(Limiter::new(limits)),
            Box::new(breakers),
            Box::new(validate),
        ]);
        Ok(Self { row, tools: names, asked: 0 })
    }

    /// Seconds that one question takes, which must pass.
    fn ask(&mut self, uid: u32, tool: usize) -> Result<f64, BenchError> {
        self.asked += 1;
        let principal = Principal { uid, gids: vec![uid, GROUP], pid: 1, unit: None, roles: BTreeSet::new() };
        let name = self.tools[tool % self.tools.len()].as_str();
        // Read anew each time, as they come from a client; each principal has his own.
        let parameters = Parameters::new(parameters(uid));
        // So far apart that nobody asks too often.
        let at = Moment { uptime: Duration::from_millis(self.asked), wall: SystemTime::UNIX_EPOCH };
        let asked = Asked {
            run: u128::from(self.asked),
            policy: Some("default"),
            tool: Some(name),
            thing: Thing { named: name, ..Thing::default() },
            given: Given::Parameters(&parameters),
            ..Asked::by(&principal, Action::Call, at)
        };
        let began = Instant::now();
        let judged = black_box(self.row.judge(black_box(&asked), &BTreeSet::new()));
        let took = began.elapsed().as_secs_f64();
        judged.map(|_passed| took).map_err(|refusal| BenchError::Wrong(refusal.message))
    }
}

/// Whom a sample asks for.
#[derive(Debug, Clone, Copy)]
enum Who {
    /// Each question by somebody who never asked before.
    Strangers,
    /// The same pairs of principals and tools again and again, of so many.
    Known(usize),
}

/// What is told of a sample.
#[derive(Debug, Clone, Copy)]
enum Told {
    Mean,
    Tail,
}

/// The variants: `access` has rules of which the group may call everything.
pub(super) fn variants<'a>(
    access: &dyn Fn() -> Result<Access, BenchError>,
) -> Result<Vec<Variant<'a>>, BenchError> {
    let row = |name: &str, tools: usize, who: Who, told: Told| -> Result<Variant<'a>, BenchError> {
        let mut questions = Questions::new(access()?, tools)?;
        Ok(Variant::new(name, move || sample(&mut questions, who, told)))
    };
    Ok(vec![
        row("row", 1, Who::Known(1), Told::Mean)?,
        row("row-first", 1, Who::Strangers, Told::Mean)?.against("row"),
        row("row-first-tail", 1, Who::Strangers, Told::Tail)?,
        row("row-many", MANY, Who::Known(MANY), Told::Mean)?.against("row"),
        row("row-many-first", MANY, Who::Strangers, Told::Mean)?.against("row-first"),
    ])
}

/// Microseconds of a question, of many.
fn sample(questions: &mut Questions, who: Who, told: Told) -> Result<f64, BenchError> {
    let mut took = Vec::with_capacity(QUESTIONS);
    for number in 0..QUESTIONS {
        let uid = match who {
            Who::Strangers => 10_000_000 + u32::try_from(questions.asked % 100_000_000).unwrap_or(0),
            Who::Known(many) => u32::try_from(1_000 + number % many).unwrap_or(0),
        };
        took.push(questions.ask(uid, number)?);
    }
    let seconds = match told {
        Told::Mean => took.iter().sum::<f64>() / f64::from(u32::try_from(QUESTIONS).unwrap_or(u32::MAX)),
        Told::Tail => {
            took.sort_by(f64::total_cmp);
            took[TAIL]
        }
    };
    Ok(seconds * 1e6)
}

/// A tool's file, its schema of twenty properties.
fn manifest(name: &str) -> Text {
    let mut text = format!(
        "name = \"{name}\"\ndescription = \"measured\"\nversion = \"1.0.0\"\npolicy = \"default\"\n\
         [command]\nprogram = \"/bin/true\"\narguments = []\nstdin = \"parameters\"\n[parameters]\ntype = \"object\"\nadditionalProperties = false\n"
    );
    for number in 0..PROPERTIES {
        let _ = writeln!(text, "properties.p{number} = {{ type = \"string\", maxLength = 200 }}");
    }
    Text { file: format!("{name}.toml"), name: name.to_owned(), text, signature: None }
}

/// Two KiB that nobody else sends.
fn parameters(uid: u32) -> Vec<u8> {
    let values = (0..PROPERTIES).map(|number| format!("\"p{number}\":\"{uid:0>VALUE$}\""));
    format!("{{{}}}", values.collect::<Vec<_>>().join(",")).into_bytes()
}
