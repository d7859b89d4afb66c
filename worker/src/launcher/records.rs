//! What the next supervisor will have to know of each run: what the one before wanted kept of it, and what was said of it
//! since. A run's record stays until a supervisor needs it no more.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use stockade_protocol::ExecId;
use stockade_protocol::launch::{Adopted, FromLauncher, Launch, RunNote};
use stockade_wire::channel::{ChannelError, Packed};

/// The most records of ended runs. Twice what a supervisor keeps: beyond it the oldest go, as they do there.
const MAX_ENDED: usize = 4096;

/// The records, in the order in which the runs were asked for.
#[derive(Debug, Default)]
pub(super) struct Records {
    runs: BTreeMap<ExecId, Record>,
    ended: usize,
}

#[derive(Debug)]
struct Record {
    /// Whether it waits to be started.
    held: bool,
    /// When it came.
    launched: Instant,
    owner_uid: u32,
    ring_bytes: Option<u64>,
    note: RunNote,
    /// The write end of its standard input, which a supervisor fills.
    input: Option<OwnedFd>,
    input_bytes: Option<u64>,
    output_released: Option<u64>,
    said: Vec<Said>,
    ended: Option<Instant>,
}

/// A message, and the ring beside it.
#[derive(Debug)]
struct Said {
    packed: Rc<Packed>,
    ring: Option<OwnedFd>,
}

impl Record {
    /// Whether there was one.
    fn drop_ring(&mut self) -> bool {
        self.said.iter_mut().filter_map(|said| said.ring.take()).count() > 0
    }
}

/// A message with its descriptors, to be said again.
pub(super) type Again = (Rc<Packed>, Vec<OwnedFd>);

impl Records {
    /// A run that waits. `input`: as of [`begin`](Self::begin).
    pub(super) fn hold(&mut self, launch: &Launch, input: Option<OwnedFd>) {
        self.add(launch, input, true);
    }

    /// A run that is launched. `input`: the write end of its standard input, if a supervisor fills it.
    pub(super) fn begin(&mut self, launch: &Launch, input: Option<OwnedFd>) {
        match self.runs.get_mut(&launch.exec_id) {
            Some(record) => record.held = false,
            None => self.add(launch, input, false),
        }
    }

    fn add(&mut self, launch: &Launch, input: Option<OwnedFd>, held: bool) {
        let record = Record {
            held,
            launched: Instant::now(),
            owner_uid: launch.owner.uid,
            ring_bytes: launch.output.ring_bytes(),
            note: launch.note.clone(),
            input,
            input_bytes: None,
            output_released: None,
            said: Vec::new(),
            ended: None,
        };
        self.runs.insert(launch.exec_id, record);
    }

    /// Keeps what is said of a run, if that is to be said again; packed in any case.
    ///
    /// # Errors
    /// Those of encoding.
    pub(super) fn keep(
        &mut self,
        message: &FromLauncher,
        beside: &[OwnedFd],
    ) -> Result<Rc<Packed>, ChannelError> {
        let packed = Rc::new(Packed::new(message)?);
        let (exec_id, ends) = match message {
            FromLauncher::Started { exec_id, .. } | FromLauncher::Reaped { exec_id } => (exec_id, false),
            FromLauncher::Ended { exec_id, .. } => (exec_id, true),
            _ => return Ok(packed),
        };
        if let Some(record) = self.runs.get_mut(exec_id) {
            let ring = beside.first().and_then(|ring| ring.as_fd().try_clone_to_owned().ok());
            record.said.push(Said { packed: Rc::clone(&packed), ring });
            if ends {
                record.input = None;
                record.held = false;
                self.ended += usize::from(record.ended.replace(Instant::now()).is_none());
                self.make_room();
            }
        }
        Ok(packed)
    }

    fn make_room(&mut self) {
        if self.ended > MAX_ENDED {
            let oldest = self.runs.iter().find(|(_, record)| record.ended.is_some());
            if let Some(exec_id) = oldest.map(|(exec_id, _)| *exec_id) {
                self.release(exec_id);
            }
        }
    }

    /// No supervisor needs this run any more, if it has ended. Whether it had a ring.
    pub(super) fn release(&mut self, exec_id: ExecId) -> bool {
        if self.runs.get(&exec_id).is_none_or(|record| record.ended.is_none()) {
            return false;
        }
        self.ended -= 1;
        self.runs.remove(&exec_id).is_some_and(|mut record| record.drop_ring())
    }

    /// Nobody needs its output any more. `next_seq`: after its last record. Whether it had a ring.
    pub(super) fn release_output(&mut self, exec_id: ExecId, next_seq: u64) -> bool {
        let Some(record) = self.runs.get_mut(&exec_id) else { return false };
        record.output_released = Some(next_seq);
        record.drop_ring()
    }

    /// So many bytes were all of its input.
    pub(super) fn input_ended(&mut self, exec_id: ExecId, bytes: u64) {
        if let Some(record) = self.runs.get_mut(&exec_id) {
            record.input = None;
            record.input_bytes = Some(bytes);
        }
    }

    /// The runs whose input a supervisor was still writing.
    pub(super) fn fed(&self) -> Vec<ExecId> {
        let fed = self.runs.iter().filter(|(_, record)| record.input.is_some());
        fed.map(|(exec_id, _)| *exec_id).collect()
    }

    /// The runs that end with their client's connection.
    pub(super) fn attached(&self) -> Vec<ExecId> {
        let attached = self.runs.iter().filter(|(_, record)| !record.note.detach && record.ended.is_none());
        attached.map(|(exec_id, _)| *exec_id).collect()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// When the last of them ended, or came if it only waits. `None`: one runs.
    pub(super) fn last_end(&self) -> Option<Instant> {
        if self.runs.values().any(|record| record.ended.is_none() && !record.held) {
            return None;
        }
        self.runs.values().map(|record| record.ended.unwrap_or(record.launched)).max()
    }

    /// Everything a next supervisor has to be told, in order.
    ///
    /// # Errors
    /// Those of encoding, and of dup(2): what isn't told whole isn't told.
    pub(super) fn all(&self) -> Result<Vec<Again>, ChannelError> {
        let mut all = Vec::new();
        for (&exec_id, record) in &self.runs {
            let age = record.launched.elapsed().as_millis();
            let adopted = FromLauncher::Adopted(Box::new(Adopted {
                exec_id,
                owner_uid: record.owner_uid,
                ring_bytes: record.ring_bytes,
                held: record.held,
                age_ms: u64::try_from(age).unwrap_or(u64::MAX),
                input_bytes: record.input_bytes,
                output_released: record.output_released,
                note: record.note.clone(),
            }));
            all.push((Rc::new(Packed::new(&adopted)?), Vec::new()));
            for Said { packed, ring } in &record.said {
                let ring = ring.as_ref().map(OwnedFd::try_clone).transpose()?;
                all.push((Rc::clone(packed), ring.into_iter().collect()));
            }
        }
        Ok(all)
    }
}
