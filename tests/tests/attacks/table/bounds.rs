//! What the kernel has a bounded number of for everybody, or for a user: one run must not have it all.

use super::{Attack, Filter, Identity, Landlock, Namespaces, ROOTED, Twin, attack};

const FULL: &[&str] = &["errno=24", "errno=28", "errno=11", "errno=12", "errno=13", "errno=1", "errno=38"];

const fn many(name: &'static str, words: &'static str) -> Attack {
    attack(name, words, FULL).twin(Twin::User)
}

const fn few(name: &'static str, words: &'static str) -> Attack {
    many(name, words).twin(Twin::Bare)
}

pub(super) const ATTACKS: &[Attack] = &[
    few("inotify-instances", "watchers 64")
        .by(&[Namespaces])
        .only(ROOTED, "`minimal` has no user namespace to count in: they are its user's"),
    few("terminals", "terminals 200").by(&[Namespaces, Landlock]),
    few("asynchronous-requests", "call 206 4096 [8").by(&[Filter]),
    many("many-descriptors", "files 5000").by(&[Identity]),
    many("pending-signals", "timers 5000").by(&[Identity]),
    many("locked-memory", "locked 64").by(&[Identity]).twin(Twin::Root),
];
