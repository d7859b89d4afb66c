//! `stockade audit` on a log that is there, as the daemon writes it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use stockade_audit::{Event, Given, Log, MasterKey, Outcome, Principal, Refused, Request, Settings, What};
use stockade_tests::{Ended, Ground, Person};

struct Place {
    ground: Ground,
    log: PathBuf,
    key: PathBuf,
}

impl Place {
    fn new() -> Self {
        let ground = Ground::new(Person::me());
        let (log, key) = (ground.base().join("audit"), ground.base().join("audit.key"));
        MasterKey::create(&key).unwrap();
        Self { ground, log, key }
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::new(&self.log, MasterKey::read(&self.key).unwrap());
        settings.copy = Some(self.ground.base().join("heads"));
        settings
    }

    fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = self.ground.stockade();
        command.arg("audit").args(words).arg("--directory").arg(&self.log);
        if !words.contains(&"--without-key") {
            command.arg("--key").arg(&self.key);
        }
        command
    }

    fn audit(&self, words: &[&str]) -> Ended {
        Ended::of(self.command(words))
    }
}

fn objects(ended: &Ended) -> Vec<Value> {
    ended.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn intent(uid: u32, exec: &str, tool: &str) -> Event {
    let request = Request {
        action: "call".into(),
        exec: Some(exec.into()),
        tool: Some(tool.into()),
        given: Some(Given::of([b"a\x1b[31mb".as_slice()])),
        ..Request::default()
    };
    let principal = Principal { uid, ..Principal::default() };
    Event { principal: Some(principal), what: What::Intent(request) }
}

fn fill(log: &Log) {
    let refused = Refused {
        request: Request { action: "call".into(), tool: Some("lint".into()), ..Request::default() },
        stage: "rate".into(),
        rule: "per-minute".into(),
        reason: "rate-limited".into(),
    };
    let outcome = Outcome {
        exec: "e1".into(),
        tool: Some("lint".into()),
        outcome: "exited".into(),
        code: Some(0),
        ..Outcome::default()
    };
    for event in [
        intent(1000, "e1", "lint"),
        Event { principal: None, what: What::Outcome(outcome) },
        intent(1001, "e2", "format"),
        Event { principal: None, what: What::Refused(refused) },
        Event::security("a-thing", "has happened"),
    ] {
        log.append_and_wait(event).unwrap();
    }
}

#[test]
fn the_record_is_verified_with_its_key_without_and_against_copies() {
    let place = Place::new();
    let log = Log::open(place.settings()).unwrap();
    fill(&log);
    // While it's written to.
    place.audit(&["verify"]).expect_code(0);
    drop(log);
    let heads = place.ground.base().join("heads");
    let verified = place.audit(&["verify", "--heads", heads.to_str().unwrap(), "--json"]);
    verified.expect_code(0);
    let report = &objects(&verified)[0];
    assert!(report["opened"] == true && report["macs"] == true && report["known"] == true, "{report}");
    let public = report["public"].as_str().unwrap().to_owned();
    place.audit(&["verify", "--without-key", "--public-key", &public]).expect_code(0);
    let other = public.replace(|c: char| c.is_ascii_digit(), "0");
    place.audit(&["verify", "--without-key", "--public-key", &other]).expect_code(1);
    place.audit(&["verify", "--public-key", "abc"]).expect_code(2);
    let segment = place.log.join("00000000000000000001.segment");
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    for words in [&["verify", "--json"][..], &["verify", "--without-key", "--json"]] {
        let verified = place.audit(words);
        verified.expect_code(1);
        assert_eq!(objects(&verified)[0]["findings"][0]["tampering"], "changed");
    }
}

#[test]
fn records_are_asked_for_by_what_they_say() {
    let place = Place::new();
    let log = Log::open(place.settings()).unwrap();
    fill(&log);
    let found = |words: &[&str]| {
        let ended = place.audit(&[&["query", "--json"], words].concat());
        ended.expect_code(0);
        objects(&ended).len()
    };
    assert_eq!(found(&["--tool", "lint"]), 3);
    assert_eq!(found(&["--tool", "lint", "--principal", "1000"]), 1);
    assert_eq!(found(&["--outcome", "refused"]), 1);
    assert_eq!(found(&["--exec", "e1"]), 2);
    assert_eq!(found(&["--class", "security"]), 1);
    assert_eq!(found(&["--since", "1h"]), 6);
    assert_eq!(found(&["--until", "1h"]), 0);
    place.audit(&["query", "--since", "yesterday"]).expect_code(2);
    let text = place.audit(&["query", "--exec", "e2"]);
    assert!(text.text().contains("uid=1001") && !text.text().contains('\x1b'), "{}", text.text());
    let exported = place.audit(&["export", "--format", "ocsf", "--class", "access"]);
    exported.expect_code(0);
    assert!(objects(&exported).iter().all(|event| event["metadata"]["version"] == "1.3.0"));
    assert_eq!(objects(&exported).len(), 4);
}

#[test]
fn the_last_records_are_shown_and_those_that_come() {
    let place = Place::new();
    let log = Log::open(place.settings()).unwrap();
    fill(&log);
    let last = place.audit(&["tail", "--lines", "2", "--json"]);
    let names: Vec<_> = objects(&last).iter().map(|object| object["event"].clone()).collect();
    assert_eq!(names, ["refused", "security"]);
    let mut command = place.command(&["tail", "--lines", "1", "--follow", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("a-thing"));
    log.append_and_wait(intent(1000, "to-come", "lint")).unwrap();
    assert!(lines.next().unwrap().unwrap().contains("to-come"));
    // In another segment, too.
    drop(log);
    let log = Log::open(place.settings()).unwrap();
    log.append_and_wait(intent(1000, "behind", "lint")).unwrap();
    assert!(lines.by_ref().map(Result::unwrap).any(|line| line.contains("behind")));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_new_key_and_a_backup_are_made_while_it_is_written_to() {
    let place = Place::new();
    let log = Log::open(place.settings()).unwrap();
    fill(&log);
    let copy = place.ground.base().join("copy");
    place.audit(&["backup", copy.to_str().unwrap()]).expect_code(0);
    place.audit(&["backup", copy.to_str().unwrap()]).expect_code(1);
    let new = place.ground.base().join("new.key");
    place.audit(&["rotate-key", "--new-key", new.to_str().unwrap()]).expect_code(0);
    assert_eq!(std::fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o600);
    fill(&log);
    drop(log);
    let refused = place.audit(&["query"]);
    refused.expect_code(1);
    assert!(refused.errors().contains("this isn't the key"), "{}", refused.errors());
    place.audit(&["verify"]).expect_code(1);
    std::fs::rename(&new, &place.key).unwrap();
    place.audit(&["verify"]).expect_code(0);
    // It was filled twice with the same: an outcome that stands there twice is told once.
    let found = place.audit(&["query", "--exec", "e1", "--json"]);
    assert_eq!(objects(&found).len(), 3);
    assert!(found.errors().contains("1 outcomes stand in the record again"), "{}", found.errors());
    assert_eq!(objects(&place.audit(&["export", "--exec", "e1"])).len(), 4);
    // The copy is of before, and takes the key of before.
    let mut command = place.ground.stockade();
    command.args(["audit", "verify", "--without-key", "--directory"]).arg(&copy);
    Ended::of(command).expect_code(0);
}

#[test]
fn what_is_not_there_or_not_kept_as_a_key_must_be_is_said() {
    let place = Place::new();
    place.audit(&["verify"]).expect_code(1);
    place.audit(&["tail"]).expect_code(1);
    drop(Log::open(place.settings()).unwrap());
    std::fs::set_permissions(&place.key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = place.audit(&["query"]);
    refused.expect_code(1);
    assert!(refused.errors().contains("chmod 0600"), "{}", refused.errors());
}
