//! Who may have a question waiting: nobody so many that others find no room.

use stockade_stats::MOST_QUESTIONS;

use crate::dispatcher::ConnectionId;

/// Questions of one user that may wait at once; of one connection, one.
const MOST_OF_A_USER: usize = 2;
/// Places that only who operates the daemon may have: as many as root and the daemon's own user have together.
const KEPT: usize = 2 * MOST_OF_A_USER;

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) connection: ConnectionId,
    pub(crate) uid: u32,
}

/// Whether one more may wait.
pub(super) fn has_room(asking: &[Asker], asker: Asker, is_operator: bool) -> bool {
    let room = if is_operator { MOST_QUESTIONS } else { MOST_QUESTIONS - KEPT };
    let his = asking.iter().filter(|other| other.uid == asker.uid).count();
    let is_alone = asking.iter().all(|other| other.connection != asker.connection);
    asking.len() < room && his < MOST_OF_A_USER && is_alone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_few_and_whoever_asks_root_and_the_daemons_user_have_room() {
        let mut asking = Vec::new();
        let mut connections = 0_u64..;
        let mut fresh = |uid| Asker { connection: ConnectionId(connections.next().unwrap()), uid };
        for uid in 1_000..1_100 {
            for _ in 0..3 {
                let asker = fresh(uid);
                if has_room(&asking, asker, false) {
                    assert!(
                        !has_room(&[asking.clone(), vec![asker]].concat(), asker, true),
                        "one a connection"
                    );
                    asking.push(asker);
                }
            }
            let his = asking.iter().filter(|asker| asker.uid == uid).count();
            assert!(his == MOST_OF_A_USER || asking.len() == MOST_QUESTIONS - KEPT, "{his}");
        }
        assert_eq!(asking.len(), MOST_QUESTIONS - KEPT);
        for uid in [0, 990] {
            for may in [true, true, false] {
                let asker = fresh(uid);
                assert_eq!(has_room(&asking, asker, true), may);
                if may {
                    asking.push(asker);
                }
            }
        }
        assert_eq!(asking.len(), MOST_QUESTIONS);
    }
}
