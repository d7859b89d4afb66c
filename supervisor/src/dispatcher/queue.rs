//! The queue of runs that wait for a slot: fair between owners, then between one owner's connections, then first
//! in, first out.
//!
//! Two levels, because a flood has two shapes: one user against another, and one of a user's editors against the
//! next. Each level is a round robin over those that have something waiting; nobody who waits is passed over
//! twice in a row. Nothing here knows slots, bounds or time.

use std::collections::{HashMap, VecDeque};

use stockade_protocol::ExecId;

use super::ConnectionId;

/// Runs that wait.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    turns: VecDeque<u32>,
    owners: HashMap<u32, OwnerQueue>,
    length: usize,
}

#[derive(Debug, Default)]
struct OwnerQueue {
    turns: VecDeque<ConnectionId>,
    connections: HashMap<ConnectionId, VecDeque<ExecId>>,
    length: usize,
}

impl FairQueue {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// How many of one owner's wait.
    pub(super) fn len_of(&self, owner: u32) -> usize {
        self.owners.get(&owner).map_or(0, |queue| queue.length)
    }

    /// Adds a run behind those of its connection.
    pub(super) fn push(&mut self, owner: u32, connection: ConnectionId, run: ExecId) {
        let queue = self.owners.entry(owner).or_default();
        if queue.length == 0 {
            self.turns.push_back(owner);
        }
        let waiting = queue.connections.entry(connection).or_default();
        if waiting.is_empty() {
            queue.turns.push_back(connection);
        }
        waiting.push_back(run);
        queue.length += 1;
        self.length += 1;
    }

    /// Takes the run whose turn it is, of the owners that `may` have one now. The others keep their turns.
    pub(super) fn pop(&mut self, may: impl Fn(u32) -> bool) -> Option<ExecId> {
        let turn = self.turns.iter().position(|owner| may(*owner))?;
        let owner = self.turns.remove(turn)?;
        let queue = self.owners.get_mut(&owner)?;
        let connection = queue.turns.pop_front()?;
        let waiting = queue.connections.get_mut(&connection)?;
        let run = waiting.pop_front()?;
        if waiting.is_empty() {
            queue.connections.remove(&connection);
        } else {
            queue.turns.push_back(connection);
        }
        queue.length -= 1;
        if queue.length == 0 {
            self.owners.remove(&owner);
        } else {
            self.turns.push_back(owner);
        }
        self.length -= 1;
        Some(run)
    }

    /// Takes a run out of turn. Whether it was there.
    pub(super) fn remove(&mut self, owner: u32, connection: ConnectionId, run: ExecId) -> bool {
        let Some(queue) = self.owners.get_mut(&owner) else { return false };
        let Some(waiting) = queue.connections.get_mut(&connection) else { return false };
        let Some(position) = waiting.iter().position(|other| *other == run) else { return false };
        waiting.remove(position);
        if waiting.is_empty() {
            queue.connections.remove(&connection);
            queue.turns.retain(|other| *other != connection);
        }
        queue.length -= 1;
        self.length -= 1;
        if queue.length == 0 {
            self.owners.remove(&owner);
            self.turns.retain(|other| *other != owner);
        }
        true
    }
}

/// Bytes of the requests that wait, in total and of each owner.
#[derive(Debug, Default)]
pub(super) struct QueueBytes {
    pub(super) total: usize,
    owners: HashMap<u32, usize>,
}

impl QueueBytes {
    /// An owner's.
    pub(super) fn of(&self, owner: u32) -> usize {
        self.owners.get(&owner).copied().unwrap_or(0)
    }

    /// A request waits.
    pub(super) fn put(&mut self, owner: u32, bytes: usize) {
        self.total += bytes;
        *self.owners.entry(owner).or_default() += bytes;
    }

    /// A request waits no more.
    pub(super) fn take(&mut self, owner: u32, bytes: usize) {
        self.total = self.total.saturating_sub(bytes);
        let left = self.of(owner).saturating_sub(bytes);
        if left == 0 {
            self.owners.remove(&owner);
        } else {
            self.owners.insert(owner, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: u8) -> ExecId {
        ExecId::from_bytes([number; 16])
    }

    #[test]
    fn owners_take_turns_however_many_one_of_them_has_waiting() {
        let mut queue = FairQueue::default();
        for number in 0..4 {
            queue.push(1, ConnectionId(1), run(number));
        }
        queue.push(2, ConnectionId(2), run(10));
        queue.push(2, ConnectionId(2), run(11));
        let order: Vec<ExecId> = core::iter::from_fn(|| queue.pop(|_| true)).collect();
        assert_eq!(order, [0, 10, 1, 11, 2, 3].map(run));
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn connections_of_one_owner_take_turns() {
        let mut queue = FairQueue::default();
        for number in 0..3 {
            queue.push(1, ConnectionId(1), run(number));
        }
        queue.push(1, ConnectionId(2), run(10));
        let order: Vec<ExecId> = core::iter::from_fn(|| queue.pop(|_| true)).collect();
        assert_eq!(order, [0, 10, 1, 2].map(run));
    }

    #[test]
    fn a_removed_run_leaves_no_turn_behind() {
        let mut queue = FairQueue::default();
        queue.push(1, ConnectionId(1), run(1));
        assert!(queue.remove(1, ConnectionId(1), run(1)));
        assert!(!queue.remove(1, ConnectionId(1), run(1)));
        queue.push(2, ConnectionId(2), run(2));
        queue.push(1, ConnectionId(1), run(3));
        assert_eq!(queue.len_of(1), 1);
        assert_eq!(queue.pop(|_| true), Some(run(2)));
        assert_eq!(queue.pop(|_| true), Some(run(3)));
        assert_eq!(queue.pop(|_| true), None);
    }
}
