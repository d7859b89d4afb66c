//! Who reads the record through the daemon, since he may and can't read its files.
//!
//! ```text
//! Audit ─may, has room─> recorded ─durable─> queued ─a thread is free─> made ──> AuditPage ─AuditMore─> queued, …
//!                                              ^                          └─the record has ended, and is followed─> waits
//!                                              └────────────────────────something was written────────────────────────┘
//! ```
//!
//! Files are read and records opened by a thread for each page, few at once: the disk may be slow, and may not answer at all. Between two
//! pages a reading holds what was asked for and a place; a page that was made waits for its client in his own connection's buffer, and the
//! next isn't begun before he asks. Keys stay in the daemon.
//!
//! That somebody reads, and what, is durable before he's told anything.

use std::rc::Weak;
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use stockade_audit::{AuditError, Class, Page, Passed, Place};
use stockade_gate::Action;
use stockade_protocol::audit::{AuditClass, AuditPage, AuditQuestion, AuditRecord};
use stockade_protocol::bounds::{MAX_AUDIT_FILTER, MAX_AUDIT_LAST};
use stockade_protocol::client::ServerMessage;
use stockade_protocol::denied::{Denied, DenyReason};
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::asked_of_record::{class_of, filter_of, request_of};
use super::breakers::may_operate;
use super::readings::{Made, Reading, Standing, Work};
use super::state::{Daemon, State};
use crate::admission::chain;
use crate::dispatcher::ConnectionId;
use crate::record::{Record, WITHIN, unreadable};

/// Pages that are made at once: as many threads, and as many times what one looks at.
const AT_ONCE: usize = 2;
/// How often is looked whether something was written that who follows waits for.
const FOLLOW_EVERY: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 500 });
/// When to ask again while too many read, in milliseconds.
const BUSY_MS: u64 = 1_000;

impl State {
    /// A client asks for records.
    pub(super) fn read_audit(&mut self, connection: ConnectionId, uid: u32, question: AuditQuestion) {
        if let Err(denied) = self.begin_reading(connection, uid, question) {
            self.refuse_reading(connection, denied);
        }
    }

    fn begin_reading(
        &mut self,
        connection: ConnectionId,
        uid: u32,
        question: AuditQuestion,
    ) -> Result<(), Denied> {
        self.may_read(connection, uid)?;
        within_bounds(&question)?;
        let Some(record) = &self.record else { return Err(none()) };
        let standing = self.readings.of.get(&connection).map(|reading| reading.standing);
        if standing.is_some_and(|standing| !matches!(standing, Standing::Idle | Standing::Waits)) {
            return Err(busy("this connection waits for a page of the record already"));
        }
        self.readings.forget(connection);
        if !self.readings.has_room(uid, self.settings.scope.is_machine()) {
            return Err(busy("too many read the record"));
        }
        self.readings.begun += 1;
        let number = self.readings.begun;
        let request = request_of(&question);
        tracing::info!(uid, asked = ?request.given.as_ref().map(|given| &given.text), "the record is read");
        let (tell, told) = oneshot::channel();
        record.intend_reading(self.principal(connection), request, |recorded| drop(tell.send(recorded)));
        let reading = Reading {
            number,
            uid,
            last: question.last,
            follow: question.follow,
            filter: filter_of(question),
            place: Place::default(),
            passed: Passed::default(),
            seen: 0,
            generation: self.gate.generation(),
            standing: Standing::Recorded,
            stop: Arc::default(),
            queued: 0,
        };
        self.readings.of.insert(connection, reading);
        let daemon = Weak::clone(&self.daemon);
        spawn_local(async move {
            let recorded = match timeout(WITHIN, told).await {
                Ok(told) => told.unwrap_or_else(|_closed| Err("the record is closed".to_owned())),
                Err(_elapsed) => Err(format!("the disk hasn't answered for {WITHIN:?}")),
            };
            if let Some(daemon) = daemon.upgrade() {
                daemon.state.borrow_mut().reading_recorded(connection, number, recorded);
            }
        });
        Ok(())
    }

    /// Whether somebody may read the record.
    ///
    /// # Errors
    /// The refusal, which stands in the record.
    fn may_read(&mut self, connection: ConnectionId, uid: u32) -> Result<(), Denied> {
        let daemons = self.settings.uid;
        self.operates(connection, Action::ReadAudit, || may_operate(uid, daemons, "read the record"))
    }

    /// That it's asked for is durable, or why it isn't.
    fn reading_recorded(&mut self, connection: ConnectionId, number: u64, recorded: Result<(), String>) {
        let is_required = self.record.as_ref().is_none_or(|record| record.is_required);
        if self.readings.get(connection, number).is_none() {
            return;
        }
        match recorded {
            Err(why) if is_required => {
                tracing::error!(why, "the record isn't read: that it was asked for can't be recorded");
                self.end_reading(connection, unreadable());
            }
            Err(why) => {
                tracing::warn!(why, "that the record is read isn't recorded: audit.required is off");
                self.queue_page(connection);
            }
            Ok(()) => self.queue_page(connection),
        }
    }

    /// A client asks for the next page.
    pub(super) fn read_more(&mut self, connection: ConnectionId, uid: u32) {
        match self.readings.of.get(&connection).map(|reading| reading.standing) {
            None => {
                let text = "nothing is being read by this connection: ask for records first";
                self.refuse_reading(connection, Denied::new(DenyReason::BadRequest, text));
            }
            Some(Standing::Idle) => match self.may_read(connection, uid) {
                Ok(()) => self.queue_page(connection),
                Err(denied) => self.end_reading(connection, denied),
            },
            Some(_) => {
                self.refuse_reading(
                    connection,
                    busy("this connection waits for a page of the record already"),
                );
            }
        }
    }

    fn queue_page(&mut self, connection: ConnectionId) {
        self.readings.queue(connection);
        self.begin_pages();
        let Some(reading) = self.readings.of.get(&connection) else { return };
        if reading.standing != Standing::Queued {
            return;
        }
        // All threads have one: they may wait for a disk that doesn't answer.
        let (daemon, is_it) = (Weak::clone(&self.daemon), (reading.number, reading.queued));
        spawn_local(async move {
            sleep(WITHIN).await;
            if let Some(daemon) = daemon.upgrade() {
                daemon.state.borrow_mut().still_queued(connection, is_it);
            }
        });
    }

    /// A page that hasn't been begun for so long isn't.
    fn still_queued(&mut self, connection: ConnectionId, is_it: (u64, u64)) {
        let reading = self.readings.of.get(&connection);
        if reading.is_some_and(|it| it.standing == Standing::Queued && (it.number, it.queued) == is_it) {
            self.end_reading(connection, unreadable());
        }
    }

    /// Has pages made that are to be, as many as may be at once.
    fn begin_pages(&mut self) {
        while self.readings.at_work < AT_ONCE {
            let Some(connection) = self.readings.queued.pop_front() else { return };
            let Some((number, work)) = self.work_of(connection) else {
                self.end_reading(connection, none());
                continue;
            };
            let (sender, made) = oneshot::channel();
            // Nobody may wait any more.
            let work = move || drop(sender.send(work.make()));
            if let Err(error) = Builder::new().name("audit-reading".to_owned()).spawn(work) {
                tracing::warn!(%error, "the record can't be read: no thread can be started");
                self.end_reading(connection, unreadable());
                continue;
            }
            self.readings.at_work += 1;
            spawn_local(hear(Weak::clone(&self.daemon), (connection, number), made));
        }
    }

    fn work_of(&mut self, connection: ConnectionId) -> Option<(u64, Work)> {
        let record = self.record.as_ref()?;
        let reading = self.readings.of.get_mut(&connection)?;
        let (directory, keys) = record.for_reading();
        reading.standing = Standing::Made;
        // Before it's looked at: what comes meanwhile is looked for again.
        reading.seen = record.durable();
        let (last, stop) = (reading.last.take(), Arc::clone(&reading.stop));
        let (filter, place) = (reading.filter.clone(), reading.place);
        Some((reading.number, Work { directory, keys, filter, last, place, stop }))
    }

    /// A page is made, or can't be; a thread is free.
    fn page_made(&mut self, connection: ConnectionId, number: u64, made: Result<Made, String>) {
        self.readings.at_work = self.readings.at_work.saturating_sub(1);
        if self.readings.get(connection, number).is_some() {
            match made {
                Ok(made) => self.tell_page(connection, made),
                Err(why) => {
                    tracing::error!(why, "the record can't be read for a client");
                    self.end_reading(connection, unreadable());
                }
            }
        }
        self.begin_pages();
    }

    fn tell_page(&mut self, connection: ConnectionId, made: Made) {
        let generation = self.gate.generation();
        let Some(reading) = self.readings.of.get_mut(&connection) else { return };
        let Made { page, place, passed, is_partial } = made;
        reading.place = place;
        reading.passed.erased += passed.erased;
        reading.passed.unreadable += passed.unreadable;
        let (is_end, follow) = (page.is_last, reading.follow);
        if is_end && follow && page.rows.is_empty() && !is_partial {
            reading.standing = Standing::Waits;
            return self.watch_record();
        }
        reading.standing = Standing::Idle;
        let Passed { erased, unreadable } = reading.passed;
        let uid = reading.uid;
        let was_let_by_others = core::mem::replace(&mut reading.generation, generation) != generation;
        if let Err(denied) = if was_let_by_others { self.may_read(connection, uid) } else { Ok(()) } {
            return self.end_reading(connection, denied);
        }
        let more = !is_end || follow;
        if !more {
            self.readings.forget(connection);
        }
        let records = records_of(page);
        let page = AuditPage { records, more, partial: is_partial, erased, unreadable };
        let page = ServerMessage::AuditPage(Box::new(page));
        if !self.connections.get_mut(&connection).is_some_and(|outbox| outbox.offer(&page)) {
            self.end_reading(connection, busy("there is no memory for a page of the record now"));
        }
    }

    /// Looks whether something was written, for as long as somebody waits for that.
    fn watch_record(&mut self) {
        if core::mem::replace(&mut self.readings.is_watched, true) {
            return;
        }
        let daemon = Weak::clone(&self.daemon);
        spawn_local(async move {
            loop {
                sleep(FOLLOW_EVERY).await;
                let Some(daemon) = daemon.upgrade() else { return };
                if !daemon.state.borrow_mut().look_for_more() {
                    return;
                }
            }
        });
    }

    /// Has those who wait told what was written; whether anybody still waits.
    fn look_for_more(&mut self) -> bool {
        let durable = self.record.as_ref().map(Record::durable);
        let waits = |(_, reading): &(&ConnectionId, &Reading)| reading.standing == Standing::Waits;
        let waiting: Vec<(ConnectionId, u64)> =
            self.readings.of.iter().filter(waits).map(|(id, reading)| (*id, reading.seen)).collect();
        for (connection, _) in waiting.iter().filter(|(_, seen)| durable != Some(*seen)) {
            self.readings.queue(*connection);
        }
        self.begin_pages();
        let waits = self.readings.of.values().any(|reading| reading.standing == Standing::Waits);
        self.readings.is_watched = waits;
        waits
    }

    /// The disk hasn't answered in time. Its thread isn't free before it has.
    fn page_is_late(&mut self, connection: ConnectionId, number: u64) {
        if self.readings.get(connection, number).is_some() {
            tracing::error!("the record can't be read for a client: the disk hasn't answered for {WITHIN:?}");
            self.end_reading(connection, unreadable());
        }
    }

    fn end_reading(&mut self, connection: ConnectionId, denied: Denied) {
        self.readings.forget(connection);
        self.refuse_reading(connection, denied);
    }

    fn refuse_reading(&mut self, connection: ConnectionId, denied: Denied) {
        self.answer(connection, &ServerMessage::Denied { request_id: 0, exec_id: None, denied });
    }
}

async fn hear(
    daemon: Weak<Daemon>,
    (connection, number): (ConnectionId, u64),
    mut made: oneshot::Receiver<Result<Made, AuditError>>,
) {
    let told = match timeout(WITHIN, &mut made).await {
        Ok(told) => told,
        Err(_elapsed) => {
            if let Some(daemon) = daemon.upgrade() {
                daemon.state.borrow_mut().page_is_late(connection, number);
            }
            made.await
        }
    };
    let made = match told {
        Ok(made) => made.map_err(|error| chain(&error)),
        Err(_closed) => Err("its thread is gone".to_owned()),
    };
    if let Some(daemon) = daemon.upgrade() {
        daemon.state.borrow_mut().page_made(connection, number, made);
    }
}

fn records_of(page: Page) -> Vec<AuditRecord> {
    let class_of = |class| match class {
        Class::Security => AuditClass::Security,
        Class::Access => AuditClass::Access,
        Class::Operation => AuditClass::Operation,
    };
    let rows = page.rows.into_iter().map(|row| AuditRecord {
        sequence: row.sequence,
        time_ns: row.time,
        class: class_of(row.class),
        text: row.text.into(),
    });
    rows.collect()
}

fn within_bounds(question: &AuditQuestion) -> Result<(), Denied> {
    let wrong = |text: String| Err(Denied::new(DenyReason::BadRequest, text));
    let texts = [&question.tool, &question.outcome, &question.exec, &question.event];
    if texts.into_iter().flatten().any(|text| text.len() > MAX_AUDIT_FILTER) {
        return wrong(format!("a text that records are asked for by has {MAX_AUDIT_FILTER} bytes at most"));
    }
    if question.last.is_some_and(|last| last > MAX_AUDIT_LAST) || question.classes.len() > Class::ALL.len() {
        return wrong(format!("of the last records {MAX_AUDIT_LAST} may be asked for, and of three classes"));
    }
    // All classes are asked for by none.
    if question.classes.iter().any(|class| class_of(*class).is_none()) {
        return wrong("a class of records that this daemon doesn't know".to_owned());
    }
    Ok(())
}

fn none() -> Denied {
    let denied = Denied::new(DenyReason::Unsupported, "this daemon records nothing");
    denied.remedy("an operator can give it a key: audit.key in the configuration")
}

fn busy(text: &str) -> Denied {
    Denied::new(DenyReason::Busy, text).retry_after(BUSY_MS).remedy("ask again in a moment")
}
