//! What a caller asks of the supervisor, and how it waits for the answers.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use stockade_protocol::approval::{ApprovalEnd, ApprovalSummary};
use stockade_protocol::audit::{AuditPage, AuditQuestion};
use stockade_protocol::bounds::MAX_STDIN_CHUNK;
use stockade_protocol::client::{
    BreakerSummary, ClientMessage, ExecEvent, ReloadReport, RunSummary, ServerMessage, StatusReport, Welcome,
};
use stockade_protocol::grants::{GrantList, GrantSummary, GrantTerms};
use stockade_protocol::statistics::{StatisticsQuestion, StatisticsReport};
use stockade_protocol::{Bytes, ExecId};

use crate::connection::{ANSWER_WITHIN, Connection, MAX_WAITING};
use crate::error::{About, ClientError, ConnectError};
use crate::events::Events;
use crate::outage::Pause;
use crate::request::Request;

/// One connection to the supervisor.
#[derive(Debug)]
pub struct Client {
    /// Boxed, so that a client stays small wherever it's held.
    connection: Box<Connection>,
    last_request: u64,
}

/// How long a page of the record may take: others may read before us, and a slow disk is told of by the daemon.
const PAGE_WITHIN: Duration = Duration::from_secs(60);

impl Client {
    /// How long the handshake, and an answer to `List`, `Status`, or about breakers or statistics, may take.
    pub const ANSWER_WITHIN: Duration = ANSWER_WITHIN;

    /// Connects to the supervisor's socket and greets it.
    ///
    /// # Errors
    /// [`ConnectError::Socket`] when nobody can be reached, [`ConnectError::Handshake`] when somebody is there but
    /// doesn't want this client, or doesn't speak its version.
    pub fn connect(path: &Path) -> Result<Self, ConnectError> {
        let mut client = Self::open(path)?;
        let greeted = client.wait_for_welcome();
        greeted.map(|()| client).map_err(|source| ConnectError::Handshake { path: path.into(), source })
    }

    /// As [`Client::connect`], but doesn't wait for the answer: what is asked meanwhile is on its way already. That the
    /// supervisor doesn't want this client is the error of the first thing that is received.
    ///
    /// # Errors
    /// [`ConnectError::Socket`]; [`ConnectError::Handshake`] when it closes at once.
    pub fn open(path: &Path) -> Result<Self, ConnectError> {
        let connected = Connection::connect(path);
        let (socket, address) =
            connected.map_err(|errno| ConnectError::Socket { path: path.into(), source: errno.into() })?;
        Connection::over(socket, Some(address))
            .map(Self::on)
            .map_err(|source| ConnectError::Handshake { path: path.into(), source })
    }

    fn on(connection: Connection) -> Self {
        Self { connection: Box::new(connection), last_request: 0 }
    }

    /// Greets the supervisor over a socket that is connected already. Such a client has no path, and so doesn't connect
    /// again when the connection breaks.
    ///
    /// # Errors
    /// [`ClientError`]; nothing but a `Welcome` of this version counts as an answer.
    pub fn over(socket: OwnedFd) -> Result<Self, ClientError> {
        let mut client = Self::on(Connection::over(socket, None)?);
        client.wait_for_welcome()?;
        Ok(client)
    }

    /// How long to wait for a supervisor that has gone while runs were followed: [`RETURN_WITHIN`](crate::RETURN_WITHIN)
    /// unless said otherwise, a day at most. Zero: not at all.
    pub fn return_within(&mut self, within: Duration) {
        self.connection.return_within(within);
    }

    /// Has this called when a pause lasts for so long, once a pause: from within whatever call waits or pumps then.
    pub fn on_pause(&mut self, after: Duration, tell: impl FnMut(Pause) + Send + 'static) {
        self.connection.on_pause(after, Box::new(tell));
    }

    /// Waits for the answer to our greeting, if it isn't there yet.
    ///
    /// # Errors
    /// [`ClientError`]; nothing but a `Welcome` of this version counts as an answer.
    pub fn wait_for_welcome(&mut self) -> Result<(), ClientError> {
        let deadline = Some((Instant::now() + Self::ANSWER_WITHIN, Self::ANSWER_WITHIN));
        while !self.is_greeted() {
            if let Some(message) = self.next_waiting() {
                message?;
            }
            self.connection.wait_readable(deadline)?;
            self.pump()?;
        }
        Ok(())
    }

    /// Whether the supervisor has answered our greeting: until then an error is one of the greeting.
    #[must_use]
    pub fn is_greeted(&self) -> bool {
        self.connection.is_greeted()
    }

    /// What the supervisor said when greeted: its release, version and limits. Before that, what this client can take.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        self.connection.welcome()
    }

    /// Asks for a run and waits until it's admitted.
    ///
    /// # Errors
    /// [`ClientError::Denied`] when it isn't: nothing ran. [`ClientError::Unanswered`]: it may have been.
    pub fn exec(&mut self, request: &Request) -> Result<ExecId, ClientError> {
        let ours = self.begin(request)?;
        self.wait_for(None, Some(About::Request(ours)), |message| match message {
            ServerMessage::Event { exec_id, event: ExecEvent::Accepted { request_id }, .. }
                if *request_id == ours =>
            {
                Some(Ok(*exec_id))
            }
            ServerMessage::Denied { request_id, denied, .. } if *request_id == ours => {
                Some(Err(ClientError::Denied(denied.clone())))
            }
            _ => None,
        })?
    }

    /// Asks for a run and doesn't wait, unless it's for a pause to be over. Its `Accepted` or its denial comes with the id
    /// that this returns.
    ///
    /// # Errors
    /// [`ClientError::Codec`] when the request is too large to be sent at all.
    pub fn begin(&mut self, request: &Request) -> Result<u64, ClientError> {
        self.last_request += 1;
        let mut exec = request.exec().clone();
        exec.request_id = self.last_request;
        self.connection.send(&ClientMessage::Exec(Box::new(exec)), &request.descriptors())?;
        Ok(self.last_request)
    }

    /// Sends standard input to a run whose request said [`Request::stdin_stream`]. In a pause it waits.
    ///
    /// # Errors
    /// [`ClientError::InputInDoubt`] once after a break: what was sent before may not have arrived, and of these bytes not
    /// all were sent.
    pub fn stdin(&mut self, exec_id: ExecId, bytes: &[u8]) -> Result<(), ClientError> {
        for chunk in bytes.chunks(MAX_STDIN_CHUNK) {
            self.connection.send(&ClientMessage::StdinData { exec_id, bytes: Bytes::from(chunk) }, &[])?;
        }
        Ok(())
    }

    /// Ends a run's standard input. In a pause it waits.
    ///
    /// # Errors
    /// As [`Client::stdin`]: then it isn't ended yet.
    pub fn stdin_eof(&mut self, exec_id: ExecId) -> Result<(), ClientError> {
        self.connection.send(&ClientMessage::StdinEof { exec_id }, &[])
    }

    /// Sends a signal to a run's process group.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn signal(&mut self, exec_id: ExecId, signal: u8) -> Result<(), ClientError> {
        self.connection.send(&ClientMessage::Signal { exec_id, signal }, &[])
    }

    /// Ends a run: the whole tree, at once. Its `Exited` follows.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn cancel(&mut self, exec_id: ExecId) -> Result<(), ClientError> {
        self.connection.send(&ClientMessage::Cancel { exec_id }, &[])
    }

    /// Follows a run's events from after a sequence number; 0: from the first that is kept.
    ///
    /// # Errors
    /// [`ClientError`]; that there's no such run comes later, as a denial.
    pub fn attach(&mut self, exec_id: ExecId, after_seq: u64) -> Result<(), ClientError> {
        self.connection.send(&ClientMessage::Attach { exec_id, after_seq }, &[])
    }

    /// Tells the supervisor that a run's events up to this one needn't be kept. In a pause it isn't told.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn acknowledge(&mut self, exec_id: ExecId, seq: u64) -> Result<(), ClientError> {
        self.connection.send(&ClientMessage::Acknowledge { exec_id, seq }, &[])
    }

    /// Sends any message and doesn't wait.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn ask(&mut self, message: &ClientMessage) -> Result<(), ClientError> {
        self.connection.send(message, &[])
    }

    /// The caller's runs.
    ///
    /// # Errors
    /// [`ClientError::Silent`] when no answer comes in time.
    pub fn list(&mut self) -> Result<Vec<RunSummary>, ClientError> {
        self.connection.send(&ClientMessage::List, &[])?;
        self.wait_for(Some(Self::ANSWER_WITHIN), None, |message| match message {
            ServerMessage::Runs(runs) => Some(core::mem::take(runs)),
            _ => None,
        })
    }

    /// How the supervisor is.
    ///
    /// # Errors
    /// [`ClientError::Silent`] when no answer comes in time.
    pub fn status(&mut self) -> Result<StatusReport, ClientError> {
        self.connection.send(&ClientMessage::Status, &[])?;
        self.wait_for(Some(Self::ANSWER_WITHIN), None, |message| match message {
            ServerMessage::Status(report) => Some(report.as_ref().clone()),
            _ => None,
        })
    }

    /// The circuit breakers of which there is something to say, by their tools' names. All others are closed.
    ///
    /// # Errors
    /// [`ClientError::Silent`] when no answer comes in time.
    pub fn breakers(&mut self) -> Result<Vec<BreakerSummary>, ClientError> {
        self.connection.send(&ClientMessage::Breakers, &[])?;
        self.wait_for(Some(Self::ANSWER_WITHIN), None, |message| match message {
            ServerMessage::Breakers(breakers) => Some(Ok(core::mem::take(breakers))),
            ServerMessage::Denied { request_id: 0, exec_id: None, denied } => {
                Some(Err(ClientError::Denied(denied.clone())))
            }
            _ => None,
        })?
    }

    /// Lets in again whom repeated refusals have locked out; how many there were. `unit`: an empty name for who is of none; none for
    /// whatever the user's unit is. For who operates the daemon.
    ///
    /// # Errors
    /// [`ClientError::Denied`]: the caller may not; [`ClientError::Silent`] when no answer comes in time.
    pub fn unlock(&mut self, uid: u32, unit: Option<&str>) -> Result<u32, ClientError> {
        let unit = unit.map(ToOwned::to_owned);
        self.connection.send(&ClientMessage::Unlock { uid, unit }, &[])?;
        self.wait_for(Some(Self::ANSWER_WITHIN), None, |message| match message {
            ServerMessage::Unlocked { uid: of, count } if *of == uid => Some(Ok(*count)),
            ServerMessage::Denied { request_id: 0, exec_id: None, denied } => {
                Some(Err(ClientError::Denied(denied.clone())))
            }
            _ => None,
        })?
    }

    /// Has the daemon read its files again, and waits until it has. Where anything is wrong, nothing is taken up.
    ///
    /// # Errors
    /// [`ClientError::Denied`]: the caller may not; [`ClientError::Silent`] when no answer comes in time.
    pub fn reload(&mut self) -> Result<ReloadReport, ClientError> {
        self.connection.send(&ClientMessage::Reload, &[])?;
        self.wait_for(Some(Self::ANSWER_WITHIN), None, |message| match message {
            ServerMessage::Reloaded(report) => Some(Ok(report.as_ref().clone())),
            ServerMessage::Denied { request_id: 0, exec_id: None, denied } => {
                Some(Err(ClientError::Denied(denied.clone())))
            }
            _ => None,
        })?
    }

    /// Asks for records, and waits for the first page of them; where they are followed, for as long as it takes. Another question ends
    /// the reading before.
    ///
    /// # Errors
    /// [`ClientError::Denied`]: the caller may not, too many read, or there is no record; [`ClientError::Silent`] when no answer comes in
    /// time.
    pub fn audit(&mut self, question: &AuditQuestion) -> Result<AuditPage, ClientError> {
        self.connection.send(&ClientMessage::Audit(Box::new(question.clone())), &[])?;
        self.audit_page(question.follow)
    }

    /// Asks for the next page, where the last one says that there is more. `follow`: whether those to come are waited for.
    ///
    /// # Errors
    /// As [`Client::audit`].
    pub fn audit_more(&mut self, follow: bool) -> Result<AuditPage, ClientError> {
        self.connection.send(&ClientMessage::AuditMore, &[])?;
        self.audit_page(follow)
    }

    fn audit_page(&mut self, follow: bool) -> Result<AuditPage, ClientError> {
        let within = Some(PAGE_WITHIN).filter(|_| !follow);
        self.wait_for(within, None, |message| match message {
            ServerMessage::AuditPage(page) => Some(Ok(core::mem::take(page.as_mut()))),
            ServerMessage::Denied { request_id: 0, exec_id: None, denied } => {
                Some(Err(ClientError::Denied(denied.clone())))
            }
            _ => None,
        })?
    }

    /// Gives somebody more than the rules of access do; `unit` as in [`Client::unlock`]. It's on disk when this returns.
    ///
    /// # Errors
    /// [`ClientError::Denied`]: the caller may not, or there can be no such grant; [`ClientError::Silent`] when no answer comes in time.
    pub fn grant_add(
        &mut self,
        uid: u32,
        unit: Option<&str>,
        terms: &GrantTerms,
    ) -> Result<GrantSummary, ClientError> {
        let unit = unit.map(ToOwned::to_owned);
        self.connection.send(&ClientMessage::GrantAdd { uid, unit, terms: terms.clone() }, &[])?;
        self.granted()
    }

    /// Asks for a grant, for the caller.
    ///
    /// # Errors
    /// As [`Client::grant_add`].
    pub fn grant_request(&mut self, terms: &GrantTerms) -> Result<GrantSummary, ClientError> {
        self.connection.send(&ClientMessage::GrantRequest(terms.clone()), &[])?;
        self.granted()
    }

    fn granted(&mut self) -> Result<GrantSummary, ClientError> {
        self.wait_for(Some(Self::ANSWER_WITHIN), None, |message| match message {
            ServerMessage::Granted(made) => Some(Ok(made.as_ref().clone())),
            ServerMessage::Denied { request_id: 0, exec_id: None, denied } => {
                Some(Err(ClientError::Denied(denied.clone())))
            }
            _ => None,
        })?
    }

    /// Answers somebody's request; the grant, if he is given it.
    ///
    /// # Errors
    /// As [`Client::grant_add`].
    pub fn grant_answer(&mut self, id: &str, yes: bool) -> Result<Option<GrantSummary>, ClientError> {
        self.connection.send(&ClientMessage::GrantAnswer { id: id.to_owned(), yes }, &[])?;
        self.wait_for(Some(Self::ANSWER_WITHIN), None, |message| match message {
            ServerMessage::Granted(made) => Some(Ok(Some(made.as_ref().clone()))),
            ServerMessage::GrantGone { .. } => Some(Ok(None)),
            ServerMessage::Denied { request_id: 0, exec_id: None, denied } => {
                Some(Err(ClientError::Denied(denied.clone())))
            }
            _ => None,
        })?
    }

    /// Takes a grant away, or withdraws a request; how many runs end with it. It's gone from the disk when this returns.
    ///
    /// # Errors
    /// As [`Client::grant_add`].
    pub fn grant_revoke(&mut self, id: &str) -> Result<u32, ClientError> {
        self.connection.send(&ClientMessage::GrantRevoke { id: id.to_owned() }, &[])?;
        self.wait_for(Some(Self::ANSWER_WITHIN), None, |message| match message {
            ServerMessage::GrantGone { runs, .. } => Some(Ok(*runs)),
            ServerMessage::Denied { request_id: 0, exec_id: None, denied } => {
                Some(Err(ClientError::Denied(denied.clone())))
            }
            _ => None,
        })?
    }

    /// The grants and requests that the caller may see.
    ///
    /// # Errors
    /// [`ClientError::Silent`] when no answer comes in time.
    pub fn grants(&mut self) -> Result<GrantList, ClientError> {
        self.connection.send(&ClientMessage::Grants, &[])?;
        self.wait_for(Some(Self::ANSWER_WITHIN), None, |message| match message {
            ServerMessage::Grants(list) => Some(list.as_ref().clone()),
            _ => None,
        })
    }

    /// Closes a tool's circuit breaker; whether there was anything to forget. For root and the user that the daemon runs as.
    ///
    /// # Errors
    /// [`ClientError::Denied`]: the caller may not, or no such tool is known; [`ClientError::Silent`] when no answer comes
    /// in time.
    pub fn reset_breaker(&mut self, tool: &str) -> Result<bool, ClientError> {
        self.connection.send(&ClientMessage::ResetBreaker { tool: tool.to_owned() }, &[])?;
        self.wait_for(Some(Self::ANSWER_WITHIN), None, |message| match message {
            ServerMessage::BreakerReset { tool: of, changed } if of == tool => Some(Ok(*changed)),
            ServerMessage::Denied { request_id: 0, exec_id: None, denied } => {
                Some(Err(ClientError::Denied(denied.clone())))
            }
            _ => None,
        })?
    }

    /// What runs came to, over restarts.
    ///
    /// # Errors
    /// [`ClientError::Denied`]: the caller may not see that, too many ask, or nothing is counted; [`ClientError::Silent`] when no
    /// answer comes in time.
    pub fn statistics(&mut self, question: &StatisticsQuestion) -> Result<StatisticsReport, ClientError> {
        self.connection.send(&ClientMessage::Statistics(question.clone()), &[])?;
        self.wait_for(Some(Self::ANSWER_WITHIN), None, |message| match message {
            ServerMessage::Statistics(report) => Some(Ok(report.as_ref().clone())),
            ServerMessage::Denied { request_id: 0, exec_id: None, denied } => {
                Some(Err(ClientError::Denied(denied.clone())))
            }
            _ => None,
        })?
    }

    /// What waits until somebody has approved it, the oldest first, and how many more wait than fit. `follow`: be told from then on of
    /// what comes to wait, by [`Client::receive`].
    ///
    /// # Errors
    /// [`ClientError::Denied`]: the caller may not approve; [`ClientError::Silent`] when no answer comes in time.
    pub fn approvals(&mut self, follow: bool) -> Result<(Vec<ApprovalSummary>, u32), ClientError> {
        self.ask_approvals(&ClientMessage::Approvals { follow, only: None })
    }

    /// One that waits, shown as long as may be; `None`: nothing waits under that number.
    ///
    /// # Errors
    /// As [`Client::approvals`].
    pub fn approval(&mut self, exec_id: ExecId) -> Result<Option<ApprovalSummary>, ClientError> {
        let only = Some(exec_id);
        let (waiting, _) = self.ask_approvals(&ClientMessage::Approvals { follow: false, only })?;
        Ok(waiting.into_iter().find(|one| one.exec_id == exec_id))
    }

    fn ask_approvals(&mut self, message: &ClientMessage) -> Result<(Vec<ApprovalSummary>, u32), ClientError> {
        self.connection.send(message, &[])?;
        self.wait_for(Some(Self::ANSWER_WITHIN), None, |message| match message {
            ServerMessage::Approvals { waiting, more } => Some(Ok((core::mem::take(waiting), *more))),
            ServerMessage::Denied { request_id: 0, exec_id: None, denied } => {
                Some(Err(ClientError::Denied(denied.clone())))
            }
            _ => None,
        })?
    }

    /// Answers for what waits; how many more have to approve it, and what became of it if that is decided. `digest`: what the answer
    /// is about.
    ///
    /// # Errors
    /// [`ClientError::Denied`]: the answer doesn't count; [`ClientError::Silent`] when no answer comes in time.
    pub fn answer_approval(
        &mut self,
        exec_id: ExecId,
        digest: [u8; 32],
        approve: bool,
        reason: &str,
    ) -> Result<(u32, Option<ApprovalEnd>), ClientError> {
        let reason = reason.to_owned();
        self.connection.send(&ClientMessage::Approve { exec_id, digest, approve, reason }, &[])?;
        self.wait_for(Some(Self::ANSWER_WITHIN), None, |message| match message {
            ServerMessage::ApprovalAnswered { exec_id: of, missing, how } if *of == exec_id => {
                Some(Ok((*missing, *how)))
            }
            ServerMessage::Denied { request_id: 0, exec_id: Some(of), denied } if *of == exec_id => {
                Some(Err(ClientError::Denied(denied.clone())))
            }
            _ => None,
        })?
    }

    /// A run's events until its `Exited`, waiting for each. Events of other runs stay for later. A denial that
    /// names the run (there's no such run) ends it with that error, and so does an error [about](ClientError::about) it;
    /// after [`ClientError::InputInDoubt`] the run's other events can be had by asking once more.
    pub fn events(&mut self, exec_id: ExecId) -> Events<'_> {
        Events::new(self, exec_id)
    }

    /// The next message of any kind, waiting for it at most so long.
    ///
    /// # Errors
    /// [`ClientError::Silent`] when none came in time; [`ClientError::Refused`] and [`ClientError::Closed`] at the
    /// connection's end.
    pub fn receive(&mut self, within: Option<Duration>) -> Result<ServerMessage, ClientError> {
        let deadline = within.map(|within| (Instant::now() + within, within));
        loop {
            if let Some(message) = self.next_waiting() {
                return message;
            }
            self.connection.wait_readable(deadline)?;
            self.pump()?;
        }
    }

    /// Reads what is there without waiting, and in a pause does what is due; call it when [`Client::socket`] is readable
    /// and when [`Client::due`] has come, then take messages with [`Client::next_waiting`].
    ///
    /// # Errors
    /// [`ClientError::Codec`] for bytes that are no message, [`ClientError::Version`] or [`ClientError::Refused`] by a
    /// supervisor that came back; the connection is of no use then.
    pub fn pump(&mut self) -> Result<(), ClientError> {
        self.pump_at(Instant::now())
    }

    /// As [`Client::pump`], at a time that the caller has looked at already. It goes by no other clock.
    ///
    /// # Errors
    /// As [`Client::pump`].
    pub fn pump_at(&mut self, now: Instant) -> Result<(), ClientError> {
        self.connection.pump(now)
    }

    /// What a poll loop waits for, to be readable. `None`: nothing is connected now, and only [`Client::due`] counts.
    #[must_use]
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.connection.socket()
    }

    /// When to pump at the latest. `None`: not before the socket is readable.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.connection.due()
    }

    /// The time without a supervisor, while there is none.
    #[must_use]
    pub fn pause(&self) -> Option<Pause> {
        self.connection.pause()
    }

    /// The next message that [`Client::pump`] read; `None`: nothing yet. An error that is [about](ClientError::about) one
    /// run or request leaves the rest as it is; any other is the connection's end, and comes again.
    pub fn next_waiting(&mut self) -> Option<Result<ServerMessage, ClientError>> {
        self.connection.next_waiting()
    }

    /// Waits for the message that answers, or the error about what was asked; what is neither is kept in its order.
    pub(crate) fn wait_for<T>(
        &mut self,
        within: Option<Duration>,
        about: Option<About>,
        mut answers: impl FnMut(&mut ServerMessage) -> Option<T>,
    ) -> Result<T, ClientError> {
        let deadline = within.map(|within| (Instant::now() + within, within));
        let mut seen = 0;
        loop {
            let waiting = self.connection.waiting();
            while seen < waiting.len() {
                match &mut waiting[seen] {
                    Ok(ServerMessage::Error(error)) => return Err(ClientError::Refused(error.clone())),
                    Ok(message) => {
                        if let Some(answer) = answers(message) {
                            waiting.remove(seen);
                            return Ok(answer);
                        }
                    }
                    Err(error) if about.is_some() && error.about() == about => {
                        if let Some(Err(error)) = waiting.remove(seen) {
                            return Err(error);
                        }
                    }
                    Err(_) => {}
                }
                seen += 1;
            }
            let full = waiting.len() >= MAX_WAITING;
            if let Some(end) = self.connection.end() {
                return Err(end);
            }
            if full {
                return Err(ClientError::Unexpected("more events than are kept while waiting for an answer"));
            }
            self.connection.wait_readable(deadline)?;
            self.pump()?;
        }
    }
}
