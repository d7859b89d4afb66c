//! The gate: bytes a second through the redactor beside copying them, what a refusal by the limiter or by a breaker takes, and what
//! rules of access and of risk do.
//!
//! Without a daemon: these are functions. Names and texts are made from numbers, the same each time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use stockade_gate::access::{Access, Engine, Origin, Source, read_roles};
use stockade_gate::approve::{self, MAX_READ, Risk};
use stockade_gate::breaker::{Breakers, Settings};
use stockade_gate::grants::{BadGrant, Clocks, Grant, GrantId, LONGEST, Terms, What, Whom};
use stockade_gate::rate::{FILE, Limiter, read};
use stockade_gate::redact::{Forms, Redactor, Secret};
use stockade_gate::validate::Parameters;
use stockade_gate::{Action, Asked, Ending, Given, Load, Moment, Principal, Stage, Thing};

use super::{Axis, row};
use crate::error::BenchError;
use crate::results::{Better, Results};
use crate::rounds::{Case, Variant, interleave};
use crate::session::{Session, times};
use crate::variants::COPIED;

pub(crate) const AXIS: Axis = Axis {
    name: "gate",
    rounds: 60,
    round: Duration::from_millis(250),
    besides: Duration::from_secs(5),
    measure,
};

/// What is redacted in one sample, in bytes.
const TEXT: usize = 4 << 20;
/// It comes in such pieces, as the supervisor reads a ring.
const PIECE: usize = 64 << 10;
/// Patterns of the variant that is called after them.
const PATTERNS: usize = 200;
/// Refusals of one sample.
const REFUSALS: u32 = 1_000;
/// Principals that owe something.
const MANY: u32 = 1_000_000;
const TOOL: &str = "search";
/// Rules of access, beside the shipped ones.
const RULES: usize = 100;
/// Rules of risk.
const RISKS: usize = 50;
/// Principals that a sample asks for: each once, or the first again and again.
const ASKING: u32 = 1_000;
/// Of what logs consist.
const WORDS: [&str; 16] = [
    "compiling",
    "warning:",
    "unused",
    "variable",
    "src/main.rs",
    "the",
    "quick",
    "error",
    "[INFO]",
    "2026-11-22T19:00:00Z",
    "GET",
    "/index.html",
    "200",
    "0.34ms",
    "test",
    "ok",
];

fn measure(session: &mut Session) -> Result<Results, BenchError> {
    let rounds = session.rounds(&AXIS);
    let (mut results, mut shuffle) = session.begin(&AXIS);
    let (forms, none, values, plain) = (patterns()?, Arc::new(Forms::none()), values()?, text());
    let copy = || {
        let began = Instant::now();
        let mut out = Vec::with_capacity(plain.len());
        plain.chunks(PIECE).for_each(|piece| out.extend_from_slice(piece));
        Ok(rate(&plain, began))
    };
    let (dashes, starts) = (b"-".repeat(TEXT / 64), b".eyJaaaa".repeat(TEXT / 64));
    let output = vec![
        Variant::new(COPIED, copy),
        redacted("redacted", (&forms, &values), &plain).against(COPIED),
        redacted("redacted-patterns", (&forms, &[]), &plain).against(COPIED),
        redacted("redacted-values", (&none, &values), &plain).against(COPIED),
        redacted("redacted-dashes", (&forms, &values), &dashes),
        redacted("redacted-starts", (&forms, &values), &starts),
    ];
    // Tokens that begin in tokens, none of which ends.
    let nested =
        ["-fm1_", "-ops_eyJ", "-eyJ", "SecretAccessKey="].map(|text| text.repeat(TEXT / 64 / text.len()));
    let names = ["redacted-fly", "redacted-onepassword", "redacted-jwt", "redacted-aws"];
    let nested =
        names.iter().zip(&nested).map(|(name, text)| redacted(name, (&forms, &values), text.as_bytes()));
    let output = output.into_iter().chain(nested).collect();
    let output = session.wanted(output);
    let case = Case { name: "4 MiB of output", unit: "MB/s", better: Better::More, rounds };
    interleave(&mut results, &mut shuffle, case, output);
    let refusals = vec![
        refused("limiter", limiter(1)?),
        refused("limiter-full", limiter(MANY)?).against("limiter"),
        refused("breaker", breakers()),
    ];
    interleave(&mut results, &mut shuffle, times("a refusal", rounds), session.wanted(refusals));
    let decisions = vec![
        decided("access", access(ANY)?, Some(1)),
        decided("access-first", access(ANY)?, Some(ASKING)).against("access"),
        decided("access-time", access(BY_TIME)?, None).against("access"),
        decided("access-parameters", access(BY_PARAMETERS)?, None).against("access"),
        granted("access-granted", access(ANY)?, true)?.against("access"),
        granted("access-granted-time", access(BY_TIME)?, true)?.against("access"),
        granted("access-not-granted", access(ANY)?, false)?.against("access"),
        granted("access-not-granted-time", access(BY_TIME)?, false)?.against("access"),
    ];
    interleave(&mut results, &mut shuffle, times("a decision", rounds), session.wanted(decisions));
    let rows = row::variants(&|| holding(access(ANY)?))?;
    interleave(&mut results, &mut shuffle, times("the row", rounds), session.wanted(rows));
    let risks = vec![weighed("risk", risk()?, false), weighed("risk-longest", risk()?, true).against("risk")];
    interleave(&mut results, &mut shuffle, times("a look at risk", rounds), session.wanted(risks));
    Ok(results)
}

/// MB/s since then.
fn rate(text: &[u8], began: Instant) -> f64 {
    let bytes = f64::from(u32::try_from(text.len()).unwrap_or(u32::MAX));
    bytes / 1e6 / began.elapsed().as_secs_f64()
}

fn redacted<'a>(name: &str, (forms, values): (&'a Arc<Forms>, &'a [Secret]), text: &'a [u8]) -> Variant<'a> {
    let mut out = Vec::with_capacity(text.len() * 2);
    Variant::new(name, move || {
        out.clear();
        let began = Instant::now();
        let mut redactor = Redactor::new(Arc::clone(forms), values.to_vec());
        text.chunks(PIECE).for_each(|piece| redactor.feed(Duration::ZERO, piece, &mut out));
        redactor.finish(&mut out);
        Ok(rate(text, began))
    })
}

/// The shipped ones, and an operator's up to the number.
fn patterns() -> Result<Arc<Forms>, BenchError> {
    let wrong = |mistakes: Vec<_>| BenchError::Wrong(format!("{mistakes:?}"));
    let shipped = Forms::shipped().map_err(wrong)?.len();
    let mut text = String::new();
    for number in shipped..PATTERNS {
        let _ = write!(text, "[forms.own-{number}]\npattern = 'own{number}-[a-z0-9]{{20,40}}'\n");
    }
    Forms::with("redact.toml", &text).map(Arc::new).map_err(wrong)
}

fn values() -> Result<Vec<Secret>, BenchError> {
    let value =
        |number: u32| Secret::new(&format!("V{number}"), format!("v4lue-{number}-of-a-run").as_bytes());
    (0..4).map(|number| value(number).map_err(|error| BenchError::Wrong(error.to_string()))).collect()
}

/// Lines of a log, with a link in some and a token in few.
fn text() -> Vec<u8> {
    let mut text = Vec::with_capacity(TEXT + 128);
    // xorshift64: Marsaglia, "Xorshift RNGs", 2003.
    let mut state = 1u64;
    while text.len() < TEXT {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.extend_from_slice(WORDS[usize::try_from(state % 16).unwrap_or(0)].as_bytes());
        text.push(if state.is_multiple_of(97) { b'\n' } else { b' ' });
        if state.is_multiple_of(1_009) {
            text.extend_from_slice(b"https://example.com/a/b ");
        }
        if state.is_multiple_of(50_021) {
            text.extend_from_slice(format!("ghp_{} ", "aB3dE5gH7jK9".repeat(3)).as_bytes());
        }
    }
    text.truncate(TEXT);
    text
}

/// Microseconds of one refusal, of many.
fn refused<'a>(name: &str, mut stage: impl Stage + 'a) -> Variant<'a> {
    let principal = principal(0);
    Variant::new(name, move || {
        let began = Instant::now();
        for _ in 0..REFUSALS {
            if black_box(stage.judge(black_box(&asked(&principal)))).is_ok() {
                return Err(BenchError::Wrong("what was to be refused passed".into()));
            }
        }
        Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(REFUSALS))
    })
}

/// One by which so many users owe something, and the first more than may be.
fn limiter(users: u32) -> Result<Limiter, BenchError> {
    let limits = read(FILE, "[rate]\neach = \"1/d\"\ntotal = \"10/m\"\n");
    let limits = limits.map_err(|mistakes| BenchError::Wrong(format!("{mistakes:?}")))?.limits;
    let mut limiter = Limiter::new(limits);
    for uid in 0..users {
        let _ = limiter.judge(&asked(&principal(uid)));
    }
    Ok(limiter)
}

/// With one that is open.
fn breakers() -> Breakers {
    let mut breakers = Breakers::new(Settings::default(), BTreeMap::new());
    let principal = principal(0);
    for _ in 0..Settings::default().failures {
        let _ = breakers.judge(&asked(&principal));
        breakers.ended(1, Some(TOOL), Ending::Failure, asked(&principal).at);
    }
    breakers
}

/// What a rule of each ten looks at, beside names.
const ANY: &str = "principal has unit";
const BY_TIME: &str = "context.time.hour > 23";
const BY_PARAMETERS: &str = "context.parameters.contains(\"/force=true\")";

/// A hundred rules about calls: nine of ten permit a role a tool, one forbids somebody else's.
fn access(forbids: &str) -> Result<Access, BenchError> {
    let wrong = |mistakes: Vec<_>| BenchError::Wrong(format!("{mistakes:?}"));
    let (mut roles, mut rules) = (String::from("[roles.client]\ngroups = [\"7\"]\n"), String::new());
    for number in 0..RULES {
        let _ = write!(roles, "[roles.r{number}]\nusers = [\"{}\"]\n", 5_000_000 + number);
        let scope = format!(
            "(principal in Role::\"r{number}\", action == Action::\"call\", resource == Tool::\"t{number}\")"
        );
        let _ = if number % 10 == 0 {
            writeln!(rules, "forbid (principal, action == Action::\"call\", resource) when {{ {forbids} }};")
        } else {
            writeln!(rules, "permit {scope};")
        };
    }
    let roles = read_roles("roles.toml", &roles, &|_| None).map_err(wrong)?;
    let source = Source { origin: Origin::Access, file: "access.cedar", text: &rules };
    let mut access = Access::default();
    // Nobody is locked out: what is refused is measured, too.
    let nobody = stockade_gate::access::Settings { refusals: 0, ..Default::default() };
    access.set(vec![Arc::new(Engine::new(&[source], roles).map_err(wrong)?)], nobody);
    Ok(access)
}

/// Microseconds of one decision, of many. `asking`: how many principals ask, each for the first time or the one again; `None`: one,
/// of whom nothing is remembered.
fn decided<'a>(name: &str, access: Access, asking: Option<u32>) -> Variant<'a> {
    let group = |uid| Principal { gids: vec![uid, 7], ..principal(uid) };
    let parameters = Parameters::new(parameters());
    let mut access = access;
    // The first sample's would be none.
    let mut first = 0;
    Variant::new(name, move || {
        let principals: Vec<Principal> =
            (0..asking.unwrap_or(1)).map(|number| group(first + number)).collect();
        if principals.len() > 1 {
            first = (first + ASKING) % 1_000_000;
        }
        let began = Instant::now();
        for number in 0..ASKING as usize {
            let given = Given::Parameters(&parameters);
            let asked = Asked { given, ..asked(&principals[number % principals.len()]) };
            if !black_box(access.judge(black_box(&asked))).is_ok_and(|verdict| verdict.is_pass()) {
                return Err(BenchError::Wrong("what was to be permitted was refused".into()));
            }
        }
        Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(ASKING))
    })
}

/// Rules of risk that nothing of what is asked here holds for.
fn risk() -> Result<Risk, BenchError> {
    let mut text = String::from("[thresholds]\nask = 1\n");
    for number in 0..RISKS {
        let when = match number % 5 {
            0 => format!("word-matches = \"^--never-{number}$\""),
            1 => format!("path-prefix = [\"/never/{number}\"]"),
            2 => format!("program = [\"never-{number}\"]"),
            3 => format!("word-matches = \"(push|fetch).*never[0-9]{{2}}{number}\""),
            _ => "history = [\"refused-lately\"]".to_owned(),
        };
        let _ = writeln!(
            text,
            "[[rule]]\nname = \"rule-{number}\"\nscore = 1\nreason = \"x\"\nwhen = {{ {when} }}"
        );
    }
    let wrong = |mistakes| BenchError::Wrong(format!("{mistakes:?}"));
    let filed = approve::read("approval.toml", &text).map_err(wrong)?;
    let mut risk = Risk::default();
    risk.set(vec![Arc::new(filed)]);
    Ok(risk)
}

/// Microseconds of a look at what has no risk: a command of a few words, or as long as rules read.
fn weighed<'a>(name: &str, mut risk: Risk, is_longest: bool) -> Variant<'a> {
    let word = if is_longest { "pushfetch ".repeat(MAX_READ / 10 - 2) } else { "origin".to_owned() };
    let words: Vec<Vec<u8>> = vec![b"git".to_vec(), b"fetch".to_vec(), word.into_bytes()];
    let principal = principal(1_000);
    Variant::new(name, move || {
        let began = Instant::now();
        for _ in 0..REFUSALS {
            let (action, given) = (Action::Run, Given::Command(&words));
            let asked = Asked { action, given, tool: None, ..asked(&principal) };
            if !black_box(risk.judge(black_box(&asked))).is_ok_and(|verdict| verdict.is_pass()) {
                return Err(BenchError::Wrong("what has no risk was asked about".into()));
            }
        }
        Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(REFUSALS))
    })
}

/// Microseconds of one decision that rules leave open, with so many grants as there are principals that a sample asks for. `has`:
/// whether each has one; else somebody else does, and it's refused.
fn granted<'a>(name: &str, access: Access, has: bool) -> Result<Variant<'a>, BenchError> {
    let mut access = holding(access)?;
    let first = if has { 0 } else { ASKING };
    let principals: Vec<Principal> = (first..first + ASKING).map(principal).collect();
    let parameters = Parameters::new(parameters());
    Ok(Variant::new(name, move || {
        let began = Instant::now();
        for principal in &principals {
            let asked = Asked { given: Given::Parameters(&parameters), ..asked(principal) };
            if black_box(access.judge(black_box(&asked))).is_ok() != has {
                return Err(BenchError::Wrong("a grant was taken for another's".into()));
            }
        }
        Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(ASKING))
    }))
}

/// With a thousand grants, each somebody else's.
fn holding(mut access: Access) -> Result<Access, BenchError> {
    access.let_grants(0);
    let wrong = |error: BadGrant| BenchError::Wrong(error.to_string());
    for uid in 0..ASKING {
        let terms = Terms {
            what: What::Tool(TOOL.to_owned()),
            given: None,
            length: LONGEST,
            uses: None,
            ends_runs: false,
            why: "a measurement".to_owned(),
        };
        let id = GrantId(u128::from(uid).to_be_bytes());
        let to = Whom { uid, unit: None };
        access.grants_mut().put(Grant::new(id, to, terms, 0, Clocks::default()).map_err(wrong)?);
    }
    Ok(access)
}

/// Twenty of them, two KiB together.
fn parameters() -> Vec<u8> {
    let mut text = String::from("{");
    for number in 0..20 {
        let _ = write!(text, "\"name-{number}\":\"{}\",", "x".repeat(85));
    }
    text.push_str("\"last\":1}");
    text.into_bytes()
}

fn principal(uid: u32) -> Principal {
    Principal { uid, gids: vec![uid], pid: 1, unit: None, roles: BTreeSet::new() }
}

fn asked(principal: &Principal) -> Asked<'_> {
    Asked {
        run: 1,
        at: Moment { uptime: Duration::from_secs(1), wall: SystemTime::UNIX_EPOCH },
        principal,
        action: Action::Call,
        policy: Some("default"),
        tool: Some(TOOL),
        thing: Thing::default(),
        given: Given::Nothing,
        workspace: None,
        owner: None,
        load: Load::default(),
    }
}
