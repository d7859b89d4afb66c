//! What would give privilege to whoever executes, opens or reads it later on the host.

use super::{Attack, Filter, Identity, Landlock, Twin, WRITABLE, attack};

const READ_ONLY: &str = "`strict` writes nothing";
const NO: &[&str] = &["errno=1", "errno=38", "errno=13"];

const fn bits(name: &'static str) -> Attack {
    attack(name, name, NO).only(WRITABLE, READ_ONLY)
}

const fn node(name: &'static str, words: &'static str) -> Attack {
    attack(name, words, NO).by(&[Landlock]).only(WRITABLE, READ_ONLY)
}

pub(super) const ATTACKS: &[Attack] = &[
    bits("open-setuid"),
    bits("openat-setgid"),
    bits("openat-setuid-high-bits"),
    bits("temporary-setuid"),
    bits("creat-setuid"),
    bits("mkdir-setgid"),
    bits("mkdirat-setgid"),
    bits("mknod-setuid"),
    bits("mknodat-setuid"),
    bits("chmod-setgid"),
    bits("chmod-setuid-high-bits"),
    bits("fchmod-setuid"),
    bits("fchmodat-setgid"),
    bits("fchmodat2-setuid"),
    bits("character-device").by(&[Identity, Filter]).twin(Twin::Root),
    bits("character-device-high-bits").by(&[Identity, Filter]).twin(Twin::Root),
    bits("block-device").by(&[Identity, Filter]).twin(Twin::Root),
    bits("whiteout-device").by(&[Filter, Landlock]),
    bits("rename-whiteout"),
    node("fifo", "fifo"),
    node("fifo-at", "fifo-at"),
    node("socket-node", "socket-node"),
    node("socket-that-listens", "bind-unix {work}/left.sock"),
    bits("file-capability").by(&[Identity]).twin(Twin::Root),
    bits("trusted-attribute").by(&[Identity]).twin(Twin::Root),
];
