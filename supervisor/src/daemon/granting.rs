//! What clients ask of grants: to give, to request, to answer, to take away, to see.

use std::rc::Rc;
use std::time::{Duration, Instant};

use stockade_gate::grants::{
    self as gate, Clocks, Exactly, Grant, GrantId, NoRequest, Pending, Terms, What, Whom,
};
use stockade_gate::validate::Parameters;
use stockade_gate::{Action, Principal};
use stockade_protocol::client::{ClientMessage, ServerMessage};
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::grants::{GrantGiven, GrantList, GrantSummary, GrantTerms, GrantWhat};
use stockade_protocol::{Bytes, ExecId};

use super::giving::{bad, new_id, said, unavailable};
use super::redeeming::name;
use super::requests::{Refused, unexpected};
use super::state::State;
use crate::dispatcher::ConnectionId;
use crate::grants::{Going, Told};
use crate::metrics::GrantEvent;

/// Bytes of a list of grants, below a frame's limit.
const LIST_BYTES: usize = 900 * 1024;
/// What one takes in a list at most, beside its texts.
const SUMMARY_BYTES: usize = 160;

impl State {
    /// What a client asks of grants.
    ///
    /// # Errors
    /// It's something else, which nobody knows.
    pub(super) fn about_grants(
        &mut self,
        connection: ConnectionId,
        message: ClientMessage,
    ) -> Result<(), Refused> {
        match message {
            ClientMessage::GrantAdd { uid, unit, terms } => {
                self.grant_add(connection, Whom { uid, unit }, terms);
            }
            ClientMessage::GrantRequest(terms) => self.grant_request(connection, terms),
            ClientMessage::GrantAnswer { id, yes } => self.grant_answer(connection, &id, yes),
            ClientMessage::GrantRevoke { id } => self.grant_revoke(connection, &id),
            ClientMessage::Grants => self.list_grants(connection),
            _ => return Err(unexpected("a message this version doesn't know")),
        }
        Ok(())
    }

    /// Gives somebody more.
    fn grant_add(&mut self, connection: ConnectionId, to: Whom, terms: GrantTerms) {
        let asked = self.may_grant(connection, Action::Grant).and_then(|asker| {
            let terms = terms_of(terms)?;
            self.is_known(&terms.what)?;
            self.make_grant(connection, &asker, (None, to, terms))
        });
        self.tell_denied(connection, asked);
    }

    /// Whether there can be grants, and somebody may do something about them.
    ///
    /// # Errors
    /// The refusal.
    fn may_grant(&mut self, connection: ConnectionId, action: Action) -> Result<Rc<Principal>, Denied> {
        self.can_grant()?;
        self.operates(connection, action, || Err(no_rules()))?;
        self.asker(connection)
    }

    fn can_grant(&self) -> Result<(), Denied> {
        if !self.gate.has_rules() {
            return Err(no_rules());
        }
        if !self.gate.can_grant() {
            let text = "only the machine's rules hold here, and grants of a user's daemon don't add to those";
            return Err(Denied::new(DenyReason::Unsupported, text)
                .remedy("ask the machine's operator for a rule, or for a grant by the machine's daemon"));
        }
        Ok(())
    }

    /// That there is such a policy or tool: a grant of one that there isn't is a slip of the pen.
    fn is_known(&self, what: &What) -> Result<(), Denied> {
        match what {
            What::Policy(name) => match self.specs.policies().get(name) {
                Ok(_) => Ok(()),
                Err(error) => Err(Denied::new(DenyReason::UnknownPolicy, error.to_string())
                    .remedy("`stockade policy list` has those that there are")),
            },
            What::Tool(name) => match self.gate.tools().get(name) {
                Ok(_) => Ok(()),
                Err(error) => Err(Denied::new(DenyReason::UnknownTool, error.to_string())
                    .remedy("`stockade tool list` has those that there are")),
            },
        }
    }

    /// Asks for a grant, for whoever may answer.
    fn grant_request(&mut self, connection: ConnectionId, terms: GrantTerms) {
        let asked = self.request_grant(connection, terms);
        self.tell_denied(connection, asked);
    }

    fn request_grant(&mut self, connection: ConnectionId, terms: GrantTerms) -> Result<(), Denied> {
        self.can_grant()?;
        let (asker, uptime) = (self.asker(connection)?, self.uptime());
        self.gate.lets_in(&asker, Action::Grant, uptime)?;
        let terms = terms_of(terms)?;
        terms.check().map_err(|error| bad(&error))?;
        let id = new_id();
        let to = Whom { uid: asker.uid, unit: Some(asker.unit.clone().unwrap_or_default()) };
        let now = self.gate.held().now();
        let pending = Pending { id, to, terms, since: now, generation: self.gate.generation() };
        let Some(grants) = &mut self.grants else { return Err(unavailable("there are no grants")) };
        grants.requests.put(pending.clone(), now).map_err(|no| {
            let denied = Denied::new(DenyReason::Busy, no.to_string())
                .remedy("`stockade grant list` has yours: withdraw one with `stockade grant revoke`");
            match no {
                NoRequest::Many => denied,
                NoRequest::Often(room) => denied.retry_after(milliseconds(room)).remedy("ask again then"),
            }
        })?;
        let what = pending.terms.what.to_string();
        tracing::info!(request = name(id), from = %pending.to, what, "a grant is asked for");
        let text = format!("{}, as {}: {}", said(&pending.terms), name(id), pending.terms.why);
        if let Some(record) = &self.record {
            record.asked(self.principal(connection), "grant-requested", text, &pending.to.to_string());
        }
        self.answer(connection, &ServerMessage::Granted(Box::new(requested(&pending))));
        Ok(())
    }

    /// Answers a request.
    fn grant_answer(&mut self, connection: ConnectionId, id: &str, yes: bool) {
        let answered = self.answer_request(connection, id, yes);
        self.tell_denied(connection, answered);
    }

    fn answer_request(&mut self, connection: ConnectionId, id: &str, yes: bool) -> Result<(), Denied> {
        let asker = self.may_grant(connection, Action::Approve)?;
        let now = self.gate.held().now();
        let Some(grants) = &mut self.grants else { return Err(unavailable("there are no grants")) };
        let found = id_of(id).and_then(|id| grants.requests.get(id, now).cloned());
        let pending = found.ok_or_else(|| unknown("request"))?;
        if grants.answering(pending.id).is_some() {
            return Err(Denied::new(DenyReason::BadRequest, "the request is being answered"));
        }
        if pending.to.is_himself(&asker) {
            return Err(self.himself(connection, &pending.to));
        }
        let verdict = if yes { "said yes to" } else { "said no to" };
        let text = format!("{verdict} {}, as {id}", said(&pending.terms));
        if yes {
            self.is_same(&pending)?;
            self.make_grant(connection, &asker, (Some(pending.id), pending.to.clone(), pending.terms))?;
        } else {
            self.grants.iter_mut().for_each(|grants| drop(grants.requests.take(pending.id, now)));
            self.answer(connection, &ServerMessage::GrantGone { id: name(pending.id), runs: 0 });
        }
        tracing::info!(request = id, by = asker.uid, yes, "a request for a grant is answered");
        self.watch(connection, "grant-answered", text, &pending.to.to_string());
        Ok(())
    }

    /// That what a request names is there, and is what it was when it was asked for, as far as anybody knows.
    fn is_same(&mut self, pending: &Pending) -> Result<(), Denied> {
        if pending.generation != self.gate.generation() {
            let now = self.gate.held().now();
            self.grants.iter_mut().for_each(|grants| drop(grants.requests.take(pending.id, now)));
            let text =
                "the daemon has read its files again since the grant was asked for, and the request is over";
            return Err(Denied::new(DenyReason::BadRequest, text)
                .remedy("have it asked for again, or give it: `stockade grant add`"));
        }
        self.is_known(&pending.terms.what)
    }

    /// Takes a grant away, or withdraws a request.
    fn grant_revoke(&mut self, connection: ConnectionId, id: &str) {
        let revoked = self.revoke_grant(connection, id);
        self.tell_denied(connection, revoked);
    }

    fn revoke_grant(&mut self, connection: ConnectionId, id: &str) -> Result<(), Denied> {
        self.can_grant()?;
        let (asker, uptime) = (self.asker(connection)?, self.uptime());
        self.gate.lets_in(&asker, Action::List, uptime)?;
        let now = self.gate.held().now();
        let wanted = id_of(id);
        let requests = self.grants.as_mut().map(|grants| &mut grants.requests);
        if let (Some(wanted), Some(requests)) = (wanted, requests)
            && requests.get(wanted, now).is_some_and(|pending| pending.to.uid == asker.uid)
        {
            self.withdraw_request(connection, wanted);
            return Ok(());
        }
        let is_own = |wanted| self.gate.held().get(wanted).is_some_and(|grant| grant.to.is(&asker));
        if !wanted.is_some_and(is_own) {
            // Who may not is told the same whether there is such a one or not.
            self.operates(connection, Action::Grant, || Err(no_rules()))?;
        }
        if let Some(wanted) = wanted
            && self.grants.as_ref().is_some_and(|grants| grants.answering(wanted).is_some())
        {
            self.withdraw_request(connection, wanted);
            return Ok(());
        }
        let wanted = wanted.filter(|wanted| self.gate.held().get(*wanted).is_some());
        let id = wanted.ok_or_else(|| unknown("grant"))?;
        let Some(grants) = &mut self.grants else { return Err(unavailable("there are no grants")) };
        grants.is_usable().map_err(|why| unavailable(&why))?;
        let Some(grant) = self.gate.held().revoke(id) else { return Err(unknown("grant")) };
        let writes = self.grant_writes();
        let ended = self.end_with_grants();
        let runs = ended.iter().filter(|(_, of)| *of == id).count().try_into().unwrap_or(u32::MAX);
        tracing::info!(grant = name(id), by = asker.uid, runs, "a grant is revoked");
        self.figures.gated.granted(GrantEvent::Revoked);
        let text = format!("{}, as {}", grant.what, name(id));
        self.watch(connection, "grant-revoked", text, &grant.to.to_string());
        if let Some(grants) = &mut self.grants {
            grants.going.insert(id, Going { connection, named: id, runs, since: Instant::now() });
            grants.tell(writes, move |result| Told::Gone(id, result));
        }
        Ok(())
    }

    /// A grant is gone from the disk, or why it isn't.
    pub(crate) fn grant_gone(&mut self, id: GrantId, result: Result<(), String>) {
        let Some(Going { connection, named, runs, .. }) =
            self.grants.as_mut().and_then(|grants| grants.going.remove(&id))
        else {
            return;
        };
        let answer = match result {
            Ok(()) => ServerMessage::GrantGone { id: name(named), runs },
            Err(why) => {
                tracing::error!(why, grant = name(id), "a grant that was revoked is on disk still");
                let text =
                    "the grant holds no more, but it's on disk still: after a restart it would hold again";
                let denied = Denied::new(DenyReason::Unavailable, text)
                    .remedy("the daemon goes on trying; its log has the reason (a full disk?)");
                refused(denied)
            }
        };
        self.answer(connection, &answer);
    }

    /// The grants and requests that somebody may see.
    fn list_grants(&mut self, connection: ConnectionId) {
        let Ok(asker) = self.asker(connection) else { return };
        let uptime = self.uptime();
        let sees_all = [Action::Grant, Action::Approve, Action::Inspect]
            .into_iter()
            .any(|action| self.gate.has_rules() && self.gate.may(&asker, action, uptime));
        let is_seen = |to: &Whom| sees_all || to.uid == asker.uid;
        let held = self.gate.held();
        let now = held.now();
        let grants = held.all().filter(|grant| is_seen(&grant.to)).map(|grant| summary(grant, now));
        let requests = self.grants.iter().flat_map(|grants| grants.requests.all(now));
        let requests = requests.filter(|pending| is_seen(&pending.to)).map(requested);
        let mut list = GrantList { grants: Vec::new(), requests: Vec::new(), left_out: 0 };
        let mut bytes = 0;
        // What waits for an answer first: there is less of it, and somebody waits.
        for (one, is_request) in requests.map(|one| (one, true)).chain(grants.map(|one| (one, false))) {
            bytes += size(&one);
            if bytes > LIST_BYTES {
                list.left_out += 1;
            } else if is_request {
                list.requests.push(one);
            } else {
                list.grants.push(one);
            }
        }
        drop(held);
        self.answer(connection, &ServerMessage::Grants(Box::new(list)));
    }

    /// How many grants hold, and how many requests wait.
    pub(crate) fn grant_counts(&self) -> (usize, usize) {
        let held = self.gate.held();
        let requests = self.grants.as_ref().map_or(0, |grants| grants.requests.all(held.now()).count());
        (held.all().count(), requests)
    }

    fn tell_denied(&mut self, connection: ConnectionId, asked: Result<(), Denied>) {
        self.write_grants();
        if let Err(denied) = asked {
            self.answer(connection, &refused(denied));
        }
    }

    /// Something for whoever watches over the machine, which nobody has done.
    pub(crate) fn note_security(&self, event: &str, text: String) {
        if let Some(record) = &self.record {
            record.owe(stockade_audit::Event::security(event, text));
        }
    }
}

pub(super) fn refused(denied: Denied) -> ServerMessage {
    ServerMessage::Denied { request_id: 0, exec_id: None, denied }
}

fn id_of(text: &str) -> Option<GrantId> {
    text.parse::<ExecId>().ok().map(|id| GrantId(*id.as_bytes()))
}

fn no_rules() -> Denied {
    let text = "there are no files of access: nothing is refused that could be granted";
    Denied::new(DenyReason::Unsupported, text)
        .remedy("write roles.toml or access.cedar in the directory of configuration: docs/access.md")
}

fn unknown(what: &str) -> Denied {
    Denied::new(DenyReason::BadRequest, format!("there is no such {what}, or not any more"))
        .remedy("`stockade grant list` has those that there are")
}

/// What a client would have.
fn terms_of(terms: GrantTerms) -> Result<Terms, Denied> {
    let GrantTerms { what, given, length_ms, uses, ends_runs, why } = terms;
    let wrong = |text: &str| Denied::new(DenyReason::BadRequest, text);
    let what = match what {
        GrantWhat::Policy(name) => What::Policy(name),
        GrantWhat::Tool(name) => What::Tool(name),
        _ => return Err(wrong("nothing of that kind can be granted")),
    };
    let given = match (&what, given) {
        (_, None) => None,
        (What::Policy(_), Some(GrantGiven::Command(words))) => Some(of_command(&words)),
        (What::Tool(_), Some(GrantGiven::Parameters(text))) => Some(of_parameters(text)),
        _ => return Err(wrong("a command goes with a policy, and parameters with a tool")),
    };
    let too_large = || {
        let text = format!(
            "these arguments can't be granted exactly: they are {} bytes of a command, or of a JSON object, at the most",
            gate::MAX_BYTES
        );
        Denied::new(DenyReason::BadRequest, text).remedy("grant it for any arguments, or give less")
    };
    let given = given.map(|given| given.ok_or_else(too_large)).transpose()?;
    Ok(Terms { what, given, length: Duration::from_millis(length_ms), uses, ends_runs, why })
}

fn of_command(words: &[Bytes]) -> Option<Exactly> {
    let words = || words.iter().map(|word| &**word);
    let digest = gate::of_command(words())?;
    Some(Exactly { digest, shown: gate::shown_command(words()) })
}

fn of_parameters(text: Bytes) -> Option<Exactly> {
    let parameters = Parameters::new(text.0);
    let digest = gate::of_parameters(&parameters)?;
    Some(Exactly { digest, shown: gate::shown_parameters(&parameters) })
}

fn what_of(what: &What) -> GrantWhat {
    match what {
        What::Policy(name) => GrantWhat::Policy(name.clone()),
        What::Tool(name) => GrantWhat::Tool(name.clone()),
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn summary(grant: &Grant, now: Clocks) -> GrantSummary {
    let given = grant.given.as_ref();
    GrantSummary {
        id: name(grant.id),
        uid: grant.to.uid,
        unit: grant.to.unit.clone(),
        what: what_of(&grant.what),
        digest: given.map(|given| given.digest),
        shown: given.map(|given| given.shown.clone()),
        left_ms: milliseconds(grant.left(now)),
        uses: grant.uses.map(|uses| uses.of),
        uses_left: grant.uses.map(|uses| uses.left),
        ends_runs: grant.ends_runs,
        by: Some(grant.by),
        why: grant.why.clone(),
    }
}

fn requested(pending: &Pending) -> GrantSummary {
    let terms = &pending.terms;
    let given = terms.given.as_ref();
    GrantSummary {
        id: name(pending.id),
        uid: pending.to.uid,
        unit: pending.to.unit.clone(),
        what: what_of(&terms.what),
        digest: given.map(|given| given.digest),
        shown: given.map(|given| given.shown.clone()),
        left_ms: milliseconds(terms.length),
        uses: terms.uses,
        uses_left: terms.uses,
        ends_runs: terms.ends_runs,
        by: None,
        why: terms.why.clone(),
    }
}

/// Bytes that one takes in a list.
fn size(one: &GrantSummary) -> usize {
    let name = match &one.what {
        GrantWhat::Policy(name) | GrantWhat::Tool(name) => name.len(),
        _ => 0,
    };
    let texts = [&one.unit, &one.shown].into_iter().flatten().map(String::len).sum::<usize>();
    SUMMARY_BYTES + one.id.len() + name + texts + one.why.len()
}
