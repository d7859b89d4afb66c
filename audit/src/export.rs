//! Records for other programs: JSON lines as they are, or events of the Open Cybersecurity Schema Framework.
//!
//! OCSF 1.3.0, <https://schema.ocsf.io/1.3.0>: what a run begins and ends with is Process Activity (1007), a refusal is API
//! Activity (6003), security is a Detection Finding (2004), how the service does is Application Lifecycle (6002).

use serde_json::{Map, Value, json};

use crate::event::{Event, Given, Principal, Request, What};
use crate::format::Class;
use crate::read::Entry;

/// The version of the schema.
const OCSF: &str = "1.3.0";

/// What is common to a class of the schema.
struct Kind {
    class: u32,
    category: u32,
    activity: u32,
    severity: u32,
}

/// A record as an event of OCSF.
#[must_use]
pub fn ocsf(entry: &Entry, version: &str) -> Value {
    let (kind, mut fields) = of(&entry.event);
    let Kind { class, category, activity, severity } = kind;
    let mut common = json!({
        "class_uid": class,
        "category_uid": category,
        "activity_id": activity,
        "type_uid": class * 100 + activity,
        "severity_id": severity,
        // The schema counts milliseconds.
        "time": entry.time / 1_000_000,
        "metadata": {
            "version": OCSF,
            "product": { "name": "Stockade", "vendor_name": "Stockade", "version": version },
            "uid": entry.sequence.to_string(),
            "sequence": entry.sequence,
            "log_name": entry.class.name(),
        },
    });
    if let Some(principal) = &entry.event.principal {
        common["actor"] = actor(principal);
    }
    if let Some(all) = common.as_object_mut() {
        all.append(&mut fields);
    }
    common
}

/// A success, or a failure.
fn status(success: bool) -> u32 {
    if success { 1 } else { 2 }
}

fn of(event: &Event) -> (Kind, Map<String, Value>) {
    let (kind, fields) = match &event.what {
        What::Intent(request) => {
            let kind = Kind { class: 1007, category: 1, activity: 1, severity: 1 };
            (kind, json!({ "status_id": status(true), "process": process(request), "unmapped": request }))
        }
        What::Outcome(outcome) => {
            let kind = Kind { class: 1007, category: 1, activity: 2, severity: 1 };
            let success = outcome.outcome == "exited" && outcome.code == Some(0);
            let fields = json!({
                "status_id": status(success),
                "status_detail": outcome.outcome,
                "exit_code": outcome.code,
                "duration": outcome.milliseconds,
                "process": { "uid": outcome.exec },
                "unmapped": outcome,
            });
            (kind, fields)
        }
        What::Refused(refused) => {
            let kind = Kind { class: 6003, category: 6, activity: 99, severity: 2 };
            let fields = json!({
                "status_id": status(false),
                "status_code": refused.reason,
                "status_detail": refused.rule,
                "api": { "operation": refused.request.action, "service": { "name": refused.stage } },
                "unmapped": refused.request,
            });
            (kind, fields)
        }
        What::Security(note) => {
            let kind = Kind { class: 2004, category: 2, activity: 1, severity: 4 };
            let fields = json!({
                "message": note.text,
                "finding_info": { "uid": note.name, "title": note.name, "desc": note.text },
                "unmapped": note,
            });
            (kind, fields)
        }
        What::Operation(note) => {
            let kind = Kind { class: 6002, category: 6, activity: 99, severity: 1 };
            let fields = json!({ "message": note.text, "app": { "name": "stockade" }, "unmapped": note });
            (kind, fields)
        }
        What::Repeated(repeated) => {
            let severity = if repeated.class == Class::Security { 4 } else { 2 };
            let kind = Kind { class: 6003, category: 6, activity: 99, severity };
            let fields = json!({
                "count": repeated.count,
                "start_time": repeated.first / 1_000_000,
                "end_time": repeated.last / 1_000_000,
                "message": repeated.like,
                "api": { "operation": repeated.like },
            });
            (kind, fields)
        }
    };
    let Value::Object(fields) = fields else { return (kind, Map::new()) };
    (kind, fields.into_iter().filter(|(_, value)| !value.is_null()).collect())
}

fn actor(principal: &Principal) -> Value {
    let mut actor = json!({ "user": { "uid": principal.uid.to_string(), "groups": principal.roles.iter().map(|role| json!({ "name": role })).collect::<Vec<_>>() } });
    if let Some(pid) = principal.pid {
        actor["process"] = json!({ "pid": pid });
    }
    if let Some(unit) = &principal.unit {
        actor["app_name"] = json!(unit);
    }
    actor
}

fn process(request: &Request) -> Value {
    let line = |given: &Given| given.text.join(" ");
    json!({
        "uid": request.exec,
        "name": request.tool,
        "cmd_line": request.given.as_ref().map(line),
        "working_directory": request.workspace,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Note, Outcome, Refused, Repeated};

    /// What the schema requires of every event, and what makes its type.
    #[test]
    fn every_kind_of_event_has_what_the_schema_requires() {
        let request = Request { action: "run".into(), ..Request::default() };
        let repeated = Repeated { like: "x".into(), class: Class::Access, count: 2, first: 0, last: 1 };
        for what in [
            What::Intent(request.clone()),
            What::Outcome(Outcome::default()),
            What::Refused(Refused { request, ..Refused::default() }),
            What::Security(Note::default()),
            What::Operation(Note::default()),
            What::Repeated(repeated),
        ] {
            let event = Event { principal: Some(Principal { uid: 7, ..Principal::default() }), what };
            let entry = Entry { sequence: 5, time: 1_500_000_000, class: event.class(), event };
            let value = ocsf(&entry, "0.1.0");
            let number = |name: &str| value[name].as_u64().unwrap();
            assert_eq!(number("type_uid"), number("class_uid") * 100 + number("activity_id"));
            assert_eq!(number("category_uid"), number("class_uid") / 1000);
            assert_eq!((number("time"), number("severity_id") > 0), (1500, true));
            assert_eq!(value["metadata"]["version"], OCSF);
            assert_eq!(value["actor"]["user"]["uid"], "7");
        }
    }
}
