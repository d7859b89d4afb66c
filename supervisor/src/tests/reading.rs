//! The record as who may read it is told it by the daemon.

use std::path::Path;

use serde_json::Value;
use stockade_audit::{Entry, What};
use stockade_protocol::audit::{AuditClass, AuditPage, AuditQuestion, AuditRecord};
use stockade_protocol::bounds::{MAX_AUDIT_FILTER, MAX_AUDIT_LAST, MAX_AUDIT_PAGE_BYTES};
use stockade_protocol::client::{ClientMessage, ExecRequest, ServerMessage};
use stockade_protocol::denied::{Denied, DenyReason};

use super::access::put;
use super::record::{end, entries, with_a_key};
use super::stage::{Changes, Client, Stage, until};
use crate::serve::Order;

fn stage(before: impl FnOnce(&Path) + 'static) -> Stage {
    let before = move |directory: &Path| {
        with_a_key(directory);
        before(directory);
    };
    Stage::new(Changes { before: Some(Box::new(before)), ..Changes::default() })
}

fn role(name: &str) -> String {
    format!("[roles.{name}]\nusers = [\"{}\"]\n", rustix::process::geteuid().as_raw())
}

fn answer(client: &mut Client) -> Result<AuditPage, Denied> {
    match client.next() {
        ServerMessage::AuditPage(page) => Ok(*page),
        ServerMessage::Denied { request_id: 0, exec_id: None, denied } => Err(denied),
        other => panic!("{other:?} instead of a page"),
    }
}

fn ask(client: &mut Client, question: AuditQuestion) -> Result<AuditPage, Denied> {
    client.say(&ClientMessage::Audit(Box::new(question)));
    answer(client)
}

fn more(client: &mut Client) -> Result<AuditPage, Denied> {
    client.say(&ClientMessage::AuditMore);
    answer(client)
}

fn told(record: &AuditRecord) -> Value {
    serde_json::from_slice(&record.text).unwrap()
}

/// Under which policy was asked for what was refused.
fn policy(record: &AuditRecord) -> String {
    told(record)["request"]["policy"].as_str().unwrap().to_owned()
}

fn refuse(stage: &Stage, policy: &str) {
    let denied = stage.client().denied(ExecRequest { policy: policy.into(), ..stage.request() }, &[]);
    assert_eq!(denied.reason, DenyReason::UnknownPolicy);
}

fn refuse_any(stage: &Stage) {
    stage.client().denied(ExecRequest { policy: "nosuch".into(), ..stage.request() }, &[]);
}

fn following(event: &str) -> AuditQuestion {
    AuditQuestion { event: Some(event.into()), follow: true, ..AuditQuestion::default() }
}

#[test]
fn who_may_read_the_record_is_told_what_fits_and_that_he_has_asked_stands_in_it_first() {
    let stage = stage(|_| {});
    refuse(&stage, "nosuch");
    let mut client = stage.client();
    let question = AuditQuestion {
        classes: vec![AuditClass::Access],
        uid: Some(rustix::process::geteuid().as_raw()),
        ..AuditQuestion::default()
    };
    let page = ask(&mut client, question).unwrap();
    let is = |page: &AuditPage, name: &str| {
        page.records.iter().map(told).filter(|record| record["event"] == name).count()
    };
    assert_eq!((page.records.len(), is(&page, "refused"), is(&page, "intent")), (2, 1, 1), "{page:?}");
    assert!(!page.more && !page.partial && page.erased == 0 && page.unreadable == 0);
    assert!(page.records.is_sorted_by_key(|record| record.sequence));
    let reading = told(&page.records[1]);
    assert_eq!(reading["action"], "read-audit");
    assert_eq!(reading["given"]["text"][0], "--class=access");
    // It's over, and asked for again.
    assert_eq!(more(&mut client).unwrap_err().reason, DenyReason::BadRequest);
    let last = AuditQuestion { last: Some(1), ..AuditQuestion::default() };
    let page = ask(&mut client, last).unwrap();
    assert_eq!(told(&page.records[0])["given"]["text"][0], "--lines=1", "the last one is that he asks");
    assert_eq!(page.records.len(), 1);
    drop(client);
    let all = entries(end(stage).path());
    let readings =
        |entry: &&Entry| matches!(&entry.event.what, What::Intent(request) if request.action == "read-audit");
    assert_eq!(all.iter().filter(readings).count(), 2);
}

#[test]
fn whom_the_rules_dont_permit_it_is_refused_and_an_auditor_isnt() {
    for (name, may) in [("operator", false), ("client", false), ("auditor", true), ("admin", true)] {
        let stage = stage(move |directory| put(directory, "roles.toml", &role(name)));
        let mut client = stage.client();
        let answered = ask(&mut client, AuditQuestion::default());
        match answered {
            Ok(page) => assert!(may && !page.records.is_empty(), "{name}"),
            Err(denied) => {
                assert!(!may && denied.reason == DenyReason::NotPermitted, "{name}: {denied}");
                assert_eq!(more(&mut client).unwrap_err().reason, DenyReason::BadRequest);
            }
        }
        drop(client);
        let all = entries(end(stage).path());
        let of = |event: &str| all.iter().filter(|entry| entry.event.name() == event).count();
        assert_eq!((of("not-permitted"), of("intent")), (usize::from(!may), usize::from(may)), "{name}");
    }
}

#[test]
fn a_long_record_comes_in_pages_each_only_when_its_asked_for() {
    let stage = stage(|_| {});
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let many = 40;
    for _ in 0..many {
        let mut argv = vec!["/bin/true".into()];
        argv.extend((0..63).map(|_| "x".repeat(512).as_str().into()));
        client.exec(ExecRequest { argv, detach: true, ..stage.request() });
        launcher.launch();
    }
    let mut reader = stage.client();
    let runs = AuditQuestion { event: Some("intent".into()), ..AuditQuestion::default() };
    let mut page = ask(&mut reader, runs).unwrap();
    let (mut records, mut pages) = (Vec::new(), 1);
    loop {
        let bytes: usize = page.records.iter().map(|record| record.text.len()).sum();
        assert!(bytes <= MAX_AUDIT_PAGE_BYTES, "{bytes}");
        records.append(&mut page.records);
        if !page.more {
            break;
        }
        assert!(reader.hears_nothing());
        page = more(&mut reader).unwrap();
        pages += 1;
    }
    assert!(pages > 2 && records.is_sorted_by(|one, other| one.sequence < other.sequence));
    assert_eq!(records.len(), many + 1, "the reading itself is among them");
}

#[test]
fn who_follows_is_told_what_comes_one_page_at_a_time_and_holds_nobody_up() {
    let stage = stage(|_| {});
    let mut reader = stage.client();
    refuse(&stage, "before");
    reader.say(&ClientMessage::Audit(Box::new(AuditQuestion { last: Some(0), ..following("refused") })));
    assert!(reader.hears_nothing(), "nothing of before");
    reader.status();
    refuse(&stage, "first");
    let page = answer(&mut reader).unwrap();
    assert!(page.more && page.records.len() == 1);
    assert_eq!(policy(&page.records[0]), "first");
    // What comes while nobody asks waits in the record.
    refuse(&stage, "second");
    refuse(&stage, "third");
    assert!(reader.hears_nothing());
    let mut came = Vec::new();
    while came.len() < 2 {
        came.extend(more(&mut reader).unwrap().records);
    }
    assert_eq!((policy(&came[0]), policy(&came[1])), ("second".to_owned(), "third".to_owned()));
    // Two at once are one too many; the first goes on.
    reader.say(&ClientMessage::AuditMore);
    reader.status();
    assert_eq!(more(&mut reader).unwrap_err().reason, DenyReason::Busy);
    refuse(&stage, "fourth");
    assert_eq!(policy(&answer(&mut reader).unwrap().records[0]), "fourth");
    // Another question ends it.
    let page = ask(&mut reader, AuditQuestion { last: Some(1), ..AuditQuestion::default() }).unwrap();
    assert!(!page.more);
    assert_eq!(more(&mut reader).unwrap_err().reason, DenyReason::BadRequest);
}

#[test]
fn who_may_no_more_is_told_nothing_more() {
    let stage = stage(|directory| put(directory, "roles.toml", &role("auditor")));
    let mut reader = stage.client();
    refuse_any(&stage);
    let page = ask(&mut reader, following("refused")).unwrap();
    assert!(page.records.len() == 1 && page.more);
    reader.say(&ClientMessage::AuditMore);
    put(stage.directory.path(), "roles.toml", &role("operator"));
    let count = || stage.said.count("policies reloaded");
    let before = count();
    stage.order(Order::Reload);
    until("reloaded", || count() > before);
    refuse_any(&stage);
    assert_eq!(answer(&mut reader).unwrap_err().reason, DenyReason::NotPermitted);
    assert_eq!(more(&mut reader).unwrap_err().reason, DenyReason::BadRequest);
}

#[test]
fn so_many_read_at_once_and_who_leaves_makes_room() {
    let stage = stage(|_| {});
    let follow = || {
        let mut reader = stage.client();
        reader.say(&ClientMessage::Audit(Box::new(following("nothing-of-that-name"))));
        // Read by now, and waiting.
        reader.status();
        reader
    };
    let mut readers: Vec<Client> = (0..4).map(|_| follow()).collect();
    let mut late = stage.client();
    let refused = ask(&mut late, AuditQuestion::default()).unwrap_err();
    assert!(refused.reason == DenyReason::Busy && refused.retry_after_ms.is_some(), "{refused:?}");
    readers.pop();
    until("there is room", || ask(&mut late, AuditQuestion::default()).is_ok());
}

#[test]
fn with_a_disk_that_hangs_nothing_is_read_unless_an_operator_has_it_otherwise() {
    for required in [true, false] {
        let stage = stage(move |directory| {
            put(directory, "stockade.d/required.toml", &format!("[audit]\nrequired = {required}\n"));
        });
        let mut client = stage.client();
        let hangs = stage.directory.path().join("state/hangs");
        std::fs::write(&hangs, "").unwrap();
        match ask(&mut client, AuditQuestion::default()) {
            Ok(page) => assert!(!required && !page.records.is_empty()),
            Err(denied) => assert!(required && denied.reason == DenyReason::AuditUnavailable, "{denied:?}"),
        }
        std::fs::remove_file(&hangs).unwrap();
        assert!(ask(&mut client, AuditQuestion::default()).is_ok());
    }
}

#[test]
fn where_nothing_is_recorded_there_is_nothing_to_read() {
    let stage = Stage::new(Changes::default());
    let denied = ask(&mut stage.client(), AuditQuestion::default()).unwrap_err();
    assert!(denied.reason == DenyReason::Unsupported && denied.remedy.is_some(), "{denied:?}");
}

#[test]
fn no_bound_is_passed() {
    let stage = stage(|_| {});
    let mut client = stage.client();
    for question in [
        AuditQuestion { tool: Some("x".repeat(MAX_AUDIT_FILTER + 1)), ..AuditQuestion::default() },
        AuditQuestion { exec: Some("x".repeat(MAX_AUDIT_FILTER + 1)), ..AuditQuestion::default() },
        AuditQuestion { last: Some(MAX_AUDIT_LAST + 1), ..AuditQuestion::default() },
        AuditQuestion { classes: vec![AuditClass::Access; 4], ..AuditQuestion::default() },
    ] {
        assert_eq!(ask(&mut client, question).unwrap_err().reason, DenyReason::BadRequest);
    }
    let at_most = "x".repeat(MAX_AUDIT_FILTER);
    let question =
        AuditQuestion { tool: Some(at_most), last: Some(MAX_AUDIT_LAST), ..AuditQuestion::default() };
    assert!(ask(&mut client, question).unwrap().records.is_empty());
}
