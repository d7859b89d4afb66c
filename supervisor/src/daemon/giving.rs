//! A grant's way from whoever gives it until it holds.
//!
//! ```text
//! make_grant ──> the record ──durable, or it needn't be──> the file's thread ──durable──> held, answered
//!                   └── not durable: refused                  └── not durable, late, withdrawn: refused, and taken from the disk
//! ```
//!
//! The record comes first, as an intent's does: a daemon that is killed in between has written of a grant that there isn't, and never
//! has one of which nothing is written.

use std::time::Instant;

use stockade_gate::grants::{BadGrant, Grant, GrantId, Terms, Whom};
use stockade_gate::tools::hex;
use stockade_gate::{Principal, StageName};
use stockade_protocol::ExecId;
use stockade_protocol::client::ServerMessage;
use stockade_protocol::denied::{Denied, DenyReason};

use super::granting::{refused, summary};
use super::redeeming::name;
use super::state::State;
use crate::dispatcher::ConnectionId;
use crate::grants::{Going, Making, Told, Write, late};
use crate::metrics::GrantEvent;

/// When to ask again while too much waits for the disk, in milliseconds.
const BUSY_MS: u64 = 250;

impl State {
    /// Has a grant recorded and written down, which holds once it is. Its name is new each time: one that was given up may be on disk
    /// yet, or taken from there, after the next is.
    pub(super) fn make_grant(
        &mut self,
        connection: ConnectionId,
        giver: &Principal,
        (request, to, terms): (Option<GrantId>, Whom, Terms),
    ) -> Result<(), Denied> {
        if to.is_himself(giver) {
            return Err(self.himself(connection, &to));
        }
        self.sweep_grants();
        let (id, now) = (new_id(), self.gate.held().now());
        let text = format!("{}, by {}, as {}: {}", said(&terms), giver.uid, name(id), terms.why);
        let grant = Grant::new(id, to, terms, giver.uid, now).map_err(|error| bad(&error))?;
        self.write_grants();
        let principal = self.principal(connection);
        let Some(grants) = &mut self.grants else { return Err(unavailable("there are no grants")) };
        grants.is_usable().map_err(|why| unavailable(&why))?;
        let uid = grant.to.uid;
        let his = grants.making.values().filter(|making| making.grant.to.uid == uid).count();
        let room = self.gate.held().has_room_for(uid, (grants.making.len(), his));
        room.map_err(|full| {
            Denied::new(DenyReason::Busy, full.to_string())
                .remedy("`stockade grant list` has them: take one away that isn't needed")
        })?;
        if !grants.has_room() {
            let text = "too much waits until it is written down";
            return Err(Denied::new(DenyReason::Busy, text).retry_after(BUSY_MS));
        }
        let (about, since) = (grant.to.to_string(), Instant::now());
        let by = principal.clone();
        grants.making.insert(id, Making { grant, request, connection, principal, is_handed: false, since });
        match &self.record {
            Some(record) => {
                let told = grants.telling(move |result| Told::Recorded(id, result));
                record.before((by, "granted"), text, &about, told);
            }
            None => self.hand_grant(id),
        }
        Ok(())
    }

    fn hand_grant(&mut self, id: GrantId) {
        let Some(grants) = &mut self.grants else { return };
        let Some(making) = grants.making.get_mut(&id) else { return };
        // The disk's own patience begins here.
        (making.is_handed, making.since) = (true, Instant::now());
        let write = Write::Put(Box::new(making.grant.clone()));
        grants.tell(vec![write], move |result| Told::Made(id, result));
    }

    /// A grant is recorded, or why it isn't.
    pub(crate) fn grant_recorded(&mut self, id: GrantId, result: Result<(), String>) {
        let is_required = self.record.as_ref().is_some_and(|record| record.is_required);
        let Some(grants) = &mut self.grants else { return };
        // One that was given up, or withdrawn, or went on when it took too long.
        if grants.making.get(&id).is_none_or(|making| making.is_handed) {
            return;
        }
        match result {
            Err(why) if is_required => {
                if let Some(making) = grants.making.remove(&id) {
                    self.record_no_grant(&making, "it couldn't be recorded");
                    self.answer(making.connection, &refused(unrecorded(&why)));
                }
            }
            Err(why) => {
                tracing::warn!(
                    why,
                    grant = name(id),
                    "a grant isn't recorded, and is given all the same: audit.required is off"
                );
                self.hand_grant(id);
            }
            Ok(()) => self.hand_grant(id),
        }
    }

    /// A grant is on disk, and holds; or why it isn't.
    pub(crate) fn grant_made(&mut self, id: GrantId, result: Result<(), String>) {
        let Some(grants) = &mut self.grants else { return };
        // One that was given up was taken back at that.
        let Some(making) = grants.making.remove(&id) else { return };
        if let Err(why) = result {
            self.record_no_grant(&making, "it couldn't be written down");
            return self.answer(making.connection, &refused(not_made(&why)));
        }
        let Making { grant, request, connection, .. } = making;
        if let Some(request) = request {
            grants.requests.take(request, self.gate.held().now());
        }
        self.figures.gated.granted(GrantEvent::Given);
        let (to, what, by) = (grant.to.to_string(), grant.what.to_string(), grant.by);
        tracing::info!(grant = name(id), to, what, by, for_s = grant.length.as_secs(), "granted");
        let summary = summary(&grant, self.gate.held().now());
        self.gate.held().put(grant);
        self.wait_for_ends();
        self.answer(connection, &ServerMessage::Granted(Box::new(summary)));
    }

    /// The record or the disk hasn't answered in time: there is to be no such grant, whenever it gets there.
    pub(super) fn give_up_making(&mut self, id: GrantId) {
        let Some(grants) = &self.grants else { return };
        if grants.making.get(&id).is_some_and(|making| making.is_handed) {
            grants.write(vec![Write::Drop(id)]);
            self.grant_made(id, Err(late()));
        } else {
            self.grant_recorded(id, Err(late()));
        }
    }

    /// Somebody withdraws a request, which may be being answered: there is to be no grant by it, either.
    pub(super) fn withdraw_request(&mut self, connection: ConnectionId, request: GrantId) {
        let now = self.gate.held().now();
        let principal = self.principal(connection);
        let Some(grants) = &mut self.grants else { return };
        let making = grants.answering(request).and_then(|id| grants.making.remove(&id));
        let about = grants.requests.take(request, now).map(|pending| pending.to.to_string());
        let is_handed = making.as_ref().map(|making| (making.grant.id, making.is_handed));
        if let Some(record) = &self.record {
            record.asked(principal, "grant-withdrawn", name(request), &about.unwrap_or_default());
        }
        if let Some(making) = making {
            self.record_no_grant(&making, "its request was withdrawn");
            let text = "the request was withdrawn while it was being answered, and there is no grant";
            self.answer(making.connection, &refused(Denied::new(DenyReason::BadRequest, text)));
        }
        match (is_handed, &mut self.grants) {
            (Some((id, true)), Some(grants)) => {
                grants.going.insert(id, Going { connection, named: request, runs: 0, since: Instant::now() });
                grants.tell(vec![Write::Drop(id)], move |result| Told::Gone(id, result));
            }
            _ => self.answer(connection, &ServerMessage::GrantGone { id: name(request), runs: 0 }),
        }
    }

    /// What stands in the record as granted has come to nothing.
    fn record_no_grant(&self, making: &Making, why: &str) {
        if let Some(record) = &self.record {
            let text = format!("{}, as {}: {why}", making.grant.what, name(making.grant.id));
            record.watched(making.principal.clone(), "grant-failed", text, &making.grant.to.to_string());
        }
    }

    /// Takes those away that are over.
    pub(super) fn sweep_grants(&mut self) {
        let over = self.gate.held().sweep();
        self.note_over(&over);
    }

    /// Writes that grants are over.
    pub(crate) fn note_over(&self, over: &[Grant]) {
        let Some(record) = &self.record else { return };
        for grant in over {
            let principal = stockade_audit::Principal { uid: grant.to.uid, ..Default::default() };
            let text = format!("its time is over: {}, as {}", grant.what, name(grant.id));
            record.watched(principal, "grant-over", text, &grant.to.to_string());
        }
    }

    /// Somebody would give to himself: that is written, too.
    pub(super) fn himself(&self, connection: ConnectionId, to: &Whom) -> Denied {
        let denied = Denied::new(DenyReason::NotPermitted, "nobody grants anything to himself")
            .decided_by(StageName::Access.name(), "built-in")
            .remedy("have somebody else do it; another systemd unit of the same user is somebody else, where both are known");
        if let Some(record) = &self.record {
            record.not_permitted(self.principal(connection), &denied, &to.to_string());
        }
        denied
    }
}

pub(super) fn new_id() -> GrantId {
    GrantId(*ExecId::generate().as_bytes())
}

/// What is given or asked for, whole, as it's recorded.
pub(super) fn said(terms: &Terms) -> String {
    let mut text = format!("{} for {:?}", terms.what, terms.length);
    if let Some(uses) = terms.uses {
        text += &format!(", {uses} uses");
    }
    if terms.ends_runs {
        text += ", its runs end with it";
    }
    if let Some(given) = &terms.given {
        text += &format!(", with exactly `{}` ({})", given.shown, hex(&given.digest));
    }
    text
}

pub(super) fn unavailable(why: &str) -> Denied {
    tracing::error!(why, "a grant can't be written down");
    Denied::new(DenyReason::Unavailable, "the grant can't be written down, and so there is none")
        .remedy("the daemon's log has the reason (a full disk?)")
}

fn unrecorded(why: &str) -> Denied {
    tracing::error!(why, "a grant can't be recorded, and isn't given");
    Denied::new(DenyReason::AuditUnavailable, "the grant can't be recorded just now, and so there is none")
        .decided_by("record", "audit.required")
        .remedy("ask again later; the daemon's log has the reason (a full disk?)")
}

/// Of one that was handed over: nobody knows whether it gets there.
fn not_made(why: &str) -> Denied {
    tracing::error!(why, "a grant can't be written down, and doesn't hold");
    let text = "the grant can't be written down, and doesn't hold; if it gets on disk yet it's taken from there again, but after a \
        restart before that it would hold";
    Denied::new(DenyReason::Unavailable, text)
        .remedy("the daemon's log has the reason (a full disk?); after a restart `stockade grant list` has it if it holds")
}

pub(super) fn bad(error: &BadGrant) -> Denied {
    Denied::new(DenyReason::BadRequest, error.to_string())
}
