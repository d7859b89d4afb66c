//! What is counted for the statistics, and what clients are told of them.

use std::collections::HashMap;

use stockade_gate::StageName;
use stockade_protocol::client::{BreakerState, ExecRequest, ServerMessage};
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::statistics::{StatisticsBy, StatisticsQuestion};
use stockade_stats::{Kind, Question, Report, Stage, UNKNOWN, Who};

use super::state::State;
use crate::dispatcher::ConnectionId;
use crate::runs::Run;
use crate::statistics::report::{question_of, report_of};
use crate::statistics::{self, Asker, stage, who_of};

const ROOT: u32 = 0;
/// When to ask again while too many ask, in milliseconds.
const BUSY_MS: u64 = 500;

/// Of what a request is, before it's taken apart.
#[derive(Debug)]
pub(super) struct Named {
    tool: Option<String>,
    policy: String,
}

impl Named {
    pub(super) fn of(request: &ExecRequest) -> Self {
        let tool = request.tool.as_ref().map(|call| call.name.clone());
        Self { tool, policy: request.policy.clone() }
    }
}

impl State {
    /// Counts that a request was refused. What it names and nobody knows has one row together.
    pub(super) fn count_refused(&mut self, uid: u32, named: &Named, denied: &Denied) {
        let Some(statistics) = &mut self.statistics else { return };
        let called = named.tool.as_deref().map(|name| (name, self.gate.tools().find(name)));
        let tool = called.map(|(name, found)| if found.is_some() { name } else { UNKNOWN });
        let policy = match called {
            Some((_, found)) => found.map(|tool| tool.policy.as_str()),
            None if self.specs.policies().contains(&named.policy) => Some(named.policy.as_str()),
            None => Some(UNKNOWN),
        };
        statistics.denied(Who { tool, policy, uid }, stage(denied));
    }

    /// Counts that a run was refused after the gate had let it pass.
    pub(super) fn count_refused_run(&mut self, run: &Run, by: Stage) {
        if let Some(statistics) = &mut self.statistics {
            statistics.denied(who_of(run), by);
        }
    }

    /// Launchers have told of all their runs.
    pub(crate) fn count_adopted(&mut self) {
        if let Some(statistics) = &mut self.statistics {
            statistics.adopted(self.runs.keys());
        }
    }

    /// Answers a question about statistics, once the thread that has the file has.
    pub(super) fn ask_statistics(
        &mut self,
        connection: ConnectionId,
        uid: u32,
        question: StatisticsQuestion,
    ) {
        let sees_all = self.sees_statistics(connection, uid);
        let (asker, is_operator) = (Asker { connection, uid }, self.runs_daemon(uid));
        let asked = seen_by(uid, sees_all, question).and_then(|question| {
            let (answer, told) = statistics::answer_to();
            let Some(statistics) = &mut self.statistics else { return Err(none()) };
            if statistics.ask(asker, is_operator, question, answer) { Ok(told) } else { Err(busy()) }
        });
        let told = match asked {
            Ok(told) => told,
            Err(denied) => {
                self.answer(connection, &ServerMessage::Denied { request_id: 0, exec_id: None, denied });
                return;
            }
        };
        let daemon = self.daemon.clone();
        tokio::task::spawn_local(async move {
            let told = told.await;
            let Some(daemon) = daemon.upgrade() else { return };
            let mut state = daemon.state.borrow_mut();
            if let Some(statistics) = &mut state.statistics {
                statistics.answered(asker);
            }
            if let Ok(report) = told {
                state.answer_statistics(connection, report);
            }
        });
    }

    /// Whether somebody sees what others have asked for: who may look into the daemon, by the rules of access where there are any;
    /// else root and the user that the daemon runs as.
    fn sees_statistics(&mut self, connection: ConnectionId, uid: u32) -> bool {
        if !self.gate.has_rules() {
            return self.runs_daemon(uid);
        }
        let uptime = self.uptime();
        self.asker(connection).is_ok_and(|asker| self.gate.inspects(&asker, uptime))
    }

    /// Root, and the user that the daemon runs as.
    fn runs_daemon(&self, uid: u32) -> bool {
        [ROOT, self.settings.uid].contains(&uid)
    }

    fn answer_statistics(&mut self, connection: ConnectionId, report: Report) {
        let mut report = report_of(report, statistics::now());
        let uptime = self.uptime();
        let breakers = self.gate.breakers(uptime).into_iter().map(|breaker| (breaker.tool, breaker.state));
        let breakers: HashMap<String, BreakerState> = breakers.collect();
        let runs = u32::try_from(self.dispatcher.counts().running).unwrap_or(u32::MAX);
        for row in &mut report.rows {
            match row.by {
                StatisticsBy::Tool => row.breaker = breakers.get(&row.name).copied(),
                StatisticsBy::Principal => {
                    let uid = row.name.parse().ok();
                    row.limited_ms = uid.and_then(|uid| self.gate.limited(uid, uptime, runs));
                }
                _ => {}
            }
        }
        self.answer(connection, &ServerMessage::Statistics(Box::new(report)));
    }
}

/// Who may see what: some see all, anybody else what he has asked for himself. What a tool or a policy came to is of everybody who
/// used it.
///
/// # Errors
/// He may not, or the question is none.
fn seen_by(uid: u32, sees_all: bool, question: StatisticsQuestion) -> Result<Question, Denied> {
    let question = question_of(question)?;
    if sees_all {
        return Ok(question);
    }
    let Question { kinds, name, since } = question;
    let own = uid.to_string();
    if kinds.iter().any(|kind| *kind != Kind::Principal) || name.is_some_and(|name| name != own) {
        let text = "what others have asked for is for who may `inspect` by the rules of access, or where there are none for root and the user that the daemon runs as";
        return Err(Denied::new(DenyReason::NotPermitted, text)
            .decided_by(StageName::Access.name(), "statistics")
            .remedy("ask for your own with `stockade stats`, or ask an operator"));
    }
    Ok(Question { kinds: vec![Kind::Principal], name: Some(own), since })
}

fn none() -> Denied {
    let denied = Denied::new(DenyReason::Unsupported, "this daemon counts nothing");
    denied.remedy("an operator can set statistics.enabled, and its log says whether that failed")
}

fn busy() -> Denied {
    let text = "too many questions about statistics wait for an answer";
    Denied::new(DenyReason::Busy, text).retry_after(BUSY_MS).remedy("ask again in a moment")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(by: Option<StatisticsBy>, name: Option<&str>) -> StatisticsQuestion {
        StatisticsQuestion { by, name: name.map(str::to_owned), since_s: 5 }
    }

    #[test]
    fn who_operates_sees_all_and_others_their_own_row_only() {
        use StatisticsBy::{Policy, Principal, Tool};
        let all = seen_by(990, true, question(None, None)).unwrap();
        assert_eq!(all, Question { kinds: vec![], name: None, since: 5 });
        let one = seen_by(990, true, question(Some(Tool), Some("a"))).unwrap();
        assert_eq!(one, Question { kinds: vec![Kind::Tool], name: Some("a".into()), since: 5 });
        let own = Question { kinds: vec![Kind::Principal], name: Some("1000".into()), since: 5 };
        for (by, name) in [(None, None), (Some(Principal), None), (Some(Principal), Some("1000"))] {
            assert_eq!(seen_by(1_000, false, question(by, name)).unwrap(), own);
        }
        for (by, name) in [
            (Some(Tool), None),
            (Some(Policy), Some("1000")),
            (Some(Principal), Some("0")),
            (Some(Tool), Some("1000")),
        ] {
            let denied = seen_by(1_000, false, question(by, name)).unwrap_err();
            assert_eq!(denied.reason, DenyReason::NotPermitted);
            assert!(denied.remedy.is_some());
        }
        for (uid, sees_all) in [(0, true), (1_000, false)] {
            assert_eq!(
                seen_by(uid, sees_all, question(None, Some("a"))).unwrap_err().reason,
                DenyReason::BadRequest
            );
        }
    }
}
