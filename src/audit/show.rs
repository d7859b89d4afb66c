//! Records for people: a line each.

use stockade_audit::{Entry, Passed, What, time};

use crate::{escape, out};

/// A record as a line.
pub(super) fn line(entry: &Entry) -> String {
    let mut words =
        vec![time::rfc3339(entry.time), entry.class.name().to_owned(), entry.event.name().to_owned()];
    let mut word = |name: &str, value: Option<&str>| {
        words.extend(value.map(|value| format!("{name}={}", escape::line(value.as_bytes()))));
    };
    let uid = entry.event.principal.as_ref().map(|who| who.uid.to_string());
    word("uid", uid.as_deref());
    let request = entry.event.request();
    word("action", request.map(|request| request.action.as_str()));
    word("tool", entry.event.tool());
    word("policy", request.and_then(|request| request.policy.as_deref()));
    word("run", entry.event.exec());
    let given = request.and_then(|request| request.given.as_ref()).map(|given| given.text.join(" "));
    match &entry.event.what {
        What::Outcome(outcome) => {
            word("outcome", Some(&outcome.outcome));
            word("code", outcome.code.map(|code| code.to_string()).as_deref());
            word("ms", outcome.milliseconds.map(|ms| ms.to_string()).as_deref());
        }
        What::Refused(refused) => {
            word("stage", Some(&refused.stage));
            word("rule", Some(&refused.rule));
            word("reason", Some(&refused.reason));
        }
        What::Security(note) | What::Operation(note) => {
            word("about", note.about.as_deref());
            word("text", Some(&note.text));
        }
        What::Repeated(repeated) => {
            word("count", Some(&repeated.count.to_string()));
            word("like", Some(&repeated.like));
        }
        _ => {}
    }
    word("given", given.as_deref());
    words.join(" ") + "\n"
}

/// Says on standard error what couldn't be shown.
pub(super) fn passed(passed: Passed) {
    if passed.erased > 0 {
        let many = passed.erased;
        out::complain(&format!(
            "stockade: {many} records were erased, having been kept for as long as they are"
        ));
    }
    if passed.unreadable > 0 {
        let many = passed.unreadable;
        out::complain(&format!("stockade: {many} records can't be read; `stockade audit verify` says why"));
    }
}
