//! Who may: of what clients ask about runs that there are, and about the daemon.
//!
//! Without rules of access everything here is as the dispatcher has it: everybody has his own runs, and nobody another's.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use stockade_gate::access::Locked;
use stockade_gate::{Action, Principal};
use stockade_protocol::ExecId;
use stockade_protocol::client::{LockedOut, ServerMessage, StatusReport};
use stockade_protocol::denied::{Denied, DenyReason};

use super::breakers::may_operate;
use super::panels::not_yours;
use super::state::State;
use crate::dispatcher::{ConnectionId, no_such_run};
use crate::gate::{OfRun, Unseen};
use crate::runs::Run;

/// Different runs (by owner, policy and tool) of which one list asks the rules, of one's own and again of others': those of more aren't
/// shown.
const MAX_ASKED: usize = 256;
/// Of how many a status says that they are locked out.
const MAX_LOCKED_TOLD: usize = 256;

impl State {
    /// Who asks by a connection. His roles are looked up once for each set of files.
    ///
    /// # Errors
    /// There is no such connection: nobody asks, and is permitted nothing.
    pub(super) fn asker(&mut self, connection: ConnectionId) -> Result<Rc<Principal>, Denied> {
        let gone = || Denied::new(DenyReason::NotPermitted, "nobody is there who asks");
        let outbox = self.connections.get_mut(&connection).ok_or_else(gone)?;
        let generation = self.gate.generation();
        match &outbox.asker {
            Some((of, asker)) if *of == generation => Ok(Rc::clone(asker)),
            _ => {
                let asker = Rc::new(self.gate.asker(&outbox.owner, outbox.pid, outbox.unit.as_deref()));
                outbox.asker = Some((generation, Rc::clone(&asker)));
                Ok(asker)
            }
        }
    }

    /// Whose run it is, for who may do something to it; else he is told why not. Of a run that there isn't the dispatcher says so.
    pub(super) fn permitted(&mut self, connection: ConnectionId, action: Action, id: ExecId) -> Option<u32> {
        let may = if self.gate.has_rules() {
            self.may(connection, action, id)
        } else {
            Ok(self.connections.get(&connection)?.owner.uid)
        };
        // Of another's run the dispatcher says that there is none.
        let is_his = |uid: &u32| self.runs.get(&id).is_some_and(|run| run.owner == *uid);
        let may = match may {
            Ok(owner) if is_his(&owner) && self.is_review(id) => Err(not_yours()),
            may => may,
        };
        match may {
            Ok(owner) => Some(owner),
            Err(denied) => {
                self.tell_locked(connection);
                self.answer(connection, &ServerMessage::Denied { request_id: 0, exec_id: Some(id), denied });
                None
            }
        }
    }

    fn may(&mut self, connection: ConnectionId, action: Action, id: ExecId) -> Result<u32, Denied> {
        let (asker, uptime) = (self.asker(connection)?, self.uptime());
        self.gate.lets_in(&asker, action, uptime)?;
        let Some(run) = self.runs.get(&id) else { return Err(no_such_run(id)) };
        let owner = run.owner;
        let is_review = run.reviews.is_some() && action != Action::List;
        let refused = match self.gate.permits(&asker, action, of_run(run), uptime) {
            Ok(()) if is_review => Unseen::Refused(not_yours()),
            Ok(()) => {
                if let Some(record) = self.record.as_ref().filter(|_| owner != asker.uid) {
                    let text = format!("{} of user {owner}'s run", action.name());
                    let who = (self.principal(connection), "others-run");
                    record.watched_of(id, who, text, &id.to_string());
                }
                return Ok(owner);
            }
            Err(refused) => refused,
        };
        let (told, decided) = match refused {
            Unseen::Refused(denied) => (denied.clone(), Some(denied)),
            // Who tries out numbers of runs fills no record.
            Unseen::Unknown(denied) => {
                let first = self
                    .connections
                    .get_mut(&connection)
                    .is_some_and(|outbox| !core::mem::replace(&mut outbox.has_probed, true));
                (no_such_run(id), first.then_some(denied))
            }
        };
        if let (Some(record), Some(decided)) = (&self.record, decided) {
            record.not_permitted(self.principal(connection), &decided, &id.to_string());
        }
        Err(told)
    }

    /// Writes down what somebody does to a run of his own. What he does to another's was written when it was permitted.
    pub(super) fn record_own(
        &self,
        connection: ConnectionId,
        id: ExecId,
        name: &str,
        text: core::fmt::Arguments<'_>,
    ) {
        let (Some(record), Some(run)) = (&self.record, self.runs.get(&id)) else { return };
        let principal = self.principal(connection);
        if principal.uid == run.owner {
            record.did(id, principal, name, text.to_string());
        }
    }

    /// Whether a connection may go on with a run: where there are rules of access, only one that asked for it or follows it, which the
    /// rules have let it do.
    pub(super) fn has_to_do_with(&self, connection: ConnectionId, id: ExecId) -> bool {
        // To its end and after it: what was read is acknowledged then.
        let follows = || self.dispatcher.has_follower(connection, id);
        let asked = || self.runs.get(&id).is_some_and(|run| run.origin == Some(connection));
        !self.is_review(id) && (!self.gate.has_rules() || follows() || asked())
    }

    /// The runs that somebody may see; `None`: there are no rules of access.
    pub(super) fn seen(&mut self, connection: ConnectionId) -> Option<HashSet<ExecId>> {
        if !self.gate.has_rules() {
            return None;
        }
        // Nobody is there: nothing is seen.
        let Ok(asker) = self.asker(connection) else { return Some(HashSet::new()) };
        let uptime = self.uptime();
        // Of his own and of others', each with a bound of its own: nobody's runs hide his from him. The newest are asked about first.
        let mut known: [HashMap<OfRun<'_>, bool>; 2] = Default::default();
        let mut seen = HashSet::new();
        let mut runs: Vec<_> = self.runs.iter().collect();
        runs.sort_unstable_by(|one, other| other.0.cmp(one.0));
        for (id, run) in runs {
            let known = &mut known[usize::from(run.owner == asker.uid)];
            let run = of_run(run);
            let is_seen = match known.get(&run) {
                Some(known) => *known,
                None if known.len() >= MAX_ASKED => false,
                None => {
                    let is_seen = self.gate.sees(&asker, run, uptime);
                    known.insert(run, is_seen);
                    is_seen
                }
            };
            if is_seen {
                seen.insert(*id);
            }
        }
        Some(seen)
    }

    /// Whether somebody may operate the daemon or look into it: rules say it, and where there are none, `otherwise`.
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn operates(
        &mut self,
        connection: ConnectionId,
        action: Action,
        otherwise: impl FnOnce() -> Result<(), Denied>,
    ) -> Result<(), Denied> {
        let judged = if self.gate.has_rules() {
            let (asker, uptime) = (self.asker(connection)?, self.uptime());
            self.gate.operates(&asker, action, uptime)
        } else {
            otherwise()
        };
        if let (Some(record), Err(denied)) = (&self.record, &judged)
            && denied.reason == DenyReason::NotPermitted
        {
            record.not_permitted(self.principal(connection), denied, action.name());
        }
        self.tell_locked(connection);
        judged
    }

    /// How the daemon is, for a client: names of what there is are for who may look into it.
    pub(super) fn status_for(&mut self, connection: ConnectionId) -> StatusReport {
        let mut report = self.status();
        if !self.gate.has_rules() {
            return report;
        }
        let uptime = self.uptime();
        let asker = self.asker(connection).ok();
        if !asker.as_ref().is_some_and(|asker| self.gate.inspects(asker, uptime)) {
            report.policies.clear();
            report.often_wrong.clear();
            report.tools = 0;
            report.breakers_open = 0;
            report.breakers_half_open = 0;
            report.grants = 0;
            report.grant_requests = 0;
            report.reviewing = 0;
            report.approvals_waiting = 0;
            report.locked_out.retain(|locked| asker.as_ref().is_some_and(|asker| asker.uid == locked.uid));
        }
        // His own is among them, however many there are.
        report.locked_out.truncate(MAX_LOCKED_TOLD);
        report
    }

    /// Lets somebody in again.
    pub(super) fn unlock(&mut self, connection: ConnectionId, asking: u32, uid: u32, unit: Option<&str>) {
        let daemons = self.settings.uid;
        let may = self
            .operates(connection, Action::Operate, || may_operate(asking, daemons, "let anybody in again"));
        let answer = match may {
            Ok(()) => {
                let count = self.gate.lift(uid, unit, self.uptime());
                tracing::info!(uid, unit, asking, count, "somebody is let in again");
                if count > 0 {
                    self.watch(connection, "unlocked", "a lock-out was lifted".to_owned(), &who(uid, unit));
                }
                ServerMessage::Unlocked { uid, count: u32::try_from(count).unwrap_or(u32::MAX) }
            }
            Err(denied) => ServerMessage::Denied { request_id: 0, exec_id: None, denied },
        };
        self.answer(connection, &answer);
    }

    /// Says who was locked out by what a connection has just asked, or answered: what is written stands under whom it shuts out.
    pub(super) fn tell_locked(&mut self, connection: ConnectionId) {
        for (uid, unit) in self.gate.newly_locked() {
            tracing::warn!(uid, unit, "somebody was refused too often, and is locked out for a while");
            let text = "refused too often, and locked out for a while".to_owned();
            let about = who(uid, unit.as_deref());
            if let Some(record) = &self.record {
                // His process is known if it's he who has just asked.
                let asking = self.principal(connection);
                let is_he = asking.uid == uid && asking.unit == unit;
                let other = stockade_audit::Principal { uid, unit, ..Default::default() };
                record.watched(if is_he { asking } else { other }, "locked-out", text, &about);
            }
        }
    }

    pub(super) fn watch(&self, connection: ConnectionId, name: &str, text: String, about: &str) {
        if let Some(record) = &self.record {
            record.watched(self.principal(connection), name, text, about);
        }
    }
}

/// Somebody, as the command line names him.
fn who(uid: u32, unit: Option<&str>) -> String {
    unit.map_or_else(|| uid.to_string(), |unit| format!("{uid}+{unit}"))
}

fn of_run(run: &Run) -> OfRun<'_> {
    OfRun { owner: run.owner, policy: &run.policy, tool: run.tool.as_ref().map(|tool| tool.name.as_str()) }
}

pub(super) fn locked_out(locked: Locked) -> LockedOut {
    let Locked { uid, unit, left } = locked;
    // Rounded up: who comes back after that is let in.
    let retry_after_ms = u64::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    LockedOut { uid, unit, retry_after_ms }
}
