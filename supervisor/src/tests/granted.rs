//! A grant that is over, or revoked, begins nothing: not what waits for a slot, nor what waits for the record.

use std::path::Path;
use std::time::Duration;

use stockade_gate::grants::{Grant, GrantId, Terms, What, Whom};
use stockade_protocol::client::{ClientMessage, ExecRequest, ServerMessage};
use stockade_protocol::outcome::{CancelReason, Outcome};

use super::access::put;
use super::grants::{list, terms};
use super::stage::{Before, Changes, Stage, until};
use crate::grants::{clocks, put_beforehand};

/// One slot, and a grant to whoever runs the test.
fn stage(length: Duration) -> Stage {
    let before: Before = Box::new(move |directory: &Path| {
        let uid = rustix::process::geteuid().as_raw();
        put(directory, "roles.toml", &format!("[roles.approver]\nusers = [\"{uid}\"]\n"));
        let state = directory.join("state");
        std::fs::create_dir_all(&state).unwrap();
        std::fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let terms = Terms { what: What::Policy("custom".into()), length, ..terms(None) };
        let grant = Grant::new(GrantId([1; 16]), Whom { uid, unit: None }, terms, 0, clocks::now()).unwrap();
        put_beforehand(&state, [grant]);
    });
    let policy = Some("extends = \"strict\"\n");
    Stage::new(Changes { before: Some(before), policy, slots: 1, ..Changes::default() })
}

#[test]
fn what_waits_for_a_slot_isnt_begun_once_its_grant_is_over_or_revoked() {
    for revoked in [false, true] {
        let length = if revoked { 3_600 } else { 2 };
        let stage = stage(Duration::from_secs(length));
        let (mut launcher, mut client) = (stage.launcher(), stage.client());
        let custom = || ExecRequest { policy: "custom".into(), ..stage.request() };
        let first = client.exec(custom());
        let (launch, _) = launcher.launch();
        launcher.started_with(&launch, &[]);
        client.event(first, 2);
        let second = client.exec(custom());
        until("it's held", || {
            launcher.hears_something();
            launcher.held.contains_key(&second)
        });
        let mut other = stage.client();
        if revoked {
            let id = list(&mut other).grants[0].id.clone();
            other.say(&ClientMessage::GrantRevoke { id });
            assert!(matches!(other.next(), ServerMessage::GrantGone { runs: 0, .. }));
        } else {
            until("it's over", || list(&mut other).grants.is_empty());
        }
        // The first goes on, and its end makes room.
        assert!(!launcher.hears_something());
        launcher.ended(first, Outcome::Exited { code: 0 });
        assert!(!launcher.hears_something(), "it was begun");
        assert!(!launcher.held.contains_key(&second), "it's held yet");
        assert_eq!(client.read_to_end(first, 3).1, Outcome::Exited { code: 0 });
        assert_eq!(client.read_to_end(second, 2).1, Outcome::Cancelled { reason: CancelReason::GrantOver });
    }
}
