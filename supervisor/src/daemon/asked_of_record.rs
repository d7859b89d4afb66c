//! A question about the record, as the record's reader has it, and as it's written down itself: in the words of the command line.

use stockade_audit::time::rfc3339;
use stockade_audit::{Class, Filter, Given, Request};
use stockade_gate::Action;
use stockade_protocol::audit::{AuditClass, AuditQuestion};

/// Which records are asked for.
pub(super) fn filter_of(question: AuditQuestion) -> Filter {
    let AuditQuestion { since_ns, until_ns, classes, uid, tool, outcome, exec, event, .. } = question;
    let classes = classes.into_iter().filter_map(class_of).collect();
    Filter { since: since_ns, until: until_ns, classes, uid, tool, outcome, exec, name: event }
}

/// `None`: none that this daemon knows. The wire has no others in this version.
pub(super) fn class_of(class: AuditClass) -> Option<Class> {
    match class {
        AuditClass::Security => Some(Class::Security),
        AuditClass::Access => Some(Class::Access),
        AuditClass::Operation => Some(Class::Operation),
        _ => None,
    }
}

/// The question as it's recorded.
pub(super) fn request_of(question: &AuditQuestion) -> Request {
    let mut words = Vec::new();
    let mut word =
        |name: &str, value: Option<String>| words.extend(value.map(|value| format!("--{name}={value}")));
    word("since", question.since_ns.map(rfc3339));
    word("until", question.until_ns.map(rfc3339));
    for class in &question.classes {
        word("class", class_of(*class).map(|class| class.name().to_owned()));
    }
    word("principal", question.uid.map(|uid| uid.to_string()));
    word("tool", question.tool.clone());
    word("outcome", question.outcome.clone());
    word("exec", question.exec.clone());
    word("event", question.event.clone());
    word("lines", question.last.map(|last| last.to_string()));
    if question.follow {
        words.push("--follow".to_owned());
    }
    let given = Some(Given::of(words.iter().map(String::as_bytes)));
    Request { action: Action::ReadAudit.name().to_owned(), given, ..Request::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_asked_for_by_stands_in_the_record() {
        let question = AuditQuestion {
            since_ns: Some(0),
            until_ns: Some(1_000_000_000),
            classes: vec![AuditClass::Security, AuditClass::Operation],
            uid: Some(7),
            tool: Some("lint".into()),
            outcome: Some("exited".into()),
            exec: Some("774b".into()),
            event: Some("intent".into()),
            last: Some(3),
            follow: true,
        };
        let said = request_of(&question).given.unwrap().text.join(" ");
        assert_eq!(
            said,
            "--since=1970-01-01T00:00:00.000000000Z --until=1970-01-01T00:00:01.000000000Z --class=security \
             --class=operation --principal=7 --tool=lint --outcome=exited --exec=774b --event=intent --lines=3 --follow"
        );
        let expected = Filter {
            since: Some(0),
            until: Some(1_000_000_000),
            classes: vec![Class::Security, Class::Operation],
            uid: Some(7),
            tool: Some("lint".into()),
            outcome: Some("exited".into()),
            exec: Some("774b".into()),
            name: Some("intent".into()),
        };
        assert_eq!(filter_of(question), expected);
        assert!(request_of(&AuditQuestion::default()).given.unwrap().text.is_empty());
    }
}
