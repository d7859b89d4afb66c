//! What a rule reads: of that depends what is put together for it, and whether a decision can be remembered.
//!
//! Cedar gives a rule as JSON; that is walked. What isn't known to be harmless counts as read.

use serde_json::Value;

/// What rules read of the world beside who asks for what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reads {
    /// Words of a command, or parameters of a tool.
    pub(super) given: bool,
    /// The time.
    pub(super) time: bool,
    /// The load.
    pub(super) load: bool,
    /// The principal's groups.
    pub(super) groups: bool,
}

impl Reads {
    const ALL: Self = Self { given: true, time: true, load: true, groups: true };

    /// What one or the other reads.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            given: self.given || other.given,
            time: self.time || other.time,
            load: self.load || other.load,
            groups: self.groups || other.groups,
        }
    }

    /// Whether the same question has the same answer another time.
    pub(super) fn can_be_remembered(self) -> bool {
        !self.given && !self.time && !self.load
    }
}

/// What a rule reads, and the entities that it names: their types and ids.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) reads: Reads,
    pub(super) names: Vec<(String, String)>,
}

/// Looks through a rule, as JSON.
pub(super) fn look(rule: &Value) -> Found {
    let mut found = Found::default();
    walk(rule, &mut found);
    found
}

fn walk(value: &Value, found: &mut Found) {
    match value {
        Value::Array(all) => all.iter().for_each(|one| walk(one, found)),
        Value::Object(object) => {
            if let (Some(Value::String(kind)), Some(Value::String(id))) =
                (object.get("type"), object.get("id"))
            {
                found.names.push((kind.clone(), id.clone()));
            }
            for (key, inner) in object {
                match (key.as_str(), inner) {
                    // `context` that no attribute is taken of: all of it.
                    ("Var", Value::String(variable)) if variable == "context" => {
                        found.reads = Reads::ALL;
                    }
                    ("." | "has", Value::Object(access)) => of_attribute(access, found),
                    _ => walk(inner, found),
                }
            }
        }
        _ => {}
    }
}

fn of_attribute(access: &serde_json::Map<String, Value>, found: &mut Found) {
    let left = access.get("left").unwrap_or(&Value::Null);
    let attribute = match access.get("attr") {
        Some(Value::String(attribute)) => attribute.as_str(),
        // `has` of several in one another.
        Some(Value::Array(path)) => path.first().and_then(Value::as_str).unwrap_or_default(),
        _ => "",
    };
    found.reads.groups |= attribute == "gids";
    if left.get("Var").and_then(Value::as_str) != Some("context") {
        walk(left, found);
        return;
    }
    let one = match attribute {
        // These are of what is asked for, which a decision is remembered by.
        "policy" | "tool" => Reads::default(),
        "time" => Reads { time: true, ..Reads::default() },
        "load" => Reads { load: true, ..Reads::default() },
        "program" | "words" | "argv" | "parameters" => Reads { given: true, ..Reads::default() },
        _ => Reads::ALL,
    };
    found.reads = found.reads.and(one);
}

#[cfg(test)]
mod tests {
    use cedar_policy::Policy;

    use super::*;

    fn found(rule: &str) -> Found {
        look(&Policy::parse(None, rule).unwrap().to_json().unwrap())
    }

    #[test]
    fn what_a_rule_reads_is_seen_wherever_it_stands_and_what_isnt_known_is_all() {
        let nothing = Reads::default();
        let table = [
            ("true", nothing),
            ("context.policy == \"a\" && context has tool && context.tool == \"x\"", nothing),
            ("principal.uid == 0", nothing),
            ("principal.gids.contains(5)", Reads { groups: true, ..nothing }),
            ("if context.time.hour < 8 then true else false", Reads { time: true, ..nothing }),
            ("!(context[\"time\"].weekday == 7)", Reads { time: true, ..nothing }),
            ("context.load has cpu && context.load.cpu > 5", Reads { load: true, ..nothing }),
            ("context has load.cpu", Reads { load: true, ..nothing }),
            ("context.words.contains(\"x\")", Reads { given: true, ..nothing }),
            ("[context.argv].contains([\"x\"])", Reads { given: true, ..nothing }),
            ("{a: context.parameters}.a.contains(\"x\")", Reads { given: true, ..nothing }),
            ("context == {}", Reads::ALL),
            ("{a: context}.a.policy == \"x\"", Reads::ALL),
            ("(if true then context else context).policy == \"x\"", Reads::ALL),
            ("context.another == 1", Reads::ALL),
        ];
        for (when, expected) in table {
            let rule = format!("permit (principal, action, resource) when {{ {when} }};");
            assert_eq!(found(&rule).reads, expected, "{when}");
            let rule = format!("forbid (principal, action, resource) unless {{ {when} }};");
            assert_eq!(found(&rule).reads, expected, "{when}");
        }
    }

    #[test]
    fn entities_are_named_from_scope_and_conditions() {
        let rule = "permit (principal in Role::\"a\", action == Action::\"run\", resource is Policy in Policy::\"b\")
            when { principal in [Role::\"c\", Role::\"d\"] || principal == User::\"e\" };";
        let names = found(rule).names;
        for name in [("Role", "a"), ("Policy", "b"), ("Role", "c"), ("Role", "d"), ("User", "e")] {
            assert!(names.contains(&(name.0.into(), name.1.into())), "{name:?} of {names:?}");
        }
    }
}
