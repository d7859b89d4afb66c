//! What waits for an approval, told: to who asks for it, and to who follows.
//!
//! A list fits a frame whatever waits: where it wouldn't, each is shown shorter, so that nobody's long request hides another's short
//! one, and who wants to see one whole asks for that one.

use stockade_protocol::ExecId;
use stockade_protocol::approval::{ApprovalSummary, RiskFactor};
use stockade_protocol::bounds::MAX_APPROVAL_SHOWN;
use stockade_protocol::client::ServerMessage;
use stockade_protocol::denied::{Denied, DenyReason};

use super::approving::{Waits, milliseconds};
use super::breakers::may_operate;
use super::shown::Shown;
use super::state::State;
use crate::dispatcher::ConnectionId;
use crate::outbox::HIGH;

/// Connections that may be told of what waits, together and of one user.
const FOLLOWERS: usize = 64;
const FOLLOWERS_OF_ONE: usize = 8;
/// Bytes of a list, below a frame's limit.
const LIST_BYTES: usize = 900 * 1024;
/// What one of it takes beside what is shown and the factors: numbers, names of a unit, a policy and a tool.
const SUMMARY_BYTES: usize = 1_024;
/// Of each part so many bytes are shown, the first of these with which all fit. With the last, as many fit as may wait.
pub(super) const LENGTHS: [usize; 4] = [MAX_APPROVAL_SHOWN, 4_096, 1_024, SHORTEST];
const SHORTEST: usize = 192;
/// Factors that are told where not all is shown whole, and bytes of each of their texts.
const FACTORS: usize = 2;
const FACTOR_BYTES: usize = 96;

impl Waits {
    pub(super) fn summary(&self, may_answer: bool, most: usize) -> ApprovalSummary {
        let shown = self.shown.shorter(most);
        let Shown { digest, argv, parameters, environment, values, input, workspace, cwd, output, .. } =
            shown;
        let (factors, factors_cut) = factors(&self.ask, most);
        let asker = self.question.asker();
        ApprovalSummary {
            exec_id: self.run.exec_id,
            digest,
            owner_uid: asker.uid,
            unit: asker.unit.clone(),
            policy: self.run.policy.clone(),
            tool: self.run.tool.as_ref().map(|tool| tool.name.clone()),
            argv,
            parameters,
            workspace,
            cwd,
            environment,
            input,
            is_cut: shown.is_cut || factors_cut || (!self.panels.is_empty() && !is_whole(most)),
            score: self.ask.score,
            factors,
            needed: if self.needs_people { self.question.needed() } else { 0 },
            approved: self.question.yes(),
            left_ms: milliseconds(self.until.saturating_duration_since(std::time::Instant::now())),
            may_answer: may_answer && self.is_with_people,
            values,
            overrides: shown.overrides,
            output,
            whole: shown.whole,
            panels: self.panels.iter().map(|panel| panel.report(most)).collect(),
        }
    }

    /// Bytes of its summary, roughly.
    fn size(&self, most: usize) -> usize {
        let texts = self.ask.because.iter().map(|factor| factor.name.len() + factor.reason.len() + 24);
        let factors: usize = if is_whole(most) {
            texts.sum()
        } else {
            texts.take(FACTORS).sum::<usize>().min(FACTORS * 2 * 128)
        };
        let panels = self.panels.iter().map(|panel| panel.size(most)).sum::<usize>();
        SUMMARY_BYTES + self.shown.size(most) + factors + panels
    }
}

pub(super) fn is_whole(most: usize) -> bool {
    most >= MAX_APPROVAL_SHOWN
}

/// Why somebody is asked, and whether anything of it is left out.
pub(super) fn factors(ask: &stockade_gate::Ask, most: usize) -> (Vec<RiskFactor>, bool) {
    let (count, bytes) = if is_whole(most) { (usize::MAX, usize::MAX) } else { (FACTORS, FACTOR_BYTES) };
    let mut is_cut = ask.because.len() > count;
    let mut short = |text: &str| {
        is_cut |= text.len() > bytes;
        text[..text.floor_char_boundary(bytes)].to_owned()
    };
    let factors = ask.because.iter().take(count).map(|factor| RiskFactor {
        name: short(&factor.name),
        score: factor.score,
        reason: short(&factor.reason),
    });
    (factors.collect(), is_cut)
}

impl State {
    /// Tells a client what waits, and from now on what comes to wait, if he likes. `only`: that one, and nothing of others.
    pub(super) fn list_approvals(
        &mut self,
        connection: ConnectionId,
        uid: u32,
        follow: bool,
        only: Option<ExecId>,
    ) {
        let refused = self
            .may_approve(connection, uid)
            .and_then(|()| if follow { self.begin_following(connection, uid) } else { Ok(()) });
        if let Err(denied) = refused {
            self.answer(connection, &ServerMessage::Denied { request_id: 0, exec_id: None, denied });
            return;
        }
        let person = self.person(connection);
        let is_meant = |waits: &&Waits| only.is_none_or(|only| waits.run.exec_id == only);
        let meant: Vec<&Waits> = self.approvals.waiting.values().filter(is_meant).collect();
        let fits = |most: &usize| meant.iter().map(|waits| waits.size(*most)).sum::<usize>() <= LIST_BYTES;
        let most = LENGTHS.into_iter().find(fits).unwrap_or(SHORTEST);
        let (mut bytes, mut waiting, mut more) = (0, Vec::new(), 0);
        for waits in meant {
            let size = waits.size(most);
            if bytes + size > LIST_BYTES {
                more += 1;
                continue;
            }
            bytes += size;
            waiting.push(waits.summary(waits.question.may_answer(&person).is_ok(), most));
        }
        self.answer(connection, &ServerMessage::Approvals { waiting, more });
    }

    fn begin_following(&mut self, connection: ConnectionId, uid: u32) -> Result<(), Denied> {
        let generation = self.gate.generation();
        if !self.approvals.followers.contains_key(&connection) {
            let of = |id: &ConnectionId| self.connections.get(id).map(|outbox| outbox.owner.uid);
            let own = self.approvals.followers.keys().filter(|id| of(id) == Some(uid)).count();
            if self.approvals.followers.len() >= FOLLOWERS || own >= FOLLOWERS_OF_ONE {
                let text = "too many are told already of what waits for an approval";
                return Err(Denied::new(DenyReason::Busy, text).remedy("list it: `stockade approve`"));
            }
        }
        self.approvals.followers.insert(connection, generation);
        Ok(())
    }

    pub(super) fn tell_asked(&mut self, id: ExecId) {
        for connection in self.followers() {
            let person = self.person(connection);
            let Some(waits) = self.approvals.waiting.get(&id) else { return };
            let summary = waits.summary(waits.question.may_answer(&person).is_ok(), MAX_APPROVAL_SHOWN);
            self.tell_or_miss(connection, &ServerMessage::ApprovalAsked(Box::new(summary)));
        }
    }

    pub(super) fn tell_followers(&mut self, message: &ServerMessage) {
        for connection in self.followers() {
            self.tell_or_miss(connection, message);
        }
    }

    /// Tells a follower; for whom there is no memory he is one no more, and is told so: he can ask again.
    fn tell_or_miss(&mut self, connection: ConnectionId, message: &ServerMessage) {
        if !self.connections.get_mut(&connection).is_some_and(|outbox| outbox.offer(message)) {
            self.misses(connection);
        }
    }

    fn misses(&mut self, connection: ConnectionId) {
        self.approvals.followers.remove(&connection);
        self.answer(connection, &ServerMessage::ApprovalsMissed);
    }

    /// Those who read what they are told, and may still be told it. The others are told that they miss something, once.
    fn followers(&mut self) -> Vec<ConnectionId> {
        let generation = self.gate.generation();
        let mut told = Vec::new();
        for (connection, of) in self.approvals.followers.clone() {
            let reads = self.connections.get(&connection).is_some_and(|outbox| outbox.waiting() < HIGH);
            if reads && (of == generation || self.may_still(connection)) {
                self.approvals.followers.insert(connection, generation);
                told.push(connection);
            } else {
                self.misses(connection);
            }
        }
        told
    }

    fn may_still(&mut self, connection: ConnectionId) -> bool {
        let uptime = self.uptime();
        let Ok(asker) = self.asker(connection) else { return false };
        if self.gate.has_rules() {
            self.gate.may_approve(&asker, uptime)
        } else {
            may_operate(asker.uid, self.settings.uid, "").is_ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::approving::WAITING;

    #[test]
    fn as_many_as_may_wait_fit_a_list_however_long_each_is() {
        let parts = 7 * (SHORTEST + 8) + FACTORS * 2 * 128;
        assert!(WAITING * (SUMMARY_BYTES + parts) <= LIST_BYTES);
        assert!(MAX_APPROVAL_SHOWN == LENGTHS[0] && LENGTHS.is_sorted_by(|one, other| one > other));
    }
}
