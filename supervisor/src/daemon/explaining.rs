//! What a policy allows somebody, as `stockade policy explain` would say it of the daemon's policies. Nothing is run for it.

use std::path::{Path, PathBuf};

use stockade_jsonrpc::Explained;
use stockade_jsonrpc::asked::{ExplainParams, What};
use stockade_policies::{Answer, Question, ResolveRequest, Subject, resolve};
use stockade_protocol::ExecId;
use stockade_protocol::client::Overrides;
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::launch::Owner;

use super::requests::Refused;
use super::state::State;
use crate::admission;
use crate::dispatcher::ConnectionId;

/// The most characters that an error repeats of what was asked about.
const SHOWN_THING: usize = 64;

impl State {
    /// The answer to whoever asks for himself. Where there are rules of access it's for who could run something by the policy: what
    /// somebody may not use he isn't told of.
    ///
    /// # Errors
    /// He may ask about approvals only.
    pub(crate) fn explain(
        &mut self,
        connection: ConnectionId,
        asked: &ExplainParams,
        home: &Path,
    ) -> Result<Result<Explained, Denied>, Refused> {
        self.not_for_visitors(connection)?;
        Ok(self.explain_or_deny(connection, asked, home))
    }

    /// # Errors
    /// He may not, there is no such policy, no such question, or the policy can't be resolved for it.
    fn explain_or_deny(
        &mut self,
        connection: ConnectionId,
        asked: &ExplainParams,
        home: &Path,
    ) -> Result<Explained, Denied> {
        let sees_places = self.may_have_explained(connection, &asked.policy)?;
        let owner = self.connections.get(&connection).map(|outbox| outbox.owner.clone());
        let owner = owner.ok_or_else(|| Denied::new(DenyReason::NotPermitted, "nobody is there who asks"))?;
        let mut answer = self.explain_to(&owner, asked, home).map_err(|denied| self.gate.discreet(denied))?;
        if !sees_places {
            let name = Path::new(&answer.file).file_name();
            answer.file = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        }
        Ok(answer)
    }

    /// Whether he is told where the policy's file is.
    fn may_have_explained(&mut self, connection: ConnectionId, named: &str) -> Result<bool, Denied> {
        if !self.gate.has_rules() {
            return Ok(true);
        }
        let (asker, uptime) = (self.asker(connection)?, self.uptime());
        let policy = self.specs.policies().get(named).ok();
        let policy = policy.map(|policy| (policy.is_shipped(), policy.network().mode));
        let judged = self.gate.explains(&asker, (named, policy), uptime);
        if let (Some(record), Err(denied)) = (&self.record, &judged)
            && denied.reason == DenyReason::NotPermitted
        {
            record.not_permitted(self.principal(connection), denied, "policy/explain");
        }
        self.tell_locked(connection);
        judged.map(|()| self.gate.inspects(&asker, uptime))
    }

    fn explain_to(&self, owner: &Owner, asked: &ExplainParams, home: &Path) -> Result<Explained, Denied> {
        let policy = admission::policy_named(self.specs.policies(), &asked.policy)?;
        let workspace = admission::check_path(&asked.workspace.0, "workspace")?;
        let path = || match asked.thing.strip_prefix("~/") {
            Some(rest) => home.join(rest),
            None => workspace.join(&asked.thing),
        };
        let question = question_of(asked.what, &asked.thing, path)?;
        let subject = Subject {
            owner_uid: owner.uid,
            owner_gid: owner.gid,
            home: home.to_owned(),
            workspace: workspace.clone(),
            overrides: Overrides::default(),
            user_mode: self.settings.is_user_mode(),
        };
        let request = ResolveRequest { subject, cwd: None, environment: asked.environment().to_vec() };
        let resolved = resolve(policy, &request).map_err(|error| error.denied())?;
        // Not what a variable is set to: that is for who may read the file.
        let Answer { allowed, rule, file, line, note, value: _ } = resolved.explain(&question);
        let (policy, thing) = (asked.policy.clone(), asked.thing.clone());
        Ok(Explained { policy, question: asked.what, thing, allowed, rule, file, line, note })
    }

    /// The run that a connection has asked for with a number of its own.
    pub(crate) fn asked_for(&self, connection: ConnectionId, number: u64) -> Option<ExecId> {
        let is_it = |run: &&crate::runs::Run| run.origin == Some(connection) && run.request_id == number;
        self.runs.values().find(is_it).map(|run| run.exec_id)
    }
}

fn question_of(what: What, thing: &str, path: impl Fn() -> PathBuf) -> Result<Question, Denied> {
    let port = || {
        thing.parse().map_err(|_not_a_number| {
            let shown: String = thing.chars().take(SHOWN_THING).collect();
            Denied::new(DenyReason::BadRequest, format!("{shown:?} is no port: expected 0 to 65535"))
        })
    };
    Ok(match what {
        What::Read => Question::Read(path()),
        What::Write => Question::Write(path()),
        What::Execute => Question::Execute(path()),
        What::Connect => Question::Connect(port()?),
        What::Bind => Question::Bind(port()?),
        What::Env => Question::Env(thing.to_owned()),
        What::Syscall => Question::Syscall(thing.to_owned()),
    })
}
