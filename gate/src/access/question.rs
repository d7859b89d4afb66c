//! A request as Cedar is asked it: who, what, of which thing, and what rules may read beside.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;
use std::time::UNIX_EPOCH;

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression,
};
use serde_json::Value;

use super::reads::Reads;
use crate::asked::{Action, Asked, Given, Load, Moment};

/// The most bytes of a command line, or of a tool's parameters, that rules may read.
pub const MAX_BYTES: usize = 16 * 1024;
/// The most words or parameters that rules may read.
pub const MAX_VALUES: usize = 256;
/// The longest name of a policy or a tool that a rule could speak of: longer ones nobody has.
const MAX_NAME: usize = 128;

const SECONDS_A_DAY: u64 = 24 * 60 * 60;

/// Why a request can't be judged by rules that read what it gives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unjudgeable {
    /// There is too much of it.
    #[error(
        "a rule reads what is given, and this is more than rules may read: {MAX_VALUES} words or values of {MAX_BYTES} bytes together"
    )]
    TooMuch,
    /// It isn't text.
    #[error("a rule reads what is given, and this isn't UTF-8")]
    NotText,
    /// They aren't the JSON that parameters are.
    #[error("{0}")]
    BadParameters(String),
    /// Cedar can't be asked it.
    #[error("the rules can't be asked: {0}")]
    Broken(String),
}

fn broken(error: impl core::fmt::Display) -> Unjudgeable {
    Unjudgeable::Broken(error.to_string())
}

/// Types of entities and actions, which cost more to parse than all else here.
struct Names {
    user: EntityTypeName,
    role: EntityTypeName,
    policy: EntityTypeName,
    tool: EntityTypeName,
    run: EntityTypeName,
    daemon: EntityTypeName,
    actions: Vec<(Action, EntityUid)>,
}

static NAMES: LazyLock<Option<Names>> = LazyLock::new(|| {
    let name = |name: &str| name.parse::<EntityTypeName>().ok();
    let kind = name("Action")?;
    let uid = |action: Action| {
        (action, EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(action.name())))
    };
    Some(Names {
        user: name("User")?,
        role: name("Role")?,
        policy: name("Policy")?,
        tool: name("Tool")?,
        run: name("Run")?,
        daemon: name("Daemon")?,
        actions: Action::ALL.into_iter().map(uid).collect(),
    })
});

/// An action as an entity.
pub(super) fn action_uid(action: Action) -> Option<&'static EntityUid> {
    NAMES.as_ref()?.actions.iter().find(|(known, _)| *known == action).map(|(_, uid)| uid)
}

/// What Cedar is asked.
pub(super) struct Question {
    pub(super) request: Request,
    pub(super) entities: Entities,
    /// Who asks: himself, and his roles.
    pub(super) whom: Vec<EntityUid>,
    /// What is asked for.
    pub(super) what: EntityUid,
}

type Pairs = HashMap<String, RestrictedExpression>;

fn text(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

fn number(number: impl TryInto<i64>) -> RestrictedExpression {
    RestrictedExpression::new_long(number.try_into().unwrap_or(i64::MAX))
}

fn texts<'t>(all: impl IntoIterator<Item = &'t str>) -> RestrictedExpression {
    RestrictedExpression::new_set(all.into_iter().map(text))
}

/// The name of what is asked for, whether there is such a one or not: rules judge both alike.
pub(super) fn named<'a>(asked: &Asked<'a>) -> &'a str {
    let name = match asked.action {
        Action::Run => asked.policy.unwrap_or(asked.thing.named),
        Action::Call => asked.tool.unwrap_or(asked.thing.named),
        _ => "",
    };
    if name.len() > MAX_NAME { "" } else { name }
}

/// Puts a question together. `reads`: what the rules that will be asked read.
pub(super) fn of<'r>(
    asked: &Asked<'_>,
    roles: impl Iterator<Item = &'r String> + Clone,
    reads: Reads,
) -> Result<Question, Unjudgeable> {
    let names = NAMES.as_ref().ok_or_else(|| broken("their names can't be read"))?;
    let action = action_uid(asked.action).ok_or_else(|| broken("the action has no name"))?;
    let principal = user(names, asked, roles.clone(), reads)?;
    let resource = resource(names, asked)?;
    let request = Request::new(
        principal.uid(),
        action.clone(),
        resource.uid(),
        Context::from_pairs(context(asked, reads)?).map_err(broken)?,
        None,
    );
    let of_role = |role: &String| EntityUid::from_type_name_and_id(names.role.clone(), EntityId::new(role));
    let whom = core::iter::once(principal.uid()).chain(roles.map(of_role)).collect();
    let what = resource.uid();
    let entities = Entities::from_entities([principal, resource], None).map_err(broken)?;
    Ok(Question { request: request.map_err(broken)?, entities, whom, what })
}

fn user<'r>(
    names: &Names,
    asked: &Asked<'_>,
    roles: impl Iterator<Item = &'r String> + Clone,
    reads: Reads,
) -> Result<Entity, Unjudgeable> {
    let principal = asked.principal;
    let of =
        |kind: &EntityTypeName, id: &str| EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id));
    let mut attributes = Pairs::from([
        ("uid".to_owned(), number(principal.uid)),
        ("roles".to_owned(), texts(roles.clone().map(String::as_str))),
    ]);
    if reads.groups {
        let gids = principal.gids.iter().map(|gid| number(*gid));
        attributes.insert("gids".to_owned(), RestrictedExpression::new_set(gids));
    }
    if let Some(unit) = &principal.unit {
        attributes.insert("unit".to_owned(), text(unit));
    }
    let parents: HashSet<EntityUid> = roles.map(|role| of(&names.role, role)).collect();
    Entity::new(of(&names.user, &principal.uid.to_string()), attributes, parents).map_err(broken)
}

fn resource(names: &Names, asked: &Asked<'_>) -> Result<Entity, Unjudgeable> {
    let name = named(asked);
    let policy = asked.policy.unwrap_or_default();
    let (kind, id, attributes) = match asked.action {
        Action::Run => {
            let shipped = RestrictedExpression::new_bool(asked.thing.is_shipped && asked.policy.is_some());
            (&names.policy, name, vec![("name", text(name)), ("shipped", shipped)])
        }
        Action::Call => {
            let shipped = RestrictedExpression::new_bool(asked.thing.is_shipped && asked.tool.is_some());
            let mut all = vec![("name", text(name)), ("policy", text(policy)), ("shipped", shipped)];
            let roles = asked.thing.tool_roles.map(|roles| texts(roles.iter().map(String::as_str)));
            all.extend(roles.map(|roles| ("roles", roles)));
            (&names.tool, name, all)
        }
        Action::Attach | Action::Kill | Action::List => {
            // Whose nobody knows is nobody's: no uid is below 0.
            let owner = asked.owner.map_or(RestrictedExpression::new_long(-1), number);
            let mut all = vec![("owner", owner), ("policy", text(policy))];
            all.extend(asked.tool.map(|tool| ("tool", text(tool))));
            (&names.run, "run", all)
        }
        _ => (&names.daemon, "daemon", Vec::new()),
    };
    let uid = EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id));
    let attributes: Pairs = attributes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Entity::new(uid, attributes, HashSet::new()).map_err(broken)
}

fn context(asked: &Asked<'_>, reads: Reads) -> Result<Pairs, Unjudgeable> {
    let mut pairs = Pairs::new();
    let mut put = |key: &str, value| drop(pairs.insert(key.to_owned(), value));
    match asked.action {
        Action::Run => put("policy", text(named(asked))),
        Action::Call => {
            put("policy", text(asked.policy.unwrap_or_default()));
            put("tool", text(named(asked)));
        }
        Action::Attach | Action::Kill | Action::List => {
            put("policy", text(asked.policy.unwrap_or_default()));
            if let Some(tool) = asked.tool {
                put("tool", text(tool));
            }
        }
        _ => {}
    }
    if reads.time {
        put("time", time(&asked.at)?);
    }
    if reads.load {
        put("load", load(&asked.load)?);
    }
    if reads.given {
        match asked.action {
            Action::Run => {
                let words = command(asked.given)?;
                put("program", text(words.first().copied().unwrap_or_default()));
                let placed: Vec<String> =
                    (0..).zip(&words).map(|(at, word): (usize, _)| format!("{at}={word}")).collect();
                put("argv", texts(placed.iter().map(String::as_str)));
                put("words", texts(words));
            }
            Action::Call => {
                let values = parameters(asked.given)?;
                put("parameters", texts(values.iter().map(String::as_str)));
            }
            _ => {}
        }
    }
    Ok(pairs)
}

/// By the calendar's clock, in UTC. Monday is 1.
fn time(at: &Moment) -> Result<RestrictedExpression, Unjudgeable> {
    let unix = at.wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (unix / SECONDS_A_DAY, unix % SECONDS_A_DAY);
    // The epoch was a Thursday.
    let weekday = (days + 3) % 7 + 1;
    let fields =
        [("unix", unix), ("weekday", weekday), ("hour", second / 3_600), ("minute", second / 60 % 60)];
    let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), number(value)));
    RestrictedExpression::new_record(fields).map_err(broken)
}

fn load(load: &Load) -> Result<RestrictedExpression, Unjudgeable> {
    #[allow(clippy::cast_possible_truncation, reason = "clamped to 0..=100 before")]
    let percent = |share: f64| number((share * 100.0).clamp(0.0, 100.0).round() as i64);
    let shares = [("cpu", load.cpu), ("memory", load.memory)];
    let known = shares
        .into_iter()
        .filter_map(|(key, share)| Some((key, percent(share.filter(|share| !share.is_nan())?))));
    let fields = known.chain([("runs", number(load.runs))]).map(|(key, value)| (key.to_owned(), value));
    RestrictedExpression::new_record(fields).map_err(broken)
}

fn command(given: Given<'_>) -> Result<Vec<&str>, Unjudgeable> {
    let Given::Command(words) = given else { return Ok(Vec::new()) };
    let bytes: usize = words.iter().map(Vec::len).sum();
    if words.len() > MAX_VALUES || bytes > MAX_BYTES {
        return Err(Unjudgeable::TooMuch);
    }
    let texts: Result<_, _> = words.iter().map(|word| core::str::from_utf8(word)).collect();
    texts.map_err(|_| Unjudgeable::NotText)
}

/// Every value that has none below it, as `/pointer=json`. What is before the `=` can't be taken for what is behind: that is JSON.
fn parameters(given: Given<'_>) -> Result<Vec<String>, Unjudgeable> {
    let Given::Parameters(parameters) = given else { return Ok(Vec::new()) };
    if parameters.text().len() > MAX_BYTES {
        return Err(Unjudgeable::TooMuch);
    }
    let value = parameters.value().map_err(|mismatch| Unjudgeable::BadParameters(mismatch.to_string()))?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    flatten(value, &mut String::new(), &mut found, &mut bytes)?;
    Ok(found)
}

fn flatten(
    value: &Value,
    pointer: &mut String,
    found: &mut Vec<String>,
    bytes: &mut usize,
) -> Result<(), Unjudgeable> {
    let before = pointer.len();
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (key, inner) in object {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
                flatten(inner, pointer, found, bytes)?;
                pointer.truncate(before);
            }
        }
        Value::Array(all) if !all.is_empty() => {
            for (at, inner) in all.iter().enumerate() {
                pointer.push_str(&format!("/{at}"));
                flatten(inner, pointer, found, bytes)?;
                pointer.truncate(before);
            }
        }
        leaf => {
            let line = format!("{pointer}={}", plain(leaf));
            *bytes += line.len();
            // Pointers of deep values repeat what is above: by that a small text could become a large one.
            if found.len() >= MAX_VALUES || *bytes > MAX_BYTES {
                return Err(Unjudgeable::TooMuch);
            }
            found.push(line);
        }
    }
    Ok(())
}

/// A value as JSON; a whole number in one way, however it was written: a schema takes 1.0 for an integer, too.
fn plain(value: &Value) -> String {
    /// Beyond that a float has no place for all whole numbers.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value.as_f64() {
        #[allow(clippy::cast_possible_truncation, reason = "whole, and below 2^53")]
        Some(float) if value.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT => {
            (float as i64).to_string()
        }
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::time::SystemTime;

    use proptest::prelude::{Strategy as _, any, prop, prop_oneof, proptest};

    use super::*;
    use crate::validate::Parameters;

    #[test]
    fn parameters_are_told_by_pointer_and_json_each_in_one_way() {
        let told = |text: &str| {
            let given = Parameters::new(text.as_bytes().to_vec());
            parameters(Given::Parameters(&given))
        };
        let all = told(r#"{"a":1.0,"b":{"c/d":[true,"x"]},"e":{},"f":null,"g":1e0,"h":1.5}"#).unwrap();
        assert_eq!(all, ["/a=1", "/b/c~1d/0=true", "/b/c~1d/1=\"x\"", "/e={}", "/f=null", "/g=1", "/h=1.5"]);
        assert!(matches!(told("{"), Err(Unjudgeable::BadParameters(_))));
        let many = |count: usize| format!("{{\"a\":[{}]}}", vec!["1"; count].join(","));
        assert!(told(&many(MAX_VALUES)).is_ok());
        assert_eq!(told(&many(MAX_VALUES + 1)), Err(Unjudgeable::TooMuch));
        let long = |count: usize| format!("{{\"{}\":[1,2,3,4,5,6,7,8,9]}}", "k".repeat(count));
        assert!(told(&long(1_000)).is_ok());
        assert_eq!(told(&long(2_000)), Err(Unjudgeable::TooMuch));
    }

    proptest! {
        #[test]
        fn two_sets_of_parameters_are_told_alike_only_if_they_say_the_same(
            one in objects(), other in objects(),
        ) {
            let told = |value: &Value| {
                let given = Parameters::new(value.to_string().into_bytes());
                let mut lines = parameters(Given::Parameters(&given)).unwrap();
                lines.sort();
                lines
            };
            proptest::prop_assert_eq!(told(&one) == told(&other), one == other);
        }
    }

    /// Small objects of keys and values that are hard to tell apart.
    fn objects() -> impl proptest::strategy::Strategy<Value = Value> {
        let text =
            prop::collection::vec(prop::sample::select(vec!["a", "=", "/", "~", "1", "\"", "true"]), 0..3);
        let text = text.prop_map(|parts| parts.concat());
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            (0..2_i64).prop_map(Value::from),
            text.clone().prop_map(Value::String),
        ];
        // Lists apart: `[1]` and `{"0":1}` have the same pointers, and a schema takes one of them only.
        prop::collection::btree_map(text, leaf, 1..3).prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    #[test]
    fn commands_are_bounded_and_text() {
        let told = |words: Vec<Vec<u8>>| command(Given::Command(&words)).map(|words| words.len());
        assert_eq!(told(vec![b"a".to_vec(); MAX_VALUES]), Ok(MAX_VALUES));
        assert_eq!(told(vec![b"a".to_vec(); MAX_VALUES + 1]), Err(Unjudgeable::TooMuch));
        assert_eq!(told(vec![vec![b'a'; MAX_BYTES + 1]]), Err(Unjudgeable::TooMuch));
        assert_eq!(told(vec![b"\xff".to_vec()]), Err(Unjudgeable::NotText));
    }

    #[test]
    fn weekdays_and_hours_are_those_of_the_calendar() {
        let at = |unix| Moment {
            uptime: Duration::ZERO,
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(unix),
        };
        // Monday the 23rd of November 2026, 05:23:55.
        let told = format!("{:?}", time(&at(1_795_411_435)).unwrap());
        for (key, value) in [("weekday", 1), ("hour", 5), ("minute", 23)] {
            assert!(told.contains(key) && told.contains(&value.to_string()), "{told}");
        }
    }
}
